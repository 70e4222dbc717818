//! Does the core keep its invariants, whatever peers, disk, tracker and clock do?
//!
//! Holds after every step: `Swarm::check_invariants`; a buffer is written by one owner, and by none
//! while another reads it (`claims`); nothing is announced or sent that is not on the disk, nothing
//! is requested that a peer does not have, polls and time-outs come to an end (`machine`).
//!
//! Input: the torrent and the options (`torrent`), then steps, one byte each with what it needs.
//! With its highest bit set, another step follows before the core is polled.
#![no_main]

mod claims;
mod machine;
mod torrent;

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use machine::Machine;
use swarm_proto::swarm::State;
use swarm_proto::units::{PeerSlot, PieceIndex};
use swarm_proto::wire::announce::Answer;
use swarm_proto::wire::extension::{DONT_HAVE_ID, EXTENDED_HANDSHAKE_ID, ExtendedHandshake};
use swarm_proto::wire::message::{Message, RawBlock};
use swarmdd_fuzz::Input;

/// Longer inputs find nothing that shorter ones do not, only later.
const STEPS_MAX: usize = 600;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut machine = Machine::new(&mut input);
    machine.poll();
    for _ in 0..STEPS_MAX {
        if input.is_empty() || matches!(machine.swarm.state(), State::Over(_)) {
            break;
        }
        let step = input.u8();
        take(step & 0x7f, &mut machine, &mut input);
        if step & 0x80 == 0 {
            machine.poll();
        }
    }
    machine.poll();
});

fn take(step: u8, machine: &mut Machine, input: &mut Input<'_>) {
    match step % 20 {
        0 => machine.pass_ms(input.u8().into()),
        1 => machine.pass_ms(u64::from(input.u8()) * 1000),
        2 => machine.pass_to_timeout(),
        3 => machine.room = input.u8().into(),
        4 => machine.incoming(input.u8(), input.u8()),
        5 => machine.connected(input.u8(), input.u8()),
        6 | 7 => {
            if let Some(slot) = machine.talking(input.u8()) {
                let message = message(machine, slot, input);
                machine.hear(slot, message);
            }
        }
        8 => introduce(machine, input),
        9 => serve(machine, input),
        10 => begin_block(machine, input),
        11 => machine.end_block(input.u8()),
        12 => machine.close_any(input.u8()),
        13 => machine.sent(input.u8()),
        14 => machine.disk_done(input.u8(), true),
        15 => machine.disk_done(input.u8(), false),
        16 => machine.disk_idle(),
        17 => machine.answer(tracker_answer(input)),
        18 => machine.fail_every_hash(input.u8()),
        _ => machine.swarm.leave(machine.now),
    }
}

/// A peer that has everything, wants everything and lets us ask.
fn introduce(machine: &mut Machine, input: &mut Input<'_>) {
    let Some(slot) = machine.talking(input.u8()) else {
        return;
    };
    for message in [Message::HaveAll, Message::Unchoke, Message::Interested] {
        machine.hear(slot, message);
    }
}

/// A peer answers up to so many of our requests.
fn serve(machine: &mut Machine, input: &mut Input<'_>) {
    let Some(slot) = machine.talking(input.u8()) else {
        return;
    };
    for _ in 0..input.u8() {
        let Some(raw) = machine.first_request(slot) else {
            return;
        };
        machine.begin_block(slot, raw);
        machine.end_block_of(slot);
    }
}

/// A block that we asked for, or any other.
fn begin_block(machine: &mut Machine, input: &mut Input<'_>) {
    let Some(slot) = machine.talking(input.u8()) else {
        return;
    };
    let asked = if input.chance(4) {
        None
    } else {
        machine.first_request(slot)
    };
    let mut raw = asked.unwrap_or_else(|| raw_block(machine, input));
    // The frame decoder lets through no other lengths.
    raw.length = raw.length.clamp(1, 16 * 1024);
    machine.begin_block(slot, raw);
}

fn message(machine: &Machine, slot: PeerSlot, input: &mut Input<'_>) -> Message {
    let pieces = machine.pieces();
    let index = |input: &mut Input<'_>| match input.u8() {
        255 => u32::MAX,
        index => u32::from(index) % (pieces + 1),
    };
    match input.choose(20) {
        0 => Message::KeepAlive,
        1 => Message::Choke,
        2 | 18 => Message::Unchoke,
        3 | 19 => Message::Interested,
        4 => Message::NotInterested,
        5 => Message::Have(index(input)),
        6 => bitfield(pieces, input),
        7 => Message::Request(raw_block(machine, input)),
        8 => Message::Cancel(raw_block(machine, input)),
        9 => Message::Suggest(index(input)),
        10 => Message::HaveAll,
        11 => Message::HaveNone,
        12 => Message::Reject(raw_block(machine, input)),
        13 => Message::Reject(
            machine
                .first_request(slot)
                .unwrap_or_else(|| raw_block(machine, input)),
        ),
        14 => Message::AllowedFast(index(input)),
        15 => extended_handshake(input),
        16 => Message::Extended {
            id: DONT_HAVE_ID,
            payload: index(input).to_be_bytes().to_vec(),
        },
        _ => Message::Unknown(77),
    }
}

/// Spare bits are zero in three of four.
fn bitfield(pieces: u32, input: &mut Input<'_>) -> Message {
    let mut bytes = vec![0; pieces.div_ceil(8) as usize];
    bytes.iter_mut().for_each(|byte| *byte = input.u8());
    if !input.chance(4) && !pieces.is_multiple_of(8) {
        *bytes.last_mut().expect("a piece at least") &= !0 << (8 - pieces % 8);
    }
    Message::Bitfield(bytes)
}

fn extended_handshake(input: &mut Input<'_>) -> Message {
    let flags = input.u8();
    let handshake = ExtendedHandshake {
        dont_have: (flags & 1 != 0).then_some(9),
        reqq: (flags & 2 != 0).then(|| input.u32()),
        upload_only: flags & 4 != 0,
        offers: flags & 8 != 0,
        ..ExtendedHandshake::default()
    };
    Message::Extended {
        id: EXTENDED_HANDSHAKE_ID,
        payload: handshake.encode(),
    }
}

/// Mostly a whole block of a piece that exists.
fn raw_block(machine: &Machine, input: &mut Input<'_>) -> RawBlock {
    let (index, begin) = (u32::from(input.u8()), u32::from(input.u8()));
    let index = index % (machine.pieces() + u32::from(index == 255));
    let layout = machine.swarm.metainfo().layout;
    let blocks = layout
        .check_piece(index)
        .map_or(1, |piece: PieceIndex| layout.block_count(piece));
    let begin = begin % blocks * (16 * 1024);
    let piece_length = layout
        .check_piece(index)
        .map_or(1, |piece| layout.piece_length(piece));
    let length = (piece_length - begin.min(piece_length)).min(16 * 1024);
    match input.u8() {
        254 => RawBlock {
            index,
            begin: begin + 1,
            length: length / 2,
        },
        255 => RawBlock {
            index,
            begin: input.u32(),
            length: input.u32(),
        },
        _ => RawBlock {
            index,
            begin,
            length,
        },
    }
}

fn tracker_answer(input: &mut Input<'_>) -> Result<Answer, String> {
    match input.choose(4) {
        0 => Err("no answer".into()),
        1 => Ok(Answer::Refusal {
            reason: "no".into(),
            retry_after: Some(Duration::from_secs(input.u8().into())),
            by_tracker: input.choose(2) == 0,
        }),
        _ => {
            let peers = (0..input.choose(4)).map(|_| machine::address(input.u8()));
            let peers = peers.collect();
            Ok(Answer::Peers {
                peers,
                warning: None,
            })
        }
    }
}
