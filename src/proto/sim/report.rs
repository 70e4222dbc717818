//! How did a run go?

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use super::agent::Agent;
use super::world::{ARRIVALS_INTERVAL, World};
use crate::swarm::{Outcome, Role};
use crate::units::{Instant, PieceIndex};

/// The result of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// From the start of the first leecher until the last leecher has its last piece, and until all
    /// of it is read back.
    pub downloaded: Duration,
    pub verified: Duration,
    /// The same as `downloaded` for the median leecher, and for each machine, by its number, that
    /// has all pieces.
    pub median: Duration,
    pub times: Vec<Option<Duration>>,
    /// From the same start on: payload bytes that arrived in each ARRIVALS_INTERVAL, anywhere and
    /// from machine 0.
    pub arrivals: Vec<[u64; 2]>,
    /// From the same start on: when each copy of a piece was on a disk, first copy first; a list
    /// for each piece, in the order of the first copies. Empty if the run is not coarse.
    pub copies: Vec<Vec<Duration>>,
    /// Payload bytes that all leechers received in vain, as a part of the bytes that they needed.
    pub unused: f64,
    /// Payload bytes that machine 0 sent, in images.
    pub seeded: f64,
    /// Bytes that the cable of each rack carried, up and down.
    pub carried: Vec<[u64; 2]>,
    /// Payload bytes that leechers received, killed ones included, without unused bytes; and the
    /// bytes that the last process on each machine lacked when it started.
    pub fetched: u64,
    pub missing: u64,
    /// Pieces found on targets by the scan, pieces that a read-back found bad, pieces that sources
    /// lack.
    pub found: u32,
    pub read_back_bad: u32,
    pub sources_bad: u32,
    /// Pieces that were read back during the download.
    pub read_early: u32,
    pub complete: usize,
    pub failed: usize,
    /// Connections that any process ever asked for.
    pub connections: u32,
    pub events: u64,
    pub log: u64,
}

/// The result of the run in which this room has ended.
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
    let first_interval =
        (started.since(Instant(0)).as_micros() / ARRIVALS_INTERVAL.as_micros()) as usize;
    let unused: u64 = leechers
        .iter()
        .map(|agent| agent.swarm.progress().unused)
        .sum();
    let useful = |agent: &&Agent| agent.swarm.progress().fetched - agent.swarm.progress().unused;
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
            .machines
            .iter()
            .map(|machine| Some(machine.downloaded_at()?.max(started).since(started)))
            .collect(),
        arrivals: world
            .arrivals
            .iter()
            .skip(first_interval)
            .copied()
            .collect(),
        copies: copies(world, &leechers, started),
        unused: unused as f64 / (world.image.bytes as f64 * leechers.len().max(1) as f64),
        seeded: seeder.swarm.progress().uploaded as f64 / world.image.bytes as f64,
        carried: world.network.carried(),
        fetched: world.fetched_by_killed + leechers.iter().map(useful).sum::<u64>(),
        missing: leechers
            .iter()
            .map(|agent| agent.checker.missing_bytes())
            .sum(),
        found: leechers.iter().map(|agent| agent.checker.found).sum(),
        read_back_bad: world.read_back_bad,
        sources_bad: world.sources_bad,
        read_early: leechers.iter().map(|agent| agent.checker.read_early).sum(),
        complete: count(|outcome| *outcome == Outcome::Complete),
        failed: count(|outcome| matches!(outcome, Outcome::Failed(_))),
        connections: world.connection_count(),
        events: world.events,
        log: world.log,
    }
}

fn copies(world: &World, leechers: &[&Agent], started: Instant) -> Vec<Vec<Duration>> {
    if !world.options.coarse {
        return Vec::new();
    }
    let mut copies: BTreeMap<PieceIndex, Vec<Duration>> = BTreeMap::new();
    for (piece, at) in leechers.iter().flat_map(|agent| &agent.written) {
        copies.entry(*piece).or_default().push(at.since(started));
    }
    let mut copies: Vec<Vec<Duration>> = copies.into_values().collect();
    copies.iter_mut().for_each(|times| times.sort());
    copies.sort();
    copies
}
