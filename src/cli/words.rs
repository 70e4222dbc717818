//! What is the next word of the command line: an option, its value, or an operand?
//!
//! lexopt splits the words. This file adds the command they belong to, for the error messages.

use std::ffi::OsString;

use super::error::{Fault, UsageError, Wrong, lossy};
use super::values::{Value, target, torrent_place};
use crate::net::torrent::TorrentPlace;
use crate::target::Target;

/// The words that are still to be read, and the command they belong to.
pub(super) struct Words {
    command: Option<&'static str>,
    parser: lexopt::Parser,
}

pub(super) enum Word {
    /// With its dashes, as it was typed.
    Option(String),
    Operand(OsString),
}

impl Words {
    pub(super) fn new(args: impl IntoIterator<Item = OsString>) -> Words {
        Words {
            command: None,
            parser: lexopt::Parser::from_args(args),
        }
    }

    /// The same words, now that the command is known.
    pub(super) fn of_command(&mut self, command: &'static str) -> &mut Words {
        self.command = Some(command);
        self
    }

    pub(super) fn error(&self, wrong: Wrong) -> UsageError {
        UsageError {
            command: self.command,
            wrong: Box::new(wrong),
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<Word>, UsageError> {
        match self.parser.next() {
            Ok(None) => Ok(None),
            Ok(Some(lexopt::Arg::Short(letter))) => Ok(Some(Word::Option(format!("-{letter}")))),
            Ok(Some(lexopt::Arg::Long(name))) => Ok(Some(Word::Option(format!("--{name}")))),
            Ok(Some(lexopt::Arg::Value(operand))) => Ok(Some(Word::Operand(operand))),
            Err(error) => Err(UsageError {
                command: self.command,
                wrong: Box::new(wrong(error)),
            }),
        }
    }

    /// The value of `option`, in any encoding.
    pub(super) fn path(&mut self, option: &str) -> Result<OsString, UsageError> {
        self.parser
            .value()
            .map_err(|_| self.error(Wrong::MissingValue(option.to_string())))
    }

    /// The value of `option`, converted.
    pub(super) fn value<T>(&mut self, option: &str, value: Value<T>) -> Result<T, UsageError> {
        let given = self.path(option)?;
        match given.to_str().and_then(value.convert) {
            Some(value) => Ok(value),
            None => Err(self.bad_value(option, value.takes, given)),
        }
    }

    fn bad_value(&self, option: &str, takes: &'static str, given: OsString) -> UsageError {
        let text = given.to_str();
        self.error(Wrong::BadValue {
            option: option.to_string(),
            takes,
            fault: text.map_or(Fault::NotWhatItTakes, Fault::of_text),
            given: lossy(given),
        })
    }

    /// All operands of a command whose only option is `--help`; `None` if that option was given.
    pub(super) fn operands_only(&mut self) -> Result<Option<Vec<OsString>>, UsageError> {
        let mut operands = Vec::new();
        while let Some(word) = self.next()? {
            match word {
                Word::Operand(operand) => operands.push(operand),
                Word::Option(name) if name == "-h" || name == "--help" => return Ok(None),
                Word::Option(name) => return Err(self.error(Wrong::UnknownOption(name))),
            }
        }
        Ok(Some(operands))
    }

    /// The operands, if they are one for each of `names`.
    pub(super) fn exactly<const N: usize>(
        &self,
        operands: Vec<OsString>,
        names: [&'static str; N],
    ) -> Result<[OsString; N], UsageError> {
        let error = |operands: Vec<OsString>| match names.get(operands.len()) {
            Some(missing) => self.error(Wrong::Missing(missing)),
            None => self.error(Wrong::TooMany(lossy(
                operands.into_iter().nth(N).unwrap_or_default(),
            ))),
        };
        operands.try_into().map_err(error)
    }

    /// The operands as pairs of a torrent and the word after it.
    pub(super) fn pairs(
        &self,
        operands: Vec<OsString>,
        names: &'static str,
    ) -> Result<Vec<(TorrentPlace, OsString)>, UsageError> {
        if operands.is_empty() {
            return Err(self.error(Wrong::Missing(names)));
        }
        let mut pairs = Vec::new();
        let mut operands = operands.into_iter();
        while let Some(torrent) = operands.next() {
            let Some(partner) = operands.next() else {
                return Err(self.error(Wrong::OddPairs {
                    pairs: names,
                    unpaired: lossy(torrent),
                }));
            };
            pairs.push((self.torrent(torrent)?, partner));
        }
        Ok(pairs)
    }

    pub(super) fn torrent(&self, operand: OsString) -> Result<TorrentPlace, UsageError> {
        torrent_place(operand).map_err(|wrong| self.error(wrong))
    }

    pub(super) fn target(&self, operand: OsString) -> Result<Target, UsageError> {
        target(operand).map_err(|wrong| self.error(wrong))
    }
}

/// An error of lexopt: `Parser::next` can only find a value that follows an option without one.
fn wrong(error: lexopt::Error) -> Wrong {
    match error {
        lexopt::Error::UnexpectedValue { option, .. } => Wrong::UnexpectedValue(option),
        _ => unreachable!("Parser::next has no other error"),
    }
}
