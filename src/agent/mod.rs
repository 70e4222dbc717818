//! The event loop: what is ready goes to the cores as `handle_*`, what they want done goes to
//! sockets and disks.
//!
//! Nothing is decided here but fairness and memory. One thread, one `mio::Poll`; each TORRENT
//! TARGET pair is a [`Job`] with a core, a disk and a share of the memory of its own, and all jobs
//! have one listener together.
//!
//! One turn of the loop: sleep until something is ready; read from the connections that are, block
//! by block; take what the disks have finished; hash, two pieces at once; then, job by job, do what
//! the core asks for until it asks for nothing. A connection that always has more gets a bounded
//! part of each turn.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::limits::{ANNOUNCE_BYTES_MAX, BLOCK_BYTES, GREETING_MAX, HASH_PATIENCE};
use swarm_proto::policy::throttle::Throttles;
use swarm_proto::swarm::{
    self, Config, DiskError, DiskOperation, Failure, Outcome, Pairing, Role, ScanPolicy, State,
    Swarm,
};
use swarm_proto::units::{Instant, PeerId, PeerSlot};
use swarm_proto::wire::announce::Answer;
use swarm_proto::wire::message::Handshake;

use crate::net::fetch::{Exchange, Haste, Resolver};
use crate::net::peer_socket::{Conn, ConnError, Input, Opening};
use crate::os::blockdev::{Device, Kind};
use crate::os::clock;
use crate::os::errno;
use crate::os::net;
use crate::os::pool::Pool;
use crate::os::signal::Signals;
use crate::report;
use crate::storage::disk::Storage;
use crate::storage::hasher::Hasher;
use crate::storage::partition_table;
use crate::target::Identity;

/// What the process needs besides pool and metainfo: measured, 0.7 MiB for the program and 0.5 MiB
/// for 80 connections at rest. The rest is for the queues of peers that ask for much and read
/// slowly, at most 0.4 MiB each.
const RESERVE_BYTES: u64 = 10 << 20;

/// Ports tried from the one of `--listen` on.
const PORT_COUNT: u16 = 100;

/// Connections that have not named a torrent yet. More are closed at once: whoever is meant to be
/// here tries again.
const GUEST_COUNT_MAX: usize = 64;

/// Messages or blocks taken from one connection in one turn: 1 MiB of blocks, well under a
/// millisecond of copying.
const INPUTS_PER_TURN: usize = 64;

/// Rounds of queueing and sending to one connection in one turn: 1 MiB of blocks.
const FLUSHES_PER_TURN: usize = 4;

/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 64;

/// Pause after the kernel could give no connection (out of descriptors, out of memory). It must be
/// we who try again: with a full backlog it drops whoever calls, and nobody is left to make another
/// edge.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Pause after the kernel had no memory for a disk request while none was in flight.
const SUBMIT_PAUSE: Duration = Duration::from_millis(100);

const LISTENER: Token = Token(0);
const SIGNALS: Token = Token(1);
/// From here on two tokens for each job, its disk and its announce.
const JOB_TOKENS: usize = 2;
/// From here on one token for each connection.
const LINK_TOKENS: usize = 1 << 20;

/// One TORRENT TARGET (or SOURCE) pair, ready to run.
pub struct Setup {
    pub metainfo: Arc<Metainfo>,
    pub device: Device,
    /// What is known of the disk.
    pub identity: Identity,
    /// As the user named it.
    pub target: String,
    pub role: Role,
    /// `Config::scan` is `BeforeUse`.
    pub look: bool,
}

/// What all pairs have in common.
pub struct Settings {
    pub listen: SocketAddr,
    pub peers: Vec<SocketAddr>,
    pub memory_mib: u32,
    pub verify: bool,
    pub tracker_grace: Duration,
    pub seed_for: Option<Duration>,
    pub stall: Option<Duration>,
    /// Bytes per second of all pairs together.
    pub max_up: Option<u64>,
    pub max_down: Option<u64>,
    /// Enlarge the last partition to the end of the disk.
    pub grow_last: bool,
}

pub type Reporter = report::Standard;

/// Runs all pairs to their end; true if each of them is complete. Whatever failed has been reported
/// by then.
pub fn run(
    setups: Vec<Setup>,
    settings: &Settings,
    signals: Signals,
    reporter: &mut Reporter,
) -> Result<bool, RunError> {
    let mut runner = Runner::new(setups, settings, signals, reporter)?;
    runner.run()?;
    Ok(runner
        .jobs
        .iter()
        .all(|job| job.swarm.state() == &State::Over(Outcome::Complete) && !job.failed))
}

/// Bytes of pool for each of these torrents, or why that is not enough. Every job gets the same
/// share.
pub fn divide_memory(metainfos: &[&Metainfo], memory_mib: u32) -> Result<u64, RunError> {
    assert!(!metainfos.is_empty());
    let jobs = metainfos.len() as u64;
    let kept: u64 = RESERVE_BYTES
        + metainfos
            .iter()
            .map(|metainfo| metainfo_bytes(metainfo))
            .sum::<u64>();
    let share = (u64::from(memory_mib) << 20).saturating_sub(kept) / jobs;
    let needed = metainfos
        .iter()
        .map(|metainfo| pool_bytes_min(metainfo))
        .max()
        .unwrap_or(0);
    if share < needed {
        let needed_mib = (kept + jobs * needed).div_ceil(1 << 20);
        return Err(RunError::Memory {
            memory_mib,
            needed_mib,
        });
    }
    Ok(share)
}

fn pool_bytes_min(metainfo: &Metainfo) -> u64 {
    let layout = &metainfo.layout;
    u64::from(swarm::buffer_count_min(layout)) * u64::from(swarm::buffer_bytes(layout))
}

/// What the core keeps for a torrent: measured, 43 bytes a piece, and 60 if all are equal; 4 to 8
/// more in each of the lists of what is to be read, written and told; a bit of it for each of 80
/// peers; and the extents.
fn metainfo_bytes(metainfo: &Metainfo) -> u64 {
    96 * u64::from(metainfo.layout.piece_count()) + 24 * metainfo.extents.extents().len() as u64
}

struct Runner<'a> {
    poll: Poll,
    listener: TcpListener,
    signals: Signals,
    reporter: &'a mut Reporter,
    resolver: Resolver,
    jobs: Vec<Job>,
    throttles: Throttles,
    /// All connections. A link keeps its index until it is dropped.
    links: Vec<Option<Link>>,
    /// Links that may have something to read, each once.
    ready: VecDeque<usize>,
    /// Payload that nobody wants ends here.
    waste: Vec<u8>,
    report_at: Instant,
    /// When to look at the listener again though it has said nothing.
    accept_at: Option<Instant>,
    leaving: bool,
    /// Say why each connection ended.
    verbose: bool,
}

/// One core with all that it commands.
struct Job {
    swarm: Swarm,
    // Before the pool: dropping the disk waits for the kernel to be done with the buffers.
    disk: Option<Storage>,
    pool: Pool,
    hasher: Hasher,
    /// When what is there of one piece will have waited long enough for a second one.
    hash_by: Option<Instant>,
    /// The link of each slot.
    slots: Vec<Option<usize>>,
    announce: Option<Exchange>,
    target: String,
    /// Of the device behind it.
    path: PathBuf,
    role: Role,
    identity: Identity,
    grow_last: bool,
    started: Instant,
    /// When everything was on the disk and read back.
    complete_at: Option<Instant>,
    reported: Option<report::State>,
    /// `Over`, reported, and the target is closed.
    finished: bool,
    /// Complete, and then something failed at the very end.
    failed: bool,
}

struct Link {
    conn: Conn,
    owner: Owner,
    /// Stands in `Runner::ready`.
    queued: bool,
}

#[derive(Clone, Copy)]
enum Owner {
    /// Has not said yet which torrent it wants.
    Guest {
        until: Instant,
    },
    Peer {
        job: usize,
        slot: PeerSlot,
    },
}

impl<'a> Runner<'a> {
    fn new(
        setups: Vec<Setup>,
        settings: &Settings,
        signals: Signals,
        reporter: &'a mut Reporter,
    ) -> Result<Runner<'a>, RunError> {
        let metainfos: Vec<&Metainfo> = setups.iter().map(|setup| &*setup.metainfo).collect();
        let share = divide_memory(&metainfos, settings.memory_mib)?;
        let poll = Poll::new()?;
        let address = settings.listen;
        let mut listener = net::listen_next_free(address, PORT_COUNT)
            .map_err(|error| RunError::Listen { address, error })?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        poll.registry()
            .register(&mut SourceFd(&signals.fd()), SIGNALS, Interest::READABLE)?;
        let port = listener.local_addr()?.port();
        let now = clock::now();
        let mut jobs = Vec::new();
        for (index, setup) in setups.into_iter().enumerate() {
            let job = Job::new(setup, settings, share, port, now)?;
            let fd = job.disk.as_ref().expect("just made").event_fd();
            poll.registry()
                .register(&mut SourceFd(&fd), disk_token(index), Interest::READABLE)?;
            jobs.push(job);
        }
        Ok(Runner {
            poll,
            listener,
            signals,
            reporter,
            resolver: Resolver::default(),
            jobs,
            throttles: Throttles::new(settings.max_up, settings.max_down),
            links: Vec::new(),
            ready: VecDeque::new(),
            waste: vec![0; BLOCK_BYTES as usize],
            report_at: now,
            accept_at: None,
            leaving: false,
            verbose: std::env::var_os("SWARMDD_DEBUG").is_some(),
        })
    }

    fn run(&mut self) -> Result<(), RunError> {
        let mut events = Events::with_capacity(256);
        while !self.jobs.iter().all(|job| job.finished) {
            let timeout = self.timeout(clock::now());
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(error.into());
                }
                _ => {}
            }
            let now = clock::now();
            for event in &events {
                self.note(event, now)?;
            }
            self.read_links(now);
            self.watch_clock(now);
            // Zeros that a disk makes by itself take no time, and so many of them a turn that the
            // others have theirs.
            self.jobs
                .iter_mut()
                .filter(|job| job.has_done_already())
                .for_each(|job| job.advance_disk(now));
            for job in 0..self.jobs.len() {
                self.jobs[job].hash_some(now);
                self.settle(job, now);
            }
            self.report(now);
        }
        Ok(())
    }

    /// How long nothing needs to be done if nothing happens.
    fn timeout(&self, now: Instant) -> Option<Duration> {
        if !self.ready.is_empty() || self.jobs.iter().any(Job::has_done_already) {
            return Some(Duration::ZERO);
        }
        let stuck = self
            .jobs
            .iter()
            .filter_map(|job| job.disk.as_ref())
            .any(Storage::is_stuck);
        let submit = stuck.then(|| now + SUBMIT_PAUSE);
        let cores = self
            .jobs
            .iter()
            .filter(|job| !job.finished)
            .filter_map(|job| job.swarm.poll_timeout(&self.throttles));
        let announces = self
            .jobs
            .iter()
            .filter_map(|job| job.announce.as_ref())
            .map(Exchange::deadline);
        let guests = self
            .links
            .iter()
            .flatten()
            .filter_map(|link| match link.owner {
                Owner::Guest { until } => Some(until),
                Owner::Peer { .. } => None,
            });
        let first = cores
            .chain(announces)
            .chain(guests)
            .chain(self.jobs.iter().filter_map(|job| job.hash_by))
            .chain(self.accept_at)
            .chain(submit)
            .chain([self.report_at])
            .min()?;
        Some(first.since(now))
    }

    /// Takes note of one event; connections are read later, in turn.
    fn note(&mut self, event: &mio::event::Event, now: Instant) -> Result<(), RunError> {
        match event.token() {
            LISTENER => self.accept(now),
            SIGNALS => self.take_signals(now)?,
            Token(token) if token >= LINK_TOKENS => {
                let index = token - LINK_TOKENS;
                // The event of a link that was dropped in this turn may be given to its successor:
                // that one finds nothing to read, and no harm is done.
                if let Some(link) = self.links[index].as_mut() {
                    link.conn.ready(event);
                    self.queue(index);
                }
            }
            Token(token) => {
                let job = (token - JOB_TOKENS) / 2;
                match disk_token(job) == Token(token) {
                    true => self.jobs[job].advance_disk(now),
                    false => self.advance_announce(job, now),
                }
            }
        }
        Ok(())
    }

    fn take_signals(&mut self, now: Instant) -> Result<(), RunError> {
        while self.signals.poll().is_some() {
            if self.leaving {
                return Err(RunError::Impatient);
            }
            self.leaving = true;
            self.jobs.iter_mut().for_each(|job| job.swarm.leave(now));
        }
        Ok(())
    }

    fn watch_clock(&mut self, now: Instant) {
        if self.accept_at.is_some_and(|due| due <= now) {
            self.accept(now);
        }
        for index in 0..self.jobs.len() {
            let job = &mut self.jobs[index];
            if !job.finished
                && job
                    .swarm
                    .poll_timeout(&self.throttles)
                    .is_some_and(|due| due <= now)
            {
                job.swarm.handle_timeout(now, &mut self.throttles);
            }
            if job
                .announce
                .as_ref()
                .is_some_and(|exchange| exchange.deadline() <= now)
            {
                self.advance_announce(index, now);
            }
        }
        for index in 0..self.links.len() {
            if matches!(self.links[index], Some(Link { owner: Owner::Guest { until }, .. }) if until <= now)
            {
                self.links[index] = None;
            }
        }
    }

    // ---- connections ----

    fn accept(&mut self, now: Instant) {
        self.accept_at = None;
        for _ in 0..ACCEPTS_PER_TURN {
            let (stream, address) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Reset while it waited (accept(2)): the next one may do.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                // Too many open files, or no memory; and network errors of the new connection
                // (accept(2)).
                Err(_) => {
                    self.accept_at = Some(now + ACCEPT_PAUSE);
                    return;
                }
            };
            let guests = self
                .links
                .iter()
                .flatten()
                .filter(|link| matches!(link.owner, Owner::Guest { .. }));
            if guests.count() >= GUEST_COUNT_MAX {
                continue;
            }
            // One address for one machine, whether it came over IPv4 or IPv6.
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            if let Ok(conn) = Conn::accepted(stream, address) {
                let _ = self.add_link(
                    conn,
                    Owner::Guest {
                        until: now + GREETING_MAX,
                    },
                );
            }
        }
        // There may be more, and their edge is behind us: wait for the next turn by registering
        // anew.
        let _ = self
            .poll
            .registry()
            .reregister(&mut self.listener, LISTENER, Interest::READABLE);
    }

    /// Registers a connection; its index, or the error of the kernel.
    fn add_link(&mut self, mut conn: Conn, owner: Owner) -> io::Result<usize> {
        let free = self.links.iter().position(Option::is_none);
        let index = free.unwrap_or(self.links.len());
        conn.register(self.poll.registry(), Token(LINK_TOKENS + index))?;
        if index == self.links.len() {
            self.links.push(None);
        }
        self.links[index] = Some(Link {
            conn,
            owner,
            queued: false,
        });
        Ok(index)
    }

    /// Puts a link on the list of those that are looked at in this turn.
    fn queue(&mut self, index: usize) {
        let Some(link) = self.links[index].as_mut() else {
            return;
        };
        if !link.queued {
            link.queued = true;
            self.ready.push_back(index);
        }
    }

    fn read_links(&mut self, now: Instant) {
        for _ in 0..self.ready.len() {
            let Some(index) = self.ready.pop_front() else {
                return;
            };
            let Some(link) = self.links[index].as_mut() else {
                continue;
            };
            link.queued = false;
            match self.read_link(index, now) {
                Ok(())
                    if self.links[index]
                        .as_ref()
                        .is_some_and(|link| link.conn.is_readable()) =>
                {
                    self.queue(index);
                }
                Ok(()) => {}
                Err(error) => self.drop_link(index, &error, now),
            }
        }
    }

    /// Takes a bounded number of things from one connection.
    fn read_link(&mut self, index: usize, now: Instant) -> Result<(), ConnError> {
        for _ in 0..INPUTS_PER_TURN {
            let Some(link) = self.links[index].as_mut() else {
                return Ok(());
            };
            let (job, slot) = match link.owner {
                // A guest says its handshake and nothing else; that needs nobody's pool.
                Owner::Guest { .. } => {
                    match link.conn.next(&mut self.jobs[0].pool, &mut self.waste)? {
                        Input::Handshake(handshake) => {
                            self.welcome(index, handshake, now);
                            continue;
                        }
                        Input::Nothing => return Ok(()),
                        _ => unreachable!("nothing else comes before the handshake"),
                    }
                }
                Owner::Peer { job, slot } => (&mut self.jobs[job], slot),
            };
            if link.conn.is_connecting() {
                if link.conn.poll_open()? == Opening::Pending {
                    return Ok(());
                }
                job.swarm.handle_connected(now, slot);
            }
            match link.conn.next(&mut job.pool, &mut self.waste)? {
                Input::Nothing => return Ok(()),
                Input::Handshake(handshake) => {
                    link.conn.expect_torrent(job.bitfield_bytes());
                    job.swarm.handle_handshake(now, slot, &handshake);
                }
                Input::Message(message) => {
                    job.swarm
                        .handle_message(now, slot, message, &mut self.throttles)
                }
                Input::BlockBegins(block) => {
                    link.conn
                        .receive_into(job.swarm.begin_block(now, slot, block));
                }
                Input::BlockEnds(block) => {
                    job.swarm
                        .handle_block(now, slot, block, &mut self.throttles)
                }
            }
        }
        Ok(())
    }

    /// A guest has named a torrent: give it to the core that has it.
    fn welcome(&mut self, index: usize, handshake: Handshake, now: Instant) {
        let link = self.links[index].as_mut().expect("it has just spoken");
        let address = link.conn.address();
        // One torrent may go onto several targets; the first job that has room takes the caller.
        let wanted =
            |job: &Job| !job.finished && job.swarm.metainfo().info_hash == handshake.info_hash;
        let mut found = self
            .jobs
            .iter_mut()
            .enumerate()
            .filter(|(_, job)| wanted(job));
        let taken =
            found.find_map(|(index, job)| Some((index, job.swarm.handle_incoming(now, address)?)));
        let Some((job, slot)) = taken else {
            self.links[index] = None;
            return;
        };
        link.owner = Owner::Peer { job, slot };
        let job = &mut self.jobs[job];
        link.conn.expect_torrent(job.bitfield_bytes());
        job.set_link(slot, Some(index));
        job.swarm.handle_handshake(now, slot, &handshake);
    }

    /// Closes a connection and tells its core.
    fn drop_link(&mut self, index: usize, why: &dyn fmt::Display, now: Instant) {
        let Some(link) = self.links[index].take() else {
            return;
        };
        if self.verbose {
            self.reporter
                .note(&format!("peer {}: {why}", link.conn.address()));
        }
        if let Owner::Peer { job, slot } = link.owner {
            let job = &mut self.jobs[job];
            job.set_link(slot, None);
            job.swarm.handle_closed(now, slot, &mut self.throttles);
        }
    }

    // ---- what the cores want ----

    /// Does what a core asks for, until it asks for nothing more.
    fn settle(&mut self, index: usize, now: Instant) {
        if self.jobs[index].finished {
            return;
        }
        loop {
            let mut busy = self.send(index, now);
            let job = &mut self.jobs[index];
            busy |= job.do_work();
            while let Some((slot, why)) = self.jobs[index].swarm.poll_close() {
                match self.jobs[index].link(slot) {
                    Some(link) => self.drop_link(link, &why, now),
                    None => self.jobs[index]
                        .swarm
                        .handle_closed(now, slot, &mut self.throttles),
                }
                busy = true;
            }
            while let Some((slot, address)) = self.jobs[index].swarm.poll_connect(now) {
                self.connect(index, slot, address, now);
                busy = true;
            }
            if self.jobs[index].announce.is_none()
                && let Some(url) = self.jobs[index].swarm.poll_announce(now)
            {
                self.announce(index, &url, now);
                busy = true;
            }
            while let Some(event) = self.jobs[index].swarm.poll_event() {
                self.reporter.note(&self.jobs[index].line(&event));
            }
            if !busy {
                break;
            }
        }
        let job = &mut self.jobs[index];
        if let Some(disk) = &mut job.disk {
            disk.submit();
        }
        if matches!(job.swarm.state(), State::Over(_)) {
            self.finish(index, now);
        }
    }

    /// Lets every connection that has room send what its core has to say; true if one of them sent
    /// a block, which may have made room for more.
    fn send(&mut self, index: usize, now: Instant) -> bool {
        let mut blocks = 0;
        for slot in 0..self.jobs[index].slots.len() {
            let Some(link) = self.jobs[index].slots[slot] else {
                continue;
            };
            match self.send_to(index, PeerSlot(slot as u32), link, now) {
                Ok(sent) => blocks += sent,
                Err(error) => self.drop_link(link, &error, now),
            }
        }
        blocks > 0
    }

    fn send_to(
        &mut self,
        job: usize,
        slot: PeerSlot,
        index: usize,
        now: Instant,
    ) -> Result<u32, ConnError> {
        let job = &mut self.jobs[job];
        let Some(link) = self.links[index].as_mut() else {
            return Ok(0);
        };
        let mut blocks = 0;
        for _ in 0..FLUSHES_PER_TURN {
            if !link.conn.is_writable() {
                return Ok(blocks);
            }
            while link.conn.has_room()
                && let Some(send) = job.swarm.poll_send(now, slot, &mut self.throttles)
            {
                link.conn.push(send);
            }
            if !link.conn.has_output() {
                return Ok(blocks);
            }
            let sent = link.conn.flush(&job.pool)?;
            (0..sent).for_each(|_| job.swarm.handle_sent(now, slot));
            blocks += sent;
        }
        // There is more to send and room for it, but it is the others' turn.
        self.queue(index);
        Ok(blocks)
    }

    fn connect(&mut self, job: usize, slot: PeerSlot, address: SocketAddr, now: Instant) {
        let link =
            Conn::connect(address).and_then(|conn| self.add_link(conn, Owner::Peer { job, slot }));
        match link {
            Ok(link) => self.jobs[job].set_link(slot, Some(link)),
            // No route, or no more descriptors.
            Err(_) => self.jobs[job]
                .swarm
                .handle_closed(now, slot, &mut self.throttles),
        }
    }

    fn announce(&mut self, index: usize, url: &str, now: Instant) {
        match Exchange::new(
            &mut self.resolver,
            url,
            ANNOUNCE_BYTES_MAX,
            Haste::Hasty,
            now,
        ) {
            Ok(exchange) => {
                self.jobs[index].announce = Some(exchange);
                self.advance_announce(index, now);
            }
            Err(error) => self.jobs[index]
                .swarm
                .handle_announced(now, Err(error.to_string())),
        }
    }

    fn advance_announce(&mut self, index: usize, now: Instant) {
        let (registry, job): (&Registry, _) = (self.poll.registry(), &mut self.jobs[index]);
        let Some(exchange) = &mut job.announce else {
            return;
        };
        let token = Token(disk_token(index).0 + 1);
        let Some(result) = exchange.advance(registry, token, &mut self.resolver, now) else {
            return;
        };
        job.announce = None;
        let answer = match result {
            Ok(body) => Answer::parse(&body).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        job.swarm.handle_announced(now, answer);
    }

    // ---- telling people ----

    fn report(&mut self, now: Instant) {
        let due = self.report_at <= now;
        for (index, job) in self.jobs.iter_mut().enumerate() {
            let state = job.report_state();
            if job.finished || !(due || job.reported != Some(state)) {
                continue;
            }
            job.reported = Some(state);
            if state == report::State::Seeding {
                job.complete_at.get_or_insert(now);
            }
            self.reporter.update(now, index, &job.status(state));
        }
        if due {
            self.report_at = self.reporter.next_wakeup(now).unwrap_or(Instant(u64::MAX));
        }
    }

    /// The core is over: closes the target and says how it went.
    fn finish(&mut self, index: usize, now: Instant) {
        let links: Vec<usize> = self.jobs[index].slots.iter().flatten().copied().collect();
        links
            .into_iter()
            .for_each(|link| self.drop_link(link, &"we are done", now));
        let job = &mut self.jobs[index];
        job.announce = None;
        job.finished = true;
        let fd = job.disk.as_ref().expect("finished once").event_fd();
        let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
        let closed = job.close_target();
        if let Ok(Some(done)) = &closed {
            self.reporter.note(&format!("{}: {done}", job.target));
        }
        let error = closed.err().or_else(|| job.why_incomplete());
        job.failed = error.is_some();
        let outcome = job.outcome(now, error);
        // What has failed stands where it failed; what is done is at 100 %.
        let state = if job.failed {
            job.report_state()
        } else {
            report::State::Done
        };
        self.reporter
            .finish(now, index, &job.status(state), &outcome);
    }
}

impl Job {
    fn new(
        setup: Setup,
        settings: &Settings,
        pool_bytes: u64,
        listen_port: u16,
        now: Instant,
    ) -> Result<Job, RunError> {
        let Setup {
            metainfo,
            device,
            identity,
            target,
            role,
            look,
        } = setup;
        let buffer_bytes = swarm::buffer_bytes(&metainfo.layout);
        // More buffers than the torrent has bytes are never used.
        let whole = metainfo
            .layout
            .total_bytes()
            .div_ceil(u64::from(buffer_bytes));
        let minimum = swarm::buffer_count_min(&metainfo.layout);
        let fits = pool_bytes / u64::from(buffer_bytes);
        let buffer_count = u32::try_from(fits.min(whole))
            .unwrap_or(u32::MAX)
            .max(minimum);
        let config = Config {
            role,
            peer_id: random_peer_id()?,
            listen_port,
            rng_seed: clock::random_seed()?,
            buffer_count,
            peers: settings.peers.clone(),
            scan: if look {
                ScanPolicy::BeforeUse
            } else {
                ScanPolicy::Skip
            },
            verify: settings.verify,
            tracker_grace: settings.tracker_grace,
            seed_for: settings.seed_for,
            stall: settings.stall,
        };
        Ok(Job {
            path: device.path.clone(),
            identity,
            disk: Some(Storage::new(device, metainfo.clone())?),
            pool: Pool::new(buffer_bytes, buffer_count)?,
            swarm: Swarm::new(now, metainfo, config),
            hasher: Hasher::default(),
            hash_by: None,
            slots: Vec::new(),
            announce: None,
            target,
            role,
            grow_last: settings.grow_last,
            started: now,
            complete_at: None,
            reported: None,
            finished: false,
            failed: false,
        })
    }

    fn link(&self, slot: PeerSlot) -> Option<usize> {
        self.slots.get(slot.index()).copied().flatten()
    }

    fn set_link(&mut self, slot: PeerSlot, link: Option<usize>) {
        if self.slots.len() <= slot.index() {
            self.slots.resize(slot.index() + 1, None);
        }
        self.slots[slot.index()] = link;
    }

    fn bitfield_bytes(&self) -> usize {
        self.swarm.metainfo().layout.piece_count().div_ceil(8) as usize
    }

    /// Hands out all work. True if there was any.
    fn do_work(&mut self) -> bool {
        let mut busy = false;
        while let Some(work) = self.swarm.poll_disk() {
            busy = true;
            self.disk
                .as_mut()
                .expect("the core is not over")
                .start(&self.pool, work);
        }
        busy
    }

    /// Hashes what there is of two pieces, and what there is of one alone once nothing has been
    /// hashed for a while.
    fn hash_some(&mut self, now: Instant) {
        let late = self.hash_by.is_some_and(|by| by <= now);
        let pairing = if late {
            Pairing::TakeSingle
        } else {
            Pairing::WaitForSecond
        };
        while self.hash(pairing, now) {
            self.hash_by = None;
            // The disk shall have something to do meanwhile.
            self.do_work();
            self.disk.iter_mut().for_each(Storage::submit);
        }
        let waits = self.swarm.has_to_hash();
        self.hash_by = waits.then(|| self.hash_by.unwrap_or(now + HASH_PATIENCE));
    }

    /// Done here and now: afterwards the buffers may be others'. False if there is nothing to do.
    fn hash(&mut self, pairing: Pairing, now: Instant) -> bool {
        let steps = self.swarm.poll_hash(pairing);
        if steps[0].is_none() {
            return false;
        }
        let layout = &self.swarm.metainfo().layout;
        let finished = self.hasher.hash(steps, &self.pool, layout);
        for (of, hash) in finished.into_iter().flatten() {
            self.swarm.handle_hashed(now, of, hash);
        }
        true
    }

    fn has_done_already(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.done_count() > 0)
    }

    fn advance_disk(&mut self, now: Instant) {
        let Some(disk) = &mut self.disk else { return };
        disk.advance(&mut self.pool);
        // What is done at once meanwhile has its turn when the others had theirs.
        for _ in 0..disk.done_count() {
            let Some((ticket, result)) = self.disk.as_mut().and_then(Storage::poll_done) else {
                return;
            };
            self.swarm.handle_disk(now, ticket, result);
        }
    }

    /// Closes the target. A complete image gets its partition table fitted to the disk, and in a
    /// regular file its length; what was done to the table, or what went wrong.
    fn close_target(&mut self) -> Result<Option<String>, String> {
        let mut device = self.disk.take().expect("closed once").into_device();
        // Also when somebody interrupts the read-back: the image is all there, and it ends where it
        // ends.
        let failed = matches!(self.swarm.state(), State::Over(Outcome::Failed(_)));
        if failed || !self.swarm.have().is_full() || self.role != Role::Leecher {
            return Ok(None);
        }
        let metainfo = self.swarm.metainfo();
        let done = match self.swarm.state() {
            State::Over(Outcome::Complete) => {
                partition_table::fit(&device, metainfo, self.grow_last)
            }
            _ => Ok(None),
        };
        let done = done.map_err(|error| error.to_string())?;
        if device.kind == Kind::Regular {
            let file_bytes = metainfo.disk_bytes.unwrap_or(metainfo.extents.disk_end().0);
            device
                .finish_regular(file_bytes)
                .map_err(|error| error.to_string())?;
        }
        Ok(done)
    }

    fn why_incomplete(&self) -> Option<String> {
        let progress = self.swarm.progress();
        let far = format!(
            "{} of {} pieces are on the target",
            progress.have, progress.pieces
        );
        match self.swarm.state() {
            State::Over(Outcome::Complete) => None,
            State::Over(Outcome::Failed(failure)) => {
                Some(format!("{}; {far}", explain(failure, &self.path)))
            }
            _ if self.reported == Some(report::State::Verifying) => Some(format!(
                "interrupted; {far}, {} of them read back",
                progress.verified
            )),
            _ => Some(format!("interrupted; {far}")),
        }
    }

    // ---- telling people ----

    fn report_state(&self) -> report::State {
        match self.swarm.state() {
            State::Scanning => report::State::Scanning,
            State::Downloading => report::State::Downloading,
            State::Verifying => report::State::Verifying,
            State::Seeding => report::State::Seeding,
            // Nobody needs to know that we are packing up.
            State::Leaving(_) | State::Over(_) => {
                self.reported.unwrap_or(report::State::Downloading)
            }
        }
    }

    fn status(&self, state: report::State) -> report::Status {
        let progress = self.swarm.progress();
        report::Status {
            state,
            torrent: self.swarm.metainfo().name.clone(),
            target: self.target.clone(),
            have: progress.have,
            pieces: progress.pieces,
            checked: progress.checked,
            to_check: progress.to_check,
            bytes: self.swarm.metainfo().layout.total_bytes(),
            fetched: progress.fetched,
            uploaded: progress.uploaded,
            peers: progress.peers,
        }
    }

    fn outcome(&self, now: Instant, error: Option<String>) -> report::Outcome {
        let progress = self.swarm.progress();
        let metainfo = self.swarm.metainfo();
        report::Outcome {
            verified: error.is_none()
                && self.role == Role::Leecher
                && progress.verified == progress.pieces,
            good: progress.verified,
            bad_offset: progress.bad_offset.map(|offset| offset.0),
            took: self.complete_at.unwrap_or(now).since(self.started),
            bytes: metainfo.layout.total_bytes(),
            fetched: progress.fetched,
            info_hash: metainfo.info_hash.to_string(),
            disk: known_disk(&self.identity),
            error,
        }
    }

    /// An event as a line of the log.
    fn line(&self, event: &swarm::Event) -> String {
        let name = &self.swarm.metainfo().name;
        match event {
            swarm::Event::TargetBad { piece, error } => {
                format!(
                    "{name}: piece {} is written anew: {}",
                    piece.0,
                    explain_disk(error, &self.path)
                )
            }
            swarm::Event::SourceBad {
                piece,
                error: Some(error),
                ..
            } => {
                format!(
                    "{name}: piece {} is not served: {}",
                    piece.0,
                    explain_disk(error, &self.path)
                )
            }
            event => format!("{name}: {event}"),
        }
    }
}

/// A failure in the words of the system: the core knows numbers only.
fn explain(failure: &Failure, path: &Path) -> String {
    match failure {
        Failure::Disk(error) => explain_disk(error, path),
        failure => failure.to_string(),
    }
}

fn explain_disk(error: &DiskError, path: &Path) -> String {
    let path = path.display();
    let what = match error.operation {
        DiskOperation::Read => format!("cannot read {path} at byte {}", error.offset.0),
        DiskOperation::Write => format!("cannot write {path} at byte {}", error.offset.0),
        DiskOperation::Flush => format!("cannot flush {path}"),
    };
    let meaning =
        errno::meaning(error.errno).map_or(String::new(), |meaning| format!("; {meaning}"));
    format!(
        "{what}: {}{meaning}",
        io::Error::from_raw_os_error(error.errno)
    )
}

/// What a report says of the disk, if there is anything to say.
fn known_disk(identity: &Identity) -> Option<report::Disk> {
    let Identity { model, serial } = identity.clone();
    let known = model.is_some() || serial.is_some();
    known.then(|| report::Disk {
        model: model.unwrap_or_default(),
        serial: serial.unwrap_or_default(),
    })
}

fn disk_token(job: usize) -> Token {
    Token(JOB_TOKENS + 2 * job)
}

/// BEP 20: two letters and a version, then something that no other agent has.
fn random_peer_id() -> io::Result<PeerId> {
    let mut id = *b"-SD0100-............";
    clock::random_bytes(&mut id[8..])?;
    Ok(PeerId(id))
}

/// Why nothing could be run, or not to its end. What happens to one pair alone is in its
/// `report::Outcome`.
#[derive(Debug)]
pub enum RunError {
    Io(io::Error),
    Listen {
        address: SocketAddr,
        error: io::Error,
    },
    Memory {
        memory_mib: u32,
        needed_mib: u64,
    },
    Impatient,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Io(error) => write!(f, "cannot wait for the network and the disk: {error}"),
            RunError::Listen { address, error } => write!(f, "cannot listen at {address}: {error}"),
            RunError::Memory {
                memory_mib,
                needed_mib,
            } => {
                write!(
                    f,
                    "--memory {memory_mib} is too little for pieces of this size, use --memory {needed_mib}"
                )
            }
            RunError::Impatient => f.write_str("interrupted twice, left without saying good-bye"),
        }
    }
}

impl std::error::Error for RunError {}

impl From<io::Error> for RunError {
    fn from(error: io::Error) -> RunError {
        RunError::Io(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::blockdev::TargetOptions;
    use crate::os::sha1::Sha1;
    use crate::os::testing::Scratch;
    use swarm_proto::format::metainfo_write::{self, Content, Description};
    use swarm_proto::limits::{PIECE_BYTES_MAX, PIECE_BYTES_MIN, ZERO_WRITES_MAX};
    use swarm_proto::units::PieceHash;

    fn metainfo(length: u64, piece_bytes: u32) -> Metainfo {
        of_hash(PieceHash([0; 20]), length, piece_bytes)
    }

    /// All pieces have this hash.
    fn of_hash(hash: PieceHash, length: u64, piece_bytes: u32) -> Metainfo {
        let hashes = vec![hash; length.div_ceil(piece_bytes.into()) as usize];
        let torrent = metainfo_write::write(&Description {
            name: "image",
            trackers: &[],
            webseeds: &[],
            created_by: "test",
            private: false,
            piece_bytes,
            hashes: &hashes,
            content: Content::Single { length },
            disk_bytes: None,
            sector_bytes: None,
        });
        Metainfo::parse(&torrent).unwrap()
    }

    #[test]
    fn the_default_memory_holds_the_largest_pieces() {
        let image = metainfo(50 << 30, PIECE_BYTES_MAX);
        let share = divide_memory(&[&image], 64).unwrap();
        assert!(share > 3 * u64::from(PIECE_BYTES_MAX));
        assert!(share < 64 << 20);
    }

    #[test]
    fn what_is_too_little_says_what_would_do() {
        let (large, small) = (
            metainfo(1 << 30, PIECE_BYTES_MAX),
            metainfo(1 << 30, 1 << 20),
        );
        for metainfos in [
            &[&large][..],
            &[&small],
            &[&large, &small],
            &[&large, &large, &large],
        ] {
            let Err(RunError::Memory { needed_mib, .. }) = divide_memory(metainfos, 1) else {
                panic!("one MiB is enough for {} torrents", metainfos.len());
            };
            let needed_mib = u32::try_from(needed_mib).unwrap();
            let share = divide_memory(metainfos, needed_mib).unwrap();
            assert!(
                metainfos
                    .iter()
                    .all(|metainfo| pool_bytes_min(metainfo) <= share)
            );
            assert!(divide_memory(metainfos, needed_mib - 1).is_err());
        }
    }

    /// A disk that makes zeros at once may have a terabyte of them to make, and the others would
    /// wait.
    #[test]
    fn what_is_done_at_once_is_done_a_few_at_a_time() {
        const PIECES: u32 = 100;
        let mut hash = Sha1::new();
        hash.update(&[0; PIECE_BYTES_MIN as usize]);
        let length = u64::from(PIECES * PIECE_BYTES_MIN);
        let metainfo = of_hash(PieceHash(hash.finish()), length, PIECE_BYTES_MIN);
        let scratch = Scratch::new("zeros-at-once");
        let device = Device::open_target(scratch.path(), length, TargetOptions::default()).unwrap();
        let setup = Setup {
            metainfo: Arc::new(metainfo),
            device,
            identity: Identity::default(),
            target: "target".into(),
            role: Role::Leecher,
            look: false,
        };
        let settings = Settings {
            listen: "127.0.0.1:0".parse().unwrap(),
            peers: Vec::new(),
            memory_mib: 64,
            verify: true,
            tracker_grace: Duration::ZERO,
            seed_for: None,
            stall: None,
            max_up: None,
            max_down: None,
            grow_last: false,
        };
        let mut job = Job::new(setup, &settings, 1 << 20, 6881, Instant(0)).unwrap();
        job.do_work();
        let mut turns = 0;
        while job.has_done_already() {
            let before = job.swarm.have().count();
            job.advance_disk(Instant(0));
            job.do_work();
            assert!(
                job.swarm.have().count() <= before + ZERO_WRITES_MAX as u32,
                "turn {turns}"
            );
            turns += 1;
        }
        // A file system that cannot make holes has written them, in its own time.
        assert!(turns == 0 || job.swarm.have().is_full());
    }
}
