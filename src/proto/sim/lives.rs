//! How does a process start, get killed, or get told to leave?

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use super::agent::{Agent, Identity};
use super::disk::SimDisk;
use super::event::SimEvent;
use super::fake_peer::FakePeer;
use super::ids::MachineId;
use super::machine::{MachineState, Plan};
use super::options::FakeOptions;
use super::world::{World, rack_subnet};
use crate::limits::LEAVING_MAX;
use crate::rng::Rng;
use crate::swarm::Role;

/// A complete agent notices the end of its tracker within the grace time and 15 s more, and then it
/// leaves.
const RELEASE_SLACK: Duration = Duration::from_secs(15).saturating_add(LEAVING_MAX);

/// Without a tracker it calls its source to see whether it is there, and somewhere nothing answers:
/// twice CONNECT_PATIENT_MAX.
const SOURCE_SLACK: Duration = Duration::from_secs(20);

impl World {
    /// Starts what the plan of this machine says.
    pub fn start(&mut self, machine: MachineId) {
        let MachineState::Off(plan) = &mut self.machines[machine].state else {
            // The process that was to be killed and restarted had ended by itself.
            self.starts_pending -= 1;
            return;
        };
        let plan = core::mem::replace(&mut **plan, Plan::Fake(FakeOptions::placeholder()));
        let state = &mut self.machines[machine];
        state.process += 1;
        (state.loop_scheduled, state.loop_ran_at) = (false, self.now);
        state.inbox.clear();
        let process = state.process;
        match plan {
            Plan::Agent(options, disk) => {
                self.starts_pending -= 1;
                let ip = self.machines[machine].address.ip();
                let identity = Identity {
                    machine,
                    process,
                    subnets: match self.options.subnets_known {
                        true => alloc::vec![(ip, rack_subnet(options.rack).length())],
                        false => Vec::new(),
                    },
                    peers: self.peers_given(machine),
                    listen_port: self.machines[machine].address.port(),
                    tracker_grace: self.options.tracker_grace,
                    seed: self.rng.next_u64(),
                };
                let disk = disk.map_or_else(
                    || SimDisk::new(options.disk.clone(), &self.image, &mut self.rng),
                    |disk| *disk,
                );
                let modes = (
                    self.options.canary,
                    self.options.hashes,
                    self.options.read_back_distance,
                );
                let agent = Agent::new(self.now, &self.image, &options, identity, disk, modes);
                self.machines[machine].state = MachineState::Agent(Box::new(agent));
                self.run_loop(machine);
            }
            Plan::Fake(options) => {
                let fake = FakePeer::new(
                    options.behaviour,
                    &self.image,
                    options.rate,
                    Rng::new(self.rng.next_u64()),
                );
                self.machines[machine].state = MachineState::Fake(Box::new(fake));
                self.queue
                    .schedule(self.now, SimEvent::TimerFires { machine, process });
            }
        }
    }

    /// The peers on the command line of an agent: none if there is a tracker, otherwise machine 0
    /// and perhaps a few others.
    fn peers_given(&mut self, machine: MachineId) -> Vec<SocketAddr> {
        if self.options.tracker.is_some() {
            return Vec::new();
        }
        let others = self.machines.len() as u32;
        let mut given: Vec<MachineId> = (0..self.options.others_given)
            .map(|_| self.rng.below(others) as usize)
            .collect();
        given.push(0);
        given.retain(|given| *given != machine);
        given
            .into_iter()
            .map(|given| self.machines[given].address)
            .collect()
    }

    /// Ends a process without a warning. The kernel closes its connections; the disk stays.
    pub fn kill(&mut self, machine: MachineId, power_cut: bool) {
        let state = core::mem::replace(
            &mut self.machines[machine].state,
            MachineState::off(Plan::Fake(FakeOptions::placeholder())),
        );
        let MachineState::Agent(agent) = state else {
            self.machines[machine].state = state;
            return;
        };
        if agent.over_at.is_some() {
            self.machines[machine].state = MachineState::Agent(agent);
            return;
        }
        let options = Box::new(agent.options.clone());
        let progress = agent.swarm.progress();
        self.fetched_by_killed += progress.fetched - progress.unused;
        self.machines[machine].state =
            MachineState::off(Plan::Agent(options, Some(Box::new(agent.dies(power_cut)))));
        self.close_all(machine);
        self.machines[machine].process += 1;
        self.stop_tracker_when_done();
    }

    /// The tracker is gone for good. Without a tracker a seeder has no reason to leave, and with
    /// fake peers that claim to lack pieces no agent has one; those are told to leave.
    pub fn stop_tracker(&mut self) {
        let now = self.now;
        self.tracker.stop(now);
        let stops_early = !self.released;
        if self.options.tracker.is_none() {
            let all = !self.options.fakes.is_empty();
            self.tell_to_leave(|agent| all || agent.options.role == Role::Seeder);
        }
        let pauses = self
            .options
            .agents
            .iter()
            .filter(|agent| agent.stands_still);
        let ends = pauses.filter_map(|agent| agent.unplugged.map(|(from, time)| from + time));
        let still = ends.map(|end| end.since(now)).max().unwrap_or_default();
        let wait = match () {
            () if stops_early => Duration::from_secs(1800),
            () if self.options.tracker.is_none() => SOURCE_SLACK,
            () => Duration::ZERO,
        };
        self.queue.schedule(
            now + self.tracker.grace(self.options.tracker_grace) + RELEASE_SLACK + still + wait,
            SimEvent::RunEnds,
        );
    }

    fn tell_to_leave(&mut self, is_chosen: impl Fn(&Agent) -> bool) {
        let now = self.now;
        for machine in 0..self.machines.len() {
            let process = self.machines[machine].process;
            if self
                .agent(machine, process)
                .is_some_and(|agent| is_chosen(agent))
            {
                self.with_agent(machine, process, |agent| {
                    agent.told_to_leave = true;
                    agent.swarm.leave(now);
                });
            }
        }
    }
}
