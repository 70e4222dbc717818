//! Is an event that an agent reports true, and may the agent leave?

use alloc::format;
use core::net::IpAddr;
use core::time::Duration;

use super::agent::Agent;
use super::disk::DiskFault;
use super::ids::MachineId;
use super::machine::{MachineState, Plan};
use super::world::World;
use crate::limits::{ANNOUNCE_RETRY_MAX, HTTP_TIMEOUT, SLOW_UPLOAD_MAX};
use crate::swarm::{Event, Failure, Outcome, Role, State};
use crate::units::Instant;

impl World {
    /// A peer that an agent reports as a liar must be one, and so must a disk.
    pub fn check_event(&mut self, machine: MachineId, event: &Event) {
        self.trace(|| format!("{machine}: {event}"));
        self.log_word(format!("{event}").len() as u64);
        let MachineState::Agent(agent) = &self.machines[machine].state else {
            unreachable!("only agents report events")
        };
        let is_true = match event {
            Event::PieceBad {
                liar: Some(address),
                ..
            }
            | Event::BlockBad { liar: address, .. } => self.may_be_a_liar(address.ip()),
            Event::ReadBackBad { piece, .. } => {
                agent.has_lying_disk() && agent.checker.has_lost(*piece)
            }
            Event::SourceBad {
                piece, error: None, ..
            } => !agent.holds(*piece),
            Event::TargetBad { .. } => agent.options.disk.fault != DiskFault::None,
            Event::SourceBad { error: Some(_), .. } => agent.checker.first_error.is_some(),
            _ => true,
        };
        assert!(
            is_true,
            "machine {machine} reports what is not true: {event}"
        );
        self.read_back_bad += u32::from(matches!(event, Event::ReadBackBad { .. }));
        self.sources_bad += u32::from(matches!(event, Event::SourceBad { .. }));
    }

    /// Whether a machine of this address may send bad data.
    fn may_be_a_liar(&self, ip: IpAddr) -> bool {
        let lies = |state: &MachineState| match state {
            MachineState::Agent(agent) => agent.has_lying_disk(),
            MachineState::Off(plan) => match &**plan {
                Plan::Agent(options, _) => options.has_lying_disk(),
                Plan::Fake(_) => true,
            },
            MachineState::Fake(_) => true,
        };
        let mut machines = self.machines.iter();
        machines.any(|machine| machine.address.ip() == ip && lies(&machine.state))
    }

    /// An agent begins to leave: its reason must be true.
    pub fn check_leaving(&self, machine: MachineId, away_since: Option<Instant>) {
        let MachineState::Agent(agent) = &self.machines[machine].state else {
            unreachable!("only agents leave")
        };
        let (State::Leaving(outcome) | State::Over(outcome)) = agent.swarm.state() else {
            unreachable!("it leaves")
        };
        match outcome {
            Outcome::Interrupted => {
                assert!(
                    agent.told_to_leave,
                    "nobody told machine {machine} to leave"
                )
            }
            Outcome::Failed(Failure::Disk(_)) => {
                assert!(
                    agent.checker.first_error.is_some(),
                    "no I/O error on machine {machine}"
                )
            }
            Outcome::Failed(Failure::ReadBack { .. }) => {
                assert!(
                    agent.has_lying_disk(),
                    "machine {machine} finds its good disk bad: {outcome:?}"
                );
            }
            Outcome::Failed(Failure::NothingToServe) => {
                assert!(
                    agent.checker.has_nothing(),
                    "machine {machine} has something to serve"
                )
            }
            Outcome::Failed(Failure::Stalled(_)) => {
                panic!("nobody asked machine {machine} to give up")
            }
            Outcome::Complete if agent.told_to_leave => {}
            Outcome::Complete => {
                let complete_at = agent.complete_at.unwrap_or(self.now);
                // The agent knows of it up to one round before it is checked.
                let seeded = self.now.since(complete_at) + self.options.loop_time;
                // To the agent the tracker is away since an announce that was lost just before.
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
                    _ if self.has_reached_a_limit(agent, seeded) => true,
                    Some(limit) => seeded >= limit,
                    None if self.options.tracker.is_none() => {
                        seeded >= grace || self.seed_gone(grace)
                    }
                    // If announces fail before and after a pause of it, it counts the pause.
                    None => away >= self.tracker.grace(grace) || agent.options.stands_still,
                };
                assert!(
                    may,
                    "machine {machine} leaves after seeding {seeded:?}, with the tracker away for {away:?}"
                );
            }
        }
    }
}

impl World {
    /// Agent 0 has been gone for this time.
    fn seed_gone(&self, time: Duration) -> bool {
        let MachineState::Agent(seed) = &self.machines[0].state else {
            unreachable!("nothing happens to agent 0")
        };
        seed.over_at
            .is_some_and(|at| self.now.since(at) + self.options.loop_time >= time)
    }

    /// One of the limits of this agent, which has been complete for `seeded`, is reached.
    fn has_reached_a_limit(&self, agent: &Agent, seeded: Duration) -> bool {
        let limits = agent.options.limits;
        let ago = |at: Instant| self.now.since(at);
        let idle = agent
            .sends
            .back()
            .map_or(seeded, |(at, _)| seeded.min(ago(*at)));
        let lately = agent
            .sends
            .iter()
            .filter(|(at, _)| ago(*at) < SLOW_UPLOAD_MAX);
        let sent: u64 = lately.map(|(_, bytes)| u64::from(*bytes)).sum();
        let is_slow =
            |rate: u64| seeded >= SLOW_UPLOAD_MAX && sent < rate * SLOW_UPLOAD_MAX.as_secs();
        let times = |ratio: u32| u128::from(ratio) * u128::from(self.image.bytes);
        limits.min_upload.is_some_and(is_slow)
            || limits
                .idle
                .is_some_and(|limit| idle + self.options.loop_time >= limit)
            || limits
                .ratio
                .is_some_and(|ratio| u128::from(agent.checker.uploaded) * 1000 >= times(ratio))
    }
}

/// Every agent has ended as it must.
pub fn check_end(world: &World) {
    let stops_early = world
        .options
        .tracker
        .as_ref()
        .is_some_and(|tracker| tracker.stops_at.is_some());
    for agent in world.agents() {
        let state = agent.swarm.state();
        match (agent.options.disk.fault, agent.outcome()) {
            // An agent that nobody can complete waits, and does not leave.
            (_, None) if stops_early && *state == State::Downloading => continue,
            // A seeder that never saw the tracker still waits for it.
            (_, None) if agent.options.role == Role::Seeder && !agent.met_tracker => continue,
            (_, None) => panic!(
                "machine {} has not left:\n{}",
                agent.machine,
                world.describe()
            ),
            (_, Some(Outcome::Interrupted)) => {
                assert!(
                    agent.told_to_leave,
                    "machine {} left unasked",
                    agent.machine
                )
            }
            (DiskFault::None, Some(Outcome::Failed(failure)))
                if *failure != Failure::NothingToServe =>
            {
                panic!(
                    "machine {} failed with a good disk: {failure}",
                    agent.machine
                )
            }
            // Checked when the agent began to leave.
            (_, Some(Outcome::Complete | Outcome::Failed(_))) => {}
        }
    }
}
