//! Which partition table is on a disk?
//!
//! `make` asks, to know which bytes of a disk are used; `table_fit` goes on from here. The core
//! knows the bytes of the tables (`mbr`, `gpt`) and decides from sector 0 which of them counts;
//! `partitions` says what they own. They are read here, with the loop waiting for them: a few
//! sectors, when there is nothing else to do.
//!
//! A table is not trusted: one whose checksum is wrong, or that names sectors behind the end of its
//! disk, is an error.

use std::fmt;
use std::io;

use swarm_proto::format::gpt::{Gpt, GptError, Header, PRIMARY_LBA};
use swarm_proto::format::mbr::{self, Sector0};
use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::format::partitions::{Owned, PartitionTable};

use super::sectors;
use crate::os::device::Device;

/// The least a disk must hold for this image. Our torrents record it. Of another one it is what the
/// image uses, and a backup GPT if the image leaves out the end of its disk: whether there is a GPT
/// is known only when its piece has been fetched, and a refusal must come before that.
pub fn bytes_needed(metainfo: &Metainfo) -> u64 {
    /// 128 entries of 128 bytes, as every tool makes them.
    const ENTRIES_BYTES: u64 = 16 << 10;
    let used_bytes = metainfo.extents.disk_end().0;
    let backup_bytes = metainfo
        .sector_bytes
        .map_or(0, |sector_bytes| ENTRIES_BYTES + u64::from(sector_bytes));
    let left_out = metainfo
        .disk_bytes
        .map_or(0, |disk_bytes| disk_bytes.saturating_sub(used_bytes));
    metainfo
        .needed_bytes
        .unwrap_or(used_bytes + left_out.min(backup_bytes))
}

/// The table of a device, if one counts. A block device says how large its sectors are. An image
/// file does not: there a GPT tells by its place, and an MBR counts sectors of 512 bytes.
pub fn read(device: &Device) -> Result<Option<PartitionTable>, ReadTableError> {
    let sizes = match device.is_block() {
        true => vec![device.sector_bytes],
        false => vec![512, 1024, 2048, 4096],
    };
    let ways: Vec<InSectors> = sizes
        .iter()
        .map(|&sector_bytes| InSectors::new(device, device.size_bytes, sector_bytes))
        .collect();
    let found = match mbr::read(&ways[0].read(0, 1)?) {
        Sector0::Nothing => return Ok(None),
        Sector0::Mbr { partitions } => ways[0].mbr(partitions)?,
        Sector0::Gpt { others } => gpt_in_any(&ways, &others)?,
    };
    let sectors = device.size_bytes / u64::from(found.sector_bytes);
    match found.beyond(sectors) {
        Some(owned) => Err(ReadTableError::Beyond {
            owned,
            sector_bytes: found.sector_bytes,
            size_bytes: device.size_bytes,
        }),
        None => Ok(Some(found)),
    }
}

/// The GPT that is there in sectors of one of these sizes: better one whose backup is at the end of
/// the disk, for a GPT in smaller sectors may be left from earlier. Without any, the error is about
/// the size for which there is more than nothing.
fn gpt_in_any(
    ways: &[InSectors],
    others: &[mbr::Partition],
) -> Result<PartitionTable, ReadTableError> {
    let mut found: Option<PartitionTable> = None;
    let mut unreadable: Option<Unreadable> = None;
    for way in ways {
        match way.gpt(PRIMARY_LBA)? {
            Ok(primary) => {
                let table = way.of_gpt(primary, others.to_vec())?;
                if found.is_none() || table.backup().is_some() {
                    found = Some(table);
                }
            }
            Err(error) => {
                let this = way.unreadable(error)?;
                if unreadable.is_none() || this.backup_is_good || error != GptError::Absent {
                    unreadable = Some(this);
                }
            }
        }
        if found.as_ref().is_some_and(|table| table.backup().is_some()) {
            break;
        }
    }
    match (found, unreadable) {
        (Some(table), _) => Ok(table),
        (None, unreadable) => Err(ReadTableError::Unreadable(
            unreadable.expect("there is a first size"),
        )),
    }
}

/// As many links of a chain as the kernel follows (`parse_extended` in msdos.c); it may be a ring.
const LINKS_MAX: usize = 100;

/// A device as its partition table counts it.
pub(super) struct InSectors<'a> {
    pub(super) device: &'a Device,
    pub(super) sector_bytes: u32,
    pub(super) sectors: u64,
}

impl<'a> InSectors<'a> {
    pub(super) fn new(device: &'a Device, size_bytes: u64, sector_bytes: u32) -> InSectors<'a> {
        InSectors {
            device,
            sector_bytes,
            sectors: size_bytes / u64::from(sector_bytes),
        }
    }
}

impl InSectors<'_> {
    pub(super) fn of_gpt(
        &self,
        primary: Gpt,
        others: Vec<mbr::Partition>,
    ) -> io::Result<PartitionTable> {
        let backup_lba = primary.header().alternate_lba();
        let backup = match backup_lba + 1 == self.sectors {
            true => self.gpt(backup_lba)?.ok(),
            false => None,
        };
        Ok(PartitionTable::gpt(
            self.sector_bytes,
            primary,
            backup,
            others,
        ))
    }

    /// The MBR with these entries, and the logical partitions of the extended ones.
    pub(super) fn mbr(&self, mut partitions: Vec<mbr::Partition>) -> io::Result<PartitionTable> {
        let mut logical: Vec<(u32, mbr::Partition)> = Vec::new();
        for extended in partitions.iter_mut().filter(|entry| entry.is_extended()) {
            let mut next_lba = Some(extended.first_lba);
            for _ in 0..LINKS_MAX {
                let Some(lba) = next_lba else { break };
                let Some(link) = mbr::read_link(&self.read(lba, 1)?, lba, extended) else {
                    break;
                };
                let partitions = link.partitions.into_iter();
                logical.extend(partitions.map(|partition| (extended.number, partition)));
                next_lba = link.next_lba;
            }
            let is_inside = |(_, one): &(u32, mbr::Partition)| one.end_lba() <= self.sectors;
            if next_lba.is_none() && logical.iter().all(is_inside) {
                extended.end_on(self.sectors);
            }
        }
        Ok(PartitionTable::mbr(self.sector_bytes, partitions, logical))
    }

    pub(super) fn unreadable(&self, error: GptError) -> io::Result<Unreadable> {
        let last_lba = self.sectors.saturating_sub(1);
        Ok(Unreadable {
            sector_bytes: self.sector_bytes,
            error,
            backup_is_good: last_lba > PRIMARY_LBA && self.gpt(last_lba)?.is_ok(),
        })
    }

    /// The GPT whose header is in sector `lba`, or why there is none.
    pub(super) fn gpt(&self, lba: u64) -> io::Result<Result<Gpt, GptError>> {
        let header = match self.header(lba)? {
            Ok(header) => header,
            Err(error) => return Ok(Err(error)),
        };
        let mut entries = self.read(header.entries_lba(), header.entry_sectors() as u32)?;
        entries.truncate(header.entries_bytes());
        Ok(Gpt::new(header, entries))
    }

    pub(super) fn header(&self, lba: u64) -> io::Result<Result<Header, GptError>> {
        Ok(Header::parse(&self.read(lba, 1)?, lba))
    }

    pub(super) fn read(&self, lba: u64, count: u32) -> io::Result<Vec<u8>> {
        sectors::read(self.device, self.offset(lba), count * self.sector_bytes)
    }

    pub(super) fn offset(&self, lba: u64) -> u64 {
        lba * u64::from(self.sector_bytes)
    }
}

/// Sector 0 says that there is a GPT, but the primary cannot be read. The kernel does not look for
/// the backup then, unless it is told to (`gpt` on its command line).
#[derive(Clone, Copy, Debug)]
pub struct Unreadable {
    pub sector_bytes: u32,
    pub error: GptError,
    pub backup_is_good: bool,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sector 0 says GPT, but {}", self.error)
    }
}

/// Why the table of a device is not known.
#[derive(Debug)]
pub enum ReadTableError {
    Beyond {
        owned: Owned,
        sector_bytes: u32,
        size_bytes: u64,
    },
    Io(io::Error),
    Unreadable(Unreadable),
}

impl From<io::Error> for ReadTableError {
    fn from(error: io::Error) -> ReadTableError {
        ReadTableError::Io(error)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::os::testing::Scratch;
    use swarm_proto::format::metainfo_write::{Content, Description, write};
    use swarm_proto::units::{DiskOffset, PieceHash};

    const MIB: u64 = 1 << 20;

    pub(in super::super) fn metainfo(
        length: u64,
        disk_bytes: Option<u64>,
        sector_bytes: Option<u32>,
    ) -> Metainfo {
        with_needed(length, disk_bytes, sector_bytes, None)
    }

    fn with_needed(
        length: u64,
        disk_bytes: Option<u64>,
        sector_bytes: Option<u32>,
        needed_bytes: Option<u64>,
    ) -> Metainfo {
        let torrent = write(&Description {
            name: "disk",
            trackers: &[],
            webseeds: &[],
            created_by: "test",
            private: false,
            piece_bytes: 1 << 20,
            hashes: &vec![PieceHash([0; 20]); length.div_ceil(MIB) as usize],
            content: Content::Fsbt {
                files: &[(DiskOffset(0), length)],
            },
            disk_bytes,
            sector_bytes,
            needed_bytes,
            table: None,
        });
        Metainfo::parse(&torrent).unwrap()
    }

    #[test]
    fn room_for_the_backup_gpt_is_needed_where_the_image_leaves_it_out() {
        let needed =
            |disk_bytes, sector_bytes| bytes_needed(&metainfo(MIB, disk_bytes, sector_bytes));
        assert_eq!(needed(None, None), MIB);
        assert_eq!(
            needed(Some(MIB), Some(512)),
            MIB,
            "the whole disk, byte for byte"
        );
        assert_eq!(needed(Some(8 * MIB), Some(512)), MIB + 33 * 512);
        assert_eq!(needed(Some(8 * MIB), Some(4096)), MIB + 5 * 4096);
        assert_eq!(needed(Some(MIB + 4096), Some(512)), MIB + 4096);
        assert_eq!(
            needed(Some(8 * MIB), None),
            MIB,
            "the image is not of a disk whose sectors are known"
        );
        let recorded = with_needed(MIB, Some(8 * MIB), Some(512), Some(5 * MIB));
        assert_eq!(bytes_needed(&recorded), 5 * MIB);
    }

    /// A file of 8 MiB with this at its beginning, and what is found on it.
    fn found(head: &[u8]) -> Option<PartitionTable> {
        let scratch = Scratch::new("table");
        let mut bytes = head.to_vec();
        bytes.resize(8 << 20, 0);
        std::fs::write(scratch.path(), bytes).unwrap();
        read(&Device::open_source(scratch.path()).unwrap()).unwrap()
    }

    #[test]
    fn zeros_and_nonsense_are_no_table() {
        assert!(found(&[]).is_none());
        assert!(found(&[0xff; 20_000]).is_none());
        let signatures: Vec<u8> = b"EFI PART".iter().copied().cycle().take(20_000).collect();
        assert!(found(&signatures).is_none());
    }

    /// Old tools round an extended partition up to whole cylinders. What is in it is not cut short.
    #[test]
    fn an_extended_partition_may_end_behind_the_disk() {
        let mut bytes = vec![0; 3 << 20];
        // From 1 MiB on, 8 MiB long: it ends 1 MiB behind the disk.
        bytes[450..462].copy_from_slice(&[0x05, 0, 0, 0, 0, 8, 0, 0, 0, 64, 0, 0]);
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        let link = MIB as usize;
        bytes[link + 450..link + 462].copy_from_slice(&[0x83, 0, 0, 0, 63, 0, 0, 0, 0, 8, 0, 0]);
        bytes[link + 510..link + 512].copy_from_slice(&[0x55, 0xaa]);
        let scratch = Scratch::new("extended");
        let table = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes.resize(8 << 20, 0);
            std::fs::write(scratch.path(), bytes).unwrap();
            read(&Device::open_source(scratch.path()).unwrap())
        };
        let found = table(&bytes).unwrap().unwrap();
        assert_eq!((found.needed_bytes(), found.doubt()), (8 * MIB, None));
        // A chain that leads behind the end has partitions there.
        bytes[link + 466..link + 478].copy_from_slice(&[5, 0, 0, 0, 0, 60, 0, 0, 0, 4, 0, 0]);
        let beyond = table(&bytes).unwrap_err();
        assert!(
            matches!(beyond, ReadTableError::Beyond { .. }),
            "{beyond:?}"
        );
        bytes[link + 466..link + 482].fill(0);
        // A logical partition that ends there is cut short.
        bytes[link + 459] = 60;
        let beyond = table(&bytes).unwrap_err();
        assert!(
            matches!(beyond, ReadTableError::Beyond { .. }),
            "{beyond:?}"
        );
    }

    #[test]
    fn an_mbr_is_found_as_partition_table() {
        let mut mbr = vec![0; 512];
        // Type 83, sectors 2048 to 4095.
        mbr[450..462].copy_from_slice(&[0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0]);
        mbr[510..].copy_from_slice(&[0x55, 0xaa]);
        let table = found(&mbr).unwrap();
        assert_eq!((table.sector_bytes, table.partition_count()), (512, 1));
        assert_eq!(table.tables(), [0..1024]);
        assert_eq!(table.partitions().collect::<Vec<_>>(), [MIB..2 * MIB]);
        assert!(table.backup().is_none());
    }
}
