//! How does one HTTP exchange run inside an event loop: look up, connect, send, receive, follow
//! redirects?
//!
//! An [`Exchange`] is one GET with its redirects, or one POST: a state machine that lives in the
//! mio loop of its caller. It never blocks, with one exception: names are looked up by the C
//! library, which waits for its time-out (musl: 5 s a try, two tries) if the name server does not
//! answer. The [`Resolver`] therefore keeps addresses and asks again only after a failure, at most
//! once a minute. An address in digits needs no lookup.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use swarm_proto::limits::{HTTP_TIMEOUT, REDIRECTS_MAX};
use swarm_proto::units::Instant;
use swarm_proto::wire::http::{self, HttpError, Response, ResponseReader};
use swarm_proto::wire::url::{Url, UrlError};

/// Bytes read from a socket in one call; a torrent of 1 MB takes 16 reads.
const READ_BYTES: usize = 64 * 1024;

/// Bytes of an answer that count as progress within `HTTP_TIMEOUT`. A modem of 9600 baud brings two
/// times as many, and a server that trickles does not hold a machine.
const PROGRESS_BYTES_MIN: usize = 4096;

/// The whole time of an exchange with `TimeLimit::Total`, and with `TimeLimit::Short`: in 5 seconds
/// TCP asks three times for a connection.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(30);
const SHORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause between two lookups of one name. While the name server is away a lookup blocks the loop
/// for ten seconds, and announces are retried every five: without a pause the loop would do little
/// else.
const LOOKUP_PAUSE: Duration = Duration::from_secs(60);

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
    /// The body is JSON. A redirect is not followed: what we know goes to whom the user named.
    PostJson(String),
}

impl Request {
    fn bytes(&self, url: &Url) -> Vec<u8> {
        match self {
            Request::Get => http::get(url),
            Request::PostJson(body) => http::post(url, "application/json", body.as_bytes()),
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
    addresses: Vec<SocketAddr>,
    attempt: Option<Attempt>,
    /// Why the last address failed.
    error: Option<ExchangeError>,
    /// When the current attempt times out unless data arrives.
    idle_deadline: Instant,
    /// Bytes that had arrived when that was last put off.
    counted_bytes: usize,
    total_deadline: Option<Instant>,
}

impl Exchange {
    /// Looks the name up. Nothing is sent before the first `advance`.
    pub fn new(
        resolver: &mut Resolver,
        url: Url,
        request: Request,
        body_bytes_max: usize,
        time_limit: TimeLimit,
        now: Instant,
    ) -> Result<Exchange, ExchangeError> {
        let total = match time_limit {
            TimeLimit::Idle => None,
            TimeLimit::Total => Some(TOTAL_TIMEOUT),
            TimeLimit::Short => Some(SHORT_TIMEOUT),
        };
        let mut exchange = Exchange {
            url,
            request,
            body_bytes_max,
            redirects_left: REDIRECTS_MAX,
            addresses: Vec::new(),
            attempt: None,
            error: None,
            idle_deadline: now + HTTP_TIMEOUT,
            counted_bytes: 0,
            total_deadline: total.map(|total| now + total),
        };
        exchange.look_up(resolver, now)?;
        Ok(exchange)
    }

    /// The latest time for the next call of `advance`.
    pub fn deadline(&self) -> Instant {
        self.total_deadline
            .map_or(self.idle_deadline, |total| total.min(self.idle_deadline))
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
            return Some(Err(self.timed_out()));
        }
        if self.attempt.is_some() && self.idle_deadline <= now {
            self.error = Some(self.timed_out());
            self.attempt = None;
        }
        loop {
            let Some(attempt) = &mut self.attempt else {
                match self.connect(registry, token, now) {
                    Ok(()) => continue,
                    Err(error) => {
                        resolver.doubt(&self.url);
                        return Some(Err(error));
                    }
                }
            };
            let (address, host) = (attempt.address, self.url.authority());
            match attempt.advance() {
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
                Ok(Progress::Done) => match self.finish(resolver, now) {
                    Ok(None) => {}
                    Ok(Some(response)) => return Some(Ok(response)),
                    Err(error) => return Some(Err(error)),
                },
                Err(AttemptError::Io(error)) => {
                    self.error = Some(ExchangeError::Connection {
                        host,
                        address,
                        error,
                    });
                    self.attempt = None;
                }
                Err(AttemptError::Http(error)) => {
                    self.error = Some(ExchangeError::Http { host, error });
                    self.attempt = None;
                }
            }
        }
    }

    fn look_up(&mut self, resolver: &mut Resolver, now: Instant) -> Result<(), ExchangeError> {
        self.addresses = resolver.addresses(&self.url, now)?;
        self.addresses.reverse();
        Ok(())
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
                let host = self.url.host.clone();
                let no_address = ExchangeError::NoAddress { host };
                return Err(self.error.take().unwrap_or(no_address));
            };
            let request = self.request.bytes(&self.url);
            match Attempt::new(request, address, self.body_bytes_max, registry, token) {
                Ok(attempt) => {
                    self.attempt = Some(attempt);
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
    fn finish(
        &mut self,
        resolver: &mut Resolver,
        now: Instant,
    ) -> Result<Option<Response>, ExchangeError> {
        let attempt = self.attempt.take();
        let reader = attempt.expect("this attempt has just completed").reader;
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
                self.look_up(resolver, now)?;
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
        match self.attempt.as_ref().map(|attempt| attempt.received_bytes) {
            None | Some(0) => ExchangeError::TimedOut { host },
            Some(received) => ExchangeError::Slow { host, received },
        }
    }
}

/// Addresses of names that were looked up before.
#[derive(Default)]
pub struct Resolver {
    /// Addresses that were found are kept, also when no connection to them succeeds.
    keeps: bool,
    /// One for each name and port: a tracker, a web server, perhaps one more.
    known: Vec<Lookup>,
}

/// What the name server answered, and when it may be asked again.
struct Lookup {
    host: String,
    port: u16,
    addresses: Vec<SocketAddr>,
    /// No connection to these addresses succeeded, or there are none.
    doubtful: bool,
    retry_at: Instant,
}

impl Resolver {
    /// Asks no more once it has an answer.
    pub fn keeping() -> Resolver {
        Resolver {
            keeps: true,
            known: Vec::new(),
        }
    }

    pub fn addresses(&mut self, url: &Url, now: Instant) -> Result<Vec<SocketAddr>, ExchangeError> {
        if let Ok(literal) = url.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(literal, url.port)]);
        }
        let known = self.lookup(url).map(|lookup| &*lookup);
        let mut failure = io::Error::other("no answer a moment ago");
        let mut addresses = known.map_or(Vec::new(), |lookup| lookup.addresses.clone());
        if known.is_none_or(|lookup| lookup.doubtful && now >= lookup.retry_at) {
            match (url.host.as_str(), url.port).to_socket_addrs() {
                Ok(found) => addresses = found.collect(),
                // The old addresses may still be right: the name server is often the machine that
                // has just gone.
                Err(error) => failure = error,
            }
            let doubtful = addresses.is_empty();
            self.known.retain(|lookup| !lookup.is_of(url));
            self.known.push(Lookup {
                host: url.host.clone(),
                port: url.port,
                addresses: addresses.clone(),
                doubtful,
                retry_at: now + LOOKUP_PAUSE,
            });
        }
        match addresses.is_empty() {
            true => Err(ExchangeError::Resolve {
                host: url.host.clone(),
                error: failure,
            }),
            false => Ok(addresses),
        }
    }

    /// Notes that no connection to the addresses of this URL succeeded.
    fn doubt(&mut self, url: &Url) {
        let keeps = self.keeps;
        if let Some(lookup) = self.lookup(url) {
            lookup.doubtful |= !keeps;
        }
    }

    fn lookup(&mut self, url: &Url) -> Option<&mut Lookup> {
        self.known.iter_mut().find(|lookup| lookup.is_of(url))
    }
}

impl Lookup {
    fn is_of(&self, url: &Url) -> bool {
        self.port == url.port && self.host == url.host
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
    Resolve {
        host: String,
        error: io::Error,
    },
    NoAddress {
        host: String,
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
            ExchangeError::Resolve { .. }
            | ExchangeError::NoAddress { .. }
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
            ExchangeError::Resolve { host, error } => write!(f, "cannot look up {host}: {error}"),
            ExchangeError::NoAddress { host } => write!(f, "{host} has no address"),
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

    /// No name server answers for names below `invalid` (RFC 6761), so every address that is
    /// returned was known before.
    #[test]
    fn a_name_is_looked_up_once_a_minute_and_its_old_addresses_stay() {
        let (url, old) = (
            Url::parse("http://gone.invalid/").unwrap(),
            "10.77.0.1:80".parse().unwrap(),
        );
        let mut resolver = Resolver::default();
        resolver.known.push(Lookup {
            host: url.host.clone(),
            port: url.port,
            addresses: vec![old],
            doubtful: true,
            retry_at: Instant(0),
        });
        assert_eq!(resolver.addresses(&url, Instant(0)).unwrap(), [old]);
        let retry_at = |resolver: &Resolver| resolver.known[0].retry_at;
        assert_eq!(retry_at(&resolver), Instant(0) + LOOKUP_PAUSE);
        resolver.doubt(&url);
        assert_eq!(resolver.addresses(&url, Instant(1)).unwrap(), [old]);
        assert_eq!(
            retry_at(&resolver),
            Instant(0) + LOOKUP_PAUSE,
            "the name server was asked again"
        );

        resolver.known[0].addresses.clear();
        let error = resolver
            .addresses(&url, Instant(1))
            .unwrap_err()
            .to_string();
        assert_eq!(error, "cannot look up gone.invalid: no answer a moment ago");
    }

    #[test]
    fn a_silent_server_times_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (mut resolver, now) = (Resolver::default(), Instant(0));
        let poll = Poll::new().unwrap();
        let mut exchange = Exchange::new(
            &mut resolver,
            url.parse().unwrap(),
            Request::Get,
            1000,
            TimeLimit::Total,
            now,
        )
        .unwrap();
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
            let request = Request::Get;
            let mut exchange =
                Exchange::new(&mut resolver, url, request, 1 << 20, idle, start).unwrap();
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
