//! What do we tell a tracker, and what does it answer?
//!
//! Read first: BEP 3 (trackers), BEP 23 (compact peer lists), BEP 7 (IPv6). The exchange is one
//! HTTP GET (`http`). A failure reason counts whatever the HTTP status is, because some trackers
//! refuse with an error status and a failure reason together. The interval that a tracker asks for
//! is not read: `policy::tracker` announces as often as a room needs it, see
//! `limits::ANNOUNCE_ALONE`.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use crate::format::bencode::{self, BencodeError, Dict, Value};
use crate::limits::{ANNOUNCE_PEER_COUNT_MAX, TEXT_BYTES_MAX};
use crate::text;
use crate::units::{InfoHash, PeerId};
use crate::wire::compact;
use crate::wire::http::Response;

/// Why we announce now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Event {
    /// The interval has passed, or more peers are wanted.
    #[default]
    None,
    Started,
    Completed,
    Stopped,
}

/// What we tell a tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnounceRequest {
    pub info_hash: InfoHash,
    pub peer_id: PeerId,
    /// The port on which we listen.
    pub port: u16,
    /// Payload bytes since `Started`.
    pub uploaded: u64,
    pub downloaded: u64,
    /// Bytes missing; 0 makes us a seed.
    pub left: u64,
    pub event: Event,
    /// The number of addresses that we ask for.
    pub numwant: u32,
    /// Tells the tracker that it is still us when our address has changed.
    pub key: u32,
}

impl AnnounceRequest {
    /// The URL of this announce, made from the URL of the tracker.
    pub fn url(&self, tracker: &str) -> String {
        let mut url = String::from(tracker.split('#').next().unwrap_or_default());
        match url.chars().next_back() {
            Some('?' | '&') => {}
            _ if text::contains(&url, "?") => url.push('&'),
            _ => url.push('?'),
        }
        url.push_str("info_hash=");
        push_encoded(&mut url, &self.info_hash.0);
        url.push_str("&peer_id=");
        push_encoded(&mut url, &self.peer_id.0);
        for (name, number) in [
            ("port", u64::from(self.port)),
            ("uploaded", self.uploaded),
            ("downloaded", self.downloaded),
            ("left", self.left),
            ("numwant", u64::from(self.numwant)),
        ] {
            push(&mut url, format_args!("&{name}={number}"));
        }
        push(
            &mut url,
            format_args!("&key={:08X}&compact=1&no_peer_id=1", self.key),
        );
        url.push_str(match self.event {
            Event::None => "",
            Event::Started => "&event=started",
            Event::Completed => "&event=completed",
            Event::Stopped => "&event=stopped",
        });
        url
    }
}

fn push(url: &mut String, arguments: fmt::Arguments<'_>) {
    url.write_fmt(arguments).expect("a String takes everything");
}

/// Any byte that is not unreserved in RFC 3986 as `%` and two digits.
fn push_encoded(url: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                url.push(byte as char)
            }
            byte => push(url, format_args!("%{byte:02X}")),
        }
    }
}

/// What a tracker answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Peers {
        /// As a rule our own address is among them.
        peers: Vec<SocketAddr>,
        warning: Option<String>,
    },
    /// A server was reached and refuses to serve us.
    Refusal {
        reason: String,
        /// When it asks us to come back.
        retry_after: Option<Duration>,
        /// The answer is a dictionary, so a tracker wrote it. Any other answer may come from a
        /// proxy whose tracker is gone.
        by_tracker: bool,
    },
}

impl Answer {
    /// Every response is an answer, whatever its status.
    pub fn of(response: &Response) -> Answer {
        let parsed = Answer::parse(&response.body);
        let by_tracker = parsed.is_ok();
        let reason = match (parsed, response.status) {
            (Ok(Answer::Refusal { reason, .. }), _) => reason,
            (Ok(answer), 200) => return answer,
            (Err(error), 200) => error.to_string(),
            (_, status) => format!("HTTP status {status}"),
        };
        Answer::Refusal {
            reason,
            retry_after: response.retry_after,
            by_tracker,
        }
    }

    /// Reads the entries that it knows. An entry of a wrong type or out of range counts as absent.
    /// Bytes behind the dictionary are ignored, because some trackers end their answer with a line
    /// break.
    pub fn parse(body: &[u8]) -> Result<Answer, AnnounceError> {
        let (value, _) = bencode::parse_prefix(body).map_err(AnnounceError::Bencode)?;
        let dict = value.as_dict().ok_or(AnnounceError::NotADict)?;
        if let Some(reason) = text_of(&dict, "failure reason") {
            return Ok(Answer::Refusal {
                reason,
                retry_after: None,
                by_tracker: true,
            });
        }
        Ok(Answer::Peers {
            peers: peers_in(&dict),
            warning: text_of(&dict, "warning message").or_else(|| ignored_in(&dict)),
        })
    }
}

fn text_of(dict: &Dict<'_>, key: &str) -> Option<String> {
    Some(text::printable(
        dict.get(key.as_bytes())?.as_bytes()?,
        TEXT_BYTES_MAX,
    ))
}

/// The addresses of `peers`, packed or as a list, and of `peers6`: at most ANNOUNCE_PEER_COUNT_MAX.
fn peers_in(dict: &Dict<'_>) -> Vec<SocketAddr> {
    let peers = dict.get(b"peers");
    let listed = peers.and_then(Value::as_list);
    let listed = listed
        .iter()
        .flat_map(|list| list.iter())
        .filter_map(listed_peer);
    let packed = peers.and_then(Value::as_bytes).unwrap_or_default();
    let packed6 = dict
        .get(b"peers6")
        .and_then(Value::as_bytes)
        .unwrap_or_default();
    let all = compact::v4(packed)
        .chain(listed)
        .chain(compact::v6(packed6));
    all.take(ANNOUNCE_PEER_COUNT_MAX).collect()
}

/// Which peers are given by a host name, as BEP 3 allows, and ignored. Looking up names blocks the
/// loop, and a tracker can send thousands of them.
fn ignored_in(dict: &Dict<'_>) -> Option<String> {
    let list = dict.get(b"peers").and_then(Value::as_list)?;
    let is_name = |name: &&str| name.parse::<IpAddr>().is_err();
    let name_of = |peer: Value<'_>| {
        let name = peer.as_dict()?.get(b"ip")?.as_bytes()?;
        let name = core::str::from_utf8(name).ok().filter(is_name)?;
        Some(text::printable(name.as_bytes(), TEXT_BYTES_MAX))
    };
    let mut names = list.iter().filter_map(name_of);
    let first = names.next()?;
    let count = 1 + names.count();
    Some(format!(
        "{count} peers are given by host name and ignored, the first is {first}"
    ))
}

/// One peer as a dictionary with `ip` and `port`.
fn listed_peer(peer: Value<'_>) -> Option<SocketAddr> {
    let peer = peer.as_dict()?;
    let ip = peer.get(b"ip")?.as_str()?.parse().ok()?;
    let port = peer.get(b"port")?.as_integer()?;
    compact::connectable(ip, u16::try_from(port).ok()?)
}

/// Why a body is not the answer of a tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnounceError {
    Bencode(BencodeError),
    NotADict,
}

impl fmt::Display for AnnounceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnnounceError::Bencode(error) => write!(f, "tracker's answer cannot be read: {error}"),
            AnnounceError::NotADict => f.write_str("tracker's answer is not a dictionary"),
        }
    }
}

impl core::error::Error for AnnounceError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::wire::compact::tests::addresses;
    use crate::wire::url::Url;
    const REQUEST: AnnounceRequest = AnnounceRequest {
        info_hash: InfoHash(*b"\x00\x01\x7f\x80\xff a90Z-._~!%&=+\x0a"),
        peer_id: PeerId(*b"-SD0100-abcdefghijkl"),
        port: 6881,
        uploaded: 0,
        downloaded: 5_000_000_000,
        left: 1,
        event: Event::None,
        numwant: 50,
        key: 0xbeef,
    };

    #[test]
    fn request_is_this_url() {
        let query = "info_hash=%00%01%7F%80%FF%20a90Z-._~%21%25%26%3D%2B%0A&peer_id=-SD0100-abcdefghijkl&port=6881\
            &uploaded=0&downloaded=5000000000&left=1&numwant=50&key=0000BEEF&compact=1&no_peer_id=1";
        for (tracker, start) in [
            (
                "http://10.77.0.1:6969/announce",
                "http://10.77.0.1:6969/announce?",
            ),
            ("http://tracker/announce#part", "http://tracker/announce?"),
            ("http://tracker/announce?", "http://tracker/announce?"),
            (
                "http://tracker/announce?pass=1",
                "http://tracker/announce?pass=1&",
            ),
            (
                "http://tracker/announce?pass=1&",
                "http://tracker/announce?pass=1&",
            ),
        ] {
            let url = REQUEST.url(tracker);
            assert_eq!(url, format!("{start}{query}"));
            assert_eq!(Url::parse(&url).unwrap().to_string(), url);
        }
        for (event, end) in [
            (Event::Started, "&event=started"),
            (Event::Completed, "&event=completed"),
            (Event::Stopped, "&event=stopped"),
        ] {
            let url = AnnounceRequest { event, ..REQUEST }.url("http://tracker/announce");
            assert_eq!(url, format!("http://tracker/announce?{query}{end}"));
        }
    }

    /// The answer of Debian's opentracker (0.0~git20210823) to a leecher. The second peer is the
    /// seed.
    const OPENTRACKER: &[u8] =
        b"d8:completei1e10:downloadedi0e10:incompletei1e8:intervali1638e12:min intervali819e\
        5:peers12:\x0a\x4d\x00\x02\x1a\xe2\x0a\x4d\x00\x01\x1a\xe1e";

    #[test]
    fn answer_of_opentracker_and_cut_short() {
        let expected = Answer::Peers {
            peers: addresses(&["10.77.0.2:6882", "10.77.0.1:6881"]),
            warning: None,
        };
        assert_eq!(Answer::parse(OPENTRACKER), Ok(expected.clone()));
        assert_eq!(
            Answer::parse(&[OPENTRACKER, b"\r\n"].concat()),
            Ok(expected)
        );
        for cut in 0..OPENTRACKER.len() {
            let result = Answer::parse(&OPENTRACKER[..cut]);
            assert!(
                matches!(result, Err(AnnounceError::Bencode(_))),
                "cut at {cut}: {result:?}"
            );
        }
        let refusal =
            b"d14:failure reason63:Requested download is not authorized for use with this tracker.e";
        let reason = "Requested download is not authorized for use with this tracker.";
        assert_eq!(Answer::parse(refusal), Ok(refusal_of(reason)));
        let stopped =
            b"d8:completei1e10:incompletei0e8:intervali1749e12:min intervali874e5:peers0:e";
        assert!(
            matches!(Answer::parse(stopped), Ok(Answer::Peers { peers, .. }) if peers.is_empty())
        );
    }

    fn refusal_of(reason: &str) -> Answer {
        Answer::Refusal {
            reason: reason.into(),
            retry_after: None,
            by_tracker: true,
        }
    }

    #[test]
    fn every_http_answer_is_an_answer_and_a_dictionary_is_a_tracker() {
        const REFUSAL: &[u8] = b"d14:failure reason4:no!!e";
        let retry_after = Some(Duration::from_secs(7));
        let unreadable = Answer::parse(b"<html>").unwrap_err().to_string();
        for (status, body, reason, by_tracker) in [
            (200, REFUSAL, "no!!", true),
            (200, b"<html>", &unreadable, false),
            (200, b"le", "tracker's answer is not a dictionary", false),
            (400, REFUSAL, "no!!", true),
            (403, REFUSAL, "no!!", true),
            (403, b"", "HTTP status 403", false),
            (404, OPENTRACKER, "HTTP status 404", true),
            (410, b"<html>", "HTTP status 410", false),
            (429, REFUSAL, "no!!", true),
            (500, b"", "HTTP status 500", false),
            (502, b"<html>", "HTTP status 502", false),
            (503, b"busy", "HTTP status 503", false),
        ] {
            let response = Response {
                status,
                retry_after,
                body: body.to_vec(),
            };
            let expected = Answer::Refusal {
                reason: reason.into(),
                retry_after,
                by_tracker,
            };
            assert_eq!(Answer::of(&response), expected, "{status}");
        }
        let response = Response {
            status: 200,
            retry_after: None,
            body: OPENTRACKER.to_vec(),
        };
        assert_eq!(Answer::of(&response), Answer::parse(OPENTRACKER).unwrap());
    }

    fn peers_of(body: &[u8]) -> Vec<SocketAddr> {
        match Answer::parse(body) {
            Ok(Answer::Peers { peers, .. }) => peers,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn peers_come_in_three_forms() {
        let both = b"d5:peers12:\x0a\x4d\x00\x01\x1a\xe1\x0a\x4d\x00\x02\x00\x006:peers618:\
            \xfd\x77\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe1e";
        assert_eq!(
            peers_of(both),
            addresses(&["10.77.0.1:6881", "[fd77::1]:6881"])
        );

        let listed = b"d5:peersl\
            d2:ip9:10.77.0.17:peer id20:aaaaaaaaaaaaaaaaaaaa4:porti6881ee\
            d2:ip7:fd77::14:porti6882ee\
            d2:ip16:::ffff:10.77.0.34:porti6883ee\
            d2:ip9:10.77.0.44:porti0ee\
            d2:ip9:10.77.0.44:porti65536ee\
            d2:ip9:localhost4:porti6881ee\
            d2:ip9:10.77.0.4e\
            de\
            i5e\
            ee";
        assert_eq!(
            peers_of(listed),
            addresses(&["10.77.0.1:6881", "[fd77::1]:6882", "10.77.0.3:6883"])
        );
        assert_eq!(peers_of(b"de"), []);
        assert_eq!(peers_of(b"d5:peersi5e6:peers6lee"), []);
    }

    #[test]
    fn host_names_are_ignored_aloud() {
        let body = b"d5:peersl\
            d2:ip9:10.77.0.14:porti6881ee\
            d2:ip9:seed.\x1b[2m4:porti6881ee\
            d2:ip9:localhost4:porti6881ee\
            ee";
        let warning = "2 peers are given by host name and ignored, the first is seed.\u{fffd}[2m";
        assert_eq!(
            Answer::parse(body),
            Ok(Answer::Peers {
                peers: addresses(&["10.77.0.1:6881"]),
                warning: Some(warning.into()),
            })
        );
    }

    #[test]
    fn too_many_peers_are_cut() {
        let mut body = Vec::from(b"d5:peers");
        bencode::put_bytes(&mut body, &[1; 6 * (ANNOUNCE_PEER_COUNT_MAX + 5)]);
        body.push(b'e');
        assert_eq!(peers_of(&body).len(), ANNOUNCE_PEER_COUNT_MAX);
    }

    #[test]
    fn numbers_of_any_size_do_no_harm() {
        for numbers in [
            "8:interval1:x",
            "8:completei-1e10:incompletei4294967296e8:intervali0e12:min intervali-7e",
            "8:completei0e8:intervali9223372036854775807e12:min intervali99999e",
        ] {
            let body = [
                b"d",
                numbers.as_bytes(),
                b"5:peers6:\x0a\x4d\x00\x01\x1a\xe1e",
            ]
            .concat();
            assert_eq!(peers_of(&body), addresses(&["10.77.0.1:6881"]), "{numbers}");
        }
    }

    #[test]
    fn texts_are_made_printable_and_cut() {
        let failure = Answer::parse(b"d14:failure reason9:\x1b[2J no\r\ne");
        assert_eq!(failure, Ok(refusal_of("\u{fffd}[2J no\u{fffd}\u{fffd}")));
        let mut body = Vec::from(b"d15:warning message");
        bencode::put_bytes(&mut body, &[b'x'; 5000]);
        body.push(b'e');
        let Ok(Answer::Peers {
            warning: Some(warning),
            ..
        }) = Answer::parse(&body)
        else {
            panic!()
        };
        assert_eq!(warning.len(), TEXT_BYTES_MAX);
    }

    #[test]
    fn other_bodies_are_refused() {
        assert_eq!(
            Answer::parse(b"le").unwrap_err().to_string(),
            "tracker's answer is not a dictionary"
        );
        let html = Answer::parse(b"<title>Invalid Request</title>\n").unwrap_err();
        assert!(
            html.to_string()
                .starts_with("tracker's answer cannot be read: "),
            "{html}"
        );
    }

    /// Good answers with a few bytes overwritten, and random bytes.
    #[test]
    fn changed_and_random_bodies_never_panic() {
        let listed =
            b"d8:intervali900e5:peersld2:ip9:10.77.0.14:porti6881eed2:ip3:::14:porti6881eee6:peers63:abce";
        let mut rng = Rng::new(0x5eed);
        for round in 0..50_000 {
            let mut body = [OPENTRACKER, listed][round % 2].to_vec();
            for _ in 0..1 + rng.below(4) {
                let at = rng.below(body.len() as u32) as usize;
                body[at] = b"0123456789deil:-\xff"[rng.below(17) as usize];
            }
            let _ = Answer::parse(&body); // only that it returns
            let noise: Vec<u8> = (0..rng.below(60)).map(|_| rng.below(256) as u8).collect();
            let _ = Answer::parse(&noise);
        }
    }
}
