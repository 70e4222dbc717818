//! How does an announce of one job reach the tracker, and the answer the core?

use swarm_proto::limits::ANNOUNCE_BYTES_MAX;
use swarm_proto::swarm::Swarm;
use swarm_proto::units::Instant;
use swarm_proto::wire::announce::Answer;
use swarm_proto::wire::url::Url;

use super::Shared;
use super::place::JobIndex;
use super::tokens::Origin;
use crate::net::http::{Exchange, Request, TimeLimit};
use crate::os::net;

pub(super) struct Announcer {
    job: JobIndex,
    /// The announce that is on its way. The core has one at a time.
    exchange: Option<Exchange>,
}

impl Announcer {
    pub fn new(job: JobIndex) -> Announcer {
        Announcer {
            job,
            exchange: None,
        }
    }

    /// Starts the announce that the core asks for; false if it asks for none.
    pub fn start(&mut self, core: &mut Swarm, shared: &mut Shared, now: Instant) -> bool {
        if self.exchange.is_some() {
            return false;
        }
        let Some(url) = core.poll_announce(now) else {
            return false;
        };
        // An interface may have come up since the last time.
        core.handle_subnets(&net::own_subnets());
        let (bytes_max, limit) = (ANNOUNCE_BYTES_MAX, TimeLimit::Total);
        match Url::parse(&url) {
            Ok(url) => {
                let exchange = Exchange::new(url, Request::Get, bytes_max, limit, now);
                self.exchange = Some(exchange);
                self.advance(core, shared, now);
            }
            Err(error) => core.handle_announced(now, Err(error.to_string())),
        }
        true
    }

    /// Goes on after an event or at the `deadline`.
    pub fn advance(&mut self, core: &mut Swarm, shared: &mut Shared, now: Instant) {
        let Some(exchange) = &mut self.exchange else {
            return;
        };
        let (registry, token) = (shared.poll.registry(), Origin::Announce(self.job).token());
        let Some(result) = exchange.advance(registry, token, &mut shared.resolver, now) else {
            return;
        };
        self.exchange = None;
        let answer = match result {
            Ok(response) => Ok(Answer::of(&response)),
            Err(error) if error.is_answer() => Ok(Answer::Refusal {
                reason: error.to_string(),
                retry_after: None,
                by_tracker: false,
            }),
            Err(error) => Err(error.to_string()),
        };
        core.handle_announced(now, answer);
    }

    /// When `advance` is called at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.exchange.as_ref().map(Exchange::deadline)
    }
}
