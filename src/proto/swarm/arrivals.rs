//! Does much less arrive than could?

use crate::limits::{BLOCK_BYTES, STARVED_BLOCKS_MIN, STARVED_PART, STARVED_TICKS};

/// What arrives in windows of a few ticks. Of a link on which few blocks arrive in a window nothing
/// can be said.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    ticks: u32,
    fetched: u64,
    /// The most in one window. It fades, so that a room whose source has become slow is not starved
    /// for ever.
    most: u64,
    starved: bool,
}

impl Arrivals {
    /// `fetched`: bytes since the start.
    pub(super) fn tick(&mut self, fetched: u64) {
        self.ticks += 1;
        if self.ticks < STARVED_TICKS {
            return;
        }
        let arrived = fetched - self.fetched;
        (self.ticks, self.fetched) = (0, fetched);
        self.most = arrived.max(self.most - self.most / 8);
        let is_known = self.most >= STARVED_BLOCKS_MIN * u64::from(BLOCK_BYTES);
        self.starved = is_known && arrived * STARVED_PART < self.most;
    }

    pub(super) fn are_few(&self) -> bool {
        self.starved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks that arrive in each window, and whether they are few.
    fn windows(blocks: &[u64]) -> alloc::vec::Vec<bool> {
        let (mut arrivals, mut fetched) = (Arrivals::default(), 0);
        let few = blocks.iter().map(|blocks| {
            fetched += blocks * u64::from(BLOCK_BYTES);
            (0..STARVED_TICKS).for_each(|_| arrivals.tick(fetched));
            arrivals.are_few()
        });
        few.collect()
    }

    #[test]
    fn a_quarter_is_little_until_it_is_usual() {
        assert_eq!(
            windows(&[0, 40, 100, 25, 24, 21]),
            [false, false, false, false, false, false]
        );
        assert_eq!(windows(&[100, 20, 0, 100]), [false, true, true, false]);
        let slower = [&[100][..], &[20; 12]].concat();
        assert_eq!(windows(&slower).last(), Some(&false));
        assert_eq!(windows(&[15, 0, 0]), [false; 3], "a slow link");
    }
}
