//! What is run, with which settings, and how is the memory divided?

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use swarm_proto::format::layout::Layout;
use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::limits::READ_BACK_DISTANCE;
use swarm_proto::policy::load::Compress;
use swarm_proto::policy::subnet::Subnet;
use swarm_proto::swarm::{self, Config, Role, ScanPolicy, SeedingLimits};
use swarm_proto::units::PeerId;

use super::RunError;
use crate::os::clock;
use crate::os::device::Device;
use crate::os::memory;
use crate::storage::places::Places;
use crate::target::Identity;

/// Memory that the process needs besides pools and torrents. Measured: 0.7 MiB for the program and
/// 0.5 MiB for 80 connections at rest. The remainder is for the send queues of peers that request
/// much and read slowly, at most 0.4 MiB each.
const RESERVE_BYTES: u64 = 10 << 20;

/// Memory that is taken if the torrents need less, and the least that is taken.
const MEMORY_MIB: u64 = 64;
const MEMORY_MIB_MIN: u64 = 16;

/// What a daemon takes if nothing else is said, as far as the machine can spare it: room for eight
/// torrents of 16 MiB pieces, which is what Clonezilla makes, and more.
const DAEMON_MIB: u64 = 512;

/// A job of a daemon gets this part of its memory. With 512 MiB a sixteenth is nearly what pieces
/// of 16 MiB need at least, and smaller pieces do not get faster with more.
const SHARE_COUNT: u64 = 16;

/// One TORRENT TARGET (or SOURCE) pair, ready to run.
pub struct Setup {
    pub metainfo: Arc<Metainfo>,
    pub device: Device,
    /// Where the device has the bytes of the torrent.
    pub places: Places,
    /// What the disk says about itself, for the result.
    pub identity: Identity,
    /// As the user named it.
    pub target: String,
    pub role: Role,
    /// Whether the core reads the target or source before it relies on it.
    pub scan: ScanPolicy,
}

/// What all pairs have in common, as the command line says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub listen: SocketAddr,
    /// Connected to in any case, with or without a tracker.
    pub peers: Vec<SocketAddr>,
    /// The subnets of all peers; empty: peers may be anywhere.
    pub allowed: Vec<Subnet>,
    /// All memory of the process; `None`: as much as the torrents need, if the machine has it.
    pub memory_mib: Option<u32>,
    /// May blocks be compressed on their way?
    pub compress: Compress,
    /// Read back what was written.
    pub verify: bool,
    /// How long a complete job stays after the tracker was last reached.
    pub tracker_grace: Duration,
    /// How long a complete job seeds; None until the tracker is gone.
    pub seed_for: Option<Duration>,
    /// What else ends the seeding of a complete job.
    pub limits: SeedingLimits,
    /// How long an incomplete job waits without progress before it fails; None for ever.
    pub stall: Option<Duration>,
    /// Payload in bytes per second, all pairs together.
    pub max_up: Option<u64>,
    pub max_down: Option<u64>,
    /// Enlarge the last partition to the end of the disk.
    pub grow_last: bool,
    /// Leave signatures on the target that are not of the image.
    pub keep_signatures: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            listen: SocketAddr::from(([0u16; 8], 6881)),
            peers: Vec::new(),
            allowed: Vec::new(),
            memory_mib: None,
            compress: Compress::Auto,
            verify: true,
            tracker_grace: Duration::from_secs(30),
            seed_for: None,
            limits: SeedingLimits::default(),
            stall: None,
            max_up: None,
            max_down: None,
            grow_last: false,
            keep_signatures: false,
        }
    }
}

/// The bytes of pool that each of these torrents gets. All get the same share, which must be enough
/// for the torrent with the largest pieces.
pub fn divide_memory(metainfos: &[&Metainfo], given_mib: Option<u32>) -> Result<u64, RunError> {
    let needs: Vec<Need> = metainfos
        .iter()
        .map(|metainfo| Need::of(metainfo))
        .collect();
    let available = || memory::available_bytes().map_or(u64::MAX, |bytes| bytes >> 20);
    divide(&needs, given_mib.map(u64::from), available)
}

/// The memory of a daemon, which does not know how many jobs will come. A job gets a share, or the
/// least that it works with if that is more, and gives it back when it ends. With --memory 512 and
/// pieces of 16 MiB, thirteen jobs have room at the same time.
pub(super) struct Budget {
    total_mib: u64,
    free_bytes: u64,
}

/// What one job takes of a `Budget`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    pub pool_bytes: u64,
    kept_bytes: u64,
}

impl Budget {
    pub fn new(given_mib: Option<u32>) -> Budget {
        let available = memory::available_bytes().map_or(u64::MAX, |bytes| bytes >> 20);
        let given_mib = given_mib.map(u64::from);
        Budget::of(given_mib.unwrap_or_else(|| default_mib(DAEMON_MIB, available)))
    }

    fn of(total_mib: u64) -> Budget {
        Budget {
            total_mib,
            free_bytes: (total_mib << 20).saturating_sub(RESERVE_BYTES),
        }
    }

    /// Takes what a job with this torrent gets, or says how much is missing.
    pub fn take(&mut self, metainfo: &Metainfo) -> Result<Taken, String> {
        let need = Need::of(metainfo);
        let (kept_bytes, least_bytes) = (need.kept_bytes(), need.pool_bytes_min());
        let share_bytes = (self.total_mib << 20) / SHARE_COUNT;
        let rest_bytes = self.free_bytes.saturating_sub(kept_bytes);
        if rest_bytes < least_bytes {
            return Err(format!(
                "{} needs {} MiB of memory, {} of --memory {} are free",
                metainfo.name,
                (kept_bytes + least_bytes).div_ceil(1 << 20),
                self.free_bytes >> 20,
                self.total_mib
            ));
        }
        let wanted_bytes = share_bytes.clamp(least_bytes, rest_bytes);
        let count = buffer_count(&need.layout, wanted_bytes);
        let taken = Taken {
            pool_bytes: u64::from(count) * u64::from(swarm::buffer_bytes(&need.layout)),
            kept_bytes,
        };
        self.free_bytes -= taken.pool_bytes + taken.kept_bytes;
        Ok(taken)
    }

    pub fn give_back(&mut self, taken: Taken) {
        self.free_bytes += taken.pool_bytes + taken.kept_bytes;
    }
}

/// `given_mib` is `--memory`; without it, `available_mib` bounds what is taken.
fn divide(
    needs: &[Need],
    given_mib: Option<u64>,
    available_mib: impl FnOnce() -> u64,
) -> Result<u64, RunError> {
    assert!(!needs.is_empty());
    let jobs = needs.len() as u64;
    let kept: u64 = RESERVE_BYTES + needs.iter().map(Need::kept_bytes).sum::<u64>();
    let pool: u64 = needs.iter().map(Need::pool_bytes_min).max().unwrap_or(0);
    let needed_mib = (kept + jobs * pool).div_ceil(1 << 20);
    let memory_mib = given_mib.unwrap_or_else(|| default_mib(needed_mib, available_mib()));
    let share = (memory_mib << 20).saturating_sub(kept) / jobs;
    if share < pool {
        return Err(RunError::Memory {
            memory_mib,
            is_given: given_mib.is_some(),
            needed_mib,
            pieces: needs
                .iter()
                .map(|need| u64::from(need.layout.piece_count()))
                .sum(),
        });
    }
    Ok(share)
}

/// What is taken without `--memory`: what the torrents need, or MEMORY_MIB if that is more, but at
/// most half of what the machine has left. The kernel needs the rest for packets and disk requests:
/// a machine with 128 MiB has 60 MiB available when it begins, and 64 would be too many.
fn default_mib(needed_mib: u64, available_mib: u64) -> u64 {
    needed_mib
        .max(MEMORY_MIB)
        .min((available_mib / 2).max(MEMORY_MIB_MIN))
}

/// What decides how much memory a torrent needs.
struct Need {
    layout: Layout,
    extent_count: usize,
}

impl Need {
    fn of(metainfo: &Metainfo) -> Need {
        Need {
            layout: metainfo.layout,
            extent_count: metainfo.extents.extents().len(),
        }
    }

    fn pool_bytes_min(&self) -> u64 {
        let count = swarm::buffer_count_min(&self.layout);
        u64::from(count) * u64::from(swarm::buffer_bytes(&self.layout))
    }

    /// What the core keeps. Measured with 524,288 pieces: 40 bytes a piece, 49 if all are zeros, 60
    /// if all are equal and have to be fetched. To these come a bit a piece for each of 80 peers,
    /// and the extents.
    fn kept_bytes(&self) -> u64 {
        70 * u64::from(self.layout.piece_count()) + 24 * self.extent_count as u64
    }
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
    scan: ScanPolicy,
    listen_port: u16,
    buffer_count: u32,
    alignment: u32,
) -> io::Result<Config> {
    Ok(Config {
        role,
        peer_id: random_peer_id()?,
        listen_port,
        rng_seed: clock::random_seed()?,
        buffer_count,
        peers: settings.peers.clone(),
        allowed: settings.allowed.clone(),
        scan,
        verify: settings.verify,
        read_back_distance: READ_BACK_DISTANCE,
        alignment,
        compress: settings.compress,
        tracker_grace: settings.tracker_grace,
        seed_for: settings.seed_for,
        limits: settings.limits,
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
    use swarm_proto::format::layout::default_piece_bytes;
    use swarm_proto::format::metainfo_write::{self, Content, Description};
    use swarm_proto::limits::{PIECE_BYTES_MAX, PIECE_BYTES_MIN};
    use swarm_proto::rng::Rng;
    use swarm_proto::units::PieceHash;

    /// A leecher that listens at a port of its own and leaves when it is complete.
    pub fn settings() -> Settings {
        Settings {
            listen: "127.0.0.1:0".parse().unwrap(),
            peers: Vec::new(),
            allowed: Vec::new(),
            memory_mib: None,
            compress: Compress::Auto,
            verify: true,
            tracker_grace: Duration::ZERO,
            seed_for: Some(Duration::ZERO),
            limits: SeedingLimits::default(),
            stall: None,
            max_up: None,
            max_down: None,
            grow_last: false,
            keep_signatures: false,
        }
    }

    /// A target in a new file.
    pub fn leecher(metainfo: Metainfo, scratch: &Scratch) -> Setup {
        let length = metainfo.layout.total_bytes();
        Setup {
            places: Places::of(&metainfo),
            metainfo: Arc::new(metainfo),
            device: Device::open_target(scratch.path(), length, TargetOptions::default()).unwrap(),
            identity: Identity::default(),
            target: "target".into(),
            role: Role::Leecher,
            scan: ScanPolicy::Skip,
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
            needed_bytes: None,
            table: None,
        });
        Metainfo::parse(&torrent).unwrap()
    }

    #[test]
    fn the_default_memory_holds_the_largest_pieces() {
        let image = metainfo(50 << 30, PIECE_BYTES_MAX);
        let share = divide_memory(&[&image], Some(64)).unwrap();
        assert!(share > 3 * u64::from(PIECE_BYTES_MAX));
        assert!(share < 64 << 20);
    }

    /// Clonezilla's pieces always have 16 MiB.
    #[test]
    fn a_daemon_has_room_for_eight_torrents_of_clonezilla() {
        let image = metainfo(50 << 30, PIECE_BYTES_MAX);
        let mut budget = Budget::of(DAEMON_MIB);
        let free_bytes = budget.free_bytes;
        let mut taken = Vec::new();
        let refusal = loop {
            match budget.take(&image) {
                Ok(one) => taken.push(one),
                Err(refusal) => break refusal,
            }
            assert!(taken.len() < 100);
        };
        assert_eq!(taken.len(), 13);
        assert_eq!(
            refusal,
            "image needs 37 MiB of memory, 31 of --memory 512 are free"
        );
        let least = Need::of(&image).pool_bytes_min();
        assert!(taken.iter().all(|one| one.pool_bytes >= least));
        // What one job gives back is enough for the next.
        budget.give_back(taken.pop().unwrap());
        taken.push(budget.take(&image).unwrap());
        for one in taken {
            budget.give_back(one);
        }
        assert_eq!(budget.free_bytes, free_bytes);
    }

    /// No order of jobs takes more than there is, and a job gets what it works with or nothing.
    #[test]
    fn jobs_that_come_and_go_share_the_memory_of_a_daemon() {
        let images: Vec<Metainfo> = [
            (1 << 20, 1 << 18),
            (50 << 30, PIECE_BYTES_MAX),
            (4 << 30, 1 << 20),
            (1 << 30, 4 << 20),
        ]
        .map(|(length, piece_bytes)| metainfo(length, piece_bytes))
        .into();
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let total_mib = 16 + u64::from(rng.below(600));
            let (mut budget, mut taken) = (Budget::of(total_mib), Vec::<Taken>::new());
            for _ in 0..100 {
                if rng.chance(1, 3) && !taken.is_empty() {
                    let at = rng.below(taken.len() as u32) as usize;
                    budget.give_back(taken.swap_remove(at));
                }
                let image = &images[rng.below(4) as usize];
                let need = Need::of(image);
                let free = budget.free_bytes;
                match budget.take(image) {
                    Ok(one) => {
                        assert!(one.pool_bytes >= need.pool_bytes_min());
                        taken.push(one);
                    }
                    Err(_) => assert!(free < need.kept_bytes() + need.pool_bytes_min()),
                }
                let all = taken.iter().map(|one| one.pool_bytes + one.kept_bytes);
                let all = all.sum::<u64>() + RESERVE_BYTES;
                assert!(all <= total_mib << 20, "seed {seed}");
            }
        }
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
            let Err(RunError::Memory { needed_mib, .. }) = divide_memory(metainfos, Some(1)) else {
                panic!("one MiB is enough for {} torrents", metainfos.len());
            };
            let needed_mib = u32::try_from(needed_mib).unwrap();
            let share = divide_memory(metainfos, Some(needed_mib)).unwrap();
            assert!(
                metainfos
                    .iter()
                    .all(|metainfo| Need::of(metainfo).pool_bytes_min() <= share)
            );
            assert!(divide_memory(metainfos, Some(needed_mib - 1)).is_err());
        }
    }

    fn needed_mib(total_bytes: u64) -> u64 {
        let piece_bytes = default_piece_bytes(total_bytes);
        let need = Need {
            layout: Layout::new(total_bytes, piece_bytes).unwrap(),
            extent_count: 1000,
        };
        match divide(&[need], Some(1), || 0) {
            Err(RunError::Memory { needed_mib, .. }) => needed_mib,
            other => panic!("{other:?}"),
        }
    }

    /// What `make` chooses, `get` and `seed` accept: at every size, and within the memory that the
    /// design allows. A disk of 2 TB has 1.82 TiB.
    #[test]
    fn default_pieces_fit_the_default_memory_at_every_size() {
        let steps = (0..24 * 16).map(|n| ((16 + n % 16) << 16) << (n / 16));
        for total_bytes in steps.chain([2_000_398_934_016, 8_001_563_222_016, 16 << 40]) {
            let (needed_mib, tib) = (
                needed_mib(total_bytes),
                total_bytes as f64 / (1u64 << 40) as f64,
            );
            assert!(needed_mib <= 128, "{tib} TiB need {needed_mib} MiB");
            assert!(
                needed_mib <= 64 || tib > 4.0,
                "{tib} TiB need {needed_mib} MiB"
            );
            assert_eq!(default_mib(needed_mib, 1 << 20), needed_mib.max(64));
        }
    }

    #[test]
    fn the_default_memory_is_what_the_machine_can_spare() {
        for (needed_mib, available_mib, taken_mib) in [
            (20, 8000, 64),
            (100, 8000, 100),
            (20, 60, 30),
            (20, 10, 16),
            (100, 150, 75),
        ] {
            assert_eq!(default_mib(needed_mib, available_mib), taken_mib);
        }
    }

    #[test]
    fn a_refusal_of_memory_names_the_number_of_pieces() {
        let need = || Need {
            layout: Layout::new(16 << 40, PIECE_BYTES_MAX).unwrap(),
            extent_count: 1,
        };
        let said = |given, available_mib| {
            divide(&[need()], given, || available_mib)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            said(Some(64), 8000),
            "--memory 64 is too little for 1048576 pieces, use --memory 117"
        );
        assert_eq!(
            said(None, 200),
            "1048576 pieces need 117 MiB of memory, this machine can spare 100: \
             --memory 117 takes it nevertheless"
        );
        assert!(divide(&[need()], None, || 8000).is_ok());
    }
}
