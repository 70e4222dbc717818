//! What follows from an answer of the disk or of the hash unit?

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::Swarm;
use super::disk_queue::Pending;
use super::interface::*;
use super::peer::Peer;
use super::placing::Copy;
use super::read_back::Remedy;
use crate::policy::cache::Chunk;
use crate::policy::mesh::Ending;
use crate::policy::picker::Verdict;
use crate::units::*;

impl Swarm {
    /// The disk has done what `poll_disk` asked for under this ticket, or has failed to.
    pub fn handle_disk(&mut self, now: Instant, ticket: Ticket, result: Result<(), DiskError>) {
        self.pass_disk_time(now);
        let pending = self.disk.finish(ticket);
        if let Pending::ReadForHash { .. } = pending {
            self.spare_time.chunk_ended();
        }
        match (result, self.config.role) {
            (Ok(()), _) => self.done(now, pending),
            (Err(error), Role::Leecher) => self.target_fails(now, pending, error),
            (Err(error), Role::Seeder) => self.source_fails(now, pending, error),
        }
        self.advance(now);
    }

    fn done(&mut self, now: Instant, pending: Pending) {
        match pending {
            Pending::Write { piece, from } => self.written(now, piece, from),
            Pending::Load {
                chunk,
                buffer,
                stale: false,
            } => self.cache.store(buffer, chunk),
            Pending::ReadForHash { chunk, buffer } if self.is_open() => {
                self.read_queue.arrived(chunk, buffer);
            }
            Pending::Load { buffer, .. } | Pending::ReadForHash { buffer, .. } => {
                self.cache.give_back(buffer);
            }
            Pending::Flush => self.flushed(now),
            Pending::EarlyFlush => self.read_back.note_flushed(),
        }
    }

    /// A request failed: its buffers are free again. An open piece keeps its own, but will not be
    /// used any more.
    fn abort(&mut self, pending: Pending) {
        match pending {
            Pending::Load { buffer, .. } | Pending::ReadForHash { buffer, .. } => {
                self.cache.give_back(buffer);
            }
            Pending::Write { piece, from } => self.placing.end(piece, from),
            Pending::Flush | Pending::EarlyFlush => {}
        }
    }

    /// The scan takes what it cannot read for missing. Every other error is the end.
    fn target_fails(&mut self, now: Instant, pending: Pending, error: DiskError) {
        match pending {
            Pending::ReadForHash { chunk, .. } if self.state == State::Scanning => {
                let piece = chunk.piece;
                if self.scan.note_unreadable(piece) {
                    self.tell(Event::TargetBad { piece, error });
                }
                // The piece must have its turn at the hash, or the pieces behind it would wait for
                // ever. The verdict is known already.
                self.done(now, pending);
            }
            _ => {
                self.abort(pending);
                self.fail(now, Failure::Disk(error));
            }
        }
    }

    /// A seeder goes on with the pieces that it can read.
    fn source_fails(&mut self, now: Instant, pending: Pending, error: DiskError) {
        let (Pending::Load { chunk, .. } | Pending::ReadForHash { chunk, .. }) = &pending else {
            unreachable!("a seeder only reads")
        };
        self.lose_source(now, chunk.piece, Some(error));
        match pending {
            // As in `target_fails`: its turn at the hash must come.
            Pending::ReadForHash { .. } => self.done(now, pending),
            _ => self.abort(pending),
        }
    }

    /// The hash of a whole piece is known.
    pub fn handle_hashed(&mut self, now: Instant, of: HashOf, digest: PieceHash) {
        self.pass_disk_time(now);
        let matches = self.metainfo.hashes[of.piece().index()] == digest;
        match of {
            HashOf::Block(piece, at) => self.note_block_hash(now, piece, at, digest),
            HashOf::Part {
                piece,
                begin,
                length,
            } => self.judge_part(piece, begin..begin + length, digest),
            HashOf::Download(piece) => self.judge_download(now, piece, matches),
            HashOf::Disk(piece) => self.judge_read(now, piece, matches),
        }
        self.advance(now);
    }

    fn judge_download(&mut self, now: Instant, piece: PieceIndex, good: bool) {
        let verdict = self.picker.judge(piece, good);
        if !good {
            let length = self.metainfo.layout.piece_length(piece);
            self.traffic.note_unused(length);
        }
        self.take_verdict(now, piece, verdict);
    }

    /// The hash of one block of a piece that was bad is known. Its first bits suffice to tell a bad
    /// block from a good one.
    fn note_block_hash(
        &mut self,
        now: Instant,
        piece: PieceIndex,
        at: BlockIndex,
        hash: PieceHash,
    ) {
        let bits = hash.0[..8]
            .iter()
            .fold(0, |bits, byte| bits << 8 | u64::from(*byte));
        let Some((verdict, liars)) = self.picker.note_block_hash(piece, at, bits) else {
            return;
        };
        for liar in liars {
            if let Some(liar) = self.blame(now, liar) {
                self.tell(Event::BlockBad { piece, liar });
            }
        }
        self.take_verdict(now, piece, verdict);
    }

    fn take_verdict(&mut self, now: Instant, piece: PieceIndex, verdict: Verdict) {
        match verdict {
            Verdict::Check => {}
            // An agent that leaves starts nothing new: it might come after the last flush.
            Verdict::Good if !self.is_open() => {}
            Verdict::Good => self.write(piece),
            Verdict::Bad { liar } => {
                let liar = liar.and_then(|giver| self.blame(now, giver));
                self.tell(Event::PieceBad { piece, liar });
            }
        }
    }

    /// This giver sent bad data: its connection is closed, and it is kept away for a while. Its
    /// address, if it is still known.
    fn blame(&mut self, now: Instant, giver: Giver) -> Option<SocketAddr> {
        let address = self.blame.blame(now, giver);
        let of_giver =
            |(slot, peer): (PeerSlot, &Peer)| (peer.giver == Some(giver)).then_some(slot);
        let slot = self.peers.iter().find_map(of_giver);
        if let Some(slot) = slot {
            self.close(now, slot, Ending::Failed, "it sent bad data");
        }
        address
    }

    /// A piece was read from the disk and hashed.
    fn judge_read(&mut self, now: Instant, piece: PieceIndex, hash_matches: bool) {
        self.read_queue.judged(piece);
        let good = self.scan.verdict(piece, hash_matches);
        match (&self.state, good) {
            // It came with an equal piece while it was being read; the end of the write decides.
            (State::Scanning, _) if self.placing.is_coming(piece) => {}
            (State::Scanning, true) => {
                self.scan.note_good();
                self.got(piece);
            }
            (State::Scanning, false) => {
                self.scan.resolve(piece);
                self.miss(piece);
            }
            (State::Downloading | State::Verifying | State::Seeding, true) => {
                self.read_back.note_proven(piece);
            }
            (State::Downloading, false) => {
                self.read_back_bad(piece);
                self.fail_if_bad_twice(now);
            }
            (State::Verifying, false) => self.read_back_bad(piece),
            (State::Seeding, false) => self.lose_source(now, piece, None),
            _ => {}
        }
    }

    fn read_back_bad(&mut self, piece: PieceIndex) {
        let remedy = self.read_back.note_bad(piece);
        let disk = self.disk_offset(piece);
        let again = remedy == Remedy::FetchAgain;
        self.tell(Event::ReadBackBad { piece, disk, again });
        // It is not fetched for the third time: the read-back ends in a failure. But from now on
        // nobody is told that it is here, or gets it.
        self.lose(piece);
        self.miss(piece);
    }

    // ---- pieces come and go

    /// A piece is known not to be on the disk. Zeros are made there; of equal pieces one is
    /// fetched, for all.
    pub(super) fn miss(&mut self, piece: PieceIndex) {
        if self.have().get(piece) || self.placing.is_coming(piece) {
            return;
        }
        if self.contents.is_zero(piece) {
            return self.placing.add_zeros(piece);
        }
        // With an equal piece that is known to be missing it comes, unless that is being written
        // already: its copies were chosen before.
        let is_fetched = |equal: PieceIndex| {
            let is_missing = !self.have().get(equal) && !self.scan.is_unknown(equal);
            is_missing && !self.placing.is_coming(equal)
        };
        if self.contents.equals(piece).any(is_fetched) {
            return;
        }
        self.picker.want(piece);
        self.peers.note_wanted(piece);
    }

    /// A piece has come, or comes with an equal one.
    fn unwant(&mut self, piece: PieceIndex) {
        if self.picker.unwant(piece) {
            self.peers.note_unwanted(piece);
        }
    }

    /// A piece is on the disk: from now on it may be announced and served.
    fn got(&mut self, piece: PieceIndex) {
        self.scan.resolve(piece);
        if !self.have().get(piece) {
            self.picker.acquired(piece);
            self.changes.push(piece);
        }
    }

    /// A piece that was thought to be on the disk is not. Requests for it are rejected, and all
    /// peers are told.
    fn lose(&mut self, piece: PieceIndex) {
        self.picker.lost(piece);
        self.changes.push(piece);
        self.read_back.note_lost(piece);
        self.cache.forget(piece);
        self.disk.mark_loads_stale(piece);
        for peer in self.peers.values_mut() {
            peer.drop_uploads_of(piece);
        }
    }

    /// A seeder goes on without a piece that is not what the torrent says, or cannot be read.
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

    // ---- writes

    /// A piece came whole and good. It is written to its own place, and later to the places of all
    /// equal pieces that are missing.
    fn write(&mut self, piece: PieceIndex) {
        let missing = |equal: &PieceIndex| {
            let coming = self.placing.is_coming(*equal) || self.picker.is_open(*equal);
            !self.have().get(*equal) && !coming
        };
        let equals: Vec<PieceIndex> = self.contents.equals(piece).filter(missing).collect();
        self.placing.start_fetched(piece);
        self.write_to(piece, piece);
        for equal in equals {
            self.picker.write_again(piece);
            self.unwant(equal);
            self.placing.add_copy(equal, piece);
        }
    }

    fn write_to(&mut self, place: PieceIndex, from: PieceIndex) {
        self.unwant(place);
        let buffers = self.picker.buffers(from).to_vec();
        self.disk.write(place, from, buffers);
    }

    /// Not during a read-back: what is written then would be neither flushed nor read back.
    pub(super) fn write_copies(&mut self) {
        while let Some(Copy { place, from }) = self.placing.start_copy() {
            self.write_to(place, from);
        }
    }

    /// Not during a read-back, as `write_copies`.
    pub(super) fn write_zeros(&mut self) {
        while self.may_write()
            && let Some(piece) = self.placing.start_zeros()
        {
            self.disk.zero(piece);
        }
    }

    fn written(&mut self, now: Instant, piece: PieceIndex, from: Option<PieceIndex>) {
        self.progress_at = now;
        self.placing.end(piece, from);
        self.got(piece);
        // Zeros that the disk makes by itself take no room in its cache.
        let bytes = from.map_or(0, |_| self.metainfo.layout.piece_length(piece));
        self.read_back.note_written(piece, bytes);
        let Some(from) = from else {
            return;
        };
        let buffers = self.picker.written(from).unwrap_or_default();
        if !self.picker.is_open(from) {
            self.marks.forget(from);
        }
        for (index, buffer) in (0..).zip(buffers) {
            self.cache.store(buffer, Chunk { piece: from, index });
        }
    }
}
