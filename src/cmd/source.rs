//! What is a SOURCE, and where in it do the bytes of a torrent lie?
//!
//! `make` describes a source, `seed` serves from it. Each kind of source is a case of [`Kind`], and
//! knows by itself how its bytes are found.

use std::path::Path;

use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::size::decimal;

use super::Failure;
use crate::os::device::Device;
use crate::storage::places::Places;

/// An opened source.
pub struct Source {
    pub device: Device,
    pub kind: Kind,
}

/// How a source holds the bytes that it describes.
pub enum Kind {
    /// A device or a raw image: each byte lies where it lies on a disk.
    Raw,
}

pub fn open(path: &Path) -> Result<Source, Failure> {
    if path.is_dir() {
        return Err(Failure::Because(format!(
            "source {}: a directory of slices is not yet supported, a device or a raw image is",
            path.display()
        )));
    }
    Ok(Source {
        device: Device::open_source(path)?,
        kind: Kind::Raw,
    })
}

impl Source {
    /// Where it holds the bytes of this torrent. Refuses one that cannot hold all of them.
    pub fn places(&self, metainfo: &Metainfo) -> Result<Places, Failure> {
        match self.kind {
            Kind::Raw => raw_places(&self.device, metainfo),
        }
    }
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
