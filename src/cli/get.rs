//! Which options does `swarmdd get` take?

use std::time::Duration;

use swarm_proto::units::InfoHash;

use super::error::{UsageError, Wrong};
use super::help;
use super::swarm::shared_option;
use super::values::{INFO_HASH, RATE, SECONDS_FROM_1, target};
use super::words::{Word, Words};
use crate::agent::Settings;
use crate::cmd::Command;
use crate::cmd::get::{Job, Options};
use crate::report::Mode;

pub(super) fn parse(mut words: Words) -> Result<Command, UsageError> {
    let mut options = Options {
        jobs: Vec::new(),
        settings: Settings::default(),
        progress: Mode::Auto,
        fresh: false,
        dry_run: false,
        allow_smaller: false,
    };
    let (settings, progress) = (&mut options.settings, &mut options.progress);
    let mut info_hashes: Vec<InfoHash> = Vec::new();
    let mut operands = Vec::new();
    while let Some(word) = words.next()? {
        match word {
            Word::Operand(operand) => operands.push(operand),
            Word::Option(option) => match option.as_str() {
                "-h" | "--help" => return Ok(Command::Help(help::GET)),
                "--max-down" => settings.max_down = Some(words.value(&option, RATE)?),
                "--info-hash" => info_hashes.push(words.value(&option, INFO_HASH)?),
                "--fresh" => options.fresh = true,
                "--no-verify" => settings.verify = false,
                "--no-seed" => settings.seed_for = Some(Duration::ZERO),
                "--stall-secs" => settings.stall = Some(words.value(&option, SECONDS_FROM_1)?),
                "--dry-run" => options.dry_run = true,
                "--allow-smaller" => options.allow_smaller = true,
                "--grow-last" => settings.grow_last = true,
                "--keep-signatures" => settings.keep_signatures = true,
                _ => shared_option(option, &mut words, settings, progress)?,
            },
        }
    }
    let pairs = words.pairs(operands, "TORRENT and TARGET", target)?;
    if !info_hashes.is_empty() && info_hashes.len() != pairs.len() {
        let (torrents, hashes) = (pairs.len(), info_hashes.len());
        return Err(words.error(Wrong::InfoHashCount { torrents, hashes }));
    }
    let job = |(index, (torrent, target))| Job {
        torrent,
        target,
        info_hash: info_hashes.get(index).copied(),
    };
    options.jobs = pairs.into_iter().enumerate().map(job).collect();
    Ok(Command::Get(options))
}
