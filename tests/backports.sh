# SPDX-License-Identifier: MIT
# shellcheck shell=sh
#
# To be sourced: packages of one kernel series from Debian's backports, for tests that compare with
# the real kernel. apt downloads them from the mirror this machine is set up for and checks them
# against Debian's archive keys. Nothing is installed, apt's own lists and caches stay untouched,
# and root is not needed.
#
# The conventions of all scripts here: skip() ends with 77 (nothing to fetch from), fail() with 1
# (something came that cannot be trusted or used), each with its reason on stderr.
LC_ALL=C
export LC_ALL

series=7.3
suite=trixie-backports

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

# Versions of a package in the series that the mirror has, newest first.
versions_of() {
	apt-cache -c "$work/apt.conf" madison "$1" |
		awk -v s="$series" '$3 == s || index($3, s ".") == 1 || index($3, s "-") == 1 { print $3 }'
}

# look_up MIRROR PACKAGE...: the newest version it has of all the packages, in $version; false if none.
look_up() {
	mirror=$1
	shift
	rm -rf "$work/lists" "$work/cache"
	mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
	write_config "$mirror"
	if ! timeout 100 apt-get -c "$work/apt.conf" update >"$work/log" 2>&1; then
		# Absent is one thing, forged or damaged another.
		if grep -q -e 'GPG error' -e 'Hash Sum mismatch' "$work/log"; then
			fail "the mirror's $suite does not pass apt's checks:"
		fi
		return 1
	fi
	versions_of "$1" >"$work/versions"
	shift
	for package; do
		versions_of "$package" | grep -Fx -f "$work/versions" >"$work/both"
		mv "$work/both" "$work/versions"
	done
	read -r version <"$work/versions" && [ -n "$version" ]
}

# prepare CACHE-DIR TOOL...: makes the cache absolute and a work directory in it, in $cache and $work.
prepare() {
	cache=$1
	shift
	for tool in apt-get apt-cache dpkg-deb timeout "$@"; do
		command -v "$tool" >/dev/null || skip "no $tool on this machine"
	done
	keyring=
	for file in /usr/share/keyrings/debian-archive-keyring.gpg \
		/usr/share/keyrings/debian-archive-keyring.pgp; do
		[ -r $file ] && keyring=$file && break
	done
	[ -n "$keyring" ] || skip "no debian-archive-keyring on this machine"
	mkdir -p "$cache" || exit 1
	cache=$(cd "$cache" && pwd)
	work=$(mktemp -d "$cache/fetch.XXXXXX") || exit 1
	trap 'rm -rf "$work"' EXIT
	trap 'exit 1' HUP INT TERM
	# mktemp makes it private, but apt run by root fetches as a user of its own.
	chmod 755 "$work"
}

# download PACKAGE...: the packages in their newest common version, as $work/*.deb; it in $version.
download() {
	list=$(mirrors)
	[ -n "$list" ] || skip "apt is set up for no mirror"
	version=
	for mirror in $list; do
		look_up "$mirror" "$@" && break
	done
	[ -n "$version" ] || skip "no mirror answers with $* $series from $suite"
	wanted=
	for package; do
		wanted="$wanted $package=$version"
	done
	# shellcheck disable=SC2086
	if ! (cd "$work" && timeout 250 apt-get -c apt.conf download $wanted) >"$work/log" 2>&1; then
		grep -q 'Hash Sum mismatch' "$work/log" && fail "a package is damaged:"
		skip "$* $version cannot be downloaded"
	fi
}

# keep TREE READY: in one step, so that a run beside this one never sees half of it. That may also be first.
keep() {
	echo "$version" >"$1/version"
	mv -T "$1" "$2" 2>"$work/log" || [ -f "$2/version" ] || fail "cannot keep $2:"
}
