//! What the kernel does for us: memory, disks, clocks, signals, socket options. The only `unsafe`
//! of the program.
//!
//! Every module offers a safe API; every `unsafe` says who owns the memory and until when. Nothing
//! here knows about torrents: it uses the core's units and limits and no more.

pub mod aio;
pub mod clock;
pub mod device;
mod direct;
pub mod errno;
mod ioctl;
pub mod net;
mod open;
pub mod pool;
pub mod sectors;
pub mod sha1;
pub mod signal;
pub mod sparse;
pub mod tty;
pub mod zero;

use std::io;

/// The usual contract of libc calls: -1 means "look at errno".
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

#[cfg(test)]
pub mod testing {
    //! Files for tests, on a real file system.

    use std::fs::File;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A path of its own for one test; whatever lies there is removed at the end.
    ///
    /// It is beside the test program, that is in cargo's target directory and not in /tmp, because
    /// tmpfs refused O_DIRECT before Linux 6.6.
    pub struct Scratch(PathBuf);

    impl Scratch {
        pub fn new(name: &str) -> Scratch {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let program = std::env::current_exe().expect("a test program has a path");
            let directory = program.parent().expect("it lies in a directory");
            Scratch(directory.join(format!("scratch-{}-{number}-{name}", std::process::id())))
        }

        pub fn path(&self) -> &Path {
            &self.0
        }

        /// The file itself, created and opened with `O_DIRECT`. A file system that refuses it fails
        /// the test loudly.
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
            // Not every test creates what it names, and some make a directory tree of it.
            let _ = std::fs::remove_file(&self.0).or_else(|_| std::fs::remove_dir_all(&self.0));
        }
    }
}
