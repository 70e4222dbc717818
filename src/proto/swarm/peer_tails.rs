//! Which tails does a peer have, and of which of ours was it told?

use crate::limits::TAILS_MAX;
use crate::units::PieceIndex;
use crate::vec_map::VecMap;

/// What a peer and we have told each other of tails.
#[derive(Debug, Default)]
pub(super) struct PeerTails {
    /// The id of the message that tells them of a tail.
    pub(super) id: Option<u8>,
    /// From which byte on they have pieces that we want and they do not have whole.
    theirs: VecMap<PieceIndex, u32>,
    /// From which byte on they know of our tails, or of a seed's marks.
    pub(super) told: VecMap<PieceIndex, u32>,
    /// With which `Picker::tails_version` they knew all.
    pub(super) told_version: u64,
}

impl PeerTails {
    pub(super) fn theirs(&self) -> &VecMap<PieceIndex, u32> {
        &self.theirs
    }

    pub(super) fn is_empty(&self) -> bool {
        self.theirs.is_empty()
    }

    pub(super) fn contains(&self, piece: PieceIndex) -> bool {
        self.theirs.contains_key(&piece)
    }

    /// False if it is one too many.
    pub(super) fn insert(&mut self, piece: PieceIndex, begin: u32) -> bool {
        let has_room = self.contains(piece) || self.theirs.len() < TAILS_MAX;
        if has_room {
            self.theirs.insert(piece, begin);
        }
        has_room
    }

    /// They have no tail of this piece, or we need it no more. False if they had none.
    pub(super) fn remove(&mut self, piece: PieceIndex) -> bool {
        self.theirs.remove(&piece).is_some()
    }

    pub(super) fn forget_theirs(&mut self) {
        self.theirs = VecMap::new();
    }

    /// They have the whole piece.
    pub(super) fn gains_piece(&mut self, piece: PieceIndex) {
        self.theirs.remove(&piece);
        self.told.remove(&piece);
    }
}
