//! How is a connection opened and closed?

use core::net::SocketAddr;

use super::event::SimEvent;
use super::ids::{EndId, MachineId};
use super::machine::MachineState;
use super::packet::Packet;
use super::random::random_up_to;
use super::world::World;

impl World {
    /// Asks for a connection to an address. An event follows, unless nothing answers there at all.
    pub fn connect(&mut self, machine: MachineId, address: SocketAddr) -> EndId {
        let now = self.now;
        let target = self
            .machines
            .iter()
            .position(|other| other.address == address);
        let latency = self.options.latency.start
            + random_up_to(
                self.options.latency.end - self.options.latency.start,
                &mut self.rng,
            );
        let process = self.machines[machine].process;
        let (target_machine, listens) =
            target.map_or((machine, false), |target| (target, self.is_up(target)));
        let target_process = self.machines[target_machine].process;
        let end = self.network.connect(
            (machine, process),
            (target_machine, target_process),
            latency,
        );
        if listens {
            self.queue
                .schedule(now + latency * 2, SimEvent::Connects { end });
        } else if self.rng.chance(1, 2) {
            self.queue
                .schedule(now + latency * 2, SimEvent::ConnectFails { end });
        }
        // Otherwise nothing answers, and the timeout of the caller must notice.
        end
    }

    fn is_up(&self, machine: MachineId) -> bool {
        match &self.machines[machine].state {
            MachineState::Off(_) => false,
            MachineState::Agent(agent) => agent.over_at.is_none(),
            MachineState::Fake(_) => true,
        }
    }

    /// Whether the process at this end still runs.
    pub fn is_there(&self, end: EndId) -> bool {
        let end = self.network.end(end);
        self.machines[end.machine].process == end.process && self.is_up(end.machine)
    }

    /// This side closes the connection; the other side learns of it one latency later.
    pub fn close(&mut self, end: EndId) {
        let was_open = self.network.end(end).open;
        self.forget_end(end);
        if was_open {
            let at = self.now + self.network.latency(end);
            self.queue
                .schedule(at, SimEvent::ConnectionLost { end: end.other() });
        }
    }

    /// The process has ended: the kernel closes its connections, also those that it had not
    /// accepted yet.
    pub fn close_all(&mut self, machine: MachineId) {
        let ends = self
            .network
            .ends_of(machine, self.machines[machine].process);
        ends.into_iter().for_each(|end| self.close(end));
    }

    /// This end is gone: its process, if it still runs, is told.
    pub fn forget_end(&mut self, end: EndId) {
        let there = self.is_there(end);
        let now = self.now;
        let (machine, slot) = (self.network.end(end).machine, self.network.end(end).slot);
        let receiving = self
            .network
            .end(end)
            .flow
            .receiving
            .and_then(|receiving| receiving.place);
        let pinned = self.network.end(end).flow.pinned;
        self.network.close(end);
        if !there {
            return;
        }
        match &mut self.machines[machine].state {
            MachineState::Fake(fake) => fake.closed(end),
            MachineState::Agent(agent) => {
                if let Some(slot) = slot {
                    let (receiving, pinned) = (
                        receiving.map(|place| place.0),
                        pinned.map(|pinned| pinned.0),
                    );
                    agent.drop_end(slot, receiving, pinned);
                    agent.swarm.handle_closed(now, slot, &mut agent.throttles);
                }
            }
            MachineState::Off(_) => {}
        }
    }

    /// Sends a small message between two segments, into the inbox of its receiver.
    pub fn send_small(&mut self, from: EndId, packet: Packet) {
        let at = self.network.send_small(self.now, from, &packet);
        let machine = self.network.end(from.other()).machine;
        if let MachineState::Agent(_) = self.machines[machine].state {
            self.machines[machine].inbox.push_back((at, from, packet));
            self.schedule_loop(machine, at);
        }
    }
}
