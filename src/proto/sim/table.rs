//! How close to the theoretical limit does a whole room come? Prints the table for tuning policies,
//! and the one in README. Asserts nothing.
//!
//! `scripts/sim` runs it and explains its options.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use std::{env, format, fs, println};

use super::options::{AgentOptions, HashAnswers, Interruption, Options, Sizes};
use super::report::Report;
use super::run::run;
use super::world::ARRIVALS_INTERVAL;

use crate::limits::{BLOCK_BYTES, GATEWAYS};
use crate::policy::load::Compress;
use crate::units::Instant;
use crate::wire::message::PIECE_HEADER_BYTES;

/// Bytes per second of every link, both ways: 25 Mbit/s, as in scripts/bench. A piece of
/// `PIECE_KIB` takes about as long as 2 MiB on gigabit Ethernet.
const RATE: u64 = 3_125_000;
const PIECE_KIB: u32 = 64;

/// The queue before an uplink, and before a downlink: those of `scripts/bench`.
const QUEUE_BYTES: &str = "125000";

/// What a socket takes that is not acknowledged. The kernel lets a send buffer grow to 4 MiB
/// (tcp(7), tcp_wmem); the requests that stand with a peer never need as much.
const SEND_BUFFER_BYTES: u32 = 2 * 1024 * 1024;

const LEECHERS: &str = "1,2,4,8,16,32,64,125";
const PIECES: &str = "1000";

const REQUEST_BYTES: u32 = 17;

/// Machines in a rack, and the rate of its cable in links.
const RACK: usize = 20;
const RACK_LINKS: u64 = 4;

/// Rooms, and the rate of the cable of each in links.
const ROOMS: &str = "3";
const CABLE_LINKS: &str = "1";

/// The machines of each room that die: those with the lowest addresses.
const DYING_ROUTED: usize = GATEWAYS as usize;

const BOOT_GAP: Duration = Duration::from_millis(100);

/// What differs from a room of equal links without trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scenario {
    Equal,
    /// Every second link has half the rate.
    Half,
    /// Every tenth link has a tenth of the rate.
    Tenth,
    /// Racks with thin cables; the seeder is in none.
    Racks,
    /// Every fourth machine starts when the others should have half of the image.
    Late,
    /// Each machine starts BOOT_GAP after the previous one.
    Boot,
    /// Every fifth machine is killed when it should have about half of the image.
    Dying,
    /// There is no tracker, and all know only the seed.
    Untracked,
    /// Rooms behind cables; the seeder is in none.
    Rooms,
    /// The last room starts when the others should have half of the image.
    LateRoom,
    /// The machines that fetch through the cable of their room are killed when they should have
    /// about half of the image.
    DyingRoom,
}

use Scenario::*;

const SCENARIOS: [(&str, Scenario); 11] = [
    ("equal", Equal),
    ("half", Half),
    ("tenth", Tenth),
    ("racks", Racks),
    ("late", Late),
    ("boot", Boot),
    ("dying", Dying),
    ("untracked", Untracked),
    ("rooms", Rooms),
    ("late-room", LateRoom),
    ("dying-room", DyingRoom),
];

struct Room {
    scenario: Scenario,
    leechers: u32,
    pieces: u32,
    piece_bytes: u32,
}

#[test]
#[ignore = "prints a table, proves nothing"]
fn sim_table() {
    println!(
        "| links | leechers | pieces | limit | last | last / limit | healthy / T* | median / T* | in vain | seed sent \
         | cable | events | host |"
    );
    println!("| :-- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |");
    let (mut phases, mut spread) = (Vec::new(), Vec::new());
    for scenario in scenarios() {
        for piece_kib in numbers("SWARMDD_SIM_PIECE_KIB", &format!("{PIECE_KIB}")) {
            for pieces in numbers("SWARMDD_SIM_PIECES", PIECES) {
                for leechers in numbers("SWARMDD_SIM_LEECHERS", LEECHERS) {
                    let room = Room {
                        scenario,
                        leechers,
                        pieces,
                        piece_bytes: piece_kib * 1024,
                    };
                    let begun = host_seconds();
                    let report = run(room.options());
                    println!("{}", room.row(&report, host_seconds() - begun));
                    phases.extend(room.phases(&report));
                    spread.extend(room.spread(&report));
                }
            }
        }
    }
    if env::var_os("SWARMDD_SIM_PHASES").is_some() {
        println!("\n| leechers | link | 1/10 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | of the time |");
        println!("| --: | :-- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |");
        phases.iter().for_each(|row| println!("{row}"));
    }
    if env::var_os("SWARMDD_SIM_SPREAD").is_some() {
        println!("\n| leechers | pieces | first copies | 2nd | 4th | half | 9/10 | all |");
        println!("| --: | --: | :-- | --: | --: | --: | --: | --: |");
        spread.iter().for_each(|row| println!("{row}"));
    }
}

fn scenarios() -> Vec<Scenario> {
    let text = env::var("SWARMDD_SIM_SCENARIO").unwrap_or_else(|_| String::from("equal"));
    let find = |name: &str| {
        let found = SCENARIOS.iter().find(|(known, _)| *known == name);
        found
            .unwrap_or_else(|| panic!("SWARMDD_SIM_SCENARIO is one of {SCENARIOS:?}, not {name}"))
            .1
    };
    text.split(',').map(find).collect()
}

fn numbers(name: &str, otherwise: &str) -> Vec<u32> {
    let text = env::var(name).unwrap_or_else(|_| String::from(otherwise));
    text.split(',')
        .map(|number| {
            number
                .parse()
                .unwrap_or_else(|_| panic!("{name} is numbers, not {text}"))
        })
        .collect()
}

/// The part of a link's rate that is left for payload. An agent that sends as much as it receives
/// also sends, for each block, a block header and a request.
fn usable(rate: u64) -> f64 {
    let framing = PIECE_HEADER_BYTES as u32 + REQUEST_BYTES;
    rate as f64 * f64::from(BLOCK_BYTES) / f64::from(BLOCK_BYTES + framing)
}

impl Room {
    fn image_bytes(&self) -> f64 {
        f64::from(self.pieces) * f64::from(self.piece_bytes)
    }

    /// T*, the shortest possible time with equal links: (1 + floor(log2 n) / pieces) x image /
    /// rate.
    fn best(&self) -> Duration {
        let steps = f64::from(self.leechers.ilog2());
        let image_takes = self.image_bytes() / usable(RATE);
        Duration::from_secs_f64((1.0 + steps / f64::from(self.pieces)) * image_takes)
    }

    /// The shortest possible time with unequal links: the longest of the times that each machine's
    /// link needs from its start on, and the time that all links together need for one image per
    /// leecher. The cable of a rack needs no longer for one image.
    fn limit(&self, options: &Options) -> Duration {
        let leechers = options.agents[1..]
            .iter()
            .enumerate()
            .filter(|(index, _)| !self.dies(*index));
        let together: f64 = options
            .agents
            .iter()
            .map(|agent| usable(agent.up_rate))
            .sum();
        let all = self.image_bytes() * leechers.clone().count() as f64 / together;
        let each = leechers.map(|(index, agent)| {
            self.start_delay(index) + self.best().mul_f64(RATE as f64 / agent.down_rate as f64)
        });
        each.chain([Duration::from_secs_f64(all)])
            .max()
            .unwrap_or_default()
    }

    /// Time between the start of the first leecher and that of this one.
    fn start_delay(&self, index: usize) -> Duration {
        match self.scenario {
            Late | LateRoom if self.has_trouble(index) => self.best() / 2,
            Boot => BOOT_GAP * index as u32,
            _ => Duration::ZERO,
        }
    }

    fn dies(&self, index: usize) -> bool {
        match self.scenario {
            Dying => index % 5 == 4,
            DyingRoom => index / self.room_count() < DYING_ROUTED,
            _ => false,
        }
    }

    fn is_divided(&self) -> bool {
        matches!(self.scenario, Racks | Rooms | LateRoom | DyingRoom)
    }

    fn room_count(&self) -> usize {
        match self.scenario {
            Racks => (self.leechers as usize).div_ceil(RACK),
            _ => numbers("SWARMDD_SIM_ROOMS", ROOMS)[0] as usize,
        }
    }

    fn cable_links(&self) -> u64 {
        match self.scenario {
            Racks => RACK_LINKS,
            _ => numbers("SWARMDD_SIM_CABLE", CABLE_LINKS)[0].into(),
        }
    }

    /// A machine with a slow link, a late start or an early end; `healthy` in the table leaves it
    /// out.
    fn has_trouble(&self, index: usize) -> bool {
        match self.scenario {
            Equal | Racks | Boot | Untracked | Rooms => false,
            LateRoom => index % self.room_count() + 1 == self.room_count(),
            Half => index % 2 == 1,
            Tenth => index % 10 == 9,
            Late => index % 4 == 3,
            Dying | DyingRoom => self.dies(index),
        }
    }

    fn options(&self) -> Options {
        let mut options = Options::equal_links(self.leechers, self.pieces, self.piece_bytes, RATE);
        // A real event loop runs as soon as there is something to do. This one runs at most once
        // per `loop_time`, so that it does not spend its time on polls without an answer. With 20
        // ms, 500 machines would take 1.61 times the limit and ten rooms of 20 machines 1.87; with
        // 5 ms they take 1.13 and 1.23, and the rooms with 2 ms 1.25.
        options.sizes = Sizes {
            buffer: SEND_BUFFER_BYTES,
            unsent: SEND_BUFFER_BYTES,
            up: numbers("SWARMDD_SIM_UPLINK_QUEUE", QUEUE_BYTES)[0],
            down: numbers("SWARMDD_SIM_QUEUE", QUEUE_BYTES)[0],
        };
        options.loop_time =
            Duration::from_micros(u64::from(numbers("SWARMDD_SIM_TURN_US", "5000")[0]));
        if self.scenario == Untracked {
            options.tracker = None;
        }
        if self.is_divided() {
            options.rack_rates = alloc::vec![self.cable_links() * RATE; self.room_count()];
        }
        // The seeded runs check the invariants; here they would only take time.
        (options.coarse, options.check_every) = (true, 1_000_000);
        options.hashes.answers = HashAnswers::AtOnce;
        let percent = numbers("SWARMDD_SIM_RATIO", "100")[0];
        options.shape.packed_percent = percent..percent + 1;
        for agent in &mut options.agents {
            agent.compress = Compress::Auto;
        }
        for (index, agent) in options.agents[1..].iter_mut().enumerate() {
            // All start together, but not within the same microsecond.
            agent.starts_at =
                Instant(1_000_000 + index as u64 * 997.min(50_000 / u64::from(self.leechers)));
            agent.starts_at = agent.starts_at + self.start_delay(index);
            agent.rack = self.is_divided().then(|| index % self.room_count());
            if self.has_trouble(index) {
                self.add_trouble(index, agent);
            }
        }
        options
    }

    fn add_trouble(&self, index: usize, agent: &mut AgentOptions) {
        match self.scenario {
            Equal | Racks | Boot | Late | Untracked | Rooms | LateRoom => {}
            Half => (agent.up_rate, agent.down_rate) = (RATE / 2, RATE / 2),
            Tenth => (agent.up_rate, agent.down_rate) = (RATE / 10, RATE / 10),
            Dying | DyingRoom => {
                // At 30 % to 70 % of the shortest time, in no particular order.
                let percent = 30 + index as u32 * 17 % 41;
                let at = agent.starts_at + self.best() * percent / 100;
                agent.interruption = Interruption::Killed {
                    at,
                    restarts_at: None,
                    power_cut: false,
                };
            }
        }
    }

    fn row(&self, report: &Report, host: f64) -> String {
        let (best, limit) = (
            self.best().as_secs_f64(),
            self.limit(&self.options()).as_secs_f64(),
        );
        let last = report.downloaded.as_secs_f64();
        let leechers = report.times.iter().skip(1).enumerate();
        let own = leechers.filter_map(|(index, time)| {
            Some((index, (*time)?.saturating_sub(self.start_delay(index))))
        });
        let healthy = own
            .clone()
            .filter(|(index, _)| !self.has_trouble(*index))
            .map(|(_, time)| time)
            .max();
        let mut own: Vec<Duration> = own.map(|(_, time)| time).collect();
        own.sort();
        let median = own
            .get(own.len() / 2)
            .copied()
            .unwrap_or_default()
            .as_secs_f64();
        let healthy = healthy.unwrap_or_default().as_secs_f64();
        let name = SCENARIOS
            .iter()
            .find(|(_, scenario)| *scenario == self.scenario)
            .expect("every scenario has a name")
            .0;
        let carried = report.carried.iter().flatten().max();
        let cable = *carried.unwrap_or(&0) as f64 / self.image_bytes();
        format!(
            "| {name} | {} | {} | {limit:.2} s | {last:.2} s | {:.3} | {:.3} | {:.3} | {:.2} % | {:.2} | {cable:.2} | {:.1} M | {host:.1} s |",
            self.leechers,
            self.pieces,
            last / limit,
            healthy / best,
            median / best,
            report.unused * 100.0,
            report.seeded,
            report.events as f64 / 1e6,
        )
    }

    /// How busy the downlinks of all leechers and the uplink of the seeder are, in each tenth of
    /// the time.
    fn phases(&self, report: &Report) -> [String; 2] {
        let options = self.options();
        let downlinks: f64 = options.agents[1..]
            .iter()
            .map(|agent| usable(agent.down_rate))
            .sum();
        let intervals = (report
            .downloaded
            .as_micros()
            .div_ceil(ARRIVALS_INTERVAL.as_micros()) as usize)
            .max(10);
        let line = |what: &str, which: usize, rate: f64| {
            let mut line = format!("| {} | {what} |", self.leechers);
            for tenth in 0..10 {
                let range = intervals * tenth / 10..intervals * (tenth + 1) / 10;
                let seconds = range.len() as f64 * ARRIVALS_INTERVAL.as_secs_f64();
                let bytes: u64 = report
                    .arrivals
                    .iter()
                    .take(range.end)
                    .skip(range.start)
                    .map(|a| a[which])
                    .sum();
                line += &format!(" {:.0} % |", 100.0 * bytes as f64 / (rate * seconds));
            }
            line
        };
        [
            line("down, all", 0, downlinks),
            line("up, seed", 1, usable(RATE)),
        ]
    }

    /// How long after the first copy of a piece others have theirs, on average over each tenth of
    /// the pieces, in times that a link needs for one piece.
    fn spread(&self, report: &Report) -> Vec<String> {
        let piece_takes = f64::from(self.piece_bytes) / usable(RATE);
        let in_pieces = |time: Duration| time.as_secs_f64() / piece_takes;
        let count = self.leechers as usize;
        let copies = report.copies.as_slice();
        let row = |tenth: &[Vec<Duration>]| {
            let (first, last) = (tenth[0][0], tenth[tenth.len() - 1][0]);
            let mut line = format!(
                "| {count} | {} | {:.0} to {:.0} |",
                self.pieces,
                in_pieces(first),
                in_pieces(last)
            );
            for nth in [2, 4, count / 2, count * 9 / 10, count] {
                let nth_copy = |times: &Vec<Duration>| times[nth.clamp(1, times.len()) - 1];
                let waits = tenth
                    .iter()
                    .map(|times| in_pieces(nth_copy(times) - times[0]));
                line += &format!(" {:.1} |", waits.sum::<f64>() / tenth.len() as f64);
            }
            line
        };
        copies
            .chunks(copies.len().div_ceil(10).max(1))
            .map(row)
            .collect()
    }
}

/// CPU time of this thread, because other processes may be busy on this host. See
/// Documentation/scheduler/sched-stats.rst.
fn host_seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|ns| ns.parse::<f64>().ok())
        .unwrap_or(f64::NAN)
        / 1e9
}
