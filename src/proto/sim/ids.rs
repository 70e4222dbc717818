//! How are machines, their processes and the ends of connections numbered?

/// A machine of the room, from 0. Machine 0 is the seeder that never fails.
pub type MachineId = usize;

/// Counts the processes of one machine, so that an event scheduled for a process that has ended
/// does not reach the next one.
pub type ProcessId = u32;

/// One side of a connection: side 0 connected, side 1 accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndId {
    pub connection: u32,
    pub side: u8,
}

impl EndId {
    pub fn other(self) -> EndId {
        EndId {
            connection: self.connection,
            side: 1 - self.side,
        }
    }
}
