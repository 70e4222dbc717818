//! What may a peer that breaks the rules cost the others, and for how long?

use core::time::Duration;

use super::super::*;
use super::links::*;
use crate::policy::throttle::Throttles;
use crate::wire::extension::ExtendedHandshake;
use crate::wire::message::{Message, RawBlock};

pub(super) fn hears(swarm: &mut Swarm, now: Instant, slot: PeerSlot, message: Message) {
    swarm.handle_message(now, slot, message, &mut Throttles::default());
}

fn begins(swarm: &mut Swarm, now: Instant, slot: PeerSlot, raw: RawBlock) -> bool {
    swarm.begin_block(now, slot, raw) != Sink::Discard
}

/// The peer sends a whole block; false if nobody wants it.
fn gives(swarm: &mut Swarm, now: Instant, slot: PeerSlot, raw: RawBlock) -> bool {
    let kept = begins(swarm, now, slot, raw);
    swarm.handle_block(now, slot, raw, &mut Throttles::default());
    swarm.check_invariants();
    kept
}

/// A quarter of a second passes.
pub(super) fn tick(swarm: &mut Swarm, now: &mut Instant) {
    *now = *now + TICK;
    swarm.handle_timeout(*now, &mut Throttles::default());
    swarm.check_invariants();
}

fn seconds(now: Instant) -> f64 {
    now.0 as f64 / 1e6
}

/// A peer with piece 0 that has unchoked us.
fn holder(swarm: &mut Swarm, host: u8, fast: bool) -> PeerSlot {
    let slot = caller(swarm, host, fast, &[0]);
    hears(swarm, at(0), slot, Message::Unchoke);
    slot
}

/// Hashes everything. Blocks that `is_bad` names make their piece bad.
fn hash(swarm: &mut Swarm, now: Instant, is_bad: impl Fn(u32, u32) -> bool) {
    loop {
        let hashes = swarm.poll_hash(Patience::Over);
        if hashes.is_empty() {
            return;
        }
        for hash in hashes {
            let layout = swarm.metainfo.layout;
            if hash.begin + hash.length < hash.of.length(&layout) {
                continue;
            }
            let piece = hash.of.piece();
            let bad = match hash.of {
                HashOf::Block(_, at) => is_bad(piece.0, at.0),
                _ => (0..layout.block_count(piece)).any(|at| is_bad(piece.0, at)),
            };
            let digest = if bad { 0xee } else { piece.0 as u8 };
            swarm.handle_hashed(now, hash.of, PieceHash([digest; 20]));
            swarm.check_invariants();
        }
    }
}

/// Everything that a peer can send instead of the payload it was asked for.
fn words(round: u32, word: usize) -> Vec<Message> {
    let offers = ExtendedHandshake {
        offers: round.is_multiple_of(2),
        reqq: Some(1 + round),
        ..ExtendedHandshake::default()
    };
    match word {
        0 => [Message::Unchoke].into(),
        1 => [Message::Choke, Message::Unchoke].into(),
        2 => [Message::KeepAlive].into(),
        3 => [Message::Have(0), Message::Have(1)].into(),
        4 => [Message::Suggest(0), Message::AllowedFast(0)].into(),
        5 => [Message::Interested, Message::NotInterested].into(),
        6 => [Message::Extended {
            id: 0,
            payload: offers.encode(),
        }]
        .into(),
        7 => [Message::Unknown(99), Message::Port(1)].into(),
        8 => [
            Message::Request(first_block(0)),
            Message::Cancel(first_block(0)),
        ]
        .into(),
        9 => [Message::Bitfield([0b1100_0000].into())].into(),
        // Blocks that nobody asked for come in `nothing_but_what_was_asked_for_…`.
        _ => Vec::new(),
    }
}

/// With what a peer says each quarter of a second, with the fast extension and without.
#[test]
fn nothing_but_what_was_asked_for_keeps_a_request_alive() {
    for (word, fast) in (0..13).flat_map(|word| [(word, true), (word, false)]) {
        let mut swarm = swarm(Role::Leecher, 2, 64 * KIB, &[]);
        let (liar, honest) = (holder(&mut swarm, 2, fast), holder(&mut swarm, 3, true));
        let first = asked(&mut swarm, at(0), liar);
        assert_eq!(first.len(), 4);
        let (mut now, mut handed_over, mut waiting) = (at(0), None, Vec::new());
        let closed = loop {
            for message in words(now.0 as u32, word) {
                hears(&mut swarm, now, liar, message);
            }
            match word {
                10 => _ = gives(&mut swarm, now, liar, first_block(1)),
                11 => {
                    _ = gives(
                        &mut swarm,
                        now,
                        liar,
                        RawBlock {
                            length: 1,
                            ..first_block(0)
                        },
                    )
                }
                12 if fast => asked(&mut swarm, now, liar)
                    .into_iter()
                    .for_each(|raw| hears(&mut swarm, now, liar, Message::Reject(raw))),
                _ => {}
            }
            asked(&mut swarm, now, liar);
            waiting.extend(asked(&mut swarm, now, honest));
            if handed_over.is_none() && waiting.len() >= 4 {
                handed_over = Some(seconds(now));
            }
            // The honest one lives, and has not got far.
            hears(&mut swarm, now, honest, Message::KeepAlive);
            swarm
                .peer(honest)
                .answered(now, Duration::ZERO, Duration::ZERO);
            if let Some((slot, why)) = swarm.poll_close() {
                break (slot, why, seconds(now));
            }
            if seconds(now) > 30.0 {
                break (honest, "nobody", 30.0);
            }
            tick(&mut swarm, &mut now);
        };
        let patience = REQUEST_PATIENCE_MAX.as_secs_f64() + 0.5;
        assert!(
            handed_over.is_some_and(|after| after <= patience),
            "word {word}, fast {fast}: {handed_over:?}"
        );
        // A peer that refuses, or chokes us without the fast extension, holds nothing.
        let (slot, why, after) = closed;
        let holds = if fast { word != 12 } else { word != 1 };
        if holds {
            assert_eq!(slot, liar, "word {word}, fast {fast}");
            assert!(
                after <= SILENCE_MAX.as_secs_f64() + 0.5,
                "word {word}: {after} s, {why}"
            );
        }
    }
}

/// The peer sends a byte now and then: the core hears of the first one only.
#[test]
fn a_block_that_trickles_in_does_not_hold_up_a_piece_that_others_have() {
    for (others, limit) in [(true, ARRIVAL_MAX), (false, SILENCE_MAX)] {
        let mut swarm = swarm(Role::Leecher, 1, 64 * KIB, &[]);
        let slow = holder(&mut swarm, 2, true);
        let raw = asked(&mut swarm, at(0), slow)[0];
        assert!(begins(&mut swarm, at(0), slow, raw));
        if others {
            let other = holder(&mut swarm, 3, true);
            for raw in asked(&mut swarm, at(0), other) {
                gives(&mut swarm, at(0), other, raw);
            }
        }
        let mut now = at(0);
        while swarm.poll_close().is_none() {
            tick(&mut swarm, &mut now);
            hears(&mut swarm, now, slow, Message::KeepAlive);
        }
        assert_eq!(seconds(now), limit.as_secs_f64());
    }
}

/// A source that stood still for longer than its requests may take goes on where it was.
#[test]
fn a_source_that_stands_still_for_a_while_is_taken_up_again() {
    let mut swarm = swarm(Role::Leecher, 2, 64 * KIB, &[]);
    let slot = caller(&mut swarm, 2, true, &[0, 1]);
    hears(&mut swarm, at(0), slot, Message::Unchoke);
    let mut waiting = asked(&mut swarm, at(0), slot);
    let mut now = at(0);
    while now < at(15) {
        tick(&mut swarm, &mut now);
        waiting.extend(asked(&mut swarm, now, slot));
    }
    assert!(swarm.peer(slot).snubbed);
    let mut kept = 0;
    while let Some(raw) = waiting.pop() {
        kept += u32::from(gives(&mut swarm, now, slot, raw));
        waiting.extend(asked(&mut swarm, now, slot));
    }
    assert_eq!((kept, swarm.poll_close()), (8, None), "each block once");
    assert!(!swarm.peer(slot).snubbed);
}

/// While a peer is snubbed, what it is asked for is free for others.
#[test]
fn a_snubbed_peer_holds_nothing() {
    let mut swarm = swarm(Role::Leecher, 1, 128 * KIB, &[]);
    let liar = holder(&mut swarm, 2, true);
    assert_eq!(asked(&mut swarm, at(0), liar).len(), 4);
    let mut now = at(0);
    while !swarm.peer(liar).snubbed {
        tick(&mut swarm, &mut now);
    }
    let honest = holder(&mut swarm, 3, true);
    let (mut given, mut cancelled) = (0, 0);
    while !swarm.picker.wanted().is_empty() && given < 20 {
        let said = said(&mut swarm, now, liar);
        let is = |kind: fn(&Message) -> bool| {
            let is_kind = |send: &&Send| matches!(send, Send::Message(message) if kind(message));
            said.iter().filter(is_kind).count()
        };
        cancelled += is(|message| matches!(message, Message::Cancel(_)));
        assert!(is(|message| matches!(message, Message::Request(_))) <= 1);
        for raw in asked(&mut swarm, now, honest) {
            given += u32::from(gives(&mut swarm, now, honest, raw));
        }
        work(&mut swarm, now);
    }
    assert_eq!(given, 8);
    assert!(cancelled >= 3, "what has come is cancelled");
}

/// A leecher whose only piece came bad from two peers: the slots of both, and the first requests
/// for the second attempt.
fn bad_from_two(swarm: &mut Swarm) -> [PeerSlot; 2] {
    let slots = [holder(swarm, 2, true), holder(swarm, 3, true)];
    let mut given = 0;
    while given < 64 {
        for slot in slots {
            for raw in asked(swarm, at(0), slot) {
                given += u32::from(gives(swarm, at(0), slot, raw));
            }
        }
    }
    hash(swarm, at(0), |_, block| block == 0);
    let liar = None;
    let piece = PieceIndex(0);
    assert_eq!(swarm.poll_event(), Some(Event::PieceBad { piece, liar }));
    slots
}

/// After a piece came bad from two peers, one of them sends a block each 4.5 seconds.
#[test]
fn a_piece_that_one_peer_fills_alone_does_not_wait_for_a_slow_one() {
    let mut swarm = swarm(Role::Leecher, 1, MIB, &[]);
    let [slow, honest] = bad_from_two(&mut swarm);
    let mut now = at(0);
    let mut waiting = asked(&mut swarm, now, slow);
    assert!(!waiting.is_empty());
    let mut given = 0;
    while given < 64 {
        for _ in 0..18 {
            tick(&mut swarm, &mut now);
            for raw in asked(&mut swarm, now, honest) {
                given += u32::from(gives(&mut swarm, now, honest, raw));
            }
        }
        waiting.extend(asked(&mut swarm, now, slow));
        if !waiting.is_empty() {
            gives(&mut swarm, now, slow, waiting.remove(0));
        }
        hears(&mut swarm, now, honest, Message::KeepAlive);
        assert!(seconds(now) < 15.0, "{given} blocks of the honest one");
    }
}

/// The deadline of the piece passes while a block of the slow one is arriving.
#[test]
fn a_filler_whose_block_is_arriving_is_replaced_after_that_block() {
    for honest_leaves in [false, true] {
        let mut swarm = swarm(Role::Leecher, 1, MIB, &[]);
        let [slow, honest] = bad_from_two(&mut swarm);
        let mut now = at(0);
        let mut waiting = asked(&mut swarm, now, slow);
        let mut given = 0;
        while given < 64 {
            let arriving = (!waiting.is_empty()).then(|| waiting.remove(0));
            if let Some(raw) = arriving {
                begins(&mut swarm, now, slow, raw);
            }
            for _ in 0..32 {
                tick(&mut swarm, &mut now);
                for raw in asked(&mut swarm, now, honest) {
                    given += u32::from(gives(&mut swarm, now, honest, raw));
                }
            }
            if let Some(raw) = arriving {
                swarm.handle_block(now, slow, raw, &mut Throttles::default());
            }
            if honest_leaves {
                // Nobody else is left: the slow one is asked again.
                swarm.handle_closed(now, honest, &mut Throttles::default());
                tick(&mut swarm, &mut now);
                assert!(!asked(&mut swarm, now, slow).is_empty());
                break;
            }
            waiting.extend(asked(&mut swarm, now, slow));
            assert!(seconds(now) < 20.0, "{given} blocks of the honest one");
        }
    }
}

/// A peer behind a slow line: another one sends its late block first, and the block arrives all the
/// same, 15 s after it was asked for. Others are still to come.
#[test]
fn a_slow_peer_whose_block_was_cancelled_too_late_is_not_cut() {
    for arrives in [true, false] {
        let mut swarm = swarm(Role::Leecher, 1, MIB, &[]);
        let slow = holder(&mut swarm, 2, true);
        let mut now = at(0);
        let waiting = asked(&mut swarm, now, slow);
        assert!(waiting.len() > 1);
        let fast = holder(&mut swarm, 3, true);
        let mut closed = false;
        for quarter in 0..100 {
            tick(&mut swarm, &mut now);
            for raw in asked(&mut swarm, now, fast) {
                if !waiting[1..].contains(&raw) {
                    assert!(gives(&mut swarm, now, fast, raw));
                }
            }
            if quarter == 60 && arrives {
                assert!(!gives(&mut swarm, now, slow, waiting[0]), "it is here");
            }
            while let Some((slot, _)) = swarm.poll_close() {
                closed |= slot == slow;
            }
        }
        assert_eq!(closed, !arrives);
    }
}

/// While this machine stood still, blocks arrived. They are read before the tick.
#[test]
fn a_pause_of_this_machine_is_not_the_fault_of_its_peers() {
    let mut swarm = swarm(Role::Leecher, 1, MIB, &[]);
    let peer = holder(&mut swarm, 2, true);
    let mut now = at(0);
    let waiting = asked(&mut swarm, now, peer);
    now = now + Duration::from_secs(60);
    assert!(gives(&mut swarm, now, peer, waiting[0]));
    tick(&mut swarm, &mut now);
    assert_eq!(swarm.poll_close(), None);
}

/// Two peers fill a piece, and one of their blocks is bad. The honest one fills it alone.
#[test]
fn the_giver_of_a_bad_block_is_found_among_several_even_when_it_has_left() {
    for leaves in [false, true] {
        let mut swarm = swarm(Role::Leecher, 1, MIB, &[]);
        let [liar, honest] = bad_from_two(&mut swarm);
        if leaves {
            swarm.handle_closed(at(0), liar, &mut Throttles::default());
        } else {
            hears(&mut swarm, at(0), liar, Message::Choke);
        }
        while !asked(&mut swarm, at(0), honest).is_empty() || swarm.picker.filling_count() > 0 {
            let standing: Vec<Block> = swarm
                .peer(honest)
                .requests
                .iter()
                .map(|r| r.block)
                .collect();
            for block in standing {
                gives(&mut swarm, at(0), honest, block.into());
            }
            hash(&mut swarm, at(0), |_, _| false);
        }
        let (piece, liar_address) = (PieceIndex(0), address(2));
        let found = Event::BlockBad {
            piece,
            liar: liar_address,
        };
        assert_eq!(swarm.poll_event(), Some(found), "it left: {leaves}");
        let closed = (!leaves).then_some((liar, "it sent bad data"));
        assert_eq!(swarm.poll_close(), closed);
        work(&mut swarm, at(0));
        assert!(swarm.have().is_full());
    }
}

/// One bit flips once in the memory of the only source.
#[test]
fn the_only_source_is_asked_again_after_one_bad_block() {
    let mut swarm = swarm(Role::Leecher, 1, 32 * KIB, &[]);
    let source = holder(&mut swarm, 2, true);
    for raw in asked(&mut swarm, at(0), source) {
        gives(&mut swarm, at(0), source, raw);
    }
    hash(&mut swarm, at(0), |_, _| true);
    let (piece, liar) = (PieceIndex(0), Some(address(2)));
    assert_eq!(swarm.poll_event(), Some(Event::PieceBad { piece, liar }));
    assert_eq!(swarm.poll_close(), Some((source, "it sent bad data")));
    swarm.handle_closed(at(0), source, &mut Throttles::default());
    let returns = |swarm: &mut Swarm, now, host| {
        let slot = swarm.handle_incoming(now, address(2)).unwrap();
        let handshake = crate::wire::message::Handshake {
            fast: true,
            extended: false,
            info_hash: swarm.metainfo.info_hash,
            peer_id: PeerId([host; 20]),
        };
        swarm.handle_handshake(now, slot, &handshake);
        let welcome = swarm.poll_close().is_none();
        swarm.handle_closed(now, slot, &mut Throttles::default());
        welcome
    };
    assert!(returns(&mut swarm, at(0), 9), "another behind the same NAT");
    assert!(!returns(&mut swarm, at(0), 2));
    assert!(returns(&mut swarm, at(1), 2), "nobody else has the piece");
    let other = holder(&mut swarm, 3, true);
    assert!(!returns(&mut swarm, at(9), 2), "now somebody else has");
    assert!(returns(&mut swarm, at(10), 2));
    assert!(swarm.peer(other).is_live());
}
