//! What can be chosen about a run?

use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use super::disk::{DiskFault, DiskOptions, Holds};
use super::fake_peer::Manner;
use super::image::Shape;
use super::tracker::TrackerOptions;
use crate::limits::BUFFER_BYTES_MAX;
use crate::swarm::Role;
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
    /// ago, hashes are ready at once, and small messages have no events of their own.
    pub alert: bool,
    /// Invariants are recounted after one round in so many.
    pub check_every: u64,
    /// Nobody may need longer than this.
    pub patience: Duration,
    pub canary: Canary,
    /// Print what happens to connections.
    pub trace: bool,
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
            check_every: 10_000,
            patience: Duration::from_secs(100_000),
            canary: Canary::None,
            trace: false,
        }
    }
}
