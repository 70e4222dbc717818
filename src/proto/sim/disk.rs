//! What does a simulated disk hold, when does it answer, and which of its operations fail?

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use super::image::Cell;
use crate::rng::Rng;
use crate::swarm::DiskOperation;
use crate::units::Instant;

#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// Bytes per second, reads and writes together.
    pub rate: u64,
    /// Every operation takes up to so much longer; they end in any order.
    pub latency_max: Duration,
    pub fault: DiskFault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    None,
    /// Operations of this kind fail from the nth on.
    Fails {
        operation: DiskOperation,
        from: u32,
    },
    /// The nth write succeeds, and a block of it is not what was written.
    Forgets {
        write: u32,
    },
}

pub struct Disk {
    options: DiskOptions,
    cells: Vec<Cell>,
    free_at: Instant,
    reads: u32,
    writes: u32,
    flushes: u32,
}

impl Disk {
    pub fn new(options: DiskOptions, cell_count: usize) -> Disk {
        Disk { options, cells: vec![None; cell_count], free_at: Instant(0), reads: 0, writes: 0, flushes: 0 }
    }

    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    pub fn cells_mut(&mut self) -> &mut [Cell] {
        &mut self.cells
    }

    /// When an operation on so many bytes that is submitted now will be over.
    pub fn submit(&mut self, now: Instant, bytes: u32, rng: &mut Rng) -> Instant {
        let transfer = Duration::from_micros(u64::from(bytes) * 1_000_000 / self.options.rate);
        self.free_at = now.max(self.free_at) + transfer;
        self.free_at + random_part(self.options.latency_max, rng)
    }

    /// Does the operation that is now over fail?
    pub fn fails(&mut self, operation: DiskOperation) -> bool {
        let count = match operation {
            DiskOperation::Read => &mut self.reads,
            DiskOperation::Write => &mut self.writes,
            DiskOperation::Flush => &mut self.flushes,
        };
        *count += 1;
        match self.options.fault {
            DiskFault::Fails { operation: failing, from } => failing == operation && *count > from,
            _ => false,
        }
    }

    /// Does the write that is now over lie?
    pub fn forgets(&self) -> bool {
        matches!(self.options.fault, DiskFault::Forgets { write } if write + 1 == self.writes)
    }
}

/// Anything from nothing to all of it.
pub fn random_part(whole: Duration, rng: &mut Rng) -> Duration {
    let micros = u32::try_from(whole.as_micros()).expect("over an hour is no latency");
    Duration::from_micros(u64::from(rng.below(micros.saturating_add(1).max(1))))
}
