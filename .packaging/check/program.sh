# shellcheck shell=bash
# What a server of a package has to do, seen from beside it; the checks source it after lib.sh.

# tried NUDGED PORT PID: a stream, a publish that it gets, the end on SIGTERM. NUDGED is a command that makes the token.
tried() {
    local program=$1 base=http://127.0.0.1:$2 pid=$3 token stream
    eventually curl -sf "$base/readyz"
    expect 'without a token' 401 "$(curl -s -o /dev/null -w '%{http_code}' "$base/api/acme/events")"
    token=$(NUDGED_JWT_SECRET=$SECRET "$program" token --org acme --scope subscribe,publish 2>/dev/null)
    stream=$(mktemp)
    curl -sN --max-time 60 "$base/api/acme/events" -H "authorization: Bearer $token" >"$stream" &
    eventually grep -q '^event: connected' "$stream"
    expect 'a publish' 202 "$(curl -s -o /dev/null -w '%{http_code}' "$base/api/acme/events" \
        -H "authorization: Bearer $token" --json '{"keys":["posts"]}')"
    eventually grep -q '^data: {"keys":\["posts"\]}' "$stream"
    kill "$pid"
    # curl ends with the stream.
    wait $! || true
    rm "$stream"
}
