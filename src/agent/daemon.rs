//! What does the daemon know of its jobs, and what does it answer?
//!
//! Every job that was added keeps its entry until the daemon ends, however the job ended. An entry
//! has the number of its job, which the reporter knows it by.

use mio::Registry;
use swarm_proto::text;
use swarm_proto::units::{InfoHash, Instant};

use super::control::{Control, LINE_BYTES_MAX, Line};
use super::job::Job;
use super::request::{Addition, Request};
use super::setup::{Budget, Settings, Setup, Taken};
use super::tokens::CLIENT_COUNT_MAX;
use super::{Agent, Reporter};
use crate::os::device::Device;
use crate::report::json_string;

/// Jobs in the life of a daemon: a disk rarely has more partitions. Their entries are in each
/// answer to `list`.
const ENTRY_COUNT_MAX: usize = 64;

/// Checks a job and opens its target or source beside the devices that other jobs have open. An
/// error is the sentence of the refusal.
pub type Open<'a> = dyn Fn(&Addition, &[&Device], &mut Reporter) -> Result<Setup, String> + 'a;

pub(super) struct Daemon<'a> {
    control: Control,
    open: &'a Open<'a>,
    settings: &'a Settings,
    budget: Budget,
    /// By the number of the job.
    entries: Vec<Entry>,
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
        }
    }

    pub fn accept(&mut self, registry: &Registry, now: Instant) {
        self.control.accept(registry, now);
    }

    pub fn note_client(&mut self, index: usize) {
        self.control.note(index);
    }

    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        self.control.deadline(now)
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

impl Agent<'_> {
    /// Answers one request of each program. The next one has its turn after the jobs had theirs.
    pub(super) fn answer_programs(&mut self, now: Instant) {
        let Some(mut daemon) = self.daemon.take() else {
            return;
        };
        daemon
            .control
            .handle_timeout(self.shared.poll.registry(), now);
        for index in 0..CLIENT_COUNT_MAX {
            if let Some(line) = daemon.control.poll_line(index, now) {
                let answer = match self.answer(&mut daemon, line, now) {
                    Ok(members) => format!("{{\"ok\":true{members}}}\n"),
                    Err(error) => {
                        format!("{{\"ok\":false,\"error\":{}}}\n", json_string(&error))
                    }
                };
                daemon.control.reply(index, answer);
            }
        }
        self.daemon = Some(daemon);
    }

    /// The members of the answer after `ok`.
    fn answer(&mut self, daemon: &mut Daemon, line: Line, now: Instant) -> Result<String, String> {
        let line = line.ok_or_else(|| format!("a line is longer than {LINE_BYTES_MAX} bytes"))?;
        match Request::parse(&line)? {
            Request::Add(addition) => return self.add(daemon, &addition, now),
            Request::List => return Ok(self.list(daemon, now)),
            Request::Pause(info_hash) => self.pause(daemon, info_hash, now)?,
            Request::Shutdown => self.leave(now),
        }
        Ok(String::new())
    }

    fn add(
        &mut self,
        daemon: &mut Daemon,
        addition: &Addition,
        now: Instant,
    ) -> Result<String, String> {
        if self.leaving {
            return Err("the daemon is shutting down".into());
        }
        if daemon.entries.len() == ENTRY_COUNT_MAX {
            return Err(format!(
                "the daemon has had {ENTRY_COUNT_MAX} jobs, start another one"
            ));
        }
        let devices: Vec<&Device> = self.jobs.iter().map(Job::device).collect();
        let setup = (daemon.open)(addition, &devices, self.shared.reporter)?;
        let info_hash = setup.metainfo.info_hash;
        let taken = daemon.budget.take(&setup.metainfo)?;
        if let Err(error) = self.add_job(setup, taken.pool_bytes, daemon.settings, now) {
            daemon.budget.give_back(taken);
            return Err(error.to_string());
        }
        daemon.entries.push(Entry {
            info_hash,
            paused: false,
            complete_at: None,
            uploaded_at: None,
            taken,
        });
        Ok(format!(",\"info_hash\":\"{info_hash}\""))
    }

    fn list(&mut self, daemon: &mut Daemon, now: Instant) -> String {
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
    fn pause(
        &mut self,
        daemon: &mut Daemon,
        info_hash: InfoHash,
        now: Instant,
    ) -> Result<(), String> {
        let mut is_known = false;
        for entry in &mut daemon.entries {
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
