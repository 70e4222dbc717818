#!/bin/sh
# udhcpc.sh: what udhcpc calls with a lease (man udhcpc, "PROGRAM INTERFACE"). Sets up the card and
# leaves a note in /run/swarmdd/net/NIC, which net.sh waits for. METRIC comes from net.sh: the card
# we booted from gets the default route.
set -u

ROOT=${ROOT-}
MOCK=${MOCK-}
# As udhcpc sets them; empty when the server did not send the option.
: "${interface:=}" "${ip:=}" "${mask:=24}" "${router:=}" "${dns:=}" "${domain:=}" "${hostname:=}" "${mtu:=}" "${METRIC:=100}"
NOTE="$ROOT/run/swarmdd/net/$interface"

bound() {
	local gateway server
	[ -z "$mtu" ] || $MOCK ip link set dev "$interface" mtu "$mtu"
	$MOCK ip -4 addr flush dev "$interface"
	$MOCK ip -4 addr add "$ip/$mask" broadcast + dev "$interface"
	for gateway in $router; do
		# A /32 lease (clouds) reaches its gateway only over the link itself.
		[ "$mask" != 32 ] || $MOCK ip -4 route add "$gateway" dev "$interface"
		$MOCK ip -4 route add default via "$gateway" dev "$interface" metric "$METRIC"
		break
	done
	mkdir -p "$ROOT/etc"
	for server in $dns; do
		grep -qxF "nameserver $server" "$ROOT/etc/resolv.conf" 2>/dev/null ||
			echo "nameserver $server" >>"$ROOT/etc/resolv.conf"
	done
	[ -z "$domain" ] || grep -qs ^search "$ROOT/etc/resolv.conf" || echo "search $domain" >>"$ROOT/etc/resolv.conf"
	[ -z "$hostname" ] || echo "$hostname" >"$ROOT/proc/sys/kernel/hostname"
	# Moved into place, so that nobody reads half a note.
	echo "$ip/$mask ${router%% *}" >"$NOTE.new"
	mv "$NOTE.new" "$NOTE"
}

case ${1-} in
bound) bound ;;
# The address stays, only a changed one is set again: open connections live through a renewal.
renew) [ "$(cut -d ' ' -f 1 "$NOTE" 2>/dev/null)" = "$ip/$mask" ] || bound ;;
# Keep the address of a lost lease while the deployment runs: a DHCP server that is gone must not
# stop the swarm.
esac
exit 0
