//! What happens in a run? Everything about it is drawn from its seed here, before it begins.
//!
//! Each kind of fault is off in many runs and wild in some ("swarm testing", Groce et al., ISSTA
//! 2012): a fault that is always there hides what happens without it.

use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use super::disk::{DiskFault, DiskOptions, Holds};
use super::fake_peer::{MANNERS, Manner};
use super::image::{Bytes, Shape};
use super::tracker::TrackerOptions;
use crate::limits::{BUFFER_BYTES_MAX, RATE_MIN};
use crate::rng::Rng;
use crate::swarm::{DiskOperation, Role};
use crate::units::Instant;

#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    pub shape: Shape,
    /// The first one is a seeder that nothing happens to.
    pub agents: Vec<AgentOptions>,
    pub fakes: Vec<FakeOptions>,
    /// What the cable of each rack carries, each way.
    pub rack_rates: Vec<u64>,
    /// None: agents know each other from the command line.
    pub tracker: Option<TrackerOptions>,
    pub tracker_grace: Duration,
    /// One way; each connection has its own.
    pub latency: Range<Duration>,
    /// What a connection's send window holds.
    pub window_bytes: u32,
    /// Connections break, about so often.
    pub cut_every: Option<Duration>,
    /// How long a process works between two rounds of its loop; zero: it runs after every event.
    pub turn: Duration,
    /// For measuring large rooms: the loop comes round at once if its last turn was long enough
    /// ago, and small messages have no events of their own.
    pub alert: bool,
    pub hashes: HashUnit,
    /// Invariants are recounted after one round in so many.
    pub check_every: u64,
    /// Nobody may need longer than this.
    pub patience: Duration,
    pub canary: Canary,
    /// Print what happens to connections.
    pub trace: bool,
}

/// How the hash units of all agents work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashUnit {
    /// How long a single piece waits for a second one; zero: it does not.
    pub patience: Duration,
    pub answers: HashAnswers,
}

/// When the hash of a piece is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashAnswers {
    /// Before anything else happens, as in the product.
    AtOnce,
    /// A little later; of two pieces that are hashed together, both in the same moment.
    Together,
    /// A little later, and of two pieces in any order.
    Apart,
}

/// What is wrong with every agent: the checker must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    None,
    /// The hash unit finds every piece good that came in, or that was read from the disk.
    BlindToDownloads,
    BlindToTheDisk,
    SkipsReadBack,
    /// Writes count before they are over.
    AnnouncesEarly,
}

#[derive(Clone, Debug)]
pub struct AgentOptions {
    pub role: Role,
    pub up_rate: u64,
    pub down_rate: u64,
    pub rack: Option<usize>,
    /// What it was told to keep to (`--max-up`, `--max-down`).
    pub max_up: Option<u64>,
    pub max_down: Option<u64>,
    pub disk: DiskOptions,
    /// Buffers beyond the fewest possible.
    pub spare_buffers: u32,
    pub starts_at: Instant,
    pub look: bool,
    pub verify: bool,
    pub seed_for: Option<Duration>,
    pub fate: Fate,
    /// Its cable is out: from, how long.
    pub unplugged: Option<(Instant, Duration)>,
}

/// What happens to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    None,
    Leaves(Instant),
    /// Dies without a word, and perhaps starts again with what the disk holds then. Without power
    /// that is less.
    Dies {
        at: Instant,
        returns_at: Option<Instant>,
        power: bool,
    },
}

impl AgentOptions {
    /// Its disk is not what it says: others may rightly find it a liar.
    pub fn has_lying_disk(&self) -> bool {
        matches!(self.disk.fault, DiskFault::Forgets { .. })
    }
}

#[derive(Clone, Debug)]
pub struct FakeOptions {
    pub manner: Manner,
    pub rate: u64,
    pub starts_at: Instant,
}

impl FakeOptions {
    /// Holds a place for a moment.
    pub fn nobody() -> FakeOptions {
        FakeOptions {
            manner: Manner::Ignores,
            rate: 1,
            starts_at: Instant(0),
        }
    }
}

/// How wild a run is in one respect: chance in percent for each agent or event, usually none.
fn wildness(rng: &mut Rng) -> u32 {
    match rng.below(6) {
        0..3 => 0,
        3 => 5,
        4 => 15,
        _ => 40,
    }
}

/// On slower links what a few peers have in flight takes longer than GREETING_MAX, and connections
/// that break now and then are never set up again. No cable is as slow.
const SLOWEST: u64 = 32 * 1024;
const MIB: u64 = 1024 * 1024;

impl Options {
    /// A swarm of `leechers` with equal links and nothing going wrong, for measuring.
    pub fn equal_links(leechers: u32, piece_count: u32, piece_bytes: u32, rate: u64) -> Options {
        let disk = |role| DiskOptions {
            rate: 100 * rate,
            latency_max: Duration::from_micros(200),
            holds: if role == Role::Seeder {
                Holds::Image
            } else {
                Holds::Zeros
            },
            fault: DiskFault::None,
        };
        let agent = |role| AgentOptions {
            role,
            up_rate: rate,
            down_rate: rate,
            rack: None,
            max_up: None,
            max_down: None,
            disk: disk(role),
            spare_buffers: (48 * MIB / u64::from(piece_bytes.min(BUFFER_BYTES_MAX))) as u32,
            starts_at: Instant(0),
            look: true,
            verify: true,
            seed_for: None,
            fate: Fate::None,
            unplugged: None,
        };
        let leechers = (0..leechers).map(|index| AgentOptions {
            // Machines that were switched on together are not ready within the same microsecond.
            starts_at: Instant(1_000_000 + u64::from(index) * 997),
            ..agent(Role::Leecher)
        });
        Options {
            seed: 1,
            shape: Shape::of_distinct(piece_count, piece_bytes, piece_bytes),
            agents: core::iter::once(agent(Role::Seeder))
                .chain(leechers)
                .collect(),
            fakes: Vec::new(),
            rack_rates: Vec::new(),
            tracker: Some(TrackerOptions {
                peers_max: 200,
                ..TrackerOptions::default()
            }),
            tracker_grace: Duration::from_secs(30),
            latency: Duration::from_micros(100)..Duration::from_micros(200),
            window_bytes: 256 * 1024,
            cut_every: None,
            turn: Duration::ZERO,
            alert: false,
            hashes: HashUnit {
                patience: Duration::ZERO,
                answers: HashAnswers::Apart,
            },
            check_every: 10_000,
            patience: Duration::from_secs(100_000),
            canary: Canary::None,
            trace: false,
        }
    }

    pub fn from_seed(seed: u64) -> Options {
        let rng = &mut Rng::new(seed);
        let piece_count = 40 + rng.below(121);
        let large_pieces = piece_count < 80 && rng.chance(1, 3);
        let blocks_per_piece = 1 + rng.below(if large_pieces { 20 } else { 4 });
        let piece_bytes = blocks_per_piece * 16384
            + if rng.chance(1, 4) {
                rng.below(16384)
            } else {
                0
            };
        let image_bytes = u64::from(piece_count) * u64::from(piece_bytes);
        // The link rate: the image takes 2 to 30 seconds.
        let rate = (image_bytes / u64::from(2 + rng.below(29))).max(SLOWEST);
        let span = Duration::from_millis(image_bytes * 1000 / rate);
        let leecher_count = 19 + rng.below(31);
        let leechers = leechers(leecher_count, rate, span, rng);
        let seeder = agent(Role::Seeder, rate, span, rng);
        let mut agents: Vec<AgentOptions> = core::iter::once(seeder).chain(leechers).collect();
        let aside = &mut Rng::new(!seed);
        limit(&mut agents, aside);
        tear(&mut agents[1..], aside);
        let hashes = hash_unit(aside);
        let fakes = fakes(leecher_count, rate, span, rng);
        let tracker_grace = Duration::from_secs(20 + u64::from(rng.below(21)));
        let tracker = rng.chance(9, 10).then(|| tracker(span, tracker_grace, rng));
        // Most loops take a moment for a round; where they take none, everything is polled after
        // every event.
        let turn = if rng.chance(1, 8) {
            0
        } else {
            1000 + rng.below(9000)
        };
        let turn = Duration::from_micros(u64::from(turn));
        let patience = span * 60 + Duration::from_secs(900);
        // Where the tracker goes early it is the waiting that is to be seen.
        let stops_early = tracker
            .as_ref()
            .is_some_and(|tracker| tracker.stops_at.is_some());
        Options {
            seed,
            shape: shape(piece_count, piece_bytes, rng),
            agents,
            fakes,
            rack_rates: Vec::new(),
            tracker,
            tracker_grace,
            latency: Duration::from_micros(50)
                ..Duration::from_micros(100 + u64::from(rng.below(20_000))),
            window_bytes: (16 * 1024) << rng.below(5),
            cut_every: rng.chance(1, 3).then(|| span / (1 + rng.below(60))),
            turn,
            alert: false,
            hashes,
            check_every: 64,
            patience: if stops_early {
                Duration::from_secs(100_000)
            } else {
                patience
            },
            canary: Canary::None,
            trace: false,
        }
    }
}

/// Which pieces are zeros, and which are like an earlier one.
fn shape(piece_count: u32, piece_bytes: u32, rng: &mut Rng) -> Shape {
    let last_piece_bytes = if rng.chance(1, 4) {
        piece_bytes
    } else {
        1 + rng.below(piece_bytes)
    };
    let mut shape = Shape::of_distinct(piece_count, piece_bytes, last_piece_bytes);
    let zeros = [0, 0, 20, 80][rng.below(4) as usize];
    let repeated = [0, 0, 10, 60][rng.below(4) as usize];
    for index in 0..piece_count {
        let like = rng.below(index + 1);
        let short = index + 1 == piece_count && last_piece_bytes < piece_bytes;
        if rng.chance(zeros, 100) {
            shape.pieces[index as usize] = Bytes::Zeros;
        } else if rng.chance(repeated, 100) && !short && shape.pieces[like as usize] != Bytes::Zeros
        {
            shape.pieces[index as usize] = shape.pieces[like as usize];
        }
    }
    shape
}

/// The seeder, and what every agent starts from.
fn agent(role: Role, rate: u64, span: Duration, rng: &mut Rng) -> AgentOptions {
    let disk_rate = rate * u64::from(1 + rng.below(20)) / 2;
    let disk_latency = (span / 20).min(Duration::from_millis(200));
    AgentOptions {
        role,
        up_rate: rate,
        down_rate: rate,
        rack: None,
        max_up: None,
        max_down: None,
        disk: DiskOptions {
            rate: disk_rate,
            latency_max: super::disk::random_part(disk_latency, rng),
            holds: if role == Role::Seeder {
                Holds::Image
            } else {
                Holds::Garbage
            },
            fault: DiskFault::None,
        },
        spare_buffers: if rng.chance(1, 3) { 0 } else { rng.below(64) },
        starts_at: Instant(0),
        look: true,
        verify: true,
        seed_for: None,
        fate: Fate::None,
        unplugged: None,
    }
}

fn leechers(count: u32, rate: u64, span: Duration, rng: &mut Rng) -> Vec<AgentOptions> {
    let [
        late,
        slow,
        failing,
        lying,
        leaving,
        dying,
        unplugged,
        hasty,
        further_seeder,
        damaged,
    ] = core::array::from_fn(|_| wildness(rng));
    let verify = rng.chance(9, 10);
    let look = rng.chance(3, 4);
    let prepared = rng.chance(1, 2);
    let moment =
        |spans: u32, rng: &mut Rng| Instant(0) + super::disk::random_part(span * spans, rng);
    let one = |rng: &mut Rng| {
        let role = if rng.chance(further_seeder, 400) {
            Role::Seeder
        } else {
            Role::Leecher
        };
        let mut agent = agent(role, rate, span, rng);
        agent.verify = verify;
        agent.starts_at = Instant(u64::from(rng.below(2_000_000)));
        if rng.chance(late, 100) {
            agent.starts_at = moment(4, rng);
        }
        if rng.chance(slow, 100) {
            agent.up_rate = (rate / u64::from(1 + rng.below(20))).max(SLOWEST);
            agent.down_rate = (rate / u64::from(1 + rng.below(5))).max(SLOWEST);
        }
        if rng.chance(failing, 300) {
            let operation = [
                DiskOperation::Read,
                DiskOperation::Write,
                DiskOperation::Flush,
            ][rng.below(3) as usize];
            let from = if operation == DiskOperation::Flush {
                0
            } else {
                rng.below(60)
            };
            agent.disk.fault = DiskFault::Fails { operation, from };
        } else if rng.chance(lying, 300) && verify && role == Role::Leecher {
            agent.disk.fault = DiskFault::Forgets {
                write: rng.below(30),
                always: rng.chance(1, 2),
            };
        }
        if role == Role::Leecher {
            agent.look = look;
            agent.disk.holds = if prepared {
                anything(rng)
            } else {
                Holds::Garbage
            };
        } else if rng.chance(damaged, 100) {
            damage(&mut agent.disk, rng);
        } else {
            agent.look = rng.chance(3, 4);
        }
        if rng.chance(leaving, 200) {
            agent.fate = Fate::Leaves(moment(3, rng));
        } else if rng.chance(dying, 100) {
            let at = moment(3, rng);
            let returns_at = rng
                .chance(2, 3)
                .then(|| at + super::disk::random_part(span, rng));
            agent.fate = Fate::Dies {
                at,
                returns_at,
                power: rng.chance(1, 2),
            };
        }
        if rng.chance(unplugged, 200) {
            agent.unplugged = Some((
                moment(2, rng),
                super::disk::random_part(Duration::from_secs(60), rng),
            ));
        }
        if rng.chance(hasty, 200) {
            agent.seed_for = Some(Duration::from_secs(u64::from(rng.below(20))));
        }
        agent
    };
    (0..count).map(|_| one(rng)).collect()
}

/// Some keep to a limit. Drawn aside, so that a seed without limits stays the run it was.
fn limit(agents: &mut [AgentOptions], rng: &mut Rng) {
    let share = wildness(rng);
    for agent in agents {
        let mut draw = |rate: u64| {
            let limit = (rate / u64::from(1 + rng.below(8))).max(RATE_MIN);
            rng.chance(share, 100).then_some(limit)
        };
        (agent.max_up, agent.max_down) = (draw(agent.up_rate), draw(agent.down_rate));
    }
}

/// Some have sectors that a power cut has torn.
fn tear(agents: &mut [AgentOptions], rng: &mut Rng) {
    let share = wildness(rng);
    for agent in agents
        .iter_mut()
        .filter(|agent| agent.disk.fault == DiskFault::None)
    {
        if rng.chance(share, 100) && agent.role == Role::Leecher {
            agent.disk.fault = DiskFault::Unreadable {
                one_in: 1 + rng.below(20),
            };
        }
    }
}

fn hash_unit(rng: &mut Rng) -> HashUnit {
    let patience = match rng.below(2) {
        0 => 0,
        _ => 1 + rng.below(5000),
    };
    HashUnit {
        patience: Duration::from_micros(u64::from(patience)),
        answers: match rng.below(3) {
            0 => HashAnswers::AtOnce,
            1 => HashAnswers::Together,
            _ => HashAnswers::Apart,
        },
    }
}

/// What a target may hold.
fn anything(rng: &mut Rng) -> Holds {
    match rng.below(5) {
        0 => Holds::Zeros,
        1 => Holds::Garbage,
        2 => Holds::Image,
        3 => Holds::Part(95),
        _ => Holds::Part(rng.below(100)),
    }
}

/// A source that is not what the torrent says, or cannot be read everywhere.
fn damage(disk: &mut DiskOptions, rng: &mut Rng) {
    match rng.below(4) {
        0 => disk.holds = Holds::Garbage,
        1 => disk.holds = Holds::Part(rng.below(100)),
        _ => {
            disk.fault = DiskFault::Unreadable {
                one_in: 1 + rng.below(20),
            }
        }
    }
}

fn fakes(leecher_count: u32, rate: u64, span: Duration, rng: &mut Rng) -> Vec<FakeOptions> {
    let share = wildness(rng);
    let count = leecher_count * share / 100;
    // A run has one or two kinds of rude peers, or all of them.
    let kinds = if rng.chance(1, 3) {
        MANNERS.len() as u32
    } else {
        1 + rng.below(2)
    };
    let mut manners = MANNERS;
    rng.shuffle(&mut manners);
    let one = |index: u32, rng: &mut Rng| FakeOptions {
        manner: manners[(index % kinds) as usize],
        rate: rate / u64::from(1 + rng.below(4)),
        starts_at: Instant(0) + super::disk::random_part(span, rng),
    };
    (0..count).map(|index| one(index, rng)).collect()
}

fn tracker(span: Duration, grace: Duration, rng: &mut Rng) -> TrackerOptions {
    let mut options = TrackerOptions {
        peers_max: 10 + rng.below(190) as usize,
        ..TrackerOptions::default()
    };
    let wild = wildness(rng);
    // Both at once could look like one long absence to an agent that asks at the wrong moments.
    let outage_count = if rng.chance(1, 2) { wild / 5 } else { 0 };
    if wild > 0 && outage_count == 0 {
        options.loses_one_in = 5 + rng.below(20);
        options.refuses_one_in = 5 + rng.below(20);
    }
    let mut from = Instant(0);
    for _ in 0..outage_count {
        // Shorter than the grace time: releases nobody.
        from = from + super::disk::random_part(span * 2, rng);
        let length = super::disk::random_part(grace - Duration::from_secs(1), rng);
        options.outages.push((from, length));
        from = from + length + Duration::from_secs(20);
    }
    if rng.chance(1, 20) {
        options.stops_at = Some(Instant(0) + super::disk::random_part(span * 2, rng));
    }
    options
}
