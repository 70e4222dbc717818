//! Which program or device uses a disk or a partition, so that it must not be overwritten?
//!
//! It is in use when it or a partition is mounted, is swap, or carries another device (md, dm,
//! loop). A file on it that is a loop device, a lower layer of an overlay or swap needs a mount,
//! and the mount counts already. A mount that can no longer be seen (umount -l, another namespace)
//! still holds the device, which `Inventory::is_held` finds out.
//!
//! The disk from which the system booted is in use, too, even if nothing of it is mounted: a live
//! system that was copied to RAM (toram) is gone for good when its stick is overwritten. A machine
//! that booted by PXE has no such disk.
//!
//! Read first: proc_pid_mountinfo(5), live-boot(7), UEFI 2.10, 3.1.3 and 10.3.5.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use super::sysfs::{InventoryError, clean, list, read_bytes, read_text, unescape};
use crate::os::whole;

/// What keeps a disk or a partition from being overwritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    Mounted {
        at: String,
        /// Through this mount or another one of the same file system.
        writable: bool,
    },
    Swap,
    /// Part of a device above: RAID, LVM, encryption, a loop device.
    Held {
        by: String,
    },
    /// The system booted from it, according to `evidence`: a word of the kernel's command line, or
    /// the firmware.
    Booted {
        evidence: String,
    },
}

impl Use {
    /// Whether it changes the device by itself. What lies above a device has uses of its own.
    pub(super) fn writes(&self) -> bool {
        matches!(self, Use::Mounted { writable: true, .. } | Use::Swap)
    }

    /// Whether the device of this name lies above.
    pub(super) fn is_by(&self, name: &str) -> bool {
        matches!(self, Use::Held { by } if by.split(' ').next() == Some(name))
    }
}

/// All uses that sysfs, proc and the firmware know of, by device.
pub(super) struct Usage {
    /// A device is a number, "8:1", or a name in sysfs. Only the name is known where a file system
    /// hides its disk behind a number of its own (btrfs).
    by_device: Vec<(String, Use)>,
    /// The partition from which the firmware booted.
    efi: Option<EfiPartition>,
}

impl Usage {
    pub(super) fn read(root: &Path) -> Result<Usage, InventoryError> {
        let read = |name: &str| {
            let path = root.join(name);
            whole::read_text(&path).map_err(|error| InventoryError { path, error })
        };
        let efi = EfiPartition::booted(&root.join("sys/firmware/efi/efivars"));
        let mut usage = Usage {
            by_device: Vec::new(),
            efi,
        };
        read("proc/self/mountinfo")?
            .lines()
            .for_each(|line| usage.add_mount(line));
        match read("proc/swaps") {
            Ok(swaps) => swaps.lines().skip(1).for_each(|line| usage.add_swap(line)),
            // A kernel without swap.
            Err(missing) if missing.error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        usage.add_loops(&root.join("sys/block"));
        // Last, because only the first use of a device is told, and a mount says more. The file may
        // be missing where proc is restricted.
        read("proc/cmdline")
            .iter()
            .for_each(|line| usage.add_boot_disks(root, line));
        Ok(usage)
    }

    /// `36 35 98:0 /root /mnt rw,noatime master:1 - ext4 /dev/sda1 rw`: the third field is the
    /// device, the fifth the mount point; after the dash come type and source.
    fn add_mount(&mut self, line: &str) {
        let fields: Vec<&str> = line.split(' ').collect();
        let source_index = fields
            .iter()
            .position(|&field| field == "-")
            .map_or(usize::MAX, |dash| dash + 2);
        let (Some(number), Some(at), Some(source)) =
            (fields.get(2), fields.get(4), fields.get(source_index))
        else {
            return;
        };
        // The last field has the options of the file system, not only of this mount.
        let options = fields.get(source_index + 1).unwrap_or(&"rw");
        let mounted = Use::Mounted {
            at: unescape(at),
            writable: options.split(',').any(|option| option == "rw"),
        };
        self.add_path(&unescape(source), mounted.clone());
        self.by_device.push((number.to_string(), mounted));
    }

    fn add_path(&mut self, path: &str, usage: Use) {
        if let Some(name) = path.strip_prefix("/dev/") {
            self.by_device.push((name.replace('/', "!"), usage));
        }
    }

    /// `/dev/sda2  partition  1048572  0  -2`
    fn add_swap(&mut self, line: &str) {
        self.add_path(
            &unescape(line.split_ascii_whitespace().next().unwrap_or_default()),
            Use::Swap,
        );
    }

    /// A loop device above another device. The kernel does not count it as a holder.
    fn add_loops(&mut self, block: &Path) {
        for name in list(block) {
            let below = read_text(&block.join(&name), "loop/backing_file").unwrap_or_default();
            self.add_path(&below, Use::Held { by: name });
        }
    }

    /// The kernel's command line often names the disk of a live system: live-boot, casper, dracut,
    /// archiso, `root=`.
    fn add_boot_disks(&mut self, root: &Path, line: &str) {
        const KEYS: [&str; 6] = [
            "root",
            "bootfrom",
            "live-media",
            "fromiso",
            "archisodevice",
            "img_dev",
        ];
        for word in line.split_ascii_whitespace() {
            let Some((_, place)) = word.split_once('=').filter(|(key, _)| KEYS.contains(key))
            else {
                continue;
            };
            if let Some(name) = device_name(root, place.strip_prefix("live:").unwrap_or(place)) {
                let evidence = clean(word).unwrap_or_default();
                self.by_device.push((name, Use::Booted { evidence }));
            }
        }
    }

    /// The first use that was added, and all holders. `directory` is the device in sysfs.
    pub(super) fn of(&self, directory: &Path, name: &str, number: &str) -> Vec<Use> {
        let find = |wanted: &str| self.by_device.iter().find(|(device, _)| device == wanted);
        let found = find(number)
            .or_else(|| find(name))
            .map(|(_, first)| first.clone());
        found.into_iter().chain(holders(directory)).collect()
    }

    /// As `of`, for a partition. The firmware counts only where nothing else is known.
    pub(super) fn of_partition(
        &self,
        directory: &Path,
        name: &str,
        number: &str,
        sector_bytes: u32,
    ) -> Vec<Use> {
        let mut uses = self.of(directory, name, number);
        let is_booted = |efi: EfiPartition| efi.is_at(directory, sector_bytes);
        if uses.is_empty() && self.efi.is_some_and(is_booted) {
            uses.push(Use::Booted {
                evidence: "EFI BootCurrent".into(),
            });
        }
        uses
    }
}

/// The name in sysfs of `/dev/sdb1`, `/dev/sdb1/some.iso`, `/dev/disk/by-id/…`, `LABEL=…` and
/// similar. Names that are not the kernel's are links made by udev.
fn device_name(root: &Path, place: &str) -> Option<String> {
    let by = |kind: &str, value: &str| format!("disk/by-{kind}/{value}");
    let below_dev = match place.split_once('=') {
        Some(("LABEL" | "CDLABEL", value)) => by("label", value),
        Some(("UUID", value)) => by("uuid", value),
        Some(("PARTUUID", value)) => by("partuuid", value),
        _ => place.strip_prefix("/dev/")?.into(),
    };
    let link = fs::read_link(root.join("dev").join(&below_dev)).ok();
    let name = match &link {
        Some(target) => target.file_name()?.to_str(),
        None => below_dev.split('/').next(),
    };
    name.map(String::from)
}

/// A partition as the firmware describes it, in sectors of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EfiPartition {
    number: u32,
    start: u64,
    count: u64,
}

impl EfiPartition {
    /// The partition that was booted: BootCurrent names the variable that describes it. `None`
    /// without EFI, and after a boot over the network, whose path ends in an address.
    fn booted(variables: &Path) -> Option<EfiPartition> {
        const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
        // Four bytes of attributes stand before every variable
        // (Documentation/filesystems/efivarfs.rst).
        let variable =
            |name: &str| whole::read_all(&variables.join(format!("{name}-{GLOBAL}"))).ok();
        let current = variable("BootCurrent")?;
        let number = u16::from_le_bytes(*current.get(4..)?.first_chunk()?);
        EfiPartition::in_load_option(variable(&format!("Boot{number:04X}"))?.get(4..)?)
    }

    /// EFI_LOAD_OPTION: attributes, length of the path, a description in UTF-16 that ends in NUL,
    /// the path. The path is made of nodes: type, subtype, length in two bytes, data. A partition
    /// is a node of type 4 and subtype 1.
    fn in_load_option(option: &[u8]) -> Option<EfiPartition> {
        let description = option.get(6..)?;
        let end = description
            .chunks_exact(2)
            .position(|unit| unit == [0, 0])?;
        let mut path = &description[2 * (end + 1)..];
        while let &[kind, subtype, low, high, ..] = path {
            let node = path.get(..usize::from(u16::from_le_bytes([low, high])).max(4))?;
            if (kind, subtype) == (4, 1) {
                let start = u64::from_le_bytes(*node.get(8..)?.first_chunk()?);
                let count = u64::from_le_bytes(*node.get(16..)?.first_chunk()?);
                let number = u32::from_le_bytes(*node.get(4..)?.first_chunk()?);
                return Some(EfiPartition {
                    number,
                    start,
                    count,
                });
            }
            path = &path[node.len()..];
        }
        None
    }

    /// Whether the partition at `directory` in sysfs has this number and place on its disk.
    fn is_at(self, directory: &Path, sector_bytes: u32) -> bool {
        let is_equal = |file: &str, sectors: u64| {
            let bytes = sectors.checked_mul(sector_bytes.into());
            bytes.is_some() && read_bytes(directory, file) == bytes
        };
        read_text(directory, "partition").is_some_and(|text| text == self.number.to_string())
            && is_equal("start", self.start)
            && is_equal("size", self.count)
    }
}

/// The devices above this one; a dm device with the name its owner gave it.
fn holders(directory: &Path) -> Vec<Use> {
    let holders = directory.join("holders");
    let label = |name: &String| match read_text(&holders.join(name), "dm/name") {
        Some(label) => format!("{name} ({label})"),
        None => name.clone(),
    };
    list(&holders)
        .iter()
        .map(|name| Use::Held { by: label(name) })
        .collect()
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Use::Mounted { at, .. } => write!(f, "mounted at {at}"),
            Use::Swap => f.write_str("swap"),
            Use::Held { by } => write!(f, "held by {by}"),
            Use::Booted { evidence } => write!(f, "what this system was booted from ({evidence})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::testing::{Machine, desktop};

    /// LVM on a partition, RAID on a whole disk, btrfs with its anonymous number, a mount point
    /// with a space.
    #[test]
    fn a_disk_under_raid_or_lvm_is_in_use() {
        let machine = Machine::new();
        let sda = "pci0000:00/ata1/host0/target0:0:0/0:0:0:0/block/sda";
        let sdb = "pci0000:00/ata2/host1/target1:0:0/1:0:0:0/block/sdb";
        machine
            .disk(sda, "8:0", 1 << 40, &[])
            .partition(&format!("{sda}/sda1"), "8:1", 1 << 39)
            .partition(&format!("{sda}/sda2"), "8:2", 1 << 38)
            .file(
                &format!("sys/devices/{sda}/sda1/holders/dm-0/dm/name"),
                "vg0-root\n",
            )
            .mount(r"40 27 0:35 /@ /my\040disk rw - btrfs /dev/sda2 rw,subvol=/@")
            .disk(sdb, "8:16", 1 << 40, &[])
            .partition(&format!("{sdb}/sdb1"), "8:17", 1 << 39)
            .file(&format!("sys/devices/{sdb}/holders/md0/size"), "1\n");
        let inventory = machine.inventory();
        assert_eq!(
            inventory.users_of((8, 0)),
            [
                "/dev/sda1 is held by dm-0 (vg0-root)",
                "/dev/sda2 is mounted at /my disk"
            ]
        );
        assert_eq!(inventory.users_of((8, 17)), ["/dev/sdb is held by md0"]);
    }

    /// The command line of a live system that was copied to RAM, with every kind of device name.
    #[test]
    fn the_command_line_names_the_boot_disk() {
        let usb = "pci0000:00/0000:00:14.0/usb1/1-4/1-4:1.0/host6/target6:0:0/6:0:0:0/block/sdb";
        for (line, expected) in [
            (
                "BOOT_IMAGE=/live/vmlinuz boot=live toram bootfrom=/dev/sdb1",
                "bootfrom=/dev/sdb1",
            ),
            (
                "live-media=/dev/disk/by-id/usb-stick-part1 quiet",
                "live-media=/dev/disk/by-id/usb-stick-part1",
            ),
            (
                "root=live:CDLABEL=d-live rd.live.ram=1",
                "root=live:CDLABEL=d-live",
            ),
            ("root=UUID=12-34", "root=UUID=12-34"),
            ("root=PARTUUID=77-01", "root=PARTUUID=77-01"),
            (
                "fromiso=/dev/sdb1/iso/clonezilla.iso",
                "fromiso=/dev/sdb1/iso/clonezilla.iso",
            ),
            (
                "root=UUID=elsewhere root=/dev/nfs ip=dhcp swarmdd.target=/dev/sdb1 x=/dev/sdb1",
                "",
            ),
        ] {
            let machine = desktop();
            machine
                .partition(&format!("{usb}/sdb1"), "8:17", 1 << 30)
                .file("proc/cmdline", line);
            for link in [
                "by-id/usb-stick-part1",
                "by-label/d-live",
                "by-uuid/12-34",
                "by-partuuid/77-01",
            ] {
                machine.link(&format!("dev/disk/{link}"), "../../sdb1");
            }
            let inventory = machine.inventory();
            let users = match expected {
                "" => vec![],
                word => vec![format!(
                    "/dev/sdb1 is what this system was booted from ({word})"
                )],
            };
            assert_eq!(inventory.users_of((8, 16)), users, "{line}");
            assert_eq!(inventory.users_of((259, 0)), [""; 0]);
        }
    }

    /// Variables as a firmware writes them: attributes, then a load option whose path is PCI, USB,
    /// partition, end.
    #[test]
    fn the_firmware_names_the_boot_partition() {
        let usb = "pci0000:00/0000:00:14.0/usb1/1-4/1-4:1.0/host6/target6:0:0/6:0:0:0/block/sdb";
        let mut option = b"\x07\0\0\0\x01\0\0\0\x36\0U\0s\0b\0\0\0".to_vec();
        option.extend(b"\x01\x01\x06\0\0\x14\x03\x05\x06\0\x04\0");
        option.extend(b"\x04\x01\x2a\0\x01\0\0\0\0\x08\0\0\0\0\0\0\0\0\x20\0\0\0\0\0");
        option.extend([0xaa; 16]);
        option.extend(b"\x02\x02\x7f\xff\x04\0");
        let found = EfiPartition {
            number: 1,
            start: 2048,
            count: 1 << 21,
        };
        assert_eq!(EfiPartition::in_load_option(&option[4..]), Some(found));
        for length in 0..option.len() - 4 {
            // Number, start and count end 24 bytes into the node, but an incomplete node counts for
            // nothing.
            let complete = length >= option.len() - 4 - 4;
            let answer = EfiPartition::in_load_option(&option[4..][..length]);
            assert_eq!(answer, complete.then_some(found), "{length}");
        }
        // A node of length 0 does not cause an endless loop; a network card has no partition.
        assert_eq!(
            EfiPartition::in_load_option(b"\x01\0\0\0\x04\0\0\0\x03\x0b\0\0\x7f\xff\x04\0"),
            None
        );

        let efi = |name: &str| {
            format!("sys/firmware/efi/efivars/{name}-8be4df61-93ca-11d2-aa0d-00e098032b8c")
        };
        let machine = desktop();
        machine.partition(&format!("{usb}/sdb1"), "8:17", 1 << 30);
        machine
            .file(&efi("BootCurrent"), b"\x06\0\0\0\x0a\0")
            .file(&efi("Boot000A"), &option);
        let user = "/dev/sdb1 is what this system was booted from (EFI BootCurrent)";
        assert_eq!(machine.inventory().users_of((8, 16)), [user]);
        machine.partition(&format!("{usb}/sdb1"), "8:17", 1 << 29);
        assert_eq!(machine.inventory().users_of((8, 16)), [""; 0]);
    }

    #[test]
    fn a_disk_under_a_loop_device_is_held() {
        let machine = desktop();
        machine.file(
            "sys/devices/virtual/block/loop0/loop/backing_file",
            "/dev/nvme0n1\n",
        );
        assert_eq!(
            machine.inventory().users_of((259, 0)),
            ["/dev/nvme0n1 is held by loop0"]
        );
    }
}
