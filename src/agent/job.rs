//! What does one job consist of, and what happens in its turn?
//!
//! A job is a core with everything that it commands: the storage of one target or source, a pool of
//! buffers, the links to its peers, the announces. Nothing of it outlives it: when the core is
//! over, `finish` closes the target and gives back the rest.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use swarm_proto::policy::throttle::Throttles;
use swarm_proto::swarm::{self, Outcome, Role, State, Swarm};
use swarm_proto::units::{InfoHash, Instant, PeerSlot};
use swarm_proto::wire::message::Handshake;

use super::announcer::Announcer;
use super::hashing::Hashing;
use super::links::Links;
use super::place::Place;
use super::reporting::{Closed, Reporting};
use super::setup::{self, Settings, Setup};
use super::tokens::Origin;
use super::{Reporter, Shared, messages};
use crate::net::peer_socket::PeerSocket;
use crate::os::device::{Device, Kind};
use crate::os::net;
use crate::os::pool::Pool;
use crate::storage::disk::Storage;
use crate::storage::leftovers;
use crate::storage::requests::Joining;
use crate::storage::table_fit;

/// Pause after the kernel had no memory for a disk request while none was in flight.
const SUBMIT_PAUSE: Duration = Duration::from_millis(100);

/// One TORRENT TARGET (or SOURCE) pair that runs.
///
/// Calling order in a turn: the methods that take note of what has happened (`note_socket_event`,
/// `advance_storage`, `advance_announce`, `admit` and `adopt`), then `receive`, `handle_timeout`,
/// `advance_done`, `hash`, `settle`. Once `is_over`, only `finish`.
pub(super) struct Job {
    core: Swarm,
    // Before the pool: dropping the storage waits until the kernel is done with the buffers.
    storage: Storage,
    pool: Pool,
    hashing: Hashing,
    links: Links,
    announcer: Announcer,
    reporting: Reporting,
    role: Role,
    grow_last: bool,
    keep_signatures: bool,
}

impl Job {
    pub fn new(
        setup: Setup,
        place: Place,
        settings: &Settings,
        listen_port: u16,
        shared: &Shared,
        now: Instant,
    ) -> io::Result<Job> {
        let Setup {
            metainfo,
            device,
            places,
            identity,
            target,
            role,
            scan,
        } = setup;
        let buffer_count = setup::buffer_count(&metainfo.layout, place.pool_bytes);
        let alignment = device.alignment;
        let config = setup::config(settings, role, scan, listen_port, buffer_count, alignment)?;
        let reporting = Reporting::new(place.number, target, &device, &identity, now);
        let mut pool = Pool::new(swarm::buffer_bytes(&metainfo.layout), buffer_count)?;
        if device.packed.is_some() {
            pool.keep_packed();
        }
        let storage = Storage::new(device, places, Joining::Nothing)?;
        shared.poll.registry().register(
            &mut SourceFd(&storage.event_fd()),
            Origin::Storage(place.index).token(),
            Interest::READABLE,
        )?;
        let mut core = Swarm::new(now, metainfo.clone(), config);
        core.handle_subnets(&net::own_subnets());
        Ok(Job {
            storage,
            pool,
            core,
            hashing: Hashing::default(),
            links: Links::new(place),
            announcer: Announcer::new(place.index),
            reporting,
            role,
            grow_last: settings.grow_last,
            keep_signatures: settings.keep_signatures,
        })
    }

    // --- what has happened

    /// The socket of this peer is ready. Nothing is read before `receive`.
    pub fn note_socket_event(&mut self, peer: PeerSlot, event: &Event) {
        self.links.note(peer, event);
    }

    pub fn advance_announce(&mut self, shared: &mut Shared, now: Instant) {
        self.announcer.advance(&mut self.core, shared, now);
    }

    pub fn advance_storage(&mut self, now: Instant) {
        self.storage.advance(&mut self.pool);
        // Work that is done at once while the core learns of this has its turn after the others.
        for _ in 0..self.storage.done_count() {
            let Some((ticket, result)) = self.storage.poll_done() else {
                return;
            };
            self.core.handle_disk(now, ticket, result);
        }
    }

    /// The peer's number, if this job has the torrent that a new connection names, and room for it:
    /// then `adopt` follows.
    pub fn admit(
        &mut self,
        address: SocketAddr,
        info_hash: &InfoHash,
        now: Instant,
    ) -> Option<PeerSlot> {
        if self.core.metainfo().info_hash != *info_hash {
            return None;
        }
        self.core.handle_incoming(now, address)
    }

    pub fn adopt(
        &mut self,
        peer: PeerSlot,
        conn: PeerSocket,
        handshake: &Handshake,
        shared: &mut Shared,
        now: Instant,
    ) {
        let core = &mut self.core;
        self.links.adopt(peer, conn, handshake, core, shared, now);
    }

    /// SIGINT or SIGTERM.
    pub fn leave(&mut self, now: Instant) {
        self.core.leave(now);
    }

    // --- what the daemon asks

    /// Counts all jobs of the process.
    pub fn number(&self) -> usize {
        self.reporting.number()
    }

    pub fn info_hash(&self) -> InfoHash {
        self.core.metainfo().info_hash
    }

    /// What it writes.
    pub fn target(&self) -> Option<&Device> {
        (self.role == Role::Leecher).then(|| self.device())
    }

    pub fn device(&self) -> &Device {
        self.storage.device()
    }

    /// It is over, and was complete.
    pub fn is_complete(&self) -> bool {
        matches!(self.core.state(), State::Over(Outcome::Complete))
    }

    /// When everything was on the disk and read back.
    pub fn complete_at(&self) -> Option<Instant> {
        self.reporting.complete_at()
    }

    pub fn uploaded_at(&self) -> Option<Instant> {
        self.core.uploaded_at()
    }

    // --- the turn

    pub fn receive(&mut self, shared: &mut Shared, now: Instant) {
        let Job { core, pool, .. } = self;
        self.links.receive(core, pool, shared, now);
    }

    pub fn handle_timeout(&mut self, shared: &mut Shared, now: Instant) {
        let throttles = &mut shared.throttles;
        if self
            .core
            .poll_timeout(throttles)
            .is_some_and(|due| due <= now)
        {
            self.core.handle_timeout(now, throttles);
        }
        if self.announcer.deadline().is_some_and(|due| due <= now) {
            self.advance_announce(shared, now);
        }
    }

    /// Takes what the storage did at once, without any event: zeros that a disk makes by itself. A
    /// disk may have a terabyte of them to make, so each turn takes only what is there now.
    pub fn advance_done(&mut self, now: Instant) {
        if self.storage.done_count() > 0 {
            self.advance_storage(now);
        }
    }

    pub fn hash(&mut self, now: Instant) {
        let Job { storage, pool, .. } = self;
        self.hashing.run(&mut self.core, pool, now, |core| {
            start_work(core, storage, pool);
            storage.submit();
        });
    }

    /// Does what the core asks for, until it asks for nothing more.
    pub fn settle(&mut self, shared: &mut Shared, now: Instant) {
        let Job {
            core,
            storage,
            pool,
            ..
        } = self;
        loop {
            let mut busy = self.links.send(core, pool, shared, now);
            busy |= start_work(core, storage, pool);
            busy |= self.links.close_and_connect(core, shared, now);
            busy |= self.announcer.start(core, shared, now);
            self.reporting.note_events(core, shared.reporter);
            if !busy {
                break;
            }
        }
        storage.submit();
    }

    /// When the job wants its next turn, if nothing happens until then.
    pub fn next_turn(&self, throttles: &Throttles, now: Instant) -> Option<Instant> {
        if self.links.has_ready() || self.storage.done_count() > 0 {
            return Some(now);
        }
        let submit = self.storage.is_stuck().then(|| now + SUBMIT_PAUSE);
        let deadlines = [
            self.core.poll_timeout(throttles),
            self.announcer.deadline(),
            self.hashing.deadline(),
            submit,
        ];
        deadlines.into_iter().flatten().min()
    }

    // --- what the user learns, and the end

    /// Reports where the job stands, if that is `due` or the state has changed.
    pub fn report(&mut self, due: bool, reporter: &mut Reporter, now: Instant) {
        let last_try = self.links.last_try();
        self.reporting
            .update(&self.core, last_try, due, reporter, now);
    }

    pub fn is_over(&self) -> bool {
        matches!(self.core.state(), State::Over(_))
    }

    /// Closes the links and the target, reports how the job ended, and gives back everything that
    /// it had; true if it is complete.
    pub fn finish(mut self, shared: &mut Shared, now: Instant) -> bool {
        self.links
            .close_all(&"we are done", &mut self.core, shared, now);
        deregister(&self.storage, shared.poll.registry());
        let device = self.storage.into_device();
        let (core, role) = (&self.core, self.role);
        let closed = close_target(device, core, role, self.grow_last, self.keep_signatures);
        self.reporting
            .finish(core, role, closed, shared.reporter, now)
    }
}

/// Hands all work that the core has for the disk to the storage; false if there was none.
fn start_work(core: &mut Swarm, storage: &mut Storage, pool: &Pool) -> bool {
    let mut busy = false;
    while let Some(work) = core.poll_disk() {
        busy = true;
        storage.start(pool, work);
    }
    busy
}

fn deregister(storage: &Storage, registry: &Registry) {
    // Closing the descriptor, which follows, has the same effect.
    let _ = registry.deregister(&mut SourceFd(&storage.event_fd()));
}

/// Closes a target. A complete image gets its partition table fitted to the disk, loses the
/// signatures that are left from what was there before, and in a regular file gets its length.
fn close_target(
    mut device: Device,
    core: &Swarm,
    role: Role,
    grow_last: bool,
    keep_signatures: bool,
) -> Result<Closed, String> {
    let mut closed = Closed::default();
    // The length is set also when the read-back was interrupted: the image is complete, and the
    // file ends where the image does.
    let failed = matches!(core.state(), State::Over(Outcome::Failed(_)));
    if failed || !core.have().is_full() || role != Role::Leecher {
        return Ok(closed);
    }
    let metainfo = core.metainfo();
    let file_bytes = metainfo.disk_bytes.unwrap_or(metainfo.extents.disk_end().0);
    if let State::Over(Outcome::Complete) = core.state() {
        let fitted = table_fit::fit(&device, metainfo, grow_last);
        closed.fitted = fitted.map_err(|error| error.to_string())?;
        if device.kind == Kind::Regular {
            device.size_bytes = file_bytes;
        }
        let cleared = leftovers::clear(&device, metainfo, keep_signatures);
        closed.leftovers =
            cleared.map_err(|error| messages::leftover_error(&error, &device.path))?;
    }
    if device.kind == Kind::Regular {
        device
            .finish_regular(file_bytes)
            .map_err(|error| error.to_string())?;
    }
    Ok(closed)
}

#[cfg(test)]
mod tests {
    use super::super::place::JobIndex;
    use super::super::setup::tests::{leecher, settings, zeros};
    use super::*;
    use crate::os::testing::Scratch;
    use crate::report::{self, Mode};
    use swarm_proto::limits::ZERO_WRITES_MAX;

    /// A disk that makes zeros at once may have a terabyte of them to make, and the other jobs and
    /// links must get their turns meanwhile.
    #[test]
    fn each_turn_takes_only_a_few_of_the_zeros_that_a_disk_makes_at_once() {
        let scratch = Scratch::new("zeros-at-once");
        let (setup, settings) = (leecher(zeros(100), &scratch), settings());
        let mut reporter = report::standard(Mode::None);
        let shared = Shared::new(&settings, &mut reporter).unwrap();
        let place = Place {
            index: JobIndex(0),
            number: 0,
            pool_bytes: 1 << 20,
        };
        let mut job = Job::new(setup, place, &settings, 6881, &shared, Instant(0)).unwrap();
        start_work(&mut job.core, &mut job.storage, &job.pool);
        let mut turns = 0;
        while job.storage.done_count() > 0 {
            let before = job.core.have().count();
            job.advance_done(Instant(0));
            start_work(&mut job.core, &mut job.storage, &job.pool);
            assert!(
                job.core.have().count() <= before + ZERO_WRITES_MAX as u32,
                "turn {turns}"
            );
            turns += 1;
        }
        // A file system that cannot make holes has written them, in its own time.
        assert!(turns == 0 || job.core.have().is_full());
    }
}
