//! Which peers are in our room, and which pieces does this machine fetch from elsewhere?
//!
//! The machines of one subnet are a *room*: between them lies a switch. All other peers are
//! *routed*: they lie behind a router, whose cable the whole room shares, so each piece should pass
//! it once. Therefore a few machines of each room, its *gateways*, fetch from routed peers, each a
//! share of the pieces, and only what no peer of the room has. Everybody may upload to routed
//! peers, and takes what a seed offers: a seed offers a piece once.
//!
//! The gateways are the machines with the lowest addresses that their room knows and that answer.
//! So the machines agree without a message, a machine that dies is replaced by the next one, and
//! one that joins finds its place. Machines that know different peers may disagree: then two of
//! them fetch the same piece, or nobody fetches it. A room that gets little for a while is
//! *hungry*: its machines take turns at the shares, more and more machines fetch, and at last
//! everybody fetches everything.

use alloc::vec::Vec;
use core::net::IpAddr;

use super::subnet::Subnet;
use crate::limits::{DEPUTIES, GATEWAYS, HUNGER_MAX, HUNGER_TICKS};
use crate::units::PieceIndex;

/// Where a machine stands among the machines of its room that it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Machines of the room with lower addresses, and all others.
    pub lower: u32,
    pub others: u32,
    /// Routed peers are known.
    pub divided: bool,
}

/// The pieces that a machine fetches from routed peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    index: u32,
    /// Of this many gateways.
    count: u32,
    /// For how many turns the room has been hungry.
    turns: u32,
}

#[derive(Debug)]
pub struct Room {
    subnets: Vec<Subnet>,
    place: Place,
    /// In ticks: grows while little arrives, and shrinks while more arrives.
    hunger: u32,
    /// Bytes that had arrived at the last tick; about eight times what arrives in a tick; and the
    /// most that this ever was.
    fetched: u64,
    pace: u64,
    best_pace: u64,
}

impl Room {
    /// Without subnets: every peer is in our room.
    pub fn new() -> Room {
        Room {
            subnets: Vec::new(),
            place: Place {
                lower: 0,
                others: 0,
                divided: false,
            },
            hunger: 0,
            fetched: 0,
            pace: 0,
            best_pace: 0,
        }
    }

    /// The subnets of our interfaces, each with our address in it.
    pub fn set_subnets(&mut self, subnets: Vec<Subnet>) {
        self.subnets = subnets;
    }

    pub fn subnets(&self) -> &[Subnet] {
        &self.subnets
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        super::subnet::allows(&self.subnets, ip)
    }

    pub fn set_place(&mut self, place: Place) {
        self.place = place;
    }

    pub fn place(&self) -> Place {
        self.place
    }

    /// To be called at each tick. `fetched`: bytes that have arrived in all.
    pub fn tick(&mut self, fetched: u64) {
        let arrived = fetched - self.fetched;
        self.fetched = fetched;
        self.pace += arrived;
        self.pace -= self.pace / 8;
        self.best_pace = self.best_pace.max(self.pace);
        let is_hungry = 8 * self.pace <= self.best_pace;
        self.hunger = match is_hungry {
            true => (self.hunger + 1).min(HUNGER_MAX),
            false => self.hunger.saturating_sub(1),
        };
    }

    pub fn share(&self) -> Share {
        let turns = self.hunger / HUNGER_TICKS;
        Share {
            index: self.place.lower,
            count: (GATEWAYS * (1 + turns)).min(self.place.others + 1),
            turns,
        }
    }
}

impl Share {
    /// Whether this machine fetches from routed peers at all.
    pub fn is_gateway(self) -> bool {
        self.index < self.count || self.has_all()
    }

    /// It watches those that are gateways before it.
    pub fn is_deputy(self) -> bool {
        self.index < self.count + DEPUTIES || self.has_all()
    }

    /// The room waits in vain, whatever the reason.
    pub fn has_all(self) -> bool {
        self.turns >= HUNGER_MAX / HUNGER_TICKS
    }

    pub fn has(self, piece: PieceIndex) -> bool {
        self.has_all() || (piece.0 + self.turns) % self.count == self.index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    /// The room of the machine that has `lower` machines of `others` before it, after `ticks` in
    /// which nothing arrived.
    fn room(lower: u32, others: u32, ticks: u32) -> Room {
        let mut room = Room::new();
        room.set_place(Place {
            lower,
            others,
            divided: true,
        });
        (0..ticks).for_each(|_| room.tick(0));
        room
    }

    /// Of the first 24 pieces, how many machines of a room of `count` fetch each.
    fn fetched(count: u32, ticks: u32) -> String {
        let fetch = |piece| {
            let shares = (0..count).map(|lower| room(lower, count - 1, ticks).share());
            shares.filter(|share| share.has(PieceIndex(piece))).count()
        };
        (0..24)
            .map(|piece| char::from(b'0' + fetch(piece) as u8))
            .collect()
    }

    #[test]
    fn each_piece_is_fetched_by_one_machine_of_the_room() {
        for count in [1, 2, 5, 6, 7, 9] {
            for ticks in [0, 1, HUNGER_TICKS, 3 * HUNGER_TICKS] {
                assert_eq!(fetched(count, ticks), "1".repeat(24), "{count} {ticks}");
            }
        }
        assert_eq!(fetched(9, HUNGER_MAX), "9".repeat(24));
    }

    #[test]
    fn a_hungry_room_has_other_and_more_gateways() {
        let gateways = |ticks| {
            (0..30)
                .filter(|at| room(*at, 29, ticks).share().is_gateway())
                .count()
        };
        assert_eq!([0, 8, 16, 64].map(gateways), [8, 16, 24, 30]);
        let first = |ticks| (0..30).find(|at| room(*at, 29, ticks).share().has(PieceIndex(0)));
        assert_eq!([0, 8, 16].map(first), [Some(0), Some(1), Some(2)]);
    }

    #[test]
    fn a_room_is_hungry_while_it_gets_little_of_what_it_once_got() {
        let mut room = Room::new();
        let mut fetched = 0;
        let mut after = |ticks: u32, bytes: u64| {
            for _ in 0..ticks {
                fetched += bytes;
                room.tick(fetched);
            }
            room.hunger
        };
        assert_eq!(after(5, 0), 5, "nothing has come yet");
        assert_eq!(after(50, 1000), 0);
        assert!(after(50, 100) > 20, "a trickle is not enough");
        assert_eq!(after(1000, 0), HUNGER_MAX);
        assert_eq!(after(HUNGER_MAX + 8, 500), 0);
    }
}
