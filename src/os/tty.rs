//! How wide is the terminal?

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

/// Columns of the terminal behind `fd`, or `None` if there is no terminal or it does not know (a serial console).
pub fn columns(fd: impl AsFd) -> Option<u16> {
    let mut size = MaybeUninit::<libc::winsize>::zeroed();
    // SAFETY: TIOCGWINSZ writes one `winsize` (ioctl_tty(2)), which is plain numbers and zeroed.
    let size = unsafe {
        if libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCGWINSZ, size.as_mut_ptr()) != 0 {
            return None;
        }
        size.assume_init()
    };
    (size.ws_col > 0).then_some(size.ws_col)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_no_columns() {
        assert_eq!(columns(std::fs::File::open("/dev/null").unwrap()), None);
    }

    #[test]
    fn a_terminal_has_the_columns_it_was_given() {
        let multiplexer = std::fs::File::options().read(true).write(true).open("/dev/ptmx").unwrap();
        assert_eq!(columns(&multiplexer), None, "a new terminal does not know yet");
        let size = libc::winsize { ws_row: 24, ws_col: 132, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: TIOCSWINSZ reads one `winsize`.
        let result = unsafe { libc::ioctl(multiplexer.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(result, 0);
        assert_eq!(columns(&multiplexer), Some(132));
    }
}
