//! Is what an unusual partition table owns still there afterwards: beside the GPT, outside of the
//! sectors that it calls usable, in a logical partition?

use std::fs;

use crate::fixtures::{
    Loop, MIB, Seeder, drop_caches, loops_are_there, make, refuse, sparse, swarmdd, tool, tool_fed,
    tools_are_there, write_at,
};
use crate::scratch::Place;

const IMAGE_BYTES: u64 = 64 * MIB;
/// Superblock of version 1.0, as `mdadm` writes it.
const MD: &[u8] = b"\xfc\x4e\x2b\xa9\x01\0\0\0";

/// The GPT ends at 20 MiB, and an entry beside it is at 30 MiB to 40 MiB.
#[test]
fn a_partition_beside_the_gpt_is_left_alone() {
    let place = Place::new("beside");
    if !tools_are_there(&["sgdisk", "losetup"]) || !loops_are_there() {
        return;
    }
    let image = sparse(&place, "hybrid.img", IMAGE_BYTES);
    tool("sgdisk", &["-n", "1:2048:40959", &image]);
    let entry = [0, 0, 0, 0, 0x83, 0, 0, 0, 0, 0xf0, 0, 0, 0, 0x50, 0, 0];
    write_at(&image, 446 + 16, &entry);
    let (torrent, _) = make(&place, &image, &["--skip-holes"]);
    let seeder = Seeder::start(&torrent, &image);
    let data = vec![0xa5; 10 * MIB as usize];
    let larger = Loop::new(&place, "larger", 96 * MIB, 512);
    write_at(&larger.backing, 30 * MIB, &data);
    drop_caches(&larger);
    let said = seeder.get(&torrent, &larger.device, &["--grow-last"]);
    assert!(said.contains("no partition could grow"), "{said}");
    assert!(larger.bytes()[30 * MIB as usize..][..data.len()] == data);
    drop(larger);

    let smaller = Loop::new(&place, "smaller", 40 * MIB, 512);
    let said = refuse(&torrent, &smaller.device, &["--allow-smaller"]);
    assert!(said.contains(&(40 * MIB + 33 * 512).to_string()), "{said}");
    drop(smaller);
    let enough = Loop::new(&place, "enough", 40 * MIB + 33 * 512, 512);
    write_at(&enough.backing, 30 * MIB, &data);
    drop_caches(&enough);
    seeder.get(&torrent, &enough.device, &["--allow-smaller"]);
    assert!(enough.bytes()[30 * MIB as usize..][..data.len()] == data);
}

/// An image file of a disk with sectors of 4096 bytes, which does not say so. Zeros inside of its
/// partition count.
#[test]
fn a_file_whose_mbr_may_count_4096_is_taken_whole() {
    let place = Place::new("4kn-file");
    if !tools_are_there(&["sfdisk", "mke2fs", "losetup"]) || !loops_are_there() {
        return;
    }
    let image = sparse(&place, "image", IMAGE_BYTES);
    let device = Loop::over(&image, 4096);
    let script = place.write("script", b"label: dos\n256,12000,83\n");
    tool_fed("sfdisk", &["-q", "--no-reread", &device.device], &script);
    drop_caches(&device);
    drop(device);
    let root = sparse(&place, "root", 12_000 * 4096);
    tool("mke2fs", &["-q", "-t", "ext4", "-b", "4096", &root]);
    write_at(&image, MIB, &fs::read(root).unwrap());
    let (torrent, said) = make(&place, &image, &[]);
    assert!(
        !said.contains("left out") && !said.contains("MBR"),
        "{said}"
    );
    let target = Loop::new(&place, "target", IMAGE_BYTES, 4096);
    write_at(&target.backing, 0, &vec![0xa5; IMAGE_BYTES as usize]);
    drop_caches(&target);
    Seeder::start(&torrent, &image).get(&torrent, &target.device, &[]);
    assert!(target.bytes() == fs::read(&image).unwrap());
    // Nothing is known in its partition: it may begin at 1 MiB or at 128 KiB.
    write_at(&image, MIB, &[7; 8192]);
    let output = swarmdd(&["make", &image, "-o", &place.path("x.torrent")]);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(!said.contains("left out"), "{said}");
    let word = format!(
        "its MBR may count sectors of 4096 bytes, so all bytes are taken; a loop device over it says which: 'losetup -f --show -b 512 {image}'"
    );
    assert!(said.contains(&word), "{said}");
    // A file system where sectors of 512 bytes say: an ordinary image.
    tool(
        "mke2fs",
        &["-q", "-t", "ext4", "-E", "offset=131072", &image, "4M"],
    );
    let said = make(&place, &image, &["--name", "ordinary"]).1;
    assert!(said.contains("MBR") && said.contains("left out"), "{said}");
}

/// Neither the kernel nor UEFI takes this entry for a protective one, so the GPT behind it says
/// nothing.
#[test]
fn a_protective_entry_that_does_not_begin_at_sector_1_is_named() {
    let place = Place::new("protective");
    if !tools_are_there(&["sgdisk"]) {
        return;
    }
    let image = sparse(&place, "image", IMAGE_BYTES);
    tool("sgdisk", &["-n", "1:2048:40959", &image]);
    write_at(&image, MIB, &[7; 4096]);
    write_at(&image, 446 + 8, &[2]);
    let output = swarmdd(&["make", &image, "-o", &place.path("x.torrent")]);
    let said = String::from_utf8(output.stderr).unwrap();
    let word = "entry 1 of its MBR is of type ee, but does not begin at sector 1: no partition table counts, and all bytes are taken\n";
    assert!(output.status.success() && said.contains(word), "{said}");
    let made = String::from_utf8(output.stdout).unwrap();
    assert!(!made.contains("left out"), "{made}");
}

/// The superblock at the end of a logical partition that the image leaves out.
#[test]
fn a_raid_in_a_logical_partition_is_left_alone() {
    let place = Place::new("raid-inside");
    if !tools_are_there(&["sfdisk"]) {
        return;
    }
    let partitioned = |name: &str| {
        let image = sparse(&place, name, IMAGE_BYTES);
        let script = b"label: dos\nlabel-id: 0x1234abcd\n2048,20480,83\n22528,,5\n24576,,fd\n";
        let script = place.write("script", script);
        tool_fed("sfdisk", &["-q", "--no-reread", &image], &script);
        image
    };
    let (image, target) = (partitioned("image"), partitioned("target"));
    write_at(&image, 2 * MIB, &[7; 4096]);
    let (torrent, _) = make(&place, &image, &["--skip-holes"]);
    let at = IMAGE_BYTES - 8192;
    write_at(&target, at, MD);
    let said = Seeder::start(&torrent, &image).get(&torrent, &target, &[]);
    assert!(
        said.contains(&format!("remains: RAID at byte {at}")),
        "{said}"
    );
    assert!(fs::read(&target).unwrap()[at as usize..].starts_with(MD));
}

/// A table without partitions whose first usable sector lies behind the disk, with right checksums.
/// The least disk would be longer than any number in a torrent.
#[test]
fn a_gpt_for_an_impossible_disk_is_refused() {
    let place = Place::new("impossible");
    if !tools_are_there(&["sgdisk"]) {
        return;
    }
    let image = sparse(&place, "gpt.img", IMAGE_BYTES);
    tool("sgdisk", &["-o", &image]);
    let make = || swarmdd(&["make", &image, "-o", &place.path("x.torrent")]);
    assert!(make().status.success(), "as sgdisk made it");
    let mut header = fs::read(&image).unwrap()[512..604].to_vec();
    // First and last usable sector, and the checksum over all of the header but itself.
    header[40..48].copy_from_slice(&((1u64 << 51) - 1).to_le_bytes());
    header[48..56].copy_from_slice(&((1u64 << 51) - 1).to_le_bytes());
    header[16..20].fill(0);
    let checksum = crc32fast::hash(&header);
    header[16..20].copy_from_slice(&checksum.to_le_bytes());
    write_at(&image, 512, &header);
    let output = make();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("its GPT is for a disk of at least"), "{said}");
}
