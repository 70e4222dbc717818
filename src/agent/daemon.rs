//! What does the daemon know of its jobs, and what does it answer?
//!
//! Every job that was added keeps its entry until the daemon ends, however the job ended. An entry
//! has the number of its job, which the reporter knows it by.

use std::path::Path;
use std::time::Duration;

use mio::Events;
use swarm_proto::text;
use swarm_proto::units::{InfoHash, Instant};

use super::control::{Control, LINE_BYTES_MAX, Line};
use super::job::Job;
use super::request::{Addition, Request};
use super::setup::{Budget, Settings, Setup, Taken};
use super::tokens::CLIENT_COUNT_MAX;
use super::{Agent, Reporter, RunError};
use crate::os::clock;
use crate::os::device::Device;
use crate::report::json_string;

/// Jobs in the life of a daemon: a disk rarely has more partitions. Their entries are in each
/// answer to `list`.
const ENTRY_COUNT_MAX: usize = 64;

/// How long opening keeps the jobs that run from their turns, and they keep it waiting at most. A
/// directory of slices may be read for minutes.
const OPENING_STEP: Duration = Duration::from_millis(10);

/// Checks a job and opens its target or source beside those of the jobs that run. An error is the
/// sentence of the refusal.
pub type Open<'a> = dyn Fn(&Addition, &mut Opening) -> Result<Setup, String> + 'a;

/// What a job that is being opened sees of the others.
pub struct Opening<'o, 'a> {
    agent: &'o mut Agent<'a>,
    events: &'o mut Events,
    /// When the jobs had their last turn.
    turned_at: Instant,
    result: Result<(), RunError>,
}

impl Opening<'_, '_> {
    /// To be called between steps that are short: gives the jobs their turns, if they had none for
    /// a while. False if nothing is to be opened any more.
    pub fn pause(&mut self) -> bool {
        let (begin, mut now) = (self.turned_at + OPENING_STEP, clock::now());
        let end = now + OPENING_STEP;
        while self.goes_on() && begin <= now && now < end {
            self.result = self.agent.turn(self.events);
            now = clock::now();
            self.turned_at = now;
            if self.events.is_empty() && self.agent.timeout(now) != Some(Duration::ZERO) {
                break;
            }
        }
        self.goes_on()
    }

    fn goes_on(&self) -> bool {
        self.result.is_ok() && !self.agent.leaving
    }

    /// Targets and sources.
    pub fn devices(&self) -> Vec<&Device> {
        self.agent.jobs.iter().map(Job::device).collect()
    }

    pub fn targets(&self) -> impl Iterator<Item = &Path> {
        let targets = self.agent.jobs.iter().filter_map(Job::target);
        targets.map(|device| &*device.path)
    }

    pub fn reporter(&mut self) -> &mut Reporter {
        self.agent.shared.reporter
    }
}

pub(super) struct Daemon<'a> {
    control: Control,
    open: &'a Open<'a>,
    settings: &'a Settings,
    budget: Budget,
    /// By the number of the job.
    entries: Vec<Entry>,
    /// A job is being opened. The others have their turns, and programs wait.
    is_opening: bool,
    /// Why the loop has ended while a job was opened.
    failed: Option<RunError>,
}

/// What `list` says of a job beside its progress.
struct Entry {
    info_hash: InfoHash,
    paused: bool,
    complete_at: Option<Instant>,
    uploaded_at: Option<Instant>,
    /// Nothing once the job has ended.
    taken: Taken,
}

impl<'a> Daemon<'a> {
    pub fn new(control: Control, open: &'a Open<'a>, settings: &'a Settings) -> Daemon<'a> {
        Daemon {
            control,
            open,
            settings,
            budget: Budget::new(settings.memory_mib),
            entries: Vec::new(),
            is_opening: false,
            failed: None,
        }
    }

    pub fn note_caller(&mut self, now: Instant) {
        self.control.note_caller(now);
    }

    pub fn note_client(&mut self, index: usize) {
        self.control.note(index);
    }

    pub fn is_opening(&self) -> bool {
        self.is_opening
    }

    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let waits = || self.control.deadline(now);
        (!self.is_opening).then(waits).flatten()
    }

    /// A job has ended. Its entry stays.
    pub fn note_end(&mut self, job: &Job, now: Instant) {
        self.note_times(job);
        let entry = &mut self.entries[job.number()];
        // It may have been complete for less than a turn.
        if job.is_complete() {
            entry.complete_at.get_or_insert(now);
        }
        self.budget.give_back(std::mem::take(&mut entry.taken));
    }

    fn note_times(&mut self, job: &Job) {
        let entry = &mut self.entries[job.number()];
        entry.complete_at = job.complete_at();
        entry.uploaded_at = job.uploaded_at();
    }
}

impl<'a> Agent<'a> {
    /// Answers one request of each program. The next one has its turn after the jobs had theirs.
    pub(super) fn answer_programs(
        &mut self,
        events: &mut Events,
        now: Instant,
    ) -> Result<(), RunError> {
        let daemon = self.daemon.as_mut();
        let Some(daemon) = daemon.filter(|daemon| !daemon.is_opening) else {
            return Ok(());
        };
        let registry = self.shared.poll.registry();
        daemon.control.handle_timeout(registry, now);
        for index in 0..CLIENT_COUNT_MAX {
            if let Some(line) = self.daemon().control.poll_line(index, now) {
                let answer = match self.answer(line, events) {
                    Ok(members) => format!("{{\"ok\":true{members}}}\n"),
                    Err(error) => {
                        format!("{{\"ok\":false,\"error\":{}}}\n", json_string(&error))
                    }
                };
                self.daemon().control.reply(index, answer);
            }
        }
        self.daemon().failed.take().map_or(Ok(()), Err)
    }

    fn daemon(&mut self) -> &mut Daemon<'a> {
        self.daemon.as_mut().expect("only a daemon is asked")
    }

    /// The members of the answer after `ok`.
    fn answer(&mut self, line: Line, events: &mut Events) -> Result<String, String> {
        // Opening a job for another program may have taken long.
        let now = clock::now();
        let line = line.ok_or_else(|| format!("a line is longer than {LINE_BYTES_MAX} bytes"))?;
        match Request::parse(&line)? {
            Request::Add(addition) => return self.add(&addition, events),
            Request::List => return Ok(self.list(now)),
            Request::Pause(info_hash) => self.pause(info_hash, now)?,
            Request::Shutdown => self.leave(now),
        }
        Ok(String::new())
    }

    fn add(&mut self, addition: &Addition, events: &mut Events) -> Result<String, String> {
        let shutting_down = || Err("the daemon is shutting down".into());
        if self.leaving {
            return shutting_down();
        }
        let daemon = self.daemon();
        if daemon.entries.len() == ENTRY_COUNT_MAX {
            return Err(format!(
                "the daemon has had {ENTRY_COUNT_MAX} jobs, start another one"
            ));
        }
        daemon.is_opening = true;
        let (open, settings) = (daemon.open, daemon.settings);
        let mut opening = Opening {
            agent: self,
            events,
            turned_at: clock::now(),
            result: Ok(()),
        };
        let opened = open(addition, &mut opening);
        let failed = opening.result.err();
        let leaving = self.leaving;
        let daemon = self.daemon();
        (daemon.is_opening, daemon.failed) = (false, failed);
        let setup = opened?;
        if leaving {
            return shutting_down();
        }
        let info_hash = setup.metainfo.info_hash;
        let taken = daemon.budget.take(&setup.metainfo)?;
        if let Err(error) = self.add_job(setup, taken.pool_bytes, settings, clock::now()) {
            self.daemon().budget.give_back(taken);
            return Err(error.to_string());
        }
        self.daemon().entries.push(Entry {
            info_hash,
            paused: false,
            complete_at: None,
            uploaded_at: None,
            taken,
        });
        Ok(format!(",\"info_hash\":\"{info_hash}\""))
    }

    fn list(&mut self, now: Instant) -> String {
        let daemon = self.daemon.as_mut().expect("only a daemon is asked");
        for job in self.jobs.iter_mut() {
            job.report(true, self.shared.reporter, now);
            daemon.note_times(job);
        }
        let mut objects = String::new();
        for (number, entry) in daemon.entries.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            objects += comma;
            objects += &entry.object(&self.shared.reporter.object(number), now);
        }
        format!(",\"jobs\":[{objects}]")
    }

    /// Ends the jobs with this torrent. Their entries stay.
    fn pause(&mut self, info_hash: InfoHash, now: Instant) -> Result<(), String> {
        let mut is_known = false;
        for entry in &mut self.daemon().entries {
            let is_meant = entry.info_hash == info_hash;
            entry.paused |= is_meant;
            is_known |= is_meant;
        }
        for job in self.jobs.iter_mut() {
            if job.info_hash() == info_hash {
                job.leave(now);
            }
        }
        match is_known {
            true => Ok(()),
            false => Err(format!("no job has the info-hash {info_hash}")),
        }
    }
}

impl Entry {
    /// `progress` is the object of the reporter; the last one of a job names the info-hash itself.
    fn object(&self, progress: &str, now: Instant) -> String {
        let seconds = |at: Option<Instant>| match at {
            Some(at) => now.since(at).as_secs().to_string(),
            None => "null".into(),
        };
        let (finished, idle) = (seconds(self.complete_at), seconds(self.uploaded_at));
        let open = progress.strip_suffix('}').expect("an object ends so");
        let info_hash = match text::contains(open, "\"info_hash\":") {
            true => String::new(),
            false => format!(",\"info_hash\":\"{}\"", self.info_hash),
        };
        format!(
            "{open}{info_hash},\"paused\":{},\"finished_secs\":{finished},\"idle_secs\":{idle}}}",
            self.paused
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::setup::tests::{leecher, metainfo, settings, zeros};
    use super::*;
    use crate::os::signal::Signals;
    use crate::os::testing::Scratch;
    use crate::report::{self, Mode};
    use std::cell::{Cell, RefCell};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    /// It asks this, and does not wait.
    fn program(path: &Path, line: &str) -> UnixStream {
        let mut program = UnixStream::connect(path).unwrap();
        program.write_all(format!("{line}\n").as_bytes()).unwrap();
        program.set_nonblocking(true).unwrap();
        program
    }

    /// Two programs ask for jobs at once. Opening each of them goes on until a job that runs has
    /// ended. Meanwhile others come, enough for all seats: nobody's answer goes to another.
    #[test]
    fn jobs_that_run_have_their_turns_while_one_is_opened() {
        let (files, settings) = (["one", "other"].map(Scratch::new), settings());
        let jobs = [
            leecher(zeros(10), &files[0]),
            leecher(metainfo(1 << 20, 1 << 18), &files[1]),
        ];
        let torrents = jobs.each_ref().map(|setup| Arc::downgrade(&setup.metainfo));
        let is_over = |job: usize| torrents[job].strong_count() == 0;
        let path = files[0].path().with_extension("socket");
        let (opening_count, others) = (Cell::new(0), RefCell::new(Vec::new()));
        let open = |addition: &Addition, opening: &mut Opening| {
            assert_eq!(opening_count.replace(1), 0, "two are opened at once");
            while others.borrow().len() < CLIENT_COUNT_MAX {
                others.borrow_mut().push(program(&path, r#"{"do":"list"}"#));
            }
            let late = clock::now() + Duration::from_secs(20);
            while !is_over(0) && clock::now() < late {
                assert!(opening.pause());
            }
            opening_count.set(0);
            Err(format!("{}: {} {}", addition.path, is_over(0), is_over(1)))
        };
        let mut reporter = report::standard(Mode::None);
        let signals = &mut Signals::new().unwrap();
        let mut agent = Agent::new(jobs.into(), &settings, signals, &mut reporter).unwrap();
        let control = Control::new(&path, agent.shared.poll.registry()).unwrap();
        agent.daemon = Some(Daemon::new(control, &open, &settings));
        agent.daemon().entries = torrents
            .each_ref()
            .map(|torrent| Entry {
                info_hash: torrent.upgrade().expect("it runs").info_hash,
                paused: false,
                complete_at: None,
                uploaded_at: None,
                taken: Taken::default(),
            })
            .into();
        let mut programs = ["/one", "/two"].map(|name| {
            let line = format!(r#"{{"do":"add","torrent":"a","path":"{name}"}}"#);
            program(&path, &line)
        });
        let mut events = Events::with_capacity(16);
        let (mut answers, mut listed) = ([String::new(), String::new()], String::new());
        for turn in 0.. {
            assert!(turn < 10_000, "the programs have {answers:?}");
            agent.turn(&mut events).unwrap();
            for (program, answer) in programs.iter_mut().zip(&mut answers) {
                // It would block while there is no answer.
                let is_closed = program.read_to_string(answer).is_ok();
                assert!(!is_closed || answer.ends_with('\n'), "closed at {answer:?}");
            }
            let mut others = others.borrow_mut();
            let _ = others
                .last_mut()
                .map(|last| last.read_to_string(&mut listed));
            if answers
                .iter()
                .chain([&listed])
                .all(|answer| answer.ends_with('\n'))
            {
                break;
            }
        }
        let expected = ["/one", "/two"]
            .map(|name| format!("{{\"ok\":false,\"error\":\"{name}: true false\"}}\n"));
        assert_eq!(answers, expected);
        assert!(listed.starts_with("{\"ok\":true,\"jobs\":["), "{listed}");
    }
}
