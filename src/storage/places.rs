//! Where on the device do the bytes of a piece lie?
//!
//! Everything in this folder asks [`Places`] and nothing else. The answer comes from a list of
//! extents on one device, which is how a raw disk or image file is described. A source that keeps
//! its bytes elsewhere (slices: a file for each run) or computes where they are (a partclone
//! image) differs from that in this answer alone.

use std::sync::Arc;

use swarm_proto::format::extents::ExtentMap;
use swarm_proto::format::layout::Layout;
use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::format::partclone_data::Data;
use swarm_proto::format::slices::SliceTable;
use swarm_proto::units::{DiskOffset, PieceIndex};

/// The pieces of one torrent and where they lie.
///
/// Invariant: the extents hold exactly the bytes of the layout.
#[derive(Clone)]
pub struct Places {
    layout: Layout,
    extents: Arc<ExtentMap>,
    held: Held,
}

/// How the bytes are held.
#[derive(Clone)]
enum Held {
    /// The device has each byte where the disk has it.
    Raw,
    Slices(Arc<SliceTable>),
    /// One after the other, in a partclone image.
    Image(Data),
}

/// A part of the bytes that were asked for, contiguous on the device or in one slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Counted from the first byte that was asked for.
    pub(super) offset: u32,
    /// Number of the slice; 0 where there is one device.
    pub(super) file: u32,
    /// From the beginning of the device or the slice.
    pub(super) disk: DiskOffset,
    pub(super) length: u32,
}

impl Places {
    pub fn new(layout: Layout, extents: Arc<ExtentMap>) -> Places {
        assert_eq!(
            layout.total_bytes(),
            extents.total_bytes(),
            "layout and extents of one torrent"
        );
        Places {
            layout,
            extents,
            held: Held::Raw,
        }
    }

    pub fn of(metainfo: &Metainfo) -> Places {
        Places::new(metainfo.layout, metainfo.extents.clone())
    }

    /// The same pieces, each byte in the slice that has it.
    pub fn in_slices(self, table: SliceTable) -> Places {
        Places {
            held: Held::Slices(Arc::new(table)),
            ..self
        }
    }

    /// The same pieces in a partclone image of the same runs of used blocks.
    pub fn in_image(self, data: Data) -> Places {
        assert_eq!(self.layout.total_bytes(), data.bytes());
        Places {
            held: Held::Image(data),
            ..self
        }
    }

    pub(super) fn slices(&self) -> Option<&Arc<SliceTable>> {
        match &self.held {
            Held::Slices(table) => Some(table),
            Held::Raw | Held::Image(_) => None,
        }
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How many bytes the device must have.
    pub(super) fn needed_bytes(&self) -> u64 {
        match &self.held {
            Held::Image(data) => data.end(),
            Held::Raw | Held::Slices(_) => self.extents.disk_end().0,
        }
    }

    /// Where a piece begins on the disk; it may go on elsewhere.
    pub fn start(&self, piece: PieceIndex) -> DiskOffset {
        let first = self.ranges(piece, 0, 1).next();
        let first = first.expect("every piece has a first byte");
        self.on_disk(first.file, first.disk)
    }

    /// Where the disk has the byte at this offset of the device or of a slice.
    pub(super) fn on_disk(&self, file: u32, offset: DiskOffset) -> DiskOffset {
        match self.slices() {
            Some(table) => table.name(file).disk + offset.0,
            None => offset,
        }
    }

    /// Where `length` bytes at `begin` of a piece lie, in the order of the torrent.
    pub(super) fn ranges(
        &self,
        piece: PieceIndex,
        begin: u32,
        length: u32,
    ) -> impl Iterator<Item = Place> + '_ {
        let first_byte = self.layout.piece_start(piece) + u64::from(begin);
        let mut offset = 0;
        std::iter::from_fn(move || {
            if offset == length {
                return None;
            }
            let (file, disk, count) = self.place(first_byte + u64::from(offset));
            let place = Place {
                offset,
                file,
                disk,
                length: u32::try_from(count)
                    .unwrap_or(u32::MAX)
                    .min(length - offset),
            };
            offset += place.length;
            Some(place)
        })
    }

    /// Number of the slice that has a byte of the torrent, the offset there or on the device, and
    /// how many bytes are there from it on.
    fn place(&self, byte: u64) -> (u32, DiskOffset, u64) {
        if let Held::Image(data) = &self.held {
            let (disk, count) = data.place(byte);
            return (0, disk, count);
        }
        let (disk, count) = self.extents.place(byte);
        let Some(table) = self.slices() else {
            return (0, disk, count);
        };
        let (file, end) = table.find(disk);
        let offset = DiskOffset(disk - table.name(file).disk);
        (file, offset, count.min(end - disk))
    }
}
