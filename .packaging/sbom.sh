#!/usr/bin/env bash
# What is linked into the program, as CycloneDX: target/packages/nudged-VERSION-CPU.cdx.json. It lists crates; the C
# library inside aws-lc-sys goes by that crate's version. (cargo-cyclonedx 0.5 also lists crates of tests, ring for
# instance, which scanners then warn of.)
set -euo pipefail
. "$(dirname "$0")/lib.sh"

program
crates
file=$OUT/nudged-$VERSION-$CPU.cdx.json
cargo metadata --locked --format-version 1 --features full |
    python3 .packaging/sbom.py "$OUT/files/crates" Cargo.lock "$EPOCH" >"$file"
checksum "$file"
