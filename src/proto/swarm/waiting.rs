//! What does an incomplete agent wait for while nothing arrives?

use alloc::string::String;
use core::fmt;

use super::Swarm;
use super::interface::State;
use super::peer::{Peer, overdue};
use crate::format::metainfo::Metainfo;
use crate::limits::WAITING_AFTER;
use crate::units::Instant;

/// Why nothing arrives. Its `Display` is a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub peers: Lack,
    tracker: LastAnnounce,
}

/// Why no peer gives us data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// No address is known.
    Nobody,
    /// This number of addresses is known, and no connection to one of them has lasted.
    Unreachable(usize),
    /// This number of peers is connected, and none of them has a missing piece.
    Useless(usize),
    /// All of these peers have missing pieces and choke us.
    Choked(usize),
    /// These peers have missing pieces and send nothing.
    Silent(usize),
}

/// What became of the last announce.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum LastAnnounce {
    /// The torrent names no tracker.
    #[default]
    NoTracker,
    Pending,
    Answered,
    Refused(String),
    Unanswered(String),
}

impl LastAnnounce {
    pub(super) fn none_yet(metainfo: &Metainfo) -> LastAnnounce {
        match metainfo.trackers.is_empty() {
            true => LastAnnounce::NoTracker,
            false => LastAnnounce::Pending,
        }
    }
}

impl Swarm {
    /// What is waited for, if nothing has arrived for a while; None while data flows.
    #[must_use]
    pub fn waiting(&self, now: Instant) -> Option<Waiting> {
        let stuck =
            self.state == State::Downloading && overdue(now, self.progress_at, WAITING_AFTER);
        stuck.then(|| Waiting {
            peers: self.lack(),
            tracker: self.last_announce.clone(),
        })
    }

    fn lack(&self) -> Lack {
        let live = || self.peers.values().filter(|peer| peer.is_live());
        let useful = || live().filter(|peer| peer.has_wanted());
        match (live().count(), useful().count(), self.mesh.address_count()) {
            (0, _, 0) => Lack::Nobody,
            (0, _, addresses) => Lack::Unreachable(addresses),
            (connected, 0, _) => Lack::Useless(connected),
            (_, useful_count, _) if useful().all(Peer::chokes) => Lack::Choked(useful_count),
            (_, useful_count, _) => Lack::Silent(useful_count),
        }
    }

    /// Whether a peer that has data was ever connected, or nothing is left to fetch. Before that
    /// nothing is written: a machine that was given the wrong torrent must not lose its disk.
    pub(super) fn may_write(&mut self) -> bool {
        let has_data = |peer: &Peer| peer.is_live() && !peer.has().is_empty();
        self.met_data = self.met_data || self.peers.values().any(has_data);
        let complete = self.state == State::Downloading && self.picker.wanted().is_empty();
        self.met_data || complete
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.peers, &self.tracker) {
            (lack @ Lack::Unreachable(_), LastAnnounce::NoTracker) => lack.fmt(f),
            (lack @ (Lack::Nobody | Lack::Unreachable(_)), tracker) => {
                write!(f, "{lack}; {tracker}")
            }
            (lack, LastAnnounce::Refused(_) | LastAnnounce::Unanswered(_)) => {
                write!(f, "{lack}; {}", self.tracker)
            }
            (lack, _) => lack.fmt(f),
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lack::Nobody => f.write_str("no other peer is known"),
            Lack::Unreachable(1) => f.write_str("the only known address leads to no peer"),
            Lack::Unreachable(count) => {
                write!(f, "none of the {count} known addresses leads to a peer")
            }
            Lack::Useless(1) => f.write_str("the only connected peer has nothing that is missing"),
            Lack::Useless(count) => {
                write!(f, "none of the {count} connected peers has what is missing")
            }
            Lack::Choked(1) => f.write_str("the only peer that has what is missing chokes us"),
            Lack::Choked(count) => {
                write!(f, "all {count} peers that have what is missing choke us")
            }
            Lack::Silent(1) => f.write_str("the only peer that has what is missing sends nothing"),
            Lack::Silent(count) => {
                write!(
                    f,
                    "the {count} peers that have what is missing send nothing"
                )
            }
        }
    }
}

impl fmt::Display for LastAnnounce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LastAnnounce::NoTracker => {
                f.write_str("the torrent names no tracker, and no peer is given (--peer)")
            }
            LastAnnounce::Pending => f.write_str("the tracker has not answered yet"),
            LastAnnounce::Answered => f.write_str("the tracker answers and names no other peer"),
            LastAnnounce::Refused(why) => write!(f, "the tracker refuses: {why}"),
            LastAnnounce::Unanswered(why) => write!(f, "the tracker does not answer: {why}"),
        }
    }
}
