#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Fetches the published kernel headers that our own are compared with: Debian's linux-libc-dev
# (see ../backports.sh). The result is kept, so later runs need no network.
#
# usage: fetch_reference.sh CACHE-DIR
# Prints the include directory. Exit: 0, 77 or 1.
set -u
. "$(dirname "$0")/../backports.sh"

cache=${1:?usage: fetch_reference.sh CACHE-DIR}
ready=$cache/linux-libc-dev-$series
if [ -f "$ready/version" ]; then
	echo "$ready/usr/include"
	exit 0
fi
prepare "$cache"
ready=$cache/linux-libc-dev-$series
download linux-libc-dev
mkdir "$work/tree" && dpkg-deb -x "$work"/linux-libc-dev_*.deb "$work/tree" 2>"$work/log" ||
	fail "linux-libc-dev $version cannot be unpacked:"
keep "$work/tree" "$ready"
echo "$ready/usr/include"
