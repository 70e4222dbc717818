//! `swarmdd get`: which torrent goes onto which target, and may it?
//!
//! Everything that can be refused is refused before a byte of any target has changed: first all
//! torrents are fetched and checked, then all targets are opened as in a dry run and held together,
//! so that two of them cannot be the same disk or parts of one another, and only then are they
//! opened in earnest.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use swarm_proto::format::metainfo::Metainfo;
use swarm_proto::limits::SECTOR_BYTES_MIN;
use swarm_proto::size::exact;
use swarm_proto::swarm::Role;

use super::{Failure, plan, say};
use crate::agent::{self, Reporter, Settings, Setup};
use crate::cli::{GetJob, GetOptions};
use crate::net::fetch::{self, Patience};
use crate::os::clock;
use crate::os::device::{Device, DeviceError, Kind, TargetOptions};
use crate::os::signal::Signals;
use crate::report::{self, State, Status};
use crate::storage::partition_table;
use crate::target::inventory::DeviceNumber;
use crate::target::{Identity, Target, TargetError};

pub fn run(options: &GetOptions) -> Result<(), Failure> {
    // From here on signals are asked for politely. `run` must have them from the start, so that
    // none is lost.
    let mut signals = Signals::new()?;
    let mut reporter = report::standard(options.swarm.progress);
    let mut statuses: Vec<Status> = options.jobs.iter().map(fetching).collect();
    let prepared = prepare(options, &mut signals, &mut reporter, &mut statuses);
    let setups = match prepared {
        Ok(Prepared::Run(setups)) => setups,
        Ok(Prepared::Plan(plan)) => {
            // Takes the line away that showed how far the reading was.
            drop(reporter);
            say(&plan);
            return Ok(());
        }
        Err(refusal) => {
            refuse(&mut reporter, &statuses, &refusal);
            return Err(Failure::AlreadySaid);
        }
    };
    let settings = Settings {
        verify: options.verify,
        stall: options.stall,
        grow_last: options.grow_last,
        ..super::settings(&options.swarm)
    };
    let result = agent::run(setups, &settings, signals, &mut reporter);
    super::conclude(result, &mut reporter)
}

/// Nothing happens because of one pair; `job` is its number.
struct Refusal {
    job: usize,
    reason: String,
}

enum Prepared {
    Run(Vec<Setup>),
    /// `--dry-run`: what would have happened.
    Plan(String),
}

fn prepare(
    options: &GetOptions,
    signals: &mut Signals,
    reporter: &mut Reporter,
    statuses: &mut [Status],
) -> Result<Prepared, Refusal> {
    let jobs = &options.jobs;
    let mut metainfos = Vec::new();
    for (index, status) in statuses.iter_mut().enumerate() {
        let metainfo = fetch_torrent(index, options, signals, reporter, status);
        let metainfo = metainfo.map_err(because(index))?;
        status.torrent.clone_from(&metainfo.name);
        status.pieces = metainfo.layout.piece_count();
        status.bytes = metainfo.layout.total_bytes();
        metainfos.push(Arc::new(metainfo));
    }
    let all: Vec<&Metainfo> = metainfos.iter().map(|metainfo| &**metainfo).collect();
    let share = agent::divide_memory(&all, options.swarm.memory_mib).map_err(because(0))?;

    let mut rehearsed = Vec::new();
    for (index, (job, metainfo)) in jobs.iter().zip(&all).enumerate() {
        let target =
            rehearse(job, metainfo, options.allow_smaller, &rehearsed).map_err(because(index))?;
        rehearsed.push(target);
    }
    if options.dry_run {
        let mut text = String::new();
        for (index, (metainfo, (device, _))) in all.iter().zip(&rehearsed).enumerate() {
            let mut on_progress = |checked, to_check| {
                let status = Status {
                    state: State::Scanning,
                    checked,
                    to_check,
                    ..statuses[index].clone()
                };
                reporter.update(clock::now(), index, &status);
            };
            let there = plan::holdings(metainfo, device, options.fresh, signals, &mut on_progress);
            let there = there.map_err(because(index))?;
            text.push_str(&plan::describe(
                options,
                &jobs[index],
                metainfo,
                device,
                &there,
                share,
            ));
        }
        text.push_str("nothing was written (--dry-run)\n");
        return Ok(Prepared::Plan(text));
    }
    // The same disks as were looked at, whatever the selectors would say now.
    let found: Vec<(std::path::PathBuf, Identity)> = rehearsed
        .into_iter()
        .map(|(device, identity)| (device.path, identity))
        .collect();
    let mut setups = Vec::new();
    for (index, ((path, identity), metainfo)) in found.into_iter().zip(metainfos).enumerate() {
        let needed = needed_bytes(&metainfo, options.allow_smaller);
        let device =
            Device::open_target(&path, needed, TargetOptions::default()).map_err(because(index))?;
        if !device.direct {
            let path = path.display();
            reporter.note(&format!(
                "{path}: its file system knows no O_DIRECT, writing through the page cache"
            ));
        }
        let target = jobs[index].target.to_string_lossy().into_owned();
        // In a file that was not there nothing can be.
        let look = !options.fresh && !device.created;
        setups.push(Setup {
            metainfo,
            device,
            identity,
            target,
            role: Role::Leecher,
            look,
        });
    }
    Ok(Prepared::Run(setups))
}

fn because<E: std::fmt::Display>(job: usize) -> impl FnOnce(E) -> Refusal {
    move |error| Refusal {
        job,
        reason: error.to_string(),
    }
}

fn fetch_torrent(
    index: usize,
    options: &GetOptions,
    signals: &mut Signals,
    reporter: &mut Reporter,
    status: &Status,
) -> Result<Metainfo, fetch::FetchError> {
    let job = &options.jobs[index];
    // A machine that has booted before its server goes on asking; somebody who wants to see a plan
    // is waiting.
    let patience = if options.dry_run {
        Patience::Tries(super::TRIES)
    } else {
        Patience::Forever
    };
    reporter.update(clock::now(), index, status);
    fetch::torrent(
        &job.torrent,
        job.info_hash,
        patience,
        Some(signals),
        &mut |error, wait| {
            reporter.note(&format!("{error}; trying again in {} s", wait.as_secs()));
            reporter.update(clock::now(), index, status);
        },
    )
}

/// Opens a target without changing it. It is held as long as the answer lives, so that none of
/// `others` is a part of it.
fn rehearse(
    job: &GetJob,
    metainfo: &Metainfo,
    allow_smaller: bool,
    others: &[(Device, Identity)],
) -> Result<(Device, Identity), String> {
    let target = Target::parse(&job.target).map_err(|error| error.to_string())?;
    let options = TargetOptions { dry_run: true };
    let opened = target.open(
        needed_bytes(metainfo, allow_smaller),
        options,
        &numbers(others),
    );
    let (device, identity) = opened.map_err(|error| match error {
        TargetError::Device(DeviceError::TooSmall { holds_bytes, .. }) => {
            too_small(&error, metainfo, holds_bytes)
        }
        _ if twin(&job.target, others) => {
            format!("target {} is given twice", job.target.to_string_lossy())
        }
        _ => error.to_string(),
    })?;
    // Files that do not exist yet cannot be held.
    if device.created && twin(device.path.as_os_str(), others) {
        return Err(format!("target {} is given twice", device.path.display()));
    }
    check_sectors(&device, metainfo)?;
    Ok((device, identity))
}

/// What the target must hold: as much as the disk the image was made on, because a partition table
/// may say that there is so much; or just what the image uses, with its table.
fn needed_bytes(metainfo: &Metainfo, allow_smaller: bool) -> u64 {
    metainfo
        .disk_bytes
        .filter(|_| !allow_smaller)
        .unwrap_or_else(|| partition_table::bytes_needed(metainfo))
}

/// A way out is named where there is one.
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
/// same size. A torrent that does not say its own, as partclone makes them, at least begins and
/// ends its ranges at sectors. A regular file is read by something that brings its own sectors.
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

fn numbers(targets: &[(Device, Identity)]) -> Vec<DeviceNumber> {
    let number = |(device, _): &(Device, Identity)| match device.kind {
        Kind::Block { number } => Some(number),
        Kind::Regular => None,
    };
    targets.iter().filter_map(number).collect()
}

/// Does one of `others` have this path, by whatever name of its directory?
fn twin(path: &OsStr, others: &[(Device, Identity)]) -> bool {
    let place = |path: &Path| {
        let parent = path
            .parent()
            .filter(|parent| *parent != Path::new(""))
            .unwrap_or(Path::new("."));
        path.canonicalize().or_else(|_| {
            Ok::<_, std::io::Error>(
                parent
                    .canonicalize()?
                    .join(path.file_name().unwrap_or_default()),
            )
        })
    };
    let wanted = place(Path::new(path)).ok();
    wanted.is_some()
        && others
            .iter()
            .any(|(device, _)| place(&device.path).ok() == wanted)
}

/// Where a pair stands before anything is known about it.
fn fetching(job: &GetJob) -> Status {
    Status {
        state: State::Fetching,
        torrent: job.torrent.to_string(),
        target: job.target.to_string_lossy().into_owned(),
        have: 0,
        pieces: 0,
        checked: 0,
        to_check: 0,
        bytes: 0,
        fetched: 0,
        uploaded: 0,
        peers: 0,
    }
}

/// Tells of every pair that it failed: the refused one for its reason, the others because of it.
fn refuse(reporter: &mut Reporter, statuses: &[Status], refusal: &Refusal) {
    let culprit = &statuses[refusal.job];
    for (index, status) in statuses.iter().enumerate() {
        let error = match index == refusal.job {
            true => refusal.reason.clone(),
            false => format!(
                "not begun, because of {} -> {}",
                culprit.torrent, culprit.target
            ),
        };
        let outcome = report::Outcome::refused(status.bytes, error);
        reporter.finish(clock::now(), index, status, &outcome);
    }
}
