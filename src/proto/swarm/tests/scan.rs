//! What does an agent find on its target, and what does it ask for meanwhile?

use super::super::*;
use super::story::*;
use crate::policy::throttle::Throttles;

#[test]
fn only_the_sample_is_read_if_no_piece_of_it_is_good() {
    let mut story = leecher(&many(), &".".repeat(100));
    story.work();
    assert_eq!(
        (story.reads.len(), &story.swarm.state),
        (SAMPLE_PIECES_MAX as usize, &State::Downloading)
    );
    assert_eq!(story.has(), ".".repeat(100));
}

#[test]
fn everything_is_read_if_one_piece_of_the_sample_is_good() {
    for place in 0..100 {
        let mut story = leecher(&many(), &".".repeat(100));
        story.disk[place] = story.image[place];
        story.work();
        let mut reads = story.reads.clone();
        reads.sort();
        match story.swarm.have().count() {
            0 => assert_eq!(
                reads.len(),
                SAMPLE_PIECES_MAX as usize,
                "it was not in the sample"
            ),
            _ => assert_eq!(reads, (0..100).collect::<Vec<u32>>(), "each is read once"),
        }
        assert_eq!(story.swarm.state, State::Downloading);
    }
}

#[test]
fn pieces_that_are_found_are_announced_and_not_read_back() {
    let mut story = leecher("ABCD", "A.CD");
    let peer = story.peer(2, "####");
    story.said(peer);
    story.work();
    assert_eq!(
        (story.has(), story.tells(peer)),
        ("#.##".into(), "+0+2+3".into())
    );
    story.reads.clear();
    story.gives(peer, 1);
    story.work();
    assert_eq!(
        (&story.swarm.state, &story.reads[..]),
        (&State::Seeding, &[1][..])
    );
}

#[test]
fn a_target_that_holds_everything_needs_no_peer() {
    let mut story = leecher("A0BB", "A0BB");
    story.work();
    assert_eq!(
        (&story.swarm.state, story.reads.len()),
        (&State::Seeding, 4)
    );
    assert_eq!(
        (
            story.swarm.progress().fetched,
            story.swarm.progress().verified
        ),
        (0, 4)
    );
}

/// Missing pieces are asked for while the rest of the target is still being read.
#[test]
fn only_pieces_known_to_be_missing_are_asked_for_during_the_scan() {
    let mut story = leecher("ABCD", "ABC.");
    let peer = story.peer(2, "####");
    assert_eq!(story.asked(peer), [], "nothing has been read yet");
    while story.reads.len() < 4 {
        assert_eq!(story.asked(peer), []);
        story.step().unwrap();
    }
    assert_eq!(story.asked(peer), [3]);
}

#[test]
fn the_endgame_waits_for_the_end_of_the_scan() {
    let mut story = leecher("ABCD", ".BCD");
    let (slow, fast) = (story.peer(2, "####"), story.peer(3, "####"));
    story.step();
    assert_eq!(
        (story.asked(slow), &story.swarm.state),
        (Vec::from([0]), &State::Scanning)
    );
    assert_eq!(story.asked(fast), [], "there may be more to come");
    story.work();
    assert_eq!(
        (story.asked(fast), &story.swarm.state),
        (Vec::from([0]), &State::Downloading)
    );
}

#[test]
fn without_a_scan_nothing_is_read() {
    let mut story = Story::new(Role::Leecher, "AB0", "AB0", PIECE, ScanPolicy::Skip);
    let peer = story.peer(2, "###");
    assert_eq!(story.asked(peer).len(), 2);
    // Zeros are written once a peer with data is known, at the next tick.
    story.swarm.handle_timeout(NOW, &mut Throttles::default());
    story.hash_all();
    assert!(matches!(
        story.waiting.pop_front(),
        Some(Work::Zero {
            piece: PieceIndex(2),
            ..
        })
    ));
    assert!(story.waiting.is_empty());
}

/// The buffer held the same bytes before, so the hash is right; but the disk does not hold them.
#[test]
fn a_piece_that_the_scan_cannot_read_is_missing() {
    let mut story = leecher("AB", "AB");
    let peer = story.peer(2, "##");
    let error = DiskError {
        operation: DiskOperation::Read,
        offset: offset(1),
        errno: 5,
    };
    story.hash_all();
    let unreadable = |work: &Work| {
        matches!(
            work,
            Work::Read {
                piece: PieceIndex(1),
                ..
            }
        )
    };
    let at = story.waiting.iter().position(unreadable).unwrap();
    let work = story.waiting.remove(at).unwrap();
    story.does(&work, Err(error));
    assert_eq!(
        (story.has(), &story.swarm.state),
        ("..".into(), &State::Scanning)
    );
    story.work();
    assert_eq!(
        story.events(),
        [Event::TargetBad {
            piece: PieceIndex(1),
            error
        }]
    );
    assert_eq!(
        (story.has(), &story.swarm.state),
        ("#.".into(), &State::Downloading)
    );
    assert_eq!(story.runs(peer), [1]);
    assert_eq!(
        (story.has(), &story.swarm.state),
        ("##".into(), &State::Seeding)
    );
}

#[test]
fn an_agent_that_leaves_during_the_scan_flushes_first() {
    let mut story = leecher("ABCD", "ABCD");
    story.step();
    story.swarm.leave(NOW);
    story.work();
    assert_eq!(story.has(), "#...");
    assert_eq!(story.swarm.state, State::Over(Outcome::Interrupted));
}
