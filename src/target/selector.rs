//! Which disk does a selector mean?
//!
//! A selector describes exactly one whole disk by its properties, so that one boot entry serves
//! machines whose disks have different names:
//!
//! ```text
//! disk:auto                the only internal disk not in use
//! disk:serial=S4EUNX0N     serial number          disk:model=ST500DM002-1BD14   model
//! disk:wwn=0x5000c500a1b2  world wide name        disk:path=/dev/disk/by-path/…   through links
//! disk:size=200G..1T       size from, to (K M G T, powers of 1024); either side may be missing
//! disk:auto,size=200G..    commas: all of these
//! ```
//!
//! Two matches are as bad as none: then nothing is opened, and the answer lists every disk with the
//! reason. A disk that is in use never matches, nor does the disk from which the system booted.
//! That disk can only be given by path.

use std::fmt;
use std::path::{Path, PathBuf};

use swarm_proto::size::{SizeError, decimal, parse_size};

use super::inventory::{DeviceNumber, Disk, Inventory, Transport};

/// What follows "disk:" as criteria, all of which must be met, and the whole text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    pub(super) text: String,
    criteria: Vec<Criterion>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Criterion {
    Auto,
    Model(String),
    Path(PathBuf),
    Serial(String),
    /// Both ends are included.
    Size {
        min_bytes: u64,
        max_bytes: u64,
    },
    Wwn(String),
}

/// Why the disk is opened. Only a disk that is to be overwritten must not be in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose<'a> {
    Read,
    /// The devices in `taken` are targets too, and open already.
    Write {
        taken: &'a [DeviceNumber],
    },
}

impl Selector {
    /// `text` is "disk:" and `criteria`.
    pub(super) fn parse(text: &str, criteria: &str) -> Result<Selector, GrammarError> {
        let criteria: Result<Vec<Criterion>, GrammarError> = criteria
            .split(',')
            .map(|part| parse_criterion(text, part))
            .collect();
        Ok(Selector {
            criteria: criteria?,
            text: text.into(),
        })
    }

    /// The only disk that fits.
    pub(super) fn select<'a>(
        &self,
        inventory: &'a Inventory,
        purpose: Purpose,
    ) -> Result<&'a Disk, SelectError> {
        let candidates: Vec<&Disk> = inventory
            .disks
            .iter()
            .filter(|disk| disk.is_real())
            .collect();
        let verdicts: Vec<Option<String>> = candidates
            .iter()
            .map(|disk| self.objection(disk, inventory, purpose))
            .collect();
        let mut matches = candidates
            .iter()
            .zip(&verdicts)
            .filter(|(_, verdict)| verdict.is_none());
        match (matches.next(), matches.count()) {
            (Some((disk, _)), 0) => Ok(disk),
            (first, more) => Err(SelectError {
                selector: self.text.clone(),
                match_count: more + usize::from(first.is_some()),
                candidates: candidates
                    .iter()
                    .zip(verdicts)
                    .map(|(disk, verdict)| row(disk, verdict))
                    .collect(),
            }),
        }
    }

    /// Why the disk does not fit, or `None` if it does.
    fn objection(&self, disk: &Disk, inventory: &Inventory, purpose: Purpose) -> Option<String> {
        let unfit = self
            .criteria
            .iter()
            .find_map(|criterion| criterion.objection(disk));
        let Purpose::Write { taken } = purpose else {
            return unfit;
        };
        let users = disk.users();
        // Asking the kernel may wake the disk up, so it comes last, and only for a disk that fits.
        unfit.or_else(|| match () {
            () if taken.iter().any(|number| disk.has(*number)) => Some("a target already".into()),
            () if !users.is_empty() => Some(users.join(", ")),
            () if disk.read_only => Some("read-only".into()),
            () => inventory
                .is_held(&disk.path())
                .then(|| "held by another program".into()),
        })
    }
}

impl Criterion {
    fn objection(&self, disk: &Disk) -> Option<String> {
        let unless = |fits: bool, reason: &str| (!fits).then(|| reason.to_string());
        match self {
            Criterion::Auto if disk.transport == Transport::Usb => Some("on USB".into()),
            Criterion::Auto => unless(!disk.removable, "removable"),
            Criterion::Model(model) => unless(same(disk.model.as_deref(), model), "another model"),
            Criterion::Path(path) => unless(leads_to(path, &disk.path()), "another path"),
            Criterion::Serial(serial) => {
                unless(same(disk.serial.as_deref(), serial), "another serial")
            }
            Criterion::Size { min_bytes, .. } if disk.size_bytes < *min_bytes => {
                Some("too small".into())
            }
            Criterion::Size { max_bytes, .. } => unless(disk.size_bytes <= *max_bytes, "too large"),
            Criterion::Wwn(wwn) => unless(
                same(disk.wwn.as_deref().map(bare_wwn), bare_wwn(wwn)),
                "another WWN",
            ),
        }
    }
}

/// Upper and lower case are the same: people copy these from a label.
fn same(found: Option<&str>, wanted: &str) -> bool {
    found.is_some_and(|found| found.eq_ignore_ascii_case(wanted))
}

/// The digits of a WWN. The kernel writes "naa.5000…", udev "0x5000…", a label "5000…".
fn bare_wwn(wwn: &str) -> &str {
    let marks = ["0x", "0X", "naa.", "eui.", "nvme.", "uuid."];
    marks
        .iter()
        .find_map(|mark| wwn.strip_prefix(mark))
        .unwrap_or(wwn)
}

fn leads_to(path: &Path, disk: &Path) -> bool {
    path == disk || path.canonicalize().is_ok_and(|path| path == disk)
}

fn parse_criterion(text: &str, part: &str) -> Result<Criterion, GrammarError> {
    if part == "auto" {
        return Ok(Criterion::Auto);
    }
    let (key, value) = part.split_once('=').unwrap_or((part, ""));
    let known = ["serial", "wwn", "model", "size", "path"].contains(&key);
    if !known && !part.is_empty() {
        return Err(GrammarError::UnknownKey {
            text: text.into(),
            key: key.into(),
        });
    }
    let value = value.trim();
    if value.is_empty() {
        return Err(GrammarError::Empty { text: text.into() });
    }
    Ok(match key {
        "serial" => Criterion::Serial(value.into()),
        "wwn" => Criterion::Wwn(value.into()),
        "model" => Criterion::Model(value.into()),
        "path" => Criterion::Path(value.into()),
        _ => parse_size_range(text, value)?,
    })
}

fn parse_size_range(text: &str, value: &str) -> Result<Criterion, GrammarError> {
    let no_range = || GrammarError::NotARange {
        text: text.into(),
        value: value.into(),
    };
    let (min, max) = value.split_once("..").ok_or_else(no_range)?;
    let size = |side: &str, missing: u64| match side {
        "" => Ok(missing),
        side => parse_size(side).map_err(|error| GrammarError::Size {
            text: text.into(),
            error,
        }),
    };
    let (min_bytes, max_bytes) = (size(min, 0)?, size(max, u64::MAX)?);
    if min_bytes > max_bytes || value == ".." {
        return Err(no_range());
    }
    Ok(Criterion::Size {
        min_bytes,
        max_bytes,
    })
}

/// A TARGET that cannot be understood: a mistake on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrammarError {
    Empty { text: String },
    NotARange { text: String, value: String },
    Size { text: String, error: SizeError },
    UnknownKey { text: String, key: String },
}

impl fmt::Display for GrammarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GrammarError::Empty { text } => {
                write!(
                    f,
                    "target \"{text}\" is incomplete: a path, disk:auto, or disk:KEY=VALUE,…"
                )
            }
            GrammarError::NotARange { text, value } => {
                write!(
                    f,
                    "target \"{text}\": \"{value}\" is no range: size=MIN.., size=..MAX or size=MIN..MAX"
                )
            }
            GrammarError::Size { text, error } => write!(f, "target \"{text}\": {error}"),
            GrammarError::UnknownKey { text, key } => {
                write!(
                    f,
                    "target \"{text}\": \"{key}\" is none of auto, serial, wwn, model, size, path"
                )
            }
        }
    }
}

impl std::error::Error for GrammarError {}

/// A selector that does not fit exactly one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectError {
    selector: String,
    match_count: usize,
    candidates: Vec<Row>,
}

/// A line of the table: path, size, model, serial, verdict.
type Row = [String; 5];

fn row(disk: &Disk, objection: Option<String>) -> Row {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    [
        disk.path().display().to_string(),
        decimal(disk.size_bytes),
        or_dash(&disk.model),
        or_dash(&disk.serial),
        objection.unwrap_or_else(|| "fits".into()),
    ]
}

impl fmt::Display for SelectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SelectError {
            selector,
            match_count,
            candidates,
        } = self;
        match match_count {
            _ if candidates.is_empty() => {
                return write!(
                    f,
                    "target {selector}: this machine has no disk (is its driver loaded?)"
                );
            }
            0 => write!(f, "target {selector} fits no disk:")?,
            count => write!(f, "target {selector} fits {count} disks and must fit one:")?,
        }
        let width = |column: usize| {
            candidates
                .iter()
                .map(|row| row[column].len())
                .max()
                .unwrap_or(0)
        };
        let [w0, w1, w2, w3] = [width(0), width(1), width(2), width(3)];
        candidates
            .iter()
            .try_for_each(|[path, size, model, serial, verdict]| {
                write!(
                    f,
                    "\n  {path:w0$}  {size:>w1$}  {model:w2$}  {serial:w3$}  {verdict}"
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Target;
    use crate::target::testing::{Machine, desktop};

    const WRITE: Purpose = Purpose::Write { taken: &[] };

    fn selector(text: &str) -> Selector {
        match Target::parse(text.as_ref()) {
            Ok(Target::Selector(selector)) => selector,
            other => panic!("{text}: {other:?}"),
        }
    }

    /// The name of the disk, or the first line of the refusal.
    fn select(machine: &Machine, text: &str) -> String {
        match selector(text).select(&machine.inventory(), WRITE) {
            Ok(disk) => disk.name.clone(),
            Err(error) => error.to_string().lines().next().unwrap().to_string(),
        }
    }

    #[test]
    fn selectors_choose_a_disk_of_a_desktop() {
        let machine = desktop();
        let cases = [
            ("disk:auto", "nvme0n1"),
            ("disk:serial=s4eunx0n123456x", "nvme0n1"),
            ("disk:wwn=0025385B71B0A1B2", "nvme0n1"),
            ("disk:wwn=eui.0025385b71b0a1b2", "nvme0n1"),
            ("disk:model=Samsung SSD 970", "nvme0n1"),
            ("disk:path=/dev/nvme0n1", "nvme0n1"),
            ("disk:size=100G..300G", "nvme0n1"),
            ("disk:size=..8G", "sdb"),
            ("disk:serial=60A44C3FAE22", "sdb"),
            ("disk:auto,size=200G..,model=Samsung SSD 970", "nvme0n1"),
            (
                "disk:auto,size=..8G",
                "target disk:auto,size=..8G fits no disk:",
            ),
            (
                "disk:serial=Z3T9ABCD",
                "target disk:serial=Z3T9ABCD fits no disk:",
            ),
            (
                "disk:size=1..",
                "target disk:size=1.. fits 2 disks and must fit one:",
            ),
            (
                "disk:path=/dev/loop0",
                "target disk:path=/dev/loop0 fits no disk:",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(select(&machine, text), expected, "{text}");
        }
    }

    #[test]
    fn a_refusal_lists_every_disk_with_the_reason() {
        let inventory = desktop().inventory();
        let error = selector("disk:auto,size=..100G")
            .select(&inventory, WRITE)
            .unwrap_err();
        let expected = "\
target disk:auto,size=..100G fits no disk:
  /dev/sda      500.1 GB  ST500DM002-1BD14  Z3T9ABCD         too large
  /dev/sdb        8.0 GB  DataTraveler 2.0  60A44C3FAE22     on USB
  /dev/nvme0n1  250.1 GB  Samsung SSD 970   S4EUNX0N123456X  too large";
        assert_eq!(error.to_string(), expected);

        let error = selector("disk:serial=Z3T9ABCD")
            .select(&inventory, WRITE)
            .unwrap_err();
        let users =
            "/dev/sda1 is mounted at /boot/efi, /dev/sda2 is mounted at /, /dev/sda3 is swap";
        assert!(error.to_string().contains(users), "{error}");
        assert!(
            selector("disk:serial=Z3T9ABCD")
                .select(&inventory, Purpose::Read)
                .is_ok()
        );

        let none = selector("disk:auto")
            .select(&Machine::new().inventory(), WRITE)
            .unwrap_err();
        assert_eq!(
            none.to_string(),
            "target disk:auto: this machine has no disk (is its driver loaded?)"
        );
    }

    #[test]
    fn auto_refuses_two_disks_that_fit() {
        let machine = desktop();
        machine.disk("pci0000:00/virtio1/block/vda", "254:0", 1 << 40, &[]);
        assert_eq!(
            select(&machine, "disk:auto"),
            "target disk:auto fits 2 disks and must fit one:"
        );
        machine.disk("pci0000:00/virtio1/block/vda", "254:0", 1 << 40, &["ro=1"]);
        assert_eq!(select(&machine, "disk:auto"), "nvme0n1");
        machine.mount("70 27 259:0 / /mnt rw - ext4 /dev/nvme0n1 rw");
        assert_eq!(
            select(&machine, "disk:auto"),
            "target disk:auto fits no disk:"
        );
    }

    #[test]
    fn mistakes_in_a_target_are_named() {
        let cases = [
            (
                "",
                r#"target "" is incomplete: a path, disk:auto, or disk:KEY=VALUE,…"#,
            ),
            (
                "disk:",
                r#"target "disk:" is incomplete: a path, disk:auto, or disk:KEY=VALUE,…"#,
            ),
            (
                "disk:auto,",
                r#"target "disk:auto," is incomplete: a path, disk:auto, or disk:KEY=VALUE,…"#,
            ),
            (
                "disk:serial=",
                r#"target "disk:serial=" is incomplete: a path, disk:auto, or disk:KEY=VALUE,…"#,
            ),
            (
                "disk:sda",
                r#"target "disk:sda": "sda" is none of auto, serial, wwn, model, size, path"#,
            ),
            (
                "disk:auto=1",
                r#"target "disk:auto=1": "auto" is none of auto, serial, wwn, model, size, path"#,
            ),
            (
                "disk:size=5G",
                r#"target "disk:size=5G": "5G" is no range: size=MIN.., size=..MAX or size=MIN..MAX"#,
            ),
            (
                "disk:size=2G..1G",
                r#"target "disk:size=2G..1G": "2G..1G" is no range: size=MIN.., size=..MAX or size=MIN..MAX"#,
            ),
            (
                "disk:size=1X..",
                r#"target "disk:size=1X..": "1X" is no size: a whole number, then K, M, G or T (powers of 1024) or nothing"#,
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(
                Target::parse(text.as_ref()).unwrap_err().to_string(),
                expected
            );
        }
    }
}
