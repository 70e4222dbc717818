//! Which part of the agent does an event belong to?
//!
//! The token of an event is a number, and it is computed from the place of the part that it belongs
//! to: nothing has to be looked up, and a part that comes into the place of another one gets the
//! tokens of that place again. An event that still names the former part is harmless: the new one
//! finds nothing to read and nothing finished.

use mio::Token;
use swarm_proto::units::PeerSlot;

use super::place::JobIndex;

const LISTENER: usize = 0;
const SIGNALS: usize = 1;
const REPORT: usize = 2;
const CONTROL: usize = 3;
/// The first of the programs that are connected to the daemon.
const CLIENTS: usize = 4;
/// The first of the connections that have not named a torrent yet.
const NEWCOMERS: usize = CLIENTS + CLIENT_COUNT_MAX;

/// Programs that are connected to the daemon at the same time: a person, a program that watches,
/// and scripts.
pub(super) const CLIENT_COUNT_MAX: usize = 16;

/// Tokens of one job. The tokens below the first job's are those above.
const TOKENS_PER_JOB: usize = 1 << 20;
/// Within the tokens of a job:
const STORAGE: usize = 0;
const ANNOUNCE: usize = 1;
/// The first of the links to peers.
const PEERS: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Listener,
    Signals,
    /// The connection to the server of `--report`.
    Report,
    /// The socket of the daemon.
    Control,
    /// A program that is connected to the daemon.
    Client(usize),
    /// A connection that has not named a torrent yet.
    Newcomer(usize),
    Storage(JobIndex),
    Announce(JobIndex),
    Peer(JobIndex, PeerSlot),
}

impl Origin {
    pub fn token(self) -> Token {
        let of_job = |job: JobIndex, number: usize| {
            assert!(number < TOKENS_PER_JOB);
            (job.0 + 1) * TOKENS_PER_JOB + number
        };
        Token(match self {
            Origin::Listener => LISTENER,
            Origin::Signals => SIGNALS,
            Origin::Report => REPORT,
            Origin::Control => CONTROL,
            Origin::Client(index) => {
                assert!(index < CLIENT_COUNT_MAX);
                CLIENTS + index
            }
            Origin::Newcomer(index) => {
                assert!(NEWCOMERS + index < TOKENS_PER_JOB);
                NEWCOMERS + index
            }
            Origin::Storage(job) => of_job(job, STORAGE),
            Origin::Announce(job) => of_job(job, ANNOUNCE),
            Origin::Peer(job, peer) => of_job(job, PEERS + peer.index()),
        })
    }

    pub fn of(token: Token) -> Origin {
        let number = token.0 % TOKENS_PER_JOB;
        let Some(job) = (token.0 / TOKENS_PER_JOB).checked_sub(1).map(JobIndex) else {
            return match number {
                LISTENER => Origin::Listener,
                SIGNALS => Origin::Signals,
                REPORT => Origin::Report,
                CONTROL => Origin::Control,
                number if number < NEWCOMERS => Origin::Client(number - CLIENTS),
                number => Origin::Newcomer(number - NEWCOMERS),
            };
        };
        match number {
            STORAGE => Origin::Storage(job),
            ANNOUNCE => Origin::Announce(job),
            number => Origin::Peer(job, PeerSlot((number - PEERS) as u32)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_back_to_its_origin() {
        let mut origins = vec![Origin::Listener, Origin::Signals, Origin::Report];
        origins.push(Origin::Control);
        origins.extend([0, CLIENT_COUNT_MAX - 1].map(Origin::Client));
        origins.extend([0, 1, 63].map(Origin::Newcomer));
        for job in [0, 1, 400].map(JobIndex) {
            origins.extend([Origin::Storage(job), Origin::Announce(job)]);
            origins.extend([0, 1, 1000].map(|peer| Origin::Peer(job, PeerSlot(peer))));
        }
        for (index, origin) in origins.iter().enumerate() {
            assert_eq!(Origin::of(origin.token()), *origin);
            let same = |other: &Origin| other.token() == origin.token();
            assert_eq!(origins.iter().position(same), Some(index));
        }
    }
}
