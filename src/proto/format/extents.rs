//! Where on the disk do the bytes of the torrent lie, and which of them are aligned for O_DIRECT?
//!
//! The torrent is one run of bytes. The disk holds it in extents, anywhere and in any order. In the
//! core all arithmetic about alignment is in this file.
//!
//! Worked case, an FSBT torrent of three files: 4096 bytes at 0, 4096 bytes at 4096, 1536 bytes at
//! 1 MiB. The first two follow each other in the torrent and on the disk, so there are two extents:
//!
//! ```text
//! torrent   0 ............ 8192 .... 9728
//! disk      0 ............ 8192      1048576 .... 1050112
//! ```
//!
//! The last 3584 bytes, from torrent offset 6144, are two ranges: 2048 bytes at disk 6144 and 1536
//! at 1048576.

use crate::units::DiskOffset;
use alloc::vec::Vec;
use core::fmt;

/// A run of bytes that is contiguous both in the torrent and on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub torrent_offset: u64,
    pub disk: DiskOffset,
    pub length: u64,
}

impl Extent {
    fn torrent_end(&self) -> u64 {
        self.torrent_offset + self.length
    }

    fn disk_end(&self) -> DiskOffset {
        self.disk + self.length
    }
}

/// All extents of a torrent.
///
/// Invariants: extents are in torrent order without gaps, from torrent offset 0; none is empty;
/// neighbours are not contiguous on the disk; no two share a disk byte; none ends beyond
/// `i64::MAX`, the largest offset that the kernel can name (`off_t`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtentMap {
    extents: Vec<Extent>,
}

impl ExtentMap {
    /// Makes extents of files in torrent order. Empty files are left out. Neighbours are merged,
    /// because partclone cuts long runs into files of 16 MiB, and long writes are faster.
    pub fn from_files(
        files: impl IntoIterator<Item = (DiskOffset, u64)>,
    ) -> Result<ExtentMap, ExtentError> {
        let mut extents: Vec<Extent> = Vec::new();
        let mut total_bytes = 0;
        for (disk, length) in files.into_iter().filter(|&(_, length)| length > 0) {
            let file = Extent {
                torrent_offset: total_bytes,
                disk,
                length,
            };
            if !in_range(disk.0, length) || !in_range(total_bytes, length) {
                return Err(ExtentError::TooLarge { disk, length });
            }
            total_bytes += length;
            match extents.last_mut() {
                Some(last) if last.disk_end() == disk => last.length += length,
                _ => extents.push(file),
            }
        }
        extents.shrink_to_fit();
        match overlap(&extents) {
            Some((first, second)) => Err(ExtentError::Overlap { first, second }),
            None => Ok(ExtentMap { extents }),
        }
    }

    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Length of the torrent.
    pub fn total_bytes(&self) -> u64 {
        self.extents.last().map_or(0, Extent::torrent_end)
    }

    /// Where the last byte on the disk ends: the smallest size of a disk that holds the image.
    pub fn disk_end(&self) -> DiskOffset {
        self.extents
            .iter()
            .map(Extent::disk_end)
            .max()
            .unwrap_or_default()
    }

    /// True if all these bytes of the disk belong to the torrent.
    pub fn cover(&self, disk: DiskOffset, length: u64) -> bool {
        let end = disk + length;
        // Extents are in any order.
        let meets = |extent: &&Extent| extent.disk < end && disk < extent.disk_end();
        let mut met: Vec<&Extent> = self.extents.iter().filter(meets).collect();
        met.sort_unstable_by_key(|extent| extent.disk);
        let mut covered = disk;
        for extent in met {
            if covered < extent.disk {
                return false;
            }
            covered = extent.disk_end();
        }
        covered >= end
    }

    /// The extents of `length` torrent bytes from `torrent_offset` on, in torrent order. The first
    /// and the last are cut to these bytes.
    pub fn ranges(&self, torrent_offset: u64, length: u64) -> impl Iterator<Item = Extent> + '_ {
        let wanted_end = torrent_offset
            .checked_add(length)
            .expect("a torrent ends before 2^64");
        assert!(
            wanted_end <= self.total_bytes(),
            "bytes up to {wanted_end} of {}",
            self.total_bytes()
        );
        let first = self
            .extents
            .partition_point(|extent| extent.torrent_end() <= torrent_offset);
        let cut = move |extent: &Extent| {
            let begin = extent.torrent_offset.max(torrent_offset);
            let end = extent.torrent_end().min(wanted_end);
            let disk = extent.disk + (begin - extent.torrent_offset);
            (begin < end).then(|| Extent {
                torrent_offset: begin,
                disk,
                length: end - begin,
            })
        };
        self.extents[first..].iter().map_while(cut)
    }

    /// Where one byte of the torrent lies, and how many are there from it on.
    pub fn place(&self, byte: u64) -> (DiskOffset, u64) {
        let at = self
            .extents
            .partition_point(|extent| extent.torrent_end() <= byte);
        let extent = &self.extents[at];
        let behind = byte - extent.torrent_offset;
        (extent.disk + behind, extent.length - behind)
    }

    /// The largest power of two, at most 4096, that divides the start and the end of every extent.
    /// The end of the last byte on the disk does not count: an image may end in the middle of a
    /// sector, and that sector is completed when it is written.
    ///
    /// An extent at 0x4800400 of length 0x100600 gives 512, although its start alone would allow
    /// 1024.
    pub fn alignment(&self) -> u64 {
        self.alignment_up_to(4096)
    }

    /// As `alignment`, but at most `largest`, a power of two.
    pub fn alignment_up_to(&self, largest: u64) -> u64 {
        let disk_end = self.disk_end();
        let edges = self
            .extents
            .iter()
            .flat_map(|extent| [extent.disk, extent.disk_end()]);
        let bits = edges
            .filter(|&edge| edge != disk_end)
            .fold(largest, |bits, edge| bits | edge.0);
        1 << bits.trailing_zeros()
    }
}

/// True if the kernel can name the end of these bytes.
fn in_range(offset: u64, length: u64) -> bool {
    offset
        .checked_add(length)
        .is_some_and(|end| i64::try_from(end).is_ok())
}

/// Two extents that share a disk byte. Files mostly are in disk order already; only otherwise is a
/// sorted list made.
fn overlap(extents: &[Extent]) -> Option<(Extent, Extent)> {
    let collide = |pair: &[Extent]| (pair[0].disk_end() > pair[1].disk).then(|| (pair[0], pair[1]));
    if extents.is_sorted_by_key(|extent| extent.disk) {
        return extents.windows(2).find_map(collide);
    }
    let mut sorted = extents.to_vec();
    sorted.sort_unstable_by_key(|extent| extent.disk);
    sorted.windows(2).find_map(collide)
}

/// A part of a transfer between memory and disk, see [`split`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub disk: DiskOffset,
    pub length: u32,
    pub memory_offset: u32,
    /// Disk offset, length and memory offset are multiples of the sector, as O_DIRECT needs.
    pub aligned: bool,
}

/// Splits a transfer between `memory_offset` of an aligned buffer and `disk` into at most three
/// parts: up to the first sector boundary, whole sectors, the rest. Only the whole sectors can be
/// transferred with O_DIRECT. For the other parts a sector must be read, changed and written.
///
/// With sectors of 512, 2000 bytes between memory 700 and disk 1212 (both are 188 bytes behind a
/// boundary):
///
/// ```text
/// disk 1212, memory  700,  324 bytes   up to the boundary at 1536
/// disk 1536, memory 1024, 1536 bytes   aligned, three sectors
/// disk 3072, memory 2560,  140 bytes   the rest
/// ```
///
/// If memory and disk are not equally far behind a boundary, they never reach one at the same byte,
/// and the whole transfer is one unaligned part.
pub fn split(
    disk: DiskOffset,
    memory_offset: u32,
    length: u32,
    sector: u32,
) -> impl Iterator<Item = Part> + use<> {
    assert!(sector.is_power_of_two(), "sector of {sector} bytes");
    assert!(
        memory_offset.checked_add(length).is_some(),
        "{length} bytes at memory {memory_offset}"
    );
    let behind_boundary = u32::try_from(disk.0 % u64::from(sector));
    let behind_boundary = behind_boundary.expect("less than a sector");
    let congruent = memory_offset % sector == behind_boundary;
    let to_boundary = (sector - behind_boundary) % sector;
    let head = if congruent {
        to_boundary.min(length)
    } else {
        length
    };
    let middle = (length - head) / sector * sector;
    let tail = length - head - middle;
    let part = move |from: u32, length: u32, aligned: bool| Part {
        disk: disk + u64::from(from),
        length,
        memory_offset: memory_offset + from,
        aligned,
    };
    let parts = [
        part(0, head, false),
        part(head, middle, true),
        part(head + middle, tail, false),
    ];
    parts.into_iter().filter(|part| part.length > 0)
}

/// The whole sectors around `length` bytes at `disk`: where they begin, and their length.
///
/// 1000 bytes at 700, with sectors of 512: 1536 bytes at 512, of which the first 188 and the last
/// 348 are others'.
pub fn sectors_around(disk: DiskOffset, length: u64, sector: u32) -> (DiskOffset, u64) {
    assert!(sector.is_power_of_two(), "sector of {sector} bytes");
    let sector = u64::from(sector);
    let start = disk.0 / sector * sector;
    let end = (disk.0 + length).next_multiple_of(sector);
    (DiskOffset(start), end - start)
}

/// Why files cannot be laid on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentError {
    Overlap { first: Extent, second: Extent },
    TooLarge { disk: DiskOffset, length: u64 },
}

impl fmt::Display for ExtentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExtentError::Overlap { first, second } => write!(
                f,
                "bytes {} to {} and bytes {} to {} of the disk overlap",
                first.disk.0,
                first.disk_end().0,
                second.disk.0,
                second.disk_end().0
            ),
            ExtentError::TooLarge { disk, length } => {
                write!(
                    f,
                    "{length} bytes at disk offset {} are more than any disk can hold",
                    disk.0
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use alloc::string::ToString;
    use alloc::vec;

    /// (disk offset, length)
    type Files = [(u64, u64)];
    /// (torrent offset, disk offset, length)
    type Extents = [(u64, u64, u64)];

    fn map(files: &Files) -> Result<ExtentMap, ExtentError> {
        ExtentMap::from_files(
            files
                .iter()
                .map(|&(disk, length)| (DiskOffset(disk), length)),
        )
    }

    fn extent((torrent_offset, disk, length): (u64, u64, u64)) -> Extent {
        Extent {
            torrent_offset,
            disk: DiskOffset(disk),
            length,
        }
    }

    #[test]
    fn neighbours_are_merged_and_empty_files_left_out() {
        let cases: [(&Files, &Extents); 7] = [
            (&[], &[]),
            (&[(7, 0)], &[]),
            (
                &[(0, 4096), (4096, 4096), (1 << 20, 1536)],
                &[(0, 0, 8192), (8192, 1 << 20, 1536)],
            ),
            (&[(0, 8), (50, 0), (8, 8)], &[(0, 0, 16)]),
            (&[(8, 8), (0, 8)], &[(0, 8, 8), (8, 0, 8)]), // contiguous on the disk only
            (
                &[(0, 8), (16, 8), (8, 8)],
                &[(0, 0, 8), (8, 16, 8), (16, 8, 8)],
            ),
            (&[(0, 8), (3, 0)], &[(0, 0, 8)]), // an empty file overlaps nothing
        ];
        for (files, expected) in cases {
            let expected: Vec<Extent> = expected.iter().copied().map(extent).collect();
            assert_eq!(map(files).unwrap().extents(), expected, "{files:?}");
        }
    }

    #[test]
    fn the_worked_case() {
        let map = map(&[(0, 4096), (4096, 4096), (1 << 20, 1536)]).unwrap();
        assert_eq!(
            (map.total_bytes(), map.disk_end(), map.alignment()),
            (9728, DiskOffset(1050112), 4096)
        );
        let ranges: Vec<Extent> = map.ranges(6144, 3584).collect();
        assert_eq!(
            ranges,
            [extent((6144, 6144, 2048)), extent((8192, 1048576, 1536))]
        );
        assert_eq!(
            map.ranges(8192, 1).collect::<Vec<_>>(),
            [extent((8192, 1048576, 1))]
        );
        assert_eq!(
            map.ranges(8191, 1).collect::<Vec<_>>(),
            [extent((8191, 8191, 1))]
        );
        assert_eq!(
            map.ranges(0, 0).count() + map.ranges(9728, 0).count() + map.ranges(5, 0).count(),
            0
        );
    }

    #[test]
    fn the_place_of_a_byte_is_where_its_range_begins() {
        let map = map(&[(0, 4), (9, 1), (4, 2)]).unwrap();
        for byte in 0..7 {
            let range = map.ranges(byte, 7 - byte).next().unwrap();
            assert_eq!(map.place(byte), (range.disk, range.length));
        }
    }

    #[test]
    #[should_panic(expected = "bytes up to 9 of 8")]
    fn ranges_behind_the_torrent_panic() {
        let _ = map(&[(0, 8)]).unwrap().ranges(1, 8).count();
    }

    /// Bytes are looked at one by one, of random extents in random order.
    #[test]
    fn cover_is_that_of_its_naive_twin() {
        let mut rng = Rng::new(7);
        for _ in 0..300 {
            let mut files = Vec::new();
            for index in 0..rng.below(9) {
                let [gap, more] = [rng.below(2), rng.below(3)];
                files.push((u64::from(index * 4 + gap), u64::from(1 + more)));
            }
            rng.shuffle(&mut files);
            let map = map(&files).unwrap();
            let has = |byte| {
                files
                    .iter()
                    .any(|(disk, length)| (*disk..disk + length).contains(&byte))
            };
            for start in 0..36 {
                for length in 0..8 {
                    assert_eq!(
                        map.cover(DiskOffset(start), length),
                        (start..start + length).all(has),
                        "{files:?}: {length} bytes from {start}"
                    );
                }
            }
        }
    }

    #[test]
    fn overlaps_are_refused_with_both_ranges() {
        let cases: [(&Files, &str); 4] = [
            (
                &[(0, 10), (9, 1)],
                "bytes 0 to 10 and bytes 9 to 10 of the disk overlap",
            ),
            (
                &[(5, 1), (5, 1)],
                "bytes 5 to 6 and bytes 5 to 6 of the disk overlap",
            ),
            (
                &[(100, 8), (0, 101)],
                "bytes 0 to 101 and bytes 100 to 108 of the disk overlap",
            ),
            (
                &[(0, 4), (4, 4), (2, 1)],
                "bytes 0 to 8 and bytes 2 to 3 of the disk overlap",
            ),
        ];
        for (files, text) in cases {
            assert_eq!(map(files).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn extents_beyond_the_largest_offset_are_refused() {
        let end = i64::MAX as u64;
        assert_eq!(map(&[(end - 1, 1)]).unwrap().disk_end(), DiskOffset(end));
        for (disk, length) in [
            (end, 1),
            (end - 1, 2),
            (0, end + 1),
            (u64::MAX, 1),
            (1, u64::MAX),
        ] {
            assert_eq!(
                map(&[(disk, length)]),
                Err(ExtentError::TooLarge {
                    disk: DiskOffset(disk),
                    length
                })
            );
        }
        let error = ExtentError::TooLarge {
            disk: DiskOffset(0),
            length: end,
        };
        assert_eq!(map(&[(0, end), (0, end)]), Err(error));
    }

    #[test]
    fn alignment_is_that_of_every_edge_but_the_last() {
        let cases: [(&Files, u64); 8] = [
            (&[], 4096),
            (&[(0, 123_457)], 4096), // only the tail is odd
            (&[(8192, 4096), (1 << 30, 1)], 4096),
            (&[(1 << 30, 1), (8192, 4096)], 4096), // the tail need not come last in the torrent
            (&[(8192, 4097), (1 << 30, 1)], 1),
            (&[(0x480_0400, 0x10_0600), (1 << 30, 512)], 512),
            (&[(0x480_0400, 0x400)], 1024),
            (&[(1 << 20, 1 << 20), (1 << 30, 1 << 20)], 4096), // never more than 4096
        ];
        for (files, expected) in cases {
            assert_eq!(map(files).unwrap().alignment(), expected, "{files:?}");
        }
        let large = map(&[(1 << 20, 32 << 10), (1 << 30, 1)]).unwrap();
        let [least, most] = [4096, 1 << 16].map(|largest| large.alignment_up_to(largest));
        assert_eq!((least, most), (4096, 32 << 10));
    }

    #[test]
    fn the_split_of_the_worked_case() {
        let part = |disk, length, memory_offset, aligned| Part {
            disk: DiskOffset(disk),
            length,
            memory_offset,
            aligned,
        };
        let split = |disk, memory_offset, length, sector| {
            super::split(DiskOffset(disk), memory_offset, length, sector).collect::<Vec<_>>()
        };
        let three = [
            part(1212, 324, 700, false),
            part(1536, 1536, 1024, true),
            part(3072, 140, 2560, false),
        ];
        assert_eq!(split(1212, 700, 2000, 512), three);
        assert_eq!(split(1212, 701, 2000, 512), [part(1212, 2000, 701, false)]);
        assert_eq!(split(1536, 512, 1024, 512), [part(1536, 1024, 512, true)]);
        assert_eq!(split(1536, 512, 1024, 4096), [part(1536, 1024, 512, false)]);
        assert_eq!(split(1212, 700, 3, 512), [part(1212, 3, 700, false)]);
        assert_eq!(split(4096, 0, 100, 4096), [part(4096, 100, 0, false)]);
        assert_eq!(split(4096, 0, 0, 4096), []);
    }

    #[test]
    fn sectors_around_bytes_are_whole() {
        let around = |disk, length| {
            let (start, length) = sectors_around(DiskOffset(disk), length, 512);
            (start.0, length)
        };
        assert_eq!(around(700, 1000), (512, 1536));
        assert_eq!(around(0, 512), (0, 512));
        assert_eq!(around(0, 1), (0, 512));
        assert_eq!(around(511, 2), (0, 1024));
        assert_eq!(around(1024, 0), (1024, 0));
    }

    /// Files that touch, leave gaps, swap places and sometimes overlap, on a disk of a few hundred
    /// bytes.
    fn random_files(rng: &mut Rng) -> Vec<(u64, u64)> {
        let unit = 1 << rng.below(4);
        let mut end = 0;
        let mut files = vec![];
        for _ in 0..rng.below(8) {
            let gap = if rng.chance(1, 2) {
                0
            } else {
                u64::from(rng.below(5)) * unit
            };
            let length = u64::from(rng.below(6)) * unit;
            files.push((end + gap, length));
            end += gap + length;
        }
        if let (true, Some(last)) = (rng.chance(1, 3), files.last_mut()) {
            last.1 += u64::from(rng.below(3));
        }
        if rng.chance(1, 3) {
            rng.shuffle(&mut files);
        }
        if let (true, Some(first)) = (rng.chance(1, 4), files.first_mut()) {
            first.0 += u64::from(rng.below(20));
        }
        files
    }

    /// The same questions, answered from a list with the disk offset of every single torrent byte.
    #[test]
    fn agrees_with_a_list_of_bytes() {
        let mut rng = Rng::new(4);
        let (mut good, mut refused) = (0, 0);
        for _ in 0..3_000 {
            let files = random_files(&mut rng);
            let bytes: Vec<u64> = files
                .iter()
                .flat_map(|&(disk, length)| disk..disk + length)
                .collect();
            let mut distinct = bytes.clone();
            distinct.sort_unstable();
            distinct.dedup();
            let Ok(map) = map(&files) else {
                assert!(distinct.len() < bytes.len(), "{files:?}");
                refused += 1;
                continue;
            };
            assert_eq!(distinct.len(), bytes.len(), "{files:?}");
            good += 1;
            let disk_end = distinct.last().map_or(0, |last| last + 1);
            assert_eq!(
                (map.total_bytes(), map.disk_end().0),
                (bytes.len() as u64, disk_end)
            );

            // A byte begins or ends an extent if the byte beside it in the torrent is not beside it
            // on the disk.
            let edge = |index: usize| match index {
                0 => true,
                _ => bytes[index] != bytes[index - 1] + 1,
            };
            let edges = (0..bytes.len()).filter(|&index| edge(index));
            let corners: Vec<u64> = edges
                .flat_map(|start| {
                    [
                        bytes[start],
                        bytes[start.checked_sub(1).unwrap_or(bytes.len() - 1)] + 1,
                    ]
                })
                .filter(|&corner| corner != disk_end)
                .collect();
            let divides = |align: &u64| corners.iter().all(|corner| corner % align == 0);
            let powers = [4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1];
            assert_eq!(
                Some(map.alignment()),
                powers.into_iter().find(divides),
                "{files:?}"
            );

            let begin = rng.below(bytes.len() as u32 + 1) as usize;
            let length = rng.below((bytes.len() - begin) as u32 + 1) as usize;
            let ranges: Vec<Extent> = map.ranges(begin as u64, length as u64).collect();
            let told: Vec<(u64, u64)> = ranges
                .iter()
                .flat_map(|range| {
                    (0..range.length).map(|i| (range.torrent_offset + i, range.disk.0 + i))
                })
                .collect();
            let expected: Vec<(u64, u64)> = (begin..begin + length)
                .map(|i| (i as u64, bytes[i]))
                .collect();
            assert_eq!(told, expected, "{files:?}");
            let cuts = (begin + 1..begin + length)
                .filter(|&index| edge(index))
                .count();
            assert_eq!(
                ranges.len(),
                if length == 0 { 0 } else { cuts + 1 },
                "{files:?}"
            );
        }
        assert!(
            good > 1_000 && refused > 100,
            "{good} good, {refused} refused"
        );
    }

    /// A byte is in an aligned part if its whole sector is in the transfer and lies at a sector
    /// boundary of memory.
    #[test]
    fn split_agrees_with_a_list_of_bytes() {
        let mut rng = Rng::new(5);
        for _ in 0..3_000 {
            let sector = 1 << rng.below(6);
            let (disk, length) = (u64::from(rng.below(200)), rng.below(200));
            let memory_offset = match rng.chance(1, 2) {
                true => (disk % u64::from(sector)) as u32 + sector * rng.below(3),
                false => rng.below(200),
            };
            let parts: Vec<Part> = split(DiskOffset(disk), memory_offset, length, sector).collect();
            let told: Vec<(u64, u32, bool)> = parts
                .iter()
                .flat_map(|part| {
                    (0..part.length).map(|i| {
                        (
                            part.disk.0 + u64::from(i),
                            part.memory_offset + i,
                            part.aligned,
                        )
                    })
                })
                .collect();
            let span = disk..disk + u64::from(length);
            let expected: Vec<(u64, u32, bool)> = (0..length)
                .map(|i| {
                    let (at, memory) = (disk + u64::from(i), memory_offset + i);
                    let sector = u64::from(sector);
                    let first = at - at % sector;
                    let whole = span.contains(&first) && span.contains(&(first + sector - 1));
                    (
                        at,
                        memory,
                        whole && u64::from(memory) % sector == at % sector,
                    )
                })
                .collect();
            assert_eq!(
                told, expected,
                "{length} bytes, disk {disk}, memory {memory_offset}, sector {sector}"
            );
            assert!(parts.len() <= 3);
            for part in parts.iter().filter(|part| part.aligned) {
                assert_eq!(part.disk.0 % u64::from(sector), 0);
                assert_eq!((part.length % sector, part.memory_offset % sector), (0, 0));
            }
        }
    }
}
