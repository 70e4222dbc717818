//! What do the buffers of one agent hold, and does an operation touch bytes that another one uses?
//!
//! Every use of a buffer that takes time is a claim: a block that is being received, a disk read or
//! write, a block that is not entirely in the kernel's send queue. Two claims on the same bytes are
//! allowed only if neither changes them.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::ids::EndId;
use super::image::Cell;
use crate::limits::BLOCK_BYTES;
use crate::units::{BufferId, Ticket};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimant {
    Receives(EndId),
    ReadsDisk(Ticket),
    WritesDisk(Ticket),
    Sends(EndId),
}

impl Claimant {
    fn changes_bytes(self) -> bool {
        matches!(self, Claimant::Receives(_) | Claimant::ReadsDisk(_))
    }
}

pub struct Pool {
    buffers: Vec<Buffer>,
    buffer_bytes: u32,
}

struct Buffer {
    cells: Vec<Cell>,
    claims: Vec<(Range<u32>, Claimant)>,
}

impl Pool {
    pub fn new(buffer_count: u32, buffer_bytes: u32) -> Pool {
        let cells = vec![None; buffer_bytes.div_ceil(BLOCK_BYTES) as usize];
        let buffers = (0..buffer_count).map(|_| Buffer {
            cells: cells.clone(),
            claims: Vec::new(),
        });
        Pool {
            buffers: buffers.collect(),
            buffer_bytes,
        }
    }

    pub fn buffer_bytes(&self) -> u32 {
        self.buffer_bytes
    }

    /// These bytes are in use until `release`.
    pub fn claim(&mut self, buffer: BufferId, range: Range<u32>, claimant: Claimant) {
        self.check(buffer, &range, claimant.changes_bytes(), &claimant);
        if claimant.changes_bytes() {
            self.cells_mut(buffer, &range).fill(None);
        }
        self.buffers[buffer.index()].claims.push((range, claimant));
    }

    pub fn release(&mut self, buffer: BufferId, claimant: Claimant) {
        let claims = &mut self.buffers[buffer.index()].claims;
        let index = claims.iter().position(|(_, by)| *by == claimant);
        claims.swap_remove(index.expect("a claim is released once"));
    }

    /// Reads bytes at once. `what` names the use in the message of a panic.
    pub fn read(&self, buffer: BufferId, range: Range<u32>, what: &str) -> &[Cell] {
        self.check(buffer, &range, false, &what);
        &self.buffers[buffer.index()].cells[cells_in(&range)]
    }

    pub fn cells_mut(&mut self, buffer: BufferId, range: &Range<u32>) -> &mut [Cell] {
        &mut self.buffers[buffer.index()].cells[cells_in(range)]
    }

    fn check(
        &self,
        buffer: BufferId,
        range: &Range<u32>,
        changes_bytes: bool,
        what: &dyn core::fmt::Debug,
    ) {
        assert!(
            buffer.index() < self.buffers.len(),
            "{what:?}: {buffer:?} of {}",
            self.buffers.len()
        );
        assert!(!range.is_empty(), "{what:?}: no bytes of {buffer:?}");
        assert!(
            range.end <= self.buffer_bytes,
            "{what:?}: {range:?} of {buffer:?}, which has {}",
            self.buffer_bytes
        );
        for (claimed, by) in &self.buffers[buffer.index()].claims {
            let overlaps = claimed.start < range.end && range.start < claimed.end;
            let conflicts = overlaps && (changes_bytes || by.changes_bytes());
            assert!(
                !conflicts,
                "{what:?} uses {range:?} of {buffer:?} while {by:?} uses {claimed:?}"
            );
        }
    }
}

fn cells_in(range: &Range<u32>) -> Range<usize> {
    (range.start / BLOCK_BYTES) as usize..range.end.div_ceil(BLOCK_BYTES) as usize
}
