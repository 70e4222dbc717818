//! How is a JSON object read that holds nothing but strings, whole numbers, true, false and null?
//!
//! The programs of this machine ask the daemon in such objects, one a line. Read first: RFC 8259.
//! Arrays and objects inside are refused, which no request needs. A name may stand twice: the
//! reader of the members decides. Every error names its byte, counted from 0.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Names and values, in their order.
pub type Members = Vec<(String, Value)>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    /// A whole number, true, false or null, as it was written.
    Word(String),
}

/// Reads one object, with blanks around it. The text must be UTF-8.
pub fn object(text: &[u8]) -> Result<Members, JsonError> {
    let text = core::str::from_utf8(text).map_err(|error| JsonError {
        at: error.valid_up_to(),
        expected: "UTF-8",
    })?;
    let mut reader = Reader { text, at: 0 };
    let members = reader.members()?;
    match reader.peek() {
        None => Ok(members),
        Some(_) => reader.error("the end of the line"),
    }
}

struct Reader<'a> {
    text: &'a str,
    /// What is before it has been read.
    at: usize,
}

impl<'a> Reader<'a> {
    fn members(&mut self) -> Result<Members, JsonError> {
        let mut members = Members::new();
        self.insist(b'{', "'{'")?;
        if self.takes(b'}') {
            return Ok(members);
        }
        loop {
            self.insist(b'"', "a name in '\"'")?;
            let name = self.string()?;
            self.insist(b':', "':'")?;
            let value = match self.takes(b'"') {
                true => Value::Text(self.string()?),
                false => Value::Word(self.word()?.into()),
            };
            members.push((name, value));
            if self.takes(b'}') {
                return Ok(members);
            }
            self.insist(b',', "',' or '}'")?;
        }
    }

    /// A number or one of three names.
    fn word(&mut self) -> Result<&'a str, JsonError> {
        let rest = self.rest();
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        let end = rest.bytes().position(|byte| !is_part(byte));
        let word = &rest[..end.unwrap_or(rest.len())];
        if !matches!(word, "true" | "false" | "null") && !is_number(word) {
            return self.error("a string, a whole number, true, false or null");
        }
        self.at += word.len();
        Ok(word)
    }

    /// What is left of a string after its first quote.
    fn string(&mut self) -> Result<String, JsonError> {
        let mut string = String::new();
        loop {
            let rest = self.rest();
            let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
            let end = rest.bytes().position(|byte| !is_plain(byte));
            let plain = &rest[..end.unwrap_or(rest.len())];
            string.push_str(plain);
            self.at += plain.len();
            match self.rest().as_bytes().first() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(string);
                }
                Some(b'\\') => string.push(self.escaped()?),
                Some(_) => return self.error("an escape in place of a control character"),
                None => return self.error("'\"'"),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, JsonError> {
        let letter = match self.rest().as_bytes().get(1) {
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(plain @ (b'"' | b'\\' | b'/')) => char::from(*plain),
            Some(b'u') => return self.unicode(),
            _ => return self.error("an escape of JSON"),
        };
        self.at += 2;
        Ok(letter)
    }

    /// A character beyond U+FFFF has two escapes: a first and a second half of UTF-16.
    fn unicode(&mut self) -> Result<char, JsonError> {
        let (first, second) = (self.unit(0), self.unit(6));
        let (length, code) = match (first, second) {
            (Some(first @ 0xd800..0xdc00), Some(second @ 0xdc00..0xe000)) => (
                12,
                Some(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)),
            ),
            _ => (6, first),
        };
        match code.and_then(char::from_u32) {
            Some(letter) => {
                self.at += length;
                Ok(letter)
            }
            None => self.error("four hexadecimal digits of a character"),
        }
    }

    /// The unit of UTF-16 in the `\u` escape at `offset` from here.
    fn unit(&self, offset: usize) -> Option<u32> {
        let digits = self.rest().get(offset..offset + 6)?.strip_prefix("\\u")?;
        let add = |sum: u32, digit: char| Some(sum * 16 + digit.to_digit(16)?);
        digits.chars().try_fold(0, add)
    }

    // ---- steps

    /// The next byte that is not blank.
    fn peek(&mut self) -> Option<u8> {
        let mut rest = self.rest().bytes();
        let blanks = rest.position(|byte| !b" \t\r\n".contains(&byte));
        self.at = blanks.map_or(self.text.len(), |blanks| self.at + blanks);
        self.rest().bytes().next()
    }

    fn takes(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn insist(&mut self, byte: u8, expected: &'static str) -> Result<(), JsonError> {
        match self.takes(byte) {
            true => Ok(()),
            false => self.error(expected),
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error<T>(&self, expected: &'static str) -> Result<T, JsonError> {
        Err(JsonError {
            at: self.at,
            expected,
        })
    }
}

/// Digits without a zero before them, perhaps after a sign. No request needs a fraction.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    digits.iter().all(u8::is_ascii_digit) && matches!(digits, [b'0'] | [b'1'..=b'9', ..])
}

/// What was expected at which byte of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    at: usize,
    expected: &'static str,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let JsonError { at, expected } = self;
        write!(f, "not an object at byte {at}: expected {expected}")
    }
}

impl core::error::Error for JsonError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use alloc::format;
    use alloc::string::ToString;
    use alloc::vec;

    fn text(value: &str) -> Value {
        Value::Text(value.into())
    }

    fn word(value: &str) -> Value {
        Value::Word(value.into())
    }

    fn read(json: &str) -> Vec<(String, Value)> {
        object(json.as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}"))
    }

    #[test]
    fn an_object_is_read_in_its_order() {
        assert_eq!(read("{}"), []);
        assert_eq!(read(" \t{ } \r\n"), []);
        assert_eq!(
            read(r#"{"do":"add","torrent":"/tmp/ä b.torrent", "path" : "/dev/sda1","seed":false}"#),
            [
                ("do".into(), text("add")),
                ("torrent".into(), text("/tmp/ä b.torrent")),
                ("path".into(), text("/dev/sda1")),
                ("seed".into(), word("false")),
            ]
        );
        for literal in [
            "true",
            "false",
            "null",
            "0",
            "-0",
            "12",
            "-120",
            "99999999999999999999999",
        ] {
            let members = read(&format!("{{\"a\":{literal},\"a\": {literal} }}"));
            let value = ("a".to_string(), word(literal));
            assert_eq!(members, [value.clone(), value], "{literal}");
        }
    }

    #[test]
    fn escapes_are_characters() {
        for (json, expected) in [
            (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t"),
            (r"\u0041\u00e9\u20AC\u0000", "Aé€\0"),
            (r"\ud83d\ude00 \uD83D\uDE00", "😀 😀"),
            (r"😀", "😀"),
        ] {
            let members = read(&format!("{{\"{json}\":\"{json}\"}}"));
            assert_eq!(members, [(expected.to_string(), text(expected))], "{json}");
        }
    }

    const VALUE: &str = "5: expected a string, a whole number, true, false or null";
    const HALF: &str = "2: expected four hexadecimal digits of a character";

    #[test]
    fn errors_name_the_byte_and_what_was_expected() {
        for (json, said) in [
            ("", "0: expected '{'"),
            ("[]", "0: expected '{'"),
            ("{", "1: expected a name in '\"'"),
            ("{a:1}", "1: expected a name in '\"'"),
            ("{\"a\"}", "4: expected ':'"),
            ("{\"a\":}", VALUE),
            ("{\"a\":[1]}", VALUE),
            ("{\"a\":{}}", VALUE),
            ("{\"a\":nul}", VALUE),
            ("{\"a\":1", "6: expected ',' or '}'"),
            ("{\"a\":true]}", "9: expected ',' or '}'"),
            ("{\"a\":1,}", "7: expected a name in '\"'"),
            ("{\"a\":1}{", "7: expected the end of the line"),
            ("{\"a", "3: expected '\"'"),
            (
                "{\"a\nb\":1}",
                "3: expected an escape in place of a control character",
            ),
            (r#"{"\x":1}"#, "2: expected an escape of JSON"),
            (r#"{"\"#, "2: expected an escape of JSON"),
            (r#"{"\ä":1}"#, "2: expected an escape of JSON"),
            (r#"{"\u12"#, HALF),
            (r#"{"\u+123":1}"#, HALF),
            (r#"{"\u12ä":1}"#, HALF),
            // Half a character.
            (r#"{"\ud83d":1}"#, HALF),
            (r#"{"\ud83d\u0041":1}"#, HALF),
            (r#"{"\ude00":1}"#, HALF),
        ] {
            let error = object(json.as_bytes()).unwrap_err().to_string();
            assert_eq!(error, format!("not an object at byte {said}"), "{json}");
        }
        let error = object(b"{\"a\xff\":1}").unwrap_err().to_string();
        assert_eq!(error, "not an object at byte 3: expected UTF-8");
        for word in [
            "nul", "truely", "True", "1.5", "1e3", "01", "-", "-+1", "--1", "+1", "0x1",
        ] {
            let error = object(format!("{{\"a\":{word}}}").as_bytes()).unwrap_err();
            let said = "byte 5: expected a string, a whole number, true, false or null";
            assert_eq!(
                error.to_string(),
                format!("not an object at {said}"),
                "{word}"
            );
        }
    }

    #[test]
    fn what_is_cut_short_is_an_error() {
        let json = r#"{"do":"add", "a\u00e9\ud83d\ude00":-12,"seed":true}"#;
        read(json);
        for end in 0..json.len() {
            assert!(object(&json.as_bytes()[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn changed_and_random_objects_never_panic() {
        let json =
            r#"{"do":"add","torrent":"/tmp/\u00e9.torrent","n":-12,"path":null,"seed":true}"#;
        let letters = b"{}[]:,\"\\u0123456789abcdefDtrnl -+.eE\x00\x1f\x7f\xc3\xa9\xff";
        for seed in 0..20_000 {
            let mut rng = Rng::new(seed);
            let mut bytes = match rng.chance(1, 2) {
                true => json.as_bytes().to_vec(),
                false => vec![b'{'; 1 + rng.below(40) as usize],
            };
            for _ in 0..=rng.below(bytes.len() as u32) {
                let at = rng.below(bytes.len() as u32) as usize;
                bytes[at] = letters[rng.below(letters.len() as u32) as usize];
            }
            match object(&bytes) {
                Ok(members) => assert!(members.len() <= bytes.len() / 5),
                Err(error) => assert!(error.at <= bytes.len(), "seed {seed}: {error}"),
            }
        }
    }
}
