#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Fetches and builds the kernel's own VFIO selftests, unmodified, with the kernel's own makefile: out of
# Debian's linux-source, with the uapi headers of the linux-libc-dev of the very same version (see
# ../backports.sh). They are GPL-2.0: they are built and run here, and are no part of this tree. What
# is kept is small, and later runs need no network.
#
# usage: fetch_selftests.sh CACHE-DIR
# Prints the directory with the programs. Exit: 0, 77 (also: nothing to build with) or 1.
set -u
. "$(dirname "$0")/../backports.sh"

case $(uname -m) in
aarch64) arch=arm64 ;;
*) arch=x86 ;;
esac
programs='vfio_iommufd_setup_test vfio_pci_device_test vfio_dma_mapping_test vfio_dma_mapping_mmio_test
	vfio_pci_driver_test vfio_pci_device_init_perf_test'

# The tests borrow register definitions from drivers by symbolic links.
unpack() {
	dpkg-deb -x "$work"/linux-libc-dev_*.deb "$work/hdr" &&
		dpkg-deb --fsys-tarfile "$work"/linux-source-*.deb |
		tar -xO "./usr/src/linux-source-$series.tar.xz" | xz -dc -T0 |
			tar -x -C "$work/src" --strip-components=1 --wildcards --no-wildcards-match-slash \
				'*/tools/testing/selftests/vfio' \
				'*/tools/testing/selftests/lib.mk' \
				'*/tools/testing/selftests/kselftest*.h' \
				'*/tools/include' \
				'*/tools/arch' \
				'*/scripts/subarch.include' \
				'*/include/linux/pci_ids.h' \
				'*/drivers/dma/ioat/*.h' \
				'*/drivers/dma/idxd/*.h' \
				'*/drivers/net/ethernet/intel/igb/*.h'
}

build() {
	headers=$work/hdr/usr/include wanted=
	for program in $programs; do
		wanted="$wanted $work/bin/$program"
	done
	# shellcheck disable=SC2086
	${MAKE:-make} -C "$work/src/tools/testing/selftests/vfio" OUTPUT="$work/bin" CC="${CC:-cc}" \
		top_srcdir="$work/src" KHDR_INCLUDES="-isystem $headers -isystem $headers/../lib/linux/uapi/$arch" \
		$wanted
}

cache=${1:?usage: fetch_selftests.sh CACHE-DIR}
ready=$cache/vfio-selftests-$series
if [ -f "$ready/version" ]; then
	echo "$ready"
	exit 0
fi
prepare "$cache" xz tar make
ready=$cache/vfio-selftests-$series
mkdir "$work/hdr" "$work/src" "$work/bin"
echo '#include <uuid/uuid.h>
int main(void) { return 0; }' >"$work/probe.c"
${CC:-cc} -o "$work/probe" "$work/probe.c" -luuid 2>"$work/log" ||
	skip "cannot link with libuuid (package uuid-dev)"
download "linux-source-$series" linux-libc-dev
unpack 2>"$work/log" || fail "linux-source-$series $version cannot be unpacked:"
build >"$work/log" 2>&1 || fail "the VFIO selftests of $version cannot be built:"
mkdir "$work/keep"
for program in $programs; do
	mv "$work/bin/$program" "$work/keep/"
done
keep "$work/keep" "$ready"
echo "$ready"
