# shellcheck shell=sh disable=SC2015,SC2034,SC2046,SC2086
# net.sh: the network. Which cards there are, which of them comes first, and when one is ready.

# Sourced by init after lib.sh.

# A switch port with spanning tree forwards nothing for the first 30 s, often 50 s. Some cards need
# 10 s for the link.
NET_WAIT_SECS=60
# How long the card that the machine booted from is preferred, although another card is ready.
BOOTIF_WAIT_SECS=20

# How often a running machine looks whether a cable was moved or a card was replaced.
LINK_CHECK_SECS=2

# The steps done for each card, as words NIC:up, NIC:vlan, NIC:address and NIC:index=NUMBER. Kept
# for a retry: one udhcpc for each card is enough.
STARTED_NICS=""
# Each card has a metric of its own for all its routes, so that one card is used although several
# have an address in the same subnet: the boot card, or else the first one with a link.
BOOT_METRIC=100
NEXT_METRIC=200

# Set by bring_up_network: the card and the addresses that identify this machine from then on.
NETWORK_TRIED=no
NIC="" MAC="" IP="" MACHINE_NAME=""

bring_up_network() {
	NETWORK_TRIED=yes
	MACHINE_NAME=$OPT_HOSTNAME
	$MOCK ip link set dev lo up
	one_card_answers
	wait_until 15 have_nic status_nic ||
		fail "no network card found$(devices_without_driver 0x02 "network cards")" || return 1
	NET_WAITED=0
	if ! wait_until "$NET_WAIT_SECS" network_ready status_network; then
		MAC=$(nic_mac "$(nics_in_order | head -n 1)")
		fail "no network after $NET_WAIT_SECS s: $(status_network)"
		return 1
	fi
	MAC=$(nic_mac "$NIC")
	name_machine
	describe_nics
	once watching start_watching
}

# In the background, while the agent works.
start_watching() {
	[ -z "$MOCK" ] || return 0
	while :; do
		sleep "$LINK_CHECK_SECS"
		check_links
	done &
}

# A cable that was moved may lead to another network, and a card that was unplugged (USB) has lost
# its address: both are started anew, and udhcpc asks for a lease as at the beginning.
check_links() {
	local nic index
	for nic in $(nics_in_order); do
		index=$(cat "$ROOT/sys/class/net/$nic/ifindex" 2>/dev/null)
		case "$STARTED_NICS " in
		*" $nic:index=$index "*)
			if has_link "$nic" || [ "$OPT_NET" != dhcp ] || ! was_started "$nic:address"; then
				start_nic "$nic"
			else
				forget_steps "$nic:address"
				stop_dhcp "$nic"
			fi
			continue
			;;
		*" $nic:index="*)
			forget_steps "$nic:"
			rm -f "$ROOT/run/swarmdd/lease.$(interface_of "$nic")"
			stop_dhcp "$nic"
			;;
		esac
		STARTED_NICS="$STARTED_NICS $nic:index=$index"
	done
}

# forget_steps BEGINNING
forget_steps() {
	local step kept=""
	for step in $STARTED_NICS; do
		case $step in "$1"*) ;; *) kept="$kept $step" ;; esac
	done
	STARTED_NICS=$kept
}

# Two cards in one subnet: each answers for its own address only (arp_ignore), and asks with its own
# (arp_announce; Documentation/networking/ip-sysctl.rst).
one_card_answers() {
	local all="$ROOT/proc/sys/net/ipv4/conf/all"
	[ -d "$all" ] || return 0
	echo 1 >"$all/arp_ignore"
	echo 2 >"$all/arp_announce"
}

have_nic() { [ -n "$(nics_in_order)" ]; }
status_nic() { echo "a network card"; }

# Called every second: starts every card that can be started. True once a card has an address; then
# NIC and IP are set.
network_ready() {
	local nic
	NET_WAITED=$((NET_WAITED + 1))
	for nic in $(nics_in_order); do
		start_nic "$nic"
	done
	for nic in $(nics_in_order); do
		[ -s "$(note_of "$nic")" ] || continue
		# The boot card comes first in the order, but it may get its address later than others.
		is_boot_nic "$nic" || [ "$NET_WAITED" -gt "$BOOTIF_WAIT_SECS" ] || ! have_boot_nic ||
			continue
		NIC=$nic
		read_address
		return 0
	done
	return 1
}

# Sets IP anew: a renewed lease may have another address.
read_address() {
	[ -n "$NIC" ] && [ -s "$(note_of "$NIC")" ] || return 0
	IP=$(sed 's/[ /,].*//' "$(note_of "$NIC")")
}

# interface_of NIC: what gets the address: the card, or its VLAN.
interface_of() { echo "$1${OPT_VLAN:+.$OPT_VLAN}"; }
note_of() { echo "$ROOT/run/swarmdd/net/$(interface_of "$1")"; }

# start_nic NIC: sets it up and, once it has a link, gives it an address. Only one card gets a
# static address: the boot card if it exists, or else the first card with a link.
start_nic() {
	once "$1:up" run_ip "$(interface_of "$1")" link set dev "$1" up
	has_link "$1" && ! was_started "$1:address" || return 0
	[ -z "$OPT_VLAN" ] || start_vlan "$1" || return 0
	if [ "$OPT_NET" = dhcp ]; then
		once "$1:address" start_dhcp "$1"
	else
		case $STARTED_NICS in *:address*) return 0 ;; esac
		is_boot_nic "$1" || ! have_boot_nic || return 0
		once "$1:address" set_static_address "$1"
	fi
}

# once STEP COMMAND...: until it has succeeded.
once() {
	local step="$1"
	shift
	! was_started "$step" || return 0
	"$@" && STARTED_NICS="$STARTED_NICS $step"
}

was_started() {
	case " $STARTED_NICS " in
	*" $1 "*) return 0 ;;
	*) return 1 ;;
	esac
}

# swarmdd.vlan=ID: the card itself gets no address, and all packets are tagged (802.1Q).
# Two steps: a second try to add it would hide why the first could not set it up.
start_vlan() {
	local interface
	interface=$(interface_of "$1")
	once "$1:vlan" add_vlan "$1" "$interface" &&
		once "$1:vlan-up" run_ip "$interface" link set dev "$interface" up
}

add_vlan() {
	[ ! -e "$ROOT/sys/class/net/$2" ] || return 0
	$MOCK modprobe -b -q 8021q
	run_ip "$2" link add link "$1" name "$2" type vlan id "$OPT_VLAN"
}

# udhcpc asks every 3 s until it has a lease. Then it stays and renews the lease, since a deployment
# may take longer than a lease. It asks for routes, too: a server may be behind a router that is not
# the default router (udhcpc.sh).
start_dhcp() {
	local interface metric=$NEXT_METRIC
	interface=$(interface_of "$1")
	# Another process of init may have started it (check_links).
	! dhcp_runs "$interface" || return 0
	if is_boot_nic "$1"; then metric=$BOOT_METRIC; else NEXT_METRIC=$((NEXT_METRIC + 1)); fi
	METRIC=$metric NAME_IS_GIVEN=$OPT_HOSTNAME $MOCK udhcpc -i "$interface" -f -t 5 -T 3 -A 3 \
		-O mtu -O routes -O staticroutes -O msstaticroutes -s "$ROOT/lib/swarmdd/udhcpc.sh" \
		-p "$ROOT/run/swarmdd/udhcpc.$interface" >>"$ROOT/run/swarmdd/udhcpc.log" 2>&1 &
	# The mock ends by itself. Without this line its lease would come at any time.
	[ -z "$MOCK" ] || wait "$!" || :
}

# An empty number would be the process group of init.
dhcp_runs() { all_alive $(cat "$ROOT/run/swarmdd/udhcpc.$1" 2>/dev/null); }

# Without a word to the server and to udhcpc.sh, so that the address stays.
stop_dhcp() {
	local interface
	interface=$(interface_of "$1")
	! dhcp_runs "$interface" || kill "$(cat "$ROOT/run/swarmdd/udhcpc.$interface")"
}

# swarmdd.net=IP/LEN or IP/LEN,GATEWAY; IPv6 too. False without the address.
set_static_address() {
	local address="${OPT_NET%%,*}" gateway="" family=-4 interface
	interface=$(interface_of "$1")
	case $OPT_NET in *,*) gateway=${OPT_NET#*,} ;; esac
	case $address in *:*) family=-6 ;; esac
	run_ip "$interface" "$family" addr add "$address" dev "$interface" || return 1
	# onlink: the gateway may be outside the subnet.
	[ -z "$gateway" ] ||
		run_ip "$interface" "$family" route add default via "$gateway" dev "$interface" onlink
	echo "$address${gateway:+ via $gateway}" >"$(note_of "$1")"
}

check_vlan_option() {
	case $1 in
	"" | [1-9] | [1-9][0-9] | [1-9][0-9][0-9] | [1-3][0-9][0-9][0-9]) return 0 ;;
	40[0-8][0-9] | 409[0-4]) return 0 ;;
	esac
	OPT_VLAN="" # for the report of this failure
	fail "swarmdd.vlan=$1 on the kernel command line is no VLAN; a VLAN is a number from 1 to 4094"
}

# RFC 1123. The kernel keeps 64 bytes, a label has 63 at most.
check_hostname_option() {
	case .$1. in
	..) return 0 ;;
	*..* | *.-* | *-.* | *[!a-zA-Z0-9.-]*) ;;
	*) [ "${#1}" -gt 63 ] || return 0 ;;
	esac
	OPT_HOSTNAME="" # for the report of this failure
	fail "swarmdd.hostname=$1 on the kernel command line is no host name: up to 63 letters," \
		"digits, '-' and '.'"
}

check_net_option() {
	case $1 in
	dhcp | ?*.?*.?*.?*/?* | ?*:*/?*) ;;
	*)
		OPT_NET=dhcp # for the report of this failure
		fail "swarmdd.net=$1 on the kernel command line is neither 'dhcp' nor IP/LEN,GATEWAY" \
			"as in 10.77.0.5/24,10.77.0.1"
		;;
	esac
}

# --- cards

# Prints the Ethernet cards that have a device, the boot card first.
nics_in_order() {
	local dir nic first="" rest=""
	for dir in "$ROOT"/sys/class/net/*; do
		[ -e "$dir/device" ] && [ "$(cat "$dir/type" 2>/dev/null)" = 1 ] || continue
		nic=${dir##*/}
		# Wireless cards are Ethernet, too, but nothing here can join a wireless network.
		[ ! -e "$dir/wireless" ] && [ ! -e "$dir/phy80211" ] || continue
		if is_boot_nic "$nic"; then first="$first $nic"; else rest="$rest $nic"; fi
	done
	printf '%s\n' $first $rest | sed '/^$/d'
}

nic_mac() { cat "$ROOT/sys/class/net/$1/address" 2>/dev/null; }
is_boot_nic() { [ -n "$BOOTIF" ] && [ "$(nic_mac "$1")" = "$BOOTIF" ]; }

have_boot_nic() {
	local dir
	[ -n "$BOOTIF" ] || return 1
	for dir in "$ROOT"/sys/class/net/*; do
		! is_boot_nic "${dir##*/}" || return 0
	done
	return 1
}

# While a card is down, reading `carrier` fails (EINVAL).
has_link() { [ "$(cat "$ROOT/sys/class/net/$1/carrier" 2>/dev/null)" = 1 ]; }

nic_driver() {
	local link
	link=$(readlink "$ROOT/sys/class/net/$1/device/driver" 2>/dev/null)
	link=${link##*/}
	echo "${link:-unknown driver}"
}

# Prints what each card lacks: "eth0 (e1000e, MAC): no link (cable? switch port?); eth1 (virtio_net,
# MAC): link is up, no answer from a DHCP server".
status_network() {
	local nic problem state status=""
	for nic in $(nics_in_order); do
		problem=$(network_problems "$(interface_of "$nic")" | sed 's/^[^:]*: //' | one_line)
		if ! has_link "$nic"; then
			state="no link (cable? switch port?)"
			[ "$problem" = none ] || state="$state; $problem"
		elif [ -s "$(note_of "$nic")" ]; then
			state="ready, but not the card this machine booted from"
		elif [ "$problem" != none ]; then
			state="link is up; $problem"
		elif [ "$OPT_NET" = dhcp ]; then
			state="link is up, no answer from a DHCP server${OPT_VLAN:+ on VLAN $OPT_VLAN}"
		else
			state="link is up, not the card for the static address"
		fi
		status="$status; $nic ($(nic_driver "$nic"), $(nic_mac "$nic")): $state"
	done
	echo "${status#; }"
}

# One line for each card, so that an administrator can tell a slow machine from a slow cable.
describe_nics() {
	local nic speed address
	for nic in $(nics_in_order); do
		address="no address"
		[ ! -s "$(note_of "$nic")" ] ||
			address="$(cat "$(note_of "$nic")")${OPT_VLAN:+, VLAN $OPT_VLAN}"
		speed=$(nic_speed "$nic")
		say "$nic: $(nic_driver "$nic"), $(nic_mac "$nic"), $speed, $address"
		case $speed in
		"10 Mb/s"* | "100 Mb/s"* | *half*)
			say "$nic: slow link, check the cable and the switch port"
			;;
		esac
	done
}

# The speed of a virtual card is -1 or an error.
nic_speed() {
	local speed duplex
	has_link "$1" || { echo "no link"; return; }
	speed=$(cat "$ROOT/sys/class/net/$1/speed" 2>/dev/null)
	duplex=$(cat "$ROOT/sys/class/net/$1/duplex" 2>/dev/null)
	case $speed in
	"" | -* | 0) echo "unknown speed" ;;
	*) echo "$speed Mb/s $duplex duplex" ;;
	esac
}

# --- names

# machine_name NIC: a name made of the MAC address, for a machine without a name.
machine_name() { echo "swarmdd-$(nic_mac "$1" | tr -d :)"; }

# The name of the kernel command line comes first, then that of the DHCP server (udhcpc.sh). The
# kernel calls a machine without a name "(none)".
name_machine() {
	local name
	name=$(cat "$ROOT/proc/sys/kernel/hostname" 2>/dev/null)
	case $name in
	"(none)" | localhost) name="" ;;
	esac
	MACHINE_NAME=${OPT_HOSTNAME:-${name:-$(machine_name "$NIC")}}
	[ "$MACHINE_NAME" = "$name" ] || $MOCK hostname "$MACHINE_NAME"
}
