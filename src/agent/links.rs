//! How do messages and blocks of one job get from its peers to the core, and back?
//!
//! A connection that always has more gets a bounded part of each turn, so that the others, and the
//! disk, get theirs.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;

use mio::Token;
use mio::event::Event;
use swarm_proto::swarm::Swarm;
use swarm_proto::units::{Instant, PeerSlot};
use swarm_proto::wire::message::Handshake;

use super::Shared;
use super::place::{JobIndex, Place};
use super::tokens::Origin;
use crate::net::peer_socket::{Input, Opening, PeerSocket, SocketError};
use crate::os::pool::Pool;

/// Messages or blocks taken from one connection in one turn: 1 MiB of blocks, well under a
/// millisecond of copying.
const INPUTS_PER_TURN: usize = 64;

/// Rounds of queueing and sending to one connection in one turn: 1 MiB of blocks. If blocks are
/// compressed, it is one round: 16 blocks, which take a millisecond at most.
const FLUSHES_PER_TURN: usize = 4;

/// The connections of one job to peers that it knows.
pub(super) struct Links {
    job: JobIndex,
    /// Of the job, as `Place` has it.
    number: usize,
    /// By the number that the core gave the peer. It gives the number to another peer only after
    /// `handle_closed`.
    links: Vec<Option<Link>>,
    /// The peer that was called last and is gone, and why.
    last_try: Option<(SocketAddr, String)>,
    /// Peers whose links may have something to read. Each stands here once, unless its link was
    /// closed meanwhile and another peer has the number.
    ready: VecDeque<PeerSlot>,
}

struct Link {
    conn: PeerSocket,
    /// We made the connection.
    called: bool,
    /// Stands in `Links::ready`.
    queued: bool,
}

/// What became of one attempt to send.
struct Sent {
    blocks: u32,
    /// There is more to send, and room for it.
    more: bool,
}

impl Links {
    pub fn new(place: Place) -> Links {
        Links {
            job: place.index,
            number: place.number,
            links: Vec::new(),
            last_try: None,
            ready: VecDeque::new(),
        }
    }

    /// Takes note of an event; `receive` reads.
    pub fn note(&mut self, peer: PeerSlot, event: &Event) {
        if let Some(link) = self.link(peer) {
            link.conn.ready(event);
            self.queue(peer);
        }
    }

    /// True if `receive` has something to do without any event.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Reads from every link that may have something to read.
    pub fn receive(
        &mut self,
        core: &mut Swarm,
        pool: &mut Pool,
        shared: &mut Shared,
        now: Instant,
    ) {
        let number = self.number;
        for _ in 0..self.ready.len() {
            let Some(peer) = self.ready.pop_front() else {
                return;
            };
            let Some(link) = self.link(peer) else {
                continue;
            };
            link.queued = false;
            match link.receive(peer, number, core, pool, shared, now) {
                Ok(()) if link.conn.is_readable() => self.queue(peer),
                Ok(()) => {}
                Err(error) => self.close(peer, &error, core, shared, now),
            }
        }
    }

    /// Sends on every link with room what the core has for its peer. True if a block was sent: its
    /// buffer and its place in the queue may be free again.
    pub fn send(
        &mut self,
        core: &mut Swarm,
        pool: &Pool,
        shared: &mut Shared,
        now: Instant,
    ) -> bool {
        let (number, mut blocks) = (self.number, 0);
        for peer in (0..self.links.len() as u32).map(PeerSlot) {
            let Some(link) = self.link(peer) else {
                continue;
            };
            match link.send(peer, number, core, pool, shared, now) {
                Ok(sent) => {
                    blocks += sent.blocks;
                    if sent.more {
                        // The rest is sent in the next turn, after the other links had theirs.
                        self.queue(peer);
                    }
                }
                Err(error) => self.close(peer, &error, core, shared, now),
            }
        }
        blocks > 0
    }

    /// Closes and opens the connections that the core wants closed and opened; false if there were
    /// none.
    pub fn close_and_connect(
        &mut self,
        core: &mut Swarm,
        shared: &mut Shared,
        now: Instant,
    ) -> bool {
        let mut busy = false;
        while let Some((peer, why)) = core.poll_close() {
            self.close(peer, &why, core, shared, now);
            busy = true;
        }
        while let Some((peer, address)) = core.poll_connect(now) {
            if let Err(error) = self.connect(peer, address, shared) {
                // No route, or no more descriptors.
                self.last_try = Some((address, error.to_string()));
                core.handle_closed(now, peer, &mut shared.throttles);
            }
            busy = true;
        }
        busy
    }

    fn connect(&mut self, peer: PeerSlot, address: SocketAddr, shared: &Shared) -> io::Result<()> {
        let mut conn = PeerSocket::connect(address)?;
        conn.register(shared.poll.registry(), self.token(peer))?;
        self.insert(peer, conn, true);
        Ok(())
    }

    /// Takes over a connection that came in and that the core has admitted as `peer`.
    pub fn adopt(
        &mut self,
        peer: PeerSlot,
        mut conn: PeerSocket,
        handshake: &Handshake,
        core: &mut Swarm,
        shared: &mut Shared,
        now: Instant,
    ) {
        if let Err(error) = conn.reregister(shared.poll.registry(), self.token(peer)) {
            return self.close(peer, &error, core, shared, now);
        }
        conn.expect_torrent(bitfield_bytes(core));
        self.insert(peer, conn, false);
        // Messages may have been read along with the handshake.
        self.queue(peer);
        core.handle_handshake(now, peer, handshake);
    }

    /// Closes the link to a peer, if there is one, and tells the core.
    fn close(
        &mut self,
        peer: PeerSlot,
        why: &dyn fmt::Display,
        core: &mut Swarm,
        shared: &mut Shared,
        now: Instant,
    ) {
        let link = self.links.get_mut(peer.index()).and_then(Option::take);
        if let Some(link) = link {
            shared.note_closed(link.conn.address(), why);
            if link.called {
                self.last_try = Some((link.conn.address(), why.to_string()));
            }
        }
        core.handle_closed(now, peer, &mut shared.throttles);
    }

    /// Which peer was called last and is gone, and why.
    pub fn last_try(&self) -> Option<&(SocketAddr, String)> {
        self.last_try.as_ref()
    }

    pub fn close_all(
        &mut self,
        why: &dyn fmt::Display,
        core: &mut Swarm,
        shared: &mut Shared,
        now: Instant,
    ) {
        for peer in (0..self.links.len() as u32).map(PeerSlot) {
            if self.link(peer).is_some() {
                self.close(peer, why, core, shared, now);
            }
        }
    }

    fn token(&self, peer: PeerSlot) -> Token {
        Origin::Peer(self.job, peer).token()
    }

    fn link(&mut self, peer: PeerSlot) -> Option<&mut Link> {
        self.links.get_mut(peer.index())?.as_mut()
    }

    fn insert(&mut self, peer: PeerSlot, conn: PeerSocket, called: bool) {
        if self.links.len() <= peer.index() {
            self.links.resize_with(peer.index() + 1, || None);
        }
        self.links[peer.index()] = Some(Link {
            conn,
            called,
            queued: false,
        });
    }

    /// Has a link read in the next `receive`.
    fn queue(&mut self, peer: PeerSlot) {
        let Some(link) = self.link(peer) else {
            return;
        };
        if !link.queued {
            link.queued = true;
            self.ready.push_back(peer);
        }
    }
}

impl Link {
    /// Takes a bounded number of messages and blocks from the connection.
    fn receive(
        &mut self,
        peer: PeerSlot,
        job: usize,
        core: &mut Swarm,
        pool: &mut Pool,
        shared: &mut Shared,
        now: Instant,
    ) -> Result<(), SocketError> {
        let Shared {
            throttles,
            packer,
            scratch,
            ..
        } = shared;
        if self.conn.is_connecting() {
            if self.conn.poll_open()? == Opening::Pending {
                return Ok(());
            }
            core.handle_connected(now, peer);
        }
        for _ in 0..INPUTS_PER_TURN {
            match self.conn.next(pool, scratch)? {
                Input::Nothing => return Ok(()),
                Input::Handshake(handshake) => {
                    self.conn.expect_torrent(bitfield_bytes(core));
                    core.handle_handshake(now, peer, &handshake);
                }
                Input::Message(message) => core.handle_message(now, peer, message, throttles),
                Input::BlockBegins(block) => {
                    self.conn.receive_into(core.begin_block(now, peer, block));
                }
                Input::PackedBegins(block, wire_bytes) => {
                    let sink = core.begin_packed(now, peer, block, wire_bytes);
                    self.conn.receive_into(sink);
                }
                Input::BlockEnds(block) => {
                    packer.note_received(job, block, None);
                    core.handle_block(now, peer, block, throttles);
                }
                Input::PackedEnds(block, wire_bytes) => {
                    let packed = &scratch[..wire_bytes as usize];
                    packer.note_received(job, block, Some(packed));
                    core.handle_block(now, peer, block, throttles);
                }
            }
        }
        Ok(())
    }

    /// Sends a bounded part of what the core has for the peer.
    fn send(
        &mut self,
        peer: PeerSlot,
        job: usize,
        core: &mut Swarm,
        pool: &Pool,
        shared: &mut Shared,
        now: Instant,
    ) -> Result<Sent, SocketError> {
        let Shared {
            throttles, packer, ..
        } = shared;
        let mut blocks = 0;
        for _ in 0..FLUSHES_PER_TURN {
            if !self.conn.is_writable() {
                return Ok(Sent {
                    blocks,
                    more: false,
                });
            }
            let mut packed = false;
            while self.conn.has_room()
                && let Some(send) = core.poll_send(now, peer, throttles)
            {
                if let Some(wire_bytes) = self.conn.push(send, pool, packer, job) {
                    core.handle_packed(peer, wire_bytes, throttles);
                    packed = true;
                }
            }
            if !self.conn.has_output() {
                return Ok(Sent {
                    blocks,
                    more: false,
                });
            }
            let sent = self.conn.flush(pool)?;
            (0..sent).for_each(|_| core.handle_sent(now, peer));
            blocks += sent;
            if packed {
                break;
            }
        }
        Ok(Sent { blocks, more: true })
    }
}

/// Length of the bitfield messages that a peer may send.
fn bitfield_bytes(core: &Swarm) -> usize {
    core.metainfo().layout.piece_count().div_ceil(8) as usize
}
