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

fuzz_target!(|body: &[u8]| {
    match Answer::parse(body) {
        Ok(Answer::Peers { peers, warning }) => {
            check_peers(&peers, body.len());
            warning.iter().for_each(|text| check_text(text, body.len()));
            check_again(peers, warning);
        }
        Ok(Answer::Failure(reason)) => {
            check_text(&reason, body.len());
            let mut written = b"d".to_vec();
            put_entry(&mut written, "failure reason", reason.as_bytes());
            written.push(b'e');
            assert_eq!(Answer::parse(&written), Ok(Answer::Failure(reason)));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

fn check_peers(peers: &[SocketAddr], body_bytes: usize) {
    assert!(peers.len() <= body_bytes / 6);
    for address in peers {
        let again = compact::connectable(address.ip(), address.port());
        assert_eq!(again, Some(*address));
        assert_ne!(address.port(), 0);
        assert_eq!(address.ip(), address.ip().to_canonical());
    }
}

fn check_text(text: &str, body_bytes: usize) {
    assert!(!text.contains(char::is_control), "{text:?}");
    // U+FFFD in the place of a byte has three.
    assert!(text.len() <= 3 * body_bytes);
}

/// The order of IPv4 addresses stays, and that of IPv6 addresses: they are in strings of their own.
fn check_again(mut peers: Vec<SocketAddr>, warning: Option<String>) {
    peers.sort_by_key(SocketAddr::is_ipv6);
    let (peers4, peers6) = compact::pack(&peers);
    let mut written = b"d".to_vec();
    put_entry(&mut written, "peers", &peers4);
    put_entry(&mut written, "peers6", &peers6);
    if let Some(text) = &warning {
        put_entry(&mut written, "warning message", text.as_bytes());
    }
    written.push(b'e');
    assert_eq!(
        Answer::parse(&written),
        Ok(Answer::Peers { peers, warning })
    );
}

fn put_entry(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    put_bytes(out, key.as_bytes());
    put_bytes(out, value);
}
