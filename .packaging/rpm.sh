#!/usr/bin/env bash
# The package for Fedora, RHEL and SUSE: target/packages/nudged-VERSION-RELEASE.CPU.rpm
#
#   RELEASE=…  MAINTAINER='NAME <ADDRESS>'  HOMEPAGE=URL
set -euo pipefail
. "$(dirname "$0")/lib.sh"

program
generated
linux_files
ARCH=$(go_arch) nfpm rpm "nudged-$VERSION-$RELEASE.$CPU.rpm"
