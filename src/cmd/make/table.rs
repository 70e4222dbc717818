//! Which partition table does a source have, and can a torrent be made of it?
//!
//! A target with a table that cannot be read, or that names sectors that nobody sends, would be
//! "done" and of no use. So such a source is refused here, with the command that helps.

use std::io;
use std::ops::Range;

use swarm_proto::format::mbr;
use swarm_proto::format::partitions::{Kind, PartitionTable};

use crate::cmd::Failure;
use crate::os::device::Device;
use crate::os::tty;
use crate::storage::partition_table::{self, ReadTableError, Unreadable};
use crate::storage::sectors;

const INSIST: &str = "--raw takes the bytes as they are";

/// The table, and whether all bytes are taken because it is in doubt and counts as none.
pub(super) fn of_source(device: &Device) -> Result<(Option<PartitionTable>, bool), Failure> {
    let table = partition_table::read(device).map_err(|error| match error {
        ReadTableError::Io(error) => super::cannot_read(device, error),
        ReadTableError::Unreadable(unreadable) => damaged(device, &unreadable),
        ReadTableError::Beyond {
            owned,
            sector_bytes,
            size_bytes,
        } => {
            let path = device.path.display();
            let end = owned.end_lba * u64::from(sector_bytes);
            let way_out = match device.is_block() {
                true => String::new(),
                false => format!(" or 'truncate -s {end} {path}' if only zeros are missing,"),
            };
            Failure::Because(format!(
                "source {path} has {size_bytes} bytes, its {} ends at byte {end}: it is cut short; copy it again,{way_out} or insist: {INSIST}",
                owned.owner
            ))
        }
    })?;
    match table {
        Some(table) if table.needed_bytes() > device.size_bytes.saturating_add(SPARE_BYTES) => {
            Err(Failure::Because(format!(
                "source {} has {} bytes, its GPT is for a disk of at least {}: it is damaged; {INSIST}",
                device.path.display(),
                device.size_bytes,
                table.needed_bytes()
            )))
        }
        table => {
            let doubt = doubt(device, table.as_ref());
            let doubt = doubt.map_err(|error| super::cannot_read(device, error))?;
            let Some(doubt) = doubt else {
                return Ok((table, false));
            };
            tty::complain(&format!("source {}: {doubt}", device.path.display()));
            Ok((None, true))
        }
    }
}

/// Why no table counts, although sector 0 has one.
fn doubt(device: &Device, table: Option<&PartitionTable>) -> io::Result<Option<String>> {
    let path = device.path.display();
    Ok(match table {
        Some(table) if may_count_4096(device, table)? => Some(format!(
            "its MBR may count sectors of 4096 bytes, so all bytes are taken; a loop device over it says which: 'losetup -f --show -b 512 {path}'"
        )),
        Some(_) => None,
        None => mbr::misplaced_protective(&sectors::read(device, 0, 512)?).map(|number| format!(
            "entry {number} of its MBR is of type ee, but does not begin at sector 1: no partition table counts, and all bytes are taken"
        )),
    })
}

/// A file does not say how large the sectors of its disk were, and nor does an MBR. So the
/// partitions must: something known is in one of them in sectors of 512 bytes, or they cannot lie
/// in the file in sectors of 4096.
fn may_count_4096(device: &Device, table: &PartitionTable) -> io::Result<bool> {
    if device.is_block() || table.kind != Kind::Mbr {
        return Ok(false);
    }
    let small: Vec<Range<u64>> = table.devices().collect();
    if small.iter().any(|part| part.end > device.size_bytes / 8) {
        return Ok(false);
    }
    for part in &small {
        if !sectors::signatures(device, part.clone())?.found.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// An image may be cut behind its last partition. The target then gets a backup GPT, whose entries
/// have 1 MiB at most.
const SPARE_BYTES: u64 = 2 << 20;

/// What each command leaves was looked at with GPT fdisk 1.0.9: `-e` writes both tables anew from
/// the one that is good, whether header or entries of the primary are damaged or missing.
fn damaged(device: &Device, unreadable: &Unreadable) -> Failure {
    let path = device.path.display();
    let sector_bytes = unreadable.sector_bytes;
    let help = match unreadable.backup_is_good {
        false => "and there is no good backup GPT in the last sector".to_string(),
        true if device.is_block() || sector_bytes == 512 => {
            format!("its backup GPT is good, and 'sgdisk -e {path}' rebuilds it from there")
        }
        // sgdisk takes a file for a disk with sectors of 512 bytes.
        true => format!(
            "its backup GPT is good: 'losetup -f --show -b {sector_bytes} {path}' and 'sgdisk -e' on that loop device rebuild it from there"
        ),
    };
    Failure::Because(format!("source {path}: {unreadable}; {help}; {INSIST}"))
}
