//! What is a peer to be told about our pieces, and what has it been told already?
//!
//! There is one log for all peers, and each peer has a reader that goes through it at its own pace.
//! So a peer that does not read costs no memory, and each hears of the pieces in the same order.
//! The log names pieces only. Whether a piece was got or lost is asked when it is told, and so a
//! late reader never hears what is no longer true.

use alloc::vec::Vec;

use crate::bitfield::Bitfield;
use crate::units::PieceIndex;

/// Pieces in the order in which they got onto the disk, or were lost again.
#[derive(Debug, Default)]
pub(super) struct Changes {
    log: Vec<PieceIndex>,
}

/// How much of the log one peer has been told. The bitfield that it was sent stands for the part
/// before `from`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reader {
    from: usize,
    told: usize,
}

impl Changes {
    pub(super) fn push(&mut self, piece: PieceIndex) {
        self.log.push(piece);
    }

    /// A reader for a peer that is sent our bitfield now.
    pub(super) fn reader(&self) -> Reader {
        Reader {
            from: self.log.len(),
            told: self.log.len(),
        }
    }

    /// The next piece that the peer has to be told of.
    #[must_use]
    pub(super) fn next(&self, reader: &mut Reader) -> Option<PieceIndex> {
        let piece = *self.log.get(reader.told)?;
        reader.told += 1;
        Some(piece)
    }

    /// The peer could not be told of losses before, and now it can: it is told again from the first
    /// loss since its bitfield.
    pub(super) fn repeat_losses(&self, reader: &mut Reader, have: &Bitfield) {
        let lost = |place: &usize| !have.get(self.log[*place]);
        if let Some(place) = (reader.from..reader.told).find(lost) {
            reader.told = place;
        }
    }

    pub(super) fn check_invariants(&self, reader: &Reader) {
        assert!(reader.from <= reader.told);
        assert!(reader.told <= self.log.len());
    }
}
