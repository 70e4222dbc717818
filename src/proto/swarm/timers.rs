//! What happens because time has passed?

use alloc::vec::Vec;

use super::Swarm;
use super::interface::*;
use super::peer::{Peer, Phase, overdue};
use crate::limits::*;
use crate::policy::choker::{self, Change};
use crate::policy::mesh::Ending;
use crate::policy::throttle::{Throttle, Throttles};
use crate::units::*;
use crate::wire::message::Message;

impl Swarm {
    /// When `handle_timeout` is due. `poll_connect`, `poll_announce` and `poll_send` may have
    /// something to do then, too.
    #[must_use]
    pub fn poll_timeout(&self, throttles: &Throttles) -> Option<Instant> {
        let need = self.need()?;
        let announce = self.tracker.next(need);
        // While the disk is working nothing can be done about leaving, however late it gets.
        let leaving = self.leaving.wakes_at().filter(|_| self.disk.is_idle());
        let tick = self.is_open().then_some(self.next_tick);
        let throttle = throttles.next().filter(|_| self.is_open());
        [announce, leaving, tick, throttle]
            .into_iter()
            .flatten()
            .min()
    }

    pub fn handle_timeout(&mut self, now: Instant, throttles: &mut Throttles) {
        throttles.handle_timeout(now);
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            for slot in self.peers.slots() {
                self.watch(now, slot);
            }
            self.seek_links(now);
            self.arrivals.tick(self.traffic.fetched());
            self.room.tick(self.traffic.fetched());
            self.find_place();
            self.exchange_peers(now);
            self.send_visitors_on(now);
            self.replace_slow_fillers(now, throttles);
            self.make_buffers(now);
            self.pass_disk_time(now);
            self.spare_time.tick();
            self.rechoke(now, &throttles.up);
            self.fail_if_stalled(now);
            self.leave_if_done(now);
        }
        self.leaving.handle_timeout(now);
        self.advance(now);
    }

    /// Time-outs of one peer.
    fn watch(&mut self, now: Instant, slot: PeerSlot) {
        let seeding = self.state == State::Seeding;
        let connect_max = match self.may_call(now) || self.watches_sources() {
            true => CONNECT_PATIENT_MAX,
            false => CONNECT_MAX,
        };
        self.expire_requests(now, slot);
        let is_stuck = self.is_stuck(now, slot);
        let peer = self.peer(slot);
        peer.measure(now);
        peer.watch(now);
        // A peer that is offered nothing for a while, whatever the reason, is asked for what we
        // need.
        let may_ask = peer.may_request(now) && peer.requests.is_empty();
        if peer.offers() && may_ask && overdue(now, peer.progress_at, OFFER_PATIENCE) {
            peer.set_offers(false);
        }
        let sending = !peer.sending.is_empty();
        let knows_us = peer.said_complete || !peer.extended;
        let late = |since, limit| overdue(now, since, limit);
        let (ending, why) = match peer.phase {
            Phase::Connecting if late(peer.since, connect_max) => {
                (Ending::Failed, "it did not answer")
            }
            Phase::Greeting if late(peer.since, GREETING_MAX) => {
                (Ending::Failed, "it did not answer")
            }
            Phase::Connecting | Phase::Greeting | Phase::Closing => return,
            Phase::Live if peer.requests.waited() >= SILENCE_MAX => {
                (Ending::Failed, "it was asked and sent nothing")
            }
            Phase::Live if is_stuck => (Ending::Failed, "it sends too slowly what others have"),
            // The blocks that it does not read stay pinned in the pool, and a few peers like it
            // would pin all of the pool.
            Phase::Live if peer.has_not_read_for(now, SILENCE_MAX) => {
                (Ending::Failed, "it asks and does not read")
            }
            Phase::Live if late(peer.heard_at, IDLE_MAX) => {
                (Ending::Failed, "nothing was heard from it")
            }
            // Not before it knows that we are complete, too, or it would call again.
            Phase::Live if knows_us && peer.is_complete() && !sending && seeding => {
                (Ending::BothComplete, "both have everything")
            }
            Phase::Live => return,
        };
        self.close(now, slot, ending, why);
    }

    /// Requests that take too long do not count any more: others are asked for their blocks.
    fn expire_requests(&mut self, now: Instant, slot: PeerSlot) {
        let (patience, picker) = (self.pace.patience(), &self.picker);
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        let may_be_late = |piece| !picker.is_alone(piece);
        for block in peer.expire(now, patience, may_be_late) {
            self.picker.release(block, slot);
        }
    }

    /// A block has been arriving from this peer for too long, and another could send it.
    fn is_stuck(&self, now: Instant, slot: PeerSlot) -> bool {
        let arriving = self
            .peers
            .get(slot)
            .and_then(|peer| peer.requests.receiving);
        arriving.is_some_and(|arriving| {
            arriving.kept
                && overdue(now, arriving.since, ARRIVAL_MAX)
                && self.others_have(now, slot, PieceIndex(arriving.raw.index))
        })
    }

    /// Whether another peer could be asked for this piece.
    fn others_have(&self, now: Instant, slot: PeerSlot, piece: PieceIndex) -> bool {
        let inputs = self.pick_inputs();
        let can = |peer: &Peer| {
            let has = peer.has().get(piece) && self.may_fetch(inputs, peer, piece);
            peer.may_request(now) && !peer.snubbed && has
        };
        let mut others = self.peers.iter().filter(|(other, _)| *other != slot);
        others.any(|(_, peer)| can(peer))
    }

    /// If no buffer was free for a peer, the peer that has read nothing for longest makes room.
    fn make_buffers(&mut self, now: Instant) {
        if !core::mem::take(&mut self.buffers_short) {
            return;
        }
        let is_deaf = |(_, peer): &(PeerSlot, &Peer)| {
            peer.is_live() && peer.has_not_read_for(now, UNREAD_MAX)
        };
        let stalled = self.peers.iter().filter(is_deaf);
        let longest = stalled.min_by_key(|(_, peer)| peer.took_at());
        if let Some((slot, _)) = longest {
            self.close(
                now,
                slot,
                Ending::Failed,
                "it does not read, and buffers are short",
            );
        }
    }

    /// A piece that one peer fills alone goes to another one in time.
    fn replace_slow_fillers(&mut self, now: Instant, throttles: &mut Throttles) {
        for (piece, slot) in self.picker.slow_fillers(now) {
            if !self.others_have(now, slot, piece) && !self.picker.has_given_up(piece) {
                continue;
            }
            for block in self.release_requests(slot, throttles, &|block| block.piece == piece) {
                let cancel = Message::Cancel(block.into());
                self.peer(slot).replies.push_back(cancel);
            }
            self.picker.replace_filler(piece, slot);
        }
    }

    pub(super) fn rechoke(&mut self, now: Instant, up: &Throttle) {
        let candidate = |(slot, peer): (PeerSlot, &Peer)| choker::Candidate {
            slot,
            interested: peer.peer_interested,
            unchoked: peer.unchoke,
            since: peer.choke_changed,
        };
        let live = self.peers.iter().filter(|(_, peer)| peer.is_live());
        let candidates: Vec<choker::Candidate> = live.map(candidate).collect();
        for change in choker::decide(now, &candidates, self.upload_slots(up), CHOKE_QUANTUM) {
            let (slot, unchoke) = match change {
                Change::Choke(slot) => (slot, false),
                Change::Unchoke(slot) => (slot, true),
            };
            let peer = self.peer(slot);
            (peer.unchoke, peer.choke_changed) = (unchoke, now);
        }
    }

    /// Enough for all peers. With a limit, only as many as can be sent a full pipeline while they
    /// have their slots: further peers would only wait behind them.
    fn upload_slots(&self, up: &Throttle) -> usize {
        let Some(rate) = up.bytes_per_second() else {
            return match self.links_max() {
                VISITORS_MAX => VISITORS_KEPT,
                links => links,
            };
        };
        let in_quantum = rate * CHOKE_QUANTUM.as_secs() / u64::from(PIPELINE_MIN * BLOCK_BYTES);
        in_quantum.clamp(1, self.links_max() as u64) as usize
    }
}
