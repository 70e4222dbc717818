//! How wide is the terminal, and does whoever reads our words keep up?

use super::ioctl;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};

/// Columns of the terminal behind `fd`, or `None` if there is no terminal or it does not know (a
/// serial console).
pub fn columns(fd: impl AsFd) -> Option<u16> {
    ioctl::terminal_columns(fd)
        .ok()
        .filter(|columns| *columns > 0)
}

/// How long one write waits for a reader that does not keep up.
const READER_PATIENCE_MS: libc::c_int = 1000;

/// Writes to a terminal or a pipe, but not at the price of standing still: when its reader has
/// stopped (a full pipe, Ctrl-S), one write waits a second and fails, and all that follow fail at
/// once until there is room again.
///
/// poll(2): a pipe with room takes PIPE_BUF bytes without waiting (pipe(7)), more than any line of
/// ours.
pub struct Patient<W> {
    to: W,
    stuck: bool,
}

impl<W: Write + AsFd> Patient<W> {
    pub fn new(to: W) -> Patient<W> {
        Patient { to, stuck: false }
    }

    fn has_room(&self) -> bool {
        let patience_ms = if self.stuck { 0 } else { READER_PATIENCE_MS };
        let mut poll = libc::pollfd {
            fd: self.to.as_fd().as_raw_fd(),
            events: libc::POLLOUT,
            revents: 0,
        };
        // SAFETY: one pollfd on the stack. Anything but "not ready" goes on to the write, which
        // says what is wrong.
        unsafe { libc::poll(&raw mut poll, 1, patience_ms) != 0 }
    }
}

impl<W: Write + AsFd> Write for Patient<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stuck = !self.has_room();
        if self.stuck {
            Err(io::ErrorKind::WouldBlock.into())
        } else {
            self.to.write(bytes)
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.stuck { Ok(()) } else { self.to.flush() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::time::{Duration, Instant};

    #[test]
    fn a_reader_that_stopped_is_waited_for_once() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut patient = Patient::new(writer);
        let started = Instant::now();
        while patient.write_all(&[7; 1000]).is_ok() {}
        for _ in 0..100 {
            assert_eq!(
                patient.write(b"x").unwrap_err().kind(),
                io::ErrorKind::WouldBlock
            );
        }
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "a second for the first, nothing for the rest"
        );
        reader.read_exact(&mut [0; 8192]).unwrap();
        patient.write_all(b"x").unwrap();
        drop(reader);
        assert_eq!(
            patient.write(b"x").unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }

    #[test]
    fn a_file_has_no_columns() {
        assert_eq!(columns(std::fs::File::open("/dev/null").unwrap()), None);
    }

    #[test]
    fn a_terminal_has_the_columns_it_was_given() {
        let multiplexer = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/ptmx")
            .unwrap();
        assert_eq!(
            columns(&multiplexer),
            None,
            "a new terminal does not know yet"
        );
        ioctl::set_terminal_columns(&multiplexer, 132).unwrap();
        assert_eq!(columns(&multiplexer), Some(132));
    }
}
