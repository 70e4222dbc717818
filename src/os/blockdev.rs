//! Can this path be written as a disk, or read as one, and on what terms?
//!
//! Opening is where all refusals happen, before any byte has changed: not a disk, mounted, held,
//! read-only, too small. An opened `Device` knows its size, its sectors, and the alignment O_DIRECT
//! wants of every request. Reading and writing is `Aio`'s; here only the length of a regular file
//! is ever changed.
//!
//! Read first: open(2) on O_DIRECT and O_EXCL, statx(2) on STATX_DIOALIGN, include/uapi/linux/fs.h
//! for the ioctls.

use super::check;
use std::fmt;
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Seek};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use swarm_proto::limits::SECTOR_BYTES_MIN;

/// An opened target or source.
#[derive(Debug)]
pub struct Device {
    file: File,
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
    /// The file did not exist before: there is nothing in it to look at.
    pub created: bool,
    /// What opening has changed.
    undo: Option<Undo>,
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
    /// Refuse what would be refused, but create and change nothing.
    pub dry_run: bool,
    /// Open a block device even if it is mounted or held.
    pub force: bool,
}

impl Device {
    /// Opens what is to be written. A block device is held exclusively until the `Device` is
    /// dropped; a regular file is created if missing and grown, sparse, to `needed_bytes`.
    pub fn open_target(
        path: &Path,
        needed_bytes: u64,
        options: TargetOptions,
    ) -> Result<Device, DeviceError> {
        let opening = Opening {
            path,
            role: Role::Target,
        };
        match opening.look()? {
            Some(found) if found.file_type().is_block_device() => {
                opening.block_target(&found, needed_bytes, options)
            }
            found => opening.regular_target(found.as_ref(), needed_bytes, options),
        }
    }

    /// Opens what is to be served. It may be mounted; nobody is kept from changing it.
    pub fn open_source(path: &Path) -> Result<Device, DeviceError> {
        Opening {
            path,
            role: Role::Source,
        }
        .read_only()
    }

    /// Opens a target to read it and nothing else (`verify`).
    pub fn open_readonly(path: &Path) -> Result<Device, DeviceError> {
        Opening {
            path,
            role: Role::Target,
        }
        .read_only()
    }

    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub fn is_block(&self) -> bool {
        matches!(self.kind, Kind::Block { .. })
    }

    /// The same open device a second time. What opening it has changed stays with this one.
    pub fn duplicate(&self) -> io::Result<Device> {
        Ok(Device {
            file: self.file.try_clone()?,
            path: self.path.clone(),
            undo: None,
            ..*self
        })
    }

    /// Where a regular file ends by now, if that is before `needed_bytes`.
    pub fn ends_before(&self, needed_bytes: u64) -> Option<u64> {
        let now = self.file.metadata().ok().filter(Metadata::is_file)?;
        Some(now.len()).filter(|end_bytes| *end_bytes < needed_bytes)
    }

    /// Blocks until everything written is on stable storage. Only for kernels that cannot flush
    /// through AIO.
    pub fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// To be called before the first write: from here on dropping the `Device` no longer undoes
    /// what opening changed.
    pub fn keep(&mut self) {
        if let Some(undo) = &mut self.undo {
            undo.kept = true;
        }
    }

    /// The last act on a regular-file target: makes it exactly as long as the image, on stable
    /// storage.
    pub fn finish_regular(&mut self, length_bytes: u64) -> Result<(), DeviceError> {
        assert_eq!(self.kind, Kind::Regular);
        assert!(!self.read_only);
        self.keep();
        let resized = self
            .file
            .set_len(length_bytes)
            .and_then(|()| self.file.sync_all());
        resized.map_err(|error| DeviceError::Resize {
            path: self.path.clone(),
            length_bytes,
            error,
        })?;
        self.size_bytes = length_bytes;
        Ok(())
    }
}

/// A regular file as it was before it was opened as a target; dropped before `Device::keep`, it is
/// made so again. A job can still be refused when its file is there already, because of another
/// target or of the port to listen on.
#[derive(Debug)]
struct Undo {
    path: PathBuf,
    file: File,
    /// `None`: there was no file.
    length_bytes: Option<u64>,
    kept: bool,
}

impl Drop for Undo {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // Whatever fails here leaves zeros behind where nothing was, and the reason for leaving is
        // told already.
        let _ = match self.length_bytes {
            Some(length_bytes) => self.file.set_len(length_bytes),
            None if self.is_at_path() => std::fs::remove_file(&self.path),
            None => Ok(()),
        };
    }
}

impl Undo {
    fn is_at_path(&self) -> bool {
        let identity = |found: Metadata| (found.dev(), found.ino());
        let (there, ours) = (std::fs::symlink_metadata(&self.path), self.file.metadata());
        there.ok().map(identity) == ours.ok().map(identity)
    }
}

/// The number of the block device at a path, to look it up in sysfs when it could not be opened.
pub fn device_number(path: &Path) -> Option<(u32, u32)> {
    let found = std::fs::metadata(path)
        .ok()
        .filter(|found| found.file_type().is_block_device())?;
    Some((libc::major(found.rdev()), libc::minor(found.rdev())))
}

/// Would opening it exclusively fail? Asked by opening it to read, and letting go at once.
pub fn is_held(path: &Path) -> bool {
    let opened = File::options()
        .read(true)
        .custom_flags(libc::O_EXCL)
        .open(path);
    opened.is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
}

/// The first and the last bytes of a device or file, fewer if it has fewer, and its size. Goes
/// through the page cache and waits for the disk.
pub fn read_ends(
    path: &Path,
    head_bytes: usize,
    tail_bytes: usize,
) -> io::Result<(Vec<u8>, Vec<u8>, u64)> {
    let mut file = File::open(path)?;
    let size_bytes = file.seek(io::SeekFrom::End(0))?;
    let read = |offset: u64, length: usize| {
        let length = (length as u64).min(size_bytes) as usize;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset).map(|()| bytes)
    };
    let head = read(0, head_bytes)?;
    let tail = read(size_bytes.saturating_sub(tail_bytes as u64), tail_bytes)?;
    Ok((head, tail, size_bytes))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Target,
    Source,
}

/// A path on its way to becoming a `Device`, with what error messages need.
#[derive(Clone, Copy)]
struct Opening<'a> {
    path: &'a Path,
    role: Role,
}

impl Opening<'_> {
    /// What lies at the path: a block device, a regular file, or nothing. Looked at before it is
    /// opened, because opening a tape rewinds it and opening a pipe waits for the other end.
    fn look(self) -> Result<Option<Metadata>, DeviceError> {
        let found = match std::fs::metadata(self.path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.cannot_open(error)),
        };
        let kind = found.file_type();
        let what = match () {
            () if kind.is_block_device() || kind.is_file() => return Ok(Some(found)),
            () if kind.is_dir() => "a directory",
            () if kind.is_char_device() => "a character device",
            () if kind.is_fifo() => "a named pipe",
            () if kind.is_socket() => "a socket",
            () => "of an unknown kind",
        };
        Err(DeviceError::WrongKind {
            role: self.role,
            path: self.path.into(),
            what,
        })
    }

    fn block_target(
        self,
        found: &Metadata,
        needed_bytes: u64,
        options: TargetOptions,
    ) -> Result<Device, DeviceError> {
        // O_EXCL without O_CREAT fails with EBUSY if the device, the disk it is a part of, or a
        // part of it is mounted, used as swap or held by md, dm or another O_EXCL (block/bdev.c,
        // bd_may_claim).
        let exclusive = if options.force { 0 } else { libc::O_EXCL };
        let mut how = File::options();
        how.read(true).write(true);
        let (file, direct) = self.open(&how, exclusive)?;
        self.check_same(found, &file)?;
        let device = self.block_device(file, direct)?;
        if device.read_only {
            return Err(DeviceError::ReadOnly {
                path: self.path.into(),
            });
        }
        if device.size_bytes < needed_bytes {
            let holds_bytes = device.size_bytes;
            return Err(DeviceError::TooSmall {
                path: self.path.into(),
                holds_bytes,
                needed_bytes,
            });
        }
        Ok(device)
    }

    fn regular_target(
        self,
        found: Option<&Metadata>,
        needed_bytes: u64,
        options: TargetOptions,
    ) -> Result<Device, DeviceError> {
        if found.is_none() {
            self.refuse_new_file_in_dev()?;
        }
        let mut how = File::options();
        how.read(true).write(true);
        let (file, direct) = match found {
            Some(found) => {
                let (file, direct) = self.open(&how, 0)?;
                self.check_same(found, &file)?;
                (file, direct)
            }
            None if options.dry_run => self.rehearse_new_file(&how)?,
            None => self.open(how.create(true), 0)?,
        };
        self.lock(&file)?;
        let mut device = self.regular_file(file, direct)?;
        device.created = found.is_none();
        if !options.dry_run {
            device.undo = Some(self.undo(&device)?);
            self.grow(&device, needed_bytes)?;
        }
        device.size_bytes = device.size_bytes.max(needed_bytes);
        Ok(device)
    }

    fn undo(self, device: &Device) -> Result<Undo, DeviceError> {
        let file = device
            .file
            .try_clone()
            .map_err(|error| self.cannot_open(error))?;
        let length_bytes = (!device.created).then_some(device.size_bytes);
        Ok(Undo {
            path: self.path.into(),
            file,
            length_bytes,
            kept: false,
        })
    }

    /// Here a file system says that it cannot hold a file of this length (FAT: 4 GiB).
    fn grow(self, device: &Device, length_bytes: u64) -> Result<(), DeviceError> {
        if device.size_bytes >= length_bytes {
            return Ok(());
        }
        let path = || self.path.into();
        let grown = device.file.set_len(length_bytes);
        grown.map_err(|error| DeviceError::Resize {
            path: path(),
            length_bytes,
            error,
        })
    }

    fn read_only(self) -> Result<Device, DeviceError> {
        let Some(found) = self.look()? else {
            return Err(self.cannot_open(io::Error::from_raw_os_error(libc::ENOENT)));
        };
        let (file, direct) = self.open(File::options().read(true), 0)?;
        self.check_same(&found, &file)?;
        let device = match found.file_type().is_block_device() {
            true => self.block_device(file, direct)?,
            false => self.regular_file(file, direct)?,
        };
        Ok(Device {
            read_only: true,
            ..device
        })
    }

    /// Opens with O_DIRECT, or without where the file system answers EINVAL to that (open(2)); true
    /// if with.
    fn open(self, how: &OpenOptions, flags: libc::c_int) -> Result<(File, bool), DeviceError> {
        let open = |flags| how.clone().custom_flags(flags).open(self.path);
        match open(flags | libc::O_DIRECT) {
            Ok(file) => Ok((file, true)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                let file = open(flags).map_err(|error| self.cannot_open(error))?;
                Ok((file, false))
            }
            Err(error) => Err(self.cannot_open(error)),
        }
    }

    /// A dry run of creating a file: a nameless one in the same directory, gone when closed
    /// (open(2), O_TMPFILE). Where the file system has no such thing, the directory itself stands
    /// in, and nothing is known about O_DIRECT.
    fn rehearse_new_file(self, how: &OpenOptions) -> Result<(File, bool), DeviceError> {
        let directory = parent(self.path);
        for (flags, direct) in [
            (libc::O_TMPFILE | libc::O_DIRECT, true),
            (libc::O_TMPFILE, false),
        ] {
            match how.clone().custom_flags(flags).open(directory) {
                Ok(file) => return Ok((file, direct)),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EISDIR) => {}
                    _ => return Err(self.cannot_open(error)),
                },
            }
        }
        let file = File::open(directory).map_err(|error| self.cannot_open(error))?;
        Ok((file, false))
    }

    /// A mistyped `/dev/sdx` would become an image in the memory of the machine.
    fn refuse_new_file_in_dev(self) -> Result<(), DeviceError> {
        let directory = parent(self.path)
            .canonicalize()
            .map_err(|error| self.cannot_open(error))?;
        if directory.starts_with("/dev") && !directory.starts_with("/dev/shm") {
            return Err(DeviceError::NoSuchDevice {
                path: self.path.into(),
            });
        }
        Ok(())
    }

    /// Two agents on one file would each destroy what the other wrote. File systems without locks
    /// go without.
    fn lock(self, file: &File) -> Result<(), DeviceError> {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(DeviceError::Busy {
                path: self.path.into(),
                by: vec!["another process writes to it".into()],
            }),
            Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
        }
    }

    /// The path still names what was looked at.
    fn check_same(self, found: &Metadata, file: &File) -> Result<(), DeviceError> {
        let opened = file.metadata().map_err(|error| self.cannot_open(error))?;
        let identity = |metadata: &Metadata| (metadata.dev(), metadata.ino(), metadata.rdev());
        if identity(found) == identity(&opened) {
            return Ok(());
        }
        Err(DeviceError::Changed {
            path: self.path.into(),
        })
    }

    fn block_device(self, file: File, direct: bool) -> Result<Device, DeviceError> {
        let failed = |error| DeviceError::Ask {
            path: self.path.into(),
            error,
        };
        let rdev = file.metadata().map_err(failed)?.rdev();
        let size_bytes = u64::from_ne_bytes(ask(&file, BLKGETSIZE64).map_err(failed)?);
        let sector_bytes = ask_number(&file, BLKSSZGET).map_err(failed)?;
        let read_only = ask_number(&file, BLKROGET).map_err(failed)?;
        // The kernel lets no driver set anything else (blk_validate_block_size).
        assert!(sector_bytes.is_power_of_two());
        assert!(sector_bytes >= SECTOR_BYTES_MIN);
        let wanted = direct_alignment(&file).unwrap_or(sector_bytes);
        Ok(Device {
            kind: Kind::Block {
                number: (libc::major(rdev), libc::minor(rdev)),
            },
            size_bytes,
            sector_bytes,
            alignment: sector_bytes.max(wanted.next_power_of_two()),
            direct,
            read_only: read_only != 0,
            created: false,
            undo: None,
            path: self.path.into(),
            file,
        })
    }

    fn regular_file(self, file: File, direct: bool) -> Result<Device, DeviceError> {
        let failed = |error| DeviceError::Ask {
            path: self.path.into(),
            error,
        };
        let metadata = file.metadata().map_err(failed)?;
        let wanted = direct_alignment(&file).unwrap_or_else(|| disk_sector_bytes(metadata.dev()));
        Ok(Device {
            kind: Kind::Regular,
            size_bytes: if metadata.is_file() {
                metadata.len()
            } else {
                0
            },
            sector_bytes: SECTOR_BYTES_MIN,
            alignment: SECTOR_BYTES_MIN.max(wanted.next_power_of_two()),
            // A kernel that answers 0 opens with O_DIRECT and buffers nevertheless (statx(2)).
            direct: direct && wanted > 0,
            read_only: false,
            created: false,
            undo: None,
            path: self.path.into(),
            file,
        })
    }

    fn cannot_open(self, error: io::Error) -> DeviceError {
        let path = self.path.into();
        match error.raw_os_error() {
            Some(libc::EBUSY) => DeviceError::Busy {
                path,
                by: Vec::new(),
            },
            Some(libc::EROFS) => DeviceError::ReadOnly { path },
            _ => DeviceError::Open {
                role: self.role,
                path,
                error,
            },
        }
    }
}

/// The directory of a path; of a bare name, the current one.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    }
}

// From include/uapi/linux/fs.h. The numbers are those of all 64-bit machines but powerpc, mips,
// sparc and alpha.
const BLKROGET: libc::Ioctl = 0x125e;
const BLKSSZGET: libc::Ioctl = 0x1268;
const BLKGETSIZE64: libc::Ioctl = 0x8008_1272_u32 as libc::Ioctl;

/// The answer to one of these questions, whose first four bytes hold the number unless it is
/// BLKGETSIZE64.
fn ask(file: &File, question: libc::Ioctl) -> io::Result<[u8; 8]> {
    let mut answer = [0; 8];
    // SAFETY: these ioctls write an int or a u64, neither longer than `answer`; the kernel copies
    // bytes, whatever their alignment.
    check(unsafe { libc::ioctl(file.as_raw_fd(), question, answer.as_mut_ptr()) })?;
    Ok(answer)
}

fn ask_number(file: &File, question: libc::Ioctl) -> io::Result<u32> {
    let [a, b, c, d, ..] = ask(file, question)?;
    Ok(u32::from_ne_bytes([a, b, c, d]))
}

/// What O_DIRECT wants of address and offset, 0 if it does not work on this file; `None` if the
/// kernel (before 6.1) or the file system does not say. Declared here because not every libc has
/// these fields.
fn direct_alignment(file: &File) -> Option<u32> {
    const STATX_DIOALIGN: u32 = 0x2000;
    /// `struct statx` (include/uapi/linux/stat.h), the fields in between left out.
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

/// The logical sector of the disk below a file system, where the kernel does not say what O_DIRECT
/// wants. A file system that lies on no disk of its own (btrfs, NFS) takes any alignment or buffers
/// by itself.
fn disk_sector_bytes(device_number: u64) -> u32 {
    let (major, minor) = (libc::major(device_number), libc::minor(device_number));
    let disk_and_partition = ["queue", "../queue"];
    let answers = disk_and_partition.iter().filter_map(|queue| {
        let path = format!("/sys/dev/block/{major}:{minor}/{queue}/logical_block_size");
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    });
    answers.max().unwrap_or(SECTOR_BYTES_MIN)
}

/// Why a path is not opened. Every one of these comes before any byte has changed, except `Resize`
/// at the end.
#[derive(Debug)]
pub enum DeviceError {
    /// An ioctl that every block device answers was not answered.
    Ask {
        path: PathBuf,
        error: io::Error,
    },
    /// Held exclusively; `by` says by what, as far as known.
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

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceError::Ask { path, error } => {
                write!(f, "cannot ask {} what it is: {error}", path.display())
            }
            DeviceError::Busy { path, by } if by.is_empty() => {
                write!(
                    f,
                    "target {} is in use: mounted, swap, or held by another program",
                    path.display()
                )
            }
            DeviceError::Busy { path, by } => {
                write!(f, "target {} is in use: {}", path.display(), by.join(", "))
            }
            DeviceError::Changed { path } => {
                write!(
                    f,
                    "{} became another file while it was being opened",
                    path.display()
                )
            }
            DeviceError::NoSuchDevice { path } => {
                write!(f, "target {}: there is no such device", path.display())
            }
            DeviceError::Open { role, path, error } => {
                write!(f, "cannot open {role} {}: {error}", path.display())
            }
            DeviceError::ReadOnly { path } => write!(f, "target {} is read-only", path.display()),
            DeviceError::Resize {
                path,
                length_bytes,
                error,
            } => {
                write!(
                    f,
                    "cannot make {} {length_bytes} bytes long: {error}",
                    path.display()
                )
            }
            DeviceError::TooSmall {
                path,
                holds_bytes,
                needed_bytes,
            } => {
                let (holds, needs) = (exact(*holds_bytes), exact(*needed_bytes));
                write!(
                    f,
                    "target {} holds {holds}, image needs {needs}",
                    path.display()
                )
            }
            DeviceError::WrongKind { role, path, what } => {
                let path = path.display();
                write!(
                    f,
                    "{role} {path} is {what}; it must be a block device or a regular file"
                )
            }
        }
    }
}

impl std::error::Error for DeviceError {}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Target => "target",
            Role::Source => "source",
        })
    }
}

/// A size as it is printed on a disk: powers of 1000, one decimal.
pub fn decimal(bytes: u64) -> String {
    let mut divisor = 1_u128;
    for unit in ["kB", "MB", "GB", "TB", "PB", "EB"] {
        divisor *= 1000;
        let tenths = (u128::from(bytes) * 10 + divisor / 2) / divisor;
        // What would be printed as 1000.0 is 1.0 of the next unit.
        if bytes >= 1000 && tenths < 10_000 {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

/// The same, and the number itself: disks of one printed size differ by a few sectors.
pub fn exact(bytes: u64) -> String {
    format!("{} ({bytes} bytes)", decimal(bytes))
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
    fn what_was_opened_and_not_written_is_as_it_was() {
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
    fn a_longer_file_stays_until_the_end() {
        let scratch = Scratch::new("longer");
        std::fs::write(scratch.path(), [7; 5000]).unwrap();
        let mut device = open(scratch.path(), 1000).unwrap();
        assert!(!device.created);
        assert_eq!(std::fs::read(scratch.path()).unwrap(), [7; 5000]);
        device.finish_regular(1000).unwrap();
        assert_eq!(std::fs::read(scratch.path()).unwrap(), [7; 1000]);
    }

    #[test]
    fn a_dry_run_changes_nothing() {
        let scratch = Scratch::new("dry");
        let options = TargetOptions {
            dry_run: true,
            force: false,
        };
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
    fn what_is_not_a_disk_is_refused() {
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
        check(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }).unwrap();
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
    fn what_cannot_become_long_enough_is_not_left_behind() {
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

    #[test]
    fn too_small_says_how_much() {
        let error = |holds_bytes, needed_bytes| {
            let path = PathBuf::from("/dev/sda");
            DeviceError::TooSmall {
                path,
                holds_bytes,
                needed_bytes,
            }
            .to_string()
        };
        assert_eq!(
            error(120_034_123_776, 250_059_350_016),
            "target /dev/sda holds 120.0 GB (120034123776 bytes), image needs 250.1 GB (250059350016 bytes)"
        );
        assert_eq!(
            error(120_034_123_264, 120_034_123_776),
            "target /dev/sda holds 120.0 GB (120034123264 bytes), image needs 120.0 GB (120034123776 bytes)"
        );
    }

    #[test]
    fn sizes_as_printed_on_the_disk() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1049, "1.0 kB"),
            (1050, "1.1 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (1_000_204_886_016, "1.0 TB"),
            (u64::MAX, "18.4 EB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(decimal(bytes), text);
        }
    }
}
