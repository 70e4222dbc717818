//! Is a partclone image read as what it is, or refused?
//!
//! The checksums of header and map are put right first, so that everything behind them is reached.
//! Holds: only bytes of the file are read, at most 64 KiB at once; the runs are those that a twin
//! finds block by block, and lie in the device; every used byte has a place of its own between the
//! map and the end of the file; the CRC-32 of each strip fits what the twin computes of it, in
//! whatever parts its bytes come, and nothing else. Input: choices, how far the file goes on in
//! zeros, the lengths of those parts, the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use swarm_proto::format::partclone::{Checksum, Image};
use swarm_proto::format::partclone_error::ImageError;
use swarm_proto::units::DiskOffset;
use swarmdd_fuzz::{Input, crc32, cut};

/// A map that is longer is read the same way, and takes long.
const FILE_BYTES_MAX: u64 = 200 << 10;
const READ_BYTES_MAX: u64 = 64 << 10;
/// Each strip multiplies polynomials, and a strip may be a byte. 40,000 inputs took 2.7 s with this
/// limit, and 5.7 s without one.
const STRIPS_MAX: usize = 100;
const MAP_START: usize = 110;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let flags = input.u8();
    let more = u64::from(input.u32()) >> (input.u8() % 32);
    let lengths = input.take(4);
    let mut file = input.rest().to_vec();
    let length = (file.len() as u64 + more).min(FILE_BYTES_MAX);
    file.resize(length as usize, 0);
    if flags & 1 == 0 {
        put_right(&mut file, flags & 2 == 0);
    }
    check(&file, lengths);
});

/// The magic numbers and checksums of header and map, as far as the file has them.
fn put_right(file: &mut [u8], with_map: bool) {
    put(file, 0, b"partclone-image");
    if file.get(30..34) == Some(b"0001") {
        let end = u64_at(file, 48).saturating_add(4160);
        if with_map && end < FILE_BYTES_MAX {
            put(file, end as usize, b"BiTmAgIc");
        }
        return;
    }
    put(file, 30, b"0002\xde\xc0");
    let Some(head) = file.get(..106) else { return };
    let sum = !crc32(head);
    put(file, 106, &sum.to_le_bytes());
    let (total, mode) = (u64_at(file, 60), file[105]);
    let end = match mode {
        1 => total.div_ceil(8),
        8 => total,
        _ => return,
    };
    let end = end.saturating_add(MAP_START as u64);
    if !with_map || end >= FILE_BYTES_MAX {
        return;
    }
    let end = end as usize;
    if mode == 8 {
        return put(file, end, b"BiTmAgIc");
    }
    let Some(map) = file.get(MAP_START..end) else {
        return;
    };
    let sum = !crc32(map);
    put(file, end, &sum.to_le_bytes());
}

fn check(file: &[u8], lengths: &[u8]) {
    let (mut map_end, mut runs) = (0, Vec::new());
    let mut read = |part: core::ops::Range<u64>| {
        assert!(
            part.start <= part.end && part.end <= file.len() as u64,
            "{part:?}"
        );
        assert!(part.end - part.start <= READ_BYTES_MAX, "{part:?}");
        map_end = map_end.max(part.end);
        Some(file[part.start as usize..part.end as usize].to_vec())
    };
    let mut on_run = |start: DiskOffset, length| runs.push((start.0, length));
    let image = match Image::read(file.len() as u64, &mut read, &mut on_run) {
        Ok(image) => image,
        Err(error) => {
            assert!(error != ImageError::Unread && error.to_string().len() < 200);
            return;
        }
    };
    let (used, expected) = twin(&image, file);
    assert_eq!(image.used_blocks, used);
    assert_eq!(runs, expected);
    let device = image.header.device_bytes;
    assert!(
        runs.iter()
            .all(|(start, length)| *length > 0 && start + length <= device)
    );
    assert!(image.data.end() <= file.len() as u64);
    let bytes = used * u64::from(image.header.block_bytes);
    assert_eq!(image.data.bytes(), bytes);
    check_places(&image, map_end, bytes);
    if image.header.checksum == Checksum::Crc32 {
        check_strips(&image, file, lengths);
    }
    let name = &image.header.file_system;
    assert!(name.len() <= 16 && name.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
}

/// The number of used blocks, and their runs.
fn twin(image: &Image, file: &[u8]) -> (u64, Vec<(u64, u64)>) {
    let is_old = &file[30..34] == b"0001";
    let start = if is_old { 4160 } else { MAP_START };
    let is_used = |block: usize| match (is_old, file[105]) {
        (true, _) | (_, 8) => file[start + block] == 1,
        (_, 0) => true,
        _ => file[start + block / 8] >> (block % 8) & 1 == 1,
    };
    let block_bytes = u64::from(image.header.block_bytes);
    // Without a map, all blocks are in the file.
    if !is_old && file[105] == 0 {
        let total = image.header.total_blocks;
        return (total, vec![(0, total * block_bytes)]);
    }
    let (mut count, mut runs) = (0, Vec::<(u64, u64)>::new());
    for block in 0..image.header.total_blocks {
        if is_used(block as usize) {
            count += 1;
            match runs.last_mut() {
                Some((start, length)) if *start + *length == block * block_bytes => {
                    *length += block_bytes;
                }
                _ => runs.push((block * block_bytes, block_bytes)),
            }
        }
    }
    (count, runs)
}

/// Going from place to place meets every byte, each behind the one before.
fn check_places(image: &Image, start: u64, bytes: u64) {
    let (mut byte, mut end) = (0, start);
    while byte < bytes {
        let (disk, count) = image.data.place(byte);
        assert!(count > 0 && disk.0 >= end);
        if byte + 1 < bytes && count > 1 {
            assert_eq!(image.data.place(byte + 1), (disk + 1, count - 1));
        }
        byte += count;
        end = disk.0 + count;
    }
    assert_eq!(byte, bytes);
    assert!(end <= image.data.end() && image.data.end() - end <= 16);
}

fn check_strips(image: &Image, file: &[u8], lengths: &[u8]) {
    let mut used = Vec::new();
    while (used.len() as u64) < image.data.bytes() {
        let (disk, count) = image.data.place(used.len() as u64);
        used.extend(&file[disk.0 as usize..(disk.0 + count) as usize]);
    }
    let header = &image.header;
    let strip_bytes = u64::from(header.block_bytes) * u64::from(header.strip_blocks);
    let strip_bytes = usize::try_from(strip_bytes).unwrap();
    let expected = used.chunks(strip_bytes);
    if expected.len() > STRIPS_MAX {
        return;
    }
    let mut strips = image.strips().expect("they can be checked");
    let (mut from, mut whole) = (0, Vec::new());
    // Parts of a byte would take long.
    let lengths: Vec<u8> = lengths.iter().map(|length| length | 0xc0).collect();
    for mut part in cut(&used, &lengths) {
        while !part.is_empty() {
            whole.extend(strips.take(&mut from, &mut part));
        }
    }
    assert_eq!(whole.len(), expected.len());
    for (strip, bytes) in whole.into_iter().zip(expected) {
        let sum = !crc32(bytes);
        assert!(strips.fits(strip, sum, None));
        assert!(!strips.fits(strip, sum ^ 1, None));
        assert_eq!(strips.goes_on(strip), !header.reseed && strip.index > 0);
        assert!(strips.blocks(strip).end <= image.used_blocks);
    }
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = file.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn u64_at(file: &[u8], at: usize) -> u64 {
    let bytes = file.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_le_bytes)
}
