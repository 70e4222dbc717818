//! Which edges may be in flight at once? An edge is a part of a transfer that does not fill its
//! sectors.
//!
//! An edge that is written is read, changed and written back, and written edges go strictly one
//! after the other: two pieces may share a sector, and if both were changed at the same time, the
//! later write would bring back the old bytes of the earlier. Direct runs never touch such a
//! sector, since they consist of sectors that belong to one piece alone.
//!
//! An edge that is read changes nothing, so several are in flight. On a device with larger sectors
//! than the image was made for, all of an image can be edges.

use std::collections::VecDeque;

use swarm_proto::format::extents;
use swarm_proto::swarm::DiskOperation;
use swarm_proto::units::{BufferId, DiskOffset, Ticket};

use crate::os::pool::Pool;

/// Longest run of sectors that goes through one bounce buffer. Only a device with larger sectors
/// than the image was made for has edges longer than a sector.
pub(super) const BOUNCE_BYTES_MAX: u32 = 128 * 1024;

/// Edges being read at once: 2 MiB of bounce buffers.
const EDGE_READS_MAX: usize = 16;

/// Bytes of one buffer that do not fill their sectors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    pub(super) ticket: Ticket,
    pub(super) operation: DiskOperation,
    /// As in `Place`.
    pub(super) file: u32,
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
    writes: VecDeque<Edge>,
    is_writing: bool,
    reads: VecDeque<Edge>,
    reading: usize,
}

impl Edges {
    pub(super) fn add(&mut self, edge: Edge) {
        match edge.operation {
            DiskOperation::Read => self.reads.push_back(edge),
            DiskOperation::Write => self.writes.push_back(edge),
            DiskOperation::Flush => unreachable!("a flush moves no bytes"),
        }
    }

    /// An edge that may be in flight from now on.
    pub(super) fn next(&mut self) -> Option<Edge> {
        if !self.is_writing
            && let Some(edge) = self.writes.pop_front()
        {
            self.is_writing = true;
            return Some(edge);
        }
        if self.reading == EDGE_READS_MAX {
            return None;
        }
        let edge = self.reads.pop_front()?;
        self.reading += 1;
        Some(edge)
    }

    /// An edge is no longer in flight.
    pub(super) fn through(&mut self, edge: &Edge) {
        if edge.operation == DiskOperation::Read {
            assert!(self.reading > 0);
            self.reading -= 1;
        } else {
            assert!(self.is_writing);
            self.is_writing = false;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(operation: DiskOperation, disk: u64, length: u32) -> Edge {
        Edge {
            ticket: Ticket(0),
            operation,
            file: 0,
            disk: DiskOffset(disk),
            length,
            buffer: BufferId(0),
            memory_offset: 7,
        }
    }

    #[test]
    fn one_write_and_several_reads_at_once() {
        let mut edges = Edges::default();
        for _ in 0..20 {
            edges.add(edge(DiskOperation::Write, 1, 1));
            edges.add(edge(DiskOperation::Read, 1, 1));
        }
        let begun: Vec<Edge> = std::iter::from_fn(|| edges.next()).collect();
        let is_write = |edge: &&Edge| edge.operation == DiskOperation::Write;
        assert_eq!(begun.iter().filter(is_write).count(), 1);
        assert_eq!(begun.len(), 1 + EDGE_READS_MAX);
        let mut later = Vec::new();
        for edge in &begun {
            edges.through(edge);
            let next = edges.next();
            assert!(next.is_none_or(|next| next.operation == edge.operation));
            later.extend(next);
        }
        assert_eq!(later.iter().filter(is_write).count(), 1);
        assert_eq!(later.len(), 1 + 20 - EDGE_READS_MAX);
    }

    #[test]
    fn edges_are_cut_at_the_ends_of_bounce_buffers() {
        let bounce = u64::from(BOUNCE_BYTES_MAX);
        let cut = |disk, length| {
            let edges = edge(DiskOperation::Read, disk, length).cut(512);
            edges
                .map(|edge| (edge.disk.0, edge.length, edge.memory_offset))
                .collect::<Vec<_>>()
        };
        assert_eq!(cut(700, 1000), [(700, 1000, 7)]);
        assert_eq!(
            cut(bounce - 1, BOUNCE_BYTES_MAX + 2),
            [
                (bounce - 1, 1, 7),
                (bounce, BOUNCE_BYTES_MAX, 8),
                (2 * bounce, 1, 8 + BOUNCE_BYTES_MAX)
            ]
        );
    }

    #[test]
    fn an_edge_lies_within_its_sectors() {
        let edge = edge(DiskOperation::Read, 700, 1000);
        assert_eq!(edge.sectors(512), (DiskOffset(512), 1536));
        assert_eq!(edge.in_sectors(512), 188..1188);
    }
}
