//! `swarmdd disks`: which disks does this machine have, what selects each of them, and what is on
//! them?
//!
//! There is a row for each disk and each partition. Below a disk stand its properties, as selectors
//! take them. Rows fit into 80 columns unless labels or mount points are long.
//!
//! With a target: which disk would `get` write? Whoever prepares it asks this first.

use std::fmt::Write;
use std::path::Path;

use swarm_proto::size::decimal;

use super::{Failure, say};
use crate::os::device::TargetOptions;
use crate::target::Target;
use crate::target::inventory::{Disk, Inventory, Partition};
use crate::target::usage::Use;

/// Prints all disks and their partitions, or the path of the target, if it may be written.
pub fn run(target: Option<&Target>) -> Result<(), Failure> {
    if let Some(target) = target {
        let (device, _) = target.open(0, TargetOptions { dry_run: true }, &[])?;
        say(&[&device.path.to_string_lossy(), "\n"].concat());
        return Ok(());
    }
    let inventory = Inventory::read(Path::new("/"))?;
    if !inventory.disks.iter().any(Disk::is_real) {
        return Err(Failure::Because(
            "this machine has no disk (is its driver loaded?)".into(),
        ));
    }
    say(&table(&inventory));
    Ok(())
}

/// One row of the table: path, size, what is on it, what uses it.
struct Row {
    cells: [String; 4],
    /// The lines below a disk.
    below: String,
}

/// All rows. Each column is as wide as its widest value.
fn table(inventory: &Inventory) -> String {
    let headings = ["PATH", "SIZE", "HOLDS", "USE"].map(String::from);
    let mut rows = vec![Row {
        cells: headings,
        below: String::new(),
    }];
    for disk in inventory.disks.iter().filter(|disk| disk.is_real()) {
        rows.push(disk_row(inventory, disk));
        rows.extend(
            disk.partitions
                .iter()
                .map(|partition| partition_row(inventory, partition)),
        );
    }
    let width = |column: usize| {
        rows.iter()
            .map(|row| row.cells[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let [w0, w1, w2] = [width(0), width(1), width(2)];
    let mut text = String::new();
    for Row {
        cells: [path, size, holds, usage],
        below,
    } in &rows
    {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{path:w0$}  {size:>w1$}  {holds:w2$}  {usage}{below}");
    }
    text
}

fn disk_row(inventory: &Inventory, disk: &Disk) -> Row {
    let path = disk.path();
    let mut remarks: Vec<String> = disk.uses.iter().map(Use::to_string).collect();
    if disk
        .partitions
        .iter()
        .any(|partition| !partition.uses.is_empty())
    {
        remarks.push("in use".into());
    }
    if remarks.is_empty() && inventory.is_held(&path) {
        remarks.push("held by another program".into());
    }
    let flags = [(disk.removable, "removable"), (disk.read_only, "read-only")];
    remarks.extend(
        flags
            .iter()
            .filter(|(is_so, _)| *is_so)
            .map(|(_, remark)| remark.to_string()),
    );
    let holds = holds(inventory, &path, &mut remarks);
    let usage = if remarks.is_empty() {
        "free".into()
    } else {
        remarks.join(", ")
    };
    let cells = [
        path.display().to_string(),
        decimal(disk.size_bytes),
        holds,
        usage,
    ];
    Row {
        cells,
        below: wrapped(&disk.traits()),
    }
}

fn partition_row(inventory: &Inventory, partition: &Partition) -> Row {
    let path = partition.path();
    let mut remarks: Vec<String> = partition.uses.iter().map(Use::to_string).collect();
    if partition.read_only {
        remarks.push("read-only".into());
    }
    let holds = holds(inventory, &path, &mut remarks);
    let size = decimal(partition.size_bytes);
    let cells = [
        format!("  {}", path.display()),
        size,
        holds,
        remarks.join(", "),
    ];
    Row {
        cells,
        below: String::new(),
    }
}

/// What is on a disk or partition. One that cannot be read is listed, too: the reason goes to the
/// remarks, where it does not widen a column.
fn holds(inventory: &Inventory, path: &Path, remarks: &mut Vec<String>) -> String {
    match inventory.signatures(path) {
        Ok(signatures) => signatures.to_string(),
        Err(error) => {
            remarks.push(error.to_string());
            "unreadable".into()
        }
    }
}

/// The texts joined with commas, on indented lines of at most 80 columns, each after a line break.
fn wrapped(texts: &[String]) -> String {
    const COLUMNS: usize = 80;
    let mut lines: Vec<String> = Vec::new();
    for text in texts {
        match lines.last_mut() {
            Some(line) if line.len() + ", ".len() + text.len() < COLUMNS => {
                line.push_str(", ");
                line.push_str(text);
            }
            _ => lines.push(format!("\n      {text}")),
        }
    }
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::testing::{Machine, desktop};

    #[test]
    fn the_table_of_a_desktop() {
        let machine = desktop();
        let mut disk = vec![0; 1 << 20];
        machine.file("dev/nvme0n1", &disk);
        disk[512..520].copy_from_slice(b"EFI PART");
        machine.file("dev/sda", &disk);
        disk[..4].copy_from_slice(b"XFSB");
        disk[108..112].copy_from_slice(b"root");
        machine.file("dev/sda2", &disk[..]);
        machine.file("dev/sda1", b"").file("dev/sda3", b"\0\0\0");
        let expected = "\
PATH              SIZE  HOLDS            USE
/dev/sda      500.1 GB  gpt              in use
      ata, sectors of 512 (physical 4096), serial=Z3T9ABCD
      wwn=0x5000c500a1b2c3d4, model=ST500DM002-1BD14
  /dev/sda1   536.9 MB  blank            mounted at /boot/efi
  /dev/sda2   499.0 GB  gpt, xfs \"root\"  mounted at /
  /dev/sda3   524.3 MB  blank            swap
/dev/sdb        8.0 GB  unreadable       removable, No such file or directory (os error 2)
      usb, sectors of 512, serial=60A44C3FAE22, model=DataTraveler 2.0
/dev/nvme0n1  250.1 GB  blank            free
      nvme, sectors of 512, serial=S4EUNX0N123456X, wwn=eui.0025385b71b0a1b2
      model=Samsung SSD 970
";
        assert_eq!(table(&machine.inventory()), expected);
    }

    #[test]
    fn the_table_of_a_virtual_machine() {
        let machine = Machine::new();
        machine.disk(
            "pci0000:00/virtio1/block/vda",
            "254:0",
            270_582_939_648,
            &["ro=1"],
        );
        machine.disk(
            "pci0000:00/virtio2/block/vdb",
            "254:16",
            1 << 30,
            &["serial=disk-7"],
        );
        machine.file("dev/vda", b"some bytes").file("dev/vdb", b"");
        let expected = "\
PATH          SIZE  HOLDS         USE
/dev/vda  270.6 GB  unknown data  read-only
      virtio, sectors of 512
/dev/vdb    1.1 GB  blank         free
      virtio, sectors of 512, serial=disk-7
";
        assert_eq!(table(&machine.inventory()), expected);
    }
}
