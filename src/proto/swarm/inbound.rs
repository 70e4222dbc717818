//! What follows from what a peer sends us: messages, and the payload of blocks?

use alloc::vec::Vec;

use super::Swarm;
use super::interface::*;
use super::requests::{Receiving, Request};
use crate::bitfield::Bitfield;
use crate::limits::*;
use crate::policy::mesh::Ending;
use crate::policy::throttle::Throttles;
use crate::units::*;
use crate::wire::extension::{
    DONT_HAVE_ID, EXTENDED_HANDSHAKE_ID, ExtendedHandshake, PEX_ID, TAIL_ID, Tail,
};
use crate::wire::message::{Message, RawBlock};

impl Swarm {
    pub fn handle_message(
        &mut self,
        now: Instant,
        slot: PeerSlot,
        message: Message,
        throttles: &mut Throttles,
    ) {
        let peer = self.peer(slot);
        if !peer.is_live() {
            return;
        }
        peer.heard_at = now;
        let mut taken = self.take_message(now, slot, message, throttles);
        if taken.is_ok() && self.peer(slot).replies.len() > REPLIES_MAX {
            taken = Err("it asks and does not listen");
        }
        if let Err(why) = taken {
            self.close(now, slot, Ending::Failed, why);
        }
    }

    /// Follows the list of messages (BEP 3, 6, 10, 54), and so it is long. An error is the reason
    /// to close the connection.
    #[expect(
        clippy::too_many_lines,
        reason = "one arm for each message of the protocol"
    )]
    fn take_message(
        &mut self,
        now: Instant,
        slot: PeerSlot,
        message: Message,
        throttles: &mut Throttles,
    ) -> Result<(), &'static str> {
        let layout = self.metainfo.layout;
        let check_piece = |index| {
            let piece = layout.check_piece(index);
            piece.ok_or("it named a piece that does not exist")
        };
        let check_block = |raw: RawBlock| {
            let block = layout.check_block(raw.index, raw.begin, raw.length);
            block.ok_or("it named a block that does not exist")
        };
        let pieces = layout.piece_count();
        let may_send_bitfield = self.peer(slot).may_send_bitfield;
        if !matches!(
            message,
            Message::KeepAlive | Message::Extended { .. } | Message::Port(_)
        ) {
            self.peer(slot).may_send_bitfield = false;
        }
        match message {
            Message::Bitfield(bytes) => {
                let field = Bitfield::from_bytes(pieces, &bytes);
                let field = field.map_err(|_| "its bitfield has another length")?;
                if may_send_bitfield {
                    self.take_bitfield(now, slot, field);
                } else {
                    // aria2 sends a bitfield instead of many `have` whenever it is shorter.
                    field
                        .present()
                        .for_each(|piece| self.take_have(slot, piece));
                }
            }
            Message::HaveAll if may_send_bitfield => {
                self.take_bitfield(now, slot, Bitfield::full(pieces));
            }
            Message::HaveNone if may_send_bitfield => {
                self.take_bitfield(now, slot, Bitfield::new(pieces));
            }
            Message::HaveAll | Message::HaveNone => return Err("it sent its bitfield too late"),
            Message::Choke => self.take_choke(slot, throttles),
            Message::Unchoke => self.peer(slot).unchokes_us(now),
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
            Message::Reject(raw) => self.take_reject(now, slot, check_block(raw)?, throttles),
            Message::Suggest(index) => {
                let piece = check_piece(index)?;
                self.peer(slot).suggest(piece);
                self.picker.note_offer(piece);
            }
            Message::AllowedFast(index) => {
                // Only matters while we are choked, and in our swarms no peer is for long.
                check_piece(index)?;
            }
            Message::Extended {
                id: EXTENDED_HANDSHAKE_ID,
                payload,
            } => {
                let handshake = ExtendedHandshake::parse(&payload);
                let handshake = handshake.map_err(|_| "its extension handshake is broken")?;
                self.take_extended_handshake(slot, &handshake);
            }
            Message::Extended {
                id: DONT_HAVE_ID,
                payload,
            } => {
                let index = <[u8; 4]>::try_from(&payload[..]);
                let index = index.map_err(|_| "it lost a piece without a number")?;
                self.take_dont_have(slot, check_piece(u32::from_be_bytes(index))?);
            }
            Message::Extended {
                id: PEX_ID,
                payload,
            } => self.take_peers(now, slot, &payload),
            Message::Extended {
                id: TAIL_ID,
                payload,
            } => {
                let tail = Tail::parse(&payload).ok_or("it named a tail that cannot be")?;
                self.take_tail(slot, check_piece(tail.piece)?, &tail);
            }
            Message::KeepAlive
            | Message::Port(_)
            | Message::Extended { .. }
            | Message::Unknown(_) => {}
        }
        Ok(())
    }

    // ---- what it has

    fn take_bitfield(&mut self, now: Instant, slot: PeerSlot, field: Bitfield) {
        for piece in field.present() {
            self.picker.piece_appeared(piece);
        }
        let peer = self
            .peers
            .get_mut(slot)
            .expect("a peer that speaks is there");
        peer.set_bitfield(field, self.picker.wanted());
        self.note_source(slot);
        if self.is_unneeded(slot) {
            self.close(
                now,
                slot,
                Ending::Normal,
                "others of this room fetch from its room",
            );
        }
    }

    fn take_have(&mut self, slot: PeerSlot, piece: PieceIndex) {
        let peer = self
            .peers
            .get_mut(slot)
            .expect("a peer that speaks is there");
        if peer.gains(piece, self.picker.wanted()) {
            self.picker.piece_appeared(piece);
        }
    }

    /// It had a piece and has lost it (BEP 54). It rejects our requests for it by itself.
    fn take_dont_have(&mut self, slot: PeerSlot, piece: PieceIndex) {
        let peer = self
            .peers
            .get_mut(slot)
            .expect("a peer that speaks is there");
        if peer.loses(piece, self.picker.wanted()) {
            self.picker.piece_vanished(piece);
            // It was not told of our piece while it had the piece itself.
            if self.picker.have().get(piece) {
                peer.replies.push_back(Message::Have(piece.0));
            }
        }
    }

    fn take_extended_handshake(&mut self, slot: PeerSlot, handshake: &ExtendedHandshake) {
        let peer = self
            .peers
            .get_mut(slot)
            .expect("a peer that speaks is there");
        if let Some(reqq) = handshake.reqq {
            peer.requests_max = reqq.clamp(1, PIPELINE_MAX);
        }
        peer.upload_only = handshake.upload_only;
        peer.exchange.introduce(peer.address, handshake);
        peer.set_offers(handshake.offers);
        // Further handshakes add to the first (BEP 10). A repeated one changes nothing. Losses
        // since our bitfield could not be told before.
        if peer.dont_have.is_none() && handshake.dont_have.is_some() {
            peer.dont_have = handshake.dont_have;
            let have = self.picker.have();
            self.changes.repeat_losses(&mut peer.changes, have);
        }
        peer.lz_block = handshake.lz_block.or(peer.lz_block);
        peer.tails.id = handshake.tail.or(peer.tails.id);
        self.note_source(slot);
    }

    // ---- our requests

    fn take_choke(&mut self, slot: PeerSlot, throttles: &mut Throttles) {
        let peer = self.peer(slot);
        peer.chokes_us();
        // With the fast extension each request is answered or rejected; without it a choke drops
        // all requests.
        if !peer.fast {
            self.release_requests(slot, throttles, &|_| true);
        }
        self.picker.restart_pieces_of(slot);
    }

    /// Takes requests back, except the block that is arriving, so that others can be asked for
    /// them. The blocks are returned.
    pub(super) fn release_requests(
        &mut self,
        slot: PeerSlot,
        throttles: &mut Throttles,
        is_released: &dyn Fn(Block) -> bool,
    ) -> Vec<Block> {
        let released = self.peer(slot).requests.take(is_released);
        for request in &released {
            self.request_ends(slot, request, throttles);
        }
        released.into_iter().map(|request| request.block).collect()
    }

    /// A request does not stand with this peer any more, and its block has not come.
    pub(super) fn request_ends(
        &mut self,
        slot: PeerSlot,
        request: &Request,
        throttles: &mut Throttles,
    ) {
        throttles.down.give_back(request.block.length);
        if !request.late {
            self.picker.release(request.block, slot);
        }
    }

    fn take_reject(
        &mut self,
        now: Instant,
        slot: PeerSlot,
        block: Block,
        throttles: &mut Throttles,
    ) {
        if let Some(request) = self.peer(slot).requests.remove(block) {
            self.request_ends(slot, &request, throttles);
            self.picker.restart_pieces_of(slot);
            // It may have given up the piece, and may have others.
            if !self.peer(slot).tails.remove(block.piece) {
                self.peer(slot).refused(now);
            }
        }
    }

    // ---- its requests

    fn take_request(&mut self, slot: PeerSlot, block: Block) {
        let buffer_bytes = self.buffer_bytes;
        let chunk = |block: &Block| (block.piece, block.begin / buffer_bytes);
        let last_byte = block.begin + block.length - 1;
        let crosses = block.begin / buffer_bytes != last_byte / buffer_bytes;
        let have = self.have().get(block.piece) || self.picker.tail_buffer(block).is_some();
        let peer = self.peer(slot);
        if peer.am_choking || !have || crosses || peer.uploads.len() >= UPLOAD_QUEUE_MAX {
            return peer.reject(block);
        }
        let begins_chunk = peer.uploads.back().map(chunk) != Some(chunk(&block));
        if !peer.uploads.contains(&block) {
            peer.uploads.push_back(block);
        }
        let was_given = peer.given.contains(&block.piece);
        let was_offered = was_given || peer.offered.contains(&block.piece);
        peer.offered.retain(|piece| *piece != block.piece);
        if was_offered && !was_given && peer.given.len() < TAILS_MAX {
            peer.given.push(block.piece);
        }
        if !was_offered && block.begin == 0 {
            self.offers.note_request(block.piece, &mut self.rng);
        }
        if begins_chunk {
            self.load_for(slot);
        }
    }

    fn take_cancel(&mut self, slot: PeerSlot, block: Block) {
        // BEP 6: every request is answered, a cancelled one by a reject.
        self.peer(slot).drop_uploads(&|asked| asked == block);
    }

    // ---- payload

    /// The head of a `piece` message has arrived: where its bytes go. `handle_block` or
    /// `handle_closed` follows.
    pub fn begin_block(&mut self, now: Instant, slot: PeerSlot, raw: RawBlock) -> Sink {
        let sink = self.sink_for(slot, raw);
        let peer = self.peer(slot);
        assert!(peer.requests.receiving.is_none(), "one payload at a time");
        peer.requests.receiving = Some(Receiving {
            raw,
            kept: sink != Sink::Discard,
            wire_bytes: raw.length,
            since: now,
        });
        peer.heard_at = now;
        sink
    }

    /// Like `begin_block`, of a block that is compressed to `wire_bytes`. Before `handle_block` the
    /// shell makes it whole again where it goes.
    pub fn begin_packed(
        &mut self,
        now: Instant,
        slot: PeerSlot,
        raw: RawBlock,
        wire_bytes: u32,
    ) -> Sink {
        assert!(wire_bytes < raw.length);
        let sink = self.begin_block(now, slot, raw);
        if let Some(receiving) = &mut self.peer(slot).requests.receiving {
            receiving.wire_bytes = wire_bytes;
        }
        sink
    }

    fn sink_for(&mut self, slot: PeerSlot, raw: RawBlock) -> Sink {
        let layout = &self.metainfo.layout;
        let Some(block) = layout.check_block(raw.index, raw.begin, raw.length) else {
            return Sink::Discard;
        };
        let peer = self.peer(slot);
        let Some(request) = peer.requests.get(block) else {
            return Sink::Discard;
        };
        let counts = !request.late;
        let Some((buffer, offset)) = self.picker.begin(block, slot, counts) else {
            return Sink::Discard;
        };
        self.peer(slot).requests.revive(block);
        Sink::Buffer { buffer, offset }
    }

    /// All bytes of the block are where `begin_block` said.
    pub fn handle_block(
        &mut self,
        now: Instant,
        slot: PeerSlot,
        raw: RawBlock,
        throttles: &mut Throttles,
    ) {
        let peer = self.peer(slot);
        let begun = peer.requests.receiving.take();
        let begun = begun.expect("a block ends that has begun");
        assert_eq!(begun.raw, raw);
        // Of what was dropped, nobody knows how long the block would be.
        let wire_bytes = begun.wire_bytes;
        let bytes = if begun.kept { raw.length } else { wire_bytes };
        self.traffic.note_fetched(bytes, wire_bytes);
        let peer = self.peer(slot);
        peer.heard_at = now;
        let layout = &self.metainfo.layout;
        let Some(block) = layout.check_block(raw.index, raw.begin, raw.length) else {
            let why = "it sent a block that does not exist";
            return self.close(now, slot, Ending::Failed, why);
        };
        let peer = self.peer(slot);
        let asked = peer.requests.remove(block);
        peer.received(now, bytes);
        if let Some(request) = &asked {
            throttles.down.give_back(raw.length - wire_bytes);
            let took = now.since(request.at);
            let patience = self.pace.patience();
            self.peer(slot).answered(now, took, patience);
            self.pace.note(took);
        } else {
            // The request was taken back too late, or there was none: nothing was taken for it.
            throttles.down.charge(wire_bytes);
            let peer = self.peer(slot);
            if peer.requests.was_cancelled(block) {
                peer.requests.answered(now);
            }
        }
        if !begun.kept {
            self.traffic.note_unused(bytes);
            if asked.is_some_and(|request| !request.late) {
                self.picker.release(block, slot);
            }
            return;
        }
        self.progress_at = now;
        let giver = self.giver(slot);
        let others = self.picker.received(block, slot, giver);
        self.cancel(block, others > 0, throttles);
    }

    /// As which a peer is blamed if its block is bad.
    fn giver(&mut self, slot: PeerSlot) -> Giver {
        let peer = self.peer(slot);
        let (known, address, peer_id) = (peer.giver, peer.address, peer.peer_id);
        known.unwrap_or_else(|| {
            let peer_id = peer_id.expect("a peer that sends blocks has sent a handshake");
            let is_connected = |giver| self.peers.values().any(|peer| peer.giver == Some(giver));
            let giver = self.blame.note_peer(address, peer_id, is_connected);
            self.peer(slot).giver = Some(giver);
            giver
        })
    }

    /// All other peers that were asked for this block may forget it: in the endgame, or because a
    /// request is late.
    fn cancel(&mut self, block: Block, in_time: bool, throttles: &mut Throttles) {
        for peer in self.peers.values_mut() {
            let may_be_asked = in_time || peer.requests.has_late();
            if may_be_asked && peer.requests.cancel(block) {
                throttles.down.give_back(block.length);
                peer.replies.push_back(Message::Cancel(block.into()));
            }
        }
    }
}
