//! What is on this disk or partition: which partition table, which file system, under which label,
//! and at which bytes does it say so?
//!
//! The bytes of some places come in, names come out, so that an administrator sees what is about to
//! be overwritten. Everything found is named, also what an earlier use of the disk left behind
//! (`leftovers`). Nothing is decided here: a disk with contents is overwritten like a blank one.
//!
//! Read first: libblkid/src/superblocks and libblkid/src/partitions of util-linux, which know more.
//! Not here are the mirrors of btrfs at 64 MiB and 256 GiB: nothing looks there unless asked to
//! repair. Nor are minix, hpfs and others whose magic number has two bytes.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use crate::text::printable;

/// Read from the beginning: two labels of ZFS lie there, and all but a few of the others.
const HEAD_BYTES: u64 = 512 << 10;
/// Read from the end: two labels of ZFS, in front of an end that is no multiple of their length.
const TAIL_BYTES: u64 = 768 << 10;
/// Read at each of the places in between.
const PLACE_BYTES: u64 = 512;

/// Places from the beginning that are not in the first `HEAD_BYTES`.
const LATER_PLACES: [u64; 4] = [512 << 10, 1 << 20, 2 << 20, 4 << 20];

/// What was recognised: first in the order of [`STARTS`], then what has a function of its own, then
/// in the order of [`ENDS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signatures {
    pub found: Vec<Signature>,
    /// All bytes that were read are zero.
    pub(super) blank: bool,
    /// The first sector says that the disk has a GPT.
    pub(super) protective: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    pub kind: &'static str,
    /// Empty if there is no label, or none at a fixed place.
    pub label: String,
    /// The bytes of its magic number, from the start of the device; of ZFS those of one label.
    /// Without them nobody recognises it.
    pub magics: Vec<Range<u64>>,
}

impl Signatures {
    /// Of a device of `device_bytes`, of which `read` returns the bytes of a range; it is asked for
    /// 1.3 MiB altogether.
    pub fn read<E>(
        device_bytes: u64,
        read: &mut dyn FnMut(Range<u64>) -> Result<Vec<u8>, E>,
    ) -> Result<Signatures, E> {
        let mut excerpt = Excerpt {
            device_bytes,
            parts: Vec::new(),
        };
        for part in parts(device_bytes) {
            let start = part.start;
            excerpt.parts.push((start, read(part)?));
        }
        Ok(Signatures::of(&excerpt))
    }

    /// The kind of RAID that the firmware or the controller of the machine makes of this disk and
    /// others.
    pub fn firmware_raid(&self) -> Option<&'static str> {
        let kinds = self.found.iter().map(|one| one.kind);
        kinds.into_iter().find(|kind| kind.ends_with(" RAID"))
    }

    fn of(device: &Excerpt) -> Signatures {
        let mut found: Vec<Signature> = STARTS
            .iter()
            .filter(|(_, offset, magic, _)| device.has(*offset, magic))
            .map(|&(kind, offset, magic, label)| Signature {
                label: device.label(label),
                ..Signature::bare(kind, offset, magic.len())
            })
            .collect();
        found.extend(ext(device));
        found.extend(nilfs(device));
        found.extend(mbr(device).then(|| Signature::bare("mbr", SIGNATURE, 2)));
        for &(kind, unit, back, magic) in &ENDS {
            let offset = (device.device_bytes / unit * unit).checked_sub(back);
            let offset = offset.filter(|offset| device.has(*offset, magic));
            found.extend(offset.map(|offset| Signature::bare(kind, offset, magic.len())));
        }
        found.extend(checked_raids(device));
        found.extend(zfs(device));
        Signatures {
            found,
            blank: device
                .parts
                .iter()
                .all(|(_, bytes)| bytes.iter().all(|&byte| byte == 0)),
            protective: entries(device).any(|entry| entry[4] == 0xee),
        }
    }
}

/// `gpt`, `ext4 "root"`, `RAID "srv:0", ext4`, `blank`, `unknown data`
impl fmt::Display for Signatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.found.is_empty() {
            return f.write_str(if self.blank { "blank" } else { "unknown data" });
        }
        // Copies and backups are named once, and a GPT is more than its MBR and its backup.
        let has = |kind, before: usize| self.found[..before].iter().any(|one| one.kind == kind);
        let all = self.found.len();
        let is_named = |(index, one): &(usize, &Signature)| {
            let of_gpt = ["mbr", "backup gpt"].contains(&one.kind) && has("gpt", all);
            !of_gpt && !has(one.kind, *index)
        };
        let named = self.found.iter().enumerate().filter(is_named);
        for (index, (_, Signature { kind, label, .. })) in named.enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{kind}")?;
            if !label.is_empty() {
                write!(f, " \"{label}\"")?;
            }
        }
        Ok(())
    }
}

/// `RAID at byte 100655104`
impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.kind, self.magics[0].start)
    }
}

impl Signature {
    fn bare(kind: &'static str, offset: u64, length: usize) -> Signature {
        Signature {
            kind,
            label: String::new(),
            magics: vec![offset..offset + length as u64],
        }
    }
}

/// What was read of a device.
struct Excerpt {
    device_bytes: u64,
    /// Offset and bytes; on a small device they overlap.
    parts: Vec<(u64, Vec<u8>)>,
}

impl Excerpt {
    /// The bytes at this offset, or none unless all of them were read.
    fn at(&self, offset: u64, length: usize) -> &[u8] {
        let inside = |(start, bytes): &(u64, Vec<u8>)| {
            let from = usize::try_from(offset.checked_sub(*start)?).ok()?;
            (from.checked_add(length)? <= bytes.len()).then_some(from)
        };
        let part = |part| inside(part).map(|from| &part.1[from..from + length]);
        self.parts.iter().find_map(part).unwrap_or_default()
    }

    fn has(&self, offset: u64, magic: &[u8]) -> bool {
        self.at(offset, magic.len()) == magic
    }

    fn u32(&self, offset: u64) -> Option<u32> {
        self.at(offset, 4).try_into().ok().map(u32::from_le_bytes)
    }

    /// The label up to the first NUL, without padding. Anybody may have written it, and it is shown
    /// on terminals.
    fn label(&self, (offset, length): (u64, usize)) -> String {
        const SHOWN_BYTES_MAX: usize = 64;
        let bytes = self.at(offset, length);
        let text = bytes
            .split(|&byte| byte == 0)
            .next()
            .unwrap_or_default()
            .trim_ascii();
        // mkfs.fat writes this if it is given no name.
        if text == b"NO NAME" {
            String::new()
        } else {
            printable(text, SHOWN_BYTES_MAX)
        }
    }
}

/// The parts of a device that are read.
fn parts(device_bytes: u64) -> impl Iterator<Item = Range<u64>> {
    let promise = ENDS.iter().map(|&(.., back, _)| back).max().unwrap_or(0);
    let sectors_bytes = device_bytes / 512 * 512;
    let later = LATER_PLACES
        .into_iter()
        .chain([sectors_bytes.saturating_sub(promise)]);
    let later = later.map(|start| start..start + PLACE_BYTES);
    [
        0..HEAD_BYTES,
        device_bytes.saturating_sub(TAIL_BYTES)..device_bytes,
    ]
    .into_iter()
    .chain(later)
    .map(move |part| part.start..part.end.min(device_bytes))
    .filter(|part| part.start < part.end)
}

/// Kind, place and bytes of the magic number, place and length of the label (length 0: no label).
type Start = (&'static str, u64, &'static [u8], (u64, usize));

/// Kind and bytes of a magic number at a place that is counted from the end: the length of the
/// device, rounded down to the first number, less the second.
type End = (&'static str, u64, u64, &'static [u8]);

const NO_LABEL: (u64, usize) = (0, 0);
const MD_MAGIC: &[u8] = b"\xfc\x4e\x2b\xa9";
const MD_MAGIC_SWAPPED: &[u8] = b"\xa9\x2b\x4e\xfc";
const LUKS_COPY: &[u8] = b"SKUL\xba\xbe\0\x02";
const STRATIS: &[u8] = b"!Stra0tis\x86\xff\x02^\x41rh";
const INTEL: &[u8] = b"Intel Raid ISM Cfg Sig. ";
const PROMISE: &[u8] = b"Promise Technology, Inc.";

/// Partition tables first, then what holds other devices, then file systems. Signatures that take
/// more than one comparison have a function below.
const STARTS: [Start; 73] = [
    // UEFI 2.10, 5.3.2: the header is in LBA 1, and sectors have two sizes.
    ("gpt", 512, b"EFI PART", NO_LABEL),
    ("gpt", 4096, b"EFI PART", NO_LABEL),
    // LUKS on-disk format, versions 1 and 2. The copy is behind the first header, whose length is a
    // power of two.
    ("LUKS", 0, b"LUKS\xba\xbe\0\x01", NO_LABEL),
    ("LUKS", 0, b"LUKS\xba\xbe\0\x02", (24, 48)),
    ("LUKS", 0x4000, LUKS_COPY, NO_LABEL),
    ("LUKS", 0x8000, LUKS_COPY, NO_LABEL),
    ("LUKS", 0x10000, LUKS_COPY, NO_LABEL),
    ("LUKS", 0x20000, LUKS_COPY, NO_LABEL),
    ("LUKS", 0x40000, LUKS_COPY, NO_LABEL),
    ("LUKS", 0x80000, LUKS_COPY, NO_LABEL),
    ("LUKS", 0x10_0000, LUKS_COPY, NO_LABEL),
    ("LUKS", 0x20_0000, LUKS_COPY, NO_LABEL),
    ("LUKS", 0x40_0000, LUKS_COPY, NO_LABEL),
    ("BitLocker", 3, b"-FVE-FS-", NO_LABEL),
    // lib/label/label.h of LVM2: in one of the first four sectors; all write the second.
    ("LVM2", 24, b"LVM2 001", NO_LABEL),
    ("LVM2", 512 + 24, b"LVM2 001", NO_LABEL),
    ("LVM2", 1024 + 24, b"LVM2 001", NO_LABEL),
    ("LVM2", 1536 + 24, b"LVM2 001", NO_LABEL),
    ("LVM1", 0, b"HM\x01\0", NO_LABEL),
    ("LVM1", 0, b"HM\x02\0", NO_LABEL),
    // include/uapi/linux/raid/md_p.h: format 1.1 is at the start, 1.2 at 4096.
    ("RAID", 0, MD_MAGIC, (32, 32)),
    ("RAID", 4096, MD_MAGIC, (4096 + 32, 32)),
    ("HighPoint RAID", 4640, b"\xf0\x16\x78\x5a", NO_LABEL),
    ("HighPoint RAID", 4640, b"\xfd\x16\x78\x5a", NO_LABEL),
    (
        "bcache",
        4120,
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca",
        NO_LABEL,
    ),
    (
        "bcachefs",
        4120,
        b"\xc6\x85\x73\xf6\x66\xce\x90\xa9",
        NO_LABEL,
    ),
    ("Stratis", 512 + 4, STRATIS, NO_LABEL),
    ("Stratis", 4608 + 4, STRATIS, NO_LABEL),
    ("VMFS", 1 << 20, b"\x0d\xd0\x01\xc0", NO_LABEL),
    ("VMFS", 2 << 20, b"\x5e\xf1\xab\x2f", NO_LABEL),
    ("BlueStore", 0, b"bluestore block device", NO_LABEL),
    ("VDO", 0, b"dmvdo001", NO_LABEL),
    ("dm-verity", 0, b"verity\0\0", NO_LABEL),
    ("dm-integrity", 0, b"integrt\0", NO_LABEL),
    ("Oracle ASM", 32, b"ORCLDISK", NO_LABEL),
    // include/linux/swap.h: the last ten bytes of the first page, and pages have sizes.
    ("swap", 4096 - 10, b"SWAPSPACE2", (1052, 16)),
    ("swap", 8192 - 10, b"SWAPSPACE2", (1052, 16)),
    ("swap", 16384 - 10, b"SWAPSPACE2", (1052, 16)),
    ("swap", 32768 - 10, b"SWAPSPACE2", (1052, 16)),
    ("swap", 65536 - 10, b"SWAPSPACE2", (1052, 16)),
    ("swap", 4096 - 10, b"SWAP-SPACE", NO_LABEL),
    ("hibernated system", 4096 - 10, b"S1SUSPEND\0", NO_LABEL),
    ("hibernated system", 4096 - 10, b"S2SUSPEND\0", NO_LABEL),
    // The kernel's fs/xfs/libxfs/xfs_format.h, uapi/linux/btrfs_tree.h, uapi/linux/magic.h.
    ("xfs", 0, b"XFSB", (108, 12)),
    ("btrfs", 65536 + 64, b"_BHRfS_M", (65536 + 299, 256)),
    ("f2fs", 1024, b"\x10\x20\xf5\xf2", NO_LABEL),
    ("squashfs", 0, b"hsqs", NO_LABEL),
    ("erofs", 1024, b"\xe2\xe1\xf5\xe0", NO_LABEL),
    ("cramfs", 0, b"\x45\x3d\xcd\x28", NO_LABEL),
    ("jfs", 32768, b"JFS1", NO_LABEL),
    ("reiserfs", 8192 + 52, b"ReIsErFs", NO_LABEL),
    ("reiserfs", 65536 + 52, b"ReIsEr", NO_LABEL),
    ("reiser4", 65536, b"ReIsEr4", NO_LABEL),
    ("hfsplus", 1024, b"H+\0\x04", NO_LABEL),
    ("hfsplus", 1024, b"HX\0\x05", NO_LABEL),
    ("ocfs2", 1024, b"OCFSV2", NO_LABEL),
    ("ocfs2", 2048, b"OCFSV2", NO_LABEL),
    ("ocfs2", 4096, b"OCFSV2", NO_LABEL),
    ("gfs2", 65536, b"\x01\x16\x19\x70", NO_LABEL),
    ("ufs", 8192 + 1372, b"\x54\x19\x01\0", NO_LABEL),
    ("ufs", 8192 + 1372, b"\x19\x01\x54\x19", NO_LABEL),
    ("ufs", 65536 + 1372, b"\x19\x01\x54\x19", NO_LABEL),
    // Microsoft's FAT specification, 3.1: the count of clusters gives the type, but all tools write
    // these words too.
    ("vfat", 82, b"FAT32   ", (71, 11)),
    ("vfat", 54, b"FAT16   ", (43, 11)),
    ("vfat", 54, b"FAT12   ", (43, 11)),
    ("vfat", 54, b"FAT     ", (43, 11)),
    // The labels of exfat and ntfs are inside, in a directory and in a file.
    ("exfat", 3, b"EXFAT   ", NO_LABEL),
    ("ntfs", 3, b"NTFS    ", NO_LABEL),
    ("ReFS", 3, b"ReFS\0\0\0\0", NO_LABEL),
    ("apfs", 32, b"NXSB", NO_LABEL),
    // ECMA-119, 8.4 and ECMA-167, 2/9.1: volume descriptors begin in the 16th block of 2048 bytes.
    ("iso9660", 32768, b"\x01CD001", (32808, 32)),
    ("udf", 32768, b"\0BEA01", NO_LABEL),
    ("udf", 32768 + 2048, b"\0BEA01", NO_LABEL),
];

/// What describes a whole disk from behind the room that it shows to others.
const ENDS: [End; 33] = [
    // md_p.h and drivers/md/md.c: format 0.90 in both byte orders, format 1.0.
    ("RAID", 65536, 65536, MD_MAGIC),
    ("RAID", 65536, 65536, MD_MAGIC_SWAPPED),
    ("RAID", 4096, 8192, MD_MAGIC),
    // SNIA's Common RAID DDF: the anchor header, in both byte orders.
    ("DDF RAID", 512, 512, b"\xde\x11\xde\x11"),
    ("DDF RAID", 512, 512, b"\x11\xde\x11\xde"),
    ("DDF RAID", 512, 257 * 512, b"\xde\x11\xde\x11"),
    ("DDF RAID", 512, 257 * 512, b"\x11\xde\x11\xde"),
    // The last but one sector.
    ("Intel RAID", 512, 2 * 512, INTEL),
    ("Intel RAID", 4096, 2 * 4096, INTEL),
    ("NVIDIA RAID", 512, 2 * 512, b"NVIDIA"),
    ("JMicron RAID", 512, 512, b"JM"),
    ("LSI RAID", 512, 512, b"$XIDE$"),
    ("Adaptec RAID", 512, 512, b"\x37\xfc\x4d\x1e"),
    ("HighPoint RAID", 512, 11 * 512, b"\xf3\x16\x78\x5a"),
    ("HighPoint RAID", 512, 11 * 512, b"\xfd\x16\x78\x5a"),
    ("Promise RAID", 512, 16 * 512, PROMISE),
    ("Promise RAID", 512, 63 * 512, PROMISE),
    ("Promise RAID", 512, 255 * 512, PROMISE),
    ("Promise RAID", 512, 256 * 512, PROMISE),
    ("Promise RAID", 512, 399 * 512, PROMISE),
    ("Promise RAID", 512, 591 * 512, PROMISE),
    ("Promise RAID", 512, 675 * 512, PROMISE),
    ("Promise RAID", 512, 735 * 512, PROMISE),
    ("Promise RAID", 512, 911 * 512, PROMISE),
    ("Promise RAID", 512, 951 * 512, PROMISE),
    ("Promise RAID", 512, 974 * 512, PROMISE),
    ("Promise RAID", 512, 991 * 512, PROMISE),
    ("Promise RAID", 512, 3087 * 512, PROMISE),
    // drbd_meta_data.h: in the last block, three states.
    ("DRBD", 1, 4096 - 60, b"\x83\x74\x02\x6b"),
    ("DRBD", 1, 4096 - 60, b"\x83\x74\x02\x6c"),
    ("DRBD", 1, 4096 - 60, b"\x83\x74\x02\x6d"),
    // In the last sector; it is left when only the start of the disk was wiped or overwritten.
    ("backup gpt", 512, 512, b"EFI PART"),
    ("backup gpt", 4096, 4096, b"EFI PART"),
];

/// Three file systems have the same magic number; the features tell which it is (fs/ext4/ext4.h).
/// Features that ext3 does not know make it ext4, else a journal makes it ext3.
fn ext(device: &Excerpt) -> Option<Signature> {
    /// Features that ext3 knows: filetype, recover, journal_dev, meta_bg; sparse_super, large_file,
    /// btree_dir.
    const INCOMPAT_EXT3: u32 = 0x001e;
    const RO_COMPAT_EXT3: u32 = 0x0007;
    const HAS_JOURNAL: u32 = 0x0004;
    const MAGIC: (u64, &[u8]) = (1080, b"\x53\xef");
    if !device.has(MAGIC.0, MAGIC.1) {
        return None;
    }
    let feature = |offset: u64| device.u32(1024 + offset);
    let (compat, incompat, ro_compat) = (feature(0x5c)?, feature(0x60)?, feature(0x64)?);
    let kind = match () {
        () if incompat & !INCOMPAT_EXT3 != 0 || ro_compat & !RO_COMPAT_EXT3 != 0 => "ext4",
        () if compat & HAS_JOURNAL != 0 => "ext3",
        () => "ext2",
    };
    Some(Signature {
        label: device.label((1144, 16)),
        ..Signature::bare(kind, MAGIC.0, MAGIC.1.len())
    })
}

/// The first superblock and its copy at the end name the length of the device.
fn nilfs(device: &Excerpt) -> impl Iterator<Item = Signature> {
    let copy = (device.device_bytes / 512 * 512).checked_sub(4096);
    let is_there = |superblock: &u64| {
        let length = device.at(superblock + 32, 8);
        device.has(superblock + 6, b"\x34\x34") && length == device.device_bytes.to_le_bytes()
    };
    let places = [Some(1024), copy].into_iter().flatten();
    places
        .filter(is_there)
        .map(|place| Signature::bare("nilfs2", place + 6, 2))
}

/// Where a boot sector has its signature.
const SIGNATURE: u64 = 510;

/// The boot sector of a file system has the same signature. In a partition table all four entries
/// also have a valid status, and at least one is in use.
fn mbr(device: &Excerpt) -> bool {
    entries(device).all(|entry| entry[0] & 0x7f == 0) && entries(device).any(|entry| entry[4] != 0)
}

/// The entries of the MBR, none without its signature.
fn entries(device: &Excerpt) -> impl Iterator<Item = &[u8]> {
    let signed = device.has(SIGNATURE, b"\x55\xaa");
    device.at(446, 64).chunks_exact(16).filter(move |_| signed)
}

/// Two formats with a weak magic number and a checksum, in the last sector. Silicon Image: the sum
/// of all words before the checksum is its negative. VIA: the sum of the first 50 bytes.
fn checked_raids(device: &Excerpt) -> impl Iterator<Item = Signature> {
    let last = (device.device_bytes / 512 * 512).saturating_sub(512);
    let sector = device.at(last, 512);
    let words = sector.get(..0x140).unwrap_or_default().chunks_exact(2);
    let sum = words.fold(0u16, |sum, word| {
        sum.wrapping_add(u16::from_le_bytes([word[0], word[1]]))
    });
    let silicon = device.has(last + 0x60, b"\0\0\0\x2f") && sum == 0;
    let (bytes, rest) = sector.split_at_checked(50).unwrap_or_default();
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    let via = bytes.starts_with(b"\x55\xaa") && bytes[2] <= 2 && rest[0] == sum;
    let silicon = silicon.then(|| Signature::bare("Silicon Image RAID", last + 0x60, 4));
    let via = via.then(|| Signature::bare("VIA RAID", last, 2));
    [silicon, via].into_iter().flatten()
}

/// Four labels of 256 KiB, two at the start and two at the end (OpenZFS, include/sys/vdev_impl.h):
/// in each, 16 KiB from its start, the header of a list of names and values, by which ZFS and
/// libblkid from 2.41 on know a label; and 128 KiB from its start, 128 uberblocks, by which older
/// ones know it.
fn zfs(device: &Excerpt) -> impl Iterator<Item = Signature> {
    const LABEL: u64 = 256 << 10;
    const UBERBLOCKS: u64 = 128 << 10;
    let end = device.device_bytes / LABEL * LABEL;
    let starts = [
        Some(0),
        Some(LABEL),
        end.checked_sub(2 * LABEL),
        end.checked_sub(LABEL),
    ];
    let places = |start: u64| {
        let uberblocks = (0..128).map(move |index| start + UBERBLOCKS + index * 1024);
        let is_one = |offset: &u64| {
            device.has(*offset, &0x00ba_b10c_u64.to_le_bytes())
                || device.has(*offset, &0x00ba_b10c_u64.to_be_bytes())
        };
        let list = [start + (16 << 10)]
            .into_iter()
            .filter(|offset| has_list(device, *offset));
        let list = list.map(|offset| offset..offset + 16);
        let uberblocks = uberblocks.filter(is_one).map(|offset| offset..offset + 8);
        list.chain(uberblocks).collect::<Vec<_>>()
    };
    let mut seen = None;
    let fresh = move |start: &u64| seen.replace(*start).is_none_or(|before| before < *start);
    let labels = starts.into_iter().flatten().filter(fresh);
    let labels = labels.map(places).filter(|magics| !magics.is_empty());
    labels.map(|magics| Signature {
        magics,
        ..Signature::bare("ZFS", 0, 0)
    })
}

/// XDR, a byte order, version 0, unique names; a first pair, and the length of its name.
fn has_list(device: &Excerpt, offset: u64) -> bool {
    let fixed = device.has(offset + 2, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
    let word = |place: u64| device.u32(offset + place).map(u32::swap_bytes);
    let length = word(20).unwrap_or(0);
    fixed && device.has(offset, &[1]) && word(12) != Some(0) && (1..64).contains(&length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::os::unix::fs::FileExt;
    use std::process::{Command, Stdio};
    use std::string::ToString;
    use std::vec;

    const DEVICE_BYTES: usize = 2 << 20;

    fn signatures(device: &[u8]) -> Signatures {
        let mut read = |part: Range<u64>| {
            let bytes = &device[part.start as usize..part.end as usize];
            Ok::<_, ()>(bytes.to_vec())
        };
        Signatures::read(device.len() as u64, &mut read).unwrap()
    }

    fn names(device: &[u8]) -> String {
        signatures(device).to_string()
    }

    type Parts<'a> = &'a [(usize, &'a [u8])];

    /// A device of zeros with these bytes at these places.
    fn device(parts: Parts) -> Vec<u8> {
        let mut device = vec![0; DEVICE_BYTES];
        for (offset, bytes) in parts {
            device[*offset..][..bytes.len()].copy_from_slice(bytes);
        }
        device
    }

    #[test]
    fn one_device_of_each_kind() {
        let end = DEVICE_BYTES;
        let cases: [(Parts, &str); 30] = [
            (&[], "blank"),
            (&[(1_200_000, b"x")], "blank"),
            (&[(60_000, b"x")], "unknown data"),
            (&[(end - 1, b"x")], "unknown data"),
            (
                &[(512, b"EFI PART"), (450, b"\xee"), (510, b"\x55\xaa")],
                "gpt",
            ),
            (&[(4096, b"EFI PART")], "gpt"),
            (&[(end - 512, b"EFI PART")], "backup gpt"),
            (&[(end - 4096, b"EFI PART")], "backup gpt"),
            (&[(450, b"\x83"), (510, b"\x55\xaa")], "mbr"),
            (&[(446, b"\x80"), (450, b"\x83"), (510, b"\x55\xaa")], "mbr"),
            (&[(510, b"\x55\xaa")], "unknown data"),
            (
                &[(446, b"\x80code"), (510, b"\x55\xaa"), (462, b"\x33")],
                "unknown data",
            ),
            (&[(0, b"LUKS\xba\xbe\0\x01"), (8, b"aes")], "LUKS"),
            (
                &[(0, b"LUKS\xba\xbe\0\x02"), (24, b"vault")],
                "LUKS \"vault\"",
            ),
            (&[(512, b"LABELONE"), (536, b"LVM2 001")], "LVM2"),
            (&[(4096, MD_MAGIC), (4128, b"srv:0")], "RAID \"srv:0\""),
            (&[(end - 8192, MD_MAGIC), (1080, b"\x53\xef")], "ext2, RAID"),
            (&[(end - 65536, MD_MAGIC)], "RAID"),
            (&[(4086, b"SWAPSPACE2"), (1052, b"swap0")], "swap \"swap0\""),
            (&[(65526, b"SWAPSPACE2")], "swap"),
            (
                &[(0, b"XFSB"), (108, b"twelve bytes")],
                "xfs \"twelve bytes\"",
            ),
            (&[(65600, b"_BHRfS_M"), (65835, b"pool")], "btrfs \"pool\""),
            (&[(0, b"hsqs")], "squashfs"),
            (&[(82, b"FAT32   "), (71, b"NO NAME    ")], "vfat"),
            (&[(54, b"FAT12   "), (43, b"EFI        ")], "vfat \"EFI\""),
            (&[(3, b"EXFAT   ")], "exfat"),
            (&[(3, b"NTFS    ")], "ntfs"),
            (
                &[(1080, b"\x53\xef"), (1116, b"\x3c\0\0\0\x42\x02\0\0")],
                "ext4",
            ),
            (
                &[
                    (1080, b"\x53\xef"),
                    (1116, b"\x04\0\0\0\x02\0\0\0\x03"),
                    (1144, b"home"),
                ],
                "ext3 \"home\"",
            ),
            (
                &[
                    (450, b"\x17"),
                    (510, b"\x55\xaa"),
                    (32768, b"\x01CD001\x01"),
                    (32808, b"d-live 12 "),
                ],
                "iso9660 \"d-live 12\", mbr",
            ),
        ];
        for (parts, expected) in cases {
            assert_eq!(names(&device(parts)), expected, "{parts:x?}");
        }
    }

    /// Each row of the tables, alone on devices of several lengths: it is named, its bytes are
    /// those that were put there, and without them nothing is found.
    #[test]
    fn every_signature_is_found_at_its_place_and_gone_without_its_bytes() {
        for extra in [0, 512, 7 * 512, 4096 + 1536, 300_000, 777] {
            let length = (5 << 20) + extra;
            let starts = STARTS
                .iter()
                .map(|&(kind, offset, magic, _)| (kind, offset, magic));
            let ends = ENDS.iter().map(|&(kind, unit, back, magic)| {
                (kind, length as u64 / unit * unit - back, magic)
            });
            for (kind, offset, magic) in starts.chain(ends) {
                let mut device = vec![0; length];
                device[offset as usize..][..magic.len()].copy_from_slice(magic);
                let found = signatures(&device).found;
                let expected = [Signature::bare(kind, offset, magic.len())];
                let places = found.iter().map(|one| (one.kind, one.magics.clone()));
                let wanted = expected.iter().map(|one| (one.kind, one.magics.clone()));
                assert!(places.eq(wanted), "{length}: {kind} at {offset}: {found:?}");
                for magic in found.iter().flat_map(|one| &one.magics) {
                    device[magic.start as usize..magic.end as usize].fill(0);
                }
                assert_eq!(names(&device), "blank", "{length}: {kind} at {offset}");
            }
        }
    }

    #[test]
    fn labels_of_zfs_are_found_at_both_ends() {
        let list = b"\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\0\0\x24\0\0\0\x20\0\0\0\x07version\0";
        let block = 0x00ba_b10c_u64.to_le_bytes();
        let other = 0x00ba_b10c_u64.to_be_bytes();
        for extra in [0, 512, 200_000, (256 << 10) - 1] {
            let mut device = vec![0; (4 << 20) + extra];
            let labels = [
                0,
                256 << 10,
                (4 << 20) - (512 << 10),
                (4 << 20) - (256 << 10),
            ];
            for start in labels {
                device[start + (16 << 10)..][..list.len()].copy_from_slice(list);
                device[start + (128 << 10)..][..8].copy_from_slice(&block);
                device[start + (255 << 10)..][..8].copy_from_slice(&other);
            }
            let found = signatures(&device).found;
            let starts = labels.map(|start| start as u64 + (16 << 10));
            assert!(
                found.iter().map(|one| one.magics[0].start).eq(starts),
                "{extra}"
            );
            assert!(
                found
                    .iter()
                    .all(|one| one.kind == "ZFS" && one.magics.len() == 3)
            );
            for magic in found.iter().flat_map(|one| &one.magics) {
                device[magic.start as usize..magic.end as usize].fill(0);
            }
            assert_eq!(names(&device), "unknown data", "names and values stay");
        }
        // On a small device the labels are the same ones.
        let mut small = vec![0; 600 << 10];
        small[16 << 10..][..list.len()].copy_from_slice(list);
        assert_eq!(signatures(&small).found.len(), 1);
    }

    #[test]
    fn weak_magic_numbers_count_with_their_checksum() {
        let end = DEVICE_BYTES - 512;
        let mut via = [0; 51];
        (via[0], via[1], via[2], via[50]) = (0x55, 0xaa, 1, 0);
        assert_eq!(names(&device(&[(end, &via)])), "VIA RAID");
        via[50] = 1;
        assert_eq!(names(&device(&[(end, &via)])), "unknown data");
        let silicon: Parts = &[(end + 0x60, b"\0\0\0\x2f"), (end + 0x13e, b"\0\xd1")];
        assert_eq!(names(&device(silicon)), "Silicon Image RAID");
        assert_eq!(names(&device(&silicon[..1])), "unknown data");
        let length = (DEVICE_BYTES as u64).to_le_bytes();
        let nilfs: Parts = &[(end - 3584 + 6, b"44"), (end - 3584 + 32, &length)];
        assert_eq!(names(&device(nilfs)), "nilfs2");
        assert_eq!(names(&device(&nilfs[..1])), "unknown data");
    }

    #[test]
    fn control_characters_in_labels_are_replaced() {
        let nasty = device(&[(0, b"XFSB"), (108, b"\x1b[2Jgone\r\n")]);
        assert_eq!(names(&nasty), "xfs \"\u{fffd}[2Jgone\"");
        let long = device(&[(65600, b"_BHRfS_M"), (65835, &[b'a'; 256])]);
        assert_eq!(names(&long), format!("btrfs \"{}\"", "a".repeat(64)));
    }

    /// Devices of any size, cut anywhere, never panic.
    #[test]
    fn short_devices_show_less() {
        let full = device(&[
            (0, b"XFSB"),
            (1080, b"\x53\xef"),
            (65600, b"_BHRfS_M"),
            (510, b"\x55\xaa"),
        ]);
        for length in (0..2000).chain([4096, 65_599, 65_608, 70_000, 200_000]) {
            let text = names(&full[..length]);
            assert_eq!(text.contains("ext"), length >= 1128, "{length}: {text}");
            assert_eq!(text.contains("btrfs"), length >= 65_608, "{length}: {text}");
        }
        assert_eq!(names(&[]), "blank");
        let huge = Signatures::read(u64::MAX, &mut |_| Ok::<_, ()>(MD_MAGIC.to_vec()));
        assert_eq!(huge.unwrap().to_string(), "RAID");
    }

    /// File systems as Debian's tools write them. A tool that is not installed is skipped, and the
    /// test says so.
    #[test]
    fn file_systems_of_real_tools_are_named() {
        let cases: [(&str, u64, &[&str], &str); 10] = [
            (
                "mke2fs",
                8,
                &["-q", "-F", "-t", "ext2", "-L", "boot"],
                "ext2 \"boot\"",
            ),
            (
                "mke2fs",
                8,
                &["-q", "-F", "-t", "ext3", "-L", "sixteen letters!"],
                "ext3 \"sixteen letters!\"",
            ),
            ("mke2fs", 8, &["-q", "-F", "-t", "ext4"], "ext4"),
            (
                "mkfs.vfat",
                8,
                &["-F", "12", "-n", "STICK"],
                "vfat \"STICK\"",
            ),
            ("mkfs.vfat", 32, &["-F", "16"], "vfat"),
            (
                "mkfs.vfat",
                64,
                &["-F", "32", "-n", "EFI SYSTEM"],
                "vfat \"EFI SYSTEM\"",
            ),
            ("mkswap", 8, &["-L", "swap-0"], "swap \"swap-0\""),
            ("mkfs.xfs", 320, &["-q", "-L", "data"], "xfs \"data\""),
            ("mkfs.btrfs", 320, &["-q", "-L", "pool"], "btrfs \"pool\""),
            ("sgdisk", 8, &["--new=1:2048:4095"], "gpt"),
        ];
        for (index, (tool, mib, arguments, expected)) in cases.into_iter().enumerate() {
            let path =
                std::env::temp_dir().join(format!("signatures-{}-{index}", std::process::id()));
            let file = std::fs::File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)
                .unwrap();
            file.set_len(mib << 20).unwrap();
            let mut command = Command::new(tool);
            command
                .args(arguments)
                .arg(&path)
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let made = command
                .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
                .status();
            let mut read = |part: Range<u64>| {
                let mut bytes = vec![0; (part.end - part.start) as usize];
                file.read_exact_at(&mut bytes, part.start).map(|()| bytes)
            };
            let found = Signatures::read(mib << 20, &mut read).unwrap();
            std::fs::remove_file(&path).unwrap();
            match made {
                Ok(status) if status.success() => {
                    assert_eq!(found.to_string(), expected, "{tool} {arguments:?}");
                }
                _ => std::println!("skipped: {tool} {arguments:?}: not here, or not able"),
            }
        }
    }
}
