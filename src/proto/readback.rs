//! What is really on the disk: every piece read again, in order, and hashed.
//!
//! Reads run ahead of the hash by READ_BACK_MAX chunks and may come back in any order; hashing goes strictly in order, so
//! one running hash is enough. A few lines, because "done" is said on their word.

use alloc::collections::BTreeMap;

use crate::cache::Chunk;
use crate::limits::READ_BACK_MAX;
use crate::metainfo::Layout;
use crate::units::{BufferId, PieceIndex};

pub struct ReadBack {
    piece_count: u32,
    chunks_per_piece: u32,
    chunks_in_last: u32,
    next_read: Option<Chunk>,
    next_hash: Option<Chunk>,
    /// Read, and waiting for their turn at the hash.
    arrived: BTreeMap<Chunk, BufferId>,
    reading: usize,
    good: u32,
    bad: u32,
    first_bad: Option<PieceIndex>,
}

impl ReadBack {
    pub fn new(layout: &Layout, buffer_bytes: u32) -> ReadBack {
        let last = PieceIndex(layout.piece_count() - 1);
        let first = Some(Chunk { piece: PieceIndex(0), index: 0 });
        ReadBack {
            piece_count: layout.piece_count(),
            chunks_per_piece: layout.piece_length(PieceIndex(0)).div_ceil(buffer_bytes),
            chunks_in_last: layout.piece_length(last).div_ceil(buffer_bytes),
            next_read: first,
            next_hash: first,
            arrived: BTreeMap::new(),
            reading: 0,
            good: 0,
            bad: 0,
            first_bad: None,
        }
    }

    /// The next chunk to read, if the window has room. With a buffer for it, call `start_read`.
    pub fn next_read(&self) -> Option<Chunk> {
        self.next_read.filter(|_| self.buffer_count() < READ_BACK_MAX)
    }

    /// The chunk of `next_read` is being read.
    pub fn start_read(&mut self) {
        let chunk = self.next_read().expect("asked for before");
        self.next_read = self.after(chunk);
        self.reading += 1;
    }

    pub fn arrived(&mut self, chunk: Chunk, buffer: BufferId) {
        self.reading -= 1;
        assert!(self.arrived.insert(chunk, buffer).is_none());
    }

    /// The next chunk to hash, if it is there. Its buffer is the caller's again after hashing.
    pub fn next_hash(&mut self) -> Option<(Chunk, BufferId)> {
        let chunk = self.next_hash?;
        let buffer = self.arrived.remove(&chunk)?;
        self.next_hash = self.after(chunk);
        Some((chunk, buffer))
    }

    pub fn judged(&mut self, piece: PieceIndex, good: bool) {
        if good {
            self.good += 1;
        } else {
            self.bad += 1;
            self.first_bad.get_or_insert(piece);
        }
    }

    pub fn good(&self) -> u32 {
        self.good
    }

    pub fn bad(&self) -> u32 {
        self.bad
    }

    pub fn first_bad(&self) -> Option<PieceIndex> {
        self.first_bad
    }

    pub fn is_done(&self) -> bool {
        self.good + self.bad == self.piece_count
    }

    /// Buffers it holds, for recounts.
    pub fn buffer_count(&self) -> usize {
        self.reading + self.arrived.len()
    }

    fn after(&self, chunk: Chunk) -> Option<Chunk> {
        let last_piece = chunk.piece.0 + 1 == self.piece_count;
        let chunks = if last_piece { self.chunks_in_last } else { self.chunks_per_piece };
        if chunk.index + 1 < chunks {
            return Some(Chunk { index: chunk.index + 1, ..chunk });
        }
        (!last_piece).then_some(Chunk { piece: PieceIndex(chunk.piece.0 + 1), index: 0 })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::rng::Rng;

    /// Whatever the order in which the disk answers, chunks are hashed in order, each once, within the window.
    #[test]
    fn hashes_in_order_whatever_the_disk_does() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let (piece, total) = (65536 + 16384 * rng.below(5), 1 + rng.below(3_000_000));
            let layout = Layout::new(u64::from(total), piece).unwrap();
            let mut readback = ReadBack::new(&layout, 32768);
            let (mut reading, mut hashed) = (Vec::new(), Vec::new());
            while !readback.is_done() {
                while let Some(chunk) = readback.next_read() {
                    readback.start_read();
                    reading.push(chunk);
                }
                assert!(reading.len() <= READ_BACK_MAX);
                let chunk = reading.swap_remove(rng.below(reading.len() as u32) as usize);
                readback.arrived(chunk, BufferId(0));
                while let Some((chunk, _)) = readback.next_hash() {
                    hashed.push(chunk);
                    if (chunk.index + 1) * 32768 >= layout.piece_length(chunk.piece) {
                        readback.judged(chunk.piece, true);
                    }
                }
            }
            let of = |p: PieceIndex| layout.piece_length(p).div_ceil(32768);
            let all =
                layout.pieces().flat_map(|piece| (0..of(piece)).map(move |index| Chunk { piece, index }));
            assert_eq!(hashed, all.collect::<Vec<_>>(), "seed {seed}");
        }
    }
}
