//! When are the bytes that have arrived hashed, and when do they wait?
//!
//! Four pieces side by side take little more than twice as long to hash as one, so the bytes of
//! fewer pieces wait a moment for those of others.

use swarm_proto::limits::HASH_PATIENCE;
use swarm_proto::swarm::{Patience, Swarm};
use swarm_proto::units::Instant;

use crate::os::pool::Pool;
use crate::storage::hasher::Hasher;

#[derive(Default)]
pub(super) struct Hashing {
    hasher: Hasher,
    /// When the bytes of a few pieces will have waited long enough.
    few_by: Option<Instant>,
}

impl Hashing {
    /// When `run` has something to do at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.few_by
    }

    /// Hashes as many pieces at a time as the hash unit can do, and fewer if nothing has been
    /// hashed for a while. `between` is called after each step: the disk should have something to
    /// do meanwhile.
    pub fn run(
        &mut self,
        core: &mut Swarm,
        pool: &Pool,
        now: Instant,
        mut between: impl FnMut(&mut Swarm),
    ) {
        let patience = match self.few_by {
            Some(by) if by <= now => Patience::Over,
            _ => Patience::Lasts,
        };
        while self.step(core, pool, patience, now) {
            self.few_by = None;
            between(core);
        }
        let waits = core.has_to_hash();
        self.few_by = waits.then(|| self.few_by.unwrap_or(now + HASH_PATIENCE));
    }

    /// One step, done at once: afterwards the core may reuse the buffers. False if there was
    /// nothing to hash.
    fn step(&mut self, core: &mut Swarm, pool: &Pool, patience: Patience, now: Instant) -> bool {
        let steps = core.poll_hash(patience);
        if steps.is_empty() {
            return false;
        }
        let hashed = self.hasher.hash(&steps, pool, &core.metainfo().layout);
        for (piece, mark) in hashed.marks {
            core.handle_mark(piece, mark);
        }
        for (of, hash) in hashed.finished {
            core.handle_hashed(now, of, hash);
        }
        true
    }
}
