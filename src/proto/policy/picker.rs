//! Which block do we ask for next, and of which peer?
//!
//! A *wanted* piece is known not to be on the disk and has to come from a peer. It is *open* while
//! its blocks are requested, received, hashed and written (see `open_piece`). Only open pieces own
//! buffers.
//!
//! The order of preference, and why:
//! 1. The rest of an open piece that no other peer has. The whole swarm waits for it, and a peer
//!    that was choked in the middle of a piece must not begin another one when it comes back.
//! 2. What this peer suggested (BEP 6). A seed offers every piece once before it offers one twice.
//!    A peer that offers is asked for nothing of 3 and 4 while there is room for what it suggests.
//! 3. The oldest open piece. Few others can pass on a piece that is not whole, so finish before
//!    opening.
//! 4. A new piece: rarest first, random among equals.
//! 5. A new piece of which this peer has the tail.
//! 6. Endgame, when nothing is left to open and nothing will be: a block that was requested from
//!    another peer already.
//!
//! Invariants: a piece is ranked if and only if it is wanted and not open; a wanted piece is not on
//! the disk; `free` and `owned` are the sums over all open pieces.

mod hashing;

use alloc::vec::Vec;

pub use self::hashing::HashReady;
use crate::bitfield::Bitfield;
use crate::format::layout::Layout;
use crate::limits::ENDGAME_REQUESTS_MAX;
use crate::policy::open_piece::OpenPiece;
pub use crate::policy::open_piece::Verdict;
use crate::policy::ranking::Ranking;
use crate::rng::Rng;
use crate::units::{Block, BufferId, Giver, Instant, PeerSlot, PieceIndex};
use crate::vec_map::VecMap;

#[derive(Debug)]
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
    /// Free blocks of all open pieces, and buffers that they own. Both are needed at each request.
    free: u32,
    owned: usize,
    rng: Rng,
    version: u64,
    /// Grows with each part of a piece that was checked (see `hashing`).
    tails_version: u64,
    /// `next_part` may have something.
    parts_due: bool,
}

/// What we know of the peer that could be asked, and of ourselves.
pub struct Asked<'a> {
    pub slot: PeerSlot,
    pub has: &'a Bitfield,
    /// From which byte on it has pieces that it does not have whole.
    pub tails: &'a VecMap<PieceIndex, u32>,
    /// It is asked for the last block of a piece first, so that its parts can be checked.
    pub backwards: bool,
    /// False for pieces that it is to be asked for only if it suggests them.
    pub may_fetch: &'a dyn Fn(PieceIndex) -> bool,
    /// Pieces it suggested to us, oldest first.
    pub suggested: &'a [PieceIndex],
    /// It wants to be asked for nothing but what it suggests.
    pub offers: bool,
    /// True for blocks that were requested from it already.
    pub requested: &'a dyn Fn(Block) -> bool,
    /// Some of these requests are late, so their blocks may be free.
    pub late: bool,
    /// It may become the peer that fills this piece alone.
    pub may_fill: &'a dyn Fn(PieceIndex) -> bool,
    /// There are buffers to open another piece.
    pub room: bool,
    /// No further piece will be wanted.
    pub last: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// Ask for this block.
    Block(Block),
    /// Open this piece, then pick again.
    Open(PieceIndex),
    Nothing,
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
            tails_version: 0,
            parts_due: false,
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

    /// The piece has come, or comes another way. True if it was wanted.
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

    /// A piece that was thought to be on the disk is not there.
    pub fn lost(&mut self, piece: PieceIndex) {
        assert!(self.have.clear(piece), "only what was there can be lost");
    }

    /// Grows whenever a pick that gave nothing might now give something, except for changes in what
    /// is known of the peer itself.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Pieces that are requested, received or hashed. Those being written are not counted.
    pub fn filling_count(&self) -> usize {
        let filling = |open: &&OpenPiece| !open.is_being_written();
        self.open.iter().filter(filling).count()
    }

    /// Buffers owned by open pieces.
    pub fn buffer_count(&self) -> usize {
        self.owned
    }

    /// A missing piece cannot be fetched from any peer that is connected.
    pub fn lacks_holders(&self) -> bool {
        let lacks = |piece: PieceIndex| self.ranking.count(piece) == 0;
        let filling = |open: &&OpenPiece| !open.is_being_written();
        self.ranking.iter().next().is_some_and(lacks)
            || self
                .open
                .iter()
                .filter(filling)
                .any(|open| lacks(open.piece()))
    }

    pub fn is_open(&self, piece: PieceIndex) -> bool {
        self.find(piece).is_some()
    }

    /// One more peer has the piece.
    pub fn piece_appeared(&mut self, piece: PieceIndex) {
        self.ranking.increment(piece, &mut self.rng);
    }

    /// One peer less has the piece.
    pub fn piece_vanished(&mut self, piece: PieceIndex) {
        self.ranking.decrement(piece, &mut self.rng);
        // If it was the last, `abandon_orphan` may make room now; if it was the last of our room,
        // routed peers may be asked.
        self.version += 1;
    }

    pub fn pick(&self, peer: &Asked) -> Pick {
        let Asked { room, last, .. } = *peer;
        let has = |piece: &PieceIndex| peer.has.get(*piece);
        let wanted = |piece: &PieceIndex| has(piece) && (peer.may_fetch)(*piece);
        let has_tail = |piece: &PieceIndex| peer.tails.contains_key(piece);
        let asked = |open: &&OpenPiece| {
            let piece = open.piece();
            (has(&piece) || has_tail(&piece)) && (peer.may_fetch)(piece)
        };
        let only_here = |open: &&OpenPiece| self.ranking.count(open.piece()) == 1;
        // Mostly every block of the open pieces is requested already.
        let open = if self.free > 0 { &self.open[..] } else { &[] };
        if let Some(block) = open
            .iter()
            .filter(only_here)
            .filter(asked)
            .find_map(|open| self.free_block(open, peer))
        {
            return Pick::Block(block);
        }
        for piece in peer.suggested.iter().copied().filter(has) {
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
        // Without room for what it suggests, a peer that offers may help to finish open pieces,
        // which makes room.
        let offers = peer.offers && room;
        let mut finished = open.iter().filter(asked);
        if !offers && let Some(block) = finished.find_map(|open| self.free_block(open, peer)) {
            return Pick::Block(block);
        }
        // Most peers have nothing new most of the time. `meets` finds that out without looking at
        // every piece.
        if room
            && !offers
            && self.unopened.meets(peer.has)
            && let Some(piece) = self.ranking.iter().find(wanted)
        {
            return Pick::Open(piece);
        }
        let is_new =
            |piece: &&PieceIndex| self.ranking.is_ranked(**piece) && (peer.may_fetch)(**piece);
        if room
            && !offers
            && let Some(piece) = peer.tails.keys().find(is_new)
        {
            return Pick::Open(*piece);
        }
        // Nothing is left to open: ask a second peer for the blocks that others were asked for, so
        // that a slow peer does not delay the end.
        if last && self.ranking.iter().next().is_none() {
            return self.endgame_block(peer).map_or(Pick::Nothing, Pick::Block);
        }
        Pick::Nothing
    }

    fn free_block(&self, open: &OpenPiece, peer: &Asked) -> Option<Block> {
        let piece = open.piece();
        let from = match peer.has.get(piece) {
            true => 0,
            false => *peer.tails.get(&piece)?,
        };
        let free = open.free_blocks(peer.slot, || from == 0 && (peer.may_fill)(piece));
        let mut blocks = free.map(|index| self.layout.block(piece, index));
        let may_ask =
            |block: &Block| block.begin >= from && !(peer.late && (peer.requested)(*block));
        match peer.backwards {
            true => blocks.rfind(may_ask),
            false => blocks.find(may_ask),
        }
    }

    /// The block that was requested from the fewest peers, and not from this one.
    fn endgame_block(&self, peer: &Asked) -> Option<Block> {
        let mut best: Option<(u8, Block)> = None;
        let asked =
            |open: &&OpenPiece| peer.has.get(open.piece()) && (peer.may_fetch)(open.piece());
        for open in self.open.iter().filter(asked) {
            for (index, count) in open.requested_blocks() {
                if count >= ENDGAME_REQUESTS_MAX || best.is_some_and(|(fewest, _)| fewest <= count)
                {
                    continue;
                }
                let block = self.layout.block(open.piece(), index);
                if !(peer.requested)(block) {
                    best = Some((count, block));
                }
            }
        }
        best.map(|(_, block)| block)
    }

    /// Opens a piece, with enough buffers for all of it.
    pub fn open(&mut self, piece: PieceIndex, buffers: Vec<BufferId>) {
        assert_eq!(
            buffers.len() as u32,
            self.layout.piece_length(piece).div_ceil(self.buffer_bytes)
        );
        self.unrank(piece);
        let blocks = self.layout.block_count(piece);
        self.free += blocks;
        self.owned += buffers.len();
        self.open.push(OpenPiece::new(piece, blocks, buffers));
        self.version += 1;
    }

    /// The block that `pick` gave is now requested from `slot`.
    pub fn request(&mut self, block: Block, slot: PeerSlot) {
        let open = self
            .find_mut(block.piece)
            .expect("only blocks of open pieces are picked");
        if open.request(block, slot) {
            self.free -= 1;
        }
    }

    /// `slot` will not send this block, or has just been asked not to send it.
    pub fn release(&mut self, block: Block, slot: PeerSlot) {
        let released = self
            .find_mut(block.piece)
            .and_then(|open| open.release(block, slot));
        if let Some(freed) = released {
            self.free += freed;
            self.version += 1;
        }
    }

    /// `slot` has disconnected, refused a request or stopped sending. The pieces that it was
    /// filling alone start anew with another peer. Call after `release`.
    pub fn restart_pieces_of(&mut self, slot: PeerSlot) {
        for open in &mut self.open {
            if let Some(freed) = open.restart_if_alone(slot) {
                self.free += freed;
                self.version += 1;
            }
        }
    }

    /// `slot` has disconnected, and its number will be another peer's. Call after `release`.
    pub fn left(&mut self, slot: PeerSlot) {
        self.restart_pieces_of(slot);
        self.open
            .iter_mut()
            .for_each(|open| open.forget_filler(slot));
    }

    /// Bytes of a requested block are about to arrive. `counts`: the request was not released
    /// meanwhile. If it was, it counts again from now on. Returns where the bytes go, or `None` if
    /// another peer is sending the block right now, or has sent it.
    pub fn begin(&mut self, block: Block, slot: PeerSlot, counts: bool) -> Option<(BufferId, u32)> {
        let buffer_bytes = self.buffer_bytes;
        let open = self.find_mut(block.piece)?;
        let before = open.free();
        let place = open.begin(block, slot, counts, buffer_bytes);
        let taken = before - open.free();
        self.free -= taken;
        place
    }

    /// A single peer is to fill this piece: a request for it never counts as late.
    pub fn is_alone(&self, piece: PieceIndex) -> bool {
        self.find(piece).is_some_and(OpenPiece::is_alone)
    }

    /// This peer was tried in vain as the one that fills the piece alone.
    pub fn was_tried(&self, piece: PieceIndex, slot: PeerSlot) -> bool {
        self.find(piece).is_some_and(|open| open.was_tried(slot))
    }

    /// The pieces that one peer has been filling alone for longer than it may take. To be asked now
    /// and then.
    pub fn slow_fillers(&mut self, now: Instant) -> Vec<(PieceIndex, PeerSlot)> {
        // Which peer is suitable depends on more than the version knows of.
        self.version += u64::from(self.open.iter().any(OpenPiece::lacks_filler));
        let slow = |open: &mut OpenPiece| Some((open.piece(), open.slow_filler(now)?));
        self.open.iter_mut().filter_map(slow).collect()
    }

    /// The filler of this piece is asked for nothing more, although one of its blocks may arrive.
    pub fn has_given_up(&self, piece: PieceIndex) -> bool {
        self.find(piece).is_some_and(OpenPiece::has_given_up)
    }

    /// The peer that fills this piece alone is too slow. Its requests for the piece have been
    /// released. While one of its blocks is arriving it stays the filler, and is still too slow.
    pub fn replace_filler(&mut self, piece: PieceIndex, slot: PeerSlot) {
        if let Some(open) = self.find_mut(piece) {
            open.give_up_filler();
        }
        self.restart_pieces_of(slot);
    }

    /// All bytes of a block that `begin` accepted have arrived. Returns how many other peers it was
    /// requested from too.
    pub fn received(&mut self, block: Block, slot: PeerSlot, giver: Giver) -> u8 {
        let open = self
            .find_mut(block.piece)
            .expect("a block in flight keeps its piece open");
        let others = open.received(block, slot, giver);
        self.parts_due = true;
        others
    }

    /// The bytes of an open piece, in order.
    pub fn buffers(&self, piece: PieceIndex) -> &[BufferId] {
        let open = self.find(piece).expect("only open pieces have buffers");
        open.buffers()
    }

    /// A piece that `judge` found good goes to one more place on the disk.
    pub fn write_again(&mut self, piece: PieceIndex) {
        let open = self.find_mut(piece).expect("a piece being written is open");
        open.write_again();
    }

    /// One place is written. After the last place the piece is closed, and its buffers go back to
    /// the caller, still full.
    pub fn written(&mut self, piece: PieceIndex) -> Option<Vec<BufferId>> {
        let at = self
            .open
            .iter()
            .position(|open| open.piece() == piece)
            .expect("written pieces were open");
        if !self.open[at].written() {
            return None;
        }
        self.version += 1;
        let buffers = self.open.remove(at).into_buffers();
        self.owned -= buffers.len();
        Some(buffers)
    }

    /// Closes an open piece that no connected peer has and no peer is sending, so that its buffers
    /// serve another piece.
    pub fn abandon_orphan(&mut self) -> Option<(PieceIndex, Vec<BufferId>)> {
        let orphan = |open: &OpenPiece| open.is_stalled() && self.ranking.count(open.piece()) == 0;
        let at = self.open.iter().position(orphan)?;
        let open = self.open.remove(at);
        let piece = open.piece();
        self.free -= open.free();
        self.owned -= open.buffers().len();
        self.rank(piece);
        self.version += 1;
        Some((piece, open.into_buffers()))
    }

    fn find(&self, piece: PieceIndex) -> Option<&OpenPiece> {
        self.open.iter().find(|open| open.piece() == piece)
    }

    fn find_mut(&mut self, piece: PieceIndex) -> Option<&mut OpenPiece> {
        self.open.iter_mut().find(|open| open.piece() == piece)
    }

    /// Recounts everything. `requests` lists every request that stands with a peer, `peers` what
    /// each peer has.
    pub fn check_invariants(&self, requests: &[(PeerSlot, Block)], peers: &[&Bitfield]) {
        self.ranking.check_invariants();
        for piece in self.layout.pieces() {
            let is_open = self.is_open(piece);
            assert!(!(self.wanted.get(piece) && self.have.get(piece)));
            assert_eq!(
                self.ranking.is_ranked(piece),
                !is_open && self.wanted.get(piece)
            );
            assert_eq!(self.ranking.is_ranked(piece), self.unopened.get(piece));
            let holders = peers.iter().filter(|has| has.get(piece)).count();
            assert_eq!(self.ranking.count(piece) as usize, holders);
        }
        let (free, owned) = self.open.iter().fold((0, 0), |(free, owned), open| {
            (free + open.free(), owned + open.buffers().len())
        });
        assert_eq!((self.free, self.owned), (free, owned));
        for open in &self.open {
            open.check_invariants(&self.layout, requests);
        }
        for (_, block) in requests {
            assert!(
                self.is_open(block.piece),
                "a request for {block:?} of a piece that is not open"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::hashing::HashRun;
    use super::*;
    use crate::limits::BLOCK_BYTES;

    /// Each piece has two blocks and one buffer. `counts` says how many peers have each piece,
    /// `disk` which pieces we have (`#`).
    fn picker(counts: &str, disk: &str) -> Picker {
        let pieces = counts.len() as u32;
        let layout = Layout::new(u64::from(pieces * 2 * BLOCK_BYTES), 2 * BLOCK_BYTES).unwrap();
        let mut picker = Picker::new(layout, 2 * BLOCK_BYTES, field(disk), Rng::new(7));
        for (at, count) in counts.chars().enumerate() {
            for _ in 0..count.to_digit(10).unwrap() {
                picker.piece_appeared(PieceIndex(at as u32));
            }
        }
        field(disk).missing().for_each(|piece| picker.want(piece));
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

    /// A peer of which nothing is special.
    fn peer<'a>(
        has: &'a Bitfield,
        tails: &'a VecMap<PieceIndex, u32>,
        suggested: &'a [PieceIndex],
    ) -> Asked<'a> {
        Asked {
            slot: PeerSlot(0),
            has,
            may_fetch: &|_| true,
            suggested,
            tails,
            backwards: false,
            offers: false,
            requested: &|_| false,
            late: false,
            may_fill: &|_| true,
            room: true,
            last: true,
        }
    }

    /// What peer `slot` with these pieces and suggestions would be asked for. It has no requests
    /// yet.
    fn pick(picker: &Picker, slot: u32, has: &str, suggested: &[u32]) -> Pick {
        let suggested: Vec<PieceIndex> = suggested.iter().copied().map(PieceIndex).collect();
        let (has, none) = (field(has), VecMap::new());
        picker.pick(&Asked {
            slot: PeerSlot(slot),
            ..peer(&has, &none, &suggested)
        })
    }

    fn giver(slot: u32) -> Giver {
        Giver(u64::from(slot) + 100)
    }

    /// The hashes of both blocks of a piece become known.
    fn hash_blocks(picker: &mut Picker, bits: [u64; 2]) -> (Verdict, Vec<Giver>) {
        let jobs = [
            picker.next_block_to_hash().unwrap(),
            picker.next_block_to_hash().unwrap(),
        ];
        assert_eq!(picker.next_block_to_hash(), None);
        // In any order.
        assert_eq!(
            picker.note_block_hash(jobs[1].piece, jobs[1].at, bits[1]),
            None
        );
        picker
            .note_block_hash(jobs[0].piece, jobs[0].at, bits[0])
            .unwrap()
    }

    fn open(picker: &mut Picker, piece: u32) {
        picker.open(PieceIndex(piece), alloc::vec![BufferId(piece)]);
    }

    /// The block is requested from `slot`, which sends it.
    fn deliver(picker: &mut Picker, slot: u32, block: Block) {
        picker.request(block, PeerSlot(slot));
        picker.begin(block, PeerSlot(slot), true).unwrap();
        picker.received(block, PeerSlot(slot), giver(slot));
    }

    #[test]
    fn rarest_first_among_the_pieces_the_peer_has_and_we_lack() {
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

    /// A peer with the tail of a piece is asked for blocks of it, and a new piece is opened for it
    /// when there is no whole one to open. A seed is asked backwards.
    #[test]
    fn of_a_tail_only_blocks_in_it_are_requested() {
        let mut picker = picker("31", "..");
        let ask = |picker: &Picker, has: &str, tails: &[(u32, u32)], backwards| {
            let mut theirs = VecMap::new();
            for (piece, begin) in tails {
                theirs.insert(PieceIndex(*piece), begin * BLOCK_BYTES);
            }
            picker.pick(&Asked {
                backwards,
                ..peer(&field(has), &theirs, &[])
            })
        };
        assert_eq!(ask(&picker, "..", &[], false), Pick::Nothing);
        assert_eq!(
            ask(&picker, "#.", &[(1, 1)], false),
            Pick::Open(PieceIndex(0))
        );
        assert_eq!(
            ask(&picker, "..", &[(1, 1)], false),
            Pick::Open(PieceIndex(1))
        );
        open(&mut picker, 1);
        assert_eq!(
            ask(&picker, "..", &[(1, 1)], false),
            Pick::Block(block(1, 1))
        );
        assert_eq!(ask(&picker, ".#", &[], true), Pick::Block(block(1, 1)));
        picker.request(block(1, 1), PeerSlot(0));
        assert_eq!(ask(&picker, "..", &[(1, 1)], false), Pick::Nothing);
        assert_eq!(
            ask(&picker, "..", &[(1, 0)], false),
            Pick::Block(block(1, 0))
        );
    }

    #[test]
    fn a_peer_that_offers_is_asked_only_for_what_it_suggests() {
        let mut picker = picker("3123", "....");
        let ask = |picker: &Picker, suggested: &[PieceIndex], room| {
            let has = field("####");
            picker.pick(&Asked {
                offers: true,
                room,
                ..peer(&has, &VecMap::new(), suggested)
            })
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
        let asked = Asked {
            slot: PeerSlot(0),
            has: &field("##"),
            may_fetch: &|_| true,
            suggested: &[],
            tails: &VecMap::new(),
            backwards: false,
            offers: false,
            requested: &|_| false,
            late: false,
            may_fill: &|_| true,
            room: false,
            last: true,
        };
        assert_eq!(picker.pick(&asked), Pick::Nothing);
        open(&mut picker, 1);
        assert_eq!(picker.pick(&asked), Pick::Block(block(1, 0)));
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
            "the block requested from the fewest peers"
        );
        assert!(picker.begin(block(0, 0), PeerSlot(1), true).is_some());
        assert!(
            picker.begin(block(0, 0), PeerSlot(0), true).is_none(),
            "one writer at a time"
        );
        assert_eq!(
            picker.received(block(0, 0), PeerSlot(1), giver(1)),
            1,
            "peer 0 is to be cancelled"
        );
    }

    #[test]
    fn hashing_follows_the_received_prefix() {
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
    fn a_bad_piece_is_filled_again_by_a_single_peer_which_is_blamed_next() {
        let mut picker = picker("1", ".");
        open(&mut picker, 0);
        deliver(&mut picker, 0, block(0, 0));
        deliver(&mut picker, 1, block(0, 1));
        assert_eq!(picker.judge(PieceIndex(0), false), Verdict::Check);
        assert_eq!(pick(&picker, 0, "#", &[]), Pick::Nothing, "not yet");
        let verdict = (Verdict::Bad { liar: None }, Vec::new());
        assert_eq!(hash_blocks(&mut picker, [1, 2]), verdict);
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
                liar: Some(giver(1))
            }
        );
        assert_eq!(pick(&picker, 0, "#", &[]), Pick::Block(block(0, 0)));
    }

    #[test]
    fn once_a_bad_piece_is_good_the_giver_of_what_differs_is_blamed() {
        let mut picker = picker("1", ".");
        open(&mut picker, 0);
        deliver(&mut picker, 0, block(0, 0));
        deliver(&mut picker, 1, block(0, 1));
        picker.judge(PieceIndex(0), false);
        hash_blocks(&mut picker, [1, 666]);
        deliver(&mut picker, 2, block(0, 0));
        deliver(&mut picker, 2, block(0, 1));
        assert_eq!(picker.judge(PieceIndex(0), true), Verdict::Check);
        let verdict = (Verdict::Good, alloc::vec![giver(1)]);
        assert_eq!(hash_blocks(&mut picker, [1, 2]), verdict);
        assert!(picker.written(PieceIndex(0)).is_some());
    }

    #[test]
    fn a_single_filler_that_takes_too_long_is_replaced_by_a_peer_that_may_take_longer() {
        let mut picker = picker("2", ".");
        open(&mut picker, 0);
        deliver(&mut picker, 0, block(0, 0));
        deliver(&mut picker, 1, block(0, 1));
        picker.judge(PieceIndex(0), false);
        hash_blocks(&mut picker, [1, 2]);
        for (slot, seconds) in [(1, 5), (2, 10), (1, 20)] {
            let start = Instant(u64::from(slot) * 1_000_000_000);
            picker.request(block(0, 0), PeerSlot(slot));
            assert_eq!(picker.slow_fillers(start), []);
            let end = start + Duration::from_secs(seconds);
            assert_eq!(picker.slow_fillers(Instant(end.0 - 1)), []);
            let slow = (PieceIndex(0), PeerSlot(slot));
            assert_eq!(picker.slow_fillers(end), [slow]);
            picker.release(block(0, 0), PeerSlot(slot));
            picker.replace_filler(PieceIndex(0), PeerSlot(slot));
            assert!(picker.was_tried(PieceIndex(0), PeerSlot(slot)));
        }
        picker.left(PeerSlot(1));
        assert!(
            !picker.was_tried(PieceIndex(0), PeerSlot(1)),
            "another peer"
        );
    }

    #[test]
    fn a_late_block_is_welcome_until_another_peer_sends_it() {
        let mut picker = picker("1", ".");
        open(&mut picker, 0);
        for index in 0..2 {
            picker.request(block(0, index), PeerSlot(0));
            picker.release(block(0, index), PeerSlot(0));
        }
        picker.request(block(0, 0), PeerSlot(1));
        for index in 0..2 {
            let place = picker.begin(block(0, index), PeerSlot(0), false);
            assert!(place.is_some(), "block {index}");
        }
        assert!(picker.begin(block(0, 0), PeerSlot(1), true).is_none());
        let requests: Vec<_> = [(0, 0), (1, 0), (0, 1)]
            .map(|(slot, index)| (PeerSlot(slot), block(0, index)))
            .into();
        picker.check_invariants(&requests, &[&field("#")]);
        assert_eq!(picker.received(block(0, 0), PeerSlot(0), giver(0)), 1);
        assert_eq!(picker.received(block(0, 1), PeerSlot(0), giver(0)), 0);
        assert!(picker.begin(block(0, 1), PeerSlot(0), false).is_none());
    }

    #[test]
    fn a_single_filler_that_stops_is_replaced() {
        let mut picker = picker("1", ".");
        open(&mut picker, 0);
        deliver(&mut picker, 0, block(0, 0));
        deliver(&mut picker, 1, block(0, 1));
        picker.judge(PieceIndex(0), false);
        hash_blocks(&mut picker, [1, 2]);
        deliver(&mut picker, 1, block(0, 0));
        picker.request(block(0, 1), PeerSlot(1));
        picker.release(block(0, 1), PeerSlot(1));
        picker.restart_pieces_of(PeerSlot(1));
        assert_eq!(pick(&picker, 0, "#", &[]), Pick::Block(block(0, 0)));
    }

    #[test]
    fn a_piece_that_no_peer_has_gives_its_buffers_back() {
        let mut picker = picker("11", "..");
        open(&mut picker, 0);
        assert_eq!(picker.abandon_orphan(), None, "a peer has it");
        picker.piece_vanished(PieceIndex(0));
        assert_eq!(
            picker.abandon_orphan(),
            Some((PieceIndex(0), alloc::vec![BufferId(0)]))
        );
        picker.check_invariants(&[], &[&field(".#")]);
    }
}
