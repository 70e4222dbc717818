//! `swarmdd get --dry-run`: what would be written where, what would be lost, and how much would be
//! fetched?
//!
//! To answer the last question, the target is read and hashed as `get` would do it: first a sample
//! of pieces, and only if one of them is there, all pieces.

use std::fmt::Write;
use std::ops::Range;
use std::path::Path;

use swarm_proto::bitfield::Bitfield;
use swarm_proto::format::contents::Contents;
use swarm_proto::format::extents::ExtentMap;
use swarm_proto::format::layout::Layout;
use swarm_proto::format::leftovers::{self, Leftover};
use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::format::partitions::TableKind;
use swarm_proto::format::signatures::Signatures;
use swarm_proto::rng::Rng;
use swarm_proto::size::exact;
use swarm_proto::units::PieceIndex;

use crate::agent::Settings;
use crate::os::device::{Device, Kind};
use crate::os::signal::Signals;
use crate::storage::places::Places;
use crate::storage::reader::{self, ReadError};
use crate::storage::sectors;
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

/// Reads the target, unless `fresh` says not to. `on_progress` is told how many pieces have been
/// read, and of how many.
pub fn holdings(
    metainfo: &Metainfo,
    device: &Device,
    fresh: bool,
    signals: &mut Signals,
    on_progress: &mut dyn FnMut(u32, u32),
) -> Result<Holdings, ReadError> {
    let layout = &metainfo.layout;
    let contents = Contents::new(layout, &metainfo.hashes);
    // A file that is shorter than the image does not hold the pieces behind its end.
    let end_bytes = device.ends_before(metainfo.extents.disk_end().0);
    let is_there =
        |piece: &PieceIndex| end_bytes.is_none_or(|end| ends_at(metainfo, *piece) <= end);
    let mut good = Bitfield::new(layout.piece_count());
    if !fresh && !device.created {
        let mut mark = |pieces: &[PieceIndex], on_progress: &mut dyn FnMut(u32, u32)| {
            mark_good(metainfo, device, pieces, &mut good, signals, on_progress)
        };
        // The same random numbers each time: two plans for one target shall not differ.
        let mut sample = contents.sample(layout, &mut Rng::new(0));
        sample.retain(is_there);
        if mark(&sample, &mut |_, _| {})? {
            let is_to_read = |piece: &PieceIndex| !contents.is_zero(*piece) && is_there(piece);
            let all: Vec<PieceIndex> = layout.pieces().filter(is_to_read).collect();
            mark(&all, on_progress)?;
        }
    }
    Ok(count(layout, &contents, &good))
}

/// The highest byte of the target that belongs to a piece, and one more.
fn ends_at(metainfo: &Metainfo, piece: PieceIndex) -> u64 {
    let (start, length) = (
        metainfo.layout.piece_start(piece),
        metainfo.layout.piece_length(piece),
    );
    let extents = metainfo.extents.ranges(start, length.into());
    let ends = extents.map(|extent| extent.disk.0 + extent.length);
    ends.max().expect("a piece has at least one byte")
}

/// Reads these pieces and marks those that are as the torrent says; true if there is any.
fn mark_good(
    metainfo: &Metainfo,
    device: &Device,
    pieces: &[PieceIndex],
    good: &mut Bitfield,
    signals: &mut Signals,
    on_progress: &mut dyn FnMut(u32, u32),
) -> Result<bool, ReadError> {
    let (mut read_count, mut any_good) = (0, false);
    let mut take = |piece: PieceIndex, hash| {
        match hash {
            Ok(hash) if hash == metainfo.hashes[piece.index()] => {
                good.set(piece);
                any_good = true;
            }
            // The file may become shorter meanwhile.
            Ok(_) | Err(ReadError::Ends { .. }) => {}
            Err(error) => return Err(error),
        }
        read_count += 1;
        on_progress(read_count, pieces.len() as u32);
        Ok(())
    };
    let (places, mut to_read) = (Places::of(metainfo), pieces.iter().copied());
    reader::hash_pieces(device, places, None, &mut to_read, signals, &mut take)?;
    Ok(any_good)
}

fn count(layout: &Layout, contents: &Contents, good: &Bitfield) -> Holdings {
    let mut holdings = Holdings::default();
    for piece in layout.pieces() {
        // Of equal pieces the first that is missing is fetched, even if others are there: no piece
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
    settings: &Settings,
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
    // Without sysfs there is less to say, and the disk can still be written.
    let inventory = Inventory::read(Path::new("/")).ok();
    let mut text = format!(
        "  torrent     {name} (info-hash {info_hash})\n  \
         image       {} in {} pieces of {} bytes\n  \
         ranges      {}, from byte {} to byte {} of the target\n",
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
    let file_bytes = metainfo.disk_bytes.unwrap_or(extents.disk_end().0);
    let job = PlannedJob {
        metainfo,
        device,
        size_bytes: match device.kind {
            Kind::Block { .. } => device.size_bytes,
            Kind::Regular => file_bytes,
        },
        keep_signatures: settings.keep_signatures,
    };
    add_target(&mut text, &job, inventory.as_ref());
    add_transfers(&mut text, device, holdings, share);
    if let Some(afterwards) = afterwards(metainfo, settings.grow_last) {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "  afterwards  {afterwards}");
    }
    for tracker in metainfo.trackers.iter().flatten() {
        let _ = writeln!(text, "  tracker     {tracker}");
    }
    text
}

/// What happens to the partition table in the end.
fn afterwards(metainfo: &Metainfo, grow_last: bool) -> Option<String> {
    let gpt = match metainfo.table {
        Some(TableKind::Gpt) => "the GPT",
        None if metainfo.sector_bytes.is_some() => "a GPT",
        Some(TableKind::Mbr) if grow_last => {
            return Some("the last partition of the MBR grows to the end of the target".into());
        }
        _ => return None,
    };
    let grown = match grow_last {
        true => ", and its last partition grows to there",
        false => "",
    };
    Some(format!(
        "{gpt} gets its backup at the end of the target{grown}"
    ))
}

/// What is fetched, and how it is written.
fn add_transfers(text: &mut String, device: &Device, holdings: &Holdings, share: u64) {
    let Holdings {
        zero,
        there,
        repeated,
        fetched,
        fetched_bytes,
    } = *holdings;
    let through = if device.direct {
        "O_DIRECT"
    } else {
        "the page cache"
    };
    let _ = writeln!(
        text,
        "  fetches     {} in {fetched} pieces\n              \
         pieces not fetched: {there} there already, {zero} zeros, {repeated} repeated\n  \
         writes      through {through}, aligned to {} bytes, {} MiB of buffers",
        exact(fetched_bytes),
        device.alignment,
        share >> 20,
    );
}

/// What the target is, what is on it now, and what becomes of that.
fn add_target(text: &mut String, job: &PlannedJob, inventory: Option<&Inventory>) {
    let device = job.device;
    let path = device.path.display();
    let number = match device.kind {
        Kind::Block { number } => Some(number),
        Kind::Regular => None,
    };
    let size = exact(device.size_bytes);
    let _ = match number {
        Some(_) => writeln!(text, "  target      {path}, {size}"),
        None => writeln!(text, "  target      {path}, a regular file"),
    };
    if device.created {
        let _ = writeln!(text, "  overwrites  nothing: the file is new");
        return;
    }
    let disk = inventory
        .zip(number)
        .and_then(|(all, number)| all.disk_of(number));
    if let Some(disk) = disk {
        let _ = writeln!(text, "  disk        {}", disk.traits().join(", "));
    }
    let mut fates = Fates::default();
    fates.add_device(job);
    let whole = disk.filter(|disk| Some(disk.number) == number);
    for partition in whole.iter().flat_map(|disk| &disk.partitions) {
        let start = partition.start_bytes;
        fates.add_partition(job, &partition.path(), start..start + partition.size_bytes);
    }
    fates.write(text);
}

/// One pair, as far as it decides what becomes of the target's contents.
struct PlannedJob<'a> {
    metainfo: &'a Metainfo,
    device: &'a Device,
    /// Of the target in the end: a file is cut to the length of the image.
    size_bytes: u64,
    keep_signatures: bool,
}

/// What is on the target, by what becomes of it; a line each.
#[derive(Default)]
struct Fates {
    overwrites: Vec<String>,
    wipes: Vec<String>,
    remains: Vec<String>,
    keeps: Vec<String>,
}

impl Fates {
    /// The target itself. Signatures outside of the image are removed in the end, if the image says
    /// what the target is (`storage::leftovers`).
    fn add_device(&mut self, job: &PlannedJob) {
        let (metainfo, device) = (job.metainfo, job.device);
        let image = &metainfo.extents;
        let title = format!("{}, {}", device.path.display(), exact(job.size_bytes));
        let found = match sectors::signatures(device, 0..job.size_bytes) {
            Ok(found) => found,
            Err(error) => {
                return self
                    .overwrites
                    .push(format!("{title}: unreadable: {error}"));
            }
        };
        let left = leftovers::find(image, 0, &found, &[]);
        let is_of_image = leftovers::is_of_image(image, 0, &found);
        // The image's own backup goes to its place, and that is said below.
        let is_replaced = |one: &Leftover| {
            one.kind == "backup gpt" && metainfo.table == Some(TableKind::Gpt) && is_of_image
        };
        // Where the last partition of the image ends at the latest.
        let partitions_end = metainfo.needed_bytes.or(metainfo.disk_bytes);
        let partitions_end = partitions_end.unwrap_or(image.disk_end().0);
        for one in left.iter().filter(|one| !is_replaced(one)) {
            let mut line = one.describe();
            let fate = match () {
                () if !is_of_image => &mut self.keeps,
                () if job.keep_signatures => &mut self.remains,
                () => &mut self.wipes,
            };
            if is_of_image && one.magics[0].start < partitions_end {
                line.push_str(", unless a partition that the image leaves out has it");
            }
            fate.push(line);
        }
        self.overwrites
            .push(format!("{title}: {}", brought(image, 0, &found)));
    }

    /// A partition in the table that is on the target now.
    fn add_partition(&mut self, job: &PlannedJob, path: &Path, part: Range<u64>) {
        let image = &job.metainfo.extents;
        let title = format!("{}, {}", path.display(), exact(part.end - part.start));
        let found = match sectors::signatures(job.device, part.clone()) {
            Ok(found) => found,
            Err(error) => {
                return self
                    .overwrites
                    .push(format!("{title}: unreadable: {error}"));
            }
        };
        if leftovers::touches(image, 0, &part) {
            self.overwrites
                .push(format!("{title}: {}", brought(image, part.start, &found)));
        } else {
            self.keeps
                .push(format!("{title}: {found}, but not its entry in the table"));
        }
    }

    fn write(&self, text: &mut String) {
        let rows = [
            ("overwrites", &self.overwrites),
            ("wipes", &self.wipes),
            ("remains", &self.remains),
            ("keeps", &self.keeps),
        ];
        for (name, lines) in rows {
            for (index, line) in lines.iter().enumerate() {
                let key = if index == 0 { name } else { "" };
                let _ = writeln!(text, "  {key:10}  {line}");
            }
        }
    }
}

/// The names of what the image overwrites on a device that begins at `start`.
fn brought(image: &ExtentMap, start: u64, found: &Signatures) -> Signatures {
    let mut brought = found.clone();
    let is_touched = |magic: &Range<u64>| leftovers::touches(image, start, magic);
    brought
        .found
        .retain(|one| one.magics.iter().any(is_touched));
    brought
}
