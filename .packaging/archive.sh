#!/usr/bin/env bash
# What `cargo binstall` and a person without a package take: target/packages/nudged-VERSION-CPU-linux.tar.gz
set -euo pipefail
. "$(dirname "$0")/lib.sh"

program
generated
notices
name=nudged-$VERSION-$CPU-linux
tree=$OUT/files/$name
rm -rf "$tree"
mkdir -p "$tree"/{man,completions,systemd,licenses}
install -m 755 "$PROGRAM" "$tree/nudged"
install -m 644 README.md SECURITY.md CHANGELOG.md "$tree"
install -m 644 "$OUT/files/nudged.1" "$tree/man"
install -m 644 "$OUT/files/"{nudged.bash,_nudged,nudged.fish} "$tree/completions"
install -m 644 .systemd/nudged.{service,socket} "$tree/systemd"
install -m 644 LICENSE-APACHE LICENSE-MIT "$OUT/files/notices" "$tree/licenses"
tar -C "$OUT/files" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$EPOCH" -cf - "$name" |
    gzip -9n >"$OUT/$name.tar.gz"
checksum "$OUT/$name.tar.gz"
