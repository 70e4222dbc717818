//! What does sector 0 say about the partitions of a disk, and what has to change in it when the
//! disk has another size?
//!
//! Read first: UEFI 2.10, 5.2 (sector 0 of every disk, and 5.2.3 for the protective MBR of a GPT),
//! and what the kernel takes for which table: `is_pmbr_valid` in block/partitions/efi.c, and
//! block/partitions/msdos.c. There are four entries of 16 bytes. Logical partitions are a chain
//! inside an extended partition.

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

/// One entry with a size. The kernel makes a partition of it whatever its kind, even kind 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Counted from 1.
    pub number: u32,
    pub kind: u8,
    pub first_lba: u64,
    /// Where its own bytes begin. A logical partition has its link in front of them.
    pub data_lba: u64,
    pub(crate) sector_count: u64,
}

impl Partition {
    pub fn end_lba(&self) -> u64 {
        self.first_lba + self.sector_count
    }

    pub fn is_extended(&self) -> bool {
        EXTENDED.contains(&self.kind)
    }

    /// Cuts off what lies behind the end of the disk.
    pub fn end_on(&mut self, disk_sectors: u64) {
        let room = disk_sectors.saturating_sub(self.first_lba);
        self.sector_count = self.sector_count.min(room);
    }
}

/// Which table counts, according to sector 0. Every decision about a table begins here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sector0 {
    /// None: nothing is signed, or it is the boot sector of a volume, or no entry has a size.
    Nothing,
    /// The GPT, because one entry is protective. A hybrid MBR has other entries, too.
    Gpt { others: Vec<Partition> },
    /// These entries, whatever a GPT says that may lie behind them.
    Mbr { partitions: Vec<Partition> },
}

/// Reads sector 0 as the kernel does.
pub fn read(sector: &[u8]) -> Sector0 {
    if !is_signed(sector) {
        return Sector0::Nothing;
    }
    let entries: Vec<Partition> = entries(sector).collect();
    let is_protective = |entry: &Partition| entry.kind == PROTECTIVE;
    let mut partitions = entries.clone();
    partitions.retain(|entry| entry.sector_count > 0 && !is_protective(entry));
    let mut protective = entries.iter().filter(|entry| is_protective(entry));
    if protective.any(|entry| entry.first_lba == 1) {
        return Sector0::Gpt { others: partitions };
    }
    let is_mbr = !partitions.is_empty()
        && !entries.iter().any(is_protective)
        && !is_volume(sector)
        && raw_entries(sector).all(|entry| [0, 0x80].contains(&entry[STATUS]));
    match is_mbr {
        true => Sector0::Mbr { partitions },
        false => Sector0::Nothing,
    }
}

/// The number of a protective entry because of which neither table counts: it does not begin at
/// sector 1.
pub fn misplaced_protective(sector: &[u8]) -> Option<u32> {
    let mut entries = entries(sector);
    let found = entries.find(|entry| entry.kind == PROTECTIVE)?;
    (is_signed(sector) && read(sector) == Sector0::Nothing).then_some(found.number)
}

/// One link of the chain of logical partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// As a rule one; the kernel takes two.
    pub partitions: Vec<Partition>,
    pub next_lba: Option<u64>,
}

/// The link in the sector at `lba`, of the chain that begins at the first sector of `extended`. A
/// logical partition counts from its link on. As the kernel does it, the last two entries only lead
/// on: DR-DOS left garbage in them.
pub fn read_link(sector: &[u8], lba: u64, extended: &Partition) -> Option<Link> {
    if !is_signed(sector) {
        return None;
    }
    let used = || entries(sector).filter(|entry| entry.sector_count > 0);
    let logical = |entry: Partition| Partition {
        first_lba: lba,
        data_lba: lba + entry.first_lba,
        sector_count: entry.end_lba(),
        ..entry
    };
    Some(Link {
        partitions: used()
            .filter(|entry| entry.number <= 2 && !entry.is_extended())
            .map(logical)
            .collect(),
        next_lba: used()
            .find(Partition::is_extended)
            .map(|entry| extended.first_lba + entry.first_lba),
    })
}

fn is_signed(sector: &[u8]) -> bool {
    sector.get(SIGNATURE..SIGNATURE + 2) == Some(&[0x55, 0xaa])
}

fn raw_entries(sector: &[u8]) -> impl Iterator<Item = &[u8]> {
    sector[ENTRIES..SIGNATURE].chunks_exact(ENTRY_BYTES)
}

fn entries(sector: &[u8]) -> impl Iterator<Item = Partition> + '_ {
    (1..)
        .zip(raw_entries(sector))
        .map(|(number, entry)| Partition {
            number,
            kind: entry[KIND],
            first_lba: u32_at(entry, FIRST_LBA).into(),
            data_lba: u32_at(entry, FIRST_LBA).into(),
            sector_count: u32_at(entry, SECTOR_COUNT).into(),
        })
}

/// True for the boot sector of a file system. The names have been at these places since DOS 4 and
/// Windows NT.
fn is_volume(sector: &[u8]) -> bool {
    let says = |at: usize, name: &[u8]| sector[at..].starts_with(name);
    says(3, b"NTFS    ") || says(3, b"EXFAT   ") || says(54, b"FAT") || says(82, b"FAT")
}

/// Enlarges the last partition to the last multiple of the alignment on the disk. Returns by how
/// many bytes: 0 if it is an extended partition or has no room. No two entries may overlap.
pub fn grow_last(sector: &mut [u8], disk_sectors: u64, sector_bytes: u64) -> u64 {
    let Sector0::Mbr { partitions } = read(sector) else {
        return 0;
    };
    let last = partitions.into_iter().max_by_key(Partition::end_lba);
    let Some(last) = last.filter(|last| !last.is_extended()) else {
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
    let mut named = entries(sector).filter(|entry| entry.kind != 0);
    let (Some(first), None) = (named.next(), named.next()) else {
        return;
    };
    drop(named);
    if first.kind == PROTECTIVE && first.first_lba == 1 {
        resize(entry_mut(sector, first.number), disk_sectors - 1);
    }
}

/// A hybrid MBR names partitions of the GPT a second time. The entry of `old` becomes as long as
/// the partition in the GPT has become.
pub fn resize_hybrid(sector: &mut [u8], first_lba: u64, old_count: u64, new_count: u64) {
    let is_same = |entry: &Partition| {
        (entry.first_lba, entry.sector_count) == (first_lba, old_count) && entry.kind != PROTECTIVE
    };
    let found = entries(sector).find(is_same);
    if let Some(entry) = found {
        resize(entry_mut(sector, entry.number), new_count);
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

    fn partition(number: u32, kind: u8, first_lba: u64, sector_count: u64) -> Partition {
        Partition {
            number,
            kind,
            first_lba,
            data_lba: first_lba,
            sector_count,
        }
    }

    #[test]
    fn entries_with_a_size_are_the_partitions() {
        let sector = mbr(&[(0x0f, 6144, 2048), (0x83, 2048, 4096), (0x83, 9, 0)]);
        let partitions = vec![
            partition(1, 0x0f, 6144, 2048),
            partition(2, 0x83, 2048, 4096),
        ];
        assert_eq!(read(&sector), Sector0::Mbr { partitions });
        assert_eq!(read(&sector[..511]), Sector0::Nothing);
        // As isohybrid makes them: an entry of kind 0 over everything.
        let sector = mbr(&[(0, 0, 8192), (0xef, 3000, 8)]);
        let partitions = vec![partition(1, 0, 0, 8192), partition(2, 0xef, 3000, 8)];
        assert_eq!(read(&sector), Sector0::Mbr { partitions });
    }

    /// block/partitions/efi.c: any of the four entries, if it begins at sector 1.
    #[test]
    fn a_gpt_counts_only_under_a_protective_entry() {
        let (protective, linux) = ((0xee, 1, 2047), (0x83, 2048, 2048));
        let gpt = |others: &[Partition]| Sector0::Gpt {
            others: others.to_vec(),
        };
        let entry = |number| partition(number, 0x83, 2048, 2048);
        assert_eq!(read(&mbr(&[protective])), gpt(&[]));
        assert_eq!(read(&mbr(&[(0xee, 1, u32::MAX)])), gpt(&[]));
        assert_eq!(read(&mbr(&[protective, linux])), gpt(&[entry(2)]));
        let last = [linux, (0, 0, 0), (0xee, 4096, 1), protective];
        assert_eq!(read(&mbr(&last)), gpt(&[entry(1)]));
        // GRUB marks an entry as active that covers only sector 0, because some BIOSes ask for it.
        let forced = mbr(&[protective, (0, 0, 1)]);
        assert_eq!(read(&forced), gpt(&[partition(2, 0, 0, 1)]));
        // msdos.c takes no MBR with a protective entry, wherever that begins.
        let misplaced = mbr(&[linux, (0xee, 2, 2047)]);
        assert_eq!(read(&misplaced), Sector0::Nothing);
        assert_eq!(misplaced_protective(&misplaced), Some(2));
        assert_eq!(misplaced_protective(&mbr(&[linux])), None);
        assert_eq!(misplaced_protective(&mbr(&last)), None);
        let mut unsigned = mbr(&[protective]);
        unsigned[SIGNATURE] = 0;
        assert_eq!(read(&unsigned), Sector0::Nothing);
    }

    #[test]
    fn boot_sectors_of_volumes_and_code_are_not_an_mbr() {
        let linux = (0x83, 2048, 2048);
        for entries in [&[][..], &[(0x83, 2048, 0)], &[(0, 2048, 0)]] {
            assert_eq!(read(&mbr(entries)), Sector0::Nothing, "{entries:?}");
        }
        let with = |at: usize, bytes: &[u8]| {
            let mut sector = mbr(&[linux]);
            sector[at..at + bytes.len()].copy_from_slice(bytes);
            read(&sector) != Sector0::Nothing
        };
        assert!(!with(510, &[0x55, 0x55]));
        assert!(!with(ENTRIES + 32, &[0x20]), "boot code, not a status");
        assert!(!with(3, b"NTFS    "));
        assert!(!with(54, b"FAT16   "));
        assert!(!with(82, b"FAT32   "));
        assert!(with(ENTRIES, &[0x80]));
    }

    #[test]
    fn a_link_of_the_chain_names_its_partition_and_the_next_link() {
        let extended = partition(2, 0x05, 10_000, 5000);
        let link = mbr(&[(0x83, 63, 900), (0x05, 1000, 963), (0x07, 7, 7)]);
        let read = read_link(&link, 10_000, &extended).unwrap();
        let logical = |first_lba| Partition {
            data_lba: first_lba + 63,
            ..partition(1, 0x83, first_lba, 963)
        };
        assert_eq!(read.partitions, [logical(10_000)]);
        assert_eq!(read.next_lba, Some(11_000));
        let last = read_link(&mbr(&[(0x83, 63, 900)]), 11_000, &extended).unwrap();
        assert_eq!(last.partitions, [logical(11_000)]);
        assert_eq!(last.next_lba, None);
        assert_eq!(read_link(&[0; 512], 10_000, &extended), None);
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
        // The active entry of kind 0 that GRUB adds for some BIOSes covers sector 0 only.
        assert_eq!(resized(&[(0xee, 1, 99), (0, 0, 1)], 200), (199, true));
        assert_eq!(resized(&[(0xee, 2, 99)], 200), (99, false));
        assert_eq!(resized(&[], 200), (0, false));
    }

    #[test]
    fn a_hybrid_entry_becomes_as_long_as_its_partition() {
        let mut sector = mbr(&[(0xee, 1, 2047), (0x83, 2048, 2048)]);
        resize_hybrid(&mut sector, 2048, 2047, 4096);
        resize_hybrid(&mut sector, 1, 2047, 4096);
        assert_eq!(sector, mbr(&[(0xee, 1, 2047), (0x83, 2048, 2048)]));
        resize_hybrid(&mut sector, 2048, 2048, 4096);
        let mut expected = mbr(&[(0xee, 1, 2047), (0x83, 2048, 4096)]);
        expected[ENTRIES + 16 + 5..ENTRIES + 16 + 8].fill(0xff);
        assert_eq!(sector, expected);
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
            good += u32::from(read(&sector) != Sector0::Nothing);
            read_link(&sector, disk_sectors, &partition(1, 0x05, disk_sectors, 1));
            resize_hybrid(&mut sector, 2048, 2048, disk_sectors);
            grow_last(&mut sector, disk_sectors, 512);
            resize_protective(&mut sector, disk_sectors + 1);
        }
        assert!(good > 100, "{good}");
    }
}
