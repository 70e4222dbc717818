//! Which peers do we upload to? Upload slots go round; there is no tit-for-tat.
//!
//! All peers of an imaging swarm are ours, so there is nobody to punish. While there are at least
//! as many slots as peers, all peers are unchoked and nothing ever changes: a peer that begins to
//! want something asks for it at once. When there are more peers than slots, interested peers go
//! before the others. Among interested peers, the one unchoked longest makes room for the one that
//! has waited longest, each at most once per quantum.

use alloc::vec::Vec;
use core::time::Duration;

use crate::units::{Instant, PeerSlot};

/// One connected peer, as far as this decision needs it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    pub slot: PeerSlot,
    pub interested: bool,
    pub unchoked: bool,
    /// When it was last choked or unchoked, or when it connected.
    pub since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Choke(PeerSlot),
    Unchoke(PeerSlot),
}

/// The peers whose state changes.
pub fn decide(
    now: Instant,
    candidates: &[Candidate],
    slots: usize,
    quantum: Duration,
) -> Vec<Change> {
    let longest_first = |interested: bool, unchoked: bool| {
        let matches = |c: &Candidate| c.interested == interested && c.unchoked == unchoked;
        let mut list: Vec<Candidate> = candidates.iter().copied().filter(matches).collect();
        list.sort_unstable_by_key(|c| (c.since, c.slot));
        list.into_iter()
    };
    let (active, idle) = (longest_first(true, true), longest_first(false, true));
    let (waiting, resting) = (longest_first(true, false), longest_first(false, false));

    let vacant = slots.saturating_sub(active.len());
    let crowded_out = waiting.len().saturating_sub(vacant);
    let served = |c: &Candidate| now.since(c.since) >= quantum;
    let rotated = active.take(crowded_out).filter(served);
    // Slots that no interested peer needs: peers that are unchoked already keep them.
    let spare = vacant.saturating_sub(waiting.len());
    let evicted = idle.len().saturating_sub(spare);
    let invited = spare.saturating_sub(idle.len());

    let choke = |c: Candidate| Change::Choke(c.slot);
    let unchoke = |c: Candidate| Change::Unchoke(c.slot);
    let mut changes: Vec<Change> = rotated.map(choke).collect();
    let room = vacant + changes.len();
    changes.extend(idle.take(evicted).map(choke));
    changes.extend(waiting.take(room).map(unchoke));
    changes.extend(resting.take(invited).map(unchoke));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(change: Change) -> (PeerSlot, bool) {
        match change {
            Change::Choke(slot) => (slot, false),
            Change::Unchoke(slot) => (slot, true),
        }
    }

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
        let now = Instant(now_secs * 1_000_000);
        for change in decide(now, &candidates, slots, Duration::from_secs(10)) {
            let (slot, unchoke) = parts(change);
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
    fn with_enough_slots_all_peers_are_unchoked() {
        assert_eq!(picture("ii.I", 0, 4), "IIuI");
        assert_eq!(picture("ii.I", 0, 3), "II.I");
        assert_eq!(picture("IIII", 99, 4), "IIII");
    }

    #[test]
    fn the_peer_served_longest_gives_way_to_the_peer_waiting_longest() {
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
    fn peers_that_are_not_interested_get_only_spare_slots() {
        assert_eq!(picture("ui", 0, 1), ".I");
        assert_eq!(picture("u.", 0, 1), "u.");
        assert_eq!(picture("u.", 0, 2), "uu");
        assert_eq!(picture("uuui", 0, 3), ".uuI");
        assert_eq!(
            picture("uIi", 0, 1),
            ".Ii",
            "there are no spare slots while interested peers wait"
        );
    }

    /// Every interested peer gets a slot within a bounded number of quanta.
    #[test]
    fn every_interested_peer_gets_its_turn() {
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
            for change in decide(now, &candidates, 4, Duration::from_secs(1)) {
                let (slot, unchoke) = parts(change);
                candidates[slot.index()].unchoked = unchoke;
                candidates[slot.index()].since = now;
                turns[slot.index()] += usize::from(unchoke);
            }
            assert!(candidates.iter().filter(|c| c.unchoked).count() <= 4);
        }
        assert!(turns.iter().all(|&t| t >= 100 * 4 / 23 - 1), "{turns:?}");
    }
}
