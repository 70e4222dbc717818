#!/bin/sh
# udhcpc.sh: udhcpc calls it with a lease (man udhcpc, "PROGRAM INTERFACE"). Sets up the card and
# writes /run/swarmdd/net/INTERFACE, which net.sh waits for.
#
# Nothing that a server sends may end this script: the rest of the lease still counts.
set -u

ROOT=${ROOT-}
MOCK=${MOCK-}
# shellcheck source=initramfs/lib.sh
. "${LIB-$ROOT/lib/swarmdd}/lib.sh"

# udhcpc sets these. They are empty if the server did not send the option.
: "${interface:=}" "${ip:=}" "${mask:=24}" "${router:=}" "${dns:=}" "${domain:=}" "${hostname:=}"
: "${mtu:=}" "${routes:=}" "${staticroutes:=}" "${msstaticroutes:=}" "${message:=}"
# Of all routes of this card, from net.sh: the card with the lowest one is used. Two cards may have
# leases in the same subnet.
: "${METRIC:=100}"
# From net.sh: the name of the kernel command line. It stays, whatever a server sends.
: "${NAME_IS_GIVEN:=}"
# IPv4 works with no smaller one (RFC 791). Some servers send 0 or 68.
MTU_MIN=576

NOTE="$ROOT/run/swarmdd/net/$interface"
# The last lease as it was set up: a line with address and MTU, then its routes.
LEASE="$ROOT/run/swarmdd/lease.$interface"

main() {
	find_consoles
	case $1 in
	bound | renew) handle_lease ;;
	# The address stays while the deployment runs, because a DHCP server that is gone must not stop
	# the swarm. (udhcpc calls this at its start, too.)
	deconfig)
		[ ! -e "$LEASE" ] || say "$interface: the lease of $(last_address) is over;" \
			"the address stays until the server gives another one"
		;;
	nak)
		message=$(printf '%s' "$message" | tr '\000-\037\177' ' ')
		say "$interface: the DHCP server takes the lease back ($message)"
		;;
	esac
}

# Only what has changed since the last lease is set again, so that open connections survive.
handle_lease() {
	local last address="$ip/$mask"
	last=$(last_address)
	{
		echo "$address $mtu"
		all_routes
	} >"$LEASE.new"
	! cmp_files "$LEASE.new" "$LEASE" || return 0
	forget_problems "$interface"

	[ -z "$mtu" ] || set_mtu
	if [ "$last" = "$address" ]; then
		run_ip "$interface" -4 route flush dev "$interface"
	else
		[ -z "$last" ] || say "$interface: the address changes from $last to $address"
		run_ip "$interface" -4 addr flush dev "$interface"
		# noprefixroute: the route of the kernel has no metric.
		run_ip "$interface" -4 addr add "$address" broadcast + dev "$interface" noprefixroute || {
			rm -f "$LEASE" "$NOTE"
			return 0
		}
	fi
	add_routes <"$LEASE.new"
	set_names
	mv "$LEASE.new" "$LEASE"
	# Moved into place, so that net.sh never reads half a note.
	describe_lease <"$LEASE" >"$NOTE.new"
	mv "$NOTE.new" "$NOTE"
}

last_address() { sed -n '1s/ .*//p' "$LEASE" 2>/dev/null; }
cmp_files() { [ "$(cat "$1")" = "$(cat "$2" 2>/dev/null)" ]; }

set_mtu() {
	local parent="${interface%.*}"
	if [ "$mtu" -lt "$MTU_MIN" ]; then
		say "$interface: the DHCP server sends an MTU of $mtu, less than $MTU_MIN: ignored"
		return
	fi
	# A VLAN cannot have a larger one than its card.
	[ "$parent" = "$interface" ] || [ "$mtu" -le 1500 ] ||
		run_ip "$interface" link set dev "$parent" mtu "$mtu"
	run_ip "$interface" link set dev "$interface" mtu "$mtu"
}

# Prints a route a line: DESTINATION/LENGTH GATEWAY, or DESTINATION/LENGTH - without a gateway. The
# classless routes (option 121, or Microsoft's 249 with the same content) replace the routers
# (option 3) and the static routes by class (option 33): RFC 3442.
#
# Bits of a destination behind its length are cleared, as RFC 3442 asks for; the kernel would refuse
# them. Of an option 33 the network has the length of its class, or as many bytes as are not zero:
# 192.168.0.0 is a /24, 10.77.2.0 a /24, too, 10.77.2.1 a /32.
all_routes() {
	local gateway="${router%% *}" classless="${staticroutes:-$msstaticroutes}"
	{
		[ "$mask" = 32 ] || echo "$ip/$mask -"
		case $classless in
		*.*/*" "*.*) echo "$classless" | awk '{ for (i = 1; i < NF; i += 2) print $i, $(i + 1) }' ;;
		*)
			[ -z "$gateway" ] || echo "0.0.0.0/0 $gateway"
			echo "$routes" | routes_by_class
			;;
		esac
	} | awk '
		$1 !~ /^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+\/[0-9]+$/ { next }
		{
			split($1, part, "[./]")
			len = part[5]
			number = ((part[1] * 256 + part[2]) * 256 + part[3]) * 256 + part[4]
			if (len > 32 || number >= 4294967296) next
			# A loop: the awk of busybox has no powers.
			size = 1
			for (bits = len; bits < 32; bits++) size *= 2
			number -= number % size
			to = int(number / 16777216) "." int(number / 65536) % 256 "." \
				int(number / 256) % 256 "." number % 256 "/" len
			if (!seen[to]++) print to, ($2 == "0.0.0.0" ? "-" : $2)
		}'
}

# Option 33 as udhcpc prints it: NETWORK/GATEWAY...
routes_by_class() {
	awk '{
		for (i = 1; i <= NF; i++) {
			split($i, pair, "/")
			split(pair[1], byte, ".")
			len = byte[1] < 128 ? 8 : (byte[1] < 192 ? 16 : 24)
			for (n = 2; n <= 4; n++) if (byte[n] > 0 && len < 8 * n) len = 8 * n
			print pair[1] "/" len, pair[2]
		}
	}'
}

# onlink: a gateway need not be in the subnet of the address (a /32 lease in a cloud; routers of
# other subnets on the same wire), but it is always on the wire of this card.
add_routes() {
	local to gateway
	read -r _
	while read -r to gateway; do
		set -- dev "$interface"
		[ "$gateway" = - ] || set -- via "$gateway" "$@"
		[ "$to" != 0.0.0.0/0 ] || to=default
		[ "$gateway" = - ] || set -- "$@" metric "$METRIC" onlink
		[ "$gateway" != - ] || set -- "$@" src "$ip" metric "$METRIC"
		run_ip "$interface" -4 route add "$to" "$@"
	done
}

set_names() {
	local server
	mkdir -p "$ROOT/etc"
	for server in $dns; do
		grep -qxF "nameserver $server" "$ROOT/etc/resolv.conf" 2>/dev/null ||
			echo "nameserver $server" >>"$ROOT/etc/resolv.conf"
	done
	[ -z "$domain" ] || grep -qs ^search "$ROOT/etc/resolv.conf" ||
		echo "search $domain" >>"$ROOT/etc/resolv.conf"
	[ -z "$hostname" ] || [ -n "$NAME_IS_GIVEN" ] ||
		echo "$hostname" >"$ROOT/proc/sys/kernel/hostname"
}

# Prints the address, then how other networks are reached: "10.77.1.5/24 via 10.77.1.1" or
# "10.77.1.5/24, 10.77.2.0/24 via 10.77.1.1".
describe_lease() {
	awk 'NR == 1 { address = $1; next }
		$2 == "-" { next }
		$1 == "0.0.0.0/0" { address = address " via " $2; next }
		{ others = others ", " $1 " via " $2 }
		END { print address others }'
}

main "${1-}"
exit 0
