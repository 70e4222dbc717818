//! Is a target what the image says, whatever was on it before: a member of a RAID, a pool of ZFS,
//! a disk with a GPT? And does only that change which would say otherwise?
//!
//! The superblocks are made by hand, because no kernel is needed for that; blkid and wipefs say
//! what they are. Each case has a twin with `--keep-signatures` in which they still see them.

use std::fs;

use swarm_proto::format::metainfo_write::Content;
use swarm_proto::units::DiskOffset;

use crate::fixtures::{
    Loop, MIB, Seeder, drop_caches, foreign_torrent, loops_are_there, make, sparse, swarmdd, tool,
    tool_fed, tools_are_there, write_at,
};
use crate::scratch::Place;

const TOOLS: [&str; 5] = ["blkid", "losetup", "sfdisk", "sgdisk", "wipefs"];
/// Also the least in which blkid looks for ZFS.
const IMAGE_BYTES: u64 = 64 * MIB;

/// Superblocks at the places from the end at which each of them lies, none over another.
fn superblocks(end: u64) -> Vec<(u64, Vec<u8>)> {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let (sectors, old, new) = (end / 512, ((end >> 16) - 1) << 16, ((end >> 12) - 2) << 12);
    let mut raid_1_0: Vec<u8> = words(&[0xa92b_4efc, 1, 0, 0, 1, 2, 3, 4]);
    raid_1_0.resize(256, 0);
    raid_1_0[144..152].copy_from_slice(&(new / 512).to_le_bytes());
    let raid_0_90 = words(&[0xa92b_4efc, 0, 90, 0, 0, 1, 2, 1, 1024, 2, 2, 0, 0, 3, 4, 5]);
    let mut all = vec![
        (old, raid_0_90),
        (new, raid_1_0),
        ((sectors - 1) * 512, b"\xde\x11\xde\x11".to_vec()),
        (
            (sectors - 2) * 512,
            b"Intel Raid ISM Cfg Sig. 1.3.00\0\0".to_vec(),
        ),
        ((sectors - 11) * 512, b"\xf3\x16\x78\x5a".to_vec()),
        ((sectors - 63) * 512, b"Promise Technology, Inc.".to_vec()),
        ((sectors - 3087) * 512, b"Promise Technology, Inc.".to_vec()),
    ];
    for label in [2, 1].map(|label| ((end >> 18) - label) << 18) {
        let block = |n: u64| (label + (128 << 10) + n * 1024, n);
        let bytes = |n: u64| {
            [0x00ba_b10c, 5000, n + 1, 0, 0]
                .map(u64::to_le_bytes)
                .concat()
        };
        all.extend((0..8).map(block).map(|(offset, n)| (offset, bytes(n))));
    }
    all
}

/// What wipefs calls them.
const KINDS: [&str; 6] = [
    "linux_raid_member",
    "ddf_raid_member",
    "isw_raid_member",
    "hpt45x_raid_member",
    "promise_fasttrack_raid_member",
    "zfs_member",
];

/// What a device is, in one line; nothing but its partition table if that is all.
fn blkid(device: &str, more: &[&str]) -> String {
    let said = tool(
        "sh",
        &[
            "-c",
            &format!("blkid -p {} {device} || test $? = 2", more.join(" ")),
        ],
    );
    said.trim().into()
}

/// The kinds that wipefs would wipe, without the partition tables of the image.
fn wipefs(device: &str) -> Vec<String> {
    let output = ["--no-act", "--parsable", "--output", "TYPE", device];
    let all = tool("wipefs", &output);
    all.lines()
        .map(String::from)
        .filter(|kind| !["dos", "gpt", "PMBR"].contains(&&**kind))
        .collect()
}

fn disk_image(place: &Place, kind: &str, bytes: u64) -> String {
    let image = sparse(place, &format!("{kind}.img"), bytes);
    let script = format!("label: {kind}\n2048,20480\n22528,40960\n");
    tool_fed(
        "sfdisk",
        &["-q", &image],
        &place.write("script", script.as_bytes()),
    );
    write_at(&image, MIB, &[7; 1000]);
    image
}

/// A target of this length on which the superblocks lie, and what `get` said.
fn deployed(
    place: &Place,
    seeder: &Seeder,
    torrent: &str,
    bytes: u64,
    options: &[&str],
) -> (Loop, String) {
    let target = Loop::new(place, "target", bytes, 512);
    for (offset, superblock) in superblocks(bytes) {
        write_at(&target.backing, offset, &superblock);
    }
    drop_caches(&target);
    let before = wipefs(&target.device);
    for kind in KINDS {
        assert!(before.iter().any(|one| one == kind), "{kind}: {before:?}");
    }
    let said = seeder.get(torrent, &target.device, options);
    drop_caches(&target);
    (target, said)
}

/// The row "leftovers" of the combinations: on a smaller disk, one of the same size, larger by
/// seven sectors and by far, with and without a last partition that grows.
#[test]
fn nothing_else_says_what_the_disk_is() {
    let place = Place::new("leftovers");
    if !tools_are_there(&TOOLS) || !loops_are_there() {
        return;
    }
    for kind in ["dos", "gpt"] {
        let bytes = 96 * MIB;
        let image = disk_image(&place, kind, bytes);
        let (torrent, _) = make(&place, &image, &[]);
        let seeder = Seeder::start(&torrent, &image);
        for (bytes, options) in [
            (bytes - 24 * MIB, &["--allow-smaller"][..]),
            (bytes, &[]),
            (bytes + 7 * 512, &[]),
            (bytes + 7 * 512, &["--grow-last"]),
            (bytes + 32 * MIB, &[]),
            (bytes + 32 * MIB, &["--grow-last"]),
        ] {
            let case = format!("{kind}, {bytes} bytes, {options:?}");
            let keep = [options, &["--keep-signatures"]].concat();
            let (twin, said) = deployed(&place, &seeder, &torrent, bytes, &keep);
            let (kept, seen) = (wipefs(&twin.device), blkid(&twin.device, &[]));
            assert!(seen.contains("raid") && !kept.is_empty(), "{case}: {seen}");
            assert!(said.contains("; remains: "), "{case}: {said}");
            assert!(!said.contains("wiped"), "{case}: {said}");
            let kept = twin.bytes();
            drop(twin);

            let (target, said) = deployed(&place, &seeder, &torrent, bytes, options);
            assert_eq!(wipefs(&target.device), [""; 0], "{case}");
            let seen = blkid(&target.device, &[]);
            let wanted = format!("PTTYPE=\"{kind}\"");
            assert!(
                seen.contains(&wanted) && !seen.contains(" TYPE="),
                "{case}: {seen}"
            );
            assert!(said.contains("; wiped "), "{case}: {said}");
            tool("sfdisk", &["-q", "--verify", &target.device]);
            let changed = kept.iter().zip(target.bytes()).filter(|(a, b)| **a != *b);
            let changed = changed.count();
            // No more than all magic numbers together.
            assert!(
                (4..=24 * 3 + 16 * 3 + 16).contains(&changed),
                "{case}: {changed}"
            );
        }
    }
}

/// A partition that was grown to the end of an old one has what lay there.
#[test]
fn a_grown_partition_is_not_what_was_at_its_end() {
    let place = Place::new("grown");
    if !tools_are_there(&TOOLS) || !loops_are_there() {
        return;
    }
    for (kind, end) in [("dos", 96 * MIB), ("gpt", 95 * MIB)] {
        let image = disk_image(&place, kind, IMAGE_BYTES);
        let (torrent, _) = make(&place, &image, &[]);
        let seeder = Seeder::start(&torrent, &image);
        let start = 11 * MIB;
        for options in [&["--grow-last"][..], &["--grow-last", "--keep-signatures"]] {
            let target = Loop::new(&place, "target", 96 * MIB, 512);
            for (offset, superblock) in superblocks(end - start) {
                write_at(&target.backing, start + offset, &superblock);
            }
            drop_caches(&target);
            let said = seeder.get(&torrent, &target.device, options);
            drop_caches(&target);
            let place = [format!("-O {start}"), format!("-S {}", end - start)];
            let seen = blkid(&target.device, &[&place[0], &place[1]]);
            let is_kept = options.len() == 2;
            assert_eq!(seen.contains("raid"), is_kept, "{kind}: {seen}; {said}");
            let word = if is_kept { "; remains: " } else { "; wiped " };
            assert!(said.contains(word), "{said}");
        }
    }
}

#[test]
fn an_old_backup_gpt_does_not_stay_behind_an_mbr() {
    let place = Place::new("old-gpt");
    if !tools_are_there(&TOOLS) || !loops_are_there() {
        return;
    }
    let image = disk_image(&place, "dos", IMAGE_BYTES);
    let (torrent, _) = make(&place, &image, &[]);
    let seeder = Seeder::start(&torrent, &image);
    for (more, options) in [(0, &[][..]), (7 * 512, &[]), (MIB, &["--grow-last"])] {
        for keep in [&[][..], &["--keep-signatures"]] {
            let target = Loop::new(&place, "target", IMAGE_BYTES + more, 512);
            tool("sgdisk", &["-n", "1:2048:+8M", &target.backing]);
            drop_caches(&target);
            let said = seeder.get(&torrent, &target.device, &[options, keep].concat());
            let all = tool("wipefs", &["--no-act", "--parsable", &target.device]);
            assert_eq!(all.contains(",gpt"), !keep.is_empty(), "{all}; {said}");
            assert!(said.contains("backup gpt at byte "), "{said}");
        }
    }
}

/// A torrent of some slices of a disk, as partclone writes them, and of holes that were left out.
#[test]
fn signatures_in_gaps_of_the_image_are_wiped() {
    let place = Place::new("gaps");
    if !tools_are_there(&TOOLS) || !loops_are_there() {
        return;
    }
    let image = disk_image(&place, "dos", IMAGE_BYTES);
    let bytes = fs::read(&image).unwrap();
    let files = [(DiskOffset(0), 512), (DiskOffset(MIB), 4 * MIB)];
    let slices = [&bytes[..512], &bytes[MIB as usize..][..4 * MIB as usize]].concat();
    let torrent = foreign_torrent(&place, &slices, Content::Fsbt { files: &files });
    let seeder = Seeder::start(&torrent, &image);
    let gaps: [(&str, u64, &[u8]); 4] = [
        ("swap", 65526, b"SWAPSPACE2"),
        ("btrfs", 65600, b"_BHRfS_M"),
        ("LUKS", 0x8000, b"SKUL\xba\xbe\0\x02"),
        ("LVM2", 512 + 24, b"LVM2 001"),
    ];
    for (name, offset, magic) in gaps {
        let target = Loop::new(&place, "target", IMAGE_BYTES + MIB, 512);
        write_at(&target.backing, offset, magic);
        // What swap and LUKS are checked for, too.
        write_at(&target.backing, 1024, &[1, 0, 0, 0, 20]);
        write_at(&target.backing, 0x8000 + 256, &0x8000_u64.to_be_bytes());
        drop_caches(&target);
        let twin = seeder.get(&torrent, &target.device, &["--keep-signatures"]);
        assert!(
            twin.contains(&format!("; remains: {name} at byte {offset}")),
            "{twin}"
        );
        let seen = blkid(&target.device, &[]);
        assert!(seen.contains(" TYPE=") || name == "LVM2", "{name}: {seen}");
        let said = seeder.get(&torrent, &target.device, &[]);
        assert!(
            said.contains(&format!("; wiped {name} at byte {offset}")),
            "{said}"
        );
        let seen = blkid(&target.device, &[]);
        assert!(!seen.contains(" TYPE="), "{name}: {seen}");
    }
}

/// A file system on a larger partition, and an image file over an older one.
#[test]
fn other_targets_are_looked_at_as_well() {
    let place = Place::new("others");
    let tools = [&TOOLS[..], &["mke2fs"]].concat();
    if !tools_are_there(&tools) || !loops_are_there() {
        return;
    }
    let image = sparse(&place, "root.img", 16 * MIB);
    tool("mke2fs", &["-q", "-t", "ext4", &image]);
    let (torrent, _) = make(&place, &image, &[]);
    let seeder = Seeder::start(&torrent, &image);
    let (target, said) = deployed(&place, &seeder, &torrent, 80 * MIB, &["--keep-signatures"]);
    assert!(!blkid(&target.device, &[]).contains("ext4"), "{said}");
    drop(target);
    let (target, said) = deployed(&place, &seeder, &torrent, 80 * MIB, &[]);
    let seen = blkid(&target.device, &[]);
    assert!(seen.contains(" TYPE=\"ext4\""), "{seen}; {said}");
    assert!(target.bytes().starts_with(&fs::read(&image).unwrap()));
    drop(target);

    let image = disk_image(&place, "dos", IMAGE_BYTES);
    let (torrent, _) = make(&place, &image, &[]);
    let file = sparse(&place, "older.img", IMAGE_BYTES + MIB);
    for (offset, superblock) in superblocks(IMAGE_BYTES) {
        write_at(&file, offset, &superblock);
    }
    let said = Seeder::start(&torrent, &image).get(&torrent, &file, &[]);
    assert!(said.contains("; wiped RAID at byte "), "{said}");
    assert_eq!(wipefs(&file), [""; 0]);
    // The file is as long as the image, and everything that the image describes is there.
    let (file, image) = (fs::read(&file).unwrap(), fs::read(&image).unwrap());
    assert_eq!(file.len(), image.len());
    assert!(file[..31 * MIB as usize] == image[..31 * MIB as usize]);
}

/// A file may not be written behind a limit of the shell: the image lies before it, and a leftover
/// behind.
#[test]
fn a_leftover_that_cannot_be_wiped_makes_the_target_fail() {
    let place = Place::new("unwritable");
    if !tools_are_there(&TOOLS) {
        return;
    }
    let image = disk_image(&place, "dos", IMAGE_BYTES);
    let (torrent, _) = make(&place, &image, &[]);
    let seeder = Seeder::start(&torrent, &image);
    let (raid, superblock) = &superblocks(IMAGE_BYTES)[1];
    for (limit_bytes, errno) in [(48 * MIB, Some("File too large")), (IMAGE_BYTES, None)] {
        let file = sparse(&place, "target.img", IMAGE_BYTES);
        write_at(&file, *raid, superblock);
        let limit = format!("trap '' XFSZ; ulimit -f {}; exec \"$@\"", limit_bytes / 512);
        let output = seeder.run_by(&["sh", "-c", &limit, "sh"], &torrent, &file, &[]);
        let said = String::from_utf8(output.stderr).unwrap();
        let found = wipefs(&file);
        match errno {
            Some(errno) => {
                let reason = format!("cannot write {file} at byte {raid}: {errno}");
                assert_eq!(output.status.code(), Some(1), "{said}");
                assert!(
                    said.contains(&reason) && !said.contains("; wiped"),
                    "{said}"
                );
                assert_eq!(found, [KINDS[0]]);
            }
            None => {
                assert!(
                    output.status.success() && said.contains("; wiped RAID"),
                    "{said}"
                );
                assert_eq!(found, [""; 0]);
            }
        }
    }
}

#[test]
fn the_plan_and_the_result_name_what_is_wiped() {
    let place = Place::new("plan");
    if !tools_are_there(&TOOLS) || !loops_are_there() {
        return;
    }
    let image = disk_image(&place, "dos", IMAGE_BYTES);
    let (torrent, _) = make(&place, &image, &[]);
    let target = Loop::new(&place, "target", 96 * MIB, 512);
    let raid = &superblocks(96 * MIB)[1];
    write_at(&target.backing, raid.0, &raid.1);
    write_at(&target.backing, 65600, b"_BHRfS_M");
    drop_caches(&target);
    let plan = |options: &[&str]| {
        let fixed = ["get", "--dry-run", &torrent, &target.device];
        String::from_utf8(swarmdd(&[&fixed, options].concat()).stdout).unwrap()
    };
    let text = plan(&[]);
    let overwrites = format!(
        "  overwrites  {}, 100.7 MB (100663296 bytes): btrfs\n",
        target.device
    );
    assert!(text.contains(&overwrites), "{text}");
    assert!(
        text.contains("\n  wipes       RAID at byte 100655104\n"),
        "{text}"
    );
    assert!(!text.contains("remains"), "{text}");
    let text = plan(&["--keep-signatures"]);
    assert!(
        text.contains("\n  remains     RAID at byte 100655104\n"),
        "{text}"
    );
    assert!(!text.contains("wipes"), "{text}");

    let seeder = Seeder::start(&torrent, &image);
    let options = ["--progress", "json", "--keep-signatures"];
    let json = |options: &[&str]| {
        let output = seeder.run(&torrent, &target.device, options);
        let lines = String::from_utf8(output.stdout).unwrap();
        lines.lines().last().unwrap().to_string()
    };
    let last = json(&options);
    assert!(
        last.contains("\"wiped\":[],\"remains\":[\"RAID at byte 100655104\"],"),
        "{last}"
    );
    let last = json(&options[..2]);
    assert!(
        last.contains("\"wiped\":[\"RAID at byte 100655104\"],\"remains\":[],"),
        "{last}"
    );
    let last = json(&options[..2]);
    assert!(last.contains("\"wiped\":[],\"remains\":[],"), "{last}");
}
