//! Which partition table is on a disk, and how does it get right on a disk of another size?
//!
//! `make` asks the first, to know what of a disk is used. The second is the very last act of `get`,
//! after the last upload: as long as anybody may ask for the piece that holds the table, it stays
//! as the torrent describes it. The bytes of the tables are the core's (`gpt`, `mbr`); here they
//! are read and written, with the loop waiting for them: a few sectors, when there is nothing else
//! to do.
//!
//! A table is no matter of trust: whatever has no right checksum or names impossible sectors is no
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

use crate::os::device::{Device, Kind};
use crate::os::sectors;

/// What is known of a disk from its table. LBAs count sectors of `sector_bytes`.
#[derive(Debug)]
pub struct Table {
    pub sector_bytes: u32,
    pub kind: TableKind,
}

#[derive(Debug)]
pub enum TableKind {
    /// The primary, and the backup that it names if that is one and the last on the disk.
    Gpt {
        primary: Gpt,
        backup: Option<Gpt>,
    },
    Mbr {
        partitions: Vec<mbr::Partition>,
    },
}

impl Table {
    /// Bytes that are used whatever they hold, in any order: the tables in front and every
    /// partition.
    pub fn used(&self) -> Vec<Range<u64>> {
        let bytes = |first: u64, end: u64| {
            first * u64::from(self.sector_bytes)..end * u64::from(self.sector_bytes)
        };
        let mut used = vec![bytes(0, PRIMARY_LBA + 1)];
        match &self.kind {
            TableKind::Gpt { primary, .. } => {
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
            TableKind::Mbr { partitions } => {
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
            TableKind::Gpt { primary, .. } => primary.partitions().count(),
            TableKind::Mbr { partitions } => partitions.len(),
        }
    }

    /// Where the backup GPT lies, which `fit` makes anew wherever the end is.
    pub fn backup(&self) -> Option<Range<u64>> {
        let TableKind::Gpt {
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

/// The least a disk must hold for this image: what it uses, and where it leaves out the end of its
/// disk, a backup GPT that may have to go there. The table itself is known only when its piece has
/// come, and a refusal has to come first.
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

/// The table of a disk of which all is known, or of an image that says nothing about sectors: there
/// a GPT is where its sector puts it, and an MBR counts in 512 bytes.
pub fn read(device: &Device) -> io::Result<Option<Table>> {
    let sizes = if device.is_block() {
        vec![device.sector_bytes]
    } else {
        vec![512, 1024, 2048, 4096]
    };
    for &sector_bytes in &sizes {
        let disk = Disk {
            device,
            sector_bytes,
            sectors: device.size_bytes / u64::from(sector_bytes),
        };
        if let Ok(primary) = disk.gpt(PRIMARY_LBA)?
            && primary
                .partitions()
                .all(|partition| partition.last_lba < disk.sectors)
        {
            let backup_lba = primary.header().alternate_lba();
            let backup = if backup_lba + 1 == disk.sectors {
                disk.gpt(backup_lba)?.ok()
            } else {
                None
            };
            return Ok(Some(Table {
                sector_bytes,
                kind: TableKind::Gpt { primary, backup },
            }));
        }
    }
    let disk = Disk {
        device,
        sector_bytes: sizes[0],
        sectors: device.size_bytes / u64::from(sizes[0]),
    };
    let partitions = mbr::partitions(&disk.read(0, 1)?, disk.sectors);
    Ok(partitions.map(|partitions| Table {
        sector_bytes: disk.sector_bytes,
        kind: TableKind::Mbr { partitions },
    }))
}

/// Fits the table of a target that holds the whole image to its size, and lets the kernel read it;
/// what was done, in a sentence, or `None` if nothing was to be done. An image without a table, or
/// with a broken one, is left alone.
pub fn fit(
    device: &Device,
    metainfo: &Metainfo,
    grow_last: bool,
) -> Result<Option<String>, TableError> {
    let done = match Disk::of_image(device, metainfo) {
        Some(disk) => disk.fit(&metainfo.extents, grow_last)?,
        None => Vec::new(),
    };
    let mut sentences = done;
    // Whatever was written is another table than the kernel knows. Not a failure: the disk is
    // right, and will be read when the machine boots from it.
    if device.is_block()
        && let Err(error) = sectors::reread_table(device)
    {
        sentences.push(format!(
            "the kernel did not read the new table of {}: {error}",
            device.path.display()
        ));
    }
    Ok((!sentences.is_empty()).then(|| sentences.join(", ")))
}

/// A disk in its sectors.
struct Disk<'a> {
    device: &'a Device,
    sector_bytes: u32,
    sectors: u64,
}

impl Disk<'_> {
    /// The target as the table on it has to see it; `None` if that cannot be known: a file that is
    /// no whole disk ends where the image ends, and sectors of another size cannot hold this table.
    fn of_image<'a>(device: &'a Device, metainfo: &Metainfo) -> Option<Disk<'a>> {
        let (size_bytes, sector_bytes) = match device.kind {
            Kind::Block { .. } => (
                device.size_bytes,
                metainfo.sector_bytes.unwrap_or(device.sector_bytes),
            ),
            Kind::Regular => (metainfo.disk_bytes?, metainfo.sector_bytes?),
        };
        let known = !device.is_block() || sector_bytes == device.sector_bytes;
        known.then(|| Disk {
            device,
            sector_bytes,
            sectors: size_bytes / u64::from(sector_bytes),
        })
    }

    fn fit(&self, extents: &ExtentMap, grow_last: bool) -> Result<Vec<String>, TableError> {
        let sector_bytes = u64::from(self.sector_bytes);
        // What the image does not bring is not the image's table.
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
    ) -> Result<Vec<String>, TableError> {
        let last_lba = self.sectors.saturating_sub(1);
        let backup = self
            .gpt(last_lba)
            .map_err(self.failed("read", last_lba))?
            .ok();
        let plan = gpt.fit(mbr, backup.as_ref(), self.sectors, grow_last);
        let plan = plan.map_err(|error| TableError::Gpt {
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

    /// The first sector to be written where the image itself brought what is no zeros: RAID
    /// controllers and the like keep their own description behind the disk that they show to
    /// others.
    fn something_else(
        &self,
        extents: &ExtentMap,
        backup: &Write,
    ) -> Result<Option<u64>, TableError> {
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

    fn grow_mbr(&self, mut mbr: Vec<u8>) -> Result<Vec<String>, TableError> {
        let grown_bytes = mbr::grow_last(&mut mbr, self.sectors, self.sector_bytes.into());
        if grown_bytes > 0 {
            self.write(&[Write { lba: 0, bytes: mbr }])?;
        }
        Ok(vec![grown(grown_bytes)])
    }

    /// Writes, flushes, and reads back: nothing is claimed that the disk does not say itself.
    fn write(&self, writes: &[Write]) -> Result<(), TableError> {
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
                return Err(TableError::NotKept { path, offset });
            }
        }
        Ok(())
    }

    /// The GPT whose header is at `lba`, or why there is none.
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

    fn failed(&self, action: &'static str, lba: u64) -> impl FnOnce(io::Error) -> TableError {
        let (path, offset) = (self.device.path.clone(), self.offset(lba));
        move |error| TableError::Io {
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

/// Why the table of a target, on which the whole image is, is not right.
#[derive(Debug)]
pub enum TableError {
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

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableError::Gpt { path, error } => {
                write!(
                    f,
                    "the partition table does not fit {}: {error}",
                    path.display()
                )
            }
            TableError::Io {
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
            TableError::NotKept { path, offset } => {
                write!(
                    f,
                    "{} did not keep the partition table written at byte {offset}",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for TableError {}

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
            "no disk that we have looked at"
        );
    }

    /// A file of 8 MiB with this at its beginning, and what is found on it.
    fn found(head: &[u8]) -> Option<Table> {
        let scratch = Scratch::new("table");
        let mut bytes = head.to_vec();
        bytes.resize(8 << 20, 0);
        std::fs::write(scratch.path(), bytes).unwrap();
        read(&Device::open_source(scratch.path()).unwrap()).unwrap()
    }

    #[test]
    fn nothing_and_nonsense_are_no_table() {
        assert!(found(&[]).is_none());
        assert!(found(&[0xff; 20_000]).is_none());
        let signatures: Vec<u8> = b"EFI PART".iter().copied().cycle().take(20_000).collect();
        assert!(found(&signatures).is_none());
    }

    #[test]
    fn an_mbr_is_one() {
        let mut mbr = vec![0; 512];
        // Type 83, sectors 2048 to 4095.
        mbr[450..462].copy_from_slice(&[0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0]);
        mbr[510..].copy_from_slice(&[0x55, 0xaa]);
        let table = found(&mbr).unwrap();
        assert_eq!((table.sector_bytes, table.partition_count()), (512, 1));
        assert_eq!(table.used(), [0..1024, MIB..2 * MIB]);
        assert!(table.backup().is_none());
    }

    /// What is no disk is never looked at for a table.
    #[test]
    fn a_file_of_no_known_disk_is_left_alone() {
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
