//! What runs on a machine of the room?

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::net::SocketAddr;

use super::agent::Agent;
use super::disk::SimDisk;
use super::fake_peer::{Behaviour, FakePeer};
use super::ids::{EndId, ProcessId};
use super::options::{AgentOptions, FakeOptions};
use super::packet::Packet;
use crate::units::Instant;

pub struct Machine {
    pub address: SocketAddr,
    pub process: ProcessId,
    pub state: MachineState,
    /// Small messages with their arrival times, oldest first; the event loop reads those that have
    /// arrived. They are here and not in the agent because `World` adds a `have` for each machine
    /// while it handles the sender.
    pub inbox: VecDeque<(Instant, EndId, Packet)>,
    pub loop_scheduled: bool,
    /// When its event loop ran last.
    pub loop_ran_at: Instant,
    /// It stands still until then.
    pub still_until: Instant,
}

pub enum MachineState {
    /// Not started yet, or killed.
    Off(Box<Plan>),
    Agent(Box<Agent>),
    Fake(Box<FakePeer>),
}

/// What starts on a machine at its next `SimEvent::Starts`.
pub enum Plan {
    /// With the disk of an earlier process, if there was one.
    Agent(Box<AgentOptions>, Option<Box<SimDisk>>),
    Fake(FakeOptions),
}

impl Machine {
    pub fn downloaded_at(&self) -> Option<Instant> {
        match &self.state {
            MachineState::Agent(agent) => agent.downloaded_at,
            _ => None,
        }
    }
}

impl MachineState {
    pub fn off(plan: Plan) -> MachineState {
        MachineState::Off(Box::new(plan))
    }

    pub fn behaviour(&self) -> Option<Behaviour> {
        match self {
            MachineState::Fake(fake) => Some(fake.behaviour()),
            _ => None,
        }
    }
}
