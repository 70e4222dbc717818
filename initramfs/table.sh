# shellcheck shell=sh disable=SC2015,SC2034,SC2046,SC2086
# table.sh: the partition table of a disk whose partitions are fetched one by one.

# Sourced by init after deploy.sh. A target SELECTOR#N is partition N of the disk that SELECTOR
# selects. With swarmdd.table=URL, the server says what table that disk gets first: a plan (made by
# scripts/room/shelf.py), with the code of the boot sector and what lies behind it, if there are
# any, as `boot-code` and `hidden` beside it. If the last part of URL is a SHA-256, the plan has it.
#
#   swarmdd-table 1
#   label gpt|dos
#   sector-bytes N
#   boot-code-sha256 HEX     or -
#   hidden-sha256 HEX        or -
#   grows N...               partitions that share what the disk has more
#   swap N UUID|- LABEL
#   script                   for sfdisk, until the end
#
# All that can refuse the disk comes before the first write. Everything can be done twice: after a
# power cut it begins again, and leaves a table alone that is there.

# How long the kernel may take to show new partitions.
PARTITIONS_WAIT_SECS=20

# make_table: makes the table, and replaces each target SELECTOR#N by the path of the partition.
make_table() {
	local selector
	case $OPT_TARGETS in
	*#[0-9]*) ;;
	*)
		[ -z "$OPT_TABLE" ] || fail "swarmdd.table needs targets such as disk:auto#1"
		return
		;;
	esac
	selector=$(printf '%s\n' "$OPT_TARGETS" | sed 's/#[0-9]*$//' | sort -u)
	if [ -z "$OPT_TABLE" ]; then
		name_partitions
		return
	fi
	case $(count_lines "$selector") in
	1) ;;
	*) fail "swarmdd.table is for one disk, and the targets name several"; return ;;
	esac
	TABLE="$ROOT/run/swarmdd/table"
	rm -rf "$TABLE"
	mkdir "$TABLE"
	fetch_plan && find_disk "$selector" && check_disk && write_table && write_beside &&
		write_swaps && name_partitions
}

# --- the plan

fetch_plan() {
	local wanted name
	fetch_checked "$OPT_TABLE" plan "${OPT_TABLE##*/}" || return 1
	[ "$(head -n 1 "$TABLE/plan")" = "swarmdd-table 1" ] ||
		fail "what $OPT_TABLE sends is no partition table for this initramfs" || return 1
	sed '1,/^script$/d' "$TABLE/plan" >"$TABLE/script"
	for name in boot-code hidden; do
		wanted=$(of_plan "$name-sha256")
		[ "${wanted:--}" = - ] || fetch_checked "${OPT_TABLE%/*}/$name" "$name" "$wanted" ||
			return 1
	done
}

# fetch_checked URL NAME SHA256: a connection that ends early must not end in half a boot sector.
fetch_checked() {
	local error found
	error=$($MOCK timeout "$HTTP_WAIT_SECS" wget -q -O "$TABLE/$2" "$1" 2>&1) || {
		[ -n "$error" ] || error="no answer in $HTTP_WAIT_SECS s"
		fail "cannot fetch the partition table from $1: ${error#wget: }"
		return 1
	}
	[ ${#3} -eq 64 ] || return 0
	found=$(sha256sum <"$TABLE/$2")
	[ "${found%% *}" = "$3" ] || fail "$1 sends something else than it should (SHA-256)"
}

of_plan() { sed -n "/^script\$/q; s/^$1 //p" "$TABLE/plan"; }

# --- the disk

# find_disk SELECTOR: sets DISK_PATH, DISK_NAME. The agent selects and refuses as it will for the
# image itself.
find_disk() {
	local answer
	answer=$($MOCK "$ROOT/bin/swarmdd" disks "$1" 2>&1) || {
		CONTEXT=$(printf '%s\n' "$answer" | sed 1d)
		fail "$(printf '%s\n' "$answer" | sed -n '1s/^swarmdd: //p')"
		return 1
	}
	DISK_PATH=$(printf '%s\n' "$answer" | sed -n 1p)
	DISK_NAME=$(readlink -f "$ROOT$DISK_PATH")
	DISK_NAME=${DISK_NAME##*/}
	[ -e "$ROOT/sys/class/block/$DISK_NAME/size" ] &&
		[ ! -e "$ROOT/sys/class/block/$DISK_NAME/partition" ] ||
		fail "$DISK_PATH is no disk, and cannot get a partition table"
}

# Sectors of 512 bytes, as the kernel counts.
disk_size() { cat "$ROOT/sys/class/block/$DISK_NAME/size"; }

check_disk() {
	local sector_bytes wanted sectors end
	[ -x "$ROOT/sbin/sfdisk" ] && [ -x "$ROOT/sbin/mkswap" ] ||
		fail "there is no sfdisk or no mkswap in this initramfs;" \
			"scripts/mkinitramfs --with clonezilla packs them" || return 1
	wanted=$(of_plan sector-bytes)
	sector_bytes=$(cat "$ROOT/sys/class/block/$DISK_NAME/queue/logical_block_size")
	[ "$sector_bytes" = "$wanted" ] ||
		fail "target $DISK_PATH has sectors of $sector_bytes bytes, the image was made on a" \
			"disk with sectors of $wanted" || return 1
	sectors=$(($(disk_size) / (sector_bytes / 512)))
	fit_script "$sectors" <"$TABLE/script" >"$TABLE/wanted"
	end=$(table_lines <"$TABLE/wanted" | awk -F '|' '$2 + $3 > end { end = $2 + $3 }
		END { printf "%.0f", end }')
	# The copy of a GPT at the end of the disk: 128 entries of 128 bytes, and the header.
	[ "$(of_plan label)" != gpt ] || end=$((end + 16384 / sector_bytes + 1))
	[ "$end" -le "$sectors" ] ||
		fail "target $DISK_PATH has $((sectors * sector_bytes)) bytes, and the partitions of the" \
			"image '$(of_plan image)' need $((end * sector_bytes))"
}

# fit_script SECTORS: the script for a disk of this size: the partitions of `grows` share what is
# left at its end, in proportion to their sizes, and those behind them move, all by whole MiB.
fit_script() {
	awk -v grows=" $(of_plan grows) " -v sectors="$1" -v label="$(of_plan label)" \
		-v mib="$((1048576 / $(of_plan sector-bytes)))" '
		function number_of(line) { sub(/ *:.*/, "", line); sub(/.*[^0-9]/, "", line); return line }
		function value(line, key) {
			sub(".*" key "= *", "", line); sub(/[^0-9].*/, "", line); return line + 0
		}
		{ lines[NR] = $0 }
		/ : *start=/ {
			start[NR] = value($0, "start"); size[NR] = value($0, "size")
			if (start[NR] + size[NR] > end) end = start[NR] + size[NR]
			if (index(grows, " " number_of($0) " ")) { grow[NR] = 1; sum += size[NR] }
		}
		END {
			# An MBR counts in 32 bits.
			if (label == "dos" && sectors > 4294967295) sectors = 4294967295
			more = sectors - end - (label == "gpt" ? mib : 0)
			for (i in grow) if (more > 0) added[i] = int(more * size[i] / sum / mib) * mib
			for (n = 1; n <= NR; n++) {
				if (!(n in start)) { print lines[n]; continue }
				shift_by = 0
				for (i in added) if (start[i] < start[n]) shift_by += added[i]
				sub(/start= *[0-9]+/, sprintf("start=%.0f", start[n] + shift_by), lines[n])
				sub(/size= *[0-9]+/, sprintf("size=%.0f", size[n] + added[n]), lines[n])
				print lines[n]
			}
		}'
}

# table_lines: what counts of a script or a dump of sfdisk: label and label-id, and for each
# partition NUMBER|START|SIZE|TYPE and the rest.
table_lines() {
	awk '
		/^label(-id)?:/ { print toupper($0) }
		/ : *start=/ {
			number = $0; sub(/ *:.*/, "", number); sub(/.*[^0-9]/, "", number)
			rest = $0; sub(/^[^:]*: */, "", rest); gsub(/ *= */, "=", rest)
			start = size = type = rest
			sub(/.*start=/, "", start); sub(/,.*/, "", start)
			sub(/.*size=/, "", size); sub(/,.*/, "", size)
			sub(/.*type=/, "", type); sub(/,.*/, "", type)
			sub(/.*type=[^,]*,? */, "", rest)
			print number "|" start "|" size "|" toupper(type) "|" rest
		}' | sort
}

# --- writing

write_table() {
	local error
	if has_table; then
		say "$DISK_PATH has this partition table already"
	else
		say "writing a partition table on $DISK_PATH"
		DISK=part
		# Without their old signatures, nothing takes a new partition for what was there before.
		error=$($MOCK "$ROOT/sbin/sfdisk" --quiet --wipe always --wipe-partitions always \
			"$ROOT$DISK_PATH" <"$TABLE/wanted" 2>&1) ||
			fail "no partition table on $DISK_PATH: $(printf '%s\n' "$error" | tail -n 1)" ||
			return 1
		has_table || fail "$DISK_PATH did not keep its new partition table" || return 1
	fi
	wait_until "$PARTITIONS_WAIT_SECS" kernel_knows status_partitions ||
		fail "the kernel does not see the new partition table of $DISK_PATH"
}

# Of a GPT that is damaged sfdisk dumps the copy at the end of the disk, which firmware need not
# read, and warns. It does not warn of a good GPT, but of an MBR on a disk of more than 2 TiB.
has_table() {
	$MOCK "$ROOT/sbin/sfdisk" --dump "$ROOT$DISK_PATH" 2>"$TABLE/warnings" | table_lines \
		>"$TABLE/found"
	table_lines <"$TABLE/wanted" >"$TABLE/expected"
	[ ! -s "$TABLE/warnings" ] || [ "$(of_plan label)" != gpt ] || return 1
	[ "$(cat "$TABLE/found")" = "$(cat "$TABLE/expected")" ]
}

status_partitions() { echo "the partitions of $DISK_PATH"; }

# Or a partition would be written where an old table said that it is.
kernel_knows() {
	local number start rest dir factor
	factor=$(($(of_plan sector-bytes) / 512))
	while IFS='|' read -r number start rest; do
		case $number in [0-9]*) ;; *) continue ;; esac
		dir=$(partition_dir "$DISK_NAME" "$number")
		[ -n "$dir" ] && [ "$(cat "$dir/start")" = $((start * factor)) ] &&
			[ -e "$ROOT/dev/${dir##*/}" ] || return 1
	done <"$TABLE/expected"
}

# partition_dir DISK NUMBER: its folder in sysfs.
partition_dir() {
	local file
	for file in "$ROOT/sys/class/block/$1"/*/partition; do
		[ "$(cat "$file" 2>/dev/null)" != "$2" ] || { echo "${file%/partition}"; return; }
	done
}

# The boot code up to the signature of the disk, which sfdisk has written; and what lies behind the
# first sector.
write_beside() {
	write_at boot-code bs=446 count=1 && write_at hidden bs=512 seek=1
}

# write_at NAME DD-OPTION...
write_at() {
	local file="$TABLE/$1" error
	[ -e "$file" ] || return 0
	shift
	DISK=part
	error=$($MOCK dd if="$file" of="$ROOT$DISK_PATH" conv=notrunc,fsync "$@" 2>&1) ||
		fail "cannot write ${file##*/} on $DISK_PATH: $(printf '%s\n' "$error" | tail -n 1)"
}

write_swaps() {
	local number uuid label dir error
	of_plan swap >"$TABLE/swaps"
	while read -r number uuid label; do
		dir=$(partition_dir "$DISK_NAME" "$number")
		DISK=part
		set --
		[ "$uuid" = - ] || set -- -U "$uuid"
		[ -z "$label" ] || set -- "$@" -L "$label"
		error=$($MOCK "$ROOT/sbin/mkswap" "$@" "$ROOT/dev/${dir##*/}" 2>&1) ||
			fail "no swap on /dev/${dir##*/}: $(printf '%s\n' "$error" | tail -n 1)" ||
			return 1
	done <"$TABLE/swaps"
}

# --- the targets

# Each SELECTOR#N becomes the path of its partition.
name_partitions() {
	local target targets="" dir
	printf '%s\n' "$OPT_TARGETS" >"$ROOT/run/swarmdd/targets"
	while IFS= read -r target; do
		case $target in
		*#[0-9]*)
			[ -n "$OPT_TABLE" ] || find_disk "${target%#*}" || return 1
			dir=$(partition_dir "$DISK_NAME" "${target##*#}")
			[ -n "$dir" ] || fail "$DISK_PATH has no partition ${target##*#}" || return 1
			target=/dev/${dir##*/}
			;;
		esac
		targets=$(append_line "$targets" "$target")
	done <"$ROOT/run/swarmdd/targets"
	OPT_TARGETS=$targets
}
