//! What is really on the disk: pieces read from it, one after the other, and hashed.
//!
//! One reader for all who ask: the scan of what a target holds, the proof of what was written to
//! it, and a seeder that looks at a piece before it gives it away. Pieces queue up; their chunks
//! are read ahead of the hash, at most `window` of them at a time, and may come back in any order;
//! hashing goes strictly in order within a piece. Two pieces at a time, the first two of the queue,
//! because the hash unit does two in little more time than one. A few lines, because "done" is said
//! on their word.
//!
//! ```text
//! piece     9  8  7  7  7  6  6  6
//! chunk           2  1  0  2  1  0
//!          queued|  reading  |arrived, next are 6.1 and 7.0|hashed
//! ```

use alloc::collections::{BTreeMap, VecDeque};

use crate::format::layout::Layout;
use crate::policy::cache::Chunk;
use crate::units::{BufferId, PieceIndex};

const HASHED_AT_ONCE: usize = 2;

/// Invariant: a piece is in `queue` from `add` until `judged`.
pub struct ReadQueue {
    layout: Layout,
    buffer_bytes: u32,
    /// Most chunks being read or waiting for the hash.
    window: usize,
    /// The first two are those being hashed, the one at `reading_piece` the one being read.
    queue: VecDeque<PieceIndex>,
    reading_piece: usize,
    /// The next chunk of that piece to read, and of the first two pieces to hash.
    next_read: u32,
    next_hash: [u32; HASHED_AT_ONCE],
    /// Read, and waiting for their turn at the hash.
    arrived: BTreeMap<Chunk, BufferId>,
    reading: usize,
    added: u32,
}

impl ReadQueue {
    /// `window` is the most chunks that are being read or wait for the hash.
    pub fn new(layout: Layout, buffer_bytes: u32, window: usize) -> ReadQueue {
        assert!(window > 0);
        ReadQueue {
            layout,
            buffer_bytes,
            window,
            queue: VecDeque::new(),
            reading_piece: 0,
            next_read: 0,
            next_hash: [0; HASHED_AT_ONCE],
            arrived: BTreeMap::new(),
            reading: 0,
            added: 0,
        }
    }

    pub fn add(&mut self, piece: PieceIndex) {
        self.queue.push_back(piece);
        self.added += 1;
    }

    pub fn contains(&self, piece: PieceIndex) -> bool {
        self.queue.contains(&piece)
    }

    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Pieces through, and pieces added, since the last `restart`.
    pub fn progress(&self) -> (u32, u32) {
        (self.added - self.queue.len() as u32, self.added)
    }

    /// Counts anew.
    pub fn restart(&mut self) {
        assert!(self.is_idle());
        self.added = 0;
    }

    /// The next chunk to read, if the window has room. With a buffer for it, call `start_read`.
    pub fn next_read(&self) -> Option<Chunk> {
        let piece = *self
            .queue
            .get(self.reading_piece)
            .filter(|_| self.buffer_count() < self.window)?;
        Some(Chunk {
            piece,
            index: self.next_read,
        })
    }

    /// The chunk of `next_read` is being read.
    pub fn start_read(&mut self) {
        let chunk = self.next_read().expect("asked for before");
        self.reading += 1;
        self.next_read += 1;
        if self.next_read == self.chunk_count(chunk.piece) {
            (self.reading_piece, self.next_read) = (self.reading_piece + 1, 0);
        }
    }

    pub fn arrived(&mut self, chunk: Chunk, buffer: BufferId) {
        self.reading -= 1;
        assert!(self.arrived.insert(chunk, buffer).is_none());
    }

    /// The places in the queue of pieces of which the next chunk can be hashed.
    pub fn hashable(&self) -> impl Iterator<Item = usize> {
        (0..HASHED_AT_ONCE).filter(|place| {
            self.hash_at(*place)
                .is_some_and(|at| self.arrived.contains_key(&at))
        })
    }

    /// Whether the next chunk to hash of the piece at this place of the queue is being read.
    pub fn is_reading(&self, place: usize) -> bool {
        self.hash_at(place).is_some_and(|chunk| {
            let is_asked_for = (place, chunk.index) < (self.reading_piece, self.next_read);
            let is_hashed = chunk.index == self.chunk_count(chunk.piece);
            is_asked_for && !is_hashed && !self.arrived.contains_key(&chunk)
        })
    }

    fn hash_at(&self, place: usize) -> Option<Chunk> {
        Some(Chunk {
            piece: *self.queue.get(place)?,
            index: self.next_hash[place],
        })
    }

    /// The next chunk to hash of one of these. Its buffer is the caller's again after hashing.
    pub fn next_hash(&mut self, place: usize) -> Option<(Chunk, BufferId)> {
        let chunk = self.hash_at(place)?;
        let buffer = self.arrived.remove(&chunk)?;
        self.next_hash[place] += 1;
        Some((chunk, buffer))
    }

    /// No more can be hashed before some of what there is has been.
    pub fn waits_for_hash(&self) -> bool {
        self.reading == 0
    }

    /// The hash of one of the first pieces is known; the next one may begin.
    pub fn judged(&mut self, piece: PieceIndex) {
        let place = self
            .queue
            .iter()
            .position(|queued| *queued == piece)
            .expect("it was added");
        assert_eq!(self.next_hash[place], self.chunk_count(piece));
        self.queue.remove(place);
        self.next_hash.copy_within(place + 1.., place);
        self.next_hash[HASHED_AT_ONCE - 1] = 0;
        self.reading_piece -= 1;
    }

    /// Buffers it holds, for recounts.
    pub fn buffer_count(&self) -> usize {
        self.reading + self.arrived.len()
    }

    fn chunk_count(&self, piece: PieceIndex) -> u32 {
        self.layout.piece_length(piece).div_ceil(self.buffer_bytes)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::rng::Rng;

    const WINDOW: usize = 16;

    /// Whatever pieces are asked for and in whatever order the disk and the hash unit answer, the
    /// chunks of each piece are hashed in order, each once, within the window.
    #[test]
    fn hashes_in_order_whatever_the_disk_does() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let (piece, total) = (65536 + 16384 * rng.below(5), 1 + rng.below(3_000_000));
            let layout = Layout::new(u64::from(total), piece).unwrap();
            let mut read_queue = ReadQueue::new(layout, 32768, WINDOW);
            let mut wanted: Vec<PieceIndex> =
                layout.pieces().filter(|_| rng.chance(2, 3)).collect();
            rng.shuffle(&mut wanted);
            let mut coming = wanted.iter();
            let (mut reading, mut hashed) = (Vec::new(), Vec::new());
            loop {
                coming
                    .by_ref()
                    .take(rng.below(4) as usize)
                    .for_each(|piece| read_queue.add(*piece));
                while let Some(chunk) = read_queue.next_read() {
                    read_queue.start_read();
                    reading.push(chunk);
                }
                assert!(reading.len() <= WINDOW);
                if !reading.is_empty() {
                    let chunk = reading.swap_remove(rng.below(reading.len() as u32) as usize);
                    read_queue.arrived(chunk, BufferId(0));
                }
                for place in 0..HASHED_AT_ONCE {
                    let next = read_queue.hash_at(place);
                    let expected = next.is_some_and(|chunk| reading.contains(&chunk));
                    assert_eq!(read_queue.is_reading(place), expected, "seed {seed}");
                }
                while let Some(place) = read_queue.hashable().max_by_key(|_| rng.next_u64()) {
                    let (chunk, _) = read_queue.next_hash(place).expect("it can be hashed");
                    hashed.push(chunk);
                    if (chunk.index + 1) * 32768 >= layout.piece_length(chunk.piece) {
                        read_queue.judged(chunk.piece);
                    }
                }
                if read_queue.is_idle() && coming.len() == 0 {
                    break;
                }
            }
            let count = |p: PieceIndex| layout.piece_length(p).div_ceil(32768);
            let chunks = |piece: &PieceIndex| {
                (0..count(*piece))
                    .map(|index| Chunk {
                        piece: *piece,
                        index,
                    })
                    .collect()
            };
            let all: Vec<Chunk> = wanted
                .iter()
                .flat_map(|piece| -> Vec<Chunk> { chunks(piece) })
                .collect();
            let place = |chunk: &Chunk| wanted.iter().position(|piece| *piece == chunk.piece);
            hashed.sort_by_key(place);
            assert_eq!(hashed, all, "seed {seed}");
            assert_eq!(
                (read_queue.progress(), read_queue.buffer_count()),
                ((all_pieces(&wanted), all_pieces(&wanted)), 0)
            );
        }
    }

    fn all_pieces(pieces: &[PieceIndex]) -> u32 {
        pieces.len() as u32
    }
}
