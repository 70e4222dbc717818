//! How are machines, their processes and the ends of connections numbered?

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
        EndId {
            connection: self.connection,
            side: 1 - self.side,
        }
    }
}
