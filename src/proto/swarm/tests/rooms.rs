//! What does a machine fetch from peers that lie behind a router?

use core::net::{IpAddr, SocketAddr};

use super::super::*;
use super::hostile::{hears, tick};
use super::links::*;
use crate::wire::announce::Answer;
use crate::wire::message::Message;

const PIECES: u32 = 3 * GATEWAYS;

/// A machine at 10.77.0.`own` of a room of 32 addresses. The tracker has named `others` to it.
fn machine(own: u8, others: core::ops::Range<u8>) -> Swarm {
    let mut swarm = swarm_with_buffers(Role::Leecher, PIECES, 16 * KIB, &[], 64);
    swarm.handle_subnets(&[(IpAddr::from([10, 77, 0, own]), 27)]);
    let _ = swarm.poll_announce(at(0));
    let (peers, warning) = (others.map(address).collect(), None);
    swarm.handle_announced(at(0), Ok(Answer::Peers { peers, warning }));
    swarm
}

/// A peer with these pieces that has unchoked us.
fn peer(swarm: &mut Swarm, host: u8, pieces: &[u32]) -> PeerSlot {
    let slot = caller(swarm, host, true, pieces);
    hears(swarm, at(0), slot, Message::Unchoke);
    slot
}

fn pieces_asked(swarm: &mut Swarm, now: Instant, slot: PeerSlot) -> Vec<u32> {
    let mut pieces: Vec<u32> = asked(swarm, now, slot)
        .iter()
        .map(|raw| raw.index)
        .collect();
    pieces.sort_unstable();
    pieces
}

#[test]
fn a_gateway_asks_behind_the_router_for_its_share_of_what_its_room_lacks() {
    let mut swarm = machine(1, 2..32);
    let all: Vec<u32> = (0..PIECES).collect();
    let routed = peer(&mut swarm, 40, &all);
    // Of pieces 0, G and 2 G a machine of the room has the second one.
    let near = peer(&mut swarm, 2, &[1, GATEWAYS]);
    assert_eq!(pieces_asked(&mut swarm, at(0), routed), [0, 2 * GATEWAYS]);
    assert_eq!(pieces_asked(&mut swarm, at(0), near), [1, GATEWAYS]);
}

#[test]
fn other_machines_take_what_is_offered_and_ask_when_their_room_is_hungry() {
    let mut swarm = machine(31, 1..31);
    let all: Vec<u32> = (0..PIECES).collect();
    let routed = peer(&mut swarm, 40, &all);
    assert_eq!(pieces_asked(&mut swarm, at(0), routed), []);
    hears(&mut swarm, at(0), routed, Message::Suggest(5));
    assert_eq!(pieces_asked(&mut swarm, at(0), routed), [5]);

    let mut now = at(0);
    let mut swarm = machine(31, 1..31);
    let routed = peer(&mut swarm, 40, &all);
    (1..HUNGER_MAX).for_each(|_| tick(&mut swarm, &mut now));
    tick(&mut swarm, &mut now);
    assert_ne!(pieces_asked(&mut swarm, now, routed), []);
}

/// Only gateways call routed peers, after those of their room have answered.
#[test]
fn gateways_call_other_rooms_last_and_other_machines_never() {
    let called = |swarm: &mut Swarm, now| -> Vec<SocketAddr> {
        let calls = core::iter::from_fn(|| Some(swarm.poll_connect(now)?.1));
        calls.collect()
    };
    let is_routed = |address: &SocketAddr| *address >= super::links::address(32);
    for (own, expected) in [(1, 4), (31, 0)] {
        let mut swarm = machine(own, 1..36);
        let first = called(&mut swarm, at(0));
        assert!(
            first.len() >= LINKS && !first.iter().any(is_routed),
            "{first:?}"
        );
        // None answers promptly.
        let later: Vec<SocketAddr> = (1..9).flat_map(|s| called(&mut swarm, at(s))).collect();
        assert_eq!(
            later.iter().filter(|address| is_routed(address)).count(),
            expected
        );
    }
}
