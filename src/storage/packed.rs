//! How do bytes of a packed image get into a buffer?
//!
//! All blocks between two marks are read by one request, and those that are wanted are decoded.
//! What is read is at most a stride longer than what is wanted, at either end.

use std::collections::VecDeque;
use std::ops::Range;

use swarm_proto::format::extents;
use swarm_proto::format::lz4_frame::Packed;
use swarm_proto::units::{BufferId, DiskOffset, Ticket};

use super::cut::Transfer;
use super::places::Places;
use crate::os::pool::Pool;

/// Requests in flight at once. Each has at most 2 MiB of memory, mostly 130 KiB.
const READS_MAX: usize = 16;

/// Longest part of the file that becomes one request because several wanted parts lie in it.
const JOINED_BYTES_MAX: u64 = 1 << 20;

/// One request, and what it is read for.
pub(super) struct PackedRead {
    pub(super) ticket: Ticket,
    buffer: BufferId,
    marks: Range<usize>,
    /// Bytes of the image, and where they begin in the buffer.
    parts: Vec<(Range<u64>, u32)>,
}

impl PackedRead {
    fn new(
        transfer: &Transfer,
        packed: &Packed,
        bytes: Range<u64>,
        memory_offset: u32,
    ) -> PackedRead {
        let [buffer] = *transfer.buffers else {
            panic!("a read has one buffer");
        };
        PackedRead {
            ticket: transfer.ticket,
            buffer,
            marks: packed.marks(&bytes),
            parts: vec![(bytes, memory_offset)],
        }
    }

    /// Takes over what another one wants, if both are near to each other.
    fn absorb(&mut self, next: &PackedRead, packed: &Packed) -> bool {
        let all = self.marks.start..next.marks.end;
        let is_near = (self.marks.start..=self.marks.end).contains(&next.marks.start)
            && next.marks.end >= self.marks.end;
        if !is_near || bytes_of(packed, &all) > JOINED_BYTES_MAX {
            return false;
        }
        self.marks = all;
        self.parts.extend_from_slice(&next.parts);
        true
    }

    /// Offset and length of the sectors with the blocks.
    pub(super) fn sectors(&self, packed: &Packed, alignment: u32) -> (DiskOffset, u32) {
        let span = packed.span(&self.marks);
        let start = DiskOffset(span.start);
        let (start, length) = extents::sectors_around(start, span.end - span.start, alignment);
        (start, u32::try_from(length).expect("a few strides"))
    }

    /// Decodes what is wanted of the sectors that were `read`. Fails with the place of a block that
    /// is damaged or is not there.
    pub(super) fn decode(
        &self,
        packed: &Packed,
        alignment: u32,
        read: &[u8],
        pool: &mut Pool,
    ) -> Result<(), DiskOffset> {
        let start = packed.span(&self.marks).start;
        let lead = start - self.sectors(packed, alignment).0.0;
        let read = read.get(lead as usize..).unwrap_or_default();
        let buffer = pool.bytes_mut(self.buffer);
        for (bytes, memory_offset) in &self.parts {
            let length = (bytes.end - bytes.start) as usize;
            let out = &mut buffer[*memory_offset as usize..][..length];
            let decoded = packed.unpack(self.marks.start, read, bytes, out);
            decoded.map_err(DiskOffset)?;
        }
        Ok(())
    }
}

fn bytes_of(packed: &Packed, marks: &Range<usize>) -> u64 {
    let span = packed.span(marks);
    span.end - span.start
}

/// Requests that wait for their turn, as in `Edges`.
#[derive(Default)]
pub(super) struct PackedReads {
    waiting: VecDeque<PackedRead>,
    reading: usize,
}

impl PackedReads {
    /// Returns the number of requests that a transfer needs.
    pub(super) fn add(&mut self, transfer: &Transfer, places: &Places, packed: &Packed) -> u32 {
        let (piece, begin, length) = (transfer.piece, transfer.begin, transfer.length);
        let before = self.waiting.len();
        for place in places.ranges(piece, begin, length) {
            let bytes = place.disk.0..place.disk.0 + u64::from(place.length);
            let read = PackedRead::new(transfer, packed, bytes, place.offset);
            let joined = self.waiting.len() > before
                && self
                    .waiting
                    .back_mut()
                    .is_some_and(|last| last.absorb(&read, packed));
            if !joined {
                self.waiting.push_back(read);
            }
        }
        (self.waiting.len() - before) as u32
    }

    /// A request that may be in flight from now on.
    pub(super) fn next(&mut self) -> Option<PackedRead> {
        if self.reading == READS_MAX {
            return None;
        }
        let read = self.waiting.pop_front()?;
        self.reading += 1;
        Some(read)
    }

    /// A request is no longer in flight.
    pub(super) fn through(&mut self) {
        assert!(self.reading > 0);
        self.reading -= 1;
    }
}
