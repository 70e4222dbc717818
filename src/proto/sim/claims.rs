//! Is what an agent reports true, and may it leave?

use alloc::format;
use core::net::IpAddr;
use core::time::Duration;

use super::disk::DiskFault;
use super::ids::NodeId;
use super::machine::{NodeRole, Plan};
use super::world::World;
use crate::limits::{ANNOUNCE_RETRY_MAX, HTTP_TIMEOUT};
use crate::swarm::{Event, Failure, Outcome, Role, State};
use crate::units::Instant;

impl World {
    /// Whom an agent calls a liar must be one, and so must a disk.
    pub fn judge_event(&mut self, node: NodeId, event: &Event) {
        self.trace(|| format!("{node}: {event}"));
        self.mix(format!("{event}").len() as u64);
        let NodeRole::Agent(agent) = &self.nodes[node].role else {
            unreachable!("agents tell")
        };
        let is_true = match event {
            Event::PieceBad {
                liar: Some(address),
                ..
            } => self.may_be_a_liar(address.ip()),
            Event::ReadBackBad { piece, .. } => {
                agent.has_lying_disk() && agent.ledger.has_lost(*piece)
            }
            Event::SourceBad {
                piece, error: None, ..
            } => !agent.holds(*piece),
            Event::TargetBad { .. } => agent.options.disk.fault != DiskFault::None,
            Event::SourceBad { error: Some(_), .. } => agent.ledger.first_error.is_some(),
            _ => true,
        };
        assert!(is_true, "machine {node} tells what is not so: {event}");
        self.read_back_bad += u32::from(matches!(event, Event::ReadBackBad { .. }));
        self.sources_bad += u32::from(matches!(event, Event::SourceBad { .. }));
    }

    fn may_be_a_liar(&self, ip: IpAddr) -> bool {
        let culprit = self.nodes.iter().find(|node| node.address.ip() == ip);
        match culprit.map(|node| &node.role) {
            Some(NodeRole::Agent(agent)) => agent.has_lying_disk(),
            Some(NodeRole::Off(plan)) => match &**plan {
                Plan::Agent(options, _) => options.has_lying_disk(),
                Plan::Fake(_) => true,
            },
            _ => true,
        }
    }

    /// May it leave, and why?
    pub fn judge_leaving(&self, node: NodeId, away_since: Option<Instant>) {
        let NodeRole::Agent(agent) = &self.nodes[node].role else {
            unreachable!("agents leave")
        };
        let (State::Leaving(outcome) | State::Over(outcome)) = agent.swarm.state() else {
            unreachable!("it leaves")
        };
        match outcome {
            Outcome::Interrupted => {
                assert!(agent.told_to_leave, "nobody told machine {node} to leave")
            }
            Outcome::Failed(Failure::Disk(_)) => {
                assert!(
                    agent.ledger.first_error.is_some(),
                    "no I/O error on machine {node}"
                )
            }
            Outcome::Failed(Failure::ReadBack { .. }) => {
                assert!(
                    agent.has_lying_disk(),
                    "machine {node} finds its good disk bad: {outcome:?}"
                );
            }
            Outcome::Failed(Failure::NothingToServe) => {
                assert!(
                    agent.ledger.has_nothing(),
                    "machine {node} has something to serve"
                )
            }
            Outcome::Failed(Failure::Stalled(_)) => {
                panic!("nobody asked machine {node} to give up")
            }
            Outcome::Complete if agent.told_to_leave => {}
            Outcome::Complete => {
                let complete_at = agent.complete_at.unwrap_or(self.now);
                // It knows a turn before we look.
                let seeded = self.now.since(complete_at) + self.options.turn;
                // An announce that was lost just before the tracker went counts as well.
                let loses = self
                    .options
                    .tracker
                    .as_ref()
                    .is_some_and(|tracker| tracker.loses_one_in > 0);
                let lost = if loses {
                    HTTP_TIMEOUT + ANNOUNCE_RETRY_MAX
                } else {
                    Duration::ZERO
                };
                let away = away_since.map_or(Duration::ZERO, |since| self.now.since(since) + lost);
                let grace = self.options.tracker_grace;
                let may = match agent.options.seed_for {
                    Some(limit) => seeded >= limit,
                    None if self.options.tracker.is_none() => seeded >= grace,
                    None => away >= grace,
                };
                assert!(
                    may,
                    "machine {node} leaves after seeding {seeded:?}, with the tracker away for {away:?}"
                );
            }
        }
    }
}

/// Everybody has ended as it must.
pub fn check_end(world: &World) {
    let stops_early = world
        .options
        .tracker
        .as_ref()
        .is_some_and(|tracker| tracker.stops_at.is_some());
    for agent in world.agents() {
        let state = agent.swarm.state();
        match (agent.options.disk.fault, agent.outcome()) {
            // Whoever was left alone with too little waits, and does not leave.
            (_, None) if stops_early && *state == State::Downloading => continue,
            // A seeder that never saw the tracker still waits for it.
            (_, None) if agent.options.role == Role::Seeder && !agent.met_tracker => continue,
            (_, None) => panic!("machine {} has not left:\n{}", agent.node, world.picture()),
            (_, Some(Outcome::Interrupted)) => {
                assert!(agent.told_to_leave, "machine {} left unasked", agent.node)
            }
            (DiskFault::None, Some(Outcome::Failed(failure)))
                if *failure != Failure::NothingToServe =>
            {
                panic!("machine {} failed with a good disk: {failure}", agent.node)
            }
            // What it was allowed to say was looked at when it said it.
            (_, Some(Outcome::Complete | Outcome::Failed(_))) => {}
        }
    }
}
