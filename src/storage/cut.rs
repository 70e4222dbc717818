//! Which bytes of a transfer can move directly between buffers and device, and which are edges?
//!
//! A transfer is cut by `extents::split` into whole sectors, which O_DIRECT takes as they are, and
//! edges: sectors of which only a part is ours.
//!
//! ```text
//! piece       |--------------------------------|
//! sectors  |....|....|....|....|....|....|....|....|
//!            edge ^^^^^^ one direct run ^^^^^^^^ edge
//! ```

use swarm_proto::format::extents::{self, Part};
use swarm_proto::swarm::DiskOperation;
use swarm_proto::units::{BufferId, DiskOffset, PieceIndex, Ticket};

use super::edges::Edge;
use super::places::Places;
use crate::os::aio::SEGMENT_COUNT_MAX;
use crate::os::pool::{Pool, Segment};

/// Bytes that move between a piece and buffers, of which `buffers[i]` holds the i-th
/// `Pool::buffer_bytes`.
pub(super) struct Transfer<'a> {
    pub(super) ticket: Ticket,
    pub(super) operation: DiskOperation,
    pub(super) piece: PieceIndex,
    pub(super) begin: u32,
    pub(super) length: u32,
    pub(super) buffers: &'a [BufferId],
}

/// Whole sectors, contiguous on the device or in one slice. Where they lie in memory does not
/// matter.
pub(super) struct Run {
    pub(super) file: u32,
    pub(super) disk: DiskOffset,
    pub(super) length: u32,
    pub(super) segments: Vec<Segment>,
}

impl Transfer<'_> {
    /// All bytes of the transfer, each in exactly one run or edge.
    pub(super) fn cut(
        &self,
        places: &Places,
        pool: &Pool,
        alignment: u32,
    ) -> (Vec<Run>, Vec<Edge>) {
        let (mut runs, mut edges): (Vec<Run>, Vec<Edge>) = (Vec::new(), Vec::new());
        let buffer_bytes = pool.buffer_bytes();
        // The last piece may need fewer buffers than the others.
        let used = self.length.div_ceil(buffer_bytes) as usize;
        for (&buffer, index) in self.buffers[..used].iter().zip(0..) {
            let from = index * buffer_bytes;
            let count = (self.length - from).min(buffer_bytes);
            for place in places.ranges(self.piece, self.begin + from, count) {
                for part in extents::split(place.disk, place.offset, place.length, alignment) {
                    if part.aligned {
                        let segment = pool.segment(buffer, part.memory_offset, part.length);
                        append(&mut runs, place.file, &part, segment);
                    } else {
                        edges.extend(self.edges(place.file, &part, buffer, alignment));
                    }
                }
            }
        }
        (runs, edges)
    }

    fn edges(
        &self,
        file: u32,
        part: &Part,
        buffer: BufferId,
        alignment: u32,
    ) -> impl Iterator<Item = Edge> + use<> {
        let edge = Edge {
            ticket: self.ticket,
            operation: self.operation,
            file,
            disk: part.disk,
            length: part.length,
            buffer,
            memory_offset: part.memory_offset,
        };
        edge.cut(alignment)
    }
}

/// Adds sectors to the last run if they follow it on the device.
fn append(runs: &mut Vec<Run>, file: u32, part: &Part, segment: Segment) {
    let run = Run {
        file,
        disk: part.disk,
        length: part.length,
        segments: vec![segment],
    };
    let absorbed = runs
        .last_mut()
        .is_some_and(|last| last.absorb(&run, u32::MAX));
    if !absorbed {
        runs.push(run);
    }
}

impl Run {
    /// Takes over the sectors of a run that follows this one on the device, if both together fit
    /// one request of `bytes_max`.
    pub(super) fn absorb(&mut self, next: &Run, bytes_max: u32) -> bool {
        let follows = self.file == next.file && self.disk + u64::from(self.length) == next.disk;
        let fits = next.length <= bytes_max.saturating_sub(self.length)
            && self.segments.len() + next.segments.len() <= SEGMENT_COUNT_MAX;
        if !follows || !fits {
            return false;
        }
        for segment in &next.segments {
            let joined = self
                .segments
                .last_mut()
                .is_some_and(|last| last.join(*segment));
            if !joined {
                self.segments.push(*segment);
            }
        }
        self.length += next.length;
        true
    }
}
