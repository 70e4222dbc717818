//! Is an HTTP answer the same in whatever parts it arrives?
//!
//! Holds: status, redirect, pause, body and error do not depend on the cuts; a body never exceeds
//! its limit; bytes behind an answer change nothing. Input: the limit (two bytes), whether the
//! server closes, the number of cuts, the lengths between them, and the bytes of the answer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use swarm_proto::wire::http::{HttpError, Response, ResponseReader};
use swarmdd_fuzz::{Input, cut};

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let limit = usize::from(input.u16());
    let closes = input.chance(2);
    let cuts = input.choose(16);
    let (lengths, answer) = (input.take(cuts), input.rest());
    let whole = read(limit, closes, [answer]);
    assert_eq!(whole, read(limit, closes, cut(answer, lengths)));
    assert_eq!(whole, read(limit, closes, cut(answer, &[1])));
    if whole.done {
        let more = [answer, b"HTTP/1.1 500 Behind\r\n\r\n"].concat();
        let is_the_end = read(limit, false, [answer]).done;
        assert!(!is_the_end || whole == read(limit, closes, [&more[..]]));
    }
});

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    status: Option<u16>,
    location: Option<String>,
    done: bool,
    error: Option<HttpError>,
    /// Of an answer that is no error: a part of the body may have come before the error was seen.
    response: Option<Response>,
}

fn read<'a>(limit: usize, closes: bool, parts: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut reader = ResponseReader::new(limit);
    let mut result = Ok(());
    for part in parts {
        result = reader.push(part);
        if result.is_err() {
            assert_eq!(reader.push(b"x"), result, "an error stays");
            break;
        }
    }
    if closes {
        let closed = reader.close();
        assert!(result.is_ok() || closed == result);
        assert_eq!(closed.is_ok(), reader.is_done());
        result = closed;
    }
    let (status, done) = (reader.status(), reader.is_done());
    let location = reader.location().map(String::from);
    let response = reader.into_response();
    let body_bytes = response.body.len();
    assert!(body_bytes <= limit, "{body_bytes} bytes of {limit}");
    Outcome {
        status,
        location,
        done,
        error: result.err(),
        response: result.is_ok().then_some(response),
    }
}
