//! Whom do we upload to: round-robin slots, no tit-for-tat.
//!
//! Everybody in an imaging swarm is ours, so there is nobody to punish. While there are no more
//! peers than slots all of them are unchoked and nothing ever changes: who begins to want something
//! asks for it at once. When there are more, those who want something go before those who do not,
//! and among those who do, the one unchoked longest makes room for the one that has waited longest,
//! at most once per quantum each.

use alloc::vec::Vec;
use core::time::Duration;

use crate::units::{Instant, PeerSlot};

/// One connected peer, as far as this decision needs it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    pub slot: PeerSlot,
    pub interested: bool,
    pub unchoked: bool,
    /// When it was last choked or unchoked (or connected).
    pub since: Instant,
}

/// The peers whose state changes, with `true` for those to unchoke.
pub fn decide(
    now: Instant,
    candidates: &[Candidate],
    slots: usize,
    quantum: Duration,
) -> Vec<(PeerSlot, bool)> {
    let longest_first = |interested: bool, unchoked: bool| {
        let is_it = |c: &Candidate| c.interested == interested && c.unchoked == unchoked;
        let mut list: Vec<Candidate> = candidates.iter().copied().filter(is_it).collect();
        list.sort_unstable_by_key(|c| (c.since, c.slot));
        list.into_iter()
    };
    let (active, idle) = (longest_first(true, true), longest_first(false, true));
    let (waiting, resting) = (longest_first(true, false), longest_first(false, false));

    let vacant = slots.saturating_sub(active.len());
    let crowded_out = waiting.len().saturating_sub(vacant);
    let served = |c: &Candidate| now.since(c.since) >= quantum;
    let rotated = active.take(crowded_out).filter(served);
    // Slots that nobody needs: those who are unchoked keep them as far as there are enough.
    let spare = vacant.saturating_sub(waiting.len());
    let evicted = idle.len().saturating_sub(spare);
    let invited = spare.saturating_sub(idle.len());

    let mut changes: Vec<(PeerSlot, bool)> = rotated.map(|c| (c.slot, false)).collect();
    let room = vacant + changes.len();
    changes.extend(idle.take(evicted).map(|c| (c.slot, false)));
    changes.extend(waiting.take(room).map(|c| (c.slot, true)));
    changes.extend(resting.take(invited).map(|c| (c.slot, true)));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `i` interested and choked, `I` interested and unchoked, `u` unchoked but not interested, `.`
    /// neither; each `since` its place in the picture, in seconds. The answer is the picture
    /// afterwards.
    fn picture(before: &str, now_secs: u64, slots: usize) -> String {
        let candidate = |(at, c): (usize, char)| Candidate {
            slot: PeerSlot(at as u32),
            interested: c.eq_ignore_ascii_case(&'i'),
            unchoked: c == 'I' || c == 'u',
            since: Instant(at as u64 * 1_000_000),
        };
        let candidates: Vec<Candidate> = before.chars().enumerate().map(candidate).collect();
        let mut after: Vec<char> = before.chars().collect();
        for (slot, unchoke) in decide(
            Instant(now_secs * 1_000_000),
            &candidates,
            slots,
            Duration::from_secs(10),
        ) {
            after[slot.index()] = match (unchoke, candidates[slot.index()].interested) {
                (true, true) => 'I',
                (false, true) => 'i',
                (false, false) => '.',
                (true, false) => 'u',
            };
        }
        after.into_iter().collect()
    }

    #[test]
    fn room_for_all_means_all() {
        assert_eq!(picture("ii.I", 0, 4), "IIuI");
        assert_eq!(picture("ii.I", 0, 3), "II.I");
        assert_eq!(picture("IIII", 99, 4), "IIII");
    }

    #[test]
    fn the_longest_served_gives_way_to_the_longest_waiting() {
        assert_eq!(picture("IIii", 9, 2), "IIii", "quantum not over");
        assert_eq!(
            picture("IIii", 10, 2),
            "iIIi",
            "only the first has had its ten seconds"
        );
        assert_eq!(picture("IIii", 99, 2), "iiII");
        assert_eq!(picture("IIi", 99, 2), "iII", "no more rotate than wait");
    }

    #[test]
    fn the_uninterested_have_what_nobody_needs() {
        assert_eq!(picture("ui", 0, 1), ".I");
        assert_eq!(picture("u.", 0, 1), "u.");
        assert_eq!(picture("u.", 0, 2), "uu");
        assert_eq!(picture("uuui", 0, 3), ".uuI");
        assert_eq!(
            picture("uIi", 0, 1),
            ".Ii",
            "nor have they any while others wait for their turn"
        );
    }

    /// Every interested peer gets a slot within a bounded number of quanta.
    #[test]
    fn nobody_starves() {
        let mut candidates: Vec<Candidate> = (0..23)
            .map(|slot| Candidate {
                slot: PeerSlot(slot),
                interested: true,
                unchoked: false,
                since: Instant(0),
            })
            .collect();
        let mut turns = [0; 23];
        for second in 1..=100 {
            let now = Instant(second * 1_000_000);
            for (slot, unchoke) in decide(now, &candidates, 4, Duration::from_secs(1)) {
                candidates[slot.index()].unchoked = unchoke;
                candidates[slot.index()].since = now;
                turns[slot.index()] += usize::from(unchoke);
            }
            assert!(candidates.iter().filter(|c| c.unchoked).count() <= 4);
        }
        assert!(turns.iter().all(|&t| t >= 100 * 4 / 23 - 1), "{turns:?}");
    }
}
