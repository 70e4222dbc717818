//! Does the simulator notice an agent or a disk with a defect?

use super::disk::{Contents, DiskFault};
use super::fake_peer::Behaviour;
use super::image::Shape;
use super::options::{AgentOptions, Canary, FakeOptions, Options};
use super::run::run;
use crate::units::Instant;

/// Only the read-back notices a disk that loses a write. The piece is written once more; if it is
/// lost again, the agent fails.
#[test]
fn sim_canary_disk_loses_writes() {
    let mut options = Options::equal_links(4, 40, 32 * 1024, 1 << 20);
    options.agents[2].disk.fault = DiskFault::LosesWrite {
        write: 7,
        count: 1,
        always: true,
        hidden: false,
    };
    options.agents[3].disk.fault = DiskFault::LosesWrite {
        write: 7,
        count: 1,
        always: false,
        hidden: false,
    };
    let report = run(options);
    assert_eq!((report.complete, report.failed), (4, 1));
}

/// Without a comparison of hashes bad pieces are written.
#[test]
#[should_panic(expected = "is written and is not good")]
fn sim_canary_bad_downloads_are_accepted() {
    let mut options = Options::equal_links(4, 40, 32 * 1024, 1 << 20);
    options.fakes.push(FakeOptions {
        behaviour: Behaviour::Corrupts { one_in: 2 },
        rate: 1 << 20,
        starts_at: Instant(0),
    });
    options.canary = Canary::AcceptsBadDownloads;
    run(options);
}

/// Without a comparison with marks bad parts of pieces are passed on.
#[test]
#[should_panic(expected = "piece")]
fn sim_canary_bad_parts_are_accepted() {
    let mut options = Options::equal_links(8, 20, 256 * 1024, 1 << 20);
    options.fakes.push(FakeOptions {
        behaviour: Behaviour::InventsTails,
        rate: 1 << 20,
        starts_at: Instant(0),
    });
    options.canary = Canary::AcceptsBadParts;
    run(options);
}

/// A scan that accepts every piece announces pieces of a half correct target that are bad.
#[test]
#[should_panic(expected = "is sent with other bytes")]
fn sim_canary_bad_pieces_of_a_target_are_accepted() {
    let mut options = Options::equal_links(4, 40, 32 * 1024, 1 << 20);
    options.agents[2].disk.contents = Contents::Part(50);
    options
        .agents
        .iter_mut()
        .for_each(|agent| agent.scan = false);
    options.agents[2].scan = true;
    options.canary = Canary::AcceptsBadReads;
    run(options);
}

/// A seeder that does not compare its source with the torrent sends bad pieces.
#[test]
#[should_panic(expected = "is sent with other bytes")]
fn sim_canary_bad_pieces_of_a_source_are_accepted() {
    let mut options = Options::equal_links(4, 40, 32 * 1024, 1 << 20);
    options.agents[1] = AgentOptions {
        starts_at: Instant(0),
        ..options.agents[0].clone()
    };
    options.agents[1].disk.contents = Contents::Part(50);
    options.agents[2..]
        .iter_mut()
        .for_each(|agent| agent.scan = false);
    options.canary = Canary::AcceptsBadReads;
    run(options);
}

/// A read-back that accepts every piece makes an agent complete on a bad disk.
#[test]
#[should_panic(expected = "it is complete, and its disk is not")]
fn sim_canary_bad_read_backs_are_accepted() {
    let mut options = Options::equal_links(4, 40, 32 * 1024, 1 << 20);
    options.agents[2].disk.fault = DiskFault::LosesWrite {
        write: 7,
        count: 1,
        always: true,
        hidden: false,
    };
    options.canary = Canary::AcceptsBadReads;
    run(options);
}

/// Without a read-back an agent is complete with pieces that nobody has read.
#[test]
#[should_panic(expected = "was not read back")]
fn sim_canary_read_back_is_skipped() {
    let mut options = Options::equal_links(4, 40, 32 * 1024, 1 << 20);
    options.canary = Canary::SkipsReadBack;
    run(options);
}

/// A piece must not be announced before its write has finished.
#[test]
#[should_panic(expected = "which is not written")]
fn sim_canary_pieces_are_announced_before_they_are_written() {
    let mut options = Options::equal_links(4, 40, 32 * 1024, 1 << 20);
    options.canary = Canary::AnnouncesUnwritten;
    run(options);
}

/// A room in which most pieces are read back during the download.
fn early() -> Options {
    let mut options = Options::equal_links(4, 40, 32 * 1024, 1 << 20);
    options.read_back_distance = 4 * 32 * 1024;
    options
}

/// A disk that loses a write and hides it until the flush: only a read after the flush notices.
#[test]
fn sim_canary_disk_hides_what_it_loses() {
    for always in [false, true] {
        let mut options = early();
        options.agents[2].disk.fault = DiskFault::LosesWrite {
            write: 7,
            count: 1,
            always,
            hidden: true,
        };
        let report = run(options);
        let failed = usize::from(always);
        assert_eq!((report.complete, report.failed), (5 - failed, failed));
        assert_eq!(report.read_back_bad, 1 + u32::from(always));
        assert!(report.read_early > 80, "{}", report.read_early);
    }
}

/// What was not flushed may be in the cache of the disk only.
#[test]
#[should_panic(expected = "which were not read after a flush")]
fn sim_canary_flushes_are_skipped() {
    let mut options = early();
    options.canary = Canary::SkipsFlush;
    run(options);
}

/// The cache of the disk may answer for the medium also after a flush.
#[test]
#[should_panic(expected = "is read back too soon")]
fn sim_canary_pieces_are_read_back_too_soon() {
    let mut options = early();
    options.canary = Canary::ReadsBackTooSoon;
    run(options);
}

/// If pieces share sectors, a piece is written once more with its neighbour: all of them are read
/// back at the end.
#[test]
fn pieces_that_share_sectors_are_read_back_at_the_end() {
    let mut options = early();
    assert!(run(options.clone()).read_early > 80);
    options.shape = Shape::of_distinct(40, 32 * 1024 + 512, 32 * 1024 + 512);
    assert_eq!(run(options).read_early, 0);
}
