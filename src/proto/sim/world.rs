//! One swarm from its first machine to its last: takes what happens next, tells whom it concerns,
//! and carries out what they decide.
//!
//! A violation is a panic, here, in the checker or in the core; whoever calls prints the seed.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use super::agent::{Agent, Identity};
use super::disk::{DiskFault, SimDisk, random_part};
use super::fake_peer::{FakePeer, Wish};
use super::image::Image;
use super::links::{Network, Packet, Receiving, Segment};
use super::options::{AgentOptions, FakeOptions, Fate, Options};
use super::queue::{EndId, Happening, Life, NodeId, Queue};
use super::tracker::{self, Tracker};
use crate::limits::{ANNOUNCE_RETRY_MAX, HTTP_TIMEOUT};
use crate::rng::Rng;
use crate::swarm::{Event, Failure, Outcome, Role, State};
use crate::units::{Instant, PeerSlot};
use crate::wire::message::RawBlock;

pub struct World {
    pub options: Options,
    pub now: Instant,
    pub image: Image,
    queue: Queue,
    network: Network,
    pub nodes: Vec<Node>,
    tracker: Tracker,
    rng: Rng,
    /// Agents that were planned to start, or to start again, and have not.
    still_to_start: u32,
    released: bool,
    closed: bool,
    pub fetched_by_the_dead: u64,
    pub read_back_bad: u32,
    pub sources_bad: u32,
    pub events: u64,
    /// Payload bytes that arrived in each MOMENT: anywhere, and from the first seeder.
    pub arrivals: Vec<[u64; 2]>,
    /// A hash over everything that happened.
    pub log: u64,
}

pub struct Node {
    address: SocketAddr,
    life: Life,
    pub role: NodeRole,
    /// Small messages that are there, or will be at that moment; read when the loop comes round.
    /// These are here and not in the agent because every `have` for it is put here while somebody
    /// else is being looked at.
    inbox: VecDeque<(Instant, EndId, Packet)>,
    turn_planned: bool,
    /// When its loop came round last.
    settled_at: Instant,
}

pub enum NodeRole {
    /// Not started yet, or dead.
    Off(Box<Plan>),
    Agent(Box<Agent>),
    Fake(Box<FakePeer>),
}

/// What starts on a machine when its time comes.
pub enum Plan {
    /// With the disk that an earlier process left.
    Agent(Box<AgentOptions>, Option<SimDisk>),
    Fake(FakeOptions),
}

const LISTEN_PORT: u16 = 6881;

/// The grain of `World::arrivals`.
pub const MOMENT: Duration = Duration::from_millis(50);

/// A complete agent notices the end of its tracker within the grace time and so much more (issue:
/// 15 s).
const RELEASE_SLACK: Duration = Duration::from_secs(15);

impl World {
    pub fn new(options: Options) -> World {
        let image = Image::new(&options.shape, options.tracker.is_some());
        let mut world = World {
            now: Instant(0),
            image,
            queue: Queue::default(),
            network: Network::new(options.window_bytes),
            nodes: Vec::new(),
            tracker: Tracker::new(options.tracker.clone().unwrap_or_default()),
            rng: Rng::new(options.seed ^ 0x5eed),
            still_to_start: 0,
            released: false,
            closed: false,
            fetched_by_the_dead: 0,
            read_back_bad: 0,
            sources_bad: 0,
            events: 0,
            arrivals: Vec::new(),
            log: 0xcbf2_9ce4_8422_2325,
            options,
        };
        world.plan_everything();
        world
    }

    /// Puts what the options say into the queue.
    fn plan_everything(&mut self) {
        let options = self.options.clone();
        options
            .rack_rates
            .iter()
            .for_each(|rate| self.network.add_rack(*rate));
        for agent in &options.agents {
            self.network
                .add_node(agent.up_rate, agent.down_rate, agent.rack);
            let node = self.add_node(Plan::Agent(Box::new(agent.clone()), None));
            self.queue.plan(agent.starts_at, Happening::Starts { node });
            self.still_to_start += 1;
            match agent.fate {
                Fate::None => {}
                Fate::Leaves(at) => self
                    .queue
                    .plan(at.max(agent.starts_at), Happening::Leaves { node }),
                Fate::Dies {
                    at,
                    returns_at,
                    power,
                } => {
                    self.queue
                        .plan(at.max(agent.starts_at), Happening::Dies { node, power });
                    if let Some(returns_at) = returns_at {
                        self.queue
                            .plan(returns_at.max(agent.starts_at), Happening::Starts { node });
                        self.still_to_start += 1;
                    }
                }
            }
            if let Some((from, length)) = agent.unplugged {
                self.queue.plan(
                    from,
                    Happening::Unplugged {
                        node,
                        until: from + length,
                    },
                );
            }
        }
        for fake in &options.fakes {
            self.network.add_node(fake.rate, fake.rate, None);
            let node = self.add_node(Plan::Fake(fake.clone()));
            self.queue.plan(fake.starts_at, Happening::Starts { node });
        }
        if let Some(stops_at) = options
            .tracker
            .as_ref()
            .and_then(|tracker| tracker.stops_at)
        {
            self.queue.plan(stops_at, Happening::TrackerStops);
        }
        if let Some(every) = options.cut_every {
            self.queue.plan(Instant(0) + every, Happening::Cut);
        }
    }

    fn add_node(&mut self, plan: Plan) -> NodeId {
        let index = self.nodes.len();
        let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 77, 1, 1)) + index as u32);
        self.nodes.push(Node {
            address: SocketAddr::new(IpAddr::V4(ip), LISTEN_PORT),
            life: 0,
            role: NodeRole::off(plan),
            inbox: VecDeque::new(),
            turn_planned: false,
            settled_at: Instant(0),
        });
        index
    }

    /// All that were ever asked for.
    pub fn connection_count(&self) -> u32 {
        self.network.connection_count()
    }

    /// Runs to the end: everybody who can has finished, has been released, and has gone.
    pub fn run(&mut self) {
        while !self.closed {
            let (at, happening) = self.queue.next().expect("somebody always has a timer");
            assert!(at >= self.now);
            self.now = at;
            self.events += 1;
            assert!(
                self.now.since(Instant(0)) < self.options.patience,
                "no end in sight:\n{}",
                self.picture()
            );
            self.note(&happening);
            self.happen(happening);
        }
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.now;
        match happening {
            Happening::UplinkFree { node } => self.network.uplink_free(now, node, &mut self.queue),
            Happening::Reaches(segment) => {
                if let Some(segment) = self.network.reach(now, segment, &mut self.queue) {
                    self.begin_segment(segment);
                }
            }
            Happening::Begins(segment) => self.begin_segment(segment),
            Happening::Ends(segment) => self.end_block(segment),
            Happening::Connected { end } => self.connected(end),
            Happening::Unconnected { end } => self.end_is_lost(end),
            Happening::Lost { end } => self.end_is_lost(end),
            Happening::Disk { node, life, ticket } => {
                self.trace(|| format!("{node} disk {ticket:?}"));
                self.with_agent(node, life, |agent| agent.disk_done(now, ticket));
            }
            Happening::Hashed {
                node,
                life,
                of,
                good,
            } => {
                self.with_agent(node, life, |agent| agent.hashed(now, of, good));
            }
            Happening::Announced { node, life, answer } => {
                let answer = (*answer).map_err(String::from);
                self.with_agent(node, life, |agent| {
                    agent.met_tracker |= answer.is_ok();
                    agent.swarm.handle_announced(now, answer);
                });
            }
            Happening::Wakes { node, life } => self.wake(node, life),
            Happening::Turns { node, life } => {
                if self.agent(node, life).is_some() {
                    self.nodes[node].turn_planned = false;
                    self.read_inbox(node);
                    self.settle(node);
                    self.plan_to_read(node);
                }
            }
            Happening::Starts { node } => self.start(node),
            Happening::Dies { node, power } => self.die(node, power),
            Happening::Leaves { node } => {
                let life = self.nodes[node].life;
                self.with_agent(node, life, |agent| {
                    agent.told_to_leave = true;
                    agent.swarm.leave(now);
                });
            }
            Happening::Cut => self.cut(),
            Happening::Unplugged { node, until } => self.network.unplug(node, until),
            Happening::TrackerStops => self.stop_tracker(),
            Happening::Closes => self.closed = true,
        }
    }

    // ---- processes

    fn start(&mut self, node: NodeId) {
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
                let manner = (self.options.canary, self.options.hashes);
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
    fn die(&mut self, node: NodeId, power: bool) {
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

    fn agent(&mut self, node: NodeId, life: Life) -> Option<&mut Agent> {
        let node = &mut self.nodes[node];
        match &mut node.role {
            NodeRole::Agent(agent) if node.life == life && agent.over_at.is_none() => Some(agent),
            _ => None,
        }
    }

    /// Tells an agent something, if it still lives, and carries out what it decides.
    fn with_agent(&mut self, node: NodeId, life: Life, tell: impl FnOnce(&mut Agent)) {
        if let Some(agent) = self.agent(node, life) {
            tell(agent);
            self.touch(node);
        }
    }

    fn wake(&mut self, node: NodeId, life: Life) {
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
        if agent.timeout().is_some_and(|at| at <= now) {
            agent.handle_timeout(now);
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

    // ---- what an agent decides

    /// Something happened to this agent: its loop runs, now or when it comes round.
    fn touch(&mut self, node: NodeId) {
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

    /// Its loop comes round then, or a little later.
    fn plan_turn(&mut self, node: NodeId, at: Instant) {
        let machine = &mut self.nodes[node];
        if !core::mem::replace(&mut machine.turn_planned, true) {
            let at = if self.options.alert {
                at.max(machine.settled_at + self.options.turn)
            } else {
                at
            };
            self.queue.plan(
                at,
                Happening::Turns {
                    node,
                    life: machine.life,
                },
            );
        }
    }

    fn plan_to_read(&mut self, node: NodeId) {
        if let Some((at, ..)) = self.nodes[node].inbox.front() {
            self.plan_turn(node, *at);
        }
    }

    /// Polls an agent until it has nothing more to say.
    fn settle(&mut self, node: NodeId) {
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
        if self.agent(node, life).is_some()
            && let NodeRole::Agent(agent) = &mut self.nodes[node].role
        {
            // Pieces that a seeder has hashed can be sent now.
            told |= agent.work(now, &mut self.queue) && agent.options.role == Role::Seeder;
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
            let Some(send) = agent.swarm.poll_send(now, slot, &mut agent.throttles) else {
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

    fn plan_wake(&mut self, node: NodeId) {
        let (now, life) = (self.now, self.nodes[node].life);
        let Some(agent) = self.agent(node, life) else {
            return;
        };
        let Some(at) = agent.timeout() else {
            return;
        };
        // A clock of microseconds; asking for a time that has passed means at once.
        let at = at.max(now);
        if agent.wakes_at.is_none_or(|planned| at < planned) {
            agent.wakes_at = Some(at);
            self.queue.plan(at, Happening::Wakes { node, life });
        }
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

    /// Whom an agent calls a liar must be one, and so must a disk.
    fn judge_event(&mut self, node: NodeId, event: &Event) {
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

    // ---- connections

    fn call(&mut self, node: NodeId, address: SocketAddr) -> EndId {
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
    fn is_there(&self, end: EndId) -> bool {
        let end = self.network.end(end);
        self.nodes[end.node].life == end.life && self.is_up(end.node)
    }

    fn connected(&mut self, end: EndId) {
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

    /// This side closes: at once here, and the other side learns of it a little later.
    fn hang_up(&mut self, end: EndId) {
        let was_open = self.network.end(end).open;
        self.forget_end(end);
        if was_open {
            let at = self.now + self.network.latency(end);
            self.queue.plan(at, Happening::Lost { end: end.other() });
        }
    }

    /// The process is gone, and the kernel closes what it had open, also what it had not accepted
    /// yet.
    fn hang_up_all(&mut self, node: NodeId) {
        let ends = self.network.ends_of(node, self.nodes[node].life);
        ends.into_iter().for_each(|end| self.hang_up(end));
    }

    fn end_is_lost(&mut self, end: EndId) {
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

    /// This end exists no more: its process, if it lives, is told so.
    fn forget_end(&mut self, end: EndId) {
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
                    agent.swarm.handle_closed(now, slot, &mut agent.throttles);
                }
            }
            NodeRole::Off(_) => {}
        }
    }

    /// One of the live connections breaks, if the one picked is alive.
    fn cut(&mut self) {
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

    /// A small message goes its own way.
    fn post(&mut self, from: EndId, packet: Packet) {
        let at = self.network.squeeze(self.now, from, &packet);
        let node = self.network.end(from.other()).node;
        if let NodeRole::Agent(_) = self.nodes[node].role {
            self.nodes[node].inbox.push_back((at, from, packet));
            self.plan_turn(node, at);
        }
    }

    // ---- what arrives

    /// The small messages that are there.
    fn read_inbox(&mut self, node: NodeId) {
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
    fn begin_segment(&mut self, segment: Segment) {
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
                    agent
                        .swarm
                        .handle_message(now, slot, message, &mut agent.throttles);
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

    fn end_block(&mut self, segment: Segment) {
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

    fn settle_fake(&mut self, node: NodeId) {
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

    // ---- the checker's eye on every agent, and the end of the job

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

    /// May it leave, and why?
    fn judge_leaving(&self, node: NodeId, away_since: Option<Instant>) {
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

    /// When everybody who can be complete is: the tracker is stopped, as the server script does it.
    fn see_who_is_done(&mut self) {
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

    /// The tracker is gone for good. Where there is none, seeders have no reason to leave, nor has
    /// anybody while a rude peer claims to lack something; so they are told.
    fn stop_tracker(&mut self) {
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

    // ---- for people

    /// One line about what happens, if anybody asked for it.
    fn trace(&self, line: impl FnOnce() -> String) {
        if self.options.trace {
            std::println!(
                "{:>12.6} {}",
                self.now.since(Instant(0)).as_secs_f64(),
                line()
            );
        }
    }

    /// Who still has not finished, and how far everybody is.
    pub fn picture(&self) -> String {
        let mut picture = format!("at {:?}\n", self.now.since(Instant(0)));
        for (index, node) in self.nodes.iter().enumerate() {
            picture += &match &node.role {
                NodeRole::Off(_) => format!("{index}: off\n"),
                NodeRole::Fake(_) => format!("{index}: fake {:?}\n", node.role.manner()),
                NodeRole::Agent(agent) => format!(
                    "{index}: {:?} fault {:?} life {} {:?}\n",
                    agent.options.role,
                    agent.options.disk.fault,
                    node.life,
                    agent.swarm.progress()
                ),
            };
        }
        picture
    }

    fn note(&mut self, happening: &Happening) {
        self.mix(self.now.0);
        let (kind, detail) = match happening {
            Happening::UplinkFree { node } => (1, *node as u64),
            Happening::Reaches(segment) => (2, u64::from(segment.bytes)),
            Happening::Begins(segment) => (3, u64::from(segment.bytes)),
            Happening::Ends(segment) => (4, u64::from(segment.from.connection)),
            Happening::Connected { end } => (5, u64::from(end.connection)),
            Happening::Unconnected { end } => (6, u64::from(end.connection)),
            Happening::Lost { end } => (7, u64::from(end.connection)),
            Happening::Disk { ticket, .. } => (8, ticket.0),
            Happening::Hashed { node, good, .. } => (9, *node as u64 * 2 + u64::from(*good)),
            Happening::Announced { node, answer, .. } => {
                (10, *node as u64 * 2 + u64::from(answer.is_ok()))
            }
            Happening::Wakes { node, .. } => (11, *node as u64),
            Happening::Turns { node, .. } => (12, *node as u64),
            Happening::Starts { node } => (13, *node as u64),
            Happening::Dies { node, .. } => (14, *node as u64),
            Happening::Leaves { node } => (15, *node as u64),
            Happening::Cut => (16, 0),
            Happening::Unplugged { node, .. } => (17, *node as u64),
            Happening::TrackerStops => (18, 0),
            Happening::Closes => (19, 0),
        };
        self.mix(kind << 56 ^ detail);
    }

    /// FNV-1a, a word at a time.
    fn mix(&mut self, word: u64) {
        self.log = (self.log ^ word).wrapping_mul(0x0000_0100_0000_01b3);
    }
}

impl Node {
    pub fn downloaded_at(&self) -> Option<Instant> {
        match &self.role {
            NodeRole::Agent(agent) => agent.downloaded_at,
            _ => None,
        }
    }
}

impl NodeRole {
    fn off(plan: Plan) -> NodeRole {
        NodeRole::Off(Box::new(plan))
    }

    fn manner(&self) -> Option<super::fake_peer::Manner> {
        match self {
            NodeRole::Fake(fake) => Some(fake.manner()),
            _ => None,
        }
    }
}
