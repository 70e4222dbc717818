//! Which slot does a job have, and what does it get with the slot?

/// The slot of a job. It is used again after the job has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JobIndex(pub usize);

/// What a job gets with its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub index: JobIndex,
    /// Counts all jobs of the process: unlike a slot it is never used twice.
    pub number: usize,
    /// The job's share of the memory.
    pub pool_bytes: u64,
}
