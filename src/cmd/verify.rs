//! `swarmdd verify`: does a device hold what a torrent describes? It is read and hashed, nothing
//! else.

use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::units::DiskOffset;

use super::reading::Reading;
use super::source::{self, Kind, Source};
use super::{Failure, load_torrent, say};
use crate::net::torrent::TorrentPlace;
use crate::os::device::Device;
use crate::report::{Mode, State};
use crate::storage::places::Places;
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
    let mut source = Source::of(device)?;
    if !source::is_whole(&source.device, &metainfo) {
        source.unpack(&mut || true)?;
    }
    let device = source.device;
    let places = match source.kind {
        Kind::Partclone => source::image_places(&device, &metainfo, &mut || true)?,
        _ => Places::of(&metainfo),
    };
    let found = compare(&metainfo, &device, places, Mode::Auto)?;
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

/// What a device holds of an image.
pub struct Found {
    /// Pieces that are as the torrent says.
    good: u32,
    /// The lowest offset at which a bad piece begins.
    bad_offset: Option<DiskOffset>,
}

impl Found {
    /// An error if any piece is bad.
    pub fn insist(&self, metainfo: &Metainfo, device: &Device) -> Result<(), Failure> {
        let Some(offset) = self.bad_offset else {
            return Ok(());
        };
        let (pieces, path) = (metainfo.layout.piece_count(), device.path.display());
        let bad = pieces - self.good;
        let reason = format!(
            "{path}: {bad} of {pieces} pieces bad, the first at byte {}",
            offset.0
        );
        Err(Failure::Because(reason))
    }
}

/// Reads and hashes the whole image, which lies at these places.
pub fn compare(
    metainfo: &Metainfo,
    device: &Device,
    places: Places,
    progress: Mode,
) -> Result<Found, Failure> {
    let reading = Reading {
        device,
        places: places.clone(),
        strips: None,
        state: State::Verifying,
        torrent: metainfo.name.clone(),
        target: device.path.display().to_string(),
        progress,
    };
    let mut found = Found {
        good: 0,
        bad_offset: None,
    };
    reading.hash_pieces(&mut |piece, hash| {
        if hash == metainfo.hashes[piece.index()] {
            found.good += 1;
        } else {
            let offset = places.start(piece);
            found.bad_offset = Some(found.bad_offset.map_or(offset, |first| first.min(offset)));
        }
    })?;
    Ok(found)
}
