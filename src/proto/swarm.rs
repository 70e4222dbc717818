//! One torrent on one disk, as decisions only: from "nothing is here" to "it is all there, read back, and passed on".
//!
//! Words of what happened go in by `handle_*`, words of what is to be done come out by `poll_*`; neither carries payload.
//! The parts: `picker` (what to ask for), `peer` (what stands with each peer), `choker` (whom to serve), `cache` (which
//! buffer holds what), `readback` (is it really there), `tracker` and `mesh` (where the others are).
//!
//! A block's way through: `poll_send` asks for it, `begin_block` names the buffer, `handle_block` puts it to the hash,
//! `handle_hashed` of its whole piece puts it to the disk, `handle_disk` tells everybody we have it. In that order, so
//! nothing is announced that is not on the disk.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

use crate::announce::{AnnounceRequest, Answer, Event as AnnounceEvent};
use crate::bitfield::Bitfield;
use crate::cache::{Cache, Chunk};
use crate::choker;
use crate::limits::*;
use crate::mesh::{Ending, Mesh};
use crate::metainfo::{Layout, Metainfo};
use crate::peer::{Peer, Phase, overdue};
use crate::picker::{Asked, Pick, Picker, Verdict};
use crate::ranking::Ranking;
use crate::readback::ReadBack;
use crate::rng::Rng;
use crate::tracker::{Need, Tracker};
use crate::units::*;
use crate::wire::{ExtendedHandshake, Handshake, Message, RawBlock};

/// What the agent is told at the start. Everything random in it comes from `rng_seed`.
pub struct Config {
    pub role: Role,
    pub peer_id: PeerId,
    pub listen_port: u16,
    pub rng_seed: u64,
    /// Pool buffers `0..buffer_count` belong to this swarm, each `buffer_bytes` long.
    pub buffer_count: u32,
    /// Called for ever, with or without a tracker.
    pub peers: Vec<SocketAddr>,
    /// Read every piece back before saying `completed`.
    pub verify: bool,
    /// Complete agents leave when the tracker has been unreachable this long.
    pub tracker_grace: Duration,
    /// How long to seed; zero is not at all, None until the tracker is gone.
    pub seed_for: Option<Duration>,
    /// Fail when nothing arrived for so long while incomplete. None waits for ever.
    pub stall: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Leecher,
    /// The disk already holds everything.
    Seeder,
}

/// Size of each pool buffer for this torrent: a piece, or a part of one; a multiple of 4096.
pub fn buffer_bytes(layout: &Layout) -> u32 {
    layout.piece_bytes().next_multiple_of(4096).min(BUFFER_BYTES_MAX)
}

/// Fewest buffers a swarm of this layout works with: one piece on its way in, and as much again to write and to serve.
pub fn buffer_count_min(layout: &Layout) -> u32 {
    2 * layout.piece_bytes().div_ceil(buffer_bytes(layout)) + READ_BACK_MAX as u32
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Downloading,
    /// All pieces are written; the disk is being flushed and read back.
    Verifying,
    Seeding,
    /// Writes in flight finish, the tracker is told.
    Leaving(Outcome),
    Over(Outcome),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Complete,
    Interrupted,
    Failed(Failure),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    Disk(DiskError),
    /// So many pieces are not on the disk as they were written; `disk` is where the first of them begins.
    ReadBack {
        piece: PieceIndex,
        disk: DiskOffset,
        bad: u32,
    },
    Stalled(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskError {
    pub operation: DiskOperation,
    pub offset: DiskOffset,
    pub errno: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOperation {
    Read,
    Write,
    Flush,
}

/// Things for the disk and the hash unit. Bytes never pass through here, only names of buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Hash `length` bytes at `offset` of `buffer` as the next bytes of a piece, at once, before anything else is done.
    /// At `begin == 0` a new hash starts; when `begin + length` is the length of the piece, answer `handle_hashed`.
    Hash { of: HashOf, begin: u32, length: u32, buffer: BufferId, offset: u32 },
    /// Write a whole piece: `buffers[i]` holds its bytes from `i * buffer_bytes` on. Answer `handle_disk` once, when no part
    /// of it is in flight any more.
    Write { ticket: Ticket, piece: PieceIndex, buffers: Vec<BufferId> },
    /// Read `length` bytes at `begin` of `piece` into the start of `buffer`.
    Read { ticket: Ticket, piece: PieceIndex, begin: u32, length: u32, buffer: BufferId },
    /// Make everything written so far durable.
    Flush { ticket: Ticket },
}

/// Downloads and the read-back hash side by side: one running hash for each of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HashOf {
    Download(PieceIndex),
    ReadBack(PieceIndex),
}

/// What to write to one peer next, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Send {
    Handshake(Handshake),
    Message(Message),
    /// `wire::piece_header`, then `block.length` bytes at `offset` of `buffer`. They stay as they are until `handle_sent` or
    /// `handle_closed`.
    Block {
        block: Block,
        buffer: BufferId,
        offset: u32,
    },
}

/// Where the payload of an incoming `piece` message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    Buffer { buffer: BufferId, offset: u32 },
    Discard,
}

/// For the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    TrackerRefused(String),
    TrackerWarned(String),
    TrackerLost(String),
    TrackerBack,
    PieceBad { piece: PieceIndex, liar: Option<SocketAddr> },
    ReadBackBad { piece: PieceIndex, disk: DiskOffset },
}

/// Totals for progress lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub state: State,
    pub have: u32,
    pub pieces: u32,
    /// Pieces read back so far and found good, or bad.
    pub verified: u32,
    pub bad: u32,
    /// Where on the disk the first bad piece begins.
    pub bad_offset: Option<DiskOffset>,
    /// Payload bytes received, wasted ones too.
    pub fetched: u64,
    pub wasted: u64,
    pub uploaded: u64,
    pub peers: u32,
}

/// What a ticket was given out for.
enum Pending {
    Write { piece: PieceIndex },
    Load { chunk: Chunk, buffer: BufferId },
    ReadBack { chunk: Chunk, buffer: BufferId },
    Flush,
}

/// After any batch of `handle_*` call `poll_send` for each peer that has room, then `poll_work`, `poll_close`, `poll_connect`,
/// `poll_announce`, `poll_event`, each until None, and last `poll_timeout`.
///
/// Invariants: a piece in `finished` is on the disk; every buffer is free, stored, or owned by exactly one open piece,
/// pending read or read-back; every pinned buffer has its block in some peer's `sending`.
pub struct Swarm {
    metainfo: Arc<Metainfo>,
    config: Config,
    buffer_bytes: u32,
    state: State,
    rng: Rng,
    peers: Vec<Option<Peer>>,
    picker: Picker,
    cache: Cache,
    /// Pieces in the order in which they got onto the disk here; peers are told in this order.
    finished: Vec<PieceIndex>,
    /// How often each piece was sent or suggested.
    sent: Ranking,
    tracker: Tracker,
    mesh: Mesh,
    readback: Option<ReadBack>,
    pending: BTreeMap<Ticket, Pending>,
    next_ticket: u64,
    loads: usize,
    work: VecDeque<Work>,
    closing: VecDeque<(PeerSlot, &'static str)>,
    events: VecDeque<Event>,
    announce_key: u32,
    next_tick: Instant,
    /// The last time a new block arrived.
    progress_at: Instant,
    /// Since when everything is there and proven.
    complete_at: Option<Instant>,
    /// The last time an incomplete peer was connected.
    needed_at: Instant,
    farewell_by: Option<Instant>,
    flushed_for_leaving: bool,
    fetched: u64,
    wasted: u64,
    uploaded: u64,
}

impl Swarm {
    pub fn new(now: Instant, metainfo: Arc<Metainfo>, config: Config) -> Swarm {
        let layout = metainfo.layout;
        let buffer_bytes = buffer_bytes(&layout);
        assert!(config.buffer_count >= buffer_count_min(&layout));
        let mut rng = Rng::new(config.rng_seed);
        let mut mesh = Mesh::default();
        config.peers.iter().for_each(|address| mesh.learn(now, *address, true));
        let seeder = config.role == Role::Seeder;
        let pieces = layout.piece_count();
        let have = if seeder { Bitfield::full(pieces) } else { Bitfield::new(pieces) };
        let picker_rng = Rng::new(rng.next_u64());
        Swarm {
            buffer_bytes,
            state: if seeder { State::Seeding } else { State::Downloading },
            peers: Vec::new(),
            picker: Picker::new(layout, buffer_bytes, have, picker_rng),
            cache: Cache::new(config.buffer_count),
            finished: Vec::new(),
            sent: Ranking::new(pieces, &mut rng),
            tracker: Tracker::new(now, metainfo.trackers.clone(), config.tracker_grace, &mut rng),
            mesh,
            readback: None,
            pending: BTreeMap::new(),
            next_ticket: 0,
            loads: 0,
            work: VecDeque::new(),
            closing: VecDeque::new(),
            events: VecDeque::new(),
            announce_key: rng.next_u64() as u32,
            next_tick: now,
            progress_at: now,
            complete_at: seeder.then_some(now),
            needed_at: now,
            farewell_by: None,
            flushed_for_leaving: false,
            fetched: 0,
            wasted: 0,
            uploaded: 0,
            rng,
            metainfo,
            config,
        }
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn metainfo(&self) -> &Arc<Metainfo> {
        &self.metainfo
    }

    /// Pieces that are on the disk.
    pub fn have(&self) -> &Bitfield {
        self.picker.have()
    }

    pub fn progress(&self) -> Progress {
        let readback = self.readback.as_ref();
        Progress {
            state: self.state.clone(),
            have: self.have().count(),
            pieces: self.have().len(),
            verified: readback.map_or(0, ReadBack::good),
            bad: readback.map_or(0, ReadBack::bad),
            bad_offset: readback.and_then(ReadBack::first_bad).map(|piece| self.disk_offset(piece)),
            fetched: self.fetched,
            wasted: self.wasted,
            uploaded: self.uploaded,
            peers: self.peers.iter().flatten().filter(|peer| peer.is_live()).count() as u32,
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.state, State::Downloading | State::Verifying | State::Seeding)
    }

    fn peer(&mut self, slot: PeerSlot) -> &mut Peer {
        self.peers[slot.index()].as_mut().expect("the shell names only open slots")
    }

    fn slots(&self) -> impl Iterator<Item = PeerSlot> + use<> {
        (0..self.peers.len() as u32).map(PeerSlot)
    }

    fn disk_offset(&self, piece: PieceIndex) -> DiskOffset {
        let layout = &self.metainfo.layout;
        let start = layout.piece_start(piece);
        let first = self.metainfo.extents.ranges(start, u64::from(layout.piece_length(piece))).next();
        first.expect("every piece lies on the disk").disk
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        }
    }

    // ---- connections ------------------------------------------------------------------------------------------------

    /// A connection came in whose handshake names our info-hash: take it and call `handle_handshake`, or, on None, close it.
    pub fn handle_incoming(&mut self, now: Instant, address: SocketAddr) -> Option<PeerSlot> {
        let count = self.peers.iter().flatten().count();
        if !self.is_open() || count >= PEERS_MAX || self.mesh.is_banned(address) {
            return None;
        }
        Some(self.add_peer(now, address, false))
    }

    fn add_peer(&mut self, now: Instant, address: SocketAddr, outgoing: bool) -> PeerSlot {
        let peer = Peer::new(now, address, outgoing, self.have().len());
        let slot = self.peers.iter().position(Option::is_none).unwrap_or(self.peers.len());
        if slot == self.peers.len() {
            self.peers.push(None);
        }
        self.peers[slot] = Some(peer);
        PeerSlot(slot as u32)
    }

    /// A connection that `poll_connect` asked for stands. If it could not be set up: `handle_closed`.
    pub fn handle_connected(&mut self, now: Instant, slot: PeerSlot) {
        let peer = self.peer(slot);
        if peer.phase == Phase::Connecting {
            peer.phase = Phase::Greeting;
            peer.since = now;
        }
    }

    pub fn handle_handshake(&mut self, now: Instant, slot: PeerSlot, handshake: &Handshake) {
        if self.peer(slot).phase != Phase::Greeting {
            return;
        }
        if handshake.info_hash != self.metainfo.info_hash {
            return self.close(now, slot, Ending::Failed, "it is in another swarm");
        }
        if handshake.peer_id == self.config.peer_id {
            // The end that called learns it from our handshake, and never calls that address again; so it closes.
            if self.peer(slot).outgoing {
                self.close(now, slot, Ending::Own, "it is ourselves");
            }
            return;
        }
        if let Some(loser) = self.duplicate_of(slot, handshake.peer_id) {
            self.close(now, loser, Ending::Duplicate, "it is connected already");
            if loser == slot {
                return;
            }
        }
        let peer = self.peer(slot);
        peer.phase = Phase::Live;
        (peer.fast, peer.extended) = (handshake.fast, handshake.extended);
        peer.peer_id = Some(handshake.peer_id);
        (peer.heard_at, peer.spoke_at, peer.progress_at) = (now, now, now);
    }

    /// Of two connections with one peer, the one to drop. Both sides must come to the same answer: the connection stays that
    /// was set up by the smaller peer id; of two in the same direction, the older.
    fn duplicate_of(&mut self, slot: PeerSlot, peer_id: PeerId) -> Option<PeerSlot> {
        let same = |peer: &Peer| peer.is_live() && peer.peer_id == Some(peer_id);
        let other = self.slots().find(|s| *s != slot && self.peers[s.index()].as_ref().is_some_and(same))?;
        let (new_is_ours, old_is_ours) = (self.peer(slot).outgoing, self.peer(other).outgoing);
        if new_is_ours == old_is_ours {
            return Some(slot);
        }
        let ours_stays = self.config.peer_id < peer_id;
        Some(if new_is_ours == ours_stays { other } else { slot })
    }

    /// The connection is gone: an error, its end, a failed set-up, or the answer to `poll_close`. The slot may be reused.
    pub fn handle_closed(&mut self, now: Instant, slot: PeerSlot) {
        let Some(mut peer) = self.peers[slot.index()].take() else { return };
        self.closing.retain(|(closing, _)| *closing != slot);
        for block in peer.requests.drain(..) {
            self.picker.release(block, slot);
        }
        self.picker.left(slot);
        for (_, buffer) in peer.sending.drain(..) {
            self.cache.unpin(buffer);
        }
        for piece in peer.has.ones() {
            self.picker.piece_vanished(piece);
        }
        if peer.outgoing && peer.phase != Phase::Closing {
            let ending = match () {
                () if !peer.is_live() => Ending::Failed,
                () if self.have().is_full() && peer.has.is_full() => Ending::BothComplete,
                () => Ending::Normal,
            };
            self.mesh.ended(now, peer.address, ending);
        }
    }

    /// Decides that a connection ends; the shell carries it out.
    fn close(&mut self, now: Instant, slot: PeerSlot, ending: Ending, why: &'static str) {
        let peer = self.peer(slot);
        if peer.phase == Phase::Closing {
            return;
        }
        peer.phase = Phase::Closing;
        let (address, outgoing) = (peer.address, peer.outgoing);
        if outgoing {
            self.mesh.ended(now, address, ending);
        }
        self.closing.push_back((slot, why));
    }

    // ---- messages ---------------------------------------------------------------------------------------------------

    pub fn handle_message(&mut self, now: Instant, slot: PeerSlot, message: Message) {
        let peer = self.peer(slot);
        if !peer.is_live() {
            return;
        }
        peer.heard_at = now;
        let taken = self.take_message(now, slot, message);
        let unheard = self.peer(slot).replies.len() > REPLIES_MAX;
        if let Err(why) = taken.and(if unheard { Err("it asks and does not listen") } else { Ok(()) }) {
            self.close(now, slot, Ending::Failed, why);
        }
    }

    fn take_message(&mut self, now: Instant, slot: PeerSlot, message: Message) -> Result<(), &'static str> {
        let layout = self.metainfo.layout;
        let check_piece = |index| layout.check_piece(index).ok_or("it named a piece that does not exist");
        let check_block = |raw: RawBlock| {
            layout.check_block(raw.index, raw.begin, raw.length).ok_or("it named a block that does not exist")
        };
        let may_send_bitfield = self.peer(slot).may_send_bitfield;
        match message {
            Message::Bitfield(bytes) => {
                let field = Bitfield::from_bytes(layout.piece_count(), &bytes);
                return self.take_bitfield(now, slot, field.map_err(|_| "its bitfield has another length")?);
            }
            Message::HaveAll if may_send_bitfield => {
                return self.take_bitfield(now, slot, Bitfield::full(layout.piece_count()));
            }
            Message::HaveNone if may_send_bitfield => {
                return self.take_bitfield(now, slot, Bitfield::new(layout.piece_count()));
            }
            Message::HaveAll | Message::HaveNone => return Err("it sent its bitfield too late"),
            _ => {}
        }
        if !matches!(message, Message::KeepAlive | Message::Extended { .. } | Message::Port(_)) {
            self.peer(slot).may_send_bitfield = false;
        }
        match message {
            Message::Choke => self.take_choke(slot),
            Message::Unchoke => {
                let peer = self.peer(slot);
                peer.peer_choking = false;
                peer.nothing_at = None;
                peer.progress_at = now;
            }
            Message::Interested => {
                self.peer(slot).peer_interested = true;
                self.rechoke(now);
            }
            Message::NotInterested => {
                self.peer(slot).peer_interested = false;
                self.rechoke(now);
            }
            Message::Have(index) => self.take_have(now, slot, check_piece(index)?),
            Message::Request(raw) => self.take_request(slot, check_block(raw)?),
            Message::Cancel(raw) => self.take_cancel(slot, check_block(raw)?),
            Message::Reject(raw) => self.take_reject(now, slot, check_block(raw)?),
            Message::Suggest(index) => {
                let piece = check_piece(index)?;
                let peer = self.peer(slot);
                peer.suggest(piece);
                peer.nothing_at = None;
            }
            Message::AllowedFast(index) => {
                // Only matters while choked, and in our swarms nobody is for long.
                check_piece(index)?;
            }
            Message::Extended { id: 0, payload } => {
                let handshake =
                    ExtendedHandshake::parse(&payload).map_err(|_| "its extension handshake is broken")?;
                if let Some(reqq) = handshake.reqq {
                    self.peer(slot).requests_max = reqq.clamp(1, PIPELINE_MAX);
                }
            }
            Message::KeepAlive | Message::Port(_) | Message::Extended { .. } | Message::Unknown(_) => {}
            Message::Bitfield(_) | Message::HaveAll | Message::HaveNone => unreachable!("taken above"),
        }
        Ok(())
    }

    fn take_bitfield(&mut self, now: Instant, slot: PeerSlot, field: Bitfield) -> Result<(), &'static str> {
        let lacking = field.ones().filter(|piece| !self.picker.have().get(*piece)).count() as u32;
        let peer = self.peer(slot);
        if !peer.may_send_bitfield {
            // aria2 sends one in place of many `have` whenever it is shorter.
            field.ones().for_each(|piece| self.take_have(now, slot, piece));
            return Ok(());
        }
        peer.may_send_bitfield = false;
        peer.wanted = lacking;
        peer.nothing_at = None;
        peer.has = field.clone();
        for piece in field.ones() {
            self.picker.piece_appeared(piece);
        }
        self.part_if_both_complete(now, slot);
        Ok(())
    }

    fn take_have(&mut self, now: Instant, slot: PeerSlot, piece: PieceIndex) {
        let lacking = !self.have().get(piece);
        let peer = self.peer(slot);
        if !peer.has.set(piece) {
            return;
        }
        peer.wanted += u32::from(lacking);
        peer.nothing_at = None;
        peer.dealt.retain(|dealt| *dealt != piece);
        self.picker.piece_appeared(piece);
        self.part_if_both_complete(now, slot);
    }

    /// Two that have everything have nothing to say to each other.
    fn part_if_both_complete(&mut self, now: Instant, slot: PeerSlot) {
        if self.state == State::Seeding && self.peer(slot).has.is_full() && self.peer(slot).sending.is_empty()
        {
            self.close(now, slot, Ending::BothComplete, "both have everything");
        }
    }

    fn take_choke(&mut self, slot: PeerSlot) {
        let peer = self.peer(slot);
        peer.peer_choking = true;
        // With the fast extension each request is answered or rejected; without it a choke drops them all.
        if !peer.fast {
            self.release_requests(slot);
        }
        self.picker.forsake(slot);
    }

    /// Gives every request of a peer back, but for the block whose bytes are arriving: nobody else may write there.
    fn release_requests(&mut self, slot: PeerSlot) -> Vec<Block> {
        let peer = self.peer(slot);
        let arriving = peer.receiving.filter(|(_, kept)| *kept).map(|(raw, _)| raw);
        let (keep, drop): (VecDeque<Block>, VecDeque<Block>) =
            peer.requests.drain(..).partition(|block| Some(RawBlock::from(*block)) == arriving);
        peer.requests = keep;
        for block in &drop {
            self.picker.release(*block, slot);
        }
        drop.into()
    }

    fn take_reject(&mut self, now: Instant, slot: PeerSlot, block: Block) {
        if !self.peer(slot).forget_request(block) {
            return;
        }
        self.picker.release(block, slot);
        self.picker.forsake(slot);
        let peer = self.peer(slot);
        if !peer.peer_choking {
            peer.refused(now);
        }
    }

    fn take_request(&mut self, slot: PeerSlot, block: Block) {
        let crosses = block.begin / self.buffer_bytes != (block.begin + block.length - 1) / self.buffer_bytes;
        let have = self.have().get(block.piece);
        let peer = self.peer(slot);
        if peer.am_choking || !have || crosses || peer.uploads.len() >= UPLOAD_QUEUE_MAX {
            // Without the fast extension there is no word for "no"; the peer asks again after its own time-out.
            if peer.fast {
                peer.replies.push_back(Message::Reject(block.into()));
            }
            return;
        }
        if !peer.uploads.contains(&block) {
            peer.uploads.push_back(block);
        }
        let dealt = peer.dealt.len();
        peer.dealt.retain(|piece| *piece != block.piece);
        // Anybody may ask for the same block for ever; the count stops where it can hold no more.
        if dealt == peer.dealt.len() && block.begin == 0 && self.sent.count(block.piece) < u16::MAX {
            self.sent.increment(block.piece, &mut self.rng);
        }
        self.load_for(slot);
    }

    fn take_cancel(&mut self, slot: PeerSlot, block: Block) {
        let peer = self.peer(slot);
        let queued = peer.uploads.len();
        peer.uploads.retain(|asked| *asked != block);
        // BEP 6: every request is answered, a cancelled one by a reject.
        if queued > peer.uploads.len() && peer.fast {
            peer.replies.push_back(Message::Reject(block.into()));
        }
    }

    // ---- payload in -------------------------------------------------------------------------------------------------

    /// The head of a `piece` message has arrived: where do its bytes go? Followed by `handle_block` or `handle_closed`.
    pub fn begin_block(&mut self, now: Instant, slot: PeerSlot, raw: RawBlock) -> Sink {
        let sink = self.sink_for(slot, raw);
        let peer = self.peer(slot);
        assert!(peer.receiving.is_none(), "one payload at a time");
        peer.receiving = Some((raw, sink != Sink::Discard));
        peer.heard_at = now;
        sink
    }

    fn sink_for(&mut self, slot: PeerSlot, raw: RawBlock) -> Sink {
        let Some(block) = self.metainfo.layout.check_block(raw.index, raw.begin, raw.length) else {
            return Sink::Discard;
        };
        if !self.peer(slot).requests.contains(&block) {
            return Sink::Discard;
        }
        let place = self.picker.begin(block, slot);
        place.map_or(Sink::Discard, |(buffer, offset)| Sink::Buffer { buffer, offset })
    }

    /// All bytes of the block that `begin_block` named are where it said.
    pub fn handle_block(&mut self, now: Instant, slot: PeerSlot, raw: RawBlock) {
        self.fetched += u64::from(raw.length);
        let peer = self.peer(slot);
        let Some((begun, kept)) = peer.receiving.take() else { panic!("a block ended that never began") };
        assert_eq!(begun, raw);
        peer.heard_at = now;
        peer.rate.add(now, raw.length);
        let Some(block) = self.metainfo.layout.check_block(raw.index, raw.begin, raw.length) else {
            return self.close(now, slot, Ending::Failed, "it sent a block that does not exist");
        };
        let peer = self.peer(slot);
        let asked = peer.forget_request(block);
        if asked {
            (peer.snubbed, peer.refusals, peer.progress_at) = (false, 0, now);
        }
        if !kept {
            self.wasted += u64::from(raw.length);
            if asked {
                self.picker.release(block, slot);
            }
            return;
        }
        self.progress_at = now;
        let others = self.picker.received(block, slot);
        if others > 0 {
            self.cancel(block);
        }
        while let Some(run) = self.picker.next_hash_run(block.piece) {
            let (of, begin) = (HashOf::Download(block.piece), run.begin);
            let (length, buffer, offset) = (run.length, run.buffer, run.offset);
            self.work.push_back(Work::Hash { of, begin, length, buffer, offset });
        }
    }

    /// Endgame: everybody else who was asked for this block may forget it.
    fn cancel(&mut self, block: Block) {
        for peer in self.peers.iter_mut().flatten() {
            if peer.forget_request(block) {
                peer.replies.push_back(Message::Cancel(block.into()));
            }
        }
    }

    pub fn handle_hashed(&mut self, now: Instant, of: HashOf, digest: PieceHash) {
        match of {
            HashOf::Download(piece) => self.judge(now, piece, digest),
            HashOf::ReadBack(piece) => {
                let good = self.metainfo.hashes[piece.index()] == digest;
                let Some(readback) = &mut self.readback else { return };
                readback.judged(piece, good);
                if !good {
                    let disk = self.disk_offset(piece);
                    self.tell(Event::ReadBackBad { piece, disk });
                }
            }
        }
        self.advance(now);
    }

    fn judge(&mut self, now: Instant, piece: PieceIndex, digest: PieceHash) {
        match self.picker.judge(piece, self.metainfo.hashes[piece.index()] == digest) {
            // Nothing new is started by those who leave: it might come after their last flush.
            Verdict::Good(_) if !self.is_open() => {}
            Verdict::Good(buffers) => {
                let ticket = self.ticket(Pending::Write { piece });
                self.work.push_back(Work::Write { ticket, piece, buffers });
            }
            Verdict::Bad { liar } => {
                self.wasted += u64::from(self.metainfo.layout.piece_length(piece));
                let address =
                    liar.and_then(|slot| self.peers[slot.index()].as_ref()).map(|peer| peer.address);
                self.tell(Event::PieceBad { piece, liar: address });
                if let (Some(slot), Some(address)) = (liar, address) {
                    self.mesh.ban(address);
                    self.close(now, slot, Ending::Failed, "it sent bad data");
                }
            }
        }
    }

    // ---- disk -------------------------------------------------------------------------------------------------------

    fn ticket(&mut self, pending: Pending) -> Ticket {
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
    fn abort(&mut self, pending: Pending) {
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
    fn fail(&mut self, now: Instant, failure: Failure) {
        let outcome = Outcome::Failed(failure);
        self.finish(now, outcome.clone());
        if let State::Leaving(before @ (Outcome::Complete | Outcome::Interrupted)) = &mut self.state {
            *before = outcome;
            self.flushed_for_leaving = true;
        }
        self.try_to_go(now);
    }

    /// A piece is on the disk: from here on it may be announced and served, out of the buffers it came in.
    fn written(&mut self, piece: PieceIndex) {
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

    fn flushed(&mut self, now: Instant) {
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
    fn verified(&mut self, now: Instant) {
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
    fn advance(&mut self, now: Instant) {
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

    fn read_ahead(&mut self, readback: &mut ReadBack) {
        while let Some(chunk) = readback.next_read() {
            let Some(buffer) = self.cache.take() else { return };
            readback.start_read();
            let (begin, length) = self.span(chunk);
            let ticket = self.ticket(Pending::ReadBack { chunk, buffer });
            self.work.push_back(Work::Read { ticket, piece: chunk.piece, begin, length, buffer });
        }
    }

    fn hash_read(&mut self, chunk: Chunk, buffer: BufferId) {
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
    fn span(&self, chunk: Chunk) -> (u32, u32) {
        let begin = chunk.index * self.buffer_bytes;
        (begin, (self.metainfo.layout.piece_length(chunk.piece) - begin).min(self.buffer_bytes))
    }

    /// Reads what a peer asked for first, a few chunks ahead of what is being sent to it.
    fn load_for(&mut self, slot: PeerSlot) {
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
    fn take_to_load(&mut self, is_next: bool) -> Option<BufferId> {
        if self.cache.has_free() {
            return self.cache.take();
        }
        let (buffer_bytes, depth) = (self.buffer_bytes, if is_next { 1 } else { READS_PER_PEER_MAX });
        let peers = self.peers.iter().flatten();
        let spared: BTreeSet<Chunk> = peers.flat_map(|peer| next_chunks(peer, buffer_bytes, depth)).collect();
        self.cache.take_but(&spared)
    }

    fn is_loading(&self, chunk: Chunk) -> bool {
        self.pending.values().any(|p| matches!(p, Pending::Load { chunk: loading, .. } if *loading == chunk))
    }

    // ---- tracker, clock, leaving ------------------------------------------------------------------------------------

    /// The tracker's answer, or why there was none.
    pub fn handle_announced(&mut self, now: Instant, answer: Result<Answer, String>) {
        let was_lost = self.tracker.unreachable_since().is_some();
        match answer {
            Ok(Answer::Peers { peers, warning, .. }) => {
                self.tracker.answered(now);
                peers.into_iter().for_each(|address| self.mesh.learn(now, address, false));
                if let Some(text) = warning {
                    self.tell(Event::TrackerWarned(text));
                }
            }
            Ok(Answer::Failure(text)) => {
                self.tracker.refused(now);
                self.tell(Event::TrackerRefused(text));
            }
            Err(text) => {
                self.tracker.failed(now);
                if !was_lost && self.tracker.unreachable_since().is_some() {
                    self.tell(Event::TrackerLost(text));
                }
            }
        }
        if was_lost && self.tracker.unreachable_since().is_none() {
            self.tell(Event::TrackerBack);
        }
        self.seed_or_go(now);
        self.try_to_go(now);
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            for slot in self.slots() {
                if self.peers[slot.index()].is_some() {
                    self.watch(now, slot);
                }
            }
            self.rechoke(now);
            self.watch_for_stall(now);
            self.seed_or_go(now);
        }
        if self.farewell_by.is_some_and(|by| now >= by) {
            // Over: from here on only the disk is waited for, and a past time in `poll_timeout` would make the shell spin.
            self.farewell_by = None;
        }
        self.advance(now);
    }

    /// Time-outs of one peer.
    fn watch(&mut self, now: Instant, slot: PeerSlot) {
        let peer = self.peer(slot);
        peer.rate.roll(now);
        let waiting = peer.is_live() && !peer.requests.is_empty();
        let sending = !peer.sending.is_empty();
        let (progress_at, snubbed, since, heard_at, spoke_at) =
            (peer.progress_at, peer.snubbed, peer.since, peer.heard_at, peer.spoke_at);
        match peer.phase {
            Phase::Connecting | Phase::Greeting if overdue(now, since, GREETING_MAX) => {
                self.close(now, slot, Ending::Failed, "it did not answer");
            }
            Phase::Live if waiting && overdue(now, progress_at, SILENCE_MAX) => {
                self.close(now, slot, Ending::Failed, "it was asked and sent nothing");
            }
            // What it does not read stays pinned in the pool, and a few like it would pin all of it.
            Phase::Live if sending && overdue(now, spoke_at, SILENCE_MAX) => {
                self.close(now, slot, Ending::Failed, "it asks and does not read");
            }
            Phase::Live if overdue(now, heard_at, IDLE_MAX) => {
                self.close(now, slot, Ending::Failed, "nothing was heard from it");
            }
            Phase::Live if waiting && !snubbed && overdue(now, progress_at, SNUB_AFTER) => {
                self.snub(slot);
            }
            _ => {}
        }
    }

    fn snub(&mut self, slot: PeerSlot) {
        self.peer(slot).snubbed = true;
        for block in self.release_requests(slot) {
            self.peer(slot).replies.push_back(Message::Cancel(block.into()));
        }
        self.picker.forsake(slot);
    }

    fn rechoke(&mut self, now: Instant) {
        let candidate = |(slot, peer): (usize, &Option<Peer>)| {
            let peer = peer.as_ref().filter(|peer| peer.is_live())?;
            Some(choker::Candidate {
                slot: PeerSlot(slot as u32),
                interested: peer.peer_interested,
                unchoked: peer.unchoke,
                since: peer.choke_changed,
            })
        };
        let candidates: Vec<_> = self.peers.iter().enumerate().filter_map(candidate).collect();
        for (slot, unchoke) in choker::decide(now, &candidates, UPLOAD_SLOTS, CHOKE_QUANTUM) {
            let peer = self.peer(slot);
            (peer.unchoke, peer.choke_changed) = (unchoke, now);
        }
    }

    fn watch_for_stall(&mut self, now: Instant) {
        if let (State::Downloading, Some(limit)) = (&self.state, self.config.stall)
            && overdue(now, self.progress_at, limit)
        {
            self.finish(now, Outcome::Failed(Failure::Stalled(limit)));
        }
    }

    /// The end of the job, for those who are complete: see the crate documentation.
    fn seed_or_go(&mut self, now: Instant) {
        if self.state != State::Seeding {
            return;
        }
        let incomplete = |peer: &Peer| peer.is_live() && !peer.has.is_full();
        if self.peers.iter().flatten().any(incomplete) {
            self.needed_at = now;
        }
        let complete_at = self.complete_at.expect("seeding means complete");
        let enough = match self.config.seed_for {
            Some(limit) => overdue(now, complete_at, limit),
            // A seed may be started before its tracker.
            None if self.config.role == Role::Seeder => self.tracker.was_there() && self.tracker.is_gone(),
            None if self.tracker.exists() => self.tracker.is_gone(),
            // Nobody can tell us to stop: stay as long as somebody who lacks something is connected.
            None => {
                let since = if self.needed_at > complete_at { self.needed_at } else { complete_at };
                overdue(now, since, self.config.tracker_grace)
            }
        };
        if enough {
            self.finish(now, Outcome::Complete);
        }
    }

    /// SIGINT or SIGTERM: stop downloading, finish the writes in flight, flush, say good-bye.
    pub fn leave(&mut self, now: Instant) {
        if self.is_open() {
            let done = self.state == State::Seeding && self.config.role == Role::Seeder;
            self.finish(now, if done { Outcome::Complete } else { Outcome::Interrupted });
        }
    }

    /// From here on nothing new is started.
    fn finish(&mut self, now: Instant, outcome: Outcome) {
        if !self.is_open() {
            return;
        }
        for slot in self.slots() {
            if self.peers[slot.index()].is_some() {
                self.close(now, slot, Ending::Normal, "we are leaving");
            }
        }
        let interrupted = outcome == Outcome::Interrupted;
        self.state = State::Leaving(outcome);
        self.flushed_for_leaving = !interrupted || self.config.role == Role::Seeder;
        self.farewell_by = self.tracker.stop(now).then_some(now + FAREWELL_MAX);
        self.try_to_go(now);
    }

    fn try_to_go(&mut self, now: Instant) {
        let State::Leaving(outcome) = &self.state else { return };
        let outcome = outcome.clone();
        if !self.pending.is_empty() || self.work.iter().any(|work| !matches!(work, Work::Hash { .. })) {
            return;
        }
        if !self.flushed_for_leaving {
            let ticket = self.ticket(Pending::Flush);
            return self.work.push_back(Work::Flush { ticket });
        }
        let said = self.tracker.said_stopped() || self.farewell_by.is_none_or(|by| now >= by);
        if said {
            self.state = State::Over(outcome);
        }
    }

    // ---- what is to be done -----------------------------------------------------------------------------------------

    pub fn poll_work(&mut self) -> Option<Work> {
        self.work.pop_front()
    }

    /// A connection to close, and why; then call `handle_closed`.
    pub fn poll_close(&mut self) -> Option<(PeerSlot, &'static str)> {
        self.closing.pop_front()
    }

    /// An address to connect to, under this slot.
    pub fn poll_connect(&mut self, now: Instant) -> Option<(PeerSlot, SocketAddr)> {
        if !self.is_open() {
            return None;
        }
        let ours = self.peers.iter().flatten().filter(|peer| peer.outgoing).count();
        let connecting = self.peers.iter().flatten().filter(|peer| peer.phase == Phase::Connecting).count();
        let all = self.peers.iter().flatten().count();
        let ours_max = if self.mesh.address_count() > MESH_PEERS { LINKS_BEYOND_MESH } else { MESH_PEERS };
        if ours >= ours_max || connecting >= CONNECTING_MAX || all >= PEERS_MAX {
            return None;
        }
        let address = self.mesh.next(now, self.picker.have().is_full(), &mut self.rng)?;
        Some((self.add_peer(now, address, true), address))
    }

    /// A URL to GET; the answer goes to `handle_announced`, and until then there is no other.
    pub fn poll_announce(&mut self, now: Instant) -> Option<String> {
        let need = self.need()?;
        // Asked in every turn of the loop, and counting what is left takes a while.
        self.tracker.next(need).filter(|due| *due <= now)?;
        let left = self.left_bytes();
        let (tracker, event) = self.tracker.poll(now, need)?;
        let request = AnnounceRequest {
            info_hash: self.metainfo.info_hash,
            peer_id: self.config.peer_id,
            port: self.config.listen_port,
            uploaded: self.uploaded,
            downloaded: self.fetched - self.wasted.min(self.fetched),
            left,
            event,
            numwant: if event == AnnounceEvent::Stopped { 0 } else { NUMWANT },
            key: self.announce_key,
        };
        Some(request.url(tracker))
    }

    /// None: there is nothing to tell any tracker any more.
    fn need(&self) -> Option<Need> {
        match self.state {
            State::Over(_) => None,
            // Who has said good-bye does not come back, however long the disk takes to flush.
            State::Leaving(_) if self.tracker.said_stopped() => None,
            State::Seeding | State::Leaving(_) => Some(Need::Complete),
            State::Downloading | State::Verifying => {
                let alone = !self.peers.iter().flatten().any(Peer::is_live);
                Some(if alone { Need::Alone } else { Need::Incomplete })
            }
        }
    }

    /// Bytes not yet on the disk and proven (BEP 3 `left`): 0 only once the read-back is through.
    fn left_bytes(&self) -> u64 {
        let layout = &self.metainfo.layout;
        match self.complete_at {
            Some(_) => 0,
            None if self.have().is_full() => u64::from(layout.piece_bytes()),
            None => {
                layout.total_bytes()
                    - self.finished.iter().map(|p| u64::from(layout.piece_length(*p))).sum::<u64>()
            }
        }
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When `handle_timeout` (or `poll_connect`, `poll_announce`) has something to do next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let need = self.need()?;
        let announce = self.tracker.next(need);
        // While the disk still works there is nothing to do about the farewell, however late it gets.
        let farewell = self.farewell_by.filter(|_| self.pending.is_empty());
        let tick = self.is_open().then_some(self.next_tick);
        [announce, farewell, tick].into_iter().flatten().min()
    }

    // ---- what is said to one peer -----------------------------------------------------------------------------------

    /// The next thing to write to this peer. Call it while there is room for it.
    pub fn poll_send(&mut self, now: Instant, slot: PeerSlot) -> Option<Send> {
        let send = self.next_send(now, slot)?;
        self.peer(slot).spoke_at = now;
        Some(send)
    }

    fn next_send(&mut self, now: Instant, slot: PeerSlot) -> Option<Send> {
        let peer = self.peers.get_mut(slot.index())?.as_mut()?;
        if matches!(peer.phase, Phase::Connecting | Phase::Closing) {
            return None;
        }
        if !peer.said_handshake {
            peer.said_handshake = true;
            let (info_hash, peer_id) = (self.metainfo.info_hash, self.config.peer_id);
            return Some(Send::Handshake(Handshake { fast: true, extended: true, info_hash, peer_id }));
        }
        if peer.phase != Phase::Live {
            return None;
        }
        let word = self.introduction(slot).or_else(|| self.wish(now, slot)).or_else(|| self.news(slot));
        if let Some(message) = word.or_else(|| self.request(now, slot)).or_else(|| self.deal(slot)) {
            return Some(Send::Message(message));
        }
        self.upload(slot).or_else(|| self.keep_alive(now, slot))
    }

    /// The extension handshake, then the bitfield, which must come before anything that it would contradict.
    fn introduction(&mut self, slot: PeerSlot) -> Option<Message> {
        let (count, full, told) = (self.have().count(), self.have().is_full(), self.finished.len());
        let listen_port = self.config.listen_port;
        let peer = self.peer(slot);
        if !peer.said_bitfield {
            peer.said_bitfield = true;
            peer.told = told;
            return match (peer.fast, full, count) {
                (true, true, _) => Some(Message::HaveAll),
                (true, _, 0) => Some(Message::HaveNone),
                (false, _, 0) => self.introduction(slot),
                _ => Some(Message::Bitfield(self.have().as_bytes().to_vec())),
            };
        }
        if peer.extended && !peer.said_extended {
            peer.said_extended = true;
            let handshake = ExtendedHandshake {
                reqq: Some(UPLOAD_QUEUE_MAX as u32),
                client: Some(String::from(concat!("swarmdd ", env!("CARGO_PKG_VERSION")))),
                listen_port: Some(listen_port),
                upload_only: full,
                ..ExtendedHandshake::default()
            };
            return Some(Message::Extended { id: 0, payload: handshake.encode() });
        }
        None
    }

    /// Choking and interest, where they differ from what was said last; then rejects and cancels.
    fn wish(&mut self, now: Instant, slot: PeerSlot) -> Option<Message> {
        let downloading = self.state == State::Downloading;
        let peer = self.peer(slot);
        if peer.am_choking == peer.unchoke {
            peer.am_choking = !peer.unchoke;
            peer.dealt.clear();
            if !peer.unchoke {
                let dropped = peer.uploads.drain(..).map(|block| Message::Reject(block.into()));
                if peer.fast {
                    peer.replies.extend(dropped);
                }
                return Some(Message::Choke);
            }
            return Some(Message::Unchoke);
        }
        let interested = downloading && peer.wanted > 0;
        if peer.am_interested != interested {
            peer.am_interested = interested;
            peer.progress_at = now;
            return Some(if interested { Message::Interested } else { Message::NotInterested });
        }
        peer.replies.pop_front()
    }

    /// A piece that got onto the disk since we last told this peer.
    fn news(&mut self, slot: PeerSlot) -> Option<Message> {
        let told = self.peer(slot).told;
        let piece = *self.finished.get(told)?;
        self.peer(slot).told += 1;
        Some(Message::Have(piece.0))
    }

    /// The next request, as long as the pipeline of this peer is not full and it has something we want.
    fn request(&mut self, now: Instant, slot: PeerSlot) -> Option<Message> {
        let chance = (self.picker.version(), self.has_room());
        let peer = self.peers[slot.index()].as_ref()?;
        let full = peer.requests.len() >= peer.pipeline_depth();
        if full
            || !peer.may_request(now)
            || peer.nothing_at == Some(chance)
            || self.state != State::Downloading
        {
            return None;
        }
        loop {
            let peer = self.peers[slot.index()].as_ref()?;
            let requested = |block: Block| peer.requests.contains(&block);
            let asked = Asked { slot, has: &peer.has, suggested: &peer.suggested, requested: &requested };
            match self.picker.pick(&asked, self.has_room()) {
                Pick::Block(block) => {
                    self.picker.request(block, slot);
                    let peer = self.peer(slot);
                    if peer.requests.is_empty() {
                        peer.progress_at = now;
                    }
                    peer.requests.push_back(block);
                    return Some(Message::Request(block.into()));
                }
                Pick::Open(piece) => self.open_piece(piece),
                Pick::Nothing => {
                    if !self.has_room() && self.make_room() {
                        continue;
                    }
                    self.peer(slot).nothing_at = Some((self.picker.version(), self.has_room()));
                    return None;
                }
            }
        }
    }

    /// Whether another piece may be opened: buffers for the longest, and a part of the pool left to serve from.
    fn has_room(&self) -> bool {
        let needed = self.metainfo.layout.piece_bytes().div_ceil(self.buffer_bytes) as usize;
        let reserve = self.config.buffer_count as usize / SERVING_PART;
        let owned = self.picker.buffer_count();
        let fits = owned + needed + reserve <= self.config.buffer_count as usize || owned == 0;
        self.picker.filling_count() < OPEN_PIECES_MAX && fits && self.cache.available() >= needed
    }

    fn open_piece(&mut self, piece: PieceIndex) {
        let count = self.metainfo.layout.piece_length(piece).div_ceil(self.buffer_bytes);
        let buffers = (0..count).map(|_| self.cache.take().expect("there was room")).collect();
        self.picker.open(piece, buffers);
    }

    /// Gives up an open piece that nobody here can finish. False if there is none.
    fn make_room(&mut self) -> bool {
        let Some((_, buffers)) = self.picker.abandon_orphan() else { return false };
        buffers.into_iter().for_each(|buffer| self.cache.give_back(buffer));
        true
    }

    /// The seed deals its pieces like cards (BEP 6 suggest): each to one peer before any to a second.
    fn deal(&mut self, slot: PeerSlot) -> Option<Message> {
        let ahead =
            (DEALT_BYTES / self.metainfo.layout.piece_bytes()).clamp(2, SUGGESTED_MAX as u32) as usize;
        if self.config.role != Role::Seeder {
            return None;
        }
        let peer = self.peers[slot.index()].as_ref()?;
        if !peer.fast || peer.am_choking || !peer.peer_interested || peer.dealt.len() >= ahead {
            return None;
        }
        // Once everything has been out, the others pass it on; suggesting would only send it twice.
        let mut never_sent = self.sent.iter().take_while(|piece| self.sent.count(*piece) == 0);
        let piece = never_sent.find(|piece| !peer.has.get(*piece) && !peer.dealt.contains(piece))?;
        drop(never_sent);
        self.sent.increment(piece, &mut self.rng);
        self.peer(slot).dealt.push(piece);
        Some(Message::Suggest(piece.0))
    }

    /// The next block this peer asked for, if it is in memory.
    fn upload(&mut self, slot: PeerSlot) -> Option<Send> {
        let block = *self.peer(slot).uploads.front()?;
        let chunk = Chunk { piece: block.piece, index: block.begin / self.buffer_bytes };
        let Some(buffer) = self.cache.pin(chunk) else {
            self.load_for(slot);
            return None;
        };
        let peer = self.peer(slot);
        peer.uploads.pop_front();
        peer.sending.push_back((block, buffer));
        Some(Send::Block { block, buffer, offset: block.begin % self.buffer_bytes })
    }

    /// The first block that `poll_send` gave out for this peer and that was not confirmed yet is in the kernel's hands.
    pub fn handle_sent(&mut self, now: Instant, slot: PeerSlot) {
        let peer = self.peer(slot);
        peer.spoke_at = now;
        let (block, buffer) = peer.sending.pop_front().expect("only what was given out is sent");
        self.cache.unpin(buffer);
        self.uploaded += u64::from(block.length);
        self.load_for(slot);
    }

    fn keep_alive(&mut self, now: Instant, slot: PeerSlot) -> Option<Send> {
        let silent = overdue(now, self.peer(slot).spoke_at, KEEP_ALIVE);
        silent.then_some(Send::Message(Message::KeepAlive))
    }

    /// Recounts everything from scratch; for tests and the simulator.
    pub fn check_invariants(&self) {
        self.cache.check_invariants();
        self.sent.check_invariants();
        let peers: Vec<(PeerSlot, &Peer)> =
            (0..).map(PeerSlot).zip(&self.peers).filter_map(|(s, p)| Some((s, p.as_ref()?))).collect();
        let asked: Vec<(PeerSlot, Block)> =
            peers.iter().flat_map(|(slot, peer)| peer.requests.iter().map(|block| (*slot, *block))).collect();
        let fields: Vec<&Bitfield> = peers.iter().map(|(_, peer)| &peer.has).collect();
        self.picker.check_invariants(&asked, &fields);

        let pins: usize = peers.iter().map(|(_, peer)| peer.sending.len()).sum();
        assert_eq!(self.cache.pin_count() as usize, pins);
        let loading = self.pending.values().filter(|p| matches!(p, Pending::Load { .. })).count();
        assert_eq!(self.loads, loading);
        if self.is_open() {
            let reading = self.readback.as_ref().map_or(0, ReadBack::buffer_count);
            assert_eq!(self.cache.taken_count(), self.picker.buffer_count() + loading + reading);
        }
        for (_, peer) in &peers {
            let wanted = peer.has.ones().filter(|piece| !self.have().get(*piece)).count();
            assert_eq!(peer.wanted as usize, wanted);
            assert!(peer.uploads.len() <= UPLOAD_QUEUE_MAX);
            assert!(peer.told <= self.finished.len());
        }
        if self.config.role == Role::Leecher {
            assert_eq!(self.finished.len() as u32, self.have().count());
        }
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

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.operation {
            DiskOperation::Read => "read",
            DiskOperation::Write => "write",
            DiskOperation::Flush => "flush",
        };
        write!(f, "{verb} failed at byte {} of the disk (errno {})", self.offset.0, self.errno)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Disk(error) => error.fmt(f),
            Failure::ReadBack { piece, disk, bad } => write!(
                f,
                "{bad} pieces are not on the disk as they were written, the first is piece {} at byte {}",
                piece.0, disk.0
            ),
            Failure::Stalled(limit) => write!(f, "nothing arrived for {} s", limit.as_secs()),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::TrackerRefused(text) => write!(f, "the tracker refuses: {text}"),
            Event::TrackerWarned(text) => write!(f, "the tracker warns: {text}"),
            Event::TrackerLost(text) => write!(f, "the tracker does not answer: {text}"),
            Event::TrackerBack => f.write_str("the tracker answers again"),
            Event::PieceBad { piece, liar: Some(address) } => {
                write!(f, "piece {} came bad from {address} alone, which is banned", piece.0)
            }
            Event::PieceBad { piece, liar: None } => {
                write!(f, "piece {} came bad from several peers, asking one alone", piece.0)
            }
            Event::ReadBackBad { piece, disk } => {
                write!(f, "piece {} at byte {} of the disk is not what was written", piece.0, disk.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metainfo::{self, Content, Description};

    const KIB: u32 = 1024;
    const MIB: u32 = 1024 * 1024;

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000)
    }

    fn address(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 77, 0, host], 6881))
    }

    /// `pieces` whole pieces, of which piece `n` has the hash `[n; 20]`; with as few buffers as will do.
    fn swarm(role: Role, pieces: u32, piece_bytes: u32, peers: &[SocketAddr]) -> Swarm {
        let hashes: Vec<PieceHash> = (0..pieces).map(|n| PieceHash([n as u8; 20])).collect();
        let torrent = metainfo::write(&Description {
            name: "test",
            trackers: &["http://10.77.0.9/announce".into()],
            webseeds: &[],
            created_by: "test",
            private: false,
            piece_bytes,
            hashes: &hashes,
            content: Content::Single { length: u64::from(pieces) * u64::from(piece_bytes) },
        });
        let metainfo = Arc::new(Metainfo::parse(&torrent).unwrap());
        let config = Config {
            role,
            peer_id: PeerId([0xff; 20]),
            listen_port: 6881,
            rng_seed: 1,
            buffer_count: buffer_count_min(&metainfo.layout),
            peers: peers.to_vec(),
            verify: true,
            tracker_grace: Duration::from_secs(30),
            seed_for: None,
            stall: None,
        };
        Swarm::new(at(0), metainfo, config)
    }

    fn shake_hands(swarm: &mut Swarm, slot: PeerSlot, host: u8, fast: bool) {
        let info_hash = swarm.metainfo.info_hash;
        let handshake = Handshake { fast, extended: false, info_hash, peer_id: PeerId([host; 20]) };
        swarm.handle_handshake(at(0), slot, &handshake);
        assert!(swarm.peer(slot).is_live());
    }

    /// A peer that called us, past the handshake, with these pieces.
    fn caller(swarm: &mut Swarm, host: u8, fast: bool, has: &[u32]) -> PeerSlot {
        let slot = swarm.handle_incoming(at(0), address(host)).unwrap();
        shake_hands(swarm, slot, host, fast);
        has.iter().for_each(|piece| swarm.handle_message(at(0), slot, Message::Have(*piece)));
        slot
    }

    /// All that this peer would be told now.
    fn said(swarm: &mut Swarm, now: Instant, slot: PeerSlot) -> Vec<Send> {
        let said = core::iter::from_fn(|| swarm.poll_send(now, slot)).collect();
        swarm.check_invariants();
        said
    }

    /// The blocks it would be asked for now.
    fn asked(swarm: &mut Swarm, now: Instant, slot: PeerSlot) -> Vec<RawBlock> {
        let request = |send| if let Send::Message(Message::Request(raw)) = send { Some(raw) } else { None };
        said(swarm, now, slot).into_iter().filter_map(request).collect()
    }

    /// The disk does all it was asked to, and every hash is the right one.
    fn work(swarm: &mut Swarm, now: Instant) {
        while let Some(work) = swarm.poll_work() {
            match work {
                Work::Hash { of, begin, length, .. } => {
                    let (HashOf::Download(piece) | HashOf::ReadBack(piece)) = of;
                    if begin + length == swarm.metainfo.layout.piece_length(piece) {
                        swarm.handle_hashed(now, of, PieceHash([piece.0 as u8; 20]));
                    }
                }
                Work::Write { ticket, .. } | Work::Read { ticket, .. } | Work::Flush { ticket } => {
                    swarm.handle_disk(now, ticket, Ok(()));
                }
            }
        }
    }

    fn first_block(piece: u32) -> RawBlock {
        RawBlock { index: piece, begin: 0, length: BLOCK_BYTES }
    }

    #[test]
    fn asking_for_the_same_block_for_ever_does_no_harm() {
        let mut swarm = swarm(Role::Seeder, 2, 32 * KIB, &[]);
        let slot = caller(&mut swarm, 1, true, &[]);
        swarm.handle_message(at(0), slot, Message::Interested);
        for _ in 0..u32::from(u16::MAX) + 10 {
            swarm.handle_message(at(0), slot, Message::Request(first_block(0)));
            swarm.handle_message(at(0), slot, Message::Cancel(first_block(0)));
            while swarm.poll_send(at(0), slot).is_some() {}
        }
        swarm.check_invariants();
        assert_eq!(swarm.poll_close(), None);
    }

    #[test]
    fn who_asks_and_cancels_and_never_reads_is_closed() {
        let mut swarm = swarm(Role::Seeder, 2, 32 * KIB, &[]);
        let slot = caller(&mut swarm, 1, true, &[]);
        swarm.handle_message(at(0), slot, Message::Interested);
        while swarm.poll_send(at(0), slot).is_some() {}
        for _ in 0..3 * REPLIES_MAX {
            swarm.handle_message(at(0), slot, Message::Request(first_block(0)));
            swarm.handle_message(at(0), slot, Message::Cancel(first_block(0)));
        }
        assert!(swarm.peer(slot).replies.len() <= REPLIES_MAX + 1);
        assert_eq!(swarm.poll_close(), Some((slot, "it asks and does not listen")));
    }

    /// With pieces of 16 MiB there is room for one open piece: once nobody can finish it, it makes room for another.
    #[test]
    fn a_piece_whose_last_holder_left_makes_room() {
        let mut swarm = swarm(Role::Leecher, 3, 16 * MIB, &[]);
        let holder = caller(&mut swarm, 1, false, &[0]);
        let other = caller(&mut swarm, 2, false, &[1]);
        for slot in [holder, other] {
            swarm.handle_message(at(0), slot, Message::Unchoke);
        }
        assert_eq!(asked(&mut swarm, at(0), holder)[0], first_block(0));
        swarm.handle_message(at(0), holder, Message::Choke);
        assert_eq!(asked(&mut swarm, at(0), other), [], "piece 0 has the buffers");
        swarm.handle_closed(at(0), holder);
        assert_eq!(asked(&mut swarm, at(0), other)[0], first_block(1));
    }

    #[test]
    fn who_had_nothing_for_us_is_asked_again_when_it_has() {
        let mut swarm = swarm(Role::Leecher, 2, 32 * KIB, &[]);
        let slots = [1, 2].map(|host| caller(&mut swarm, host, false, &[0]));
        for slot in slots {
            swarm.handle_message(at(0), slot, Message::Unchoke);
        }
        assert_eq!(asked(&mut swarm, at(0), slots[0]).len(), 2);
        assert_eq!(asked(&mut swarm, at(0), slots[1]), []);
        let version = swarm.picker.version();
        swarm.handle_message(at(0), slots[0], Message::Have(1));
        assert_eq!(swarm.picker.version(), version, "no use to look through all pieces again for the other");
        swarm.handle_message(at(0), slots[1], Message::Have(1));
        assert_eq!(asked(&mut swarm, at(0), slots[1])[0], first_block(1));
    }

    /// Each block it does not take pins a buffer that nobody else can use.
    #[test]
    fn who_does_not_take_what_it_asked_for_is_closed() {
        let mut swarm = swarm(Role::Seeder, 2, 32 * KIB, &[]);
        let slot = caller(&mut swarm, 1, false, &[]);
        swarm.handle_message(at(0), slot, Message::Interested);
        said(&mut swarm, at(0), slot);
        swarm.handle_message(at(0), slot, Message::Request(first_block(0)));
        work(&mut swarm, at(0));
        let sends = said(&mut swarm, at(0), slot);
        assert!(matches!(sends[..], [Send::Block { .. }]), "{sends:?}");
        let unread = SILENCE_MAX.as_secs();
        for second in 0..=unread {
            assert_eq!(swarm.poll_close(), None, "after {second} s");
            swarm.handle_message(at(second), slot, Message::KeepAlive);
            swarm.handle_timeout(at(second));
        }
        assert_eq!(swarm.poll_close(), Some((slot, "it asks and does not read")));
        swarm.handle_closed(at(unread), slot);
        swarm.check_invariants();
    }

    /// A leecher of one piece has got it from the peer it called; the disk has not flushed yet.
    fn written_not_proven() -> (Swarm, PeerSlot) {
        let mut swarm = swarm(Role::Leecher, 1, 16 * KIB, &[address(1)]);
        let (slot, called) = swarm.poll_connect(at(0)).unwrap();
        assert_eq!(called, address(1));
        swarm.handle_connected(at(0), slot);
        shake_hands(&mut swarm, slot, 1, true);
        swarm.handle_message(at(0), slot, Message::HaveAll);
        swarm.handle_message(at(0), slot, Message::Unchoke);
        assert_eq!(asked(&mut swarm, at(0), slot), [first_block(0)]);
        assert_ne!(swarm.begin_block(at(0), slot, first_block(0)), Sink::Discard);
        swarm.handle_block(at(0), slot, first_block(0));
        while swarm.state == State::Downloading {
            match swarm.poll_work().expect("hash and write come first") {
                Work::Hash { of, .. } => swarm.handle_hashed(at(0), of, PieceHash([0; 20])),
                Work::Write { ticket, .. } => swarm.handle_disk(at(0), ticket, Ok(())),
                work => panic!("{work:?}"),
            }
        }
        swarm.check_invariants();
        (swarm, slot)
    }

    #[test]
    fn two_that_have_everything_do_not_call_each_other_during_the_read_back() {
        let (mut swarm, slot) = written_not_proven();
        swarm.handle_closed(at(0), slot);
        assert_eq!(swarm.poll_connect(at(10)), None);
    }

    #[test]
    fn completed_is_said_after_the_read_back_and_nothing_is_left_then() {
        let (mut swarm, _) = written_not_proven();
        assert!(swarm.poll_announce(at(0)).unwrap().contains("&left=16384&"));
        swarm.handle_announced(at(0), Err("no answer".into()));
        assert_eq!(swarm.state, State::Verifying);
        work(&mut swarm, at(0));
        assert_eq!(swarm.state, State::Seeding);
        assert_eq!(swarm.left_bytes(), 0);
    }

    #[test]
    fn who_is_interrupted_during_the_read_back_has_proven_nothing() {
        let (mut swarm, _) = written_not_proven();
        swarm.leave(at(0));
        assert_eq!(swarm.state, State::Leaving(Outcome::Interrupted));
        assert_eq!(swarm.left_bytes(), 16 * 1024);
    }

    /// In a room larger than PEERS_MAX everybody calls and is called; whoever comes late must find a free place.
    #[test]
    fn in_a_large_room_half_of_the_places_are_left_to_callers() {
        let peers = |count: u8| (1..=count).map(address).collect::<Vec<_>>();
        for (known, called) in [(MESH_PEERS as u8, CONNECTING_MAX), (200, LINKS_BEYOND_MESH)] {
            let mut swarm = swarm(Role::Leecher, 1, 16 * KIB, &peers(known));
            assert_eq!(core::iter::from_fn(|| swarm.poll_connect(at(0))).count(), called);
        }
    }
}
