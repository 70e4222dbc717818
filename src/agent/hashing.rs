//! When are the bytes that have arrived hashed, and when do they wait?
//!
//! Two pieces side by side take little longer to hash than one, so the bytes of a single piece wait
//! a moment for those of a second piece.

use swarm_proto::limits::HASH_PATIENCE;
use swarm_proto::swarm::{Pairing, Swarm};
use swarm_proto::units::Instant;

use crate::os::pool::Pool;
use crate::storage::hasher::Hasher;

#[derive(Default)]
pub(super) struct Hashing {
    hasher: Hasher,
    /// When the bytes of a single piece will have waited long enough.
    single_by: Option<Instant>,
}

impl Hashing {
    /// When `run` has something to do at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.single_by
    }

    /// Hashes two pieces at a time, and a single piece if nothing has been hashed for a while.
    /// `between` is called after each step: the disk should have something to do meanwhile.
    pub fn run(
        &mut self,
        core: &mut Swarm,
        pool: &Pool,
        now: Instant,
        mut between: impl FnMut(&mut Swarm),
    ) {
        let pairing = if self.single_by.is_some_and(|by| by <= now) {
            Pairing::TakeSingle
        } else {
            Pairing::WaitForSecond
        };
        while self.step(core, pool, pairing, now) {
            self.single_by = None;
            between(core);
        }
        let waits = core.has_to_hash();
        self.single_by = waits.then(|| self.single_by.unwrap_or(now + HASH_PATIENCE));
    }

    /// One step, done at once: afterwards the core may reuse the buffers. False if there was
    /// nothing to hash.
    fn step(&mut self, core: &mut Swarm, pool: &Pool, pairing: Pairing, now: Instant) -> bool {
        let steps = core.poll_hash(pairing);
        if steps[0].is_none() {
            return false;
        }
        let finished = self.hasher.hash(steps, pool, &core.metainfo().layout);
        for (of, hash) in finished.into_iter().flatten() {
            core.handle_hashed(now, of, hash);
        }
        true
    }
}
