//! What did the seeds teach us? For each bug that a run found, the smallest case that shows it,
//! written by hand.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use super::image::{Image, Shape};
use crate::limits::*;
use crate::policy::load::Compress;
use crate::policy::throttle::Throttles;
use crate::rng::Rng;
use crate::swarm::*;
use crate::units::*;
use crate::wire::announce::Answer;
use crate::wire::message::{Handshake, Message, RawBlock};

/// One agent, and a hand that plays everybody else.
struct Bench {
    image: Image,
    swarm: Swarm,
    now: Instant,
}

const FULL: Message = Message::HaveAll;

impl Bench {
    fn new(role: Role, piece_count: u32, piece_bytes: u32, spare_buffers: u32) -> Bench {
        let image = Image::new(
            &Shape::of_distinct(piece_count, piece_bytes, piece_bytes),
            true,
        );
        let config = Config {
            role,
            peer_id: PeerId(*b"-SD0001-the agent   "),
            listen_port: 6881,
            rng_seed: 1,
            buffer_count: buffer_count_min(&image.metainfo.layout) + spare_buffers,
            peers: Vec::new(),
            allowed: Vec::new(),
            scan: ScanPolicy::Skip,
            verify: true,
            read_back_distance: READ_BACK_DISTANCE,
            alignment: 512,
            compress: Compress::Auto,
            tracker_grace: Duration::from_secs(30),
            seed_for: None,
            limits: SeedingLimits::default(),
            stall: None,
        };
        let now = Instant(1_000_000);
        let swarm = Swarm::new(now, image.metainfo.clone(), config);
        Bench { image, swarm, now }
    }

    /// Peer number `host` calls and introduces itself.
    fn peer(&mut self, host: u8, opening: Message) -> PeerSlot {
        let address = SocketAddr::from(([10, 77, 0, host], 40_000));
        let slot = self
            .swarm
            .handle_incoming(self.now, address)
            .expect("there is room");
        let mut peer_id = PeerId(*b"-XX0001-somebody    ");
        peer_id.0[19] = host;
        let info_hash = self.image.metainfo.info_hash;
        let handshake = Handshake {
            fast: true,
            extended: false,
            info_hash,
            peer_id,
        };
        self.swarm.handle_handshake(self.now, slot, &handshake);
        self.hears(slot, opening);
        self.said(slot);
        slot
    }

    fn hears(&mut self, slot: PeerSlot, message: Message) {
        self.swarm
            .handle_message(self.now, slot, message, &mut Throttles::default());
    }

    /// Everything it wants to say to this peer. Blocks are confirmed at once.
    fn said(&mut self, slot: PeerSlot) -> Vec<Send> {
        let mut said = Vec::new();
        while let Some(send) = self
            .swarm
            .poll_send(self.now, slot, &mut Throttles::default())
        {
            if let Send::Block { .. } = send {
                self.swarm.handle_sent(self.now, slot);
            }
            said.push(send);
        }
        said
    }

    /// The blocks it asks this peer for.
    fn asked(&mut self, slot: PeerSlot) -> Vec<RawBlock> {
        let request = |send| match send {
            Send::Message(Message::Request(block)) => Some(block),
            _ => None,
        };
        self.said(slot).into_iter().filter_map(request).collect()
    }

    fn gives(&mut self, slot: PeerSlot, block: RawBlock) {
        let _ = self.swarm.begin_block(self.now, slot, block);
        self.swarm
            .handle_block(self.now, slot, block, &mut Throttles::default());
    }

    /// Hashes all that can be hashed. Returns the pieces that are hashed to their end.
    fn hashes(&mut self) -> Vec<HashOf> {
        let mut through = Vec::new();
        loop {
            let hashes = self.swarm.poll_hash(Patience::Over);
            if hashes.is_empty() {
                return through;
            }
            let whole = |hash: &Hash| {
                hash.begin + hash.length == hash.of.length(&self.image.metainfo.layout)
            };
            let whole = hashes.into_iter().filter(whole);
            through.extend(whole.map(|hash| hash.of));
        }
    }

    /// The hash unit answers for each piece that is hashed to its end. Returns the tickets that
    /// then wait for the disk.
    fn judge(&mut self, good: bool) -> Vec<Ticket> {
        loop {
            let through = self.hashes();
            for of in &through {
                let hash = self.image.hash(of.piece(), good);
                match of {
                    HashOf::Download(_) | HashOf::Block(..) | HashOf::Part { .. } => {
                        self.swarm.handle_hashed(self.now, *of, hash);
                    }
                    HashOf::Disk(_) => {}
                }
            }
            if through.is_empty() {
                return self.tickets();
            }
        }
    }

    /// The tickets that wait for the disk.
    fn tickets(&mut self) -> Vec<Ticket> {
        self.hashes();
        let mut tickets = Vec::new();
        while let Some(work) = self.swarm.poll_disk() {
            let (Work::Write { ticket, .. }
            | Work::Zero { ticket, .. }
            | Work::Read { ticket, .. }
            | Work::Flush { ticket }) = work;
            tickets.push(ticket);
        }
        tickets
    }

    fn fails(&mut self, ticket: Ticket) -> DiskError {
        let error = DiskError {
            operation: DiskOperation::Read,
            offset: DiskOffset(0),
            errno: 5,
        };
        self.swarm.handle_disk(self.now, ticket, Err(error));
        error
    }

    fn waits(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self
            .swarm
            .poll_timeout(&Throttles::default())
            .filter(|at| *at <= end)
        {
            self.now = self.now.max(at);
            self.swarm
                .handle_timeout(self.now, &mut Throttles::default());
            // Nobody answers.
            let _ = self.swarm.poll_announce(self.now);
        }
        self.now = end;
    }

    fn closes(&mut self, slot: PeerSlot) {
        self.swarm
            .handle_closed(self.now, slot, &mut Throttles::default());
    }

    fn announces(&mut self, answer: Result<Answer, String>) {
        self.swarm.poll_announce(self.now).expect("it is time");
        self.swarm.handle_announced(self.now, answer);
    }
}

fn nobody() -> Result<Answer, String> {
    Ok(Answer::Peers {
        peers: Vec::new(),
        warning: None,
    })
}

/// Seed 5: an agent that had to leave during a slow read asked to be woken at once, until the read
/// had ended.
#[test]
fn an_agent_that_leaves_during_a_slow_read_does_not_spin() {
    let mut bench = Bench::new(Role::Seeder, 2, 16384, 0);
    bench.announces(nobody());
    let slot = bench.peer(2, Message::HaveNone);
    bench.hears(slot, Message::Interested);
    bench.said(slot);
    bench.hears(
        slot,
        Message::Request(RawBlock {
            index: 0,
            begin: 0,
            length: 16384,
        }),
    );
    let tickets = bench.tickets();
    assert_eq!(tickets.len(), 1);
    bench.swarm.leave(bench.now);
    assert!(
        bench
            .swarm
            .poll_announce(bench.now)
            .is_some_and(|url| url.contains("event=stopped"))
    );
    bench.now = bench.now + LEAVING_MAX * 2;
    assert!(
        bench
            .swarm
            .poll_timeout(&Throttles::default())
            .is_none_or(|at| at > bench.now)
    );
    bench.swarm.handle_disk(bench.now, tickets[0], Ok(()));
    assert_eq!(*bench.swarm.state(), State::Over(Outcome::Complete));
}

/// Seed 50: the last disk request failed while the agent was leaving, and the agent waited for
/// ever.
#[test]
fn a_disk_error_while_leaving_is_reported_and_ends_the_job() {
    let mut bench = Bench::new(Role::Leecher, 3, 16384, 8);
    let slot = bench.peer(2, FULL);
    bench.hears(slot, Message::Unchoke);
    for block in &bench.asked(slot)[..2] {
        bench.gives(slot, *block);
    }
    let tickets = bench.judge(true);
    assert_eq!(tickets.len(), 2);
    let error = bench.fails(tickets[0]);
    bench.fails(tickets[1]);
    assert_eq!(
        *bench.swarm.state(),
        State::Over(Outcome::Failed(Failure::Disk(error)))
    );
}

/// The same for an agent that was told to leave: the result is the error, not the leaving.
#[test]
fn a_flush_that_fails_while_leaving_is_a_failure() {
    let mut bench = Bench::new(Role::Leecher, 2, 16384, 0);
    bench.swarm.leave(bench.now);
    let tickets = bench.tickets();
    let error = bench.fails(tickets[0]);
    assert!(bench.tickets().is_empty());
    assert_eq!(
        *bench.swarm.state(),
        State::Over(Outcome::Failed(Failure::Disk(error)))
    );
}

/// Seed 15: a piece that was through just after the last flush was written, and never flushed.
#[test]
fn nothing_is_written_after_the_last_flush() {
    let mut bench = Bench::new(Role::Leecher, 1, 16384, 0);
    let slot = bench.peer(2, FULL);
    bench.hears(slot, Message::Unchoke);
    let block = bench.asked(slot)[0];
    assert_ne!(
        bench.swarm.begin_block(bench.now, slot, block),
        Sink::Discard
    );
    bench.swarm.leave(bench.now);
    let flush = bench.tickets();
    assert_eq!(flush.len(), 1);
    bench
        .swarm
        .handle_block(bench.now, slot, block, &mut Throttles::default());
    assert!(bench.judge(true).is_empty());
    bench.swarm.handle_disk(bench.now, flush[0], Ok(()));
    assert_eq!(*bench.swarm.state(), State::Over(Outcome::Interrupted));
}

/// Returns the peer that is asked, and the other peer.
fn one_piece_that_one_peer_fills_alone(bench: &mut Bench) -> (PeerSlot, PeerSlot) {
    let (one, other) = (bench.peer(2, FULL), bench.peer(3, FULL));
    bench.hears(one, Message::Unchoke);
    let blocks = bench.asked(one);
    assert_eq!(blocks.len(), 2);
    bench.gives(one, blocks[0]);
    bench.hears(one, Message::Reject(blocks[1]));
    bench.hears(other, Message::Unchoke);
    assert_eq!(bench.asked(other), blocks[1..]);
    bench.gives(other, blocks[1]);
    bench.judge(false);
    bench.waits(Duration::from_secs(1));
    assert_eq!(bench.asked(one), blocks);
    assert!(bench.asked(other).is_empty());
    (one, other)
}

/// Seed 17: a peer that said it had everything and rejected every request kept a piece to itself
/// for ever.
#[test]
fn a_peer_that_rejects_everything_does_not_keep_a_piece() {
    let mut bench = Bench::new(Role::Leecher, 1, 32768, 0);
    let (one, other) = one_piece_that_one_peer_fills_alone(&mut bench);
    for begin in [0, 16384] {
        bench.hears(
            one,
            Message::Reject(RawBlock {
                index: 0,
                begin,
                length: 16384,
            }),
        );
    }
    assert_eq!(bench.asked(other).len(), 2);
    bench.swarm.check_invariants();
}

/// A slot is reused. Its new peer is not to blame for blocks that the previous peer sent.
#[test]
fn a_peer_is_not_blamed_for_the_previous_peer_of_its_slot() {
    let mut bench = Bench::new(Role::Leecher, 1, 32768, 0);
    let liar = bench.peer(2, FULL);
    bench.hears(liar, Message::Unchoke);
    let blocks = bench.asked(liar);
    bench.gives(liar, blocks[0]);
    bench.closes(liar);
    let honest = bench.peer(3, FULL);
    assert_eq!(honest, liar);
    bench.hears(honest, Message::Unchoke);
    assert_eq!(bench.asked(honest), blocks[1..]);
    bench.gives(honest, blocks[1]);
    bench.judge(false);
    assert_eq!(
        bench.swarm.poll_event(),
        Some(Event::PieceBad {
            piece: PieceIndex(0),
            liar: None
        })
    );
    assert_eq!(bench.swarm.poll_close(), None);
}

/// Seed 81: with few buffers and many peers, the read for one peer evicted what had just been read
/// for another. The seeder kept reading and sent nothing.
#[test]
fn a_read_for_one_peer_does_not_evict_what_another_peer_waits_for() {
    let mut bench = Bench::new(Role::Seeder, 64, 16384, 0);
    let peers: Vec<PeerSlot> = (2..18)
        .map(|host| bench.peer(host, Message::HaveNone))
        .collect();
    for slot in &peers {
        bench.hears(*slot, Message::Interested);
    }
    for (place, slot) in peers.iter().enumerate() {
        bench.said(*slot);
        for index in 0..4 {
            let block = RawBlock {
                index: place as u32 * 4 + index,
                begin: 0,
                length: 16384,
            };
            bench.hears(*slot, Message::Request(block));
        }
    }
    // The disk answers in order, and one peer at a time has room.
    let (mut rng, mut reading, mut reads, mut sent) = (Rng::new(1), VecDeque::new(), 0, 0);
    while sent < 64 {
        reading.extend(bench.tickets());
        if let Some(ticket) = reading.pop_front() {
            reads += 1;
            bench.swarm.handle_disk(bench.now, ticket, Ok(()));
        }
        let said = bench.said(peers[rng.below(16) as usize]);
        sent += said
            .iter()
            .filter(|send| matches!(send, Send::Block { .. }))
            .count();
        assert!(
            reads < 128,
            "{sent} of 64 blocks were sent after {reads} reads"
        );
    }
}

/// Seed 149: a block that was on its way out when the agent left asked for one more read after
/// everything was over.
#[test]
fn nothing_is_read_for_a_peer_that_is_being_left() {
    let mut bench = Bench::new(Role::Seeder, 8, 16384, 0);
    let slot = bench.peer(2, Message::HaveNone);
    bench.hears(slot, Message::Interested);
    bench.said(slot);
    for index in 0..8 {
        bench.hears(
            slot,
            Message::Request(RawBlock {
                index,
                begin: 0,
                length: 16384,
            }),
        );
    }
    for ticket in bench.tickets() {
        bench.swarm.handle_disk(bench.now, ticket, Ok(()));
    }
    assert!(matches!(
        bench
            .swarm
            .poll_send(bench.now, slot, &mut Throttles::default()),
        Some(Send::Block { .. })
    ));
    bench.swarm.leave(bench.now);
    bench.swarm.handle_sent(bench.now, slot);
    assert!(bench.tickets().is_empty());
}

fn suggested(said: Vec<Send>) -> Vec<u32> {
    let piece = |send| match send {
        Send::Message(Message::Suggest(piece)) => Some(piece),
        _ => None,
    };
    said.into_iter().filter_map(piece).collect()
}

/// The table: pieces suggested to a peer that left, or was choked, before it asked for them counted
/// as sent, and were suggested to nobody again until every other one had been sent.
#[test]
fn an_offer_that_is_not_asked_for_is_made_again() {
    let mut bench = Bench::new(Role::Seeder, 2, 16384, 0);
    let slot = bench.peer(2, Message::HaveNone);
    bench.hears(slot, Message::Interested);
    let mut offered = suggested(bench.said(slot));
    bench.closes(slot);
    let slot = bench.peer(3, Message::HaveNone);
    bench.hears(slot, Message::Interested);
    let mut again = suggested(bench.said(slot));
    offered.sort();
    again.sort();
    assert_eq!((offered, again), (vec![0, 1], vec![0, 1]));
}

/// The table: a peer that was choked in the middle of a piece began the next one when its turn came
/// again, and half pieces that nobody could pass on became more and more.
#[test]
fn a_piece_that_nobody_else_has_is_finished_first() {
    let mut bench = Bench::new(Role::Leecher, 3, 512 * 1024, 8);
    let seed = bench.peer(2, FULL);
    bench.hears(seed, Message::Suggest(0));
    bench.hears(seed, Message::Unchoke);
    let blocks = bench.asked(seed);
    assert!(blocks.len() < 32 && blocks.iter().all(|block| block.index == 0));
    bench.hears(seed, Message::Choke);
    for block in blocks {
        bench.gives(seed, block);
    }
    bench.hears(seed, Message::Suggest(2));
    bench.hears(seed, Message::Unchoke);
    assert_eq!(bench.asked(seed)[0].index, 0);
}
