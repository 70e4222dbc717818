//! Where are the partitions of a disk with an MBR, and what has to change when the disk has another
//! size?
//!
//! Read first: UEFI 2.10, 5.2 (sector 0 of every disk, and 5.2.3 for the protective MBR of a GPT),
//! and block/partitions/msdos.c for what the kernel takes for an MBR. There are four entries of 16
//! bytes. Logical partitions are a chain inside an extended partition, which counts as one run of
//! sectors here.

use alloc::vec::Vec;
use core::ops::Range;

/// A grown partition ends at a multiple of this, as partitioning tools align.
pub const GROW_ALIGNMENT_BYTES: u64 = 1 << 20;

// Places in sector 0 and in an entry: UEFI 2.10, tables 5.1 and 5.2.
const ENTRIES: usize = 446;
const ENTRY_BYTES: usize = 16;
const SIGNATURE: usize = 510;
const STATUS: usize = 0;
const KIND: usize = 4;
const LAST_CHS: Range<usize> = 5..8;
const FIRST_LBA: usize = 8;
const SECTOR_COUNT: usize = 12;

const PROTECTIVE: u8 = 0xee;
/// Kinds of extended partitions: of DOS, of Windows 95 and of Linux.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
/// Stands for a place that cylinder, head and sector cannot name (UEFI 2.10, 5.2.3), as on every
/// disk of more than 8 GB. On smaller disks no system in use reads these numbers.
const CHS_BEYOND: [u8; 3] = [0xff; 3];

/// One used entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Counted from 1.
    pub number: u32,
    pub extended: bool,
    pub first_lba: u64,
    pub sector_count: u64,
}

impl Partition {
    fn end_lba(&self) -> u64 {
        self.first_lba + self.sector_count
    }
}

/// The used entries of sector 0, if it is certainly an MBR of this disk. The boot sector of a FAT
/// or NTFS volume ends in the same signature, and a hybrid ISO has partitions inside one another. A
/// protective MBR does not count, because the disk has a GPT.
pub fn partitions(sector: &[u8], disk_sectors: u64) -> Option<Vec<Partition>> {
    let signed = sector.get(SIGNATURE..SIGNATURE + 2) == Some(&[0x55, 0xaa]);
    if !signed || is_volume(sector) {
        return None;
    }
    let entries = || sector[ENTRIES..SIGNATURE].chunks_exact(ENTRY_BYTES);
    let partitions: Vec<Partition> = entries()
        .zip(1..)
        .filter(|(entry, _)| entry[KIND] != 0)
        .map(partition)
        .collect();
    let apart = |one: &Partition, other: &Partition| {
        one.end_lba() <= other.first_lba || other.end_lba() <= one.first_lba
    };
    let alone = |one: &Partition| {
        partitions
            .iter()
            .all(|other| other.number == one.number || apart(one, other))
    };
    let inside = |partition: &Partition| {
        partition.first_lba > 0 && partition.sector_count > 0 && partition.end_lba() <= disk_sectors
    };
    let good = !partitions.is_empty()
        && entries().all(|entry| [0, 0x80].contains(&entry[STATUS]) && entry[KIND] != PROTECTIVE)
        && partitions
            .iter()
            .all(|partition| inside(partition) && alone(partition));
    good.then_some(partitions)
}

fn partition((entry, number): (&[u8], u32)) -> Partition {
    Partition {
        number,
        extended: EXTENDED.contains(&entry[KIND]),
        first_lba: u32_at(entry, FIRST_LBA).into(),
        sector_count: u32_at(entry, SECTOR_COUNT).into(),
    }
}

/// True for the boot sector of a file system. The names have been at these places since DOS 4 and
/// Windows NT.
fn is_volume(sector: &[u8]) -> bool {
    let says = |at: usize, name: &[u8]| sector[at..].starts_with(name);
    says(3, b"NTFS    ") || says(3, b"EXFAT   ") || says(54, b"FAT") || says(82, b"FAT")
}

/// Enlarges the last partition to the last multiple of the alignment on the disk. Returns by how
/// many bytes: 0 if it is an extended partition or has no room.
pub fn grow_last(sector: &mut [u8], disk_sectors: u64, sector_bytes: u64) -> u64 {
    let partitions = partitions(sector, disk_sectors).unwrap_or_default();
    let last = partitions
        .into_iter()
        .max_by_key(|partition| partition.first_lba);
    let Some(last) = last.filter(|last| !last.extended) else {
        return 0;
    };
    let alignment = GROW_ALIGNMENT_BYTES / sector_bytes;
    // An entry counts to 2^32: 2 TiB in sectors of 512.
    let end = disk_sectors.min(last.first_lba + u64::from(u32::MAX)) / alignment * alignment;
    if end <= last.end_lba() {
        return 0;
    }
    resize(entry_mut(sector, last.number), end - last.first_lba);
    (end - last.end_lba()) * sector_bytes
}

/// Makes the protective entry reach the end of the disk, as UEFI demands. A hybrid MBR, which also
/// has entries of real partitions, is not changed.
pub fn resize_protective(sector: &mut [u8], disk_sectors: u64) {
    let kinds: Vec<u8> = sector[ENTRIES..SIGNATURE]
        .chunks_exact(ENTRY_BYTES)
        .map(|entry| entry[KIND])
        .collect();
    let Some(number) = (1..).zip(&kinds).find(|(_, kind)| **kind == PROTECTIVE) else {
        return;
    };
    let alone = kinds.iter().filter(|&&kind| kind != 0).count() == 1;
    let entry = entry_mut(sector, number.0);
    if alone && u32_at(entry, FIRST_LBA) == 1 {
        resize(entry, disk_sectors - 1);
    }
}

fn entry_mut(sector: &mut [u8], number: u32) -> &mut [u8] {
    &mut sector[ENTRIES + (number as usize - 1) * ENTRY_BYTES..][..ENTRY_BYTES]
}

fn resize(entry: &mut [u8], sector_count: u64) {
    entry[LAST_CHS].copy_from_slice(&CHS_BEYOND);
    put_u32(
        entry,
        SECTOR_COUNT,
        u32::try_from(sector_count).unwrap_or(u32::MAX),
    );
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn put_u32(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use std::vec;

    /// An MBR with these entries: kind, first sector, number of sectors.
    fn mbr(entries: &[(u8, u32, u32)]) -> Vec<u8> {
        let mut sector = vec![0; 512];
        for (index, &(kind, first, count)) in entries.iter().enumerate() {
            let entry = entry_mut(&mut sector, index as u32 + 1);
            entry[KIND] = kind;
            put_u32(entry, FIRST_LBA, first);
            put_u32(entry, SECTOR_COUNT, count);
        }
        sector[SIGNATURE..].copy_from_slice(&[0x55, 0xaa]);
        sector
    }

    #[test]
    fn the_used_entries_are_the_partitions() {
        let sector = mbr(&[(0x0f, 6144, 2048), (0x83, 2048, 4096), (0, 0, 0)]);
        let partition = |number, extended, first_lba, sector_count| Partition {
            number,
            extended,
            first_lba,
            sector_count,
        };
        let expected = [
            partition(1, true, 6144, 2048),
            partition(2, false, 2048, 4096),
        ];
        assert_eq!(partitions(&sector, 8192).unwrap(), expected);
        assert_eq!(
            partitions(&sector, 8191),
            None,
            "beyond the end of the disk"
        );
        assert_eq!(partitions(&sector[..511], 8192), None);
    }

    #[test]
    fn doubtful_tables_are_not_an_mbr() {
        let linux = (0x83, 2048, 2048);
        assert!(partitions(&mbr(&[linux]), 8192).is_some());
        let none = [
            &[][..],
            &[(0xee, 1, 8191)],
            &[linux, (0xee, 1, 2047)],
            &[(0x83, 0, 2048)],
            &[(0x83, 2048, 0)],
            &[linux, (0xef, 3000, 8)],
            &[(0x83, u32::MAX, u32::MAX)],
        ];
        none.iter()
            .for_each(|entries| assert_eq!(partitions(&mbr(entries), 8192), None, "{entries:?}"));
        let with = |at: usize, bytes: &[u8]| {
            let mut sector = mbr(&[linux]);
            sector[at..at + bytes.len()].copy_from_slice(bytes);
            partitions(&sector, 8192)
        };
        assert_eq!(with(510, &[0x55, 0x55]), None);
        assert_eq!(with(ENTRIES + 32, &[0x20]), None, "boot code, not a status");
        assert_eq!(with(3, b"NTFS    "), None);
        assert_eq!(with(54, b"FAT16   "), None);
        assert_eq!(with(82, b"FAT32   "), None);
        assert!(with(ENTRIES, &[0x80]).is_some());
    }

    #[test]
    fn the_last_partition_grows_to_a_whole_mebibyte() {
        let mut sector = mbr(&[(0x83, 4096, 2048), (0x0c, 2048, 2048)]);
        assert_eq!(grow_last(&mut sector, 10_000, 512), 2048 * 512);
        let mut expected = mbr(&[(0x83, 4096, 4096), (0x0c, 2048, 2048)]);
        expected[ENTRIES + 5..ENTRIES + 8].fill(0xff);
        assert_eq!(sector, expected);
        assert_eq!(
            grow_last(&mut sector, 10_000, 512),
            0,
            "there is no more room"
        );
        assert_eq!(
            grow_last(&mut mbr(&[(0x05, 2048, 2048)]), 10_000, 512),
            0,
            "extended"
        );
        assert_eq!(grow_last(&mut vec![0; 512], 10_000, 512), 0);
        // 3 TiB: the entry counts to 2^32 sectors.
        let mut large = mbr(&[(0x83, 2048, 2048)]);
        assert_eq!(grow_last(&mut large, 6 << 31, 512), (1 << 41) - (2 << 20));
        assert_eq!(u32_at(&large, ENTRIES + SECTOR_COUNT), u32::MAX - 2047);
        // Sectors of 4096: 256 to the MiB.
        assert_eq!(
            grow_last(&mut mbr(&[(0x83, 256, 256)]), 1000, 4096),
            1 << 20
        );
    }

    #[test]
    fn the_protective_entry_reaches_the_end() {
        let resized = |entries: &[(u8, u32, u32)], disk_sectors| {
            let mut sector = mbr(entries);
            resize_protective(&mut sector, disk_sectors);
            (
                u32_at(&sector, ENTRIES + SECTOR_COUNT),
                sector != mbr(entries),
            )
        };
        assert_eq!(resized(&[(0xee, 1, 99)], 200), (199, true));
        assert_eq!(resized(&[(0xee, 1, 99)], 1 << 40), (u32::MAX, true));
        assert_eq!(
            resized(&[(0xee, 1, 99), (0x83, 100, 1)], 200),
            (99, false),
            "hybrid"
        );
        assert_eq!(resized(&[(0xee, 2, 99)], 200), (99, false));
        assert_eq!(resized(&[], 200), (0, false));
    }

    #[test]
    fn changed_tables_never_panic() {
        let mut rng = Rng::new(3);
        let mut good = 0;
        for _ in 0..20_000 {
            let mut sector = mbr(&[(0x83, 2048, 2048), (0x0f, 4096, 1024), (0xee, 1, 4)]);
            for _ in 0..rng.below(6) {
                let at = ENTRIES + rng.below(48) as usize;
                sector[at] = if rng.chance(1, 2) {
                    0
                } else {
                    rng.below(256) as u8
                };
            }
            let disk_sectors = rng.below(1 << 20).into();
            good += u32::from(partitions(&sector, disk_sectors).is_some());
            grow_last(&mut sector, disk_sectors, 512);
            resize_protective(&mut sector, disk_sectors + 1);
        }
        assert!(good > 100, "{good}");
    }
}
