#!/usr/bin/env bash
# The manifests: against the schemas of Kubernetes, what refers to what, and their settings, with the program itself.
set -euo pipefail
# shellcheck source=.packaging/check/lib.sh
. "$(dirname "$0")/lib.sh"

program
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
need yamllint apt-get install yamllint
yamllint --strict -c .packaging/yamllint.yaml .packaging .github/workflows
files=()
# ServiceMonitor is not Kubernetes' own.
for file in .packaging/kubernetes/*.yaml; do [ "${file##*/}" = servicemonitor.yaml ] || files+=("$file"); done
"$(locked kubernetes-validate)" --strict --quiet "${files[@]}"
"$(dirname "$(locked kubernetes-validate)")/python3" .packaging/check/manifests.py "$VERSION" .packaging/kubernetes/*.yaml \
    >"$folder/settings"
# The secret is where the test has it.
sed -i "s#=/etc/nudged/#=$folder/#" "$folder/settings"
(umask 077 && printf '%s\n' "$SECRET" >"$folder/jwt-secret")
mapfile -t settings <"$folder/settings"
env -i "${settings[@]}" "$PROGRAM" serve --check >"$folder/said" 2>&1 || { cat "$folder/said" >&2; exit 1; }
echo 'the manifests: valid, of one piece, with settings that the program takes'
