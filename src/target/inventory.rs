//! Which disks does this machine have, and what are they?
//!
//! All of it comes from sysfs, three files of proc and the variables of the EFI firmware, so no
//! disk is opened, woken up or changed. Only `is_held` and `signatures` open a disk, to read.
//!
//! Read first: Documentation/ABI/stable/sysfs-block and testing/sysfs-block-device of the kernel.

use std::io;
use std::path::{Path, PathBuf};

use swarm_proto::format::signatures::Signatures;
use swarm_proto::text::split_once;

use super::sysfs::{InventoryError, clean, list, read_bytes, read_flag, read_text};
use super::transport::Transport;
use super::usage::{Usage, Use};
use crate::os::{device, directory, whole};

/// Every block device with a medium in it. Devices that no selector chooses (loop, dm, md, zram …)
/// are here too: they may be given by path, and then their users matter.
#[derive(Debug)]
pub struct Inventory {
    pub disks: Vec<Disk>,
    /// "/", except in tests.
    root: PathBuf,
}

/// One whole disk.
#[derive(Debug)]
pub struct Disk {
    /// As in /sys/block: "sda", "nvme0n1".
    pub name: String,
    pub number: DeviceNumber,
    /// Told since Linux 5.15. No other disk has it until the next boot.
    pub(super) sequence: Option<u64>,
    pub size_bytes: u64,
    /// Logical and physical sector.
    pub sector_bytes: u32,
    pub physical_bytes: u32,
    pub model: Option<String>,
    pub serial: Option<String>,
    /// As udev writes it: "0x5000c500a1b2c3d4", "eui.0025385b71b0a1b2".
    pub wwn: Option<String>,
    /// Its directory in sysfs, as the kernel names it.
    pub(super) link: PathBuf,
    pub transport: Transport,
    /// The medium or the disk can be taken out. True of SD cards, although their driver does not
    /// say so.
    pub removable: bool,
    pub read_only: bool,
    pub uses: Vec<Use>,
    pub partitions: Vec<Partition>,
}

#[derive(Debug)]
pub struct Partition {
    pub name: String,
    pub number: DeviceNumber,
    /// Where it begins on its disk.
    pub start_bytes: u64,
    pub size_bytes: u64,
    pub read_only: bool,
    pub uses: Vec<Use>,
}

/// Major and minor.
pub type DeviceNumber = (u32, u32);

impl Inventory {
    /// Reads sys, proc/self/mountinfo, proc/swaps and proc/cmdline below `root`, which is "/"
    /// except in tests.
    pub fn read(root: &Path) -> Result<Inventory, InventoryError> {
        let usage = Usage::read(root)?;
        let block = root.join("sys/block");
        let failed = |error| InventoryError {
            path: block.clone(),
            error,
        };
        directory::names(&block).map_err(failed)?;
        // A disk that vanishes meanwhile is left out.
        let disks = list(&block)
            .iter()
            .filter_map(|name| read_disk(&block.join(name), name, &usage))
            .collect();
        Ok(Inventory {
            disks,
            root: root.into(),
        })
    }

    /// Whether somebody holds the device exclusively. The kernel also knows of holders that neither
    /// sysfs nor the mounts show: ZFS, a mount in another namespace, another agent.
    pub fn is_held(&self, path: &Path) -> bool {
        device::is_held(&self.rooted(path))
    }

    /// The signatures on a disk or a partition. Waits for the disk.
    pub fn signatures(&self, path: &Path) -> io::Result<Signatures> {
        device::read_parts(&self.rooted(path), Signatures::read)
    }

    /// The file at the end of all links.
    pub(super) fn canonical(&self, path: &Path) -> Option<PathBuf> {
        let found = directory::real_path(&self.rooted(path)).ok()?;
        let root = directory::real_path(&self.root).ok()?;
        Some(Path::new("/").join(found.strip_prefix(root).ok()?))
    }

    /// The file below a loop device.
    pub(super) fn backing_file(&self, disk: &Disk) -> Option<PathBuf> {
        read_text(&disk.link, "loop/backing_file").map(PathBuf::from)
    }

    pub(super) fn rooted(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The disk that has this number, or a partition of which has it.
    pub fn disk_of(&self, number: DeviceNumber) -> Option<&Disk> {
        self.disks.iter().find(|disk| disk.has(number))
    }

    /// The uses of a device, as sentences: for a partition its own and those of the whole disk, for
    /// a disk its own and those of all its partitions.
    pub(super) fn users_of(&self, number: DeviceNumber) -> Vec<String> {
        self.disk_of(number)
            .map_or_else(Vec::new, |disk| disk.users_of(number, |_| true))
    }

    /// The devices above a device, as sentences. The kernel does not hold it for all of them
    /// (`Usage::add_loops`).
    pub(super) fn holders_of(&self, number: DeviceNumber) -> Vec<String> {
        let is_holder = |found: &Use| matches!(found, Use::Held { .. });
        self.disk_of(number)
            .map_or_else(Vec::new, |disk| disk.users_of(number, is_holder))
    }
}

impl Disk {
    pub fn path(&self) -> PathBuf {
        device_path(&self.name)
    }

    /// Whether it is a disk for an image: not memory, not a file, not a layer above other disks,
    /// not a CD.
    pub fn is_real(&self) -> bool {
        const OTHERS: [&str; 9] = [
            "dm-", "fd", "loop", "md", "mtdblock", "nbd", "ram", "sr", "zram",
        ];
        // The boot areas of an eMMC: mmcblk0boot0, mmcblk0rpmb.
        let boot_area = self.name.starts_with("mmcblk")
            && ["boot", "rpmb"]
                .iter()
                .any(|area| split_once(&self.name, area).is_some());
        !boot_area && !OTHERS.iter().any(|other| self.name.starts_with(other))
    }

    /// What it is; serial number, WWN and model as a selector takes them.
    pub fn traits(&self) -> Vec<String> {
        let physical = match self.physical_bytes == self.sector_bytes {
            true => String::new(),
            false => format!(" (physical {})", self.physical_bytes),
        };
        let mut words = vec![
            self.transport.to_string(),
            format!("sectors of {}{physical}", self.sector_bytes),
        ];
        for (key, value) in [
            ("serial", &self.serial),
            ("wwn", &self.wwn),
            ("model", &self.model),
        ] {
            words.extend(value.as_ref().map(|value| format!("{key}={value}")));
        }
        words
    }

    /// Whether it is the number of the disk or of one of its partitions.
    pub(super) fn has(&self, number: DeviceNumber) -> bool {
        number == self.number
            || self
                .partitions
                .iter()
                .any(|partition| number == partition.number)
    }

    /// All uses of the disk and its partitions, as sentences.
    pub(super) fn users(&self) -> Vec<String> {
        self.users_of(self.number, |_| true)
    }

    /// The uses that are `wanted` of the disk or of one of its partitions, as sentences.
    fn users_of(&self, number: DeviceNumber, wanted: fn(&Use) -> bool) -> Vec<String> {
        let mut sentences = Vec::new();
        let mut add = |name: &str, uses: &[Use]| {
            for found in uses.iter().filter(|found| wanted(found)) {
                sentences.push(format!("{} is {found}", device_path(name).display()));
            }
        };
        add(&self.name, &self.uses);
        for partition in &self.partitions {
            if number == self.number || number == partition.number {
                add(&partition.name, &partition.uses);
            }
        }
        sentences
    }
}

impl Partition {
    pub fn path(&self) -> PathBuf {
        device_path(&self.name)
    }
}

/// sysfs writes the slash of "cciss/c0d0" as an exclamation mark.
fn device_path(name: &str) -> PathBuf {
    Path::new("/dev").join(name.replace('!', "/"))
}

/// The disk of one directory of /sys/block. `None` if it has no medium, or if the kernel hides it
/// (a path of NVMe multipath).
fn read_disk(directory: &Path, name: &str, usage: &Usage) -> Option<Disk> {
    // First: if another disk comes now, it does not get this number.
    let sequence = read_text(directory, "diskseq").and_then(|text| text.parse().ok());
    let number_of = |attribute: &str| read_text(directory, attribute)?.parse::<u32>().ok();
    let size_bytes = read_bytes(directory, "size").filter(|&bytes| bytes > 0)?;
    if read_flag(directory, "hidden") {
        return None;
    }
    let number = read_text(directory, "dev")?;
    let link = directory::real_path(directory).ok()?;
    let transport = Transport::of(&link);
    let sector_bytes = number_of("queue/logical_block_size").unwrap_or(512);
    // Every card that is no eMMC can be taken out: "SD", "SDcombo".
    let is_card = transport == Transport::Mmc
        && read_text(directory, "device/type").as_deref() != Some("MMC");
    // Of PCI (behind Thunderbolt) and USB devices the kernel tells whether they are built in.
    let is_external = link
        .ancestors()
        .any(|above| read_text(above, "removable").as_deref() == Some("removable"));
    Some(Disk {
        name: name.into(),
        number: parse_number(&number)?,
        sequence,
        size_bytes,
        sector_bytes,
        physical_bytes: number_of("queue/physical_block_size").unwrap_or(sector_bytes),
        model: ["device/model", "device/name"]
            .iter()
            .find_map(|file| read_text(directory, file)),
        serial: read_serial(directory, &link),
        wwn: ["wwid", "device/wwid"]
            .iter()
            .find_map(|file| wwn(&read_text(directory, file)?)),
        link,
        transport,
        removable: read_flag(directory, "removable") || is_card || is_external,
        read_only: read_flag(directory, "ro"),
        uses: usage.of(directory, name, &number),
        partitions: read_partitions(directory, sector_bytes, usage),
    })
}

fn read_partitions(directory: &Path, sector_bytes: u32, usage: &Usage) -> Vec<Partition> {
    let read = |name: &String| read_partition(&directory.join(name), name, sector_bytes, usage);
    list(directory).iter().filter_map(read).collect()
}

fn read_partition(
    directory: &Path,
    name: &str,
    sector_bytes: u32,
    usage: &Usage,
) -> Option<Partition> {
    // Only a partition has this file; the other directories are "queue", "holders" and so on.
    read_text(directory, "partition")?;
    let number = read_text(directory, "dev")?;
    Some(Partition {
        name: name.into(),
        number: parse_number(&number)?,
        start_bytes: read_bytes(directory, "start").unwrap_or_default(),
        size_bytes: read_bytes(directory, "size")?,
        read_only: read_flag(directory, "ro"),
        uses: usage.of_partition(directory, name, &number, sector_bytes),
    })
}

/// In this order: virtio; NVMe and MMC; SCSI and ATA; and for USB sticks, which often lack the SCSI
/// page, the serial number of the USB device.
fn read_serial(directory: &Path, link: &Path) -> Option<String> {
    ["serial", "device/serial"]
        .iter()
        .find_map(|file| read_text(directory, file))
        .or_else(|| vpd_serial(&whole::read_all(&directory.join("device/vpd_pg80")).ok()?))
        .or_else(|| {
            let usb_device = link
                .ancestors()
                .find(|ancestor| ancestor.join("idVendor").exists())?;
            read_text(usb_device, "serial")
        })
}

/// The unit serial number page (SPC-4, 7.8.17): type, page code 80h, length in two bytes, text.
fn vpd_serial(page: &[u8]) -> Option<String> {
    let (&[_, 0x80, high, low], text) = page.split_first_chunk()? else {
        return None;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    clean(&String::from_utf8_lossy(text.get(..length)?))
}

/// The kernel's wwid as udev writes it in ID_WWN. A "t10." name is made of vendor and model and is
/// no WWN.
fn wwn(wwid: &str) -> Option<String> {
    match wwid.split_once('.') {
        Some(("naa", digits)) => Some(format!("0x{digits}")),
        Some(("eui" | "nvme" | "uuid", _)) => Some(wwid.into()),
        _ => None,
    }
}

fn parse_number(text: &str) -> Option<DeviceNumber> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::testing::{Machine, desktop};
    use std::fs;

    fn disk<'a>(inventory: &'a Inventory, name: &str) -> &'a Disk {
        inventory
            .disks
            .iter()
            .find(|disk| disk.name == name)
            .expect("no such disk")
    }

    #[test]
    fn a_desktop_has_these_disks() {
        let machine = desktop();
        let inventory = machine.inventory();
        let names: Vec<&str> = inventory
            .disks
            .iter()
            .map(|disk| disk.name.as_str())
            .collect();
        assert_eq!(
            names,
            ["sda", "sdb", "loop0", "nvme0n1"],
            "loop1 has no file"
        );

        let sda = disk(&inventory, "sda");
        assert_eq!(
            (sda.size_bytes, sda.sector_bytes, sda.physical_bytes),
            (500_107_862_016, 512, 4096)
        );
        assert_eq!(sda.model.as_deref(), Some("ST500DM002-1BD14"));
        assert_eq!(sda.serial.as_deref(), Some("Z3T9ABCD"));
        assert_eq!(sda.wwn.as_deref(), Some("0x5000c500a1b2c3d4"));
        assert_eq!(sda.transport, Transport::Ata);
        assert!(!sda.removable && !sda.read_only);
        assert_eq!(sda.path(), Path::new("/dev/sda"));
        let partitions: Vec<&str> = sda
            .partitions
            .iter()
            .map(|partition| partition.name.as_str())
            .collect();
        assert_eq!(partitions, ["sda1", "sda2", "sda3"]);

        let nvme = disk(&inventory, "nvme0n1");
        assert_eq!(nvme.model.as_deref(), Some("Samsung SSD 970"));
        assert_eq!(nvme.serial.as_deref(), Some("S4EUNX0N123456X"));
        assert_eq!(nvme.wwn.as_deref(), Some("eui.0025385b71b0a1b2"));
        assert_eq!(nvme.transport, Transport::Nvme);
        assert!(nvme.users().is_empty());

        let stick = disk(&inventory, "sdb");
        assert_eq!(stick.transport, Transport::Usb);
        assert_eq!(stick.serial.as_deref(), Some("60A44C3FAE22"));
        assert!(stick.removable && stick.is_real());
        assert!(!disk(&inventory, "loop0").is_real());
    }

    #[test]
    fn users_of_disks_and_partitions() {
        let inventory = desktop().inventory();
        let all = [
            "/dev/sda1 is mounted at /boot/efi",
            "/dev/sda2 is mounted at /",
            "/dev/sda3 is swap",
        ];
        assert_eq!(inventory.users_of((8, 0)), all);
        assert_eq!(inventory.users_of((8, 2)), all[1..2]);
        assert_eq!(inventory.users_of((259, 0)), [""; 0]);
        assert_eq!(inventory.users_of((99, 99)), [""; 0]);
        assert_eq!(inventory.disk_of((8, 3)).unwrap().name, "sda");
    }

    #[test]
    fn signatures_are_read_from_the_device() {
        let machine = desktop();
        let mut bytes = vec![0; 1 << 20];
        bytes[..4].copy_from_slice(b"XFSB");
        machine.file("dev/nvme0n1", &bytes);
        let inventory = machine.inventory();
        assert_eq!(
            inventory
                .signatures(Path::new("/dev/nvme0n1"))
                .unwrap()
                .to_string(),
            "xfs"
        );
        assert!(inventory.signatures(Path::new("/dev/sda")).is_err());
        assert!(!inventory.is_held(Path::new("/dev/sda")));
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn disks_on_other_buses() {
        let machine = Machine::new();
        machine
            .disk(
                "pci0000:00/0000:00:02.0/virtio1/block/vda",
                "254:0",
                1 << 30,
                &["serial=disk-of-7"],
            )
            .disk(
                "platform/soc/fe340000.mmc/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0",
                "179:0",
                1 << 30,
                &[
                    "device/name=SC16G",
                    "device/serial=0x1234abcd",
                    "device/type=SD",
                ],
            )
            .disk(
                "platform/soc/fe340000.mmc/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0boot0",
                "179:8",
                1 << 22,
                &[],
            )
            .disk(
                "virtual/nvme-subsystem/nvme-subsys0/nvme0n1",
                "259:1",
                1 << 30,
                &["hidden=0"],
            )
            .file("sys/devices/pci0000:00/nvme/nvme0/transport", "pcie\n")
            .link(
                "sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0",
                "../../../pci0000:00/nvme/nvme0",
            )
            .disk(
                "pci0000:00/nvme/nvme0/nvme0c0n1",
                "259:2",
                1 << 30,
                &["hidden=1"],
            )
            .disk("vbd-51712/block/xvda", "202:0", 1 << 30, &["ro=1"])
            .disk(
                "pci0000:00/host0/target0:0:0/0:0:0:0/block/cciss!c0d0",
                "104:0",
                1 << 30,
                &[],
            );
        let inventory = machine.inventory();
        let transports: Vec<(&str, Transport)> = inventory
            .disks
            .iter()
            .map(|disk| (disk.name.as_str(), disk.transport))
            .collect();
        assert_eq!(
            transports,
            [
                ("vda", Transport::Virtio),
                ("xvda", Transport::Xen),
                ("mmcblk0", Transport::Mmc),
                ("nvme0n1", Transport::Nvme),
                ("cciss!c0d0", Transport::Scsi),
                ("mmcblk0boot0", Transport::Mmc),
            ]
        );
        assert_eq!(disk(&inventory, "vda").serial.as_deref(), Some("disk-of-7"));
        let card = disk(&inventory, "mmcblk0");
        assert_eq!(
            (card.model.as_deref(), card.serial.as_deref()),
            (Some("SC16G"), Some("0x1234abcd"))
        );
        assert!(card.removable);
        assert!(!disk(&inventory, "mmcblk0boot0").is_real());
        assert!(disk(&inventory, "xvda").read_only);
        assert_eq!(
            disk(&inventory, "cciss!c0d0").path(),
            Path::new("/dev/cciss/c0d0")
        );
    }

    #[test]
    fn a_page_cut_short_has_no_serial_number() {
        let page = b"\0\x80\0\x08  ABC123";
        assert_eq!(vpd_serial(page).as_deref(), Some("ABC123"));
        assert!((0..page.len()).all(|length| vpd_serial(&page[..length]).is_none()));
        assert_eq!(vpd_serial(b"\0\x83\0\x01A"), None);
    }

    #[test]
    fn without_sysfs_there_is_no_inventory() {
        let machine = Machine::new();
        fs::remove_dir(machine.root().join("sys/block")).unwrap();
        let error = Inventory::read(machine.root()).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot list the disks: ")
                && error.contains("sys/block: No such file")
        );
    }

    /// Every machine that runs the tests has a sysfs and a proc.
    #[test]
    fn this_machine_has_an_inventory() {
        Inventory::read(Path::new("/")).unwrap();
    }
}
