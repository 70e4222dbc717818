//! What time is it, and which random numbers make this agent different from every other?

use super::file;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use swarm_proto::units::Instant;

/// Time that never goes back. It starts with the first call.
pub fn now() -> Instant {
    static START: OnceLock<u64> = OnceLock::new();
    let now = monotonic_micros();
    Instant(now - START.get_or_init(|| now))
}

/// `std::time::Instant` can print what fails, and nothing fails here: 3 KiB.
fn monotonic_micros() -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the kernel writes one timespec.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, time.as_mut_ptr()) };
    assert_eq!(result, 0, "every kernel has this clock (clock_gettime(2))");
    // SAFETY: plain numbers, zeroed at first and now written by the kernel.
    let time = unsafe { time.assume_init() };
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

/// The seed for the random numbers of the core.
pub fn random_seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    random_bytes(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Fills `bytes` with random numbers that differ from machine to machine. They are not for secrets.
///
/// Never waits: a machine that has just booted from the network may need minutes to collect enough
/// entropy (getrandom(2)). Peer ids have to be different, not unguessable.
pub fn random_bytes(bytes: &mut [u8]) -> io::Result<()> {
    // The kernel returns up to 256 bytes at once, not interrupted by signals (getrandom(2)).
    assert!(bytes.len() <= 256);
    // SAFETY: the kernel writes at most `len` bytes into a slice that we borrow exclusively.
    let result =
        unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_INSECURE) };
    if usize::try_from(result) == Ok(bytes.len()) {
        return Ok(());
    }
    // Kernels before Linux 5.6 have no GRND_INSECURE; /dev/urandom returns the same numbers there.
    file::open("/dev/urandom".as_ref(), libc::O_RDONLY)?.read_exact(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_moves_on() {
        let before = now();
        while now() == before {}
        assert!(now() > before);
    }

    #[test]
    fn seeds_differ() {
        assert_ne!(random_seed().unwrap(), random_seed().unwrap());
        let mut bytes = [0; 256];
        random_bytes(&mut bytes).unwrap();
        assert!(bytes.iter().any(|&byte| byte != 0));
    }
}
