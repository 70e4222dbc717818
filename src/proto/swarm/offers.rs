//! Which piece does a seed offer to which peer?
//!
//! A seed suggests its pieces (BEP 6) like cards that are handed out: each to one peer before any
//! to a second. So the image leaves the seed about once, and the peers pass it on.

use alloc::vec::Vec;

use crate::bitfield::Bitfield;
use crate::policy::ranking::Ranking;
use crate::rng::Rng;
use crate::units::PieceIndex;

#[derive(Debug)]
pub(super) struct Offers {
    /// How often each piece was offered, or asked for without an offer. Pieces that an empty target
    /// need not fetch are not ranked.
    sent: Ranking,
    /// The search for the next piece begins here.
    next: PieceIndex,
}

impl Offers {
    /// `derivable`: pieces that an empty target need not fetch.
    pub(super) fn new(derivable: &Bitfield, rng: &mut Rng) -> Offers {
        let mut sent = Ranking::new(derivable.len(), rng);
        derivable.present().for_each(|piece| sent.remove(piece));
        Offers {
            sent,
            // Two seeds must not offer the same pieces at the same time.
            next: PieceIndex(rng.below(derivable.len())),
        }
    }

    /// A piece that we have, the peer lacks, and no peer has been sent; None if there is none.
    ///
    /// In the order of the disk: what all peers write at the same time then lies together, and
    /// heads move less.
    #[must_use]
    pub(super) fn next_for(
        &mut self,
        have: &Bitfield,
        peer_has: &Bitfield,
        rng: &mut Rng,
    ) -> Option<PieceIndex> {
        let is_new =
            |piece: &PieceIndex| self.sent.is_ranked(*piece) && self.sent.count(*piece) == 0;
        let useful =
            |piece: &PieceIndex| is_new(piece) && have.get(*piece) && !peer_has.get(*piece);
        // Mostly there is none, and then it is soon found out.
        let mut unsent = self.sent.iter().take_while(&is_new);
        unsent.find(&useful)?;
        drop(unsent);
        let (next, count) = (self.next.0, have.len());
        let mut order = (next..count).chain(0..next).map(PieceIndex);
        let piece = order.find(useful)?;
        self.next = PieceIndex((piece.0 + 1) % count);
        self.sent.increment(piece, rng);
        Some(piece)
    }

    /// These were offered to a peer that has not asked for them; other peers may get them first.
    pub(super) fn take_back(&mut self, offered: Vec<PieceIndex>, rng: &mut Rng) {
        for piece in offered {
            self.sent.decrement(piece, rng);
        }
    }

    /// A peer asks for a piece that was not offered to it.
    pub(super) fn note_request(&mut self, piece: PieceIndex, rng: &mut Rng) {
        // A peer may ask for the same block for ever; the count stops at what it can hold.
        if self.sent.count(piece) < u16::MAX {
            self.sent.increment(piece, rng);
        }
    }

    pub(super) fn check_invariants(&self) {
        self.sent.check_invariants();
    }
}
