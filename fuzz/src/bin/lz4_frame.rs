//! Is a packed image read as what it is, or refused?
//!
//! Holds: nothing behind the end of the file is read, and at most 1 MiB at once. What is taken can
//! be asked for in any parts, and they are the same bytes as the whole, or the whole is damaged. So
//! are blocks that are left packed.
//! Input: where the image is cut, and the file.
#![no_main]

use std::ops::Range;

use libfuzzer_sys::fuzz_target;
use swarm_proto::format::lz4;
use swarm_proto::format::lz4_frame::Packed;
use swarm_proto::limits::BLOCK_BYTES;
use swarmdd_fuzz::Input;

/// A few bytes may hold 64 MiB.
const UNPACKED_BYTES_MAX: u64 = 4 << 20;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let cut = u64::from(input.u32());
    let file = input.rest();
    let length = file.len() as u64;
    let read = Packed::read(length, &mut |part| {
        assert!(part.start < part.end && part.end <= length);
        assert!(part.end - part.start <= 1 << 20);
        Some(file[part.start as usize..part.end as usize].to_vec())
    });
    let packed = match read {
        Ok(packed) => packed,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let all = packed.image_bytes;
    if all == 0 || all > UNPACKED_BYTES_MAX {
        return;
    }
    let Ok(whole) = unpacked(&packed, file, 0..all) else {
        return;
    };
    let cut = cut % all;
    let parts = [0..cut, cut..all].map(|part| match part.is_empty() {
        true => Vec::new(),
        false => unpacked(&packed, file, part).expect("the whole is good"),
    });
    assert!(parts.concat() == whole, "parts differ at {cut}");
    assert!(
        kept_and_decoded(&packed, file) == whole,
        "kept blocks differ"
    );
});

fn kept_and_decoded(packed: &Packed, file: &[u8]) -> Vec<u8> {
    let bytes = 0..packed.image_bytes;
    let (marks, mut kept) = (packed.marks(&bytes), Vec::new());
    let span = packed.span(&marks);
    let read = &file[span.start as usize..span.end as usize];
    let mut out = vec![0xee; bytes.end as usize];
    packed
        .unpack_or_keep(marks.start, read, &bytes, &mut out, &mut |at, length| {
            assert!(length > 0 && length < BLOCK_BYTES as usize);
            kept.push((at, length));
            true
        })
        .expect("the whole is good");
    for (at, length) in kept {
        let block = &mut out[at..][..BLOCK_BYTES as usize];
        let lies = block[..length].to_vec();
        assert_eq!(lz4::decode(&lies, block), Some(block.len()));
    }
    out
}

fn unpacked(packed: &Packed, file: &[u8], bytes: Range<u64>) -> Result<Vec<u8>, u64> {
    let marks = packed.marks(&bytes);
    let span = packed.span(&marks);
    let mut out = vec![0xee; (bytes.end - bytes.start) as usize];
    let read = &file[span.start as usize..span.end as usize];
    packed
        .unpack(marks.start, read, &bytes, &mut out)
        .map(|()| out)
}
