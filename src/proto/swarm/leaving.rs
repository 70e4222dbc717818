//! When may a complete agent leave, and what has to happen before it is gone?
//!
//! The end of the job is described in the documentation of the crate.

use core::time::Duration;

use super::interface::Role;
use super::peer::overdue;
use crate::limits::LEAVING_MAX;
use crate::policy::tracker::Tracker;
use crate::units::Instant;

#[derive(Debug)]
pub(super) struct Leaving {
    /// When everything was on the disk and verified.
    complete_at: Option<Instant>,
    /// When an incomplete peer was last connected.
    needed_at: Instant,
    /// Until then we wait for the tracker to hear `stopped`; None: there is nothing to wait for.
    stopped_by: Option<Instant>,
    /// Everything that was written is durable, or that does not matter any more.
    flushed: bool,
}

/// What decides how long a complete agent seeds.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeedingTime {
    pub(super) role: Role,
    pub(super) seed_for: Option<Duration>,
    pub(super) grace: Duration,
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
            stopped_by: None,
            flushed: false,
        }
    }

    pub(super) fn note_complete(&mut self, now: Instant) {
        self.complete_at = Some(now);
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete_at.is_some()
    }

    /// An incomplete peer is connected.
    pub(super) fn note_needed(&mut self, now: Instant) {
        self.needed_at = now;
    }

    pub(super) fn has_seeded_enough(
        &self,
        now: Instant,
        time: SeedingTime,
        tracker: &Tracker,
    ) -> bool {
        let complete_at = self.complete_at.expect("a seeding agent is complete");
        match time.seed_for {
            Some(limit) => overdue(now, complete_at, limit),
            // A seed may be started before its tracker.
            None if time.role == Role::Seeder => tracker.has_accepted_us() && tracker.is_gone(),
            None if tracker.exists() => tracker.is_gone(),
            // Without a tracker nothing tells us to stop: stay as long as an incomplete peer is
            // connected.
            None => overdue(now, self.needed_at.max(complete_at), time.grace),
        }
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
