//! Is a compressed block that anybody may have written decoded within its bounds, and does every
//! block come back as it was?
//!
//! Holds: the decoder neither panics nor says more bytes than there is room for, and says the same
//! again for a buffer of just that length. What the encoder writes is shorter than the block, and
//! the decoder makes the block of it. Input: the most bytes that the decoder may write, then a
//! block, compressed and not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use swarm_proto::format::lz4::{Encoder, decode};
use swarmdd_fuzz::Input;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let mut out = vec![0xee; input.u16().into()];
    let block = input.rest();
    if let Some(length) = decode(block, &mut out) {
        let mut exact = vec![0; length];
        assert_eq!(decode(block, &mut exact), Some(length));
        assert_eq!(exact, out[..length]);
    }
    let block = &block[..block.len().min(1 << 16)];
    let mut encoded = vec![0; block.len()];
    if let Some(length) = Encoder::new().encode(block, &mut encoded) {
        assert!(length < block.len());
        let mut back = vec![0; block.len()];
        assert_eq!(decode(&encoded[..length], &mut back), Some(block.len()));
        assert_eq!(back, block);
    }
});
