//! What is a SOURCE, and where in it do the bytes of a torrent lie?
//!
//! `make` describes a source, `seed` serves from it. Each kind of source is a case of [`Kind`], and
//! knows by itself how its bytes are found.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use swarm_proto::format::extents::ExtentMap;
use swarm_proto::format::file_formats::{self, FileFormat};
use swarm_proto::format::lz4_frame::{self, Packed};
use swarm_proto::format::lz4_frame_error::PackedError;
use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::format::partclone::{self, Image};
use swarm_proto::format::slices::{Slice, SliceTable};
use swarm_proto::size::decimal;
use swarm_proto::text;
use swarm_proto::units::DiskOffset;

use super::Failure;
use super::slices::{Directory, Pause};
use crate::os::device::Device;
use crate::storage::places::Places;
use crate::storage::sectors;

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
    /// A partclone image: the used blocks of a partition one after the other.
    Partclone,
    /// Any file, packed by `lz4`.
    Packed,
}

/// Opens a source; with `metainfo`, that of this torrent: its name may be that of a directory.
pub fn open(path: &Path, metainfo: Option<&Metainfo>, pause: Pause) -> Result<Source, Failure> {
    if path.is_dir() {
        let name = metainfo.map(|metainfo| &*metainfo.name);
        return open_slices(Directory::find(path, name, pause)?);
    }
    Source::of(Device::open_source(path)?)
}

impl Kind {
    fn of(device: &Device) -> Result<Kind, Failure> {
        let magic = partclone::MAGIC;
        let head = sectors::read(device, 0, magic.len() as u32);
        Ok(match head.map_err(|error| cannot_read(device, error))? {
            head if head == magic => Kind::Partclone,
            head if !device.is_block() && lz4_frame::is_one(&head) => Kind::Packed,
            _ => Kind::Raw,
        })
    }
}

pub fn cannot_read(device: &Device, error: io::Error) -> Failure {
    Failure::Because(format!("cannot read {}: {error}", device.path.display()))
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
    pub fn of(device: Device) -> Result<Source, Failure> {
        Ok(Source {
            kind: Kind::of(&device)?,
            device,
            note: None,
        })
    }

    /// If it is packed, it is what it was before from now on.
    pub fn unpack(&mut self, pause: Pause) -> Result<(), Failure> {
        if let Kind::Packed = self.kind {
            refuse_shelved(&self.device)?;
            let packed = read_packed(&self.device, pause)?;
            self.device.size_bytes = packed.image_bytes;
            self.device.packed = Some(Arc::new(packed));
            self.kind = Kind::of(&self.device)?;
        }
        Ok(())
    }

    /// Refuses a packed image of which nothing would say that a block is damaged: its torrent would
    /// call that right.
    pub fn require_sums(&self) -> Result<(), Failure> {
        let unsummed = PackedError::Other("has no checksums behind its blocks");
        match &self.device.packed {
            Some(packed) if !packed.has_sums => Err(packed_failure(&self.device, &unsummed)),
            _ => Ok(()),
        }
    }

    /// Where it holds the bytes of this torrent. Refuses one that cannot hold all of them.
    pub fn places(&mut self, metainfo: &Metainfo, pause: Pause) -> Result<Places, Failure> {
        if !is_whole(&self.device, metainfo) {
            self.unpack(pause)?;
        }
        match &self.kind {
            Kind::Raw | Kind::Packed => raw_places(&self.device, metainfo),
            Kind::Partclone => image_places(&self.device, metainfo, pause),
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

/// Refuses a file of a Clonezilla image that has to be unpacked or put together first. A `dd` image
/// may be raw.
pub fn refuse_shelved(device: &Device) -> Result<(), Failure> {
    let path = &device.path;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_dd = text::contains(&name, ".dd-img.") || text::contains(&name, ".dd-ptcl-img.");
    if !is_dd && !text::contains(&name, "-ptcl-img.") {
        return Ok(());
    }
    let head = sectors::read(device, 0, file_formats::HEAD_BYTES as u32);
    let head = head.map_err(|error| cannot_read(device, error))?;
    if is_dd && FileFormat::of(&head, &[], false).is_none() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    Err(Failure::Because(format!(
        "source {} is of a Clonezilla image that is compressed or split; \
         'scripts/unshelve {}' makes files that can be described and served",
        path.display(),
        Path::new(".").join(parent).display()
    )))
}

fn raw_places(device: &Device, metainfo: &Metainfo) -> Result<Places, Failure> {
    if !is_whole(device, metainfo) {
        refuse_shelved(device)?;
    }
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

/// The partclone image in a source, without a look at its blocks. `on_run` gets the runs of used
/// blocks, in rising order.
pub fn read_image(
    device: &Device,
    pause: Pause,
    on_run: &mut dyn FnMut(DiskOffset, u64),
) -> Result<Image, Failure> {
    let mut parts = Parts::of(device, pause);
    let image = Image::read(device.size_bytes, &mut |part| parts.read(part), on_run);
    parts.check()?;
    image.map_err(|error| {
        let path = device.path.display();
        Failure::Because(format!("partclone image {path}: {error}"))
    })
}

/// Where the blocks of a packed image are. All of them are passed over.
fn read_packed(device: &Device, pause: Pause) -> Result<Packed, Failure> {
    let mut parts = Parts::of(device, pause);
    let packed = Packed::read(device.size_bytes, &mut |part| parts.read(part));
    parts.check()?;
    packed.map_err(|error| packed_failure(device, &error))
}

fn packed_failure(device: &Device, error: &PackedError) -> Failure {
    let path = device.path.display().to_string();
    let mut why = format!("packed image {path}: {error}");
    if error.is_whole() {
        let help = "; try: lz4 -dc < FILE | lz4 -3 -B16384 -BX > FILE.lz4";
        why += &text::replace(help, "FILE", &quoted(&path));
    }
    Failure::Because(why)
}

/// A word for the shell.
pub fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@%".contains(&byte);
    match word.bytes().all(is_plain) {
        true => word.into(),
        false => format!("'{}'", text::replace(word, "'", "'\\''")),
    }
}

/// Reads parts of a device, as long as it can and `pause` allows it.
struct Parts<'a> {
    device: &'a Device,
    pause: Pause<'a>,
    failed: Option<io::Error>,
}

impl<'a> Parts<'a> {
    fn of(device: &'a Device, pause: Pause<'a>) -> Parts<'a> {
        Parts {
            device,
            pause,
            failed: None,
        }
    }

    fn read(&mut self, part: Range<u64>) -> Option<Vec<u8>> {
        let read = match (self.pause)() {
            true => sectors::read(self.device, part.start, (part.end - part.start) as u32),
            false => Err(ErrorKind::Interrupted.into()),
        };
        read.map_err(|error| self.failed = Some(error)).ok()
    }

    /// Why a part could not be read.
    fn check(self) -> Result<(), Failure> {
        let failed = self.failed.map(|error| cannot_read(self.device, error));
        failed.map_or(Ok(()), Err)
    }
}

/// Where a partclone image has the bytes of a torrent. Refuses one that does not describe the same
/// runs of used blocks: each is compared while the map is read, and none is kept.
pub fn image_places(device: &Device, metainfo: &Metainfo, pause: Pause) -> Result<Places, Failure> {
    if is_whole(device, metainfo) {
        return Ok(Places::of(metainfo));
    }
    let extents = metainfo.extents.extents().iter();
    let mut wanted = extents.map(|extent| (extent.disk, extent.length));
    let mut differ = None;
    let mut compare = |found: Option<(DiskOffset, u64)>| {
        let wanted = wanted.next();
        if wanted != found && differ.is_none() {
            differ = Some((found, wanted));
        }
    };
    // A map that is damaged is told first.
    let mut on_run = |start, length| compare(Some((start, length)));
    let image = read_image(device, pause, &mut on_run)?;
    compare(None);
    match differ {
        Some((found, wanted)) => Err(Failure::Because(format!(
            "source {} is another partclone image than that of the torrent: it has {}, the torrent {}",
            device.path.display(),
            run_text(found),
            run_text(wanted)
        ))),
        None => Ok(Places::of(metainfo).in_image(image.data)),
    }
}

/// Whether a torrent is of this file itself, as `make --raw` describes it.
pub fn is_whole(device: &Device, metainfo: &Metainfo) -> bool {
    let extents = metainfo.extents.extents().iter();
    extents
        .map(|extent| (extent.disk.0, extent.length))
        .eq([(0, device.size_bytes)])
}

fn run_text(run: Option<(DiskOffset, u64)>) -> String {
    match run {
        Some((start, length)) => format!("{length} used bytes at {}", start.0),
        None => "no more".into(),
    }
}
