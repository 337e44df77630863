# SPDX-License-Identifier: MIT
# shellcheck shell=sh
#
# To be sourced by run: the kernel's VFIO selftests, each program with the modelled ioat.

selftest_bdf=0000:5e:00.0

# run_selftest PROGRAM: its cases, named PROGRAM:CASE.
run_selftest() {
	wanted "$1" || return 0
	begin=$(now)
	(
		ulimit -l unlimited 2>/dev/null
		exec timeout -k 10 300 "$swiommu" run --log "$work/$1.log" --device "ioat,bdf=$selftest_bdf" -- \
			"$selftests/$1" "$selftest_bdf"
	) >"$work/$1.tap" 2>&1 </dev/null
	status=$?
	time=$(since "$begin")
	# A line "pass|fail|skip NAME NOTE" per case.
	awk -v status=$status '/^1\.\.[0-9]+/ { plan = substr($0, 4) + 0 }
	/^ok [0-9]+ .*# SKIP/ { n++; name = $3; sub(/.*# SKIP */, ""); print "skip", name, $0; next }
	/^ok [0-9]+ / { n++; print "pass", $3 }
	/^not ok [0-9]+ / { n++; print "fail", $4 }
	END { if (!plan || n < plan)
		print "fail", "ends", n + 0, "of", plan + 0, "results, status", status }' "$work/$1.tap" >"$work/cases"
	while read -r result name note; do
		tell "$result" "$1:$name" "$note"
	done <"$work/cases"
	echo "# $1: $time"
	grep -q '^fail' "$work/cases" && { show "$work/$1.tap"; show "$work/$1.log"; }
	if grep -i -e sanitizer -e 'runtime error' "$work/$1.log"; then
		tell fail "$1:supervisor" "swiommu itself complained"
	fi
}

run_selftests() {
	packages uuid-dev make xz-utils || { tell skip vfio-selftests "$why"; return; }
	selftests=$("$here/fetch_selftests.sh" "$cache" 2>"$work/fetch.log") || {
		tell skip vfio-selftests "$(tail -n 1 "$work/fetch.log")"
		return
	}
	# Without them the cases with such pages skip by themselves.
	reserve 2048 16
	reserve 1048576 1
	for program in vfio_iommufd_setup_test vfio_pci_device_test vfio_dma_mapping_test \
		vfio_dma_mapping_mmio_test vfio_pci_driver_test vfio_pci_device_init_perf_test; do
		run_selftest $program
	done
}
