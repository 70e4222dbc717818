//! Has the disk time to read back while the download goes on, and how much at once?
//!
//! Measured, because the core does not know what a disk is. The download has the disk first: a
//! read-back begins only while nothing else is asked of the disk, and a write that comes meanwhile
//! waits for READ_BACK_PAUSE at most. A disk that turns may need most of its time to move between
//! the places of two writes. With read-backs between them it needs more, so there are none if the
//! download alone takes more than READ_BACK_LOAD_MAX of its time.

use crate::limits::{READ_AHEAD_MAX, READ_BACK_LOAD_MAX, READ_BACK_PAUSE};
use crate::units::Instant;

const PAUSE_MICROS: u64 = READ_BACK_PAUSE.as_micros() as u64;

/// Call `pass` before the number of requests changes, and `tick` now and then.
#[derive(Debug)]
pub struct SpareTime {
    now: Instant,
    ticked_at: Instant,
    /// Since the last tick, the disk worked for the download alone for this time.
    busy_micros: u64,
    /// The part of the time for which it did so in the last seconds, in 10,000ths.
    load: u64,
    /// Time that went into read-backs since the last one ended, and the mean of these times.
    reading_micros: u64,
    chunk_micros: u64,
}

impl SpareTime {
    pub fn new(now: Instant) -> SpareTime {
        SpareTime {
            now,
            ticked_at: now,
            busy_micros: 0,
            load: 0,
            reading_micros: 0,
            // Nothing is known of the disk: four chunks at once.
            chunk_micros: PAUSE_MICROS / 4,
        }
    }

    /// Until now the disk had this many requests of the download, and read-backs. While it has
    /// both, the read-backs came first and the others wait for them.
    pub fn pass(&mut self, now: Instant, download: usize, read_backs: usize) {
        let passed = now.0.saturating_sub(self.now.0);
        self.now = now;
        if read_backs > 0 {
            self.reading_micros += passed;
        } else if download > 0 {
            self.busy_micros += passed;
        }
    }

    pub fn tick(&mut self) {
        let passed = self.now.0.saturating_sub(self.ticked_at.0).max(1);
        // Over 16 ticks: a disk that is busy all the time has idle moments, too.
        self.load = (15 * self.load + self.busy_micros * 10_000 / passed) / 16;
        (self.ticked_at, self.busy_micros) = (self.now, 0);
    }

    /// A chunk was read back.
    pub fn chunk_ended(&mut self) {
        let took = core::mem::take(&mut self.reading_micros);
        self.chunk_micros = (7 * self.chunk_micros + took) / 8;
    }

    /// How many chunks may be read back at once; 0 if the download needs the disk.
    pub fn chunks(&self) -> usize {
        if self.load > READ_BACK_LOAD_MAX * 100 {
            return 0;
        }
        let fit = PAUSE_MICROS / self.chunk_micros.max(1);
        (fit as usize).clamp(1, READ_AHEAD_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    const TICK: Duration = crate::limits::TICK;

    fn after_chunks_of(each: Duration) -> usize {
        let mut now = Instant(0);
        let mut spare = SpareTime::new(now);
        for _ in 0..40 {
            now = now + each;
            spare.pass(now, 0, 1);
            spare.chunk_ended();
        }
        spare.tick();
        spare.chunks()
    }

    /// A write waits for 50 ms: for one chunk of a slow disk, for all that may be read at once on a
    /// fast one.
    #[test]
    fn fewer_chunks_at_once_on_slow_disks() {
        for (millis, chunks) in [(1, READ_AHEAD_MAX), (9, 5), (24, 2), (400, 1)] {
            let found = after_chunks_of(Duration::from_millis(millis));
            assert_eq!(found, chunks, "{millis} ms");
        }
    }

    /// The disk works for the download in this part of each tick, and reads back in the rest.
    #[test]
    fn no_chunk_while_the_download_needs_the_disk() {
        let mut now = Instant(0);
        let mut spare = SpareTime::new(now);
        let mut chunks_at = |busy_percent| {
            for _ in 0..100 {
                let busy = TICK * busy_percent / 100;
                now = now + busy;
                spare.pass(now, 3, 0);
                now = now + (TICK - busy);
                // Writes that wait behind read-backs do not count.
                spare.pass(now, 3, 2);
                spare.tick();
            }
            spare.chunks()
        };
        assert!(chunks_at(50) > 0 && chunks_at(70) > 0);
        assert_eq!((chunks_at(80), chunks_at(100)), (0, 0));
        assert!(chunks_at(60) > 0);
    }
}
