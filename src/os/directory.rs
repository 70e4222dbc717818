//! Which names does a directory hold, and to which file does a path lead?
//!
//! std asks the C library for both, whose opendir(3) and realpath(3) bring its malloc: 10 KiB.

use super::file;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// All names of a directory but `.` and `..`, in no order.
pub fn names(path: &Path) -> io::Result<Vec<OsString>> {
    let directory = file::open(path, libc::O_DIRECTORY)?;
    let (mut names, mut entries) = (Vec::new(), vec![0; 32 << 10]);
    loop {
        // SAFETY: the kernel writes at most that many bytes into `entries` (getdents64(2)).
        let result = unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                directory.as_raw_fd(),
                entries.as_mut_ptr(),
                entries.len(),
            )
        };
        match usize::try_from(result) {
            Ok(0) => return Ok(names),
            Ok(bytes) => add_names(&mut names, &entries[..bytes]),
            Err(_) => return Err(io::Error::last_os_error()),
        }
    }
}

/// The path without links of a file that exists. Asks /proc, which knows where an open file lies.
pub fn real_path(path: &Path) -> io::Result<PathBuf> {
    let file = file::open(path, libc::O_PATH)?;
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Each entry: 16 bytes of numbers, its own length in two bytes, its type in one, the name, and at
/// least one zero.
fn add_names(names: &mut Vec<OsString>, mut entries: &[u8]) {
    while let Some(length) = entries.get(16..18) {
        let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
        let (entry, rest) = entries.split_at(length);
        let name = entry[19..].split(|byte| *byte == 0).next();
        let name = OsStr::from_bytes(name.unwrap_or_default());
        if name != "." && name != ".." {
            names.push(name.into());
        }
        entries = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::testing::Scratch;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn names_are_those_of_the_directory() {
        let scratch = Scratch::new("names");
        fs::create_dir(scratch.path()).unwrap();
        assert_eq!(names(scratch.path()).unwrap(), [""; 0]);
        // More than fit one answer of the kernel, of all lengths that a name may have.
        let mut expected: Vec<OsString> = (1..=255)
            .flat_map(|length| ["x", "y", "z"].map(|letter| letter.repeat(length)))
            .map(OsString::from)
            .chain([OsString::from(".z"), OsStr::from_bytes(b"\xff").into()])
            .collect();
        for name in &expected {
            fs::write(scratch.path().join(name), "").unwrap();
        }
        let mut found = names(scratch.path()).unwrap();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        let file = scratch.path().join("x");
        assert_eq!(
            names(&file).unwrap_err().kind(),
            io::ErrorKind::NotADirectory
        );
    }

    #[test]
    fn a_real_path_has_no_links() {
        let scratch = Scratch::new("links");
        fs::create_dir_all(scratch.path().join("a/b")).unwrap();
        symlink("a/b", scratch.path().join("c")).unwrap();
        symlink("nowhere", scratch.path().join("d")).unwrap();
        let real = |name: &str| real_path(&scratch.path().join(name));
        for name in ["c", "a/../c", "a/b", "c/", "a//b/."] {
            assert_eq!(
                real(name).unwrap(),
                fs::canonicalize(scratch.path().join("a/b")).unwrap(),
                "{name}"
            );
        }
        assert_eq!(real("d").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(
            real_path(Path::new("/dev/null")).unwrap(),
            Path::new("/dev/null")
        );
    }
}
