//! `swarmdd verify`: does a disk hold what a torrent describes? Reads and hashes, nothing else.

use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::units::{DiskOffset, PieceIndex};

use super::{Failure, Reading, load_torrent, say};
use crate::net::torrent::TorrentPlace;
use crate::os::device::Device;
use crate::report::{Mode, State};
use crate::target::Target;

/// What `verify` is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub torrent: TorrentPlace,
    pub target: Target,
}

pub fn run(options: &Options) -> Result<(), Failure> {
    let metainfo = load_torrent(&options.torrent)?;
    let (device, _) = options.target.open_readonly()?;
    let found = compare(&metainfo, &device, Mode::Auto)?;
    say(&format!(
        "good: {} of {} pieces\n",
        found.good,
        metainfo.layout.piece_count()
    ));
    if let Some(offset) = found.bad_offset {
        say(&format!("bad offset: {}\n", offset.0));
    }
    found.insist(&metainfo, &device)
}

pub struct Found {
    good: u32,
    /// The lowest disk offset at which a bad piece begins.
    bad_offset: Option<DiskOffset>,
}

impl Found {
    /// An error if anything is bad.
    pub fn insist(&self, metainfo: &Metainfo, device: &Device) -> Result<(), Failure> {
        let Some(offset) = self.bad_offset else {
            return Ok(());
        };
        let (pieces, path) = (metainfo.layout.piece_count(), device.path.display());
        let bad = pieces - self.good;
        let reason = format!(
            "{path}: {bad} of {pieces} pieces bad, the first at disk offset {}",
            offset.0
        );
        Err(Failure::Because(reason))
    }
}

/// Reads and hashes everything.
pub fn compare(metainfo: &Metainfo, device: &Device, progress: Mode) -> Result<Found, Failure> {
    let reading = Reading {
        device,
        layout: metainfo.layout,
        extents: &metainfo.extents,
        state: State::Verifying,
        torrent: metainfo.name.clone(),
        target: device.path.display().to_string(),
        progress,
    };
    let mut found = Found {
        good: 0,
        bad_offset: None,
    };
    reading.hash_pieces(|piece, hash| {
        if hash == metainfo.hashes[piece.index()] {
            found.good += 1;
        } else {
            let offset = disk_offset(metainfo, piece);
            found.bad_offset = Some(found.bad_offset.map_or(offset, |first| first.min(offset)));
        }
    })?;
    Ok(found)
}

/// Where on the disk a piece begins; it may go on elsewhere.
fn disk_offset(metainfo: &Metainfo, piece: PieceIndex) -> DiskOffset {
    let (start, length) = (
        metainfo.layout.piece_start(piece),
        metainfo.layout.piece_length(piece),
    );
    metainfo
        .extents
        .ranges(start, length.into())
        .next()
        .expect("a piece has at least one byte")
        .disk
}
