//! What is one simulated machine? A real `Swarm`, with a disk, a pool and a hash unit that count
//! cells instead of bytes.
//!
//! It does what `agent/` does for a real one, and holds everything that passes against its
//! [`Checker`].

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use super::checker::{Checker, Watched};
use super::disk::SimDisk;
use super::event::SimEvent;
use super::ids::{EndId, MachineId, ProcessId};
use super::image::{Cell, Image, ZEROS};
use super::meter::Meter;
use super::options::{AgentOptions, Canary, HashAnswers, HashUnit};
use super::packet::Packet;
use super::pool::{Claimant, Pool};
use super::queue::Queue;
use super::random::random_up_to;
use crate::limits::BLOCK_BYTES;
use crate::policy::throttle::Throttles;
use crate::rng::Rng;
use crate::swarm::{
    self, Config, DiskError, DiskOperation, Hash, HashOf, Outcome, Pairing, Role, ScanPolicy, Send,
    Sink, State, Swarm, Work,
};
use crate::units::{BufferId, DiskOffset, Instant, PeerId, PeerSlot, PieceIndex, Ticket};
use crate::wire::message::RawBlock;

pub struct Agent {
    pub options: AgentOptions,
    pub machine: MachineId,
    pub process: ProcessId,
    pub swarm: Swarm,
    pub throttles: Throttles,
    pub checker: Checker,
    meter: Meter,
    image: Image,
    pool: Pool,
    disk: SimDisk,
    rng: Rng,
    canary: Canary,
    hashes: HashUnit,
    /// When a single piece will have waited long enough for a second one.
    hash_by: Option<Instant>,
    /// Connections by the name the agent gave them, and in the order in which they are served.
    ends: Vec<Option<EndId>>,
    pub live: Vec<(PeerSlot, EndId)>,
    pub wakes_at: Option<Instant>,
    /// When it was woken last, and how often in that same moment.
    pub woken_at: Instant,
    pub idle_wakes: u32,
    pub told_to_leave: bool,
    pub met_tracker: bool,
    pub rounds: u64,
    pub downloaded_at: Option<Instant>,
    pub complete_at: Option<Instant>,
    pub leaving_at: Option<Instant>,
    pub over_at: Option<Instant>,
}

/// Who this process is.
pub struct Identity {
    pub machine: MachineId,
    pub process: ProcessId,
    pub peers: Vec<core::net::SocketAddr>,
    pub listen_port: u16,
    pub tracker_grace: Duration,
    pub seed: u64,
}

impl Agent {
    pub fn new(
        now: Instant,
        image: &Image,
        options: &AgentOptions,
        identity: Identity,
        disk: SimDisk,
        (canary, hashes): (Canary, HashUnit),
    ) -> Agent {
        let layout = &image.metainfo.layout;
        let buffer_count = swarm::buffer_count_min(layout) + options.spare_buffers;
        let mut rng = Rng::new(identity.seed);
        let mut peer_id = *b"-SD0001-000000000000";
        peer_id[8..16].copy_from_slice(&rng.next_u64().to_be_bytes());
        let config = Config {
            role: options.role,
            peer_id: PeerId(peer_id),
            listen_port: identity.listen_port,
            rng_seed: rng.next_u64(),
            buffer_count,
            peers: identity.peers,
            scan: if options.scan {
                ScanPolicy::BeforeUse
            } else {
                ScanPolicy::Skip
            },
            verify: options.verify && canary != Canary::SkipsReadBack,
            tracker_grace: identity.tracker_grace,
            seed_for: options.seed_for,
            stall: None,
        };
        let there = image
            .all_pieces()
            .map(|piece| image.is_on(disk.cells(), piece))
            .collect();
        let AgentOptions {
            role, scan, verify, ..
        } = *options;
        Agent {
            options: options.clone(),
            machine: identity.machine,
            process: identity.process,
            swarm: Swarm::new(now, image.metainfo.clone(), config),
            throttles: Throttles::new(options.max_up, options.max_down),
            meter: Meter::new(options.max_up),
            checker: Checker::new(
                image,
                Watched {
                    role,
                    scan,
                    verify,
                    there,
                },
            ),
            image: image.clone(),
            pool: Pool::new(buffer_count, swarm::buffer_bytes(layout)),
            disk,
            rng,
            canary,
            hashes,
            hash_by: None,
            ends: Vec::new(),
            live: Vec::new(),
            wakes_at: None,
            woken_at: now,
            idle_wakes: 0,
            told_to_leave: false,
            met_tracker: false,
            rounds: 0,
            downloaded_at: None,
            complete_at: None,
            leaving_at: None,
            over_at: None,
        }
    }

    pub fn outcome(&self) -> Option<&Outcome> {
        match self.swarm.state() {
            State::Over(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// Its disk is not what it says: others may rightly find it a liar.
    pub fn has_lying_disk(&self) -> bool {
        self.options.has_lying_disk()
    }

    /// What a piece of its source is in truth.
    pub fn holds(&self, piece: PieceIndex) -> bool {
        self.image.is_on(self.disk.cells(), piece)
    }

    /// The process dies, and perhaps the power goes: what the disk holds then.
    pub fn dies(mut self, power: bool) -> SimDisk {
        if power {
            self.disk.cut_power(&mut self.rng);
        }
        for work in self.checker.in_flight() {
            let (Work::Write { piece, .. } | Work::Zero { piece, .. }) = work else {
                continue;
            };
            let places = self.image.places_of(*piece);
            let written: Vec<Cell> = places
                .clone()
                .map(|place| self.image.content(place))
                .collect();
            self.disk.tear_write(places, &written, &mut self.rng);
        }
        self.disk
    }

    // ---- connections

    pub fn add_end(&mut self, slot: PeerSlot, end: EndId) {
        if self.ends.len() <= slot.index() {
            self.ends.resize(slot.index() + 1, None);
        }
        let before = self.ends[slot.index()].replace(end);
        assert!(
            before.is_none(),
            "{slot:?} is given out while {before:?} has it"
        );
        self.live.push((slot, end));
    }

    pub fn end(&self, slot: PeerSlot) -> EndId {
        self.ends[slot.index()].unwrap_or_else(|| panic!("{slot:?} is nobody"))
    }

    /// The connection is gone on our side; what it held in the pool is free.
    pub fn drop_end(
        &mut self,
        slot: PeerSlot,
        receiving: Option<BufferId>,
        pinned: Option<BufferId>,
    ) {
        let end = self.ends[slot.index()]
            .take()
            .expect("a connection ends once");
        self.live.retain(|(live, _)| *live != slot);
        if let Some(buffer) = receiving {
            self.pool.release(buffer, Claimant::Receives(end));
        }
        if let Some(buffer) = pinned {
            self.pool.release(buffer, Claimant::Sends(end));
        }
    }

    // ---- payload

    /// The head of a block is there: where its bytes go.
    pub fn begin_block(
        &mut self,
        now: Instant,
        slot: PeerSlot,
        block: RawBlock,
    ) -> Option<(BufferId, u32)> {
        let Sink::Buffer { buffer, offset } = self.swarm.begin_block(now, slot, block) else {
            return None;
        };
        assert!(
            offset.is_multiple_of(BLOCK_BYTES),
            "{block:?} goes to offset {offset}"
        );
        let end = self.end(slot);
        self.pool.claim(
            buffer,
            offset..offset + block.length,
            Claimant::Receives(end),
        );
        Some((buffer, offset))
    }

    /// Its last byte is there.
    pub fn end_block(
        &mut self,
        now: Instant,
        slot: PeerSlot,
        block: RawBlock,
        good: bool,
        place: Option<(BufferId, u32)>,
    ) {
        if let Some((buffer, offset)) = place {
            self.pool
                .release(buffer, Claimant::Receives(self.end(slot)));
            let piece = PieceIndex(block.index);
            let whole = block.begin.is_multiple_of(BLOCK_BYTES)
                && block.length == (self.image.piece_length(piece) - block.begin).min(BLOCK_BYTES);
            let content = self.image.content(self.image.place(piece, block.begin));
            let range = offset..offset + block.length;
            self.pool.cells_mut(buffer, &range)[0] = if good && whole { content } else { None };
        }
        self.checker.fetched += u64::from(block.length);
        self.swarm
            .handle_block(now, slot, block, &mut self.throttles);
    }

    /// What the core wants sent, as a packet; for a block also its buffer, which stays pinned until
    /// `sent`.
    pub fn packet(
        &mut self,
        now: Instant,
        slot: PeerSlot,
        send: Send,
    ) -> (Packet, Option<BufferId>) {
        match send {
            Send::Handshake(handshake) => (Packet::Handshake(Box::new(handshake)), None),
            Send::Message(message) => {
                self.checker.message_sent(&message);
                (Packet::Message(message), None)
            }
            Send::Block {
                block,
                buffer,
                offset,
            } => {
                self.meter.passes(now, block.length);
                let range = offset..offset + block.length;
                let good = self.checker.block_sent(
                    block,
                    offset,
                    self.pool.read(buffer, range.clone(), "send"),
                );
                assert!(
                    good || self.has_lying_disk(),
                    "{block:?} is sent with other bytes"
                );
                self.pool
                    .claim(buffer, range, Claimant::Sends(self.end(slot)));
                (
                    Packet::Block {
                        block: block.into(),
                        good,
                    },
                    Some(buffer),
                )
            }
        }
    }

    pub fn sent(&mut self, now: Instant, slot: PeerSlot, buffer: BufferId, bytes: u32) {
        self.pool.release(buffer, Claimant::Sends(self.end(slot)));
        self.checker.uploaded += u64::from(bytes);
        self.swarm.handle_sent(now, slot);
    }

    // ---- disk and hash

    /// Gives the disk and the hash unit all they are asked to do, as the real loop does. True if the
    /// core has been told of a hash.
    pub fn work(&mut self, now: Instant, queue: &mut Queue) -> bool {
        let late = self.hash_by.is_some_and(|by| by <= now);
        let pairing = if late || self.hashes.patience.is_zero() {
            Pairing::TakeSingle
        } else {
            Pairing::WaitForSecond
        };
        let mut told = false;
        loop {
            while let Some(work) = self.swarm.poll_disk() {
                self.start(now, work, queue);
            }
            let hashes = self.swarm.poll_hash(pairing);
            if hashes[0].is_none() {
                break;
            }
            self.hash_by = None;
            told |= self.hash(now, hashes, queue);
        }
        let waits = self.swarm.has_to_hash();
        self.hash_by = waits.then(|| self.hash_by.unwrap_or(now + self.hashes.patience));
        told
    }

    /// When something is to be done though nothing has happened.
    pub fn timeout(&self) -> Option<Instant> {
        let core = self.swarm.poll_timeout(&self.throttles);
        [core, self.hash_by].into_iter().flatten().min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        let core = self.swarm.poll_timeout(&self.throttles);
        if core.is_some_and(|at| at <= now) {
            self.swarm.handle_timeout(now, &mut self.throttles);
        }
    }

    fn start(&mut self, now: Instant, work: Work, queue: &mut Queue) {
        let bytes = match &work {
            Work::Zero { piece, .. } => self.image.piece_length(*piece),
            Work::Write {
                ticket,
                piece,
                buffers,
            } => {
                for (buffer, length) in self.parts(*piece, buffers) {
                    self.pool
                        .claim(buffer, 0..length, Claimant::WritesDisk(*ticket));
                }
                self.image.piece_length(*piece)
            }
            Work::Read {
                ticket,
                length,
                buffer,
                ..
            } => {
                self.pool
                    .claim(*buffer, 0..*length, Claimant::ReadsDisk(*ticket));
                *length
            }
            Work::Flush { .. } => 0,
        };
        let (Work::Write { ticket, .. }
        | Work::Zero { ticket, .. }
        | Work::Read { ticket, .. }
        | Work::Flush { ticket }) = work;
        let early = self.canary == Canary::AnnouncesUnwritten && matches!(work, Work::Write { .. });
        self.checker.submitted(ticket, work);
        if early {
            self.swarm.handle_disk(now, ticket, Ok(()));
        }
        let done_at = self.disk.submit(now, bytes, &mut self.rng);
        queue.schedule(
            done_at,
            SimEvent::DiskDone {
                machine: self.machine,
                process: self.process,
                ticket,
            },
        );
    }

    /// The buffers of a piece with the bytes each holds.
    fn parts(&self, piece: PieceIndex, buffers: &[BufferId]) -> Vec<(BufferId, u32)> {
        let (length, each) = (self.image.piece_length(piece), self.pool.buffer_bytes());
        assert_eq!(
            buffers.len() as u32,
            length.div_ceil(each),
            "buffers of {piece:?}"
        );
        let part = |(index, buffer): (usize, &BufferId)| {
            (*buffer, (length - index as u32 * each).min(each))
        };
        buffers.iter().enumerate().map(part).collect()
    }

    /// Hashes both before it answers for either. True if the core has been told already.
    fn hash(&mut self, now: Instant, hashes: [Option<Hash>; 2], queue: &mut Queue) -> bool {
        let verdicts = hashes.map(|hash| {
            let hash = hash?;
            let range = hash.offset..hash.offset + hash.length;
            let cells = self.pool.read(hash.buffer, range, "hash");
            let good = self
                .checker
                .bytes_hashed(hash.of, hash.begin, hash.length, cells)?;
            Some((hash.of, good))
        });
        let (machine, process) = (self.machine, self.process);
        let (mut told, mut at) = (false, None);
        for (of, good) in verdicts.into_iter().flatten() {
            if self.hashes.answers == HashAnswers::AtOnce {
                self.hashed(now, of, good);
                told = true;
                continue;
            }
            // The real unit answers at once; a slower one must do no harm.
            let later = now + random_up_to(Duration::from_micros(300), &mut self.rng);
            let at = match self.hashes.answers {
                HashAnswers::Together => *at.get_or_insert(later),
                _ => later,
            };
            let hashed = SimEvent::Hashed {
                machine,
                process,
                of,
                good,
            };
            queue.schedule(at, hashed);
        }
        told
    }

    pub fn hashed(&mut self, now: Instant, of: HashOf, good: bool) {
        let blind = match of {
            HashOf::Download(_) => self.canary == Canary::AcceptsBadDownloads,
            HashOf::Disk(_) => self.canary == Canary::AcceptsBadReads,
        };
        let listens = !matches!(self.swarm.state(), State::Leaving(_) | State::Over(_));
        self.checker.hash_finished(of, good || blind, listens);
        self.swarm
            .handle_hashed(now, of, self.image.hash(of.piece(), good || blind));
    }

    pub fn disk_done(&mut self, now: Instant, ticket: Ticket) {
        let work = self.checker.completed(ticket);
        let result = match &work {
            Work::Write { piece, buffers, .. } => self.write_done(*piece, buffers, ticket),
            Work::Zero { piece, .. } => self.zero_done(*piece),
            Work::Read {
                piece,
                begin,
                length,
                buffer,
                ..
            } => self.read_done(*piece, *begin, *length, *buffer, ticket),
            Work::Flush { .. } => self.result(DiskOperation::Flush, PieceIndex(0), 0),
        };
        match (&work, &result) {
            (
                Work::Read {
                    piece,
                    begin,
                    length,
                    ..
                },
                _,
            ) => {
                self.checker.read(*piece, *begin, *length);
                if result.is_err() && self.options.role == Role::Seeder {
                    self.checker.source_lost(*piece);
                }
            }
            (Work::Write { piece, .. } | Work::Zero { piece, .. }, Ok(())) => {
                self.checker.written(*piece)
            }
            (_, Ok(())) => {
                self.disk.flushed();
                self.checker.flushed();
            }
            (_, Err(_)) => {}
        }
        let scanning = *self.swarm.state() == State::Scanning;
        let told_before =
            self.canary == Canary::AnnouncesUnwritten && matches!(work, Work::Write { .. });
        if !told_before {
            self.swarm.handle_disk(now, ticket, result);
        }
        match (result, work) {
            // It goes on without: the read-back will tell whether it may.
            (Err(_), Work::Read { piece, .. })
                if scanning && *self.swarm.state() == State::Scanning =>
            {
                self.checker.scan_read_failed(piece);
            }
            (Err(error), _) => self.checker.disk_failed(error),
            (Ok(()), _) => {}
        }
    }

    fn result(
        &mut self,
        operation: DiskOperation,
        piece: PieceIndex,
        begin: u32,
    ) -> Result<(), DiskError> {
        let offset =
            DiskOffset(u64::from(piece.0) * u64::from(self.image.piece_bytes) + u64::from(begin));
        // EIO
        let error = DiskError {
            operation,
            offset,
            errno: 5,
        };
        if self.disk.fails(operation, piece) {
            Err(error)
        } else {
            Ok(())
        }
    }

    fn write_done(
        &mut self,
        piece: PieceIndex,
        buffers: &[BufferId],
        ticket: Ticket,
    ) -> Result<(), DiskError> {
        let mut written = vec![];
        for (buffer, length) in self.parts(piece, buffers) {
            written.extend_from_slice(self.pool.read(buffer, 0..length, "write"));
            self.pool.release(buffer, Claimant::WritesDisk(ticket));
        }
        assert!(
            self.checker.all_good(piece, 0, &written),
            "piece {} is written and is not good",
            piece.0
        );
        self.result(DiskOperation::Write, piece, 0)?;
        self.disk
            .write(piece, self.image.places_of(piece), &written);
        Ok(())
    }

    fn zero_done(&mut self, piece: PieceIndex) -> Result<(), DiskError> {
        self.result(DiskOperation::Write, piece, 0)?;
        let places = self.image.places_of(piece);
        self.disk
            .write(piece, places.clone(), &vec![ZEROS; places.len()]);
        Ok(())
    }

    fn read_done(
        &mut self,
        piece: PieceIndex,
        begin: u32,
        length: u32,
        buffer: BufferId,
        ticket: Ticket,
    ) -> Result<(), DiskError> {
        self.pool.release(buffer, Claimant::ReadsDisk(ticket));
        self.result(DiskOperation::Read, piece, begin)?;
        let places = self.image.places(piece, begin, length);
        self.pool
            .cells_mut(buffer, &(0..length))
            .copy_from_slice(&self.disk.cells()[places]);
        Ok(())
    }

    /// Its disk as the process ends.
    pub fn cells(&self) -> &[Cell] {
        self.disk.cells()
    }
}
