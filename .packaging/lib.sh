# shellcheck shell=bash
# What the scripts of this folder share; they source it.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# The folder of all that they make.
OUT=target/packages
mkdir -p "$OUT"
VERSION=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
# The times of files in packages, so that the same commit makes the same package.
EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)}
export VERSION

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# need PROGRAM PACKAGE…: that there is such a program.
need() {
    command -v "$1" >/dev/null || fail "there is no $1: ${*:2}"
}

# The program to be packaged, in PROGRAM: the one that the caller names there, or the one that binary.sh builds. CPU is
# the name that the kernel has for what it runs on.
program() {
    if [ -z "${PROGRAM:-}" ]; then
        .packaging/binary.sh
        PROGRAM=$OUT/nudged
    fi
    need readelf apt-get install binutils
    case $(readelf -h "$PROGRAM" | sed -n 's/^ *Machine: *//p') in
    *X86-64) CPU=x86_64 ;;
    AArch64) CPU=aarch64 ;;
    *) fail "$PROGRAM is for another processor" ;;
    esac
    readelf -lW "$PROGRAM" | grep -q INTERP && fail "$PROGRAM is not linked statically"
    [ "$("$PROGRAM" --version)" = "nudged $VERSION" ] || fail "$PROGRAM is not nudged $VERSION"
}

# What the program itself knows of its use: the manual page and the completions, in $OUT/files.
generated() {
    local kind
    mkdir -p "$OUT/files"
    for kind in man:nudged.1 bash:nudged.bash zsh:_nudged fish:nudged.fish; do
        "$PROGRAM" generate "${kind%%:*}" >"$OUT/files/${kind#*:}"
        [ -s "$OUT/files/${kind#*:}" ] || fail "nudged generate ${kind%%:*} prints nothing"
    done
}

# The checksum of a file, beside it, as sha256sum -c reads it.
checksum() {
    (cd "$(dirname "$1")" && sha256sum "$(basename "$1")" >"$(basename "$1").sha256")
    echo "$1"
}

# A program that .ci/programs locks, or that is in the PATH: locked NAME
locked() {
    if [ -x "target/programs/bin/$1" ]; then
        echo "target/programs/bin/$1"
    else
        command -v "$1" || fail "there is no $1: .ci/run programs installs it"
    fi
}
