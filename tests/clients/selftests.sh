# SPDX-License-Identifier: MIT
# shellcheck shell=sh
#
# To be sourced by run: the kernel's VFIO selftests with modelled devices, in all the IOMMU modes that
# they know (type 1 and type 1 v2, the same of iommufd, and iommufd itself).

# run_selftest PROGRAM MODEL [COUNT]: its cases, named PROGRAM/MODEL:CASE, with so many devices.
run_selftest() {
	label=$1/${2%%,*}
	wanted "$label" || return 0
	program=$selftests/$1
	model=$2 count=${3:-1} log=$work/selftest.log
	set -- run --memlock unlimited --log "$log" --
	bdfs=
	while [ "$count" -gt 0 ]; do
		bdf=0000:5e:0$count.0 count=$((count - 1))
		bdfs="$bdfs $bdf"
		shift
		set -- run --device "$model,bdf=$bdf" "$@"
	done
	rm -f "$log"
	begin=$(now)
	# shellcheck disable=SC2086
	timeout -k 10 300 "$swiommu" "$@" "$program" $bdfs >"$work/tap" 2>&1 </dev/null
	status=$?
	echo "# $label: $(since "$begin")"
	# A line "pass|fail|skip NAME NOTE" per case.
	awk -v status=$status '/^1\.\.[0-9]+/ { plan = substr($0, 4) + 0 }
	/^ok [0-9]+ .*# SKIP/ { n++; name = $3; sub(/.*# SKIP */, ""); print "skip", name, $0; next }
	/^ok [0-9]+ / { n++; print "pass", $3 }
	/^not ok [0-9]+ / { n++; print "fail", $4 }
	END { if (!plan || n < plan)
		print "fail", "ends", n + 0, "of", plan + 0, "results, status", status }' "$work/tap" >"$work/cases"
	while read -r result name note; do
		tell "$result" "$label:$name" "$note"
	done <"$work/cases"
	! grep -q '^fail' "$work/cases" || { show "$work/tap"; show "$log"; }
	if grep -i -e sanitizer -e 'runtime error' "$log"; then
		tell fail "$label:supervisor" "swiommu itself complained"
	fi
}

run_selftests() {
	case ${only:-vfio_} in *vfio*) ;; *) return ;; esac
	packages uuid-dev make xz-utils || { tell skip vfio-selftests "$why"; return; }
	selftests=$("$here/fetch_selftests.sh" "$cache" 2>"$work/fetch.log") || {
		tell skip vfio-selftests "$(tail -n 1 "$work/fetch.log")"
		return
	}
	# Without them the cases with such pages skip by themselves.
	reserve 2048 16
	reserve 1048576 1
	truncate -s 1M "$work/nvme.img"
	for test in vfio_iommufd_setup_test vfio_pci_device_test vfio_dma_mapping_test vfio_dma_mapping_mmio_test; do
		run_selftest $test ioat
		run_selftest $test "nvme,file=$work/nvme.img"
	done
	# This one has MSI.
	run_selftest vfio_pci_device_test edu
	run_selftest vfio_pci_driver_test ioat
	run_selftest vfio_pci_device_init_perf_test ioat 4
}
