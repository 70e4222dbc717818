//! How do pieces get to one disk and back: which requests does one `Work` of the core become, and
//! when is it done?
//!
//! A run of bytes of a piece is cut by `extents::split` into whole sectors, which move directly
//! between the pool buffers and the disk, and edges: sectors of which only a part is ours.
//!
//! ```text
//! piece       |--------------------------------|
//! sectors  |....|....|....|....|....|....|....|....|
//!            edge ^^^^^^ one direct request ^^^^ edge
//! ```
//!
//! An edge that is written is read, changed and written back, and edges go strictly one after the
//! other: two pieces may share a sector, and if both were changed at the same time the later write
//! would bring back the old bytes of the earlier. Direct requests never touch such a sector, since
//! they consist of sectors that belong to one piece alone.
//!
//! A `Work` is answered when nothing of it is in flight any more; the first error wins.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::os::fd::RawFd;
use std::sync::Arc;

use swarm_proto::format::extents::{self, Part};
use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::swarm::{DiskError, DiskOperation, Work};
use swarm_proto::units::{BufferId, DiskOffset, PieceIndex, Ticket};

use crate::os::aio::{Aio, Completion, Memory, Operation, Request};
use crate::os::device::Device;
use crate::os::errno::{self, Call, Then};
use crate::os::pool::{Bounce, Pool, Segment};
use crate::os::zero;

/// Requests in the kernel at once. One piece of a fragmented image has hundreds of extents; disks
/// order a queue of this length well, and NVMe reaches its full rate with less.
const QUEUE_DEPTH: u32 = 64;

/// Longest run of sectors that goes through one bounce buffer. Only a disk with larger sectors than
/// the image was made for has edges longer than a sector.
const BOUNCE_BYTES_MAX: u32 = 128 * 1024;

/// Segments of one request: UIO_MAXIOV.
const SEGMENT_COUNT_MAX: usize = 1024;

/// One open target or source.
///
/// Calling order: `start` for each `Work`, then `submit`; when `event_fd` turns readable,
/// `advance`. After each of them `poll_done` as often as `done_count` says.
///
/// Invariants: a job is in `jobs` as long as `parts` of it are in flight or wait in `edges`; every
/// request in flight is in `requests`; `edge_in_flight` belongs to the first of `edges`.
pub struct Storage {
    // Dropped first, and waits: what is in flight points into the pool and is done on the device.
    aio: Aio,
    device: Device,
    metainfo: Arc<Metainfo>,
    alignment: u32,
    /// Zeros need not be written: the disk makes them.
    quick_zeros: bool,
    jobs: BTreeMap<Ticket, Job>,
    requests: BTreeMap<Ticket, Purpose>,
    next_request: u64,
    edges: VecDeque<Edge>,
    edge_in_flight: bool,
    done: VecDeque<(Ticket, Result<(), DiskError>)>,
    /// The allocation of the last `Aio::complete`.
    completions: Vec<Completion>,
}

/// One `Work` on its way.
struct Job {
    operation: DiskOperation,
    parts: u32,
    error: Option<DiskError>,
    /// Direct runs of a read that wait for its edges.
    held: Vec<Run>,
}

/// What a request is for.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    Direct {
        ticket: Ticket,
        disk: DiskOffset,
        length: u32,
    },
    EdgeRead,
    EdgeWrite,
    Flush {
        ticket: Ticket,
    },
}

/// Whole sectors, contiguous on the disk.
struct Run {
    disk: DiskOffset,
    length: u32,
    segments: Vec<Segment>,
}

/// Bytes that do not fill their sectors.
struct Edge {
    ticket: Ticket,
    operation: DiskOperation,
    disk: DiskOffset,
    length: u32,
    buffer: BufferId,
    memory_offset: u32,
}

impl Storage {
    pub fn new(device: Device, metainfo: Arc<Metainfo>) -> io::Result<Storage> {
        let alignment = device.alignment;
        assert!(alignment.is_power_of_two());
        let quick_zeros = !device.read_only && zero::is_quick(&device);
        Ok(Storage {
            aio: Aio::new(QUEUE_DEPTH)?,
            device,
            metainfo,
            alignment,
            quick_zeros,
            jobs: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            edges: VecDeque::new(),
            edge_in_flight: false,
            done: VecDeque::new(),
            completions: Vec::new(),
        })
    }

    /// Readable when `advance` has something to do.
    pub fn event_fd(&self) -> RawFd {
        self.aio.event_fd()
    }

    /// The kernel was short of memory for what waits, and nothing in flight will wake us: `submit`
    /// must try again.
    pub fn is_stuck(&self) -> bool {
        self.aio.is_stuck()
    }

    #[cfg(test)]
    fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// The device, once the kernel is done with what is in flight.
    pub fn into_device(self) -> Device {
        drop(self.aio);
        self.device
    }

    /// Begins with one of the disk's kinds of `Work`; nothing reaches the kernel before `submit`.
    pub fn start(&mut self, pool: &Pool, work: Work) {
        match work {
            Work::Write {
                ticket,
                piece,
                buffers,
            } => {
                self.device.keep();
                let length = self.metainfo.layout.piece_length(piece);
                self.transfer(
                    pool,
                    ticket,
                    DiskOperation::Write,
                    (piece, 0, length),
                    &buffers,
                );
            }
            Work::Zero { ticket, piece } => {
                self.device.keep();
                let length = self.metainfo.layout.piece_length(piece);
                if self.zero(piece, length) {
                    return self.done.push_back((ticket, Ok(())));
                }
                let zeros = vec![pool.zeros(); length.div_ceil(pool.buffer_bytes()) as usize];
                self.transfer(
                    pool,
                    ticket,
                    DiskOperation::Write,
                    (piece, 0, length),
                    &zeros,
                );
            }
            Work::Read {
                ticket,
                piece,
                begin,
                length,
                buffer,
            } => {
                self.transfer(
                    pool,
                    ticket,
                    DiskOperation::Read,
                    (piece, begin, length),
                    &[buffer],
                );
            }
            Work::Flush { ticket } => {
                self.jobs.insert(ticket, Job::new(DiskOperation::Flush, 1));
                self.push(
                    Operation::Flush,
                    DiskOffset(0),
                    Memory::None,
                    Purpose::Flush { ticket },
                );
            }
        }
    }

    pub fn submit(&mut self) {
        self.aio.submit();
    }

    /// Takes what the kernel has finished and goes on with what had to wait for it.
    pub fn advance(&mut self, pool: &mut Pool) {
        let mut completions = std::mem::take(&mut self.completions);
        self.aio.complete(&mut completions);
        for completion in completions.drain(..) {
            self.completed(pool, completion);
        }
        self.completions = completions;
        self.aio.submit();
    }

    /// How often `poll_done` has something to say. Of what was done at once no event will tell.
    pub fn done_count(&self) -> usize {
        self.done.len()
    }

    /// The next `Work` that is through.
    pub fn poll_done(&mut self) -> Option<(Ticket, Result<(), DiskError>)> {
        self.done.pop_front()
    }

    /// Lets the disk make a piece zeros; false if that has to be done by writing.
    fn zero(&mut self, piece: PieceIndex, length: u32) -> bool {
        let Storage {
            device,
            metainfo,
            alignment,
            quick_zeros,
            ..
        } = self;
        let start = metainfo.layout.piece_start(piece);
        let mut ranges = metainfo.extents.ranges(start, length.into()).map(|extent| {
            let from = extent.disk.0;
            from..from + extent.length
        });
        let aligned =
            |range: &Range<u64>| (range.start | range.end).is_multiple_of(u64::from(*alignment));
        *quick_zeros
            && ranges.all(|range| {
                let error = if aligned(&range) {
                    zero::zero(device, range).err()
                } else {
                    return false;
                };
                let errno = error.map(|error| error.raw_os_error().unwrap_or(libc::EIO));
                // A disk that cannot is not asked for each piece anew.
                *quick_zeros =
                    errno.is_none_or(|errno| errno::decide(Call::Zero, errno) != Then::OtherWay);
                *quick_zeros
            })
    }

    // --- from work to requests

    /// Cuts bytes of a piece, of which buffers[i] holds the i-th `Pool::buffer_bytes`, into runs
    /// and edges.
    fn transfer(
        &mut self,
        pool: &Pool,
        ticket: Ticket,
        operation: DiskOperation,
        (piece, begin, length): (PieceIndex, u32, u32),
        buffers: &[BufferId],
    ) {
        let buffer_bytes = u64::from(pool.buffer_bytes());
        assert!(u64::from(length) <= buffers.len() as u64 * buffer_bytes);
        let start = self.metainfo.layout.piece_start(piece) + u64::from(begin);
        let mut runs: Vec<Run> = Vec::new();
        let edges_before = self.edges.len();
        // The last piece may need fewer buffers than the others.
        let used = u64::from(length).div_ceil(buffer_bytes) as usize;
        for (index, &buffer) in buffers.iter().take(used).enumerate() {
            let from = index as u64 * buffer_bytes;
            let count = (u64::from(length) - from).min(buffer_bytes);
            for extent in self.metainfo.extents.ranges(start + from, count) {
                let memory_offset = (extent.torrent_offset - start - from) as u32;
                for part in extents::split(
                    extent.disk,
                    memory_offset,
                    extent.length as u32,
                    self.alignment,
                ) {
                    if part.aligned {
                        append(
                            &mut runs,
                            &part,
                            pool.segment(buffer, part.memory_offset, part.length),
                        );
                    } else {
                        self.edges
                            .extend(edges(&part, ticket, operation, buffer, self.alignment));
                    }
                }
            }
        }
        let edge_count = self.edges.len() - edges_before;
        let mut job = Job::new(operation, (runs.len() + edge_count) as u32);
        assert!(job.parts > 0);
        if operation == DiskOperation::Read && edge_count > 0 {
            // An edge is copied into its buffer by us; meanwhile the kernel must not have it.
            job.held = std::mem::take(&mut runs);
        }
        assert!(self.jobs.insert(ticket, job).is_none(), "ticket used twice");
        runs.into_iter()
            .for_each(|run| self.push_run(ticket, operation, run));
        self.next_edge(pool);
    }

    fn push_run(&mut self, ticket: Ticket, operation: DiskOperation, run: Run) {
        let Run {
            disk,
            length,
            segments,
        } = run;
        let operation = aio_operation(operation);
        self.push(
            operation,
            disk,
            Memory::Pool(segments),
            Purpose::Direct {
                ticket,
                disk,
                length,
            },
        );
    }

    fn push(
        &mut self,
        operation: Operation,
        disk_offset: DiskOffset,
        memory: Memory,
        purpose: Purpose,
    ) {
        let ticket = Ticket(self.next_request);
        self.next_request += 1;
        let (fd, alignment) = (self.device.fd(), self.alignment);
        self.requests.insert(ticket, purpose);
        self.aio.push(Request {
            ticket,
            fd,
            operation,
            disk_offset,
            alignment,
            memory,
        });
    }

    // --- from completions to answers

    fn completed(&mut self, pool: &mut Pool, completion: Completion) {
        let purpose = self
            .requests
            .remove(&completion.ticket)
            .expect("a request of ours");
        match purpose {
            Purpose::Direct {
                ticket,
                disk,
                length,
            } => {
                let operation = self.job(ticket).operation;
                self.part_done(ticket, whole(operation, disk, completion.result, length));
            }
            Purpose::Flush { ticket } => {
                let result = match completion.result {
                    // The loop has to wait for the disk.
                    Err(errno) if errno::decide(Call::Flush, errno) == Then::OtherWay => {
                        self.device.flush().map_err(|error| error.raw_os_error())
                    }
                    Err(errno) => Err(Some(errno)),
                    Ok(_) => Ok(()),
                };
                let error = |errno: Option<i32>| DiskError {
                    operation: DiskOperation::Flush,
                    offset: DiskOffset(0),
                    errno: errno.unwrap_or(libc::EIO),
                };
                self.part_done(ticket, result.map_err(error));
            }
            Purpose::EdgeRead => {
                let bounce = completion.bounce.expect("it comes back");
                self.edge_read(pool, completion.result, bounce);
            }
            Purpose::EdgeWrite => {
                let edge = self.edges.front().expect("the edge in flight is the first");
                let length = edge.sectors(self.alignment).1;
                let result = whole(DiskOperation::Write, edge.disk, completion.result, length);
                self.edge_done(pool, result);
            }
        }
    }

    fn job(&mut self, ticket: Ticket) -> &mut Job {
        self.jobs
            .get_mut(&ticket)
            .expect("a job lives until its last part is done")
    }

    fn part_done(&mut self, ticket: Ticket, result: Result<(), DiskError>) {
        let job = self.job(ticket);
        job.error = job.error.or(result.err());
        job.parts -= 1;
        if job.parts == 0 {
            let result = job.error.map_or(Ok(()), Err);
            self.jobs.remove(&ticket);
            self.done.push_back((ticket, result));
        }
    }

    // --- edges, one at a time

    /// Begins with the first edge that waits, if none is in flight.
    fn next_edge(&mut self, pool: &Pool) {
        while !self.edge_in_flight
            && let Some(edge) = self.edges.front()
        {
            let (ticket, operation) = (edge.ticket, edge.operation);
            if self.job(ticket).error.is_some() {
                // The job has failed already: nothing more is tried for it.
                self.edges.pop_front();
                self.edge_through(ticket, Ok(()));
                continue;
            }
            let edge = self.edges.front().expect("seen above");
            let (disk, length) = edge.sectors(self.alignment);
            let mut bounce = Bounce::new(length, self.alignment);
            self.edge_in_flight = true;
            if operation == DiskOperation::Write && length == edge.length {
                bounce.bytes_mut().copy_from_slice(edge.memory(pool));
                self.push(
                    Operation::Write,
                    disk,
                    Memory::Bounce(bounce),
                    Purpose::EdgeWrite,
                );
            } else {
                self.push(
                    Operation::Read,
                    disk,
                    Memory::Bounce(bounce),
                    Purpose::EdgeRead,
                );
            }
        }
    }

    /// The sectors of the first edge have been read.
    fn edge_read(&mut self, pool: &mut Pool, result: Result<u32, i32>, mut bounce: Bounce) {
        let edge = self.edges.front().expect("the edge in flight is the first");
        let (disk, _) = edge.sectors(self.alignment);
        let lead = (edge.disk - disk) as usize;
        let ours = lead..lead + edge.length as usize;
        match (edge.operation, result) {
            (operation, Err(errno)) => {
                let error = DiskError {
                    operation,
                    offset: edge.disk,
                    errno,
                };
                self.edge_done(pool, Err(error));
            }
            (DiskOperation::Read, Ok(read)) if (read as usize) < ours.end => {
                // The file ends before the image does.
                let error = DiskError {
                    operation: DiskOperation::Read,
                    offset: edge.disk,
                    errno: libc::EIO,
                };
                self.edge_done(pool, Err(error));
            }
            (DiskOperation::Read, Ok(_)) => {
                let start = edge.memory_offset as usize;
                pool.bytes_mut(edge.buffer)[start..start + ours.len()]
                    .copy_from_slice(&bounce.bytes()[ours]);
                self.edge_done(pool, Ok(()));
            }
            (_, Ok(read)) => {
                // What lies behind the end of a regular file is zero, whatever the kernel left in
                // the buffer.
                bounce.bytes_mut()[read as usize..].fill(0);
                bounce.bytes_mut()[ours].copy_from_slice(edge.memory(pool));
                self.push(
                    Operation::Write,
                    disk,
                    Memory::Bounce(bounce),
                    Purpose::EdgeWrite,
                );
            }
        }
    }

    fn edge_done(&mut self, pool: &Pool, result: Result<(), DiskError>) {
        assert!(self.edge_in_flight);
        self.edge_in_flight = false;
        let ticket = self
            .edges
            .pop_front()
            .expect("the edge in flight is the first")
            .ticket;
        self.edge_through(ticket, result);
        self.next_edge(pool);
    }

    /// The first edge has left the queue. If it was the last one of a read, the whole sectors may
    /// be read now.
    fn edge_through(&mut self, ticket: Ticket, result: Result<(), DiskError>) {
        let job = self.job(ticket);
        job.error = job.error.or(result.err());
        if job.parts as usize == job.held.len() + 1 {
            let held = std::mem::take(&mut job.held);
            if job.error.is_some() {
                job.parts -= held.len() as u32;
            } else {
                held.into_iter()
                    .for_each(|run| self.push_run(ticket, DiskOperation::Read, run));
            }
        }
        self.part_done(ticket, result);
    }
}

impl Job {
    fn new(operation: DiskOperation, parts: u32) -> Job {
        Job {
            operation,
            parts,
            error: None,
            held: Vec::new(),
        }
    }
}

impl Edge {
    /// Offset and length of the sectors around the edge.
    fn sectors(&self, alignment: u32) -> (DiskOffset, u32) {
        let sector = u64::from(alignment);
        let start = self.disk.0 / sector * sector;
        let end = (self.disk.0 + u64::from(self.length)).next_multiple_of(sector);
        (DiskOffset(start), (end - start) as u32)
    }

    fn memory<'a>(&self, pool: &'a Pool) -> &'a [u8] {
        &pool.bytes(self.buffer)[self.memory_offset as usize..][..self.length as usize]
    }
}

/// Adds sectors to the last run if they follow it on the disk; where they lie in memory does not
/// matter.
fn append(runs: &mut Vec<Run>, part: &Part, segment: Segment) {
    match runs.last_mut() {
        Some(run)
            if run.disk + u64::from(run.length) == part.disk
                && run.segments.len() < SEGMENT_COUNT_MAX =>
        {
            run.segments.push(segment);
            run.length += part.length;
        }
        _ => runs.push(Run {
            disk: part.disk,
            length: part.length,
            segments: vec![segment],
        }),
    }
}

/// An unaligned part as edges of which none needs more than a bounce buffer; cut at sector
/// boundaries, so that no sector is read and written twice.
fn edges(
    part: &Part,
    ticket: Ticket,
    operation: DiskOperation,
    buffer: BufferId,
    alignment: u32,
) -> impl Iterator<Item = Edge> + use<> {
    let Part {
        disk,
        length,
        memory_offset,
        ..
    } = *part;
    let mut done = 0;
    std::iter::from_fn(move || {
        let from = disk + u64::from(done);
        let boundary = (from.0 + 1).next_multiple_of(u64::from(alignment.max(BOUNCE_BYTES_MAX)));
        let edge_length = (boundary - from.0).min(u64::from(length - done)) as u32;
        let memory_offset = memory_offset + done;
        done += edge_length;
        let edge = Edge {
            ticket,
            operation,
            disk: from,
            length: edge_length,
            buffer,
            memory_offset,
        };
        (edge_length > 0).then_some(edge)
    })
}

fn aio_operation(operation: DiskOperation) -> Operation {
    match operation {
        DiskOperation::Read => Operation::Read,
        DiskOperation::Write => Operation::Write,
        DiskOperation::Flush => Operation::Flush,
    }
}

/// Every byte or an error: a read that comes back short met the end of the file before the end of
/// the image; a write that goes out short met the end of the device or of the file system's space.
fn whole(
    operation: DiskOperation,
    offset: DiskOffset,
    result: Result<u32, i32>,
    length: u32,
) -> Result<(), DiskError> {
    let short = if operation == DiskOperation::Read {
        libc::EIO
    } else {
        libc::ENOSPC
    };
    match result {
        Ok(moved) if moved == length => Ok(()),
        Ok(_) => Err(DiskError {
            operation,
            offset,
            errno: short,
        }),
        Err(errno) => Err(DiskError {
            operation,
            offset,
            errno,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::device::TargetOptions;
    use crate::os::testing::Scratch;
    use std::time::{Duration, Instant};
    use swarm_proto::format::metainfo_write::{self, Content, Description};
    use swarm_proto::rng::Rng;
    use swarm_proto::units::PieceHash;

    const BUFFER_BYTES: u32 = 8192;

    fn metainfo(files: &[(DiskOffset, u64)], piece_bytes: u32) -> Arc<Metainfo> {
        let total: u64 = files.iter().map(|file| file.1).sum();
        let hashes = vec![PieceHash([0; 20]); total.div_ceil(piece_bytes.into()) as usize];
        let torrent = metainfo_write::write(&Description {
            name: "test",
            trackers: &[],
            webseeds: &[],
            created_by: "test",
            private: false,
            piece_bytes,
            hashes: &hashes,
            content: Content::Fsbt { files },
            disk_bytes: None,
            sector_bytes: None,
        });
        Arc::new(Metainfo::parse(&torrent).unwrap())
    }

    fn disk(path: &std::path::Path, metainfo: &Arc<Metainfo>, alignment: u32) -> Storage {
        let needed = metainfo.extents.disk_end().0;
        let mut device = Device::open_target(path, needed, TargetOptions::default()).unwrap();
        assert!(
            device.alignment <= alignment,
            "this file system needs {}",
            device.alignment
        );
        device.alignment = alignment;
        Storage::new(device, metainfo.clone()).unwrap()
    }

    /// Runs until `count` works are through; at most ten seconds.
    fn wait(
        disk: &mut Storage,
        pool: &mut Pool,
        count: usize,
    ) -> Vec<(Ticket, Result<(), DiskError>)> {
        let start = Instant::now();
        let mut done = Vec::new();
        disk.submit();
        while done.len() < count {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "{} of {count}",
                done.len()
            );
            disk.advance(pool);
            done.extend(std::iter::from_fn(|| disk.poll_done()));
            std::thread::yield_now();
        }
        done
    }

    /// Files of odd lengths at odd places, in any order. `unit` 1: any byte; 512: sectors.
    fn random_files(rng: &mut Rng, unit: u64) -> Vec<(DiskOffset, u64)> {
        let mut files = Vec::new();
        let mut disk = 0;
        for _ in 0..1 + rng.below(12) {
            disk += unit * u64::from(rng.below(3) * rng.below(20));
            let length = unit * u64::from(1 + rng.below(if unit == 1 { 30_000 } else { 60 }));
            files.push((DiskOffset(disk), length));
            disk += length;
        }
        rng.shuffle(&mut files);
        files
    }

    fn random_bytes(rng: &mut Rng, count: usize) -> Vec<u8> {
        (0..count).map(|_| rng.below(256) as u8).collect()
    }

    /// The twin is a vector of bytes.
    fn write_and_read(seed: u64, alignment: u32, unit: u64) {
        let mut rng = Rng::new(seed);
        let files = random_files(&mut rng, unit);
        let metainfo = metainfo(&files, 16384 << rng.below(2));
        let scratch = Scratch::new("disk-twin");
        let longer = rng.below(5000) as usize;
        let mut model = random_bytes(&mut rng, metainfo.extents.disk_end().0 as usize + longer);
        std::fs::write(scratch.path(), &model).unwrap();

        let image = random_bytes(&mut rng, metainfo.layout.total_bytes() as usize);
        for extent in metainfo.extents.extents() {
            let (from, to) = (extent.torrent_offset as usize, extent.disk.0 as usize);
            let length = extent.length as usize;
            model[to..to + length].copy_from_slice(&image[from..from + length]);
        }

        let mut disk = disk(scratch.path(), &metainfo, alignment);
        let per_piece = metainfo.layout.piece_bytes() / BUFFER_BYTES;
        let mut pool = Pool::new(BUFFER_BYTES, per_piece * metainfo.layout.piece_count()).unwrap();
        let mut pieces: Vec<PieceIndex> = metainfo.layout.pieces().collect();
        rng.shuffle(&mut pieces);
        for &piece in &pieces {
            let start = metainfo.layout.piece_start(piece) as usize;
            let length = metainfo.layout.piece_length(piece) as usize;
            let bytes = &image[start..start + length];
            let buffers: Vec<BufferId> = (0..per_piece)
                .map(|n| BufferId(piece.0 * per_piece + n))
                .collect();
            for (buffer, bytes) in buffers.iter().zip(bytes.chunks(BUFFER_BYTES as usize)) {
                pool.bytes_mut(*buffer)[..bytes.len()].copy_from_slice(bytes);
            }
            disk.start(
                &pool,
                Work::Write {
                    ticket: Ticket(piece.0.into()),
                    piece,
                    buffers,
                },
            );
        }
        let done = wait(&mut disk, &mut pool, pieces.len());
        assert!(
            done.iter().all(|(_, result)| result.is_ok()),
            "seed {seed}: {done:?}"
        );
        disk.start(&pool, Work::Flush { ticket: Ticket(0) });
        assert_eq!(wait(&mut disk, &mut pool, 1), [(Ticket(0), Ok(()))]);
        assert!(disk.is_idle());

        let file = std::fs::read(scratch.path()).unwrap();
        assert!(
            file[..model.len()] == model,
            "seed {seed}: the file differs"
        );
        assert!(file[model.len()..].iter().all(|&byte| byte == 0));
        assert!(file.len() < model.len() + alignment as usize);

        for _ in 0..20 {
            let piece = PieceIndex(rng.below(metainfo.layout.piece_count()));
            let piece_length = metainfo.layout.piece_length(piece);
            let begin = rng.below(piece_length.div_ceil(512)) * 512;
            let length = 1 + rng.below((piece_length - begin).min(BUFFER_BYTES));
            let buffer = BufferId(rng.below(pool.count()));
            disk.start(
                &pool,
                Work::Read {
                    ticket: Ticket(7),
                    piece,
                    begin,
                    length,
                    buffer,
                },
            );
            assert_eq!(
                wait(&mut disk, &mut pool, 1),
                [(Ticket(7), Ok(()))],
                "seed {seed}"
            );
            let start = metainfo.layout.piece_start(piece) as usize + begin as usize;
            let bytes = &pool.bytes(buffer)[..length as usize];
            assert!(
                bytes == &image[start..start + length as usize],
                "seed {seed}"
            );
        }
    }

    #[test]
    fn a_disk_is_what_a_vector_of_bytes_would_be() {
        for seed in 0..12 {
            write_and_read(seed, 512, 512);
            write_and_read(seed, 512, 1);
            write_and_read(seed, 4096, 512);
            write_and_read(seed, 4096, 1);
        }
    }

    /// Whole sectors cost one request for each run on the disk, whatever buffers they lie in.
    #[test]
    fn one_request_for_each_run() {
        let files = [(DiskOffset(1 << 20), 32768), (DiskOffset(0), 16384)];
        let metainfo = metainfo(&files, 32768);
        let scratch = Scratch::new("disk-runs");
        let mut disk = disk(scratch.path(), &metainfo, 512);
        let pool = Pool::new(BUFFER_BYTES, 4).unwrap();
        let buffers: Vec<BufferId> = (0..4).map(BufferId).collect();
        disk.start(
            &pool,
            Work::Write {
                ticket: Ticket(1),
                piece: PieceIndex(0),
                buffers,
            },
        );
        assert_eq!(disk.requests.len(), 1);
        let mut pool = pool;
        assert_eq!(wait(&mut disk, &mut pool, 1), [(Ticket(1), Ok(()))]);
    }

    #[test]
    fn what_the_file_lacks_is_an_error_with_its_place() {
        let metainfo = metainfo(&[(DiskOffset(512), 20_000)], 16384);
        let scratch = Scratch::new("disk-short");
        let mut disk = disk(scratch.path(), &metainfo, 512);
        let mut pool = Pool::new(BUFFER_BYTES, 1).unwrap();
        let read = |begin, length| Work::Read {
            ticket: Ticket(1),
            piece: PieceIndex(1),
            begin,
            length,
            buffer: BufferId(0),
        };
        let error = |offset| DiskError {
            operation: DiskOperation::Read,
            offset: DiskOffset(offset),
            errno: libc::EIO,
        };
        // The image ends at 20,512. Its last sector begins at 20,480; there the file may end early,
        // but not before 20,512.
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(scratch.path())
            .unwrap();
        for (file_bytes, begin, length, expected) in [
            (20_512, 0, 3616, Ok(())),
            (20_511, 0, 3616, Err(error(20_480))),
            (20_480, 0, 3616, Err(error(20_480))),
            (18_000, 0, 3584, Err(error(16_896))),
            (18_000, 0, 512, Ok(())),
        ] {
            file.set_len(file_bytes).unwrap();
            disk.start(&pool, read(begin, length));
            assert_eq!(
                wait(&mut disk, &mut pool, 1),
                [(Ticket(1), expected)],
                "{file_bytes} bytes"
            );
            assert!(disk.is_idle());
        }
    }
}
