//! Where are the partitions of a disk with a GPT, and what has to change when the disk has another
//! size?
//!
//! Read first: UEFI 2.10, 5.2.3 (protective MBR) and 5.3 (GUID partition table). A disk has its GPT
//! twice: the primary header at LBA 1 with its entries behind it, and the backup header in the last
//! sector with its entries before it. Each header names the place of the other. So on a larger disk
//! an image has its backup in the middle, and its primary header names the wrong end.
//!
//! Worked case, 2 GiB onto 3 GiB in sectors of 512 bytes, 128 entries of 128 bytes (32 sectors):
//!
//! ```text
//!                      LBA 1    2..34     34.. usable ..          backup entries     backup header
//! 2 GiB, 4194304       primary  entries   last usable 4194270     4194271..4194303    4194303
//! 3 GiB, 6291456       primary  entries   last usable 6291422     6291423..6291455    6291455
//! ```
//!
//! Everything here was read from a disk, and nothing of it is trusted before it is checked.

use crate::format::crc32::crc32;
use crate::format::mbr::{self, GROW_ALIGNMENT_BYTES, put_u32, u32_at};
use alloc::vec::Vec;
use core::fmt;

/// Where the primary header is.
pub const PRIMARY_LBA: u64 = 1;

/// All entries together; 128 entries of 128 bytes, 16 KiB, are usual.
const ENTRIES_BYTES_MAX: u64 = 1 << 20;

/// No disk has this sector: with sectors of 4096 bytes its offset does not fit into `off_t`.
const LBA_END: u64 = 1 << 51;

// Places in the header: UEFI 2.10, table 5.5.
const SIGNATURE: &[u8; 8] = b"EFI PART";
const HEADER_BYTES: usize = 12;
const HEADER_CRC: usize = 16;
const MY_LBA: usize = 24;
const ALTERNATE_LBA: usize = 32;
const FIRST_USABLE_LBA: usize = 40;
const LAST_USABLE_LBA: usize = 48;
const DISK_GUID: core::ops::Range<usize> = 56..72;
const ENTRIES_LBA: usize = 72;
const ENTRY_COUNT: usize = 80;
const ENTRY_BYTES: usize = 84;
const ENTRIES_CRC: usize = 88;
const HEADER_BYTES_MIN: usize = 92;

// Places in an entry: UEFI 2.10, table 5.6. Its first 16 bytes are the type, zero if it is unused.
const TYPE_BYTES: usize = 16;
const FIRST_LBA: usize = 32;
const LAST_LBA: usize = 40;
const ENTRY_BYTES_MIN: u64 = 128;

/// The whole sector of a primary or backup header.
///
/// Invariants: the checksum is right; every LBA in it is below `LBA_END`; all entries together are
/// 1 byte to `ENTRIES_BYTES_MAX`; the entries of a primary are between the header and the first
/// usable sector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    sector: Vec<u8>,
}

impl Header {
    /// The header in a whole sector that was read at `lba`.
    pub fn parse(sector: &[u8], lba: u64) -> Result<Header, GptError> {
        assert!(
            sector.len() >= HEADER_BYTES_MIN,
            "a sector of {} bytes",
            sector.len()
        );
        if !sector.starts_with(SIGNATURE) {
            return Err(GptError::Absent);
        }
        let header = Header {
            sector: sector.into(),
        };
        let length = header.u32(HEADER_BYTES) as usize;
        if !(HEADER_BYTES_MIN..=sector.len()).contains(&length)
            || header.checksum() != header.u32(HEADER_CRC)
        {
            return Err(GptError::HeaderChecksum { lba });
        }
        header.check(lba)?;
        Ok(header)
    }

    fn check(&self, lba: u64) -> Result<(), GptError> {
        let places = [
            MY_LBA,
            ALTERNATE_LBA,
            FIRST_USABLE_LBA,
            LAST_USABLE_LBA,
            ENTRIES_LBA,
        ];
        let entry_bytes = u64::from(self.u32(ENTRY_BYTES));
        let entries_bytes = u64::from(self.u32(ENTRY_COUNT)).saturating_mul(entry_bytes);
        let entries_good = entry_bytes >= ENTRY_BYTES_MIN
            && entry_bytes.is_multiple_of(8)
            && (1..=ENTRIES_BYTES_MAX).contains(&entries_bytes);
        let good = self.u64(MY_LBA) == lba
            && places.iter().all(|&place| self.u64(place) < LBA_END)
            && self.u64(FIRST_USABLE_LBA) <= self.u64(LAST_USABLE_LBA)
            && entries_good
            && (lba != PRIMARY_LBA || self.entries_follow());
        if good {
            Ok(())
        } else {
            Err(GptError::Nonsense { lba })
        }
    }

    fn entries_follow(&self) -> bool {
        self.entries_lba() > PRIMARY_LBA
            && self.entries_lba() + self.entry_sectors() <= self.u64(FIRST_USABLE_LBA)
    }

    pub fn sector_bytes(&self) -> u64 {
        self.sector.len() as u64
    }

    pub fn alternate_lba(&self) -> u64 {
        self.u64(ALTERNATE_LBA)
    }

    pub fn entries_lba(&self) -> u64 {
        self.u64(ENTRIES_LBA)
    }

    /// Bytes of all entries together.
    pub fn entries_bytes(&self) -> usize {
        self.u32(ENTRY_COUNT) as usize * self.u32(ENTRY_BYTES) as usize
    }

    /// Sectors that hold the entries.
    pub fn entry_sectors(&self) -> u64 {
        (self.entries_bytes() as u64).div_ceil(self.sector_bytes())
    }

    /// True if both headers say the same of the disk: all but their own places.
    fn says_the_same(&self, other: &Header) -> bool {
        let without_places = |header: &Header| {
            let mut bytes = header.sector[..header.u32(HEADER_BYTES) as usize].to_vec();
            let places = [MY_LBA, ALTERNATE_LBA, ENTRIES_LBA];
            places.iter().for_each(|&at| put_u64(&mut bytes, at, 0));
            put_u32(&mut bytes, HEADER_CRC, 0);
            bytes
        };
        without_places(self) == without_places(other)
    }

    /// CRC of the header, with zero in the field of the CRC itself.
    fn checksum(&self) -> u32 {
        let mut header = self.sector[..self.u32(HEADER_BYTES) as usize].to_vec();
        put_u32(&mut header, HEADER_CRC, 0);
        crc32(&header)
    }

    /// The same header with these numbers in it.
    fn with(&self, numbers: &[(usize, u64)], entries: &[u8]) -> Header {
        let mut header = self.clone();
        numbers
            .iter()
            .for_each(|&(place, number)| put_u64(&mut header.sector, place, number));
        put_u32(&mut header.sector, ENTRIES_CRC, crc32(entries));
        let checksum = header.checksum();
        put_u32(&mut header.sector, HEADER_CRC, checksum);
        header
    }

    fn u32(&self, place: usize) -> u32 {
        u32_at(&self.sector, place)
    }

    fn u64(&self, place: usize) -> u64 {
        u64_at(&self.sector, place)
    }
}

/// One used entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Counted from 1, as all tools do.
    pub number: u32,
    pub first_lba: u64,
    pub last_lba: u64,
}

/// A header with its entries.
///
/// Invariants: the checksum of the entries is right; every partition has a sector, and ends below
/// `LBA_END`. Some lie outside of the sectors that the header calls usable: the kernel takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpt {
    header: Header,
    entries: Vec<u8>,
}

impl Gpt {
    /// `entries` are the `header.entries_bytes()` bytes at `header.entries_lba()`.
    pub fn new(header: Header, entries: Vec<u8>) -> Result<Gpt, GptError> {
        assert_eq!(
            entries.len(),
            header.entries_bytes(),
            "all entries and nothing else"
        );
        if crc32(&entries) != header.u32(ENTRIES_CRC) {
            return Err(GptError::EntriesChecksum {
                lba: header.entries_lba(),
            });
        }
        let gpt = Gpt { header, entries };
        let mut partitions = gpt.partitions();
        let is_nonsense = |one: &Partition| one.first_lba > one.last_lba || one.last_lba >= LBA_END;
        match partitions.find(is_nonsense) {
            Some(partition) => Err(GptError::NoPartition { partition }),
            None => {
                drop(partitions);
                Ok(gpt)
            }
        }
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The used entries, in the order of the table.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> + '_ {
        let entries = self
            .entries
            .chunks_exact(self.header.u32(ENTRY_BYTES) as usize)
            .zip(1..);
        entries
            .filter(|(entry, _)| entry[..TYPE_BYTES].iter().any(|&byte| byte != 0))
            .map(|(entry, number)| Partition {
                number,
                first_lba: u64_at(entry, FIRST_LBA),
                last_lba: u64_at(entry, LAST_LBA),
            })
    }

    /// The smallest disk for these partitions, with the backup behind them.
    pub fn sectors_needed(&self) -> u64 {
        let last_partition = self.last_partition().map_or(0, |last| last.last_lba);
        let last_usable = last_partition.max(self.header.u64(FIRST_USABLE_LBA));
        last_usable + 1 + self.header.entry_sectors() + 1
    }

    /// What to write so that this primary GPT fits a disk of `disk_sectors`, on which `around` was
    /// found. With `grow_last` the last partition is enlarged.
    ///
    /// `None` if nothing has to change: an image on a disk of its own size stays as it was, byte
    /// for byte.
    pub fn fit(
        &self,
        around: &Around,
        disk_sectors: u64,
        grow_last: bool,
    ) -> Result<Option<Plan>, GptError> {
        assert_eq!(self.header.u64(MY_LBA), PRIMARY_LBA, "the primary GPT");
        let last_lba = disk_sectors.saturating_sub(1);
        let backup_entries_lba = last_lba.saturating_sub(self.header.entry_sectors());
        let moved = self.header.alternate_lba() != last_lba;
        let last_usable = self.last_usable_for(moved, backup_entries_lba)?;
        let mut entries = self.entries.clone();
        let grown = grow_last
            .then(|| self.grow_last(&mut entries, last_usable))
            .flatten();
        let is_good = |backup: &Gpt| {
            backup.entries == self.entries && backup.header.says_the_same(&self.header)
        };
        if !moved && grown.is_none() && around.backup.as_ref().is_some_and(is_good) {
            return Ok(None);
        }
        let ends = [(ALTERNATE_LBA, last_lba), (LAST_USABLE_LBA, last_usable)];
        let primary = self.header.with(&ends, &entries);
        let swapped = [
            (MY_LBA, last_lba),
            (ALTERNATE_LBA, PRIMARY_LBA),
            (ENTRIES_LBA, backup_entries_lba),
        ];
        let backup = primary.with(&swapped, &entries);
        entries.resize(entries.len().next_multiple_of(self.header.sector.len()), 0);
        let mut head = around.mbr.clone();
        if moved {
            mbr::resize_protective(&mut head, disk_sectors);
        }
        if let Some(Grown {
            first_lba,
            from,
            to,
        }) = grown
        {
            mbr::resize_hybrid(&mut head, first_lba, from, to);
        }
        head.extend(primary.sector);
        Ok(Some(Plan {
            backup: Write {
                lba: backup_entries_lba,
                bytes: [&entries[..], &backup.sector].concat(),
            },
            primary: [
                Write {
                    lba: self.header.entries_lba(),
                    bytes: entries,
                },
                Write {
                    lba: 0,
                    bytes: head,
                },
            ],
            stale: self.stale(around, backup_entries_lba),
            moved,
            grown_bytes: grown.map_or(0, |grown| {
                (grown.to - grown.from) * self.header.sector_bytes()
            }),
        }))
    }

    /// Wipes the header of the old backup, if it is of this very disk and nothing else lies there.
    /// From `backup_entries_lba` on lies the new one.
    fn stale(&self, around: &Around, backup_entries_lba: u64) -> Option<Write> {
        let old = around.old_backup.as_ref()?;
        let lba = old.u64(MY_LBA);
        let is_ours = old.alternate_lba() == PRIMARY_LBA
            && old.sector[DISK_GUID] == self.header.sector[DISK_GUID];
        let is_free = (self.header.u64(FIRST_USABLE_LBA)..backup_entries_lba).contains(&lba)
            && self
                .partitions()
                .all(|partition| !(partition.first_lba..=partition.last_lba).contains(&lba));
        (is_ours && is_free).then(|| Write {
            lba,
            bytes: alloc::vec![0; old.sector.len()],
        })
    }

    /// The last sector that partitions may use, or an error if one ends beyond it. If the backup is
    /// at the end already, the table keeps its own number, which some tools set lower than they
    /// must.
    fn last_usable_for(&self, moved: bool, backup_entries_lba: u64) -> Result<u64, GptError> {
        let highest = backup_entries_lba.saturating_sub(1);
        let own = self.header.u64(LAST_USABLE_LBA);
        let last_usable = if moved { highest } else { own.min(highest) };
        let first_usable = self.header.u64(FIRST_USABLE_LBA);
        match self.last_partition() {
            Some(Partition {
                number, last_lba, ..
            }) if last_lba > highest => Err(GptError::Beyond {
                number,
                last_lba,
                last_usable: highest,
            }),
            _ if first_usable > last_usable => Err(GptError::NoRoom {
                first_usable,
                last_usable,
            }),
            _ => Ok(last_usable),
        }
    }

    /// Moves the end of the last partition in `entries` to the last multiple of the alignment.
    fn grow_last(&self, entries: &mut [u8], last_usable: u64) -> Option<Grown> {
        let alignment = GROW_ALIGNMENT_BYTES / self.header.sector_bytes();
        let end = (last_usable + 1) / alignment * alignment;
        let last = self
            .last_partition()
            .filter(|last| end > last.last_lba + 1)?;
        let entry = (last.number as usize - 1) * self.header.u32(ENTRY_BYTES) as usize;
        put_u64(entries, entry + LAST_LBA, end - 1);
        Some(Grown {
            first_lba: last.first_lba,
            from: last.last_lba + 1 - last.first_lba,
            to: end - last.first_lba,
        })
    }

    fn last_partition(&self) -> Option<Partition> {
        self.partitions().max_by_key(|partition| partition.last_lba)
    }
}

/// What was found on a disk around a primary GPT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// Sector 0.
    pub mbr: Vec<u8>,
    /// The GPT in the last sector of the disk, if there is one.
    pub backup: Option<Gpt>,
    /// The header where the primary says that its backup is, if that is not the last sector.
    pub old_backup: Option<Header>,
}

/// How a partition grew, in sectors.
#[derive(Clone, Copy)]
struct Grown {
    first_lba: u64,
    from: u64,
    to: u64,
}

/// Bytes that belong at a sector of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub lba: u64,
    pub bytes: Vec<u8>,
}

/// The writes that fit a table to a disk. `backup` must be on the disk before the first write of
/// `primary` begins, and these two must keep their order; `stale` comes last. Then one of the two
/// tables is whole whenever the power fails, even where the new backup lies over a part of the old
/// one, as on a disk that is a few sectors larger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub backup: Write,
    pub primary: [Write; 2],
    pub stale: Option<Write>,
    /// The backup was not at the end of the disk before.
    pub moved: bool,
    pub grown_bytes: u64,
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn put_u64(bytes: &mut [u8], at: usize, number: u64) {
    bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

/// Why a GPT cannot be used, or does not fit a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GptError {
    /// There is no signature. Nothing is wrong: the disk has no GPT.
    Absent,
    Beyond {
        number: u32,
        last_lba: u64,
        last_usable: u64,
    },
    EntriesChecksum {
        lba: u64,
    },
    HeaderChecksum {
        lba: u64,
    },
    NoRoom {
        first_usable: u64,
        last_usable: u64,
    },
    Nonsense {
        lba: u64,
    },
    NoPartition {
        partition: Partition,
    },
}

impl fmt::Display for GptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GptError::Absent => f.write_str("there is no GPT"),
            GptError::Beyond {
                number,
                last_lba,
                last_usable,
            } => {
                write!(
                    f,
                    "partition {number} ends at sector {last_lba}, the disk can be used up to {last_usable}"
                )
            }
            GptError::EntriesChecksum { lba } => {
                write!(f, "checksum of the GPT entries at sector {lba} is wrong")
            }
            GptError::HeaderChecksum { lba } => {
                write!(f, "checksum of the GPT header at sector {lba} is wrong")
            }
            GptError::NoRoom {
                first_usable,
                last_usable,
            } => {
                write!(
                    f,
                    "partitions begin at sector {first_usable}, the disk can be used up to {last_usable}"
                )
            }
            GptError::Nonsense { lba } => {
                write!(
                    f,
                    "GPT header at sector {lba} has numbers that cannot be right"
                )
            }
            GptError::NoPartition { partition } => {
                let Partition {
                    number,
                    first_lba,
                    last_lba,
                } = partition;
                write!(
                    f,
                    "partition {number} is said to be in sectors {first_lba} to {last_lba}; a disk ends below {LBA_END}"
                )
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::rng::Rng;
    use std::string::ToString;
    use std::vec;

    const MIB: u64 = 1 << 20;

    /// A disk as a partitioning tool would write it: what `fit` must make of another disk.
    struct Disk {
        sector_bytes: usize,
        bytes: Vec<u8>,
    }

    impl Disk {
        /// Partitions as (number, first, last).
        fn new(sectors: u64, sector_bytes: usize, partitions: &[(usize, u64, u64)]) -> Disk {
            let mut disk = Disk {
                sector_bytes,
                bytes: vec![0; sectors as usize * sector_bytes],
            };
            let mut entries = vec![0; 128 * 128];
            for &(number, first, last) in partitions {
                let entry = &mut entries[(number - 1) * 128..][..128];
                entry[..32].fill(number as u8);
                put_u64(entry, FIRST_LBA, first);
                put_u64(entry, LAST_LBA, last);
            }
            let entry_sectors = (entries.len() / sector_bytes) as u64;
            let (last, first_usable) = (sectors - 1, 2 + entry_sectors);
            let header = |my: u64, alternate: u64, entries_lba: u64| {
                let mut header = vec![0; sector_bytes];
                header[..8].copy_from_slice(SIGNATURE);
                put_u32(&mut header, 8, 0x1_0000);
                put_u32(&mut header, HEADER_BYTES, 92);
                header[56..72].fill(0xd1);
                let numbers = [
                    (MY_LBA, my),
                    (ALTERNATE_LBA, alternate),
                    (FIRST_USABLE_LBA, first_usable),
                    (LAST_USABLE_LBA, last - entry_sectors - 1),
                    (ENTRIES_LBA, entries_lba),
                ];
                numbers
                    .iter()
                    .for_each(|&(place, number)| put_u64(&mut header, place, number));
                put_u32(&mut header, ENTRY_COUNT, 128);
                put_u32(&mut header, ENTRY_BYTES, 128);
                put_u32(&mut header, ENTRIES_CRC, crc32fast::hash(&entries));
                let checksum = crc32fast::hash(&header[..92]);
                put_u32(&mut header, HEADER_CRC, checksum);
                header
            };
            let mbr = disk.at(0, 1);
            mbr[446 + 4] = 0xee;
            mbr[446 + 5..446 + 8].fill(0xff);
            put_u32(mbr, 446 + 8, 1);
            put_u32(mbr, 446 + 12, last as u32);
            mbr[510..512].copy_from_slice(&[0x55, 0xaa]);
            disk.write(1, &header(1, last, 2));
            disk.write(2, &entries);
            disk.write(last - entry_sectors, &entries);
            disk.write(last, &header(last, 1, last - entry_sectors));
            disk
        }

        fn at(&mut self, lba: u64, sectors: usize) -> &mut [u8] {
            &mut self.bytes[lba as usize * self.sector_bytes..][..sectors * self.sector_bytes]
        }

        fn write(&mut self, lba: u64, bytes: &[u8]) {
            self.at(lba, bytes.len() / self.sector_bytes)
                .copy_from_slice(bytes);
        }

        fn sectors(&self) -> u64 {
            (self.bytes.len() / self.sector_bytes) as u64
        }

        /// The disk of another size that holds the same bytes; at the end there are zeros.
        fn resized(&self, sectors: u64) -> Disk {
            let mut bytes = self.bytes.clone();
            bytes.resize(sectors as usize * self.sector_bytes, 0);
            Disk { bytes, ..*self }
        }

        fn gpt(&self, lba: u64) -> Result<Gpt, GptError> {
            let sector = |lba: u64| &self.bytes[lba as usize * self.sector_bytes..];
            let header = Header::parse(&sector(lba)[..self.sector_bytes], lba)?;
            let entries = sector(header.entries_lba().min(self.sectors()));
            match entries.get(..header.entries_bytes()) {
                Some(entries) => Gpt::new(header, entries.to_vec()),
                None => Err(GptError::Nonsense { lba }),
            }
        }

        fn plan(&self, grow_last: bool) -> Result<Option<Plan>, GptError> {
            let primary = self.gpt(PRIMARY_LBA)?;
            let old_lba = primary.header.alternate_lba();
            let old = self.bytes.get(old_lba as usize * self.sector_bytes..);
            let old = old.and_then(|bytes| bytes.get(..self.sector_bytes));
            let around = Around {
                mbr: self.bytes[..self.sector_bytes].to_vec(),
                backup: self.gpt(self.sectors() - 1).ok(),
                old_backup: old.and_then(|sector| Header::parse(sector, old_lba).ok()),
            };
            primary.fit(&around, self.sectors(), grow_last)
        }

        fn fit(&mut self, grow_last: bool) -> Option<Plan> {
            let plan = self.plan(grow_last).unwrap()?;
            writes(&plan).for_each(|write| self.write(write.lba, &write.bytes));
            Some(plan)
        }
    }

    /// The primary GPT of a disk of this many sectors.
    pub(in super::super) fn primary(sectors: u64, partitions: &[(usize, u64, u64)]) -> Gpt {
        Disk::new(sectors, 512, partitions)
            .gpt(PRIMARY_LBA)
            .unwrap()
    }

    /// In the order in which they must reach the disk.
    fn writes(plan: &Plan) -> impl Iterator<Item = &Write> {
        let [entries, head] = &plan.primary;
        [&plan.backup, entries, head].into_iter().chain(&plan.stale)
    }

    fn around(mbr: &[u8]) -> Around {
        Around {
            mbr: mbr.to_vec(),
            ..Around::default()
        }
    }

    /// Compares both ends only: the old backup stays in the middle, where nothing refers to it.
    fn assert_ends_are_equal(one: &Disk, other: &Disk) {
        let (head, tail) = (
            34 * one.sector_bytes,
            one.bytes.len() - 33 * one.sector_bytes,
        );
        assert!(one.bytes[..head] == other.bytes[..head], "primary");
        assert!(one.bytes[tail..] == other.bytes[tail..], "backup");
    }

    const TWO: [(usize, u64, u64); 2] = [(1, 2048, 4095), (5, 4096, 6143)];

    #[test]
    fn a_disk_of_its_own_size_is_not_changed() {
        for (sectors, sector_bytes) in [(8192, 512), (8192, 4096)] {
            assert_eq!(Disk::new(sectors, sector_bytes, &TWO).fit(false), None);
        }
    }

    #[test]
    fn a_larger_disk_becomes_as_if_partitioned_at_that_size() {
        for sector_bytes in [512, 1024, 4096] {
            let mut disk = Disk::new(8192, sector_bytes, &TWO).resized(12_345);
            let plan = disk.fit(false).unwrap();
            assert_eq!((plan.moved, plan.grown_bytes), (true, 0));
            let expected = Disk::new(12_345, sector_bytes, &TWO);
            assert_ends_are_equal(&disk, &expected);
            assert_eq!(disk.fit(false), None, "once is enough");
        }
    }

    #[test]
    fn a_smaller_disk_is_enough_if_the_partitions_fit() {
        // In sectors of 512: 32 of entries and a header behind the last partition.
        let smallest = 6144 + 33;
        let mut disk = Disk::new(8192, 512, &TWO).resized(smallest);
        assert!(disk.fit(false).unwrap().moved);
        assert!(disk.bytes == Disk::new(smallest, 512, &TWO).bytes);
        let beyond = GptError::Beyond {
            number: 5,
            last_lba: 6143,
            last_usable: 6142,
        };
        assert_eq!(
            Disk::new(8192, 512, &TWO).resized(smallest - 1).plan(true),
            Err(beyond)
        );
        assert_eq!(
            beyond.to_string(),
            "partition 5 ends at sector 6143, the disk can be used up to 6142"
        );
        let none = Disk::new(8192, 512, &[]);
        for sectors in [34, 35, 66] {
            let error = none.resized(sectors).plan(true).unwrap_err();
            assert!(
                matches!(
                    error,
                    GptError::NoRoom {
                        first_usable: 34,
                        ..
                    }
                ),
                "{sectors}: {error}"
            );
        }
        assert!(none.resized(68).plan(true).unwrap().unwrap().moved);
        let gpt = none.gpt(1).unwrap();
        assert!((0..34).all(|sectors| gpt.fit(&around(&[0; 512]), sectors, true).is_err()));
    }

    #[test]
    fn the_last_partition_grows_to_a_whole_mebibyte() {
        for sector_bytes in [512, 4096] {
            let sectors = 12_345;
            let mut disk = Disk::new(8192, sector_bytes, &TWO).resized(sectors);
            let grown_bytes = disk.fit(true).unwrap().grown_bytes;
            let per_mib = MIB / sector_bytes as u64;
            let entry_sectors = 16_384 / sector_bytes as u64;
            let end = (sectors - 1 - entry_sectors) / per_mib * per_mib;
            assert_eq!(grown_bytes, (end - 6144) * sector_bytes as u64);
            let expected = Disk::new(sectors, sector_bytes, &[TWO[0], (5, 4096, end - 1)]);
            assert_ends_are_equal(&disk, &expected);
            assert_eq!(disk.fit(true), None, "there is no more room");
        }
        assert_eq!(
            Disk::new(8192, 512, &[(1, 2048, 8158)]).plan(true),
            Ok(None),
            "it is beyond the multiple"
        );
        assert_eq!(
            Disk::new(8192, 512, &[]).plan(true),
            Ok(None),
            "nothing is there to grow"
        );
    }

    /// The power may fail after any sector. On a disk that is up to 32 sectors larger the new
    /// backup lies over a part of the old one.
    #[test]
    fn one_of_the_tables_is_whole_at_any_time() {
        for sectors in (8193..8230).chain([12_345]) {
            let mut disk = Disk::new(8192, 512, &TWO).resized(sectors);
            let plan = disk.plan(true).unwrap().unwrap();
            for write in writes(&plan) {
                for (lba, sector) in (write.lba..).zip(write.bytes.chunks(512)) {
                    disk.write(lba, sector);
                    assert!(
                        disk.gpt(PRIMARY_LBA).is_ok() || disk.gpt(sectors - 1).is_ok(),
                        "{sectors}: sector {lba}"
                    );
                }
            }
            assert!(disk.gpt(PRIMARY_LBA).is_ok() && disk.gpt(sectors - 1).is_ok());
            assert_eq!(disk.plan(true), Ok(None), "{sectors}");
        }
    }

    #[test]
    fn the_header_of_the_old_backup_is_wiped() {
        for sectors in (8193..8230).chain([12_345]) {
            let mut disk = Disk::new(8192, 512, &TWO).resized(sectors);
            disk.fit(false).unwrap();
            let header = |lba| disk.bytes[lba as usize * 512..].starts_with(SIGNATURE);
            let found: Vec<u64> = (0..sectors).filter(|&lba| header(lba)).collect();
            assert_eq!(found, [1, sectors - 1]);
        }
        // Not if it is of another disk, or inside a partition.
        let mut other = Disk::new(8192, 512, &TWO);
        let backup = other
            .gpt(8191)
            .unwrap()
            .header
            .with(&[(DISK_GUID.start, 7)], &[]);
        other.write(8191, &backup.sector);
        assert_eq!(other.resized(9000).fit(false).unwrap().stale, None);
        let backup = Disk::new(8192, 512, &TWO).at(8191, 1).to_vec();
        let mut inside = Disk::new(12_345, 512, &[TWO[0], (5, 4096, 9000)]);
        let gpt = inside.gpt(1).unwrap();
        let named = gpt.header.with(&[(ALTERNATE_LBA, 8191)], &gpt.entries);
        inside.write(1, &named.sector);
        inside.write(8191, &backup);
        assert_eq!(inside.fit(false).unwrap().stale, None);
    }

    #[test]
    fn a_backup_of_another_disk_with_the_same_entries_is_replaced() {
        let whole = Disk::new(8192, 512, &TWO);
        for (place, number) in [
            (DISK_GUID.start, 7),
            (LAST_USABLE_LBA, 8000),
            (8, 0x5c_0001_0001),
        ] {
            let mut disk = Disk::new(8192, 512, &TWO);
            let backup = disk.gpt(8191).unwrap();
            let changed = backup.header.with(&[(place, number)], &backup.entries);
            disk.write(8191, &changed.sector);
            assert!(disk.gpt(8191).is_ok());
            assert_eq!(disk.fit(false).map(|plan| plan.moved), Some(false));
            assert!(disk.bytes == whole.bytes, "{place}");
        }
    }

    #[test]
    fn the_smallest_disk_is_that_of_fit() {
        for partitions in [&TWO[..], &[]] {
            let gpt = Disk::new(8192, 512, partitions).gpt(1).unwrap();
            let needed = gpt.sectors_needed();
            let fits = |sectors| gpt.fit(&around(&[0; 512]), sectors, false).is_ok();
            assert!(fits(needed) && !fits(needed - 1), "{needed}");
        }
    }

    #[test]
    fn a_lost_backup_is_restored_on_a_disk_of_its_own_size() {
        let whole = Disk::new(8192, 512, &TWO);
        let mut disk = Disk::new(8192, 512, &TWO);
        disk.bytes[8159 * 512..].fill(0);
        assert_eq!(disk.fit(false).map(|plan| plan.moved), Some(false));
        assert!(disk.bytes == whole.bytes);
    }

    #[test]
    fn partitions_are_numbered_by_their_entry() {
        let gpt = Disk::new(8192, 512, &TWO).gpt(1).unwrap();
        let partition = |number, first_lba, last_lba| Partition {
            number,
            first_lba,
            last_lba,
        };
        let found: Vec<Partition> = gpt.partitions().collect();
        assert_eq!(found, [partition(1, 2048, 4095), partition(5, 4096, 6143)]);
    }

    #[test]
    fn the_worked_case() {
        // Only the numbers are compared, so the test needs no disk of 3 GiB.
        let gpt = Disk::new(8192, 512, &TWO).gpt(1).unwrap();
        let plan = gpt
            .fit(&around(&[0; 512]), 6_291_456, false)
            .unwrap()
            .unwrap();
        let header = Header::parse(&plan.backup.bytes[32 * 512..], 6_291_455).unwrap();
        assert_eq!(
            (plan.backup.lba, header.entries_lba()),
            (6_291_423, 6_291_423)
        );
        assert_eq!(
            (header.alternate_lba(), header.u64(LAST_USABLE_LBA)),
            (1, 6_291_422)
        );
    }

    #[test]
    fn each_error_is_named() {
        let with = |change: fn(&mut Disk)| {
            let mut disk = Disk::new(8192, 512, &TWO);
            change(&mut disk);
            disk.gpt(1).unwrap_err().to_string()
        };
        let resigned = |place: usize, number: u64| {
            let disk = Disk::new(8192, 512, &TWO);
            let gpt = disk.gpt(1).unwrap();
            let changed = gpt.header.with(&[(place, number)], &gpt.entries);
            Header::parse(&changed.sector, 1)
                .and_then(|header| Gpt::new(header, gpt.entries))
                .unwrap_err()
        };
        assert_eq!(with(|disk| disk.bytes[512] = 0), "there is no GPT");
        let checksum = "checksum of the GPT header at sector 1 is wrong";
        assert_eq!(with(|disk| disk.bytes[512 + 60] ^= 1), checksum);
        assert_eq!(
            with(|disk| put_u32(&mut disk.bytes, 512 + 12, 91)),
            checksum
        );
        assert_eq!(
            with(|disk| put_u32(&mut disk.bytes, 512 + 12, 513)),
            checksum
        );
        assert_eq!(
            with(|disk| disk.bytes[1024 + 9] ^= 1),
            "checksum of the GPT entries at sector 2 is wrong"
        );
        for (place, number) in [
            (MY_LBA, 2),
            (ALTERNATE_LBA, LBA_END),
            (LAST_USABLE_LBA, u64::MAX),
            (FIRST_USABLE_LBA, 33),
            (FIRST_USABLE_LBA, 8192),
            (ENTRIES_LBA, 1),
            (ENTRIES_LBA, 3),
            (ENTRY_COUNT, 127 << 32 | 128),
            (ENTRY_COUNT, 128 << 32 | 8193),
            (ENTRY_COUNT, 128 << 32),
        ] {
            assert_eq!(
                resigned(place, number),
                GptError::Nonsense { lba: 1 },
                "{place}: {number}"
            );
        }
    }

    /// efi.c compares a partition with the end of the disk, not with what the header calls usable.
    #[test]
    fn partitions_may_lie_outside_of_the_usable_sectors() {
        for (place, number) in [(FIRST_USABLE_LBA, 2049), (LAST_USABLE_LBA, 6142)] {
            let mut disk = Disk::new(8192, 512, &TWO);
            for lba in [PRIMARY_LBA, 8191] {
                let gpt = disk.gpt(lba).unwrap();
                let changed = gpt.header.with(&[(place, number)], &gpt.entries);
                disk.write(lba, &changed.sector);
            }
            assert_eq!(disk.fit(false), None, "on a disk of its own size");
            let mut larger = disk.resized(12_345);
            assert!(larger.fit(false).unwrap().moved);
            let kept: Vec<Partition> = larger.gpt(PRIMARY_LBA).unwrap().partitions().collect();
            let all: Vec<Partition> = disk.gpt(PRIMARY_LBA).unwrap().partitions().collect();
            assert_eq!(kept, all);
        }
        for (first, last) in [(4096, 4095), (2048, LBA_END)] {
            let error = Disk::new(8192, 512, &[(3, first, last)])
                .gpt(1)
                .unwrap_err();
            let said = std::format!("partition 3 is said to be in sectors {first} to {last}; ");
            assert!(error.to_string().starts_with(&said), "{error}");
        }
    }

    /// Any bytes, even with right checksums, are refused, or else the result is a valid table.
    #[test]
    fn any_bytes_are_refused_or_give_a_valid_table() {
        let mut rng = Rng::new(5);
        let (mut good, mut refused) = (0, 0);
        for _ in 0..3000 {
            let mut disk = Disk::new(8192, 512, &TWO);
            for _ in 0..=rng.below(4) {
                let at = 512 + rng.below(512 + 5 * 128) as usize;
                disk.bytes[at] = if rng.chance(1, 2) {
                    rng.below(256) as u8
                } else {
                    0
                };
            }
            let sectors = [8192, 9000, rng.below(20_000).into()][rng.below(3) as usize];
            let entries = crc32fast::hash(&disk.bytes[1024..1024 + 16_384]);
            put_u32(&mut disk.bytes, 512 + ENTRIES_CRC, entries);
            put_u32(&mut disk.bytes, 512 + HEADER_CRC, 0);
            let checksum = crc32fast::hash(&disk.bytes[512..512 + 92]);
            put_u32(&mut disk.bytes, 512 + HEADER_CRC, checksum);
            let plan = disk
                .gpt(1)
                .and_then(|gpt| gpt.fit(&around(&disk.bytes[..512]), sectors, rng.chance(1, 2)));
            let Ok(Some(plan)) = plan else {
                refused += 1;
                continue;
            };
            good += 1;
            let last = plan.backup.lba + (plan.backup.bytes.len() / 512) as u64;
            assert_eq!(last, sectors);
            let header = Header::parse(&plan.primary[1].bytes[512..], 1).unwrap();
            let entries = plan.primary[0].bytes[..header.entries_bytes()].to_vec();
            assert_eq!(
                Gpt::new(header, entries).unwrap().header.alternate_lba(),
                sectors - 1
            );
        }
        assert!(
            good > 300 && refused > 300,
            "{good} good, {refused} refused"
        );
        for _ in 0..3000 {
            let mut sector: Vec<u8> = (0..512).map(|_| rng.below(256) as u8).collect();
            sector[..8].copy_from_slice(SIGNATURE);
            assert!(Header::parse(&sector, 1).is_err());
        }
    }
}
