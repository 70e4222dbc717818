//! Which disks does the machine of a test have? The machine is a directory with the files of /sys
//! and /proc.

use std::fs;
use std::path::Path;

use super::inventory::Inventory;
use crate::os::testing::Scratch;

/// A sysfs and a proc made of files. Add devices, then call `inventory()`.
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
    pub fn disk(&self, link: &str, number: &str, size_bytes: u64, attributes: &[&str]) -> &Machine {
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

    /// The directory that stands for `/`.
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
