//! What does a partclone image describe, and is it whole?
//!
//! An image is a header, a map of all blocks of a partition, and then its used blocks, with a
//! checksum after each strip of them. The map is read once, in pieces, and never kept: what it says
//! becomes runs of used blocks, and where the bytes lie follows from the header alone
//! (`partclone_data`).
//!
//! Read first: IMAGE_FORMATS.md and src/partclone.c of partclone. Its document gives the checksum
//! modes other numbers than its images have: there they are 0, 0x20, 0x30 and 0x31.
//!
//! ```text
//! version 0002    header 110    map, CRC-32 of it    blocks, checksum, blocks, checksum, ...
//! version 0001    header 4160   map, "BiTmAgIc"      block, checksum, block, checksum, ...
//! ```

use crate::format::crc32::crc32;
use crate::format::gpt::u64_at;
use crate::format::mbr::u32_at;
use crate::format::partclone_data::{Data, Strips};
use crate::format::partclone_error::{ImageError, check_sum};
use crate::format::partclone_map::{Map, MapReader};
use crate::units::DiskOffset;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

/// What every image begins with. Version 0002 has a NUL behind it.
pub const MAGIC: &[u8] = b"partclone-image";

/// What is read of the header: in version 0001 nothing is in the other 4096 bytes.
const HEAD_BYTES: usize = 110;

/// Where the map begins in version 0001.
const OLD_MAP_START: u64 = 4160;

/// Read of the map at once.
const MAP_PART_BYTES: u64 = 64 << 10;

/// Largest block and most blocks, as in partclone.
const BLOCK_BYTES_MAX: u32 = 64 << 20;
const BLOCK_COUNT_MAX: u64 = 1 << 43;

/// Longest map of blocks: 32 TiB of 4 KiB blocks, a bit each. It is read at once.
const MAP_BYTES_MAX: u64 = 1 << 30;

/// An image that is whole, as far as its length, its header and its map say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub header: Header,
    /// Used blocks according to the map. The header may be wrong about them.
    pub used_blocks: u64,
    /// Where the bytes are.
    pub data: Data,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub version: Version,
    /// As partclone calls it: EXTFS, NTFS, FAT32.
    pub file_system: String,
    /// Of the partition or disk that the image was made of.
    pub device_bytes: u64,
    pub block_bytes: u32,
    /// Of the file system: used or not.
    pub total_blocks: u64,
    /// Used blocks according to the header.
    pub stated_blocks: u64,
    pub checksum: Checksum,
    /// Blocks in front of each checksum; 0 without checksums.
    pub strip_blocks: u32,
    /// Every checksum begins anew, and does not go on from the one before.
    pub reseed: bool,
    map: Map,
    map_start: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 0001, before partclone 0.3.
    Old,
    /// 0002.
    New,
}

/// What is stored behind the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    Nothing,
    Crc32,
    /// Version 0001: of the first byte of the block, so to check it proves nothing.
    FirstByte,
    Xxh64,
    Xxh128,
}

impl Image {
    /// The image in a file of this length. `read` gets bytes of the file that are there, at most
    /// 64 KiB at once; `None` ends it. `on_run` gets where in the partition each run of used blocks
    /// begins and how long it is, in bytes, in rising order; between two of them are unused blocks.
    pub fn read(
        file_bytes: u64,
        read: &mut dyn FnMut(Range<u64>) -> Option<Vec<u8>>,
        on_run: &mut dyn FnMut(DiskOffset, u64),
    ) -> Result<Image, ImageError> {
        let mut read = |range: Range<u64>, what: &'static str| match range.end <= file_bytes {
            true => read(range).ok_or(ImageError::Unread),
            false => Err(ImageError::Truncated {
                file_bytes,
                needed_bytes: range.end,
                what,
            }),
        };
        let magic = read(0..MAGIC.len() as u64, "header")?;
        if magic != MAGIC {
            return Err(ImageError::At(
                0,
                "it does not begin with 'partclone-image'",
            ));
        }
        let header = Header::parse(&read(0..HEAD_BYTES as u64, "header")?)?;
        let map_end = header.map_start + header.map.bytes(header.total_blocks);
        // Behind it are four bytes of CRC-32, or eight of magic.
        let data_start = map_end + header.map.trailer_bytes();
        let mut map = MapReader::new(header.map, header.block_bytes, header.total_blocks, on_run);
        let trailer = read(map_end..data_start, "map of blocks")?;
        let mut at = header.map_start;
        while at < map_end {
            let end = map_end.min(at + MAP_PART_BYTES);
            map.take(&read(at..end, "map of blocks")?);
            at = end;
        }
        let used_blocks = map.finish(&trailer, map_end)?;
        let data = header.data(data_start, used_blocks, file_bytes);
        // How long its checksums are, its length alone says.
        if header.version == Version::Old && used_blocks > 0 && file_bytes > data.end() {
            let why = "more follows, and version 0001 does not say where its blocks are";
            return Err(ImageError::At(data.end(), why));
        }
        if file_bytes < data.end() {
            return Err(ImageError::Truncated {
                file_bytes,
                needed_bytes: data.end(),
                what: "blocks",
            });
        }
        Ok(Image {
            header,
            used_blocks,
            data,
        })
    }
}

impl Image {
    /// What checks the checksums of the blocks, if they can be checked.
    pub fn strips(&self) -> Option<Strips> {
        let Header {
            checksum,
            reseed,
            block_bytes,
            ..
        } = self.header;
        let strips = || Strips::new(self.data, reseed, block_bytes.into());
        (checksum == Checksum::Crc32).then(strips)
    }
}

// ---- the header

impl Header {
    /// Of the first `HEAD_BYTES` of a file.
    fn parse(head: &[u8]) -> Result<Header, ImageError> {
        let header = match &head[30..34] {
            b"0001" => Header::old(head),
            b"0002" => Header::new(head)?,
            _ => return Err(ImageError::At(30, "its version is neither 0001 nor 0002")),
        };
        header.check()?;
        Ok(header)
    }

    fn old(head: &[u8]) -> Header {
        Header {
            version: Version::Old,
            file_system: text(&head[15..30]),
            block_bytes: u32_at(head, 36),
            device_bytes: u64_at(head, 40),
            total_blocks: u64_at(head, 48),
            stated_blocks: u64_at(head, 56),
            checksum: Checksum::FirstByte,
            strip_blocks: 1,
            reseed: false,
            map: Map::Bytes,
            map_start: OLD_MAP_START,
        }
    }

    fn new(head: &[u8]) -> Result<Header, ImageError> {
        const SUM: usize = 106;
        // A machine with the highest byte first writes all numbers so.
        if head[34..36] != [0xde, 0xc0] {
            let why = "it was made on a machine with another order of bytes";
            return Err(ImageError::At(34, why));
        }
        check_sum(
            "header",
            SUM as u64,
            !crc32(&head[..SUM]),
            u32_at(head, SUM),
        )?;
        let field = |name, at: u32, value| Err(ImageError::Field(name, at.into(), value));
        // Mode, and the size of a checksum behind it.
        let checksum = match u32_at(head, 96) {
            0 => Checksum::Nothing,
            0x4_0020 => Checksum::Crc32,
            0x8_0030 => Checksum::Xxh64,
            0x10_0031 => Checksum::Xxh128,
            other => return field("checksum mode and size", 96, other.into()),
        };
        let strip_blocks = u32_at(head, 100);
        if (strip_blocks == 0) != (checksum == Checksum::Nothing) {
            return field("number of blocks per checksum", 100, strip_blocks.into());
        }
        let map = match head[105] {
            0 => Map::Nothing,
            1 => Map::Bits,
            8 => Map::Bytes,
            other => return field("bitmap mode", 105, other.into()),
        };
        Ok(Header {
            version: Version::New,
            file_system: text(&head[36..52]),
            device_bytes: u64_at(head, 52),
            total_blocks: u64_at(head, 60),
            // In front of it is the number of the superblock, which counts otherwise.
            stated_blocks: u64_at(head, 76),
            block_bytes: u32_at(head, 84),
            checksum,
            strip_blocks,
            reseed: head[104] != 0,
            map,
            map_start: HEAD_BYTES as u64,
        })
    }

    /// Bounds what follows: no arithmetic with these numbers overflows.
    fn check(&self) -> Result<(), ImageError> {
        let [block, total, device] = match self.version {
            Version::Old => [36, 48, 40],
            Version::New => [84, 60, 52],
        };
        let field = |name, offset, value| Err(ImageError::Field(name, offset, value));
        let (block_bytes, total_blocks) = (self.block_bytes, self.total_blocks);
        if !(1..=BLOCK_BYTES_MAX).contains(&block_bytes) {
            return field("block size", block, block_bytes.into());
        }
        if !(1..=BLOCK_COUNT_MAX).contains(&total_blocks)
            || self.map.bytes(total_blocks) > MAP_BYTES_MAX
        {
            return field("number of blocks", total, total_blocks);
        }
        let device_bytes = self.device_bytes;
        if i64::try_from(device_bytes).is_err() {
            return field("device size", device, device_bytes);
        }
        match total_blocks.checked_mul(block_bytes.into()) {
            Some(bytes) if bytes <= device_bytes => Ok(()),
            _ => Err(ImageError::SmallDevice {
                offset: device,
                device_bytes,
                total_blocks,
                block_bytes,
            }),
        }
    }

    /// How much of the partition the file system has.
    pub fn total_bytes(&self) -> u64 {
        self.total_blocks * u64::from(self.block_bytes)
    }

    /// Where this many blocks lie that begin at `start`.
    fn data(&self, start: u64, used_blocks: u64, file_bytes: u64) -> Data {
        let data = |checksum_bytes| {
            Data::new(
                start,
                used_blocks * u64::from(self.block_bytes),
                u64::from(self.block_bytes) * u64::from(self.strip_blocks),
                checksum_bytes,
            )
        };
        // Some images of partclone before 0.1, on machines of 64 bits, have 8 bytes a checksum.
        // Nothing in them says so but the length of the file.
        let wide = data(8);
        match self.version {
            Version::Old if used_blocks > 0 && wide.end() == file_bytes => wide,
            _ => data(self.checksum.bytes()),
        }
    }
}

impl Checksum {
    fn bytes(self) -> u64 {
        match self {
            Checksum::Nothing => 0,
            Checksum::Crc32 | Checksum::FirstByte => 4,
            Checksum::Xxh64 => 8,
            Checksum::Xxh128 => 16,
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Checksum::Nothing => "none",
            Checksum::Crc32 => "CRC-32",
            Checksum::FirstByte => "CRC-32 of first bytes",
            Checksum::Xxh64 => "XXH64",
            Checksum::Xxh128 => "XXH128",
        })
    }
}

/// The text in front of a NUL, fit for a terminal.
fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let printable = |&byte: &u8| match byte {
        b' '..=b'~' => char::from(byte),
        _ => '?',
    };
    text.iter().map(printable).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::rng::Rng;
    use alloc::string::ToString;
    use alloc::vec;

    /// The first bytes of what partclone.ext4 0.3.23 makes of a file system of 64 KiB with `-k 3`:
    /// header, bitmap, its CRC-32.
    const EXT: &[u8; 122] = b"partclone-image\x000.3.23\0\0\0\0\0\0\0\x000002\xde\xc0\
        EXTFS\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\x40\0\0\0\0\0\0\0\x17\0\0\0\0\0\0\0\
        \x17\0\0\0\0\0\0\0\0\x04\0\0\x12\0\0\0\x02\0\x40\0\x20\0\x04\0\x03\0\0\0\x01\x01\
        \xaf\x50\xd8\x42\xff\xff\x7f\0\0\0\0\0\x54\xd3\xd4\xd4";

    /// Its blocks and checksums do not matter here.
    fn ext() -> Vec<u8> {
        let mut image = EXT.to_vec();
        image.resize(122 + 23 * 1024 + 8 * 4, 7);
        image
    }

    type Runs = Vec<(u64, u64)>;

    fn read(image: &[u8]) -> Result<(Image, Runs), ImageError> {
        let mut runs = Vec::new();
        let mut part = |range: Range<u64>| {
            assert!(range.end - range.start <= MAP_PART_BYTES);
            Some(image[range.start as usize..range.end as usize].to_vec())
        };
        let mut on_run = |start: DiskOffset, length| runs.push((start.0, length));
        let image = Image::read(image.len() as u64, &mut part, &mut on_run)?;
        Ok((image, runs))
    }

    fn error(image: &[u8]) -> String {
        read(image).unwrap_err().to_string()
    }

    #[test]
    fn the_image_of_an_ext4_is_read() {
        let (image, runs) = read(&ext()).unwrap();
        assert_eq!(runs, [(0, 23 * 1024)]);
        let expected = Image {
            header: Header {
                version: Version::New,
                file_system: "EXTFS".into(),
                device_bytes: 64 << 10,
                block_bytes: 1024,
                total_blocks: 64,
                stated_blocks: 23,
                checksum: Checksum::Crc32,
                strip_blocks: 3,
                reseed: true,
                map: Map::Bits,
                map_start: 110,
            },
            used_blocks: 23,
            data: Data::new(122, 23 * 1024, 3 * 1024, 4),
        };
        assert_eq!(image, expected);
    }

    #[test]
    fn an_image_that_is_cut_anywhere_is_refused() {
        let image = ext();
        for length in 0..image.len() {
            let said = error(&image[..length]);
            let (what, end) = match length {
                0..15 => ("header", 15),
                15..110 => ("header", 110),
                110..122 => ("map of blocks", 122),
                _ => ("blocks", 122 + 23 * 1024 + 8 * 4),
            };
            let expected =
                format!("it is cut short: it ends at byte {length}, its {what} at byte {end}");
            assert_eq!(said, expected);
        }
        // Padding, as on a tape or a device.
        read(&[&image[..], &[0; 700]].concat()).unwrap();
    }

    #[test]
    fn every_damaged_byte_of_header_and_map_is_noticed() {
        for at in 0..122 {
            let mut image = ext();
            image[at] ^= 0x10;
            let said = error(&image);
            let expected = match at {
                0..15 => "byte 0: it does not begin with 'partclone-image'",
                30..34 => "byte 30: its version is neither 0001 nor 0002",
                34..36 => "byte 34: it was made on a machine with another order of bytes",
                15..110 => "the header is damaged: its CRC-32 is ",
                _ => "the map of blocks is damaged: its CRC-32 is ",
            };
            assert!(said.starts_with(expected), "byte {at}: {said}");
        }
        let mut image = ext();
        image[112] = 0x7e;
        assert_eq!(
            error(&image),
            "the map of blocks is damaged: its CRC-32 is 1f8800f1, at byte 118 is d4d4d354"
        );
    }

    /// With a header that is right but for these bytes.
    fn patched(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut image = ext();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        let sum = !crc32fast::hash(&image[..106]);
        image[106..110].copy_from_slice(&sum.to_le_bytes());
        image
    }

    #[test]
    fn fields_out_of_range_are_refused_with_their_offset() {
        let cases: [(usize, &[u8], &str); 12] = [
            (30, b"0003", "byte 30: its version is neither 0001 nor 0002"),
            (84, &[0; 4], "byte 84: the block size cannot be 0"),
            (
                84,
                &[1, 0, 0, 4],
                "byte 84: the block size cannot be 67108865",
            ),
            (60, &[0; 8], "byte 60: the number of blocks cannot be 0"),
            (
                60,
                &[1, 0, 0, 0, 0, 8, 0, 0],
                "byte 60: the number of blocks cannot be 8796093022209",
            ),
            (
                52,
                &[0xff; 8],
                "byte 52: the device size cannot be 18446744073709551615",
            ),
            (
                60,
                &[65, 0, 0, 0, 0, 0, 0, 0],
                "byte 52: a device of 65536 bytes has no room for 65 blocks of 1024 bytes",
            ),
            (
                96,
                &[1, 0],
                "byte 96: the checksum mode and size cannot be 262145",
            ),
            (
                98,
                &[8, 0],
                "byte 96: the checksum mode and size cannot be 524320",
            ),
            (
                100,
                &[0; 4],
                "byte 100: the number of blocks per checksum cannot be 0",
            ),
            (
                96,
                &[0; 4],
                "byte 100: the number of blocks per checksum cannot be 3",
            ),
            (105, &[2], "byte 105: the bitmap mode cannot be 2"),
        ];
        for (at, bytes, expected) in cases {
            assert_eq!(error(&patched(at, bytes)), expected);
        }
    }

    #[test]
    fn a_wrong_number_of_used_blocks_is_counted_again() {
        let (image, _) = read(&patched(76, &[99])).unwrap();
        assert_eq!((image.header.stated_blocks, image.used_blocks), (99, 23));
    }

    /// Headers of images that partclone 0.3.23 cannot make: only the length of a strip counts.
    #[test]
    fn every_checksum_has_its_length() {
        for (mode, size, checksum) in [
            (0, 0, Checksum::Nothing),
            (0x20, 4, Checksum::Crc32),
            (0x30, 8, Checksum::Xxh64),
            (0x31, 16, Checksum::Xxh128),
        ] {
            let strip = if size == 0 { 0 } else { 3 };
            let mut image = patched(96, &[mode, 0, size, 0, strip, 0, 0, 0]);
            let end = 122 + 23 * 1024 + 8 * usize::from(size);
            image.resize(end, 7);
            let (found, _) = read(&image).unwrap();
            assert_eq!(
                (found.header.checksum, found.data.end()),
                (checksum, end as u64)
            );
            assert!(error(&image[..end - 1]).starts_with("it is cut short"));
        }
    }

    /// An image of version 0001 with these bytes as its map, and checksums of this size.
    fn old(map: &[u8], used: u64, checksum_bytes: usize) -> Vec<u8> {
        let mut image = b"partclone-imageNTFS\0\0\0\0\0\0\0\0\0\0\x000001\0\0".to_vec();
        image.extend(512u32.to_le_bytes());
        image.extend((map.len() as u64 * 512 + 300).to_le_bytes());
        image.extend((map.len() as u64).to_le_bytes());
        image.extend(used.to_le_bytes());
        image.resize(4160, 0xee);
        image.extend(map);
        image.extend(b"BiTmAgIc");
        let count = map.iter().filter(|byte| **byte == 1).count();
        image.resize(image.len() + count * (512 + checksum_bytes), 9);
        image
    }

    #[test]
    fn version_0001_is_read() {
        let image = old(&[1, 0, 1, 1, 2, 1, 255], 4, 4);
        let (found, runs) = read(&image).unwrap();
        assert_eq!(runs, [(0, 512), (1024, 1024), (2560, 512)]);
        let header = found.header;
        assert_eq!(
            (
                header.version,
                &header.file_system[..],
                header.device_bytes,
                header.block_bytes
            ),
            (Version::Old, "NTFS", 7 * 512 + 300, 512)
        );
        assert_eq!((found.used_blocks, header.stated_blocks), (4, 4));
        assert_eq!(found.data, Data::new(4175, 2048, 512, 4));
        for length in 15..image.len() {
            assert!(error(&image[..length]).starts_with("it is cut short"));
        }
        let mut image = image;
        image[4170] = b'?';
        assert_eq!(
            error(&image),
            "byte 4167: 'BiTmAgIc' is missing behind the map of blocks"
        );
    }

    /// An image that ends behind the eighth byte of its last checksum has eight, one that ends
    /// behind the fourth has four, and any other could have either.
    #[test]
    fn version_0001_with_checksums_of_eight_bytes_is_told_by_its_length() {
        let map = [1, 0, 1, 1];
        let data = |image: &[u8]| read(image).unwrap().0.data;
        let wide = old(&map, 3, 8);
        assert_eq!(data(&wide), Data::new(4172, 1536, 512, 8));
        for other in [&wide[..wide.len() - 1], &[&wide[..], &[0]].concat()] {
            let expected =
                "byte 5720: more follows, and version 0001 does not say where its blocks are";
            assert_eq!(error(other), expected);
        }
        assert_eq!(data(&old(&[0, 0], 0, 8)), Data::new(4170, 0, 512, 4));
    }

    /// The map is made of a list of used blocks, and the runs are found in that list one by one.
    #[test]
    fn the_runs_are_those_of_the_naive_twin() {
        let mut rng = Rng::new(3);
        for round in 0..300 {
            let total = 1 + u64::from(rng.below(if round % 50 == 0 { 600_000 } else { 90 }));
            let mut used = Vec::new();
            while (used.len() as u64) < total {
                let (is_used, count) = (rng.chance(1, 2), 1 + rng.below(20));
                used.resize((used.len() + count as usize).min(total as usize), is_used);
            }
            let (mut image, mut expected) = (ext()[..110].to_vec(), Runs::new());
            let as_bytes = rng.chance(1, 3);
            if as_bytes {
                image[105] = 8;
                image.extend(used.iter().map(|is_used| u8::from(*is_used)));
                image.extend(b"BiTmAgIc");
            } else {
                let mut bits = vec![0; used.len().div_ceil(8)];
                // partclone.dd sets the spare bits of the last byte.
                for (at, is_used) in used.iter().chain(&[true; 7]).enumerate() {
                    if let Some(byte) = bits.get_mut(at / 8) {
                        *byte |= u8::from(*is_used) << (at % 8);
                    }
                }
                image.extend(&bits);
                image.extend((!crc32fast::hash(&bits)).to_le_bytes());
            }
            image[84..88].copy_from_slice(&5u32.to_le_bytes());
            image[60..68].copy_from_slice(&total.to_le_bytes());
            image[52..60].copy_from_slice(&(total * 5 + 3).to_le_bytes());
            let sum = !crc32fast::hash(&image[..106]);
            image[106..110].copy_from_slice(&sum.to_le_bytes());
            for (block, _) in used.iter().enumerate().filter(|(_, is_used)| **is_used) {
                let start = block as u64 * 5;
                match expected.last_mut() {
                    Some((begun, length)) if *begun + *length == start => *length += 5,
                    _ => expected.push((start, 5)),
                }
            }
            let count = used.iter().filter(|is_used| **is_used).count();
            image.resize(image.len() + count * 5 + count.div_ceil(3) * 4, 1);
            let (found, runs) = read(&image).unwrap();
            assert_eq!((found.used_blocks, runs), (count as u64, expected));
            assert_eq!(found.data.end(), image.len() as u64);
            assert!(matches!(
                read(&image[..image.len() - 1]),
                Err(ImageError::Truncated { what: "blocks", .. })
                    | Err(ImageError::Truncated {
                        what: "map of blocks",
                        ..
                    })
            ));
        }
    }

    #[test]
    fn without_a_map_all_blocks_are_used() {
        let mut image = patched(105, &[0]);
        image.truncate(110);
        image.resize(110 + 64 * 1024 + 22 * 4, 3);
        let (found, runs) = read(&image).unwrap();
        assert_eq!(runs, [(0, 64 * 1024)]);
        assert_eq!(
            (found.used_blocks, found.data.end()),
            (64, image.len() as u64)
        );
    }

    #[test]
    fn names_are_fit_for_a_terminal() {
        let (image, _) = read(&patched(36, b"\x1b[2J\xff")).unwrap();
        assert_eq!(image.header.file_system, "?[2J?");
    }

    #[test]
    fn what_cannot_be_read_ends_it() {
        for end in [0, 110, 118] {
            let image = ext();
            let mut part = |range: Range<u64>| {
                (range.start < end)
                    .then(|| image[range.start as usize..range.end as usize].to_vec())
            };
            let result = Image::read(image.len() as u64, &mut part, &mut |_, _| {});
            assert_eq!(result, Err(ImageError::Unread));
        }
    }
}
