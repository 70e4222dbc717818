//! What does the shell of one agent do with its core, and what must be true of all that passes?
//!
//! Bytes are not moved. A disk is the pieces that it holds; the hash unit draws its verdicts from a
//! seed of its own.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use swarm_proto::policy::throttle::Throttles;
use swarm_proto::rng::Rng;
use swarm_proto::swarm::{
    DiskError, DiskOperation, Event, Hash, HashOf, Patience, Role, ScanPolicy, Send, Sink, State,
    Swarm, Work, buffer_bytes,
};
use swarm_proto::units::{
    Block, BufferId, DiskOffset, Instant, PeerId, PeerSlot, PieceHash, PieceIndex, Ticket,
};
use swarm_proto::wire::announce::Answer;
use swarm_proto::wire::message::{self, Frame, Handshake, Message, RawBlock};
use swarmdd_fuzz::Input;

use super::claims::{Claims, Owner};
use super::torrent;

pub const OWN_ID: u8 = 7;

/// Calls of polls in one moment; a core that asks for more goes round in a circle.
const POLLS_MAX: u32 = 10_000;

pub struct Machine {
    pub now: Instant,
    pub swarm: Swarm,
    /// Messages and blocks that a connection takes at once.
    pub room: usize,
    throttles: Throttles,
    links: Vec<Option<Link>>,
    work: Vec<Work>,
    claims: Claims,
    /// What the disk holds, as far as the core can know.
    on_disk: Vec<bool>,
    /// From where on pieces were checked before they were whole.
    tails: Vec<u32>,
    /// A seeder that reads before it sends: pieces that were read.
    proven: Vec<bool>,
    must_prove: bool,
    buffer_bytes: u32,
    announced: bool,
    fates: Rng,
    /// Hashes are wrong once in so many; 0 is never.
    bad_one_in: u32,
    polls: u32,
}

/// One connection, as the other end sees it.
struct Link {
    phase: Phase,
    has: Vec<bool>,
    asked: VecDeque<RawBlock>,
    receiving: Option<(RawBlock, Option<BufferId>)>,
    sending: VecDeque<(Block, BufferId)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Talking,
}

/// Few addresses, so that they come again.
pub fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 77, 0, host % 16], 6881))
}

impl Machine {
    pub fn new(input: &mut Input<'_>) -> Machine {
        let metainfo = torrent::metainfo(input);
        let config = torrent::config(input, &metainfo);
        let limit = |slow: bool| slow.then_some(128 * 1024);
        let throttles = Throttles::new(limit(input.chance(4)), limit(input.chance(4)));
        let (layout, pieces) = (metainfo.layout, metainfo.hashes.len());
        let seeder = config.role == Role::Seeder;
        let must_prove = seeder && config.scan == ScanPolicy::BeforeUse;
        let bad_one_in = input.u8().into();
        Machine {
            now: Instant(0),
            claims: Claims::new(config.buffer_count, buffer_bytes(&layout)),
            swarm: Swarm::new(Instant(0), metainfo, config),
            room: 32,
            throttles,
            links: Vec::new(),
            work: Vec::new(),
            on_disk: vec![seeder; pieces],
            tails: vec![u32::MAX; pieces],
            proven: vec![false; pieces],
            must_prove,
            buffer_bytes: buffer_bytes(&layout),
            announced: false,
            fates: Rng::new(input.u8().into()),
            bad_one_in,
            polls: 0,
        }
    }

    pub fn pieces(&self) -> u32 {
        self.on_disk.len() as u32
    }

    // ---- time

    pub fn pass_ms(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
    }

    pub fn pass_to_timeout(&mut self) {
        let due = self.swarm.poll_timeout(&self.throttles);
        self.now = due.map_or(self.now, |due| due.max(self.now));
    }

    // ---- connections

    fn add(&mut self, slot: PeerSlot, phase: Phase) {
        if self.links.len() <= slot.index() {
            self.links.resize_with(slot.index() + 1, || None);
        }
        let before = self.links[slot.index()].replace(Link {
            phase,
            has: vec![false; self.on_disk.len()],
            asked: VecDeque::new(),
            receiving: None,
            sending: VecDeque::new(),
        });
        assert!(before.is_none(), "{slot:?} is given out twice");
    }

    fn link(&mut self, slot: PeerSlot) -> &mut Link {
        let link = self.links[slot.index()].as_mut();
        link.expect("a connection that is there")
    }

    /// One of the connections in this phase.
    fn any(&self, number: u8, phase: Phase) -> Option<PeerSlot> {
        let links = (0..).map(PeerSlot).zip(&self.links);
        let there = |link: &Option<Link>| link.as_ref().is_some_and(|link| link.phase == phase);
        let mut slots: Vec<PeerSlot> = Vec::new();
        slots.extend(links.filter(|(_, link)| there(link)).map(|(slot, _)| slot));
        slots
            .get(usize::from(number).checked_rem(slots.len())?)
            .copied()
    }

    /// One of the connections on which a message may come now.
    pub fn talking(&mut self, number: u8) -> Option<PeerSlot> {
        let slot = self.any(number, Phase::Talking)?;
        self.end_block_of(slot);
        Some(slot)
    }

    pub fn incoming(&mut self, host: u8, flags: u8) {
        if let Some(slot) = self.swarm.handle_incoming(self.now, address(host)) {
            self.add(slot, Phase::Talking);
            self.shake_hands(slot, flags);
        }
    }

    /// A connection that the core asked for is set up, or was refused.
    pub fn connected(&mut self, number: u8, flags: u8) {
        let Some(slot) = self.any(number, Phase::Connecting) else {
            return;
        };
        if flags == 255 {
            return self.close(slot);
        }
        self.link(slot).phase = Phase::Talking;
        self.swarm.handle_connected(self.now, slot);
        self.shake_hands(slot, flags);
    }

    fn shake_hands(&mut self, slot: PeerSlot, flags: u8) {
        let handshake = Handshake {
            fast: flags & 1 == 0,
            extended: flags & 2 == 0,
            info_hash: self.swarm.metainfo().info_hash,
            peer_id: PeerId([flags >> 2 & 15; 20]),
        };
        self.swarm.handle_handshake(self.now, slot, &handshake);
    }

    pub fn close_any(&mut self, number: u8) {
        let phases = [Phase::Talking, Phase::Connecting];
        if let Some(slot) = phases.iter().find_map(|phase| self.any(number, *phase)) {
            self.close(slot);
        }
    }

    fn close(&mut self, slot: PeerSlot) {
        self.links[slot.index()] = None;
        self.claims.release(Owner::Receives(slot), None);
        self.claims.release(Owner::Sends(slot), None);
        self.swarm
            .handle_closed(self.now, slot, &mut self.throttles);
    }

    // ---- what a peer sends

    pub fn hear(&mut self, slot: PeerSlot, message: Message) {
        let pieces = self.on_disk.len();
        let link = self.link(slot);
        match &message {
            Message::Have(index) if (*index as usize) < pieces => link.has[*index as usize] = true,
            Message::HaveAll => link.has.fill(true),
            Message::Bitfield(bytes) => {
                let bit = |index: usize| bytes[index / 8] & 0x80 >> (index % 8) != 0;
                (0..pieces).for_each(|index| link.has[index] |= bit(index));
            }
            Message::Reject(raw) => link.asked.retain(|asked| asked != raw),
            _ => {}
        }
        self.swarm
            .handle_message(self.now, slot, message, &mut self.throttles);
    }

    pub fn first_request(&self, slot: PeerSlot) -> Option<RawBlock> {
        self.links[slot.index()].as_ref()?.asked.front().copied()
    }

    pub fn begin_block(&mut self, slot: PeerSlot, raw: RawBlock) {
        let sink = self.swarm.begin_block(self.now, slot, raw);
        let link = self.links[slot.index()].as_mut().expect("it is there");
        link.asked.retain(|asked| *asked != raw);
        let buffer = match sink {
            Sink::Discard => None,
            Sink::Buffer { buffer, offset } => {
                let range = offset..offset + raw.length;
                self.claims.write(buffer, range, Owner::Receives(slot));
                Some(buffer)
            }
        };
        link.receiving = Some((raw, buffer));
    }

    pub fn end_block(&mut self, number: u8) {
        if let Some(slot) = self.any(number, Phase::Talking) {
            self.end_block_of(slot);
        }
    }

    pub fn end_block_of(&mut self, slot: PeerSlot) {
        if let Some((raw, buffer)) = self.link(slot).receiving.take() {
            if buffer.is_some() {
                self.claims.release(Owner::Receives(slot), buffer);
            }
            self.swarm
                .handle_block(self.now, slot, raw, &mut self.throttles);
        }
    }

    /// The kernel has taken a block.
    pub fn sent(&mut self, number: u8) {
        let Some(slot) = self.any(number, Phase::Talking) else {
            return;
        };
        if let Some((_, buffer)) = self.link(slot).sending.pop_front() {
            self.claims.release(Owner::Sends(slot), Some(buffer));
            self.swarm.handle_sent(self.now, slot);
        }
    }

    // ---- disk, hash unit, tracker

    pub fn disk_idle(&mut self) {
        while !self.work.is_empty() {
            self.disk_done(0, true);
        }
    }

    /// One of the requests is done, or has failed.
    pub fn disk_done(&mut self, number: u8, good: bool) {
        let Some(index) = usize::from(number).checked_rem(self.work.len()) else {
            return;
        };
        let work = self.work.remove(index);
        let (ticket, operation) = (ticket_of(&work), operation_of(&work));
        self.claims.release(Owner::Disk(ticket), None);
        if let Work::Write { piece, .. } | Work::Zero { piece, .. } = &work {
            self.on_disk[piece.index()] = good;
        }
        if let (Work::Read { piece, .. }, false, true) = (&work, good, self.must_prove) {
            self.on_disk[piece.index()] = false;
        }
        let error = DiskError {
            operation,
            offset: DiskOffset(0),
            errno: 5,
        };
        let result = if good { Ok(()) } else { Err(error) };
        self.swarm.handle_disk(self.now, ticket, result);
    }

    pub fn fail_every_hash(&mut self, one_in: u8) {
        self.bad_one_in = one_in.into();
    }

    pub fn answer(&mut self, answer: Result<Answer, String>) {
        if std::mem::take(&mut self.announced) {
            self.swarm.handle_announced(self.now, answer);
        }
    }

    // ---- polls

    /// Does what the core wants done, in the order that `Swarm` asks for, until it wants nothing.
    pub fn poll(&mut self) {
        self.polls = 0;
        self.swarm.check_invariants();
        // A limit that every peer has had its share of is due again at once.
        loop {
            while self.poll_once() {}
            self.swarm.check_invariants();
            let due = self.swarm.poll_timeout(&self.throttles);
            if due.is_none_or(|due| due > self.now) {
                break;
            }
            self.count();
            self.swarm.handle_timeout(self.now, &mut self.throttles);
        }
        self.check_state();
    }

    fn poll_once(&mut self) -> bool {
        let mut told = false;
        for slot in (0..self.links.len() as u32).map(PeerSlot) {
            self.send(slot);
        }
        loop {
            while let Some(work) = self.swarm.poll_disk() {
                self.start(work);
            }
            let hashes = self.swarm.poll_hash(Patience::Over);
            if hashes.is_empty() {
                break;
            }
            hashes.into_iter().for_each(|hash| self.hash(hash));
            told = true;
        }
        while let Some((slot, why)) = self.swarm.poll_close() {
            assert!(!why.is_empty());
            self.close(slot);
            told = true;
        }
        while let Some((slot, _)) = self.swarm.poll_connect(self.now) {
            self.count();
            self.add(slot, Phase::Connecting);
        }
        while let Some(url) = self.swarm.poll_announce(self.now) {
            assert!(url.starts_with("http://10.77.0.9/announce?info_hash="));
            assert!(!std::mem::replace(&mut self.announced, true));
        }
        while let Some(event) = self.swarm.poll_event() {
            self.note(&event);
        }
        told
    }

    fn count(&mut self) {
        self.polls += 1;
        assert!(self.polls < POLLS_MAX, "polls do not come to an end");
    }

    fn send(&mut self, slot: PeerSlot) {
        for _ in 0..self.room {
            let Some(link) = &self.links[slot.index()] else {
                return;
            };
            if link.phase == Phase::Connecting || link.sending.len() >= 8 {
                return;
            }
            let send = self.swarm.poll_send(self.now, slot, &mut self.throttles);
            match send {
                None => return,
                Some(Send::Handshake(handshake)) => {
                    assert_eq!(handshake.peer_id, PeerId([OWN_ID; 20]));
                }
                Some(Send::Message(message)) => self.check_message(slot, &message),
                Some(Send::Block {
                    block,
                    buffer,
                    offset,
                    packed,
                    encode,
                }) => {
                    let in_tail = block.begin >= self.tails[block.piece.index()];
                    assert!(in_tail || self.on_disk[block.piece.index()], "{block:?}");
                    let proven = self.proven[block.piece.index()];
                    assert!(!self.must_prove || proven, "{block:?} was not read");
                    let range = offset..offset + block.length;
                    self.claims.read(buffer, range, Owner::Sends(slot));
                    self.link(slot).sending.push_back((block, buffer));
                    assert!(packed.is_some() || !encode);
                    if encode {
                        let wire_bytes = block.length / (1 + block.piece.0 % 3);
                        let throttles = &mut self.throttles;
                        self.swarm.handle_packed(slot, wire_bytes, throttles);
                    }
                }
            }
        }
    }

    fn check_message(&mut self, slot: PeerSlot, message: &Message) {
        let bitfield_bytes = self.on_disk.len().div_ceil(8);
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let decoded = message::decode(&bytes, bitfield_bytes);
        let frame = Frame::Message(message.clone());
        assert_eq!(decoded, Ok(Some((frame, bytes.len()))));
        match message {
            Message::Have(index) => self.check_there(PieceIndex(*index)),
            Message::Bitfield(_) | Message::HaveAll => {
                let have = self.swarm.have().clone();
                have.present().for_each(|piece| self.check_there(piece));
            }
            Message::Request(raw) => {
                let layout = self.swarm.metainfo().layout;
                let block = layout.check_block(raw.index, raw.begin, raw.length);
                let piece = block.expect("a block that exists").piece;
                assert!(!self.swarm.have().get(piece), "it is there");
                let link = self.link(slot);
                assert!(link.has[piece.index()], "the peer does not have it");
                link.asked.push_back(*raw);
            }
            Message::Cancel(raw) => self.link(slot).asked.retain(|asked| asked != raw),
            _ => {}
        }
    }

    fn check_there(&self, piece: PieceIndex) {
        assert!(self.on_disk[piece.index()], "{piece:?} is not on the disk");
    }

    fn start(&mut self, work: Work) {
        self.count();
        let layout = self.swarm.metainfo().layout;
        let owner = Owner::Disk(ticket_of(&work));
        match &work {
            Work::Write { piece, buffers, .. } => {
                let mut left = layout.piece_length(*piece);
                for buffer in buffers {
                    let length = left.min(self.buffer_bytes);
                    self.claims.read(*buffer, 0..length, owner);
                    left -= length;
                }
                assert_eq!(left, 0);
            }
            Work::Read {
                piece,
                begin,
                length,
                buffer,
                ..
            } => {
                assert!(begin + length <= layout.piece_length(*piece));
                self.claims.write(*buffer, 0..*length, owner);
            }
            Work::Zero { .. } | Work::Flush { .. } => {}
        }
        self.work.push(work);
    }

    fn hash(&mut self, hash: Hash) {
        self.count();
        let piece = hash.of.piece();
        let range = hash.offset..hash.offset + hash.length;
        self.claims.check_read(hash.buffer, &range);
        let length = self.swarm.metainfo().layout.piece_length(piece);
        assert!(hash.begin + hash.length <= length);
        let whole = hash.of.length(&self.swarm.metainfo().layout);
        if hash.begin + hash.length < whole {
            return;
        }
        let bad = self.bad_one_in > 0 && self.fates.chance(1, self.bad_one_in);
        let right = self.swarm.metainfo().hashes[piece.index()];
        if let HashOf::Part { begin, .. } = hash.of {
            // Of the last part it is what it should lead to; of all others it hardly is.
            let ends = begin + hash.length == length;
            let tail = &mut self.tails[piece.index()];
            *tail = if ends && !bad {
                begin.min(*tail)
            } else {
                *tail
            };
        }
        if let HashOf::Disk(_) = hash.of {
            // A scan may have read the piece before it came with an equal one and was written.
            let scans = *self.swarm.state() == State::Scanning;
            let stale = scans && self.on_disk[piece.index()];
            self.on_disk[piece.index()] = !bad || stale;
            self.proven[piece.index()] = !bad;
        }
        let digest = if bad { PieceHash([0; 20]) } else { right };
        self.swarm.handle_hashed(self.now, hash.of, digest);
    }

    fn note(&mut self, event: &Event) {
        self.count();
        assert!(!event.to_string().is_empty());
        if let Event::SourceBad { piece, .. } = event {
            self.on_disk[piece.index()] = false;
        }
    }

    fn check_state(&self) {
        let progress = self.swarm.progress();
        assert!(progress.verified <= progress.have && progress.have <= progress.pieces);
        assert!(progress.checked <= progress.to_check);
        if let State::Over(_) = self.swarm.state() {
            assert!(self.work.is_empty(), "the disk still works");
        }
    }
}

fn ticket_of(work: &Work) -> Ticket {
    let (Work::Write { ticket, .. }
    | Work::Zero { ticket, .. }
    | Work::Read { ticket, .. }
    | Work::Flush { ticket }) = work;
    *ticket
}

fn operation_of(work: &Work) -> DiskOperation {
    match work {
        Work::Write { .. } | Work::Zero { .. } => DiskOperation::Write,
        Work::Read { .. } => DiskOperation::Read,
        Work::Flush { .. } => DiskOperation::Flush,
    }
}
