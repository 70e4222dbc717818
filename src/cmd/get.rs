//! `swarmdd get`: which torrent goes onto which target, and is that allowed?
//!
//! Everything that can be refused is refused before the content of any target changes: first all
//! torrents are loaded and checked, then all targets are opened and checked. A target is held from
//! that moment until the agent closes it (`O_EXCL` on a device, a lock on a file). So two targets
//! cannot be the same disk or parts of each other, no other program can mount a target that has
//! been checked, and the device that is written is the device that was checked. If a pair is
//! refused, dropping the targets restores the files that opening created or extended.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::limits::SECTOR_BYTES_MIN;
use swarm_proto::size::exact;
use swarm_proto::swarm::{Role, ScanPolicy};
use swarm_proto::units::{InfoHash, Instant};
use swarm_proto::wire::url::Url;

use super::{Failure, plan, say};
use crate::agent::{self, Reporter, Settings, Setup};
use crate::net::torrent::{self, Caller, Patience, Retry, TorrentError, TorrentPlace};
use crate::os::clock;
use crate::os::device::{Device, DeviceError, Kind, TargetOptions};
use crate::os::directory;
use crate::os::signal::Signals;
use crate::report::{self, Disk, Mode, State, Status};
use crate::storage::partition_table;
use crate::storage::places::Places;
use crate::target::inventory::DeviceNumber;
use crate::target::{Identity, Target, TargetError};

/// What `get` is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub jobs: Vec<Job>,
    pub settings: Settings,
    pub progress: Mode,
    /// `--report`.
    pub report: Option<Url>,
    /// `--fresh`: fetch everything, whatever the target holds.
    pub fresh: bool,
    pub dry_run: bool,
    /// A disk that is smaller than the one the image was made on is accepted if it holds all that
    /// the image uses.
    pub allow_smaller: bool,
}

/// One TORRENT TARGET pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub torrent: TorrentPlace,
    pub target: Target,
    /// The only info-hash that is accepted.
    pub info_hash: Option<InfoHash>,
}

pub fn run(options: &Options) -> Result<(), Failure> {
    let mut preparation = Preparation::new(options)?;
    let prepared = preparation.run();
    let Preparation {
        mut signals,
        mut reporter,
        statuses,
        ..
    } = preparation;
    let result = match prepared {
        Ok(Prepared::Run(setups)) => {
            let result = agent::run(setups, &options.settings, &mut signals, &mut reporter);
            super::conclude(result, &mut reporter)
        }
        Ok(Prepared::Plan(plan)) => {
            // Removes the line that showed the progress of reading.
            drop(reporter);
            say(&plan);
            return Ok(());
        }
        Err(refusal) => {
            report_refusal(&mut reporter, &statuses, &refusal);
            Err(Failure::AlreadySaid)
        }
    };
    super::tell_end(result, &mut reporter, &mut signals)
}

/// One pair is refused, and because of it nothing is begun.
#[derive(Debug)]
struct Refusal {
    job: usize,
    reason: String,
}

enum Prepared {
    Run(Vec<Setup>),
    /// `--dry-run`: what would have happened.
    Plan(String),
}

/// A target that has been checked. It is held until it is dropped.
pub(super) struct Held {
    device: Device,
    identity: Identity,
}

/// Everything that happens before the agent runs.
struct Preparation<'a> {
    options: &'a Options,
    signals: Signals,
    reporter: Reporter,
    /// The state of each pair, for progress and refusals.
    statuses: Vec<Status>,
}

impl<'a> Preparation<'a> {
    /// From here on signals are read from a descriptor. The agent takes over the same `Signals`, so
    /// that none is lost in between.
    fn new(options: &'a Options) -> Result<Preparation<'a>, Failure> {
        // A plan is for the person who asked for it.
        let server = options.report.as_ref().filter(|_| !options.dry_run);
        Ok(Preparation {
            options,
            signals: Signals::new()?,
            reporter: report::standard(options.progress).with_server(server)?,
            statuses: options.jobs.iter().map(fetching).collect(),
        })
    }

    fn run(&mut self) -> Result<Prepared, Refusal> {
        let metainfos = self.load_torrents()?;
        let all: Vec<&Metainfo> = metainfos.iter().map(|metainfo| &**metainfo).collect();
        let share =
            agent::divide_memory(&all, self.options.settings.memory_mib).map_err(refusal(0))?;
        let targets = self.hold_targets(&all)?;
        if self.options.dry_run {
            return self.plan(&all, &targets, share).map(Prepared::Plan);
        }
        Ok(Prepared::Run(self.setups(metainfos, targets)))
    }

    fn load_torrents(&mut self) -> Result<Vec<Arc<Metainfo>>, Refusal> {
        let mut metainfos = Vec::new();
        for index in 0..self.options.jobs.len() {
            let metainfo = self.load_torrent(index).map_err(refusal(index))?;
            let status = &mut self.statuses[index];
            status.torrent.clone_from(&metainfo.name);
            status.pieces = metainfo.layout.piece_count();
            status.bytes = metainfo.layout.total_bytes();
            metainfos.push(Arc::new(metainfo));
        }
        Ok(metainfos)
    }

    fn load_torrent(&mut self, index: usize) -> Result<Metainfo, TorrentError> {
        let (job, status) = (&self.options.jobs[index], &mut self.statuses[index]);
        let reporter = &mut self.reporter;
        // A machine that has booted before its server must keep asking. For a plan, a person is
        // waiting.
        let patience = match self.options.dry_run {
            true => Patience::Tries(super::TRIES),
            false => Patience::Forever,
        };
        reporter.update(clock::now(), index, status);
        let fd = reporter.server_fd();
        let mut report_at = clock::now();
        let mut turn = |retry: Option<Retry>| {
            let (now, failed) = (clock::now(), retry.is_some());
            if let Some(Retry(error)) = retry {
                status.waiting = Some(format!("{error}; trying again"));
            }
            if failed || report_at <= now {
                reporter.update(now, index, status);
                report_at = reporter.next_wakeup(now).unwrap_or(Instant(u64::MAX));
            }
            reporter.tell(now, true);
            reporter
                .tell_deadline()
                .into_iter()
                .chain([report_at])
                .min()
        };
        let caller = Caller {
            signals: Some(&mut self.signals),
            fd,
            turn: &mut turn,
        };
        let loaded = torrent::load(&job.torrent, job.info_hash, patience, caller);
        status.waiting = None;
        loaded
    }

    /// Opens and checks all targets. On a refusal those that are open already are dropped, and with
    /// them what opening changed.
    fn hold_targets(&mut self, metainfos: &[&Metainfo]) -> Result<Vec<Held>, Refusal> {
        let mut targets = Vec::new();
        for (index, metainfo) in metainfos.iter().enumerate() {
            let target = &self.options.jobs[index].target;
            let others: Vec<&Device> = targets.iter().map(|held: &Held| &held.device).collect();
            let needed_bytes = needed_bytes(metainfo, self.options.allow_smaller);
            let how = TargetOptions {
                dry_run: self.options.dry_run,
            };
            let held = hold(target, metainfo, needed_bytes, how, &others);
            let held = held.map_err(refusal(index))?;
            self.statuses[index].disk = Some(Disk::of(&held.device, &held.identity));
            targets.push(held);
        }
        Ok(targets)
    }

    fn plan(
        &mut self,
        metainfos: &[&Metainfo],
        targets: &[Held],
        share: u64,
    ) -> Result<String, Refusal> {
        let options = self.options;
        let mut text = String::new();
        for (index, (metainfo, Held { device, .. })) in metainfos.iter().zip(targets).enumerate() {
            let (statuses, reporter) = (&self.statuses, &mut self.reporter);
            let mut on_progress = |checked, to_check| {
                let status = Status {
                    state: State::Scanning,
                    checked,
                    to_check,
                    ..statuses[index].clone()
                };
                reporter.update(clock::now(), index, &status);
            };
            let signals = &mut self.signals;
            let there = plan::holdings(metainfo, device, options.fresh, signals, &mut on_progress);
            let there = there.map_err(refusal(index))?;
            let Job {
                torrent, target, ..
            } = &options.jobs[index];
            text.push_str(&format!("{torrent} -> {target}\n"));
            let settings = &options.settings;
            text.push_str(&plan::describe(settings, metainfo, device, &there, share));
        }
        text.push_str("nothing was written (--dry-run)\n");
        Ok(text)
    }

    fn setups(&mut self, metainfos: Vec<Arc<Metainfo>>, targets: Vec<Held>) -> Vec<Setup> {
        let (jobs, fresh) = (self.options.jobs.iter(), self.options.fresh);
        let reporter = &mut self.reporter;
        let setup = |((job, metainfo), held): ((&Job, _), Held)| {
            held.into_setup(&job.target, metainfo, fresh, reporter)
        };
        jobs.zip(metainfos).zip(targets).map(setup).collect()
    }
}

impl Held {
    pub(super) fn into_setup(
        self,
        target: &Target,
        metainfo: Arc<Metainfo>,
        fresh: bool,
        reporter: &mut Reporter,
    ) -> Setup {
        let Held { device, identity } = self;
        if !device.direct {
            let path = device.path.display();
            reporter.note(&format!(
                "{path}: its file system knows no O_DIRECT, writing through the page cache"
            ));
        }
        // A file that did not exist before cannot hold a piece.
        let scan = match fresh || device.created {
            true => ScanPolicy::Skip,
            false => ScanPolicy::BeforeUse,
        };
        Setup {
            places: Places::of(&metainfo),
            metainfo,
            device,
            identity,
            target: target.to_string(),
            role: Role::Leecher,
            scan,
        }
    }
}

fn refusal<E: fmt::Display>(job: usize) -> impl FnOnce(E) -> Refusal {
    move |error| Refusal {
        job,
        reason: error.to_string(),
    }
}

/// Opens and checks one target while the `others` are open. A dry run opens it without changing
/// anything.
pub(super) fn hold(
    target: &Target,
    metainfo: &Metainfo,
    needed_bytes: u64,
    how: TargetOptions,
    others: &[&Device],
) -> Result<Held, String> {
    let twice = |name: &dyn fmt::Display| format!("target {name} is given twice");
    let opened = target.open(needed_bytes, how, &numbers(others));
    let (device, identity) = opened.map_err(|error| match error {
        TargetError::Device(DeviceError::TooSmall { holds_bytes, .. }) => {
            too_small(&error, metainfo, holds_bytes)
        }
        _ if matches!(target, Target::Path(path) if is_one_of(path, others)) => twice(target),
        _ => error.to_string(),
    })?;
    // A file may be opened twice: in a dry run it may not exist yet, and some file systems have no
    // locks.
    if device.kind == Kind::Regular && is_one_of(&device.path, others) {
        return Err(twice(&device.path.display()));
    }
    check_sectors(&device, metainfo)?;
    Ok(Held { device, identity })
}

/// How many bytes the target must hold: as many as the disk the image was made on, because its
/// partition table may refer to all of them; with `--allow-smaller` only what the image and its
/// partition table use.
pub(super) fn needed_bytes(metainfo: &Metainfo, allow_smaller: bool) -> u64 {
    metainfo
        .disk_bytes
        .filter(|_| !allow_smaller)
        .unwrap_or_else(|| partition_table::bytes_needed(metainfo))
}

/// The sentence of a refusal, with a way out where there is one.
fn too_small(error: &TargetError, metainfo: &Metainfo, holds_bytes: u64) -> String {
    if partition_table::bytes_needed(metainfo) > holds_bytes {
        return error.to_string();
    }
    let used_bytes = metainfo.extents.disk_end().0;
    format!(
        "{error}; its used ranges end at {} and would fit, with --allow-smaller",
        exact(used_bytes)
    )
}

/// Partition tables and FAT count in sectors, so an image works only on a disk with sectors of the
/// same size. A torrent that does not record the size, as partclone makes them, must at least begin
/// and end its ranges at sectors. A regular file is accepted: its reader brings its own sectors.
fn check_sectors(device: &Device, metainfo: &Metainfo) -> Result<(), String> {
    let (sector, path) = (device.sector_bytes, device.path.display());
    let alignment = metainfo.extents.alignment();
    match metainfo.sector_bytes {
        _ if !device.is_block() => Ok(()),
        Some(made_on) if made_on != sector => Err(format!(
            "target {path} has sectors of {sector} bytes, image was made on a disk with sectors of {made_on}"
        )),
        None if alignment >= u64::from(SECTOR_BYTES_MIN) && u64::from(sector) > alignment => {
            Err(format!(
                "target {path} has sectors of {sector} bytes, image has ranges in multiples of {alignment}"
            ))
        }
        _ => Ok(()),
    }
}

fn numbers(devices: &[&Device]) -> Vec<DeviceNumber> {
    let number = |device: &&Device| match device.kind {
        Kind::Block { number } => Some(number),
        Kind::Regular => None,
    };
    devices.iter().filter_map(number).collect()
}

/// Is this the path of one of `others`, possibly through another name of its directory?
fn is_one_of(path: &Path, others: &[&Device]) -> bool {
    let wanted = real_path(path);
    let mut others = others.iter();
    wanted.is_some() && others.any(|device| real_path(&device.path) == wanted)
}

/// The path without links, also of a file that does not exist yet.
fn real_path(path: &Path) -> Option<PathBuf> {
    let parent = path
        .parent()
        .filter(|parent| *parent != Path::new(""))
        .unwrap_or(Path::new("."));
    directory::real_path(path).ok().or_else(|| {
        let name = path.file_name().unwrap_or_default();
        Some(directory::real_path(parent).ok()?.join(name))
    })
}

/// The status of a pair whose torrent is still to be loaded.
fn fetching(job: &Job) -> Status {
    Status {
        state: State::Fetching,
        torrent: job.torrent.to_string(),
        target: job.target.to_string(),
        disk: None,
        have: 0,
        pieces: 0,
        checked: 0,
        to_check: 0,
        good: 0,
        bytes: 0,
        fetched: 0,
        uploaded: 0,
        fetched_wire: 0,
        uploaded_wire: 0,
        peers: 0,
        waiting: None,
    }
}

/// Reports every pair as failed: first the refused one with its reason, then to programs the
/// others.
fn report_refusal(reporter: &mut Reporter, statuses: &[Status], refusal: &Refusal) {
    let refused = &statuses[refusal.job];
    let outcome = report::Outcome::refused(refused.bytes, refusal.reason.clone());
    reporter.finish(clock::now(), refusal.job, refused, &outcome);
    let (torrent, target) = (&refused.torrent, &refused.target);
    for (index, status) in statuses.iter().enumerate() {
        if index != refusal.job {
            let reason = format!("not begun, because of {torrent} -> {target}");
            let outcome = report::Outcome::refused(status.bytes, reason);
            reporter.finish_unsaid(clock::now(), index, status, &outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::testing::{CloseWatch, Scratch};
    use std::fs;
    use swarm_proto::format::metainfo_write::{Content, Description, write};
    use swarm_proto::units::PieceHash;

    const IMAGE_BYTES: u64 = 50_000;

    /// The path of a torrent of this length.
    fn torrent(name: &str) -> Scratch {
        let scratch = Scratch::new(name);
        let bytes = write(&Description {
            name: "image",
            trackers: &[],
            webseeds: &[],
            created_by: "test",
            private: false,
            piece_bytes: 16 << 10,
            hashes: &[PieceHash([7; 20]); 4],
            content: Content::Single {
                length: IMAGE_BYTES,
            },
            disk_bytes: None,
            sector_bytes: None,
            needed_bytes: None,
            table: None,
        });
        fs::write(scratch.path(), bytes).unwrap();
        scratch
    }

    fn options(torrent: &Scratch, targets: &[&Path]) -> Options {
        let job = |target: &&Path| Job {
            torrent: TorrentPlace::File(torrent.path().into()),
            target: Target::Path(target.into()),
            info_hash: None,
        };
        Options {
            jobs: targets.iter().map(job).collect(),
            settings: Settings::default(),
            progress: Mode::None,
            report: None,
            fresh: false,
            dry_run: false,
            allow_smaller: false,
        }
    }

    #[test]
    fn a_target_is_held_from_its_check_until_the_agent_has_it() {
        let torrent = torrent("held.torrent");
        let (first, second) = (Scratch::new("first"), Scratch::new("second"));
        fs::write(first.path(), b"abc").unwrap();
        let options = options(&torrent, &[first.path(), second.path()]);
        let mut preparation = Preparation::new(&options).unwrap();
        let mut watch = CloseWatch::new(first.path());
        let Ok(Prepared::Run(setups)) = preparation.run() else {
            panic!("refused");
        };
        assert!(!watch.was_closed(), "closed between the check and the run");
        let other = fs::File::open(first.path()).unwrap();
        assert!(other.try_lock().is_err(), "another agent could lock it");
        drop(setups);
        assert!(watch.was_closed());
        other.try_lock().unwrap();
    }

    #[test]
    fn a_refusal_restores_the_targets_before_it() {
        let torrent = torrent("refused.torrent");
        let (short, new) = (Scratch::new("short"), Scratch::new("new"));
        fs::write(short.path(), b"abc").unwrap();
        let options = options(
            &torrent,
            &[short.path(), new.path(), Path::new("/dev/null")],
        );
        let mut preparation = Preparation::new(&options).unwrap();
        let Err(refusal) = preparation.run() else {
            panic!("/dev/null was accepted");
        };
        assert_eq!(refusal.job, 2);
        assert_eq!(fs::read(short.path()).unwrap(), b"abc");
        assert!(!new.path().exists());
    }
}
