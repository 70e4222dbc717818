//! How are whole sectors of a device read and written while the caller waits?
//!
//! `storage::sectors` asks, for partition tables; all pieces go through `aio`. Offset, length and
//! memory are multiples of the alignment of the device, as O_DIRECT wants them.
//!
//! Read first: open(2) on O_DIRECT.

use super::device::Device;
use super::ioctl;
use std::io;
use std::os::unix::fs::FileExt;

/// Fills the buffer with whole sectors, up to the end of the device: what lies behind it is left as
/// it is.
pub fn read(device: &Device, start: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        let offset = start + filled as u64;
        match device.file.read_at(&mut buffer[filled..], offset) {
            Ok(0) => break,
            Ok(count) => filled += count,
            // A signal arrived before any byte (read(2), EINTR).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Only the end follows a part that is no whole sector, and O_DIRECT refuses such an
            // offset.
            Err(_) if !filled.is_multiple_of(device.alignment as usize) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes whole sectors.
pub fn write(device: &Device, start: u64, bytes: &[u8]) -> io::Result<()> {
    device.file.write_all_at(bytes, start)
}

/// Tells the kernel to read the partition table again. EINVAL means that the device has no
/// partitions and never will, as a partition itself, which is no error.
pub fn reread_table(device: &Device) -> io::Result<()> {
    match ioctl::reread_partition_table(&device.file) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        result => result,
    }
}
