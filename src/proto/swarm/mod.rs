//! How does one torrent get onto one target, read back and passed on? As decisions only.
//!
//! A block takes this way: `poll_send` asks for it, `begin_block` names its buffer, `poll_hash`
//! gives it to the hash unit, `handle_hashed` of the whole piece gives the piece to the disk, and
//! `handle_disk` makes it known to all peers. In this order, so that nothing is announced that is
//! not on the disk. The end of a piece may be passed on sooner (`tails`).
//!
//! A leecher takes this way: Scanning (a sample of what the target holds, then all of it if the
//! sample is promising), Downloading what is missing, Verifying what was written by reading it
//! back, Seeding, Leaving.
//!
//! Each part owns its state and checks its own invariants:
//!
//! ```text
//! peers, peer   connections, and how we stand with each peer
//! requests      what a peer was asked for, and what of it is late
//! rate          how fast a peer sends
//! sending       what is on its way to a peer
//! peer_tails    which ends of pieces a peer has, and was told of
//! exchange      what a peer was told of others
//! scan          what the target holds at the start
//! read_back     whether what was written is on the disk
//! placing       zeros and equal pieces, and what is being written
//! disk_queue    what the disk has been asked for
//! changes       what peers are to be told of our pieces
//! offers        what a seed offers, and to whom
//! leaving       when a complete agent leaves
//! traffic       totals
//! arrivals      whether much less arrives than could
//! ```
//!
//! and `policy/` decides which block to ask for, which peers to upload to, and so on. `Swarm`
//! connects them. Its methods are in files by what they are about:
//!
//! ```text
//! interface     what crosses the border between core and shell
//! lifecycle     the states, and what leads from one to the next
//! links         connections: which are taken, made and closed
//! inbound       what peers send us
//! outbound      what we send peers
//! storage       what the disk and the hash unit answer
//! tails         how pieces are passed on before they are whole
//! reading       what is read and hashed next
//! announcing    what the tracker is told
//! introducing   which peers peers tell each other of
//! timers        what happens because time has passed
//! waiting       what is waited for while nothing arrives
//! ```

mod announcing;
mod arrivals;
mod changes;
mod disk_queue;
mod exchange;
mod inbound;
mod interface;
mod introducing;
mod leaving;
mod lifecycle;
mod links;
mod offers;
mod outbound;
mod peer;
mod peer_tails;
mod peers;
mod placing;
mod rate;
mod read_back;
mod reading;
mod requests;
mod scan;
mod sending;
mod storage;
mod tails;
#[cfg(test)]
mod tests;
mod timers;
mod traffic;
mod waiting;

pub use interface::*;
pub use waiting::{Lack, Waiting};

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use self::arrivals::Arrivals;
use self::changes::Changes;
use self::disk_queue::DiskQueue;
use self::leaving::Leaving;
use self::offers::Offers;
use self::peer::Peer;
use self::peers::Peers;
use self::placing::Placing;
use self::read_back::ReadBack;
use self::scan::Scan;
use self::traffic::{Pace, Traffic};
use self::waiting::LastAnnounce;
use crate::bitfield::Bitfield;
use crate::format::contents::Contents;
use crate::format::metainfo::Metainfo;
use crate::limits::*;
use crate::policy::blame::Blame;
use crate::policy::cache::Cache;
use crate::policy::marks::Marks;
use crate::policy::mesh::{AddressSource, Mesh};
use crate::policy::picker::Picker;
use crate::policy::read_queue::ReadQueue;
use crate::policy::room::Room;
use crate::policy::spare_time::SpareTime;
use crate::policy::tracker::Tracker;
use crate::rng::Rng;
use crate::units::*;

/// One torrent on one target.
///
/// # How to call it
///
/// There are four kinds of methods:
/// - *Getters* (`state`, `metainfo`, `have`, `progress`, `uploaded_at`, `has_to_hash`) change
///   nothing.
/// - *Commands*: `leave`.
/// - `handle_*` and `begin_*` say what happened. `now` never goes back.
/// - `poll_*` say what to do next. Everything that they return must be done, once.
///
/// Methods that send, receive or wait take the limits of the process (`Throttles`): all swarms of a
/// process share one value.
///
/// After any batch of `handle_*`, call the polls in this order, each until it returns `None`. If a
/// poll led to another `handle_*` (a block was sent, a hash is known, a connection is closed),
/// begin again.
///
/// An earlier `poll_hash` does no harm.
///
/// 1. `poll_send`, for each peer that has room for more: sending frees buffers of the pool, and
///    requests keep the links busy, which is what an agent waits for most.
/// 2. `poll_disk`: reads and writes start, and the disk works while we hash.
/// 3. `poll_hash`, then hash and call `handle_hashed` before anything else: from that call on the
///    buffer may be given to another owner. A good hash makes work for the disk, so call
///    `poll_disk` again.
/// 4. `poll_close`, before `poll_connect`: a closed connection makes room for another.
/// 5. `poll_connect`.
/// 6. `poll_announce`.
/// 7. `poll_event`.
/// 8. `poll_timeout`, last: every call above may change it.
///
/// When an answer may change: `poll_connect`, `poll_announce` and `poll_timeout` depend on the
/// time, and what they will return next is due at `poll_timeout` at the latest; then call
/// `handle_timeout`. Pauses that end between two ticks (of a peer that refused, of an address, of a
/// keep-alive) are noticed at the next tick.
/// All other answers change with `handle_*`, with `leave`, and with each other only in the order
/// above.
///
/// # Invariants
///
/// - A piece on the disk is neither wanted from peers nor unknown.
/// - A piece that is missing comes in exactly one way: it is made of zeros, being written, or
///   wanted itself or through one equal piece.
/// - A piece that got onto the disk, or was lost, is in `changes`.
/// - Every buffer is free, stored, forgotten while it is still pinned, or owned by exactly one open
///   piece, disk read or read queue.
/// - Every pin of a buffer belongs to one block in the `sending` of one peer.
#[derive(Debug)]
pub struct Swarm {
    metainfo: Arc<Metainfo>,
    config: Config,
    buffer_bytes: u32,
    state: State,
    rng: Rng,

    picker: Picker,
    contents: Contents,
    scan: Scan,
    read_back: ReadBack,
    placing: Placing,

    /// Of a seed, those of its own hash; of a leecher, what it heard of pieces that it wants.
    marks: Marks,
    /// Pieces that a seed has read for their marks: once, even if the marks had to make room.
    read_for_marks: Bitfield,
    cache: Cache,
    disk: DiskQueue,
    spare_time: SpareTime,
    /// Peers that wait for a chunk, in the order of their turns.
    loads: VecDeque<PeerSlot>,
    /// Since the last tick, a peer was not served because no buffer was free.
    buffers_short: bool,
    read_queue: ReadQueue,

    peers: Peers,
    changes: Changes,
    offers: Offers,
    mesh: Mesh,
    room: Room,
    blame: Blame,
    tracker: Tracker,
    last_announce: LastAnnounce,
    /// We have said that no source is there.
    said_absent: bool,
    /// What the tracker last warned us of.
    warning: Option<String>,
    announce_key: u32,
    leaving: Leaving,

    traffic: Traffic,
    arrivals: Arrivals,
    pace: Pace,
    events: VecDeque<Event>,

    /// A peer has come, or has changed its mind about what it wants.
    rechoke_due: bool,
    next_tick: Instant,
    /// When a block last arrived, or a piece got onto the disk.
    progress_at: Instant,
    /// A peer with data was connected once, so what is zeros may be written.
    met_data: bool,
    /// When we last called one peer more than LINKS because nothing came.
    extra_call_at: Instant,
    /// Links beyond LINKS, and since when every pipeline has been full.
    extra_links: usize,
    pipelines_full_since: Option<Instant>,
}

/// The distance of the read-back; None if all of it is at the end: a piece that shares a sector
/// with a neighbour is written once more with the neighbour. A disk may have physical sectors of
/// 4096 bytes without saying so.
fn distance(metainfo: &Metainfo, config: &Config) -> Option<u64> {
    let sector = u64::from(config.alignment.max(4096));
    let has_whole_sectors = metainfo.extents.alignment_up_to(sector) == sector
        && u64::from(metainfo.layout.piece_bytes()).is_multiple_of(sector);
    (config.verify && has_whole_sectors).then_some(config.read_back_distance)
}

impl Swarm {
    pub fn new(now: Instant, metainfo: Arc<Metainfo>, config: Config) -> Swarm {
        let layout = metainfo.layout;
        let (buffer_bytes, pieces) = (buffer_bytes(&layout), layout.piece_count());
        assert!(config.buffer_count >= buffer_count_min(&layout));
        let mut rng = Rng::new(config.rng_seed);
        let mut mesh = Mesh::new(config.allowed.clone());
        let given = config.peers.iter();
        given.for_each(|peer| mesh.learn(now, *peer, AddressSource::CommandLine));
        let (all, none) = (Bitfield::full(pieces), Bitfield::new(pieces));
        // A seeder has read nothing yet, but says that all is there; a leecher does not.
        let (state, have, unknown, complete_at) = match config.role {
            Role::Seeder => (State::Seeding, all, none.clone(), Some(now)),
            Role::Leecher => (State::Scanning, none.clone(), all, None),
        };
        let unverified = match config.scan {
            ScanPolicy::BeforeUse => have.clone(),
            ScanPolicy::Skip => none,
        };
        let picker_rng = Rng::new(rng.next_u64());
        let contents = Contents::new(&layout, &metainfo.hashes);
        let trackers = metainfo.trackers.clone();
        let mut swarm = Swarm {
            buffer_bytes,
            state,
            picker: Picker::new(layout, buffer_bytes, have, picker_rng),
            scan: Scan::new(unknown),
            read_back: ReadBack::new(unverified, distance(&metainfo, &config)),
            placing: Placing::new(pieces),
            marks: Marks::default(),
            read_for_marks: Bitfield::new(pieces),
            cache: Cache::new(config.buffer_count),
            disk: DiskQueue::default(),
            spare_time: SpareTime::new(now),
            loads: VecDeque::new(),
            buffers_short: false,
            read_queue: ReadQueue::new(layout, buffer_bytes, READ_AHEAD_MAX),
            peers: Peers::default(),
            changes: Changes::default(),
            offers: Offers::new(&contents.derivable(), &mut rng),
            mesh,
            room: Room::new(),
            blame: Blame::new(&config.peers),
            tracker: Tracker::new(now, trackers, config.tracker_grace, &mut rng),
            last_announce: LastAnnounce::none_yet(&metainfo),
            said_absent: false,
            warning: None,
            announce_key: rng.next_u64() as u32,
            leaving: Leaving::new(now, complete_at),
            traffic: Traffic::default(),
            arrivals: Arrivals::default(),
            pace: Pace::default(),
            events: VecDeque::new(),
            rechoke_due: false,
            next_tick: now,
            progress_at: now,
            met_data: false,
            extra_call_at: now,
            extra_links: 0,
            pipelines_full_since: None,
            contents,
            rng,
            metainfo,
            config,
        };
        match (swarm.config.role, swarm.config.scan) {
            (Role::Seeder, _) => {}
            (Role::Leecher, ScanPolicy::BeforeUse) => swarm.scan_sample(now),
            (Role::Leecher, ScanPolicy::Skip) => swarm.end_scan(now),
        }
        swarm
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn metainfo(&self) -> &Arc<Metainfo> {
        &self.metainfo
    }

    /// Pieces that are on the disk.
    pub fn have(&self) -> &Bitfield {
        self.picker.have()
    }

    pub fn progress(&self) -> Progress {
        let (checked, to_check) = match self.state {
            State::Downloading | State::Verifying => self.read_back.progress(),
            _ => self.read_queue.progress(),
        };
        Progress {
            state: self.state.clone(),
            have: self.have().count(),
            pieces: self.have().len(),
            verified: self.have().count() - self.read_back.unproven_count(),
            checked,
            to_check,
            bad_offset: self.bad_offset(),
            fetched: self.traffic.fetched(),
            unused: self.traffic.unused(),
            uploaded: self.traffic.uploaded(),
            fetched_wire: self.traffic.fetched_wire(),
            uploaded_wire: self.traffic.uploaded_wire(),
            peers: self.peers.live_count() as u32,
        }
    }

    /// When payload was last sent.
    pub fn uploaded_at(&self) -> Option<Instant> {
        self.leaving.uploaded_at()
    }

    fn bad_offset(&self) -> Option<DiskOffset> {
        let (State::Leaving(Outcome::Failed(Failure::Disk(error)))
        | State::Over(Outcome::Failed(Failure::Disk(error)))) = &self.state
        else {
            let (piece, _) = self.read_back.failed()?;
            return Some(self.disk_offset(piece));
        };
        // A flush has no place.
        (error.operation != DiskOperation::Flush).then_some(error.offset)
    }

    /// Something that is worth a line in the log.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        }
    }

    fn is_open(&self) -> bool {
        self.is_fetching() || matches!(self.state, State::Verifying | State::Seeding)
    }

    fn is_fetching(&self) -> bool {
        matches!(self.state, State::Scanning | State::Downloading)
    }

    fn peer(&mut self, slot: PeerSlot) -> &mut Peer {
        let peer = self.peers.get_mut(slot);
        peer.expect("the shell names only slots in use")
    }

    fn disk_offset(&self, piece: PieceIndex) -> DiskOffset {
        let layout = &self.metainfo.layout;
        let start = layout.piece_start(piece);
        let length = u64::from(layout.piece_length(piece));
        let first = self.metainfo.extents.ranges(start, length).next();
        first.expect("every piece lies on the disk").disk
    }

    /// Recounts everything from scratch; for tests and the simulator.
    pub fn check_invariants(&self) {
        let (have, wanted) = (self.picker.have(), self.picker.wanted());
        self.cache.check_invariants();
        self.marks.check_invariants();
        self.disk.check_invariants();
        self.offers.check_invariants();
        self.placing.check_invariants();
        self.scan.check_invariants(have, wanted);
        self.read_back.check_invariants(have);
        self.peers.check_invariants(wanted);
        self.leaving
            .check_invariants(matches!(self.state, State::Leaving(_) | State::Over(_)));
        for peer in self.peers.values() {
            self.changes.check_invariants(&peer.changes);
        }
        let mut asked: Vec<(PeerSlot, Block)> = Vec::new();
        for (slot, peer) in self.peers.iter() {
            let counted = peer.requests.iter().filter(|request| !request.late);
            asked.extend(counted.map(|request| (slot, request.block)));
        }
        let fields: Vec<&Bitfield> = self.peers.values().map(Peer::has).collect();
        self.picker.check_invariants(&asked, &fields);
        self.check_buffers();
        self.check_pieces();
    }

    /// Every buffer has one owner, and every pin is in one `sending`.
    fn check_buffers(&self) {
        let pins: usize = self.peers.values().map(|peer| peer.sending.len()).sum();
        assert_eq!(self.cache.pin_count() as usize, pins);
        if self.is_open() {
            assert_eq!(
                self.cache.taken_count(),
                self.picker.buffer_count()
                    + self.disk.load_count()
                    + self.read_queue.buffer_count()
            );
        }
        for chunk in self.cache.chunks() {
            let piece = chunk.piece;
            let there = self.have().get(piece);
            assert!(there, "piece {} could be sent, and is not there", piece.0);
        }
    }

    /// Every missing piece comes in exactly one way.
    fn check_pieces(&self) {
        let scans = self.config.scan == ScanPolicy::BeforeUse;
        let scanning = self.state == State::Scanning && scans;
        assert!(scanning || self.scan.is_over() || !self.is_open());
        if !self.is_open() || self.config.role == Role::Seeder {
            return;
        }
        let mut ways = alloc::vec![0; self.have().len() as usize];
        self.placing.count_ways(&mut ways);
        for fetched in self.picker.wanted().present() {
            let waits = |equal: &PieceIndex| !self.placing.is_coming(*equal);
            let equals = self.contents.equals(fetched).filter(waits);
            for piece in [fetched].into_iter().chain(equals) {
                ways[piece.index()] += 1;
            }
        }
        let missing = |piece: &PieceIndex| !self.scan.is_unknown(*piece);
        for piece in self.have().missing().filter(missing) {
            let ways = ways[piece.index()];
            assert_eq!(ways, 1, "piece {} comes in {ways} ways", piece.0);
        }
    }
}
