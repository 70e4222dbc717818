//! `swarmdd get --dry-run`: what would be written where, what would be gone, and how much would
//! have to come?
//!
//! To answer the last, the target is read and hashed as `get` would do it: first a sample of
//! pieces, and only if one of them is there, all.

use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::Path;

use swarm_proto::bitfield::Bitfield;
use swarm_proto::format::contents::Contents;
use swarm_proto::format::extents::ExtentMap;
use swarm_proto::format::layout::Layout;
use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::rng::Rng;
use swarm_proto::size::exact;
use swarm_proto::units::PieceIndex;

use super::get::{Job, Options};
use crate::os::device::{Device, Kind};
use crate::os::signal::Signals;
use crate::storage::reader::{self, ScanError};
use crate::target::inventory::Inventory;

/// How the pieces of an image come to the target; each piece is counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    zero: u32,
    there: u32,
    /// Equal to one that is fetched.
    repeated: u32,
    fetched: u32,
    fetched_bytes: u64,
}

/// Reads the target, unless `fresh` says not to. `on_progress` hears how many pieces have been
/// read, and of how many.
pub fn holdings(
    metainfo: &Metainfo,
    device: &Device,
    fresh: bool,
    signals: &mut Signals,
    on_progress: &mut dyn FnMut(u32, u32),
) -> Result<Holdings, ScanError> {
    let contents = Contents::new(&metainfo.layout, &metainfo.hashes);
    let mut good = Bitfield::new(metainfo.layout.piece_count());
    if !fresh && !device.created {
        // The plan is the same every time; which pieces are looked at does not matter.
        let sample = contents.sample(&metainfo.layout, &mut Rng::new(0));
        read(
            metainfo,
            device,
            &sample,
            &mut good,
            signals,
            &mut |_, _| {},
        )?;
        if good.ones().next().is_some() {
            let all: Vec<PieceIndex> = contents_to_read(metainfo, &contents);
            read(metainfo, device, &all, &mut good, signals, on_progress)?;
        }
    }
    Ok(count(&metainfo.layout, &contents, &good))
}

fn contents_to_read(metainfo: &Metainfo, contents: &Contents) -> Vec<PieceIndex> {
    metainfo
        .layout
        .pieces()
        .filter(|piece| !contents.is_zero(*piece))
        .collect()
}

/// Reads these pieces, in ascending order, as if they were a torrent of their own, and marks those
/// that match.
fn read(
    metainfo: &Metainfo,
    device: &Device,
    pieces: &[PieceIndex],
    good: &mut Bitfield,
    signals: &mut Signals,
    on_progress: &mut dyn FnMut(u32, u32),
) -> Result<(), ScanError> {
    let layout = &metainfo.layout;
    let ranges = |piece: &PieceIndex| {
        metainfo.extents.ranges(
            layout.piece_start(*piece),
            layout.piece_length(*piece).into(),
        )
    };
    let runs = pieces
        .iter()
        .flat_map(ranges)
        .map(|extent| (extent.disk, extent.length));
    let extents = ExtentMap::from_files(runs).unwrap_or_else(|error| panic!("{error}"));
    if extents.total_bytes() == 0 {
        return Ok(());
    }
    let part = Layout::new(extents.total_bytes(), layout.piece_bytes())
        .unwrap_or_else(|error| panic!("{error}"));
    let result = reader::hash_pieces(device, part, &extents, signals, |index, hash| {
        let piece = pieces[index.index()];
        if hash == metainfo.hashes[piece.index()] {
            good.set(piece);
        }
        on_progress(index.0 + 1, part.piece_count());
        ControlFlow::Continue(())
    });
    match result {
        // A file that is shorter than the image: what is not there is not good.
        Err(ScanError::Ends { .. }) => Ok(()),
        result => result,
    }
}

fn count(layout: &Layout, contents: &Contents, good: &Bitfield) -> Holdings {
    let mut holdings = Holdings::default();
    for piece in layout.pieces() {
        // Of equal pieces the first that is missing is fetched, even if others are there: nothing
        // is read to be copied.
        let mut earlier = contents.equals(piece).take_while(|equal| *equal < piece);
        match () {
            () if contents.is_zero(piece) => holdings.zero += 1,
            () if good.get(piece) => holdings.there += 1,
            () if earlier.any(|equal| !good.get(equal)) => holdings.repeated += 1,
            () => {
                holdings.fetched += 1;
                holdings.fetched_bytes += u64::from(layout.piece_length(piece));
            }
        }
    }
    holdings
}

/// The plan for one pair.
pub fn describe(
    options: &Options,
    job: &Job,
    metainfo: &Metainfo,
    device: &Device,
    holdings: &Holdings,
    share: u64,
) -> String {
    let Metainfo {
        name,
        info_hash,
        layout,
        extents,
        ..
    } = metainfo;
    let Holdings {
        zero,
        there,
        repeated,
        fetched,
        fetched_bytes,
    } = *holdings;
    // Without sysfs there is less to say, and the disk can still be written.
    let inventory = Inventory::read(Path::new("/")).ok();
    let mut text = format!(
        "{} -> {}\n  \
         torrent     {name} (info-hash {info_hash})\n  \
         image       {} in {} pieces of {} bytes\n  \
         ranges      {}, from byte {} to byte {} of the target\n",
        job.torrent,
        job.target,
        exact(layout.total_bytes()),
        layout.piece_count(),
        layout.piece_bytes(),
        extents.extents().len(),
        extents
            .extents()
            .iter()
            .map(|extent| extent.disk.0)
            .min()
            .unwrap_or_default(),
        extents.disk_end().0 - 1,
    );
    add_target(&mut text, device, inventory.as_ref());
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(
        text,
        "  fetches     {} in {fetched} pieces\n              \
         pieces not fetched: {there} there already, {zero} zeros, {repeated} repeated\n  \
         writes      through {}, aligned to {} bytes, {} MiB of buffers",
        exact(fetched_bytes),
        if device.direct {
            "O_DIRECT"
        } else {
            "the page cache"
        },
        device.alignment,
        share >> 20,
    );
    if metainfo.sector_bytes.is_some() {
        let grown = if options.settings.grow_last {
            ", and its last partition grows to there"
        } else {
            ""
        };
        let _ = writeln!(
            text,
            "  afterwards  a GPT gets its backup at the end of the target{grown}"
        );
    }
    for tracker in metainfo.trackers.iter().flatten() {
        let _ = writeln!(text, "  tracker     {tracker}");
    }
    text
}

/// What the target is and what is on it now.
fn add_target(text: &mut String, device: &Device, inventory: Option<&Inventory>) {
    let path = device.path.display();
    let Kind::Block { number } = device.kind else {
        let found = if device.created {
            "nothing: the file is new"
        } else {
            "what the file holds"
        };
        let _ = writeln!(
            text,
            "  target      {path}, a regular file\n  overwrites  {found}"
        );
        return;
    };
    let _ = writeln!(text, "  target      {path}, {}", exact(device.size_bytes));
    let Some((inventory, disk)) = inventory.and_then(|all| Some((all, all.disk_of(number)?)))
    else {
        return;
    };
    let _ = writeln!(text, "  disk        {}", disk.traits().join(", "));
    let mut key = "overwrites";
    let mut add = |path: &Path, size_bytes| {
        let found = match inventory.signatures(path) {
            Ok(signatures) => signatures.to_string(),
            Err(error) => format!("unreadable: {error}"),
        };
        let _ = writeln!(
            text,
            "  {key:10}  {}, {}: {found}",
            path.display(),
            exact(size_bytes)
        );
        key = "";
    };
    add(&device.path, device.size_bytes);
    let whole = number == disk.number;
    for partition in disk.partitions.iter().filter(|_| whole) {
        add(&partition.path(), partition.size_bytes);
    }
}
