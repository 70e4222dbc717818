//! How does a torrent get here: from a file, or over HTTP with retries?
//!
//! [`load`] blocks until it has the torrent. It runs at the start of the program, when there is
//! nothing else to do.

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use swarm_proto::format::metainfo::{Metainfo, MetainfoError};
use swarm_proto::limits::METAINFO_BYTES_MAX;
use swarm_proto::units::{InfoHash, Instant};
use swarm_proto::wire::http::Response;
use swarm_proto::wire::url::Url;

use super::dns::Resolver;
use super::http::{Exchange, ExchangeError, Request, TimeLimit};
use crate::os::clock;
use crate::os::signal::Signals;
use crate::os::whole;

/// The wait after the n-th failure is 1, 2, 4, 8, then always 10 seconds. A hundred machines then
/// ask a server that is just starting a hundred times a second at most.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Where a torrent is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TorrentPlace {
    Url(Url),
    File(PathBuf),
}

impl fmt::Display for TorrentPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TorrentPlace::Url(url) => url.fmt(f),
            TorrentPlace::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// How often a server is asked for a torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// This number of times: a person is waiting.
    Tries(u32),
    /// Without end: a machine may have booted before its server is up. A failure that no retry can
    /// cure still ends it: bytes that are no torrent, or a torrent with another info-hash.
    Forever,
}

/// The part of the caller while a torrent is fetched.
pub struct Caller<'a> {
    /// A signal ends the wait.
    pub signals: Option<&'a mut Signals>,
    /// Work of the caller's own is waited for here.
    pub fd: Option<RawFd>,
    /// Called after each failure; and without one at every turn, when `fd` may be ready. Returns
    /// when to call again at the latest.
    pub turn: &'a mut dyn FnMut(Option<Retry>) -> Option<Instant>,
}

/// Why a try failed.
pub struct Retry<'a>(pub &'a TorrentError);

/// Reads a torrent from a file or over HTTP.
pub fn load(
    place: &TorrentPlace,
    info_hash: Option<InfoHash>,
    patience: Patience,
    caller: Caller,
) -> Result<Metainfo, TorrentError> {
    let metainfo = match place {
        TorrentPlace::Url(url) => Metainfo::parse(&download(url, patience, caller)?)?,
        TorrentPlace::File(path) => read(path)?,
    };
    match info_hash {
        Some(expected) if expected != metainfo.info_hash => Err(TorrentError::InfoHash {
            expected,
            found: metainfo.info_hash,
        }),
        _ => Ok(metainfo),
    }
}

/// Reads a torrent from a file.
pub fn read(path: &Path) -> Result<Metainfo, TorrentError> {
    let bytes = whole::read(path, METAINFO_BYTES_MAX).map_err(|error| TorrentError::File {
        path: path.display().to_string(),
        error,
    })?;
    Ok(Metainfo::parse(&bytes)?)
}

fn download(url: &Url, patience: Patience, caller: Caller) -> Result<Vec<u8>, TorrentError> {
    let mut waiter = Waiter::new(caller)?;
    let mut wait = Duration::from_secs(1);
    for tries in 1.. {
        let error = match waiter.get(url) {
            Err(error) if !error.is_final() => error,
            result => return result,
        };
        if patience == Patience::Tries(tries) {
            return Err(error);
        }
        (waiter.caller.turn)(Some(Retry(&error)));
        waiter.sleep(clock::now() + wait)?;
        wait = RETRY_MAX.min(2 * wait);
    }
    unreachable!("tried 2^32 times")
}

const SIGNAL: Token = Token(0);
const EXCHANGE: Token = Token(1);
const CALLER: Token = Token(2);

/// A small event loop that waits for an exchange, for time to pass, for signals and for the caller.
struct Waiter<'a> {
    poll: Poll,
    caller: Caller<'a>,
}

impl Waiter<'_> {
    fn new(caller: Caller) -> Result<Waiter, TorrentError> {
        let poll = Poll::new().map_err(TorrentError::Loop)?;
        let signals = caller.signals.as_ref().map(|signals| signals.fd());
        for (fd, token) in [(signals, SIGNAL), (caller.fd, CALLER)] {
            if let Some(fd) = fd {
                poll.registry()
                    .register(&mut SourceFd(&fd), token, Interest::READABLE)
                    .map_err(TorrentError::Loop)?;
            }
        }
        Ok(Waiter { poll, caller })
    }

    /// One try.
    fn get(&mut self, url: &Url) -> Result<Vec<u8>, TorrentError> {
        let (mut resolver, now) = (Resolver::default(), clock::now());
        let mut exchange = Exchange::new(
            url.clone(),
            Request::Get,
            METAINFO_BYTES_MAX,
            TimeLimit::Idle,
            now,
        );
        loop {
            let (registry, now) = (self.poll.registry(), clock::now());
            if let Some(result) = exchange.advance(registry, EXCHANGE, &mut resolver, now) {
                let Response { status, body, .. } = result?;
                let url = exchange.url().to_string();
                return match status {
                    200 => Ok(body),
                    status => Err(ExchangeError::Status { url, status }.into()),
                };
            }
            self.wait(exchange.deadline())?;
        }
    }

    fn sleep(&mut self, until: Instant) -> Result<(), TorrentError> {
        loop {
            if until <= clock::now() {
                return Ok(());
            }
            self.wait(until)?;
        }
    }

    /// Gives the caller its turn and waits for an event, not longer than `until`. mio rounds the
    /// time up to a millisecond, so a shorter one does not turn the loop into a busy loop.
    fn wait(&mut self, until: Instant) -> Result<(), TorrentError> {
        let mut events = Events::with_capacity(8);
        let wake = (self.caller.turn)(None).map_or(until, |wake| wake.min(until));
        let timeout = wake.since(clock::now());
        match self.poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(TorrentError::Loop(error));
            }
            _ => {}
        }
        match self.caller.signals.as_deref_mut().and_then(Signals::poll) {
            Some(_) => Err(TorrentError::Interrupted),
            None => Ok(()),
        }
    }
}

/// Why a torrent could not be loaded.
#[derive(Debug)]
pub enum TorrentError {
    Exchange(ExchangeError),
    File {
        path: String,
        error: io::Error,
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

impl TorrentError {
    /// Trying again cannot help.
    fn is_final(&self) -> bool {
        match self {
            TorrentError::Exchange(ExchangeError::Url(_))
            | TorrentError::File { .. }
            | TorrentError::Metainfo(_)
            | TorrentError::InfoHash { .. }
            | TorrentError::Interrupted
            | TorrentError::Loop(_) => true,
            // A server that is starting gives many kinds of wrong answers before the right one.
            TorrentError::Exchange(_) => false,
        }
    }
}

impl fmt::Display for TorrentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TorrentError::Exchange(error) => error.fmt(f),
            TorrentError::File { path, error } => write!(f, "cannot read {path}: {error}"),
            TorrentError::Metainfo(error) => error.fmt(f),
            TorrentError::InfoHash { expected, found } => {
                write!(f, "torrent has info-hash {found}, wanted was {expected}")
            }
            TorrentError::Interrupted => f.write_str("interrupted"),
            TorrentError::Loop(error) => write!(f, "cannot wait for the network: {error}"),
        }
    }
}

impl std::error::Error for TorrentError {}

impl From<ExchangeError> for TorrentError {
    fn from(error: ExchangeError) -> TorrentError {
        TorrentError::Exchange(error)
    }
}

impl From<MetainfoError> for TorrentError {
    fn from(error: MetainfoError) -> TorrentError {
        TorrentError::Metainfo(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::testing::closed_address;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread::JoinHandle;
    use swarm_proto::limits::REDIRECTS_MAX;

    /// Answers one connection after the other with these bytes, then closes it. The thread returns
    /// the first line of each request.
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

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    fn caller(turn: &mut dyn FnMut(Option<Retry>) -> Option<Instant>) -> Caller<'_> {
        Caller {
            signals: None,
            fd: None,
            turn,
        }
    }

    fn load_forever(place: &TorrentPlace) -> TorrentError {
        let mut turn = |retry: Option<Retry>| {
            assert!(retry.is_none(), "it is tried again");
            None
        };
        load(place, None, Patience::Forever, caller(&mut turn)).unwrap_err()
    }

    fn fetch(text: &str, tries: u32) -> (Result<Vec<u8>, String>, Vec<String>) {
        let mut failures = Vec::new();
        let mut turn = |retry: Option<Retry>| {
            failures.extend(retry.map(|Retry(error)| error.to_string()));
            None
        };
        let body = download(&url(text), Patience::Tries(tries), caller(&mut turn));
        (body.map_err(|error| error.to_string()), failures)
    }

    fn ok(body: &str) -> String {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    #[test]
    fn a_redirect_leads_to_the_body() {
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
    fn too_many_redirects_are_an_error() {
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
    fn a_failure_is_reported_and_retried() {
        let (base, server) = server(vec![
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into(),
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort".into(),
            ok("body"),
        ]);
        let (body, failures) = fetch(&format!("{base}/t"), 3);
        assert_eq!(body.as_deref(), Ok(&b"body"[..]));
        let host = &base["http://".len()..];
        let expected = [
            format!("server answers 404 for {base}/t"),
            format!("answer of {host}: server closed the connection after 5 of 9 bytes"),
        ];
        assert_eq!(failures, expected);
        server.join().unwrap();
    }

    #[test]
    fn a_refused_connection_is_an_error() {
        let address = closed_address();
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
    fn a_failure_that_no_retry_can_cure_is_final() {
        let elsewhere =
            "HTTP/1.1 302 Found\r\nLocation: https://10.77.0.1/\r\nContent-Length: 0\r\n\r\n";
        let (base, elsewhere) = server(vec![elsewhere.into()]);
        let (body, failures) = fetch(&base, u32::MAX);
        assert!(body.unwrap_err().starts_with("https://"));
        assert!(failures.is_empty());
        elsewhere.join().unwrap();

        let place = TorrentPlace::File("/nonexistent".into());
        let error = load_forever(&place);
        assert_eq!(
            error.to_string(),
            "cannot read /nonexistent: No such file or directory (os error 2)"
        );
        let (base, server) = server(vec![ok("d4:infode")]);
        let place = TorrentPlace::Url(url(&base));
        let error = load_forever(&place);
        assert!(matches!(error, TorrentError::Metainfo(_)), "{error}");
        server.join().unwrap();
    }
}
