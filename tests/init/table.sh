# shellcheck shell=sh disable=SC2016
# table.sh: cases of the partition table that a disk gets before its partitions. Sourced by run.
# sfdisk and mkswap are the real ones, on a file.

URL=http://10.77.0.1/table
DISK_TARGETS="swarmdd.torrent=http://s/1 swarmdd.target=disk:auto#1 \
swarmdd.torrent=http://s/2 swarmdd.target=disk:auto#2 swarmdd.onfail=poweroff"
ESP=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
LINUX=0FC63DAF-8483-4772-8E79-3D69D8477DE4
SWAP=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F
SWAP_UUID=0d6e9a9c-7d57-4b4e-a8f9-b9e4b3c0b6a1

# disk_of MIB: vda, which is the disk that the agent selects.
disk_of() {
	truncate --size "${1}M" "$ROOT/dev/vda"
	mkdir -p "$ROOT/sys/class/block/vda/queue" "$ROOT/sbin"
	echo 512 >"$ROOT/sys/class/block/vda/queue/logical_block_size"
	echo "$(($1 * 2048))" >"$ROOT/sys/class/block/vda/size"
	printf '%s\n' 0 /dev/vda >"$ROOT/which-disk"
	touch "$ROOT/sbin/sfdisk" "$ROOT/sbin/mkswap"
	chmod 755 "$ROOT/sbin/sfdisk" "$ROOT/sbin/mkswap"
}

# gpt_plan [GROWS]: an EFI partition, a Linux, and swap; from 1 to 40 MiB.
gpt_plan() {
	cat >"$ROOT/www/table" <<-END
		swarmdd-table 1
		image lab
		label gpt
		sector-bytes 512
		boot-code-sha256 -
		hidden-sha256 -
		grows ${1-}
		swap 3 $SWAP_UUID a label
		script
		label: gpt
		label-id: 4A2A5F9C-8E1D-4A65-8C6C-1C2D3E4F5A6B
		unit: sectors

		/dev/disk-1 : start=2048, size=20480, type=$ESP, \
uuid=11111111-2222-4333-8444-555555555555, name="EFI", attrs="LegacyBIOSBootable"
		/dev/disk-2 : start=22528, size=40960, type=$LINUX, \
uuid=22222222-2222-4333-8444-555555555555
		/dev/disk-3 : start=63488, size=18432, type=$SWAP, \
uuid=33333333-2222-4333-8444-555555555555
	END
}

dumped() { /sbin/sfdisk --dump "$ROOT/dev/vda" | tr -s ' '; }

# dumps TEXT: in the table that the disk has.
dumps() { dumped | grep -q -F -e "$1" || complain "no '$1' in: $(dumped)"; }

case_table_is_made_before_the_partitions_are_fetched() {
	good_network
	disk_of 96
	gpt_plan
	boot "$DISK_TARGETS swarmdd.table=$URL"
	ran_before "sfdisk --quiet" "mkswap"
	ran_before "mkswap" "swarmdd get"
	ran "swarmdd disks disk:auto\$"
	ran "swarmdd get --progress plain http://s/1 /dev/vda1 http://s/2 /dev/vda2\$"
	dumps "vda1 : start= 2048, size= 20480, type=$ESP, \
uuid=11111111-2222-4333-8444-555555555555, name=\"EFI\", attrs=\"LegacyBIOSBootable\""
	dumps "last-lba: 196574"
	blkid --probe --output export "$ROOT/dev/vda3" >"$ROOT/swap"
	grep -qx "UUID=$SWAP_UUID" "$ROOT/swap" || complain "swap: $(cat "$ROOT/swap")"
	grep -qx 'LABEL=a\\\? label' "$ROOT/swap" || complain "swap: $(cat "$ROOT/swap")"
}

case_table_that_is_there_is_left_alone() {
	good_network
	disk_of 96
	gpt_plan
	agent 1 "swarmdd: no peers"
	boot "$DISK_TARGETS swarmdd.table=$URL swarmdd.onfail=retry"
	ran_times 1 "sfdisk --quiet"
	ran_times 2 "swarmdd get"
	said "has this partition table already"
}

# break_sector NUMBER
break_sector() {
	dd if=/dev/zero of="$ROOT/dev/vda" bs=512 seek="$1" count=1 conv=notrunc 2>/dev/null
}

case_table_whose_first_copy_is_damaged_is_written_again() {
	local sector
	good_network
	disk_of 96
	gpt_plan
	boot "$DISK_TARGETS swarmdd.table=$URL"
	# The header, an entry, and the header of the copy.
	for sector in 1 2 $((96 * 2048 - 1)); do
		break_sector "$sector"
		rm "$ROOT/commands"
		boot "$DISK_TARGETS swarmdd.table=$URL"
		ran_times 1 "sfdisk --quiet"
		ran "swarmdd get"
		[ -z "$(/sbin/sfdisk --dump "$ROOT/dev/vda" 2>&1 >/dev/null)" ] ||
			complain "sector $sector is still damaged"
	done
	rm "$ROOT/commands"
	boot "$DISK_TARGETS swarmdd.table=$URL"
	not_ran "sfdisk --quiet"
}

case_table_mbr_of_a_large_disk_is_left_alone() {
	good_network
	disk_of $((3 << 20))
	cat >"$ROOT/www/table" <<-END
		swarmdd-table 1
		label dos
		sector-bytes 512
		grows
		script
		label: dos
		label-id: 0x42424242
		unit: sectors

		/dev/disk-1 : start=2048, size=20480, type=7, bootable
		/dev/disk-2 : start=22528, size=40960, type=83
	END
	boot "$DISK_TARGETS swarmdd.table=$URL"
	[ -n "$(/sbin/sfdisk --dump "$ROOT/dev/vda" 2>&1 >/dev/null)" ] ||
		complain "sfdisk does not warn of it any more"
	rm "$ROOT/commands"
	boot "$DISK_TARGETS swarmdd.table=$URL"
	ran "swarmdd get"
	not_ran "sfdisk --quiet"
}

case_table_of_another_image_is_replaced() {
	good_network
	disk_of 96
	gpt_plan
	printf 'label: dos\nstart=4096, size=4096\n' | /sbin/sfdisk -q "$ROOT/dev/vda"
	boot "$DISK_TARGETS swarmdd.table=$URL"
	dumps "label: gpt"
}

case_table_stretches_what_may_grow() {
	good_network
	disk_of 96
	gpt_plan 2
	boot "$DISK_TARGETS swarmdd.table=$URL"
	# 96 MiB without the last one for the copy of the GPT, less the 40 that the image has.
	dumps "vda1 : start= 2048, size= 20480,"
	dumps "vda2 : start= 22528, size= $((40960 + 55 * 2048)),"
	dumps "vda3 : start= $((63488 + 55 * 2048)), size= 18432,"
}

case_table_that_does_not_fit_is_refused_with_the_sizes() {
	good_network
	disk_of 40
	gpt_plan 2
	boot "$DISK_TARGETS swarmdd.table=$URL"
	framed "target /dev/vda has 41943040 bytes, and the partitions of the image 'lab' need 41959936"
	framed "The disk was not touched."
	not_ran "sfdisk --quiet"
	not_ran "swarmdd get"
}

case_table_fits_to_the_last_sector() {
	good_network
	disk_of 40
	echo $((40 * 2048 + 33)) >"$ROOT/sys/class/block/vda/size"
	truncate --size $(((40 * 2048 + 33) * 512)) "$ROOT/dev/vda"
	gpt_plan 2
	boot "$DISK_TARGETS swarmdd.table=$URL"
	ran "swarmdd get"
}

case_table_for_other_sectors_is_refused() {
	good_network
	disk_of 96
	gpt_plan
	echo 4096 >"$ROOT/sys/class/block/vda/queue/logical_block_size"
	boot "$DISK_TARGETS swarmdd.table=$URL"
	framed "has sectors of 4096 bytes, the image was made on a disk with sectors of 512"
	not_ran "sfdisk --quiet"
}

case_table_needs_the_disk_that_the_agent_selects() {
	good_network
	disk_of 96
	gpt_plan
	printf '%s\n' 1 "swarmdd: target disk:auto fits 2 disks" "  /dev/vda" >"$ROOT/which-disk"
	boot "$DISK_TARGETS swarmdd.table=$URL"
	framed "target disk:auto fits 2 disks"
	not_ran sfdisk
}

case_table_is_not_for_a_partition() {
	good_network
	disk_of 96
	gpt_plan
	echo 1 >"$ROOT/sys/class/block/vda/partition"
	boot "$DISK_TARGETS swarmdd.table=$URL"
	framed "/dev/vda is no disk, and cannot get a partition table"
	not_ran sfdisk
}

case_table_needs_its_programs() {
	good_network
	disk_of 96
	gpt_plan
	rm "$ROOT/sbin/mkswap"
	boot "$DISK_TARGETS swarmdd.table=$URL"
	framed "mkinitramfs --with clonezilla"
	not_ran sfdisk
}

case_table_must_be_what_its_address_says() {
	good_network
	disk_of 96
	gpt_plan
	sum=$(sha256sum <"$ROOT/www/table")
	cp "$ROOT/www/table" "$ROOT/www/${sum%% *}"
	boot "$DISK_TARGETS swarmdd.table=http://s/${sum%% *}"
	ran "swarmdd get"
	rm "$ROOT/commands"
	sed '$d' "$ROOT/www/table" >"$ROOT/www/${sum%% *}"
	boot "$DISK_TARGETS swarmdd.table=http://s/${sum%% *}"
	framed "sends something else than it should (SHA-256)"
	not_ran sfdisk
}

case_table_mbr_with_boot_code_and_hidden_data() {
	local sum
	good_network
	disk_of 64
	head -c 446 /dev/zero | tr '\0' B >"$ROOT/www/boot-code"
	head -c 1048064 /dev/zero | tr '\0' H >"$ROOT/www/hidden"
	cat >"$ROOT/www/table" <<-END
		swarmdd-table 1
		image xp
		label dos
		sector-bytes 512
		boot-code-sha256 $(sha256sum <"$ROOT/www/boot-code" | cut -c 1-64)
		hidden-sha256 $(sha256sum <"$ROOT/www/hidden" | cut -c 1-64)
		grows
		script
		label: dos
		label-id: 0x42424242
		unit: sectors

		/dev/disk-1 : start=2048, size=20480, type=7, bootable
		/dev/disk-2 : start=22528, size=40960, type=5
		/dev/disk-5 : start=24576, size=38912, type=83
	END
	boot "swarmdd.torrent=http://s/1 swarmdd.target=/dev/vda#1 \
swarmdd.torrent=http://s/5 swarmdd.target=/dev/vda#5 swarmdd.table=$URL swarmdd.onfail=poweroff"
	ran "swarmdd get --progress plain http://s/1 /dev/vda1 http://s/5 /dev/vda5\$"
	dumps "label-id: 0x42424242"
	dumps "vda1 : start= 2048, size= 20480, type=7, bootable"
	dumps "vda5 : start= 24576, size= 38912, type=83"
	sum=$(head -c 1048576 "$ROOT/dev/vda" | tr -d '\0' | tr -s BH)
	case $sum in B*H) ;; *) complain "the first MiB holds $sum" ;; esac
	[ "$(tail -c +1048577 "$ROOT/dev/vda" | head -c 99 | tr -d '\0')" = "" ] ||
		complain "something lies in the first partition"
	rm "$ROOT/commands"
	head -c 9 "$ROOT/www/hidden" >"$ROOT/www/hidden.cut"
	mv "$ROOT/www/hidden.cut" "$ROOT/www/hidden"
	boot "swarmdd.torrent=http://s/1 swarmdd.target=/dev/vda#1 swarmdd.table=$URL \
swarmdd.onfail=poweroff"
	framed "/hidden sends something else"
	not_ran dd
}

case_table_partition_of_a_selected_disk_without_a_table() {
	good_network
	disk_of 64
	mkdir -p "$ROOT/sys/class/block/vda/vda2"
	echo 2 >"$ROOT/sys/class/block/vda/vda2/partition"
	touch "$ROOT/dev/vda2"
	boot "swarmdd.torrent=http://s/1 swarmdd.target=disk:auto#2 swarmdd.onfail=poweroff"
	ran "swarmdd get --progress plain http://s/1 /dev/vda2\$"
	rm "$ROOT/commands"
	boot "swarmdd.torrent=http://s/1 swarmdd.target=disk:auto#3 swarmdd.onfail=poweroff"
	framed "/dev/vda has no partition 3"
	not_ran "swarmdd get"
}

case_table_without_such_targets_is_a_mistake() {
	good_network
	disk_of 64
	boot "$MINIMAL swarmdd.table=$URL swarmdd.onfail=poweroff"
	framed "swarmdd.table needs targets such as disk:auto#1"
	boot "swarmdd.torrent=http://s/1 swarmdd.target=disk:auto#1 swarmdd.torrent=http://s/2 \
swarmdd.target=/dev/vdb#1 swarmdd.table=$URL swarmdd.onfail=poweroff"
	disk vdb
	not_ran sfdisk
}
