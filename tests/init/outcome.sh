# shellcheck shell=sh disable=SC2016
# outcome.sh: cases about the reason of a failure and about what the disk holds. Sourced by
# run.

# fails STATUS LINE...: boots a machine whose agent ends like this.
fails() {
	good_network
	agent "$@"
	boot "$MINIMAL swarmdd.onfail=poweroff swarmdd.report=http://10.77.0.1/r"
}

# --- the reason

case_reason_is_the_sentence_and_not_the_table_below_it() {
	fails 1 "swarmdd: a -> disk:auto: failed: target disk:auto fits 2 disks:" \
		"  /dev/vda  274.9 GB  -  virtio  fits" "  /dev/vdb  1.0 TB  -  virtio  fits"
	framed "ON THIS MACHINE a -> disk:auto: failed: target disk:auto fits 2 disks: /dev/vda 274.9 GB"
	framed "/dev/vdb 1.0 TB - virtio fits machine"
}

case_reason_is_not_an_attempt_that_is_repeated() {
	fails 1 "swarmdd: no connection to 10.77.0.1:80; trying again in 1 s" \
		"a -> /dev/vda: reading the torrent" "swarmdd: the memory is too small" "use more"
	framed "ON THIS MACHINE the memory is too small use more machine"
}

case_reason_is_the_failure_and_not_what_comes_before_or_after_it() {
	fails 1 "swarmdd: piece 7 is written anew: cannot read /dev/vda at byte 4096" \
		"a -> /dev/vda: downloading 1.0 %, 1 of 9 pieces, 0 B/s" \
		"swarmdd: a -> /dev/vda: failed: cannot write /dev/vda at byte 512: No space left" \
		"swarmdd: the tracker did not hear of it"
	framed "ON THIS MACHINE a -> /dev/vda: failed: cannot write /dev/vda at byte 512: No space left"
	framed "No space left the tracker did not hear of it machine"
}

case_reason_is_that_of_the_pair_that_failed_first() {
	fails 1 "swarmdd: a -> /dev/vda: failed: not begun, because of b -> /dev/vdb" \
		"swarmdd: b -> /dev/vdb: failed: target /dev/vdb is in use: mounted" \
		"swarmdd: c -> /dev/vdc: failed: not begun, because of b -> /dev/vdb"
	framed "ON THIS MACHINE b -> /dev/vdb: failed: target /dev/vdb is in use: mounted c -> /dev/vdc"
}

case_reason_of_a_usage_error_is_its_first_line() {
	fails 2 "swarmdd: get: no option --nope" "there is --no-verify" "try 'swarmdd get --help'"
	framed "swarmdd did not understand its options: get: no option --nope there is --no-verify machine"
}

case_reason_of_a_crash_is_its_first_line() {
	fails 101 "thread 'main' panicked at src/net.rs:7:" "assertion failed"
	framed "swarmdd ended with status 101: thread 'main' panicked at src/net.rs:7: assertion failed"
}

case_reason_is_not_what_was_waited_for() {
	fails 101 "swarmdd: a -> /dev/vda: waits: no peer" "swarmdd: a -> /dev/vda: goes on" \
		"thread 'main' panicked at src/net.rs:7:"
	framed "ended with status 101: thread 'main' panicked at src/net.rs:7: machine"
}

case_reason_keeps_few_lines_below_it() {
	fails 1 "swarmdd: no" 1 2 3 4 5 6 7 8 9
	framed "ON THIS MACHINE no 1 2 3 4 5 6 7 8 machine"
	said "swarmdd: 9"
}

# pre SCRIPT: boots with this pre script, which fails.
pre() {
	good_network
	printf '%s\n' "$1" >"$ROOT/www/pre.sh"
	boot "$MINIMAL swarmdd.pre=http://10.77.0.1/pre.sh swarmdd.onfail=poweroff"
}

case_reason_of_a_script_is_the_first_line_of_its_standard_error() {
	pre 'echo "looking at disks"; echo "no disk of 1 TB" >&2; echo "call Bob" >&2; exit 3'
	framed "ended with status 3: no disk of 1 TB"
	framed "call Bob"
	said "swarmdd: looking at disks"
}

case_reason_of_a_script_is_not_its_trace() {
	pre 'set -x; true; echo "no disk of 1 TB" >&2; exit 3'
	framed "ended with status 3: no disk of 1 TB"
}

case_reason_of_a_script_without_errors_is_its_first_line() {
	pre 'echo "no disk of 1 TB"; echo "call Bob"; exit 1'
	framed "ended with status 1: no disk of 1 TB call Bob"
}

case_reason_of_a_silent_script_is_its_status() {
	pre 'exit 7'
	framed "ended with status 7: no message"
}

case_reason_of_a_missing_script_is_that_of_the_server() {
	good_network
	echo "wget: server returned error: HTTP/1.1 404 Not Found" >"$ROOT/wget-error"
	boot "$MINIMAL swarmdd.post=http://10.77.0.1/post.sh swarmdd.onfail=poweroff"
	framed "cannot fetch the swarmdd.post script from http://10.77.0.1/post.sh: server returned \
error: HTTP/1.1 404 Not Found"
	framed "The disk holds the whole image; only what comes after it failed."
}

# --- the disk

PART="The disk holds part of an image: deploy again before booting from it."
MAYBE="If writing had begun, the disk holds part of an image: deploy again before booting from it."
UNTOUCHED="10.77.0.5 The disk was not touched."
WHOLE="The disk holds the whole image; only what comes after it failed."

# says_disk SENTENCE STATUS LINE...: the frame ends so after such an agent.
says_disk() {
	local sentence="$1"
	shift
	rm -rf "$ROOT/run" "$ROOT/commands" "$ROOT/agent"* "$ROOT/sys/class/net/eth0"
	: >"$ROOT/dev/ttyS0"
	fails "$@"
	framed "$sentence"
}

case_disk_is_untouched_before_the_download() {
	says_disk "$UNTOUCHED" 2 "swarmdd: get: no option --nope"
	says_disk "$UNTOUCHED" 1 "a -> disk:auto: reading the torrent" \
		"swarmdd: a -> disk:auto: failed: fits no disk" "swarmdd: no"
	says_disk "$UNTOUCHED" 1 "a -> disk:auto: reading the torrent" \
		"a -> /dev/vda: scanning 7.0 %, 7 of 9 pieces, 0 B/s" \
		"swarmdd: a -> /dev/vda: failed: no" "swarmdd: no"
	says_disk "$UNTOUCHED" 1 "a -> disk:auto: reading the torrent" \
		"a -> /dev/vda: scanning 7.0 %, 7 of 9 pieces" \
		"swarmdd: a -> /dev/vda: failed: interrupted; 7 of 9 pieces are on the target"
}

case_disk_may_be_written_while_no_piece_has_come() {
	says_disk "$MAYBE" 137
	says_disk "$MAYBE" 1 "a -> /dev/vda: scanning 7.0 %, 7 of 9 pieces, 0 B/s" \
		"a -> /dev/vda: downloading 1.0 %, 7 of 9 pieces, 0 B/s" \
		"a -> /dev/vda: downloading 1.0 %, 7 of 9 pieces, 0 B/s" "swarmdd: no"
	says_disk "$MAYBE" 1 "a -> /dev/vda: downloading 0.0 %, 0 of 9 pieces, down 0 B/s" "swarmdd: no"
}

case_disk_holds_a_part_once_pieces_have_come() {
	says_disk "$PART" 1 "a -> /dev/vda: downloading 1.0 %, 7 of 9 pieces, 0 B/s" \
		"a -> /dev/vda: downloading 1.0 %, 8 of 9 pieces, 0 B/s" "swarmdd: no"
	says_disk "$PART" 1 "a -> /dev/vda: verifying 1.0 %, 9 of 9 pieces, 0 B/s" "swarmdd: no"
	says_disk "$PART" 1 "a: b -> /dev/vda: downloading 0.0 %, 0 of 9 pieces, down 0 B/s" \
		"a: b -> /dev/vda: downloading 0.0 %, 1 of 9 pieces, down 0 B/s" "swarmdd: no"
}

case_disk_holds_the_whole_image_while_seeding() {
	says_disk "$WHOLE" 137 "a -> disk:auto: reading the torrent" \
		"a -> /dev/vda: seeding, up 0 B/s, 0 peers"
	says_disk "$WHOLE" 3 "a -> /dev/vda: done: 1 B in 0:05" "swarmdd: no"
}

case_disk_holds_the_whole_image_when_the_post_script_fails() {
	good_network
	echo 'echo "no boot loader"; exit 1' >"$ROOT/www/post.sh"
	boot "$MINIMAL swarmdd.post=http://10.77.0.1/post.sh swarmdd.onfail=poweroff"
	framed "ended with status 1: no boot loader machine"
	framed "$WHOLE"
}

case_disk_may_be_changed_by_the_pre_script() {
	pre 'exit 1'
	framed "The disk was not touched. (The swarmdd.pre script may have changed it.)"
}

# A later attempt that fails before it writes does not make the disk whole again.
case_disk_stays_a_part_when_the_next_attempt_does_not_begin() {
	good_network
	agent 1 "a -> /dev/vda: downloading 1.0 %, 7 of 9 pieces, 0 B/s" \
		"a -> /dev/vda: downloading 1.0 %, 8 of 9 pieces, 0 B/s" "swarmdd: cut off"
	agent 1 "a -> /dev/vda: reading the torrent" "swarmdd: the server is gone"
	agent 0
	boot "$MINIMAL swarmdd.onfail=retry swarmdd.report=http://10.77.0.1/r"
	framed "the server is gone machine 52:54:00:00:00:01 swarmdd-525400000001 10.77.0.5 $PART"
}

case_disk_stays_a_part_when_the_network_is_gone() {
	good_network
	agent 1 "a -> /dev/vda: verifying 1.0 %, 7 of 9 pieces, 0 B/s" "swarmdd: cut off"
	echo 'rm "$ROOT/sys/block/vda" "$ROOT/dev/vda" -r' >"$ROOT/at-the-agent"
	boot "$MINIMAL swarmdd.onfail=retry"
	framed "there is no /dev/vda here after 60 s"
	! grep -q "not touched" "$ROOT/dev/ttyS0" || complain "says that the disk was not touched"
}
