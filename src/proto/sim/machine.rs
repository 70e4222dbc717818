//! What is on a machine of the room at a given moment?

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::net::SocketAddr;

use super::agent::Agent;
use super::disk::SimDisk;
use super::fake_peer::{FakePeer, Manner};
use super::ids::{EndId, Life};
use super::options::{AgentOptions, FakeOptions};
use super::packet::Packet;
use crate::units::Instant;

pub struct Node {
    pub address: SocketAddr,
    pub life: Life,
    pub role: NodeRole,
    /// Small messages that are there, or will be at that moment; read when the loop comes round.
    /// These are here and not in the agent because every `have` for it is put here while somebody
    /// else is being looked at.
    pub inbox: VecDeque<(Instant, EndId, Packet)>,
    pub turn_planned: bool,
    /// When its loop came round last.
    pub settled_at: Instant,
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

impl Node {
    pub fn downloaded_at(&self) -> Option<Instant> {
        match &self.role {
            NodeRole::Agent(agent) => agent.downloaded_at,
            _ => None,
        }
    }
}

impl NodeRole {
    pub fn off(plan: Plan) -> NodeRole {
        NodeRole::Off(Box::new(plan))
    }

    pub fn manner(&self) -> Option<Manner> {
        match self {
            NodeRole::Fake(fake) => Some(fake.manner()),
            _ => None,
        }
    }
}
