//! Does every hash take the bytes of its piece in order, each once?

use alloc::collections::BTreeMap;

use crate::swarm::HashOf;

#[derive(Default)]
pub struct RunningHashes(BTreeMap<HashOf, RunningHash>);

struct RunningHash {
    next: u32,
    good: bool,
    finished: bool,
}

impl RunningHashes {
    /// Bytes go into the running hash. `Some(good)` when they were the last ones of the piece, with
    /// `good` for the whole of it.
    pub fn take(
        &mut self,
        of: HashOf,
        begin: u32,
        length: u32,
        piece_length: u32,
        good: bool,
    ) -> Option<bool> {
        if begin == 0 {
            let before = self.0.insert(
                of,
                RunningHash {
                    next: 0,
                    good: true,
                    finished: false,
                },
            );
            assert!(
                before.is_none_or(|before| !before.finished),
                "{of:?} starts anew before it was told how it ended"
            );
        }
        let running = self
            .0
            .get_mut(&of)
            .unwrap_or_else(|| panic!("{of:?} goes on at {begin} and never began"));
        assert_eq!(running.next, begin, "{of:?} goes on elsewhere");
        assert!(!running.finished, "{of:?} goes on after its end");
        running.next += length;
        running.good &= good;
        running.finished = running.next == piece_length;
        running.finished.then_some(running.good)
    }

    /// The agent is told the result.
    pub fn report(&mut self, of: HashOf) {
        self.0.remove(&of).expect("a hash is reported once");
    }
}
