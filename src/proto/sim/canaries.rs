//! Does the simulator notice when an agent is wrong?

use super::disk::{DiskFault, Holds};
use super::fake_peer::Manner;
use super::options::{AgentOptions, Canary, FakeOptions, Options};
use super::run::run;
use crate::units::Instant;

/// A disk that loses what was written is found out by the read-back, and by nothing else. Once
/// is forgiven.
#[test]
fn sim_canary_a_disk_that_forgets() {
    let mut options = Options::equal_links(4, 40, 32 * 1024, 1 << 20);
    options.agents[2].disk.fault = DiskFault::Forgets {
        write: 7,
        always: true,
    };
    options.agents[3].disk.fault = DiskFault::Forgets {
        write: 7,
        always: false,
    };
    let report = run(options);
    assert_eq!((report.complete, report.failed), (4, 1));
}

/// If hashes were not compared, bad pieces would be written; the checker must see it.
#[test]
#[should_panic(expected = "is written and is not good")]
fn sim_canary_a_blind_hash() {
    let mut options = Options::equal_links(4, 40, 32 * 1024, 1 << 20);
    options.fakes.push(FakeOptions {
        manner: Manner::Corrupts { one_in: 2 },
        rate: 1 << 20,
        starts_at: Instant(0),
    });
    options.canary = Canary::BlindToDownloads;
    run(options);
}

/// The same for those who believe that all of a half right target is right,
#[test]
#[should_panic(expected = "is sent with other bytes")]
fn sim_canary_a_blind_scan() {
    let mut options = Options::equal_links(4, 40, 32 * 1024, 1 << 20);
    options.agents[2].disk.holds = Holds::Part(50);
    options
        .agents
        .iter_mut()
        .for_each(|agent| agent.look = false);
    options.agents[2].look = true;
    options.canary = Canary::BlindToTheDisk;
    run(options);
}

/// that a source is what its torrent says,
#[test]
#[should_panic(expected = "is sent with other bytes")]
fn sim_canary_a_blind_seeder() {
    let mut options = Options::equal_links(4, 40, 32 * 1024, 1 << 20);
    options.agents[1] = AgentOptions {
        starts_at: Instant(0),
        ..options.agents[0].clone()
    };
    options.agents[1].disk.holds = Holds::Part(50);
    options.agents[2..]
        .iter_mut()
        .for_each(|agent| agent.look = false);
    options.canary = Canary::BlindToTheDisk;
    run(options);
}

/// or that what was written is there;
#[test]
#[should_panic(expected = "it is complete, and its disk is not")]
fn sim_canary_a_blind_read_back() {
    let mut options = Options::equal_links(4, 40, 32 * 1024, 1 << 20);
    options.agents[2].disk.fault = DiskFault::Forgets {
        write: 7,
        always: true,
    };
    options.canary = Canary::BlindToTheDisk;
    run(options);
}

/// who does not read it back at all,
#[test]
#[should_panic(expected = "was not read back")]
fn sim_canary_no_read_back() {
    let mut options = Options::equal_links(4, 40, 32 * 1024, 1 << 20);
    options.canary = Canary::SkipsReadBack;
    run(options);
}

/// and who speaks of it too early.
#[test]
#[should_panic(expected = "which is not written")]
fn sim_canary_announced_before_it_is_written() {
    let mut options = Options::equal_links(4, 40, 32 * 1024, 1 << 20);
    options.canary = Canary::AnnouncesEarly;
    run(options);
}
