#!/usr/bin/env bash
# A bare Debian of this machine's version with systemd, from the mirrors that apt has: target/debian/CODENAME.tar, made
# once. Prints its path.
set -euo pipefail
# shellcheck source=.packaging/check/lib.sh
. "$(dirname "$0")/lib.sh"

need mmdebstrap apt-get install mmdebstrap
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
tar=target/debian/$codename.tar
if [ ! -e "$tar" ]; then
    mkdir -p target/debian
    sources=()
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
        ! grep -qs debian "$file" || sources+=("$file")
    done
    mmdebstrap --quiet --mode=root --variant=essential --include=systemd,ca-certificates \
        --dpkgopt=force-unsafe-io "$codename" "$tar.new.tar" "${sources[@]}" >&2
    mv "$tar.new.tar" "$tar"
fi
echo "$tar"
