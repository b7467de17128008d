#!/usr/bin/env bash
# The image, for one processor: target/packages/nudged-VERSION-ARCH.image.tar, as `docker load` and `podman load` take it,
# and skopeo copies it into a registry (skopeo copy docker-archive:FILE docker://NAME).
set -euo pipefail
. "$(dirname "$0")/lib.sh"

program
need buildah apt-get install buildah
authorities=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
[ -s "$authorities" ] || fail "there is no $authorities: apt-get install ca-certificates"
notices

# The files of the image, and no others: no shell, no library.
tree=$OUT/files/image
rm -rf "$tree"
mkdir -p "$tree/etc/ssl/certs" "$tree/licenses"
install -m 755 "$PROGRAM" "$tree/nudged"
install -m 644 "$authorities" "$tree/etc/ssl/certs/ca-certificates.crt"
install -m 644 LICENSE-APACHE LICENSE-MIT "$OUT/files/notices" "$tree/licenses"
# A name for the user, and a place for --state: a volume that is mounted here is the user's.
printf 'nudged:x:65532:65532:nudged:/:/nonexistent\n' >"$tree/etc/passwd"
printf 'nudged:x:65532:\n' >"$tree/etc/group"

# Storage of its own, so that it needs no overlay, no user namespace, and leaves nothing behind.
storage=$(mktemp -d)
trap 'rm -rf "$storage"' EXIT
quiet() {
    local said
    said=$("$@" 2>&1) || { echo "$said" >&2; return 1; }
    echo "$said"
}
image() {
    quiet buildah --root "$storage/root" --runroot "$storage/run" --storage-driver vfs "$@"
}
name=localhost/nudged:$VERSION
# In Docker's format, since that of OCI has no health check.
image bud --isolation chroot --format docker --timestamp "$EPOCH" --arch "$(go_arch)" \
    --label "org.opencontainers.image.version=$VERSION" --file .packaging/Containerfile --tag "$name" . >/dev/null
file=$OUT/nudged-$VERSION-$(go_arch).image.tar
rm -f "$file"
image push "$name" "docker-archive:$file:$name" >/dev/null
checksum "$file"
