//! Does `make --used-map` describe what the map calls used, and always the partition tables?

mod scratch;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::{Command, Output, Stdio};

use scratch::Place;

const MIB: u64 = 1 << 20;

fn make(place: &Place, source: &str, options: &[&str]) -> Output {
    let torrent = place.path("x.torrent");
    Command::new(env!("CARGO_BIN_EXE_swarmdd"))
        .args([&["make", source, "-o", &torrent], options].concat())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// What `make` prints with this map.
#[track_caller]
fn made(place: &Place, source: &str, map: &str) -> String {
    let map = place.write("x.map", map.as_bytes());
    let output = make(place, source, &["--used-map", &map]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

/// What is on stderr; the exit status must be this one.
#[track_caller]
fn refused(place: &Place, source: &str, options: &[&str], status: i32) -> String {
    let output = make(place, source, options);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{said}");
    said
}

/// `bytes` of 0xa5, with this partition table; false without sfdisk.
fn disk(place: &Place, bytes: u64, table: &str) -> Option<String> {
    let path = place.path("disk.img");
    let file = File::create(&path).unwrap();
    let filled = vec![0xa5; bytes as usize];
    file.write_all_at(&filled, 0).unwrap();
    let line = format!("printf '{table}' | sfdisk -q --wipe never {path}");
    let environment = std::env::var("PATH").unwrap_or_default();
    let done = Command::new("sh")
        .args(["-ec", &line])
        .env("PATH", format!("{environment}:/usr/sbin:/sbin"))
        .status();
    match done.unwrap().success() {
        true => Some(path),
        false => {
            println!("skipped: not able: {line}");
            None
        }
    }
}

#[test]
fn a_source_without_a_table_is_described_as_the_map_says() {
    let place = Place::new("plain");
    let source = place.write("part.img", &[0xa5; 8 << 20]);
    let said = made(
        &place,
        &source,
        "0 ?\n0 4096 +\n4096 4194304 ?\n0x401000 1000 +\n0x4013e8 4189208 ?\n",
    );
    assert!(said.contains("\nsize: 12288 bytes"), "{said}");
    assert!(said.contains("\nused ranges: 3\n"), "{said}");
    assert!(
        said.contains("\nleft out: 8376320 bytes of unused blocks "),
        "{said}"
    );
    // What a mapfile does not mention is used.
    let said = made(&place, &source, "0 ?\n0x100000 0x6ff000 ?\n");
    let described = MIB + 4096;
    assert!(
        said.contains(&format!("\nsize: {described} bytes")),
        "{said}"
    );
    let bmap = "<bmap version=\"2.0\"><ImageSize>8388608</ImageSize><BlockSize>4096</BlockSize>\
                <MappedBlocksCount>3</MappedBlocksCount><BlockMap><Range>1-3</Range></BlockMap>\
                </bmap>";
    let said = made(&place, &source, bmap);
    assert!(said.contains("\nsize: 16384 bytes"), "{said}");
}

/// Whatever the map says, a target gets the tables.
#[test]
fn tables_are_described_if_the_map_calls_everything_unused() {
    let place = Place::new("tables");
    let nothing = format!("0 ?\n0 {} ?\n", 16 * MIB);
    let Some(mbr) = disk(
        &place,
        16 * MIB,
        "label: dos\\n2048,4096,83\\n8192,16384,5\\n10240,2048,83\\n14336,2048,83\\n",
    ) else {
        return;
    };
    let said = made(&place, &mbr, &nothing);
    // The MBR, the extended partition with its first link, and the second link.
    assert!(said.contains("\nused ranges: 3\n"), "{said}");
    assert!(
        said.contains("bytes of unused blocks, and of zeros outside partitions"),
        "{said}"
    );
    let gpt = disk(&place, 16 * MIB, "label: gpt\\n2048,4096\\n8192,4096\\n").unwrap();
    let said = made(&place, &gpt, &nothing);
    // 34 sectors, up to the end of a page.
    assert!(said.contains("\nsize: 20480 bytes"), "{said}");
    assert!(said.contains("\nleft out: the backup GPT"), "{said}");
    // The twin: with everything used, everything but the backup GPT is described.
    let everything = format!("0 ?\n0 {} +\n", 16 * MIB);
    let whole = 16 * MIB - 33 * 512;
    let said = made(&place, &gpt, &everything);
    assert!(said.contains(&format!("\nsize: {whole} bytes")), "{said}");
}

#[test]
fn a_map_is_not_believed_if_partitions_overlap() {
    let place = Place::new("doubt");
    let path = place.path("disk.img");
    let file = File::create(&path).unwrap();
    file.set_len(16 * MIB).unwrap();
    let entry = |first: u32, count: u32| {
        let mut entry = vec![0, 0, 0, 0, 0x83, 0, 0, 0];
        entry.extend(first.to_le_bytes());
        entry.extend(count.to_le_bytes());
        entry
    };
    file.write_all_at(&[entry(2048, 4096), entry(4096, 4096)].concat(), 446)
        .unwrap();
    file.write_all_at(&[0x55, 0xaa], 510).unwrap();
    // A magic number of ext4, or the MBR might count sectors of 4096 bytes.
    file.write_all_at(b"\x53\xef", MIB + 1080).unwrap();
    let said = made(&place, &path, &format!("0 ?\n0 {} ?\n", 16 * MIB));
    assert!(said.contains("\nleft out: nothing, since"), "{said}");
    assert!(
        said.contains(&format!("\nsize: {} bytes", 16 * MIB)),
        "{said}"
    );
}

/// Nothing in it says how large its sectors are. So its table counts as none, and the map, which is
/// of a disk, says nothing either.
#[test]
fn a_map_is_not_believed_if_the_table_counts_as_none() {
    let place = Place::new("none");
    let path = place.path("disk.img");
    let file = File::create(&path).unwrap();
    file.set_len(16 * MIB).unwrap();
    let mut entry = vec![0, 0, 0, 0, 0x83, 0, 0, 0];
    entry.extend(512u32.to_le_bytes());
    entry.extend(1024u32.to_le_bytes());
    entry.resize(64, 0);
    file.write_all_at(&[&entry[..], &[0x55, 0xaa]].concat(), 446)
        .unwrap();
    let said = made(&place, &path, &format!("0 ?\n0 {} ?\n", 16 * MIB));
    assert!(
        said.contains(&format!("\nsize: {} bytes", 16 * MIB)),
        "{said}"
    );
}

#[test]
fn a_map_that_does_not_fit_is_refused() {
    let place = Place::new("refused");
    let source = place.write("part.img", &[0xa5; 8 << 20]);
    let map = place.write("x.map", b"0 ?\n0 4096 +\n4096 4096 ?\n");
    let said = refused(&place, &source, &["--used-map", &map], 1);
    let expected = format!("used map {map}: it is of 8192 bytes, the source has 8388608");
    assert!(said.contains(&expected), "{said}");
    let map = place.write("y.map", b"0 ?\n0 4096 +\n4096 4096 -\n");
    let said = refused(&place, &source, &["--used-map", &map], 1);
    assert!(
        said.contains(": line 3: a status + (used) or ? (not used)"),
        "{said}"
    );
    let said = refused(&place, &source, &["--used-map", "/nowhere"], 1);
    assert!(said.contains("used map /nowhere: "), "{said}");
    for other in ["--single", "--skip-holes", "--raw"] {
        let said = refused(&place, &source, &["--used-map", &map, other], 2);
        let expected = format!("{other} and --used-map exclude each other");
        assert!(said.contains(&expected), "{said}");
    }
    assert!(!place.0.join("x.torrent").exists());
}
