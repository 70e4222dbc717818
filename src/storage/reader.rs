//! What are the hashes of the pieces that lie on a device?
//!
//! For the commands that read a whole image, or any list of its pieces: `make`, `verify`, `seed
//! --check` and `get --dry-run`. [`Reader`] does what the core does when it scans a target or reads
//! it back: a `ReadQueue` says what to read and what to hash next, `Storage` reads, and `Hasher`
//! hashes several pieces at once while the next ones are read.
//!
//! `Reader` itself never blocks. [`hash_pieces`] is the loop around it for a command that does
//! nothing else.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use swarm_proto::format::layout::Layout;
use swarm_proto::format::lz4_frame_error::PackedError;
use swarm_proto::format::partclone_data::{Strip, Strips};
use swarm_proto::limits::HASHED_AT_ONCE;
use swarm_proto::policy::cache::Chunk;
use swarm_proto::policy::read_queue::ReadQueue;
use swarm_proto::swarm::{DiskError, Hash, HashOf, Work};
use swarm_proto::units::{BufferId, DiskOffset, PieceHash, PieceIndex, Ticket};

use super::disk::Storage;
use super::hasher::Hasher;
use super::holes::Holes;
use super::places::Places;
use super::requests::{JOINED_BYTES_MAX, Joining};
use super::sectors;
use crate::os::device::Device;
use crate::os::pool::Pool;
use crate::os::signal::{Signal, Signals};

/// Bytes being read and bytes waiting to be hashed, together. Four pieces of 4 MiB are hashed side
/// by side: `verify` takes 0.25 s of CPU a GiB, with 8 MiB it takes 0.28, and is slower.
const WINDOW_BYTES: u32 = 16 << 20;

/// Largest buffer: one request, which is long enough for the full speed of a spinning disk and
/// short enough that the hash keeps up behind it.
const BUFFER_BYTES_MAX: u32 = JOINED_BYTES_MAX;

/// Reads pieces and hashes them, in the order in which they were added or nearly so: a short last
/// piece can be ready before the one in front of it.
///
/// Calling order: `add` any number of pieces; `advance` until it returns nothing; sleep until
/// `event_fd` is readable; `advance` again; and so on until `is_done`.
///
/// Invariant: each buffer is in `free`, in `reading`, or waits in `queue` for the hash.
struct Reader {
    queue: ReadQueue,
    /// What each buffer is being filled with.
    reading: Vec<Option<Chunk>>,
    /// First in, first out: buffers that were filled one after the other are free one after the
    /// other, and lie side by side in memory when they are filled again.
    free: VecDeque<BufferId>,
    /// Reads that were started.
    read_count: u64,
    /// Pieces of which a part could not be read. They are hashed like the others, so that those
    /// behind them have their turn, and the hash is thrown away.
    failed: Vec<(PieceIndex, DiskError)>,
    /// Pieces that `advance` will return: several may be through at once.
    hashed: VecDeque<(PieceIndex, PieceHash)>,
    hasher: Hasher,
    /// Checks the checksums of a partclone image on the way.
    strips: Option<Strips>,
    /// The first of them that does not fit.
    damage: Option<ReadError>,
    layout: Layout,
    buffer_bytes: u32,
    // Dropped in this order: the kernel must be done with the buffers before they go.
    storage: Storage,
    pool: Pool,
}

/// A piece and its hash, or why it could not be read.
type PieceRead = (PieceIndex, Result<PieceHash, ReadError>);

impl Reader {
    /// Keeps the device open, and held if it is held, on its own.
    fn new(device: &Device, places: Places, strips: Option<Strips>) -> Result<Reader, ReadError> {
        let (needed_bytes, holds_bytes) = (places.needed_bytes(), device.size_bytes);
        if needed_bytes > holds_bytes {
            return Err(ReadError::TooSmall {
                path: device.path.clone(),
                holds_bytes,
                needed_bytes,
            });
        }
        let layout = *places.layout();
        let buffer_bytes = buffer_bytes(&layout);
        let buffer_count = WINDOW_BYTES / buffer_bytes;
        let device = device.duplicate().map_err(ReadError::Kernel)?;
        Ok(Reader {
            queue: ReadQueue::new(layout, buffer_bytes, buffer_count as usize),
            reading: vec![None; buffer_count as usize],
            free: (0..buffer_count).map(BufferId).collect(),
            read_count: 0,
            failed: Vec::new(),
            hashed: VecDeque::new(),
            hasher: Hasher::default(),
            strips,
            damage: None,
            layout,
            buffer_bytes,
            storage: Storage::new(device, places, Joining::Reads).map_err(ReadError::Kernel)?,
            pool: Pool::new(buffer_bytes, buffer_count).map_err(ReadError::Kernel)?,
        })
    }

    /// A piece to be read, behind all others.
    fn add(&mut self, piece: PieceIndex) {
        self.queue.add(piece);
    }

    /// Readable when a read has completed.
    fn event_fd(&self) -> RawFd {
        self.storage.event_fd()
    }

    /// Every piece that was added has been returned.
    fn is_done(&self) -> bool {
        self.queue.is_idle() && self.hashed.is_empty()
    }

    /// The next piece, if all of it has been read.
    fn advance(&mut self) -> Option<PieceRead> {
        loop {
            if let Some((piece, hash)) = self.hashed.pop_front() {
                return Some(self.judge(piece, hash));
            }
            self.read_ahead();
            // A few alone take nearly as long as all of them, so they wait for those that are on
            // their way.
            let count = self.queue.hashable_count();
            if count == HASHED_AT_ONCE || count > 0 && !self.queue.expects_more() {
                self.hash();
            } else if !self.take_arrived() {
                return None;
            }
        }
    }

    /// Starts to read into the free buffers. Not into one or two of them at a time: small reads
    /// that follow one another become one request only if they are submitted together.
    fn read_ahead(&mut self) {
        let free_bytes = self.free.len() as u32 * self.buffer_bytes;
        if free_bytes < BUFFER_BYTES_MAX && self.free.len() < self.reading.len() {
            return;
        }
        while let Some(chunk) = self.queue.next_read() {
            let buffer = self
                .free
                .pop_front()
                .expect("the window has as many buffers");
            self.queue.start_read();
            self.reading[buffer.index()] = Some(chunk);
            let (begin, length) = self.queue.span(chunk);
            let work = Work::Read {
                ticket: self.next_ticket(buffer),
                piece: chunk.piece,
                begin,
                length,
                buffer,
            };
            self.storage.start(&self.pool, work);
        }
        self.storage.submit();
    }

    /// The number of a read, and that of its buffer in the low bits. Tickets rise, since `Storage`
    /// keeps its jobs in their order: with the buffers alone as tickets, `verify` of pieces of
    /// 16 KiB took 1.35 times as long.
    fn next_ticket(&mut self, buffer: BufferId) -> Ticket {
        self.read_count += 1;
        Ticket(self.read_count << u32::BITS | u64::from(buffer.0))
    }

    /// Takes the chunks that have been read. False if there are none.
    fn take_arrived(&mut self) -> bool {
        self.storage.advance(&mut self.pool);
        let mut has_arrived = false;
        while let Some((ticket, result)) = self.storage.poll_done() {
            let buffer = buffer_of(ticket);
            let chunk = self.reading[buffer.index()].take();
            let chunk = chunk.expect("a buffer is read into once at a time");
            if let Err(error) = result {
                self.failed.push((chunk.piece, error));
            }
            self.queue.arrived(chunk, buffer);
            has_arrived = true;
        }
        has_arrived
    }

    /// Hashes the next chunk of each of the first pieces that has been read.
    fn hash(&mut self) {
        let (mut chunks, mut steps) = (Vec::new(), Vec::new());
        for place in 0..HASHED_AT_ONCE {
            if let Some((chunk, buffer)) = self.queue.next_hash(place) {
                chunks.push((chunk, buffer));
                steps.push(self.step(chunk, buffer));
            }
        }
        let hashed = self.hasher.hash(&steps, &self.pool, &self.layout);
        for (chunk, buffer) in chunks {
            self.check(chunk, buffer);
            self.free.push_back(buffer);
        }
        for (of, hash) in hashed.finished {
            self.queue.judged(of.piece());
            self.hashed.push_back((of.piece(), hash));
        }
    }

    fn step(&self, chunk: Chunk, buffer: BufferId) -> Hash {
        let (begin, length) = self.queue.span(chunk);
        Hash {
            of: HashOf::Disk(chunk.piece),
            begin,
            length,
            buffer,
            offset: 0,
            state: None,
            part_bytes: 0,
        }
    }

    /// Sums up the strips of a partclone image that have bytes in this chunk.
    fn check(&mut self, chunk: Chunk, buffer: BufferId) {
        let Some(strips) = &mut self.strips else {
            return;
        };
        // It cannot be read, which is a better reason.
        if self.failed.iter().any(|failed| failed.0 == chunk.piece) {
            return;
        }
        let (begin, length) = self.queue.span(chunk);
        let mut from = self.layout.piece_start(chunk.piece) + u64::from(begin);
        let mut bytes = &self.pool.bytes(buffer)[..length as usize];
        while !bytes.is_empty() && self.damage.is_none() {
            if let Some(strip) = strips.take(&mut from, &mut bytes) {
                self.damage = check_strip(self.storage.device(), strips, strip).err();
            }
        }
    }

    fn judge(&mut self, piece: PieceIndex, hash: PieceHash) -> PieceRead {
        let failed = self.failed.iter().find(|failed| failed.0 == piece);
        let result = match failed {
            Some((_, error)) => Err(self.explain(*error)),
            None => self.damage.take().map_or(Ok(hash), Err),
        };
        self.failed.retain(|failed| failed.0 != piece);
        (piece, result)
    }

    /// A file that ends too early is told apart from a device that fails. The error has the offset
    /// of its request, which is shorter than a buffer and an edge.
    fn explain(&self, error: DiskError) -> ReadError {
        let device = self.storage.device();
        let (path, offset) = (device.path.clone(), error.offset);
        let request_end = error.offset + u64::from(BUFFER_BYTES_MAX);
        match device.ends_before(request_end.0.min(self.storage.places().needed_bytes())) {
            Some(end) => ReadError::Ends {
                path,
                offset: DiskOffset(end),
            },
            None if error.errno == libc::EUCLEAN && device.packed.is_some() => {
                ReadError::Packed { path, offset }
            }
            None => ReadError::Read {
                path,
                offset,
                error: io::Error::from_raw_os_error(error.errno),
            },
        }
    }
}

fn check_strip(device: &Device, strips: &Strips, strip: Strip) -> Result<(), ReadError> {
    let stored = stored_sum(device, strips, strip.index)?;
    let before = match strips.goes_on(strip) {
        true => Some(stored_sum(device, strips, strip.index - 1)?),
        false => None,
    };
    if strips.fits(strip, stored, before) {
        return Ok(());
    }
    Err(ReadError::Checksum {
        path: device.path.clone(),
        offset: DiskOffset(strips.data().checksum(strip.index)),
        blocks: strips.blocks(strip),
    })
}

/// Waits for the disk: for a sector of each strip, which has just been read with its neighbours.
fn stored_sum(device: &Device, strips: &Strips, strip: u64) -> Result<u32, ReadError> {
    let offset = strips.data().checksum(strip);
    let bytes = sectors::read(device, offset, 4).map_err(|error| ReadError::Read {
        path: device.path.clone(),
        offset: DiskOffset(offset),
        error,
    })?;
    Ok(bytes
        .iter()
        .rev()
        .fold(0, |sum, &byte| sum << 8 | u32::from(byte)))
}

/// The buffer of a ticket of `next_ticket`.
fn buffer_of(ticket: Ticket) -> BufferId {
    BufferId(ticket.0 as u32)
}

/// Size of a buffer: a piece, or a part of one. Larger than those of a swarm: nothing else is in
/// this pool.
fn buffer_bytes(layout: &Layout) -> u32 {
    layout
        .piece_bytes()
        .next_multiple_of(4096)
        .min(BUFFER_BYTES_MAX)
}

/// Reads and hashes these pieces, and blocks until that is done, `on_piece` returns an error, or a
/// signal arrives. Those in holes of a file come first. With `strips`, a checksum of the partclone
/// image that does not fit is an error of the piece that completed its strip; holes are read, too.
pub fn hash_pieces(
    device: &Device,
    places: Places,
    strips: Option<Strips>,
    pieces: &mut dyn Iterator<Item = PieceIndex>,
    signals: &mut Signals,
    on_piece: &mut dyn FnMut(PieceIndex, Result<PieceHash, ReadError>) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    const ANY: Token = Token(0);
    let piece_bytes = places.layout().piece_bytes();
    let holes = Holes::of(device, places.clone());
    let mut holes = holes.map_err(|error| ReadError::Read {
        path: device.path.clone(),
        offset: DiskOffset(0),
        error,
    })?;
    let sums_up = strips.is_some();
    let mut reader = Reader::new(device, places, strips)?;
    for piece in pieces {
        match holes.hash(piece) {
            Some(hash) if !sums_up => on_piece(piece, Ok(hash))?,
            _ => reader.add(piece),
        }
    }
    let mut poll = Poll::new().map_err(ReadError::Kernel)?;
    for fd in [reader.event_fd(), signals.fd()] {
        poll.registry()
            .register(&mut SourceFd(&fd), ANY, Interest::READABLE)
            .map_err(ReadError::Kernel)?;
    }
    let mut events = Events::with_capacity(4);
    let mut unchecked_bytes = 0;
    while !reader.is_done() {
        match reader.advance() {
            Some((piece, hash)) => {
                on_piece(piece, hash)?;
                unchecked_bytes += piece_bytes;
                // A fast device never lets the loop sleep.
                if unchecked_bytes < BYTES_PER_SIGNAL_CHECK {
                    continue;
                }
                unchecked_bytes = 0;
            }
            None => match poll.poll(&mut events, Some(STUCK_CHECK)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(ReadError::Kernel(error));
                }
                _ => {}
            },
        }
        if let Some(signal) = signals.poll() {
            return Err(ReadError::Interrupted(signal));
        }
    }
    Ok(())
}

/// A signal waits for this many bytes at most: a fifth of a second of a slow disk. To ask after
/// each piece of 16 KiB costs 2 % of the processor time.
const BYTES_PER_SIGNAL_CHECK: u32 = 4 << 20;

/// The kernel tells of every completion. To call `advance` without that costs nothing, and also
/// tries a submission again that was refused for want of memory.
const STUCK_CHECK: Duration = Duration::from_secs(1);

/// Why pieces were not read.
#[derive(Debug)]
pub enum ReadError {
    /// The checksum at this offset of a partclone image does not fit these used blocks.
    Checksum {
        path: PathBuf,
        offset: DiskOffset,
        blocks: Range<u64>,
    },
    Ends {
        path: PathBuf,
        offset: DiskOffset,
    },
    Interrupted(Signal),
    Kernel(io::Error),
    /// A block of a packed image is damaged.
    Packed {
        path: PathBuf,
        offset: DiskOffset,
    },
    Read {
        path: PathBuf,
        offset: DiskOffset,
        error: io::Error,
    },
    TooSmall {
        path: PathBuf,
        holds_bytes: u64,
        needed_bytes: u64,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Checksum {
                path,
                offset,
                blocks,
            } => {
                write!(
                    f,
                    "{} is damaged: its checksum at byte {} does not fit the used blocks {} to {} in front of it",
                    path.display(),
                    offset.0,
                    blocks.start,
                    blocks.end - 1
                )
            }
            ReadError::Ends { path, offset } => {
                write!(
                    f,
                    "{} became shorter while it was read: nothing is at byte {}",
                    path.display(),
                    offset.0
                )
            }
            ReadError::Interrupted(Signal::Interrupt) => f.write_str("interrupted"),
            ReadError::Interrupted(Signal::Terminate | Signal::Hangup) => {
                f.write_str("ended by a signal")
            }
            ReadError::Kernel(error) => write!(f, "cannot set up asynchronous reads: {error}"),
            ReadError::Packed { path, offset } => {
                let damaged = PackedError::Block(offset.0);
                write!(f, "packed image {}: {damaged}", path.display())
            }
            ReadError::Read {
                path,
                offset,
                error,
            } => {
                write!(
                    f,
                    "cannot read {} at byte {}: {error}",
                    path.display(),
                    offset.0
                )
            }
            ReadError::TooSmall {
                path,
                holds_bytes,
                needed_bytes,
            } => {
                write!(
                    f,
                    "{} holds {holds_bytes} bytes, the image needs {needed_bytes}",
                    path.display()
                )
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::os::testing::Scratch;
    use std::collections::BTreeMap;
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;
    use swarm_proto::format::extents::ExtentMap;
    use swarm_proto::format::lz4::Encoder;
    use swarm_proto::format::lz4_frame::Packed;
    use swarm_proto::rng::Rng;

    const PIECE_BYTES: u32 = 16 * 1024;

    pub fn file_with(bytes: &[u8]) -> Scratch {
        let scratch = Scratch::new("reader");
        scratch.open_buffered().write_all_at(bytes, 0).unwrap();
        scratch
    }

    fn random_bytes(rng: &mut Rng, length: usize) -> Vec<u8> {
        std::iter::repeat_with(|| rng.next_u64().to_le_bytes())
            .flatten()
            .take(length)
            .collect()
    }

    /// `runs` are (offset on the device, length), in the order of the torrent.
    pub fn places(runs: &[(u64, u64)], piece_bytes: u32) -> Places {
        let runs = runs
            .iter()
            .map(|&(disk, length)| (DiskOffset(disk), length));
        let extents = ExtentMap::from_files(runs).unwrap();
        let layout = Layout::new(extents.total_bytes(), piece_bytes).unwrap();
        Places::new(layout, Arc::new(extents))
    }

    /// The hashes of these pieces, in this order, of a device with at least this alignment.
    fn read_pieces(
        scratch: &Scratch,
        places: Places,
        pieces: &[PieceIndex],
        alignment: u32,
    ) -> Result<Vec<PieceHash>, ReadError> {
        let mut device = Device::open_source(scratch.path()).unwrap();
        device.alignment = device.alignment.max(alignment);
        read_of(&device, places, pieces)
    }

    fn read_of(
        device: &Device,
        places: Places,
        pieces: &[PieceIndex],
    ) -> Result<Vec<PieceHash>, ReadError> {
        let mut hashes = BTreeMap::new();
        let mut signals = Signals::new().unwrap();
        let mut to_read = pieces.iter().copied();
        hash_pieces(
            device,
            places,
            None,
            &mut to_read,
            &mut signals,
            &mut |piece, hash| {
                assert!(hashes.insert(piece, hash?).is_none(), "returned twice");
                Ok(())
            },
        )?;
        Ok(pieces.iter().map(|piece| hashes[piece]).collect())
    }

    fn read_all(scratch: &Scratch, runs: &[(u64, u64)]) -> Result<Vec<PieceHash>, ReadError> {
        let places = places(runs, PIECE_BYTES);
        let all: Vec<PieceIndex> = places.layout().pieces().collect();
        read_pieces(scratch, places, &all, 1)
    }

    /// The stupid twin: everything in memory.
    fn hashed(bytes: &[u8], runs: &[(u64, u64)]) -> Vec<PieceHash> {
        hashed_in(bytes, runs, PIECE_BYTES)
    }

    fn hashed_in(bytes: &[u8], runs: &[(u64, u64)], piece_bytes: u32) -> Vec<PieceHash> {
        let run = |&(disk, length): &(u64, u64)| &bytes[disk as usize..][..length as usize];
        let payload: Vec<u8> = runs.iter().flat_map(run).copied().collect();
        let hash = |piece: &[u8]| PieceHash(sha1_smol::Sha1::from(piece).digest().bytes());
        payload.chunks(piece_bytes as usize).map(hash).collect()
    }

    #[test]
    fn a_whole_image_of_odd_length() {
        let bytes = random_bytes(&mut Rng::new(1), (11 << 20) + 777);
        let whole = [(0, bytes.len() as u64)];
        assert_eq!(
            read_all(&file_with(&bytes), &whole).unwrap(),
            hashed(&bytes, &whole)
        );
        let one_byte = [(0, 1)];
        assert_eq!(
            read_all(&file_with(&bytes[..1]), &one_byte).unwrap(),
            hashed(&bytes, &one_byte)
        );
    }

    /// Runs of any length at any offset, in any order.
    #[test]
    fn extents_anywhere_in_any_order() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let mut runs = Vec::new();
            let mut disk = 0;
            for _ in 0..1 + rng.below(40) {
                disk += u64::from(rng.below(5000));
                let length = 1 + u64::from(if rng.chance(1, 8) {
                    rng.below(3 << 20)
                } else {
                    rng.below(3000)
                });
                runs.push((disk, length));
                disk += length;
            }
            let bytes = random_bytes(&mut rng, disk as usize);
            rng.shuffle(&mut runs);
            assert_eq!(
                read_all(&file_with(&bytes), &runs).unwrap(),
                hashed(&bytes, &runs),
                "seed {seed}"
            );
        }
    }

    /// Any list of pieces of any size, on devices of either alignment: of 4096, most of such runs
    /// are edges.
    #[test]
    fn any_pieces_in_any_order() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let piece_bytes = PIECE_BYTES << rng.below(9);
            let runs = [(5 * 512, 6 << 20), (7 << 20, (3 << 20) + 512), (300, 700)];
            let bytes = random_bytes(&mut rng, 11 << 20);
            let places = places(&runs, piece_bytes);
            let mut pieces: Vec<PieceIndex> = places.layout().pieces().collect();
            rng.shuffle(&mut pieces);
            pieces.truncate(1 + rng.below(pieces.len() as u32) as usize);
            let all = hashed_in(&bytes, &runs, piece_bytes);
            let expected: Vec<PieceHash> = pieces.iter().map(|piece| all[piece.index()]).collect();
            let alignment = if rng.chance(1, 2) { 512 } else { 4096 };
            let read = read_pieces(&file_with(&bytes), places, &pieces, alignment);
            assert!(read.unwrap() == expected, "seed {seed}");
        }
    }

    /// A frame of LZ4 with blocks of 16 KiB, as `lz4 -B16384 --no-frame-crc` writes it.
    pub fn packed(image: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
        let mut encoder = Encoder::new();
        for block in image.chunks(16 << 10) {
            let mut encoded = vec![0; block.len()];
            let (flag, encoded) = match encoder.encode(block, &mut encoded) {
                Some(length) => (0, &encoded[..length]),
                None => (1 << 31, block),
            };
            frame.extend((encoded.len() as u32 | flag).to_le_bytes());
            frame.extend(encoded);
        }
        frame.extend([0; 4]);
        frame
    }

    pub fn open_packed(scratch: &Scratch, alignment: u32) -> Device {
        let mut device = Device::open_source(scratch.path()).unwrap();
        device.alignment = device.alignment.max(alignment);
        let mut read = |part: Range<u64>| {
            let length = (part.end - part.start) as u32;
            Some(sectors::read(&device, part.start, length).unwrap())
        };
        let packed = Packed::read(device.size_bytes, &mut read).unwrap();
        device.size_bytes = packed.image_bytes;
        device.packed = Some(Arc::new(packed));
        device
    }

    /// Some pieces are many runs, near to each other or not.
    #[test]
    fn any_pieces_of_a_packed_image() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let mut bytes = random_bytes(&mut rng, (5 << 20) + 4000);
            bytes[1 << 20..3 << 20].fill(7);
            let mut runs = Vec::new();
            let mut disk = 0;
            while disk < 4 << 20 {
                let [near, far] = [2000, 300_000].map(|most| u64::from(1 + rng.below(most)));
                let length = if rng.chance(1, 2) { near } else { far };
                runs.push((disk, length));
                disk += length + if rng.chance(1, 2) { near } else { far };
            }
            runs.retain(|run| run.0 + run.1 <= bytes.len() as u64);
            rng.shuffle(&mut runs);
            let scratch = file_with(&packed(&bytes));
            let device = open_packed(&scratch, 512 << rng.below(4));
            let part = sectors::read(&device, (3 << 20) - 1, 5).unwrap();
            assert_eq!(part, bytes[(3 << 20) - 1..][..5]);
            let piece_bytes = PIECE_BYTES << rng.below(9);
            let places = places(&runs, piece_bytes);
            let mut pieces: Vec<PieceIndex> = places.layout().pieces().collect();
            rng.shuffle(&mut pieces);
            let all = hashed_in(&bytes, &runs, piece_bytes);
            let expected: Vec<PieceHash> = pieces.iter().map(|piece| all[piece.index()]).collect();
            assert!(
                read_of(&device, places, &pieces).unwrap() == expected,
                "seed {seed}"
            );
        }
    }

    #[test]
    fn a_damaged_block_and_a_file_that_shrinks_are_named() {
        let bytes = random_bytes(&mut Rng::new(1), 1 << 20);
        let scratch = file_with(&packed(&bytes));
        let device = open_packed(&scratch, 1);
        let runs = [(0, 1 << 20)];
        let pieces: Vec<PieceIndex> = places(&runs, PIECE_BYTES).layout().pieces().collect();
        // The third block: that it is stored.
        let third = 7 + 2 * ((16 << 10) + 4);
        scratch
            .open_buffered()
            .write_all_at(&[0], third + 3)
            .unwrap();
        let failed = read_of(&device, places(&runs, PIECE_BYTES), &pieces).unwrap_err();
        let why = format!("its block at byte {third} is damaged");
        assert!(failed.to_string().ends_with(&why), "{failed}");
        scratch.open_buffered().set_len(5000).unwrap();
        let failed = read_of(&device, places(&runs, PIECE_BYTES), &pieces).unwrap_err();
        assert!(
            failed.to_string().ends_with("nothing is at byte 5000"),
            "{failed}"
        );
    }

    #[test]
    fn no_pieces_are_no_work() {
        let scratch = file_with(&[1; 1000]);
        let read = read_pieces(&scratch, places(&[(0, 1000)], PIECE_BYTES), &[], 1);
        assert_eq!(read.unwrap(), []);
    }

    #[test]
    fn a_device_that_is_too_small_is_refused() {
        let error = read_all(&file_with(&[0; 1000]), &[(500, 501)])
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with("holds 1000 bytes, the image needs 1001"),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let scratch = file_with(&[1; 3 << 20]);
        let device = Device::open_source(scratch.path()).unwrap();
        scratch.open_buffered().set_len(5000).unwrap();
        let places = places(&[(0, 3 << 20)], 1 << 20);
        let mut all = places.layout().pieces();
        let mut signals = Signals::new().unwrap();
        let error = hash_pieces(
            &device,
            places,
            None,
            &mut all,
            &mut signals,
            &mut |_, hash| hash.map(|_| panic!("no piece is there")),
        )
        .unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("became shorter while it was read: nothing is at byte 5000"),
            "{error}"
        );
    }

    /// The pieces in front of the end are all returned, and each of the others is an error.
    #[test]
    fn the_pieces_before_the_end_of_a_file_are_read() {
        let bytes = random_bytes(&mut Rng::new(3), 20 * PIECE_BYTES as usize);
        let scratch = file_with(&bytes);
        let device = Device::open_source(scratch.path()).unwrap();
        scratch
            .open_buffered()
            .set_len(7 * u64::from(PIECE_BYTES) + 5)
            .unwrap();
        let runs = [(0, bytes.len() as u64)];
        let places = places(&runs, PIECE_BYTES);
        let mut reader = Reader::new(&device, places.clone(), None).unwrap();
        places.layout().pieces().for_each(|piece| reader.add(piece));
        let all = hashed(&bytes, &runs);
        let mut missing = 0;
        while !reader.is_done() {
            match reader.advance() {
                Some((piece, Ok(hash))) => {
                    assert!(piece.0 < 7);
                    assert_eq!(hash, all[piece.index()]);
                }
                Some((piece, Err(error))) => {
                    assert!(piece.0 >= 7, "{error}");
                    missing += 1;
                }
                None => std::thread::yield_now(),
            }
        }
        assert_eq!(missing, 13);
    }

    #[test]
    fn an_error_of_the_caller_ends_the_reading() {
        let scratch = file_with(&[1; 100_000]);
        let device = Device::open_source(scratch.path()).unwrap();
        let places = places(&[(0, 100_000)], PIECE_BYTES);
        let mut all = places.layout().pieces();
        let mut count = 0;
        let mut signals = Signals::new().unwrap();
        let result = hash_pieces(
            &device,
            places,
            None,
            &mut all,
            &mut signals,
            &mut |_, _| {
                count += 1;
                if count < 3 {
                    return Ok(());
                }
                Err(ReadError::Interrupted(Signal::Interrupt))
            },
        );
        let error = result.unwrap_err();
        assert!(matches!(error, ReadError::Interrupted(Signal::Interrupt)));
        assert_eq!(count, 3);
    }
}
