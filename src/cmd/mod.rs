//! Which code runs for which command? And what do several commands need?

use std::fmt;
use std::io::Write;
use std::ops::ControlFlow;

use swarm_proto::format::extents::ExtentMap;
use swarm_proto::format::layout::Layout;
use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::units::{PieceHash, PieceIndex};

use crate::agent::{Reporter, RunError};
use crate::net::torrent::{self, Patience, TorrentError, TorrentPlace};
use crate::os::clock;
use crate::os::device::Device;
use crate::os::signal::Signals;
use crate::report::{self, Mode, State, Status};
use crate::storage::reader;

mod disks;
pub mod get;
pub mod info;
pub mod make;
mod plan;
pub mod seed;
pub mod verify;

/// One command with all its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Get(get::Options),
    Seed(seed::Options),
    Make(make::Options),
    Verify(verify::Options),
    Info(info::Options),
    Disks,
    /// Prints this text.
    Help(&'static str),
    Version,
}

/// How often a server is asked while a person waits. One that fails three times is assumed to be
/// away.
const TRIES: u32 = 3;

/// The command ends with exit status 1.
#[derive(Debug)]
pub enum Failure {
    /// The reason is on stderr already: one line for each target that failed.
    AlreadySaid,
    /// The line that is still to be printed on stderr.
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
        Command::Get(options) => get::run(&options)?,
        Command::Seed(options) => seed::run(&options)?,
        Command::Make(options) => make::run(&options)?,
        Command::Verify(options) => verify::run(&options)?,
        Command::Info(options) => info::run(&options)?,
        Command::Disks => disks::run()?,
    }
    Ok(())
}

/// Prints the result of a command on stdout. If the reader has closed it (`swarmdd info x | head
/// -1`), nothing is lost.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Loads the torrent of `info` or `verify` while a person waits.
fn load_torrent(place: &TorrentPlace) -> Result<Metainfo, Failure> {
    let on_retry = &mut |error: &TorrentError, _| {
        // If stderr is closed, the exit status still reports the result.
        let _ = writeln!(std::io::stderr(), "swarmdd: {error}; trying again");
    };
    Ok(torrent::load(
        place,
        None,
        Patience::Tries(TRIES),
        None,
        on_retry,
    )?)
}

/// The exit status of a run. A run that was broken off still reports each target as failed.
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
