//! How do bytes of a packed image get into a buffer?
//!
//! All blocks between two marks are read by one request. Those that are wanted are decoded, or left
//! as they are in a pool that keeps them so. What is read is at most a stride longer than what is
//! wanted, at either end.

use std::collections::VecDeque;
use std::ops::Range;

use swarm_proto::format::extents;
use swarm_proto::format::lz4_frame::Packed;
use swarm_proto::limits::BLOCK_BYTES;
use swarm_proto::units::{BufferId, DiskOffset, Ticket};

use super::cut::Transfer;
use super::places::Places;
use crate::os::pool::Pool;

/// As long as those of the swarm, a block can be left packed.
const BLOCK: usize = BLOCK_BYTES as usize;

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
        pool.fill(self.buffer, |buffer, slots| {
            for (bytes, memory_offset) in &self.parts {
                let length = (bytes.end - bytes.start) as usize;
                let offset = *memory_offset as usize;
                let out = &mut buffer[offset..][..length];
                touched(slots, offset..offset + length).fill(0);
                let mut keep = |at, length| keep(slots, offset + at, length);
                packed
                    .unpack_or_keep(self.marks.start, read, bytes, out, &mut keep)
                    .map_err(DiskOffset)?;
            }
            Ok(())
        })
    }
}

/// Those of the blocks that these bytes are in.
fn touched(slots: &mut [u16], bytes: Range<usize>) -> &mut [u16] {
    let touched = slots.get_mut(bytes.start / BLOCK..bytes.end.div_ceil(BLOCK));
    touched.unwrap_or_default()
}

/// Notes that a block of this length is left packed at `offset` of its buffer, if it may be: it is
/// a block of the swarm, too.
fn keep(slots: &mut [u16], offset: usize, length: usize) -> bool {
    let slot = slots.get_mut(offset / BLOCK);
    let slot = slot.filter(|_| offset.is_multiple_of(BLOCK));
    slot.map(|slot| *slot = length as u16).is_some()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::Storage;
    use crate::storage::reader::tests::{file_with, open_packed, packed, places};
    use crate::storage::requests::Joining;
    use swarm_proto::format::layout::Layout;
    use swarm_proto::rng::Rng;
    use swarm_proto::swarm::Work;
    use swarm_proto::units::PieceIndex;

    const BUFFER_BYTES: u32 = 256 << 10;

    /// Words, so that they shrink, and other bytes for every third block.
    fn image(rng: &mut Rng, length: usize) -> Vec<u8> {
        let mut image = Vec::new();
        while image.len() < length {
            let is_random = image.len() / BLOCK % 3 == 2;
            let letters = if is_random { 256 } else { 3 };
            let byte = rng.below(letters) as u8;
            image.extend(std::iter::repeat_n(byte, if is_random { 1 } else { 9 }));
        }
        image.truncate(length);
        image
    }

    /// Runs of the image in multiples of `grain`, in any order.
    fn runs(rng: &mut Rng, image_bytes: u64, grain: u64) -> Vec<(u64, u64)> {
        let (mut runs, mut disk) = (Vec::new(), 0);
        while disk < image_bytes {
            let length = grain * u64::from(1 + rng.below(400_000 / grain as u32));
            let length = length.min(image_bytes - disk);
            runs.push((disk, length));
            disk += length + grain * u64::from(rng.below(3));
        }
        rng.shuffle(&mut runs);
        runs
    }

    /// Reads a part of a piece into the first buffer.
    fn load(storage: &mut Storage, pool: &mut Pool, piece: PieceIndex, begin: u32, length: u32) {
        storage.start(
            pool,
            Work::Read {
                ticket: Ticket(u64::from(piece.0) << 32 | u64::from(begin)),
                piece,
                begin,
                length,
                buffer: BufferId(0),
            },
        );
        storage.submit();
        while storage.done_count() == 0 {
            storage.advance(pool);
        }
        assert_eq!(storage.poll_done().unwrap().1, Ok(()));
    }

    /// How many blocks were left packed, and how many there are.
    fn compare(pool: &Pool, expected: &[u8], file: &[u8], rng: &mut Rng) -> (usize, usize) {
        let length = expected.len() as u32;
        let from = rng.below(length);
        for range in [0..length, from..from + 1 + rng.below(length - from)] {
            let mut out = vec![0xee; range.len()];
            pool.unpack(BufferId(0), range.start, &mut out);
            assert!(out == expected[range.start as usize..range.end as usize]);
        }
        let blocks = (0..length / BLOCK_BYTES).map(|index| index * BLOCK_BYTES);
        let kept = blocks.clone().filter(|&at| {
            let packed = pool.packed_bytes(BufferId(0), at, BLOCK_BYTES);
            packed.is_some_and(|packed| {
                let lies = &pool.bytes(BufferId(0))[at as usize..][..packed as usize];
                file.windows(lies.len()).any(|window| window == lies)
            })
        });
        (kept.count(), blocks.count())
    }

    /// Blocks of the swarm that are blocks of the file are left as they lie there; all bytes are
    /// those of the image, also where runs and pieces begin anywhere.
    #[test]
    fn blocks_are_left_packed_where_they_are_those_of_the_swarm() {
        for seed in 0..12 {
            let mut rng = Rng::new(seed);
            let image = image(&mut rng, (2 << 20) + 5000);
            let file = packed(&image);
            let scratch = file_with(&file);
            let grain = [BLOCK as u64, 4096, 512, 1][seed as usize % 4];
            let piece_bytes = [1 << 16, 1 << 19, 3 * BLOCK_BYTES + 512][seed as usize % 3];
            let runs = match seed {
                0 => vec![(0, image.len() as u64)],
                _ => runs(&mut rng, image.len() as u64, grain),
            };
            let places = places(&runs, piece_bytes);
            let layout: Layout = *places.layout();
            let run = |&(disk, length): &(u64, u64)| &image[disk as usize..][..length as usize];
            let payload: Vec<u8> = runs.iter().flat_map(run).copied().collect();
            let device = open_packed(&scratch, 512);
            let mut storage = Storage::new(device, places, Joining::Nothing).unwrap();
            let mut pool = Pool::new(BUFFER_BYTES, 1).unwrap();
            pool.keep_packed();
            let (mut kept, mut all) = (0, 0);
            for piece in layout.pieces() {
                for begin in (0..layout.piece_length(piece)).step_by(BUFFER_BYTES as usize) {
                    let length = (layout.piece_length(piece) - begin).min(BUFFER_BYTES);
                    load(&mut storage, &mut pool, piece, begin, length);
                    let start = layout.piece_start(piece) as usize + begin as usize;
                    let expected = &payload[start..start + length as usize];
                    let (more, blocks) = compare(&pool, expected, &file, &mut rng);
                    (kept, all) = (kept + more, all + blocks);
                }
            }
            match seed {
                0 => assert_eq!((kept, all), (86, 128), "two of three shrink"),
                _ => assert!(kept < all),
            }
        }
    }
}
