//! How does a block become shorter before it is sent, at the least cost?
//!
//! A block that came compressed is passed on as it came, while it is remembered: that costs a copy,
//! and compressing it again thirty times as much. All others are compressed here, one at a time.

use std::collections::VecDeque;

use swarm_proto::format::lz4::Encoder;
use swarm_proto::limits::BLOCK_BYTES;
use swarm_proto::units::Block;
use swarm_proto::vec_map::VecMap;
use swarm_proto::wire::message::RawBlock;

/// A block that is compressed to more than this is sent as it is: to save a few bytes would not be
/// worth the time of both sides.
const PACKED_BYTES_MAX: usize = (BLOCK_BYTES - BLOCK_BYTES / 16) as usize;

/// Compressed blocks that are remembered: those of 8 MiB of an image that shrinks to half.
const KEPT_BYTES_MAX: usize = 4 << 20;
/// With more of them, to enter one would take as long as to compress it.
const KEPT_MAX: usize = 1024;

/// A block of one of the jobs of this process, by the number that no other job ever gets.
type Key = (usize, u32, u32);

/// Invariant: `order` has each key of `kept` once, the oldest first, and perhaps others.
pub struct Packer {
    encoder: Encoder,
    packed: Box<[u8; PACKED_BYTES_MAX]>,
    kept: VecMap<Key, Vec<u8>>,
    order: VecDeque<Key>,
    kept_bytes: usize,
}

impl Packer {
    pub fn new() -> Packer {
        Packer {
            encoder: Encoder::new(),
            packed: Box::new([0; PACKED_BYTES_MAX]),
            kept: VecMap::new(),
            order: VecDeque::new(),
            kept_bytes: 0,
        }
    }

    /// A block was received: `packed` are its bytes if it came compressed. What was remembered of
    /// it may have been bad.
    pub fn note_received(&mut self, job: usize, block: RawBlock, packed: Option<&[u8]>) {
        let key = (job, block.index, block.begin);
        if let Some(before) = self.kept.remove(&key) {
            self.kept_bytes -= before.len();
        }
        let Some(packed) = packed else { return };
        while self.kept_bytes + packed.len() > KEPT_BYTES_MAX || self.order.len() >= KEPT_MAX {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            let removed = self.kept.remove(&oldest);
            self.kept_bytes -= removed.map_or(0, |bytes| bytes.len());
        }
        self.kept.insert(key, packed.to_vec());
        self.order.push_back(key);
        self.kept_bytes += packed.len();
    }

    /// The block with these bytes, compressed: as it came, or else anew if `encodes`. `None` if it
    /// hardly shrinks.
    pub(super) fn pack(
        &mut self,
        job: usize,
        block: Block,
        bytes: &[u8],
        encodes: bool,
    ) -> Option<&[u8]> {
        if let Some(kept) = self.kept.get(&(job, block.piece.0, block.begin)) {
            return Some(kept);
        }
        let length = encodes.then(|| self.encoder.encode(bytes, &mut *self.packed))??;
        Some(&self.packed[..length])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_proto::format::lz4;
    use swarm_proto::units::PieceIndex;

    const BYTES: [u8; BLOCK_BYTES as usize] = [7; BLOCK_BYTES as usize];

    fn block(index: u32) -> Block {
        Block {
            piece: PieceIndex(index),
            begin: 0,
            length: BLOCK_BYTES,
        }
    }

    fn receive(packer: &mut Packer, job: usize, index: u32, packed: Option<&[u8]>) {
        packer.note_received(job, block(index).into(), packed);
        let bytes: usize = packer.kept.iter().map(|(_, bytes)| bytes.len()).sum();
        assert_eq!(packer.kept_bytes, bytes);
        assert!(bytes <= KEPT_BYTES_MAX && packer.order.len() <= KEPT_MAX);
        assert!(
            packer
                .kept
                .iter()
                .all(|(key, _)| packer.order.contains(key))
        );
    }

    #[test]
    fn a_block_goes_as_it_came_last() {
        let packer = &mut Packer::new();
        let as_it_came = |packer: &mut Packer, job, index| {
            let packed = packer.pack(job, block(index), &BYTES, false);
            packed.map(<[u8]>::to_vec)
        };
        assert_eq!(as_it_came(packer, 0, 1), None);
        receive(packer, 0, 1, Some(b"one"));
        assert_eq!(as_it_came(packer, 0, 1).as_deref(), Some(&b"one"[..]));
        assert_eq!(as_it_came(packer, 1, 1), None, "of another job");
        receive(packer, 0, 1, Some(b"again"));
        assert_eq!(as_it_came(packer, 0, 1).as_deref(), Some(&b"again"[..]));
        receive(packer, 0, 1, None);
        assert_eq!(as_it_came(packer, 0, 1), None, "it came as it is");
        let packed = packer.pack(0, block(1), &BYTES, true).unwrap().to_vec();
        let mut out = [0; BLOCK_BYTES as usize];
        assert_eq!(lz4::decode(&packed, &mut out), Some(out.len()));
        assert_eq!(out, BYTES);
    }

    #[test]
    fn the_oldest_are_forgotten_first() {
        let mut packer = Packer::new();
        let is_kept =
            |packer: &mut Packer, index| packer.pack(0, block(index), &BYTES, false).is_some();
        let count = KEPT_BYTES_MAX as u32 / 9000;
        for index in 0..2 * count {
            receive(&mut packer, 0, index, Some(&[1; 9000]));
            receive(
                &mut packer,
                0,
                index / 2,
                (index % 3 == 0).then_some(&[1; 10]),
            );
        }
        assert!(is_kept(&mut packer, 2 * count - 1) && !is_kept(&mut packer, count / 2));
        for index in 0..3000 {
            receive(&mut packer, 0, index, Some(b"short"));
        }
        assert!(is_kept(&mut packer, 2999) && is_kept(&mut packer, 2100));
        assert!(!is_kept(&mut packer, 1900));
    }
}
