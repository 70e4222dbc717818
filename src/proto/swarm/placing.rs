//! Which missing pieces get onto the disk without being fetched, and which are being written?
//!
//! Pieces of zeros are made by the disk itself. Pieces with the same bytes are fetched once and
//! copied to their other places from the buffers of the open piece. Both wait here and are given to
//! the disk a few at a time: a disk may be full of one byte, and the list of its writes would need
//! more memory than the pool.

use alloc::collections::VecDeque;

use crate::bitfield::Bitfield;
use crate::limits::{COPY_WRITES_MAX, ZERO_WRITES_MAX};
use crate::units::PieceIndex;

#[derive(Debug)]
pub(super) struct Placing {
    /// Pieces of zeros that are to be made.
    zeros: VecDeque<PieceIndex>,
    /// Copies that are to be written.
    copies: VecDeque<Copy>,
    /// Pieces that are being written, or wait in `copies`.
    coming: Bitfield,
    /// How many zeros and copies the disk is writing now.
    zeroing: usize,
    copying: usize,
}

/// `place` gets the bytes of the open piece `from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) place: PieceIndex,
    pub(super) from: PieceIndex,
}

impl Placing {
    pub(super) fn new(piece_count: u32) -> Placing {
        Placing {
            zeros: VecDeque::new(),
            copies: VecDeque::new(),
            coming: Bitfield::new(piece_count),
            zeroing: 0,
            copying: 0,
        }
    }

    pub(super) fn is_coming(&self, piece: PieceIndex) -> bool {
        self.coming.get(piece)
    }

    pub(super) fn add_zeros(&mut self, piece: PieceIndex) {
        self.zeros.push_back(piece);
    }

    pub(super) fn add_copy(&mut self, place: PieceIndex, from: PieceIndex) {
        assert_ne!(
            place, from,
            "a fetched piece is written first and is no copy"
        );
        self.coming.set(place);
        self.copies.push_back(Copy { place, from });
    }

    /// The next piece that the disk is to make of zeros, if it has room. Its write begins now.
    #[must_use]
    pub(super) fn start_zeros(&mut self) -> Option<PieceIndex> {
        if self.zeroing >= ZERO_WRITES_MAX {
            return None;
        }
        let piece = self.zeros.pop_front()?;
        self.coming.set(piece);
        self.zeroing += 1;
        Some(piece)
    }

    /// The next copy that the disk is to write, if it has room. Its write begins now.
    #[must_use]
    pub(super) fn start_copy(&mut self) -> Option<Copy> {
        if self.copying >= COPY_WRITES_MAX {
            return None;
        }
        let copy = self.copies.pop_front()?;
        self.copying += 1;
        Some(copy)
    }

    /// The write of a fetched piece to its own place begins now.
    pub(super) fn start_fetched(&mut self, piece: PieceIndex) {
        self.coming.set(piece);
    }

    /// The write is over. `from` is the open piece that it came from; None for zeros.
    pub(super) fn end(&mut self, piece: PieceIndex, from: Option<PieceIndex>) {
        assert!(self.coming.clear(piece), "only what was begun ends");
        match from {
            None => self.zeroing -= 1,
            Some(from) if from != piece => self.copying -= 1,
            Some(_) => {}
        }
    }

    /// Adds 1 for each way in which a piece gets onto the disk without being fetched, for recounts.
    pub(super) fn count_ways(&self, ways: &mut [u32]) {
        for piece in self.zeros.iter().copied().chain(self.coming.present()) {
            ways[piece.index()] += 1;
        }
    }

    pub(super) fn check_invariants(&self) {
        assert!(self.zeroing <= ZERO_WRITES_MAX);
        assert!(self.copying <= COPY_WRITES_MAX);
        assert!(self.copies.iter().all(|copy| self.coming.get(copy.place)));
        assert!(self.zeros.iter().all(|piece| !self.coming.get(*piece)));
        let writing = self.copies.len() + self.copying + self.zeroing;
        assert!(writing <= self.coming.count() as usize);
    }
}
