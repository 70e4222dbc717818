//! Which addresses do we connect to, and when again.
//!
//! Random ones, until there are LINKS, or a room of many machines would fall apart into cliques. An
//! address that failed is tried again, for ever, after a pause that doubles and after those that
//! did not; one that turned out to be ourselves, or that lied, never. Who has got everything waits
//! to be called: if it looked for those who lack something, a room of a thousand would make
//! hundreds of thousands of connections at its end, and find nobody.

use alloc::collections::{BTreeMap, BTreeSet};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use crate::limits::{ADDRESSES_MAX, RECONNECT_MAX, RECONNECT_MIN};
use crate::rng::Rng;
use crate::units::Instant;

#[derive(Clone, Copy, Debug)]
struct Known {
    /// Given on the command line: never forgotten.
    fixed: bool,
    /// A connection we made to it stands or is being set up.
    in_use: bool,
    failures: u32,
    next: Instant,
    /// It had everything when we last met.
    complete: bool,
    /// It is ourselves.
    own: bool,
}

impl Known {
    fn is_callable(&self, whom: Whom) -> bool {
        let of_use = match whom {
            Whom::Anybody => true,
            Whom::Incomplete => !self.complete,
            Whom::Named => !self.complete && self.fixed,
        };
        of_use && !self.own && !self.in_use
    }
}

#[derive(Default)]
pub struct Mesh {
    known: BTreeMap<SocketAddr, Known>,
    banned: BTreeSet<IpAddr>,
    /// Nobody of these is due before then: the loop asks in every turn.
    quiet_until: Instant,
    quiet_whom: Whom,
}

/// Who is to be called?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Whom {
    /// We lack something.
    #[default]
    Anybody,
    /// We pass on what others lack: whoever had not everything when we last met.
    Incomplete,
    /// The same, and of those from the command line only: they may not know of us.
    Named,
}

/// How a connection ended, as far as the next one is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It never worked, or broke.
    Failed,
    /// It was useful, or may be again.
    Normal,
    /// The same peer is connected by another connection.
    Duplicate,
    /// Both sides have everything.
    BothComplete,
    Own,
}

impl Mesh {
    /// An address from the command line, a tracker or a peer. Port 0 is skipped. Past ADDRESSES_MAX
    /// the one that failed most makes room; if none has failed, the new one is skipped.
    pub fn learn(&mut self, now: Instant, address: SocketAddr, fixed: bool) {
        let usable =
            address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast();
        let full =
            !fixed && self.known.len() >= ADDRESSES_MAX && !self.known.contains_key(&address);
        if !usable || (full && !self.forget_worst()) {
            return;
        }
        let fresh = Known {
            fixed,
            in_use: false,
            failures: 0,
            next: now,
            complete: false,
            own: false,
        };
        let known = self.known.entry(address).or_insert(fresh);
        known.fixed |= fixed;
        self.quiet_until = Instant(0);
    }

    /// False if there is none whose loss would be no loss.
    fn forget_worst(&mut self) -> bool {
        let failed = self
            .known
            .iter()
            .filter(|(_, known)| !known.fixed && !known.in_use && known.failures > 0);
        let worst = failed
            .max_by_key(|(_, known)| known.failures)
            .map(|(address, _)| *address);
        worst.is_some_and(|address| self.known.remove(&address).is_some())
    }

    /// The next address to call, a random one of those that failed least.
    pub fn next(&mut self, now: Instant, whom: Whom, rng: &mut Rng) -> Option<SocketAddr> {
        if now < self.quiet_until && whom == self.quiet_whom {
            return None;
        }
        let callable = |(address, known): &(&SocketAddr, &Known)| {
            known.is_callable(whom) && !self.banned.contains(&address.ip())
        };
        let callable = || self.known.iter().filter(callable);
        let due = || callable().filter(|(_, known)| now >= known.next);
        let Some(fewest) = due().map(|(_, known)| known.failures).min() else {
            let next = callable().map(|(_, known)| known.next).min();
            (self.quiet_until, self.quiet_whom) = (next.unwrap_or(Instant(u64::MAX)), whom);
            return None;
        };
        let best = || due().filter(|(_, known)| known.failures == fewest);
        let place = rng.below(best().count() as u32) as usize;
        let address = *best().nth(place)?.0;
        self.known.get_mut(&address)?.in_use = true;
        Some(address)
    }

    /// The connection that `next` asked for is over.
    pub fn ended(&mut self, now: Instant, address: SocketAddr, ending: Ending) {
        let Some(known) = self.known.get_mut(&address) else {
            return;
        };
        known.in_use = false;
        self.quiet_until = Instant(0);
        match ending {
            Ending::Failed => {
                known.next = now + pause(known.failures);
                known.failures += 1;
            }
            Ending::Normal => {
                known.failures = 0;
                known.next = now + RECONNECT_MIN;
            }
            Ending::Duplicate => known.next = now + RECONNECT_MAX,
            Ending::BothComplete => known.complete = true,
            Ending::Own => known.own = true,
        }
    }

    pub fn ban(&mut self, address: SocketAddr) {
        self.banned.insert(address.ip());
    }

    pub fn is_banned(&self, address: SocketAddr) -> bool {
        self.banned.contains(&address.ip())
    }
}

fn pause(failures: u32) -> Duration {
    (RECONNECT_MIN * (1 << failures.min(8))).min(RECONNECT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 77, 0, host], 6881))
    }

    const fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000)
    }

    fn next(mesh: &mut Mesh, now: Instant, whom: Whom) -> Option<SocketAddr> {
        mesh.next(now, whom, &mut Rng::new(1))
    }

    #[test]
    fn each_address_is_called_once_and_again_after_a_growing_pause() {
        let mut mesh = Mesh::default();
        mesh.learn(at(0), address(1), false);
        mesh.learn(at(0), address(1), false);
        assert_eq!(next(&mut mesh, at(0), Whom::Anybody), Some(address(1)));
        assert_eq!(next(&mut mesh, at(0), Whom::Anybody), None);
        mesh.ended(at(0), address(1), Ending::Failed);
        assert_eq!(next(&mut mesh, at(0), Whom::Anybody), None);
        assert_eq!(next(&mut mesh, at(1), Whom::Anybody), Some(address(1)));
        mesh.ended(at(1), address(1), Ending::Failed);
        assert_eq!(next(&mut mesh, at(2), Whom::Anybody), None);
        assert_eq!(next(&mut mesh, at(3), Whom::Anybody), Some(address(1)));
    }

    #[test]
    fn ourselves_liars_and_finished_ones_are_not_called() {
        let mut mesh = Mesh::default();
        for host in 1..=3 {
            mesh.learn(at(0), address(host), false);
            assert_eq!(next(&mut mesh, at(0), Whom::Anybody), Some(address(host)));
        }
        mesh.ended(at(0), address(1), Ending::Own);
        mesh.ended(at(0), address(2), Ending::BothComplete);
        mesh.ended(at(0), address(3), Ending::Normal);
        mesh.ban(address(3));
        assert_eq!(next(&mut mesh, at(99), Whom::Incomplete), None);
        assert_eq!(
            next(&mut mesh, at(99), Whom::Anybody),
            Some(address(2)),
            "an incomplete agent may need it again"
        );
    }

    #[test]
    fn who_is_complete_calls_only_those_who_may_not_know_of_it() {
        let mut mesh = Mesh::default();
        mesh.learn(at(0), address(1), false);
        mesh.learn(at(0), address(2), true);
        assert_eq!(next(&mut mesh, at(0), Whom::Named), Some(address(2)));
        assert_eq!(next(&mut mesh, at(0), Whom::Named), None);
        assert_eq!(next(&mut mesh, at(0), Whom::Incomplete), Some(address(1)));
    }

    #[test]
    fn useless_addresses_are_not_learned_and_memory_is_bounded() {
        let mut mesh = Mesh::default();
        mesh.learn(at(0), "10.77.0.1:0".parse().unwrap(), false);
        mesh.learn(at(0), "0.0.0.0:6881".parse().unwrap(), true);
        assert_eq!(mesh.known.len(), 0);
        for n in 0..u16::MAX {
            mesh.learn(at(0), SocketAddr::from(([10, 77, 1, 1], n)), false);
        }
        assert_eq!(mesh.known.len(), ADDRESSES_MAX);
        mesh.learn(at(0), address(1), true);
        assert_eq!(
            mesh.known.len(),
            ADDRESSES_MAX + 1,
            "the command line always counts"
        );
    }

    /// Everybody who calls the lowest addresses first ends in rooms of LINKS_MAX machines without a
    /// door.
    #[test]
    fn whom_to_call_first_is_left_to_chance_but_for_those_who_failed() {
        let first = |seed| {
            let mut mesh = Mesh::default();
            (1..=100).for_each(|host| mesh.learn(at(0), address(host), false));
            mesh.next(at(0), Whom::Anybody, &mut Rng::new(seed))
                .unwrap()
        };
        let distinct: BTreeSet<SocketAddr> = (0..100).map(first).collect();
        assert!(distinct.len() > 40, "{} of 100", distinct.len());

        let mut mesh = Mesh::default();
        mesh.learn(at(0), address(1), false);
        assert_eq!(next(&mut mesh, at(0), Whom::Anybody), Some(address(1)));
        mesh.ended(at(0), address(1), Ending::Failed);
        mesh.learn(at(9), address(2), false);
        assert_eq!(
            next(&mut mesh, at(9), Whom::Anybody),
            Some(address(2)),
            "it has not failed yet"
        );
        assert_eq!(next(&mut mesh, at(9), Whom::Anybody), Some(address(1)));
    }

    /// The tracker may be gone for good, and the seed come back after an hour.
    #[test]
    fn nobody_is_forgotten_while_there_is_room() {
        let mut mesh = Mesh::default();
        mesh.learn(at(0), address(1), false);
        for hour in 0..20 {
            assert_eq!(
                next(&mut mesh, at(hour * 3600), Whom::Anybody),
                Some(address(1)),
                "hour {hour}"
            );
            mesh.ended(at(hour * 3600), address(1), Ending::Failed);
        }
        for n in 1..=ADDRESSES_MAX as u16 {
            mesh.learn(at(0), SocketAddr::from(([10, 77, 1, 1], n)), false);
        }
        assert_eq!(mesh.known.len(), ADDRESSES_MAX);
        assert!(
            !mesh.known.contains_key(&address(1)),
            "it made room for one that may answer"
        );
    }
}
