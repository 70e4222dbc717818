//! How much of a connection may be on its way?
//!
//! The congestion window grows while segments arrive, and shrinks when a queue on the way is full:
//! that of the machine before its uplink, or the one before the downlink of the receiver (RFC 5681,
//! with the factor of RFC 9438). Nothing is lost; only the window tells of it.

/// How much of a connection may be on its way.
pub struct Congestion {
    window_bytes: u32,
    /// Below this, the window doubles in each round trip.
    threshold_bytes: u32,
    /// Bytes that have ever left, and that have ever arrived.
    left: u64,
    arrived: u64,
    /// A full queue counts once until what was under way then has arrived.
    recovers_at: u64,
}

impl Default for Congestion {
    fn default() -> Congestion {
        Congestion {
            window_bytes: CONGESTION_BYTES_MIN,
            threshold_bytes: u32::MAX,
            left: 0,
            arrived: 0,
            recovers_at: 0,
        }
    }
}

impl Congestion {
    /// Bytes of this connection have left the machine.
    pub fn leaves(&mut self, bytes: u32) {
        self.left += u64::from(bytes);
    }

    /// More of this connection may leave while so much of it is on its way.
    pub fn allows(&self, in_flight_bytes: u32) -> bool {
        in_flight_bytes < self.window_bytes
    }

    /// Bytes have arrived. `in_flight_bytes`: what was on its way, these included.
    pub fn arrives(&mut self, bytes: u32, in_flight_bytes: u32) {
        self.arrived += u64::from(bytes);
        // A window that is not used says nothing about the way.
        if in_flight_bytes < self.window_bytes / 2 {
            return;
        }
        let growth = if self.window_bytes < self.threshold_bytes {
            bytes
        } else {
            MTU_BYTES * bytes / self.window_bytes
        };
        self.window_bytes = self
            .window_bytes
            .saturating_add(growth)
            .min(CONGESTION_BYTES_MAX);
    }

    /// A queue on the way has no room for a segment.
    pub fn meets_full_queue(&mut self) {
        if self.arrived >= self.recovers_at {
            self.window_bytes = (self.window_bytes / 10 * 7).max(CONGESTION_BYTES_MIN);
            self.threshold_bytes = self.window_bytes;
            self.recovers_at = self.left;
        }
    }
}

/// Ten packets (RFC 6928), and at least one segment with a block.
const CONGESTION_BYTES_MIN: u32 = 20 * 1024;
const CONGESTION_BYTES_MAX: u32 = 4 * 1024 * 1024;
const MTU_BYTES: u32 = 1448;
