//! Which connections have come in, and which torrent does each of them name?
//!
//! A connection belongs to no job until its handshake has named a torrent. Until then it is a
//! *newcomer* and has a seat here, for GREETING_MAX at most. When all seats are taken, a newcomer
//! of the address with most seats makes room (`policy::seats`).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpListener;
use mio::{Interest, Registry};
use swarm_proto::limits::GREETING_MAX;
use swarm_proto::policy::seats::{self, GREETING_PATIENCE, Seat};
use swarm_proto::policy::subnet::{self, Subnet};
use swarm_proto::units::Instant;
use swarm_proto::wire::message::Handshake;

use super::setup::Settings;
use super::tokens::Origin;
use super::{RunError, Shared};
use crate::net::peer_socket::PeerSocket;
use crate::os::net;

/// Ports tried, from the port of `--listen` on.
const PORT_COUNT: u16 = 100;

/// Seats for newcomers: more than connect to one machine at the same moment, as a rule.
const NEWCOMER_COUNT_MAX: usize = 64;

/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 64;

/// Pause after the kernel could give no connection (out of descriptors, out of memory). We must try
/// again by ourselves: with a full backlog the kernel drops new connections, and then no further
/// event comes.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Listener {
    socket: TcpListener,
    /// The subnets from which connections are taken; empty: all.
    allowed: Vec<Subnet>,
    /// A newcomer keeps its index, because that is in its token.
    newcomers: Vec<Option<Newcomer>>,
    /// When to accept again without an event.
    accept_at: Option<Instant>,
}

/// A connection that has not named a torrent yet.
struct Newcomer {
    conn: PeerSocket,
    since: Instant,
}

impl Newcomer {
    fn seat(&self) -> Seat {
        Seat {
            ip: self.conn.address().ip(),
            idle_since: Some(self.since),
        }
    }

    fn until(&self) -> Instant {
        self.since + GREETING_MAX
    }
}

impl Listener {
    /// Listens at the address of the settings, or at one of the next ports.
    pub fn new(settings: &Settings, registry: &Registry) -> Result<Listener, RunError> {
        let address = settings.listen;
        let mut socket = net::listen_next_free(address, PORT_COUNT)
            .map_err(|error| RunError::Listen { address, error })?;
        registry.register(&mut socket, Origin::Listener.token(), Interest::READABLE)?;
        Ok(Listener {
            socket,
            allowed: settings.allowed.clone(),
            newcomers: (0..NEWCOMER_COUNT_MAX).map(|_| None).collect(),
            accept_at: None,
        })
    }

    pub fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    pub fn accept(&mut self, registry: &Registry, now: Instant) {
        self.accept_at = None;
        for _ in 0..ACCEPTS_PER_TURN {
            let (stream, address) = match self.socket.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Reset while it waited (accept(2)): the next connection may be good.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                // Too many open files, or no memory; and network errors of the new connection
                // (accept(2)).
                Err(_) => {
                    self.accept_at = Some(now + ACCEPT_PAUSE);
                    return;
                }
            };
            // One address for one machine, whether it came over IPv4 or IPv6.
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            if !subnet::allows(&self.allowed, address.ip()) {
                continue;
            }
            if let Ok(conn) = PeerSocket::accepted(stream, address) {
                // A connection that cannot be kept is closed, and its peer tries again.
                let _ = self.keep(conn, registry, now);
            }
        }
        // More may be waiting, and their edge has passed. Registering anew brings another event,
        // after the others had their turn.
        let _ = registry.reregister(
            &mut self.socket,
            Origin::Listener.token(),
            Interest::READABLE,
        );
    }

    /// Gives a connection a seat, or closes it if no other one makes room.
    fn keep(&mut self, mut conn: PeerSocket, registry: &Registry, now: Instant) -> io::Result<()> {
        let free = self.newcomers.iter().position(Option::is_none);
        let displaced = || {
            let newcomers = self.newcomers.iter().flatten();
            let seats: Vec<Seat> = newcomers.map(Newcomer::seat).collect();
            seats::displaced(now, conn.address().ip(), &seats, GREETING_PATIENCE)
        };
        let Some(index) = free.or_else(displaced) else {
            return Ok(());
        };
        self.newcomers[index] = None;
        conn.register(registry, Origin::Newcomer(index).token())?;
        self.newcomers[index] = Some(Newcomer { conn, since: now });
        Ok(())
    }

    /// Reads from a connection after an event. Once its handshake is complete, the connection
    /// leaves with it.
    pub fn read(
        &mut self,
        index: usize,
        event: &Event,
        shared: &mut Shared,
    ) -> Option<(PeerSocket, Handshake)> {
        let newcomer = self.newcomers[index].as_mut()?;
        newcomer.conn.ready(event);
        match newcomer.conn.poll_handshake() {
            Ok(None) => None,
            Ok(Some(handshake)) => {
                let Newcomer { conn, .. } = self.newcomers[index].take()?;
                Some((conn, handshake))
            }
            Err(error) => {
                shared.note_closed(newcomer.conn.address(), &error);
                self.newcomers[index] = None;
                None
            }
        }
    }

    /// When `handle_timeout` has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let newcomers = self.newcomers.iter().flatten();
        newcomers.map(Newcomer::until).chain(self.accept_at).min()
    }

    pub fn handle_timeout(&mut self, registry: &Registry, now: Instant) {
        for newcomer in &mut self.newcomers {
            newcomer.take_if(|newcomer| newcomer.until() <= now);
        }
        if self.accept_at.is_some_and(|due| due <= now) {
            self.accept(registry, now);
        }
    }
}
