//! What do the reads of one disk prove of the writes before them?
//!
//! A read proves something of a write if it began after a flush had ended that began after the
//! write had ended. It proves more if so much was written meanwhile that no cache can have answered
//! it.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use super::image::Image;
use crate::units::{PieceIndex, Ticket};

/// What the reads of a place prove of the last write there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proof {
    Nothing,
    /// Read after a flush.
    Flushed,
    /// And `distance` bytes later, or never written by this process.
    Far,
}

pub struct Rereads {
    image: Image,
    distance: u64,
    places: Vec<Proof>,
    /// Reads in flight, with their pieces.
    reading: BTreeMap<Ticket, (PieceIndex, Proof)>,
    /// Flushes in flight, with their numbers.
    flushing: BTreeMap<Ticket, u32>,
    flushes_begun: u32,
    /// Writes that saw fewer flushes begin are flushed.
    flushed_to: u32,
    bytes_written: u64,
    /// For each piece that was written: flushes begun, and bytes written, until its write had
    /// ended.
    written_at: Vec<Option<(u32, u64)>>,
    last_write: Option<u32>,
    writes_in_flight: u32,
}

impl Rereads {
    pub fn new(image: &Image, distance: u64) -> Rereads {
        Rereads {
            image: image.clone(),
            distance,
            places: vec![Proof::Nothing; image.cell_count()],
            reading: BTreeMap::new(),
            flushing: BTreeMap::new(),
            flushes_begun: 0,
            flushed_to: 0,
            bytes_written: 0,
            written_at: vec![None; image.piece_count as usize],
            last_write: None,
            writes_in_flight: 0,
        }
    }

    pub fn has_flushed(&self) -> bool {
        self.flushed_to > 0
    }

    /// Some writes are not flushed yet.
    pub fn has_unflushed(&self) -> bool {
        self.writes_in_flight > 0 || self.last_write.is_some_and(|last| last >= self.flushed_to)
    }

    pub fn was_written(&self, piece: PieceIndex) -> bool {
        self.written_at[piece.index()].is_some()
    }

    /// What was read of these bytes proves this, all together.
    pub fn proof(&self, piece: PieceIndex, begin: u32, length: u32) -> Proof {
        let places = self.image.places(piece, begin, length);
        let proofs = self.places[places].iter().copied();
        proofs.min().unwrap_or(Proof::Nothing)
    }

    pub fn write_begins(&mut self) {
        self.writes_in_flight += 1;
    }

    /// A write has ended, well or not, and displaces so much in a cache.
    pub fn write_ends(&mut self, bytes: u32) {
        self.writes_in_flight -= 1;
        self.last_write = Some(self.flushes_begun);
        self.bytes_written += u64::from(bytes);
    }

    /// The write that has just ended was of this piece.
    pub fn written(&mut self, piece: PieceIndex) {
        self.places[self.image.places_of(piece)].fill(Proof::Nothing);
        // What is being read may be what was there before.
        for (_, proof) in self.reading.values_mut().filter(|(of, _)| *of == piece) {
            *proof = Proof::Nothing;
        }
        self.written_at[piece.index()] = Some((self.flushes_begun, self.bytes_written));
    }

    pub fn flush_begins(&mut self, ticket: Ticket) {
        self.flushing.insert(ticket, self.flushes_begun);
        self.flushes_begun += 1;
    }

    pub fn flush_ends(&mut self, ticket: Ticket) {
        let number = self.flushing.remove(&ticket);
        let number = number.expect("a flush ends that has begun");
        self.flushed_to = self.flushed_to.max(number + 1);
    }

    pub fn read_begins(&mut self, ticket: Ticket, piece: PieceIndex) {
        let proof = match self.written_at[piece.index()] {
            Some((flushes, _)) if flushes >= self.flushed_to => Proof::Nothing,
            Some((_, bytes)) if self.bytes_written - bytes < self.distance => Proof::Flushed,
            _ => Proof::Far,
        };
        self.reading.insert(ticket, (piece, proof));
    }

    pub fn read_ends(&mut self, ticket: Ticket, begin: u32, length: u32) {
        let read = self.reading.remove(&ticket);
        let (piece, proof) = read.expect("a read ends that has begun");
        for place in self.image.places(piece, begin, length) {
            self.places[place] = self.places[place].max(proof);
        }
    }
}
