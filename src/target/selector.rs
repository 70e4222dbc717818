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
use std::path::PathBuf;

use swarm_proto::size::{SizeError, decimal, parse_size};
use swarm_proto::text::split_once;

use super::inventory::{DeviceNumber, Disk, Inventory};
use super::links;
use super::transport::Transport;

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
        if let (Some((disk, _)), None) = (matches.next(), matches.next()) {
            return Ok(disk);
        }
        let verdicts = candidates.iter().zip(verdicts);
        Err(SelectError {
            selector: self.text.clone(),
            candidates: verdicts.map(|(disk, verdict)| row(disk, verdict)).collect(),
        })
    }

    /// Whether it names a disk, so that it fits no disk of which nobody thought.
    fn names_a_disk(&self) -> bool {
        let is_name = |criterion: &Criterion| {
            matches!(
                criterion,
                Criterion::Path(_) | Criterion::Serial(_) | Criterion::Wwn(_)
            )
        };
        self.criteria.iter().any(is_name)
    }

    /// Why the disk does not fit, or `None` if it does.
    fn objection(&self, disk: &Disk, inventory: &Inventory, purpose: Purpose) -> Option<String> {
        let unfit = self
            .criteria
            .iter()
            .find_map(|criterion| criterion.objection(disk, inventory));
        let is_near = disk.transport.is_internal() || disk.transport == Transport::Usb;
        let unfit = unfit.or_else(|| (!is_near && !self.names_a_disk()).then(|| elsewhere(disk)));
        let Purpose::Write { taken } = purpose else {
            return unfit;
        };
        let users = disk.users();
        // Asking the kernel may wake the disk up, so it comes last, and only for a disk that fits.
        unfit.or_else(|| match () {
            () if taken.iter().any(|number| disk.has(*number)) => Some("a target already".into()),
            () if !users.is_empty() => Some(users.join(", ")),
            () if disk.read_only => Some("read-only".into()),
            () if inventory.is_held(&disk.path()) => Some("held by another program".into()),
            () if self.names_a_disk() => None,
            () => firmware_raid(disk, inventory),
        })
    }
}

impl Criterion {
    fn objection(&self, disk: &Disk, inventory: &Inventory) -> Option<String> {
        let unless = |fits: bool, reason: &str| (!fits).then(|| reason.to_string());
        match self {
            Criterion::Auto if disk.transport == Transport::Usb => Some("on USB".into()),
            Criterion::Auto if !disk.transport.is_internal() => Some(elsewhere(disk)),
            Criterion::Auto => unless(!disk.removable, "removable"),
            Criterion::Model(model) => unless(same(disk.model.as_deref(), model), "another model"),
            Criterion::Path(path) => match links::follow(inventory, path) {
                None if path.starts_with("/dev/disk") => {
                    Some("no such link, and no udev that makes it: use serial= or wwn=".into())
                }
                None => Some("no such path".into()),
                Some(found) if found == disk.path() => None,
                Some(found) if disk.partitions.iter().any(|part| part.path() == found) => Some(
                    format!("the path is its partition {}, no disk", found.display()),
                ),
                Some(_) => Some("another path".into()),
            },
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

/// A disk that may be in another machine, or nothing but a part of one that is here.
fn elsewhere(disk: &Disk) -> String {
    let transport = disk.transport;
    format!("{transport}, not internal: disk:{} selects it", name(disk))
}

/// A part of a RAID of the firmware, which no program here assembles. A disk that cannot be read
/// says nothing.
fn firmware_raid(disk: &Disk, inventory: &Inventory) -> Option<String> {
    let kind = inventory.signatures(&disk.path()).ok()?.firmware_raid()?;
    Some(format!(
        "member of {kind}, not free: disk:{} selects it",
        name(disk)
    ))
}

/// A criterion that fits no other disk.
fn name(disk: &Disk) -> String {
    let key = |key: &str, value: &Option<String>| Some(format!("{key}={}", value.as_ref()?));
    key("serial", &disk.serial)
        .or_else(|| key("wwn", &disk.wwn))
        .unwrap_or_else(|| format!("path={}", disk.path().display()))
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
    let value = value.trim_ascii();
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
    let (min, max) = split_once(value, "..").ok_or_else(no_range)?;
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
    candidates: Vec<Row>,
}

/// A line of the table: path, size, model, serial, verdict.
type Row = [String; 5];

/// The verdict on a disk that a selector fits.
const FITS: &str = "fits";

fn row(disk: &Disk, objection: Option<String>) -> Row {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    [
        disk.path().display().to_string(),
        decimal(disk.size_bytes),
        or_dash(&disk.model),
        or_dash(&disk.serial),
        objection.unwrap_or_else(|| FITS.into()),
    ]
}

impl SelectError {
    /// Why no disk fits: the reason of each disk, or the reason that all have in common.
    fn reasons(&self) -> String {
        const TOLD: usize = 4;
        let rows = &self.candidates;
        let [.., first] = &rows[0];
        if rows.len() > 1 && rows.iter().all(|[.., reason]| reason == first) {
            return first.clone();
        }
        let told = rows.iter().take(TOLD);
        let told: Vec<String> = told
            .map(|[path, .., reason]| format!("{path} ({reason})"))
            .collect();
        let others = match rows.len().saturating_sub(TOLD) {
            0 => String::new(),
            count => format!(", and {count} more"),
        };
        told.join(", ") + &others
    }
}

/// The first line is complete: it alone reaches a server. The table below it shows every disk.
impl fmt::Display for SelectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SelectError {
            selector,
            candidates,
        } = self;
        let fits = |row: &&Row| row[4] == FITS;
        let fitting: Vec<&str> = candidates.iter().filter(fits).map(|row| &*row[0]).collect();
        match fitting.len() {
            _ if candidates.is_empty() => {
                return write!(
                    f,
                    "target {selector}: this machine has no disk (is its driver loaded?)"
                );
            }
            0 => write!(f, "target {selector} fits no disk: {}", self.reasons())?,
            count => write!(
                f,
                "target {selector} fits {count} disks and must fit one: {}",
                fitting.join(", ")
            )?,
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

    /// The name of the disk, or the first line of the refusal up to its reasons.
    fn select(machine: &Machine, text: &str) -> String {
        let line = sentence(machine, text);
        line.split_once(": ")
            .map_or(line.clone(), |(start, _)| format!("{start}:"))
    }

    /// The name of the disk, or the first line of the refusal.
    fn sentence(machine: &Machine, text: &str) -> String {
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
target disk:auto,size=..100G fits no disk: \
/dev/sda (too large), /dev/sdb (on USB), /dev/nvme0n1 (too large)
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

    /// The first line alone reaches the frame on the screen and the server.
    #[test]
    fn the_first_line_of_a_refusal_is_complete() {
        let machine = desktop();
        for (text, expected) in [
            (
                "disk:size=1..",
                "target disk:size=1.. fits 2 disks and must fit one: /dev/sdb, /dev/nvme0n1",
            ),
            (
                "disk:serial=nobodys",
                "target disk:serial=nobodys fits no disk: another serial",
            ),
            (
                "disk:path=/dev/sdz",
                "target disk:path=/dev/sdz fits no disk: no such path",
            ),
            (
                "disk:path=/dev/disk/by-uuid/12-34",
                "target disk:path=/dev/disk/by-uuid/12-34 fits no disk: \
                 no such link, and no udev that makes it: use serial= or wwn=",
            ),
            (
                "disk:path=/dev/nvme0n1,size=..1G",
                "target disk:path=/dev/nvme0n1,size=..1G fits no disk: \
                 /dev/sda (another path), /dev/sdb (another path), /dev/nvme0n1 (too large)",
            ),
            (
                "disk:path=/dev/sda2",
                "target disk:path=/dev/sda2 fits no disk: \
                 /dev/sda (the path is its partition /dev/sda2, no disk), \
                 /dev/sdb (another path), /dev/nvme0n1 (another path)",
            ),
        ] {
            assert_eq!(sentence(&machine, text), expected);
        }
        for n in 0..4 {
            let ata = format!("pci0000:00/ata9/host{n}/target{n}:0:0/{n}:0:0:0/block/sd{n}");
            machine.disk(&ata, &format!("65:{n}"), 1 << 30, &[]);
        }
        let many = sentence(&machine, "disk:auto,size=..1M");
        assert!(many.ends_with(", and 3 more"), "{many}");
    }

    /// What is in another machine, or made of software, or not recognised, is chosen only by name.
    /// A local disk of each transport beside it is the control.
    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn auto_takes_only_what_is_inside_the_machine() {
        const SCSI: &str = "host3/target3:0:0/3:0:0:1/block/sda";
        let pci = |below: &str| format!("pci0000:00/0000:02:00.0/{below}");
        let pseudo = format!("pseudo_0/adapter0/{SCSI}");
        for (link, shown, others) in [
            (
                "platform/host7/session1/target7:0:0/7:0:0:1/block/sda".into(),
                "iscsi",
                "",
            ),
            (
                pci("host3/rport-3:0-0/target3:0:0/3:0:0:0/block/sda"),
                "fc",
                "",
            ),
            (pci(SCSI), "fc", "host3/fc_host/host3/port_name"),
            (pci(SCSI), "iscsi", "host3/iscsi_host/host3/ipaddress"),
            (pci(SCSI), "srp", "host3/srp_host/host3/uevent"),
            (
                "virtual/net/eth0.100-fcoe/ctlr_0/host9/rport-9:0-1/target9:0:0/9:0:0:0/block/sda"
                    .into(),
                "fc",
                "",
            ),
            (
                "virtual/nvme-fabrics/ctl/nvme1/nvme1n1".into(),
                "nvme-of",
                "",
            ),
            (pci("fw0/fw1/fw1.0/") + SCSI, "unknown bus", ""),
            ("rbd/0/block/rbd0".into(), "unknown bus", ""),
            ("virtual/block/drbd0".into(), "virtual", ""),
            ("virtual/block/zd0".into(), "virtual", ""),
            ("virtual/block/ublkb0".into(), "virtual", ""),
            ("virtual/block/nullb0".into(), "virtual", ""),
            ("virtual/block/bcache0".into(), "virtual", ""),
            ("virtual/block/etherd!e0.0".into(), "virtual", ""),
            (
                pci("virtio1/ndbus0/region0/namespace0.0/block/pmem0"),
                "unknown bus",
                "",
            ),
            (
                "css0/0.0.0001/0.0.1234/block/dasda".into(),
                "unknown bus",
                "",
            ),
            (pseudo, "unknown bus", ""),
            (
                format!("tcm_loop_0/tcm_loop_adapter_0/{SCSI}"),
                "unknown bus",
                "",
            ),
            (format!("platform/{SCSI}"), "unknown bus", ""),
        ] {
            let machine = Machine::new();
            machine.disk(&link, "65:0", 1 << 40, &["serial=LUN7", "device/model=x"]);
            if !others.is_empty() {
                machine.file(&format!("sys/devices/{}/{others}", pci("")), "x\n");
            }
            let name = link.rsplit('/').next().unwrap();
            let path = format!("/dev/{}", name.replace('!', "/"));
            for text in [
                "disk:auto",
                "disk:size=1..",
                "disk:model=x",
                "disk:auto,serial=LUN7",
            ] {
                assert_eq!(
                    sentence(&machine, text),
                    format!(
                        "target {text} fits no disk: {path} \
                         ({shown}, not internal: disk:serial=LUN7 selects it)"
                    ),
                    "{link}"
                );
            }
            for text in ["disk:serial=LUN7", &format!("disk:path={path},size=1..")] {
                assert_eq!(sentence(&machine, text), name, "{link}");
            }
        }
    }

    /// Without its driver above it, it would look like a disk of its own.
    #[test]
    fn auto_takes_no_member_of_a_raid_of_the_firmware() {
        let machine = desktop();
        let disk = |magic: &[u8], back: usize| {
            let mut bytes = vec![0; 2 << 20];
            let at = bytes.len() - back;
            bytes[at..at + magic.len()].copy_from_slice(magic);
            machine.file("dev/nvme0n1", bytes);
        };
        for (name, magic, back) in [
            ("Intel RAID", &b"Intel Raid ISM Cfg Sig. "[..], 1024),
            ("DDF RAID", b"\xde\x11\xde\x11", 512),
            ("NVIDIA RAID", b"NVIDIA", 1024),
        ] {
            disk(magic, back);
            let member =
                format!("member of {name}, not free: disk:serial=S4EUNX0N123456X selects it");
            let refusal = sentence(&machine, "disk:auto,size=100G..");
            assert!(refusal.contains(&member), "{refusal}");
            for text in [
                "disk:serial=S4EUNX0N123456X",
                "disk:auto,wwn=eui.0025385b71b0a1b2",
            ] {
                assert_eq!(sentence(&machine, text), "nvme0n1");
            }
        }
        // A RAID of the kernel is assembled where it is used, and its member is held then.
        disk(b"\xfc\x4e\x2b\xa9", 8192);
        assert_eq!(sentence(&machine, "disk:auto"), "nvme0n1");
    }

    #[test]
    fn auto_takes_every_kind_of_internal_disk() {
        const SCSI: &str = "host3/target3:0:0/3:0:0:0/block/sda";
        let pci = "pci0000:00/0000:02:00.0";
        let acpi = "LNXSYSTM:00/LNXSYBUS:00/PNP0A03:00/device:07/VMBUS:01";
        for link in [
            format!("{pci}/ata1/{SCSI}"),
            format!("{pci}/{SCSI}"),
            format!("{pci}/host0/port-0:0/end_device-0:0/target0:0:0/0:0:0:0/block/sda"),
            format!("{pci}/virtio2/{SCSI}"),
            format!("{pci}/virtio1/block/vda"),
            format!("{acpi}/f8b3781a-1e82-4818-a1c3-63d806ec15bb/{SCSI}"),
            format!("platform/soc/1d84000.ufs/{SCSI}"),
            format!("vscsi-0/{SCSI}"),
            "vbd-51712/block/xvda".into(),
            format!("{pci}/nvme/nvme0/nvme0n1"),
            format!("{pci}/mmc_host/mmc0/mmc0:0001/block/mmcblk0"),
        ] {
            let machine = Machine::new();
            machine.disk(&link, "65:0", 1 << 40, &["device/type=MMC"]);
            assert_eq!(
                sentence(&machine, "disk:auto"),
                link.rsplit('/').next().unwrap()
            );
        }
    }

    /// A disk behind Thunderbolt lies on PCI, and a card that is no eMMC can be taken out.
    #[test]
    fn auto_takes_nothing_that_can_be_taken_out() {
        let machine = Machine::new();
        machine
            .disk(
                "pci0000:00/0000:02:00.0/nvme/nvme0/nvme0n1",
                "259:0",
                1 << 40,
                &[],
            )
            .file(
                "sys/devices/pci0000:00/0000:02:00.0/removable",
                "removable\n",
            )
            .disk(
                "pci0000:00/mmc_host/mmc0/mmc0:1/block/mmcblk0",
                "179:0",
                1 << 40,
                &["device/type=SDcombo"],
            );
        assert_eq!(
            sentence(&machine, "disk:auto"),
            "target disk:auto fits no disk: removable"
        );
        machine.file("sys/devices/pci0000:00/0000:02:00.0/removable", "fixed\n");
        assert_eq!(sentence(&machine, "disk:auto"), "nvme0n1");
    }

    /// With multipath a disk lies below a subsystem; its controllers decide.
    #[test]
    fn a_multipath_namespace_is_as_near_as_its_controllers() {
        for (transports, expected) in [
            (&["pcie"][..], "nvme0n1"),
            (&["pcie", "pcie"], "nvme0n1"),
            (&["tcp"], "target disk:auto fits no disk:"),
            (&["pcie", "rdma"], "target disk:auto fits no disk:"),
        ] {
            let machine = Machine::new();
            machine.disk(
                "virtual/nvme-subsystem/nvme-subsys0/nvme0n1",
                "259:0",
                1 << 40,
                &[],
            );
            for (n, transport) in transports.iter().enumerate() {
                let controller = format!("sys/devices/virtual/ctl/nvme{n}");
                machine.file(&format!("{controller}/transport"), transport);
                machine.link(
                    &format!("sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme{n}"),
                    &format!("../../ctl/nvme{n}"),
                );
            }
            assert_eq!(select(&machine, "disk:auto"), expected, "{transports:?}");
        }
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
