#!/usr/bin/env bash
# The program alone: in a folder with nothing else, as a user without rights, with the hosts, the DNS and the roots that
# it finds there.
set -euo pipefail
# shellcheck source=.packaging/check/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=.packaging/check/program.sh
. "$(dirname "$0")/program.sh"

program
program=$PROGRAM
# A network of its own, so that port 53 is free.
if [ -z "${NUDGED_CHECK_INSIDE:-}" ]; then
    NUDGED_CHECK_INSIDE=1 exec unshare --net --pid --fork --kill-child "$0"
fi
unset NUDGED_CHECK_INSIDE
ip link set lo up

folder=$(mktemp -d)
trap '[ $? = 0 ] || cat "$folder/log" >&2; rm -rf "$folder"' EXIT
mkdir -p "$folder/root/etc/ssl/certs" "$folder/keys"
install -m 755 "$program" "$folder/root/nudged"
# inside VARIABLE ARGUMENT…: runs it there.
inside() { exec env -i "$1" "$(command -v chroot)" --userspec 65532:65532 "$folder/root" /nudged "${@:2}"; }

echo '-- alone in its folder'
(inside "NUDGED_JWT_SECRET=$SECRET" --log info >"$folder/log" 2>&1) &
tried "$program" 6834 $!

echo '-- a JWK set by https, at a host of /etc/hosts and at one of the DNS, with the roots of that folder'
key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2)
(
    cd "$folder/keys"
    openssl req -x509 "${key[@]}" -subj /CN=roots -keyout root.key -out root.pem
    openssl req -x509 "${key[@]}" -subj /CN=keys.test -addext subjectAltName=DNS:keys.test,DNS:keys-by-dns.test \
        -addext basicConstraints=critical,CA:false -CA root.pem -CAkey root.key -keyout key.pem -out cert.pem
) 2>/dev/null
python3 .packaging/check/keys.py "$folder/keys" &
cp "$folder/keys/root.pem" "$folder/root/etc/ssl/certs/ca-certificates.crt"
echo '127.0.0.1 keys.test' >"$folder/root/etc/hosts"
echo 'nameserver 127.0.0.1' >"$folder/root/etc/resolv.conf"
for host in keys.test keys-by-dns.test; do
    (inside "NUDGED_JWKS_URL=https://$host:8443/jwks" --jwt-audience any --jwks-interval 1s --log info >"$folder/log" 2>&1) &
    server=$!
    # Ready once there are keys.
    eventually curl -sf http://127.0.0.1:6834/readyz
    kill "$server"
    wait "$server"
done
echo "$(basename "$program"): alone, as a user without rights"
