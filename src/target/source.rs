//! Who may change a source while it is read?
//!
//! Then its pieces come from different moments, and what is deployed never was on the source. A
//! file system that is mounted to be written counts, on the source itself or on anything above it
//! (LVM, RAID, a loop device); swap; and a program that has opened it to write, as QEMU has the
//! disk of a machine that runs. A file system that is mounted read-only changes nothing.
//!
//! Read first: proc_pid_fdinfo(5), proc_pid_mountinfo(5).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::inventory::{DeviceNumber, Disk, Inventory};
use super::sysfs::{list, read_text};
use super::usage::Use;
use crate::os::device::{Device, Kind, device_number};
use crate::os::whole;

/// A sentence for each of them that is known. Of programs of other users only root knows.
pub fn writers(device: &Device) -> Vec<String> {
    // Without sysfs nothing is known.
    let Ok(inventory) = Inventory::read(Path::new("/")) else {
        return Vec::new();
    };
    let mut found = match device.kind {
        Kind::Block { number } => writers_of_device(&inventory, number),
        Kind::Regular => writers_of_file(&inventory, &device.path),
    };
    if found.is_empty() && device.is_locked() {
        found.push("another program has locked it to write".into());
    }
    found
}

/// Whether both are one device or one file.
pub fn is_one(one: &Path, other: &Path) -> bool {
    // Only a device has a number of its own.
    let number = |path| match fs::metadata(path).ok()?.rdev() {
        0 => identity(path),
        number => Some((u64::MAX, number)),
    };
    is_same(number(one), number(other))
}

fn writers_of_device(inventory: &Inventory, number: DeviceNumber) -> Vec<String> {
    let Some(disk) = inventory.disk_of(number) else {
        return Vec::new();
    };
    let layers = with_holders(inventory, layers_of(disk, number));
    let mut found = writers_of_layers(inventory, &layers, None);
    let is_idle = found.is_empty() && layers.iter().all(|layer| layer.uses.is_empty());
    let path = layers.iter().find(|layer| layer.number == number);
    if let Some(Layer { path, .. }) = path.filter(|layer| is_idle && inventory.is_held(&layer.path))
    {
        found.push(format!("{} is held by another program", path.display()));
    }
    found
}

/// A file is used like a device through a loop device.
fn writers_of_file(inventory: &Inventory, path: &Path) -> Vec<String> {
    let Some(path) = inventory.canonical(path) else {
        return Vec::new();
    };
    let ours = identity(&inventory.rooted(&path));
    let is_above = |disk: &&Disk| {
        let file = inventory.backing_file(disk);
        file.is_some_and(|file| file == path || is_same(identity(&inventory.rooted(&file)), ours))
    };
    let loops = inventory.disks.iter().filter(is_above);
    let loops = loops
        .flat_map(|disk| layers_of(disk, disk.number))
        .collect();
    writers_of_layers(inventory, &with_holders(inventory, loops), ours)
}

/// A device that is the source, contains it or lies on it.
struct Layer<'a> {
    path: PathBuf,
    number: DeviceNumber,
    uses: &'a [Use],
}

/// The disk and all its partitions, or the disk and one partition.
fn layers_of(disk: &Disk, number: DeviceNumber) -> Vec<Layer<'_>> {
    let parts = disk.partitions.iter();
    let parts = parts.filter(|part| number == disk.number || number == part.number);
    let layer = |path, number, uses| Layer { path, number, uses };
    std::iter::once(layer(disk.path(), disk.number, &disk.uses[..]))
        .chain(parts.map(|part| layer(part.path(), part.number, &part.uses[..])))
        .collect()
}

/// These, and the devices that lie on them: LVM, RAID, encryption, loop.
fn with_holders<'a>(inventory: &'a Inventory, mut layers: Vec<Layer<'a>>) -> Vec<Layer<'a>> {
    let mut next = 0;
    while let Some(Layer { uses, .. }) = layers.get(next) {
        next += 1;
        let is_holder = |disk: &&Disk| uses.iter().any(|found| found.is_by(&disk.name));
        for disk in inventory.disks.iter().filter(is_holder) {
            if layers.iter().all(|layer| layer.number != disk.number) {
                layers.extend(layers_of(disk, disk.number));
            }
        }
    }
    layers
}

fn writers_of_layers(
    inventory: &Inventory,
    layers: &[Layer],
    file: Option<Identity>,
) -> Vec<String> {
    let mut found = Vec::new();
    for layer in layers {
        for used in layer.uses {
            if used.writes() {
                found.push(format!("{} is {used}", layer.path.display()));
            }
        }
    }
    let is_ours = |fd: &Path, inode: Option<u64>| {
        let link = fs::read_link(fd).unwrap_or_default();
        let is_below = link.starts_with("/dev");
        let number = is_below.then(|| device_number(fd)).flatten();
        if layers.iter().any(|layer| Some(layer.number) == number) {
            return true;
        }
        // A file on a dead network file system would be asked for ever, so the inode decides first.
        let may_be = |(_, ours)| inode.is_none_or(|inode| inode == ours);
        file.is_some_and(may_be) && is_same(identity(fd), file)
    };
    add_programs(&mut found, &inventory.rooted(Path::new("/proc")), &is_ours);
    found
}

/// Device and inode: of a file under each of its names, in each place where its file system is
/// mounted.
type Identity = (u64, u64);

fn identity(path: &Path) -> Option<Identity> {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

fn is_same(one: Option<Identity>, other: Option<Identity>) -> bool {
    one.is_some() && one == other
}

/// Adds the programs that have opened such a file to write. The program that started this one waits
/// for it. A program that has it open only for a moment does not count: losetup opens a device that
/// another losetup has just taken, and lets it go within a quarter of a second.
fn add_programs(found: &mut Vec<String>, proc: &Path, is_it: &IsIt) {
    const MOMENT: Duration = Duration::from_millis(500);
    let own = [std::process::id(), std::os::unix::process::parent_id()];
    let mut programs = list(proc);
    programs.retain(|id| {
        id.parse().is_ok_and(|id: u32| !own.contains(&id)) && has_opened(&proc.join(id), is_it)
    });
    if !programs.is_empty() {
        thread::sleep(MOMENT);
    }
    for id in programs {
        if has_opened(&proc.join(&id), is_it) {
            let name = read_text(&proc.join(&id), "comm").unwrap_or_default();
            found.push(format!("{name} (process {id}) has opened it to write"));
        }
    }
}

/// Whether this entry of `fd`, which has this inode if the kernel tells (since Linux 5.14), is open
/// on the source.
type IsIt<'a> = dyn Fn(&Path, Option<u64>) -> bool + 'a;

fn has_opened(process: &Path, is_it: &IsIt) -> bool {
    let fds = process.join("fd");
    list(&fds).iter().any(|fd| {
        let info = whole::read_text(&process.join("fdinfo").join(fd)).unwrap_or_default();
        let number = |key: &str, radix| {
            let text = info.lines().find_map(|line| line.strip_prefix(key))?;
            u64::from_str_radix(text.trim_ascii(), radix).ok()
        };
        // The last two bits of the flags say how a file was opened (open(2)); 0 is to read.
        let is_to_write = number("flags:", 8).is_some_and(|flags| flags & 3 != 0);
        is_to_write && is_it(&fds.join(fd), number("ino:", 10))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::testing::{Machine, desktop};

    const SDA: DeviceNumber = (8, 0);

    /// The system runs on sda; nvme0n1 is free.
    #[test]
    fn a_disk_with_a_mounted_partition_is_written_to() {
        let machine = desktop();
        let writers = |number| writers_of_device(&machine.inventory(), number);
        let (efi, root, swap) = (
            "/dev/sda1 is mounted at /boot/efi",
            "/dev/sda2 is mounted at /",
            "/dev/sda3 is swap",
        );
        assert_eq!(writers(SDA), [efi, root, swap]);
        assert_eq!(writers((8, 2)), [root]);
        assert_eq!(writers((259, 0)), [""; 0]);
    }

    #[test]
    fn a_read_only_mount_changes_nothing() {
        let machine = desktop();
        machine.mount("70 27 259:0 / /mnt ro - ext4 /dev/nvme0n1 ro,noload");
        assert_eq!(writers_of_device(&machine.inventory(), (259, 0)), [""; 0]);
        // One of two mounts of a file system that can be written.
        let machine = desktop();
        machine.mount("70 27 259:0 / /mnt ro - ext4 /dev/nvme0n1 rw");
        assert_eq!(writers_of_device(&machine.inventory(), (259, 0)).len(), 1);
    }

    /// A volume counts by what is done with it, not because it exists.
    #[test]
    fn what_lies_on_a_disk_counts() {
        let machine = desktop();
        machine
            .file(
                "sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1/holders/dm-0/dm/name",
                "vg0-root\n",
            )
            .disk("virtual/block/dm-0", "253:0", 1 << 30, &[]);
        let writers = |machine: &Machine| writers_of_device(&machine.inventory(), (259, 0));
        assert_eq!(writers(&machine), [""; 0]);
        machine.mount("70 27 253:0 / /srv rw - xfs /dev/mapper/vg0-root rw");
        let mounted = ["/dev/dm-0 is mounted at /srv"];
        assert_eq!(writers(&machine), mounted);
        assert_eq!(writers_of_device(&machine.inventory(), (253, 0)), mounted);
    }

    #[test]
    fn a_file_is_written_to_through_a_loop_device() {
        let machine = desktop();
        machine.file("srv/disk.img", "x");
        machine.link("srv/link.img", "disk.img");
        let writers = |path: &str| writers_of_file(&machine.inventory(), Path::new(path));
        let backing = "sys/devices/virtual/block/loop0/loop/backing_file";
        machine.file(backing, "/srv/disk.img\n");
        assert_eq!(writers("/srv/disk.img"), [""; 0]);
        machine
            .partition("virtual/block/loop0/loop0p1", "259:7", 1 << 20)
            .mount("70 27 259:7 / /mnt rw - ext4 /dev/loop0p1 rw");
        let mounted = ["/dev/loop0p1 is mounted at /mnt"];
        assert_eq!(writers("/srv/disk.img"), mounted);
        assert_eq!(writers("/srv/link.img"), mounted);
        machine.file(backing, "/srv/other.img\n");
        assert_eq!(writers("/srv/disk.img"), [""; 0]);
        let root = machine.root().join("srv");
        fs::hard_link(root.join("disk.img"), root.join("other.img")).unwrap();
        assert_eq!(
            writers("/srv/disk.img"),
            mounted,
            "another name of the file"
        );
    }

    #[test]
    fn a_program_that_has_opened_the_file_to_write_is_named() {
        let machine = desktop();
        machine
            .file("srv/disk.img", "x")
            .file("proc/77/comm", "qemu-system-x86\n")
            .link("proc/77/fd/9", "../../../srv/disk.img");
        let [file, copy] = ["srv/disk.img", "srv/copy.img"].map(|name| machine.root().join(name));
        let inode = fs::metadata(&file).unwrap().ino();
        for (flags, expected) in [
            ("0100000", &[][..]),
            (
                "02140002",
                &["qemu-system-x86 (process 77) has opened it to write"],
            ),
            (
                "0100001",
                &["qemu-system-x86 (process 77) has opened it to write"],
            ),
        ] {
            let info = format!("pos:\t0\nflags:\t{flags}\nmnt_id:\t26\nino:\t{inode}\n");
            machine.file("proc/77/fdinfo/9", info);
            let writers = writers_of_file(&machine.inventory(), Path::new("/srv/disk.img"));
            assert_eq!(writers, expected, "{flags}");
        }
        // By another name of the same file, which only the inode tells.
        fs::hard_link(&file, &copy).unwrap();
        for (more, count) in [(0, 1), (1, 0)] {
            let info = format!("flags:\t0100002\nino:\t{}\n", inode + more);
            machine.file("proc/77/fdinfo/9", info);
            let writers = writers_of_file(&machine.inventory(), Path::new("/srv/copy.img"));
            assert_eq!(writers.len(), count, "{writers:?}");
        }
    }
}
