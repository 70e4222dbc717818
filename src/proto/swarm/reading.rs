//! What is read from the disk next, and what is hashed next?

use alloc::vec::Vec;

use super::Swarm;
use super::interface::*;
use super::peer::Peer;
use crate::limits::*;
use crate::policy::cache::Chunk;
use crate::policy::picker::HashReady;
use crate::units::*;

impl Swarm {
    /// A request to the disk; `handle_disk` answers it. What is to be hashed comes from
    /// `poll_hash`.
    #[must_use]
    pub fn poll_disk(&mut self) -> Option<Work> {
        self.load_in_turn();
        self.disk.poll()
    }

    /// What to hash next, side by side: bytes of HASHED_AT_ONCE pieces if there are as many,
    /// because the hash unit does them in little more than twice the time of one.
    #[must_use]
    pub fn poll_hash(&mut self, patience: Patience) -> Vec<Hash> {
        if !self.is_open() {
            return Vec::new();
        }
        let mut hashes = Vec::with_capacity(HASHED_AT_ONCE);
        while hashes.len() < HASHED_AT_ONCE
            && let Some(hash) = self.next_part().or_else(|| self.next_block())
        {
            hashes.push(hash);
        }
        if !hashes.is_empty() {
            return hashes;
        }
        // A read-back can wait during the download, since peers wait for what has arrived.
        let mut read_count = self.read_queue.hashable_count();
        let read_first = match self.state {
            State::Downloading => 0,
            _ => read_count,
        };
        let received = self.picker.hashable().take(HASHED_AT_ONCE - read_first);
        let received: Vec<HashReady> = received.collect();
        read_count = read_count.min(HASHED_AT_ONCE - received.len());
        let (mut blocks, mut backlog_bytes) = (u32::MAX, 0);
        for ready in &received {
            blocks = blocks.min(ready.blocks);
            backlog_bytes += ready.backlog_bytes;
        }
        let may_wait = read_count + received.len() < HASHED_AT_ONCE
            && (read_count == 0 || self.expects_more_reads())
            && backlog_bytes <= HASH_BACKLOG_BYTES;
        if may_wait && patience == Patience::Lasts {
            return hashes;
        }
        for ready in received {
            hashes.push(self.hash_received(ready.piece, blocks));
        }
        for place in 0..HASHED_AT_ONCE {
            if hashes.len() < HASHED_AT_ONCE
                && let Some((chunk, buffer)) = self.read_queue.next_hash(place)
            {
                hashes.push(self.hash_chunk(chunk, buffer));
            }
        }
        self.read_ahead();
        hashes
    }

    /// Whether what was read is soon hashed with more of it. A seeder reads no more than its peers
    /// wait for, so its disk has little to do at any time.
    fn expects_more_reads(&self) -> bool {
        match self.state {
            State::Seeding => self.read_queue.expects_any(),
            _ => self.read_queue.expects_more(),
        }
    }

    /// Whether `poll_hash` has something with `Patience::Over`.
    pub fn has_to_hash(&self) -> bool {
        self.is_open()
            && (self.picker.has_blocks_to_hash()
                || self.read_queue.hashable_count() > 0
                || self.picker.hashable().next().is_some())
    }

    /// The next block of a bad piece.
    fn next_block(&mut self) -> Option<Hash> {
        let job = self.picker.next_block_to_hash()?;
        Some(Hash {
            of: HashOf::Block(job.piece, job.at),
            begin: 0,
            length: job.length,
            buffer: job.buffer,
            offset: job.offset,
            state: None,
            part_bytes: 0,
        })
    }

    fn hash_received(&mut self, piece: PieceIndex, blocks: u32) -> Hash {
        let run = self.picker.next_hash_run(piece, blocks);
        Hash {
            of: HashOf::Download(piece),
            begin: run.begin,
            length: run.length,
            buffer: run.buffer,
            offset: run.offset,
            state: None,
            part_bytes: 0,
        }
    }

    fn hash_chunk(&mut self, chunk: Chunk, buffer: BufferId) -> Hash {
        // The shell hashes before anything else, so the buffer may have a new owner from now on. A
        // seeder keeps the bytes: they are asked for next, and not sent before the verdict.
        match self.config.role {
            Role::Seeder if self.have().get(chunk.piece) => self.cache.store(buffer, chunk),
            _ => self.cache.give_back(buffer),
        }
        let (begin, length) = self.read_queue.span(chunk);
        Hash {
            of: HashOf::Disk(chunk.piece),
            begin,
            length,
            buffer,
            offset: 0,
            state: None,
            part_bytes: self.part_bytes(),
        }
    }

    /// Reads for the read queue, as far ahead of the hash as it allows and the pool has buffers.
    pub(super) fn read_ahead(&mut self) {
        while let Some(chunk) = self.next_to_read() {
            let Some(buffer) = self.cache.take() else {
                return;
            };
            self.read_queue.start_read();
            self.disk
                .read_for_hash(chunk, self.read_queue.span(chunk), buffer);
        }
    }

    /// The scan and a seeder have queued what is to be read; a read-back takes one ripe piece after
    /// the other.
    fn next_to_read(&mut self) -> Option<Chunk> {
        let may = match self.state {
            State::Downloading => self.may_read_back(),
            State::Verifying => self.config.verify,
            _ => return self.read_queue.next_read(),
        };
        if !may || self.read_queue.buffer_count() >= READ_AHEAD_MAX {
            return None;
        }
        let all_queued = self.read_queue.queued_count() == self.read_back.ripe_count() as usize;
        if self.read_queue.next_read().is_none() && !all_queued {
            let is_queued = |piece| self.read_queue.contains(piece);
            let piece = self.read_back.next_ripe(is_queued)?;
            self.read_queue.add(piece);
        }
        self.read_queue.next_read()
    }

    /// Whether the download leaves time of the disk, and buffers, for one more read-back.
    fn may_read_back(&self) -> bool {
        self.disk.download_count() == 0
            && self.read_queue.buffer_count() < self.spare_time.chunks()
            && self.has_buffers_to_spare()
    }

    /// With one buffer less, the next piece can still be opened if it can be now, and peers be
    /// served.
    fn has_buffers_to_spare(&self) -> bool {
        let all = self.config.buffer_count as usize;
        let serving = all / SERVING_PART;
        let piece = self
            .metainfo
            .layout
            .piece_bytes()
            .div_ceil(self.buffer_bytes) as usize;
        let may_open = self.picker.buffer_count() + piece + serving <= all;
        let kept = if may_open {
            piece.max(serving)
        } else {
            serving
        };
        self.cache.available() > kept
    }

    /// While the disk has time, a flush makes written pieces ripe for the read-back.
    pub(super) fn flush_early(&mut self) {
        if self.state == State::Downloading && self.read_back.wants_flush() && self.may_read_back()
        {
            self.read_back.begin_flush();
            self.disk.flush_early();
        }
    }

    pub(super) fn pass_disk_time(&mut self, now: Instant) {
        let (download, reads) = (self.disk.download_count(), self.disk.read_count());
        self.spare_time.pass(now, download, reads);
    }

    // ---- reads for peers

    /// This peer waits for a chunk that is not in memory: `poll_disk` has it read, unless the peer
    /// cancels its request before.
    pub(super) fn load_for(&mut self, slot: PeerSlot) {
        let is_queued = core::mem::replace(&mut self.peer(slot).is_in_loads, true);
        if !is_queued {
            self.loads.push_back(slot);
        }
    }

    /// Reads what peers have asked for, a few chunks ahead of what is being sent to them, one chunk
    /// for each peer in turn.
    fn load_in_turn(&mut self) {
        while let Some(slot) = self.loads.pop_front() {
            match self.load_one(slot) {
                Load::Begun => self.loads.push_back(slot),
                Load::NoRoom => return self.loads.push_front(slot),
                Load::Nothing => {
                    if let Some(peer) = self.peers.get_mut(slot) {
                        peer.is_in_loads = false;
                    }
                }
            }
        }
    }

    fn load_one(&mut self, slot: PeerSlot) -> Load {
        let buffer_bytes = self.buffer_bytes;
        let Some(peer) = self.peers.get(slot).filter(|_| self.is_open()) else {
            return Load::Nothing;
        };
        // Nothing is read for a peer that does not take what was read for it.
        if peer.excess_reads >= EXCESS_READS_MAX || peer.is_stalled {
            return Load::Nothing;
        }
        let ahead = next_chunks(peer, buffer_bytes, READS_PER_PEER_MAX);
        for (place, chunk) in ahead.into_iter().enumerate() {
            if self.must_hash_first(slot, chunk.piece) {
                if self.read_queue.contains(chunk.piece) {
                    continue;
                }
                self.read_queue.add(chunk.piece);
                self.note_read_for_marks(chunk.piece);
                self.read_ahead();
            } else {
                let is_there = self.cache.contains(chunk) || self.picker.is_open(chunk.piece);
                if is_there || self.disk.is_loading(chunk) {
                    continue;
                }
                if !self.disk.has_room_to_load() {
                    return Load::NoRoom;
                }
                let Some(buffer) = self.take_to_load(place == 0) else {
                    self.buffers_short |= place == 0;
                    return Load::Nothing;
                };
                self.disk.load(chunk, self.read_queue.span(chunk), buffer);
            }
            self.peer(slot).excess_reads += 1;
            return Load::Begun;
        }
        self.prove_ahead(slot)
    }

    /// Queues a piece that must be hashed before this peer gets it, while there are fewer than are
    /// hashed side by side: the next one that it waits for, or is offered.
    fn prove_ahead(&mut self, slot: PeerSlot) -> Load {
        let is_new =
            |piece: &PieceIndex| self.is_unproven(*piece) && !self.read_queue.contains(*piece);
        let is_seeder = self.config.role == Role::Seeder;
        let has_room = is_seeder && self.read_queue.queued_count() < PROVED_AHEAD;
        let peer = self.peers.get(slot).filter(|_| has_room);
        let mut later = peer.into_iter().flat_map(|peer| {
            let asked_for = peer.uploads.iter().map(|block| block.piece);
            asked_for.chain(peer.offered.iter().copied())
        });
        let Some(piece) = later.find(is_new) else {
            return Load::Nothing;
        };
        self.read_queue.add(piece);
        self.note_read_for_marks(piece);
        self.read_ahead();
        self.peer(slot).excess_reads += 1;
        Load::Begun
    }

    /// A seeder sends nothing that it has not compared with the torrent, and reads once more what
    /// it has compared if the peer waits for marks.
    pub(super) fn must_hash_first(&self, slot: PeerSlot, piece: PieceIndex) -> bool {
        let is_seeder = self.config.role == Role::Seeder;
        is_seeder && (self.is_unproven(piece) || self.must_mark(slot, piece))
    }

    fn is_unproven(&self, piece: PieceIndex) -> bool {
        self.read_back.is_unproven(piece)
    }

    /// A buffer to read into, but not one that holds what a peer is sent next: with few buffers the
    /// read for each peer would evict what was just read for another, and nothing would ever be
    /// sent. A chunk that is only read ahead evicts even less.
    fn take_to_load(&mut self, is_next: bool) -> Option<BufferId> {
        let depth = if is_next { 1 } else { READS_PER_PEER_MAX };
        let next = |peer| next_chunks(peer, self.buffer_bytes, depth);
        let readers = self.peers.values().filter(|peer| !peer.is_stalled);
        let mut spared: Vec<Chunk> = readers.flat_map(next).collect();
        spared.sort_unstable();
        self.cache.take_sparing(&spared)
    }
}

/// What became of a peer's turn to have a chunk read.
enum Load {
    Begun,
    /// All reads are taken.
    NoRoom,
    Nothing,
}

/// The first few chunks that a peer waits for.
fn next_chunks(peer: &Peer, buffer_bytes: u32, count_max: usize) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for block in &peer.uploads {
        let chunk = Chunk {
            piece: block.piece,
            index: block.begin / buffer_bytes,
        };
        if !chunks.contains(&chunk) {
            if chunks.len() == count_max {
                break;
            }
            chunks.push(chunk);
        }
    }
    chunks
}
