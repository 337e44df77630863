#!/bin/sh
# SPDX-License-Identifier: MIT
#
# nvme.sh SWIOMMU NVME_LOOP: the loop of a storage driver on the NVMe model, which checks what it reads. Memory
# that the supervisor can map and memory that it cannot; registers trapped and shared.
set -u
swiommu=$1 loop=$2
bdf=0000:5e:00.0

"$swiommu" run true 2>/dev/null || { echo "swiommu run does not work here (swiommu doctor)"; exit 77; }
failed=0
for mmio in trap poll; do
	for memory in shared private; do
		for shape in "512 32" "4096 1" "4096 64"; do
			block=${shape% *} depth=${shape#* }
			out=$(timeout 60 "$swiommu" run --device "nvme,mmio=$mmio,bdf=$bdf" -- "$loop" $bdf \
				--block "$block" --depth "$depth" --memory "$memory" --blocks 256 --seconds 0.05 2>&1)
			status=$?
			echo "mmio=$mmio: $out"
			[ $status = 0 ] || { echo "status $status"; failed=1; }
		done
	done
done
exit $failed
