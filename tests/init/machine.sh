# shellcheck shell=sh
# machine.sh: parts of the fake machine in $ROOT, for the cases and for the mock's `at`. Sourced.

# disk NAME
disk() {
	mkdir -p "$ROOT/sys/block/$1/device"
	touch "$ROOT/dev/$1"
}

# nic NAME MAC DRIVER [LEASE]: a card without a link. LEASE is the answer of a DHCP server: IP MASK
# ROUTER.
nic() {
	local dir="$ROOT/sys/class/net/$1"
	mkdir -p "$dir/device"
	ln -s "../../drivers/$3" "$dir/device/driver"
	echo 1 >"$dir/type"
	echo "$2" >"$dir/address"
	echo 0 >"$dir/carrier"
	[ $# -lt 4 ] || lease "$1" "$4"
}

# lease_options INTERFACE NAME=VALUE...: what the DHCP server sends besides.
lease_options() {
	local interface="$1"
	shift
	printf '%s\n' "$@" >"$ROOT/lease.$interface.options"
}

# failing_ip CALL ERROR: a call of `ip` that has CALL in it fails.
failing_ip() { echo "$1|$2" >>"$ROOT/failing-ip"; }

lease() { echo "$2" >"$ROOT/lease.$1"; }
link_up() { echo 1 >"$ROOT/sys/class/net/$1/carrier"; }
