//! Which torrent is it, and with which options is it fetched or seeded?

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::format::metainfo_write::{Content, Description, write};
use swarm_proto::policy::load::Compress;
use swarm_proto::swarm::{Config, Role, ScanPolicy, SeedingLimits, buffer_count_min};
use swarm_proto::units::{PeerId, PieceHash};
use swarmdd_fuzz::Input;

use super::machine::{OWN_ID, address};

/// One block; two and a half; two buffers of the pool. Longer ones only cost time: the core sums up
/// a piece of zeros for each torrent.
const PIECE_BYTES: [u32; 4] = [16 << 10, 16 << 10, 40 << 10, 272 << 10];
const LAST_BYTES: u32 = 9000;

/// The hash of zeros of each length.
static ZEROS: LazyLock<Vec<(u32, PieceHash)>> = LazyLock::new(|| {
    let hash = |length: u32| sha1_smol::Sha1::from(vec![0; length as usize]).digest();
    let lengths = PIECE_BYTES.into_iter().chain([LAST_BYTES]);
    lengths
        .map(|length| (length, PieceHash(hash(length).bytes())))
        .collect()
});

fn zeros(length: u32) -> PieceHash {
    let known = ZEROS.iter().find(|(known, _)| *known == length);
    known.expect("a length of pieces").1
}

/// A few pieces: zeros, equal ones and others. The last may be shorter.
pub fn metainfo(input: &mut Input<'_>) -> Arc<Metainfo> {
    let piece_bytes = PIECE_BYTES[input.choose(PIECE_BYTES.len())];
    let pieces = 1 + input.choose(24) as u32;
    let last_bytes = if input.chance(2) {
        LAST_BYTES
    } else {
        piece_bytes
    };
    let hash = |number: u32| match input.choose(8) {
        0 if number == pieces - 1 => zeros(last_bytes),
        0 => zeros(piece_bytes),
        1 => PieceHash([1; 20]),
        2 => PieceHash([2; 20]),
        _ => PieceHash([100 + number as u8; 20]),
    };
    let hashes: Vec<PieceHash> = (0..pieces).map(hash).collect();
    let length = u64::from(pieces - 1) * u64::from(piece_bytes) + u64::from(last_bytes);
    let torrent = write(&Description {
        name: "fuzz",
        trackers: &["http://10.77.0.9/announce".into()],
        webseeds: &[],
        created_by: "fuzz",
        private: false,
        piece_bytes,
        hashes: &hashes,
        content: Content::Single { length },
        disk_bytes: None,
        sector_bytes: None,
        needed_bytes: None,
        table: None,
    });
    Arc::new(Metainfo::parse(&torrent).expect("what is written is read"))
}

pub fn config(input: &mut Input<'_>, metainfo: &Metainfo) -> Config {
    let flags = input.u8();
    let choice = |bit: u8| flags & 1 << bit != 0;
    Config {
        role: if choice(0) {
            Role::Seeder
        } else {
            Role::Leecher
        },
        peer_id: PeerId([OWN_ID; 20]),
        listen_port: 6881,
        rng_seed: input.u8().into(),
        buffer_count: buffer_count_min(&metainfo.layout) + input.choose(16) as u32,
        peers: (0..input.choose(3))
            .map(|host| address(host as u8))
            .collect(),
        allowed: Vec::new(),
        scan: match choice(1) {
            true => ScanPolicy::BeforeUse,
            false => ScanPolicy::Skip,
        },
        verify: !choice(2),
        // Half of the torrents are read back as soon as possible, the others at the end.
        read_back_distance: if choice(3) { 0 } else { u64::MAX },
        alignment: 512,
        compress: Compress::Always,
        tracker_grace: Duration::from_secs(30),
        seed_for: choice(3).then(|| Duration::from_secs(if choice(4) { 0 } else { 60 })),
        limits: SeedingLimits {
            min_upload: choice(6).then_some(1 << 20),
            ratio: choice(7).then_some(1500),
            idle: choice(6).then(|| Duration::from_secs(20)),
        },
        stall: choice(5).then(|| Duration::from_secs(60)),
    }
}
