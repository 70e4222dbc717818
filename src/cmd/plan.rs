//! `swarmdd get --dry-run`: what would be written where, what would be gone, and how much would have to come?
//!
//! To answer the last, the target is read and hashed as `get` would do it: first a sample of pieces, and only if one of
//! them is there, all.

use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::Path;

use swarm_proto::bitfield::Bitfield;
use swarm_proto::contents::Contents;
use swarm_proto::extents::ExtentMap;
use swarm_proto::metainfo::{Layout, Metainfo};
use swarm_proto::rng::Rng;
use swarm_proto::units::PieceIndex;

use crate::cli::GetJob;
use crate::disks::{Disk, Inventory};
use crate::os::blockdev::{Device, Kind, exact};
use crate::os::signal::Signals;
use crate::scan::{self, ScanError};

/// How the pieces of an image come to the target; each piece is counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    zero: u32,
    there: u32,
    /// Equal to one that is there or is fetched.
    repeated: u32,
    fetched: u32,
    fetched_bytes: u64,
}

/// Reads the target, unless `fresh` says not to.
pub fn holdings(
    metainfo: &Metainfo,
    device: &Device,
    fresh: bool,
    signals: &mut Signals,
    on_progress: &mut dyn FnMut(u32),
) -> Result<Holdings, ScanError> {
    let contents = Contents::new(&metainfo.layout, &metainfo.hashes);
    let mut good = Bitfield::new(metainfo.layout.piece_count());
    if !fresh && !device.created {
        // The plan is the same every time; which pieces are looked at does not matter.
        let sample = contents.sample(&metainfo.layout, &mut Rng::new(0));
        read(metainfo, device, &sample, &mut good, signals, &mut |_| {})?;
        if good.ones().next().is_some() {
            let all: Vec<PieceIndex> = contents_to_read(metainfo, &contents);
            read(metainfo, device, &all, &mut good, signals, on_progress)?;
        }
    }
    Ok(count(&metainfo.layout, &contents, &good))
}

fn contents_to_read(metainfo: &Metainfo, contents: &Contents) -> Vec<PieceIndex> {
    metainfo.layout.pieces().filter(|piece| !contents.is_zero(*piece)).collect()
}

/// Reads these pieces, in ascending order, as if they were a torrent of their own, and marks those that match.
fn read(
    metainfo: &Metainfo,
    device: &Device,
    pieces: &[PieceIndex],
    good: &mut Bitfield,
    signals: &mut Signals,
    on_progress: &mut dyn FnMut(u32),
) -> Result<(), ScanError> {
    let layout = &metainfo.layout;
    let ranges = |piece: &PieceIndex| {
        metainfo.extents.ranges(layout.piece_start(*piece), layout.piece_length(*piece).into())
    };
    let runs = pieces.iter().flat_map(ranges).map(|extent| (extent.disk, extent.length));
    let extents = ExtentMap::from_files(runs).expect("a part of an image lies on the disk as the whole does");
    if extents.total_bytes() == 0 {
        return Ok(());
    }
    let part = Layout::new(extents.total_bytes(), layout.piece_bytes()).expect("no larger than the whole");
    let result = scan::hash_pieces(device, part, &extents, signals, |index, hash| {
        let piece = pieces[index.index()];
        if hash == metainfo.hashes[piece.index()] {
            good.set(piece);
        }
        on_progress(index.0 + 1);
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
        let comes_by_itself = |equal: PieceIndex| good.get(equal) || equal < piece;
        match () {
            () if contents.is_zero(piece) => holdings.zero += 1,
            () if good.get(piece) => holdings.there += 1,
            () if contents.equals(piece).any(comes_by_itself) => holdings.repeated += 1,
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
    job: &GetJob,
    metainfo: &Metainfo,
    device: &Device,
    holdings: &Holdings,
    share: u64,
) -> String {
    let Metainfo { layout, extents, .. } = metainfo;
    // Without sysfs there is less to say, and the disk can still be written.
    let inventory = Inventory::read(Path::new("/")).ok();
    let mut text = format!("{} -> {}\n", job.torrent, job.target.to_string_lossy());
    let mut line = |key: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {key:<11} {value}");
    };
    line("torrent", &format!("{} (info-hash {})", metainfo.name, metainfo.info_hash));
    let (pieces, piece_bytes) = (layout.piece_count(), layout.piece_bytes());
    line("image", &format!("{} in {pieces} pieces of {piece_bytes} bytes", exact(layout.total_bytes())));
    let first = extents.extents().iter().map(|extent| extent.disk.0).min().unwrap_or_default();
    let last = extents.disk_end().0 - 1;
    line("ranges", &format!("{}, from byte {first} to byte {last} of the target", extents.extents().len()));
    target_lines(device, inventory.as_ref(), &mut line);
    let Holdings { zero, there, repeated, fetched, fetched_bytes } = holdings;
    line("fetches", &format!("{} in {fetched} pieces", exact(*fetched_bytes)));
    line("", &format!("pieces not fetched: {there} there already, {zero} zeros, {repeated} repeated"));
    let how = if device.direct { "O_DIRECT" } else { "the page cache" };
    let (alignment, buffers) = (device.alignment, share >> 20);
    line("writes", &format!("through {how}, aligned to {alignment} bytes, {buffers} MiB of buffers"));
    metainfo.trackers.iter().flatten().for_each(|tracker| line("tracker", tracker));
    text
}

/// What the target is and what is on it now.
fn target_lines(device: &Device, inventory: Option<&Inventory>, line: &mut dyn FnMut(&str, &str)) {
    let (path, size) = (device.path.display(), exact(device.size_bytes));
    let Kind::Block { number } = device.kind else {
        line("target", &format!("{path}, a regular file"));
        let found = if device.created { "nothing: the file is new" } else { "what the file holds" };
        return line("overwrites", found);
    };
    let disk = inventory.and_then(|inventory| inventory.disk_of(number));
    line("target", &format!("{path}, {size}"));
    if let Some(disk) = disk {
        line("disk", &disk.traits().join(", "));
    }
    let Some(inventory) = inventory else { return };
    let mut key = "overwrites";
    for (path, size) in parts(disk, number, device) {
        let found = match inventory.signatures(&path) {
            Ok(signatures) => signatures.to_string(),
            Err(error) => format!("unreadable: {error}"),
        };
        line(key, &format!("{}, {}: {found}", path.display(), exact(size)));
        key = "";
    }
}

/// The target, and if that is a whole disk, its partitions.
fn parts(disk: Option<&Disk>, number: (u32, u32), device: &Device) -> Vec<(std::path::PathBuf, u64)> {
    let mut parts = vec![(device.path.clone(), device.size_bytes)];
    if let Some(disk) = disk.filter(|disk| disk.number == number) {
        parts.extend(disk.partitions.iter().map(|partition| (partition.path(), partition.size_bytes)));
    }
    parts
}
