//! Which image do the simulated machines share, and which block belongs where?
//!
//! No payload moves. One [`Cell`] stands for the bytes of one block, and a piece is good if all its
//! cells are. The arithmetic of `Layout` is repeated here in the plainest way, so that an error in
//! `Layout` is found.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::num::NonZeroU32;
use core::ops::Range;

use crate::format::metainfo::Metainfo;
use crate::format::metainfo_write::{self, Content, Description};
use crate::limits::BLOCK_BYTES;
use crate::units::{Block, Mark, PieceHash, PieceIndex};

/// What a place for one block holds: a block of the image by its number, zeros, or garbage
/// (`None`).
pub type Cell = Option<NonZeroU32>;

pub const ZEROS: Cell = Some(NonZeroU32::MAX);

/// The bytes of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bytes {
    Zeros,
    /// Those of this piece, which is the piece itself or an earlier one.
    Of(u32),
}

/// The size and the contents of an image.
#[derive(Clone, Debug)]
pub struct Shape {
    pub piece_count: u32,
    pub piece_bytes: u32,
    pub last_piece_bytes: u32,
    pub pieces: Vec<Bytes>,
    /// To which parts of their bytes pieces are compressed, in percent.
    pub packed_percent: Range<u32>,
}

impl Shape {
    /// No two pieces are alike.
    pub fn of_distinct(piece_count: u32, piece_bytes: u32, last_piece_bytes: u32) -> Shape {
        let pieces = (0..piece_count).map(Bytes::Of).collect();
        Shape {
            piece_count,
            piece_bytes,
            last_piece_bytes,
            pieces,
            packed_percent: 100..101,
        }
    }
}

#[derive(Clone)]
pub struct Image {
    pub metainfo: Arc<Metainfo>,
    pub piece_count: u32,
    pub piece_bytes: u32,
    pub bytes: u64,
    pieces: Arc<Vec<Bytes>>,
    packed_percent: Range<u32>,
}

pub const TRACKER: &str = "http://10.77.0.1:6969/announce";

impl Image {
    pub fn new(shape: &Shape, tracker: bool) -> Image {
        let Shape {
            piece_count,
            piece_bytes,
            last_piece_bytes,
            ..
        } = *shape;
        assert!(last_piece_bytes >= 1 && last_piece_bytes <= piece_bytes);
        assert_eq!(shape.pieces.len(), piece_count as usize);
        let bytes =
            u64::from(piece_count - 1) * u64::from(piece_bytes) + u64::from(last_piece_bytes);
        let length = |index| {
            if index + 1 == piece_count {
                last_piece_bytes
            } else {
                piece_bytes
            }
        };
        let hashes: Vec<PieceHash> = (0..piece_count)
            .map(|index| good_hash(shape.pieces[index as usize], length(index)))
            .collect();
        let trackers: Vec<String> = tracker.then(|| TRACKER.into()).into_iter().collect();
        let torrent = metainfo_write::write(&Description {
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
            needed_bytes: None,
            table: None,
        });
        let metainfo = Arc::new(
            Metainfo::parse(&torrent).expect("the torrent that was just written is valid"),
        );
        Image {
            metainfo,
            piece_count,
            piece_bytes,
            bytes,
            pieces: Arc::new(shape.pieces.clone()),
            packed_percent: shape.packed_percent.clone(),
        }
    }

    pub fn all_pieces(&self) -> impl Iterator<Item = PieceIndex> + use<> {
        (0..self.piece_count).map(PieceIndex)
    }

    /// What a block is compressed to; None if it does not shrink.
    pub fn packed_bytes(&self, block: Block) -> Option<u32> {
        let Range { start, end } = self.packed_percent;
        // Pieces differ, in no particular order.
        let percent = start + block.piece.0.wrapping_mul(0x9e37_79b1) % (end - start);
        let bytes = block.length * percent / 100;
        (percent < 94)
            .then_some(bytes.max(1))
            .filter(|bytes| *bytes < block.length)
    }

    pub fn piece_length(&self, piece: PieceIndex) -> u32 {
        let start = u64::from(piece.0) * u64::from(self.piece_bytes);
        (self.bytes - start).min(u64::from(self.piece_bytes)) as u32
    }

    pub fn bytes_of(&self, piece: PieceIndex) -> Bytes {
        self.pieces[piece.index()]
    }

    pub fn is_zero(&self, piece: PieceIndex) -> bool {
        self.bytes_of(piece) == Bytes::Zeros
    }

    /// The first piece with the same bytes. Panics for zeros, which need no source.
    pub fn first_equal(&self, piece: PieceIndex) -> PieceIndex {
        match self.bytes_of(piece) {
            Bytes::Of(first) => PieceIndex(first),
            Bytes::Zeros => panic!("piece {} is zeros, and has no first equal piece", piece.0),
        }
    }

    fn cells_per_piece(&self) -> u32 {
        self.piece_bytes.div_ceil(BLOCK_BYTES)
    }

    pub fn cell_count(&self) -> usize {
        self.piece_count as usize * self.cells_per_piece() as usize
    }

    /// The place on a disk of the block at `begin`.
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

    pub fn places_of(&self, piece: PieceIndex) -> core::ops::Range<usize> {
        self.places(piece, 0, self.piece_length(piece))
    }

    /// The block that belongs there.
    pub fn content(&self, place: usize) -> Cell {
        let cells = self.cells_per_piece() as usize;
        match self.pieces[place / cells] {
            Bytes::Zeros => ZEROS,
            Bytes::Of(first) => {
                NonZeroU32::new((first as usize * cells + place % cells) as u32 + 1)
            }
        }
    }

    /// Whether a disk with these cells holds this piece.
    pub fn is_on(&self, cells: &[Cell], piece: PieceIndex) -> bool {
        self.places_of(piece)
            .all(|place| cells[place] == self.content(place))
    }

    /// Bytes to fetch if these pieces are there: without zeros, and equal pieces once.
    pub fn bytes_beyond(&self, there: &[bool]) -> u64 {
        let mut first: Vec<PieceIndex> = self.all_pieces().collect();
        first.retain(|piece| !there[piece.index()] && !self.is_zero(*piece));
        first
            .iter_mut()
            .for_each(|piece| *piece = self.first_equal(*piece));
        first.sort();
        first.dedup();
        first
            .into_iter()
            .map(|piece| u64::from(self.piece_length(piece)))
            .sum()
    }

    /// The state of the hash of a piece before this byte.
    pub fn mark(&self, piece: PieceIndex, begin: u32) -> Mark {
        let mut state = PieceHash([0x5a; 20]);
        let first = match self.bytes_of(piece) {
            Bytes::Zeros => u32::MAX,
            Bytes::Of(first) => first,
        };
        state.0[..4].copy_from_slice(&first.to_be_bytes());
        state.0[4..8].copy_from_slice(&begin.to_be_bytes());
        Mark { begin, state }
    }

    /// What a part of a piece leads to: another state, or at its end the hash of the piece.
    pub fn leads_to(&self, piece: PieceIndex, end: u32, good: bool) -> PieceHash {
        match good && end < self.piece_length(piece) {
            true => self.mark(piece, end).state,
            false => self.hash(piece, good),
        }
    }

    /// The hash unit's digest of a piece: the one in the torrent, or another one.
    pub fn hash(&self, piece: PieceIndex, good: bool) -> PieceHash {
        if good {
            return good_hash(self.bytes_of(piece), self.piece_length(piece));
        }
        let mut bytes = [0xbd; 20];
        bytes[..4].copy_from_slice(&piece.0.to_be_bytes());
        PieceHash(bytes)
    }
}

/// Zeros have their true hash, because the core computes it.
fn good_hash(of: Bytes, length: u32) -> PieceHash {
    let mut bytes = [0x60; 20];
    match of {
        Bytes::Zeros => {
            bytes = sha1_smol::Sha1::from(alloc::vec![0; length as usize])
                .digest()
                .bytes()
        }
        Bytes::Of(first) => bytes[..4].copy_from_slice(&first.to_be_bytes()),
    }
    PieceHash(bytes)
}
