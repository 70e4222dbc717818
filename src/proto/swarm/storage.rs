//! What goes to the disk and comes back from it: pieces written, chunks read to be served, the flush, the read-back.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::words::*;
use super::{Pending, Swarm};
use crate::cache::Chunk;
use crate::limits::*;
use crate::peer::Peer;
use crate::readback::ReadBack;
use crate::units::*;

impl Swarm {
    pub(super) fn ticket(&mut self, pending: Pending) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.pending.insert(ticket, pending);
        ticket
    }

    pub fn handle_disk(&mut self, now: Instant, ticket: Ticket, result: Result<(), DiskError>) {
        let pending = self.pending.remove(&ticket).expect("a ticket is answered once");
        if let Err(error) = result {
            self.abort(pending);
            return self.fail(now, Failure::Disk(error));
        }
        match pending {
            Pending::Write { piece } => self.written(piece),
            Pending::Load { chunk, buffer } => {
                self.loads -= 1;
                self.cache.store(buffer, chunk);
            }
            Pending::ReadBack { chunk, buffer } => match &mut self.readback {
                Some(readback) if self.state == State::Verifying => readback.arrived(chunk, buffer),
                _ => self.cache.give_back(buffer),
            },
            Pending::Flush => self.flushed(now),
        }
        self.advance(now);
    }

    /// A disk operation failed: its buffers are free again (an open piece keeps its own; it will not be used any more).
    pub(super) fn abort(&mut self, pending: Pending) {
        match pending {
            Pending::Load { buffer, .. } => {
                self.loads -= 1;
                self.cache.give_back(buffer);
            }
            Pending::ReadBack { buffer, .. } => self.cache.give_back(buffer),
            Pending::Write { .. } | Pending::Flush => {}
        }
    }

    /// The target cannot be relied on any more, and that is what is reported, also by those who were leaving already.
    pub(super) fn fail(&mut self, now: Instant, failure: Failure) {
        let outcome = Outcome::Failed(failure);
        self.finish(now, outcome.clone());
        if let State::Leaving(before @ (Outcome::Complete | Outcome::Interrupted)) = &mut self.state {
            *before = outcome;
            self.flushed_for_leaving = true;
        }
        self.try_to_go(now);
    }

    /// A piece is on the disk: from here on it may be announced and served, out of the buffers it came in.
    pub(super) fn written(&mut self, piece: PieceIndex) {
        for (index, buffer) in self.picker.written(piece).into_iter().enumerate() {
            self.cache.store(buffer, Chunk { piece, index: index as u32 });
        }
        self.finished.push(piece);
        for peer in self.peers.iter_mut().flatten() {
            peer.wanted -= u32::from(peer.has.get(piece));
        }
        if self.have().is_full() && self.state == State::Downloading {
            self.state = State::Verifying;
            let ticket = self.ticket(Pending::Flush);
            self.work.push_back(Work::Flush { ticket });
        }
    }

    pub(super) fn flushed(&mut self, now: Instant) {
        match self.state {
            State::Verifying if self.config.verify => {
                self.readback = Some(ReadBack::new(&self.metainfo.layout, self.buffer_bytes));
            }
            State::Verifying => self.verified(now),
            State::Leaving(_) => self.flushed_for_leaving = true,
            _ => {}
        }
    }

    /// Everything is on the disk and has been read back: now it may be said.
    pub(super) fn verified(&mut self, now: Instant) {
        self.state = State::Seeding;
        self.complete_at = Some(now);
        self.tracker.complete(now);
        for slot in self.slots() {
            if self.peers[slot.index()].as_ref().is_some_and(Peer::is_live) {
                self.part_if_both_complete(now, slot);
            }
        }
    }

    /// Drives the read-back, and leaving, as far as they can go now.
    pub(super) fn advance(&mut self, now: Instant) {
        if self.state == State::Verifying
            && let Some(mut readback) = self.readback.take()
        {
            self.read_ahead(&mut readback);
            while let Some((chunk, buffer)) = readback.next_hash() {
                self.hash_read(chunk, buffer);
            }
            let (done, bad) = (readback.is_done(), readback.bad());
            let first_bad = readback.first_bad();
            self.readback = Some(readback);
            match first_bad {
                Some(piece) if done => {
                    let disk = self.disk_offset(piece);
                    self.finish(now, Outcome::Failed(Failure::ReadBack { piece, disk, bad }));
                }
                None if done => self.verified(now),
                _ => {}
            }
        }
        self.try_to_go(now);
    }

    pub(super) fn read_ahead(&mut self, readback: &mut ReadBack) {
        while let Some(chunk) = readback.next_read() {
            let Some(buffer) = self.cache.take() else { return };
            readback.start_read();
            let (begin, length) = self.span(chunk);
            let ticket = self.ticket(Pending::ReadBack { chunk, buffer });
            self.work.push_back(Work::Read { ticket, piece: chunk.piece, begin, length, buffer });
        }
    }

    pub(super) fn hash_read(&mut self, chunk: Chunk, buffer: BufferId) {
        let (begin, length) = self.span(chunk);
        self.work.push_back(Work::Hash {
            of: HashOf::ReadBack(chunk.piece),
            begin,
            length,
            buffer,
            offset: 0,
        });
        // Hashing happens before anything else, so the buffer may already be offered to others.
        self.cache.store_cold(buffer, chunk);
    }

    /// The bytes of a chunk inside its piece.
    pub(super) fn span(&self, chunk: Chunk) -> (u32, u32) {
        let begin = chunk.index * self.buffer_bytes;
        (begin, (self.metainfo.layout.piece_length(chunk.piece) - begin).min(self.buffer_bytes))
    }

    /// Reads what a peer asked for first, a few chunks ahead of what is being sent to it.
    pub(super) fn load_for(&mut self, slot: PeerSlot) {
        if !self.is_open() {
            return;
        }
        let buffer_bytes = self.buffer_bytes;
        let ahead = next_chunks(self.peer(slot), buffer_bytes, READS_PER_PEER_MAX);
        for (place, chunk) in ahead.into_iter().enumerate() {
            if self.loads < READS_MAX && !self.cache.contains(chunk) && !self.is_loading(chunk) {
                let Some(buffer) = self.take_to_load(place == 0) else { return };
                self.loads += 1;
                let (begin, length) = self.span(chunk);
                let ticket = self.ticket(Pending::Load { chunk, buffer });
                self.work.push_back(Work::Read { ticket, piece: chunk.piece, begin, length, buffer });
            }
        }
    }

    /// A buffer to read into, but none that holds what somebody is sent next: with few buffers each peer's read would throw
    /// out what was just read for another, and nothing would ever be sent. What is only read ahead throws out less.
    pub(super) fn take_to_load(&mut self, is_next: bool) -> Option<BufferId> {
        if self.cache.has_free() {
            return self.cache.take();
        }
        let (buffer_bytes, depth) = (self.buffer_bytes, if is_next { 1 } else { READS_PER_PEER_MAX });
        let peers = self.peers.iter().flatten();
        let spared: BTreeSet<Chunk> = peers.flat_map(|peer| next_chunks(peer, buffer_bytes, depth)).collect();
        self.cache.take_but(&spared)
    }

    pub(super) fn is_loading(&self, chunk: Chunk) -> bool {
        self.pending.values().any(|p| matches!(p, Pending::Load { chunk: loading, .. } if *loading == chunk))
    }
}

/// The first few chunks a peer waits for.
fn next_chunks(peer: &Peer, buffer_bytes: u32, count_max: usize) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for block in &peer.uploads {
        let chunk = Chunk { piece: block.piece, index: block.begin / buffer_bytes };
        if !chunks.contains(&chunk) {
            if chunks.len() == count_max {
                break;
            }
            chunks.push(chunk);
        }
    }
    chunks
}
