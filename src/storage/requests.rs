//! Which requests are in flight on the device, and what is each of them for?
//!
//! Where a whole device is read, reads that follow one another become one request, whatever pieces
//! they belong to: a piece of 16 KiB costs the kernel nearly as much work as one of 256 KiB. If
//! that joined request fails, each of its reads is tried again alone, so that one lost sector costs
//! one piece. The agent joins nothing: an error that a second try would hide is an error of its
//! disk.
//!
//! Of slices, a few are open at once (`open_slices`), so their requests wait here and not in `Aio`
//! until the kernel can take them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;

use swarm_proto::swarm::DiskOperation;
use swarm_proto::units::{DiskOffset, Ticket};

use super::cut::Run;
use super::edges::{BOUNCE_BYTES_MAX, Edge};
use super::open_slices::OpenSlices;
use super::packed::PackedRead;
use super::places::Places;
use crate::os::aio::{Aio, Completion, Memory, Operation, Request};
use crate::os::device::Device;
use crate::os::pool::Bounce;

/// Requests in the kernel at once. One piece of a fragmented image has hundreds of extents; disks
/// order a queue of this length well, and NVMe reaches its full rate with less.
const QUEUE_DEPTH: u32 = 64;

/// Longest request that reads are joined to. Long enough for the full speed of a spinning disk.
pub(super) const JOINED_BYTES_MAX: u32 = 1 << 20;

/// Which reads become one request?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joining {
    /// Those that follow one another on the device.
    Reads,
    Nothing,
}

/// What a request is for.
pub(super) enum Purpose {
    /// One run, whose segments are in the request, or several that were joined.
    Runs(Vec<JobRun>),
    /// To give the bytes to a reader, or to change them and write them back.
    EdgeRead(Edge),
    EdgeWrite(Edge),
    /// To decode the blocks.
    Packed(PackedRead),
    Flush(Ticket),
}

/// A run of one job.
pub(super) struct JobRun {
    pub(super) ticket: Ticket,
    pub(super) operation: DiskOperation,
    pub(super) run: Run,
}

impl Purpose {
    /// As in `Place`; all of them are in one file.
    fn file(&self) -> u32 {
        match self {
            Purpose::Runs(runs) => runs[0].run.file,
            Purpose::EdgeRead(edge) | Purpose::EdgeWrite(edge) => edge.file,
            Purpose::Packed(_) | Purpose::Flush(_) => 0,
        }
    }
}

/// A request that waits until the kernel can take it.
struct Waiting {
    operation: Operation,
    disk_offset: DiskOffset,
    memory: Memory,
    purpose: Purpose,
}

/// Reads that become one request.
struct Joined {
    all: Run,
    runs: Vec<JobRun>,
}

/// Calling order: `push_*`, then `submit`; when `event_fd` turns readable, `complete`.
///
/// Invariant: `in_flight[n]` is what the request with ticket `n` is for, or `n` is in
/// `free_tickets`; nothing is in `reads` after `submit`; of slices, no more than `QUEUE_DEPTH`
/// requests have tickets, and if fewer have, none waits after `submit`.
pub(super) struct Requests {
    aio: Aio,
    fd: RawFd,
    slices: Option<OpenSlices>,
    waiting: VecDeque<Waiting>,
    alignment: u32,
    joining: Joining,
    in_flight: Vec<Option<Purpose>>,
    free_tickets: Vec<usize>,
    /// Reads that `submit` will hand over.
    reads: Vec<Joined>,
    /// Bounce buffers of the longest edges that were read, or of packed blocks. To allocate one for
    /// each edge costs a third of the processor time where all of an image is edges.
    spare_bounces: Vec<Bounce>,
    /// The allocation of the last `Aio::complete`.
    completions: Vec<Completion>,
}

impl Requests {
    /// The device must stay open until these requests are dropped.
    pub(super) fn new(device: &Device, places: &Places, joining: Joining) -> io::Result<Requests> {
        assert!(device.alignment.is_power_of_two());
        let slices = places.slices();
        let depth = QUEUE_DEPTH as usize;
        let slices = slices.map(|table| OpenSlices::new(device, table.clone(), depth));
        Ok(Requests {
            aio: Aio::new(QUEUE_DEPTH)?,
            fd: device.fd(),
            slices: slices.transpose()?,
            waiting: VecDeque::new(),
            alignment: device.alignment,
            joining,
            in_flight: Vec::new(),
            free_tickets: Vec::new(),
            reads: Vec::new(),
            spare_bounces: Vec::new(),
            completions: Vec::new(),
        })
    }

    pub(super) fn event_fd(&self) -> RawFd {
        self.aio.event_fd()
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.aio.is_stuck()
    }

    #[cfg(test)]
    pub(super) fn in_flight_count(&self) -> usize {
        self.in_flight.iter().flatten().count()
    }

    pub(super) fn push_run(&mut self, run: JobRun) {
        match (run.operation, self.joining) {
            (DiskOperation::Read, Joining::Reads) => self.push_read(run),
            _ => self.push_alone(run),
        }
    }

    fn push_read(&mut self, run: JobRun) {
        if let Some(last) = self.reads.last_mut()
            && last.all.absorb(&run.run, JOINED_BYTES_MAX)
        {
            return last.runs.push(run);
        }
        let all = Run {
            segments: run.run.segments.clone(),
            ..run.run
        };
        self.reads.push(Joined {
            all,
            runs: vec![run],
        });
    }

    /// A request for this run and no other.
    pub(super) fn push_alone(&mut self, mut run: JobRun) {
        let operation = match run.operation {
            DiskOperation::Read => Operation::Read,
            DiskOperation::Write => Operation::Write,
            DiskOperation::Flush => unreachable!("a flush moves no bytes"),
        };
        let memory = Memory::Pool(std::mem::take(&mut run.run.segments));
        self.push(operation, run.run.disk, memory, Purpose::Runs(vec![run]));
    }

    /// Reads the sectors around an edge into a bounce buffer.
    pub(super) fn push_edge_read(&mut self, edge: Edge) {
        let (disk, length) = edge.sectors(self.alignment);
        let spare = match length {
            BOUNCE_BYTES_MAX => self.spare(length),
            _ => None,
        };
        let bounce = spare.unwrap_or_else(|| Bounce::new(length, self.alignment));
        let memory = Memory::Bounce(bounce);
        self.push(Operation::Read, disk, memory, Purpose::EdgeRead(edge));
    }

    /// One that is shorter is given up, so that no more are kept than were in use at once.
    fn spare(&mut self, length: u32) -> Option<Bounce> {
        self.spare_bounces.pop()?.with_length(length)
    }

    /// Takes back a bounce buffer whose bytes are not needed any more.
    pub(super) fn reuse(&mut self, bounce: Bounce) {
        self.spare_bounces
            .extend(bounce.with_length(BOUNCE_BYTES_MAX));
    }

    /// Writes the sectors around an edge.
    pub(super) fn push_edge_write(&mut self, edge: Edge, bounce: Bounce) {
        let (disk, length) = edge.sectors(self.alignment);
        assert_eq!(bounce.bytes().len(), length as usize);
        let memory = Memory::Bounce(bounce);
        self.push(Operation::Write, disk, memory, Purpose::EdgeWrite(edge));
    }

    /// Reads these sectors for a packed image.
    pub(super) fn push_packed(&mut self, read: PackedRead, (disk, length): (DiskOffset, u32)) {
        let bounce = self.spare(length).or_else(|| {
            // Most are as long as others then, and can be used again.
            let capacity = length.next_multiple_of(BOUNCE_BYTES_MAX);
            Bounce::new(capacity, self.alignment).with_length(length)
        });
        let memory = Memory::Bounce(bounce.expect("it is made as long"));
        self.push(Operation::Read, disk, memory, Purpose::Packed(read));
    }

    pub(super) fn push_flush(&mut self, ticket: Ticket) {
        let purpose = Purpose::Flush(ticket);
        self.push(Operation::Flush, DiskOffset(0), Memory::None, purpose);
    }

    fn push(
        &mut self,
        operation: Operation,
        disk_offset: DiskOffset,
        memory: Memory,
        purpose: Purpose,
    ) {
        let request = Waiting {
            operation,
            disk_offset,
            memory,
            purpose,
        };
        match self.slices {
            Some(_) => self.waiting.push_back(request),
            None => self.hand_over(request),
        }
    }

    fn hand_over(&mut self, request: Waiting) {
        let Waiting {
            operation,
            disk_offset,
            memory,
            purpose,
        } = request;
        let fd = match &mut self.slices {
            Some(slices) => slices.fd(purpose.file()),
            None => Ok(self.fd),
        };
        let ticket = self.free_tickets.pop().unwrap_or(self.in_flight.len());
        if ticket == self.in_flight.len() {
            self.in_flight.push(None);
        }
        self.in_flight[ticket] = Some(purpose);
        let request = Request {
            ticket: Ticket(ticket as u64),
            fd: fd.unwrap_or(self.fd),
            operation,
            disk_offset,
            alignment: self.alignment,
            memory,
        };
        match fd {
            Ok(_) => self.aio.push(request),
            Err(errno) => self.aio.refuse(request, errno),
        }
    }

    pub(super) fn submit(&mut self) {
        for Joined { all, runs } in std::mem::take(&mut self.reads) {
            let memory = Memory::Pool(all.segments);
            self.push(Operation::Read, all.disk, memory, Purpose::Runs(runs));
        }
        while self.in_flight.len() - self.free_tickets.len() < QUEUE_DEPTH as usize
            && let Some(request) = self.waiting.pop_front()
        {
            self.hand_over(request);
        }
        self.aio.submit();
    }

    /// What has completed since the last call, and what it was for.
    pub(super) fn complete(&mut self) -> Vec<(Purpose, Completion)> {
        let mut completions = std::mem::take(&mut self.completions);
        self.aio.complete(&mut completions);
        let completed = completions.drain(..).map(|completion| {
            let ticket = completion.ticket.0 as usize;
            self.free_tickets.push(ticket);
            let purpose = self.in_flight[ticket].take();
            (purpose.expect("a request completes once"), completion)
        });
        let completed = completed.collect();
        self.completions = completions;
        completed
    }
}
