//! Is what was written really on the disk, and when is it read back?
//!
//! A piece that was written is *unverified* until it has been read back and its hash is right. A
//! piece that is bad once may have been lost in the cache of the disk, so it is fetched again. A
//! piece that is bad twice means that the disk is broken. A seeder begins with every piece
//! unverified if it is to hash each piece before its first upload.
//!
//! A read-back soon after the write would ask the cache of the disk and not the medium. A piece is
//! *ripe* when a flush has come after its write, and after that other pieces of at least
//! READ_BACK_DISTANCE together. Pieces get ripe in batches: each flush makes all of them older by
//! one step, which is half of the distance. Ripe pieces are read in the order of the disk, while
//! the download goes on. The pieces that are young when the download ends are read then.
//!
//! ```text
//! written ──> young[0] ──flush──> young[1] ──flush──> young[2] ──flush──> ripe ──read──> verified
//! ```

use crate::bitfield::Bitfield;
use crate::units::PieceIndex;

/// Invariants: an unverified piece is on the disk; a young piece is unverified, and in one batch.
#[derive(Debug)]
pub(super) struct ReadBack {
    unverified: Bitfield,
    /// Batches of pieces that are not ripe yet: written after the last flush, before it, and before
    /// the one before that.
    young: [Bitfield; 3],
    /// Bytes to write before the next flush; None if nothing is read back before the end.
    step_bytes: Option<u64>,
    /// Bytes written since the last flush began.
    fresh_bytes: u64,
    is_flushing: bool,
    /// Ripe pieces from this one on are read first.
    cursor: PieceIndex,
    /// How many pieces were read back and are good.
    proven: u32,
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
    /// With a `distance` in bytes, pieces get ripe before the end.
    pub(super) fn new(unverified: Bitfield, distance: Option<u64>) -> ReadBack {
        let none = Bitfield::new(unverified.len());
        ReadBack {
            young: [none.clone(), none.clone(), none.clone()],
            step_bytes: distance.map(|bytes| bytes.div_ceil(2)),
            fresh_bytes: 0,
            is_flushing: false,
            cursor: PieceIndex(0),
            proven: 0,
            retried: none,
            unverified,
            failed: None,
        }
    }

    pub(super) fn is_unproven(&self, piece: PieceIndex) -> bool {
        self.unverified.get(piece)
    }

    pub(super) fn unproven_count(&self) -> u32 {
        self.unverified.count()
    }

    /// `bytes`: how much of the cache of the disk the write takes.
    pub(super) fn note_written(&mut self, piece: PieceIndex, bytes: u32) {
        self.unverified.set(piece);
        self.young[0].set(piece);
        self.fresh_bytes += u64::from(bytes);
    }

    // ---- from written to ripe

    /// Enough was written since the last flush.
    pub(super) fn wants_flush(&self) -> bool {
        let is_due = self.step_bytes.is_some_and(|step| self.fresh_bytes >= step);
        is_due && !self.is_flushing && self.young_count() > 0
    }

    /// A flush begins, and every write that was noted is done.
    pub(super) fn begin_flush(&mut self) {
        assert!(!self.is_flushing, "what gets ripe was flushed");
        (self.is_flushing, self.fresh_bytes) = (true, 0);
        self.young.rotate_right(1);
        self.young[0] = Bitfield::new(self.unverified.len());
    }

    pub(super) fn note_flushed(&mut self) {
        self.is_flushing = false;
    }

    /// The download is over, and a flush has come after the last write. Everything that is left is
    /// read from the first piece on.
    pub(super) fn ripen_all(&mut self) {
        for batch in &mut self.young {
            *batch = Bitfield::new(self.unverified.len());
        }
        self.cursor = PieceIndex(0);
    }

    /// Pieces that were read back and are good, and all that have to be.
    pub(super) fn progress(&self) -> (u32, u32) {
        (self.proven, self.proven + self.unverified.count())
    }

    // ---- from ripe to verified

    fn young_count(&self) -> u32 {
        self.young.iter().map(Bitfield::count).sum()
    }

    pub(super) fn ripe_count(&self) -> u32 {
        self.unverified.count() - self.young_count()
    }

    /// The next ripe piece, in the order of the disk, except for those that are being read.
    #[must_use]
    pub(super) fn next_ripe(
        &mut self,
        is_being_read: impl Fn(PieceIndex) -> bool,
    ) -> Option<PieceIndex> {
        let (from, end) = (self.cursor.0, self.unverified.len());
        let is_ripe = |piece: &PieceIndex| {
            let is_young = || self.young.iter().any(|batch| batch.get(*piece));
            self.unverified.get(*piece) && !is_young() && !is_being_read(*piece)
        };
        let mut in_turn = (from..end).chain(0..from).map(PieceIndex);
        let piece = in_turn.find(is_ripe)?;
        self.cursor = PieceIndex(piece.0 + 1);
        Some(piece)
    }

    /// The piece was read and is good.
    pub(super) fn note_proven(&mut self, piece: PieceIndex) {
        self.unverified.clear(piece);
        self.proven += 1;
    }

    /// The piece is not on the disk any more.
    pub(super) fn note_lost(&mut self, piece: PieceIndex) {
        self.unverified.clear(piece);
        for batch in &mut self.young {
            batch.clear(piece);
        }
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
        for (index, batch) in self.young.iter().enumerate() {
            for piece in batch.present() {
                assert!(self.unverified.get(piece));
                let others = &self.young[index + 1..];
                assert!(others.iter().all(|other| !other.get(piece)));
            }
        }
        if let Some((piece, count)) = self.failed {
            assert!(self.retried.get(piece));
            assert!((1..=self.retried.count()).contains(&count));
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::rng::Rng;

    const PIECE: u32 = 10;

    /// What is known of a written piece: bytes written before the write ended, and flushes begun.
    struct Written {
        piece: PieceIndex,
        bytes: u64,
        flushes: u32,
    }

    /// A naive twin remembers every write and every flush. A ripe piece was flushed after its
    /// write, and `distance` bytes came later. Where flushes are never late, the pieces that are
    /// not ripe have no more than one and a half distances.
    #[test]
    fn a_ripe_piece_was_flushed_and_is_far() {
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let (count, distance) = (1 + rng.below(200), u64::from(rng.below(300)));
            let late_one_in = [1, 2, 9][rng.below(3) as usize];
            let mut read_back = ReadBack::new(Bitfield::new(count), Some(distance));
            let mut have = Bitfield::new(count);
            let mut missing: Vec<PieceIndex> = (0..count).map(PieceIndex).collect();
            rng.shuffle(&mut missing);
            let mut unread: Vec<Written> = Vec::new();
            let (mut bytes, mut begun, mut done, mut verified) = (0, 0, 0, 0);
            while let Some(piece) = missing.pop() {
                bytes += u64::from(PIECE);
                have.set(piece);
                read_back.note_written(piece, PIECE);
                unread.push(Written {
                    piece,
                    bytes,
                    flushes: begun,
                });
                if read_back.wants_flush() && rng.chance(1, late_one_in) {
                    read_back.begin_flush();
                    begun += 1;
                }
                if done < begun && rng.chance(1, late_one_in) {
                    read_back.note_flushed();
                    done += 1;
                }
                read_back.check_invariants(&have);
                while rng.chance(2, 3)
                    && let Some(ripe) = read_back.next_ripe(|_| false)
                {
                    let at = unread.iter().position(|written| written.piece == ripe);
                    let written = unread.swap_remove(at.expect("it was not read yet"));
                    assert!(
                        written.flushes < done,
                        "seed {seed}: {ripe:?} is not flushed"
                    );
                    assert!(
                        written.bytes + distance <= bytes,
                        "seed {seed}: {ripe:?} is near"
                    );
                    // One in ten is bad, and comes once more.
                    if rng.chance(1, 10) && read_back.note_bad(ripe) == Remedy::FetchAgain {
                        read_back.note_lost(ripe);
                        have.clear(ripe);
                        missing.push(ripe);
                    } else {
                        read_back.note_proven(ripe);
                        verified += 1;
                    }
                }
                if late_one_in == 1 {
                    let young = u64::from(read_back.young_count() * PIECE);
                    let most = distance.div_ceil(2) * 3 + 4 * u64::from(PIECE);
                    assert!(young <= most, "seed {seed}: {young} bytes are young");
                }
            }
            assert_eq!(read_back.unproven_count() as usize, unread.len());
            assert!(verified > 0 || u64::from(count * PIECE) < 3 * distance + 1000);
            read_back.ripen_all();
            assert_eq!(read_back.ripe_count() as usize, unread.len());
        }
    }

    #[test]
    fn without_a_distance_nothing_is_ripe_before_the_end() {
        let mut read_back = ReadBack::new(Bitfield::new(2), None);
        read_back.note_written(PieceIndex(1), u32::MAX);
        assert!(!read_back.wants_flush());
        assert_eq!(read_back.next_ripe(|_| false), None);
        read_back.ripen_all();
        assert_eq!(read_back.next_ripe(|piece| piece == PieceIndex(1)), None);
        assert_eq!(read_back.next_ripe(|_| false), Some(PieceIndex(1)));
    }
}
