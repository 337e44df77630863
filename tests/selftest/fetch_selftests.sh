#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Fetches and builds the kernel's own iommufd selftests, unmodified: six files out of Debian's
# linux-source of one kernel series, and the uapi headers of the linux-libc-dev of the very same
# version. apt gets them from the mirror this machine is set up for and checks them against Debian's
# archive keys. Nothing is installed, apt's own lists and caches stay untouched, root is not needed.
# The files are GPL-2.0: they are built and run here, and are no part of this tree. What is kept is small,
# and later runs need no network.
#
# usage: fetch_selftests.sh CACHE-DIR
# Prints the directory with the two programs. Exit: 0, 77 when there is nothing to fetch from or to
# build with (reason on stderr), 1 when something came that cannot be trusted or used.
set -u
LC_ALL=C
export LC_ALL

series=7.3
suite=trixie-backports
cache=${1:?usage: fetch_selftests.sh CACHE-DIR}
ready=$cache/iommufd-selftests-$series

skip() {
	echo "$*" >&2
	exit 77
}

fail() {
	echo "$*" >&2
	[ -s "$work/log" ] && sed 's/^/    /' "$work/log" >&2
	exit 1
}

# The roots of the archives in use. apt itself reads its configuration, in whichever form it is;
# the security archive has no backports.
mirrors() {
	apt-get --print-uris update 2>/dev/null |
		sed -n "s,^'\(.*\)/dists/.*/InRelease' .*,\1,p" |
		grep -v -e '-security/*$' | awk '!seen[$0]++'
}

# Own directories, only the suite wanted, no hooks and no pins of the machine.
write_config() {
	cat >"$work/apt.conf" <<-END
		Dir::State::Lists "$work/lists";
		Dir::Cache "$work/cache";
		Dir::Etc::SourceList "$work/reference.sources";
		Dir::Etc::SourceParts "/dev/null";
		Dir::Etc::Preferences "/dev/null";
		Dir::Etc::PreferencesParts "/dev/null";
		Acquire::Languages "none";
		Acquire::Retries "1";
		Acquire::http::Timeout "20";
		Acquire::https::Timeout "20";
		APT::Update::Error-Mode "any";
		#clear APT::Update::Pre-Invoke;
		#clear APT::Update::Post-Invoke;
		#clear APT::Update::Post-Invoke-Success;
	END
	cat >"$work/reference.sources" <<-END
		Types: deb
		URIs: $1
		Suites: $suite
		Components: main
		Targets: Packages
		Signed-By: $keyring
	END
}

versions() {
	apt-cache -c "$work/apt.conf" madison "$1" | awk '{ print $3 }'
}

# Leaves the newest version that mirror $1 has of both packages in $version; false if it has none.
look_up() {
	rm -rf "$work/lists" "$work/cache"
	mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
	write_config "$1"
	if ! timeout 100 apt-get -c "$work/apt.conf" update >"$work/log" 2>&1; then
		# Absent is one thing, forged or damaged another.
		if grep -q -e 'GPG error' -e 'Hash Sum mismatch' "$work/log"; then
			fail "the mirror's $suite does not pass apt's checks:"
		fi
		return 1
	fi
	versions linux-libc-dev >"$work/headers"
	version=$(versions "linux-source-$series" | grep -Fx -f "$work/headers" | head -n 1)
	[ -n "$version" ]
}

case $(uname -m) in
aarch64) arch=arm64 ;;
*) arch=x86 ;;
esac

unpack() {
	dpkg-deb -x "$work"/linux-libc-dev_*.deb "$work/hdr" &&
		dpkg-deb --fsys-tarfile "$work"/linux-source-*.deb | tar -xO "./usr/src/linux-source-$series.tar.xz" | xz -dc -T0 |
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

if [ -f "$ready/version" ]; then
	echo "$ready"
	exit 0
fi
for tool in apt-get apt-cache dpkg-deb xz tar timeout; do
	command -v $tool >/dev/null || skip "no $tool on this machine"
done
keyring=
for file in /usr/share/keyrings/debian-archive-keyring.gpg \
	/usr/share/keyrings/debian-archive-keyring.pgp; do
	[ -r $file ] && keyring=$file && break
done
[ -n "$keyring" ] || skip "no debian-archive-keyring on this machine"
list=$(mirrors)
[ -n "$list" ] || skip "apt is set up for no mirror"

mkdir -p "$cache" || exit 1
cache=$(cd "$cache" && pwd)
ready=$cache/iommufd-selftests-$series
work=$(mktemp -d "$cache/fetch.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
# mktemp makes it private, but apt run by root fetches as a user of its own.
chmod 755 "$work"
mkdir "$work/hdr" "$work/src" "$work/bin"

echo 'int main(void) { return 0; }' >"$work/probe.c"
${CC:-cc} -o "$work/probe" "$work/probe.c" -lcap 2>"$work/log" ||
	skip "cannot link with libcap (package libcap-dev)"

version=
for mirror in $list; do
	look_up "$mirror" && break
done
[ -n "$version" ] || skip "no mirror answers with linux-source-$series from $suite"

if ! (cd "$work" && timeout 250 apt-get -c apt.conf download "linux-source-$series=$version" \
	"linux-libc-dev=$version") >"$work/log" 2>&1; then
	grep -q 'Hash Sum mismatch' "$work/log" && fail "a package is damaged:"
	skip "linux-source-$series $version cannot be downloaded"
fi
unpack 2>"$work/log" || fail "linux-source-$series $version cannot be unpacked:"
for program in iommufd iommufd_fail_nth; do
	build $program >"$work/log" 2>&1 || fail "$program of $version cannot be built:"
done
echo "$version" >"$work/bin/version"
# In one step, so that a run beside this one never sees half of it. It may also have been first.
mv -T "$work/bin" "$ready" 2>"$work/log" || [ -f "$ready/version" ] || fail "cannot keep $ready:"
echo "$ready"
