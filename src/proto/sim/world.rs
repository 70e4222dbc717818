//! What is the state of a simulated room?

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use super::agent::Agent;
use super::event::SimEvent;
use super::ids::{MachineId, ProcessId};
use super::image::Image;
use super::machine::{Machine, MachineState, Plan};
use super::network::Network;
use super::options::{AgentOptions, Interruption, Options};
use super::queue::Queue;
use super::tracker::Tracker;
use crate::policy::subnet::Subnet;
use crate::rng::Rng;
use crate::units::Instant;

/// Everything that a run consists of. This file has what all questions need; the files below it in
/// the list of `mod.rs` have the other methods, by question, and call those of files above them.
pub struct World {
    pub options: Options,
    pub now: Instant,
    pub image: Image,
    pub queue: Queue,
    pub network: Network,
    pub machines: Vec<Machine>,
    pub tracker: Tracker,
    pub rng: Rng,
    /// Starts and restarts of agents that are still in the queue.
    pub starts_pending: u32,
    /// Every agent that can be complete is, and the end of the tracker is scheduled.
    pub released: bool,
    pub ended: bool,
    /// Payload bytes that processes had fetched when they were killed, without unused ones.
    pub fetched_by_killed: u64,
    pub read_back_bad: u32,
    pub sources_bad: u32,
    pub events: u64,
    /// Payload bytes that arrived in each ARRIVALS_INTERVAL: anywhere, and from the first seeder.
    pub arrivals: Vec<[u64; 2]>,
    /// A hash over all events: equal for two runs that are the same.
    pub log: u64,
}

const LISTEN_PORT: u16 = 6881;

/// The subnet of all machines of a rack, or of those that are in none.
pub fn rack_subnet(rack: Option<usize>) -> Subnet {
    let text = match rack {
        Some(rack) => format!("10.77.{}.0/24", 128 + rack),
        None => String::from("10.77.0.0/17"),
    };
    Subnet::parse(&text).expect("it is written as a subnet is")
}

/// The length of one entry of `World::arrivals`.
pub const ARRIVALS_INTERVAL: Duration = Duration::from_millis(50);

impl World {
    pub fn new(options: Options) -> World {
        let image = Image::new(&options.shape, options.tracker.is_some());
        let mut world = World {
            now: Instant(0),
            image,
            queue: Queue::default(),
            network: Network::new(options.sizes),
            machines: Vec::new(),
            tracker: Tracker::new(options.tracker.clone().unwrap_or_default()),
            rng: Rng::new(options.seed ^ 0x5eed),
            starts_pending: 0,
            released: false,
            ended: false,
            fetched_by_killed: 0,
            read_back_bad: 0,
            sources_bad: 0,
            events: 0,
            arrivals: Vec::new(),
            log: 0xcbf2_9ce4_8422_2325,
            options,
        };
        world.schedule_options();
        world
    }

    /// Adds the machines that the options name, and schedules what happens to them.
    fn schedule_options(&mut self) {
        let options = self.options.clone();
        options
            .rack_rates
            .iter()
            .for_each(|rate| self.network.add_rack(*rate));
        for agent in &options.agents {
            self.schedule_agent(agent);
        }
        for fake in &options.fakes {
            self.network.add_machine(fake.rate, fake.rate, None);
            let machine = self.add_machine(Plan::Fake(fake.clone()), None);
            self.queue
                .schedule(fake.starts_at, SimEvent::Starts { machine });
        }
        if let Some(stops_at) = options
            .tracker
            .as_ref()
            .and_then(|tracker| tracker.stops_at)
        {
            self.queue.schedule(stops_at, SimEvent::TrackerStops);
        }
        if let Some(every) = options.cut_interval {
            self.queue
                .schedule(Instant(0) + every, SimEvent::ConnectionCut);
        }
    }

    fn schedule_agent(&mut self, agent: &AgentOptions) {
        self.network
            .add_machine(agent.up_rate, agent.down_rate, agent.rack);
        let machine = self.add_machine(Plan::Agent(Box::new(agent.clone()), None), agent.rack);
        self.queue
            .schedule(agent.starts_at, SimEvent::Starts { machine });
        self.starts_pending += 1;
        match agent.interruption {
            Interruption::None => {}
            Interruption::Terminated(at) => self
                .queue
                .schedule(at.max(agent.starts_at), SimEvent::Terminated { machine }),
            Interruption::Killed {
                at,
                restarts_at,
                power_cut,
            } => {
                self.queue.schedule(
                    at.max(agent.starts_at),
                    SimEvent::Killed { machine, power_cut },
                );
                if let Some(restarts_at) = restarts_at {
                    self.queue.schedule(
                        restarts_at.max(agent.starts_at),
                        SimEvent::Starts { machine },
                    );
                    self.starts_pending += 1;
                }
            }
        }
        if let Some((from, length)) = agent.unplugged {
            self.queue.schedule(
                from,
                SimEvent::Unplugged {
                    machine,
                    until: from + length,
                    stands_still: agent.stands_still,
                },
            );
        }
    }

    /// Each rack is a subnet of its own, behind a router. Its machines are numbered in the order in
    /// which they are added.
    fn add_machine(&mut self, plan: Plan, rack: Option<usize>) -> MachineId {
        let index = self.machines.len();
        let subnet = rack_subnet(rack);
        let before = self.machines.iter();
        let in_rack = before.filter(|machine| subnet.contains(machine.address.ip()));
        let (number, shared_from) = match rack {
            Some(_) => (in_rack.count(), usize::MAX),
            None => (index, self.options.nat_from),
        };
        let host = number.min(shared_from);
        let first = match rack {
            Some(rack) => Ipv4Addr::new(10, 77, 128 + rack as u8, 1),
            None => Ipv4Addr::new(10, 77, 1, 1),
        };
        let ip = Ipv4Addr::from(u32::from(first) + host as u32);
        let port = LISTEN_PORT + (number - host) as u16;
        self.machines.push(Machine {
            address: SocketAddr::new(IpAddr::V4(ip), port),
            process: 0,
            state: MachineState::off(plan),
            inbox: VecDeque::new(),
            loop_scheduled: false,
            loop_ran_at: Instant(0),
            still_until: Instant(0),
        });
        index
    }

    /// The agent of this process, if the process still runs.
    pub fn agent(&mut self, machine: MachineId, process: ProcessId) -> Option<&mut Agent> {
        let machine = &mut self.machines[machine];
        match &mut machine.state {
            MachineState::Agent(agent) if machine.process == process && agent.over_at.is_none() => {
                Some(agent)
            }
            _ => None,
        }
    }

    /// The last agent on each machine that is not off.
    pub fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.machines
            .iter()
            .filter_map(|machine| match &machine.state {
                MachineState::Agent(agent) => Some(&**agent),
                _ => None,
            })
    }

    /// Connections that any process ever asked for.
    pub fn connection_count(&self) -> u32 {
        self.network.connection_count()
    }

    /// The event loop of a process runs at `at`, or a little later, unless it is scheduled already.
    pub fn schedule_loop(&mut self, machine: MachineId, at: Instant) {
        let state = &mut self.machines[machine];
        if !core::mem::replace(&mut state.loop_scheduled, true) {
            let at = if self.options.coarse {
                at.max(state.loop_ran_at + self.options.loop_time)
            } else {
                at
            };
            let process = state.process;
            self.queue
                .schedule(at, SimEvent::LoopRuns { machine, process });
        }
    }

    /// The event loop runs when the first message of the inbox is there.
    pub fn schedule_inbox(&mut self, machine: MachineId) {
        if let Some((at, ..)) = self.machines[machine].inbox.front() {
            self.schedule_loop(machine, *at);
        }
    }

    /// An agent is woken when its next timeout is due.
    pub fn schedule_timer(&mut self, machine: MachineId) {
        let (now, process) = (self.now, self.machines[machine].process);
        let Some(agent) = self.agent(machine, process) else {
            return;
        };
        let Some(at) = agent.timeout() else {
            return;
        };
        // A timeout that has passed is due at once.
        let at = at.max(now);
        if agent.wakes_at.is_none_or(|scheduled| at < scheduled) {
            agent.wakes_at = Some(at);
            self.queue
                .schedule(at, SimEvent::TimerFires { machine, process });
        }
    }

    /// Prints one line about what happens, if `SWARMDD_SIM_TRACE` asked for it.
    pub fn trace(&self, line: impl FnOnce() -> String) {
        if self.options.trace {
            std::println!(
                "{:>12.6} {}",
                self.now.since(Instant(0)).as_secs_f64(),
                line()
            );
        }
    }

    /// The state of every machine, for the message of a panic.
    pub fn describe(&self) -> String {
        let mut text = format!("at {:?}\n", self.now.since(Instant(0)));
        for (index, machine) in self.machines.iter().enumerate() {
            text += &match &machine.state {
                MachineState::Off(_) => format!("{index}: off\n"),
                MachineState::Fake(_) => format!("{index}: fake {:?}\n", machine.state.behaviour()),
                MachineState::Agent(agent) => format!(
                    "{index}: {:?} fault {:?} process {} {:?}\n",
                    agent.options.role,
                    agent.options.disk.fault,
                    machine.process,
                    agent.swarm.progress()
                ),
            };
        }
        text
    }

    /// Adds a word to `log`: FNV-1a, a word at a time.
    pub fn log_word(&mut self, word: u64) {
        self.log = (self.log ^ word).wrapping_mul(0x0000_0100_0000_01b3);
    }
}
