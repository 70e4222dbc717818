//! Does a tracker's answer give only addresses that can be called, and text that can be shown?
//!
//! Holds: every address is connectable; there are no more than fit into the answer; written as a
//! tracker writes it, the answer is read as the same again; text has no control characters.
#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use swarm_proto::format::bencode::put_bytes;
use swarm_proto::wire::announce::Answer;
use swarm_proto::wire::compact;
use swarm_proto::wire::http::Response;

fuzz_target!(|body: &[u8]| {
    match Answer::parse(body) {
        Ok(mut answer) => {
            if let Answer::Peers { peers, .. } = &mut answer {
                peers.sort_by_key(SocketAddr::is_ipv6);
            }
            check(&answer, body.len());
            assert_eq!(Answer::parse(&written(&answer)), Ok(answer));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    for status in [200, 403, 429, 503] {
        let answer = Answer::of(&Response {
            status,
            retry_after: None,
            body: body.into(),
        });
        check(&answer, body.len());
        match answer {
            Answer::Peers { .. } => assert_eq!(status, 200),
            Answer::Refusal { by_tracker, .. } => {
                assert_eq!(by_tracker, Answer::parse(body).is_ok());
            }
        }
    }
});

fn check(answer: &Answer, body_bytes: usize) {
    let text = match answer {
        Answer::Peers { peers, warning } => {
            check_peers(peers, body_bytes);
            warning.as_ref()
        }
        Answer::Refusal { reason, .. } => Some(reason),
    };
    if let Some(text) = text {
        assert!(!text.contains(char::is_control), "{text:?}");
        // U+FFFD in the place of a byte has three, and a status is a short sentence.
        assert!(text.len() <= 3 * body_bytes + 100, "{text:?}");
    }
}

fn check_peers(peers: &[SocketAddr], body_bytes: usize) {
    assert!(peers.len() <= body_bytes / 6);
    for address in peers {
        let again = compact::connectable(address.ip(), address.port());
        assert_eq!(again, Some(*address));
        assert_ne!(address.port(), 0);
        assert_eq!(address.ip(), address.ip().to_canonical());
    }
}

/// As a tracker writes it. IPv4 and IPv6 addresses have strings of their own, so the answer must
/// have them in this order.
fn written(answer: &Answer) -> Vec<u8> {
    let mut written = b"d".to_vec();
    match answer {
        Answer::Peers { peers, warning } => {
            let (peers4, peers6) = compact::pack(peers);
            put_entry(&mut written, "peers", &peers4);
            put_entry(&mut written, "peers6", &peers6);
            if let Some(text) = warning {
                put_entry(&mut written, "warning message", text.as_bytes());
            }
        }
        Answer::Refusal { reason, .. } => {
            put_entry(&mut written, "failure reason", reason.as_bytes());
        }
    }
    written.push(b'e');
    written
}

fn put_entry(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    put_bytes(out, key.as_bytes());
    put_bytes(out, value);
}
