//! What happens next? Everything that is going to happen, in order of virtual time.
//!
//! Two things at the same moment happen in the order in which they were planned: same seed, same run.

use alloc::collections::BinaryHeap;
use core::cmp::{Ordering, Reverse};

use super::links::Segment;
use crate::announce::Answer;
use crate::swarm::HashOf;
use crate::units::{Instant, Ticket};

/// A machine of the world, from 0. The first one is the seeder that never fails.
pub type NodeId = usize;

/// Which process on a machine: what was planned for one that is gone must not reach its successor.
pub type Life = u32;

/// One side of a connection: 0 connected, 1 accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndId {
    pub connection: u32,
    pub side: u8,
}

impl EndId {
    pub fn other(self) -> EndId {
        EndId { connection: self.connection, side: 1 - self.side }
    }
}

#[derive(Debug)]
pub enum Happening {
    /// The last byte of what an uplink was sending has left.
    UplinkFree {
        node: NodeId,
    },
    /// The first byte of a segment reaches the downlink of its receiver, which may be busy.
    Reaches(Segment),
    /// The downlink turns to a segment: small messages are through, the header of a block is there.
    Begins(Segment),
    /// The last byte of the block of a segment is there.
    Ends(Segment),
    /// The connection asked for stands, on the side that asked.
    Connected {
        end: EndId,
    },
    /// Nobody listens there, or nobody is there at all.
    Unconnected {
        end: EndId,
    },
    /// This end learns that the other one is gone.
    Lost {
        end: EndId,
    },
    /// The disk is through with one operation.
    Disk {
        node: NodeId,
        life: Life,
        ticket: Ticket,
    },
    Hashed {
        node: NodeId,
        life: Life,
        of: HashOf,
        good: bool,
    },
    Announced {
        node: NodeId,
        life: Life,
        answer: Result<Answer, &'static str>,
    },
    /// An agent asked to be woken, or a fake peer has its turn.
    Wakes {
        node: NodeId,
        life: Life,
    },
    /// The loop of a process comes round (only where it does not run after every event).
    Turns {
        node: NodeId,
        life: Life,
    },
    Starts {
        node: NodeId,
    },
    /// The process is gone, without a word, and perhaps the power of its machine.
    Dies {
        node: NodeId,
        power: bool,
    },
    /// The process gets SIGTERM.
    Leaves {
        node: NodeId,
    },
    /// One of the live connections breaks.
    Cut,
    /// The cable of a machine is out until then.
    Unplugged {
        node: NodeId,
        until: Instant,
    },
    /// Somebody stops the tracker for good.
    TrackerStops,
    /// The run is over, whoever still waits.
    Closes,
}

struct Entry {
    at: Instant,
    /// What ends at a moment comes before what begins at it: the next block follows the last byte of the one before.
    begins: bool,
    sequence: u64,
    happening: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        (self.at, self.begins, self.sequence).cmp(&(other.at, other.begins, other.sequence))
    }
}

#[derive(Default)]
pub struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    planned: u64,
}

impl Queue {
    pub fn plan(&mut self, at: Instant, happening: Happening) {
        self.planned += 1;
        let begins = !matches!(happening, Happening::Ends(_));
        self.heap.push(Reverse(Entry { at, begins, sequence: self.planned, happening }));
    }

    pub fn next(&mut self) -> Option<(Instant, Happening)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.happening))
    }
}
