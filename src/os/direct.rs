//! Which alignment does O_DIRECT want on this file or device?
//!
//! Read first: open(2) on O_DIRECT, statx(2) on STATX_DIOALIGN.

use super::whole;
use std::fs::File;
use std::os::fd::AsRawFd;
use swarm_proto::limits::SECTOR_BYTES_MIN;

/// The alignment of address and offset, 0 if O_DIRECT does not work on this file; `None` if the
/// kernel (before 6.1) or the file system does not say.
pub(super) fn alignment(file: &File) -> Option<u32> {
    const STATX_DIOALIGN: u32 = 0x2000;
    /// `struct statx` (include/uapi/linux/stat.h), the fields in between left out. Declared here
    /// because not every libc has the two.
    #[repr(C)]
    struct Statx {
        mask: u32,
        before: [u32; 37],
        memory_align: u32,
        offset_align: u32,
        after: [u64; 12],
    }
    const _: () = assert!(size_of::<Statx>() == 256);
    const _: () = assert!(std::mem::offset_of!(Statx, memory_align) == 0x98);

    let mut answer = Statx {
        mask: 0,
        before: [0; 37],
        memory_align: 0,
        offset_align: 0,
        after: [0; 12],
    };
    // SAFETY: the kernel reads an empty path and writes one `struct statx`, which is 256 bytes for
    // ever.
    let result = unsafe {
        libc::syscall(
            libc::SYS_statx,
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            STATX_DIOALIGN,
            &raw mut answer,
        )
    };
    let answered = result == 0 && answer.mask & STATX_DIOALIGN != 0;
    answered.then_some(match answer.offset_align {
        0 => 0,
        offset_align => offset_align.max(answer.memory_align),
    })
}

/// The logical sector of the disk below a file system: the alignment where the kernel does not say
/// one. A file system without a disk of its own (btrfs, NFS) takes any alignment or buffers by
/// itself.
pub(super) fn disk_sector_bytes(device_number: u64) -> u32 {
    let (major, minor) = (libc::major(device_number), libc::minor(device_number));
    let disk_and_partition = ["queue", "../queue"];
    let answers = disk_and_partition.iter().filter_map(|queue| {
        let path = format!("/sys/dev/block/{major}:{minor}/{queue}/logical_block_size");
        whole::read_text(path.as_ref())
            .ok()?
            .trim_ascii()
            .parse()
            .ok()
    });
    answers.max().unwrap_or(SECTOR_BYTES_MIN)
}
