# shellcheck shell=sh disable=SC2015,SC2034,SC2046,SC2086
# outcome.sh: why the agent or a script ended, what the disk holds then, and the frame that says it.

# Sourced by init after net.sh.

# Lines below the reason in the frame: all of them are above it on the console.
CONTEXT_LINES_MAX=8

# What the disks of this machine hold: "untouched"; "maybe" if writing may have begun; "part" of an
# image; the "whole" image. A later attempt that fails before it writes does not change it.
DISK=untouched
PRE_SCRIPT_RAN=no

# --- the reason

# No program prints it.
LAST_LINE=$(printf '\001')

# say_lines: copies standard input to every console. Keeps the line that says why the program ended,
# and the lines below it, for `reason` and `context`.
#
# The first line of the best kind is the reason: "swarmdd: ...: failed: ..." of a pair; "swarmdd:
# ..." of the agent, or of a script on its standard error (run_script marks it); any other line.
# Progress, attempts that are repeated, the hint after a mistake in the options and what `set -x`
# prints are no reason.
#
# LAST_LINE ends it before the end of the input: a script may leave a process in the background that
# keeps its standard output open.
say_lines() {
	local line kind best=0 count=0 file="$ROOT/run/swarmdd/reason"
	: >"$file"
	: >"$file.last"
	while IFS= read -r line || [ -n "$line" ]; do
		case $line in
		"") continue ;;
		"$LAST_LINE") drain; break ;;
		"progress: "*) kind=-1 ;;
		"try '"*"--help'") kind=-1 ;;
		"swarmdd: + "* | "+ "*) kind=0 ;;
		"swarmdd: "*"; trying again"* | "swarmdd: "*": waits: "* | "swarmdd: "*": goes on")
			kind=0
			;;
		"swarmdd: "*": failed: not begun, because of "*) kind=1 ;;
		"swarmdd: "*": failed: "*) kind=3 ;;
		"swarmdd: "*) kind=2 ;;
		*) kind=1 ;;
		esac
		line=${line#progress: }
		line=${line#swarmdd: }
		line=${line#swarmdd: }
		say "$line"
		echo "$line" >"$file.last"
		if [ "$kind" -gt "$best" ]; then
			best=$kind count=0
			printf '%s\n' "$line" >"$file"
		elif [ "$kind" -ge 0 ] && [ "$count" -lt "$CONTEXT_LINES_MAX" ]; then
			count=$((count + 1))
			printf '%s\n' "$line" >>"$file"
		fi
	done
}

# Reads what a process in the background prints later: without a reader its next line would kill it.
# (The standard input of a command with `&` would be empty.)
drain() { { cat <&4 >/dev/null & } 4<&0; }

reason() { sed -n 1p "$ROOT/run/swarmdd/reason"; }
context() { sed 1d "$ROOT/run/swarmdd/reason"; }

# agent_failure STATUS
agent_failure() {
	local line last
	line=$(reason)
	last=$(cat "$ROOT/run/swarmdd/reason.last")
	case $1 in
	# 3: the server could not be told.
	1 | 3) echo "${line:-swarmdd get failed without a message}" ;;
	2) echo "swarmdd did not understand its options: $line" ;;
	137) echo "swarmdd was killed, probably for lack of memory; last message: ${last:-none}" ;;
	*) echo "swarmdd ended with status $1: ${line:-no message}" ;;
	esac
}

# --- the disk

# mark_progress: copies the lines of the agent. Marks those about progress for say_lines, and notes
# for each target what its disk holds.
mark_progress() {
	local line
	while IFS= read -r line || [ -n "$line" ]; do
		! note_progress "$line" || line="progress: $line"
		printf '%s\n' "$line"
	done
}

# note_progress LINE: false if it is no line about progress, such as "sda1 -> /dev/sda1: downloading
# 63.2 %, 632 of 1000 pieces, ...". Pieces that the scan has found count in the first line of a
# download, so only more of them prove that the agent writes.
note_progress() {
	local target=${1##*" -> "} state have disk="" first="" file
	case $1 in
	"swarmdd: "*) return 1 ;;
	*" -> "*": "*) ;;
	*) return 1 ;;
	esac
	state=${target#*": "} target=${target%%": "*}
	have=${state%%" of "*} have=${have##*, }
	file="$ROOT/run/swarmdd/progress/$(printf '%s\n' "$target" | tr -c 'a-zA-Z0-9\n' -)"
	[ ! -e "$file" ] || read -r disk first <"$file"
	case ${state%%[ ,:]*}.$disk in
	reading. | scanning.) disk=untouched ;;
	downloading. | downloading.untouched) disk=maybe first=$have ;;
	downloading.maybe) [ "$have" = "$first" ] || disk=part ;;
	verifying.*) disk=part ;;
	seeding.*) disk=whole ;;
	done.*)
		disk=whole
		# "done: 56.9 GiB on /dev/sda in 8:31 (...", if the target is a selector.
		case $state in
		*" on /dev/"*" in "*) target=/dev/${state#*" on /dev/"} target=${target%%" in "*} ;;
		esac
		echo "$target" >>"$ROOT/run/swarmdd/written"
		;;
	reading.* | scanning.* | downloading.*) ;;
	*) return 1 ;;
	esac
	echo "$disk $first" >"$file"
}

# Prints the paths of the disks that hold their image.
written_disks() {
	local disks
	disks=$(tr '\n' ' ' 2>/dev/null <"$ROOT/run/swarmdd/written")
	echo "${disks% }"
}

# disk_after BEFORE STATUS: prints what the disks hold after a run of the agent.
disk_after() {
	local all="" disk
	[ "$2" -ne 0 ] || { echo whole; return; }
	# 2: it did not understand its options.
	[ "$2" -eq 2 ] || all=$(cut -d ' ' -f 1 "$ROOT/run/swarmdd/progress/"* 2>/dev/null)
	case $2.$all in
	*part* | *whole*) disk=part ;;
	*maybe*) disk=maybe ;;
	2.* | *untouched*) disk=untouched ;;
	*) disk=maybe ;;
	esac
	[ "$(printf '%s\n' "$all" | grep -cx whole)" -lt "$(count_lines "$OPT_TARGETS")" ] || disk=whole
	case $disk.$1 in
	untouched.*) echo "$1" ;;
	maybe.part) echo part ;;
	*) echo "$disk" ;;
	esac
}

disk_sentence() {
	case $DISK in
	untouched)
		echo "The disk was not touched."
		[ "$PRE_SCRIPT_RAN" = no ] || echo "(The swarmdd.pre script may have changed it.)"
		;;
	maybe)
		echo "If writing had begun, the disk holds part of an image:" \
			"deploy again before booting from it."
		;;
	part) echo "The disk holds part of an image: deploy again before booting from it." ;;
	whole) echo "The disk holds the whole image; only what comes after it failed." ;;
	esac
}

# --- the frame

# The reason, in a frame that is found at a glance among many screens. 76 columns: serial consoles
# have 80.
show_failure() {
	local line rule="+--------------------------------------------------------------------------+"
	say "$rule"
	{
		echo "SWARMDD FAILED ON THIS MACHINE"
		echo ""
		echo "${FAILURE:-no reason known}"
		[ -z "$CONTEXT" ] || printf '%s\n' "$CONTEXT"
		# Without a network they are in the reason already.
		[ -z "$NIC" ] || network_problems
		echo ""
		echo "machine ${MAC:-without network card} $MACHINE_NAME $IP"
		disk_sentence
	} | fold -s -w 72 | while IFS= read -r line; do
		say "$(printf '| %-72s |' "$line")"
	done
	say "$rule"
}
