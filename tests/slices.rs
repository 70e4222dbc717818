//! Are directories of slices, as partclone and Clonezilla keep images for BitTorrent, described and
//! served as they are, and refused by name where they are not what they seem?
//!
//! Real clients and the real partclone: tests/loopback, `slices`.

mod scratch;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use scratch::Place;

const MIB: usize = 1 << 20;

fn swarmdd(place: &Place, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_swarmdd"))
        .args(arguments)
        .current_dir(&place.0)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// What it prints.
fn pass(place: &Place, arguments: &[&str]) -> String {
    let output = swarmdd(place, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The last line on stderr, without the name of the program.
fn fail(place: &Place, arguments: &[&str]) -> String {
    let output = swarmdd(place, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    let last = error.trim_end().lines().last().unwrap().to_string();
    last.trim_start_matches("swarmdd: ").to_string()
}

fn field(text: &str, key: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap_or_else(|| panic!("no {key} in {text}"))
        .to_string()
}

/// Bytes that differ from those at any other place.
fn bytes(from: usize, length: usize) -> Vec<u8> {
    let word =
        |index: usize| ((index as u64 / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes();
    (from..from + length)
        .map(|index| word(index)[index % 8])
        .collect()
}

/// An image whose runs are at odd places, and slices of it that are called in any way.
const RUNS: [(&str, usize, usize); 6] = [
    ("0", 0, 70_000),
    ("00011170", 70_000, 1),
    ("00000000000000000000000000020000", 0x2_0000, 512),
    ("0AC400", 0xA_C400, MIB + 1024),
    ("300000", 0x30_0000, 0),
    ("5000ff", 0x50_00ff, 3 * MIB + 77),
];

fn write_slices(place: &Place, directory: &str) {
    fs::create_dir_all(place.0.join(directory)).unwrap();
    for (name, from, length) in RUNS {
        place.write(&format!("{directory}/{name}"), &bytes(from, length));
    }
}

fn write_image(place: &Place, name: &str) {
    let mut image = vec![0; RUNS[5].1 + RUNS[5].2];
    for (_, from, length) in RUNS {
        image[from..from + length].copy_from_slice(&bytes(from, length));
    }
    place.write(name, &image);
}

#[test]
fn slices_are_described_wherever_their_runs_lie() {
    let place = Place::new("describe");
    write_slices(&place, "sda1");
    write_image(&place, "image");
    for name in ["torrent.info.bak", "README"] {
        place.write(&format!("sda1/{name}"), b"notes");
    }
    fs::create_dir(place.0.join("sda1/abc")).unwrap();
    let output = swarmdd(
        &place,
        &["make", "sda1", "-o", "a.torrent", "--piece-size", "16K"],
    );
    assert!(output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains(" and 2 more is no slice and left out\n"),
        "{said}"
    );
    let made = String::from_utf8(output.stdout).unwrap();
    let size: usize = RUNS.iter().map(|run| run.2).sum();
    assert!(field(&made, "size: ").starts_with(&size.to_string()));
    assert_eq!(field(&made, "used ranges: "), "4");
    let info = pass(&place, &["info", "a.torrent"]);
    assert_eq!(field(&info, "name: "), "sda1");
    // The image has the same bytes, and the slices are found in the directory and above it.
    pass(&place, &["verify", "a.torrent", "image"]);
    for source in ["sda1", "."] {
        let seed = [
            "seed",
            "--check",
            "--seed-secs",
            "0",
            "--listen",
            "127.0.0.1:0",
        ];
        pass(&place, &[&seed[..], &["a.torrent", source]].concat());
    }
    // The twin: one byte is another one.
    let mut bad = bytes(RUNS[3].1, RUNS[3].2);
    bad[MIB] ^= 1;
    place.write("sda1/0AC400", &bad);
    let bad = fail(&place, &["seed", "--check", "a.torrent", "sda1"]);
    assert!(bad.starts_with("sda1: 1 of "), "{bad}");
}

#[test]
fn what_is_no_slice_is_refused_by_its_name() {
    let place = Place::new("refused");
    write_slices(&place, "image");
    pass(&place, &["make", "image", "-o", "a.torrent"]);
    let path = |name: &str| place.0.join("image").join(name);
    let write = |name: &str, length: usize| {
        fs::write(path(name), bytes(0, length)).unwrap();
    };
    let fifo = |name: &str| {
        let made = Command::new("mkfifo").arg(path(name)).status().unwrap();
        assert!(made.success());
    };
    type Step<'a> = &'a dyn Fn();
    let cases: [(&str, Step, &str); 8] = [
        (
            "8000000000000000",
            &|| write("8000000000000000", 1),
            "is at an offset that no disk has",
        ),
        ("aB", &|| write("aB", 1), "has capital and small letters"),
        ("f00000", &|| fifo("f00000"), "is not a regular file"),
        (
            "f00000",
            &|| symlink("0", path("f00000")).unwrap(),
            "is not a regular file",
        ),
        (
            "11170",
            &|| write("11170", 1),
            "slices 11170 of 1 bytes and 00011170 of 1 bytes overlap",
        ),
        (
            "20001",
            &|| write("20001", 9),
            "and 20001 of 9 bytes overlap",
        ),
        (
            "fffff",
            &|| write("fffff", 0),
            "and fffff of 0 bytes overlap",
        ),
        ("00", &|| write("00", 70_001), "overlap"),
    ];
    for (name, put, why) in cases {
        put();
        for command in [
            &["make", "image", "-o", "b.torrent"][..],
            &["seed", "a.torrent", "image"],
        ] {
            let error = fail(&place, command);
            assert!(
                error.contains(why) && error.contains(name),
                "{error}: {why}"
            );
        }
        fs::remove_file(path(name)).unwrap();
    }
    assert!(!place.0.join("b.torrent").exists());
    assert!(pass(&place, &["make", "image", "-o", "b.torrent"]).contains("info-hash"));
}

#[test]
fn slices_that_do_not_fit_their_torrent_are_refused() {
    let place = Place::new("lengths");
    write_slices(&place, "image");
    pass(&place, &["make", "image", "-o", "a.torrent"]);
    let refuse = |name: &str, length: Option<usize>, why: &str| {
        let path = place.0.join("image").join(name);
        let before = fs::read(&path).unwrap();
        match length {
            Some(length) => fs::write(&path, bytes(0, length)).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let error = fail(&place, &["seed", "a.torrent", "image"]);
        assert_eq!(error, format!("source image: {why}"));
        fs::write(&path, before).unwrap();
    };
    let at = |offset: usize| format!("{offset:032x}");
    let (end, start) = (0x2_0000 + 512, 0x50_00ff);
    let longer = format!(
        "slice 00000000000000000000000000020000 has 600 bytes, in the torrent it ends at {}",
        at(end)
    );
    refuse(RUNS[2].0, Some(600), &longer);
    let shorter = format!(
        "slice 5000ff has 99 bytes, and no slice has the bytes from {} on",
        at(start + 99)
    );
    refuse("5000ff", Some(99), &shorter);
    let missing = format!("no slice has the bytes from {} on", at(start));
    refuse("5000ff", None, &missing);
    fs::remove_file(place.0.join("image/300000")).unwrap();
    let nothing = "a directory without slices, whose names are offsets in hexadecimal";
    let empty = place.0.join("empty");
    fs::create_dir(&empty).unwrap();
    for command in [
        &["make", "empty", "-o", "b.torrent"][..],
        &["seed", "a.torrent", "empty"],
    ] {
        assert_eq!(fail(&place, command), format!("source empty: {nothing}"));
    }
}

/// Names and lengths of what is in a directory, in order.
fn listing(path: &Path) -> Vec<(String, u64)> {
    let entries = fs::read_dir(path).unwrap().map(Result::unwrap);
    let mut found: Vec<_> = entries
        .map(|entry| {
            let metadata = entry.metadata().unwrap();
            let mode = metadata.permissions().mode() & 0o777;
            assert_eq!(mode, 0o400, "{}", entry.path().display());
            (entry.file_name().into_string().unwrap(), metadata.len())
        })
        .collect();
    found.sort();
    found
}

#[test]
fn slices_are_written_as_partclone_writes_them() {
    let place = Place::new("write");
    let (start, length) = (3 * MIB, 33 * MIB + 4096);
    place.write("disk", &vec![0; 40 * MIB]);
    let disk = fs::File::options()
        .write(true)
        .open(place.0.join("disk"))
        .unwrap();
    // A hole, data of two full slices and a part of one, a hole, and the last page.
    disk.set_len(0).unwrap();
    disk.set_len(40 * MIB as u64).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&disk, &bytes(start, length), start as u64).unwrap();
    let command = [
        "make",
        "disk",
        "--skip-holes",
        "-o",
        "a.torrent",
        "--slices",
        "new/sda1",
    ];
    let refused = fail(&place, &command);
    assert!(
        refused.starts_with("cannot write slices to new/sda1: No such file"),
        "{refused}"
    );
    fs::create_dir(place.0.join("new")).unwrap();
    let made = pass(&place, &command);
    let mib16 = 16 * MIB as u64;
    let expected = [
        (start, mib16),
        (start + 16 * MIB, mib16),
        (start + 32 * MIB, MIB as u64 + 4096),
        (40 * MIB - 4096, 4096),
    ];
    let expected = expected.map(|(disk, length)| (format!("{disk:032x}"), length));
    let directory = place.0.join("new/sda1");
    assert_eq!(listing(&directory), expected);
    for (name, length) in &expected[..3] {
        let offset = usize::from_str_radix(name, 16).unwrap();
        let written = fs::read(directory.join(name)).unwrap();
        assert!(written == bytes(offset, *length as usize), "{name}");
    }
    let info = pass(&place, &["info", "a.torrent"]);
    assert_eq!(field(&info, "name: "), "sda1");
    assert!(
        field(&info, "layout: ").contains("files: 4, extents: 2"),
        "{info}"
    );
    pass(&place, &["verify", "a.torrent", "disk"]);
    // What `make` says of the slices is the same but for the size of the disk.
    pass(&place, &["make", "new/sda1", "-o", "b.torrent"]);
    pass(&place, &["verify", "b.torrent", "disk"]);
    assert!(made.contains("used ranges: 2"));

    let refused = fail(&place, &command);
    assert_eq!(
        refused,
        "--slices new/sda1 is not empty: give a new directory"
    );
    assert_eq!(listing(&directory), expected);
    for source in ["new/sda1", "new"] {
        let refused = fail(
            &place,
            &["make", source, "-o", "c.torrent", "--slices", "x"],
        );
        assert!(
            refused.starts_with(&format!("source {source}")),
            "{refused}"
        );
    }
    let names = fs::read_dir(place.0.join("new")).unwrap().count();
    assert_eq!(names, 1, "nothing is left beside the slices");
}

/// A signal while slices are written leaves no directory that looks whole.
#[test]
fn slices_that_are_broken_off_are_removed() {
    let place = Place::new("broken-off");
    place.write("disk", &bytes(0, 64 * MIB));
    let mut child = Command::new(env!("CARGO_BIN_EXE_swarmdd"))
        .args(["make", "disk", "-o", "a.torrent", "--slices", "sda1"])
        .current_dir(&place.0)
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let draft = place.0.join(format!(".sda1.{}", child.id()));
    while !draft.exists() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    let ended = Command::new("kill").arg(child.id().to_string()).status();
    assert!(ended.unwrap().success());
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(1), "the signal came too late");
    let left = fs::read_dir(&place.0).unwrap().map(Result::unwrap);
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["disk"]);
}

const INFO: &str = "block_size: 1024
blocks_total: 204800
offset: 00000000000000000000000000000400
length: 00000000000000000000000001000000
sha1: b5b2160efba2dcab709186f5c4332bad7d0c0aa1
offset: 00000000000000000000000002000000
length: 00000000000000000000000000000200
offset: 00000000000000000000000003000000
length: 00000000000000000000000000000000
sha1: 0000000000000000000000000000000000000000
";

/// Each byte of `info` is that of partclone_create_torrent.py, or the info-hash would be another.
#[test]
fn a_torrent_info_becomes_the_torrent_of_partclone() {
    let place = Place::new("info");
    place.write("torrent.info", INFO.as_bytes());
    let tracker = ["--tracker", "http://10.77.0.1:6969/announce"];
    for (name, source, first, below) in [
        ("sda1", "torrent.info", "4:sda1", ""),
        ("vg/lv", "torrent.info", "2:vg", "2:lv"),
        ("sda1", "by-content", "4:sda1", ""),
    ] {
        place.write("by-content", INFO.as_bytes());
        let command = ["make", source, "-o", "a.torrent", "--name", name];
        pass(&place, &[&command[..], &tracker].concat());
        let file = |offset: u64, length: u64| {
            format!("d6:lengthi{length}e4:pathl{below}32:{offset:032x}ee")
        };
        let files = [
            file(0x400, 1 << 24),
            file(0x200_0000, 0x200),
            file(0x300_0000, 0),
        ]
        .concat();
        let mut expected =
            format!("4:infod5:filesl{files}e4:name{first}12:piece lengthi16777216e6:pieces40:")
                .into_bytes();
        expected.extend(b"\xb5\xb2\x16\x0e\xfb\xa2\xdc\xab\x70\x91\x86\xf5\xc4\x33\x2b\xad\x7d");
        expected.extend(b"\x0c\x0a\xa1");
        expected.extend([0; 20]);
        expected.extend(b"ee");
        let torrent = fs::read(place.0.join("a.torrent")).unwrap();
        assert!(
            torrent.ends_with(&expected),
            "{}",
            String::from_utf8_lossy(&torrent)
        );
        assert!(torrent.starts_with(b"d8:announce30:http://10.77.0.1:6969/announce10:created by"));
    }
}

#[test]
fn a_torrent_info_that_is_wrong_is_refused() {
    let place = Place::new("info-wrong");
    place.write("torrent.info", INFO.as_bytes());
    let make = ["make", "torrent.info", "-o", "a.torrent"];
    assert_eq!(
        fail(&place, &make),
        "source torrent.info: --name is needed, and every other maker must give the same"
    );
    let named = [&make[..], &["--name", "x"]].concat();
    for option in [
        &["--piece-size", "1M"][..],
        &["--single"],
        &["--slices", "y"],
    ] {
        let error = fail(&place, &[&named[..], option].concat());
        assert!(
            error.starts_with("source torrent.info: partclone has decided"),
            "{error}"
        );
    }
    let cases = [
        (
            INFO.replace("aa1\n", "\n"),
            "line 5: 'sha1: b5b2160efba2dcab709186f5c4332bad7d0c0'",
        ),
        (
            INFO.replace("02000000", "00000300"),
            "source torrent.info: bytes 768 to 1280 and bytes 1024 to 16778240 of the disk overlap",
        ),
        (INFO.repeat(2), "line 21: 4 hashes, the 3 pieces of 16 MiB"),
        ("block_size: 1\n".into(), "line 2: no bytes are described"),
        ("x".repeat(400), "line 1: longer than 320 bytes"),
        (String::new(), "line 1: no bytes are described"),
    ];
    for (text, why) in cases {
        place.write("torrent.info", text.as_bytes());
        let error = fail(&place, &named);
        assert!(error.contains(why), "{error}: {why}");
    }
    assert!(!place.0.join("a.torrent").exists());
}

/// The size of the partition is only in `torrent.info`; a file system needs all of it.
#[test]
fn a_torrent_info_beside_slices_says_how_large_the_partition_is() {
    let place = Place::new("beside");
    write_slices(&place, "sda1");
    let mut text = String::from("block_size: 512\nblocks_total: 20000\n");
    for (_, from, length) in RUNS {
        text += &format!("offset: {from:032x}\nlength: {length:032x}\n");
    }
    text += &format!("sha1: {}\n", "0".repeat(40));
    place.write("sda1/torrent.info", text.as_bytes());
    pass(&place, &["make", "sda1", "-o", "a.torrent"]);
    let info = pass(&place, &["info", "a.torrent"]);
    assert!(
        field(&info, "disk needed: ").starts_with("10240000 "),
        "{info}"
    );
    // A slice of another image has stayed from before.
    let foreign = place.0.join(format!("sda1/{:032x}", 0x90_0000));
    fs::write(&foreign, [7; 512]).unwrap();
    let error = fail(&place, &["make", "sda1", "-o", "b.torrent"]);
    let bytes: usize = RUNS.iter().map(|(_, _, length)| length).sum();
    let more = format!(
        "source sda1/torrent.info names {bytes} bytes, its slices have {}: some are of another \
         image",
        bytes + 512
    );
    assert_eq!(error, more);
    fs::remove_file(foreign).unwrap();
    // A slice that it names is not there: the run of partclone or a copy was broken off.
    fs::remove_file(place.0.join("sda1/0AC400")).unwrap();
    let error = fail(&place, &["make", "sda1", "-o", "a.torrent"]);
    let missing = format!(
        "source sda1: no slice has the bytes from {:032x} on",
        0xA_C400
    );
    assert_eq!(error, missing);
}
