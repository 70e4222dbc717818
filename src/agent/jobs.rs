//! Which jobs run, and which slot does each have?
//!
//! A slab: a job keeps its slot until it is removed, then the slot is free for another job. The
//! memory was divided among the slots at the start, so a job that comes later takes nothing from
//! those that run.

use super::job::Job;
use super::place::{JobIndex, Place};

pub(super) struct Jobs {
    slots: Vec<Slot>,
    /// Jobs inserted so far.
    inserted_count: usize,
}

struct Slot {
    pool_bytes: u64,
    job: Option<Job>,
}

impl Jobs {
    /// Free slots with an equal share of the memory each.
    pub fn new(slot_count: usize, pool_bytes: u64) -> Jobs {
        let free = || Slot {
            pool_bytes,
            job: None,
        };
        Jobs {
            slots: (0..slot_count).map(|_| free()).collect(),
            inserted_count: 0,
        }
    }

    /// Where the next job can be inserted, if a slot is free.
    pub fn free_place(&self) -> Option<Place> {
        let index = self.slots.iter().position(|slot| slot.job.is_none())?;
        Some(Place {
            index: JobIndex(index),
            number: self.inserted_count,
            pool_bytes: self.slots[index].pool_bytes,
        })
    }

    /// `job` was made for `place`, the answer of `free_place`.
    pub fn insert(&mut self, place: Place, job: Job) {
        assert_eq!(Some(place), self.free_place());
        self.slots[place.index.0].job = Some(job);
        self.inserted_count += 1;
    }

    pub fn remove(&mut self, index: JobIndex) -> Option<Job> {
        self.slots[index.0].job.take()
    }

    pub fn get_mut(&mut self, index: JobIndex) -> Option<&mut Job> {
        self.slots.get_mut(index.0)?.job.as_mut()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Job> {
        self.slots.iter().filter_map(|slot| slot.job.as_ref())
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Job> {
        self.slots.iter_mut().filter_map(|slot| slot.job.as_mut())
    }

    /// All slots, free ones too: jobs may be removed on the way.
    pub fn indexes(&self) -> impl Iterator<Item = JobIndex> + use<> {
        (0..self.slots.len()).map(JobIndex)
    }

    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}
