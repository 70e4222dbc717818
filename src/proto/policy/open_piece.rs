//! What is known of a piece between its first request and its last write? The state of each of its
//! blocks, and which peers sent them.
//!
//! A piece is *open* while its blocks are requested, received, hashed and written. In an open piece
//! a block is
//!
//! ```text
//! Free ──request──> Requested(n peers) ──begin──> Receiving(from one) ──received──> Received
//!   ^ │                  │  release                    │ ^ release
//!   │ └──────────────────│──────────begin──────────────│─┘
//!   └────────────────────┴─────────────────────────────┘
//! ```
//!
//! A block that is free may begin to arrive, because a request that takes too long does not count
//! any more and still stands with its peer.
//!
//! If a piece that several peers filled is bad, the hash of each block is kept with the giver of
//! the block, and one peer fills the piece anew, *alone*. Once the piece is good, its blocks are
//! hashed again: a giver whose block had another hash sent bad data.
//!
//! The end of a piece may be checked before the piece is whole (see `marks`): its *tail*. These
//! blocks are good and may be on their way to peers, so they stay, whatever the rest turns out to
//! be.
//!
//! Invariants: one peer at a time writes into a block; `free` and `received` count the blocks in
//! these states; no more blocks are hashed than received; the blocks of the tail are received.

use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use crate::format::layout::Layout;
use crate::limits::{BLOCK_BYTES, FILL_PATIENCE, FILL_PATIENCE_MAX};
use crate::policy::marks::Tail;
use crate::units::{Block, BlockIndex, BufferId, Giver, Instant, PeerSlot, PieceIndex};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BlockState {
    Free,
    /// Requested from this many peers.
    Requested(u8),
    /// Bytes are arriving from this peer. It was requested from this many peers, this one included.
    Receiving(PeerSlot, u8),
    Received(Giver),
}

/// Who sent a block of a bad piece, and the first bits of its hash: 16 bytes for each 16 KiB of an
/// open piece, so the pool bounds them.
#[derive(Clone, Copy, Debug)]
struct BlockHash {
    giver: Giver,
    bits: u64,
}

/// A single peer fills the piece, because it was bad when several had filled it.
#[derive(Debug)]
struct Alone {
    filler: Option<PeerSlot>,
    /// When the filler was first seen, and how long it may take.
    since: Option<Instant>,
    patience: Duration,
    /// The filler has taken too long: it is asked for nothing more, and the piece starts anew once
    /// the block that is arriving has arrived.
    given_up: bool,
    /// Connected peers that took too long or refused.
    tried: Vec<PeerSlot>,
}

/// The blocks of a whole piece are being hashed, if it is bad to keep the hashes, if it is good to
/// compare them with those that were kept.
#[derive(Debug)]
struct Check {
    good: bool,
    next: u32,
    done: u32,
    /// Givers of blocks that are not what they should be.
    liars: Vec<Giver>,
}

/// What the hash of a whole piece leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Write its buffers.
    Good,
    /// The piece starts anew. `liar` filled it alone, so it is to blame.
    Bad { liar: Option<Giver> },
    /// The hash of each block is needed first: see `Picker::next_block_to_hash`.
    Check,
}

#[derive(Debug)]
pub(super) struct OpenPiece {
    piece: PieceIndex,
    /// `buffers[i]` holds the bytes from `i * buffer_bytes` on.
    buffers: Vec<BufferId>,
    blocks: Vec<BlockState>,
    free: u32,
    received: u32,
    /// Blocks from the start of the piece that were handed to the hash unit.
    hashed: u32,
    /// Places on the disk that still have to be written. 0 until the piece is known to be good.
    writing: u32,
    alone: Option<Alone>,
    /// The blocks as they were when the piece was bad; empty if it never was.
    block_hashes: Vec<BlockHash>,
    check: Option<Check>,
    tail: Tail,
    /// A seed suggested the piece to us, so others may wait for us to pass it on.
    was_offered: bool,
}

impl OpenPiece {
    /// All blocks are free. `buffers` hold the whole piece.
    pub(super) fn new(piece: PieceIndex, block_count: u32, buffers: Vec<BufferId>) -> OpenPiece {
        OpenPiece {
            piece,
            buffers,
            blocks: alloc::vec![BlockState::Free; block_count as usize],
            free: block_count,
            received: 0,
            hashed: 0,
            writing: 0,
            alone: None,
            block_hashes: Vec::new(),
            check: None,
            tail: Tail::default(),
            was_offered: false,
        }
    }

    pub(super) fn piece(&self) -> PieceIndex {
        self.piece
    }

    pub(super) fn buffers(&self) -> &[BufferId] {
        &self.buffers
    }

    pub(super) fn into_buffers(self) -> Vec<BufferId> {
        self.buffers
    }

    /// Blocks that are requested from no peer and have not been received.
    pub(super) fn free(&self) -> u32 {
        self.free
    }

    pub(super) fn was_offered(&self) -> bool {
        self.was_offered
    }

    pub(super) fn note_offer(&mut self) {
        self.was_offered = true;
    }

    pub(super) fn tail(&mut self) -> &mut Tail {
        &mut self.tail
    }

    /// Where the tail begins.
    pub(super) fn tail_begin(&self) -> Option<u32> {
        self.tail.begin()
    }

    /// The bytes before the tail that have been received and lie in its buffer, unless a part of
    /// them is being hashed or the whole piece will be. `length`: of the piece.
    pub(super) fn before_tail(&self, length: u32, buffer_bytes: u32) -> Option<Range<u32>> {
        if self.tail.is_growing() || self.is_whole() {
            return None;
        }
        let end = self.tail.begin().unwrap_or(length);
        let blocks = &self.blocks[..end.div_ceil(BLOCK_BYTES) as usize];
        let is_received = |state: &&BlockState| matches!(state, BlockState::Received(_));
        let missing = blocks.len() - blocks.iter().rev().take_while(is_received).count();
        let begin = (missing as u32 * BLOCK_BYTES).max((end - 1) / buffer_bytes * buffer_bytes);
        (begin < end).then_some(begin..end)
    }

    /// The free blocks, if this peer may fill the piece. `is_suitable`: it may become the peer that
    /// fills it alone.
    pub(super) fn free_blocks(
        &self,
        slot: PeerSlot,
        is_suitable: impl Fn() -> bool,
    ) -> impl DoubleEndedIterator<Item = BlockIndex> {
        let may_fill = self.free > 0
            && self.alone.as_ref().is_none_or(|alone| match alone.filler {
                Some(filler) => filler == slot && !alone.given_up,
                None => is_suitable(),
            });
        let blocks = if may_fill { &self.blocks[..] } else { &[] };
        let is_free = |(_, state): &(usize, &BlockState)| **state == BlockState::Free;
        let free = blocks.iter().enumerate().filter(is_free);
        free.map(|(at, _)| BlockIndex(at as u32))
    }

    /// A single peer is to fill the piece.
    pub(super) fn is_alone(&self) -> bool {
        self.alone.is_some()
    }

    /// A single peer is to fill the piece, and none does.
    pub(super) fn lacks_filler(&self) -> bool {
        self.alone
            .as_ref()
            .is_some_and(|alone| alone.filler.is_none())
    }

    /// This peer has been tried as the single peer that fills the piece.
    pub(super) fn was_tried(&self, slot: PeerSlot) -> bool {
        self.alone
            .as_ref()
            .is_some_and(|alone| alone.tried.contains(&slot))
    }

    /// The peer that has been filling the piece alone for longer than it may take.
    pub(super) fn slow_filler(&mut self, now: Instant) -> Option<PeerSlot> {
        let is_whole = self.is_whole();
        let alone = self.alone.as_mut().filter(|_| !is_whole)?;
        let filler = alone.filler?;
        let since = *alone.since.get_or_insert(now);
        (alone.given_up || now.since(since) >= alone.patience).then_some(filler)
    }

    /// The filler has taken too long and is asked for nothing more.
    pub(super) fn has_given_up(&self) -> bool {
        self.alone.as_ref().is_some_and(|alone| alone.given_up)
    }

    /// The filler is asked for nothing more. The next peer may take longer: all of them may be
    /// slow.
    pub(super) fn give_up_filler(&mut self) {
        if let Some(alone) = self.alone.as_mut().filter(|alone| !alone.given_up) {
            alone.given_up = true;
            alone.patience = (alone.patience * 2).min(FILL_PATIENCE_MAX);
        }
    }

    /// Blocks that were requested and of which no byte has arrived, with the number of peers they
    /// were requested from. None if a single peer must fill the piece.
    pub(super) fn requested_blocks(&self) -> impl Iterator<Item = (BlockIndex, u8)> {
        let blocks = if self.is_alone() {
            &[]
        } else {
            &self.blocks[..]
        };
        let requested = |(index, state): (u32, &BlockState)| match *state {
            BlockState::Requested(count) => Some((BlockIndex(index), count)),
            _ => None,
        };
        (0..).zip(blocks).filter_map(requested)
    }

    /// The block is requested from `slot`. True if it was free before.
    pub(super) fn request(&mut self, block: Block, slot: PeerSlot) -> bool {
        let state = &mut self.blocks[index(block)];
        let was_free = *state == BlockState::Free;
        *state = match *state {
            BlockState::Free => BlockState::Requested(1),
            BlockState::Requested(count) => BlockState::Requested(count + 1),
            BlockState::Receiving(..) | BlockState::Received(_) => unreachable!("never picked"),
        };
        self.free -= u32::from(was_free);
        if let Some(alone) = &mut self.alone {
            alone.filler = Some(slot);
        }
        was_free
    }

    /// `slot` will not send the block. `Some` if other peers may be asked for it now, with the
    /// number of blocks that became free: 1, or 0 if others still have the request.
    pub(super) fn release(&mut self, block: Block, slot: PeerSlot) -> Option<u32> {
        let state = &mut self.blocks[index(block)];
        let left = match *state {
            BlockState::Requested(count) => count - 1,
            BlockState::Receiving(from, count) if from == slot => count - 1,
            BlockState::Receiving(from, count) => {
                *state = BlockState::Receiving(from, count - 1);
                return None;
            }
            BlockState::Free | BlockState::Received(_) => return None,
        };
        *state = if left > 0 {
            BlockState::Requested(left)
        } else {
            BlockState::Free
        };
        let freed = u32::from(left == 0);
        self.free += freed;
        Some(freed)
    }

    /// Bytes of a block are about to arrive from `slot`. `counts`: its request is one of those that
    /// are counted. Returns where the bytes go, or `None` if the block arrives or has arrived from
    /// another peer, or if another peer fills the piece alone.
    pub(super) fn begin(
        &mut self,
        block: Block,
        slot: PeerSlot,
        counts: bool,
        buffer_bytes: u32,
    ) -> Option<(BufferId, u32)> {
        if self
            .alone
            .as_ref()
            .is_some_and(|alone| alone.filler != Some(slot))
        {
            return None;
        }
        let state = &mut self.blocks[index(block)];
        let count = match *state {
            BlockState::Free => 0,
            BlockState::Requested(count) => count,
            BlockState::Receiving(..) | BlockState::Received(_) => return None,
        };
        self.free -= u32::from(count == 0);
        *state = BlockState::Receiving(slot, count + u8::from(!counts));
        let buffer = self.buffers[(block.begin / buffer_bytes) as usize];
        Some((buffer, block.begin % buffer_bytes))
    }

    /// All bytes of a block that `begin` accepted have arrived. Returns how many other peers it was
    /// requested from too.
    pub(super) fn received(&mut self, block: Block, slot: PeerSlot, giver: Giver) -> u8 {
        let state = &mut self.blocks[index(block)];
        let BlockState::Receiving(from, count) = *state else {
            panic!("only a block that was begun can be received")
        };
        assert_eq!(from, slot);
        *state = BlockState::Received(giver);
        self.received += 1;
        count - 1
    }

    /// Received blocks that continue the hash: as many as lie together in one buffer.
    pub(super) fn hashable_blocks(&self, buffer_bytes: u32) -> u32 {
        let buffer_blocks = buffer_bytes / BLOCK_BYTES;
        let together = (buffer_blocks - self.hashed % buffer_blocks) as usize;
        let rest = self.blocks.iter().skip(self.hashed as usize).take(together);
        rest.take_while(|state| matches!(state, BlockState::Received(_)))
            .count() as u32
    }

    /// Blocks that have been received and not been hashed.
    pub(super) fn unhashed_blocks(&self) -> u32 {
        self.received - self.hashed
    }

    /// `blocks` more are hashed. Returns the index of the first of them.
    pub(super) fn hash(&mut self, blocks: u32) -> u32 {
        let first = self.hashed;
        self.hashed += blocks;
        first
    }

    /// The hash of the whole piece is known.
    pub(super) fn judge(&mut self, good: bool) -> Verdict {
        assert!(self.is_whole());
        let giver = |state: &BlockState| match *state {
            BlockState::Received(giver) => giver,
            _ => unreachable!("all blocks of a whole piece were received"),
        };
        let first = giver(&self.blocks[0]);
        let unchecked = &self.blocks[..self.blocks_before_tail()];
        let one_filled_it = unchecked.iter().all(|state| giver(state) == first);
        if good && self.block_hashes.is_empty() {
            self.writing = 1;
            return Verdict::Good;
        }
        if !good && one_filled_it {
            self.start_anew();
            return Verdict::Bad { liar: Some(first) };
        }
        if !good {
            let unhashed = |state| BlockHash {
                giver: giver(state),
                bits: 0,
            };
            self.block_hashes = self.blocks.iter().map(unhashed).collect();
        }
        self.check = Some(Check {
            good,
            next: 0,
            done: 0,
            liars: Vec::new(),
        });
        Verdict::Check
    }

    /// The next block whose hash is needed.
    pub(super) fn next_block_to_hash(&self) -> Option<BlockIndex> {
        let next = self.check.as_ref()?.next;
        (next < self.blocks.len() as u32).then_some(BlockIndex(next))
    }

    /// The block of `next_block_to_hash` is being hashed.
    pub(super) fn start_block_hash(&mut self) {
        let check = self.check.as_mut();
        check.expect("`next_block_to_hash` has given a block").next += 1;
    }

    /// The hash of a block is known. After the last one, the verdict and all liars.
    pub(super) fn note_block_hash(
        &mut self,
        at: BlockIndex,
        bits: u64,
    ) -> Option<(Verdict, Vec<Giver>)> {
        let check = self.check.as_mut()?;
        let known = &mut self.block_hashes[at.0 as usize];
        if !check.good {
            known.bits = bits;
        } else if known.bits != bits && !check.liars.contains(&known.giver) {
            check.liars.push(known.giver);
        }
        check.done += 1;
        if (check.done as usize) < self.blocks.len() {
            return None;
        }
        let check = self.check.take()?;
        if check.good {
            self.block_hashes.clear();
            self.writing = 1;
            return Some((Verdict::Good, check.liars));
        }
        self.start_anew();
        Some((Verdict::Bad { liar: None }, check.liars))
    }

    /// The piece was bad: it starts anew, filled by a single peer.
    fn start_anew(&mut self) {
        self.alone.get_or_insert(Alone {
            filler: None,
            since: None,
            patience: FILL_PATIENCE,
            given_up: false,
            tried: Vec::new(),
        });
        self.restart();
    }

    fn is_whole(&self) -> bool {
        self.received as usize == self.blocks.len()
    }

    fn restart(&mut self) {
        if let Some(alone) = &mut self.alone {
            (alone.filler, alone.since, alone.given_up) = (None, None, false);
        }
        let anew = self.blocks_before_tail();
        self.blocks[..anew].fill(BlockState::Free);
        let kept = self.blocks.len() - anew;
        (self.free, self.received, self.hashed) = (anew as u32, kept as u32, 0);
        self.tail.starts_anew();
    }

    fn blocks_before_tail(&self) -> usize {
        let begin = self.tail.begin();
        begin.map_or(self.blocks.len(), |begin| (begin / BLOCK_BYTES) as usize)
    }

    /// The piece goes to one more place on the disk.
    pub(super) fn write_again(&mut self) {
        assert!(self.writing > 0);
        self.writing += 1;
    }

    /// One place is written. True if it was the last.
    pub(super) fn written(&mut self) -> bool {
        assert!(self.writing > 0);
        self.writing -= 1;
        self.writing == 0
    }

    pub(super) fn is_being_written(&self) -> bool {
        self.writing > 0
    }

    /// `slot` sends no more. If it was filling the piece alone, the piece starts anew, to be filled
    /// by another peer; the number of blocks that became free is returned.
    pub(super) fn restart_if_alone(&mut self, slot: PeerSlot) -> Option<u32> {
        let is_stalled = self.is_stalled();
        let alone = self.alone.as_mut().filter(|_| is_stalled)?;
        if alone.filler != Some(slot) {
            return None;
        }
        if !alone.tried.contains(&slot) {
            alone.tried.push(slot);
        }
        let free = self.free;
        self.restart();
        Some(self.free - free)
    }

    /// Blocks are missing, and no peer has been asked for one.
    pub(super) fn is_stalled(&self) -> bool {
        let idle = |state: &BlockState| matches!(state, BlockState::Free | BlockState::Received(_));
        self.free > 0 && self.blocks.iter().all(idle)
    }

    /// `slot` has disconnected, and its number will be another peer's.
    pub(super) fn forget_filler(&mut self, slot: PeerSlot) {
        if let Some(alone) = &mut self.alone {
            alone.filler = alone.filler.filter(|filler| *filler != slot);
            alone.tried.retain(|tried| *tried != slot);
        }
    }

    /// Recounts everything. `requests` lists every request that stands with a peer.
    pub(super) fn check_invariants(&self, layout: &Layout, requests: &[(PeerSlot, Block)]) {
        let count = |wanted: BlockState| self.blocks.iter().filter(|s| **s == wanted).count();
        assert_eq!(self.free as usize, count(BlockState::Free));
        let is_received = |state: &&BlockState| matches!(state, BlockState::Received(_));
        let received = self.blocks.iter().filter(is_received).count();
        assert_eq!(self.received as usize, received);
        assert!(self.hashed <= self.received);
        let tail = &self.blocks[self.blocks_before_tail()..];
        assert!(tail.iter().all(|state| is_received(&state)));
        for (at, state) in (0..).zip(&self.blocks) {
            let block = layout.block(self.piece, BlockIndex(at));
            let standing = requests.iter().filter(|(_, b)| *b == block).count();
            match *state {
                BlockState::Free | BlockState::Received(_) => assert_eq!(standing, 0, "{block:?}"),
                BlockState::Requested(n) => assert_eq!(standing, usize::from(n), "{block:?}"),
                BlockState::Receiving(from, n) => {
                    assert_eq!(standing, usize::from(n), "{block:?}");
                    assert!(requests.contains(&(from, block)));
                }
            }
        }
    }
}

fn index(block: Block) -> usize {
    (block.begin / BLOCK_BYTES) as usize
}
