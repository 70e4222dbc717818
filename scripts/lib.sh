# shellcheck shell=sh
# lib.sh: the few words every script here shares. Sourced, never run.
#
# A script says `set -eu`, then  . "$(dirname "$0")/lib.sh"

# Where the repository is, whoever calls from wherever.
# shellcheck disable=SC2034
TOP=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck disable=SC2034
PROGRAM=$(basename -- "$0")

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

# The leading comment of the script is its manual.
usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p;}' "$0"; }

# need COMMAND:PACKAGE... or /FILE:PACKAGE...: names every missing package at once. Nothing here
# installs anything.
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

# Debian keeps depmod, modprobe and the like out of an ordinary user's path.
PATH="$PATH:/usr/sbin:/sbin"

bytes_of() { stat --dereference --format=%s -- "$1"; }

# 1234567 -> "1.18 MiB"; below 1 MiB in KiB.
human_bytes() {
	awk -v n="$1" 'BEGIN { if (n < 1048576) printf "%.0f KiB", n / 1024; else printf "%.2f MiB", n / 1048576 }'
}
