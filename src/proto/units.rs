//! Which numbers must not be mixed up? The terms of the field as types: time, pieces, blocks, disk
//! offsets, buffers, peers.
//!
//! A number with a meaning is a type, so that a piece index cannot be used as a block index. A
//! number from the network is a plain `u32` until `layout::Layout` has checked it, and gets one of
//! these types only then.

use core::fmt;
use core::ops::{Add, AddAssign, Sub};
use core::time::Duration;

/// A moment on a clock that never goes back, in microseconds since an arbitrary start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub u64);

impl Instant {
    /// Time since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, duration: Duration) -> Instant {
        Instant(
            self.0
                .saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)),
        )
    }
}

/// Index of a piece in the torrent, from 0. The last piece may be shorter than the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceIndex(pub u32);

impl PieceIndex {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Index of a 16 KiB block inside its piece, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockIndex(pub u32);

/// A checked run of bytes inside one piece: `begin + length` never passes the end of the piece,
/// `length` is not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block {
    pub piece: PieceIndex,
    pub begin: u32,
    pub length: u32,
}

/// Byte offset on the target disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct DiskOffset(pub u64);

impl Add<u64> for DiskOffset {
    type Output = DiskOffset;
    fn add(self, bytes: u64) -> DiskOffset {
        DiskOffset(self.0 + bytes)
    }
}

impl AddAssign<u64> for DiskOffset {
    fn add_assign(&mut self, bytes: u64) {
        self.0 += bytes;
    }
}

impl Sub<DiskOffset> for DiskOffset {
    type Output = u64;
    fn sub(self, other: DiskOffset) -> u64 {
        self.0 - other.0
    }
}

/// One aligned buffer of the pool, from 0. `cache` decides which owner may touch its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BufferId(pub u32);

impl BufferId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One connection, from 0. The number is used again after both the core and the shell have closed
/// the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerSlot(pub u32);

impl PeerSlot {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One connection as the sender of blocks. The number is never used again: a slot has another peer
/// soon after its peer has left, and that peer must not be blamed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Giver(pub u64);

/// Names one disk operation, from the moment `Swarm::poll_disk` gives it out until
/// `Swarm::handle_disk` gets its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// SHA-1 of the bencoded `info` dictionary (BEP 3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct InfoHash(pub [u8; 20]);

/// The 20 bytes by which an agent names itself to trackers and peers (BEP 3, BEP 20).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerId(pub [u8; 20]);

/// SHA-1 of one piece.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PieceHash(pub [u8; 20]);

/// The state of the SHA-1 of a piece before its byte `begin`: its five words (FIPS 180-4) as they
/// stand in a hash. From there on the piece can be hashed alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    pub begin: u32,
    pub state: PieceHash,
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for PieceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl core::str::FromStr for InfoHash {
    type Err = NotAnInfoHash;

    /// Forty hexadecimal digits, either case.
    fn from_str(text: &str) -> Result<InfoHash, NotAnInfoHash> {
        let digits = text.as_bytes();
        if digits.len() != 40 {
            return Err(NotAnInfoHash);
        }
        let mut hash = [0; 20];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |d: u8| (d as char).to_digit(16).ok_or(NotAnInfoHash);
            *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
        }
        Ok(InfoHash(hash))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnInfoHash;

impl fmt::Display for NotAnInfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an info-hash is 40 hexadecimal digits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_since_a_later_instant_is_zero() {
        assert_eq!(Instant(5).since(Instant(9)), Duration::ZERO);
        assert_eq!(
            (Instant(5) + Duration::from_millis(1)).since(Instant(5)),
            Duration::from_millis(1)
        );
    }

    #[test]
    fn info_hash_reads_what_it_prints() {
        let text = "00ff10ef0123456789abcdef0123456789abcdef";
        let hash: InfoHash = text.parse().unwrap();
        assert_eq!(std::format!("{hash}"), text);
        assert_eq!("00FF10ef0123456789abcdef0123456789abcdef".parse(), Ok(hash));
        assert_eq!("00ff".parse::<InfoHash>(), Err(NotAnInfoHash));
        assert_eq!(
            "zzff10ef0123456789abcdef0123456789abcdef".parse::<InfoHash>(),
            Err(NotAnInfoHash)
        );
    }
}
