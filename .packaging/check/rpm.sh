#!/usr/bin/env bash
# The rpm, as far as Debian's rpm can show it: its description and its scripts; it is unpacked, and the program run.
#
#   check/rpm.sh [FILE]
set -euo pipefail
# shellcheck source=.packaging/check/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=.packaging/check/program.sh
. "$(dirname "$0")/program.sh"

rpm=$(realpath "${1:-$OUT/nudged-$VERSION-1.x86_64.rpm}")
need rpm apt-get install rpm rpm2cpio cpio
rpm -qip "$rpm"
rpm --checksig --nosignature "$rpm"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for tag in PREIN POSTIN PREUN POSTUN; do
    rpm -qp --queryformat "%{$tag}" "$rpm" >"$folder/script"
    sh -n "$folder/script"
done
expect 'its settings' /etc/nudged.env "$(rpm -qcp "$rpm")"
# 17 = configuration, and not replaced.
expect 'how they are kept' 17 "$(rpm -qp --queryformat '[%{FILENAMES} %{FILEFLAGS}\n]' "$rpm" | sed -n 's#^/etc/nudged.env ##p')"
expect 'libraries that it needs' '' "$(rpm -qRp "$rpm" | grep -v '^rpmlib(' || true)"

(cd "$folder" && rpm2cpio "$rpm" | cpio --quiet -idm)
for file in usr/bin/nudged usr/lib/systemd/system/nudged.{service,socket} usr/share/man/man1/nudged.1.gz \
    usr/share/bash-completion/completions/nudged usr/share/zsh/site-functions/_nudged \
    usr/share/fish/vendor_completions.d/nudged.fish usr/share/licenses/nudged/LICENSE-MIT usr/share/doc/nudged/notices.gz; do
    [ -s "$folder/$file" ] || fail "$rpm has no $file"
done
expect 'the mode of the settings' 640 "$(stat -c %a "$folder/etc/nudged.env")"

# The scripts' own doing, in a folder that has nothing of systemd.
rpm -qp --queryformat '%{POSTIN}' "$rpm" | sed "s#/etc/nudged#$folder/etc/nudged#g; s#/run/systemd/system#/nonexistent#g; s#systemctl#false#g" >"$folder/post"
! sed 's#/dev/urandom#/nonexistent#' "$folder/post" | sh -s 1 2>/dev/null || fail 'its script goes on without a secret'
expect 'secrets without random bytes' '' "$(find "$folder/etc/nudged" -type f)"
sh -e "$folder/post" 1
expect 'the mode of the secret' 600 "$(stat -c %a "$folder/etc/nudged/jwt-secret")"
secret=$(cat "$folder/etc/nudged/jwt-secret")
sh -e "$folder/post" 2
expect 'the secret after an upgrade' "$secret" "$(cat "$folder/etc/nudged/jwt-secret")"

tried_at_free_port "$folder/usr/bin/nudged"
echo "$(basename "$rpm"): described, unpacked, run"
