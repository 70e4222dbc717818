# shellcheck shell=sh disable=SC2016
# options.sh: cases about the kernel command line. Sourced by run.

case_options_pairs_keep_their_order() {
	prints "http://s/a
http://s/b / /dev/sda1
/dev/sda2" snippet "quiet swarmdd.torrent=http://s/a swarmdd.target=/dev/sda1 \
swarmdd.target=/dev/sda2 swarmdd.torrent=http://s/b" \
		'parse_options && echo "$OPT_TORRENTS / $OPT_TARGETS"'
}

case_options_quotes_after_the_name() {
	prints "--max-up 10M --fresh" snippet "$MINIMAL swarmdd.args=\"--max-up 10M --fresh\" quiet" \
		'parse_options && echo "$OPT_ARGS"'
}

case_options_target_may_hold_spaces() {
	prints "disk:model=Samsung SSD 970 /dev/sdb" snippet "swarmdd.torrent=http://s/a \
swarmdd.target=\"disk:model=Samsung SSD 970\" swarmdd.torrent=http://s/b swarmdd.target=/dev/sdb" \
		'parse_options && echo $OPT_TARGETS'
}

# As GRUB writes them.
case_options_quotes_before_the_name() {
	prints "--max-up 10M --fresh" snippet "$MINIMAL \"swarmdd.args=--max-up 10M --fresh\" quiet" \
		'parse_options && echo "$OPT_ARGS"'
}

case_options_values_may_hold_equal_signs() {
	prints "disk:serial=S1,size=1G..2T http://s/r?mac=52:54" snippet \
		"swarmdd.torrent=http://s/a swarmdd.target=disk:serial=S1,size=1G..2T \
swarmdd.report=http://s/r?mac=52:54" \
		'parse_options && echo "$OPT_TARGETS $OPT_REPORT"'
}

case_options_defaults() {
	prints "reboot shell dhcp" snippet "$MINIMAL" \
		'parse_options && echo "$OPT_THEN $OPT_ONFAIL $OPT_NET"'
}

case_options_of_other_programs_are_ignored() {
	prints "fine" snippet "BOOT_IMAGE=/vmlinuz ro swarm=1 xswarmdd.x=1 $MINIMAL -- foo" \
		'parse_options && echo fine'
}

case_options_typo_is_refused() {
	prints "swarmdd.torent on the kernel command line is no option of swarmdd, probably a typo" \
		snippet "$MINIMAL swarmdd.torent=x" 'parse_options || echo "${FAILURE%%;*}"'
}

# The kernel accepts - for _ in its own parameters. These options do not, and the message says so.
case_options_dash_for_underscore_is_refused() {
	prints "swarmdd.info-hash on the kernel command line is no option of swarmdd, probably a typo" \
		snippet "$MINIMAL swarmdd.info-hash=0123" 'parse_options || echo "${FAILURE%%;*}"'
}

case_options_empty_value_is_refused() {
	prints "swarmdd.target has no value on the kernel command line" \
		snippet "swarmdd.torrent=http://s/a swarmdd.target=" 'parse_options || echo "$FAILURE"'
}

case_options_missing_torrent_is_refused_with_its_option() {
	prints "nothing to deploy: give swarmdd.torrent=URL on the kernel command line" \
		snippet "swarmdd.target=/dev/vda" 'parse_options || echo "$FAILURE"'
}

case_options_missing_target_is_refused_with_its_option() {
	prints "no disk to write: give swarmdd.target=/dev/NAME or swarmdd.target=disk:auto \
on the kernel command line" \
		snippet "swarmdd.torrent=http://s/a" 'parse_options || echo "$FAILURE"'
}

case_options_unpaired_torrent_is_refused() {
	prints "2 swarmdd.torrent but 1 swarmdd.target on the kernel command line; they go in pairs" \
		snippet "$MINIMAL swarmdd.torrent=http://s/b" 'parse_options || echo "$FAILURE"'
}

case_options_unknown_then_is_refused() {
	prints "swarmdd.then=halt on the kernel command line is not one of: \
reboot poweroff shell kexec" \
		snippet "$MINIMAL swarmdd.then=halt" 'parse_options || echo "$FAILURE"'
}

case_options_unknown_onfail_falls_back_to_the_shell() {
	prints "shell: swarmdd.onfail=explode on the kernel command line is not one of: \
shell reboot poweroff retry wait" \
		snippet "$MINIMAL swarmdd.onfail=explode" 'parse_options || echo "$OPT_ONFAIL: $FAILURE"'
}

case_options_wait_needs_a_server() {
	prints "swarmdd.onfail=wait asks the server of swarmdd.report, which is not on the kernel command \
line" snippet "$MINIMAL swarmdd.onfail=wait" 'parse_options || echo "$FAILURE"'
	prints fine snippet "$MINIMAL swarmdd.onfail=wait swarmdd.report=http://s/r" \
		'parse_options && echo fine'
}

case_options_net_is_checked() {
	for good in dhcp 10.77.0.5/24 10.77.0.5/24,10.77.0.1 fd00::5/64,fd00::1; do
		prints fine snippet "$MINIMAL swarmdd.net=$good" 'parse_options && echo fine'
	done
	for bad in static 10.77.0.5 10.77/24,x DHCP; do
		prints "swarmdd.net=$bad on" snippet "$MINIMAL swarmdd.net=$bad" \
			'parse_options || echo "${FAILURE%% the *}"'
	done
}

case_options_bootif_may_be_of_pxelinux_or_plain() {
	for bootif in 01-52-54-00-AB-CD-EF 52:54:00:ab:cd:ef; do
		prints "52:54:00:ab:cd:ef" snippet "$MINIMAL BOOTIF=$bootif" \
			'parse_options && echo "$BOOTIF"'
	done
}

case_options_typo_is_reported_over_the_network() {
	good_network
	boot "$MINIMAL swarmdd.onfail=poweroff swarmdd.report=http://10.77.0.1/r swarmdd.tget=/dev/vda"
	framed "swarmdd.tget on the kernel command line is no option of swarmdd"
	framed "The disk was not touched."
	not_ran "swarmdd get"
	ran "wget .*--post-data {\"state\":\"failed\",\"mac\":\"52:54:00:00:00:01\".*swarmdd.tget"
	ran "poweroff -f"
}

case_options_hostname_is_checked() {
	for good in a 7 lab-07 Lab07.example.org $(printf %063d 7); do
		prints fine snippet "$MINIMAL swarmdd.hostname=$good" 'parse_options && echo fine'
	done
	for bad in -a a- a..b .a a. a.-b a-.b a_b 'a;b' 'a/b' 'b\303\244r' $(printf %064d 7); do
		bad=$(printf %b "$bad")
		prints "swarmdd.hostname=$bad on the kernel command line is no host name" \
			snippet "$MINIMAL swarmdd.hostname=$bad" 'parse_options || echo "${FAILURE%%:*}"'
	done
}

case_options_vlan_is_checked() {
	for good in 1 9 10 99 100 999 1000 3999 4000 4089 4094; do
		prints fine snippet "$MINIMAL swarmdd.vlan=$good" 'parse_options && echo fine'
	done
	for bad in 0 4095 4100 9999 10000 -1 05 5.6 x 5x 0x5; do
		prints "swarmdd.vlan=$bad on the kernel command line is no VLAN; \
a VLAN is a number from 1 to 4094" \
			snippet "$MINIMAL swarmdd.vlan=$bad" 'parse_options || echo "$FAILURE"'
	done
	prints "swarmdd.vlan has no value on the kernel command line" \
		snippet "$MINIMAL swarmdd.vlan=" 'parse_options || echo "$FAILURE"'
}
