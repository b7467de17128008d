#!/usr/bin/env bash
# The package for Debian and Ubuntu: target/packages/nudged_VERSION-RELEASE_ARCH.deb
#
#   RELEASE=…  MAINTAINER='NAME <ADDRESS>'  HOMEPAGE=URL
set -euo pipefail
. "$(dirname "$0")/lib.sh"

program
generated
linux_files
debian_changelog
ARCH=$(go_arch) nfpm deb "nudged_$VERSION-${RELEASE}_$(go_arch).deb"
