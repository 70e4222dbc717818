//! What does the target hold already?
//!
//! At the start every piece of a leecher is *unknown*. A sample is read first: if no piece of it is
//! good, the target is taken to hold nothing, and the rest is not read. A piece that the scan
//! cannot read counts as missing, because writing repairs many sectors that a power cut has torn; a
//! disk that is gone fails at the first write.

use alloc::vec::Vec;

use crate::bitfield::Bitfield;
use crate::limits::UNREAD_TOLD_MAX;
use crate::units::PieceIndex;

/// Invariant: an unknown piece is neither on the disk nor wanted from peers.
#[derive(Debug)]
pub(super) struct Scan {
    unknown: Bitfield,
    stage: Stage,
    /// Pieces being hashed of which a part could not be read: a few, as many as are read ahead.
    unreadable: Vec<PieceIndex>,
    /// How many pieces could not be read in all.
    unreadable_count: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Sample { any_good: bool },
    Rest,
}

impl Scan {
    pub(super) fn new(unknown: Bitfield) -> Scan {
        Scan {
            unknown,
            stage: Stage::Sample { any_good: false },
            unreadable: Vec::new(),
            unreadable_count: 0,
        }
    }

    pub(super) fn is_unknown(&self, piece: PieceIndex) -> bool {
        self.unknown.get(piece)
    }

    pub(super) fn is_over(&self) -> bool {
        self.unknown.is_empty()
    }

    /// The piece is known from now on, one way or the other.
    pub(super) fn resolve(&mut self, piece: PieceIndex) {
        self.unknown.clear(piece);
    }

    /// A piece that was read is good.
    pub(super) fn note_good(&mut self) {
        if let Stage::Sample { any_good } = &mut self.stage {
            *any_good = true;
        }
    }

    /// The pieces to read after the sample; None if there is no reason to read more.
    #[must_use]
    pub(super) fn rest_to_read(&mut self) -> Option<Bitfield> {
        if self.stage != (Stage::Sample { any_good: true }) {
            return None;
        }
        self.stage = Stage::Rest;
        Some(self.unknown())
    }

    /// The pieces that are still unknown: a copy, since the caller makes them known one by one.
    pub(super) fn unknown(&self) -> Bitfield {
        self.unknown.clone()
    }

    /// A part of the piece could not be read. True if that is worth an event: not for every sector
    /// of a broken disk.
    pub(super) fn note_unreadable(&mut self, piece: PieceIndex) -> bool {
        if self.unreadable.contains(&piece) {
            return false;
        }
        self.unreadable.push(piece);
        self.unreadable_count += 1;
        self.unreadable_count <= UNREAD_TOLD_MAX
    }

    /// Whether a hashed piece is good: not if a part of it could not be read, because the buffer
    /// may have held the same bytes before.
    pub(super) fn verdict(&mut self, piece: PieceIndex, hash_matches: bool) -> bool {
        let before = self.unreadable.len();
        self.unreadable.retain(|unreadable| *unreadable != piece);
        hash_matches && before == self.unreadable.len()
    }

    pub(super) fn check_invariants(&self, have: &Bitfield, wanted: &Bitfield) {
        for piece in self.unknown.present() {
            assert!(!have.get(piece), "piece {} is unknown and there", piece.0);
            assert!(
                !wanted.get(piece),
                "piece {} is unknown and wanted",
                piece.0
            );
        }
        assert!(self.unreadable.len() <= self.unreadable_count as usize);
    }
}
