//! Who sent bad data, and for how long do we keep away from it?
//!
//! A peer is blamed by its address and its peer id. Other peers of the address may be honest
//! machines behind one NAT, so the whole address is banned only when a second peer id of it is
//! blamed: then a machine there probably changes its peer id after each offence.
//!
//! Every ban lapses, because one flipped bit in the memory of the only source must not stop a room
//! for ever. Its length doubles with each offence, and offences are forgotten after OFFENCE_KEPT.
//! It is short for the peers of the command line, and while nobody else has what is missing.
//!
//! A peer that has sent a block is a *giver*. Its number is never used again, while a slot has
//! another peer soon after its peer has left. A peer gets no number for a handshake, and a crowd at
//! one address displaces only its own: otherwise a poisoner could have itself forgotten by
//! connecting a few hundred times.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use crate::limits::*;
use crate::units::{Giver, Instant, PeerId};
use crate::vec_map::VecMap;

#[derive(Debug, Default)]
pub struct Blame {
    /// The peers that have sent a block, by their numbers.
    givers: VecMap<Giver, (SocketAddr, PeerId)>,
    giver_count: u64,
    /// A peer, or (None) all peers of an address.
    offenders: VecMap<(IpAddr, Option<PeerId>), Offender>,
    /// Addresses from the command line.
    fixed: Vec<IpAddr>,
}

#[derive(Clone, Copy, Debug)]
struct Offender {
    offences: u32,
    last: Instant,
}

impl Blame {
    pub fn new(fixed: &[SocketAddr]) -> Blame {
        Blame {
            fixed: fixed.iter().map(SocketAddr::ip).collect(),
            ..Blame::default()
        }
    }

    /// A peer has sent its first block: the number under which its blocks are remembered. The
    /// oldest giver of the address with most makes room, but none that is connected.
    pub fn note_peer(
        &mut self,
        address: SocketAddr,
        peer_id: PeerId,
        is_connected: impl Fn(Giver) -> bool,
    ) -> Giver {
        if self.givers.len() >= GIVERS_MAX {
            let all = || self.givers.iter();
            let count_of = |ip| all().filter(|(_, (of, _))| of.ip() == ip).count();
            let gone = all().rev().filter(|(giver, _)| !is_connected(**giver));
            let surplus = gone.max_by_key(|(_, (address, _))| count_of(address.ip()));
            if let Some(surplus) = surplus.map(|(giver, _)| *giver) {
                self.givers.remove(&surplus);
            }
        }
        self.giver_count += 1;
        let giver = Giver(self.giver_count);
        self.givers.insert(giver, (address, peer_id));
        giver
    }

    /// This giver sent bad data. Its address; None if it was blamed before, or if its connection
    /// was too long ago.
    pub fn blame(&mut self, now: Instant, giver: Giver) -> Option<SocketAddr> {
        let (address, peer_id) = self.givers.remove(&giver)?;
        let ip = address.ip();
        if self.offender(now, (ip, Some(peer_id))).is_none() {
            self.note(now, (ip, None));
        }
        self.note(now, (ip, Some(peer_id)));
        Some(address)
    }

    fn note(&mut self, now: Instant, who: (IpAddr, Option<PeerId>)) {
        let offences = 1 + self.offender(now, who).map_or(0, |known| known.offences);
        if !self.offenders.contains_key(&who) && self.offenders.len() >= OFFENDERS_MAX {
            let oldest = self.offenders.iter().min_by_key(|(_, o)| o.last);
            if let Some(oldest) = oldest.map(|(who, _)| *who) {
                self.offenders.remove(&oldest);
            }
        }
        let last = now;
        self.offenders.insert(who, Offender { offences, last });
    }

    fn offender(&self, now: Instant, who: (IpAddr, Option<PeerId>)) -> Option<&Offender> {
        let known = self.offenders.get(&who);
        known.filter(|offender| now.since(offender.last) < OFFENCE_KEPT)
    }

    /// Whether no peer of this address is welcome. `needed`: nobody else has what is missing.
    pub fn is_address_banned(&self, now: Instant, ip: IpAddr, needed: bool) -> bool {
        let offender = self.offender(now, (ip, None));
        offender.is_some_and(|offender| {
            // The first name that is blamed is banned alone.
            let renamed = offender.offences - 1;
            renamed > 0 && now.since(offender.last) < self.ban(ip, renamed, needed)
        })
    }

    /// Whether this peer is not welcome.
    pub fn is_peer_banned(&self, now: Instant, ip: IpAddr, id: PeerId, needed: bool) -> bool {
        let offender = self.offender(now, (ip, Some(id)));
        offender.is_some_and(|offender| {
            now.since(offender.last) < self.ban(ip, offender.offences, needed)
        })
    }

    fn ban(&self, ip: IpAddr, offences: u32, needed: bool) -> Duration {
        let (first, longest) = match needed || self.fixed.contains(&ip) {
            true => (BAN_NEEDED_MIN, BAN_NEEDED_MAX),
            false => (BAN_MIN, BAN_MAX),
        };
        (first * (1 << (offences - 1).min(8))).min(longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000)
    }

    fn address(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 77, 0, host], 6881))
    }

    /// The peer `name` at `host` is blamed now.
    fn blamed(blame: &mut Blame, now: Instant, host: u8, name: u8) {
        let giver = blame.note_peer(address(host), PeerId([name; 20]), |_| false);
        assert_eq!(blame.blame(now, giver), Some(address(host)));
    }

    /// For how many seconds from `from` on the peer is banned.
    fn banned_secs(blame: &Blame, from: u64, host: u8, name: u8, needed: bool) -> u64 {
        let (ip, id) = (address(host).ip(), PeerId([name; 20]));
        let banned = |second: &u64| {
            blame.is_address_banned(at(*second), ip, needed)
                || blame.is_peer_banned(at(*second), ip, id, needed)
        };
        (from..).take_while(banned).count() as u64
    }

    #[test]
    fn each_offence_doubles_a_ban_and_every_ban_lapses() {
        let mut blame = Blame::default();
        let mut lengths = Vec::new();
        for round in 0..10 {
            blamed(&mut blame, at(round * 1000), 1, 1);
            lengths.push(banned_secs(&blame, round * 1000, 1, 1, false));
        }
        assert_eq!(lengths, [10, 20, 40, 80, 160, 300, 300, 300, 300, 300]);
    }

    /// Many machines behind one NAT, and each sends a bad block on one day.
    #[test]
    fn offences_are_forgotten_after_a_while() {
        let mut blame = Blame::default();
        let kept = OFFENCE_KEPT.as_secs();
        (1..20).for_each(|name| blamed(&mut blame, at(0), 1, name));
        assert_eq!(banned_secs(&blame, 0, 1, 1, false), 300);
        for second in [kept, 2 * kept] {
            blamed(&mut blame, at(second), 1, 1);
            assert_eq!(banned_secs(&blame, second, 1, 1, false), 10);
            assert_eq!(banned_secs(&blame, second, 1, 99, false), 0);
        }
    }

    #[test]
    fn a_ban_is_short_while_nobody_else_has_what_is_missing_and_for_fixed_peers() {
        let fixed = [address(1)];
        for (mut blame, needed) in [(Blame::default(), true), (Blame::new(&fixed), false)] {
            let mut lengths = Vec::new();
            for round in 0..7 {
                blamed(&mut blame, at(round * 1000), 1, 1);
                lengths.push(banned_secs(&blame, round * 1000, 1, 1, needed));
            }
            assert_eq!(lengths, [1, 2, 4, 8, 16, 30, 30]);
        }
    }

    #[test]
    fn an_honest_peer_behind_the_same_nat_is_banned_only_for_a_while_after_a_change_of_name() {
        let mut blame = Blame::default();
        blamed(&mut blame, at(0), 1, 1);
        assert_eq!(banned_secs(&blame, 0, 1, 9, false), 0, "another peer");
        assert_eq!(banned_secs(&blame, 0, 2, 1, false), 0, "another address");
        blamed(&mut blame, at(100), 1, 1);
        assert_eq!(banned_secs(&blame, 100, 1, 9, false), 0, "the same again");
        for name in 2..60 {
            blamed(&mut blame, at(200), 1, name);
        }
        assert_eq!(banned_secs(&blame, 200, 1, 99, false), 300);
        assert_eq!(banned_secs(&blame, 200, 1, 99, true), 30);
    }

    #[test]
    fn memory_is_bounded_and_givers_of_long_ago_are_not_blamed() {
        let mut blame = Blame::default();
        let first = blame.note_peer(address(1), PeerId([1; 20]), |_| false);
        for n in 0..8000u32 {
            let mut id = [0; 20];
            id[..4].copy_from_slice(&n.to_be_bytes());
            let giver = blame.note_peer(address(n as u8), PeerId(id), |_| false);
            if n % 2 == 0 {
                blame.blame(at(u64::from(n)), giver);
                assert_eq!(blame.blame(at(u64::from(n)), giver), None, "once");
            }
        }
        assert_eq!(blame.givers.len(), GIVERS_MAX);
        assert_eq!(blame.offenders.len(), OFFENDERS_MAX);
        assert_eq!(blame.blame(at(9), first), None);
    }

    /// One machine changes its peer id thousands of times.
    #[test]
    fn a_crowd_at_one_address_does_not_hide_the_giver_of_a_block() {
        let mut blame = Blame::default();
        let connected = blame.note_peer(address(2), PeerId([0; 20]), |_| false);
        let gone = blame.note_peer(address(1), PeerId([1; 20]), |_| false);
        for n in 0..2000u32 {
            let mut id = [0; 20];
            id[..4].copy_from_slice(&n.to_be_bytes());
            blame.note_peer(address(2), PeerId(id), |giver| giver == connected);
        }
        assert_eq!(blame.givers.len(), GIVERS_MAX);
        assert_eq!(blame.blame(at(0), connected), Some(address(2)));
        assert_eq!(blame.blame(at(0), gone), Some(address(1)));
    }
}
