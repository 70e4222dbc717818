# shellcheck shell=sh disable=SC2015,SC2034,SC2046,SC2086
# lib.sh: messages on every console, the kernel command line, drivers, waiting, the shell.

# Sourced by init, which sets ROOT and MOCK. (SC2034: most variables are set in one file and used in
# another. SC2086, SC2046: an empty $MOCK must vanish, and lists are split, so these stay unquoted.
# SC2015: `a && b || continue` means what it says.)

# The longest time from the loading of a driver until its device appears: USB disks and staggered
# spin-up need 10 to 20 s.
DISK_WAIT_SECS=60

# The log of init and the agent: its first lines, which say what machine this is, and its last.
LOG_LINES_FIRST=100
LOG_LINES_LAST=400
LOG_LINES_MAX=1000

LOG_LINES=0
FAILURE=""
# The agent has reported it.
SERVER_KNOWS=no
# The lines of a program below the one that is the reason.
CONTEXT=""
CONSOLES="console"

# --- messages

# say TEXT...: one line on every console, and in the log of the kernel, so that `dmesg` shows it
# beside the messages of the drivers.
say() {
	local console
	for console in $CONSOLES; do
		write_to "$console" "swarmdd: $*"
	done
	# <7>: below the log level of every console, or consoles would print the line twice.
	write_to kmsg "<7>swarmdd: $*"
	write_log "$*"
}

# A console= without a device (no such serial port) must not stop init.
write_to() {
	[ ! -e "$ROOT/dev/$1" ] || printf '%s\n' "$2" 2>/dev/null >>"$ROOT/dev/$1" || :
}

# For the server, if this machine fails. With the seconds since the kernel started.
write_log() {
	local seconds=""
	[ ! -r "$ROOT/proc/uptime" ] || read -r seconds _ <"$ROOT/proc/uptime"
	printf '[%s] %s\n' "$seconds" "$1" 2>/dev/null >>"$ROOT/run/swarmdd/log" || :
	LOG_LINES=$((LOG_LINES + 1))
	[ "$LOG_LINES" -lt "$LOG_LINES_MAX" ] || shorten_log
}

shorten_log() {
	local log="$ROOT/run/swarmdd/log"
	LOG_LINES=0
	[ "$(grep -c '' "$log")" -gt $((LOG_LINES_FIRST + LOG_LINES_LAST)) ] || return 0
	{
		head -n "$LOG_LINES_FIRST" "$log"
		echo "[...]"
		tail -n "$LOG_LINES_LAST" "$log"
	} >"$log.new"
	mv "$log.new" "$log"
}

# fail REASON: keeps the reason for the frame and for the server. Returns false, so that both
# `fail "..."` as the last command and `fail "..." || return 1` end a step.
fail() {
	FAILURE="$*"
	return 1
}

forget_failure() {
	FAILURE="" CONTEXT="" SERVER_KNOWS=no
	rm -f "$ROOT/run/swarmdd/written"
}

# run_ip INTERFACE WORD...: `ip WORD...`. An error is said once, and kept for the reason of a
# failure.
run_ip() {
	local interface="$1" error
	shift
	error=$($MOCK ip "$@" 2>&1) && return 0
	error="$interface: 'ip $*' failed: ${error#ip: }"
	! grep -qxF -e "$error" "$ROOT/run/swarmdd/problems.$interface" 2>/dev/null || return 1
	echo "$error" >>"$ROOT/run/swarmdd/problems.$interface"
	say "$error"
	return 1
}

forget_problems() { rm -f "$ROOT/run/swarmdd/problems.$1"; }

# Prints what run_ip has kept, of all interfaces or of one.
network_problems() { cat "$ROOT/run/swarmdd/problems."${1:-*} 2>/dev/null; }

# --- start

mount_all() {
	local dir
	for dir in proc sys dev run tmp; do
		[ -d "$ROOT/$dir" ] || mkdir "$ROOT/$dir"
	done
	$MOCK mount -t proc -o nosuid,nodev,noexec proc "$ROOT/proc"
	$MOCK mount -t sysfs -o nosuid,nodev,noexec sysfs "$ROOT/sys"
	$MOCK mount -t devtmpfs -o mode=0755,nosuid,noexec devtmpfs "$ROOT/dev"
	mkdir -p "$ROOT/run/swarmdd/net"
	# The archive has no /dev/console (only root could pack one), so until now there may have been
	# no console to write to. A subshell tries it first: a failing redirection of `exec` would end
	# the shell.
	[ -n "$MOCK" ] || ! (: <>/dev/console) 2>/dev/null || exec <>/dev/console >&0 2>&1
}

# All consoles that the kernel took from the command line; /dev/console is only the last of them.
find_consoles() {
	local active
	active=$(cat "$ROOT/sys/class/tty/console/active" 2>/dev/null)
	CONSOLES=${active:-console}
}

quiet_kernel() {
	# Hundreds of drivers print when they are loaded, and the messages of init would scroll away.
	# Warnings are still shown. `debug` and its like ask for all messages.
	case " $(cat "$ROOT/proc/cmdline" 2>/dev/null) " in
	*" debug "* | *" ignore_loglevel "* | *" loglevel="*) ;;
	*) $MOCK dmesg -n 5 ;;
	esac
}

kernel_release() { cat "$ROOT/proc/sys/kernel/osrelease" 2>/dev/null || echo unknown; }

# --- kernel command line

# The options of parse_options. A new option belongs here, into the case below, into tests/init and
# into the README.
KNOWN_OPTIONS="torrent target info_hash table then onfail report pre post args net vlan hostname"

# Prints one option a line. As in the kernel's next_arg() (lib/cmdline.c), double quotes protect
# spaces, may stand anywhere (GRUB moves them in front of the name), and are removed.
split_options() {
	awk -F '"' '{
		for (i = 1; i <= NF; i++) {
			if (i % 2) gsub(/[ \t]+/, "\n", $i)
			printf "%s", $i
		}
		print ""
	}' "$ROOT/proc/cmdline"
}

# Sets OPT_*; lists (torrents, targets, hashes, scripts) hold one value a line.
parse_options() {
	local option value bad=""
	OPT_TORRENTS="" OPT_TARGETS="" OPT_INFO_HASHES="" OPT_THEN=reboot OPT_ONFAIL=shell
	OPT_REPORT="" OPT_PRE="" OPT_POST="" OPT_ARGS="" OPT_NET=dhcp OPT_VLAN=""
	OPT_HOSTNAME="" OPT_TABLE="" BOOTIF=""

	split_options >"$ROOT/run/swarmdd/options"
	while IFS= read -r option; do
		value=${option#*=}
		case $option in
		swarmdd.torrent=?*) OPT_TORRENTS=$(append_line "$OPT_TORRENTS" "$value") ;;
		swarmdd.target=?*) OPT_TARGETS=$(append_line "$OPT_TARGETS" "$value") ;;
		swarmdd.info_hash=?*) OPT_INFO_HASHES=$(append_line "$OPT_INFO_HASHES" "$value") ;;
		swarmdd.table=?*) OPT_TABLE=$value ;;
		swarmdd.then=?*) OPT_THEN=$value ;;
		swarmdd.onfail=?*) OPT_ONFAIL=$value ;;
		swarmdd.report=?*) OPT_REPORT=$value ;;
		swarmdd.pre=?*) OPT_PRE=$(append_line "$OPT_PRE" "$value") ;;
		swarmdd.post=?*) OPT_POST=$(append_line "$OPT_POST" "$value") ;;
		swarmdd.args=*) OPT_ARGS=$value ;;
		swarmdd.net=?*) OPT_NET=$value ;;
		swarmdd.vlan=?*) OPT_VLAN=$value ;;
		swarmdd.hostname=?*) OPT_HOSTNAME=$value ;;
		swarmdd.*) bad=${bad:-$option} ;;
		BOOTIF=?*) BOOTIF=$(bootif_mac "$value") ;;
		esac
	done <"$ROOT/run/swarmdd/options"

	# Checked only now, so that a failure already knows `onfail` and `report`.
	[ -z "$bad" ] || { explain_bad_option "$bad"; return 1; }
	check_options
}

# A misspelled option that is silently ignored could write the wrong disk, so it stops the machine
# before anything happens.
explain_bad_option() {
	local name="${1#swarmdd.}" known
	name=${name%%=*}
	for known in $KNOWN_OPTIONS; do
		[ "$name" != "$known" ] ||
			{ fail "swarmdd.$name has no value on the kernel command line"; return; }
	done
	fail "swarmdd.$name on the kernel command line is no option of swarmdd, probably a typo;" \
		"known: swarmdd.$(echo "$KNOWN_OPTIONS" | sed 's/ / swarmdd./g')"
}

check_options() {
	local torrents targets
	torrents=$(count_lines "$OPT_TORRENTS")
	targets=$(count_lines "$OPT_TARGETS")
	one_of "then" "$OPT_THEN" reboot poweroff shell kexec || return 1
	# What to do about this failure would be a guess, too: the default is the safe choice.
	one_of onfail "$OPT_ONFAIL" shell reboot poweroff retry wait ||
		{ OPT_ONFAIL=shell; return 1; }
	[ "$OPT_ONFAIL" != wait ] || [ -n "$OPT_REPORT" ] ||
		fail "swarmdd.onfail=wait asks the server of swarmdd.report, which is not on the kernel" \
			"command line" || return 1
	[ "$torrents" -gt 0 ] ||
		fail "nothing to deploy: give swarmdd.torrent=URL on the kernel command line" || return 1
	[ "$targets" -gt 0 ] ||
		fail "no disk to write: give swarmdd.target=/dev/NAME or swarmdd.target=disk:auto" \
			"on the kernel command line" || return 1
	[ "$torrents" -eq "$targets" ] ||
		fail "$torrents swarmdd.torrent but $targets swarmdd.target on the kernel command line;" \
			"they go in pairs" || return 1
	check_net_option "$OPT_NET" && check_vlan_option "$OPT_VLAN" &&
		check_hostname_option "$OPT_HOSTNAME"
}

# one_of OPTION VALUE ALLOWED...
one_of() {
	local option="$1" value="$2" allowed
	shift 2
	for allowed in "$@"; do
		[ "$value" != "$allowed" ] || return 0
	done
	fail "swarmdd.$option=$value on the kernel command line is not one of: $*"
}

append_line() {
	[ -z "$1" ] || printf '%s\n' "$1"
	printf '%s\n' "$2"
}

count_lines() {
	[ -n "$1" ] || { echo 0; return; }
	printf '%s\n' "$1" | grep -c ''
}

# PXELINUX and iPXE write 01-52-54-00-12-34-56 (01: Ethernet, RFC 1700 hardware type). A plain
# address is accepted, too.
bootif_mac() {
	local mac
	mac=$(printf '%s' "$1" | tr 'A-F-' 'a-f:')
	case $mac in
	??:??:??:??:??:??:??) mac=${mac#??:} ;;
	esac
	printf '%s\n' "$mac"
}

# --- drivers

# Asks for a driver for every device that the kernel sees, by the name that its bus gives it. Twice:
# once the driver of a controller is loaded, the devices behind that controller appear. (Devices
# that come later: see wait_until.)
load_drivers() {
	load_drivers_once
	load_drivers_once
}

# -q: most devices have no driver here and need none. sd_mod is loaded by name, because SCSI disks
# are found in the background, after both passes.
load_drivers_once() {
	set -f # a modalias may hold `*`
	$MOCK modprobe -a -b -q sd_mod $(modaliases) 2>/dev/null
	set +f
}

modaliases() {
	find "$ROOT/sys/devices" -name modalias -exec cat {} + 2>/dev/null | sort -u
}

# --- waiting

# wait_until SECONDS CONDITION STATUS: until the function CONDITION is true; false after SECONDS.
# Every few seconds it says what it waits for, which the function STATUS prints. Each second it
# loads drivers for new devices.
wait_until() {
	local limit="$1" condition="$2" status="$3" waited=0
	until "$condition"; do
		[ "$waited" -lt "$limit" ] || return 1
		[ $((waited % 5)) -ne 3 ] || say "waiting for $("$status") ($waited of $limit s)"
		$MOCK sleep 1
		waited=$((waited + 1))
		load_drivers_once
	done
}

# A selector needs at least one disk to select from. wait_for_targets waits for a path.
wait_for_disk() {
	case $OPT_TARGETS in
	*disk:*) ;;
	*) return 0 ;;
	esac
	wait_until "$DISK_WAIT_SECS" have_disk status_disk ||
		fail "no disk found after $DISK_WAIT_SECS s$(
			devices_without_driver 0x01 "disk controllers"
		)"
}

have_disk() { [ -n "$(list_disks)" ]; }
status_disk() { echo "a disk"; }

# Prints disks that have a device: no loop, ram or zram, no partitions, no CD drives.
list_disks() {
	local dir
	for dir in "$ROOT"/sys/block/*; do
		[ -e "$dir/device" ] || continue
		case ${dir##*/} in
		sr* | fd*) ;;
		*) echo "${dir##*/}" ;;
		esac
	done
}

# Runs after the pre script, which may make a partition. A path outside /dev is a file that the
# agent creates. Of a target PATH#N, PATH is waited for (table.sh).
wait_for_targets() {
	MISSING_TARGET=""
	wait_until "$DISK_WAIT_SECS" have_targets status_targets ||
		fail "there is no $MISSING_TARGET here after $DISK_WAIT_SECS s;" \
			"disks found: $(list_disks | one_line)$(
				devices_without_driver 0x01 "disk controllers"
			)"
}

have_targets() {
	local target
	while IFS= read -r target; do
		target=${target%#[0-9]*}
		case $target in
		/dev/*) [ -e "$ROOT$target" ] || { MISSING_TARGET=$target; return 1; } ;;
		esac
	done <<-END
		$OPT_TARGETS
	END
}

status_targets() { echo "$MISSING_TARGET"; }

one_line() {
	local text
	text=$(tr '\n' ' ')
	text=${text% }
	echo "${text:-none}"
}

# devices_without_driver CLASS NAME: for the reason of a failure, the PCI devices of a class that
# have no driver. With these numbers an administrator can find the driver that is missing from the
# initramfs.
devices_without_driver() {
	local dir found=""
	for dir in "$ROOT"/sys/bus/pci/devices/*; do
		[ -e "$dir/class" ] && [ ! -e "$dir/driver" ] || continue
		case $(cat "$dir/class") in
		"$1"*) found="$found $(cut_0x "$dir/vendor"):$(cut_0x "$dir/device")" ;;
		esac
	done
	[ -z "$found" ] ||
		printf '; %s' "$2 without a driver in this initramfs (PCI vendor:device):$found"
}

cut_0x() { sed 's/^0x//' "$1"; }

# --- the shell

# offer_shell HINT [CONDITION]: a shell on every console, since the administrator may be at any of
# them. Returns when one of the shells is left. With a CONDITION, a shell begins with a press of
# Enter; the function CONDITION is called every 10 s, and ends the shells when it is true.
offer_shell() {
	local console pids="" pid ticks=0 enter=""
	# A console that has hung up is no press of Enter.
	[ $# -lt 2 ] || enter="read -r _ || sleep 86400; "
	say "a shell is open on every console: $1"
	say "useful: swarmdd disks, dmesg, ip addr, cat /proc/cmdline; logs: /run/swarmdd"
	for console in $CONSOLES; do
		(: <>"$ROOT/dev/$console") 2>/dev/null || continue
		$MOCK setsid -c sh -c "${enter}exec sh -i <>$ROOT/dev/$console >&0 2>&1" \
			<>"$ROOT/dev/$console" 2>/dev/null &
		pids="$pids $!"
	done
	[ -n "$pids$enter" ] || $MOCK sleep 60
	while all_alive $pids || { [ -n "$enter" ] && [ -z "$pids" ]; }; do
		# A keyboard may be plugged in now.
		[ $((ticks % 10)) -ne 0 ] || load_drivers_once
		[ $((ticks % 10)) -ne 9 ] || [ -z "$enter" ] || ! "$2" || break
		ticks=$((ticks + 1))
		$MOCK sleep 1
	done
	for pid in $pids; do
		kill -HUP "$pid" 2>/dev/null
	done
	# Or a console that hangs up at once would make this a busy loop.
	$MOCK sleep 1
}

# all_alive PID...: false without a PID.
all_alive() {
	local pid
	[ $# -gt 0 ] || return 1
	for pid in "$@"; do
		kill -0 "$pid" 2>/dev/null || return 1
	done
}
