//! Which buffer of the pool holds what, and who may touch it.
//!
//! A buffer holds one *chunk*: `buffer_bytes` of one piece (the last chunk of a piece may be
//! shorter). It is
//!
//! ```text
//! Free ── take ──> Taken ── store ──> Stored ──(oldest, unpinned)──> taken again
//!                    └──── give_back ────> Free
//! ```
//!
//! *Taken* buffers belong to one owner: a piece being received, a disk read, an read_queue.
//! *Stored* ones hold bytes that are on the disk and may be sent; each block being sent pins its
//! buffer, and a pinned buffer is never taken. If they turn out not to be on the disk the chunk is
//! *forgotten*: nobody finds it any more, and the last pin frees its buffer.
//!
//! Memory that was never touched costs nothing, so the cache is content with a part of the pool
//! until somebody asks for what it has given up: then it keeps more.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::limits::{KEPT_MIN, KEPT_MORE, KEPT_PART};
use crate::units::{BufferId, PieceIndex};

/// A part of a piece as large as a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chunk {
    pub piece: PieceIndex,
    pub index: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Buffer {
    Free,
    Taken,
    Stored {
        chunk: Chunk,
        pins: u32,
        used: u64,
    },
    /// What was in it is not to be sent again; it is still being sent.
    Forgotten {
        pins: u32,
    },
}

pub struct Cache {
    buffers: Vec<Buffer>,
    /// Last in, first out: memory that was never touched stays untouched as long as possible.
    free: Vec<BufferId>,
    stored: BTreeMap<Chunk, BufferId>,
    /// How many of the stored buffers are pinned.
    pinned: usize,
    /// So many chunks are stored before the oldest gives way though there are free buffers.
    kept_max: usize,
    /// The last chunks that gave way, as many as there are buffers.
    gone: VecDeque<Chunk>,
    /// Counts uses; the buffer with the lowest `used` is the oldest.
    uses: u64,
}

impl Cache {
    pub fn new(buffer_count: u32) -> Cache {
        Cache {
            buffers: alloc::vec![Buffer::Free; buffer_count as usize],
            free: (0..buffer_count).rev().map(BufferId).collect(),
            stored: BTreeMap::new(),
            pinned: 0,
            kept_max: (buffer_count as usize / KEPT_PART).max(KEPT_MIN),
            gone: VecDeque::new(),
            uses: 0,
        }
    }

    /// A buffer for the caller alone: the one whose chunk was used longest ago if as many are
    /// stored as shall be, else a free one, else that one nevertheless. None if all are in use.
    pub fn take(&mut self) -> Option<BufferId> {
        self.take_but(&BTreeSet::new())
    }

    /// Like `take`, but these chunks stay.
    pub fn take_but(&mut self, spared: &BTreeSet<Chunk>) -> Option<BufferId> {
        let enough = (self.stored.len() >= self.kept_max)
            .then(|| self.evict(spared))
            .flatten();
        let buffer = enough
            .or_else(|| self.free.pop())
            .or_else(|| self.evict(spared))?;
        self.buffers[buffer.index()] = Buffer::Taken;
        Some(buffer)
    }

    /// How many `take` would give now.
    pub fn available(&self) -> usize {
        self.free.len() + self.stored.len() - self.pinned
    }

    pub fn give_back(&mut self, buffer: BufferId) {
        assert_eq!(self.buffers[buffer.index()], Buffer::Taken);
        self.buffers[buffer.index()] = Buffer::Free;
        self.free.push(buffer);
    }

    /// The buffer now holds `chunk` as it is on the disk. If another one does already, this one
    /// becomes free.
    pub fn store(&mut self, buffer: BufferId, chunk: Chunk) {
        assert_eq!(self.buffers[buffer.index()], Buffer::Taken);
        if self.stored.contains_key(&chunk) {
            return self.give_back(buffer);
        }
        if let Some(place) = self.gone.iter().position(|gone| *gone == chunk) {
            self.gone.remove(place);
            self.kept_max = (self.kept_max + KEPT_MORE).min(self.buffers.len());
        }
        self.uses += 1;
        self.buffers[buffer.index()] = Buffer::Stored {
            chunk,
            pins: 0,
            used: self.uses,
        };
        self.stored.insert(chunk, buffer);
    }

    /// Whatever is stored of a piece is not what ought to be there.
    pub fn forget(&mut self, piece: PieceIndex) {
        let all = Chunk { piece, index: 0 }..=Chunk {
            piece,
            index: u32::MAX,
        };
        while let Some((&chunk, &buffer)) = self.stored.range(all.clone()).next() {
            self.stored.remove(&chunk);
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

    /// Pins the buffer that holds `chunk`, once per call, until as many `unpin`.
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

    pub fn unpin(&mut self, buffer: BufferId) {
        match &mut self.buffers[buffer.index()] {
            Buffer::Stored { pins, .. } if *pins > 0 => {
                *pins -= 1;
                self.pinned -= usize::from(*pins == 0);
            }
            Buffer::Forgotten { pins } if *pins > 0 => *pins -= 1,
            _ => panic!("only pinned buffers are unpinned"),
        }
        self.free_if_unused(buffer);
    }

    fn evict(&mut self, spared: &BTreeSet<Chunk>) -> Option<BufferId> {
        let unpinned = |buffer: &Buffer| match *buffer {
            Buffer::Stored {
                chunk,
                pins: 0,
                used,
            } if !spared.contains(&chunk) => Some((used, chunk)),
            _ => None,
        };
        let (_, chunk) = self
            .buffers
            .iter()
            .filter_map(unpinned)
            .min_by_key(|(used, _)| *used)?;
        self.gone.truncate(self.buffers.len() - 1);
        self.gone.push_front(chunk);
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
        for (chunk, id) in &self.stored {
            assert!(
                matches!(self.buffers[id.index()], Buffer::Stored { chunk: held, .. } if held == *chunk)
            );
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

    /// Pins over all buffers, for recounts.
    pub fn pin_count(&self) -> u32 {
        let pins = |buffer: &Buffer| match *buffer {
            Buffer::Stored { pins, .. } | Buffer::Forgotten { pins } => pins,
            Buffer::Free | Buffer::Taken => 0,
        };
        self.buffers.iter().map(pins).sum()
    }

    /// Whether anything of a piece is stored, for recounts.
    pub fn holds(&self, piece: PieceIndex) -> bool {
        self.stored
            .range(
                Chunk { piece, index: 0 }..=Chunk {
                    piece,
                    index: u32::MAX,
                },
            )
            .next()
            .is_some()
    }

    /// Buffers that somebody owns, for recounts.
    pub fn taken_count(&self) -> usize {
        self.buffers.iter().filter(|b| **b == Buffer::Taken).count()
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
    fn the_oldest_unpinned_chunk_goes_first() {
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

    /// Many pieces go through, and nobody asks for one again; then somebody does.
    #[test]
    fn no_more_is_kept_than_is_asked_for_again() {
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
            "memory that was never touched stays so"
        );
        assert!(
            pass(0..60) > 60,
            "what is asked for again is kept from now on"
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

    /// What is still being sent keeps its buffer, and a new chunk of that name gets another one.
    #[test]
    fn a_forgotten_chunk_frees_its_buffer_with_the_last_pin() {
        let mut cache = Cache::new(2);
        let old = cache.take().unwrap();
        cache.store(old, chunk(1));
        cache.pin(chunk(1)).unwrap();
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
