//! What is the next word of the command line: an option, its value, or an operand?
//!
//! lexopt splits the words. This file adds the command they belong to, for the error messages.

use std::ffi::OsString;

use super::error::{Fault, UsageError, Wrong, lossy};
use super::values::{Value, torrent_place};
use crate::net::torrent::TorrentPlace;

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
    pub(super) fn of_command(self, command: &'static str) -> Words {
        Words {
            command: Some(command),
            ..self
        }
    }

    pub(super) fn error(&self, wrong: Wrong) -> UsageError {
        UsageError {
            command: self.command,
            wrong,
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<Word>, UsageError> {
        let command = self.command;
        match self.parser.next() {
            Ok(None) => Ok(None),
            Ok(Some(lexopt::Arg::Short(letter))) => Ok(Some(Word::Option(format!("-{letter}")))),
            Ok(Some(lexopt::Arg::Long(name))) => Ok(Some(Word::Option(format!("--{name}")))),
            Ok(Some(lexopt::Arg::Value(operand))) => Ok(Some(Word::Operand(operand))),
            Err(error) => Err(UsageError {
                command,
                wrong: wrong(error),
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
        let text = given.to_str();
        text.and_then(value.convert).ok_or_else(|| {
            self.error(Wrong::BadValue {
                option: option.to_string(),
                takes: value.takes,
                fault: text.map_or(Fault::NotWhatItTakes, Fault::of_text),
                given: lossy(given.clone()),
            })
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

    /// The operands as pairs of a torrent and what `second` makes of the word after it.
    pub(super) fn pairs<T>(
        &self,
        operands: Vec<OsString>,
        names: &'static str,
        second: impl Fn(OsString) -> Result<T, Wrong>,
    ) -> Result<Vec<(TorrentPlace, T)>, UsageError> {
        if operands.is_empty() {
            return Err(self.error(Wrong::Missing(names)));
        }
        let mut words = Vec::new();
        let mut operands = operands.into_iter();
        while let Some(torrent) = operands.next() {
            let Some(partner) = operands.next() else {
                return Err(self.error(Wrong::OddPairs {
                    pairs: names,
                    unpaired: lossy(torrent),
                }));
            };
            words.push((
                torrent_place(torrent).map_err(|wrong| self.error(wrong))?,
                partner,
            ));
        }
        let pair = |(torrent, partner)| Ok((torrent, second(partner)?));
        let pairs: Result<Vec<_>, Wrong> = words.into_iter().map(pair).collect();
        pairs.map_err(|wrong| self.error(wrong))
    }
}

/// An error of lexopt: `Parser::next` can only find a value that follows an option without one.
fn wrong(error: lexopt::Error) -> Wrong {
    match error {
        lexopt::Error::UnexpectedValue { option, .. } => Wrong::UnexpectedValue(option),
        _ => unreachable!("Parser::next has no other error"),
    }
}
