//! Which code runs for which command, and how a command says that it failed.

use std::io::Write;

use crate::cli::Command;

pub mod disks;

/// The command ends with exit status 1.
#[derive(Debug)]
pub enum Failure {
    /// The reason stands on stderr already, one line for each target that failed.
    AlreadySaid,
    /// The one line that stderr still has to get.
    Because(String),
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Because(error.to_string())
    }
}

pub fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Help(text) => say(text),
        Command::Version => say(concat!("swarmdd ", env!("CARGO_PKG_VERSION"), "\n")),
        _ => return Err(Failure::Because("this command is not built yet".into())),
    }
    Ok(())
}

/// What was asked for goes to stdout; where nobody reads it (`swarmdd info x | head -1`), nothing is lost.
pub fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
