//! When do we announce, to which tracker, and has the tracker gone away?
//!
//! Read first: BEP 3 (announce), BEP 12 (tiers). The answer to the last question ends the job: a
//! complete agent leaves when every tracker has been unreachable for the grace time. A tracker that
//! restarts within that time releases nobody. The time is measured from the start of the first
//! failed attempt to the start of the last one, because the tracker was only observed then.
//!
//! An answer that is no dictionary leaves it open whether there is a tracker: it is overloaded, or
//! it is gone and the proxy before it answers (502). Such answers count as a tracker that is there,
//! but not for longer than DOUBT_TIMES the grace time.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::limits::*;
use crate::rng::Rng;
use crate::units::Instant;
use crate::wire::announce::Event;

/// What we need from the tracker; it decides how often we announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Incomplete, and no peer is connected.
    Alone,
    Incomplete,
    Complete,
}

#[derive(Debug)]
pub struct Tracker {
    tiers: Vec<Vec<String>>,
    /// The tier of the next attempt, and the place in that tier.
    at: (usize, usize),
    /// Announced `started` with success.
    started: bool,
    /// Events that have to be announced, in this order.
    completed: bool,
    stopped: bool,
    in_flight: Option<(Instant, Event)>,
    next: Instant,
    last_answer: Option<Instant>,
    /// Attempts that failed since the last answer.
    failures: usize,
    /// Start of the first of them.
    failed_since: Option<Instant>,
    /// Start of the first attempt that left it open whether there is a tracker, since one certainly
    /// answered.
    doubted_since: Option<Instant>,
    /// Start of the last attempt that was not answered with peers.
    failed_until: Instant,
    /// When all trackers that refused us may be asked again.
    refused_until: Instant,
    grace: Duration,
}

impl Tracker {
    /// The tiers of the torrent; each is shuffled (BEP 12).
    pub fn new(
        now: Instant,
        mut tiers: Vec<Vec<String>>,
        grace: Duration,
        rng: &mut Rng,
    ) -> Tracker {
        tiers.retain(|tier| !tier.is_empty());
        tiers.iter_mut().for_each(|tier| rng.shuffle(tier));
        Tracker {
            tiers,
            at: (0, 0),
            started: false,
            completed: false,
            stopped: false,
            in_flight: None,
            next: now,
            last_answer: None,
            failures: 0,
            failed_since: None,
            doubted_since: None,
            failed_until: now,
            refused_until: now,
            grace,
        }
    }

    pub fn exists(&self) -> bool {
        !self.tiers.is_empty()
    }

    /// The image is complete and verified: `completed` is announced once.
    pub fn complete(&mut self, now: Instant) {
        self.completed = true;
        self.next = now;
    }

    /// `stopped` is to be announced. False if no tracker knows us, so there is nothing to wait for.
    #[must_use]
    pub fn stop(&mut self, now: Instant) -> bool {
        self.stopped = self.started && self.failed_since.is_none() && !self.is_gone();
        self.next = now;
        self.stopped
    }

    /// `stopped` has been announced, or was not needed, or could not be announced.
    pub fn said_stopped(&self) -> bool {
        !self.stopped
    }

    /// The next announce that is due: the URL of the tracker, and the event. It is followed by
    /// `answered`, `refused` or `failed`; before that there is no other.
    #[must_use]
    pub fn poll(&mut self, now: Instant, need: Need) -> Option<(&str, Event)> {
        if !self.exists() || self.in_flight.is_some() || now < self.due(need) {
            return None;
        }
        let event = match () {
            () if !self.started => Event::Started,
            () if self.completed => Event::Completed,
            () if self.stopped => Event::Stopped,
            () => Event::None,
        };
        self.in_flight = Some((now, event));
        let (tier, place) = self.at;
        Some((&self.tiers[tier][place], event))
    }

    pub fn next(&self, need: Need) -> Option<Instant> {
        (self.exists() && self.in_flight.is_none()).then(|| self.due(need))
    }

    /// When the next announce is due: at `next` after a failure or for an event, else after the
    /// interval of `need`.
    fn due(&self, need: Need) -> Instant {
        match self.last_answer {
            Some(answered) if self.failures == 0 && !self.stopped && !self.completed => {
                answered + interval(need)
            }
            _ => self.next,
        }
    }

    /// The tracker answered with peers.
    pub fn answered(&mut self, now: Instant) {
        let Some((_, event)) = self.in_flight.take() else {
            return;
        };
        match event {
            Event::Started => self.started = true,
            Event::Completed => self.completed = false,
            Event::Stopped => self.stopped = false,
            Event::None => {}
        }
        let (tier, place) = self.at;
        self.tiers[tier][..=place].rotate_right(1);
        self.at = (0, 0);
        self.last_answer = Some(now);
        self.next = now;
        self.failures = 0;
        (self.failed_since, self.doubted_since) = (None, None);
    }

    /// A server was reached and refused us. Asking again at once is useless: it is asked after the
    /// pause that it asked for, within limits. `by_tracker`: a tracker certainly wrote the answer.
    pub fn refused(&mut self, now: Instant, pause: Option<Duration>, by_tracker: bool) {
        let Some((since, event)) = self.in_flight.take() else {
            return;
        };
        self.stopped &= event != Event::Stopped;
        self.last_answer = Some(now);
        self.failures = 1;
        self.failed_since = None;
        self.failed_until = since;
        self.doubted_since = (!by_tracker).then(|| self.doubted_since.unwrap_or(since));
        let pause = pause.unwrap_or_default();
        let pause = pause.clamp(ANNOUNCE_RETRY_MAX, ANNOUNCE_BUSY_MAX);
        self.refused_until = self.refused_until.max(now + pause);
        self.next_tracker();
        self.next = match self.at {
            (0, 0) => self.refused_until,
            _ => now,
        };
        self.decide_in_time();
    }

    /// No answer. The next tracker is tried at once, and the first one again after a pause.
    pub fn failed(&mut self, now: Instant) {
        let Some((since, event)) = self.in_flight.take() else {
            return;
        };
        self.stopped &= event != Event::Stopped;
        self.failed_since.get_or_insert(since);
        self.failed_until = since;
        self.failures += 1;
        self.next_tracker();
        self.next = if self.at == (0, 0) {
            now + self.retry_pause()
        } else {
            now
        };
        self.decide_in_time();
    }

    /// The attempt that decides is made when its time has come, not up to a pause later. An attempt
    /// that began before that time does not decide, although its answer may come after it.
    fn decide_in_time(&mut self) {
        let gone = self.failed_since.map(|since| since + self.grace);
        let doubted = self.doubted_since;
        let doubted = doubted.map(|since| since + self.grace * DOUBT_TIMES);
        let all = gone.into_iter().chain(doubted);
        let ahead = all.filter(|at| *at > self.failed_until);
        self.next = ahead.fold(self.next, Instant::min);
    }

    fn next_tracker(&mut self) {
        let (tier, place) = self.at;
        self.at = match () {
            () if place + 1 < self.tiers[tier].len() => (tier, place + 1),
            () if tier + 1 < self.tiers.len() => (tier + 1, 0),
            () => (0, 0),
        };
    }

    fn retry_pause(&self) -> Duration {
        let rounds = self.failures / self.tiers.iter().map(Vec::len).sum::<usize>().max(1);
        (ANNOUNCE_RETRY_MIN * (1 << rounds.saturating_sub(1).min(8))).min(ANNOUNCE_RETRY_MAX)
    }

    /// Since when no tracker has answered; None while one does, or before all were tried.
    pub fn unreachable_since(&self) -> Option<Instant> {
        let tried_all = self.failures >= self.tiers.iter().map(Vec::len).sum();
        self.failed_since.filter(|_| tried_all)
    }

    /// A tracker has accepted us once.
    pub fn has_accepted_us(&self) -> bool {
        self.started
    }

    /// No tracker has answered for the grace time, or certainly for DOUBT_TIMES that.
    pub fn is_gone(&self) -> bool {
        let lasts = |since: Option<Instant>, limit| {
            since.is_some_and(|since| self.failed_until.since(since) >= limit)
        };
        lasts(self.unreachable_since(), self.grace)
            || lasts(self.doubted_since, self.grace * DOUBT_TIMES)
    }
}

fn interval(need: Need) -> Duration {
    match need {
        Need::Alone => ANNOUNCE_ALONE,
        Need::Incomplete => ANNOUNCE_INCOMPLETE,
        Need::Complete => ANNOUNCE_COMPLETE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000)
    }

    fn tracker(tiers: &[&[&str]]) -> Tracker {
        let owned = tiers
            .iter()
            .map(|tier| tier.iter().map(|url| String::from(*url)).collect())
            .collect();
        Tracker::new(at(0), owned, Duration::from_secs(30), &mut Rng::new(1))
    }

    #[test]
    fn started_completed_and_stopped_are_announced_once_each() {
        let mut tracker = tracker(&[&["http://a/"]]);
        assert_eq!(
            tracker.poll(at(0), Need::Alone),
            Some(("http://a/", Event::Started))
        );
        assert_eq!(tracker.poll(at(0), Need::Alone), None, "one at a time");
        tracker.answered(at(0));
        assert_eq!(tracker.poll(at(1), Need::Incomplete), None);
        assert_eq!(
            tracker.poll(at(15), Need::Incomplete),
            Some(("http://a/", Event::None))
        );
        tracker.answered(at(15));
        tracker.complete(at(16));
        assert_eq!(
            tracker.poll(at(16), Need::Complete),
            Some(("http://a/", Event::Completed))
        );
        tracker.answered(at(16));
        assert_eq!(tracker.poll(at(17), Need::Complete), None);
        assert!(tracker.stop(at(17)));
        assert_eq!(
            tracker.poll(at(17), Need::Complete),
            Some(("http://a/", Event::Stopped))
        );
        tracker.answered(at(17));
        assert!(tracker.said_stopped());
    }

    #[test]
    fn completing_and_leaving_at_once_announces_both() {
        let mut tracker = tracker(&[&["http://a/"]]);
        let _ = tracker.poll(at(0), Need::Alone);
        tracker.answered(at(0));
        tracker.complete(at(1));
        assert!(tracker.stop(at(1)));
        assert_eq!(
            tracker.poll(at(1), Need::Complete),
            Some(("http://a/", Event::Completed))
        );
        tracker.answered(at(1));
        assert_eq!(
            tracker.poll(at(1), Need::Complete),
            Some(("http://a/", Event::Stopped))
        );
    }

    #[test]
    fn the_next_tier_is_tried_at_once_and_a_tier_that_answers_stays() {
        let mut tracker = tracker(&[&["http://a/"], &["http://b/"]]);
        assert_eq!(
            tracker.poll(at(0), Need::Alone),
            Some(("http://a/", Event::Started))
        );
        tracker.failed(at(0));
        assert_eq!(tracker.unreachable_since(), None, "b was not tried yet");
        assert_eq!(
            tracker.poll(at(0), Need::Alone),
            Some(("http://b/", Event::Started))
        );
        tracker.failed(at(1));
        assert_eq!(tracker.unreachable_since(), Some(at(0)));
        assert_eq!(
            tracker.poll(at(1), Need::Alone),
            None,
            "a pause after a whole round"
        );
        assert_eq!(
            tracker.poll(at(2), Need::Alone),
            Some(("http://a/", Event::Started))
        );
        tracker.answered(at(2));
        assert_eq!(tracker.unreachable_since(), None);
    }

    #[test]
    fn a_tracker_that_refuses_does_not_hide_the_next_tier() {
        let mut tracker = tracker(&[&["http://a/"], &["http://b/"]]);
        let _ = tracker.poll(at(0), Need::Alone);
        tracker.refused(at(0), None, true);
        assert_eq!(
            tracker.poll(at(0), Need::Alone),
            Some(("http://b/", Event::Started))
        );
        tracker.refused(at(0), None, true);
        assert_eq!(
            tracker.poll(at(1), Need::Alone),
            None,
            "a pause after a whole round"
        );
        assert_eq!(
            tracker.poll(at(5), Need::Alone),
            Some(("http://a/", Event::Started))
        );
    }

    #[test]
    fn a_busy_tracker_gets_its_pause_within_limits_and_is_not_gone() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (asked, pause) in [
            (None, 5),
            (seconds(0), 5),
            (seconds(30), 30),
            (seconds(u64::MAX), 60),
        ] {
            let mut tracker = tracker(&[&["http://a/"]]);
            let _ = tracker.poll(at(0), Need::Complete);
            tracker.answered(at(0));
            for round in 1..=10 {
                let now = at(8 + (round - 1) * pause);
                assert!(tracker.poll(now, Need::Complete).is_some(), "{asked:?}");
                tracker.refused(now, asked, true);
                assert!(!tracker.is_gone());
                let before = at(8 + round * pause - 1);
                assert_eq!(tracker.poll(before, Need::Complete), None, "{asked:?}");
            }
        }
    }

    /// Announces from `from` on until the tracker is gone, for an hour at most; `refusal` says who
    /// refuses in which second, or None for no answer at all. Returns for how long.
    fn gone_after(
        tracker: &mut Tracker,
        from: u64,
        refusal: impl Fn(u64) -> Option<bool>,
    ) -> Option<u64> {
        for second in from..from + 3600 {
            if tracker.poll(at(second), Need::Complete).is_some() {
                match refusal(second) {
                    Some(by_tracker) => tracker.refused(at(second), None, by_tracker),
                    None => tracker.failed(at(second)),
                }
            }
            if tracker.is_gone() {
                return Some(second - from);
            }
        }
        None
    }

    /// The tracker is gone, and the proxy before it answers 502.
    #[test]
    fn answers_that_no_tracker_wrote_hold_a_complete_agent_only_for_a_while() {
        let new = || tracker(&[&["http://a/"]]);
        let mut tracker = new();
        let _ = tracker.poll(at(0), Need::Complete);
        tracker.answered(at(0));
        let doubtful = gone_after(&mut tracker, 8, |_| Some(false));
        assert_eq!(doubtful, Some(300), "ten times the grace time");
        assert!(!tracker.stop(at(308)), "nobody is there to hear it");
        let flapping = gone_after(&mut new(), 0, |second| (second % 7 > 2).then_some(false));
        assert_eq!(flapping, Some(303), "counted from the first answer");
        assert_eq!(gone_after(&mut new(), 0, |_| Some(true)), None);
        let overloaded = |second| Some(second % 300 > 280);
        assert_eq!(gone_after(&mut new(), 0, overloaded), None);

        let mut tracker = new();
        assert_eq!(gone_after(&mut tracker, 0, |_| Some(false)), Some(300));
        assert!(tracker.poll(at(310), Need::Complete).is_some());
        tracker.answered(at(310));
        assert!(!tracker.is_gone());
        assert_eq!(gone_after(&mut tracker, 318, |_| Some(false)), Some(300));
    }

    #[test]
    fn absence_counts_from_the_first_failed_attempt() {
        let mut tracker = tracker(&[&["http://a/"]]);
        let _ = tracker.poll(at(0), Need::Complete);
        tracker.answered(at(0));
        assert!(tracker.poll(at(8), Need::Complete).is_some());
        tracker.failed(at(18));
        assert_eq!(tracker.unreachable_since(), Some(at(8)));
        for second in 19..=37 {
            if tracker.poll(at(second), Need::Complete).is_some() {
                tracker.failed(at(second));
            }
        }
        assert!(!tracker.is_gone(), "29 s of 30");
        assert!(
            tracker.poll(at(38), Need::Complete).is_some(),
            "looks again when the time is over"
        );
        tracker.failed(at(38));
        assert!(tracker.is_gone());
        assert_eq!(tracker.unreachable_since(), Some(at(8)));
        assert!(tracker.poll(at(65), Need::Complete).is_some());
        tracker.refused(at(65), None, true);
        assert_eq!(
            tracker.unreachable_since(),
            None,
            "a tracker that refuses is a tracker that is there"
        );
    }

    #[test]
    fn an_attempt_that_fails_after_the_end_of_the_grace_time_is_repeated_at_once() {
        let mut tracker = tracker(&[&["http://a/"]]);
        assert!(tracker.poll(at(8), Need::Complete).is_some());
        tracker.failed(at(9));
        assert!(tracker.poll(at(37), Need::Complete).is_some());
        tracker.failed(at(39));
        assert!(
            !tracker.is_gone(),
            "the last attempt began after 29 s of 30"
        );
        assert!(tracker.poll(at(39), Need::Complete).is_some());
        tracker.failed(at(40));
        assert!(tracker.is_gone());
    }
}
