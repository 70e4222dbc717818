//! What happens in the run of a seed? Everything about it is drawn here, before it begins.
//!
//! Each kind of fault is off in many runs and wild in some ("swarm testing", Groce et al., ISSTA
//! 2012): a fault that is always there hides what happens without it.

use alloc::vec::Vec;
use core::time::Duration;

use super::disk::{DiskFault, DiskOptions, Holds};
use super::fake_peer::MANNERS;
use super::image::{Bytes, Shape};
use super::options::{AgentOptions, Canary, FakeOptions, Fate, Options};
use super::random::random_part;
use super::tracker::TrackerOptions;
use crate::limits::RATE_MIN;
use crate::rng::Rng;
use crate::swarm::{DiskOperation, Role};
use crate::units::Instant;

/// On slower links what a few peers have in flight takes longer than GREETING_MAX, and connections
/// that break now and then are never set up again. No cable is as slow.
const SLOWEST: u64 = 32 * 1024;
impl Options {
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
        let common = Leechers::new(rate, span, rng);
        let leechers: Vec<AgentOptions> = (0..leecher_count).map(|_| common.one(rng)).collect();
        let seeder = agent(Role::Seeder, rate, span, rng);
        let mut agents: Vec<AgentOptions> = core::iter::once(seeder).chain(leechers).collect();
        let aside = &mut Rng::new(!seed);
        limit(&mut agents, aside);
        tear(&mut agents[1..], aside);
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

/// How wild a run is in one respect: chance in percent for each agent or event, usually none.
fn wildness(rng: &mut Rng) -> u32 {
    match rng.below(6) {
        0..3 => 0,
        3 => 5,
        4 => 15,
        _ => 40,
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
            latency_max: random_part(disk_latency, rng),
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

/// How wild a run is in each respect, and what all leechers have in common.
struct Leechers {
    rate: u64,
    /// How long the image takes on one link.
    span: Duration,
    late: u32,
    slow: u32,
    failing: u32,
    lying: u32,
    leaving: u32,
    dying: u32,
    unplugged: u32,
    hasty: u32,
    further_seeder: u32,
    damaged: u32,
    verify: bool,
    look: bool,
    prepared: bool,
}

impl Leechers {
    fn new(rate: u64, span: Duration, rng: &mut Rng) -> Leechers {
        // Fields are drawn in this order.
        Leechers {
            rate,
            span,
            late: wildness(rng),
            slow: wildness(rng),
            failing: wildness(rng),
            lying: wildness(rng),
            leaving: wildness(rng),
            dying: wildness(rng),
            unplugged: wildness(rng),
            hasty: wildness(rng),
            further_seeder: wildness(rng),
            damaged: wildness(rng),
            verify: rng.chance(9, 10),
            look: rng.chance(3, 4),
            prepared: rng.chance(1, 2),
        }
    }

    /// One leecher, or now and then a further seeder.
    fn one(&self, rng: &mut Rng) -> AgentOptions {
        let role = if rng.chance(self.further_seeder, 400) {
            Role::Seeder
        } else {
            Role::Leecher
        };
        let mut agent = agent(role, self.rate, self.span, rng);
        agent.verify = self.verify;
        agent.starts_at = Instant(u64::from(rng.below(2_000_000)));
        if rng.chance(self.late, 100) {
            agent.starts_at = self.moment(4, rng);
        }
        if rng.chance(self.slow, 100) {
            agent.up_rate = (self.rate / u64::from(1 + rng.below(20))).max(SLOWEST);
            agent.down_rate = (self.rate / u64::from(1 + rng.below(5))).max(SLOWEST);
        }
        self.disk_fault(&mut agent, rng);
        self.disk_contents(&mut agent, rng);
        agent.fate = self.fate(rng);
        if rng.chance(self.unplugged, 200) {
            let from = self.moment(2, rng);
            agent.unplugged = Some((from, random_part(Duration::from_secs(60), rng)));
        }
        if rng.chance(self.hasty, 200) {
            agent.seed_for = Some(Duration::from_secs(u64::from(rng.below(20))));
        }
        agent
    }

    fn disk_fault(&self, agent: &mut AgentOptions, rng: &mut Rng) {
        if rng.chance(self.failing, 300) {
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
        } else if rng.chance(self.lying, 300) && self.verify && agent.role == Role::Leecher {
            agent.disk.fault = DiskFault::Forgets {
                write: rng.below(30),
                always: rng.chance(1, 2),
            };
        }
    }

    fn disk_contents(&self, agent: &mut AgentOptions, rng: &mut Rng) {
        if agent.role == Role::Leecher {
            agent.look = self.look;
            agent.disk.holds = if self.prepared {
                anything(rng)
            } else {
                Holds::Garbage
            };
        } else if rng.chance(self.damaged, 100) {
            damage(&mut agent.disk, rng);
        } else {
            agent.look = rng.chance(3, 4);
        }
    }

    fn fate(&self, rng: &mut Rng) -> Fate {
        if rng.chance(self.leaving, 200) {
            Fate::Leaves(self.moment(3, rng))
        } else if rng.chance(self.dying, 100) {
            let at = self.moment(3, rng);
            let returns_at = rng.chance(2, 3).then(|| at + random_part(self.span, rng));
            Fate::Dies {
                at,
                returns_at,
                power: rng.chance(1, 2),
            }
        } else {
            Fate::None
        }
    }

    fn moment(&self, spans: u32, rng: &mut Rng) -> Instant {
        Instant(0) + random_part(self.span * spans, rng)
    }
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
        starts_at: Instant(0) + random_part(span, rng),
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
        from = from + random_part(span * 2, rng);
        let length = random_part(grace - Duration::from_secs(1), rng);
        options.outages.push((from, length));
        from = from + length + Duration::from_secs(20);
    }
    if rng.chance(1, 20) {
        options.stops_at = Some(Instant(0) + random_part(span * 2, rng));
    }
    options
}
