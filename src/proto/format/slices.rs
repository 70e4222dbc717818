//! Which file has the bytes at a place of the disk, if each run of used bytes is a file of its own?
//!
//! FSBT, as partclone, EZIO and Clonezilla have it: the name of a slice is the offset of its first
//! byte in hexadecimal. partclone writes 32 digits; any number of them names a slice here. There
//! can be a million slices, so what is kept of each is 10 bytes.

use crate::format::extents::{ExtentError, ExtentMap};
use crate::units::DiskOffset;
use alloc::vec::Vec;
use core::fmt;

/// Longest file that partclone writes, and so do we. A longer run is several slices.
pub const SLICE_BYTES_MAX: u64 = 16 << 20;

/// What a slice is called: its offset, and how that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceName {
    pub disk: DiskOffset,
    style: Style,
}

/// How many digits there are, and whether those above 9 are capital letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Style {
    digit_count: u8,
    is_capital: bool,
}

/// Why a file is no slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotASlice {
    /// The name is something else, as `torrent.info` is.
    NotHexadecimal,
    /// No disk has this offset.
    TooLarge,
    /// Nobody writes such names, and there would be two names for one offset.
    MixedCase,
}

impl SliceName {
    /// The name that partclone gives to a slice.
    pub fn of_partclone(disk: DiskOffset) -> SliceName {
        let style = Style {
            digit_count: 32,
            is_capital: false,
        };
        SliceName { disk, style }
    }

    /// Reads the name of a file, at most 255 bytes as in any directory.
    pub fn parse(name: &[u8]) -> Result<SliceName, NotASlice> {
        let digit_count = u8::try_from(name.len()).map_err(|_| NotASlice::NotHexadecimal)?;
        if digit_count == 0 || !name.iter().all(u8::is_ascii_hexdigit) {
            return Err(NotASlice::NotHexadecimal);
        }
        let offset = hexadecimal(name).filter(|&offset| i64::try_from(offset).is_ok());
        let is_capital = name.iter().any(u8::is_ascii_uppercase);
        if is_capital && name.iter().any(u8::is_ascii_lowercase) {
            return Err(NotASlice::MixedCase);
        }
        Ok(SliceName {
            disk: DiskOffset(offset.ok_or(NotASlice::TooLarge)?),
            style: Style {
                digit_count,
                is_capital,
            },
        })
    }
}

impl fmt::Display for SliceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (offset, width) = (self.disk.0, usize::from(self.style.digit_count));
        match self.style.is_capital {
            true => write!(f, "{offset:0width$X}"),
            false => write!(f, "{offset:0width$x}"),
        }
    }
}

/// A number of hexadecimal digits and nothing else. It may have any number of leading zeros.
pub(crate) fn hexadecimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |number, digit| {
        number
            .checked_mul(16)?
            .checked_add(u64::from(char::from(*digit).to_digit(16)?))
    })
}

/// One file: what it is called, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    pub name: SliceName,
    pub length: u64,
}

impl Slice {
    /// Both are at most `i64::MAX`.
    fn disk_end(&self) -> DiskOffset {
        self.name.disk + self.length
    }
}

/// Sorts slices by their offset, and refuses those of which two have the same bytes.
pub fn sort(slices: &mut [Slice]) -> Result<(), SliceError> {
    slices.sort_unstable_by_key(|slice| {
        (slice.name.disk, slice.length, slice.name.style.digit_count)
    });
    let collide = |pair: &[Slice]| {
        let same_place = pair[0].name.disk == pair[1].name.disk;
        (same_place || pair[0].disk_end() > pair[1].name.disk).then(|| SliceError::Overlap {
            first: pair[0],
            second: pair[1],
        })
    };
    slices.windows(2).find_map(collide).map_or(Ok(()), Err)
}

/// What slices in torrent order describe.
pub fn extents(slices: &[Slice]) -> Result<ExtentMap, ExtentError> {
    ExtentMap::from_files(slices.iter().map(|slice| (slice.name.disk, slice.length)))
}

/// The slices that hold the bytes of a torrent.
///
/// Invariants: `starts` rises; `styles` has as many entries; each extent of the torrent consists of
/// whole slices.
#[derive(Clone, Debug)]
pub struct SliceTable {
    starts: Vec<DiskOffset>,
    styles: Vec<Style>,
}

impl SliceTable {
    /// Finds a slice for every byte of these extents. `slices` are sorted. A slice that is shorter
    /// or longer than the run that it should hold is refused by its name.
    pub fn new(slices: &[Slice], extents: &ExtentMap) -> Result<SliceTable, SliceError> {
        for extent in extents.extents() {
            let (mut at, end) = (extent.disk, extent.disk + extent.length);
            let mut next = slices.partition_point(|slice| slice.disk_end() <= at);
            while at < end {
                let slice = slices.get(next).copied();
                at = match slice {
                    Some(slice) if slice.length == 0 => at,
                    Some(slice) if slice.name.disk == at && slice.disk_end() <= end => {
                        slice.disk_end()
                    }
                    Some(slice) if slice.name.disk < end && slice.disk_end() > end => {
                        return Err(SliceError::Length {
                            slice,
                            needed_end: end,
                        });
                    }
                    Some(slice) if slice.name.disk < at => {
                        return Err(SliceError::Length {
                            slice,
                            needed_end: at,
                        });
                    }
                    _ => {
                        let before = slices[..next].last().copied();
                        return Err(SliceError::Missing {
                            at,
                            before: before
                                .filter(|slice| slice.length > 0 && slice.disk_end() == at),
                        });
                    }
                };
                next += 1;
            }
        }
        let full = || slices.iter().filter(|slice| slice.length > 0);
        Ok(SliceTable {
            starts: full().map(|slice| slice.name.disk).collect(),
            styles: full().map(|slice| slice.name.style).collect(),
        })
    }

    /// The number of the slice that has this byte of the torrent, and where the next slice begins.
    pub fn find(&self, disk: DiskOffset) -> (u32, DiskOffset) {
        let next = self.starts.partition_point(|&start| start <= disk);
        assert!(next > 0, "no slice has byte {} of the disk", disk.0);
        let end = self.starts.get(next).copied();
        let index = u32::try_from(next - 1).expect("at most FILE_COUNT_MAX slices");
        (index, end.unwrap_or(DiskOffset(u64::MAX)))
    }

    /// What the file of this slice is called; the name also says where the slice begins.
    pub fn name(&self, index: u32) -> SliceName {
        SliceName {
            disk: self.starts[index as usize],
            style: self.styles[index as usize],
        }
    }
}

/// Why slices do not hold an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SliceError {
    Overlap {
        first: Slice,
        second: Slice,
    },
    /// It should end at `needed_end`.
    Length {
        slice: Slice,
        needed_end: DiskOffset,
    },
    /// No slice has this byte. `before` ends there.
    Missing {
        at: DiskOffset,
        before: Option<Slice>,
    },
}

impl fmt::Display for SliceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SliceError::Overlap { first, second } => write!(
                f,
                "slices {} of {} bytes and {} of {} bytes overlap",
                first.name, first.length, second.name, second.length
            ),
            SliceError::Length { slice, needed_end } => write!(
                f,
                "slice {} has {} bytes, in the torrent it ends at {}",
                slice.name,
                slice.length,
                SliceName::of_partclone(*needed_end)
            ),
            SliceError::Missing { at, before } => {
                let at = SliceName::of_partclone(*at);
                if let Some(Slice { name, length }) = before {
                    write!(f, "slice {name} has {length} bytes, and ")?;
                }
                write!(f, "no slice has the bytes from {at} on")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use std::format;
    use std::string::{String, ToString};

    #[test]
    fn names_are_offsets_and_come_back_as_they_were() {
        let cases = [
            ("0", 0),
            ("00000000000000000000000000000000", 0),
            ("00000000000000000000000004800400", 0x480_0400),
            ("480", 0x480),
            ("00AB", 0xab),
            ("ab", 0xab),
            ("7fffffffffffffff", i64::MAX as u64),
        ];
        for (name, offset) in cases {
            let slice = SliceName::parse(name.as_bytes()).unwrap();
            assert_eq!((slice.disk.0, &*slice.to_string()), (offset, name));
        }
        let long = format!("{:0255x}", 0x1000);
        let slice = SliceName::parse(long.as_bytes()).unwrap();
        assert_eq!((slice.disk.0, slice.to_string()), (0x1000, long));
        let ours = SliceName::of_partclone(DiskOffset(0x480_0400));
        assert_eq!(ours.to_string(), "00000000000000000000000004800400");
    }

    #[test]
    fn other_names_are_told_apart() {
        use NotASlice::{MixedCase, NotHexadecimal, TooLarge};
        for (name, error) in [
            ("", NotHexadecimal),
            ("torrent.info", NotHexadecimal),
            ("0x10", NotHexadecimal),
            (" 10", NotHexadecimal),
            ("-1", NotHexadecimal),
            ("+1", NotHexadecimal),
            ("10\n", NotHexadecimal),
            ("\u{661}", NotHexadecimal),
            ("8000000000000000", TooLarge),
            ("10000000000000000", TooLarge),
            ("f000000000000000000000000000000000000000", TooLarge),
            ("aB", MixedCase),
        ] {
            assert_eq!(SliceName::parse(name.as_bytes()), Err(error), "{name}");
        }
        assert!(SliceName::parse(&[b'0'; 256]).is_err());
    }

    fn slices(list: &[(u64, u64)]) -> Vec<Slice> {
        let slice = |&(disk, length): &(u64, u64)| Slice {
            name: SliceName::of_partclone(DiskOffset(disk)),
            length,
        };
        list.iter().map(slice).collect()
    }

    fn image(list: &[(u64, u64)]) -> ExtentMap {
        extents(&slices(list)).unwrap()
    }

    fn refusal(list: &[(u64, u64)], runs: &[(u64, u64)]) -> String {
        let mut slices = slices(list);
        let table = sort(&mut slices).and_then(|()| SliceTable::new(&slices, &image(runs)));
        let text = table.unwrap_err().to_string();
        text.replace("0000000000000000000000000000", "..")
    }

    #[test]
    fn slices_that_do_not_fit_are_named() {
        let image = [(0, 32), (64, 16)];
        for (list, text) in [
            (
                &[(0, 16), (16, 16), (64, 17)][..],
                "slice ..0040 has 17 bytes, in the torrent it ends at ..0050",
            ),
            (
                &[(0, 16), (16, 15), (64, 16)],
                "slice ..0010 has 15 bytes, and no slice has the bytes from ..001f on",
            ),
            (
                &[(0, 32), (63, 17)],
                "slice ..003f has 17 bytes, in the torrent it ends at ..0040",
            ),
            (&[(0, 32)], "no slice has the bytes from ..0040 on"),
            (&[(0, 32), (64, 0)], "no slice has the bytes from ..0040 on"),
            (
                &[(0, 17), (16, 16), (64, 16)],
                "slices ..0000 of 17 bytes and ..0010 of 16 bytes overlap",
            ),
            (
                &[(0, 32), (64, 16), (64, 0)],
                "slices ..0040 of 0 bytes and ..0040 of 16 bytes overlap",
            ),
            (&[], "no slice has the bytes from ..0000 on"),
            (
                &[(0, 80)],
                "slice ..0000 has 80 bytes, in the torrent it ends at ..0020",
            ),
        ] {
            assert_eq!(refusal(list, &image), text, "{list:?}");
        }
    }

    /// However the runs are cut, and whatever else is there, each byte is found in its slice. The
    /// twin looks at all slices.
    #[test]
    fn bytes_are_found_in_their_slices() {
        let mut rng = Rng::new(11);
        for _ in 0..500 {
            let (mut list, mut runs, mut disk) = (Vec::new(), Vec::new(), 0);
            for _ in 0..rng.below(12) {
                disk += u64::from(rng.below(3));
                let length = u64::from(rng.below(5));
                list.push((disk, length));
                if length > 0 && rng.below(5) > 0 {
                    runs.push((disk, length));
                }
                disk += length.max(1);
            }
            rng.shuffle(&mut runs);
            let mut shuffled = slices(&list);
            rng.shuffle(&mut shuffled);
            sort(&mut shuffled).unwrap();
            let table = SliceTable::new(&shuffled, &image(&runs)).unwrap();
            for (disk, length) in runs {
                for at in disk..disk + length {
                    let (index, end) = table.find(DiskOffset(at));
                    assert_eq!(table.name(index).disk.0, disk, "{list:?}: {at}");
                    assert!(end.0 >= disk + length);
                }
            }
        }
    }

    /// partclone cuts the same run in other places when it reads an image and not a device.
    #[test]
    fn it_does_not_matter_where_a_run_is_cut() {
        let image = image(&[(0, 32)]);
        for list in [
            &[(0, 32)][..],
            &[(0, 1), (1, 31)],
            &[(0, 8), (8, 8), (16, 16)],
        ] {
            let table = SliceTable::new(&slices(list), &image).unwrap();
            let (index, _) = table.find(DiskOffset(31));
            assert_eq!(index as usize, list.len() - 1);
        }
    }
}
