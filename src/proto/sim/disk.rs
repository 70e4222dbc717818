//! What does a simulated disk hold, when does it answer, which of its operations fail, and what is
//! left after a power cut?

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use super::image::{Cell, Image, ZEROS};
use super::random::random_up_to;
use crate::rng::Rng;
use crate::swarm::DiskOperation;
use crate::units::{Instant, PieceIndex, Ticket};

#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// Bytes per second, of reads and writes together.
    pub rate: u64,
    /// Every operation takes up to this much longer, so operations end in any order.
    pub latency_max: Duration,
    /// Time before an operation that does not begin where the last one ended.
    pub seek: Duration,
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
    /// `count` writes from number `write` on report success, and one block of each is lost.
    /// `always`: later writes of the same pieces lose the block again. `hidden`: until a flush, the
    /// cache of the disk answers as if it were there.
    LosesWrite {
        write: u32,
        count: u32,
        always: bool,
        hidden: bool,
    },
}

pub struct SimDisk {
    options: DiskOptions,
    cells: Vec<Cell>,
    free_at: Instant,
    /// Where the last operation ended.
    head: usize,
    reads: u32,
    writes: u32,
    flushes: u32,
    /// Pieces that cannot be read, and pieces of which every write loses a block.
    unreadable: BTreeSet<PieceIndex>,
    lossy: BTreeSet<PieceIndex>,
    /// How many writes have ended: the number of the next one.
    ended: u64,
    /// The former contents of the places that were written and not flushed, and places that will be
    /// lost with the next flush; each with the number of its write.
    overwritten: Vec<(u64, usize, Cell)>,
    hidden: Vec<(u64, usize)>,
    /// For each flush, how many writes had ended when it was submitted.
    flushing: BTreeMap<Ticket, u64>,
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
            head: 0,
            reads: 0,
            writes: 0,
            flushes: 0,
            unreadable,
            lossy: BTreeSet::new(),
            ended: 0,
            overwritten: Vec::new(),
            hidden: Vec::new(),
            flushing: BTreeMap::new(),
        }
    }

    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// Submits an operation on `bytes` bytes in these places, and returns when it ends.
    pub fn submit(
        &mut self,
        now: Instant,
        places: Range<usize>,
        bytes: u32,
        rng: &mut Rng,
    ) -> Instant {
        let transfer = Duration::from_micros(u64::from(bytes) * 1_000_000 / self.options.rate);
        let seek = match places.start == self.head {
            true => Duration::ZERO,
            false => self.options.seek,
        };
        self.head = places.end;
        self.free_at = now.max(self.free_at) + seek + transfer;
        self.free_at + random_up_to(self.options.latency_max, rng)
    }

    /// Submits a flush, which covers the writes that have ended.
    pub fn submit_flush(&mut self, now: Instant, ticket: Ticket, rng: &mut Rng) -> Instant {
        self.flushing.insert(ticket, self.ended);
        self.submit(now, usize::MAX..usize::MAX, 0, rng)
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
        if let DiskFault::LosesWrite {
            write,
            count,
            always,
            hidden,
        } = self.options.fault
        {
            let now = (write..write + count).contains(&(self.writes - 1));
            if now && always {
                self.lossy.insert(piece);
            }
            let loses = now || self.lossy.contains(&piece);
            self.put(places.clone(), written);
            if loses && hidden {
                self.hidden.push((self.ended - 1, places.start));
            } else if loses {
                self.cells[places.start] = None;
            }
            return;
        }
        self.put(places, written);
    }

    fn put(&mut self, places: Range<usize>, written: &[Cell]) {
        let before = |place| (self.ended, place, self.cells[place]);
        self.overwritten.extend(places.clone().map(before));
        self.hidden.retain(|(_, place)| !places.contains(place));
        self.cells[places].copy_from_slice(written);
        self.ended += 1;
    }

    /// A flush ends.
    pub fn flushed(&mut self, ticket: Ticket) {
        let covers = self.flushing.remove(&ticket);
        self.write_out(covers.expect("a flush ends that was submitted"));
    }

    /// The cache of the disk forgets the writes up to this one.
    fn write_out(&mut self, covers: u64) {
        self.overwritten.retain(|(number, ..)| *number >= covers);
        for (_, place) in self.hidden.extract_if(.., |(number, _)| *number < covers) {
            self.cells[place] = None;
        }
    }

    /// The process has ended, and before the next one begins the disk has written out its cache.
    pub fn settle(&mut self) {
        self.flushing.clear();
        self.write_out(u64::MAX);
    }

    /// A power cut: of the blocks that were not flushed none, a part or all are lost.
    pub fn cut_power(&mut self, rng: &mut Rng) {
        let lost = [0, 5, 30, 100][rng.below(4) as usize];
        while let Some((_, place, before)) = self.overwritten.pop() {
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
