//! What is run, with which settings, and how is the memory divided?

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use swarm_proto::format::layout::Layout;
use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::swarm::{self, Config, Role, ScanPolicy};
use swarm_proto::units::PeerId;

use super::RunError;
use crate::os::clock;
use crate::os::device::Device;
use crate::target::Identity;

/// Memory that the process needs besides pools and torrents. Measured: 0.7 MiB for the program and
/// 0.5 MiB for 80 connections at rest. The remainder is for the send queues of peers that request
/// much and read slowly, at most 0.4 MiB each.
const RESERVE_BYTES: u64 = 10 << 20;

/// One TORRENT TARGET (or SOURCE) pair, ready to run.
pub struct Setup {
    pub metainfo: Arc<Metainfo>,
    pub device: Device,
    /// What the disk says about itself, for the result.
    pub identity: Identity,
    /// As the user named it.
    pub target: String,
    pub role: Role,
    /// Whether the core reads the target or source before it relies on it: `Config::look`.
    pub look: bool,
}

/// What all pairs have in common, as the command line says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub listen: SocketAddr,
    /// Connected to in any case, with or without a tracker.
    pub peers: Vec<SocketAddr>,
    /// All memory of the process.
    pub memory_mib: u32,
    /// Read back what was written.
    pub verify: bool,
    /// How long a complete job stays after the tracker was last reached.
    pub tracker_grace: Duration,
    /// How long a complete job seeds; None until the tracker is gone.
    pub seed_for: Option<Duration>,
    /// How long an incomplete job waits without progress before it fails; None for ever.
    pub stall: Option<Duration>,
    /// Payload in bytes per second, all pairs together.
    pub max_up: Option<u64>,
    pub max_down: Option<u64>,
    /// Enlarge the last partition to the end of the disk.
    pub grow_last: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            listen: SocketAddr::from(([0u16; 8], 6881)),
            peers: Vec::new(),
            memory_mib: 64,
            verify: true,
            tracker_grace: Duration::from_secs(30),
            seed_for: None,
            stall: None,
            max_up: None,
            max_down: None,
            grow_last: false,
        }
    }
}

/// The bytes of pool that each of these torrents gets. All get the same share, which must be enough
/// for the torrent with the largest pieces.
pub fn divide_memory(metainfos: &[&Metainfo], memory_mib: u32) -> Result<u64, RunError> {
    assert!(!metainfos.is_empty());
    let jobs = metainfos.len() as u64;
    let kept: u64 = RESERVE_BYTES
        + metainfos
            .iter()
            .map(|metainfo| metainfo_bytes(metainfo))
            .sum::<u64>();
    let share = (u64::from(memory_mib) << 20).saturating_sub(kept) / jobs;
    let needed = metainfos
        .iter()
        .map(|metainfo| pool_bytes_min(metainfo))
        .max()
        .unwrap_or(0);
    if share < needed {
        let needed_mib = (kept + jobs * needed).div_ceil(1 << 20);
        return Err(RunError::Memory {
            memory_mib,
            needed_mib,
        });
    }
    Ok(share)
}

fn pool_bytes_min(metainfo: &Metainfo) -> u64 {
    let layout = &metainfo.layout;
    u64::from(swarm::buffer_count_min(layout)) * u64::from(swarm::buffer_bytes(layout))
}

/// What the core keeps for a torrent. Measured: 43 bytes a piece, or 60 if all pieces are equal. To
/// these come 4 to 8 bytes a piece in each of the queues of pieces to read, to write and to
/// announce; a bit a piece for each of 80 peers; and the extents.
fn metainfo_bytes(metainfo: &Metainfo) -> u64 {
    96 * u64::from(metainfo.layout.piece_count()) + 24 * metainfo.extents.extents().len() as u64
}

/// Buffers in the pool of a job whose share of the memory is `pool_bytes`.
pub(super) fn buffer_count(layout: &Layout, pool_bytes: u64) -> u32 {
    let buffer_bytes = u64::from(swarm::buffer_bytes(layout));
    let fits = pool_bytes / buffer_bytes;
    // More buffers than the torrent has bytes are never used.
    let whole = layout.total_bytes().div_ceil(buffer_bytes);
    u32::try_from(fits.min(whole))
        .unwrap_or(u32::MAX)
        .max(swarm::buffer_count_min(layout))
}

/// Everything that the core of a job needs to know at the start.
pub(super) fn config(
    settings: &Settings,
    role: Role,
    look: bool,
    listen_port: u16,
    buffer_count: u32,
) -> io::Result<Config> {
    Ok(Config {
        role,
        peer_id: random_peer_id()?,
        listen_port,
        rng_seed: clock::random_seed()?,
        buffer_count,
        peers: settings.peers.clone(),
        scan: if look {
            ScanPolicy::BeforeUse
        } else {
            ScanPolicy::Skip
        },
        verify: settings.verify,
        tracker_grace: settings.tracker_grace,
        seed_for: settings.seed_for,
        stall: settings.stall,
    })
}

/// BEP 20: two letters and a version, then bytes that no other agent has.
fn random_peer_id() -> io::Result<PeerId> {
    let mut id = *b"-SD0100-............";
    clock::random_bytes(&mut id[8..])?;
    Ok(PeerId(id))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::os::device::TargetOptions;
    use crate::os::sha1::Sha1;
    use crate::os::testing::Scratch;
    use swarm_proto::format::metainfo_write::{self, Content, Description};
    use swarm_proto::limits::{PIECE_BYTES_MAX, PIECE_BYTES_MIN};
    use swarm_proto::units::PieceHash;

    /// A leecher that listens at a port of its own and leaves when it is complete.
    pub fn settings() -> Settings {
        Settings {
            listen: "127.0.0.1:0".parse().unwrap(),
            peers: Vec::new(),
            memory_mib: 64,
            verify: true,
            tracker_grace: Duration::ZERO,
            seed_for: Some(Duration::ZERO),
            stall: None,
            max_up: None,
            max_down: None,
            grow_last: false,
        }
    }

    /// A target in a new file.
    pub fn leecher(metainfo: Metainfo, scratch: &Scratch) -> Setup {
        let length = metainfo.layout.total_bytes();
        Setup {
            metainfo: Arc::new(metainfo),
            device: Device::open_target(scratch.path(), length, TargetOptions::default()).unwrap(),
            identity: Identity::default(),
            target: "target".into(),
            role: Role::Leecher,
            look: false,
        }
    }

    /// An image of zeros in the shortest pieces. No peer is needed for it.
    pub fn zeros(piece_count: u32) -> Metainfo {
        let mut hash = Sha1::new();
        hash.update(&[0; PIECE_BYTES_MIN as usize]);
        let length = u64::from(piece_count * PIECE_BYTES_MIN);
        of_hash(PieceHash(hash.finish()), length, PIECE_BYTES_MIN)
    }

    pub fn metainfo(length: u64, piece_bytes: u32) -> Metainfo {
        of_hash(PieceHash([0; 20]), length, piece_bytes)
    }

    /// All pieces have this hash.
    fn of_hash(hash: PieceHash, length: u64, piece_bytes: u32) -> Metainfo {
        let hashes = vec![hash; length.div_ceil(piece_bytes.into()) as usize];
        let torrent = metainfo_write::write(&Description {
            name: "image",
            trackers: &[],
            webseeds: &[],
            created_by: "test",
            private: false,
            piece_bytes,
            hashes: &hashes,
            content: Content::Single { length },
            disk_bytes: None,
            sector_bytes: None,
        });
        Metainfo::parse(&torrent).unwrap()
    }

    #[test]
    fn the_default_memory_holds_the_largest_pieces() {
        let image = metainfo(50 << 30, PIECE_BYTES_MAX);
        let share = divide_memory(&[&image], 64).unwrap();
        assert!(share > 3 * u64::from(PIECE_BYTES_MAX));
        assert!(share < 64 << 20);
    }

    #[test]
    fn a_refusal_of_memory_names_an_amount_that_is_accepted() {
        let (large, small) = (
            metainfo(1 << 30, PIECE_BYTES_MAX),
            metainfo(1 << 30, 1 << 20),
        );
        for metainfos in [
            &[&large][..],
            &[&small],
            &[&large, &small],
            &[&large, &large, &large],
        ] {
            let Err(RunError::Memory { needed_mib, .. }) = divide_memory(metainfos, 1) else {
                panic!("one MiB is enough for {} torrents", metainfos.len());
            };
            let needed_mib = u32::try_from(needed_mib).unwrap();
            let share = divide_memory(metainfos, needed_mib).unwrap();
            assert!(
                metainfos
                    .iter()
                    .all(|metainfo| pool_bytes_min(metainfo) <= share)
            );
            assert!(divide_memory(metainfos, needed_mib - 1).is_err());
        }
    }
}
