//! Can this path be written as a target, or read as one or as a source, and on what terms?
//!
//! All refusals happen here, before any byte has changed: not a disk, mounted, held, read-only, too
//! small. Only a regular file is changed: it is created, and grown to the length of the image, and
//! the `Device` undoes both unless it is kept.
//!
//! Read first: open(2) on O_DIRECT, O_EXCL and O_TMPFILE.

use super::device::{Device, DeviceError, Kind, Role, TargetOptions, Undo, parent};
use super::{direct, directory, file, ioctl};
use std::fs::{File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use swarm_proto::limits::SECTOR_BYTES_MIN;

impl Device {
    /// Opens a target to write it. A block device is held exclusively until the `Device` is
    /// dropped; a regular file is created if missing and grown, sparse, to `needed_bytes`.
    pub fn open_target(
        path: &Path,
        needed_bytes: u64,
        options: TargetOptions,
    ) -> Result<Device, DeviceError> {
        let role = Role::Target;
        let opening = Opening { path, role };
        match opening.find()? {
            Some(found) if found.file_type().is_block_device() => {
                opening.block_target(&found, needed_bytes)
            }
            found => opening.regular_target(found.as_ref(), needed_bytes, options),
        }
    }

    /// Opens a source. It may be mounted, and other programs may change it meanwhile.
    pub fn open_source(path: &Path) -> Result<Device, DeviceError> {
        let role = Role::Source;
        Opening { path, role }.read_only()
    }

    /// Opens a directory of slices, of which `first` is one: it tells how all of them are read.
    pub fn open_slices(directory: &Path, first: &str) -> Result<Device, DeviceError> {
        let role = Role::Source;
        let path = &directory.join(first);
        let slice = Opening { path, role }.read_only()?;
        let path = directory;
        let opened = file::open(path, libc::O_DIRECTORY);
        Ok(Device {
            file: opened.map_err(|error| Opening { path, role }.cannot_open(error))?,
            path: path.into(),
            ..slice
        })
    }

    /// Opens one of the slices. What is no regular file (any more) is refused, and a pipe is not
    /// waited for.
    pub fn open_slice(&self, name: &str) -> io::Result<File> {
        let direct = if self.direct { libc::O_DIRECT } else { 0 };
        let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW | direct;
        let file = file::open(&self.path.join(name), flags)?;
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Opens a target to read it and nothing else (`verify`).
    pub fn open_readonly(path: &Path) -> Result<Device, DeviceError> {
        let role = Role::Target;
        Opening { path, role }.read_only()
    }
}

/// A path that is being opened, and what error messages say of it.
#[derive(Clone, Copy)]
struct Opening<'a> {
    path: &'a Path,
    role: Role,
}

impl Opening<'_> {
    /// The block device or regular file at the path; `None` if there is nothing. Anything else is
    /// refused before it is opened, because opening a tape rewinds it and opening a pipe waits for
    /// the other end.
    fn find(self) -> Result<Option<Metadata>, DeviceError> {
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

    fn block_target(self, found: &Metadata, needed_bytes: u64) -> Result<Device, DeviceError> {
        // O_EXCL without O_CREAT fails with EBUSY if the device, the disk it is a part of, or a
        // part of it is mounted, used as swap or held by md, dm or another O_EXCL (block/bdev.c,
        // bd_may_claim).
        let (file, direct) = self.open(libc::O_RDWR | libc::O_EXCL)?;
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
        let (file, direct) = match found {
            Some(found) => {
                let (file, direct) = self.open(libc::O_RDWR)?;
                self.check_same(found, &file)?;
                (file, direct)
            }
            None if options.dry_run => self.create_nameless()?,
            None => self.open(libc::O_RDWR | libc::O_CREAT)?,
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

    /// What `device` has to undo if it is dropped before it is kept.
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

    /// Fails where the file system cannot hold a file of this length (FAT: 4 GiB).
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
        let Some(found) = self.find()? else {
            return Err(self.cannot_open(io::Error::from_raw_os_error(libc::ENOENT)));
        };
        let (file, direct) = self.open(libc::O_RDONLY)?;
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

    /// Opens with O_DIRECT and returns true. Where the file system answers EINVAL to that
    /// (open(2)), opens without and returns false.
    fn open(self, flags: libc::c_int) -> Result<(File, bool), DeviceError> {
        match file::open(self.path, flags | libc::O_DIRECT) {
            Ok(file) => Ok((file, true)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                let file = file::open(self.path, flags).map_err(|error| self.cannot_open(error))?;
                Ok((file, false))
            }
            Err(error) => Err(self.cannot_open(error)),
        }
    }

    /// Creates a file as in a dry run: a nameless one in the same directory, which is gone when it
    /// is closed (open(2), O_TMPFILE). Where the file system has no nameless files, opens the
    /// directory instead, and whether O_DIRECT would work stays unknown.
    fn create_nameless(self) -> Result<(File, bool), DeviceError> {
        let directory = parent(self.path);
        for (flags, direct) in [
            (libc::O_TMPFILE | libc::O_DIRECT, true),
            (libc::O_TMPFILE, false),
        ] {
            match file::open(directory, libc::O_RDWR | flags) {
                Ok(file) => return Ok((file, direct)),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EISDIR) => {}
                    _ => return Err(self.cannot_open(error)),
                },
            }
        }
        let file =
            file::open(directory, libc::O_DIRECTORY).map_err(|error| self.cannot_open(error))?;
        Ok((file, false))
    }

    /// A mistyped `/dev/sdx` would become an image in the memory of the machine.
    fn refuse_new_file_in_dev(self) -> Result<(), DeviceError> {
        let directory = match directory::real_path(parent(self.path)) {
            // An initramfs has no /dev/disk.
            Err(_) if self.path.starts_with("/dev") => self.path.into(),
            found => found.map_err(|error| self.cannot_open(error))?,
        };
        if directory.starts_with("/dev") && !directory.starts_with("/dev/shm") {
            return Err(DeviceError::NoSuchDevice {
                path: self.path.into(),
            });
        }
        Ok(())
    }

    /// Two agents on one file would each destroy what the other wrote. On a file system without
    /// locks nothing prevents that.
    fn lock(self, file: &File) -> Result<(), DeviceError> {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(DeviceError::Busy {
                path: self.path.into(),
                by: vec!["another process writes to it".into()],
            }),
            Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
        }
    }

    /// Refuses a path that came to name another file between `find` and `open`.
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
        let size_bytes = ioctl::size_bytes(&file).map_err(failed)?;
        let sector_bytes = ioctl::sector_bytes(&file).map_err(failed)?;
        let read_only = ioctl::is_read_only(&file).map_err(failed)?;
        // The kernel lets no driver set anything else (blk_validate_block_size).
        assert!(sector_bytes.is_power_of_two());
        assert!(sector_bytes >= SECTOR_BYTES_MIN);
        let wanted = direct::alignment(&file).unwrap_or(sector_bytes);
        Ok(Device {
            kind: Kind::Block {
                number: (libc::major(rdev), libc::minor(rdev)),
            },
            size_bytes,
            sector_bytes,
            alignment: sector_bytes.max(wanted.next_power_of_two()),
            direct,
            read_only,
            created: false,
            packed: None,
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
        let wanted =
            direct::alignment(&file).unwrap_or_else(|| direct::disk_sector_bytes(metadata.dev()));
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
            packed: None,
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
