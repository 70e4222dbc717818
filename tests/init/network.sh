# shellcheck shell=sh disable=SC2016
# network.sh: cases about cards, their order, and waiting for link and address. Sourced by run.

case_network_dhcp_gives_address_and_route() {
	good_network
	boot "$MINIMAL"
	ran "ip link set dev eth0 up"
	ran "ip -4 addr add 10.77.0.5/24 broadcast + dev eth0"
	ran "ip -4 route add default via 10.77.0.1 dev eth0 metric 200"
	said "eth0: virtio_net, 52:54:00:00:00:01, unknown speed, 10.77.0.5/24 via 10.77.0.1"
	ran "swarmdd get"
}

case_network_boot_card_is_first_and_has_the_route() {
	nic eth0 52:54:00:00:00:01 e1000e "10.77.0.5 24 10.77.0.1"
	nic eth1 52:54:00:00:00:02 r8169 "10.77.0.6 24 10.77.0.1"
	link_up eth0
	link_up eth1
	boot "$MINIMAL BOOTIF=01-52-54-00-00-00-02"
	ran_before "udhcpc -i eth1" "udhcpc -i eth0"
	ran "ip -4 route add default via 10.77.0.1 dev eth1 metric 100"
	ran "ip -4 route add default via 10.77.0.1 dev eth0 metric 200"
	ran "hostname swarmdd-525400000002"
}

case_network_boot_card_is_waited_for() {
	nic eth0 52:54:00:00:00:01 e1000e "10.77.0.5 24 10.77.0.1"
	nic eth1 52:54:00:00:00:02 r8169 "10.77.0.6 24 10.77.0.1"
	link_up eth0
	at 12 link_up eth1
	boot "$MINIMAL BOOTIF=01-52-54-00-00-00-02"
	ran "hostname swarmdd-525400000002"
	clock_between 12 100
}

case_network_dead_boot_card_is_replaced_by_another_card() {
	nic eth0 52:54:00:00:00:01 e1000e "10.77.0.5 24 10.77.0.1"
	nic eth1 52:54:00:00:00:02 r8169
	link_up eth0
	boot "$MINIMAL BOOTIF=01-52-54-00-00-00-02"
	ran "hostname swarmdd-525400000001"
	said "eth1: r8169, 52:54:00:00:00:02, no link, no address"
	ran "swarmdd get"
}

case_network_absent_boot_card_is_not_waited_for() {
	good_network
	boot "$MINIMAL BOOTIF=01-aa-bb-cc-00-00-00"
	ran_before "udhcpc -i eth0" "swarmdd get"
	not_ran sleep
}

case_network_all_cards_are_set_up() {
	good_network
	nic eth1 52:54:00:00:00:02 igb
	nic eth2 52:54:00:00:00:03 igb
	boot "$MINIMAL"
	ran "ip link set dev eth1 up"
	ran "ip link set dev eth2 up"
	not_ran "udhcpc -i eth1"
}

case_network_wireless_and_virtual_cards_are_ignored() {
	nic wlan0 52:54:00:00:00:09 iwlwifi
	mkdir "$ROOT/sys/class/net/wlan0/wireless"
	mkdir -p "$ROOT/sys/class/net/lo"
	prints "" snippet "$MINIMAL" 'parse_options; nics_in_order'
}

# Like 40 s of spanning tree.
case_network_late_link_is_waited_for_with_messages() {
	nic eth0 52:54:00:00:00:01 e1000e "10.77.0.5 24 10.77.0.1"
	at 40 link_up eth0
	boot "$MINIMAL"
	said "waiting for eth0 (e1000e, 52:54:00:00:00:01): no link (cable? switch port?) (3 of 60 s)"
	said "(38 of 60 s)"
	ran "swarmdd get"
	clock_between 40 110
}

case_network_missing_link_is_a_failure() {
	nic eth0 52:54:00:00:00:01 e1000e "10.77.0.5 24 10.77.0.1"
	boot "$MINIMAL swarmdd.onfail=poweroff"
	framed "no network after 60 s: eth0 (e1000e, 52:54:00:00:00:01): no link (cable? switch port?)"
	framed "machine 52:54:00:00:00:01"
	not_ran "swarmdd get"
	not_ran "udhcpc"
}

case_network_missing_dhcp_server_is_a_failure() {
	nic eth0 52:54:00:00:00:01 tg3
	link_up eth0
	boot "$MINIMAL swarmdd.onfail=poweroff"
	said "link is up, no answer from a DHCP server (8 of 60 s)"
	framed "no network after 60 s: eth0 (tg3, 52:54:00:00:00:01): link is up, no answer from a \
DHCP server"
	ran_times 1 "udhcpc -i eth0"
}

case_network_missing_card_is_reported_with_cards_without_driver() {
	mkdir -p "$ROOT/sys/bus/pci/devices/0000:00:03.0"
	cd "$ROOT/sys/bus/pci/devices/0000:00:03.0" || return
	echo 0x020000 >class
	echo 0x8086 >vendor
	echo 0x15f3 >device
	boot "$MINIMAL swarmdd.onfail=poweroff"
	framed "no network card found; network cards without a driver in this initramfs \
(PCI vendor:device): 8086:15f3"
	framed "machine without network card"
}

case_network_static_address_and_gateway_are_set() {
	good_network
	boot "$MINIMAL swarmdd.net=10.77.0.9/16,10.77.0.1"
	ran "ip -4 addr add 10.77.0.9/16 dev eth0"
	ran "ip -4 route add default via 10.77.0.1 dev eth0"
	not_ran "udhcpc"
	said "10.77.0.9/16 via 10.77.0.1"
}

case_network_static_address_needs_no_gateway() {
	good_network
	boot "$MINIMAL swarmdd.net=10.77.0.9/16"
	ran "ip -4 addr add 10.77.0.9/16 dev eth0"
	not_ran "ip -4 route"
	ran "swarmdd get"
}

case_network_static_address_goes_to_the_boot_card_alone() {
	nic eth0 52:54:00:00:00:01 e1000e
	nic eth1 52:54:00:00:00:02 r8169
	link_up eth0
	at 5 link_up eth1
	boot "$MINIMAL swarmdd.net=fd00::9/64,fd00::1 BOOTIF=01-52-54-00-00-00-02"
	ran_times 1 "ip -6 addr add fd00::9/64 dev eth1"
	ran "ip -6 route add default via fd00::1 dev eth1"
	not_ran "ip -6 addr add fd00::9/64 dev eth0"
}

case_network_speed_is_printed_with_a_warning_for_slow_links() {
	good_network
	nic eth1 52:54:00:00:00:02 e1000e
	link_up eth1
	echo 1000 >"$ROOT/sys/class/net/eth0/speed"
	echo full >"$ROOT/sys/class/net/eth0/duplex"
	echo 100 >"$ROOT/sys/class/net/eth1/speed"
	echo full >"$ROOT/sys/class/net/eth1/duplex"
	boot "$MINIMAL"
	said "eth0: virtio_net, 52:54:00:00:00:01, 1000 Mb/s full duplex, 10.77.0.5/24"
	said "eth1: slow link, check the cable and the switch port"
	not_said "eth0: slow link"
}

case_network_name_from_the_dhcp_server_is_kept() {
	good_network
	echo room3-07 >"$ROOT/proc/sys/kernel/hostname"
	boot "$MINIMAL swarmdd.report=http://10.77.0.1/r"
	not_ran hostname
	ran "wget .*\"hostname\":\"room3-07\",\"ip\":\"10.77.0.5\""
}

case_network_name_of_the_command_line_comes_first() {
	good_network
	lease_options eth0 hostname=room3-07
	boot "$MINIMAL swarmdd.hostname=lab-07 swarmdd.report=http://10.77.0.1/r"
	ran_times 1 "hostname lab-07"
	prints "(none)" cat "$ROOT/proc/sys/kernel/hostname"
	ran "wget .*\"hostname\":\"lab-07\""
}

case_network_name_is_in_the_frame_without_a_network() {
	nic eth0 52:54:00:00:00:01 e1000e
	boot "$MINIMAL swarmdd.hostname=lab-07 swarmdd.onfail=poweroff"
	framed "machine 52:54:00:00:00:01 lab-07 The disk"
}

# udhcpc renews after half of the lease. The address stays, so it must not be set again.
case_network_renewal_keeps_connections() {
	good_network
	boot "$MINIMAL"
	: >"$ROOT/commands"
	interface=eth0 ip=10.77.0.5 mask=24 router=10.77.0.1 ROOT=$ROOT MOCK="$HERE/mock" \
		HOST_PATH=$PATH sh "$TOP/initramfs/udhcpc.sh" renew
	not_ran ip
}

case_network_card_with_a_late_driver_is_waited_for() {
	at 4 'nic eth0 52:54:00:00:00:01 virtio_net "10.77.0.5 24 10.77.0.1"; link_up eth0'
	boot "$MINIMAL"
	said "waiting for a network card (3 of 15 s)"
	ran "swarmdd get"
}

# --- what a DHCP server sends

# As dnsmasq --dhcp-option=121,10.77.2.0/24,10.77.1.1 has it: no router, the server elsewhere.
case_lease_classless_routes_are_set_and_replace_the_router() {
	good_network
	lease_options eth0 "staticroutes=10.77.2.0/24 10.77.1.1 10.0.0.0/8 10.77.0.2" \
		"routes=10.77.7.1/10.77.0.1"
	boot "$MINIMAL"
	ran "udhcpc -i eth0 .*-O routes -O staticroutes -O msstaticroutes"
	ran "ip -4 route add 10.77.2.0/24 via 10.77.1.1 dev eth0 metric 200 onlink"
	ran "ip -4 route add 10.0.0.0/8 via 10.77.0.2 dev eth0 metric 200 onlink"
	not_ran "ip -4 route add default"
	not_ran "ip -4 route add 10.77.7"
	said "eth0: virtio_net, 52:54:00:00:00:01, unknown speed, 10.77.0.5/24, 10.77.2.0/24 via \
10.77.1.1, 10.0.0.0/8 via 10.77.0.2"
}

case_lease_classless_routes_of_microsoft_count_only_alone() {
	good_network
	lease_options eth0 "msstaticroutes=10.77.2.0/24 10.77.0.3"
	boot "$MINIMAL"
	ran "ip -4 route add 10.77.2.0/24 via 10.77.0.3 dev eth0"
	not_ran "ip -4 route add default"
	: >"$ROOT/commands"
	rm -r "$ROOT/run"
	lease_options eth0 "msstaticroutes=10.77.2.0/24 10.77.0.3" "staticroutes=0.0.0.0/0 10.77.0.4"
	boot "$MINIMAL"
	ran "ip -4 route add default via 10.77.0.4 dev eth0"
	not_ran "ip -4 route add 10.77.2"
	said "10.77.0.5/24 via 10.77.0.4"
}

# RFC 3442: without a gateway on the wire itself; bits behind the length do not count.
case_lease_classless_routes_of_every_form() {
	good_network
	lease_options eth0 "staticroutes=10.77.9.7/32 0.0.0.0 10.77.31.0/20 10.77.9.7 \
129.210.177.132/25 10.77.9.7 10.77.16.0/20 10.77.9.8 0.0.0.0/1 10.77.9.7 200.0.0.0/3 10.77.9.7"
	boot "$MINIMAL"
	ran "ip -4 route add 10.77.9.7/32 dev eth0 src 10.77.0.5 metric 200\$"
	ran "ip -4 route add 10.77.16.0/20 via 10.77.9.7 dev eth0 metric 200 onlink"
	ran "ip -4 route add 129.210.177.128/25 via 10.77.9.7"
	ran "ip -4 route add 0.0.0.0/1 via 10.77.9.7"
	ran "ip -4 route add 192.0.0.0/3 via 10.77.9.7"
	ran_times 1 "ip -4 route add 10.77.16"
}

case_lease_garbage_in_an_option_breaks_nothing() {
	for garbage in "" "x" "10.77.2.0/24" "a b c" "999.1.1.1/33 10.77.0.1" '10.0.0.0/$((1/0)) * *'; do
		rm -rf "$ROOT/run" "$ROOT/commands" "$ROOT/lease.eth0.options" "$ROOT/sys/class/net/eth0"
		good_network
		lease_options eth0 "staticroutes=$garbage" "routes=$garbage" "mtu=$garbage"
		boot "$MINIMAL"
		ran "ip -4 addr add 10.77.0.5/24"
		ran "swarmdd get"
	done
}

case_lease_routes_by_class_are_set_beside_the_router() {
	good_network
	lease_options eth0 "routes=10.77.2.1/10.77.0.9 192.168.0.0/10.77.0.9 172.16.0.0/10.77.0.9 \
11.0.0.0/10.77.0.9 10.77.3.0/10.77.0.9"
	boot "$MINIMAL"
	ran "ip -4 route add default via 10.77.0.1 dev eth0"
	for to in 10.77.2.1/32 192.168.0.0/24 172.16.0.0/16 11.0.0.0/8 10.77.3.0/24; do
		ran "ip -4 route add $to via 10.77.0.9 dev eth0 metric 200 onlink"
	done
}

# Clouds give a /32, and some rooms a router of another subnet on the same wire.
case_lease_gateway_may_be_outside_the_subnet() {
	nic eth0 52:54:00:00:00:01 virtio_net "10.77.0.5 32 10.77.9.1"
	link_up eth0
	boot "$MINIMAL"
	ran "ip -4 route add default via 10.77.9.1 dev eth0 metric 200 onlink"
	not_ran "ip -4 route add 10.77.0.5"
}

case_lease_small_mtu_is_ignored_and_a_good_one_set() {
	for mtu in 0 68 575; do
		lease_mtu "$mtu"
		not_ran "ip link set dev eth0 mtu"
		said "eth0: the DHCP server sends an MTU of $mtu, less than 576: ignored"
	done
	for mtu in 576 1400 9000; do
		lease_mtu "$mtu"
		ran "ip link set dev eth0 mtu $mtu"
	done
}

lease_mtu() {
	rm -rf "$ROOT/run" "$ROOT/commands" "$ROOT/sys/class/net/eth0"
	good_network
	lease_options eth0 "mtu=$1"
	boot "$MINIMAL"
	ran "ip -4 addr add 10.77.0.5/24"
}

case_lease_mtu_that_the_card_refuses_is_said() {
	good_network
	lease_options eth0 mtu=9000
	failing_ip "mtu 9000" "SIOCSIFMTU: Invalid argument"
	boot "$MINIMAL"
	said "eth0: 'ip link set dev eth0 mtu 9000' failed: SIOCSIFMTU: Invalid argument"
	ran "swarmdd get"
}

case_lease_route_that_the_kernel_refuses_is_said() {
	good_network
	failing_ip "route add default" "RTNETLINK answers: Network is unreachable"
	agent 1 "swarmdd: no connection"
	boot "$MINIMAL swarmdd.onfail=poweroff"
	said "eth0: 'ip -4 route add default via 10.77.0.1 dev eth0 metric 200 onlink' failed: \
RTNETLINK answers: Network is unreachable"
	ran "swarmdd get"
	framed "no connection"
	framed "failed: RTNETLINK answers: Network is unreachable"
}

case_lease_address_that_the_kernel_refuses_is_the_reason() {
	good_network
	failing_ip "addr add" "RTNETLINK answers: No buffer space available"
	boot "$MINIMAL swarmdd.onfail=poweroff"
	framed "no network after 60 s: eth0 (virtio_net, 52:54:00:00:00:01): link is up; 'ip -4 addr \
add 10.77.0.5/24 broadcast + dev eth0 noprefixroute' failed: RTNETLINK answers: No buffer space"
	not_ran "swarmdd get"
}

case_network_card_that_does_not_start_is_the_reason() {
	nic eth0 52:54:00:00:00:01 bnx2x
	failing_ip "link set dev eth0 up" "SIOCSIFFLAGS: No such file or directory"
	boot "$MINIMAL swarmdd.onfail=poweroff"
	framed "no link (cable? switch port?); 'ip link set dev eth0 up' failed: SIOCSIFFLAGS: No such"
}

# --- a lease that changes

case_lease_renewed_without_a_change_touches_nothing() {
	good_network
	lease_options eth0 mtu=1400 "staticroutes=0.0.0.0/0 10.77.0.1"
	during_agent 'udhcpc eth0 renew; udhcpc eth0 bound'
	boot "$MINIMAL"
	for once in "ip -4 addr flush" "ip -4 addr add" "ip -4 route add default" \
		"ip link set dev eth0 mtu"; do
		ran_times 1 "$once"
	done
	not_ran "ip -4 route flush"
}

case_lease_renewed_with_another_address_replaces_it() {
	good_network
	during_agent 'lease eth0 "10.77.0.9 24 10.77.0.1"; udhcpc eth0 renew'
	echo 'echo "post: $SWARMDD_IP"' >"$ROOT/www/post.sh"
	agent 3 "swarmdd: no"
	agent 0 "fine"
	boot "$MINIMAL swarmdd.report=http://10.77.0.1/r swarmdd.onfail=retry \
swarmdd.post=http://10.77.0.1/post.sh"
	said "eth0: the address changes from 10.77.0.5/24 to 10.77.0.9/24"
	ran_times 2 "ip -4 addr flush dev eth0"
	ran "ip -4 addr add 10.77.0.9/24"
	ran_times 2 "ip -4 route add default via 10.77.0.1 dev eth0"
	framed "swarmdd-525400000001 10.77.0.9"
	grep -q '"failed".*"ip":"10.77.0.9"' "$ROOT/posted" || complain "the server heard the old address"
	said "post: 10.77.0.9"
}

case_lease_renewed_with_other_routes_keeps_the_address() {
	good_network
	during_agent 'lease_options eth0 "staticroutes=10.77.2.0/24 10.77.0.7"; udhcpc eth0 renew'
	boot "$MINIMAL"
	ran_times 1 "ip -4 addr add"
	ran "ip -4 route flush dev eth0"
	ran "ip -4 route add 10.77.2.0/24 via 10.77.0.7"
}

# The server is away: the agent must go on.
case_lease_lost_keeps_its_address() {
	good_network
	during_agent 'message=$(printf "wrong\033network") udhcpc eth0 nak; udhcpc eth0 deconfig'
	boot "$MINIMAL"
	said "eth0: the DHCP server takes the lease back (wrong network)"
	said "eth0: the lease of 10.77.0.5/24 is over; the address stays until the server gives \
another one"
	ran_times 1 "ip -4 addr flush"
	not_ran "ip -4 route flush"
}

# --- a cable or a card that is taken out and put back

# watched COMMAND...: brings the network up, then a look at the links before and after each COMMAND.
watched() {
	local code="parse_options; bring_up_network; check_links" step
	for step in "$@"; do code="$code; $step; check_links; check_links"; done
	snippet "$MINIMAL ${OPTIONS-}" "$code"
}
PULL='echo 0 >"$ROOT/sys/class/net/eth0/carrier"'
PLUG='echo 1 >"$ROOT/sys/class/net/eth0/carrier"'

case_link_that_stays_is_left_alone() {
	good_network
	echo 2 >"$ROOT/sys/class/net/eth0/ifindex"
	watched true true
	ran_times 1 udhcpc
	ran_times 1 "ip link set dev eth0 up"
}

case_link_that_was_lost_gets_a_new_lease() {
	good_network
	echo 2 >"$ROOT/sys/class/net/eth0/ifindex"
	watched "$PULL" 'echo 10.77.1.7 24 10.77.1.1 >"$ROOT/lease.eth0"' "$PLUG"
	ran_times 2 udhcpc
	said "eth0: the address changes from 10.77.0.5/24 to 10.77.1.7/24"
}

case_link_that_was_lost_keeps_an_address_that_is_given_again() {
	good_network
	watched "$PULL" "$PLUG" "$PULL" "$PLUG"
	ran_times 3 udhcpc
	ran_times 1 "ip -4 addr add"
}

case_link_that_was_lost_keeps_a_static_address() {
	good_network
	OPTIONS=swarmdd.net=10.77.0.9/24 watched "$PULL" "$PLUG"
	ran_times 1 "ip -4 addr add"
}

# As a USB adapter: it has lost its address, and the address is static or leased.
case_card_that_was_replaced_gets_its_address_again() {
	for options in swarmdd.net=dhcp swarmdd.net=10.77.0.9/24; do
		rm -rf "$ROOT/run" "$ROOT/commands" "$ROOT/sys/class/net/eth0"
		good_network
		echo 2 >"$ROOT/sys/class/net/eth0/ifindex"
		OPTIONS=$options watched "$PULL"'; echo 3 >"$ROOT/sys/class/net/eth0/ifindex"' "$PLUG"
		ran_times 2 "ip link set dev eth0 up"
		ran_times 2 "ip -4 addr add"
	done
}

case_link_of_a_vlan_gets_a_new_lease() {
	nic eth0 52:54:00:00:00:01 e1000e
	link_up eth0
	lease eth0.5 "10.77.0.5 24 10.77.0.1"
	OPTIONS=swarmdd.vlan=5 watched "$PULL" "$PLUG"
	ran_times 2 "udhcpc -i eth0.5"
	ran_times 1 "ip link add"
}

case_link_of_another_card_that_comes_late_is_used() {
	good_network
	nic eth1 52:54:00:00:00:02 igb "10.77.0.6 24 10.77.0.1"
	watched 'echo 1 >"$ROOT/sys/class/net/eth1/carrier"'
	ran_times 1 "udhcpc -i eth0"
	ran_times 1 "udhcpc -i eth1"
}

# --- two cards in one subnet

case_network_two_leases_in_one_subnet_have_one_first_card() {
	nic eth0 52:54:00:00:00:01 e1000e "10.77.0.5 24 10.77.0.1"
	nic eth1 52:54:00:00:00:02 r8169 "10.77.0.6 24 10.77.0.1"
	link_up eth0
	link_up eth1
	mkdir -p "$ROOT/proc/sys/net/ipv4/conf/all"
	boot "$MINIMAL"
	for card in "eth0 10.77.0.5 200" "eth1 10.77.0.6 201"; do
		echo "$card" >"$ROOT/card"
		read -r nic address metric <"$ROOT/card"
		ran "ip -4 addr add $address/24 broadcast + dev $nic noprefixroute"
		ran "ip -4 route add 10.77.0.0/24 dev $nic src $address metric $metric"
		ran "ip -4 route add default via 10.77.0.1 dev $nic metric $metric onlink"
	done
	prints 1 cat "$ROOT/proc/sys/net/ipv4/conf/all/arp_ignore"
	prints 2 cat "$ROOT/proc/sys/net/ipv4/conf/all/arp_announce"
}

# --- VLAN

case_vlan_gets_the_lease_instead_of_the_card() {
	nic eth0 52:54:00:00:00:01 e1000e
	link_up eth0
	lease eth0.5 "10.77.0.5 24 10.77.0.1"
	lease_options eth0.5 mtu=9000
	echo 'echo "pre: $SWARMDD_NIC $SWARMDD_MAC $SWARMDD_IP"' >"$ROOT/www/pre.sh"
	boot "$MINIMAL swarmdd.vlan=5 swarmdd.pre=http://10.77.0.1/pre.sh"
	ran_before "modprobe -b -q 8021q" "ip link add link eth0 name eth0.5 type vlan id 5"
	ran_before "ip link set dev eth0.5 up" "udhcpc -i eth0.5"
	ran_before "ip link set dev eth0 mtu 9000" "ip link set dev eth0.5 mtu 9000"
	ran "ip -4 addr add 10.77.0.5/24 broadcast + dev eth0.5"
	ran "ip -4 route add default via 10.77.0.1 dev eth0.5 metric 200"
	not_ran "udhcpc -i eth0 "
	said "eth0: e1000e, 52:54:00:00:00:01, unknown speed, 10.77.0.5/24 via 10.77.0.1, VLAN 5"
	said "pre: eth0.5 52:54:00:00:00:01 10.77.0.5"
	ran "hostname swarmdd-525400000001"
}

case_vlan_static_address() {
	nic eth0 52:54:00:00:00:01 e1000e
	nic eth1 52:54:00:00:00:02 e1000e
	link_up eth0
	at 3 link_up eth1
	boot "$MINIMAL swarmdd.vlan=4094 swarmdd.net=10.77.0.9/24,10.77.9.1 BOOTIF=01-52-54-00-00-00-02"
	ran "ip -4 addr add 10.77.0.9/24 dev eth1.4094"
	ran "ip -4 route add default via 10.77.9.1 dev eth1.4094 onlink"
	not_ran "ip -4 addr add 10.77.0.9/24 dev eth0"
}

case_vlan_that_nobody_answers_on_is_the_reason() {
	good_network
	boot "$MINIMAL swarmdd.vlan=7 swarmdd.onfail=poweroff"
	framed "link is up, no answer from a DHCP server on VLAN 7"
	ran_times 1 "ip link add"
}

case_vlan_that_cannot_be_set_up_keeps_its_reason() {
	good_network
	failing_ip "link set dev eth0.7 up" "RTNETLINK answers: Cannot assign requested address"
	boot "$MINIMAL swarmdd.vlan=7 swarmdd.onfail=poweroff"
	framed "'ip link set dev eth0.7 up' failed: RTNETLINK answers: Cannot assign requested address"
	ran_times 1 "ip link add"
	not_ran "udhcpc"
}

case_vlan_without_a_driver_is_the_reason() {
	good_network
	failing_ip "type vlan" "RTNETLINK answers: Operation not supported"
	boot "$MINIMAL swarmdd.vlan=7 swarmdd.onfail=poweroff"
	framed "link is up; 'ip link add link eth0 name eth0.7 type vlan id 7' failed: RTNETLINK answers: \
Operation not supported"
	not_ran "udhcpc"
}

case_network_static_address_that_is_none_is_the_reason() {
	good_network
	failing_ip "addr add 10.77.0.500" "RTNETLINK answers: Numerical result out of range"
	boot "$MINIMAL swarmdd.net=10.77.0.500/16 swarmdd.onfail=poweroff"
	framed "'ip -4 addr add 10.77.0.500/16 dev eth0' failed: RTNETLINK answers: Numerical result"
	not_ran "swarmdd get"
}
