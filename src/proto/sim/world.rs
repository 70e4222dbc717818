//! What is the state of a simulated swarm?

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use super::agent::Agent;
use super::event::Happening;
use super::ids::{Life, NodeId};
use super::image::Image;
use super::machine::{Node, NodeRole, Plan};
use super::network::Network;
use super::options::{Fate, Options};
use super::queue::Queue;
use super::tracker::Tracker;
use crate::rng::Rng;
use crate::units::Instant;

pub struct World {
    pub options: Options,
    pub now: Instant,
    pub image: Image,
    pub queue: Queue,
    pub network: Network,
    pub nodes: Vec<Node>,
    pub tracker: Tracker,
    pub rng: Rng,
    /// Agents that were planned to start, or to start again, and have not.
    pub still_to_start: u32,
    pub released: bool,
    pub closed: bool,
    pub fetched_by_the_dead: u64,
    pub read_back_bad: u32,
    pub sources_bad: u32,
    pub events: u64,
    /// Payload bytes that arrived in each MOMENT: anywhere, and from the first seeder.
    pub arrivals: Vec<[u64; 2]>,
    /// A hash over everything that happened.
    pub log: u64,
}

pub const LISTEN_PORT: u16 = 6881;

/// The grain of `World::arrivals`.
pub const MOMENT: Duration = Duration::from_millis(50);

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

    pub fn agent(&mut self, node: NodeId, life: Life) -> Option<&mut Agent> {
        let node = &mut self.nodes[node];
        match &mut node.role {
            NodeRole::Agent(agent) if node.life == life && agent.over_at.is_none() => Some(agent),
            _ => None,
        }
    }

    pub fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.nodes.iter().filter_map(|node| match &node.role {
            NodeRole::Agent(agent) => Some(&**agent),
            _ => None,
        })
    }

    /// All that were ever asked for.
    pub fn connection_count(&self) -> u32 {
        self.network.connection_count()
    }

    /// Its loop comes round then, or a little later.
    pub fn plan_turn(&mut self, node: NodeId, at: Instant) {
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

    pub fn plan_to_read(&mut self, node: NodeId) {
        if let Some((at, ..)) = self.nodes[node].inbox.front() {
            self.plan_turn(node, *at);
        }
    }

    pub fn plan_wake(&mut self, node: NodeId) {
        let (now, life) = (self.now, self.nodes[node].life);
        let Some(agent) = self.agent(node, life) else {
            return;
        };
        let Some(at) = agent.swarm.poll_timeout() else {
            return;
        };
        // A clock of microseconds; asking for a time that has passed means at once.
        let at = at.max(now);
        if agent.wakes_at.is_none_or(|planned| at < planned) {
            agent.wakes_at = Some(at);
            self.queue.plan(at, Happening::Wakes { node, life });
        }
    }

    /// One line about what happens, if anybody asked for it.
    pub fn trace(&self, line: impl FnOnce() -> String) {
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

    /// FNV-1a, a word at a time.
    pub fn mix(&mut self, word: u64) {
        self.log = (self.log ^ word).wrapping_mul(0x0000_0100_0000_01b3);
    }
}
