//! What are the hashes of the pieces that lie on a disk?
//!
//! One reader for all who ask: `make`, `verify`, and a target that may hold the image already. It
//! reads in torrent order, with several long O_DIRECT requests in flight, and hashes what has come
//! while the disk brings the rest, two pieces at once because that takes little longer than one.
//! Extents may begin and end anywhere: the sectors around them are read as a whole and only the
//! wanted bytes are hashed.
//!
//! Worked case: with an alignment of 512, an extent of 1000 bytes at disk 700 is one request of
//! 1536 bytes at 512, of which the first 188 and the last 348 are not hashed.
//!
//! `Scan` itself never blocks, so that it can live in anybody's loop. [`hash_pieces`] is such a
//! loop for the commands that do nothing else.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::{ControlFlow, Range};
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use swarm_proto::format::extents::{Extent, ExtentMap};
use swarm_proto::format::layout::Layout;
use swarm_proto::units::{BufferId, DiskOffset, PieceHash, PieceIndex, Ticket};

use crate::os::aio::{Aio, Completion, Memory, Operation, Request};
use crate::os::device::Device;
use crate::os::pool::Pool;
use crate::os::sha1::Sha1;
use crate::os::signal::{Signal, Signals};

/// One request. Long enough for the full speed of a spinning disk, short enough that the hash keeps
/// up behind it.
const CHUNK_BYTES: u32 = 1 << 20;

/// Requests in flight and chunks waiting to be hashed, together: 8 MiB, two round trips of a fast
/// disk.
const CHUNK_COUNT: u32 = 8;

/// Reads a whole torrent from a disk, once, in order.
///
/// Calling order: `advance` until it has no more to say; sleep until `event_fd` is readable;
/// `advance` again; and so on until `is_done`.
// Invariant: every buffer is either in `free` or belongs to exactly one chunk of `chunks`.
pub struct Scan<'a> {
    device: &'a Device,
    layout: Layout,
    /// The extents that are still to be cut into chunks, and how much of the first has been cut off
    /// already.
    extents: &'a [Extent],
    cut_bytes: u64,
    /// In torrent order: the first is the next to be hashed.
    chunks: VecDeque<Chunk>,
    free: Vec<BufferId>,
    next_ticket: u64,
    /// The next piece to be given out, and the one behind it.
    lanes: [Lane; 2],
    // Dropped in this order: the kernel must be done with the buffers before they go.
    aio: Aio,
    pool: Pool,
}

/// A piece that is being hashed.
struct Lane {
    piece: PieceIndex,
    hash: Sha1,
    /// Bytes of the torrent that are still to be hashed for it. Behind the last piece there are
    /// none.
    rest: Range<u64>,
}

/// One request of whole sectors, and which of its bytes are wanted.
#[derive(Debug)]
struct Chunk {
    /// Of the request in flight.
    ticket: Ticket,
    buffer: BufferId,
    disk: DiskOffset,
    /// The wanted bytes in the torrent.
    wanted: Range<u64>,
    /// Bytes of whole sectors to read.
    length: u32,
    /// Bytes that have come, from the front.
    read: u32,
    /// Unwanted bytes at the front.
    skip: u32,
    /// End of the wanted bytes, at most `length`.
    end: u32,
}

impl<'a> Scan<'a> {
    pub fn new(
        device: &'a Device,
        layout: Layout,
        extents: &'a ExtentMap,
    ) -> Result<Scan<'a>, ScanError> {
        assert_eq!(
            layout.total_bytes(),
            extents.total_bytes(),
            "layout and extents of one torrent"
        );
        let (needed_bytes, holds_bytes) = (extents.disk_end().0, device.size_bytes);
        if needed_bytes > holds_bytes {
            return Err(ScanError::TooSmall {
                path: device.path.clone(),
                holds_bytes,
                needed_bytes,
            });
        }
        assert!(
            CHUNK_BYTES.is_multiple_of(device.alignment),
            "alignment of {} bytes",
            device.alignment
        );
        Ok(Scan {
            device,
            layout,
            extents: extents.extents(),
            cut_bytes: 0,
            chunks: VecDeque::new(),
            free: (0..CHUNK_COUNT).map(BufferId).collect(),
            next_ticket: 0,
            lanes: [0, 1].map(|piece| Lane::new(layout, piece)),
            aio: Aio::new(CHUNK_COUNT).map_err(ScanError::Kernel)?,
            pool: Pool::new(CHUNK_BYTES, CHUNK_COUNT).map_err(ScanError::Kernel)?,
        })
    }

    /// Readable when the disk has brought something.
    pub fn event_fd(&self) -> RawFd {
        self.aio.event_fd()
    }

    /// Every piece has been given out.
    pub fn is_done(&self) -> bool {
        self.lanes[0].piece.0 == self.layout.piece_count()
    }

    /// The next piece, if the disk has brought all of it. Hashes at most one piece a call, and
    /// keeps the disk busy.
    pub fn advance(&mut self) -> Result<Option<(PieceIndex, PieceHash)>, ScanError> {
        let mut completions = Vec::new();
        self.aio.complete(&mut completions);
        completions
            .into_iter()
            .try_for_each(|completion| self.take(completion))?;
        while !self.is_done() {
            self.read_ahead();
            if self.lanes[0].rest.is_empty() {
                return Ok(Some(self.finish_piece()));
            }
            if !self.hash_some() {
                return Ok(None);
            }
            self.free_hashed();
        }
        Ok(None)
    }

    /// Hashes what has come of both pieces, or of the first alone if nothing of the other is on its
    /// way; false if that has to be waited for.
    fn hash_some(&mut self) -> bool {
        let next = |lane: &Lane| {
            self.chunks
                .iter()
                .find(|chunk| chunk.wanted.contains(&lane.rest.start))
        };
        let chunks = self.lanes.each_ref().map(next);
        if chunks[0].is_none()
            || chunks
                .into_iter()
                .flatten()
                .any(|chunk| chunk.read < chunk.end)
        {
            return false;
        }
        let bytes = [0, 1].map(|lane| {
            chunks[lane].map_or(&[][..], |chunk| {
                chunk.part(&self.lanes[lane].rest, &self.pool)
            })
        });
        let count = if chunks[1].is_some() {
            bytes[0].len().min(bytes[1].len())
        } else {
            bytes[0].len()
        };
        let bytes = bytes.map(|bytes| &bytes[..count.min(bytes.len())]);
        let [first, second] = &mut self.lanes;
        Sha1::update_two([&mut first.hash, &mut second.hash], bytes);
        first.rest.start += bytes[0].len() as u64;
        second.rest.start += bytes[1].len() as u64;
        true
    }

    /// Whatever comes before the next byte to be hashed is done with.
    fn free_hashed(&mut self) {
        let [first, second] = &self.lanes;
        let next = if first.rest.is_empty() {
            second.rest.start
        } else {
            first.rest.start
        };
        while let Some(chunk) = self.chunks.pop_front_if(|chunk| chunk.wanted.end <= next) {
            self.free.push(chunk.buffer);
        }
    }

    fn finish_piece(&mut self) -> (PieceIndex, PieceHash) {
        let behind = Lane::new(self.layout, self.lanes[1].piece.0 + 1);
        let next = std::mem::replace(&mut self.lanes[1], behind);
        let done = std::mem::replace(&mut self.lanes[0], next);
        if self.is_done() {
            assert!(self.chunks.is_empty(), "bytes behind the last piece");
        }
        (done.piece, PieceHash(done.hash.finish()))
    }

    /// Asks for as many chunks as there are free buffers.
    fn read_ahead(&mut self) {
        while let Some(extent) = self.extents.first()
            && let Some(buffer) = self.free.pop()
        {
            let (disk, length) = (extent.disk + self.cut_bytes, extent.length - self.cut_bytes);
            let start = extent.torrent_offset + self.cut_bytes;
            let ticket = Ticket(self.next_ticket);
            let chunk = first_chunk((start, disk), length, self.device.alignment, buffer, ticket);
            self.cut_bytes += u64::from(chunk.end - chunk.skip);
            if self.cut_bytes == extent.length {
                self.extents = &self.extents[1..];
                self.cut_bytes = 0;
            }
            self.next_ticket += 1;
            self.aio.push(chunk.request(self.device, &self.pool));
            self.chunks.push_back(chunk);
        }
        self.aio.submit();
    }

    /// A request may be answered in part, at the end of a file above all; the rest is asked for
    /// again until nothing more comes.
    fn take(&mut self, completion: Completion) -> Result<(), ScanError> {
        let chunk = self
            .chunks
            .iter_mut()
            .find(|chunk| chunk.ticket == completion.ticket)
            .expect("asked for");
        let offset = chunk.disk + u64::from(chunk.read);
        let path = || self.device.path.clone();
        match completion.result {
            Err(errno) => {
                let error = io::Error::from_raw_os_error(errno);
                return Err(ScanError::Read {
                    path: path(),
                    offset,
                    error,
                });
            }
            Ok(count) => chunk.read += count,
        }
        if chunk.read >= chunk.end {
            return Ok(());
        }
        // Only the end of a file is no multiple of the sector.
        if completion.result == Ok(0) || !chunk.read.is_multiple_of(self.device.alignment) {
            return Err(ScanError::Ends {
                path: path(),
                offset: chunk.disk + u64::from(chunk.read),
            });
        }
        chunk.ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.aio.push(chunk.request(self.device, &self.pool));
        self.aio.submit();
        Ok(())
    }
}

impl Lane {
    fn new(layout: Layout, piece: u32) -> Lane {
        let piece = PieceIndex(piece);
        let total = layout.total_bytes();
        let rest = match piece.0 < layout.piece_count() {
            true => {
                layout.piece_start(piece)
                    ..layout.piece_start(piece) + u64::from(layout.piece_length(piece))
            }
            false => total..total,
        };
        Lane {
            piece,
            hash: Sha1::new(),
            rest,
        }
    }
}

impl Chunk {
    /// Its wanted bytes from the start of `range` on, at most to the end of that.
    fn part<'a>(&self, range: &Range<u64>, pool: &'a Pool) -> &'a [u8] {
        let from = self.skip as usize + (range.start - self.wanted.start) as usize;
        let count = range.end.min(self.wanted.end) - range.start;
        &pool.bytes(self.buffer)[from..][..count as usize]
    }

    /// Reads what has not come yet.
    fn request(&self, device: &Device, pool: &Pool) -> Request {
        let segment = pool.segment(self.buffer, self.read, self.length - self.read);
        Request {
            ticket: self.ticket,
            fd: device.fd(),
            operation: Operation::Read,
            disk_offset: self.disk + u64::from(self.read),
            alignment: device.alignment,
            memory: Memory::Pool(vec![segment]),
        }
    }
}

/// The first chunk of `length` bytes at `start` of the torrent and `disk`: up to a buffer full, in
/// whole sectors.
fn first_chunk(
    (start, disk): (u64, DiskOffset),
    length: u64,
    alignment: u32,
    buffer: BufferId,
    ticket: Ticket,
) -> Chunk {
    assert!(length > 0);
    let alignment = u64::from(alignment);
    let skip = disk.0 % alignment;
    let end = (skip + length).min(u64::from(CHUNK_BYTES));
    let small = |bytes: u64| u32::try_from(bytes).expect("within a buffer");
    Chunk {
        ticket,
        buffer,
        disk: DiskOffset(disk.0 - skip),
        wanted: start..start + end - skip,
        length: small(end.next_multiple_of(alignment)),
        read: 0,
        skip: small(skip),
        end: small(end),
    }
}

/// Reads and hashes all pieces in order, and blocks until that is done, `on_piece` breaks it off,
/// or a signal arrives.
pub fn hash_pieces(
    device: &Device,
    layout: Layout,
    extents: &ExtentMap,
    signals: &mut Signals,
    mut on_piece: impl FnMut(PieceIndex, PieceHash) -> ControlFlow<()>,
) -> Result<(), ScanError> {
    const ANY: Token = Token(0);
    let mut scan = Scan::new(device, layout, extents)?;
    let mut poll = Poll::new().map_err(ScanError::Kernel)?;
    for fd in [scan.event_fd(), signals.fd()] {
        poll.registry()
            .register(&mut SourceFd(&fd), ANY, Interest::READABLE)
            .map_err(ScanError::Kernel)?;
    }
    let mut events = Events::with_capacity(4);
    loop {
        while let Some((piece, hash)) = scan.advance()? {
            if on_piece(piece, hash).is_break() {
                return Ok(());
            }
            // Looked at for each piece: a fast disk may never let the loop come to rest below.
            if let Some(signal) = signals.poll() {
                return Err(ScanError::Interrupted(signal));
            }
        }
        if scan.is_done() {
            return Ok(());
        }
        match poll.poll(&mut events, Some(STUCK_CHECK)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(ScanError::Kernel(error));
            }
            _ => {}
        }
        if let Some(signal) = signals.poll() {
            return Err(ScanError::Interrupted(signal));
        }
    }
}

/// The kernel tells every completion; looking without being told costs nothing and also tries a
/// submission again that was refused for want of memory.
const STUCK_CHECK: Duration = Duration::from_secs(1);

/// Why a disk was not read to the end.
#[derive(Debug)]
pub enum ScanError {
    Ends {
        path: PathBuf,
        offset: DiskOffset,
    },
    Interrupted(Signal),
    Kernel(io::Error),
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

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScanError::Ends { path, offset } => {
                write!(
                    f,
                    "{} became shorter while it was read: nothing is at byte {}",
                    path.display(),
                    offset.0
                )
            }
            ScanError::Interrupted(Signal::Interrupt) => f.write_str("interrupted"),
            ScanError::Interrupted(Signal::Terminate | Signal::Hangup) => {
                f.write_str("ended by a signal")
            }
            ScanError::Kernel(error) => write!(f, "cannot set up asynchronous reads: {error}"),
            ScanError::Read {
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
            ScanError::TooSmall {
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
mod tests {
    use super::*;
    use crate::os::testing::Scratch;
    use std::os::unix::fs::FileExt;
    use swarm_proto::rng::Rng;

    const PIECE_BYTES: u32 = 16 * 1024;

    fn disk_with(bytes: &[u8]) -> Scratch {
        let scratch = Scratch::new("scan");
        scratch.open_buffered().write_all_at(bytes, 0).unwrap();
        scratch
    }

    fn random_bytes(rng: &mut Rng, length: usize) -> Vec<u8> {
        std::iter::repeat_with(|| rng.next_u64().to_le_bytes())
            .flatten()
            .take(length)
            .collect()
    }

    fn scanned(scratch: &Scratch, runs: &[(u64, u64)]) -> Result<Vec<PieceHash>, ScanError> {
        let extents = ExtentMap::from_files(
            runs.iter()
                .map(|&(disk, length)| (DiskOffset(disk), length)),
        )
        .unwrap();
        let layout = Layout::new(extents.total_bytes(), PIECE_BYTES).unwrap();
        let device = Device::open_source(scratch.path()).unwrap();
        let mut hashes = Vec::new();
        hash_pieces(
            &device,
            layout,
            &extents,
            &mut Signals::new().unwrap(),
            |piece, hash| {
                assert_eq!(piece.index(), hashes.len());
                hashes.push(hash);
                ControlFlow::Continue(())
            },
        )?;
        Ok(hashes)
    }

    /// The stupid twin: everything in memory.
    fn hashed(bytes: &[u8], runs: &[(u64, u64)]) -> Vec<PieceHash> {
        let run = |&(disk, length): &(u64, u64)| &bytes[disk as usize..][..length as usize];
        let payload: Vec<u8> = runs.iter().flat_map(run).copied().collect();
        let hash = |piece: &[u8]| PieceHash(sha1_smol::Sha1::from(piece).digest().bytes());
        payload.chunks(PIECE_BYTES as usize).map(hash).collect()
    }

    #[test]
    fn a_whole_image_of_odd_length() {
        let bytes = random_bytes(&mut Rng::new(1), (11 << 20) + 777);
        let whole = [(0, bytes.len() as u64)];
        assert_eq!(
            scanned(&disk_with(&bytes), &whole).unwrap(),
            hashed(&bytes, &whole)
        );
        let one_byte = [(0, 1)];
        assert_eq!(
            scanned(&disk_with(&bytes[..1]), &one_byte).unwrap(),
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
                scanned(&disk_with(&bytes), &runs).unwrap(),
                hashed(&bytes, &runs),
                "seed {seed}"
            );
        }
    }

    #[test]
    fn a_disk_that_is_too_small_is_refused() {
        let error = scanned(&disk_with(&[0; 1000]), &[(500, 501)])
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with("holds 1000 bytes, the image needs 1001"),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let scratch = disk_with(&[1; 3 << 20]);
        let device = Device::open_source(scratch.path()).unwrap();
        scratch.open_buffered().set_len(5000).unwrap();
        let extents = ExtentMap::from_files([(DiskOffset(0), 3 << 20)]).unwrap();
        let layout = Layout::new(3 << 20, 1 << 20).unwrap();
        let nothing = |_, _| panic!("no piece is there");
        let error = hash_pieces(
            &device,
            layout,
            &extents,
            &mut Signals::new().unwrap(),
            nothing,
        )
        .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("became shorter while it was read"),
            "{error}"
        );
    }

    #[test]
    fn whoever_asked_can_break_off() {
        let scratch = disk_with(&[1; 100_000]);
        let device = Device::open_source(scratch.path()).unwrap();
        let extents = ExtentMap::from_files([(DiskOffset(0), 100_000)]).unwrap();
        let layout = Layout::new(100_000, PIECE_BYTES).unwrap();
        let mut count = 0;
        let result = hash_pieces(
            &device,
            layout,
            &extents,
            &mut Signals::new().unwrap(),
            |_, _| {
                count += 1;
                if count == 3 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            },
        );
        assert!(result.is_ok());
        assert_eq!(count, 3);
    }

    #[test]
    fn chunks_are_whole_sectors() {
        let chunk = |disk, length| {
            let Chunk {
                disk,
                length,
                skip,
                end,
                ..
            } = first_chunk((0, DiskOffset(disk)), length, 512, BufferId(0), Ticket(0));
            (disk.0, length, skip, end)
        };
        assert_eq!(
            chunk(700, 1000),
            (512, 1536, 188, 1188),
            "the case at the top of the file"
        );
        assert_eq!(chunk(0, 512), (0, 512, 0, 512));
        assert_eq!(chunk(0, 1), (0, 512, 0, 1));
        assert_eq!(chunk(511, 5 << 20), (0, CHUNK_BYTES, 511, CHUNK_BYTES));
        assert_eq!(
            chunk(1 << 20, 5 << 20),
            (1 << 20, CHUNK_BYTES, 0, CHUNK_BYTES),
            "aligned from then on"
        );
    }
}
