//! One socket to one peer: when are bytes read and written, and what did the peer send?
//!
//! This file turns bytes into values. What a message means is decided by the core. The kernel reads
//! the payload of a `piece` straight into its pool buffer, together with the header of the next
//! message in one `readv`; blocks go out from their pool buffers (`outbox`). We copy no byte of
//! payload, except the few hundred that were read together with the message before them, and those
//! of compressed blocks: they are read to the place of the block, too, and decoded there from a
//! copy.
//!
//! Readiness is edge-triggered: after an event we read, or write, until the kernel reports that no
//! more is possible. A read or write that moved less than was asked for reports that, too
//! (epoll(7), questions and answers), and saves a system call. A peer that has closed its side is
//! the exception: it must be read to the end, because its end of file makes no further edge.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::SocketAddr;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use swarm_proto::format::lz4;
use swarm_proto::limits::BLOCK_BYTES;
use swarm_proto::swarm::{Send, Sink};
use swarm_proto::wire::message::{self as wire, Frame, Handshake, Message, RawBlock, WireError};

use super::outbox::{Outbox, SLICES_MAX};
use super::packer::Packer;
use crate::os::pool::Pool;

/// Bytes of headers and small messages read at once when no payload is expected: 400 `have`.
const INBOX_BYTES: usize = 4096;

/// Bytes read behind a payload in the same `readv`: enough for the next header and a burst of
/// `have`. Bytes of the next payload that are read along with them have to be copied, so the number
/// is not larger.
const BEHIND_PAYLOAD_BYTES: usize = 512;

/// One TCP connection.
///
/// Calling order: `ready` with each event. While `is_readable`, `next` until it returns `Nothing`;
/// after `BlockBegins`, `receive_into` must come before the next `next`. While `is_writable`,
/// `push` while `has_room`, then `flush`.
pub struct PeerSocket {
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
    /// The kernel may have room. False after a write that was accepted only in part.
    writable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    /// The next 68 bytes are the peer's handshake.
    Greeting,
    /// The handshake has been read. `expect_torrent` must come before the first message.
    Greeted,
    Frames {
        bitfield_bytes_max: usize,
    },
}

/// A block whose header has been taken from the inbox.
struct Payload {
    block: RawBlock,
    /// Bytes that come: fewer than the block has if it is compressed.
    wire_bytes: u32,
    /// None until `receive_into`.
    sink: Option<Sink>,
    /// Bytes that have arrived.
    done: u32,
}

/// What the peer sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    Handshake(Handshake),
    Message(Message),
    /// The header of a `piece`: `receive_into` must say where its bytes go.
    BlockBegins(RawBlock),
    /// The same of a block that is compressed to this many bytes.
    PackedBegins(RawBlock, u32),
    /// All bytes of this block have arrived.
    BlockEnds(RawBlock),
    /// The same of a block that was kept. As it came, it is at the front of `scratch`.
    PackedEnds(RawBlock, u32),
    /// Nothing more has arrived.
    Nothing,
}

/// The state of a connection that we are opening.
#[derive(Debug, PartialEq, Eq)]
pub enum Opening {
    Pending,
    Open,
}

impl PeerSocket {
    /// Begins to connect. Call `poll_open` at each event to learn the outcome.
    pub fn connect(address: SocketAddr) -> io::Result<PeerSocket> {
        Ok(PeerSocket::new(
            TcpStream::connect(address)?,
            address,
            Phase::Connecting,
        ))
    }

    /// Takes over a connection that the listener accepted.
    pub fn accepted(stream: TcpStream, address: SocketAddr) -> io::Result<PeerSocket> {
        stream.set_nodelay(true)?;
        Ok(PeerSocket::new(stream, address, Phase::Greeting))
    }

    fn new(stream: TcpStream, address: SocketAddr, phase: Phase) -> PeerSocket {
        PeerSocket {
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

    /// Records the readiness that an event reports.
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
    pub fn poll_open(&mut self) -> Result<Opening, SocketError> {
        assert!(self.is_connecting());
        if let Some(error) = self.stream.take_error()? {
            return Err(SocketError::Io(error));
        }
        // mio, TcpStream::connect: an event alone does not mean that the connection is open.
        match self.stream.peer_addr() {
            Ok(_) => {}
            Err(error) if is_unfinished(&error) => return Ok(Opening::Pending),
            Err(error) => return Err(SocketError::Io(error)),
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

    // --- input

    /// May `next` return something?
    pub fn is_readable(&self) -> bool {
        !self.is_connecting() && (self.readable || self.inbox.has_new)
    }

    /// The handshake of an accepted connection, once all of it has come. Unlike `next`, it needs no
    /// pool: before the handshake nobody knows whose pool that is.
    pub fn poll_handshake(&mut self) -> Result<Option<Handshake>, SocketError> {
        assert_eq!(self.phase, Phase::Greeting);
        loop {
            if let Some(handshake) = self.take_handshake()? {
                return Ok(Some(handshake));
            }
            self.inbox.has_new = false;
            if !self.readable {
                return Ok(None);
            }
            let room = self.inbox.room(INBOX_BYTES);
            let (wanted, outcome) = (room.len(), self.stream.read(room));
            self.arrived(outcome, wanted, 0)?;
        }
    }

    /// The next thing the peer sent. The bytes of discarded blocks are read into `scratch`, those
    /// of compressed ones are copied to it.
    pub fn next(&mut self, pool: &mut Pool, scratch: &mut [u8]) -> Result<Input, SocketError> {
        assert!(scratch.len() >= BLOCK_BYTES as usize);
        loop {
            if let Some(input) = self.take(pool, scratch)? {
                return Ok(input);
            }
            self.inbox.has_new = false;
            if !self.readable {
                return Ok(Input::Nothing);
            }
            self.fill(pool, scratch)?;
        }
    }

    /// Sets where the bytes of the block of the last `BlockBegins` go.
    pub fn receive_into(&mut self, sink: Sink) {
        let payload = self.payload.as_mut().expect("a block has begun");
        assert!(payload.sink.is_none());
        payload.sink = Some(sink);
    }

    /// Takes one thing from the bytes that have been read.
    fn take(&mut self, pool: &mut Pool, scratch: &mut [u8]) -> Result<Option<Input>, SocketError> {
        if self.payload.is_some() {
            return self.take_payload(pool, scratch);
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
                        self.payload = Some(Payload::new(block, block.length));
                        Input::BlockBegins(block)
                    }
                    Frame::Packed(block, wire_bytes) => {
                        assert!(wire_bytes < block.length && block.length <= BLOCK_BYTES);
                        self.payload = Some(Payload::new(block, wire_bytes));
                        Input::PackedBegins(block, wire_bytes)
                    }
                }))
            }
        }
    }

    fn take_handshake(&mut self) -> Result<Option<Handshake>, SocketError> {
        let Some(handshake) = Handshake::parse(self.inbox.unread())? else {
            return Ok(None);
        };
        self.inbox.consume(wire::HANDSHAKE_BYTES);
        self.phase = Phase::Greeted;
        Ok(Some(handshake))
    }

    /// Copies the part of the payload that was read into the inbox to its sink, and makes a
    /// compressed block whole that is complete.
    fn take_payload(
        &mut self,
        pool: &mut Pool,
        scratch: &mut [u8],
    ) -> Result<Option<Input>, SocketError> {
        let payload = self.payload.as_mut().expect("a block has begun");
        let sink = payload.sink.expect("receive_into follows BlockBegins");
        let in_inbox = (payload.missing() as usize).min(self.inbox.unread().len());
        if let Sink::Buffer { buffer, offset } = sink {
            let start = (offset + payload.done) as usize;
            pool.bytes_mut(buffer)[start..start + in_inbox]
                .copy_from_slice(&self.inbox.unread()[..in_inbox]);
        }
        self.inbox.consume(in_inbox);
        payload.done += in_inbox as u32;
        if payload.missing() > 0 {
            return Ok(None);
        }
        let (block, wire_bytes) = (payload.block, payload.wire_bytes);
        self.payload = None;
        if let Sink::Buffer { buffer, offset } = sink
            && wire_bytes < block.length
        {
            let place = &mut pool.bytes_mut(buffer)[offset as usize..][..block.length as usize];
            let packed = &mut scratch[..wire_bytes as usize];
            packed.copy_from_slice(&place[..packed.len()]);
            if lz4::decode(packed, place) != Some(place.len()) {
                return Err(WireError::Packed.into());
            }
            return Ok(Some(Input::PackedEnds(block, wire_bytes)));
        }
        Ok(Some(Input::BlockEnds(block)))
    }

    /// One system call reads the rest of the payload into its sink, and the bytes behind it into
    /// the inbox.
    fn fill(&mut self, pool: &mut Pool, scratch: &mut [u8]) -> Result<(), SocketError> {
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
                    Sink::Discard => &mut scratch[..missing],
                };
                let behind = self.inbox.room(BEHIND_PAYLOAD_BYTES);
                let wanted = missing + behind.len();
                let mut slices = [IoSliceMut::new(place), IoSliceMut::new(behind)];
                (wanted, missing, self.stream.read_vectored(&mut slices))
            }
        };
        self.arrived(outcome, wanted, payload_wanted)
    }

    /// Records what a read of at most `wanted` bytes has brought; the first `payload_wanted` of
    /// them are payload.
    fn arrived(
        &mut self,
        outcome: io::Result<usize>,
        wanted: usize,
        payload_wanted: usize,
    ) -> Result<(), SocketError> {
        let arrived = match outcome {
            Ok(0) => return Err(SocketError::Closed),
            Ok(arrived) => arrived,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(SocketError::Io(error)),
        };
        assert!(arrived <= wanted);
        self.readable = arrived == wanted || self.hung_up;
        if let Some(payload) = &mut self.payload {
            payload.done += arrived.min(payload_wanted) as u32;
        }
        self.inbox.filled(arrived.saturating_sub(payload_wanted));
        Ok(())
    }

    // --- output

    /// May the kernel take bytes?
    pub fn is_writable(&self) -> bool {
        !self.is_connecting() && self.writable
    }

    /// Is there room for another `push`?
    pub fn has_room(&self) -> bool {
        self.outbox.has_room()
    }

    /// Queues one message or block. Nothing is sent before `flush`. Returns the length of the
    /// payload, if it was to be compressed.
    pub fn push(
        &mut self,
        send: Send,
        pool: &Pool,
        packer: &mut Packer,
        job: usize,
    ) -> Option<u32> {
        self.outbox.push(send, pool, packer, job)
    }

    /// Is anything queued?
    pub fn has_output(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Gives the kernel as much of the queue as it takes. Returns how many blocks have been sent
    /// completely.
    pub fn flush(&mut self, pool: &Pool) -> Result<u32, SocketError> {
        let mut blocks_sent = 0;
        while self.writable && !self.outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let (count, wanted) = self.outbox.slices(pool, &mut slices);
            match self.stream.write_vectored(&slices[..count]) {
                Ok(written) => {
                    assert!(written <= wanted);
                    self.writable = written == wanted;
                    blocks_sent += self.outbox.consume(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(SocketError::Io(error)),
            }
        }
        Ok(blocks_sent)
    }
}

impl Payload {
    fn new(block: RawBlock, wire_bytes: u32) -> Payload {
        Payload {
            block,
            wire_bytes,
            sink: None,
            done: 0,
        }
    }

    fn missing(&self) -> u32 {
        self.wire_bytes - self.done
    }
}

/// Bytes that have been read and not yet parsed. The buffer grows only for a message longer than
/// `INBOX_BYTES`, to exactly what that message needs, which `wire::bytes_needed` bounds. It shrinks
/// again after that message.
struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of the whole message at the front, as far as its first bytes tell.
    needed: usize,
    /// Bytes have arrived since `take` last found no complete message.
    has_new: bool,
}

impl Inbox {
    fn new() -> Inbox {
        Inbox {
            bytes: vec![0; INBOX_BYTES],
            start: 0,
            end: 0,
            needed: 0,
            has_new: false,
        }
    }

    fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn consume(&mut self, count: usize) {
        assert!(count <= self.end - self.start);
        self.start += count;
        self.needed = 0;
        self.has_new = self.start < self.end;
    }

    fn filled(&mut self, count: usize) {
        self.end += count;
        assert!(self.end <= self.bytes.len());
        self.has_new |= count > 0;
    }

    /// Free bytes behind the unread ones: at most `count_max`, or what the message at the front
    /// still needs.
    fn room(&mut self, count_max: usize) -> &mut [u8] {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let size = self.needed.max(INBOX_BYTES);
        assert!(
            size > self.end,
            "a complete message was not taken from the inbox"
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

/// Linux reports "not connected yet" in two ways.
fn is_unfinished(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotConnected || error.raw_os_error() == Some(libc::EINPROGRESS)
}

/// Why a connection ended.
#[derive(Debug)]
pub enum SocketError {
    Closed,
    Io(io::Error),
    Wire(WireError),
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketError::Closed => f.write_str("peer closed the connection"),
            SocketError::Io(error) => write!(f, "connection failed: {error}"),
            SocketError::Wire(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for SocketError {
    fn from(error: io::Error) -> SocketError {
        SocketError::Io(error)
    }
}

impl From<WireError> for SocketError {
    fn from(error: WireError) -> SocketError {
        SocketError::Wire(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::outbox;
    use crate::os::testing::closed_address;
    use std::net::{Shutdown, TcpListener};
    use swarm_proto::format::lz4::Encoder;
    use swarm_proto::rng::Rng;
    use swarm_proto::units::{Block, BufferId, InfoHash, PeerId, PieceIndex};
    use swarm_proto::wire::message::LZ_BLOCK_ID;

    const BUFFERS: u32 = 4;
    const BUFFER_BYTES: u32 = 32 * 1024;
    const BITFIELD_BYTES: usize = 9000;

    /// A connection of ours, past the handshake, and the plain socket at its other end.
    fn pair() -> (PeerSocket, std::net::TcpStream) {
        let (mut socket, peer) = fresh_pair();
        socket.phase = Phase::Frames {
            bitfield_bytes_max: BITFIELD_BYTES,
        };
        (socket, peer)
    }

    fn fresh_pair() -> (PeerSocket, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, address) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        (
            PeerSocket::accepted(TcpStream::from_std(stream), address).unwrap(),
            peer,
        )
    }

    fn memory() -> (Pool, Vec<u8>) {
        (
            Pool::new(BUFFER_BYTES, BUFFERS).unwrap(),
            vec![0; BLOCK_BYTES as usize],
        )
    }

    /// Everything that has arrived. Blocks go to buffer `index` at `begin`; those of piece 9 are
    /// discarded.
    fn drain(
        socket: &mut PeerSocket,
        pool: &mut Pool,
        scratch: &mut [u8],
    ) -> Result<Vec<Input>, SocketError> {
        let mut inputs = Vec::new();
        socket.readable = true;
        loop {
            match socket.next(pool, scratch)? {
                Input::Nothing => return Ok(inputs),
                Input::BlockBegins(block) if block.index == 9 => socket.receive_into(Sink::Discard),
                Input::BlockBegins(RawBlock { index, begin, .. }) => {
                    socket.receive_into(Sink::Buffer {
                        buffer: BufferId(index),
                        offset: begin,
                    });
                }
                Input::PackedBegins(RawBlock { index, begin, .. }, _) => {
                    let sink = match index {
                        9 => Sink::Discard,
                        _ => Sink::Buffer {
                            buffer: BufferId(index),
                            offset: begin,
                        },
                    };
                    socket.receive_into(sink);
                }
                input => inputs.push(input),
            }
        }
    }

    /// What the other end of a connection gets.
    fn all_of(peer: std::net::TcpStream) -> (Vec<Input>, Pool) {
        peer.set_nonblocking(true).unwrap();
        let address = peer.peer_addr().unwrap();
        let mut other = PeerSocket::accepted(TcpStream::from_std(peer), address).unwrap();
        other.phase = Phase::Frames {
            bitfield_bytes_max: BITFIELD_BYTES,
        };
        let (mut received, mut scratch) = memory();
        let inputs = drain(&mut other, &mut received, &mut scratch).unwrap();
        (inputs, received)
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

    /// The reference is the order in which the values were written; the network cuts the bytes
    /// anywhere.
    #[test]
    fn values_are_the_same_wherever_the_bytes_are_cut() {
        let mut encoder = Encoder::new();
        for seed in 0..30 {
            let mut rng = Rng::new(seed);
            let (mut socket, mut peer) = pair();
            let (mut pool, mut scratch) = memory();
            let (mut bytes, mut expected) = (Vec::new(), Vec::new());
            let mut packed = vec![0; BLOCK_BYTES as usize];
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
                let block = Block {
                    piece: PieceIndex(index),
                    begin,
                    length,
                };
                let content = vec![fill; length as usize];
                let mut ends = Input::BlockEnds(block.into());
                match encoder.encode(&content, &mut packed) {
                    Some(count) if rng.below(2) == 0 => {
                        bytes.extend(wire::packed_header(block, count as u32, LZ_BLOCK_ID));
                        bytes.extend(&packed[..count]);
                        if index != 9 {
                            ends = Input::PackedEnds(block.into(), count as u32);
                        }
                    }
                    _ => {
                        bytes.extend(wire::piece_header(block));
                        bytes.extend(content);
                    }
                }
                expected.push(ends);
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
                inputs.extend(drain(&mut socket, &mut pool, &mut scratch).unwrap());
                rest = later;
            }
            assert!(inputs == expected, "seed {seed}");
            for (index, content) in contents.iter().enumerate() {
                assert!(
                    pool.bytes(BufferId(index as u32)) == content,
                    "seed {seed}, buffer {index}"
                );
            }
            assert!(socket.inbox.bytes.len() <= wire::frame_bytes_max(BITFIELD_BYTES));
        }
    }

    #[test]
    fn everything_pushed_arrives_and_each_block_is_counted_once() {
        let mut rng = Rng::new(5);
        let (mut socket, mut peer) = pair();
        let (mut pool, mut packer) = (memory().0, Packer::new());
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
            while socket.has_room() && rng.below(8) > 0 {
                if rng.below(3) > 0 {
                    let message = random_message(&mut rng);
                    message.encode(&mut expected);
                    socket.push(Send::Message(message), &pool, &mut packer, 0);
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
                let send = Send::Block {
                    block,
                    buffer,
                    offset,
                    packed: None,
                    encode: false,
                };
                assert_eq!(socket.push(send, &pool, &mut packer, 0), None);
                blocks_pushed += 1;
            }
            assert!(socket.outbox.text_bytes() < 4 * outbox::TEXT_BYTES_MAX);
            socket.writable = true;
            blocks_sent += socket.flush(&pool).unwrap();
            let limit = rng.below(chunk.len() as u32) as usize + 1;
            if let Ok(count) = peer.read(&mut chunk[..limit]) {
                received.extend(&chunk[..count]);
            }
        }
        while received.len() < expected.len() {
            socket.writable = true;
            blocks_sent += socket.flush(&pool).unwrap();
            match peer.read(&mut chunk) {
                Ok(count) => received.extend(&chunk[..count]),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        assert!(received == expected);
        assert!(blocks_pushed > 100);
        assert_eq!(blocks_sent, blocks_pushed);
    }

    /// Blocks that shrink and others, in the order in which they were pushed.
    #[test]
    fn blocks_arrive_as_they_were_compressed_or_not() {
        let (mut socket, peer) = pair();
        let (mut pool, mut packer) = (memory().0, Packer::new());
        let mut rng = Rng::new(6);
        let random = pool.bytes_mut(BufferId(1)).iter_mut();
        random.for_each(|byte| *byte = rng.below(256) as u8);
        pool.bytes_mut(BufferId(2)).fill(7);
        let mut expected = Vec::new();
        for (index, packed) in [
            (1, None),
            (2, None),
            (1, Some(LZ_BLOCK_ID)),
            (2, Some(LZ_BLOCK_ID)),
        ] {
            let block = Block {
                piece: PieceIndex(index),
                begin: 100,
                length: BLOCK_BYTES,
            };
            let send = Send::Block {
                block,
                buffer: BufferId(index),
                offset: 100,
                packed,
                encode: packed.is_some(),
            };
            let wire_bytes = socket.push(send, &pool, &mut packer, 0);
            match (index, packed) {
                (_, None) => assert_eq!(wire_bytes, None),
                (1, Some(_)) => assert_eq!(wire_bytes, Some(BLOCK_BYTES), "it does not shrink"),
                _ => assert!(wire_bytes.is_some_and(|bytes| bytes < 100)),
            }
            expected.push(match wire_bytes {
                Some(bytes) if bytes < BLOCK_BYTES => Input::PackedEnds(block.into(), bytes),
                _ => Input::BlockEnds(block.into()),
            });
        }
        assert_eq!(socket.flush(&pool).unwrap(), 4);
        let (inputs, received) = all_of(peer);
        assert!(inputs == expected);
        let range = 100..100 + BLOCK_BYTES as usize;
        for buffer in [BufferId(1), BufferId(2)] {
            assert!(received.bytes(buffer)[range.clone()] == pool.bytes(buffer)[range.clone()]);
            assert!(
                received.bytes(buffer)[range.end..]
                    .iter()
                    .all(|byte| *byte == 0)
            );
        }
    }

    /// Those of an encoder of our own would be fewer bytes.
    #[test]
    fn a_block_that_lies_packed_is_sent_as_it_lies_or_unpacked() {
        const BYTES: usize = BLOCK_BYTES as usize;
        // Five times `a`; then 1 and 4 + 15 + 64 * 255 + 34 times; at last five times.
        let parts = [&b"\x10a\x01\0\x1fa\x01\0"[..], &[255; 64], b"\x22\x50aaaaa"];
        let packed = parts.concat();
        let (mut pool, mut packer) = (memory().0, Packer::new());
        pool.bytes_mut(BufferId(1)).fill(b'b');
        pool.keep_packed();
        pool.fill(BufferId(1), |bytes, slots| {
            bytes[BYTES..][..packed.len()].copy_from_slice(&packed);
            slots[1] = packed.len() as u16;
        });
        let (mut socket, peer) = pair();
        let half = BLOCK_BYTES / 2;
        let as_it_lies = Some(packed.len() as u32);
        let mut expected = Vec::new();
        for (piece, (offset, id, encode, wire_bytes)) in [
            (BLOCK_BYTES, Some(LZ_BLOCK_ID), true, as_it_lies),
            (BLOCK_BYTES, Some(LZ_BLOCK_ID), false, as_it_lies),
            (BLOCK_BYTES, None, false, None),
            // The half of it, and of the block before.
            (half, Some(LZ_BLOCK_ID), true, None),
        ]
        .into_iter()
        .enumerate()
        {
            let block = Block {
                piece: PieceIndex(piece as u32),
                begin: 0,
                length: BLOCK_BYTES,
            };
            let send = Send::Block {
                block,
                buffer: BufferId(1),
                offset,
                packed: id,
                encode,
            };
            assert_eq!(socket.push(send, &pool, &mut packer, 0), wire_bytes);
            expected.push(match wire_bytes {
                Some(bytes) => Input::PackedEnds(block.into(), bytes),
                None => Input::BlockEnds(block.into()),
            });
        }
        assert_eq!(socket.flush(&pool).unwrap(), 4);
        let (inputs, received) = all_of(peer);
        assert!(inputs == expected);
        for buffer in 0..4 {
            let block = &received.bytes(BufferId(buffer))[..BYTES];
            let b_count = if buffer == 3 { BYTES / 2 } else { 0 };
            assert!(block[..b_count].iter().all(|&byte| byte == b'b'));
            assert!(block[b_count..].iter().all(|&byte| byte == b'a'));
        }
    }

    #[test]
    fn a_full_queue_has_no_room() {
        let (mut socket, _peer) = pair();
        let (pool, mut packer) = (memory().0, Packer::new());
        let block = Block {
            piece: PieceIndex(0),
            begin: 0,
            length: BLOCK_BYTES,
        };
        for _ in 0..outbox::BLOCKS_MAX {
            assert!(socket.has_room());
            let send = Send::Block {
                block,
                buffer: BufferId(0),
                offset: 0,
                packed: None,
                encode: false,
            };
            socket.push(send, &pool, &mut packer, 0);
        }
        assert!(!socket.has_room());
        assert_eq!(socket.flush(&pool).unwrap(), outbox::BLOCKS_MAX as u32);
        assert!(socket.has_room());
    }

    #[test]
    fn the_handshake_comes_first_and_alone() {
        let (mut socket, mut peer) = fresh_pair();
        let (mut pool, mut scratch) = memory();
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
            socket.next(&mut pool, &mut scratch).unwrap(),
            Input::Handshake(handshake)
        );
        socket.expect_torrent(1);
        assert!(
            socket.is_readable(),
            "a message has been read along with the handshake"
        );
        assert_eq!(
            socket.next(&mut pool, &mut scratch).unwrap(),
            Input::Message(Message::Have(7))
        );
        assert_eq!(
            socket.next(&mut pool, &mut scratch).unwrap(),
            Input::Nothing
        );
        assert!(!socket.is_readable());
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
        let (mut pool, mut scratch) = memory();
        assert_eq!(
            conn.next(&mut pool, &mut scratch).unwrap(),
            Input::Message(Message::Have(7))
        );
    }

    #[test]
    fn an_invalid_message_ends_the_connection() {
        let end = |bytes: &[u8]| {
            let (mut socket, mut peer) = pair();
            let (mut pool, mut scratch) = memory();
            peer.write_all(bytes).unwrap();
            peer.shutdown(Shutdown::Write).unwrap();
            socket.hung_up = true;
            drain(&mut socket, &mut pool, &mut scratch)
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
        // Four bytes that are no LZ4 block, and LZ4 blocks of one byte too few and too many.
        let packed = |bytes: &[u8]| {
            let block = Block {
                piece: PieceIndex(1),
                begin: 0,
                length: 20,
            };
            let header = wire::packed_header(block, bytes.len() as u32, LZ_BLOCK_ID);
            end(&[&header, bytes].concat())
        };
        let wrong = "peer sent a block that is compressed wrongly";
        assert_eq!(packed(b"\xff\xff\xff\xff"), wrong);
        assert_eq!(packed(b"\x19a\x01\0\x50aaaaa"), wrong);
        assert_eq!(packed(b"\x1ba\x01\0\x50aaaaa"), wrong);
        assert_eq!(
            packed(b"\x1aa\x01\0\x50aaaaa"),
            "peer closed the connection"
        );
        assert_eq!(
            end(&[0, 1, 0, 0, 5]),
            "peer sent message 5 with a length of 65536, must be 2 to 9001"
        );
    }

    #[test]
    fn a_refused_connection_is_an_error() {
        let mut socket = PeerSocket::connect(closed_address()).unwrap();
        let outcome = loop {
            match socket.poll_open() {
                Ok(Opening::Pending) => {}
                outcome => break outcome,
            }
        };
        let Err(SocketError::Io(error)) = outcome else {
            panic!("nothing listens there")
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
