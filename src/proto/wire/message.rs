//! Which bytes two peers exchange: the handshake, the messages behind it, and the extension
//! messages inside those.
//!
//! Read first: BEP 3 (peer protocol), BEP 6 (fast extension), BEP 10 (extension protocol), BEP 11
//! (peer exchange).
//!
//! Every message is `length: u32, id: u8, body`, big-endian; a length of 0 is a keep-alive.
//! [`decode`] takes one off the front of what has arrived. The payload of a `piece` never comes
//! here: `decode` consumes its 13 bytes of header and tells how many bytes follow, and the shell
//! reads those straight into a pool buffer. The length of everything else is checked against its
//! bound as soon as length and id are there, so nobody makes us wait for, or store, more than that.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;
use core::ops::RangeInclusive;

use crate::format::bencode::{self, BencodeError, Dict, put_bytes, put_integer};
use crate::limits::{
    BLOCK_BYTES, EXTENDED_BYTES_MAX, MESSAGE_BYTES_MAX, PEX_PEER_COUNT_MAX, TEXT_BYTES_MAX,
    UNKNOWN_BYTES_MAX,
};
use crate::text;
use crate::units::{Block, InfoHash, PeerId};
use crate::wire::compact;

/// What each side sends first, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Understands the messages of BEP 6.
    pub fast: bool,
    /// Understands the extension protocol of BEP 10.
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

    /// `None`: not all of it has arrived. Whoever speaks something else is refused at the first
    /// byte that differs.
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

/// A block as a peer named it. It becomes a [`Block`] only by being checked against the layout of
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
    /// Not longer than asked for; whether it is exactly as long as the torrent needs is for the
    /// caller to see.
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
    /// `id` is EXTENDED_HANDSHAKE_ID, or what we called an extension in our own handshake (BEP 10).
    Extended {
        id: u8,
        payload: Vec<u8>,
    },
    /// A message of some other extension; its body has been skipped.
    Unknown(u8),
}

/// Message ids of BEP 3, 5, 6 and 10.
mod id {
    pub const CHOKE: u8 = 0;
    pub const UNCHOKE: u8 = 1;
    pub const INTERESTED: u8 = 2;
    pub const NOT_INTERESTED: u8 = 3;
    pub const HAVE: u8 = 4;
    pub const BITFIELD: u8 = 5;
    pub const REQUEST: u8 = 6;
    pub const PIECE: u8 = 7;
    pub const CANCEL: u8 = 8;
    pub const PORT: u8 = 9;
    pub const SUGGEST: u8 = 13;
    pub const HAVE_ALL: u8 = 14;
    pub const HAVE_NONE: u8 = 15;
    pub const REJECT: u8 = 16;
    pub const ALLOWED_FAST: u8 = 17;
    pub const EXTENDED: u8 = 20;
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
    assert!(length <= MESSAGE_BYTES_MAX as usize);
    out.extend_from_slice(&(length as u32).to_be_bytes());
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

/// What stands before the payload of an outgoing `piece`; the shell sends the payload itself from a
/// pool buffer.
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

/// Length, id, index and begin of a `piece`.
pub const PIECE_HEADER_BYTES: usize = 13;

/// What the length of a `piece` counts besides its payload: id, index and begin.
const PIECE_LENGTH_BASE: u32 = 9;

const LENGTH_BYTES: usize = 4;

/// What [`decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Message(Message),
    /// The header of a `piece`; its payload of `length` bytes, 1 to BLOCK_BYTES, follows what was
    /// consumed.
    Piece(RawBlock),
}

/// Takes one frame off the front of `bytes`; the number is how many bytes it took. `None`: more
/// bytes are needed, how many in all says [`bytes_needed`]. `bitfield_bytes_max` is the size of a
/// bitfield of this torrent.
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
    // The size of every body has been checked by bytes_needed.
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
        id::EXTENDED => Message::Extended {
            id: body[0],
            payload: body[1..].to_vec(),
        },
        unknown => Message::Unknown(unknown),
    };
    Ok(Some((Frame::Message(message), consumed)))
}

/// How many bytes, from the first of `bytes`, must be there before [`decode`] gives a frame or
/// knows more: 4 at first, then 5, then the frame's size (for a `piece` that of its header). Never
/// more than [`frame_bytes_max`].
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
    let allowed = lengths(id, bitfield_bytes_max);
    if !allowed.contains(&length) {
        return Err(WireError::Length {
            id,
            length,
            min: *allowed.start(),
            max: *allowed.end(),
        });
    }
    Ok(if id == id::PIECE {
        PIECE_HEADER_BYTES
    } else {
        LENGTH_BYTES + length as usize
    })
}

/// The most [`bytes_needed`] ever asks for: what a peer's receive buffer must be able to grow to.
pub fn frame_bytes_max(bitfield_bytes_max: usize) -> usize {
    let length = (1 + bitfield_bytes_max)
        .max(EXTENDED_BYTES_MAX as usize)
        .max(UNKNOWN_BYTES_MAX as usize);
    LENGTH_BYTES + length
}

/// Which lengths (id and body) a message may have.
fn lengths(id: u8, bitfield_bytes_max: usize) -> RangeInclusive<u32> {
    assert!(bitfield_bytes_max > 0);
    assert!(bitfield_bytes_max < MESSAGE_BYTES_MAX as usize);
    match id {
        id::CHOKE
        | id::UNCHOKE
        | id::INTERESTED
        | id::NOT_INTERESTED
        | id::HAVE_ALL
        | id::HAVE_NONE => 1..=1,
        id::HAVE | id::SUGGEST | id::ALLOWED_FAST => 5..=5,
        id::BITFIELD => 2..=1 + bitfield_bytes_max as u32,
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

/// The `N` bytes at `offset`, which the caller knows are there.
fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[offset..offset + N]);
    array
}

/// What each side may tell once the handshake is done: its extensions and a little about itself
/// (BEP 10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtendedHandshake {
    /// The id by which the sender wants to hear that a piece is lost again (BEP 54).
    pub dont_have: Option<u8>,
    /// The id by which the sender wants PEX messages to be sent to it; none if it wants none.
    pub ut_pex: Option<u8>,
    /// How many requests the sender keeps before it drops some.
    pub reqq: Option<u32>,
    /// Name and version of the client, printable.
    pub client: Option<String>,
    pub listen_port: Option<u16>,
    /// The sender wants nothing: it is a seed, or nothing it lacks is selected (BEP 21).
    pub upload_only: bool,
    /// The sender suggests (BEP 6) what to ask it for, and wants to be asked for nothing else; our
    /// own entry.
    pub offers: bool,
}

/// The id under which we want to hear that a piece is lost again: four bytes, the piece (BEP 54).
pub const DONT_HAVE_ID: u8 = 1;

/// The extended message id of an [`ExtendedHandshake`].
pub const EXTENDED_HANDSHAKE_ID: u8 = 0;

impl ExtendedHandshake {
    /// The payload of the message.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::from(b"d");
        if self.offers {
            put_entry(&mut out, "deals", 1);
        }
        out.extend_from_slice(b"1:md");
        if let Some(id) = self.dont_have {
            put_entry(&mut out, "lt_donthave", i64::from(id));
        }
        if let Some(id) = self.ut_pex {
            put_entry(&mut out, "ut_pex", i64::from(id));
        }
        out.push(b'e');
        if let Some(port) = self.listen_port {
            put_entry(&mut out, "p", i64::from(port));
        }
        if let Some(reqq) = self.reqq {
            put_entry(&mut out, "reqq", i64::from(reqq));
        }
        put_entry(&mut out, "upload_only", i64::from(self.upload_only));
        if let Some(client) = &self.client {
            put_bytes(&mut out, b"v");
            put_bytes(&mut out, client.as_bytes());
        }
        out.push(b'e');
        out
    }

    /// Takes what it knows; an entry of another type or out of range counts as absent.
    pub fn parse(payload: &[u8]) -> Result<ExtendedHandshake, WireError> {
        let dict = dict_in(payload)?;
        let integer = |key: &str| dict.get(key.as_bytes())?.as_integer();
        let extensions = dict.get(b"m").and_then(|value| value.as_dict());
        let extension = |name: &[u8]| positive(extensions?.get(name)?.as_integer()?);
        let client = dict.get(b"v").and_then(|value| value.as_bytes());
        Ok(ExtendedHandshake {
            dont_have: extension(b"lt_donthave"),
            ut_pex: extension(b"ut_pex"),
            reqq: integer("reqq").and_then(positive),
            client: client.map(|client| text::printable(client, TEXT_BYTES_MAX)),
            listen_port: integer("p").and_then(positive),
            upload_only: integer("upload_only").is_some_and(|value| value != 0),
            offers: integer("deals").is_some_and(|value| value != 0),
        })
    }
}

/// Who joined and who left, as one peer tells another (BEP 11).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pex {
    pub added: Vec<SocketAddr>,
    pub dropped: Vec<SocketAddr>,
}

impl Pex {
    /// The payload of the message.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.added.len() <= PEX_PEER_COUNT_MAX);
        assert!(self.dropped.len() <= PEX_PEER_COUNT_MAX);
        let (added, added6) = compact::pack(&self.added);
        let (dropped, dropped6) = compact::pack(&self.dropped);
        let mut out = Vec::from(b"d");
        // One byte of flags for each address added. We claim nothing by them, but libtorrent
        // ignores addresses without.
        let strings = [
            ("added", &added),
            ("added.f", &alloc::vec![0; added.len() / 6]),
            ("added6", &added6),
            ("added6.f", &alloc::vec![0; added6.len() / 18]),
            ("dropped", &dropped),
            ("dropped6", &dropped6),
        ];
        for (key, string) in strings {
            put_bytes(&mut out, key.as_bytes());
            put_bytes(&mut out, string);
        }
        out.push(b'e');
        out
    }

    /// Takes at most PEX_PEER_COUNT_MAX of each; what is missing or of another type is empty.
    pub fn parse(payload: &[u8]) -> Result<Pex, WireError> {
        let dict = dict_in(payload)?;
        let string = |key: &str| {
            dict.get(key.as_bytes())
                .and_then(|value| value.as_bytes())
                .unwrap_or_default()
        };
        let list = |key: &str, key6: &str| {
            compact::v4(string(key))
                .chain(compact::v6(string(key6)))
                .take(PEX_PEER_COUNT_MAX)
                .collect()
        };
        Ok(Pex {
            added: list("added", "added6"),
            dropped: list("dropped", "dropped6"),
        })
    }
}

fn put_entry(out: &mut Vec<u8>, key: &str, integer: i64) {
    put_bytes(out, key.as_bytes());
    put_integer(out, integer);
}

fn dict_in(payload: &[u8]) -> Result<Dict<'_>, WireError> {
    bencode::parse(payload)
        .map_err(WireError::Extended)?
        .as_dict()
        .ok_or(WireError::ExtendedNotADict)
}

/// The number as a smaller type, if it fits and is not 0: in BEP 10 an id of 0 switches an
/// extension off.
fn positive<N: TryFrom<i64> + PartialEq + Default>(number: i64) -> Option<N> {
    N::try_from(number)
        .ok()
        .filter(|number| *number != N::default())
}

/// Why a peer's bytes are not the peer protocol; the answer is always to close the connection.
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

    /// Bitfields of these tests are of torrents with 17 to 24 pieces.
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
    fn handshake_bits_stand_for_themselves() {
        for (fast, extended) in [(false, false), (false, true), (true, false)] {
            let handshake = Handshake {
                fast,
                extended,
                info_hash: InfoHash([7; 20]),
                peer_id: PeerId([9; 20]),
            };
            assert_eq!(Handshake::parse(&handshake.encode()), Ok(Some(handshake)));
        }
        // Bits of others (DHT, v2, …) do not matter.
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

    /// Every message but `piece`, and what it looks like on the wire.
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
                    id: 3,
                    payload: vec![],
                },
                "00000002 14 03",
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
            ("00010000 14", 65536),
            ("00010000 15", 65536),
        ] {
            let mut bytes = hex(header);
            assert_eq!(bytes_needed(&bytes, BITFIELD_BYTES), Ok(4 + length));
            assert!(4 + length <= frame_bytes_max(BITFIELD_BYTES));
            bytes.resize(4 + length, 0);
            assert!(
                matches!(decode(&bytes, BITFIELD_BYTES), Ok(Some((_, consumed))) if consumed == 4 + length)
            );
        }
        assert_eq!(frame_bytes_max(500_000), 500_005);
    }

    #[test]
    fn extension_handshake_both_ways() {
        let cases = [
            (ExtendedHandshake::default(), "d1:mde11:upload_onlyi0ee"),
            (
                ExtendedHandshake {
                    dont_have: Some(7),
                    ut_pex: Some(1),
                    reqq: Some(500),
                    client: Some("swarmdd/0.1.0".into()),
                    listen_port: Some(6881),
                    upload_only: true,
                    offers: true,
                },
                "d5:dealsi1e1:md11:lt_donthavei7e6:ut_pexi1ee1:pi6881e4:reqqi500e11:upload_onlyi1e1:v13:swarmdd/0.1.0e",
            ),
        ];
        for (handshake, text) in cases {
            assert_eq!(String::from_utf8(handshake.encode()).unwrap(), text);
            assert_eq!(ExtendedHandshake::parse(text.as_bytes()), Ok(handshake));
            for cut in 0..text.len() {
                let result = ExtendedHandshake::parse(&text.as_bytes()[..cut]);
                assert!(
                    matches!(result, Err(WireError::Extended(_))),
                    "cut at {cut}: {result:?}"
                );
            }
        }
    }

    #[test]
    fn extension_handshake_of_libtorrent() {
        let payload = b"d12:complete_agoi-1e1:md11:lt_donthavei7e10:share_modei8e11:upload_onlyi3e12:ut_holepunch\
            i4e11:ut_metadatai2e6:ut_pexi1ee13:metadata_sizei251e4:reqqi2000e11:upload_onlyi1e1:v18:libtorrent/2.0.8.0\
            6:yourip4:\x0a\x4d\x00\x01e";
        let expected = ExtendedHandshake {
            dont_have: Some(7),
            ut_pex: Some(1),
            reqq: Some(2000),
            client: Some("libtorrent/2.0.8.0".into()),
            listen_port: None,
            upload_only: true,
            offers: false,
        };
        assert_eq!(ExtendedHandshake::parse(payload), Ok(expected));
    }

    #[test]
    fn extension_handshake_takes_only_what_makes_sense() {
        let nothing = Ok(ExtendedHandshake::default());
        let cases = [
            "de",
            "d1:mi1ee",
            "d1:md6:ut_pexi0ee1:pi0e4:reqqi0ee",
            "d1:md6:ut_pexi256ee1:pi65536e4:reqqi-5ee",
            "d1:md6:ut_pex1:1e1:p2:xx4:reqqle1:vi5ee",
        ];
        for text in cases {
            assert_eq!(ExtendedHandshake::parse(text.as_bytes()), nothing, "{text}");
        }
        let coloured = ExtendedHandshake::parse(b"d1:v5:\x1b[31me").unwrap();
        assert_eq!(coloured.client.unwrap(), "\u{fffd}[31m");
        assert_eq!(
            ExtendedHandshake::parse(b"le"),
            Err(WireError::ExtendedNotADict)
        );
    }

    #[test]
    fn pex_both_ways_and_cut_short() {
        let pex = Pex {
            added: vec![
                "10.77.0.1:6881".parse().unwrap(),
                "[fd77::1]:6882".parse().unwrap(),
            ],
            dropped: vec!["10.77.0.2:6881".parse().unwrap()],
        };
        let payload = b"d5:added6:\x0a\x4d\x00\x01\x1a\xe17:added.f1:\x006:added618:\xfd\x77\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\
            \x1a\xe28:added6.f1:\x007:dropped6:\x0a\x4d\x00\x02\x1a\xe18:dropped60:e";
        assert_eq!(pex.encode(), payload);
        assert_eq!(Pex::parse(payload), Ok(pex));
        for cut in 0..payload.len() {
            assert!(
                matches!(Pex::parse(&payload[..cut]), Err(WireError::Extended(_))),
                "cut at {cut}"
            );
        }
        assert_eq!(Pex::parse(b"d5:addedi6e7:droppedlee"), Ok(Pex::default()));
    }

    #[test]
    fn pex_of_a_crowd_is_cut() {
        let mut payload = Vec::from(b"d5:added");
        put_bytes(&mut payload, &[1; 6 * 1000]);
        payload.push(b'e');
        assert_eq!(
            Pex::parse(&payload).unwrap().added.len(),
            PEX_PEER_COUNT_MAX
        );
    }

    /// Whatever arrives: no panic, no more bytes consumed than there are, no more wanted than the
    /// bound.
    #[test]
    fn random_bytes_never_panic() {
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

    /// Good extension messages with a few bytes overwritten.
    #[test]
    fn spoiled_extension_messages_never_panic() {
        let mut rng = Rng::new(0x5eed);
        let good = b"d1:md6:ut_pexi1ee1:pi6881e5:added12:aaaabbccccdd6:added618:aaaaaaaaaaaaaaaabb1:v3:abce";
        for _ in 0..50_000 {
            let mut payload = good.to_vec();
            for _ in 0..1 + rng.below(4) {
                let at = rng.below(good.len() as u32) as usize;
                payload[at] = b"0123456789deil:-\xff"[rng.below(17) as usize];
            }
            let _ = ExtendedHandshake::parse(&payload); // only that it returns
            let _ = Pex::parse(&payload);
        }
    }
}
