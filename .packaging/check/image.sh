#!/usr/bin/env bash
# The image: what its configuration says, what is in it, and the program in it, run as a container runs it: a read-only
# root, a user without rights, no network but loopback.
#
#   check/image.sh [FILE]
set -euo pipefail
# shellcheck source=.packaging/check/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=.packaging/check/program.sh
. "$(dirname "$0")/program.sh"

image=$(realpath "${1:-$OUT/nudged-$VERSION-amd64.image.tar}")
need bwrap apt-get install bubblewrap
need nsenter apt-get install util-linux
folder=$(mktemp -d)
trap '[ $? = 0 ] || cat "$folder/log" >&2; rm -rf "$folder"' EXIT
mkdir "$folder/image" "$folder/root"
tar -C "$folder/image" -xf "$image"
says() {
    python3 - "$folder/image" "$1" <<'PYTHON'
import json, pathlib, sys

folder = pathlib.Path(sys.argv[1])
manifest = json.loads((folder / "manifest.json").read_text())[0]
config = json.loads((folder / manifest["Config"]).read_text())
print(json.dumps(eval(sys.argv[2], {"manifest": manifest, **config}), sort_keys=True, separators=(",", ":")))
PYTHON
}
expect 'the user' '"65532:65532"' "$(says 'config["User"]')"
expect 'the program' '["/nudged"]' "$(says 'config["Entrypoint"]')"
expect 'the port' '{"6834/tcp":{}}' "$(says 'config["ExposedPorts"]')"
expect 'the signal' '"SIGTERM"' "$(says 'config["StopSignal"]')"
expect 'the health check' '["CMD","/nudged","probe"]' "$(says 'config["Healthcheck"]["Test"]')"
expect 'the system' '"linux"' "$(says os)"
expect 'the version' "\"$VERSION\"" "$(says 'config["Labels"]["org.opencontainers.image.version"]')"
listen=$(says 'next(v for v in config["Env"] if v.startswith("NUDGED_"))' | tr -d '"')

for layer in $(says 'manifest["Layers"]' | tr -d '[]"' | tr , ' '); do
    tar -C "$folder/root" -xf "$folder/image/$layer"
done
expect 'the files' 'etc/group etc/passwd etc/ssl/certs/ca-certificates.crt licenses/LICENSE-APACHE licenses/LICENSE-MIT licenses/notices nudged' \
    "$(cd "$folder/root" && find . ! -type d -printf '%P\n' | sort | xargs)"
expect 'files of others than root, or that others may write' '' "$(find "$folder/root" ! -user 0 -o -perm /022 ! -type l)"

# Where an engine mounts something.
mkdir "$folder/root/proc" "$folder/root/dev"
# The settings are those of the image, and the arguments.
container() {
    exec bwrap --ro-bind "$folder/root" / --proc /proc --dev /dev --unshare-all --as-pid-1 --uid 65532 --gid 65532 --cap-drop ALL \
        --clearenv --setenv "${listen%%=*}" "${listen#*=}" "$@"
}

echo '-- without a key'
(container /nudged) >"$folder/log" 2>&1 && code=0 || code=$?
expect 'the exit code' 2 "$code"
grep -q 'insecure-open' "$folder/log" || fail "it does not say why: $(cat "$folder/log")"

echo '-- with one'
(container --info-fd 9 --setenv NUDGED_JWT_SECRET "$SECRET" /nudged 9>"$folder/info" >/dev/null) &
bwrap=$!
is_there() { server=$(sed -n 's/.*"child-pid": \([0-9]*\).*/\1/p' "$folder/info") && [ -n "$server" ]; }
eventually is_there
# What the health check runs, in its network.
probe() {
    command nsenter --target "$server" --net env -i "$listen" "$folder/root/nudged" probe
}
eventually probe
nsenter() { command nsenter --target "$server" --net "$@"; }
curl() { nsenter curl "$@"; }
tried "$folder/root/nudged" 6834 "$server" "$bwrap"
unset -f nsenter curl
(container /nudged probe) >/dev/null 2>&1 && fail 'the health check finds a server where there is none'
echo "$(basename "$image"): described, unpacked, run"
