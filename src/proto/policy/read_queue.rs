//! What is really on the disk? Pieces are read from it, one after the other, and hashed.
//!
//! There is one queue for every reader: the scan of a target, the read-back of what was written, a
//! seeder that hashes a piece before its first upload, and the commands that hash a whole device.
//! The chunks of the queued pieces are read ahead of the hash, at most `window` at a time, and may
//! arrive in any order. Hashing goes strictly in order within a piece. The first pieces of the
//! queue are hashed side by side, because the hash unit does four in little more than twice the
//! time of one.
//!
//! This file is kept short because an agent announces `completed` when this queue is idle and no
//! piece is left that it has to read back.
//!
//! ```text
//! piece     9  8  7  7  7  6  6  6
//! chunk           2  1  0  2  1  0
//!          queued|  reading  |arrived, next are 6.1 and 7.0|hashed
//! ```

use alloc::collections::VecDeque;

use crate::format::layout::Layout;
use crate::limits::HASHED_AT_ONCE;
use crate::policy::cache::Chunk;
use crate::units::{BufferId, PieceIndex};
use crate::vec_map::VecMap;

/// Invariant: a piece is in `queue` from `add` until `judged`.
#[derive(Debug)]
pub struct ReadQueue {
    layout: Layout,
    buffer_bytes: u32,
    /// Most chunks that are being read or wait to be hashed.
    window: usize,
    /// The first HASHED_AT_ONCE are being hashed; the piece at place `reading_piece` is being read.
    queue: VecDeque<PieceIndex>,
    reading_piece: usize,
    /// The next chunk to read of that piece, and the next chunks to hash of the first pieces.
    next_read: u32,
    next_hash: [u32; HASHED_AT_ONCE],
    /// Chunks that were read and wait to be hashed, `window` at most.
    arrived: VecMap<Chunk, BufferId>,
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
            arrived: VecMap::new(),
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

    /// Pieces that are queued, read or hashed.
    pub fn queued_count(&self) -> usize {
        self.queue.len()
    }

    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Pieces judged, and pieces added.
    pub fn progress(&self) -> (u32, u32) {
        (self.added - self.queue.len() as u32, self.added)
    }

    /// The next chunk to read, if the window has room. Once there is a buffer for it, call
    /// `start_read`.
    #[must_use]
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
        let chunk = self.next_read().expect("`next_read` has given this chunk");
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

    /// How many of the first HASHED_AT_ONCE pieces have their next chunk read and not yet hashed.
    pub fn hashable_count(&self) -> usize {
        let has_arrived = |place: &usize| {
            self.hash_at(*place)
                .is_some_and(|at| self.arrived.contains_key(&at))
        };
        (0..HASHED_AT_ONCE).filter(has_arrived).count()
    }

    /// Whether there will soon be more to hash at once, and the disk has enough to do until then:
    /// the next chunk of one of these pieces is being read, and so is half of the window.
    pub fn expects_more(&self) -> bool {
        2 * self.reading >= self.window && self.expects_any()
    }

    /// Whether there will soon be more to hash at once, however little the disk has to do until
    /// then.
    pub fn expects_any(&self) -> bool {
        (0..HASHED_AT_ONCE).any(|place| self.is_reading(place))
    }

    /// Whether the next chunk to hash of the piece at this place of the queue is being read.
    fn is_reading(&self, place: usize) -> bool {
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

    /// The next chunk to hash of the piece at this place of the queue, below HASHED_AT_ONCE, if it
    /// has been read. Its buffer belongs to the caller again.
    #[must_use]
    pub fn next_hash(&mut self, place: usize) -> Option<(Chunk, BufferId)> {
        let chunk = self.hash_at(place)?;
        let buffer = self.arrived.remove(&chunk)?;
        self.next_hash[place] += 1;
        Some((chunk, buffer))
    }

    /// The hash of one of the first pieces is known. The next piece takes its place.
    pub fn judged(&mut self, piece: PieceIndex) {
        let place = self
            .queue
            .iter()
            .position(|queued| *queued == piece)
            .expect("a piece is queued until it is judged");
        assert_eq!(self.next_hash[place], self.chunk_count(piece));
        // `VecDeque::remove` would move those behind it, with a kilobyte of code.
        (0..place).rev().for_each(|at| self.queue.swap(at, at + 1));
        self.queue.pop_front();
        self.next_hash.copy_within(place + 1.., place);
        self.next_hash[HASHED_AT_ONCE - 1] = 0;
        self.reading_piece -= 1;
    }

    /// Buffers that belong to the queue.
    pub fn buffer_count(&self) -> usize {
        self.reading + self.arrived.len()
    }

    /// Begin and length of a chunk inside its piece.
    pub fn span(&self, chunk: Chunk) -> (u32, u32) {
        let begin = chunk.index * self.buffer_bytes;
        let rest = self.layout.piece_length(chunk.piece) - begin;
        (begin, rest.min(self.buffer_bytes))
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

    /// In whatever order the disk and the hash unit answer, the chunks of each piece are hashed in
    /// order, each once, and the window is kept.
    #[test]
    fn hashes_each_chunk_once_and_in_order() {
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
                let mut more = false;
                for place in 0..HASHED_AT_ONCE {
                    let next = read_queue.hash_at(place);
                    let expected = next.is_some_and(|chunk| reading.contains(&chunk));
                    assert_eq!(read_queue.is_reading(place), expected, "seed {seed}");
                    more |= expected;
                }
                let more = more && reading.len() >= WINDOW / 2;
                assert_eq!(read_queue.expects_more(), more, "seed {seed}");
                while read_queue.hashable_count() > 0 {
                    let place = rng.below(HASHED_AT_ONCE as u32) as usize;
                    let Some((chunk, _)) = read_queue.next_hash(place) else {
                        continue;
                    };
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
