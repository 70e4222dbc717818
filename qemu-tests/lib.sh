# shellcheck shell=sh
# lib.sh: virtual machines for tests and demo: one private network, the shared QEMU
# command, bounded waiting. Sourced, never run.
#
# A machine has a number, 1 to 89. Machine 7 has the MAC address 52:54:00:77:00:07,
# without DHCP the IP address 10.77.0.17, and in $WORK the disk 7.disk and the
# console 7.console.
set -eu
umask 022

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../scripts/lib.sh"

SERVER=10.77.0.1
MACHINE_MIB=128
# A boot under plain emulation takes seconds on an idle host, but the host of the tests may be busy:
# bounds only end what hangs, they measure nothing.
# shellcheck disable=SC2034 # for the tests
BOOT_SECS=120
# panic, oops: a guest that has crashed ends, and the test need not wait for its timeout.
# no_timer_check: the kernel panics if a timer does not tick while it waits for it, which happens
# with an emulated timer on a busy host. KVM guests do without this check, too.
MACHINE_OPTIONS="console=ttyS0 quiet panic=1 oops=panic no_timer_check"
STARTED_PIDS=

# begin "$@": the first command of every test. $WORK is removed when the test ends.
begin() {
	enter_private_network "$@"
	WORK=$(mktemp -d)
	trap 'stop_everything; rm -rf "$WORK"' EXIT
	trap 'exit 130' INT TERM
	# The daemons are not root and must be able to enter.
	chmod 755 "$WORK"
	prepare_boot_files
	choose_accelerator
	make_bridge
}

# --- the network ----------------------------------------------------------------

# Starts the calling script again in a network namespace of its own. Nothing in it reaches the
# interfaces of the host, and the namespace disappears with its last process. So do its mounts.
enter_private_network() {
	[ -z "${SWARMDD_IN_NAMESPACE:-}" ] || return 0
	[ "$(id -u)" = 0 ] || die "needs root, for a network namespace with a bridge in it"
	need unshare:util-linux ip:iproute2 qemu-system-x86_64:qemu-system-x86
	SWARMDD_IN_NAMESPACE=1 exec unshare --net --mount -- "$0" "$@"
}

make_bridge() {
	ip link set lo up
	ip link add br0 type bridge forward_delay 0
	ip address add "$SERVER/24" dev br0
	ip link set br0 up
}

plug_in() {
	# Not by /sys/class/net, which still shows the interfaces of the host.
	! ip link show dev "tap$1" > /dev/null 2>&1 || return 0
	ip tuntap add dev "tap$1" mode tap
	ip link set "tap$1" master br0 up
}

# existing_dhcp_server FIRST,LAST: a host of its own that only gives addresses, for --proxy-dhcp. It
# announces an IPv6 network, too: without one, iPXE waits 16 s for it at each boot.
existing_dhcp_server() {
	local pid

	# shellcheck disable=SC2016 # the inner shell expands these
	unshare --net sh -c 'until ip link set dhcp1 up 2> /dev/null; do sleep 0.1; done
		ip address add 10.77.0.2/24 dev dhcp1
		ip address add fd77::2/64 dev dhcp1 nodad
		exec dnsmasq --keep-in-foreground --conf-file=/dev/null --pid-file= --port=0 \
			--interface=dhcp1 --bind-dynamic --except-interface=lo --log-facility=- \
			--dhcp-leasefile="$1" --dhcp-range="$2,1h" \
			--enable-ra --dhcp-range=fd77::,ra-only' - "$WORK/leases" "$1" \
		> "$WORK/dhcp.log" 2>&1 < /dev/null &
	pid=$!
	STARTED_PIDS="$STARTED_PIDS $pid"
	wait_until 10 in_another_network "$pid" || fail "the DHCP server did not start"
	ip link add dhcp0 type veth peer name dhcp1
	ip link set dhcp1 netns "$pid"
	ip link set dhcp0 master br0 up
}

in_another_network() {
	[ "$(readlink "/proc/$1/ns/net")" != "$(readlink /proc/self/ns/net)" ]
}

# slow_link N RATE: limits the rate towards machine N, so that a test has time in the middle of a
# download.
slow_link() {
	plug_in "$1"
	tc qdisc replace dev "tap$1" root tbf rate "$2" burst 64kb latency 100ms
}

# --- what machines boot ------------------------------------------------------------

# Sets KERNEL, INITRAMFS and AGENT, and makes those that are missing.
prepare_boot_files() {
	AGENT=${SWARMDD_AGENT:-$TOP/target/swarmdd}
	INITRAMFS=${SWARMDD_INITRAMFS:-$TOP/target/initramfs-vm.img}
	KERNEL_ROOT=$("$TOP/scripts/kernel" cloud)
	KERNEL=$(echo "$KERNEL_ROOT"/boot/vmlinuz-*)
	[ -x "$AGENT" ] || "$TOP/scripts/build" > /dev/null
	[ -e "$INITRAMFS" ] || "$TOP/scripts/mkinitramfs" --modules "$KERNEL_ROOT" \
		--agent "$AGENT" --output "$INITRAMFS" > /dev/null
}

# Sets ACCEL. /dev/kvm may exist and open and still never run a guest, so a guest is tried: a kernel
# and three lines of init, which print a line and switch off.
choose_accelerator() {
	ACCEL=tcg
	[ -z "${SWARMDD_ACCEL:-}" ] || { ACCEL=$SWARMDD_ACCEL; return 0; }
	[ -w /dev/kvm ] || return 0
	mkdir -p "$WORK/probe/bin"
	cp /bin/busybox "$WORK/probe/bin/"
	printf '#!/bin/busybox sh\nbusybox echo A-MACHINE-RUNS\nbusybox poweroff -f\n' \
		> "$WORK/probe/init"
	chmod 755 "$WORK/probe/init"
	(cd "$WORK/probe" && find . | cpio --quiet --create --format=newc) > "$WORK/probe.cpio"
	if timeout --kill-after=1 10 qemu-system-x86_64 -accel kvm -m 128 -nodefaults -no-reboot \
		-display none -serial stdio -kernel "$KERNEL" -initrd "$WORK/probe.cpio" \
		-append "console=ttyS0 quiet panic=1" < /dev/null 2> /dev/null |
		grep -q A-MACHINE-RUNS; then
		ACCEL=kvm
	fi
}

# --- machines ------------------------------------------------------------------------

mac_of() { printf '52:54:00:77:00:%02x\n' "$1"; }

# new_disk N MIB: empty, sparse.
new_disk() {
	rm -f "$WORK/$1.disk"
	truncate --size "${2}M" "$WORK/$1.disk"
}

# disk_options N: the QEMU options for the disk of machine N: those in N.disk-options, or else a
# plain file.
disk_options() {
	cat "$WORK/$1.disk-options" 2> /dev/null || virtio_disk "$1" "$(plain_drive "$1")"
}

plain_drive() { echo "file=$WORK/$1.disk,format=raw,cache=unsafe"; }

# virtio_disk N DRIVE: the options for a disk whose data is at DRIVE. Without `report` QEMU would
# stop the machine on "no space". With merging, all merged requests would fail if one of them fails.
# addr: its by-path name is pci-0000:00:08.0.
virtio_disk() {
	printf '%s\n' "-drive $2,if=none,id=disk,werror=report,rerror=report" \
		"-device virtio-blk-pci,drive=disk,serial=DISK$1,request-merging=off,addr=8"
}

# The same as a SCSI disk: virtio-blk knows only one error, SCSI tells errors apart.
scsi_disk() {
	printf '%s\n' "-drive $2,if=none,id=disk,werror=report,rerror=report" \
		"-device virtio-scsi-pci -device scsi-hd,drive=disk,serial=DISK$1"
}

# failing_drive N OPERATION ERRNO OFFSET [once]: a drive on N.disk that answers ERRNO to every
# OPERATION (read, write, flush), or only to the first, that touches byte OFFSET (-1: any byte).
# writeback: with cache=unsafe a flush would be ignored. blkdebug is a layer of QEMU
# (docs/devel/blkdebug.rst).
failing_drive() {
	local sector="$4" rule=file.inject-error.0

	[ "$sector" = -1 ] || sector=$(($4 / 512))
	printf '%s' "driver=raw,cache=writeback,file.driver=blkdebug" \
		",file.image.driver=file,file.image.filename=$WORK/$1.disk" \
		",$rule.event=none,$rule.iotype=$2,$rule.errno=$3,$rule.sector=$sector${5:+,$rule.once=on}"
}

# lying_drive N OFFSET TIMES: a drive on N.disk whose byte OFFSET changes by itself after each of
# its first TIMES writes. See lying-disk.
lying_drive() {
	local socket="$WORK/$1.nbd"

	"$(dirname "$0")/lying-disk" "$WORK/$1.disk" "$socket" "$2" "$3" \
		> "$WORK/$1.lies" 2>&1 < /dev/null &
	STARTED_PIDS="$STARTED_PIDS $!"
	wait_until 10 test -S "$socket" || fail "lying-disk did not start: $(cat "$WORK/$1.lies")"
	printf '%s' "driver=raw,cache=writeback,file.driver=nbd" \
		",file.server.type=unix,file.server.path=$socket"
}

# net_options N: the QEMU options for what the card of machine N is plugged into: those in
# N.net-options, or else the bridge.
net_options() {
	cat "$WORK/$1.net-options" 2> /dev/null ||
		echo "-netdev tap,id=net,ifname=tap$1,script=no,downscript=no"
}

# start_machine N QEMU-OPTION...: with its disk, a network card ($CARD), and a serial console that
# goes to a file. The ROM of the card is iPXE.
start_machine() {
	local n="$1"

	shift
	plug_in "$n"
	: > "$WORK/$n.console"
	# shellcheck disable=SC2046 # several words
	qemu-system-x86_64 -name "machine $n" -accel "$ACCEL" -m "$MACHINE_MIB" -smp 1 \
		-nodefaults -display none -serial "file:$WORK/$n.console" \
		$(disk_options "$n") \
		$(net_options "$n") \
		-device "${CARD:-virtio-net-pci},netdev=net,mac=$(mac_of "$n")" \
		"$@" > "$WORK/$n.qemu" 2>&1 < /dev/null &
	echo $! > "$WORK/$n.pid"
	STARTED_PIDS="$STARTED_PIDS $!"
}

# start_uefi N QEMU-OPTION...: with UEFI instead of a BIOS, which needs 256 MiB. It boots from the
# network card, then from the disk that has bootindex=2. Its settings are kept in N.vars.
start_uefi() {
	local n="$1" dir=/usr/share/OVMF

	shift
	[ -e "$WORK/$n.vars" ] || cp "$dir/OVMF_VARS_4M.fd" "$WORK/$n.vars"
	MACHINE_MIB=256 start_machine "$n" -global "${CARD:-virtio-net-pci}.bootindex=1" \
		-drive "if=pflash,unit=0,format=raw,readonly=on,file=$dir/OVMF_CODE_4M.fd" \
		-drive "if=pflash,unit=1,format=raw,file=$WORK/$n.vars" "$@"
}

# start_direct N KERNEL-OPTION...: without firmware and PXE, in a third of the time.
start_direct() {
	local n="$1"

	shift
	start_machine "$n" -no-reboot -kernel "$KERNEL" -initrd "$INITRAMFS" -append \
		"$MACHINE_OPTIONS $(static_address "$n") $*"
}

# The kernel option that gives machine N its address.
static_address() { echo "swarmdd.net=10.77.0.$((10 + $1))/24"; }

# Like pulling the plug.
kill_machine() { end_process "$(cat "$WORK/$1.pid")" KILL; }

stop_everything() {
	local pid

	for pid in $STARTED_PIDS; do
		is_running "$pid" || continue
		# The second signal: serve is to wait for no machine. It must be another one, or the
		# kernel may make one of two. 20 s: serve ends its daemons one after the other.
		kill -INT "$pid" 2> /dev/null || true
		end_process "$pid" TERM 20
	done
	STARTED_PIDS=
}

# --- waiting, always with an end ---------------------------------------------------

# wait_until SECONDS COMMAND...: false when time is up.
wait_until() {
	local limit

	limit=$(($(date +%s) + $1))
	shift
	until "$@"; do
		[ "$(date +%s)" -lt "$limit" ] || return 1
		sleep 0.5
	done
}

says() { grep --quiet --text --extended-regexp -e "$2" "$1" 2> /dev/null; }
has_ended() { ! is_running "$1"; }

# wait_for_console N SECONDS PATTERN: until the console of machine N shows the pattern.
wait_for_console() {
	wait_until "$2" says "$WORK/$1.console" "$3"
}

# wait_for_frame N: until the console of machine N shows the frame around a failure, all of it: the
# lines leave a serial port one by one.
wait_for_frame() {
	wait_for_console "$1" "$BOOT_SECS" "SWARMDD FAILED ON THIS MACHINE" &&
		wait_until 10 frame_is_whole "$1"
}

frame_is_whole() {
	sed -n '/SWARMDD FAILED ON THIS MACHINE/,$p' "$WORK/$1.console" |
		grep --quiet --text -e '+-----*+'
}

# wait_for_release N: until machine N has switched itself off.
wait_for_release() {
	wait_until 30 has_ended "$(cat "$WORK/$1.pid")" || fail "machine $1 was not released"
}

# --- the server ----------------------------------------------------------------------

# start_server OPTION... IMAGE: scripts/serve with its state in $WORK/serve.
start_server() {
	rm -rf "$WORK/serve"
	"$TOP/scripts/serve" --interface br0 --dir "$WORK/serve" --agent "$AGENT" \
		--kernel "$KERNEL" --initramfs "$INITRAMFS" "$@" > "$WORK/serve.out" 2>&1 < /dev/null &
	SERVE_PID=$!
	STARTED_PIDS="$SERVE_PID $STARTED_PIDS"
	wait_until 60 server_is_ready || fail "the server did not start: $(tail -n 3 "$WORK/serve.out")"
}

server_is_ready() {
	is_running "$SERVE_PID" || fail "the server ended: $(tail -n 3 "$WORK/serve.out")"
	[ -s "$WORK/serve/cmdline" ]
}

# deploy_options N [AGENT-OPTION]: the kernel options that deploy the images of the server on
# machine N.
deploy_options() {
	sed "s/MAC/$(mac_of "$1" | tr : -)/g; s/swarmdd.args=\"/&${2:+$2 }/" "$WORK/serve/cmdline"
}

# server_ends SECONDS: true if the job succeeded. The test fails if the server does not end in time.
server_ends() {
	wait_until "$1" has_ended "$SERVE_PID" ||
		fail "the server never ended: $(tail -n 3 "$WORK/serve.out")"
	wait "$SERVE_PID"
}

# reported N STATE: machine N has reported this state to the server.
reported() { says "$WORK/serve/log/room.log" "$(mac_of "$1" | tr : -).*state.....$2"; }

# reported_number N STATE FIELD: a number in the last report of machine N in this state.
reported_number() {
	grep --text -e "$(mac_of "$1" | tr : -).*state.....$2" "$WORK/serve/log/room.log" |
		tail -n 1 |
		sed -n "s/.*[^a-z_]$3[^a-z0-9_][^a-z0-9]*\([0-9]*\).*/\1/p"
}

# member_of N NAME [FILE]: what results.json, or FILE, says about machine N.
member_of() {
	python3 -c 'import json, sys
path, mac, name = sys.argv[1:]
for machine in json.load(open(path, encoding="utf-8"))["machines"]:
    if machine["mac"] == mac:
        print(machine[name])' "${3:-$WORK/serve/results.json}" "$(mac_of "$1" | tr : -)" "$2"
}

# has_failed N PATTERN: machine N says so in a frame, the server knows the reason, and the machine
# never called its disk complete.
has_failed() {
	wait_for_frame "$1" || fail "machine $1 shows no frame"
	! reported "$1" seeding || fail "machine $1 called its disk complete"
	! reported "$1" "done" || fail "machine $1 called itself done"
	member_of "$1" result | grep --quiet --extended-regexp -e "failed: .*$2" ||
		fail "the results should say '$2' of machine $1: $(member_of "$1" result)"
}

# --- images and proof ----------------------------------------------------------------

# Small, bootable, and its length is no multiple of a piece.
make_image() {
	"$TOP/scripts/demo-image" --kernel "$KERNEL_ROOT" --modules none --size 28 "$1" 2> /dev/null
}

# make_noise MIB FILE: no piece is zeros or repeated, so all of it has to be fetched. Its length is
# no multiple of a piece either.
make_noise() { head --bytes=$(($1 * 1048576 + 777 * 512)) /dev/urandom > "$2"; }

# with_one_byte_changed FILE OFFSET COPY
with_one_byte_changed() {
	local byte

	cp --sparse=always "$1" "$3"
	byte=$(od --address-radix=n --format=u1 --skip-bytes="$2" --read-bytes=1 "$1")
	# shellcheck disable=SC2059 # the format is the byte
	printf "\\$(printf %o $((byte ^ 1)))" | dd of="$3" bs=1 seek="$2" conv=notrunc status=none
}

# same_bytes IMAGE DISK: the disk begins with the image.
same_bytes() { cmp --quiet --bytes="$(bytes_of "$1")" "$1" "$2"; }

# fail REASON: ends the test, with the last lines of machines and server.
fail() {
	local file

	for file in "$WORK"/*.console "$WORK"/*.qemu "$WORK/serve.out"; do
		[ ! -s "$file" ] || { echo "--- the end of ${file##*/}"; tail -n 12 "$file" | tr -d '\r'; }
	done >&2
	printf '%s: %s\n' "$PROGRAM" "$*" >&2
	exit 1
}
