//! How does a device make a range zeros without having them written? Many disks and most file
//! systems can.
//!
//! Read first: `blk_ioctl_zeroout` in block/ioctl.c, fallocate(2). On a disk that cannot do it,
//! BLKZEROOUT writes zeros page by page and blocks until they are there. Then it is better to write
//! them through AIO, which does not block.

use std::io;
use std::ops::Range;

use super::device::{Device, Kind};
use super::{check, ioctl, whole};

/// Whether `zero` takes next to no time on this device. A disk says so in sysfs, a file system by
/// its answer to the first call.
pub fn is_quick(device: &Device) -> bool {
    let Kind::Block {
        number: (major, minor),
    } = device.kind
    else {
        return true;
    };
    // A partition has no queue. Its disk is the directory above and has one.
    let limit = |queue: &str| {
        let path = format!("/sys/dev/block/{major}:{minor}/{queue}/write_zeroes_max_bytes");
        whole::read_text(path.as_ref()).ok()
    };
    let bytes = limit("queue").or_else(|| limit("../queue"));
    bytes.is_some_and(|bytes| {
        bytes
            .trim_ascii()
            .parse::<u64>()
            .is_ok_and(|bytes| bytes > 0)
    })
}

/// Makes this range of whole sectors zeros. After an error the zeros have to be written.
pub fn zero(device: &Device, range: Range<u64>) -> io::Result<()> {
    let length = range.end - range.start;
    match device.kind {
        Kind::Block { .. } => ioctl::zero_out(&device.file, range.start, length),
        Kind::Regular => {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            let offset = |bytes| libc::off64_t::try_from(bytes).map_err(io::Error::other);
            // SAFETY: our own descriptor and plain numbers.
            let result = unsafe {
                libc::fallocate64(device.fd(), mode, offset(range.start)?, offset(length)?)
            };
            check(result).map(drop)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::device::TargetOptions;
    use crate::os::testing::Scratch;
    use std::fs;

    #[test]
    fn a_zeroed_range_of_a_file_is_zeros_and_the_rest_is_kept() {
        let scratch = Scratch::new("zero");
        fs::write(scratch.path(), vec![7; 65_536]).unwrap();
        let device = Device::open_target(scratch.path(), 65_536, TargetOptions::default()).unwrap();
        assert!(is_quick(&device));
        zero(&device, 4096..12_288).unwrap();
        let bytes = fs::read(scratch.path()).unwrap();
        assert_eq!(bytes.len(), 65_536);
        assert!(bytes[4096..12_288].iter().all(|byte| *byte == 0));
        assert!(
            bytes[..4096]
                .iter()
                .chain(&bytes[12_288..])
                .all(|byte| *byte == 7)
        );
    }
}
