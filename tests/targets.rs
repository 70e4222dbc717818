//! Is the right disk taken, and is every other left as it was? The real binary on real loop devices
//! of both sector sizes.
//!
//! Each case is refused with exactly this message, with and without `--dry-run`, and each target
//! holds afterwards what it held before. Selectors look at sysfs, so they run in a mount namespace
//! of their own in which /sys, /dev and the kernel's command line describe a machine whose disks
//! are these loop devices.
//!
//! All of it needs root and losetup; without, the tests say that they were skipped.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use swarm_proto::format::metainfo_write::{Content, Description, write};
use swarm_proto::units::{DiskOffset, PieceHash};

const MIB: u64 = 1 << 20;
const PIECE_BYTES: u32 = 64 << 10;

/// Where a test may make loop devices, mounts and swaps; all of them go with it, also when the test
/// fails.
struct Stage {
    directory: PathBuf,
    /// Loop devices and the files behind them; without those that are swap, to which the kernel may
    /// write.
    disks: Vec<(String, String)>,
    /// What to run at the end, the last first.
    undo: Vec<Vec<String>>,
}

impl Stage {
    /// `None`, and a line that says so, where this cannot be done.
    fn new(name: &str) -> Option<Stage> {
        let root = fs::metadata("/proc/self").is_ok_and(|found| found.uid() == 0);
        if !root || !Path::new("/dev/loop-control").exists() {
            skip("loop devices need root and /dev/loop-control");
            return None;
        }
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let directory = directory.join(format!("targets-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        Some(Stage {
            directory,
            disks: Vec::new(),
            undo: Vec::new(),
        })
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).to_str().unwrap().into()
    }

    fn undo(&mut self, command: &[&str]) {
        self.undo
            .push(command.iter().map(|word| word.to_string()).collect());
    }

    /// A loop device full of `name`, to see whether a byte of it changes.
    fn disk(&mut self, name: &str, bytes: u64, sector: u32, options: &[&str]) -> String {
        let file = self.path(&format!("{name}.disk"));
        let filling = format!("{name:-<16}").repeat((bytes / 16) as usize);
        fs::write(&file, filling).unwrap();
        let sector = sector.to_string();
        // With --partscan the kernel forgets old partitions of the loop device now and ours when it
        // goes.
        let losetup = [
            "losetup",
            "--find",
            "--show",
            "--partscan",
            "--sector-size",
            &sector,
        ];
        let device = run(&[&losetup, options, &[&file]].concat());
        let device = device.expect("losetup").trim().to_string();
        self.undo(&["losetup", "--detach", &device]);
        self.disks.push((device.clone(), file));
        device
    }

    /// Two partitions of 4 MiB each, from 1 MiB on, in a GPT.
    fn partitions(&mut self, device: &str) -> [String; 2] {
        let table = self.path("table");
        fs::write(
            &table,
            "label: gpt\nlabel-id: 01234567-0123-0123-0123-0123456789ab\nstart=1MiB, size=4MiB\nsize=4MiB\n",
        )
        .unwrap();
        let script = format!(
            "sfdisk --quiet --no-reread --no-tell-kernel {device} < {table} && partx --update {device}"
        );
        run(&["sh", "-c", &script]).expect("sfdisk and partx");
        [format!("{device}p1"), format!("{device}p2")]
    }

    fn mount(&mut self, device: &str) -> String {
        run(&["mke2fs", "-q", "-F", "-t", "ext2", device]).expect("mke2fs");
        let at = self.path(&format!("at-{}", device.rsplit('/').next().unwrap()));
        fs::create_dir(&at).unwrap();
        // Mounted to write, its super block would change under our eyes.
        run(&["mount", "-o", "ro", device, &at]).expect("mount");
        self.undo(&["umount", &at]);
        at
    }

    fn swap(&mut self, device: &str) {
        run(&["mkswap", device]).expect("mkswap");
        run(&["swapon", device]).expect("swapon");
        self.undo(&["swapoff", device]);
        self.disks.retain(|(disk, _)| !is_of(device, disk));
    }

    /// A torrent of one piece content, at these ranges of a disk.
    fn torrent(
        &self,
        name: &str,
        ranges: &[(u64, u64)],
        disk_bytes: Option<u64>,
        sector: Option<u32>,
    ) -> String {
        let total: u64 = ranges.iter().map(|(_, length)| length).sum();
        let files: Vec<(DiskOffset, u64)> = ranges
            .iter()
            .map(|&(disk, length)| (DiskOffset(disk), length))
            .collect();
        let hashes = vec![PieceHash([7; 20]); total.div_ceil(PIECE_BYTES.into()) as usize];
        let bytes = write(&Description {
            name,
            trackers: &[],
            webseeds: &[],
            created_by: "test",
            private: false,
            piece_bytes: PIECE_BYTES,
            hashes: &hashes,
            content: Content::Fsbt { files: &files },
            disk_bytes,
            sector_bytes: sector,
        });
        let path = self.path(&format!("{name}.torrent"));
        fs::write(&path, bytes).unwrap();
        path
    }

    /// What the tools wrote is on the disks and not on its way there.
    fn settle(&self) {
        run(&["sync"]).expect("sync");
    }

    /// A checksum of every disk whose device one of these words names, of all if there are none.
    fn checksums(&self, words: &[&str]) -> Vec<(String, u32)> {
        let wanted =
            |device: &str| words.is_empty() || words.iter().any(|word| is_of(word, device));
        let disks = self.disks.iter().filter(|(device, _)| wanted(device));
        disks
            .map(|(device, file)| (device.clone(), crc32fast::hash(&fs::read(file).unwrap())))
            .collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for command in self.undo.iter().rev() {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            // What is already undone cannot be undone again, and there may be more to do.
            let _ = run(&words);
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Said past the test harness, which shows nothing of what passes.
fn skip(reason: &str) {
    let _ = writeln!(std::io::stderr(), "tests/targets.rs: skipped: {reason}");
}

/// The disk itself, or a partition of it.
fn is_of(path: &str, disk: &str) -> bool {
    path.strip_prefix(disk)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('p'))
}

/// The output of a command that went well.
fn run(words: &[&str]) -> Option<String> {
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null());
    let output = command.output().ok()?;
    if !output.status.success() {
        println!(
            "{words:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    output
        .status
        .success()
        .then(|| String::from_utf8(output.stdout).unwrap())
}

/// The reason `get` gives, without the names of the pair before it and without the other pairs.
fn refusal(output: &Output) -> String {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "it says: {said}");
    let reasons = said
        .trim_end()
        .split("swarmdd: ")
        .filter_map(|line| line.split_once(": failed: "));
    let own: Vec<&str> = reasons
        .map(|(_, reason)| reason.trim_end())
        .filter(|reason| !reason.starts_with("not begun"))
        .collect();
    assert_eq!(own.len(), 1, "it says: {said}");
    own[0].into()
}

fn get(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarmdd"));
    command
        .args(["get", "--progress", "none", "--listen", "127.0.0.1:0"])
        .args(words);
    command.stdin(Stdio::null()).output().unwrap()
}

/// Both ways of asking; the same answer.
fn assert_refused(stage: &Stage, words: &[&str], expected: &str) {
    let before = stage.checksums(words);
    for dry_run in [&["--dry-run"][..], &[]] {
        assert_eq!(
            refusal(&get(&[dry_run, words].concat())),
            expected,
            "{words:?}"
        );
    }
    assert_eq!(
        stage.checksums(words),
        before,
        "{words:?} has changed a disk"
    );
}

#[test]
fn refusals() {
    let Some(mut stage) = Stage::new("refusals") else {
        return;
    };
    let s = &mut stage;
    let free = s.disk("free", 16 * MIB, 512, &[]);
    let free_4kn = s.disk("free-4kn", 16 * MIB, 4096, &[]);
    let read_only = s.disk("read-only", 16 * MIB, 512, &["--read-only"]);
    let small = s.disk("small", 16 * MIB - 512, 512, &[]);
    let small_4kn = s.disk("small-4kn", 16 * MIB - 4096, 4096, &[]);
    let mounted = s.disk("mounted", 16 * MIB, 512, &[]);
    let mounted_at = s.mount(&mounted);
    let mounted_4kn = s.disk("mounted-4kn", 16 * MIB, 4096, &[]);
    let mounted_4kn_at = s.mount(&mounted_4kn);
    let swap = s.disk("swap", 16 * MIB, 512, &[]);
    s.swap(&swap);
    let parted = s.disk("parted", 16 * MIB, 512, &[]);
    let [used_part, free_part] = s.partitions(&parted);
    let used_part_at = s.mount(&used_part);
    let swap_parted = s.disk("swap-parted", 16 * MIB, 512, &[]);
    let [swap_part, _] = s.partitions(&swap_parted);
    s.swap(&swap_part);
    let idle = s.disk("idle", 16 * MIB, 512, &[]);
    let [idle_part, _] = s.partitions(&idle);
    let held = s.disk("held", 16 * MIB, 512, &[]);
    let below_loop = s.disk("below-loop", 16 * MIB, 512, &[]);
    let above = run(&["losetup", "--find", "--show", &below_loop])
        .expect("losetup")
        .trim()
        .to_string();
    s.undo(&["losetup", "--detach", &above]);
    let above_name = above.rsplit('/').next().unwrap();
    let _holder = File::options()
        .read(true)
        .custom_flags(libc::O_EXCL)
        .open(&held)
        .unwrap();
    let (link, pipe, directory) = (s.path("link"), s.path("pipe"), s.path("at-nothing"));
    symlink(&free, &link).unwrap();
    run(&["mkfifo", &pipe]).expect("mkfifo");
    fs::create_dir(&directory).unwrap();
    let new = s.path("new");
    let same_new = format!("{directory}/../new");

    let image = s.torrent("image", &[(0, 16 * MIB)], Some(16 * MIB), Some(512));
    let image_4kn = s.torrent("image-4kn", &[(0, 16 * MIB)], Some(16 * MIB), Some(4096));
    let plain = s.torrent("plain", &[(0, 16 * MIB)], None, None);
    let odd = s.torrent("odd", &[(0, MIB), (2 * MIB + 512, MIB)], None, None);
    let low = s.torrent("low", &[(0, 9 * MIB + 777)], Some(1 << 30), Some(512));
    let part = s.torrent("part", &[(0, 4 * MIB)], Some(4 * MIB), Some(512));
    let part_1_more = s.torrent("part-1-more", &[(0, 4 * MIB + 1)], None, None);

    let must = "it must be a block device or a regular file";
    let mib_16 = "16.8 MB (16777216 bytes)";
    let cases: Vec<(Vec<&str>, String)> = vec![
        (
            vec![&image, &mounted],
            format!("target {mounted} is in use: {mounted} is mounted at {mounted_at}"),
        ),
        (
            vec![&image_4kn, &mounted_4kn],
            format!("target {mounted_4kn} is in use: {mounted_4kn} is mounted at {mounted_4kn_at}"),
        ),
        (
            vec![&image, &parted],
            format!("target {parted} is in use: {used_part} is mounted at {used_part_at}"),
        ),
        (
            vec![&part, &used_part],
            format!("target {used_part} is in use: {used_part} is mounted at {used_part_at}"),
        ),
        (
            vec![&image, &swap],
            format!("target {swap} is in use: {swap} is swap"),
        ),
        (
            vec![&image, &swap_parted],
            format!("target {swap_parted} is in use: {swap_part} is swap"),
        ),
        (
            vec![&part, &swap_part],
            format!("target {swap_part} is in use: {swap_part} is swap"),
        ),
        (
            vec![&image, &held],
            format!("target {held} is in use: mounted, swap, or held by another program"),
        ),
        (
            vec![&image, &below_loop],
            format!("target {below_loop} is in use: {below_loop} is held by {above_name}"),
        ),
        (
            vec![&image, &read_only],
            format!("target {read_only} is read-only"),
        ),
        (
            vec![&image, &small],
            format!("target {small} holds 16.8 MB (16776704 bytes), image needs {mib_16}"),
        ),
        (
            vec![&image_4kn, &small_4kn],
            format!("target {small_4kn} holds 16.8 MB (16773120 bytes), image needs {mib_16}"),
        ),
        (
            vec!["--allow-smaller", &image, &small],
            format!("target {small} holds 16.8 MB (16776704 bytes), image needs {mib_16}"),
        ),
        (
            vec![&low, &free],
            format!(
                "target {free} holds {mib_16}, image needs 1.1 GB (1073741824 bytes); its used ranges end at \
                 9.4 MB (9437961 bytes) and would fit, with --allow-smaller"
            ),
        ),
        (
            vec![&part_1_more, &free_part],
            format!(
                "target {free_part} holds 4.2 MB (4194304 bytes), image needs 4.2 MB (4194305 bytes)"
            ),
        ),
        (
            vec![&image, &free_4kn],
            format!(
                "target {free_4kn} has sectors of 4096 bytes, image was made on a disk with sectors of 512"
            ),
        ),
        (
            vec![&image_4kn, &free],
            format!(
                "target {free} has sectors of 512 bytes, image was made on a disk with sectors of 4096"
            ),
        ),
        (
            vec!["--allow-smaller", &low, &free_4kn],
            format!(
                "target {free_4kn} has sectors of 4096 bytes, image was made on a disk with sectors of 512"
            ),
        ),
        (
            vec![&odd, &free_4kn],
            format!(
                "target {free_4kn} has sectors of 4096 bytes, image has ranges in multiples of 512"
            ),
        ),
        (
            vec![&image, &free, &plain, &free],
            format!("target {free} is given twice"),
        ),
        (
            vec![&image, &free, &plain, &link],
            format!("target {link} is given twice"),
        ),
        (
            vec![&image, &idle, &part, &idle_part],
            format!("target {idle_part}: {idle_part} is a part of {idle}, and both are targets"),
        ),
        (
            vec![&part, &idle_part, &image, &idle],
            format!("target {idle}: {idle_part} is a part of {idle}, and both are targets"),
        ),
        (
            vec![&image, &new, &image, &same_new],
            format!("target {same_new} is given twice"),
        ),
        // The first would do; it is left alone for the sake of the second.
        (
            vec![&image, &free, &image, &small],
            format!("target {small} holds 16.8 MB (16776704 bytes), image needs {mib_16}"),
        ),
        (
            vec![&image, &directory],
            format!("target {directory} is a directory; {must}"),
        ),
        (
            vec![&image, &pipe],
            format!("target {pipe} is a named pipe; {must}"),
        ),
        (
            vec![&image, "/dev/null"],
            format!("target /dev/null is a character device; {must}"),
        ),
        (
            vec![&image, "/dev/sd-none"],
            "target /dev/sd-none: there is no such device".into(),
        ),
        (
            vec![&image, "/none/disk.img"],
            "cannot open target /none/disk.img: No such file or directory (os error 2)".into(),
        ),
    ];
    stage.settle();
    let before = stage.checksums(&[]);
    for (words, expected) in &cases {
        assert_refused(&stage, words, expected);
    }
    assert!(!Path::new(&new).exists());

    // The twins that must not be refused.
    for words in [
        vec![&*image, &*free],
        vec![&image_4kn, &free_4kn],
        vec![&plain, &free_4kn],
        vec!["--allow-smaller", &low, &free],
        vec![&part, &free_part],
        vec![&image_4kn, &new],
        vec![&image, &free, &image_4kn, &free_4kn, &part, &idle_part],
    ] {
        let output = get(&[&["--dry-run"], &words[..]].concat());
        assert!(output.status.success(), "{words:?}: {output:?}");
        assert!(
            String::from_utf8(output.stdout)
                .unwrap()
                .ends_with("nothing was written (--dry-run)\n")
        );
    }
    assert_eq!(stage.checksums(&[]), before, "a disk has changed");
    assert!(!Path::new(&new).exists());
}

/// Device mapper, where the kernel has it.
#[test]
fn a_disk_below_device_mapper() {
    let Some(mut stage) = Stage::new("dm") else {
        return;
    };
    let disk = stage.disk("disk", 16 * MIB, 512, &[]);
    let name = format!("swarmdd-test-{}", std::process::id());
    let table = format!("0 2048 linear {disk} 0");
    if run(&["dmsetup", "create", &name, "--table", &table]).is_none() {
        skip("no device mapper here");
        return;
    }
    stage.undo(&["dmsetup", "remove", "--retry", &name]);
    let number = run(&[
        "dmsetup",
        "info",
        "--columns",
        "--noheadings",
        "-o",
        "minor",
        &name,
    ])
    .expect("dmsetup");
    stage.settle();
    let expected = format!(
        "target {disk} is in use: {disk} is held by dm-{} ({name})",
        number.trim()
    );
    let image = stage.torrent("image", &[(0, 16 * MIB)], Some(16 * MIB), Some(512));
    assert_refused(&stage, &[&image, &disk], &expected);
}

/// Runs the agent on a machine of loop devices: sda is internal and has a partition, sdb is on USB,
/// sdc is internal.
struct Machine {
    stage: Stage,
    torrent: String,
    cmdline: String,
    /// Loop devices, by the name they have in there.
    disks: Vec<(&'static str, String)>,
}

impl Machine {
    fn new(name: &str) -> Option<Machine> {
        let mut stage = Stage::new(name)?;
        let disks: Vec<(&str, String)> = ["sda", "sdb", "sdc"]
            .map(|name| (name, stage.disk(name, 16 * MIB, 512, &[])))
            .into();
        let torrent = stage.torrent("image", &[(0, 16 * MIB)], Some(16 * MIB), Some(512));
        let mut machine = Machine {
            stage,
            torrent,
            cmdline: "quiet".into(),
            disks,
        };
        let ata = |n| format!("pci0000:00/ata{n}/host{n}/target{n}:0:0/{n}:0:0:0/block");
        let usb = "pci0000:00/usb1/1-4/1-4:1.0/host6/target6:0:0/6:0:0:0/block".to_string();
        machine.describe("sda", &ata(1), "naa.5000c500a1b2c3d4", "WD Blue", "WX11", 0);
        machine.describe("sdb", &usb, "t10.stick", "DataTraveler", "60A44C", 1);
        machine.describe("sdc", &ata(2), "naa.5000c500a1b2c3d5", "WD Blue", "WX22", 0);
        Some(machine)
    }

    fn describe(
        &mut self,
        name: &str,
        bus: &str,
        wwid: &str,
        model: &str,
        serial: &str,
        removable: u8,
    ) {
        let number = self.number(name);
        let directory = format!("sys/devices/{bus}/{name}");
        for (file, text) in [
            ("dev", number.as_str()),
            ("size", "32768"),
            ("ro", "0"),
            ("removable", &removable.to_string()),
            ("queue/logical_block_size", "512"),
            ("serial", serial),
            ("device/model", model),
            ("device/wwid", wwid),
        ] {
            self.file(&format!("{directory}/{file}"), text);
        }
        fs::create_dir_all(self.stage.directory.join("sys/block")).unwrap();
        symlink(
            format!("../devices/{bus}/{name}"),
            self.stage.directory.join("sys/block").join(name),
        )
        .unwrap();
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.stage.directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn device(&self, name: &str) -> &str {
        &self.disks.iter().find(|(one, _)| *one == name).unwrap().1
    }

    fn number(&self, name: &str) -> String {
        let rdev = fs::metadata(self.device(name)).unwrap().rdev();
        format!("{}:{}", libc::major(rdev), libc::minor(rdev))
    }

    /// The torrent stands before each target.
    fn get(&self, words: &[&str]) -> Output {
        let here = self.stage.directory.display();
        self.file("cmdline", &self.cmdline);
        fs::create_dir_all(self.stage.directory.join("dev/disk/by-id")).unwrap();
        let mut nodes =
            String::from("ln -s ../../sda /dev/disk/by-id/first; mknod /dev/null c 1 3");
        for (name, _) in &self.disks {
            nodes += &format!(
                "; mknod /dev/{name} b {}",
                self.number(name).replace(':', " ")
            );
        }
        let script = format!(
            "set -e; mount --bind {here}/sys /sys; mount --bind {here}/cmdline /proc/cmdline; \
             mount -t tmpfs none /dev; mkdir -p /dev/disk/by-id; {nodes}; exec \"$@\""
        );
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            &script,
            "sh",
        ]);
        command.args([
            env!("CARGO_BIN_EXE_swarmdd"),
            "get",
            "--progress",
            "none",
            "--listen",
            "127.0.0.1:0",
        ]);
        for word in words {
            // An option goes as it is.
            command
                .args((!word.starts_with('-')).then_some(&self.torrent))
                .arg(word);
        }
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn assert_refused(&self, words: &[&str], expected: &str) {
        let before = self.stage.checksums(&[]);
        for dry_run in [&["--dry-run"][..], &[]] {
            assert_eq!(
                refusal(&self.get(&[dry_run, words].concat())),
                expected,
                "{words:?}"
            );
        }
        assert_eq!(
            self.stage.checksums(&[]),
            before,
            "{words:?} has changed a disk"
        );
    }

    /// The table below a refusal, with these verdicts.
    fn table(&self, verdicts: [&str; 3]) -> String {
        let [sda, sdb, sdc] = verdicts;
        format!(
            "\n  /dev/sda  16.8 MB  WD Blue       WX11    {sda}\
             \n  /dev/sdb  16.8 MB  DataTraveler  60A44C  {sdb}\
             \n  /dev/sdc  16.8 MB  WD Blue       WX22    {sdc}"
        )
    }

    fn assert_selects(&self, selector: &str, path: &str) {
        let output = self.get(&["--dry-run", selector]);
        let said = String::from_utf8(output.stdout.clone()).unwrap();
        assert!(
            said.contains(&format!(
                "\n  target      {path}, 16.8 MB (16777216 bytes)\n"
            )),
            "{output:?}"
        );
    }
}

#[test]
fn selectors() {
    let Some(mut machine) = Machine::new("selectors") else {
        return;
    };
    let m = &machine;
    for (selector, path) in [
        ("disk:serial=WX22", "/dev/sdc"),
        ("disk:serial=wx11", "/dev/sda"),
        ("disk:wwn=0x5000c500a1b2c3d5", "/dev/sdc"),
        ("disk:model=DataTraveler", "/dev/sdb"),
        ("disk:path=/dev/disk/by-id/first", "/dev/sda"),
        ("disk:auto,serial=WX22,size=16M..16M", "/dev/sdc"),
    ] {
        m.assert_selects(selector, path);
    }
    let none = |selector: &str| format!("target {selector} fits no disk:");
    let two = |selector: &str| format!("target {selector} fits 2 disks and must fit one:");
    let table = |verdicts| m.table(verdicts);
    for (selectors, expected) in [
        (
            vec!["disk:auto"],
            two("disk:auto") + &table(["fits", "on USB", "fits"]),
        ),
        (
            vec!["disk:model=WD Blue"],
            two("disk:model=WD Blue") + &table(["fits", "another model", "fits"]),
        ),
        (
            vec!["disk:serial=WX33"],
            none("disk:serial=WX33") + &table(["another serial"; 3]),
        ),
        (
            vec!["disk:wwn=5000c500a1b2c3d6"],
            none("disk:wwn=5000c500a1b2c3d6") + &table(["another WWN"; 3]),
        ),
        (
            vec!["disk:size=17M.."],
            none("disk:size=17M..") + &table(["too small"; 3]),
        ),
        (
            vec!["disk:size=..1M"],
            none("disk:size=..1M") + &table(["too large"; 3]),
        ),
        (
            vec!["disk:auto,serial=60A44C"],
            none("disk:auto,serial=60A44C")
                + &table(["another serial", "on USB", "another serial"]),
        ),
        (
            vec!["disk:path=/dev/sdz"],
            none("disk:path=/dev/sdz") + &table(["another path"; 3]),
        ),
        (
            vec!["disk:serial=WX22", "disk:serial=WX22"],
            none("disk:serial=WX22")
                + &table(["another serial", "another serial", "a target already"]),
        ),
        (
            vec!["disk:serial=WX22", "/dev/sdc"],
            "target /dev/sdc is given twice".into(),
        ),
    ] {
        m.assert_refused(&selectors, &expected);
    }

    // One is in use, so the other is the only one; and what is in use cannot be had by any name.
    let sda = machine.device("sda").to_string();
    let at = machine.stage.mount(&sda);
    machine.stage.settle();
    machine.assert_selects("disk:auto", "/dev/sdc");
    let mounted = format!("/dev/sda is mounted at {at}");
    let verdicts = [&*mounted, "another serial", "another serial"];
    machine.assert_refused(
        &["disk:serial=WX11"],
        &(none("disk:serial=WX11") + &machine.table(verdicts)),
    );
    let verdicts = [&*mounted, "another path", "another path"];
    machine.assert_refused(
        &["disk:path=/dev/sda"],
        &(none("disk:path=/dev/sda") + &machine.table(verdicts)),
    );
    machine.assert_refused(
        &["/dev/sda"],
        &format!("target /dev/sda is in use: {mounted}"),
    );

    let holder = File::options()
        .read(true)
        .custom_flags(libc::O_EXCL)
        .open(machine.device("sdc"))
        .unwrap();
    let verdicts = [&*mounted, "on USB", "held by another program"];
    machine.assert_refused(
        &["disk:auto"],
        &(none("disk:auto") + &machine.table(verdicts)),
    );
    drop(holder);

    // A live system in RAM: its stick is not mounted, and no candidate; by path it may be had.
    machine.cmdline = "boot=live toram bootfrom=/dev/sdb".into();
    let booted = "/dev/sdb is what this system was booted from (bootfrom=/dev/sdb)";
    let verdicts = ["another serial", booted, "another serial"];
    machine.assert_refused(
        &["disk:serial=60A44C"],
        &(none("disk:serial=60A44C") + &machine.table(verdicts)),
    );
    machine.assert_selects("/dev/sdb", "/dev/sdb");
    machine.cmdline = "root=/dev/sdc".into();
    let booted = "/dev/sdc is what this system was booted from (root=/dev/sdc)";
    let verdicts = [&*mounted, "on USB", booted];
    machine.assert_refused(
        &["disk:auto"],
        &(none("disk:auto") + &machine.table(verdicts)),
    );

    for (target, expected) in [
        (
            "disk:",
            r#"target "disk:" is incomplete: a path, disk:auto, or disk:KEY=VALUE,…"#,
        ),
        (
            "disk:sda",
            r#"target "disk:sda": "sda" is none of auto, serial, wwn, model, size, path"#,
        ),
        (
            "disk:size=16M",
            r#"target "disk:size=16M": "16M" is no range: size=MIN.., size=..MAX or size=MIN..MAX"#,
        ),
    ] {
        let output = machine.get(&[target]);
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            said,
            format!("swarmdd: get: {expected}\ntry 'swarmdd get --help'\n")
        );
    }
}

/// What would be overwritten, and how much of the image is there already.
#[test]
fn the_plan() {
    let Some(mut stage) = Stage::new("plan") else {
        return;
    };
    let s = &mut stage;
    let disk = s.disk("disk", 16 * MIB, 512, &[]);
    let [one, two] = s.partitions(&disk);
    run(&["mkfs.vfat", "-n", "ESP", &one]).expect("mkfs.vfat");
    run(&["mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", &two]).expect("mke2fs");
    // An image of other bytes: 100 pieces, of which 10 are zeros and 9 repeat the first.
    let fill = |n: u8| match n % 10 {
        9 => 0,
        0 => 200,
        _ => n,
    };
    let piece = |n: u8| [fill(n); PIECE_BYTES as usize];
    let image = s.path("image");
    fs::write(&image, (0..100).flat_map(piece).collect::<Vec<u8>>()).unwrap();
    let torrent = s.path("image.torrent");
    let make = |words: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_swarmdd"))
            .arg("make")
            .args(words)
            .output()
            .unwrap()
    };
    assert!(
        make(&[&image, "-o", &torrent, "--piece-size", "64K"])
            .status
            .success()
    );
    let small_torrent = stage.torrent("small", &[(0, MIB)], None, None);
    let plan = |words: &[&str]| {
        let output = get(&[&["--dry-run"], words].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let line = |plan: &str, key: &str| -> String {
        let (begin, key) = (format!("  {key}"), format!("no {key} in: {plan}"));
        let mut lines = plan.lines().skip_while(|line| !line.starts_with(&begin));
        let first = lines
            .next()
            .expect(&key)
            .trim_start()
            .split_once(' ')
            .unwrap()
            .1
            .trim_start();
        let more = lines
            .take_while(|line| line.starts_with("     "))
            .map(str::trim_start);
        [first]
            .into_iter()
            .chain(more)
            .collect::<Vec<_>>()
            .join("\n")
    };

    stage.settle();
    let before = stage.checksums(&[]);
    let text = plan(&[&torrent, &disk]);
    assert_eq!(
        line(&text, "target"),
        format!("{disk}, 16.8 MB (16777216 bytes)")
    );
    assert_eq!(line(&text, "disk"), "virtual, sectors of 512");
    assert_eq!(
        line(&text, "ranges"),
        "1, from byte 0 to byte 6553599 of the target"
    );
    assert_eq!(
        line(&text, "overwrites"),
        format!(
            "{disk}, 16.8 MB (16777216 bytes): gpt\n\
             {one}, 4.2 MB (4194304 bytes): vfat \"ESP\"\n\
             {two}, 4.2 MB (4194304 bytes): ext4 \"root\""
        )
    );
    let nothing = "5.3 MB (5308416 bytes) in 81 pieces\npieces not fetched: 0 there already, 10 zeros, 9 repeated";
    assert_eq!(line(&text, "fetches"), nothing);
    assert_eq!(stage.checksums(&[]), before);
    assert_eq!(
        line(&plan(&[&small_torrent, &two]), "overwrites"),
        format!("{two}, 4.2 MB (4194304 bytes): ext4 \"root\"")
    );

    // All of it is there, then all but two pieces, one of which has equals.
    let bytes = fs::read(&image).unwrap();
    let device = File::options().write(true).open(&disk).unwrap();
    device.write_all_at(&bytes, 0).unwrap();
    device.sync_all().unwrap();
    let all =
        "0 B (0 bytes) in 0 pieces\npieces not fetched: 90 there already, 10 zeros, 0 repeated";
    assert_eq!(line(&plan(&[&torrent, &disk]), "fetches"), all);
    device
        .write_all_at(b"x", 10 * u64::from(PIECE_BYTES))
        .unwrap();
    device
        .write_all_at(b"x", 11 * u64::from(PIECE_BYTES))
        .unwrap();
    device.sync_all().unwrap();
    let some = "131.1 kB (131072 bytes) in 2 pieces\npieces not fetched: 88 there already, 10 zeros, 0 repeated";
    assert_eq!(line(&plan(&[&torrent, &disk]), "fetches"), some);
    assert_eq!(
        line(&plan(&["--fresh", &torrent, &disk]), "fetches"),
        nothing
    );

    // Also a partition may be the disk of somebody.
    let disk_image = stage.torrent("disk-image", &[(0, MIB)], Some(4 * MIB), Some(512));
    let fitted = "a GPT gets its backup at the end of the target";
    assert_eq!(line(&plan(&[&disk_image, &disk]), "afterwards"), fitted);
    let grown = format!("{fitted}, and its last partition grows to there");
    assert_eq!(
        line(&plan(&["--grow-last", &disk_image, &disk]), "afterwards"),
        grown
    );
    assert_eq!(line(&plan(&[&disk_image, &two]), "afterwards"), fitted);
    assert!(!text.contains("afterwards"));

    let new = stage.path("new");
    let text = plan(&[&torrent, &new]);
    assert_eq!(line(&text, "target"), format!("{new}, a regular file"));
    assert_eq!(line(&text, "overwrites"), "nothing: the file is new");
}
