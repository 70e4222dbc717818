//! What is a name server asked, and what does it answer?
//!
//! One question a message: the IPv4 or the IPv6 addresses of a name. A recursive server answers
//! with them, and with the aliases that lead there. Read first: RFC 1035 section 4, RFC 3596.

use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::format::names::{NAME_BYTES_MAX, is_name};
use crate::limits::HOST_ADDRESS_COUNT_MAX;

/// The type of the addresses that are asked for (RFC 1035 section 3.2.2, RFC 3596).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4 = 1,
    V6 = 28,
}

const HEADER_BYTES: usize = 12;
/// The bit of an answer, and the four bits of other operations than a query.
const IS_ANSWER: u8 = 0x80;
const OPERATION: u8 = 0x78;
const IS_TRUNCATED: u8 = 0x02;
const NO_SUCH_NAME: u8 = 3;
/// The class of the internet.
const INTERNET: u16 = 1;
/// A length with both upper bits set is half a pointer (RFC 1035 section 4.1.4).
const POINTER: u8 = 0xC0;

/// The message that asks for addresses of `name`, which has no dot at its end; None if it is no
/// name that a message can hold.
pub fn query(id: u16, name: &str, family: Family) -> Option<Vec<u8>> {
    if !is_name(name) {
        return None;
    }
    let mut query = Vec::with_capacity(HEADER_BYTES + NAME_BYTES_MAX + 6);
    query.extend(id.to_be_bytes());
    // Please ask others on our behalf; one question.
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).ok()?);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, family as u8, 0, 1]);
    Some(query)
}

/// Why a name server names no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It knows that there is no such name.
    NoSuchName,
    /// Another RCODE of RFC 1035 section 4.1.1.
    Code(u8),
    /// The answer does not fit into a datagram, and what fits holds no address.
    Truncated,
    Malformed,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoSuchName => f.write_str("there is no such name"),
            Refusal::Code(code) => write!(f, "the name server failed with code {code}"),
            Refusal::Truncated => f.write_str("the answer of the name server is too long"),
            Refusal::Malformed => f.write_str("the answer of the name server is malformed"),
        }
    }
}

/// What `message` answers to `query`: addresses, or none if the name has none of this family. None
/// if it is not the answer to this query, whoever sent it.
pub fn answer(query: &[u8], message: &[u8]) -> Option<Result<Vec<IpAddr>, Refusal>> {
    let (header, sections) = message.split_at_checked(HEADER_BYTES)?;
    let question = query.get(HEADER_BYTES..)?;
    if header[..2] != query[..2] || header[2] & (IS_ANSWER | OPERATION) != IS_ANSWER {
        return None;
    }
    let code = header[3] & 0x0F;
    // A server that does not understand the question need not repeat it.
    if header[4..6] == [0, 0] && code != 0 {
        return Some(Err(Refusal::Code(code)));
    }
    let (repeated, mut records) = sections.split_at_checked(question.len())?;
    // The type lies between bytes that are no letters.
    if header[4..6] != [0, 1] || !repeated.eq_ignore_ascii_case(question) {
        return None;
    }
    match code {
        0 => {}
        NO_SUCH_NAME => return Some(Err(Refusal::NoSuchName)),
        _ => return Some(Err(Refusal::Code(code))),
    }
    let family = question[question.len() - 3];
    let mut addresses = Vec::new();
    let mut is_whole = true;
    for _ in 0..u16::from_be_bytes([header[6], header[7]]) {
        match next_record(&mut records) {
            // Whose address it is does not matter: a server answers nothing but our question.
            Some(Record { kind, data }) if kind == u16::from(family) => {
                let is_v6 = family == Family::V6 as u8;
                let found = address(data).filter(|found| found.is_ipv6() == is_v6);
                is_whole &= found.is_some();
                addresses.extend(found);
            }
            Some(_) => {}
            None => is_whole = false,
        }
        if !is_whole || addresses.len() == HOST_ADDRESS_COUNT_MAX {
            break;
        }
    }
    let is_truncated = header[2] & IS_TRUNCATED != 0;
    Some(match (is_truncated, is_whole) {
        (true, _) if addresses.is_empty() => Err(Refusal::Truncated),
        (false, false) => Err(Refusal::Malformed),
        _ => Ok(addresses),
    })
}

/// A resource record. One of another class than the internet's has the kind 0, which is none.
struct Record<'a> {
    kind: u16,
    data: &'a [u8],
}

/// Takes the next record from the front; None if it is cut short.
fn next_record<'a>(bytes: &mut &'a [u8]) -> Option<Record<'a>> {
    skip_name(bytes)?;
    // Type, class, time to live, length of the data.
    let head = take(bytes, 10)?;
    let data = take(bytes, u16::from_be_bytes([head[8], head[9]]).into())?;
    let kind = match u16::from_be_bytes([head[2], head[3]]) {
        INTERNET => u16::from_be_bytes([head[0], head[1]]),
        _ => 0,
    };
    Some(Record { kind, data })
}

/// A name ends with an empty label or with a pointer. No pointer is followed: the name itself is
/// not needed.
fn skip_name(bytes: &mut &[u8]) -> Option<()> {
    loop {
        match take(bytes, 1)?[0] {
            0 => return Some(()),
            length if length & POINTER == POINTER => return take(bytes, 1).map(drop),
            length if length & POINTER == 0 => take(bytes, length.into())?,
            _ => return None,
        };
    }
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn address(data: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(data) {
        return Some(Ipv4Addr::from(octets).into());
    }
    let octets = <[u8; 16]>::try_from(data).ok()?;
    Some(Ipv6Addr::from(octets).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use alloc::string::ToString;

    const ASKED: &[u8] =
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x02dd\0\x00\x01\x00\x01";
    const ASKED_V6: &[u8] =
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x02dd\0\x00\x1C\x00\x01";

    /// An answer to ASKED: flags, number of answers, and all behind the question.
    fn message(flags: [u8; 2], count: u8, records: &[u8]) -> Vec<u8> {
        let head = [0x12, 0x34, flags[0], flags[1], 0, 1, 0, count, 0, 0, 0, 0];
        [&head, &ASKED[HEADER_BYTES..], records].concat()
    }

    /// The name by pointer, type A, class IN, an hour.
    const A: &[u8] = b"\xC0\x0C\x00\x01\x00\x01\x00\x00\x0E\x10\x00\x04\x0A\x4D\x01\x05";
    /// An alias: `srv` in the same zone.
    const CNAME: &[u8] = b"\xC0\x0C\x00\x05\x00\x01\x00\x00\x0E\x10\x00\x06\x03srv\xC0\x10";
    const A_OF_ALIAS: &[u8] = b"\xC0\x24\x00\x01\x00\x01\x00\x00\x0E\x10\x00\x04\x0A\x4D\x01\x06";
    const DONE: [u8; 2] = [0x81, 0x80];

    type Answer = Option<Result<Vec<IpAddr>, Refusal>>;

    fn addresses(texts: &[&str]) -> Answer {
        Some(Ok(texts.iter().map(|text| text.parse().unwrap()).collect()))
    }

    #[test]
    fn a_query_is_written() {
        assert_eq!(query(0x1234, "www.dd", Family::V4).unwrap(), ASKED);
        assert_eq!(query(0x1234, "www.dd", Family::V6).unwrap(), ASKED_V6);
        for bad in ["", ".", "a..b", "a.", ".a", &"x".repeat(64)] {
            assert_eq!(query(1, bad, Family::V4), None, "{bad}");
        }
        let long = |last: usize| ("x".repeat(63) + ".").repeat(3) + &"y".repeat(last);
        assert_eq!(query(1, &long(61), Family::V4).unwrap().len(), 12 + 255 + 4);
        assert_eq!(query(1, &long(62), Family::V4), None);
    }

    #[test]
    fn answers_are_read() {
        let v6 =
            b"\xC0\x0C\x00\x1C\x00\x01\x00\x00\x0E\x10\x00\x10\xFD\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x07";
        // As A, of the class CHAOS.
        let chaos = b"\x01x\0\x00\x01\x00\x03\x00\x00\x0E\x10\x00\x04\x0A\x4D\x01\x05";
        let short = b"\xC0\x0C\x00\x01\x00\x01\x00\x00\x0E\x10\x00\x03\x0A\x4D\x01";
        type Case<'a> = ([u8; 2], u8, &'a [&'a [u8]], Answer);
        let cases: &[Case] = &[
            (DONE, 1, &[A], addresses(&["10.77.1.5"])),
            (DONE, 2, &[CNAME, A_OF_ALIAS], addresses(&["10.77.1.6"])),
            (
                DONE,
                2,
                &[A, A_OF_ALIAS],
                addresses(&["10.77.1.5", "10.77.1.6"]),
            ),
            // Records of the other family, of another class, behind the number of answers.
            (
                DONE,
                3,
                &[v6, chaos, A, A_OF_ALIAS],
                addresses(&["10.77.1.5"]),
            ),
            (DONE, 0, &[], addresses(&[])),
            (DONE, 1, &[CNAME], addresses(&[])),
            ([0x81, 0x83], 0, &[], Some(Err(Refusal::NoSuchName))),
            ([0x81, 0x82], 0, &[], Some(Err(Refusal::Code(2)))),
            ([0x81, 0x85], 1, &[A], Some(Err(Refusal::Code(5)))),
            // Truncated: with what is there.
            ([0x83, 0x80], 9, &[A], addresses(&["10.77.1.5"])),
            ([0x83, 0x80], 9, &[], Some(Err(Refusal::Truncated))),
            ([0x83, 0x80], 9, &[CNAME], Some(Err(Refusal::Truncated))),
            (DONE, 2, &[A], Some(Err(Refusal::Malformed))),
            (DONE, 1, &[short], Some(Err(Refusal::Malformed))),
            (DONE, 1, &[b"\x80\0"], Some(Err(Refusal::Malformed))),
            // A question, and another operation.
            ([0x01, 0x00], 1, &[A], None),
            ([0x89, 0x80], 1, &[A], None),
        ];
        for (flags, count, records, expected) in cases {
            let message = message(*flags, *count, &records.concat());
            assert_eq!(
                answer(ASKED, &message),
                *expected,
                "{flags:x?} {records:x?}"
            );
        }
        let mut of_v6 = message(DONE, 2, &[A, v6].concat());
        of_v6[HEADER_BYTES + 9] = 28;
        assert_eq!(answer(ASKED_V6, &of_v6), addresses(&["fd00::7"]));
        assert_eq!(answer(ASKED, &of_v6), None, "the other question");
        assert_eq!(
            Refusal::Code(2).to_string(),
            "the name server failed with code 2"
        );
    }

    #[test]
    fn an_answer_to_something_else_is_none() {
        let good = message(DONE, 1, A);
        assert!(answer(ASKED, &good).is_some());
        for (at, byte) in [(0, 0x13), (1, 0x35), (5, 2), (13, b'v'), (23, 3)] {
            let mut other = good.clone();
            other[at] = byte;
            assert_eq!(answer(ASKED, &other), None, "byte {at}");
        }
        let mut shouted = good;
        shouted[13] = b'W';
        assert_eq!(answer(ASKED, &shouted), addresses(&["10.77.1.5"]));
        // FORMERR without the question.
        let header = b"\x12\x34\x81\x81\0\0\0\0\0\0\0\0";
        assert_eq!(answer(ASKED, header), Some(Err(Refusal::Code(1))));
        let header = b"\x12\x34\x81\x80\0\0\0\0\0\0\0\0";
        assert_eq!(answer(ASKED, header), None);
    }

    #[test]
    fn the_number_of_addresses_is_bounded() {
        let message = message(DONE, 200, &A.repeat(200));
        let found = answer(ASKED, &message).unwrap().unwrap();
        assert_eq!(found.len(), HOST_ADDRESS_COUNT_MAX);
    }

    #[test]
    fn cut_and_changed_answers_never_panic() {
        let good = message(DONE, 2, &[CNAME, A_OF_ALIAS].concat());
        for length in 0..good.len() {
            let cut = answer(ASKED, &good[..length]);
            let expected = (length >= ASKED.len()).then_some(Err(Refusal::Malformed));
            assert_eq!(cut, expected, "{length} bytes");
        }
        let mut rng = Rng::new(1);
        for _ in 0..100_000 {
            let mut changed = good.clone();
            for _ in 0..=rng.below(4) {
                let at = rng.below(changed.len() as u32) as usize;
                changed[at] = rng.below(256) as u8;
            }
            changed.truncate(rng.below(1 + good.len() as u32) as usize);
            if let Some(Ok(found)) = answer(ASKED, &changed) {
                assert!(found.len() <= 2);
            }
        }
    }
}
