//! Which peers do peers tell each other of?
//!
//! Read first: BEP 11 (peer exchange), BEP 27 (private torrents: they have none). A machine that
//! knows nobody but the seed learns of the others this way, so a room needs no tracker. Then the
//! seed is also what holds the job together.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::Swarm;
use super::interface::{Event, Role};
use super::peer::{Direction, Peer, overdue};
use crate::limits::*;
use crate::policy::mesh::{AddressSource, Ending};
use crate::units::{Instant, PeerSlot};
use crate::wire::extension::Pex;

impl Swarm {
    /// Tells peers of each other. To be called at each tick: what happens between two of them, such
    /// as the start of a room, makes one message.
    pub(super) fn exchange_peers(&mut self, now: Instant) {
        if self.metainfo.private {
            return;
        }
        let live = self.peers.values().filter(|peer| peer.is_live());
        let connected: Vec<SocketAddr> = live.filter_map(|peer| peer.exchange.listens_at).collect();
        for peer in self.peers.values_mut() {
            // A peer that does not read is told nothing more.
            if peer.is_live() && peer.replies.is_empty() {
                let news = peer.exchange.news(now, &connected, &mut self.rng);
                peer.replies.extend(news);
            }
        }
    }

    /// A seed that all of a room call, because they know nobody else, keeps VISITORS_KEPT of them.
    /// Those that it has told of others go: first the one that moves nothing for the longest time,
    /// and of those that just came the last.
    pub(super) fn send_visitors_on(&mut self, now: Instant) {
        if self.config.role == Role::Leecher || self.tracker.exists() {
            return;
        }
        let may_go = |(_, peer): &(PeerSlot, &Peer)| {
            let calls = peer.direction == Direction::Incoming && !peer.is_complete();
            let told = peer.exchange.told.len() >= LINKS;
            peer.is_live() && calls && told && overdue(now, peer.since, 2 * TICK)
        };
        let visitors = self.peers.iter().filter(may_go).count();
        for _ in VISITORS_KEPT..visitors {
            let idle = |peer: &Peer| {
                (
                    now.since(peer.moved_at).as_secs(),
                    !peer.unchoke,
                    peer.since,
                )
            };
            let visitors = self.peers.iter().filter(may_go);
            if let Some((slot, _)) = visitors.max_by_key(|(_, peer)| idle(peer)) {
                self.close(now, slot, Ending::Normal, "it knows others to ask");
            }
        }
    }

    /// A peer has told us of others. It is not said to lie: they may be gone. Those that it has
    /// lost may still be there for us, so nothing follows from them.
    pub(super) fn take_peers(&mut self, now: Instant, slot: PeerSlot, payload: &[u8]) {
        let private = self.metainfo.private;
        let peer = self.peer(slot);
        let soon = peer
            .exchange
            .taught_at
            .is_some_and(|at| !overdue(now, at, PEX_TAKEN_AFTER));
        if private || soon {
            return;
        }
        peer.exchange.taught_at = Some(now);
        let teacher = AddressSource::Peer(peer.address.ip());
        for address in Pex::parse(payload).unwrap_or_default().added {
            self.mesh.learn(now, address, teacher);
        }
    }

    /// To be called when a peer has said what it has, and when it has introduced itself: is it what
    /// holds the job together (`Mesh::note_source`)? One of us that is complete already is not: it
    /// waits for the same source.
    pub(super) fn note_source(&mut self, slot: PeerSlot) {
        let fetching = self.is_fetching();
        let is_source = |peer: &&Peer| {
            let known = peer.exchange.is_introduced || !peer.extended;
            fetching && peer.is_complete() && known && !peer.exchange.fetches
        };
        let source = self.peers.get(slot).filter(is_source);
        if let Some(address) = source.and_then(|peer: &Peer| peer.exchange.listens_at) {
            self.mesh.note_source(address);
        }
    }

    /// A complete agent without a tracker says when the last source has gone, or is back.
    pub(super) fn tell_of_sources(&mut self, now: Instant) {
        let left = self.leaves_in(now).filter(|_| !self.tracker.exists());
        if left.is_some() != self.said_absent {
            self.said_absent = left.is_some();
            self.tell(left.map_or(Event::SourceBack, Event::JobEnded));
        }
    }
}
