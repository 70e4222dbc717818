//! What can happen in a simulated swarm?

use alloc::boxed::Box;

use super::ids::{EndId, Life, NodeId};
use super::packet::Segment;
use crate::swarm::HashOf;
use crate::units::{Instant, Ticket};
use crate::wire::announce::Answer;

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
        answer: Box<Result<Answer, &'static str>>,
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

impl Happening {
    /// A word that tells this event from most others, for the hash over a run.
    pub fn fingerprint(&self) -> u64 {
        let (kind, detail) = match self {
            Happening::UplinkFree { node } => (1, *node as u64),
            Happening::Reaches(segment) => (2, u64::from(segment.bytes)),
            Happening::Begins(segment) => (3, u64::from(segment.bytes)),
            Happening::Ends(segment) => (4, u64::from(segment.from.connection)),
            Happening::Connected { end } => (5, u64::from(end.connection)),
            Happening::Unconnected { end } => (6, u64::from(end.connection)),
            Happening::Lost { end } => (7, u64::from(end.connection)),
            Happening::Disk { ticket, .. } => (8, ticket.0),
            Happening::Hashed { node, good, .. } => (9, *node as u64 * 2 + u64::from(*good)),
            Happening::Announced { node, answer, .. } => {
                (10, *node as u64 * 2 + u64::from(answer.is_ok()))
            }
            Happening::Wakes { node, .. } => (11, *node as u64),
            Happening::Turns { node, .. } => (12, *node as u64),
            Happening::Starts { node } => (13, *node as u64),
            Happening::Dies { node, .. } => (14, *node as u64),
            Happening::Leaves { node } => (15, *node as u64),
            Happening::Cut => (16, 0),
            Happening::Unplugged { node, .. } => (17, *node as u64),
            Happening::TrackerStops => (18, 0),
            Happening::Closes => (19, 0),
        };
        kind << 56 ^ detail
    }
}
