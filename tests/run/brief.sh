#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/run/brief.sh SWIOMMU CLIENTS: a few programs from end to end, in a second; the rest is test_run's.
set -u
swiommu=$1
clients=$2
"$swiommu" doctor >/dev/null || exit 77
failed=0
brief() {
	timeout 60 "$swiommu" run -d ioat -- "$clients/$1" "$2" || {
		echo "$1 $2: status $?"
		failed=1
	}
}
brief client ioctl_flow
brief client-static ioctl_flow
brief client device_copies
brief client ring_follows_descriptors
[ ! -r "${swiommu%/*}/libswiommu-preload.so" ] || brief client mmio_copies
exit $failed
