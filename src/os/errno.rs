//! What does each error of a disk mean, and what is done about it?
//!
//! One table for every call that reaches a disk once it is open. Errors of opening are refusals:
//! `open`.
//!
//! ```text
//! call        errno             then
//! io_submit   EAGAIN EINTR      again, when a request in flight has completed or after a pause
//!             others            as if the request itself had failed with this errno
//! a transfer  any               stop: it did not happen, and the kernel has retried it already
//! flush       EINVAL            the other way: fdatasync; kernels before 4.18 cannot flush by AIO
//!             others            stop: data that was written may be lost
//! zeroing     any               the other way: write zeros, which shows whether the disk is broken
//! ```
//!
//! "Stop" is for a target: the machine reports the offset and leaves the swarm. A seeder goes on
//! without a piece that it cannot read from its source (`swarm::storage`).

/// The calls of the table whose errno decides what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Flush,
    Submit,
    Zero,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Again,
    OtherWay,
    Stop,
}

/// What follows from this errno of this call.
pub fn decide(call: Call, errno: i32) -> Then {
    match (call, errno) {
        (Call::Submit, libc::EAGAIN | libc::EINTR) => Then::Again,
        (Call::Flush, libc::EINVAL) => Then::OtherWay,
        (Call::Zero, _) => Then::OtherWay,
        _ => Then::Stop,
    }
}

/// What this errno means to a person at the machine, in addition to the kernel's own text.
pub fn meaning(errno: i32) -> Option<&'static str> {
    Some(match errno {
        libc::EIO => "the disk, its cable or its controller fails; the kernel log has more",
        libc::ENODATA | libc::EILSEQ | libc::EBADMSG => "the disk has lost a sector",
        libc::EUCLEAN => "what lies there is damaged",
        libc::ENODEV | libc::ENXIO | libc::ENOMEDIUM => "the disk is gone",
        libc::ENOLINK | libc::ETIMEDOUT | libc::EREMOTEIO => "the disk does not answer",
        libc::ESTALE => "the file has changed",
        libc::ENOSPC | libc::EDQUOT | libc::EFBIG => "nothing more fits there",
        libc::EROFS | libc::EPERM | libc::EACCES => "it is protected against writing",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        for (call, errno, then) in [
            (Call::Submit, libc::EAGAIN, Then::Again),
            (Call::Submit, libc::EINTR, Then::Again),
            (Call::Submit, libc::EINVAL, Then::Stop),
            (Call::Flush, libc::EINVAL, Then::OtherWay),
            (Call::Flush, libc::EIO, Then::Stop),
            (Call::Zero, libc::EOPNOTSUPP, Then::OtherWay),
            (Call::Zero, libc::EIO, Then::OtherWay),
        ] {
            assert_eq!(decide(call, errno), then, "{call:?} {errno}");
        }
    }
}
