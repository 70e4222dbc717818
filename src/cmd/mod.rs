//! Which code runs for which command? And what do several commands need?

use std::fmt;
use std::io::Write;
use std::path::PathBuf;

use swarm_proto::format::metainfo::Metainfo;

use crate::agent::{Reporter, RunError};
use crate::net::torrent::{self, Caller, Patience, Retry, TorrentPlace};
use crate::os::clock;
use crate::os::signal::Signals;
use crate::os::tty;
use crate::target::Target;

mod daemon;
mod disks;
pub mod get;
pub mod info;
pub mod make;
mod plan;
mod reading;
pub mod seed;
mod slices;
mod source;
pub mod verify;

/// One command with all its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Get(get::Options),
    Seed(seed::Options),
    /// The socket at which programs ask for jobs. Of the options, those that concern all jobs.
    Daemon(PathBuf, get::Options),
    Make(make::Options),
    Verify(verify::Options),
    Info(info::Options),
    Disks(Option<Target>),
    /// `get --check-only`: the words are right, and that was all.
    Checked,
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
    /// Likewise, and the server of `--report` does not know it.
    Untold,
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
        Command::Checked => {}
        Command::Get(options) => get::run(&options)?,
        Command::Seed(options) => seed::run(&options)?,
        Command::Daemon(control, options) => daemon::run(&control, &options)?,
        Command::Make(options) => make::run(&options)?,
        Command::Verify(options) => verify::run(&options)?,
        Command::Info(options) => info::run(&options)?,
        Command::Disks(target) => disks::run(target.as_ref())?,
    }
    Ok(())
}

/// Prints the result of a command on stdout. If the reader has closed it (`swarmdd info x | head
/// -1`), nothing is lost.
fn say(text: &str) {
    let _ = tty::stdout().write_all(text.as_bytes());
}

/// Loads the torrent of `info` or `verify` while a person waits.
fn load_torrent(place: &TorrentPlace) -> Result<Metainfo, Failure> {
    let mut turn = |retry: Option<Retry>| {
        if let Some(Retry(error)) = retry {
            tty::complain(&format!("{error}; trying again"));
        }
        None
    };
    let caller = Caller {
        signals: None,
        fd: None,
        turn: &mut turn,
    };
    Ok(torrent::load(place, None, Patience::Tries(TRIES), caller)?)
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

/// Gives the server of `--report` a few seconds to hear how it ended.
fn tell_end(
    result: Result<(), Failure>,
    reporter: &mut Reporter,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let is_told = reporter.finish_telling(signals);
    match result {
        Err(Failure::AlreadySaid) if !is_told => Err(Failure::Untold),
        Err(Failure::Because(reason)) if reporter.server_fd().is_some() => {
            reporter.note(&reason);
            Err(Failure::Untold)
        }
        result => result,
    }
}
