#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Fetches the published kernel headers that our own are compared with: Debian's linux-libc-dev of
# one kernel series, downloaded by apt from the mirror this machine is set up for and checked
# against Debian's archive keys. Nothing is installed, apt's own lists and caches stay untouched,
# and root is not needed. The result is kept, so later runs need no network.
#
# usage: fetch_reference.sh CACHE-DIR
# Prints the include directory. Exit: 0, 77 when there is nothing to fetch from (reason on
# stderr), 1 when something came that cannot be trusted or used.
set -u
LC_ALL=C
export LC_ALL

series=7.3
suite=trixie-backports
cache=${1:?usage: fetch_reference.sh CACHE-DIR}
ready=$cache/linux-libc-dev-$series

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

# Leaves the newest version of the series that mirror $1 has in $version; false if it has none.
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
	version=$(apt-cache -c "$work/apt.conf" madison linux-libc-dev |
		awk -v s="$series" '$3 == s || index($3, s ".") == 1 || index($3, s "-") == 1 {
			print $3; exit }')
	[ -n "$version" ]
}

if [ -f "$ready/version" ]; then
	echo "$ready/usr/include"
	exit 0
fi
for tool in apt-get apt-cache dpkg-deb timeout; do
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
ready=$cache/linux-libc-dev-$series
work=$(mktemp -d "$cache/fetch.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
# mktemp makes it private, but apt run by root fetches as a user of its own.
chmod 755 "$work"

version=
for mirror in $list; do
	look_up "$mirror" && break
done
[ -n "$version" ] || skip "no mirror answers with linux-libc-dev $series from $suite"

if ! (cd "$work" && timeout 100 apt-get -c apt.conf download "linux-libc-dev=$version") \
	>"$work/log" 2>&1; then
	grep -q 'Hash Sum mismatch' "$work/log" && fail "the package is damaged:"
	skip "linux-libc-dev $version cannot be downloaded"
fi
mkdir "$work/tree" && dpkg-deb -x "$work"/linux-libc-dev_*.deb "$work/tree" 2>"$work/log" ||
	fail "linux-libc-dev $version cannot be unpacked:"
echo "$version" >"$work/tree/version"
# In one step, so that a run beside this one never sees half a tree. It may also have been first.
mv -T "$work/tree" "$ready" 2>"$work/log" || [ -f "$ready/version" ] || fail "cannot keep $ready:"
echo "$ready/usr/include"
