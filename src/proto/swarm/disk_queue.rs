//! What has the disk been asked to do, and what for?
//!
//! Every request has a ticket, and each ticket is answered once. `Pending` is what we have to
//! remember until then: the disk is told places and buffers, and not the purpose.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::interface::Work;
use crate::limits::READS_MAX;
use crate::policy::cache::Chunk;
use crate::units::{BufferId, PieceIndex, Ticket};
use crate::vec_map::VecMap;

/// What a request was made for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pending {
    /// `from` is the open piece whose buffers are written; zeros need none.
    Write {
        piece: PieceIndex,
        from: Option<PieceIndex>,
    },
    /// A chunk that a peer has asked for. It is `stale` if the piece was lost meanwhile: what
    /// arrives may be what was there before.
    Load {
        chunk: Chunk,
        buffer: BufferId,
        stale: bool,
    },
    /// A chunk for the read queue.
    ReadForHash {
        chunk: Chunk,
        buffer: BufferId,
    },
    Flush,
    /// While the download goes on, so that pieces get ripe for the read-back.
    EarlyFlush,
}

/// Invariant: everything in `work` is in `pending`, too.
#[derive(Debug, Default)]
pub(super) struct DiskQueue {
    /// Few, and tickets rise: the writes are bounded by the pool and the limits of `Placing`, the
    /// reads by READS_MAX and READ_AHEAD_MAX.
    pending: VecMap<Ticket, Pending>,
    next_ticket: u64,
    /// How many of `pending` are loads, reads for the read queue, flushes, and early flushes.
    loads: usize,
    reads: usize,
    flushes: usize,
    early_flushes: usize,
    /// Not yet taken by the shell.
    work: VecDeque<Work>,
}

impl DiskQueue {
    #[must_use]
    pub(super) fn poll(&mut self) -> Option<Work> {
        self.work.pop_front()
    }

    /// The disk has answered this ticket.
    pub(super) fn finish(&mut self, ticket: Ticket) -> Pending {
        let pending = self.pending.remove(&ticket);
        let pending = pending.expect("each ticket is answered once");
        match pending {
            Pending::Load { .. } => self.loads -= 1,
            Pending::ReadForHash { .. } => self.reads -= 1,
            Pending::Flush => self.flushes -= 1,
            Pending::EarlyFlush => self.early_flushes -= 1,
            Pending::Write { .. } => {}
        }
        pending
    }

    fn ticket(&mut self, pending: Pending) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.pending.insert(ticket, pending);
        ticket
    }

    /// Writes the bytes of the open piece `from` to the place of `piece`.
    pub(super) fn write(&mut self, piece: PieceIndex, from: PieceIndex, buffers: Vec<BufferId>) {
        let from = Some(from);
        let ticket = self.ticket(Pending::Write { piece, from });
        self.work.push_back(Work::Write {
            ticket,
            piece,
            buffers,
        });
    }

    pub(super) fn zero(&mut self, piece: PieceIndex) {
        let ticket = self.ticket(Pending::Write { piece, from: None });
        self.work.push_back(Work::Zero { ticket, piece });
    }

    /// Reads a chunk that a peer has asked for; `span` is where it lies in its piece.
    pub(super) fn load(&mut self, chunk: Chunk, span: (u32, u32), buffer: BufferId) {
        self.loads += 1;
        let stale = false;
        let ticket = self.ticket(Pending::Load {
            chunk,
            buffer,
            stale,
        });
        self.read(ticket, chunk, span, buffer);
    }

    /// Queues the read of a chunk that the read queue will hash. `span`: begin and length in the
    /// piece.
    pub(super) fn read_for_hash(&mut self, chunk: Chunk, span: (u32, u32), buffer: BufferId) {
        self.reads += 1;
        let ticket = self.ticket(Pending::ReadForHash { chunk, buffer });
        self.read(ticket, chunk, span, buffer);
    }

    fn read(&mut self, ticket: Ticket, chunk: Chunk, span: (u32, u32), buffer: BufferId) {
        let (begin, length) = span;
        self.work.push_back(Work::Read {
            ticket,
            piece: chunk.piece,
            begin,
            length,
            buffer,
        });
    }

    pub(super) fn flush(&mut self) {
        self.flushes += 1;
        let ticket = self.ticket(Pending::Flush);
        self.work.push_back(Work::Flush { ticket });
    }

    pub(super) fn flush_early(&mut self) {
        self.early_flushes += 1;
        let ticket = self.ticket(Pending::EarlyFlush);
        self.work.push_back(Work::Flush { ticket });
    }

    /// The disk has nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn is_flushing(&self) -> bool {
        self.flushes > 0
    }

    /// Writes, loads and the last flush: what the download and the peers wait for.
    pub(super) fn download_count(&self) -> usize {
        self.pending.len() - self.reads - self.early_flushes
    }

    pub(super) fn read_count(&self) -> usize {
        self.reads
    }

    pub(super) fn has_room_to_load(&self) -> bool {
        self.loads < READS_MAX
    }

    pub(super) fn is_loading(&self, chunk: Chunk) -> bool {
        self.pending
            .values()
            .any(|p| matches!(p, Pending::Load { chunk: loading, .. } if *loading == chunk))
    }

    /// The piece was lost: what is being read of it must not be sent.
    pub(super) fn mark_loads_stale(&mut self, piece: PieceIndex) {
        for pending in self.pending.values_mut() {
            if let Pending::Load { chunk, stale, .. } = pending {
                *stale |= chunk.piece == piece;
            }
        }
    }

    pub(super) fn load_count(&self) -> usize {
        self.loads
    }

    pub(super) fn check_invariants(&self) {
        let count =
            |is_kind: fn(&Pending) -> bool| self.pending.values().filter(|p| is_kind(p)).count();
        assert_eq!(self.loads, count(|p| matches!(p, Pending::Load { .. })));
        assert_eq!(self.flushes, count(|p| matches!(p, Pending::Flush)));
        let early = count(|p| matches!(p, Pending::EarlyFlush));
        assert_eq!(self.early_flushes, early);
        let reads = count(|p| matches!(p, Pending::ReadForHash { .. }));
        assert_eq!(self.reads, reads);
        assert!(self.loads <= READS_MAX);
        assert!(self.work.len() <= self.pending.len());
    }
}
