//! Which sentence does the user read for an event or a failure?
//!
//! The core knows numbers; here an EIO becomes a sentence with the name of the device in it, and
//! what the number means for the disk (`os::errno`).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use swarm_proto::swarm::{DiskError, DiskOperation, Event, Failure, Outcome, Progress, State};

use crate::os::errno;
use crate::report;

/// Why the jobs could not be run, or not to their end. A failure of a single job is in its
/// `report::Outcome` instead.
#[derive(Debug)]
pub enum RunError {
    Io(io::Error),
    Listen {
        address: SocketAddr,
        error: io::Error,
    },
    Memory {
        memory_mib: u32,
        needed_mib: u64,
    },
    /// A second signal came before the jobs had ended.
    Impatient,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Io(error) => write!(f, "cannot wait for the network and the disk: {error}"),
            RunError::Listen { address, error } => write!(f, "cannot listen at {address}: {error}"),
            RunError::Memory {
                memory_mib,
                needed_mib,
            } => {
                write!(
                    f,
                    "--memory {memory_mib} is too little for pieces of this size, use --memory {needed_mib}"
                )
            }
            RunError::Impatient => f.write_str("interrupted twice, left without saying good-bye"),
        }
    }
}

impl std::error::Error for RunError {}

impl From<io::Error> for RunError {
    fn from(error: io::Error) -> RunError {
        RunError::Io(error)
    }
}

/// An event of the core as a line of the log; `path` is the device of its target or source.
pub(super) fn event(event: &Event, path: &Path) -> String {
    match event {
        Event::TargetBad { piece, error } => {
            let why = disk_error(error, path);
            format!("piece {} is written anew: {why}", piece.0)
        }
        Event::SourceBad {
            piece,
            error: Some(error),
            ..
        } => {
            let why = disk_error(error, path);
            format!("piece {} is not served: {why}", piece.0)
        }
        event => event.to_string(),
    }
}

/// Why a job that is over is not complete; None if it is. `reported` is the last state that it was
/// reported in while it ran.
pub(super) fn why_incomplete(
    progress: &Progress,
    reported: Option<report::State>,
    path: &Path,
) -> Option<String> {
    let far = format!(
        "{} of {} pieces are on the target",
        progress.have, progress.pieces
    );
    match &progress.state {
        State::Over(Outcome::Complete) => None,
        State::Over(Outcome::Failed(failure)) => Some(format!("{}; {far}", explain(failure, path))),
        _ if reported == Some(report::State::Verifying) => Some(format!(
            "interrupted; {far}, {} of them read back",
            progress.verified
        )),
        _ => Some(format!("interrupted; {far}")),
    }
}

fn explain(failure: &Failure, path: &Path) -> String {
    match failure {
        Failure::Disk(error) => disk_error(error, path),
        failure => failure.to_string(),
    }
}

/// What failed, where, what the system says to it and what that means for the disk. The core knows
/// only numbers.
fn disk_error(error: &DiskError, path: &Path) -> String {
    let path = path.display();
    let what = match error.operation {
        DiskOperation::Read => format!("cannot read {path} at byte {}", error.offset.0),
        DiskOperation::Write => format!("cannot write {path} at byte {}", error.offset.0),
        DiskOperation::Flush => format!("cannot flush {path}"),
    };
    let meaning =
        errno::meaning(error.errno).map_or(String::new(), |meaning| format!("; {meaning}"));
    format!(
        "{what}: {}{meaning}",
        io::Error::from_raw_os_error(error.errno)
    )
}
