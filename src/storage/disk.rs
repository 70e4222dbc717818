//! What becomes of one `Work` of the core, and when is it done?
//!
//! It is cut into runs of whole sectors and edges (`cut`), these become requests (`requests`), and
//! it is answered when nothing of it is in flight any more. The first error wins.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;

use swarm_proto::swarm::{DiskError, DiskOperation, Work};
use swarm_proto::units::{BufferId, DiskOffset, PieceIndex, Ticket};
use swarm_proto::vec_map::VecMap;

use super::cut::{Run, Transfer};
use super::edges::{Edge, Edges};
use super::packed::{PackedRead, PackedReads};
use super::places::Places;
use super::requests::{JobRun, Joining, Purpose, Requests};
use super::zeroing::Zeroing;
use crate::os::aio::Completion;
use crate::os::device::Device;
use crate::os::errno::{self, Call, Then};
use crate::os::pool::{Bounce, Pool};

/// One open target or source.
///
/// Calling order: `start` for each `Work`, then `submit`; when `event_fd` turns readable,
/// `advance`. After each of them `poll_done` as often as `done_count` says.
///
/// Invariant: a job is in `jobs` as long as `parts` of it are in flight, wait in `edges` or in
/// `packed_reads`, or are held by the job itself.
pub struct Storage {
    // Dropped first, and waits: what is in flight points into the pool and is done on the device.
    requests: Requests,
    device: Device,
    places: Places,
    zeroing: Zeroing,
    edges: Edges,
    packed_reads: PackedReads,
    jobs: VecMap<Ticket, Job>,
    done: VecDeque<(Ticket, Result<(), DiskError>)>,
}

/// One `Work` on its way.
struct Job {
    parts: u32,
    error: Option<DiskError>,
    /// Runs of a read that wait for its edges.
    held: Vec<Run>,
}

impl Storage {
    pub fn new(device: Device, places: Places, joining: Joining) -> io::Result<Storage> {
        Ok(Storage {
            requests: Requests::new(&device, &places, joining)?,
            zeroing: Zeroing::new(&device),
            edges: Edges::default(),
            packed_reads: PackedReads::default(),
            jobs: VecMap::new(),
            done: VecDeque::new(),
            device,
            places,
        })
    }

    /// Readable when `advance` has something to do.
    pub fn event_fd(&self) -> RawFd {
        self.requests.event_fd()
    }

    /// The kernel was short of memory for what waits, and nothing in flight will wake us: `submit`
    /// must try again.
    pub fn is_stuck(&self) -> bool {
        self.requests.is_stuck()
    }

    #[cfg(test)]
    fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    /// The device, once the kernel is done with what is in flight.
    pub fn into_device(self) -> Device {
        drop(self.requests);
        self.device
    }

    /// Begins with one `Work`; nothing reaches the kernel before `submit`.
    pub fn start(&mut self, pool: &Pool, work: Work) {
        match work {
            Work::Write {
                ticket,
                piece,
                buffers,
            } => self.write(pool, ticket, piece, &buffers),
            Work::Zero { ticket, piece } => {
                self.device.keep();
                if self.zeroing.zero(&self.device, &self.places, piece) {
                    return self.done.push_back((ticket, Ok(())));
                }
                let length = self.places.layout().piece_length(piece);
                let zeros = vec![pool.zeros(); length.div_ceil(pool.buffer_bytes()) as usize];
                self.write(pool, ticket, piece, &zeros);
            }
            Work::Read {
                ticket,
                piece,
                begin,
                length,
                buffer,
            } => self.transfer(
                pool,
                &Transfer {
                    ticket,
                    operation: DiskOperation::Read,
                    piece,
                    begin,
                    length,
                    buffers: &[buffer],
                },
            ),
            Work::Flush { ticket } => {
                self.jobs.insert(ticket, Job::new(1));
                self.requests.push_flush(ticket);
            }
        }
    }

    pub fn submit(&mut self) {
        self.requests.submit();
    }

    /// Takes what the kernel has finished and goes on with what had to wait for it.
    pub fn advance(&mut self, pool: &mut Pool) {
        for (purpose, completion) in self.requests.complete() {
            self.completed(pool, purpose, completion);
        }
        self.requests.submit();
    }

    /// How many answers `poll_done` has. No event tells of a `Work` that was done at once.
    pub fn done_count(&self) -> usize {
        self.done.len()
    }

    /// The next `Work` that is through.
    pub fn poll_done(&mut self) -> Option<(Ticket, Result<(), DiskError>)> {
        self.done.pop_front()
    }

    // --- from work to requests

    fn write(&mut self, pool: &Pool, ticket: Ticket, piece: PieceIndex, buffers: &[BufferId]) {
        self.device.keep();
        let transfer = Transfer {
            ticket,
            operation: DiskOperation::Write,
            piece,
            begin: 0,
            length: self.places.layout().piece_length(piece),
            buffers,
        };
        self.transfer(pool, &transfer);
    }

    fn transfer(&mut self, pool: &Pool, transfer: &Transfer) {
        let (ticket, operation) = (transfer.ticket, transfer.operation);
        if let Some(packed) = &self.device.packed {
            let parts = self.packed_reads.add(transfer, &self.places, packed);
            assert!(
                self.jobs.insert(ticket, Job::new(parts)).is_none(),
                "ticket used twice"
            );
            return self.begin_packed();
        }
        let (mut runs, edges) = transfer.cut(&self.places, pool, self.device.alignment);
        let mut job = Job::new((runs.len() + edges.len()) as u32);
        assert!(job.parts > 0);
        if operation == DiskOperation::Read && !edges.is_empty() {
            // An edge is copied into its buffer by us; meanwhile the kernel must not have it.
            job.held = std::mem::take(&mut runs);
        }
        assert!(self.jobs.insert(ticket, job).is_none(), "ticket used twice");
        self.push_runs(ticket, operation, runs);
        edges.into_iter().for_each(|edge| self.edges.add(edge));
        self.begin_edges(pool);
    }

    fn push_runs(&mut self, ticket: Ticket, operation: DiskOperation, runs: Vec<Run>) {
        for run in runs {
            self.requests.push_run(JobRun {
                ticket,
                operation,
                run,
            });
        }
    }

    // --- from completions to answers

    fn completed(&mut self, pool: &mut Pool, purpose: Purpose, completion: Completion) {
        let Completion { result, bounce, .. } = completion;
        match purpose {
            Purpose::Runs(runs) => self.runs_done(runs, result),
            Purpose::Flush(ticket) => {
                let result = self.flushed(result);
                self.part_done(ticket, result);
            }
            Purpose::EdgeRead(edge) => {
                let bounce = bounce.expect("it comes back");
                self.edge_read(pool, &edge, result, bounce);
            }
            Purpose::Packed(read) => {
                let bounce = bounce.expect("it comes back");
                self.packed_read(pool, &read, result, bounce);
            }
            Purpose::EdgeWrite(edge) => {
                let length = edge.sectors(self.device.alignment).1;
                let place = (edge.file, edge.disk);
                let result = self.whole(DiskOperation::Write, place, result, length);
                self.edge_through(&edge, result);
                self.begin_edges(pool);
            }
        }
    }

    fn runs_done(&mut self, mut runs: Vec<JobRun>, result: Result<u32, i32>) {
        if let [JobRun { operation, run, .. }] = &runs[..] {
            let result = self.whole(*operation, (run.file, run.disk), result, run.length);
            return self.part_done(runs[0].ticket, result);
        }
        let all_bytes = runs.iter().map(|run| run.run.length).sum();
        if result == Ok(all_bytes) {
            return runs
                .into_iter()
                .for_each(|run| self.part_done(run.ticket, Ok(())));
        }
        // Which of them failed is not known.
        runs.drain(..).for_each(|run| self.requests.push_alone(run));
    }

    /// A kernel that cannot flush through AIO makes the loop wait for the disk.
    fn flushed(&self, result: Result<u32, i32>) -> Result<(), DiskError> {
        let result = match result {
            Err(errno) if errno::decide(Call::Flush, errno) == Then::OtherWay => {
                self.device.flush().map_err(|error| error.raw_os_error())
            }
            Err(errno) => Err(Some(errno)),
            Ok(_) => Ok(()),
        };
        result.map_err(|errno| DiskError {
            operation: DiskOperation::Flush,
            offset: DiskOffset(0),
            errno: errno.unwrap_or(libc::EIO),
        })
    }

    /// Every byte or an error: a read that comes back short met the end of the file before the end
    /// of the image; a write that goes out short met the end of the device or of the file system's
    /// space.
    fn whole(
        &self,
        operation: DiskOperation,
        place: (u32, DiskOffset),
        result: Result<u32, i32>,
        length: u32,
    ) -> Result<(), DiskError> {
        match result {
            Ok(moved) if moved == length => Ok(()),
            Ok(_) => Err(self.short(operation, place)),
            Err(errno) => Err(self.error(operation, place, errno)),
        }
    }

    fn short(&self, operation: DiskOperation, place: (u32, DiskOffset)) -> DiskError {
        let errno = match operation {
            // Its length was right when it was opened.
            DiskOperation::Read if self.places.slices().is_some() => libc::ESTALE,
            DiskOperation::Read => libc::EIO,
            _ => libc::ENOSPC,
        };
        self.error(operation, place, errno)
    }

    /// `offset` counts from the beginning of the device or of the slice `file`.
    fn error(
        &self,
        operation: DiskOperation,
        (file, offset): (u32, DiskOffset),
        errno: i32,
    ) -> DiskError {
        DiskError {
            operation,
            offset: self.places.on_disk(file, offset),
            errno,
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

    // --- packed images

    /// Begins with every request that may be in flight.
    fn begin_packed(&mut self) {
        let Some(packed) = self.device.packed.clone() else {
            return;
        };
        while let Some(read) = self.packed_reads.next() {
            if self.job(read.ticket).error.is_some() {
                self.packed_reads.through();
                self.part_done(read.ticket, Ok(()));
                continue;
            }
            let sectors = read.sectors(&packed, self.device.alignment);
            self.requests.push_packed(read, sectors);
        }
    }

    /// The sectors with blocks have been read.
    fn packed_read(
        &mut self,
        pool: &mut Pool,
        read: &PackedRead,
        result: Result<u32, i32>,
        bounce: Bounce,
    ) {
        let alignment = self.device.alignment;
        let packed = self
            .device
            .packed
            .as_ref()
            .expect("only then is it asked for");
        let result = match result {
            Ok(count) => {
                let bytes = &bounce.bytes()[..count as usize];
                let decoded = read.decode(packed, alignment, bytes, pool);
                decoded.map_err(|place| (place, libc::EUCLEAN))
            }
            Err(errno) => Err((read.sectors(packed, alignment).0, errno)),
        };
        let result = result.map_err(|(offset, errno)| DiskError {
            operation: DiskOperation::Read,
            offset,
            errno,
        });
        self.requests.reuse(bounce);
        self.packed_reads.through();
        self.part_done(read.ticket, result);
        self.begin_packed();
    }

    // --- edges

    /// Begins with every edge that may be in flight.
    fn begin_edges(&mut self, pool: &Pool) {
        while let Some(edge) = self.edges.next() {
            if self.job(edge.ticket).error.is_some() {
                // Nothing more is tried for a job that has failed.
                self.edge_through(&edge, Ok(()));
                continue;
            }
            let (_, sector_bytes) = edge.sectors(self.device.alignment);
            if edge.operation == DiskOperation::Write && sector_bytes == edge.length {
                // All bytes of the sectors are ours, they only lie oddly in memory.
                let mut bounce = Bounce::new(sector_bytes, self.device.alignment);
                bounce.bytes_mut().copy_from_slice(edge.memory(pool));
                self.requests.push_edge_write(edge, bounce);
            } else {
                self.requests.push_edge_read(edge);
            }
        }
    }

    /// The sectors around an edge have been read.
    fn edge_read(
        &mut self,
        pool: &mut Pool,
        edge: &Edge,
        result: Result<u32, i32>,
        mut bounce: Bounce,
    ) {
        let ours = edge.in_sectors(self.device.alignment);
        let place = (edge.file, edge.disk);
        let result = match (edge.operation, result) {
            (_, Err(errno)) => Err(self.error(edge.operation, place, errno)),
            // The file ends before the image does.
            (DiskOperation::Read, Ok(read)) if (read as usize) < ours.end => {
                Err(self.short(edge.operation, place))
            }
            (DiskOperation::Read, Ok(_)) => {
                edge.memory_mut(pool).copy_from_slice(&bounce.bytes()[ours]);
                self.requests.reuse(bounce);
                Ok(())
            }
            (_, Ok(read)) => {
                // Behind the end of a regular file there are zeros, whatever the kernel left in
                // the buffer.
                bounce.bytes_mut()[read as usize..].fill(0);
                bounce.bytes_mut()[ours].copy_from_slice(edge.memory(pool));
                return self.requests.push_edge_write(*edge, bounce);
            }
        };
        self.edge_through(edge, result);
        self.begin_edges(pool);
    }

    /// An edge is no longer in flight. If it was the last one of a read, its runs may be read now.
    fn edge_through(&mut self, edge: &Edge, result: Result<(), DiskError>) {
        self.edges.through(edge);
        let job = self.job(edge.ticket);
        job.error = job.error.or(result.err());
        if job.parts as usize == job.held.len() + 1 {
            let held = std::mem::take(&mut job.held);
            if job.error.is_some() {
                job.parts -= held.len() as u32;
            } else {
                self.push_runs(edge.ticket, edge.operation, held);
            }
        }
        self.part_done(edge.ticket, result);
    }
}

impl Job {
    fn new(parts: u32) -> Job {
        Job {
            parts,
            error: None,
            held: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::device::TargetOptions;
    use crate::os::testing::Scratch;
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;
    use std::time::{Duration, Instant};
    use swarm_proto::format::metainfo::Metainfo;
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
            needed_bytes: None,
            table: None,
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
        Storage::new(device, Places::of(metainfo), Joining::Reads).unwrap()
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

    /// The stupid twin is a vector of bytes.
    #[expect(
        clippy::too_many_lines,
        reason = "one story, from the write to the read"
    )]
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
    fn a_device_holds_what_a_vector_of_bytes_would_hold() {
        for seed in 0..12 {
            write_and_read(seed, 512, 512);
            write_and_read(seed, 512, 1);
            write_and_read(seed, 4096, 512);
            write_and_read(seed, 4096, 1);
        }
    }

    /// Whole sectors that are contiguous on the device are one request, even if they lie in several
    /// buffers.
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
        assert_eq!(disk.requests.in_flight_count(), 1);
        let mut pool = pool;
        assert_eq!(wait(&mut disk, &mut pool, 1), [(Ticket(1), Ok(()))]);
    }

    /// Four pieces that follow one another on the device and one that does not.
    #[test]
    fn reads_that_follow_one_another_are_one_request() {
        let files = [(DiskOffset(1 << 20), 4 * 16384), (DiskOffset(0), 16384)];
        let metainfo = metainfo(&files, 16384);
        let scratch = Scratch::new("disk-joined");
        let mut disk = disk(scratch.path(), &metainfo, 512);
        let image: Vec<u8> = (0..5 * 16384u32).map(|at| (at / 512) as u8).collect();
        let file = scratch.open_buffered();
        file.write_all_at(&image[..4 * 16384], 1 << 20).unwrap();
        file.write_all_at(&image[4 * 16384..], 0).unwrap();
        let mut pool = Pool::new(16384, 5).unwrap();
        for piece in 0..5 {
            disk.start(&pool, read_piece(piece));
        }
        disk.submit();
        assert_eq!(disk.requests.in_flight_count(), 2);
        let done = wait(&mut disk, &mut pool, 5);
        assert!(done.iter().all(|(_, result)| result.is_ok()), "{done:?}");
        for (bytes, buffer) in image.chunks(16384).zip(0..) {
            assert!(pool.bytes(BufferId(buffer)) == bytes, "piece {buffer}");
        }
    }

    /// The file ends in the third of four pieces.
    #[test]
    fn reads_that_failed_together_are_tried_alone() {
        let metainfo = metainfo(&[(DiskOffset(0), 4 * 16384)], 16384);
        let scratch = Scratch::new("disk-alone");
        let mut disk = disk(scratch.path(), &metainfo, 512);
        scratch.open_buffered().set_len(2 * 16384 + 512).unwrap();
        let mut pool = Pool::new(16384, 4).unwrap();
        for piece in 0..4 {
            disk.start(&pool, read_piece(piece));
        }
        disk.submit();
        assert_eq!(disk.requests.in_flight_count(), 1);
        let mut done = wait(&mut disk, &mut pool, 4);
        done.sort_by_key(|(ticket, _)| *ticket);
        let error = |piece: u64| DiskError {
            operation: DiskOperation::Read,
            offset: DiskOffset(piece * 16384),
            errno: libc::EIO,
        };
        let results: Vec<_> = done.into_iter().map(|(_, result)| result).collect();
        assert_eq!(results, [Ok(()), Ok(()), Err(error(2)), Err(error(3))]);
        assert!(disk.is_idle());
    }

    fn read_piece(piece: u32) -> Work {
        Work::Read {
            ticket: Ticket(piece.into()),
            piece: PieceIndex(piece),
            begin: 0,
            length: 16384,
            buffer: BufferId(piece),
        }
    }

    #[test]
    fn a_read_behind_the_end_of_the_file_is_an_error_with_its_place() {
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
