#!/usr/bin/env bash
# What is in the program, as CycloneDX: target/packages/nudged-VERSION-CPU.cdx.json. It lists crates; the C library inside
# aws-lc-sys has that crate's version.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

program
cargo cyclonedx --version >/dev/null 2>&1 || fail 'there is no cargo-cyclonedx: cargo install --locked cargo-cyclonedx'
file=nudged-$VERSION-$CPU.cdx
# Crates for this target alone, without those that only build it, or only test it.
SOURCE_DATE_EPOCH=$EPOCH cargo cyclonedx --quiet --format json --spec-version 1.5 --features full --no-build-deps \
    --target "$CPU-unknown-linux-musl" --override-filename "$file"
mv "$file.json" "$OUT/$file.json"
checksum "$OUT/$file.json"
