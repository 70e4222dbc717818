//! Which disk comes of which source on which target?
//!
//! Each row of [`TABLE`] is a source, each column a target, and each cell says what happens. Every
//! target is dirty. Every one that is not refused is looked at with `sgdisk -v` (which knows only
//! GPT), `sfdisk -d` and `blkid -p`, and its bytes are compared.

use std::fs::{self, File};
use std::ops::Range;

use crate::fixtures::{
    Loop, MIB, Seeder, drop_caches, loops_are_there, make, refuse, sparse, swarmdd, tool, tool_fed,
    tools_are_there, write_at,
};
use crate::scratch::Place;

/// `make` refuses the source; `get` has `refused` the target before it changed; the target is
/// `equal` to the image; its table is `fitted`; the last partition has `grown`.
const TABLE: &str = "
                  | same    | +7      | larger  | grow    | smaller
plain GPT         | fitted  | fitted  | fitted  | grown   | fitted
plain GPT, single | equal   | fitted  | fitted  | grown   | refused
256 entries       | fitted  | fitted  | fitted  | grown   | fitted
hybrid MBR        | fitted  | fitted  | fitted  | grown   | fitted
4Kn               | fitted  | fitted  | fitted  | grown   | fitted
cut behind        | refused | refused | fitted  | grown   | refused
ends in a hole    | fitted  | fitted  | fitted  | grown   | refused
GPT with holes    | fitted  | fitted  | fitted  | grown   | fitted
stale GPT         | equal   | equal   | equal   | grown   | refused
stale GPT, single | equal   | equal   | equal   | grown   | refused
logical           | equal   | equal   | equal   | equal   | equal
isohybrid         | equal   | equal   | equal   | equal   | refused
nested            | equal   | equal   | equal   | equal   | refused
damaged header    | make    | make    | make    | make    | make
damaged entries   | make    | make    | make    | make    | make
no primary        | make    | make    | make    | make    | make
cut inside a GPT  | make    | make    | make    | make    | make
cut inside an MBR | make    | make    | make    | make    | make
";

const IMAGE_BYTES: u64 = 32 * MIB;
const LOGICAL: &str = "
x1 : start=2048, size=8192, type=83
x2 : start=10240, size=30720, type=5
x5 : start=12288, size=8192, type=83
x6 : start=22528, size=8192, type=83
";
/// What a target holds before.
const DIRT: u8 = 0xa5;

struct Source {
    image: String,
    /// The source as a device with its own sectors, if they are not of 512 bytes.
    device: Option<Loop>,
    options: &'static [&'static str],
    sector_bytes: u64,
    /// What `blkid` calls its table.
    kind: &'static str,
    /// Bytes that must arrive.
    data: Range<u64>,
    partitions: Vec<Partition>,
}

/// First sector, number of sectors, and the rest of its line of `sfdisk -d`.
type Partition = (u64, u64, String);

impl Source {
    fn path(&self) -> &str {
        let device = self.device.as_ref();
        device.map_or(&self.image, |device| &device.device)
    }
}

#[expect(clippy::too_many_lines, reason = "one source after the other")]
fn source(place: &Place, name: &str) -> Source {
    let image = sparse(place, "source.img", IMAGE_BYTES);
    let mut source = Source {
        image: image.clone(),
        device: None,
        options: &[],
        sector_bytes: 512,
        kind: "gpt",
        data: MIB..20 * MIB,
        partitions: Vec::new(),
    };
    if name.ends_with("single") {
        source.options = &["--single"];
    }
    let gpt = |more: &[&str]| {
        let two = ["-n", "1:2048:16383", "-n", "2:16384:40959"];
        tool("sgdisk", &[&two, more, &[image.as_str()]].concat());
        write_at(&image, MIB, &noise(19 * MIB));
    };
    match name {
        "plain GPT" | "plain GPT, single" => gpt(&[]),
        "256 entries" => gpt(&["-S", "256"]),
        "hybrid MBR" => gpt(&["-h", "2"]),
        "4Kn" => {
            let device = Loop::over(&image, 4096);
            let two = ["-n", "1:256:2047", "-n", "2:2048:5119", &device.device];
            tool("sgdisk", &two);
            write_at(&device.device, MIB, &noise(19 * MIB));
            drop_caches(&device);
            (source.sector_bytes, source.device) = (4096, Some(device));
        }
        "GPT with holes" => {
            gpt(&[]);
            // Most of its entries are zeros.
            tool("fallocate", &["--dig-holes", &image]);
            source.options = &["--skip-holes"];
        }
        "cut behind" => {
            gpt(&[]);
            // Neither sfdisk nor the kernel reads a GPT whose usable range ends behind the disk.
            source.partitions = partitions(&image, 512);
            cut(&image, 20 * MIB);
        }
        "ends in a hole" => {
            tool("sgdisk", &["-n", "1:2048:61439", &image]);
            write_at(&image, MIB, &noise(MIB));
            (source.options, source.data) = (&["--skip-holes"], MIB..2 * MIB);
        }
        "stale GPT" | "stale GPT, single" => {
            tool("sgdisk", &["-n", "1:2048:20479", &image]);
            mbr(place, &image, "2048,,83\n");
            write_at(&image, 25 * MIB, &noise(MIB));
            (source.kind, source.data) = ("dos", 0..IMAGE_BYTES);
        }
        "logical" => {
            mbr(place, &image, LOGICAL);
            write_at(&image, MIB, &noise(4 * MIB));
            (source.kind, source.data) = ("dos", 0..20 * MIB);
        }
        "isohybrid" | "nested" => {
            mbr(place, &image, "2048,1000,ef\n");
            let whole = match name {
                "nested" => [0, 0, 0, 0, 0x83, 0, 0, 0, 0, 4, 0, 0, 0, 0xfc, 0, 0],
                _ => [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0],
            };
            write_at(&image, 446 + 16, &whole);
            write_at(&image, 10 * MIB, &noise(MIB));
            (source.kind, source.data) = ("dos", 0..IMAGE_BYTES);
        }
        "damaged header" => {
            gpt(&[]);
            write_at(&image, 512 + 8, &[7; 2]);
        }
        "damaged entries" => {
            gpt(&[]);
            write_at(&image, 1024 + 40, &[7; 2]);
        }
        "no primary" => {
            gpt(&[]);
            write_at(&image, 512, &[0; 512]);
        }
        "cut inside a GPT" => {
            gpt(&[]);
            cut(&image, 19 * MIB);
        }
        "cut inside an MBR" => {
            mbr(place, &image, LOGICAL);
            cut(&image, 12 * MIB);
        }
        other => panic!("no source is called '{other}'"),
    }
    if source.partitions.is_empty() {
        source.partitions = partitions(&image, source.sector_bytes as u32);
    }
    source
}

fn mbr(place: &Place, image: &str, lines: &str) {
    let script = place.write("script", format!("label: dos\n{lines}").as_bytes());
    tool_fed("sfdisk", &["--quiet", "--wipe", "never", image], &script);
}

fn cut(image: &str, length: u64) {
    let file = File::options().write(true).open(image).unwrap();
    file.set_len(length).unwrap();
}

/// Bytes of which no sector is zero or like another one.
fn noise(length: u64) -> Vec<u8> {
    let byte = |n: u32| (n.wrapping_mul(2_654_435_761) >> 23) as u8 | 1;
    (0..length as u32).map(byte).collect()
}

#[test]
fn every_combination_of_source_and_target_comes_out_right() {
    let place = Place::new("combinations");
    let tools = ["sgdisk", "sfdisk", "blkid", "losetup"];
    if !tools_are_there(&tools) || !loops_are_there() {
        return;
    }
    let mut lines = TABLE.lines().filter(|line| !line.is_empty());
    let columns: Vec<&str> = cells(lines.next().unwrap())[1..].to_vec();
    for line in lines {
        let row = cells(line);
        // Described with --live: the loop device over it may not be gone yet.
        let source = source(&place, row[0]);
        if row[1] == "make" {
            let output = place.path("refused.torrent");
            let refusal = swarmdd(&["make", "--live", source.path(), "-o", &output]);
            assert_eq!(refusal.status.code(), Some(1), "{}", row[0]);
            let said = String::from_utf8(refusal.stderr).unwrap();
            let reason = match row[0] {
                "damaged header" => "checksum of the GPT header at sector 1 is wrong",
                "damaged entries" => "checksum of the GPT entries at sector 2 is wrong",
                "no primary" => "sector 0 says GPT, but there is no GPT",
                _ => "its partition 2 ends at byte 20971520: it is cut short",
            };
            assert!(said.contains(reason), "{said}");
            assert!(row[1..].iter().all(|cell| *cell == "make"), "{line}");
            continue;
        }
        let (torrent, _) = make(
            &place,
            source.path(),
            &[source.options, &["--live"]].concat(),
        );
        let seeder = Seeder::start(&torrent, source.path());
        for (column, expected) in columns.iter().zip(&row[1..]) {
            println!("{} on {column}", row[0]);
            check(&place, &source, &torrent, &seeder, column, expected);
        }
    }
}

fn cells(line: &str) -> Vec<&str> {
    line.split('|').map(str::trim).collect()
}

fn check(
    place: &Place,
    source: &Source,
    torrent: &str,
    seeder: &Seeder,
    column: &str,
    expected: &str,
) {
    let image = fs::read(&source.image).unwrap();
    let image_bytes = image.len() as u64;
    let (bytes, options) = match column {
        "same" => (image_bytes, &[][..]),
        "+7" => (image_bytes + 7 * source.sector_bytes, &[][..]),
        "larger" => (image_bytes + 16 * MIB, &[][..]),
        "grow" => (image_bytes + 16 * MIB, &["--grow-last"][..]),
        "smaller" => (image_bytes - 4 * MIB, &["--allow-smaller"][..]),
        other => panic!("no target is called '{other}'"),
    };
    let dirt = place.write("target.loop", &vec![DIRT; bytes as usize]);
    let target = Loop::over(&dirt, source.sector_bytes as u32);
    if expected == "refused" {
        refuse(torrent, &target.device, options);
        refuse(torrent, &target.device, &[&["--dry-run"], options].concat());
        let is_dirt = target.bytes().iter().all(|&byte| byte == DIRT);
        return assert!(is_dirt, "a refused disk was changed");
    }
    let said = seeder.get(torrent, &target.device, options);
    let found = target.bytes();
    // What grows is in sector 0 and in the GPT before the data.
    let start = match expected {
        "equal" => source.data.start,
        _ => source.data.start.max(512),
    };
    let data = start as usize..source.data.end as usize;
    assert!(found[data.clone()] == image[data], "{said}");
    let has_grown = said.contains("last partition grown by");
    assert_eq!(has_grown, expected == "grown", "{said}");
    assert_eq!(
        said.contains("backup GPT"),
        is_fitted(source, expected),
        "{said}"
    );
    assert_partitions(source, &target, has_grown);
    if source.kind == "gpt" {
        assert_gpt(source, &target.device, &found);
    }
}

/// With `equal` nothing was left to do.
fn is_fitted(source: &Source, expected: &str) -> bool {
    source.kind == "gpt" && expected != "equal"
}

/// `blkid` and `sfdisk` see the same as in the source, but the last partition may have grown.
#[track_caller]
fn assert_partitions(source: &Source, target: &Loop, has_grown: bool) {
    let probe = ["-p", "-s", "PTTYPE", "-o", "value", &target.device];
    assert_eq!(tool("blkid", &probe).trim(), source.kind);
    let sector_bytes = source.sector_bytes as u32;
    let (before, after) = (
        &source.partitions,
        &partitions(&target.backing, sector_bytes),
    );
    let ends = |all: &[Partition]| all.iter().map(|one| one.0 + one.1).max();
    if !has_grown {
        return assert_eq!(before, after);
    }
    assert!(ends(after) > ends(before), "{after:?}");
    let end_bytes = ends(after).unwrap() * source.sector_bytes;
    assert!(end_bytes.is_multiple_of(MIB), "{after:?}");
    assert!(
        end_bytes + 2 * MIB > target.bytes().len() as u64,
        "{after:?}"
    );
    let starts = |all: &[Partition]| -> Vec<(u64, String)> {
        all.iter().map(|one| (one.0, one.2.clone())).collect()
    };
    assert_eq!(starts(before), starts(after));
}

fn partitions(image: &str, sector_bytes: u32) -> Vec<Partition> {
    let disk = Loop::over(image, sector_bytes);
    let dump = tool("sfdisk", &["--dump", &disk.device]);
    let number = |text: &str| text.split_once('=').unwrap().1.trim().parse().unwrap();
    dump.lines()
        .filter_map(|line| line.strip_prefix("/dev/")?.split_once(" : "))
        .map(|(_, fields)| {
            let fields: Vec<&str> = fields.splitn(3, ',').collect();
            (number(fields[0]), number(fields[1]), fields[2].to_string())
        })
        .collect()
}

/// `sgdisk` finds no fault, and there is no third header.
#[track_caller]
fn assert_gpt(source: &Source, device: &str, found: &[u8]) {
    let said = tool("sgdisk", &["-v", device]);
    assert!(said.contains("No problems found"), "{said}");
    assert!(
        !said.contains("Caution") && !said.contains("Warning"),
        "{said}"
    );
    let sectors = found.chunks(source.sector_bytes as usize);
    let headers = sectors.filter(|sector| sector.starts_with(b"EFI PART"));
    assert_eq!(headers.count(), 2, "{device}");
}
