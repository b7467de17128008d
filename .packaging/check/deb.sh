#!/usr/bin/env bash
# The deb: lintian, and in a bare Debian that systemd runs: installed, started, upgraded under a stream, removed, purged.
#
#   check/deb.sh FILE
set -euo pipefail
# shellcheck source=.packaging/check/lib.sh
. "$(dirname "$0")/lib.sh"

deb=$(realpath "${1:-$OUT/nudged_$VERSION-1_amd64.deb}")
need lintian apt-get install lintian
lintian --fail-on error,warning --allow-root "$deb"

folder=$(mktemp -d)
machine=()
stop() {
    if [ ${#machine[@]} -gt 0 ]; then
        exec {machine_input}>&-
        wait "$machine_pid" || true
    fi
    rm -rf --one-file-system "$folder"
}
trap stop EXIT

# The next version: the settings that it brings differ too.
mkdir "$folder/next" "$folder/root" "$folder/machine"
dpkg-deb -R "$deb" "$folder/next"
sed -i 's/^Version: .*/&.1/' "$folder/next/DEBIAN/control"
echo '# A line of the next version.' >>"$folder/next/etc/nudged.env"
dpkg-deb -Znone -b "$folder/next" "$folder/next.deb" >/dev/null
tar -C "$folder/root" -xf "$(.packaging/check/debian.sh)"
cp "$deb" "$folder/root/this.deb"
cp "$folder/next.deb" "$folder/root/next.deb"

echo '-- a folder without systemd'
inside() { chroot "$folder/root" env DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
mv "$folder/root/dev" "$folder/root/no-dev" && mkdir "$folder/root/dev"
! inside dpkg --install /this.deb >/dev/null 2>&1 || fail 'it is installed without a secret'
expect 'secrets without random bytes' '' "$(inside find /etc/nudged -type f)"
inside chmod 0755 /etc/nudged
rmdir "$folder/root/dev" && mv "$folder/root/no-dev" "$folder/root/dev"
inside dpkg --configure nudged >/dev/null
expect 'the mode of a folder that was there' '755 root' "$(inside stat -c '%a %U' /etc/nudged)"
inside dpkg --purge nudged >/dev/null
inside dpkg --install /this.deb >/dev/null
expect 'the mode of the secret' '600 root' "$(inside stat -c '%a %U' /etc/nudged/jwt-secret)"
expect 'the mode of its folder' '700 root' "$(inside stat -c '%a %U' /etc/nudged)"
expect 'the mode of the settings' '640 root' "$(inside stat -c '%a %U' /etc/nudged.env)"
expect 'bytes of the secret' 32 "$(inside base64 -d /etc/nudged/jwt-secret | wc -c)"
expect 'what is enabled' 'nudged.service nudged.socket' \
    "$(cd "$folder/root/etc/systemd/system" && find . -name 'nudged.*' -printf '%f\n' | sort | xargs)"
inside nudged serve --check --jwt-secret-file /etc/nudged/jwt-secret >/dev/null
inside dpkg --purge nudged >/dev/null
left=$(inside find /etc /usr /var/lib/nudged /var/lib/systemd -name '*nudged*' 2>/dev/null || true)
expect 'what a purge leaves' '' "$left"

if ! LOWER=$folder/root sh tests/it/support/systemd.sh probe >/dev/null 2>&1; then
    echo 'NOT RUN: systemd cannot be run in namespaces here' >&2
    exit
fi
echo '-- a machine with systemd'
coproc MACHINE { PROGRAM='' PROJECT=$PWD LOWER=$folder/root exec sh tests/it/support/systemd.sh run "$folder/machine"; }
# bash forgets a coprocess that ends by itself.
# shellcheck disable=SC2153
machine_pid=$MACHINE_PID machine_input=${MACHINE[1]}
read -r unshare <&"${MACHINE[0]}"
machine=(nsenter --target "$unshare" --mount --pid --net --ipc --uts)
is_systemd() {
    local id
    id=$(cat "/proc/$unshare/task/$unshare/children") && id=${id// /}
    [ "$(cat "/proc/$id/comm")" = systemd ] && machine[2]=$id
}
eventually is_systemd
on() { "${machine[@]}" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
is_running() { [ "$(on systemctl is-system-running)" = running ]; }
eventually is_running

request() { nsenter --target "${machine[2]}" --net curl -s --max-time 10 "$@"; }
status() { request -o /dev/null -w '%{http_code}' "$@"; }
api=http://127.0.0.1:6834/api/acme/events

on dpkg --install /this.deb >"$folder/log"
expect 'a new install' active "$(on systemctl is-active nudged.service)"
expect 'without a token' 401 "$(status "$api")"
expect 'a publish without a token' 401 "$(status "$api" --json '{"keys":["posts"]}')"
on nudged probe
token=$(on nudged token --secret-file /etc/nudged/jwt-secret --org acme --scope subscribe,publish 2>/dev/null)

echo '-- an upgrade under a stream'
on sh -c 'echo NUDGED_COALESCE=0 >>/etc/nudged.env'
on systemctl restart nudged.service
request --max-time 60 -N "$api" -H "authorization: Bearer $token" >"$folder/stream" &
stream=$!
eventually grep -q '^event: connected' "$folder/stream"
pid=$(on systemctl show -P MainPID nudged)
on dpkg --force-confold --install /next.deb >"$folder/log" 2>&1
if [ "$(on systemctl show -P MainPID nudged)" = "$pid" ]; then
    cat "$folder/log" >&2
    on journalctl --no-pager -u nudged >&2
    fail 'the next version has not taken over'
fi
on grep -qx NUDGED_COALESCE=0 /etc/nudged.env || fail 'an edited /etc/nudged.env was replaced'
expect 'a publish after the upgrade' 202 "$(status "$api" -H "authorization: Bearer $token" --json '{"keys":["posts"]}')"
eventually grep -q '^data: {"keys":\["posts"\]}' "$folder/stream"
expect 'greetings of the stream' 1 "$(grep -c '^event: connected' "$folder/stream")"
old=$(on cat /etc/nudged/jwt-secret)

echo '-- removed, and purged'
on dpkg --remove nudged >/dev/null 2>&1
wait "$stream" || true
expect 'after the removal' inactive "$(on systemctl is-active nudged.service || true)"
expect 'a connect after the removal' 000 "$(status "$api" || true)"
expect 'the secret after the removal' "$old" "$(on cat /etc/nudged/jwt-secret)"
on dpkg --install /next.deb >/dev/null 2>&1
expect 'installed again' active "$(on systemctl is-active nudged.service)"
expect 'the token after that' 200 "$(status "http://127.0.0.1:6834/api/acme/position" -H "authorization: Bearer $token")"
# What an administrator put there stays.
on touch /etc/nudged/own-key
on dpkg --purge nudged >/dev/null 2>&1
expect 'what a purge leaves' /etc/nudged/own-key \
    "$(on find /etc/nudged /etc/nudged.env /usr /var/lib/nudged /var/lib/private /etc/systemd -path '*nudged/own-key' -o -name '*nudged*' ! -path /etc/nudged 2>/dev/null || true)"
echo "$(basename "$deb"): installed, upgraded, removed, purged"
