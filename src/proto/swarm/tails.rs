//! How are pieces passed on before they are whole?
//!
//! A room waits for whole pieces: a seed sends one to each of its peers side by side, and for so
//! long the others have nothing to fetch there. So agents of ours pass on the *tail* of a piece:
//! what of its end has come, and has been checked by itself, with marks (`policy/marks`).
//!
//! ```text
//! seed ──SUGGEST 7──> A     asks for the last block first
//! seed ──marks of 7──> A    states of its own hash, before the first block
//! A: parts 3, 2, ... of 7 arrive and are checked
//! A ──tail of 7 from part 3 on──> B, C, ...   they ask A for it, and pass it on themselves
//! A: 7 is whole, good and on the disk
//! A ──HAVE 7──> B, C, ...
//! ```
//!
//! A tail is sent from memory. It is the one thing that is passed on before it is on the disk; that
//! a piece is there is said only when it is, as to every other client. Nothing here is needed for
//! a piece to arrive: without marks, or with wrong ones, it is fetched and checked whole, and in
//! any case it is hashed as a whole before it is written.

use alloc::vec::Vec;
use core::ops::Range;

use super::Swarm;
use super::interface::*;
use super::peer::{Peer, PickInputs};
use crate::limits::*;
use crate::units::*;
use crate::wire::extension::Tail;
use crate::wire::message::Message;

impl Swarm {
    // ---- what a peer tells

    /// A peer has the tail of a piece.
    pub(super) fn take_tail(&mut self, slot: PeerSlot, piece: PieceIndex, tail: &Tail) {
        let length = self.metainfo.layout.piece_length(piece);
        let marks = tail.marks.iter().filter(|mark| mark.begin < length);
        let begin = marks.clone().map(|mark| mark.begin).min();
        let (Some(begin), true) = (begin, self.picker.wanted().get(piece)) else {
            return;
        };
        // What is checked already is not doubted again.
        let checked = self.picker.tail_begin(piece).unwrap_or(length);
        let new = marks.filter(|mark| mark.begin < checked);
        let peer = self.peers.get_mut(slot);
        let peer = peer.expect("a peer that speaks is there");
        let from_source = peer.has().get(piece);
        new.for_each(|mark| self.marks.add(piece, *mark, from_source));
        peer.gains_tail(piece, begin);
        self.picker.tail_appeared();
    }

    // ---- hashing

    /// A part of an open piece that can be checked by itself.
    pub(super) fn next_part(&mut self) -> Option<Hash> {
        let job = self.picker.next_part(&self.marks)?;
        Some(Hash {
            of: HashOf::Part {
                piece: job.piece,
                begin: job.mark.begin,
                length: job.length,
            },
            begin: 0,
            length: job.length,
            buffer: job.buffer,
            offset: job.offset,
            state: Some(job.mark.state),
            part_bytes: 0,
        })
    }

    /// A part was hashed. Marks inside a good part were not used, so nothing is known of them. Of a
    /// bad part the bytes or the mark are bad.
    pub(super) fn judge_part(&mut self, piece: PieceIndex, part: Range<u32>, leads_to: PieceHash) {
        let whole = self.metainfo.hashes[piece.index()];
        let doubted = match self.picker.judge_part(piece, leads_to, whole) {
            true => part.start + 1..part.end,
            false => part.start..part.start + 1,
        };
        self.marks.doubt(piece, doubted);
    }

    /// The hash unit has come to the end of a part of a piece that a seed reads.
    pub fn handle_mark(&mut self, piece: PieceIndex, mark: Mark) {
        self.marks.add(piece, mark, true);
    }

    /// The length of the parts whose marks a seed gives out; 0 if nobody would pass them on.
    pub(super) fn part_bytes(&self) -> u32 {
        let knows = |peer: &&Peer| peer.is_live() && peer.tails.id.is_some();
        if self.config.role == Role::Leecher || self.peers.values().filter(knows).count() < 2 {
            return 0;
        }
        let part = self.metainfo.layout.piece_bytes() / PARTS_PER_PIECE;
        let most = self.buffer_bytes.max(PART_BYTES_MIN);
        part.next_power_of_two().clamp(PART_BYTES_MIN, most)
    }

    // ---- what we tell

    /// A tail that this peer lacks and has not been told of. Only while nobody else of our room
    /// has the piece: others will have it from those as soon.
    pub(super) fn tail(&mut self, slot: PeerSlot) -> Option<Message> {
        let version = self.picker.tails_version();
        let peer = self.peers.get(slot)?;
        let id = peer.tails.id?;
        if peer.tails.told_version == version {
            return None;
        }
        let is_news = |(piece, begin): &(PieceIndex, u32)| {
            let knows = |known: &u32| known <= begin;
            let has = peer.has().get(*piece) || peer.tails.theirs().get(piece).is_some_and(knows);
            let is_told = peer.tails.told.get(piece).is_some_and(knows);
            !has && !is_told && self.is_rare(*piece)
        };
        let news = self.picker.tails().find(is_news);
        let Some((piece, begin)) = news else {
            self.peer(slot).tails.told_version = version;
            return None;
        };
        let told = peer.tails.told.get(&piece).copied().unwrap_or(u32::MAX);
        self.tell_marks(slot, id, piece, begin..told)
    }

    /// Nobody of our room has the piece, except for sources.
    fn is_rare(&self, piece: PieceIndex) -> bool {
        let has = |peer: &Peer| !peer.routed && !peer.is_complete() && peer.has().get(piece);
        !self.peers.values().any(has)
    }

    /// A piece that the peer was offered is not marked, and was not read for it.
    pub(super) fn must_mark(&self, slot: PeerSlot, piece: PieceIndex) -> bool {
        let follows = |peer: &Peer| peer.tails.id.is_some() && peer.given.contains(&piece);
        let part_bytes = self.part_bytes();
        let has_parts = (1..self.metainfo.layout.piece_length(piece)).contains(&part_bytes);
        let is_read = self.read_queue.contains(piece) || !self.read_for_marks.get(piece);
        has_parts && is_read && self.peers.get(slot).is_some_and(follows)
    }

    /// It is read now. While there is one peer nobody waits for marks, and later it may be read for
    /// them.
    pub(super) fn note_read_for_marks(&mut self, piece: PieceIndex) {
        if self.part_bytes() > 0 {
            self.read_for_marks.set(piece);
        }
    }

    /// The marks of a piece that a seed is about to send to this peer, if it follows a suggestion.
    pub(super) fn marks_before(&mut self, slot: PeerSlot, piece: PieceIndex) -> Option<Message> {
        let peer = self.peers.get(slot)?;
        let id = peer.tails.id?;
        let is_told = peer.tails.told.contains_key(&piece) || !peer.given.contains(&piece);
        if is_told || self.marks.of(piece).is_empty() {
            return None;
        }
        self.tell_marks(slot, id, piece, 0..u32::MAX)
    }

    fn tell_marks(
        &mut self,
        slot: PeerSlot,
        id: u8,
        piece: PieceIndex,
        places: Range<u32>,
    ) -> Option<Message> {
        let marks = self.marks.of(piece).iter();
        let marks: Vec<Mark> = marks
            .filter(|mark| places.contains(&mark.begin))
            .copied()
            .collect();
        let told = &mut self.peers.get_mut(slot)?.tails.told;
        if told.len() >= 2 * TAILS_MAX {
            told.retain(|piece, _| self.picker.is_open(*piece));
        }
        told.insert(piece, places.start);
        let tail = Tail {
            piece: piece.0,
            marks,
        };
        let payload = (!tail.marks.is_empty()).then(|| tail.encode());
        payload.map(|payload| Message::Extended { id, payload })
    }

    // ---- what is waited for

    /// Everything was offered, and many have not begun to follow: see HELD_PART.
    pub(super) fn holds_offers(&self) -> bool {
        let (mut all, mut held) = (0, 0);
        for peer in self.peers.values() {
            let follows = peer.is_live() && peer.tails.id.is_some();
            all += usize::from(follows);
            held += usize::from(follows && !peer.offered.is_empty());
        }
        all >= HELD_MIN && HELD_PART * held > all
    }

    /// Whether a source need not be asked for this piece, because others pass it on.
    pub(super) fn is_passed_on(&self, inputs: PickInputs, piece: PieceIndex) -> bool {
        let passes_on = |peer: &Peer| {
            let gives = peer.is_live() && !peer.chokes() && !peer.snubbed && !peer.routed;
            gives && peer.tails.contains(piece)
        };
        let may_wait = !inputs.starved && !self.picker.was_offered(piece);
        may_wait && !self.picker.is_alone(piece) && self.peers.values().any(passes_on)
    }
}
