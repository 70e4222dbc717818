//! Which ranges of a file hold data, and which are holes?
//!
//! Read first: lseek(2) on SEEK_DATA and SEEK_HOLE. A file system that does not know holes answers
//! that the whole file is data.

use super::device::Device;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// The ranges that hold data, in order, none of them empty. Data that is written meanwhile may be
/// missed.
fn data_ranges(file: &File) -> io::Result<Vec<Range<u64>>> {
    let mut ranges = Vec::new();
    let mut from = 0;
    while let Some(start) = seek(file, from, libc::SEEK_DATA)? {
        // Every range of data ends in a hole, or in the one that the kernel sees behind the end of
        // the file. `None` if the file has just become shorter.
        let Some(end) = seek(file, start, libc::SEEK_HOLE)? else {
            break;
        };
        if start >= end {
            break;
        }
        ranges.push(start..end);
        from = end;
    }
    Ok(ranges)
}

/// The same of an open device. A block device does not tell what is unused, nor a packed image.
pub fn data_of(device: &Device) -> io::Result<Vec<Range<u64>>> {
    match device.is_block() || device.packed.is_some() {
        true => Ok(std::iter::once(0..device.size_bytes).collect()),
        false => data_ranges(&device.file),
    }
}

/// Where the next data or hole begins, at `from` or later; `None` if there is no more up to the end
/// of the file.
fn seek(file: &File, from: u64, what: libc::c_int) -> io::Result<Option<u64>> {
    let from = libc::off_t::try_from(from).expect("the kernel gave this offset");
    // SAFETY: plain numbers on an open descriptor. This moves the position of the file, which is
    // not used: all reads and writes name their offset.
    let found = unsafe { libc::lseek(file.as_raw_fd(), from, what) };
    match u64::try_from(found) {
        Ok(offset) => Ok(Some(offset)),
        Err(_) => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            error => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Scratch;
    use super::*;
    use std::os::unix::fs::FileExt;

    const MIB: u64 = 1 << 20;

    #[test]
    fn holes_are_left_out_of_the_ranges() {
        let scratch = Scratch::new("sparse");
        let file = scratch.open_buffered();
        assert_eq!(data_ranges(&file).unwrap(), []);
        file.set_len(10 * MIB).unwrap();
        assert_eq!(data_ranges(&file).unwrap(), [], "a file may be one hole");
        file.write_all_at(b"x", 3 * MIB + 5).unwrap();
        file.write_all_at(b"x", 10 * MIB - 1).unwrap();
        let ranges = data_ranges(&file).unwrap();
        let holds = |offset| ranges.iter().any(|range| range.contains(&offset));
        assert!(holds(3 * MIB + 5) && holds(10 * MIB - 1));
        assert!(
            !holds(0) && !holds(6 * MIB),
            "{ranges:?}; is the target directory on a file system with holes?"
        );
    }

    #[test]
    fn a_file_without_holes_is_one_range() {
        let scratch = Scratch::new("full");
        let file = scratch.open_buffered();
        file.write_all_at(&[1; 10_000], 0).unwrap();
        let ranges = data_ranges(&file).unwrap();
        assert_eq!((ranges.len(), ranges[0].clone()), (1, 0..10_000));
    }
}
