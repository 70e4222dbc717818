//! In which state is the agent, and what leads to the next one?
//!
//! ```text
//! Scanning ──> Downloading ──> Verifying ──> Seeding ──> Leaving ──> Over
//!                   ^──(bad pieces)──┘
//! ```
//!
//! Every state but `Over` may also lead to `Leaving`: by a signal or by a failure.

use core::time::Duration;

use super::Swarm;
use super::interface::*;
use super::leaving::{SeedingTime, Step};
use super::peer::{Peer, overdue};
use crate::policy::mesh::Ending;
use crate::units::*;

impl Swarm {
    /// Does what can go on without anything from outside: reading ahead, writing zeros and copies,
    /// the next state.
    pub(super) fn advance(&mut self, now: Instant) {
        if self.is_open() {
            if self.is_fetching() {
                self.write_copies();
                self.write_zeros();
            }
            self.flush_early();
            self.read_ahead();
            let all_read = self.read_queue.is_idle() && !self.disk.is_flushing();
            match self.state {
                State::Scanning if all_read => self.continue_scan(now),
                State::Downloading if self.have().is_full() => {
                    self.state = State::Verifying;
                    self.disk.flush();
                }
                State::Verifying if all_read && self.read_back.ripe_count() == 0 => {
                    self.end_read_back(now);
                }
                _ => {}
            }
        }
        self.try_to_leave(now);
    }

    // ---- the scan

    /// A few pieces are read first: a target that holds none of them is not read further.
    pub(super) fn scan_sample(&mut self, now: Instant) {
        let sample = self.contents.sample(&self.metainfo.layout, &mut self.rng);
        for piece in sample {
            self.read_queue.add(piece);
        }
        self.advance(now);
    }

    /// All pieces that were to be read have been.
    fn continue_scan(&mut self, now: Instant) {
        if let Some(rest) = self.scan.rest_to_read() {
            rest.present().for_each(|piece| self.read_queue.add(piece));
        }
        self.read_ahead();
        if self.read_queue.is_idle() {
            self.end_scan(now);
        }
    }

    /// Pieces that have not been read are missing.
    pub(super) fn end_scan(&mut self, now: Instant) {
        for piece in self.scan.unknown().present() {
            // One at a time: of equal pieces the first is wanted, and the others come with it.
            self.scan.resolve(piece);
            self.miss(piece);
        }
        self.state = State::Downloading;
        self.progress_at = now;
        self.advance(now);
    }

    // ---- the read-back

    /// The last flush is through.
    pub(super) fn flushed(&mut self, now: Instant) {
        match self.state {
            State::Verifying if self.config.verify => {
                self.read_back.ripen_all();
            }
            State::Verifying => self.verified(now),
            State::Leaving(_) => self.leaving.note_flushed(),
            _ => {}
        }
    }

    /// Every piece that was written has been read back; those that were bad are fetched again.
    fn end_read_back(&mut self, now: Instant) {
        if self.fail_if_bad_twice(now) {
            return;
        }
        if self.have().is_full() {
            return self.verified(now);
        }
        self.state = State::Downloading;
        self.progress_at = now;
        self.advance(now);
    }

    /// A disk on which a piece was bad twice is broken. During the download that is the end at
    /// once; afterwards the remaining pieces are read first, to count those that are bad.
    pub(super) fn fail_if_bad_twice(&mut self, now: Instant) -> bool {
        let Some((piece, bad)) = self.read_back.failed() else {
            return false;
        };
        let disk = self.disk_offset(piece);
        self.finish(now, Outcome::Failed(Failure::ReadBack { piece, disk, bad }));
        true
    }

    /// Everything is on the disk and has been read back: from now on we may say so.
    fn verified(&mut self, now: Instant) {
        self.state = State::Seeding;
        self.leaving.note_complete(now);
        self.tracker.complete(now);
        if let Some(left) = self.leaves_in(now) {
            self.tell(Event::JobEnded(left));
        }
    }

    // ---- the end

    /// SIGINT or SIGTERM: stop downloading, finish the writes in flight, flush, tell the tracker.
    pub fn leave(&mut self, now: Instant) {
        // An agent that passes on a complete and verified image has done what was asked of it.
        let outcome = match self.state {
            State::Seeding => Outcome::Complete,
            _ => Outcome::Interrupted,
        };
        self.finish(now, outcome);
    }

    /// The target cannot be relied on any more. That is the outcome, even of an agent that was
    /// leaving already.
    pub(super) fn fail(&mut self, now: Instant, failure: Failure) {
        let outcome = Outcome::Failed(failure);
        self.finish(now, outcome.clone());
        if let State::Leaving(before @ (Outcome::Complete | Outcome::Interrupted)) = &mut self.state
        {
            *before = outcome;
            self.leaving.note_flushed();
        }
        self.try_to_leave(now);
    }

    /// From here on nothing new is started.
    pub(super) fn finish(&mut self, now: Instant, outcome: Outcome) {
        if !self.is_open() {
            return;
        }
        for slot in self.peers.slots() {
            self.close(now, slot, Ending::Normal, "we are leaving");
        }
        // Only an interrupted leecher has writes to flush: a complete one has flushed, and the
        // target of a failed one is worth nothing.
        let flushed = outcome != Outcome::Interrupted || self.config.role == Role::Seeder;
        self.state = State::Leaving(outcome);
        let waits_for_tracker = self.tracker.stop(now);
        self.leaving.begin(now, waits_for_tracker, flushed);
        self.try_to_leave(now);
    }

    pub(super) fn try_to_leave(&mut self, now: Instant) {
        let State::Leaving(outcome) = &self.state else {
            return;
        };
        if !self.disk.is_idle() {
            return;
        }
        match self.leaving.next_step(now, &self.tracker) {
            Step::Flush => self.disk.flush(),
            Step::WaitForTracker => {}
            Step::Go => self.state = State::Over(outcome.clone()),
        }
    }

    /// Ends the job of a complete agent when it is time: see the documentation of the crate.
    pub(super) fn leave_if_done(&mut self, now: Instant) {
        if self.state != State::Seeding {
            return;
        }
        // A peer whose bitfield is not known yet may need nothing.
        let incomplete =
            |peer: &Peer| peer.is_live() && !peer.may_send_bitfield && !peer.is_complete();
        if self.peers.values().any(incomplete) {
            self.leaving.note_needed(now);
        }
        self.tell_of_sources(now);
        let time = SeedingTime {
            role: self.config.role,
            seed_for: self.config.seed_for,
            grace: self.config.tracker_grace,
            limits: self.config.limits,
            uploaded: self.traffic.uploaded(),
            image_bytes: self.metainfo.layout.total_bytes(),
        };
        let (tracker, mesh) = (&self.tracker, &self.mesh);
        if self.leaving.has_seeded_enough(now, time, tracker, mesh) {
            self.finish(now, Outcome::Complete);
        }
    }

    /// When a complete agent leaves, if its tracker or what is in its place is away and does not
    /// come back.
    #[must_use]
    pub fn leaves_in(&self, now: Instant) -> Option<Duration> {
        let config = &self.config;
        let follows = config.seed_for.is_none()
            && (config.role == Role::Leecher || self.tracker.has_accepted_us());
        let away = match self.tracker.exists() {
            true => self.tracker.unreachable_since(),
            false => self.mesh.sources_absent().map(|(since, _)| since),
        };
        let away = away.filter(|_| follows && self.state == State::Seeding)?;
        Some((away + config.tracker_grace).since(now))
    }

    pub(super) fn fail_if_stalled(&mut self, now: Instant) {
        if let (State::Downloading, Some(limit)) = (&self.state, self.config.stall)
            && overdue(now, self.progress_at, limit)
        {
            self.finish(now, Outcome::Failed(Failure::Stalled(limit)));
        }
    }
}
