//! Which options does `swarmdd make` take?

use std::path::PathBuf;

use super::error::{UsageError, Wrong};
use super::help;
use super::values::{HTTP_URL, PIECE_SIZE, PLAIN_NAME};
use super::words::{Word, Words};
use crate::cmd::Command;
use crate::cmd::make::Options;

pub(super) fn parse(mut words: Words) -> Result<Command, UsageError> {
    let mut options = Options::default();
    let mut output = None;
    let mut operands = Vec::new();
    while let Some(word) = words.next()? {
        match word {
            Word::Operand(operand) => operands.push(operand),
            Word::Option(option) => match option.as_str() {
                "-h" | "--help" => return Ok(Command::Help(help::MAKE)),
                "-o" | "--output" => output = Some(PathBuf::from(words.path(&option)?)),
                "--tracker" => options.trackers.push(words.value(&option, HTTP_URL)?),
                "--piece-size" => options.piece_bytes = Some(words.value(&option, PIECE_SIZE)?),
                "--name" => options.name = Some(words.value(&option, PLAIN_NAME)?),
                "--private" => options.private = true,
                "--webseed" => options.web_seeds.push(words.value(&option, HTTP_URL)?),
                "--single" => options.single = true,
                "--skip-holes" => options.skip_holes = true,
                "--raw" => options.raw = true,
                "--live" => options.live = true,
                _ => return Err(words.error(Wrong::UnknownOption(option))),
            },
        }
    }
    let [source] = words.exactly(operands, ["SOURCE"])?;
    options.source = PathBuf::from(source);
    options.output = output.ok_or_else(|| words.error(Wrong::Missing("-o FILE.torrent")))?;
    if options.single && options.skip_holes {
        return Err(words.error(Wrong::Contradiction("--single", "--skip-holes")));
    }
    Ok(Command::Make(options))
}
