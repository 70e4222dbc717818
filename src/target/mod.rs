//! How does TARGET become an open device?
//!
//! A path is taken as it is. A selector finds a disk by its properties (`selector`). What is opened
//! to be written must be unused as the kernel sees it, however it was named.

pub mod inventory;
mod links;
mod refusal;
pub mod selector;
pub mod source;
mod sysfs;
#[cfg(test)]
pub mod testing;
mod transport;
pub mod usage;

pub use self::refusal::TargetError;
pub use self::selector::GrammarError;

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use self::inventory::{DeviceNumber, Inventory};
use self::selector::{Purpose, Selector};
use self::sysfs::InventoryError;
use crate::os::device::{Device, DeviceError, Kind, TargetOptions, device_number};

/// TARGET as given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Path(PathBuf),
    Selector(Selector),
}

/// What a report says of the disk; empty if nothing is known, as of a regular file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub model: Option<String>,
    pub serial: Option<String>,
}

impl Target {
    /// An argument that does not begin with "disk:" is a path, in any encoding.
    pub fn parse(argument: &OsStr) -> Result<Target, GrammarError> {
        let text = argument.to_string_lossy();
        match text.strip_prefix("disk:") {
            Some(criteria) => Selector::parse(&text, criteria).map(Target::Selector),
            None if text.is_empty() => Err(GrammarError::Empty { text: text.into() }),
            None => Ok(Target::Path(argument.into())),
        }
    }

    /// Finds the target and opens it to be written. `taken` are the other devices that are open:
    /// targets, which the kernel holds, and the sources of a daemon, which it does not.
    pub fn open(
        &self,
        needed_bytes: u64,
        options: TargetOptions,
        taken: &[DeviceNumber],
    ) -> Result<(Device, Identity), TargetError> {
        let inventory = Inventory::read(Path::new("/"));
        let path = self.resolve(&inventory, Purpose::Write { taken })?;
        let opened = Device::open_target(&path, needed_bytes, options);
        // Without sysfs, a disk that is given by path can still be written. Only its identity stays
        // unknown.
        let inventory = inventory.ok();
        let device = opened.map_err(|error| explain(error, inventory.as_ref(), taken))?;
        self.check_same(&device, inventory.as_ref())?;
        if let (Kind::Block { number }, Some(inventory)) = (device.kind, &inventory) {
            if let Some(error) = overlap(&path, number, Some(inventory), taken) {
                return Err(error);
            }
            let by = inventory.holders_of(number);
            if !by.is_empty() {
                return Err(DeviceError::Busy { path, by }.into());
            }
        }
        let identity = Identity::of(&device, inventory.as_ref());
        Ok((device, identity))
    }

    /// Finds the target and opens it to be read and nothing else.
    pub fn open_readonly(&self) -> Result<(Device, Identity), TargetError> {
        let inventory = Inventory::read(Path::new("/"));
        let path = self.resolve(&inventory, Purpose::Read)?;
        let device = Device::open_readonly(&path)?;
        let inventory = inventory.ok();
        self.check_same(&device, inventory.as_ref())?;
        let identity = Identity::of(&device, inventory.as_ref());
        Ok((device, identity))
    }

    /// Refuses a device that is not the one that was looked at: a disk may be pulled out, and the
    /// next one get its name and its number. The kernel gives each disk a new sequence number.
    fn check_same(
        &self,
        device: &Device,
        inventory: Option<&Inventory>,
    ) -> Result<(), DeviceError> {
        let (Kind::Block { number }, Some(inventory)) = (device.kind, inventory) else {
            return Ok(());
        };
        let disk = inventory.disk_of(number);
        let is_chosen = match self {
            Target::Path(_) => true,
            Target::Selector(_) => disk.is_some_and(|disk| disk.path() == device.path),
        };
        let sequences = disk.and_then(|disk| disk.sequence.zip(device.sequence()));
        match is_chosen && sequences.is_none_or(|(seen, opened)| seen == opened) {
            true => Ok(()),
            false => Err(DeviceError::Changed {
                path: device.path.clone(),
            }),
        }
    }

    fn resolve(
        &self,
        inventory: &Result<Inventory, InventoryError>,
        purpose: Purpose,
    ) -> Result<PathBuf, TargetError> {
        match (self, inventory) {
            // An initramfs has no links below /dev/disk.
            (Target::Path(path), Ok(inventory)) if path.starts_with("/dev/disk") => {
                Ok(links::follow(inventory, path).unwrap_or_else(|| path.clone()))
            }
            (Target::Path(path), _) => Ok(path.clone()),
            (Target::Selector(selector), Ok(inventory)) => Ok(selector
                .select(inventory, purpose)
                .map_err(TargetError::Select)?
                .path()),
            (Target::Selector(_), Err(error)) => Err(TargetError::Inventory(error.to_string())),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Path(path) => path.display().fmt(f),
            Target::Selector(selector) => f.write_str(&selector.text),
        }
    }
}

impl Identity {
    fn of(device: &Device, inventory: Option<&Inventory>) -> Identity {
        let Kind::Block { number } = device.kind else {
            return Identity::default();
        };
        let disk = inventory.and_then(|inventory| inventory.disk_of(number));
        disk.map_or_else(Identity::default, |disk| Identity {
            model: disk.model.clone(),
            serial: disk.serial.clone(),
        })
    }
}

/// Adds the reason why a disk is busy. The kernel does not say it; the other targets, sysfs and the
/// mounts mostly show it.
fn explain(
    error: DeviceError,
    inventory: Option<&Inventory>,
    taken: &[DeviceNumber],
) -> TargetError {
    let DeviceError::Busy { path, by } = error else {
        return error.into();
    };
    let Some(number) = device_number(&path).filter(|_| by.is_empty()) else {
        return DeviceError::Busy { path, by }.into();
    };
    if let Some(error) = overlap(&path, number, inventory, taken) {
        return error;
    }
    let by = inventory
        .map(|inventory| inventory.users_of(number))
        .unwrap_or_default();
    DeviceError::Busy { path, by }.into()
}

/// Why a device cannot be a target beside the `taken` ones: it is one of them, a part of one, or
/// one is a part of it.
fn overlap(
    path: &Path,
    number: DeviceNumber,
    inventory: Option<&Inventory>,
    taken: &[DeviceNumber],
) -> Option<TargetError> {
    let path = path.to_path_buf();
    if taken.contains(&number) {
        return Some(TargetError::Twice { path });
    }
    let disk = inventory?.disk_of(number)?;
    let (part, whole) = match disk.number == number {
        true => {
            let mut parts = disk.partitions.iter();
            let part = parts.find(|partition| taken.contains(&partition.number))?;
            (part.path(), path.clone())
        }
        false => (path.clone(), disk.path()),
    };
    let is_taken = disk.number == number || taken.contains(&disk.number);
    is_taken.then_some(TargetError::Overlap { path, part, whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_without_prefix_is_a_path() {
        for text in ["/dev/sda", "image", "./disk:auto", "DISK:auto"] {
            assert_eq!(Target::parse(text.as_ref()), Ok(Target::Path(text.into())));
        }
    }
}
