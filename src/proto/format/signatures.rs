//! What is on this disk or partition: which partition table, which file system, under which label?
//!
//! The bytes of both ends come in, names come out, so that an administrator sees what is about to
//! be overwritten. Everything found is named, also what an earlier use of the disk left behind.
//! Nothing is decided here: a disk with contents is overwritten like a blank one.
//!
//! Read first: libblkid/src/superblocks and libblkid/src/partitions of util-linux, which know many
//! more.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::text::printable;

/// Bytes that are read from the beginning: btrfs has its signature behind 64 KiB, and no signature
/// of interest is later.
pub const HEAD_BYTES: usize = 72 << 10;
/// Bytes that are read from the end: RAID 0.90 begins 64 to 128 KiB before the end.
pub const TAIL_BYTES: usize = 128 << 10;

/// What was recognised: first in the order of [`MAGICS`], then what has a function of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signatures {
    pub found: Vec<Signature>,
    /// All bytes of both ends are zero.
    blank: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    pub kind: &'static str,
    /// Empty if there is no label, or none at a fixed place.
    pub label: String,
}

impl Signatures {
    /// `head` and `tail` are the first and the last bytes of a device of `device_bytes`. With fewer
    /// than [`HEAD_BYTES`] and [`TAIL_BYTES`] less is found.
    pub fn of(head: &[u8], tail: &[u8], device_bytes: u64) -> Signatures {
        let mut found: Vec<Signature> = Vec::new();
        for &(kind, offset, magic, label) in &MAGICS {
            if at(head, offset, magic.len()) == magic
                && found.iter().all(|known| known.kind != kind)
            {
                found.push(Signature {
                    kind,
                    label: read_label(head, label),
                });
            }
        }
        let table_gone = found.is_empty();
        let others = [
            ext(head).map(|kind| Signature {
                kind,
                label: read_label(head, (1144, 16)),
            }),
            mbr(head)
                .then(|| Signature::bare("mbr"))
                .filter(|_| found.iter().all(|one| one.kind != "gpt")),
            raid_at_end(tail, device_bytes).then(|| Signature::bare("RAID")),
            (table_gone && backup_gpt(tail)).then(|| Signature::bare("backup gpt")),
        ];
        found.extend(others.into_iter().flatten());
        let blank = [head, tail]
            .iter()
            .all(|bytes| bytes.iter().all(|&byte| byte == 0));
        Signatures { found, blank }
    }
}

impl Signature {
    fn bare(kind: &'static str) -> Signature {
        Signature {
            kind,
            label: String::new(),
        }
    }
}

/// `gpt`, `ext4 "root"`, `RAID "srv:0", ext4`, `blank`, `unknown data`
impl fmt::Display for Signatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.found.is_empty() {
            return f.write_str(if self.blank { "blank" } else { "unknown data" });
        }
        for (index, Signature { kind, label }) in self.found.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{kind}")?;
            if !label.is_empty() {
                write!(f, " \"{label}\"")?;
            }
        }
        Ok(())
    }
}

/// Kind, place and bytes of the magic number, place and length of the label (length 0: no label).
type Magic = (&'static str, usize, &'static [u8], (usize, usize));

const NO_LABEL: (usize, usize) = (0, 0);
const MD_MAGIC: &[u8] = b"\xfc\x4e\x2b\xa9";

/// Partition tables first, then what holds other devices, then file systems. Signatures that take
/// more than one comparison have a function below.
const MAGICS: [Magic; 26] = [
    // UEFI 2.10, 5.3.2: the header is in LBA 1, and sectors have two sizes.
    ("gpt", 512, b"EFI PART", NO_LABEL),
    ("gpt", 4096, b"EFI PART", NO_LABEL),
    // LUKS on-disk format, versions 1 and 2.
    ("LUKS", 0, b"LUKS\xba\xbe\0\x01", NO_LABEL),
    ("LUKS", 0, b"LUKS\xba\xbe\0\x02", (24, 48)),
    ("BitLocker", 3, b"-FVE-FS-", NO_LABEL),
    // lib/label/label.h of LVM2: in one of the first four sectors; all write the second.
    ("LVM2", 512 + 24, b"LVM2 001", NO_LABEL),
    // include/uapi/linux/raid/md_p.h: format 1.1 is at the start, 1.2 at 4096. For the formats at
    // the end see `raid_at_end`.
    ("RAID", 0, MD_MAGIC, (32, 32)),
    ("RAID", 4096, MD_MAGIC, (4096 + 32, 32)),
    // include/linux/swap.h: the last ten bytes of the first page, and pages have sizes.
    ("swap", 4096 - 10, b"SWAPSPACE2", (1052, 16)),
    ("swap", 16384 - 10, b"SWAPSPACE2", (1052, 16)),
    ("swap", 65536 - 10, b"SWAPSPACE2", (1052, 16)),
    ("hibernated system", 4096 - 10, b"S1SUSPEND\0", NO_LABEL),
    // The kernel's fs/xfs/libxfs/xfs_format.h, uapi/linux/btrfs_tree.h, uapi/linux/magic.h.
    ("xfs", 0, b"XFSB", (108, 12)),
    ("btrfs", 65536 + 64, b"_BHRfS_M", (65536 + 299, 256)),
    ("f2fs", 1024, b"\x10\x20\xf5\xf2", NO_LABEL),
    ("squashfs", 0, b"hsqs", NO_LABEL),
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
];

/// The bytes at this place, or none unless all of them are there.
fn at(bytes: &[u8], offset: usize, length: usize) -> &[u8] {
    bytes
        .get(offset..)
        .and_then(|rest| rest.get(..length))
        .unwrap_or_default()
}

/// The label up to the first NUL, without padding. Anybody may have written it, and it is shown on
/// terminals.
fn read_label(head: &[u8], (offset, length): (usize, usize)) -> String {
    const SHOWN_BYTES_MAX: usize = 64;
    let bytes = at(head, offset, length);
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

/// Three file systems have the same magic number; the features tell which it is (fs/ext4/ext4.h).
/// Features that ext3 does not know make it ext4, else a journal makes it ext3.
fn ext(head: &[u8]) -> Option<&'static str> {
    /// Features that ext3 knows: filetype, recover, journal_dev, meta_bg; sparse_super, large_file,
    /// btree_dir.
    const INCOMPAT_EXT3: u32 = 0x001e;
    const RO_COMPAT_EXT3: u32 = 0x0007;
    const HAS_JOURNAL: u32 = 0x0004;
    let feature = |offset: usize| {
        let word: [u8; 4] = at(head, 1024 + offset, 4).try_into().ok()?;
        Some(u32::from_le_bytes(word))
    };
    if at(head, 1080, 2) != b"\x53\xef" {
        return None;
    }
    let (compat, incompat, ro_compat) = (feature(0x5c)?, feature(0x60)?, feature(0x64)?);
    Some(match () {
        () if incompat & !INCOMPAT_EXT3 != 0 || ro_compat & !RO_COMPAT_EXT3 != 0 => "ext4",
        () if compat & HAS_JOURNAL != 0 => "ext3",
        () => "ext2",
    })
}

/// The boot sector of a file system has the same signature. In a partition table all four entries
/// also have a valid status, and at least one is in use.
fn mbr(head: &[u8]) -> bool {
    let entries = at(head, 446, 64).chunks_exact(16);
    at(head, 510, 2) == b"\x55\xaa"
        && entries.clone().all(|entry| entry[0] & 0x7f == 0)
        && entries.clone().any(|entry| entry[4] != 0)
}

/// Formats 1.0 and 0.90, at places counted from the end of the device (md_p.h, drivers/md/md.c).
fn raid_at_end(tail: &[u8], device_bytes: u64) -> bool {
    let tail_start = device_bytes.saturating_sub(tail.len() as u64);
    let version_1_0 = (device_bytes / 512).saturating_sub(16) / 8 * 8 * 512;
    let version_0_90 = (device_bytes >> 16 << 16).saturating_sub(1 << 16);
    [version_1_0, version_0_90].iter().any(|place| {
        let offset = place
            .checked_sub(tail_start)
            .and_then(|offset| usize::try_from(offset).ok());
        offset.is_some_and(|offset| at(tail, offset, 4) == MD_MAGIC)
    })
}

/// The backup in the last sector, which is left when the start of the disk was wiped.
fn backup_gpt(tail: &[u8]) -> bool {
    [512, 4096].iter().any(|sector| {
        tail.len()
            .checked_sub(*sector)
            .is_some_and(|offset| at(tail, offset, 8) == b"EFI PART")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::os::unix::fs::FileExt;
    use std::process::{Command, Stdio};
    use std::string::ToString;
    use std::vec;

    const DEVICE_BYTES: usize = 1 << 20;

    fn names(device: &[u8]) -> String {
        let tail = &device[device.len().saturating_sub(TAIL_BYTES)..];
        let head = &device[..HEAD_BYTES.min(device.len())];
        Signatures::of(head, tail, device.len() as u64).to_string()
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
            (&[(300_000, b"x")], "blank"),
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
        assert_eq!(Signatures::of(&[], &[], 0).to_string(), "blank");
        assert_eq!(
            Signatures::of(&[], MD_MAGIC, u64::MAX).to_string(),
            "unknown data"
        );
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
            let (mut head, mut tail) = (vec![0; HEAD_BYTES], vec![0; TAIL_BYTES]);
            file.read_exact_at(&mut head, 0).unwrap();
            file.read_exact_at(&mut tail, (mib << 20) - TAIL_BYTES as u64)
                .unwrap();
            std::fs::remove_file(&path).unwrap();
            match made {
                Ok(status) if status.success() => {
                    let text = Signatures::of(&head, &tail, mib << 20).to_string();
                    assert_eq!(text, expected, "{tool} {arguments:?}");
                }
                _ => std::println!("skipped: {tool} {arguments:?}: not here, or not able"),
            }
        }
    }
}
