//! May another block go now? One limit in bytes per second, held by all swarms of the process
//! together.
//!
//! A token bucket that may go into debt by one block: whoever is let through takes what it needs,
//! and nobody else is let through before that is paid off. While more is wanted than the limit
//! allows it opens every THROTTLE_PAUSE, not for every block. What was idle counts for
//! THROTTLE_BURST and no longer, so no five seconds see 5 % too much.
//!
//! Who takes first is not for the order to decide in which peers are asked: in each round everybody
//! who wants gets the same quantum, and the next round begins only when nobody is left who wants
//! and has had less.

use alloc::rc::Rc;
use core::cell::RefCell;
use core::time::Duration;

use crate::limits::{BLOCK_BYTES, THROTTLE_BURST, THROTTLE_PAUSE, THROTTLE_QUANTUM};
use crate::units::Instant;

/// No limit, unless made by `limited`. Clones are the same limit.
#[derive(Clone, Debug, Default)]
pub struct Throttle(Option<Rc<RefCell<Bucket>>>);

/// What one peer has had of the round in which it was last served.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    round: u64,
    bytes: u64,
}

/// Calling order: `may_take` for whoever wants, then `take` if it does; when `next` has come,
/// `handle_timeout`, and ask everybody again.
///
/// Tokens are counted in millionths of a byte: at so many bytes per second that is the rate per
/// microsecond, and nothing is ever rounded. A terabyte per second for THROTTLE_BURST is 1.1e17 of
/// them, and an `i64` holds 9.2e18.
#[derive(Debug)]
struct Bucket {
    bytes_per_second: u64,
    tokens: i64,
    /// When tokens were added last.
    at: Instant,
    /// In debt, or still waiting for a pause's worth.
    closed: bool,
    /// Somebody was told to wait since `next` was heeded last.
    waiting: bool,
    round: u64,
}

impl Throttle {
    pub fn limited(bytes_per_second: u64) -> Throttle {
        assert!(bytes_per_second > 0, "nothing would ever be let through");
        let mut bucket = Bucket {
            bytes_per_second,
            tokens: 0,
            at: Instant(0),
            closed: false,
            waiting: false,
            round: 1,
        };
        bucket.tokens = bucket.worth(THROTTLE_BURST);
        Throttle(Some(Rc::new(RefCell::new(bucket))))
    }

    pub fn bytes_per_second(&self) -> Option<u64> {
        self.0
            .as_ref()
            .map(|bucket| bucket.borrow().bytes_per_second)
    }

    /// Is it the turn of the peer that has had this? If not, `next` says when it may be.
    pub fn may_take(&self, now: Instant, turn: &Turn) -> bool {
        self.0
            .as_ref()
            .is_none_or(|bucket| bucket.borrow_mut().may_take(now, turn))
    }

    /// So much goes, now that `may_take` has said yes.
    pub fn take(&self, turn: &mut Turn, bytes: u32) {
        let Some(bucket) = &self.0 else { return };
        let mut bucket = bucket.borrow_mut();
        if turn.round != bucket.round {
            *turn = Turn {
                round: bucket.round,
                bytes: 0,
            };
        }
        turn.bytes += u64::from(bytes);
        bucket.spend(i64::from(bytes));
    }

    /// So much came or went without having been allowed.
    pub fn charge(&self, bytes: u32) {
        if let Some(bucket) = &self.0 {
            bucket.borrow_mut().spend(i64::from(bytes));
        }
    }

    /// So much was taken and will not go.
    pub fn give_back(&self, bytes: u32) {
        if let Some(bucket) = &self.0 {
            bucket.borrow_mut().spend(-i64::from(bytes));
        }
    }

    /// When those who were told to wait are to be asked again.
    pub fn next(&self) -> Option<Instant> {
        self.0.as_ref().and_then(|bucket| bucket.borrow().next())
    }

    pub fn handle_timeout(&self, now: Instant) {
        if let Some(bucket) = &self.0 {
            bucket.borrow_mut().handle_timeout(now);
        }
    }
}

impl Bucket {
    fn worth(&self, time: Duration) -> i64 {
        let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        micros.saturating_mul(i64::try_from(self.bytes_per_second).unwrap_or(i64::MAX))
    }

    fn quantum(&self) -> u64 {
        (self.worth(THROTTLE_QUANTUM) / 1_000_000).max(BLOCK_BYTES.into()) as u64
    }

    /// Adds what has come since the last time, and opens if that is enough.
    fn refill(&mut self, now: Instant) {
        let come = self.worth(now.since(self.at));
        self.tokens = self
            .tokens
            .saturating_add(come)
            .min(self.worth(THROTTLE_BURST));
        self.at = self.at.max(now);
        self.closed &= self.tokens < self.worth(THROTTLE_PAUSE);
    }

    fn may_take(&mut self, now: Instant, turn: &Turn) -> bool {
        self.refill(now);
        let had_enough = turn.round == self.round && turn.bytes >= self.quantum();
        let may = !self.closed && !had_enough;
        self.waiting |= !may;
        may
    }

    fn spend(&mut self, bytes: i64) {
        self.tokens = self
            .tokens
            .saturating_sub(bytes * 1_000_000)
            .min(self.worth(THROTTLE_BURST));
        self.closed |= self.tokens <= 0;
    }

    fn next(&self) -> Option<Instant> {
        let missing = if self.closed {
            self.worth(THROTTLE_PAUSE) - self.tokens
        } else {
            0
        };
        let micros = missing
            .max(0)
            .cast_unsigned()
            .div_ceil(self.bytes_per_second);
        self.waiting
            .then(|| self.at + Duration::from_micros(micros))
    }

    /// While it is open only those wait who have had their quantum, and whoever had not has just
    /// been asked: a new round.
    fn handle_timeout(&mut self, now: Instant) {
        if self.waiting && self.next().is_some_and(|at| at <= now) {
            self.round += u64::from(!self.closed);
            self.waiting = false;
            self.refill(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    const RATE: u64 = 1_000_000;

    /// A letter asks for a block of 16,384 bytes: `a`, `b`, `c` are peers. `-` is a pause of 10 ms,
    /// `|` none at all: after both, those who wait are told if the time has come. The answer has
    /// the letters that were let through in capitals.
    fn picture(script: &str) -> String {
        let throttle = Throttle::limited(RATE);
        let mut turns = [Turn::default(); 3];
        let mut now = Instant(0);
        // The burst is gone.
        throttle.charge(100_000);
        let answer = |letter: char| {
            if letter == '-' {
                now = now + Duration::from_millis(10);
            }
            if "-|".contains(letter) {
                throttle.handle_timeout(now);
            }
            let Some(turn) = "abc".find(letter).map(|place| &mut turns[place]) else {
                return letter;
            };
            if !throttle.may_take(now, turn) {
                return letter;
            }
            throttle.take(turn, BLOCK_BYTES);
            letter.to_ascii_uppercase()
        };
        script.chars().map(answer).collect()
    }

    #[test]
    fn a_block_goes_when_the_last_one_is_paid_off() {
        assert_eq!(
            picture("a-a-a-a-a-a"),
            "a-A-a-a-A-a",
            "16.4 ms a block, and 10 ms of tokens first"
        );
        assert_eq!(picture("----------a"), "----------A");
    }

    #[test]
    fn everybody_gets_the_same_whoever_is_asked_first() {
        assert_eq!(picture("-abc"), "-Abc");
        assert_eq!(picture("-abc--abc--abc"), "-Abc--aBc--abC");
        assert_eq!(picture("-cab--cab--cab"), "-Cab--cAb--caB");
    }

    #[test]
    fn who_is_alone_gets_a_new_round_at_once() {
        assert_eq!(picture("--------a|aa|a|a|a|"), "--------A|aa|A|a|A|");
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        let (throttle, mut turn) = (Throttle::default(), Turn::default());
        for _ in 0..1000 {
            assert!(throttle.may_take(Instant(0), &turn));
            throttle.take(&mut turn, BLOCK_BYTES);
        }
        assert_eq!((throttle.next(), throttle.bytes_per_second()), (None, None));
    }

    #[test]
    fn what_will_not_go_is_given_back() {
        let (throttle, mut turn) = (Throttle::limited(RATE), Turn::default());
        throttle.charge(100_000);
        assert!(!throttle.may_take(Instant(0), &turn));
        assert_eq!(throttle.next(), Some(Instant(10_000)));
        throttle.give_back(20_000);
        assert!(throttle.may_take(Instant(0), &turn));
        throttle.take(&mut turn, 20_000);
        // More than was ever taken does no harm.
        (0..100).for_each(|_| throttle.give_back(BLOCK_BYTES));
        throttle.charge(100_000);
        assert!(!throttle.may_take(Instant(0), &turn));
    }

    /// A bucket as one would explain it: every microsecond so many millionths drip in, and what
    /// does not fit runs over.
    struct Twin {
        rate: i64,
        tokens: i64,
        now: u64,
        closed: bool,
    }

    impl Twin {
        fn drips_until(&mut self, now: u64) {
            while self.now < now {
                self.now += 1;
                self.tokens = (self.tokens + self.rate).min(self.rate * 100_000);
            }
            if self.tokens >= self.rate * 10_000 {
                self.closed = false;
            }
        }

        fn spends(&mut self, bytes: i64) {
            self.tokens = (self.tokens - bytes * 1_000_000).min(self.rate * 100_000);
            if self.tokens <= 0 {
                self.closed = true;
            }
        }
    }

    #[test]
    fn it_does_what_its_naive_twin_does() {
        for seed in 0..20 {
            let rng = &mut Rng::new(seed);
            let rate = 131_072 << rng.below(14);
            let throttle = Throttle::limited(rate);
            let rate = rate as i64;
            let mut twin = Twin {
                rate,
                tokens: rate * 100_000,
                now: 0,
                closed: false,
            };
            for _ in 0..1000 {
                let pause = 1 << rng.below(16);
                twin.drips_until(twin.now + u64::from(rng.below(pause)));
                let (now, bytes) = (Instant(twin.now), 1 + rng.below(BLOCK_BYTES));
                // Never served before: rounds do not matter.
                let mut turn = Turn::default();
                let may = throttle.may_take(now, &turn);
                assert_eq!(may, !twin.closed, "seed {seed}");
                let next = throttle.next().filter(|_| !may);
                assert!(may || next.is_some_and(|at| at > now), "seed {seed}");
                match (may, rng.below(8)) {
                    (_, 0) => {
                        throttle.charge(bytes);
                        twin.spends(bytes.into());
                    }
                    (_, 1) => {
                        throttle.give_back(bytes);
                        twin.spends(-i64::from(bytes));
                    }
                    (true, _) => {
                        throttle.take(&mut turn, bytes);
                        twin.spends(bytes.into());
                    }
                    (false, _) => {}
                }
            }
        }
    }

    /// Peers that want all there is, others now and then, in an order that favours the first: in
    /// any five seconds the limit is held within 5 %, used to 95 %, and the greedy ones get the
    /// same.
    #[test]
    fn the_rate_is_held_and_divided() {
        for (rate, greedy) in [
            (131_072, 1),
            (131_072, 7),
            (1 << 20, 16),
            (100 << 20, 3),
            (10 << 30, 2),
        ] {
            let throttle = Throttle::limited(rate);
            let mut turns = vec![Turn::default(); greedy];
            let mut got = vec![0; greedy];
            let (mut now, mut wakes) = (Instant(0), 0);
            while now < Instant(5_000_000) {
                for (turn, got) in turns.iter_mut().zip(&mut got) {
                    while throttle.may_take(now, turn) {
                        throttle.take(turn, BLOCK_BYTES);
                        *got += u64::from(BLOCK_BYTES);
                    }
                }
                // The kernel wakes us up to a millisecond late.
                let next = throttle.next().expect("they want more");
                wakes += u32::from(next > now);
                now = if next > now {
                    next + Duration::from_millis(1)
                } else {
                    now
                };
                throttle.handle_timeout(now);
            }
            let (sum, even) = (got.iter().sum::<u64>(), 5 * rate / greedy as u64);
            assert!(
                (5 * rate * 95 / 100..=5 * rate * 105 / 100).contains(&sum),
                "{sum} at {rate}"
            );
            let spread = got.iter().max().unwrap() - got.iter().min().unwrap();
            assert!(spread <= even / 20 + u64::from(BLOCK_BYTES), "{got:?}");
            assert!(wakes <= 500, "{wakes} times in 5 s");
        }
    }
}
