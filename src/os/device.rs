//! What is known of an opened block device or file?
//!
//! A `Device` knows its size, its sectors, and the alignment O_DIRECT wants of every request.
//! `open` says whether and how it is opened, `aio` reads and writes it. Only the length of a
//! regular file is changed here.
//!
//! Read first: open(2) on O_DIRECT and O_EXCL.

use super::{file, ioctl};
use std::fs::{File, Metadata};
use std::io::{self, Seek};
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use swarm_proto::format::lz4_frame::Packed;

/// An opened target or source.
#[derive(Debug)]
pub struct Device {
    pub(super) file: File,
    pub path: PathBuf,
    pub kind: Kind,
    pub size_bytes: u64,
    /// Logical sector: the unit of addressing. A regular file counts as a disk of 512-byte sectors.
    pub sector_bytes: u32,
    /// Address, length and offset of every request are multiples of this power of two. At least the
    /// logical sector.
    pub alignment: u32,
    /// False where the file system knows no O_DIRECT: requests then go through the page cache.
    pub direct: bool,
    pub read_only: bool,
    /// The file did not exist before, so there is nothing in it to scan.
    pub created: bool,
    /// A packed image, whose size and whose bytes are meant from then on.
    pub packed: Option<Arc<Packed>>,
    /// What opening has changed; `None` for a block device and in a dry run.
    pub(super) undo: Option<Undo>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Major and minor number, by which sysfs knows the device.
    Block {
        number: (u32, u32),
    },
    Regular,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct TargetOptions {
    /// Refuse what would be refused without this, but create and change nothing.
    pub dry_run: bool,
}

impl Device {
    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    pub fn is_block(&self) -> bool {
        matches!(self.kind, Kind::Block { .. })
    }

    /// A number that no other disk gets until the next boot. `None` for a file, and before Linux
    /// 5.15.
    pub fn sequence(&self) -> Option<u64> {
        let is_block = self.is_block();
        is_block.then(|| ioctl::disk_sequence(&self.file).ok())?
    }

    /// Whether another program has locked the byte that QEMU locks while a machine may write to
    /// the disk (BLK_PERM_WRITE in block/file-posix.c of QEMU). A lock of more than QEMU's bytes is
    /// that of another program, and says nothing of the disk.
    pub fn is_locked(&self) -> bool {
        let mut lock = write_lock_of_qemu();
        // SAFETY: an open descriptor; the kernel reads and writes one `flock`.
        let asked = unsafe { libc::fcntl(self.fd(), libc::F_OFD_GETLK, &raw mut lock) };
        let is_qemu = QEMU_LOCKS.contains(&lock.l_start)
            && (1..=QEMU_LOCKS.end - lock.l_start).contains(&lock.l_len);
        super::check(asked).is_ok() && lock.l_type != libc::F_UNLCK as libc::c_short && is_qemu
    }

    /// The same open device a second time. What opening it has changed stays with this one.
    pub fn duplicate(&self) -> io::Result<Device> {
        Ok(Device {
            file: self.file.try_clone()?,
            path: self.path.clone(),
            packed: self.packed.clone(),
            undo: None,
            ..*self
        })
    }

    /// Where a regular file ends by now, if that is before `needed_bytes`. A packed image needs all
    /// of its file.
    pub fn ends_before(&self, needed_bytes: u64) -> Option<u64> {
        let now = self.file.metadata().ok().filter(Metadata::is_file)?;
        let packed = self.packed.as_ref();
        let needed_bytes = packed.map_or(needed_bytes, |packed| packed.file_bytes);
        Some(now.len()).filter(|end_bytes| *end_bytes < needed_bytes)
    }

    /// Blocks until all that was written is on stable storage. Only for kernels that cannot flush
    /// through AIO.
    pub fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Call this before the first write: from then on, dropping the `Device` no longer undoes what
    /// opening changed.
    pub fn keep(&mut self) {
        if let Some(undo) = &mut self.undo {
            undo.kept = true;
        }
    }

    /// Makes a regular-file target exactly as long as the image, on stable storage. The last thing
    /// that is done to it.
    pub fn finish_regular(&mut self, length_bytes: u64) -> Result<(), DeviceError> {
        assert_eq!(self.kind, Kind::Regular);
        assert!(!self.read_only);
        self.keep();
        let resized = self
            .file
            .set_len(length_bytes)
            .and_then(|()| self.file.sync_all())
            .and_then(|()| match self.created {
                true => sync_directory(&self.path),
                false => Ok(()),
            });
        resized.map_err(|error| DeviceError::Resize {
            path: self.path.clone(),
            length_bytes,
            error,
        })?;
        self.size_bytes = length_bytes;
        Ok(())
    }
}

/// A new file is found again after a power cut only if its directory was written, too (fsync(2)).
pub fn sync_directory(file: &Path) -> io::Result<()> {
    match file::open(parent(file), libc::O_DIRECTORY)?.sync_all() {
        // A file system that cannot do that.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        result => result,
    }
}

/// Blocks until everything on the file system of a directory is on stable storage: one call for any
/// number of files.
pub fn sync_file_system(directory: &Path) -> io::Result<()> {
    let directory = file::open(directory, libc::O_DIRECTORY)?;
    // SAFETY: an open descriptor.
    super::check(unsafe { libc::syncfs(directory.as_raw_fd()) }).map(drop)
}

/// The directory of a path; of a bare name, the current one.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    }
}

/// The bytes that QEMU locks one by one for what it may do; locks of neighbours become one.
const QEMU_LOCKS: Range<libc::off_t> = 100..105;

fn write_lock_of_qemu() -> libc::flock {
    // SAFETY: a struct of numbers, all of which may be 0.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    (lock.l_start, lock.l_len) = (101, 1);
    lock
}

/// What a regular file was before it was opened as a target. Dropped before `Device::keep`, it
/// restores that: a job may still be refused after its file was created, because of another target
/// or of the port to listen on.
#[derive(Debug)]
pub(super) struct Undo {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// `None`: there was no file.
    pub(super) length_bytes: Option<u64>,
    pub(super) kept: bool,
}

impl Drop for Undo {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // A failure here leaves a file of zeros behind. The reason why the job ended is reported
        // already.
        let _ = match self.length_bytes {
            Some(length_bytes) => self.file.set_len(length_bytes),
            None if self.is_at_path() => std::fs::remove_file(&self.path),
            None => Ok(()),
        };
    }
}

impl Undo {
    /// Whether the path still names our file, and not one that somebody else put there.
    fn is_at_path(&self) -> bool {
        let identity = |found: Metadata| (found.dev(), found.ino());
        let (there, ours) = (std::fs::symlink_metadata(&self.path), self.file.metadata());
        there.ok().map(identity) == ours.ok().map(identity)
    }
}

/// The number of the block device at a path, by which sysfs knows it, without opening it.
pub fn device_number(path: &Path) -> Option<(u32, u32)> {
    let found = std::fs::metadata(path)
        .ok()
        .filter(|found| found.file_type().is_block_device())?;
    Some((libc::major(found.rdev()), libc::minor(found.rdev())))
}

/// Whether opening it exclusively would fail. To find out, it is opened to read and closed again.
pub fn is_held(path: &Path) -> bool {
    let opened = file::open(path, libc::O_EXCL);
    opened.is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
}

/// What `take` makes of a device or file: it gets the size, and the function that reads. Goes
/// through the page cache and waits for the disk.
pub fn read_parts<T>(
    path: &Path,
    take: impl FnOnce(u64, &mut dyn FnMut(Range<u64>) -> io::Result<Vec<u8>>) -> io::Result<T>,
) -> io::Result<T> {
    let mut file = file::open(path, libc::O_RDONLY)?;
    let size_bytes = file.seek(io::SeekFrom::End(0))?;
    take(size_bytes, &mut |part| {
        let mut bytes = vec![0; (part.end - part.start) as usize];
        file.read_exact_at(&mut bytes, part.start).map(|()| bytes)
    })
}

/// What the device is opened as, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Target,
    Source,
}

/// Why a path is not opened; `target::refusal` has the sentences. Each comes before any byte has
/// changed, except `Resize` at the end.
#[derive(Debug)]
pub enum DeviceError {
    /// An ioctl that every block device answers failed.
    Ask {
        path: PathBuf,
        error: io::Error,
    },
    /// Held exclusively; `by` names the holders that are known.
    Busy {
        path: PathBuf,
        by: Vec<String>,
    },
    Changed {
        path: PathBuf,
    },
    NoSuchDevice {
        path: PathBuf,
    },
    Open {
        role: Role,
        path: PathBuf,
        error: io::Error,
    },
    ReadOnly {
        path: PathBuf,
    },
    Resize {
        path: PathBuf,
        length_bytes: u64,
        error: io::Error,
    },
    TooSmall {
        path: PathBuf,
        holds_bytes: u64,
        needed_bytes: u64,
    },
    WrongKind {
        role: Role,
        path: PathBuf,
        what: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::super::testing::Scratch;
    use super::*;

    fn open(path: impl AsRef<Path>, needed_bytes: u64) -> Result<Device, DeviceError> {
        Device::open_target(path.as_ref(), needed_bytes, TargetOptions::default())
    }

    fn refusal(path: impl AsRef<Path>) -> String {
        open(path, 1).unwrap_err().to_string()
    }

    #[test]
    fn a_missing_file_is_created_sparse_and_ends_as_long_as_the_image() {
        let scratch = Scratch::new("new");
        let mut device = open(scratch.path(), 1 << 30).unwrap();
        assert_eq!(
            (device.kind, device.size_bytes, device.sector_bytes),
            (Kind::Regular, 1 << 30, 512)
        );
        assert!(device.created && !device.read_only);
        assert!(
            device.direct,
            "put cargo's target directory on a file system that knows O_DIRECT"
        );
        assert!(device.alignment >= 512);
        let metadata = scratch.path().metadata().unwrap();
        assert_eq!((metadata.len(), metadata.blocks()), (1 << 30, 0));
        device.flush().unwrap();
        device.finish_regular((1 << 30) - 77).unwrap();
        assert_eq!(scratch.path().metadata().unwrap().len(), (1 << 30) - 77);
    }

    #[test]
    fn a_device_dropped_before_the_first_write_restores_its_file() {
        let scratch = Scratch::new("undo");
        drop(open(scratch.path(), 1 << 20).unwrap());
        assert!(!scratch.path().exists());
        std::fs::write(scratch.path(), b"abc").unwrap();
        drop(open(scratch.path(), 1 << 20).unwrap());
        assert_eq!(std::fs::read(scratch.path()).unwrap(), b"abc");
        let mut device = open(scratch.path(), 1 << 20).unwrap();
        device.keep();
        drop(device);
        assert_eq!(scratch.path().metadata().unwrap().len(), 1 << 20);
    }

    #[test]
    fn a_longer_file_keeps_its_length_until_it_is_finished() {
        let scratch = Scratch::new("longer");
        std::fs::write(scratch.path(), [7; 5000]).unwrap();
        let mut device = open(scratch.path(), 1000).unwrap();
        assert!(!device.created);
        assert_eq!(std::fs::read(scratch.path()).unwrap(), [7; 5000]);
        device.finish_regular(1000).unwrap();
        assert_eq!(std::fs::read(scratch.path()).unwrap(), [7; 1000]);
    }

    /// QEMU takes read locks: byte 100 to read, byte 101 to write.
    #[test]
    fn a_lock_of_qemu_is_seen() {
        let scratch = Scratch::new("qemu");
        std::fs::write(scratch.path(), b"abc").unwrap();
        let device = Device::open_source(scratch.path()).unwrap();
        let qemu = File::open(scratch.path()).unwrap();
        // The second lock becomes one with the first. A program that reads may lock all bytes.
        for (byte, length, is_seen) in [(100, 1, false), (101, 1, true), (0, 0, false)] {
            let mut lock = write_lock_of_qemu();
            lock.l_type = libc::F_RDLCK as libc::c_short;
            (lock.l_start, lock.l_len) = (byte, length);
            // SAFETY: an open descriptor; the kernel reads one `flock`.
            let locked = unsafe { libc::fcntl(qemu.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) };
            super::super::check(locked).unwrap();
            assert_eq!(device.is_locked(), is_seen, "byte {byte}");
        }
        drop(qemu);
        assert!(!device.is_locked());
    }

    #[test]
    fn a_dry_run_changes_nothing() {
        let scratch = Scratch::new("dry");
        let options = TargetOptions { dry_run: true };
        let device = Device::open_target(scratch.path(), 5000, options).unwrap();
        assert!(device.created && device.direct);
        assert_eq!(device.size_bytes, 5000);
        assert!(!scratch.path().exists());
        std::fs::write(scratch.path(), b"abc").unwrap();
        Device::open_target(scratch.path(), 5000, options).unwrap();
        assert_eq!(std::fs::read(scratch.path()).unwrap(), b"abc");
        let nowhere = scratch.path().join("below/a/file");
        assert!(Device::open_target(&nowhere, 1, options).is_err());
    }

    #[test]
    fn a_file_has_one_writer() {
        let scratch = Scratch::new("locked");
        let first = open(scratch.path(), 10).unwrap();
        assert!(refusal(scratch.path()).ends_with("is in use: another process writes to it"));
        Device::open_source(scratch.path()).unwrap();
        drop(first);
        open(scratch.path(), 10).unwrap();
    }

    #[test]
    fn other_kinds_of_file_are_refused() {
        let must = "it must be a block device or a regular file";
        assert_eq!(
            refusal("/dev"),
            format!("target /dev is a directory; {must}")
        );
        assert_eq!(
            refusal("/dev/full"),
            format!("target /dev/full is a character device; {must}")
        );
        assert_eq!(
            refusal("/dev/null"),
            format!("target /dev/null is a character device; {must}")
        );

        let socket = Scratch::new("sock");
        let _listener = std::os::unix::net::UnixListener::bind(socket.path()).unwrap();
        assert!(refusal(socket.path()).contains("is a socket"));

        let pipe = Scratch::new("pipe");
        let path = std::ffi::CString::new(pipe.path().to_str().unwrap()).unwrap();
        // SAFETY: reads a path that ends in NUL.
        crate::os::check(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }).unwrap();
        assert!(refusal(pipe.path()).contains("is a named pipe"));

        let source = Device::open_source(Path::new("/dev"))
            .unwrap_err()
            .to_string();
        assert_eq!(source, format!("source /dev is a directory; {must}"));
    }

    #[test]
    fn a_mistyped_device_does_not_become_a_file() {
        assert_eq!(
            refusal("/dev/sdnone"),
            "target /dev/sdnone: there is no such device"
        );
        assert_eq!(
            refusal("/dev/../dev/sdnone"),
            "target /dev/../dev/sdnone: there is no such device"
        );
        assert_eq!(
            refusal("/dev/disk/by-none/x"),
            "target /dev/disk/by-none/x: there is no such device"
        );
        assert!(!Path::new("/dev/sdnone").exists());
    }

    #[test]
    fn errors_name_path_and_reason() {
        let missing = Scratch::new("missing");
        let path = missing.path().join("file");
        let reason = "No such file or directory (os error 2)";
        assert_eq!(
            refusal(&path),
            format!("cannot open target {}: {reason}", path.display())
        );
        let source = Device::open_source(&path).unwrap_err().to_string();
        assert_eq!(
            source,
            format!("cannot open source {}: {reason}", path.display())
        );
    }

    #[test]
    fn a_file_that_cannot_grow_is_removed_again() {
        let scratch = Scratch::new("huge");
        let needed_bytes = i64::MAX as u64;
        let path = scratch.path().display();
        let reason = "File too large (os error 27)";
        assert_eq!(
            open(scratch.path(), needed_bytes).unwrap_err().to_string(),
            format!("cannot make {path} {needed_bytes} bytes long: {reason}")
        );
        assert!(!scratch.path().exists());
    }

    #[test]
    fn a_source_is_read_only() {
        let scratch = Scratch::new("source");
        std::fs::write(scratch.path(), [1; 777]).unwrap();
        for device in [
            Device::open_source(scratch.path()),
            Device::open_readonly(scratch.path()),
        ] {
            let device = device.unwrap();
            assert!(device.read_only);
            assert_eq!(device.size_bytes, 777);
        }
    }
}
