//! Which edges may be in flight at once? An edge is a part of a transfer that does not fill its
//! sectors.
//!
//! An edge that is written is read, changed and written back, and written edges go strictly one
//! after the other: two pieces may share a sector, and if both were changed at the same time, the
//! later write would bring back the old bytes of the earlier. Direct runs never touch such a sector,
//! since they consist of sectors that belong to one piece alone.

use std::collections::VecDeque;

use swarm_proto::format::extents;
use swarm_proto::swarm::DiskOperation;
use swarm_proto::units::{BufferId, DiskOffset, Ticket};

use crate::os::pool::Pool;

/// Longest run of sectors that goes through one bounce buffer. Only a device with larger sectors
/// than the image was made for has edges longer than a sector.
const BOUNCE_BYTES_MAX: u32 = 128 * 1024;

/// Bytes of one buffer that do not fill their sectors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    pub(super) ticket: Ticket,
    pub(super) operation: DiskOperation,
    pub(super) disk: DiskOffset,
    pub(super) length: u32,
    pub(super) buffer: BufferId,
    pub(super) memory_offset: u32,
}

/// Edges that wait for their turn.
///
/// Calling order: `add`; then `next` until there is none; `through` for each of those that `next`
/// gave; and `next` again.
#[derive(Default)]
pub(super) struct Edges {
    waiting: VecDeque<Edge>,
    is_in_flight: bool,
}

impl Edges {
    pub(super) fn add(&mut self, edge: Edge) {
        self.waiting.push_back(edge);
    }

    /// An edge that may be in flight from now on.
    pub(super) fn next(&mut self) -> Option<Edge> {
        if self.is_in_flight {
            return None;
        }
        let edge = self.waiting.pop_front()?;
        self.is_in_flight = true;
        Some(edge)
    }

    /// The edge is no longer in flight.
    pub(super) fn through(&mut self) {
        assert!(self.is_in_flight);
        self.is_in_flight = false;
    }
}

impl Edge {
    /// The edge as edges of which none needs more than one bounce buffer. They are cut at sector
    /// boundaries, so that no sector is read and written twice.
    pub(super) fn cut(self, alignment: u32) -> impl Iterator<Item = Edge> + use<> {
        let bounce_bytes = u64::from(alignment.max(BOUNCE_BYTES_MAX));
        let mut done = 0;
        std::iter::from_fn(move || {
            let disk = self.disk + u64::from(done);
            let boundary = (disk.0 + 1).next_multiple_of(bounce_bytes);
            let length = (boundary - disk.0).min(u64::from(self.length - done)) as u32;
            let memory_offset = self.memory_offset + done;
            done += length;
            (length > 0).then_some(Edge {
                disk,
                length,
                memory_offset,
                ..self
            })
        })
    }

    /// Offset and length of the sectors around the edge.
    pub(super) fn sectors(&self, alignment: u32) -> (DiskOffset, u32) {
        let (start, length) = extents::sectors_around(self.disk, self.length.into(), alignment);
        let length = u32::try_from(length).expect("at most a bounce buffer");
        (start, length)
    }

    /// The bytes of the edge among those of the sectors around it.
    pub(super) fn in_sectors(&self, alignment: u32) -> std::ops::Range<usize> {
        let lead = (self.disk - self.sectors(alignment).0) as usize;
        lead..lead + self.length as usize
    }

    pub(super) fn memory<'a>(&self, pool: &'a Pool) -> &'a [u8] {
        &pool.bytes(self.buffer)[self.memory_offset as usize..][..self.length as usize]
    }

    pub(super) fn memory_mut<'a>(&self, pool: &'a mut Pool) -> &'a mut [u8] {
        &mut pool.bytes_mut(self.buffer)[self.memory_offset as usize..][..self.length as usize]
    }
}
