//! Which block do we ask for next, and of whom.
//!
//! A *wanted* piece is known not to be on the disk and has to come from a peer. It is *open* while
//! its blocks are being asked for, received, hashed and written; only open pieces own buffers. In
//! an open piece a block is
//!
//! ```text
//! Free ──request──> Requested(n peers) ──begin──> Receiving(from one) ──received──> Received
//!   ^                    │  release                    │ release
//!   └────────────────────┴─────────────────────────────┘
//! ```
//!
//! The order of preference, and why:
//! 1. the rest of an open piece that nobody else has: the whole swarm waits for it, and a peer that
//!    was choked in the
//!    middle of a piece must not come back to begin another one;
//! 2. what this peer suggested (BEP 6): a seed offers every piece once before it offers one twice,
//!    and who offers is asked
//!    for nothing of 3 and 4 as long as there is room for what it suggests;
//! 3. the oldest open piece: a piece can be passed on only when it is whole, so finish before
//!    opening;
//! 4. a new piece, rarest first, random among equals;
//! 5. endgame, when nothing is left to open and nothing will be: a block that somebody else was
//!    asked for already.
//!
//! Invariants: a piece is ranked if and only if it is wanted and not open; what is wanted is not on
//! the disk; one peer at a time writes into a block; `free` and `received` of an open piece count
//! its blocks.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::bitfield::Bitfield;
use crate::format::layout::Layout;
use crate::limits::{BLOCK_BYTES, ENDGAME_REQUESTS_MAX};
use crate::policy::ranking::Ranking;
use crate::rng::Rng;
use crate::units::{Block, BlockIndex, BufferId, PeerSlot, PieceIndex};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BlockState {
    Free,
    /// Asked of so many peers.
    Requested(u8),
    /// Bytes are arriving from this peer; so many were asked, this one included.
    Receiving(PeerSlot, u8),
    Received,
}

struct OpenPiece {
    piece: PieceIndex,
    /// `buffers[i]` holds the bytes from `i * buffer_bytes` on.
    buffers: Vec<BufferId>,
    blocks: Vec<BlockState>,
    free: u32,
    received: u32,
    /// Blocks of the prefix that were handed to the hash unit.
    hashed: u32,
    /// Whole and good: it is on its way to so many places on the disk.
    writing: u32,
    /// Who filled it, to know whom to blame.
    givers: BTreeSet<PeerSlot>,
    /// Somebody who has left filled some of it.
    gone_givers: bool,
    /// It was bad when several had filled it: now one peer fills it alone.
    alone: bool,
}

/// What we know of the peer that could be asked.
pub struct Asked<'a> {
    pub slot: PeerSlot,
    pub has: &'a Bitfield,
    /// Pieces it suggested to us, oldest first.
    pub suggested: &'a [PieceIndex],
    /// It wants to be asked for nothing else.
    pub offers: bool,
    /// Blocks it was asked for already.
    pub requested: &'a dyn Fn(Block) -> bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// Ask for this block.
    Block(Block),
    /// Open this piece, then pick again.
    Open(PieceIndex),
    Nothing,
}

/// A piece that has bytes to hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashReady {
    pub piece: PieceIndex,
    /// So many can be hashed in one run.
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

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Write its buffers.
    Good,
    /// It starts anew. `liar` filled it alone, so it is to blame.
    Bad { liar: Option<PeerSlot> },
}

pub struct Picker {
    layout: Layout,
    buffer_bytes: u32,
    have: Bitfield,
    wanted: Bitfield,
    ranking: Ranking,
    /// Wanted pieces that are not open: those that are ranked.
    unopened: Bitfield,
    /// Oldest first.
    open: Vec<OpenPiece>,
    /// Free blocks of all open pieces, and buffers that they own: asked for at each request.
    free: u32,
    owned: usize,
    rng: Rng,
    version: u64,
}

impl OpenPiece {
    /// How many blocks more are free now is returned.
    fn restart(&mut self) -> u32 {
        let free = self.free;
        self.givers.clear();
        self.gone_givers = false;
        self.blocks.fill(BlockState::Free);
        (self.free, self.received, self.hashed) = (self.blocks.len() as u32, 0, 0);
        self.free - free
    }
}

impl Picker {
    /// Nothing is wanted yet.
    pub fn new(layout: Layout, buffer_bytes: u32, have: Bitfield, mut rng: Rng) -> Picker {
        let mut ranking = Ranking::new(layout.piece_count(), &mut rng);
        for piece in layout.pieces() {
            ranking.remove(piece);
        }
        let wanted = Bitfield::new(layout.piece_count());
        let unopened = wanted.clone();
        Picker {
            layout,
            buffer_bytes,
            have,
            wanted,
            ranking,
            unopened,
            open: Vec::new(),
            free: 0,
            owned: 0,
            rng,
            version: 0,
        }
    }

    /// Pieces on the disk.
    pub fn have(&self) -> &Bitfield {
        &self.have
    }

    /// Pieces that have to come from peers.
    pub fn wanted(&self) -> &Bitfield {
        &self.wanted
    }

    pub fn want(&mut self, piece: PieceIndex) {
        assert!(!self.have.get(piece));
        assert!(self.wanted.set(piece), "wanted already");
        self.rank(piece);
        self.version += 1;
    }

    fn rank(&mut self, piece: PieceIndex) {
        self.ranking.insert(piece, &mut self.rng);
        self.unopened.set(piece);
    }

    fn unrank(&mut self, piece: PieceIndex) {
        self.ranking.remove(piece);
        self.unopened.clear(piece);
    }

    /// It comes another way, or has come. True if it was wanted.
    pub fn unwant(&mut self, piece: PieceIndex) -> bool {
        if self.ranking.is_ranked(piece) {
            self.unrank(piece);
            self.version += 1;
        }
        self.wanted.clear(piece)
    }

    /// A piece that is not wanted any more is on the disk.
    pub fn acquired(&mut self, piece: PieceIndex) {
        assert!(!self.wanted.get(piece));
        self.have.set(piece);
        self.version += 1;
    }

    /// It is not there after all.
    pub fn lost(&mut self, piece: PieceIndex) {
        assert!(self.have.clear(piece), "only what was there can be lost");
    }

    /// Grows whenever a pick that gave nothing might now give something, but for what the peer
    /// itself says.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Pieces that are being asked for, received or hashed; those being written are not counted.
    pub fn filling_count(&self) -> usize {
        self.open.iter().filter(|open| open.writing == 0).count()
    }

    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    pub fn piece_appeared(&mut self, piece: PieceIndex) {
        self.ranking.increment(piece, &mut self.rng);
    }

    pub fn piece_vanished(&mut self, piece: PieceIndex) {
        self.ranking.decrement(piece, &mut self.rng);
        // It may have become an orphan, which makes room.
        self.version += u64::from(self.ranking.count(piece) == 0);
    }

    pub fn is_open(&self, piece: PieceIndex) -> bool {
        self.find(piece).is_some()
    }

    /// `room`: there are buffers to open another piece. `last`: no further piece will be wanted.
    pub fn pick(&self, peer: &Asked, room: bool, last: bool) -> Pick {
        let wanted = |piece: &PieceIndex| peer.has.get(*piece);
        let only_here = |open: &&OpenPiece| self.ranking.count(open.piece) == 1;
        // Mostly every block of the open pieces was asked for already.
        let open = if self.free > 0 { &self.open[..] } else { &[] };
        if let Some(block) = open
            .iter()
            .filter(only_here)
            .find_map(|open| self.free_block(open, peer))
        {
            return Pick::Block(block);
        }
        for piece in peer.suggested.iter().copied().filter(wanted) {
            if room && self.ranking.is_ranked(piece) {
                return Pick::Open(piece);
            }
            if let Some(block) = self
                .find(piece)
                .and_then(|open| self.free_block(open, peer))
            {
                return Pick::Block(block);
            }
        }
        // Without room for what it suggests it may help to make some.
        let offers = peer.offers && room;
        if !offers && let Some(block) = open.iter().find_map(|open| self.free_block(open, peer)) {
            return Pick::Block(block);
        }
        // Most peers have nothing new most of the time, and that is seen without looking at every
        // piece.
        if room
            && !offers
            && self.unopened.meets(peer.has)
            && let Some(piece) = self.ranking.iter().find(wanted)
        {
            return Pick::Open(piece);
        }
        // Nothing left to open: ask for what others were asked for, so that nobody slow holds up
        // the end.
        if last && self.ranking.iter().next().is_none() {
            return self.endgame_block(peer).map_or(Pick::Nothing, Pick::Block);
        }
        Pick::Nothing
    }

    fn free_block(&self, open: &OpenPiece, peer: &Asked) -> Option<Block> {
        let may_fill = !open.alone || open.givers.is_empty() || open.givers.contains(&peer.slot);
        if open.free == 0 || !may_fill || !peer.has.get(open.piece) {
            return None;
        }
        let index = open
            .blocks
            .iter()
            .position(|state| *state == BlockState::Free)?;
        Some(self.layout.block(open.piece, BlockIndex(index as u32)))
    }

    /// The block asked of fewest peers, this one not among them.
    fn endgame_block(&self, peer: &Asked) -> Option<Block> {
        let mut best: Option<(u8, Block)> = None;
        for open in self
            .open
            .iter()
            .filter(|open| !open.alone && peer.has.get(open.piece))
        {
            for (index, state) in open.blocks.iter().enumerate() {
                let BlockState::Requested(count) = *state else {
                    continue;
                };
                if count >= ENDGAME_REQUESTS_MAX || best.is_some_and(|(fewest, _)| fewest <= count)
                {
                    continue;
                }
                let block = self.layout.block(open.piece, BlockIndex(index as u32));
                if !(peer.requested)(block) {
                    best = Some((count, block));
                }
            }
        }
        best.map(|(_, block)| block)
    }

    /// Starts on a piece, with enough buffers for all of it.
    pub fn open(&mut self, piece: PieceIndex, buffers: Vec<BufferId>) {
        assert_eq!(
            buffers.len() as u32,
            self.layout.piece_length(piece).div_ceil(self.buffer_bytes)
        );
        self.unrank(piece);
        let blocks = self.layout.block_count(piece);
        self.free += blocks;
        self.owned += buffers.len();
        self.open.push(OpenPiece {
            piece,
            buffers,
            blocks: alloc::vec![BlockState::Free; blocks as usize],
            free: blocks,
            received: 0,
            hashed: 0,
            writing: 0,
            givers: BTreeSet::new(),
            gone_givers: false,
            alone: false,
        });
        self.version += 1;
    }

    /// The block that `pick` gave is now asked of `slot`.
    pub fn request(&mut self, block: Block, slot: PeerSlot) {
        let free = &mut self.free;
        let open =
            find_in(&mut self.open, block.piece).expect("only blocks of open pieces are picked");
        let state = &mut open.blocks[index(block)];
        *state = match *state {
            BlockState::Free => {
                open.free -= 1;
                *free -= 1;
                BlockState::Requested(1)
            }
            BlockState::Requested(count) => BlockState::Requested(count + 1),
            BlockState::Receiving(..) | BlockState::Received => unreachable!("never picked"),
        };
        if open.alone {
            open.givers.insert(slot);
        }
    }

    /// `slot` will not send this block after all (or has just been asked to forget it).
    pub fn release(&mut self, block: Block, slot: PeerSlot) {
        let Some(open) = find_in(&mut self.open, block.piece) else {
            return;
        };
        let state = &mut open.blocks[index(block)];
        let left = match *state {
            BlockState::Requested(count) => count - 1,
            BlockState::Receiving(from, count) if from == slot => count - 1,
            BlockState::Receiving(from, count) => {
                *state = BlockState::Receiving(from, count - 1);
                return;
            }
            BlockState::Free | BlockState::Received => return,
        };
        *state = if left > 0 {
            BlockState::Requested(left)
        } else {
            BlockState::Free
        };
        open.free += u32::from(left == 0);
        self.free += u32::from(left == 0);
        self.version += 1;
    }

    /// `slot` left, refused or has stopped sending: what it alone was filling starts anew with
    /// somebody else. Call after `release`.
    pub fn forsake(&mut self, slot: PeerSlot) {
        let busy = |state: &BlockState| {
            matches!(state, BlockState::Requested(_) | BlockState::Receiving(..))
        };
        for open in self
            .open
            .iter_mut()
            .filter(|open| open.alone && open.givers.contains(&slot))
        {
            if open.writing == 0 && open.free > 0 && !open.blocks.iter().any(busy) {
                self.free += open.restart();
                self.version += 1;
            }
        }
    }

    /// The connection is gone, and its slot will be somebody else's: nobody is blamed by it any
    /// more. Call after `release`.
    pub fn left(&mut self, slot: PeerSlot) {
        self.forsake(slot);
        for open in &mut self.open {
            open.gone_givers |= open.givers.remove(&slot);
        }
    }

    /// Bytes of a requested block are about to arrive: where they go. None if somebody else is
    /// sending it right now, or has.
    pub fn begin(&mut self, block: Block, slot: PeerSlot) -> Option<(BufferId, u32)> {
        let buffer_bytes = self.buffer_bytes;
        let open = self.find_mut(block.piece)?;
        let state = &mut open.blocks[index(block)];
        let BlockState::Requested(count) = *state else {
            return None;
        };
        *state = BlockState::Receiving(slot, count);
        Some((
            open.buffers[(block.begin / buffer_bytes) as usize],
            block.begin % buffer_bytes,
        ))
    }

    /// All bytes of a block that `begin` accepted have arrived. How many others were asked for it
    /// too.
    pub fn received(&mut self, block: Block, slot: PeerSlot) -> u8 {
        let open = self
            .find_mut(block.piece)
            .expect("a block in flight keeps its piece open");
        let state = &mut open.blocks[index(block)];
        let BlockState::Receiving(from, count) = *state else {
            panic!("received what was not begun")
        };
        assert_eq!(from, slot);
        *state = BlockState::Received;
        open.received += 1;
        open.givers.insert(slot);
        count - 1
    }

    /// The pieces that have bytes for the hash unit, oldest first.
    pub fn hashable(&self) -> impl Iterator<Item = HashReady> {
        let ready = |open: &OpenPiece| HashReady {
            piece: open.piece,
            blocks: self.hashable_blocks(open),
            backlog_bytes: (open.received - open.hashed) * BLOCK_BYTES,
        };
        self.open.iter().map(ready).filter(|ready| ready.blocks > 0)
    }

    /// Received blocks that continue the hash, as many as lie together in one buffer.
    fn hashable_blocks(&self, open: &OpenPiece) -> u32 {
        let buffer_blocks = self.buffer_bytes / BLOCK_BYTES;
        let together = (buffer_blocks - open.hashed % buffer_blocks) as usize;
        let rest = open.blocks.iter().skip(open.hashed as usize).take(together);
        rest.take_while(|state| **state == BlockState::Received)
            .count() as u32
    }

    /// The next bytes for the hash unit of a piece that has so many blocks for it.
    pub fn next_hash_run(&mut self, piece: PieceIndex, blocks: u32) -> HashRun {
        let (buffer_bytes, length) = (self.buffer_bytes, self.layout.piece_length(piece));
        let open = self
            .find_mut(piece)
            .expect("only open pieces have bytes to hash");
        let begin = open.hashed * BLOCK_BYTES;
        open.hashed += blocks;
        let end = (begin + blocks * BLOCK_BYTES).min(length);
        let buffer = open.buffers[(begin / buffer_bytes) as usize];
        HashRun {
            begin,
            length: end - begin,
            buffer,
            offset: begin % buffer_bytes,
        }
    }

    /// The hash of a whole piece is known.
    pub fn judge(&mut self, piece: PieceIndex, good: bool) -> Verdict {
        self.version += 1;
        let open = find_in(&mut self.open, piece).expect("a piece being hashed is open");
        assert_eq!(open.received as usize, open.blocks.len());
        if good {
            open.writing = 1;
            return Verdict::Good;
        }
        let one_filled_it = open.givers.len() == 1 && !open.gone_givers;
        let liar = open.givers.first().copied().filter(|_| one_filled_it);
        open.alone = true;
        self.free += open.restart();
        Verdict::Bad { liar }
    }

    /// The bytes of an open piece, in order.
    pub fn buffers(&self, piece: PieceIndex) -> &[BufferId] {
        &self
            .find(piece)
            .expect("only open pieces have buffers")
            .buffers
    }

    /// What `judge` found good goes to one more place on the disk.
    pub fn write_again(&mut self, piece: PieceIndex) {
        let open = self.find_mut(piece).expect("a piece being written is open");
        assert!(open.writing > 0);
        open.writing += 1;
    }

    /// One place is written. After the last the piece is closed, and its buffers go back to the
    /// caller, still full.
    pub fn written(&mut self, piece: PieceIndex) -> Option<Vec<BufferId>> {
        let at = self
            .open
            .iter()
            .position(|open| open.piece == piece)
            .expect("written pieces were open");
        let open = &mut self.open[at];
        assert!(open.writing > 0);
        open.writing -= 1;
        if open.writing > 0 {
            return None;
        }
        self.version += 1;
        self.owned -= self.open[at].buffers.len();
        Some(self.open.remove(at).buffers)
    }

    /// Closes an open piece that nobody connected can fill and nobody is filling, so that its
    /// buffers serve another one.
    pub fn abandon_orphan(&mut self) -> Option<(PieceIndex, Vec<BufferId>)> {
        let idle = |state: &BlockState| matches!(state, BlockState::Free | BlockState::Received);
        let orphan = |open: &OpenPiece| {
            open.free > 0 && self.ranking.count(open.piece) == 0 && open.blocks.iter().all(idle)
        };
        let at = self.open.iter().position(orphan)?;
        let open = self.open.remove(at);
        self.free -= open.free;
        self.owned -= open.buffers.len();
        self.rank(open.piece);
        self.version += 1;
        Some((open.piece, open.buffers))
    }

    fn find(&self, piece: PieceIndex) -> Option<&OpenPiece> {
        self.open.iter().find(|open| open.piece == piece)
    }

    fn find_mut(&mut self, piece: PieceIndex) -> Option<&mut OpenPiece> {
        find_in(&mut self.open, piece)
    }

    /// Recounts everything. `asked` lists every request that stands with a peer, `peers` what each
    /// peer has.
    pub fn check_invariants(&self, asked: &[(PeerSlot, Block)], peers: &[&Bitfield]) {
        self.ranking.check_invariants();
        for piece in self.layout.pieces() {
            let is_open = self.find(piece).is_some();
            assert!(!(self.wanted.get(piece) && self.have.get(piece)));
            assert_eq!(
                self.ranking.is_ranked(piece),
                !is_open && self.wanted.get(piece)
            );
            assert_eq!(self.ranking.is_ranked(piece), self.unopened.get(piece));
            let holders = peers.iter().filter(|has| has.get(piece)).count();
            assert_eq!(self.ranking.count(piece) as usize, holders);
        }
        assert_eq!(
            self.free,
            self.open.iter().map(|open| open.free).sum::<u32>()
        );
        assert_eq!(
            self.owned,
            self.open
                .iter()
                .map(|open| open.buffers.len())
                .sum::<usize>()
        );
        for open in &self.open {
            let count =
                |f: fn(&BlockState) -> bool| open.blocks.iter().filter(|s| f(s)).count() as u32;
            assert_eq!(open.free, count(|s| *s == BlockState::Free));
            assert_eq!(open.received, count(|s| *s == BlockState::Received));
            assert!(open.hashed <= open.received);
            for (at, state) in open.blocks.iter().enumerate() {
                let block = self.layout.block(open.piece, BlockIndex(at as u32));
                let standing = asked.iter().filter(|(_, b)| *b == block).count();
                match *state {
                    BlockState::Free | BlockState::Received => assert_eq!(standing, 0, "{block:?}"),
                    BlockState::Requested(n) => assert_eq!(standing, usize::from(n), "{block:?}"),
                    BlockState::Receiving(from, n) => {
                        assert_eq!(standing, usize::from(n), "{block:?}");
                        assert!(asked.contains(&(from, block)));
                    }
                }
            }
        }
        for (_, block) in asked {
            assert!(
                self.find(block.piece).is_some(),
                "a request for {block:?} of a piece that is not open"
            );
        }
    }

    /// Buffers owned by open pieces.
    pub fn buffer_count(&self) -> usize {
        self.owned
    }
}

fn find_in(open: &mut [OpenPiece], piece: PieceIndex) -> Option<&mut OpenPiece> {
    open.iter_mut().find(|open| open.piece == piece)
}

fn index(block: Block) -> usize {
    (block.begin / BLOCK_BYTES) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two blocks a piece, one buffer a piece. `counts` is how many peers have each piece, `disk`
    /// what we have (`#`).
    fn picker(counts: &str, disk: &str) -> Picker {
        let pieces = counts.len() as u32;
        let layout = Layout::new(u64::from(pieces * 2 * BLOCK_BYTES), 2 * BLOCK_BYTES).unwrap();
        let mut picker = Picker::new(layout, 2 * BLOCK_BYTES, field(disk), Rng::new(7));
        for (at, count) in counts.chars().enumerate() {
            for _ in 0..count.to_digit(10).unwrap() {
                picker.piece_appeared(PieceIndex(at as u32));
            }
        }
        field(disk).zeros().for_each(|piece| picker.want(piece));
        picker
    }

    fn field(picture: &str) -> Bitfield {
        let mut field = Bitfield::new(picture.len() as u32);
        for (at, _) in picture.chars().enumerate().filter(|(_, c)| *c == '#') {
            field.set(PieceIndex(at as u32));
        }
        field
    }

    fn block(piece: u32, index: u32) -> Block {
        Block {
            piece: PieceIndex(piece),
            begin: index * BLOCK_BYTES,
            length: BLOCK_BYTES,
        }
    }

    /// What peer `slot` with these pieces and suggestions would be asked; it was asked nothing yet.
    fn pick(picker: &Picker, slot: u32, has: &str, suggested: &[u32]) -> Pick {
        let suggested: Vec<PieceIndex> = suggested.iter().copied().map(PieceIndex).collect();
        let asked = Asked {
            slot: PeerSlot(slot),
            has: &field(has),
            suggested: &suggested,
            offers: false,
            requested: &|_| false,
        };
        picker.pick(&asked, true, true)
    }

    fn open(picker: &mut Picker, piece: u32) {
        picker.open(PieceIndex(piece), alloc::vec![BufferId(piece)]);
    }

    /// `slot` is asked for the block and sends it.
    fn deliver(picker: &mut Picker, slot: u32, block: Block) {
        picker.request(block, PeerSlot(slot));
        picker.begin(block, PeerSlot(slot)).unwrap();
        picker.received(block, PeerSlot(slot));
    }

    #[test]
    fn rarest_first_among_what_the_peer_has_and_we_lack() {
        assert_eq!(
            pick(&picker("3123", "...."), 0, "####", &[]),
            Pick::Open(PieceIndex(1))
        );
        assert_eq!(
            pick(&picker("3123", ".#.."), 0, "####", &[]),
            Pick::Open(PieceIndex(2))
        );
        assert_eq!(
            pick(&picker("3123", "...."), 0, "#...", &[]),
            Pick::Open(PieceIndex(0))
        );
        assert_eq!(pick(&picker("3123", "####"), 0, "####", &[]), Pick::Nothing);
        assert_eq!(pick(&picker("3123", "...."), 0, "....", &[]), Pick::Nothing);
    }

    #[test]
    fn open_pieces_come_before_new_ones_and_suggestions_before_both() {
        let mut picker = picker("3123", "....");
        open(&mut picker, 3);
        assert_eq!(pick(&picker, 0, "####", &[]), Pick::Block(block(3, 0)));
        assert_eq!(pick(&picker, 0, "####", &[0]), Pick::Open(PieceIndex(0)));
        assert_eq!(
            pick(&picker, 0, ".###", &[0]),
            Pick::Block(block(3, 0)),
            "it does not have what it suggests"
        );
        picker.request(block(3, 0), PeerSlot(0));
        assert_eq!(
            pick(&picker, 1, "####", &[]),
            Pick::Block(block(3, 1)),
            "several peers on one piece"
        );
    }

    #[test]
    fn a_peer_that_offers_is_asked_only_for_what_it_suggests() {
        let mut picker = picker("3123", "....");
        let ask = |picker: &Picker, suggested: &[PieceIndex], room| {
            let has = field("####");
            let asked = Asked {
                slot: PeerSlot(0),
                has: &has,
                suggested,
                offers: true,
                requested: &|_| false,
            };
            picker.pick(&asked, room, true)
        };
        open(&mut picker, 3);
        assert_eq!(
            ask(&picker, &[], true),
            Pick::Nothing,
            "neither the open piece nor the rarest"
        );
        assert_eq!(
            ask(&picker, &[PieceIndex(2)], true),
            Pick::Open(PieceIndex(2))
        );
        assert_eq!(
            ask(&picker, &[PieceIndex(2)], false),
            Pick::Block(block(3, 0)),
            "to make room"
        );
    }

    #[test]
    fn without_room_only_open_pieces_are_picked() {
        let mut picker = picker("11", "..");
        let nobody = Asked {
            slot: PeerSlot(0),
            has: &field("##"),
            suggested: &[],
            offers: false,
            requested: &|_| false,
        };
        assert_eq!(picker.pick(&nobody, false, true), Pick::Nothing);
        open(&mut picker, 1);
        assert_eq!(picker.pick(&nobody, false, true), Pick::Block(block(1, 0)));
    }

    #[test]
    fn endgame_asks_a_second_peer_only_when_nothing_is_left_to_open() {
        let mut picker = picker("11", "..");
        open(&mut picker, 0);
        picker.request(block(0, 0), PeerSlot(0));
        picker.request(block(0, 1), PeerSlot(0));
        assert_eq!(
            pick(&picker, 1, "#.", &[]),
            Pick::Nothing,
            "piece 1 is not open yet"
        );
        open(&mut picker, 1);
        assert_eq!(pick(&picker, 1, "#.", &[]), Pick::Block(block(0, 0)));
        picker.request(block(0, 0), PeerSlot(1));
        assert_eq!(
            pick(&picker, 2, "#.", &[]),
            Pick::Block(block(0, 1)),
            "the one asked of fewest"
        );
        assert!(picker.begin(block(0, 0), PeerSlot(1)).is_some());
        assert!(
            picker.begin(block(0, 0), PeerSlot(0)).is_none(),
            "one writer at a time"
        );
        assert_eq!(
            picker.received(block(0, 0), PeerSlot(1)),
            1,
            "peer 0 is to be cancelled"
        );
    }

    #[test]
    fn the_hash_follows_the_prefix() {
        let mut picker = picker("1", ".");
        open(&mut picker, 0);
        deliver(&mut picker, 0, block(0, 1));
        assert_eq!(picker.hashable().next(), None, "the first block is missing");
        deliver(&mut picker, 0, block(0, 0));
        let whole = HashRun {
            begin: 0,
            length: 2 * BLOCK_BYTES,
            buffer: BufferId(0),
            offset: 0,
        };
        let ready = HashReady {
            piece: PieceIndex(0),
            blocks: 2,
            backlog_bytes: 2 * BLOCK_BYTES,
        };
        assert_eq!(picker.hashable().collect::<Vec<_>>(), [ready]);
        assert_eq!(picker.next_hash_run(PieceIndex(0), 2), whole);
        assert_eq!(picker.hashable().next(), None);
        assert_eq!(picker.judge(PieceIndex(0), true), Verdict::Good);
        assert_eq!(picker.buffers(PieceIndex(0)), [BufferId(0)]);
        assert!(picker.unwant(PieceIndex(0)));
        picker.write_again(PieceIndex(0));
        assert_eq!(picker.written(PieceIndex(0)), None, "one of two places");
        assert_eq!(
            picker.written(PieceIndex(0)),
            Some(alloc::vec![BufferId(0)])
        );
        picker.acquired(PieceIndex(0));
        assert!(picker.have().is_full());
    }

    #[test]
    fn a_bad_piece_is_filled_again_by_one_alone_and_then_there_is_a_liar() {
        let mut picker = picker("1", ".");
        open(&mut picker, 0);
        deliver(&mut picker, 0, block(0, 0));
        deliver(&mut picker, 1, block(0, 1));
        assert_eq!(
            picker.judge(PieceIndex(0), false),
            Verdict::Bad { liar: None }
        );
        deliver(&mut picker, 1, block(0, 0));
        assert_eq!(
            pick(&picker, 0, "#", &[]),
            Pick::Nothing,
            "peer 1 fills it alone"
        );
        deliver(&mut picker, 1, block(0, 1));
        assert_eq!(
            picker.judge(PieceIndex(0), false),
            Verdict::Bad {
                liar: Some(PeerSlot(1))
            }
        );
        assert_eq!(pick(&picker, 0, "#", &[]), Pick::Block(block(0, 0)));
    }

    #[test]
    fn one_alone_who_leaves_is_replaced() {
        let mut picker = picker("1", ".");
        open(&mut picker, 0);
        deliver(&mut picker, 0, block(0, 0));
        deliver(&mut picker, 1, block(0, 1));
        picker.judge(PieceIndex(0), false);
        deliver(&mut picker, 1, block(0, 0));
        picker.request(block(0, 1), PeerSlot(1));
        picker.release(block(0, 1), PeerSlot(1));
        picker.forsake(PeerSlot(1));
        assert_eq!(pick(&picker, 0, "#", &[]), Pick::Block(block(0, 0)));
    }

    #[test]
    fn an_orphan_gives_its_buffers_back() {
        let mut picker = picker("11", "..");
        open(&mut picker, 0);
        assert_eq!(picker.abandon_orphan(), None, "somebody has it");
        picker.piece_vanished(PieceIndex(0));
        assert_eq!(
            picker.abandon_orphan(),
            Some((PieceIndex(0), alloc::vec![BufferId(0)]))
        );
        picker.check_invariants(&[], &[&field(".#")]);
    }
}
