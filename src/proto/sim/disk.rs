//! What does a simulated disk hold, when does it answer, which of its operations fail, and what is
//! left when the power goes?

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use super::image::{Cell, Image, ZEROS};
use super::random::random_part;
use crate::rng::Rng;
use crate::swarm::DiskOperation;
use crate::units::{Instant, PieceIndex};

#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// Bytes per second, reads and writes together.
    pub rate: u64,
    /// Every operation takes up to so much longer; they end in any order.
    pub latency_max: Duration,
    pub holds: Holds,
    pub fault: DiskFault,
}

/// What is on it when its machine starts for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    Zeros,
    Garbage,
    Image,
    /// So many percent of the pieces, anywhere; the others have one block or all of them bad.
    Part(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    None,
    /// Operations of this kind fail from the nth on.
    Fails {
        operation: DiskOperation,
        from: u32,
    },
    /// One piece in so many cannot be read, until it is written.
    Unreadable {
        one_in: u32,
    },
    /// The nth write succeeds, and a block of it is not what was written. `always`: so do later
    /// writes to the same place.
    Forgets {
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
    /// Pieces that cannot be read, and pieces that cannot be written.
    unreadable: BTreeSet<PieceIndex>,
    forgetful: BTreeSet<PieceIndex>,
    /// What stood in the places that were written since the last flush.
    overwritten: Vec<(usize, Cell)>,
}

impl SimDisk {
    pub fn new(options: DiskOptions, image: &Image, rng: &mut Rng) -> SimDisk {
        let background = if options.holds == Holds::Garbage || rng.chance(1, 2) {
            None
        } else {
            ZEROS
        };
        let mut cells = vec![background; image.cell_count()];
        let held = match options.holds {
            Holds::Zeros => {
                cells.fill(ZEROS);
                0
            }
            Holds::Garbage => 0,
            Holds::Image => 100,
            Holds::Part(percent) => percent,
        };
        for piece in image.all_pieces() {
            let places = image.places_of(piece);
            let holds = rng.chance(held, 100);
            if holds || matches!(options.holds, Holds::Part(_)) && rng.chance(1, 2) {
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
            forgetful: BTreeSet::new(),
            overwritten: Vec::new(),
        }
    }

    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// When an operation on so many bytes that is submitted now will be over.
    pub fn submit(&mut self, now: Instant, bytes: u32, rng: &mut Rng) -> Instant {
        let transfer = Duration::from_micros(u64::from(bytes) * 1_000_000 / self.options.rate);
        self.free_at = now.max(self.free_at) + transfer;
        self.free_at + random_part(self.options.latency_max, rng)
    }

    /// Does the operation that is now over fail?
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

    /// A write that did not fail is over.
    pub fn write(&mut self, piece: PieceIndex, places: Range<usize>, written: &[Cell]) {
        self.unreadable.remove(&piece);
        if let DiskFault::Forgets { write, always } = self.options.fault {
            let now = write + 1 == self.writes;
            if now && always {
                self.forgetful.insert(piece);
            }
            let forgets = now || self.forgetful.contains(&piece);
            self.put(places.clone(), written);
            if forgets {
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

    /// A flush is over, and no write was in flight beside it.
    pub fn flushed(&mut self) {
        self.overwritten.clear();
    }

    /// The power goes: of what was not flushed some is lost, a block here and a block there, or all
    /// of it.
    pub fn loses_power(&mut self, rng: &mut Rng) {
        let lost = [0, 5, 30, 100][rng.below(4) as usize];
        while let Some((place, before)) = self.overwritten.pop() {
            if rng.chance(lost, 100) {
                self.cells[place] = before;
            }
        }
    }

    /// A write that was in flight when its process died: some of it is there, or all of it.
    pub fn tears(&mut self, places: Range<usize>, written: &[Cell], rng: &mut Rng) {
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
