//! Does the device make a piece zeros by itself, or do zeros have to be written?

use std::ops::Range;

use swarm_proto::units::PieceIndex;

use super::places::{Place, Places};
use crate::os::device::Device;
use crate::os::errno::{self, Call, Then};
use crate::os::zero;

pub(super) struct Zeroing {
    /// False where the device would write the zeros itself, and block until they are there.
    is_quick: bool,
}

impl Zeroing {
    pub(super) fn new(device: &Device) -> Zeroing {
        Zeroing {
            is_quick: !device.read_only && zero::is_quick(device),
        }
    }

    /// Makes a piece zeros, at once; false if they have to be written.
    pub(super) fn zero(&mut self, device: &Device, places: &Places, piece: PieceIndex) -> bool {
        let length = places.layout().piece_length(piece);
        places
            .ranges(piece, 0, length)
            .all(|place| self.zero_place(device, &place))
    }

    fn zero_place(&mut self, device: &Device, place: &Place) -> bool {
        let range: Range<u64> = place.disk.0..place.disk.0 + u64::from(place.length);
        let alignment = u64::from(device.alignment);
        if !self.is_quick || !(range.start | range.end).is_multiple_of(alignment) {
            return false;
        }
        let Err(error) = zero::zero(device, range) else {
            return true;
        };
        // A device that cannot do it is not asked again for each piece.
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        self.is_quick = errno::decide(Call::Zero, errno) != Then::OtherWay;
        self.is_quick
    }
}
