//! How is the partition table of an image fitted to the disk that it was written to?
//!
//! The backup GPT belongs at the end of the disk, wherever that is, and the last partition may
//! grow. That is the very last step of `get`, after the last upload: as long as a peer may ask for
//! the piece that holds the table, the table stays as the torrent describes it.
//!
//! A table that cannot be read, or that names sectors behind the end of the disk, is an error: a
//! target without a table is not done.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use swarm_proto::format::extents::ExtentMap;
use swarm_proto::format::gpt::{Around, Gpt, GptError, Header, PRIMARY_LBA, Plan, Write};
use swarm_proto::format::mbr::{self, Sector0};
use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::format::partitions::{Owned, PartitionTable, TableKind};
use swarm_proto::size::decimal;
use swarm_proto::units::DiskOffset;

use super::partition_table::{InSectors, Unreadable};
use super::sectors;
use crate::os::device::{Device, Kind};
use crate::os::sectors::reread_table;

/// Why `--grow-last` found nothing to do.
const AS_LARGE: &str = "the disk is as large as the image";

/// Fits the table of a target that holds the whole image to the size of the target, and lets the
/// kernel read it. Returns what was done, in a sentence, or `None` if there was nothing to do.
pub fn fit(
    device: &Device,
    metainfo: &Metainfo,
    grow_last: bool,
) -> Result<Option<String>, PartitionTableError> {
    let mut sentences = match InSectors::of_image(device, metainfo) {
        // Whoever made it insisted on these bytes.
        Some(_) if metainfo.table == Some(TableKind::Raw) => match grow_last {
            true => vec!["partition table left as it is: the torrent was made with --raw".into()],
            false => Vec::new(),
        },
        Some(target) => target.fit(&metainfo.extents, grow_last)?,
        None => Vec::new(),
    };
    // In a room of equal machines this is no failure, and nobody should look for one.
    if device.size_bytes == metainfo.disk_bytes.unwrap_or(0) {
        let nothing = sentences.iter_mut().find(|done| **done == grown(0));
        nothing.into_iter().for_each(|done| *done = AS_LARGE.into());
    }
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

impl<'a> InSectors<'a> {
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
    fn fit(
        &self,
        extents: &ExtentMap,
        grow_last: bool,
    ) -> Result<Vec<String>, PartitionTableError> {
        let read_failed = |lba| self.failed("read", lba);
        let sector_bytes = u64::from(self.sector_bytes);
        // Sectors that are not part of the image hold another table than the image's.
        let is_of_image = |lba, length| extents.cover(DiskOffset(self.offset(lba)), length);
        if !is_of_image(0, sector_bytes) {
            return Ok(Vec::new());
        }
        let mbr = self.read(0, 1).map_err(read_failed(0))?;
        let others = match mbr::read(&mbr) {
            Sector0::Nothing => {
                return Ok(if grow_last {
                    vec![grown(0)]
                } else {
                    Vec::new()
                });
            }
            Sector0::Mbr { partitions } => {
                let table = self.mbr(partitions).map_err(read_failed(0))?;
                self.check(&table)?;
                return self.grow_mbr(mbr, &table, grow_last);
            }
            Sector0::Gpt { others } => others,
        };
        if !is_of_image(PRIMARY_LBA, sector_bytes) {
            return Ok(Vec::new());
        }
        let primary = self.gpt(PRIMARY_LBA).map_err(read_failed(PRIMARY_LBA))?;
        let primary = match primary {
            Ok(primary) => primary,
            Err(error) => {
                let unreadable = self.unreadable(error).map_err(read_failed(PRIMARY_LBA))?;
                let path = self.device.path.clone();
                return Err(PartitionTableError::Unreadable { path, unreadable });
            }
        };
        let header = primary.header();
        if !is_of_image(header.entries_lba(), header.entries_bytes() as u64) {
            return Ok(Vec::new());
        }
        let table = self
            .of_gpt(primary.clone(), others)
            .map_err(read_failed(PRIMARY_LBA))?;
        self.check(&table)?;
        if let Some(owned) = table.at_backup(self.sectors) {
            return Err(PartitionTableError::AtBackup {
                path: self.device.path.clone(),
                owned,
                sectors: self.sectors,
            });
        }
        // A partition that lies over another one, or in front of one, is not made larger.
        let grow = grow_last && table.may_grow();
        let mut done = self.fit_gpt(extents, &primary, mbr, grow)?;
        if grow_last && !grow {
            done.push(grown(0));
        }
        Ok(done)
    }

    /// A partition that ends behind the disk cannot be used, whatever else is right.
    fn check(&self, table: &PartitionTable) -> Result<(), PartitionTableError> {
        match table.beyond(self.sectors) {
            Some(owned) => Err(PartitionTableError::Beyond {
                path: self.device.path.clone(),
                owned,
                sectors: self.sectors,
            }),
            None => Ok(()),
        }
    }

    fn fit_gpt(
        &self,
        extents: &ExtentMap,
        gpt: &Gpt,
        mbr: Vec<u8>,
        grow_last: bool,
    ) -> Result<Vec<String>, PartitionTableError> {
        let (last_lba, old_lba) = (self.sectors.saturating_sub(1), gpt.header().alternate_lba());
        let backup = self.gpt(last_lba).map_err(self.failed("read", last_lba))?;
        let old = self.header(old_lba).map_err(self.failed("read", old_lba))?;
        let own = own_backup(gpt, &old);
        let around = Around {
            mbr,
            backup: backup.ok(),
            old_backup: old.ok().filter(|_| old_lba != last_lba),
        };
        let plan = gpt.fit(&around, self.sectors, grow_last);
        let plan = plan.map_err(|error| PartitionTableError::Gpt {
            path: self.device.path.clone(),
            error,
        })?;
        if let Some(plan) = plan.as_ref().filter(|_| around.backup.is_none())
            && let Some(offset) = self.something_else(extents, &plan.backup, &own)?
        {
            return Ok(vec![format!(
                "partition table left as it is: the image has something else at byte {offset}, where a backup GPT belongs"
            )]);
        }
        let mut done = Vec::new();
        if let Some(Plan {
            backup,
            primary,
            stale,
            moved,
            ..
        }) = &plan
        {
            self.write(std::slice::from_ref(backup))?;
            self.write(primary)?;
            self.write(stale.as_slice())?;
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

    /// Where the first of the sectors to be written holds bytes of the image that are not zero, and
    /// that are not its `own` backup GPT. RAID controllers keep their own description behind the
    /// disk that they show to others.
    fn something_else(
        &self,
        extents: &ExtentMap,
        backup: &Write,
        own: &Range<u64>,
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
                sector.iter().any(|&byte| byte != 0) && !own.contains(lba) && is_of_image()
            });
        Ok(used.next().map(|(_, lba)| self.offset(lba)))
    }

    fn grow_mbr(
        &self,
        mut mbr: Vec<u8>,
        table: &PartitionTable,
        grow_last: bool,
    ) -> Result<Vec<String>, PartitionTableError> {
        if !grow_last {
            return Ok(Vec::new());
        }
        let grown_bytes = match table.may_grow() {
            false => 0,
            true => mbr::grow_last(&mut mbr, self.sectors, self.sector_bytes.into()),
        };
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
        let Some(first) = writes.first() else {
            return Ok(());
        };
        self.device
            .flush()
            .map_err(self.failed("flush", first.lba))?;
        for Write { lba, bytes } in writes {
            let found = sectors::read(self.device, self.offset(*lba), bytes.len() as u32);
            if found.map_err(self.failed("read", *lba))? != *bytes {
                let (path, offset) = (self.device.path.clone(), self.offset(*lba));
                return Err(PartitionTableError::NotKept { path, offset });
            }
        }
        Ok(())
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

/// The sectors of the backup GPT that the primary names, `header` being what lies there.
fn own_backup(primary: &Gpt, header: &Result<Header, GptError>) -> Range<u64> {
    let lba = primary.header().alternate_lba();
    match header {
        Ok(header) => header.entries_lba()..lba + 1,
        Err(GptError::Absent) => lba..lba,
        Err(_) => lba.saturating_sub(primary.header().entry_sectors())..lba + 1,
    }
}

/// Why the table of a target is wrong although the whole image is on it.
#[derive(Debug)]
pub enum PartitionTableError {
    AtBackup {
        path: PathBuf,
        owned: Owned,
        sectors: u64,
    },
    Beyond {
        path: PathBuf,
        owned: Owned,
        sectors: u64,
    },
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
    Unreadable {
        path: PathBuf,
        unreadable: Unreadable,
    },
}

impl fmt::Display for PartitionTableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use PartitionTableError::*;
        match self {
            AtBackup {
                path,
                owned,
                sectors,
            } => write!(
                f,
                "the partition table does not fit {}: {} ends at sector {}, where the backup GPT of a disk with {sectors} belongs",
                path.display(),
                owned.owner,
                owned.end_lba - 1
            ),
            Beyond {
                path,
                owned,
                sectors,
            } => write!(
                f,
                "the partition table does not fit {}: {} ends at sector {}, the disk has {sectors}",
                path.display(),
                owned.owner,
                owned.end_lba - 1
            ),
            Gpt { path, error } => {
                let path = path.display();
                write!(f, "the partition table does not fit {path}: {error}")
            }
            Io {
                action,
                path,
                offset,
                error,
            } => write!(
                f,
                "cannot {action} the partition table of {} at byte {offset}: {error}",
                path.display()
            ),
            NotKept { path, offset } => write!(
                f,
                "{} did not keep the partition table written at byte {offset}",
                path.display()
            ),
            Unreadable { path, unreadable } => {
                let path = path.display();
                write!(
                    f,
                    "{path} holds what the torrent describes, but no partition table that can be read: {unreadable}"
                )?;
                match unreadable.backup_is_good {
                    true => write!(f, "; 'sgdisk -e {path}' rebuilds it from the backup"),
                    false => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for PartitionTableError {}

#[cfg(test)]
mod tests {
    use super::super::partition_table::tests::metainfo;
    use super::*;
    use crate::os::device::TargetOptions;
    use crate::os::testing::Scratch;

    const MIB: u64 = 1 << 20;

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
            Some(AS_LARGE)
        );
    }
}
