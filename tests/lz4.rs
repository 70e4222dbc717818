//! Do the blocks of the core and those of the `lz4` program say the same, both ways?
//!
//! A frame (`doc/lz4_Frame_format.md` of LZ4) is written around the blocks, so that the program
//! takes them.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use swarm_proto::format::lz4::{Encoder, decode};
use swarm_proto::rng::Rng;

mod scratch;

use scratch::Place;

/// Magic number; independent blocks of at most 64 KiB, no sums; the sum of that.
const FRAME_HEADER: &[u8] = b"\x04\x22\x4d\x18\x60\x40\x82";
/// Of a block's length: the block is not compressed.
const RAW: u32 = 1 << 31;

#[test]
fn the_lz4_program_reads_what_the_core_writes() {
    let mut encoder = Encoder::new();
    for (name, blocks) in [("generated", generated()), ("real", real())] {
        let mut frame = FRAME_HEADER.to_vec();
        let mut compressed = 0;
        for block in &blocks {
            let mut out = vec![0; block.len()];
            let length = encoder.encode(block, &mut out);
            compressed += u32::from(length.is_some());
            let (bytes, raw) = match length {
                Some(length) => (&out[..length], 0),
                None => (&block[..], RAW),
            };
            let length = u32::try_from(bytes.len()).unwrap();
            frame.extend((length | raw).to_le_bytes());
            frame.extend(bytes);
        }
        frame.extend([0; 4]);
        assert!(compressed > 500, "of {name} blocks {compressed} shrank");
        let place = Place::new(name);
        let (path, back) = (place.write("frame.lz4", &frame), place.path("back"));
        lz4(&["-d", &path, &back]);
        assert!(fs::read(back).unwrap() == blocks.concat(), "{name}");
    }
}

#[test]
fn the_core_reads_what_the_lz4_program_writes() {
    let place = Place::new("program");
    for (blocks, level, size) in [
        (generated(), "-1", "-B16384"),
        (generated(), "-9", "-B5000"),
        (real(), "-1", "-B65536"),
        (real(), "-12", "-B16384"),
    ] {
        let bytes = blocks.concat();
        let (path, packed) = (place.write("bytes", &bytes), place.path("packed"));
        lz4(&["-BI", "--no-frame-crc", level, size, &path, &packed]);
        let frame = fs::read(packed).unwrap();
        let mut rest = frame.get(FRAME_HEADER.len()..).unwrap();
        let mut back: Vec<u8> = Vec::new();
        let mut out = vec![0; 1 << 16];
        loop {
            let length = u32::from_le_bytes(*rest.split_first_chunk().unwrap().0);
            let (block, after) = rest[4..].split_at((length & !RAW) as usize);
            match length {
                0 => break,
                _ if length & RAW != 0 => back.extend(block),
                _ => {
                    let length = decode(block, &mut out).expect("the program is right");
                    back.extend(&out[..length]);
                }
            }
            rest = after;
        }
        assert!(back == bytes, "{level} {size}");
    }
}

fn lz4(arguments: &[&str]) {
    let command = Command::new("lz4")
        .args(["-q", "-f"])
        .args(arguments)
        .status();
    assert!(
        command.expect("lz4 is installed").success(),
        "{arguments:?}"
    );
}

/// 10,000 of all lengths: few letters or many, repeats near and far.
fn generated() -> Vec<Vec<u8>> {
    let mut rng = Rng::new(1);
    let mut block = || {
        let bytes_max = [100, 1 << 12, 1 << 14][rng.below(3) as usize];
        let bytes = 1 + rng.below(bytes_max) as usize;
        let letters = [2, 16, 256][rng.below(3) as usize];
        let mut block = Vec::new();
        while block.len() < bytes {
            let count = 1 + rng.below(200) as usize;
            let offset = 1 + rng.below(block.len() as u32 + 1) as usize;
            for _ in 0..count {
                let repeated = block.len().checked_sub(offset).map(|at| block[at]);
                block.push(repeated.unwrap_or(rng.below(letters) as u8));
            }
        }
        block.truncate(bytes);
        block
    };
    (0..10_000).map(|_| block()).collect()
}

/// The first 16 KiB of 1,000 files of this machine.
fn real() -> Vec<Vec<u8>> {
    let mut paths = vec![PathBuf::from("/usr/bin"), PathBuf::from("/usr/lib")];
    let mut blocks = Vec::new();
    while let Some(path) = paths.pop() {
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            paths.extend(entries.map(|entry| entry.path()));
            continue;
        }
        blocks.extend(first_block(&path));
        if blocks.len() == 1000 {
            return blocks;
        }
    }
    panic!("this machine has only {} files", blocks.len());
}

fn first_block(path: &Path) -> Option<Vec<u8>> {
    let mut block = vec![0; 1 << 14];
    File::open(path).ok()?.read_exact(&mut block).ok()?;
    Some(block)
}
