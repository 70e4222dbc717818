//! Which peer has which slot, and which connections are to be closed?

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use super::peer::{Direction, Peer, Phase, overdue};
use crate::bitfield::Bitfield;
use crate::limits::{LINK_KEPT, UPLOAD_QUEUE_MAX};
use crate::policy::seats::{self, Patience, Seat};
use crate::units::{Instant, PeerId, PeerSlot, PieceIndex};

/// A slot is the name of a connection between core and shell, from `add` until `remove`; then it is
/// given out again. Invariant: the peers in `closing` are in `Phase::Closing`.
#[derive(Default, Debug)]
pub(super) struct Peers {
    slots: Vec<Option<Peer>>,
    /// Connections that the shell is to close, and why.
    closing: VecDeque<(PeerSlot, &'static str)>,
}

impl Peers {
    /// The lowest free slot.
    pub(super) fn add(&mut self, peer: Peer) -> PeerSlot {
        let free = self.slots.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot] = Some(peer);
        PeerSlot(slot as u32)
    }

    /// None if the slot is free already.
    pub(super) fn remove(&mut self, slot: PeerSlot) -> Option<Peer> {
        let peer = self.slots[slot.index()].take()?;
        self.closing.retain(|(closing, _)| *closing != slot);
        Some(peer)
    }

    pub(super) fn get(&self, slot: PeerSlot) -> Option<&Peer> {
        self.slots.get(slot.index())?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: PeerSlot) -> Option<&mut Peer> {
        self.slots.get_mut(slot.index())?.as_mut()
    }

    /// All peers, lowest slot first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PeerSlot, &Peer)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(slot, peer)| Some((PeerSlot(slot as u32), peer.as_ref()?)))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Peer> {
        self.slots.iter().flatten()
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.slots.iter_mut().flatten()
    }

    /// The slots in use, lowest first. Peers that are added meanwhile may be missing.
    pub(super) fn slots(&self) -> Vec<PeerSlot> {
        self.iter().map(|(slot, _)| slot).collect()
    }

    pub(super) fn count(&self) -> usize {
        self.values().count()
    }

    pub(super) fn live_count(&self) -> usize {
        self.values().filter(|peer| peer.is_live()).count()
    }

    /// The peers that are not being closed, without those that we called in vain so far.
    pub(super) fn staying_count(&self, now: Instant) -> usize {
        let stays = |peer: &&Peer| peer.phase != Phase::Closing && !peer.is_slow(now);
        self.values().filter(stays).count()
    }

    /// The peer that called us longest ago and may well have found other neighbours by now. Not a
    /// source, and not a peer that we called: those stay.
    pub(super) fn replaceable(&self, now: Instant) -> Option<PeerSlot> {
        let may_go = |peer: &Peer| {
            let calls = peer.direction == Direction::Incoming && !peer.is_complete();
            peer.is_live() && calls && overdue(now, peer.since, LINK_KEPT)
        };
        let callers = self.iter().filter(|(_, peer)| may_go(peer));
        let longest = callers.min_by_key(|(_, peer)| peer.since);
        longest.map(|(slot, _)| slot)
    }

    /// The peer that has to make room for a newcomer from this address. Peers that we called stay.
    pub(super) fn displaced(
        &self,
        now: Instant,
        newcomer: IpAddr,
        patience: Patience,
    ) -> Option<PeerSlot> {
        let staying = self.iter().filter(|(_, peer)| peer.phase != Phase::Closing);
        let seat = |(slot, peer): (PeerSlot, &Peer)| {
            let idle_since = (peer.direction == Direction::Incoming).then_some(peer.moved_at);
            let ip = peer.address.ip();
            (slot, Seat { ip, idle_since })
        };
        let (slots, seats): (Vec<PeerSlot>, Vec<Seat>) = staying.map(seat).unzip();
        seats::displaced(now, newcomer, &seats, patience).map(|index| slots[index])
    }

    /// Another live connection with the peer of this id. An id is no secret: a connection from
    /// another address with the same id is another peer.
    pub(super) fn other_of(&self, slot: PeerSlot, peer_id: PeerId) -> Option<PeerSlot> {
        let ip = self.get(slot)?.address.ip();
        let same = |peer: &Peer| {
            peer.is_live() && peer.peer_id == Some(peer_id) && peer.address.ip() == ip
        };
        let mut others = self.iter().filter(|(other, _)| *other != slot);
        others.find(|(_, peer)| same(peer)).map(|(other, _)| other)
    }

    /// Has a connection closed. The address and direction, if that was not decided before.
    pub(super) fn close(
        &mut self,
        slot: PeerSlot,
        why: &'static str,
    ) -> Option<(SocketAddr, Direction)> {
        let peer = self
            .get_mut(slot)
            .filter(|peer| peer.phase != Phase::Closing)?;
        peer.phase = Phase::Closing;
        let closed = (peer.address, peer.direction);
        self.closing.push_back((slot, why));
        Some(closed)
    }

    #[must_use]
    pub(super) fn poll_close(&mut self) -> Option<(PeerSlot, &'static str)> {
        self.closing.pop_front()
    }

    /// The picker wants this piece from now on.
    pub(super) fn note_wanted(&mut self, piece: PieceIndex) {
        self.values_mut().for_each(|peer| peer.note_wanted(piece));
    }

    /// The picker does not want this piece any more.
    pub(super) fn note_unwanted(&mut self, piece: PieceIndex) {
        self.values_mut().for_each(|peer| peer.note_unwanted(piece));
    }

    pub(super) fn check_invariants(&self, wanted: &Bitfield) {
        for peer in self.values() {
            peer.check_invariants(wanted);
            assert!(peer.uploads.len() <= UPLOAD_QUEUE_MAX);
        }
        for (slot, _) in &self.closing {
            assert!(
                self.get(*slot)
                    .is_some_and(|peer| peer.phase == Phase::Closing)
            );
        }
    }
}
