//! Where on the device do the bytes of a piece lie?
//!
//! Everything in this folder asks [`Places`] and nothing else. The answer comes from a list of
//! extents on one device, which is how a raw disk or image file is described. A source that keeps
//! its bytes elsewhere (slices: a file for each run) or computes where they are (from the bitmap of
//! a partclone image) differs from that in this answer alone.

use std::sync::Arc;

use swarm_proto::format::extents::{Extent, ExtentMap};
use swarm_proto::format::layout::Layout;
use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::format::slices::SliceTable;
use swarm_proto::units::{DiskOffset, PieceIndex};

/// The pieces of one torrent and where they lie.
///
/// Invariant: the extents hold exactly the bytes of the layout.
#[derive(Clone)]
pub struct Places {
    layout: Layout,
    extents: Arc<ExtentMap>,
    /// `None`: the device has each byte where the disk has it.
    slices: Option<Arc<SliceTable>>,
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
            slices: None,
        }
    }

    pub fn of(metainfo: &Metainfo) -> Places {
        Places::new(metainfo.layout, metainfo.extents.clone())
    }

    /// The same pieces, each byte in the slice that has it.
    pub fn in_slices(self, table: SliceTable) -> Places {
        Places {
            slices: Some(Arc::new(table)),
            ..self
        }
    }

    pub(super) fn slices(&self) -> Option<&Arc<SliceTable>> {
        self.slices.as_ref()
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How many bytes the device must have.
    pub(super) fn needed_bytes(&self) -> u64 {
        self.extents.disk_end().0
    }

    /// Where a piece begins on the disk; it may go on elsewhere.
    pub fn start(&self, piece: PieceIndex) -> DiskOffset {
        let first = self.ranges(piece, 0, 1).next();
        let first = first.expect("every piece has a first byte");
        self.on_disk(first.file, first.disk)
    }

    /// Where the disk has the byte at this offset of the device or of a slice.
    pub(super) fn on_disk(&self, file: u32, offset: DiskOffset) -> DiskOffset {
        match &self.slices {
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
        let in_piece = |bytes: u64| u32::try_from(bytes).expect("a part of one piece");
        let mut extents = self.extents.ranges(first_byte, length.into());
        let mut rest = None;
        std::iter::from_fn(move || {
            let extent = rest.take().or_else(|| extents.next())?;
            let (file, disk, length) = self.locate(&extent);
            if length < extent.length {
                rest = Some(Extent {
                    torrent_offset: extent.torrent_offset + length,
                    disk: extent.disk + length,
                    length: extent.length - length,
                });
            }
            Some(Place {
                offset: in_piece(extent.torrent_offset - first_byte),
                file,
                disk,
                length: in_piece(length),
            })
        })
    }

    /// Number of the slice that has the first byte of these, the offset in it, and how many of them
    /// it has.
    fn locate(&self, extent: &Extent) -> (u32, DiskOffset, u64) {
        let Some(table) = &self.slices else {
            return (0, extent.disk, extent.length);
        };
        let (file, end) = table.find(extent.disk);
        let offset = extent.disk - table.name(file).disk;
        (
            file,
            DiskOffset(offset),
            extent.length.min(end - extent.disk),
        )
    }
}
