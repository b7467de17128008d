#!/usr/bin/env bash
# The program as one file that needs no other: target/packages/nudged, and nudged.debug with its symbols.
#
#   --target TRIPLE   of rustc. Without it: musl where that is installed (rustup target add x86_64-unknown-linux-musl, and
#                     apt-get install musl-tools), and otherwise glibc, linked statically
#   --profile NAME    of cargo: release; .ci/run has it built as its tests are (dev)
set -euo pipefail
. "$(dirname "$0")/lib.sh"

target='' profile=release
while [ $# -gt 0 ]; do
    case $1 in
    --target) target=$2 ;;
    --profile) profile=$2 ;;
    *) fail "$1 is unknown: --target TRIPLE and --profile NAME are not" ;;
    esac
    shift 2
done
host=$(rustc -vV | sed -n 's/^host: //p')
if [ -z "$target" ]; then
    target=$host
    # The cryptography is C, and needs the compiler of that library.
    if rustup target list --installed 2>/dev/null | grep -qxF "${host%-gnu}-musl" && command -v musl-gcc >/dev/null; then
        target=${host%-gnu}-musl
    fi
fi

arguments=(--locked --features full --bin nudged --profile "$profile")
folder=target
if [ "$target" != "$host" ]; then
    arguments+=(--target "$target")
    folder=target/$target
fi
case $target in
*-musl)
    cargo build "${arguments[@]}"
    ;;
*-gnu)
    # For the program alone: no crate is compiled a second time for it.
    cargo rustc "${arguments[@]}" -- -C target-feature=+crt-static
    ;;
*)
    fail "$target: packages are made for Linux"
    ;;
esac

need objcopy apt-get install binutils
built=$folder/${profile/#dev/debug}/nudged
# A file of its own: the next cargo build replaces that one.
rm -f "$OUT/nudged" "$OUT/nudged.debug"
objcopy --only-keep-debug --compress-debug-sections "$built" "$OUT/nudged.debug"
objcopy --strip-all --remove-section=.comment --add-gnu-debuglink="$OUT/nudged.debug" "$built" "$OUT/nudged"
program
