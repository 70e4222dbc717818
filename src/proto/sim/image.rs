//! Which image do the simulated machines share, and what ought to stand where?
//!
//! No payload moves. The bytes of one block are one [`Cell`], and whether a piece is good is counted cell by cell. The
//! arithmetic is done here once more and in the plainest way, so that the simulator does not believe `Layout`.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::num::NonZeroU32;

use crate::limits::BLOCK_BYTES;
use crate::metainfo::{self, Content, Description, Metainfo};
use crate::units::{PieceHash, PieceIndex};

/// What a place for one block holds: which block of the image, or nothing that anybody wants.
pub type Cell = Option<NonZeroU32>;

#[derive(Clone)]
pub struct Image {
    pub metainfo: Arc<Metainfo>,
    pub piece_count: u32,
    pub piece_bytes: u32,
    pub bytes: u64,
}

pub const TRACKER: &str = "http://10.77.0.1:6969/announce";

impl Image {
    pub fn new(piece_count: u32, piece_bytes: u32, last_piece_bytes: u32, tracker: bool) -> Image {
        assert!(last_piece_bytes >= 1 && last_piece_bytes <= piece_bytes);
        let bytes = u64::from(piece_count - 1) * u64::from(piece_bytes) + u64::from(last_piece_bytes);
        let hashes: Vec<PieceHash> = (0..piece_count).map(|index| hash(PieceIndex(index), true)).collect();
        let trackers: Vec<String> = tracker.then(|| TRACKER.into()).into_iter().collect();
        let torrent = metainfo::write(&Description {
            name: "simulated",
            trackers: &trackers,
            webseeds: &[],
            created_by: "sim",
            private: false,
            piece_bytes,
            hashes: &hashes,
            content: Content::Single { length: bytes },
            disk_bytes: None,
            sector_bytes: None,
        });
        let metainfo = Metainfo::parse(&torrent).expect("the simulated torrent is a good one");
        Image { metainfo: Arc::new(metainfo), piece_count, piece_bytes, bytes }
    }

    pub fn piece_length(&self, piece: PieceIndex) -> u32 {
        let start = u64::from(piece.0) * u64::from(self.piece_bytes);
        (self.bytes - start).min(u64::from(self.piece_bytes)) as u32
    }

    fn cells_per_piece(&self) -> u32 {
        self.piece_bytes.div_ceil(BLOCK_BYTES)
    }

    pub fn cell_count(&self) -> usize {
        self.piece_count as usize * self.cells_per_piece() as usize
    }

    /// Where the block at `begin` has its place on a disk.
    pub fn place(&self, piece: PieceIndex, begin: u32) -> usize {
        assert!(begin.is_multiple_of(BLOCK_BYTES));
        assert!(begin < self.piece_length(piece));
        (piece.0 * self.cells_per_piece() + begin / BLOCK_BYTES) as usize
    }

    /// The places of `length` bytes at `begin`.
    pub fn places(&self, piece: PieceIndex, begin: u32, length: u32) -> core::ops::Range<usize> {
        let first = self.place(piece, begin);
        first..first + length.div_ceil(BLOCK_BYTES) as usize
    }

    /// What ought to stand there.
    pub fn content(&self, place: usize) -> Cell {
        NonZeroU32::new(place as u32 + 1)
    }
}

/// The digest the hash unit gives for a piece: the one in the torrent, or some other.
pub fn hash(piece: PieceIndex, good: bool) -> PieceHash {
    let mut bytes = [if good { 0x60 } else { 0xbd }; 20];
    bytes[..4].copy_from_slice(&piece.0.to_be_bytes());
    PieceHash(bytes)
}
