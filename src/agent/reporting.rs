//! What does the user learn about one job: where it stands, and how it ended?

use std::net::SocketAddr;
use std::path::PathBuf;

use swarm_proto::swarm::{Event, Role, State, Swarm};
use swarm_proto::units::Instant;

use super::{Reporter, messages};
use crate::os::device::Device;
use crate::report::{self, Disk};
use crate::storage::leftovers;
use crate::target::Identity;

/// What was done to a target when it was closed.
#[derive(Default)]
pub(super) struct Closed {
    /// To its partition table.
    pub fitted: Option<String>,
    pub leftovers: leftovers::Report,
}

/// The name under which a job is reported, and what has been reported of it.
pub(super) struct Reporting {
    /// Of the job, for the reporter.
    number: usize,
    /// As the user named it.
    target: String,
    /// Of the device behind `target`.
    path: PathBuf,
    disk: Disk,
    started: Instant,
    /// When everything was on the disk and read back.
    complete_at: Option<Instant>,
    /// The state that was reported last.
    reported: Option<report::State>,
}

impl Reporting {
    pub fn new(
        number: usize,
        target: String,
        device: &Device,
        identity: &Identity,
        now: Instant,
    ) -> Reporting {
        Reporting {
            number,
            target,
            path: device.path.clone(),
            disk: Disk::of(device, identity),
            started: now,
            complete_at: None,
            reported: None,
        }
    }

    pub fn number(&self) -> usize {
        self.number
    }

    pub fn complete_at(&self) -> Option<Instant> {
        self.complete_at
    }

    /// Reports where the job stands, if that is `due` or the state is another one than before.
    pub fn update(
        &mut self,
        core: &Swarm,
        last_try: Option<&(SocketAddr, String)>,
        due: bool,
        reporter: &mut Reporter,
        now: Instant,
    ) {
        let state = self.state(core);
        if !due && self.reported == Some(state) {
            return;
        }
        self.reported = Some(state);
        if state == report::State::Seeding {
            self.complete_at.get_or_insert(now);
        }
        let waiting = core.waiting(now);
        let waiting = waiting.map(|waiting| messages::waiting(&waiting, last_try));
        let leaving = || Some(Event::JobEnded(core.leaves_in(now)?).to_string());
        let status = report::Status {
            waiting: waiting.or_else(leaving),
            ..self.status(core, state)
        };
        reporter.update(now, self.number, &status);
    }

    /// Notes the events that the core has for the log.
    pub fn note_events(&self, core: &mut Swarm, reporter: &mut Reporter) {
        while let Some(event) = core.poll_event() {
            let sentence = messages::event(&event, &self.path);
            reporter.note(&format!("{}: {sentence}", core.metainfo().name));
        }
    }

    /// Reports how the job ended; true if it is complete. `closed` is what was done to the target
    /// when it was closed, or why that failed.
    pub fn finish(
        &self,
        core: &Swarm,
        role: Role,
        closed: Result<Closed, String>,
        reporter: &mut Reporter,
        now: Instant,
    ) -> bool {
        if let Ok(Closed {
            fitted: Some(done), ..
        }) = &closed
        {
            reporter.note(&format!("{}: {done}", self.target));
        }
        let why_incomplete =
            || messages::why_incomplete(&core.progress(), self.reported, &self.path);
        let (left, failed) = match closed {
            Ok(closed) => (closed.leftovers, None),
            Err(error) => (leftovers::Report::default(), Some(error)),
        };
        let error = failed.or_else(why_incomplete);
        let complete = error.is_none();
        // A failed job is shown where it failed, a complete one at 100 %.
        let state = match complete {
            true => report::State::Done,
            false => self.state(core),
        };
        let status = self.status(core, state);
        let outcome = report::Outcome {
            wiped: left.wiped,
            remains: left.remains,
            ..self.outcome(core, role, error, now)
        };
        reporter.finish(now, self.number, &status, &outcome);
        complete
    }

    fn state(&self, core: &Swarm) -> report::State {
        match core.state() {
            State::Scanning => report::State::Scanning,
            State::Downloading => report::State::Downloading,
            State::Verifying => report::State::Verifying,
            State::Seeding => report::State::Seeding,
            // Leaving takes a moment and concerns nobody.
            State::Leaving(_) | State::Over(_) => {
                self.reported.unwrap_or(report::State::Downloading)
            }
        }
    }

    fn status(&self, core: &Swarm, state: report::State) -> report::Status {
        let progress = core.progress();
        report::Status {
            state,
            torrent: core.metainfo().name.clone(),
            target: self.target.clone(),
            disk: Some(self.disk.clone()),
            have: progress.have,
            pieces: progress.pieces,
            checked: progress.checked,
            to_check: progress.to_check,
            good: progress.verified,
            bytes: core.metainfo().layout.total_bytes(),
            fetched: progress.fetched,
            uploaded: progress.uploaded,
            fetched_wire: progress.fetched_wire,
            uploaded_wire: progress.uploaded_wire,
            peers: progress.peers,
            waiting: None,
        }
    }

    fn outcome(
        &self,
        core: &Swarm,
        role: Role,
        error: Option<String>,
        now: Instant,
    ) -> report::Outcome {
        let progress = core.progress();
        let metainfo = core.metainfo();
        report::Outcome {
            verified: error.is_none()
                && role == Role::Leecher
                && progress.verified == progress.pieces,
            good: progress.verified,
            bad_offset: progress.bad_offset.map(|offset| offset.0),
            took: self.complete_at.unwrap_or(now).since(self.started),
            bytes: metainfo.layout.total_bytes(),
            info_hash: metainfo.info_hash.to_string(),
            wiped: Vec::new(),
            remains: Vec::new(),
            error,
        }
    }
}
