//! What do the hashes tell about the bytes, before any byte is here?
//!
//! A piece with the hash of zeros is never fetched: the disk can make zeros by itself. Pieces with
//! the same hash hold the same bytes: they are fetched once and written to all their places. And a
//! few pieces, spread over the torrent, are enough to see whether a disk holds any of it.
//!
//! ```text
//! piece    0  1  2  3  4  5  6
//! bytes    A  0  B  0  A  A  c      (c is the last piece, and shorter)
//! zero        1     1
//! equal    5 -> 4 -> 0 -> 5         the others are alone
//! ```

use alloc::vec::Vec;
use core::cmp::Reverse;

use crate::bitfield::Bitfield;
use crate::format::layout::Layout;
use crate::limits::{SAMPLE_BYTES, SAMPLE_PIECES_MAX};
use crate::rng::Rng;
use crate::units::{PieceHash, PieceIndex};

/// Invariant: `next_equal` is sorted, and consists of rings. Each ring goes through all pieces of
/// one content, of which there are two or more. Rings run downwards, so that a walk through the
/// torrent from its start finds the equal piece that it has passed already in the first step.
#[derive(Debug)]
pub struct Contents {
    zero: Bitfield,
    /// A piece, and the next one of its ring. An image full of 0xff has hundreds of thousands.
    next_equal: Vec<(PieceIndex, PieceIndex)>,
}

impl Contents {
    pub fn new(layout: &Layout, hashes: &[PieceHash]) -> Contents {
        let last = PieceIndex(layout.piece_count() - 1);
        let (whole, rest) = (
            zeros_hash(layout.piece_bytes()),
            zeros_hash(layout.piece_length(last)),
        );
        let mut zero = Bitfield::new(layout.piece_count());
        let is_zero =
            |piece: &PieceIndex| hashes[piece.index()] == if *piece == last { rest } else { whole };
        layout.pieces().filter(is_zero).for_each(|piece| {
            zero.set(piece);
        });
        // A shorter last piece is equal to no other, whatever its hash says.
        let whole_length = |piece: &PieceIndex| layout.piece_length(*piece) == layout.piece_bytes();
        let mut sorted: Vec<PieceIndex> = zero.missing().filter(whole_length).collect();
        sorted.sort_unstable_by_key(|piece| (hashes[piece.index()], Reverse(*piece)));
        let mut next_equal = Vec::new();
        for ring in sorted
            .chunk_by(|a, b| hashes[a.index()] == hashes[b.index()])
            .filter(|r| r.len() > 1)
        {
            let following = ring.iter().cycle().skip(1);
            next_equal.extend(ring.iter().copied().zip(following.copied()));
        }
        next_equal.sort_unstable();
        Contents { zero, next_equal }
    }

    pub fn is_zero(&self, piece: PieceIndex) -> bool {
        self.zero.get(piece)
    }

    /// The other pieces of the same bytes; none for zeros.
    pub fn equals(&self, piece: PieceIndex) -> impl Iterator<Item = PieceIndex> + '_ {
        let next = |piece: &PieceIndex| {
            let at = self.next_equal.binary_search_by_key(piece, |entry| entry.0);
            at.ok().map(|at| self.next_equal[at].1)
        };
        core::iter::successors(next(&piece), move |equal| next(equal))
            .take_while(move |equal| *equal != piece)
    }

    /// Pieces that an empty target need not fetch: zeros, and those that are equal to an earlier
    /// piece.
    pub fn derivable(&self) -> Bitfield {
        let mut derivable = self.zero.clone();
        // Of a ring only the first piece is followed by a larger one.
        for (later, _) in self.next_equal.iter().filter(|(piece, next)| next < piece) {
            derivable.set(*later);
        }
        derivable
    }

    /// Pieces to read first, one from each of as many equal parts of the torrent. If all of them
    /// are bad, the disk holds nothing of the image. Zeros are left out, because a blank disk has
    /// them too. Of equal pieces only one is taken, because what fills an image (0xff, or the
    /// pattern of some tool) also fills other disks.
    pub fn sample(&self, layout: &Layout, rng: &mut Rng) -> Vec<PieceIndex> {
        let candidates: Vec<PieceIndex> = self.derivable().missing().collect();
        let wanted = (SAMPLE_BYTES / layout.piece_bytes()).clamp(1, SAMPLE_PIECES_MAX) as usize;
        let parts = wanted.min(candidates.len());
        let bound = |part: usize| candidates.len() * part / parts;
        let pick = |part: usize| {
            let of_part = &candidates[bound(part)..bound(part + 1)];
            let count = u32::try_from(of_part.len()).expect("there are fewer than 2^32 pieces");
            of_part[rng.below(count) as usize]
        };
        (0..parts).map(pick).collect()
    }
}

/// The hash of this many zeros.
pub fn zeros_hash(length: u32) -> PieceHash {
    // These zeros are bytes of the binary. 4096 of them at once are hashed no faster.
    const STEP: usize = 256;
    let mut hash = sha1_smol::Sha1::new();
    let mut left = length as usize;
    while left > 0 {
        let step = left.min(STEP);
        hash.update(&[0; STEP][..step]);
        left -= step;
    }
    PieceHash(hash.digest().bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PIECE_BYTES_MIN;

    const PIECE: u32 = PIECE_BYTES_MIN;

    /// One letter for each piece: `0` is a piece of zeros, any other letter fills its piece. The
    /// last piece has `last` bytes.
    fn contents(letters: &str, last: u32) -> (Layout, Contents) {
        let total = u64::from(PIECE) * (letters.len() as u64 - 1) + u64::from(last);
        let layout = Layout::new(total, PIECE).unwrap();
        let hash = |(letter, piece): (u8, PieceIndex)| {
            let fill = if letter == b'0' { 0 } else { letter };
            let bytes = alloc::vec![fill; layout.piece_length(piece) as usize];
            PieceHash(sha1_smol::Sha1::from(bytes).digest().bytes())
        };
        let hashes: Vec<PieceHash> = letters.bytes().zip(layout.pieces()).map(hash).collect();
        (layout, Contents::new(&layout, &hashes))
    }

    /// Bytes that an empty target has to fetch.
    fn unique_bytes(layout: &Layout, contents: &Contents) -> u64 {
        let derivable = contents.derivable();
        let lengths = derivable.missing().map(|piece| layout.piece_length(piece));
        lengths.map(u64::from).sum()
    }

    fn indexes(pieces: impl Iterator<Item = PieceIndex>) -> Vec<u32> {
        pieces.map(|piece| piece.0).collect()
    }

    #[test]
    fn zeros_and_equal_pieces_of_the_picture() {
        let (layout, contents) = contents("A0B0AAc", 100);
        assert_eq!(
            indexes(layout.pieces().filter(|piece| contents.is_zero(*piece))),
            [1, 3]
        );
        for (piece, equals) in [
            (0, &[5, 4][..]),
            (4, &[0, 5]),
            (5, &[4, 0]),
            (2, &[]),
            (1, &[]),
            (6, &[]),
        ] {
            assert_eq!(
                indexes(contents.equals(PieceIndex(piece))),
                equals,
                "piece {piece}"
            );
        }
        assert_eq!(unique_bytes(&layout, &contents), 2 * u64::from(PIECE) + 100);
    }

    #[test]
    fn a_short_last_piece_may_be_zeros_too() {
        assert!(contents("A0", 1).1.is_zero(PieceIndex(1)));
        assert!(contents("0", 12_345).1.is_zero(PieceIndex(0)));
        let (layout, contents) = contents("0000", PIECE);
        assert_eq!(unique_bytes(&layout, &contents), 0);
        assert!(contents.sample(&layout, &mut Rng::new(1)).is_empty());
    }

    #[test]
    fn the_sample_holds_equal_pieces_once() {
        let mut letters = alloc::string::String::from("A0B0");
        letters.extend(core::iter::repeat_n('F', 200));
        let (layout, contents) = contents(&letters, PIECE);
        let sample = contents.sample(&layout, &mut Rng::new(1));
        assert_eq!(indexes(sample.into_iter()), [0, 2, 4]);
    }

    /// One piece from every part of the torrent, in order, without zeros, and no piece twice.
    #[test]
    fn the_sample_is_spread_over_the_torrent() {
        let mut rng = Rng::new(1);
        for length in 1..127u32 {
            let letters: alloc::string::String = (0..length)
                .map(|piece| {
                    if piece % 3 == 1 {
                        '0'
                    } else {
                        char::from(1 + piece as u8)
                    }
                })
                .collect();
            let (layout, contents) = contents(&letters, PIECE);
            let sample = contents.sample(&layout, &mut rng);
            let there = layout
                .pieces()
                .filter(|piece| !contents.is_zero(*piece))
                .count();
            assert_eq!(sample.len(), there.min(SAMPLE_PIECES_MAX as usize));
            assert!(
                sample.is_sorted_by(|a, b| a < b)
                    && sample.iter().all(|piece| !contents.is_zero(*piece))
            );
            assert!(
                sample
                    .windows(2)
                    .all(|pair| pair[1].0 - pair[0].0 <= 3 + 3 * length / sample.len() as u32)
            );
        }
    }
}
