//! Which blocks go and come compressed, and what do they count?

use core::time::Duration;

use super::super::*;
use super::story::*;
use crate::policy::load::Compress;
use crate::policy::throttle::Throttles;
use crate::wire::extension::{EXTENDED_HANDSHAKE_ID, ExtendedHandshake};
use crate::wire::message::{LZ_BLOCK_ID, Message, RawBlock};

/// A source of 60 pieces that need not be read first, and a peer that asks for all of them.
/// `lz_block`: as it introduces itself.
fn asked_source(compress: Compress, lz_block: Option<u8>) -> (Story, PeerSlot) {
    let image = "A".repeat(60);
    let mut story = Story::new(Role::Seeder, &image, &image, PIECE, ScanPolicy::Skip);
    story.swarm.config.compress = compress;
    let peer = story.peer(2, &".".repeat(60));
    let handshake = ExtendedHandshake {
        lz_block,
        ..ExtendedHandshake::default()
    };
    let payload = handshake.encode();
    let id = EXTENDED_HANDSHAKE_ID;
    story.hears(peer, Message::Extended { id, payload });
    story.said(peer);
    (0..60).for_each(|piece| story.wants(peer, piece));
    (story, peer)
}

/// With which id each of the first four blocks may go compressed, and whether it is compressed
/// anew.
fn ids(compress: Compress, lz_block: Option<u8>) -> Vec<(Option<u8>, bool)> {
    let (mut story, peer) = asked_source(compress, lz_block);
    let mut ids = Vec::new();
    while ids.len() < 4 {
        story.work();
        for send in story.said(peer) {
            if let Send::Block { packed, encode, .. } = send {
                story.swarm.handle_sent(NOW, peer);
                ids.push((packed, encode));
            }
        }
    }
    ids.truncate(4);
    ids
}

#[test]
fn only_a_peer_that_takes_compressed_blocks_gets_them() {
    assert_eq!(ids(Compress::Always, Some(7)), [(Some(7), true); 4]);
    assert_eq!(ids(Compress::Always, None), [(None, false); 4]);
    assert_eq!(ids(Compress::Never, Some(7)), [(None, false); 4]);
    let no_time = ids(Compress::Auto, Some(7));
    assert_eq!(no_time, [(Some(7), false); 4], "it never slept");
}

#[test]
fn never_takes_no_compressed_blocks() {
    let offered = |compress| {
        let mut story = leecher("AB", "..");
        story.swarm.config.compress = compress;
        let peer = story.peer(2, "##");
        let introduction = |send: &Send| match send {
            Send::Message(Message::Extended { id: 0, payload }) => {
                Some(ExtendedHandshake::parse(payload).unwrap().lz_block)
            }
            _ => None,
        };
        story.said(peer).iter().find_map(introduction).unwrap()
    };
    assert_eq!(offered(Compress::Auto), Some(LZ_BLOCK_ID));
    assert_eq!(offered(Compress::Always), Some(LZ_BLOCK_ID));
    assert_eq!(offered(Compress::Never), None);
}

/// Of 160 KB/s a source sends 10 blocks a second, or 40 that are compressed to a quarter.
#[test]
fn limits_count_what_goes_over_the_wire() {
    let sent_in_a_second = |packed_to: u32| {
        let (mut story, peer) = asked_source(Compress::Always, Some(7));
        let mut throttles = Throttles::new(Some(10 * u64::from(PIECE)), None);
        throttles.up.charge(PIECE);
        let (mut now, mut blocks) = (NOW, 0);
        while now < NOW + Duration::from_secs(1) {
            story.work();
            while let Some(send) = story.swarm.poll_send(now, peer, &mut throttles) {
                if let Send::Block { .. } = send {
                    story.swarm.handle_packed(peer, packed_to, &mut throttles);
                    story.swarm.handle_sent(now, peer);
                    blocks += 1;
                }
            }
            now = now + Duration::from_millis(5);
            throttles.handle_timeout(now);
        }
        let progress = story.swarm.progress();
        assert_eq!(progress.uploaded, u64::from(blocks * PIECE));
        assert_eq!(progress.uploaded_wire, u64::from(blocks * packed_to));
        blocks
    };
    assert!((9..=12).contains(&sent_in_a_second(PIECE)));
    assert!((36..=44).contains(&sent_in_a_second(PIECE / 4)));
}

/// What comes is not always what was asked for: a block of another length, or one that nobody asked
/// for.
#[test]
fn a_compressed_block_counts_as_fetched_only_if_it_was_asked_for() {
    let mut story = leecher("ABC", "...");
    let peer = story.peer(2, "###");
    story.work();
    assert_eq!(story.asked(peer).len(), 3);
    let mut comes = |raw: RawBlock, wire_bytes| {
        let sink = story.swarm.begin_packed(NOW, peer, raw, wire_bytes);
        let throttles = &mut Throttles::default();
        story.swarm.handle_block(NOW, peer, raw, throttles);
        story.swarm.check_invariants();
        let Progress {
            fetched,
            fetched_wire,
            unused,
            ..
        } = story.swarm.progress();
        (sink != Sink::Discard, fetched, fetched_wire, unused)
    };
    let whole = u64::from(PIECE);
    assert_eq!(comes(block(0), 100), (true, whole, 100, 0));
    assert_eq!(comes(block(0), 50), (false, whole + 50, 150, 50));
    let shorter = RawBlock {
        length: PIECE - 1,
        ..block(1)
    };
    assert_eq!(comes(shorter, 30), (false, whole + 80, 180, 80));
    assert_eq!(story.swarm.poll_close(), None);
    story.work();
    assert_eq!(story.has(), "#..");
}
