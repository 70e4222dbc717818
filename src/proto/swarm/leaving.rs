//! When may a complete agent leave, and what has to happen before it is gone?
//!
//! The end of the job is described in the documentation of the crate.

use core::time::Duration;

use super::interface::{Role, SeedingLimits};
use super::peer::overdue;
use crate::limits::{LEAVING_MAX, SLOW_UPLOAD_MAX};
use crate::policy::mesh::Mesh;
use crate::policy::tracker::Tracker;
use crate::units::Instant;

#[derive(Debug)]
pub(super) struct Leaving {
    /// When everything was on the disk and verified.
    complete_at: Option<Instant>,
    /// When an incomplete peer was last connected.
    needed_at: Instant,
    /// When payload was last sent.
    uploaded_at: Option<Instant>,
    upload: UploadSpan,
    /// Until then we wait for the tracker to hear `stopped`; None: there is nothing to wait for.
    stopped_by: Option<Instant>,
    /// Everything that was written is durable, or that does not matter any more.
    flushed: bool,
}

/// The upload is fast enough while every span of SLOW_UPLOAD_MAX carries what it must carry. A span
/// ends early when it has carried that, so one fast second does not count for the minutes after it.
#[derive(Debug)]
struct UploadSpan {
    begin: Instant,
    /// Sent since `begin`.
    bytes: u64,
}

/// What decides how long a complete agent seeds.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeedingTime {
    pub(super) role: Role,
    pub(super) seed_for: Option<Duration>,
    pub(super) grace: Duration,
    pub(super) limits: SeedingLimits,
    /// Payload sent so far, and the length of the image.
    pub(super) uploaded: u64,
    pub(super) image_bytes: u64,
}

/// What an agent that leaves has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Flush,
    WaitForTracker,
    Go,
}

impl Leaving {
    pub(super) fn new(now: Instant, complete_at: Option<Instant>) -> Leaving {
        Leaving {
            complete_at,
            needed_at: now,
            uploaded_at: None,
            upload: UploadSpan {
                begin: now,
                bytes: 0,
            },
            stopped_by: None,
            flushed: false,
        }
    }

    pub(super) fn note_complete(&mut self, now: Instant) {
        self.complete_at = Some(now);
        self.upload.restart(now);
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete_at.is_some()
    }

    /// When payload was last sent.
    pub(super) fn uploaded_at(&self) -> Option<Instant> {
        self.uploaded_at
    }

    /// A block was sent.
    pub(super) fn note_uploaded(&mut self, now: Instant, bytes: u32) {
        // A seeder is started before those that fetch from it: its first span begins here.
        if self.uploaded_at.is_none() {
            self.upload.restart(now);
        }
        self.uploaded_at = Some(now);
        self.upload.bytes += u64::from(bytes);
    }

    /// An incomplete peer is connected.
    pub(super) fn note_needed(&mut self, now: Instant) {
        self.needed_at = now;
    }

    pub(super) fn has_seeded_enough(
        &mut self,
        now: Instant,
        time: SeedingTime,
        tracker: &Tracker,
        mesh: &Mesh,
    ) -> bool {
        let complete_at = self.complete_at.expect("a seeding agent is complete");
        if self.has_reached(now, complete_at, time) {
            return true;
        }
        match time.seed_for {
            Some(limit) => overdue(now, complete_at, limit),
            // A seed may be started before its tracker.
            None if time.role == Role::Seeder => tracker.has_accepted_us() && tracker.is_gone(),
            None if tracker.exists() => tracker.is_gone(),
            None if mesh.has_source() => mesh
                .sources_absent()
                .is_some_and(|(since, until)| overdue(until, since, time.grace)),
            // Nothing tells us to stop: stay as long as an incomplete peer is connected.
            None => overdue(now, self.needed_at.max(complete_at), time.grace),
        }
    }

    /// One of the limits is reached, whatever the tracker says.
    fn has_reached(&mut self, now: Instant, complete_at: Instant, time: SeedingTime) -> bool {
        let limits = time.limits;
        // A seeder waits for its first peer without end, unless `idle` says how long.
        let has_begun = time.role == Role::Leecher || self.uploaded_at.is_some();
        let slow = limits
            .min_upload
            .is_some_and(|rate| has_begun && self.upload.is_slow(now, rate));
        let passed_on = limits.ratio.is_some_and(|thousandths| {
            let wanted = u128::from(thousandths) * u128::from(time.image_bytes);
            u128::from(time.uploaded) * 1000 >= wanted
        });
        let last = self
            .uploaded_at
            .map_or(complete_at, |at| at.max(complete_at));
        let idle = limits.idle.is_some_and(|limit| overdue(now, last, limit));
        slow || passed_on || idle
    }

    /// Leaving begins. `waits_for_tracker`: a tracker has to hear `stopped`. `flushed`: there is
    /// nothing to flush.
    pub(super) fn begin(&mut self, now: Instant, waits_for_tracker: bool, flushed: bool) {
        self.stopped_by = waits_for_tracker.then_some(now + LEAVING_MAX);
        self.flushed = flushed;
    }

    /// Everything is flushed, or nothing on the target can be relied on any more.
    pub(super) fn note_flushed(&mut self) {
        self.flushed = true;
    }

    /// What to do next once the disk is idle.
    pub(super) fn next_step(&self, now: Instant, tracker: &Tracker) -> Step {
        match () {
            () if !self.flushed => Step::Flush,
            () if tracker.said_stopped() => Step::Go,
            () if self.stopped_by.is_none_or(|by| now >= by) => Step::Go,
            () => Step::WaitForTracker,
        }
    }

    /// When we stop waiting for the tracker.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.stopped_by
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.stopped_by.is_some_and(|by| now >= by) {
            // From here on only the disk is waited for, and a time in the past would make the shell
            // spin.
            self.stopped_by = None;
        }
    }

    pub(super) fn check_invariants(&self, is_leaving: bool) {
        assert!(is_leaving || (self.stopped_by.is_none() && !self.flushed));
    }
}

impl UploadSpan {
    fn restart(&mut self, now: Instant) {
        *self = UploadSpan {
            begin: now,
            bytes: 0,
        };
    }

    /// The span is over and has carried less than `rate`, in bytes per second.
    fn is_slow(&mut self, now: Instant, rate: u64) -> bool {
        if self.bytes >= rate.saturating_mul(SLOW_UPLOAD_MAX.as_secs()) {
            self.restart(now);
        }
        overdue(now, self.begin, SLOW_UPLOAD_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use alloc::vec::Vec;

    const NONE: SeedingLimits = SeedingLimits {
        min_upload: None,
        ratio: None,
        idle: None,
    };

    fn at(milliseconds: u64) -> Instant {
        Instant(milliseconds * 1000)
    }

    /// The millisecond in which an agent leaves that was complete at 10 s, is looked at four times
    /// a second, and sends `sends`: milliseconds and bytes. It gives up at 10 minutes.
    fn leaves_at(role: Role, limits: SeedingLimits, sends: &[(u64, u32)]) -> Option<u64> {
        let mut leaving = match role {
            Role::Leecher => Leaving::new(at(0), None),
            Role::Seeder => Leaving::new(at(0), Some(at(0))),
        };
        let tracker = Tracker::new(at(0), Vec::new(), Duration::from_secs(30), &mut Rng::new(1));
        let (mut uploaded, mut sends) = (0, sends.iter().peekable());
        for now in (0..600_000).step_by(250) {
            while let Some((_, bytes)) = sends.next_if(|(due, _)| *due <= now) {
                leaving.note_uploaded(at(now), *bytes);
                uploaded += u64::from(*bytes);
            }
            if now == 10_000 && role == Role::Leecher {
                leaving.note_complete(at(now));
            }
            let time = SeedingTime {
                role,
                seed_for: Some(Duration::from_secs(3600)),
                grace: Duration::from_secs(30),
                limits,
                uploaded,
                image_bytes: 1_000_000,
            };
            if leaving.is_complete()
                && leaving.has_seeded_enough(at(now), time, &tracker, &Mesh::default())
            {
                return Some(now);
            }
        }
        None
    }

    /// `bytes` at each full second of these seconds.
    fn steady(seconds: core::ops::Range<u64>, bytes: u32) -> Vec<(u64, u32)> {
        seconds.map(|second| (second * 1000, bytes)).collect()
    }

    #[test]
    fn without_a_limit_nothing_but_the_time_counts() {
        for role in [Role::Leecher, Role::Seeder] {
            assert_eq!(leaves_at(role, NONE, &steady(0..60, 1000)), None);
        }
    }

    #[test]
    fn a_slow_upload_ends_a_complete_leecher() {
        let limits = SeedingLimits {
            min_upload: Some(1000),
            ..NONE
        };
        let leaves = |sends: &[_]| leaves_at(Role::Leecher, limits, sends);
        // Before it is complete nothing counts.
        assert_eq!(leaves(&[]), Some(25_000));
        assert_eq!(leaves(&steady(0..600, 900)), Some(25_000));
        assert_eq!(leaves(&steady(0..600, 1000)), None);
        assert_eq!(leaves(&[(5000, 1_000_000)]), Some(25_000));
        // What one fast second sends is good for one span.
        assert_eq!(leaves(&[(12_000, 1_000_000)]), Some(27_000));
        // The end of a good upload is noticed within two spans.
        let left = leaves(&steady(0..100, 1000)).unwrap();
        assert!((100_000..=130_000).contains(&left), "{left}");
        let left = leaves(&steady(0..100, 20_000)).unwrap();
        assert!((114_000..=116_000).contains(&left), "{left}");
    }

    #[test]
    fn a_seeder_is_not_slow_before_its_first_upload() {
        let limits = SeedingLimits {
            min_upload: Some(1000),
            ..NONE
        };
        assert_eq!(leaves_at(Role::Seeder, limits, &[]), None);
        assert_eq!(
            leaves_at(Role::Seeder, limits, &[(300_000, 10)]),
            Some(315_000)
        );
    }

    #[test]
    fn an_image_that_was_passed_on_often_enough_is_enough() {
        let limits = |thousandths| SeedingLimits {
            ratio: Some(thousandths),
            ..NONE
        };
        let sends = steady(0..300, 10_000);
        let leaves = |thousandths| leaves_at(Role::Leecher, limits(thousandths), &sends);
        // 10,000 bytes at 0 s, too: the millionth byte goes at 99 s.
        assert_eq!(leaves(1000), Some(99_000));
        assert_eq!(leaves(1500), Some(149_000));
        assert_eq!(leaves(1), Some(10_000), "not before it is complete");
        assert_eq!(leaves(3001), None);
        assert_eq!(leaves(u32::MAX), None);
        assert_eq!(leaves_at(Role::Seeder, limits(20), &sends), Some(1000));
    }

    #[test]
    fn an_idle_agent_leaves() {
        let limits = SeedingLimits {
            idle: Some(Duration::from_secs(60)),
            ..NONE
        };
        assert_eq!(leaves_at(Role::Leecher, limits, &[]), Some(70_000));
        assert_eq!(leaves_at(Role::Leecher, limits, &[(9000, 1)]), Some(70_000));
        assert_eq!(
            leaves_at(Role::Leecher, limits, &[(12_000, 1), (71_000, 1)]),
            Some(131_000)
        );
        assert_eq!(leaves_at(Role::Seeder, limits, &[]), Some(60_000));
    }

    /// Against what the words say: over SLOW_UPLOAD_MAX less than the rate.
    #[test]
    fn it_leaves_as_slow_only_after_a_slow_span_and_soon_after_the_last_good_one() {
        const RATE: u64 = 1000;
        let limits = SeedingLimits {
            min_upload: Some(RATE),
            ..NONE
        };
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let mut sends = Vec::new();
            let mut now = 0;
            while now < 500_000 {
                now += u64::from(rng.below(4000));
                sends.push((now.next_multiple_of(250), rng.below(8000)));
            }
            let sent = |from: u64, to: u64| -> u64 {
                let span = sends.iter().filter(|(at, _)| (from..=to).contains(at));
                span.map(|(_, bytes)| u64::from(*bytes)).sum()
            };
            let span = SLOW_UPLOAD_MAX.as_millis() as u64;
            let left = leaves_at(Role::Leecher, limits, &sends);
            let end = left.unwrap_or(500_000);
            if left.is_some() {
                let bytes = sent(end - span + 1, end);
                assert!(bytes < RATE * span / 1000, "seed {seed}: {bytes} bytes");
            }
            // Two spans without a good one would have ended it.
            for from in (10_000..end.saturating_sub(2 * span)).step_by(250) {
                let bytes = sent(from, from + 2 * span);
                assert!(
                    bytes >= RATE * span / 1000,
                    "seed {seed} at {from}: {bytes}"
                );
            }
        }
    }
}
