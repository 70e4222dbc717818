//! Which pieces lie in holes of a sparse file? They are zeros, and need neither be read nor hashed.
//!
//! A file of 3 TiB that is one hole took two hours to be read and hashed at 400 MB/s.

use std::io;
use std::ops::Range;

use swarm_proto::format::contents;
use swarm_proto::units::{PieceHash, PieceIndex};

use super::places::{Place, Places};
use crate::os::device::Device;
use crate::os::sparse;

pub(super) struct Holes {
    places: Places,
    /// All but the holes, in order.
    data: Vec<Range<u64>>,
    /// The hash of this many zeros; a torrent has pieces of two lengths.
    zeros: Vec<(u32, PieceHash)>,
}

impl Holes {
    pub(super) fn of(device: &Device, places: Places) -> io::Result<Holes> {
        let mut data = match places.slices() {
            // partclone leaves no holes.
            Some(_) => vec![0..u64::MAX],
            None => sparse::data_of(device)?,
        };
        // What a file has lost meanwhile is no hole. Reading it says so.
        data.extend(
            device
                .ends_before(device.size_bytes)
                .map(|end| end..u64::MAX),
        );
        Ok(Holes {
            places,
            data,
            zeros: Vec::new(),
        })
    }

    /// The hash of the piece, if all of it lies in holes.
    pub(super) fn hash(&mut self, piece: PieceIndex) -> Option<PieceHash> {
        let length = self.places.layout().piece_length(piece);
        let is_hole = |place: Place| {
            let (start, end) = (place.disk.0, place.disk.0 + u64::from(place.length));
            let next = self.data.partition_point(|range| range.end <= start);
            self.data.get(next).is_none_or(|range| range.start >= end)
        };
        if !self.places.ranges(piece, 0, length).all(is_hole) {
            return None;
        }
        let known = self.zeros.iter().find(|(zeros, _)| *zeros == length);
        if let Some((_, hash)) = known {
            return Some(*hash);
        }
        let hash = contents::zeros_hash(length);
        self.zeros.push((length, hash));
        Some(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::testing::Scratch;
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;
    use swarm_proto::format::extents::ExtentMap;
    use swarm_proto::format::layout::Layout;
    use swarm_proto::units::DiskOffset;

    const MIB: u64 = 1 << 20;

    #[test]
    fn only_pieces_that_lie_in_holes_wholly_are_not_read() {
        let scratch = Scratch::new("holes");
        let file = scratch.open_buffered();
        file.set_len(16 * MIB + 5).unwrap();
        file.write_all_at(b"x", 3 * MIB + 7).unwrap();
        let device = Device::open_source(scratch.path()).unwrap();
        // The second extent lies before the first one; piece 8 has a part of each.
        let runs = [
            (DiskOffset(8 * MIB), 8 * MIB + 5),
            (DiskOffset(0), 8 * MIB - 5),
        ];
        let extents = Arc::new(ExtentMap::from_files(runs).unwrap());
        let layout = Layout::new(extents.total_bytes(), 1 << 20).unwrap();
        let mut holes = Holes::of(&device, Places::new(layout, extents)).unwrap();
        let of_zeros = contents::zeros_hash(1 << 20);
        let read: Vec<u32> = layout
            .pieces()
            .filter(|&piece| match holes.hash(piece) {
                Some(hash) => {
                    assert_eq!(hash, of_zeros);
                    false
                }
                None => true,
            })
            .map(|piece| piece.0)
            .collect();
        assert_eq!(read, [11]);
    }

    #[test]
    fn what_a_file_has_lost_is_no_hole() {
        let scratch = Scratch::new("lost");
        scratch.open_buffered().set_len(4 * MIB).unwrap();
        let device = Device::open_source(scratch.path()).unwrap();
        scratch.open_buffered().set_len(2 * MIB).unwrap();
        let extents = Arc::new(ExtentMap::from_files([(DiskOffset(0), 4 * MIB)]).unwrap());
        let layout = Layout::new(4 * MIB, 1 << 20).unwrap();
        let mut holes = Holes::of(&device, Places::new(layout, extents)).unwrap();
        let is_hole: Vec<bool> = layout
            .pieces()
            .map(|piece| holes.hash(piece).is_some())
            .collect();
        assert_eq!(is_hole, [true, true, false, false]);
    }
}
