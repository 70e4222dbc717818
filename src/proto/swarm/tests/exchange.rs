//! Whom do peers learn of from us, whom do we learn of from them, and what ends a job without a
//! tracker?

use core::net::SocketAddr;

use super::super::*;
use super::links::{KIB, address, at, caller, said, swarm};
use crate::policy::throttle::Throttles;
use crate::wire::extension::{EXTENDED_HANDSHAKE_ID, ExtendedHandshake, PEX_ID, Pex};
use crate::wire::message::{Handshake, Message};

const THEIR_ID: u8 = 77;

fn hears(swarm: &mut Swarm, now: Instant, slot: PeerSlot, id: u8, payload: Vec<u8>) {
    let message = Message::Extended { id, payload };
    swarm.handle_message(now, slot, message, &mut Throttles::default());
}

/// What a peer says about itself that listens at port 7000 + `host`.
fn introduction(host: u8) -> ExtendedHandshake {
    ExtendedHandshake {
        ut_pex: Some(THEIR_ID),
        listen_port: Some(7000 + u16::from(host)),
        ..ExtendedHandshake::default()
    }
}

fn guest(swarm: &mut Swarm, host: u8) -> PeerSlot {
    let slot = caller(swarm, host, true, &[]);
    hears(
        swarm,
        at(0),
        slot,
        EXTENDED_HANDSHAKE_ID,
        introduction(host).encode(),
    );
    slot
}

fn listens(host: u8) -> SocketAddr {
    SocketAddr::new(address(host).ip(), 7000 + u16::from(host))
}

fn ticks(swarm: &mut Swarm, now: Instant) {
    swarm.handle_timeout(now, &mut Throttles::default());
}

/// What this peer is told of others.
fn news(swarm: &mut Swarm, now: Instant, slot: PeerSlot) -> Vec<Pex> {
    let told = said(swarm, now, slot).into_iter();
    let pex = |send| match send {
        Send::Message(Message::Extended {
            id: THEIR_ID,
            payload,
        }) => Some(payload),
        _ => None,
    };
    told.filter_map(pex)
        .map(|payload| Pex::parse(&payload).unwrap())
        .collect()
}

fn without_tracker(role: Role, peers: &[SocketAddr]) -> Swarm {
    let mut swarm = swarm(role, 4, 16 * KIB, peers);
    let grace = swarm.config.tracker_grace;
    swarm.tracker = Tracker::new(at(0), Vec::new(), grace, &mut Rng::new(1));
    swarm.last_announce = LastAnnounce::NoTracker;
    swarm
}

#[test]
fn peers_are_told_where_the_others_listen_and_who_has_gone() {
    let mut swarm = swarm(Role::Seeder, 4, 16 * KIB, &[]);
    let one = guest(&mut swarm, 1);
    ticks(&mut swarm, at(1));
    assert_eq!(
        news(&mut swarm, at(1), one),
        [],
        "there is nobody to tell of"
    );
    let (two, mute) = (guest(&mut swarm, 2), caller(&mut swarm, 3, true, &[]));
    ticks(&mut swarm, at(2));
    let added = |hosts: &[u8]| Pex {
        added: hosts.iter().map(|host| listens(*host)).collect(),
        dropped: Vec::new(),
    };
    assert_eq!(news(&mut swarm, at(2), one), [added(&[2])]);
    assert_eq!(news(&mut swarm, at(2), two), [added(&[1])]);
    assert_eq!(news(&mut swarm, at(2), mute), [], "it does not know PEX");
    // Another port, later: it could send others anywhere.
    let other = ExtendedHandshake {
        listen_port: Some(22),
        ..introduction(1)
    };
    hears(
        &mut swarm,
        at(2),
        one,
        EXTENDED_HANDSHAKE_ID,
        other.encode(),
    );
    let four = guest(&mut swarm, 4);
    swarm.handle_closed(at(3), two, &mut Throttles::default());
    ticks(&mut swarm, at(3));
    assert_eq!(
        news(&mut swarm, at(3), one),
        [],
        "it was told of others just now"
    );
    assert_eq!(news(&mut swarm, at(3), four), [added(&[1])]);
    ticks(&mut swarm, at(4));
    let dropped = alloc::vec![listens(2)];
    assert_eq!(
        news(&mut swarm, at(4), one),
        [Pex {
            dropped,
            ..added(&[4])
        }]
    );
}

/// libtorrent closes a connection with more than six messages a minute.
#[test]
fn a_peer_is_told_of_fifty_at_once_and_five_times_in_a_minute_at_most() {
    let mut swarm = swarm(Role::Seeder, 4, 16 * KIB, &[]);
    let guests: Vec<PeerSlot> = (1..=80).map(|host| guest(&mut swarm, host)).collect();
    let (mut told, mut messages) = (0, 0);
    for quarter in 4..4 * 60 {
        let now = Instant(quarter * 250_000);
        // One comes and goes all the time.
        if quarter % 8 == 0 {
            swarm.handle_closed(now, guests[79], &mut Throttles::default());
            let _ = guest(&mut swarm, 100 + quarter as u8 / 8);
        }
        ticks(&mut swarm, now);
        for pex in news(&mut swarm, now, guests[0]) {
            assert!(pex.added.len() <= 50 && pex.dropped.len() <= 50);
            told += pex.added.len();
            messages += 1;
        }
    }
    assert!(
        (3..=5).contains(&messages) && told >= 79,
        "{messages} messages, {told} peers"
    );
}

/// BEP 27.
#[test]
fn a_private_torrent_neither_tells_nor_takes() {
    for private in [false, true] {
        let mut swarm = swarm(Role::Leecher, 4, 16 * KIB, &[]);
        Arc::get_mut(&mut swarm.metainfo).unwrap().private = private;
        let (one, _two) = (guest(&mut swarm, 1), guest(&mut swarm, 2));
        swarm.peer(one).extended = true;
        let opening = said(&mut swarm, at(0), one);
        let offered = opening.iter().any(|send| match send {
            Send::Message(Message::Extended { id: 0, payload }) => {
                ExtendedHandshake::parse(payload).unwrap().ut_pex == Some(PEX_ID)
            }
            _ => false,
        });
        let pex = Pex {
            added: alloc::vec![address(9)],
            dropped: Vec::new(),
        };
        hears(&mut swarm, at(0), one, PEX_ID, pex.encode());
        ticks(&mut swarm, at(1));
        let told = !news(&mut swarm, at(1), one).is_empty();
        let called = swarm.poll_connect(at(1)).is_some();
        assert_eq!([offered, told, called], [!private; 3], "private {private}");
    }
}

#[test]
fn what_peers_tell_is_bounded() {
    let mut swarm = swarm(Role::Leecher, 4, 16 * KIB, &[]);
    let liar = guest(&mut swarm, 1);
    let mut rng = Rng::new(1);
    let mut flood = |swarm: &mut Swarm, now| {
        let dead = |_| SocketAddr::from(([10, 99, rng.below(256) as u8, rng.below(256) as u8], 9));
        let added = (0..PEX_PEER_COUNT_MAX).map(dead).collect();
        let pex = Pex {
            added,
            dropped: Vec::new(),
        };
        hears(swarm, now, liar, PEX_ID, pex.encode());
    };
    for millisecond in 0..10_000 {
        flood(&mut swarm, Instant(millisecond * 1000));
    }
    assert_eq!(swarm.mesh.address_count(), PEX_TAUGHT_MAX);
    hears(&mut swarm, at(20), liar, PEX_ID, b"d5:added".to_vec());
    assert!(
        swarm.peer(liar).is_live(),
        "nothing that it says there matters"
    );
    // An honest one among them is called soon, however they go on. No dead one answers.
    let honest = guest(&mut swarm, 2);
    let pex = Pex {
        added: alloc::vec![address(9)],
        dropped: Vec::new(),
    };
    hears(&mut swarm, at(30), honest, PEX_ID, pex.encode());
    let mut calls = 0;
    for second in 30.. {
        flood(&mut swarm, at(second));
        ticks(&mut swarm, at(second));
        let called: Vec<_> = core::iter::from_fn(|| swarm.poll_connect(at(second))).collect();
        calls += called.len();
        if called.iter().any(|(_, called)| *called == address(9)) {
            break;
        }
        for (slot, _) in called {
            swarm.handle_closed(at(second), slot, &mut Throttles::default());
        }
        assert!(second < 60, "not called among {calls}");
    }
}

#[test]
fn a_seed_without_tracker_keeps_twenty_of_those_that_it_has_told_of_others() {
    for exists in [false, true] {
        let mut swarm = match exists {
            false => without_tracker(Role::Seeder, &[]),
            true => swarm(Role::Seeder, 4, 16 * KIB, &[]),
        };
        for host in 1..=60 {
            guest(&mut swarm, host);
        }
        ticks(&mut swarm, at(1));
        ticks(&mut swarm, at(2));
        let closed = core::iter::from_fn(|| swarm.poll_close()).count();
        assert_eq!(closed, if exists { 0 } else { 60 - VISITORS_KEPT });
    }
}

#[test]
fn a_seed_without_tracker_uploads_to_more_if_the_torrent_is_private() {
    for (private, links, slots) in [
        (false, VISITORS_MAX, VISITORS_KEPT),
        (true, SEED_LINKS_MAX, SEED_LINKS_MAX),
    ] {
        let mut swarm = without_tracker(Role::Seeder, &[]);
        Arc::get_mut(&mut swarm.metainfo).unwrap().private = private;
        for host in 1..=SEED_LINKS_MAX as u8 {
            let slot = caller(&mut swarm, host, true, &[]);
            let interested = Message::Interested;
            swarm.handle_message(at(0), slot, interested, &mut Throttles::default());
        }
        ticks(&mut swarm, at(1));
        let served = swarm.peers.values().filter(|peer| peer.unchoke).count();
        assert_eq!(served, slots, "private {private}");
        let more = (SEED_LINKS_MAX as u8 + 1..=250)
            .filter_map(|host| swarm.handle_incoming(at(1), address(host)))
            .count();
        assert_eq!(SEED_LINKS_MAX + more, links, "private {private}");
    }
}

/// A leecher that was given this peer, which has everything, and that is complete at second 1.
fn complete_with(seed: SocketAddr, introduction: ExtendedHandshake) -> Swarm {
    let mut swarm = without_tracker(Role::Leecher, &[seed]);
    let (slot, _) = swarm.poll_connect(at(0)).unwrap();
    swarm.handle_connected(at(0), slot);
    let handshake = Handshake {
        fast: true,
        extended: true,
        info_hash: swarm.metainfo.info_hash,
        peer_id: PeerId([1; 20]),
    };
    swarm.handle_handshake(at(0), slot, &handshake);
    swarm.handle_message(at(0), slot, Message::HaveAll, &mut Throttles::default());
    hears(
        &mut swarm,
        at(0),
        slot,
        EXTENDED_HANDSHAKE_ID,
        introduction.encode(),
    );
    swarm.state = State::Seeding;
    swarm.leaving.note_complete(at(1));
    swarm.handle_closed(at(1), slot, &mut Throttles::default());
    swarm
}

/// When it leaves, if its calls are answered before second `until`.
fn leaves_at(mut swarm: Swarm, until: u64) -> Option<u64> {
    for quarter in 8..4 * 600 {
        let now = Instant(quarter * 250_000);
        ticks(&mut swarm, now);
        if let Some((slot, _)) = swarm.poll_connect(now) {
            if now < at(until) {
                swarm.handle_connected(now, slot);
                while swarm.poll_close().is_some() {}
            }
            swarm.handle_closed(now, slot, &mut Throttles::default());
        }
        if !swarm.is_open() {
            return Some(quarter / 4);
        }
    }
    None
}

#[test]
fn without_a_tracker_the_end_is_the_absence_of_the_seed_for_the_grace_time() {
    let seed = address(5);
    let leaves = |until| leaves_at(complete_with(seed, introduction(5)), until);
    assert_eq!(leaves(1000), None, "the seed is there");
    for until in [2, 60, 100, 207] {
        let left = leaves(until).unwrap();
        assert!(
            (until + 30..until + 30 + 16).contains(&left),
            "{until}: {left}"
        );
    }
    // A restart releases nobody.
    let mut swarm = complete_with(seed, introduction(5));
    for second in 2..200 {
        ticks(&mut swarm, at(second));
        if let Some((slot, _)) = swarm.poll_connect(at(second)) {
            if !(60..80).contains(&second) {
                swarm.handle_connected(at(second), slot);
            }
            while swarm.poll_close().is_some() {}
            swarm.handle_closed(at(second), slot, &mut Throttles::default());
        }
    }
    assert!(swarm.is_open());
    let said: Vec<Event> = core::iter::from_fn(|| swarm.poll_event()).collect();
    assert!(
        matches!(said[..], [Event::JobEnded(_), Event::SourceBack]),
        "{said:?}"
    );
}

/// Two machines that were given each other's address must not wait for each other.
#[test]
fn another_machine_that_fetches_is_no_seed() {
    let other = ExtendedHandshake {
        fetches: true,
        ..introduction(5)
    };
    let left = leaves_at(complete_with(address(5), other), 1000);
    assert_eq!(left, Some(31), "the grace time after nobody needs it");
}
