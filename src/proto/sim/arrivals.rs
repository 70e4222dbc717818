//! What does a machine do with what arrives from the network?

use alloc::format;
use core::net::SocketAddr;
use core::time::Duration;

use super::event::Happening;
use super::ids::{EndId, NodeId};
use super::machine::NodeRole;
use super::network::Receiving;
use super::packet::{Packet, Segment};
use super::random::random_part;
use super::world::{MOMENT, World};
use crate::wire::message::RawBlock;

impl World {
    pub fn connected(&mut self, end: EndId) {
        self.trace(|| {
            format!(
                "{} reaches {}",
                self.network.end(end).node,
                self.network.end(end.other()).node
            )
        });
        // The caller may have given up or died meanwhile.
        if !self.is_there(end) || self.network.end(end).gone {
            return;
        }
        if !self.is_there(end.other()) {
            return self.end_is_lost(end);
        }
        self.network.end_mut(end).open = true;
        self.network.end_mut(end.other()).open = true;
        let (now, node, life) = (
            self.now,
            self.network.end(end).node,
            self.network.end(end).life,
        );
        if let NodeRole::Fake(fake) = &mut self.nodes[node].role {
            fake.connected(end);
            return self.settle_fake(node);
        }
        let slot = self
            .network
            .end(end)
            .slot
            .expect("an agent names its connections");
        self.with_agent(node, life, |agent| agent.swarm.handle_connected(now, slot));
    }

    pub fn end_is_lost(&mut self, end: EndId) {
        if self.network.end(end).gone {
            return;
        }
        self.trace(|| {
            format!(
                "{} loses {}",
                self.network.end(end).node,
                self.network.end(end.other()).node
            )
        });
        let node = self.network.end(end).node;
        self.forget_end(end);
        if self.network.end(end).life == self.nodes[node].life {
            self.touch(node);
        }
    }

    /// One of the live connections breaks, if the one picked is alive.
    pub fn cut(&mut self) {
        let count = self.network.connection_count();
        if count > 0 {
            let end = EndId {
                connection: self.rng.below(count),
                side: 0,
            };
            if self.network.end(end).open && self.network.end(end.other()).open {
                self.end_is_lost(end);
                self.end_is_lost(end.other());
            }
        }
        let every = self.options.cut_every.expect("cuts were planned");
        let pause = random_part(every * 2, &mut self.rng) + Duration::from_millis(1);
        self.queue.plan(self.now + pause, Happening::Cut);
    }

    /// The small messages that are there.
    pub fn read_inbox(&mut self, node: NodeId) {
        while self.nodes[node]
            .inbox
            .front()
            .is_some_and(|(at, ..)| *at <= self.now)
        {
            let (_, from, packet) = self.nodes[node].inbox.pop_front().expect("it was there");
            if self.passes(from) {
                self.receive(from.other(), packet);
            }
        }
    }

    /// The small messages of a segment are there, and the head of its block.
    pub fn begin_segment(&mut self, segment: Segment) {
        let from = segment.from;
        let to = from.other();
        // What was said before it is heard before it.
        self.read_inbox(self.network.end(to).node);
        if !self.passes(from) || self.reads_nothing(to) {
            return;
        }
        for _ in 0..segment.small_count {
            let packet = self.network.take(from);
            self.receive(to, packet);
            if !self.passes(from) {
                return self.settle_receiver(to);
            }
        }
        if segment.has_block {
            let Packet::Block { block, good } = self.network.take(from) else {
                unreachable!("it has a block")
            };
            self.begin_block(to, block, good);
            self.queue.plan(segment.ends_at, Happening::Ends(segment));
        } else {
            self.leave_window(segment);
        }
        self.settle_receiver(to);
    }

    pub fn end_block(&mut self, segment: Segment) {
        let to = segment.from.other();
        if !self.passes(segment.from) || self.reads_nothing(to) {
            return;
        }
        let Receiving { block, good, place } = self
            .network
            .end_mut(to)
            .flow
            .receiving
            .take()
            .expect("it began");
        let (now, node, slot) = (
            self.now,
            self.network.end(to).node,
            self.network.end(to).slot,
        );
        if let (NodeRole::Agent(agent), Some(slot)) = (&mut self.nodes[node].role, slot) {
            agent.end_block(now, slot, block, good, place);
        }
        self.count(segment.from, block.length);
        self.leave_window(segment);
        self.settle_receiver(to);
    }

    fn passes(&self, from: EndId) -> bool {
        self.network.end(from).open && self.network.end(from.other()).open
    }

    fn reads_nothing(&self, to: EndId) -> bool {
        match &self.nodes[self.network.end(to).node].role {
            NodeRole::Fake(fake) => fake.is_frozen(to),
            _ => false,
        }
    }

    fn settle_receiver(&mut self, to: EndId) {
        let node = self.network.end(to).node;
        match self.nodes[node].role {
            NodeRole::Agent(_) => self.touch(node),
            NodeRole::Fake(_) => self.settle_fake(node),
            NodeRole::Off(_) => {}
        }
    }

    fn receive(&mut self, to: EndId, packet: Packet) {
        let (now, node) = (self.now, self.network.end(to).node);
        let from = self.network.end(to.other()).node;
        let caller = SocketAddr::new(
            self.nodes[from].address.ip(),
            32768 + (to.connection % 28000) as u16,
        );
        match &mut self.nodes[node].role {
            NodeRole::Fake(fake) => fake.receives(to, packet),
            NodeRole::Agent(agent) => match (self.network.end(to).slot, packet) {
                // The shell reads the first handshake before it asks whether we want this
                // connection.
                (None, Packet::Handshake(handshake)) => {
                    match agent.swarm.handle_incoming(now, caller) {
                        None => self.hang_up(to),
                        Some(slot) => {
                            agent.add_end(slot, to);
                            self.network.end_mut(to).slot = Some(slot);
                            agent.swarm.handle_handshake(now, slot, &handshake);
                        }
                    }
                }
                (Some(slot), Packet::Handshake(handshake)) => {
                    agent.swarm.handle_handshake(now, slot, &handshake);
                }
                (Some(slot), Packet::Message(message)) => {
                    agent.swarm.handle_message(now, slot, message)
                }
                (slot, packet) => panic!("{packet:?} from {to:?} of {slot:?}"),
            },
            NodeRole::Off(_) => unreachable!("the connection is open"),
        }
    }

    fn begin_block(&mut self, to: EndId, block: RawBlock, good: bool) {
        let (now, node, slot) = (
            self.now,
            self.network.end(to).node,
            self.network.end(to).slot,
        );
        let place = match (&mut self.nodes[node].role, slot) {
            (NodeRole::Agent(agent), Some(slot)) => agent.begin_block(now, slot, block),
            (NodeRole::Agent(_), None) => unreachable!("the handshake came first"),
            _ => None,
        };
        self.network.end_mut(to).flow.receiving = Some(Receiving { block, good, place });
    }

    fn count(&mut self, from: EndId, bytes: u32) {
        let moment = (self.now.0 / MOMENT.as_micros() as u64) as usize;
        if self.arrivals.len() <= moment {
            self.arrivals.resize(moment + 1, [0; 2]);
        }
        let is_seeder = self.network.end(from).node == 0;
        self.arrivals[moment][0] += u64::from(bytes);
        self.arrivals[moment][1] += u64::from(bytes) * u64::from(is_seeder);
    }

    /// The bytes of a segment have passed: their sender has room again.
    fn leave_window(&mut self, segment: Segment) {
        let (now, from) = (self.now, segment.from);
        let had_room = self.network.has_room(from);
        let in_window = self.network.end_segment(now, segment, &mut self.queue);
        let (node, life, slot) = {
            let end = self.network.end(from);
            (end.node, end.life, end.slot)
        };
        if matches!(self.nodes[node].role, NodeRole::Fake(_)) {
            return self.settle_fake(node);
        }
        if in_window && let Some((buffer, bytes)) = self.network.end_mut(from).flow.pinned.take() {
            let slot = slot.expect("an agent names its connections");
            self.agent(node, life)
                .expect("the connection is open")
                .sent(now, slot, buffer, bytes);
        }
        if !had_room {
            self.touch(node);
        }
    }
}
