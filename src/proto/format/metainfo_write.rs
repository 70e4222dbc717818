//! How is a torrent file written?
//!
//! The counterpart of `metainfo`, which reads what is written here.

use crate::format::bencode::{put_bytes, put_integer};
use crate::format::layout::Layout;
use crate::format::partitions::TableKind;
use crate::format::slices::{Slice, SliceName};
use crate::units::{DiskOffset, PieceHash};
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

/// What [`write`] puts into a torrent file.
#[derive(Clone, Copy, Debug)]
pub struct Description<'a> {
    pub name: &'a str,
    /// Each tracker becomes a tier of its own.
    pub trackers: &'a [String],
    pub webseeds: &'a [String],
    pub created_by: &'a str,
    pub private: bool,
    pub piece_bytes: u32,
    pub hashes: &'a [PieceHash],
    pub content: Content<'a>,
    pub disk_bytes: Option<u64>,
    pub sector_bytes: Option<u32>,
    pub needed_bytes: Option<u64>,
    pub table: Option<TableKind>,
}

/// Where the bytes belong: one image from offset 0 on, or slices in torrent order, as (disk offset,
/// length) or as files that have names already, in these directories, one below the other.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    Single {
        length: u64,
    },
    Fsbt {
        files: &'a [(DiskOffset, u64)],
    },
    Slices {
        below: &'a [&'a str],
        slices: &'a [Slice],
    },
}

/// The bytes of a torrent file. It has no date, so that the same image gives the same bytes.
/// `announce` comes first and is a plain URL, because Clonezilla replaces the address in it with
/// `strings` and a pattern. [`Layout::new`] must accept the described content, and there must be
/// one hash for each piece.
pub fn write(description: &Description) -> Vec<u8> {
    let Description {
        trackers,
        webseeds,
        created_by,
        ..
    } = *description;
    let mut out = vec![b'd'];
    if let Some(first) = trackers.first() {
        put_entry(&mut out, "announce", first);
    }
    if trackers.len() > 1 {
        put_bytes(&mut out, b"announce-list");
        put_list(&mut out, trackers, |out, tracker| {
            put_list(out, &[tracker], |out, url| put_bytes(out, url.as_bytes()))
        });
    }
    put_entry(&mut out, "created by", created_by);
    put_bytes(&mut out, b"info");
    put_info(&mut out, description);
    if !webseeds.is_empty() {
        put_bytes(&mut out, b"url-list");
        put_list(&mut out, webseeds, |out, url| {
            put_bytes(out, url.as_bytes())
        });
    }
    out.push(b'e');
    out
}

fn put_info(out: &mut Vec<u8>, description: &Description) {
    let Description {
        name,
        private,
        piece_bytes,
        hashes,
        content,
        disk_bytes,
        sector_bytes,
        needed_bytes,
        table,
        ..
    } = *description;
    out.push(b'd');
    if let Some(bytes) = needed_bytes {
        put_size(out, "disk needed", bytes);
    }
    if let Some(bytes) = disk_bytes {
        put_size(out, "disk size", bytes);
    }
    let total_bytes = match content {
        Content::Single { length } => {
            put_length(out, length);
            length
        }
        Content::Fsbt { files } => {
            put_bytes(out, b"files");
            put_list(out, files, |out, &(disk, length)| {
                let name = SliceName::of_partclone(disk);
                put_file(out, &[], Slice { name, length })
            });
            files.iter().map(|&(_, length)| length).sum()
        }
        Content::Slices { below, slices } => {
            put_bytes(out, b"files");
            put_list(out, slices, |out, &slice| put_file(out, below, slice));
            slices.iter().map(|slice| slice.length).sum()
        }
    };
    let layout = Layout::new(total_bytes, piece_bytes).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        hashes.len(),
        layout.piece_count() as usize,
        "one hash for each piece"
    );
    put_entry(out, "name", name);
    if let Some(table) = table {
        put_entry(out, "partition table", table.name());
    }
    put_bytes(out, b"piece length");
    put_integer(out, piece_bytes.into());
    let pieces: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
    put_entry(out, "pieces", &pieces);
    if private {
        put_bytes(out, b"private");
        put_integer(out, 1);
    }
    if let Some(bytes) = sector_bytes {
        put_size(out, "sector size", bytes.into());
    }
    out.push(b'e');
}

/// One slice.
fn put_file(out: &mut Vec<u8>, below: &[&str], slice: Slice) {
    out.push(b'd');
    put_length(out, slice.length);
    put_bytes(out, b"path");
    out.push(b'l');
    below
        .iter()
        .for_each(|directory| put_bytes(out, directory.as_bytes()));
    put_bytes(out, slice.name.to_string().as_bytes());
    out.extend(b"ee");
}

fn put_length(out: &mut Vec<u8>, length: u64) {
    put_size(out, "length", length);
}

/// An entry whose value is an integer: a number of bytes.
fn put_size(out: &mut Vec<u8>, key: &str, bytes: u64) {
    put_bytes(out, key.as_bytes());
    put_integer(
        out,
        i64::try_from(bytes).expect("no file and no disk is longer than i64::MAX"),
    );
}

fn put_list<T>(out: &mut Vec<u8>, items: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'l');
    items.iter().for_each(|item| put(out, item));
    out.push(b'e');
}

/// An entry whose value is a byte string.
fn put_entry(out: &mut Vec<u8>, key: &str, value: impl AsRef<[u8]>) {
    put_bytes(out, key.as_bytes());
    put_bytes(out, value.as_ref());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::bencode::{self, Value};
    use crate::format::metainfo::tests::{FSBT, disk_and_length, hashes};
    use crate::format::metainfo::{FileLayout, Metainfo};
    use alloc::string::ToString;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| text.to_string()).collect()
    }

    #[test]
    fn what_is_written_is_what_libtorrent_writes() {
        let description = Description {
            name: "sda1",
            trackers: &strings(&["http://10.77.0.1:6969/announce"]),
            webseeds: &[],
            created_by: "swarmdd",
            private: false,
            piece_bytes: 1 << 20,
            hashes: &hashes(2, b'A'),
            content: Content::Fsbt {
                files: &[
                    (DiskOffset(0), 65536),
                    (DiskOffset(65536), 131072),
                    (DiskOffset(0x480_0400), 1050112),
                ],
            },
            disk_bytes: None,
            sector_bytes: None,
            needed_bytes: None,
            table: None,
        };
        assert_eq!(
            write(&description).escape_ascii().to_string(),
            FSBT.escape_ascii().to_string()
        );
        // Info-hashes as torrent_info.info_hash() of libtorrent 2.0.8 gives them for hashes 0101…,
        // 0202…
        let info_hash =
            |description: &Description| Metainfo::parse(&write(description)).unwrap().info_hash;
        let description = Description {
            hashes: &hashes(2, 1),
            ..description
        };
        assert_eq!(
            info_hash(&description).to_string(),
            "79928b78fb58b112cf0433055420d73b457c32e6"
        );
        let single = Description {
            name: "disk.img",
            private: true,
            piece_bytes: 1 << 18,
            hashes: &hashes(4, 1),
            content: Content::Single { length: 1_000_000 },
            ..description
        };
        assert_eq!(
            info_hash(&single).to_string(),
            "9bf34c37605ddbd253695d6ff0d579bd7d4d1be6"
        );
        let of_a_disk = Description {
            disk_bytes: Some(1 << 31),
            sector_bytes: Some(4096),
            ..single
        };
        assert_eq!(
            info_hash(&of_a_disk).to_string(),
            "f945a79fb6b5a396d8455f01011bc6415feb1795"
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (one, two) = (
            strings(&["http://a"]),
            strings(&["http://a", "http://[::1]:6969/b"]),
        );
        let image = Content::Single { length: 40_001 };
        let slices = Content::Fsbt {
            files: &[(DiskOffset(512), 40_000), (DiskOffset(1 << 40), 1)],
        };
        let cases = [
            (&[][..], &[][..], false, image, vec![(0, 40_001)]),
            (&one, &two, true, image, vec![(0, 40_001)]),
            (&two, &one, true, slices, vec![(512, 40_000), (1 << 40, 1)]),
        ];
        for (trackers, webseeds, private, content, extents) in cases {
            let hashes = hashes(3, 0);
            let description = Description {
                name: "größer",
                trackers,
                webseeds,
                created_by: "swarmdd 1",
                private,
                piece_bytes: 16384,
                hashes: &hashes,
                content,
                disk_bytes: private.then_some(1 << 41),
                sector_bytes: private.then_some(512),
                needed_bytes: private.then_some((1 << 40) + 1),
                table: private.then_some(TableKind::Mbr),
            };
            let torrent = write(&description);
            let metainfo = Metainfo::parse(&torrent).unwrap();
            assert_eq!(metainfo.name, "größer");
            let tiers: Vec<Vec<String>> = trackers.iter().map(|url| vec![url.clone()]).collect();
            assert_eq!(
                (metainfo.trackers.clone(), &metainfo.webseeds[..]),
                (tiers, webseeds)
            );
            assert_eq!(
                (metainfo.private, metainfo.layout.total_bytes()),
                (private, 40_001)
            );
            assert_eq!(disk_and_length(&metainfo), extents);
            assert_eq!(metainfo.hashes, hashes);
            assert_eq!(metainfo.disk_bytes, description.disk_bytes);
            assert_eq!(metainfo.sector_bytes, description.sector_bytes);
            assert_eq!(metainfo.needed_bytes, description.needed_bytes);
            assert_eq!(metainfo.table, description.table);
            assert_keys_sorted(bencode::parse(&torrent).unwrap());
        }
    }

    fn assert_keys_sorted(value: Value<'_>) {
        match value {
            Value::Dict(dict) => {
                let keys: Vec<&[u8]> = dict.iter().map(|(key, _)| key).collect();
                assert!(keys.is_sorted(), "{keys:?}");
                dict.iter().for_each(|(_, value)| assert_keys_sorted(value));
            }
            Value::List(list) => list.iter().for_each(assert_keys_sorted),
            Value::Integer(_) | Value::Bytes(_) => {}
        }
    }

    /// As many files as a badly fragmented file system has. Each becomes one extent, and reading
    /// them takes no noticeable time.
    #[test]
    fn a_hundred_thousand_files() {
        let list: Vec<(DiskOffset, u64)> = (0..100_000)
            .map(|index| (DiskOffset(index * 8192), 4096))
            .collect();
        let description = Description {
            name: "n",
            trackers: &[],
            webseeds: &[],
            created_by: "swarmdd",
            private: false,
            piece_bytes: 1 << 22,
            hashes: &hashes(98, 0),
            content: Content::Fsbt { files: &list },
            disk_bytes: None,
            sector_bytes: None,
            needed_bytes: None,
            table: None,
        };
        let metainfo = Metainfo::parse(&write(&description)).unwrap();
        assert_eq!(
            metainfo.files,
            FileLayout::Fsbt {
                file_count: 100_000
            }
        );
        assert_eq!(metainfo.extents.extents().len(), 100_000);
    }
}
