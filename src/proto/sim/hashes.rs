//! Does every hash take the bytes of its piece in order, each byte once?

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
    /// Bytes go into the running hash. When they are the last ones, returns whether all bytes of
    /// the piece were good.
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
                "{of:?} starts again before its result was reported"
            );
        }
        let running = self
            .0
            .get_mut(&of)
            .unwrap_or_else(|| panic!("{of:?} goes on at {begin} and has not begun"));
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
