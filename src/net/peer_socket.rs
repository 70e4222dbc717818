//! One socket to one peer: which bytes go in and out, and when.
//!
//! Bytes become values here and nothing else happens: what a message means is decided by the core.
//! The payload of a `piece` is read by the kernel straight into its pool buffer, together with the
//! header of the message behind it in one `readv`; blocks go out from their pool buffers, several
//! to a `writev`. No byte of payload is copied by us, except the few hundred that came along behind
//! a message.
//!
//! Readiness is edge-triggered: after an event we read, or write, until the kernel says that there
//! is no more. A read or write that moved less than was asked for says so too (epoll(7), questions
//! and answers) and saves a system call; only a peer that has closed its side has to be read to the
//! end, for its end of file makes no further edge.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::SocketAddr;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use swarm_proto::limits::BLOCK_BYTES;
use swarm_proto::swarm::{Send, Sink};
use swarm_proto::units::BufferId;
use swarm_proto::wire::message::{self as wire, Frame, Handshake, Message, RawBlock, WireError};

use crate::os::pool::Pool;

/// Bytes of headers and small messages read at once when no payload is expected: 400 `have`.
const INBOX_BYTES: usize = 4096;

/// Bytes read behind a payload in the same `readv`. Enough for the next header and a burst of
/// `have`; what it catches of the next payload has to be copied, so not more.
const BEHIND_PAYLOAD_BYTES: usize = 512;

/// Blocks queued in one connection. 16 of them are 256 KiB a `writev`: more system calls are not
/// saved by more, and every queued block pins its buffer and can no longer be cancelled.
const OUT_BLOCKS_MAX: usize = 16;

/// Bytes of small messages queued in one connection before no more are asked for (one `bitfield`
/// may pass it).
const OUT_TEXT_BYTES_MAX: usize = 64 * 1024;

/// One TCP connection.
///
/// Calling order: `ready` with each event. While `is_readable`, `next` until it says `Nothing`;
/// `next` never follows `BlockBegins` without `receive_into`. While `is_writable`, `push` as long
/// as `has_room`, and `flush`.
pub struct Conn {
    stream: TcpStream,
    address: SocketAddr,
    phase: Phase,
    inbox: Inbox,
    payload: Option<Payload>,
    outbox: Outbox,
    /// The kernel may have bytes for us. False after a read that came back short.
    readable: bool,
    /// The peer has closed its side: read on until end of file.
    hung_up: bool,
    /// The kernel may have room. False after a write that went out short.
    writable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    /// The next 68 bytes are the peer's handshake.
    Greeting,
    /// `expect_torrent` must say which torrent this is before messages can be read.
    Greeted,
    Frames {
        bitfield_bytes_max: usize,
    },
}

/// A `piece` message of which the header has been taken.
struct Payload {
    block: RawBlock,
    /// None until `receive_into`.
    sink: Option<Sink>,
    done: u32,
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    Handshake(Handshake),
    Message(Message),
    /// The header of a `piece`: say with `receive_into` where its bytes go.
    BlockBegins(RawBlock),
    /// All its bytes are there.
    BlockEnds(RawBlock),
    /// No more for now.
    Nothing,
}

/// What became of a connection that we are opening.
#[derive(Debug, PartialEq, Eq)]
pub enum Opening {
    Pending,
    Open,
}

impl Conn {
    /// Begins to connect. `poll_open` tells at each event what became of it.
    pub fn connect(address: SocketAddr) -> io::Result<Conn> {
        Ok(Conn::new(
            TcpStream::connect(address)?,
            address,
            Phase::Connecting,
        ))
    }

    /// Takes what the listener accepted.
    pub fn accepted(stream: TcpStream, address: SocketAddr) -> io::Result<Conn> {
        stream.set_nodelay(true)?;
        Ok(Conn::new(stream, address, Phase::Greeting))
    }

    fn new(stream: TcpStream, address: SocketAddr, phase: Phase) -> Conn {
        Conn {
            stream,
            address,
            phase,
            inbox: Inbox::new(),
            payload: None,
            outbox: Outbox::default(),
            readable: true,
            hung_up: false,
            writable: true,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(
            &mut self.stream,
            token,
            Interest::READABLE | Interest::WRITABLE,
        )
    }

    /// Gives later events another token. The kernel repeats what is ready, so no edge is lost
    /// (epoll_ctl(2), EPOLL_CTL_MOD).
    pub fn reregister(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.reregister(
            &mut self.stream,
            token,
            Interest::READABLE | Interest::WRITABLE,
        )
    }

    /// Notes what an event says.
    pub fn ready(&mut self, event: &Event) {
        // An error shows itself in the read that follows.
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.hung_up |= event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable();
    }

    pub fn is_connecting(&self) -> bool {
        self.phase == Phase::Connecting
    }

    /// To be called after an event while `is_connecting`.
    pub fn poll_open(&mut self) -> Result<Opening, ConnError> {
        assert!(self.is_connecting());
        if let Some(error) = self.stream.take_error()? {
            return Err(ConnError::Io(error));
        }
        // mio, TcpStream::connect: an event alone does not mean that the connection stands.
        match self.stream.peer_addr() {
            Ok(_) => {}
            Err(error) if is_unfinished(&error) => return Ok(Opening::Pending),
            Err(error) => return Err(ConnError::Io(error)),
        }
        self.stream.set_nodelay(true)?;
        self.phase = Phase::Greeting;
        Ok(Opening::Open)
    }

    /// The handshake named a torrent of ours, whose bitfields have this many bytes.
    pub fn expect_torrent(&mut self, bitfield_bytes_max: usize) {
        assert_eq!(self.phase, Phase::Greeted);
        self.phase = Phase::Frames { bitfield_bytes_max };
    }

    // --- in

    /// Is there something for `next` to find?
    pub fn is_readable(&self) -> bool {
        !self.is_connecting() && (self.readable || self.inbox.has_news)
    }

    /// The handshake of an accepted connection, once all of it has come. Unlike `next`, it needs no
    /// pool: before the handshake nobody knows whose pool that is.
    pub fn poll_handshake(&mut self) -> Result<Option<Handshake>, ConnError> {
        assert_eq!(self.phase, Phase::Greeting);
        loop {
            if let Some(handshake) = self.take_handshake()? {
                return Ok(Some(handshake));
            }
            self.inbox.has_news = false;
            if !self.readable {
                return Ok(None);
            }
            let room = self.inbox.room(INBOX_BYTES);
            let (wanted, outcome) = (room.len(), self.stream.read(room));
            self.arrived(outcome, wanted, 0)?;
        }
    }

    /// The next thing the peer says. `waste` takes the bytes of blocks nobody wants.
    pub fn next(&mut self, pool: &mut Pool, waste: &mut [u8]) -> Result<Input, ConnError> {
        assert!(waste.len() >= BLOCK_BYTES as usize);
        loop {
            if let Some(input) = self.take(pool)? {
                return Ok(input);
            }
            self.inbox.has_news = false;
            if !self.readable {
                return Ok(Input::Nothing);
            }
            self.fill(pool, waste)?;
        }
    }

    /// Where the block of the last `BlockBegins` goes.
    pub fn receive_into(&mut self, sink: Sink) {
        let payload = self.payload.as_mut().expect("a block has begun");
        assert!(payload.sink.is_none());
        payload.sink = Some(sink);
    }

    /// Takes one thing out of what has been read.
    fn take(&mut self, pool: &mut Pool) -> Result<Option<Input>, ConnError> {
        if self.payload.is_some() {
            return Ok(self.take_payload(pool));
        }
        match self.phase {
            Phase::Connecting => unreachable!("poll_open comes first"),
            Phase::Greeting => Ok(self.take_handshake()?.map(Input::Handshake)),
            Phase::Greeted => unreachable!("expect_torrent comes before the first message"),
            Phase::Frames { bitfield_bytes_max } => {
                let Some((frame, consumed)) =
                    wire::decode(self.inbox.unread(), bitfield_bytes_max)?
                else {
                    self.inbox.needed =
                        wire::bytes_needed(self.inbox.unread(), bitfield_bytes_max)?;
                    return Ok(None);
                };
                self.inbox.consume(consumed);
                Ok(Some(match frame {
                    Frame::Message(message) => Input::Message(message),
                    Frame::Piece(block) => {
                        assert!(block.length > 0 && block.length <= BLOCK_BYTES);
                        self.payload = Some(Payload {
                            block,
                            sink: None,
                            done: 0,
                        });
                        Input::BlockBegins(block)
                    }
                }))
            }
        }
    }

    fn take_handshake(&mut self) -> Result<Option<Handshake>, ConnError> {
        let Some(handshake) = Handshake::parse(self.inbox.unread())? else {
            return Ok(None);
        };
        self.inbox.consume(wire::HANDSHAKE_BYTES);
        self.phase = Phase::Greeted;
        Ok(Some(handshake))
    }

    /// Moves what the inbox caught of the payload to where it belongs.
    fn take_payload(&mut self, pool: &mut Pool) -> Option<Input> {
        let payload = self.payload.as_mut()?;
        let sink = payload.sink.expect("receive_into follows BlockBegins");
        let caught = (payload.missing() as usize).min(self.inbox.unread().len());
        if let Sink::Buffer { buffer, offset } = sink {
            let start = (offset + payload.done) as usize;
            pool.bytes_mut(buffer)[start..start + caught]
                .copy_from_slice(&self.inbox.unread()[..caught]);
        }
        self.inbox.consume(caught);
        payload.done += caught as u32;
        if payload.missing() > 0 {
            return None;
        }
        let block = payload.block;
        self.payload = None;
        Some(Input::BlockEnds(block))
    }

    /// One system call: payload to its place, what is behind it to the inbox.
    fn fill(&mut self, pool: &mut Pool, waste: &mut [u8]) -> Result<(), ConnError> {
        let (wanted, payload_wanted, outcome) = match &self.payload {
            None => {
                let room = self.inbox.room(INBOX_BYTES);
                (room.len(), 0, self.stream.read(room))
            }
            Some(payload) => {
                let missing = payload.missing() as usize;
                let place = match payload.sink.expect("receive_into follows BlockBegins") {
                    Sink::Buffer { buffer, offset } => {
                        let start = (offset + payload.done) as usize;
                        &mut pool.bytes_mut(buffer)[start..start + missing]
                    }
                    Sink::Discard => &mut waste[..missing],
                };
                let behind = self.inbox.room(BEHIND_PAYLOAD_BYTES);
                let wanted = missing + behind.len();
                let mut slices = [IoSliceMut::new(place), IoSliceMut::new(behind)];
                (wanted, missing, self.stream.read_vectored(&mut slices))
            }
        };
        self.arrived(outcome, wanted, payload_wanted)
    }

    /// Notes what a read of at most `wanted` bytes has brought, the first `payload_wanted` of them
    /// payload.
    fn arrived(
        &mut self,
        outcome: io::Result<usize>,
        wanted: usize,
        payload_wanted: usize,
    ) -> Result<(), ConnError> {
        let arrived = match outcome {
            Ok(0) => return Err(ConnError::Closed),
            Ok(arrived) => arrived,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(ConnError::Io(error)),
        };
        assert!(arrived <= wanted);
        self.readable = arrived == wanted || self.hung_up;
        if let Some(payload) = &mut self.payload {
            payload.done += arrived.min(payload_wanted) as u32;
        }
        self.inbox.filled(arrived.saturating_sub(payload_wanted));
        Ok(())
    }

    // --- out

    /// Does the kernel take bytes, as far as we know?
    pub fn is_writable(&self) -> bool {
        !self.is_connecting() && self.writable
    }

    /// Is there room for one more `push`?
    pub fn has_room(&self) -> bool {
        self.outbox.has_room()
    }

    /// Queues one thing. Nothing is sent before `flush`.
    pub fn push(&mut self, send: Send) {
        self.outbox.push(send);
    }

    /// Is anything queued?
    pub fn has_output(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Gives the kernel what is queued, as far as it takes it; the number is how many blocks went
    /// out whole.
    pub fn flush(&mut self, pool: &Pool) -> Result<u32, ConnError> {
        let mut blocks_sent = 0;
        while self.writable && !self.outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); 2 * OUT_BLOCKS_MAX + 2];
            let (count, wanted) = self.outbox.slices(pool, &mut slices);
            match self.stream.write_vectored(&slices[..count]) {
                Ok(written) => {
                    assert!(written <= wanted);
                    self.writable = written == wanted;
                    blocks_sent += self.outbox.sent(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ConnError::Io(error)),
            }
        }
        Ok(blocks_sent)
    }
}

impl Payload {
    fn missing(&self) -> u32 {
        self.block.length - self.done
    }
}

/// Bytes that have been read and not yet understood. Grows only for a message longer than
/// `INBOX_BYTES`, to exactly what that message needs, which `wire::bytes_needed` bounds; and
/// shrinks again behind it.
struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// What the message at the front needs in all, as far as its first bytes tell.
    needed: usize,
    /// Bytes have come that `take` has not looked at.
    has_news: bool,
}

impl Inbox {
    fn new() -> Inbox {
        Inbox {
            bytes: vec![0; INBOX_BYTES],
            start: 0,
            end: 0,
            needed: 0,
            has_news: false,
        }
    }

    fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn consume(&mut self, count: usize) {
        assert!(count <= self.end - self.start);
        self.start += count;
        self.needed = 0;
        self.has_news = self.start < self.end;
    }

    fn filled(&mut self, count: usize) {
        self.end += count;
        assert!(self.end <= self.bytes.len());
        self.has_news |= count > 0;
    }

    /// Free bytes behind the unread ones: at most `count_max`, or what the message at the front
    /// still needs.
    fn room(&mut self, count_max: usize) -> &mut [u8] {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let size = self.needed.max(INBOX_BYTES);
        assert!(
            size > self.end,
            "a message that has come whole was not taken"
        );
        if self.bytes.len() != size {
            self.bytes.resize(size, 0);
            self.bytes.shrink_to_fit();
        }
        let end = if self.needed > INBOX_BYTES {
            size
        } else {
            size.min(self.end + count_max)
        };
        &mut self.bytes[self.end..end]
    }
}

/// Bytes that wait for the kernel: a row of segments, each some small messages and then the payload
/// of a block.
#[derive(Default)]
struct Outbox {
    /// The small messages and headers of all segments, one behind the other.
    text: Vec<u8>,
    text_sent: usize,
    segments: VecDeque<Segment>,
    /// Of the first segment's payload.
    payload_sent: u32,
}

struct Segment {
    text_bytes: usize,
    payload: Option<OutPayload>,
}

#[derive(Clone, Copy)]
struct OutPayload {
    buffer: BufferId,
    offset: u32,
    length: u32,
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    fn has_room(&self) -> bool {
        self.segments.len() < OUT_BLOCKS_MAX
            && self.text.len() - self.text_sent < OUT_TEXT_BYTES_MAX
    }

    fn push(&mut self, send: Send) {
        assert!(self.has_room());
        let text_before = self.text.len();
        let payload = match send {
            Send::Handshake(handshake) => {
                self.text.extend_from_slice(&handshake.encode());
                None
            }
            Send::Message(message) => {
                message.encode(&mut self.text);
                None
            }
            Send::Block {
                block,
                buffer,
                offset,
            } => {
                self.text.extend_from_slice(&wire::piece_header(block));
                Some(OutPayload {
                    buffer,
                    offset,
                    length: block.length,
                })
            }
        };
        let text_bytes = self.text.len() - text_before;
        match self.segments.back_mut() {
            Some(last) if last.payload.is_none() => {
                last.text_bytes += text_bytes;
                last.payload = payload;
            }
            _ => self.segments.push_back(Segment {
                text_bytes,
                payload,
            }),
        }
    }

    /// What is to be sent next, and how many bytes that is.
    fn slices<'a>(&'a self, pool: &'a Pool, slices: &mut [IoSlice<'a>]) -> (usize, usize) {
        let (mut count, mut wanted, mut text_start) = (0, 0, self.text_sent);
        let mut payload_start = self.payload_sent;
        let mut add = |bytes: &'a [u8]| {
            if !bytes.is_empty() {
                slices[count] = IoSlice::new(bytes);
                count += 1;
                wanted += bytes.len();
            }
        };
        for segment in &self.segments {
            add(&self.text[text_start..text_start + segment.text_bytes]);
            text_start += segment.text_bytes;
            if let Some(OutPayload {
                buffer,
                offset,
                length,
            }) = segment.payload
            {
                add(&pool.bytes(buffer)
                    [(offset + payload_start) as usize..(offset + length) as usize]);
            }
            payload_start = 0;
        }
        assert!(wanted > 0);
        (count, wanted)
    }

    /// The kernel took so many bytes. The number returned is how many blocks were finished by them.
    fn sent(&mut self, mut bytes: usize) -> u32 {
        let mut blocks = 0;
        while let Some(segment) = self.segments.front_mut() {
            let text = bytes.min(segment.text_bytes);
            segment.text_bytes -= text;
            self.text_sent += text;
            bytes -= text;
            if segment.text_bytes > 0 {
                break;
            }
            if let Some(payload) = segment.payload {
                let part = bytes.min((payload.length - self.payload_sent) as usize);
                self.payload_sent += part as u32;
                bytes -= part;
                if self.payload_sent < payload.length {
                    break;
                }
                blocks += 1;
            }
            self.payload_sent = 0;
            self.segments.pop_front();
        }
        assert_eq!(bytes, 0);
        self.forget_sent_text();
        blocks
    }

    /// Keeps `text` from growing for ever on a connection whose queue is never quite empty.
    fn forget_sent_text(&mut self) {
        if self.text_sent == self.text.len() {
            self.text.clear();
            self.text.shrink_to(INBOX_BYTES);
            self.text_sent = 0;
        } else if self.text_sent >= OUT_TEXT_BYTES_MAX {
            self.text.drain(..self.text_sent);
            self.text_sent = 0;
        }
    }
}

/// "Not connected yet" in the two ways Linux says it.
fn is_unfinished(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotConnected || error.raw_os_error() == Some(libc::EINPROGRESS)
}

/// Why a connection is at its end.
#[derive(Debug)]
pub enum ConnError {
    Closed,
    Io(io::Error),
    Wire(WireError),
}

impl fmt::Display for ConnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnError::Closed => f.write_str("peer closed the connection"),
            ConnError::Io(error) => write!(f, "connection failed: {error}"),
            ConnError::Wire(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for ConnError {
    fn from(error: io::Error) -> ConnError {
        ConnError::Io(error)
    }
}

impl From<WireError> for ConnError {
    fn from(error: WireError) -> ConnError {
        ConnError::Wire(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Shutdown, TcpListener};
    use swarm_proto::rng::Rng;
    use swarm_proto::units::{Block, InfoHash, PeerId, PieceIndex};

    const BUFFERS: u32 = 4;
    const BUFFER_BYTES: u32 = 32 * 1024;
    const BITFIELD_BYTES: usize = 9000;

    /// A connection of ours, past the handshake, and the plain socket at its other end.
    fn pair() -> (Conn, std::net::TcpStream) {
        let (mut conn, peer) = fresh_pair();
        conn.phase = Phase::Frames {
            bitfield_bytes_max: BITFIELD_BYTES,
        };
        (conn, peer)
    }

    fn fresh_pair() -> (Conn, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, address) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        (
            Conn::accepted(TcpStream::from_std(stream), address).unwrap(),
            peer,
        )
    }

    fn memory() -> (Pool, Vec<u8>) {
        (
            Pool::new(BUFFER_BYTES, BUFFERS).unwrap(),
            vec![0; BLOCK_BYTES as usize],
        )
    }

    /// All that has arrived; blocks go to buffer `index` at `begin`, those of piece 9 to waste.
    fn drain(conn: &mut Conn, pool: &mut Pool, waste: &mut [u8]) -> Result<Vec<Input>, ConnError> {
        let mut inputs = Vec::new();
        conn.readable = true;
        loop {
            match conn.next(pool, waste)? {
                Input::Nothing => return Ok(inputs),
                Input::BlockBegins(block) if block.index == 9 => conn.receive_into(Sink::Discard),
                Input::BlockBegins(RawBlock { index, begin, .. }) => {
                    conn.receive_into(Sink::Buffer {
                        buffer: BufferId(index),
                        offset: begin,
                    });
                }
                input => inputs.push(input),
            }
        }
    }

    fn random_message(rng: &mut Rng) -> Message {
        let number = rng.below(1 << 20);
        match rng.below(6) {
            0 => Message::KeepAlive,
            1 => Message::Unchoke,
            2 => Message::Bitfield(vec![number as u8; 1 + number as usize % BITFIELD_BYTES]),
            3 => Message::Request(RawBlock {
                index: number,
                begin: 0,
                length: 16384,
            }),
            4 => Message::Extended {
                id: 1,
                payload: vec![7; number as usize % 20_000],
            },
            _ => Message::Have(number),
        }
    }

    /// The twin is the plain order of what was written; the cuts are the network's.
    #[test]
    fn it_does_not_matter_where_the_bytes_are_cut() {
        for seed in 0..30 {
            let mut rng = Rng::new(seed);
            let (mut conn, mut peer) = pair();
            let (mut pool, mut waste) = memory();
            let (mut bytes, mut expected) = (Vec::new(), Vec::new());
            let mut contents = vec![vec![0; BUFFER_BYTES as usize]; BUFFERS as usize];
            for _ in 0..200 {
                if rng.below(2) == 0 {
                    let message = random_message(&mut rng);
                    message.encode(&mut bytes);
                    expected.push(Input::Message(message));
                    continue;
                }
                let length = 1 + rng.below(BLOCK_BYTES);
                let begin = rng.below(BUFFER_BYTES - length + 1);
                let index = if rng.below(8) == 0 {
                    9
                } else {
                    rng.below(BUFFERS)
                };
                let fill = rng.below(256) as u8;
                bytes.extend(wire::piece_header(Block {
                    piece: PieceIndex(index),
                    begin,
                    length,
                }));
                bytes.extend(vec![fill; length as usize]);
                expected.push(Input::BlockEnds(RawBlock {
                    index,
                    begin,
                    length,
                }));
                if index != 9 {
                    contents[index as usize][begin as usize..(begin + length) as usize].fill(fill);
                }
            }
            let mut inputs = Vec::new();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let largest = if rng.below(4) == 0 { 40_000 } else { 600 };
                let (now, later) = rest.split_at(rest.len().min(1 + rng.below(largest) as usize));
                peer.write_all(now).unwrap();
                inputs.extend(drain(&mut conn, &mut pool, &mut waste).unwrap());
                rest = later;
            }
            assert!(inputs == expected, "seed {seed}");
            for (index, content) in contents.iter().enumerate() {
                assert!(
                    pool.bytes(BufferId(index as u32)) == content,
                    "seed {seed}, buffer {index}"
                );
            }
            assert!(conn.inbox.bytes.len() <= wire::frame_bytes_max(BITFIELD_BYTES));
        }
    }

    #[test]
    fn what_is_pushed_arrives_and_each_block_is_counted_once() {
        let mut rng = Rng::new(5);
        let (mut conn, mut peer) = pair();
        let (mut pool, _) = memory();
        for index in 0..BUFFERS {
            pool.bytes_mut(BufferId(index))
                .iter_mut()
                .for_each(|byte| *byte = rng.below(256) as u8);
        }
        peer.set_nonblocking(true).unwrap();
        let (mut expected, mut received) = (Vec::new(), Vec::<u8>::new());
        let (mut blocks_pushed, mut blocks_sent) = (0, 0);
        let mut chunk = vec![0; 70_000];
        for _ in 0..2000 {
            while conn.has_room() && rng.below(8) > 0 {
                if rng.below(3) > 0 {
                    let message = random_message(&mut rng);
                    message.encode(&mut expected);
                    conn.push(Send::Message(message));
                    continue;
                }
                let length = 1 + rng.below(BLOCK_BYTES);
                let offset = rng.below(BUFFER_BYTES - length);
                let block = Block {
                    piece: PieceIndex(1),
                    begin: 0,
                    length,
                };
                let buffer = BufferId(rng.below(BUFFERS));
                expected.extend(wire::piece_header(block));
                expected.extend(&pool.bytes(buffer)[offset as usize..(offset + length) as usize]);
                conn.push(Send::Block {
                    block,
                    buffer,
                    offset,
                });
                blocks_pushed += 1;
            }
            assert!(conn.outbox.text.len() < 4 * OUT_TEXT_BYTES_MAX);
            conn.writable = true;
            blocks_sent += conn.flush(&pool).unwrap();
            let limit = rng.below(chunk.len() as u32) as usize + 1;
            if let Ok(count) = peer.read(&mut chunk[..limit]) {
                received.extend(&chunk[..count]);
            }
        }
        while received.len() < expected.len() {
            conn.writable = true;
            blocks_sent += conn.flush(&pool).unwrap();
            match peer.read(&mut chunk) {
                Ok(count) => received.extend(&chunk[..count]),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        assert!(received == expected);
        assert!(blocks_pushed > 100);
        assert_eq!(blocks_sent, blocks_pushed);
    }

    #[test]
    fn a_full_queue_says_so() {
        let (mut conn, _peer) = pair();
        let block = Block {
            piece: PieceIndex(0),
            begin: 0,
            length: BLOCK_BYTES,
        };
        for _ in 0..OUT_BLOCKS_MAX {
            assert!(conn.has_room());
            conn.push(Send::Block {
                block,
                buffer: BufferId(0),
                offset: 0,
            });
        }
        assert!(!conn.has_room());
        let (pool, _) = memory();
        assert_eq!(conn.flush(&pool).unwrap(), OUT_BLOCKS_MAX as u32);
        assert!(conn.has_room());
    }

    #[test]
    fn the_handshake_comes_first_and_alone() {
        let (mut conn, mut peer) = fresh_pair();
        let (mut pool, mut waste) = memory();
        let handshake = Handshake {
            fast: true,
            extended: true,
            info_hash: InfoHash([1; 20]),
            peer_id: PeerId([2; 20]),
        };
        let mut bytes = handshake.encode().to_vec();
        Message::Have(7).encode(&mut bytes);
        peer.write_all(&bytes).unwrap();
        assert_eq!(
            conn.next(&mut pool, &mut waste).unwrap(),
            Input::Handshake(handshake)
        );
        conn.expect_torrent(1);
        assert!(
            conn.is_readable(),
            "a message has been read along with the handshake"
        );
        assert_eq!(
            conn.next(&mut pool, &mut waste).unwrap(),
            Input::Message(Message::Have(7))
        );
        assert_eq!(conn.next(&mut pool, &mut waste).unwrap(), Input::Nothing);
        assert!(!conn.is_readable());
    }

    #[test]
    fn an_accepted_connection_gives_its_handshake_without_a_pool() {
        let (mut conn, mut peer) = fresh_pair();
        let handshake = Handshake {
            info_hash: InfoHash([7; 20]),
            peer_id: PeerId([8; 20]),
            fast: true,
            extended: true,
        };
        let mut bytes = handshake.encode().to_vec();
        Message::Have(7).encode(&mut bytes);
        peer.write_all(&bytes[..40]).unwrap();
        assert_eq!(conn.poll_handshake().unwrap(), None);
        assert!(!conn.is_readable());
        peer.write_all(&bytes[40..]).unwrap();
        conn.readable = true;
        assert_eq!(conn.poll_handshake().unwrap(), Some(handshake));
        assert!(
            conn.is_readable(),
            "a message has been read along with the handshake"
        );
        conn.expect_torrent(BITFIELD_BYTES);
        let (mut pool, mut waste) = memory();
        assert_eq!(
            conn.next(&mut pool, &mut waste).unwrap(),
            Input::Message(Message::Have(7))
        );
    }

    #[test]
    fn what_is_wrong_ends_the_connection() {
        let end = |bytes: &[u8]| {
            let (mut conn, mut peer) = pair();
            let (mut pool, mut waste) = memory();
            peer.write_all(bytes).unwrap();
            peer.shutdown(Shutdown::Write).unwrap();
            conn.hung_up = true;
            drain(&mut conn, &mut pool, &mut waste)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(end(b""), "peer closed the connection");
        assert_eq!(end(&[0, 0, 0, 1]), "peer closed the connection");
        assert_eq!(
            end(&[0, 0, 0, 2, 4, 0]),
            "peer sent message 4 with a length of 2, must be 5"
        );
        assert_eq!(
            end(&[0, 0, 0x40, 10, 7]),
            "peer sent message 7 with a length of 16394, must be 10 to 16393"
        );
        assert_eq!(
            end(&[0, 1, 0, 0, 5]),
            "peer sent message 5 with a length of 65536, must be 2 to 9001"
        );
    }

    #[test]
    fn a_refused_connection_is_an_error() {
        // A port that was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let mut conn = Conn::connect(address).unwrap();
        let outcome = loop {
            match conn.poll_open() {
                Ok(Opening::Pending) => {}
                outcome => break outcome,
            }
        };
        assert!(
            matches!(outcome, Err(ConnError::Io(error)) if error.kind() == io::ErrorKind::ConnectionRefused)
        );
    }
}
