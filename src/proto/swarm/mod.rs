//! One torrent on one disk, as decisions only: from "nothing is here" to "it is all there, read
//! back, and passed on".
//!
//! Words of what happened go in by `handle_*`, words of what is to be done come out by `poll_*`;
//! neither carries payload. The parts: `picker` (what to ask for), `peer` (what stands with each
//! peer), `choker` (whom to serve), `cache` (which buffer holds what), `contents` (what needs no
//! peer), `read_queue` (what is really there), `tracker` and `mesh` (where the others are).
//!
//! A block's way through: `poll_send` asks for it, `begin_block` names the buffer, `handle_block`
//! puts it to the hash, `handle_hashed` of its whole piece puts it to the disk, `handle_disk` tells
//! everybody we have it. In that order, so nothing is announced that is not on the disk.
//!
//! A leecher's way: Scanning (a sample of what the target holds, then all of it if the sample says
//! so), Downloading what it lacks, Verifying what was written by reading it back, Seeding.
//!
//! Here: the agent as a whole, its connections, and how it ends. `interface`: what crosses the border
//! to the shell. `inbound` and `outbound`: what peers say, and what is said to them. `storage`:
//! what the disk does.

#[cfg(test)]
mod disk_tests;
mod inbound;
mod interface;
mod outbound;
mod peer;
mod storage;
#[cfg(test)]
mod tests;

pub use interface::*;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::bitfield::Bitfield;
use crate::format::contents::Contents;
use crate::format::metainfo::Metainfo;
use crate::limits::*;
use crate::policy::cache::{Cache, Chunk};
use crate::policy::choker;
use crate::policy::mesh::{Ending, Mesh, Whom};
use crate::policy::picker::Picker;
use crate::policy::ranking::Ranking;
use crate::policy::read_queue::ReadQueue;
use crate::policy::tracker::{Need, Tracker};
use crate::rng::Rng;
use crate::swarm::peer::{Peer, Phase, overdue};
use crate::units::*;
use crate::wire::announce::{AnnounceRequest, Answer, Event as AnnounceEvent};
use crate::wire::message::{Handshake, Message};

/// What a ticket was given out for.
enum Pending {
    /// `from` is the open piece whose buffers are written; zeros need none.
    Write {
        piece: PieceIndex,
        from: Option<PieceIndex>,
    },
    /// Not `good` any more: the piece was lost meanwhile, and what comes may be what was there
    /// before.
    Load {
        chunk: Chunk,
        buffer: BufferId,
        good: bool,
    },
    ReadAndHash {
        chunk: Chunk,
        buffer: BufferId,
    },
    Flush,
}

/// How far the look at what a target holds has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScanStage {
    Sample { good: bool },
    Rest,
}

/// After any batch of `handle_*` call `poll_send` for each peer that has room, then `poll_hash`,
/// `poll_disk`, `poll_close`, `poll_connect`, `poll_announce`, `poll_event`, each until None, and
/// last `poll_timeout`.
///
/// Invariants: a piece whose place on the disk has changed sides is in `news`; what is on the disk
/// is neither wanted nor `unknown`; every buffer is free, stored, or owned by exactly one open
/// piece, pending read or read_queue; every pinned buffer has its block in some peer's `sending`.
pub struct Swarm {
    metainfo: Arc<Metainfo>,
    config: Config,
    buffer_bytes: u32,
    state: State,
    rng: Rng,
    peers: Vec<Option<Peer>>,
    picker: Picker,
    cache: Cache,
    contents: Contents,
    read_queue: ReadQueue,
    scan: ScanStage,
    /// Pieces of the target that nobody has looked at yet.
    unknown: Bitfield,
    /// Of the pieces that are being looked at, those that could not be read; and how many there
    /// were.
    unread: BTreeSet<PieceIndex>,
    unread_count: u32,
    /// Pieces on the disk that were written since they were last read.
    unproven: Bitfield,
    /// Pieces that were not what had been written when they were read back, and were fetched again.
    retried: BTreeSet<PieceIndex>,
    /// Bad for the second time: how many, and the first.
    bad_again: u32,
    first_bad: Option<PieceIndex>,
    /// Pieces of zeros that the disk still has to make.
    zeros: VecDeque<PieceIndex>,
    /// Places that still have to be written, and the open piece that is equal.
    copies: VecDeque<(PieceIndex, PieceIndex)>,
    /// Pieces that are being written, or wait in `copies`.
    coming: Bitfield,
    /// Pieces in the order in which they got onto the disk here, or were lost again; peers are told
    /// in this order.
    news: Vec<PieceIndex>,
    /// How often each piece was sent or suggested.
    sent: Ranking,
    /// Where the seeder goes on offering.
    next_offer: PieceIndex,
    tracker: Tracker,
    mesh: Mesh,
    pending: BTreeMap<Ticket, Pending>,
    next_ticket: u64,
    loads: usize,
    work: VecDeque<Work>,
    closing: VecDeque<(PeerSlot, &'static str)>,
    events: VecDeque<Event>,
    announce_key: u32,
    /// Somebody has come, or changed its mind about what it wants.
    rechoke_due: bool,
    next_tick: Instant,
    /// The last time a new block arrived, or a piece got onto the disk.
    progress_at: Instant,
    /// The last time one more was called than there should be.
    looked_further_at: Instant,
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
        config
            .peers
            .iter()
            .for_each(|address| mesh.learn(now, *address, true));
        let seeder = config.role == Role::Seeder;
        let pieces = layout.piece_count();
        let have = if seeder {
            Bitfield::full(pieces)
        } else {
            Bitfield::new(pieces)
        };
        let picker_rng = Rng::new(rng.next_u64());
        // A seeder has looked at nothing yet, but says that it is all there; a leecher does not.
        let (unknown, unproven) = if seeder {
            (Bitfield::new(pieces), have.clone())
        } else {
            (Bitfield::full(pieces), have.clone())
        };
        let mut swarm = Swarm {
            buffer_bytes,
            state: if seeder {
                State::Seeding
            } else {
                State::Scanning
            },
            peers: Vec::new(),
            picker: Picker::new(layout, buffer_bytes, have, picker_rng),
            cache: Cache::new(config.buffer_count),
            contents: Contents::new(&layout, &metainfo.hashes),
            read_queue: ReadQueue::new(layout, buffer_bytes, READ_AHEAD_MAX),
            scan: ScanStage::Sample { good: false },
            unknown,
            unread: BTreeSet::new(),
            unread_count: 0,
            unproven,
            retried: BTreeSet::new(),
            bad_again: 0,
            first_bad: None,
            zeros: VecDeque::new(),
            copies: VecDeque::new(),
            coming: Bitfield::new(pieces),
            news: Vec::new(),
            sent: Ranking::new(pieces, &mut rng),
            // Two seeders are not to offer the same pieces at the same time.
            next_offer: PieceIndex(rng.below(pieces)),
            tracker: Tracker::new(
                now,
                metainfo.trackers.clone(),
                config.tracker_grace,
                &mut rng,
            ),
            mesh,
            pending: BTreeMap::new(),
            next_ticket: 0,
            loads: 0,
            work: VecDeque::new(),
            closing: VecDeque::new(),
            events: VecDeque::new(),
            announce_key: rng.next_u64() as u32,
            rechoke_due: false,
            next_tick: now,
            progress_at: now,
            looked_further_at: now,
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
        };
        // Nobody asks for these.
        swarm
            .contents
            .needless()
            .ones()
            .for_each(|piece| swarm.sent.remove(piece));
        match (seeder, swarm.config.look) {
            (true, true) => {}
            (true, false) => swarm.unproven = Bitfield::new(pieces),
            (false, true) => swarm.take_sample(now),
            (false, false) => swarm.miss_unknown(now),
        }
        swarm
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
        let (checked, to_check) = self.read_queue.progress();
        Progress {
            state: self.state.clone(),
            have: self.have().count(),
            pieces: self.have().len(),
            verified: self.have().count() - self.unproven.count(),
            checked,
            to_check,
            bad_offset: self.bad_offset(),
            fetched: self.fetched,
            wasted: self.wasted,
            uploaded: self.uploaded,
            peers: self
                .peers
                .iter()
                .flatten()
                .filter(|peer| peer.is_live())
                .count() as u32,
        }
    }

    fn bad_offset(&self) -> Option<DiskOffset> {
        let (State::Leaving(Outcome::Failed(Failure::Disk(error)))
        | State::Over(Outcome::Failed(Failure::Disk(error)))) = &self.state
        else {
            return self.first_bad.map(|piece| self.disk_offset(piece));
        };
        // A flush has no place.
        (error.operation != DiskOperation::Flush).then_some(error.offset)
    }

    fn is_open(&self) -> bool {
        self.is_fetching() || matches!(self.state, State::Verifying | State::Seeding)
    }

    fn is_fetching(&self) -> bool {
        matches!(self.state, State::Scanning | State::Downloading)
    }

    fn peer(&mut self, slot: PeerSlot) -> &mut Peer {
        self.peers[slot.index()]
            .as_mut()
            .expect("the shell names only open slots")
    }

    fn slots(&self) -> impl Iterator<Item = PeerSlot> + use<> {
        (0..self.peers.len() as u32).map(PeerSlot)
    }

    fn disk_offset(&self, piece: PieceIndex) -> DiskOffset {
        let layout = &self.metainfo.layout;
        let start = layout.piece_start(piece);
        let first = self
            .metainfo
            .extents
            .ranges(start, u64::from(layout.piece_length(piece)))
            .next();
        first.expect("every piece lies on the disk").disk
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        }
    }

    // ---- connections

    /// A connection came in whose handshake names our info-hash: take it and call
    /// `handle_handshake`, or, on None, close it.
    pub fn handle_incoming(&mut self, now: Instant, address: SocketAddr) -> Option<PeerSlot> {
        if !self.is_open() || self.mesh.is_banned(address) {
            return None;
        }
        let count = self
            .peers
            .iter()
            .flatten()
            .filter(|peer| peer.phase != Phase::Closing)
            .count();
        if count >= self.links_max() {
            let settled = self.settled(now)?;
            self.close(now, settled, Ending::Normal, "its place is needed");
        }
        Some(self.add_peer(now, address, false))
    }

    /// Who has called us longest ago, and may well have other neighbours by now. Not a source, and
    /// none that we called: whatever calls, those stay.
    fn settled(&self, now: Instant) -> Option<PeerSlot> {
        let called = |slot: &PeerSlot| {
            let peer = self.peers[slot.index()].as_ref()?;
            let settled = peer.is_live() && !peer.outgoing && !peer.is_complete();
            (settled && overdue(now, peer.since, LINK_KEPT)).then_some(peer.since)
        };
        let may_go = self.config.role == Role::Leecher;
        self.slots()
            .filter(|slot| may_go && called(slot).is_some())
            .min_by_key(called)
    }

    fn add_peer(&mut self, now: Instant, address: SocketAddr, outgoing: bool) -> PeerSlot {
        let peer = Peer::new(now, address, outgoing, self.have().len());
        let slot = self
            .peers
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.peers.len());
        if slot == self.peers.len() {
            self.peers.push(None);
        }
        self.peers[slot] = Some(peer);
        PeerSlot(slot as u32)
    }

    /// A connection that `poll_connect` asked for stands. If it could not be set up:
    /// `handle_closed`.
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
            // The end that called learns it from our handshake, and never calls that address again;
            // so it closes.
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
        self.rechoke_due = true;
        let peer = self.peer(slot);
        peer.phase = Phase::Live;
        (peer.fast, peer.extended) = (handshake.fast, handshake.extended);
        peer.peer_id = Some(handshake.peer_id);
        (peer.heard_at, peer.spoke_at, peer.progress_at) = (now, now, now);
    }

    /// Of two connections with one peer, the one to drop. Both sides must come to the same answer:
    /// the connection stays that was set up by the smaller peer id; of two in the same direction,
    /// the older.
    fn duplicate_of(&mut self, slot: PeerSlot, peer_id: PeerId) -> Option<PeerSlot> {
        let same = |peer: &Peer| peer.is_live() && peer.peer_id == Some(peer_id);
        let other = self
            .slots()
            .find(|s| *s != slot && self.peers[s.index()].as_ref().is_some_and(same))?;
        let (new_is_ours, old_is_ours) = (self.peer(slot).outgoing, self.peer(other).outgoing);
        if new_is_ours == old_is_ours {
            return Some(slot);
        }
        let ours_stays = self.config.peer_id < peer_id;
        Some(if new_is_ours == ours_stays {
            other
        } else {
            slot
        })
    }

    /// The connection is gone: an error, its end, a failed set-up, or the answer to `poll_close`.
    /// The slot may be reused.
    pub fn handle_closed(&mut self, now: Instant, slot: PeerSlot) {
        let Some(mut peer) = self.peers[slot.index()].take() else {
            return;
        };
        self.closing.retain(|(closing, _)| *closing != slot);
        for block in peer.requests.drain(..) {
            self.config.max_down.give_back(block.length);
            self.picker.release(block, slot);
        }
        for piece in peer.offered.drain(..) {
            self.sent.decrement(piece, &mut self.rng);
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
                () if self.have().is_full() && peer.is_complete() => Ending::BothComplete,
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

    // ---- tracker, clock, leaving

    /// The tracker's answer, or why there was none.
    pub fn handle_announced(&mut self, now: Instant, answer: Result<Answer, String>) {
        let was_lost = self.tracker.unreachable_since().is_some();
        match answer {
            Ok(Answer::Peers { peers, warning, .. }) => {
                self.tracker.answered(now);
                peers
                    .into_iter()
                    .for_each(|address| self.mesh.learn(now, address, false));
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
        self.config.max_up.handle_timeout(now);
        self.config.max_down.handle_timeout(now);
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
            // Over: from here on only the disk is waited for, and a past time in `poll_timeout`
            // would make the shell spin.
            self.farewell_by = None;
        }
        self.advance(now);
    }

    /// Time-outs of one peer.
    fn watch(&mut self, now: Instant, slot: PeerSlot) {
        let seeding = self.state == State::Seeding;
        let peer = self.peer(slot);
        peer.measure(now);
        let waiting = peer.is_live() && !peer.requests.is_empty();
        let sending = !peer.sending.is_empty();
        // Whatever the reason: who is left without a word asks for what it needs.
        let may_ask = peer.may_request(now) && peer.requests.is_empty();
        if peer.offers && may_ask && overdue(now, peer.progress_at, OFFER_PATIENCE) {
            (peer.offers, peer.nothing_at) = (false, None);
        }
        let (complete, told) = (peer.is_complete(), peer.said_complete || !peer.extended);
        let (progress_at, snubbed, since, heard_at, spoke_at) = (
            peer.progress_at,
            peer.snubbed,
            peer.since,
            peer.heard_at,
            peer.spoke_at,
        );
        match peer.phase {
            Phase::Connecting | Phase::Greeting if overdue(now, since, GREETING_MAX) => {
                self.close(now, slot, Ending::Failed, "it did not answer");
            }
            Phase::Live if waiting && overdue(now, progress_at, SILENCE_MAX) => {
                self.close(now, slot, Ending::Failed, "it was asked and sent nothing");
            }
            // What it does not read stays pinned in the pool, and a few like it would pin all of
            // it.
            Phase::Live if sending && overdue(now, spoke_at, SILENCE_MAX) => {
                self.close(now, slot, Ending::Failed, "it asks and does not read");
            }
            Phase::Live if overdue(now, heard_at, IDLE_MAX) => {
                self.close(now, slot, Ending::Failed, "nothing was heard from it");
            }
            // Once the other one knows it too, or it would call again.
            Phase::Live if told && complete && !sending && seeding => {
                self.close(now, slot, Ending::BothComplete, "both have everything");
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
            self.peer(slot)
                .replies
                .push_back(Message::Cancel(block.into()));
        }
        self.picker.restart_pieces_of(slot);
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
        let candidates: Vec<_> = self
            .peers
            .iter()
            .enumerate()
            .filter_map(candidate)
            .collect();
        for (slot, unchoke) in choker::decide(now, &candidates, self.upload_slots(), CHOKE_QUANTUM)
        {
            let peer = self.peer(slot);
            (peer.unchoke, peer.choke_changed) = (unchoke, now);
        }
    }

    fn links_max(&self) -> usize {
        if self.config.role == Role::Seeder {
            SEED_LINKS_MAX
        } else {
            LINKS_MAX
        }
    }

    /// Enough for all; with `--max-up` only for as many as can be sent what they ask for at once
    /// while they have their slots: the others would wait behind them.
    fn upload_slots(&self) -> usize {
        let Some(rate) = self.config.max_up.bytes_per_second() else {
            return self.links_max();
        };
        let in_quantum = rate * CHOKE_QUANTUM.as_secs() / u64::from(PIPELINE_MIN * BLOCK_BYTES);
        in_quantum.clamp(1, self.links_max() as u64) as usize
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
        // Who calls and has not said yet what it has may call for nothing.
        let incomplete =
            |peer: &Peer| peer.is_live() && !peer.may_send_bitfield && !peer.is_complete();
        if self.peers.iter().flatten().any(incomplete) {
            self.needed_at = now;
        }
        let complete_at = self.complete_at.expect("seeding means complete");
        let enough = match self.config.seed_for {
            Some(limit) => overdue(now, complete_at, limit),
            // A seed may be started before its tracker.
            None if self.config.role == Role::Seeder => {
                self.tracker.was_there() && self.tracker.is_gone()
            }
            None if self.tracker.exists() => self.tracker.is_gone(),
            // Nobody can tell us to stop: stay as long as somebody who lacks something is
            // connected.
            None => {
                let since = if self.needed_at > complete_at {
                    self.needed_at
                } else {
                    complete_at
                };
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
            // Who passes on what is complete and proven has done what was asked for.
            let done = self.state == State::Seeding;
            self.finish(
                now,
                if done {
                    Outcome::Complete
                } else {
                    Outcome::Interrupted
                },
            );
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
        self.farewell_by = self.tracker.stop(now).then_some(now + LEAVING_MAX);
        self.try_to_go(now);
    }

    fn try_to_go(&mut self, now: Instant) {
        let State::Leaving(outcome) = &self.state else {
            return;
        };
        let outcome = outcome.clone();
        if !self.pending.is_empty() {
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

    // ---- what is to be done

    /// What the disk is to do. For what is to be hashed: `poll_hash`.
    pub fn poll_disk(&mut self) -> Option<Work> {
        self.work.pop_front()
    }

    /// Both, for those who do one thing after the other.
    #[cfg(test)]
    pub fn poll_work(&mut self) -> Option<Work> {
        self.poll_disk().or_else(|| {
            let [first, second] = self.poll_hash(false);
            // Before whatever is to be read into its buffer.
            second
                .into_iter()
                .for_each(|second| self.work.push_front(Work::Hash(second)));
            first.map(Work::Hash)
        })
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
        let count = self.peers.iter().flatten().count();
        let waits_since = self.progress_at.max(self.looked_further_at);
        let gets_nothing = self.state == State::Downloading
            && overdue(now, waits_since, LINK_PATIENCE)
            && count < SEED_LINKS_MAX;
        if count >= LINKS && !gets_nothing {
            return None;
        }
        let whom = match self.config.role {
            _ if !self.have().is_full() => Whom::Anybody,
            Role::Seeder => Whom::Incomplete,
            Role::Leecher => Whom::Named,
        };
        let address = self.mesh.next(now, whom, &mut self.rng)?;
        if count >= LINKS {
            self.looked_further_at = now;
        }
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
            numwant: if event == AnnounceEvent::Stopped {
                0
            } else {
                NUMWANT
            },
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
            State::Scanning | State::Downloading | State::Verifying => {
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
            None => self
                .have()
                .zeros()
                .map(|piece| u64::from(layout.piece_length(piece)))
                .sum(),
        }
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When `handle_timeout` (or `poll_connect`, `poll_announce`) has something to do next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let need = self.need()?;
        let announce = self.tracker.next(need);
        // While the disk still works there is nothing to do about the farewell, however late it
        // gets.
        let farewell = self.farewell_by.filter(|_| self.pending.is_empty());
        let tick = self.is_open().then_some(self.next_tick);
        let limits = [self.config.max_up.next(), self.config.max_down.next()];
        let limit = limits
            .into_iter()
            .flatten()
            .min()
            .filter(|_| self.is_open());
        [announce, farewell, tick, limit]
            .into_iter()
            .flatten()
            .min()
    }

    /// What is missing is made, or being written, or fetched itself, or comes with one equal piece;
    /// one of these.
    fn ways_to_come(&self, piece: PieceIndex) -> usize {
        let made = self.zeros.iter().filter(|zeros| **zeros == piece).count();
        let ring = || [piece].into_iter().chain(self.contents.equals(piece));
        let fetched = ring()
            .filter(|equal| self.picker.wanted().get(*equal))
            .count();
        made + fetched + usize::from(self.coming.get(piece))
    }

    /// Recounts everything from scratch; for tests and the simulator.
    pub fn check_invariants(&self) {
        self.cache.check_invariants();
        self.sent.check_invariants();
        let peers: Vec<(PeerSlot, &Peer)> = (0..)
            .map(PeerSlot)
            .zip(&self.peers)
            .filter_map(|(s, p)| Some((s, p.as_ref()?)))
            .collect();
        let asked: Vec<(PeerSlot, Block)> = peers
            .iter()
            .flat_map(|(slot, peer)| peer.requests.iter().map(|block| (*slot, *block)))
            .collect();
        let fields: Vec<&Bitfield> = peers.iter().map(|(_, peer)| &peer.has).collect();
        self.picker.check_invariants(&asked, &fields);

        let pins: usize = peers.iter().map(|(_, peer)| peer.sending.len()).sum();
        assert_eq!(self.cache.pin_count() as usize, pins);
        let loading = self
            .pending
            .values()
            .filter(|p| matches!(p, Pending::Load { .. }))
            .count();
        assert_eq!(self.loads, loading);
        if self.is_open() {
            let inspected = self.read_queue.buffer_count();
            assert_eq!(
                self.cache.taken_count(),
                self.picker.buffer_count() + loading + inspected
            );
        }
        for (_, peer) in &peers {
            let wanted = peer
                .has
                .ones()
                .filter(|piece| self.picker.wanted().get(*piece))
                .count();
            assert_eq!(peer.wanted as usize, wanted);
            assert!(peer.uploads.len() <= UPLOAD_QUEUE_MAX);
            assert!(peer.told <= self.news.len());
        }
        for piece in self.metainfo.layout.pieces() {
            let (have, unknown) = (self.have().get(piece), self.unknown.get(piece));
            assert!(have || !self.unproven.get(piece));
            assert!(!unknown || !have && !self.picker.wanted().get(piece));
            assert!(
                have || !self.cache.holds(piece),
                "piece {} could be sent, and is not there",
                piece.0
            );
            if self.is_open() && self.config.role == Role::Leecher && !have && !unknown {
                let ways = self.ways_to_come(piece);
                assert_eq!(ways, 1, "piece {} comes in {ways} ways", piece.0);
            }
        }
        let scanning = self.state == State::Scanning && self.config.look;
        assert!(scanning || self.unknown.is_empty() || !self.is_open());
    }
}
