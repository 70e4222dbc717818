//! Who makes room for a newcomer when all seats are taken?
//!
//! The seat that moves nothing for the longest time, among those of the address with most seats. So
//! one machine cannot shut out all others by sitting on every seat, and forty machines behind one
//! address (NAT) lose seats only when seats are short, and only idle ones. An address with more
//! than half of all seats loses one to an address that has none, however busy it is.

use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use crate::units::Instant;

/// A seat that is taken.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    pub ip: IpAddr,
    /// When it last moved anything, or was taken. None: it is not displaced, but counts.
    pub idle_since: Option<Instant>,
}

/// How long a seat is kept although it is idle.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// While its address has at least two seats more than the newcomer's address.
    pub greedy: Duration,
    /// While its address has at least as many as that. None: for ever.
    pub fair: Option<Duration>,
}

/// Patience with connections that have not sent a handshake. Two hundred machines that are switched
/// on together connect within one turn of the loop, before any of their handshakes is read.
pub const GREETING_PATIENCE: Patience = Patience {
    greedy: Duration::ZERO,
    fair: Some(Duration::from_secs(1)),
};

/// The index of the seat to give to a newcomer; None if it has to go.
#[must_use]
pub fn displaced(
    now: Instant,
    newcomer: IpAddr,
    seats: &[Seat],
    patience: Patience,
) -> Option<usize> {
    let count_of = |ip| seats.iter().filter(|seat| seat.ip == ip).count();
    let counts: Vec<usize> = seats.iter().map(|seat| count_of(seat.ip)).collect();
    let own = count_of(newcomer);
    let kept = |count: usize| match count {
        _ if own == 0 && 2 * count > seats.len() => Some(Duration::ZERO),
        _ if count > own + 1 => Some(patience.greedy),
        _ if count >= own => patience.fair,
        _ => None,
    };
    let may_go = |index: &usize| {
        let kept = seats[*index].idle_since.zip(kept(counts[*index]));
        kept.is_some_and(|(since, kept)| now.since(since) >= kept)
    };
    let idle = |index: &usize| now.since(seats[*index].idle_since.unwrap_or(now));
    let candidates = (0..seats.len()).filter(may_go);
    // Of equal ones the first.
    candidates
        .rev()
        .max_by_key(|index| (counts[*index], idle(index)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        greedy: Duration::from_secs(1),
        fair: Some(Duration::from_secs(10)),
    };

    fn ip(host: u8) -> IpAddr {
        IpAddr::from([10, 77, 0, host])
    }

    /// Seats as `(host, second)`; at `u64::MAX` a seat that stays.
    fn displaced_at(second: u64, newcomer: u8, seats: &[(u8, u64)]) -> Option<usize> {
        let at = |second| Instant(second * 1_000_000);
        let seat = |(host, since): &(u8, u64)| Seat {
            ip: ip(*host),
            idle_since: (*since != u64::MAX).then(|| at(*since)),
        };
        let seats: Vec<Seat> = seats.iter().map(seat).collect();
        displaced(at(second), ip(newcomer), &seats, PATIENCE)
    }

    #[test]
    fn the_address_with_most_seats_gives_up_the_one_that_is_idle_longest() {
        let seats = [(1, 0), (2, 3), (2, 2), (2, 4), (3, u64::MAX)];
        assert_eq!(displaced_at(5, 9, &seats), Some(2));
        assert_eq!(displaced_at(5, 1, &seats), Some(2), "3 seats against 1");
        assert_eq!(displaced_at(2, 1, &seats), None, "2 has just come");
        assert_eq!(displaced_at(5, 2, &seats), None, "it takes from nobody");
        assert_eq!(displaced_at(12, 2, &seats), Some(2), "but its own place");
    }

    #[test]
    fn among_equal_addresses_only_a_long_idle_seat_makes_room() {
        let seats = [(1, 4), (2, 3), (3, 5), (4, u64::MAX)];
        assert_eq!(displaced_at(12, 9, &seats), None);
        assert_eq!(displaced_at(13, 9, &seats), Some(1));
        assert_eq!(displaced_at(13, 9, &[]), None);
        let kept = [(1, u64::MAX), (1, u64::MAX), (1, u64::MAX)];
        assert_eq!(displaced_at(99, 9, &kept), None, "they move data");
    }

    #[test]
    fn an_address_with_most_of_all_seats_makes_room_for_a_new_one_at_once() {
        let busy = [(2, 4), (2, 4), (2, 4), (1, 4), (3, 4)];
        assert_eq!(displaced_at(4, 9, &busy), Some(0), "3 of 5");
        assert_eq!(displaced_at(4, 1, &busy), None, "it has a seat");
        assert_eq!(displaced_at(4, 9, &busy[1..]), None, "2 of 4");
    }

    #[test]
    fn machines_that_come_together_do_not_displace_each_other_before_their_handshakes() {
        let seat = |host: u8| Seat {
            ip: ip(host),
            idle_since: Some(Instant(0)),
        };
        let seats: Vec<Seat> = (1..=64).map(seat).collect();
        let displaced = |second: u64| {
            displaced(
                Instant(second * 1_000_000),
                ip(99),
                &seats,
                GREETING_PATIENCE,
            )
        };
        assert_eq!((displaced(0), displaced(1)), (None, Some(0)));
    }

    /// One address takes all seats again and again, and another one comes in all the same.
    #[test]
    fn a_flood_from_one_address_displaces_only_itself() {
        let mut seats = Vec::from([(1, 0); 8]);
        seats[5] = (7, 0);
        for second in 1..100 {
            let index = displaced_at(second, 1, &seats);
            assert_ne!(index, Some(5), "second {second}");
            if let Some(index) = index {
                seats[index] = (1, second);
            }
        }
    }
}
