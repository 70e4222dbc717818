//! What is the SHA-1 of a piece whose bytes arrive in steps?
//!
//! The core (or `reader`) decides what to hash next ([`Hash`]); the bytes are in the pool. A piece
//! is hashed from its first byte to its last, in any number of steps. Several pieces are hashed
//! side by side, because that takes little longer than hashing one.

use swarm_proto::format::layout::Layout;
use swarm_proto::limits::HASHED_AT_ONCE;
use swarm_proto::swarm::{Hash, HashOf};
use swarm_proto::units::PieceHash;
use swarm_proto::vec_map::VecMap;

use crate::os::pool::Pool;
use crate::os::sha1::{LANES, Sha1};

const _: () = assert!(HASHED_AT_ONCE == LANES);

/// The hashes of pieces of which some bytes have been hashed, but not yet all.
#[derive(Default)]
pub struct Hasher {
    running: VecMap<HashOf, Sha1>,
    /// What was packed in a buffer, in each lane.
    unpacked: [Vec<u8>; LANES],
}

impl Hasher {
    /// Hashes all steps, each of another piece, before it returns, so that their buffers may be
    /// reused. Returns the hash of each piece whose last byte was among them.
    pub fn hash(
        &mut self,
        steps: &[Hash],
        pool: &Pool,
        layout: &Layout,
    ) -> Vec<(HashOf, PieceHash)> {
        let mut lanes: Vec<(Sha1, &[u8])> = Vec::with_capacity(LANES);
        let running = steps.iter().map(|step| self.running_hash(step));
        let running: Vec<Sha1> = running.collect();
        let bytes = steps.iter().zip(&mut self.unpacked);
        let bytes = bytes.map(|(step, unpacked)| bytes_of(step, pool, unpacked));
        lanes.extend(running.into_iter().zip(bytes));
        Sha1::update_all(&mut lanes);
        let mut finished = Vec::new();
        for (step, (running, _)) in steps.iter().zip(lanes) {
            if step.begin + step.length < step.of.length(layout) {
                self.running.insert(step.of, running);
            } else {
                finished.push((step.of, PieceHash(running.finish())));
            }
        }
        finished
    }

    /// The hash of the bytes before this step.
    fn running_hash(&mut self, step: &Hash) -> Sha1 {
        let before = self.running.remove(&step.of).filter(|_| step.begin > 0);
        assert!(
            before.is_some() || step.begin == 0,
            "every hash begins at 0"
        );
        before.unwrap_or_else(Sha1::new)
    }
}

fn bytes_of<'a>(step: &Hash, pool: &'a Pool, unpacked: &'a mut Vec<u8>) -> &'a [u8] {
    if !pool.is_packed(step.buffer, step.offset, step.length) {
        return &pool.bytes(step.buffer)[step.offset as usize..][..step.length as usize];
    }
    unpacked.resize(step.length as usize, 0);
    pool.unpack(step.buffer, step.offset, unpacked);
    unpacked
}
