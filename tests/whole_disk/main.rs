//! Does an image of a whole disk become a disk in which its tools find no fault: of the same size,
//! larger, with sectors of 4096 bytes, with GPT, with MBR?
//!
//! The real binary writes disks made by sgdisk, sfdisk, mke2fs and mkfs.vfat onto files and loop
//! devices. A test whose tools are missing, or that needs loop devices and is not run by root, says
//! so and passes.

mod combinations;
mod fixtures;
mod leftovers;
#[path = "../scratch/mod.rs"]
mod scratch;
mod starter;
mod tables;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;

use fixtures::{
    Loop, MIB, Seeder, drop_caches, foreign_torrent, kernel_sectors, loops_are_there, make, refuse,
    search_path, sparse, succeed, swarmdd, tool, tool_fed, tools_are_there, write_at,
};
use scratch::Place;
use swarm_proto::format::metainfo_write::Content;

/// All that make an image and look at a target; the last one is only for loop devices.
const TOOLS: [&str; 6] = [
    "sgdisk",
    "mke2fs",
    "mkfs.vfat",
    "e2fsck",
    "fsck.vfat",
    "losetup",
];

const IMAGE_BYTES: u64 = 192 * MIB;
const LARGER_BYTES: u64 = 256 * MIB;

/// A GPT with an EFI system partition and an ext4 with a file, and bytes of a boot loader in the
/// gap before the first partition.
fn gpt_image(place: &Place) -> String {
    let image = sparse(place, "disk.img", IMAGE_BYTES);
    tool(
        "sgdisk",
        &[
            "-n",
            "1:2048:+40M",
            "-t",
            "1:ef00",
            "-n",
            "2:0:+120M",
            "-c",
            "2:root",
            &image,
        ],
    );
    fill_partitions(place, &image);
    File::options()
        .write(true)
        .open(&image)
        .unwrap()
        .write_all_at(b"boot loader", 50 * 512)
        .unwrap();
    image
}

/// Puts vfat into the first partition, and ext4 with a file into the second.
fn fill_partitions(place: &Place, image: &str) {
    let source = place.path("files");
    fs::create_dir_all(&source).unwrap();
    let noise: Vec<u8> = (0..5 * MIB as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    fs::write(format!("{source}/noise"), noise).unwrap();
    let esp = sparse(place, "esp", 40 * MIB);
    tool("mkfs.vfat", &["-F", "32", &esp]);
    let root = sparse(place, "root", 120 * MIB);
    tool("mke2fs", &["-q", "-t", "ext4", "-d", &source, &root]);
    let disk = File::options().write(true).open(image).unwrap();
    disk.write_all_at(&fs::read(esp).unwrap(), MIB).unwrap();
    disk.write_all_at(&fs::read(root).unwrap(), 41 * MIB)
        .unwrap();
}

/// The tools find no fault in the table and the file systems of a disk. Returns the sector at which
/// its last partition ends.
#[track_caller]
fn assert_clean(place: &Place, disk: &str) -> u64 {
    let verdict = Command::new("sgdisk")
        .args(["-v", disk])
        .env("PATH", search_path())
        .output()
        .unwrap();
    let said = String::from_utf8([verdict.stdout, verdict.stderr].concat()).unwrap();
    // sgdisk also reports no problem after it has repaired one in its memory.
    let repaired = said.contains("Caution") || said.contains("Warning");
    assert!(said.contains("No problems found") && !repaired, "{said}");
    let file = File::open(disk).unwrap();
    let part = |name: &str, offset: u64, length: u64| {
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, offset).unwrap();
        place.write(name, &bytes)
    };
    tool("fsck.vfat", &["-n", &part("esp.out", MIB, 40 * MIB)]);
    tool("e2fsck", &["-fn", &part("root.out", 41 * MIB, 120 * MIB)]);
    let info = tool("sgdisk", &["-i", "2", disk]);
    let last = info
        .lines()
        .find_map(|line| line.strip_prefix("Last sector: "))
        .unwrap();
    last.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn make_and_info_describe_the_disk() {
    let place = Place::new("make");
    if !tools_are_there(&["sgdisk", "mke2fs", "mkfs.vfat"]) {
        return;
    }
    let image = gpt_image(&place);
    let (torrent, said) = make(&place, &image, &[]);
    assert!(
        said.contains("\npartition table: GPT, partitions: 2, sectors of 512 bytes\n"),
        "{said}"
    );
    assert!(said.contains("\nused ranges: 1\n"), "{said}");
    assert!(said.contains("\nsize: 168820736 bytes "), "{said}");
    // Left out: 192 - 161 MiB, less the 33 sectors of the backup GPT.
    let left = format!(
        "\nleft out: {} bytes of zeros outside partitions ",
        31 * MIB - 33 * 512
    );
    assert!(said.contains(&left), "{said}");
    assert!(said.contains("\nleft out: the backup GPT, "), "{said}");
    let info = succeed(&["info", &torrent]);
    // With the backup GPT.
    assert!(info.contains("\ndisk needed: 168837632 bytes "), "{info}");
    let disk =
        "\ndisk size: 201326592 bytes (192.0 MiB)\nsector size: 512 bytes\npartition table: GPT\n";
    assert!(info.contains(disk), "{info}");

    let (torrent, said) = make(&place, &image, &["--single"]);
    assert!(
        said.contains("\nsize: 201326592 bytes ") && !said.contains("left out"),
        "{said}"
    );
    let info = succeed(&["info", &torrent]);
    assert!(
        info.contains("\ndisk size: 201326592 bytes (192.0 MiB)\nsector size: 512 bytes\n"),
        "{info}"
    );

    let plain = sparse(&place, "plain.img", MIB);
    let (torrent, said) = make(&place, &plain, &[]);
    assert!(!said.contains("partition table"), "{said}");
    let info = succeed(&["info", &torrent]);
    assert!(
        !info.contains("disk size") && !info.contains("sector size"),
        "{info}"
    );
    assert!(info.contains("\npartition table: none\n"), "{info}");
}

#[test]
fn every_byte_arrives_on_a_file_of_the_same_size() {
    let place = Place::new("file");
    if !tools_are_there(&TOOLS[..5]) {
        return;
    }
    let image = gpt_image(&place);
    let target = place.path("target.img");
    for options in [&[][..], &["--single"]] {
        let (torrent, _) = make(&place, &image, options);
        let seeder = Seeder::start(&torrent, &image);
        seeder.get(&torrent, &target, &[]);
        assert!(
            fs::read(&image).unwrap() == fs::read(&target).unwrap(),
            "{options:?}"
        );
        // Once more, onto a file that holds the image and is longer.
        File::options()
            .write(true)
            .open(&target)
            .unwrap()
            .set_len(LARGER_BYTES)
            .unwrap();
        seeder.get(&torrent, &target, &[]);
        assert!(
            fs::read(&image).unwrap() == fs::read(&target).unwrap(),
            "{options:?}"
        );
    }
    assert_clean(&place, &target);
}

/// Some RAID controllers keep their own description in the last sectors of a disk, behind the disk
/// that they show to others.
#[test]
fn bytes_of_the_image_behind_its_backup_gpt_are_kept() {
    let place = Place::new("behind");
    if !tools_are_there(&["sgdisk"]) {
        return;
    }
    let image = sparse(&place, "disk.img", 16 * MIB);
    tool("sgdisk", &["-n", "1:2048:+8M", &image]);
    let disk = File::options().write(true).open(&image).unwrap();
    disk.set_len(24 * MIB).unwrap();
    disk.write_all_at(b"RAID", 24 * MIB - 512).unwrap();
    let target = place.path("target.img");
    for options in [&[][..], &["--single"]] {
        let (torrent, said) = make(&place, &image, options);
        assert!(!said.contains("left out: the backup GPT"), "{said}");
        let seeder = Seeder::start(&torrent, &image);
        let said = seeder.get(&torrent, &target, &[]);
        assert!(
            said.contains("partition table left as it is: the image has something else at byte "),
            "{said}"
        );
        assert!(
            fs::read(&image).unwrap() == fs::read(&target).unwrap(),
            "{options:?}"
        );
    }
    // The twin: if only zeros are there, the backup GPT goes there.
    disk.write_all_at(&[0; 4], 24 * MIB - 512).unwrap();
    let (torrent, _) = make(&place, &image, &["--single"]);
    let said = Seeder::start(&torrent, &image).get(&torrent, &target, &[]);
    assert!(said.contains("backup GPT moved to the end"), "{said}");
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, disk by disk")]
fn a_larger_disk_gets_its_backup_gpt_at_the_end() {
    let place = Place::new("larger");
    if !tools_are_there(&TOOLS) || !loops_are_there() {
        return;
    }
    let image = gpt_image(&place);
    let (torrent, _) = make(&place, &image, &[]);
    let seeder = Seeder::start(&torrent, &image);

    let same = Loop::new(&place, "same", IMAGE_BYTES, 512);
    let said = seeder.get(&torrent, &same.device, &[]);
    assert!(said.contains("backup GPT written"), "{said}");
    assert!(fs::read(&image).unwrap() == same.bytes());
    let said = seeder.get(&torrent, &same.device, &[]);
    assert!(
        said.contains("fetched 0 B") && !said.contains("GPT"),
        "all is there already: {said}"
    );

    let larger = Loop::new(&place, "larger", LARGER_BYTES, 512);
    let said = seeder.get(&torrent, &larger.device, &[]);
    assert!(said.contains("backup GPT moved to the end"), "{said}");
    let last = assert_clean(&place, &larger.backing);
    assert_eq!(
        last,
        161 * MIB / 512 - 1,
        "the twin: without --grow-last it does not grow"
    );
    let once = larger.bytes();
    assert_eq!(&once[once.len() - 512..][..8], b"EFI PART");
    assert_eq!(&once[50 * 512..][..11], b"boot loader");
    // sgdisk would have written the same, except for the geometry in the protective MBR, which it
    // makes up.
    let twin = place.path("twin.img");
    fs::copy(&image, &twin).unwrap();
    File::options()
        .write(true)
        .open(&twin)
        .unwrap()
        .set_len(LARGER_BYTES)
        .unwrap();
    tool("sgdisk", &["-e", &twin]);
    let twin = fs::read(twin).unwrap();
    assert!(once[512..34 * 512] == twin[512..34 * 512], "primary");
    assert!(
        once[once.len() - 33 * 512..] == twin[twin.len() - 33 * 512..],
        "backup"
    );
    assert_eq!(once[446 + 8..512], twin[446 + 8..512], "protective MBR");
    // Some kernels are built without support for GPT.
    let kernel_reads = kernel_sectors(&Loop::over(&image, 512), 2).is_some();
    let kernel_says = |sectors| kernel_reads.then_some(sectors);
    assert_eq!(
        kernel_sectors(&larger, 2),
        kernel_says(120 * MIB / 512),
        "the kernel has read the table"
    );

    let said = seeder.get(&torrent, &larger.device, &[]);
    assert!(
        said.contains("fetched 1.0 MiB"),
        "only the piece with the table is missing: {said}"
    );
    assert!(once == larger.bytes(), "a second time changes nothing");

    let said = seeder.get(&torrent, &larger.device, &["--grow-last"]);
    assert!(
        said.contains("backup GPT moved to the end, last partition grown by "),
        "{said}"
    );
    let last = assert_clean(&place, &larger.backing);
    assert_eq!(
        last,
        255 * MIB / 512 - 1,
        "the last whole MiB before the backup GPT"
    );
    assert_eq!(
        kernel_sectors(&larger, 2),
        kernel_says((255 - 41) * MIB / 512)
    );
}

#[test]
fn a_smaller_disk_is_accepted_only_when_allowed_and_large_enough() {
    let place = Place::new("smaller");
    if !tools_are_there(&TOOLS) || !loops_are_there() {
        return;
    }
    let image = gpt_image(&place);
    let (torrent, _) = make(&place, &image, &[]);
    let seeder = Seeder::start(&torrent, &image);
    let backup_bytes = 33 * 512;

    let fits = Loop::new(&place, "fits", 161 * MIB + backup_bytes, 512);
    let refusal = refuse(&torrent, &fits.device, &[]);
    assert!(
        refusal.contains("image needs 201.3 MB (201326592 bytes)"),
        "{refusal}"
    );
    assert!(refusal.contains("--allow-smaller"), "{refusal}");
    assert!(
        fits.bytes().iter().all(|&byte| byte == 0),
        "a refused disk was changed"
    );
    let said = seeder.get(&torrent, &fits.device, &["--allow-smaller"]);
    assert!(said.contains("backup GPT moved to the end"), "{said}");
    assert_eq!(assert_clean(&place, &fits.backing), 161 * MIB / 512 - 1);
    // The used ranges fit exactly, and there is no room to grow.
    let said = seeder.get(&torrent, &fits.device, &["--allow-smaller", "--grow-last"]);
    assert!(said.contains("no partition could grow"), "{said}");

    let short = Loop::new(&place, "short", 161 * MIB + backup_bytes - 512, 512);
    for options in [&[][..], &["--allow-smaller"]] {
        let refusal = refuse(&torrent, &short.device, options);
        assert!(refusal.contains("image needs "), "{refusal}");
        assert!(!refusal.contains("with --allow-smaller"), "{refusal}");
    }
    assert!(
        short.bytes().iter().all(|&byte| byte == 0),
        "a refused disk was changed"
    );
}

#[test]
fn a_disk_with_sectors_of_4096_bytes_is_deployed() {
    let place = Place::new("4kn");
    if !tools_are_there(&TOOLS) || !loops_are_there() {
        return;
    }
    let source = Loop::new(&place, "source", IMAGE_BYTES, 4096);
    tool(
        "sgdisk",
        &[
            "-n",
            "1:256:+40M",
            "-t",
            "1:ef00",
            "-n",
            "2:0:+120M",
            &source.device,
        ],
    );
    fill_partitions(&place, &source.backing);
    drop_caches(&source);
    let (torrent, said) = make(&place, &source.device, &[]);
    assert!(
        said.contains("\npartition table: GPT, partitions: 2, sectors of 4096 bytes\n"),
        "{said}"
    );
    assert!(succeed(&["info", &torrent]).contains("\nsector size: 4096 bytes\n"));
    // The image file alone also tells how large the sectors are.
    let (_, of_file) = make(&place, &source.backing, &["--name", "source"]);
    assert!(of_file.contains("sectors of 4096 bytes"), "{of_file}");

    let (torrent, _) = make(&place, &source.device, &[]);
    let seeder = Seeder::start(&torrent, &source.device);
    let target = Loop::new(&place, "target", LARGER_BYTES, 4096);
    let said = seeder.get(&torrent, &target.device, &["--grow-last"]);
    assert!(
        said.contains("backup GPT moved to the end, last partition grown by "),
        "{said}"
    );
    assert_eq!(assert_clean(&place, &target.device), 255 * MIB / 4096 - 1);

    let other = Loop::new(&place, "other", LARGER_BYTES, 512);
    let refusal = refuse(&torrent, &other.device, &[]);
    let reason = "has sectors of 512 bytes, image was made on a disk with sectors of 4096";
    assert!(refusal.contains(reason), "{refusal}");
    assert!(
        other.bytes().iter().all(|&byte| byte == 0),
        "a refused disk was changed"
    );
}

#[test]
fn an_mbr_grows_only_when_asked() {
    let place = Place::new("mbr");
    if !tools_are_there(&["sfdisk", "losetup"]) || !loops_are_there() {
        return;
    }
    let image = sparse(&place, "mbr.img", 16 * MIB);
    let script = place.write("script", b"label: dos\n2048,4096,c,*\n6144,8192,83\n");
    tool_fed("sfdisk", &["--quiet", &image], &script);
    File::options()
        .write(true)
        .open(&image)
        .unwrap()
        .write_all_at(b"boot loader", 60 * 512)
        .unwrap();
    let (torrent, said) = make(&place, &image, &[]);
    assert!(
        said.contains("\npartition table: MBR, partitions: 2, sectors of 512 bytes\n"),
        "{said}"
    );
    let seeder = Seeder::start(&torrent, &image);
    let target = Loop::new(&place, "target", 32 * MIB, 512);
    let plan = |options: &[&str]| {
        let pair = [torrent.as_str(), target.device.as_str()];
        succeed(&[&["get", "--dry-run"], options, &pair].concat())
    };
    assert!(!plan(&[]).contains("afterwards"));
    let grows = "afterwards  the last partition of the MBR grows to the end of the target\n";
    assert!(plan(&["--grow-last"]).contains(grows));
    seeder.get(&torrent, &target.device, &[]);
    let (wanted, found) = (fs::read(&image).unwrap(), target.bytes());
    assert!(found[..wanted.len()] == wanted && found[wanted.len()..].iter().all(|&byte| byte == 0));
    let said = seeder.get(&torrent, &target.device, &["--grow-last"]);
    assert!(said.contains("last partition grown by 26.2 MB"), "{said}");
    let dump = tool("sfdisk", &["--dump", &target.backing]);
    assert!(
        dump.contains("start=        6144, size=       59392, type=83"),
        "{dump}"
    );
}

/// A target without a table that can be read is not done, unless the maker insisted.
#[test]
fn a_damaged_gpt_is_refused_by_make_and_not_called_done_by_get() {
    let place = Place::new("broken");
    if !tools_are_there(&["sgdisk"]) {
        return;
    }
    let image = sparse(&place, "broken.img", 16 * MIB);
    tool("sgdisk", &["-n", "1:2048:+8M", &image]);
    let whole = fs::read(&image).unwrap();
    // A place, the bytes there, and what is said.
    let header = "checksum of the GPT header at sector 1 is wrong";
    let entries = "checksum of the GPT entries at sector 2 is wrong";
    let cases = [
        (512 + 8, &[7; 2][..], header),
        (1024 + 200, b"x", entries),
        (512, &[0; 512], "there is no GPT"),
    ];
    for (offset, bytes, what) in cases {
        fs::write(&image, &whole).unwrap();
        write_at(&image, offset, bytes);
        let torrent = place.path("x.torrent");
        let output = swarmdd(&["make", &image, "-o", &torrent]);
        let said = String::from_utf8(output.stderr).unwrap();
        let help = format!(
            "source {image}: sector 0 says GPT, but {what}; its backup GPT is good, and 'sgdisk -e {image}' rebuilds it from there; --raw takes the bytes as they are\n"
        );
        assert!(!output.status.success() && said.ends_with(&help), "{said}");
        // The command helps.
        tool("sgdisk", &["-e", &image]);
        make(&place, &image, &[]);
        assert!(fs::read(&image).unwrap() == whole, "{what}");
        write_at(&image, offset, bytes);
        if !loops_are_there() {
            return;
        }
        let disk = Loop::new(&place, "disk", 32 * MIB, 512);
        let length = whole.len() as u64;
        let bytes = fs::read(&image).unwrap();
        let foreign = foreign_torrent(&place, &bytes, Content::Single { length });
        let failure = Seeder::start(&foreign, &image).fail(&foreign, &disk.device);
        let device = &disk.device;
        let reason = format!(
            "{device} holds what the torrent describes, but no partition table that can be read: sector 0 says GPT, but {what}"
        );
        assert!(failure.contains(&reason), "{failure}");
        let (raw, _) = make(&place, &image, &["--raw"]);
        assert!(succeed(&["info", &raw]).contains("\npartition table: whatever it is (--raw)"));
        let said = Seeder::start(&raw, &image).get(&raw, &disk.device, &["--grow-last"]);
        let note = "partition table left as it is: the torrent was made with --raw";
        assert!(said.contains(note), "{said}");
        assert!(disk.bytes()[..16 * MIB as usize] == fs::read(&image).unwrap());
    }
    write_at(&image, 16 * MIB - 512, &[0; 512]);
    let said = swarmdd(&["make", &image, "-o", &place.path("x.torrent")]).stderr;
    let said = String::from_utf8(said).unwrap();
    let none = "there is no GPT; and there is no good backup GPT in the last sector; --raw ";
    assert!(said.contains(none), "{said}");
}
