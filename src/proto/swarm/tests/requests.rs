//! What do the requests of its peers cost a seed?

use super::super::*;
use super::hostile::{hears, tick};
use super::links::*;
use crate::policy::throttle::Throttles;
use crate::wire::message::{Message, RawBlock};

/// A seed whose pieces of 1 MiB have four chunks each.
fn seed() -> Swarm {
    swarm(Role::Seeder, 64, MIB, &[])
}

fn reader(swarm: &mut Swarm, host: u8) -> PeerSlot {
    let slot = caller(swarm, host, true, &[]);
    hears(swarm, at(0), slot, Message::Interested);
    said(swarm, at(0), slot);
    slot
}

fn chunk(number: u32) -> RawBlock {
    RawBlock {
        index: number / 4,
        begin: number % 4 * BUFFER_BYTES_MAX,
        length: BLOCK_BYTES,
    }
}

/// The disk does everything. How many chunks it read.
fn reads(swarm: &mut Swarm, now: Instant) -> u32 {
    let mut reads = 0;
    while let Some(work) = swarm.poll_disk() {
        let Work::Read { ticket, .. } = work else {
            panic!("a seed only reads: {work:?}")
        };
        reads += 1;
        swarm.handle_disk(now, ticket, Ok(()));
    }
    swarm.check_invariants();
    reads
}

#[test]
fn a_request_that_is_cancelled_at_once_costs_no_read() {
    let mut swarm = seed();
    let slot = reader(&mut swarm, 2);
    for number in 0..200 {
        hears(&mut swarm, at(0), slot, Message::Request(chunk(number)));
        hears(&mut swarm, at(0), slot, Message::Cancel(chunk(number)));
    }
    assert_eq!(reads(&mut swarm, at(0)), 0);
}

#[test]
fn requests_that_are_cancelled_after_the_read_are_soon_not_read_any_more() {
    let mut swarm = seed();
    let (attacker, honest) = (reader(&mut swarm, 2), reader(&mut swarm, 3));
    let mut now = at(0);
    let mut wasted = 0;
    for number in 0..200 {
        hears(&mut swarm, now, attacker, Message::Request(chunk(number)));
        wasted += reads(&mut swarm, now);
        hears(&mut swarm, now, attacker, Message::Cancel(chunk(number)));
        if number % 10 == 0 {
            tick(&mut swarm, &mut now);
        }
    }
    let lapsed = now.0 as u32 / 1_000_000;
    assert!(
        wasted <= EXCESS_READS_MAX + lapsed,
        "{wasted} in {lapsed} s"
    );
    // Others are served as ever, and what is in memory is sent to the attacker, too.
    for number in 100..200 {
        hears(&mut swarm, now, honest, Message::Request(chunk(number)));
        reads(&mut swarm, now);
        let said = said(&mut swarm, now, honest);
        assert!(
            said.iter().any(|send| matches!(send, Send::Block { .. })),
            "{number}"
        );
        swarm.handle_sent(now, honest);
    }
}

/// As many peers as there is room for request one block in each of many chunks, and do not read.
#[test]
fn peers_that_do_not_read_leave_buffers_and_reads_for_those_that_do() {
    let mut swarm = swarm_with_buffers(Role::Seeder, 64, MIB, &[], 168);
    let mut deaf = Vec::new();
    for host in 2..80 {
        let slot = reader(&mut swarm, host);
        for number in 0..200 {
            let number = (number + 3 * u32::from(host)) % 256;
            hears(&mut swarm, at(0), slot, Message::Request(chunk(number)));
        }
        deaf.push(slot);
    }
    let mut now = at(0);
    // The shell queues this many blocks of one connection, and then asks for no more.
    let mut queued = alloc::vec![0; deaf.len()];
    let honest = reader(&mut swarm, 99);
    let (mut sent, mut number) = (0, 0);
    while sent < 64 {
        for (slot, queued) in deaf.iter().zip(&mut queued) {
            while *queued < 16
                && let Some(send) = swarm.poll_send(now, *slot, &mut Throttles::default())
            {
                *queued += u32::from(matches!(send, Send::Block { .. }));
            }
        }
        if number < 4 * (sent + 4) && number < 256 {
            hears(&mut swarm, now, honest, Message::Request(chunk(number)));
            number += 1;
        }
        reads(&mut swarm, now);
        for send in said(&mut swarm, now, honest) {
            if let Send::Block { .. } = send {
                swarm.handle_sent(now, honest);
                sent += 1;
            }
        }
        tick(&mut swarm, &mut now);
        assert!(
            now < at(20),
            "{sent} blocks were sent before the others were closed"
        );
    }
}
