#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Fetches and builds the kernel's own iommufd selftests, unmodified: six files out of Debian's
# linux-source, and the uapi headers of the linux-libc-dev of the very same version (see
# ../backports.sh). They are GPL-2.0: they are built and run here, and are no part of this tree. What
# is kept is small, and later runs need no network.
#
# usage: fetch_selftests.sh CACHE-DIR
# Prints the directory with the two programs. Exit: 0, 77 (also: nothing to build with) or 1.
set -u
. "$(dirname "$0")/../backports.sh"

case $(uname -m) in
aarch64) arch=arm64 ;;
*) arch=x86 ;;
esac

unpack() {
	dpkg-deb -x "$work"/linux-libc-dev_*.deb "$work/hdr" &&
		dpkg-deb --fsys-tarfile "$work"/linux-source-*.deb |
		tar -xO "./usr/src/linux-source-$series.tar.xz" | xz -dc -T0 |
			tar -x -C "$work/src" --strip-components=1 --wildcards \
				'*/tools/testing/selftests/iommu/iommufd.c' \
				'*/tools/testing/selftests/iommu/iommufd_fail_nth.c' \
				'*/tools/testing/selftests/iommu/iommufd_utils.h' \
				'*/tools/testing/selftests/kselftest.h' \
				'*/tools/testing/selftests/kselftest_harness.h' \
				'*/drivers/iommu/iommufd/iommufd_test.h'
}

build() {
	${CC:-cc} -Wall -O2 -Wno-unused-function -D_GNU_SOURCE= -isystem "$work/hdr/usr/include" \
		-isystem "$work/hdr/usr/lib/linux/uapi/$arch" -I "$work/src/tools/testing/selftests" \
		-o "$work/bin/$1" "$work/src/tools/testing/selftests/iommu/$1.c" -lcap
}

cache=${1:?usage: fetch_selftests.sh CACHE-DIR}
ready=$cache/iommufd-selftests-$series
if [ -f "$ready/version" ]; then
	echo "$ready"
	exit 0
fi
prepare "$cache" xz tar
ready=$cache/iommufd-selftests-$series
mkdir "$work/hdr" "$work/src" "$work/bin"
echo 'int main(void) { return 0; }' >"$work/probe.c"
${CC:-cc} -o "$work/probe" "$work/probe.c" -lcap 2>"$work/log" ||
	skip "cannot link with libcap (package libcap-dev)"
download "linux-source-$series" linux-libc-dev
unpack 2>"$work/log" || fail "linux-source-$series $version cannot be unpacked:"
for program in iommufd iommufd_fail_nth; do
	build $program >"$work/log" 2>&1 || fail "$program of $version cannot be built:"
done
keep "$work/bin" "$ready"
echo "$ready"
