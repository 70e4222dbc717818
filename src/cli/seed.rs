//! Which options does `swarmdd seed` take?

use std::path::PathBuf;

use super::error::UsageError;
use super::help;
use super::swarm::{check_peers, shared_option};
use super::words::{Word, Words};
use crate::agent::Settings;
use crate::cmd::Command;
use crate::cmd::seed::{Job, Options};
use crate::report::Mode;

pub(super) fn parse(words: &mut Words) -> Result<Command, UsageError> {
    let mut options = Options {
        jobs: Vec::new(),
        settings: Settings::default(),
        progress: Mode::Auto,
        report: None,
        check: false,
    };
    let mut operands = Vec::new();
    while let Some(word) = words.next()? {
        match word {
            Word::Operand(operand) => operands.push(operand),
            Word::Option(option) => match option.as_str() {
                "-h" | "--help" => return Ok(Command::Help(help::SEED)),
                "--check" => options.check = true,
                _ => shared_option(
                    option,
                    words,
                    &mut options.settings,
                    &mut options.progress,
                    &mut options.report,
                )?,
            },
        }
    }
    check_peers(&options.settings, words)?;
    for (torrent, source) in words.pairs(operands, "TORRENT and SOURCE")? {
        let source = PathBuf::from(source);
        options.jobs.push(Job { torrent, source });
    }
    Ok(Command::Seed(options))
}
