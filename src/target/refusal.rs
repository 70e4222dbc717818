//! Why is a target or a source not opened, as a sentence that a person can act on?
//!
//! `os` names what it refused; the sentences are here because they speak of targets and images.

use std::fmt;
use std::path::PathBuf;

use swarm_proto::size::exact;

use super::selector::SelectError;
use crate::os::device::{DeviceError, Role};

/// Why TARGET was not opened.
#[derive(Debug)]
pub enum TargetError {
    Device(DeviceError),
    Inventory(String),
    /// Two targets are a disk and a partition of it; `path` is the second of them.
    Overlap {
        path: PathBuf,
        part: PathBuf,
        whole: PathBuf,
    },
    Select(SelectError),
    Twice {
        path: PathBuf,
    },
}

impl From<DeviceError> for TargetError {
    fn from(error: DeviceError) -> TargetError {
        TargetError::Device(error)
    }
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetError::Device(error) => error.fmt(f),
            TargetError::Inventory(error) => f.write_str(error),
            TargetError::Overlap { path, part, whole } => {
                let (path, part, whole) = (path.display(), part.display(), whole.display());
                write!(
                    f,
                    "target {path}: {part} is a part of {whole}, and both are given"
                )
            }
            TargetError::Select(error) => error.fmt(f),
            TargetError::Twice { path } => write!(f, "target {} is given twice", path.display()),
        }
    }
}

impl std::error::Error for TargetError {}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceError::Ask { path, error } => {
                write!(f, "cannot ask {} what it is: {error}", path.display())
            }
            DeviceError::Busy { path, by } if by.is_empty() => {
                write!(
                    f,
                    "target {} is in use: mounted, swap, or held by another program",
                    path.display()
                )
            }
            DeviceError::Busy { path, by } => {
                write!(f, "target {} is in use: {}", path.display(), by.join(", "))
            }
            DeviceError::Changed { path } => {
                write!(
                    f,
                    "{} became another file while it was being opened",
                    path.display()
                )
            }
            DeviceError::NoSuchDevice { path } => {
                write!(f, "target {}: there is no such device", path.display())
            }
            DeviceError::Open { role, path, error } => {
                write!(f, "cannot open {role} {}: {error}", path.display())
            }
            DeviceError::ReadOnly { path } => write!(f, "target {} is read-only", path.display()),
            DeviceError::Resize {
                path,
                length_bytes,
                error,
            } => {
                write!(
                    f,
                    "cannot make {} {length_bytes} bytes long: {error}",
                    path.display()
                )
            }
            DeviceError::TooSmall {
                path,
                holds_bytes,
                needed_bytes,
            } => {
                let (holds, needs) = (exact(*holds_bytes), exact(*needed_bytes));
                write!(
                    f,
                    "target {} holds {holds}, image needs {needs}",
                    path.display()
                )
            }
            DeviceError::WrongKind { role, path, what } => {
                let path = path.display();
                write!(
                    f,
                    "{role} {path} is {what}; it must be a block device or a regular file"
                )
            }
        }
    }
}

impl std::error::Error for DeviceError {}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Target => "target",
            Role::Source => "source",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_small_says_how_much() {
        let error = |holds_bytes, needed_bytes| {
            let path = PathBuf::from("/dev/sda");
            DeviceError::TooSmall {
                path,
                holds_bytes,
                needed_bytes,
            }
            .to_string()
        };
        assert_eq!(
            error(120_034_123_776, 250_059_350_016),
            "target /dev/sda holds 120.0 GB (120034123776 bytes), image needs 250.1 GB (250059350016 bytes)"
        );
        assert_eq!(
            error(120_034_123_264, 120_034_123_776),
            "target /dev/sda holds 120.0 GB (120034123264 bytes), image needs 120.0 GB (120034123776 bytes)"
        );
    }
}
