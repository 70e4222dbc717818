//! `swarmdd info`: what does a torrent file hold, and what disk does it need?

use std::fmt::Write;

use swarm_proto::format::metainfo::{FileLayout, Metainfo};
use swarm_proto::format::partitions::TableKind;
use swarm_proto::size::binary;
use swarm_proto::units::PieceIndex;

use super::{Failure, load_torrent, say};
use crate::net::torrent::TorrentPlace;
use crate::report::printable;
use crate::storage::partition_table;

/// What `info` is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub torrent: TorrentPlace,
}

pub fn run(options: &Options) -> Result<(), Failure> {
    say(&describe(&load_torrent(&options.torrent)?));
    Ok(())
}

/// One `key: value` a line. A key with several values has a line for each.
fn describe(metainfo: &Metainfo) -> String {
    let Metainfo {
        info_hash,
        layout,
        extents,
        ..
    } = metainfo;
    let last_bytes = layout.piece_length(PieceIndex(layout.piece_count() - 1));
    let kind = match metainfo.files {
        FileLayout::Single => "single file, from offset 0".to_string(),
        FileLayout::Fsbt { file_count } => {
            format!(
                "used ranges (FSBT), files: {file_count}, extents: {}",
                extents.extents().len()
            )
        }
    };
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        writeln!(text, "{key}: {}", printable(value)).expect("writing to a string cannot fail");
    };
    line("name", &metainfo.name);
    line("info-hash", &info_hash.to_string());
    line("layout", &kind);
    line("size", &bytes(layout.total_bytes()));
    line(
        "pieces",
        &format!(
            "{} of {} bytes, the last of {last_bytes}",
            layout.piece_count(),
            layout.piece_bytes()
        ),
    );
    line(
        "disk needed",
        &bytes(partition_table::bytes_needed(metainfo)),
    );
    metainfo
        .disk_bytes
        .iter()
        .for_each(|&size| line("disk size", &bytes(size)));
    metainfo
        .sector_bytes
        .iter()
        .for_each(|size| line("sector size", &format!("{size} bytes")));
    if let Some(table) = metainfo.table {
        line(
            "partition table",
            match table {
                TableKind::Raw => "whatever it is (--raw): no table is fitted",
                known => known.name(),
            },
        );
    }
    line("alignment", &format!("{} bytes", extents.alignment()));
    line("private", if metainfo.private { "yes" } else { "no" });
    for (tier, trackers) in metainfo.trackers.iter().enumerate() {
        trackers
            .iter()
            .for_each(|tracker| line(&format!("tracker {}", tier + 1), tracker));
    }
    metainfo
        .webseeds
        .iter()
        .for_each(|url| line("webseed", url));
    text
}

fn bytes(count: u64) -> String {
    format!("{count} bytes ({})", binary(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_proto::format::metainfo_write::{Content, Description, write};
    use swarm_proto::units::{DiskOffset, PieceHash};

    fn described(content: Content, trackers: &[String], private: bool) -> String {
        let total: u64 = match content {
            Content::Single { length } => length,
            Content::Fsbt { files } => files.iter().map(|&(_, length)| length).sum(),
            Content::Slices { slices, .. } => slices.iter().map(|slice| slice.length).sum(),
        };
        let hashes = vec![PieceHash([7; 20]); total.div_ceil(1 << 20) as usize];
        let torrent = write(&Description {
            name: "lab\u{1b}[2J",
            trackers,
            webseeds: &["http://10.77.0.1/lab".into()],
            created_by: "x",
            private,
            piece_bytes: 1 << 20,
            hashes: &hashes,
            content,
            disk_bytes: private.then_some(1 << 31),
            sector_bytes: private.then_some(512),
            needed_bytes: private.then_some(1 << 31),
            table: private.then_some(TableKind::Gpt),
        });
        let text = describe(&Metainfo::parse(&torrent).unwrap());
        text.lines()
            .filter(|line| !line.starts_with("info-hash: "))
            .map(|line| format!("{line}\n"))
            .collect()
    }

    #[test]
    fn a_torrent_of_used_ranges_is_described() {
        let files = [
            (DiskOffset(0), 4096),
            (DiskOffset(4096), 4096),
            (DiskOffset(1 << 30), 2_000_000),
        ];
        let trackers = ["http://a/announce".into(), "http://b/announce".into()];
        assert_eq!(
            described(Content::Fsbt { files: &files }, &trackers, true),
            "name: lab\u{fffd}[2J\n\
             layout: used ranges (FSBT), files: 3, extents: 2\n\
             size: 2008192 bytes (1.9 MiB)\n\
             pieces: 2 of 1048576 bytes, the last of 959616\n\
             disk needed: 2147483648 bytes (2.0 GiB)\n\
             disk size: 2147483648 bytes (2.0 GiB)\n\
             sector size: 512 bytes\n\
             partition table: GPT\n\
             alignment: 4096 bytes\n\
             private: yes\n\
             tracker 1: http://a/announce\n\
             tracker 2: http://b/announce\n\
             webseed: http://10.77.0.1/lab\n"
        );
    }

    #[test]
    fn a_single_file_torrent_is_described() {
        let text = described(Content::Single { length: 1000 }, &[], false);
        assert!(
            text.contains("layout: single file, from offset 0\n"),
            "{text}"
        );
        assert!(
            text.contains("pieces: 1 of 1048576 bytes, the last of 1000\n"),
            "{text}"
        );
        assert!(
            text.contains("disk needed: 1000 bytes (1000 B)\n"),
            "{text}"
        );
    }
}
