//! Which connections does the agent take, make and close?

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use super::Swarm;
use super::interface::*;
use super::peer::{Direction, Peer, Phase, overdue};
use super::sending::Sending;
use crate::limits::*;
use crate::policy::mesh::{Ending, PeerKind, Sides};
use crate::policy::seats::Patience;
use crate::policy::subnet::Subnet;
use crate::policy::throttle::Throttles;
use crate::units::*;
use crate::wire::message::Handshake;

impl Swarm {
    /// A connection came in whose handshake names our info-hash. Call `handle_handshake` next; on
    /// None, close it.
    #[must_use]
    pub fn handle_incoming(&mut self, now: Instant, address: SocketAddr) -> Option<PeerSlot> {
        let allowed = self.mesh.allows(address.ip());
        if !self.is_open() || !allowed || self.is_address_banned(now, address) {
            return None;
        }
        if self.peers.staying_count(now) >= self.links_max() {
            let replaced = self.seat_for(now, address)?;
            self.close(now, replaced, Ending::Normal, "its seat is needed");
        }
        Some(self.add_peer(now, address, Direction::Incoming))
    }

    /// The peer that makes room for a newcomer. At a leecher it may also be the one that called
    /// first, see LINK_KEPT.
    fn seat_for(&self, now: Instant, newcomer: SocketAddr) -> Option<PeerSlot> {
        let seeder = self.config.role == Role::Seeder;
        let patience = Patience {
            greedy: LINK_KEPT,
            fair: seeder.then_some(SEAT_KEPT),
        };
        let displaced = self.peers.displaced(now, newcomer.ip(), patience);
        let first = || self.peers.replaceable(now).filter(|_| !seeder);
        displaced.or_else(first)
    }

    fn add_peer(&mut self, now: Instant, address: SocketAddr, direction: Direction) -> PeerSlot {
        let pieces = self.have().len();
        let mut peer = Peer::new(now, address, direction, pieces);
        peer.routed = !self.room.contains(address.ip());
        self.peers.add(peer)
    }

    /// The subnets of this machine's interfaces, each with its address there. To be called at the
    /// start, and when they may have changed.
    pub fn handle_subnets(&mut self, subnets: &[(IpAddr, u32)]) {
        let subnet = |(ip, length): &(IpAddr, u32)| Subnet::new(*ip, *length);
        let subnets: Vec<Subnet> = subnets.iter().filter_map(subnet).collect();
        if subnets != self.room.subnets() {
            self.mesh.set_own(subnets.clone(), self.config.listen_port);
            self.room.set_subnets(subnets);
            for peer in self.peers.values_mut() {
                peer.routed = !self.room.contains(peer.address.ip());
            }
            self.find_place();
        }
    }

    /// To be called when other machines may have come or gone.
    pub(super) fn find_place(&mut self) {
        let live = self.peers.values().filter(|peer| peer.is_live());
        let connected: Vec<SocketAddr> = live.filter_map(|peer| peer.exchange.listens_at).collect();
        let mut place = self.mesh.place(&connected);
        place.divided |= self.peers.values().any(|peer| peer.routed);
        self.room.set_place(place);
    }

    /// A connection that `poll_connect` asked for is set up. If that failed, call `handle_closed`.
    pub fn handle_connected(&mut self, now: Instant, slot: PeerSlot) {
        let peer_address = self.peer(slot).address;
        if self.mesh.answered(peer_address) && self.state == State::Seeding {
            return self.close(now, slot, Ending::BothComplete, "it is still there");
        }
        // After an outage of the network all that were called in vain may answer at once.
        if self.peer(slot).is_slow(now) && self.peers.staying_count(now) >= LINKS_MAX {
            return self.close(now, slot, Ending::Normal, "others answered sooner");
        }
        self.peer(slot).connected(now);
    }

    pub fn handle_handshake(&mut self, now: Instant, slot: PeerSlot, handshake: &Handshake) {
        if self.peer(slot).phase != Phase::Greeting {
            return;
        }
        if handshake.info_hash != self.metainfo.info_hash {
            return self.close(now, slot, Ending::Failed, "it is in another swarm");
        }
        if handshake.peer_id == self.config.peer_id {
            // The end that called learns it from our handshake and never calls that address again,
            // so that end closes.
            if self.peer(slot).direction == Direction::Outgoing {
                self.close(now, slot, Ending::Own, "it is ourselves");
            }
            return;
        }
        if self.is_peer_banned(now, slot, handshake.peer_id) {
            return self.close(now, slot, Ending::Failed, "it sent bad data lately");
        }
        if let Some(loser) = self.duplicate_of(slot, handshake.peer_id) {
            self.close(now, loser, Ending::Duplicate, "it is connected already");
            if loser == slot {
                return;
            }
        }
        self.rechoke_due = true;
        self.peer(slot).greeted(now, handshake);
    }

    /// The connection to drop, if we have two with one peer. Both sides decide alike: in opposite
    /// directions, the connection made by the smaller peer id stays; in the same direction, the
    /// older one.
    fn duplicate_of(&mut self, slot: PeerSlot, peer_id: PeerId) -> Option<PeerSlot> {
        let other = self.peers.other_of(slot, peer_id)?;
        let direction = self.peer(slot).direction;
        if direction == self.peer(other).direction {
            return Some(slot);
        }
        let stays = match self.config.peer_id < peer_id {
            true => Direction::Outgoing,
            false => Direction::Incoming,
        };
        Some(if direction == stays { other } else { slot })
    }

    /// The connection is gone: an error, its end, a failed set-up, or the answer to `poll_close`.
    /// The slot may be given out again.
    pub fn handle_closed(&mut self, now: Instant, slot: PeerSlot, throttles: &mut Throttles) {
        let Some(peer) = self.peers.remove(slot) else {
            return;
        };
        for request in peer.requests.iter() {
            self.request_ends(slot, request, throttles);
        }
        self.picker.left(slot);
        for Sending { buffer, .. } in &peer.sending {
            self.cache.unpin(*buffer);
        }
        for piece in peer.has().present() {
            self.picker.piece_vanished(piece);
        }
        if peer.direction == Direction::Outgoing && peer.phase != Phase::Closing {
            let ending = match () {
                () if !peer.is_live() => Ending::Failed,
                // It is no gateway, and will hardly become one.
                () if peer.routed && self.room.place().others > 0 => Ending::Failed,
                () if self.have().is_full() && peer.is_complete() => Ending::BothComplete,
                () => Ending::Normal,
            };
            self.mesh.ended(now, peer.address, ending);
        }
        let is_lost = |piece: &PieceIndex| self.picker.count(*piece) == 0;
        let lost = peer.given.into_iter().filter(is_lost);
        let unsent = peer.offered.into_iter().chain(lost).collect();
        self.offers.take_back(unsent, &mut self.rng);
    }

    /// Decides that a connection ends; the shell carries it out.
    pub(super) fn close(
        &mut self,
        now: Instant,
        slot: PeerSlot,
        ending: Ending,
        why: &'static str,
    ) {
        if let Some((address, Direction::Outgoing)) = self.peers.close(slot, why) {
            self.mesh.ended(now, address, ending);
        }
    }

    /// A connection to close, and why; then call `handle_closed`.
    #[must_use]
    pub fn poll_close(&mut self) -> Option<(PeerSlot, &'static str)> {
        self.peers.poll_close()
    }

    /// An address to connect to, under this slot; then call `handle_connected` or `handle_closed`.
    #[must_use]
    pub fn poll_connect(&mut self, now: Instant) -> Option<(PeerSlot, SocketAddr)> {
        if !self.is_open() {
            return None;
        }
        let waits_since = self.progress_at.max(self.extra_call_at);
        let gets_nothing = self.state == State::Downloading
            && overdue(now, waits_since, LINK_PATIENCE)
            && self.peers.count() < SEED_LINKS_MAX;
        let sides = self.sides(now);
        let room = match sides {
            Sides::All => self.may_call(now),
            Sides::Divided { .. } => sides != Sides::NONE,
        };
        if !room && !gets_nothing && !self.watches_sources() {
            return None;
        }
        let kind = match self.config.role {
            _ if !self.have().is_full() => PeerKind::Any,
            Role::Seeder => PeerKind::Incomplete,
            Role::Leecher if self.tracker.exists() => PeerKind::FixedIncomplete,
            Role::Leecher if room => PeerKind::FixedIncompleteOrSource,
            Role::Leecher => PeerKind::Source,
        };
        let sides = if room { sides } else { Sides::All };
        let address = loop {
            let address = self.mesh.next_address(now, kind, sides, &mut self.rng)?;
            if !self.is_address_banned(now, address) {
                break address;
            }
            self.mesh.ended(now, address, Ending::Failed);
        };
        if !room {
            self.extra_call_at = now;
        }
        Some((self.add_peer(now, address, Direction::Outgoing), address))
    }

    fn is_address_banned(&self, now: Instant, address: SocketAddr) -> bool {
        let needed = self.picker.lacks_holders();
        self.blame.is_address_banned(now, address.ip(), needed)
    }

    fn is_peer_banned(&self, now: Instant, slot: PeerSlot, peer_id: PeerId) -> bool {
        let ip = self.peers.get(slot).map(|peer| peer.address.ip());
        let needed = self.picker.lacks_holders();
        ip.is_some_and(|ip| self.blame.is_peer_banned(now, ip, peer_id, needed))
    }

    /// Whether there is room for a further call. Calls that are not answered promptly leave room to
    /// an incomplete agent: the more of them there are, the more are tried at once.
    pub(super) fn may_call(&self, now: Instant) -> bool {
        self.may_call_some(now, &|_| true, LINKS + self.extra_links)
    }

    /// The same if no more than `limit` of these peers are to be connected.
    fn may_call_some(&self, now: Instant, is_one: &dyn Fn(&Peer) -> bool, limit: usize) -> bool {
        let (mut count, mut slow, mut live) = (0, 0, 0);
        for peer in self.peers.values().filter(|peer| is_one(peer)) {
            count += 1;
            slow += usize::from(peer.is_slow(now));
            live += usize::from(peer.is_live());
        }
        let searches = !self.have().is_full()
            && live < limit
            && count - slow < limit.max(slow / 4)
            && count < CALLS_MAX;
        count < limit || searches
    }

    /// The same for the peers of our room.
    fn may_call_room(&self, now: Instant, limit: usize) -> bool {
        self.may_call_some(now, &|peer| !peer.routed, limit)
    }

    /// Whom to call, if machines of other rooms take part.
    fn sides(&self, now: Instant) -> Sides {
        if !self.room.place().divided || self.have().is_full() {
            return Sides::All;
        }
        let watches = self.room.share().is_deputy();
        Sides::Divided {
            lower: watches && self.may_call_room(now, LINKS + GATEWAYS as usize),
            room: self.may_call_room(now, LINKS),
            routed: self.may_call_routed(now),
        }
    }

    /// A routed peer has called that looks for a gateway, and we are none.
    pub(super) fn is_unneeded(&self, slot: PeerSlot) -> bool {
        let calls = |peer: &&Peer| {
            peer.routed && peer.direction == Direction::Incoming && !peer.is_complete()
        };
        let is_none = !self.have().is_full() && !self.room.share().is_gateway();
        is_none && self.peers.get(slot).filter(calls).is_some()
    }

    /// A gateway calls routed peers when those of its room have answered: only then it knows its
    /// place.
    fn may_call_routed(&self, now: Instant) -> bool {
        if self.have().is_full() || !self.room.share().is_gateway() {
            return false;
        }
        let (mut in_room, mut has_source) = (0, false);
        for peer in self.peers.values() {
            if peer.routed {
                has_source |= peer.is_live() && peer.is_complete();
                continue;
            }
            if !peer.is_live() && !peer.is_slow(now) {
                return false;
            }
            in_room += 1;
        }
        let room = LINKS.saturating_sub(in_room).max(ROUTED_LINKS);
        let room = if has_source { room } else { 2 * room };
        self.may_call_some(now, &|peer| peer.routed, room)
    }

    /// An agent whose pipelines are all full could receive more than it gets: its peers have more
    /// links than it has, so each of them has less for it. It sets up one link more, and after a
    /// while perhaps another one. To be called at each tick.
    pub(super) fn seek_links(&mut self, now: Instant) {
        let mut asked = self.peers.iter().filter(|(_, peer)| peer.am_interested);
        let starves = self.state == State::Downloading
            && self.peers.live_count() >= LINKS
            && asked.all(|(_, peer)| peer.filled);
        if !starves {
            self.pipelines_full_since = None;
            return;
        }
        let since = *self.pipelines_full_since.get_or_insert(now);
        let room = self.peers.count() < LINKS_MAX && LINKS + self.extra_links < LINKS_MAX;
        if room && overdue(now, since, PIPELINES_FULL_MAX) {
            self.extra_links += 1;
            self.pipelines_full_since = None;
        }
    }

    /// Without a tracker, a complete agent looks whether the sources are still there.
    pub(super) fn watches_sources(&self) -> bool {
        self.state == State::Seeding && !self.tracker.exists() && self.config.role == Role::Leecher
    }

    pub(super) fn links_max(&self) -> usize {
        match self.config.role {
            // Visitors of a private torrent hear of nobody else, so they stay.
            Role::Seeder if !self.tracker.exists() && !self.metainfo.private => VISITORS_MAX,
            Role::Seeder => SEED_LINKS_MAX,
            Role::Leecher if self.room.place().divided => LINKS_MAX + ROOM_LINKS_MAX,
            Role::Leecher => LINKS_MAX,
        }
    }
}
