# SPDX-License-Identifier: MIT
# shellcheck shell=sh
#
# To be sourced by run: Debian's dpdk-test drives the modelled ioat with DPDK's own driver.

dpdk_bdf=0000:5e:00.0

# judge CASE OUTPUT: "Test OK" is also the end of a test that found no device, and so only tried DPDK's software one.
judge_dpdk() {
	time=$(since "$begin")
	tr '\r' '\n' <"$2" >"$work/dpdk.lines"
	copies=$(awk -v bdf="[$dpdk_bdf]" '/^### Test dmadev instance/ { ours = index($0, bdf) }
		ours && /Running burst capacity/ { ours = 0 }
		ours && sub(/.*Ops completed: /, "") { n = $0 + 0 }
		END { print n + 0 }' "$work/dpdk.lines")
	if grep -q 'Test OK' "$work/dpdk.lines" && [ "$copies" = 85120 ]; then
		tell pass "$1" "$time, $copies copies"
	else
		tell fail "$1" "status $status, $time"
		show "$work/dpdk.lines"
		show "$work/dpdk.log"
	fi
}

# run_under COMMAND...: with one ioat.
run_under() {
	rm -f "$work/dpdk.log"
	begin=$(now)
	XDG_RUNTIME_DIR=$work/run timeout -k 10 120 "$swiommu" run --memlock unlimited --log "$work/dpdk.log" --explain \
		--device "ioat,bdf=$dpdk_bdf" -- "$@"
	status=$?
}

dpdk_one_process() {
	printf 'dmadev_autotest\nquit\n' >"$work/dpdk.in"
	run_under dpdk-test --no-huge -m 256 --no-telemetry -l 0,1 -a $dpdk_bdf <"$work/dpdk.in" >"$work/dpdk.out" 2>&1
	judge_dpdk dpdk/dmadev_autotest "$work/dpdk.out"
}

# The device is opened by a first process; a second one gets container, group and device by SCM_RIGHTS,
# and does the copies. DPDK wants huge pages for that.
dpdk_two_processes() {
	name=dpdk/secondary
	wanted $name || return 0
	[ "$(id -u)" = 0 ] || { tell skip $name "huge pages are mounted by root"; return; }
	reserve 2048 80 || { tell skip $name "no 80 huge pages of 2 MB"; return; }
	mkdir -p "$work/huge"
	mkfifo "$work/primary.in"
	cat >"$work/two.sh" <<-END
		mount -t hugetlbfs none '$work/huge' || exit 1
		common='--huge-dir $work/huge --file-prefix swiommu-test --no-telemetry -a $dpdk_bdf'
		exec 3<>'$work/primary.in'
		dpdk-test -m 64 -l 0 \$common <&3 >'$work/primary.out' 2>&1 &
		while ! grep -q 'RTE>>' '$work/primary.out'; do
			kill -0 \$! || exit 1
			sleep 0.1
		done
		printf 'dmadev_autotest\nquit\n' | dpdk-test --proc-type=secondary -l 1 \$common >'$work/dpdk.out' 2>&1
		echo quit >&3
		wait
	END
	run_under sh "$work/two.sh" >"$work/two.out" 2>&1 </dev/null
	judge_dpdk $name "$work/dpdk.out"
}

run_dpdk() {
	case ${only:-dpdk} in *dpdk*) ;; *) return ;; esac
	packages dpdk-dev || { tell skip dpdk "$why"; return; }
	mkdir -p "$work/run"
	dpdk_one_process
	dpdk_two_processes
}
