# shellcheck shell=sh disable=SC2015,SC2034,SC2046,SC2086
# deploy.sh: the agent, scripts from the server, reports to the server, and the end of the job.

# Sourced by init after net.sh, whose MAC, IP, NIC and MACHINE_NAME it uses, and outcome.sh.

# For a small answer from a server one switch away; wget of busybox has no timeout of its own.
HTTP_WAIT_SECS=15
# How long a failure stays on the screen before the machine reboots or powers off, so that somebody
# can read it.
READ_SECS=30
# The agent writes about one JSON line a second. The machines of a room need not send each line.
REPORT_EVERY=5
# First and longest pause of onfail=retry. Doubled each time, so that a room does not ask a dead
# server 100 times a minute.
RETRY_SECS_MIN=10
RETRY_SECS_MAX=300

RETRY_SECS=$RETRY_SECS_MIN

# --- the agent

# The exit status decides. If it is a failure, the agent says why (outcome.sh).
run_agent() {
	local torrent target hash status disk_before="$DISK" progress=plain
	export_machine
	# JSON lines become reports, if there is a server for them.
	[ -z "$OPT_REPORT" ] || progress=json
	# Options first, then TORRENT TARGET pairs.
	set -- get --progress "$progress"
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
	{
		$MOCK "$ROOT/bin/swarmdd" "$@" 2>&1
		echo "$?" >"$ROOT/run/swarmdd/status"
	} | relay_json | say_lines
	status=$(cat "$ROOT/run/swarmdd/status")
	DISK=$(disk_after "$disk_before" "$status")
	[ "$status" -ne 0 ] || return 0
	CONTEXT=$(context)
	[ "$status" -ne 1 ] || AGENT_REPORT=$(cat "$ROOT/run/swarmdd/reports/failed" 2>/dev/null)
	fail "$(agent_failure "$status")"
}

# Sends JSON lines of the agent to the server unchanged, and prints them in short for the consoles,
# as "progress: ...": each change of state, and every REPORT_EVERY-th line between. Prints other
# lines unchanged; the reason of a failure is among them.
relay_json() {
	local line state target name last_state count=0 dir="$ROOT/run/swarmdd/reports"
	# With the lock folder of a sender that was killed.
	rm -rf "$dir"
	mkdir -p "$dir"
	while IFS= read -r line || [ -n "$line" ]; do
		case $line in
		'{"state":"'*) ;;
		*)
			! note_plain_line "$line" || line="progress: $line"
			printf '%s\n' "$line"
			continue
			;;
		esac
		state=$(json_field state "$line")
		target=$(json_field target "$line")
		name=$(printf '%s\n' "$target" | tr -c 'a-zA-Z0-9\n' -)
		note_progress "$target" "$state" "$(json_field have "$line")"
		[ "$state" != failed ] || keep_failed_line "$line"
		last_state=""
		[ ! -e "$dir/$name.state" ] || read -r last_state <"$dir/$name.state"
		count=$((count + 1))
		[ "$state" != "$last_state" ] || [ $((count % REPORT_EVERY)) -eq 0 ] || continue
		echo "$state" >"$dir/$name.state"
		echo "progress: $(progress_line "$target" "$state" "$line")"
		queue_report "$name" "$line"
	done
	# Reports that could not be sent get their last chance.
	wait
	send_reports
}

progress_line() {
	case $2 in
	downloading)
		echo "$1: $2 $(json_field percent "$3") %," \
			"$(megabytes "$(json_field down "$3")") MB/s, $(json_field peers "$3") peers"
		;;
	scanning | verifying) echo "$1: $2 $(json_field percent "$3") %" ;;
	seeding)
		echo "$1: $2 at $(megabytes "$(json_field up "$3")") MB/s," \
			"$(json_field peers "$3") peers"
		;;
	*) echo "$1: $2" ;;
	esac
}

# Arithmetic on anything but digits would end the shell and break the pipe of the agent.
megabytes() {
	case $1 in
	"" | *[!0-9]*) echo 0 ;;
	*) echo $(($1 / 1000000)) ;;
	esac
}

# json_field NAME LINE: a field of a flat object as the agent writes it. A text that contains a
# quote is cut there.
json_field() {
	local value=${2#*\""$1"\":}
	value=${value#\"}
	printf '%s\n' "${value%%[\",\}]*}"
}

# queue_report NAME LINE: replaces the report of this target that was not sent yet, since only the
# latest counts. Sends in the background: a server that drops packets must not stop the agent, which
# blocks when the pipe is full.
queue_report() {
	local file="$ROOT/run/swarmdd/reports/$1"
	printf '%s\n' "$2" >"$file.new"
	mv "$file.new" "$file.json"
	send_reports &
	# The mocked server answers at once. Without this line the next report might come first.
	[ -z "$MOCK" ] || wait "$!"
}

# One sender at a time, so that the server gets the reports in order; `mkdir` is the lock. A second
# sender leaves its report to the first. So the first checks for reports again after it has released
# the lock: after "seeding" there may be no other report for minutes.
send_reports() {
	local file failed="" dir="$ROOT/run/swarmdd/reports"
	while [ -z "$failed" ] && are_there "$dir"/*.json && mkdir "$dir/sending" 2>/dev/null; do
		for file in "$dir"/*.json; do
			[ -e "$file" ] || continue
			mv "$file" "$dir/sending/line"
			post_json "$(cat "$dir/sending/line")" && continue
			# Queued again, unless there is a newer report.
			[ -e "$file" ] || mv "$dir/sending/line" "$file"
			failed=yes
		done
		rm -r "$dir/sending"
	done
}

# are_there FILE...: a pattern without a match stays a pattern, which is no file.
are_there() { [ -e "$1" ]; }

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

# run_script pre|post URL: fetches a script over HTTP and runs it by sh, with SWARMDD_* set (README).
# If it fails, the first line on its standard error is the reason, or else its first line.
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

# send_words: what was said on this machine, and the last messages of its kernel, packed. wget cuts a
# binary file at its first NUL byte, hence base64. A server that does not take it stops nothing.
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

# post_state STATE [ERROR]: a report before or after those of the agent.
post_state() {
	[ -n "${OPT_REPORT-}" ] || return 0
	post_json "$(state_json "$@")" || say "could not report '$1' to $OPT_REPORT"
}

# False if the server does not answer; that never stops a deployment.
post_json() {
	$MOCK timeout "$HTTP_WAIT_SECS" wget -q -O /dev/null --header "Content-Type: application/json" \
		--post-data "$1" "$OPT_REPORT" >/dev/null 2>&1 &&
		printf '%s\n' "$1" >"$ROOT/run/swarmdd/last-report"
}

state_json() {
	printf '{"state":"%s","mac":"%s","hostname":"%s","ip":"%s","nic":"%s"' "$1" \
		"$(json_text "$MAC")" "$(json_text "$MACHINE_NAME")" "$(json_text "$IP")" \
		"$(json_text "$NIC")"
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
	if [ -z "$AGENT_REPORT" ]; then
		post_state failed "$reason"
	# Nothing poorer after it, but it comes last: another pair may have reported since.
	elif [ "$AGENT_REPORT" != "$(cat "$ROOT/run/swarmdd/last-report" 2>/dev/null)" ]; then
		post_json "$AGENT_REPORT" || say "could not report 'failed' to $OPT_REPORT"
	fi
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
