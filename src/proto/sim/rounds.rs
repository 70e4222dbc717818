//! What happens in one round of the event loop of a process?

use alloc::boxed::Box;
use alloc::format;
use core::time::Duration;

use super::agent::Agent;
use super::event::Happening;
use super::fake_peer::Wish;
use super::ids::{EndId, Life, NodeId};
use super::machine::{Node, NodeRole};
use super::packet::Packet;
use super::random::random_part;
use super::tracker;
use super::world::{LISTEN_PORT, World};
use crate::limits::HTTP_TIMEOUT;
use crate::swarm::{Role, State};
use crate::units::{Instant, PeerSlot};

impl World {
    /// Something happened to this agent: its loop runs, now or when it comes round.
    pub fn touch(&mut self, node: NodeId) {
        if self.options.turn.is_zero() {
            return self.settle(node);
        }
        let life = self.nodes[node].life;
        if self.agent(node, life).is_some() {
            let at = if self.options.alert {
                self.now
            } else {
                self.now + self.options.turn
            };
            self.plan_turn(node, at);
        }
    }

    /// Tells an agent something, if it still lives, and carries out what it decides.
    pub fn with_agent(&mut self, node: NodeId, life: Life, tell: impl FnOnce(&mut Agent)) {
        if let Some(agent) = self.agent(node, life) {
            tell(agent);
            self.touch(node);
        }
    }

    /// Polls an agent until it has nothing more to say.
    pub fn settle(&mut self, node: NodeId) {
        let life = self.nodes[node].life;
        for round in 0.. {
            assert!(round < 10_000, "it never comes to rest");
            if self.agent(node, life).is_none() || !self.settle_once(node, life) {
                break;
            }
        }
        self.nodes[node].settled_at = self.now;
        self.plan_wake(node);
        self.inspect(node);
    }

    /// One round, in the order that `Swarm` asks for. True if the agent was told something in the
    /// course of it.
    fn settle_once(&mut self, node: NodeId, life: Life) -> bool {
        // What was sent makes work and no words, and work is asked for next; but nobody has to rely
        // on that.
        let mut told = self.send_all(node, life) && !self.options.alert;
        let now = self.now;
        while let Some(work) = self
            .agent(node, life)
            .and_then(|agent| agent.swarm.poll_work())
        {
            let NodeRole::Agent(agent) = &mut self.nodes[node].role else {
                unreachable!("it was one above")
            };
            // Pieces that a seeder has looked at can be sent now.
            told |= agent.start(now, work, &mut self.queue) && agent.options.role == Role::Seeder;
        }
        while let Some((slot, why)) = self
            .agent(node, life)
            .and_then(|agent| agent.swarm.poll_close())
        {
            let end = self.agent(node, life).expect("it asked").end(slot);
            self.mix(why.len() as u64);
            self.trace(|| {
                format!(
                    "{node} closes {slot:?} to {}: {why}",
                    self.network.end(end.other()).node
                )
            });
            self.hang_up(end);
            told = true;
        }
        while let Some((slot, address)) = self
            .agent(node, life)
            .and_then(|agent| agent.swarm.poll_connect(now))
        {
            let end = self.call(node, address);
            self.network.end_mut(end).slot = Some(slot);
            self.agent(node, life).expect("it asked").add_end(slot, end);
        }
        while let Some(url) = self
            .agent(node, life)
            .and_then(|agent| agent.swarm.poll_announce(now))
        {
            self.announce(node, life, &url);
        }
        while let Some(event) = self
            .agent(node, life)
            .and_then(|agent| agent.swarm.poll_event())
        {
            self.judge_event(node, &event);
        }
        told
    }

    fn send_all(&mut self, node: NodeId, life: Life) -> bool {
        let mut told = false;
        let mut index = 0;
        while let Some(&(slot, end)) = self
            .agent(node, life)
            .and_then(|agent| agent.live.get(index))
        {
            told |= self.send_on(node, life, slot, end);
            index += 1;
        }
        told
    }

    fn send_on(&mut self, node: NodeId, life: Life, slot: PeerSlot, end: EndId) -> bool {
        let (now, mut told) = (self.now, false);
        while self.network.has_room(end) {
            let Some(agent) = self.agent(node, life) else {
                break;
            };
            let Some(send) = agent.swarm.poll_send(now, slot) else {
                break;
            };
            let (packet, buffer) = agent.packet(now, slot, send);
            let bytes = if let Packet::Block { block, .. } = &packet {
                block.length
            } else {
                0
            };
            if self.options.alert && buffer.is_none() && self.network.is_clear(end) {
                self.post(end, packet);
                continue;
            }
            let whole = self.network.push(now, end, packet, &mut self.queue);
            match buffer {
                Some(buffer) if whole => {
                    self.agent(node, life)
                        .expect("it spoke")
                        .sent(now, slot, buffer, bytes);
                    told = true;
                }
                Some(_) => {
                    self.network.end_mut(end).flow.pinned = buffer.map(|buffer| (buffer, bytes))
                }
                None => {}
            }
        }
        told
    }

    fn announce(&mut self, node: NodeId, life: Life, url: &str) {
        tracker::check_url(url, LISTEN_PORT);
        self.agent(node, life)
            .expect("it asked")
            .ledger
            .announces(url);
        let (now, address) = (self.now, self.nodes[node].address);
        let answer = self.tracker.announce(now, address, url, &mut self.rng);
        // A tracker that is gone refuses at once; a lost answer is noticed by the time-out of the
        // shell.
        let after = match answer {
            Err("no answer") => HTTP_TIMEOUT,
            _ => random_part(Duration::from_millis(50), &mut self.rng),
        };
        self.queue.plan(
            now + after,
            Happening::Announced {
                node,
                life,
                answer: Box::new(answer),
            },
        );
    }

    /// After every round: the invariants, the counts, and what its state says.
    fn inspect(&mut self, node: NodeId) {
        let (now, life, check_every) = (self.now, self.nodes[node].life, self.options.check_every);
        let away_since = self.tracker.away_since(now);
        let NodeRole::Agent(agent) = &mut self.nodes[node].role else {
            return;
        };
        if agent.life != life || agent.over_at.is_some() {
            return;
        }
        agent.rounds += 1;
        if agent.rounds.is_multiple_of(check_every) {
            agent.swarm.check_invariants();
            agent.ledger.compare(&agent.swarm.progress());
        }
        let mut changed = false;
        let first_time = |when: &mut Option<Instant>| when.replace(now).is_none();
        match agent.swarm.state() {
            State::Scanning | State::Downloading => {}
            State::Verifying => {
                if agent.downloaded_at.is_none() {
                    changed = first_time(&mut agent.downloaded_at);
                }
            }
            State::Seeding => {
                if agent.complete_at.is_none() {
                    agent.downloaded_at.get_or_insert(now);
                    changed = first_time(&mut agent.complete_at);
                }
            }
            State::Leaving(_) => {
                if agent.leaving_at.is_none() {
                    changed = first_time(&mut agent.leaving_at);
                }
            }
            State::Over(outcome) => {
                agent.leaving_at.get_or_insert(now);
                agent.over_at = Some(now);
                agent.ledger.compare(&agent.swarm.progress());
                agent.ledger.ends(outcome, agent.cells());
                changed = true;
            }
        }
        if !changed {
            return;
        }
        agent.swarm.check_invariants();
        agent.ledger.compare(&agent.swarm.progress());
        if agent.leaving_at == Some(now) {
            self.judge_leaving(node, away_since);
        }
        if let NodeRole::Agent(agent) = &self.nodes[node].role
            && agent.over_at == Some(now)
        {
            self.hang_up_all(node);
        }
        self.see_who_is_done();
    }

    /// When everybody who can be complete is: the tracker is stopped, as the server script does it.
    pub fn see_who_is_done(&mut self) {
        if self.released || self.still_to_start > 0 {
            return;
        }
        let waits = |node: &Node| match &node.role {
            NodeRole::Agent(agent) => {
                agent.over_at.is_none() && agent.complete_at.is_none() && agent.leaving_at.is_none()
            }
            _ => false,
        };
        if self.nodes.iter().any(waits) {
            return;
        }
        if self
            .options
            .tracker
            .as_ref()
            .is_some_and(|tracker| tracker.stops_at.is_some())
        {
            return;
        }
        self.released = true;
        let at = self.now + random_part(Duration::from_secs(20), &mut self.rng);
        self.queue.plan(at, Happening::TrackerStops);
    }

    pub fn wake(&mut self, node: NodeId, life: Life) {
        if self.nodes[node].life != life {
            return;
        }
        if let NodeRole::Fake(fake) = &mut self.nodes[node].role {
            let wishes = fake.turn(self.tracker.peers());
            wishes.into_iter().for_each(|wish| self.grant(node, wish));
            self.settle_fake(node);
            let pause = Duration::from_millis(u64::from(300 + self.rng.below(1700)));
            self.queue
                .plan(self.now + pause, Happening::Wakes { node, life });
            return;
        }
        let now = self.now;
        let Some(agent) = self.agent(node, life) else {
            return;
        };
        if agent.wakes_at != Some(now) {
            return;
        }
        agent.wakes_at = None;
        agent.idle_wakes = if agent.woken_at == now {
            agent.idle_wakes + 1
        } else {
            0
        };
        agent.woken_at = now;
        assert!(
            agent.idle_wakes < 100,
            "machine {node} asks to be woken at once, again and again"
        );
        if agent.swarm.poll_timeout().is_some_and(|at| at <= now) {
            agent.swarm.handle_timeout(now);
            self.touch(node);
        } else {
            self.plan_wake(node);
        }
    }

    fn grant(&mut self, node: NodeId, wish: Wish) {
        match wish {
            Wish::Close(end) => self.hang_up(end),
            Wish::Call(address) => {
                self.call(node, address);
            }
        }
    }

    pub fn settle_fake(&mut self, node: NodeId) {
        let now = self.now;
        let NodeRole::Fake(fake) = &mut self.nodes[node].role else {
            return;
        };
        for end in fake.ends() {
            while self.network.has_room(end) {
                let Some(packet) = fake.next_packet(end) else {
                    break;
                };
                self.network.push(now, end, packet, &mut self.queue);
            }
        }
    }
}
