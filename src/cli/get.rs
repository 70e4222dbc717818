//! Which options do `swarmdd get` and `swarmdd daemon` take?

use std::path::{Component, Path};
use std::time::Duration;

use swarm_proto::units::InfoHash;

use super::error::{UsageError, Wrong};
use super::help;
use super::swarm::{check_peers, shared_option};
use super::values::{INFO_HASH, RATE, SECONDS_FROM_1};
use super::words::{Word, Words};
use crate::agent::Settings;
use crate::cmd::Command;
use crate::cmd::get::{Job, Options};
use crate::report::Mode;
use crate::target::Target;

/// The words of `get`; or of `daemon`, which fetches in the same way and learns TORRENT and TARGET
/// later.
pub(super) fn parse(words: &mut Words, is_daemon: bool) -> Result<Command, UsageError> {
    let mut options = Options {
        jobs: Vec::new(),
        settings: Settings::default(),
        progress: Mode::Auto,
        report: None,
        fresh: false,
        dry_run: false,
        allow_smaller: false,
    };
    let settings = &mut options.settings;
    let (progress, report) = (&mut options.progress, &mut options.report);
    let mut info_hashes: Vec<InfoHash> = Vec::new();
    let mut operands = Vec::new();
    let mut check_only = false;
    let mut control = None;
    let text = if is_daemon { help::DAEMON } else { help::GET };
    while let Some(word) = words.next()? {
        match word {
            Word::Operand(operand) => operands.push(operand),
            Word::Option(option) => match option.as_str() {
                // Words that only print a text would pass the check and image nothing.
                "-h" | "--help" if !check_only => return Ok(Command::Help(text)),
                "--max-down" => settings.max_down = Some(words.value(&option, RATE)?),
                "--control" if is_daemon => control = Some(words.path(&option)?),
                "--info-hash" if !is_daemon => info_hashes.push(words.value(&option, INFO_HASH)?),
                "--fresh" => options.fresh = true,
                "--no-verify" => settings.verify = false,
                "--no-seed" if !is_daemon => settings.seed_for = Some(Duration::ZERO),
                "--stall-secs" => settings.stall = Some(words.value(&option, SECONDS_FROM_1)?),
                "--dry-run" if !is_daemon => options.dry_run = true,
                "--check-only" if !is_daemon => check_only = true,
                "--allow-smaller" => options.allow_smaller = true,
                "--grow-last" => settings.grow_last = true,
                "--keep-signatures" => settings.keep_signatures = true,
                _ => shared_option(option, words, settings, progress, report)?,
            },
        }
    }
    check_peers(settings, words)?;
    if is_daemon {
        let [] = words.exactly(operands, [])?;
        let control = control.ok_or_else(|| words.error(Wrong::Missing("--control SOCKET")))?;
        return Ok(Command::Daemon(control.into(), options));
    }
    let pairs = words.pairs(operands, "TORRENT and TARGET")?;
    if !info_hashes.is_empty() && info_hashes.len() != pairs.len() {
        let (torrents, hashes) = (pairs.len(), info_hashes.len());
        return Err(words.error(Wrong::InfoHashCount { torrents, hashes }));
    }
    let mut info_hashes = info_hashes.into_iter();
    for (torrent, target) in pairs {
        options.jobs.push(Job {
            torrent,
            target: words.target(target)?,
            info_hash: info_hashes.next(),
        });
    }
    if check_only {
        check(&options).map_err(|wrong| words.error(wrong))?;
        return Ok(Command::Checked);
    }
    Ok(Command::Get(options))
}

/// What can be said about the words of another machine, without its disks.
fn check(options: &Options) -> Result<(), Wrong> {
    if options.dry_run {
        return Err(Wrong::Contradiction("--check-only", "--dry-run"));
    }
    for (index, Job { target, .. }) in options.jobs.iter().enumerate() {
        if matches!(target, Target::Path(path) if !is_below_dev(path)) {
            return Err(Wrong::NotADevice(target.to_string()));
        }
        if options.jobs[..index]
            .iter()
            .any(|job| job.target == *target)
        {
            return Err(Wrong::TargetTwice(target.to_string()));
        }
    }
    Ok(())
}

fn is_below_dev(path: &Path) -> bool {
    let below = path.strip_prefix("/dev").ok();
    let plain = |part| matches!(part, Component::Normal(_));
    below.is_some_and(|below| below != Path::new("") && below.components().all(plain))
}
