//! Is what was written really on the disk?
//!
//! A piece that was written is *unverified* until it has been read back and its hash is right. A
//! piece that is bad once may have been lost in the cache of the disk, so it is fetched again. A
//! piece that is bad twice means that the disk is broken. A seeder begins with every piece
//! unverified if it is to hash each piece before its first upload.

use crate::bitfield::Bitfield;
use crate::units::PieceIndex;

/// Invariant: an unverified piece is on the disk.
#[derive(Debug)]
pub(super) struct ReadBack {
    unverified: Bitfield,
    /// Pieces that were bad once and were fetched again.
    retried: Bitfield,
    /// Pieces that were bad twice: the first, and how many.
    failed: Option<(PieceIndex, u32)>,
}

/// What to do about a piece that is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    FetchAgain,
    GiveUp,
}

impl ReadBack {
    pub(super) fn new(unverified: Bitfield) -> ReadBack {
        ReadBack {
            retried: Bitfield::new(unverified.len()),
            unverified,
            failed: None,
        }
    }

    pub(super) fn is_unproven(&self, piece: PieceIndex) -> bool {
        self.unverified.get(piece)
    }

    pub(super) fn unverified(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.unverified.present()
    }

    pub(super) fn unproven_count(&self) -> u32 {
        self.unverified.count()
    }

    pub(super) fn note_written(&mut self, piece: PieceIndex) {
        self.unverified.set(piece);
    }

    /// The piece was read and is good.
    pub(super) fn note_proven(&mut self, piece: PieceIndex) {
        self.unverified.clear(piece);
    }

    /// The piece is not on the disk any more.
    pub(super) fn note_lost(&mut self, piece: PieceIndex) {
        self.unverified.clear(piece);
    }

    /// The piece was read back and is bad.
    #[must_use]
    pub(super) fn note_bad(&mut self, piece: PieceIndex) -> Remedy {
        if self.retried.set(piece) {
            return Remedy::FetchAgain;
        }
        let (_, count) = self.failed.get_or_insert((piece, 0));
        *count += 1;
        Remedy::GiveUp
    }

    /// The first piece that was bad twice, and the number of these pieces.
    pub(super) fn failed(&self) -> Option<(PieceIndex, u32)> {
        self.failed
    }

    pub(super) fn check_invariants(&self, have: &Bitfield) {
        for piece in self.unverified.present() {
            assert!(
                have.get(piece),
                "piece {} is unverified and not there",
                piece.0
            );
        }
        if let Some((piece, count)) = self.failed {
            assert!(self.retried.get(piece));
            assert!((1..=self.retried.count()).contains(&count));
        }
    }
}
