//! Is the right disk chosen, and does every other disk stay as it was? The real binary on real loop
//! devices of both sector sizes.
//!
//! Each case is refused with exactly this message, with and without `--dry-run`, and each target
//! holds afterwards what it held before. Selectors read sysfs, so they run in a mount namespace of
//! their own in which /sys, /dev and the kernel's command line describe a machine whose disks are
//! these loop devices.
//!
//! The tests need root and losetup. Without them, they print that they were skipped.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use swarm_proto::format::metainfo_write::{Content, Description, write};
use swarm_proto::units::{DiskOffset, PieceHash};

const MIB: u64 = 1 << 20;
const PIECE_BYTES: u32 = 64 << 10;

/// The loop devices, mounts and swaps of a test. All of them are removed when it is dropped, also
/// when the test fails.
struct Stage {
    directory: PathBuf,
    /// Loop devices and the files behind them, except swap: the kernel may write to that.
    disks: Vec<(String, String)>,
    /// Commands to run at the end, the last one first.
    undo: Vec<Vec<String>>,
}

impl Stage {
    /// `None`, and a line that says so, on a machine without root or loop devices.
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

    /// A loop device full of `name`, so that a changed byte shows.
    fn disk(&mut self, name: &str, bytes: u64, sector: u32, options: &[&str]) -> String {
        let file = self.path(&format!("{name}.disk"));
        let filling = format!("{name:-<16}").repeat((bytes / 16) as usize);
        fs::write(&file, filling).unwrap();
        let sector = sector.to_string();
        // With --partscan, the kernel forgets old partitions of the loop device now, and ours when
        // it is detached.
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

    /// Makes a GPT with two partitions of 4 MiB each, the first at 1 MiB.
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
        // Mounted to write, its super block would change.
        run(&["mount", "-o", "ro", device, &at]).expect("mount");
        self.undo(&["umount", &at]);
        at
    }

    fn swap(&mut self, device: &str) {
        run(&["mkswap", device]).expect("mkswap");
        run(&["swapon", device]).expect("swapon");
        self.undo(&["swapoff", device]);
        self.disks
            .retain(|(disk, _)| !is_disk_or_part(device, disk));
    }

    /// A torrent whose pieces are all equal, at these ranges of a disk.
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
            needed_bytes: None,
            table: None,
        });
        let path = self.path(&format!("{name}.torrent"));
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Waits until all that the tools wrote is on the disks.
    fn sync(&self) {
        run(&["sync"]).expect("sync");
    }

    /// A checksum of every disk that one of these words names; of all disks if there are no words.
    fn checksums(&self, words: &[&str]) -> Vec<(String, u32)> {
        let wanted = |device: &str| {
            words.is_empty() || words.iter().any(|word| is_disk_or_part(word, device))
        };
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
            // A command may fail because the test has done the same. The others must still run.
            let _ = run(&words);
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Written past the test harness, which hides the output of tests that pass.
fn skip(reason: &str) {
    let _ = writeln!(std::io::stderr(), "tests/targets.rs: skipped: {reason}");
}

/// Whether `path` is the disk or a partition of it.
fn is_disk_or_part(path: &str, disk: &str) -> bool {
    path.strip_prefix(disk)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('p'))
}

/// The output of a command; `None` if it failed.
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

/// The reason that `get` gives for the refused pair, without the names of the pair.
fn refusal(output: &Output) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "stderr: {stderr}");
    let reasons = stderr
        .trim_end()
        .split("swarmdd: ")
        .filter_map(|line| line.split_once(": failed: "));
    let own: Vec<&str> = reasons
        .map(|(_, reason)| reason.trim_end())
        .filter(|reason| !reason.starts_with("not begun"))
        .collect();
    assert_eq!(own.len(), 1, "stderr: {stderr}");
    own[0].into()
}

fn get(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarmdd"));
    command
        .args(["get", "--progress", "none", "--listen", "127.0.0.1:0"])
        .args(words);
    command.stdin(Stdio::null()).output().unwrap()
}

/// The same refusal with and without `--dry-run`, and no disk has changed.
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

/// Arguments of `get`, and the reason of the refusal.
type Case<'a> = (Vec<&'a str>, String);

/// `assert_refused` for each case, and in the end no disk of the stage has changed.
fn assert_all_refused(stage: &Stage, cases: &[Case]) {
    stage.sync();
    let before = stage.checksums(&[]);
    for (words, expected) in cases {
        assert_refused(stage, words, expected);
    }
    assert_eq!(stage.checksums(&[]), before, "a disk has changed");
}

/// The twins of refused cases: a dry run accepts them.
fn assert_accepted(stage: &Stage, cases: &[Vec<&str>]) {
    stage.sync();
    let before = stage.checksums(&[]);
    for words in cases {
        let output = get(&[&["--dry-run"], &words[..]].concat());
        assert!(output.status.success(), "{words:?}: {output:?}");
        assert!(
            String::from_utf8(output.stdout)
                .unwrap()
                .ends_with("nothing was written (--dry-run)\n")
        );
    }
    assert_eq!(stage.checksums(&[]), before, "a disk has changed");
}

#[test]
fn targets_in_use_are_refused() {
    let Some(mut stage) = Stage::new("in-use") else {
        return;
    };
    let s = &mut stage;
    let mounted = s.disk("mounted", 16 * MIB, 512, &[]);
    let mounted_at = s.mount(&mounted);
    let mounted_4kn = s.disk("mounted-4kn", 16 * MIB, 4096, &[]);
    let mounted_4kn_at = s.mount(&mounted_4kn);
    let parted = s.disk("parted", 16 * MIB, 512, &[]);
    let [used_part, free_part] = s.partitions(&parted);
    let used_part_at = s.mount(&used_part);
    let image = s.torrent("image", &[(0, 16 * MIB)], Some(16 * MIB), Some(512));
    let image_4kn = s.torrent("image-4kn", &[(0, 16 * MIB)], Some(16 * MIB), Some(4096));
    let part = s.torrent("part", &[(0, 4 * MIB)], Some(4 * MIB), Some(512));

    let cases: Vec<Case> = vec![
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
    ];
    assert_all_refused(&stage, &cases);
    assert_accepted(&stage, &[vec![&part, &free_part]]);
}

#[test]
fn targets_that_are_swap_or_held_are_refused() {
    let Some(mut stage) = Stage::new("held") else {
        return;
    };
    let s = &mut stage;
    let swap = s.disk("swap", 16 * MIB, 512, &[]);
    s.swap(&swap);
    let swap_parted = s.disk("swap-parted", 16 * MIB, 512, &[]);
    let [swap_part, _] = s.partitions(&swap_parted);
    s.swap(&swap_part);
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
    let image = s.torrent("image", &[(0, 16 * MIB)], Some(16 * MIB), Some(512));
    let part = s.torrent("part", &[(0, 4 * MIB)], Some(4 * MIB), Some(512));

    let cases: Vec<Case> = vec![
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
    ];
    assert_all_refused(&stage, &cases);
}

#[test]
fn targets_that_are_too_small_or_read_only_are_refused() {
    let Some(mut stage) = Stage::new("small") else {
        return;
    };
    let s = &mut stage;
    let free = s.disk("free", 16 * MIB, 512, &[]);
    let read_only = s.disk("read-only", 16 * MIB, 512, &["--read-only"]);
    let small = s.disk("small", 16 * MIB - 512, 512, &[]);
    let small_4kn = s.disk("small-4kn", 16 * MIB - 4096, 4096, &[]);
    let parted = s.disk("parted", 16 * MIB, 512, &[]);
    let [_, free_part] = s.partitions(&parted);
    let image = s.torrent("image", &[(0, 16 * MIB)], Some(16 * MIB), Some(512));
    let image_4kn = s.torrent("image-4kn", &[(0, 16 * MIB)], Some(16 * MIB), Some(4096));
    let low = s.torrent("low", &[(0, 9 * MIB + 777)], Some(1 << 30), Some(512));
    let part_1_more = s.torrent("part-1-more", &[(0, 4 * MIB + 1)], None, None);

    let mib_16 = "16.8 MB (16777216 bytes)";
    let cases: Vec<Case> = vec![
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
    ];
    assert_all_refused(&stage, &cases);
    assert_accepted(
        &stage,
        &[vec![&image, &free], vec!["--allow-smaller", &low, &free]],
    );
}

#[test]
fn targets_with_other_sectors_are_refused() {
    let Some(mut stage) = Stage::new("sectors") else {
        return;
    };
    let s = &mut stage;
    let free = s.disk("free", 16 * MIB, 512, &[]);
    let free_4kn = s.disk("free-4kn", 16 * MIB, 4096, &[]);
    let image = s.torrent("image", &[(0, 16 * MIB)], Some(16 * MIB), Some(512));
    let image_4kn = s.torrent("image-4kn", &[(0, 16 * MIB)], Some(16 * MIB), Some(4096));
    let plain = s.torrent("plain", &[(0, 16 * MIB)], None, None);
    let odd = s.torrent("odd", &[(0, MIB), (2 * MIB + 512, MIB)], None, None);
    let low = s.torrent("low", &[(0, 9 * MIB + 777)], Some(1 << 30), Some(512));

    let cases: Vec<Case> = vec![
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
    ];
    assert_all_refused(&stage, &cases);
    let twins: Vec<Vec<&str>> = vec![vec![&image_4kn, &free_4kn], vec![&plain, &free_4kn]];
    assert_accepted(&stage, &twins);
}

#[test]
fn targets_that_overlap_are_refused() {
    let Some(mut stage) = Stage::new("overlap") else {
        return;
    };
    let s = &mut stage;
    let free = s.disk("free", 16 * MIB, 512, &[]);
    let free_4kn = s.disk("free-4kn", 16 * MIB, 4096, &[]);
    let small = s.disk("small", 16 * MIB - 512, 512, &[]);
    let idle = s.disk("idle", 16 * MIB, 512, &[]);
    let [idle_part, _] = s.partitions(&idle);
    let (link, directory) = (s.path("link"), s.path("directory"));
    symlink(&free, &link).unwrap();
    fs::create_dir(&directory).unwrap();
    let new = s.path("new");
    let same_new = format!("{directory}/../new");
    let image = s.torrent("image", &[(0, 16 * MIB)], Some(16 * MIB), Some(512));
    let image_4kn = s.torrent("image-4kn", &[(0, 16 * MIB)], Some(16 * MIB), Some(4096));
    let plain = s.torrent("plain", &[(0, 16 * MIB)], None, None);
    let part = s.torrent("part", &[(0, 4 * MIB)], Some(4 * MIB), Some(512));

    let cases: Vec<Case> = vec![
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
            format!("target {idle_part}: {idle_part} is a part of {idle}, and both are given"),
        ),
        (
            vec![&part, &idle_part, &image, &idle],
            format!("target {idle}: {idle_part} is a part of {idle}, and both are given"),
        ),
        (
            vec![&image, &new, &image, &same_new],
            format!("target {same_new} is given twice"),
        ),
        // The first target would fit. It is not written, because the second does not.
        (
            vec![&image, &free, &image, &small],
            format!(
                "target {small} holds 16.8 MB (16776704 bytes), image needs 16.8 MB (16777216 bytes)"
            ),
        ),
    ];
    assert_all_refused(&stage, &cases);
    assert!(!Path::new(&new).exists());
    let twins: Vec<Vec<&str>> = vec![
        vec![&image_4kn, &new],
        vec![&image, &free, &image_4kn, &free_4kn, &part, &idle_part],
    ];
    assert_accepted(&stage, &twins);
    assert!(!Path::new(&new).exists());
}

#[test]
fn paths_that_are_no_disks_are_refused() {
    let Some(stage) = Stage::new("no-disks") else {
        return;
    };
    let (pipe, directory) = (stage.path("pipe"), stage.path("directory"));
    run(&["mkfifo", &pipe]).expect("mkfifo");
    fs::create_dir(&directory).unwrap();
    let image = stage.torrent("image", &[(0, 16 * MIB)], Some(16 * MIB), Some(512));

    let must = "it must be a block device or a regular file";
    let cases: Vec<Case> = vec![
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
    assert_all_refused(&stage, &cases);
}

/// Skipped on a kernel without device mapper.
#[test]
fn a_disk_below_device_mapper_is_refused() {
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
    stage.sync();
    let expected = format!(
        "target {disk} is in use: {disk} is held by dm-{} ({name})",
        number.trim()
    );
    let image = stage.torrent("image", &[(0, 16 * MIB)], Some(16 * MIB), Some(512));
    assert_refused(&stage, &[&image, &disk], &expected);
}

/// What is written while a disk is described would make an image that never was.
#[test]
fn a_source_in_use_is_refused_unless_live() {
    let Some(mut stage) = Stage::new("live") else {
        return;
    };
    let disk = stage.disk("disk", 16 * MIB, 512, &[]);
    let [part, _] = stage.partitions(&disk);
    let [image, torrent] = ["disk.disk", "x.torrent"].map(|name| stage.path(name));
    let make = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_swarmdd"));
        command.args([&["make", "-o", &torrent][..], words].concat());
        command.stdin(Stdio::null()).output().unwrap()
    };
    // The whole disk, the partition, and the file below the loop device.
    let sources = [disk.as_str(), &part, &image];
    let assert_refused = |why: &str| {
        for source in sources {
            let expected = format!(
                "swarmdd: source {source} is in use and may change while it is read: \
                 {why}; --live takes it as it is\n"
            );
            let output = make(&[source]);
            assert_eq!(output.status.code(), Some(1), "{source}");
            assert_eq!(String::from_utf8(output.stderr).unwrap(), expected);
            assert!(!Path::new(&torrent).exists());
        }
    };
    let at = stage.mount(&part);
    for source in sources {
        let output = make(&[source]);
        assert!(output.status.success(), "read-only: {source}: {output:?}");
    }
    run(&["mount", "-o", "remount,rw", &at]).expect("remount");
    fs::remove_file(&torrent).unwrap();
    assert_refused(&format!("{part} is mounted at {at}"));
    let output = make(&["--live", &disk]);
    assert!(output.status.success(), "{output:?}");
    let output = Command::new(env!("CARGO_BIN_EXE_swarmdd"))
        .args(["seed", "--listen", "127.0.0.1:0", "--seed-secs", "0"])
        .args([&torrent, &disk])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let in_use = format!("source {disk} is in use: {part} is mounted at {at}; pieces that change");
    assert!(output.status.success() && said.contains(&in_use), "{said}");

    run(&["umount", &at]).expect("umount");
    fs::remove_file(&torrent).unwrap();
    let mut writer = Command::new("sh")
        .args(["-c", "exec 3<>$0; echo; exec sleep 60", &disk])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    BufReader::new(writer.stdout.take().unwrap())
        .read_line(&mut String::new())
        .unwrap();
    let output = make(&[&disk]);
    writer.kill().unwrap();
    writer.wait().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let id = writer.id();
    assert!(
        said.contains(&format!("(process {id}) has opened it to write")),
        "{said}"
    );
    let output = make(&[&disk]);
    assert!(output.status.success(), "{output:?}");
}

/// Without that, a power cut right after "done" could leave no file.
#[test]
fn the_directory_of_a_new_file_is_written_too() {
    let Some(stage) = Stage::new("directory") else {
        return;
    };
    if run(&["strace", "-o", "/dev/null", "true"]).is_none() {
        return skip("no strace here");
    }
    let [zeros, torrent, new] = ["zeros.img", "x.torrent", "new.img"].map(|name| stage.path(name));
    File::create(&zeros).unwrap().set_len(MIB).unwrap();
    let get = [
        "get",
        "--no-seed",
        "--listen",
        "127.0.0.1:0",
        &torrent,
        &new,
    ];
    for arguments in [&["make", "--single", &zeros, "-o", &torrent][..], &get] {
        let trace = stage.path("trace");
        let strace = ["strace", "-f", "-y", "-e", "trace=fsync", "-o", &trace];
        let agent = [env!("CARGO_BIN_EXE_swarmdd")];
        run(&[&strace[..], &agent, arguments].concat()).expect("the agent below strace");
        let synced = fs::read_to_string(&trace).unwrap();
        let directory = fs::canonicalize(&stage.directory).unwrap();
        let expected = format!("<{}>) = 0", directory.display());
        assert!(synced.contains(&expected), "{arguments:?}: {synced}");
    }
}

/// Runs the agent on a machine of loop devices: sda is internal and has a partition, sdb is on USB,
/// sdc is internal.
struct Machine {
    stage: Stage,
    torrent: String,
    cmdline: String,
    /// Loop devices, with the names they have on this machine.
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

    /// Runs `get` with the torrent before each target.
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
            // An option has no torrent before it.
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

    /// The table below a refusal, with these reasons.
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
        let stdout = String::from_utf8(output.stdout.clone()).unwrap();
        assert!(
            stdout.contains(&format!(
                "\n  target      {path}, 16.8 MB (16777216 bytes)\n"
            )),
            "{output:?}"
        );
    }
}

impl Machine {
    /// The refusal of a selector that fits no disk, with the reason of each disk.
    fn fits_none(&self, selector: &str, reasons: [&str; 3]) -> String {
        let [sda, sdb, sdc] = reasons;
        let told = match sda == sdb && sdb == sdc {
            true => sda.to_string(),
            false => format!("/dev/sda ({sda}), /dev/sdb ({sdb}), /dev/sdc ({sdc})"),
        };
        format!("target {selector} fits no disk: {told}") + &self.table(reasons)
    }
}

#[test]
fn a_selector_that_fits_one_disk_chooses_it() {
    let Some(machine) = Machine::new("selectors") else {
        return;
    };
    for (selector, path) in [
        ("disk:serial=WX22", "/dev/sdc"),
        ("disk:serial=wx11", "/dev/sda"),
        ("disk:wwn=0x5000c500a1b2c3d5", "/dev/sdc"),
        ("disk:model=DataTraveler", "/dev/sdb"),
        ("disk:path=/dev/disk/by-id/first", "/dev/sda"),
        ("disk:path=/dev/disk/by-id/ata-WD_Blue_WX22", "/dev/sdc"),
        ("/dev/disk/by-id/wwn-0x5000c500a1b2c3d5", "/dev/sdc"),
        ("disk:auto,serial=WX22,size=16M..16M", "/dev/sdc"),
    ] {
        machine.assert_selects(selector, path);
    }
}

#[test]
fn a_selector_that_does_not_fit_one_disk_is_refused() {
    let Some(machine) = Machine::new("refused-selectors") else {
        return;
    };
    let none = |selector: &str, reasons| machine.fits_none(selector, reasons);
    let two = |selector: &str, reasons| {
        let start = format!("target {selector} fits 2 disks and must fit one: /dev/sda, /dev/sdc");
        start + &machine.table(reasons)
    };
    for (selectors, expected) in [
        (
            vec!["disk:auto"],
            two("disk:auto", ["fits", "on USB", "fits"]),
        ),
        (
            vec!["disk:model=WD Blue"],
            two("disk:model=WD Blue", ["fits", "another model", "fits"]),
        ),
        (
            vec!["disk:serial=WX33"],
            none("disk:serial=WX33", ["another serial"; 3]),
        ),
        (
            vec!["disk:wwn=5000c500a1b2c3d6"],
            none("disk:wwn=5000c500a1b2c3d6", ["another WWN"; 3]),
        ),
        (
            vec!["disk:size=17M.."],
            none("disk:size=17M..", ["too small"; 3]),
        ),
        (
            vec!["disk:size=..1M"],
            none("disk:size=..1M", ["too large"; 3]),
        ),
        (
            vec!["disk:auto,serial=60A44C"],
            none(
                "disk:auto,serial=60A44C",
                ["another serial", "on USB", "another serial"],
            ),
        ),
        (
            vec!["disk:path=/dev/sdz"],
            none("disk:path=/dev/sdz", ["no such path"; 3]),
        ),
        (
            vec!["disk:serial=WX22", "disk:serial=WX22"],
            none(
                "disk:serial=WX22",
                ["another serial", "another serial", "a target already"],
            ),
        ),
        (
            vec!["disk:serial=WX22", "/dev/sdc"],
            "target /dev/sdc is given twice".into(),
        ),
    ] {
        machine.assert_refused(&selectors, &expected);
    }
}

/// sda is mounted, so sdc is the only disk for `auto`; and no selector and no path gets sda.
#[test]
fn a_selector_chooses_no_disk_in_use() {
    let Some(mut machine) = Machine::new("used-disks") else {
        return;
    };
    let sda = machine.device("sda").to_string();
    let at = machine.stage.mount(&sda);
    machine.stage.sync();
    machine.assert_selects("disk:auto", "/dev/sdc");
    let mounted = format!("/dev/sda is mounted at {at}");
    let reasons = [&*mounted, "another serial", "another serial"];
    machine.assert_refused(
        &["disk:serial=WX11"],
        &machine.fits_none("disk:serial=WX11", reasons),
    );
    let reasons = [&*mounted, "another path", "another path"];
    machine.assert_refused(
        &["disk:path=/dev/sda"],
        &machine.fits_none("disk:path=/dev/sda", reasons),
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
    let reasons = [&*mounted, "on USB", "held by another program"];
    machine.assert_refused(&["disk:auto"], &machine.fits_none("disk:auto", reasons));
    drop(holder);

    machine.cmdline = "root=/dev/sdc".into();
    let booted = "/dev/sdc is what this system was booted from (root=/dev/sdc)";
    let reasons = [&*mounted, "on USB", booted];
    machine.assert_refused(&["disk:auto"], &machine.fits_none("disk:auto", reasons));
}

/// A disk is pulled out after it was chosen, and another one gets its name and its number.
#[test]
fn another_disk_of_the_same_name_is_refused() {
    let Some(machine) = Machine::new("sequence") else {
        return;
    };
    let name = machine.device("sdc").rsplit('/').next().unwrap();
    let sequence = fs::read_to_string(format!("/sys/block/{name}/diskseq")).unwrap_or_default();
    let Ok(sequence) = sequence.trim().parse::<u64>() else {
        return skip("this kernel does not number disks");
    };
    let file = "sys/devices/pci0000:00/ata2/host2/target2:0:0/2:0:0:0/block/sdc/diskseq";
    machine.file(file, &sequence.to_string());
    machine.assert_selects("disk:serial=WX22", "/dev/sdc");
    machine.file(file, &(sequence - 1).to_string());
    let changed = "/dev/sdc became another file while it was being opened";
    for target in ["disk:serial=WX22", "/dev/sdc"] {
        machine.assert_refused(&[target], changed);
    }
}

/// The stick of a live system in RAM is not mounted. No selector chooses it, but its path does.
#[test]
fn the_boot_disk_is_chosen_by_path_only() {
    let Some(mut machine) = Machine::new("boot-disk") else {
        return;
    };
    machine.cmdline = "boot=live toram bootfrom=/dev/sdb".into();
    let booted = "/dev/sdb is what this system was booted from (bootfrom=/dev/sdb)";
    let reasons = ["another serial", booted, "another serial"];
    machine.assert_refused(
        &["disk:serial=60A44C"],
        &machine.fits_none("disk:serial=60A44C", reasons),
    );
    machine.assert_selects("/dev/sdb", "/dev/sdb");
}

#[test]
fn mistakes_in_a_selector_are_usage_errors() {
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
        let output = get(&["image.torrent", target]);
        assert_eq!(output.status.code(), Some(2));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            stderr,
            format!("swarmdd: get: {expected}\ntry 'swarmdd get --help'\n")
        );
    }
}

/// An image of 100 pieces, of which 10 are zeros and 9 repeat the first, and its torrent.
fn image_of_100_pieces(stage: &Stage) -> (Vec<u8>, String) {
    let fill = |n: u8| match n % 10 {
        9 => 0,
        0 => 200,
        _ => n,
    };
    let piece = |n: u8| [fill(n); PIECE_BYTES as usize];
    let bytes: Vec<u8> = (0..100).flat_map(piece).collect();
    let (image, torrent) = (stage.path("image"), stage.path("image.torrent"));
    fs::write(&image, &bytes).unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_swarmdd"))
        .args(["make", &image, "-o", &torrent, "--piece-size", "64K"])
        .output()
        .unwrap();
    assert!(made.status.success());
    (bytes, torrent)
}

/// What the plan says of these 100 pieces if none of them is on the target.
const ALL_FETCHED: &str = "5.3 MB (5308416 bytes) in 81 pieces\n\
    pieces not fetched: 0 there already, 10 zeros, 9 repeated";

/// What `get --dry-run` prints.
fn plan(words: &[&str]) -> String {
    let output = get(&[&["--dry-run"], words].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The entry of a plan with this key, without the indentation of its lines.
fn entry(plan: &str, key: &str) -> String {
    let (begin, missing) = (format!("  {key}"), format!("no {key} in: {plan}"));
    let mut lines = plan.lines().skip_while(|line| !line.starts_with(&begin));
    let first = lines
        .next()
        .expect(&missing)
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
}

#[test]
fn the_plan_says_what_is_overwritten() {
    let Some(mut stage) = Stage::new("plan-overwrites") else {
        return;
    };
    let s = &mut stage;
    let disk = s.disk("disk", 16 * MIB, 512, &[]);
    let [one, two] = s.partitions(&disk);
    run(&["mkfs.vfat", "-n", "ESP", &one]).expect("mkfs.vfat");
    run(&["mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", &two]).expect("mke2fs");
    let (_, torrent) = image_of_100_pieces(s);
    let small_torrent = s.torrent("small", &[(0, MIB)], None, None);

    stage.sync();
    let before = stage.checksums(&[]);
    let text = plan(&[&torrent, &disk]);
    assert_eq!(
        entry(&text, "target"),
        format!("{disk}, 16.8 MB (16777216 bytes)")
    );
    assert_eq!(entry(&text, "disk"), "virtual, sectors of 512");
    assert_eq!(
        entry(&text, "ranges"),
        "1, from byte 0 to byte 6553599 of the target"
    );
    assert_eq!(
        entry(&text, "overwrites"),
        format!(
            "{disk}, 16.8 MB (16777216 bytes): gpt\n\
             {one}, 4.2 MB (4194304 bytes): vfat \"ESP\"\n\
             {two}, 4.2 MB (4194304 bytes): ext4 \"root\""
        )
    );
    assert_eq!(entry(&text, "fetches"), ALL_FETCHED);
    assert!(!text.contains("afterwards"));
    assert_eq!(
        entry(&plan(&[&small_torrent, &two]), "overwrites"),
        format!("{two}, 4.2 MB (4194304 bytes): ext4 \"root\"")
    );
    assert_eq!(stage.checksums(&[]), before);

    let new = stage.path("new");
    let text = plan(&[&torrent, &new]);
    assert_eq!(entry(&text, "target"), format!("{new}, a regular file"));
    assert_eq!(entry(&text, "overwrites"), "nothing: the file is new");
}

/// Nothing of the image is on the disk, then all, then all but two pieces, one of which has equals.
#[test]
fn the_plan_says_what_is_fetched() {
    let Some(mut stage) = Stage::new("plan-fetches") else {
        return;
    };
    let disk = stage.disk("disk", 16 * MIB, 512, &[]);
    let (bytes, torrent) = image_of_100_pieces(&stage);
    stage.sync();
    let before = stage.checksums(&[]);
    assert_eq!(entry(&plan(&[&torrent, &disk]), "fetches"), ALL_FETCHED);
    assert_eq!(stage.checksums(&[]), before);

    let device = File::options().write(true).open(&disk).unwrap();
    device.write_all_at(&bytes, 0).unwrap();
    device.sync_all().unwrap();
    let all =
        "0 B (0 bytes) in 0 pieces\npieces not fetched: 90 there already, 10 zeros, 0 repeated";
    assert_eq!(entry(&plan(&[&torrent, &disk]), "fetches"), all);
    for piece in [10, 11] {
        device
            .write_all_at(b"x", piece * u64::from(PIECE_BYTES))
            .unwrap();
    }
    device.sync_all().unwrap();
    let some = "131.1 kB (131072 bytes) in 2 pieces\npieces not fetched: 88 there already, 10 zeros, 0 repeated";
    assert_eq!(entry(&plan(&[&torrent, &disk]), "fetches"), some);
    assert_eq!(
        entry(&plan(&["--fresh", &torrent, &disk]), "fetches"),
        ALL_FETCHED
    );
}

/// A partition may be the whole disk of a virtual machine, so its GPT is fitted as well.
#[test]
fn the_plan_says_what_happens_to_the_partition_table() {
    let Some(mut stage) = Stage::new("plan-table") else {
        return;
    };
    let disk = stage.disk("disk", 16 * MIB, 512, &[]);
    let [_, part] = stage.partitions(&disk);
    let disk_image = stage.torrent("disk-image", &[(0, MIB)], Some(4 * MIB), Some(512));
    stage.sync();
    let fitted = "a GPT gets its backup at the end of the target";
    assert_eq!(entry(&plan(&[&disk_image, &disk]), "afterwards"), fitted);
    let grown = format!("{fitted}, and its last partition grows to there");
    assert_eq!(
        entry(&plan(&["--grow-last", &disk_image, &disk]), "afterwards"),
        grown
    );
    assert_eq!(entry(&plan(&[&disk_image, &part]), "afterwards"), fitted);
}

/// From its check until the agent ends, no other program can have the disk.
#[test]
fn a_disk_is_held_while_the_agent_runs() {
    let Some(mut stage) = Stage::new("held") else {
        return;
    };
    let disk = stage.disk("disk", 16 * MIB, 512, &[]);
    let image = stage.torrent("image", &[(0, 16 * MIB)], Some(16 * MIB), Some(512));
    let open_exclusively = || {
        File::options()
            .read(true)
            .custom_flags(libc::O_EXCL)
            .open(&disk)
    };
    let mut agent = Command::new(env!("CARGO_BIN_EXE_swarmdd"))
        .args(["get", "--progress", "json", "--listen", "127.0.0.1:0"])
        .args([&image, &disk])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(agent.stdout.take().unwrap()).lines();
    let runs = lines
        .map_while(Result::ok)
        .any(|line| line.contains("\"state\":\"downloading\""));
    let opened = open_exclusively();
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert!(runs, "the agent ended before it ran");
    assert_eq!(opened.unwrap_err().raw_os_error(), Some(libc::EBUSY));
    open_exclusively().unwrap();
}
