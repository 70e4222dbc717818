//! When does a process start, die, or get told to leave?

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use super::agent::{Agent, Identity};
use super::disk::SimDisk;
use super::event::Happening;
use super::fake_peer::FakePeer;
use super::ids::NodeId;
use super::machine::{NodeRole, Plan};
use super::options::FakeOptions;
use super::world::{LISTEN_PORT, World};
use crate::rng::Rng;
use crate::swarm::Role;

/// A complete agent notices the end of its tracker within the grace time and so much more (issue:
/// 15 s).
const RELEASE_SLACK: Duration = Duration::from_secs(15);

impl World {
    pub fn start(&mut self, node: NodeId) {
        let NodeRole::Off(plan) = &mut self.nodes[node].role else {
            // A process that was to die and return had left by itself.
            self.still_to_start -= 1;
            return;
        };
        let plan = core::mem::replace(&mut **plan, Plan::Fake(FakeOptions::nobody()));
        let machine = &mut self.nodes[node];
        machine.life += 1;
        (machine.turn_planned, machine.settled_at) = (false, self.now);
        machine.inbox.clear();
        let life = machine.life;
        match plan {
            Plan::Agent(options, disk) => {
                self.still_to_start -= 1;
                let identity = Identity {
                    node,
                    life,
                    peers: self.peers_given(node),
                    listen_port: LISTEN_PORT,
                    tracker_grace: self.options.tracker_grace,
                    seed: self.rng.next_u64(),
                };
                let disk = disk.unwrap_or_else(|| {
                    SimDisk::new(options.disk.clone(), &self.image, &mut self.rng)
                });
                let manner = (self.options.canary, self.options.alert);
                let agent = Agent::new(self.now, &self.image, &options, identity, disk, manner);
                self.nodes[node].role = NodeRole::Agent(Box::new(agent));
                self.settle(node);
            }
            Plan::Fake(options) => {
                let fake = FakePeer::new(
                    options.manner,
                    &self.image,
                    options.rate,
                    Rng::new(self.rng.next_u64()),
                );
                self.nodes[node].role = NodeRole::Fake(Box::new(fake));
                self.queue.plan(self.now, Happening::Wakes { node, life });
            }
        }
    }

    /// What stands on the command line: without a tracker the seeder and a few others, with one
    /// nobody.
    fn peers_given(&mut self, node: NodeId) -> Vec<SocketAddr> {
        if self.options.tracker.is_some() {
            return Vec::new();
        }
        let others = self.nodes.len() as u32;
        let mut given: Vec<NodeId> = (0..5).map(|_| self.rng.below(others) as usize).collect();
        given.push(0);
        given.retain(|given| *given != node);
        given
            .into_iter()
            .map(|given| self.nodes[given].address)
            .collect()
    }

    /// The process is gone without a word, and so are its connections.
    pub fn die(&mut self, node: NodeId, power: bool) {
        let role = core::mem::replace(
            &mut self.nodes[node].role,
            NodeRole::off(Plan::Fake(FakeOptions::nobody())),
        );
        let NodeRole::Agent(agent) = role else {
            self.nodes[node].role = role;
            return;
        };
        if agent.over_at.is_some() {
            self.nodes[node].role = NodeRole::Agent(agent);
            return;
        }
        let options = Box::new(agent.options.clone());
        let progress = agent.swarm.progress();
        self.fetched_by_the_dead += progress.fetched - progress.wasted;
        self.nodes[node].role = NodeRole::off(Plan::Agent(options, Some(agent.dies(power))));
        self.hang_up_all(node);
        self.nodes[node].life += 1;
        self.see_who_is_done();
    }

    /// The tracker is gone for good. Where there is none, seeders have no reason to leave, nor has
    /// anybody while a rude peer claims to lack something; so they are told.
    pub fn stop_tracker(&mut self) {
        let now = self.now;
        self.tracker.stop(now);
        let stops_early = !self.released;
        if self.options.tracker.is_none() {
            let everybody = !self.options.fakes.is_empty();
            self.tell_to_leave(|agent| everybody || agent.options.role == Role::Seeder);
        }
        let wait = if stops_early {
            Duration::from_secs(1800)
        } else {
            Duration::ZERO
        };
        self.queue.plan(
            now + self.options.tracker_grace + RELEASE_SLACK + wait,
            Happening::Closes,
        );
    }

    fn tell_to_leave(&mut self, whom: impl Fn(&Agent) -> bool) {
        let now = self.now;
        for node in 0..self.nodes.len() {
            let life = self.nodes[node].life;
            if self.agent(node, life).is_some_and(|agent| whom(agent)) {
                self.with_agent(node, life, |agent| {
                    agent.told_to_leave = true;
                    agent.swarm.leave(now);
                });
            }
        }
    }
}
