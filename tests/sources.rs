//! Does `make` tell a disk image from the files that people have instead: archives, images of
//! virtual machines, the error page of a web server?
//!
//! The files are made by the real tools. A case whose tool is missing says so and passes.

mod scratch;

use std::fs;
use std::process::{Command, Output, Stdio};

use scratch::Place;

const MIB: u64 = 1 << 20;

/// A disk with a partition, as `disk.img`.
const DISK: &str =
    "truncate -s 8M disk.img; printf 'label: dos\\n2048,,83\\n' | sfdisk -q disk.img";

/// Runs a line of shell in the place; false if a program of it is missing or fails.
fn shell(place: &Place, line: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let ended = Command::new("sh")
        .args(["-ec", line])
        .current_dir(&place.0)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let done = ended.unwrap().success();
    if !done {
        println!("skipped: not able: {line}");
    }
    done
}

fn make(place: &Place, source: &str, options: &[&str]) -> Output {
    let torrent = place.path("x.torrent");
    Command::new(env!("CARGO_BIN_EXE_swarmdd"))
        .args([&["make", source, "-o", &torrent], options].concat())
        .current_dir(&place.0)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// How a file is made of `disk.img`, which one, what it is called, and how the help begins.
const CASES: [(&str, &str, &str, &str); 26] = [
    ("gzip -k disk.img", "disk.img.gz", "a gzip file", "gzip --d"),
    ("xz -k disk.img", "disk.img.xz", "an xz file", "xz --d"),
    (
        "zstd -q disk.img",
        "disk.img.zst",
        "a Zstandard file",
        "zstd",
    ),
    ("bzip2 -k disk.img", "disk.img.bz2", "a bzip2 file", "bzip2"),
    (
        "xz -k -F lzma disk.img",
        "disk.img.lzma",
        "an lzma file",
        "xz",
    ),
    ("lzop disk.img", "disk.img.lzo", "an lzop file", "lzop"),
    ("split -b 2K disk.img.gz p.", "p.aa", "a gzip file", "gzip"),
    ("zip -q -0 a disk.img", "a.zip", "a zip archive", "unzip"),
    ("7z a a.7z disk.img", "a.7z", "a 7z archive", "7z x"),
    (
        "tar cf a.tar disk.img",
        "a.tar",
        "a tar archive",
        "tar --ex",
    ),
    (
        "tar --format v7 -Scf v.tar disk.img || tar --format v7 -cf v.tar disk.img",
        "v.tar",
        "a tar archive",
        "tar",
    ),
    ("ls | cpio -oH newc >i", "i", "a cpio archive", "cpio"),
    (
        "qemu-img convert -O qcow2 disk.img q",
        "q",
        "a qcow2 image",
        "qemu-img",
    ),
    (
        "qemu-img convert -O vmdk disk.img vm",
        "vm",
        "a VMDK image",
        "qemu-img",
    ),
    (
        "qemu-img convert -O vmdk -o subformat=monolithicFlat disk.img t.vmdk",
        "t.vmdk",
        "a VMDK descriptor",
        "qemu-img",
    ),
    (
        "qemu-img convert -O vdi disk.img vd",
        "vd",
        "a VDI image",
        "qemu-img",
    ),
    (
        "qemu-img convert -O vhdx disk.img vx",
        "vx",
        "a VHDX image",
        "qemu-img",
    ),
    (
        "qemu-img convert -O vpc disk.img vp",
        "vp",
        "a VHD image",
        "qemu-img",
    ),
    (
        "qemu-img convert -O vpc -o subformat=fixed disk.img fx",
        "fx",
        "a VHD image",
        "qemu-img",
    ),
    (
        "qemu-img convert -O qed disk.img qe",
        "qe",
        "a QED image",
        "qemu-img",
    ),
    (
        "qemu-img convert -O parallels disk.img pa",
        "pa",
        "a Parallels image",
        "qemu-img",
    ),
    (
        "wimlib-imagex capture /etc/default w",
        "w",
        "a WIM or ESD archive",
        "wimapply",
    ),
    (
        "printf '<!DOCTYPE html><p>502' >h",
        "h",
        "an HTML page",
        "give",
    ),
    (
        "printf '<?xml version=\"1.0\"?>' >xm",
        "xm",
        "an XML document",
        "give",
    ),
    ("echo not found >n", "n", "a text", "give"),
    ("cp /bin/sh e", "e", "an ELF program", "give"),
];

#[test]
fn files_of_another_format_are_refused_with_the_command_that_helps() {
    let place = Place::new("formats");
    if !shell(&place, DISK) {
        return;
    }
    for (line, source, name, help) in CASES {
        if !shell(&place, line) {
            continue;
        }
        let output = make(&place, source, &[]);
        let said = String::from_utf8(output.stderr).unwrap();
        let wanted = format!("swarmdd: source {source} is {name}");
        assert!(said.starts_with(&wanted), "{line}: {said}");
        assert!(said.contains(&format!("; try: {help}")), "{said}");
        assert!(
            said.lines().count() == 1 && said.contains("--raw"),
            "{said}"
        );
        assert_eq!(output.status.code(), Some(1));
        assert!(!fs::exists(place.path("x.torrent")).unwrap(), "{line}");
        assert!(make(&place, source, &["--raw"]).status.success(), "{line}");
        fs::remove_file(place.path("x.torrent")).unwrap();
    }
}

/// Also for a file that is called like a raw image, and by a name that a shell would split.
#[test]
fn the_command_that_helps_makes_the_raw_image() {
    let place = Place::new("helps");
    if !shell(&place, DISK) {
        return;
    }
    let original = fs::read(place.path("disk.img")).unwrap();
    for line in [
        "gzip <disk.img >\"it's.img\"",
        "xz <disk.img >\"it's.img\"",
        "zstd -q <disk.img >\"it's.img\"",
        "bzip2 <disk.img >\"it's.img\"",
        "lzop <disk.img >\"it's.img\"",
        "qemu-img convert -O qcow2 disk.img \"it's.img\"",
    ] {
        if !shell(&place, line) {
            continue;
        }
        let said = String::from_utf8(make(&place, "it's.img", &[]).stderr).unwrap();
        let (_, help) = said.split_once("; try: ").unwrap();
        let (help, _) = help.split_once("; --raw").unwrap();
        assert!(shell(&place, help), "{help}");
        assert!(
            fs::read(place.path("it's.img.raw")).unwrap() == original,
            "{help}"
        );
    }
}

/// Packed as it is read in place or not: the command that helps packs it so.
#[test]
fn a_packed_image_is_described_as_what_it_was() {
    let place = Place::new("packed");
    if !shell(&place, DISK)
        || !shell(
            &place,
            "lz4 --version; echo boot | dd of=disk.img conv=notrunc",
        )
    {
        return;
    }
    let described = |source: &str| {
        let output = make(&place, source, &["--name", "disk"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            output.status.success(),
            !said.contains("swarmdd: "),
            "{said}"
        );
        (fs::read(place.path("x.torrent")).ok(), said)
    };
    let (raw, _) = described("disk.img");
    for (options, why) in [
        ("-B16384 -BX", ""),
        ("-9 -B4 -BX --content-size --no-frame-crc", ""),
        ("-B5 -BX", ""),
        ("-B16384", "it has no checksums behind its blocks"),
        ("", "its blocks have 4194304 bytes, and only"),
        ("-BD -B16384", "it has linked blocks"),
        ("-l", "it is of the legacy format"),
        ("-B16384 -m disk.img", "its frame ends at byte"),
    ] {
        let twice = options.contains("-m");
        let line = match twice {
            true => "lz4 -c -q -B16384 disk.img >\"it's\"; lz4 -c -q disk.img >>\"it's\"".into(),
            false => format!("lz4 -f -q {options} disk.img \"it's\""),
        };
        assert!(shell(&place, &line), "{line}");
        let _ = fs::remove_file(place.path("x.torrent"));
        let (torrent, said) = described("it's");
        if why.is_empty() {
            assert!(torrent == raw, "{options}: {said}");
            continue;
        }
        assert!(
            said.starts_with(&format!("swarmdd: packed image it's: {why}")),
            "{said}"
        );
        assert_eq!((torrent, said.lines().count()), (None, 1));
        let (_, help) = said.trim_end().split_once("; try: ").unwrap();
        assert!(shell(&place, help), "{help}");
        let (torrent, said) = described("it's.lz4");
        assert!(
            torrent.is_some() && (twice || torrent == raw),
            "{options}: {said}"
        );
    }
}

/// Whatever tools make is taken, even if its first bytes are those of another format.
#[test]
fn disks_and_file_systems_are_taken() {
    let place = Place::new("disks");
    let cases = [
        DISK,
        "truncate -s 8M disk.img; sgdisk -n 1:2048:4095 disk.img",
        "truncate -s 8M disk.img; mke2fs -q -t ext4 disk.img",
        "truncate -s 8M disk.img; mke2fs -q -b 1024 disk.img",
        "truncate -s 2M disk.img; mkfs.vfat disk.img",
        "truncate -s 8M disk.img; mkswap disk.img",
        "truncate -s 128M disk.img; mkfs.btrfs -q disk.img",
        "truncate -s 320M disk.img; mkfs.xfs -q disk.img",
        "truncate -s 16M disk.img; mkfs.ntfs -q -F disk.img",
        "truncate -s 16M disk.img; mkfs.exfat disk.img",
        "mkdir d; echo x >d/x; xorriso -as mkisofs -o disk.img d",
    ];
    let firsts = [
        "",
        "\\037\\213\\010",
        "PK\\003\\004",
        "BZh9",
        "QFI\\373",
        "KDMV",
    ];
    for line in cases {
        let _ = fs::remove_file(place.path("disk.img"));
        if !shell(&place, line) {
            continue;
        }
        // What lies in front of these file systems is not theirs.
        let only_in_front = line.contains("sfdisk") || line.contains("mke2fs");
        for first in &firsts[..if only_in_front { firsts.len() } else { 1 }] {
            let over = format!("printf '{first}' | dd of=disk.img conv=notrunc");
            assert!(shell(&place, &over));
            let output = make(&place, "disk.img", &[]);
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{line}, {first}: {said}");
            assert!(!said.contains("no known"), "{line}, {first}: {said}");
        }
    }
}

#[test]
fn a_source_in_which_nothing_is_recognised_is_taken_with_a_word() {
    let place = Place::new("nothing");
    for (name, byte) in [("zeros", 0), ("ones", 0xff), ("sevens", 7)] {
        let source = place.write(name, &vec![byte; MIB as usize]);
        let output = make(&place, &source, &[]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        let word =
            format!("swarmdd: source {source} has no partition table and no known file system\n");
        assert!(said.contains(&word), "{said}");
    }
}
