//! Which disks does this machine have, what are they called, which of them are in use, and what is
//! on them?
//!
//! All but the last comes from sysfs, three files of proc and the variables of the EFI firmware, so
//! nothing is opened, woken up or changed. Only who asks `is_held` or for `signatures` has a disk
//! opened, to read.
//!
//! A disk is in use when it or a partition is mounted, is swap, or carries another device (md, dm,
//! loop). A file on it that is a loop device, a lower layer of an overlay or swap needs a mount,
//! and that counts already; a mount that is no longer to be seen (umount -l, another namespace)
//! still holds the device, which `is_held` finds out. The disk the system booted from is in use,
//! too, even when nothing of it is: a live system that was copied to RAM (toram) is gone for good
//! when its stick is. Where nothing tells which disk that was, as on a machine booted by PXE, there
//! is none.
//!
//! Read first: Documentation/ABI/stable/sysfs-block and testing/sysfs-block-device of the kernel,
//! proc_pid_mountinfo(5), live-boot(7), UEFI 2.10, 3.1.3 and 10.3.5.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use swarm_proto::format::signatures::{HEAD_BYTES, Signatures, TAIL_BYTES};

use crate::os::device;

/// Every block device with a medium in it, also those that are no candidates for a target (loop,
/// dm, md, zram …): they may still be named by path, and then it matters who uses them.
#[derive(Debug)]
pub struct Inventory {
    pub disks: Vec<Disk>,
    /// "/" but in tests.
    root: PathBuf,
}

/// One whole disk.
#[derive(Debug)]
pub struct Disk {
    /// As in /sys/block: "sda", "nvme0n1".
    pub name: String,
    pub number: DeviceNumber,
    pub size_bytes: u64,
    /// Logical and physical sector.
    pub sector_bytes: u32,
    pub physical_bytes: u32,
    pub model: Option<String>,
    pub serial: Option<String>,
    /// As udev writes it: "0x5000c500a1b2c3d4", "eui.0025385b71b0a1b2".
    pub wwn: Option<String>,
    pub transport: Transport,
    /// The medium can be taken out; also true of SD cards, whose driver does not say so.
    pub removable: bool,
    pub read_only: bool,
    pub uses: Vec<Use>,
    pub partitions: Vec<Partition>,
}

#[derive(Debug)]
pub struct Partition {
    pub name: String,
    pub number: DeviceNumber,
    pub size_bytes: u64,
    pub read_only: bool,
    pub uses: Vec<Use>,
}

/// Major and minor.
pub type DeviceNumber = (u32, u32);

/// What keeps a disk or a partition from being overwritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    Mounted {
        at: String,
    },
    Swap,
    /// Part of a device above: RAID, LVM, encryption, a loop device.
    Held {
        by: String,
    },
    /// The system came from it; `word` is what says so.
    Booted {
        word: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Ata,
    Mmc,
    Nvme,
    Scsi,
    Usb,
    Virtio,
    /// Made by the kernel itself: loop, dm, md, zram.
    Virtual,
    Unknown,
    Xen,
}

impl Inventory {
    /// Reads `root`/sys, `root`/proc/self/mountinfo, /proc/swaps and /proc/cmdline; `root` is "/"
    /// but in tests.
    pub fn read(root: &Path) -> Result<Inventory, InventoryError> {
        let usage = Usage::read(root)?;
        let block = root.join("sys/block");
        let failed = |error| InventoryError {
            path: block.clone(),
            error,
        };
        fs::read_dir(&block).map_err(failed)?;
        // A disk that vanishes while we look is not there.
        let disks = list(&block)
            .iter()
            .filter_map(|name| read_disk(&block.join(name), name, &usage))
            .collect();
        Ok(Inventory {
            disks,
            root: root.into(),
        })
    }

    /// Does somebody hold the device exclusively? The kernel knows also what neither sysfs nor the
    /// mounts tell: ZFS, a mount in another namespace, another agent.
    pub fn is_held(&self, path: &Path) -> bool {
        device::is_held(&self.rooted(path))
    }

    /// What is on a disk or a partition. Reads, and waits for that.
    pub fn signatures(&self, path: &Path) -> io::Result<Signatures> {
        let (head, tail, size_bytes) =
            device::read_ends(&self.rooted(path), HEAD_BYTES, TAIL_BYTES)?;
        Ok(Signatures::of(&head, &tail, size_bytes))
    }

    fn rooted(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The disk of that number, or the disk of which a partition has it.
    pub fn disk_of(&self, number: DeviceNumber) -> Option<&Disk> {
        self.disks.iter().find(|disk| disk.has(number))
    }

    /// What keeps a device from being overwritten, as sentences: for a partition its own uses and
    /// those of the whole disk, for a disk its own and those of all its partitions.
    pub fn users_of(&self, number: DeviceNumber) -> Vec<String> {
        self.disk_of(number)
            .map_or_else(Vec::new, |disk| disk.users_of(number, |_| true))
    }

    /// The devices above it, of which the kernel does not always know: see `Usage::add_loops`.
    pub fn holders_of(&self, number: DeviceNumber) -> Vec<String> {
        let is_held = |one: &Use| matches!(one, Use::Held { .. });
        self.disk_of(number)
            .map_or_else(Vec::new, |disk| disk.users_of(number, is_held))
    }
}

impl Disk {
    pub fn path(&self) -> PathBuf {
        device_path(&self.name)
    }

    /// A disk one would put an image on; not memory, not a file, not a layer above other disks, not
    /// a CD.
    pub fn is_real(&self) -> bool {
        const OTHERS: [&str; 9] = [
            "dm-", "fd", "loop", "md", "mtdblock", "nbd", "ram", "sr", "zram",
        ];
        // The boot areas of an eMMC: mmcblk0boot0, mmcblk0rpmb.
        let boot_area = self.name.starts_with("mmcblk")
            && (self.name.contains("boot") || self.name.contains("rpmb"));
        !boot_area && !OTHERS.iter().any(|other| self.name.starts_with(other))
    }

    /// What it is, in the words that selectors take as far as they know them.
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

    /// Is it the number of the disk or of a partition?
    pub fn has(&self, number: DeviceNumber) -> bool {
        number == self.number
            || self
                .partitions
                .iter()
                .any(|partition| number == partition.number)
    }

    /// All uses of the disk and its partitions, as sentences.
    pub fn users(&self) -> Vec<String> {
        self.users_of(self.number, |_| true)
    }

    fn users_of(&self, number: DeviceNumber, wanted: fn(&Use) -> bool) -> Vec<String> {
        let mut sentences = Vec::new();
        let mut tell = |name: &str, uses: &[Use]| {
            for one in uses.iter().filter(|one| wanted(one)) {
                sentences.push(format!("{} is {one}", device_path(name).display()));
            }
        };
        tell(&self.name, &self.uses);
        for partition in &self.partitions {
            if number == self.number || number == partition.number {
                tell(&partition.name, &partition.uses);
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

/// Mounts, swaps and the like, by the device they are on.
struct Usage {
    /// The device is a number, "8:1", or a name in sysfs: where a file system hides its disk behind
    /// a number of its own (btrfs), the name is all there is.
    by_device: Vec<(String, Use)>,
    /// The partition the firmware booted from.
    efi: Option<EfiPartition>,
}

impl Usage {
    fn read(root: &Path) -> Result<Usage, InventoryError> {
        let read = |name: &str| {
            let path = root.join(name);
            fs::read_to_string(&path).map_err(|error| InventoryError { path, error })
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
        // Last, so that a better reason goes first. It may be missing where proc is restricted.
        read("proc/cmdline")
            .iter()
            .for_each(|line| usage.add_boot_words(root, line));
        Ok(usage)
    }

    /// `36 35 98:0 /root /mnt rw,noatime master:1 - ext4 /dev/sda1 rw`: the third field is the
    /// device, the fifth the mount point; after the dash come type and source. The first mount of a
    /// device is the one that is told.
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
        let mounted = Use::Mounted { at: unescape(at) };
        self.add_path(&unescape(source), mounted.clone());
        self.by_device.push((number.to_string(), mounted));
    }

    fn add_path(&mut self, path: &str, one: Use) {
        if let Some(name) = path.strip_prefix("/dev/") {
            self.by_device.push((name.replace('/', "!"), one));
        }
    }

    /// `/dev/sda2  partition  1048572  0  -2`
    fn add_swap(&mut self, line: &str) {
        self.add_path(
            &unescape(line.split_whitespace().next().unwrap_or_default()),
            Use::Swap,
        );
    }

    /// A loop device over another device does not hold it as the kernel sees it.
    fn add_loops(&mut self, block: &Path) {
        for name in list(block) {
            let below = read_text(&block.join(&name), "loop/backing_file").unwrap_or_default();
            self.add_path(&below, Use::Held { by: name });
        }
    }

    /// The kernel's command line often names what a live system was on: live-boot, casper, dracut,
    /// archiso, `root=`.
    fn add_boot_words(&mut self, root: &Path, line: &str) {
        const KEYS: [&str; 6] = [
            "root",
            "bootfrom",
            "live-media",
            "fromiso",
            "archisodevice",
            "img_dev",
        ];
        for word in line.split_whitespace() {
            let Some((_, place)) = word.split_once('=').filter(|(key, _)| KEYS.contains(key))
            else {
                continue;
            };
            if let Some(name) = device_name(root, place.trim_start_matches("live:")) {
                let word = clean(word).unwrap_or_default();
                self.by_device.push((name, Use::Booted { word }));
            }
        }
    }

    /// What came first counts.
    fn of(&self, directory: &Path, name: &str, number: &str) -> Vec<Use> {
        let find = |wanted: &str| self.by_device.iter().find(|(device, _)| device == wanted);
        let found = find(number)
            .or_else(|| find(name))
            .map(|(_, one)| one.clone());
        found.into_iter().chain(holders(directory)).collect()
    }
}

/// The name in sysfs of `/dev/sdb1`, `/dev/sdb1/some.iso`, `/dev/disk/by-id/…`, `LABEL=…` and the
/// like. Names other than the kernel's are links that udev made.
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

/// A partition in the words of the firmware: LBAs of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EfiPartition {
    number: u32,
    start: u64,
    count: u64,
}

impl EfiPartition {
    /// BootCurrent names the variable that describes what was booted. `None` without EFI, and when
    /// that was no partition: over the network the path ends in an address.
    fn booted(variables: &Path) -> Option<EfiPartition> {
        const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
        // Four bytes of attributes stand before every variable
        // (Documentation/filesystems/efivarfs.rst).
        let variable = |name: &str| fs::read(variables.join(format!("{name}-{GLOBAL}"))).ok();
        let current = variable("BootCurrent")?;
        let number = u16::from_le_bytes(*current.get(4..)?.first_chunk()?);
        EfiPartition::in_load_option(variable(&format!("Boot{number:04X}"))?.get(4..)?)
    }

    /// EFI_LOAD_OPTION: attributes, length of the path, a description in UTF-16 that ends in NUL,
    /// the path. Of its nodes (type, subtype, length in two bytes, data) the one for a partition is
    /// type 4, subtype 1.
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

/// One directory of /sys/block. `None` if there is no medium, or if the kernel hides it (a path of
/// NVMe multipath).
fn read_disk(directory: &Path, name: &str, usage: &Usage) -> Option<Disk> {
    let flag = |attribute: &str| read_text(directory, attribute).is_some_and(|text| text != "0");
    let number_of = |attribute: &str| read_text(directory, attribute)?.parse::<u32>().ok();
    let size_bytes = read_bytes(directory, "size").filter(|&bytes| bytes > 0)?;
    if flag("hidden") {
        return None;
    }
    let number = read_text(directory, "dev")?;
    let link = fs::canonicalize(directory).ok()?;
    let transport = Transport::of(&link);
    let sector_bytes = number_of("queue/logical_block_size").unwrap_or(512);
    let is_sd_card =
        transport == Transport::Mmc && read_text(directory, "device/type").as_deref() == Some("SD");
    Some(Disk {
        name: name.into(),
        number: parse_number(&number)?,
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
        transport,
        removable: flag("removable") || is_sd_card,
        read_only: flag("ro"),
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
    let index = read_text(directory, "partition")?;
    let number = read_text(directory, "dev")?;
    let (start_bytes, size_bytes) = (
        read_bytes(directory, "start"),
        read_bytes(directory, "size")?,
    );
    let mut uses = usage.of(directory, name, &number);
    let lba_bytes = u64::from(sector_bytes);
    if let Some(efi) = usage.efi.filter(|_| uses.is_empty())
        && index == efi.number.to_string()
        && start_bytes == efi.start.checked_mul(lba_bytes)
        && Some(size_bytes) == efi.count.checked_mul(lba_bytes)
    {
        uses.push(Use::Booted {
            word: "EFI BootCurrent".into(),
        });
    }
    Some(Partition {
        name: name.into(),
        number: parse_number(&number)?,
        size_bytes,
        read_only: read_text(directory, "ro").is_some_and(|text| text != "0"),
        uses,
    })
}

/// virtio; NVMe and MMC; SCSI and ATA; and for USB sticks, which often lack the SCSI page, the
/// serial of the USB device.
fn read_serial(directory: &Path, link: &Path) -> Option<String> {
    ["serial", "device/serial"]
        .iter()
        .find_map(|file| read_text(directory, file))
        .or_else(|| vpd_serial(&fs::read(directory.join("device/vpd_pg80")).ok()?))
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

/// The kernel's wwid as udev's ID_WWN. A "t10." name is made of vendor and model and is no WWN.
fn wwn(wwid: &str) -> Option<String> {
    match wwid.split_once('.') {
        Some(("naa", digits)) => Some(format!("0x{digits}")),
        Some(("eui" | "nvme" | "uuid", _)) => Some(wwid.into()),
        _ => None,
    }
}

impl Transport {
    /// From the path of the device through its buses. A USB disk is also a SCSI disk, so the order
    /// matters.
    fn of(link: &Path) -> Transport {
        const MARKS: [(&str, Transport); 8] = [
            ("usb", Transport::Usb),
            ("nvme", Transport::Nvme),
            ("mmc", Transport::Mmc),
            ("virtio", Transport::Virtio),
            ("ata", Transport::Ata),
            ("vbd-", Transport::Xen),
            ("host", Transport::Scsi),
            ("virtual", Transport::Virtual),
        ];
        let parts: Vec<String> = link
            .iter()
            .map(|part| part.to_string_lossy().into_owned())
            .collect();
        let below_devices = parts.iter().skip_while(|part| *part != "devices").skip(1);
        let found = MARKS
            .iter()
            .find(|(mark, _)| below_devices.clone().any(|part| part.starts_with(mark)));
        found.map_or(Transport::Unknown, |(_, transport)| *transport)
    }
}

/// `size` and `start` count units of 512 bytes, whatever the sector.
fn read_bytes(directory: &Path, file: &str) -> Option<u64> {
    read_text(directory, file)?
        .parse::<u64>()
        .ok()?
        .checked_mul(512)
}

fn parse_number(text: &str) -> Option<DeviceNumber> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// An attribute that exists and says something.
fn read_text(directory: &Path, file: &str) -> Option<String> {
    clean(&String::from_utf8_lossy(
        &fs::read(directory.join(file)).ok()?,
    ))
}

/// Disks pad their names with spaces, some with worse; this goes to terminals and into reports.
fn clean(text: &str) -> Option<String> {
    let printable = text.replace(|c: char| !c.is_ascii_graphic(), " ");
    let words: Vec<&str> = printable.split_whitespace().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// The names in a directory, sdb before sdaa; none if it is not there. What the kernel names is
/// ASCII.
fn list(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort_unstable_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    names
}

/// Undoes the octal escapes of space, tab, newline and backslash in mountinfo and swaps: "\040" is
/// a space.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut result = String::from(parts.next().unwrap_or_default());
    for part in parts {
        match part
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok())
        {
            Some(byte) => {
                result.push(char::from(byte));
                result.push_str(&part[3..]);
            }
            None => {
                result.push('\\');
                result.push_str(part);
            }
        }
    }
    result
}

/// A file without which nothing is known about disks.
#[derive(Debug)]
pub struct InventoryError {
    path: PathBuf,
    error: io::Error,
}

impl fmt::Display for InventoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot list the disks: {}: {}",
            self.path.display(),
            self.error
        )
    }
}

impl std::error::Error for InventoryError {}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Use::Mounted { at } => write!(f, "mounted at {at}"),
            Use::Swap => f.write_str("swap"),
            Use::Held { by } => write!(f, "held by {by}"),
            Use::Booted { word } => write!(f, "what this system was booted from ({word})"),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Transport::Ata => "ata",
            Transport::Mmc => "mmc",
            Transport::Nvme => "nvme",
            Transport::Scsi => "scsi",
            Transport::Usb => "usb",
            Transport::Virtio => "virtio",
            Transport::Virtual => "virtual",
            Transport::Unknown => "-",
            Transport::Xen => "xen",
        })
    }
}

#[cfg(test)]
pub mod testing {
    //! A machine as a directory.

    use super::*;
    use crate::os::testing::Scratch;

    /// A fake sysfs and proc. Add devices, then `inventory()`.
    pub struct Machine {
        scratch: Scratch,
    }

    impl Machine {
        pub fn new() -> Machine {
            let machine = Machine {
                scratch: Scratch::new("machine"),
            };
            fs::create_dir_all(machine.scratch.path().join("sys/block")).unwrap();
            machine.file(
                "proc/self/mountinfo",
                "22 27 0:21 / /proc rw,relatime - proc proc rw\n",
            );
            machine.file(
                "proc/swaps",
                "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n",
            );
            machine
        }

        pub fn file(&self, path: &str, contents: impl AsRef<[u8]>) -> &Machine {
            let path = self.scratch.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
            self
        }

        pub fn link(&self, path: &str, target: &str) -> &Machine {
            let path = self.scratch.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(target, path).unwrap();
            self
        }

        /// A disk at `link` below sys/devices, whose last part is its name, with attributes as
        /// "file=text" lines.
        pub fn disk(
            &self,
            link: &str,
            number: &str,
            size_bytes: u64,
            attributes: &[&str],
        ) -> &Machine {
            let name = link.rsplit('/').next().unwrap();
            let directory = format!("sys/devices/{link}");
            self.file(&format!("{directory}/dev"), format!("{number}\n"));
            self.file(
                &format!("{directory}/size"),
                format!("{}\n", size_bytes / 512),
            );
            for (file, text) in attributes
                .iter()
                .map(|attribute| attribute.split_once('=').unwrap())
            {
                self.file(&format!("{directory}/{file}"), format!("{text}\n"));
            }
            let block = self.scratch.path().join("sys/block").join(name);
            if !block.exists() {
                std::os::unix::fs::symlink(self.scratch.path().join(directory), block).unwrap();
            }
            self
        }

        /// Partition N has the N of its name, and begins at N MiB.
        pub fn partition(&self, link: &str, number: &str, size_bytes: u64) -> &Machine {
            let directory = format!("sys/devices/{link}");
            let index: u64 = link[link.rfind(|c: char| !c.is_ascii_digit()).unwrap() + 1..]
                .parse()
                .unwrap();
            self.file(&format!("{directory}/partition"), format!("{index}\n"));
            self.file(&format!("{directory}/start"), format!("{}\n", index << 11));
            self.file(&format!("{directory}/dev"), format!("{number}\n"));
            self.file(
                &format!("{directory}/size"),
                format!("{}\n", size_bytes / 512),
            )
        }

        pub fn mount(&self, line: &str) -> &Machine {
            self.append("proc/self/mountinfo", line)
        }

        pub fn swap(&self, path: &str) -> &Machine {
            self.append("proc/swaps", &format!("{path}\tpartition\t1048572\t0\t-2"))
        }

        fn append(&self, file: &str, line: &str) -> &Machine {
            let before = fs::read_to_string(self.scratch.path().join(file)).unwrap();
            self.file(file, format!("{before}{line}\n"))
        }

        pub fn root(&self) -> &Path {
            self.scratch.path()
        }

        pub fn inventory(&self) -> Inventory {
            Inventory::read(self.root()).unwrap()
        }
    }

    /// A desktop: the system on sda, an empty NVMe disk, a stick, and a loop device.
    pub fn desktop() -> Machine {
        let machine = Machine::new();
        let ata = "pci0000:00/0000:00:17.0/ata3/host2/target2:0:0/2:0:0:0/block/sda";
        machine
            .disk(
                ata,
                "8:0",
                500_107_862_016,
                &[
                    "removable=0",
                    "ro=0",
                    "queue/logical_block_size=512",
                    "queue/physical_block_size=4096",
                    "queue/rotational=1",
                    "device/model=ST500DM002-1BD14 ",
                    "device/wwid=naa.5000c500a1b2c3d4",
                ],
            )
            .file(
                &format!("sys/devices/{ata}/device/vpd_pg80"),
                b"\0\x80\0\x14            Z3T9ABCD",
            )
            .partition(&format!("{ata}/sda1"), "8:1", 536_870_912)
            .partition(&format!("{ata}/sda2"), "8:2", 499_000_000_512)
            .partition(&format!("{ata}/sda3"), "8:3", 524_288_000)
            .mount("27 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw")
            .mount("61 27 8:1 / /boot/efi rw,relatime shared:2 - vfat /dev/sda1 rw")
            .swap("/dev/sda3")
            .disk(
                "pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1",
                "259:0",
                250_059_350_016,
                &[
                    "queue/logical_block_size=512",
                    "device/model=Samsung SSD 970          ",
                    "device/serial=S4EUNX0N123456X     ",
                    "wwid=eui.0025385b71b0a1b2",
                ],
            )
            .disk(
                "pci0000:00/0000:00:14.0/usb1/1-4/1-4:1.0/host6/target6:0:0/6:0:0:0/block/sdb",
                "8:16",
                8_004_304_896,
                &["removable=1", "device/model=DataTraveler 2.0"],
            )
            .file(
                "sys/devices/pci0000:00/0000:00:14.0/usb1/1-4/idVendor",
                "0951\n",
            )
            .file(
                "sys/devices/pci0000:00/0000:00:14.0/usb1/1-4/serial",
                "60A44C3FAE22\n",
            )
            .disk("virtual/block/loop0", "7:0", 65_536, &[])
            .disk("virtual/block/loop1", "7:1", 0, &[]);
        machine
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{Machine, desktop};
    use super::*;

    fn disk<'a>(inventory: &'a Inventory, name: &str) -> &'a Disk {
        inventory
            .disks
            .iter()
            .find(|disk| disk.name == name)
            .expect("no such disk")
    }

    #[test]
    fn a_desktop() {
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

    /// LVM on a partition, RAID on a whole disk, btrfs with its anonymous number, a mount point
    /// with a space.
    #[test]
    fn layers_above() {
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

    /// The command line of a live system that went to RAM, by all the names a device has.
    #[test]
    fn booted_from_by_the_command_line() {
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
            let said = match expected {
                "" => vec![],
                word => vec![format!(
                    "/dev/sdb1 is what this system was booted from ({word})"
                )],
            };
            assert_eq!(inventory.users_of((8, 16)), said, "{line}");
            assert_eq!(inventory.users_of((259, 0)), [""; 0]);
        }
    }

    /// What a firmware wrote: attributes, a load option "UEFI stick", a path of PCI, USB,
    /// partition, end.
    #[test]
    fn booted_from_by_the_firmware() {
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
            // The start and the count are known 24 bytes into the node, but a node is whole or
            // nothing.
            let complete = length >= option.len() - 4 - 4;
            let answer = EfiPartition::in_load_option(&option[4..][..length]);
            assert_eq!(answer, complete.then_some(found), "{length}");
        }
        // A node that claims no length does not hold us up; a network card has no partition.
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
        let said = "/dev/sdb1 is what this system was booted from (EFI BootCurrent)";
        assert_eq!(machine.inventory().users_of((8, 16)), [said]);
        machine.partition(&format!("{usb}/sdb1"), "8:17", 1 << 29);
        assert_eq!(machine.inventory().users_of((8, 16)), [""; 0]);
    }

    #[test]
    fn a_loop_device_over_a_disk_holds_it() {
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

    #[test]
    fn what_is_on_a_disk() {
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
    fn other_buses() {
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
    fn pages_cut_short_are_no_serial() {
        let page = b"\0\x80\0\x08  ABC123";
        assert_eq!(vpd_serial(page).as_deref(), Some("ABC123"));
        assert!((0..page.len()).all(|length| vpd_serial(&page[..length]).is_none()));
        assert_eq!(vpd_serial(b"\0\x83\0\x01A"), None);
    }

    #[test]
    fn names_are_made_printable() {
        assert_eq!(
            clean("  WDC  \u{1b}[31mRED\0\n").as_deref(),
            Some("WDC [31mRED")
        );
        assert_eq!(clean(" \0 "), None);
        assert_eq!(unescape(r"a\040b\134c\x"), r"a b\c\x");
    }

    #[test]
    fn without_sysfs_nothing_is_known() {
        let machine = Machine::new();
        fs::remove_dir(machine.root().join("sys/block")).unwrap();
        let error = Inventory::read(machine.root()).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot list the disks: ")
                && error.contains("sys/block: No such file")
        );
    }

    /// Whatever machine the tests run on, it has a root file system and answers.
    #[test]
    fn this_machine() {
        Inventory::read(Path::new("/")).unwrap();
    }
}
