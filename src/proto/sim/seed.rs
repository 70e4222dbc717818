//! What happens in the run of a seed? All options of a run are drawn here, before it begins.
//!
//! Each kind of fault is off in many runs and wild in some ("swarm testing", Groce et al., ISSTA
//! 2012): a fault that is always there hides what happens without it.

use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use super::disk::{Contents, DiskFault, DiskOptions};
use super::fake_peer::BEHAVIOURS;
use super::image::{Bytes, Shape};
use super::options::{
    AgentOptions, Canary, FakeOptions, HashAnswers, HashUnit, Interruption, Options, Sizes,
};
use super::random::random_up_to;
use super::tracker::TrackerOptions;
use crate::limits::RATE_MIN;
use crate::policy::load::Compress;
use crate::rng::Rng;
use crate::swarm::{DiskOperation, Role, SeedingLimits};
use crate::units::Instant;

/// The slowest link, in bytes per second. On a slower one the blocks that a few peers have in
/// flight take longer than GREETING_MAX, and broken connections are never set up again. No cable is
/// as slow.
const SLOWEST: u64 = 32 * 1024;
impl Options {
    pub fn from_seed(seed: u64) -> Options {
        let rng = &mut Rng::new(seed);
        let piece_count = 40 + rng.below(121);
        // Those of more than four blocks are passed on in parts.
        let large_pieces = piece_count < 100 && rng.chance(1, 2);
        let blocks_per_piece = 1 + rng.below(if large_pieces { 20 } else { 4 });
        let piece_bytes = blocks_per_piece * 16384
            + if rng.chance(1, 4) {
                rng.below(16384)
            } else {
                0
            };
        let image_bytes = u64::from(piece_count) * u64::from(piece_bytes);
        // On one link the image takes 2 to 30 seconds.
        let rate = (image_bytes / u64::from(2 + rng.below(29))).max(SLOWEST);
        let span = Duration::from_millis(image_bytes * 1000 / rate);
        let leecher_count = 19 + rng.below(31);
        let odds = LeecherOdds::new(rate, span, rng);
        let leechers: Vec<AgentOptions> =
            (0..leecher_count).map(|_| odds.draw_agent(rng)).collect();
        let seeder = agent(Role::Seeder, rate, span, rng);
        let mut agents: Vec<AgentOptions> = core::iter::once(seeder).chain(leechers).collect();
        // From a generator of their own, so that these faults change no other choice of the seed.
        let aside = &mut Rng::new(!seed);
        limit_rates(&mut agents, aside);
        damage_targets(&mut agents[1..], aside);
        pause_machines(&mut agents[1..], span, aside);
        let hashes = hash_unit(aside);
        let nat_from = nat_from(leecher_count, aside);
        let read_back_distance = read_back_distance(image_bytes, aside);
        change_disks(&mut agents, aside);
        let rack_rates = rack_rates(&mut agents, rate, aside);
        let packed_percent = compress(&mut agents, &mut Rng::new(seed.rotate_left(32)));
        let fakes = fakes(leecher_count, rate, span, rng);
        let tracker_grace = Duration::from_secs(20 + u64::from(rng.below(21)));
        let tracker = rng.chance(9, 10).then(|| tracker(span, tracker_grace, rng));
        // Most event loops take 1 to 10 ms for a round; one that takes no time polls after every
        // event.
        let loop_micros = if rng.chance(1, 8) {
            0
        } else {
            1000 + rng.below(9000)
        };
        // If the tracker stops early, incomplete agents wait for it until the end.
        let stops_early = tracker
            .as_ref()
            .is_some_and(|tracker| tracker.stops_at.is_some());
        Options {
            seed,
            shape: Shape {
                packed_percent,
                ..shape(piece_count, piece_bytes, rng)
            },
            agents,
            fakes,
            nat_from,
            rack_rates,
            subnets_known: true,
            tracker,
            others_given: [0, 5][aside.below(2) as usize],
            tracker_grace,
            latency: Duration::from_micros(50)
                ..Duration::from_micros(100 + u64::from(rng.below(20_000))),
            sizes: sizes(rng, aside),
            cut_interval: rng.chance(1, 3).then(|| span / (1 + rng.below(60))),
            loop_time: Duration::from_micros(u64::from(loop_micros)),
            coarse: false,
            hashes,
            read_back_distance,
            check_every: 64,
            time_max: match stops_early {
                true => Duration::from_secs(100_000),
                false => span * 60 + Duration::from_secs(900),
            },
            canary: Canary::None,
            trace: false,
        }
    }
}

/// In two of three runs there are one to four rooms behind cables, and the seeder is in one of them
/// or in none.
fn rack_rates(agents: &mut [AgentOptions], rate: u64, rng: &mut Rng) -> Vec<u64> {
    let count = [0, 0, 1, 2, 3, 4][rng.below(6) as usize];
    for agent in agents {
        // 0: none.
        let rack = rng.below(count + 1) as usize;
        agent.rack = rack.checked_sub(1);
    }
    (0..count)
        .map(|_| rate * u64::from(1 + rng.below(4)))
        .collect()
}

/// The first machine behind NAT: none, some of the machines, or all but the seeder.
fn nat_from(leecher_count: u32, rng: &mut Rng) -> usize {
    match rng.below(4) {
        0 => 1,
        1 => 1 + rng.below(leecher_count) as usize,
        _ => usize::MAX,
    }
}

/// In half of the runs a single piece waits for a second one.
fn hash_unit(rng: &mut Rng) -> HashUnit {
    let patience_micros = match rng.below(2) {
        0 => 0,
        _ => 1 + rng.below(5000),
    };
    HashUnit {
        patience: Duration::from_micros(u64::from(patience_micros)),
        // Late and separate answers find most: half of the runs have them.
        answers: match rng.below(4) {
            0 => HashAnswers::AtOnce,
            1 => HashAnswers::Together,
            _ => HashAnswers::Apart,
        },
    }
}

/// In most runs some pieces are read back during the download, in some of them at once.
fn read_back_distance(image_bytes: u64, rng: &mut Rng) -> u64 {
    match rng.below(5) {
        0 => u64::MAX,
        1 => 0,
        _ => u64::from(rng.below(image_bytes as u32 / 2)),
    }
}

/// Some disks turn. Some of those that lose writes lose several, and some hide it until they are
/// flushed.
fn change_disks(agents: &mut [AgentOptions], rng: &mut Rng) {
    let share = fault_percent(rng);
    for agent in agents {
        let disk = &mut agent.disk;
        if rng.chance(share, 100) {
            disk.seek = random_up_to(Duration::from_millis(20), rng);
        }
        if let DiskFault::LosesWrite { count, hidden, .. } = &mut disk.fault {
            (*count, *hidden) = (1 + rng.below(3) * rng.below(5), rng.chance(1, 2));
        }
    }
}

/// Some agents compress always, some if they have the time, and some know nothing of it. Some are
/// so slow that they hold up their links. The result says what shrinks: everything, nothing, or
/// some pieces.
fn compress(agents: &mut [AgentOptions], rng: &mut Rng) -> Range<u32> {
    let modes = [Compress::Auto, Compress::Always, Compress::Never];
    for agent in agents {
        agent.compress = modes[rng.below(3) as usize];
        agent.packs = agent.up_rate * u64::from(1 + rng.below(100)) / 4;
    }
    let least = rng.below(100);
    least..least + 1 + rng.below(100)
}

/// How likely one kind of fault is in a run: percent for each agent or event, often 0.
fn fault_percent(rng: &mut Rng) -> u32 {
    match rng.below(6) {
        0..3 => 0,
        3 => 5,
        4 => 15,
        _ => 40,
    }
}

fn sizes(rng: &mut Rng, aside: &mut Rng) -> Sizes {
    Sizes {
        buffer: (16 * 1024) << rng.below(5),
        unsent: (16 * 1024) << aside.below(5),
        up: (16 * 1024) << aside.below(7),
        down: (16 * 1024) << aside.below(7),
    }
}

/// Chooses the pieces that are zeros, and those that repeat an earlier one.
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

/// An agent with nothing wrong yet.
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
        compress: Compress::Never,
        packs: rate,
        disk: DiskOptions {
            rate: disk_rate,
            latency_max: random_up_to(disk_latency, rng),
            seek: Duration::ZERO,
            contents: if role == Role::Seeder {
                Contents::Image
            } else {
                Contents::Garbage
            },
            fault: DiskFault::None,
        },
        spare_buffers: if rng.chance(1, 3) { 0 } else { rng.below(64) },
        starts_at: Instant(0),
        scan: true,
        verify: true,
        seed_for: None,
        limits: SeedingLimits::default(),
        interruption: Interruption::None,
        unplugged: None,
        stands_still: false,
    }
}

/// How likely each kind of trouble is for a leecher, and what all leechers of a run have in common.
struct LeecherOdds {
    rate: u64,
    /// How long the image takes on one link.
    span: Duration,
    late: u32,
    slow_link: u32,
    failing_disk: u32,
    losing_writes: u32,
    terminated: u32,
    killed: u32,
    unplugged: u32,
    limited_seeding: u32,
    further_seeder: u32,
    damaged_source: u32,
    verify: bool,
    scan: bool,
    used_targets: bool,
}

impl LeecherOdds {
    fn new(rate: u64, span: Duration, rng: &mut Rng) -> LeecherOdds {
        // Drawn in the order of this text: another order would change the run of every seed.
        LeecherOdds {
            rate,
            span,
            late: fault_percent(rng),
            slow_link: fault_percent(rng),
            failing_disk: fault_percent(rng),
            losing_writes: fault_percent(rng),
            terminated: fault_percent(rng),
            killed: fault_percent(rng),
            unplugged: fault_percent(rng),
            limited_seeding: fault_percent(rng),
            further_seeder: fault_percent(rng),
            damaged_source: fault_percent(rng),
            verify: rng.chance(9, 10),
            scan: rng.chance(3, 4),
            used_targets: rng.chance(1, 2),
        }
    }

    /// A leecher, or now and then a further seeder.
    fn draw_agent(&self, rng: &mut Rng) -> AgentOptions {
        let role = if rng.chance(self.further_seeder, 400) {
            Role::Seeder
        } else {
            Role::Leecher
        };
        let mut agent = agent(role, self.rate, self.span, rng);
        agent.verify = self.verify;
        agent.starts_at = Instant(u64::from(rng.below(2_000_000)));
        if rng.chance(self.late, 100) {
            agent.starts_at = self.random_instant(4, rng);
        }
        if rng.chance(self.slow_link, 100) {
            agent.up_rate = (self.rate / u64::from(1 + rng.below(20))).max(SLOWEST);
            agent.down_rate = (self.rate / u64::from(1 + rng.below(5))).max(SLOWEST);
        }
        self.draw_disk_fault(&mut agent, rng);
        self.draw_disk_contents(&mut agent, rng);
        agent.interruption = self.draw_interruption(rng);
        if rng.chance(self.unplugged, 200) {
            let from = self.random_instant(2, rng);
            agent.unplugged = Some((from, random_up_to(Duration::from_secs(60), rng)));
        }
        if rng.chance(self.limited_seeding, 200) {
            agent.seed_for = Some(Duration::from_secs(u64::from(rng.below(20))));
            self.draw_seeding_limits(&mut agent, rng);
        }
        agent
    }

    /// Another reason to leave, in place of the time of three agents in four.
    fn draw_seeding_limits(&self, agent: &mut AgentOptions, rng: &mut Rng) {
        let limits = &mut agent.limits;
        match rng.below(4) {
            0 => return,
            1 => limits.min_upload = Some(self.rate / u64::from(1 + rng.below(8))),
            2 => limits.ratio = Some(rng.below(2000)),
            _ => limits.idle = Some(Duration::from_secs(u64::from(rng.below(40)))),
        }
        agent.seed_for = None;
    }

    fn draw_disk_fault(&self, agent: &mut AgentOptions, rng: &mut Rng) {
        if rng.chance(self.failing_disk, 300) {
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
        } else if rng.chance(self.losing_writes, 300) && self.verify && agent.role == Role::Leecher
        {
            agent.disk.fault = DiskFault::LosesWrite {
                write: rng.below(30),
                count: 1,
                always: rng.chance(1, 2),
                hidden: false,
            };
        }
    }

    fn draw_disk_contents(&self, agent: &mut AgentOptions, rng: &mut Rng) {
        if agent.role == Role::Leecher {
            agent.scan = self.scan;
            agent.disk.contents = if self.used_targets {
                used_target(rng)
            } else {
                Contents::Garbage
            };
        } else if rng.chance(self.damaged_source, 100) {
            damage_source(&mut agent.disk, rng);
        } else {
            agent.scan = rng.chance(3, 4);
        }
    }

    fn draw_interruption(&self, rng: &mut Rng) -> Interruption {
        if rng.chance(self.terminated, 200) {
            Interruption::Terminated(self.random_instant(3, rng))
        } else if rng.chance(self.killed, 100) {
            let at = self.random_instant(3, rng);
            let restarts_at = rng.chance(2, 3).then(|| at + random_up_to(self.span, rng));
            Interruption::Killed {
                at,
                restarts_at,
                power_cut: rng.chance(1, 2),
            }
        } else {
            Interruption::None
        }
    }

    fn random_instant(&self, spans: u32, rng: &mut Rng) -> Instant {
        Instant(0) + random_up_to(self.span * spans, rng)
    }
}

/// Gives some agents a rate limit.
fn limit_rates(agents: &mut [AgentOptions], rng: &mut Rng) {
    let share = fault_percent(rng);
    for agent in agents {
        let mut draw = |rate: u64| {
            let limit = (rate / u64::from(1 + rng.below(8))).max(RATE_MIN);
            rng.chance(share, 100).then_some(limit)
        };
        (agent.max_up, agent.max_down) = (draw(agent.up_rate), draw(agent.down_rate));
    }
}

/// Gives some targets sectors that cannot be read, as after a power cut.
fn damage_targets(agents: &mut [AgentOptions], rng: &mut Rng) {
    let share = fault_percent(rng);
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

/// Some machines stand still for a while.
fn pause_machines(agents: &mut [AgentOptions], span: Duration, rng: &mut Rng) {
    let share = fault_percent(rng);
    for agent in agents {
        if rng.chance(share, 200) {
            let from = Instant(0) + random_up_to(span * 2, rng);
            agent.unplugged = Some((from, random_up_to(Duration::from_secs(60), rng)));
            agent.stands_still = true;
        }
    }
}

/// What a target holds that was in use before.
fn used_target(rng: &mut Rng) -> Contents {
    match rng.below(5) {
        0 => Contents::Zeros,
        1 => Contents::Garbage,
        2 => Contents::Image,
        3 => Contents::Part(95),
        _ => Contents::Part(rng.below(100)),
    }
}

/// Makes a source differ from the torrent, or unreadable in places.
fn damage_source(disk: &mut DiskOptions, rng: &mut Rng) {
    match rng.below(4) {
        0 => disk.contents = Contents::Garbage,
        1 => disk.contents = Contents::Part(rng.below(100)),
        _ => {
            disk.fault = DiskFault::Unreadable {
                one_in: 1 + rng.below(20),
            }
        }
    }
}

fn fakes(leecher_count: u32, rate: u64, span: Duration, rng: &mut Rng) -> Vec<FakeOptions> {
    let share = fault_percent(rng);
    let count = leecher_count * share / 100;
    // A run has one or two kinds of fake peers, or all of them.
    let kinds = if rng.chance(1, 3) {
        BEHAVIOURS.len() as u32
    } else {
        1 + rng.below(2)
    };
    let mut behaviours = BEHAVIOURS;
    rng.shuffle(&mut behaviours);
    let one = |index: u32, rng: &mut Rng| FakeOptions {
        behaviour: behaviours[(index % kinds) as usize],
        rate: rate / u64::from(1 + rng.below(4)),
        starts_at: Instant(0) + random_up_to(span, rng),
    };
    (0..count).map(|index| one(index, rng)).collect()
}

fn tracker(span: Duration, grace: Duration, rng: &mut Rng) -> TrackerOptions {
    let mut options = TrackerOptions {
        peers_max: 10 + rng.below(190) as usize,
        ..TrackerOptions::default()
    };
    let wild = fault_percent(rng);
    // Outages and lost announces together could look like one long outage to an agent that
    // announces at unlucky times.
    let outage_count = if rng.chance(1, 2) { wild / 5 } else { 0 };
    if wild > 0 && outage_count == 0 {
        options.loses_one_in = 5 + rng.below(20);
        options.refuses_one_in = 5 + rng.below(20);
        options.has_proxy = rng.chance(1, 3);
    }
    let mut from = Instant(0);
    for _ in 0..outage_count {
        // Shorter than the grace time, so that no agent may leave because of it.
        from = from + random_up_to(span * 2, rng);
        let length = random_up_to(grace - Duration::from_secs(1), rng);
        options.outages.push((from, length));
        from = from + length + Duration::from_secs(20);
    }
    if rng.chance(1, 20) {
        options.stops_at = Some(Instant(0) + random_up_to(span * 2, rng));
    }
    options
}
