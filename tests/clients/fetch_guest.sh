#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Fetches a Linux for a virtual machine: Debian 12's kernel for clouds, which is small and has the
# driver of NVMe disks built in. Installs nothing; see ../backports.sh.
#
# usage: fetch_guest.sh CACHE-DIR
# Prints a directory with vmlinuz. Exit: 0, 77 or 1.
set -u
. "$(dirname "$0")/../backports.sh"
# Read by ../backports.sh.
series=6.1 suite=bookworm

cache=${1:?usage: fetch_guest.sh CACHE-DIR}
ready=$cache/guest-$series
if [ -f "$ready/version" ]; then
	echo "$ready"
	exit 0
fi
[ "$(uname -m)" = x86_64 ] || skip "the guest's kernel is fetched for x86-64 only"
prepare "$cache"
ready=$cache/guest-$series
# The name of the package changes with each update; this one depends on the newest.
download linux-image-cloud-amd64
image=$(dpkg-deb -f "$work"/linux-image-cloud-amd64_*.deb Depends | grep -o 'linux-image-[^ ,]*')
[ -n "$image" ] || skip "linux-image-cloud-amd64 depends on no image"
rm "$work"/*.deb
download "$image"
mkdir -p "$work/root" "$work/keep"
dpkg-deb -x "$work"/linux-image-*.deb "$work/root" 2>"$work/log" || fail "$image cannot be unpacked:"
cp "$work"/root/boot/vmlinuz-* "$work/keep/vmlinuz" || fail "$image has no kernel"
keep "$work/keep" "$ready"
echo "$ready"
