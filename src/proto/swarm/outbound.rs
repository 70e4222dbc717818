//! What is said to one peer next: who we are, what we want, what we got, which blocks it shall
//! send, and the blocks it asked for. Pulled by the shell while there is room, so nothing queues up
//! here but what must not be forgotten.

use alloc::string::String;

use super::Swarm;
use super::interface::*;
use crate::limits::*;
use crate::policy::cache::Chunk;
use crate::policy::picker::{Asked, Pick};
use crate::swarm::peer::{Phase, overdue};
use crate::units::*;
use crate::wire::extension::{DONT_HAVE_ID, EXTENDED_HANDSHAKE_ID, ExtendedHandshake};
use crate::wire::message::{Handshake, Message};

impl Swarm {
    /// The next thing to write to this peer. Call it while there is room for it.
    pub fn poll_send(&mut self, now: Instant, slot: PeerSlot) -> Option<Send> {
        if core::mem::take(&mut self.rechoke_due) {
            self.rechoke(now);
        }
        let send = self.next_send(now, slot)?;
        self.peer(slot).spoke_at = now;
        Some(send)
    }

    pub(super) fn next_send(&mut self, now: Instant, slot: PeerSlot) -> Option<Send> {
        let peer = self.peers.get_mut(slot.index())?.as_mut()?;
        if matches!(peer.phase, Phase::Connecting | Phase::Closing) {
            return None;
        }
        if !peer.said_handshake {
            peer.said_handshake = true;
            let (info_hash, peer_id) = (self.metainfo.info_hash, self.config.peer_id);
            return Some(Send::Handshake(Handshake {
                fast: true,
                extended: true,
                info_hash,
                peer_id,
            }));
        }
        if peer.phase != Phase::Live {
            return None;
        }
        let word = self
            .introduction(slot)
            .or_else(|| self.wish(now, slot))
            .or_else(|| self.news(slot));
        if let Some(message) = word
            .or_else(|| self.request(now, slot))
            .or_else(|| self.offer(slot))
        {
            return Some(Send::Message(message));
        }
        self.upload(now, slot)
            .or_else(|| self.keep_alive(now, slot))
    }

    /// The extension handshake, then the bitfield, which must come before anything that it would
    /// contradict.
    pub(super) fn introduction(&mut self, slot: PeerSlot) -> Option<Message> {
        let (count, full, told) = (self.have().count(), self.have().is_full(), self.news.len());
        let (seeder, complete) = (
            self.config.role == Role::Seeder,
            self.state == State::Seeding,
        );
        let peer = self.peer(slot);
        if !peer.said_bitfield {
            (peer.said_bitfield, peer.said_offers) = (true, seeder);
            (peer.told, peer.told_at_first) = (told, told);
            return match (peer.fast, full, count) {
                (true, true, _) => Some(Message::HaveAll),
                (true, _, 0) => Some(Message::HaveNone),
                (false, _, 0) => self.introduction(slot),
                _ => Some(Message::Bitfield(self.have().as_bytes().to_vec())),
            };
        }
        if peer.extended && !peer.said_extended {
            (peer.said_extended, peer.said_complete) = (true, complete);
            return Some(self.extended_handshake(seeder));
        }
        // Of the pieces that it had itself it was not told, so it cannot count.
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
            reqq: Some(UPLOAD_QUEUE_MAX as u32),
            client: Some(String::from(concat!("swarmdd ", env!("CARGO_PKG_VERSION")))),
            listen_port: Some(self.config.listen_port),
            // A source without some of its pieces does not want them back.
            upload_only: self.state == State::Seeding,
            offers,
            ..ExtendedHandshake::default()
        };
        Message::Extended {
            id: EXTENDED_HANDSHAKE_ID,
            payload: handshake.encode(),
        }
    }

    /// Choking and interest, where they differ from what was said last; then rejects and cancels.
    pub(super) fn wish(&mut self, now: Instant, slot: PeerSlot) -> Option<Message> {
        let downloading = self.is_fetching();
        let peer = self.peer(slot);
        if peer.am_choking == peer.unchoke {
            peer.am_choking = !peer.unchoke;
            if peer.unchoke {
                return Some(Message::Unchoke);
            }
            // What was asked for already is still sent, where there is a word for it (BEP 6): most
            // likely the rest of a piece that would be of no use to anybody until this peer's next
            // turn.
            if !peer.fast {
                peer.uploads.clear();
            }
            self.take_back_offers(slot);
            return Some(Message::Choke);
        }
        let interested = downloading && peer.wanted > 0;
        if peer.am_interested != interested {
            peer.am_interested = interested;
            peer.progress_at = now;
            return Some(if interested {
                Message::Interested
            } else {
                Message::NotInterested
            });
        }
        peer.replies.pop_front()
    }

    /// A piece that got onto the disk since we last told this peer, or was lost. Who has a piece
    /// and still fetches others is not told that we have it too: half of all `have` would be that.
    pub(super) fn news(&mut self, slot: PeerSlot) -> Option<Message> {
        loop {
            let peer = self.peers[slot.index()].as_mut()?;
            let piece = *self.news.get(peer.told)?;
            peer.told += 1;
            let word = match self.picker.have().get(piece) {
                true if peer.extended && peer.has.get(piece) && !peer.is_complete() => None,
                true => Some(Message::Have(piece.0)),
                false => peer.loss_of(piece),
            };
            if word.is_some() {
                return word;
            }
        }
    }

    /// The next request, as long as the pipeline of this peer is not full and it has something we
    /// want.
    pub(super) fn request(&mut self, now: Instant, slot: PeerSlot) -> Option<Message> {
        let peer = self.peers[slot.index()].as_ref()?;
        if !self.is_fetching()
            || !peer.may_request(now)
            || peer.requests.len() >= peer.pipeline_depth()
        {
            return None;
        }
        if peer.nothing_at == Some((self.picker.version(), self.has_room())) {
            return None;
        }
        if !self.config.max_down.may_take(now, &peer.down_turn) {
            return None;
        }
        loop {
            let peer = self.peers[slot.index()].as_ref()?;
            let requested = |block: Block| peer.requests.contains(&block);
            let asked = Asked {
                slot,
                has: &peer.has,
                suggested: &peer.suggested,
                offers: peer.offers,
                requested: &requested,
            };
            // While the target is still being scanned there may be more to come.
            let last = self.state == State::Downloading;
            match self.picker.pick(&asked, self.has_room(), last) {
                Pick::Block(block) => {
                    self.picker.request(block, slot);
                    let peer = self.peers[slot.index()].as_mut()?;
                    self.config.max_down.take(&mut peer.down_turn, block.length);
                    if peer.requests.is_empty() {
                        peer.progress_at = now;
                    }
                    peer.requests.push_back(block);
                    peer.filled = peer.requests.len() >= peer.pipeline_depth();
                    return Some(Message::Request(block.into()));
                }
                Pick::Open(piece) => self.open_piece(piece),
                Pick::Nothing => {
                    if !self.has_room() && self.make_room() {
                        continue;
                    }
                    let chance = (self.picker.version(), self.has_room());
                    let peer = self.peer(slot);
                    (peer.nothing_at, peer.filled) = (Some(chance), false);
                    return None;
                }
            }
        }
    }

    /// Whether another piece may be opened: buffers for the longest, and a part of the pool left to
    /// serve from.
    pub(super) fn has_room(&self) -> bool {
        let needed = self
            .metainfo
            .layout
            .piece_bytes()
            .div_ceil(self.buffer_bytes) as usize;
        let reserve = self.config.buffer_count as usize / SERVING_PART;
        let owned = self.picker.buffer_count();
        let fits = owned + needed + reserve <= self.config.buffer_count as usize || owned == 0;
        self.picker.filling_count() < OPEN_PIECES_MAX && fits && self.cache.available() >= needed
    }

    pub(super) fn open_piece(&mut self, piece: PieceIndex) {
        let count = self
            .metainfo
            .layout
            .piece_length(piece)
            .div_ceil(self.buffer_bytes);
        let buffers = (0..count)
            .map(|_| self.cache.take().expect("there was room"))
            .collect();
        self.picker.open(piece, buffers);
    }

    /// Gives up an open piece that nobody here can finish. False if there is none.
    pub(super) fn make_room(&mut self) -> bool {
        let Some((_, buffers)) = self.picker.abandon_orphan() else {
            return false;
        };
        buffers
            .into_iter()
            .for_each(|buffer| self.cache.give_back(buffer));
        true
    }

    /// The seed offers its pieces like cards (BEP 6 suggest): each to one peer before any to a
    /// second.
    pub(super) fn offer(&mut self, slot: PeerSlot) -> Option<Message> {
        if self.config.role != Role::Seeder {
            return None;
        }
        let ahead = (OFFERED_BYTES / self.metainfo.layout.piece_bytes()).clamp(2, OFFERED_AHEAD_MAX)
            as usize;
        let peer = self.peers[slot.index()].as_ref()?;
        if !peer.is_offered_to() || peer.offered.len() >= ahead {
            return None;
        }
        let is_new =
            |piece: &PieceIndex| self.sent.is_ranked(*piece) && self.sent.count(*piece) == 0;
        let useful =
            |piece: &PieceIndex| is_new(piece) && self.have().get(*piece) && !peer.has.get(*piece);
        // In the order of the disk: what everybody writes at the same time lies together, and heads
        // move less.
        let (next, count) = (self.next_offer.0, self.have().len());
        let Some(piece) = (next..count).chain(0..next).map(PieceIndex).find(useful) else {
            // Everything has been out, and the others pass it on; to suggest it would only send it
            // twice. What was lost on the way they ask for themselves.
            let peer = self.peer(slot);
            peer.said_offers = false;
            return peer.extended.then(|| self.extended_handshake(false));
        };
        self.next_offer = PieceIndex((piece.0 + 1) % count);
        self.sent.increment(piece, &mut self.rng);
        let peer = self.peer(slot);
        peer.offered.push(piece);
        Some(Message::Suggest(piece.0))
    }

    /// Pieces that were suggested to a peer and that it has not asked for: somebody else may have
    /// them first.
    pub(super) fn take_back_offers(&mut self, slot: PeerSlot) {
        for piece in core::mem::take(&mut self.peer(slot).offered) {
            self.sent.decrement(piece, &mut self.rng);
        }
    }

    /// The next block this peer asked for, if it is in memory and within the limit.
    pub(super) fn upload(&mut self, now: Instant, slot: PeerSlot) -> Option<Send> {
        let block = *self.peer(slot).uploads.front()?;
        let turn = self.peer(slot).up_turn;
        if !self.config.max_up.may_take(now, &turn) {
            return None;
        }
        let chunk = Chunk {
            piece: block.piece,
            index: block.begin / self.buffer_bytes,
        };
        let looked_at = !self.must_look_at(block.piece);
        let Some(buffer) = looked_at.then(|| self.cache.pin(chunk)).flatten() else {
            self.load_for(slot);
            return None;
        };
        let peer = self.peers[slot.index()].as_mut()?;
        peer.uploads.pop_front();
        self.config.max_up.take(&mut peer.up_turn, block.length);
        peer.sending.push_back((block, buffer));
        Some(Send::Block {
            block,
            buffer,
            offset: block.begin % self.buffer_bytes,
        })
    }

    /// The first block that `poll_send` gave out for this peer and that was not confirmed yet is in
    /// the kernel's hands.
    pub fn handle_sent(&mut self, now: Instant, slot: PeerSlot) {
        let peer = self.peer(slot);
        peer.spoke_at = now;
        let (block, buffer) = peer
            .sending
            .pop_front()
            .expect("only what was given out is sent");
        self.cache.unpin(buffer);
        self.uploaded += u64::from(block.length);
        // One more chunk can be read when one is through.
        let end = block.begin + block.length;
        let length = self.metainfo.layout.piece_length(block.piece);
        if end == length || end.is_multiple_of(self.buffer_bytes) {
            self.load_for(slot);
        }
    }

    pub(super) fn keep_alive(&mut self, now: Instant, slot: PeerSlot) -> Option<Send> {
        let silent = overdue(now, self.peer(slot).spoke_at, KEEP_ALIVE);
        silent.then_some(Send::Message(Message::KeepAlive))
    }
}
