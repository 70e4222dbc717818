//! `swarmdd make`: which bytes of a disk or an image are worth sending, and what are their hashes?
//!
//! Everything, unless `--skip-holes` says that holes do not matter. A hole of a sparse file reads as zeros, and programs
//! count on it: mke2fs leaves the inode tables of a fresh file as holes. Left out, they would keep on the target whatever
//! was there before. The last bytes of the image always belong to it, so that its length survives: a target file must end
//! where the image ends, and an image must be refused on a disk that is too small for it, even if it ends in a hole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use swarm_proto::extents::ExtentMap;
use swarm_proto::limits::FILE_COUNT_MAX;
use swarm_proto::metainfo::{self, Content, Description, Layout, Metainfo};
use swarm_proto::units::DiskOffset;

use super::{Failure, Reading, say};
use crate::cli::MakeOptions;
use crate::os::blockdev::Device;
use crate::os::sparse;
use crate::progress::{Bytes, State};

/// Ranges grow to multiples of this: the page of every file system, and the sector of every disk.
const GRAIN_BYTES: u64 = 4096;

pub fn run(options: &MakeOptions) -> Result<(), Failure> {
    refuse_other_kinds(&options.source)?;
    refuse_output(options)?;
    let device = Device::open_source(&options.source)?;
    if device.size_bytes == 0 {
        return Err(Failure::Because(format!("source {} is empty", options.source.display())));
    }
    let files = files(options, &device)?;
    // Made now, so that a directory that cannot be written is found before hours of reading.
    let draft = Draft::create(&options.output)?;
    let torrent = describe(options, &device, &files)?;
    let metainfo = Metainfo::parse(&torrent)?;
    draft.commit(&torrent)?;
    say(&summary(&metainfo, options, device.size_bytes));
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
    Err(Failure::Because(format!("source {source}: {kind} is not yet supported, a device or a raw image is")))
}

fn begins_with(source: &Path, magic: &[u8]) -> bool {
    let mut first = vec![0; magic.len()];
    let read = |file: File| file.read_exact_at(&mut first, 0);
    // What cannot be read is refused when it is opened as a source, with its own reason.
    source.is_file() && File::open(source).and_then(read).is_ok() && first == magic
}

/// An existing torrent is replaced, as every maker does; anything else that has this name is not.
fn refuse_output(options: &MakeOptions) -> Result<(), Failure> {
    let output = options.output.display();
    let identity = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
    match (fs::metadata(&options.output), fs::metadata(&options.source)) {
        (Ok(found), Ok(source)) if identity(&found) == identity(&source) => {
            Err(Failure::Because(format!("-o {output} is the source itself")))
        }
        (Ok(found), _) if !found.is_file() => {
            Err(Failure::Because(format!("-o {output} is not a regular file")))
        }
        _ => Ok(()),
    }
}

/// (disk offset, length) of what goes into the torrent.
fn files(options: &MakeOptions, device: &Device) -> Result<Vec<(DiskOffset, u64)>, Failure> {
    let whole = 0..device.size_bytes;
    let data = if options.skip_holes && !device.is_block() {
        sparse::data_ranges(&File::open(&options.source)?)?
    } else {
        vec![whole]
    };
    let files = used_ranges(&data, device.size_bytes);
    if files.len() > FILE_COUNT_MAX {
        let count = files.len();
        return Err(Failure::Because(format!(
            "the source has {count} used ranges, at most {FILE_COUNT_MAX}: omit --skip-holes"
        )));
    }
    Ok(files)
}

/// The data ranges, in order, grown to whole grains and merged, with the last grain of the image in any case.
fn used_ranges(data: &[Range<u64>], length: u64) -> Vec<(DiskOffset, u64)> {
    assert!(length > 0);
    let last_byte = length - 1..length;
    let mut used: Vec<Range<u64>> = Vec::new();
    for range in data.iter().chain([&last_byte]).filter(|range| range.start < length) {
        let start = range.start / GRAIN_BYTES * GRAIN_BYTES;
        let end = range.end.next_multiple_of(GRAIN_BYTES).min(length);
        match used.last_mut() {
            Some(last) if start <= last.end => last.end = end.max(last.end),
            _ => used.push(start..end),
        }
    }
    used.into_iter().map(|range| (DiskOffset(range.start), range.end - range.start)).collect()
}

/// Reads and hashes everything; the bytes of the torrent file.
fn describe(options: &MakeOptions, device: &Device, files: &[(DiskOffset, u64)]) -> Result<Vec<u8>, Failure> {
    let extents = ExtentMap::from_files(files.iter().copied())?;
    let total_bytes = extents.total_bytes();
    let piece_bytes = options.piece_bytes.unwrap_or_else(|| metainfo::default_piece_bytes(total_bytes));
    let layout = Layout::new(total_bytes, piece_bytes)?;
    let reading = Reading {
        device,
        layout,
        extents: &extents,
        state: State::Scanning,
        torrent: device.path.display().to_string(),
        target: options.output.display().to_string(),
    };
    let mut hashes = Vec::new();
    reading.hash_pieces(|_, hash| hashes.push(hash))?;
    let content =
        if options.single { Content::Single { length: total_bytes } } else { Content::Fsbt { files } };
    Ok(metainfo::write(&Description {
        name: &name(options),
        trackers: &options.trackers,
        webseeds: &options.web_seeds,
        created_by: concat!("swarmdd ", env!("CARGO_PKG_VERSION")),
        private: options.private,
        piece_bytes,
        hashes: &hashes,
        content,
        disk_bytes: None,
        sector_bytes: None,
    }))
}

fn name(options: &MakeOptions) -> String {
    let file_name = || options.source.file_name().map(|name| name.to_string_lossy().into_owned());
    options.name.clone().or_else(file_name).unwrap_or_else(|| "image".into())
}

fn summary(metainfo: &Metainfo, options: &MakeOptions, source_bytes: u64) -> String {
    let Metainfo { info_hash, layout, extents, .. } = metainfo;
    let (total, count) = (layout.total_bytes(), layout.piece_count());
    let mut text = format!(
        "info-hash: {info_hash}\nsize: {total} bytes ({})\npieces: {count} of {} bytes\n",
        Bytes(total),
        layout.piece_bytes(),
    );
    if !options.single {
        text += &format!("used ranges: {}\n", extents.extents().len());
    }
    if total < source_bytes {
        let holes = source_bytes - total;
        text +=
            &format!("left out: {holes} bytes of holes ({}), a target keeps what lies there\n", Bytes(holes));
    }
    text
}

/// A file that becomes `path` when it is complete, and never before; dropped uncommitted, it is removed.
struct Draft {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
}

impl Draft {
    fn create(path: &Path) -> Result<Draft, Failure> {
        let failed = |error| Failure::Because(format!("cannot write {}: {error}", path.display()));
        let Some(name) = path.file_name() else { return Err(failed(io::ErrorKind::IsADirectory.into())) };
        let temporary = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
        let file = File::create_new(&temporary).map_err(failed)?;
        Ok(Draft { path: path.into(), temporary, file })
    }

    fn commit(mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(bytes).and_then(|()| self.file.sync_all());
        let renamed = written.and_then(|()| fs::rename(&self.temporary, &self.path));
        renamed.map_err(|error| Failure::Because(format!("cannot write {}: {error}", self.path.display())))
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

    /// `data` and the result as (start, end).
    fn used(data: &[(u64, u64)], length: u64) -> Vec<(u64, u64)> {
        let data: Vec<Range<u64>> = data.iter().map(|&(start, end)| start..end).collect();
        used_ranges(&data, length).into_iter().map(|(disk, length)| (disk.0, disk.0 + length)).collect()
    }

    #[test]
    fn ranges_grow_and_merge() {
        const MIB: u64 = 1 << 20;
        assert_eq!(used(&[(0, 100)], 100), [(0, 100)]);
        assert_eq!(used(&[(0, 4096), (4096, 8192)], 8192), [(0, 8192)]);
        assert_eq!(used(&[(5000, 5001), (12_288, 12_289)], 20_480), [(4096, 8192), (12_288, 20_480)]);
        assert_eq!(used(&[(100, 200), (4000, 4097), (8190, 8200)], MIB), [(0, 12_288), (MIB - 4096, MIB)]);
    }

    #[test]
    fn the_length_survives_a_hole_at_the_end() {
        assert_eq!(used(&[], 1), [(0, 1)]);
        assert_eq!(used(&[], 10_000), [(8192, 10_000)]);
        assert_eq!(used(&[(0, 4096)], 12_288), [(0, 4096), (8192, 12_288)]);
        assert_eq!(used(&[(0, 4096)], 8192), [(0, 8192)]);
    }

    /// A file that grew after its length was taken.
    #[test]
    fn nothing_behind_the_end() {
        assert_eq!(used(&[(0, 9000), (12_288, 20_000)], 5000), [(0, 5000)]);
    }
}
