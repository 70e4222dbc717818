//! What does an HTTP/1.1 client send, and what is the answer? (RFC 9110, RFC 9112.)
//!
//! It does what torrents and trackers need: one request, one answer, then the connection is closed.
//! The shell connects to `Url::host` and `Url::port`, sends the bytes of [`get`] or [`post`], and
//! feeds the answer to a [`ResponseReader`] until it is done.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::limits::HTTP_HEAD_BYTES_MAX;
use crate::wire::url::Url;

/// The bytes that request what is at `url`.
pub fn get(url: &Url) -> Vec<u8> {
    request("GET", url, "", &[])
}

/// The bytes that send `body` to what is at `url`.
pub fn post(url: &Url, content_type: &str, body: &[u8]) -> Vec<u8> {
    assert!(!content_type.contains(char::is_control));
    let headers = format!(
        "Content-Type: {content_type}\r\nContent-Length: {}\r\n",
        body.len()
    );
    request("POST", url, &headers, body)
}

fn request(method: &str, url: &Url, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {} HTTP/1.1\r\n\
         Host: {}\r\n\
         User-Agent: swarmdd/{}\r\n\
         Accept-Encoding: identity\r\n\
         Connection: close\r\n\
         {headers}\r\n",
        url.target,
        url.authority(),
        env!("CARGO_PKG_VERSION"),
    );
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Reads an answer as it arrives, in parts of any size.
///
/// Call [`push`](Self::push) with the bytes that were read, and [`close`](Self::close) when the
/// server has closed the connection, until [`is_done`](Self::is_done) or an error. Bytes behind the
/// answer are ignored. Memory grows only with the bytes that have arrived, whatever length the
/// server announces.
#[derive(Debug)]
pub struct ResponseReader {
    state: State,
    body_bytes_max: usize,
    /// The line that is being received; empty while the body is.
    line: Vec<u8>,
    /// Bytes of lines since the head, the line of a chunk or the trailers began.
    line_bytes: usize,
    head: Head,
    body: Vec<u8>,
}

/// What the lines of the head say.
#[derive(Debug, Default)]
struct Head {
    status: Option<u16>,
    content_length: Option<u64>,
    chunked: bool,
    location: Option<String>,
    retry_after: Option<Duration>,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// How long the server asks us to wait, if it says so in seconds.
    pub retry_after: Option<Duration>,
    pub body: Vec<u8>,
}

/// What comes next. The numbers are missing bytes, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    StatusLine,
    Headers,
    Body(usize),
    BodyUntilClose,
    ChunkSize,
    Chunk(usize),
    ChunkEnd,
    Trailers,
    Done,
    Failed(HttpError),
}

impl ResponseReader {
    /// An answer with a body of more than `body_bytes_max` is refused.
    pub fn new(body_bytes_max: usize) -> ResponseReader {
        ResponseReader {
            state: State::StatusLine,
            body_bytes_max,
            line: Vec::new(),
            line_bytes: 0,
            head: Head::default(),
            body: Vec::new(),
        }
    }

    /// Takes bytes that have arrived. After an error every call returns the same error.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), HttpError> {
        while !bytes.is_empty() {
            match self.step(bytes) {
                Ok(consumed) => bytes = &bytes[consumed..],
                Err(error) => {
                    self.state = State::Failed(error);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// The server has closed the connection. This ends a body without a length, and is an error
    /// before the end of any other answer.
    pub fn close(&mut self) -> Result<(), HttpError> {
        self.state = match self.state {
            State::Done | State::BodyUntilClose => State::Done,
            State::Failed(error) => State::Failed(error),
            State::StatusLine | State::Headers => State::Failed(HttpError::ClosedInHead),
            State::Body(_)
            | State::ChunkSize
            | State::Chunk(_)
            | State::ChunkEnd
            | State::Trailers => {
                let (received, expected) = (self.body.len(), self.head.content_length);
                State::Failed(HttpError::ClosedInBody { received, expected })
            }
        };
        match self.state {
            State::Failed(error) => Err(error),
            _ => Ok(()),
        }
    }

    /// True when the whole answer has arrived.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    pub fn status(&self) -> Option<u16> {
        self.head.status
    }

    /// The target of a redirect as the server wrote it, for [`Url::join`].
    pub fn location(&self) -> Option<&str> {
        self.head.location.as_deref()
    }

    /// The answer; call it when `is_done`.
    pub fn into_response(self) -> Response {
        Response {
            status: self.head.status.unwrap_or_default(),
            retry_after: self.head.retry_after,
            body: self.body,
        }
    }

    /// Takes bytes from the front. Returns how many, at least one.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, HttpError> {
        match self.state {
            State::StatusLine
            | State::Headers
            | State::ChunkSize
            | State::ChunkEnd
            | State::Trailers => self.take_line(bytes),
            State::Body(missing) => {
                let (taken, missing) = self.take_body(bytes, missing);
                self.state = if missing == 0 {
                    State::Done
                } else {
                    State::Body(missing)
                };
                Ok(taken)
            }
            State::Chunk(missing) => {
                let (taken, missing) = self.take_body(bytes, missing);
                self.state = if missing == 0 {
                    State::ChunkEnd
                } else {
                    State::Chunk(missing)
                };
                Ok(taken)
            }
            State::BodyUntilClose => {
                self.check_fits(bytes.len() as u64)?;
                self.body.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            State::Done => Ok(bytes.len()),
            State::Failed(error) => Err(error),
        }
    }

    fn take_body(&mut self, bytes: &[u8], missing: usize) -> (usize, usize) {
        assert!(missing > 0);
        let taken = missing.min(bytes.len());
        self.body.extend_from_slice(&bytes[..taken]);
        assert!(self.body.len() <= self.body_bytes_max);
        (taken, missing - taken)
    }

    /// Collects a line up to its LF, with or without a CR before it, and acts on it.
    fn take_line(&mut self, bytes: &[u8]) -> Result<usize, HttpError> {
        let line_feed = bytes.iter().position(|&byte| byte == b'\n');
        let taken = line_feed.map_or(bytes.len(), |at| at + 1);
        self.line_bytes += taken;
        if self.line_bytes > HTTP_HEAD_BYTES_MAX {
            return Err(HttpError::HeadTooLong);
        }
        self.line.extend_from_slice(&bytes[..taken]);
        if line_feed.is_some() {
            let line = core::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            self.handle_line(line.strip_suffix(b"\r").unwrap_or(line))?;
        }
        Ok(taken)
    }

    fn handle_line(&mut self, line: &[u8]) -> Result<(), HttpError> {
        self.state = match self.state {
            State::StatusLine => {
                self.head.status = Some(parse_status(line).ok_or(HttpError::NotHttp)?);
                State::Headers
            }
            State::Headers if line.is_empty() => self.after_head()?,
            State::Headers => {
                self.head.take_header(line)?;
                State::Headers
            }
            State::ChunkSize => self.after_chunk_size(line)?,
            State::ChunkEnd if line.is_empty() => {
                self.line_bytes = 0;
                State::ChunkSize
            }
            State::ChunkEnd => return Err(HttpError::BadChunk),
            State::Trailers if line.is_empty() => State::Done,
            State::Trailers => State::Trailers,
            State::Body(_)
            | State::BodyUntilClose
            | State::Chunk(_)
            | State::Done
            | State::Failed(_) => {
                unreachable!("bodies have no lines")
            }
        };
        Ok(())
    }

    /// The head has ended: how long is the body? (RFC 9112, section 6.3.)
    fn after_head(&mut self) -> Result<State, HttpError> {
        let status = self.head.status.expect("the status line comes first");
        if status < 200 {
            // This is an interim answer. line_bytes is not reset, which bounds their number.
            self.head = Head::default();
            return Ok(State::StatusLine);
        }
        self.line_bytes = 0;
        if status == 204 || status == 304 {
            return Ok(State::Done);
        }
        if self.head.chunked {
            self.head.content_length = None;
            return Ok(State::ChunkSize);
        }
        match self.head.content_length {
            None => Ok(State::BodyUntilClose),
            Some(0) => Ok(State::Done),
            Some(length) => Ok(State::Body(self.check_fits(length)?)),
        }
    }

    /// The line has the size in hexadecimal, perhaps followed by extensions. Size 0 is the end
    /// (RFC 9112, section 7.1).
    fn after_chunk_size(&mut self, line: &[u8]) -> Result<State, HttpError> {
        self.line_bytes = 0;
        let size = line
            .split(|byte| b"; \t".contains(byte))
            .next()
            .unwrap_or_default();
        let size = parse_number(size, 16).ok_or(HttpError::BadChunk)?;
        if size == 0 {
            return Ok(State::Trailers);
        }
        Ok(State::Chunk(self.check_fits(size)?))
    }

    /// The length as a number of bytes, if the body may grow by that many.
    fn check_fits(&self, length: u64) -> Result<usize, HttpError> {
        let free = self.body_bytes_max - self.body.len();
        let too_long = HttpError::BodyTooLong {
            bytes_max: self.body_bytes_max,
        };
        usize::try_from(length)
            .ok()
            .filter(|&length| length <= free)
            .ok_or(too_long)
    }
}

impl Head {
    fn take_header(&mut self, line: &[u8]) -> Result<(), HttpError> {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            // An obsolete continuation of the header before (RFC 9112, section 5.2). No header that
            // we read is long enough to be continued.
            return Ok(());
        }
        let colon = line
            .iter()
            .position(|&byte| byte == b':')
            .ok_or(HttpError::BadHeader)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            self.take_content_length(value)
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(HttpError::Encoding);
            }
            self.chunked = true;
            Ok(())
        } else if name.eq_ignore_ascii_case(b"content-encoding") {
            let identity = value.is_empty() || value.eq_ignore_ascii_case(b"identity");
            if identity {
                Ok(())
            } else {
                Err(HttpError::Encoding)
            }
        } else {
            if name.eq_ignore_ascii_case(b"location") {
                self.location = Some(String::from_utf8_lossy(value).into_owned());
            } else if name.eq_ignore_ascii_case(b"retry-after") {
                // A date (RFC 9110, section 10.2.3) is ignored: our clock may be wrong.
                self.retry_after = parse_number(value, 10).map(Duration::from_secs);
            }
            Ok(())
        }
    }

    /// The same length may be repeated, in one header or in several (RFC 9110, section 8.6).
    fn take_content_length(&mut self, value: &[u8]) -> Result<(), HttpError> {
        for part in value.split(|&byte| byte == b',') {
            let length = parse_number(part.trim_ascii(), 10).ok_or(HttpError::BadContentLength)?;
            if self.content_length.is_some_and(|known| known != length) {
                return Err(HttpError::BadContentLength);
            }
            self.content_length = Some(length);
        }
        Ok(())
    }
}

/// The three digits of `HTTP/1.1 200 OK`. The reason after them may be missing.
fn parse_status(line: &[u8]) -> Option<u16> {
    let [b'0'..=b'9', b' ', digits @ ..] = line.strip_prefix(b"HTTP/1.")? else {
        return None;
    };
    let (digits, rest) = digits.split_at_checked(3)?;
    let status = u16::try_from(parse_number(digits, 10)?).ok()?;
    (status >= 100 && (rest.is_empty() || rest.starts_with(b" "))).then_some(status)
}

/// A number of digits and nothing else. `from_str_radix` alone would accept a plus sign.
fn parse_number(digits: &[u8], radix: u32) -> Option<u64> {
    let digits = core::str::from_utf8(digits).ok()?;
    let number = u64::from_str_radix(digits, radix).ok()?;
    digits
        .chars()
        .all(|digit| digit.is_digit(radix))
        .then_some(number)
}

/// Why an answer cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpError {
    NotHttp,
    HeadTooLong,
    BadHeader,
    BadContentLength,
    Encoding,
    BadChunk,
    BodyTooLong {
        bytes_max: usize,
    },
    ClosedInHead,
    ClosedInBody {
        received: usize,
        expected: Option<u64>,
    },
}

impl HttpError {
    /// A status line had arrived by then, so a server of HTTP is there.
    pub fn follows_status(&self) -> bool {
        match self {
            HttpError::NotHttp | HttpError::HeadTooLong | HttpError::ClosedInHead => false,
            HttpError::BadHeader
            | HttpError::BadContentLength
            | HttpError::Encoding
            | HttpError::BadChunk
            | HttpError::BodyTooLong { .. }
            | HttpError::ClosedInBody { .. } => true,
        }
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HttpError::NotHttp => f.write_str("server does not answer in HTTP/1"),
            HttpError::HeadTooLong => {
                write!(
                    f,
                    "server sent a head of more than {HTTP_HEAD_BYTES_MAX} bytes"
                )
            }
            HttpError::BadHeader => f.write_str("server sent a header without a colon"),
            HttpError::BadContentLength => {
                f.write_str("server sent a bad or contradicting Content-Length")
            }
            HttpError::Encoding => f.write_str("server sent an encoding that was not asked for"),
            HttpError::BadChunk => f.write_str("server sent a bad chunk"),
            HttpError::BodyTooLong { bytes_max } => {
                write!(
                    f,
                    "server sends more than the {bytes_max} bytes that are accepted"
                )
            }
            HttpError::ClosedInHead => {
                f.write_str("server closed the connection before it answered")
            }
            HttpError::ClosedInBody {
                received,
                expected: Some(expected),
            } => {
                write!(
                    f,
                    "server closed the connection after {received} of {expected} bytes"
                )
            }
            HttpError::ClosedInBody {
                received,
                expected: None,
            } => {
                write!(
                    f,
                    "server closed the connection after {received} bytes, before the end"
                )
            }
        }
    }
}

impl core::error::Error for HttpError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use alloc::borrow::ToOwned;
    use std::string::ToString;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn requests_have_these_bytes() {
        let version = env!("CARGO_PKG_VERSION");
        let common = format!(
            "User-Agent: swarmdd/{version}\r\nAccept-Encoding: identity\r\nConnection: close\r\n"
        );
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        assert_eq!(
            text(get(&url("http://server:6969/announce?x=%00"))),
            format!("GET /announce?x=%00 HTTP/1.1\r\nHost: server:6969\r\n{common}\r\n")
        );
        assert_eq!(
            text(get(&url("http://[::1]/i"))),
            format!("GET /i HTTP/1.1\r\nHost: [::1]\r\n{common}\r\n")
        );
        assert_eq!(
            text(post(
                &url("http://server/report"),
                "application/json",
                b"{}"
            )),
            format!(
                "POST /report HTTP/1.1\r\nHost: server\r\n{common}\
                 Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
            )
        );
    }

    /// Status, location and body of an answer, after which the server closes the connection.
    type Answer = Result<(u16, Option<String>, String), HttpError>;

    fn read(parts: &[&[u8]]) -> Answer {
        let mut reader = ResponseReader::new(20);
        for part in parts {
            reader.push(part)?;
        }
        reader.close()?;
        assert!(reader.is_done());
        let (status, location) = (
            reader.status().unwrap(),
            reader.location().map(ToOwned::to_owned),
        );
        Ok((
            status,
            location,
            String::from_utf8(reader.into_response().body).unwrap(),
        ))
    }

    /// Reads an answer at once, cut in two everywhere, and byte by byte. The result must not
    /// differ.
    fn read_every_way(text: &str) -> Answer {
        let bytes = text.as_bytes();
        let answer = read(&[bytes]);
        for cut in 0..=bytes.len() {
            assert_eq!(
                read(&[&bytes[..cut], &bytes[cut..]]),
                answer,
                "cut at {cut}"
            );
        }
        assert_eq!(
            read(&bytes.chunks(1).collect::<Vec<_>>()),
            answer,
            "byte by byte"
        );
        answer
    }

    #[test]
    fn good_answers_are_read() {
        let cases = [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
                200,
                "hello",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more",
                200,
                "hello",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n01234567890123456789",
                200,
                "01234567890123456789",
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, ""),
            (
                "HTTP/1.1 200 OK\r\ncontent-LENGTH:5\r\nContent-Length: 5, 5\r\n\r\nhello",
                200,
                "hello",
            ),
            ("HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, "until the end"),
            ("HTTP/1.1 200\nContent-Length: 2\n\nok", 200, "ok"),
            (
                "HTTP/1.1 404 Not Found\r\nServer: nginx/1.22.1\r\n\r\nno",
                404,
                "no",
            ),
            (
                "HTTP/1.1 204 No Content\r\nContent-Length: 500\r\n\r\n",
                204,
                "",
            ),
            ("HTTP/1.1 304 Not Modified\r\n\r\n", 304, ""),
            (
                "HTTP/1.1 100 Continue\r\nContent-Length: 9\r\n\r\nHTTP/1.1 200 OK\r\n\r\nx",
                200,
                "x",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n00A;ext=\"1\"\r\n, everyone\r\n0\r\n\r\n",
                200,
                "hello, everyone",
            ),
            (
                "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nContent-Length: 999\n\n5 \nhello\n0\nTrailer: x\n\n",
                200,
                "hello",
            ),
            (
                "HTTP/1.1 200 OK\r\nX: a\r\n b: folded\r\nContent-Encoding: identity\r\n\r\nx",
                200,
                "x",
            ),
        ];
        for (text, status, body) in cases {
            assert_eq!(
                read_every_way(text),
                Ok((status, None, body.into())),
                "{text}"
            );
        }
        let moved =
            "HTTP/1.1 302 Found\r\nLocation:  /images/a.torrent \r\nContent-Length: 4\r\n\r\nmove";
        assert_eq!(
            read_every_way(moved),
            Ok((302, Some("/images/a.torrent".into()), "move".into()))
        );
    }

    #[test]
    fn the_pause_that_a_server_asks_for_is_read_if_it_is_in_seconds() {
        for (value, seconds) in [
            ("7", Some(7)),
            ("Fri, 31 Dec 1999 23:59:59 GMT", None),
            ("-1", None),
            ("99999999999999999999", None),
        ] {
            let head =
                format!("HTTP/1.1 503 x\r\nretry-AFTER: {value}\r\nContent-Length: 4\r\n\r\n");
            let mut reader = ResponseReader::new(20);
            reader.push(head.as_bytes()).unwrap();
            reader.push(b"busy").unwrap();
            let expected = Response {
                status: 503,
                retry_after: seconds.map(Duration::from_secs),
                body: b"busy".to_vec(),
            };
            assert_eq!(reader.into_response(), expected, "{value}");
        }
    }

    #[test]
    fn an_answer_of_known_length_is_done_before_it_is_closed() {
        let cases = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
            ("HTTP/1.1 204 No Content\r\n\r\n", true),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
                true,
            ),
            ("HTTP/1.1 200 OK\r\n\r\nhello", false),
        ];
        for (text, done) in cases {
            let mut reader = ResponseReader::new(20);
            reader.push(text.as_bytes()).unwrap();
            assert_eq!(reader.is_done(), done, "{text}");
            let mut reader = ResponseReader::new(20);
            for cut in 0..text.len() {
                assert!(!reader.is_done(), "{text} done at {cut}");
                reader.push(&text.as_bytes()[cut..=cut]).unwrap();
            }
        }
        let mut reader = ResponseReader::new(20);
        reader
            .push(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
            .unwrap();
        assert_eq!(
            (reader.head.content_length, &reader.body[..]),
            (Some(5), &b"he"[..])
        );
    }

    #[test]
    fn answers_cut_short_are_errors() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
        ] {
            let head = text.find("\r\n\r\n").unwrap() + 4;
            for cut in 0..text.len() {
                match read(&[&text.as_bytes()[..cut]]) {
                    Err(HttpError::ClosedInHead) => assert!(cut < head),
                    Err(HttpError::ClosedInBody { received, .. }) => {
                        assert!(cut >= head && received <= 5)
                    }
                    other => panic!("cut at {cut}: {other:?}"),
                }
            }
        }
        let short = read(&[b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"]).unwrap_err();
        assert_eq!(
            short.to_string(),
            "server closed the connection after 4 of 5 bytes"
        );
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn bad_answers_are_refused() {
        let too_long = HttpError::BodyTooLong { bytes_max: 20 };
        let cases = [
            ("SSH-2.0-OpenSSH\r\n", HttpError::NotHttp),
            ("HTTP/2 200\r\n\r\n", HttpError::NotHttp),
            ("HTTP/1.1 099 x\r\n\r\n", HttpError::NotHttp),
            ("HTTP/1.1 2000 x\r\n\r\n", HttpError::NotHttp),
            ("HTTP/1.1 +20 x\r\n\r\n", HttpError::NotHttp),
            ("HTTP/1.1 20\r\n\r\n", HttpError::NotHttp),
            ("\r\n", HttpError::NotHttp),
            ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", HttpError::BadHeader),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
                HttpError::BadContentLength,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
                HttpError::BadContentLength,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
                HttpError::BadContentLength,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
                HttpError::BadContentLength,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
                HttpError::BadContentLength,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
                HttpError::BadContentLength,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n",
                too_long,
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n", too_long),
            ("HTTP/1.1 200 OK\r\n\r\n012345678901234567890", too_long),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n15\r\n",
                too_long,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n14\r\n",
                too_long,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n",
                too_long,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n",
                HttpError::BadChunk,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
                HttpError::BadChunk,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n",
                HttpError::BadChunk,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
                HttpError::BadChunk,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                HttpError::Encoding,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n",
                HttpError::Encoding,
            ),
        ];
        for (text, error) in cases {
            assert_eq!(read_every_way(text), Err(error), "{text}");
        }
    }

    #[test]
    fn every_call_after_an_error_returns_it() {
        let mut reader = ResponseReader::new(20);
        assert_eq!(reader.push(b"nonsense\n"), Err(HttpError::NotHttp));
        assert_eq!(
            reader.push(b"HTTP/1.1 200 OK\r\n\r\n"),
            Err(HttpError::NotHttp)
        );
        assert_eq!(reader.close(), Err(HttpError::NotHttp));
        assert!(!reader.is_done());
    }

    /// Endless lines, headers, interim answers, chunk extensions and trailers are all refused at
    /// the same bound.
    #[test]
    fn heads_are_bounded() {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let cases = [
            ("", "x"),
            ("HTTP/1.1 200 OK\r\n", "X: y\r\n"),
            ("", "HTTP/1.1 100 Continue\r\n\r\n"),
            (chunked, "1;x"),
            (&format!("{chunked}0\r\n"), "X: y\r\n"),
        ];
        for (start, repeated) in cases {
            let mut reader = ResponseReader::new(20);
            reader.push(start.as_bytes()).unwrap();
            let refused =
                (1..=HTTP_HEAD_BYTES_MAX + 1).find(|_| reader.push(repeated.as_bytes()).is_err());
            let pushed = refused.expect("there is a bound") * repeated.len();
            assert!(pushed <= HTTP_HEAD_BYTES_MAX + repeated.len(), "{repeated}");
            assert_eq!(reader.push(b"x"), Err(HttpError::HeadTooLong));
            assert!(reader.line.capacity() <= 2 * HTTP_HEAD_BYTES_MAX);
        }
    }

    #[test]
    fn an_announced_length_allocates_nothing() {
        let mut reader = ResponseReader::new(usize::MAX);
        reader
            .push(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000000000000000\r\n\r\nx")
            .unwrap();
        assert!(reader.body.capacity() < 100);
        let mut reader = ResponseReader::new(usize::MAX);
        reader
            .push(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\nx")
            .unwrap();
        assert!(reader.body.capacity() < 100);
    }

    /// Good answers with bytes overwritten, removed and repeated, in parts of random size, and
    /// random bytes.
    #[test]
    fn changed_and_random_answers_never_panic() {
        let good = [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\nContent-Length: 15\r\n\r\n0123456789abcdef"[..],
            b"HTTP/1.1 301 x\r\nLocation: ../x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n",
        ];
        let base = url("http://server/a/b");
        let mut rng = Rng::new(0x5eed);
        for round in 0..30_000 {
            let mut bytes = good[round % 2].to_vec();
            for _ in 0..1 + rng.below(4) {
                let at = rng.below(bytes.len() as u32) as usize;
                match rng.below(4) {
                    0 => drop(bytes.remove(at)),
                    1 => bytes.insert(at, bytes[at]),
                    2 => bytes[at] = rng.below(256) as u8,
                    _ => bytes[at] = b"0123456789:\r\n; fF,"[rng.below(18) as usize],
                }
            }
            let mut reader = ResponseReader::new(16);
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (part, later) = rest.split_at(1 + rng.below(rest.len() as u32) as usize);
                rest = later;
                if reader.push(part).is_err() {
                    break;
                }
            }
            let _ = reader.close(); // only that it returns
            assert!(reader.body.len() <= 16);
            let _ = reader.location().map(|location| base.join(location));
            let noise: Vec<u8> = (0..rng.below(60)).map(|_| rng.below(128) as u8).collect();
            let _ = Url::parse(&String::from_utf8_lossy(&[b"http://", &noise[..]].concat()));
            let _ = base.join(&String::from_utf8_lossy(&noise));
        }
    }
}
