//! What is wrong with a command line, and which sentence tells the user?

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;

use swarm_proto::wire::url::{Url, UrlError};

use crate::target::GrammarError;

/// What is wrong with the command line, and after which command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError {
    /// `None` if the mistake stands before the command.
    pub command: Option<&'static str>,
    /// Boxed, since nearly every line of the parsers passes an error on.
    pub(super) wrong: Box<Wrong>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    BadTarget(GrammarError),
    BadOperand {
        takes: &'static str,
        given: String,
        fault: Fault,
    },
    BadValue {
        option: String,
        takes: &'static str,
        given: String,
        fault: Fault,
    },
    Contradiction(&'static str, &'static str),
    InfoHashCount {
        torrents: usize,
        hashes: usize,
    },
    Missing(&'static str),
    MissingValue(String),
    NoCommand,
    NotADevice(String),
    OddPairs {
        pairs: &'static str,
        unpaired: String,
    },
    PeerOutside(SocketAddr),
    TargetTwice(String),
    TooMany(String),
    UnexpectedValue(String),
    UnknownCommand(String),
    UnknownOption(String),
}

/// What exactly is wrong with a value, where "takes this, not that" does not say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Magnet,
    NotWhatItTakes,
    Url(UrlError),
}

impl Fault {
    /// What a text that is neither a URL nor a file was probably meant to be.
    pub(super) fn of_text(text: &str) -> Fault {
        match Url::parse(text) {
            _ if is_magnet(text) => Fault::Magnet,
            Err(error @ UrlError::Character(_)) => Fault::Url(error),
            _ => Fault::NotWhatItTakes,
        }
    }

    /// Another scheme than `http://` needs no further words: that scheme is what is expected.
    pub(super) fn of_url(error: UrlError) -> Fault {
        match error {
            UrlError::NotHttp(_) | UrlError::Https => Fault::NotWhatItTakes,
            error => Fault::Url(error),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Magnet => f.write_str(
                ": a magnet link has no hashes of pieces, and nobody here would send them",
            ),
            Fault::NotWhatItTakes => Ok(()),
            Fault::Url(error) => write!(f, ": {error}"),
        }
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(command) = self.command {
            write!(f, "{command}: ")?;
        }
        match &*self.wrong {
            Wrong::BadTarget(error) => error.fmt(f),
            Wrong::BadOperand {
                takes,
                given,
                fault,
            } => write!(f, "expected {takes}, not '{given}'{fault}"),
            Wrong::BadValue {
                option,
                takes,
                given,
                fault,
            } => write!(f, "{option} takes {takes}, not '{given}'{fault}"),
            Wrong::Contradiction(one, other) => write!(f, "{one} and {other} exclude each other"),
            Wrong::InfoHashCount { torrents, hashes } => write!(
                f,
                "--info-hash goes once with each torrent: {torrents} expected, {hashes} given"
            ),
            Wrong::Missing(what) => write!(f, "{what} expected"),
            Wrong::MissingValue(option) => write!(f, "{option} takes a value"),
            Wrong::NoCommand => {
                f.write_str("a command is expected: get, seed, daemon, make, verify, info or disks")
            }
            Wrong::NotADevice(target) => write!(
                f,
                "target {target} is no device: a name below /dev such as /dev/sda, or disk:auto"
            ),
            Wrong::OddPairs { pairs, unpaired } => {
                write!(f, "{pairs} go in pairs, '{unpaired}' has no partner")
            }
            Wrong::PeerOutside(peer) => write!(f, "--peer {peer} is in no subnet of --allow"),
            Wrong::TargetTwice(target) => write!(f, "target {target} is given twice"),
            Wrong::TooMany(word) => write!(f, "nothing was expected here, not '{word}'"),
            Wrong::UnexpectedValue(option) => write!(f, "{option} takes no value"),
            Wrong::UnknownCommand(word) => write!(
                f,
                "no command '{word}'; there are get, seed, daemon, make, verify, info and disks"
            ),
            Wrong::UnknownOption(option) => write!(f, "no option {option}"),
        }
    }
}

pub(super) fn is_magnet(text: &str) -> bool {
    text.get(..7)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("magnet:"))
}

/// What was typed, for a message. It may not be UTF-8.
pub(super) fn lossy(text: OsString) -> String {
    text.to_string_lossy().into_owned()
}
