//! What is the SHA-1 of a piece whose bytes arrive in steps?
//!
//! The core (or `reader`) decides what to hash next ([`Hash`]); the bytes are in the pool. A piece
//! is hashed from its first byte to its last, in any number of steps. Two pieces are hashed side by
//! side, because that takes little longer than hashing one.

use swarm_proto::format::layout::Layout;
use swarm_proto::swarm::{Hash, HashOf};
use swarm_proto::units::PieceHash;
use swarm_proto::vec_map::VecMap;

use crate::os::pool::Pool;
use crate::os::sha1::Sha1;

/// The hashes of pieces of which some bytes have been hashed, but not yet all.
#[derive(Default)]
pub struct Hasher {
    running: VecMap<HashOf, Sha1>,
}

impl Hasher {
    /// Hashes one or two steps before it returns, so that their buffers may be reused. Returns the
    /// hash of each piece whose last byte was among them.
    pub fn hash(
        &mut self,
        steps: [Option<Hash>; 2],
        pool: &Pool,
        layout: &Layout,
    ) -> [Option<(HashOf, PieceHash)>; 2] {
        let mut running = steps.map(|step| Some(self.running_hash(&step?)));
        let bytes = steps.map(|step| step.map_or(&[][..], |step| bytes_of(&step, pool)));
        match &mut running {
            [Some(first), Some(second)] => Sha1::update_two([first, second], bytes),
            [Some(alone), _] => alone.update(bytes[0]),
            [None, _] => {}
        }
        let [first, second] = running;
        [(steps[0], first), (steps[1], second)]
            .map(|(step, running)| self.keep_or_finish(step?, running?, layout))
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

    fn keep_or_finish(
        &mut self,
        step: Hash,
        running: Sha1,
        layout: &Layout,
    ) -> Option<(HashOf, PieceHash)> {
        if step.begin + step.length < step.of.length(layout) {
            self.running.insert(step.of, running);
            return None;
        }
        Some((step.of, PieceHash(running.finish())))
    }
}

fn bytes_of<'a>(step: &Hash, pool: &'a Pool) -> &'a [u8] {
    &pool.bytes(step.buffer)[step.offset as usize..][..step.length as usize]
}
