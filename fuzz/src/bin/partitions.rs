//! Does a partition table that is fitted to a disk of another size leave a disk that is right?
//!
//! The checksums of a GPT are put right first, so that everything behind them is reached. Holds:
//! what is written is within the disk; read again by a twin that knows nothing of `gpt.rs`, both
//! headers have right checksums, name each other and lie at the two ends, both lists of entries are
//! equal and keep every partition but the end of the last one, and no partition reaches into what
//! was written; a second fit changes nothing. The same of an MBR and its last partition. Input:
//! sizes and choices, the entries of an MBR, the fields of a header, entries.
#![no_main]

use libfuzzer_sys::fuzz_target;
use swarm_proto::format::gpt::{Around, Gpt, Header, PRIMARY_LBA, Plan, Write};
use swarm_proto::format::mbr::{self, Sector0};
use swarm_proto::format::partitions::PartitionTable;
use swarmdd_fuzz::{Input, crc32};

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let sector_bytes = [512, 512, 1024, 2048, 4096][input.choose(5)];
    let flags = input.u8();
    let (grow, protective) = (flags & 1 != 0, flags & 2 != 0);
    // Sizes near to those of the image matter most; all others are there, too.
    let image_sectors = u64::from(input.u32()) >> (flags >> 3);
    let disk_sectors = match input.choose(3) {
        0 => image_sectors + u64::from(input.u8()),
        1 => image_sectors.saturating_sub(u64::from(input.u8())),
        _ => input.u64() >> 13 >> (flags >> 3),
    };
    let mut sector = vec![0; sector_bytes];
    let entries = input.take(64);
    sector[446..446 + entries.len()].copy_from_slice(entries);
    sector[510..512].copy_from_slice(&[0x55, 0xaa]);
    check_mbr(&sector, disk_sectors);
    if protective {
        sector[446..510].fill(0);
        sector[446 + 4] = 0xee;
        sector[446 + 8] = 1;
        let length = u32::try_from(image_sectors).unwrap_or(u32::MAX);
        sector[446 + 12..446 + 16].copy_from_slice(&length.to_le_bytes());
    }
    if let Some(gpt) = forged(&mut input, sector_bytes, image_sectors) {
        check_gpt(&gpt, &sector, disk_sectors, grow);
    }
});

// ---- MBR

/// The partitions of a table that is not in doubt and fits its disk.
fn certain(sector: &[u8], disk_sectors: u64) -> Option<Vec<mbr::Partition>> {
    let Sector0::Mbr { partitions } = mbr::read(sector) else {
        return None;
    };
    let table = PartitionTable::mbr(512, partitions.clone(), Vec::new());
    let good = table.doubt().is_none() && table.beyond(disk_sectors).is_none();
    good.then_some(partitions)
}

/// The partitions are apart, on the disk, and the last of them grows into nothing.
fn check_mbr(sector: &[u8], disk_sectors: u64) {
    let Some(before) = certain(sector, disk_sectors) else {
        return;
    };
    let range = |one: &mbr::Partition| one.first_lba..one.end_lba();
    let apart = |partitions: &[mbr::Partition]| {
        let mut sorted: Vec<_> = partitions.iter().map(range).collect();
        sorted.sort_by_key(|range| range.start);
        assert!(sorted[0].start > 0);
        assert!(sorted.iter().all(|range| range.start < range.end));
        assert!(sorted.windows(2).all(|two| two[0].end <= two[1].start));
        assert!(sorted[sorted.len() - 1].end <= disk_sectors);
    };
    apart(&before);
    let mut grown = sector.to_vec();
    let bytes = mbr::grow_last(&mut grown, disk_sectors, sector.len() as u64);
    let after = certain(&grown, disk_sectors).expect("it stays a table");
    apart(&after);
    let count = |one: &mbr::Partition| one.end_lba() - one.first_lba;
    let sectors = |all: &[mbr::Partition]| all.iter().map(count).sum::<u64>();
    let more = sectors(&after) - sectors(&before);
    assert_eq!(more * sector.len() as u64, bytes);
    for (old, new) in before.iter().zip(&after) {
        assert_eq!(old.first_lba, new.first_lba);
        assert!(old.end_lba() <= new.end_lba());
        assert!(old.is_extended() <= (old == new));
    }
    assert_eq!(before.len(), after.len());
    assert_eq!(grown[..446], sector[..446]);
    let again = mbr::grow_last(&mut grown, disk_sectors, sector.len() as u64);
    assert_eq!(again, 0, "it has grown as far as it may");
}

// ---- GPT

/// A primary GPT with fields and entries of the input and right checksums.
fn forged(input: &mut Input<'_>, sector_bytes: usize, image_sectors: u64) -> Option<Gpt> {
    let mut sector = vec![0; sector_bytes];
    sector[..8].copy_from_slice(b"EFI PART");
    let plausible = input.u8();
    let mut field = |bit: u8, value: u64| match plausible & 1 << bit {
        0 => value,
        _ => input.u64(),
    };
    let entry_count = field(0, 8) as u32 % 300;
    let entry_bytes = field(1, 128) as u32;
    let sectors = u64::from(entry_count * 128).div_ceil(sector_bytes as u64);
    let (my_lba, entries_lba) = (field(2, PRIMARY_LBA), field(3, 2));
    let (first, last) = (
        field(4, entries_lba.saturating_add(sectors)),
        field(5, image_sectors.saturating_sub(sectors + 2)),
    );
    let alternate = field(6, image_sectors.saturating_sub(1));
    let header_bytes = field(7, 92) as u32;
    for (at, value) in [
        (24, my_lba),
        (32, alternate),
        (40, first),
        (48, last),
        (72, entries_lba),
    ] {
        put(&mut sector, at, &value.to_le_bytes());
    }
    for (at, value) in [
        (8, 0x10000),
        (12, header_bytes),
        (80, entry_count),
        (84, entry_bytes),
    ] {
        put(&mut sector, at, &value.to_le_bytes());
    }
    let mut entries = vec![
        0;
        (entry_count as usize)
            .checked_mul(entry_bytes as usize)?
            .min(1 << 16)
    ];
    for entry in entries.chunks_exact_mut(entry_bytes.max(1) as usize) {
        // Type, number of sectors between the partitions, sectors; or two numbers as they are.
        fill(entry, input, first);
    }
    put(&mut sector, 88, &crc32(&entries).to_le_bytes());
    if (92..=sector_bytes).contains(&(header_bytes as usize)) {
        let checksum = crc32(&sector[..header_bytes as usize]);
        put(&mut sector, 16, &checksum.to_le_bytes());
    }
    let header = Header::parse(&sector, PRIMARY_LBA).ok()?;
    (header.entries_bytes() == entries.len()).then_some(())?;
    Gpt::new(header, entries).ok()
}

fn fill(entry: &mut [u8], input: &mut Input<'_>, first_usable: u64) {
    let kind = input.u8();
    if kind == 0 || entry.len() < 56 {
        return;
    }
    entry[0] = kind;
    let (first, last) = if kind < 250 {
        let first = first_usable.saturating_add(u64::from(input.u32()) >> (kind & 31));
        (
            first,
            first.saturating_add(u64::from(input.u32()) >> (kind & 31)),
        )
    } else {
        (input.u64(), input.u64())
    };
    put(entry, 32, &first.to_le_bytes());
    put(entry, 40, &last.to_le_bytes());
}

fn check_gpt(gpt: &Gpt, mbr: &[u8], disk_sectors: u64, grow: bool) {
    let before: Vec<(u32, u64, u64)> = partitions(gpt);
    let around = |mbr: &[u8], backup| Around {
        mbr: mbr.to_vec(),
        backup,
        old_backup: None,
    };
    let Ok(Some(plan)) = gpt.fit(&around(mbr, None), disk_sectors, grow) else {
        return;
    };
    let sector_bytes = mbr.len() as u64;
    let Plan {
        backup,
        primary: [entries, head],
        ..
    } = &plan;
    assert_eq!(head.lba, 0);
    assert_eq!(head.bytes.len() as u64, 2 * sector_bytes);
    let end = |write: &Write| write.lba + write.bytes.len() as u64 / sector_bytes;
    assert_eq!(end(backup), disk_sectors);
    assert!(end(head) <= entries.lba && end(entries) <= backup.lba);
    let header = &head.bytes[mbr.len()..];
    let (backup_entries, backup_header) = backup.bytes.split_at(backup.bytes.len() - mbr.len());
    check_header(header, [1, disk_sectors - 1, entries.lba], &entries.bytes);
    check_header(
        backup_header,
        [disk_sectors - 1, 1, backup.lba],
        backup_entries,
    );
    assert_eq!(entries.bytes, backup_entries);
    let (first, last) = (u64_at(header, 40), u64_at(header, 48));
    assert!(end(entries) <= first && first <= last && last < backup.lba);

    let header = Header::parse(header, PRIMARY_LBA).expect("what is written is a header");
    let mut bytes = entries.bytes.clone();
    bytes.truncate(header.entries_bytes());
    let fitted = Gpt::new(header, bytes).expect("what is written is a GPT");
    let after = partitions(&fitted);
    assert!(after.iter().all(|one| one.1 <= one.2 && one.2 < backup.lba));
    assert_eq!(before.len(), after.len());
    let changed: Vec<_> = before
        .iter()
        .zip(&after)
        .filter(|(old, new)| old != new)
        .collect();
    assert!(changed.len() <= usize::from(grow && plan.grown_bytes > 0));
    for (old, new) in changed {
        assert_eq!((old.0, old.1), (new.0, new.1));
        assert_eq!((new.2 - old.2) * sector_bytes, plan.grown_bytes);
        assert!(
            before.iter().all(|other| other.2 <= old.2),
            "the last grows"
        );
    }
    check_protective(mbr, &head.bytes[..mbr.len()], disk_sectors, plan.moved);
    let moved = Header::parse(backup_header, disk_sectors - 1).expect("a header");
    let mut bytes = backup_entries.to_vec();
    bytes.truncate(moved.entries_bytes());
    let backup = Gpt::new(moved, bytes).expect("a backup");
    let around = around(&head.bytes[..mbr.len()], Some(backup));
    let again = fitted.fit(&around, disk_sectors, grow);
    assert_eq!(again, Ok(None), "a second fit has nothing to do");
}

fn partitions(gpt: &Gpt) -> Vec<(u32, u64, u64)> {
    let numbers = gpt
        .partitions()
        .map(|one| (one.number, one.first_lba, one.last_lba));
    numbers.collect()
}

/// `places` are its own, the other header's and its entries'.
fn check_header(sector: &[u8], places: [u64; 3], entries: &[u8]) {
    assert_eq!(sector[..8], *b"EFI PART");
    assert_eq!([24, 32, 72].map(|at| u64_at(sector, at)), places);
    let mut header = sector[..u32_at(sector, 12) as usize].to_vec();
    put(&mut header, 16, &[0; 4]);
    assert_eq!(u32_at(sector, 16), crc32(&header));
    let entries_bytes = (u32_at(sector, 80) * u32_at(sector, 84)) as usize;
    assert_eq!(u32_at(sector, 88), crc32(&entries[..entries_bytes]));
    assert!(entries[entries_bytes..].iter().all(|&byte| byte == 0));
}

/// Alone and from sector 1 on, the protective entry reaches the end of the disk.
fn check_protective(before: &[u8], after: &[u8], disk_sectors: u64, moved: bool) {
    assert_eq!(before[..446], after[..446]);
    assert_eq!(before[510..], after[510..]);
    let kinds = [450, 466, 482, 498].map(|at| before[at]);
    let alone = kinds[0] == 0xee && kinds[1..] == [0; 3] && u32_at(before, 454) == 1;
    if alone && moved {
        let sectors = u32::try_from(disk_sectors - 1).unwrap_or(u32::MAX);
        assert_eq!(u32_at(after, 458), sectors);
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
