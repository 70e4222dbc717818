//! What do two peers tell each other by extension messages? Their extensions and a little about
//! themselves (the handshake of BEP 10), and peers they know (BEP 11).
//!
//! Read first: BEP 10 (extension protocol), BEP 11 (peer exchange), BEP 21 (`upload_only`), BEP 54
//! (`lt_donthave`). An extension message is a [`Message::Extended`] of `message`; its payload is a
//! bencoded dictionary, except that of `lt_donthave` and of our own `tail`.
//!
//! [`Message::Extended`]: crate::wire::message::Message::Extended

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::format::bencode::{self, Dict, put_bytes, put_integer};
use crate::limits::{BLOCK_BYTES, MARKS_MAX, PEX_PEER_COUNT_MAX, TEXT_BYTES_MAX};
use crate::text;
use crate::units::{Mark, PieceHash};
use crate::wire::compact;
use crate::wire::message::WireError;

/// What each side may tell after the handshake of BEP 3: its extensions and a little about itself
/// (BEP 10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtendedHandshake {
    /// The id of the message that tells the sender that we have lost a piece (BEP 54).
    pub dont_have: Option<u8>,
    /// The id of the message in which a block may be sent to the sender compressed: index, begin
    /// and length of the block as in a request (BEP 3), then an LZ4 block. It answers an ordinary
    /// request in the place of a `piece`. This extension is our own.
    pub lz_block: Option<u8>,
    /// The id of the message that tells the sender of a [`Tail`]. This extension is our own.
    pub tail: Option<u8>,
    /// The id of PEX messages that are sent to the sender. `None` if it wants no such messages.
    pub ut_pex: Option<u8>,
    /// Requests that the sender keeps before it drops some.
    pub reqq: Option<u32>,
    /// Name and version of the client, printable.
    pub client: Option<String>,
    pub listen_port: Option<u16>,
    /// The sender will not download: it is a seed, or has all that it wants (BEP 21).
    pub upload_only: bool,
    /// The sender has fetched what it has, or is about to: it does not stay for its own sake. This
    /// entry is our own.
    pub fetches: bool,
    /// The sender suggests pieces (BEP 6), and wants to be asked for nothing else. This entry is
    /// our own.
    pub offers: bool,
}

/// The id of the message that tells us that a peer has lost a piece: four bytes, the index of the
/// piece (BEP 54).
pub const DONT_HAVE_ID: u8 = 1;

/// The id of the message that tells us of other peers (BEP 11).
pub const PEX_ID: u8 = 2;

/// The id of the message that tells us of a [`Tail`]. 3 is `message::LZ_BLOCK_ID`.
pub const TAIL_ID: u8 = 4;

/// The extended message id of an [`ExtendedHandshake`].
pub const EXTENDED_HANDSHAKE_ID: u8 = 0;

impl ExtendedHandshake {
    /// The payload of the message.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::from(b"d");
        if self.fetches {
            put_entry(&mut out, "fetches", 1);
        }
        out.extend_from_slice(b"1:md");
        if let Some(id) = self.dont_have {
            put_entry(&mut out, "lt_donthave", i64::from(id));
        }
        if let Some(id) = self.lz_block {
            put_entry(&mut out, "lz_block", i64::from(id));
        }
        if let Some(id) = self.tail {
            put_entry(&mut out, "tail", i64::from(id));
        }
        if let Some(id) = self.ut_pex {
            put_entry(&mut out, "ut_pex", i64::from(id));
        }
        out.push(b'e');
        if self.offers {
            put_entry(&mut out, "offers", 1);
        }
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

    /// Reads the entries that it knows. An entry of a wrong type or out of range counts as absent.
    pub fn parse(payload: &[u8]) -> Result<ExtendedHandshake, WireError> {
        let dict = dict_in(payload)?;
        let integer = |key: &str| dict.get(key.as_bytes())?.as_integer();
        let extensions = dict.get(b"m").and_then(|value| value.as_dict());
        let extension = |name: &[u8]| positive(extensions?.get(name)?.as_integer()?);
        let client = dict.get(b"v").and_then(|value| value.as_bytes());
        Ok(ExtendedHandshake {
            dont_have: extension(b"lt_donthave"),
            lz_block: extension(b"lz_block"),
            tail: extension(b"tail"),
            ut_pex: extension(b"ut_pex"),
            reqq: integer("reqq").and_then(positive),
            client: client.map(|client| text::printable(client, TEXT_BYTES_MAX)),
            listen_port: integer("p").and_then(positive),
            upload_only: integer("upload_only").is_some_and(|value| value != 0),
            fetches: integer("fetches").is_some_and(|value| value != 0),
            offers: integer("offers").is_some_and(|value| value != 0),
        })
    }
}

/// Peers that the sender has connected to and has lost since its last message (BEP 11).
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
        // One byte of flags for each added address. All flags are 0, but libtorrent ignores
        // addresses that have no flags.
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

    /// Takes at most PEX_PEER_COUNT_MAX of each list. A list that is missing or of a wrong type is
    /// empty.
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

/// The sender has the end of a piece: everything from the last of these marks on, which it has
/// checked. Its index, and for each mark four bytes for its place and twenty for the state, in the
/// order in which a piece is checked, from its end to its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    pub piece: u32,
    pub marks: Vec<Mark>,
}

const MARK_BYTES: usize = 24;

impl Tail {
    /// The payload of the message.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.piece.to_be_bytes().to_vec();
        for mark in &self.marks {
            out.extend_from_slice(&mark.begin.to_be_bytes());
            out.extend_from_slice(&mark.state.0);
        }
        out
    }

    /// None unless there is at least one mark, at most MARKS_MAX, each on the border of two blocks
    /// and each before the one before it.
    pub fn parse(payload: &[u8]) -> Option<Tail> {
        let (piece, marks) = payload.split_first_chunk()?;
        let (marks, rest) = marks.as_chunks::<MARK_BYTES>();
        let mark = |bytes: &[u8; MARK_BYTES]| {
            let (begin, state) = bytes.split_first_chunk()?;
            let state = PieceHash(state.try_into().ok()?);
            let begin = u32::from_be_bytes(*begin);
            let is_border = begin > 0 && begin.is_multiple_of(BLOCK_BYTES);
            is_border.then_some(Mark { begin, state })
        };
        let marks: Vec<Mark> = marks
            .iter()
            .take(MARKS_MAX + 1)
            .map(mark)
            .collect::<Option<_>>()?;
        let falls = marks.is_sorted_by(|before, after| before.begin > after.begin);
        let fits = (1..=MARKS_MAX).contains(&marks.len()) && rest.is_empty();
        (fits && falls).then_some(Tail {
            piece: u32::from_be_bytes(*piece),
            marks,
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

/// The number as a smaller type, if it fits and is not 0. In BEP 10 an id of 0 switches an
/// extension off.
fn positive<N: TryFrom<i64> + PartialEq + Default>(number: i64) -> Option<N> {
    N::try_from(number)
        .ok()
        .filter(|number| *number != N::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use std::vec;

    #[test]
    fn extension_handshake_both_ways() {
        let cases = [
            (ExtendedHandshake::default(), "d1:mde11:upload_onlyi0ee"),
            (
                ExtendedHandshake {
                    dont_have: Some(7),
                    lz_block: Some(9),
                    tail: Some(4),
                    ut_pex: Some(1),
                    reqq: Some(500),
                    client: Some("swarmdd/0.1.0".into()),
                    listen_port: Some(6881),
                    upload_only: true,
                    fetches: true,
                    offers: true,
                },
                "d7:fetchesi1e1:md11:lt_donthavei7e8:lz_blocki9e4:taili4e6:ut_pexi1ee6:offersi1e1:pi6881e4:reqqi500e11:upload_onlyi1e1:v13:swarmdd/0.1.0e",
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
            lz_block: None,
            tail: None,
            ut_pex: Some(1),
            reqq: Some(2000),
            client: Some("libtorrent/2.0.8.0".into()),
            listen_port: None,
            upload_only: true,
            fetches: false,
            offers: false,
        };
        assert_eq!(ExtendedHandshake::parse(payload), Ok(expected));
    }

    #[test]
    fn extension_handshake_ignores_wrong_entries() {
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
    fn tail_both_ways_and_what_is_none() {
        let mark = |begin, byte| Mark {
            begin,
            state: PieceHash([byte; 20]),
        };
        let tail = |begins: &[u32]| Tail {
            piece: 7,
            marks: begins.iter().map(|begin| mark(*begin, 1)).collect(),
        };
        let payload = b"\0\0\0\x07\0\x02\0\0abababababababababab\0\x01\x80\0cdcdcdcdcdcdcdcdcdcd";
        let two = Tail {
            piece: 7,
            marks: vec![
                Mark {
                    begin: 128 * 1024,
                    state: PieceHash(*b"abababababababababab"),
                },
                Mark {
                    begin: 96 * 1024,
                    state: PieceHash(*b"cdcdcdcdcdcdcdcdcdcd"),
                },
            ],
        };
        assert_eq!(two.encode(), payload);
        assert_eq!(Tail::parse(payload), Some(two));
        for cut in (0..payload.len()).filter(|cut| *cut != 28) {
            assert_eq!(Tail::parse(&payload[..cut]), None, "cut at {cut}");
        }
        let blocks = |first: u32, count: u32| -> Vec<u32> {
            (0..count).map(|at| (first - at) * BLOCK_BYTES).collect()
        };
        let many = tail(&blocks(100, MARKS_MAX as u32));
        assert_eq!(Tail::parse(&many.encode()), Some(many));
        for none in [
            tail(&blocks(100, MARKS_MAX as u32 + 1)),
            tail(&[BLOCK_BYTES, 2 * BLOCK_BYTES]),
            tail(&[BLOCK_BYTES, BLOCK_BYTES]),
            tail(&[BLOCK_BYTES - 1]),
            tail(&[BLOCK_BYTES, 0]),
        ] {
            assert_eq!(Tail::parse(&none.encode()), None, "{none:?}");
        }
    }

    #[test]
    fn pex_of_too_many_peers_is_cut() {
        let mut payload = Vec::from(b"d5:added");
        put_bytes(&mut payload, &[1; 6 * 1000]);
        payload.push(b'e');
        assert_eq!(
            Pex::parse(&payload).unwrap().added.len(),
            PEX_PEER_COUNT_MAX
        );
    }

    /// Good extension messages with a few bytes overwritten give an error or a value.
    #[test]
    fn changed_extension_messages_never_panic() {
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
            let _ = Tail::parse(&payload);
        }
    }
}
