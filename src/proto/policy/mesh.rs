//! Which addresses do we connect to, and when do we try one again?
//!
//! Addresses are chosen at random until there are LINKS connections; with any fixed order a room of
//! many machines would fall apart into cliques. An address that failed is tried again for ever,
//! after a pause that doubles, and after the addresses that did not fail. An address that turned
//! out to be ourselves is never called again.
//!
//! If machines of other rooms take part (`room`), those of our room are called first. Gateways
//! watch those before them, so they call them before all others, and other rooms last.
//!
//! A leecher that is complete waits to be called, except that it calls incomplete peers of the
//! command line, and without a tracker its sources: are they still there? If it looked for
//! incomplete peers, a room of a thousand would make hundreds of thousands of connections at its
//! end, and find nobody.
//!
//! All addresses lie in one sorted `Vec`: they arrive a few hundred at a time and minutes apart,
//! and each choice passes over all of them anyway.

use alloc::vec::Vec;
use core::cmp::Ordering;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::room::Place;
use super::subnet::{Subnet, allows};
use crate::limits::{
    ADDRESSES_MAX, ANNOUNCE_COMPLETE, ANNOUNCE_RETRY_MAX, PEX_TAUGHT_MAX, RECONNECT_MAX,
    RECONNECT_MIN,
};
use crate::rng::Rng;
use crate::units::Instant;
use crate::vec_map::VecMap;

#[derive(Clone, Copy, Debug)]
struct Known {
    /// From the command line: never forgotten.
    fixed: bool,
    /// The peer that told us of it, if nobody else did.
    teacher: Option<IpAddr>,
    /// It is a source: see `note_source`.
    source: bool,
    /// When it was called last.
    called_at: Instant,
    /// Since then it has answered.
    answered: bool,
    /// A connection that we made to it exists or is being set up.
    in_use: bool,
    failures: u32,
    next: Instant,
    /// It had everything when we last met.
    complete: bool,
    /// It is ourselves.
    own: bool,
}

impl Known {
    fn is_callable(&self, kind: PeerKind) -> bool {
        let useful = match kind {
            PeerKind::Any => true,
            PeerKind::Incomplete => !self.complete,
            PeerKind::FixedIncomplete => !self.complete && self.fixed,
            PeerKind::Source => self.source,
            PeerKind::FixedIncompleteOrSource => (!self.complete && self.fixed) || self.source,
        };
        useful && !self.own && !self.in_use
    }
}

#[derive(Default, Debug)]
pub struct Mesh {
    /// Of whom we know, whom we call, and who may call us.
    allowed: Vec<Subnet>,
    known: VecMap<SocketAddr, Known>,
    /// No address of the kind `quiet_for` is due before this time. The loop asks in every turn, and
    /// this spares it the search.
    quiet_until: Instant,
    quiet_for: (PeerKind, Sides),
    /// The subnets of our interfaces, each with our address in it, and the port where we listen.
    own: Vec<Subnet>,
    own_port: u16,
    /// When the first call that no source answered was begun, since one was there; and the last.
    absent_since: Option<Instant>,
    absent_until: Instant,
}

/// Where an address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressSource {
    CommandLine,
    Tracker,
    /// The peer of this address (BEP 11).
    Peer(IpAddr),
}

/// Which peers are worth a call?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerKind {
    /// All: we lack pieces.
    #[default]
    Any,
    /// Peers that were incomplete when we last met them: we have pieces to pass on.
    Incomplete,
    /// Incomplete peers from the command line: they may not know our address.
    FixedIncomplete,
    /// Those that hold the job together: are they still there?
    Source,
    FixedIncompleteOrSource,
}

/// Which addresses may be called now, and which first?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sides {
    /// All alike.
    #[default]
    All,
    /// First those of our room that are lower than ours, if they may be called; then others of our
    /// room; then routed ones.
    Divided {
        lower: bool,
        room: bool,
        routed: bool,
    },
}

impl Sides {
    pub const NONE: Sides = Sides::Divided {
        lower: false,
        room: false,
        routed: false,
    };
}

/// How a connection ended, as far as it matters for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It never worked, or it broke.
    Failed,
    /// It was useful, or may be again.
    Normal,
    /// Another connection with the same peer remains.
    Duplicate,
    BothComplete,
    /// We called ourselves.
    Own,
}

impl Mesh {
    /// `allowed`: the subnets that peers are in; empty for all.
    pub fn new(allowed: Vec<Subnet>) -> Mesh {
        Mesh {
            allowed,
            ..Mesh::default()
        }
    }

    /// Whether a peer of this address may take part.
    pub fn allows(&self, ip: IpAddr) -> bool {
        allows(&self.allowed, ip)
    }

    /// Adds an address. Those that may not take part, and unusable ones (port 0), are skipped.
    /// Beyond ADDRESSES_MAX the address that failed most makes room; if none has failed, the new
    /// one is skipped.
    ///
    /// Beyond PEX_TAUGHT_MAX of one peer, of its addresses the one that failed most makes room. Its
    /// successor has failed as often: thousands of dead addresses do not get before an honest one.
    pub fn learn(&mut self, now: Instant, address: SocketAddr, source: AddressSource) {
        let fixed = source == AddressSource::CommandLine;
        let usable =
            address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast();
        let teacher = match source {
            AddressSource::Peer(ip) => Some(ip),
            AddressSource::CommandLine | AddressSource::Tracker => None,
        };
        if !usable || !self.allows(address.ip()) {
            return;
        }
        if let Some(known) = self.known.get_mut(&address) {
            known.fixed |= fixed;
            known.teacher = known.teacher.and(teacher);
            return;
        }
        let mut fresh = Known {
            fixed,
            teacher,
            source: false,
            called_at: now,
            answered: false,
            in_use: false,
            failures: 0,
            next: now,
            complete: false,
            own: false,
        };
        let taught = |known: &Known| teacher.is_some() && known.teacher == teacher;
        if self.known.iter().filter(|(_, known)| taught(known)).count() >= PEX_TAUGHT_MAX {
            let Some(worst) = self.forget_worst(taught) else {
                return;
            };
            (fresh.failures, fresh.next) = (worst.failures, worst.next);
        } else if !fixed
            && self.known.len() >= ADDRESSES_MAX
            && self.forget_worst(|_| true).is_none()
        {
            return;
        }
        self.known.insert(address, fresh);
        self.quiet_until = Instant(0);
    }

    /// The known addresses, without our own.
    pub fn address_count(&self) -> usize {
        self.known.iter().filter(|(_, known)| !known.own).count()
    }

    /// None if every address that `may_go` is fixed, in use, or has never failed.
    fn forget_worst(&mut self, may_go: impl Fn(&Known) -> bool) -> Option<Known> {
        let failed = self.known.iter().filter(|(_, known)| {
            may_go(known) && !known.fixed && !known.in_use && known.failures > 0
        });
        let worst = failed.max_by_key(|(_, known)| known.failures);
        let address = worst.map(|(address, _)| *address)?;
        self.known.remove(&address)
    }

    /// A peer had everything while we lacked something, and did not fetch it as we do. If it is of
    /// the command line, it is a *source*: without a tracker, the job lasts while one is there.
    pub fn note_source(&mut self, address: SocketAddr) {
        if let Some(known) = self.known.get_mut(&address) {
            known.source = known.fixed;
        }
    }

    /// Somebody answers at this address. True if it has everything, as far as we know.
    pub fn answered(&mut self, address: SocketAddr) -> bool {
        let Some(known) = self.known.get_mut(&address) else {
            return false;
        };
        known.answered = true;
        if known.source {
            self.absent_since = None;
        }
        known.complete
    }

    pub fn has_source(&self) -> bool {
        self.known.iter().any(|(_, known)| known.source)
    }

    /// Since when no source has answered, and until when that is known: the beginnings of the first
    /// and the last call in vain. None while one is there.
    pub fn sources_absent(&self) -> Option<(Instant, Instant)> {
        Some((self.absent_since?, self.absent_until))
    }

    /// The next address to connect to: among the due addresses with the fewest failures, a random
    /// one. It is in use until `ended` is called for it. If none is due, the time of the next one
    /// is kept in `quiet_until`, so that the search is not repeated in every turn.
    #[must_use]
    pub fn next_address(
        &mut self,
        now: Instant,
        kind: PeerKind,
        sides: Sides,
        rng: &mut Rng,
    ) -> Option<SocketAddr> {
        if now < self.quiet_until && (kind, sides) == self.quiet_for {
            return None;
        }
        // The first of those that are due, and when the next one is.
        let (mut first, mut best, mut next) = (None, Vec::new(), Instant(u64::MAX));
        for (address, known) in self.known.iter() {
            if !known.is_callable(kind) {
                continue;
            }
            let Some(turn) = self.turn(sides, *address) else {
                continue;
            };
            next = next.min(known.next);
            let order = (turn, known.failures);
            if now < known.next || first.is_some_and(|first| first < order) {
                continue;
            }
            if first != Some(order) {
                first = Some(order);
                best.clear();
            }
            best.push(*address);
        }
        if best.is_empty() {
            (self.quiet_until, self.quiet_for) = (next, (kind, sides));
            return None;
        }
        let address = best[rng.below(best.len() as u32) as usize];
        let known = self.known.get_mut(&address)?;
        (known.in_use, known.called_at, known.answered) = (true, now, false);
        Some(address)
    }

    /// When it is the turn of an address, lowest first; None if it may not be called now.
    fn turn(&self, sides: Sides, address: SocketAddr) -> Option<u8> {
        let Sides::Divided {
            lower,
            room,
            routed,
        } = sides
        else {
            return Some(0);
        };
        let own = self.own.iter().find(|own| own.contains(address.ip()));
        match own {
            Some(own) if lower && self.order(own, address).is_lt() => Some(0),
            Some(_) => room.then_some(1),
            None => routed.then_some(2),
        }
    }

    /// Of an address to ours in this subnet.
    fn order(&self, own: &Subnet, address: SocketAddr) -> Ordering {
        (address.ip().to_canonical(), address.port()).cmp(&(own.ip(), self.own_port))
    }

    /// The subnets of our interfaces, each with our address in it.
    pub fn set_own(&mut self, own: Vec<Subnet>, port: u16) {
        (self.own, self.own_port) = (own, port);
        self.quiet_until = Instant(0);
    }

    /// Where we stand in our room: in the subnet of which we know most machines. Those that do not
    /// answer do not count.
    pub fn place(&self, connected: &[SocketAddr]) -> Place {
        let mut there: Vec<SocketAddr> = Vec::new();
        for (address, known) in self.known.iter() {
            if !known.own && (known.failures == 0 || known.answered) {
                there.push(*address);
            }
        }
        for address in connected {
            if !self.known.contains_key(address) {
                there.push(*address);
            }
        }
        let (mut others, mut lower) = (0, 0);
        for own in &self.own {
            let mut here = (0, 0);
            for address in there.iter().filter(|address| own.contains(address.ip())) {
                let order = self.order(own, *address);
                here.0 += u32::from(order.is_ne());
                here.1 += u32::from(order.is_lt());
            }
            (others, lower) = here.max((others, lower));
        }
        let divided = there.iter().any(|address| !allows(&self.own, address.ip()));
        Place {
            lower,
            others,
            divided,
        }
    }

    /// The connection that `next_address` asked for has ended.
    pub fn ended(&mut self, now: Instant, address: SocketAddr, ending: Ending) {
        let Some(known) = self.known.get_mut(&address) else {
            return;
        };
        known.in_use = false;
        self.quiet_until = Instant(0);
        let mut wait = RECONNECT_MAX;
        match ending {
            Ending::Failed => {
                wait = pause(known.failures);
                known.failures += 1;
            }
            Ending::Normal => {
                known.failures = 0;
                wait = RECONNECT_MIN;
            }
            Ending::Duplicate | Ending::Own => known.own |= ending == Ending::Own,
            Ending::BothComplete => (known.complete, wait) = (true, Duration::ZERO),
        }
        if known.source {
            // Its end must be noticed in time, as that of a tracker.
            wait = match ending {
                Ending::Failed => wait.min(ANNOUNCE_RETRY_MAX),
                _ => ANNOUNCE_COMPLETE,
            };
        }
        known.next = now + wait;
        let (called_at, vain) = (known.called_at, known.source && !known.answered);
        let is_there = |(_, known): (_, &Known)| known.source && known.in_use && known.answered;
        if vain && !self.known.iter().any(is_there) {
            self.absent_since.get_or_insert(called_at);
            self.absent_until = called_at;
        }
    }
}

fn pause(failures: u32) -> Duration {
    (RECONNECT_MIN * (1 << failures.min(8))).min(RECONNECT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn address(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 77, 0, host], 6881))
    }

    const fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000)
    }

    fn next(mesh: &mut Mesh, now: Instant, kind: PeerKind) -> Option<SocketAddr> {
        mesh.next_address(now, kind, Sides::All, &mut Rng::new(1))
    }

    #[test]
    fn each_address_is_called_once_and_again_after_a_growing_pause() {
        let mut mesh = Mesh::default();
        mesh.learn(at(0), address(1), AddressSource::Tracker);
        mesh.learn(at(0), address(1), AddressSource::Tracker);
        assert_eq!(next(&mut mesh, at(0), PeerKind::Any), Some(address(1)));
        assert_eq!(next(&mut mesh, at(0), PeerKind::Any), None);
        mesh.ended(at(0), address(1), Ending::Failed);
        assert_eq!(next(&mut mesh, at(0), PeerKind::Any), None);
        assert_eq!(next(&mut mesh, at(1), PeerKind::Any), Some(address(1)));
        mesh.ended(at(1), address(1), Ending::Failed);
        assert_eq!(next(&mut mesh, at(2), PeerKind::Any), None);
        assert_eq!(next(&mut mesh, at(3), PeerKind::Any), Some(address(1)));
    }

    #[test]
    fn own_and_complete_addresses_are_not_called() {
        let mut mesh = Mesh::default();
        for host in 1..=2 {
            mesh.learn(at(0), address(host), AddressSource::Tracker);
            assert_eq!(next(&mut mesh, at(0), PeerKind::Any), Some(address(host)));
        }
        mesh.ended(at(0), address(1), Ending::Own);
        mesh.ended(at(0), address(2), Ending::BothComplete);
        assert_eq!(next(&mut mesh, at(99), PeerKind::Incomplete), None);
        assert_eq!(
            next(&mut mesh, at(99), PeerKind::Any),
            Some(address(2)),
            "an incomplete agent may need it again"
        );
    }

    #[test]
    fn each_kind_of_peer_is_called_only_when_it_is_wanted() {
        let mut mesh = Mesh::default();
        mesh.learn(at(0), address(1), AddressSource::Tracker);
        mesh.learn(at(0), address(2), AddressSource::CommandLine);
        assert_eq!(
            next(&mut mesh, at(0), PeerKind::FixedIncomplete),
            Some(address(2))
        );
        assert_eq!(next(&mut mesh, at(0), PeerKind::FixedIncomplete), None);
        assert_eq!(
            next(&mut mesh, at(0), PeerKind::Incomplete),
            Some(address(1))
        );
    }

    #[test]
    fn unusable_addresses_are_skipped_and_memory_is_bounded() {
        let mut mesh = Mesh::default();
        mesh.learn(
            at(0),
            "10.77.0.1:0".parse().unwrap(),
            AddressSource::Tracker,
        );
        mesh.learn(
            at(0),
            "0.0.0.0:6881".parse().unwrap(),
            AddressSource::CommandLine,
        );
        assert_eq!(mesh.known.len(), 0);
        for n in 0..u16::MAX {
            mesh.learn(
                at(0),
                SocketAddr::from(([10, 77, 1, 1], n)),
                AddressSource::Tracker,
            );
        }
        assert_eq!(mesh.known.len(), ADDRESSES_MAX);
        mesh.learn(at(0), address(1), AddressSource::CommandLine);
        assert_eq!(
            mesh.known.len(),
            ADDRESSES_MAX + 1,
            "addresses of the command line are always learned"
        );
    }

    #[test]
    fn only_addresses_that_may_take_part_are_learned() {
        let mut mesh = Mesh::new(vec![Subnet::parse("10.77.0.0/16").unwrap()]);
        for source in [AddressSource::Tracker, AddressSource::CommandLine] {
            for text in [
                "10.78.0.1:6881",
                "[::ffff:10.78.0.1]:6881",
                "[fd77::1]:6881",
            ] {
                mesh.learn(at(0), text.parse().unwrap(), source);
            }
        }
        assert_eq!(mesh.address_count(), 0);
        mesh.learn(at(0), address(1), AddressSource::Tracker);
        assert_eq!(next(&mut mesh, at(0), PeerKind::Any), Some(address(1)));
    }

    /// If all machines called the lowest addresses first, a room would fall apart into groups of
    /// LINKS_MAX that know only each other.
    #[test]
    fn addresses_are_chosen_at_random_and_failed_ones_last() {
        let first = |seed| {
            let mut mesh = Mesh::default();
            (1..=100).for_each(|host| mesh.learn(at(0), address(host), AddressSource::Tracker));
            mesh.next_address(at(0), PeerKind::Any, Sides::All, &mut Rng::new(seed))
                .unwrap()
        };
        let distinct: std::collections::BTreeSet<SocketAddr> = (0..100).map(first).collect();
        assert!(distinct.len() > 40, "{} of 100", distinct.len());

        let mut mesh = Mesh::default();
        mesh.learn(at(0), address(1), AddressSource::Tracker);
        assert_eq!(next(&mut mesh, at(0), PeerKind::Any), Some(address(1)));
        mesh.ended(at(0), address(1), Ending::Failed);
        mesh.learn(at(9), address(2), AddressSource::Tracker);
        assert_eq!(
            next(&mut mesh, at(9), PeerKind::Any),
            Some(address(2)),
            "it has not failed yet"
        );
        assert_eq!(next(&mut mesh, at(9), PeerKind::Any), Some(address(1)));
    }

    /// The tracker may be gone for good, and the seed may come back after an hour.
    #[test]
    fn no_address_is_forgotten_while_there_is_room() {
        let mut mesh = Mesh::default();
        mesh.learn(at(0), address(1), AddressSource::Tracker);
        for hour in 0..20 {
            assert_eq!(
                next(&mut mesh, at(hour * 3600), PeerKind::Any),
                Some(address(1)),
                "hour {hour}"
            );
            mesh.ended(at(hour * 3600), address(1), Ending::Failed);
        }
        for n in 1..=ADDRESSES_MAX as u16 {
            mesh.learn(
                at(0),
                SocketAddr::from(([10, 77, 1, 1], n)),
                AddressSource::Tracker,
            );
        }
        assert_eq!(mesh.known.len(), ADDRESSES_MAX);
        assert!(
            !mesh.known.contains_key(&address(1)),
            "it made room for an address that may answer"
        );
    }

    #[test]
    fn lower_addresses_of_the_room_come_first_and_routed_ones_last() {
        let mut mesh = Mesh::default();
        mesh.set_own(vec![Subnet::parse("10.77.0.5/24").unwrap()], 6881);
        let routed: SocketAddr = "10.77.1.1:6881".parse().unwrap();
        for known in [routed, address(9), address(5), address(3)] {
            mesh.learn(at(0), known, AddressSource::Tracker);
        }
        let place = |lower, others| Place {
            lower,
            others,
            divided: true,
        };
        assert_eq!(mesh.place(&[]), place(1, 2));
        assert_eq!(mesh.place(&[address(2), address(3)]), place(2, 3));

        let sides = |lower, room, routed| Sides::Divided {
            lower,
            room,
            routed,
        };
        let next = |mesh: &mut Mesh, sides| {
            mesh.next_address(at(0), PeerKind::Any, sides, &mut Rng::new(1))
        };
        assert_eq!(next(&mut mesh, Sides::NONE), None);
        assert_eq!(next(&mut mesh, sides(true, false, false)), Some(address(3)));
        assert_eq!(next(&mut mesh, sides(true, false, false)), None);
        mesh.ended(at(0), address(3), Ending::Failed);
        assert_eq!(mesh.place(&[]), place(0, 1), "it does not answer");
        assert!(next(&mut mesh, sides(true, true, true)).is_some_and(|a| a != routed));
        assert!(next(&mut mesh, sides(true, true, true)).is_some_and(|a| a != routed));
        assert_eq!(next(&mut mesh, sides(true, true, true)), Some(routed));
    }
}
