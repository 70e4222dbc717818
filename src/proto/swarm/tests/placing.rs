//! How do zeros and equal pieces get to their places?

use core::time::Duration;

use super::super::*;
use super::story::*;
use crate::policy::throttle::Throttles;

#[test]
fn zeros_need_no_peer_and_are_read_back() {
    let mut story = leecher("0000000", "0.....0");
    story.hash_all();
    let zeroing = story
        .waiting
        .iter()
        .filter(|work| matches!(work, Work::Zero { .. }))
        .count();
    assert_eq!(
        (zeroing, story.waiting.len()),
        (ZERO_WRITES_MAX, ZERO_WRITES_MAX),
        "there is nothing to sample"
    );
    story.work();
    assert_eq!(
        (&story.swarm.state, &story.disk[..]),
        (&State::Seeding, &b"0000000"[..])
    );
    assert_eq!((story.reads.len(), story.swarm.progress().verified), (7, 7));
}

#[test]
fn equal_pieces_are_fetched_once_for_all_their_places() {
    let mut story = leecher("ABABA", ".....");
    let peer = story.peer(2, "#####");
    story.said(peer);
    let mut asked = story.runs(peer);
    asked.sort();
    assert_eq!(
        asked.iter().map(|piece| piece % 2).collect::<Vec<u32>>(),
        [0, 1]
    );
    assert_eq!(
        (&story.swarm.state, &story.disk[..]),
        (&State::Seeding, &b"ABABA"[..])
    );
    assert_eq!(story.swarm.progress().fetched, 2 * u64::from(PIECE));
}

#[test]
fn an_equal_piece_that_is_there_is_not_written_again() {
    let mut story = leecher("AAAB", ".A.B");
    let peer = story.peer(2, "####");
    story.work();
    assert_eq!(story.has(), ".#.#");
    let asked = story.asked(peer);
    assert_eq!(asked.len(), 1);
    story.gives(peer, asked[0]);
    story.hash_all();
    let places: Vec<u32> = story.waiting.iter().map(written_to).collect();
    assert_eq!(
        places.iter().sum::<u32>(),
        2,
        "to {places:?}, which is 0 and 2"
    );
}

/// A disk full of one byte: the copies wait in the core, not in the queue of the disk.
#[test]
fn a_thousand_equal_pieces_are_written_a_few_at_a_time() {
    let (image, peers_have) = ("A".repeat(1000), "#".repeat(1000));
    let mut story = leecher(&image, &".".repeat(1000));
    let peer = story.peer(2, &peers_have);
    story.work();
    let asked = story.asked(peer);
    story.gives(peer, asked[0]);
    assert_eq!(asked.len(), 1);
    story.hash_all();
    assert_eq!(story.waiting.len(), 1 + COPY_WRITES_MAX);
    while story.step().is_some() {
        assert!(story.waiting.len() <= COPY_WRITES_MAX.max(READ_AHEAD_MAX));
    }
    assert_eq!(
        (&story.swarm.state, &story.disk[..]),
        (&State::Seeding, image.as_bytes())
    );
}

fn written_to(work: &Work) -> u32 {
    let Work::Write { piece, .. } = work else {
        panic!("{work:?}")
    };
    piece.0
}

/// An equal piece arrives while this one is being read: it is written, and what was read is out of
/// date.
#[test]
fn an_unknown_piece_comes_with_an_equal_one() {
    for last in ["A", "."] {
        let mut story = leecher("ABCA", &(String::from(".BC") + last));
        let peer = story.peer(2, "####");
        while story.reads.is_empty() {
            story.step().unwrap();
        }
        assert_eq!(
            (story.asked(peer), &story.swarm.state),
            (Vec::from([0]), &State::Scanning)
        );
        story.gives(peer, 0);
        story.hash_all();
        // The reads come first, the writes were asked for later.
        let (writes, reads): (Vec<Work>, Vec<Work>) = story
            .waiting
            .drain(..)
            .partition(|work| matches!(work, Work::Write { .. }));
        assert_eq!(writes.iter().map(written_to).collect::<Vec<u32>>(), [0, 3]);
        story.waiting.extend(reads);
        story.work();
        assert_eq!((story.has(), story.asked(peer)), (".##.".into(), [].into()));
        assert_eq!(
            story.swarm.state,
            State::Downloading,
            "no flush beside a write"
        );
        story.waiting.extend(writes);
        story.work();
        assert_eq!(
            (&story.swarm.state, &story.disk[..]),
            (&State::Seeding, &b"ABCA"[..])
        );
        assert_eq!(story.swarm.progress().verified, 4);
    }
}

#[test]
fn a_bad_download_of_equal_pieces_is_fetched_once_more_and_not_twice() {
    let mut story = leecher("AA", "..");
    let peer = story.peer(2, "##");
    story.work();
    let asked = story.asked(peer);
    assert_eq!(asked.len(), 1);
    story.gives(peer, asked[0]);
    assert_eq!(story.swarm.poll_disk(), None);
    let [Hash { of, .. }] = story.swarm.poll_hash(Patience::Over)[..] else {
        panic!("one piece of one block has come")
    };
    story.swarm.handle_hashed(NOW, of, PieceHash([0; 20]));
    assert_eq!(
        (story.swarm.poll_disk(), story.swarm.has_to_hash()),
        (None, false)
    );
    let honest = story.peer(3, "##");
    assert_eq!(story.runs(honest), asked);
    assert_eq!(story.swarm.state, State::Seeding);
}

/// Writing zeros, and equal pieces to all their places, may take a disk longer than any stall.
#[test]
fn an_agent_whose_disk_is_busy_has_not_stalled() {
    let mut story = leecher("0000", "....");
    story.swarm.config.stall = Some(Duration::from_secs(10));
    story.hash_all();
    let begun = NOW;
    for place in 1..=4 {
        let now = begun + Duration::from_secs(6 * place);
        story.swarm.handle_timeout(now, &mut Throttles::default());
        assert_eq!(
            story.swarm.state,
            State::Downloading,
            "after {place} of them"
        );
        let Some(Work::Zero { ticket, .. }) = story.waiting.pop_front() else {
            panic!("four at once")
        };
        story.swarm.handle_disk(now, ticket, Ok(()));
    }
    let mut story = leecher("A", ".");
    story.swarm.config.stall = Some(Duration::from_secs(10));
    story.work();
    story
        .swarm
        .handle_timeout(begun + Duration::from_secs(11), &mut Throttles::default());
    assert_eq!(
        story.failure(),
        &Failure::Stalled(Duration::from_secs(10)),
        "the twin"
    );
}
