//! What does an agent say to its peers, and which connections does it keep?

use core::net::SocketAddr;
use core::time::Duration;

use super::super::*;
use crate::format::metainfo_write::{self, Content, Description};
use crate::policy::load::Compress;
use crate::policy::subnet::Subnet;
use crate::policy::throttle::Throttles;
use crate::wire::announce::Answer;
use crate::wire::extension::ExtendedHandshake;
use crate::wire::message::{Handshake, Message, RawBlock};

pub(super) const KIB: u32 = 1024;
pub(super) const MIB: u32 = 1024 * 1024;

pub(super) fn at(seconds: u64) -> Instant {
    Instant(seconds * 1_000_000)
}

pub(super) fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 77, 0, host], 6881))
}

/// A swarm of whole pieces, of which piece `n` has the hash `[n; 20]`, with the smallest number of
/// buffers.
pub(super) fn swarm(role: Role, pieces: u32, piece_bytes: u32, peers: &[SocketAddr]) -> Swarm {
    swarm_with_buffers(role, pieces, piece_bytes, peers, 0)
}

/// The same with more buffers.
pub(super) fn swarm_with_buffers(
    role: Role,
    pieces: u32,
    piece_bytes: u32,
    peers: &[SocketAddr],
    more: u32,
) -> Swarm {
    let hashes: Vec<PieceHash> = (0..pieces).map(|n| PieceHash([n as u8; 20])).collect();
    let torrent = metainfo_write::write(&Description {
        name: "test",
        trackers: &["http://10.77.0.9/announce".into()],
        webseeds: &[],
        created_by: "test",
        private: false,
        piece_bytes,
        hashes: &hashes,
        content: Content::Single {
            length: u64::from(pieces) * u64::from(piece_bytes),
        },
        disk_bytes: None,
        sector_bytes: None,
        needed_bytes: None,
        table: None,
    });
    let metainfo = Arc::new(Metainfo::parse(&torrent).unwrap());
    let config = Config {
        role,
        peer_id: PeerId([0xff; 20]),
        listen_port: 6881,
        rng_seed: 1,
        buffer_count: buffer_count_min(&metainfo.layout) + more,
        peers: peers.to_vec(),
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
    Swarm::new(at(0), metainfo, config)
}

#[test]
fn only_machines_that_may_take_part_are_admitted_and_called() {
    let mut swarm = swarm(Role::Leecher, 4, 16 * KIB, &[]);
    swarm.mesh = Mesh::new(vec![Subnet::parse("10.77.0.4/30").unwrap()]);
    for outside in ["10.77.0.8:1", "[::ffff:10.77.0.8]:1", "[fd77::4]:1"] {
        let caller = swarm.handle_incoming(at(0), outside.parse().unwrap());
        assert_eq!(caller, None, "{outside}");
    }
    assert!(swarm.handle_incoming(at(0), address(5)).is_some());
    let _ = swarm.poll_announce(at(0));
    let peers = (1..10).map(address).collect();
    let warning = None;
    swarm.handle_announced(at(0), Ok(Answer::Peers { peers, warning }));
    let mut called: Vec<SocketAddr> =
        core::iter::from_fn(|| Some(swarm.poll_connect(at(0))?.1)).collect();
    called.sort();
    assert_eq!(called, [4, 5, 6, 7].map(address));
}

pub(super) fn shake_hands(swarm: &mut Swarm, slot: PeerSlot, host: u8, fast: bool) {
    let info_hash = swarm.metainfo.info_hash;
    let handshake = Handshake {
        fast,
        extended: false,
        info_hash,
        peer_id: PeerId([host; 20]),
    };
    swarm.handle_handshake(at(0), slot, &handshake);
    assert!(swarm.peer(slot).is_live());
}

/// A peer that has called us, after the handshake, with these pieces.
pub(super) fn caller(swarm: &mut Swarm, host: u8, fast: bool, has: &[u32]) -> PeerSlot {
    let slot = swarm.handle_incoming(at(0), address(host)).unwrap();
    shake_hands(swarm, slot, host, fast);
    has.iter().for_each(|piece| {
        swarm.handle_message(
            at(0),
            slot,
            Message::Have(*piece),
            &mut Throttles::default(),
        )
    });
    slot
}

/// Everything that this peer is sent now.
pub(super) fn said(swarm: &mut Swarm, now: Instant, slot: PeerSlot) -> Vec<Send> {
    let said =
        core::iter::from_fn(|| swarm.poll_send(now, slot, &mut Throttles::default())).collect();
    swarm.check_invariants();
    said
}

/// The blocks that this peer is asked for now.
pub(super) fn asked(swarm: &mut Swarm, now: Instant, slot: PeerSlot) -> Vec<RawBlock> {
    let request = |send| {
        if let Send::Message(Message::Request(raw)) = send {
            Some(raw)
        } else {
            None
        }
    };
    said(swarm, now, slot)
        .into_iter()
        .filter_map(request)
        .collect()
}

/// Hashes everything that can be hashed; every hash is right. False if there was nothing.
fn hash_all(swarm: &mut Swarm, now: Instant) -> bool {
    let mut any = false;
    loop {
        let hashes = swarm.poll_hash(Patience::Over);
        if hashes.is_empty() {
            return any;
        }
        any = true;
        for Hash {
            of, begin, length, ..
        } in hashes
        {
            let piece = of.piece();
            if begin + length == swarm.metainfo.layout.piece_length(piece) {
                swarm.handle_hashed(now, of, PieceHash([piece.0 as u8; 20]));
            }
        }
    }
}

/// The disk does everything it is asked to do, and every hash is right.
pub(super) fn work(swarm: &mut Swarm, now: Instant) {
    loop {
        match swarm.poll_disk() {
            Some(work) => swarm.handle_disk(now, ticket_of(&work), Ok(())),
            None if hash_all(swarm, now) => {}
            None => return,
        }
    }
}

fn ticket_of(work: &Work) -> Ticket {
    let (Work::Write { ticket, .. }
    | Work::Zero { ticket, .. }
    | Work::Read { ticket, .. }
    | Work::Flush { ticket }) = work;
    *ticket
}

pub(super) fn first_block(piece: u32) -> RawBlock {
    RawBlock {
        index: piece,
        begin: 0,
        length: BLOCK_BYTES,
    }
}

/// Whether the sender offers, according to each of the extension handshakes.
fn offers(said: &[Send]) -> Vec<bool> {
    let handshake = |send: &Send| match send {
        Send::Message(Message::Extended { id: 0, payload }) => {
            Some(ExtendedHandshake::parse(payload).unwrap().offers)
        }
        _ => None,
    };
    said.iter().filter_map(handshake).collect()
}

#[test]
fn a_seeder_offers_each_piece_once_and_then_says_that_it_stops() {
    let mut swarm = swarm(Role::Seeder, 40, 32 * KIB, &[]);
    let slot = caller(&mut swarm, 1, true, &[]);
    swarm.peer(slot).extended = true;
    assert_eq!(offers(&said(&mut swarm, at(0), slot)), [true]);
    swarm.handle_message(at(0), slot, Message::Interested, &mut Throttles::default());
    let (mut offered, mut over) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let said = said(&mut swarm, at(0), slot);
        over.extend(offers(&said));
        for send in said {
            if let Send::Message(Message::Suggest(piece)) = send {
                offered.push(piece);
                // With the last piece it would be complete, and leave.
                if offered.len() < 40 {
                    swarm.handle_message(
                        at(0),
                        slot,
                        Message::Have(piece),
                        &mut Throttles::default(),
                    );
                }
            }
        }
    }
    assert_eq!(over, [false], "once");
    assert_eq!(offered.len(), 40);
    let in_order = offered
        .iter()
        .zip(&offered[1..])
        .all(|(one, next)| *next == (one + 1) % 40);
    assert!(in_order, "not in the order of the disk: {offered:?}");
}

#[test]
fn a_peer_that_is_offered_nothing_for_a_while_asks_by_itself() {
    let mut swarm = swarm(Role::Leecher, 4, 32 * KIB, &[]);
    let slot = caller(&mut swarm, 1, true, &[0, 1, 2, 3]);
    let payload = ExtendedHandshake {
        offers: true,
        ..ExtendedHandshake::default()
    }
    .encode();
    swarm.handle_message(
        at(0),
        slot,
        Message::Extended { id: 0, payload },
        &mut Throttles::default(),
    );
    said(&mut swarm, at(0), slot);
    swarm.handle_message(at(0), slot, Message::Unchoke, &mut Throttles::default());
    assert_eq!(asked(&mut swarm, at(0), slot), []);
    swarm.handle_message(at(0), slot, Message::Suggest(2), &mut Throttles::default());
    assert_eq!(
        asked(&mut swarm, at(0), slot),
        [
            first_block(2),
            RawBlock {
                begin: BLOCK_BYTES,
                ..first_block(2)
            }
        ]
    );
    for block in [
        first_block(2),
        RawBlock {
            begin: BLOCK_BYTES,
            ..first_block(2)
        },
    ] {
        assert_ne!(swarm.begin_block(at(0), slot, block), Sink::Discard);
        swarm.handle_block(at(0), slot, block, &mut Throttles::default());
    }
    work(&mut swarm, at(0));
    assert_eq!(asked(&mut swarm, at(0), slot), []);
    swarm.handle_timeout(at(1), &mut Throttles::default());
    assert_eq!(asked(&mut swarm, at(1), slot), []);
    let later = at(OFFER_PATIENCE.as_secs());
    swarm.handle_timeout(later, &mut Throttles::default());
    assert!(!asked(&mut swarm, later, slot).is_empty());
}

#[test]
fn requests_for_the_same_block_for_ever_do_no_harm() {
    let mut swarm = swarm(Role::Seeder, 2, 32 * KIB, &[]);
    let slot = caller(&mut swarm, 1, true, &[]);
    swarm.handle_message(at(0), slot, Message::Interested, &mut Throttles::default());
    for _ in 0..u32::from(u16::MAX) + 10 {
        swarm.handle_message(
            at(0),
            slot,
            Message::Request(first_block(0)),
            &mut Throttles::default(),
        );
        swarm.handle_message(
            at(0),
            slot,
            Message::Cancel(first_block(0)),
            &mut Throttles::default(),
        );
        while swarm
            .poll_send(at(0), slot, &mut Throttles::default())
            .is_some()
        {}
    }
    swarm.check_invariants();
    assert_eq!(swarm.poll_close(), None);
}

#[test]
fn a_peer_that_requests_and_cancels_and_never_reads_is_closed() {
    let mut swarm = swarm(Role::Seeder, 2, 32 * KIB, &[]);
    let slot = caller(&mut swarm, 1, true, &[]);
    swarm.handle_message(at(0), slot, Message::Interested, &mut Throttles::default());
    while swarm
        .poll_send(at(0), slot, &mut Throttles::default())
        .is_some()
    {}
    for _ in 0..3 * REPLIES_MAX {
        swarm.handle_message(
            at(0),
            slot,
            Message::Request(first_block(0)),
            &mut Throttles::default(),
        );
        swarm.handle_message(
            at(0),
            slot,
            Message::Cancel(first_block(0)),
            &mut Throttles::default(),
        );
    }
    assert!(swarm.peer(slot).replies.len() <= REPLIES_MAX + 1);
    assert_eq!(
        swarm.poll_close(),
        Some((slot, "it asks and does not listen"))
    );
}

/// With pieces of 16 MiB there is room for one open piece. Once no connected peer can finish it, it
/// makes room for another.
#[test]
fn a_piece_whose_last_holder_left_makes_room() {
    let mut swarm = swarm(Role::Leecher, 3, 16 * MIB, &[]);
    let holder = caller(&mut swarm, 1, false, &[0]);
    let other = caller(&mut swarm, 2, false, &[1]);
    for slot in [holder, other] {
        swarm.handle_message(at(0), slot, Message::Unchoke, &mut Throttles::default());
    }
    assert_eq!(asked(&mut swarm, at(0), holder)[0], first_block(0));
    swarm.handle_message(at(0), holder, Message::Choke, &mut Throttles::default());
    assert_eq!(
        asked(&mut swarm, at(0), other),
        [],
        "piece 0 has the buffers"
    );
    swarm.handle_closed(at(0), holder, &mut Throttles::default());
    assert_eq!(asked(&mut swarm, at(0), other)[0], first_block(1));
}

#[test]
fn a_peer_that_had_nothing_for_us_is_asked_again_when_it_has() {
    let mut swarm = swarm(Role::Leecher, 2, 32 * KIB, &[]);
    let slots = [1, 2].map(|host| caller(&mut swarm, host, false, &[0]));
    for slot in slots {
        swarm.handle_message(at(0), slot, Message::Unchoke, &mut Throttles::default());
    }
    assert_eq!(asked(&mut swarm, at(0), slots[0]).len(), 2);
    assert_eq!(asked(&mut swarm, at(0), slots[1]), []);
    let version = swarm.picker.version();
    swarm.handle_message(at(0), slots[0], Message::Have(1), &mut Throttles::default());
    assert_eq!(
        swarm.picker.version(),
        version,
        "for the other peer the pieces need not be searched again"
    );
    swarm.handle_message(at(0), slots[1], Message::Have(1), &mut Throttles::default());
    assert_eq!(asked(&mut swarm, at(0), slots[1])[0], first_block(1));
}

/// Each block that it does not read pins a buffer of the pool.
#[test]
fn a_peer_that_does_not_read_its_blocks_is_closed() {
    let mut swarm = swarm(Role::Seeder, 2, 32 * KIB, &[]);
    let slot = caller(&mut swarm, 1, false, &[]);
    swarm.handle_message(at(0), slot, Message::Interested, &mut Throttles::default());
    said(&mut swarm, at(0), slot);
    swarm.handle_message(
        at(0),
        slot,
        Message::Request(first_block(0)),
        &mut Throttles::default(),
    );
    work(&mut swarm, at(0));
    let sends = said(&mut swarm, at(0), slot);
    assert!(matches!(sends[..], [Send::Block { .. }]), "{sends:?}");
    let unread = SILENCE_MAX.as_secs();
    for second in 0..=unread {
        assert_eq!(swarm.poll_close(), None, "after {second} s");
        swarm.handle_message(
            at(second),
            slot,
            Message::KeepAlive,
            &mut Throttles::default(),
        );
        swarm.handle_timeout(at(second), &mut Throttles::default());
    }
    assert_eq!(
        swarm.poll_close(),
        Some((slot, "it asks and does not read"))
    );
    swarm.handle_closed(at(unread), slot, &mut Throttles::default());
    swarm.check_invariants();
}

/// A leecher has written its only piece, which came from a peer that it called; the disk has not
/// flushed yet.
fn written_and_unverified() -> (Swarm, PeerSlot) {
    let mut swarm = swarm(Role::Leecher, 1, 16 * KIB, &[address(1)]);
    let (slot, called) = swarm.poll_connect(at(0)).unwrap();
    assert_eq!(called, address(1));
    swarm.handle_connected(at(0), slot);
    shake_hands(&mut swarm, slot, 1, true);
    swarm.handle_message(at(0), slot, Message::HaveAll, &mut Throttles::default());
    swarm.handle_message(at(0), slot, Message::Unchoke, &mut Throttles::default());
    assert_eq!(asked(&mut swarm, at(0), slot), [first_block(0)]);
    assert_ne!(
        swarm.begin_block(at(0), slot, first_block(0)),
        Sink::Discard
    );
    swarm.handle_block(at(0), slot, first_block(0), &mut Throttles::default());
    while swarm.state == State::Downloading {
        match swarm.poll_disk() {
            Some(Work::Write { ticket, .. }) => swarm.handle_disk(at(0), ticket, Ok(())),
            Some(work) => panic!("{work:?}"),
            None => assert!(
                hash_all(&mut swarm, at(0)),
                "the hash comes before the write"
            ),
        }
    }
    swarm.check_invariants();
    (swarm, slot)
}

#[test]
fn complete_peers_do_not_call_each_other_during_the_read_back() {
    let (mut swarm, slot) = written_and_unverified();
    swarm.handle_closed(at(0), slot, &mut Throttles::default());
    assert_eq!(swarm.poll_connect(at(10)), None);
}

#[test]
fn something_is_left_until_the_read_back_is_over() {
    let (mut swarm, _) = written_and_unverified();
    assert!(swarm.poll_announce(at(0)).unwrap().contains("&left=16384&"));
    swarm.handle_announced(at(0), Err("no answer".into()));
    assert_eq!(swarm.state, State::Verifying);
    work(&mut swarm, at(0));
    assert_eq!(swarm.state, State::Seeding);
    assert_eq!(swarm.left_bytes(), 0);
}

#[test]
fn an_agent_interrupted_during_the_read_back_is_not_complete() {
    let (mut swarm, _) = written_and_unverified();
    swarm.leave(at(0));
    assert_eq!(swarm.state, State::Leaving(Outcome::Interrupted));
    assert_eq!(swarm.left_bytes(), 16 * 1024);
}

/// Nothing is left to do except to pass the image on.
#[test]
fn an_agent_interrupted_while_seeding_is_complete() {
    let (mut swarm, _) = written_and_unverified();
    work(&mut swarm, at(0));
    swarm.leave(at(0));
    assert_eq!(swarm.state, State::Over(Outcome::Complete));
}
