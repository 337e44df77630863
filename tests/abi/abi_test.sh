#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Proves that our statement of the ABI equals the kernel's published headers: the same structs,
# members, enumerators and macros exist in both, members have the same declared types, offsets
# and sizes, constants the same values and types. No name is exempt.
#
# Names are taken from both sides by the compiler (debug information for types, -dD for macros),
# the lists compared, and one program, written from the names in common, is built against each
# side and its outputs compared.
#
# usage: abi_test.sh [-H INCLUDE] [-R INCLUDE] [CACHE-DIR]
#	-H	our headers, instead of those of this tree
#	-R	the headers to compare with, instead of those fetch_reference.sh gets
#	CC	the compiler (environment), else cc
# Exit: 0 equal, 1 different, 77 not tested because there is nothing to compare with.
set -u
LC_ALL=C
export LC_ALL

here=$(cd "$(dirname "$0")" && pwd)
ours=$here/../../include/uapi
theirs=
while getopts H:R: option; do
	case $option in
	H) ours=$OPTARG ;;
	R) theirs=$OPTARG ;;
	*) exit 1 ;;
	esac
done
shift $((OPTIND - 1))
cache=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/swiommu/abi}
: "${CC:=cc}"

temp=$(mktemp -d) || exit 1
trap 'rm -rf "$temp"' EXIT
trap 'exit 1' HUP INT TERM

die() {
	echo "$*"
	exit 1
}

# compile SIDE ARGUMENT...: the reference brings its own asm and other headers along.
compile() {
	side=$1
	shift
	case $side in
	ours) $CC -std=gnu11 -I "$ours" "$@" ;;
	theirs) $CC -std=gnu11 -isystem "$theirs" -isystem "$theirs/$triplet" "$@" ;;
	esac
}

# types SIDE FILE.c: the types known after it, sorted.
types() {
	compile "$1" -g -gdwarf-4 -fno-eliminate-unused-debug-types -c "$2" -o "$temp/types.o" ||
		return 1
	readelf --debug-dump=info "$temp/types.o" >"$temp/types.dump" &&
		awk -f "$here/types.awk" "$temp/types.dump" >"$temp/types.raw" &&
		sort -u "$temp/types.raw"
}

# names SIDE HEADER: everything HEADER names, without what its own includes bring.
names() {
	echo "#include <linux/$2.h>" >"$temp/whole.c"
	printf '#include <linux/%s.h>\n' types ioctl stddef >"$temp/base.c"
	types "$1" "$temp/whole.c" >"$temp/whole" &&
		types "$1" "$temp/base.c" >"$temp/base" &&
		compile "$1" -E -dD "$temp/whole.c" >"$temp/macros.i" &&
		awk -v header="linux/$2.h" -f "$here/macros.awk" "$temp/macros.i" >"$temp/macros" ||
		return 1
	{ comm -23 "$temp/whole" "$temp/base" && cat "$temp/macros"; } | sort
}

# values SIDE: what the program about the common names says.
values() {
	compile "$1" -I "$here" "$temp/program.c" -o "$temp/program" && "$temp/program"
}

# difference TITLE FILE: prints what sets FILE.ours apart from FILE.theirs, true if nothing does.
difference() {
	diff "$2.theirs" "$2.ours" >"$temp/diff" && return 0
	echo "$1 (< reference, > ours):"
	grep '^[<>]' "$temp/diff"
	return 1
}

result=0
check() {
	for side in ours theirs; do
		names $side "$1" >"$temp/$1.$side" || die "linux/$1.h: no names from $side"
	done
	difference "linux/$1.h: names" "$temp/$1" || result=1
	comm -12 "$temp/$1.ours" "$temp/$1.theirs" >"$temp/common"
	cat "$temp/common" >>"$temp/all"
	awk -v header="linux/$1.h" -f "$here/program.awk" "$temp/common" >"$temp/program.c" || exit 1
	for side in ours theirs; do
		values $side >"$temp/values.$side" || die "linux/$1.h: no values from $side"
	done
	difference "linux/$1.h: values" "$temp/values" || result=1
}

counted() {
	grep -c "^$1 " "$temp/all"
}

if [ -z "$theirs" ]; then
	theirs=$(sh "$here/fetch_reference.sh" "$cache" 2>"$temp/reason")
	case $? in
	0) ;;
	77) echo "skipped: $(cat "$temp/reason")" && exit 77 ;;
	*) die "$(cat "$temp/reason")" ;;
	esac
fi
for tool in readelf "${CC%% *}"; do
	command -v "$tool" >/dev/null || { echo "skipped: no $tool on this machine" && exit 77; }
done
triplet=$($CC -print-multiarch 2>/dev/null) || triplet=
[ -n "$triplet" ] || triplet=$(gcc -print-multiarch 2>/dev/null)
version=$(cat "$theirs/../../version" 2>/dev/null) || version="in $theirs"

for header in iommufd vfio; do
	check $header
done
# The counts guard against a comparison of nothing with nothing.
structs=$(counted struct) members=$(counted member)
constants=$(($(counted enumerator) + $(counted macro)))
[ "$structs" -gt 50 ] && [ "$members" -gt 200 ] && [ "$constants" -gt 200 ] || result=1
[ $result -eq 0 ] && verdict=equal || verdict=DIFFERENT
echo "$verdict: linux-libc-dev $version; compared $structs structs, $members members," \
	"$constants constants ($(counted enumerator) enumerators, $(counted macro) macros)," \
	"$(counted enum) enums, $(counted function) macro functions"
exit $result
