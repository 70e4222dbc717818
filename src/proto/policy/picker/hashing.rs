//! What of the open pieces is hashed next, and what follows from a hash?
//!
//! Three kinds of hashes: of whole pieces, as their bytes come; of the blocks of a bad piece; and
//! of parts of a piece that is not whole. Of those read `policy/marks` first.

use alloc::vec::Vec;

use super::Picker;
use crate::limits::BLOCK_BYTES;
use crate::policy::marks::Marks;
use crate::policy::open_piece::{OpenPiece, Verdict};
use crate::units::{Block, BlockIndex, BufferId, Giver, Mark, PieceHash, PieceIndex};

/// A block whose hash is needed, in `buffer` at `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHashJob {
    pub piece: PieceIndex,
    pub at: BlockIndex,
    pub length: u32,
    pub buffer: BufferId,
    pub offset: u32,
}

/// A piece that has bytes to hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashReady {
    pub piece: PieceIndex,
    /// Blocks that can be hashed in one run.
    pub blocks: u32,
    /// Bytes that have been received and not been hashed.
    pub backlog_bytes: u32,
}

/// A run of received bytes that continues the hash of its piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashRun {
    pub begin: u32,
    pub length: u32,
    pub buffer: BufferId,
    pub offset: u32,
}

/// Hash `length` bytes at `offset` of `buffer` from this mark of the piece on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartJob {
    pub piece: PieceIndex,
    pub mark: Mark,
    pub length: u32,
    pub buffer: BufferId,
    pub offset: u32,
}

impl Picker {
    /// The pieces that have bytes for the hash unit, oldest first.
    pub fn hashable(&self) -> impl Iterator<Item = HashReady> {
        let ready = |open: &OpenPiece| HashReady {
            piece: open.piece(),
            blocks: open.hashable_blocks(self.buffer_bytes),
            backlog_bytes: open.unhashed_blocks() * BLOCK_BYTES,
        };
        self.open.iter().map(ready).filter(|ready| ready.blocks > 0)
    }

    /// The next bytes for the hash unit, of a piece that `hashable` listed with these `blocks`.
    pub fn next_hash_run(&mut self, piece: PieceIndex, blocks: u32) -> HashRun {
        let (buffer_bytes, length) = (self.buffer_bytes, self.layout.piece_length(piece));
        let open = self
            .find_mut(piece)
            .expect("only open pieces have bytes to hash");
        let begin = open.hash(blocks) * BLOCK_BYTES;
        let end = (begin + blocks * BLOCK_BYTES).min(length);
        HashRun {
            begin,
            length: end - begin,
            buffer: open.buffers()[(begin / buffer_bytes) as usize],
            offset: begin % buffer_bytes,
        }
    }

    /// The hash of a whole piece is known.
    pub fn judge(&mut self, piece: PieceIndex, good: bool) -> Verdict {
        self.version += 1;
        let open = self.find_mut(piece).expect("a piece being hashed is open");
        let verdict = open.judge(good);
        self.free += open.free();
        verdict
    }

    /// The next block that is to be hashed by itself, because its piece was bad.
    #[must_use]
    pub fn next_block_to_hash(&mut self) -> Option<BlockHashJob> {
        let (layout, buffer_bytes) = (self.layout, self.buffer_bytes);
        let mut all = self.open.iter_mut();
        let (open, at) = all.find_map(|open| open.next_block_to_hash().map(|at| (open, at)))?;
        open.start_block_hash();
        let block = layout.block(open.piece(), at);
        Some(BlockHashJob {
            piece: block.piece,
            at,
            length: block.length,
            buffer: open.buffers()[(block.begin / buffer_bytes) as usize],
            offset: block.begin % buffer_bytes,
        })
    }

    /// Whether `next_block_to_hash` has something.
    pub fn has_blocks_to_hash(&self) -> bool {
        let mut next = self.open.iter().map(OpenPiece::next_block_to_hash);
        next.any(|block| block.is_some())
    }

    /// Some bits of the hash of a block. After the last block of the piece, the verdict, and the
    /// givers whose blocks were bad when the piece was.
    pub fn note_block_hash(
        &mut self,
        piece: PieceIndex,
        at: BlockIndex,
        bits: u64,
    ) -> Option<(Verdict, Vec<Giver>)> {
        let open = self.find_mut(piece).expect("a piece being hashed is open");
        let verdict = open.note_block_hash(at, bits)?;
        self.free += open.free();
        self.version += 1;
        Some(verdict)
    }

    // ---- parts

    /// A seed suggests this piece, and we follow.
    pub fn note_offer(&mut self, piece: PieceIndex) {
        if let Some(open) = self.find_mut(piece) {
            open.note_offer();
        }
    }

    /// It is open because a seed suggested it to us.
    pub fn was_offered(&self, piece: PieceIndex) -> bool {
        self.find(piece).is_some_and(OpenPiece::was_offered)
    }

    /// How many peers have the piece, of those that we know.
    pub fn count(&self, piece: PieceIndex) -> u16 {
        self.ranking.count(piece)
    }

    /// Another peer has a tail of an open piece, and its marks are known.
    pub fn tail_appeared(&mut self) {
        self.version += 1;
        self.parts_due = true;
    }

    /// The next part of an open piece that can be hashed by itself.
    #[must_use]
    pub fn next_part(&mut self, marks: &Marks) -> Option<PartJob> {
        let (layout, buffer_bytes) = (self.layout, self.buffer_bytes);
        let open = if self.parts_due {
            &mut self.open[..]
        } else {
            &mut []
        };
        let job = open.iter_mut().find_map(|open| {
            let piece = open.piece();
            let bytes = open.before_tail(layout.piece_length(piece), buffer_bytes)?;
            let reaches = |mark: &&Mark| bytes.contains(&mark.begin);
            let mark = *marks.of(piece).iter().rev().find(reaches)?;
            open.tail().start_part(mark);
            Some(PartJob {
                piece,
                mark,
                length: bytes.end - mark.begin,
                buffer: open.buffers()[(mark.begin / buffer_bytes) as usize],
                offset: mark.begin % buffer_bytes,
            })
        });
        self.parts_due = job.is_some();
        job
    }

    /// To what the part of this piece leads that `next_part` gave. `whole`: the hash of the piece.
    /// False if it is not what it should lead to.
    pub fn judge_part(&mut self, piece: PieceIndex, leads_to: PieceHash, whole: PieceHash) -> bool {
        let open = self.find_mut(piece);
        let is_good = open.is_some_and(|open| open.tail().judge_part(leads_to, whole));
        self.tails_version += u64::from(is_good);
        self.parts_due = true;
        is_good
    }

    /// Where the checked end of an open piece begins.
    pub fn tail_begin(&self, piece: PieceIndex) -> Option<u32> {
        self.find(piece)?.tail_begin()
    }

    /// The open pieces that have a tail, and where it begins.
    pub fn tails(&self) -> impl Iterator<Item = (PieceIndex, u32)> {
        let tail = |open: &OpenPiece| Some((open.piece(), open.tail_begin()?));
        self.open.iter().filter_map(tail)
    }

    pub fn tails_version(&self) -> u64 {
        self.tails_version
    }

    /// The buffer that holds this block of a tail.
    pub fn tail_buffer(&self, block: Block) -> Option<BufferId> {
        let open = self.find(block.piece)?;
        let is_checked = block.begin >= open.tail_begin()?;
        is_checked.then(|| open.buffers()[(block.begin / self.buffer_bytes) as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitfield::Bitfield;
    use crate::format::layout::Layout;
    use crate::rng::Rng;
    use crate::units::PeerSlot;

    const PIECE: PieceIndex = PieceIndex(0);
    const WHOLE: PieceHash = PieceHash([9; 20]);

    /// One open piece of four blocks in two buffers.
    fn picker() -> Picker {
        let layout = Layout::new(u64::from(4 * BLOCK_BYTES), 4 * BLOCK_BYTES).unwrap();
        let mut picker = Picker::new(layout, 2 * BLOCK_BYTES, Bitfield::new(1), Rng::new(7));
        picker.want(PIECE);
        picker.piece_appeared(PIECE);
        picker.open(PIECE, alloc::vec![BufferId(5), BufferId(6)]);
        picker
    }

    fn block(index: u32) -> Block {
        picker().layout.block(PIECE, BlockIndex(index))
    }

    fn deliver(picker: &mut Picker, slot: u32, index: u32) {
        let (block, slot) = (block(index), PeerSlot(slot));
        picker.request(block, slot);
        picker.begin(block, slot, true).unwrap();
        picker.received(block, slot, Giver(slot.0.into()));
    }

    fn mark(block: u32, byte: u8) -> Mark {
        Mark {
            begin: block * BLOCK_BYTES,
            state: PieceHash([byte; 20]),
        }
    }

    fn marks(all: &[Mark]) -> Marks {
        let mut marks = Marks::default();
        all.iter().for_each(|mark| marks.add(PIECE, *mark, false));
        marks
    }

    /// Where a part begins and ends, in blocks, and its buffer and offset in blocks.
    fn next(picker: &mut Picker, marks: &Marks) -> Option<(u32, u32, u32, u32)> {
        let job = picker.next_part(marks)?;
        let begin = job.mark.begin / BLOCK_BYTES;
        let offset = job.offset / BLOCK_BYTES;
        Some((
            begin,
            begin + job.length / BLOCK_BYTES,
            job.buffer.0,
            offset,
        ))
    }

    #[test]
    fn parts_are_checked_from_the_end_of_a_piece_within_one_buffer() {
        let mut picker = picker();
        let marks = marks(&[mark(3, 3), mark(2, 2), mark(1, 1)]);
        assert_eq!(next(&mut picker, &marks), None, "nothing has come");
        deliver(&mut picker, 1, 1);
        deliver(&mut picker, 1, 2);
        assert_eq!(next(&mut picker, &marks), None, "the end has not come");
        deliver(&mut picker, 1, 3);
        assert_eq!(next(&mut picker, &marks), Some((2, 4, 6, 0)));
        assert_eq!(next(&mut picker, &marks), None, "one at a time");
        assert_eq!(picker.tail_buffer(block(3)), None);
        assert!(picker.judge_part(PIECE, WHOLE, WHOLE));
        assert_eq!(picker.tail_buffer(block(3)), Some(BufferId(6)));
        assert_eq!(next(&mut picker, &marks), Some((1, 2, 5, 1)));
        assert!(
            !picker.judge_part(PIECE, WHOLE, WHOLE),
            "not what mark 2 says"
        );
        assert_eq!(picker.tail_begin(PIECE), Some(2 * BLOCK_BYTES));
        assert_eq!(picker.tail_buffer(block(1)), None);
    }

    #[test]
    fn without_a_mark_or_once_the_piece_is_whole_no_part_is_hashed() {
        let mut picker = picker();
        (1..4).for_each(|index| deliver(&mut picker, 1, index));
        assert_eq!(next(&mut picker, &Marks::default()), None);
        deliver(&mut picker, 1, 0);
        assert_eq!(next(&mut picker, &marks(&[mark(2, 2)])), None);
    }

    /// The tail is good and may be on its way to peers. Whoever filled the rest alone is to blame.
    #[test]
    fn the_tail_of_a_bad_piece_stays() {
        let mut picker = picker();
        let marks = marks(&[mark(2, 2), mark(1, 1)]);
        deliver(&mut picker, 1, 3);
        deliver(&mut picker, 2, 2);
        assert_eq!(next(&mut picker, &marks), Some((2, 4, 6, 0)));
        assert!(picker.judge_part(PIECE, WHOLE, WHOLE));
        deliver(&mut picker, 3, 1);
        assert_eq!(next(&mut picker, &marks), Some((1, 2, 5, 1)));
        deliver(&mut picker, 3, 0);
        for _ in 0..2 {
            picker.next_hash_run(PIECE, 2);
        }
        let liar = Some(Giver(3));
        assert_eq!(picker.judge(PIECE, false), Verdict::Bad { liar });
        assert!(
            !picker.judge_part(PIECE, mark(2, 2).state, WHOLE),
            "of bytes that are gone"
        );
        assert_eq!(picker.tail_begin(PIECE), Some(2 * BLOCK_BYTES));
        assert_eq!(
            picker.begin(block(3), PeerSlot(4), false),
            None,
            "it is there"
        );
        assert_eq!((picker.free, picker.hashable().next()), (2, None));
        deliver(&mut picker, 4, 1);
        assert_eq!(next(&mut picker, &marks), Some((1, 2, 5, 1)), "once more");
        assert!(picker.judge_part(PIECE, mark(2, 2).state, WHOLE));
        deliver(&mut picker, 4, 0);
        assert_eq!(picker.hashable().map(|ready| ready.blocks).sum::<u32>(), 2);
    }
}
