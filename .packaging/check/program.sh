# shellcheck shell=bash
# What a server of a package has to do, seen from beside it; the checks source it after lib.sh.

# tried NUDGED PORT PID [CHILD]: a stream, a publish that it gets, the end on SIGTERM, and the exit code. NUDGED is a command
# that makes the token, CHILD the process to wait for where that is not the server itself.
tried() {
    local program=$1 base=http://127.0.0.1:$2 pid=$3 child=${4:-$3} token stream reader code=0
    eventually curl -sf "$base/readyz"
    expect 'without a token' 401 "$(curl -s -o /dev/null -w '%{http_code}' "$base/api/acme/events")"
    token=$(NUDGED_JWT_SECRET=$SECRET "$program" token --org acme --scope subscribe,publish 2>/dev/null)
    stream=$(mktemp)
    curl -sN --max-time 60 "$base/api/acme/events" -H "authorization: Bearer $token" >"$stream" &
    reader=$!
    eventually grep -q '^event: connected' "$stream"
    expect 'a publish' 202 "$(curl -s -o /dev/null -w '%{http_code}' "$base/api/acme/events" \
        -H "authorization: Bearer $token" --json '{"keys":["posts"]}')"
    eventually grep -q '^data: {"keys":\["posts"\]}' "$stream"
    kill "$pid"
    # curl ends with the stream.
    wait "$reader" || true
    rm "$stream"
    wait "$child" || code=$?
    expect 'the exit code after SIGTERM' 0 "$code"
}

# tried_at_free_port NUDGED: the same of a server that is started for it.
tried_at_free_port() {
    local program=$1 port
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    env -i NUDGED_JWT_SECRET="$SECRET" NUDGED_LISTEN="127.0.0.1:$port" "$program" >/dev/null &
    tried "$program" "$port" $!
}
