//! What does bencoded data say? (BEP 3, "bencoding".)
//!
//! The input is checked once, from the first byte to the last, in one loop without recursion. The
//! result is a view into the same bytes. No tree is built, because the tree of a torrent with 1.2
//! million files would take a gigabyte. Views are made from checked bytes only, so reading them
//! cannot fail.
//!
//! A view of a list or dictionary includes where it ends, which is found by walking over it once.
//! So a walk through a torrent down to its innermost list passes each byte at most once for each
//! level of nesting. [`Dict::get`] starts from the first entry each time; iterate where there are
//! many entries.
//!
//! Strict: numbers have one spelling only, keys are strings, only white space follows the value.
//! Lenient: keys may stand in any order, because some clients do not sort them, and a key is
//! refused as a duplicate only if it directly follows itself.

use crate::limits;
use alloc::vec::Vec;
use core::fmt;

/// One value, borrowed from the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Integer(i64),
    Bytes(&'a [u8]),
    List(List<'a>),
    Dict(Dict<'a>),
}

/// Checks that `input` is exactly one value. White space may follow: editors and scripts add a line
/// break to a torrent, and other clients accept that.
pub fn parse(input: &[u8]) -> Result<Value<'_>, BencodeError> {
    let (value, offset) = parse_prefix(input)?;
    match input[offset..].trim_ascii_start().is_empty() {
        true => Ok(value),
        false => Err(BencodeError::TrailingBytes { offset }),
    }
}

/// Checks that `input` begins with a value. Returns the value and its length: some trackers end
/// their answer with a line break.
pub fn parse_prefix(input: &[u8]) -> Result<(Value<'_>, usize), BencodeError> {
    let length = validate(input)?;
    let (value, _) = first_value(&input[..length]).expect("the input was just validated");
    Ok((value, length))
}

impl<'a> Value<'a> {
    pub fn as_integer(self) -> Option<i64> {
        match self {
            Value::Integer(integer) => Some(integer),
            _ => None,
        }
    }

    pub fn as_bytes(self) -> Option<&'a [u8]> {
        match self {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The bytes as text, if they are UTF-8.
    pub fn as_str(self) -> Option<&'a str> {
        core::str::from_utf8(self.as_bytes()?).ok()
    }

    pub fn as_list(self) -> Option<List<'a>> {
        match self {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    pub fn as_dict(self) -> Option<Dict<'a>> {
        match self {
            Value::Dict(dict) => Some(dict),
            _ => None,
        }
    }
}

/// A list; `raw` runs from its `l` to its `e`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List<'a> {
    raw: &'a [u8],
}

impl<'a> List<'a> {
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        Values {
            rest: inside(self.raw),
        }
    }
}

/// A dictionary; `raw` runs from its `d` to its `e`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dict<'a> {
    raw: &'a [u8],
}

impl<'a> Dict<'a> {
    /// The value of the first entry with this key.
    pub fn get(&self, key: &[u8]) -> Option<Value<'a>> {
        let mut rest = inside(self.raw);
        while let Ok((Token::Bytes(found), key_length)) = token(rest, 0) {
            let value = &rest[key_length..];
            if found == key {
                return first_value(value).map(|(value, _)| value);
            }
            rest = &value[value_length(value)..];
        }
        None
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Value<'a>)> + use<'a> {
        let mut values = Values {
            rest: inside(self.raw),
        };
        core::iter::from_fn(move || {
            let key = values.next()?.as_bytes()?;
            Some((key, values.next()?))
        })
    }

    /// The dictionary exactly as it was written; the SHA-1 of the one called `info` is the
    /// info-hash.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }
}

/// Validated values in a row, as between `l` or `d` and its `e`.
struct Values<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        let (value, rest) = first_value(self.rest)?;
        self.rest = rest;
        Some(value)
    }
}

/// Appends an integer.
pub fn put_integer(out: &mut Vec<u8>, integer: i64) {
    out.push(b'i');
    if integer < 0 {
        out.push(b'-');
    }
    put_decimal(out, integer.unsigned_abs());
    out.push(b'e');
}

/// Appends a string or a dictionary key. To write a list or dictionary, push `b'l'` or `b'd'`, the
/// entries (keys in order, BEP 3) and `b'e'`.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_decimal(out, bytes.len() as u64);
    out.push(b':');
    out.extend_from_slice(bytes);
}

/// Why an input is not bencode, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BencodeError {
    Truncated { offset: usize },
    UnexpectedByte { offset: usize, byte: u8 },
    BadInteger { offset: usize },
    BadLength { offset: usize },
    KeyNotBytes { offset: usize },
    DuplicateKey { offset: usize },
    TooDeep { offset: usize },
    TrailingBytes { offset: usize },
}

impl fmt::Display for BencodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use BencodeError::*;
        match *self {
            Truncated { offset } => {
                write!(
                    f,
                    "bencoded data ends at byte {offset}, in the middle of a value"
                )
            }
            UnexpectedByte { offset, byte } => {
                write!(
                    f,
                    "no bencoded value can go on with '{}' at byte {offset}",
                    byte.escape_ascii()
                )
            }
            BadInteger { offset } => write!(f, "bad or too large integer at byte {offset}"),
            BadLength { offset } => write!(f, "bad string length at byte {offset}"),
            KeyNotBytes { offset } => write!(f, "dictionary key at byte {offset} is not a string"),
            DuplicateKey { offset } => write!(f, "dictionary key at byte {offset} is there twice"),
            TooDeep { offset } => {
                write!(
                    f,
                    "value at byte {offset} is nested deeper than {}",
                    limits::BENCODE_DEPTH_MAX
                )
            }
            TrailingBytes { offset } => {
                write!(f, "bencoded value ends at byte {offset} but data goes on")
            }
        }
    }
}

/// What may come next. `validate` keeps one of these for the whole input, and one for every list
/// and dictionary that has not ended.
#[derive(Clone, Copy)]
enum Expect<'a> {
    /// The value that is the whole input.
    Whole,
    /// A list item or the end.
    Item,
    /// A key other than `last`, or the end.
    Key { last: Option<&'a [u8]> },
    /// The value of this key.
    Value { key: &'a [u8] },
}

/// Length of the value that the input begins with.
fn validate(input: &[u8]) -> Result<usize, BencodeError> {
    let mut open = [Expect::Whole; limits::BENCODE_DEPTH_MAX + 1];
    let mut depth = 0;
    let mut at = 0;
    loop {
        let offset = at;
        let (token, end) = token(input, offset)?;
        at = end;
        match (open[depth], token) {
            (Expect::Item | Expect::Key { .. }, Token::End) => depth -= 1,
            (Expect::Whole | Expect::Value { .. }, Token::End) => {
                return Err(BencodeError::UnexpectedByte { offset, byte: b'e' });
            }
            (Expect::Key { last }, Token::Bytes(key)) if last == Some(key) => {
                return Err(BencodeError::DuplicateKey { offset });
            }
            (Expect::Key { .. }, Token::Bytes(key)) => open[depth] = Expect::Value { key },
            (Expect::Key { .. }, _) => return Err(BencodeError::KeyNotBytes { offset }),
            (expected, value) => {
                if let Expect::Value { key } = expected {
                    open[depth] = Expect::Key { last: Some(key) };
                }
                if let Some(inner) = expected_inside(value) {
                    depth += 1;
                    *open
                        .get_mut(depth)
                        .ok_or(BencodeError::TooDeep { offset })? = inner;
                }
            }
        }
        if depth == 0 {
            return Ok(at);
        }
    }
}

fn expected_inside(token: Token<'_>) -> Option<Expect<'_>> {
    match token {
        Token::List => Some(Expect::Item),
        Token::Dict => Some(Expect::Key { last: None }),
        Token::Integer(_) | Token::Bytes(_) | Token::End => None,
    }
}

/// The bytes between the first byte of a list or dictionary and its `e`.
fn inside(raw: &[u8]) -> &[u8] {
    &raw[1..raw.len() - 1]
}

/// Splits the first value off validated bytes. `None` if no byte is left.
fn first_value(input: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let (token, token_length) = token(input, 0).ok()?;
    Some(match token {
        Token::Integer(integer) => (Value::Integer(integer), &input[token_length..]),
        Token::Bytes(bytes) => (Value::Bytes(bytes), &input[token_length..]),
        Token::List => {
            let (raw, rest) = input.split_at(value_length(input));
            (Value::List(List { raw }), rest)
        }
        Token::Dict => {
            let (raw, rest) = input.split_at(value_length(input));
            (Value::Dict(Dict { raw }), rest)
        }
        Token::End => return None,
    })
}

/// Length of the first value of validated bytes.
fn value_length(input: &[u8]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    loop {
        let (token, end) = token(input, at).expect("views are made from validated bytes only");
        at = end;
        match token {
            Token::List | Token::Dict => depth += 1,
            Token::End => depth -= 1,
            Token::Integer(_) | Token::Bytes(_) => {}
        }
        if depth == 0 {
            return at;
        }
    }
}

#[derive(Clone, Copy)]
enum Token<'a> {
    Integer(i64),
    Bytes(&'a [u8]),
    List,
    Dict,
    End,
}

/// The token at byte `at`, and where the next one begins.
fn token(input: &[u8], at: usize) -> Result<(Token<'_>, usize), BencodeError> {
    match input.get(at) {
        None => Err(BencodeError::Truncated { offset: at }),
        Some(b'i') => integer(input, at),
        Some(b'0'..=b'9') => bytes(input, at),
        Some(b'l') => Ok((Token::List, at + 1)),
        Some(b'd') => Ok((Token::Dict, at + 1)),
        Some(b'e') => Ok((Token::End, at + 1)),
        Some(&byte) => Err(BencodeError::UnexpectedByte { offset: at, byte }),
    }
}

/// `i-42e`: no leading zeros, no `-0`, nothing beyond 64 bits.
fn integer(input: &[u8], at: usize) -> Result<(Token<'_>, usize), BencodeError> {
    let bad = BencodeError::BadInteger { offset: at };
    let negative = input.get(at + 1) == Some(&b'-');
    let digits = at + 1 + usize::from(negative);
    let (magnitude, end) = decimal(input, digits).ok_or(bad)?;
    match input.get(end) {
        None => return Err(BencodeError::Truncated { offset: end }),
        Some(b'e') if end > digits => {}
        Some(_) => return Err(bad),
    }
    let integer = match negative {
        false => i64::try_from(magnitude).ok(),
        true if magnitude == 0 => None,
        true => 0i64.checked_sub_unsigned(magnitude),
    };
    Ok((Token::Integer(integer.ok_or(bad)?), end + 1))
}

/// `4:spam`.
fn bytes(input: &[u8], at: usize) -> Result<(Token<'_>, usize), BencodeError> {
    let bad = BencodeError::BadLength { offset: at };
    let (length, colon) = decimal(input, at).ok_or(bad)?;
    match input.get(colon) {
        None => return Err(BencodeError::Truncated { offset: colon }),
        Some(b':') => {}
        Some(_) => return Err(bad),
    }
    let begin = colon + 1;
    let left = input.len() - begin;
    match usize::try_from(length) {
        Ok(length) if length <= left => {
            Ok((Token::Bytes(&input[begin..begin + length]), begin + length))
        }
        _ => Err(BencodeError::Truncated {
            offset: input.len(),
        }),
    }
}

/// The decimal number at byte `at`, and where it ends (at `at` itself if there is no digit). `None`
/// if it has a leading zero or does not fit into 64 bits.
fn decimal(input: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut number: u64 = 0;
    let mut end = at;
    while let Some(digit @ b'0'..=b'9') = input.get(end) {
        if number == 0 && end > at {
            return None;
        }
        number = number
            .checked_mul(10)?
            .checked_add(u64::from(digit - b'0'))?;
        end += 1;
    }
    Some((number, end))
}

fn put_decimal(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20]; // u64::MAX has 20 digits
    let mut first = digits.len();
    let mut rest = number;
    loop {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}

#[cfg(test)]
mod tests {
    use super::BencodeError::*;
    use super::*;
    use crate::rng::Rng;
    use alloc::string::ToString;
    use alloc::vec;

    const TORRENT: &[u8] =
        b"d8:announce9:http://t/4:infod5:filesld6:lengthi512e4:pathl1:0eed6:lengthi0e4:pathl1:feee4:name4:sda1ee";

    /// Reads everything in the value, and writes it back.
    fn rewrite(value: Value<'_>, out: &mut Vec<u8>) {
        match value {
            Value::Integer(integer) => put_integer(out, integer),
            Value::Bytes(bytes) => put_bytes(out, bytes),
            Value::List(list) => {
                out.push(b'l');
                list.iter().for_each(|item| rewrite(item, out));
                out.push(b'e');
            }
            Value::Dict(dict) => {
                out.push(b'd');
                for (key, value) in dict.iter() {
                    assert!(dict.get(key).is_some());
                    put_bytes(out, key);
                    rewrite(value, out);
                }
                out.push(b'e');
            }
        }
    }

    /// Accepted input has exactly one spelling, so the value that was read is written as the same
    /// bytes.
    fn round_trip(input: &[u8]) {
        let mut out = vec![];
        rewrite(parse(input).unwrap(), &mut out);
        assert_eq!(
            out.escape_ascii().to_string(),
            input.escape_ascii().to_string()
        );
    }

    #[test]
    fn good_values_are_read_and_written_back() {
        let good = [
            "i0e",
            "i42e",
            "i-1e",
            "i9223372036854775807e",
            "i-9223372036854775808e",
            "0:",
            "4:spam",
            "10:0123456789",
            "le",
            "de",
            "l4:spami7ee",
            "d3:cow3:moo4:spam4:eggse",
            "d4:spaml1:a1:bee",
            "d0:0:e",
            "d1:b0:1:a0:e", // unsorted keys
            "d1:a0:1:b0:1:a0:e",
            "lllleeee",
        ];
        good.iter().for_each(|text| round_trip(text.as_bytes()));
        round_trip(TORRENT);
    }

    #[test]
    fn bad_values_are_refused_with_the_byte() {
        let bad = [
            ("", Truncated { offset: 0 }),
            (
                "x",
                UnexpectedByte {
                    offset: 0,
                    byte: b'x',
                },
            ),
            (
                "-1:",
                UnexpectedByte {
                    offset: 0,
                    byte: b'-',
                },
            ),
            (
                "e",
                UnexpectedByte {
                    offset: 0,
                    byte: b'e',
                },
            ),
            (
                "d1:ae",
                UnexpectedByte {
                    offset: 4,
                    byte: b'e',
                },
            ),
            (
                "lé",
                UnexpectedByte {
                    offset: 1,
                    byte: 0xc3,
                },
            ),
            ("ie", BadInteger { offset: 0 }),
            ("i-e", BadInteger { offset: 0 }),
            ("i-0e", BadInteger { offset: 0 }),
            ("i00e", BadInteger { offset: 0 }),
            ("i01e", BadInteger { offset: 0 }),
            ("i-01e", BadInteger { offset: 0 }),
            ("i+1e", BadInteger { offset: 0 }),
            ("i 1e", BadInteger { offset: 0 }),
            ("i1.5e", BadInteger { offset: 0 }),
            ("i--1e", BadInteger { offset: 0 }),
            ("li9223372036854775808ee", BadInteger { offset: 1 }),
            ("i-9223372036854775809e", BadInteger { offset: 0 }),
            ("i99999999999999999999e", BadInteger { offset: 0 }),
            ("04:spam", BadLength { offset: 0 }),
            ("00:", BadLength { offset: 0 }),
            ("4spam", BadLength { offset: 0 }),
            ("l1 :ae", BadLength { offset: 1 }),
            ("99999999999999999999:", BadLength { offset: 0 }),
            ("18446744073709551615:a", Truncated { offset: 22 }),
            ("9223372036854775807:a", Truncated { offset: 21 }),
            ("5:spam", Truncated { offset: 6 }),
            ("4:spamx", TrailingBytes { offset: 6 }),
            ("i1ei2e", TrailingBytes { offset: 3 }),
            ("di1e0:e", KeyNotBytes { offset: 1 }),
            ("d1:a0:lee", KeyNotBytes { offset: 6 }),
            ("d1:a0:1:a0:e", DuplicateKey { offset: 6 }),
        ];
        for (text, error) in bad {
            assert_eq!(parse(text.as_bytes()), Err(error), "{text}");
        }
    }

    #[test]
    fn views_show_what_is_in_the_bytes() {
        let torrent = parse(TORRENT).unwrap().as_dict().unwrap();
        assert_eq!(torrent.raw(), TORRENT);
        assert_eq!(
            torrent.get(b"announce").unwrap().as_str(),
            Some("http://t/")
        );
        assert_eq!(torrent.get(b"ann"), None);
        let info = torrent.get(b"info").unwrap().as_dict().unwrap();
        assert!(info.raw().starts_with(b"d5:filesl") && info.raw().ends_with(b"4:sda1e"));
        assert_eq!(info.get(b"name"), Some(Value::Bytes(b"sda1")));
        let files = info.get(b"files").unwrap().as_list().unwrap();
        assert!(files.raw.starts_with(b"ld6:") && files.raw.ends_with(b"feee"));
        let lengths: Vec<i64> = files
            .iter()
            .map(|file| {
                file.as_dict()
                    .unwrap()
                    .get(b"length")
                    .unwrap()
                    .as_integer()
                    .unwrap()
            })
            .collect();
        assert_eq!(lengths, [512, 0]);
        assert_eq!(
            parse(b"d1:ai1e1:b0:1:ai2ee")
                .unwrap()
                .as_dict()
                .unwrap()
                .get(b"a"),
            Some(Value::Integer(1))
        );
    }

    #[test]
    fn a_value_read_as_another_kind_is_none() {
        let (integer, bytes) = (Value::Integer(1), Value::Bytes(b"\xff"));
        let (list, dict) = (parse(b"le").unwrap(), parse(b"de").unwrap());
        assert_eq!(
            (integer.as_bytes(), integer.as_list(), integer.as_dict()),
            (None, None, None)
        );
        assert_eq!(
            (bytes.as_integer(), bytes.as_str(), bytes.as_list()),
            (None, None, None)
        );
        assert_eq!(
            (list.as_integer(), list.as_bytes(), list.as_dict()),
            (None, None, None)
        );
        assert_eq!((dict.as_str(), dict.as_list()), (None, None));
    }

    #[test]
    fn a_prefix_may_be_followed_by_anything() {
        assert_eq!(
            parse_prefix(b"i7e\x00\xff").unwrap(),
            (Value::Integer(7), 3)
        );
        let (value, length) = parse_prefix(b"d5:piecei0eeRAW").unwrap();
        assert_eq!(
            (value.as_dict().unwrap().raw(), length),
            (&b"d5:piecei0ee"[..], 12)
        );
        assert_eq!(parse_prefix(b"li7e"), Err(Truncated { offset: 4 }));
    }

    #[test]
    fn cut_short_anywhere_is_an_error() {
        for length in 0..TORRENT.len() {
            assert!(parse(&TORRENT[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn nesting_has_a_bound() {
        let nested = |depth| [vec![b'l'; depth], vec![b'e'; depth]].concat();
        round_trip(&nested(limits::BENCODE_DEPTH_MAX));
        let offset = limits::BENCODE_DEPTH_MAX;
        assert_eq!(parse(&nested(offset + 1)), Err(TooDeep { offset }));
        assert_eq!(parse(&vec![b'l'; 10_000_000]), Err(TooDeep { offset }));
        assert_eq!(
            parse(&b"d0:".repeat(1000)),
            Err(TooDeep { offset: 3 * offset })
        );
    }

    /// Random input, and good input with a few bytes changed, gives an error or a readable value
    /// but never a panic.
    #[test]
    fn random_and_changed_input_never_panics() {
        let mut rng = Rng::new(20);
        let alphabet = b"iiillldde0123459:::-ab\xff";
        for _ in 0..50_000 {
            let length = rng.below(40);
            let random: Vec<u8> = (0..length)
                .map(|_| alphabet[rng.below(alphabet.len() as u32) as usize])
                .collect();
            let mut mutated = TORRENT.to_vec();
            for _ in 0..=rng.below(3) {
                let at = rng.below(TORRENT.len() as u32) as usize;
                mutated[at] = alphabet[rng.below(alphabet.len() as u32) as usize];
            }
            for input in [random, mutated] {
                if parse(&input).is_ok() {
                    round_trip(&input);
                }
            }
        }
    }

    /// 100,000 files take as many steps as there are bytes, not the square of that. If this were
    /// wrong, the test would take hours.
    #[test]
    fn many_files_are_walked_in_linear_time() {
        let count = 100_000;
        let input = [
            &b"l"[..],
            &b"d6:lengthi512e4:pathl1:0ee".repeat(count),
            b"e",
        ]
        .concat();
        let files = parse(&input).unwrap().as_list().unwrap();
        let total: i64 = files
            .iter()
            .flat_map(|file| file.as_dict().unwrap().iter())
            .filter_map(|(key, value)| value.as_integer().filter(|_| key == b"length"))
            .sum();
        assert_eq!(total, 512 * count as i64);
    }

    #[test]
    fn numbers_are_written_in_full() {
        for integer in [0, 9, 10, -10, i64::MAX, i64::MIN] {
            let mut out = vec![];
            put_integer(&mut out, integer);
            assert_eq!(out, std::format!("i{integer}e").into_bytes());
        }
    }

    #[test]
    fn white_space_may_follow_the_value() {
        for end in ["\n", "\r\n", " \t\n\n"] {
            let input = format!("d1:ai1ee{end}");
            assert!(parse(input.as_bytes()).is_ok(), "{end:?}");
            let more = format!("{input}x");
            let error = Err(BencodeError::TrailingBytes { offset: 8 });
            assert_eq!(parse(more.as_bytes()), error);
        }
    }
}
