//! How do reports reach the server of `--report`?
//!
//! The teller has an epoll of its own, whose descriptor wakes the loop of its caller. So a report
//! that is on its way when one loop ends and the next begins arrives all the same.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use swarm_proto::units::Instant;
use swarm_proto::wire::url::Url;

use super::State;
use super::machine::Machine;
use super::telling::Telling;
use crate::net::dns::Resolver;
use crate::net::http::{Exchange, ExchangeError, Request, TimeLimit};
use crate::os::clock;
use crate::os::signal::Signals;

/// More of an answer is not read, and what is read is ignored.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// A failure to tell is said at most this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// How long the last words of a process may take, by the signals that it has got: a person who
/// presses Ctrl-C waits for the prompt.
const LAST_WORDS: [Duration; 3] = [
    Duration::from_secs(10),
    Duration::from_secs(2),
    Duration::ZERO,
];

const SERVER: Token = Token(0);
const SIGNALS: Token = Token(1);

pub(super) struct Teller {
    url: Url,
    telling: Telling,
    poll: Poll,
    events: Events,
    resolver: Resolver,
    exchange: Option<Exchange>,
    /// Why the last try failed, and when that was said last.
    error: Option<ExchangeError>,
    said_at: Option<Instant>,
}

impl Teller {
    pub fn new(url: Url) -> io::Result<Teller> {
        Ok(Teller {
            url,
            telling: Telling::default(),
            poll: Poll::new()?,
            events: Events::with_capacity(8),
            resolver: Resolver::default(),
            exchange: None,
            error: None,
            said_at: None,
        })
    }

    /// Readable when `advance` has something to do before `deadline`.
    pub fn fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }

    /// As of `Telling`.
    pub fn note(
        &mut self,
        now: Instant,
        index: usize,
        state: State,
        object: impl FnOnce() -> String,
    ) {
        self.telling.note(now, index, state, object);
    }

    /// As of `Telling`.
    pub fn next_note(&self) -> Option<Instant> {
        self.telling.next_note()
    }

    /// The latest time for the next call of `advance`.
    pub fn deadline(&self) -> Option<Instant> {
        let exchange = self.exchange.as_ref().map(Exchange::deadline);
        exchange.or_else(|| self.telling.poll_timeout())
    }

    /// Does what is possible without waiting, if the descriptor is `ready` or the deadline is over.
    /// Returns a sentence when people should know that the server is told nothing.
    pub fn advance(&mut self, now: Instant, ready: bool) -> Option<String> {
        if !ready && self.deadline().is_none_or(|deadline| deadline > now) {
            return None;
        }
        // Which events there were does not matter: there is one socket. Without this call the
        // descriptor would stay readable.
        let _ = self.poll.poll(&mut self.events, Some(Duration::ZERO));
        while self.exchange.is_some() || self.start(now) {
            let exchange = self.exchange.as_mut()?;
            let (registry, resolver) = (self.poll.registry(), &mut self.resolver);
            let result = exchange.advance(registry, SERVER, resolver, now)?;
            self.exchange = None;
            let error = match result {
                Ok(response) if (200..300).contains(&response.status) => None,
                Ok(response) => Some(ExchangeError::Status {
                    url: self.url.to_string(),
                    status: response.status,
                }),
                Err(error) => Some(error),
            };
            self.answered(now, error);
        }
        self.complaint(now)
    }

    /// Begins to tell the next object; false if there is none now.
    fn start(&mut self, now: Instant) -> bool {
        let Some(object) = self.telling.poll(now) else {
            return false;
        };
        let request = Request::PostJson(Box::new(move |server| {
            let open = object.strip_suffix('}').expect("an object ends so");
            format!("{open},{}}}\n", Machine::towards(server).members())
        }));
        let (bytes_max, limit) = (ANSWER_BYTES_MAX, TimeLimit::Short);
        let exchange = Exchange::new(self.url.clone(), request, bytes_max, limit, now);
        self.exchange = Some(exchange);
        true
    }

    fn answered(&mut self, now: Instant, error: Option<ExchangeError>) {
        self.telling.handle_answer(now, error.is_none());
        self.error = error;
    }

    fn complaint(&mut self, now: Instant) -> Option<String> {
        let said = |at: Instant| now.since(at) < COMPLAINT_INTERVAL;
        let error = self.error.as_ref()?;
        if self.said_at.is_some_and(said) {
            return None;
        }
        self.said_at = Some(now);
        Some(format!(
            "cannot report to {}: {error}; trying again",
            self.url
        ))
    }

    /// Waits until the server has been told everything, at most LAST_WORDS. Returns why it has not.
    pub fn finish(&mut self, signals: &mut Signals) -> Option<String> {
        let fd = signals.fd();
        // Should this fail, a signal shortens nothing.
        let _ = self
            .poll
            .registry()
            .register(&mut SourceFd(&fd), SIGNALS, Interest::READABLE);
        let start = clock::now();
        loop {
            while signals.poll().is_some() {}
            let now = clock::now();
            // What it says is said below.
            let _ = self.advance(now, true);
            let last = LAST_WORDS.len() - 1;
            let end = start + LAST_WORDS[last.min(signals.count())];
            if self.telling.is_finished() || end <= now {
                break;
            }
            let wake = self.deadline().map_or(end, |deadline| deadline.min(end));
            // An error ends the wait early, and `end` the loop.
            let _ = self.poll.poll(&mut self.events, Some(wake.since(now)));
        }
        if self.telling.is_finished() {
            return None;
        }
        let why = self.error.as_ref().map(ToString::to_string);
        let why = why.unwrap_or_else(|| format!("{} does not answer", self.url.authority()));
        Some(format!("could not report to {}: {why}", self.url))
    }
}
