//! Which piece has the lowest count? Pieces in order of a small count, equal counts in random
//! order.
//!
//! One structure answers two questions: which piece do the fewest peers have (rarest first), and
//! which piece did we send least. The pieces are in one array sorted by count, and `starts` says
//! where each count begins, so a count goes up or down by one with a few swaps.
//!
//! ```text
//! count      0 0 0 1 1 3
//! order      4 0 2 5 1 3
//! starts     0     3   5 5 6      starts[c] = first place with a count of c or more
//! ```
//!
//! Invariants: `order[place[p]] == p` for every ranked piece; the counts along `order` never fall;
//! pieces that are not ranked keep counting, so that they can be put back.

use alloc::vec::Vec;

use crate::rng::Rng;
use crate::units::PieceIndex;

const UNRANKED: u32 = u32::MAX;

#[derive(Debug)]
pub struct Ranking {
    order: Vec<PieceIndex>,
    place: Vec<u32>,
    counts: Vec<u16>,
    starts: Vec<u32>,
}

impl Ranking {
    /// All pieces with a count of 0, shuffled.
    pub fn new(piece_count: u32, rng: &mut Rng) -> Ranking {
        let mut order: Vec<PieceIndex> = (0..piece_count).map(PieceIndex).collect();
        rng.shuffle(&mut order);
        let mut place = alloc::vec![0; piece_count as usize];
        for (at, piece) in order.iter().enumerate() {
            place[piece.index()] = at as u32;
        }
        Ranking {
            order,
            place,
            counts: alloc::vec![0; piece_count as usize],
            starts: alloc::vec![0, piece_count],
        }
    }

    /// Ranked pieces, lowest count first.
    pub fn iter(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.order.iter().copied()
    }

    pub fn count(&self, piece: PieceIndex) -> u16 {
        self.counts[piece.index()]
    }

    pub fn is_ranked(&self, piece: PieceIndex) -> bool {
        self.place[piece.index()] != UNRANKED
    }

    pub fn increment(&mut self, piece: PieceIndex, rng: &mut Rng) {
        let count = self.counts[piece.index()];
        assert!(count < u16::MAX, "more peers than the mesh allows");
        if self.is_ranked(piece) {
            self.raise(piece, count);
            self.counts[piece.index()] = count + 1;
            self.mix(piece, rng);
        } else {
            self.counts[piece.index()] = count + 1;
        }
    }

    pub fn decrement(&mut self, piece: PieceIndex, rng: &mut Rng) {
        let count = self.counts[piece.index()];
        assert!(count > 0, "a piece was counted down more often than up");
        if self.is_ranked(piece) {
            self.lower(piece, count);
            self.counts[piece.index()] = count - 1;
            self.mix(piece, rng);
        } else {
            self.counts[piece.index()] = count - 1;
        }
    }

    /// Takes a piece out of the order. Its count goes on.
    pub fn remove(&mut self, piece: PieceIndex) {
        assert!(self.is_ranked(piece));
        for count in self.counts[piece.index()]..self.count_max() {
            self.raise(piece, count);
        }
        let last = self.order.len() - 1;
        self.swap(self.place[piece.index()], last as u32);
        self.order.pop();
        let end = self.starts.len() - 1;
        self.starts[end] -= 1;
        self.place[piece.index()] = UNRANKED;
    }

    /// Puts a piece back at the place of its count.
    pub fn insert(&mut self, piece: PieceIndex, rng: &mut Rng) {
        assert!(!self.is_ranked(piece));
        self.grow(self.counts[piece.index()]);
        self.place[piece.index()] = self.order.len() as u32;
        self.order.push(piece);
        let end = self.starts.len() - 1;
        self.starts[end] += 1;
        for count in (self.counts[piece.index()] + 1..=self.count_max()).rev() {
            self.lower(piece, count);
        }
        self.mix(piece, rng);
    }

    /// Highest count that `starts` has a place for. The pieces of one count are its bucket.
    fn count_max(&self) -> u16 {
        (self.starts.len() - 2) as u16
    }

    /// Makes a bucket for `count`.
    fn grow(&mut self, count: u16) {
        while self.count_max() < count {
            self.starts.push(self.order.len() as u32);
        }
    }

    /// Moves a piece from the bucket `count` to the next one: it goes to the end of its bucket, and
    /// then the border moves in front of it.
    fn raise(&mut self, piece: PieceIndex, count: u16) {
        self.grow(count + 1);
        let border = self.starts[count as usize + 1] - 1;
        self.swap(self.place[piece.index()], border);
        self.starts[count as usize + 1] = border;
    }

    /// The reverse of `raise`: from the bucket `count` to the one below.
    fn lower(&mut self, piece: PieceIndex, count: u16) {
        let border = self.starts[count as usize];
        self.swap(self.place[piece.index()], border);
        self.starts[count as usize] = border + 1;
    }

    /// Swaps a piece with a random one of its own count.
    fn mix(&mut self, piece: PieceIndex, rng: &mut Rng) {
        let count = self.counts[piece.index()] as usize;
        let (start, end) = (self.starts[count], self.starts[count + 1]);
        self.swap(self.place[piece.index()], start + rng.below(end - start));
    }

    fn swap(&mut self, a: u32, b: u32) {
        self.order.swap(a as usize, b as usize);
        self.place[self.order[a as usize].index()] = a;
        self.place[self.order[b as usize].index()] = b;
    }

    pub fn check_invariants(&self) {
        for (at, piece) in self.order.iter().enumerate() {
            assert_eq!(self.place[piece.index()], at as u32);
        }
        assert_eq!(self.starts[0], 0);
        assert_eq!(
            self.starts[self.starts.len() - 1] as usize,
            self.order.len()
        );
        for (count, bounds) in self.starts.windows(2).enumerate() {
            let bucket = &self.order[bounds[0] as usize..bounds[1] as usize];
            assert!(
                bucket
                    .iter()
                    .all(|piece| self.counts[piece.index()] as usize == count)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A twin that keeps only counts and membership. The ranking must list its pieces, sorted.
    #[test]
    fn agrees_with_a_plain_sort() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let pieces = 1 + rng.below(40);
            let mut ranking = Ranking::new(pieces, &mut rng);
            let mut twin = vec![(0u16, true); pieces as usize];
            for _ in 0..300 {
                let piece = PieceIndex(rng.below(pieces));
                let (count, ranked) = &mut twin[piece.index()];
                match rng.below(4) {
                    0 if *count > 0 => {
                        ranking.decrement(piece, &mut rng);
                        *count -= 1;
                    }
                    1 if *ranked => {
                        ranking.remove(piece);
                        *ranked = false;
                    }
                    2 if !*ranked => {
                        ranking.insert(piece, &mut rng);
                        *ranked = true;
                    }
                    _ => {
                        ranking.increment(piece, &mut rng);
                        *count += 1;
                    }
                }
                ranking.check_invariants();
                let listed: Vec<u16> = ranking.iter().map(|p| twin[p.index()].0).collect();
                assert!(listed.is_sorted(), "seed {seed}: {listed:?}");
                assert_eq!(
                    listed.len(),
                    twin.iter().filter(|(_, ranked)| *ranked).count()
                );
            }
        }
    }

    #[test]
    fn equal_counts_come_in_different_orders_from_different_seeds() {
        let order = |seed| {
            Ranking::new(50, &mut Rng::new(seed))
                .iter()
                .collect::<Vec<_>>()
        };
        assert_ne!(order(1), order(2));
        assert_eq!(order(1), order(1));
    }
}
