//! May another block go now? One limit in bytes per second for each direction, shared by all
//! swarms of the process.
//!
//! A limit is a token bucket that may go into debt by one block: a peer that is let through takes
//! the whole block, and no other is let through before the debt is paid off. While peers want more
//! than the limit allows, the bucket opens once per THROTTLE_PAUSE, not once per block. Idle time
//! earns tokens for THROTTLE_BURST at most, so no five seconds exceed the limit by 5 %.
//!
//! Polling order must not favour a peer: in each round every peer that wants something gets the
//! same quantum, and the next round begins only when no peer is left that wants and has had less.

use core::time::Duration;

use super::load::Load;
use crate::limits::{BLOCK_BYTES, THROTTLE_BURST, THROTTLE_PAUSE, THROTTLE_QUANTUM};
use crate::units::Instant;

/// The limits of a process. The shell owns them and lends them to each method of `Swarm` that needs
/// them, so that all swarms together keep to them.
#[derive(Debug, Default)]
pub struct Throttles {
    pub up: Throttle,
    pub down: Throttle,
    pub load: Load,
}

impl Throttles {
    /// Limits in bytes per second; None is no limit.
    pub fn new(up: Option<u64>, down: Option<u64>) -> Throttles {
        let throttle = |limit: Option<u64>| limit.map(Throttle::limited).unwrap_or_default();
        Throttles {
            up: throttle(up),
            down: throttle(down),
            load: Load::default(),
        }
    }

    /// When the peers that were told to wait can be asked again.
    pub fn next(&self) -> Option<Instant> {
        [self.up.next(), self.down.next()]
            .into_iter()
            .flatten()
            .min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.up.handle_timeout(now);
        self.down.handle_timeout(now);
    }
}

/// The limit of one direction; none unless made by `limited`. Not `Clone`: a copy would be a second
/// limit.
#[derive(Debug, Default)]
pub struct Throttle(Option<Bucket>);

/// What one peer has taken of the round in which it was last served.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    round: u64,
    bytes: u64,
}

/// Calling order: `may_take` for each peer that wants a block, then `take` if the block goes. When
/// the time `next` has come, `handle_timeout`, and ask for every peer again.
///
/// Tokens are millionths of a byte: the limit in bytes per second is then the income per
/// microsecond, and nothing is ever rounded. A terabyte per second for THROTTLE_BURST is 1.1e17
/// tokens, and an `i64` holds 9.2e18.
#[derive(Debug)]
struct Bucket {
    bytes_per_second: u64,
    tokens: i64,
    /// When tokens were last added.
    at: Instant,
    /// In debt, or has not yet earned the tokens of THROTTLE_PAUSE.
    closed: bool,
    /// A peer was told to wait since the last `handle_timeout` that was due.
    waiting: bool,
    round: u64,
}

impl Throttle {
    fn limited(bytes_per_second: u64) -> Throttle {
        assert!(
            bytes_per_second > 0,
            "a limit of 0 would never let a block through"
        );
        let mut bucket = Bucket {
            bytes_per_second,
            tokens: 0,
            at: Instant(0),
            closed: false,
            waiting: false,
            round: 1,
        };
        bucket.tokens = bucket.worth(THROTTLE_BURST);
        Throttle(Some(bucket))
    }

    pub fn bytes_per_second(&self) -> Option<u64> {
        self.0.as_ref().map(|bucket| bucket.bytes_per_second)
    }

    /// Whether the peer that has taken this much of the round may take a block now. If not, `next`
    /// says when to ask again.
    #[must_use]
    pub fn may_take(&mut self, now: Instant, turn: &Turn) -> bool {
        self.0
            .as_mut()
            .is_none_or(|bucket| bucket.may_take(now, turn))
    }

    /// A block goes, after `may_take` has said yes.
    pub fn take(&mut self, turn: &mut Turn, bytes: u32) {
        let Some(bucket) = &mut self.0 else { return };
        if turn.round != bucket.round {
            *turn = Turn {
                round: bucket.round,
                bytes: 0,
            };
        }
        turn.bytes += u64::from(bytes);
        bucket.spend(i64::from(bytes));
    }

    /// These bytes came or went without a `take`.
    pub fn charge(&mut self, bytes: u32) {
        if let Some(bucket) = &mut self.0 {
            bucket.spend(i64::from(bytes));
        }
    }

    /// These bytes were taken and will not go.
    pub fn give_back(&mut self, bytes: u32) {
        if let Some(bucket) = &mut self.0 {
            bucket.spend(-i64::from(bytes));
        }
    }

    /// When the peers that were told to wait can be asked again.
    pub fn next(&self) -> Option<Instant> {
        self.0.as_ref().and_then(Bucket::next)
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(bucket) = &mut self.0 {
            bucket.handle_timeout(now);
        }
    }
}

impl Bucket {
    /// The tokens earned in this time.
    fn worth(&self, time: Duration) -> i64 {
        let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        micros.saturating_mul(i64::try_from(self.bytes_per_second).unwrap_or(i64::MAX))
    }

    fn quantum(&self) -> u64 {
        (self.worth(THROTTLE_QUANTUM) / 1_000_000).max(BLOCK_BYTES.into()) as u64
    }

    /// Adds the tokens earned since the last time, and opens if they are enough.
    fn refill(&mut self, now: Instant) {
        let earned = self.worth(now.since(self.at));
        self.tokens = self
            .tokens
            .saturating_add(earned)
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

    /// Lets waiting peers be asked again. If the bucket was open, every peer that waits has had its
    /// quantum, so a new round begins. If it was in debt, it opens again and the round goes on.
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

    /// A letter is a peer that asks for a block of 16,384 bytes. `-` is a pause of 10 ms and `|` no
    /// pause; after both `handle_timeout` is called. The answer has the letters that were let
    /// through in capitals.
    fn picture(script: &str) -> String {
        let mut throttle = Throttle::limited(RATE);
        let mut turns = [Turn::default(); 3];
        let mut now = Instant(0);
        // Spend the burst.
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
    fn a_block_goes_once_the_previous_one_is_paid_off() {
        assert_eq!(
            picture("a-a-a-a-a-a"),
            "a-A-a-a-A-a",
            "16.4 ms a block, and 10 ms of tokens first"
        );
        assert_eq!(picture("----------a"), "----------A");
    }

    #[test]
    fn polling_order_favours_no_peer() {
        assert_eq!(picture("-abc"), "-Abc");
        assert_eq!(picture("-abc--abc--abc"), "-Abc--aBc--abC");
        assert_eq!(picture("-cab--cab--cab"), "-Cab--cAb--caB");
    }

    #[test]
    fn a_single_peer_gets_a_new_round_at_once() {
        assert_eq!(picture("--------a|aa|a|a|a|"), "--------A|aa|A|a|A|");
    }

    #[test]
    fn without_a_limit_no_peer_waits() {
        let (mut throttle, mut turn) = (Throttle::default(), Turn::default());
        for _ in 0..1000 {
            assert!(throttle.may_take(Instant(0), &turn));
            throttle.take(&mut turn, BLOCK_BYTES);
        }
        assert_eq!((throttle.next(), throttle.bytes_per_second()), (None, None));
    }

    #[test]
    fn bytes_that_will_not_go_are_given_back() {
        let (mut throttle, mut turn) = (Throttle::limited(RATE), Turn::default());
        throttle.charge(100_000);
        assert!(!throttle.may_take(Instant(0), &turn));
        assert_eq!(throttle.next(), Some(Instant(10_000)));
        throttle.give_back(20_000);
        assert!(throttle.may_take(Instant(0), &turn));
        throttle.take(&mut turn, 20_000);
        // Giving back more than was ever taken does no harm.
        (0..100).for_each(|_| throttle.give_back(BLOCK_BYTES));
        throttle.charge(100_000);
        assert!(!throttle.may_take(Instant(0), &turn));
    }

    /// A bucket as one would explain it: every microsecond `rate` tokens drip in, and those that do
    /// not fit run over.
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
    fn agrees_with_a_naive_twin() {
        for seed in 0..20 {
            let rng = &mut Rng::new(seed);
            let rate = 131_072 << rng.below(14);
            let mut throttle = Throttle::limited(rate);
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
                // This peer was never served before, so rounds do not matter.
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

    /// Peers take all they are given, in an order that favours the first: within five seconds the
    /// limit is exceeded by 5 % at most and used to 95 % at least, and all get the same.
    #[test]
    fn the_rate_is_held_and_divided() {
        for (rate, greedy) in [
            (131_072, 1),
            (131_072, 7),
            (1 << 20, 16),
            (100 << 20, 3),
            (10 << 30, 2),
        ] {
            let mut throttle = Throttle::limited(rate);
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
