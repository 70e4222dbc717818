//! What does a process do with a connection or a message that arrives?

use alloc::format;
use core::net::SocketAddr;
use core::time::Duration;

use super::event::SimEvent;
use super::ids::{EndId, MachineId};
use super::machine::MachineState;
use super::network::Receiving;
use super::packet::{Packet, Segment};
use super::random::random_up_to;
use super::world::{ARRIVALS_INTERVAL, World};
use crate::wire::message::RawBlock;

impl World {
    /// A connection is set up, unless one of its processes has ended meanwhile.
    pub fn connected(&mut self, end: EndId) {
        self.trace(|| {
            format!(
                "{} reaches {}",
                self.network.end(end).machine,
                self.network.end(end.other()).machine
            )
        });
        // The caller may have given up or ended meanwhile.
        if !self.is_there(end) || self.network.end(end).gone {
            return;
        }
        if !self.is_there(end.other()) {
            return self.end_is_lost(end);
        }
        self.network.end_mut(end).open = true;
        self.network.end_mut(end.other()).open = true;
        let (now, machine, process) = (
            self.now,
            self.network.end(end).machine,
            self.network.end(end).process,
        );
        if let MachineState::Fake(fake) = &mut self.machines[machine].state {
            fake.connected(end);
            return self.run_fake(machine);
        }
        let slot = self
            .network
            .end(end)
            .slot
            .expect("an agent gives its connections slots");
        self.with_agent(machine, process, |agent| {
            agent.swarm.handle_connected(now, slot)
        });
    }

    /// This end learns that the connection is gone.
    pub fn end_is_lost(&mut self, end: EndId) {
        if self.network.end(end).gone {
            return;
        }
        self.trace(|| {
            format!(
                "{} loses {}",
                self.network.end(end).machine,
                self.network.end(end.other()).machine
            )
        });
        let machine = self.network.end(end).machine;
        self.forget_end(end);
        if self.network.end(end).process == self.machines[machine].process {
            self.wake_loop(machine);
        }
    }

    /// A random connection breaks, if it is open.
    pub fn cut_connection(&mut self) {
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
        let every = self
            .options
            .cut_interval
            .expect("only a run with an interval schedules cuts");
        let pause = random_up_to(every * 2, &mut self.rng) + Duration::from_millis(1);
        self.queue
            .schedule(self.now + pause, SimEvent::ConnectionCut);
    }

    /// Reads the small messages that have arrived.
    pub fn read_inbox(&mut self, machine: MachineId) {
        while self.machines[machine]
            .inbox
            .front()
            .is_some_and(|(at, ..)| *at <= self.now)
        {
            let (_, from, packet) = self.machines[machine]
                .inbox
                .pop_front()
                .expect("the inbox has a first message");
            if self.is_open(from) {
                self.receive(from.other(), packet);
            }
        }
    }

    /// The small messages of a segment arrive, and the header of its block.
    pub fn begin_segment(&mut self, segment: Segment) {
        let from = segment.from;
        let to = from.other();
        // Small messages that were sent before it are read before it.
        self.read_inbox(self.network.end(to).machine);
        if !self.is_open(from) || self.is_frozen(to) {
            return;
        }
        for _ in 0..segment.small_count {
            let packet = self.network.take(from);
            self.receive(to, packet);
            if !self.is_open(from) {
                return self.run_receiver(to);
            }
        }
        if segment.has_block {
            let Packet::Block {
                block,
                good,
                packed,
            } = self.network.take(from)
            else {
                unreachable!("`has_block` says that a block follows")
            };
            self.begin_block(to, (block, packed), good);
            self.queue
                .schedule(segment.ends_at, SimEvent::BlockEnds(segment));
        } else {
            self.free_window(segment);
        }
        self.run_receiver(to);
    }

    /// The last byte of a block arrives.
    pub fn end_block(&mut self, segment: Segment) {
        let to = segment.from.other();
        if !self.is_open(segment.from) || self.is_frozen(to) {
            return;
        }
        let Receiving {
            block,
            packed,
            good,
            place,
        } = self
            .network
            .end_mut(to)
            .flow
            .receiving
            .take()
            .expect("a block begins before it ends");
        let (now, machine, slot) = (
            self.now,
            self.network.end(to).machine,
            self.network.end(to).slot,
        );
        if let (MachineState::Agent(agent), Some(slot)) = (&mut self.machines[machine].state, slot)
        {
            agent.end_block(now, slot, (block, packed), good, place);
        }
        self.count_arrival(segment.from, block.length);
        self.free_window(segment);
        self.run_receiver(to);
    }

    fn is_open(&self, from: EndId) -> bool {
        self.network.end(from).open && self.network.end(from.other()).open
    }

    /// A fake peer reads nothing more from this connection.
    fn is_frozen(&self, to: EndId) -> bool {
        match &self.machines[self.network.end(to).machine].state {
            MachineState::Fake(fake) => fake.is_frozen(to),
            _ => false,
        }
    }

    fn run_receiver(&mut self, to: EndId) {
        let machine = self.network.end(to).machine;
        match self.machines[machine].state {
            MachineState::Agent(_) => self.wake_loop(machine),
            MachineState::Fake(_) => self.run_fake(machine),
            MachineState::Off(_) => {}
        }
    }

    fn receive(&mut self, to: EndId, packet: Packet) {
        let (now, machine) = (self.now, self.network.end(to).machine);
        let from = self.network.end(to.other()).machine;
        let caller = SocketAddr::new(
            self.machines[from].address.ip(),
            32768 + (to.connection % 28000) as u16,
        );
        match &mut self.machines[machine].state {
            MachineState::Fake(fake) => fake.receive(to, packet),
            MachineState::Agent(agent) => match (self.network.end(to).slot, packet) {
                // The shell reads the first handshake before it asks whether we want this
                // connection.
                (None, Packet::Handshake(handshake)) => {
                    match agent.swarm.handle_incoming(now, caller) {
                        None => self.close(to),
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
                    agent.checker.message_received(&message);
                    agent
                        .swarm
                        .handle_message(now, slot, message, &mut agent.throttles);
                }
                (slot, packet) => panic!("{packet:?} from {to:?} of {slot:?}"),
            },
            MachineState::Off(_) => unreachable!("the connection is open"),
        }
    }

    fn begin_block(&mut self, to: EndId, (block, packed): (RawBlock, Option<u32>), good: bool) {
        let (now, machine, slot) = (
            self.now,
            self.network.end(to).machine,
            self.network.end(to).slot,
        );
        let place = match (&mut self.machines[machine].state, slot) {
            (MachineState::Agent(agent), Some(slot)) => agent.begin_block(now, slot, block, packed),
            (MachineState::Agent(_), None) => unreachable!("the handshake came first"),
            _ => {
                assert_eq!(packed, None, "fakes take no compressed blocks");
                None
            }
        };
        self.network.end_mut(to).flow.receiving = Some(Receiving {
            block,
            packed,
            good,
            place,
        });
    }

    fn count_arrival(&mut self, from: EndId, bytes: u32) {
        let interval = (self.now.0 / ARRIVALS_INTERVAL.as_micros() as u64) as usize;
        if self.arrivals.len() <= interval {
            self.arrivals.resize(interval + 1, [0; 2]);
        }
        let is_seeder = self.network.end(from).machine == 0;
        self.arrivals[interval][0] += u64::from(bytes);
        self.arrivals[interval][1] += u64::from(bytes) * u64::from(is_seeder);
    }

    /// The bytes of a segment have arrived: the sender has room in its window again.
    fn free_window(&mut self, segment: Segment) {
        let (now, from) = (self.now, segment.from);
        let had_room = self.network.has_room(from);
        let in_window = self.network.end_segment(now, segment, &mut self.queue);
        let (machine, process, slot) = {
            let end = self.network.end(from);
            (end.machine, end.process, end.slot)
        };
        if matches!(self.machines[machine].state, MachineState::Fake(_)) {
            return self.run_fake(machine);
        }
        if in_window && let Some((buffer, bytes)) = self.network.end_mut(from).flow.pinned.take() {
            let slot = slot.expect("an agent gives its connections slots");
            self.agent(machine, process)
                .expect("the connection is open")
                .sent(now, slot, buffer, bytes);
        }
        if !had_room | self.network.takes_more(machine) {
            self.wake_loop(machine);
        }
    }
}
