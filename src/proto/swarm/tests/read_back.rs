//! What does an agent do, and say, when the disk was wrong?

use super::super::*;
use super::story::*;
use crate::policy::cache::Chunk;
use crate::wire::extension::ExtendedHandshake;
use crate::wire::message::Message;

#[test]
fn a_piece_that_is_bad_once_is_fetched_again() {
    let mut story = leecher("ABC", "...");
    story.forgets = (1, 1);
    let peer = story.peer(2, "###");
    let asked = story.runs(peer);
    assert_eq!((asked.len(), asked[3]), (4, 1));
    assert_eq!(
        story.events(),
        [Event::ReadBackBad {
            piece: PieceIndex(1),
            disk: offset(1),
            again: true
        }]
    );
    assert_eq!(
        (&story.swarm.state, &story.disk[..]),
        (&State::Seeding, &b"ABC"[..])
    );
    assert_eq!(
        story.reads[story.reads.len() - 1],
        1,
        "pieces that were read back already are not read again"
    );
    assert_eq!(story.swarm.progress().verified, 3);
}

#[test]
fn a_piece_that_is_bad_twice_is_a_failure() {
    let mut story = leecher("ABC", "...");
    let peer = story.peer(2, "###");
    story.forgets = (1, u32::MAX);
    story.runs(peer);
    let failure = Failure::ReadBack {
        piece: PieceIndex(1),
        disk: offset(1),
        bad: 1,
    };
    assert_eq!(story.failure(), &failure);
    let again = story
        .events()
        .iter()
        .map(|event| matches!(event, Event::ReadBackBad { again: true, .. }))
        .collect::<Vec<bool>>();
    assert_eq!(again, [true, false]);
    assert_eq!(story.swarm.progress().bad_offset, Some(offset(1)));
}

/// Found by the fuzzer: a piece that was bad twice was announced and served until all other pieces
/// had been read back.
#[test]
fn a_piece_that_is_bad_twice_is_not_served_any_more() {
    let mut story = leecher("ABC", "...");
    let (peer, knows) = (story.peer(2, "###"), story.peer(3, "..."));
    story.knows_losses(knows);
    let reads_back = |story: &mut Story| {
        while story.swarm.state != State::Verifying {
            story.work_once(peer);
        }
        story.disk[1..].fill(b'.');
        while story.events().is_empty() {
            story.step().unwrap();
        }
    };
    reads_back(&mut story);
    while story.swarm.state == State::Verifying {
        story.step().unwrap();
    }
    assert_eq!(story.events().len(), 1);
    reads_back(&mut story);
    assert_eq!(story.swarm.state, State::Verifying, "piece 2 is to be read");
    assert_eq!(story.has(), "#.#");
    story.wants(knows, 1);
    let told = story.tells(knows);
    assert!(told.ends_with("!1") && !told.contains("=1"), "{told}");
    story.work();
    let failure = Failure::ReadBack {
        piece: PieceIndex(1),
        disk: offset(1),
        bad: 2,
    };
    assert_eq!(story.failure(), &failure);
}

/// People watch the percentage: it begins with the read-back's own work, not with the scan's.
#[test]
fn the_read_back_begins_with_nothing_checked() {
    let mut story = leecher("ABC", "A..");
    let peer = story.peer(2, "###");
    while story.swarm.state != State::Verifying {
        story.work_once(peer);
    }
    let progress = story.swarm.progress();
    assert_eq!((progress.checked, progress.to_check), (0, 2));
}

/// Found by the simulator: bad zeros were written again during the read-back, and not read again.
#[test]
fn zeros_that_are_bad_are_made_again_flushed_and_read_again() {
    let mut story = leecher("0AB", "...");
    let peer = story.peer(2, "###");
    story.forgets = (0, 1);
    assert_eq!(story.runs(peer).len(), 2);
    assert_eq!(
        (&story.swarm.state, &story.disk[..]),
        (&State::Seeding, &b"0AB"[..])
    );
    assert_eq!(story.reads[story.reads.len() - 4..], [0, 1, 2, 0]);
    let mut story = leecher("0", ".");
    story.forgets = (0, u32::MAX);
    story.work();
    let failure = Failure::ReadBack {
        piece: PieceIndex(0),
        disk: offset(0),
        bad: 1,
    };
    assert_eq!(story.failure(), &failure);
}

/// A peer that believes we have the piece is told of the loss, in order, and its requests for the
/// piece are rejected.
#[test]
fn peers_are_told_of_a_loss_and_their_requests_are_rejected() {
    let mut story = leecher("ABC", "...");
    let (peer, knows, deaf) = (
        story.peer(2, "###"),
        story.peer(3, "..."),
        story.peer(4, "..."),
    );
    story.knows_losses(knows);
    assert_eq!(
        (story.tells(knows), story.tells(deaf)),
        ("".into(), "".into())
    );
    story.forgets = (1, 1);
    while story.swarm.state != State::Verifying {
        story.work_once(peer);
    }
    assert_eq!(
        (story.tells(knows), story.tells(deaf)),
        ("+0+1+2".into(), "+0+1+2".into())
    );
    for slot in [knows, deaf] {
        (0..3).for_each(|piece| story.wants(slot, piece));
    }
    while story.events().is_empty() {
        story.step().unwrap();
    }
    let (heard, deaf) = (story.tells(knows), story.tells(deaf));
    assert!(
        heard.starts_with("!1-1") && deaf.starts_with("!1") && !deaf.contains('-'),
        "{heard} {deaf}"
    );
    assert!(!heard.contains("=1") && !deaf.contains("=1"));
    // A peer that comes now is told of two pieces only.
    let late = story.peer(5, "...");
    assert!(
        story
            .said(late)
            .contains(&Send::Message(Message::Bitfield([0b1010_0000].into())))
    );
    story.knows_losses(late);
    assert_eq!(story.tells(late), "");
    story.runs(peer);
    assert_eq!(
        (story.tells(knows), story.tells(late)),
        ("+1".into(), "+1".into())
    );
}

/// The disk is slow: a read that was asked for before the loss ends after the piece has been
/// written again.
#[test]
fn bytes_that_were_read_before_a_loss_are_not_kept() {
    let mut story = leecher("ABC", "...");
    let (peer, asks) = (story.peer(2, "###"), story.peer(3, "..."));
    story.tells(asks);
    story.forgets = (1, 1);
    while story.swarm.state != State::Verifying {
        story.work_once(peer);
    }
    story.tells(asks);
    // As if it had been evicted.
    story.swarm.cache.forget(PieceIndex(1));
    story.wants(asks, 1);
    story.hash_all();
    let reads = |work: &Work| {
        matches!(
            work,
            Work::Read {
                piece: PieceIndex(1),
                ..
            }
        )
    };
    let late = story
        .waiting
        .iter()
        .rposition(reads)
        .and_then(|at| story.waiting.remove(at))
        .unwrap();
    assert_eq!(story.runs(peer), [1]);
    story.swarm.cache.forget(PieceIndex(1));
    story.does(&late, Ok(()));
    assert!(!story.swarm.cache.contains(Chunk {
        piece: PieceIndex(1),
        index: 0
    }));
}

/// Found by the simulator: a slow peer was told that we have a piece that was lost meanwhile, or
/// was not told of the loss at all.
#[test]
fn a_slow_peer_is_told_what_is_true_now() {
    let mut story = leecher("ABC", "...");
    let (peer, slow, late) = (
        story.peer(2, "###"),
        story.peer(3, "..."),
        story.peer(4, "..."),
    );
    story.knows_losses(slow);
    assert_eq!(
        (story.tells(slow), story.tells(late)),
        ("".into(), "".into())
    );
    story.forgets = (1, 1);
    while story.swarm.state != State::Verifying {
        story.work_once(peer);
    }
    assert_eq!(story.tells(late), "+0+1+2");
    while story.events().is_empty() {
        story.step().unwrap();
    }
    assert_eq!(story.tells(slow), "+0-1+2-1");
    assert_eq!(
        story.tells(late),
        "",
        "it has not said that it understands losses"
    );
    story.knows_losses(late);
    assert!(story.tells(late).starts_with("-1"));
    story.hears(
        late,
        Message::Extended {
            id: 0,
            payload: ExtendedHandshake::default().encode(),
        },
    );
    story.knows_losses(late);
    assert_eq!(story.tells(late), "", "it was told before");
}

/// Pieces of this image get ripe two pieces later, each with a flush of its own.
fn early(image: &str) -> Story {
    let mut story = leecher(image, &".".repeat(image.len()));
    let none = Bitfield::new(image.len() as u32);
    story.swarm.read_back = ReadBack::new(none, Some(2 * u64::from(PIECE)));
    story
}

/// A write to a part of a sector rewrites all of it, so a neighbour that was read back too.
#[test]
fn pieces_that_share_a_sector_are_read_back_at_the_end() {
    let mut story = leecher("AB", "..");
    for (alignment, is_early) in [(512, true), (4096, true), (PIECE, true), (2 * PIECE, false)] {
        story.swarm.config.alignment = alignment;
        let distance = distance(&story.swarm.metainfo, &story.swarm.config);
        assert_eq!(
            distance,
            is_early.then_some(READ_BACK_DISTANCE),
            "{alignment}"
        );
    }
}

/// The first pieces that the peer is asked for.
fn first_asked(story: &mut Story, peer: PeerSlot) -> Vec<u32> {
    story.work();
    story.asked(peer)
}

/// The peer sends one piece after the other, and the disk has time for each. Returns the pieces.
fn comes_slowly(story: &mut Story, peer: PeerSlot, asked: Vec<u32>) -> Vec<u32> {
    let (mut all, mut asked) = (Vec::new(), VecDeque::from(asked));
    while let Some(piece) = asked.pop_front() {
        story.gives(peer, piece);
        story.work();
        all.push(piece);
        if !matches!(story.swarm.state, State::Downloading) {
            break;
        }
        asked.extend(story.asked(peer));
    }
    all
}

#[test]
fn pieces_are_read_back_while_the_download_goes_on() {
    let mut story = early("ABCDEFGH");
    let peer = story.peer(2, "######..");
    let asked = first_asked(&mut story, peer);
    let first = comes_slowly(&mut story, peer, asked);
    let progress = story.swarm.progress();
    assert_eq!(progress.state, State::Downloading);
    assert_eq!((progress.have, progress.verified), (6, 4));
    assert_eq!(story.reads[story.reads.len() - 4..], first[..4]);
    let rest = story.peer(3, "########");
    story.reads.clear();
    let asked = first_asked(&mut story, rest);
    comes_slowly(&mut story, rest, asked);
    assert_eq!(story.swarm.state, State::Seeding);
    assert_eq!(story.reads.len(), 4, "each piece is read once");
    assert_eq!(story.swarm.progress().verified, 8);
}

#[test]
fn a_piece_that_is_found_bad_during_the_download_is_fetched_again_at_once() {
    let mut story = early("ABCDEFGH");
    let peer = story.peer(2, "#######.");
    let asked = first_asked(&mut story, peer);
    let first = asked[0];
    story.forgets = (first as usize, 1);
    let came = comes_slowly(&mut story, peer, asked);
    assert_eq!(story.swarm.state, State::Downloading);
    assert_eq!(came.iter().filter(|piece| **piece == first).count(), 2);
    let bad = Event::ReadBackBad {
        piece: PieceIndex(first),
        disk: offset(first),
        again: true,
    };
    assert_eq!(story.events(), [bad]);
    story.reads.retain(|piece| *piece == first);
    let (before, rest) = (story.reads.len(), story.peer(3, "########"));
    let asked = first_asked(&mut story, rest);
    comes_slowly(&mut story, rest, asked);
    assert_eq!(
        (&story.swarm.state, &story.disk[..]),
        (&State::Seeding, &b"ABCDEFGH"[..])
    );
    let reads = story.reads.iter().filter(|piece| **piece == first);
    assert_eq!(reads.count(), before + 1, "it was read back once more");
}

/// The copy is found bad while the piece that it was copied from is being written again: too late
/// to come with that write, so it is fetched by itself.
#[test]
fn equal_pieces_that_are_found_bad_one_after_the_other_are_fetched_again() {
    let mut story = early("AABCDEFG");
    let (equal, others) = (story.peer(2, "##......"), story.peer(3, "..######"));
    story.work();
    assert_eq!(story.asked(equal), [0]);
    story.gives(equal, 0);
    story.work();
    story.disk[..2].fill(b'.');
    let mut asked = VecDeque::from(story.asked(others));
    while story.has().starts_with("##") {
        if story.step().is_none() {
            story.gives(others, asked.pop_front().expect("both get ripe in time"));
        }
    }
    assert_eq!(
        (&story.has()[..2], story.asked(equal)),
        (".#", alloc::vec![0])
    );
    story.gives(equal, 0);
    story.hash_all();
    let waiting = story.waiting.make_contiguous();
    assert!(matches!(waiting, [Work::Read { .. }, Work::Write { .. }]));
    story.step();
    assert_eq!(
        (&story.has()[..2], story.asked(equal)),
        ("..", alloc::vec![1])
    );
    story.gives(equal, 1);
    comes_slowly(&mut story, others, asked.into());
    assert_eq!(
        (&story.swarm.state, &story.disk[..]),
        (&State::Seeding, &b"AABCDEFG"[..])
    );
}

#[test]
fn a_piece_that_is_bad_twice_ends_the_download() {
    let mut story = early("ABCDEFGHIJKL");
    let peer = story.peer(2, "###########.");
    let asked = first_asked(&mut story, peer);
    let first = asked[0];
    story.forgets = (first as usize, u32::MAX);
    comes_slowly(&mut story, peer, asked);
    let failure = Failure::ReadBack {
        piece: PieceIndex(first),
        disk: offset(first),
        bad: 1,
    };
    assert_eq!(story.failure(), &failure);
}

/// Writes, and reads for peers, have the disk first.
#[test]
fn nothing_is_read_back_while_the_disk_has_other_work() {
    let mut story = early("ABCDEFGH");
    let (peer, asks) = (story.peer(2, "########"), story.peer(3, "........"));
    story.work();
    let asked = story.asked(peer);
    for piece in &asked[..3] {
        story.gives(peer, *piece);
        story.work();
    }
    assert_eq!(story.swarm.progress().verified, 1);
    story.gives(peer, asked[3]);
    story.hash_all();
    let is_read = |work: &Work| matches!(work, Work::Read { .. });
    assert_eq!(story.waiting.len(), 1, "the write alone");
    // As if it had been evicted, so that it is read for a peer.
    story.tells(asks);
    story.swarm.cache.forget(PieceIndex(asked[0]));
    story.wants(asks, asked[0]);
    let write = story.waiting.pop_front().unwrap();
    story.hash_all();
    story.does(&write, Ok(()));
    story.hash_all();
    assert!(
        story.waiting.len() == 1 && is_read(&story.waiting[0]),
        "the load alone"
    );
    story.work();
    assert_eq!(story.swarm.progress().verified, 2);
}

/// An agent that is told to leave during a flush for the read-back flushes once more: the writes
/// that were in flight are not covered.
#[test]
fn a_flush_during_the_download_is_not_the_last_one() {
    let mut story = early("ABCDEFGH");
    let peer = story.peer(2, "########");
    story.work();
    let asked = story.asked(peer);
    story.gives(peer, asked[0]);
    story.step();
    story.hash_all();
    assert!(matches!(story.waiting[0], Work::Flush { .. }));
    story.gives(peer, asked[1]);
    story.hash_all();
    story.swarm.leave(NOW);
    let mut flushes = 0;
    while let Some(work) = story.step() {
        flushes += u32::from(matches!(work, Work::Flush { .. }));
    }
    assert_eq!(flushes, 2);
}
