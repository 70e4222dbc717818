//! Has this machine the time to compress what it sends?
//!
//! Compressing halves the bytes, and is worth it only while the links are slower than this machine.
//! The shell says how long it slept. A process that sleeps most of the time waits for its links or
//! for its disk; one that sleeps little would only send later. How long a peer's socket is full
//! says nothing of that: it is full, too, when the peer itself is too slow.

use core::time::Duration;

use crate::limits::{LOAD_MAX, LOAD_PAUSE_MAX, LOAD_PAUSE_MIN, LOAD_WINDOW, PACKED_BYTES_A_SECOND};
use crate::units::{Instant, PieceIndex};

/// May blocks be sent and received compressed?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compress {
    /// While this machine has the time.
    Auto,
    Always,
    Never,
}

/// How much of its time the process was awake, in the last LOAD_WINDOW. The shell owns it and calls
/// `note_turn` in each turn of its loop.
#[derive(Debug)]
pub struct Load {
    since: Instant,
    asleep: Duration,
    /// Bytes of the image that were given to the shell to send.
    sent_bytes: u64,
    has_time: bool,
    /// While there was no time: when it may be tried again, and how long the next pause is.
    pause_until: Instant,
    pause: Duration,
}

impl Default for Load {
    fn default() -> Load {
        Load {
            since: Instant(0),
            asleep: Duration::ZERO,
            sent_bytes: 0,
            has_time: false,
            pause_until: Instant(0),
            pause: LOAD_PAUSE_MIN,
        }
    }
}

impl Load {
    /// The process woke up after this time.
    pub fn note_turn(&mut self, now: Instant, asleep: Duration) {
        self.asleep += asleep;
        let passed = now.since(self.since);
        if passed < LOAD_WINDOW {
            return;
        }
        let busy = passed.saturating_sub(self.asleep);
        let is_free = |busy: Duration| busy * 100 < passed * LOAD_MAX;
        if self.has_time && !is_free(busy) {
            (self.has_time, self.pause_until) = (false, now + self.pause);
            self.pause = (self.pause * 2).min(LOAD_PAUSE_MAX);
        } else if !self.has_time && now >= self.pause_until {
            // Twice as much would be sent, and compressed before.
            let packing =
                Duration::from_micros(self.sent_bytes * 1_000_000 / PACKED_BYTES_A_SECOND);
            self.has_time = self.sent_bytes > 0 && is_free(2 * (busy + packing));
        }
        (self.since, self.asleep, self.sent_bytes) = (now, Duration::ZERO, 0);
    }

    pub(crate) fn note_sent(&mut self, bytes: u32) {
        self.sent_bytes += u64::from(bytes);
    }

    pub(crate) fn allows(&self, compress: Compress) -> bool {
        compress == Compress::Always || compress == Compress::Auto && self.has_time
    }
}

/// Does it help to compress what a peer is sent now? Files that are compressed already take most of
/// a piece, so a block that does not shrink speaks for those behind it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shrinking {
    piece: Option<PieceIndex>,
    /// Blocks in a row that did not shrink, and how many are still left alone for it.
    misses: u32,
    left_alone: u32,
}

impl Shrinking {
    /// Whether to try a block of this piece.
    pub(crate) fn tries(&mut self, piece: PieceIndex) -> bool {
        if self.piece != Some(piece) {
            *self = Shrinking {
                piece: Some(piece),
                ..Shrinking::default()
            };
        }
        let tries = self.left_alone == 0;
        self.left_alone = self.left_alone.saturating_sub(1);
        tries
    }

    /// What came of it. Of a piece of 64 blocks that does not shrink, seven are tried.
    pub(crate) fn note(&mut self, shrank: bool) {
        self.misses = if shrank { 0 } else { self.misses + 1 };
        self.left_alone = (1 << self.misses.min(4)) - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many windows: busy for this percentage, and with so many MB a second sent. Is there time
    /// to compress in the end?
    fn has_time(load: &mut Load, now: &mut u64, windows: u64, busy: u64, megabytes: u64) -> bool {
        let micros = LOAD_WINDOW.as_micros() as u64;
        for _ in 0..windows {
            *now += micros;
            load.note_sent((megabytes * micros) as u32);
            let asleep = Duration::from_micros(micros * (100 - busy) / 100);
            load.note_turn(Instant(*now), asleep);
        }
        load.allows(Compress::Auto)
    }

    #[test]
    fn a_process_that_sleeps_compresses_and_one_that_is_busy_does_not() {
        let (mut load, mut now) = (Load::default(), 0);
        assert!(!has_time(&mut load, &mut now, 10, 0, 0), "nothing is sent");
        assert!(has_time(&mut load, &mut now, 1, 4, 12));
        assert!(has_time(&mut load, &mut now, 10, 80, 24));
        assert!(!has_time(&mut load, &mut now, 1, 99, 30));
        assert!(load.allows(Compress::Always) && !load.allows(Compress::Never));
        // A pause, then it is tried again; the next pause is longer.
        let pause = (LOAD_PAUSE_MIN.as_micros() / LOAD_WINDOW.as_micros()) as u64;
        assert!(!has_time(&mut load, &mut now, pause - 1, 4, 12));
        assert!(has_time(&mut load, &mut now, 1, 4, 12));
        assert!(!has_time(&mut load, &mut now, 1, 99, 12));
        assert!(!has_time(&mut load, &mut now, 2 * pause - 1, 4, 12));
        assert!(has_time(&mut load, &mut now, 1, 4, 12));
    }

    /// The peer takes as much as it gets, and is what limits.
    #[test]
    fn a_link_that_is_faster_than_the_encoder_gets_blocks_as_they_are() {
        let (mut load, mut now) = (Load::default(), 0);
        assert!(!has_time(&mut load, &mut now, 100, 40, 800));
        assert!(!has_time(&mut load, &mut now, 100, 10, 400));
        assert!(!has_time(&mut load, &mut now, 100, 60, 1));
    }

    /// `P` is a block that shrinks and `.` one that does not; the answer names the tried ones in
    /// the same way, and the others by `-`.
    fn picture(piece: &str) -> String {
        let mut shrinking = Shrinking::default();
        let tried = |letter| {
            if !shrinking.tries(PieceIndex(1)) {
                return '-';
            }
            shrinking.note(letter == 'P');
            letter
        };
        piece.chars().map(tried).collect()
    }

    #[test]
    fn blocks_behind_one_that_does_not_shrink_are_left_alone() {
        assert_eq!(picture("PPPP"), "PPPP");
        assert_eq!(picture(".PPPPP"), ".-PPPP");
        assert_eq!(picture("......P.PPPP"), ".-.---P.-PPP");
        let tried = picture(&".".repeat(64)).matches('.').count();
        assert_eq!(tried, 7);
        let mut shrinking = Shrinking::default();
        assert!(shrinking.tries(PieceIndex(0)));
        shrinking.note(false);
        assert!(!shrinking.tries(PieceIndex(0)));
        assert!(shrinking.tries(PieceIndex(1)), "of another piece");
    }
}
