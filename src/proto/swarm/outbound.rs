//! What is the next thing to send to a peer?
//!
//! The shell asks while the connection has room. So nothing is queued here except answers that must
//! not be forgotten (`Peer::replies`).

use alloc::string::String;

use super::Swarm;
use super::interface::*;
use super::peer::{Peer, Phase, PickInputs, overdue};
use super::sending::Sending;
use crate::limits::*;
use crate::policy::cache::Chunk;
use crate::policy::load::Compress;
use crate::policy::picker::{Asked, Pick};
use crate::policy::throttle::{Throttle, Throttles};
use crate::units::*;
use crate::wire::extension::{
    DONT_HAVE_ID, EXTENDED_HANDSHAKE_ID, ExtendedHandshake, PEX_ID, TAIL_ID,
};
use crate::wire::message::{Handshake, LZ_BLOCK_ID, Message};

impl Swarm {
    /// The next thing to send to this peer. Call it while there is room for it.
    #[must_use]
    pub fn poll_send(
        &mut self,
        now: Instant,
        slot: PeerSlot,
        throttles: &mut Throttles,
    ) -> Option<Send> {
        if core::mem::take(&mut self.rechoke_due) {
            self.rechoke(now, &throttles.up);
        }
        let send = self.next_send(now, slot, throttles)?;
        self.peer(slot).spoke_at = now;
        Some(send)
    }

    fn next_send(
        &mut self,
        now: Instant,
        slot: PeerSlot,
        throttles: &mut Throttles,
    ) -> Option<Send> {
        let peer = self.peers.get_mut(slot)?;
        match peer.phase {
            Phase::Connecting | Phase::Closing => return None,
            Phase::Greeting | Phase::Live if !peer.said_handshake => {
                peer.said_handshake = true;
                return Some(Send::Handshake(self.handshake()));
            }
            Phase::Greeting => return None,
            Phase::Live => {}
        }
        let message = self
            .introduction(slot)
            .or_else(|| self.choke_or_interest(now, slot))
            .or_else(|| self.change(slot))
            .or_else(|| self.tail(slot))
            .or_else(|| self.request(now, slot, &mut throttles.down))
            .or_else(|| self.offer(slot));
        if let Some(message) = message {
            return Some(Send::Message(message));
        }
        self.upload(now, slot, throttles)
            .or_else(|| self.keep_alive(now, slot))
    }

    // ---- handshakes

    fn handshake(&self) -> Handshake {
        Handshake {
            fast: true,
            extended: true,
            info_hash: self.metainfo.info_hash,
            peer_id: self.config.peer_id,
        }
    }

    /// The bitfield, then the extension handshake. The bitfield must come before anything that it
    /// would contradict.
    fn introduction(&mut self, slot: PeerSlot) -> Option<Message> {
        let seeder = self.config.role == Role::Seeder;
        let complete = self.state == State::Seeding;
        let changes = self.changes.reader();
        let peer = self.peer(slot);
        if !peer.said_bitfield {
            (peer.said_bitfield, peer.said_offers) = (true, seeder);
            peer.changes = changes;
            let fast = peer.fast;
            match (fast, self.have()) {
                (true, have) if have.is_full() => return Some(Message::HaveAll),
                (true, have) if have.is_empty() => return Some(Message::HaveNone),
                // Without the fast extension an empty bitfield is not sent at all.
                (false, have) if have.is_empty() => {}
                (_, have) => return Some(Message::Bitfield(have.as_bytes().to_vec())),
            }
        }
        let peer = self.peer(slot);
        if peer.extended && !peer.said_extended {
            (peer.said_extended, peer.said_complete) = (true, complete);
            return Some(self.extended_handshake(seeder));
        }
        // It was not told of the pieces that it had itself, so it cannot count ours.
        if peer.extended && complete && !peer.said_complete {
            peer.said_complete = true;
            let offers = peer.said_offers;
            return Some(self.extended_handshake(offers));
        }
        None
    }

    fn extended_handshake(&self, offers: bool) -> Message {
        let handshake = ExtendedHandshake {
            dont_have: Some(DONT_HAVE_ID),
            lz_block: (self.config.compress != Compress::Never).then_some(LZ_BLOCK_ID),
            tail: Some(TAIL_ID),
            ut_pex: (!self.metainfo.private).then_some(PEX_ID),
            reqq: Some(UPLOAD_QUEUE_MAX as u32),
            client: Some(String::from(concat!("swarmdd ", env!("CARGO_PKG_VERSION")))),
            listen_port: Some(self.config.listen_port),
            // A source that lacks some of its pieces does not want them back.
            upload_only: self.state == State::Seeding,
            fetches: self.config.role == Role::Leecher,
            offers,
        };
        Message::Extended {
            id: EXTENDED_HANDSHAKE_ID,
            payload: handshake.encode(),
        }
    }

    // ---- what we want, and what we have

    /// Choking and interest, where they differ from what the peer was last told; then rejects and
    /// cancels.
    fn choke_or_interest(&mut self, now: Instant, slot: PeerSlot) -> Option<Message> {
        let fetching = self.is_fetching();
        let peer = self.peer(slot);
        if peer.am_choking == peer.unchoke {
            peer.am_choking = !peer.unchoke;
            if peer.unchoke {
                return Some(Message::Unchoke);
            }
            // With the fast extension (BEP 6) requests in the queue are still answered: most likely
            // they are the rest of a piece that would be of no use to anyone until this peer's next
            // turn.
            if !peer.fast {
                peer.uploads.clear();
            }
            self.take_back_offers(slot);
            return Some(Message::Choke);
        }
        let interested = fetching && peer.has_wanted();
        if peer.am_interested != interested {
            peer.am_interested = interested;
            peer.progress_at = now;
            return Some(match interested {
                true => Message::Interested,
                false => Message::NotInterested,
            });
        }
        peer.replies.pop_front()
    }

    /// A piece that got onto the disk since we last told this peer, or was lost. A peer that has a
    /// piece itself and still fetches others is not told that we have it, too: that would be half
    /// of all `have` messages.
    fn change(&mut self, slot: PeerSlot) -> Option<Message> {
        let have = self.picker.have();
        let peer = self.peers.get_mut(slot)?;
        while let Some(piece) = self.changes.next(&mut peer.changes) {
            let derivable = peer.extended && peer.has().get(piece) && !peer.is_complete();
            let message = match have.get(piece) {
                true if derivable => None,
                true => Some(Message::Have(piece.0)),
                false => peer.loss_of(piece),
            };
            if message.is_some() {
                return message;
            }
        }
        None
    }

    // ---- requests

    /// The next request, while the pipeline of this peer is not full and it has something we want.
    fn request(&mut self, now: Instant, slot: PeerSlot, down: &mut Throttle) -> Option<Message> {
        let peer = self.peers.get(slot)?;
        let depth = peer.pipeline_depth();
        if !self.is_fetching()
            || !peer.may_request(now)
            || peer.requests.len() >= depth
            || peer.is_known_to_have_nothing(self.pick_inputs())
            || !down.may_take(now, &peer.down_turn)
        {
            return None;
        }
        let block = self.pick(now, slot)?;
        // What a snubbed peer is asked for, others may be asked for at the same time.
        let late = self.peer(slot).snubbed && !self.picker.is_alone(block.piece);
        if !late {
            self.picker.request(block, slot);
        }
        let peer = self.peer(slot);
        down.take(&mut peer.down_turn, block.length);
        if peer.requests.is_empty() {
            peer.progress_at = now;
        }
        peer.push_request(now, block, late, depth);
        Some(Message::Request(block.into()))
    }

    pub(super) fn pick_inputs(&self) -> PickInputs {
        PickInputs {
            picker_version: self.picker.version(),
            share: self.room.share(),
            starved: self.arrivals.are_few(),
            room: self.has_room(),
            // While the target is being scanned, further pieces may turn out to be missing.
            last: self.state == State::Downloading,
        }
    }

    /// The block to ask this peer for. Opens a piece for it if need be.
    fn pick(&mut self, now: Instant, slot: PeerSlot) -> Option<Block> {
        loop {
            let inputs = self.pick_inputs();
            let peer = self.peers.get(slot)?;
            let requested = |block: Block| peer.requests.get(block).is_some();
            let may_fill = |piece| self.may_fill(now, slot, piece);
            let may_fetch = |piece| self.may_fetch(inputs, peer, piece);
            let asked = Asked {
                slot,
                has: peer.has(),
                tails: peer.tails.theirs(),
                backwards: peer.offers() && peer.tails.id.is_some() && self.peers.live_count() > 1,
                may_fetch: &may_fetch,
                suggested: peer.suggested(),
                offers: peer.offers() && !inputs.starved,
                requested: &requested,
                late: peer.requests.has_late(),
                may_fill: &may_fill,
                room: inputs.room,
                last: inputs.last,
            };
            match self.picker.pick(&asked) {
                Pick::Block(block) => {
                    // From now on nobody is waited for.
                    if inputs.starved {
                        self.picker.note_offer(block.piece);
                    }
                    return Some(block);
                }
                Pick::Open(piece) => {
                    let is_offer = peer.suggested().contains(&piece);
                    self.open_piece(piece);
                    if is_offer {
                        self.picker.note_offer(piece);
                    }
                }
                Pick::Nothing if !inputs.room && self.make_room() => {}
                Pick::Nothing => {
                    self.peer(slot).note_nothing(inputs);
                    return None;
                }
            }
        }
    }

    /// Whether this peer may be asked for a piece that it does not suggest: a routed one only for
    /// our share of what no peer of our room has.
    pub(super) fn may_fetch(&self, inputs: PickInputs, peer: &Peer, piece: PieceIndex) -> bool {
        let share = inputs.share;
        if peer.is_complete() && peer.tails.id.is_some() && self.is_passed_on(inputs, piece) {
            return false;
        }
        let in_room = |peer: &Peer| {
            let gives = !peer.routed && peer.is_live() && !peer.chokes() && !peer.snubbed;
            gives && peer.has().get(piece)
        };
        let lacks = || share.has_all() || !self.peers.values().any(in_room);
        !peer.routed || (share.has(piece) && lacks())
    }

    /// Whether this peer is quick enough to fill a bad piece alone. Of the peers that have not been
    /// tried, those are that are at least a quarter as fast as the fastest.
    fn may_fill(&self, now: Instant, slot: PeerSlot, piece: PieceIndex) -> bool {
        let inputs = self.pick_inputs();
        let is_candidate = |(slot, peer): &(PeerSlot, &Peer)| {
            let has = peer.has().get(piece) && self.may_fetch(inputs, peer, piece);
            let can = peer.may_request(now) && has;
            can && !peer.snubbed && !self.picker.was_tried(piece, *slot)
        };
        let candidates = self.peers.iter().filter(is_candidate);
        let rates = candidates.map(|(at, peer)| (peer.rate.bytes_per_second(), at == slot));
        let (mut fastest, mut own) = (None, None);
        for (rate, is_own) in rates {
            fastest = fastest.max(Some(rate));
            own = own.max(is_own.then_some(rate));
        }
        match (fastest, own) {
            (None, _) => true,
            (Some(fastest), own) => own.is_some_and(|own| own >= fastest / 4),
        }
    }

    /// Whether another piece may be opened: there are buffers for the longest piece, and a part of
    /// the pool remains to serve from.
    fn has_room(&self) -> bool {
        let piece_bytes = self.metainfo.layout.piece_bytes();
        let needed = piece_bytes.div_ceil(self.buffer_bytes) as usize;
        let all = self.config.buffer_count as usize;
        let owned = self.picker.buffer_count();
        let fits = owned + needed + all / SERVING_PART <= all || owned == 0;
        self.picker.filling_count() < OPEN_PIECES_MAX && fits && self.cache.available() >= needed
    }

    fn open_piece(&mut self, piece: PieceIndex) {
        let length = self.metainfo.layout.piece_length(piece);
        let buffers = (0..length.div_ceil(self.buffer_bytes))
            .map(|_| self.cache.take().expect("`has_room` has seen enough"))
            .collect();
        self.picker.open(piece, buffers);
    }

    /// Gives up an open piece that no connected peer can finish. False if there is none.
    fn make_room(&mut self) -> bool {
        let Some((piece, buffers)) = self.picker.abandon_orphan() else {
            return false;
        };
        for peer in self.peers.values_mut() {
            peer.drop_uploads_of(piece);
        }
        for buffer in buffers {
            self.cache.give_back(buffer);
        }
        true
    }

    // ---- offers and uploads

    /// The next suggestion of a seed (BEP 6).
    fn offer(&mut self, slot: PeerSlot) -> Option<Message> {
        if self.config.role != Role::Seeder {
            return None;
        }
        let in_bytes = OFFERED_BYTES / self.metainfo.layout.piece_bytes();
        let ahead = in_bytes.clamp(2, OFFERED_AHEAD_MAX) as usize;
        let peer = self.peers.get(slot)?;
        if !peer.is_offered_to() || peer.offered.len() >= ahead {
            return None;
        }
        let (have, peer_has) = (self.picker.have(), peer.has());
        let next = self.offers.next_for(have, peer_has, &mut self.rng);
        let Some(piece) = next else {
            if self.holds_offers() {
                return None;
            }
            let peer = self.peer(slot);
            // Every piece has been sent once, and the peers pass them on. More suggestions would
            // only send pieces twice. Peers ask by themselves for what was lost on the way.
            peer.said_offers = false;
            return peer.extended.then(|| self.extended_handshake(false));
        };
        self.peer(slot).offered.push(piece);
        self.read_for_marks.clear(piece);
        Some(Message::Suggest(piece.0))
    }

    /// Takes back the suggestions that the peer has not followed: others may get these pieces
    /// first.
    fn take_back_offers(&mut self, slot: PeerSlot) {
        let offered = core::mem::take(&mut self.peer(slot).offered);
        self.offers.take_back(offered, &mut self.rng);
    }

    /// The next block that this peer asked for, if it is in memory and within the limit.
    fn upload(&mut self, now: Instant, slot: PeerSlot, throttles: &mut Throttles) -> Option<Send> {
        let peer = self.peers.get(slot)?;
        let block = *peer.uploads.front()?;
        if !throttles.up.may_take(now, &peer.up_turn) {
            return None;
        }
        let chunk = Chunk {
            piece: block.piece,
            index: block.begin / self.buffer_bytes,
        };
        // Once half of the pool is being sent, each peer keeps a single buffer of it busy.
        let pins = |buffer| peer.sending.iter().any(|sending| sending.buffer == buffer);
        let crowded = 2 * self.cache.pinned_count() >= self.config.buffer_count as usize;
        let must_wait = |buffer| crowded && !peer.sending.is_empty() && !pins(buffer);
        let tail = self.picker.tail_buffer(block);
        match tail.or_else(|| self.cache.buffer_of(chunk)) {
            Some(buffer) if must_wait(buffer) => return None,
            _ => {}
        }
        let may_send = tail.is_some() || !self.must_hash_first(slot, block.piece);
        if may_send && let Some(marks) = self.marks_before(slot, block.piece) {
            return Some(Send::Message(marks));
        }
        let pinned = match tail {
            Some(buffer) => {
                self.cache.pin_taken(buffer);
                tail
            }
            None => may_send.then(|| self.cache.pin(chunk)).flatten(),
        };
        let Some(buffer) = pinned else {
            self.load_for(slot);
            return None;
        };
        let may_pack = self.config.compress != Compress::Never;
        let has_time = throttles.load.allows(self.config.compress);
        let peer = self.peer(slot);
        peer.uploads.pop_front();
        throttles.up.take(&mut peer.up_turn, block.length);
        throttles.load.note_sent(block.length);
        peer.start_sending(now, block, buffer);
        let packed = peer.lz_block.filter(|_| may_pack);
        let encode = has_time && packed.is_some() && peer.shrinking.tries(block.piece);
        Some(Send::Block {
            block,
            buffer,
            offset: block.begin % self.buffer_bytes,
            packed,
            encode,
        })
    }

    /// The block that `poll_send` has just given out for this peer goes compressed to this length,
    /// or as it is if it would not be shorter.
    pub fn handle_packed(&mut self, slot: PeerSlot, wire_bytes: u32, throttles: &mut Throttles) {
        let peer = self.peer(slot);
        let sending = peer.sending.back_mut().expect("a block was given out");
        assert!(wire_bytes <= sending.block.length);
        let saved_bytes = sending.block.length - wire_bytes;
        sending.wire_bytes = wire_bytes;
        peer.shrinking.note(saved_bytes > 0);
        throttles.up.give_back(saved_bytes);
    }

    /// The kernel has taken the first block that `poll_send` gave out for this peer and that was
    /// not confirmed yet.
    pub fn handle_sent(&mut self, now: Instant, slot: PeerSlot) {
        let peer = self.peer(slot);
        (peer.spoke_at, peer.moved_at) = (now, now);
        let sent = peer.took_block(now);
        let sent = sent.expect("only blocks that were given out are sent");
        let Sending {
            block,
            buffer,
            wire_bytes,
        } = sent;
        self.cache.unpin(buffer);
        self.traffic.note_uploaded(block.length, wire_bytes);
        self.leaving.note_uploaded(now, block.length);
        // When a chunk has been sent, another can be read.
        let end = block.begin + block.length;
        let length = self.metainfo.layout.piece_length(block.piece);
        if end == length || end.is_multiple_of(self.buffer_bytes) {
            self.load_for(slot);
        }
    }

    fn keep_alive(&mut self, now: Instant, slot: PeerSlot) -> Option<Send> {
        let silent = overdue(now, self.peer(slot).spoke_at, KEEP_ALIVE);
        silent.then_some(Send::Message(Message::KeepAlive))
    }
}
