//! Which connections does an agent make and take, and who makes room?

use core::net::SocketAddr;

use super::super::*;
use super::hostile::hears;
use super::links::{KIB, address, asked, at, caller, shake_hands, swarm, work};
use crate::policy::throttle::Throttles;
use crate::wire::announce::Answer;
use crate::wire::message::{Handshake, Message};

#[test]
fn some_links_are_reserved_for_incoming_connections() {
    let peers = (1..=200).map(address).collect::<Vec<_>>();
    for (role, all) in [(Role::Leecher, LINKS_MAX), (Role::Seeder, SEED_LINKS_MAX)] {
        let mut swarm = swarm(role, 1, 16 * KIB, &peers);
        assert_eq!(
            core::iter::from_fn(|| swarm.poll_connect(at(0))).count(),
            LINKS
        );
        let taken = (1..=200)
            .filter_map(|host| swarm.handle_incoming(at(0), address(host)))
            .count();
        assert_eq!(LINKS + taken, all);
    }
}

/// Ten peers, of which all but `idle` are asked for as much as they may be: how many are called
/// besides?
fn called_besides(idle: usize) -> usize {
    let peers = (100..=200).map(address).collect::<Vec<_>>();
    let mut swarm = swarm(Role::Leecher, 2, 1024 * KIB, &peers);
    let callers: Vec<PeerSlot> = (1..=LINKS as u8)
        .map(|host| caller(&mut swarm, host, true, &[0, 1]))
        .collect();
    for slot in &callers[..idle] {
        assert!(asked(&mut swarm, at(0), *slot).is_empty(), "it chokes us");
    }
    for slot in &callers[idle..] {
        hears(&mut swarm, at(0), *slot, Message::Unchoke);
        assert_eq!(asked(&mut swarm, at(0), *slot).len(), PIPELINE_MIN as usize);
    }
    assert_eq!(swarm.poll_connect(at(0)), None);
    let ticks = (PIPELINES_FULL_MAX + PIPELINES_FULL_MAX / 2).as_micros() / TICK.as_micros();
    for tick in 0..=ticks as u64 {
        let now = Instant(tick * TICK.as_micros() as u64);
        swarm.handle_timeout(now, &mut Throttles::default());
    }
    core::iter::from_fn(|| swarm.poll_connect(at(4))).count()
}

#[test]
fn an_agent_that_could_receive_more_sets_up_one_link_more() {
    assert_eq!(called_besides(0), 1);
    assert_eq!(called_besides(1), 0, "one peer has nothing to do");
}

/// Sources and peers that we called stay, and each peer stays for a while.
#[test]
fn a_newcomer_replaces_the_peer_that_called_first() {
    let mut swarm = swarm(Role::Leecher, 2, 16 * KIB, &[address(200)]);
    let (called, _) = swarm.poll_connect(at(0)).unwrap();
    swarm.handle_connected(at(0), called);
    shake_hands(&mut swarm, called, 200, true);
    let source = caller(&mut swarm, 1, true, &[0, 1]);
    let callers: Vec<PeerSlot> = (2..LINKS_MAX as u8)
        .map(|host| caller(&mut swarm, host, true, &[0]))
        .collect();
    assert_eq!(
        swarm.handle_incoming(at(0), address(100)),
        None,
        "all have just come"
    );
    for (host, first) in (100..).zip(&callers) {
        assert!(swarm.handle_incoming(at(1), address(host)).is_some());
        let (slot, _) = swarm.poll_close().unwrap();
        assert_eq!(slot, *first);
        swarm.handle_closed(at(1), slot, &mut Throttles::default());
    }
    assert_eq!(swarm.handle_incoming(at(1), address(150)), None);
    assert!(swarm.peer(called).is_live() && swarm.peer(source).is_live());
}

/// 80 idle connections of one address, and then others.
#[test]
fn the_idle_links_of_one_address_make_room_at_a_seed() {
    let mut swarm = swarm(Role::Seeder, 2, 16 * KIB, &[]);
    let port = |port| SocketAddr::from(([10, 77, 0, 1], port));
    let idle: Vec<PeerSlot> = (0..SEED_LINKS_MAX as u16)
        .map(|n| swarm.handle_incoming(at(0), port(n + 1)).unwrap())
        .collect();
    idle.iter()
        .for_each(|slot| shake_hands(&mut swarm, *slot, slot.0 as u8, true));
    swarm.peer(idle[0]).moved_at = at(1);
    assert!(swarm.handle_incoming(at(1), address(9)).is_some());
    assert_eq!(
        swarm.poll_close(),
        Some((idle[1], "its seat is needed")),
        "the first one moves data"
    );
    assert_eq!(swarm.handle_incoming(at(1), port(999)), None);
    swarm.check_invariants();
}

/// 80 connections of one address that fetch a block now and then.
#[test]
fn an_address_with_most_links_of_a_seed_loses_one_although_all_are_busy() {
    let mut swarm = swarm(Role::Seeder, 2, 16 * KIB, &[]);
    let port = |port| SocketAddr::from(([10, 77, 0, 1], port));
    for n in 0..SEED_LINKS_MAX as u16 {
        let slot = swarm.handle_incoming(at(0), port(n + 1)).unwrap();
        shake_hands(&mut swarm, slot, slot.0 as u8, true);
        swarm.peer(slot).moved_at = at(9) + TICK * u32::from(n == 0);
    }
    let now = at(9) + TICK;
    assert!(swarm.handle_incoming(now, address(9)).is_some());
    assert_eq!(
        swarm.poll_close(),
        Some((PeerSlot(1), "its seat is needed"))
    );
    assert_eq!(swarm.handle_incoming(now, address(9)), None, "it has one");
    assert_eq!(swarm.handle_incoming(now, port(999)), None);
}

/// Every address has one seat. A seat that is used is kept.
#[test]
fn an_idle_peer_of_a_full_seed_makes_room_after_a_while() {
    let mut swarm = swarm(Role::Seeder, 2, 16 * KIB, &[]);
    let slots: Vec<PeerSlot> = (1..=SEED_LINKS_MAX as u8)
        .map(|host| caller(&mut swarm, host, true, &[]))
        .collect();
    let later = at(0) + SEAT_KEPT;
    for slot in &slots[1..] {
        swarm.peer(*slot).moved_at = at(1);
    }
    let before = Instant(later.0 - 1);
    assert_eq!(swarm.handle_incoming(before, address(99)), None);
    assert!(swarm.handle_incoming(later, address(99)).is_some());
    assert_eq!(swarm.poll_close(), Some((slots[0], "its seat is needed")));
    assert_eq!(swarm.handle_incoming(later, address(98)), None);
}

/// Peer ids are known to everybody.
#[test]
fn a_stolen_peer_id_does_not_cut_the_link_of_its_owner() {
    let mut swarm = swarm(Role::Leecher, 2, 16 * KIB, &[address(1)]);
    let (owner, _) = swarm.poll_connect(at(0)).unwrap();
    swarm.handle_connected(at(0), owner);
    shake_hands(&mut swarm, owner, 1, true);
    let thief = swarm.handle_incoming(at(0), address(2)).unwrap();
    shake_hands(&mut swarm, thief, 1, true);
    assert_eq!(swarm.poll_close(), None, "both stay");
    let second = SocketAddr::from(([10, 77, 0, 1], 999));
    let twin = swarm.handle_incoming(at(0), second).unwrap();
    let handshake = Handshake {
        fast: true,
        extended: false,
        info_hash: swarm.metainfo.info_hash,
        peer_id: PeerId([1; 20]),
    };
    swarm.handle_handshake(at(0), twin, &handshake);
    assert_eq!(
        swarm.poll_close(),
        Some((owner, "it is connected already")),
        "the connection of the smaller id stays"
    );
}

fn shake_hands_with(swarm: &mut Swarm, slot: PeerSlot) {
    swarm.handle_connected(at(0), slot);
    shake_hands(swarm, slot, slot.0 as u8, true);
}

/// The tracker names the only living peer among 2,000 addresses that are silent, or that refuse. At
/// the latest it is the last one to be called.
#[test]
fn dead_addresses_do_not_hide_a_living_one_for_long() {
    for (silent, seconds_max) in [(true, 60), (false, 1)] {
        let mut swarm = swarm(Role::Leecher, 1, 16 * KIB, &[]);
        work(&mut swarm, at(0));
        let dead = |n: u16| SocketAddr::from(([10, 78, (n >> 8) as u8, n as u8], 6881));
        let peers: Vec<SocketAddr> = (0..ADDRESSES_MAX as u16).map(dead).collect();
        let warning = None;
        assert!(swarm.poll_announce(at(0)).is_some());
        swarm.handle_announced(at(0), Ok(Answer::Peers { peers, warning }));
        let mut called = alloc::collections::BTreeSet::new();
        let mut now = at(0);
        while called.len() < ADDRESSES_MAX {
            assert!(now < at(seconds_max), "silent: {silent}, {}", called.len());
            swarm.handle_timeout(now, &mut Throttles::default());
            while let Some((slot, _)) = swarm.poll_close() {
                swarm.handle_closed(now, slot, &mut Throttles::default());
            }
            while let Some((slot, address)) = swarm.poll_connect(now) {
                called.insert(address);
                if !silent {
                    swarm.handle_closed(now, slot, &mut Throttles::default());
                }
            }
            assert!(swarm.peers.count() <= CALLS_MAX);
            now = now + TICK;
        }
    }
}

/// The answer takes 5 s behind a full line of 100 kbit/s.
#[test]
fn a_call_gets_more_time_while_no_other_address_waits() {
    for (addresses, patient) in [(1..=1u8, true), (1..=250, false)] {
        let peers: Vec<SocketAddr> = addresses.map(address).collect();
        let mut swarm = swarm(Role::Leecher, 1, 16 * KIB, &peers);
        work(&mut swarm, at(0));
        let (first, _) = swarm.poll_connect(at(0)).unwrap();
        let mut closed_at = None;
        for tick in 0..100 {
            let now = at(0) + TICK * tick;
            swarm.handle_timeout(now, &mut Throttles::default());
            while swarm.poll_connect(now).is_some() {}
            while let Some((slot, _)) = swarm.poll_close() {
                swarm.handle_closed(now, slot, &mut Throttles::default());
                closed_at = closed_at.or((slot == first).then_some(now));
            }
        }
        let expected = match patient {
            true => CONNECT_PATIENT_MAX,
            false => CONNECT_MAX,
        };
        assert_eq!(closed_at, Some(at(0) + expected), "{} peers", peers.len());
    }
}

/// A room whose switch was away: what answers late is closed beyond the usual number.
#[test]
fn late_answers_do_not_make_a_crowd() {
    let peers = (1..=200).map(address).collect::<Vec<_>>();
    let mut swarm = swarm(Role::Leecher, 1, 16 * KIB, &peers);
    work(&mut swarm, at(0));
    let mut called = Vec::new();
    for tick in 0..8 {
        let now = at(0) + TICK * tick;
        called.extend(core::iter::from_fn(|| swarm.poll_connect(now)));
    }
    assert!(called.len() > 2 * LINKS_MAX, "{}", called.len());
    for (slot, _) in called {
        swarm.handle_connected(at(2), slot);
    }
    assert!(swarm.peers.staying_count(at(2)) <= LINKS_MAX);
}

/// Ten neighbours lack the same piece, and a source that calls nobody (as aria2) came after them.
#[test]
fn an_agent_that_gets_nothing_calls_one_more_peer_now_and_then() {
    let peers = (1..=100).map(address).collect::<Vec<_>>();
    let mut swarm = swarm(Role::Leecher, 1, 16 * KIB, &peers);
    let called = |swarm: &mut Swarm, now| core::iter::from_fn(|| swarm.poll_connect(now)).count();
    work(&mut swarm, at(0));
    assert_eq!(called(&mut swarm, at(0)), LINKS);
    for slot in swarm.peers.slots() {
        shake_hands_with(&mut swarm, slot);
    }
    let patience = LINK_PATIENCE.as_secs();
    assert_eq!(called(&mut swarm, at(patience - 1)), 0);
    for round in 1..100 {
        let more = usize::from(round + LINKS as u64 <= SEED_LINKS_MAX as u64);
        assert_eq!(
            called(&mut swarm, at(round * patience)),
            more,
            "round {round}"
        );
    }
}
