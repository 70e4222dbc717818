//! What is left on a target that would make the next system take it for something else, and how is
//! it removed?
//!
//! The core says which signatures are foreign (`format::leftovers`). They are looked for on the
//! whole target and in each partition, after the last upload and after the table was fitted, since
//! only then every byte is as the next system will find it. Their magic numbers are overwritten
//! with zeros, as wipefs does, and nothing else.

use std::ops::Range;

use swarm_proto::format::leftovers::{self, Leftover};
use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::format::partitions::{Kind, PartitionTable};
use swarm_proto::format::signatures::Signatures;
use swarm_proto::swarm::{DiskError, DiskOperation};
use swarm_proto::units::DiskOffset;

use super::partition_table::{self, ReadTableError};
use super::sectors;
use crate::os::device::Device;

/// What was found, each as `RAID at byte 100655104`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub wiped: Vec<String>,
    pub remains: Vec<String>,
}

/// Why a leftover may still be there.
#[derive(Debug)]
pub enum LeftoverError {
    Disk(DiskError),
    NotKept { offset: u64 },
}

/// Looks at a target that holds the whole image and the fitted table, and removes what is foreign,
/// unless `keep`. The target ends at `device.size_bytes`.
pub fn clear(device: &Device, metainfo: &Metainfo, keep: bool) -> Result<Report, LeftoverError> {
    let (mut report, mut any) = (Report::default(), false);
    for leftover in find(device, metainfo)? {
        if keep || leftover.kept {
            report.remains.push(leftover.describe());
        } else {
            wipe(device, &leftover)?;
            report.wiped.push(leftover.describe());
            any = true;
        }
    }
    if any {
        let flushed = device.flush();
        flushed.map_err(|error| failed(DiskOperation::Flush, 0)(&error))?;
        verify(device, metainfo)?;
    }
    Ok(report)
}

/// The whole target first, then its partitions, where only what is not of the whole target as well
/// counts: both may end at the same byte.
fn find(device: &Device, metainfo: &Metainfo) -> Result<Vec<Leftover>, LeftoverError> {
    let image = &metainfo.extents;
    let target = 0..device.size_bytes;
    if image.cover(DiskOffset(0), target.end) {
        return Ok(Vec::new());
    }
    let whole = signatures(device, &target)?;
    if !leftovers::is_of_image(image, 0, &whole) {
        return Ok(Vec::new());
    }
    let (mut kept, mut ours) = (Vec::new(), vec![(target, whole)]);
    match partition_table::read(device) {
        Ok(Some(table)) if table.doubt().is_none() => {
            for part in table.devices() {
                // The image says all about it: so it is with the torrents of `make`.
                if image.cover(DiskOffset(part.start), part.end - part.start) {
                    continue;
                }
                let found = signatures(device, &part)?;
                match leftovers::is_of_image(image, part.start, &found) {
                    true => ours.push((part, found)),
                    false => kept.push(part),
                }
            }
            kept.extend(backup(device, &table));
        }
        Ok(None) => {}
        Err(ReadTableError::Io(error)) => return Err(failed(DiskOperation::Read, 0)(&error)),
        // A table that does not say who owns what: of the disk that the image was made on, somebody
        // may own everything.
        _ => kept.push(0..metainfo.disk_bytes.unwrap_or(image.disk_end().0)),
    }
    let mut left: Vec<Leftover> = Vec::new();
    for (part, found) in ours {
        for one in leftovers::find(image, part.start, &found, &kept) {
            if left.iter().all(|known| known.magics[0] != one.magics[0]) {
                left.push(one);
            }
        }
    }
    Ok(left)
}

/// The backup that belongs to the GPT, with the last sector in any case.
fn backup(device: &Device, table: &PartitionTable) -> Option<Range<u64>> {
    let Kind::Gpt {
        backup: Some(_), ..
    } = table.kind
    else {
        return None;
    };
    let last = device.size_bytes.saturating_sub(table.sector_bytes.into());
    Some(table.backup().unwrap_or(last..device.size_bytes))
}

fn signatures(device: &Device, part: &Range<u64>) -> Result<Signatures, LeftoverError> {
    let mut place = part.start;
    let found = Signatures::read(part.end - part.start, &mut |some| {
        place = part.start + some.start;
        sectors::read(device, place, (some.end - some.start) as u32)
    });
    found.map_err(|error| failed(DiskOperation::Read, place)(&error))
}

/// All magic numbers of a leftover in one write: ZFS has 128 in each of its labels.
fn wipe(device: &Device, leftover: &Leftover) -> Result<(), LeftoverError> {
    let start = leftover.magics[0].start;
    let end = leftover.magics.last().map_or(start, |magic| magic.end);
    let mut bytes = sectors::read(device, start, (end - start) as u32)
        .map_err(|error| failed(DiskOperation::Read, start)(&error))?;
    for magic in &leftover.magics {
        bytes[(magic.start - start) as usize..(magic.end - start) as usize].fill(0);
    }
    sectors::write(device, start, &bytes)
        .map_err(|error| failed(DiskOperation::Write, start)(&error))
}

/// Only what cannot be read any more is gone.
fn verify(device: &Device, metainfo: &Metainfo) -> Result<(), LeftoverError> {
    let mut again = find(device, metainfo)?.into_iter().filter(|one| !one.kept);
    match again.next() {
        Some(one) => Err(LeftoverError::NotKept {
            offset: one.magics[0].start,
        }),
        None => Ok(()),
    }
}

fn failed(operation: DiskOperation, offset: u64) -> impl Fn(&std::io::Error) -> LeftoverError {
    move |error| {
        LeftoverError::Disk(DiskError {
            operation,
            offset: DiskOffset(offset),
            // sectors.rs returns errors of the kernel.
            errno: error.raw_os_error().unwrap_or(libc::EIO),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::partition_table::tests::metainfo;
    use super::*;
    use crate::os::device::TargetOptions;
    use crate::os::testing::Scratch;
    use std::fs;

    const MIB: u64 = 1 << 20;
    const MD: &[u8] = b"\xfc\x4e\x2b\xa9";

    /// A target file of 8 MiB with these bytes, of which the image has the first 2 MiB, and what is
    /// left of it afterwards.
    fn cleared(parts: &[(u64, &[u8])], keep: bool) -> (Report, Vec<u8>) {
        let scratch = Scratch::new("leftovers");
        let mut bytes = vec![7; 8 * MIB as usize];
        bytes[..512].fill(0);
        for (offset, part) in parts {
            bytes[*offset as usize..][..part.len()].copy_from_slice(part);
        }
        fs::write(scratch.path(), bytes).unwrap();
        let mut device =
            Device::open_target(scratch.path(), 2 * MIB, TargetOptions::default()).unwrap();
        device.keep();
        let report = clear(&device, &metainfo(2 * MIB, None, None), keep).unwrap();
        (report, fs::read(scratch.path()).unwrap())
    }

    #[test]
    fn only_the_magic_numbers_are_wiped_and_only_where_the_image_has_nothing() {
        let zfs: Vec<(u64, &[u8])> = [0, 3, 127]
            .map(|n| {
                (
                    8 * MIB - (384 << 10) + n * 1024,
                    &b"\x0c\xb1\xba\0\0\0\0\0"[..],
                )
            })
            .to_vec();
        let of_image: [(u64, &[u8]); 1] = [(4096, MD)];
        let raid: [(u64, &[u8]); 1] = [(8 * MIB - 8192, MD)];
        let parts = [&zfs[..], &of_image, &raid].concat();
        let (report, kept) = cleared(&parts, true);
        let words = ["RAID at byte 8380416", "ZFS at byte 7995392"];
        assert_eq!(report.remains, words);
        assert!(report.wiped.is_empty());

        let (report, wiped) = cleared(&parts, false);
        assert_eq!(report.wiped, words);
        assert!(report.remains.is_empty());
        let mut expected = kept;
        for (offset, magic) in zfs.iter().chain(&raid) {
            expected[*offset as usize..][..magic.len()].fill(0);
        }
        assert!(wiped == expected);
        assert_eq!(cleared(&[], false).0, Report::default());
    }

    /// The second partition is not of the image: what ends with it is its own, and the RAID that
    /// ends with the target is in it.
    #[test]
    fn a_partition_that_the_image_leaves_out_is_kept() {
        let mut mbr = [0; 66];
        mbr[4..16].copy_from_slice(&[0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0]);
        mbr[20..32].copy_from_slice(&[0x83, 0, 0, 0, 0, 16, 0, 0, 0, 48, 0, 0]);
        mbr[64..].copy_from_slice(&[0x55, 0xaa]);
        let raid = (8 * MIB - 8192, MD);
        let (report, bytes) = cleared(&[(446, &mbr), raid], false);
        assert_eq!(report.remains, ["RAID at byte 8380416"]);
        assert!(report.wiped.is_empty() && bytes[raid.0 as usize..].starts_with(MD));
        // Without its entry, nobody owns that place.
        mbr[20..32].fill(0);
        let (report, _) = cleared(&[(446, &mbr), raid], false);
        assert_eq!(report.wiped, ["RAID at byte 8380416"]);
        // A partition that begins in the image and is longer has a RAID at its own end.
        mbr[13] = 0x20;
        let inside = (5 * MIB - 8192, MD);
        let (report, _) = cleared(&[(446, &mbr), inside], false);
        assert_eq!(report.wiped, ["RAID at byte 5234688"]);
    }

    /// The image brings the link of a logical partition, and nothing of the partition itself.
    #[test]
    fn a_logical_partition_that_the_image_leaves_out_is_kept() {
        let mut mbr = [0; 66];
        mbr[4..16].copy_from_slice(&[0x05, 0, 0, 0, 0xff, 15, 0, 0, 1, 48, 0, 0]);
        mbr[64..].copy_from_slice(&[0x55, 0xaa]);
        let mut link = mbr;
        link[4..16].copy_from_slice(&[0x83, 0, 0, 0, 1, 0, 0, 0, 0, 48, 0, 0]);
        let table: [(u64, &[u8]); 2] = [(446, &mbr), (2 * MIB - 512 + 446, &link)];
        let raid = (8 * MIB - 8192, MD);
        let (report, bytes) = cleared(&[table[0], table[1], raid], false);
        assert_eq!(report.remains, ["RAID at byte 8380416"]);
        assert!(report.wiped.is_empty() && bytes[raid.0 as usize..].starts_with(MD));
        // With its first sectors, it is the image's.
        mbr[8..10].copy_from_slice(&[0, 8]);
        mbr[12..14].copy_from_slice(&[0, 56]);
        link[8..12].copy_from_slice(&[8, 0, 0, 0]);
        link[12..14].copy_from_slice(&[0xf8, 55]);
        let table: [(u64, &[u8]); 2] = [(446, &mbr), (MIB + 446, &link)];
        let (report, _) = cleared(&[table[0], table[1], raid], false);
        assert_eq!(report.wiped, ["RAID at byte 8380416"]);
    }

    /// An entry of kind 0 over everything: somebody may own what the image leaves out of its disk.
    #[test]
    fn a_table_in_doubt_keeps_the_disk_of_the_image() {
        let mut mbr = [0; 66];
        mbr[12..16].copy_from_slice(&[0, 16, 0, 0]);
        mbr[20..32].copy_from_slice(&[0x83, 0, 0, 0, 0, 8, 0, 0, 0, 4, 0, 0]);
        mbr[64..].copy_from_slice(&[0x55, 0xaa]);
        let raid = (8 * MIB - 8192, MD);
        let (report, _) = cleared(&[(446, &mbr), raid], false);
        assert_eq!(report.wiped, ["RAID at byte 8380416"], "behind that disk");
    }
}
