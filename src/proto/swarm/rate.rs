//! How fast does a peer send, and how many requests does it answer at once?
//!
//! A pipeline that ran dry was too short, whatever the rate, so the next one is longer. Other
//! clients make pauses: transmission answers twice a second, all requests that it has by then, and
//! at 4 blocks each time the rate alone would never show what it can do. It answers so fast that we
//! ask for more before the last block is there. So the pipeline was too short if all has come that
//! stood with them in a pause, and then the next one is much longer.

use crate::limits::{PIPELINE_KEPT, PIPELINE_MAX, PIPELINE_MIN, PIPELINE_TIME, RATE_WINDOW};
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

/// How long the pipeline of a peer must be at least: longer than its rate demands if it answers
/// many requests at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pipeline {
    length_min: u32,
    /// When it was last too short.
    dry_at: Instant,
    /// When payload last arrived.
    arrived_at: Instant,
    /// How many requests stood with the peer when it had last sent nothing for PIPELINE_TIME, less
    /// the blocks that have come since. Not of our own agents.
    standing: usize,
}

impl Pipeline {
    pub(super) fn new(now: Instant) -> Pipeline {
        Pipeline {
            length_min: PIPELINE_MIN,
            dry_at: now,
            arrived_at: now,
            standing: 0,
        }
    }

    pub(super) fn length_min(&self) -> u32 {
        self.length_min
    }

    /// A block has arrived, and `left` requests stand with the peer. `filled`: the pipeline was
    /// full when we last asked. True if it gets longer, as far as it may.
    pub(super) fn received(
        &mut self,
        now: Instant,
        left: usize,
        filled: bool,
        is_ours: bool,
    ) -> bool {
        if now.since(self.arrived_at) >= PIPELINE_TIME && !is_ours {
            self.standing = left + 1;
        }
        self.arrived_at = now;
        let all_came = self.standing == 1;
        self.standing = self.standing.saturating_sub(1);
        let is_dry = filled && (all_came || left == 0);
        if is_dry {
            let times = if all_came { 8 } else { 2 };
            self.length_min = (self.length_min * times).min(PIPELINE_MAX);
            (self.standing, self.dry_at) = (0, now);
        }
        is_dry
    }

    /// Halves it if it has been long enough for a while.
    pub(super) fn shorten(&mut self, now: Instant, is_ours: bool) {
        let kept = match is_ours {
            true => 2 * RATE_WINDOW,
            false => PIPELINE_KEPT,
        };
        if now.since(self.dry_at) >= kept {
            self.length_min = (self.length_min / 2).max(PIPELINE_MIN);
        }
    }
}
