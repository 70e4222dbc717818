//! How are a few bytes at any place of a device read and written, with the loop waiting for them?
//!
//! For partition tables and for what lies between partitions: a hundred sectors before a torrent is
//! made, or after the last upload, when the event loop has nothing else to do. Pieces go through
//! `Storage`, which does not wait. As there, requests bypass the page cache, so that what is read
//! is what the device holds.

use std::io;
use std::ops::Range;

use swarm_proto::format::extents;
use swarm_proto::format::lz4_frame::Packed;
use swarm_proto::format::lz4_frame_error::PackedError;
use swarm_proto::format::signatures::Signatures;
use swarm_proto::units::DiskOffset;

use crate::os;
use crate::os::device::Device;
use crate::os::pool::Bounce;
use crate::os::sectors;

/// The bytes at `offset`. Behind the end there are zeros, as a file has them when it grows.
pub fn read(device: &Device, offset: u64, length: u32) -> io::Result<Vec<u8>> {
    if let Some(packed) = &device.packed {
        return unpack(device, packed, offset..offset + u64::from(length));
    }
    let window = Window::read(device, offset, length)?;
    Ok(window.bounce.bytes()[window.wanted].to_vec())
}

fn unpack(device: &Device, packed: &Packed, bytes: Range<u64>) -> io::Result<Vec<u8>> {
    let mut out = vec![0; (bytes.end - bytes.start) as usize];
    let bytes = bytes.start..bytes.end.min(packed.image_bytes);
    if bytes.start < bytes.end {
        let marks = packed.marks(&bytes);
        let span = packed.span(&marks);
        let length = u32::try_from(span.end - span.start).expect("a few strides");
        let window = Window::read(device, span.start, length)?;
        let read = &window.bounce.bytes()[window.wanted];
        let out = &mut out[..(bytes.end - bytes.start) as usize];
        let damaged = |place| os::error(PackedError::Block(place).to_string());
        packed
            .unpack(marks.start, read, &bytes, out)
            .map_err(damaged)?;
    }
    Ok(out)
}

/// Writes bytes at `offset`; sectors that are only partly ours keep the rest.
pub(super) fn write(device: &Device, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).expect("a few sectors");
    let mut window = Window::read(device, offset, length)?;
    window.bounce.bytes_mut()[window.wanted].copy_from_slice(bytes);
    sectors::write(device, window.start, window.bounce.bytes())
}

/// What is on these bytes of a device: all of them, or a partition.
pub fn signatures(device: &Device, bytes: Range<u64>) -> io::Result<Signatures> {
    let mut read = |part: Range<u64>| {
        let length = (part.end - part.start) as u32;
        read(device, bytes.start + part.start, length)
    };
    Signatures::read(bytes.end - bytes.start, &mut read)
}

/// The whole sectors around the wanted bytes.
struct Window {
    start: u64,
    wanted: Range<usize>,
    bounce: Bounce,
}

impl Window {
    fn read(device: &Device, offset: u64, length: u32) -> io::Result<Window> {
        let disk = DiskOffset(offset);
        let (start, around) = extents::sectors_around(disk, length.into(), device.alignment);
        let around = u32::try_from(around).expect("a few sectors");
        let mut bounce = Bounce::new(around, device.alignment);
        sectors::read(device, start.0, bounce.bytes_mut())?;
        let lead = (disk - start) as usize;
        Ok(Window {
            start: start.0,
            wanted: lead..lead + length as usize,
            bounce,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::device::TargetOptions;
    use crate::os::testing::Scratch;
    use std::os::unix::fs::FileExt;

    #[test]
    fn odd_bytes_are_read_and_written_and_their_neighbours_kept() {
        let scratch = Scratch::new("sectors");
        let device = Device::open_target(scratch.path(), 20_000, TargetOptions::default()).unwrap();
        write(&device, 0, &[1; 10_000]).unwrap();
        write(&device, 700, &[2; 5000]).unwrap();
        let bytes = read(&device, 0, 10_000).unwrap();
        let runs: Vec<(u8, usize)> = bytes
            .chunk_by(|one, next| one == next)
            .map(|run| (run[0], run.len()))
            .collect();
        assert_eq!(runs, [(1, 700), (2, 5000), (1, 4300)]);
        assert_eq!(read(&device, 699, 2).unwrap(), [1, 2]);
    }

    #[test]
    fn behind_the_end_there_are_zeros() {
        let scratch = Scratch::new("end");
        scratch.open_buffered().write_all_at(&[7; 5000], 0).unwrap();
        let device = Device::open_source(scratch.path()).unwrap();
        assert_eq!(
            read(&device, 4990, 20).unwrap(),
            [[7; 10], [0; 10]].concat()
        );
        assert_eq!(read(&device, 1 << 40, 3).unwrap(), [0; 3]);
    }
}
