# shellcheck shell=bash
# What the scripts of this folder share; they source it.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
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

# The program to be packaged, in PROGRAM: the one that binary.sh has built, or builds now. CPU is the name that the kernel
# has for what it runs on.
program() {
    PROGRAM=$OUT/nudged
    [ -e "$PROGRAM" ] || .packaging/binary.sh
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

# ===== the deb and the rpm =====

RELEASE=${RELEASE:-1}
# An address of an invalid domain, so that it is found before a package is given away.
MAINTAINER=${MAINTAINER:-The owner of nudged <owner@nudged.invalid>}
HOMEPAGE=${HOMEPAGE:-}
export RELEASE MAINTAINER HOMEPAGE

# The processor's name at Debian, in Go and in images.
go_arch() {
    case $CPU in
    x86_64) echo amd64 ;;
    aarch64) echo arm64 ;;
    esac
}

# The units for /usr/bin, and what has to be compressed, in $OUT/files.
linux_files() {
    local files=$OUT/files
    sed -e '1,/^\[Unit\]$/{/^#/d}' \
        -e '/^Description=/a Documentation=man:nudged(1)' \
        -e 's#^ExecStart=/usr/local/bin/nudged$#ExecStart=/usr/bin/nudged#' .systemd/nudged.service >"$files/nudged.service"
    grep -qxF ExecStart=/usr/bin/nudged "$files/nudged.service" || fail '.systemd/nudged.service starts something else'
    sed '/^Description=/a Documentation=man:nudged(1)' .systemd/nudged.socket >"$files/nudged.socket"
    gzip -9nc "$files/nudged.1" >"$files/nudged.1.gz"
    gzip -9nc CHANGELOG.md >"$files/changelog.gz"
    notices
    gzip -9nc "$files/notices" >"$files/notices.gz"
}

# What is linked into the program, in $OUT/files/crates.
crates() {
    mkdir -p "$OUT/files"
    cargo tree --locked --features full -e normal --prefix none --format '{p}' --target "$CPU-unknown-linux-musl" |
        cut -d' ' -f1,2 | sort -u >"$OUT/files/crates"
}

# The licences of that, in $OUT/files/notices.
notices() {
    need python3 apt-get install python3
    crates
    cargo metadata --locked --format-version 1 --features full |
        python3 .packaging/notices.py "$OUT/files/crates" >"$OUT/files/notices"
}

# What a package of Debian says of its versions: a line that names this one.
debian_changelog() {
    printf 'nudged (%s-%s) unstable; urgency=medium\n\n  * Version %s: see changelog.gz.\n\n -- %s  %s\n' "$VERSION" \
        "$RELEASE" "$VERSION" "$MAINTAINER" "$(LC_ALL=C date -R -u -d "@$EPOCH")" |
        gzip -9nc >"$OUT/files/changelog.Debian.gz"
}

# nfpm KIND FILE: makes FILE from nfpm.yaml.
nfpm() {
    rm -f "$OUT/$2"
    PROGRAM=$PROGRAM SOURCE_DATE_EPOCH=$EPOCH "$(locked nfpm)" package --config .packaging/nfpm.yaml --packager "$1" \
        --target "$OUT/$2" >/dev/null
    checksum "$OUT/$2"
}
