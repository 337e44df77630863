#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Fetches QEMU 10, whose vfio-pci knows iommufd, from Debian 12's backports, and unpacks it into the
# cache. The libraries it needs are those of Debian 12's own QEMU, which must be installed. Installs
# nothing; see ../backports.sh.
#
# usage: fetch_qemu.sh CACHE-DIR
# Prints the directory of its bin and share. Exit: 0, 77 or 1.
set -u
. "$(dirname "$0")/../backports.sh"
# Read by ../backports.sh.
series=1:10.0 suite=bookworm-backports

cache=${1:?usage: fetch_qemu.sh CACHE-DIR}
ready=$cache/qemu-10.0
if [ -f "$ready/version" ]; then
	echo "$ready/usr"
	exit 0
fi
[ "$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release 2>/dev/null)" = bookworm ] ||
	skip "QEMU 10 can be fetched for Debian 12 only"
[ "$(uname -m)" = x86_64 ] || skip "QEMU 10 is fetched for x86-64 only"
[ -d /usr/share/seabios ] || skip "QEMU 10 needs the libraries and firmware of the package qemu-system-x86"
prepare "$cache"
ready=$cache/qemu-10.0
download qemu-system-x86 qemu-system-data
mkdir "$work/root"
for package in "$work"/*.deb; do
	dpkg-deb -x "$package" "$work/root" 2>"$work/log" || fail "$package cannot be unpacked:"
done
"$work/root/usr/bin/qemu-system-x86_64" --version >"$work/log" 2>&1 ||
	skip "QEMU 10 does not start here: $(tail -n 1 "$work/log")"
mkdir -p "$work/keep/usr/share"
mv "$work/root/usr/bin" "$work/keep/usr/"
mv "$work/root/usr/share/qemu" "$work/keep/usr/share/"
keep "$work/keep" "$ready"
echo "$ready/usr"
