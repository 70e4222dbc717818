//! Does a map of used blocks that anybody may have written leave out only what it says?
//!
//! Holds: ranges are in order, apart and within the source. A map that is refused for its size is
//! taken for a source of its own size. The bytes that a mapfile calls unused, added up by a twin,
//! and the used ones are the source. Input: the map.
#![no_main]

use libfuzzer_sys::fuzz_target;
use swarm_proto::format::used_map::{self, UsedMapError};

fuzz_target!(|map: &[u8]| {
    let (source_bytes, parsed) = match used_map::parse(map, 1 << 20, true) {
        Err(UsedMapError::Size { map_bytes, .. }) => {
            (map_bytes, used_map::parse(map, map_bytes, false))
        }
        parsed => (1 << 20, parsed),
    };
    let used = match parsed {
        Ok(used) => used,
        Err(UsedMapError::Size { map_bytes, .. }) => {
            // Without a line behind its first one a mapfile is of no source at all.
            assert_eq!(map_bytes, 0, "it is of another size than it says");
            return;
        }
        Err(_) => return,
    };
    assert!(used.iter().all(|range| range.start < range.end));
    assert!(used.windows(2).all(|two| two[0].end < two[1].start));
    assert!(used.last().is_none_or(|last| last.end <= source_bytes));
    if !map.trim_ascii_start().starts_with(b"<") {
        let used_bytes: u64 = used.iter().map(|range| range.end - range.start).sum();
        assert_eq!(used_bytes + unused_bytes(map), source_bytes);
    }
});

/// Of a mapfile that was taken.
fn unused_bytes(map: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(map);
    let lines = text.split('\n').map(str::trim_ascii);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let unused = lines.skip(1).filter(|line| line.ends_with('?'));
    unused
        .map(|line| line.split_ascii_whitespace().nth(1).expect("a size"))
        .map(number)
        .sum()
}

fn number(word: &str) -> u64 {
    let lower = word.to_ascii_lowercase();
    let (digits, radix) = match lower.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None if lower.starts_with('0') => (lower.as_str(), 8),
        None => (lower.as_str(), 10),
    };
    digits.chars().fold(0, |number, digit| {
        number * u64::from(radix) + u64::from(digit.to_digit(radix).expect("a digit"))
    })
}
