//! Which disk would udev give this name below /dev/disk?
//!
//! An initramfs has no udev and so no such links, but an administrator copies their names from a
//! running system. Names of the place (by-path) are made here as udev makes them. Names of the
//! disk itself (by-id) are compared with its serial number and WWN instead: udev takes the model
//! from an ATA command, and sysfs has only the first 16 characters of it.
//!
//! Read first: 60-persistent-storage.rules and udev-builtin-path_id.c of systemd.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use swarm_proto::text::{self, split_once};

use super::inventory::{Disk, Inventory};
use super::sysfs::{list, read_text};
use super::transport::{Transport, is_numbered};

/// The device at the end of links, or of links that only udev would make. `None` if the path leads
/// nowhere, or if two disks have the same name.
pub(super) fn follow(inventory: &Inventory, path: &Path) -> Option<PathBuf> {
    let disks = || inventory.disks.iter();
    let is_device = || {
        disks().any(|disk| {
            disk.path() == path || disk.partitions.iter().any(|part| part.path() == path)
        })
    };
    let named = || {
        let mut named = disks().filter_map(|disk| device_of(disk, path));
        named.next().filter(|_| named.next().is_none())
    };
    inventory
        .canonical(path)
        .or_else(|| is_device().then(|| path.into()))
        .or_else(named)
}

/// The device that `path` means, if it is a name by-path or by-id of this disk or of one of its
/// partitions.
fn device_of(disk: &Disk, path: &Path) -> Option<PathBuf> {
    let text = path.to_str()?.strip_prefix("/dev/disk/")?;
    let (kind, name) = text.split_once('/')?;
    let is_named = |name: &str| match kind {
        "by-id" => has_id(disk, name),
        "by-path" => has_path(disk, name),
        _ => false,
    };
    if is_named(name) {
        return Some(disk.path());
    }
    let whole = name.trim_end_matches(|end: char| end.is_ascii_digit());
    let (whole, number) = (whole.strip_suffix("-part")?, &name[whole.len()..]);
    let is_wanted = |name: &str| {
        let rest = name.strip_prefix(&disk.name);
        rest.is_some_and(|rest| rest.trim_start_matches('p') == number)
    };
    let mut parts = disk.partitions.iter().filter(|_| is_named(whole));
    Some(parts.find(|part| is_wanted(&part.name))?.path())
}

/// `ata-MODEL_SERIAL`, `nvme-MODEL_SERIAL_1`, `usb-VENDOR_MODEL_SERIAL-0:0`, `virtio-SERIAL`,
/// `wwn-0x5000…`, `nvme-eui.0025…`, `scsi-35000…` (a 3 before the WWN).
fn has_id(disk: &Disk, name: &str) -> bool {
    let Some((bus, id)) = name.split_once('-') else {
        return false;
    };
    let wwn = disk.wwn.as_deref();
    let scsi_wwn = || Some(format!("0x{}", id.strip_prefix('3')?));
    let serial = encoded(disk.serial.as_deref());
    match bus {
        "wwn" | "nvme" if wwn == Some(id) => true,
        "scsi" if wwn.is_some() && wwn == scsi_wwn().as_deref() => true,
        "virtio" => Some(id) == serial.as_deref(),
        "ata" | "mmc" | "nvme" | "scsi" | "usb" => is_model_and_serial(disk, id),
        _ => false,
    }
}

fn is_model_and_serial(disk: &Disk, id: &str) -> bool {
    let (Some(model), Some(serial)) = (
        encoded(disk.model.as_deref()),
        encoded(disk.serial.as_deref()),
    ) else {
        return false;
    };
    // A namespace of NVMe, or a LUN of USB, may follow.
    let ends = ["", "_1", "-0:0"].map(|end| format!("_{serial}{end}"));
    let before = ends.iter().find_map(|end| id.strip_suffix(end.as_str()));
    before.is_some_and(|before| text::contains(before, &model))
}

/// As udev writes a text of the disk: one underscore for spaces and for what is no part of a name.
fn encoded(text: Option<&str>) -> Option<String> {
    let plain = |letter: char| match letter {
        '#' | '+' | '-' | '.' | ':' | '=' | '@' => letter,
        letter if letter.is_ascii_alphanumeric() => letter,
        _ => '_',
    };
    Some(text?.chars().map(plain).collect())
}

fn has_path(disk: &Disk, name: &str) -> bool {
    let Some(path) = path_id(disk) else {
        return false;
    };
    let modern = name.strip_prefix("virtio-");
    let name = modern
        .filter(|_| disk.name.starts_with("vd"))
        .unwrap_or(name);
    // Newer versions of udev add the target to an ATA port: "ata-3.0".
    let target = scsi_address(disk).filter(|_| split_once(&path, "-ata-").is_some());
    name == path || target.is_some_and(|[_, _, target, _]| name == format!("{path}.{target}"))
}

/// The place of the disk in each device above it, outermost first: "pci-0000:00:17.0-ata-3". Of
/// several devices of one kind, as PCI bridges and their card, the lowest counts. `None` where
/// nothing but a number of the network tells disks apart.
fn path_id(disk: &Disk) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut last = String::new();
    for above in disk.link.ancestors().skip(1) {
        let Ok(link) = fs::read_link(above.join("subsystem")) else {
            continue;
        };
        let subsystem = link.file_name()?.to_str()?;
        let name = above.file_name()?.to_str()?;
        if subsystem == last {
            continue;
        }
        match subsystem {
            "scsi" => parts.push(scsi_place(disk)?),
            "usb" => parts.push(format!("usb-0:{}", name.split_once('-')?.1)),
            "nvme" => parts.push(format!("nvme-{}", read_text(&disk.link, "nsid")?)),
            "pci" | "platform" | "acpi" | "xen" => parts.push(format!("{subsystem}-{name}")),
            _ => {}
        }
        last = subsystem.into();
    }
    parts.reverse();
    (!parts.is_empty()).then(|| parts.join("-"))
}

/// The port at a controller for ATA and SAS, the GUID of Hyper-V's bus, or the four numbers of the
/// disk. The kernel counts all hosts of a machine, udev only those of the controller.
fn scsi_place(disk: &Disk) -> Option<String> {
    if matches!(disk.transport, Transport::Network(_)) {
        return None;
    }
    let [host, bus, target, lun] = scsi_address(disk)?;
    let above = |mark: &str| {
        let is_marked = |path: &&Path| is_numbered(name_of(path), mark);
        disk.link.ancestors().find(is_marked)
    };
    if let Some(port) = above("ata") {
        let number = read_text(&port.join("ata_port").join(name_of(port)), "port_no")?;
        return Some(format!("ata-{number}"));
    }
    if let Some(end_device) = above("end_device-") {
        return sas_place(end_device).map(|place| format!("sas-{place}-lun-{lun}"));
    }
    let above_host = above("host")?.parent()?;
    if above("VMBUS:").is_some() {
        let mut guid = read_text(above_host, "device_id")?;
        guid.retain(|letter| !matches!(letter, '{' | '}' | '-'));
        return Some(format!("vmbus-{guid}-lun-{lun}"));
    }
    let number = |name: &String| name.strip_prefix("host")?.parse::<u64>().ok();
    let first = list(above_host).iter().filter_map(number).min()?;
    let host = host.checked_sub(first)?;
    Some(format!("scsi-{host}:{bus}:{target}:{lun}"))
}

/// The phy of the controller or of an expander; behind a port of several phys, the address.
fn sas_place(end_device: &Path) -> Option<String> {
    let attribute = |device: &Path, class: &str, file: &str| {
        read_text(&device.join(class).join(name_of(device)), file)
    };
    let port = end_device.parent()?;
    if attribute(port, "sas_port", "num_phys")? != "1" {
        return attribute(end_device, "sas_device", "sas_address");
    }
    let phy = attribute(end_device, "sas_device", "phy_identifier")?;
    let expander = attribute(port.parent()?, "sas_device", "sas_address");
    let expander = expander.map_or(String::new(), |address| format!("exp{address}-"));
    Some(format!("{expander}phy{phy}"))
}

/// Host, bus, target and LUN: the name of the directory above "block".
fn scsi_address(disk: &Disk) -> Option<[u64; 4]> {
    let name = name_of(disk.link.parent()?.parent()?);
    let numbers: Option<Vec<u64>> = name.split(':').map(|part| part.parse().ok()).collect();
    numbers?.try_into().ok()
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::testing::{Machine, desktop};

    /// Gives devices below sys/devices a subsystem: "pci0000:00/0000:00:17.0=pci".
    fn subsystems(machine: &Machine, devices: &[&str]) {
        for device in devices {
            let (device, subsystem) = device.split_once('=').unwrap();
            let link = format!("sys/devices/{device}/subsystem");
            machine.link(&link, &format!("/sys/bus/{subsystem}"));
        }
    }

    /// The disk below /dev/disk in this machine, or "nothing".
    fn followed(machine: &Machine, name: &str) -> String {
        let path = Path::new("/dev/disk").join(name);
        let found = follow(&machine.inventory(), &path);
        found.map_or("nothing".into(), |found| found.display().to_string())
    }

    /// The names that udev 252 and 257 gave such disks.
    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn by_path_names_the_place() {
        let pci = "pci0000:00/0000:00:17.0";
        let scsi = |above: &str| format!("{above}/host2/target2:0:0/2:0:0:3/block/sda");
        let bus = "LNXSYSTM:00/LNXSYBUS:00/VMBUS:01";
        let guid = format!("{bus}/f8b3781a-1e82-4818-a1c3-63d806ec15bb");
        let port = format!("{pci}/host2/port-2:0");
        let expander = format!("{port}/expander-2:0/port-2:0:4");
        let sas = |port: &str| format!("{port}/end_device-9/target2:0:4/2:0:4:0/block/sda");
        let phy =
            |port: &str| format!("{port}/end_device-9/sas_device/end_device-9/phy_identifier=7");
        for (link, files, subsystems_of, names) in [
            (
                "pci0000:00/0000:00:02.0/virtio1/block/vda".to_string(),
                vec![],
                vec![
                    "pci0000:00/0000:00:02.0/virtio1=virtio",
                    "pci0000:00/0000:00:02.0=pci",
                ],
                vec!["pci-0000:00:02.0", "virtio-pci-0000:00:02.0"],
            ),
            (
                format!("{pci}/ata3/host2/target2:0:0/2:0:0:0/block/sda"),
                vec![format!("{pci}/ata3/ata_port/ata3/port_no=1")],
                vec![
                    "pci0000:00/0000:00:17.0/ata3/host2/target2:0:0/2:0:0:0=scsi",
                    "pci0000:00/0000:00:17.0/ata3/host2=scsi",
                    "pci0000:00/0000:00:17.0=pci",
                ],
                vec!["pci-0000:00:17.0-ata-1", "pci-0000:00:17.0-ata-1.0"],
            ),
            (
                scsi(pci),
                vec![format!("{pci}/host1/x=")],
                vec![
                    "pci0000:00/0000:00:17.0/host2/target2:0:0/2:0:0:3=scsi",
                    "pci0000:00/0000:00:17.0=pci",
                ],
                vec!["pci-0000:00:17.0-scsi-1:0:0:3"],
            ),
            (
                format!("{pci}/0000:01:00.0/nvme/nvme0/nvme0n1"),
                vec![format!("{pci}/0000:01:00.0/nvme/nvme0/nvme0n1/nsid=1")],
                vec![
                    "pci0000:00/0000:00:17.0/0000:01:00.0/nvme/nvme0=nvme",
                    "pci0000:00/0000:00:17.0/0000:01:00.0=pci",
                    "pci0000:00/0000:00:17.0=pci",
                ],
                vec!["pci-0000:01:00.0-nvme-1"],
            ),
            (
                scsi("pci0000:00/0000:00:14.0/usb1/1-4/1-4:1.0"),
                vec![],
                vec![
                    "pci0000:00/0000:00:14.0/usb1/1-4/1-4:1.0/host2/target2:0:0/2:0:0:3=scsi",
                    "pci0000:00/0000:00:14.0/usb1/1-4/1-4:1.0=usb",
                    "pci0000:00/0000:00:14.0/usb1/1-4=usb",
                    "pci0000:00/0000:00:14.0/usb1=usb",
                    "pci0000:00/0000:00:14.0=pci",
                ],
                vec!["pci-0000:00:14.0-usb-0:4:1.0-scsi-0:0:0:3"],
            ),
            (
                "platform/soc/fe340000.mmc/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0".into(),
                vec![],
                vec![
                    "platform/soc/fe340000.mmc/mmc_host/mmc0/mmc0:aaaa=mmc",
                    "platform/soc/fe340000.mmc/mmc_host/mmc0=mmc_host",
                    "platform/soc/fe340000.mmc=platform",
                    "platform/soc=platform",
                ],
                vec!["platform-fe340000.mmc"],
            ),
            (
                "vbd-51712/block/xvda".into(),
                vec![],
                vec!["vbd-51712=xen"],
                vec!["xen-vbd-51712"],
            ),
            (
                scsi(&guid),
                vec![format!(
                    "{guid}/device_id={{f8b3781a-1e82-4818-a1c3-63d806ec15bb}}"
                )],
                vec![
                    "LNXSYSTM:00/LNXSYBUS:00/VMBUS:01/f8b3781a-1e82-4818-a1c3-63d806ec15bb/\
                     host2/target2:0:0/2:0:0:3=scsi",
                    "LNXSYSTM:00/LNXSYBUS:00/VMBUS:01=acpi",
                    "LNXSYSTM:00/LNXSYBUS:00=acpi",
                ],
                vec!["acpi-VMBUS:01-vmbus-f8b3781a1e824818a1c363d806ec15bb-lun-3"],
            ),
            (
                sas(&port),
                vec![format!("{port}/sas_port/port-2:0/num_phys=1"), phy(&port)],
                vec![
                    "pci0000:00/0000:00:17.0/host2/port-2:0/end_device-9/target2:0:4/2:0:4:0=scsi",
                    "pci0000:00/0000:00:17.0=pci",
                ],
                vec!["pci-0000:00:17.0-sas-phy7-lun-0"],
            ),
            (
                sas(&expander),
                vec![
                    format!("{expander}/sas_port/port-2:0:4/num_phys=1"),
                    phy(&expander),
                    format!("{port}/expander-2:0/sas_device/expander-2:0/sas_address=0x500e"),
                ],
                vec![
                    "pci0000:00/0000:00:17.0/host2/port-2:0/expander-2:0/port-2:0:4/end_device-9/\
                     target2:0:4/2:0:4:0=scsi",
                    "pci0000:00/0000:00:17.0=pci",
                ],
                vec!["pci-0000:00:17.0-sas-exp0x500e-phy7-lun-0"],
            ),
            (
                sas(&port),
                vec![
                    format!("{port}/sas_port/port-2:0/num_phys=4"),
                    format!("{port}/end_device-9/sas_device/end_device-9/sas_address=0x5000c5"),
                ],
                vec![
                    "pci0000:00/0000:00:17.0/host2/port-2:0/end_device-9/target2:0:4/2:0:4:0=scsi",
                    "pci0000:00/0000:00:17.0=pci",
                ],
                vec!["pci-0000:00:17.0-sas-0x5000c5-lun-0"],
            ),
        ] {
            let machine = Machine::new();
            let device = link.rsplit('/').next().unwrap();
            machine.disk(&link, "65:0", 1 << 40, &[]);
            machine.partition(&format!("{link}/{device}p2"), "65:2", 1 << 30);
            for (file, text) in files.iter().map(|file| file.split_once('=').unwrap()) {
                machine.file(&format!("sys/devices/{file}"), text);
            }
            subsystems(&machine, &subsystems_of);
            for name in names {
                assert_eq!(
                    followed(&machine, &format!("by-path/{name}")),
                    format!("/dev/{device}")
                );
                let part = followed(&machine, &format!("by-path/{name}-part2"));
                assert_eq!(part, format!("/dev/{device}p2"));
                for other in ["-part1", "-part", "0", ".1", "-lun-0"] {
                    assert_eq!(
                        followed(&machine, &format!("by-path/{name}{other}")),
                        "nothing"
                    );
                }
            }
        }
    }

    #[test]
    fn by_id_names_the_disk() {
        let machine = desktop();
        machine
            .disk(
                "pci0000:00/virtio1/block/vda",
                "254:0",
                1 << 40,
                &["serial=root disk"],
            )
            .disk(
                "pci0000:00/mmc_host/mmc0/mmc0:1/block/mmcblk0",
                "179:0",
                1 << 40,
                &["device/name=SC16G", "device/serial=0x1234abcd"],
            );
        for (name, device) in [
            ("ata-ST500DM002-1BD142_Z3T9ABCD", "/dev/sda"),
            ("ata-ST500DM002-1BD142_Z3T9ABCD-part2", "/dev/sda2"),
            ("wwn-0x5000c500a1b2c3d4", "/dev/sda"),
            ("wwn-0x5000c500a1b2c3d4-part1", "/dev/sda1"),
            ("scsi-35000c500a1b2c3d4", "/dev/sda"),
            ("nvme-Samsung_SSD_970_S4EUNX0N123456X", "/dev/nvme0n1"),
            ("nvme-Samsung_SSD_970_S4EUNX0N123456X_1", "/dev/nvme0n1"),
            ("nvme-eui.0025385b71b0a1b2", "/dev/nvme0n1"),
            ("usb-Kingston_DataTraveler_2.0_60A44C3FAE22-0:0", "/dev/sdb"),
            ("virtio-root_disk", "/dev/vda"),
            ("mmc-SC16G_0x1234abcd", "/dev/mmcblk0"),
            ("ata-ST500DM002-1BD142_Z3T9ABC", "nothing"),
            ("ata-ST500DM002-1BD142_Z3T9ABCDE", "nothing"),
            ("ata-WDC_WD10_Z3T9ABCD", "nothing"),
            ("ata-ST500DM002-1BD142_Z3T9ABCD-part4", "nothing"),
            ("wwn-0x5000c500a1b2c3d", "nothing"),
            ("wwn-", "nothing"),
            ("scsi-3", "nothing"),
            ("nvme-", "nothing"),
            ("ata-", "nothing"),
            ("virtio-", "nothing"),
            ("dm-name-vg0-root", "nothing"),
        ] {
            assert_eq!(
                followed(&machine, &format!("by-id/{name}")),
                device,
                "{name}"
            );
        }
        // Two paths to one disk: neither is chosen.
        machine.disk(
            "pci0000:00/virtio2/block/vdb",
            "254:16",
            1 << 40,
            &["serial=root disk"],
        );
        assert_eq!(followed(&machine, "by-id/virtio-root_disk"), "nothing");
        // Where udev has made a link, it counts.
        machine
            .file("dev/sdb", "")
            .link("dev/disk/by-id/virtio-root_disk", "../../sdb");
        assert_eq!(followed(&machine, "by-id/virtio-root_disk"), "/dev/sdb");
    }
}
