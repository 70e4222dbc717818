//! What crosses the border between core and shell: what goes into a [`Swarm`](super::Swarm), and
//! what comes out of it?

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

use crate::format::layout::Layout;
use crate::limits::*;
use crate::policy::load::Compress;
use crate::policy::subnet::Subnet;
use crate::units::*;
use crate::wire::message::{Handshake, Message};

/// What the agent is told at the start. All of its randomness comes from `rng_seed`.
#[derive(Debug)]
pub struct Config {
    pub role: Role,
    pub peer_id: PeerId,
    pub listen_port: u16,
    pub rng_seed: u64,
    /// Pool buffers `0..buffer_count` belong to this swarm, each `buffer_bytes` long.
    pub buffer_count: u32,
    /// Addresses that are called for ever, with or without a tracker.
    pub peers: Vec<SocketAddr>,
    /// The subnets of all peers: others are not called, not admitted, and not told of. Empty: no
    /// subnet is excluded.
    pub allowed: Vec<Subnet>,
    pub scan: ScanPolicy,
    pub compress: Compress,
    /// Read every written piece back before announcing `completed`.
    pub verify: bool,
    /// Bytes that are written between a piece and its read-back before the end of the download.
    pub read_back_distance: u64,
    /// The disk writes multiples of this power of two, in bytes; of what is shorter, the rest is
    /// read and written again.
    pub alignment: u32,
    /// A complete agent leaves when the tracker has been unreachable for this time.
    pub tracker_grace: Duration,
    /// How long to seed. Zero: not at all; None: until the tracker is gone.
    pub seed_for: Option<Duration>,
    /// What else ends the seeding.
    pub limits: SeedingLimits,
    /// An incomplete agent fails when nothing has arrived for this time. None: it waits for ever.
    pub stall: Option<Duration>,
}

/// When a complete agent leaves before its tracker is gone: as soon as one of these is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeedingLimits {
    /// Bytes per second: it leaves when the upload was slower for SLOW_UPLOAD_MAX. A seeder waits
    /// for its first upload.
    pub min_upload: Option<u64>,
    /// Thousandths: it leaves when it has uploaded this many times the image.
    pub ratio: Option<u32>,
    /// It leaves when nothing was uploaded for this time.
    pub idle: Option<Duration>,
}

/// Is the disk read before we rely on what it is said to hold?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanPolicy {
    /// A leecher reads what the target holds of the image before it fetches the rest. A seeder
    /// hashes each piece before its first upload.
    BeforeUse,
    /// A leecher fetches everything. A seeder takes every piece for good.
    Skip,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Leecher,
    /// The disk is said to hold the whole image, and is only read.
    Seeder,
}

/// Size of each pool buffer for this torrent: a piece, or a part of one; a multiple of 4096.
pub fn buffer_bytes(layout: &Layout) -> u32 {
    layout
        .piece_bytes()
        .next_multiple_of(4096)
        .min(BUFFER_BYTES_MAX)
}

/// The smallest number of buffers that a swarm of this layout works with: one piece that is being
/// received, and the same again to write and to serve.
pub fn buffer_count_min(layout: &Layout) -> u32 {
    2 * layout.piece_bytes().div_ceil(buffer_bytes(layout)) + READ_AHEAD_MAX as u32
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The target is being read; what is known to be missing is fetched meanwhile.
    Scanning,
    Downloading,
    /// All pieces are on the disk. It is flushed, and what was written is read back.
    Verifying,
    Seeding,
    /// Requests in flight finish, the disk is flushed, the tracker is told.
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
    /// `bad` pieces were not on the disk as they were written, twice. The first of them is `piece`,
    /// which begins at `disk`.
    ReadBack {
        piece: PieceIndex,
        disk: DiskOffset,
        bad: u32,
    },
    Stalled(Duration),
    /// The source of a seeder holds no piece of the image.
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

/// A request to the disk. Bytes never pass through here, only names of buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Write a whole piece: `buffers[i]` holds its bytes from `i * buffer_bytes` on. Call
    /// `handle_disk` once, when no part of the write is in flight any more.
    Write {
        ticket: Ticket,
        piece: PieceIndex,
        buffers: Vec<BufferId>,
    },
    /// Make the whole piece zeros. Answered like `Write`.
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

/// Do the pieces that can be hashed wait until there are HASHED_AT_ONCE of them?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// They wait while others may still come.
    Lasts,
    Over,
}

/// Hash `length` bytes at `offset` of `buffer` as the next bytes of `of`, at once, before anything
/// else is done. At `begin == 0` a new hash starts. When `begin + length` is the length of `of`,
/// call `handle_hashed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    pub of: HashOf,
    pub begin: u32,
    pub length: u32,
    pub buffer: BufferId,
    pub offset: u32,
    /// The hash starts from this state of SHA-1, before `Part::begin` of the piece.
    pub state: Option<PieceHash>,
    /// Unless it is 0: before `handle_hashed`, call `handle_mark` with the state before each
    /// multiple of this inside the piece.
    pub part_bytes: u32,
}

/// Pieces that arrive and pieces that are read are hashed side by side: each of these values has
/// its own running hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HashOf {
    Download(PieceIndex),
    Disk(PieceIndex),
    /// One block of a piece that came bad, by itself.
    Block(PieceIndex, BlockIndex),
    /// A part of a piece that has not come whole. What its bytes lead to is a state, or if they end
    /// the piece, its hash.
    Part {
        piece: PieceIndex,
        begin: u32,
        length: u32,
    },
}

impl HashOf {
    pub fn piece(self) -> PieceIndex {
        let (HashOf::Download(piece)
        | HashOf::Disk(piece)
        | HashOf::Block(piece, _)
        | HashOf::Part { piece, .. }) = self;
        piece
    }

    /// How many bytes are hashed.
    pub fn length(self, layout: &Layout) -> u32 {
        match self {
            HashOf::Download(piece) | HashOf::Disk(piece) => layout.piece_length(piece),
            HashOf::Block(piece, at) => layout.block(piece, at).length,
            HashOf::Part { length, .. } => length,
        }
    }
}

/// What to send to one peer next, in the order in which it comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Send {
    Handshake(Handshake),
    Message(Message),
    /// `wire::piece_header`, then `block.length` bytes at `offset` of `buffer`. These bytes do not
    /// change until `handle_sent` or `handle_closed`. With an id in `packed` it may go compressed,
    /// after `wire::packed_header`: as it came or lies, or with `encode` compressed anew. Then call
    /// `handle_packed` at once, with the length of what goes.
    Block {
        block: Block,
        buffer: BufferId,
        offset: u32,
        packed: Option<u8>,
        encode: bool,
    },
}

/// Where the payload of an incoming `piece` message goes.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    Buffer { buffer: BufferId, offset: u32 },
    Discard,
}

/// Something that is worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    TrackerRefused(String),
    TrackerWarned(String),
    TrackerLost(String),
    TrackerBack,
    /// The tracker does not answer, or without one no source (`Mesh::note_source`), and we are
    /// complete: we leave after this time unless it comes back.
    JobEnded(Duration),
    SourceBack,
    PieceBad {
        piece: PieceIndex,
        liar: Option<SocketAddr>,
    },
    /// A piece that was bad is good now, and comparing shows that this peer had sent a bad block.
    BlockBad {
        piece: PieceIndex,
        liar: SocketAddr,
    },
    ReadBackBad {
        piece: PieceIndex,
        disk: DiskOffset,
        again: bool,
    },
    /// The scan could not read this piece. It is fetched and written like a missing one.
    TargetBad {
        piece: PieceIndex,
        error: DiskError,
    },
    /// A seeder goes on without this piece.
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
    /// Pieces that were read from the disk and are good. Written pieces count once they have been
    /// read back.
    pub verified: u32,
    /// Of the scan or the read-back: pieces hashed, and pieces to hash.
    pub checked: u32,
    pub to_check: u32,
    /// Where the disk failed; or where the first piece begins that was bad in both read-backs.
    pub bad_offset: Option<DiskOffset>,
    /// Payload bytes received, unused ones included.
    pub fetched: u64,
    pub unused: u64,
    pub uploaded: u64,
    /// Both as they went over the network, where they may have been compressed.
    pub fetched_wire: u64,
    pub uploaded_wire: u64,
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
            Event::SourceBack => f.write_str("the peer of --peer answers again"),
            Event::JobEnded(leaves_in) => write!(
                f,
                "the server has ended the job, leaving in {} s",
                leaves_in.as_millis().div_ceil(1000) as u64
            ),
            Event::PieceBad {
                piece,
                liar: Some(address),
            } => {
                write!(
                    f,
                    "piece {} came bad from {address} alone, which is banned for a while",
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
            Event::BlockBad { piece, liar } => write!(
                f,
                "piece {} was bad because of {liar}, which is banned for a while",
                piece.0
            ),
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
