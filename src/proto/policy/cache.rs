//! Which chunk is in which buffer of the pool, and which operation may touch it?
//!
//! A buffer holds one *chunk*: `buffer_bytes` of one piece (the last chunk of a piece may be
//! shorter). It is
//!
//! ```text
//! Free ── take ──> Taken ── store ──> Stored ──(oldest, unpinned)──> taken again
//!                    └──── give_back ────> Free
//! ```
//!
//! A *taken* buffer belongs to one owner: an open piece, a disk read, or the read queue. A *stored*
//! buffer holds bytes that are on the disk and may be sent. Each block being sent pins its buffer,
//! and a pinned buffer is never taken. The tail of an open piece may be sent, too. If the bytes
//! turn out not to be on the disk, the chunk is *forgotten*: it cannot be found any more, and the
//! last unpin frees its buffer.
//!
//! Memory that was never touched costs nothing. So the cache uses only a part of the pool until a
//! chunk is asked for that it has evicted; then it keeps more.
//!
//! The map of stored chunks is one sorted `Vec`. It may hold a few thousand entries, but inserting
//! costs no more than `evict`, which passes over all buffers to find the oldest.

use alloc::vec::Vec;

use crate::limits::{KEPT_MIN, KEPT_MORE, KEPT_PART};
use crate::units::{BufferId, PieceIndex};
use crate::vec_map::VecMap;

/// A part of a piece as large as a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chunk {
    pub piece: PieceIndex,
    pub index: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Buffer {
    Free,
    Taken {
        pins: u32,
    },
    Stored {
        chunk: Chunk,
        pins: u32,
        used: u64,
    },
    /// Its bytes must not be sent again, but they are still being sent.
    Forgotten {
        pins: u32,
    },
}

#[derive(Debug)]
pub struct Cache {
    buffers: Vec<Buffer>,
    /// Last in, first out: memory that was never touched stays untouched as long as possible.
    free: Vec<BufferId>,
    stored: VecMap<Chunk, BufferId>,
    /// The number of stored buffers that are pinned.
    pinned: usize,
    /// With this many chunks stored, the oldest is evicted although there are free buffers.
    kept_max: usize,
    /// The chunks that were evicted last, the latest last, at most as many as there are buffers.
    evicted: Vec<Chunk>,
    /// Counts uses; the buffer with the lowest `used` is the oldest.
    uses: u64,
}

impl Cache {
    pub fn new(buffer_count: u32) -> Cache {
        Cache {
            buffers: alloc::vec![Buffer::Free; buffer_count as usize],
            free: (0..buffer_count).rev().map(BufferId).collect(),
            stored: VecMap::new(),
            pinned: 0,
            kept_max: (buffer_count as usize / KEPT_PART).max(KEPT_MIN),
            evicted: Vec::new(),
            uses: 0,
        }
    }

    /// A buffer that belongs to the caller from now on. Once `kept_max` chunks are stored, the
    /// buffer that was used longest ago; before that a free buffer, and if there is none, the
    /// oldest all the same. None if all buffers are in use.
    #[must_use]
    pub fn take(&mut self) -> Option<BufferId> {
        self.take_sparing(&[])
    }

    /// Like `take`, but these chunks are not evicted. They must be sorted.
    #[must_use]
    pub fn take_sparing(&mut self, spared: &[Chunk]) -> Option<BufferId> {
        let enough = (self.stored.len() >= self.kept_max)
            .then(|| self.evict(spared))
            .flatten();
        let buffer = enough
            .or_else(|| self.free.pop())
            .or_else(|| self.evict(spared))?;
        self.buffers[buffer.index()] = Buffer::Taken { pins: 0 };
        Some(buffer)
    }

    /// How many times `take` would succeed now.
    pub fn available(&self) -> usize {
        self.free.len() + self.stored.len() - self.pinned
    }

    /// The owner needs the buffer no more. If it is pinned, it becomes free later.
    pub fn give_back(&mut self, buffer: BufferId) {
        let pins = self.pins_of_taken(buffer);
        self.buffers[buffer.index()] = Buffer::Forgotten { pins };
        self.free_if_unused(buffer);
    }

    fn pins_of_taken(&self, buffer: BufferId) -> u32 {
        match self.buffers[buffer.index()] {
            Buffer::Taken { pins } => pins,
            _ => panic!("{buffer:?} has no owner"),
        }
    }

    /// The buffer now holds `chunk` as it is on the disk. If another buffer already does, this one
    /// becomes free.
    pub fn store(&mut self, buffer: BufferId, chunk: Chunk) {
        let pins = self.pins_of_taken(buffer);
        if self.stored.contains_key(&chunk) {
            return self.give_back(buffer);
        }
        if let Some(place) = self.evicted.iter().position(|evicted| *evicted == chunk) {
            self.evicted.remove(place);
            self.kept_max = (self.kept_max + KEPT_MORE).min(self.buffers.len());
        }
        self.uses += 1;
        self.buffers[buffer.index()] = Buffer::Stored {
            chunk,
            pins,
            used: self.uses,
        };
        self.pinned += usize::from(pins > 0);
        self.stored.insert(chunk, buffer);
    }

    /// No chunk of this piece may be sent any more: the piece is not on the disk.
    pub fn forget(&mut self, piece: PieceIndex) {
        let of_piece =
            |(chunk, buffer): (&Chunk, &BufferId)| (chunk.piece == piece).then_some(*buffer);
        let buffers: Vec<BufferId> = self.stored.iter().filter_map(of_piece).collect();
        self.stored.retain(|chunk, _| chunk.piece != piece);
        for buffer in buffers {
            let Buffer::Stored { pins, .. } = self.buffers[buffer.index()] else {
                unreachable!("a stored chunk lies in a stored buffer")
            };
            self.pinned -= usize::from(pins > 0);
            self.buffers[buffer.index()] = Buffer::Forgotten { pins };
            self.free_if_unused(buffer);
        }
    }

    fn free_if_unused(&mut self, buffer: BufferId) {
        if self.buffers[buffer.index()] == (Buffer::Forgotten { pins: 0 }) {
            self.buffers[buffer.index()] = Buffer::Free;
            self.free.push(buffer);
        }
    }

    pub fn contains(&self, chunk: Chunk) -> bool {
        self.stored.contains_key(&chunk)
    }

    pub fn buffer_of(&self, chunk: Chunk) -> Option<BufferId> {
        self.stored.get(&chunk).copied()
    }

    /// Stored buffers that are being sent.
    pub fn pinned_count(&self) -> usize {
        self.pinned
    }

    /// Pins the buffer that holds `chunk`. Each `pin` needs its own `unpin`.
    #[must_use]
    pub fn pin(&mut self, chunk: Chunk) -> Option<BufferId> {
        let buffer = *self.stored.get(&chunk)?;
        self.uses += 1;
        let Buffer::Stored { pins, used, .. } = &mut self.buffers[buffer.index()] else {
            unreachable!("a stored chunk lies in a stored buffer")
        };
        self.pinned += usize::from(*pins == 0);
        *pins += 1;
        *used = self.uses;
        Some(buffer)
    }

    /// Pins a buffer that its owner fills, because a part of it is being sent.
    pub fn pin_taken(&mut self, buffer: BufferId) {
        let pins = self.pins_of_taken(buffer) + 1;
        self.buffers[buffer.index()] = Buffer::Taken { pins };
    }

    pub fn unpin(&mut self, buffer: BufferId) {
        match &mut self.buffers[buffer.index()] {
            Buffer::Stored { pins, .. } if *pins > 0 => {
                *pins -= 1;
                self.pinned -= usize::from(*pins == 0);
            }
            Buffer::Forgotten { pins } | Buffer::Taken { pins } if *pins > 0 => *pins -= 1,
            _ => panic!("only pinned buffers are unpinned"),
        }
        self.free_if_unused(buffer);
    }

    /// Takes the buffer out of the map of stored chunks that was used longest ago and is not
    /// pinned.
    fn evict(&mut self, spared: &[Chunk]) -> Option<BufferId> {
        let unpinned = |buffer: &Buffer| match *buffer {
            Buffer::Stored {
                chunk,
                pins: 0,
                used,
            } if spared.binary_search(&chunk).is_err() => Some((used, chunk)),
            _ => None,
        };
        let (_, chunk) = self
            .buffers
            .iter()
            .filter_map(unpinned)
            .min_by_key(|(used, _)| *used)?;
        if self.evicted.len() == self.buffers.len() {
            self.evicted.remove(0);
        }
        self.evicted.push(chunk);
        self.stored.remove(&chunk)
    }

    pub fn check_invariants(&self) {
        let free = self.buffers.iter().filter(|b| **b == Buffer::Free).count();
        assert_eq!(free, self.free.len());
        assert!(
            self.free
                .iter()
                .all(|id| self.buffers[id.index()] == Buffer::Free)
        );
        for (chunk, id) in self.stored.iter() {
            let Buffer::Stored { chunk: held, .. } = self.buffers[id.index()] else {
                panic!("a stored chunk lies in a stored buffer")
            };
            assert_eq!(held, *chunk);
        }
        let stored = self
            .buffers
            .iter()
            .filter(|b| matches!(b, Buffer::Stored { .. }))
            .count();
        assert_eq!(stored, self.stored.len());
        let idle = self
            .buffers
            .iter()
            .filter(|b| matches!(b, Buffer::Stored { pins: 0, .. }))
            .count();
        assert_eq!(idle, self.stored.len() - self.pinned);
    }

    /// The number of pins of all buffers, for recounts.
    pub fn pin_count(&self) -> u32 {
        let pins = |buffer: &Buffer| match *buffer {
            Buffer::Stored { pins, .. } | Buffer::Forgotten { pins } | Buffer::Taken { pins } => {
                pins
            }
            Buffer::Free => 0,
        };
        self.buffers.iter().map(pins).sum()
    }

    /// The stored chunks, for recounts.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk> {
        self.stored.keys().copied()
    }

    /// The number of buffers that have an owner, for recounts.
    pub fn taken_count(&self) -> usize {
        let is_taken = |buffer: &&Buffer| matches!(buffer, Buffer::Taken { .. });
        self.buffers.iter().filter(is_taken).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(piece: u32) -> Chunk {
        Chunk {
            piece: PieceIndex(piece),
            index: 0,
        }
    }

    #[test]
    fn the_oldest_unpinned_chunk_is_evicted_first() {
        let mut cache = Cache::new(2);
        for piece in [1, 2] {
            let buffer = cache.take().unwrap();
            cache.store(buffer, chunk(piece));
        }
        let pinned = cache.pin(chunk(1)).unwrap();
        let taken = cache.take().unwrap();
        assert!(cache.contains(chunk(1)) && !cache.contains(chunk(2)));
        assert_eq!(cache.take(), None, "one is taken, one is pinned");
        cache.unpin(pinned);
        assert_eq!(cache.take(), Some(pinned));
        cache.give_back(taken);
        cache.check_invariants();
        assert_eq!(cache.available(), 1);
    }

    /// Many chunks are stored once; then the same chunks are stored again.
    #[test]
    fn the_cache_grows_only_when_evicted_chunks_come_back() {
        let mut cache = Cache::new(80);
        let mut pass = |pieces| {
            let mut touched = 0;
            for piece in pieces {
                let buffer = cache.take().unwrap();
                cache.store(buffer, chunk(piece));
                cache.check_invariants();
                touched = touched.max(buffer.0 + 1);
            }
            touched
        };
        assert_eq!(
            pass(0..60),
            80 / KEPT_PART as u32,
            "memory that was never touched stays untouched"
        );
        assert!(
            pass(0..60) > 60,
            "chunks that come back are kept from now on"
        );
    }

    #[test]
    fn a_chunk_is_stored_once() {
        let mut cache = Cache::new(2);
        let (a, b) = (cache.take().unwrap(), cache.take().unwrap());
        cache.store(a, chunk(1));
        cache.store(b, chunk(1));
        assert_eq!(cache.available(), 2);
        assert_eq!(cache.take(), Some(b));
        assert!(cache.contains(chunk(1)));
        cache.check_invariants();
    }

    /// Bytes that are still being sent keep their buffer; the chunk is stored anew in another one.
    #[test]
    fn a_forgotten_chunk_frees_its_buffer_with_the_last_pin() {
        let mut cache = Cache::new(2);
        let old = cache.take().unwrap();
        cache.store(old, chunk(1));
        assert_eq!(cache.pin(chunk(1)), Some(old));
        cache.forget(PieceIndex(1));
        assert!(!cache.contains(chunk(1)) && cache.available() == 1);
        cache.check_invariants();
        let new = cache.take().unwrap();
        cache.store(new, chunk(1));
        assert_eq!((new == old, cache.pin_count()), (false, 1));
        cache.unpin(old);
        assert_eq!(cache.available(), 2);
        cache.forget(PieceIndex(1));
        cache.check_invariants();
        assert!(!cache.free.is_empty() && cache.available() == 2);
    }
}
