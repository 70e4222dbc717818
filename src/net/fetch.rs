//! How does something get here over HTTP: a torrent at the start, tracker answers while the loop
//! runs?
//!
//! An [`Exchange`] is one GET with its redirects, as a state machine that lives in somebody's mio
//! loop and never blocks, but for one thing: names are looked up by the C library, which can take
//! its time-out (musl: 5 s a try, two tries) if the name server is away. Addresses are therefore
//! kept, and asked for again only after a failure and at most once a minute; an address in digits
//! asks nobody. [`torrent`] is the blocking form for the start of the program, when there is
//! nothing else to do.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use swarm_proto::format::metainfo::{Metainfo, MetainfoError};
use swarm_proto::limits::{HTTP_TIMEOUT, METAINFO_BYTES_MAX, REDIRECTS_MAX};
use swarm_proto::units::{InfoHash, Instant};
use swarm_proto::wire::http::{self, HttpError, ResponseReader};
use swarm_proto::wire::url::{Url, UrlError};

use crate::cli::TorrentPlace;
use crate::os::clock;
use crate::os::signal::Signals;

/// Read from a socket at once; a torrent of 1 MB takes 16 reads.
const READ_BYTES: usize = 64 * 1024;

/// An exchange that trickles gets no longer than this in all when the caller cannot wait
/// (announces).
const HASTY_TIMEOUT: Duration = Duration::from_secs(30);

/// Wait after the n-th failure: 1, 2, 4, 8, then always 10 seconds. A room of machines asks a
/// server that is just starting a hundred times a second at most.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Between two lookups of one name. With its name server away a lookup stands still for ten
/// seconds, and announces are retried every five: without a pause the loop would do little else.
const LOOKUP_PAUSE: Duration = Duration::from_secs(60);

/// Addresses of names that were looked up before.
#[derive(Default)]
pub struct Resolver {
    known: BTreeMap<(String, u16), Lookup>,
}

/// What the name server said, and when it may be asked again.
struct Lookup {
    addresses: Vec<SocketAddr>,
    /// The addresses did not do, or there are none.
    doubtful: bool,
    again_at: Instant,
}

impl Resolver {
    fn addresses(&mut self, url: &Url, now: Instant) -> Result<Vec<SocketAddr>, FetchError> {
        if let Ok(literal) = url.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(literal, url.port)]);
        }
        let key = (url.host.clone(), url.port);
        let known = self.known.get(&key);
        let mut failure = io::Error::other("no answer a moment ago");
        let mut addresses = known.map_or(Vec::new(), |lookup| lookup.addresses.clone());
        if known.is_none_or(|lookup| lookup.doubtful && now >= lookup.again_at) {
            match (url.host.as_str(), url.port).to_socket_addrs() {
                Ok(found) => addresses = found.collect(),
                // The old ones may still do: the name server is often the machine that has just
                // gone.
                Err(error) => failure = error,
            }
            let doubtful = addresses.is_empty();
            let lookup = Lookup {
                addresses: addresses.clone(),
                doubtful,
                again_at: now + LOOKUP_PAUSE,
            };
            self.known.insert(key, lookup);
        }
        match addresses.is_empty() {
            true => Err(FetchError::Resolve {
                host: url.host.clone(),
                error: failure,
            }),
            false => Ok(addresses),
        }
    }

    /// Its addresses did not do.
    fn doubt(&mut self, url: &Url) {
        if let Some(lookup) = self.known.get_mut(&(url.host.clone(), url.port)) {
            lookup.doubtful = true;
        }
    }
}

/// How long an exchange may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// As long as bytes keep coming.
    Patient,
    /// 30 seconds in all.
    Hasty,
}

/// One GET.
///
/// Call `advance` once at the start, at every event of its token, and at its `deadline`, until it
/// gives the answer.
pub struct Exchange {
    url: Url,
    body_bytes_max: usize,
    redirects_left: u32,
    /// Addresses not tried yet, the next one last.
    addresses: Vec<SocketAddr>,
    attempt: Option<Attempt>,
    /// Why the last address did not do.
    error: Option<FetchError>,
    deadline: Instant,
    end: Option<Instant>,
}

/// One connection to one address.
struct Attempt {
    address: SocketAddr,
    stream: TcpStream,
    connected: bool,
    request: Vec<u8>,
    sent_bytes: usize,
    reader: ResponseReader,
}

impl Exchange {
    /// Looks the name up; nothing is sent before `advance`.
    pub fn new(
        resolver: &mut Resolver,
        url: &str,
        body_bytes_max: usize,
        haste: Haste,
        now: Instant,
    ) -> Result<Exchange, FetchError> {
        let url = Url::parse(url)?;
        let mut exchange = Exchange {
            url,
            body_bytes_max,
            redirects_left: REDIRECTS_MAX,
            addresses: Vec::new(),
            attempt: None,
            error: None,
            deadline: now + HTTP_TIMEOUT,
            end: (haste == Haste::Hasty).then(|| now + HASTY_TIMEOUT),
        };
        exchange.find_addresses(resolver, now)?;
        Ok(exchange)
    }

    /// When `advance` wants to be called at the latest.
    pub fn deadline(&self) -> Instant {
        self.end.map_or(self.deadline, |end| end.min(self.deadline))
    }

    /// Goes on as far as that is possible without waiting; the body once it is there.
    pub fn advance(
        &mut self,
        registry: &Registry,
        token: Token,
        resolver: &mut Resolver,
        now: Instant,
    ) -> Option<Result<Vec<u8>, FetchError>> {
        if self.end.is_some_and(|end| end <= now) {
            return Some(Err(self.timed_out()));
        }
        if self.attempt.is_some() && self.deadline <= now {
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
                Ok(Progress::None) => return None,
                Ok(Progress::Some) => self.deadline = now + HTTP_TIMEOUT,
                Ok(Progress::Done) => match self.finish(resolver, now) {
                    Ok(None) => {}
                    Ok(Some(body)) => return Some(Ok(body)),
                    Err(error) => return Some(Err(error)),
                },
                Err(Broken::Io(error)) => {
                    self.error = Some(FetchError::Connection {
                        host,
                        address,
                        error,
                    });
                    self.attempt = None;
                }
                Err(Broken::Http(error)) => {
                    self.error = Some(FetchError::Http { host, error });
                    self.attempt = None;
                }
            }
        }
    }

    fn find_addresses(&mut self, resolver: &mut Resolver, now: Instant) -> Result<(), FetchError> {
        self.addresses = resolver.addresses(&self.url, now)?;
        self.addresses.reverse();
        Ok(())
    }

    /// Tries the next address; an error when there is none left.
    fn connect(
        &mut self,
        registry: &Registry,
        token: Token,
        now: Instant,
    ) -> Result<(), FetchError> {
        loop {
            let Some(address) = self.addresses.pop() else {
                let host = self.url.host.clone();
                return Err(self.error.take().unwrap_or(FetchError::NoAddress { host }));
            };
            match Attempt::new(&self.url, address, self.body_bytes_max, registry, token) {
                Ok(attempt) => {
                    self.attempt = Some(attempt);
                    self.deadline = now + HTTP_TIMEOUT;
                    return Ok(());
                }
                Err(error) => {
                    self.error = Some(FetchError::Connection {
                        host: self.url.authority(),
                        address,
                        error,
                    });
                }
            }
        }
    }

    /// The whole answer is there: the body, or None if it leads elsewhere.
    fn finish(
        &mut self,
        resolver: &mut Resolver,
        now: Instant,
    ) -> Result<Option<Vec<u8>>, FetchError> {
        let reader = self.attempt.take().expect("it has just answered").reader;
        match (reader.status(), reader.location()) {
            (Some(200), _) => Ok(Some(reader.into_body())),
            (Some(301 | 302 | 303 | 307 | 308), Some(location)) => {
                let from = self.url.to_string();
                self.redirects_left = self
                    .redirects_left
                    .checked_sub(1)
                    .ok_or(FetchError::Redirects { from })?;
                self.url = self.url.join(location)?;
                self.error = None;
                self.find_addresses(resolver, now)?;
                Ok(None)
            }
            (status, _) => Err(FetchError::Status {
                url: self.url.to_string(),
                status: status.unwrap_or_default(),
            }),
        }
    }

    fn timed_out(&self) -> FetchError {
        FetchError::TimedOut {
            host: self.url.authority(),
        }
    }
}

enum Progress {
    None,
    Some,
    Done,
}

enum Broken {
    Io(io::Error),
    Http(HttpError),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Broken {
        Broken::Io(error)
    }
}

impl From<HttpError> for Broken {
    fn from(error: HttpError) -> Broken {
        Broken::Http(error)
    }
}

impl Attempt {
    fn new(
        url: &Url,
        address: SocketAddr,
        body_bytes_max: usize,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Attempt> {
        let mut stream = TcpStream::connect(address)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let (request, reader) = (http::get(url), ResponseReader::new(body_bytes_max));
        Ok(Attempt {
            address,
            stream,
            connected: false,
            request,
            sent_bytes: 0,
            reader,
        })
    }

    /// One step: connect, send, receive.
    fn advance(&mut self) -> Result<Progress, Broken> {
        if !self.connected {
            if let Some(error) = self.stream.take_error()? {
                return Err(error.into());
            }
            match self.stream.peer_addr() {
                Ok(_) => self.connected = true,
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                    return Ok(Progress::None);
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
            Ok(()) => Ok(Progress::Some),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Progress::None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Progress::Some),
            Err(error) => Err(error.into()),
        }
    }

    fn receive(&mut self) -> Result<io::Result<()>, HttpError> {
        let mut bytes = vec![0; READ_BYTES];
        match self.stream.read(&mut bytes) {
            Ok(0) => self.reader.close()?,
            Ok(count) => self.reader.push(&bytes[..count])?,
            Err(error) => return Ok(Err(error)),
        }
        Ok(Ok(()))
    }
}

/// How often a torrent is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// For a person who waits: so many times.
    Tries(u32),
    /// For a machine that has booted before its server is up: for ever. What can never get better
    /// still ends it: a torrent that is none, or another than was asked for.
    Forever,
}

/// Reads a torrent from a file or over HTTP. `retrying` is told of each failure and of the wait
/// that follows it. A signal of `signals` ends the wait.
pub fn torrent(
    place: &TorrentPlace,
    info_hash: Option<InfoHash>,
    patience: Patience,
    signals: Option<&mut Signals>,
    retrying: &mut dyn FnMut(&FetchError, Duration),
) -> Result<Metainfo, FetchError> {
    let bytes = match place {
        TorrentPlace::Url(url) => body(url, patience, signals, retrying)?,
        TorrentPlace::File(path) => file(path)?,
    };
    let metainfo = Metainfo::parse(&bytes)?;
    match info_hash {
        Some(expected) if expected != metainfo.info_hash => Err(FetchError::InfoHash {
            expected,
            found: metainfo.info_hash,
        }),
        _ => Ok(metainfo),
    }
}

fn file(path: &std::path::Path) -> Result<Vec<u8>, FetchError> {
    let failed = |error| FetchError::File {
        path: path.display().to_string(),
        error,
    };
    let mut bytes = Vec::new();
    let limit = METAINFO_BYTES_MAX as u64 + 1;
    std::fs::File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(failed)?;
    if bytes.len() > METAINFO_BYTES_MAX {
        return Err(failed(io::Error::other(format!(
            "longer than {METAINFO_BYTES_MAX} bytes"
        ))));
    }
    Ok(bytes)
}

fn body(
    url: &str,
    patience: Patience,
    mut signals: Option<&mut Signals>,
    retrying: &mut dyn FnMut(&FetchError, Duration),
) -> Result<Vec<u8>, FetchError> {
    Url::parse(url)?;
    let mut poll = Poll::new().map_err(FetchError::Loop)?;
    if let Some(signals) = &signals {
        let fd = signals.fd();
        poll.registry()
            .register(&mut SourceFd(&fd), SIGNAL, Interest::READABLE)
            .map_err(FetchError::Loop)?;
    }
    let mut wait = Duration::from_secs(1);
    for tries in 1.. {
        let error = match one_try(&mut poll, url, signals.as_deref_mut()) {
            Err(error) if !error.is_final() => error,
            result => return result,
        };
        if patience == Patience::Tries(tries) {
            return Err(error);
        }
        retrying(&error, wait);
        sleep(&mut poll, clock::now() + wait, signals.as_deref_mut())?;
        wait = RETRY_MAX.min(2 * wait);
    }
    unreachable!("tried 2^32 times")
}

const SIGNAL: Token = Token(0);
const EXCHANGE: Token = Token(1);

fn one_try(
    poll: &mut Poll,
    url: &str,
    mut signals: Option<&mut Signals>,
) -> Result<Vec<u8>, FetchError> {
    let mut resolver = Resolver::default();
    let mut exchange = Exchange::new(
        &mut resolver,
        url,
        METAINFO_BYTES_MAX,
        Haste::Patient,
        clock::now(),
    )?;
    loop {
        let now = clock::now();
        if let Some(result) = exchange.advance(poll.registry(), EXCHANGE, &mut resolver, now) {
            return result;
        }
        one_wait(poll, exchange.deadline().since(now), signals.as_deref_mut())?;
    }
}

fn sleep(
    poll: &mut Poll,
    until: Instant,
    mut signals: Option<&mut Signals>,
) -> Result<(), FetchError> {
    loop {
        let left = until.since(clock::now());
        if left.is_zero() {
            return Ok(());
        }
        one_wait(poll, left, signals.as_deref_mut())?;
    }
}

/// Until something happens, at most `timeout`. mio rounds it up to a millisecond, so that nobody
/// spins.
fn one_wait(
    poll: &mut Poll,
    timeout: Duration,
    signals: Option<&mut Signals>,
) -> Result<(), FetchError> {
    let mut events = Events::with_capacity(8);
    match poll.poll(&mut events, Some(timeout)) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => {
            return Err(FetchError::Loop(error));
        }
        _ => {}
    }
    match signals.and_then(Signals::poll) {
        Some(_) => Err(FetchError::Interrupted),
        None => Ok(()),
    }
}

/// Why something could not be fetched.
#[derive(Debug)]
pub enum FetchError {
    Url(UrlError),
    File {
        path: String,
        error: io::Error,
    },
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
    Metainfo(MetainfoError),
    InfoHash {
        expected: InfoHash,
        found: InfoHash,
    },
    Interrupted,
    /// Our own event loop failed.
    Loop(io::Error),
}

impl FetchError {
    /// Trying again cannot help.
    fn is_final(&self) -> bool {
        match self {
            FetchError::Url(_)
            | FetchError::File { .. }
            | FetchError::Metainfo(_)
            | FetchError::InfoHash { .. }
            | FetchError::Interrupted
            | FetchError::Loop(_) => true,
            // A server that is coming up answers all sorts of things before it answers right.
            FetchError::Resolve { .. }
            | FetchError::NoAddress { .. }
            | FetchError::Connection { .. }
            | FetchError::TimedOut { .. }
            | FetchError::Http { .. }
            | FetchError::Status { .. }
            | FetchError::Redirects { .. } => false,
        }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FetchError::Url(error) => error.fmt(f),
            FetchError::File { path, error } => write!(f, "cannot read {path}: {error}"),
            FetchError::Resolve { host, error } => write!(f, "cannot look up {host}: {error}"),
            FetchError::NoAddress { host } => write!(f, "{host} has no address"),
            FetchError::Connection {
                host,
                address,
                error,
            } if address.to_string() == *host => {
                write!(f, "no connection to {host}: {error}")
            }
            FetchError::Connection {
                host,
                address,
                error,
            } => {
                write!(f, "no connection to {host} at {address}: {error}")
            }
            FetchError::TimedOut { host } => write!(f, "{host} does not answer"),
            FetchError::Http { host, error } => write!(f, "answer of {host}: {error}"),
            FetchError::Status { url, status } => write!(f, "server answers {status} for {url}"),
            FetchError::Redirects { from } => {
                write!(
                    f,
                    "more than {REDIRECTS_MAX} redirects, the last one from {from}"
                )
            }
            FetchError::Metainfo(error) => error.fmt(f),
            FetchError::InfoHash { expected, found } => {
                write!(f, "torrent has info-hash {found}, wanted was {expected}")
            }
            FetchError::Interrupted => f.write_str("interrupted"),
            FetchError::Loop(error) => write!(f, "cannot wait for the network: {error}"),
        }
    }
}

impl std::error::Error for FetchError {}

impl From<UrlError> for FetchError {
    fn from(error: UrlError) -> FetchError {
        FetchError::Url(error)
    }
}

impl From<MetainfoError> for FetchError {
    fn from(error: MetainfoError) -> FetchError {
        FetchError::Metainfo(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    /// Answers one connection after the other with these bytes, then closes it; gives back what was
    /// asked.
    fn server(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let answer = |answer: String| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    request.push(byte[0]);
                }
                stream.write_all(answer.as_bytes()).unwrap();
                String::from_utf8(request)
                    .unwrap()
                    .lines()
                    .next()
                    .unwrap()
                    .to_owned()
            };
            answers.into_iter().map(answer).collect()
        });
        (base, thread)
    }

    fn fetch(url: &str, tries: u32) -> (Result<Vec<u8>, String>, Vec<String>) {
        let mut failures = Vec::new();
        let mut retrying = |error: &FetchError, wait| failures.push(format!("{error}; {wait:?}"));
        let body = body(url, Patience::Tries(tries), None, &mut retrying);
        (body.map_err(|error| error.to_string()), failures)
    }

    fn ok(body: &str) -> String {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    #[test]
    fn redirects_lead_to_the_body() {
        let long = "x".repeat(300_000);
        let (base, server) = server(vec![
            "HTTP/1.1 302 Found\r\nLocation: /b?c=d\r\nContent-Length: 0\r\n\r\n".into(),
            ok(&long),
        ]);
        assert_eq!(
            fetch(&format!("{base}/a"), 1).0.as_deref(),
            Ok(long.as_bytes())
        );
        assert_eq!(
            server.join().unwrap(),
            ["GET /a HTTP/1.1", "GET /b?c=d HTTP/1.1"]
        );
    }

    #[test]
    fn redirects_have_an_end() {
        let there = "HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n".to_owned();
        let (base, server) = server(vec![there; REDIRECTS_MAX as usize + 1]);
        let (body, _) = fetch(&base, 1);
        assert_eq!(
            body,
            Err(format!("more than 5 redirects, the last one from {base}/"))
        );
        server.join().unwrap();
    }

    #[test]
    fn a_failure_is_told_and_tried_again() {
        let (base, server) = server(vec![
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into(),
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort".into(),
            ok("body"),
        ]);
        let (body, failures) = fetch(&format!("{base}/t"), 3);
        assert_eq!(body.as_deref(), Ok(&b"body"[..]));
        let host = &base["http://".len()..];
        let expected = [
            format!("server answers 404 for {base}/t; 1s"),
            format!("answer of {host}: server closed the connection after 5 of 9 bytes; 2s"),
        ];
        assert_eq!(failures, expected);
        server.join().unwrap();
    }

    #[test]
    fn nobody_there() {
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let (body, failures) = fetch(&format!("http://{address}/"), 1);
        assert_eq!(
            body,
            Err(format!(
                "no connection to {address}: Connection refused (os error 111)"
            ))
        );
        assert!(failures.is_empty());
    }

    #[test]
    fn what_cannot_get_better_is_final() {
        assert!(
            fetch("https://10.77.0.1/", u32::MAX)
                .0
                .unwrap_err()
                .starts_with("https://")
        );
        let place = TorrentPlace::File("/nonexistent".into());
        let error =
            torrent(&place, None, Patience::Forever, None, &mut |_, _| panic!()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read /nonexistent: No such file or directory (os error 2)"
        );
        let (base, server) = server(vec![ok("d4:infode")]);
        let place = TorrentPlace::Url(base);
        let error =
            torrent(&place, None, Patience::Forever, None, &mut |_, _| panic!()).unwrap_err();
        assert!(matches!(error, FetchError::Metainfo(_)), "{error}");
        server.join().unwrap();
    }

    /// Nobody answers for names below `invalid` (RFC 6761), so whatever is found was known.
    #[test]
    fn a_name_is_looked_up_once_a_minute_and_old_addresses_stay() {
        let (url, old) = (
            Url::parse("http://gone.invalid/").unwrap(),
            "10.77.0.1:80".parse().unwrap(),
        );
        let mut resolver = Resolver::default();
        let lookup = Lookup {
            addresses: vec![old],
            doubtful: true,
            again_at: Instant(0),
        };
        resolver.known.insert((url.host.clone(), url.port), lookup);
        assert_eq!(resolver.addresses(&url, Instant(0)).unwrap(), [old]);
        let again_at = |resolver: &Resolver| resolver.known.values().next().unwrap().again_at;
        assert_eq!(again_at(&resolver), Instant(0) + LOOKUP_PAUSE);
        resolver.doubt(&url);
        assert_eq!(resolver.addresses(&url, Instant(1)).unwrap(), [old]);
        assert_eq!(
            again_at(&resolver),
            Instant(0) + LOOKUP_PAUSE,
            "nobody was asked"
        );

        resolver
            .known
            .values_mut()
            .next()
            .unwrap()
            .addresses
            .clear();
        let error = resolver
            .addresses(&url, Instant(1))
            .unwrap_err()
            .to_string();
        assert_eq!(error, "cannot look up gone.invalid: no answer a moment ago");
    }

    #[test]
    fn a_silent_server_times_out_when_asked() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (mut resolver, now) = (Resolver::default(), Instant(0));
        let poll = Poll::new().unwrap();
        let mut exchange = Exchange::new(&mut resolver, &url, 1000, Haste::Hasty, now).unwrap();
        let mut advance = |now| exchange.advance(poll.registry(), EXCHANGE, &mut resolver, now);
        assert!(advance(now).is_none());
        let _peer = listener.accept().unwrap();
        assert!(advance(now + (HTTP_TIMEOUT - Duration::from_micros(1))).is_none());
        let error = advance(now + HTTP_TIMEOUT).unwrap().unwrap_err();
        assert!(error.to_string().ends_with("does not answer"), "{error}");
    }
}
