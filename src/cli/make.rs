//! Which options does `swarmdd make` take?

use std::path::PathBuf;

use swarm_proto::text;

use super::error::{Fault, UsageError, Wrong};
use super::help;
use super::values::{HTTP_URL, PATH_NAME, PIECE_SIZE, PLAIN_NAME};
use super::words::{Word, Words};
use crate::cmd::Command;
use crate::cmd::make::{Options, info};

pub(super) fn parse(words: &mut Words) -> Result<Command, UsageError> {
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
                "--name" => options.name = Some(words.value(&option, PATH_NAME)?),
                "--private" => options.private = true,
                "--webseed" => options.web_seeds.push(words.value(&option, HTTP_URL)?),
                "--single" => options.single = true,
                "--skip-holes" => options.skip_holes = true,
                "--slices" => options.slices = Some(PathBuf::from(words.path(&option)?)),
                "--raw" => options.raw = true,
                "--used-map" => options.used_map = Some(PathBuf::from(words.path(&option)?)),
                "--live" => options.live = true,
                _ => return Err(words.error(Wrong::UnknownOption(option))),
            },
        }
    }
    let [source] = words.exactly(operands, ["SOURCE"])?;
    options.source = PathBuf::from(source);
    options.output = output.ok_or_else(|| words.error(Wrong::Missing("-o FILE.torrent")))?;
    // A hole within a used block holds zeros that its file system counts on.
    let excluded = match options.used_map {
        Some(_) if options.single => Some(("--single", "--used-map")),
        Some(_) if options.skip_holes => Some(("--skip-holes", "--used-map")),
        Some(_) if options.raw => Some(("--raw", "--used-map")),
        None if options.single && options.skip_holes => Some(("--single", "--skip-holes")),
        _ => None,
    };
    if let Some((one, other)) = excluded {
        return Err(words.error(Wrong::Contradiction(one, other)));
    }
    if options.single && options.slices.is_some() {
        return Err(words.error(Wrong::Contradiction("--single", "--slices")));
    }
    let name = options
        .name
        .as_ref()
        .filter(|name| text::contains(name, "/"));
    if let Some(name) = name.filter(|_| !info::is_named_so(&options.source)) {
        return Err(words.error(Wrong::BadValue {
            option: "--name".into(),
            takes: PLAIN_NAME.takes,
            given: name.clone(),
            fault: Fault::NotWhatItTakes,
        }));
    }
    Ok(Command::Make(options))
}
