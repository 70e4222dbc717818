//! How much payload came and went, and how long does a block take?

use core::time::Duration;

use crate::limits::{REQUEST_PATIENCE_MAX, REQUEST_PATIENCE_MIN, REQUEST_PATIENCE_TIMES};

/// Totals in bytes since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    fetched: u64,
    unused: u64,
    uploaded: u64,
    /// As they went over the network, where they may have been compressed.
    fetched_wire: u64,
    uploaded_wire: u64,
}

impl Traffic {
    pub(super) fn note_fetched(&mut self, bytes: u32, wire_bytes: u32) {
        self.fetched += u64::from(bytes);
        self.fetched_wire += u64::from(wire_bytes);
    }

    /// Bytes that were fetched are of no use: nobody asked for them, or their piece is bad.
    pub(super) fn note_unused(&mut self, bytes: u32) {
        self.unused += u64::from(bytes);
    }

    pub(super) fn note_uploaded(&mut self, bytes: u32, wire_bytes: u32) {
        self.uploaded += u64::from(bytes);
        self.uploaded_wire += u64::from(wire_bytes);
    }

    /// All payload that was received, unused bytes included.
    pub(super) fn fetched(&self) -> u64 {
        self.fetched
    }

    pub(super) fn unused(&self) -> u64 {
        self.unused
    }

    pub(super) fn uploaded(&self) -> u64 {
        self.uploaded
    }

    pub(super) fn fetched_wire(&self) -> u64 {
        self.fetched_wire
    }

    pub(super) fn uploaded_wire(&self) -> u64 {
        self.uploaded_wire
    }

    /// Bytes that were of use (BEP 3 `downloaded`).
    pub(super) fn useful(&self) -> u64 {
        self.fetched.saturating_sub(self.unused)
    }
}

/// How long a block takes from its request to its last byte, as a moving average over all peers.
/// The fast ones send most blocks, and so they set the pace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace(Duration);

impl Default for Pace {
    /// Before the first block, peers may take as long as they may at all.
    fn default() -> Pace {
        Pace(REQUEST_PATIENCE_MAX / REQUEST_PATIENCE_TIMES)
    }
}

impl Pace {
    pub(super) fn note(&mut self, took: Duration) {
        self.0 = (self.0 * 15 + took) / 16;
    }

    /// How long a block may take before others are asked for it, too.
    pub(super) fn patience(self) -> Duration {
        (self.0 * REQUEST_PATIENCE_TIMES).clamp(REQUEST_PATIENCE_MIN, REQUEST_PATIENCE_MAX)
    }
}
