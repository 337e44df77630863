# SPDX-License-Identifier: MIT
# shellcheck shell=sh
#
# To be sourced by run: Debian's dpdk-test drives the modelled ioat with DPDK's own driver.

dpdk_bdf=0000:5e:00.0

run_dpdk() {
	name=dpdk/dmadev_autotest
	wanted $name || return 0
	packages dpdk-dev || { tell skip $name "$why"; return; }
	mkdir -p "$work/run"
	rm -f "$work/dpdk.log"
	begin=$(now)
	printf 'dmadev_autotest\nquit\n' |
		XDG_RUNTIME_DIR=$work/run timeout -k 10 120 "$swiommu" run --memlock unlimited --log "$work/dpdk.log" --explain \
			--device "ioat,bdf=$dpdk_bdf" -- \
			dpdk-test --no-huge -m 256 --no-telemetry -l 0,1 -a $dpdk_bdf >"$work/dpdk.out" 2>&1
	status=$?
	time=$(since "$begin")
	# "Test OK" is also the end of a test that found no device, and so only tried DPDK's software one.
	tr '\r' '\n' <"$work/dpdk.out" >"$work/dpdk.lines"
	copies=$(awk -v bdf="[$dpdk_bdf]" '/^### Test dmadev instance/ { ours = index($0, bdf) }
		ours && /Running burst capacity/ { ours = 0 }
		ours && sub(/.*Ops completed: /, "") { n = $0 + 0 }
		END { print n + 0 }' "$work/dpdk.lines")
	if grep -q 'Test OK' "$work/dpdk.lines" && [ "$copies" = 85120 ]; then
		tell pass $name "$time, $copies copies"
	else
		tell fail $name "status $status, $time"
		show "$work/dpdk.lines"
		show "$work/dpdk.log"
	fi
}
