//! `swarmdd`: dd from a swarm. Which exit status, and which line on stderr, ends the program?

#![cfg_attr(not(test), no_main)]

use std::ffi::OsString;

mod agent;
mod cli;
mod cmd;
mod net;
mod os;
mod report;
mod storage;
mod target;

const EXIT_SUCCESS: u8 = 0;
const EXIT_FAILURE: u8 = 1;

/// The exit status for a command line that was not understood.
const EXIT_USAGE: u8 = 2;

/// The exit status for a failure that the server of `--report` does not know of. Whoever started
/// the agent may tell it: init does.
const EXIT_UNTOLD: u8 = 3;

os::start::start!(main_with);

/// Returns the exit status.
fn main_with(words: Vec<OsString>) -> u8 {
    match cli::parse(words) {
        Ok(command) => run(command),
        Err(error) => {
            let help = error
                .command
                .map_or(String::new(), |command| format!("{command} "));
            os::tty::complain(&format!("{error}\ntry 'swarmdd {help}--help'"));
            EXIT_USAGE
        }
    }
}

fn run(command: cmd::Command) -> u8 {
    match cmd::run(command) {
        Ok(()) => EXIT_SUCCESS,
        Err(cmd::Failure::Because(reason)) => {
            os::tty::complain(&reason);
            EXIT_FAILURE
        }
        Err(cmd::Failure::AlreadySaid) => EXIT_FAILURE,
        Err(cmd::Failure::Untold) => EXIT_UNTOLD,
    }
}
