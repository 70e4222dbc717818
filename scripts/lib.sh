# shellcheck shell=sh
# lib.sh: functions that every script here shares. Sourced, never run.
#
# A script says `set -eu`, then  . "$(dirname "$0")/lib.sh"

# The top folder of the repository, from wherever the script is called.
# shellcheck disable=SC2034
TOP=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck disable=SC2034
PROGRAM=$(basename -- "$0")
# Debian keeps depmod, modprobe and the like out of an ordinary user's path.
PATH="$PATH:/usr/sbin:/sbin"

# --- messages

# Progress for a human; stdout stays free for results.
say() { printf '%s: %s\n' "$PROGRAM" "$*" >&2; }

# One sentence, then exit 1.
die() {
	say "$*"
	exit 1
}

# A mistake in how the script was called: exit 2, as the agent does.
usage_error() {
	say "$*"
	say "\`$PROGRAM --help\` lists the options"
	exit 2
}

# The comment at the head of the script is its manual.
usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p;}' "$0"; }

# 1234567 -> "1.18 MiB"; below 1 MiB in KiB.
human_bytes() {
	awk -v n="$1" 'BEGIN {
		if (n < 1048576) printf "%.0f KiB", n / 1024; else printf "%.2f MiB", n / 1048576
	}'
}

# --- files

bytes_of() { stat --dereference --format=%s -- "$1"; }

# need COMMAND:PACKAGE... or /FILE:PACKAGE...: names every missing package at once. It installs
# nothing.
need() {
	local pair missing=""
	for pair in "$@"; do
		is_there "${pair%%:*}" || missing="$missing ${pair#*:}"
	done
	[ -z "$missing" ] || die "missing Debian package(s):$missing"
}

is_there() {
	case $1 in
	/*) [ -e "$1" ] ;;
	*) command -v "$1" >/dev/null ;;
	esac
}

# --- child processes

# A child that has ended stays as a zombie until the script waits for it.
is_running() {
	case $(sed 's/.*) \(.\).*/\1/' "/proc/$1/stat" 2> /dev/null) in
	'' | Z) return 1 ;;
	esac
}

# end_process PID SIGNAL [SECONDS]: sends SIGNAL, waits up to SECONDS (default 5), then kills.
end_process() {
	local tenths=$((${3:-5} * 10))

	kill "-$2" "$1" 2> /dev/null || true
	while is_running "$1" && [ "$tenths" -gt 0 ]; do
		sleep 0.1
		tenths=$((tenths - 1))
	done
	kill -KILL "$1" 2> /dev/null || true
	wait "$1" 2> /dev/null || true
}
