//! `swarmdd make`: which bytes of a disk or an image are worth sending, and what are their hashes?
//!
//! Of a disk with a partition table: what the table calls used, and of the rest what is not zero,
//! for boot loaders live there (GRUB's core.img lies between MBR and first partition). Inside a
//! partition zeros are used too: file systems count on them, and they cost nothing, because pieces
//! of zeros are not fetched. The backup GPT is left out: `get` writes it to the end of whatever
//! disk it finds, which may be a larger or a smaller one.
//!
//! Of anything else: everything, unless `--skip-holes` says that holes do not matter. A hole of a
//! sparse file reads as zeros, and programs count on it: mke2fs leaves the inode tables of a fresh
//! file as holes. Left out, they would keep on the target whatever was there before. The last bytes
//! of such an image always belong to it, so that its length survives: a target file must end where
//! the image ends, and an image must be refused on a disk that is too small for it, even if it ends
//! in a hole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use swarm_proto::format::extents::ExtentMap;
use swarm_proto::format::layout::{self, Layout};
use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::format::metainfo_write::{self, Content, Description};
use swarm_proto::limits::FILE_COUNT_MAX;
use swarm_proto::size::binary;
use swarm_proto::units::DiskOffset;
use swarm_proto::wire::url::Url;

use super::{Failure, Reading, say};
use crate::os::device::Device;
use crate::os::{sectors, sparse};
use crate::report::{Mode, State};
use crate::storage::partition_table::{self, Table, TableKind};

/// What `make` is asked to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub source: PathBuf,
    pub output: PathBuf,
    /// One tier each (BEP 12), in the order in which they are tried.
    pub trackers: Vec<Url>,
    /// A power of two within the limits; `None`: chosen from the size of the image.
    pub piece_bytes: Option<u32>,
    pub name: Option<String>,
    pub private: bool,
    pub web_seeds: Vec<Url>,
    /// One file from offset 0 instead of the used ranges.
    pub single: bool,
    pub skip_holes: bool,
}

/// Ranges grow to multiples of this: the page of every file system, and the sector of every disk.
const GRAIN_BYTES: u64 = 4096;

/// Described in front of a partitioned disk even if it is zero: as far as the first partition
/// mostly is away, and where a target may keep what somebody would find (an old boot loader, or the
/// superblock of btrfs at 64 KiB).
const HEAD_BYTES: u64 = 1 << 20;

/// Read at once while looking for what is not zero.
const LOOK_BYTES: u64 = 1 << 20;

pub fn run(options: &Options) -> Result<(), Failure> {
    refuse_other_kinds(&options.source)?;
    refuse_output(options)?;
    let device = Device::open_source(&options.source)?;
    if device.size_bytes == 0 {
        return Err(Failure::Because(format!(
            "source {} is empty",
            options.source.display()
        )));
    }
    let table = partition_table::read(&device).map_err(|error| cannot_read(&device, error))?;
    let files = files(options, &device, table.as_ref())?;
    // Made now, so that a directory that cannot be written is found before hours of reading.
    let draft = Draft::create(&options.output)?;
    let torrent = describe(options, &device, table.as_ref(), &files)?;
    let metainfo = Metainfo::parse(&torrent)?;
    draft.commit(&torrent)?;
    say(&summary(
        &metainfo,
        options,
        table.as_ref(),
        device.size_bytes,
    ));
    Ok(())
}

/// Better no torrent than a wrong one: as a raw image these would be deployed byte for byte.
fn refuse_other_kinds(source: &Path) -> Result<(), Failure> {
    let kind = if source.is_dir() {
        "a directory of slices"
    } else if begins_with(source, b"partclone-image") {
        "a partclone image"
    } else {
        return Ok(());
    };
    let source = source.display();
    Err(Failure::Because(format!(
        "source {source}: {kind} is not yet supported, a device or a raw image is"
    )))
}

fn begins_with(source: &Path, magic: &[u8]) -> bool {
    let mut first = vec![0; magic.len()];
    let read = |file: File| file.read_exact_at(&mut first, 0);
    // What cannot be read is refused when it is opened as a source, with its own reason.
    source.is_file() && File::open(source).and_then(read).is_ok() && first == magic
}

/// An existing torrent is replaced, as every maker does; anything else that has this name is not.
fn refuse_output(options: &Options) -> Result<(), Failure> {
    let output = options.output.display();
    let identity = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
    match (fs::metadata(&options.output), fs::metadata(&options.source)) {
        (Ok(found), Ok(source)) if identity(&found) == identity(&source) => Err(Failure::Because(
            format!("-o {output} is the source itself"),
        )),
        (Ok(found), _) if !found.is_file() => Err(Failure::Because(format!(
            "-o {output} is not a regular file"
        ))),
        _ => Ok(()),
    }
}

fn cannot_read(device: &Device, error: io::Error) -> Failure {
    Failure::Because(format!("cannot read {}: {error}", device.path.display()))
}

/// (disk offset, length) of what goes into the torrent.
fn files(
    options: &Options,
    device: &Device,
    table: Option<&Table>,
) -> Result<Vec<(DiskOffset, u64)>, Failure> {
    let size_bytes = device.size_bytes;
    let whole = vec![0..size_bytes];
    let data = match device.is_block() {
        true => whole.clone(),
        false => sparse::data_ranges(&File::open(&options.source)?)?,
    };
    let files = match table {
        Some(table) if !options.single => of_disk(options, device, table, &data)?,
        _ => {
            let mut data = if options.skip_holes { data } else { whole };
            data.push(size_bytes - 1..size_bytes);
            used_ranges(&data, size_bytes)
        }
    };
    if files.len() > FILE_COUNT_MAX {
        let count = files.len();
        return Err(Failure::Because(format!(
            "the source has {count} used ranges, at most {FILE_COUNT_MAX}: omit --skip-holes"
        )));
    }
    Ok(files)
}

/// The data ranges, in order of their start, grown to whole grains and merged, up to `length`.
fn used_ranges(data: &[Range<u64>], length: u64) -> Vec<(DiskOffset, u64)> {
    let mut used: Vec<Range<u64>> = Vec::new();
    for range in data.iter().filter(|range| range.start < length) {
        let start = range.start / GRAIN_BYTES * GRAIN_BYTES;
        let end = range.end.next_multiple_of(GRAIN_BYTES).min(length);
        match used.last_mut() {
            Some(last) if start <= last.end => last.end = end.max(last.end),
            _ => used.push(start..end),
        }
    }
    used.into_iter()
        .map(|range| (DiskOffset(range.start), range.end - range.start))
        .collect()
}

/// What of a disk with this table is used; `data` is all of it but the holes.
fn of_disk(
    options: &Options,
    device: &Device,
    table: &Table,
    data: &[Range<u64>],
) -> Result<Vec<(DiskOffset, u64)>, Failure> {
    let size_bytes = device.size_bytes;
    // Ranges that grow to whole grains must not take the backup GPT with them, or no smaller disk
    // would do.
    let end_bytes = match table.backup() {
        Some(backup) if size_bytes - backup.end < u64::from(table.sector_bytes) => backup.start,
        _ => size_bytes,
    };
    let mut used = table.used();
    used.push(0..HEAD_BYTES.min(end_bytes));
    sort(&mut used);
    let gaps = common(&gaps(&used, table.backup(), size_bytes), data);
    let found = look_through(device, &gaps).map_err(|error| cannot_read(device, error))?;
    if options.skip_holes {
        used = common(&used, data);
    }
    used.extend(found);
    sort(&mut used);
    Ok(used_ranges(&used, end_bytes))
}

fn sort(ranges: &mut [Range<u64>]) {
    ranges.sort_unstable_by_key(|range| range.start);
}

/// What is neither used nor the backup GPT.
fn gaps(used: &[Range<u64>], backup: Option<Range<u64>>, size_bytes: u64) -> Vec<Range<u64>> {
    let mut taken: Vec<Range<u64>> = used.iter().cloned().chain(backup).collect();
    sort(&mut taken);
    let mut gaps = Vec::new();
    let mut from = 0;
    for range in taken.into_iter().chain([size_bytes..size_bytes]) {
        if from < range.start {
            gaps.push(from..range.start);
        }
        from = from.max(range.end);
    }
    gaps
}

/// What both have, in order. Both are in order, and `two` has no overlaps.
fn common(one: &[Range<u64>], two: &[Range<u64>]) -> Vec<Range<u64>> {
    let cut = |range: &Range<u64>| {
        let range = range.clone();
        let first = two.partition_point(|other| other.end <= range.start);
        let others = two[first..]
            .iter()
            .take_while(move |other| other.start < range.end);
        others.map(move |other| other.start.max(range.start)..other.end.min(range.end))
    };
    one.iter().flat_map(cut).collect()
}

/// The grains of these ranges that are not zero, in order. The disk is waited for: there is mostly
/// little to read, and all the rest is read next.
fn look_through(device: &Device, ranges: &[Range<u64>]) -> io::Result<Vec<Range<u64>>> {
    let mut found = Vec::new();
    for range in ranges {
        let mut from = range.start;
        while from < range.end {
            let end = (from / LOOK_BYTES * LOOK_BYTES + LOOK_BYTES).min(range.end);
            let bytes = sectors::read(device, from, (end - from) as u32)?;
            let grains = bytes.chunks(GRAIN_BYTES as usize).zip(0..);
            let used = grains.filter(|(grain, _)| grain.iter().any(|&byte| byte != 0));
            found.extend(used.map(|(grain, index)| {
                let start = from + index * GRAIN_BYTES;
                start..start + grain.len() as u64
            }));
            from = end;
        }
    }
    Ok(found)
}

/// Reads and hashes everything; the bytes of the torrent file.
fn describe(
    options: &Options,
    device: &Device,
    table: Option<&Table>,
    files: &[(DiskOffset, u64)],
) -> Result<Vec<u8>, Failure> {
    let extents = ExtentMap::from_files(files.iter().copied())?;
    let total_bytes = extents.total_bytes();
    let piece_bytes = options
        .piece_bytes
        .unwrap_or_else(|| layout::default_piece_bytes(total_bytes));
    let layout = Layout::new(total_bytes, piece_bytes)?;
    let reading = Reading {
        device,
        layout,
        extents: &extents,
        state: State::Scanning,
        torrent: device.path.display().to_string(),
        target: options.output.display().to_string(),
        progress: Mode::Auto,
    };
    let mut hashes = Vec::new();
    reading.hash_pieces(|_, hash| hashes.push(hash))?;
    let content = if options.single {
        Content::Single {
            length: total_bytes,
        }
    } else {
        Content::Fsbt { files }
    };
    Ok(metainfo_write::write(&Description {
        name: &name(options),
        trackers: &texts(&options.trackers),
        webseeds: &texts(&options.web_seeds),
        created_by: concat!("swarmdd ", env!("CARGO_PKG_VERSION")),
        private: options.private,
        piece_bytes,
        hashes: &hashes,
        content,
        // Of an image without a table nobody knows whether it is a disk.
        disk_bytes: (device.is_block() || table.is_some()).then_some(device.size_bytes),
        sector_bytes: match table {
            Some(table) => Some(table.sector_bytes),
            None => device.is_block().then_some(device.sector_bytes),
        },
    }))
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(Url::to_string).collect()
}

fn name(options: &Options) -> String {
    let file_name = || {
        options
            .source
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    options
        .name
        .clone()
        .or_else(file_name)
        .unwrap_or_else(|| "image".into())
}

fn summary(
    metainfo: &Metainfo,
    options: &Options,
    table: Option<&Table>,
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
            TableKind::Gpt { .. } => "GPT",
            TableKind::Mbr { .. } => "MBR",
        };
        let (count, sector_bytes) = (table.partition_count(), table.sector_bytes);
        text += &format!(
            "partition table: {kind}, partitions: {count}, sectors of {sector_bytes} bytes\n"
        );
    }
    if !options.single {
        text += &format!("used ranges: {}\n", extents.extents().len());
    }
    let backup = if options.single {
        None
    } else {
        table.and_then(Table::backup)
    };
    let backup_bytes = backup
        .as_ref()
        .map_or(0, |backup| backup.end - backup.start);
    let left_out = source_bytes.saturating_sub(total + backup_bytes);
    if left_out > 0 {
        let what = match table {
            Some(_) if options.skip_holes => "holes, and of zeros outside partitions",
            Some(_) => "zeros outside partitions",
            None => "holes",
        };
        let size = binary(left_out);
        text += &format!(
            "left out: {left_out} bytes of {what} ({size}), a target keeps what lies there\n"
        );
    }
    if backup.is_some() {
        text += "left out: the backup GPT, which 'swarmdd get' writes to the end of its disk\n";
    }
    text
}

/// A file that becomes `path` when it is complete, and never before; dropped uncommitted, it is
/// removed.
struct Draft {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
}

impl Draft {
    fn create(path: &Path) -> Result<Draft, Failure> {
        let failed = |error| Failure::Because(format!("cannot write {}: {error}", path.display()));
        let Some(name) = path.file_name() else {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        };
        let temporary = path.with_file_name(format!(
            ".{}.{}",
            name.to_string_lossy(),
            std::process::id()
        ));
        let file = File::create_new(&temporary).map_err(failed)?;
        Ok(Draft {
            path: path.into(),
            temporary,
            file,
        })
    }

    fn commit(mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self
            .file
            .write_all(bytes)
            .and_then(|()| self.file.sync_all());
        let renamed = written.and_then(|()| fs::rename(&self.temporary, &self.path));
        renamed.map_err(|error| {
            Failure::Because(format!("cannot write {}: {error}", self.path.display()))
        })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After the rename there is nothing left to remove, and a leftover would only be untidy.
        let _ = fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::testing::Scratch;

    /// `data` and the result as (start, end).
    fn used(data: &[(u64, u64)], length: u64) -> Vec<(u64, u64)> {
        let mut data: Vec<Range<u64>> = data.iter().map(|&(start, end)| start..end).collect();
        data.push(length - 1..length);
        used_ranges(&data, length)
            .into_iter()
            .map(|(disk, length)| (disk.0, disk.0 + length))
            .collect()
    }

    #[test]
    fn ranges_grow_and_merge() {
        const MIB: u64 = 1 << 20;
        assert_eq!(used(&[(0, 100)], 100), [(0, 100)]);
        assert_eq!(used(&[(0, 4096), (4096, 8192)], 8192), [(0, 8192)]);
        assert_eq!(
            used(&[(5000, 5001), (12_288, 12_289)], 20_480),
            [(4096, 8192), (12_288, 20_480)]
        );
        assert_eq!(
            used(&[(100, 200), (4000, 4097), (8190, 8200)], MIB),
            [(0, 12_288), (MIB - 4096, MIB)]
        );
    }

    #[test]
    fn the_length_survives_a_hole_at_the_end() {
        assert_eq!(used(&[], 1), [(0, 1)]);
        assert_eq!(used(&[], 10_000), [(8192, 10_000)]);
        assert_eq!(used(&[(0, 4096)], 12_288), [(0, 4096), (8192, 12_288)]);
        assert_eq!(used(&[(0, 4096)], 8192), [(0, 8192)]);
    }

    #[test]
    fn gaps_are_what_nobody_has() {
        assert_eq!(
            gaps(&[0..10, 5..20, 30..40], Some(90..95), 100),
            [20..30, 40..90, 95..100]
        );
        assert_eq!(gaps(&[0..100], None, 100), []);
        assert_eq!(gaps(&[], Some(90..100), 100), [0..90]);
    }

    #[test]
    fn common_is_what_both_have() {
        assert_eq!(
            common(&[0..10, 20..30], &[5..22, 25..26, 29..40]),
            [5..10, 20..22, 25..26, 29..30]
        );
        assert_eq!(common(&[0..10], &[10..20]), []);
        assert_eq!(common(&[0..4], &[0..4]), [0..4]);
    }

    #[test]
    fn grains_that_are_not_zero_are_found() {
        let scratch = Scratch::new("make-look");
        let mut bytes = vec![0; 3 << 20];
        [5000, (1 << 20) - 1, (2 << 20) + 4096]
            .iter()
            .for_each(|&at| bytes[at] = 1);
        std::fs::write(scratch.path(), &bytes).unwrap();
        let device = Device::open_source(scratch.path()).unwrap();
        let found = look_through(&device, &[512..6000, (1 << 20) - 10..3 << 20]).unwrap();
        let grain = (2 << 20) + 4096;
        assert_eq!(
            found,
            [4608..6000, (1 << 20) - 10..1 << 20, grain..grain + 4096]
        );
    }

    /// A file that grew after its length was taken.
    #[test]
    fn nothing_behind_the_end() {
        assert_eq!(used(&[(0, 9000), (12_288, 20_000)], 5000), [(0, 5000)]);
    }
}
