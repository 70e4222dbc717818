//! Which bytes of a source are worth sending?
//!
//! Of a disk with a partition table: what the table calls used, and of the rest what is not zero,
//! for boot loaders live there (GRUB's core.img lies between MBR and first partition). Inside a
//! partition zeros are used too: file systems count on them, and they cost nothing, because pieces
//! of zeros are not fetched. With a map of used blocks (`--used-map`) only what the map names is
//! used, inside of partitions and outside; the partition tables are always described. The backup
//! GPT is left out: `get` writes it to the end of whatever disk it finds, which may be a larger or
//! a smaller one.
//!
//! Of one whose table leaves open what is unused (it is in `doubt`): everything, unless
//! `--skip-holes` says that holes do not matter. Of any other source: likewise, or what a map
//! names. A hole of a sparse file reads as zeros, and programs count on it: mke2fs leaves the inode
//! tables of a fresh file as holes. If they were left out, the target would keep what it held there
//! before. The last bytes of this image always belong to it, so that its length survives: a target
//! file must end where the image ends, and an image must be refused on a disk that is too small for
//! it, even if it ends in a hole.

use std::io;
use std::ops::Range;

use swarm_proto::format::extents;
use swarm_proto::format::partitions::PartitionTable;
use swarm_proto::limits::BLOCK_BYTES;
use swarm_proto::units::DiskOffset;

use crate::cmd::Failure;
use crate::os::device::Device;
use crate::os::sparse;
use crate::storage::sectors;

/// Ranges grow to multiples of this: the page of every file system, and the sector of every disk.
const GRAIN_BYTES: u32 = 4096;

/// Ranges of a packed image grow to its blocks: a seed passes on as they lie in the file those that
/// are blocks of a piece.
fn grain_bytes(device: &Device) -> u32 {
    let packed = device.packed.as_ref().map(|packed| packed.block_bytes);
    let grain = packed.filter(|&block_bytes| block_bytes == BLOCK_BYTES);
    grain.unwrap_or(GRAIN_BYTES)
}

/// Described in front of a partitioned disk even if it is zero. The first partition mostly begins
/// here, and before it a target may keep what some program would find: an old boot loader, or the
/// superblock of btrfs at 64 KiB.
const HEAD_BYTES: u64 = 1 << 20;

/// Read at once in search of bytes that are not zero.
const SEARCH_BYTES: u64 = 1 << 20;

/// Offset and length of each range that goes into the torrent. `table` is the partition table of
/// the source, if that is to be used; `map` names the used bytes, if that is known.
pub(super) fn ranges(
    device: &Device,
    table: Option<&PartitionTable>,
    skip_holes: bool,
    map: Option<Vec<Range<u64>>>,
) -> Result<Vec<(DiskOffset, u64)>, Failure> {
    let size_bytes = device.size_bytes;
    let data = sparse::data_of(device)?;
    let mut wanted = match map {
        Some(map) => map,
        None if skip_holes => data.clone(),
        None => vec![0..size_bytes],
    };
    match table {
        Some(table) => of_disk(device, table, &data, &wanted, skip_holes),
        None => {
            wanted.push(size_bytes - 1..size_bytes);
            Ok(grown(&wanted, size_bytes, grain_bytes(device)))
        }
    }
}

/// What is used of a disk with this table; `data` is all of the disk but the holes. Of what is not
/// `wanted` only the tables are taken.
fn of_disk(
    device: &Device,
    table: &PartitionTable,
    data: &[Range<u64>],
    wanted: &[Range<u64>],
    skip_holes: bool,
) -> Result<Vec<(DiskOffset, u64)>, Failure> {
    let size_bytes = device.size_bytes;
    // Ranges that grow to whole grains must not take the backup GPT with them, or the image would
    // need a disk of at least the same size.
    let end_bytes = match table.backup() {
        Some(backup) if size_bytes - backup.end < u64::from(table.sector_bytes) => backup.start,
        _ => size_bytes,
    };
    let head = 0..HEAD_BYTES.min(end_bytes);
    let mut used: Vec<Range<u64>> = table.partitions().chain([head]).collect();
    sort(&mut used);
    let (tables, failed) = (table.tables(), |error| super::cannot_read(device, error));
    let owned: Vec<Range<u64>> = used.iter().chain(&tables).cloned().collect();
    let gaps = common(&gaps(&owned, table.backup(), size_bytes), data);
    let found = not_zero(device, &common(&gaps, wanted)).map_err(failed)?;
    used = common(&used, wanted);
    let mut slivers = Vec::new();
    if skip_holes {
        slivers = take_slivers(device, &mut used).map_err(failed)?;
    }
    used.extend(tables.into_iter().chain(found));
    sort(&mut used);
    let grown = grown(&used, end_bytes, grain_bytes(device));
    Ok(apart(grown, &slivers))
}

/// A hole of a file ends with a page. If that page belongs to two partitions, the one that is a
/// hole has a sliver of it, which is as empty as the rest. Takes them out of the ranges.
fn take_slivers(device: &Device, used: &mut Vec<Range<u64>>) -> io::Result<Vec<Range<u64>>> {
    let grain = |offset: u64| offset / u64::from(GRAIN_BYTES);
    let is_inside = |range: &Range<u64>| {
        let length = range.end - range.start;
        length < GRAIN_BYTES.into() && grain(range.start) == grain(range.end - 1)
    };
    let mut slivers: Vec<Range<u64>> = used.extract_if(.., |range| is_inside(range)).collect();
    let data = not_zero(device, &slivers)?;
    used.extend(data.iter().cloned());
    slivers.retain(|sliver| !data.contains(sliver));
    Ok(slivers)
}

/// These ranges without the slivers.
fn apart(ranges: Vec<(DiskOffset, u64)>, slivers: &[Range<u64>]) -> Vec<(DiskOffset, u64)> {
    let end = ranges.last().map_or(0, |(start, length)| start.0 + length);
    let ranges = ranges
        .into_iter()
        .map(|(start, length)| start.0..start.0 + length);
    common(&ranges.collect::<Vec<_>>(), &gaps(slivers, None, end))
        .into_iter()
        .map(|range| (DiskOffset(range.start), range.end - range.start))
        .collect()
}

/// Ranges in order of their start, grown to whole grains and merged, up to `length`.
fn grown(ranges: &[Range<u64>], length: u64, grain_bytes: u32) -> Vec<(DiskOffset, u64)> {
    let mut grown: Vec<Range<u64>> = Vec::new();
    for range in ranges.iter().filter(|range| range.start < length) {
        let (start, grains_bytes) = extents::sectors_around(
            DiskOffset(range.start),
            range.end - range.start,
            grain_bytes,
        );
        let (start, end) = (start.0, (start.0 + grains_bytes).min(length));
        match grown.last_mut() {
            Some(last) if start <= last.end => last.end = end.max(last.end),
            _ => grown.push(start..end),
        }
    }
    grown
        .into_iter()
        .map(|range| (DiskOffset(range.start), range.end - range.start))
        .collect()
}

fn sort(ranges: &mut [Range<u64>]) {
    ranges.sort_unstable_by_key(|range| range.start);
}

/// What is neither used nor the backup GPT, in order.
fn gaps(used: &[Range<u64>], backup: Option<Range<u64>>, size_bytes: u64) -> Vec<Range<u64>> {
    let mut taken: Vec<Range<u64>> = used.iter().cloned().chain(backup).collect();
    sort(&mut taken);
    let mut gaps = Vec::new();
    let mut from = 0;
    for range in taken.into_iter().chain([size_bytes..size_bytes]) {
        if from < range.start {
            gaps.push(from..range.start);
        }
        from = from.max(range.end);
    }
    gaps
}

/// The bytes that are in both, in order. Both are in order, and `two` has no overlaps.
fn common(one: &[Range<u64>], two: &[Range<u64>]) -> Vec<Range<u64>> {
    let cut = |range: &Range<u64>| {
        let range = range.clone();
        let first = two.partition_point(|other| other.end <= range.start);
        let others = two[first..]
            .iter()
            .take_while(move |other| other.start < range.end);
        others.map(move |other| other.start.max(range.start)..other.end.min(range.end))
    };
    one.iter().flat_map(cut).collect()
}

/// The grains of these ranges that are not zero, in order. This waits for the device: there is
/// mostly little to read, and nothing else to do meanwhile.
fn not_zero(device: &Device, ranges: &[Range<u64>]) -> io::Result<Vec<Range<u64>>> {
    let mut found = Vec::new();
    for range in ranges {
        let mut from = range.start;
        while from < range.end {
            let end = (from / SEARCH_BYTES * SEARCH_BYTES + SEARCH_BYTES).min(range.end);
            let bytes = sectors::read(device, from, (end - from) as u32)?;
            let grains = bytes.chunks(GRAIN_BYTES as usize).zip(0..);
            let used = grains.filter(|(grain, _)| grain.iter().any(|&byte| byte != 0));
            found.extend(used.map(|(grain, index)| {
                let start = from + index * u64::from(GRAIN_BYTES);
                start..start + grain.len() as u64
            }));
            from = end;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::testing::Scratch;

    /// `data` and the result as (start, end).
    fn used(data: &[(u64, u64)], length: u64) -> Vec<(u64, u64)> {
        let mut data: Vec<Range<u64>> = data.iter().map(|&(start, end)| start..end).collect();
        data.push(length - 1..length);
        grown(&data, length, GRAIN_BYTES)
            .into_iter()
            .map(|(disk, length)| (disk.0, disk.0 + length))
            .collect()
    }

    #[test]
    fn ranges_grow_and_merge() {
        const MIB: u64 = 1 << 20;
        assert_eq!(used(&[(0, 100)], 100), [(0, 100)]);
        assert_eq!(used(&[(0, 4096), (4096, 8192)], 8192), [(0, 8192)]);
        assert_eq!(
            used(&[(5000, 5001), (12_288, 12_289)], 20_480),
            [(4096, 8192), (12_288, 20_480)]
        );
        assert_eq!(
            used(&[(100, 200), (4000, 4097), (8190, 8200)], MIB),
            [(0, 12_288), (MIB - 4096, MIB)]
        );
        let packed = grown(&[20_000..20_001, 33_000..40_000], MIB, BLOCK_BYTES);
        let blocks = [(DiskOffset(16_384), 2 * 16_384)];
        assert_eq!(packed, blocks);
    }

    #[test]
    fn the_length_survives_a_hole_at_the_end() {
        assert_eq!(used(&[], 1), [(0, 1)]);
        assert_eq!(used(&[], 10_000), [(8192, 10_000)]);
        assert_eq!(used(&[(0, 4096)], 12_288), [(0, 4096), (8192, 12_288)]);
        assert_eq!(used(&[(0, 4096)], 8192), [(0, 8192)]);
    }

    #[test]
    fn gaps_are_neither_used_nor_the_backup_gpt() {
        assert_eq!(
            gaps(&[0..10, 5..20, 30..40], Some(90..95), 100),
            [20..30, 40..90, 95..100]
        );
        assert_eq!(gaps(&[0..100], None, 100), []);
        assert_eq!(gaps(&[], Some(90..100), 100), [0..90]);
    }

    #[test]
    fn common_bytes_are_in_both() {
        assert_eq!(
            common(&[0..10, 20..30], &[5..22, 25..26, 29..40]),
            [5..10, 20..22, 25..26, 29..30]
        );
        assert_eq!(common(&[0..10], &[10..20]), []);
        assert_eq!(common(&[0..4], &[0..4]), [0..4]);
    }

    #[test]
    fn grains_that_are_not_zero_are_found() {
        let scratch = Scratch::new("make-used");
        let mut bytes = vec![0; 3 << 20];
        [5000, (1 << 20) - 1, (2 << 20) + 4096]
            .iter()
            .for_each(|&at| bytes[at] = 1);
        std::fs::write(scratch.path(), &bytes).unwrap();
        let device = Device::open_source(scratch.path()).unwrap();
        let found = not_zero(&device, &[512..6000, (1 << 20) - 10..3 << 20]).unwrap();
        let grain = (2 << 20) + 4096;
        assert_eq!(
            found,
            [4608..6000, (1 << 20) - 10..1 << 20, grain..grain + 4096]
        );
    }

    /// Two partitions meet at sector 4099, inside a grain. The first one ends in data, the second
    /// one is a hole, but the first five sectors of it are on the page of the file that holds the
    /// end of the first one.
    #[test]
    fn a_partition_that_is_a_hole_is_left_out_to_its_first_byte() {
        use std::os::unix::fs::FileExt;
        const SECTOR: u64 = 512;
        let scratch = Scratch::new("make-sliver");
        let file = scratch.open_buffered();
        file.set_len(8 << 20).unwrap();
        let entry = |first: u32, count: u32| {
            let mut entry = vec![0, 0, 0, 0, 0x83, 0, 0, 0];
            entry.extend(
                [first, count]
                    .iter()
                    .flat_map(|number| number.to_le_bytes()),
            );
            entry
        };
        file.write_all_at(&[entry(2048, 2051), entry(4099, 4096)].concat(), 446)
            .unwrap();
        file.write_all_at(&[0x55, 0xaa], 510).unwrap();
        file.write_all_at(b"end", 4098 * SECTOR).unwrap();
        let device = Device::open_source(scratch.path()).unwrap();
        let table = super::super::table::of_source(&device).unwrap().0.unwrap();
        let ends = || {
            let ranges = ranges(&device, Some(&table), true, None).unwrap();
            let end = |(disk, length): &(DiskOffset, u64)| (disk.0 + length) / SECTOR;
            ranges.iter().map(end).collect::<Vec<u64>>()
        };
        assert_eq!(ends().last(), Some(&4099));
        // The twin: one byte of the second partition that is not zero is data.
        file.write_all_at(b"x", 4100 * SECTOR).unwrap();
        assert_eq!(ends().last(), Some(&4104));
    }

    /// A file may have grown after its length was taken.
    #[test]
    fn ranges_behind_the_end_are_left_out() {
        assert_eq!(used(&[(0, 9000), (12_288, 20_000)], 5000), [(0, 5000)]);
    }
}
