//! Does a room of machines fetch exactly the pieces that it lacks, whatever its disks hold, lose or
//! cannot read?
//!
//! The seeds mix all faults. Here each room has one, and the numbers are exact.

use alloc::vec::Vec;
use core::time::Duration;

use super::disk::{Contents, DiskFault};
use super::fake_peer::{BEHAVIOURS, Behaviour};
use super::image::{Bytes, Shape};
use super::options::{AgentOptions, FakeOptions, Interruption, Options};
use super::report::Report;
use super::run::run;
use crate::limits::{GATEWAYS, LINKS, PIECE_BYTES_MIN, RATE_MIN};
use crate::swarm::DiskOperation;
use crate::units::Instant;

const PIECE: u32 = 2 * PIECE_BYTES_MIN;
const RATE: u64 = 1 << 20;
/// At most this long after the start the first block arrives.
const CONNECTING_SECS: f64 = 0.3;

/// A seeder and leechers of an image of 200 pieces. All targets hold `contents`.
fn room(leechers: u32, contents: Contents) -> Options {
    let mut options = Options::equal_links(leechers, 200, PIECE, RATE);
    options.agents[1..]
        .iter_mut()
        .for_each(|agent| agent.disk.contents = contents);
    options
}

/// One letter a piece: `0` is zeros, `*` is unlike all others, and equal letters are equal pieces.
fn shape(letters: &str) -> Shape {
    let mut shape = Shape::of_distinct(letters.len() as u32, PIECE, PIECE);
    for (index, letter) in letters.bytes().enumerate() {
        shape.pieces[index] = match letter {
            b'0' => Bytes::Zeros,
            b'*' => Bytes::Of(index as u32),
            _ => Bytes::Of(
                letters
                    .bytes()
                    .position(|other| other == letter)
                    .unwrap_or(index) as u32,
            ),
        };
    }
    shape
}

/// Runs a room in which every agent must complete, having fetched exactly the bytes that it lacked.
fn run_to_completion(options: Options) -> Report {
    let machines = options.agents.len();
    let report = run(options);
    assert_eq!((report.complete, report.failed), (machines, 0));
    assert_eq!(report.fetched, report.missing);
    report
}

/// An agent has no more links than others because it started earlier, and a complete agent opens no
/// connections.
#[test]
fn large_room_is_fair_and_opens_few_connections() {
    let report = run_to_completion(room(100, Contents::Garbage));
    let of_median = report.downloaded.as_secs_f64() / report.median.as_secs_f64();
    assert!(
        of_median < 1.15,
        "the last one took {of_median} times as long as the median"
    );
    // Twice the links: some agents connect to each other at the same time, or to one whose links
    // are all in use.
    assert!(
        report.connections < 2 * 101 * LINKS as u32,
        "{} connections",
        report.connections
    );
}

#[test]
fn full_targets_fetch_nothing() {
    let report = run_to_completion(room(4, Contents::Image));
    assert_eq!((report.fetched, report.found), (0, 4 * 200));
}

#[test]
fn empty_targets_find_nothing_and_fetch_all() {
    for contents in [Contents::Zeros, Contents::Garbage] {
        let report = run_to_completion(room(4, contents));
        assert_eq!(
            (report.missing, report.found),
            (4 * 200 * u64::from(PIECE), 0)
        );
    }
}

/// The requirement: with 5 % of the pieces damaged, at most 8 % of the bytes are downloaded.
#[test]
fn partial_targets_fetch_the_rest() {
    for percent in [95, 50] {
        let report = run_to_completion(room(4, Contents::Part(percent)));
        let image = 4 * 200 * u64::from(PIECE);
        assert!(report.fetched < image * (103 - u64::from(percent)) / 100 + image / 20);
    }
}

/// An image of mostly zeros and repeated pieces, onto targets with garbage, zeros, a part of the
/// image or all of it.
#[test]
fn zeros_are_not_fetched_and_equal_pieces_once() {
    for contents in [
        Contents::Garbage,
        Contents::Zeros,
        Contents::Part(30),
        Contents::Image,
    ] {
        let mut options = room(4, contents);
        options.shape = shape(&"0A0B00*0A0000B0*000000000A0*000000C00C00".repeat(5));
        let report = run_to_completion(options);
        if contents == Contents::Garbage {
            // A, B and C once, and three unique pieces in each of five repetitions.
            assert_eq!(report.fetched, 4 * u64::from(PIECE) * (3 + 3 * 5));
        }
    }
}

#[test]
fn image_of_zeros_needs_no_peer() {
    let mut options = room(2, Contents::Garbage);
    options.shape = shape(&"0".repeat(200));
    assert_eq!(run_to_completion(options).fetched, 0);
}

/// The requirement: a leecher that is killed at any time and restarted fetches at most 1.15 images
/// in all, because what was written stays.
#[test]
fn restarted_leecher_resumes() {
    let image = 4 * 200 * u64::from(PIECE);
    for step in 0..20 {
        let mut options = room(4, Contents::Garbage);
        let at = Instant(1_100_000 + step * 400_000);
        let restarts_at = Some(at + Duration::from_secs(1));
        options.agents[2].interruption = Interruption::Killed {
            at,
            restarts_at,
            power_cut: false,
        };
        let report = run(options);
        assert_eq!((report.complete, report.failed), (5, 0));
        assert!(
            report.fetched <= image + image / 4 * 15 / 100,
            "killed at {at:?}: {}",
            report.fetched
        );
    }
}

/// After a power cut everything that was not flushed may be lost. How much is fetched again depends
/// on the disk; the target is correct in the end.
#[test]
fn leecher_completes_after_a_power_cut() {
    for step in 0..20 {
        let mut options = room(2, Contents::Garbage);
        let at = Instant(1_100_000 + step * 400_000);
        let restarts_at = Some(at + Duration::from_secs(1));
        options.agents[2].interruption = Interruption::Killed {
            at,
            restarts_at,
            power_cut: true,
        };
        let report = run(options);
        assert_eq!((report.complete, report.failed), (3, 0));
    }
}

/// Runs a room with a second seeder on this disk. The first one is slow, so most requests go to the
/// second.
fn two_sources(contents: Contents, fault: DiskFault) -> Report {
    let mut options = room(4, Contents::Garbage);
    options.agents[1] = AgentOptions {
        starts_at: Instant(0),
        ..options.agents[0].clone()
    };
    (
        options.agents[1].disk.contents,
        options.agents[1].disk.fault,
    ) = (contents, fault);
    options.agents[0].up_rate = RATE / 50;
    run(options)
}

#[test]
fn damaged_source_serves_its_good_pieces() {
    let unreadable = DiskFault::Unreadable { one_in: 4 };
    for (contents, fault) in [
        (Contents::Part(75), DiskFault::None),
        (Contents::Image, unreadable),
    ] {
        let report = two_sources(contents, fault);
        assert_eq!((report.complete, report.failed), (5, 0));
        assert!(report.sources_bad > 0);
        assert_eq!(report.fetched, 3 * 200 * u64::from(PIECE));
    }
}

#[test]
fn source_without_good_pieces_fails() {
    let report = two_sources(Contents::Garbage, DiskFault::None);
    assert_eq!(
        (report.complete, report.failed, report.sources_bad),
        (4, 1, 200)
    );
}

/// A target that fails is never reported as complete, and all other machines complete.
#[test]
fn failing_target_fails_alone() {
    let fails = |operation, from| DiskFault::Fails { operation, from };
    let faults = [
        // The first fails in the scan, the second while it serves or reads back.
        (Contents::Part(50), fails(DiskOperation::Read, 100)),
        (Contents::Garbage, fails(DiskOperation::Read, 150)),
        (Contents::Garbage, fails(DiskOperation::Write, 50)),
        (Contents::Garbage, fails(DiskOperation::Flush, 0)),
        (Contents::Image, fails(DiskOperation::Flush, 0)),
        (
            Contents::Garbage,
            DiskFault::LosesWrite {
                write: 20,
                count: 1,
                always: true,
                hidden: false,
            },
        ),
    ];
    for (contents, fault) in faults {
        let mut options = room(4, Contents::Garbage);
        (
            options.agents[2].disk.contents,
            options.agents[2].disk.fault,
        ) = (contents, fault);
        let report = run(options);
        assert_eq!((report.complete, report.failed), (4, 1), "{fault:?}");
    }
}

/// Pieces that cannot be read are fetched and written; then they can be read.
#[test]
fn unreadable_pieces_are_rewritten() {
    for contents in [
        Contents::Garbage,
        Contents::Zeros,
        Contents::Part(50),
        Contents::Image,
    ] {
        let mut options = room(4, contents);
        options.agents[2..]
            .iter_mut()
            .for_each(|agent| agent.disk.fault = DiskFault::Unreadable { one_in: 4 });
        let report = run(options);
        assert_eq!((report.complete, report.failed), (5, 0));
        let least = if contents == Contents::Image {
            3 * 200 / 8
        } else {
            0
        };
        assert!(
            report.fetched > u64::from(least * PIECE),
            "nothing was unreadable"
        );
    }
}

#[test]
fn one_lost_write_is_repaired() {
    let mut options = room(4, Contents::Garbage);
    let some: Vec<&mut AgentOptions> = options.agents[2..].iter_mut().collect();
    for (index, agent) in (0..).zip(some) {
        agent.disk.fault = DiskFault::LosesWrite {
            write: 50 * index,
            count: 1,
            always: false,
            hidden: false,
        };
    }
    let report = run(options);
    assert_eq!(
        (report.complete, report.failed, report.read_back_bad),
        (5, 0, 3)
    );
    assert!(report.fetched <= report.missing + 3 * u64::from(PIECE));
}

/// One seeder and one leecher, with a rate limit at one end or both: the download takes the time
/// that the limit implies.
#[test]
fn rate_limit_is_held_and_used() {
    for limit in [RATE_MIN, RATE / 4, RATE / 2] {
        for (sender, receiver) in [
            (Some(limit), None),
            (None, Some(limit)),
            (Some(limit), Some(limit)),
        ] {
            let mut options = room(1, Contents::Garbage);
            (options.agents[0].max_up, options.agents[1].max_down) = (sender, receiver);
            let report = run_to_completion(options);
            let seconds = report.downloaded.as_secs_f64() - CONNECTING_SECS;
            let ideal = report.fetched as f64 / limit as f64;
            assert!(
                (0.95..1.05).contains(&(seconds / ideal)),
                "{seconds} s instead of {ideal} s"
            );
        }
    }
}

/// With low limits requests wait long. No peer may be taken for dead because of it, so no block is
/// fetched twice.
#[test]
fn limited_peers_are_not_given_up() {
    for (leechers, limit) in [(40, RATE_MIN), (8, RATE_MIN), (8, RATE / 4)] {
        let mut options = room(leechers, Contents::Garbage);
        options
            .agents
            .iter_mut()
            .for_each(|agent| agent.max_up = Some(limit));
        let report = run_to_completion(options.clone());
        assert!(
            report.unused < 0.02,
            "{leechers} leechers at {limit}: {report:?}"
        );
        options
            .agents
            .iter_mut()
            .for_each(|agent| agent.max_down = Some(limit));
        let report = run_to_completion(options);
        assert!(
            report.unused < 0.02,
            "{leechers} leechers at {limit}: {report:?}"
        );
    }
}

/// As many peers that break the rules as honest ones, all of one kind: each machine completes, and
/// in little more time than without them.
#[test]
fn hostile_peers_cost_little() {
    let alone = run_to_completion(room(8, Contents::Garbage));
    for behaviour in BEHAVIOURS {
        let mut options = room(8, Contents::Garbage);
        options.fakes = (0..8)
            .map(|_| FakeOptions {
                behaviour,
                rate: RATE,
                starts_at: Instant(0),
            })
            .collect();
        let report = run(options);
        assert_eq!((report.complete, report.failed), (9, 0), "{behaviour:?}");
        let times = report.downloaded.as_secs_f64() / alone.downloaded.as_secs_f64();
        // What they request takes its share of the links, also what they cancel: by then it is in
        // a send buffer.
        let takes = matches!(
            behaviour,
            Behaviour::RequestsTooMuch | Behaviour::ReadsNothing | Behaviour::Cancels
        );
        let limit = if takes { 1.6 } else { 1.35 };
        assert!(times < limit, "{behaviour:?}: {times} times as long");
    }
}

/// Three rooms behind cables of one link each, with as many machines.
fn rooms(leechers: u32) -> Options {
    let mut options = room(leechers, Contents::Garbage);
    options.rack_rates = alloc::vec![RATE; 3];
    for (index, agent) in options.agents[1..].iter_mut().enumerate() {
        agent.rack = Some(index / (leechers as usize).div_ceil(3));
    }
    options
}

/// What the busiest cable has carried, in images.
fn carried_most(report: &Report) -> f64 {
    let most = report.carried.iter().flatten().max();
    *most.unwrap_or(&0) as f64 / (200.0 * f64::from(PIECE))
}

#[test]
fn an_image_passes_each_cable_about_once() {
    let alone = run_to_completion(room(36, Contents::Garbage));
    let mut options = rooms(36);
    let report = run_to_completion(options.clone());
    let times = report.downloaded.as_secs_f64() / alone.downloaded.as_secs_f64();
    assert!(carried_most(&report) < 1.3, "{:?}", report.carried);
    assert!(times < 1.4, "{times} times as long as one room");
    // The twin: machines that do not know their rooms.
    options.subnets_known = false;
    let report = run_to_completion(options);
    assert!(carried_most(&report) > 2.0, "{:?}", report.carried);
}

/// The machines of each room die that fetch for it. Others take their place.
#[test]
fn rooms_complete_without_their_gateways() {
    let mut options = rooms(45);
    for agent in (0..3).flat_map(|room| 1 + 15 * room..1 + 15 * room + GATEWAYS as usize) {
        options.agents[agent].interruption = Interruption::Killed {
            at: Instant(4_000_000),
            restarts_at: None,
            power_cut: true,
        };
    }
    let report = run(options);
    assert_eq!(
        (report.complete, report.failed),
        (46 - 3 * GATEWAYS as usize, 0)
    );
    assert!(carried_most(&report) < 1.6, "{:?}", report.carried);
    assert!(report.downloaded < Duration::from_secs(20), "{report:?}");
}
