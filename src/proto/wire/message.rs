//! Which bytes do two peers exchange? The handshake, and the messages behind it.
//!
//! Read first: BEP 3 (peer protocol), BEP 6 (fast extension). What is inside an extension message
//! (BEP 10) is in `extension`.
//!
//! Every message is `length: u32, id: u8, body`, big-endian; a length of 0 is a keep-alive.
//! [`decode`] takes one message off the front of what has arrived. The payload of a `piece` never
//! comes here: `decode` consumes the 13 bytes of its header and tells how many bytes follow, and
//! the shell reads those straight into a pool buffer. So it is with a block that is compressed. The
//! length of every other message is checked against its bound as soon as length and id have
//! arrived, so a peer cannot make us wait for more, or store more.

use alloc::vec::Vec;
use core::fmt;
use core::ops::RangeInclusive;

use crate::format::bencode::BencodeError;
use crate::limits::{BLOCK_BYTES, EXTENDED_BYTES_MAX, MESSAGE_BYTES_MAX, UNKNOWN_BYTES_MAX};
use crate::units::{Block, InfoHash, PeerId};

/// The first bytes that each side sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The sender understands the messages of BEP 6.
    pub fast: bool,
    /// The sender understands the extension protocol of BEP 10.
    pub extended: bool,
    pub info_hash: InfoHash,
    pub peer_id: PeerId,
}

pub const HANDSHAKE_BYTES: usize = 68;

const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";

impl Handshake {
    pub fn encode(&self) -> [u8; HANDSHAKE_BYTES] {
        let mut bytes = [0; HANDSHAKE_BYTES];
        bytes[..20].copy_from_slice(PROTOCOL);
        bytes[25] = if self.extended { 0x10 } else { 0 };
        bytes[27] = if self.fast { 0x04 } else { 0 };
        bytes[28..48].copy_from_slice(&self.info_hash.0);
        bytes[48..].copy_from_slice(&self.peer_id.0);
        bytes
    }

    /// `None` until all of it has arrived. Another protocol is refused at the first byte that
    /// differs.
    pub fn parse(bytes: &[u8]) -> Result<Option<Handshake>, WireError> {
        let arrived = bytes.len().min(PROTOCOL.len());
        if bytes[..arrived] != PROTOCOL[..arrived] {
            return Err(WireError::NotBitTorrent);
        }
        let Some(bytes) = bytes.first_chunk::<HANDSHAKE_BYTES>() else {
            return Ok(None);
        };
        Ok(Some(Handshake {
            extended: bytes[25] & 0x10 != 0,
            fast: bytes[27] & 0x04 != 0,
            info_hash: InfoHash(array_at(bytes, 28)),
            peer_id: PeerId(array_at(bytes, 48)),
        }))
    }
}

/// A block as a peer named it. It becomes a [`Block`] only when it is checked against the layout of
/// the torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RawBlock {
    pub index: u32,
    pub begin: u32,
    pub length: u32,
}

impl From<Block> for RawBlock {
    fn from(block: Block) -> RawBlock {
        RawBlock {
            index: block.piece.0,
            begin: block.begin,
            length: block.length,
        }
    }
}

/// One message other than `piece`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    KeepAlive,
    Choke,
    Unchoke,
    Interested,
    NotInterested,
    Have(u32),
    /// At most as long as the torrent needs. The caller must check that it is exactly as long.
    Bitfield(Vec<u8>),
    Request(RawBlock),
    Cancel(RawBlock),
    /// The peer's DHT port (BEP 5), which we do not use.
    Port(u16),
    Suggest(u32),
    HaveAll,
    HaveNone,
    Reject(RawBlock),
    AllowedFast(u32),
    /// `id` is EXTENDED_HANDSHAKE_ID, or the id that we gave an extension in our own handshake
    /// (BEP 10).
    Extended {
        id: u8,
        payload: Vec<u8>,
    },
    /// A message with an id that we do not know. Its body has been skipped.
    Unknown(u8),
}

/// Message ids of BEP 3, 5, 6 and 10.
mod id {
    pub(super) const CHOKE: u8 = 0;
    pub(super) const UNCHOKE: u8 = 1;
    pub(super) const INTERESTED: u8 = 2;
    pub(super) const NOT_INTERESTED: u8 = 3;
    pub(super) const HAVE: u8 = 4;
    pub(super) const BITFIELD: u8 = 5;
    pub(super) const REQUEST: u8 = 6;
    pub(super) const PIECE: u8 = 7;
    pub(super) const CANCEL: u8 = 8;
    pub(super) const PORT: u8 = 9;
    pub(super) const SUGGEST: u8 = 13;
    pub(super) const HAVE_ALL: u8 = 14;
    pub(super) const HAVE_NONE: u8 = 15;
    pub(super) const REJECT: u8 = 16;
    pub(super) const ALLOWED_FAST: u8 = 17;
    pub(super) const EXTENDED: u8 = 20;
}

impl Message {
    /// Appends the message, length first. An `Unknown` is written without a body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Message::KeepAlive => out.extend_from_slice(&[0; LENGTH_BYTES]),
            Message::Choke => put(out, id::CHOKE, &[]),
            Message::Unchoke => put(out, id::UNCHOKE, &[]),
            Message::Interested => put(out, id::INTERESTED, &[]),
            Message::NotInterested => put(out, id::NOT_INTERESTED, &[]),
            Message::Have(index) => put(out, id::HAVE, &[&index.to_be_bytes()]),
            Message::Bitfield(bits) => put(out, id::BITFIELD, &[bits]),
            Message::Request(block) => put_block(out, id::REQUEST, block),
            Message::Cancel(block) => put_block(out, id::CANCEL, block),
            Message::Port(port) => put(out, id::PORT, &[&port.to_be_bytes()]),
            Message::Suggest(index) => put(out, id::SUGGEST, &[&index.to_be_bytes()]),
            Message::HaveAll => put(out, id::HAVE_ALL, &[]),
            Message::HaveNone => put(out, id::HAVE_NONE, &[]),
            Message::Reject(block) => put_block(out, id::REJECT, block),
            Message::AllowedFast(index) => put(out, id::ALLOWED_FAST, &[&index.to_be_bytes()]),
            Message::Extended { id, payload } => {
                assert!(payload.len() + 2 <= EXTENDED_BYTES_MAX as usize);
                put(out, id::EXTENDED, &[&[*id], payload]);
            }
            Message::Unknown(id) => put(out, *id, &[]),
        }
    }
}

fn put(out: &mut Vec<u8>, id: u8, body: &[&[u8]]) {
    let length: usize = 1 + body.iter().map(|part| part.len()).sum::<usize>();
    let length = u32::try_from(length).expect("a message is short");
    assert!(length <= MESSAGE_BYTES_MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.push(id);
    body.iter().for_each(|part| out.extend_from_slice(part));
}

fn put_block(out: &mut Vec<u8>, id: u8, block: &RawBlock) {
    put(
        out,
        id,
        &[
            &block.index.to_be_bytes(),
            &block.begin.to_be_bytes(),
            &block.length.to_be_bytes(),
        ],
    );
}

/// The header of an outgoing `piece`. The shell sends the payload after it, from a pool buffer.
pub fn piece_header(block: Block) -> [u8; PIECE_HEADER_BYTES] {
    assert!(block.length > 0);
    assert!(block.length <= BLOCK_BYTES);
    let mut bytes = [0; PIECE_HEADER_BYTES];
    bytes[..4].copy_from_slice(&(PIECE_LENGTH_BASE + block.length).to_be_bytes());
    bytes[4] = id::PIECE;
    bytes[5..9].copy_from_slice(&block.piece.0.to_be_bytes());
    bytes[9..].copy_from_slice(&block.begin.to_be_bytes());
    bytes
}

/// The header of an outgoing block that is compressed to `packed_bytes`, which the shell sends
/// after it. `id` is what the peer calls `lz_block`.
pub fn packed_header(block: Block, packed_bytes: u32, id: u8) -> [u8; PACKED_HEADER_BYTES] {
    assert!(packed_bytes < block.length);
    assert!(block.length <= BLOCK_BYTES);
    let mut bytes = [0; PACKED_HEADER_BYTES];
    bytes[..4].copy_from_slice(&(PACKED_LENGTH_BASE + packed_bytes).to_be_bytes());
    (bytes[4], bytes[5]) = (id::EXTENDED, id);
    let RawBlock {
        index,
        begin,
        length,
    } = block.into();
    for (place, number) in bytes[6..].chunks_mut(4).zip([index, begin, length]) {
        place.copy_from_slice(&number.to_be_bytes());
    }
    bytes
}

/// The id of the extension message in which peers send us blocks that are compressed. Those of
/// other messages are in `extension`.
pub const LZ_BLOCK_ID: u8 = 3;

/// Length, both ids, index, begin and length of a compressed block.
pub(crate) const PACKED_HEADER_BYTES: usize = 18;

/// Bytes that the length of its message counts besides its payload.
const PACKED_LENGTH_BASE: u32 = 14;

/// Length, id, index and begin of a `piece`.
pub(crate) const PIECE_HEADER_BYTES: usize = 13;

/// Bytes that the length of a `piece` counts besides its payload: id, index and begin.
const PIECE_LENGTH_BASE: u32 = 9;

const LENGTH_BYTES: usize = 4;

/// What [`decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Message(Message),
    /// The header of a `piece`. Its payload of `length` bytes, 1 to BLOCK_BYTES, follows the
    /// consumed bytes.
    Piece(RawBlock),
    /// The header of a block that is compressed to this many bytes, fewer than the block has. They
    /// follow the consumed bytes.
    Packed(RawBlock, u32),
}

/// Takes one frame off the front of `bytes`, and returns it with the number of bytes it took.
/// `None` if more bytes are needed; [`bytes_needed`] gives their number. `bitfield_bytes_max` is
/// the size of a bitfield of this torrent.
pub fn decode(
    bytes: &[u8],
    bitfield_bytes_max: usize,
) -> Result<Option<(Frame, usize)>, WireError> {
    let consumed = bytes_needed(bytes, bitfield_bytes_max)?;
    let Some(frame) = bytes.get(..consumed) else {
        return Ok(None);
    };
    let Some((&id, body)) = frame[LENGTH_BYTES..].split_first() else {
        return Ok(Some((Frame::Message(Message::KeepAlive), consumed)));
    };
    // bytes_needed has checked the size of the body.
    let message = match id {
        id::CHOKE => Message::Choke,
        id::UNCHOKE => Message::Unchoke,
        id::INTERESTED => Message::Interested,
        id::NOT_INTERESTED => Message::NotInterested,
        id::HAVE => Message::Have(u32_at(body, 0)),
        id::BITFIELD => Message::Bitfield(body.to_vec()),
        id::REQUEST => Message::Request(block_in(body)),
        id::PIECE => {
            let length = u32_at(frame, 0) - PIECE_LENGTH_BASE;
            let block = RawBlock {
                index: u32_at(body, 0),
                begin: u32_at(body, 4),
                length,
            };
            return Ok(Some((Frame::Piece(block), consumed)));
        }
        id::CANCEL => Message::Cancel(block_in(body)),
        id::PORT => Message::Port(u16::from_be_bytes(array_at(body, 0))),
        id::SUGGEST => Message::Suggest(u32_at(body, 0)),
        id::HAVE_ALL => Message::HaveAll,
        id::HAVE_NONE => Message::HaveNone,
        id::REJECT => Message::Reject(block_in(body)),
        id::ALLOWED_FAST => Message::AllowedFast(u32_at(body, 0)),
        id::EXTENDED if body[0] == LZ_BLOCK_ID => {
            let block = block_in(&body[1..]);
            let packed_bytes = u32_at(frame, 0) - PACKED_LENGTH_BASE;
            return Ok(Some((Frame::Packed(block, packed_bytes), consumed)));
        }
        id::EXTENDED => Message::Extended {
            id: body[0],
            payload: body[1..].to_vec(),
        },
        unknown => Message::Unknown(unknown),
    };
    Ok(Some((Frame::Message(message), consumed)))
}

/// Length that `bytes` must have before [`decode`] gives a frame, as far as it is known: 4 at
/// first, then 5 or 6, then the size of the frame (if payload follows, the size of its header). It
/// is never more than [`frame_bytes_max`].
pub fn bytes_needed(bytes: &[u8], bitfield_bytes_max: usize) -> Result<usize, WireError> {
    if bytes.len() < LENGTH_BYTES {
        return Ok(LENGTH_BYTES);
    }
    let length = u32_at(bytes, 0);
    if length == 0 {
        return Ok(LENGTH_BYTES);
    }
    let Some(&id) = bytes.get(LENGTH_BYTES) else {
        return Ok(LENGTH_BYTES + 1);
    };
    check_length(id, length, lengths(id, bitfield_bytes_max))?;
    let extension = bytes.get(LENGTH_BYTES + 1).filter(|_| id == id::EXTENDED);
    let packed = extension == Some(&LZ_BLOCK_ID);
    if packed {
        let bytes_max = PACKED_LENGTH_BASE + BLOCK_BYTES - 1;
        check_length(id, length, PACKED_LENGTH_BASE + 1..=bytes_max)?;
    }
    Ok(match id {
        id::PIECE => PIECE_HEADER_BYTES,
        // Which extension it is decides what follows.
        id::EXTENDED if extension.is_none() => LENGTH_BYTES + 2,
        _ if packed => {
            let header = bytes.get(..PACKED_HEADER_BYTES);
            let block = header.map(|header| block_in(&header[LENGTH_BYTES + 2..]));
            let packed_bytes = length - PACKED_LENGTH_BASE;
            let fits = |block: RawBlock| (packed_bytes + 1..=BLOCK_BYTES).contains(&block.length);
            if !block.is_none_or(fits) {
                return Err(WireError::Packed);
            }
            PACKED_HEADER_BYTES
        }
        _ => LENGTH_BYTES + length as usize,
    })
}

fn check_length(id: u8, length: u32, allowed: RangeInclusive<u32>) -> Result<(), WireError> {
    if allowed.contains(&length) {
        return Ok(());
    }
    Err(WireError::Length {
        id,
        length,
        min: *allowed.start(),
        max: *allowed.end(),
    })
}

/// The most that [`bytes_needed`] ever asks for. Tests hold the receive buffer of a peer to it.
pub fn frame_bytes_max(bitfield_bytes_max: usize) -> usize {
    let length = (1 + bitfield_bytes_max)
        .max(EXTENDED_BYTES_MAX as usize)
        .max(UNKNOWN_BYTES_MAX as usize);
    LENGTH_BYTES + length
}

/// The lengths (of id and body) that a message may have.
fn lengths(id: u8, bitfield_bytes_max: usize) -> RangeInclusive<u32> {
    assert!(bitfield_bytes_max > 0);
    let bitfield_bytes_max = u32::try_from(bitfield_bytes_max).expect("a bit a piece");
    assert!(bitfield_bytes_max < MESSAGE_BYTES_MAX);
    match id {
        id::CHOKE
        | id::UNCHOKE
        | id::INTERESTED
        | id::NOT_INTERESTED
        | id::HAVE_ALL
        | id::HAVE_NONE => 1..=1,
        id::HAVE | id::SUGGEST | id::ALLOWED_FAST => 5..=5,
        id::BITFIELD => 2..=1 + bitfield_bytes_max,
        id::REQUEST | id::CANCEL | id::REJECT => 13..=13,
        id::PIECE => PIECE_LENGTH_BASE + 1..=PIECE_LENGTH_BASE + BLOCK_BYTES,
        id::PORT => 3..=3,
        id::EXTENDED => 2..=EXTENDED_BYTES_MAX,
        _ => 1..=UNKNOWN_BYTES_MAX,
    }
}

fn block_in(body: &[u8]) -> RawBlock {
    RawBlock {
        index: u32_at(body, 0),
        begin: u32_at(body, 4),
        length: u32_at(body, 8),
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_be_bytes(array_at(bytes, offset))
}

/// The `N` bytes at `offset`, which the caller has made sure of.
fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[offset..offset + N]);
    array
}

/// Why a peer's bytes are not the peer protocol. The connection is always closed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    NotBitTorrent,
    Length {
        id: u8,
        length: u32,
        min: u32,
        max: u32,
    },
    Extended(BencodeError),
    ExtendedNotADict,
    /// A block that is not shorter than it was, or is not compressed at all.
    Packed,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::NotBitTorrent => {
                f.write_str("peer does not begin with a BitTorrent handshake")
            }
            WireError::Length {
                id,
                length,
                min,
                max,
            } if min == max => {
                write!(
                    f,
                    "peer sent message {id} with a length of {length}, must be {max}"
                )
            }
            WireError::Length {
                id,
                length,
                min,
                max,
            } => {
                write!(
                    f,
                    "peer sent message {id} with a length of {length}, must be {min} to {max}"
                )
            }
            WireError::Extended(error) => write!(f, "peer sent a bad extension message: {error}"),
            WireError::ExtendedNotADict => {
                f.write_str("peer sent an extension message that is not a dictionary")
            }
            WireError::Packed => f.write_str("peer sent a block that is compressed wrongly"),
        }
    }
}

impl core::error::Error for WireError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::units::PieceIndex;
    use std::string::ToString;
    use std::vec;

    /// The bitfields in these tests belong to torrents of 17 to 24 pieces.
    const BITFIELD_BYTES: usize = 3;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text
            .bytes()
            .filter(|byte| !byte.is_ascii_whitespace())
            .collect();
        assert!(digits.len().is_multiple_of(2));
        let digit = |byte: u8| (byte as char).to_digit(16).unwrap() as u8;
        digits
            .chunks(2)
            .map(|pair| digit(pair[0]) * 16 + digit(pair[1]))
            .collect()
    }

    #[test]
    fn handshake_both_ways_and_cut_short() {
        let bytes = hex("13 426974546f7272656e742070726f746f636f6c 0000000000100004
             000102030405060708090a0b0c0d0e0f10111213 2d5344303130302d6162636465666768696a6b6c");
        let handshake = Handshake {
            fast: true,
            extended: true,
            info_hash: "000102030405060708090a0b0c0d0e0f10111213".parse().unwrap(),
            peer_id: PeerId(*b"-SD0100-abcdefghijkl"),
        };
        assert_eq!(handshake.encode().to_vec(), bytes);
        assert_eq!(Handshake::parse(&bytes), Ok(Some(handshake)));
        for cut in 0..bytes.len() {
            assert_eq!(Handshake::parse(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
        let mut longer = bytes.clone();
        longer.extend_from_slice(&hex("00000001 0f"));
        assert_eq!(Handshake::parse(&longer), Ok(Some(handshake)));
    }

    #[test]
    fn handshake_bits_are_independent() {
        for (fast, extended) in [(false, false), (false, true), (true, false)] {
            let handshake = Handshake {
                fast,
                extended,
                info_hash: InfoHash([7; 20]),
                peer_id: PeerId([9; 20]),
            };
            assert_eq!(Handshake::parse(&handshake.encode()), Ok(Some(handshake)));
        }
        // The bits of other extensions (DHT, version 2, …) do not matter.
        let mut bytes = [0xff; HANDSHAKE_BYTES];
        bytes[..20].copy_from_slice(PROTOCOL);
        let handshake = Handshake::parse(&bytes).unwrap().unwrap();
        assert!(handshake.fast && handshake.extended);
    }

    #[test]
    fn handshake_of_another_protocol_is_refused_at_once() {
        assert_eq!(Handshake::parse(b"G"), Err(WireError::NotBitTorrent));
        assert_eq!(
            Handshake::parse(b"GET / HTTP/1.1\r\n\r\n"),
            Err(WireError::NotBitTorrent)
        );
        assert_eq!(
            Handshake::parse(b"\x13BitTorrent Protocol"),
            Err(WireError::NotBitTorrent)
        );
    }

    /// Every message except `piece`, and its bytes on the wire.
    fn vectors() -> Vec<(Message, &'static str)> {
        let block = RawBlock {
            index: 1,
            begin: 0x8000,
            length: 0x4000,
        };
        vec![
            (Message::KeepAlive, "00000000"),
            (Message::Choke, "00000001 00"),
            (Message::Unchoke, "00000001 01"),
            (Message::Interested, "00000001 02"),
            (Message::NotInterested, "00000001 03"),
            (Message::Have(0x01020304), "00000005 04 01020304"),
            (
                Message::Bitfield(vec![0xff, 0x80, 0x01]),
                "00000004 05 ff8001",
            ),
            (Message::Bitfield(vec![0xff]), "00000002 05 ff"),
            (
                Message::Request(block),
                "0000000d 06 00000001 00008000 00004000",
            ),
            (
                Message::Cancel(block),
                "0000000d 08 00000001 00008000 00004000",
            ),
            (Message::Port(6881), "00000003 09 1ae1"),
            (Message::Suggest(7), "00000005 0d 00000007"),
            (Message::HaveAll, "00000001 0e"),
            (Message::HaveNone, "00000001 0f"),
            (
                Message::Reject(block),
                "0000000d 10 00000001 00008000 00004000",
            ),
            (Message::AllowedFast(0xffff_ffff), "00000005 11 ffffffff"),
            (
                Message::Extended {
                    id: 0,
                    payload: b"de".to_vec(),
                },
                "00000004 14 00 6465",
            ),
            (
                Message::Extended {
                    id: 4,
                    payload: vec![],
                },
                "00000002 14 04",
            ),
            (Message::Unknown(21), "00000001 15"),
        ]
    }

    #[test]
    fn every_message_both_ways_and_cut_short() {
        for (message, text) in vectors() {
            let bytes = hex(text);
            let mut encoded = vec![];
            message.encode(&mut encoded);
            assert_eq!(encoded, bytes, "{message:?}");

            let mut stream = bytes.clone();
            stream.extend_from_slice(&hex("00000001 0f"));
            let expected = Ok(Some((Frame::Message(message.clone()), bytes.len())));
            assert_eq!(decode(&bytes, BITFIELD_BYTES), expected);
            assert_eq!(decode(&stream, BITFIELD_BYTES), expected);
            for cut in 0..bytes.len() {
                assert_eq!(
                    decode(&bytes[..cut], BITFIELD_BYTES),
                    Ok(None),
                    "{message:?} cut at {cut}"
                );
                let needed = bytes_needed(&bytes[..cut], BITFIELD_BYTES).unwrap();
                assert!(
                    needed > cut && needed <= bytes.len(),
                    "{message:?} cut at {cut} needs {needed}"
                );
            }
        }
    }

    #[test]
    fn piece_is_consumed_up_to_its_payload() {
        let block = Block {
            piece: PieceIndex(258),
            begin: 0x4000,
            length: 0x4000,
        };
        let bytes = hex("00004009 07 00000102 00004000");
        assert_eq!(piece_header(block).to_vec(), bytes);
        let expected = Ok(Some((Frame::Piece(block.into()), PIECE_HEADER_BYTES)));
        assert_eq!(decode(&bytes, BITFIELD_BYTES), expected);
        let mut stream = bytes.clone();
        stream.resize(40_000, 0xaa);
        assert_eq!(decode(&stream, BITFIELD_BYTES), expected);
        for cut in 0..bytes.len() {
            assert_eq!(
                decode(&bytes[..cut], BITFIELD_BYTES),
                Ok(None),
                "cut at {cut}"
            );
        }
        assert_eq!(bytes_needed(&bytes[..5], BITFIELD_BYTES), Ok(13));

        let one = RawBlock {
            index: 0,
            begin: 0,
            length: 1,
        };
        let bytes = hex("0000000a 07 00000000 00000000");
        assert_eq!(
            decode(&bytes, BITFIELD_BYTES),
            Ok(Some((Frame::Piece(one), 13)))
        );
    }

    #[test]
    fn a_compressed_block_is_consumed_up_to_its_payload() {
        let block = Block {
            piece: PieceIndex(258),
            begin: 0x4000,
            length: 0x4000,
        };
        let bytes = hex("0000010e 14 03 00000102 00004000 00004000");
        assert_eq!(packed_header(block, 256, LZ_BLOCK_ID).to_vec(), bytes);
        assert_eq!(packed_header(block, 256, 9)[5], 9);
        let expected = Ok(Some((Frame::Packed(block.into(), 256), bytes.len())));
        let mut stream = bytes.clone();
        stream.resize(40_000, 0xaa);
        assert_eq!(decode(&bytes, BITFIELD_BYTES), expected);
        assert_eq!(decode(&stream, BITFIELD_BYTES), expected);
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut], BITFIELD_BYTES), Ok(None));
            let needed = bytes_needed(&bytes[..cut], BITFIELD_BYTES).unwrap();
            assert!(needed > cut && needed <= bytes.len(), "cut at {cut}");
        }
        // No payload, as much as a block, as much as the block that it names, more than a block.
        for (text, wrong) in [
            ("0000000e 14 03", None),
            ("0000400e 14 03", None),
            (
                "0000010e 14 03 00000102 00004000 00000100",
                Some(WireError::Packed),
            ),
            (
                "0000010e 14 03 00000102 00004000 00004001",
                Some(WireError::Packed),
            ),
        ] {
            let error = decode(&hex(text), BITFIELD_BYTES).unwrap_err();
            match wrong {
                Some(wrong) => assert_eq!(error, wrong),
                None => assert!(matches!(error, WireError::Length { .. }), "{text}"),
            }
        }
    }

    #[test]
    fn unknown_messages_are_skipped_whole() {
        let mut bytes = hex("00000008 15 01020304050607");
        bytes.extend_from_slice(&hex("00000001 01"));
        assert_eq!(
            decode(&bytes, BITFIELD_BYTES),
            Ok(Some((Frame::Message(Message::Unknown(21)), 12)))
        );
        assert_eq!(decode(&bytes[..11], BITFIELD_BYTES), Ok(None));
    }

    #[test]
    fn lengths_out_of_bounds_are_refused_by_length_and_id_alone() {
        let cases = [
            // Fixed sizes: one less, one more.
            "00000002 00",
            "00000002 01",
            "00000002 02",
            "00000002 03",
            "00000004 04",
            "00000006 04",
            "00000001 05",
            "00000005 05",
            "ffffffff 05",
            "0000000c 06",
            "0000000e 06",
            "0000000c 08",
            "0000000e 08",
            "00000002 09",
            "00000004 09",
            "00000004 0d",
            "00000006 0d",
            "00000002 0e",
            "00000002 0f",
            "0000000c 10",
            "0000000e 10",
            "00000004 11",
            "00000006 11",
            // Pieces of no bytes, and of one more than a block.
            "00000008 07",
            "00000009 07",
            "0000400a 07",
            "00010009 07",
            // Extended without its id, and too long; unknown and too long.
            "00000001 14",
            "00010001 14",
            "00010001 15",
            "ffffffff ff",
            // Another protocol altogether: "HTTP/".
            "48545450 2f",
        ];
        for text in cases {
            let bytes = hex(text);
            let result = decode(&bytes, BITFIELD_BYTES);
            assert!(
                matches!(result, Err(WireError::Length { .. })),
                "{text}: {result:?}"
            );
        }
        let long = decode(&hex("00000006 04"), BITFIELD_BYTES).unwrap_err();
        assert_eq!(
            long.to_string(),
            "peer sent message 4 with a length of 6, must be 5"
        );
        let long = decode(&hex("00010009 07"), BITFIELD_BYTES).unwrap_err();
        assert_eq!(
            long.to_string(),
            "peer sent message 7 with a length of 65545, must be 10 to 16393"
        );
    }

    #[test]
    fn longest_allowed_messages_are_taken() {
        for (header, length) in [
            ("00000004 05", 4),
            ("00010000 14 00", 65536),
            ("00010000 15", 65536),
        ] {
            let mut bytes = hex(header);
            assert_eq!(bytes_needed(&bytes, BITFIELD_BYTES), Ok(4 + length));
            assert!(4 + length <= frame_bytes_max(BITFIELD_BYTES));
            bytes.resize(4 + length, 0);
            let decoded = decode(&bytes, BITFIELD_BYTES).unwrap();
            assert_eq!(decoded.map(|(_, consumed)| consumed), Some(4 + length));
        }
        assert_eq!(frame_bytes_max(500_000), 500_005);
    }

    /// Random bytes never cause a panic. No more bytes are consumed than have arrived, and no more
    /// are asked for than the bound.
    #[test]
    fn random_bytes_keep_to_the_bounds() {
        let mut rng = Rng::new(0x5eed);
        for _ in 0..100_000 {
            let mut bytes: Vec<u8> = (0..rng.below(40)).map(|_| rng.below(256) as u8).collect();
            // Most lengths would be absurd; make three of four small.
            if rng.chance(3, 4) && bytes.len() > 4 {
                bytes[..3].fill(0);
                bytes[4] %= 24;
            }
            let needed = bytes_needed(&bytes, BITFIELD_BYTES);
            match decode(&bytes, BITFIELD_BYTES) {
                Ok(Some((_, consumed))) => {
                    assert!(consumed <= bytes.len() && needed == Ok(consumed))
                }
                Ok(None) => {
                    let needed = needed.unwrap();
                    assert!(needed > bytes.len() && needed <= frame_bytes_max(BITFIELD_BYTES));
                }
                Err(error) => assert_eq!(needed, Err(error)),
            }
            let _ = Handshake::parse(&bytes); // only that it returns
        }
    }
}
