//! Which ioctls does the program use? All of them stand here.
//!
//! Read first: ioctl(2), include/uapi/linux/fs.h, ioctl_tty(2).

use super::check;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

// From linux/fs.h. The numbers are those of all 64-bit machines but powerpc, mips, sparc and alpha.
const BLKROGET: libc::Ioctl = 0x125e;
const BLKRRPART: libc::Ioctl = 0x125f;
const BLKSSZGET: libc::Ioctl = 0x1268;
const BLKZEROOUT: libc::Ioctl = 0x127f;
const BLKGETDISKSEQ: libc::Ioctl = 0x8008_1280_u32 as libc::Ioctl;
const BLKGETSIZE64: libc::Ioctl = 0x8008_1272_u32 as libc::Ioctl;

/// The size of a block device.
pub(super) fn size_bytes(device: impl AsFd) -> io::Result<u64> {
    get(device, BLKGETSIZE64).map(u64::from_ne_bytes)
}

/// The sequence number of the disk (Linux 5.15).
pub(super) fn disk_sequence(device: impl AsFd) -> io::Result<u64> {
    get(device, BLKGETDISKSEQ).map(u64::from_ne_bytes)
}

/// The logical sector of a block device.
pub(super) fn sector_bytes(device: impl AsFd) -> io::Result<u32> {
    get_int(device, BLKSSZGET)
}

/// Whether the kernel refuses to write to a block device.
pub(super) fn is_read_only(device: impl AsFd) -> io::Result<bool> {
    get_int(device, BLKROGET).map(|answer| answer != 0)
}

/// Makes a range of a block device zeros, in whole sectors. Blocks until they are there.
pub(super) fn zero_out(device: impl AsFd, offset: u64, length_bytes: u64) -> io::Result<()> {
    let range = [offset, length_bytes];
    let fd = device.as_fd().as_raw_fd();
    // SAFETY: an open descriptor; the kernel reads two numbers.
    check(unsafe { libc::ioctl(fd, BLKZEROOUT, range.as_ptr()) }).map(drop)
}

/// Tells the kernel to read the partition table of a block device again.
pub(super) fn reread_partition_table(device: impl AsFd) -> io::Result<()> {
    // SAFETY: an open descriptor and no argument (blkdev_common_ioctl in block/ioctl.c).
    check(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), BLKRRPART) }).map(drop)
}

/// The columns of a terminal, 0 if it does not know them.
pub(super) fn terminal_columns(terminal: impl AsFd) -> io::Result<u16> {
    let mut size = terminal_size(0);
    let fd = terminal.as_fd().as_raw_fd();
    // SAFETY: an open descriptor; the kernel writes one `winsize`.
    check(unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, &raw mut size) })?;
    Ok(size.ws_col)
}

#[cfg(test)]
pub(super) fn set_terminal_columns(terminal: impl AsFd, columns: u16) -> io::Result<()> {
    let size = terminal_size(columns);
    let fd = terminal.as_fd().as_raw_fd();
    // SAFETY: an open descriptor; the kernel reads one `winsize`.
    check(unsafe { libc::ioctl(fd, libc::TIOCSWINSZ, &raw const size) }).map(drop)
}

fn terminal_size(columns: u16) -> libc::winsize {
    libc::winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// The answer to one of the questions about block devices. It is a `u64` for BLKGETSIZE64 and
/// BLKGETDISKSEQ, and an `int` in the first four bytes for the others.
fn get(device: impl AsFd, question: libc::Ioctl) -> io::Result<[u8; 8]> {
    let mut answer = [0; 8];
    let fd = device.as_fd().as_raw_fd();
    // SAFETY: an open descriptor. These ioctls write an int or a u64, neither longer than `answer`;
    // the kernel copies bytes, whatever their alignment.
    check(unsafe { libc::ioctl(fd, question, answer.as_mut_ptr()) })?;
    Ok(answer)
}

fn get_int(device: impl AsFd, question: libc::Ioctl) -> io::Result<u32> {
    let [a, b, c, d, ..] = get(device, question)?;
    Ok(u32::from_ne_bytes([a, b, c, d]))
}
