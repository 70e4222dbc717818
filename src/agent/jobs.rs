//! Which jobs run, and which slot does each have?
//!
//! A slab: a job keeps its slot until it is removed, then the slot is free for another job. A job
//! that comes later finds a free slot or gets a new one.

use super::job::Job;
use super::place::{JobIndex, Place};

#[derive(Default)]
pub(super) struct Jobs {
    slots: Vec<Option<Job>>,
    /// Jobs inserted so far.
    inserted_count: usize,
}

impl Jobs {
    /// Where the next job can be inserted, with this share of the memory.
    pub fn free_place(&self, pool_bytes: u64) -> Place {
        let free = self.slots.iter().position(Option::is_none);
        Place {
            index: JobIndex(free.unwrap_or(self.slots.len())),
            number: self.inserted_count,
            pool_bytes,
        }
    }

    /// `job` was made for `place`, the answer of `free_place`.
    pub fn insert(&mut self, place: Place, job: Job) {
        assert_eq!(place, self.free_place(place.pool_bytes));
        if place.index.0 == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[place.index.0] = Some(job);
        self.inserted_count += 1;
    }

    pub fn remove(&mut self, index: JobIndex) -> Option<Job> {
        self.slots[index.0].take()
    }

    pub fn get_mut(&mut self, index: JobIndex) -> Option<&mut Job> {
        self.slots.get_mut(index.0)?.as_mut()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Job> {
        self.slots.iter().flatten()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Job> {
        self.slots.iter_mut().flatten()
    }

    /// All slots, free ones too: jobs may be removed on the way.
    pub fn indexes(&self) -> impl Iterator<Item = JobIndex> + use<> {
        (0..self.slots.len()).map(JobIndex)
    }

    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}
