//! Which event comes next? A queue of all scheduled events, in order of virtual time.
//!
//! Two events at the same time happen in the order in which they were scheduled: same seed, same
//! run.

use alloc::collections::BinaryHeap;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::event::SimEvent;
use crate::units::Instant;

/// Ticks (of one microsecond) that have a list of their own. Most events are scheduled less than
/// that ahead: a block or a round of an event loop.
const NEAR: usize = 1 << 16;

const NONE: u32 = u32::MAX;

/// The events of one microsecond, in the order in which they were scheduled. Ends of blocks come
/// before all others, because the next block follows the last byte of the one before.
#[derive(Clone, Copy)]
struct Tick {
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
    event: Option<SimEvent>,
    next: u32,
}

/// A ring of ticks for the near future and a heap for the rest. Thousands of machines schedule a
/// few events each microsecond, and a run with one heap for all of them would spend its time in the
/// heap.
///
/// Invariants: every event before `now + NEAR` is in the ring, every other event in `far`;
/// `occupied` has a bit for each tick of the ring that has an event.
pub struct Queue {
    now: u64,
    ring: Vec<Tick>,
    occupied: Vec<u64>,
    near_count: usize,
    /// Time, whether it is no end of a block, sequence number, index in `entries`.
    far: BinaryHeap<Reverse<(u64, bool, u64, u32)>>,
    entries: Vec<Entry>,
    free: List,
    scheduled: u64,
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
                Tick {
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
            scheduled: 0,
        }
    }
}

impl Queue {
    pub fn schedule(&mut self, at: Instant, event: SimEvent) {
        assert!(at.0 >= self.now, "{event:?} is scheduled for the past");
        self.scheduled += 1;
        let begins = !matches!(event, SimEvent::BlockEnds(_));
        let entry = Entry {
            event: Some(event),
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
            self.far
                .push(Reverse((at.0, begins, self.scheduled, index)));
        }
    }

    pub fn next(&mut self) -> Option<(Instant, SimEvent)> {
        self.now = if self.near_count > 0 {
            self.first_near()
        } else {
            self.far.peek()?.0.0
        };
        self.move_near_events();
        let place = self.now as usize % NEAR;
        let tick = &mut self.ring[place];
        let index = tick
            .ends
            .pop(&self.entries)
            .or_else(|| tick.begins.pop(&self.entries));
        let index = index.expect("an occupied tick has an event");
        if tick.ends.first == NONE && tick.begins.first == NONE {
            self.occupied[place / 64] &= !(1 << (place % 64));
        }
        self.near_count -= 1;
        let event = self.entries[index as usize].event.take();
        self.free.push(&mut self.entries, index);
        Some((
            Instant(self.now),
            event.expect("an entry has its event until it happens"),
        ))
    }

    /// The first tick of the ring that has an event. Goes round the ring once and reads its first
    /// word twice: at first for the ticks from now on, at the end for those before now, which
    /// belong to the next round.
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

    /// Moves events that are near now from the heap to the ring: in the order in which they were
    /// scheduled, and before any other event is scheduled.
    fn move_near_events(&mut self) {
        while let Some(&Reverse((at, begins, _, index))) = self.far.peek()
            && at < self.now + NEAR as u64
        {
            self.far.pop();
            self.put_near(at, begins, index);
        }
    }

    fn put_near(&mut self, at: u64, begins: bool, index: u32) {
        let place = at as usize % NEAR;
        let tick = &mut self.ring[place];
        let list = if begins {
            &mut tick.begins
        } else {
            &mut tick.ends
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

    /// The naive twin: a list that is sorted each time.
    #[test]
    fn agrees_with_a_sorted_list() {
        let (mut rng, mut queue, mut twin, mut now) =
            (Rng::new(1), Queue::default(), Vec::new(), 0);
        for sequence in 0..20_000_u64 {
            if rng.chance(1, 2) {
                let bound = [2, 100, NEAR as u32 + 2, 10 * NEAR as u32][rng.below(4) as usize];
                let wait = rng.below(bound);
                let machine = sequence as usize;
                queue.schedule(Instant(now + u64::from(wait)), SimEvent::Starts { machine });
                twin.push((now + u64::from(wait), machine));
            } else {
                twin.sort_unstable();
                let expected = (!twin.is_empty()).then(|| twin.remove(0));
                let found = queue.next().map(|(at, event)| match event {
                    SimEvent::Starts { machine } => (at.0, machine),
                    other => unreachable!("{other:?} was not scheduled"),
                });
                assert_eq!(found, expected);
                now = found.map_or(now, |(at, _)| at);
            }
        }
    }
}
