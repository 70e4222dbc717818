//! Which partition table is on a disk, and how is it fitted to a disk of another size?
//!
//! `make` asks the first question, to know which bytes of a disk are used. `get` fits the table as
//! its very last step, after the last upload: as long as a peer may ask for the piece that holds
//! the table, the table stays as the torrent describes it. The core knows the bytes of the tables
//! (`gpt`, `mbr`). They are read and written here, with the loop waiting for them: a few sectors,
//! when there is nothing else to do.
//!
//! A table is not trusted: one whose checksum is wrong, or that names impossible sectors, is no
//! table.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use swarm_proto::format::extents::ExtentMap;
use swarm_proto::format::gpt::{Gpt, GptError, Header, PRIMARY_LBA, Plan, Write};
use swarm_proto::format::mbr;
use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::size::decimal;
use swarm_proto::units::DiskOffset;

use super::sectors;
use crate::os::device::{Device, Kind};
use crate::os::sectors::reread_table;

/// What a disk's partition table says. LBAs count sectors of `sector_bytes`.
#[derive(Debug)]
pub struct PartitionTable {
    pub sector_bytes: u32,
    pub kind: PartitionTableKind,
}

#[derive(Debug)]
pub enum PartitionTableKind {
    /// The primary, and the backup that it names, if that is a GPT and in the last sector.
    Gpt {
        primary: Gpt,
        backup: Option<Gpt>,
    },
    Mbr {
        partitions: Vec<mbr::Partition>,
    },
}

impl PartitionTable {
    /// Bytes that are used even if they are zero, in any order: the tables in front and every
    /// partition.
    pub fn used(&self) -> Vec<Range<u64>> {
        let bytes = |first: u64, end: u64| {
            first * u64::from(self.sector_bytes)..end * u64::from(self.sector_bytes)
        };
        let mut used = vec![bytes(0, PRIMARY_LBA + 1)];
        match &self.kind {
            PartitionTableKind::Gpt { primary, .. } => {
                let (first, count) = (
                    primary.header().entries_lba(),
                    primary.header().entry_sectors(),
                );
                used.push(bytes(first, first + count));
                used.extend(
                    primary
                        .partitions()
                        .map(|found| bytes(found.first_lba, found.last_lba + 1)),
                );
            }
            PartitionTableKind::Mbr { partitions } => {
                let end = |found: &mbr::Partition| found.first_lba + found.sector_count;
                used.extend(
                    partitions
                        .iter()
                        .map(|found| bytes(found.first_lba, end(found))),
                );
            }
        }
        used
    }

    pub fn partition_count(&self) -> usize {
        match &self.kind {
            PartitionTableKind::Gpt { primary, .. } => primary.partitions().count(),
            PartitionTableKind::Mbr { partitions } => partitions.len(),
        }
    }

    /// Where the backup GPT lies. `fit` writes another one to the end of the target.
    pub fn backup(&self) -> Option<Range<u64>> {
        let PartitionTableKind::Gpt {
            primary,
            backup: Some(backup),
        } = &self.kind
        else {
            return None;
        };
        let (entries, header) = (
            backup.header().entries_lba(),
            primary.header().alternate_lba(),
        );
        let behind = primary
            .partitions()
            .all(|partition| partition.last_lba < entries);
        let together = entries + backup.header().entry_sectors() == header;
        let sector_bytes = u64::from(self.sector_bytes);
        (behind && together).then(|| entries * sector_bytes..(header + 1) * sector_bytes)
    }
}

/// The least a disk must hold for this image: what the image uses, and a backup GPT if the image
/// leaves out the end of its disk. Whether there is a GPT is known only when its piece has been
/// fetched, and a refusal must come before that.
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
    used_bytes + left_out.min(backup_bytes)
}

/// The table of a device, if it has one. A block device says how large its sectors are. An image
/// file does not: there a GPT tells by its place, and an MBR counts sectors of 512 bytes.
pub fn read(device: &Device) -> io::Result<Option<PartitionTable>> {
    let sizes = if device.is_block() {
        vec![device.sector_bytes]
    } else {
        vec![512, 1024, 2048, 4096]
    };
    for &sector_bytes in &sizes {
        if let Some(table) = InSectors::new(device, device.size_bytes, sector_bytes).read_gpt()? {
            return Ok(Some(table));
        }
    }
    InSectors::new(device, device.size_bytes, sizes[0]).read_mbr()
}

/// Fits the table of a target that holds the whole image to the size of the target, and lets the
/// kernel read it. Returns what was done, in a sentence, or `None` if there was nothing to do. An
/// image without a table, or with a broken one, is left alone.
pub fn fit(
    device: &Device,
    metainfo: &Metainfo,
    grow_last: bool,
) -> Result<Option<String>, PartitionTableError> {
    let mut sentences = match InSectors::of_image(device, metainfo) {
        Some(target) => target.fit(&metainfo.extents, grow_last)?,
        None => Vec::new(),
    };
    // The kernel still knows the table that was there before. If it does not read the new one, that
    // is no failure: the disk is right, and is read when the machine boots from it.
    if device.is_block()
        && let Err(error) = reread_table(device)
    {
        sentences.push(format!(
            "the kernel did not read the new table of {}: {error}",
            device.path.display()
        ));
    }
    Ok((!sentences.is_empty()).then(|| sentences.join(", ")))
}

/// A device as its partition table counts it.
struct InSectors<'a> {
    device: &'a Device,
    sector_bytes: u32,
    sectors: u64,
}

impl<'a> InSectors<'a> {
    fn new(device: &'a Device, size_bytes: u64, sector_bytes: u32) -> InSectors<'a> {
        InSectors {
            device,
            sector_bytes,
            sectors: size_bytes / u64::from(sector_bytes),
        }
    }

    /// The target as the table of the image must see it; `None` if that is not known. A file that
    /// is not a whole disk ends where the image ends, and a disk with sectors of another size
    /// cannot hold this table.
    fn of_image(device: &'a Device, metainfo: &Metainfo) -> Option<InSectors<'a>> {
        let (size_bytes, sector_bytes) = match device.kind {
            Kind::Block { .. } => (
                device.size_bytes,
                metainfo.sector_bytes.unwrap_or(device.sector_bytes),
            ),
            Kind::Regular => (metainfo.disk_bytes?, metainfo.sector_bytes?),
        };
        let is_known = !device.is_block() || sector_bytes == device.sector_bytes;
        is_known.then(|| InSectors::new(device, size_bytes, sector_bytes))
    }
}

impl InSectors<'_> {
    fn read_gpt(&self) -> io::Result<Option<PartitionTable>> {
        let Ok(primary) = self.gpt(PRIMARY_LBA)? else {
            return Ok(None);
        };
        let mut partitions = primary.partitions();
        if partitions.any(|partition| partition.last_lba >= self.sectors) {
            return Ok(None);
        }
        drop(partitions);
        let backup_lba = primary.header().alternate_lba();
        let backup = if backup_lba + 1 == self.sectors {
            self.gpt(backup_lba)?.ok()
        } else {
            None
        };
        Ok(Some(PartitionTable {
            sector_bytes: self.sector_bytes,
            kind: PartitionTableKind::Gpt { primary, backup },
        }))
    }

    fn read_mbr(&self) -> io::Result<Option<PartitionTable>> {
        let partitions = mbr::partitions(&self.read(0, 1)?, self.sectors);
        Ok(partitions.map(|partitions| PartitionTable {
            sector_bytes: self.sector_bytes,
            kind: PartitionTableKind::Mbr { partitions },
        }))
    }

    fn fit(
        &self,
        extents: &ExtentMap,
        grow_last: bool,
    ) -> Result<Vec<String>, PartitionTableError> {
        let sector_bytes = u64::from(self.sector_bytes);
        // Sectors that are not part of the image hold another table than the image's.
        if !extents.cover(DiskOffset(0), 2 * sector_bytes) {
            return Ok(Vec::new());
        }
        let entries = |gpt: &Gpt| DiskOffset(self.offset(gpt.header().entries_lba()));
        let mbr = self.read(0, 1).map_err(self.failed("read", 0))?;
        let gpt = self
            .gpt(PRIMARY_LBA)
            .map_err(self.failed("read", PRIMARY_LBA))?;
        match gpt {
            Ok(gpt) if extents.cover(entries(&gpt), gpt.header().entries_bytes() as u64) => {
                self.fit_gpt(extents, &gpt, &mbr, grow_last)
            }
            Err(GptError::Absent) if grow_last => self.grow_mbr(mbr),
            Ok(_) | Err(GptError::Absent) => Ok(Vec::new()),
            Err(error) => Ok(vec![format!("partition table left as it is: {error}")]),
        }
    }

    fn fit_gpt(
        &self,
        extents: &ExtentMap,
        gpt: &Gpt,
        mbr: &[u8],
        grow_last: bool,
    ) -> Result<Vec<String>, PartitionTableError> {
        let last_lba = self.sectors.saturating_sub(1);
        let backup = self
            .gpt(last_lba)
            .map_err(self.failed("read", last_lba))?
            .ok();
        let plan = gpt.fit(mbr, backup.as_ref(), self.sectors, grow_last);
        let plan = plan.map_err(|error| PartitionTableError::Gpt {
            path: self.device.path.clone(),
            error,
        })?;
        if let Some(plan) = plan.as_ref().filter(|_| backup.is_none())
            && let Some(offset) = self.something_else(extents, &plan.backup)?
        {
            return Ok(vec![format!(
                "partition table left as it is: the image has something else at byte {offset}, where a backup GPT belongs"
            )]);
        }
        let mut done = Vec::new();
        if let Some(Plan {
            backup,
            primary,
            moved,
            ..
        }) = &plan
        {
            self.write(std::slice::from_ref(backup))?;
            self.write(primary)?;
            done.push(match moved {
                true => "backup GPT moved to the end".to_string(),
                false => "backup GPT written".to_string(),
            });
        }
        if grow_last {
            done.push(grown(plan.map_or(0, |plan| plan.grown_bytes)));
        }
        Ok(done)
    }

    /// Where the first of the sectors to be written holds bytes of the image that are not zero.
    /// RAID controllers keep their own description behind the disk that they show to others.
    fn something_else(
        &self,
        extents: &ExtentMap,
        backup: &Write,
    ) -> Result<Option<u64>, PartitionTableError> {
        let sector_bytes = self.sector_bytes as usize;
        let found = self.read(backup.lba, (backup.bytes.len() / sector_bytes) as u32);
        let found = found.map_err(self.failed("read", backup.lba))?;
        let mut used = found
            .chunks(sector_bytes)
            .zip(backup.lba..)
            .filter(|(sector, lba)| {
                let is_of_image =
                    || extents.cover(DiskOffset(self.offset(*lba)), sector_bytes as u64);
                sector.iter().any(|&byte| byte != 0) && is_of_image()
            });
        Ok(used.next().map(|(_, lba)| self.offset(lba)))
    }

    fn grow_mbr(&self, mut mbr: Vec<u8>) -> Result<Vec<String>, PartitionTableError> {
        let grown_bytes = mbr::grow_last(&mut mbr, self.sectors, self.sector_bytes.into());
        if grown_bytes > 0 {
            self.write(&[Write { lba: 0, bytes: mbr }])?;
        }
        Ok(vec![grown(grown_bytes)])
    }

    /// Writes, flushes, and reads back: only what can be read is on the disk.
    fn write(&self, writes: &[Write]) -> Result<(), PartitionTableError> {
        for Write { lba, bytes } in writes {
            sectors::write(self.device, self.offset(*lba), bytes)
                .map_err(self.failed("write", *lba))?;
        }
        self.device
            .flush()
            .map_err(self.failed("flush", writes[0].lba))?;
        for Write { lba, bytes } in writes {
            let found = sectors::read(self.device, self.offset(*lba), bytes.len() as u32);
            if found.map_err(self.failed("read", *lba))? != *bytes {
                let (path, offset) = (self.device.path.clone(), self.offset(*lba));
                return Err(PartitionTableError::NotKept { path, offset });
            }
        }
        Ok(())
    }

    /// The GPT whose header is in sector `lba`, or why there is none.
    fn gpt(&self, lba: u64) -> io::Result<Result<Gpt, GptError>> {
        let header = match Header::parse(&self.read(lba, 1)?, lba) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error)),
        };
        let mut entries = self.read(header.entries_lba(), header.entry_sectors() as u32)?;
        entries.truncate(header.entries_bytes());
        Ok(Gpt::new(header, entries))
    }

    fn read(&self, lba: u64, count: u32) -> io::Result<Vec<u8>> {
        sectors::read(self.device, self.offset(lba), count * self.sector_bytes)
    }

    fn offset(&self, lba: u64) -> u64 {
        lba * u64::from(self.sector_bytes)
    }

    fn failed(
        &self,
        action: &'static str,
        lba: u64,
    ) -> impl FnOnce(io::Error) -> PartitionTableError {
        let (path, offset) = (self.device.path.clone(), self.offset(lba));
        move |error| PartitionTableError::Io {
            action,
            path,
            offset,
            error,
        }
    }
}

fn grown(bytes: u64) -> String {
    match bytes {
        0 => "no partition could grow".into(),
        bytes => format!("last partition grown by {}", decimal(bytes)),
    }
}

/// Why the table of a target is wrong although the whole image is on it.
#[derive(Debug)]
pub enum PartitionTableError {
    Gpt {
        path: PathBuf,
        error: GptError,
    },
    Io {
        action: &'static str,
        path: PathBuf,
        offset: u64,
        error: io::Error,
    },
    NotKept {
        path: PathBuf,
        offset: u64,
    },
}

impl fmt::Display for PartitionTableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PartitionTableError::Gpt { path, error } => {
                write!(
                    f,
                    "the partition table does not fit {}: {error}",
                    path.display()
                )
            }
            PartitionTableError::Io {
                action,
                path,
                offset,
                error,
            } => {
                write!(
                    f,
                    "cannot {action} the partition table of {} at byte {offset}: {error}",
                    path.display()
                )
            }
            PartitionTableError::NotKept { path, offset } => {
                write!(
                    f,
                    "{} did not keep the partition table written at byte {offset}",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for PartitionTableError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::device::TargetOptions;
    use crate::os::testing::Scratch;
    use swarm_proto::format::metainfo_write::{Content, Description, write};
    use swarm_proto::units::PieceHash;

    const MIB: u64 = 1 << 20;

    fn metainfo(length: u64, disk_bytes: Option<u64>, sector_bytes: Option<u32>) -> Metainfo {
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

    #[test]
    fn an_mbr_is_found_as_partition_table() {
        let mut mbr = vec![0; 512];
        // Type 83, sectors 2048 to 4095.
        mbr[450..462].copy_from_slice(&[0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0]);
        mbr[510..].copy_from_slice(&[0x55, 0xaa]);
        let table = found(&mbr).unwrap();
        assert_eq!((table.sector_bytes, table.partition_count()), (512, 1));
        assert_eq!(table.used(), [0..1024, MIB..2 * MIB]);
        assert!(table.backup().is_none());
    }

    /// No table is looked for in a file that is not known to be a whole disk.
    #[test]
    fn no_table_is_sought_in_a_file_that_may_not_be_a_disk() {
        let scratch = Scratch::new("fit");
        let device = Device::open_target(scratch.path(), MIB, TargetOptions::default()).unwrap();
        for (disk_bytes, sector_bytes) in [(None, None), (Some(MIB), None), (None, Some(512))] {
            let metainfo = metainfo(MIB, disk_bytes, sector_bytes);
            assert_eq!(fit(&device, &metainfo, true).unwrap(), None);
        }
        let of_a_disk = metainfo(MIB, Some(MIB), Some(512));
        assert_eq!(
            fit(&device, &of_a_disk, false).unwrap(),
            None,
            "there is no table"
        );
        assert_eq!(
            fit(&device, &of_a_disk, true).unwrap().as_deref(),
            Some("no partition could grow")
        );
    }
}
