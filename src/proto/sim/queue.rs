//! What happens next? Everything that is going to happen, in order of virtual time.
//!
//! Two things at the same moment happen in the order in which they were planned: same seed, same
//! run.

use alloc::collections::BinaryHeap;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::event::Happening;
use crate::units::Instant;

/// Moments a microsecond apart that have a list of their own: most of what is planned is a block or
/// a turn away.
const NEAR: usize = 1 << 16;

const NONE: u32 = u32::MAX;

/// What happens at one moment, oldest plan first. What ends then comes before what begins: the next
/// block follows the last byte of the one before.
#[derive(Clone, Copy)]
struct Moment {
    ends: List,
    begins: List,
}

/// A chain through `Queue::entries`.
#[derive(Clone, Copy)]
struct List {
    first: u32,
    last: u32,
}

struct Entry {
    happening: Option<Happening>,
    next: u32,
}

/// A ring of moments for the near future and a heap for the rest: thousands of machines plan a few
/// events each microsecond, and a heap of them all is what a run would spend its time on.
///
/// Invariants: whatever is planned before `now + NEAR` is in the ring, everything else in `far`;
/// `occupied` has a bit for each moment of the ring with something in it.
pub struct Queue {
    now: u64,
    ring: Vec<Moment>,
    occupied: Vec<u64>,
    near_count: usize,
    /// When, whether it begins, the number of the plan, where it lies.
    far: BinaryHeap<Reverse<(u64, bool, u64, u32)>>,
    entries: Vec<Entry>,
    free: List,
    planned: u64,
}

impl Default for Queue {
    fn default() -> Queue {
        let empty = List {
            first: NONE,
            last: NONE,
        };
        Queue {
            now: 0,
            ring: vec![
                Moment {
                    ends: empty,
                    begins: empty
                };
                NEAR
            ],
            occupied: vec![0; NEAR / 64],
            near_count: 0,
            far: BinaryHeap::new(),
            entries: Vec::new(),
            free: empty,
            planned: 0,
        }
    }
}

impl Queue {
    pub fn plan(&mut self, at: Instant, happening: Happening) {
        assert!(at.0 >= self.now, "{happening:?} is planned for the past");
        self.planned += 1;
        let begins = !matches!(happening, Happening::Ends(_));
        let entry = Entry {
            happening: Some(happening),
            next: NONE,
        };
        let index = match self.free.pop(&self.entries) {
            Some(index) => {
                self.entries[index as usize] = entry;
                index
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        };
        if at.0 < self.now + NEAR as u64 {
            self.put_near(at.0, begins, index);
        } else {
            self.far.push(Reverse((at.0, begins, self.planned, index)));
        }
    }

    pub fn next(&mut self) -> Option<(Instant, Happening)> {
        self.now = if self.near_count > 0 {
            self.first_near()
        } else {
            self.far.peek()?.0.0
        };
        self.come_nearer();
        let place = self.now as usize % NEAR;
        let moment = &mut self.ring[place];
        let index = moment
            .ends
            .pop(&self.entries)
            .or_else(|| moment.begins.pop(&self.entries));
        let index = index.expect("something happens now");
        if moment.ends.first == NONE && moment.begins.first == NONE {
            self.occupied[place / 64] &= !(1 << (place % 64));
        }
        self.near_count -= 1;
        let happening = self.entries[index as usize].happening.take();
        self.free.push(&mut self.entries, index);
        Some((Instant(self.now), happening.expect("it was planned")))
    }

    /// The first moment of the ring with something in it. Looks around once, and into its first
    /// word twice: at what comes after now, and at the end at what comes before the same place of
    /// the next round.
    fn first_near(&self) -> u64 {
        let here = self.now as usize % NEAR;
        let words = self.occupied.len();
        for step in 0..=words {
            let word = (here / 64 + step) % words;
            let passed = if step == 0 { !0 << (here % 64) } else { !0 };
            let bits = self.occupied[word] & passed;
            if bits != 0 {
                let place = word * 64 + bits.trailing_zeros() as usize;
                return self.now + ((place + NEAR - here) % NEAR) as u64;
            }
        }
        unreachable!("the ring is not empty")
    }

    /// Time has passed: some of what was far is near. In the order of its plans, and before
    /// anything else is planned.
    fn come_nearer(&mut self) {
        while let Some(&Reverse((at, begins, _, index))) = self.far.peek()
            && at < self.now + NEAR as u64
        {
            self.far.pop();
            self.put_near(at, begins, index);
        }
    }

    fn put_near(&mut self, at: u64, begins: bool, index: u32) {
        let place = at as usize % NEAR;
        let moment = &mut self.ring[place];
        let list = if begins {
            &mut moment.begins
        } else {
            &mut moment.ends
        };
        list.push(&mut self.entries, index);
        self.occupied[place / 64] |= 1 << (place % 64);
        self.near_count += 1;
    }
}

impl List {
    fn push(&mut self, entries: &mut [Entry], index: u32) {
        entries[index as usize].next = NONE;
        match self.last {
            NONE => self.first = index,
            last => entries[last as usize].next = index,
        }
        self.last = index;
    }

    fn pop(&mut self, entries: &[Entry]) -> Option<u32> {
        let index = (self.first != NONE).then_some(self.first)?;
        self.first = entries[index as usize].next;
        if self.first == NONE {
            self.last = NONE;
        }
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// The stupid twin: a list that is sorted each time.
    #[test]
    fn agrees_with_a_sorted_list() {
        let (mut rng, mut queue, mut twin, mut now) =
            (Rng::new(1), Queue::default(), Vec::new(), 0);
        for sequence in 0..20_000_u64 {
            if rng.chance(1, 2) {
                let bound = [2, 100, NEAR as u32 + 2, 10 * NEAR as u32][rng.below(4) as usize];
                let wait = rng.below(bound);
                let node = sequence as usize;
                queue.plan(Instant(now + u64::from(wait)), Happening::Starts { node });
                twin.push((now + u64::from(wait), node));
            } else {
                twin.sort_unstable();
                let expected = (!twin.is_empty()).then(|| twin.remove(0));
                let found = queue.next().map(|(at, happening)| match happening {
                    Happening::Starts { node } => (at.0, node),
                    other => unreachable!("{other:?} was not planned"),
                });
                assert_eq!(found, expected);
                now = found.map_or(now, |(at, _)| at);
            }
        }
    }
}
