//! How does a process open and close connections, and what is left of one when its process is gone?

use core::net::SocketAddr;

use super::event::Happening;
use super::ids::{EndId, NodeId};
use super::machine::NodeRole;
use super::packet::Packet;
use super::random::random_part;
use super::world::World;

impl World {
    pub fn call(&mut self, node: NodeId, address: SocketAddr) -> EndId {
        let now = self.now;
        let target = self.nodes.iter().position(|other| other.address == address);
        let latency = self.options.latency.start
            + random_part(
                self.options.latency.end - self.options.latency.start,
                &mut self.rng,
            );
        let life = self.nodes[node].life;
        let (target_node, listens) =
            target.map_or((node, false), |target| (target, self.is_up(target)));
        let target_life = self.nodes[target_node].life;
        let end = self
            .network
            .connect((node, life), (target_node, target_life), latency);
        if listens {
            self.queue
                .plan(now + latency * 2, Happening::Connected { end });
        } else if self.rng.chance(1, 2) {
            self.queue
                .plan(now + latency * 2, Happening::Unconnected { end });
        }
        // Otherwise nobody answers at all, and giving up is up to the caller.
        end
    }

    fn is_up(&self, node: NodeId) -> bool {
        match &self.nodes[node].role {
            NodeRole::Off(_) => false,
            NodeRole::Agent(agent) => agent.over_at.is_none(),
            NodeRole::Fake(_) => true,
        }
    }

    /// Whether the process at this end still runs.
    pub fn is_there(&self, end: EndId) -> bool {
        let end = self.network.end(end);
        self.nodes[end.node].life == end.life && self.is_up(end.node)
    }

    /// This side closes: at once here, and the other side learns of it a little later.
    pub fn hang_up(&mut self, end: EndId) {
        let was_open = self.network.end(end).open;
        self.forget_end(end);
        if was_open {
            let at = self.now + self.network.latency(end);
            self.queue.plan(at, Happening::Lost { end: end.other() });
        }
    }

    /// The process is gone, and the kernel closes what it had open, also what it had not accepted
    /// yet.
    pub fn hang_up_all(&mut self, node: NodeId) {
        let ends = self.network.ends_of(node, self.nodes[node].life);
        ends.into_iter().for_each(|end| self.hang_up(end));
    }

    /// This end exists no more: its process, if it lives, is told so.
    pub fn forget_end(&mut self, end: EndId) {
        let there = self.is_there(end);
        let now = self.now;
        let (node, slot) = (self.network.end(end).node, self.network.end(end).slot);
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
        match &mut self.nodes[node].role {
            NodeRole::Fake(fake) => fake.closed(end),
            NodeRole::Agent(agent) => {
                if let Some(slot) = slot {
                    let (receiving, pinned) = (
                        receiving.map(|place| place.0),
                        pinned.map(|pinned| pinned.0),
                    );
                    agent.drop_end(slot, receiving, pinned);
                    agent.swarm.handle_closed(now, slot);
                }
            }
            NodeRole::Off(_) => {}
        }
    }

    /// A small message goes its own way.
    pub fn post(&mut self, from: EndId, packet: Packet) {
        let at = self.network.squeeze(self.now, from, &packet);
        let node = self.network.end(from.other()).node;
        if let NodeRole::Agent(_) = self.nodes[node].role {
            self.nodes[node].inbox.push_back((at, from, packet));
            self.plan_turn(node, at);
        }
    }
}
