//! What stands between us and one peer: who chokes whom, what was asked for, what is being sent.
//!
//! Read first: BEP 3 (choking, interest), BEP 6 (fast extension), BEP 10 (`reqq`). Wishes are
//! compared with what was last said (`am_choking` against `unchoke`, interest against `lacks`), so
//! there is no queue of state changes to overflow.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use crate::bitfield::Bitfield;
use crate::limits::*;
use crate::policy::throttle::Turn;
use crate::units::{Block, BufferId, Instant, PeerId, PieceIndex};
use crate::wire::message::{Message, RawBlock};

/// How far the connection has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// TCP is being set up by us.
    Connecting,
    /// TCP stands, their handshake is missing.
    Greeting,
    /// Both handshakes are done.
    Live,
    /// We want it closed; the shell has not confirmed yet.
    Closing,
}

pub struct Peer {
    pub address: SocketAddr,
    /// We called them.
    pub outgoing: bool,
    pub phase: Phase,
    pub since: Instant,
    pub peer_id: Option<PeerId>,
    pub fast: bool,
    pub extended: bool,
    /// They want nothing more, whatever they lack (BEP 21).
    pub upload_only: bool,
    /// They suggest what to ask them for, and are asked for nothing else.
    pub offers: bool,
    /// We still offer to them, and have told them so if they have a word for it (BEP 10).
    pub said_offers: bool,
    /// We have told them that we want nothing more.
    pub said_complete: bool,
    /// The id under which they want to hear that we lost a piece.
    pub dont_have: Option<u8>,

    pub said_handshake: bool,
    pub said_extended: bool,
    pub said_bitfield: bool,
    /// Their bitfield, or one of the messages in its place, may still come.
    pub may_send_bitfield: bool,

    pub has: Bitfield,
    /// Pieces they have and we want from somebody.
    pub wanted: u32,
    pub am_choking: bool,
    pub am_interested: bool,
    pub peer_choking: bool,
    pub peer_interested: bool,
    /// The choker's decision; said at the next chance.
    pub unchoke: bool,
    pub choke_changed: Instant,
    /// How much of our news they were told, and how much of it was in our bitfield.
    pub told: usize,
    pub told_at_first: usize,

    /// Blocks we asked for, oldest first.
    pub requests: VecDeque<Block>,
    /// The `piece` message whose payload is arriving, and whether it is kept.
    pub receiving: Option<(RawBlock, bool)>,
    pub requests_max: u32,
    pub rate: Rate,
    /// The pipeline is so many times longer than it need be for the rate: they answer seldom, and
    /// many requests at once.
    pub stretch: u32,
    /// The pipeline was full when we last asked; since then all of it was answered, and they had
    /// nothing to do.
    pub filled: bool,
    pub ran_dry: bool,
    /// The last moment that a block arrived, or that waiting for one began.
    pub progress_at: Instant,
    pub snubbed: bool,
    /// They refused requests: ask again from here on.
    pub pause_until: Instant,
    pub refusals: u32,
    /// `Picker::version` at which they had nothing for us, and whether there was room to open a
    /// piece.
    pub nothing_at: Option<(u64, bool)>,
    /// Pieces they suggested, oldest first.
    pub suggested: Vec<PieceIndex>,

    /// Blocks they asked for, oldest first.
    pub uploads: VecDeque<Block>,
    /// Blocks that the shell is sending, with their pinned buffers.
    pub sending: VecDeque<(Block, BufferId)>,
    /// Pieces we suggested that they have not asked for yet.
    pub offered: Vec<PieceIndex>,
    /// Rejects and cancels to be said.
    pub replies: VecDeque<Message>,

    /// What it has had of our limits.
    pub down_turn: Turn,
    pub up_turn: Turn,

    pub heard_at: Instant,
    pub spoke_at: Instant,
}

impl Peer {
    pub fn new(now: Instant, address: SocketAddr, outgoing: bool, piece_count: u32) -> Peer {
        Peer {
            address,
            outgoing,
            phase: if outgoing {
                Phase::Connecting
            } else {
                Phase::Greeting
            },
            since: now,
            peer_id: None,
            fast: false,
            extended: false,
            upload_only: false,
            offers: false,
            said_offers: false,
            said_complete: false,
            dont_have: None,
            said_handshake: false,
            said_extended: false,
            said_bitfield: false,
            may_send_bitfield: true,
            has: Bitfield::new(piece_count),
            wanted: 0,
            am_choking: true,
            am_interested: false,
            peer_choking: true,
            peer_interested: false,
            unchoke: false,
            choke_changed: now,
            told: 0,
            told_at_first: 0,
            requests: VecDeque::new(),
            receiving: None,
            requests_max: REQUESTS_ASSUMED,
            rate: Rate::default(),
            stretch: 1,
            filled: false,
            ran_dry: false,
            progress_at: now,
            snubbed: false,
            pause_until: now,
            refusals: 0,
            nothing_at: None,
            suggested: Vec::new(),
            uploads: VecDeque::new(),
            sending: VecDeque::new(),
            offered: Vec::new(),
            replies: VecDeque::new(),
            down_turn: Turn::default(),
            up_turn: Turn::default(),
            heard_at: now,
            spoke_at: now,
        }
    }

    pub fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// How many requests should stand with this peer: what its link delivers within PIPELINE_TIME.
    pub fn pipeline_depth(&self) -> usize {
        if self.snubbed {
            return 1;
        }
        let in_time = self.rate.bytes_per_second() * PIPELINE_TIME.as_millis() as u64 / 1000;
        let blocks = u32::try_from(in_time / u64::from(BLOCK_BYTES)).unwrap_or(u32::MAX);
        let blocks = blocks.max(PIPELINE_MIN * self.stretch);
        blocks.min(PIPELINE_MAX).min(self.requests_max) as usize
    }

    /// Payload has arrived. Call after `forget_request`.
    pub fn received(&mut self, now: Instant, bytes: u32) {
        self.measure(now);
        self.rate.add(bytes);
        self.ran_dry |= self.filled && self.requests.is_empty();
    }

    /// Closes the window of the rate when it is full. A pipeline that ran dry in it was too short,
    /// whatever the rate: transmission answers once a second, and at 64 KiB a second no rate would
    /// ever be seen to be too low.
    pub fn measure(&mut self, now: Instant) {
        if self.rate.roll(now) {
            let dry = core::mem::take(&mut self.ran_dry);
            let stretch = if dry {
                self.stretch * 2
            } else {
                self.stretch / 2
            };
            self.stretch = stretch.clamp(1, PIPELINE_MAX / PIPELINE_MIN);
        }
    }

    /// They want nothing more.
    pub fn is_complete(&self) -> bool {
        self.upload_only || self.has.is_full()
    }

    /// A seed suggests pieces to them.
    pub fn is_offered_to(&self) -> bool {
        self.is_live() && self.fast && self.said_offers && !self.am_choking && self.peer_interested
    }

    pub fn may_request(&self, now: Instant) -> bool {
        self.is_live() && !self.peer_choking && self.am_interested && now >= self.pause_until
    }

    /// Takes a block off the list of requests; false if it was not on it.
    pub fn forget_request(&mut self, block: Block) -> bool {
        let at = self.requests.iter().position(|asked| *asked == block);
        at.and_then(|at| self.requests.remove(at)).is_some()
    }

    /// The peer refused a request: it may be asked again after a pause that doubles each time. What
    /// it refuses during the pause was asked for before it, and is no new refusal.
    pub fn refused(&mut self, now: Instant) {
        if now < self.pause_until {
            return;
        }
        self.pause_until = now + REFUSED_PAUSE * (1 << self.refusals.min(6));
        self.refusals += 1;
    }

    /// We do not have this piece any more (BEP 54). None for those who have not said that they
    /// understand it.
    pub fn loss_of(&self, piece: PieceIndex) -> Option<Message> {
        let payload = piece.0.to_be_bytes().to_vec();
        self.dont_have.map(|id| Message::Extended { id, payload })
    }

    /// Remembers a suggestion, the oldest makes room.
    pub fn suggest(&mut self, piece: PieceIndex) {
        if self.suggested.len() >= SUGGESTED_MAX {
            self.suggested.remove(0);
        }
        self.suggested.push(piece);
    }
}

/// Payload bytes per second, over windows of RATE_WINDOW.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    window_start: Instant,
    window_bytes: u64,
    bytes_per_second: u64,
}

impl Rate {
    pub fn add(&mut self, bytes: u32) {
        self.window_bytes += u64::from(bytes);
    }

    pub fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }

    /// Closes the window when it is full; true if anything came in it. Rising rates count at once,
    /// falling ones by half: a pipeline that was cut too short measures its own shortness.
    pub fn roll(&mut self, now: Instant) -> bool {
        let elapsed = now.since(self.window_start);
        if elapsed < RATE_WINDOW {
            return false;
        }
        let measured = self.window_bytes * 1_000_000 / elapsed.as_micros() as u64;
        self.bytes_per_second = measured.max(self.bytes_per_second / 2);
        self.window_start = now;
        core::mem::take(&mut self.window_bytes) > 0
    }
}

/// Whether `limit` has passed since `then`.
pub fn overdue(now: Instant, then: Instant, limit: Duration) -> bool {
    now.since(then) >= limit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Peer {
        Peer::new(Instant(0), "10.77.0.2:6881".parse().unwrap(), true, 8)
    }

    #[test]
    fn the_pipeline_follows_the_rate_within_what_the_peer_bears() {
        let mut peer = peer();
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

    /// Two batches of answers a second; between them nothing.
    #[test]
    fn the_pipeline_of_who_answers_seldom_grows_until_it_does_not_run_dry() {
        let mut peer = peer();
        for batch in 1..12 {
            peer.filled = true;
            let depth = peer.pipeline_depth() as u32;
            peer.received(Instant(batch * 500_000), depth * BLOCK_BYTES);
            peer.measure(Instant(batch * 500_000 + 250_000));
        }
        assert_eq!(peer.pipeline_depth(), REQUESTS_ASSUMED as usize);
        for batch in 12..30 {
            peer.filled = false;
            peer.received(Instant(batch * 500_000), BLOCK_BYTES);
            peer.measure(Instant(batch * 500_000 + 250_000));
        }
        assert_eq!(peer.pipeline_depth(), PIPELINE_MIN as usize);
    }

    #[test]
    fn a_refused_request_pauses_twice_as_long_each_time() {
        let mut peer = peer();
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
