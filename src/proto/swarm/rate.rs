//! How fast does a peer send?

use crate::limits::RATE_WINDOW;
use crate::units::Instant;

/// Payload bytes per second, over windows of RATE_WINDOW.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    window_start: Instant,
    window_bytes: u64,
    bytes_per_second: u64,
}

impl Rate {
    pub(super) fn add(&mut self, bytes: u32) {
        self.window_bytes += u64::from(bytes);
    }

    pub(super) fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }

    /// Closes the window when it is full; true if anything arrived within it. A rising rate counts
    /// at once and a falling one by half, because a pipeline that is too short measures only its
    /// own shortness.
    pub(super) fn roll(&mut self, now: Instant) -> bool {
        let elapsed = now.since(self.window_start);
        if elapsed < RATE_WINDOW {
            return false;
        }
        let measured = self.window_bytes * 1_000_000 / elapsed.as_micros() as u64;
        self.bytes_per_second = measured.max(self.bytes_per_second / 2);
        self.window_start = now;
        core::mem::take(&mut self.window_bytes) > 0
    }
}
