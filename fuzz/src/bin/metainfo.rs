//! Does a torrent that is accepted describe each byte once, and is it the one that was written?
//!
//! Holds: bencoded values have one spelling; extents are without gaps in the torrent, share no
//! byte of the disk and lie within it; there is a hash for each piece; any range of the torrent is
//! found where a byte-by-byte count finds it; written again, the torrent is the same. Input: a
//! torrent file. If it does not begin with `d`: a recipe for one, which must be accepted exactly if
//! its slices do not overlap.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use swarm_proto::format::bencode::{self, Value};
use swarm_proto::format::extents::{Extent, ExtentMap, sectors_around, split};
use swarm_proto::format::layout::Layout;
use swarm_proto::format::metainfo::{FileLayout, Metainfo};
use swarm_proto::format::metainfo_write::{Content, Description, write};
use swarm_proto::units::{DiskOffset, InfoHash, PieceHash};
use swarmdd_fuzz::Input;

fuzz_target!(|data: &[u8]| {
    check_bencode(data);
    if data.first() != Some(&b'd') {
        return check_recipe(Input::new(data));
    }
    match Metainfo::parse(data) {
        Ok(metainfo) => {
            check(&metainfo);
            check_again(&metainfo);
            check_info_hash(&metainfo, data);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

// ---- bencode

fn check_bencode(data: &[u8]) {
    let Ok((value, length)) = bencode::parse_prefix(data) else {
        return;
    };
    let mut encoded = Vec::new();
    encode(value, &mut encoded);
    assert_eq!(encoded, data[..length]);
    let blank = data[length..].trim_ascii().is_empty();
    assert_eq!(bencode::parse(data).is_ok(), blank);
    for shorter in 0..length.min(64) {
        assert!(bencode::parse_prefix(&data[..shorter]).is_err());
    }
}

fn encode(value: Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Integer(integer) => bencode::put_integer(out, integer),
        Value::Bytes(bytes) => bencode::put_bytes(out, bytes),
        Value::List(list) => {
            out.push(b'l');
            list.iter().for_each(|item| encode(item, out));
            out.push(b'e');
        }
        Value::Dict(dict) => {
            let begin = out.len();
            out.push(b'd');
            for (key, value) in dict.iter() {
                bencode::put_bytes(out, key);
                encode(value, out);
                assert!(dict.get(key).is_some());
            }
            out.push(b'e');
            assert_eq!(dict.raw(), &out[begin..]);
        }
    }
}

// ---- what was accepted

fn check(metainfo: &Metainfo) {
    let layout = metainfo.layout;
    assert_eq!(metainfo.hashes.len(), layout.piece_count() as usize);
    assert_eq!(layout.total_bytes(), metainfo.extents.total_bytes());
    let lengths = layout.pieces().map(|piece| layout.piece_length(piece));
    let sum: u64 = lengths.map(u64::from).sum();
    assert_eq!(sum, layout.total_bytes());
    check_extents(&metainfo.extents);
    let end = metainfo.extents.disk_end().0;
    assert!(metainfo.disk_bytes.is_none_or(|bytes| bytes >= end));
    let sectors = |bytes: u32| [512, 1024, 2048, 4096].contains(&bytes);
    assert!(metainfo.sector_bytes.is_none_or(sectors));
    assert!(!metainfo.name.is_empty() && !metainfo.name.contains(['/', '\0', '\n']));
    let urls = metainfo.trackers.iter().flatten();
    for url in urls.chain(&metainfo.webseeds) {
        assert!(!url.is_empty() && !url.contains(char::is_control));
    }
    for piece in layout.pieces() {
        let (start, length) = (layout.piece_start(piece), layout.piece_length(piece).into());
        check_ranges(&metainfo.extents, start, length);
    }
}

fn check_extents(extents: &ExtentMap) {
    let all = extents.extents();
    let mut torrent_end = 0;
    for extent in all {
        assert_eq!(extent.torrent_offset, torrent_end);
        assert!(extent.length > 0);
        assert!(extent.disk.0.checked_add(extent.length).is_some());
        assert!(extents.cover(extent.disk, extent.length));
        torrent_end += extent.length;
    }
    let mut sorted = all.to_vec();
    sorted.sort_by_key(|extent| extent.disk);
    for pair in sorted.windows(2) {
        assert!(pair[0].disk + pair[0].length <= pair[1].disk, "{pair:?}");
    }
    for pair in all.windows(2) {
        assert_ne!(pair[0].disk + pair[0].length, pair[1].disk, "to be merged");
    }
    let end = sorted.last().map_or(0, |last| last.disk.0 + last.length);
    assert_eq!(extents.disk_end().0, end);
    assert!(i64::try_from(end).is_ok());
    let alignment = extents.alignment();
    let edges = all
        .iter()
        .flat_map(|one| [one.disk.0, one.disk.0 + one.length]);
    assert!(
        edges
            .filter(|&edge| edge != end)
            .all(|edge| edge % alignment == 0)
    );
}

/// The ranges are these bytes in this order, at the places where a walk from the start finds them.
fn check_ranges(extents: &ExtentMap, start: u64, length: u64) {
    let mut at = start;
    for range in extents.ranges(start, length) {
        assert_eq!(range.torrent_offset, at);
        let holds = |extent: &&Extent| extent.torrent_offset <= at;
        let extent = extents.extents().iter().rfind(holds);
        let extent = extent.expect("extents begin at 0");
        assert_eq!(range.disk, extent.disk + (at - extent.torrent_offset));
        at += range.length;
        assert!(at <= extent.torrent_offset + extent.length);
        check_split(&range, start);
    }
    assert_eq!(at, start + length);
}

/// Parts for O_DIRECT are all of the range, in order, and aligned where they say so.
fn check_split(range: &Extent, start: u64) {
    let memory_offset = (range.torrent_offset - start) as u32;
    for sector in [512, 4096] {
        let (mut disk, mut memory) = (range.disk, memory_offset);
        for part in split(range.disk, memory_offset, range.length as u32, sector) {
            assert_eq!((part.disk, part.memory_offset), (disk, memory));
            let bits = part.disk.0 as u32 | part.memory_offset | part.length;
            assert!(!part.aligned || bits.is_multiple_of(sector));
            disk += part.length.into();
            memory += part.length;
        }
        assert_eq!(disk, range.disk + range.length);
        let (around, length) = sectors_around(range.disk, range.length, sector);
        assert!(around <= range.disk && around + length >= disk);
        assert!(length - range.length < 2 * u64::from(sector));
    }
}

/// `metainfo_write` puts each tracker into a tier of its own, and has no empty slices.
fn check_again(metainfo: &Metainfo) {
    let extents = metainfo.extents.extents();
    let files: Vec<_> = extents.iter().map(|one| (one.disk, one.length)).collect();
    let trackers: Vec<String> = metainfo.trackers.iter().flatten().cloned().collect();
    let content = match metainfo.files {
        FileLayout::Single => Content::Single {
            length: metainfo.layout.total_bytes(),
        },
        FileLayout::Fsbt { .. } => Content::Fsbt { files: &files },
    };
    let written = write(&Description {
        name: &metainfo.name,
        trackers: &trackers,
        webseeds: &metainfo.webseeds,
        created_by: "fuzz",
        private: metainfo.private,
        piece_bytes: metainfo.layout.piece_bytes(),
        hashes: &metainfo.hashes,
        content,
        disk_bytes: metainfo.disk_bytes,
        sector_bytes: metainfo.sector_bytes,
        needed_bytes: metainfo.needed_bytes,
        table: metainfo.table,
    });
    let again = Metainfo::parse(&written).expect("what is written is read");
    let file_count = files.len() as u32;
    let expected = Metainfo {
        info_hash: again.info_hash,
        trackers: trackers.into_iter().map(|url| vec![url]).collect(),
        files: match metainfo.files {
            FileLayout::Single => FileLayout::Single,
            FileLayout::Fsbt { .. } => FileLayout::Fsbt { file_count },
        },
        ..metainfo.clone()
    };
    assert_eq!(again, expected);
}

/// SHA-1 of the bytes of the last `info`.
fn check_info_hash(metainfo: &Metainfo, torrent: &[u8]) {
    let Ok(Value::Dict(outer)) = bencode::parse(torrent) else {
        return;
    };
    let infos = outer.iter().filter(|(key, _)| *key == b"info");
    let Some((_, Value::Dict(info))) = infos.last() else {
        panic!("a torrent has an info");
    };
    let digest = sha1_smol::Sha1::from(info.raw()).digest().bytes();
    assert_eq!(metainfo.info_hash, InfoHash(digest));
}

// ---- recipes

/// Slices in any order, near to each other or to the end of what can be named. All are small, so
/// that hashes are few.
fn check_recipe(mut input: Input<'_>) {
    let piece_bytes = (16 * 1024) << input.choose(4);
    let unit = [1, 512, 4096, piece_bytes.into()][input.choose(4)];
    let mut files: Vec<(DiskOffset, u64)> = Vec::new();
    while !input.is_empty() && files.len() < 40 {
        let near_end = if input.chance(8) { i64::MAX as u64 } else { 0 };
        let offset = near_end.saturating_sub(u64::from(input.u16()) * unit);
        let offset = if near_end == 0 {
            u64::from(input.u8()) * unit
        } else {
            offset
        };
        files.push((DiskOffset(offset), u64::from(input.u8()) * unit));
    }
    let total_bytes = files.iter().map(|&(_, length)| length).sum();
    let Ok(layout) = Layout::new(total_bytes, piece_bytes) else {
        return assert_eq!(total_bytes, 0);
    };
    let hashes = vec![PieceHash([7; 20]); layout.piece_count() as usize];
    let written = write(&Description {
        name: "recipe",
        trackers: &[],
        webseeds: &[],
        created_by: "fuzz",
        private: false,
        piece_bytes,
        hashes: &hashes,
        content: Content::Fsbt { files: &files },
        disk_bytes: None,
        sector_bytes: None,
        needed_bytes: None,
        table: None,
    });
    match Metainfo::parse(&written) {
        Ok(metainfo) => {
            assert!(fit(&files));
            check(&metainfo);
            assert_eq!(metainfo.layout, layout);
            assert_eq!(Arc::strong_count(&metainfo.extents), 1);
        }
        Err(error) => assert!(!fit(&files), "{error}"),
    }
}

/// Whether no two slices share a byte, and none ends where no offset can be.
fn fit(files: &[(DiskOffset, u64)]) -> bool {
    let filled = || {
        files
            .iter()
            .enumerate()
            .filter(|(_, (_, length))| *length > 0)
    };
    filled().all(|(index, (disk, length))| {
        let apart = filled().all(|(other, (begin, bytes))| {
            index == other || disk.0 + length <= begin.0 || begin.0 + bytes <= disk.0
        });
        apart && i64::try_from(disk.0 + length).is_ok()
    })
}
