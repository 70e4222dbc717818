//! Which blocks does the map of a partclone image call used, and is the map as it was written?
//!
//! The map comes in parts. What it says goes out as runs, so that a map of any length needs no
//! memory.

use crate::format::crc32::{self, Tables};
use crate::format::mbr::u32_at;
use crate::format::partclone_error::{ImageError, check_sum};
use crate::units::DiskOffset;

/// How the used blocks are told from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Map {
    /// All are used, and there is no map.
    Nothing,
    /// A bit a block, the lowest first.
    Bits,
    /// A byte a block. Only 1 is used: others occur.
    Bytes,
}

impl Map {
    pub(super) fn bytes(self, total_blocks: u64) -> u64 {
        match self {
            Map::Nothing => 0,
            Map::Bits => total_blocks.div_ceil(8),
            Map::Bytes => total_blocks,
        }
    }

    /// Behind the map: a CRC-32, or a magic number.
    pub(super) fn trailer_bytes(self) -> u64 {
        match self {
            Map::Nothing => 0,
            Map::Bits => 4,
            Map::Bytes => 8,
        }
    }
}

/// Makes runs of the map, of which parts come in one after the other.
pub(super) struct MapReader<'a> {
    map: Map,
    block_bytes: u64,
    total_blocks: u64,
    /// The first block that has not come in.
    next: u64,
    /// Where the run began that is not over.
    begun: Option<u64>,
    used_blocks: u64,
    on_run: &'a mut dyn FnMut(DiskOffset, u64),
    tables: Tables,
    /// The CRC-32 of what has come in.
    sum: u32,
}

impl<'a> MapReader<'a> {
    pub(super) fn new(
        map: Map,
        block_bytes: u32,
        total_blocks: u64,
        on_run: &'a mut dyn FnMut(DiskOffset, u64),
    ) -> MapReader<'a> {
        MapReader {
            map,
            block_bytes: block_bytes.into(),
            total_blocks,
            next: 0,
            begun: None,
            used_blocks: 0,
            on_run,
            tables: Tables::new(),
            sum: crc32::SEED,
        }
    }

    pub(super) fn take(&mut self, part: &[u8]) {
        self.sum = self.tables.update(self.sum, part);
        for &byte in part {
            match (self.map, byte) {
                (Map::Bytes, _) => self.blocks(byte == 1, 1),
                (_, 0 | 0xff) => self.blocks(byte != 0, 8),
                _ => (0..8).for_each(|bit| self.blocks(byte >> bit & 1 == 1, 1)),
            }
        }
    }

    /// The next blocks, all of which are used, or none. Spare bits at the end of the map mean
    /// nothing: partclone.dd sets them.
    fn blocks(&mut self, are_used: bool, count: u64) {
        let count = count.min(self.total_blocks - self.next);
        if are_used && count > 0 {
            self.begun.get_or_insert(self.next);
        } else if count > 0 {
            self.end_run();
        }
        self.next += count;
    }

    fn end_run(&mut self) {
        if let Some(begun) = self.begun.take() {
            let count = self.next - begun;
            self.used_blocks += count;
            let start = DiskOffset(begun * self.block_bytes);
            (self.on_run)(start, count * self.block_bytes);
        }
    }

    /// The number of used blocks, if what stands behind the map, at `offset`, fits it.
    pub(super) fn finish(mut self, trailer: &[u8], offset: u64) -> Result<u64, ImageError> {
        match self.map {
            Map::Nothing => self.blocks(true, self.total_blocks),
            Map::Bits => check_sum("map of blocks", offset, self.sum, u32_at(trailer, 0))?,
            Map::Bytes if trailer != b"BiTmAgIc" => {
                let why = "'BiTmAgIc' is missing behind the map of blocks";
                return Err(ImageError::At(offset, why));
            }
            Map::Bytes => {}
        }
        self.end_run();
        Ok(self.used_blocks)
    }
}
