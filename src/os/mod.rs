//! How do we call the kernel: memory, disks, clocks, signals, sockets? The only `unsafe` of the
//! program.
//!
//! Every module offers a safe API; every `unsafe` states who owns the memory and until when.
//! Nothing here knows torrents: from the core it uses units and limits only.

pub mod aio;
pub mod clock;
mod crash;
pub mod device;
mod direct;
pub mod directory;
pub mod errno;
pub mod file;
mod heap;
mod ioctl;
pub mod memory;
pub mod net;
mod open;
pub mod pool;
pub mod sectors;
pub mod sha1;
pub mod signal;
pub mod sparse;
pub mod start;
pub mod tty;
pub mod whole;
pub mod zero;

use std::fmt;
use std::io;

/// The usual contract of libc calls: -1 means that errno holds the error.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// An error in our own words. What std makes of a text can print it escaped, in 2.4 KiB of tables.
pub fn error(words: impl Into<String>) -> io::Error {
    io::Error::other(OwnError(words.into()))
}

#[derive(Debug)]
struct OwnError(String);

impl fmt::Display for OwnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OwnError {}

#[cfg(test)]
pub mod testing {
    //! Files for tests, on a real file system.

    use std::ffi::CString;
    use std::fs::File;
    use std::io::Read;
    use std::net::{SocketAddr, TcpListener};
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A path for one test. A file or directory at this path is removed when the test ends.
    ///
    /// It lies beside the test program, in cargo's target directory and not in /tmp, because tmpfs
    /// refused O_DIRECT before Linux 6.6.
    pub struct Scratch(PathBuf);

    impl Scratch {
        pub fn new(name: &str) -> Scratch {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let program = std::env::current_exe().expect("a test program has a path");
            let directory = program
                .parent()
                .expect("a test program lies in a directory");
            Scratch(directory.join(format!("scratch-{}-{number}-{name}", std::process::id())))
        }

        pub fn path(&self) -> &Path {
            &self.0
        }

        /// The file, created and opened with `O_DIRECT`. On a file system that refuses O_DIRECT the
        /// test fails.
        pub fn open_direct(&self) -> File {
            let mut options = File::options();
            options
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .custom_flags(libc::O_DIRECT);
            options
                .open(&self.0)
                .expect("put cargo's target directory on a file system that knows O_DIRECT")
        }

        pub fn open_buffered(&self) -> File {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            options.open(&self.0).expect("scratch file")
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            // Some tests do not create the file, and some create a directory tree here.
            let _ = std::fs::remove_file(&self.0).or_else(|_| std::fs::remove_dir_all(&self.0));
        }
    }

    /// Tells whether a file that was open for writing has been closed (inotify(7)). Closing ends a
    /// lock or an exclusive hold on it.
    pub struct CloseWatch(File);

    impl CloseWatch {
        pub fn new(path: &Path) -> CloseWatch {
            let path = CString::new(path.as_os_str().as_bytes()).expect("a path without zeros");
            let flags = libc::IN_NONBLOCK | libc::IN_CLOEXEC;
            // SAFETY: nothing else owns the new descriptor.
            let fd = unsafe {
                super::check(libc::inotify_init1(flags)).map(|fd| OwnedFd::from_raw_fd(fd))
            };
            let watch = CloseWatch(fd.expect("inotify").into());
            let raw = watch.0.as_raw_fd();
            // SAFETY: the kernel reads a string that ends with a zero.
            let added =
                unsafe { libc::inotify_add_watch(raw, path.as_ptr(), libc::IN_CLOSE_WRITE) };
            super::check(added).expect("a file to watch");
            watch
        }

        /// Since the watch began, or since the last call that returned true.
        pub fn was_closed(&mut self) -> bool {
            matches!(self.0.read(&mut [0; 4096]), Ok(count) if count > 0)
        }
    }

    /// An address of this machine at which nothing listens: its port was free a moment ago.
    pub fn closed_address() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener
            .local_addr()
            .expect("a bound socket has an address")
    }
}
