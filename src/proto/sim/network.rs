//! When does a message arrive? Links with bandwidth and latency, connections with a bounded send
//! window.
//!
//! Every machine has one uplink and one downlink, and may stand in a rack that has one of each as
//! well. Messages of one connection are put into segments: some small ones, then at most one block.
//!
//! As in a kernel, bytes wait in two places before they are on the line. The *send buffer* of a
//! connection holds what the process has written; it takes no more while too much of it is not
//! sent (TCP_NOTSENT_LOWAT) or not acknowledged (SO_SNDBUF). The *uplink queue* of the machine
//! holds the segments of all connections, first come, first served, as far as the congestion window
//! of each allows. What is in there is in a fixed order: no decision of the process overtakes it.
//!
//! In a large room most messages are `have`, a thousand for each block. A `have` gets no event of
//! its own: it travels between two segments (`send_small`) and waits at the receiver until the
//! receiver's event loop runs.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use super::congestion::Congestion;
use super::event::SimEvent;
use super::ids::{EndId, MachineId, ProcessId};
use super::options::Sizes;
use super::packet::{Packet, Segment};
use super::queue::Queue;
use crate::units::{BufferId, Instant, PeerSlot};
use crate::wire::message::RawBlock;

/// What one end sends.
#[derive(Default)]
pub struct Pipe {
    /// The send window, oldest message first; the first `in_flight` are in a segment already.
    window: VecDeque<Packet>,
    in_flight: usize,
    in_flight_bytes: u32,
    congestion: Congestion,
    /// A block of which only a part fits into the window; no message overtakes it.
    partial: Option<Packet>,
    waits_for_uplink: bool,
}

/// A connection as one of the two processes sees it.
pub struct End {
    pub machine: MachineId,
    pub process: ProcessId,
    /// The slot that an agent gave it; fake peers need none.
    pub slot: Option<PeerSlot>,
    /// False before the connection is set up, and when it is gone.
    pub open: bool,
    /// This process has closed it, or has learned of its end.
    pub gone: bool,
    is_partial: bool,
    window_bytes: u32,
    /// Of these, the bytes that are in no segment yet.
    unsent_bytes: u32,
    pub flow: Box<Flow>,
}

/// What one end sends, and the block it receives. Boxed apart from the rest of `End`, which is read
/// for every `have`.
#[derive(Default)]
pub struct Flow {
    sends: Pipe,
    /// The block that is being received.
    pub receiving: Option<Receiving>,
    /// Buffer and length of the block in `sends.partial`, pinned in the pool of the sending agent.
    pub pinned: Option<(BufferId, u32)>,
}

#[derive(Clone, Copy)]
pub struct Receiving {
    pub block: RawBlock,
    pub packed: Option<u32>,
    pub good: bool,
    /// Buffer and offset where its bytes go. `None`: they are dropped.
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
    queue: VecDeque<Segment>,
    queue_bytes: u32,
    /// A send buffer of this machine takes more again.
    writable: bool,
    /// Connections that have something for the queue; it takes from them round-robin.
    waiting: VecDeque<EndId>,
    /// Bytes of small messages, sent and received, since the last segment; the next segment takes
    /// that much longer.
    small_bytes: [u32; 2],
    down_free_at: Instant,
    unplugged_until: Instant,
}

/// Machines that share one cable to all others: first come, first served.
struct Rack {
    rate: u64,
    /// Up and down.
    free_at: [Instant; 2],
    /// Bytes that the cable has carried, up and down.
    carried: [u64; 2],
}

pub struct Network {
    links: Vec<Link>,
    racks: Vec<Rack>,
    connections: Vec<Connection>,
    sizes: Sizes,
}

/// Small messages fill a segment up to the size of a block.
const SMALL_BYTES_MAX: u32 = 16 * 1024;

impl Network {
    pub fn new(sizes: Sizes) -> Network {
        Network {
            links: Vec::new(),
            racks: Vec::new(),
            connections: Vec::new(),
            sizes,
        }
    }

    /// Racks are numbered from 0. Rates are bytes per second, here and everywhere.
    pub fn add_rack(&mut self, rate: u64) {
        self.racks.push(Rack {
            rate,
            free_at: [Instant(0); 2],
            carried: [0; 2],
        });
    }

    /// Bytes that the cable of each rack has carried, up and down.
    pub fn carried(&self) -> Vec<[u64; 2]> {
        self.racks.iter().map(|rack| rack.carried).collect()
    }

    pub fn add_machine(&mut self, up_rate: u64, down_rate: u64, rack: Option<usize>) {
        assert!(rack.is_none_or(|rack| rack < self.racks.len()));
        self.links.push(Link {
            up_rate,
            down_rate,
            rack,
            sending: false,
            queue: VecDeque::new(),
            queue_bytes: 0,
            writable: false,
            waiting: VecDeque::new(),
            small_bytes: [0; 2],
            down_free_at: Instant(0),
            unplugged_until: Instant(0),
        });
    }

    pub fn connect(
        &mut self,
        from: (MachineId, ProcessId),
        to: (MachineId, ProcessId),
        latency: Duration,
    ) -> EndId {
        let end = |(machine, process)| End {
            machine,
            process,
            slot: None,
            open: false,
            gone: false,
            is_partial: false,
            window_bytes: 0,
            unsent_bytes: 0,
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

    /// Every connection that a process has not closed. Scans all connections of the run, so it is
    /// only for processes that end.
    pub fn ends_of(&self, machine: MachineId, process: ProcessId) -> Vec<EndId> {
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
            end.machine == machine && end.process == process && !end.gone
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
        let sizes = &self.sizes;
        let takes = end.window_bytes < sizes.buffer && end.unsent_bytes < sizes.unsent;
        end.open && !end.is_partial && takes
    }

    /// The send window is empty, so that a small message overtakes nothing.
    pub fn is_clear(&self, from: EndId) -> bool {
        self.end(from).window_bytes == 0
    }

    /// Sends a small message between two segments, and returns when it arrives. A busy link is busy
    /// longer by the time that the message takes.
    pub fn send_small(&mut self, now: Instant, from: EndId, packet: &Packet) -> Instant {
        let (sender, receiver) = (self.end(from).machine, self.end(from.other()).machine);
        if self.links[sender].sending {
            self.links[sender].small_bytes[0] += packet.bytes();
        }
        if self.links[receiver].down_free_at > now {
            self.links[receiver].small_bytes[1] += packet.bytes();
        }
        for side in 0..2 {
            if let Some(rack) = self.cable(from, side) {
                self.racks[rack].carried[side] += u64::from(packet.bytes());
            }
        }
        now.max(self.links[sender].unplugged_until)
            .max(self.links[receiver].unplugged_until)
            + self.latency(from)
    }

    /// Puts one message into the send window. False: it is a block and did not fit entirely;
    /// nothing may be pushed until `end_segment` returns true.
    pub fn push(&mut self, now: Instant, from: EndId, packet: Packet, queue: &mut Queue) -> bool {
        let window_bytes_max = self.sizes.buffer;
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
        end.unsent_bytes += packet.bytes();
        end.flow.sends.window.push_back(packet);
        self.enqueue(now, from, queue);
        true
    }

    /// Has the uplink take what the connection may send.
    fn enqueue(&mut self, now: Instant, from: EndId, queue: &mut Queue) {
        let end = self.end_mut(from);
        let (machine, pipe) = (end.machine, &mut end.flow.sends);
        if pipe.waits_for_uplink || !pipe.may_send() {
            return;
        }
        pipe.waits_for_uplink = true;
        self.links[machine].waiting.push_back(from);
        self.fill_queue(machine);
        if !self.links[machine].sending {
            self.send_next(now, machine, queue);
        }
    }

    /// Moves segments of the connections that wait into the queue of their uplink.
    fn fill_queue(&mut self, machine: MachineId) {
        let (queue_bytes_max, unsent_max) = (self.sizes.up, self.sizes.unsent);
        while let Some(from) = self.links[machine].waiting.front().copied() {
            let has_room = self.links[machine].queue_bytes < queue_bytes_max;
            let end = self.end_mut(from);
            let pipe = &mut end.flow.sends;
            if !has_room {
                pipe.congestion.meets_full_queue();
                return;
            }
            let segment = pipe.may_send().then(|| pipe.cut_segment(from)).flatten();
            pipe.waits_for_uplink = segment.is_some() && pipe.may_send();
            let waits = pipe.waits_for_uplink;
            let before = end.unsent_bytes;
            end.unsent_bytes -= segment.map_or(0, |segment| segment.bytes);
            // The kernel tells a process only when half of it is sent (tcp_stream_memory_free).
            let writable = 2 * before >= unsent_max && 2 * end.unsent_bytes < unsent_max;
            let link = &mut self.links[machine];
            link.writable |= writable;
            link.waiting.pop_front();
            if let Some(segment) = segment {
                link.queue_bytes += segment.bytes;
                link.queue.push_back(segment);
            }
            if waits {
                link.waiting.push_back(from);
            }
        }
    }

    /// The uplink has sent a segment and takes the next one.
    pub fn uplink_free(&mut self, now: Instant, machine: MachineId, queue: &mut Queue) {
        assert!(self.links[machine].sending);
        self.links[machine].sending = false;
        self.send_next(now, machine, queue);
    }

    /// True once if a process on this machine can write again what it could not before.
    pub fn takes_more(&mut self, machine: MachineId) -> bool {
        mem::take(&mut self.links[machine].writable)
    }

    fn send_next(&mut self, now: Instant, machine: MachineId, queue: &mut Queue) {
        let link = &mut self.links[machine];
        let Some(mut segment) = link.queue.pop_front() else {
            return;
        };
        link.queue_bytes -= segment.bytes;
        let start = now.max(link.unplugged_until);
        let bytes = segment.bytes + mem::take(&mut link.small_bytes[0]);
        segment.sending = time_for(bytes, link.up_rate);
        link.sending = true;
        queue.schedule(start + segment.sending, SimEvent::UplinkFree { machine });
        let reaches = self.pass_cable(start, 0, &mut segment) + self.latency(segment.from);
        let event = match self.cable(segment.from, 1) {
            Some(_) => SimEvent::SegmentReachesRack(segment),
            None => SimEvent::SegmentReaches(segment),
        };
        queue.schedule(reaches, event);
        self.fill_queue(machine);
    }

    /// The rack of the sender (`side` 0) or of the receiver (1), if its cable lies on the way from
    /// this end.
    fn cable(&self, from: EndId, side: usize) -> Option<usize> {
        let racks = [from, from.other()].map(|end| self.links[self.end(end).machine].rack);
        racks[side].filter(|_| racks[0] != racks[1])
    }

    /// The first byte of a segment has come to the cable of the receiver's rack, if it stands in
    /// another rack than the sender. Segments pass it in the order in which they come to it.
    pub fn reach_rack(&mut self, now: Instant, mut segment: Segment, queue: &mut Queue) {
        let reaches = self.pass_cable(now, 1, &mut segment);
        queue.schedule(reaches, SimEvent::SegmentReaches(segment));
    }

    /// Returns when the first byte of a segment that comes at `start` has passed the cable of the
    /// sender's rack (`side` 0) or of the receiver's (1), if there is one on its way. Its last byte
    /// follows when both the cable and what lies before it have sent it.
    fn pass_cable(&mut self, start: Instant, side: usize, segment: &mut Segment) -> Instant {
        let Some(rack) = self.cable(segment.from, side) else {
            return start;
        };
        let rack = &mut self.racks[rack];
        rack.carried[side] += u64::from(segment.bytes);
        let free_at = &mut rack.free_at[side];
        let queued = free_at.0.saturating_sub(start.0) * rack.rate / 1_000_000;
        let first = start.max(*free_at);
        *free_at = first + time_for(segment.bytes, rack.rate);
        segment.sending = (start + segment.sending).max(*free_at).since(first);
        if queued > u64::from(self.sizes.down) {
            self.end_mut(segment.from)
                .flow
                .sends
                .congestion
                .meets_full_queue();
        }
        first
    }

    /// The first byte of a segment reaches the downlink. The segment ends when its last byte has
    /// arrived and the downlink has received all that came before it. Returns the segment if it
    /// begins now; otherwise an event for its beginning is scheduled.
    pub fn reach(
        &mut self,
        now: Instant,
        mut segment: Segment,
        queue: &mut Queue,
    ) -> Option<Segment> {
        let machine = self.end(segment.from.other()).machine;
        let link = &mut self.links[machine];
        let start = now.max(link.down_free_at).max(link.unplugged_until);
        let queued = link.down_free_at.0.saturating_sub(now.0) * link.down_rate / 1_000_000;
        let is_full = queued > u64::from(self.sizes.down);
        let bytes = segment.bytes + mem::take(&mut link.small_bytes[1]);
        link.down_free_at = start + time_for(bytes, link.down_rate);
        segment.ends_at = (now + segment.sending).max(link.down_free_at);
        if is_full {
            self.end_mut(segment.from)
                .flow
                .sends
                .congestion
                .meets_full_queue();
        }
        if start > now {
            queue.schedule(start, SimEvent::SegmentBegins(segment));
            return None;
        }
        Some(segment)
    }

    /// Takes the oldest message in flight out of the send window.
    pub fn take(&mut self, from: EndId) -> Packet {
        let pipe = &mut self.end_mut(from).flow.sends;
        assert!(pipe.in_flight > 0);
        pipe.in_flight -= 1;
        pipe.window
            .pop_front()
            .expect("a message in flight is in the window")
    }

    /// The bytes of a segment leave the window. True: the block of which only a part fitted is now
    /// in the window entirely.
    pub fn end_segment(&mut self, now: Instant, segment: Segment, queue: &mut Queue) -> bool {
        let window_bytes_max = self.sizes.buffer;
        let end = self.end_mut(segment.from);
        end.window_bytes = end
            .window_bytes
            .checked_sub(segment.bytes)
            .expect("every byte leaves once");
        let pipe = &mut end.flow.sends;
        pipe.congestion.arrives(segment.bytes, pipe.in_flight_bytes);
        pipe.in_flight_bytes -= segment.bytes;
        let fits = |packet: &mut Packet| {
            end.window_bytes == 0 || end.window_bytes + packet.bytes() <= window_bytes_max
        };
        let Some(packet) = pipe.partial.take_if(fits) else {
            self.enqueue(now, segment.from, queue);
            return false;
        };
        end.is_partial = false;
        end.window_bytes += packet.bytes();
        end.unsent_bytes += packet.bytes();
        pipe.window.push_back(packet);
        self.enqueue(now, segment.from, queue);
        true
    }

    /// The process on this side has closed the connection, or has learned that it is gone. Messages
    /// that it sent and that have not arrived are lost.
    pub fn close(&mut self, end: EndId) {
        let end = self.end_mut(end);
        end.open = false;
        end.gone = true;
        (end.is_partial, end.window_bytes, end.unsent_bytes) = (false, 0, 0);
        let waits_for_uplink = end.flow.sends.waits_for_uplink;
        *end.flow = Flow {
            sends: Pipe {
                waits_for_uplink,
                ..Pipe::default()
            },
            ..Flow::default()
        };
    }

    /// Nothing passes the cable of this machine before `until`.
    pub fn unplug(&mut self, machine: MachineId, until: Instant) {
        self.links[machine].unplugged_until = self.links[machine].unplugged_until.max(until);
    }
}

impl Pipe {
    fn may_send(&self) -> bool {
        let is_free = self.congestion.allows(self.in_flight_bytes);
        self.in_flight < self.window.len() && is_free
    }

    fn cut_segment(&mut self, from: EndId) -> Option<Segment> {
        let mut segment = Segment {
            from,
            small_count: 0,
            has_block: false,
            bytes: 0,
            sending: Duration::ZERO,
            ends_at: Instant(0),
        };
        for packet in self.window.range(self.in_flight..) {
            segment.bytes += packet.bytes();
            segment.has_block = matches!(packet, Packet::Block { .. });
            segment.small_count += u32::from(!segment.has_block);
            if segment.has_block || segment.bytes >= SMALL_BYTES_MAX {
                break;
            }
        }
        self.in_flight += segment.small_count as usize + usize::from(segment.has_block);
        self.in_flight_bytes += segment.bytes;
        self.congestion.leaves(segment.bytes);
        (segment.bytes > 0).then_some(segment)
    }
}

fn time_for(bytes: u32, rate: u64) -> Duration {
    assert!(rate > 0);
    Duration::from_micros((u64::from(bytes) * 1_000_000).div_ceil(rate))
}
