//! What is on its way to a peer?

use crate::units::{Block, BufferId};

/// A block that the shell is sending.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sending {
    pub(super) block: Block,
    /// Pinned until it is sent.
    pub(super) buffer: BufferId,
    /// Of its payload on the way.
    pub(super) wire_bytes: u32,
}
