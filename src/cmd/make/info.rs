//! What does the torrent say that `partclone_create_torrent.py` makes of a `torrent.info`?
//!
//! The hashes are in it, and the bytes may be anywhere. `info` has what that script puts into it
//! and nothing else, so the info-hash is the same.

use std::fmt::Display;
use std::fs;
use std::path::Path;

use swarm_proto::format::extents::ExtentMap;
use swarm_proto::format::layout::Layout;
use swarm_proto::format::metainfo_write::{self, Content, Description};
use swarm_proto::format::slices;
use swarm_proto::format::torrent_info::{PIECE_BYTES, TorrentInfo};
use swarm_proto::limits::METAINFO_BYTES_MAX;

use super::draft::Draft;
use super::{CREATED_BY, Options};
use crate::cmd::Failure;
use crate::os::whole;

/// Longest file that is read. Of a million slices it has 90 MB, a little more than their torrent.
const BYTES_MAX: u64 = 2 * METAINFO_BYTES_MAX as u64;

/// Whether a source is one, by its name or by how it begins. An error comes when it is opened.
pub(super) fn is_one(path: &Path) -> bool {
    let begins_so = || whole::read_start(path, 16).is_ok_and(|head| TorrentInfo::is_one(&head));
    path.is_file() && (is_named_so(path) || begins_so())
}

/// `torrent.info`, or `sda1.torrent.info` as Clonezilla calls it.
pub fn is_named_so(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().ends_with(b"torrent.info")
}

pub(super) fn read(path: &Path) -> Result<TorrentInfo, Failure> {
    let failed = |error: &dyn Display| refusal(path, error);
    let length = fs::metadata(path).map_or(0, |found| found.len());
    if length > BYTES_MAX {
        return Err(failed(&format!(
            "has {length} bytes, at most {BYTES_MAX} are read"
        )));
    }
    let text = whole::read_all(path).map_err(|error| failed(&error))?;
    let mut info = TorrentInfo::default();
    for line in text.split(|&byte| byte == b'\n') {
        info.line(line).map_err(|error| failed(&error))?;
    }
    info.finish().map_err(|error| failed(&error))
}

/// Where the slices lie that the file at this path names.
pub(super) fn extents(path: &Path, info: &TorrentInfo) -> Result<ExtentMap, Failure> {
    slices::extents(&info.slices).map_err(|error| refusal(path, &error))
}

fn refusal(path: &Path, why: &dyn Display) -> Failure {
    Failure::Because(format!("source {}: {why}", path.display()))
}

/// Writes the torrent of a `torrent.info`. Nothing is hashed.
pub(super) fn describe(options: &Options) -> Result<(), Failure> {
    let source = &options.source;
    let other = options
        .piece_bytes
        .is_some_and(|bytes| bytes != PIECE_BYTES);
    if other || options.decides() {
        let why = "partclone has decided about slices and pieces of 16 MiB";
        return Err(refusal(source, &why));
    }
    let Some(name) = &options.name else {
        let why = "--name is needed, and every other maker must give the same";
        return Err(refusal(source, &why));
    };
    // `vg/lv` of a volume of LVM becomes two directories.
    let mut parts = name.split('/');
    let (name, below) = (parts.next().unwrap_or_default(), parts.collect::<Vec<_>>());
    let info = read(source)?;
    Layout::new(extents(source, &info)?.total_bytes(), PIECE_BYTES)?;
    let draft = Draft::create(&options.output)?;
    let torrent = metainfo_write::write(&Description {
        name,
        trackers: &options.trackers,
        webseeds: &options.web_seeds,
        created_by: CREATED_BY,
        private: options.private,
        piece_bytes: PIECE_BYTES,
        hashes: &info.hashes,
        content: Content::Slices {
            below: &below,
            slices: &info.slices,
        },
        disk_bytes: None,
        sector_bytes: None,
        needed_bytes: None,
        table: None,
    });
    drop(info);
    super::finish(options, draft, &torrent)
}
