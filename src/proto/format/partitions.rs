//! Which sectors of a disk does its partition table give to somebody, and is it certain that nobody
//! owns the others?
//!
//! `mbr::read` says from sector 0 which table counts. Here lies what both kinds of table are asked:
//! where zeros may be left out, how large a disk has to be, and whether the table makes sense.
//! Entries that overlap, or that do not say what they cover, leave that open: an isohybrid image
//! has an entry of kind 0 over everything and one for its EFI image inside that. Such a table is in
//! doubt, and then all sectors count as owned.

use crate::format::gpt::{self, Gpt};
use crate::format::mbr;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

/// What a disk's partition table says. LBAs count sectors of `sector_bytes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionTable {
    pub sector_bytes: u32,
    pub kind: Kind,
    /// The entries of sector 0. Under a GPT those beside the protective one.
    entries: Vec<mbr::Partition>,
    /// The logical partitions, each with the number of its extended one.
    logical: Vec<(u32, mbr::Partition)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The primary, and the backup that it names, if that is a GPT and in the last sector.
    Gpt {
        primary: Gpt,
        backup: Option<Gpt>,
    },
    Mbr,
}

/// Which table the maker of a torrent found in its source, as the torrent says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    Gpt,
    Mbr,
    Nothing,
    /// Whatever it is, the target gets these bytes and nothing else.
    Raw,
}

impl TableKind {
    pub fn name(self) -> &'static str {
        match self {
            TableKind::Gpt => "GPT",
            TableKind::Mbr => "MBR",
            TableKind::Nothing => "none",
            TableKind::Raw => "raw",
        }
    }

    /// A name that we do not know says no more than none.
    pub fn named(name: &[u8]) -> Option<TableKind> {
        let known = [
            TableKind::Gpt,
            TableKind::Mbr,
            TableKind::Nothing,
            TableKind::Raw,
        ];
        known
            .into_iter()
            .find(|kind| kind.name().as_bytes() == name)
    }
}

/// A run of sectors that somebody owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    pub owner: Owner,
    pub first_lba: u64,
    pub end_lba: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Partition(u32),
    /// An entry of the MBR beside a GPT.
    Hybrid(u32),
}

impl PartitionTable {
    pub fn gpt(
        sector_bytes: u32,
        primary: Gpt,
        backup: Option<Gpt>,
        entries: Vec<mbr::Partition>,
    ) -> PartitionTable {
        PartitionTable {
            sector_bytes,
            kind: Kind::Gpt { primary, backup },
            entries,
            logical: Vec::new(),
        }
    }

    /// `logical` in the order of the chain, in which they are counted from 5 on.
    pub fn mbr(
        sector_bytes: u32,
        entries: Vec<mbr::Partition>,
        mut logical: Vec<(u32, mbr::Partition)>,
    ) -> PartitionTable {
        for ((_, partition), number) in logical.iter_mut().zip(5..) {
            partition.number = number;
        }
        PartitionTable {
            sector_bytes,
            kind: Kind::Mbr,
            entries,
            logical,
        }
    }

    pub fn partition_count(&self) -> usize {
        match &self.kind {
            Kind::Gpt { primary, .. } => primary.partitions().count(),
            Kind::Mbr => self.entries.len(),
        }
    }

    pub fn is_hybrid(&self) -> bool {
        matches!(self.kind, Kind::Gpt { .. }) && self.entries.iter().any(|entry| entry.kind != 0)
    }

    /// Whether nobody owns the sectors behind the last partition of a GPT. A hybrid MBR may have
    /// partitions there that the GPT does not name.
    pub fn may_grow(&self) -> bool {
        let Kind::Gpt { primary, .. } = &self.kind else {
            return self.doubt().is_none();
        };
        let last = primary.partitions().max_by_key(|one| one.last_lba);
        let is_behind = |entry: &mbr::Partition| {
            last.map(of_gpt).is_some_and(|last| {
                let is_same = (last.first_lba, last.end_lba) == (entry.first_lba, entry.end_lba());
                entry.end_lba() > last.first_lba && !is_same
            })
        };
        self.doubt().is_none() && !self.entries.iter().any(is_behind)
    }

    /// The entry beside a GPT that owns sectors to which its backup moves on a disk of another
    /// size.
    pub fn at_backup(&self, disk_sectors: u64) -> Option<Owned> {
        let Kind::Gpt { primary, .. } = &self.kind else {
            return None;
        };
        let header = primary.header();
        let from = disk_sectors.saturating_sub(header.entry_sectors() + 1);
        let moved = header.alternate_lba() + 1 != disk_sectors;
        let mut owned = self.owned().into_iter();
        owned.find(|one| moved && matches!(one.owner, Owner::Hybrid(_)) && one.end_lba > from)
    }

    /// Why it is not certain that nobody owns the sectors between the partitions.
    pub fn doubt(&self) -> Option<Doubt> {
        match &self.kind {
            Kind::Gpt { primary, .. } => overlap(primary.partitions().map(of_gpt).collect()),
            Kind::Mbr => self.doubt_of_mbr(),
        }
    }

    fn doubt_of_mbr(&self) -> Option<Doubt> {
        let vague = self
            .entries
            .iter()
            .find(|entry| entry.kind == 0 || entry.first_lba == 0);
        if let Some(&mbr::Partition {
            number, first_lba, ..
        }) = vague
        {
            return Some(match first_lba {
                0 => Doubt::FromSector0 { number },
                _ => Doubt::NoKind { number },
            });
        }
        let outside = self.logical.iter().find(|(extended, logical)| {
            let around = self.entries.iter().find(|entry| entry.number == *extended);
            around.is_none_or(|around| {
                logical.first_lba < around.first_lba || logical.end_lba() > around.end_lba()
            })
        });
        match outside {
            Some((extended, logical)) => Some(Doubt::OutsideExtended {
                number: logical.number,
                extended: *extended,
            }),
            None => overlap(self.entries.iter().map(of_mbr).collect()),
        }
    }

    /// The partition that ends last, if that is behind the last sector of its disk.
    pub fn beyond(&self, disk_sectors: u64) -> Option<Owned> {
        let last = self.owned().into_iter().max_by_key(|owned| owned.end_lba);
        last.filter(|owned| owned.end_lba > disk_sectors)
    }

    /// The tables in front, whose zeros count, too, and the links of the chain of logical
    /// partitions.
    pub fn tables(&self) -> Vec<Range<u64>> {
        let mut tables = vec![self.bytes(0, gpt::PRIMARY_LBA + 1)];
        let extended = self.entries.iter().filter(|entry| entry.is_extended());
        let links = self.logical.iter().map(|(_, logical)| logical);
        for link in extended.chain(links) {
            tables.push(self.bytes(link.first_lba, link.first_lba + 1));
        }
        if let Kind::Gpt { primary, .. } = &self.kind {
            let header = primary.header();
            let first = header.entries_lba();
            tables.push(self.bytes(first, first + header.entry_sectors()));
        }
        tables
    }

    /// Every partition, in any order.
    pub fn partitions(&self) -> impl Iterator<Item = Range<u64>> {
        let owned = self.owned().into_iter();
        owned.map(|owned| self.bytes(owned.first_lba, owned.end_lba))
    }

    /// The bytes that are a device of their own to the system, in any order: not an extended
    /// partition, and a logical one without its link.
    pub fn devices(&self) -> impl Iterator<Item = Range<u64>> {
        let gpt = match &self.kind {
            Kind::Gpt { primary, .. } => Some(primary.partitions().map(of_gpt)),
            Kind::Mbr => None,
        };
        let logical = self.logical.iter().map(|(_, logical)| logical);
        let entries = self.entries.iter().filter(|entry| !entry.is_extended());
        let of_mbr = entries
            .chain(logical)
            .map(|one| (one.data_lba, one.end_lba()));
        let of_gpt = gpt
            .into_iter()
            .flatten()
            .map(|one| (one.first_lba, one.end_lba));
        of_gpt
            .chain(of_mbr)
            .map(|(first_lba, end_lba)| self.bytes(first_lba, end_lba))
    }

    /// Where the backup GPT lies. `get` writes another one to the end of the target.
    pub fn backup(&self) -> Option<Range<u64>> {
        let Kind::Gpt {
            primary,
            backup: Some(backup),
        } = &self.kind
        else {
            return None;
        };
        let entries = backup.header().entries_lba();
        let header = primary.header().alternate_lba();
        let behind = self.owned().iter().all(|owned| owned.end_lba <= entries);
        let together = entries + backup.header().entry_sectors() == header;
        (behind && together).then(|| self.bytes(entries, header + 1))
    }

    /// The smallest disk that holds all partitions, and behind those of a GPT its backup. An entry
    /// of a hybrid MBR over everything, as ISO images have it, lies over the backup already.
    pub fn needed_bytes(&self) -> u64 {
        let ends = self.owned().into_iter().map(|owned| owned.end_lba);
        let end_lba = ends.max().unwrap_or(0);
        let needed = match &self.kind {
            Kind::Gpt { primary, .. } => {
                let header = primary.header();
                let own_end = end_lba.max(header.alternate_lba() + 1);
                let behind = end_lba + header.entry_sectors() + 1;
                primary.sectors_needed().max(behind.min(own_end))
            }
            Kind::Mbr => end_lba,
        };
        self.bytes(0, needed).end
    }

    /// Length of the backup GPT that a target gets.
    pub fn backup_bytes(&self) -> u64 {
        match &self.kind {
            Kind::Gpt { primary, .. } => self.bytes(0, primary.header().entry_sectors() + 1).end,
            Kind::Mbr => 0,
        }
    }

    /// Everything that an entry of any table owns.
    fn owned(&self) -> Vec<Owned> {
        let (hybrid, mut owned) = match &self.kind {
            Kind::Gpt { primary, .. } => (true, primary.partitions().map(of_gpt).collect()),
            Kind::Mbr => (false, Vec::new()),
        };
        owned.extend(self.entries.iter().map(|entry| Owned {
            owner: match hybrid {
                true => Owner::Hybrid(entry.number),
                false => Owner::Partition(entry.number),
            },
            ..of_mbr(entry)
        }));
        owned.extend(self.logical.iter().map(|(_, logical)| of_mbr(logical)));
        owned
    }

    fn bytes(&self, first_lba: u64, end_lba: u64) -> Range<u64> {
        let sector_bytes = u64::from(self.sector_bytes);
        first_lba * sector_bytes..end_lba * sector_bytes
    }
}

fn of_gpt(partition: gpt::Partition) -> Owned {
    Owned {
        owner: Owner::Partition(partition.number),
        first_lba: partition.first_lba,
        end_lba: partition.last_lba + 1,
    }
}

fn of_mbr(partition: &mbr::Partition) -> Owned {
    Owned {
        owner: Owner::Partition(partition.number),
        first_lba: partition.first_lba,
        end_lba: partition.end_lba(),
    }
}

/// Two that own the same sector.
fn overlap(mut owned: Vec<Owned>) -> Option<Doubt> {
    owned.sort_unstable_by_key(|owned| owned.first_lba);
    let pair = owned
        .array_windows()
        .find(|[one, next]| next.first_lba < one.end_lba);
    pair.map(|[one, next]| Doubt::Overlap {
        one: one.owner,
        other: next.owner,
    })
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Partition(number) => write!(f, "partition {number}"),
            Owner::Hybrid(number) => write!(f, "entry {number} of the hybrid MBR"),
        }
    }
}

/// Why a table does not say which sectors nobody owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    FromSector0 { number: u32 },
    NoKind { number: u32 },
    OutsideExtended { number: u32, extended: u32 },
    Overlap { one: Owner, other: Owner },
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Doubt::FromSector0 { number } => write!(f, "partition {number} begins at sector 0"),
            Doubt::NoKind { number } => write!(f, "partition {number} has a size, but type 0"),
            Doubt::OutsideExtended { number, extended } => write!(
                f,
                "logical partition {number} is not within extended partition {extended}"
            ),
            Doubt::Overlap { one, other } => write!(f, "{one} and {other} overlap"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    /// Entries as (kind, first sector, number of sectors), logical partitions as (first, number).
    fn mbr(entries: &[(u8, u64, u64)], logical: &[(u64, u64)]) -> PartitionTable {
        let partition = |number, kind, first_lba, sector_count| mbr::Partition {
            number,
            kind,
            first_lba,
            data_lba: first_lba,
            sector_count,
        };
        let entries = (1..).zip(entries);
        let entries =
            entries.map(|(number, &(kind, first, count))| partition(number, kind, first, count));
        let logical = (1..).zip(logical);
        let logical =
            logical.map(|(number, &(first, count))| (1, partition(number, 0x83, first, count)));
        PartitionTable::mbr(512, entries.collect(), logical.collect())
    }

    #[test]
    fn a_table_that_makes_no_sense_is_in_doubt() {
        let doubt = |entries: &[(u8, u64, u64)], logical: &[(u64, u64)]| {
            let doubt = mbr(entries, logical).doubt();
            doubt.map_or("none".into(), |doubt| doubt.to_string())
        };
        let good = [(0x83, 4096, 100), (0x0c, 2048, 2048)];
        assert_eq!(doubt(&good, &[]), "none");
        let cases = [
            (
                &[(0, 0, 8192), (0xef, 3000, 8)][..],
                "partition 1 begins at sector 0",
            ),
            (&[(0x83, 0, 8)], "partition 1 begins at sector 0"),
            (
                &[(0x83, 8, 8), (0, 64, 8192)],
                "partition 2 has a size, but type 0",
            ),
            (
                &[(0x83, 8, 8), (0x83, 15, 8)],
                "partition 1 and partition 2 overlap",
            ),
            (
                &[(0x83, 8, 1), (0x17, 4, 9)],
                "partition 2 and partition 1 overlap",
            ),
            (
                &[(0x83, 8, 8), (0x83, 8, 8)],
                "partition 1 and partition 2 overlap",
            ),
        ];
        for (entries, text) in cases {
            assert_eq!(doubt(entries, &[]), text);
        }
        let extended = [(0x05, 2048, 1000)];
        assert_eq!(doubt(&extended, &[(2048, 500), (2548, 500)]), "none");
        let outside = "logical partition 6 is not within extended partition 1";
        assert_eq!(doubt(&extended, &[(2048, 500), (2549, 500)]), outside);
        assert_eq!(doubt(&extended, &[(2048, 500), (2000, 500)]), outside);
    }

    /// A GPT of a disk of 16384 sectors with partitions in 2048..4096 and 4096..6144.
    fn hybrid(entries: &[(u8, u64, u64)]) -> PartitionTable {
        let primary = gpt::tests::primary(16_384, &[(1, 2048, 4095), (2, 4096, 6143)]);
        PartitionTable::gpt(512, primary, None, mbr(entries, &[]).entries)
    }

    #[test]
    fn a_gpt_does_not_grow_over_entries_of_its_hybrid_mbr() {
        let cases = [
            (&[][..], true),
            (&[(0, 0, 1), (0x83, 2048, 2048), (0x83, 4096, 2048)], true),
            (&[(0x83, 2048, 2000)], true),
            (&[(0x83, 8192, 2048)], false),
            (&[(0x83, 4096, 2049)], false),
            (&[(0x83, 5000, 8)], false),
            (&[(0, 0, 16_384)], false),
        ];
        for (entries, expected) in cases {
            assert_eq!(hybrid(entries).may_grow(), expected, "{entries:?}");
        }
    }

    #[test]
    fn a_backup_gpt_needs_room_behind_the_hybrid_mbr_as_well() {
        let needed = |entries: &[(u8, u64, u64)]| hybrid(entries).needed_bytes() / 512;
        assert_eq!(needed(&[]), 6144 + 33);
        assert_eq!(needed(&[(0x83, 8192, 2048)]), 10_240 + 33);
        assert_eq!(needed(&[(0, 0, 16_384)]), 16_384, "as on its own disk");
        let table = hybrid(&[(0x83, 2048, 2048), (0x83, 8192, 2048)]);
        assert_eq!(table.at_backup(10_240 + 33), None);
        let met = table.at_backup(10_240 + 32).unwrap();
        assert_eq!(met.owner.to_string(), "entry 2 of the hybrid MBR");
        assert_eq!(hybrid(&[(0, 0, 16_384)]).at_backup(16_384), None);
    }

    #[test]
    fn every_partition_counts_for_the_size_of_the_disk() {
        let table = mbr(&[(0x05, 2048, 1000), (0x83, 4096, 904)], &[(2048, 9000)]);
        assert_eq!(
            (table.needed_bytes(), table.backup_bytes()),
            (11_048 * 512, 0)
        );
        assert_eq!(table.beyond(11_048), None);
        let beyond = table.beyond(11_047).unwrap();
        assert_eq!(beyond.owner.to_string(), "partition 5");
        assert_eq!(beyond.end_lba, 11_048);
        assert_eq!(table.beyond(3000), Some(beyond));
        assert!(
            table
                .partitions()
                .any(|part| part == (2048 * 512..11_048 * 512))
        );
    }
}
