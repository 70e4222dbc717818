//! Has somebody asked us to stop?
//!
//! Signals arrive as bytes of a signalfd(2), one more readable source of the event loop: nothing
//! runs inside a handler.

use super::check;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Interrupt,
    Terminate,
    Hangup,
}

/// SIGINT, SIGTERM and SIGHUP, blocked for the thread that made this and readable here instead.
///
/// They stay blocked after drop: what was asked shall not kill us while we clean up. One that the
/// parent set to be ignored (nohup, `&` in a shell without job control) stays ignored: the kernel
/// throws it away before it gets here.
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Call it once, in the main thread.
    pub fn new() -> io::Result<Signals> {
        // A peer that hung up is an EPIPE at the next write, not the end of us. Rust's runtime does
        // this, too, but a machine must not die of it should that change. SAFETY: sets a
        // disposition, installs no handler.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
        let set = signal_set();
        // SAFETY: reads the set; the old mask is not asked for.
        let errno =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if errno != 0 {
            return Err(io::Error::from_raw_os_error(errno));
        }
        // SAFETY: reads the set; the new descriptor is ours alone.
        let fd = unsafe {
            let flags = libc::SFD_NONBLOCK | libc::SFD_CLOEXEC;
            OwnedFd::from_raw_fd(check(libc::signalfd(-1, &raw const set, flags))?)
        };
        Ok(Signals { fd })
    }

    /// Readable when `poll` has something. For `mio::unix::SourceFd`.
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// The next signal that has arrived, if any. Never blocks.
    pub fn poll(&mut self) -> Option<Signal> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the kernel writes at most `size` bytes, exactly one whole record or nothing
        // (signalfd(2)).
        let read_bytes = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        // EAGAIN means none; nothing else can happen to a signalfd of our own.
        if usize::try_from(read_bytes) != Ok(size) {
            return None;
        }
        // SAFETY: plain numbers, zeroed at first and now written by the kernel.
        match unsafe { info.assume_init() }.ssi_signo as libc::c_int {
            libc::SIGINT => Some(Signal::Interrupt),
            libc::SIGTERM => Some(Signal::Terminate),
            libc::SIGHUP => Some(Signal::Hangup),
            other => unreachable!("signal {other} is not in our set"),
        }
    }
}

fn signal_set() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set, sigaddset changes it; valid signal numbers cannot
    // fail.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `raise` reaches the calling thread only, so other tests never see these.
    fn raise(signal: libc::c_int) {
        // SAFETY: the signal is blocked in this thread.
        assert_eq!(unsafe { libc::raise(signal) }, 0);
    }

    #[test]
    fn signals_are_read_not_suffered() {
        let mut signals = Signals::new().unwrap();
        assert_eq!(signals.poll(), None);
        raise(libc::SIGTERM);
        assert_eq!(signals.poll(), Some(Signal::Terminate));
        assert_eq!(signals.poll(), None);
        raise(libc::SIGINT);
        assert_eq!(signals.poll(), Some(Signal::Interrupt));
        raise(libc::SIGPIPE);
        assert_eq!(signals.poll(), None);
    }
}
