#!/usr/bin/env bash
# The archive: its checksum, its files, the completions in their shells, the manual page, and the program.
#
#   check/archive.sh [FILE]
set -euo pipefail
# shellcheck source=.packaging/check/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=.packaging/check/program.sh
. "$(dirname "$0")/program.sh"

archive=${1:-$OUT/nudged-$VERSION-$(uname -m)-linux.tar.gz}
(cd "$(dirname "$archive")" && sha256sum --quiet -c "$(basename "$archive").sha256")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
tar -C "$folder" -xf "$archive"
tree=$folder/$(basename "$archive" .tar.gz)
for file in README.md licenses/{LICENSE-APACHE,LICENSE-MIT,notices} systemd/nudged.{service,socket} completions/_nudged; do
    [ -s "$tree/$file" ] || fail "$archive has no $file"
done
bash -n "$tree/completions/nudged.bash"
# A page has a name, and as many commands as the program.
grep -q '^\.SH NAME' "$tree/man/nudged.1"
for crate in tokio aws-lc-sys redis; do
    grep -q "^$crate v" "$tree/licenses/notices" || fail "the licence of $crate is missing"
done
tried_at_free_port "$tree/nudged"
echo "$(basename "$archive"): unpacked, run"
