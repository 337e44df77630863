#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The ABI headers must suit any program: each alone, twice, and both in either order, in C and
# C++ of several standards, with gcc and clang, without warnings, found before the system's own.
#
# usage: compile_test.sh. Exit: 0, 1, or 77 without any compiler.
set -u

here=$(cd "$(dirname "$0")" && pwd)
include=$here/../../include/uapi
temp=$(mktemp -d) || exit 1
trap 'rm -rf "$temp"' EXIT
trap 'exit 1' HUP INT TERM

echo '#include <linux/iommufd.h>' >"$temp/iommufd.c"
echo '#include <linux/vfio.h>' >"$temp/vfio.c"
cat "$temp/iommufd.c" "$temp/vfio.c" "$temp/iommufd.c" >"$temp/iommufd_vfio.c"
cat "$temp/vfio.c" "$temp/iommufd.c" "$temp/vfio.c" >"$temp/vfio_iommufd.c"
# A name from each header that no older system header has, used: so the headers are ours.
cat >"$temp/used.c" <<END
#include <linux/iommufd.h>
#include <linux/vfio.h>
int used(void);
int used(void)
{
	return IOMMU_IOAS_NOIOMMU_GET_PA + VFIO_DEVICE_FEATURE_ZPCI_ERROR;
}
END

compiled=0
failed=0
# try COMPILER LANGUAGE STANDARD...
try() {
	compiler=$1 language=$2
	shift 2
	command -v "$compiler" >/dev/null || { echo "no $compiler, left out" && return; }
	for standard; do
		for file in "$temp"/*.c "$here/layout.c"; do
			compiled=$((compiled + 1))
			"$compiler" -x "$language" "-std=$standard" -Wall -Wextra -Wundef -Werror \
				-I "$include" -c "$file" -o "$temp/object" && continue
			echo "failed: $compiler $standard ${file##*/}"
			failed=$((failed + 1))
		done
	done
}

try gcc c gnu99 c11 gnu11 gnu17
try clang c gnu99 c11 gnu11 gnu17
try g++ c++ c++11 gnu++14 c++17 c++20
try clang++ c++ c++11 gnu++14 c++17 c++20

[ $compiled -gt 0 ] || { echo "skipped: no compiler" && exit 77; }
echo "$((compiled - failed)) of $compiled compilations without a warning"
[ $failed -eq 0 ]
