#!/usr/bin/env bash
# The package for Fedora, RHEL and SUSE: target/packages/nudged-VERSION-RELEASE.CPU.rpm
#
#   PROGRAM=…  RELEASE=…  NUDGED_MAINTAINER='NAME <ADDRESS>'  NUDGED_HOMEPAGE=URL
set -euo pipefail
. "$(dirname "$0")/lib.sh"

program
generated
linux_files
ARCH=$(go_arch) nfpm rpm "nudged-$VERSION-$RELEASE.$CPU.rpm"
