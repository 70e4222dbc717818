//! What does the torrent of a directory of slices say, and how is such a directory written?
//!
//! A torrent of slices names the files as they are called, so that any other client can seed them
//! from the same place. Slices are written as partclone does it: a run of used bytes is a file,
//! a longer run is several of 16 MiB, and nobody may change them.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use swarm_proto::format::metainfo_write::{self, Content, Description};
use swarm_proto::format::slices::{SLICE_BYTES_MAX, Slice, SliceName, extents};
use swarm_proto::limits::FILE_COUNT_MAX;
use swarm_proto::units::DiskOffset;

use super::draft::Draft;
use super::{CREATED_BY, Options, cannot_read, hash_all, info, layout_of};
use crate::cmd::Failure;
use crate::cmd::reading::{self, Progress};
use crate::cmd::slices::TORRENT_INFO;
use crate::cmd::source::{self, Kind, Source};
use crate::os::device::{Device, sync_directory, sync_file_system};
use crate::os::signal::Signals;
use crate::os::tty;
use crate::os::{directory, file};
use crate::report::{Mode, State};
use crate::storage::places::Places;
use crate::storage::reader::ReadError;
use crate::storage::sectors;

/// Read and written at once.
const STEP_BYTES: u64 = 1 << 20;

/// Describes the slices of a directory. Reads and hashes all of them.
pub(super) fn describe(
    options: &Options,
    device: &Device,
    slices: &[Slice],
) -> Result<(), Failure> {
    let extents = Arc::new(extents(slices)?);
    let disk_bytes = partition_bytes(device, slices, extents.total_bytes())?;
    let draft = Draft::create(&options.output)?;
    let end = extents.disk_end().0;
    let table = source::slice_table(device, slices, &extents)?;
    let layout = layout_of(options, extents.total_bytes())?;
    let places = Places::new(layout, extents).in_slices(table);
    let hashes = hash_all(options, device, places, None)?;
    let torrent = metainfo_write::write(&Description {
        name: &super::name(options),
        trackers: &options.trackers,
        webseeds: &options.web_seeds,
        created_by: CREATED_BY,
        private: options.private,
        piece_bytes: layout.piece_bytes(),
        hashes: &hashes,
        content: Content::Slices { below: &[], slices },
        disk_bytes,
        sector_bytes: None,
        // A file system needs all of its partition, and not only up to its last used block.
        needed_bytes: Some(disk_bytes.unwrap_or(end).max(end)),
        table: None,
    });
    super::finish(options, draft, &torrent)
}

/// The size of the partition, if partclone has said it beside its slices. Then all of them must be
/// there.
fn partition_bytes(
    device: &Device,
    slices: &[Slice],
    total_bytes: u64,
) -> Result<Option<u64>, Failure> {
    let path = device.path.join(TORRENT_INFO);
    if !path.is_file() {
        return Ok(None);
    }
    let info = info::read(&path)?;
    let named = info::extents(&path, &info)?;
    source::slice_table(device, slices, &named)?;
    let named_bytes = named.total_bytes();
    if total_bytes != named_bytes {
        let path = path.display();
        return Err(Failure::Because(format!(
            "source {path} names {named_bytes} bytes, its slices have {total_bytes}: some are of another image"
        )));
    }
    tty::complain(&format!(
        "the size of the partition is from {}, the hashes are from the slices",
        path.display()
    ));
    Ok(info.disk_bytes())
}

/// Slices that appear when all of them are there, together with their torrent. If they are dropped
/// before that, they are removed.
pub(super) struct Written {
    path: PathBuf,
    temporary: PathBuf,
    /// `None` while they are written.
    source: Option<Source>,
}

impl Written {
    /// Writes these ranges of a device.
    pub(super) fn new(
        path: &Path,
        device: &Device,
        ranges: &[(DiskOffset, u64)],
    ) -> Result<Written, Failure> {
        let failed = |error: io::Error| cannot_write(path, &error);
        let Some(name) = path.file_name() else {
            return Err(failed(io::ErrorKind::InvalidInput.into()));
        };
        match directory::names(path).map(|names| names.is_empty()) {
            Ok(true) => {}
            Ok(false) => {
                let path = path.display();
                let why = format!("--slices {path} is not empty: give a new directory");
                return Err(Failure::Because(why));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let (name, own) = (name.to_string_lossy(), std::process::id());
        let temporary = path.with_file_name(format!(".{name}.{own}"));
        // Before anything would remove it: another process in another container may have this pid.
        fs::create_dir(&temporary).map_err(failed)?;
        let mut written = Written {
            path: path.into(),
            temporary,
            source: None,
        };
        written.fill(device, ranges)?;
        written.source = Some(source::open(&written.temporary, None, &mut || true)?);
        Ok(written)
    }

    fn fill(&self, device: &Device, ranges: &[(DiskOffset, u64)]) -> Result<(), Failure> {
        let count = ranges
            .iter()
            .map(|(_, length)| length.div_ceil(SLICE_BYTES_MAX))
            .sum::<u64>();
        if count > FILE_COUNT_MAX as u64 {
            let why = format!("the source needs {count} slices, at most {FILE_COUNT_MAX}");
            return Err(Failure::Because(why));
        }
        let mut signals = Signals::new()?;
        let status = reading::status(
            State::Scanning,
            device.path.display().to_string(),
            self.path.display().to_string(),
            count as u32,
            ranges.iter().map(|(_, length)| length).sum(),
        );
        let mut progress = Progress::new(Mode::Auto, status);
        for &(disk, length) in ranges {
            let end = disk.0 + length;
            let starts = (disk.0..end).step_by(SLICE_BYTES_MAX as usize);
            for start in starts {
                self.write(
                    device,
                    start,
                    end.min(start + SLICE_BYTES_MAX),
                    &mut signals,
                )?;
                progress.step();
            }
        }
        sync_file_system(&self.temporary).map_err(|error| cannot_write(&self.path, &error))
    }

    /// One slice.
    fn write(
        &self,
        device: &Device,
        start: u64,
        end: u64,
        signals: &mut Signals,
    ) -> Result<(), Failure> {
        let failed = |error: io::Error| cannot_write(&self.path, &error);
        let name = SliceName::of_partclone(DiskOffset(start)).to_string();
        let mut file = file::create(&self.temporary.join(name), 0o400).map_err(failed)?;
        for from in (start..end).step_by(STEP_BYTES as usize) {
            if let Some(signal) = signals.poll() {
                return Err(ReadError::Interrupted(signal).into());
            }
            let length = (end - from).min(STEP_BYTES) as u32;
            let bytes = sectors::read(device, from, length);
            let bytes = bytes.map_err(|error| cannot_read(device, error))?;
            // What lies behind the end was read as zeros.
            if let Some(end) = device.ends_before(from + u64::from(length)) {
                return Err(ReadError::Ends {
                    path: device.path.clone(),
                    offset: DiskOffset(end),
                }
                .into());
            }
            file.write_all(&bytes).map_err(failed)?;
        }
        Ok(())
    }

    pub(super) fn source(&self) -> (&Device, &[Slice]) {
        let source = self.source.as_ref().expect("they have been written");
        match &source.kind {
            Kind::Slices(slices) => (&source.device, slices),
            _ => unreachable!("it is a directory"),
        }
    }

    pub(super) fn commit(self) -> Result<(), Failure> {
        let renamed =
            fs::rename(&self.temporary, &self.path).and_then(|()| sync_directory(&self.path));
        renamed.map_err(|error| cannot_write(&self.path, &error))
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        // As for a draft: after the rename there is nothing to remove.
        for name in directory::names(&self.temporary).unwrap_or_default() {
            let _ = fs::remove_file(self.temporary.join(name));
        }
        let _ = fs::remove_dir(&self.temporary);
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::Because(format!(
        "cannot write slices to {}: {error}",
        path.display()
    ))
}
