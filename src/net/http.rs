//! How does one HTTP exchange run inside an event loop: look up, connect, send, receive, follow
//! redirects?
//!
//! An [`Exchange`] is one GET with its redirects, or one POST: a state machine that lives in the
//! mio loop of its caller. It never blocks.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use swarm_proto::limits::{HTTP_TIMEOUT, REDIRECTS_MAX};
use swarm_proto::units::Instant;
use swarm_proto::wire::http::{self, HttpError, Response, ResponseReader};
use swarm_proto::wire::url::{Url, UrlError};

use super::dns::{Lookup, Resolver};

/// Bytes read from a socket in one call; a torrent of 1 MB takes 16 reads.
const READ_BYTES: usize = 64 * 1024;

/// Bytes of an answer that count as progress within `HTTP_TIMEOUT`. A modem of 9600 baud brings two
/// times as many, and a server that trickles does not hold a machine.
const PROGRESS_BYTES_MIN: usize = 4096;

/// The whole time of an exchange with `TimeLimit::Total`, and with `TimeLimit::Short`: in 5 seconds
/// TCP asks three times for a connection.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(30);
const SHORT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an exchange may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeLimit {
    /// No limit while data arrives; `HTTP_TIMEOUT` without PROGRESS_BYTES_MIN ends the exchange.
    Idle,
    /// In addition, 30 seconds in all: for announces, where a server that trickles must not keep
    /// the next announce waiting.
    Total,
    /// 5 seconds in all: for reports, of which the next one says more.
    Short,
}

/// What is asked of a server.
pub enum Request {
    Get,
    /// The body is JSON, made for the address of the server. A redirect is not followed: what we
    /// know goes to whom the user named.
    PostJson(Box<dyn Fn(SocketAddr) -> String>),
}

impl Request {
    fn bytes(&self, url: &Url, server: SocketAddr) -> Vec<u8> {
        match self {
            Request::Get => http::get(url),
            Request::PostJson(body) => http::post(url, "application/json", body(server).as_bytes()),
        }
    }
}

/// One request and its answer.
///
/// Call `advance` once at the start, at every event of its token, and at its `deadline`, until it
/// returns the result.
pub struct Exchange {
    url: Url,
    request: Request,
    body_bytes_max: usize,
    redirects_left: u32,
    /// Addresses not tried yet, the next one last.
    addresses: Vec<IpAddr>,
    stage: Stage,
    /// Why the last address failed.
    error: Option<ExchangeError>,
    /// When the current attempt times out unless data arrives.
    idle_deadline: Instant,
    /// Bytes that had arrived when that was last put off.
    counted_bytes: usize,
    total_deadline: Option<Instant>,
}

/// What comes next, or is under way.
enum Stage {
    /// The addresses of the host are to be found.
    Start,
    LookUp(Box<Lookup>),
    /// The next address is to be tried.
    Connect,
    Attempt(Box<Attempt>),
}

impl Exchange {
    /// Nothing is sent before the first `advance`.
    pub fn new(
        url: Url,
        request: Request,
        body_bytes_max: usize,
        time_limit: TimeLimit,
        now: Instant,
    ) -> Exchange {
        let total = match time_limit {
            TimeLimit::Idle => None,
            TimeLimit::Total => Some(TOTAL_TIMEOUT),
            TimeLimit::Short => Some(SHORT_TIMEOUT),
        };
        Exchange {
            url,
            request,
            body_bytes_max,
            redirects_left: REDIRECTS_MAX,
            addresses: Vec::new(),
            stage: Stage::Start,
            error: None,
            idle_deadline: now + HTTP_TIMEOUT,
            counted_bytes: 0,
            total_deadline: total.map(|total| now + total),
        }
    }

    /// The latest time for the next call of `advance`.
    pub fn deadline(&self) -> Instant {
        let deadline = match &self.stage {
            Stage::LookUp(lookup) => lookup.deadline(),
            _ => Some(self.idle_deadline),
        };
        let deadline = deadline.unwrap_or(self.idle_deadline);
        self.total_deadline
            .map_or(deadline, |total| total.min(deadline))
    }

    /// Does everything that is possible without waiting. An attempt that fails or times out is
    /// followed by the next address. Returns the answer, whatever its status, or the last error at
    /// the end, None while it waits.
    pub fn advance(
        &mut self,
        registry: &Registry,
        token: Token,
        resolver: &mut Resolver,
        now: Instant,
    ) -> Option<Result<Response, ExchangeError>> {
        if self.total_deadline.is_some_and(|total| total <= now) {
            resolver.doubt(&self.url.host);
            return Some(Err(self.timed_out()));
        }
        if matches!(self.stage, Stage::Attempt(_)) && self.idle_deadline <= now {
            self.error = Some(self.timed_out());
            self.stage = Stage::Connect;
        }
        loop {
            match &mut self.stage {
                Stage::Start => match resolver.find(&self.url.host, now) {
                    Ok(addresses) => self.try_each(addresses),
                    Err(lookup) => self.stage = Stage::LookUp(lookup),
                },
                Stage::LookUp(lookup) => {
                    let found = lookup.advance(registry, token, now)?;
                    match resolver.learn(&self.url.host, found, now) {
                        Ok(addresses) => self.try_each(addresses),
                        Err(why) => return Some(Err(self.no_address(why))),
                    }
                }
                Stage::Connect => {
                    if let Err(error) = self.connect(registry, token, now) {
                        resolver.doubt(&self.url.host);
                        return Some(Err(error));
                    }
                }
                Stage::Attempt(attempt) => match attempt.advance() {
                    Ok(Progress::Waits) => return None,
                    Ok(Progress::Moved) => {
                        let received = attempt.received_bytes;
                        if self.counted_bytes == 0
                            || received >= self.counted_bytes + PROGRESS_BYTES_MIN
                        {
                            self.counted_bytes = received;
                            self.idle_deadline = now + HTTP_TIMEOUT;
                        }
                    }
                    Ok(Progress::Done) => match self.finish() {
                        Ok(None) => {}
                        Ok(Some(response)) => return Some(Ok(response)),
                        Err(error) => return Some(Err(error)),
                    },
                    Err(error) => {
                        let (address, host) = (attempt.address, self.url.authority());
                        self.error = Some(match error {
                            AttemptError::Io(error) => ExchangeError::Connection {
                                host,
                                address,
                                error,
                            },
                            AttemptError::Http(error) => ExchangeError::Http { host, error },
                        });
                        self.stage = Stage::Connect;
                    }
                },
            }
        }
    }

    fn try_each(&mut self, mut addresses: Vec<IpAddr>) {
        addresses.reverse();
        self.addresses = addresses;
        self.stage = Stage::Connect;
    }

    /// Begins to connect to the next address; an error when no address is left.
    fn connect(
        &mut self,
        registry: &Registry,
        token: Token,
        now: Instant,
    ) -> Result<(), ExchangeError> {
        loop {
            let Some(address) = self.addresses.pop() else {
                return Err(self.error.take().unwrap_or_else(|| self.timed_out()));
            };
            let address = SocketAddr::new(address, self.url.port);
            let request = self.request.bytes(&self.url, address);
            match Attempt::new(request, address, self.body_bytes_max, registry, token) {
                Ok(attempt) => {
                    self.stage = Stage::Attempt(Box::new(attempt));
                    self.counted_bytes = 0;
                    self.idle_deadline = now + HTTP_TIMEOUT;
                    return Ok(());
                }
                Err(error) => {
                    self.error = Some(ExchangeError::Connection {
                        host: self.url.authority(),
                        address,
                        error,
                    });
                }
            }
        }
    }

    /// The answer is complete: returns it, or None after a redirect, which is followed.
    fn finish(&mut self) -> Result<Option<Response>, ExchangeError> {
        let Stage::Attempt(attempt) = std::mem::replace(&mut self.stage, Stage::Start) else {
            unreachable!("an attempt has just completed");
        };
        let reader = attempt.reader;
        match (reader.status(), reader.location()) {
            _ if !matches!(self.request, Request::Get) => Ok(Some(reader.into_response())),
            (Some(301 | 302 | 303 | 307 | 308), Some(location)) => {
                let from = self.url.to_string();
                self.redirects_left = self
                    .redirects_left
                    .checked_sub(1)
                    .ok_or(ExchangeError::Redirects { from })?;
                self.url = self.url.join(location)?;
                self.error = None;
                Ok(None)
            }
            _ => Ok(Some(reader.into_response())),
        }
    }

    /// Where the last redirect led to.
    pub fn url(&self) -> &Url {
        &self.url
    }

    fn timed_out(&self) -> ExchangeError {
        let host = self.url.authority();
        match &self.stage {
            Stage::LookUp(lookup) => self.no_address(lookup.failure()),
            Stage::Attempt(attempt) if attempt.received_bytes > 0 => ExchangeError::Slow {
                host,
                received: attempt.received_bytes,
            },
            _ => ExchangeError::TimedOut { host },
        }
    }

    fn no_address(&self, why: String) -> ExchangeError {
        ExchangeError::LookUp {
            host: self.url.host.clone(),
            why,
        }
    }
}

/// One connection to one address.
struct Attempt {
    address: SocketAddr,
    stream: TcpStream,
    connected: bool,
    request: Vec<u8>,
    sent_bytes: usize,
    received_bytes: usize,
    reader: ResponseReader,
}

/// What one step of an attempt achieved.
enum Progress {
    /// The socket would block.
    Waits,
    /// There may be more to do at once.
    Moved,
    /// The answer is complete.
    Done,
}

enum AttemptError {
    Io(io::Error),
    Http(HttpError),
}

impl From<io::Error> for AttemptError {
    fn from(error: io::Error) -> AttemptError {
        AttemptError::Io(error)
    }
}

impl From<HttpError> for AttemptError {
    fn from(error: HttpError) -> AttemptError {
        AttemptError::Http(error)
    }
}

impl Attempt {
    fn new(
        request: Vec<u8>,
        address: SocketAddr,
        body_bytes_max: usize,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Attempt> {
        let mut stream = TcpStream::connect(address)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Attempt {
            address,
            stream,
            connected: false,
            request,
            sent_bytes: 0,
            received_bytes: 0,
            reader: ResponseReader::new(body_bytes_max),
        })
    }

    /// The next step: waits for the connection, then sends the request, then receives the answer.
    fn advance(&mut self) -> Result<Progress, AttemptError> {
        if !self.connected {
            if let Some(error) = self.stream.take_error()? {
                return Err(error.into());
            }
            match self.stream.peer_addr() {
                Ok(_) => self.connected = true,
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                    return Ok(Progress::Waits);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let moved = if self.sent_bytes < self.request.len() {
            self.stream
                .write(&self.request[self.sent_bytes..])
                .map(|count| self.sent_bytes += count)
        } else {
            self.receive()?
        };
        match moved {
            Ok(()) if self.reader.is_done() => Ok(Progress::Done),
            Ok(()) => Ok(Progress::Moved),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Progress::Waits),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Progress::Moved),
            Err(error) => Err(error.into()),
        }
    }

    /// The outer error is a bad answer, the inner one an error of the socket.
    fn receive(&mut self) -> Result<io::Result<()>, HttpError> {
        let mut bytes = vec![0; READ_BYTES];
        match self.stream.read(&mut bytes) {
            Ok(0) => self.reader.close()?,
            Ok(count) => {
                self.received_bytes += count;
                self.reader.push(&bytes[..count])?;
            }
            Err(error) => return Ok(Err(error)),
        }
        Ok(Ok(()))
    }
}

/// Why an exchange failed.
#[derive(Debug)]
pub enum ExchangeError {
    /// A redirect leads to no `http://` URL.
    Url(UrlError),
    LookUp {
        host: String,
        why: String,
    },
    Connection {
        host: String,
        address: SocketAddr,
        error: io::Error,
    },
    TimedOut {
        host: String,
    },
    Slow {
        host: String,
        received: usize,
    },
    Http {
        host: String,
        error: HttpError,
    },
    Status {
        url: String,
        status: u16,
    },
    Redirects {
        from: String,
    },
}

impl ExchangeError {
    /// A server was reached and answered in HTTP.
    pub fn is_answer(&self) -> bool {
        match self {
            ExchangeError::Url(_)
            | ExchangeError::Status { .. }
            | ExchangeError::Redirects { .. } => true,
            ExchangeError::Http { error, .. } => error.follows_status(),
            ExchangeError::LookUp { .. }
            | ExchangeError::Connection { .. }
            | ExchangeError::TimedOut { .. }
            | ExchangeError::Slow { .. } => false,
        }
    }
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExchangeError::Url(error) => error.fmt(f),
            ExchangeError::LookUp { host, why } => write!(f, "cannot look up {host}: {why}"),
            ExchangeError::Connection {
                host,
                address,
                error,
            } => match address.to_string() == *host {
                true => write!(f, "no connection to {host}: {error}"),
                false => write!(f, "no connection to {host} at {address}: {error}"),
            },
            ExchangeError::TimedOut { host } => write!(f, "{host} does not answer"),
            ExchangeError::Slow { host, received } => write!(
                f,
                "{host} is too slow: {received} bytes came, and then not {PROGRESS_BYTES_MIN} in {} s",
                HTTP_TIMEOUT.as_secs()
            ),
            ExchangeError::Http { host, error } => write!(f, "answer of {host}: {error}"),
            ExchangeError::Status { url, status } => write!(f, "server answers {status} for {url}"),
            ExchangeError::Redirects { from } => write!(
                f,
                "more than {REDIRECTS_MAX} redirects, the last one from {from}"
            ),
        }
    }
}

impl std::error::Error for ExchangeError {}

impl From<UrlError> for ExchangeError {
    fn from(error: UrlError) -> ExchangeError {
        ExchangeError::Url(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::Poll;
    use std::net::TcpListener;

    #[test]
    fn a_silent_server_times_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (mut resolver, now) = (Resolver::default(), Instant(0));
        let poll = Poll::new().unwrap();
        let url = url.parse().unwrap();
        let mut exchange = Exchange::new(url, Request::Get, 1000, TimeLimit::Total, now);
        let mut advance = |now| exchange.advance(poll.registry(), Token(0), &mut resolver, now);
        assert!(advance(now).is_none());
        let _peer = listener.accept().unwrap();
        assert!(advance(now + (HTTP_TIMEOUT - Duration::from_micros(1))).is_none());
        let error = advance(now + HTTP_TIMEOUT).unwrap().unwrap_err();
        assert!(error.to_string().ends_with("does not answer"), "{error}");
    }

    /// A server that trickles is given up, and one that is slow and steady is not.
    #[test]
    fn an_answer_must_get_on() {
        let run = |chunk_bytes: usize, seconds: u64| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}/", listener.local_addr().unwrap());
            let (mut resolver, start) = (Resolver::default(), Instant(0));
            let (url, idle) = (url.parse().unwrap(), TimeLimit::Idle);
            let mut exchange = Exchange::new(url, Request::Get, 1 << 20, idle, start);
            let mut poll = Poll::new().unwrap();
            let mut advance =
                |poll: &Poll, now| exchange.advance(poll.registry(), Token(0), &mut resolver, now);
            assert!(advance(&poll, start).is_none());
            let (mut peer, _) = listener.accept().unwrap();
            peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n")
                .unwrap();
            let mut events = mio::Events::with_capacity(8);
            for second in 0..seconds {
                peer.write_all(&vec![b'x'; chunk_bytes]).unwrap();
                // The loopback interface delivers at once; the wait is for the edge.
                let _ = poll.poll(&mut events, Some(Duration::from_millis(100)));
                let now = start + Duration::from_secs(second);
                if let Some(result) = advance(&poll, now) {
                    return Some((second, result.unwrap_err().to_string()));
                }
            }
            None
        };
        let (second, error) = run(1, 40).unwrap();
        assert!((9..=21).contains(&second), "{second} s");
        assert!(error.contains(" is too slow: "), "{error}");
        assert_eq!(run(PROGRESS_BYTES_MIN / 8, 40), None);
    }
}
