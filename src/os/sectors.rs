//! How are a few sectors of an opened disk read and written while everybody waits?
//!
//! For partition tables: a hundred sectors before a torrent is made, or after the last upload, when
//! the event loop has nothing else to do. Everything else goes through `aio`. The requests keep the
//! alignment O_DIRECT wants and bypass the page cache as those do, so what is read is what the disk
//! says.
//!
//! Read first: open(2) on O_DIRECT.

use super::device::Device;
use super::ioctl;
use super::pool::Bounce;
use std::io;
use std::os::unix::fs::FileExt;

/// The bytes at `offset`. Behind the end there are zeros, as a file has them when it grows.
pub fn read(device: &Device, offset: u64, length: u32) -> io::Result<Vec<u8>> {
    let window = Window::read(device, offset, length)?;
    Ok(window.wanted().to_vec())
}

/// Writes bytes at `offset`; sectors that are only partly ours keep the rest.
pub fn write(device: &Device, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).expect("a few sectors");
    let mut window = Window::read(device, offset, length)?;
    window.wanted_mut().copy_from_slice(bytes);
    device
        .file
        .write_all_at(window.bounce.bytes(), window.start)
}

/// The aligned bytes around the wanted ones.
struct Window {
    start: u64,
    skip: usize,
    length: usize,
    bounce: Bounce,
}

impl Window {
    fn read(device: &Device, offset: u64, length: u32) -> io::Result<Window> {
        let alignment = u64::from(device.alignment);
        let start = offset / alignment * alignment;
        let skip = offset - start;
        let whole = (skip + u64::from(length)).next_multiple_of(alignment);
        let mut bounce = Bounce::new(
            u32::try_from(whole).expect("a few sectors"),
            device.alignment,
        );
        read_up_to(device, start, bounce.bytes_mut())?;
        Ok(Window {
            start,
            skip: skip as usize,
            length: length as usize,
            bounce,
        })
    }

    fn wanted(&self) -> &[u8] {
        &self.bounce.bytes()[self.skip..][..self.length]
    }

    fn wanted_mut(&mut self) -> &mut [u8] {
        &mut self.bounce.bytes_mut()[self.skip..][..self.length]
    }
}

/// Fills the buffer up to the end of the disk; a signal may come in between (read(2), EINTR).
fn read_up_to(device: &Device, start: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match device
            .file
            .read_at(&mut buffer[filled..], start + filled as u64)
        {
            // After a part that is no whole sector there is only the end, and O_DIRECT would not
            // take such an address.
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if !filled.is_multiple_of(device.alignment as usize) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Tells the kernel to read the partition table again. EINVAL means that the device has no
/// partitions and never will, as a partition itself, which is no error.
pub fn reread_table(device: &Device) -> io::Result<()> {
    match ioctl::reread_partition_table(&device.file) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::super::device::TargetOptions;
    use super::super::testing::Scratch;
    use super::*;

    #[test]
    fn odd_bytes_are_read_and_written_and_their_neighbours_kept() {
        let scratch = Scratch::new("sectors");
        let device = Device::open_target(scratch.path(), 20_000, TargetOptions::default()).unwrap();
        write(&device, 0, &[1; 10_000]).unwrap();
        write(&device, 700, &[2; 5000]).unwrap();
        let bytes = read(&device, 0, 10_000).unwrap();
        let runs: Vec<(u8, usize)> = bytes
            .chunk_by(|one, next| one == next)
            .map(|run| (run[0], run.len()))
            .collect();
        assert_eq!(runs, [(1, 700), (2, 5000), (1, 4300)]);
        assert_eq!(read(&device, 699, 2).unwrap(), [1, 2]);
    }

    #[test]
    fn behind_the_end_there_are_zeros() {
        let scratch = Scratch::new("end");
        scratch.open_buffered().write_all_at(&[7; 5000], 0).unwrap();
        let device = Device::open_source(scratch.path()).unwrap();
        assert_eq!(
            read(&device, 4990, 20).unwrap(),
            [[7; 10], [0; 10]].concat()
        );
        assert_eq!(read(&device, 1 << 40, 3).unwrap(), [0; 3]);
    }
}
