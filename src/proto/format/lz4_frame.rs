//! Where in a packed image do the bytes of the image lie, and what are they?
//!
//! A packed image is one frame of LZ4, as `lz4 -B16384 -BX` writes it, and `lz4 -dc` unpacks it.
//! Any block can be decoded without those before it. A frame does not say where its blocks are:
//! each begins with its length. So the lengths are read once, and of every 256 KiB of the image one
//! place is kept.
//!
//! Read first: doc/lz4_Frame_format.md of LZ4.
//!
//! ```text
//! magic, flags, sizes, a checksum    length, block, checksum    length, ...    0    checksum
//! ```

use crate::format::gpt::u64_at;
use crate::format::lz4;
use crate::format::lz4_frame_error::PackedError;
use crate::format::mbr::u32_at;
use crate::limits;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// What a frame begins with, and one of the old format, which is refused by name.
const MAGIC: u32 = 0x184d_2204;
const LEGACY_MAGIC: u32 = 0x184c_2102;
/// What a skippable frame begins with; the lowest four bits may be any.
const SKIPPABLE_MAGIC: u32 = 0x184d_2a50;

/// Sizes of blocks that are read. To send 16 KiB, a whole block is decoded.
const BLOCK_BYTES: Range<u32> = 4 << 10..(256 << 10) + 1;
/// Set in the length of a block that is stored as it is.
const STORED: u32 = 1 << 31;

/// Bytes of the image from one mark to the next, at least: a buffer of the swarm.
const STRIDE_BYTES_MIN: u64 = 256 << 10;
/// 4 MiB of memory; then every second mark is dropped. That is at 128 GiB.
const MARKS_MAX: usize = if cfg!(test) { 8 } else { 1 << 19 };

/// Read of the file at once.
const PART_BYTES: u64 = 1 << 20;

/// A packed image, and where its blocks are.
///
/// Invariant: `marks` has the place of every block whose number is a multiple of `blocks_per_mark`,
/// and behind them the end of the last block.
#[derive(Debug, PartialEq, Eq)]
pub struct Packed {
    /// Of the image.
    pub image_bytes: u64,
    /// Of the file.
    pub file_bytes: u64,
    /// What each block but the last one holds.
    pub block_bytes: u32,
    /// Each block has a checksum behind it.
    pub has_sums: bool,
    blocks_per_mark: u64,
    marks: Vec<u64>,
}

/// Whether a file begins as one, or as what LZ4 wrote before.
pub fn is_one(head: &[u8]) -> bool {
    head.len() >= 4 && [MAGIC, LEGACY_MAGIC].contains(&u32_at(head, 0))
}

impl Packed {
    /// The packed image in a file of this length. `read` gets bytes of the file that are there, at
    /// most 1 MiB at once, in rising order; `None` ends it.
    pub fn read(
        file_bytes: u64,
        read: &mut dyn FnMut(Range<u64>) -> Option<Vec<u8>>,
    ) -> Result<Packed, PackedError> {
        let mut file = File {
            file_bytes,
            read,
            start: 0,
            part: Vec::new(),
        };
        let header = Header::read(&mut file)?;
        let (mut at, mut last, mut count) = (header.length, 0, 0);
        let mut packed = Packed {
            image_bytes: 0,
            file_bytes,
            block_bytes: 0,
            has_sums: header.has_sums,
            blocks_per_mark: 1,
            marks: Vec::new(),
        };
        while let Some(length) = packed.block_length(&mut file, at, &header)? {
            match count {
                0 => packed.take_first(&mut file, at, length, &header)?,
                1 if packed.image_bytes != packed.block_bytes.into() => {
                    return Err(PackedError::BlockBytes(packed.image_bytes));
                }
                _ => {}
            }
            if count % packed.blocks_per_mark == 0 {
                packed.mark(at);
            }
            (last, at, count) = (at, at + length, count + 1);
        }
        packed.marks.push(at);
        if let Some(before) = count.checked_sub(1) {
            let last = packed.decode_at(&mut file, last, at - last, &header)?;
            packed.image_bytes = before * u64::from(packed.block_bytes) + last;
        }
        file.end(at + 4 + header.sum_bytes)?;
        match header.image_bytes {
            Some(stated) if stated != packed.image_bytes => Err(PackedError::Length {
                stated,
                found: packed.image_bytes,
            }),
            _ => Ok(packed),
        }
    }

    /// Of the block at this place, with what is in front of it and behind it. `None` if there is no
    /// other.
    fn block_length(
        &self,
        file: &mut File,
        at: u64,
        header: &Header,
    ) -> Result<Option<u64>, PackedError> {
        let length = file.u32(at)?;
        if length == 0 {
            return Ok(None);
        }
        if length & !STORED > header.block_bytes_max {
            return Err(PackedError::Block(at));
        }
        let length = 4 + u64::from(length & !STORED) + self.sum_bytes();
        match at + length <= file.file_bytes {
            true => Ok(Some(length)),
            false => Err(PackedError::Cut(file.file_bytes)),
        }
    }

    /// The first block tells how large the others are.
    fn take_first(
        &mut self,
        file: &mut File,
        at: u64,
        length: u64,
        header: &Header,
    ) -> Result<(), PackedError> {
        self.image_bytes = self.decode_at(file, at, length, header)?;
        let block_bytes = u32::try_from(self.image_bytes).expect("no block is longer");
        // That of an image of one block is not known.
        self.block_bytes = block_bytes.next_power_of_two().max(BLOCK_BYTES.start);
        self.blocks_per_mark = (STRIDE_BYTES_MIN / u64::from(self.block_bytes)).max(1);
        Ok(())
    }

    /// How many bytes of the image a block holds.
    fn decode_at(
        &self,
        file: &mut File,
        at: u64,
        length: u64,
        header: &Header,
    ) -> Result<u64, PackedError> {
        let damaged = PackedError::Block(at);
        let bytes = match length < PART_BYTES {
            true => file.bytes(at, length)?,
            false => return Err(header.refuse_block(damaged)),
        };
        let (block, _) = self.split(bytes).ok_or(damaged.clone())?;
        if !block.is_whole() {
            return Err(damaged);
        }
        let mut out = vec![0; size(u64::from(header.block_bytes_max.min(BLOCK_BYTES.end - 1)))];
        let decoded = block.decode(&mut out).filter(|&decoded| decoded > 0);
        decoded
            .map(|decoded| decoded as u64)
            .ok_or(header.refuse_block(damaged))
    }

    fn mark(&mut self, at: u64) {
        self.marks.push(at);
        if self.marks.len() == MARKS_MAX {
            let mut index = 0;
            self.marks.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.blocks_per_mark *= 2;
        }
    }

    fn sum_bytes(&self) -> u64 {
        if self.has_sums { 4 } else { 0 }
    }

    fn stride_bytes(&self) -> u64 {
        self.blocks_per_mark * u64::from(self.block_bytes)
    }

    /// The marks of the blocks that hold these bytes of the image: of the first block, and behind
    /// the last one.
    pub fn marks(&self, bytes: &Range<u64>) -> Range<usize> {
        assert!(bytes.start < bytes.end && bytes.end <= self.image_bytes);
        let stride = self.stride_bytes();
        size(bytes.start / stride)..size(bytes.end.div_ceil(stride))
    }

    /// Where in the file the blocks between these marks are.
    pub fn span(&self, marks: &Range<usize>) -> Range<u64> {
        self.marks[marks.start]..self.marks[marks.end]
    }

    /// Writes these bytes of the image to `out`. `packed` are the bytes of the file from the mark
    /// `first` on. Fails with the place of the block that is damaged.
    pub fn unpack(
        &self,
        first: usize,
        packed: &[u8],
        bytes: &Range<u64>,
        out: &mut [u8],
    ) -> Result<(), u64> {
        self.unpack_or_keep(first, packed, bytes, out, &mut |_, _| false)
    }

    /// Like `unpack`, but a block as long as those of the swarm may be left as it is, at the place
    /// of its bytes, if it has no checksum that is wrong: `keep` gets that place and its length.
    pub fn unpack_or_keep(
        &self,
        first: usize,
        packed: &[u8],
        bytes: &Range<u64>,
        mut out: &mut [u8],
        keep: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<(), u64> {
        let (mut rest, mut start) = (packed, first as u64 * self.stride_bytes());
        while start < bytes.end {
            let place = self.marks[first] + (packed.len() - rest.len()) as u64;
            let end = (start + u64::from(self.block_bytes)).min(self.image_bytes);
            let (block, behind) = self.split(rest).ok_or(place)?;
            let wanted = start.max(bytes.start)..end.min(bytes.end);
            if wanted.start < wanted.end {
                let (to, others) = out.split_at_mut(size(wanted.end - wanted.start));
                let skipped = size(wanted.start - start);
                let may_stay = wanted == (start..end) && block.may_stay(to.len());
                let at = size(wanted.start - bytes.start);
                if may_stay && keep(at, block.bytes.len()) {
                    to[..block.bytes.len()].copy_from_slice(block.bytes);
                } else {
                    block.copy(size(end - start), skipped, to).ok_or(place)?;
                }
                out = others;
            }
            (rest, start) = (behind, end);
        }
        Ok(())
    }

    /// The first block of these bytes, and what is behind it.
    fn split<'a>(&self, packed: &'a [u8]) -> Option<(Block<'a>, &'a [u8])> {
        let (length, rest) = packed.split_first_chunk()?;
        let length = u32::from_le_bytes(*length);
        let (bytes, mut rest) = rest.split_at_checked(size((length & !STORED).into()))?;
        let mut sum = None;
        if self.has_sums {
            let stored;
            (stored, rest) = rest.split_first_chunk()?;
            sum = Some(u32::from_le_bytes(*stored));
        }
        let is_stored = length & STORED != 0;
        let block = Block {
            is_stored,
            bytes,
            sum,
        };
        Some((block, rest))
    }
}

/// A block as it lies in the file.
struct Block<'a> {
    is_stored: bool,
    bytes: &'a [u8],
    sum: Option<u32>,
}

impl Block<'_> {
    fn is_whole(&self) -> bool {
        self.sum.is_none_or(|sum| sum == xxh32(self.bytes))
    }

    /// Whether it may be left as it is. It holds `length` bytes.
    fn may_stay(&self, length: usize) -> bool {
        let is_shorter = !self.is_stored && (1..length).contains(&self.bytes.len());
        is_shorter && length == limits::BLOCK_BYTES as usize && self.is_whole()
    }

    /// Its bytes of the image from `skipped` on. `None` if it does not hold `length` bytes.
    fn copy(&self, length: usize, skipped: usize, out: &mut [u8]) -> Option<()> {
        if out.len() == length {
            return self.fill(out);
        }
        let mut whole = vec![0; length];
        self.fill(&mut whole)?;
        out.copy_from_slice(&whole[skipped..][..out.len()]);
        Some(())
    }

    fn fill(&self, out: &mut [u8]) -> Option<()> {
        let is_good = self.is_whole() && self.decode(out)? == out.len();
        is_good.then_some(())
    }

    fn decode(&self, out: &mut [u8]) -> Option<usize> {
        if !self.is_stored {
            return lz4::decode(self.bytes, out);
        }
        out.get_mut(..self.bytes.len())?.copy_from_slice(self.bytes);
        Some(self.bytes.len())
    }
}

/// What a frame says of itself.
struct Header {
    length: u64,
    block_bytes_max: u32,
    has_sums: bool,
    image_bytes: Option<u64>,
    /// Of the checksum of the image, which is not read.
    sum_bytes: u64,
}

impl Header {
    fn read(file: &mut File) -> Result<Header, PackedError> {
        let magic = file.u32(0)?;
        let flags = file.u32(4)?.to_le_bytes();
        let (flag, limit) = (|bit: u8| flags[0] >> bit & 1 == 1, flags[1] >> 4);
        let other = match magic {
            LEGACY_MAGIC => "is of the legacy format of LZ4",
            _ if magic != MAGIC => "is no frame of LZ4",
            _ if flags[0] >> 6 != 1
                || flag(1)
                || !(4..8).contains(&limit)
                || flags[1] & 15 != 0 =>
            {
                "is of a version of LZ4 that is not known"
            }
            _ if flag(0) => "needs a dictionary",
            _ if !flag(5) => "has linked blocks, none can be read without those before it",
            _ => "",
        };
        if !other.is_empty() {
            return Err(PackedError::Other(other));
        }
        let sizes = if flag(3) { 8 } else { 0 };
        let length = 7 + sizes;
        let described = file.bytes(4, length - 4)?;
        let (sum, described) = described.split_last().expect("it has flags");
        if xxh32(described).to_le_bytes()[1] != *sum {
            return Err(PackedError::Header);
        }
        Ok(Header {
            length,
            block_bytes_max: 1 << (8 + 2 * limit),
            has_sums: flag(4),
            image_bytes: flag(3).then(|| u64_at(described, 2)),
            sum_bytes: if flag(2) { 4 } else { 0 },
        })
    }

    /// Why a block is not read. It may be larger than what is read.
    fn refuse_block(&self, damaged: PackedError) -> PackedError {
        match self.block_bytes_max < BLOCK_BYTES.end {
            true => damaged,
            false => PackedError::BlockBytes(self.block_bytes_max.into()),
        }
    }
}

/// The file, and the part of it that was read last.
struct File<'a> {
    file_bytes: u64,
    read: &'a mut dyn FnMut(Range<u64>) -> Option<Vec<u8>>,
    start: u64,
    part: Vec<u8>,
}

impl File<'_> {
    fn bytes(&mut self, at: u64, length: u64) -> Result<&[u8], PackedError> {
        let end = at + length;
        if end > self.file_bytes {
            return Err(PackedError::Cut(self.file_bytes));
        }
        if at < self.start || end > self.start + self.part.len() as u64 {
            let part = at..(at + PART_BYTES.max(length)).min(self.file_bytes);
            self.part = (self.read)(part).ok_or(PackedError::Unread)?;
            self.start = at;
        }
        let part = self.part.get(size(at - self.start)..size(end - self.start));
        part.ok_or(PackedError::Unread)
    }

    fn u32(&mut self, at: u64) -> Result<u32, PackedError> {
        self.bytes(at, 4).map(|bytes| u32_at(bytes, 0))
    }

    /// The frame ends here. Behind it may be skippable frames, and nothing else.
    fn end(&mut self, mut at: u64) -> Result<(), PackedError> {
        while at < self.file_bytes {
            if self.u32(at)? & !15 != SKIPPABLE_MAGIC {
                return Err(PackedError::Behind(at));
            }
            at += 8 + u64::from(self.u32(at + 4)?);
        }
        match at == self.file_bytes {
            true => Ok(()),
            false => Err(PackedError::Cut(self.file_bytes)),
        }
    }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).expect("as much is in memory")
}

/// The checksum of LZ4's frames, from the seed 0.
///
/// Read first: doc/xxhash_spec.md of xxHash.
fn xxh32(bytes: &[u8]) -> u32 {
    const PRIMES: [u32; 5] = [
        0x9e37_79b1,
        0x85eb_ca77,
        0xc2b2_ae3d,
        0x27d4_eb2f,
        0x1656_67b1,
    ];
    let [p1, p2, p3, p4, p5] = PRIMES;
    // In an array, the four lie in memory between rounds, which takes three times as long.
    let [mut a, mut b, mut c, mut d] = [p1.wrapping_add(p2), p2, 0, p1.wrapping_neg()];
    let round = |lane: u32, word: u32| {
        let sum = lane.wrapping_add(word.wrapping_mul(p2));
        sum.rotate_left(13).wrapping_mul(p1)
    };
    let (stripes, rest) = bytes.as_chunks::<16>();
    for stripe in stripes {
        a = round(a, u32_at(stripe, 0));
        b = round(b, u32_at(stripe, 4));
        c = round(c, u32_at(stripe, 8));
        d = round(d, u32_at(stripe, 12));
    }
    let turned = [(a, 1), (b, 7), (c, 12), (d, 18)].map(|(lane, by)| lane.rotate_left(by));
    let mut sum = match stripes.is_empty() {
        true => p5,
        false => turned.into_iter().fold(0, u32::wrapping_add),
    };
    let length = u32::try_from(bytes.len()).expect("a block has at most 4 MiB");
    sum = sum.wrapping_add(length);
    let (words, rest) = rest.as_chunks::<4>();
    for bytes in words {
        sum = sum.wrapping_add(u32::from_le_bytes(*bytes).wrapping_mul(p3));
        sum = sum.rotate_left(17).wrapping_mul(p4);
    }
    for &byte in rest {
        sum = sum.wrapping_add(u32::from(byte).wrapping_mul(p5));
        sum = sum.rotate_left(11).wrapping_mul(p1);
    }
    sum = (sum ^ sum >> 15).wrapping_mul(p2);
    sum = (sum ^ sum >> 13).wrapping_mul(p3);
    sum ^ sum >> 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use alloc::format;
    use alloc::string::{String, ToString};

    /// What these bytes are, as a file.
    fn read(file: &[u8]) -> Result<Packed, PackedError> {
        let mut last = 0;
        Packed::read(file.len() as u64, &mut |part| {
            assert!(part.start >= last && part.end <= file.len() as u64);
            assert!(part.end - part.start <= PART_BYTES);
            last = part.start;
            Some(file[size(part.start)..size(part.end)].to_vec())
        })
    }

    /// These bytes of the image.
    fn unpacked(file: &[u8], packed: &Packed, bytes: Range<u64>) -> Result<Vec<u8>, u64> {
        let marks = packed.marks(&bytes);
        let span = packed.span(&marks);
        let mut out = vec![0xee; size(bytes.end - bytes.start)];
        let span = &file[size(span.start)..size(span.end)];
        packed.unpack(marks.start, span, &bytes, &mut out)?;
        Ok(out)
    }

    fn all_of(file: &[u8]) -> Result<Vec<u8>, String> {
        let packed = read(file).map_err(|error| error.to_string())?;
        let all = unpacked(file, &packed, 0..packed.image_bytes);
        all.map_err(|place| format!("damaged at {place}"))
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = hex.as_bytes().chunks(2);
        let digits = digits.map(|two| core::str::from_utf8(two).unwrap());
        digits
            .map(|two| u8::from_str_radix(two, 16).unwrap())
            .collect()
    }

    /// 4096 zeros, 512 times "swarmdd ", and the numbers from 0 to 19.
    fn image() -> Vec<u8> {
        let numbers: Vec<u8> = (0..20).collect();
        [&[0; 4096], &b"swarmdd ".repeat(512)[..], &numbers].concat()
    }

    const BLOCKS: &str = "1a0000001f000100fffffffffffffffffffffffffffffff6500000000000";
    const REST: &str = "210000008f737761726d6464200800ffffffffffffffffffffffffffffffef50726d646420";
    const LAST: &str = "14000080000102030405060708090a0b0c0d0e0f10111213";

    /// `lz4 -B4096 -BX`.
    fn with_sums() -> Vec<u8> {
        let (sums, end) = (["869dc61f", "3057848f", "9c818b82"], "000000004317cd58");
        let blocks = [BLOCKS, sums[0], REST, sums[1], LAST, sums[2]].concat();
        bytes(&format!("04224d187440bd{blocks}{end}"))
    }

    /// `lz4 -B4096 --content-size --no-frame-crc`.
    fn with_its_size() -> Vec<u8> {
        bytes(&format!(
            "04224d186840142000000000000078{BLOCKS}{REST}{LAST}00000000"
        ))
    }

    #[test]
    fn what_lz4_wrote_is_read() {
        for (file, has_sums) in [(with_sums(), true), (with_its_size(), false)] {
            let packed = read(&file).unwrap();
            assert_eq!((packed.image_bytes, packed.block_bytes), (8212, 4096));
            assert_eq!(packed.has_sums, has_sums);
            let behind = file.len() as u64 - if has_sums { 8 } else { 4 };
            let span = packed.span(&packed.marks(&(0..8212)));
            assert_eq!(span, if has_sums { 7 } else { 15 }..behind);
            assert!(all_of(&file).unwrap() == image());
            assert_eq!(unpacked(&file, &packed, 4095..4097).unwrap(), b"\0s");
            let tail = unpacked(&file, &packed, 8190..8194).unwrap();
            assert_eq!(tail, b"d \0\x01");
            // Skippable frames may follow.
            let skippable = [&file[..], &bytes("5f2a4d1803000000abcdef")].concat();
            assert!(all_of(&skippable).unwrap() == image());
        }
        // `lz4 -B16384 < /dev/null`: no block at all.
        assert_eq!(
            read(&bytes("04224d186440a700000000055dcc02"))
                .unwrap()
                .image_bytes,
            0
        );
        // `lz4 -B16384`: one block, which is not full.
        let first = "450000001f000100fffffffffffffffffffffffffffffffb8f737761726d6464200800";
        let last = "fffffffffffffffffffffffffffffff4f005000102030405060708090a0b0c0d0e0f10111213";
        let one = bytes(&format!("04224d186440a7{first}{last}000000004317cd58"));
        assert!(all_of(&one).unwrap() == image());
    }

    fn refusal(file: &[u8]) -> String {
        read(file).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_read_in_place_is_named() {
        let whole = with_its_size();
        let cases = [
            ("02214c1845000000", "it is of the legacy format of LZ4"),
            ("0000000000000000", "it is no frame of LZ4"),
            (
                "04224d18a440a700",
                "it is of a version of LZ4 that is not known",
            ),
            (
                "04224d186430a700",
                "it is of a version of LZ4 that is not known",
            ),
            ("04224d186540a700", "it needs a dictionary"),
            (
                "04224d1844405e00",
                "it has linked blocks, none can be read without those before it",
            ),
            ("04224d186440a800", "its header is damaged"),
        ];
        for (head, why) in cases {
            assert_eq!(refusal(&bytes(head)), why);
        }
        let twice = [&whole[..], &whole].concat();
        assert_eq!(
            refusal(&twice),
            "its frame ends at byte 110, and only one frame is read in place"
        );
        assert!(read(&twice).unwrap_err().is_whole());
        let mut lies = whole.clone();
        (lies[6], lies[14]) = (0x15, 0x14);
        lies[14] = xxh32(&lies[4..14]).to_le_bytes()[1];
        assert_eq!(
            refusal(&lies),
            "its header says 8213 bytes, and its blocks hold 8212"
        );
        // 100 bytes in a block, and another block.
        let small = format!("04224d186440a7640000 80{}", "61".repeat(100)).replace(' ', "");
        let small = bytes(&format!("{small}0100008061000000004317cd58"));
        assert!(refusal(&small).starts_with("its blocks have 100 bytes, and only"));
        // `lz4 -B7`, with a first block of more than 256 KiB.
        let large = [&bytes("04224d186470b901000480"), &vec![1; 262_145][..]].concat();
        let large = [&large[..], &bytes("000000004317cd58")].concat();
        assert!(refusal(&large).starts_with("its blocks have 4194304 bytes, and only"));
    }

    #[test]
    fn a_file_that_is_cut_is_refused() {
        for whole in [with_sums(), with_its_size()] {
            for end in 0..whole.len() {
                let error = read(&whole[..end]).unwrap_err();
                assert_eq!(error, PackedError::Cut(end as u64));
                assert!(!error.is_whole());
            }
        }
    }

    /// With checksums, no change of a block goes unseen.
    #[test]
    fn a_changed_byte_is_found_and_named() {
        let whole = with_sums();
        for place in 7..whole.len() - 8 {
            for change in [1, 0x80, 0xff] {
                let mut file = whole.clone();
                file[place] ^= change;
                let found = all_of(&file);
                assert!(found.is_err(), "byte {place} ^ {change}: {found:?}");
            }
        }
        let mut file = whole;
        file[50] ^= 1;
        assert_eq!(all_of(&file).unwrap_err(), "damaged at 41");
    }

    /// Blocks of an image of this size, every one with a checksum or none.
    fn frame(image: &[u8], block_bytes: usize, has_sums: bool) -> Vec<u8> {
        let mut file = MAGIC.to_le_bytes().to_vec();
        let limit = if block_bytes > 1 << 16 { 0x50 } else { 0x40 };
        let described = [if has_sums { 0x70 } else { 0x60 }, limit];
        file.extend(described);
        file.push(xxh32(&described).to_le_bytes()[1]);
        let mut encoder = lz4::Encoder::new();
        for block in image.chunks(block_bytes) {
            let mut encoded = vec![0; block.len()];
            let fits = block.len() <= 1 << 16;
            let length = fits.then(|| encoder.encode(block, &mut encoded)).flatten();
            let (flag, body) = match length {
                Some(length) => (0, &encoded[..length]),
                None => (STORED, block),
            };
            file.extend((body.len() as u32 | flag).to_le_bytes());
            file.extend(body);
            if has_sums {
                file.extend(xxh32(body).to_le_bytes());
            }
        }
        file.extend([0; 4]);
        file
    }

    /// The stupid twin is the image. MARKS_MAX is 8 in tests, so marks are dropped.
    #[test]
    fn any_bytes_of_any_image_are_found() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let block_bytes = 4096 << rng.below(7);
            let length = 1 + rng.below(6 << 20) as usize;
            let image: Vec<u8> = (0..length)
                .map(|at| {
                    if at / 9000 % 3 == 0 {
                        rng.below(256) as u8
                    } else {
                        (at / 100) as u8
                    }
                })
                .collect();
            let file = frame(&image, block_bytes, rng.chance(1, 2));
            let packed = read(&file).unwrap();
            assert_eq!(packed.image_bytes, length as u64, "seed {seed}");
            assert!(packed.marks.len() <= MARKS_MAX);
            for _ in 0..20 {
                let start = rng.below(length as u32) as usize;
                let count = 1 + rng.below((length - start).min(300_000) as u32) as usize;
                let found = unpacked(&file, &packed, start as u64..(start + count) as u64);
                assert!(found.unwrap() == image[start..][..count], "seed {seed}");
            }
        }
    }

    #[test]
    fn checksums_are_those_of_xxhash() {
        assert_eq!(xxh32(b""), 0x02cc_5d05);
        assert_eq!(xxh32(b"a"), 0x550d_7456);
        assert_eq!(xxh32(b"abc"), 0x32d1_53ff);
        assert_eq!(xxh32(&image()), 0x58cd_1743);
    }
}
