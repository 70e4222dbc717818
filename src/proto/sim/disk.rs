//! What does a simulated disk hold, when does it answer, which of its operations fail, and what is
//! left after a power cut?

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use super::image::{Cell, Image, ZEROS};
use super::random::random_up_to;
use crate::rng::Rng;
use crate::swarm::DiskOperation;
use crate::units::{Instant, PieceIndex};

#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// Bytes per second, of reads and writes together.
    pub rate: u64,
    /// Every operation takes up to this much longer, so operations end in any order.
    pub latency_max: Duration,
    pub contents: Contents,
    pub fault: DiskFault,
}

/// What a disk holds when its machine starts for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    Zeros,
    Garbage,
    Image,
    /// This percentage of the pieces, anywhere. Each other piece has one bad block, or only bad
    /// ones.
    Part(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    None,
    /// Operations of this kind fail after the first `from`.
    Fails {
        operation: DiskOperation,
        from: u32,
    },
    /// One piece in `one_in` cannot be read until it is written.
    Unreadable {
        one_in: u32,
    },
    /// Write number `write` reports success, and one of its blocks is lost. `always`: later writes
    /// of the same piece lose the block again.
    LosesWrite {
        write: u32,
        always: bool,
    },
}

pub struct SimDisk {
    options: DiskOptions,
    cells: Vec<Cell>,
    free_at: Instant,
    reads: u32,
    writes: u32,
    flushes: u32,
    /// Pieces that cannot be read, and pieces of which every write loses a block.
    unreadable: BTreeSet<PieceIndex>,
    lossy: BTreeSet<PieceIndex>,
    /// The former contents of the places that were written since the last flush.
    overwritten: Vec<(usize, Cell)>,
}

impl SimDisk {
    pub fn new(options: DiskOptions, image: &Image, rng: &mut Rng) -> SimDisk {
        let background = if options.contents == Contents::Garbage || rng.chance(1, 2) {
            None
        } else {
            ZEROS
        };
        let mut cells = vec![background; image.cell_count()];
        let held = match options.contents {
            Contents::Zeros => {
                cells.fill(ZEROS);
                0
            }
            Contents::Garbage => 0,
            Contents::Image => 100,
            Contents::Part(percent) => percent,
        };
        for piece in image.all_pieces() {
            let places = image.places_of(piece);
            let holds = rng.chance(held, 100);
            if holds || matches!(options.contents, Contents::Part(_)) && rng.chance(1, 2) {
                places
                    .clone()
                    .for_each(|place| cells[place] = image.content(place));
                if !holds {
                    cells[places.start + rng.below(places.len() as u32) as usize] = None;
                }
            }
        }
        let unreadable = match options.fault {
            DiskFault::Unreadable { one_in } => image
                .all_pieces()
                .filter(|_| rng.chance(1, one_in))
                .collect(),
            _ => BTreeSet::new(),
        };
        SimDisk {
            options,
            cells,
            free_at: Instant(0),
            reads: 0,
            writes: 0,
            flushes: 0,
            unreadable,
            lossy: BTreeSet::new(),
            overwritten: Vec::new(),
        }
    }

    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// Submits an operation on `bytes` bytes, and returns when it ends.
    pub fn submit(&mut self, now: Instant, bytes: u32, rng: &mut Rng) -> Instant {
        let transfer = Duration::from_micros(u64::from(bytes) * 1_000_000 / self.options.rate);
        self.free_at = now.max(self.free_at) + transfer;
        self.free_at + random_up_to(self.options.latency_max, rng)
    }

    /// Whether the operation that ends now fails.
    pub fn fails(&mut self, operation: DiskOperation, piece: PieceIndex) -> bool {
        let count = match operation {
            DiskOperation::Read => &mut self.reads,
            DiskOperation::Write => &mut self.writes,
            DiskOperation::Flush => &mut self.flushes,
        };
        *count += 1;
        match self.options.fault {
            DiskFault::Fails {
                operation: failing,
                from,
            } => failing == operation && *count > from,
            _ => operation == DiskOperation::Read && self.unreadable.contains(&piece),
        }
    }

    /// A write that did not fail ends.
    pub fn write(&mut self, piece: PieceIndex, places: Range<usize>, written: &[Cell]) {
        self.unreadable.remove(&piece);
        if let DiskFault::LosesWrite { write, always } = self.options.fault {
            let now = write + 1 == self.writes;
            if now && always {
                self.lossy.insert(piece);
            }
            let loses = now || self.lossy.contains(&piece);
            self.put(places.clone(), written);
            if loses {
                self.cells[places.start] = None;
            }
            return;
        }
        self.put(places, written);
    }

    fn put(&mut self, places: Range<usize>, written: &[Cell]) {
        self.overwritten
            .extend(places.clone().map(|place| (place, self.cells[place])));
        self.cells[places].copy_from_slice(written);
    }

    /// A flush ends; no write was in flight beside it.
    pub fn flushed(&mut self) {
        self.overwritten.clear();
    }

    /// A power cut: of the blocks that were not flushed none, a part or all are lost.
    pub fn cut_power(&mut self, rng: &mut Rng) {
        let lost = [0, 5, 30, 100][rng.below(4) as usize];
        while let Some((place, before)) = self.overwritten.pop() {
            if rng.chance(lost, 100) {
                self.cells[place] = before;
            }
        }
    }

    /// A write was in flight when its process was killed: none, half or all of its blocks are on
    /// disk.
    pub fn tear_write(&mut self, places: Range<usize>, written: &[Cell], rng: &mut Rng) {
        let there = [0, 50, 100][rng.below(3) as usize];
        let torn = |(old, new): (&Cell, &Cell)| if rng.chance(there, 100) { *new } else { *old };
        let torn: Vec<Cell> = self.cells[places.clone()]
            .iter()
            .zip(written)
            .map(torn)
            .collect();
        self.put(places, &torn);
    }
}
