//! Which peers have what, and what does a source do without?

use core::net::SocketAddr;
use core::time::Duration;

use super::super::*;
use super::story::*;
use crate::policy::throttle::Throttles;
use crate::wire::extension::ExtendedHandshake;
use crate::wire::message::{Handshake, Message, RawBlock};

#[test]
fn pieces_that_a_peer_has_lost_are_asked_of_others() {
    let mut story = leecher("AB", "..");
    let (poor, rich) = (story.peer(2, "##"), story.peer(3, "##"));
    story.hears(poor, Message::Suggest(1));
    story.work();
    story.hears_loss(poor, &[0, 0, 0, 1]);
    story.hears_loss(poor, &[0, 0, 0, 1]);
    assert_eq!(story.asked(poor), [0]);
    assert_eq!(
        story.asked(rich),
        [1, 0],
        "and in the endgame the block that the other peer has not sent yet"
    );
    story.hears(poor, Message::Have(1));
    story.hears_loss(poor, &[0, 0, 0, 0]);
    story.hears_loss(poor, &[0, 0, 0, 1]);
    let said = story.said(poor);
    assert!(
        said.contains(&Send::Message(Message::NotInterested)),
        "{said:?}"
    );
}

#[test]
fn a_malformed_loss_ends_the_connection() {
    for payload in [
        &[][..],
        &[0, 0, 1],
        &[0, 0, 0, 0, 0],
        &[0, 0, 0, 2],
        &[255; 4],
    ] {
        let mut story = leecher("AB", "..");
        let peer = story.peer(2, "##");
        story.hears_loss(peer, payload);
        assert!(
            story
                .swarm
                .poll_close()
                .is_some_and(|(closed, _)| closed == peer),
            "{payload:?}"
        );
    }
}

#[test]
fn a_source_hashes_a_piece_before_its_first_upload() {
    let mut story = seeder("AB", "AB");
    let peer = story.peer(2, "#.");
    story.said(peer);
    story.wants(peer, 1);
    assert_eq!(story.tells(peer), "");
    let Some(Work::Read { ticket, .. }) = story.swarm.poll_disk() else {
        panic!("it reads first")
    };
    story.swarm.handle_disk(NOW, ticket, Ok(()));
    assert_eq!(story.tells(peer), "", "read, and not hashed yet");
    story.work();
    assert_eq!(
        (
            story.tells(peer),
            story.swarm.poll_disk(),
            story.swarm.has_to_hash()
        ),
        ("=1".into(), None, false)
    );
    story.wants(peer, 1);
    assert_eq!(story.tells(peer), "=1", "from memory");
    assert_eq!(
        (story.swarm.progress().verified, story.swarm.progress().have),
        (1, 2)
    );
}

#[test]
fn a_source_that_was_checked_is_not_hashed_again() {
    let mut story = Story::new(Role::Seeder, "AB", "AB", PIECE, ScanPolicy::Skip);
    let peer = story.peer(2, "..");
    story.said(peer);
    story.wants(peer, 1);
    let Some(Work::Read { ticket, .. }) = story.swarm.poll_disk() else {
        panic!("it reads")
    };
    story.swarm.handle_disk(NOW, ticket, Ok(()));
    assert_eq!(story.tells(peer), "=1");
}

#[test]
fn a_source_goes_on_without_pieces_that_are_bad() {
    let mut story = seeder("ABC", "A.C");
    let (peer, other) = (story.peer(2, "..."), story.peer(3, "..."));
    story.knows_losses(peer);
    story.tells(peer);
    story.tells(other);
    (0..3).for_each(|piece| story.wants(peer, piece));
    story.work();
    assert_eq!(
        story.events(),
        [Event::SourceBad {
            piece: PieceIndex(1),
            disk: offset(1),
            error: None
        }]
    );
    assert_eq!(story.tells(peer), "!1-1=0=2");
    story.wants(other, 1);
    assert_eq!(story.tells(other), "!1");
    assert_eq!(
        (story.has(), &story.swarm.state),
        ("#.#".into(), &State::Seeding)
    );
    let late = story.peer(4, "...");
    assert!(
        story
            .said(late)
            .contains(&Send::Message(Message::Bitfield([0b1010_0000].into())))
    );
}

#[test]
fn a_source_goes_on_without_pieces_that_it_cannot_read() {
    let mut story = seeder("AB", "AB");
    let peer = story.peer(2, "..");
    story.tells(peer);
    story.wants(peer, 0);
    story.wants(peer, 1);
    story.hash_all();
    let error = DiskError {
        operation: DiskOperation::Read,
        offset: offset(0),
        errno: 5,
    };
    let work = story.waiting.pop_front().unwrap();
    story.does(&work, Err(error));
    story.work();
    let event = Event::SourceBad {
        piece: PieceIndex(0),
        disk: offset(0),
        error: Some(error),
    };
    assert_eq!(
        (story.events(), story.tells(peer)),
        ([event].into(), "!0=1".into())
    );
}

/// The pieces were good when they were checked, and cannot be read later.
#[test]
fn a_source_that_becomes_unreadable_is_given_up_piece_by_piece() {
    let mut story = Story::new(Role::Seeder, "AB", "AB", PIECE, ScanPolicy::Skip);
    let peer = story.peer(2, "..");
    story.tells(peer);
    for piece in 0..2 {
        story.wants(peer, piece);
        story.hash_all();
        let error = DiskError {
            operation: DiskOperation::Read,
            offset: offset(piece),
            errno: 5,
        };
        let work = story.waiting.pop_front().unwrap();
        story.does(&work, Err(error));
        assert_eq!(story.events().len(), 1);
    }
    assert_eq!(story.failure(), &Failure::NothingToServe);
}

/// Without a tracker a complete agent stays while an incomplete peer is connected. A source that
/// lost a piece after all peers had it wants nothing, though it lacks that piece for ever.
#[test]
fn no_agent_stays_for_a_source_that_lacks_a_piece() {
    for (wants_nothing, expected) in [
        (true, State::Over(Outcome::Complete)),
        (false, State::Seeding),
    ] {
        let mut story = leecher("AB", "AB");
        story.swarm.tracker = Tracker::new(
            NOW,
            Vec::new(),
            story.swarm.config.tracker_grace,
            &mut Rng::new(1),
        );
        story.work();
        let source = story.peer(2, "#.");
        let handshake = ExtendedHandshake {
            upload_only: wants_nothing,
            ..ExtendedHandshake::default()
        };
        story.hears(
            source,
            Message::Extended {
                id: 0,
                payload: handshake.encode(),
            },
        );
        for seconds in 1..40 {
            story.swarm.handle_timeout(
                NOW + Duration::from_secs(seconds),
                &mut Throttles::default(),
            );
        }
        assert_eq!(story.swarm.state, expected, "upload_only {wants_nothing}");
    }
    let mut story = seeder("AB", "A.");
    let peer = story.peer(2, "..");
    story.said(peer);
    story.wants(peer, 1);
    story.work();
    let late = story.peer(3, "..");
    let handshake = |send| {
        if let Send::Message(Message::Extended { id: 0, payload }) = send {
            Some(payload)
        } else {
            None
        }
    };
    let payload = story.said(late).into_iter().find_map(handshake).unwrap();
    assert!(ExtendedHandshake::parse(&payload).unwrap().upload_only);
}

/// Half of all `have` messages would go to peers that have the piece themselves.
#[test]
fn an_incomplete_peer_is_not_told_of_pieces_that_it_has() {
    let mut story = leecher("ABC", "ABC");
    let (half, full) = (story.peer(2, "#.."), story.peer(3, "###"));
    let silent = story.peer(4, "#..");
    story.swarm.peer(silent).extended = false;
    for slot in [half, full, silent] {
        assert_eq!(story.tells(slot), "");
    }
    story.work();
    assert_eq!(story.tells(half), "+1+2");
    assert_eq!(
        story.tells(full),
        "+0+1+2",
        "it may want to know which peers are incomplete"
    );
    assert_eq!(
        story.tells(silent),
        "+0+1+2",
        "it cannot be told that we want nothing"
    );
    story.hears_loss(half, &[0, 0, 0, 0]);
    assert_eq!(story.tells(half), "+0", "now it has to know");
}

#[test]
fn two_complete_peers_disconnect() {
    let mut story = leecher("AB", "AB");
    let peer = story.peer(2, "##");
    let wants_nothing = |said: Vec<Send>| {
        let handshake = |send| match send {
            Send::Message(Message::Extended { id: 0, payload }) => {
                ExtendedHandshake::parse(&payload).ok()
            }
            _ => None,
        };
        said.into_iter()
            .filter_map(handshake)
            .map(|handshake| handshake.upload_only)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        wants_nothing(story.said(peer)),
        [false],
        "it has not been read yet"
    );
    story.work();
    assert_eq!(story.swarm.state, State::Seeding);
    story
        .swarm
        .handle_timeout(NOW + TICK, &mut Throttles::default());
    assert_eq!(story.swarm.poll_close(), None);
    assert_eq!(wants_nothing(story.said(peer)), [true]);
    story
        .swarm
        .handle_timeout(NOW + TICK * 2, &mut Throttles::default());
    assert_eq!(
        story.swarm.poll_close(),
        Some((peer, "both have everything"))
    );
}

/// A duplicate connection is closed and tried again later. This peer must not count as
/// incomplete.
#[test]
fn no_agent_stays_for_a_peer_whose_bitfield_is_unknown() {
    let mut story = leecher("AB", "AB");
    story.swarm.tracker = Tracker::new(
        NOW,
        Vec::new(),
        story.swarm.config.tracker_grace,
        &mut Rng::new(1),
    );
    story.work();
    for seconds in 1..40 {
        if seconds == 20 {
            let slot = story
                .swarm
                .handle_incoming(NOW, SocketAddr::from(([10, 77, 0, 2], 6881)))
                .unwrap();
            let info_hash = story.swarm.metainfo.info_hash;
            let handshake = Handshake {
                fast: true,
                extended: true,
                info_hash,
                peer_id: PeerId([2; 20]),
            };
            story.swarm.handle_handshake(NOW, slot, &handshake);
        }
        story.swarm.handle_timeout(
            NOW + Duration::from_secs(seconds),
            &mut Throttles::default(),
        );
    }
    assert_eq!(story.swarm.state, State::Over(Outcome::Complete));
}

#[test]
fn a_source_without_a_good_piece_fails() {
    let mut story = seeder("AB", "..");
    let peer = story.peer(2, "..");
    story.tells(peer);
    story.wants(peer, 0);
    story.wants(peer, 1);
    story.work();
    assert_eq!(story.failure(), &Failure::NothingToServe);
}

/// The pieces are as large as the pool allows: hashing each piece evicts what was read before, and
/// still everything is sent.
#[test]
fn a_pool_full_of_pieces_being_hashed_does_not_block_uploads() {
    let piece_bytes = PIECE_BYTES_MAX;
    let mut story = Story::new(
        Role::Seeder,
        "ABCD",
        "AB.D",
        piece_bytes,
        ScanPolicy::BeforeUse,
    );
    let peers: Vec<PeerSlot> = (2..6).map(|host| story.peer(host, "....")).collect();
    for slot in &peers {
        story.tells(*slot);
        for piece in 0..4 {
            for begin in (0..piece_bytes).step_by(BUFFER_BYTES_MAX as usize) {
                let raw = RawBlock {
                    index: piece,
                    begin,
                    length: BLOCK_BYTES,
                };
                story.hears(*slot, Message::Request(raw));
            }
        }
    }
    let blocks = piece_bytes / BUFFER_BYTES_MAX;
    let (mut sent, mut refused) = (0, 0);
    for _ in 0..10_000 {
        if story.step().is_none() && sent == 4 * 3 * blocks {
            break;
        }
        for slot in &peers {
            let told = story.tells(*slot);
            sent += told.matches('=').count() as u32;
            refused += told.matches('!').count() as u32;
        }
    }
    assert_eq!((sent, refused), (4 * 3 * blocks, 4 * blocks));
    assert_eq!(story.has(), "##.#");
}
