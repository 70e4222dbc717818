//! The words between the core and the shell: what goes into a [`Swarm`](super::Swarm), and what
//! comes out of it.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

use crate::format::layout::Layout;
use crate::limits::*;
use crate::policy::throttle::Throttle;
use crate::units::*;
use crate::wire::message::{Handshake, Message};

/// What the agent is told at the start. Everything random in it comes from `rng_seed`.
pub struct Config {
    pub role: Role,
    pub peer_id: PeerId,
    pub listen_port: u16,
    pub rng_seed: u64,
    /// Pool buffers `0..buffer_count` belong to this swarm, each `buffer_bytes` long.
    pub buffer_count: u32,
    /// Called for ever, with or without a tracker.
    pub peers: Vec<SocketAddr>,
    /// A leecher: look first what the target holds of the image. A seeder: hash each piece before
    /// its first upload.
    pub look: bool,
    /// Read every piece that was written back before saying `completed`.
    pub verify: bool,
    /// Complete agents leave when the tracker has been unreachable this long.
    pub tracker_grace: Duration,
    /// How long to seed; zero is not at all, None until the tracker is gone.
    pub seed_for: Option<Duration>,
    /// Fail when nothing arrived for so long while incomplete. None waits for ever.
    pub stall: Option<Duration>,
    /// Payload per second. Other swarms of the process may share these.
    pub max_up: Throttle,
    pub max_down: Throttle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Leecher,
    /// The disk is said to hold everything, and is only read.
    Seeder,
}

/// Size of each pool buffer for this torrent: a piece, or a part of one; a multiple of 4096.
pub fn buffer_bytes(layout: &Layout) -> u32 {
    layout
        .piece_bytes()
        .next_multiple_of(4096)
        .min(BUFFER_BYTES_MAX)
}

/// Fewest buffers a swarm of this layout works with: one piece on its way in, and as much again to
/// write and to serve.
pub fn buffer_count_min(layout: &Layout) -> u32 {
    2 * layout.piece_bytes().div_ceil(buffer_bytes(layout)) + READ_AHEAD_MAX as u32
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// What the target holds already is being found out; what it lacks for certain is fetched
    /// meanwhile.
    Scanning,
    Downloading,
    /// All pieces are there; the disk is flushed, and what was written is read back.
    Verifying,
    Seeding,
    /// Writes in flight finish, the tracker is told.
    Leaving(Outcome),
    Over(Outcome),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Complete,
    Interrupted,
    Failed(Failure),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    Disk(DiskError),
    /// So many pieces are not on the disk as they were written, twice; `disk` is where the first of
    /// them begins.
    ReadBack {
        piece: PieceIndex,
        disk: DiskOffset,
        bad: u32,
    },
    Stalled(Duration),
    /// A seeder's source holds not one piece of the image.
    NothingToServe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskError {
    pub operation: DiskOperation,
    pub offset: DiskOffset,
    pub errno: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOperation {
    Read,
    Write,
    Flush,
}

/// Things for the disk and the hash unit. Bytes never pass through here, only names of buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Only in tests: what `poll_hash` gives.
    #[cfg(test)]
    Hash(Hash),
    /// Write a whole piece: `buffers[i]` holds its bytes from `i * buffer_bytes` on. Answer
    /// `handle_disk` once, when no part of it is in flight any more.
    Write {
        ticket: Ticket,
        piece: PieceIndex,
        buffers: Vec<BufferId>,
    },
    /// Make the whole piece zeros. Answer like `Write`.
    Zero { ticket: Ticket, piece: PieceIndex },
    /// Read `length` bytes at `begin` of `piece` into the start of `buffer`.
    Read {
        ticket: Ticket,
        piece: PieceIndex,
        begin: u32,
        length: u32,
        buffer: BufferId,
    },
    /// Make everything written so far durable.
    Flush { ticket: Ticket },
}

/// Hash `length` bytes at `offset` of `buffer` as the next bytes of a piece, at once, before
/// anything else is done. At `begin == 0` a new hash starts; when `begin + length` is the length of
/// the piece, answer `handle_hashed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    pub of: HashOf,
    pub begin: u32,
    pub length: u32,
    pub buffer: BufferId,
    pub offset: u32,
}

/// Downloads and read queues hash side by side: one running hash for each of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HashOf {
    Download(PieceIndex),
    Disk(PieceIndex),
}

impl HashOf {
    pub fn piece(self) -> PieceIndex {
        let (HashOf::Download(piece) | HashOf::Disk(piece)) = self;
        piece
    }
}

/// What to write to one peer next, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Send {
    Handshake(Handshake),
    Message(Message),
    /// `wire::piece_header`, then `block.length` bytes at `offset` of `buffer`. They stay as they
    /// are until `handle_sent` or `handle_closed`.
    Block {
        block: Block,
        buffer: BufferId,
        offset: u32,
    },
}

/// Where the payload of an incoming `piece` message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    Buffer { buffer: BufferId, offset: u32 },
    Discard,
}

/// For the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    TrackerRefused(String),
    TrackerWarned(String),
    TrackerLost(String),
    TrackerBack,
    PieceBad {
        piece: PieceIndex,
        liar: Option<SocketAddr>,
    },
    ReadBackBad {
        piece: PieceIndex,
        disk: DiskOffset,
        again: bool,
    },
    /// The scan could not read this piece; it is written like one that is not there.
    TargetBad {
        piece: PieceIndex,
        error: DiskError,
    },
    /// A seeder does without this piece.
    SourceBad {
        piece: PieceIndex,
        disk: DiskOffset,
        error: Option<DiskError>,
    },
}

/// Totals for progress lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub state: State,
    pub have: u32,
    pub pieces: u32,
    /// Pieces that were read from the disk and found good; those written since do not count before
    /// they are read back.
    pub verified: u32,
    /// Of the scan or the read-back that is on: pieces looked at, and pieces to look at.
    pub checked: u32,
    pub to_check: u32,
    /// Where the disk failed, or where on it the first piece begins that was bad when it was read
    /// back for the last time.
    pub bad_offset: Option<DiskOffset>,
    /// Payload bytes received, wasted ones too.
    pub fetched: u64,
    pub wasted: u64,
    pub uploaded: u64,
    pub peers: u32,
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.operation {
            DiskOperation::Read => "read",
            DiskOperation::Write => "write",
            DiskOperation::Flush => "flush",
        };
        write!(
            f,
            "{verb} failed at byte {} of the disk (errno {})",
            self.offset.0, self.errno
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Disk(error) => error.fmt(f),
            Failure::ReadBack {
                piece,
                disk,
                bad: 1,
            } => {
                write!(
                    f,
                    "piece {} at byte {} is not on the disk as it was written",
                    piece.0, disk.0
                )
            }
            Failure::ReadBack { piece, disk, bad } => write!(
                f,
                "{bad} pieces are not on the disk as they were written, the first is piece {} at byte {}",
                piece.0, disk.0
            ),
            Failure::Stalled(limit) => write!(f, "nothing arrived for {} s", limit.as_secs()),
            Failure::NothingToServe => {
                f.write_str("no piece of the source is what the torrent says")
            }
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::TrackerRefused(text) => write!(f, "the tracker refuses: {text}"),
            Event::TrackerWarned(text) => write!(f, "the tracker warns: {text}"),
            Event::TrackerLost(text) => write!(f, "the tracker does not answer: {text}"),
            Event::TrackerBack => f.write_str("the tracker answers again"),
            Event::PieceBad {
                piece,
                liar: Some(address),
            } => {
                write!(
                    f,
                    "piece {} came bad from {address} alone, which is banned",
                    piece.0
                )
            }
            Event::PieceBad { piece, liar: None } => {
                write!(
                    f,
                    "piece {} came bad from several peers, asking one alone",
                    piece.0
                )
            }
            Event::ReadBackBad { piece, disk, again } => {
                let then = if *again {
                    ", fetching it once more"
                } else {
                    " for the second time"
                };
                write!(
                    f,
                    "piece {} at byte {} of the disk is not what was written{then}",
                    piece.0, disk.0
                )
            }
            Event::TargetBad { piece, error } => {
                write!(f, "piece {} is written anew: {error}", piece.0)
            }
            Event::SourceBad {
                piece,
                disk,
                error: None,
            } => write!(
                f,
                "piece {} at byte {} of the source is not what the torrent says, it is not served",
                piece.0, disk.0
            ),
            Event::SourceBad {
                piece,
                error: Some(error),
                ..
            } => {
                write!(f, "piece {} is not served: {error}", piece.0)
            }
        }
    }
}
