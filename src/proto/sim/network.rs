//! When does a message arrive? Links with bandwidth and latency, connections with a bounded send
//! window.
//!
//! Every machine has one uplink and one downlink, and may stand in a rack that has one of each as
//! well. Messages of one connection are put into segments: some small ones, then at most one block.
//! An uplink sends one segment at a time, of each connection that has something in turn: that is
//! fair sharing to within one block. A segment keeps its place in the send window of its connection
//! until it has passed the receiver's downlink, so a slow receiver slows its senders down and not
//! the rest of their uplink.
//!
//! In a large room most of what travels is `have`, a thousand for each block. Such a message needs
//! no event of its own: it squeezes in between segments (`squeeze`) and waits at the receiver until
//! its loop comes round.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use super::event::Happening;
use super::ids::{EndId, Life, NodeId};
use super::packet::{Packet, Segment};
use super::queue::Queue;
use crate::units::{BufferId, Instant, PeerSlot};
use crate::wire::message::RawBlock;

/// One direction of a connection.
#[derive(Default)]
pub struct Pipe {
    /// Everything in the send window, oldest first; the first `under_way` are in a segment already.
    window: VecDeque<Packet>,
    under_way: usize,
    /// A block that is only partly in the window; nothing passes it.
    partial: Option<Packet>,
    waits_for_uplink: bool,
}

/// A connection as one of the two processes sees it.
pub struct End {
    pub node: NodeId,
    pub life: Life,
    /// The name an agent gave it; fake peers need none.
    pub slot: Option<PeerSlot>,
    /// False before the connection stands, and when it is gone.
    pub open: bool,
    /// This process has closed it, or has learned of its end.
    pub gone: bool,
    is_partial: bool,
    window_bytes: u32,
    pub flow: Box<Flow>,
}

/// What there is at one end while blocks pass. Apart from the rest, which is looked at for every
/// `have`.
#[derive(Default)]
pub struct Flow {
    sends: Pipe,
    /// What is being received right now, and where its bytes go.
    pub receiving: Option<Receiving>,
    /// Buffer and length of the block in `sends.partial`, pinned in the pool of the sending agent.
    pub pinned: Option<(BufferId, u32)>,
}

#[derive(Clone, Copy)]
pub struct Receiving {
    pub block: RawBlock,
    pub good: bool,
    /// Buffer and offset; None: nowhere.
    pub place: Option<(BufferId, u32)>,
}

pub struct Connection {
    pub ends: [End; 2],
    pub latency: Duration,
}

struct Link {
    up_rate: u64,
    down_rate: u64,
    rack: Option<usize>,
    sending: bool,
    /// Connections with something to send, in turn.
    turn: VecDeque<EndId>,
    /// What went by between segments, and takes its time from the next one: sent and received.
    squeezed: [u32; 2],
    down_free_at: Instant,
    unplugged_until: Instant,
}

/// Machines whose way to all others is one cable: first come, first served.
struct Rack {
    rate: u64,
    up_free_at: Instant,
    down_free_at: Instant,
}

pub struct Network {
    links: Vec<Link>,
    racks: Vec<Rack>,
    connections: Vec<Connection>,
    window_bytes_max: u32,
}

/// Most that small messages fill of one turn on the uplink: as much as a block.
const SMALL_BYTES_MAX: u32 = 16 * 1024;

impl Network {
    pub fn new(window_bytes_max: u32) -> Network {
        Network {
            links: Vec::new(),
            racks: Vec::new(),
            connections: Vec::new(),
            window_bytes_max,
        }
    }

    /// Racks are numbered from 0. Rates are bytes per second, here and everywhere.
    pub fn add_rack(&mut self, rate: u64) {
        self.racks.push(Rack {
            rate,
            up_free_at: Instant(0),
            down_free_at: Instant(0),
        });
    }

    pub fn add_node(&mut self, up_rate: u64, down_rate: u64, rack: Option<usize>) {
        assert!(rack.is_none_or(|rack| rack < self.racks.len()));
        self.links.push(Link {
            up_rate,
            down_rate,
            rack,
            sending: false,
            turn: VecDeque::new(),
            squeezed: [0; 2],
            down_free_at: Instant(0),
            unplugged_until: Instant(0),
        });
    }

    pub fn connect(
        &mut self,
        from: (NodeId, Life),
        to: (NodeId, Life),
        latency: Duration,
    ) -> EndId {
        let end = |(node, life)| End {
            node,
            life,
            slot: None,
            open: false,
            gone: false,
            is_partial: false,
            window_bytes: 0,
            flow: Box::default(),
        };
        self.connections.push(Connection {
            ends: [end(from), end(to)],
            latency,
        });
        EndId {
            connection: self.connections.len() as u32 - 1,
            side: 0,
        }
    }

    pub fn end(&self, end: EndId) -> &End {
        &self.connections[end.connection as usize].ends[end.side as usize]
    }

    pub fn end_mut(&mut self, end: EndId) -> &mut End {
        &mut self.connections[end.connection as usize].ends[end.side as usize]
    }

    /// Every connection that a process has not closed. Looks at all there ever were: only for those
    /// who go.
    pub fn ends_of(&self, node: NodeId, life: Life) -> Vec<EndId> {
        let ids = (0..self.connections.len() as u32).flat_map(|connection| {
            [
                EndId {
                    connection,
                    side: 0,
                },
                EndId {
                    connection,
                    side: 1,
                },
            ]
        });
        let is_its = |id: &EndId| {
            let end = self.end(*id);
            end.node == node && end.life == life && !end.gone
        };
        ids.filter(is_its).collect()
    }

    pub fn latency(&self, end: EndId) -> Duration {
        self.connections[end.connection as usize].latency
    }

    pub fn connection_count(&self) -> u32 {
        self.connections.len() as u32
    }

    pub fn has_room(&self, end: EndId) -> bool {
        let end = self.end(end);
        end.open && !end.is_partial && end.window_bytes < self.window_bytes_max
    }

    /// Nothing of this connection is on its way, so that a small message overtakes nothing.
    pub fn is_clear(&self, from: EndId) -> bool {
        self.end(from).window_bytes == 0
    }

    /// A small message squeezes in between segments; when it is there is returned. Where links are
    /// busy, they are busy for so much longer.
    pub fn squeeze(&mut self, now: Instant, from: EndId, packet: &Packet) -> Instant {
        let (sender, receiver) = (self.end(from).node, self.end(from.other()).node);
        if self.links[sender].sending {
            self.links[sender].squeezed[0] += packet.bytes();
        }
        if self.links[receiver].down_free_at > now {
            self.links[receiver].squeezed[1] += packet.bytes();
        }
        now.max(self.links[sender].unplugged_until)
            .max(self.links[receiver].unplugged_until)
            + self.latency(from)
    }

    /// Puts one message into the send window. False: a block that did not fit entirely; nothing may
    /// be pushed until `end_segment` says that it has gone in.
    pub fn push(&mut self, now: Instant, from: EndId, packet: Packet, queue: &mut Queue) -> bool {
        let window_bytes_max = self.window_bytes_max;
        let end = self.end_mut(from);
        assert!(end.open);
        assert!(!end.is_partial);
        let is_block = matches!(packet, Packet::Block { .. });
        if is_block && end.window_bytes > 0 && end.window_bytes + packet.bytes() > window_bytes_max
        {
            end.flow.sends.partial = Some(packet);
            end.is_partial = true;
            return false;
        }
        end.window_bytes += packet.bytes();
        end.flow.sends.window.push_back(packet);
        self.offer(now, from, queue);
        true
    }

    /// Puts the connection into the turn of its uplink if it has something to send.
    fn offer(&mut self, now: Instant, from: EndId, queue: &mut Queue) {
        let end = self.end_mut(from);
        let (node, pipe) = (end.node, &mut end.flow.sends);
        if pipe.waits_for_uplink || pipe.under_way == pipe.window.len() {
            return;
        }
        pipe.waits_for_uplink = true;
        self.links[node].turn.push_back(from);
        if !self.links[node].sending {
            self.send_next(now, node, queue);
        }
    }

    /// The uplink has sent a segment: the next one.
    pub fn uplink_free(&mut self, now: Instant, node: NodeId, queue: &mut Queue) {
        assert!(self.links[node].sending);
        self.links[node].sending = false;
        self.send_next(now, node, queue);
    }

    fn send_next(&mut self, now: Instant, node: NodeId, queue: &mut Queue) {
        while let Some(from) = self.links[node].turn.pop_front() {
            let up_rate = self.links[node].up_rate;
            let pipe = &mut self.end_mut(from).flow.sends;
            pipe.waits_for_uplink = false;
            let Some(mut segment) = pipe.cut_segment(from) else {
                continue;
            };
            let start = now.max(self.links[node].unplugged_until);
            let link = &mut self.links[node];
            segment.sending = time_for(segment.bytes + mem::take(&mut link.squeezed[0]), up_rate);
            link.sending = true;
            queue.plan(start + segment.sending, Happening::UplinkFree { node });
            let reaches = self.pass_racks(start, &mut segment) + self.latency(from);
            queue.plan(reaches, Happening::Reaches(segment));
            let pipe = &mut self.end_mut(from).flow.sends;
            if pipe.under_way < pipe.window.len() {
                pipe.waits_for_uplink = true;
                self.links[node].turn.push_back(from);
            }
            return;
        }
    }

    /// From one rack to another: when the first byte of a segment that starts now is let through.
    /// The last one follows when the sender has sent it, or the slower of the cables.
    fn pass_racks(&mut self, start: Instant, segment: &mut Segment) -> Instant {
        let [from, to] =
            [segment.from, segment.from.other()].map(|end| self.links[self.end(end).node].rack);
        if from == to {
            return start;
        }
        let (mut first, mut last) = (start, start + segment.sending);
        for (rack, up) in [(from, true), (to, false)] {
            let Some(rack) = rack.map(|rack| &mut self.racks[rack]) else {
                continue;
            };
            let free_at = if up {
                &mut rack.up_free_at
            } else {
                &mut rack.down_free_at
            };
            first = first.max(*free_at);
            *free_at = first + time_for(segment.bytes, rack.rate);
            last = last.max(*free_at);
        }
        segment.sending = last.since(first);
        first
    }

    /// A segment reaches the downlink. It is through at the earliest when its last byte arrives, at
    /// the latest when the downlink has taken in everything that came before it.
    pub fn reach(
        &mut self,
        now: Instant,
        mut segment: Segment,
        queue: &mut Queue,
    ) -> Option<Segment> {
        let node = self.end(segment.from.other()).node;
        let link = &mut self.links[node];
        let start = now.max(link.down_free_at).max(link.unplugged_until);
        let bytes = segment.bytes + mem::take(&mut link.squeezed[1]);
        link.down_free_at = start + time_for(bytes, link.down_rate);
        segment.ends_at = (now + segment.sending).max(link.down_free_at);
        if start > now {
            queue.plan(start, Happening::Begins(segment));
            return None;
        }
        Some(segment)
    }

    /// Takes the oldest message that is under way out of the pipe.
    pub fn take(&mut self, from: EndId) -> Packet {
        let pipe = &mut self.end_mut(from).flow.sends;
        assert!(pipe.under_way > 0);
        pipe.under_way -= 1;
        pipe.window
            .pop_front()
            .expect("what is under way is in the window")
    }

    /// The bytes of a segment have left the window. True: now the block that was partly in it is in
    /// it entirely.
    pub fn end_segment(&mut self, now: Instant, segment: Segment, queue: &mut Queue) -> bool {
        let window_bytes_max = self.window_bytes_max;
        let end = self.end_mut(segment.from);
        end.window_bytes = end
            .window_bytes
            .checked_sub(segment.bytes)
            .expect("every byte leaves once");
        let pipe = &mut end.flow.sends;
        let fits = |packet: &mut Packet| {
            end.window_bytes == 0 || end.window_bytes + packet.bytes() <= window_bytes_max
        };
        let Some(packet) = pipe.partial.take_if(fits) else {
            return false;
        };
        end.is_partial = false;
        end.window_bytes += packet.bytes();
        pipe.window.push_back(packet);
        self.offer(now, segment.from, queue);
        true
    }

    /// The process on this side has closed the connection, or has learned that it is gone. What it
    /// sent and what has not arrived is lost.
    pub fn close(&mut self, end: EndId) {
        let end = self.end_mut(end);
        end.open = false;
        end.gone = true;
        (end.is_partial, end.window_bytes) = (false, 0);
        let waits_for_uplink = end.flow.sends.waits_for_uplink;
        *end.flow = Flow {
            sends: Pipe {
                waits_for_uplink,
                ..Pipe::default()
            },
            ..Flow::default()
        };
    }

    /// Nothing moves on this machine's cable until then.
    pub fn unplug(&mut self, node: NodeId, until: Instant) {
        self.links[node].unplugged_until = self.links[node].unplugged_until.max(until);
    }
}

impl Pipe {
    fn cut_segment(&mut self, from: EndId) -> Option<Segment> {
        let mut segment = Segment {
            from,
            small_count: 0,
            has_block: false,
            bytes: 0,
            sending: Duration::ZERO,
            ends_at: Instant(0),
        };
        for packet in self.window.range(self.under_way..) {
            segment.bytes += packet.bytes();
            segment.has_block = matches!(packet, Packet::Block { .. });
            segment.small_count += u32::from(!segment.has_block);
            if segment.has_block || segment.bytes >= SMALL_BYTES_MAX {
                break;
            }
        }
        self.under_way += segment.small_count as usize + usize::from(segment.has_block);
        (segment.bytes > 0).then_some(segment)
    }
}

fn time_for(bytes: u32, rate: u64) -> Duration {
    assert!(rate > 0);
    Duration::from_micros((u64::from(bytes) * 1_000_000).div_ceil(rate))
}
