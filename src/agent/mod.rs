//! The event loop: in which order do the jobs of this process get their turns?
//!
//! What is ready goes to the cores as `handle_*`; what they ask for goes to sockets and disks.
//! Nothing is decided here but fairness and memory. One thread, one `mio::Poll`. Each TORRENT
//! TARGET pair is a [`Job`](job::Job) with a core, a storage and a share of the memory of its own;
//! all jobs share one listener.
//!
//! One turn of the loop: sleep until something is ready; take note of it, and of what the disks
//! have finished; read from the connections, block by block; hash, four pieces at once; then, job
//! by job, do what the core asks for until it asks for nothing.

mod announcer;
mod control;
mod daemon;
mod hashing;
mod job;
mod jobs;
mod links;
mod listener;
mod messages;
mod place;
mod reporting;
mod request;
mod setup;
mod tokens;

pub use daemon::{Open, Opening};
pub use messages::RunError;
pub use request::Addition;
pub use setup::{Settings, Setup, divide_memory};

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll};
use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::limits::BLOCK_BYTES;
use swarm_proto::policy::throttle::Throttles;
use swarm_proto::units::Instant;
use swarm_proto::wire::message::Handshake;

use crate::net::dns::Resolver;
use crate::net::packer::Packer;
use crate::net::peer_socket::PeerSocket;
use crate::os::clock;
use crate::os::signal::Signals;
use crate::os::start;
use crate::report;
use control::Control;
use daemon::Daemon;
use job::Job;
use jobs::Jobs;
use listener::Listener;
use place::JobIndex;
use tokens::Origin;

/// Events taken from the kernel in one turn.
const EVENTS_PER_TURN: usize = 256;

pub type Reporter = report::Standard;

/// Runs all pairs to their end; true if each of them is complete. Every failure of a pair has been
/// reported by then.
pub fn run(
    setups: Vec<Setup>,
    settings: &Settings,
    signals: &mut Signals,
    reporter: &mut Reporter,
) -> Result<bool, RunError> {
    Agent::new(setups, settings, signals, reporter)?.run()
}

/// Runs the jobs that programs add at the socket `path`, until one of them or a signal ends that.
/// True if each of them is complete. `open` checks a job and opens its target or source.
pub fn serve(
    path: &Path,
    open: &Open,
    settings: &Settings,
    signals: &mut Signals,
    reporter: &mut Reporter,
) -> Result<bool, RunError> {
    let mut agent = Agent::new(Vec::new(), settings, signals, reporter)?;
    let control = Control::new(path, agent.shared.poll.registry())?;
    agent.daemon = Some(Daemon::new(control, open, settings));
    agent.run()
}

struct Agent<'a> {
    shared: Shared<'a>,
    signals: &'a mut Signals,
    listener: Listener,
    jobs: Jobs,
    daemon: Option<Daemon<'a>>,
    /// False as soon as a job has ended and is not complete.
    all_complete: bool,
    /// When every job is reported, whether or not its state has changed.
    report_at: Instant,
    /// The jobs were told to leave.
    leaving: bool,
}

/// What all jobs use together.
struct Shared<'a> {
    poll: Poll,
    reporter: &'a mut Reporter,
    resolver: Resolver,
    throttles: Throttles,
    packer: Packer,
    /// Payload that no core wants is received into this, and compressed payload is copied to it.
    scratch: Vec<u8>,
    /// Say why each connection was closed.
    verbose: bool,
}

impl<'a> Agent<'a> {
    fn new(
        setups: Vec<Setup>,
        settings: &Settings,
        signals: &'a mut Signals,
        reporter: &'a mut Reporter,
    ) -> Result<Agent<'a>, RunError> {
        let shared = Shared::new(settings, reporter)?;
        let registry = shared.poll.registry();
        let listener = Listener::new(settings, registry)?;
        let mut signals_fd = SourceFd(&signals.fd());
        registry.register(&mut signals_fd, Origin::Signals.token(), Interest::READABLE)?;
        if let Some(fd) = shared.reporter.server_fd() {
            let token = Origin::Report.token();
            registry.register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        }
        let now = clock::now();
        let mut agent = Agent {
            shared,
            signals,
            listener,
            jobs: Jobs::default(),
            daemon: None,
            all_complete: true,
            report_at: now,
            leaving: false,
        };
        if !setups.is_empty() {
            let metainfos: Vec<&Metainfo> = setups.iter().map(|setup| &*setup.metainfo).collect();
            let pool_bytes = divide_memory(&metainfos, settings.memory_mib)?;
            for setup in setups {
                agent.add_job(setup, pool_bytes, settings, now)?;
            }
        }
        Ok(agent)
    }

    /// Starts a job in a free slot.
    fn add_job(
        &mut self,
        setup: Setup,
        pool_bytes: u64,
        settings: &Settings,
        now: Instant,
    ) -> Result<JobIndex, RunError> {
        let place = self.jobs.free_place(pool_bytes);
        let port = self.listener.port()?;
        let job = Job::new(setup, place, settings, port, &self.shared, now)?;
        self.jobs.insert(place, job);
        Ok(place.index)
    }

    fn run(&mut self) -> Result<bool, RunError> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        while !self.jobs.is_empty() || (self.daemon.is_some() && !self.leaving) {
            self.turn(&mut events)?;
        }
        Ok(self.all_complete)
    }

    fn turn(&mut self, events: &mut Events) -> Result<(), RunError> {
        let before = clock::now();
        let is_opening = self.daemon.as_ref().is_some_and(Daemon::is_opening);
        let timeout = match is_opening {
            true => Some(Duration::ZERO),
            false => self.timeout(before),
        };
        match self.shared.poll.poll(events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        let now = clock::now();
        self.shared.throttles.load.note_turn(now, now.since(before));
        for event in &*events {
            self.note(event, now)?;
        }
        let Agent {
            shared,
            listener,
            jobs,
            ..
        } = self;
        jobs.iter_mut().for_each(|job| job.receive(shared, now));
        listener.handle_timeout(shared.poll.registry(), now);
        jobs.iter_mut()
            .for_each(|job| job.handle_timeout(shared, now));
        jobs.iter_mut().for_each(|job| job.advance_done(now));
        for index in self.jobs.indexes() {
            self.settle(index, now);
        }
        self.answer_programs(events, now)?;
        self.report(now);
        Ok(())
    }

    /// How long to sleep if nothing happens.
    fn timeout(&self, now: Instant) -> Option<Duration> {
        let jobs = self
            .jobs
            .iter()
            .filter_map(|job| job.next_turn(&self.shared.throttles, now));
        let daemon = self.daemon.as_ref().and_then(|daemon| daemon.deadline(now));
        let first = jobs
            .chain(daemon)
            .chain(self.listener.deadline())
            .chain([self.report_at])
            .chain(self.shared.reporter.tell_deadline())
            .min()?;
        Some(first.since(now))
    }

    /// Takes note of one event. Links are read later, each in its turn.
    fn note(&mut self, event: &Event, now: Instant) -> Result<(), RunError> {
        let Agent {
            shared,
            listener,
            jobs,
            ..
        } = self;
        match Origin::of(event.token()) {
            Origin::Listener => listener.accept(shared.poll.registry(), now),
            Origin::Signals => self.take_signals(now)?,
            Origin::Report => shared.reporter.tell(now, true),
            Origin::Control => {
                if let Some(daemon) = &mut self.daemon {
                    daemon.note_caller(now);
                }
            }
            Origin::Client(index) => {
                if let Some(daemon) = &mut self.daemon {
                    daemon.note_client(index);
                }
            }
            Origin::Newcomer(index) => {
                if let Some((conn, handshake)) = listener.read(index, event, shared) {
                    self.welcome(conn, &handshake, now);
                }
            }
            Origin::Storage(index) => {
                if let Some(job) = jobs.get_mut(index) {
                    job.advance_storage(now);
                }
            }
            Origin::Announce(index) => {
                if let Some(job) = jobs.get_mut(index) {
                    job.advance_announce(shared, now);
                }
            }
            Origin::Peer(index, peer) => {
                if let Some(job) = jobs.get_mut(index) {
                    job.note_socket_event(peer, event);
                }
            }
        }
        Ok(())
    }

    fn take_signals(&mut self, now: Instant) -> Result<(), RunError> {
        while self.signals.poll().is_some() {
            // A second signal does not wait for the jobs.
            if self.signals.count() > 1 {
                return Err(RunError::Impatient);
            }
            self.leave(now);
        }
        Ok(())
    }

    fn leave(&mut self, now: Instant) {
        self.leaving = true;
        self.jobs.iter_mut().for_each(|job| job.leave(now));
    }

    /// Gives a connection to a job with the torrent that its handshake names, or closes it. One
    /// torrent may go onto several targets: the first job that has room takes the connection.
    fn welcome(&mut self, conn: PeerSocket, handshake: &Handshake, now: Instant) {
        for job in self.jobs.iter_mut() {
            if let Some(peer) = job.admit(conn.address(), &handshake.info_hash, now) {
                return job.adopt(peer, conn, handshake, &mut self.shared, now);
            }
        }
    }

    /// Does what the core of a job asks for; a job that is over gives back its slot.
    fn settle(&mut self, index: JobIndex, now: Instant) {
        let Some(job) = self.jobs.get_mut(index) else {
            return;
        };
        job.hash(now);
        job.settle(&mut self.shared, now);
        if job.is_over()
            && let Some(job) = self.jobs.remove(index)
        {
            if let Some(daemon) = &mut self.daemon {
                daemon.note_end(&job, now);
            }
            self.all_complete &= job.finish(&mut self.shared, now);
        }
    }

    fn report(&mut self, now: Instant) {
        let reporter = &mut *self.shared.reporter;
        let due = self.report_at <= now;
        for job in self.jobs.iter_mut() {
            job.report(due, reporter, now);
        }
        if due {
            self.report_at = reporter.next_wakeup(now).unwrap_or(Instant(u64::MAX));
        }
        reporter.tell(now, false);
    }
}

impl<'a> Shared<'a> {
    fn new(settings: &Settings, reporter: &'a mut Reporter) -> io::Result<Shared<'a>> {
        Ok(Shared {
            poll: Poll::new()?,
            reporter,
            resolver: Resolver::default(),
            throttles: Throttles::new(settings.max_up, settings.max_down),
            packer: Packer::new(),
            scratch: vec![0; BLOCK_BYTES as usize],
            verbose: start::is_set(c"SWARMDD_DEBUG"),
        })
    }

    /// A connection to a peer was closed.
    fn note_closed(&mut self, address: SocketAddr, why: &dyn fmt::Display) {
        if self.verbose {
            self.reporter.note(&format!("peer {address}: {why}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::setup::tests::{leecher, metainfo, settings, zeros};
    use super::*;
    use crate::os::testing::Scratch;
    use crate::report::Mode;
    use std::sync::Arc;

    /// One job ends and another one takes its slot, while a third job waits for a peer that never
    /// comes.
    #[test]
    fn a_job_that_has_ended_leaves_its_slot_to_another_job() {
        const TURNS_MAX: u32 = 10_000;
        let (files, settings) = (["first", "waits", "later"].map(Scratch::new), settings());
        let first = leecher(zeros(10), &files[0]);
        let waits = leecher(metainfo(1 << 20, 1 << 18), &files[1]);
        let later = leecher(zeros(20), &files[2]);
        let torrents = [&first, &waits, &later].map(|setup| Arc::downgrade(&setup.metainfo));
        let in_memory = || {
            torrents
                .each_ref()
                .map(|torrent| torrent.strong_count() > 0)
        };

        let mut reporter = report::standard(Mode::None);
        let signals = &mut Signals::new().unwrap();
        let mut agent = Agent::new(vec![first, waits], &settings, signals, &mut reporter).unwrap();
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        let mut run_to_end = |agent: &mut Agent, index| {
            for turn in 0.. {
                assert!(turn < TURNS_MAX, "job {index:?} does not end");
                agent.turn(&mut events).unwrap();
                if agent.jobs.get_mut(index).is_none() {
                    break;
                }
            }
        };
        run_to_end(&mut agent, JobIndex(0));
        assert_eq!(in_memory(), [false, true, true]);

        let now = clock::now();
        let index = agent.add_job(later, 1 << 20, &settings, now).unwrap();
        assert_eq!(index, JobIndex(0));
        run_to_end(&mut agent, index);
        assert_eq!(in_memory(), [false, true, false]);
        assert!(agent.jobs.get_mut(JobIndex(1)).is_some());
        assert!(agent.all_complete);
    }
}
