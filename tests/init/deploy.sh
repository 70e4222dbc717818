# shellcheck shell=sh disable=SC2016
# deploy.sh: cases of init from the disk to the reboot, and of failures between. Sourced by run.

case_deploy_from_start_to_reboot() {
	good_network
	agent 0 "sda1: done"
	boot "$MINIMAL"
	ran_before "mount -t proc" "mount -t devtmpfs"
	ran_before "mount -t devtmpfs" "modprobe"
	ran_before "modprobe" "ip link set dev eth0 up"
	ran "swarmdd get --progress plain http://10.77.0.1/a.torrent /dev/vda\$"
	said "sda1: done"
	ran_before "swarmdd get" sync
	ran_before sync "reboot -f"
	not_said "FAILED"
}

case_deploy_prints_on_every_console() {
	good_network
	agent 0 "half way"
	boot "$MINIMAL"
	said "half way"
	grep -q "^swarmdd: half way" "$ROOT/dev/tty0" || complain "nothing on tty0"
	grep -q "^<7>swarmdd: half way" "$ROOT/dev/kmsg" || complain "nothing in the log of the kernel"
}

case_deploy_missing_console_is_ignored() {
	good_network
	echo "tty0 ttyS0 ttyS1" >"$ROOT/sys/class/tty/console/active"
	boot "$MINIMAL"
	ran "reboot -f"
	[ ! -e "$ROOT/dev/ttyS1" ] || complain "a file was made in place of a console"
}

case_deploy_passes_all_options_to_the_agent() {
	good_network
	disk sda1
	disk sda2
	boot "swarmdd.torrent=http://s/1 swarmdd.target=/dev/sda1 \
swarmdd.torrent=http://s/2 swarmdd.target=/dev/sda2 \
swarmdd.info_hash=0123 swarmdd.report=http://s/r swarmdd.args=\"--max-up 10M --fresh\""
	ran "swarmdd get --progress plain --report http://s/r --info-hash 0123 --max-up 10M --fresh \
http://s/1 /dev/sda1 http://s/2 /dev/sda2\$"
}

case_deploy_memory_option_of_the_command_line_is_given() {
	good_network
	boot "$MINIMAL swarmdd.args=\"--memory 24\""
	ran "swarmdd get --progress plain --memory 24 http"
}

case_deploy_stars_in_options_are_not_expanded() {
	good_network
	boot "$MINIMAL swarmdd.args=\"--name /*\""
	ran "swarmdd get --progress plain --name /\\* http"
}

case_deploy_drivers_are_asked_for_once_by_modalias() {
	good_network
	mkdir -p "$ROOT/sys/devices/pci0/a" "$ROOT/sys/devices/pci0/b"
	echo "pci:v00008086d00001521*" >"$ROOT/sys/devices/pci0/a/modalias"
	echo "pci:v00008086d00001521*" >"$ROOT/sys/devices/pci0/b/modalias"
	boot "$MINIMAL"
	ran_times 2 "modprobe -a -b -q sd_mod pci:v00008086d00001521\\*\$"
}

case_deploy_late_disk_is_waited_for() {
	good_network
	at 20 disk sdb
	boot "swarmdd.torrent=http://s/a swarmdd.target=/dev/sdb"
	said "waiting for /dev/sdb (18 of 60 s)"
	ran "swarmdd get"
	clock_between 20 90
}

case_deploy_missing_disk_is_reported_with_the_disks_found() {
	good_network
	boot "swarmdd.torrent=http://s/a swarmdd.target=/dev/sdb swarmdd.onfail=poweroff"
	framed "there is no /dev/sdb here after 60 s; disks found: vda"
	framed "The disk was not touched."
	not_ran "swarmdd get"
}

case_deploy_selector_waits_for_any_disk() {
	good_network
	rm -r "$ROOT/sys/block/vda"
	mkdir -p "$ROOT/sys/block/sr0/device" "$ROOT/sys/block/loop0"
	at 6 disk nvme0n1
	boot "swarmdd.torrent=http://s/a swarmdd.target=disk:auto"
	said "waiting for a disk (3 of 60 s)"
	ran "swarmdd get --progress plain http://s/a disk:auto"
}

case_deploy_no_disk_is_reported_with_controllers_without_driver() {
	good_network
	rm -r "$ROOT/sys/block/vda"
	mkdir -p "$ROOT/sys/bus/pci/devices/0000:00:1f.2"
	cd "$ROOT/sys/bus/pci/devices/0000:00:1f.2" || return
	echo 0x010400 >class
	echo 0x1000 >vendor
	echo 0x005d >device
	boot "swarmdd.torrent=http://s/a swarmdd.target=disk:auto swarmdd.onfail=poweroff"
	framed "no disk found after 60 s; disk controllers without a driver in this initramfs \
(PCI vendor:device): 1000:005d"
}

case_deploy_file_target_is_not_waited_for() {
	good_network
	boot "swarmdd.torrent=http://s/a swarmdd.target=/tmp/image"
	ran "swarmdd get --progress plain http://s/a /tmp/image"
}

case_deploy_agent_reports_by_itself() {
	good_network
	agent 0 "a -> /dev/vda: downloading 5.0 %, 5 of 100 pieces, down 1 B/s, up 0 B/s, 2 peers" \
		"a -> /dev/vda: done: 1 B in 0:05"
	boot "$MINIMAL swarmdd.report=http://10.77.0.1/r"
	ran "swarmdd get --progress plain --report http://10.77.0.1/r http"
	prints 1 grep -c . "$ROOT/posted"
	grep -q '"state":"booted"' "$ROOT/posted" || complain "the server did not hear of the boot"
	said "a -> /dev/vda: downloading 5.0 %, 5 of 100 pieces, down 1 B/s"
}

# 1: the server has taken the report of the agent. A poorer one must not follow.
case_deploy_failure_that_the_agent_reported_is_not_reported_again() {
	good_network
	agent 1 "swarmdd: a -> /dev/vda: failed: cannot write /dev/vda at byte 512: No space left"
	boot "$MINIMAL swarmdd.onfail=poweroff swarmdd.report=http://10.77.0.1/r"
	prints 0 grep -c '"failed"' "$ROOT/posted"
	framed "cannot write /dev/vda at byte 512"
}

case_deploy_failure_that_the_agent_could_not_report_is_reported() {
	for status in 2 3 101 137; do
		rm -rf "$ROOT/run" "$ROOT/commands" "$ROOT/posted" "$ROOT"/agent* "$ROOT/sys/class/net/eth0"
		good_network
		agent "$status" "swarmdd: a -> /dev/vda: failed: cannot read" \
			"swarmdd: could not report to http://10.77.0.1/r: no answer"
		boot "$MINIMAL swarmdd.onfail=poweroff swarmdd.report=http://10.77.0.1/r"
		prints 1 grep -c '"failed"' "$ROOT/posted"
	done
	rm -rf "$ROOT/run" "$ROOT/commands" "$ROOT"/agent* "$ROOT/sys/class/net/eth0"
	good_network
	agent 3 "swarmdd: a -> /dev/vda: failed: cannot read" "swarmdd: could not report to x: no answer"
	boot "$MINIMAL swarmdd.onfail=poweroff swarmdd.report=http://10.77.0.1/r"
	tail -n 1 "$ROOT/posted" | grep -q '"error":"a -> /dev/vda: failed: cannot read"}' ||
		complain "the server does not know the reason: $(tail -n 1 "$ROOT/posted")"
	framed "ON THIS MACHINE a -> /dev/vda: failed: cannot read could not report to x: no answer machine"
}

# What the agent has reported in the first try says nothing about the second.
case_deploy_failure_of_the_next_try_is_reported() {
	good_network
	agent 1 "swarmdd: a -> /dev/vda: failed: cannot read"
	echo '[ -e "$ROOT/second" ] && exit 7; touch "$ROOT/second"' >"$ROOT/www/pre.sh"
	boot "$MINIMAL swarmdd.onfail=retry swarmdd.report=http://10.77.0.1/r \
swarmdd.pre=http://10.77.0.1/pre.sh"
	grep -q '"failed".*ended with status 7' "$ROOT/posted" || complain "not the second failure"
}

case_deploy_server_that_takes_no_report_stops_nothing() {
	good_network
	echo 9 >"$ROOT/posts-that-fail"
	boot "$MINIMAL swarmdd.report=http://10.77.0.1/r"
	said "could not report 'booted' to http://10.77.0.1/r"
	ran "swarmdd get"
	ran "reboot -f"
}

case_deploy_failure_is_framed_and_reported() {
	good_network
	reason='target disk holds 120 GB, image needs 250 GB (\"big\")'
	agent 3 "downloading" "swarmdd: target disk holds 120 GB, image needs 250 GB (\"big\")"
	boot "$MINIMAL swarmdd.onfail=poweroff swarmdd.report=http://10.77.0.1/r"
	framed "SWARMDD FAILED ON THIS MACHINE"
	framed "target disk holds 120 GB, image needs 250 GB (\"big\")"
	framed "machine 52:54:00:00:00:01 swarmdd-525400000001 10.77.0.5"
	framed "If writing had begun"
	machine='"mac":"52:54:00:00:00:01","hostname":"swarmdd-525400000001"'
	machine="$machine,\"ip\":\"10.77.0.5\",\"nic\":\"eth0\""
	prints "{\"state\":\"booted\",$machine}
{\"state\":\"failed\",$machine,\"error\":\"$reason\"}" cat "$ROOT/posted"
}

case_deploy_usage_error_has_a_message_of_its_own() {
	good_network
	agent 2 "swarmdd: unknown option --nope" "try 'swarmdd get --help'"
	boot "$MINIMAL swarmdd.onfail=poweroff swarmdd.args=--nope"
	framed "swarmdd did not understand its options: unknown option --nope"
}

case_deploy_killed_agent_has_a_message_of_its_own() {
	good_network
	agent 137
	boot "$MINIMAL swarmdd.onfail=poweroff"
	framed "swarmdd was killed, probably for lack of memory"
}

case_onfail_reboot_leaves_time_to_read() {
	good_network
	agent 1 "swarmdd: no"
	boot "$MINIMAL swarmdd.onfail=reboot"
	ran_before "sleep 30" "reboot -f"
	clock_between 30 95
}

case_onfail_shell_is_the_default_and_exit_tries_again() {
	good_network
	agent 1 "swarmdd: no"
	agent 0 "fine now"
	boot "$MINIMAL"
	said "a shell is open on every console: 'exit' tries again"
	ran "setsid -c sh -c exec sh -i <>$ROOT/dev/tty0"
	ran "setsid -c sh -c exec sh -i <>$ROOT/dev/ttyS0"
	ran_times 2 "swarmdd get"
	ran_times 1 "udhcpc"
	said "fine now"
	ran "reboot -f"
}

case_onfail_retry_backs_off() {
	good_network
	for run in 1 2 3 4 5 6 7; do
		agent 1 "swarmdd: tracker said no ($run)"
	done
	agent 0 "fine now"
	boot "$MINIMAL swarmdd.onfail=retry"
	for pause in 10 20 40 80 160 300; do
		said "trying again in $pause s"
	done
	not_ran "setsid"
	ran_times 8 "swarmdd get"
	ran "reboot -f"
}

# --- a failed machine and its server

case_words_of_a_failed_machine_reach_the_server() {
	good_network
	echo "7.42 9.9" >"$ROOT/proc/uptime"
	{
		for n in $(seq 300); do echo "[    1.$n] nvme nvme0: message $n"; done
		echo "[    2.0] swarmdd: this is in the other log"
	} >"$ROOT/dmesg"
	agent 3 "swarmdd: a -> /dev/vda: failed: cannot read"
	boot "$MINIMAL swarmdd.onfail=poweroff swarmdd.report=http://10.77.0.1:81/report?job=7&mac=52-54"
	ran "wget .*--post-file $ROOT/run/swarmdd/words http://10.77.0.1:81/words?job=7&mac=52-54\$"
	ran_before "wget .*failed" "timeout 15 wget .*/words"
	base64 -d "$ROOT/words" | gunzip >"$ROOT/text"
	prints "--- init and agent
[7.42] starting on kernel 6.1.0-test
[7.42] eth0: virtio_net, 52:54:00:00:00:01, unknown speed, 10.77.0.5/24 via 10.77.0.1" \
		head -n 3 "$ROOT/text"
	grep -q "^\[7.42\] a -> /dev/vda: failed: cannot read$" "$ROOT/text" || complain "no reason"
	prints "[    1.101] nvme nvme0: message 101" sed -n '/--- kernel/{n;p;}' "$ROOT/text"
	prints "[    1.300] nvme nvme0: message 300" tail -n 1 "$ROOT/text"
	not_said "could not send"
}

case_words_are_bounded_and_keep_the_beginning_and_the_end() {
	good_network
	head -c 60000 /dev/urandom | base64 -w 0 | fold -w 1000 >"$ROOT/dmesg"
	{
		echo 3
		for n in $(seq 2000); do echo "line $n of the agent"; done
		head -c 300000 /dev/urandom | base64 -w 0 | fold -w 500
		echo
		echo "the last line"
	} >"$ROOT/agent.1"
	boot "$MINIMAL swarmdd.onfail=poweroff swarmdd.report=http://10.77.0.1/r"
	[ "$(wc -c <"$ROOT/words")" -le 262144 ] || complain "$(wc -c <"$ROOT/words") bytes were sent"
	base64 -d "$ROOT/words" | gunzip >"$ROOT/text" || complain "the words are broken"
	grep -q "the last line" "$ROOT/text" || complain "the last line is missing"
	[ "$(grep -c '' "$ROOT/run/swarmdd/log")" -le 700 ] || complain "the log is too long"
	grep -q "starting on kernel" "$ROOT/run/swarmdd/log" || complain "the beginning is missing"
}

case_words_that_the_server_does_not_take_stop_nothing() {
	good_network
	touch "$ROOT/no-words"
	agent 1 "swarmdd: no"
	boot "$MINIMAL swarmdd.onfail=poweroff swarmdd.report=http://10.77.0.1/r"
	said "could not send the log to http://10.77.0.1/words"
	ran "poweroff -f"
}

case_words_and_retry_lie_beside_the_report() {
	while read -r report words retry; do
		prints "$words $retry" snippet "$MINIMAL swarmdd.report=$report" 'parse_options
			MAC=52:54:00:00:00:01
			echo "$(beside_report words) $(retry_url)"'
	done <<-END
		http://s/r http://s/words http://s/retry/52-54-00-00-00-01
		http://s http://s/words http://s/retry/52-54-00-00-00-01
		http://s:81/a/report?x=/&mac=aa-bb&y=1 http://s:81/a/words http://s:81/a/retry/aa-bb
		http://s/report?mac=aa-bb http://s/words http://s/retry/aa-bb
	END
}

case_wait_asks_the_server_whether_to_try_again() {
	good_network
	touch "$ROOT/nobody-there"
	agent 1 "swarmdd: no"
	agent 0 "fine now"
	at 35 'mkdir -p "$ROOT/www/retry"; touch "$ROOT/www/retry/aa-bb"'
	boot "$MINIMAL swarmdd.onfail=wait swarmdd.report=http://10.77.0.1/report?job=1&mac=aa-bb"
	framed no
	said "waiting until http://10.77.0.1/retry/aa-bb exists"
	ran_times 4 "timeout 15 wget -q -O /dev/null http://10.77.0.1/retry/aa-bb\$"
	said "trying again, as the server says"
	ran_times 2 "swarmdd get"
	said "fine now"
	ran "reboot -f"
	clock_between 35 60
}

case_wait_ends_at_the_keyboard() {
	good_network
	agent 1 "swarmdd: no"
	agent 0 "fine now"
	boot "$MINIMAL swarmdd.onfail=wait swarmdd.report=http://10.77.0.1/r"
	said "a shell is open on every console: press Enter for it; 'exit' tries again"
	ran "setsid -c sh -c read -r _ || sleep 86400; exec sh -i <>$ROOT/dev/ttyS0"
	said "fine now"
}

case_wait_ends_when_a_missing_network_comes() {
	nic eth0 52:54:00:00:00:01 virtio_net "10.77.0.5 24 10.77.0.1"
	touch "$ROOT/nobody-there"
	at 180 link_up eth0
	boot "$MINIMAL swarmdd.onfail=wait swarmdd.report=http://10.77.0.1/r"
	framed "no network after 60 s"
	said "there is a network now; trying again"
	not_ran "timeout 15 wget .*/retry/"
	ran "swarmdd get"
	ran "reboot -f"
}

# No console works: nothing but the server can end it.
case_wait_needs_no_console() {
	good_network
	agent 1 "swarmdd: no"
	agent 0
	rm "$ROOT/dev/tty0" "$ROOT/dev/ttyS0"
	mkdir "$ROOT/dev/tty0" "$ROOT/dev/ttyS0"
	at 300 'mkdir -p "$ROOT/www/retry"; touch "$ROOT/www/retry/52-54-00-00-00-01"'
	boot "$MINIMAL swarmdd.onfail=wait swarmdd.report=http://10.77.0.1/r"
	ran_times 2 "swarmdd get"
	clock_between 300 330
	rmdir "$ROOT/dev/ttyS0"
}

case_then_poweroff_switches_off() {
	good_network
	boot "$MINIMAL swarmdd.then=poweroff"
	ran_before sync "poweroff -f"
	not_ran "reboot"
}

case_then_shell_is_followed_by_a_reboot() {
	good_network
	boot "$MINIMAL swarmdd.then=shell"
	ran_before "swarmdd get" "setsid"
	ran_before "setsid" "reboot -f"
}

case_then_kexec_without_the_program_reboots() {
	good_network
	boot "$MINIMAL swarmdd.then=kexec"
	said "this initramfs was packed without kexec; rebooting instead"
	ran "reboot -f"
}

case_then_kexec_without_a_loaded_kernel_reboots() {
	good_network
	mkdir -p "$ROOT/sbin"
	cp /bin/true "$ROOT/sbin/kexec"
	boot "$MINIMAL swarmdd.then=kexec"
	said "no kernel was loaded (the swarmdd.post script has to call 'kexec -l'); rebooting instead"
	ran "reboot -f"
}

case_then_kexec_starts_the_loaded_kernel() {
	good_network
	mkdir -p "$ROOT/sbin"
	cp /bin/true "$ROOT/sbin/kexec"
	echo 1 >"$ROOT/sys/kernel/kexec_loaded"
	boot "$MINIMAL swarmdd.then=kexec"
	ran_before sync "kexec -e"
	not_ran "reboot"
}

case_scripts_run_before_and_after_the_agent_and_know_the_machine() {
	good_network
	echo 'echo "pre: $SWARMDD_STAGE $SWARMDD_MAC $SWARMDD_IP $SWARMDD_TARGETS"' >"$ROOT/www/pre.sh"
	echo 'echo "post: $SWARMDD_STAGE $SWARMDD_TORRENTS"' >"$ROOT/www/post.sh"
	boot "$MINIMAL swarmdd.pre=http://10.77.0.1/pre.sh swarmdd.post=http://10.77.0.1/post.sh"
	said "pre: pre 52:54:00:00:00:01 10.77.0.5 /dev/vda"
	said "post: post http://10.77.0.1/a.torrent"
	ran_before "sh .*/pre\$" "swarmdd get"
	ran_before "swarmdd get" "sh .*/post\$"
}

# The agent has said `done` before they began.
case_scripts_after_the_agent_are_reported_when_all_have_run() {
	good_network
	echo '! grep -q scripts "$ROOT/posted"' >"$ROOT/www/post.sh"
	post=swarmdd.post=http://10.77.0.1/post.sh
	boot "$MINIMAL $post $post swarmdd.report=http://10.77.0.1/r"
	prints "booted
done" sed 's/^{"state":"\([a-z]*\)".*/\1/' "$ROOT/posted"
	tail -n 1 "$ROOT/posted" | grep -q '"mac":"52:54:00:00:00:01".*,"scripts":"ok"}$' ||
		complain "the server does not know that all scripts have run"
	ran "reboot -f"
}

case_scripts_that_fail_are_not_reported_as_run() {
	good_network
	echo 'exit 1' >"$ROOT/www/post.sh"
	boot "$MINIMAL swarmdd.post=http://10.77.0.1/post.sh swarmdd.report=http://10.77.0.1/r \
swarmdd.onfail=poweroff"
	prints "booted
failed" sed 's/^{"state":"\([a-z]*\)".*/\1/' "$ROOT/posted"
	prints 0 grep -c scripts "$ROOT/posted"
}

case_scripts_run_in_the_order_of_the_command_line() {
	good_network
	for n in 1 2 3; do
		echo "echo pre $n, \$SWARMDD_SERVER, \$(ls \$ROOT/run/swarmdd/written 2>&1)" \
			>"$ROOT/www/pre$n.sh"
		echo "echo post $n, \$SWARMDD_DISKS," >"$ROOT/www/post$n.sh"
	done
	disk vdb
	agent 0 "a -> disk:auto: reading the torrent" "x: y -> /dev/vda: seeding, up 0 B/s, 0 peers" \
		"x: y -> /dev/vda: done: 1 B in 0:05 (1 B/s), 1 pieces verified, fetched 1 B, uploaded 0 B" \
		"b -> disk:auto: done: 1 B on /dev/vdb in 0:05 (1 B/s), not verified, fetched 1 B"
	boot "$MINIMAL swarmdd.pre=http://10.77.0.1:81/pre2.sh swarmdd.post=http://10.77.0.1/post3.sh \
swarmdd.pre=http://10.77.0.1/x/pre1.sh swarmdd.post=http://10.77.0.1/post1.sh \
swarmdd.post=http://10.77.0.1/post2.sh?a=* swarmdd.onfail=poweroff"
	said "pre 2, http://10.77.0.1:81,"
	said "pre 1, http://10.77.0.1,"
	for n in 1 2 3; do
		said "post $n, /dev/vda /dev/vdb,"
	done
	prints "pre2
pre1
post3
post1
post2" sed -n 's/^timeout .* wget .*\/\([a-z]*[0-9]\).sh.*/\1/p' "$ROOT/commands"
}

case_scripts_that_fail_keep_the_next_from_running() {
	good_network
	echo 'echo "no boot loader" >&2; exit 1' >"$ROOT/www/post1.sh"
	echo 'echo "this is post 2"' >"$ROOT/www/post2.sh"
	boot "$MINIMAL swarmdd.post=http://10.77.0.1/post1.sh swarmdd.post=http://10.77.0.1/post2.sh \
swarmdd.onfail=poweroff"
	framed "the swarmdd.post script http://10.77.0.1/post1.sh ended with status 1: no boot loader"
	not_said "post 2"
}

# In the second try the first has written nothing yet.
case_scripts_of_a_retry_do_not_know_the_disks_of_the_first_try() {
	good_network
	echo 'echo "pre: <$SWARMDD_DISKS>"' >"$ROOT/www/pre.sh"
	echo '[ -e "$ROOT/second" ] || { touch "$ROOT/second"; exit 1; }' >"$ROOT/www/post.sh"
	agent 0 "a -> /dev/vda: done: 1 B in 0:05"
	agent 0 "a -> /dev/vda: done: 1 B in 0:05"
	boot "$MINIMAL swarmdd.pre=http://10.77.0.1/pre.sh swarmdd.post=http://10.77.0.1/post.sh"
	prints 2 grep -c "pre: <>" "$ROOT/dev/ttyS0"
	ran_times 2 "swarmdd get"
	ran "reboot -f"
}

# A process in the background that keeps standard output and standard error open, and prints later.
case_scripts_are_not_waited_for_after_their_end() {
	good_network
	{
		echo 'printf "half a line" >&2; echo "the reason" >&2'
		echo '(n=0; until [ -e $ROOT/go ] || [ $n -gt 50 ]; do n=$((n + 1)); sleep 0.1; done
			echo late; echo late >&2; touch $ROOT/alive) &'
		echo 'printf "no line end"; exit 3'
	} >"$ROOT/www/pre.sh"
	boot "$MINIMAL swarmdd.pre=http://10.77.0.1/pre.sh swarmdd.onfail=poweroff"
	touch "$ROOT/go"
	for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
		[ -e "$ROOT/alive" ] || sleep 0.1
	done
	framed "ended with status 3: half a linethe reason"
	said "swarmdd: no line end"
	not_said late
	[ -e "$ROOT/alive" ] || complain "what runs in the background was killed by its output"
}

case_scripts_failing_pre_script_stops_before_writing() {
	good_network
	echo 'echo "no partition table"; exit 3' >"$ROOT/www/pre.sh"
	boot "$MINIMAL swarmdd.pre=http://10.77.0.1/pre.sh swarmdd.onfail=poweroff"
	framed "the swarmdd.pre script http://10.77.0.1/pre.sh ended with status 3: no partition table"
	framed "The disk was not touched."
	not_ran "swarmdd get"
}

case_scripts_missing_on_the_server_stop_before_writing() {
	good_network
	boot "$MINIMAL swarmdd.pre=http://10.77.0.1/nowhere.sh swarmdd.onfail=poweroff"
	framed "cannot fetch the swarmdd.pre script from http://10.77.0.1/nowhere.sh"
	not_ran "swarmdd get"
}

case_scripts_pre_may_make_the_target() {
	good_network
	echo "touch $ROOT/dev/vda1" >"$ROOT/www/pre.sh"
	boot "swarmdd.torrent=http://s/a swarmdd.target=/dev/vda1 swarmdd.pre=http://10.77.0.1/pre.sh"
	ran "swarmdd get --progress plain http://s/a /dev/vda1"
}

case_bug_in_init_ends_in_a_shell_and_not_in_a_panic() {
	echo 'kill -KILL "$(cat "$ROOT/init.pid")"' >"$ROOT/at-the-shell"
	snippet "$MINIMAL" 'trap last_resort EXIT; echo "$NEVER_SET"'
	framed "the init script ended unexpectedly; this is a bug"
	ran "setsid"
}
