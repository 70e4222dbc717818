//! Is whatever lies at the ends of a disk named without reading beyond them, and shown safely?
//!
//! Holds: nothing is out of bounds, however short the ends are and whatever the disk's size; each
//! kind is named once; labels can be shown on a terminal; "blank" is said exactly of zeros. Input:
//! size of the disk, lengths of its ends, and patches: an end, a place, a length and bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use swarm_proto::format::signatures::{HEAD_BYTES, Signatures, TAIL_BYTES};
use swarmdd_fuzz::Input;

/// Where signatures begin: the fuzzer need not guess numbers of three bytes.
const PLACES: [usize; 16] = [
    0, 3, 32, 54, 82, 446, 510, 512, 536, 1024, 1080, 4086, 4096, 32768, 65526, 65600,
];

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let device_bytes = input.u64();
    let ends = [(HEAD_BYTES, input.u8()), (TAIL_BYTES, input.u8())];
    let mut ends = ends.map(|(bytes, cut)| vec![0; length_of(bytes, cut)]);
    while !input.is_empty() {
        let end = &mut ends[input.choose(2)];
        let place = match input.choose(4) {
            0 => PLACES[input.choose(PLACES.len())],
            1 => end.len().saturating_sub(512 * (1 + input.choose(256))),
            2 => usize::from(input.u16()),
            _ => end.len().saturating_sub(input.u16().into()),
        };
        let length = input.u8().into();
        let bytes = input.take(length);
        let there = end.get_mut(place..).unwrap_or_default();
        let fits = bytes.len().min(there.len());
        there[..fits].copy_from_slice(&bytes[..fits]);
    }
    let [head, tail] = &ends;
    let signatures = Signatures::of(head, tail, device_bytes);
    let shown = signatures.to_string();
    let zeros = ends.iter().flatten().all(|&byte| byte == 0);
    assert_eq!(shown == "blank", zeros, "{shown}");
    assert!(
        !shown.is_empty() && !shown.contains(char::is_control),
        "{shown:?}"
    );
    for (index, one) in signatures.found.iter().enumerate() {
        let before = &signatures.found[..index];
        assert!(before.iter().all(|other| other.kind != one.kind), "{shown}");
        assert!(one.label.len() <= 64, "{shown}");
    }
});

/// Whole in half of all runs, then any number of bytes.
fn length_of(whole: usize, cut: u8) -> usize {
    if cut < 128 {
        whole
    } else {
        whole * usize::from(cut - 128) * usize::from(cut - 128) / (127 * 127)
    }
}
