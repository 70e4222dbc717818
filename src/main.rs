//! `swarmdd`: dd from a swarm. Which exit status, and which line on stderr, ends the program?

use std::io::Write;
use std::process::ExitCode;

mod agent;
mod cli;
mod cmd;
mod net;
mod os;
mod report;
mod storage;
mod target;

/// The exit status for a command line that was not understood.
const EXIT_USAGE: u8 = 2;

/// The exit status for a failure that the server of `--report` does not know of. Whoever started
/// the agent may tell it: init does.
const EXIT_UNTOLD: u8 = 3;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os().skip(1)) {
        Ok(command) => run(command),
        Err(error) => {
            let help = error
                .command
                .map_or(String::new(), |command| format!("{command} "));
            complain(&format!("{error}\ntry 'swarmdd {help}--help'"));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn run(command: cmd::Command) -> ExitCode {
    match cmd::run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cmd::Failure::Because(reason)) => {
            complain(&reason);
            ExitCode::FAILURE
        }
        Err(cmd::Failure::AlreadySaid) => ExitCode::FAILURE,
        Err(cmd::Failure::Untold) => ExitCode::from(EXIT_UNTOLD),
    }
}

fn complain(text: &str) {
    // If stderr is closed, the exit status still reports the failure; `eprintln!` would panic.
    let _ = writeln!(std::io::stderr(), "swarmdd: {text}");
}
