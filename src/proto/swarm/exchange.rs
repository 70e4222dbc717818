//! What has a peer been told of other peers, and what has it told about itself?
//!
//! Read first: BEP 11 (peer exchange). Both sides tell of the peers that they are connected to, and
//! where those wait for connections: the port from which a peer called is not the one at which it
//! listens.

use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use crate::limits::*;
use crate::rng::Rng;
use crate::units::Instant;
use crate::wire::extension::{ExtendedHandshake, Pex};
use crate::wire::message::Message;

/// What this peer has been told of others, and where others find it.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Where it waits for connections: where we called it, or at the port that it named (BEP 10).
    pub(super) listens_at: Option<SocketAddr>,
    /// The id of the message that tells it of peers. None: it wants no such message.
    id: Option<u8>,
    /// The peers that it was told of, and not of their end.
    pub(super) told: Vec<SocketAddr>,
    /// When it may be told more, and how long after that again.
    next: Instant,
    pause: Duration,
    /// When it last told us of peers.
    pub(super) taught_at: Option<Instant>,
    /// It has introduced itself (BEP 10), and it has fetched what it has, as we do.
    pub(super) is_introduced: bool,
    pub(super) fetches: bool,
}

impl Exchange {
    /// `called_at`: where we called it; None if it called us.
    pub(super) fn new(now: Instant, called_at: Option<SocketAddr>) -> Exchange {
        Exchange {
            listens_at: called_at,
            id: None,
            told: Vec::new(),
            next: now,
            pause: PEX_PAUSE_MIN,
            taught_at: None,
            is_introduced: false,
            fetches: false,
        }
    }

    /// Takes what its handshake says. `address`: where it called from. Only the first port that it
    /// names counts: with one after the other it could send us and others anywhere.
    pub(super) fn introduce(&mut self, address: SocketAddr, handshake: &ExtendedHandshake) {
        let named = handshake.listen_port;
        let named = named.map(|port| SocketAddr::new(address.ip(), port));
        self.listens_at = self.listens_at.or(named);
        self.id = self.id.or(handshake.ut_pex);
        (self.is_introduced, self.fetches) = (true, handshake.fetches);
    }

    /// What to tell it now; `connected` are the peers that we are connected to.
    pub(super) fn news(
        &mut self,
        now: Instant,
        connected: &[SocketAddr],
        rng: &mut Rng,
    ) -> Option<Message> {
        let id = self.id.filter(|_| now >= self.next)?;
        let is_new = |address: &SocketAddr| {
            !self.told.contains(address) && Some(*address) != self.listens_at
        };
        let mut added: Vec<SocketAddr> = connected.iter().copied().filter(is_new).collect();
        // A random part: with the same one for all, everybody would call the same few.
        rng.shuffle(&mut added);
        added.truncate(PEX_TOLD_MAX);
        let is_gone = |address: &&SocketAddr| !connected.contains(address);
        let dropped: Vec<SocketAddr> = self
            .told
            .iter()
            .filter(is_gone)
            .take(PEX_TOLD_MAX)
            .copied()
            .collect();
        if added.is_empty() && dropped.is_empty() {
            // Comparing all with all at each tick would cost a seed with 80 peers 1 % of a core.
            if !self.told.is_empty() {
                self.next = now + PEX_TAKEN_AFTER;
            }
            return None;
        }
        self.told.retain(|address| !dropped.contains(address));
        self.told.extend_from_slice(&added);
        self.next = now + self.pause;
        self.pause = (self.pause * PEX_PAUSE_GROWTH).min(PEX_PAUSE_MAX);
        let payload = Pex { added, dropped }.encode();
        Some(Message::Extended { id, payload })
    }
}
