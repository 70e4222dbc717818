//! Which pieces are on the target or source of one agent, in truth?
//!
//! A piece is *on the disk* if it was written and reported as written, or was read from the disk
//! and found good. All pieces of a seeder count as on the disk until one is found bad. A piece is
//! *verified* if it was read since it was written.

use alloc::vec;
use alloc::vec::Vec;

use super::image::Image;
use crate::units::{DiskOffset, PieceIndex};

pub struct Pieces {
    image: Image,
    on_disk: Vec<bool>,
    on_disk_count: u32,
    verified: Vec<bool>,
    /// Pieces that were bad in a read-back, and those that were bad in a second one, in that order.
    lost: Vec<bool>,
    bad_again: Vec<PieceIndex>,
    /// How often a piece was fetched whole and good, and how often it was lost again. Equal pieces
    /// are counted together, at the first of them.
    fetched_good: Vec<u32>,
    lost_good: Vec<u32>,
}

impl Pieces {
    /// All pieces start alike. A seeder that does not read its source first starts with verified
    /// pieces.
    pub fn new(image: &Image, on_disk: bool, verified: bool) -> Pieces {
        let count = image.piece_count as usize;
        Pieces {
            image: image.clone(),
            on_disk: vec![on_disk; count],
            on_disk_count: if on_disk { image.piece_count } else { 0 },
            verified: vec![verified; count],
            lost: vec![false; count],
            bad_again: Vec::new(),
            fetched_good: vec![0; count],
            lost_good: vec![0; count],
        }
    }

    /// Number of pieces on the disk.
    pub fn count(&self) -> u32 {
        self.on_disk_count
    }

    pub fn are_all_on_disk(&self) -> bool {
        self.on_disk_count == self.image.piece_count
    }

    pub fn is_on_disk(&self, piece: PieceIndex) -> bool {
        self.on_disk[piece.index()]
    }

    pub fn is_proven(&self, piece: PieceIndex) -> bool {
        self.verified[piece.index()]
    }

    pub fn first_unproven(&self) -> Option<usize> {
        self.verified.iter().position(|verified| !verified)
    }

    pub fn proven_count(&self) -> usize {
        let both = self.verified.iter().zip(&self.on_disk);
        both.filter(|(verified, on_disk)| **verified && **on_disk)
            .count()
    }

    /// It was bad when it was read back.
    pub fn was_lost(&self, piece: PieceIndex) -> bool {
        self.lost[piece.index()]
    }

    pub fn any_was_lost(&self) -> bool {
        self.lost.contains(&true)
    }

    /// Pieces that were bad in two read-backs.
    pub fn bad_again(&self) -> &[PieceIndex] {
        &self.bad_again
    }

    /// The offset of the first of them.
    pub fn first_bad_offset(&self) -> Option<DiskOffset> {
        let offset = |piece: &PieceIndex| u64::from(piece.0) * u64::from(self.image.piece_bytes);
        self.bad_again.first().map(offset).map(DiskOffset)
    }

    /// The piece, or one with the same bytes, was fetched whole and good.
    pub fn was_fetched(&self, piece: PieceIndex) -> bool {
        self.fetched_good[self.image.first_equal(piece).index()] > 0
    }

    /// A piece was fetched whole and good. Equal pieces are fetched once, and once more for each
    /// one that was lost again.
    pub fn fetch(&mut self, piece: PieceIndex) {
        let first = self.image.first_equal(piece).index();
        self.fetched_good[first] += 1;
        let (came, lost) = (self.fetched_good[first], self.lost_good[first]);
        assert!(
            came <= 1 + lost,
            "piece {} or its equals were fetched {came} times, {lost} were lost",
            piece.0
        );
    }

    pub fn write(&mut self, piece: PieceIndex) {
        self.add(piece);
        self.verified[piece.index()] = false;
    }

    /// The scan found a good piece.
    pub fn find(&mut self, piece: PieceIndex) {
        self.add(piece);
        self.verified[piece.index()] = true;
    }

    /// A seeder has read a piece of its source.
    pub fn check_source(&mut self, piece: PieceIndex, good: bool) {
        self.verified[piece.index()] = good;
        if !good {
            self.lose_source(piece);
        }
    }

    /// A seeder cannot read this piece, or it is not the one of the torrent.
    pub fn lose_source(&mut self, piece: PieceIndex) {
        if self.on_disk[piece.index()] {
            self.remove(piece);
        }
    }

    pub fn read_back(&mut self, piece: PieceIndex, good: bool) {
        let index = piece.index();
        assert!(
            self.on_disk[index],
            "piece {index} is read back and was not written"
        );
        self.verified[index] = good;
        if good {
            return;
        }
        self.remove(piece);
        // It is fetched once more after the first loss, and never after the second.
        if core::mem::replace(&mut self.lost[index], true) {
            return self.bad_again.push(piece);
        }
        if !self.image.is_zero(piece) {
            self.lost_good[self.image.first_equal(piece).index()] += 1;
        }
    }

    fn add(&mut self, piece: PieceIndex) {
        assert!(!core::mem::replace(&mut self.on_disk[piece.index()], true));
        self.on_disk_count += 1;
    }

    fn remove(&mut self, piece: PieceIndex) {
        assert!(core::mem::replace(&mut self.on_disk[piece.index()], false));
        self.on_disk_count -= 1;
    }
}
