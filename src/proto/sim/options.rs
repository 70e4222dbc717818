//! What can be chosen about a run?

use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use super::disk::{Contents, DiskFault, DiskOptions};
use super::fake_peer::Behaviour;
use super::image::Shape;
use super::tracker::TrackerOptions;
use crate::limits::{BUFFER_BYTES_MAX, READ_BACK_DISTANCE};
use crate::policy::load::Compress;
use crate::swarm::{Role, SeedingLimits};
use crate::units::Instant;

/// Everything that is chosen about a run before it begins.
#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    pub shape: Shape,
    /// Agent 0 is a seeder that nothing happens to.
    pub agents: Vec<AgentOptions>,
    pub fakes: Vec<FakeOptions>,
    /// Machines from this number on have one address, each with a port of its own (NAT).
    pub nat_from: usize,
    /// Bytes per second that the cable of each rack carries, each way.
    pub rack_rates: Vec<u64>,
    /// Machines know the subnets of their racks.
    pub subnets_known: bool,
    /// Without a tracker, agents know agent 0 from the command line, and `others_given` others.
    pub tracker: Option<TrackerOptions>,
    pub others_given: u32,
    pub tracker_grace: Duration,
    /// One way. Each connection draws its own.
    pub latency: Range<Duration>,
    pub sizes: Sizes,
    /// Mean time between two broken connections.
    pub cut_interval: Option<Duration>,
    /// How long one round of a process's event loop takes. Zero: the loop runs after every event.
    pub loop_time: Duration,
    /// Simulates with fewer events, to measure large rooms: an event loop runs at once if its last
    /// round is `loop_time` ago, and small messages have no events of their own.
    pub coarse: bool,
    pub hashes: HashUnit,
    /// Bytes that are written between a piece and its read-back during the download.
    pub read_back_distance: u64,
    /// Rounds of an agent between two checks of its invariants.
    pub check_every: u64,
    /// A run that takes longer than this has failed.
    pub time_max: Duration,
    pub canary: Canary,
    /// Prints what happens to connections.
    pub trace: bool,
}

/// How many bytes wait where.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Send buffer of a connection.
    pub buffer: u32,
    /// Bytes in there that are not sent yet, from which on it takes no more.
    pub unsent: u32,
    /// Queue of a machine before its uplink, and before its downlink.
    pub up: u32,
    pub down: u32,
}

/// How the hash units of all agents work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashUnit {
    /// How long a single piece waits for a second one. Zero: it does not wait.
    pub patience: Duration,
    pub answers: HashAnswers,
}

/// When the hash of a piece is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashAnswers {
    /// Before anything else happens, as in the product.
    AtOnce,
    /// A little later. Two pieces that are hashed together are known in the same moment.
    Together,
    /// A little later. Two pieces that are hashed together are known one after the other, in any
    /// order.
    Apart,
}

/// A defect that every agent of a run has, and that the checker must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    None,
    /// The hash unit finds every downloaded piece good.
    AcceptsBadDownloads,
    /// The hash unit finds every part of an open piece good.
    AcceptsBadParts,
    /// The hash unit finds every piece good that was read from the disk.
    AcceptsBadReads,
    SkipsReadBack,
    /// A flush is reported as done, and nothing was flushed.
    SkipsFlush,
    /// Pieces are read back as soon as they are flushed.
    ReadsBackTooSoon,
    /// A write is reported as done when it is submitted.
    AnnouncesUnwritten,
}

#[derive(Clone, Debug)]
pub struct AgentOptions {
    pub role: Role,
    pub up_rate: u64,
    pub down_rate: u64,
    pub rack: Option<usize>,
    /// `--max-up` and `--max-down`, in bytes per second.
    pub max_up: Option<u64>,
    pub max_down: Option<u64>,
    pub compress: Compress,
    /// Bytes per second that it compresses. Meanwhile it does nothing else.
    pub packs: u64,
    pub disk: DiskOptions,
    /// Buffers beyond the smallest possible number.
    pub spare_buffers: u32,
    pub starts_at: Instant,
    pub scan: bool,
    pub verify: bool,
    pub seed_for: Option<Duration>,
    pub limits: SeedingLimits,
    pub interruption: Interruption,
    /// When its cable is pulled out, and for how long.
    pub unplugged: Option<(Instant, Duration)>,
    /// The machine stands still meanwhile: a virtual machine that is paused, or SIGSTOP.
    pub stands_still: bool,
}

/// What happens to the process of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    None,
    /// The process gets SIGTERM.
    Terminated(Instant),
    /// The process ends without a warning, and perhaps starts again with what the disk holds then.
    /// A power cut also loses some of what was not flushed.
    Killed {
        at: Instant,
        restarts_at: Option<Instant>,
        power_cut: bool,
    },
}

impl AgentOptions {
    /// Its disk loses writes without an error, so other agents may rightly find that it sends bad
    /// blocks.
    pub fn has_lying_disk(&self) -> bool {
        matches!(self.disk.fault, DiskFault::LosesWrite { .. })
    }
}

#[derive(Clone, Debug)]
pub struct FakeOptions {
    pub behaviour: Behaviour,
    pub rate: u64,
    pub starts_at: Instant,
}

impl FakeOptions {
    /// A placeholder while a machine changes its state.
    pub fn placeholder() -> FakeOptions {
        FakeOptions {
            behaviour: Behaviour::NeverAnswers,
            rate: 1,
            starts_at: Instant(0),
        }
    }
}

const MIB: u64 = 1024 * 1024;

impl Options {
    /// A room of `leechers` with equal links in which nothing goes wrong, for measuring.
    pub fn equal_links(leechers: u32, piece_count: u32, piece_bytes: u32, rate: u64) -> Options {
        let disk = |role| DiskOptions {
            rate: 100 * rate,
            latency_max: Duration::from_micros(200),
            seek: Duration::ZERO,
            contents: match role {
                Role::Seeder => Contents::Image,
                Role::Leecher => Contents::Zeros,
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
            compress: Compress::Never,
            packs: 500_000_000,
            disk: disk(role),
            spare_buffers: (48 * MIB / u64::from(piece_bytes.min(BUFFER_BYTES_MAX))) as u32,
            starts_at: Instant(0),
            scan: true,
            verify: true,
            seed_for: None,
            limits: SeedingLimits::default(),
            interruption: Interruption::None,
            unplugged: None,
            stands_still: false,
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
            nat_from: usize::MAX,
            rack_rates: Vec::new(),
            subnets_known: true,
            tracker: Some(TrackerOptions {
                peers_max: 200,
                ..TrackerOptions::default()
            }),
            others_given: 0,
            tracker_grace: Duration::from_secs(30),
            latency: Duration::from_micros(100)..Duration::from_micros(200),
            sizes: Sizes {
                buffer: 256 * 1024,
                unsent: 256 * 1024,
                up: 128 * 1024,
                down: 256 * 1024,
            },
            cut_interval: None,
            loop_time: Duration::ZERO,
            coarse: false,
            hashes: HashUnit {
                patience: Duration::ZERO,
                answers: HashAnswers::Apart,
            },
            read_back_distance: READ_BACK_DISTANCE,
            check_every: 10_000,
            time_max: Duration::from_secs(100_000),
            canary: Canary::None,
            trace: false,
        }
    }
}
