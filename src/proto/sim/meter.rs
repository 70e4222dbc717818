//! Does an agent keep to its rate limit?

use crate::limits::{BLOCK_BYTES, THROTTLE_BURST};
use crate::units::Instant;

/// A leaky bucket: bytes fill it, and it leaks as fast as the limit allows. Its level stays below
/// the allowed burst exactly if the limit is held over every stretch of time.
pub struct Meter {
    limit: Option<u64>,
    level: f64,
    at: Instant,
}

impl Meter {
    pub fn new(limit: Option<u64>) -> Meter {
        Meter {
            limit,
            level: 0.0,
            at: Instant(0),
        }
    }

    pub fn passes(&mut self, now: Instant, bytes: u32) {
        let Some(limit) = self.limit else { return };
        let leaked = now.since(self.at).as_secs_f64() * limit as f64;
        (self.level, self.at) = ((self.level - leaked).max(0.0) + f64::from(bytes), now);
        let burst = THROTTLE_BURST.as_secs_f64() * limit as f64 + f64::from(BLOCK_BYTES);
        assert!(
            self.level <= burst + 1.0,
            "{} bytes at once, with {limit} a second",
            self.level
        );
    }
}
