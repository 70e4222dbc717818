#!/bin/sh
# udhcpc.sh: udhcpc calls it with a lease (man udhcpc, "PROGRAM INTERFACE"). Sets up the card and
# writes /run/swarmdd/net/NIC, which net.sh waits for. METRIC comes from net.sh: the boot card gets
# the default route.
set -u

ROOT=${ROOT-}
MOCK=${MOCK-}
# udhcpc sets these. They are empty if the server did not send the option.
: "${interface:=}" "${ip:=}" "${mask:=24}" "${router:=}" "${dns:=}" "${domain:=}" "${hostname:=}"
: "${mtu:=}" "${METRIC:=100}"
NOTE="$ROOT/run/swarmdd/net/$interface"

bound() {
	local gateway server
	[ -z "$mtu" ] || $MOCK ip link set dev "$interface" mtu "$mtu"
	$MOCK ip -4 addr flush dev "$interface"
	$MOCK ip -4 addr add "$ip/$mask" broadcast + dev "$interface"
	for gateway in $router; do
		# With a /32 lease (clouds) the gateway needs a route of its own, over the link.
		[ "$mask" != 32 ] || $MOCK ip -4 route add "$gateway" dev "$interface"
		$MOCK ip -4 route add default via "$gateway" dev "$interface" metric "$METRIC"
		break
	done
	mkdir -p "$ROOT/etc"
	for server in $dns; do
		grep -qxF "nameserver $server" "$ROOT/etc/resolv.conf" 2>/dev/null ||
			echo "nameserver $server" >>"$ROOT/etc/resolv.conf"
	done
	[ -z "$domain" ] || grep -qs ^search "$ROOT/etc/resolv.conf" ||
		echo "search $domain" >>"$ROOT/etc/resolv.conf"
	[ -z "$hostname" ] || echo "$hostname" >"$ROOT/proc/sys/kernel/hostname"
	# Moved into place, so that net.sh never reads half a note.
	echo "$ip/$mask ${router%% *}" >"$NOTE.new"
	mv "$NOTE.new" "$NOTE"
}

case ${1-} in
bound) bound ;;
# Only a changed address is set again, so that open connections survive a renewal.
renew) [ "$(cut -d ' ' -f 1 "$NOTE" 2>/dev/null)" = "$ip/$mask" ] || bound ;;
# Otherwise: the address of a lost lease stays while the deployment runs, because a DHCP server that
# is gone must not stop the swarm.
esac
exit 0
