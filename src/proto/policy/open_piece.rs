//! What is known of a piece between its first request and its last write? The state of each of its
//! blocks, and which peers sent them.
//!
//! A piece is *open* while its blocks are requested, received, hashed and written. In an open piece
//! a block is
//!
//! ```text
//! Free ──request──> Requested(n peers) ──begin──> Receiving(from one) ──received──> Received
//!   ^                    │  release                    │ release
//!   └────────────────────┴─────────────────────────────┘
//! ```
//!
//! Invariants: one peer at a time writes into a block; `free` and `received` count the blocks in
//! these states; no more blocks are hashed than received.

use alloc::vec::Vec;

use crate::format::layout::Layout;
use crate::limits::BLOCK_BYTES;
use crate::units::{Block, BlockIndex, BufferId, PeerSlot, PieceIndex};
use crate::vec_map::VecMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BlockState {
    Free,
    /// Requested from this many peers.
    Requested(u8),
    /// Bytes are arriving from this peer. It was requested from this many peers, this one included.
    Receiving(PeerSlot, u8),
    Received,
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
    /// The connected peers that sent blocks, because one of them lied if the piece is bad. If
    /// `alone`, a peer counts as soon as a block is requested from it.
    senders: VecMap<PeerSlot, ()>,
    /// Another peer sent blocks too and has disconnected since.
    lost_sender: bool,
    /// The piece was bad when several peers had filled it. Now a single peer fills it, so that a
    /// second failure shows which peer lies.
    alone: bool,
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
            senders: VecMap::new(),
            lost_sender: false,
            alone: false,
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

    /// The first free block, if this peer may fill the piece.
    pub(super) fn free_block(&self, slot: PeerSlot) -> Option<BlockIndex> {
        let may_fill = !self.alone || self.senders.is_empty() || self.senders.contains_key(&slot);
        if self.free == 0 || !may_fill {
            return None;
        }
        let is_free = |state: &BlockState| *state == BlockState::Free;
        let index = self.blocks.iter().position(is_free)?;
        Some(BlockIndex(index as u32))
    }

    /// Blocks that were requested and of which no byte has arrived, with the number of peers they
    /// were requested from. None if a single peer must fill the piece.
    pub(super) fn requested_blocks(&self) -> impl Iterator<Item = (BlockIndex, u8)> {
        let blocks = if self.alone { &[] } else { &self.blocks[..] };
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
            BlockState::Receiving(..) | BlockState::Received => unreachable!("never picked"),
        };
        self.free -= u32::from(was_free);
        if self.alone {
            self.senders.insert(slot, ());
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
            BlockState::Free | BlockState::Received => return None,
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

    /// Bytes of a block are about to arrive from `slot`. Returns where they go, or `None` if the
    /// block is not requested, or arrives or has arrived from another peer.
    pub(super) fn begin(
        &mut self,
        block: Block,
        slot: PeerSlot,
        buffer_bytes: u32,
    ) -> Option<(BufferId, u32)> {
        let state = &mut self.blocks[index(block)];
        let BlockState::Requested(count) = *state else {
            return None;
        };
        *state = BlockState::Receiving(slot, count);
        let buffer = self.buffers[(block.begin / buffer_bytes) as usize];
        Some((buffer, block.begin % buffer_bytes))
    }

    /// All bytes of a block that `begin` accepted have arrived. Returns how many other peers it was
    /// requested from too.
    pub(super) fn received(&mut self, block: Block, slot: PeerSlot) -> u8 {
        let state = &mut self.blocks[index(block)];
        let BlockState::Receiving(from, count) = *state else {
            panic!("only a block that was begun can be received")
        };
        assert_eq!(from, slot);
        *state = BlockState::Received;
        self.received += 1;
        self.senders.insert(slot, ());
        count - 1
    }

    /// Received blocks that continue the hash: as many as lie together in one buffer.
    pub(super) fn hashable_blocks(&self, buffer_bytes: u32) -> u32 {
        let buffer_blocks = buffer_bytes / BLOCK_BYTES;
        let together = (buffer_blocks - self.hashed % buffer_blocks) as usize;
        let rest = self.blocks.iter().skip(self.hashed as usize).take(together);
        rest.take_while(|state| **state == BlockState::Received)
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

    /// The hash was right: the piece is written to a first place.
    pub(super) fn start_writing(&mut self) {
        assert!(self.is_whole());
        self.writing = 1;
    }

    /// The hash was wrong: the piece starts anew, filled by a single peer. Returns the peer to
    /// blame, if one peer filled all of it.
    pub(super) fn start_anew(&mut self) -> Option<PeerSlot> {
        assert!(self.is_whole());
        let one_filled_it = self.senders.len() == 1 && !self.lost_sender;
        let liar = self.senders.keys().next().copied();
        self.alone = true;
        self.restart();
        liar.filter(|_| one_filled_it)
    }

    fn is_whole(&self) -> bool {
        self.received as usize == self.blocks.len()
    }

    fn restart(&mut self) {
        self.senders = VecMap::new();
        self.lost_sender = false;
        self.blocks.fill(BlockState::Free);
        (self.free, self.received, self.hashed) = (self.blocks.len() as u32, 0, 0);
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
        let was_filling = self.alone && self.senders.contains_key(&slot);
        if !was_filling || self.writing > 0 || !self.is_stalled() {
            return None;
        }
        let free = self.free;
        self.restart();
        Some(self.free - free)
    }

    /// Blocks are missing, and no peer has been asked for one.
    pub(super) fn is_stalled(&self) -> bool {
        let idle = |state: &BlockState| matches!(state, BlockState::Free | BlockState::Received);
        self.free > 0 && self.blocks.iter().all(idle)
    }

    /// `slot` has disconnected, and its number will be another peer's, which must not be blamed.
    pub(super) fn forget_sender(&mut self, slot: PeerSlot) {
        self.lost_sender |= self.senders.remove(&slot).is_some();
    }

    /// Recounts everything. `requests` lists every request that stands with a peer.
    pub(super) fn check_invariants(&self, layout: &Layout, requests: &[(PeerSlot, Block)]) {
        let count = |wanted: BlockState| self.blocks.iter().filter(|s| **s == wanted).count();
        assert_eq!(self.free as usize, count(BlockState::Free));
        assert_eq!(self.received as usize, count(BlockState::Received));
        assert!(self.hashed <= self.received);
        for (at, state) in (0..).zip(&self.blocks) {
            let block = layout.block(self.piece, BlockIndex(at));
            let standing = requests.iter().filter(|(_, b)| *b == block).count();
            match *state {
                BlockState::Free | BlockState::Received => assert_eq!(standing, 0, "{block:?}"),
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
