//! Does a URL, a redirect or a tracker's address always make exactly one HTTP request?
//!
//! Holds: what was read is written and read as the same; a request is one line, headers and an
//! empty line, all of visible ASCII; the same holds for whatever a redirect leads to, and for the
//! URL of an announce. Input: a URL, a line feed, a reference.
#![no_main]

use libfuzzer_sys::fuzz_target;
use swarm_proto::units::{InfoHash, PeerId};
use swarm_proto::wire::announce::{AnnounceRequest, Event};
use swarm_proto::wire::http;
use swarm_proto::wire::url::{Url, UrlError};

fuzz_target!(|text: &str| {
    let (text, location) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(url) = Url::parse(text) else { return };
    check(&url);
    assert_eq!(url.join(&url.to_string()).as_ref(), Ok(&url));
    if let Ok(joined) = url.join(location) {
        check(&joined);
    }
    match Url::parse(&announce(text)) {
        Ok(announced) => {
            check(&announced);
            assert_eq!(announced.authority(), url.authority());
            assert!(announced.target.contains("info_hash=%00"));
        }
        Err(error) => assert!(matches!(error, UrlError::TooLong { .. }), "{error}"),
    }
});

fn check(url: &Url) {
    match Url::parse(&url.to_string()) {
        Ok(again) => assert_eq!(again, *url),
        // A slash was added.
        Err(error) => assert!(matches!(error, UrlError::TooLong { .. }), "{error}"),
    }
    assert!(url.target.starts_with('/'));
    assert!(!url.target.contains('#'));
    assert_ne!(url.port, 0);
    let request = String::from_utf8(http::get(url)).expect("a request is ASCII");
    let lines: Vec<&str> = request.split("\r\n").collect();
    let visible = |line: &&str| line.chars().all(|letter| matches!(letter, ' '..='~'));
    assert!(lines.iter().all(visible), "{request:?}");
    assert_eq!(lines[0].split(' ').count(), 3, "{request:?}");
    let empty = lines.iter().position(|line| line.is_empty());
    assert_eq!(empty, Some(lines.len() - 2), "{request:?}");
    assert_eq!(lines[lines.len() - 1], "");
}

fn announce(tracker: &str) -> String {
    let request = AnnounceRequest {
        info_hash: InfoHash([0; 20]),
        peer_id: PeerId([b'/'; 20]),
        port: 6881,
        uploaded: 0,
        downloaded: u64::MAX,
        left: 1,
        event: Event::Started,
        numwant: 200,
        key: 7,
    };
    request.url(tracker)
}
