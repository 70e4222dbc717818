//! Which signatures on a target come neither from the image nor from what the target keeps, and
//! would make the next system take it for something else?
//!
//! An image that is smaller than its target leaves the rest of it alone: the superblock of a RAID
//! at the end of the disk, a label of ZFS, the backup of another GPT. libblkid then says that the
//! disk is a member of a RAID, and the machine does not boot. The same holds for a partition that
//! was grown, and for the parts of it that the image does not describe.
//!
//! Read first: wipefs(8), which removes the same bytes.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;

use super::extents::{Extent, ExtentMap};
use super::signatures::{Signature, Signatures};
use crate::units::DiskOffset;

/// A signature, or the part of it, that lies outside of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    pub kind: &'static str,
    /// Bytes of the target without which nobody recognises it, in order; at least one range.
    pub magics: Vec<Range<u64>>,
    /// It lies in what the target keeps, or may belong to it.
    pub kept: bool,
}

impl Leftover {
    /// `RAID at byte 100655104`
    pub fn describe(&self) -> String {
        let (kind, magics) = (self.kind, self.magics.clone());
        let label = String::new();
        Signature {
            kind,
            label,
            magics,
        }
        .to_string()
    }
}

/// Whether the image says what this device is, the whole target or a partition from byte `start`
/// on. An image of some parts of a disk does not: the table or file system around them is the
/// target's own. File systems with small blocks leave out an unused first block.
pub fn is_of_image(image: &ExtentMap, start: u64, device: &Signatures) -> bool {
    let is_table = |one: &Signature| ["gpt", "mbr"].contains(&one.kind);
    let brings = |magic: &Range<u64>| touches(image, start, magic);
    let is_brought = |one: &Signature| one.magics.iter().any(brings);
    let own = start.next_multiple_of(GRAIN_BYTES);
    [start, own]
        .iter()
        .all(|&sector| image.cover(DiskOffset(sector), SECTOR_BYTES))
        || !device.found.iter().any(is_table) && device.found.iter().any(is_brought)
}

/// Of the smallest disk.
const SECTOR_BYTES: u64 = 512;
const GRAIN_BYTES: u64 = 4096;

/// The signatures of a device that is of the image, as above, less those that the image brings.
/// `kept` are bytes of the target that are neither of the image nor free: its other partitions, its
/// backup GPT.
pub fn find(
    image: &ExtentMap,
    start: u64,
    device: &Signatures,
    kept: &[Range<u64>],
) -> Vec<Leftover> {
    // The MBR is in front of everything, and with it a GPT counts or not.
    let is_of_table =
        |one: &&Signature| one.kind == "mbr" || one.kind == "gpt" && device.protective;
    let others = device.found.iter().filter(|one| !is_of_table(one));
    let left = others.map(|one| {
        let free = one
            .magics
            .iter()
            .filter(|magic| !touches(image, start, magic));
        let magics: Vec<Range<u64>> = free
            .map(|magic| start + magic.start..start + magic.end)
            .collect();
        let is_kept = |magic: &Range<u64>| kept.iter().any(|kept| meet(kept, magic));
        Leftover {
            kind: one.kind,
            kept: magics.iter().any(is_kept),
            magics,
        }
    });
    left.filter(|one| !one.magics.is_empty()).collect()
}

/// Whether the image has any of these bytes of a device that begins at `start`.
pub fn touches(image: &ExtentMap, start: u64, range: &Range<u64>) -> bool {
    let range = start + range.start..start + range.end;
    let of = |extent: &Extent| extent.disk.0..extent.disk.0 + extent.length;
    image
        .extents()
        .iter()
        .any(|extent| meet(&of(extent), &range))
}

fn meet(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    const MIB: u64 = 1 << 20;

    fn image(ranges: &[Range<u64>]) -> ExtentMap {
        let files = ranges
            .iter()
            .map(|range| (DiskOffset(range.start), range.end - range.start));
        ExtentMap::from_files(files).unwrap()
    }

    fn device(found: &[(&'static str, Range<u64>)]) -> Signatures {
        let found = found.iter().map(|(kind, magic)| Signature {
            kind,
            label: String::new(),
            magics: vec![magic.clone()],
        });
        Signatures {
            found: found.collect(),
            ..Signatures::default()
        }
    }

    /// Kind and whether it is kept.
    fn left(image: &ExtentMap, start: u64, device: &Signatures, kept: &[Range<u64>]) -> String {
        let words = find(image, start, device, kept)
            .into_iter()
            .map(|one| match one.kept {
                true => std::format!("({})", one.kind),
                false => one.kind.into(),
            });
        words.collect::<Vec<String>>().join(" ")
    }

    const MBR: (&str, Range<u64>) = ("mbr", 510..512);
    const GPT: (&str, Range<u64>) = ("gpt", 512..520);
    const BACKUP: (&str, Range<u64>) = ("backup gpt", 100 * MIB - 512..100 * MIB - 504);
    const LVM: (&str, Range<u64>) = ("LVM2", 536..544);
    const SWAP: (&str, Range<u64>) = ("swap", 65526..65536);
    const RAID: (&str, Range<u64>) = ("RAID", 90 * MIB..90 * MIB + 4);

    #[test]
    fn what_the_image_does_not_bring_is_left_over() {
        let whole = image(&[0..64 * MIB]);
        let gaps = image(&[0..512, 4096..4097, 65530..65531, 70_000..MIB]);
        let disk = device(&[GPT, LVM, SWAP, MBR, RAID, BACKUP]);
        assert_eq!(left(&whole, 0, &disk, &[]), "RAID backup gpt");
        // One byte of a magic number that is of the image makes all of it the image's.
        assert_eq!(left(&gaps, 0, &disk, &[]), "gpt LVM2 RAID backup gpt");
        let protective = Signatures {
            protective: true,
            ..disk.clone()
        };
        assert_eq!(left(&gaps, 0, &protective, &[]), "LVM2 RAID backup gpt");
        let kept = [80 * MIB..RAID.1.start + 1, 100 * MIB - 512..100 * MIB];
        assert_eq!(left(&whole, 0, &disk, &kept), "(RAID) (backup gpt)");
        let others = [80 * MIB..RAID.1.start, RAID.1.end..100 * MIB - 512];
        assert_eq!(left(&whole, 0, &disk, &others), "RAID backup gpt");
    }

    #[test]
    fn places_in_a_partition_count_from_its_start() {
        let of_image = image(&[0..MIB, 20 * MIB..30 * MIB]);
        let partition = device(&[("ext4", 1080..1082), RAID]);
        let found = find(&of_image, 20 * MIB, &partition, &[]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].magics, [110 * MIB..110 * MIB + 4]);
        assert_eq!(found[0].describe(), "RAID at byte 115343360");
    }

    /// Of ZFS the places that the image does not bring are left.
    #[test]
    fn a_signature_is_left_with_those_of_its_places_that_are_not_of_the_image() {
        let zfs = Signatures {
            found: vec![Signature {
                kind: "ZFS",
                label: String::new(),
                magics: vec![MIB - 8..MIB, MIB..MIB + 8, 2 * MIB..2 * MIB + 8],
            }],
            ..Signatures::default()
        };
        let found = find(&image(&[0..MIB]), 0, &zfs, &[]);
        assert_eq!(found[0].magics, zfs.found[0].magics[1..]);
    }

    /// A partition from sector 63 on, whose first sector comes with a grain of the one in front.
    #[test]
    fn a_grain_of_the_partition_in_front_does_not_make_a_partition_the_images() {
        let raid = device(&[RAID]);
        for (end, expected) in [(63, false), (64, false), (65, true)] {
            let image = image(&[0..end * 512]);
            assert_eq!(is_of_image(&image, 63 * 512, &raid), expected, "{end}");
        }
        let ext = device(&[("ext4", 1080..1082), RAID]);
        assert!(is_of_image(&image(&[33_280..MIB]), 63 * 512, &ext));
    }

    #[test]
    fn the_image_of_a_part_does_not_say_what_the_target_is() {
        let boot_block_left_out = image(&[1024..MIB]);
        let part = image(&[MIB..2 * MIB]);
        let ext = ("ext2", 1080..1082);
        let cases = [
            (image(&[0..512]), device(&[]), true),
            (image(&[0..511]), device(&[]), false),
            (
                boot_block_left_out.clone(),
                device(std::slice::from_ref(&ext)),
                true,
            ),
            (
                boot_block_left_out.clone(),
                device(&[ext.clone(), RAID]),
                true,
            ),
            (boot_block_left_out.clone(), device(&[RAID]), false),
            // The table is of the target, whatever lies behind it.
            (boot_block_left_out, device(&[ext.clone(), MBR]), false),
            (part.clone(), device(&[GPT, ext]), false),
            (part, device(&[MBR]), false),
        ];
        for (image, device, expected) in cases {
            assert_eq!(
                is_of_image(&image, 0, &device),
                expected,
                "{image:?} {device:?}"
            );
        }
    }
}
