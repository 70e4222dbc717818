//! What does the tracker tell us, and what do we tell it?

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::Swarm;
use super::interface::*;
use super::peer::Peer;
use super::waiting::LastAnnounce;
use crate::limits::{ADDRESSES_MAX, NUMWANT};
use crate::policy::mesh::AddressSource;
use crate::policy::tracker::Need;
use crate::units::*;
use crate::wire::announce::{AnnounceRequest, Answer, Event as AnnounceEvent};

impl Swarm {
    /// A URL to GET. The answer goes to `handle_announced`; before that there is no other URL.
    #[must_use]
    pub fn poll_announce(&mut self, now: Instant) -> Option<String> {
        let need = self.need()?;
        // The shell asks in every turn of its loop, and `left_bytes` passes over all pieces.
        self.tracker.next(need).filter(|due| *due <= now)?;
        let left = self.left_bytes();
        let (tracker, event) = self.tracker.poll(now, need)?;
        let request = AnnounceRequest {
            info_hash: self.metainfo.info_hash,
            peer_id: self.config.peer_id,
            port: self.config.listen_port,
            uploaded: self.traffic.uploaded(),
            downloaded: self.traffic.useful(),
            left,
            event,
            numwant: match event {
                AnnounceEvent::Stopped => 0,
                _ => NUMWANT,
            },
            key: self.announce_key,
        };
        Some(request.url(tracker))
    }

    /// What we need from the tracker; None if it has nothing more to hear from us.
    pub(super) fn need(&self) -> Option<Need> {
        match self.state {
            State::Over(_) => None,
            // An agent that has announced `stopped` does not come back, however long the disk takes
            // to flush.
            State::Leaving(_) if self.tracker.said_stopped() => None,
            State::Seeding | State::Leaving(_) => Some(Need::Complete),
            State::Scanning | State::Downloading | State::Verifying => {
                let connected = self.peers.values().any(Peer::is_live);
                Some(if connected {
                    Need::Incomplete
                } else {
                    Need::Alone
                })
            }
        }
    }

    /// Bytes that are not yet on the disk and verified (BEP 3 `left`): 0 only after the read-back.
    pub(super) fn left_bytes(&self) -> u64 {
        let layout = &self.metainfo.layout;
        let length = |piece| u64::from(layout.piece_length(piece));
        match () {
            () if self.leaving.is_complete() => 0,
            () if self.have().is_full() => u64::from(layout.piece_bytes()),
            () => self.have().missing().map(length).sum(),
        }
    }

    /// The tracker's answer, or why there is none.
    pub fn handle_announced(&mut self, now: Instant, answer: Result<Answer, String>) {
        let was_lost = self.tracker.unreachable_since().is_some();
        match answer {
            Ok(Answer::Peers { peers, warning, .. }) => {
                self.tracker.answered(now);
                self.last_announce = LastAnnounce::Answered;
                self.learn(now, peers);
                self.find_place();
                if let Some(text) = warning
                    && self.warning.as_ref() != Some(&text)
                {
                    self.warning = Some(text.clone());
                    self.tell(Event::TrackerWarned(text));
                }
            }
            Ok(Answer::Refusal {
                reason,
                retry_after,
                by_tracker,
            }) => {
                self.tracker.refused(now, retry_after, by_tracker);
                self.tell_refusal(reason);
            }
            Err(text) => {
                self.tracker.failed(now);
                self.last_announce = LastAnnounce::Unanswered(text.clone());
                if !was_lost && self.tracker.unreachable_since().is_some() {
                    let left = self.leaves_in(now).map(Event::JobEnded);
                    self.tell(left.unwrap_or(Event::TrackerLost(text)));
                }
            }
        }
        if was_lost && self.tracker.unreachable_since().is_none() {
            self.tell(Event::TrackerBack);
        }
        self.leave_if_done(now);
        self.try_to_leave(now);
    }

    /// A random part of the addresses, if they are more than can be kept.
    fn learn(&mut self, now: Instant, mut addresses: Vec<SocketAddr>) {
        self.rng.shuffle(&mut addresses);
        for address in addresses.into_iter().take(ADDRESSES_MAX) {
            self.mesh.learn(now, address, AddressSource::Tracker);
        }
    }

    /// A tracker that refuses is asked every few seconds, and one line in the log is enough.
    fn tell_refusal(&mut self, reason: String) {
        let refused = LastAnnounce::Refused(reason.clone());
        if self.last_announce != refused {
            self.last_announce = refused;
            self.tell(Event::TrackerRefused(reason));
        }
    }
}
