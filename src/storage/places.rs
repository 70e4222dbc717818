//! Where on the device do the bytes of a piece lie?
//!
//! Everything in this folder asks [`Places`] and nothing else. The answer comes from a list of
//! extents on one device, which is how a raw disk or image file is described. A source that keeps
//! its bytes elsewhere (a file for each extent) or computes where they are (from the bitmap of a
//! partclone image) differs from that in this answer alone.

use std::sync::Arc;

use swarm_proto::format::extents::ExtentMap;
use swarm_proto::format::layout::Layout;
use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::units::{DiskOffset, PieceIndex};

/// The pieces of one torrent and where they lie.
///
/// Invariant: the extents hold exactly the bytes of the layout.
#[derive(Clone)]
pub struct Places {
    layout: Layout,
    extents: Arc<ExtentMap>,
}

/// A part of the bytes that were asked for, contiguous on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Counted from the first byte that was asked for.
    pub(super) offset: u32,
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
        Places { layout, extents }
    }

    pub fn of(metainfo: &Metainfo) -> Places {
        Places::new(metainfo.layout, metainfo.extents.clone())
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How many bytes the device must have.
    pub(super) fn needed_bytes(&self) -> u64 {
        self.extents.disk_end().0
    }

    /// Where a piece begins; it may go on elsewhere.
    pub fn start(&self, piece: PieceIndex) -> DiskOffset {
        let first = self.ranges(piece, 0, 1).next();
        first.expect("every piece has a first byte").disk
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
        let extents = self.extents.ranges(first_byte, length.into());
        extents.map(move |extent| Place {
            offset: in_piece(extent.torrent_offset - first_byte),
            disk: extent.disk,
            length: in_piece(extent.length),
        })
    }
}
