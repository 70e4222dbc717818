//! What is on the disk, what goes there and what comes back: the scan, pieces written and zeroed,
//! chunks read to be served, the flush, the read-back.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use super::interface::*;
use super::{Pending, ScanStage, Swarm};
use crate::limits::*;
use crate::policy::cache::Chunk;
use crate::swarm::peer::Peer;
use crate::units::*;
use crate::wire::message::Message;

impl Swarm {
    pub(super) fn ticket(&mut self, pending: Pending) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.pending.insert(ticket, pending);
        ticket
    }

    pub fn handle_disk(&mut self, now: Instant, ticket: Ticket, result: Result<(), DiskError>) {
        let pending = self
            .pending
            .remove(&ticket)
            .expect("a ticket is answered once");
        match (result, self.config.role) {
            (Ok(()), _) => self.done(now, pending),
            (Err(error), Role::Leecher) => self.target_fails(now, pending, error),
            (Err(error), Role::Seeder) => self.unreadable(now, pending, error),
        }
        self.advance(now);
    }

    fn done(&mut self, now: Instant, pending: Pending) {
        match pending {
            Pending::Write { piece, from } => self.written(now, piece, from),
            Pending::Load {
                chunk,
                buffer,
                good,
            } => {
                self.loads -= 1;
                if good {
                    self.cache.store(buffer, chunk);
                } else {
                    self.cache.give_back(buffer);
                }
            }
            Pending::ReadAndHash { chunk, buffer } if self.is_open() => {
                self.read_queue.arrived(chunk, buffer)
            }
            Pending::ReadAndHash { buffer, .. } => self.cache.give_back(buffer),
            Pending::Flush => self.flushed(now),
        }
    }

    /// A disk operation failed: its buffers are free again (an open piece keeps its own; it will
    /// not be used any more).
    fn abort(&mut self, pending: Pending) {
        match pending {
            Pending::Load { buffer, .. } => {
                self.loads -= 1;
                self.cache.give_back(buffer);
            }
            Pending::ReadAndHash { buffer, .. } => self.cache.give_back(buffer),
            Pending::Write { .. } | Pending::Flush => {}
        }
    }

    /// What the scan cannot read is not there: many a sector torn by a power cut is healed by
    /// writing it. A disk that is gone fails at the first write.
    fn target_fails(&mut self, now: Instant, pending: Pending, error: DiskError) {
        match pending {
            Pending::ReadAndHash {
                chunk: Chunk { piece, .. },
                ..
            } if self.state == State::Scanning => {
                if self.unread.insert(piece) {
                    self.unread_count += 1;
                    if self.unread_count <= UNREAD_TOLD_MAX {
                        self.tell(Event::TargetBad { piece, error });
                    }
                }
                // Its turn at the hash must come, or those behind it would wait for ever; the
                // verdict is known already.
                self.done(now, pending);
            }
            _ => {
                self.abort(pending);
                self.fail(now, Failure::Disk(error));
            }
        }
    }

    /// A seeder goes on with what it can read.
    fn unreadable(&mut self, now: Instant, pending: Pending, error: DiskError) {
        let (Pending::Load { chunk, .. } | Pending::ReadAndHash { chunk, .. }) = &pending else {
            unreachable!("a seeder only reads")
        };
        self.lose_source(now, chunk.piece, Some(error));
        match pending {
            // Its turn at the hash must come, or those behind it would wait for ever; the verdict
            // is known already.
            Pending::ReadAndHash { .. } => self.done(now, pending),
            _ => self.abort(pending),
        }
    }

    /// The target cannot be relied on any more, and that is what is reported, also by those who
    /// were leaving already.
    pub(super) fn fail(&mut self, now: Instant, failure: Failure) {
        let outcome = Outcome::Failed(failure);
        self.finish(now, outcome.clone());
        if let State::Leaving(before @ (Outcome::Complete | Outcome::Interrupted)) = &mut self.state
        {
            *before = outcome;
            self.flushed_for_leaving = true;
        }
        self.try_to_go(now);
    }

    // ---- what is there, and what is missing

    /// A few pieces first: a disk that holds none of them is not worth a full reading.
    pub(super) fn take_sample(&mut self, now: Instant) {
        let sample = self.contents.sample(&self.metainfo.layout, &mut self.rng);
        sample
            .into_iter()
            .for_each(|piece| self.read_queue.add(piece));
        self.advance(now);
    }

    /// All pieces that were to be looked at have been.
    fn scanned(&mut self, now: Instant) {
        if self.scan == (ScanStage::Sample { good: true }) {
            self.scan = ScanStage::Rest;
            self.unknown
                .ones()
                .for_each(|piece| self.read_queue.add(piece));
            self.read_ahead();
        }
        if self.read_queue.is_idle() {
            self.miss_unknown(now);
        }
    }

    /// Whatever nobody has looked at is not there.
    pub(super) fn miss_unknown(&mut self, now: Instant) {
        for piece in self.unknown.clone().ones() {
            self.unknown.clear(piece);
            self.miss(piece);
        }
        self.state = State::Downloading;
        // The endgame may have begun.
        self.peers
            .iter_mut()
            .flatten()
            .for_each(|peer| peer.nothing_at = None);
        self.progress_at = now;
        self.advance(now);
    }

    /// A piece is known not to be on the disk. Zeros are made there; of equal pieces one is
    /// fetched, for all.
    fn miss(&mut self, piece: PieceIndex) {
        if self.have().get(piece) || self.coming.get(piece) {
            return;
        }
        if self.contents.is_zero(piece) {
            return self.zeros.push_back(piece);
        }
        // An equal one that is known to be missing is on its way already.
        let missing = |equal: PieceIndex| !self.have().get(equal) && !self.unknown.get(equal);
        if self.contents.equals(piece).any(missing) {
            return;
        }
        self.picker.want(piece);
        for peer in self.peers.iter_mut().flatten() {
            peer.wanted += u32::from(peer.has.get(piece));
        }
    }

    /// It has come, or comes with an equal one.
    fn unwant(&mut self, piece: PieceIndex) {
        if self.picker.unwant(piece) {
            for peer in self.peers.iter_mut().flatten() {
                peer.wanted -= u32::from(peer.has.get(piece));
            }
        }
    }

    /// A piece is on the disk: from here on it may be announced and served.
    fn got(&mut self, piece: PieceIndex) {
        self.unknown.clear(piece);
        if !self.have().get(piece) {
            self.picker.acquired(piece);
            self.news.push(piece);
        }
    }

    /// What was thought to be on the disk is not. Who asked for it is refused, and everybody is
    /// told.
    fn lose(&mut self, piece: PieceIndex) {
        self.picker.lost(piece);
        self.news.push(piece);
        self.unproven.clear(piece);
        self.cache.forget(piece);
        for pending in self.pending.values_mut() {
            if let Pending::Load { chunk, good, .. } = pending {
                *good &= chunk.piece != piece;
            }
        }
        for peer in self.peers.iter_mut().flatten() {
            peer.offered.retain(|offered| *offered != piece);
            let (asked, others) = peer
                .uploads
                .drain(..)
                .partition(|block: &Block| block.piece == piece);
            peer.uploads = others;
            if peer.fast {
                let asked: VecDeque<Block> = asked;
                peer.replies
                    .extend(asked.into_iter().map(|block| Message::Reject(block.into())));
            }
        }
    }

    /// A seeder does without a piece that is not what the torrent says, or that it cannot read.
    fn lose_source(&mut self, now: Instant, piece: PieceIndex, error: Option<DiskError>) {
        if !self.have().get(piece) {
            return;
        }
        self.lose(piece);
        let disk = self.disk_offset(piece);
        self.tell(Event::SourceBad { piece, disk, error });
        if self.have().is_empty() {
            self.fail(now, Failure::NothingToServe);
        }
    }

    /// A piece was read from the disk and hashed.
    pub(super) fn inspected(&mut self, now: Instant, piece: PieceIndex, good: bool) {
        self.read_queue.judged(piece);
        // Its buffer may have held the same bytes before.
        let good = !self.unread.remove(&piece) && good;
        match (&self.state, good) {
            // It came with an equal one while it was being read; the end of the write will tell.
            (State::Scanning, _) if self.coming.get(piece) => {}
            (State::Scanning, true) => {
                if let ScanStage::Sample { good } = &mut self.scan {
                    *good = true;
                }
                self.got(piece);
            }
            (State::Scanning, false) => {
                self.unknown.clear(piece);
                self.miss(piece);
            }
            (State::Verifying | State::Seeding, true) => {
                self.unproven.clear(piece);
            }
            (State::Verifying, false) => self.read_back_bad(piece),
            (State::Seeding, false) => self.lose_source(now, piece, None),
            _ => {}
        }
    }

    /// Once may be the memory of a disk; twice is the disk.
    fn read_back_bad(&mut self, piece: PieceIndex) {
        let again = self.retried.insert(piece);
        let disk = self.disk_offset(piece);
        self.tell(Event::ReadBackBad { piece, disk, again });
        if again {
            self.lose(piece);
            self.miss(piece);
        } else {
            self.bad_again += 1;
            self.first_bad.get_or_insert(piece);
        }
    }

    // ---- onto the disk

    /// A piece came whole and good: it goes to its place, and to those of all equal pieces that are
    /// missing.
    pub(super) fn write(&mut self, piece: PieceIndex) {
        let missing = |equal: &PieceIndex| {
            !self.have().get(*equal) && !self.coming.get(*equal) && !self.picker.is_open(*equal)
        };
        let equals: Vec<PieceIndex> = self.contents.equals(piece).filter(missing).collect();
        self.write_to(piece, piece);
        for equal in equals {
            self.picker.write_again(piece);
            self.unwant(equal);
            self.coming.set(equal);
            self.copies.push_back((equal, piece));
        }
    }

    fn write_to(&mut self, place: PieceIndex, from: PieceIndex) {
        self.unwant(place);
        self.coming.set(place);
        let buffers = self.picker.buffers(from).to_vec();
        let ticket = self.ticket(Pending::Write {
            piece: place,
            from: Some(from),
        });
        self.work.push_back(Work::Write {
            ticket,
            piece: place,
            buffers,
        });
    }

    /// A disk may be full of one byte: its pieces are written a few at a time, or the list of what
    /// is being written would need more memory than the pool.
    fn write_copies(&mut self) {
        let is_copy =
            |p: &&Pending| matches!(p, Pending::Write { piece, from: Some(from) } if piece != from);
        let room = COPY_WRITES_MAX - self.pending.values().filter(is_copy).count();
        for _ in 0..room {
            let Some((place, from)) = self.copies.pop_front() else {
                return;
            };
            self.write_to(place, from);
        }
    }

    /// Not during a read-back: what is written then would be neither flushed nor read.
    fn write_zeros(&mut self) {
        let zeroing = |p: &&Pending| matches!(p, Pending::Write { from: None, .. });
        let room = ZERO_WRITES_MAX - self.pending.values().filter(zeroing).count();
        for _ in 0..room {
            let Some(piece) = self.zeros.pop_front() else {
                return;
            };
            self.coming.set(piece);
            let ticket = self.ticket(Pending::Write { piece, from: None });
            self.work.push_back(Work::Zero { ticket, piece });
        }
    }

    fn written(&mut self, now: Instant, piece: PieceIndex, from: Option<PieceIndex>) {
        self.progress_at = now;
        self.coming.clear(piece);
        self.got(piece);
        self.unproven.set(piece);
        if let Some(from) = from
            && let Some(buffers) = self.picker.written(from)
        {
            for (index, buffer) in buffers.into_iter().enumerate() {
                self.cache.store(
                    buffer,
                    Chunk {
                        piece: from,
                        index: index as u32,
                    },
                );
            }
        }
    }

    fn flushed(&mut self, now: Instant) {
        match self.state {
            State::Verifying if self.config.verify => {
                self.read_queue.restart();
                self.unproven
                    .ones()
                    .for_each(|piece| self.read_queue.add(piece));
                if self.read_queue.is_idle() {
                    self.verified(now);
                }
            }
            State::Verifying => self.verified(now),
            State::Leaving(_) => self.flushed_for_leaving = true,
            _ => {}
        }
    }

    /// Every piece that was written has been read back: what is missing now is fetched again.
    fn read_back(&mut self, now: Instant) {
        match self.first_bad {
            Some(piece) => {
                let (disk, bad) = (self.disk_offset(piece), self.bad_again);
                self.finish(now, Outcome::Failed(Failure::ReadBack { piece, disk, bad }));
            }
            None if self.have().is_full() => self.verified(now),
            None => {
                self.state = State::Downloading;
                self.progress_at = now;
                self.advance(now);
            }
        }
    }

    /// Everything is on the disk and has been read back: now it may be said.
    fn verified(&mut self, now: Instant) {
        self.state = State::Seeding;
        self.complete_at = Some(now);
        self.tracker.complete(now);
    }

    /// Drives what needs nobody from outside: the read_queue, zeros, the next state, leaving.
    pub(super) fn advance(&mut self, now: Instant) {
        if self.is_open() {
            self.read_ahead();
            if self.is_fetching() {
                self.write_copies();
                self.write_zeros();
            }
            let read_through = self.read_queue.is_idle() && !self.is_flushing();
            match self.state {
                State::Scanning if read_through => self.scanned(now),
                State::Downloading if self.have().is_full() => {
                    self.state = State::Verifying;
                    let ticket = self.ticket(Pending::Flush);
                    self.work.push_back(Work::Flush { ticket });
                }
                State::Verifying if read_through => self.read_back(now),
                _ => {}
            }
        }
        self.try_to_go(now);
    }

    fn is_flushing(&self) -> bool {
        self.pending.values().any(|p| matches!(p, Pending::Flush))
    }

    // ---- from the disk

    fn read_ahead(&mut self) {
        while let Some(chunk) = self.read_queue.next_read() {
            let Some(buffer) = self.cache.take() else {
                return;
            };
            self.read_queue.start_read();
            let (begin, length) = self.span(chunk);
            let ticket = self.ticket(Pending::ReadAndHash { chunk, buffer });
            self.work.push_back(Work::Read {
                ticket,
                piece: chunk.piece,
                begin,
                length,
                buffer,
            });
        }
    }

    /// What is to be hashed next, of two pieces if there are two: the hash unit does both in little
    /// more time than one. Who is `patient` gets nothing of one alone as long as a second one may
    /// come.
    pub fn poll_hash(&mut self, patient: bool) -> [Option<Hash>; 2] {
        if !self.is_open() {
            return [None; 2];
        }
        let places = first_two(self.read_queue.hashable());
        match (places, first_two(self.picker.hashable())) {
            ([Some(_), Some(_)], _) => self.hash_read(places),
            ([Some(_), None], _) if !patient || self.read_queue.waits_for_hash() => {
                self.hash_read(places)
            }
            (_, [Some(first), Some(second)]) => {
                let blocks = first.blocks.min(second.blocks);
                [first.piece, second.piece].map(|piece| Some(self.hash_received(piece, blocks)))
            }
            (_, [Some(alone), None]) if !patient || alone.backlog_bytes > HASH_BACKLOG_BYTES => {
                [Some(self.hash_received(alone.piece, alone.blocks)), None]
            }
            _ => [None; 2],
        }
    }

    /// Whether `poll_hash` has something for those who are not patient.
    pub fn has_to_hash(&self) -> bool {
        self.is_open()
            && (self.read_queue.hashable().next().is_some()
                || self.picker.hashable().next().is_some())
    }

    fn hash_received(&mut self, piece: PieceIndex, blocks: u32) -> Hash {
        let run = self.picker.next_hash_run(piece, blocks);
        let (begin, length) = (run.begin, run.length);
        Hash {
            of: HashOf::Download(piece),
            begin,
            length,
            buffer: run.buffer,
            offset: run.offset,
        }
    }

    fn hash_read(&mut self, places: [Option<usize>; 2]) -> [Option<Hash>; 2] {
        let chunks = places.map(|place| self.read_queue.next_hash(place?));
        let hashes =
            chunks.map(|chunk| chunk.map(|(chunk, buffer)| self.hash_chunk(chunk, buffer)));
        self.read_ahead();
        hashes
    }

    fn hash_chunk(&mut self, chunk: Chunk, buffer: BufferId) -> Hash {
        let (begin, length) = self.span(chunk);
        // Hashing happens before anything else, so others may have the buffer. What a seeder looked
        // at is asked for next; it is not sent before the verdict.
        match self.config.role {
            Role::Seeder if self.have().get(chunk.piece) => self.cache.store(buffer, chunk),
            _ => self.cache.give_back(buffer),
        }
        Hash {
            of: HashOf::Disk(chunk.piece),
            begin,
            length,
            buffer,
            offset: 0,
        }
    }

    /// The bytes of a chunk inside its piece.
    pub(super) fn span(&self, chunk: Chunk) -> (u32, u32) {
        let begin = chunk.index * self.buffer_bytes;
        (
            begin,
            (self.metainfo.layout.piece_length(chunk.piece) - begin).min(self.buffer_bytes),
        )
    }

    /// Reads what a peer asked for first, a few chunks ahead of what is being sent to it.
    pub(super) fn load_for(&mut self, slot: PeerSlot) {
        if !self.is_open() {
            return;
        }
        let buffer_bytes = self.buffer_bytes;
        let ahead = next_chunks(self.peer(slot), buffer_bytes, READS_PER_PEER_MAX);
        for (place, chunk) in ahead.into_iter().enumerate() {
            if self.must_look_at(chunk.piece) {
                if !self.read_queue.contains(chunk.piece) {
                    self.read_queue.add(chunk.piece);
                }
            } else if self.loads < READS_MAX
                && !self.cache.contains(chunk)
                && !self.is_loading(chunk)
            {
                let Some(buffer) = self.take_to_load(place == 0) else {
                    return;
                };
                self.loads += 1;
                let (begin, length) = self.span(chunk);
                let ticket = self.ticket(Pending::Load {
                    chunk,
                    buffer,
                    good: true,
                });
                self.work.push_back(Work::Read {
                    ticket,
                    piece: chunk.piece,
                    begin,
                    length,
                    buffer,
                });
            }
        }
        self.read_ahead();
    }

    /// A seeder gives away nothing that it has not compared with the torrent.
    pub(super) fn must_look_at(&self, piece: PieceIndex) -> bool {
        self.config.role == Role::Seeder && self.unproven.get(piece)
    }

    /// A buffer to read into, but none that holds what somebody is sent next: with few buffers each
    /// peer's read would throw out what was just read for another, and nothing would ever be sent.
    /// What is only read ahead throws out less.
    pub(super) fn take_to_load(&mut self, is_next: bool) -> Option<BufferId> {
        let (buffer_bytes, depth) = (
            self.buffer_bytes,
            if is_next { 1 } else { READS_PER_PEER_MAX },
        );
        let peers = self.peers.iter().flatten();
        let spared: BTreeSet<Chunk> = peers
            .flat_map(|peer| next_chunks(peer, buffer_bytes, depth))
            .collect();
        self.cache.take_but(&spared)
    }

    pub(super) fn is_loading(&self, chunk: Chunk) -> bool {
        self.pending
            .values()
            .any(|p| matches!(p, Pending::Load { chunk: loading, .. } if *loading == chunk))
    }
}

fn first_two<T>(mut all: impl Iterator<Item = T>) -> [Option<T>; 2] {
    [all.next(), all.next()]
}

/// The first few chunks a peer waits for.
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
