//! What can happen in a simulated swarm?

use alloc::boxed::Box;

use super::ids::{EndId, MachineId, ProcessId};
use super::packet::Segment;
use crate::swarm::HashOf;
use crate::units::{Instant, Ticket};
use crate::wire::announce::Answer;

/// An event of the simulation, as opposed to [`crate::swarm::Event`], which an agent reports.
#[derive(Debug)]
pub enum SimEvent {
    /// An uplink has sent the last byte of its segment.
    UplinkFree { machine: MachineId },
    /// The first byte of a segment has passed the cable of the sender's rack, if it leaves that.
    SegmentReachesRack(Segment),
    /// The first byte of a segment reaches the downlink of its receiver, which may be busy.
    SegmentReaches(Segment),
    /// The downlink begins to receive a segment: its small messages and the header of its block
    /// arrive.
    SegmentBegins(Segment),
    /// The last byte of the block of a segment arrives.
    BlockEnds(Segment),
    /// A connection is set up, on the side that asked for it.
    Connects { end: EndId },
    /// A connection is refused.
    ConnectFails { end: EndId },
    /// This end learns that the other end is gone.
    ConnectionLost { end: EndId },
    /// The disk has finished one operation.
    DiskDone {
        machine: MachineId,
        process: ProcessId,
        ticket: Ticket,
    },
    /// The hash unit has finished one piece.
    Hashed {
        machine: MachineId,
        process: ProcessId,
        of: HashOf,
        good: bool,
    },
    /// The tracker's answer arrives, or the announce fails.
    Announced {
        machine: MachineId,
        process: ProcessId,
        answer: Box<Result<Answer, &'static str>>,
    },
    /// A timeout of an agent is due, or a fake peer acts.
    TimerFires {
        machine: MachineId,
        process: ProcessId,
    },
    /// The event loop of an agent runs. Without `Options::loop_time` it runs after every event, and
    /// this one does not occur.
    LoopRuns {
        machine: MachineId,
        process: ProcessId,
    },
    /// A process starts.
    Starts { machine: MachineId },
    /// The process ends without a warning, perhaps because its machine loses power.
    Killed { machine: MachineId, power_cut: bool },
    /// The process gets SIGTERM.
    Terminated { machine: MachineId },
    /// One of the open connections breaks.
    ConnectionCut,
    /// The cable of a machine is pulled out until then, and the machine may stand still.
    Unplugged {
        machine: MachineId,
        until: Instant,
        stands_still: bool,
    },
    /// The tracker stops for good.
    TrackerStops,
    /// The run ends, even if an agent still waits.
    RunEnds,
}

impl SimEvent {
    /// A word that differs from that of most other events, for the hash over a run.
    pub fn fingerprint(&self) -> u64 {
        let (kind, detail) = match self {
            SimEvent::UplinkFree { machine } => (1, *machine as u64),
            SimEvent::SegmentReachesRack(segment) => (20, u64::from(segment.bytes)),
            SimEvent::SegmentReaches(segment) => (2, u64::from(segment.bytes)),
            SimEvent::SegmentBegins(segment) => (3, u64::from(segment.bytes)),
            SimEvent::BlockEnds(segment) => (4, u64::from(segment.from.connection)),
            SimEvent::Connects { end } => (5, u64::from(end.connection)),
            SimEvent::ConnectFails { end } => (6, u64::from(end.connection)),
            SimEvent::ConnectionLost { end } => (7, u64::from(end.connection)),
            SimEvent::DiskDone { ticket, .. } => (8, ticket.0),
            SimEvent::Hashed { machine, good, .. } => (9, *machine as u64 * 2 + u64::from(*good)),
            SimEvent::Announced {
                machine, answer, ..
            } => (10, *machine as u64 * 2 + u64::from(answer.is_ok())),
            SimEvent::TimerFires { machine, .. } => (11, *machine as u64),
            SimEvent::LoopRuns { machine, .. } => (12, *machine as u64),
            SimEvent::Starts { machine } => (13, *machine as u64),
            SimEvent::Killed { machine, .. } => (14, *machine as u64),
            SimEvent::Terminated { machine } => (15, *machine as u64),
            SimEvent::ConnectionCut => (16, 0),
            SimEvent::Unplugged { machine, .. } => (17, *machine as u64),
            SimEvent::TrackerStops => (18, 0),
            SimEvent::RunEnds => (19, 0),
        };
        kind << 56 ^ detail
    }
}
