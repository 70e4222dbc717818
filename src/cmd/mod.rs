//! Which code runs for which command, and what several commands need.

use std::fmt;
use std::io::Write;

use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::policy::throttle::Throttle;

use crate::agent::{Reporter, RunError, Settings};
use crate::cli::{Command, SwarmOptions, TorrentPlace};
use crate::net::fetch::{self, FetchError, Patience};
use crate::os::clock;

mod disks;
mod get;
mod info;
mod make;
mod plan;
mod reading;
mod seed;
mod verify;

/// How often a server is asked when a person waits: one that does not answer three times will not
/// answer.
const TRIES: u32 = 3;

/// The command ends with exit status 1.
#[derive(Debug)]
pub enum Failure {
    /// The reason stands on stderr already, one line for each target that failed.
    AlreadySaid,
    /// The one line that stderr still has to get.
    Because(String),
}

impl<E: fmt::Display> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Because(error.to_string())
    }
}

pub fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Help(text) => say(text),
        Command::Version => say(concat!("swarmdd ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Make(options) => make::run(&options)?,
        Command::Verify { torrent, target } => verify::run(&torrent, &target)?,
        Command::Info { torrent } => info::run(&torrent)?,
        Command::Get(options) => get::run(&options)?,
        Command::Seed(options) => seed::run(&options)?,
        Command::Disks => disks::run()?,
    }
    Ok(())
}

/// What was asked for goes to stdout; where nobody reads it (`swarmdd info x | head -1`), nothing
/// is lost.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// The torrent of `info` and `verify`, for which a person waits.
fn torrent(place: &TorrentPlace) -> Result<Metainfo, Failure> {
    let retrying = &mut |error: &FetchError, _| {
        // When stderr is gone, the exit status still says how it ended.
        let _ = writeln!(std::io::stderr(), "swarmdd: {error}; trying again");
    };
    Ok(fetch::torrent(
        place,
        None,
        Patience::Tries(TRIES),
        None,
        retrying,
    )?)
}

/// The options that `get` and `seed` share, in the words of the loop.
fn settings(options: &SwarmOptions) -> Settings {
    Settings {
        listen: options.listen,
        peers: options.peers.clone(),
        memory_mib: options.memory_mib,
        verify: false,
        tracker_grace: options.tracker_grace,
        seed_for: options.seed_limit,
        stall: None,
        max_up: throttle(options.max_up),
        max_down: throttle(options.max_down),
        grow_last: false,
    }
}

fn throttle(limit: Option<u64>) -> Throttle {
    limit.map(Throttle::limited).unwrap_or_default()
}

/// The exit status of a run. One that broke off still owes each target its last line.
fn conclude(result: Result<bool, RunError>, reporter: &mut Reporter) -> Result<(), Failure> {
    match result {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::AlreadySaid),
        Err(error) if reporter.abandon(clock::now(), &error.to_string()) => {
            Err(Failure::AlreadySaid)
        }
        Err(error) => Err(error.into()),
    }
}
