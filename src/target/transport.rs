//! How is a disk attached to this machine?
//!
//! The path of a device through its buses shows it. `disk:auto` takes only what is surely inside
//! the machine, so the internal transports are listed here, and a disk that is not recognised is
//! not internal. A LUN looks like a local disk to every machine of a room, and all of them would
//! write to the same one.
//!
//! Read first: drivers/scsi/scsi_transport_{fc,iscsi,srp,sas}.c, drivers/nvme/host/sysfs.c of the
//! kernel.

use std::fmt;
use std::path::Path;

use super::sysfs::{list, read_text};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Ata,
    Mmc,
    /// The disk is in another machine; this is what such a network is called.
    Network(&'static str),
    /// On PCI.
    Nvme,
    /// SAS, RAID controllers and those of virtual machines, too.
    Scsi,
    Usb,
    Virtio,
    /// Made by the kernel itself: loop, dm, md, zram, nbd, drbd, zvol.
    Virtual,
    Unknown,
    Xen,
}

/// Directories with a number behind these marks. The order matters: a disk on USB or of iSCSI is
/// also a SCSI disk, and the memory of virtio-pmem (ndbus) is no disk of virtio.
const MARKS: [(&str, Transport); 12] = [
    ("session", Transport::Network("iscsi")),
    ("rport-", Transport::Network("fc")),
    ("fw", Transport::Unknown),
    ("ndbus", Transport::Unknown),
    ("usb", Transport::Usb),
    ("nvme", Transport::Nvme),
    ("mmc", Transport::Mmc),
    ("virtio", Transport::Virtio),
    ("ata", Transport::Ata),
    ("vbd-", Transport::Xen),
    ("vscsi-", Transport::Scsi),
    ("host", Transport::Scsi),
];

impl Transport {
    /// `link` is the directory of the disk in sysfs, as the kernel names it.
    pub(super) fn of(link: &Path) -> Transport {
        let parts: Vec<&str> = link.iter().filter_map(|part| part.to_str()).collect();
        let devices = parts.iter().position(|part| *part == "devices");
        let buses = &parts[devices.map_or(0, |index| index + 1)..];
        let is_on = |mark: &str| buses.iter().any(|part| is_numbered(part, mark));
        let found = MARKS.iter().find(|(mark, _)| is_on(mark));
        match found.map(|(_, transport)| *transport) {
            Some(Transport::Nvme) => nvme(link, buses),
            Some(Transport::Scsi) => scsi(link, buses),
            Some(transport) => transport,
            None if buses.first() == Some(&"virtual") => Transport::Virtual,
            None => Transport::Unknown,
        }
    }

    /// Whether the disk is surely in this machine and no other machine writes to it.
    pub fn is_internal(self) -> bool {
        use Transport::{Ata, Mmc, Nvme, Scsi, Virtio, Xen};
        matches!(self, Ata | Mmc | Nvme | Scsi | Virtio | Xen)
    }
}

/// A disk of a SCSI host. Adapters of a network have a class of their own. A host that belongs to
/// no controller is made of software: scsi_debug, a loopback of LIO, iSCSI without its session.
fn scsi(link: &Path, buses: &[&str]) -> Transport {
    const NETWORKS: [(&str, &str); 3] = [
        ("fc_host", "fc"),
        ("iscsi_host", "iscsi"),
        ("srp_host", "srp"),
    ];
    let has_class = |class: &str| link.ancestors().any(|above| above.join(class).exists());
    if let Some((_, name)) = NETWORKS.iter().find(|(class, _)| has_class(class)) {
        return Transport::Network(name);
    }
    let above_host = buses
        .iter()
        .position(|part| is_numbered(part, "host"))
        .unwrap_or_default();
    let is_on = |mark: &str| buses.first().is_some_and(|bus| bus.starts_with(mark));
    match () {
        () if ["pci", "LNXSYSTM", "soc", "vio", "vscsi-"]
            .into_iter()
            .any(is_on) =>
        {
            Transport::Scsi
        }
        () if is_on("platform") && above_host > 1 => Transport::Scsi,
        () => Transport::Unknown,
    }
}

/// A namespace lies below its controller; with multipath it lies below a subsystem, where links
/// lead to the controllers. Where no transport is named, the bus decides.
fn nvme(link: &Path, buses: &[&str]) -> Transport {
    let above = link.parent().unwrap_or(link);
    let below = list(above).into_iter().map(|name| above.join(name));
    let transports: Vec<String> = std::iter::once(above.to_path_buf())
        .chain(below)
        .filter_map(|controller| read_text(&controller, "transport"))
        .collect();
    let on_pci = match transports.is_empty() {
        true => buses.first().is_some_and(|bus| bus.starts_with("pci")),
        false => transports
            .iter()
            .all(|transport| ["pcie", "apple-nvme"].contains(&transport.as_str())),
    };
    match on_pci {
        true => Transport::Nvme,
        false => Transport::Network("nvme-of"),
    }
}

/// Whether a directory is called `mark` and a number: "ata3", "rport-3:0-0".
pub(super) fn is_numbered(part: &str, mark: &str) -> bool {
    part.strip_prefix(mark)
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Transport::Ata => "ata",
            Transport::Mmc => "mmc",
            Transport::Network(name) => name,
            Transport::Nvme => "nvme",
            Transport::Scsi => "scsi",
            Transport::Usb => "usb",
            Transport::Virtio => "virtio",
            Transport::Virtual => "virtual",
            Transport::Unknown => "unknown bus",
            Transport::Xen => "xen",
        })
    }
}
