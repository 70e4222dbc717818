//! How did a run go?

use alloc::vec::Vec;
use core::time::Duration;

use super::agent::Agent;
use super::world::{MOMENT, World};
use crate::swarm::{Outcome, Role};
use crate::units::Instant;

/// How a run went.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// From the first leecher's start to the last one's last piece, and to its last byte read back.
    pub downloaded: Duration,
    pub verified: Duration,
    /// The same as `downloaded` for the leecher in the middle, and for each machine that got so
    /// far, by its number.
    pub median: Duration,
    pub times: Vec<Option<Duration>>,
    /// From the same start: payload bytes that arrived in each moment, anywhere and from the first
    /// seeder.
    pub arrivals: Vec<[u64; 2]>,
    /// Payload bytes that came in vain, all leechers, as a part of what they needed.
    pub wasted: f64,
    /// Payload bytes that the first seeder sent, in images.
    pub seeded: f64,
    /// Payload bytes that came to leechers, those that died included, without what came in vain;
    /// and what the last process on each machine lacked.
    pub fetched: u64,
    pub lacking: u64,
    /// Pieces found on targets, pieces that a read-back found bad, pieces that sources turned out
    /// not to have.
    pub found: u32,
    pub read_back_bad: u32,
    pub sources_bad: u32,
    pub complete: usize,
    pub failed: usize,
    /// Connections that were ever asked for.
    pub connections: u32,
    pub events: u64,
    pub log: u64,
}

pub fn report(world: &World) -> Report {
    let leechers: Vec<&Agent> = world
        .agents()
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
    let seeder = world
        .agents()
        .next()
        .expect("the first machine is the seeder");
    let count = |f: fn(&Outcome) -> bool| {
        world
            .agents()
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
