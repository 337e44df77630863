#!/bin/sh
# SPDX-License-Identifier: MIT
#
# model.sh SWIOMMU MODEL.so: a device model that is not part of swiommu, named by its path.
set -u
swiommu=$1 model=$2
bdf=0000:5e:00.0
failed=0
check() { # WHAT EXPECTED GOT
	[ "$2" = "$3" ] || { echo "$1: '$3', expected '$2'"; failed=1; }
}

check devices 'checksum: adds up the bytes of a buffer' "$("$swiommu" devices "$model")"
check "devices by name" 'edu: teaching device: interrupts, DMA of a page, factorials (as QEMU'"'"'s, 1234:11e8)' \
	"$("$swiommu" devices edu | head -1)"
"$swiommu" devices /nonexistent.so >/dev/null 2>&1
check "devices of nothing" 125 $?
"$swiommu" run true 2>/dev/null || { [ $failed = 0 ] && exit 77; exit 1; }
check sysfs 0xcafe "$("$swiommu" run --device "$model,bdf=$bdf" -- cat /sys/bus/pci/devices/$bdf/device)"
"$swiommu" run --device /nonexistent.so -- true 2>/dev/null
check "run with nothing" 125 $?
check "option" "swiommu: --device $model,x=1: no such option: \"x\"; the model has none of its own" \
	"$("$swiommu" run --device "$model,x=1" -- true 2>&1)"
exit $failed
