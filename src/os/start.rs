//! How does the program start and end, without the start-up code of std?
//!
//! std's own keeps a map of the stacks of all threads, for a message when one of them overflows:
//! 11 KiB for a program of one thread. The rest of what std does at the start and at the end
//! is done here.

use std::ffi::{CStr, OsString};
use std::os::unix::ffi::OsStringExt;

/// Defines the `main` that the C library calls. It runs `$run`, a function that takes the words of
/// the command line after the program's name and returns the exit status.
macro_rules! start {
    ($run:path) => {
        // The test harness has a `main` of its own.
        #[cfg(not(test))]
        #[unsafe(no_mangle)]
        extern "C" fn main(count: libc::c_int, words: *const *const libc::c_char) -> libc::c_int {
            // SAFETY: the C library calls this once, with what the kernel gave it.
            unsafe { $crate::os::start::run($run, count, words) }
        }

        #[cfg(test)]
        fn main() {
            let _: fn(Vec<std::ffi::OsString>) -> u8 = $run;
        }
    };
}
pub(crate) use start;

/// Runs the program and returns its exit status.
///
/// # Safety
/// `words` points to `count` strings that end with a zero byte and stay as they are.
#[cfg_attr(
    test,
    expect(dead_code, reason = "the test harness has a `main` of its own")
)]
pub unsafe fn run(
    program: fn(Vec<OsString>) -> u8,
    count: libc::c_int,
    words: *const *const libc::c_char,
) -> libc::c_int {
    open_standard_files();
    super::crash::tell_before_the_end();
    allow_all_descriptors();
    // Writing to one who has closed the other end must give EPIPE and not end the process.
    // SAFETY: sets a disposition, installs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let word = |index| {
        // SAFETY: by the contract of this function.
        let word = unsafe { CStr::from_ptr(*words.add(index)) };
        OsString::from_vec(word.to_bytes().to_vec())
    };
    program((1..count as usize).map(word).collect()).into()
}

/// Whether the environment has a variable of this name. std would lock and copy it, in 0.8 KB.
pub fn is_set(name: &CStr) -> bool {
    // SAFETY: the name ends with a zero, and nothing in this program changes the environment.
    !unsafe { libc::getenv(name.as_ptr()) }.is_null()
}

/// Opens those of the descriptors 0, 1 and 2 that are closed. Otherwise the target would get one of
/// these numbers, and a message for stderr would be written onto that disk.
fn open_standard_files() {
    for fd in libc::STDIN_FILENO..=libc::STDERR_FILENO {
        // SAFETY: asks for a flag. The file is opened by a constant name, and nothing owns its
        // descriptor, so it stays open.
        unsafe {
            if libc::fcntl(fd, libc::F_GETFD) == -1 {
                // The lowest free descriptor (open(2)): those below `fd` are open.
                let opened = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
                assert_eq!(
                    opened, fd,
                    "/dev/null takes the place of a closed descriptor"
                );
            }
        }
    }
}

/// A seeder of slices has a few hundred files and sockets open for each torrent, and a piece that
/// cannot be read for want of a descriptor would count as lost. The usual limit is 1024, of which
/// getrlimit(2) says that it may be raised to the hard one.
fn allow_all_descriptors() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let (unchanged, unwanted) = (std::ptr::null(), std::ptr::null_mut());
    // SAFETY: the kernel writes `limit`, and then reads it. A refusal leaves the limit as it was.
    // setrlimit(2) of musl is 1.8 KiB larger: for kernels before 2.6.36 it stops all threads.
    unsafe {
        if libc::prlimit(0, libc::RLIMIT_NOFILE, unchanged, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::prlimit(0, libc::RLIMIT_NOFILE, &raw const limit, unwanted);
        }
    }
}
