//! Is whatever lies on a disk named at its place, shown safely, and gone without its magic numbers?
//!
//! Holds: only bytes of the disk are read, however short it is; labels can be shown on a terminal;
//! "blank" is said exactly of zeros; each magic number lies on the disk, and once all are zeros
//! nothing is found. Those that an image leaves over are among them, and none is of the image.
//! Input: size of the disk, an extent, and patches: a place from the start or the end, a length and
//! bytes.
#![no_main]

use std::ops::Range;

use libfuzzer_sys::fuzz_target;
use swarm_proto::format::extents::ExtentMap;
use swarm_proto::format::leftovers;
use swarm_proto::format::signatures::Signatures;
use swarm_proto::units::DiskOffset;
use swarmdd_fuzz::Input;

/// Where signatures begin: the fuzzer need not guess numbers of three bytes.
const PLACES: [u64; 16] = [
    0, 3, 32, 54, 82, 446, 510, 512, 536, 1024, 1080, 4086, 4096, 32768, 65526, 65600,
];

/// A disk of zeros but for these bytes, of which later ones lie over earlier ones.
struct Disk {
    bytes: u64,
    patches: Vec<(u64, Vec<u8>)>,
}

impl Disk {
    fn read(&self, part: &Range<u64>) -> Vec<u8> {
        assert!(part.start < part.end && part.end <= self.bytes, "{part:?}");
        let mut bytes = vec![0; (part.end - part.start) as usize];
        for (place, patch) in &self.patches {
            for (offset, byte) in (*place..).zip(patch).filter(|(at, _)| part.contains(at)) {
                bytes[(offset - part.start) as usize] = *byte;
            }
        }
        bytes
    }

    /// What is found, and whether all that was read is zero.
    fn signatures(&self) -> (Signatures, bool) {
        let mut zeros = true;
        let found = Signatures::read(self.bytes, &mut |part| {
            let bytes = self.read(&part);
            zeros &= bytes.iter().all(|&byte| byte == 0);
            Ok::<_, ()>(bytes)
        });
        (found.expect("reading never fails here"), zeros)
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut disk = Disk {
        bytes: u64::from(input.u32()) >> (input.u8() % 32),
        patches: Vec::new(),
    };
    let image = (u64::from(input.u32()), u64::from(input.u32()));
    let image = ExtentMap::from_files([(DiskOffset(image.0), image.1)]).expect("one is apart");
    while !input.is_empty() {
        let from_end = |bytes: u64| disk.bytes.saturating_sub(bytes);
        let place = match input.choose(4) {
            0 => PLACES[input.choose(PLACES.len())],
            1 => from_end(512 * (1 + input.choose(3100) as u64)),
            2 => u64::from(input.u32()) >> 12,
            _ => from_end(input.u16().into()),
        };
        let length = input.u8().into();
        let bytes = input.take(length).to_vec();
        disk.patches.push((place, bytes));
    }
    let (signatures, zeros) = disk.signatures();
    let shown = signatures.to_string();
    assert_eq!(shown == "blank", zeros, "{shown}");
    assert!(
        !shown.is_empty() && !shown.contains(char::is_control),
        "{shown:?}"
    );
    let mut magics: Vec<Range<u64>> = Vec::new();
    for one in &signatures.found {
        assert!(one.label.len() <= 64, "{shown}");
        assert!(!one.magics.is_empty(), "{shown}");
        magics.extend(one.magics.iter().cloned());
    }
    assert!(
        magics
            .iter()
            .all(|magic| magic.start < magic.end && magic.end <= disk.bytes)
    );
    for one in leftovers::find(&image, 0, &signatures, &[]) {
        assert!(one.magics.iter().all(|magic| magics.contains(magic)));
        assert!(
            one.magics
                .iter()
                .all(|magic| !leftovers::touches(&image, 0, magic))
        );
    }
    for magic in magics {
        disk.patches
            .push((magic.start, vec![0; (magic.end - magic.start) as usize]));
    }
    // A sum of bytes may be right only now.
    let (again, _) = disk.signatures();
    let is_sum = |kind: &str| ["VIA RAID", "Silicon Image RAID"].contains(&kind);
    assert!(again.found.iter().all(|one| is_sum(one.kind)), "{again}");
});
