//! Which code runs for which command, and what several commands need.

use std::fmt;
use std::io::Write;
use std::ops::ControlFlow;

use swarm_proto::format::extents::ExtentMap;
use swarm_proto::format::layout::Layout;
use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::units::{PieceHash, PieceIndex};

use crate::agent::{Reporter, RunError, Settings};
use crate::cli::{Command, SwarmOptions, TorrentPlace};
use crate::net::fetch::{self, FetchError, Patience};
use crate::os::blockdev::Device;
use crate::os::clock;
use crate::os::signal::Signals;
use crate::report::{self, Mode, State, Status};
use crate::storage::reader;

mod disks;
mod get;
mod info;
mod make;
mod plan;
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
        max_up: options.max_up,
        max_down: options.max_down,
        grow_last: false,
    }
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

/// What is read from start to end, and how the line calls it that shows how far that is.
struct Reading<'a> {
    device: &'a Device,
    layout: Layout,
    extents: &'a ExtentMap,
    state: State,
    torrent: String,
    target: String,
    progress: Mode,
}

impl Reading<'_> {
    /// Hashes every piece, in order. SIGINT and SIGTERM end it.
    fn hash_pieces(&self, mut on_piece: impl FnMut(PieceIndex, PieceHash)) -> Result<(), Failure> {
        let mut signals = Signals::new()?;
        let mut reporter = report::standard(self.progress);
        let mut status = Status {
            state: self.state,
            torrent: self.torrent.clone(),
            target: self.target.clone(),
            have: 0,
            pieces: self.layout.piece_count(),
            checked: 0,
            to_check: self.layout.piece_count(),
            bytes: self.layout.total_bytes(),
            fetched: 0,
            uploaded: 0,
            peers: 0,
        };
        if !self.device.direct {
            let path = self.device.path.display();
            reporter.note(&format!(
                "{path}: no O_DIRECT on this file system, reading through the page cache"
            ));
        }
        reporter.update(clock::now(), 0, &status);
        reader::hash_pieces(
            self.device,
            self.layout,
            self.extents,
            &mut signals,
            |piece, hash| {
                on_piece(piece, hash);
                status.checked += 1;
                reporter.update(clock::now(), 0, &status);
                ControlFlow::Continue(())
            },
        )?;
        Ok(())
    }
}
