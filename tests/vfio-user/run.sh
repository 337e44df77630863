#!/bin/sh
# SPDX-License-Identifier: MIT
#
# run.sh [--user] SWIOMMU DIRECTORY: programs under `swiommu run` whose device is in the test server. Everything is copied to
# a place that every user can reach; with --user it is an ordinary user who does all this (only as root: else who calls).
set -u
user=
[ "$1" = --user ] && { user=yes; shift; }
swiommu=$1 from=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cp "$swiommu" "$from/vfio-user-server" "$from/vfio-user-client" "$dir"
helper=$(dirname "$swiommu")/libswiommu-preload.so
[ -e "$helper" ] && cp "$helper" "$dir"
as=
if [ "$(id -u)" = 0 ]; then
	if [ "$user" ]; then
		chown -R 65534:65534 "$dir"
		as="setpriv --reuid=65534 --regid=65534 --clear-groups"
	fi
elif [ -z "$user" ]; then
	exit 77
fi
cd "$dir" || exit 1
$as ./swiommu run true 2>/dev/null || { echo "swiommu run does not work here (swiommu doctor)"; exit 77; }

tried=0 passed=0
# scene SERVER-OPTIONS DEVICE-OPTIONS RUN-OPTIONS SCENE [what the supervisor must say]
scene() {
	tried=$((tried + 1))
	mkfifo stdin$tried
	# shellcheck disable=SC2086
	$as ./vfio-user-server "$dir/socket" $1 <stdin$tried >ready$tried &
	server=$!
	exec 3>stdin$tried
	# shellcheck disable=SC2086
	$as timeout 60 ./swiommu run $3 --device "vfio-user:$dir/socket,wait=20$2" -- ./vfio-user-client "$4" >out 2>err
	status=$?
	exec 3>&-
	wait $server
	served=$?
	ok=yes
	[ $status = 0 ] && [ $served = 0 ] || ok=
	[ -z "${5:-}" ] || grep -q "$5" err || ok=
	if [ "$ok" ]; then
		passed=$((passed + 1))
	else
		echo "FAILED: server '$1', device '$2', run '$3', scene $4: status $status, server $served"
		cat err
	fi
	tr -s ' ' <out | sed "s/^/  $4 $1 $3: /"
}

for helper in "" --no-helper; do
	for twin in "" twin; do
		scene "$twin" "" "$helper" basic
	done
	scene "maps=2" "" "$helper" basic
	scene twin ",emulated=1" "$helper" basic
	scene twin "" "$helper" dies "is lost: the server has closed the connection"
	scene twin ",reconnect=30" "$helper" returns "there is a server at .* again"
done
if [ -e libswiommu-preload.so ]; then
	scene twin "" "" all_by_file
	scene "" "" "" all_by_file
fi
for how in --no-helper --no-share-memory; do
	scene twin "" $how private_by_message
done
tried=$((tried + 1))
$as ./swiommu run --device "vfio-user:$dir/nobody" -- true 2>err
if [ $? = 125 ] && grep -q "socket $dir/nobody: No such file" err; then
	passed=$((passed + 1))
else
	cat err
fi
echo "passed $passed of $tried"
[ $passed = $tried ]
