# SPDX-License-Identifier: MIT
# shellcheck shell=sh
#
# To be sourced by run: QEMU gives the modelled NVMe disk to a virtual machine by VFIO, whose firmware
# boots from it. The boot sector (bootsector.S) reads a sector, tells it on the serial line, and
# writes another.

qemu_bdf=0000:5e:00.0

make_disk() {
	{
		cat "$work/boot.bin"
		printf 'text of sector 1, %s\r\n\000' "$1" | dd bs=512 conv=sync status=none
	} >"$work/disk.img" && truncate -s 1M "$work/disk.img"
}

build_boot_sector() {
	${CC:-cc} -m16 -c -o "$work/boot.o" "$here/bootsector.S" 2>"$work/boot.log" &&
		ld -m elf_i386 -Ttext 0x7c00 --oformat binary -o "$work/boot.bin" "$work/boot.o" 2>>"$work/boot.log"
}

# boots CASE QEMU DEVICE-OPTION [ARGUMENT...]
boots() {
	name=$1 qemu=$2 option=$3
	shift 3
	wanted "$name" || return 0
	make_disk "$name"
	rm -f "$work/qemu.log"
	begin=$(now)
	timeout -k 5 60 "$swiommu" run --log "$work/qemu.log" --explain \
		--device "nvme,file=$work/disk.img,bdf=$qemu_bdf" -- \
		"$qemu" "$@" -M q35 -accel tcg -m 128 -nodefaults -display none -serial stdio \
		-device isa-debug-exit,iobase=0xf4,iosize=4 \
		-device "vfio-pci,host=$qemu_bdf,bootindex=0$option" >"$work/serial" 2>&1 </dev/null
	status=$?
	time=$(since "$begin")
	# isa-debug-exit of 0 is status 1.
	if [ $status = 1 ] && grep -q "text of sector 1, $name" "$work/serial" &&
		grep -q 'boot sector: written' "$work/serial" &&
		[ "$(dd if="$work/disk.img" bs=512 skip=2 count=1 status=none | tr -d '\r\000')" = \
			"Wext of sector 1, $name" ]; then
		tell pass "$name" "$time"
	else
		tell fail "$name" "status $status, $time"
		show "$work/serial"
		show "$work/qemu.log"
	fi
}

# QEMU 7.2 of Debian 12 knows the group path only, 10 both.
run_qemu() {
	build_boot_sector || { tell skip qemu "no assembler for x86 boot sectors"; return; }
	if packages qemu-system-x86; then
		boots qemu/group/no-mmap qemu-system-x86_64 ,x-no-mmap=on
		boots qemu/group/mmap qemu-system-x86_64 ""
	else
		tell skip qemu/group "$why"
	fi
	qemu10=$("$here/fetch_qemu.sh" "$cache" 2>"$work/fetch.log") || {
		tell skip qemu10 "$(tail -n 1 "$work/fetch.log")"
		return
	}
	firmware="-L $qemu10/share/qemu -L /usr/share/seabios"
	for option in ,x-no-mmap=on ""; do
		case $option in
		"") suffix=mmap ;;
		*) suffix=no-mmap ;;
		esac
		# shellcheck disable=SC2086
		boots "qemu10/iommufd/$suffix" "$qemu10/bin/qemu-system-x86_64" ",iommufd=i0$option" $firmware \
			-object iommufd,id=i0
		# shellcheck disable=SC2086
		boots "qemu10/group/$suffix" "$qemu10/bin/qemu-system-x86_64" "$option" $firmware
	done
}
