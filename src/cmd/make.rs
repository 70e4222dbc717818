//! `swarmdd make`: what does the torrent of a disk or an image say?
//!
//! `used` decides which bytes of the source it describes. All of those are read and hashed, and the
//! torrent file appears when it is complete. What partclone has cut already is described as it is:
//! `slices`, and `info` where the hashes are known, too.

use std::path::PathBuf;
use std::sync::Arc;

use swarm_proto::format::extents::ExtentMap;
use swarm_proto::format::layout::{self, Layout};
use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::format::metainfo_write::{self, Content, Description};
use swarm_proto::format::partclone::Image;
use swarm_proto::format::partitions::{self, PartitionTable, TableKind};
use swarm_proto::limits::METAINFO_BYTES_MAX;
use swarm_proto::size::binary;
use swarm_proto::units::{DiskOffset, PieceHash};

use self::draft::Draft;
use super::reading::Reading;
use super::source::{self, Kind, Source, cannot_read};
use super::{Failure, say};
use crate::os::device::Device;
use crate::os::tty;
use crate::report::{Mode, State};
use crate::storage::places::Places;
use crate::target;

mod draft;
mod image;
pub mod info;
mod kind;
mod map;
mod slices;
mod table;
mod used;

const CREATED_BY: &str = concat!("swarmdd ", env!("CARGO_PKG_VERSION"));

/// What `make` is asked to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub source: PathBuf,
    pub output: PathBuf,
    /// One tier each (BEP 12), in the order in which they are tried.
    pub trackers: Vec<String>,
    /// A power of two within the limits; `None`: chosen from the size of the image.
    pub piece_bytes: Option<u32>,
    pub name: Option<String>,
    pub private: bool,
    pub web_seeds: Vec<String>,
    /// One file from offset 0 instead of the used ranges.
    pub single: bool,
    pub skip_holes: bool,
    /// A map of the used blocks of the source; nothing else of its partitions is described.
    pub used_map: Option<PathBuf>,
    /// A directory that gets the described bytes as slices.
    pub slices: Option<PathBuf>,
    /// All bytes are described as they are, whatever format they seem to have: no partition table
    /// counts, here and on the target.
    pub raw: bool,
    /// The source is described although it may change meanwhile.
    pub live: bool,
}

impl Options {
    /// Something decides what is described, and as which files.
    fn decides(&self) -> bool {
        self.slices.is_some() || self.used_map.is_some() || self.single || self.skip_holes
    }
}

pub fn run(options: &Options) -> Result<(), Failure> {
    if info::is_one(&options.source) {
        draft::refuse_output(&options.output, &options.source)?;
        return info::describe(options);
    }
    let mut source = source::open(&options.source, None, &mut || true)?;
    draft::refuse_output(&options.output, &options.source)?;
    if !options.raw {
        source.unpack(&mut || true)?;
        source.require_sums()?;
    }
    let Source { device, kind, note } = source;
    if let Some(note) = note {
        tty::complain(&note);
    }
    match kind {
        Kind::Partclone if !options.raw => make(options, &device, image::contents),
        Kind::Raw | Kind::Partclone | Kind::Packed => make(options, &device, raw_contents),
        Kind::Slices(_) if options.decides() => {
            let source = options.source.display();
            Err(Failure::Because(format!(
                "source {source} is slices already, they are described as they are"
            )))
        }
        Kind::Slices(slices) => slices::describe(options, &device, &slices),
    }
}

fn make(
    options: &Options,
    device: &Device,
    contents: fn(&Options, &Device) -> Result<Contents, Failure>,
) -> Result<(), Failure> {
    if device.size_bytes == 0 {
        return Err(Failure::Because(format!(
            "source {} is empty",
            options.source.display()
        )));
    }
    if !options.live {
        refuse_in_use(device)?;
    }
    let contents = contents(options, device)?;
    // Created now: hours of reading must not end in a directory that cannot be written.
    let draft = Draft::create(&options.output)?;
    if !contents.known {
        kind::say_unknown(&options.source);
    }
    let path = options.slices.as_ref();
    let written = path.map(|path| slices::Written::new(path, device, &contents.files));
    let written = written.transpose()?;
    let torrent = describe(options, device, &contents, written.as_ref())?;
    let metainfo = Metainfo::parse(&torrent)?;
    if let Some(written) = written {
        written.commit()?;
    }
    draft.commit(&torrent)?;
    let (table, total_bytes) = (contents.table.as_ref(), metainfo.layout.total_bytes());
    say(&match &contents.image {
        Some(image) => summary(&metainfo, options, None, total_bytes) + &image::summary(image),
        None => summary(&metainfo, options, table, device.size_bytes),
    });
    Ok(())
}

/// Writes a torrent of slices, and says what it describes.
fn finish(options: &Options, draft: Draft, torrent: &[u8]) -> Result<(), Failure> {
    let metainfo = Metainfo::parse(torrent)?;
    draft.commit(torrent)?;
    say(&summary(&metainfo, options, None, 0));
    Ok(())
}

/// What a torrent describes.
struct Contents {
    /// Offset on the target and length of each range.
    files: Vec<(DiskOffset, u64)>,
    table: Option<PartitionTable>,
    /// Where the ranges are read, unless they are where they belong.
    image: Option<Image>,
    /// A partition table, a file system or a format was recognised, or need not be.
    known: bool,
}

fn raw_contents(options: &Options, device: &Device) -> Result<Contents, Failure> {
    let (table, in_doubt) = match options.raw {
        true => (None, false),
        false => {
            source::refuse_shelved(device)?;
            table::of_source(device)?
        }
    };
    let known = options.raw || kind::check(device, table.is_some())?;
    let trusted = trusted(options, table.as_ref());
    let map = options.used_map.as_ref();
    let map = map.map(|path| map::read(path, device, table.is_none()));
    let map = map.transpose()?;
    // What a partition is and what lies between them is open if the table is in doubt.
    let map = map.filter(|_| !in_doubt && (table.is_none() || trusted.is_some()));
    let files = used::ranges(device, trusted, options.skip_holes, map)?;
    Ok(Contents {
        files,
        table,
        image: None,
        known,
    })
}

fn refuse_in_use(device: &Device) -> Result<(), Failure> {
    let writers = target::source::writers(device);
    if writers.is_empty() {
        return Ok(());
    }
    Err(Failure::Because(format!(
        "source {} is in use and may change while it is read: {}; --live takes it as it is",
        device.path.display(),
        writers.join(", ")
    )))
}

/// The table, if it decides what is left out.
fn trusted<'a>(options: &Options, table: Option<&'a PartitionTable>) -> Option<&'a PartitionTable> {
    table.filter(|table| !options.single && table.doubt().is_none())
}

/// Pieces as they were asked for, or as they are best for this length.
fn layout_of(options: &Options, total_bytes: u64) -> Result<Layout, Failure> {
    let piece_bytes = options
        .piece_bytes
        .unwrap_or_else(|| layout::default_piece_bytes(total_bytes));
    Ok(Layout::new(total_bytes, piece_bytes)?)
}

/// Reads and hashes all pieces, and checks the checksums of an image.
fn hash_all(
    options: &Options,
    device: &Device,
    places: Places,
    image: Option<&Image>,
) -> Result<Vec<PieceHash>, Failure> {
    let mut hashes = vec![PieceHash([0; 20]); places.layout().piece_count() as usize];
    let reading = Reading {
        device,
        places,
        strips: image.and_then(Image::strips),
        state: State::Scanning,
        torrent: options.source.display().to_string(),
        target: options.output.display().to_string(),
        progress: Mode::Auto,
    };
    reading.hash_pieces(&mut |piece, hash| hashes[piece.index()] = hash)?;
    Ok(hashes)
}

/// The bytes of the torrent file. Reads and hashes all of these files, as slices if they have been
/// `written`.
fn describe(
    options: &Options,
    device: &Device,
    contents: &Contents,
    written: Option<&slices::Written>,
) -> Result<Vec<u8>, Failure> {
    let (files, table) = (&contents.files[..], contents.table.as_ref());
    let image = contents.image.as_ref();
    let extents = Arc::new(ExtentMap::from_files(files.iter().copied())?);
    let used_end = extents.disk_end().0;
    let total_bytes = extents.total_bytes();
    let layout = layout_of(options, total_bytes)?;
    let mut places = Places::new(layout, extents.clone());
    let (mut from, mut content) = (device, Content::Fsbt { files });
    if let Some(image) = image {
        places = places.in_image(image.data);
    } else if let Some((directory, slices)) = written.map(slices::Written::source) {
        places = places.in_slices(source::slice_table(directory, slices, &extents)?);
        (from, content) = (directory, Content::Slices { below: &[], slices });
    } else if options.single {
        content = Content::Single {
            length: total_bytes,
        };
    }
    // Behind its last partition an image may be cut: there `get` needs room for the backup GPT. An
    // image without a table may be a disk or not.
    let table_bytes = table.map_or(0, PartitionTable::needed_bytes);
    let disk_bytes = match image {
        Some(image) => Some(image.header.device_bytes),
        None => {
            (device.is_block() || table.is_some()).then_some(device.size_bytes.max(table_bytes))
        }
    };
    refuse_too_many(files, &layout)?;
    let hashes = hash_all(options, from, places, image)?;
    Ok(metainfo_write::write(&Description {
        name: &name(options),
        trackers: &options.trackers,
        webseeds: &options.web_seeds,
        created_by: CREATED_BY,
        private: options.private,
        piece_bytes: layout.piece_bytes(),
        hashes: &hashes,
        content,
        disk_bytes,
        sector_bytes: match table {
            Some(table) => Some(table.sector_bytes),
            None => (device.is_block() && image.is_none()).then_some(device.sector_bytes),
        },
        needed_bytes: Some(match image {
            // The file system believes to have all of its blocks.
            Some(image) => image.header.total_bytes(),
            None => needed_bytes(used_end, table, disk_bytes),
        }),
        table: Some(table_kind(options, table)),
    }))
}

/// Refuses ranges that would fill more than a torrent file, before all of them are hashed. That is
/// before FILE_COUNT_MAX of them.
fn refuse_too_many(files: &[(DiskOffset, u64)], layout: &Layout) -> Result<(), Failure> {
    let bytes = torrent_bytes_min(files, layout);
    if bytes <= METAINFO_BYTES_MAX {
        return Ok(());
    }
    Err(Failure::Because(format!(
        "the used ranges make a torrent of at least {bytes} bytes, at most {METAINFO_BYTES_MAX} are read"
    )))
}

/// The hashes and the ranges, each with the digits of its length.
fn torrent_bytes_min(files: &[(DiskOffset, u64)], layout: &Layout) -> usize {
    const RANGE_BYTES: usize = b"d6:lengthie4:pathl32:ee".len() + 32;
    let digits = |length: u64| 1 + length.checked_ilog10().unwrap_or(0) as usize;
    let ranges = files
        .iter()
        .map(|(_, length)| RANGE_BYTES + digits(*length));
    ranges.sum::<usize>() + layout.piece_count() as usize * size_of::<PieceHash>()
}

/// The smallest target: one that holds all partitions, what is described up to `used_end`, and the
/// backup GPT behind both, if that is not among what is described.
fn needed_bytes(used_end: u64, table: Option<&PartitionTable>, disk_bytes: Option<u64>) -> u64 {
    let (Some(table), Some(disk_bytes)) = (table, disk_bytes) else {
        return used_end;
    };
    let behind_used = (used_end + table.backup_bytes()).min(disk_bytes);
    table.needed_bytes().max(behind_used)
}

fn table_kind(options: &Options, table: Option<&PartitionTable>) -> TableKind {
    match table.map(|table| &table.kind) {
        _ if options.raw => TableKind::Raw,
        Some(partitions::Kind::Gpt { .. }) => TableKind::Gpt,
        Some(partitions::Kind::Mbr) => TableKind::Mbr,
        None => TableKind::Nothing,
    }
}

fn name(options: &Options) -> String {
    let file_name = || {
        // Other clients look for slices in a directory of this name.
        let path = options.slices.as_ref().unwrap_or(&options.source);
        let mut name = path.file_name()?.to_string_lossy().into_owned();
        // Other clients get what is packed.
        if name.len() > 4 && name.ends_with(".lz4") && !options.raw {
            name.truncate(name.len() - 4);
        }
        Some(name)
    };
    options
        .name
        .clone()
        .or_else(file_name)
        .unwrap_or_else(|| "image".into())
}

/// What was made, a `key: value` a line.
fn summary(
    metainfo: &Metainfo,
    options: &Options,
    table: Option<&PartitionTable>,
    source_bytes: u64,
) -> String {
    let Metainfo {
        info_hash,
        layout,
        extents,
        ..
    } = metainfo;
    let (total, count) = (layout.total_bytes(), layout.piece_count());
    let mut text = format!(
        "info-hash: {info_hash}\nsize: {total} bytes ({})\npieces: {count} of {} bytes\n",
        binary(total),
        layout.piece_bytes(),
    );
    if let Some(table) = table {
        let kind = match table.kind {
            partitions::Kind::Gpt { .. } if table.is_hybrid() => "GPT with a hybrid MBR",
            partitions::Kind::Gpt { .. } => "GPT",
            partitions::Kind::Mbr => "MBR",
        };
        let (count, sector_bytes) = (table.partition_count(), table.sector_bytes);
        text += &format!(
            "partition table: {kind}, partitions: {count}, sectors of {sector_bytes} bytes\n"
        );
    }
    if !options.single {
        text += &format!("used ranges: {}\n", extents.extents().len());
    }
    let doubt = table.and_then(PartitionTable::doubt);
    if let Some(doubt) = doubt.filter(|_| !options.single) {
        text += &format!("left out: nothing, since {doubt}, and so any zeros may be data\n");
    }
    let left_out_bytes = source_bytes.saturating_sub(total);
    text + &left_out(options, trusted(options, table), left_out_bytes)
}

/// The sentence about the `rest_bytes` that the torrent does not describe, and why. Empty if there
/// are none. `table` decided about them.
fn left_out(options: &Options, table: Option<&PartitionTable>, rest_bytes: u64) -> String {
    let backup = table.and_then(PartitionTable::backup);
    let backup_bytes = backup
        .as_ref()
        .map_or(0, |backup| backup.end - backup.start);
    let left_out = rest_bytes.saturating_sub(backup_bytes);
    let mut text = String::new();
    if left_out > 0 {
        let what = match table {
            Some(_) if options.skip_holes => "holes, and of zeros outside partitions",
            Some(_) if options.used_map.is_some() => {
                "unused blocks, and of zeros outside partitions"
            }
            Some(_) => "zeros outside partitions",
            None if options.used_map.is_some() => "unused blocks",
            None => "holes",
        };
        let size = binary(left_out);
        text += &format!(
            "left out: {left_out} bytes of {what} ({size}), a target keeps what lies there\n"
        );
    }
    let is_gpt = table.is_some_and(|table| matches!(table.kind, partitions::Kind::Gpt { .. }));
    text += match backup {
        Some(_) => "left out: the backup GPT, which 'swarmdd get' writes to the end of its disk\n",
        None if is_gpt => {
            "no good backup GPT is at the end: 'swarmdd get' writes one to the end of its disk\n"
        }
        None => "",
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside ranges and hashes a torrent has a few words.
    #[test]
    fn the_size_of_a_torrent_is_known_before_its_hashes() {
        let files: Vec<_> = (0..2000)
            .map(|n| (DiskOffset(n << 20), n * n + 1))
            .collect();
        let total_bytes = files.iter().map(|(_, length)| length).sum();
        let layout = Layout::new(total_bytes, 1 << 20).unwrap();
        let hashes = vec![PieceHash([7; 20]); layout.piece_count() as usize];
        let torrent = metainfo_write::write(&Description {
            name: "image",
            trackers: &[],
            webseeds: &[],
            created_by: "test",
            private: false,
            piece_bytes: layout.piece_bytes(),
            hashes: &hashes,
            content: Content::Fsbt { files: &files },
            disk_bytes: None,
            sector_bytes: None,
            needed_bytes: None,
            table: None,
        });
        let least = torrent_bytes_min(&files, &layout);
        assert!((least..least + 200).contains(&torrent.len()), "{least}");
        assert!(refuse_too_many(&files, &layout).is_ok());
        let many = vec![(DiskOffset(0), 4096); 1_750_000];
        assert!(refuse_too_many(&many, &layout).is_err());
    }
}
