//! At which places inside a piece can its hash begin?
//!
//! SHA-1 goes through a piece in order, and what it keeps is a state of 20 bytes. A *mark* is such
//! a state before one byte of the piece. If a part of the piece leads from the mark at its start to
//! the mark at its end, and the last part to the hash in the torrent, the parts are good: to find
//! other bytes or another state that lead there is as hard as to find another piece of the same
//! hash. So a piece is checked from its end to its start, part by part, before the rest has come.
//!
//! ```text
//! piece    |  part 0   |  part 1   |  part 2   |
//! marks                1           2         hash in the torrent
//! checked                          <- third --   from mark 2, is it the hash?
//!                      <- second -               from mark 1, is it mark 2?
//! ```
//!
//! A mark itself proves nothing before the part behind it is checked. Those of a seed come from
//! its own hash; other peers pass them on.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;

use crate::limits::{MARKED_PIECES_MAX, MARKS_MAX};
use crate::units::{Mark, PieceHash, PieceIndex};

/// How far one piece is checked, from its end.
#[derive(Debug, Default)]
pub struct Tail {
    /// Where it begins, and what the part before it must lead to. None: nothing was checked.
    mark: Option<Mark>,
    /// The part from this mark to the tail is being hashed.
    part: Option<Mark>,
    /// The bytes of that part are gone: the piece has started anew.
    is_part_gone: bool,
}

impl Tail {
    pub fn begin(&self) -> Option<u32> {
        self.mark.map(|mark| mark.begin)
    }

    pub fn is_growing(&self) -> bool {
        self.part.is_some()
    }

    /// The part from this mark to the tail is being hashed.
    pub fn start_part(&mut self, mark: Mark) {
        assert!(self.part.is_none(), "one part at a time");
        self.part = Some(mark);
    }

    /// What that part leads to. `whole`: the hash of the piece. True if the tail is longer now.
    pub fn judge_part(&mut self, leads_to: PieceHash, whole: PieceHash) -> bool {
        let expected = self.mark.map_or(whole, |mark| mark.state);
        let is_gone = core::mem::take(&mut self.is_part_gone);
        let is_good = |_: &Mark| leads_to == expected && !is_gone;
        let part = self.part.take().filter(is_good);
        self.mark = part.or(self.mark);
        part.is_some()
    }

    /// What is before the tail comes once more.
    pub fn starts_anew(&mut self) {
        self.is_part_gone = self.part.is_some();
    }
}

/// Invariants: at most MARKED_PIECES_MAX pieces, each once, with at most MARKS_MAX marks, which
/// begin at falling places.
#[derive(Debug, Default)]
pub struct Marks {
    pieces: VecDeque<(PieceIndex, Vec<Mark>)>,
}

impl Marks {
    /// The first mark at a place stays, unless a `better` one comes. The piece that was marked
    /// first makes room.
    pub fn add(&mut self, piece: PieceIndex, mark: Mark, better: bool) {
        let place = self.pieces.iter().position(|(marked, _)| *marked == piece);
        let place = place.unwrap_or_else(|| {
            if self.pieces.len() >= MARKED_PIECES_MAX {
                self.pieces.pop_front();
            }
            self.pieces.push_back((piece, Vec::new()));
            self.pieces.len() - 1
        });
        let marks = &mut self.pieces[place].1;
        let at = marks.partition_point(|other| other.begin > mark.begin);
        let is_there = marks.get(at).is_some_and(|other| other.begin == mark.begin);
        if is_there && better {
            marks[at] = mark;
        } else if !is_there && marks.len() < MARKS_MAX {
            marks.insert(at, mark);
        }
    }

    /// From the end of the piece to its start.
    pub fn of(&self, piece: PieceIndex) -> &[Mark] {
        let all = self.pieces.iter();
        let mut marks = all.filter(|(marked, _)| *marked == piece);
        marks.next().map_or(&[], |(_, marks)| marks)
    }

    /// The marks at these places may be wrong.
    pub fn doubt(&mut self, piece: PieceIndex, places: Range<u32>) {
        for (marked, marks) in &mut self.pieces {
            if *marked == piece {
                marks.retain(|mark| !places.contains(&mark.begin));
            }
        }
    }

    pub fn forget(&mut self, piece: PieceIndex) {
        self.pieces.retain(|(marked, _)| *marked != piece);
    }

    pub fn check_invariants(&self) {
        assert!(self.pieces.len() <= MARKED_PIECES_MAX);
        for (place, (piece, marks)) in self.pieces.iter().enumerate() {
            let mut later = self.pieces.iter().skip(place + 1);
            assert!(later.all(|(other, _)| other != piece));
            assert!(marks.len() <= MARKS_MAX);
            assert!(marks.is_sorted_by(|before, after| before.begin > after.begin));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn mark(begin: u32, byte: u8) -> Mark {
        Mark {
            begin,
            state: PieceHash([byte; 20]),
        }
    }

    #[test]
    fn a_tail_grows_by_parts_that_lead_to_it() {
        let (whole, mut tail) = (PieceHash([9; 20]), Tail::default());
        tail.start_part(mark(30, 3));
        assert!(!tail.judge_part(PieceHash([8; 20]), whole), "not the hash");
        assert_eq!((tail.begin(), tail.is_growing()), (None, false));
        tail.start_part(mark(30, 3));
        assert!(tail.judge_part(whole, whole));
        assert_eq!(tail.begin(), Some(30));
        tail.start_part(mark(10, 1));
        assert!(!tail.judge_part(whole, whole), "not the mark at 30");
        tail.start_part(mark(10, 1));
        tail.starts_anew();
        assert!(!tail.judge_part(mark(30, 3).state, whole), "of other bytes");
        assert_eq!(tail.begin(), Some(30));
        tail.start_part(mark(10, 1));
        assert!(tail.judge_part(mark(30, 3).state, whole));
        assert_eq!(tail.begin(), Some(10));
        assert!(
            !tail.judge_part(mark(10, 1).state, whole),
            "no part was hashed"
        );
    }

    #[test]
    fn marks_are_in_order_and_the_first_at_a_place_stays() {
        let mut marks = Marks::default();
        let piece = PieceIndex(3);
        for (begin, byte) in [(10, 1), (30, 1), (20, 1), (30, 2), (10, 2)] {
            marks.add(piece, mark(begin, byte), false);
        }
        assert_eq!(marks.of(piece), [mark(30, 1), mark(20, 1), mark(10, 1)]);
        assert_eq!(marks.of(PieceIndex(4)), []);
        marks.doubt(piece, 5..20);
        assert_eq!(marks.of(piece), [mark(30, 1), mark(20, 1)]);
        marks.add(piece, mark(20, 2), true);
        assert_eq!(marks.of(piece), [mark(30, 1), mark(20, 2)]);
        marks.forget(piece);
        assert_eq!(marks.of(piece), []);
    }

    /// Whatever peers claim, the memory is bounded.
    #[test]
    fn the_number_of_pieces_and_of_marks_is_bounded() {
        let mut marks = Marks::default();
        let mut rng = Rng::new(7);
        for _ in 0..50_000 {
            marks.add(PieceIndex(rng.below(1000)), mark(rng.below(200), 0), false);
        }
        marks.check_invariants();
    }
}
