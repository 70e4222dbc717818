//! How do we stand with one peer: who chokes whom, what was asked for, what is being sent?
//!
//! Read first: BEP 3, 6, 10. Choking and interest are decided in one field and compared with what
//! the peer was last told (`unchoke` against `am_choking`, `wanted` against `am_interested`). So
//! there is no queue of state changes that could overflow.
//!
//! In every turn of the loop we ask whether this peer has a block for us, and mostly it has none.
//! The picker finds that out at some cost, so its "no" is remembered until something changes that
//! it depends on: `PickInputs` outside the peer, and `version` of the peer. Each method here that
//! may turn a "no" into a "yes" raises it, and the fields that matter are private.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use super::changes::Reader;
use super::exchange::Exchange;
use super::peer_tails::PeerTails;
use super::rate::{Pipeline, Rate};
use super::requests::Requests;
use super::sending::Sending;
use crate::bitfield::Bitfield;
use crate::limits::*;
use crate::policy::load::Shrinking;
use crate::policy::room::Share;
use crate::policy::throttle::Turn;
use crate::units::{Block, BufferId, Giver, Instant, PeerId, PieceIndex};
use crate::wire::message::{Handshake, Message};

/// How far the connection has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// We are setting up TCP.
    Connecting,
    /// TCP is up, and their handshake is missing.
    Greeting,
    /// Both handshakes are done.
    Live,
    /// We want it closed; the shell has not confirmed yet.
    Closing,
}

/// Which side made the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// The peer connected to us.
    Incoming,
    /// We connected to the peer.
    Outgoing,
}

/// Everything that an answer of the picker depends on, except for the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PickInputs {
    /// `Picker::version`.
    pub(super) picker_version: u64,
    /// What we fetch from routed peers.
    pub(super) share: Share,
    /// Much less arrives than could.
    pub(super) starved: bool,
    /// There is room to open another piece.
    pub(super) room: bool,
    /// No further piece will be wanted: the endgame may begin.
    pub(super) last: bool,
}

/// Invariant: `wanted` counts the pieces in `has` that the picker wants.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) direction: Direction,
    pub(super) phase: Phase,
    pub(super) since: Instant,
    pub(super) peer_id: Option<PeerId>,
    /// It is behind a router, see `policy/room`.
    pub(super) routed: bool,
    /// By its peer id, it is an agent of ours.
    is_ours: bool,
    /// As which they are blamed for bad blocks, once they have sent a block.
    pub(super) giver: Option<Giver>,
    pub(super) fast: bool,
    pub(super) extended: bool,
    /// They want nothing more, whatever they lack (BEP 21).
    pub(super) upload_only: bool,
    /// They suggest what to ask them for, and are asked for nothing else.
    offers: bool,
    /// We still offer to them, and have told them so if they know the extension (BEP 10).
    pub(super) said_offers: bool,
    /// We have told them that we want nothing more.
    pub(super) said_complete: bool,
    /// The id of the message that tells them that we lost a piece (BEP 54).
    pub(super) dont_have: Option<u8>,
    /// The id of the message in which they take compressed blocks.
    pub(super) lz_block: Option<u8>,
    pub(super) shrinking: Shrinking,
    pub(super) exchange: Exchange,

    pub(super) said_handshake: bool,
    pub(super) said_extended: bool,
    pub(super) said_bitfield: bool,
    /// Their bitfield, or one of the messages in its place, may still come.
    pub(super) may_send_bitfield: bool,

    has: Bitfield,
    wanted: u32,
    pub(super) tails: PeerTails,
    pub(super) am_choking: bool,
    pub(super) am_interested: bool,
    peer_choking: bool,
    pub(super) peer_interested: bool,
    /// The choker's decision; they are told at the next chance.
    pub(super) unchoke: bool,
    pub(super) choke_changed: Instant,
    /// How much of our changes they were told.
    pub(super) changes: Reader,

    /// Blocks we asked them for.
    pub(super) requests: Requests,
    pub(super) requests_max: u32,
    pub(super) rate: Rate,
    pipeline: Pipeline,
    /// The pipeline was full when we last asked.
    pub(super) filled: bool,
    /// When a block last arrived, or when one could first be asked for.
    pub(super) progress_at: Instant,
    /// They do not send in time: they are asked for one block at a time, and others for the same.
    pub(super) snubbed: bool,
    /// They refused requests: ask again from then on.
    pause_until: Instant,
    refusals: u32,
    /// Pieces they suggested, oldest first.
    suggested: Vec<PieceIndex>,
    /// Raised when they may have something for us that they had not before.
    version: u64,
    /// With which the picker last found nothing.
    nothing_at: Option<(PickInputs, u64)>,

    /// Blocks they asked for, oldest first.
    pub(super) uploads: VecDeque<Block>,
    /// Blocks that the shell is sending.
    pub(super) sending: VecDeque<Sending>,
    /// When they last took a block of `sending`, or when the first one was given out.
    took_at: Instant,
    /// They have taken nothing of `sending` for STALLED_AFTER.
    pub(super) is_stalled: bool,
    /// Chunks read for them, less the blocks sent to them (EXCESS_READS_MAX).
    pub(super) excess_reads: u32,
    /// When one of them lapsed last.
    excess_lapsed_at: Instant,
    /// They stand in `Swarm::loads`.
    pub(super) is_in_loads: bool,
    /// Pieces we suggested that they have not asked for yet.
    pub(super) offered: Vec<PieceIndex>,
    /// Pieces we suggested that they have asked for and do not have yet.
    pub(super) given: Vec<PieceIndex>,
    /// Rejects, cancels and late `have`s that they are to be told.
    pub(super) replies: VecDeque<Message>,

    /// What they have taken of our limits.
    pub(super) down_turn: Turn,
    pub(super) up_turn: Turn,

    pub(super) heard_at: Instant,
    pub(super) spoke_at: Instant,
    /// When a block that was asked for last went either way.
    pub(super) moved_at: Instant,
}

impl Peer {
    pub(super) fn new(
        now: Instant,
        address: SocketAddr,
        direction: Direction,
        piece_count: u32,
    ) -> Peer {
        let called_at = (direction == Direction::Outgoing).then_some(address);
        Peer {
            address,
            direction,
            phase: match direction {
                Direction::Outgoing => Phase::Connecting,
                Direction::Incoming => Phase::Greeting,
            },
            since: now,
            peer_id: None,
            routed: false,
            is_ours: false,
            giver: None,
            fast: false,
            extended: false,
            upload_only: false,
            offers: false,
            said_offers: false,
            said_complete: false,
            dont_have: None,
            lz_block: None,
            shrinking: Shrinking::default(),
            exchange: Exchange::new(now, called_at),
            said_handshake: false,
            said_extended: false,
            said_bitfield: false,
            may_send_bitfield: true,
            has: Bitfield::new(piece_count),
            wanted: 0,
            tails: PeerTails::default(),
            am_choking: true,
            am_interested: false,
            peer_choking: true,
            peer_interested: false,
            unchoke: false,
            choke_changed: now,
            changes: Reader::default(),
            requests: Requests::new(now),
            requests_max: REQUESTS_ASSUMED,
            rate: Rate::default(),
            pipeline: Pipeline::new(now),
            filled: false,
            progress_at: now,
            snubbed: false,
            pause_until: now,
            refusals: 0,
            suggested: Vec::new(),
            version: 0,
            nothing_at: None,
            uploads: VecDeque::new(),
            sending: VecDeque::new(),
            took_at: now,
            is_stalled: false,
            excess_reads: 0,
            excess_lapsed_at: now,
            is_in_loads: false,
            offered: Vec::new(),
            given: Vec::new(),
            replies: VecDeque::new(),
            down_turn: Turn::default(),
            up_turn: Turn::default(),
            heard_at: now,
            spoke_at: now,
            moved_at: now,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// We called them, and they have not answered promptly.
    pub(super) fn is_slow(&self, now: Instant) -> bool {
        let called = self.direction == Direction::Outgoing;
        let waits = matches!(self.phase, Phase::Connecting | Phase::Greeting);
        called && waits && overdue(now, self.since, CALL_PROMPT)
    }

    /// The connection is set up; their handshake comes next.
    pub(super) fn connected(&mut self, now: Instant) {
        if self.phase == Phase::Connecting {
            self.phase = Phase::Greeting;
            self.since = now;
        }
    }

    pub(super) fn greeted(&mut self, now: Instant, handshake: &Handshake) {
        self.phase = Phase::Live;
        (self.fast, self.extended) = (handshake.fast, handshake.extended);
        self.peer_id = Some(handshake.peer_id);
        self.is_ours = handshake.peer_id.0.starts_with(b"-SD");
        (self.heard_at, self.spoke_at, self.progress_at) = (now, now, now);
    }

    // ---- what they have and offer

    pub(super) fn has(&self) -> &Bitfield {
        &self.has
    }

    /// They have pieces that we want, or tails of them.
    pub(super) fn has_wanted(&self) -> bool {
        self.wanted > 0 || !self.tails.is_empty()
    }

    /// They have a wanted piece from this byte on.
    pub(super) fn gains_tail(&mut self, piece: PieceIndex, begin: u32) {
        if !self.has.get(piece) && self.tails.insert(piece, begin) {
            self.version += 1;
        }
    }

    /// Their bitfield. `wanted`: the pieces that the picker wants.
    pub(super) fn set_bitfield(&mut self, has: Bitfield, wanted: &Bitfield) {
        self.wanted = has.present().filter(|piece| wanted.get(*piece)).count() as u32;
        self.has = has;
        self.tails.forget_theirs();
        self.version += 1;
    }

    /// They have got a piece; false if we knew that.
    pub(super) fn gains(&mut self, piece: PieceIndex, wanted: &Bitfield) -> bool {
        if !self.has.set(piece) {
            return false;
        }
        self.wanted += u32::from(wanted.get(piece));
        self.tails.gains_piece(piece);
        for list in [&mut self.offered, &mut self.given] {
            list.retain(|offered| *offered != piece);
        }
        self.version += 1;
        true
    }

    /// They have lost a piece; false if they did not have it.
    pub(super) fn loses(&mut self, piece: PieceIndex, wanted: &Bitfield) -> bool {
        if !self.has.clear(piece) {
            return false;
        }
        self.wanted -= u32::from(wanted.get(piece));
        self.suggested.retain(|suggested| *suggested != piece);
        // The loss is why they refused, and no reason to wait before they are asked for another
        // piece.
        (self.refusals, self.pause_until) = (0, Instant(0));
        true
    }

    /// The picker wants this piece from now on.
    pub(super) fn note_wanted(&mut self, piece: PieceIndex) {
        self.wanted += u32::from(self.has.get(piece));
    }

    /// The picker does not want this piece any more.
    pub(super) fn note_unwanted(&mut self, piece: PieceIndex) {
        self.wanted -= u32::from(self.has.get(piece));
        self.tails.remove(piece);
    }

    pub(super) fn offers(&self) -> bool {
        self.offers
    }

    pub(super) fn set_offers(&mut self, offers: bool) {
        self.offers = offers;
        self.version += 1;
    }

    pub(super) fn suggested(&self) -> &[PieceIndex] {
        &self.suggested
    }

    /// Remembers a suggestion; the oldest makes room.
    pub(super) fn suggest(&mut self, piece: PieceIndex) {
        if self.suggested.len() >= SUGGESTED_MAX {
            self.suggested.remove(0);
        }
        self.suggested.push(piece);
        self.version += 1;
    }

    pub(super) fn chokes(&self) -> bool {
        self.peer_choking
    }

    pub(super) fn chokes_us(&mut self) {
        self.peer_choking = true;
        // What they suggested to us they may now suggest to others.
        self.suggested.clear();
    }

    pub(super) fn unchokes_us(&mut self, now: Instant) {
        self.peer_choking = false;
        self.progress_at = now;
        self.version += 1;
    }

    /// The picker has found nothing to ask them for.
    pub(super) fn note_nothing(&mut self, inputs: PickInputs) {
        self.nothing_at = Some((inputs, self.version));
        self.filled = false;
    }

    /// The picker has found nothing to ask them for, and nothing has changed since.
    pub(super) fn is_known_to_have_nothing(&self, inputs: PickInputs) -> bool {
        self.nothing_at == Some((inputs, self.version))
    }

    // ---- requests and the rate

    /// How many requests to keep in flight: as many as their link delivers within PIPELINE_TIME, or
    /// as they answer at once.
    pub(super) fn pipeline_depth(&self) -> usize {
        if self.snubbed {
            return 1;
        }
        let in_time = self.rate.bytes_per_second() * PIPELINE_TIME.as_millis() as u64 / 1000;
        let blocks = u32::try_from(in_time / u64::from(BLOCK_BYTES)).unwrap_or(u32::MAX);
        blocks
            .max(self.pipeline.length_min())
            .min(PIPELINE_MAX)
            .min(self.requests_max) as usize
    }

    /// Payload has arrived. Call after `requests.remove`.
    pub(super) fn received(&mut self, now: Instant, bytes: u32) {
        self.measure(now);
        self.rate.add(bytes);
        let (left, filled, is_ours) = (self.requests.len(), self.filled, self.is_ours);
        let grows = self.pipeline.received(now, left, filled, is_ours);
        self.filled &= !grows;
    }

    /// Closes the window of the rate when it is full.
    pub(super) fn measure(&mut self, now: Instant) {
        if self.rate.roll(now) {
            self.pipeline.shorten(now, self.is_ours);
        }
    }

    /// They want nothing more.
    pub(super) fn is_complete(&self) -> bool {
        self.upload_only || self.has.is_full()
    }

    /// A seed suggests pieces to them.
    pub(super) fn is_offered_to(&self) -> bool {
        self.is_live() && self.fast && self.said_offers && !self.am_choking && self.peer_interested
    }

    pub(super) fn may_request(&self, now: Instant) -> bool {
        self.is_live() && !self.peer_choking && self.am_interested && now >= self.pause_until
    }

    /// They are asked for a block. `depth`: of the pipeline.
    pub(super) fn push_request(&mut self, now: Instant, block: Block, late: bool, depth: usize) {
        self.requests.push(now, block, late);
        self.filled = self.requests.len() >= depth;
    }

    /// A block that they were asked for has arrived, after this time. `patience`: how long it may
    /// take.
    pub(super) fn answered(&mut self, now: Instant, took: Duration, patience: Duration) {
        self.snubbed &= took > patience;
        self.refusals = 0;
        (self.progress_at, self.moved_at) = (now, now);
        self.requests.answered(now);
    }

    /// To be called at each tick.
    pub(super) fn watch(&mut self, now: Instant) {
        self.requests.watch(now);
        self.is_stalled = self.has_not_read_for(now, STALLED_AFTER);
        if overdue(now, self.excess_lapsed_at, EXCESS_READ_LAPSE) {
            self.excess_reads = self.excess_reads.saturating_sub(1);
            self.excess_lapsed_at = now;
        }
    }

    /// A block is given to the shell, which sends it.
    pub(super) fn start_sending(&mut self, now: Instant, block: Block, buffer: BufferId) {
        if self.sending.is_empty() {
            self.took_at = now;
        }
        self.sending.push_back(Sending {
            block,
            buffer,
            wire_bytes: block.length,
        });
    }

    /// They have taken the first block of `sending`.
    pub(super) fn took_block(&mut self, now: Instant) -> Option<Sending> {
        (self.took_at, self.is_stalled) = (now, false);
        self.excess_reads = self.excess_reads.saturating_sub(1);
        self.sending.pop_front()
    }

    pub(super) fn took_at(&self) -> Instant {
        self.took_at
    }

    /// Whether they have taken nothing of `sending` for this time.
    pub(super) fn has_not_read_for(&self, now: Instant, time: Duration) -> bool {
        !self.sending.is_empty() && overdue(now, self.took_at, time)
    }

    /// Requests that have taken longer than `patience` are late from now on, and they are snubbed.
    /// The requests that have become late are returned.
    #[must_use]
    pub(super) fn expire(
        &mut self,
        now: Instant,
        patience: Duration,
        may_be_late: impl Fn(PieceIndex) -> bool,
    ) -> Vec<Block> {
        let expired = self.requests.expire(now, patience, may_be_late);
        self.snubbed |= !expired.is_empty() || self.requests.waited() >= patience;
        expired
    }

    /// They refused a request: they may be asked again after a pause that doubles each time. What
    /// they refuse during the pause was asked for before it, and is no new refusal.
    pub(super) fn refused(&mut self, now: Instant) {
        if self.peer_choking || now < self.pause_until {
            return;
        }
        self.pause_until = now + REFUSED_PAUSE * (1 << self.refusals.min(6));
        self.refusals += 1;
    }

    /// Says that we lost this piece (BEP 54). None if they have not said that they understand it.
    pub(super) fn loss_of(&self, piece: PieceIndex) -> Option<Message> {
        let payload = piece.0.to_be_bytes().to_vec();
        self.dont_have.map(|id| Message::Extended { id, payload })
    }

    /// The messages that answer a request that is refused or cancelled: none without the fast
    /// extension, which has no such message. They ask again after their own time-out.
    pub(super) fn reject(&mut self, block: Block) {
        if self.fast {
            self.replies.push_back(Message::Reject(block.into()));
        }
    }

    /// Rejects the requests for these blocks.
    pub(super) fn drop_uploads(&mut self, is_dropped: &dyn Fn(Block) -> bool) {
        for _ in 0..self.uploads.len() {
            match self.uploads.pop_front() {
                Some(block) if is_dropped(block) => self.reject(block),
                Some(block) => self.uploads.push_back(block),
                None => {}
            }
        }
    }

    /// We lost this piece: requests for it are rejected, and it is not offered any more.
    pub(super) fn drop_uploads_of(&mut self, piece: PieceIndex) {
        self.offered.retain(|offered| *offered != piece);
        self.drop_uploads(&|block| block.piece == piece);
    }

    pub(super) fn check_invariants(&self, wanted: &Bitfield) {
        let both = self
            .has
            .present()
            .filter(|piece| wanted.get(*piece))
            .count();
        assert_eq!(self.wanted as usize, both);
        assert!(self.suggested.len() <= SUGGESTED_MAX);
        let is_needed = |piece: &PieceIndex| wanted.get(*piece) && !self.has.get(*piece);
        assert!(self.tails.theirs().keys().all(is_needed));
        self.requests.check_invariants();
    }
}

/// Whether `limit` has passed since `then`.
pub(super) fn overdue(now: Instant, then: Instant, limit: Duration) -> bool {
    now.since(then) >= limit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unchoked() -> Peer {
        let mut peer = Peer::new(
            Instant(0),
            "10.77.0.2:6881".parse().unwrap(),
            Direction::Outgoing,
            8,
        );
        peer.unchokes_us(Instant(0));
        peer
    }

    #[test]
    fn the_pipeline_follows_the_rate_up_to_the_queue_of_the_peer() {
        let mut peer = unchoked();
        assert_eq!(peer.pipeline_depth(), PIPELINE_MIN as usize);
        for tick in 0..100 {
            peer.received(Instant(tick * 10_000), 1_000_000);
        }
        assert_eq!(
            peer.pipeline_depth(),
            peer.requests_max.min(PIPELINE_MAX) as usize,
            "100 MB/s"
        );
        peer.requests_max = 20;
        assert_eq!(peer.pipeline_depth(), 20);
        peer.snubbed = true;
        assert_eq!(peer.pipeline_depth(), 1);
    }

    /// The peer answers twice a second, all requests at once.
    fn answers(peer: &mut Peer, batches: core::ops::Range<u64>, filled: bool) {
        for batch in batches {
            peer.filled = filled;
            let blocks = if filled { peer.pipeline_depth() } else { 1 };
            for _ in 0..blocks {
                peer.received(Instant(batch * 500_000), BLOCK_BYTES);
            }
            peer.measure(Instant(batch * 500_000 + 250_000));
        }
    }

    #[test]
    fn the_pipeline_of_a_client_that_answers_seldom_is_long_within_two_answers() {
        let mut peer = unchoked();
        answers(&mut peer, 1..2, true);
        assert_eq!(peer.pipeline_depth(), 8 * PIPELINE_MIN as usize);
        answers(&mut peer, 2..3, true);
        assert_eq!(peer.pipeline_depth(), REQUESTS_ASSUMED as usize);
        answers(&mut peer, 3..30, false);
        assert_eq!(peer.pipeline_depth(), PIPELINE_MIN as usize);
    }

    /// As above, and the next request is made as soon as a block arrives.
    fn answers_what_stood(peer: &mut Peer, batches: core::ops::Range<u64>, count_max: usize) {
        let mut asked = 1000 * batches.start as u32;
        let mut fill = |peer: &mut Peer, now| {
            while peer.requests.len() < peer.pipeline_depth() {
                let block = Block {
                    piece: PieceIndex(asked),
                    begin: 0,
                    length: BLOCK_BYTES,
                };
                peer.push_request(now, block, false, peer.pipeline_depth());
                asked += 1;
            }
        };
        fill(peer, Instant(0));
        for batch in batches {
            let now = Instant(batch * 500_000);
            let stood: Vec<Block> = peer.requests.iter().map(|all| all.block).collect();
            for block in stood.into_iter().take(count_max) {
                peer.requests.remove(block);
                peer.received(now, BLOCK_BYTES);
                fill(peer, now);
            }
        }
    }

    #[test]
    fn a_pipeline_is_too_short_if_all_has_come_that_stood_in_a_pause() {
        let mut peer = unchoked();
        answers_what_stood(&mut peer, 1..2, usize::MAX);
        assert_eq!(peer.pipeline_depth(), 8 * PIPELINE_MIN as usize);
        answers_what_stood(&mut peer, 2..3, usize::MAX);
        assert_eq!(peer.pipeline_depth(), REQUESTS_ASSUMED as usize);
        answers_what_stood(&mut peer, 3..30, usize::MAX);
        assert_eq!(peer.pipeline_depth(), REQUESTS_ASSUMED as usize);
    }

    #[test]
    fn a_pipeline_is_long_enough_if_something_still_stands_after_each_pause() {
        let mut peer = unchoked();
        answers_what_stood(&mut peer, 1..30, PIPELINE_MIN as usize - 1);
        assert_eq!(peer.pipeline_depth(), PIPELINE_MIN as usize);
    }

    #[test]
    fn the_pipeline_of_our_own_agents_doubles_and_falls_soon() {
        let mut peer = unchoked();
        peer.is_ours = true;
        answers(&mut peer, 1..2, true);
        assert_eq!(peer.pipeline_depth(), 2 * PIPELINE_MIN as usize);
        answers(&mut peer, 2..4, false);
        assert_eq!(peer.pipeline_depth(), PIPELINE_MIN as usize);
    }

    #[test]
    fn each_refusal_doubles_the_pause() {
        let mut peer = unchoked();
        peer.refused(Instant(0));
        let first = peer.pause_until.since(Instant(0));
        for _ in 0..16 {
            peer.refused(Instant(0));
        }
        assert_eq!(
            peer.pause_until.since(Instant(0)),
            first,
            "a pipeline refused at once is one refusal"
        );
        let second = peer.pause_until;
        peer.refused(second);
        assert_eq!(peer.pause_until.since(second), first * 2);
        for _ in 0..1000 {
            peer.refused(peer.pause_until);
        }
        let last = peer.pause_until;
        peer.refused(last);
        assert_eq!(peer.pause_until.since(last), first * 64);
    }
}
