//! Which sentence does the user read for an event or a failure?
//!
//! The core knows numbers; here an EIO becomes a sentence with the name of the device in it, and
//! what the number means for the disk (`os::errno`).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use swarm_proto::swarm::{
    DiskError, DiskOperation, Event, Failure, Lack, Outcome, Progress, State, Waiting,
};

use crate::os::errno;
use crate::report;
use crate::storage::leftovers::LeftoverError;

/// Why the jobs could not be run, or not to their end. A failure of a single job is in its
/// `report::Outcome` instead.
#[derive(Debug)]
pub enum RunError {
    Io(io::Error),
    Listen {
        address: SocketAddr,
        error: io::Error,
    },
    /// The socket of the daemon.
    Control {
        path: String,
        error: io::Error,
    },
    Memory {
        memory_mib: u64,
        /// By --memory.
        is_given: bool,
        needed_mib: u64,
        pieces: u64,
    },
    /// A second signal came before the jobs had ended.
    Impatient,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Io(error) => write!(f, "cannot wait for the network and the disk: {error}"),
            RunError::Listen { address, error } => write!(f, "cannot listen at {address}: {error}"),
            RunError::Control { path, error } => write!(f, "cannot listen at {path}: {error}"),
            RunError::Memory {
                memory_mib,
                is_given: true,
                needed_mib,
                pieces,
            } => write!(
                f,
                "--memory {memory_mib} is too little for {pieces} pieces, use --memory {needed_mib}"
            ),
            RunError::Memory {
                memory_mib,
                needed_mib,
                pieces,
                ..
            } => write!(
                f,
                "{pieces} pieces need {needed_mib} MiB of memory, this machine can spare \
                 {memory_mib}: --memory {needed_mib} takes it nevertheless"
            ),
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

/// What is waited for; if it is a connection, with the reason why the last try failed.
pub(super) fn waiting(waiting: &Waiting, last_try: Option<&(SocketAddr, String)>) -> String {
    match (waiting.peers, last_try) {
        (Lack::Unreachable(_), Some((address, why))) => {
            format!("{waiting}; the last try, {address}: {why}")
        }
        _ => waiting.to_string(),
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

/// Why a target that holds the whole image is not done.
pub(super) fn leftover_error(error: &LeftoverError, path: &Path) -> String {
    match error {
        LeftoverError::Disk(error) => disk_error(error, path),
        LeftoverError::NotKept { offset } => format!(
            "{} did not keep the zeros written at byte {offset}",
            path.display()
        ),
    }
}

/// The sentence for a disk error: what failed, where, what the system says and what it means for
/// the disk.
fn disk_error(error: &DiskError, path: &Path) -> String {
    let path = path.display();
    let what = match error.operation {
        DiskOperation::Read => format!("cannot read {path} at byte {}", error.offset.0),
        DiskOperation::Write => format!("cannot write {path} at byte {}", error.offset.0),
        DiskOperation::Flush => format!("cannot flush {path}"),
    };
    let text = io::Error::from_raw_os_error(error.errno);
    match errno::meaning(error.errno) {
        // A packed image says it, too, and no kernel; musl has no text for it.
        Some(meaning) if error.errno == libc::EUCLEAN => format!("{what}: {meaning}"),
        Some(meaning) => format!("{what}: {text}; {meaning}"),
        None => format!("{what}: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_proto::units::{DiskOffset, PieceIndex};

    const READ_ERROR: DiskError = DiskError {
        operation: DiskOperation::Read,
        offset: DiskOffset(4096),
        errno: libc::EIO,
    };

    #[test]
    fn a_disk_error_names_the_device_the_place_and_the_meaning() {
        let bad = Event::TargetBad {
            piece: PieceIndex(7),
            error: READ_ERROR,
        };
        assert_eq!(
            event(&bad, Path::new("/dev/sdx")),
            format!(
                "piece 7 is written anew: cannot read /dev/sdx at byte 4096: {}; {}",
                io::Error::from_raw_os_error(libc::EIO),
                errno::meaning(libc::EIO).unwrap()
            )
        );
        let damaged = DiskError {
            errno: libc::EUCLEAN,
            ..READ_ERROR
        };
        assert_eq!(
            disk_error(&damaged, Path::new("lab.img.lz4")),
            "cannot read lab.img.lz4 at byte 4096: what lies there is damaged"
        );
    }

    #[test]
    fn a_job_that_is_not_complete_says_why_and_how_far_it_got() {
        let why = |outcome, reported| {
            let progress = Progress {
                state: State::Over(outcome),
                have: 3,
                pieces: 4,
                verified: 2,
                checked: 0,
                to_check: 0,
                bad_offset: None,
                fetched: 0,
                unused: 0,
                uploaded: 0,
                fetched_wire: 0,
                uploaded_wire: 0,
                peers: 0,
            };
            why_incomplete(&progress, Some(reported), Path::new("/dev/sdx"))
        };
        let (downloading, verifying) = (report::State::Downloading, report::State::Verifying);
        assert_eq!(why(Outcome::Complete, verifying), None);
        assert_eq!(
            why(Outcome::Interrupted, downloading).unwrap(),
            "interrupted; 3 of 4 pieces are on the target"
        );
        assert_eq!(
            why(Outcome::Interrupted, verifying).unwrap(),
            "interrupted; 3 of 4 pieces are on the target, 2 of them read back"
        );
        let stalled = Outcome::Failed(Failure::Stalled(std::time::Duration::from_secs(5)));
        assert_eq!(
            why(stalled, downloading).unwrap(),
            "nothing arrived for 5 s; 3 of 4 pieces are on the target"
        );
    }
}
