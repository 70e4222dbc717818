//! How much payload came and went?

/// Totals in bytes since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    fetched: u64,
    unused: u64,
    uploaded: u64,
}

impl Traffic {
    pub(super) fn note_fetched(&mut self, bytes: u32) {
        self.fetched += u64::from(bytes);
    }

    /// Bytes that were fetched are of no use: nobody asked for them, or their piece is bad.
    pub(super) fn note_unused(&mut self, bytes: u32) {
        self.unused += u64::from(bytes);
    }

    pub(super) fn note_uploaded(&mut self, bytes: u32) {
        self.uploaded += u64::from(bytes);
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

    /// Bytes that were of use (BEP 3 `downloaded`).
    pub(super) fn useful(&self) -> u64 {
        self.fetched.saturating_sub(self.unused)
    }
}
