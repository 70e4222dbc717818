//! What a peer says to us: messages, and the payload of blocks, up to the verdict on a whole piece.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::Swarm;
use super::interface::*;
use crate::bitfield::Bitfield;
use crate::limits::*;
use crate::policy::mesh::Ending;
use crate::policy::picker::Verdict;
use crate::units::*;
use crate::wire::extension::{DONT_HAVE_ID, EXTENDED_HANDSHAKE_ID, ExtendedHandshake};
use crate::wire::message::{Message, RawBlock};

impl Swarm {
    pub fn handle_message(&mut self, now: Instant, slot: PeerSlot, message: Message) {
        let peer = self.peer(slot);
        if !peer.is_live() {
            return;
        }
        peer.heard_at = now;
        let taken = self.take_message(now, slot, message);
        let unheard = self.peer(slot).replies.len() > REPLIES_MAX;
        if let Err(why) = taken.and(if unheard {
            Err("it asks and does not listen")
        } else {
            Ok(())
        }) {
            self.close(now, slot, Ending::Failed, why);
        }
    }

    pub(super) fn take_message(
        &mut self,
        now: Instant,
        slot: PeerSlot,
        message: Message,
    ) -> Result<(), &'static str> {
        let layout = self.metainfo.layout;
        let check_piece = |index| {
            layout
                .check_piece(index)
                .ok_or("it named a piece that does not exist")
        };
        let check_block = |raw: RawBlock| {
            layout
                .check_block(raw.index, raw.begin, raw.length)
                .ok_or("it named a block that does not exist")
        };
        let may_send_bitfield = self.peer(slot).may_send_bitfield;
        match message {
            Message::Bitfield(bytes) => {
                let field = Bitfield::from_bytes(layout.piece_count(), &bytes);
                return self
                    .take_bitfield(slot, field.map_err(|_| "its bitfield has another length")?);
            }
            Message::HaveAll if may_send_bitfield => {
                return self.take_bitfield(slot, Bitfield::full(layout.piece_count()));
            }
            Message::HaveNone if may_send_bitfield => {
                return self.take_bitfield(slot, Bitfield::new(layout.piece_count()));
            }
            Message::HaveAll | Message::HaveNone => return Err("it sent its bitfield too late"),
            _ => {}
        }
        if !matches!(
            message,
            Message::KeepAlive | Message::Extended { .. } | Message::Port(_)
        ) {
            self.peer(slot).may_send_bitfield = false;
        }
        match message {
            Message::Choke => self.take_choke(slot),
            Message::Unchoke => {
                let peer = self.peer(slot);
                peer.peer_choking = false;
                peer.nothing_at = None;
                peer.progress_at = now;
            }
            Message::Interested => {
                self.peer(slot).peer_interested = true;
                self.rechoke_due = true;
            }
            Message::NotInterested => {
                self.peer(slot).peer_interested = false;
                self.rechoke_due = true;
            }
            Message::Have(index) => self.take_have(slot, check_piece(index)?),
            Message::Request(raw) => self.take_request(slot, check_block(raw)?),
            Message::Cancel(raw) => self.take_cancel(slot, check_block(raw)?),
            Message::Reject(raw) => self.take_reject(now, slot, check_block(raw)?),
            Message::Suggest(index) => {
                let piece = check_piece(index)?;
                let peer = self.peer(slot);
                peer.suggest(piece);
                peer.nothing_at = None;
            }
            Message::AllowedFast(index) => {
                // Only matters while choked, and in our swarms nobody is for long.
                check_piece(index)?;
            }
            Message::Extended {
                id: EXTENDED_HANDSHAKE_ID,
                payload,
            } => {
                let handshake = ExtendedHandshake::parse(&payload)
                    .map_err(|_| "its extension handshake is broken")?;
                if let Some(reqq) = handshake.reqq {
                    self.peer(slot).requests_max = reqq.clamp(1, PIPELINE_MAX);
                }
                let peer = self.peer(slot);
                (peer.upload_only, peer.offers, peer.nothing_at) =
                    (handshake.upload_only, handshake.offers, None);
                // Further handshakes add to the first (BEP 10). Who repeats itself is told nothing
                // twice.
                if self.peer(slot).dont_have.is_none() && handshake.dont_have.is_some() {
                    self.peer(slot).dont_have = handshake.dont_have;
                    self.tell_losses(slot);
                }
            }
            Message::Extended {
                id: DONT_HAVE_ID,
                payload,
            } => {
                let index = <[u8; 4]>::try_from(&payload[..])
                    .map_err(|_| "it lost a piece without a number")?;
                self.take_dont_have(slot, check_piece(u32::from_be_bytes(index))?);
            }
            Message::KeepAlive
            | Message::Port(_)
            | Message::Extended { .. }
            | Message::Unknown(_) => {}
            Message::Bitfield(_) | Message::HaveAll | Message::HaveNone => {
                unreachable!("taken above")
            }
        }
        Ok(())
    }

    pub(super) fn take_bitfield(
        &mut self,
        slot: PeerSlot,
        field: Bitfield,
    ) -> Result<(), &'static str> {
        let lacking = field
            .ones()
            .filter(|piece| self.picker.wanted().get(*piece))
            .count() as u32;
        let peer = self.peer(slot);
        if !peer.may_send_bitfield {
            // aria2 sends one in place of many `have` whenever it is shorter.
            field.ones().for_each(|piece| self.take_have(slot, piece));
            return Ok(());
        }
        peer.may_send_bitfield = false;
        peer.wanted = lacking;
        peer.nothing_at = None;
        peer.has = field.clone();
        for piece in field.ones() {
            self.picker.piece_appeared(piece);
        }
        Ok(())
    }

    pub(super) fn take_have(&mut self, slot: PeerSlot, piece: PieceIndex) {
        let lacking = self.picker.wanted().get(piece);
        let peer = self.peer(slot);
        if !peer.has.set(piece) {
            return;
        }
        peer.wanted += u32::from(lacking);
        peer.nothing_at = None;
        peer.offered.retain(|offered| *offered != piece);
        self.picker.piece_appeared(piece);
    }

    /// What was lost between our bitfield and the word for it could not be said: from there on it
    /// is told again.
    fn tell_losses(&mut self, slot: PeerSlot) {
        let (first, told) = (self.peer(slot).told_at_first, self.peer(slot).told);
        let lost = |place: &usize| !self.have().get(self.news[*place]);
        if let Some(place) = (first..told).find(lost) {
            self.peer(slot).told = place;
        }
    }

    /// It had a piece and has lost it (BEP 54). What it was asked for it refuses by itself.
    fn take_dont_have(&mut self, slot: PeerSlot, piece: PieceIndex) {
        let lacking = self.picker.wanted().get(piece);
        let peer = self.peer(slot);
        if peer.has.clear(piece) {
            peer.wanted -= u32::from(lacking);
            peer.suggested.retain(|suggested| *suggested != piece);
            // That is why it refused, and no reason to wait before it is asked for another one.
            (peer.refusals, peer.pause_until) = (0, Instant(0));
            self.picker.piece_vanished(piece);
            // It has not been told while it had the piece itself.
            if self.have().get(piece) {
                self.peer(slot).replies.push_back(Message::Have(piece.0));
            }
        }
    }

    pub(super) fn take_choke(&mut self, slot: PeerSlot) {
        let peer = self.peer(slot);
        peer.peer_choking = true;
        // What it suggested it may suggest to others now.
        peer.suggested.clear();
        // With the fast extension each request is answered or rejected; without it a choke drops
        // them all.
        if !peer.fast {
            self.release_requests(slot);
        }
        self.picker.restart_pieces_of(slot);
    }

    /// Gives every request of a peer back, but for the block whose bytes are arriving: nobody else
    /// may write there.
    pub(super) fn release_requests(&mut self, slot: PeerSlot) -> Vec<Block> {
        let peer = self.peer(slot);
        let arriving = peer.receiving.filter(|(_, kept)| *kept).map(|(raw, _)| raw);
        let (keep, drop): (VecDeque<Block>, VecDeque<Block>) = peer
            .requests
            .drain(..)
            .partition(|block| Some(RawBlock::from(*block)) == arriving);
        peer.requests = keep;
        for block in &drop {
            self.config.max_down.give_back(block.length);
            self.picker.release(*block, slot);
        }
        drop.into()
    }

    pub(super) fn take_reject(&mut self, now: Instant, slot: PeerSlot, block: Block) {
        if !self.peer(slot).forget_request(block) {
            return;
        }
        self.config.max_down.give_back(block.length);
        self.picker.release(block, slot);
        self.picker.restart_pieces_of(slot);
        let peer = self.peer(slot);
        if !peer.peer_choking {
            peer.refused(now);
        }
    }

    pub(super) fn take_request(&mut self, slot: PeerSlot, block: Block) {
        let crosses =
            block.begin / self.buffer_bytes != (block.begin + block.length - 1) / self.buffer_bytes;
        let (have, buffer_bytes) = (self.have().get(block.piece), self.buffer_bytes);
        let peer = self.peer(slot);
        if peer.am_choking || !have || crosses || peer.uploads.len() >= UPLOAD_QUEUE_MAX {
            // Without the fast extension there is no word for "no"; the peer asks again after its
            // own time-out.
            if peer.fast {
                peer.replies.push_back(Message::Reject(block.into()));
            }
            return;
        }
        let chunk = |block: &Block| (block.piece, block.begin / buffer_bytes);
        let begins_chunk = peer.uploads.back().map(chunk) != Some(chunk(&block));
        if !peer.uploads.contains(&block) {
            peer.uploads.push_back(block);
        }
        let offered = peer.offered.len();
        peer.offered.retain(|piece| *piece != block.piece);
        // Anybody may ask for the same block for ever; the count stops where it can hold no more.
        if offered == peer.offered.len()
            && block.begin == 0
            && self.sent.count(block.piece) < u16::MAX
        {
            self.sent.increment(block.piece, &mut self.rng);
        }
        if begins_chunk {
            self.load_for(slot);
        }
    }

    pub(super) fn take_cancel(&mut self, slot: PeerSlot, block: Block) {
        let peer = self.peer(slot);
        let queued = peer.uploads.len();
        peer.uploads.retain(|asked| *asked != block);
        // BEP 6: every request is answered, a cancelled one by a reject.
        if queued > peer.uploads.len() && peer.fast {
            peer.replies.push_back(Message::Reject(block.into()));
        }
    }

    // ---- payload in

    /// The head of a `piece` message has arrived: where do its bytes go? Followed by `handle_block`
    /// or `handle_closed`.
    pub fn begin_block(&mut self, now: Instant, slot: PeerSlot, raw: RawBlock) -> Sink {
        let sink = self.sink_for(slot, raw);
        let peer = self.peer(slot);
        assert!(peer.receiving.is_none(), "one payload at a time");
        peer.receiving = Some((raw, sink != Sink::Discard));
        peer.heard_at = now;
        sink
    }

    pub(super) fn sink_for(&mut self, slot: PeerSlot, raw: RawBlock) -> Sink {
        let Some(block) = self
            .metainfo
            .layout
            .check_block(raw.index, raw.begin, raw.length)
        else {
            return Sink::Discard;
        };
        if !self.peer(slot).requests.contains(&block) {
            return Sink::Discard;
        }
        let place = self.picker.begin(block, slot);
        place.map_or(Sink::Discard, |(buffer, offset)| Sink::Buffer {
            buffer,
            offset,
        })
    }

    /// All bytes of the block that `begin_block` named are where it said.
    pub fn handle_block(&mut self, now: Instant, slot: PeerSlot, raw: RawBlock) {
        self.fetched += u64::from(raw.length);
        let peer = self.peer(slot);
        let Some((begun, kept)) = peer.receiving.take() else {
            panic!("a block ended that never began")
        };
        assert_eq!(begun, raw);
        peer.heard_at = now;
        let Some(block) = self
            .metainfo
            .layout
            .check_block(raw.index, raw.begin, raw.length)
        else {
            return self.close(
                now,
                slot,
                Ending::Failed,
                "it sent a block that does not exist",
            );
        };
        let peer = self.peer(slot);
        let asked = peer.forget_request(block);
        peer.received(now, raw.length);
        if asked {
            (peer.snubbed, peer.refusals, peer.progress_at) = (false, 0, now);
        } else {
            // Taken back too late, or sent unasked: it was not allowed for.
            self.config.max_down.charge(raw.length);
        }
        if !kept {
            self.wasted += u64::from(raw.length);
            if asked {
                self.picker.release(block, slot);
            }
            return;
        }
        self.progress_at = now;
        let others = self.picker.received(block, slot);
        if others > 0 {
            self.cancel(block);
        }
    }

    /// Endgame: everybody else who was asked for this block may forget it.
    pub(super) fn cancel(&mut self, block: Block) {
        for peer in self.peers.iter_mut().flatten() {
            if peer.forget_request(block) {
                self.config.max_down.give_back(block.length);
                peer.replies.push_back(Message::Cancel(block.into()));
            }
        }
    }

    pub fn handle_hashed(&mut self, now: Instant, of: HashOf, digest: PieceHash) {
        match of {
            HashOf::Download(piece) => self.judge(now, piece, digest),
            HashOf::Disk(piece) => {
                self.inspected(now, piece, self.metainfo.hashes[piece.index()] == digest)
            }
        }
        self.advance(now);
    }

    pub(super) fn judge(&mut self, now: Instant, piece: PieceIndex, digest: PieceHash) {
        match self
            .picker
            .judge(piece, self.metainfo.hashes[piece.index()] == digest)
        {
            // Nothing new is started by those who leave: it might come after their last flush.
            Verdict::Good if !self.is_open() => {}
            Verdict::Good => self.write(piece),
            Verdict::Bad { liar } => {
                self.wasted += u64::from(self.metainfo.layout.piece_length(piece));
                let address = liar
                    .and_then(|slot| self.peers[slot.index()].as_ref())
                    .map(|peer| peer.address);
                self.tell(Event::PieceBad {
                    piece,
                    liar: address,
                });
                if let (Some(slot), Some(address)) = (liar, address) {
                    self.mesh.ban(address);
                    self.close(now, slot, Ending::Failed, "it sent bad data");
                }
            }
        }
    }
}
