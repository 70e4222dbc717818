//! Are the bytes of an image found in the slices that have them, whatever slices are called and
//! whatever a torrent.info says?
//!
//! Holds: a name comes back as it was, and a twin that counts in 128 bits reads the same offset; of
//! a torrent.info that is accepted, the torrent describes the same slices and hashes; slices that
//! are accepted for an image are apart, and each byte of the image lies in a slice that ends within
//! its extent. Input: a torrent.info; behind a NUL, a slice a line, as a name and a length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use swarm_proto::format::extents::ExtentMap;
use swarm_proto::format::layout::Layout;
use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::format::metainfo_write::{self, Content, Description};
use swarm_proto::format::slices::{self, Slice, SliceName, SliceTable};
use swarm_proto::format::torrent_info::{PIECE_BYTES, TorrentInfo};
use swarm_proto::units::DiskOffset;

fuzz_target!(|data: &[u8]| {
    let (text, list) = match data.iter().position(|&byte| byte == 0) {
        Some(place) => (&data[..place], &data[place + 1..]),
        None => (data, &[][..]),
    };
    let listed = listed(list);
    let Some((info, extents)) = described(text) else {
        return check_table(listed.clone(), &in_order(&listed));
    };
    check_torrent(&info, &extents);
    check_table(info.slices, &extents);
    check_table(listed, &extents);
});

/// The slices of a directory.
fn listed(list: &[u8]) -> Vec<Slice> {
    let slice = |line: &[u8]| {
        let space = line.iter().position(|&byte| byte == b' ');
        let (name, length) = line.split_at(space.unwrap_or(line.len()));
        let name = name_of(name)?;
        let length = core::str::from_utf8(length).ok()?.trim();
        let length: u64 = length.parse().unwrap_or(4096);
        (length <= i64::MAX as u64).then_some(Slice { name, length })
    };
    list.split(|&byte| byte == b'\n')
        .filter_map(slice)
        .collect()
}

fn name_of(text: &[u8]) -> Option<SliceName> {
    let name = SliceName::parse(text).ok()?;
    assert_eq!(name.to_string().as_bytes(), text);
    let twin = text.iter().fold(0u128, |number, digit| {
        let digit = char::from(*digit).to_digit(16).expect("a digit");
        number.saturating_mul(16).saturating_add(digit.into())
    });
    assert_eq!(u128::from(name.disk.0), twin);
    assert!(i64::try_from(name.disk.0).is_ok());
    Some(name)
}

/// An image of these slices, if they can be one.
fn in_order(slices: &[Slice]) -> ExtentMap {
    let files = slices.iter().map(|slice| (slice.name.disk, slice.length));
    ExtentMap::from_files(files).unwrap_or_default()
}

fn described(text: &[u8]) -> Option<(TorrentInfo, ExtentMap)> {
    let mut info = TorrentInfo::default();
    for line in text.split(|&byte| byte == b'\n') {
        info.line(line).ok()?;
    }
    let info = info.finish().ok()?;
    let files = info
        .slices
        .iter()
        .map(|slice| (slice.name.disk, slice.length));
    let extents = ExtentMap::from_files(files).ok()?;
    Layout::new(extents.total_bytes(), PIECE_BYTES).ok()?;
    Some((info, extents))
}

fn check_torrent(info: &TorrentInfo, extents: &ExtentMap) {
    let torrent = metainfo_write::write(&Description {
        name: "vg",
        trackers: &[],
        webseeds: &[],
        created_by: "fuzz",
        private: false,
        piece_bytes: PIECE_BYTES,
        hashes: &info.hashes,
        content: Content::Slices {
            below: &["lv"],
            slices: &info.slices,
        },
        disk_bytes: None,
        sector_bytes: None,
        needed_bytes: None,
        table: None,
    });
    let metainfo = Metainfo::parse(&torrent).expect("what is written is a torrent");
    assert_eq!(*metainfo.extents, *extents);
    assert_eq!(metainfo.hashes, info.hashes);
    assert!(info.disk_bytes().is_none_or(|bytes| bytes <= 1 << 62));
}

fn check_table(mut slices: Vec<Slice>, extents: &ExtentMap) {
    if slices::sort(&mut slices).is_err() {
        return;
    }
    let end = |slice: &Slice| slice.name.disk.0 + slice.length;
    assert!(
        slices
            .windows(2)
            .all(|two| end(&two[0]) <= two[1].name.disk.0)
    );
    let Ok(table) = SliceTable::new(&slices, extents) else {
        return;
    };
    for extent in extents.extents() {
        let (mut at, last) = (extent.disk.0, extent.disk.0 + extent.length);
        while at < last {
            // The twin looks at all of them.
            let mut holders = slices
                .iter()
                .filter(|slice| (slice.name.disk.0..end(slice)).contains(&at));
            let holder = holders.next().expect("a slice has the byte");
            assert!(holders.next().is_none());
            assert!(end(holder) <= last);
            for byte in [at, end(holder) - 1] {
                let (index, next) = table.find(DiskOffset(byte));
                assert_eq!(table.name(index), holder.name);
                assert!(next.0 >= end(holder));
            }
            at = end(holder);
        }
    }
}
