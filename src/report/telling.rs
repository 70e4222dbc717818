//! Which object is the server of `--report` told next, and when?
//!
//! One object is on its way at a time, so that they arrive in order. Of each job only the latest
//! object counts: a newer one takes the place of one that was not told yet. An object is told again
//! until the server has taken it. The pause between two tries grows, and a job that changes its
//! state ends the pause.
//!
//! Calling order: `note` whenever a job is reported, then `poll`; when it returned an object,
//! `handle_answer` with what became of it, then `poll` again. Sleep until `poll_timeout` at the
//! latest.

use std::time::Duration;

use swarm_proto::units::Instant;

use super::State;

/// What a watching person should see move.
const WORKING_INTERVAL: Duration = Duration::from_secs(5);
/// Enough to be missed when it is switched off.
const SEEDING_INTERVAL: Duration = Duration::from_secs(30);

/// Pauses between tries: 1, 2, 4, 8, then always 10 seconds. A server that was started again knows
/// the whole room ten seconds later, and is asked by 400 machines 40 times a second at most.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// See the top of the file for the calling order.
#[derive(Default)]
pub(super) struct Telling {
    jobs: Vec<Job>,
    /// What is on its way.
    sent: Option<(usize, String)>,
    /// The job after the last one that had its turn is the first to have the next turn.
    turn: usize,
    failure_count: u32,
    /// No try before this time, unless a state has changed.
    pause_until: Instant,
    state_changed: bool,
}

struct Job {
    index: usize,
    state: State,
    /// When the next object is due, if the state stays.
    due: Instant,
    /// The latest object, if it was not told yet.
    untold: Option<String>,
}

impl Telling {
    /// Job `index` is in this state. `object` is called if the server is to know.
    pub fn note(
        &mut self,
        now: Instant,
        index: usize,
        state: State,
        object: impl FnOnce() -> String,
    ) {
        let at = self.jobs.iter().position(|job| job.index == index);
        let changed = at.is_none_or(|at| self.jobs[at].state != state);
        if !changed && at.is_some_and(|at| now < self.jobs[at].due) {
            return;
        }
        let job = Job {
            index,
            state,
            due: now + interval(state),
            untold: Some(object()),
        };
        match at {
            Some(at) => self.jobs[at] = job,
            None => self.jobs.push(job),
        }
        self.state_changed |= changed;
    }

    /// The object to be sent now.
    #[must_use]
    pub fn poll(&mut self, now: Instant) -> Option<String> {
        if self.sent.is_some() || (now < self.pause_until && !self.state_changed) {
            return None;
        }
        let count = self.jobs.len();
        let at = (0..count)
            .map(|offset| (self.turn + offset) % count)
            .find(|at| self.jobs[*at].untold.is_some())?;
        let object = self.jobs[at].untold.take()?;
        self.turn = at + 1;
        self.state_changed = false;
        self.sent = Some((at, object.clone()));
        Some(object)
    }

    /// Has the server taken what `poll` returned last?
    pub fn handle_answer(&mut self, now: Instant, taken: bool) {
        let (at, object) = self.sent.take().expect("`poll` has returned an object");
        if taken {
            self.failure_count = 0;
            self.pause_until = now;
            return;
        }
        self.jobs[at].untold.get_or_insert(object);
        self.pause_until = now + (PAUSE_MIN * (1 << self.failure_count.min(8))).min(PAUSE_MAX);
        self.failure_count += 1;
    }

    /// When `poll` returns an object; `None` if there is none, or one is on its way.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waits = self.sent.is_none() && self.jobs.iter().any(|job| job.untold.is_some());
        waits.then_some(self.pause_until)
    }

    /// When `note` wants the next object of a job that goes on.
    pub fn next_note(&self) -> Option<Instant> {
        let goes_on = |job: &&Job| job.state < State::Done;
        let due = self.jobs.iter().filter(goes_on).map(|job| job.due);
        due.min()
    }

    /// The server has been told everything.
    pub fn is_finished(&self) -> bool {
        self.sent.is_none() && self.jobs.iter().all(|job| job.untold.is_none())
    }
}

fn interval(state: State) -> Duration {
    match state {
        State::Seeding => SEEDING_INTERVAL,
        _ => WORKING_INTERVAL,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::at;
    use super::*;
    use State::{Done, Downloading, Fetching, Seeding, Verifying};

    /// Notes job 0 with an object that has the time in it.
    fn note(telling: &mut Telling, milliseconds: u64, state: State) {
        let object = || format!("{state:?} {milliseconds}");
        telling.note(at(milliseconds), 0, state, object);
    }

    fn poll(telling: &mut Telling, milliseconds: u64) -> Option<String> {
        telling.poll(at(milliseconds))
    }

    /// What a server that takes everything is told, if the job is noted four times a second.
    fn told(telling: &mut Telling, from: u64, until: u64, state: State) -> Vec<String> {
        let mut told = Vec::new();
        for now in (from..until).step_by(250) {
            note(telling, now, state);
            while let Some(object) = poll(telling, now) {
                told.push(object);
                telling.handle_answer(at(now), true);
            }
        }
        told
    }

    #[test]
    fn each_state_is_told_at_once_and_then_at_its_interval() {
        let mut telling = Telling::default();
        assert_eq!(telling.poll_timeout(), None);
        let working = told(&mut telling, 0, 12_000, Downloading);
        assert_eq!(
            working,
            ["Downloading 0", "Downloading 5000", "Downloading 10000"]
        );
        let seeding = told(&mut telling, 12_000, 75_000, Seeding);
        assert_eq!(seeding, ["Seeding 12000", "Seeding 42000", "Seeding 72000"]);
        assert_eq!(telling.next_note(), Some(at(102_000)));
        assert_eq!(told(&mut telling, 75_000, 75_250, Done), ["Done 75000"]);
        assert_eq!((telling.next_note(), telling.is_finished()), (None, true));
    }

    #[test]
    fn only_the_latest_object_of_a_job_is_told() {
        let mut telling = Telling::default();
        note(&mut telling, 0, Fetching);
        note(&mut telling, 1, Downloading);
        assert_eq!(poll(&mut telling, 2).unwrap(), "Downloading 1");
        note(&mut telling, 5001, Downloading);
        note(&mut telling, 5002, Verifying);
        assert_eq!(poll(&mut telling, 5003), None, "one at a time");
        telling.handle_answer(at(5004), false);
        assert_eq!(
            poll(&mut telling, 5004).unwrap(),
            "Verifying 5002",
            "and not the one that failed"
        );
    }

    #[test]
    fn the_last_word_is_told_again_until_it_is_taken() {
        let mut telling = Telling::default();
        note(&mut telling, 0, Done);
        let (mut now, mut pauses) = (0, Vec::new());
        for _ in 0..100 {
            assert_eq!(poll(&mut telling, now).unwrap(), "Done 0");
            telling.handle_answer(at(now), false);
            let next = telling.poll_timeout().unwrap();
            assert_eq!(telling.poll(Instant(next.0 - 1)), None);
            pauses.push(next.since(at(now)).as_secs());
            now = next.0 / 1000;
        }
        assert_eq!(pauses[..6], [1, 2, 4, 8, 10, 10]);
        assert!(!telling.is_finished());
        assert!(poll(&mut telling, now).is_some());
        telling.handle_answer(at(now), true);
        assert!(telling.is_finished() && telling.poll_timeout().is_none());
    }

    #[test]
    fn a_new_state_ends_the_pause() {
        let mut telling = Telling::default();
        note(&mut telling, 0, Downloading);
        for now in [0, 1000, 3000, 7000] {
            assert!(poll(&mut telling, now).is_some());
            telling.handle_answer(at(now), false);
        }
        note(&mut telling, 7500, Downloading);
        assert_eq!(poll(&mut telling, 7501), None, "an object like the others");
        note(&mut telling, 8000, Verifying);
        assert_eq!(poll(&mut telling, 8000).unwrap(), "Verifying 8000");
        // It changes once more while the server does not answer.
        note(&mut telling, 9000, Seeding);
        telling.handle_answer(at(12_000), false);
        assert_eq!(poll(&mut telling, 12_000).unwrap(), "Seeding 9000");
    }

    #[test]
    fn jobs_take_turns() {
        let mut telling = Telling::default();
        for index in [0, 1, 2] {
            telling.note(at(0), index, Done, || index.to_string());
        }
        let mut order = Vec::new();
        for now in (0..).step_by(10_000).take(6) {
            order.push(poll(&mut telling, now).unwrap());
            telling.handle_answer(at(now), false);
        }
        assert_eq!(order, ["0", "1", "2", "0", "1", "2"]);
    }
}
