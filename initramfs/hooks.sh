# shellcheck shell=sh disable=SC2034,SC2086
# hooks.sh: what hooks share: where the deployed systems are, and how to change them.
#
# A hook is a script of swarmdd.post that begins with  . "${ROOT-}/lib/swarmdd/hooks.sh"
# and is run with SWARMDD_DISKS and its like set (README, "Hooks"). It may use
#
#   refuse REASON...         end; the machine is failed with this reason
#   partitions [DISK]        print the partitions of the written disks, first one first
#   last_partitions          print the last partition of each written disk
#   holds DEVICE             print what is on it: ext4 (ext2 and ext3, too), xfs, vfat ...
#   for_each_system COMMAND  run COMMAND with each deployed Linux mounted at $SYSTEM
#   write_file PATH          make a file of that Linux from standard input
#   in_system COMMAND...     run a program of that Linux, as if it had been started
#   mount_at MODE DEVICE     mount at $SYSTEM, read-only (ro) or not (rw)
#   unmount                  undo it; done anyway when the hook ends
#   run COMMAND...           run a tool silently; if it fails, what it said is the reason
#
# Every path begins with "$ROOT", and every command that touches a machine begins with $MOCK, as in
# init. (SC2086: an empty $MOCK must vanish, and lists are split. SC2034: hooks use these.)
set -eu
umask 022

ROOT=${ROOT-}
MOCK=${MOCK-}
SYSTEM="$ROOT/run/swarmdd/system"
# The partition that is mounted at $SYSTEM, and what is mounted below it.
DEVICE=""
BOUND=""

trap leave EXIT

# The first line on standard error is the reason that a failed machine shows.
refuse() {
	printf '%s\n' "$*" >&2
	exit 1
}

leave() {
	local status=$?
	trap '' EXIT
	[ -z "$DEVICE" ] || unmount
	exit "$status"
}

# Many tools begin with a line that is only their version.
run() {
	local words
	have "$1"
	words=$($MOCK "$@" 2>&1) ||
		refuse "'$*' failed: $(printf '%s\n' "$words" | sed "/^$1 v\{0,1\}[0-9]/d; /^$/d")"
}

# have PROGRAM: refuses if this initramfs does not have it.
have() {
	command -v "$1" >/dev/null ||
		refuse "there is no $1 in this initramfs; scripts/mkinitramfs --with packs it"
}

# --- partitions

# A target that is a partition, or that has no partition table, stands for itself.
partitions() {
	local disk found
	for disk in ${1:-$SWARMDD_DISKS}; do
		found=$(partitions_of "$(sysfs_name "$disk")")
		echo "${found:-$disk}"
	done
}

last_partitions() {
	local disk
	for disk in $SWARMDD_DISKS; do
		partitions "$disk" | tail -n 1
	done
}

# By where they begin: a logical partition may lie before a primary one.
partitions_of() {
	local file
	for file in "$ROOT/sys/class/block/$1"/*/partition; do
		[ -e "$file" ] || continue
		file=${file%/partition}
		echo "$(cat "$file/start") /dev/${file##*/}"
	done | sort -n | cut -d ' ' -f 2
}

# A disk may be named by a link below /dev/disk.
sysfs_name() { basename "$(readlink -f "$ROOT$1" || echo "$1")"; }

# By their magic numbers, at the offsets where libblkid looks.
holds() {
	case $(bytes_at "$1" 0 11) in
	58465342*) echo xfs; return ;;
	??????4e54465320202020) echo ntfs; return ;;
	4c554b53babe*) echo LUKS; return ;;
	esac
	if [ "$(bytes_at "$1" 1080 2)" = 53ef ]; then echo ext4
	elif [ "$(bytes_at "$1" 82 5)" = 4641543332 ]; then echo vfat
	elif [ "$(bytes_at "$1" 54 4)" = 46415431 ]; then echo vfat
	elif [ "$(bytes_at "$1" 65600 8)" = 5f42485266535f4d ]; then echo btrfs
	elif [ "$(bytes_at "$1" 536 4)" = 4c564d32 ]; then echo LVM
	elif [ "$(bytes_at "$1" 4086 10)" = 53574150535041434532 ]; then echo swap
	else echo "nothing known"
	fi
}

# bytes_at DEVICE OFFSET COUNT: in hexadecimal.
bytes_at() { dd if="$ROOT$1" bs=1 skip="$2" count="$3" 2>/dev/null | xxd -p; }

# --- deployed systems

# On a disk with two systems both are changed.
for_each_system() {
	local device found="" seen=""
	for device in $(partitions); do
		seen="$seen${seen:+, }$device holds $(holds "$device")"
		case $(holds "$device") in ext4 | xfs) ;; *) continue ;; esac
		mount_at ro "$device"
		if is_linux; then
			found=yes
			run mount -o remount,rw "$SYSTEM"
			"$1"
		else
			seen="$seen without a Linux"
		fi
		unmount
	done
	[ -n "$found" ] || refuse "no Linux system is found on what was written: $seen"
}

# A link may be absolute, and then leads to nowhere from here.
is_linux() {
	local name
	[ -d "$SYSTEM/etc" ] || return 1
	for name in etc/os-release usr/lib/os-release sbin/init; do
		{ [ ! -e "$SYSTEM/$name" ] && [ ! -L "$SYSTEM/$name" ]; } || return 0
	done
	return 1
}

mount_at() {
	local type error
	type=$(holds "$2")
	mkdir -p "$SYSTEM"
	$MOCK modprobe -q "$type" 2>/dev/null || true
	grep -qw "$type" "$ROOT/proc/filesystems" ||
		refuse "$2 holds $type, and this initramfs has no driver for it;" \
			"scripts/mkinitramfs --with packs it"
	error=$($MOCK mount -t "$type" -o "$1" "$2" "$SYSTEM" 2>&1) ||
		refuse "$2 cannot be mounted: ${error#mount: }"
	DEVICE=$2
}

unmount() {
	local dir
	for dir in $BOUND $SYSTEM; do
		DEVICE="" BOUND=""
		run umount "$dir"
	done
}

# A file that is there is written in place, so that its owner, mode and SELinux label stay. A link
# is replaced: an absolute one would lead into the initramfs.
write_file() {
	local error
	[ ! -L "$SYSTEM/$1" ] || rm "$SYSTEM/$1"
	error=$({ cat >"$SYSTEM/$1"; } 2>&1) || refuse "cannot write /$1 on $DEVICE: $error"
}

in_system() {
	local dir
	for dir in dev proc sys; do
		case " $BOUND " in *" $SYSTEM/$dir "*) continue ;; esac
		run mount -o bind "$ROOT/$dir" "$SYSTEM/$dir"
		BOUND="$SYSTEM/$dir $BOUND"
	done
	run chroot "$SYSTEM" "$@"
}

# Waits until the kernel has enough randomness; /proc/sys/kernel/random/uuid does not wait.
wait_for_randomness() { head -c 1 "$ROOT/dev/random" >/dev/null; }
