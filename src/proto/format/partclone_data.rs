//! Where in a partclone image is a used byte, and do the checksums fit?
//!
//! A torrent of a partition holds its used blocks in rising order, and so does an image. So the
//! n-th byte of the torrent is the n-th byte of the image's data, behind the checksums of the
//! strips before it. No map and no list is needed to find it.
//!
//! Worked case: blocks of 4096 bytes, a checksum of 4 bytes after each 256 of them (a strip of
//! 1 MiB), data from byte 1114 on. Byte 3,000,000 of the torrent has two strips before it, and is
//! byte 1114 + 3,000,000 + 2 * 4 of the image.

use crate::format::crc32::{self, Tables};
use crate::units::DiskOffset;
use alloc::vec::Vec;
use core::ops::Range;

/// The used blocks in an image, with the checksums between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    start: u64,
    /// Of blocks, without checksums.
    bytes: u64,
    /// Bytes of blocks in front of each checksum but the last one.
    strip_bytes: u64,
    checksum_bytes: u64,
}

impl Data {
    /// `strip_bytes` is 0 if there are no checksums.
    pub(super) fn new(start: u64, bytes: u64, strip_bytes: u64, checksum_bytes: u64) -> Data {
        let strip_bytes = match strip_bytes {
            // One strip that no data fills.
            0 => u64::MAX,
            strip_bytes => strip_bytes,
        };
        Data {
            start,
            bytes,
            strip_bytes,
            checksum_bytes,
        }
    }

    /// Bytes of used blocks.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the last checksum ends, and with it the image.
    pub fn end(&self) -> u64 {
        let strips = self.bytes.div_ceil(self.strip_bytes);
        self.start + self.bytes + strips * self.checksum_bytes
    }

    /// Where a byte of the used blocks lies in the image, and how many are there from it on: up to
    /// the next checksum.
    pub fn place(&self, byte: u64) -> (DiskOffset, u64) {
        assert!(byte < self.bytes, "byte {byte} of {}", self.bytes);
        let strip = byte / self.strip_bytes;
        let disk = DiskOffset(self.start + byte + strip * self.checksum_bytes);
        (disk, self.strip(strip).end - byte)
    }

    /// Where the bytes of a strip are among the used bytes.
    fn strip(&self, index: u64) -> Range<u64> {
        let start = index * self.strip_bytes;
        start..self.bytes.min(start.saturating_add(self.strip_bytes))
    }

    /// Where in the image the checksum of a strip is.
    pub fn checksum(&self, strip: u64) -> u64 {
        self.start + self.strip(strip).end + strip * self.checksum_bytes
    }
}

/// The CRC-32 of each strip, of bytes that arrive in any order.
#[derive(Debug)]
pub struct Strips {
    data: Data,
    /// Each strip begins anew.
    reseed: bool,
    block_bytes: u64,
    tables: Tables,
    /// Strips of which some bytes have come, but not all. Only a few: bytes arrive in large parts,
    /// and each part has at most two of them.
    open: Vec<Strip>,
}

/// A strip of which some or all bytes have come.
#[derive(Clone, Copy, Debug)]
pub struct Strip {
    pub index: u64,
    /// Those that have not come.
    missing_bytes: u64,
    /// What its bytes so far add to the state behind the strip.
    sum: u32,
}

impl Strips {
    pub(super) fn new(data: Data, reseed: bool, block_bytes: u64) -> Strips {
        Strips {
            data,
            reseed,
            block_bytes,
            tables: Tables::new(),
            open: Vec::new(),
        }
    }

    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Takes those of these bytes that belong to one strip, and removes them: the first is the
    /// `from`-th used byte, and each comes once. Returns the strip if they complete it.
    pub fn take(&mut self, from: &mut u64, bytes: &mut &[u8]) -> Option<Strip> {
        let index = *from / self.data.strip_bytes;
        let range = self.data.strip(index);
        let in_strip = usize::try_from(range.end - *from).unwrap_or(usize::MAX);
        let (part, rest) = bytes.split_at(in_strip.min(bytes.len()));
        *from += part.len() as u64;
        *bytes = rest;
        let open = self.open.iter().position(|strip| strip.index == index);
        let mut strip = match open {
            Some(at) => self.open.swap_remove(at),
            None => Strip {
                index,
                missing_bytes: range.end - range.start,
                sum: 0,
            },
        };
        strip.missing_bytes -= part.len() as u64;
        strip.sum ^= crc32::behind(self.tables.update(0, part), range.end - *from);
        if strip.missing_bytes > 0 {
            self.open.push(strip);
            return None;
        }
        Some(strip)
    }

    /// Whether a strip has this checksum in the image. `before` is that of the strip in front of
    /// it, if it goes on from there.
    pub fn fits(&self, strip: Strip, stored: u32, before: Option<u32>) -> bool {
        let range = self.data.strip(strip.index);
        let seed = before.unwrap_or(crc32::SEED);
        crc32::behind(seed, range.end - range.start) ^ strip.sum == stored
    }

    /// Which of the used blocks a strip has, counted from 0.
    pub fn blocks(&self, strip: Strip) -> Range<u64> {
        let bytes = self.data.strip(strip.index);
        bytes.start / self.block_bytes..bytes.end / self.block_bytes
    }

    /// Whether the checksum of a strip goes on from that of the strip before.
    pub fn goes_on(&self, strip: Strip) -> bool {
        !self.reseed && strip.index > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn the_worked_case() {
        let data = Data::new(1114, 5 << 20, 1 << 20, 4);
        let place = DiskOffset(1114 + 3_000_000 + 8);
        assert_eq!(data.place(3_000_000), (place, (3 << 20) - 3_000_000));
        assert_eq!(data.end(), 1114 + (5 << 20) + 5 * 4);
        assert_eq!(
            (data.checksum(0), data.checksum(4)),
            (1114 + (1 << 20), data.end() - 4)
        );
        // The first and the last byte of the second strip, and the first of the third.
        let places: Vec<u64> = [1 << 20, (2 << 20) - 1, 2 << 20]
            .into_iter()
            .map(|byte| data.place(byte).0.0)
            .collect();
        let second = 1114 + (1 << 20) + 4;
        assert_eq!(
            places,
            [second, second + (1 << 20) - 1, second + (1 << 20) + 4]
        );
    }

    #[test]
    #[should_panic(expected = "byte 8 of 8")]
    fn a_place_behind_the_data_panics() {
        let _ = Data::new(110, 8, 0, 0).place(8);
    }

    /// An image as a list of bytes: the number of each used byte, or nothing for a checksum.
    struct Twin {
        data: Data,
        image: Vec<Option<u64>>,
        /// The CRC-32 state of each strip, and where it is stored.
        sums: Vec<(u32, usize)>,
        bytes: Vec<u8>,
        reseed: bool,
        block_bytes: u64,
    }

    fn twin(rng: &mut Rng) -> Twin {
        let checksum_bytes = [0, 4, 8, 16][rng.below(4) as usize];
        let block_bytes = 1 + u64::from(rng.below(20));
        let blocks = u64::from(rng.below(30));
        let strip_blocks = match checksum_bytes {
            0 => 0,
            _ => 1 + u64::from(rng.below(8)),
        };
        let start = u64::from(rng.below(200));
        let (bytes, strip_bytes) = (blocks * block_bytes, strip_blocks * block_bytes);
        let reseed = rng.chance(1, 2);
        let used: Vec<u8> = (0..bytes).map(|_| rng.below(256) as u8).collect();
        let mut image = alloc::vec![None; start as usize];
        let (mut sums, mut in_strip, mut hash) = (Vec::new(), 0, crc32fast::Hasher::new());
        for number in 0..bytes {
            image.push(Some(number));
            hash.update(&used[number as usize..][..1]);
            in_strip += 1;
            if checksum_bytes > 0 && (in_strip == strip_bytes || number + 1 == bytes) {
                sums.push((!hash.clone().finalize(), image.len()));
                image.extend((0..checksum_bytes).map(|_| None));
                in_strip = 0;
                if reseed {
                    hash = crc32fast::Hasher::new();
                }
            }
        }
        Twin {
            data: Data::new(start, bytes, strip_bytes, checksum_bytes),
            image,
            sums,
            bytes: used,
            reseed,
            block_bytes,
        }
    }

    #[test]
    fn places_are_those_of_the_naive_twin() {
        let mut rng = Rng::new(11);
        for _ in 0..1000 {
            let Twin {
                data,
                image,
                sums,
                bytes,
                ..
            } = twin(&mut rng);
            assert_eq!(data.end(), image.len() as u64);
            assert_eq!(data.bytes(), bytes.len() as u64);
            for (strip, (_, place)) in (0..).zip(&sums) {
                assert_eq!(data.checksum(strip), *place as u64);
            }
            for byte in 0..data.bytes() {
                let (disk, count) = data.place(byte);
                let expected = (byte..byte + count).map(Some);
                let place = disk.0 as usize;
                assert!(
                    image[place..]
                        .iter()
                        .copied()
                        .take(count as usize)
                        .eq(expected)
                );
                // As many as possible.
                assert_eq!(image.get(place + count as usize).copied().flatten(), None);
            }
        }
    }

    /// In parts of any length and in any order.
    #[test]
    fn strips_have_the_sums_of_the_naive_twin() {
        let mut rng = Rng::new(12);
        for _ in 0..1000 {
            let Twin {
                data,
                sums,
                bytes,
                reseed,
                block_bytes,
                ..
            } = twin(&mut rng);
            let mut strips = Strips::new(data, reseed, block_bytes);
            let (mut parts, mut at) = (Vec::new(), 0);
            while at < bytes.len() {
                let length = (1 + rng.below(60) as usize).min(bytes.len() - at);
                parts.push((at, length));
                at += length;
            }
            rng.shuffle(&mut parts);
            let mut found = Vec::new();
            for (at, length) in parts {
                let (mut from, mut part) = (at as u64, &bytes[at..at + length]);
                while !part.is_empty() {
                    found.extend(strips.take(&mut from, &mut part));
                }
            }
            assert!(strips.open.is_empty() || sums.is_empty());
            if sums.is_empty() {
                continue;
            }
            assert_eq!(found.len(), sums.len());
            for strip in found {
                let index = strip.index as usize;
                assert_eq!(strips.goes_on(strip), !reseed && index > 0);
                let before = strips.goes_on(strip).then(|| sums[index - 1].0);
                assert!(strips.fits(strip, sums[index].0, before));
                assert!(!strips.fits(strip, sums[index].0 ^ 1, before));
            }
        }
    }
}
