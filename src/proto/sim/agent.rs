//! What is one simulated machine? A real `Swarm`, with a disk, a pool and a hash unit that count
//! cells instead of bytes.
//!
//! It does what `agent/` does for a real one, and checks everything that passes with its
//! [`Checker`].

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use super::checker::{Checker, Watched};
use super::disk::SimDisk;
use super::ids::{EndId, MachineId, ProcessId};
use super::image::{Cell, Image};
use super::meter::Meter;
use super::options::{AgentOptions, Canary, HashUnit};
use super::packet::Packet;
use super::pool::{Claimant, Pool};
use crate::limits::{BLOCK_BYTES, SLOW_UPLOAD_MAX};
use crate::policy::throttle::Throttles;
use crate::rng::Rng;
use crate::swarm::{self, Config, Outcome, ScanPolicy, Send, Sink, State, Swarm, Work};
use crate::units::{Block, BufferId, Instant, PeerId, PeerSlot, PieceIndex};
use crate::wire::message::RawBlock;

pub struct Agent {
    pub options: AgentOptions,
    pub machine: MachineId,
    pub process: ProcessId,
    pub swarm: Swarm,
    pub throttles: Throttles,
    packing: Packing,
    pub checker: Checker,
    meter: Meter,
    pub image: Image,
    pub pool: Pool,
    pub disk: SimDisk,
    pub rng: Rng,
    pub canary: Canary,
    pub hashes: HashUnit,
    /// When a single piece will have waited long enough for a second one.
    pub hash_by: Option<Instant>,
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
    /// When which piece got onto its disk.
    pub written: Vec<(PieceIndex, Instant)>,
    pub downloaded_at: Option<Instant>,
    pub complete_at: Option<Instant>,
    /// When it sent payload, and how many bytes: everything of the last SLOW_UPLOAD_MAX, and the
    /// last block.
    pub sends: VecDeque<(Instant, u32)>,
    pub leaving_at: Option<Instant>,
    pub over_at: Option<Instant>,
}

/// How an agent compresses.
#[derive(Default)]
struct Packing {
    /// Blocks that came compressed. They are passed on as they came.
    came: BTreeSet<(PieceIndex, u32)>,
    /// Until then it does nothing else.
    busy_until: Instant,
    /// When it last noted how long it slept.
    noted_at: Instant,
}

fn scan_policy(scan: bool) -> ScanPolicy {
    if scan {
        ScanPolicy::BeforeUse
    } else {
        ScanPolicy::Skip
    }
}

fn core(now: Instant, image: &Image, config: Config, subnets: &[(IpAddr, u32)]) -> Swarm {
    let mut swarm = Swarm::new(now, image.metainfo.clone(), config);
    swarm.handle_subnets(subnets);
    swarm
}

/// Which process on which machine this is, and the addresses it knows.
pub struct Identity {
    pub machine: MachineId,
    pub process: ProcessId,
    pub peers: Vec<core::net::SocketAddr>,
    pub listen_port: u16,
    pub subnets: Vec<(IpAddr, u32)>,
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
        (canary, hashes, distance): (Canary, HashUnit, u64),
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
            allowed: Vec::new(),
            scan: scan_policy(options.scan),
            verify: options.verify && canary != Canary::SkipsReadBack,
            read_back_distance: match canary {
                Canary::ReadsBackTooSoon => 0,
                _ => distance,
            },
            alignment: 512,
            compress: options.compress,
            tracker_grace: identity.tracker_grace,
            seed_for: options.seed_for,
            limits: options.limits,
            stall: None,
        };
        let is_there = |piece| image.is_on(disk.cells(), piece);
        let there = image.all_pieces().map(is_there).collect();
        Agent {
            options: options.clone(),
            machine: identity.machine,
            process: identity.process,
            swarm: core(now, image, config, &identity.subnets),
            throttles: Throttles::new(options.max_up, options.max_down),
            packing: Packing::default(),
            meter: Meter::new(options.max_up),
            checker: Checker::new(
                image,
                Watched {
                    role: options.role,
                    scan: options.scan,
                    verify: options.verify,
                    distance,
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
            written: Vec::new(),
            downloaded_at: None,
            complete_at: None,
            sends: VecDeque::new(),
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
        self.disk.settle();
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
        packed: Option<u32>,
    ) -> Option<(BufferId, u32)> {
        let sink = match packed {
            Some(wire_bytes) => self.swarm.begin_packed(now, slot, block, wire_bytes),
            None => self.swarm.begin_block(now, slot, block),
        };
        let Sink::Buffer { buffer, offset } = sink else {
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
        (block, packed): (RawBlock, Option<u32>),
        good: bool,
        place: Option<(BufferId, u32)>,
    ) {
        if let Some((buffer, offset)) = place {
            self.pool
                .release(buffer, Claimant::Receives(self.end(slot)));
            let piece = PieceIndex(block.index);
            if packed.is_some() {
                self.packing.came.insert((piece, block.begin));
            } else {
                self.packing.came.remove(&(piece, block.begin));
            }
            let whole = block.begin.is_multiple_of(BLOCK_BYTES)
                && block.length == (self.image.piece_length(piece) - block.begin).min(BLOCK_BYTES);
            let content = self.image.content(self.image.place(piece, block.begin));
            let range = offset..offset + block.length;
            self.pool.cells_mut(buffer, &range)[0] = if good && whole { content } else { None };
        }
        let wire_bytes = packed.unwrap_or(block.length);
        let bytes = match place {
            Some(_) => block.length,
            None => wire_bytes,
        };
        self.checker.fetched += u64::from(bytes);
        self.checker.fetched_wire += u64::from(wire_bytes);
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
                packed,
                encode,
            } => {
                let came = self.packing.came.contains(&(block.piece, block.begin));
                let packed = packed.filter(|_| came || encode);
                let packed = packed.and_then(|_| self.pack(now, slot, block, !came));
                let wire_bytes = packed.unwrap_or(block.length);
                self.meter.passes(now, wire_bytes);
                self.checker.uploaded_wire += u64::from(wire_bytes);
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
                        packed,
                    },
                    Some(buffer),
                )
            }
        }
    }

    /// Compresses a block: to which length, if it shrinks. If it does not go as it came, that takes
    /// its time in any case.
    fn pack(&mut self, now: Instant, slot: PeerSlot, block: Block, encodes: bool) -> Option<u32> {
        if encodes {
            let micros = (u64::from(block.length) * 1_000_000).div_ceil(self.options.packs);
            self.packing.busy_until =
                self.packing.busy_until.max(now) + Duration::from_micros(micros);
        }
        let packed = self.image.packed_bytes(block);
        let wire_bytes = packed.unwrap_or(block.length);
        let throttles = &mut self.throttles;
        self.swarm.handle_packed(slot, wire_bytes, throttles);
        packed
    }

    /// Until then it compresses, and does nothing else.
    pub fn busy_until(&self) -> Instant {
        self.packing.busy_until
    }

    /// Its event loop runs. Until now it compressed, or slept.
    pub fn note_turn(&mut self, now: Instant) {
        let awake = self.packing.busy_until.since(self.packing.noted_at);
        let asleep = now.since(self.packing.noted_at).saturating_sub(awake);
        self.throttles.load.note_turn(now, asleep);
        self.packing.noted_at = now;
    }

    pub fn sent(&mut self, now: Instant, slot: PeerSlot, buffer: BufferId, bytes: u32) {
        self.pool.release(buffer, Claimant::Sends(self.end(slot)));
        self.checker.uploaded += u64::from(bytes);
        let is_old = |at: Instant| now.since(at) > SLOW_UPLOAD_MAX;
        while self.sends.front().is_some_and(|(at, _)| is_old(*at)) {
            self.sends.pop_front();
        }
        self.sends.push_back((now, bytes));
        self.swarm.handle_sent(now, slot);
    }

    /// Its disk as the process ends.
    pub fn cells(&self) -> &[Cell] {
        self.disk.cells()
    }
}
