//! How do bytes get to a device and back without stopping the event loop?
//!
//! Through Linux native AIO: `io_submit` hands a batch of operations to the kernel, and the kernel
//! adds each finished one to the counter of an eventfd, which mio polls like a socket. There is no
//! thread and no blocking read or write, as long as the file was opened with O_DIRECT. On a
//! buffered file `io_submit` itself does the work and blocks.
//!
//! Read first: io_submit(2), include/uapi/linux/aio_abi.h, fs/aio.c. Neither glibc nor musl wraps
//! these calls.
//!
//! One contract: **every request that is pushed comes back as exactly one `Completion`**. A request
//! that the kernel refuses at submission comes back with that errno, in the same way as all others.
//!
//! ```text
//! push ─▶ waiting ──io_submit──▶ slots (the kernel's) ──io_getevents──▶ Completion
//!            └───────refused──▶ refused ─────────────────────────────────────▲
//! ```

use super::check;
use super::pool::{Bounce, Segment};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use swarm_proto::units::{DiskOffset, Ticket};

use super::errno::{self, Call, Then};

/// Most segments of one request: UIO_MAXIOV of the kernel. A piece of 16 MiB in buffers of 256 KiB
/// has 64.
pub const SEGMENT_COUNT_MAX: usize = 1024;

/// Longest request. The kernel moves at most a page less than 2 GiB at once (MAX_RW_COUNT).
const REQUEST_BYTES_MAX: usize = 1 << 30;

/// A queue of operations on devices, at most `depth` of them in the kernel at once.
///
/// Calling order: `push` any number, then `submit`; when `event_fd` turns readable, `complete`.
/// Call `submit` once per turn of the loop as well: after an EAGAIN (the kernel is short of memory)
/// it tries again.
///
/// Drop waits for the requests in flight. The `Pool` whose segments were pushed must outlive the
/// `Aio`.
pub struct Aio {
    context: libc::c_ulong,
    event: OwnedFd,
    /// Pushed, not yet taken by the kernel. Bounded by the buffers: each operation has one, except
    /// a flush.
    waiting: VecDeque<Request>,
    /// The requests that the kernel has, by the number that comes back in `Event::data`.
    slots: Vec<Option<Request>>,
    free_slots: Vec<u32>,
    /// Refused at submission, waiting for `complete`.
    refused: Vec<Completion>,
    /// By ticket: whether a request with it is waiting or in the kernel.
    in_use: Vec<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Read,
    Write,
    /// Puts on stable storage everything whose write has completed (fdatasync). Kernels before 4.18
    /// cannot do this through AIO and answer EINVAL; the caller falls back to `Device::flush`.
    Flush,
}

/// The memory of a request.
#[derive(Debug)]
pub enum Memory {
    /// `Flush` moves no bytes.
    None,
    /// Parts of pool buffers. The core does not give them to anyone else before the completion.
    Pool(Vec<Segment>),
    /// Moves into the request and comes back with the completion.
    Bounce(Bounce),
}

/// One operation on one open file.
#[derive(Debug)]
pub struct Request {
    /// Unique among all requests that have not completed, and low: a table has an entry for each
    /// number up to the highest.
    pub ticket: Ticket,
    /// Stays open until the completion.
    pub fd: RawFd,
    pub operation: Operation,
    pub disk_offset: DiskOffset,
    /// Address, length and offset are multiples of this: `Device::alignment`.
    pub alignment: u32,
    pub memory: Memory,
}

/// The end of a request.
#[derive(Debug)]
pub struct Completion {
    pub ticket: Ticket,
    /// Bytes moved, which may be fewer than the request has (end of the file, disk full), or errno.
    pub result: Result<u32, i32>,
    /// The `Bounce` of the request, if it had one.
    pub bounce: Option<Bounce>,
}

// Invariant: a slot is `Some` exactly if the kernel has its request; `free_slots` lists the other
// slots.
impl Aio {
    pub fn new(depth: u32) -> io::Result<Aio> {
        assert!(depth > 0);
        // SAFETY: plain call; the new descriptor is ours alone.
        let event = unsafe {
            OwnedFd::from_raw_fd(check(libc::eventfd(
                0,
                libc::EFD_NONBLOCK | libc::EFD_CLOEXEC,
            ))?)
        };
        let mut context: libc::c_ulong = 0;
        // SAFETY: the kernel writes the context id to `context`, which must be 0 before.
        let result = unsafe { libc::syscall(libc::SYS_io_setup, depth, &raw mut context) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Aio {
            context,
            event,
            waiting: VecDeque::new(),
            slots: (0..depth).map(|_| None).collect(),
            free_slots: (0..depth).rev().collect(),
            refused: Vec::new(),
            in_use: Vec::new(),
        })
    }

    /// Readable when `complete` has something to return. For `mio::unix::SourceFd`.
    pub fn event_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// Requests pushed and not yet completed.
    #[cfg(test)]
    pub fn pending_count(&self) -> usize {
        self.waiting.len() + self.in_flight_count() + self.refused.len()
    }

    /// A request waits for `submit`, and none is in flight whose completion would lead to that
    /// call.
    pub fn is_stuck(&self) -> bool {
        !self.waiting.is_empty() && self.in_flight_count() == 0
    }

    /// Queues a request; nothing happens before `submit`.
    pub fn push(&mut self, request: Request) {
        request.assert_valid();
        let ticket = request.ticket.0 as usize;
        if self.in_use.len() <= ticket {
            self.in_use.resize(ticket + 1, false);
        }
        let was_in_use = std::mem::replace(&mut self.in_use[ticket], true);
        assert!(!was_in_use, "ticket used twice");
        self.waiting.push_back(request);
    }

    /// Hands the kernel as many waiting requests as there are free slots.
    pub fn submit(&mut self) {
        loop {
            let batch_count = self.waiting.len().min(self.free_slots.len());
            if batch_count == 0 {
                return;
            }
            match self.submit_batch(batch_count) {
                // If the kernel took fewer, the next call returns the errno of the first that is
                // left.
                Ok(taken_count) => self.give_to_kernel(taken_count),
                // No memory at the moment, or too many finished operations wait for `reap`: the
                // requests stay queued.
                Err(errno) if errno::decide(Call::Submit, errno) == Then::Again => return,
                Err(errno) => self.refuse_first(errno),
            }
        }
    }

    /// Appends all completions, and submits requests that wait. Never blocks.
    pub fn complete(&mut self, out: &mut Vec<Completion>) {
        // First the counter, then the events: an operation that finishes in between sets the
        // counter again.
        self.clear_event();
        while self.in_flight_count() > 0 && self.reap(out) {}
        self.submit();
        out.append(&mut self.refused);
    }

    fn in_flight_count(&self) -> usize {
        self.slots.len() - self.free_slots.len()
    }

    /// One `io_submit` of the first `batch_count` waiting requests. Returns how many the kernel
    /// took.
    fn submit_batch(&mut self, batch_count: usize) -> Result<usize, i32> {
        let slots = self.free_slots.iter().rev();
        let batch = self.waiting.iter().take(batch_count).zip(slots);
        let mut blocks: Vec<ControlBlock> = batch
            .map(|(request, slot)| request.control_block(*slot, self.event.as_raw_fd()))
            .collect();
        // The pointers are mutable because the kernel writes its key into each block.
        let base = blocks.as_mut_ptr();
        // SAFETY: `index` is below the length of `blocks`.
        let mut pointers: Vec<*mut ControlBlock> = (0..batch_count)
            .map(|index| unsafe { base.add(index) })
            .collect();
        // SAFETY: `pointers` holds `batch_count` pointers to control blocks; the kernel copies
        // them, and the segment lists they point to, before it returns. The payload memory they
        // name stays valid until the completion: segments point into the pool, which outlives us
        // and whose cache keeps these buffers pinned, and a bounce is owned by the request, which
        // is kept in its slot.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_submit,
                self.context,
                batch_count as libc::c_long,
                pointers.as_mut_ptr(),
            )
        };
        match usize::try_from(result) {
            Ok(0) => Err(libc::EAGAIN),
            Ok(taken_count) => Ok(taken_count),
            Err(_) => Err(last_errno()),
        }
    }

    fn give_to_kernel(&mut self, count: usize) {
        assert!(count <= self.free_slots.len());
        for request in self.waiting.drain(..count) {
            let slot = self.free_slots.pop().expect("counted above") as usize;
            assert!(self.slots[slot].is_none());
            self.slots[slot] = Some(request);
        }
    }

    fn refuse_first(&mut self, errno: i32) {
        let request = self.waiting.pop_front().expect("the batch was not empty");
        self.in_use[request.ticket.0 as usize] = false;
        self.refuse(request, errno);
    }

    /// Takes a request whose file could not be opened: it comes back like one that the kernel
    /// refuses.
    pub fn refuse(&mut self, request: Request, errno: i32) {
        self.refused.push(request.completion(-i64::from(errno)));
        // SAFETY: our own descriptor. The only failure is a full counter (EAGAIN), which is
        // readable already.
        let _ = unsafe { libc::eventfd_write(self.event.as_raw_fd(), 1) };
    }

    fn clear_event(&mut self) {
        let mut count = 0;
        // SAFETY: our own descriptor and a counter on the stack. EAGAIN means that it was zero
        // already.
        let _ = unsafe { libc::eventfd_read(self.event.as_raw_fd(), &mut count) };
    }

    /// One `io_getevents` without waiting. True if more may have finished.
    fn reap(&mut self, out: &mut Vec<Completion>) -> bool {
        let mut events = [Event::default(); 32];
        let mut no_wait = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the kernel writes at most `events.len()` events, and only reads the time.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                self.context,
                0 as libc::c_long,
                events.len() as libc::c_long,
                events.as_mut_ptr(),
                &raw mut no_wait,
            )
        };
        let Ok(count) = usize::try_from(result) else {
            // Anything else would mean that our own context or array is wrong.
            assert_eq!(last_errno(), libc::EINTR, "io_getevents");
            return true;
        };
        for event in &events[..count] {
            let slot = usize::try_from(event.data).expect("the slot number we gave");
            let request = self.slots[slot]
                .take()
                .expect("the kernel completes a request once");
            self.free_slots.push(slot as u32);
            self.in_use[request.ticket.0 as usize] = false;
            out.push(request.completion(event.result));
        }
        count == events.len()
    }
}

impl Drop for Aio {
    fn drop(&mut self) {
        // Waits until the kernel is done with every request in flight (io_destroy(2); fs/aio.c,
        // ioctx `rq_wait`), so that afterwards slots, bounces and pool may be freed. The wait is
        // bounded: a block driver ends a request that its disk does not answer after a timeout
        // (30 s for SCSI and NVMe), and at most `depth` requests are in flight.
        // SAFETY: our own context, destroyed once.
        let result = unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
        assert_eq!(result, 0, "io_destroy of our own context");
    }
}

impl Request {
    fn length_bytes(&self) -> usize {
        match &self.memory {
            Memory::None => 0,
            Memory::Pool(segments) => segments.iter().map(Segment::length_bytes).sum(),
            Memory::Bounce(bounce) => bounce.bytes().len(),
        }
    }

    /// The kernel would answer each of these mistakes with EINVAL, hours later, and would not say
    /// which of them it was.
    fn assert_valid(&self) {
        assert!(self.alignment.is_power_of_two());
        assert!(self.length_bytes() <= REQUEST_BYTES_MAX);
        match &self.memory {
            Memory::None => assert_eq!(self.operation, Operation::Flush),
            Memory::Pool(segments) => {
                assert!(!segments.is_empty());
                assert!(segments.len() <= SEGMENT_COUNT_MAX);
                segments
                    .iter()
                    .for_each(|segment| self.assert_aligned(segment));
            }
            Memory::Bounce(bounce) => self.assert_aligned(&bounce.segment()),
        }
    }

    fn assert_aligned(&self, segment: &Segment) {
        assert_ne!(self.operation, Operation::Flush);
        assert!((segment.address() as usize).is_multiple_of(self.alignment as usize));
        assert!(
            segment
                .length_bytes()
                .is_multiple_of(self.alignment as usize)
        );
        assert!(self.disk_offset.0.is_multiple_of(u64::from(self.alignment)));
    }

    /// The request as the kernel takes it. One contiguous run needs no segment list.
    fn control_block(&self, slot: u32, event_fd: RawFd) -> ControlBlock {
        let (opcode, address, count) = match (&self.memory, self.operation) {
            (Memory::None, _) => (COMMAND_FDSYNC, 0, 0),
            (Memory::Bounce(bounce), operation) => contiguous(operation, &bounce.segment()),
            (Memory::Pool(segments), operation) => match segments.as_slice() {
                [segment] => contiguous(operation, segment),
                several => {
                    let opcode = if operation == Operation::Read {
                        COMMAND_PREADV
                    } else {
                        COMMAND_PWRITEV
                    };
                    (opcode, several.as_ptr() as u64, several.len() as u64)
                }
            },
        };
        ControlBlock {
            data: u64::from(slot),
            opcode,
            fd: u32::try_from(self.fd).expect("an open descriptor"),
            address,
            count,
            offset: i64::try_from(self.disk_offset.0).expect("no disk is that large"),
            flags: FLAG_RESFD,
            event_fd: u32::try_from(event_fd).expect("an open descriptor"),
            ..ControlBlock::default()
        }
    }

    /// Takes the request back from the kernel.
    fn completion(self, result: i64) -> Completion {
        let length_bytes = self.length_bytes();
        let result = match u32::try_from(result) {
            Ok(moved_bytes) => {
                assert!(
                    moved_bytes as usize <= length_bytes,
                    "more bytes moved than asked for"
                );
                Ok(moved_bytes)
            }
            Err(_) => Err(i32::try_from(-result).expect("the kernel answers bytes or an errno")),
        };
        let bounce = match self.memory {
            Memory::Bounce(bounce) => Some(bounce),
            Memory::Pool(_) | Memory::None => None,
        };
        Completion {
            ticket: self.ticket,
            result,
            bounce,
        }
    }
}

fn contiguous(operation: Operation, segment: &Segment) -> (u16, u64, u64) {
    let opcode = if operation == Operation::Read {
        COMMAND_PREAD
    } else {
        COMMAND_PWRITE
    };
    (
        opcode,
        segment.address() as u64,
        segment.length_bytes() as u64,
    )
}

fn last_errno() -> i32 {
    io::Error::last_os_error()
        .raw_os_error()
        .expect("last_os_error holds an errno")
}

// From here on include/uapi/linux/aio_abi.h.
const COMMAND_PREAD: u16 = 0;
const COMMAND_PWRITE: u16 = 1;
const COMMAND_FDSYNC: u16 = 3;
const COMMAND_PREADV: u16 = 7;
const COMMAND_PWRITEV: u16 = 8;
const FLAG_RESFD: u32 = 1;

/// `struct iocb`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ControlBlock {
    data: u64,
    /// `aio_key` and `aio_rw_flags`; their order depends on the byte order, but both are 0 for us.
    key_and_flags: [u32; 2],
    opcode: u16,
    priority: i16,
    fd: u32,
    address: u64,
    count: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_fd: u32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Event {
    data: u64,
    control_block: u64,
    result: i64,
    result2: i64,
}

const _: () = assert!(size_of::<ControlBlock>() == 64);
const _: () = assert!(size_of::<Event>() == 32);

#[cfg(test)]
mod tests {
    use super::super::pool::Pool;
    use super::super::testing::Scratch;
    use super::*;
    use std::fs::File;
    use swarm_proto::units::BufferId;

    const BUFFER_BYTES: u32 = 16 * 1024;

    fn request(
        ticket: u64,
        file: &File,
        operation: Operation,
        disk_offset: u64,
        memory: Memory,
    ) -> Request {
        let disk_offset = DiskOffset(disk_offset);
        Request {
            ticket: Ticket(ticket),
            fd: file.as_raw_fd(),
            operation,
            disk_offset,
            alignment: 512,
            memory,
        }
    }

    fn whole(pool: &Pool, buffer: u32) -> Memory {
        Memory::Pool(vec![pool.segment(BufferId(buffer), 0, BUFFER_BYTES)])
    }

    /// Waits as the event loop does, at most ten seconds at a time.
    fn wait(aio: &mut Aio, count: usize) -> Vec<Completion> {
        let mut completions = Vec::new();
        aio.submit();
        while completions.len() < count {
            let mut poll = libc::pollfd {
                fd: aio.event_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one pollfd on the stack.
            let ready = unsafe { libc::poll(&raw mut poll, 1, 10_000) };
            assert_eq!(
                ready,
                1,
                "{} of {count} completions after 10 s",
                completions.len()
            );
            aio.complete(&mut completions);
        }
        assert_eq!(aio.pending_count(), 0);
        completions
    }

    fn wait_one(aio: &mut Aio) -> Completion {
        let mut completions = wait(aio, 1);
        assert_eq!(completions.len(), 1);
        completions.remove(0)
    }

    /// Writes through two buffers at once, flushes, reads back through others.
    fn write_flush_read(file: &File) {
        let mut pool = Pool::new(BUFFER_BYTES, 4).unwrap();
        let mut aio = Aio::new(8).unwrap();
        pool.bytes_mut(BufferId(0)).fill(b'a');
        pool.bytes_mut(BufferId(1)).fill(b'b');
        let both = Memory::Pool(vec![
            pool.segment(BufferId(0), 512, 1024),
            pool.segment(BufferId(1), 0, BUFFER_BYTES),
        ]);
        aio.push(request(1, file, Operation::Write, 4096, both));
        let written = wait_one(&mut aio);
        assert_eq!(
            (written.ticket, written.result),
            (Ticket(1), Ok(1024 + BUFFER_BYTES))
        );

        aio.push(request(2, file, Operation::Flush, 0, Memory::None));
        assert_eq!(wait_one(&mut aio).result, Ok(0));

        let back = Memory::Pool(vec![
            pool.segment(BufferId(2), 0, 2048),
            pool.segment(BufferId(3), 0, BUFFER_BYTES),
        ]);
        aio.push(request(3, file, Operation::Read, 4096, back));
        let read = wait_one(&mut aio);
        assert_eq!(read.result, Ok(1024 + BUFFER_BYTES), "the file ends there");
        assert!(
            pool.bytes(BufferId(2))[..1024]
                .iter()
                .all(|&byte| byte == b'a')
        );
        assert!(
            pool.bytes(BufferId(2))[1024..2048]
                .iter()
                .all(|&byte| byte == b'b')
        );
        assert!(
            pool.bytes(BufferId(3))[..BUFFER_BYTES as usize - 1024]
                .iter()
                .all(|&byte| byte == b'b')
        );
    }

    #[test]
    fn written_bytes_are_read_back_with_o_direct() {
        let scratch = Scratch::new("aio-direct");
        write_flush_read(&scratch.open_direct());
    }

    #[test]
    fn written_bytes_are_read_back_through_the_page_cache() {
        let scratch = Scratch::new("aio-buffered");
        write_flush_read(&scratch.open_buffered());
    }

    #[test]
    fn a_bounce_comes_back_with_its_completion() {
        let scratch = Scratch::new("aio-bounce");
        let file = scratch.open_direct();
        file.set_len(4096).unwrap();
        let mut aio = Aio::new(1).unwrap();
        let mut bounce = Bounce::new(512, 512);
        bounce.bytes_mut()[100..110].fill(9);
        aio.push(request(
            1,
            &file,
            Operation::Write,
            1024,
            Memory::Bounce(bounce),
        ));
        let written = wait_one(&mut aio);
        assert_eq!(written.result, Ok(512));
        let mut bounce = written.bounce.expect("it comes back");
        bounce.bytes_mut().fill(0);
        aio.push(request(
            1,
            &file,
            Operation::Read,
            1024,
            Memory::Bounce(bounce),
        ));
        let bounce = wait_one(&mut aio).bounce.unwrap();
        assert_eq!(
            bounce.bytes()[99..111],
            [0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 0]
        );
    }

    #[test]
    fn a_read_past_the_end_is_short() {
        let scratch = Scratch::new("aio-end");
        let file = scratch.open_direct();
        file.set_len(1000).unwrap();
        let pool = Pool::new(BUFFER_BYTES, 1).unwrap();
        let mut aio = Aio::new(4).unwrap();
        aio.push(request(1, &file, Operation::Read, 512, whole(&pool, 0)));
        assert_eq!(wait_one(&mut aio).result, Ok(488));
        aio.push(request(2, &file, Operation::Read, 1 << 20, whole(&pool, 0)));
        assert_eq!(wait_one(&mut aio).result, Ok(0));
    }

    /// Two requests in the middle of a batch are refused at submission. All come back, and the
    /// valid ones are done.
    #[test]
    fn a_refused_request_comes_back_as_a_completion() {
        let scratch = Scratch::new("aio-refused");
        let file = scratch.open_direct();
        file.set_len(1 << 20).unwrap();
        let pool = Pool::new(BUFFER_BYTES, 3).unwrap();
        let mut aio = Aio::new(4).unwrap();
        aio.push(request(1, &file, Operation::Read, 0, whole(&pool, 0)));
        aio.push(Request {
            fd: RawFd::MAX,
            ..request(2, &file, Operation::Read, 0, whole(&pool, 1))
        });
        let (pipe, _other_end) = io::pipe().unwrap();
        aio.push(Request {
            fd: pipe.as_raw_fd(),
            ..request(3, &file, Operation::Flush, 0, Memory::None)
        });
        aio.push(request(4, &file, Operation::Read, 0, whole(&pool, 2)));
        let mut results: Vec<_> = wait(&mut aio, 4)
            .into_iter()
            .map(|c| (c.ticket.0, c.result))
            .collect();
        results.sort_unstable();
        // A pipe cannot be flushed. A kernel that cannot flush through AIO answers with the same
        // EINVAL.
        let expected = [
            (1, Ok(BUFFER_BYTES)),
            (2, Err(libc::EBADF)),
            (3, Err(libc::EINVAL)),
            (4, Ok(BUFFER_BYTES)),
        ];
        assert_eq!(results, expected);
    }

    #[test]
    fn more_requests_than_slots_are_all_completed() {
        let scratch = Scratch::new("aio-depth");
        let file = scratch.open_direct();
        let mut pool = Pool::new(BUFFER_BYTES, 100).unwrap();
        for index in 0..100 {
            pool.bytes_mut(BufferId(index)).fill(index as u8);
        }
        let mut aio = Aio::new(3).unwrap();
        for index in 0..100 {
            let offset = u64::from(index) * u64::from(BUFFER_BYTES);
            aio.push(request(
                u64::from(index),
                &file,
                Operation::Write,
                offset,
                whole(&pool, index),
            ));
        }
        assert_eq!(aio.pending_count(), 100);
        let mut tickets: Vec<u64> = wait(&mut aio, 100)
            .into_iter()
            .map(|completion| {
                assert_eq!(completion.result, Ok(BUFFER_BYTES));
                completion.ticket.0
            })
            .collect();
        tickets.sort_unstable();
        assert!(tickets.into_iter().eq(0..100));
        let contents = std::fs::read(scratch.path()).unwrap();
        assert_eq!(contents.len(), 100 * BUFFER_BYTES as usize);
        for (index, buffer) in contents.chunks(BUFFER_BYTES as usize).enumerate() {
            assert!(buffer.iter().all(|&byte| byte == index as u8));
        }
    }

    #[test]
    #[should_panic(expected = "ticket used twice")]
    fn a_ticket_that_is_in_use_is_refused() {
        let scratch = Scratch::new("aio-twice");
        let file = scratch.open_direct();
        let mut aio = Aio::new(2).unwrap();
        aio.push(request(7, &file, Operation::Flush, 0, Memory::None));
        aio.push(request(7, &file, Operation::Flush, 0, Memory::None));
    }

    /// A piece of 16 MiB in extents of 512 bytes has 32768 requests, and several pieces are written
    /// at once. If `push` looked at all that wait, this test would take minutes.
    #[test]
    fn many_requests_wait_at_no_cost() {
        const COUNT: u64 = 200_000;
        let scratch = Scratch::new("aio-many");
        let file = scratch.open_direct();
        let mut aio = Aio::new(64).unwrap();
        for ticket in 0..COUNT {
            aio.push(request(ticket, &file, Operation::Flush, 0, Memory::None));
        }
        assert_eq!(aio.pending_count(), COUNT as usize);
    }

    #[test]
    #[should_panic(expected = "is_multiple_of")]
    fn an_unaligned_offset_is_refused() {
        let scratch = Scratch::new("aio-unaligned");
        let file = scratch.open_direct();
        let mut aio = Aio::new(2).unwrap();
        aio.push(request(
            1,
            &file,
            Operation::Read,
            100,
            Memory::Bounce(Bounce::new(512, 512)),
        ));
    }

    /// The pool is freed right after: if drop did not wait, the kernel would write into freed
    /// memory.
    #[test]
    fn drop_waits_for_the_kernel() {
        let scratch = Scratch::new("aio-drop");
        let file = scratch.open_direct();
        for round in 0..20 {
            let pool = Pool::new(BUFFER_BYTES, 32).unwrap();
            let mut aio = Aio::new(32).unwrap();
            for index in 0..32 {
                let offset = u64::from(index) * u64::from(BUFFER_BYTES);
                let operation = if round % 2 == 0 {
                    Operation::Write
                } else {
                    Operation::Read
                };
                aio.push(request(
                    u64::from(index),
                    &file,
                    operation,
                    offset,
                    whole(&pool, index),
                ));
            }
            aio.submit();
            drop(aio);
            drop(pool);
        }
    }
}
