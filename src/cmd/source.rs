//! What is a SOURCE, and where in it do the bytes of a torrent lie?
//!
//! `make` describes a source, `seed` serves from it. Each kind of source is a case of [`Kind`], and
//! knows by itself how its bytes are found.

use std::path::Path;

use swarm_proto::format::extents::ExtentMap;
use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::format::slices::{Slice, SliceTable};
use swarm_proto::size::decimal;

use super::Failure;
use super::slices::Directory;
use crate::os::device::Device;
use crate::storage::places::Places;

/// An opened source.
pub struct Source {
    pub device: Device,
    pub kind: Kind,
    /// What the user should know of it.
    pub note: Option<String>,
}

/// How a source holds the bytes that it describes.
pub enum Kind {
    /// A device or a raw image: each byte lies where it lies on a disk.
    Raw,
    /// A directory with a file for each run of bytes, by their offsets.
    Slices(Vec<Slice>),
}

/// Opens a source; with `metainfo`, that of this torrent: its name may be that of a directory.
pub fn open(path: &Path, metainfo: Option<&Metainfo>) -> Result<Source, Failure> {
    if path.is_dir() {
        let name = metainfo.map(|metainfo| &*metainfo.name);
        return open_slices(Directory::find(path, name)?);
    }
    Ok(Source {
        device: Device::open_source(path)?,
        kind: Kind::Raw,
        note: None,
    })
}

fn open_slices(directory: Directory) -> Result<Source, Failure> {
    let (first, last) = (directory.slices.first(), directory.slices.last());
    let (first, last) = first.zip(last).expect("a directory has a slice");
    let mut device = Device::open_slices(&directory.path, &first.name.to_string())?;
    // As large as a disk would have to be.
    device.size_bytes = last.name.disk.0 + last.length;
    Ok(Source {
        note: directory.note(),
        device,
        kind: Kind::Slices(directory.slices),
    })
}

impl Source {
    /// Where it holds the bytes of this torrent. Refuses one that cannot hold all of them.
    pub fn places(&self, metainfo: &Metainfo) -> Result<Places, Failure> {
        match &self.kind {
            Kind::Raw => raw_places(&self.device, metainfo),
            Kind::Slices(slices) => {
                let table = slice_table(&self.device, slices, &metainfo.extents)?;
                Ok(Places::of(metainfo).in_slices(table))
            }
        }
    }
}

/// The slices of a directory for these extents, if they hold exactly those bytes.
pub fn slice_table(
    device: &Device,
    slices: &[Slice],
    extents: &ExtentMap,
) -> Result<SliceTable, Failure> {
    SliceTable::new(slices, extents)
        .map_err(|error| Failure::Because(format!("source {}: {error}", device.path.display())))
}

fn raw_places(device: &Device, metainfo: &Metainfo) -> Result<Places, Failure> {
    let needed_bytes = metainfo.extents.disk_end().0;
    if device.size_bytes < needed_bytes {
        let (holds, needs) = (decimal(device.size_bytes), decimal(needed_bytes));
        return Err(Failure::Because(format!(
            "source {} holds {holds} ({} bytes), image needs {needs} ({needed_bytes} bytes)",
            device.path.display(),
            device.size_bytes
        )));
    }
    Ok(Places::of(metainfo))
}
