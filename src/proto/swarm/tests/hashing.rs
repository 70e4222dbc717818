//! How many pieces are hashed side by side, and what do they wait for?

use super::super::*;
use super::story::*;
use crate::policy::throttle::Throttles;
use crate::wire::message::{Message, RawBlock};

/// A leecher that has nothing, and a peer that has everything.
fn downloading(pieces: usize, piece_bytes: u32) -> (Story, PeerSlot) {
    let (image, nothing) = ("ABCDEFGH", "........");
    let (image, disk) = (&image[..pieces], &nothing[..pieces]);
    let scan = ScanPolicy::Skip;
    let mut story = Story::new(Role::Leecher, image, disk, piece_bytes, scan);
    let peer = story.peer(2, &"########"[..pieces]);
    (story, peer)
}

#[test]
fn received_pieces_wait_until_there_are_four() {
    let (mut story, peer) = downloading(8, PIECE);
    let asked = story.asked(peer);
    for (count, piece) in (1..).zip(&asked[..HASHED_AT_ONCE]) {
        assert_eq!(story.swarm.poll_hash(Patience::Lasts), []);
        story.gives(peer, *piece);
        assert!(story.swarm.has_to_hash(), "{count}");
    }
    let mut hashed = story.swarm.poll_hash(Patience::Lasts);
    hashed.sort_by_key(|hash| asked.iter().position(|piece| *piece == hash.of.piece().0));
    let pieces: Vec<u32> = hashed.iter().map(|hash| hash.of.piece().0).collect();
    assert_eq!(pieces, asked[..HASHED_AT_ONCE]);
    assert!(!story.swarm.has_to_hash());
}

#[test]
fn when_patience_is_over_fewer_are_hashed() {
    for count in 1..HASHED_AT_ONCE {
        let (mut story, peer) = downloading(8, PIECE);
        for piece in &story.asked(peer)[..count] {
            story.gives(peer, *piece);
        }
        assert_eq!(story.swarm.poll_hash(Patience::Lasts), []);
        assert_eq!(story.swarm.poll_hash(Patience::Over).len(), count);
        assert_eq!(story.swarm.poll_hash(Patience::Over), []);
    }
}

/// The bytes of two long pieces wait together, and then both are hashed.
#[test]
fn hashing_of_long_pieces_begins_before_there_are_four() {
    let (mut story, peer) = downloading(2, HASH_BACKLOG_BYTES);
    let mut given_bytes = 0;
    let hashed = loop {
        let hashed = story.swarm.poll_hash(Patience::Lasts);
        if !hashed.is_empty() {
            break hashed;
        }
        assert!(given_bytes <= HASH_BACKLOG_BYTES, "it waits too long");
        for send in story.said(peer) {
            if let Send::Message(Message::Request(raw)) = send {
                gives(&mut story, peer, raw);
                given_bytes += raw.length;
            }
            if given_bytes > HASH_BACKLOG_BYTES {
                break;
            }
        }
    };
    assert_eq!(given_bytes, HASH_BACKLOG_BYTES + BLOCK_BYTES);
    assert_eq!(hashed.len(), 2);
    assert!(hashed.iter().all(|hash| hash.length == BLOCK_BYTES));
}

fn gives(story: &mut Story, peer: PeerSlot, raw: RawBlock) {
    assert_ne!(story.swarm.begin_block(NOW, peer, raw), Sink::Discard);
    let down = &mut Throttles::default();
    story.swarm.handle_block(NOW, peer, raw, down);
}

/// With what was offered to a peer there are four pieces, although it waits for one.
#[test]
fn a_seeder_hashes_what_it_has_offered_with_what_a_peer_waits_for() {
    for patience in [Patience::Lasts, Patience::Over] {
        let mut story = seeder("ABCDEFGH", "ABCDEFGH");
        let peer = story.peer(2, "........");
        story.said(peer);
        story.wants(peer, 2);
        let mut reads = Vec::new();
        while let Some(Work::Read { ticket, piece, .. }) = story.swarm.poll_disk() {
            reads.push((ticket, piece));
        }
        assert_eq!(reads.len(), HASHED_AT_ONCE);
        assert_eq!(reads[0].1, PieceIndex(2), "it comes first");
        for (ticket, _) in reads {
            assert_eq!(story.swarm.poll_hash(Patience::Lasts), []);
            story.swarm.handle_disk(NOW, ticket, Ok(()));
            if patience == Patience::Over {
                assert_eq!(story.swarm.poll_hash(patience).len(), 1);
            }
        }
        let together = if patience == Patience::Over {
            0
        } else {
            HASHED_AT_ONCE
        };
        assert_eq!(story.swarm.poll_hash(patience).len(), together);
    }
}
