//! How do a failure and an event read? The core knows numbers; the sentences are made here.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use swarm_proto::swarm::{DiskError, DiskOperation, Failure};

use crate::os::errno;

/// A failure in the words of the system: the core knows numbers only.
pub(super) fn explain(failure: &Failure, path: &Path) -> String {
    match failure {
        Failure::Disk(error) => explain_disk(error, path),
        failure => failure.to_string(),
    }
}

pub(super) fn explain_disk(error: &DiskError, path: &Path) -> String {
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

/// Why nothing could be run, or not to its end. What happens to one pair alone is in its
/// `report::Outcome`.
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
