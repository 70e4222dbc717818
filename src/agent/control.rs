//! Which programs of this machine ask something of the daemon, and how do lines get to and from
//! them?
//!
//! Requests and replies are lines on a Unix socket that only the owner may open. A program is
//! answered once for each line, in their order. Its next line is read when it has taken the reply
//! before, so a program that reads nothing costs one reply of memory and no time. When all seats
//! are taken, the program that has been silent for longest makes room.

use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry};
use swarm_proto::units::Instant;

use super::RunError;
use super::tokens::{CLIENT_COUNT_MAX, Origin};
use crate::os::net;

/// The longest request, its line feed included. A path has at most 4096 bytes.
pub(super) const LINE_BYTES_MAX: usize = 64 * 1024;

/// A client that never stops sending has its turn like the others.
const READS_PER_TURN: usize = 16;

/// Pause after the kernel had no descriptor for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Control {
    path: PathBuf,
    socket: UnixListener,
    /// A client keeps its index, because that is in its token.
    clients: Vec<Option<Client>>,
    /// When to accept again without an event.
    accept_at: Option<Instant>,
}

/// A program that is connected.
struct Client {
    stream: UnixStream,
    /// What has come of lines that were not taken yet: LINE_BYTES_MAX and one read at most.
    inbox: Vec<u8>,
    /// What has not been sent yet of one reply.
    outbox: Vec<u8>,
    /// There may be something to do without another event.
    ready: bool,
    /// The client sends no more.
    is_last: bool,
    /// The end of a line that was too long is still to come.
    skips: bool,
    heard_at: Instant,
}

/// One request: the bytes of a line without its line feed, or None for a line that is too long.
pub(super) type Line = Option<Vec<u8>>;

impl Control {
    /// Listens at `path`.
    pub fn new(path: &Path, registry: &Registry) -> Result<Control, RunError> {
        let mut socket = net::listen_at_path(path).map_err(|error| RunError::Control {
            path: path.display().to_string(),
            error,
        })?;
        registry.register(&mut socket, Origin::Control.token(), Interest::READABLE)?;
        Ok(Control {
            path: path.into(),
            socket,
            clients: (0..CLIENT_COUNT_MAX).map(|_| None).collect(),
            accept_at: None,
        })
    }

    /// Has `handle_timeout` accept: while a program waits for its answer, no other gets its seat.
    pub fn note_caller(&mut self, now: Instant) {
        self.accept_at = Some(now);
    }

    fn accept(&mut self, registry: &Registry, now: Instant) {
        self.accept_at = None;
        loop {
            match self.socket.accept() {
                // A client that cannot be kept is closed, and sees it.
                Ok((stream, _)) => drop(self.keep(stream, registry, now)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.accept_at = Some(now + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn keep(
        &mut self,
        mut stream: UnixStream,
        registry: &Registry,
        now: Instant,
    ) -> io::Result<()> {
        let heard_at = |client: &Option<Client>| client.as_ref().map(|client| client.heard_at);
        // A free seat comes before all others: None is less than every time.
        let seats = self.clients.iter().enumerate();
        let longest = seats.min_by_key(|(_, client)| heard_at(client));
        let (index, _) = longest.expect("there are seats");
        self.clients[index] = None;
        let interests = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut stream, Origin::Client(index).token(), interests)?;
        self.clients[index] = Some(Client {
            stream,
            inbox: Vec::new(),
            outbox: Vec::new(),
            ready: true,
            is_last: false,
            skips: false,
            heard_at: now,
        });
        Ok(())
    }

    /// Takes note of an event; `poll_line` reads.
    pub fn note(&mut self, index: usize) {
        if let Some(client) = &mut self.clients[index] {
            client.ready = true;
        }
    }

    /// The next request of this client. It is followed by `reply`.
    pub fn poll_line(&mut self, index: usize, now: Instant) -> Option<Line> {
        let client = self.clients[index].as_mut().filter(|client| client.ready)?;
        match client.poll_line() {
            Ok(Some(line)) => {
                client.heard_at = now;
                return Some(line);
            }
            Ok(None) if !client.is_over() => {}
            // Over, or its socket has failed: nobody is there to be told.
            _ => self.clients[index] = None,
        }
        None
    }

    /// Sends an object and its line feed to a client, as far as it takes it now.
    pub fn reply(&mut self, index: usize, object: String) {
        if let Some(client) = &mut self.clients[index] {
            client.outbox = object.into_bytes();
            // A socket that has failed is noticed when its next line is read.
            let _ = client.flush();
        }
    }

    /// When there is something to do without an event.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let ready = self.clients.iter().flatten().any(|client| client.ready);
        ready.then_some(now).or(self.accept_at)
    }

    pub fn handle_timeout(&mut self, registry: &Registry, now: Instant) {
        if self.accept_at.is_some_and(|due| due <= now) {
            self.accept(registry, now);
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Without its socket the daemon would still have done its work.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Client {
    /// Sends what is left of the last reply, then reads a line. `ready` stays set if there may be
    /// more.
    fn poll_line(&mut self) -> io::Result<Option<Line>> {
        self.flush()?;
        self.ready = false;
        if !self.outbox.is_empty() {
            return Ok(None);
        }
        let mut bytes = [0; 4096];
        for _ in 0..READS_PER_TURN {
            if let Some(line) = self.take_line() {
                self.ready = true;
                return Ok(Some(line));
            }
            if self.is_last {
                return Ok(None);
            }
            match self.stream.read(&mut bytes) {
                Ok(0) => self.is_last = true,
                Ok(count) => self.inbox.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.ready = true;
        Ok(None)
    }

    /// A whole line, if one has come. The last one needs no line feed.
    fn take_line(&mut self) -> Option<Line> {
        let (length, end) = (
            self.inbox.len(),
            self.inbox.iter().position(|b| *b == b'\n'),
        );
        let is_long = self.skips || end.unwrap_or(length) >= LINE_BYTES_MAX;
        let count = match end {
            Some(end) => end + 1,
            None if is_long || (self.is_last && length > 0) => length,
            None => return None,
        };
        let mut line: Vec<u8> = self.inbox.drain(..count).collect();
        if is_long {
            // What follows up to its end is no line of its own.
            return match std::mem::replace(&mut self.skips, end.is_none()) {
                false => Some(None),
                true if self.skips => None,
                true => self.take_line(),
            };
        }
        line.pop_if(|last| *last == b'\n');
        Some(Some(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => drop(self.outbox.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// It has sent all of its requests and has taken all replies.
    fn is_over(&self) -> bool {
        self.is_last && self.inbox.is_empty() && self.outbox.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::testing::Scratch;
    use mio::Poll;
    use std::os::unix::net::UnixStream;

    struct Bench {
        poll: Poll,
        scratch: Scratch,
        control: Control,
        now: Instant,
    }

    impl Bench {
        fn new(name: &str) -> Bench {
            let (poll, scratch) = (Poll::new().unwrap(), Scratch::new(name));
            let control = Control::new(scratch.path(), poll.registry()).unwrap();
            Bench {
                poll,
                scratch,
                control,
                now: Instant(0),
            }
        }

        /// A program that connects a second after the one before.
        fn client(&mut self) -> UnixStream {
            let stream = UnixStream::connect(self.scratch.path()).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            stream.set_nonblocking(false).unwrap();
            self.now = self.now + Duration::from_secs(1);
            self.control.accept(self.poll.registry(), self.now);
            stream
        }

        /// One turn: each client's next line is answered by its length, or by "long".
        fn turn(&mut self) -> Vec<String> {
            let mut lines = Vec::new();
            for index in 0..CLIENT_COUNT_MAX {
                self.control.note(index);
                if let Some(line) = self.control.poll_line(index, self.now) {
                    let answer = line.map_or("long".into(), |line| line.len().to_string());
                    self.control.reply(index, format!("{answer}\n"));
                    lines.push(answer);
                }
            }
            lines
        }

        fn connected_count(&self) -> usize {
            self.control.clients.iter().flatten().count()
        }
    }

    fn answer(mut stream: &UnixStream) -> String {
        let mut bytes = [0; 100];
        let count = stream.read(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    #[test]
    fn each_line_is_answered_once_and_in_its_order() {
        let mut bench = Bench::new("lines");
        let (mut one, mut other) = (bench.client(), bench.client());
        one.write_all(b"abc\nde").unwrap();
        other.write_all(b"\n").unwrap();
        assert_eq!(bench.turn(), ["3", "0"]);
        assert!(bench.turn().is_empty(), "a line has not ended");
        one.write_all(b"fg\nlast").unwrap();
        one.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(bench.turn(), ["4"]);
        assert_eq!(bench.turn(), ["4"], "the last line needs no line feed");
        assert!(bench.turn().is_empty());
        assert_eq!(bench.connected_count(), 1, "the other one is still there");
        assert_eq!(answer(&one), "3\n4\n4\n");
        assert_eq!(answer(&one), "", "closed");
        assert_eq!(answer(&other), "0\n");
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_once() {
        let mut bench = Bench::new("long");
        for (length, said) in [
            (LINE_BYTES_MAX - 1, "65535"),
            (LINE_BYTES_MAX, "long"),
            (20 * LINE_BYTES_MAX, "long"),
        ] {
            let mut stream = bench.client();
            let line = [vec![b'x'; length], b"\n{}\n".to_vec()].concat();
            // As much as the socket takes at once; the rest when the daemon has read.
            stream.set_nonblocking(true).unwrap();
            let (mut sent, mut said_all) = (0, Vec::new());
            for _ in 0..1000 {
                if let Ok(count) = stream.write(&line[sent..]) {
                    sent += count;
                }
                said_all.extend(bench.turn());
            }
            assert_eq!(said_all, [said, "2"], "{length}");
        }
    }

    /// A program that asks and reads nothing costs one answer that waits.
    #[test]
    fn a_program_that_does_not_read_is_not_read_from() {
        let mut bench = Bench::new("deaf");
        let stream = bench.client();
        stream.set_nonblocking(true).unwrap();
        let large = "x".repeat(1 << 20);
        (&stream).write_all(b"a\nb\n").unwrap();
        bench.control.note(0);
        assert!(bench.control.poll_line(0, bench.now).is_some());
        bench.control.reply(0, large.clone());
        for _ in 0..100 {
            assert!(bench.turn().is_empty(), "its first answer still waits");
        }
        let mut read = 0;
        while read <= large.len() {
            let _ = bench.turn();
            read += (&stream).read(&mut [0; 65536]).unwrap_or(0);
        }
    }

    #[test]
    fn the_program_that_is_silent_for_longest_makes_room() {
        let mut bench = Bench::new("seats");
        let mut streams: Vec<UnixStream> = (0..CLIENT_COUNT_MAX).map(|_| bench.client()).collect();
        streams[0].write_all(b"a\n").unwrap();
        assert_eq!(bench.turn(), ["1"]);
        let mut newest = bench.client();
        assert_eq!(bench.connected_count(), CLIENT_COUNT_MAX);
        newest.write_all(b"abc\n").unwrap();
        streams[0].write_all(b"b\n").unwrap();
        let mut said = bench.turn();
        said.sort();
        assert_eq!(said, ["1", "3"]);
        assert_eq!(answer(&streams[1]), "", "closed");
    }

    #[test]
    fn the_socket_is_removed_at_the_end() {
        let bench = Bench::new("removed");
        let path = bench.scratch.path().to_path_buf();
        assert!(path.exists());
        drop(bench.control);
        assert!(!path.exists());
    }
}
