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
