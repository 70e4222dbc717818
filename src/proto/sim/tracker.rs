//! What does the tracker answer? It behaves like opentracker: its answer is random peers, which may
//! include the one that asks.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use crate::limits::{ANNOUNCE_COMPLETE, DOUBT_TIMES};
use crate::rng::Rng;
use crate::units::Instant;
use crate::wire::announce::Answer;

#[derive(Clone, Debug, Default)]
pub struct TrackerOptions {
    /// When each begins, and how long it lasts.
    pub outages: Vec<(Instant, Duration)>,
    /// One announce in this many is lost, but never two of one peer in a row. 0: none.
    pub loses_one_in: u32,
    /// One announce in this many is refused, with a dictionary or without. 0: none.
    pub refuses_one_in: u32,
    /// A proxy stands before it, and answers while the tracker is away.
    pub has_proxy: bool,
    pub peers_max: usize,
    /// It stops for good at this time, even if an agent is incomplete.
    pub stops_at: Option<Instant>,
}

#[derive(Debug)]
pub struct Tracker {
    options: TrackerOptions,
    peers: Vec<SocketAddr>,
    /// Peers whose last announce was lost.
    lost: BTreeSet<SocketAddr>,
    stopped_at: Option<Instant>,
}

impl Tracker {
    pub fn new(options: TrackerOptions) -> Tracker {
        Tracker {
            options,
            peers: Vec::new(),
            lost: BTreeSet::new(),
            stopped_at: None,
        }
    }

    pub fn stop(&mut self, now: Instant) {
        self.stopped_at.get_or_insert(now);
    }

    /// Since when the tracker has been away, if it is away. A return too short for every agent to
    /// notice does not count as one.
    pub fn away_since(&self, now: Instant) -> Option<Instant> {
        let outage = |at: Instant, unnoticed: Duration| {
            let covers = |&&(from, length): &&(Instant, Duration)| {
                from <= at && at < from + length + unnoticed
            };
            self.options
                .outages
                .iter()
                .find(covers)
                .map(|(from, _)| *from)
        };
        match self.stopped_at {
            Some(stopped_at) => Some(outage(stopped_at, ANNOUNCE_COMPLETE).unwrap_or(stopped_at)),
            None => outage(now, Duration::ZERO),
        }
    }

    /// For how long a complete agent believes that a tracker is there that is away.
    pub fn grace(&self, grace: Duration) -> Duration {
        match self.options.has_proxy {
            true => grace * DOUBT_TIMES,
            false => grace,
        }
    }

    /// Every peer that announced and has not announced `stopped` since.
    pub fn peers(&self) -> &[SocketAddr] {
        &self.peers
    }

    pub fn announce(
        &mut self,
        now: Instant,
        asker: SocketAddr,
        url: &str,
        rng: &mut Rng,
    ) -> Result<Answer, &'static str> {
        let one_in = |count: u32, rng: &mut Rng| count > 0 && rng.chance(1, count);
        let refusal = |by_tracker, rng: &mut Rng| {
            let seconds = u64::from(rng.below(ANNOUNCE_COMPLETE.as_secs() as u32));
            Ok(Answer::Refusal {
                reason: "no announces now".into(),
                retry_after: rng.chance(1, 2).then_some(Duration::from_secs(seconds)),
                by_tracker,
            })
        };
        match self.away_since(now) {
            Some(_) if self.options.has_proxy => return refusal(false, rng),
            Some(_) => return Err("connection refused"),
            None => {}
        }
        if !self.lost.remove(&asker) && one_in(self.options.loses_one_in, rng) {
            self.lost.insert(asker);
            return Err("no answer");
        }
        if one_in(self.options.refuses_one_in, rng) {
            // A proxy that refuses now and then would seem to have lost the tracker earlier.
            let by_tracker = self.options.has_proxy || rng.chance(1, 2);
            return refusal(by_tracker, rng);
        }
        let known = self.peers.iter().position(|peer| *peer == asker);
        match (known, parameter(url, "event") == Some("stopped")) {
            (Some(index), true) => drop(self.peers.swap_remove(index)),
            (None, false) => self.peers.push(asker),
            _ => {}
        }
        Ok(Answer::Peers {
            peers: self.some_peers(rng),
            warning: None,
        })
    }

    fn some_peers(&self, rng: &mut Rng) -> Vec<SocketAddr> {
        let mut peers = self.peers.clone();
        rng.shuffle(&mut peers);
        peers.truncate(self.options.peers_max);
        peers
    }
}

/// The value of a parameter of a URL.
pub fn parameter<'a>(url: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = url.split_once('?')?;
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// Panics unless an announce carries all parameters that a tracker needs.
pub fn check_url(url: &str, port: u16) {
    assert!(url.starts_with(super::image::TRACKER), "announces to {url}");
    for name in [
        "info_hash",
        "peer_id",
        "uploaded",
        "downloaded",
        "left",
        "compact",
    ] {
        assert!(parameter(url, name).is_some(), "no {name} in {url}");
    }
    let port: String = format!("{port}");
    assert_eq!(parameter(url, "port"), Some(port.as_str()));
}
