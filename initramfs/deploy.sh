# shellcheck shell=sh disable=SC2015,SC2034,SC2046,SC2086
# deploy.sh: the agent, scripts from the server, reports to the server, and the end of the job.

# Sourced by init after net.sh, whose MAC, IP, NIC and MACHINE_NAME it uses, and outcome.sh.

# For a small answer from a server one switch away; wget of busybox has no timeout of its own.
HTTP_WAIT_SECS=15
# How long a failure stays on the screen before the machine reboots or powers off, so that somebody
# can read it.
READ_SECS=30
# First and longest pause of onfail=retry. Doubled each time, so that a room does not ask a dead
# server 100 times a minute.
RETRY_SECS_MIN=10
RETRY_SECS_MAX=300

RETRY_SECS=$RETRY_SECS_MIN

# --- the agent

# The exit status decides. If it is a failure, the agent says why (outcome.sh).
run_agent() {
	local torrent target hash status disk_before="$DISK"
	export_machine
	# Options first, then TORRENT TARGET pairs.
	set -- get --progress plain
	[ -z "$OPT_REPORT" ] || set -- "$@" --report "$OPT_REPORT"
	for hash in $OPT_INFO_HASHES; do
		set -- "$@" --info-hash "$hash"
	done
	set -f
	# shellcheck disable=SC2086 # swarmdd.args is split into words
	set -- "$@" $OPT_ARGS
	set +f
	printf '%s\n' "$OPT_TARGETS" >"$ROOT/run/swarmdd/targets"
	exec 3<"$ROOT/run/swarmdd/targets"
	while IFS= read -r torrent && IFS= read -r target <&3; do
		set -- "$@" "$torrent" "$target"
	done <<-END
		$OPT_TORRENTS
	END
	exec 3<&-

	say "swarmdd $*"
	# Should this script end now, nothing better is known.
	DISK=maybe
	rm -rf "$ROOT/run/swarmdd/progress"
	mkdir "$ROOT/run/swarmdd/progress"
	{
		$MOCK "$ROOT/bin/swarmdd" "$@" 2>&1
		echo "$?" >"$ROOT/run/swarmdd/status"
	} | mark_progress | say_lines
	status=$(cat "$ROOT/run/swarmdd/status")
	DISK=$(disk_after "$disk_before" "$status")
	[ "$status" -ne 0 ] || return 0
	# 1: it has failed, and the server has taken its report.
	[ "$status" -ne 1 ] || SERVER_KNOWS=yes
	CONTEXT=$(context)
	fail "$(agent_failure "$status")"
}

# For the agent and for scripts: the identity of this machine, and its options.
export_machine() {
	read_address
	export SWARMDD_MAC="$MAC" SWARMDD_IP="$IP" SWARMDD_HOSTNAME="$MACHINE_NAME"
	export SWARMDD_NIC="${NIC:+$(interface_of "$NIC")}"
	export SWARMDD_TORRENTS="$OPT_TORRENTS" SWARMDD_TARGETS="$OPT_TARGETS"
	SWARMDD_DISKS=$(written_disks)
	export SWARMDD_DISKS
	export SWARMDD_REPORT="$OPT_REPORT"
}

# --- scripts from the server

# run_scripts pre|post URLS: one after the other. The first that fails stops the deployment.
run_scripts() {
	local stage="$1" url
	set -f
	for url in $2; do
		set +f
		run_script "$stage" "$url" || return 1
	done
	set +f
}

# run_script pre|post URL: fetches a script over HTTP and runs it by sh, with SWARMDD_* set (see
# README). If it fails, the first line on its standard error is the reason, or else its first line.
run_script() {
	local file="$ROOT/run/swarmdd/$1" status error
	say "running swarmdd.$1 script $2"
	error=$($MOCK timeout "$HTTP_WAIT_SECS" wget -q -O "$file" "$2" 2>&1) || {
		[ -n "$error" ] || error="no answer in $HTTP_WAIT_SECS s"
		fail "cannot fetch the swarmdd.$1 script from $2: ${error#wget: }"
		return 1
	}
	export_machine
	SWARMDD_SERVER=$(server_of "$2")
	export SWARMDD_STAGE="$1" SWARMDD_SERVER
	[ "$1" != pre ] || PRE_SCRIPT_RAN=yes
	{
		{
			$MOCK sh "$file" 2>&1 >&3 3>&-
			echo "$?" >"$ROOT/run/swarmdd/status"
			printf '\n%s\n' "$LAST_LINE"
		} | mark_lines
	} 3>&1 | say_lines
	status=$(cat "$ROOT/run/swarmdd/status")
	[ "$status" -ne 0 ] || return 0
	CONTEXT=$(context)
	error=$(reason)
	fail "the swarmdd.$1 script $2 ended with status $status: ${error:-no message}"
}

# Not by sed, which would keep the lines until the script ends.
mark_lines() {
	local line
	while IFS= read -r line || [ -n "$line" ]; do
		case $line in
		"") continue ;;
		"$LAST_LINE") break ;;
		esac
		# Standard output may be in the middle of a line.
		printf '\nswarmdd: %s\n' "$line"
	done
	printf '\n%s\n' "$LAST_LINE"
	drain
}

# server_of URL: its scheme, host and port.
server_of() {
	local rest="${1#*://}"
	echo "${1%%://*}://${rest%%/*}"
}

# --- the server

# beside_report NAME: a URL like that of swarmdd.report, with NAME as its last part.
beside_report() {
	local url="${OPT_REPORT%%\?*}"
	case ${url#*://} in
	*/*) url=${url%/*} ;;
	esac
	echo "$url/$1"
}

# send_words: what was said on this machine, and the last messages of its kernel, packed. wget cuts
# a binary file at its first NUL byte, hence base64. A server that does not take it stops nothing.
send_words() {
	local file="$ROOT/run/swarmdd/words" url
	url=$(beside_report words)
	case $OPT_REPORT in *\?*) url="$url?${OPT_REPORT#*\?}" ;; esac
	shorten_log
	# Not more than 256 KiB even if the text cannot be compressed. Lines of `say` are in both logs.
	{
		echo "--- init and agent"
		tail -c 130000 "$ROOT/run/swarmdd/log"
		echo "--- kernel, the last lines"
		$MOCK dmesg | grep -v swarmdd: | tail -n 200 | tail -c 30000
	} | gzip | base64 >"$file"
	$MOCK timeout "$HTTP_WAIT_SECS" wget -q -O /dev/null --header "Content-Type: application/gzip" \
		--header "Content-Transfer-Encoding: base64" --post-file "$file" "$url" >/dev/null 2>&1 ||
		say "could not send the log to $url"
}

# retry_url: the MAC address as the server wrote it into the URL of the reports, since another card
# may be in use here.
retry_url() {
	local mac
	case $OPT_REPORT in
	*[?\&]mac=*)
		mac=${OPT_REPORT##*[?\&]mac=}
		mac=${mac%%&*}
		;;
	*) mac=$(echo "$MAC" | tr : -) ;;
	esac
	beside_report "retry/$mac"
}

# True if the server says so. A network that was missing and is there now is a reason, too.
may_try_again() {
	if [ -z "$NIC" ]; then
		network_ready || return 1
		say "there is a network now; trying again"
	else
		$MOCK timeout "$HTTP_WAIT_SECS" wget -q -O /dev/null "$(retry_url)" >/dev/null 2>&1 ||
			return 1
		say "trying again, as the server says"
	fi
}

# post_state STATE [ERROR]: a report before or after those of the agent; `done` means that all post
# scripts have run, too. A server that does not answer never stops a deployment.
post_state() {
	[ -n "${OPT_REPORT-}" ] || return 0
	$MOCK timeout "$HTTP_WAIT_SECS" wget -q -O /dev/null --header "Content-Type: application/json" \
		--post-data "$(state_json "$@")" "$OPT_REPORT" >/dev/null 2>&1 ||
		say "could not report '$1' to $OPT_REPORT"
}

state_json() {
	printf '{"state":"%s","mac":"%s","hostname":"%s","ip":"%s","nic":"%s"' "$1" \
		"$(json_text "$MAC")" "$(json_text "$MACHINE_NAME")" "$(json_text "$IP")" \
		"$(json_text "$NIC")"
	[ "$1" != "done" ] || printf ',"scripts":"ok"'
	[ $# -lt 2 ] || printf ',"error":"%s"' "$(json_text "$2")"
	printf '}\n'
}

# Escapes quotes and backslashes for a JSON string (RFC 8259); control characters become spaces.
json_text() { printf '%s' "$1" | tr '\001-\037' ' ' | sed 's/["\\]/\\&/g'; }

# --- afterwards

after_success() {
	$MOCK sync
	say "done; next: $OPT_THEN"
	case $OPT_THEN in
	poweroff) halt_machine poweroff ;;
	shell) offer_shell "'exit' reboots"; halt_machine reboot ;;
	kexec) start_deployed_kernel; halt_machine reboot ;;
	*) halt_machine reboot ;;
	esac
}

# Only the image knows which kernel to start, so the post script loads it (kexec -l).
start_deployed_kernel() {
	if [ ! -x "$ROOT/sbin/kexec" ]; then
		say "this initramfs was packed without kexec; rebooting instead"
	elif [ "$(cat "$ROOT/sys/kernel/kexec_loaded" 2>/dev/null)" != 1 ]; then
		say "no kernel was loaded (the swarmdd.post script has to call 'kexec -l');" \
			"rebooting instead"
	else
		$MOCK "$ROOT/sbin/kexec" -e
		say "kexec failed; rebooting instead"
	fi
}

after_failure() {
	read_address
	show_failure
	report_failure
	case ${OPT_ONFAIL:-shell} in
	reboot | poweroff)
		say "$OPT_ONFAIL in $READ_SECS s"
		$MOCK sleep "$READ_SECS"
		halt_machine "$OPT_ONFAIL"
		;;
	retry)
		say "trying again in $RETRY_SECS s"
		$MOCK sleep "$RETRY_SECS"
		RETRY_SECS=$((RETRY_SECS * 2))
		[ "$RETRY_SECS" -le "$RETRY_SECS_MAX" ] || RETRY_SECS=$RETRY_SECS_MAX
		;;
	wait)
		say "waiting until $(retry_url) exists"
		offer_shell "press Enter for it; 'exit' tries again" may_try_again
		;;
	*) offer_shell "'exit' tries again, 'reboot -f' starts over" ;;
	esac
}

# A misspelled option stops a machine before it has a network, and the server should be told, too.
report_failure() {
	local reason="$FAILURE"
	[ -n "${OPT_REPORT-}" ] || return 0
	if [ "$NETWORK_TRIED" = no ]; then
		load_drivers
		bring_up_network
	fi
	[ "$SERVER_KNOWS" = yes ] || post_state failed "$reason"
	send_words
}

# -f: the first process is this script, and there is no other init to ask. If even that fails, the
# caller goes on, and the message stays on the screen.
halt_machine() {
	$MOCK sync
	$MOCK "$1" -f
	# The kernel needs a moment, and the first process must not end meanwhile.
	$MOCK sleep 60
}
