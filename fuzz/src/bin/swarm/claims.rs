//! Who reads and who writes which bytes of the pool?

use std::ops::Range;

use swarm_proto::units::{BufferId, PeerSlot, Ticket};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A block comes in.
    Receives(PeerSlot),
    /// A block goes out.
    Sends(PeerSlot),
    Disk(Ticket),
}

#[derive(Debug)]
struct Claim {
    buffer: BufferId,
    range: Range<u32>,
    writes: bool,
    owner: Owner,
}

/// Bytes that are being written are nobody else's, and bytes that are being read do not change.
#[derive(Debug)]
pub struct Claims {
    buffer_count: u32,
    buffer_bytes: u32,
    claims: Vec<Claim>,
}

impl Claims {
    pub fn new(buffer_count: u32, buffer_bytes: u32) -> Claims {
        Claims {
            buffer_count,
            buffer_bytes,
            claims: Vec::new(),
        }
    }

    pub fn read(&mut self, buffer: BufferId, range: Range<u32>, owner: Owner) {
        self.claim(buffer, range, false, owner);
    }

    pub fn write(&mut self, buffer: BufferId, range: Range<u32>, owner: Owner) {
        self.claim(buffer, range, true, owner);
    }

    /// The hash unit reads these bytes now.
    pub fn check_read(&self, buffer: BufferId, range: &Range<u32>) {
        self.check(buffer, range, false);
    }

    fn claim(&mut self, buffer: BufferId, range: Range<u32>, writes: bool, owner: Owner) {
        self.check(buffer, &range, writes);
        self.claims.push(Claim {
            buffer,
            range,
            writes,
            owner,
        });
    }

    fn check(&self, buffer: BufferId, range: &Range<u32>, writes: bool) {
        assert!(buffer.0 < self.buffer_count, "{buffer:?}");
        assert!(range.start < range.end && range.end <= self.buffer_bytes);
        for other in &self.claims {
            let apart = other.range.end <= range.start || range.end <= other.range.start;
            let harmless = !writes && !other.writes;
            assert!(
                other.buffer != buffer || apart || harmless,
                "{range:?} of {buffer:?} are in use: {other:?}"
            );
        }
    }

    /// The oldest claim of this owner on this buffer, or all of them.
    pub fn release(&mut self, owner: Owner, buffer: Option<BufferId>) {
        match buffer {
            None => self.claims.retain(|claim| claim.owner != owner),
            Some(buffer) => {
                let is_same = |claim: &Claim| claim.owner == owner && claim.buffer == buffer;
                let position = self.claims.iter().position(is_same);
                self.claims.remove(position.expect("what was claimed"));
            }
        }
    }
}
