//! How is text written to stdout and stderr? How wide is the terminal, and does the reader of our
//! output keep up?

use super::ioctl;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Stdout or stderr. The locks and the buffer of `std::io::stdout` are 3 KiB, and one thread that
/// writes whole lines needs neither.
#[derive(Debug)]
pub struct Standard {
    fd: libc::c_int,
}

pub fn stdout() -> Standard {
    Standard {
        fd: libc::STDOUT_FILENO,
    }
}

pub fn stderr() -> Standard {
    Standard {
        fd: libc::STDERR_FILENO,
    }
}

/// Prints a line on stderr that says which program it is from.
pub fn complain(text: &str) {
    // If stderr is closed, there is nobody to tell, and the exit status still reports a failure.
    let _ = stderr().write_all(format!("swarmdd: {text}\n").as_bytes());
}

impl Write for Standard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // SAFETY: the kernel reads at most `len` bytes of a slice that we borrow.
        let written = unsafe { libc::write(self.fd, bytes.as_ptr().cast(), bytes.len()) };
        usize::try_from(written).map_err(|_| io::Error::last_os_error())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Standard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the standard files are open from the start (`os::start`), and nobody closes them.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

/// Columns of the terminal behind `fd`. `None` if `fd` is no terminal, or one that does not know
/// its width (a serial console).
pub fn columns(fd: impl AsFd) -> Option<u16> {
    ioctl::terminal_columns(fd)
        .ok()
        .filter(|columns| *columns > 0)
}

/// How long one write waits for a reader that does not keep up.
const READER_TIMEOUT_MS: libc::c_int = 1000;

/// Writes to a terminal or a pipe without blocking the event loop for long. When its reader has
/// stopped (a full pipe, Ctrl-S), the first write waits a second and fails. All later writes fail
/// at once until there is room again.
///
/// poll(2) reports whether there is room: a pipe with room accepts PIPE_BUF bytes without waiting
/// (pipe(7)), and every line of ours is shorter.
pub struct TimedWriter<W> {
    inner: W,
    /// The last write found no room.
    stuck: bool,
}

impl<W: Write + AsFd> TimedWriter<W> {
    pub fn new(inner: W) -> TimedWriter<W> {
        TimedWriter {
            inner,
            stuck: false,
        }
    }

    fn has_room(&self) -> bool {
        let timeout_ms = if self.stuck { 0 } else { READER_TIMEOUT_MS };
        let mut poll = libc::pollfd {
            fd: self.inner.as_fd().as_raw_fd(),
            events: libc::POLLOUT,
            revents: 0,
        };
        // SAFETY: one pollfd on the stack. On any result but "not ready" the caller writes, and an
        // error shows in that write.
        unsafe { libc::poll(&raw mut poll, 1, timeout_ms) != 0 }
    }
}

impl<W: Write + AsFd> Write for TimedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stuck = !self.has_room();
        if self.stuck {
            Err(io::ErrorKind::WouldBlock.into())
        } else {
            self.inner.write(bytes)
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.stuck {
            Ok(())
        } else {
            self.inner.flush()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::time::{Duration, Instant};

    #[test]
    fn only_the_first_write_waits_for_a_stopped_reader() {
        let (mut reader, pipe) = io::pipe().unwrap();
        let mut writer = TimedWriter::new(pipe);
        let started = Instant::now();
        while writer.write_all(&[7; 1000]).is_ok() {}
        for _ in 0..100 {
            assert_eq!(
                writer.write(b"x").unwrap_err().kind(),
                io::ErrorKind::WouldBlock
            );
        }
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "one second for the first write, no time for the others"
        );
        reader.read_exact(&mut [0; 8192]).unwrap();
        writer.write_all(b"x").unwrap();
        drop(reader);
        assert_eq!(
            writer.write(b"x").unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }

    #[test]
    fn a_file_has_no_columns() {
        assert_eq!(columns(std::fs::File::open("/dev/null").unwrap()), None);
    }

    #[test]
    fn a_terminal_has_the_columns_that_were_set() {
        let multiplexer = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/ptmx")
            .unwrap();
        assert_eq!(
            columns(&multiplexer),
            None,
            "a new terminal does not know its width yet"
        );
        ioctl::set_terminal_columns(&multiplexer, 132).unwrap();
        assert_eq!(columns(&multiplexer), Some(132));
    }
}
