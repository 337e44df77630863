# SPDX-License-Identifier: MIT
# shellcheck shell=sh
#
# To be sourced by run: QEMU gives the modelled NVMe disk to a virtual machine by VFIO, whose firmware
# boots from it. The boot sector (bootsector.S) reads a sector, tells it on the serial line, and
# writes another. Then a Linux as guest drives the disk, with interrupts (guest-init.c).

qemu_bdf=0000:5e:00.0

make_disk() {
	{
		cat "$work/boot.bin"
		printf 'text of sector 1, %s\r\n\000' "$1" | dd bs=512 conv=sync status=none
	} >"$work/disk.img" && truncate -s 4M "$work/disk.img"
}

build_boot_sector() {
	${CC:-cc} -m16 -c -o "$work/boot.o" "$here/bootsector.S" 2>"$work/boot.log" &&
		ld -m elf_i386 -Ttext 0x7c00 --oformat binary -o "$work/boot.bin" "$work/boot.o" 2>>"$work/boot.log"
}

build_guest() {
	guest=$("$here/fetch_guest.sh" "$cache" 2>"$work/fetch.log") || return 1
	${CC:-cc} -D_GNU_SOURCE -O2 -static -pthread -o "$work/init" "$here/guest-init.c" 2>"$work/fetch.log" || return 1
	{
		cpio_entry init 0100755 "$work/init"
		cpio_entry 'TRAILER!!!' 0
	} >"$work/initrd"
}

# An entry of a cpio archive as Linux unpacks it: NAME MODE [FILE].
cpio_entry() {
	size=0
	[ -z "${3:-}" ] || size=$(stat -c %s "$3")
	printf '07070100000001%08x%08x%08x00000001%08x%08x%08x%08x%08x%08x%08x%08x%s\0' "$2" 0 0 0 "$size" 0 0 0 0 \
		$((${#1} + 1)) 0 "$1"
	cpio_pad $((110 + ${#1} + 1))
	[ -z "${3:-}" ] || { cat "$3" && cpio_pad "$size"; }
}

cpio_pad() {
	head -c $(((4 - $1 % 4) % 4)) /dev/zero
}

# run_machine SECONDS DEVICE-OPTIONS [ARGUMENT...]: in $machine; what it says is in $work/serial.
run_machine() {
	limit=$1 options=$2
	shift 2
	rm -f "$work/qemu.log"
	begin=$(now)
	# shellcheck disable=SC2086
	timeout -k 5 "$limit" "$swiommu" run --memlock unlimited --log "$work/qemu.log" --explain \
		--device "nvme,file=$work/disk.img,bdf=$qemu_bdf" -- \
		$machine -M q35 -accel tcg -m 256 -smp 2 -nodefaults -display none -serial stdio "$@" \
		-device "vfio-pci,host=$qemu_bdf$options" >"$work/serial" 2>&1 </dev/null
	status=$?
	time=$(since "$begin")
}

machine_failed() {
	tell fail "$1" "status $status, $time"
	show "$work/serial"
	[ ! -f "$work/qemu.log" ] || show "$work/qemu.log"
}

# boots CASE DEVICE-OPTIONS: the firmware's driver, by polling.
boots() {
	wanted "$1" || return 0
	make_disk "$1"
	run_machine 60 ",bootindex=0$2" -device isa-debug-exit,iobase=0xf4,iosize=4
	# isa-debug-exit of 0 is status 1.
	if [ $status = 1 ] && grep -q "text of sector 1, $1" "$work/serial" &&
		grep -q 'boot sector: written' "$work/serial" &&
		[ "$(dd if="$work/disk.img" bs=512 skip=2 count=1 status=none | tr -d '\r\000')" = \
			"Wext of sector 1, $1" ]; then
		tell pass "$1" "$time"
	else
		machine_failed "$1"
	fi
}

# linux CASE DEVICE-OPTIONS [WORD]: Linux' driver, by MSI-X; the word is for guest-init.
linux() {
	wanted "$1" || return 0
	make_disk "$1"
	run_machine 120 "$2" -kernel "$guest/vmlinuz" -initrd "$work/initrd" \
		-append "console=ttyS0 quiet panic=1 reboot=t ${3:-}"
	# The first word that the guest wrote (guest-init.c), as proof that it is in the file.
	if [ $status = 0 ] && grep -q "guest: text of sector 1, $1" "$work/serial" && grep -q 'guest: OK' "$work/serial" &&
		{ [ -z "${3:-}" ] || grep -q 'guest: restarts' "$work/serial"; } &&
		[ "$(od -A n -t x8 -j 65536 -N 8 "$work/disk.img")" = " $(printf %016x $((65537 * -7046029254386353131)))" ]; then
		tell pass "$1" "$time, $(sed -n 's/.*guest: OK, //p' "$work/serial" | tr -d '\r')"
	else
		machine_failed "$1"
	fi
}

# Two machines at once, each with a disk of its own.
two_machines() { # CASE DEVICE-OPTIONS
	wanted "$1" || return 0
	make_disk "$1"
	cp "$work/disk.img" "$work/disk2.img"
	rm -f "$work/qemu.log"
	begin=$(now)
	for i in 1 2; do
		echo "$machine -M q35 -accel tcg -m 128 -nodefaults -display none -serial file:$work/serial$i \
			-device isa-debug-exit,iobase=0xf4,iosize=4 \
			-device vfio-pci,host=0000:5e:0$i.0,bootindex=0$2 &"
	done >"$work/two.sh"
	echo wait >>"$work/two.sh"
	timeout -k 5 60 "$swiommu" run --memlock unlimited --log "$work/qemu.log" \
		--device "nvme,file=$work/disk.img,bdf=0000:5e:01.0" \
		--device "nvme,file=$work/disk2.img,bdf=0000:5e:02.0" -- sh "$work/two.sh" >"$work/serial" 2>&1 </dev/null
	status=$?
	time=$(since "$begin")
	if grep -q 'boot sector: written' "$work/serial1" && grep -q 'boot sector: written' "$work/serial2" &&
		cmp -s "$work/disk.img" "$work/disk2.img" &&
		[ "$(dd if="$work/disk.img" bs=512 skip=2 count=1 status=none | head -c 4)" = Wext ]; then
		tell pass "$1" "$time"
	else
		cat "$work/serial1" "$work/serial2" >>"$work/serial"
		machine_failed "$1"
	fi
}

run_with() { # NAME DEVICE-OPTIONS
	boots "$1/boot-no-mmap" "$2,x-no-mmap=on"
	boots "$1/boot-mmap" "$2"
	two_machines "$1/two-machines" "$2"
	if [ -n "$guest" ]; then
		linux "$1/linux-no-mmap" "$2,x-no-mmap=on"
		linux "$1/linux-mmap" "$2"
		linux "$1/linux-restart" "$2" twice
	else
		tell skip "$1/linux" "$(tail -n 1 "$work/fetch.log")"
	fi
}

# QEMU 7.2 of Debian 12 knows the group path only, 10 both.
run_qemu() {
	case ${only:-qemu} in *qemu* | *boot* | *linux*) ;; *) return ;; esac
	build_boot_sector || { tell skip qemu "no assembler for x86 boot sectors"; return; }
	packages qemu-system-x86 || { tell skip qemu "$why"; return; }
	guest=
	build_guest || guest=
	machine=qemu-system-x86_64
	run_with qemu/group ""
	qemu10=$("$here/fetch_qemu.sh" "$cache" 2>"$work/fetch.log") || {
		tell skip qemu10 "$(tail -n 1 "$work/fetch.log")"
		return
	}
	machine="$qemu10/bin/qemu-system-x86_64 -L $qemu10/share/qemu -L /usr/share/seabios"
	run_with qemu10/group ""
	machine="$machine -object iommufd,id=i0"
	run_with qemu10/iommufd ,iommufd=i0
}
