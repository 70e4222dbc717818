//! Does a room of machines fetch no more than it lacks, whatever its disks held, lost or hid
//! before?
//!
//! The seeds mix everything; here each room has one trouble, and the numbers are exact.

use alloc::vec::Vec;
use core::time::Duration;

use super::disk::{DiskFault, Holds};
use super::image::{Bytes, Shape};
use super::options::{AgentOptions, Fate, Options};
use super::report::Report;
use super::run::run;
use crate::limits::{LINKS, PIECE_BYTES_MIN, RATE_MIN};
use crate::swarm::DiskOperation;
use crate::units::Instant;

const PIECE: u32 = 2 * PIECE_BYTES_MIN;
const RATE: u64 = 1 << 20;
/// From the start to the first block, at most.
const CONNECTING_SECS: f64 = 0.3;

/// A seeder, and so many leechers of 200 pieces; their targets hold this.
fn room(leechers: u32, holds: Holds) -> Options {
    let mut options = Options::equal_links(leechers, 200, PIECE, RATE);
    options.agents[1..]
        .iter_mut()
        .for_each(|agent| agent.disk.holds = holds);
    options
}

/// One letter a piece: 0 is zeros, others are pieces like this one, and `*` is like no other.
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

/// Everybody is complete, and has fetched exactly what it lacked.
fn fetches_what_it_lacks(options: Options) -> Report {
    let machines = options.agents.len();
    let report = run(options);
    assert_eq!((report.complete, report.failed), (machines, 0));
    assert_eq!(report.fetched, report.lacking);
    report
}

/// Nobody has more neighbours than others because it was there before them, and whoever is done
/// looks for nobody.
#[test]
fn a_large_room_is_fair_and_parts_quietly() {
    let report = fetches_what_it_lacks(room(100, Holds::Garbage));
    let of_median = report.downloaded.as_secs_f64() / report.median.as_secs_f64();
    assert!(
        of_median < 1.15,
        "the last one took {of_median} of what the middle one took"
    );
    // Some call each other at the same moment, or somebody who has no place left.
    assert!(
        report.connections < 2 * 101 * LINKS as u32,
        "{} connections",
        report.connections
    );
}

#[test]
fn who_holds_everything_fetches_nothing() {
    let report = fetches_what_it_lacks(room(4, Holds::Image));
    assert_eq!((report.fetched, report.found), (0, 4 * 200));
}

#[test]
fn who_holds_nothing_reads_only_a_sample() {
    for holds in [Holds::Zeros, Holds::Garbage] {
        let report = fetches_what_it_lacks(room(4, holds));
        assert_eq!(
            (report.lacking, report.found),
            (4 * 200 * u64::from(PIECE), 0)
        );
    }
}

/// Issue: 5 % of the pieces damaged, no more than 8 % of the bytes downloaded.
#[test]
fn who_holds_a_part_fetches_the_rest() {
    for percent in [95, 50] {
        let report = fetches_what_it_lacks(room(4, Holds::Part(percent)));
        let image = 4 * 200 * u64::from(PIECE);
        assert!(report.fetched < image * (103 - u64::from(percent)) / 100 + image / 20);
    }
}

/// Issue: mostly zeros and some pieces again, onto targets full of garbage, or of zeros, or half
/// done.
#[test]
fn zeros_are_not_fetched_and_repeats_once() {
    for holds in [Holds::Garbage, Holds::Zeros, Holds::Part(30), Holds::Image] {
        let mut options = room(4, holds);
        options.shape = shape(&"0A0B00*0A0000B0*000000000A0*000000C00C00".repeat(5));
        let report = fetches_what_it_lacks(options);
        if holds == Holds::Garbage {
            // A, B, C, and three others in each of five rows.
            assert_eq!(report.fetched, 4 * u64::from(PIECE) * (3 + 3 * 5));
        }
    }
}

#[test]
fn nothing_but_zeros_needs_no_peer() {
    let mut options = room(2, Holds::Garbage);
    options.shape = shape(&"0".repeat(200));
    assert_eq!(fetches_what_it_lacks(options).fetched, 0);
}

/// Issue: killed at a random moment and started again, no more than 1.15 images in all. What was
/// written stays.
#[test]
fn who_was_killed_goes_on_where_it_was() {
    let image = 4 * 200 * u64::from(PIECE);
    for moment in 0..20 {
        let mut options = room(4, Holds::Garbage);
        let at = Instant(1_100_000 + moment * 400_000);
        let returns_at = Some(at + Duration::from_secs(1));
        options.agents[2].fate = Fate::Dies {
            at,
            returns_at,
            power: false,
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

/// Without power all that was not flushed may be gone: how much is fetched again is up to the disk,
/// but not what it holds.
#[test]
fn who_lost_its_power_is_complete_in_the_end() {
    for moment in 0..20 {
        let mut options = room(2, Holds::Garbage);
        let at = Instant(1_100_000 + moment * 400_000);
        let returns_at = Some(at + Duration::from_secs(1));
        options.agents[2].fate = Fate::Dies {
            at,
            returns_at,
            power: true,
        };
        let report = run(options);
        assert_eq!((report.complete, report.failed), (3, 0));
    }
}

/// A second seeder, with this disk, that is asked for most.
fn two_sources(holds: Holds, fault: DiskFault) -> Report {
    let mut options = room(4, Holds::Garbage);
    options.agents[1] = AgentOptions {
        starts_at: Instant(0),
        ..options.agents[0].clone()
    };
    (options.agents[1].disk.holds, options.agents[1].disk.fault) = (holds, fault);
    options.agents[0].up_rate = RATE / 50;
    run(options)
}

#[test]
fn a_source_serves_what_is_good_in_it() {
    let unreadable = DiskFault::Unreadable { one_in: 4 };
    for (holds, fault) in [
        (Holds::Part(75), DiskFault::None),
        (Holds::Image, unreadable),
    ] {
        let report = two_sources(holds, fault);
        assert_eq!((report.complete, report.failed), (5, 0));
        assert!(report.sources_bad > 0);
        assert_eq!(report.fetched, 3 * 200 * u64::from(PIECE));
    }
}

#[test]
fn a_source_of_something_else_gives_up() {
    let report = two_sources(Holds::Garbage, DiskFault::None);
    assert_eq!(
        (report.complete, report.failed, report.sources_bad),
        (4, 1, 200)
    );
}

/// Issue: never "done", and the other machines unharmed.
#[test]
fn a_target_that_fails_fails_alone() {
    let fails = |operation, from| DiskFault::Fails { operation, from };
    let faults = [
        // In the scan, when serving or reading back, and so on.
        (Holds::Part(50), fails(DiskOperation::Read, 100)),
        (Holds::Garbage, fails(DiskOperation::Read, 150)),
        (Holds::Garbage, fails(DiskOperation::Write, 50)),
        (Holds::Garbage, fails(DiskOperation::Flush, 0)),
        (Holds::Image, fails(DiskOperation::Flush, 0)),
        (
            Holds::Garbage,
            DiskFault::Forgets {
                write: 20,
                always: true,
            },
        ),
    ];
    for (holds, fault) in faults {
        let mut options = room(4, Holds::Garbage);
        (options.agents[2].disk.holds, options.agents[2].disk.fault) = (holds, fault);
        let report = run(options);
        assert_eq!((report.complete, report.failed), (4, 1), "{fault:?}");
    }
}

/// What cannot be read is fetched and written, and then it can.
#[test]
fn a_target_that_cannot_be_read_everywhere_is_healed() {
    for holds in [Holds::Garbage, Holds::Zeros, Holds::Part(50), Holds::Image] {
        let mut options = room(4, holds);
        options.agents[2..]
            .iter_mut()
            .for_each(|agent| agent.disk.fault = DiskFault::Unreadable { one_in: 4 });
        let report = run(options);
        assert_eq!((report.complete, report.failed), (5, 0));
        let least = if holds == Holds::Image {
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
fn a_target_that_forgets_once_is_forgiven() {
    let mut options = room(4, Holds::Garbage);
    let some: Vec<&mut AgentOptions> = options.agents[2..].iter_mut().collect();
    for (index, agent) in (0..).zip(some) {
        agent.disk.fault = DiskFault::Forgets {
            write: 50 * index,
            always: false,
        };
    }
    let report = run(options);
    assert_eq!(
        (report.complete, report.failed, report.read_back_bad),
        (5, 0, 3)
    );
    assert!(report.fetched <= report.lacking + 3 * u64::from(PIECE));
}

/// One seeder and one leecher, one of them with a limit: as long as the limit says, whichever end
/// has it.
#[test]
fn a_limit_is_held_and_used() {
    for limit in [RATE_MIN, RATE / 4, RATE / 2] {
        for (sender, receiver) in [
            (Some(limit), None),
            (None, Some(limit)),
            (Some(limit), Some(limit)),
        ] {
            let mut options = room(1, Holds::Garbage);
            (options.agents[0].max_up, options.agents[1].max_down) = (sender, receiver);
            let report = fetches_what_it_lacks(options);
            let seconds = report.downloaded.as_secs_f64() - CONNECTING_SECS;
            let ideal = report.fetched as f64 / limit as f64;
            assert!(
                (0.95..1.05).contains(&(seconds / ideal)),
                "{seconds} s instead of {ideal} s"
            );
        }
    }
}

/// Everybody waits for most of what it asked for, and nobody is taken for dead: nothing comes
/// twice.
#[test]
fn who_keeps_to_a_limit_is_not_given_up() {
    for (leechers, limit) in [(40, RATE_MIN), (8, RATE_MIN), (8, RATE / 4)] {
        let mut options = room(leechers, Holds::Garbage);
        options
            .agents
            .iter_mut()
            .for_each(|agent| agent.max_up = Some(limit));
        let report = fetches_what_it_lacks(options.clone());
        assert!(
            report.wasted < 0.02,
            "{leechers} leechers at {limit}: {report:?}"
        );
        options
            .agents
            .iter_mut()
            .for_each(|agent| agent.max_down = Some(limit));
        let report = fetches_what_it_lacks(options);
        assert!(
            report.wasted < 0.02,
            "{leechers} leechers at {limit}: {report:?}"
        );
    }
}
