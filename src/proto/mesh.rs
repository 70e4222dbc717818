//! Which addresses do we connect to, and when again.
//!
//! Everybody to everybody up to MESH_PEERS. An address that failed is tried again after a pause that doubles; one that
//! turned out to be ourselves, or that lied, never.

use alloc::collections::{BTreeMap, BTreeSet};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use crate::limits::{ADDRESSES_MAX, RECONNECT_MAX, RECONNECT_MIN};
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
    fn is_callable(&self, complete: bool) -> bool {
        let useless = self.own || (complete && self.complete);
        !useless && !self.in_use
    }
}

#[derive(Default)]
pub struct Mesh {
    known: BTreeMap<SocketAddr, Known>,
    banned: BTreeSet<IpAddr>,
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
    /// An address from the command line, a tracker or a peer. Port 0, our own and banned ones are skipped, and so is
    /// everything past ADDRESSES_MAX.
    pub fn learn(&mut self, now: Instant, address: SocketAddr, fixed: bool) {
        let usable = address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast();
        if !usable || (!fixed && self.known.len() >= ADDRESSES_MAX) {
            return;
        }
        let fresh = Known { fixed, in_use: false, failures: 0, next: now, complete: false, own: false };
        let known = self.known.entry(address).or_insert(fresh);
        known.fixed |= fixed;
    }

    /// The next address to call. `complete`: we have everything, so there is no use in calling those who have it too.
    pub fn next(&mut self, now: Instant, complete: bool) -> Option<SocketAddr> {
        let banned = &self.banned;
        let due = |address: &SocketAddr, known: &Known| {
            now >= known.next && known.is_callable(complete) && !banned.contains(&address.ip())
        };
        let (address, known) = self.known.iter_mut().find(|(address, known)| due(address, known))?;
        known.in_use = true;
        Some(*address)
    }

    /// The connection that `next` asked for is over.
    pub fn ended(&mut self, now: Instant, address: SocketAddr, ending: Ending) {
        let Some(known) = self.known.get_mut(&address) else { return };
        known.in_use = false;
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
        // Those who never answer are forgotten: the tracker names them again if they come back.
        if known.failures > 8 && !known.fixed {
            self.known.remove(&address);
        }
    }

    pub fn ban(&mut self, address: SocketAddr) {
        self.banned.insert(address.ip());
    }

    pub fn is_banned(&self, address: SocketAddr) -> bool {
        self.banned.contains(&address.ip())
    }

    pub fn address_count(&self) -> usize {
        self.known.len()
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

    #[test]
    fn each_address_is_called_once_and_again_after_a_growing_pause() {
        let mut mesh = Mesh::default();
        mesh.learn(at(0), address(1), false);
        mesh.learn(at(0), address(1), false);
        assert_eq!(mesh.next(at(0), false), Some(address(1)));
        assert_eq!(mesh.next(at(0), false), None);
        mesh.ended(at(0), address(1), Ending::Failed);
        assert_eq!(mesh.next(at(0), false), None);
        assert_eq!(mesh.next(at(1), false), Some(address(1)));
        mesh.ended(at(1), address(1), Ending::Failed);
        assert_eq!(mesh.next(at(2), false), None);
        assert_eq!(mesh.next(at(3), false), Some(address(1)));
    }

    #[test]
    fn ourselves_liars_and_finished_ones_are_not_called() {
        let mut mesh = Mesh::default();
        for host in 1..=3 {
            mesh.learn(at(0), address(host), false);
            assert_eq!(mesh.next(at(0), false), Some(address(host)));
        }
        mesh.ended(at(0), address(1), Ending::Own);
        mesh.ended(at(0), address(2), Ending::BothComplete);
        mesh.ended(at(0), address(3), Ending::Normal);
        mesh.ban(address(3));
        assert_eq!(mesh.next(at(99), true), None);
        assert_eq!(mesh.next(at(99), false), Some(address(2)), "an incomplete agent may need it again");
    }

    #[test]
    fn useless_addresses_are_not_learned_and_memory_is_bounded() {
        let mut mesh = Mesh::default();
        mesh.learn(at(0), "10.77.0.1:0".parse().unwrap(), false);
        mesh.learn(at(0), "0.0.0.0:6881".parse().unwrap(), true);
        assert_eq!(mesh.address_count(), 0);
        for n in 0..u16::MAX {
            mesh.learn(at(0), SocketAddr::from(([10, 77, 1, 1], n)), false);
        }
        assert_eq!(mesh.address_count(), ADDRESSES_MAX);
        mesh.learn(at(0), address(1), true);
        assert_eq!(mesh.address_count(), ADDRESSES_MAX + 1, "the command line always counts");
    }
}
