//! What has one peer been asked for, what of it is late, and how long has the peer let us wait?
//!
//! A request that takes too long stays with its peer but is *late*: the picker does not count it,
//! so that other peers are asked for the block, too. The first one to send it is taken.

use alloc::vec::Vec;
use core::time::Duration;

use crate::limits::PIPELINE_MAX;
use crate::units::{Block, Instant, PieceIndex};
use crate::wire::message::RawBlock;

/// A block that a peer was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) block: Block,
    pub(super) at: Instant,
    /// It has taken too long, or was made while the peer was snubbed.
    pub(super) late: bool,
}

/// The `piece` message whose payload is arriving.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receiving {
    pub(super) raw: RawBlock,
    pub(super) kept: bool,
    /// What its payload takes on the way.
    pub(super) wire_bytes: u32,
    pub(super) since: Instant,
}

/// Invariant: `late_count` requests are late.
#[derive(Debug)]
pub(super) struct Requests {
    /// Oldest first.
    list: Vec<Request>,
    late_count: usize,
    /// Blocks that the peer was told not to send because another peer sent them first, the latest
    /// last, PIPELINE_MAX at most. They may be on their way.
    cancelled: Vec<Block>,
    pub(super) receiving: Option<Receiving>,
    /// How long the peer has had requests since a block last arrived that it was asked for. Nothing
    /// else that it sends makes this shorter.
    waited: Duration,
    /// There were requests since the last tick, and the time of that tick.
    had_any: bool,
    watched_at: Instant,
}

impl Requests {
    pub(super) fn new(now: Instant) -> Requests {
        Requests {
            list: Vec::new(),
            late_count: 0,
            cancelled: Vec::new(),
            receiving: None,
            waited: Duration::ZERO,
            had_any: false,
            watched_at: now,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Request> {
        self.list.iter()
    }

    pub(super) fn get(&self, block: Block) -> Option<&Request> {
        self.iter().find(|request| request.block == block)
    }

    pub(super) fn has_late(&self) -> bool {
        self.late_count > 0
    }

    pub(super) fn waited(&self) -> Duration {
        self.waited
    }

    pub(super) fn push(&mut self, now: Instant, block: Block, late: bool) {
        let at = now;
        self.list.push(Request { block, at, late });
        self.late_count += usize::from(late);
        self.had_any = true;
    }

    /// None if there is no such request.
    pub(super) fn remove(&mut self, block: Block) -> Option<Request> {
        let at = self.iter().position(|request| request.block == block)?;
        let request = self.list.remove(at);
        self.late_count -= usize::from(request.late);
        Some(request)
    }

    /// Another peer has sent the block first. False if there is no such request.
    pub(super) fn cancel(&mut self, block: Block) -> bool {
        let removed = self.remove(block).is_some();
        if removed {
            if self.cancelled.len() == PIPELINE_MAX as usize {
                self.cancelled.remove(0);
            }
            self.cancelled.push(block);
        }
        removed
    }

    /// Whether a block that has arrived was on its way when it was cancelled. True once for each.
    pub(super) fn was_cancelled(&mut self, block: Block) -> bool {
        let at = self.cancelled.iter().position(|known| *known == block);
        at.map(|at| self.cancelled.remove(at)).is_some()
    }

    /// A block has arrived that the peer was asked for. After a pause of this machine it is read
    /// before the tick, and the pause must not count.
    pub(super) fn answered(&mut self, now: Instant) {
        (self.waited, self.had_any, self.watched_at) = (Duration::ZERO, false, now);
    }

    /// Counts the time that the peer lets us wait. To be called at each tick.
    pub(super) fn watch(&mut self, now: Instant) {
        if self.had_any || !self.is_empty() {
            self.waited += now.since(self.watched_at);
        }
        (self.had_any, self.watched_at) = (false, now);
    }

    /// Requests that have taken longer than `patience` are late from now on, but not the one whose
    /// block is arriving: no other peer may write to its place. Those that have become late are
    /// returned.
    #[must_use]
    pub(super) fn expire(
        &mut self,
        now: Instant,
        patience: Duration,
        may_be_late: impl Fn(PieceIndex) -> bool,
    ) -> Vec<Block> {
        let arriving = self.arriving();
        let mut expired = Vec::new();
        let old = |request: &&mut Request| now.since(request.at) >= patience;
        for request in self.list.iter_mut().take_while(old) {
            let arrives = Some(RawBlock::from(request.block)) == arriving;
            if !request.late && !arrives && may_be_late(request.block.piece) {
                request.late = true;
                expired.push(request.block);
            }
        }
        self.late_count += expired.len();
        expired
    }

    /// The block of this request is arriving: it is not late any more.
    pub(super) fn revive(&mut self, block: Block) {
        let mut all = self.list.iter_mut();
        if let Some(request) = all.find(|request| request.block == block) {
            self.late_count -= usize::from(core::mem::take(&mut request.late));
        }
    }

    /// Takes back the requests for these blocks, but not for the block that is arriving: no other
    /// peer may write to its place. The requests that were taken back are returned.
    #[must_use]
    pub(super) fn take(&mut self, is_taken: &dyn Fn(Block) -> bool) -> Vec<Request> {
        let arriving = self.arriving();
        let stays = |request: &Request| {
            !is_taken(request.block) || Some(RawBlock::from(request.block)) == arriving
        };
        let (kept, taken) = core::mem::take(&mut self.list).into_iter().partition(stays);
        self.list = kept;
        self.late_count = self.iter().filter(|request| request.late).count();
        taken
    }

    /// The block whose bytes are arriving into a buffer.
    fn arriving(&self) -> Option<RawBlock> {
        let kept = self.receiving.filter(|receiving| receiving.kept);
        kept.map(|receiving| receiving.raw)
    }

    pub(super) fn check_invariants(&self) {
        let late = self.iter().filter(|request| request.late).count();
        assert_eq!(self.late_count, late);
        assert!(self.cancelled.len() <= PIPELINE_MAX as usize);
    }
}
