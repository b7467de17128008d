# shellcheck shell=bash
# What the checks share; they source it. Each takes the files that its script has made.

# shellcheck source=.packaging/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

# eventually COMMAND…: until it succeeds, for up to 20 s.
eventually() {
    local _
    for _ in $(seq 200); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    fail "not within 20 s: $*"
}

# expect WHAT EXPECTED FOUND
expect() {
    [ "$2" = "$3" ] || fail "$1: expected «$2», found «$3»"
}

# shellcheck disable=SC2034
SECRET=a-secret-of-the-checks-that-is-long-enough
