//! Does the real binary behave on the command line: exit statuses, one clear line when it fails,
//! and `make`, `info` and `verify` of a disk image?

mod scratch;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use scratch::Place;

const MIB: u64 = 1 << 20;

/// 9 MiB and 777 bytes, with data at the start and in the middle, and a hole at the end.
fn sparse_image(place: &Place) -> String {
    let path = place.path("disk.img");
    let file = File::create(&path).unwrap();
    file.set_len(9 * MIB + 777).unwrap();
    let data: Vec<u8> = (0..2 * MIB as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    file.write_all_at(&data, 0).unwrap();
    file.write_all_at(&data[..300_000], 5 * MIB).unwrap();
    path
}

fn swarmdd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_swarmdd"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn succeed(arguments: &[&str]) -> String {
    let output = swarmdd(arguments);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{arguments:?}: {}",
        stderr(&output)
    );
    stdout(&output)
}

/// Checks for exit status 1. Returns the last line of stderr, the only one that begins with
/// `swarmdd: `.
#[track_caller]
fn fail(arguments: &[&str]) -> String {
    let output = swarmdd(arguments);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    let complaints: Vec<&str> = said
        .lines()
        .filter_map(|line| line.strip_prefix("swarmdd: "))
        .collect();
    assert_eq!(complaints.len(), 1, "{said}");
    assert_eq!(
        said.lines().last(),
        Some(format!("swarmdd: {}", complaints[0]).as_str()),
        "{said}"
    );
    complaints[0].to_string()
}

/// The value of a `key: value` line.
#[track_caller]
fn value<'a>(text: &'a str, key: &str) -> &'a str {
    let prefix = format!("{key}: ");
    text.lines()
        .find_map(|line| line.strip_prefix(&prefix))
        .unwrap_or_else(|| panic!("no {key} in: {text}"))
}

#[test]
fn usage_errors_exit_2_and_say_what_was_expected() {
    for (arguments, complaint, hint) in [
        (
            vec![],
            "a command is expected: get, seed, daemon, make, verify, info or disks",
            "",
        ),
        (
            vec!["fetch"],
            "no command 'fetch'; there are get, seed, daemon, make, verify, info and disks",
            "",
        ),
        (
            vec!["get", "a"],
            "get: TORRENT and TARGET go in pairs, 'a' has no partner",
            "get ",
        ),
        (
            vec!["get", "--memory", "abc", "a", "b"],
            "get: --memory takes a number of MiB from 16 to 4096, not 'abc'",
            "get ",
        ),
        (
            vec![
                "get",
                "--allow",
                "10.2.0.0/16",
                "--peer",
                "10.1.0.5:6881",
                "a",
                "b",
            ],
            "get: --peer 10.1.0.5:6881 is in no subnet of --allow",
            "get ",
        ),
        (vec!["make", "a"], "make: -o FILE.torrent expected", "make "),
        (
            vec!["info", "--verbose", "a"],
            "info: no option --verbose",
            "info ",
        ),
    ] {
        let output = swarmdd(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(
            stderr(&output),
            format!("swarmdd: {complaint}\ntry 'swarmdd {hint}--help'\n")
        );
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn closed_standard_files_are_opened_before_any_other_file() {
    for fd in ["0", "1"] {
        let output = Command::new("sh")
            .args([
                "-c",
                &format!("exec \"$0\" info /proc/self/fd/{fd} {fd}>&-"),
            ])
            .arg(env!("CARGO_BIN_EXE_swarmdd"))
            .output()
            .unwrap();
        // A descriptor that is still closed is no file at all; /dev/null is an empty one.
        assert_eq!(output.status.code(), Some(1));
        let said = stderr(&output);
        assert!(!said.contains("No such file"), "{said}");
    }
}

#[test]
fn help_goes_to_stdout() {
    for arguments in [
        vec!["--help"],
        vec!["get", "--help"],
        vec!["verify", "-h"],
        vec!["disks", "--help"],
    ] {
        let text = succeed(&arguments);
        assert!(
            text.contains("\nUsage:\n") && text.lines().count() > 10,
            "{text}"
        );
    }
    assert_eq!(
        succeed(&["--version"]),
        format!("swarmdd {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn a_closed_stdout_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = Command::new(env!("CARGO_BIN_EXE_swarmdd"))
        .arg("--help")
        .stdout(writer)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn make_info_and_verify_agree_on_used_ranges() {
    let place = Place::new("used");
    let (image, torrent) = (sparse_image(&place), place.path("disk.torrent"));
    let url = "http://10.77.0.1:6969/announce";
    let made = succeed(&[
        "make",
        "--skip-holes",
        &image,
        "-o",
        &torrent,
        "--tracker",
        url,
        "--piece-size",
        "64K",
    ]);
    let info = succeed(&["info", &torrent]);
    assert_eq!(value(&made, "info-hash"), value(&info, "info-hash"));
    assert_eq!(value(&made, "used ranges"), "3");
    assert_eq!(value(&info, "name"), "disk.img");
    assert_eq!(
        value(&info, "layout"),
        "used ranges (FSBT), files: 3, extents: 3"
    );
    // 2 MiB, 300,000 bytes in whole 4 KiB, and the last bytes from 9 MiB on.
    let used = 2 * MIB + 303_104 + 777;
    assert!(
        value(&info, "size").starts_with(&format!("{used} bytes")),
        "{info}"
    );
    assert!(
        value(&info, "disk needed").starts_with(&format!("{} bytes", 9 * MIB + 777)),
        "{info}"
    );
    assert_eq!(value(&info, "alignment"), "4096 bytes");
    assert_eq!(value(&info, "tracker 1"), url);
    let pieces = used.div_ceil(64 << 10);
    assert_eq!(
        succeed(&["verify", &torrent, &image]),
        format!("good: {pieces} of {pieces} pieces\n")
    );

    // The torrent does not describe the holes, but it does describe the last sector.
    let file = File::options().write(true).open(&image).unwrap();
    file.write_all_at(b"x", 4 * MIB).unwrap();
    succeed(&["verify", &torrent, &image]);
    file.write_all_at(b"x", 9 * MIB + 776).unwrap();
    let complaint = fail(&["verify", &torrent, &image]);
    // The last piece begins in the second range: (2 MiB + 303,104) rounded down to 64 KiB.
    let offset = 5 * MIB + (303_104 / 65_536) * 65_536;
    assert!(
        complaint.ends_with(&format!(
            "1 of {pieces} pieces bad, the first at byte {offset}"
        )),
        "{complaint}"
    );
}

#[test]
fn verify_of_a_single_file_names_the_first_bad_offset() {
    let place = Place::new("single");
    let (image, torrent) = (sparse_image(&place), place.path("disk.torrent"));
    let made = succeed(&[
        "make",
        "--single",
        "--name",
        "lab",
        "--private",
        &image,
        "-o",
        &torrent,
    ]);
    assert_eq!(value(&made, "pieces"), "10 of 1048576 bytes");
    let info = succeed(&["info", &torrent]);
    assert_eq!(value(&info, "name"), "lab");
    assert_eq!(value(&info, "private"), "yes");
    assert!(
        value(&info, "size").starts_with(&format!("{} bytes", 9 * MIB + 777)),
        "{info}"
    );
    assert_eq!(
        succeed(&["verify", &torrent, &image]),
        "good: 10 of 10 pieces\n"
    );

    let file = File::options().write(true).open(&image).unwrap();
    file.write_all_at(b"x", 9 * MIB + 776).unwrap();
    file.write_all_at(b"x", 3 * MIB + 12_345).unwrap();
    let output = swarmdd(&["verify", &torrent, &image]);
    assert_eq!(
        stdout(&output),
        format!("good: 8 of 10 pieces\nbad offset: {}\n", 3 * MIB)
    );
    let complaint = fail(&["verify", &torrent, &image]);
    let expected = format!("{image}: 2 of 10 pieces bad, the first at byte {}", 3 * MIB);
    assert_eq!(complaint, expected);
}

#[test]
fn the_same_image_gives_the_same_torrent() {
    let place = Place::new("same");
    let (image, torrent) = (sparse_image(&place), place.path("disk.torrent"));
    succeed(&["make", &image, "-o", &torrent]);
    let first = fs::read(&torrent).unwrap();
    succeed(&["make", &image, "-o", &torrent]);
    assert_eq!(first, fs::read(&torrent).unwrap());
    let left: Vec<_> = fs::read_dir(&place.0)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(
        left.len(),
        2,
        "more than the image and the torrent: {left:?}"
    );
}

#[test]
fn make_refuses_sources_that_it_cannot_describe() {
    let place = Place::new("refuse");
    let image = place.write("disk.img", &[7; 5000]);
    let torrent = place.path("x.torrent");
    let partclone = place.write("sda1.ptcl", b"partclone-image0.3.230002");
    let shelved = place.write("sda1.ext4-ptcl-img.zst.ab", b"any bytes");
    let directory = place.0.to_str().unwrap();
    let empty = place.write("empty", b"");
    for (arguments, complaint) in [
        (
            ["make", &image, "-o", &image],
            format!("-o {image} is the source itself"),
        ),
        (
            ["make", &image, "-o", directory],
            format!("-o {directory} is not a regular file"),
        ),
        (
            ["make", directory, "-o", &torrent],
            format!(
                "source {directory}: a directory without slices, whose names are offsets in \
                 hexadecimal"
            ),
        ),
        (
            ["make", &partclone, "-o", &torrent],
            format!(
                "partclone image {partclone}: it is cut short: it ends at byte 25, its header at byte 110"
            ),
        ),
        (
            ["make", &shelved, "-o", &torrent],
            format!(
                "source {shelved} is of a Clonezilla image that is compressed or split; 'scripts/unshelve {directory}' makes files that can be described and served"
            ),
        ),
        (
            ["make", &empty, "-o", &torrent],
            format!("source {empty} is empty"),
        ),
    ] {
        assert_eq!(fail(&arguments), complaint);
    }
    assert!(fail(&["make", &place.path("none"), "-o", &torrent]).contains("No such file"));
    let nowhere = place.path("none/x.torrent");
    assert!(
        fail(&["make", &image, "-o", &nowhere]).starts_with(&format!("cannot write {nowhere}: "))
    );
    assert!(!Path::new(&torrent).exists());
    assert_eq!(
        fs::read(&image).unwrap(),
        [7; 5000],
        "the source has changed"
    );
}

/// When the last pair or the port is refused, the other targets are open already.
#[test]
fn a_refused_get_leaves_every_target_as_it_was() {
    let place = Place::new("refused-get");
    let (image, torrent) = (
        place.write("disk.img", &[7; 50_000]),
        place.path("x.torrent"),
    );
    succeed(&["make", &image, "-o", &torrent]);
    let (short, none) = (place.write("short.img", b"abc"), place.path("none.img"));
    let refused = [&torrent, &short, &torrent, &none, &torrent, "/dev/null"];
    let output = swarmdd(&[&["get"], &refused[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/dev/null is a character device"));
    let failed = stderr(&output).matches(": failed: ").count();
    assert_eq!(failed, 1, "one pair is wrong: {}", stderr(&output));
    assert_eq!(fs::read(&short).unwrap(), b"abc");
    assert!(!Path::new(&none).exists());

    // No address of this machine.
    let listen = ["--listen", "198.51.100.1:6881", "--progress", "json"];
    let output = swarmdd(&[&["get", &torrent, &short, &torrent, &none], &listen[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read(&short).unwrap(), b"abc");
    assert!(!Path::new(&none).exists());
    let (said, told) = (stderr(&output), stdout(&output));
    assert!(
        said.lines()
            .all(|line| line.contains("cannot listen at 198.51.100.1:6881: ")),
        "{said}"
    );
    assert_eq!(
        told.lines()
            .filter(|line| line.starts_with("{\"state\":\"failed\""))
            .count(),
        2,
        "{told}"
    );
}

#[test]
fn verify_refuses_a_target_that_is_too_small() {
    let place = Place::new("small");
    let (image, torrent) = (
        place.write("disk.img", &[7; 50_000]),
        place.path("x.torrent"),
    );
    succeed(&["make", &image, "-o", &torrent]);
    let small = place.write("small.img", &[7; 49_999]);
    assert_eq!(
        fail(&["verify", &torrent, &small]),
        format!("{small} holds 49999 bytes, the image needs 50000")
    );
    assert!(fail(&["verify", &torrent, &place.path("none")]).contains("No such file"));
}

#[test]
fn a_malformed_torrent_is_reported_in_one_line() {
    let place = Place::new("malformed");
    let image = place.write("disk.img", &[7; 100_000]);
    let torrent = place.path("good.torrent");
    succeed(&["make", &image, "-o", &torrent, "--piece-size", "16K"]);
    let good = fs::read(&torrent).unwrap();
    let mut malformed: Vec<Vec<u8>> = (0..good.len())
        .step_by(7)
        .map(|length| good[..length].to_vec())
        .collect();
    malformed.push(vec![b'l'; 100_000]);
    malformed.push(b"d4:infod6:lengthi-5e4:name1:x12:piece lengthi16384e6:pieces0:ee".to_vec());
    malformed.push(
        b"d4:infod6:lengthi9223372036854775807e4:name1:x12:piece lengthi16384e6:pieces0:ee"
            .to_vec(),
    );
    malformed.push(b"\x1f\x8b\x08 not bencode".to_vec());
    for bytes in malformed {
        let bad = place.write("bad.torrent", &bytes);
        let complaint = fail(&["info", &bad]);
        assert!(
            complaint.len() < 400 && !complaint.contains("panicked"),
            "{complaint}"
        );
        fail(&["verify", &bad, &image]);
    }
    // An editor has added a line break.
    let edited = place.write("edited.torrent", &[&good[..], b"\n"].concat());
    assert_eq!(succeed(&["info", &edited]), succeed(&["info", &torrent]));
    assert_eq!(fs::read(&image).unwrap(), [7; 100_000]);
}

/// What a failed assertion does in the binary of `scripts/build`.
#[test]
fn a_crash_is_told_with_its_address() {
    use std::io::Read;
    use std::os::unix::process::ExitStatusExt;

    let place = Place::new("a_crash_is_told");
    let mut child = Command::new(env!("CARGO_BIN_EXE_swarmdd"))
        .args(["get", "http://127.0.0.1:1/none", &place.path("target")])
        .args(["--progress", "plain"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = child.stderr.take().unwrap();
    // Its first byte says that it has started.
    let mut said = vec![0];
    stderr.read_exact(&mut said).unwrap();
    let killed = Command::new("kill")
        .args(["-ILL", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    stderr.read_to_end(&mut said).unwrap();
    let said = String::from_utf8(said).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGILL), "{said}");
    let (_, address) = said.split_once(" has a bug at 0x").expect(&said);
    let address = u64::from_str_radix(address.trim_end(), 16);
    // In the binary, wherever the kernel has put it.
    assert!(address.is_ok_and(|address| address > 0), "{said}");
}
