//! Does a whole swarm of these cores finish, and is everything it says on the way true?
//!
//! A discrete-event simulator: real [`Swarm`](crate::swarm::Swarm) values, in virtual time, with
//! simulated links, disks, tracker and rude peers, all from one seed. `world` runs it; `options`
//! draws what happens in a run; `checker` knows the truth about each agent; `image`, `pool`,
//! `disk`, `links`, `tracker` and `fake_peer` are what their names say, `agent` is one machine and
//! `queue` the future. `cases` are single agents, `rooms` whole swarms made for one question,
//! `table` large ones that are measured.
//!
//! To repeat a run: `SWARMDD_SIM_SEED=… cargo test --lib sim_seed -- --nocapture`; with
//! `SWARMDD_SIM_TRACE=1` it tells what happens to connections. The table for tuning policies:
//! `scripts/sim`.

mod agent;
#[cfg(test)]
mod cases;
mod checker;
mod disk;
mod fake_peer;
mod image;
mod links;
mod options;
mod pool;
mod queue;
#[cfg(test)]
mod rooms;
#[cfg(test)]
mod table;
mod tracker;
mod world;

use std::time::Duration;
use std::{env, eprintln, println, thread};

use alloc::vec::Vec;

use crate::swarm::{Failure, Outcome, Role, State};
use crate::units::Instant;
use agent::Agent;
use disk::{DiskFault, Holds};
use options::{Canary, Options};
use world::{MOMENT, NodeRole, World};

/// How a run went.
#[derive(Clone, Debug, PartialEq)]
struct Report {
    /// From the first leecher's start to the last one's last piece, and to its last byte read back.
    downloaded: Duration,
    verified: Duration,
    /// The same as `downloaded` for the leecher in the middle, and for each machine that got so
    /// far, by its number.
    median: Duration,
    times: Vec<Option<Duration>>,
    /// From the same start: payload bytes that arrived in each moment, anywhere and from the first
    /// seeder.
    arrivals: Vec<[u64; 2]>,
    /// Payload bytes that came in vain, all leechers, as a part of what they needed.
    wasted: f64,
    /// Payload bytes that the first seeder sent, in images.
    seeded: f64,
    /// Payload bytes that came to leechers, those that died included, without what came in vain;
    /// and what the last process on each machine lacked.
    fetched: u64,
    lacking: u64,
    /// Pieces found on targets, pieces that a read-back found bad, pieces that sources turned out
    /// not to have.
    found: u32,
    read_back_bad: u32,
    sources_bad: u32,
    complete: usize,
    failed: usize,
    /// Connections that were ever asked for.
    connections: u32,
    events: u64,
    log: u64,
}

/// Runs the swarm of this seed to its end. Panics where something is wrong, and then says how to
/// repeat it.
fn simulate(seed: u64) -> Report {
    run(Options::from_seed(seed))
}

fn run(options: Options) -> Report {
    let _says_how = SaysHowToRepeat(options.seed);
    let mut world = World::new(options);
    world.run();
    check_end(&world);
    report(&world)
}

struct SaysHowToRepeat(u64);

impl Drop for SaysHowToRepeat {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!(
                "repeat with: SWARMDD_SIM_SEED={} cargo test --lib sim_seed -- --nocapture",
                self.0
            );
        }
    }
}

fn agents(world: &World) -> impl Iterator<Item = &Agent> {
    world.nodes.iter().filter_map(|node| match &node.role {
        NodeRole::Agent(agent) => Some(&**agent),
        _ => None,
    })
}

/// Everybody has ended as it must.
fn check_end(world: &World) {
    let stops_early = world
        .options
        .tracker
        .as_ref()
        .is_some_and(|tracker| tracker.stops_at.is_some());
    for agent in agents(world) {
        let state = agent.swarm.state();
        match (agent.options.disk.fault, agent.outcome()) {
            // Whoever was left alone with too little waits, and does not leave.
            (_, None) if stops_early && *state == State::Downloading => continue,
            // A seeder that never saw the tracker still waits for it.
            (_, None) if agent.options.role == Role::Seeder && !agent.met_tracker => continue,
            (_, None) => panic!("machine {} has not left:\n{}", agent.node, world.picture()),
            (_, Some(Outcome::Interrupted)) => {
                assert!(agent.told_to_leave, "machine {} left unasked", agent.node)
            }
            (DiskFault::None, Some(Outcome::Failed(failure)))
                if *failure != Failure::NothingToServe =>
            {
                panic!("machine {} failed with a good disk: {failure}", agent.node)
            }
            // What it was allowed to say was looked at when it said it.
            (_, Some(Outcome::Complete | Outcome::Failed(_))) => {}
        }
    }
}

fn report(world: &World) -> Report {
    let leechers: Vec<&Agent> = agents(world)
        .filter(|agent| agent.options.role == Role::Leecher)
        .collect();
    let started = leechers
        .iter()
        .map(|agent| agent.options.starts_at)
        .min()
        .unwrap_or_default();
    let mut downloaded: Vec<Instant> = leechers
        .iter()
        .filter_map(|agent| agent.downloaded_at)
        .collect();
    downloaded.sort();
    let verified = leechers.iter().filter_map(|agent| agent.complete_at).max();
    let since = |at: Option<&Instant>| at.map_or(Duration::ZERO, |at| at.since(started));
    let first_moment = (started.since(Instant(0)).as_micros() / MOMENT.as_micros()) as usize;
    let wasted: u64 = leechers
        .iter()
        .map(|agent| agent.swarm.progress().wasted)
        .sum();
    let useful = |agent: &&Agent| agent.swarm.progress().fetched - agent.swarm.progress().wasted;
    let seeder = agents(world)
        .next()
        .expect("the first machine is the seeder");
    let count = |f: fn(&Outcome) -> bool| {
        agents(world)
            .filter(|agent| agent.outcome().is_some_and(f))
            .count()
    };
    Report {
        downloaded: since(downloaded.last()),
        verified: since(verified.as_ref()),
        median: since(downloaded.get(downloaded.len() / 2)),
        times: world
            .nodes
            .iter()
            .map(|node| Some(node.downloaded_at()?.max(started).since(started)))
            .collect(),
        arrivals: world.arrivals.iter().skip(first_moment).copied().collect(),
        wasted: wasted as f64 / (world.image.bytes as f64 * leechers.len().max(1) as f64),
        seeded: seeder.swarm.progress().uploaded as f64 / world.image.bytes as f64,
        fetched: world.fetched_by_the_dead + leechers.iter().map(useful).sum::<u64>(),
        lacking: leechers.iter().map(|agent| agent.ledger.lacking()).sum(),
        found: leechers.iter().map(|agent| agent.ledger.found).sum(),
        read_back_bad: world.read_back_bad,
        sources_bad: world.sources_bad,
        complete: count(|outcome| *outcome == Outcome::Complete),
        failed: count(|outcome| matches!(outcome, Outcome::Failed(_))),
        connections: world.connection_count(),
        events: world.events,
        log: world.log,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(name: &str, otherwise: u64) -> u64 {
        env::var(name).map_or(otherwise, |text| {
            text.parse()
                .unwrap_or_else(|_| panic!("{name} is a number"))
        })
    }

    #[test]
    fn sim_200_seeds() {
        // For other seeds, and for the quick look of `scripts/check`.
        let (first, count) = (
            number("SWARMDD_SIM_FIRST", 1),
            number("SWARMDD_SIM_COUNT", 200),
        );
        println!("seeds {first} to {}", first + count - 1);
        let reports: Vec<Report> = (first..first + count).map(simulate).collect();
        let sum = |f: fn(&Report) -> usize| reports.iter().map(f).sum::<usize>();
        println!(
            "machines complete {}, failed {}",
            sum(|r| r.complete),
            sum(|r| r.failed)
        );
        let sum = |f: fn(&Report) -> u32| reports.iter().map(f).sum::<u32>();
        let (found, bad, sources) = (
            sum(|r| r.found),
            sum(|r| r.read_back_bad),
            sum(|r| r.sources_bad),
        );
        println!("pieces found {found}, bad when read back {bad}, missing in sources {sources}");
        println!("events {}", reports.iter().map(|r| r.events).sum::<u64>());
    }

    #[test]
    fn sim_seed() {
        let Ok(text) = env::var("SWARMDD_SIM_SEED") else {
            return;
        };
        let seed = text.parse().expect("SWARMDD_SIM_SEED is a number");
        let options = Options {
            trace: env::var_os("SWARMDD_SIM_TRACE").is_some(),
            ..Options::from_seed(seed)
        };
        println!("{options:#?}");
        println!("{:#?}", run(options));
    }

    #[test]
    fn sim_same_seed_same_run() {
        for seed in [3, 4, 5] {
            let (once, again) = (simulate(seed), simulate(seed));
            assert_eq!(once, again);
            assert_ne!(once.log, simulate(seed + 100).log);
        }
    }

    /// A disk that loses what was written is found out by the read-back, and by nothing else. Once
    /// is forgiven.
    #[test]
    fn sim_canary_a_disk_that_forgets() {
        let mut options = Options::equal_links(4, 40, 32 * 1024, 1 << 20);
        options.agents[2].disk.fault = DiskFault::Forgets {
            write: 7,
            always: true,
        };
        options.agents[3].disk.fault = DiskFault::Forgets {
            write: 7,
            always: false,
        };
        let report = run(options);
        assert_eq!((report.complete, report.failed), (4, 1));
    }

    /// If hashes were not compared, bad pieces would be written; the checker must see it.
    #[test]
    #[should_panic(expected = "is written and is not good")]
    fn sim_canary_a_blind_hash() {
        let mut options = Options::equal_links(4, 40, 32 * 1024, 1 << 20);
        options.fakes.push(options::FakeOptions {
            manner: fake_peer::Manner::Corrupts { one_in: 2 },
            rate: 1 << 20,
            starts_at: Instant(0),
        });
        options.canary = Canary::BlindToDownloads;
        run(options);
    }

    /// The same for those who believe that all of a half right target is right,
    #[test]
    #[should_panic(expected = "is sent with other bytes")]
    fn sim_canary_a_blind_scan() {
        let mut options = Options::equal_links(4, 40, 32 * 1024, 1 << 20);
        options.agents[2].disk.holds = Holds::Part(50);
        options
            .agents
            .iter_mut()
            .for_each(|agent| agent.look = false);
        options.agents[2].look = true;
        options.canary = Canary::BlindToTheDisk;
        run(options);
    }

    /// that a source is what its torrent says,
    #[test]
    #[should_panic(expected = "is sent with other bytes")]
    fn sim_canary_a_blind_seeder() {
        let mut options = Options::equal_links(4, 40, 32 * 1024, 1 << 20);
        options.agents[1] = options::AgentOptions {
            starts_at: Instant(0),
            ..options.agents[0].clone()
        };
        options.agents[1].disk.holds = Holds::Part(50);
        options.agents[2..]
            .iter_mut()
            .for_each(|agent| agent.look = false);
        options.canary = Canary::BlindToTheDisk;
        run(options);
    }

    /// or that what was written is there;
    #[test]
    #[should_panic(expected = "it is complete, and its disk is not")]
    fn sim_canary_a_blind_read_back() {
        let mut options = Options::equal_links(4, 40, 32 * 1024, 1 << 20);
        options.agents[2].disk.fault = DiskFault::Forgets {
            write: 7,
            always: true,
        };
        options.canary = Canary::BlindToTheDisk;
        run(options);
    }

    /// who does not read it back at all,
    #[test]
    #[should_panic(expected = "was not read back")]
    fn sim_canary_no_read_back() {
        let mut options = Options::equal_links(4, 40, 32 * 1024, 1 << 20);
        options.canary = Canary::SkipsReadBack;
        run(options);
    }

    /// and who speaks of it too early.
    #[test]
    #[should_panic(expected = "which is not written")]
    fn sim_canary_announced_before_it_is_written() {
        let mut options = Options::equal_links(4, 40, 32 * 1024, 1 << 20);
        options.canary = Canary::AnnouncesEarly;
        run(options);
    }
}
