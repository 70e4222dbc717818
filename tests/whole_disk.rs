//! Does an image of a whole disk become a disk in which its tools find no fault: of the same size,
//! larger, with sectors of 4096 bytes, with GPT, with MBR?
//!
//! The real binary writes disks made by sgdisk, sfdisk, mke2fs and mkfs.vfat onto files and loop
//! devices. A test whose tools are missing, or that needs loop devices and is not run by root, says
//! so and passes.

mod scratch;

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use scratch::Place;

const MIB: u64 = 1 << 20;
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
    assert!(info.contains("\ndisk needed: 168820736 bytes "), "{info}");
    assert!(
        info.contains("\ndisk size: 201326592 bytes (192.0 MiB)\nsector size: 512 bytes\n"),
        "{info}"
    );

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
}

#[test]
fn every_byte_arrives_on_a_file_of_the_same_size() {
    let place = Place::new("file");
    if !tools_are_there(&["sgdisk", "mke2fs", "mkfs.vfat", "e2fsck", "fsck.vfat"]) {
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
    let tools = [
        "sgdisk",
        "mke2fs",
        "mkfs.vfat",
        "e2fsck",
        "fsck.vfat",
        "losetup",
    ];
    if !tools_are_there(&tools) || !loops_are_there() {
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
    let tools = [
        "sgdisk",
        "mke2fs",
        "mkfs.vfat",
        "e2fsck",
        "fsck.vfat",
        "losetup",
    ];
    if !tools_are_there(&tools) || !loops_are_there() {
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
    if !tools_are_there(&[
        "sgdisk",
        "mke2fs",
        "mkfs.vfat",
        "e2fsck",
        "fsck.vfat",
        "losetup",
    ]) || !loops_are_there()
    {
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

/// A table whose checksum is wrong is not used and not changed.
#[test]
fn a_broken_table_is_left_alone() {
    let place = Place::new("broken");
    if !tools_are_there(&["sgdisk"]) {
        return;
    }
    let image = sparse(&place, "broken.img", 16 * MIB);
    tool("sgdisk", &["-n", "1:2048:+8M", &image]);
    let (torrent, _) = make(&place, &image, &["--single"]);
    // Not in the GUID of the disk, where the byte is an x already in one of 256 runs.
    File::options()
        .write(true)
        .open(&image)
        .unwrap()
        .write_all_at(b"x", 512 + 8)
        .unwrap();
    let (broken, said) = make(&place, &image, &[]);
    assert!(!said.contains("partition table"), "{said}");
    let target = place.path("target.img");
    let said = Seeder::start(&broken, &image).get(&broken, &target, &["--grow-last"]);
    assert!(
        !said.contains("GPT"),
        "no table is looked for without a sector size: {said}"
    );
    assert!(fs::read(&image).unwrap() == fs::read(&target).unwrap());
    assert!(torrent != broken);
    if !loops_are_there() {
        return;
    }
    let disk = Loop::new(&place, "disk", 32 * MIB, 512);
    let said = Seeder::start(&broken, &image).get(&broken, &disk.device, &["--grow-last"]);
    let note = "partition table left as it is: checksum of the GPT header at sector 1 is wrong";
    assert!(said.contains(note), "{said}");
    assert!(disk.bytes()[..16 * MIB as usize] == fs::read(&image).unwrap());
}

// ---- the fixtures ----

fn sparse(place: &Place, name: &str, length: u64) -> String {
    File::create(place.0.join(name))
        .unwrap()
        .set_len(length)
        .unwrap();
    place.path(name)
}

/// A loop device over a sparse file of its own, detached at the end of the test, however it ends.
struct Loop {
    device: String,
    backing: String,
}

impl Loop {
    fn new(place: &Place, name: &str, length: u64, sector_bytes: u32) -> Loop {
        Loop::over(
            &sparse(place, &format!("{name}.loop"), length),
            sector_bytes,
        )
    }

    fn over(backing: &str, sector_bytes: u32) -> Loop {
        let sector = format!("--sector-size={sector_bytes}");
        let device = tool(
            "losetup",
            &["--find", "--show", "--partscan", &sector, backing],
        );
        Loop {
            device: device.trim().to_string(),
            backing: backing.to_string(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        drop_caches(self);
        fs::read(&self.backing).unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // Nothing more can be done about it here, and the test's own failure says more.
        let _ = Command::new("losetup")
            .args(["--detach", &self.device])
            .output();
    }
}

/// Bytes written to the device are in its file from now on, and the other way round.
fn drop_caches(disk: &Loop) {
    tool("blockdev", &["--flushbufs", &disk.device]);
}

/// The size of a partition according to the kernel, if it knows the partition.
fn kernel_sectors(disk: &Loop, partition: u32) -> Option<u64> {
    let name = disk.device.rsplit('/').next().unwrap();
    let size = fs::read_to_string(format!("/sys/block/{name}/{name}p{partition}/size")).ok()?;
    Some(size.trim().parse().unwrap())
}

/// `swarmdd seed` at a port of its own. It ends when this is dropped.
struct Seeder {
    process: Child,
    address: String,
}

impl Seeder {
    fn start(torrent: &str, source: &str) -> Seeder {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = format!("127.0.0.1:{port}");
        let arguments = [
            "seed",
            "--progress",
            "none",
            "--seed-secs",
            "300",
            "--listen",
            &address,
            torrent,
            source,
        ];
        let process = Command::new(env!("CARGO_BIN_EXE_swarmdd"))
            .args(arguments)
            .spawn()
            .unwrap();
        Seeder { process, address }
    }

    /// Fetches onto a target. Returns what was printed.
    #[track_caller]
    fn get(&self, torrent: &str, target: &str, options: &[&str]) -> String {
        let fixed = [
            "get",
            "--peer",
            &self.address,
            "--listen",
            "127.0.0.1:0",
            "--no-seed",
            "--stall-secs",
            "60",
        ];
        let output = swarmdd(&[&fixed, options, &[torrent, target]].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        said
    }
}

impl Drop for Seeder {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn swarmdd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_swarmdd"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[track_caller]
fn succeed(arguments: &[&str]) -> String {
    let output = swarmdd(arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// `get` refuses before it connects to a peer. Returns what was printed.
#[track_caller]
fn refuse(torrent: &str, target: &str, options: &[&str]) -> String {
    let output = swarmdd(
        &[
            &["get", "--listen", "127.0.0.1:0"],
            options,
            &[torrent, target],
        ]
        .concat(),
    );
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

/// Makes a torrent, with another name for each set of options. Returns its path and what was
/// printed.
#[track_caller]
fn make(place: &Place, source: &str, options: &[&str]) -> (String, String) {
    let name = source.rsplit('/').next().unwrap();
    let torrent = place.path(&format!(
        "{name}{}.torrent",
        options.concat().replace(' ', "")
    ));
    let said = succeed(&[&["make", source, "-o", &torrent], options].concat());
    (torrent, said)
}

#[track_caller]
fn tool(name: &str, arguments: &[&str]) -> String {
    tool_fed(name, arguments, "/dev/null")
}

/// Runs a program with a file as its input. Returns what it printed, in English.
#[track_caller]
fn tool_fed(name: &str, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new(name);
    command
        .args(arguments)
        .stdin(File::open(input).unwrap())
        .env("LC_ALL", "C")
        .env("PATH", search_path());
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{name} {arguments:?}: {said}{complaint}"
    );
    said
}

/// The directories of administration tools are not in the path of every user.
fn search_path() -> String {
    format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    )
}

fn tools_are_there(names: &[&str]) -> bool {
    let path = search_path();
    let there = |name: &&&str| {
        path.split(':')
            .any(|directory| Path::new(directory).join(name).exists())
    };
    match names.iter().find(|name| !there(name)) {
        Some(missing) => {
            println!("skipped: there is no {missing}");
            false
        }
        None => true,
    }
}

/// Loop devices need root, and some containers have none.
fn loops_are_there() -> bool {
    let there = Command::new("losetup")
        .arg("--find")
        .env("PATH", search_path())
        .output();
    let there = there.is_ok_and(|output| output.status.success());
    if !there {
        println!("skipped: no loop device is available");
    }
    there
}
