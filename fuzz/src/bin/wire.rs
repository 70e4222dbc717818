//! Are the messages of a peer the same in whatever parts they arrive?
//!
//! Holds: frames and the error at the end do not depend on the cuts; nothing longer than the bound
//! is waited for; what was decoded is encoded to the same bytes; the handshakes of BEP 3 and BEP 10
//! and peer exchange are written and read as the same. Input: bytes of a bitfield, number of cuts,
//! the lengths between them, the bytes of the peer.
#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use swarm_proto::units::{Block, PieceIndex};
use swarm_proto::wire::extension::{ExtendedHandshake, Pex};
use swarm_proto::wire::message::{
    self, Frame, HANDSHAKE_BYTES, Handshake, LZ_BLOCK_ID, Message, WireError,
};
use swarmdd_fuzz::{Input, cut};

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let bitfield_bytes = 1 + usize::from(input.u8());
    let cuts = input.choose(16);
    let (lengths, stream) = (input.take(cuts), input.rest());
    check_handshake(stream);
    let whole = receive(bitfield_bytes, [stream]);
    assert_eq!(whole, receive(bitfield_bytes, cut(stream, lengths)));
    assert_eq!(whole, receive(bitfield_bytes, cut(stream, &[1])));
});

/// The frames of a stream, how many bytes were left, and why it was refused.
type Received = (Vec<Frame>, Result<usize, WireError>);

/// Reads as a connection does: never more of a frame than it asks for, and payload in its place.
fn receive<'a>(bitfield_bytes: usize, parts: impl IntoIterator<Item = &'a [u8]>) -> Received {
    let (mut inbox, mut frames, mut payload) = (Vec::new(), Vec::new(), 0);
    for part in parts {
        inbox.extend_from_slice(part);
        loop {
            let skipped = inbox.len().min(payload);
            inbox.drain(..skipped);
            payload -= skipped;
            if payload > 0 {
                break;
            }
            let decoded = message::decode(&inbox, bitfield_bytes);
            let needed = match message::bytes_needed(&inbox, bitfield_bytes) {
                Ok(needed) => needed,
                Err(error) => {
                    assert_eq!(decoded, Err(error));
                    return (frames, Err(error));
                }
            };
            assert!(needed <= message::frame_bytes_max(bitfield_bytes));
            let Some((frame, length)) = decoded.expect("as `bytes_needed`") else {
                assert!(needed > inbox.len());
                break;
            };
            assert_eq!(length, needed);
            payload = check_frame(&frame, &inbox[..length]);
            inbox.drain(..length);
            frames.push(frame);
        }
    }
    (frames, Ok(inbox.len() + payload))
}

/// Encodes the frame again. Returns how many bytes of payload follow it.
fn check_frame(frame: &Frame, bytes: &[u8]) -> usize {
    match frame {
        Frame::Piece(raw) => {
            let block = Block {
                piece: PieceIndex(raw.index),
                begin: raw.begin,
                length: raw.length,
            };
            assert_eq!(message::piece_header(block), *bytes);
            return raw.length as usize;
        }
        Frame::Packed(raw, packed_bytes) => {
            let block = Block {
                piece: PieceIndex(raw.index),
                begin: raw.begin,
                length: raw.length,
            };
            let header = message::packed_header(block, *packed_bytes, LZ_BLOCK_ID);
            assert_eq!(header, *bytes);
            return *packed_bytes as usize;
        }
        // Its body was skipped.
        Frame::Message(Message::Unknown(id)) => assert_eq!(bytes[4], *id),
        Frame::Message(message) => {
            let mut encoded = Vec::new();
            message.encode(&mut encoded);
            assert_eq!(encoded, bytes);
            if let Message::Extended { payload, .. } = message {
                check_extended(payload);
            }
        }
    }
    0
}

fn check_handshake(stream: &[u8]) {
    let Ok(Some(handshake)) = Handshake::parse(stream) else {
        return;
    };
    for length in 0..HANDSHAKE_BYTES {
        assert_eq!(Handshake::parse(&stream[..length]), Ok(None));
    }
    assert_eq!(Handshake::parse(&handshake.encode()), Ok(Some(handshake)));
}

fn check_extended(payload: &[u8]) {
    if let Ok(handshake) = ExtendedHandshake::parse(payload) {
        assert_eq!(ExtendedHandshake::parse(&handshake.encode()), Ok(handshake));
    }
    if let Ok(mut pex) = Pex::parse(payload) {
        // IPv4 and IPv6 addresses are in strings of their own.
        pex.added.sort_by_key(SocketAddr::is_ipv6);
        pex.dropped.sort_by_key(SocketAddr::is_ipv6);
        assert_eq!(Pex::parse(&pex.encode()), Ok(pex));
    }
}
