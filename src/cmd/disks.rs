//! `swarmdd disks`: which disks are there, and what would select each of them?

use super::{Failure, say};
use crate::disks::{Disk, Inventory, Partition, Use};
use crate::os::blockdev::decimal;
use std::path::Path;

/// One line of the table, column by column.
type Row = [String; 8];

const HEADINGS: [&str; 8] = ["PATH", "SIZE", "SECTOR", "MODEL", "SERIAL", "WWN", "TRANSPORT", "USE"];
const SIZE_COLUMN: usize = 1;

/// Prints the table of all disks and their partitions.
pub fn run() -> Result<(), Failure> {
    let inventory = Inventory::read(Path::new("/"))?;
    let disks: Vec<&Disk> = inventory.disks.iter().filter(|disk| disk.is_real()).collect();
    if disks.is_empty() {
        return Err(Failure::Because("this machine has no disk (is its driver loaded?)".into()));
    }
    say(&table(&disks));
    Ok(())
}

/// Columns are as wide as their widest value and no wider, and one in which nothing is known is left out: a machine with
/// a few plain disks then fits 80 columns.
fn table(disks: &[&Disk]) -> String {
    let mut rows: Vec<Row> = vec![HEADINGS.map(String::from)];
    for disk in disks {
        rows.push(disk_row(disk));
        rows.extend(disk.partitions.iter().map(partition_row));
    }
    let mut text = String::new();
    let known = |column: usize| rows[1..].iter().any(|row| !matches!(row[column].as_str(), "" | "-"));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let columns: Vec<(usize, usize)> =
        (0..HEADINGS.len()).filter(|&column| known(column)).map(|column| (column, width(column))).collect();
    for row in &rows {
        let cells: Vec<String> = columns
            .iter()
            .map(|&(column, width)| match column {
                SIZE_COLUMN => format!("{:>width$}", row[column]),
                _ => format!("{:width$}", row[column]),
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn disk_row(disk: &Disk) -> Row {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let sector = match (disk.sector_bytes, disk.physical_bytes) {
        (logical, physical) if logical == physical => logical.to_string(),
        (logical, physical) => format!("{logical}/{physical}"),
    };
    [
        disk.path().display().to_string(),
        decimal(disk.size_bytes),
        sector,
        or_dash(&disk.model),
        or_dash(&disk.serial),
        or_dash(&disk.wwn),
        disk.transport.to_string(),
        disk_use(disk),
    ]
}

fn disk_use(disk: &Disk) -> String {
    let mut remarks: Vec<String> = disk.uses.iter().map(Use::to_string).collect();
    if disk.partitions.iter().any(|partition| !partition.uses.is_empty()) {
        remarks.push("in use".into());
    }
    if disk.removable {
        remarks.push("removable".into());
    }
    if disk.read_only {
        remarks.push("read-only".into());
    }
    if remarks.is_empty() { "free".into() } else { remarks.join(", ") }
}

fn partition_row(partition: &Partition) -> Row {
    let mut uses: Vec<String> = partition.uses.iter().map(Use::to_string).collect();
    if partition.read_only {
        uses.push("read-only".into());
    }
    let mut row = Row::default();
    row[0] = format!("  {}", partition.path().display());
    row[SIZE_COLUMN] = decimal(partition.size_bytes);
    row[HEADINGS.len() - 1] = uses.join(", ");
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disks::testing::{Machine, desktop};

    fn table_of(machine: &Machine) -> String {
        let inventory = machine.inventory();
        table(&inventory.disks.iter().filter(|disk| disk.is_real()).collect::<Vec<_>>())
    }

    #[test]
    fn a_desktop() {
        let expected = "\
PATH              SIZE  SECTOR    MODEL             SERIAL           WWN                   TRANSPORT  USE
/dev/sda      500.1 GB  512/4096  ST500DM002-1BD14  Z3T9ABCD         0x5000c500a1b2c3d4    ata        in use
  /dev/sda1   536.9 MB                                                                                mounted at /boot/efi
  /dev/sda2   499.0 GB                                                                                mounted at /
  /dev/sda3   524.3 MB                                                                                swap
/dev/sdb        8.0 GB  512       DataTraveler 2.0  60A44C3FAE22     -                     usb        removable
/dev/nvme0n1  250.1 GB  512       Samsung SSD 970   S4EUNX0N123456X  eui.0025385b71b0a1b2  nvme       free
";
        assert_eq!(table_of(&desktop()), expected);
    }

    #[test]
    fn a_virtual_machine_fits_a_terminal() {
        let machine = Machine::new();
        machine.disk("pci0000:00/virtio1/block/vda", "254:0", 270_582_939_648, &["ro=1"]);
        machine.disk("pci0000:00/virtio2/block/vdb", "254:16", 1 << 30, &["serial=disk-7"]);
        let expected = "\
PATH          SIZE  SECTOR  SERIAL  TRANSPORT  USE
/dev/vda  270.6 GB  512     -       virtio     read-only
/dev/vdb    1.1 GB  512     disk-7  virtio     free
";
        assert_eq!(table_of(&machine), expected);
    }
}
