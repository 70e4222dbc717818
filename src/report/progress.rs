//! How fast does a job get on, and when is its next line due?

use std::time::Duration;

use swarm_proto::units::Instant;

use super::{State, Status};

/// A job that is complete and only waits needs no lines, but a log should show that it lives.
const IDLE_INTERVAL: Duration = Duration::from_secs(60);

/// A sentence about what is waited for is repeated after the first time, and replaced by another
/// one after the second.
const WAITING_REPEATED: Duration = Duration::from_secs(60);
const WAITING_CHANGED: Duration = Duration::from_secs(10);

/// Rates forget with this time constant: long enough to be readable, short enough to show a stall.
const RATE_SECONDS: f64 = 4.0;

/// One job as it was last reported, with its rates.
pub(super) struct Progress {
    pub(super) status: Status,
    pub(super) down: Rate,
    pub(super) up: Rate,
    /// How fast the present state gets on, in bytes of the image. It starts anew with each state.
    pub(super) advance: Rate,
    /// What was last printed of this job, and when.
    pub(super) printed: Option<(Instant, Status)>,
    /// The last object about it, once it has ended.
    pub(super) ended: Option<String>,
    /// What was last said to be waited for, and when.
    waiting: Option<(Instant, String)>,
}

impl Progress {
    pub(super) fn new(now: Instant, status: &Status) -> Progress {
        Progress {
            status: status.clone(),
            down: Rate::new(now, status.fetched),
            up: Rate::new(now, status.uploaded),
            advance: Rate::new(now, status.bytes_advanced()),
            printed: None,
            ended: None,
            waiting: None,
        }
    }

    /// A line about what is waited for, if it is due; or that it has come. If the user wants few
    /// words, it is said once.
    pub(super) fn note_waiting(&mut self, now: Instant, few_words: bool) -> Option<String> {
        if few_words && self.waiting.is_some() {
            return None;
        }
        let title = self.title();
        // A complete job has nothing to wait for but its end, and an event says that.
        let waiting = self.status.waiting.as_ref();
        let Some(waiting) = waiting.filter(|_| self.status.state < State::Seeding) else {
            let before = self.waiting.take();
            return before.map(|_| format!("{title}: goes on"));
        };
        if let Some((last, said)) = &self.waiting {
            let same = said == waiting;
            let pause = if same {
                WAITING_REPEATED
            } else {
                WAITING_CHANGED
            };
            if now.since(*last) < pause {
                return None;
            }
        }
        self.waiting = Some((now, waiting.clone()));
        Some(format!("{title}: waits: {waiting}"))
    }

    pub(super) fn record(&mut self, now: Instant, status: &Status) {
        self.down.sample(now, status.fetched);
        self.up.sample(now, status.uploaded);
        if self.status.state == status.state {
            self.advance.sample(now, status.bytes_advanced());
        } else {
            self.advance = Rate::new(now, status.bytes_advanced());
        }
        self.status.clone_from(status);
    }

    /// A change of state is due at once, other changes once per `interval`. An incomplete job
    /// counts as changing: a log must show that nothing arrives.
    pub(super) fn is_due(&self, now: Instant, interval: Duration) -> bool {
        let Some((last, printed)) = &self.printed else {
            return true;
        };
        let changing = self.status.state < State::Seeding || *printed != self.status;
        let interval = if changing { interval } else { IDLE_INTERVAL };
        printed.state != self.status.state || now.since(*last) >= interval
    }

    pub(super) fn title(&self) -> String {
        format!("{} -> {}", self.status.torrent, self.status.target)
    }

    /// Seconds until the present state ends; `None` if nothing moves.
    pub(super) fn eta_seconds(&self) -> Option<u64> {
        let (done, all) = self.status.pieces_advanced();
        let remaining = part(
            self.status.bytes,
            all.saturating_sub(done),
            self.status.pieces,
        );
        let rate = match self.status.state {
            // Blocks arrive more smoothly than pieces are completed.
            State::Downloading => self.down.bytes_per_second(),
            State::Scanning | State::Verifying => self.advance.bytes_per_second(),
            _ => return None,
        };
        (rate > 0).then(|| remaining.div_ceil(rate))
    }
}

impl Status {
    /// Pieces that the present state has done, and all that it has to do.
    pub(super) fn pieces_advanced(&self) -> (u32, u32) {
        match self.state {
            State::Scanning | State::Verifying => (self.checked, self.to_check),
            _ => (self.have, self.pieces),
        }
    }

    fn bytes_advanced(&self) -> u64 {
        part(self.bytes, self.pieces_advanced().0, self.pieces)
    }

    /// Rounded down, so that 100 % means all.
    pub(super) fn permille(&self) -> u64 {
        let (done, all) = self.pieces_advanced();
        part(1000, done, all)
    }
}

/// `whole · count / of`; 0 if `of` is 0.
pub(super) fn part(whole: u64, count: u32, of: u32) -> u64 {
    match of {
        0 => 0,
        // The quotient is at most `whole`.
        _ => (u128::from(whole) * u128::from(count.min(of)) / u128::from(of)) as u64,
    }
}

/// What is left after `seconds` of something that fades: e^(-seconds / RATE_SECONDS), as the limit
/// of (1 - x/n)^n. It is 0.05 % too low after RATE_SECONDS, and the C library's `exp` would be
/// 2.6 KiB of the agent.
fn fade(seconds: f64) -> f64 {
    const SQUARINGS: i32 = 10;
    let part = 1.0 - seconds / RATE_SECONDS / f64::from(1 << SQUARINGS);
    (0..SQUARINGS).fold(part.max(0.0), |power, _| power * power)
}

/// Bytes per second over the last few seconds. Both sums fade with time, so the start is not biased
/// towards zero.
pub(super) struct Rate {
    last: Instant,
    total: u64,
    bytes: f64,
    seconds: f64,
}

impl Rate {
    pub(super) fn new(now: Instant, total: u64) -> Rate {
        Rate {
            last: now,
            total,
            bytes: 0.0,
            seconds: 0.0,
        }
    }

    /// The new time span fades too, as if its bytes had come evenly. Otherwise, all bytes of a long
    /// gap would count as having come at its end.
    fn sample(&mut self, now: Instant, total: u64) {
        let seconds = now.since(self.last).as_secs_f64();
        let fade = fade(seconds);
        let weight = if seconds > 0.0 {
            RATE_SECONDS * (1.0 - fade) / seconds
        } else {
            1.0
        };
        self.bytes = self.bytes * fade + total.saturating_sub(self.total) as f64 * weight;
        self.seconds = self.seconds * fade + seconds * weight;
        (self.last, self.total) = (now, total);
    }

    /// Half a second is the shortest time that says anything about speed.
    pub(super) fn bytes_per_second(&self) -> u64 {
        (self.bytes / self.seconds.max(0.5)).round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, status};
    use super::*;

    #[test]
    fn a_rate_follows_a_change_and_forgets_the_past() {
        let mut rate = Rate::new(at(0), 500);
        assert_eq!(rate.bytes_per_second(), 0);
        for second in 1..=20 {
            rate.sample(at(second * 1000), 500 + second * 100);
            assert_eq!(rate.bytes_per_second(), 100, "right from the start");
        }
        rate.sample(at(24_000), 2500);
        assert!(
            (30..=40).contains(&rate.bytes_per_second()),
            "1/e after one time constant"
        );
        rate.sample(at(60_000), 2500);
        assert_eq!(rate.bytes_per_second(), 0);
        rate.sample(at(60_000), 0);
        assert_eq!(
            rate.bytes_per_second(),
            0,
            "a total that shrinks is no speed"
        );
    }

    #[test]
    fn an_empty_image_is_at_0_percent() {
        let empty = Status {
            pieces: 0,
            bytes: 0,
            ..status(State::Downloading)
        };
        assert_eq!((empty.permille(), empty.bytes_advanced()), (0, 0));
        assert_eq!(
            Status {
                have: 999,
                ..status(State::Downloading)
            }
            .permille(),
            999
        );
        assert_eq!(part(u64::MAX, u32::MAX, u32::MAX), u64::MAX);
    }
}
