//! How is a file opened?
//!
//! std's `OpenOptions` can refuse its own options, and with the words for it come the tables that
//! print them: 3 KiB. tests/tidy holds that nothing in the product opens a file in another way.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::check;

/// Opens a file with these flags of open(2): to read it if they say nothing else.
pub fn open(path: &Path, flags: libc::c_int) -> io::Result<File> {
    open_with_mode(path, flags, 0o666)
}

/// Creates a file to write it. An error if there is one.
pub fn create(path: &Path, mode: libc::mode_t) -> io::Result<File> {
    open_with_mode(path, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, mode)
}

fn open_with_mode(path: &Path, flags: libc::c_int, mode: libc::mode_t) -> io::Result<File> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    loop {
        // SAFETY: the kernel reads a string that ends with a zero, and nothing else owns the new
        // descriptor.
        let opened = unsafe {
            check(libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, mode))
                .map(|fd| File::from_raw_fd(fd))
        };
        match opened {
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            opened => return opened,
        }
    }
}
