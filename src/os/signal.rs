//! Has a signal asked us to stop?
//!
//! Signals arrive as bytes of a signalfd(2), which the event loop polls like a socket. No code runs
//! inside a handler.

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

/// SIGINT, SIGTERM and SIGHUP. They are blocked in the thread that created this value, and are read
/// here instead.
///
/// They stay blocked after drop, so that a second signal cannot kill us while we clean up. A signal
/// that the parent process set to be ignored (nohup, `&` in a shell without job control) stays
/// ignored: the kernel discards it before it can be read here.
pub struct Signals {
    fd: OwnedFd,
    /// Signals that `poll` has returned.
    count: usize,
}

impl Signals {
    /// To be called once, in the main thread.
    pub fn new() -> io::Result<Signals> {
        let set = signal_set();
        // SAFETY: the kernel reads the set; we do not ask for the old mask.
        let errno =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if errno != 0 {
            return Err(io::Error::from_raw_os_error(errno));
        }
        // SAFETY: the kernel reads the set; nothing else owns the new descriptor.
        let fd = unsafe {
            let flags = libc::SFD_NONBLOCK | libc::SFD_CLOEXEC;
            OwnedFd::from_raw_fd(check(libc::signalfd(-1, &raw const set, flags))?)
        };
        Ok(Signals { fd, count: 0 })
    }

    /// Readable when `poll` would return a signal. For `mio::unix::SourceFd`.
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// How many signals `poll` has returned so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The next signal that has arrived, if any. Never blocks.
    pub fn poll(&mut self) -> Option<Signal> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the kernel writes at most `size` bytes, exactly one whole record or nothing
        // (signalfd(2)).
        let read_bytes = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        // EAGAIN: no signal has arrived. No other error is possible on our own signalfd.
        if usize::try_from(read_bytes) != Ok(size) {
            return None;
        }
        self.count += 1;
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

    /// `raise` reaches the calling thread only, so other tests never receive these signals.
    fn raise(signal: libc::c_int) {
        // SAFETY: the signal is blocked in this thread.
        assert_eq!(unsafe { libc::raise(signal) }, 0);
    }

    #[test]
    fn signals_are_read_and_do_not_end_the_process() {
        let mut signals = Signals::new().unwrap();
        assert_eq!(signals.poll(), None);
        raise(libc::SIGTERM);
        assert_eq!(signals.poll(), Some(Signal::Terminate));
        assert_eq!(signals.poll(), None);
        raise(libc::SIGINT);
        assert_eq!(signals.poll(), Some(Signal::Interrupt));
        assert_eq!(signals.count(), 2);
    }
}
