//! Stories of one agent and its disk: what it looks at, what it asks for then, and what it says
//! when the disk was wrong.
//!
//! One letter a piece, in the torrent and on the disk: `0` is zeros, equal letters are equal bytes,
//! `.` is something else.

use alloc::collections::VecDeque;
use core::net::SocketAddr;
use core::time::Duration;

use super::*;
use crate::format::metainfo::{self, Content, Description};
use crate::policy::cache::Chunk;
use crate::policy::throttle::Throttles;
use crate::wire::message::{DONT_HAVE_ID, ExtendedHandshake, Handshake, Message, RawBlock};

const NOW: Instant = Instant(1_000_000);
const PIECE: u32 = BLOCK_BYTES;

struct Story {
    swarm: Swarm,
    image: Vec<u8>,
    disk: Vec<u8>,
    piece_bytes: u32,
    /// Writes of this piece arrive as something else, so often.
    forgets: (usize, u32),
    /// What the disk still has to do, for those who let it wait.
    waiting: VecDeque<Work>,
    reads: Vec<u32>,
}

fn hash(letter: u8, length: u32) -> PieceHash {
    let zeros = || {
        sha1_smol::Sha1::from(alloc::vec![0; length as usize])
            .digest()
            .bytes()
    };
    PieceHash(if letter == b'0' {
        zeros()
    } else {
        [letter; 20]
    })
}

fn leecher(image: &str, disk: &str) -> Story {
    Story::new(Role::Leecher, image, disk, PIECE, ScanPolicy::BeforeUse)
}

fn seeder(image: &str, disk: &str) -> Story {
    Story::new(Role::Seeder, image, disk, PIECE, ScanPolicy::BeforeUse)
}

impl Story {
    fn new(role: Role, image: &str, disk: &str, piece_bytes: u32, scan: ScanPolicy) -> Story {
        assert_eq!(image.len(), disk.len());
        let hashes: Vec<PieceHash> = image
            .bytes()
            .map(|letter| hash(letter, piece_bytes))
            .collect();
        let torrent = metainfo::write(&Description {
            name: "test",
            trackers: &["http://10.77.0.9/announce".into()],
            webseeds: &[],
            created_by: "test",
            private: false,
            piece_bytes,
            hashes: &hashes,
            disk_bytes: None,
            sector_bytes: None,
            content: Content::Single {
                length: image.len() as u64 * u64::from(piece_bytes),
            },
        });
        let metainfo = Arc::new(Metainfo::parse(&torrent).unwrap());
        let config = Config {
            role,
            peer_id: PeerId([0xff; 20]),
            listen_port: 6881,
            rng_seed: 1,
            buffer_count: buffer_count_min(&metainfo.layout) + 16,
            peers: Vec::new(),
            scan,
            verify: true,
            tracker_grace: Duration::from_secs(30),
            seed_for: None,
            stall: None,
        };
        Story {
            swarm: Swarm::new(NOW, metainfo, config),
            image: image.into(),
            disk: disk.into(),
            piece_bytes,
            forgets: (usize::MAX, 0),
            waiting: VecDeque::new(),
            reads: Vec::new(),
        }
    }

    // ---- peers

    /// A peer that called us, with these pieces (`#`), unchoked and, if it wants something,
    /// interested.
    fn peer(&mut self, host: u8, has: &str) -> PeerSlot {
        let address = SocketAddr::from(([10, 77, 0, host], 6881));
        let slot = self.swarm.handle_incoming(NOW, address).unwrap();
        let info_hash = self.swarm.metainfo.info_hash;
        let handshake = Handshake {
            fast: true,
            extended: true,
            info_hash,
            peer_id: PeerId([host; 20]),
        };
        self.swarm.handle_handshake(NOW, slot, &handshake);
        for (index, _) in has
            .bytes()
            .enumerate()
            .filter(|(_, letter)| *letter == b'#')
        {
            self.hears(slot, Message::Have(index as u32));
        }
        self.hears(slot, Message::Unchoke);
        if has.contains('.') {
            self.hears(slot, Message::Interested);
        }
        slot
    }

    /// It says that it understands the loss of pieces.
    fn knows_losses(&mut self, slot: PeerSlot) {
        let handshake = ExtendedHandshake {
            dont_have: Some(7),
            ..ExtendedHandshake::default()
        };
        self.hears(
            slot,
            Message::Extended {
                id: 0,
                payload: handshake.encode(),
            },
        );
    }

    fn hears(&mut self, slot: PeerSlot, message: Message) {
        self.swarm
            .handle_message(NOW, slot, message, &mut Throttles::default());
    }

    fn hears_loss(&mut self, slot: PeerSlot, payload: &[u8]) {
        self.hears(
            slot,
            Message::Extended {
                id: DONT_HAVE_ID,
                payload: payload.into(),
            },
        );
    }

    fn said(&mut self, slot: PeerSlot) -> Vec<Send> {
        let said =
            core::iter::from_fn(|| self.swarm.poll_send(NOW, slot, &mut Throttles::default()))
                .collect();
        self.swarm.check_invariants();
        said
    }

    /// The pieces it asks this peer for.
    fn asked(&mut self, slot: PeerSlot) -> Vec<u32> {
        let piece = |send| {
            if let Send::Message(Message::Request(raw)) = send {
                Some(raw.index)
            } else {
                None
            }
        };
        self.said(slot).into_iter().filter_map(piece).collect()
    }

    /// What it says about pieces: `+1` have, `-1` lost, `!1` refused, `=1` a block of it.
    fn tells(&mut self, slot: PeerSlot) -> String {
        let mut told = String::new();
        for send in self.said(slot) {
            told += &match send {
                Send::Message(Message::Have(piece)) => alloc::format!("+{piece}"),
                Send::Message(Message::Reject(raw)) => alloc::format!("!{}", raw.index),
                Send::Message(Message::Extended { id: 7, payload }) => {
                    alloc::format!("-{}", payload[3])
                }
                Send::Block { block, .. } => {
                    self.swarm.handle_sent(NOW, slot);
                    alloc::format!("={}", block.piece.0)
                }
                _ => continue,
            };
        }
        told
    }

    fn wants(&mut self, slot: PeerSlot, piece: u32) {
        self.hears(slot, Message::Request(block(piece)));
    }

    /// The peer sends the only block of a piece, as it ought to be.
    fn gives(&mut self, slot: PeerSlot, piece: u32) {
        assert_ne!(
            self.swarm.begin_block(NOW, slot, block(piece)),
            Sink::Discard
        );
        self.swarm
            .handle_block(NOW, slot, block(piece), &mut Throttles::default());
        self.swarm.check_invariants();
    }

    // ---- disk

    /// Hashes are told, and the disk is asked.
    fn hash_all(&mut self) {
        loop {
            while let Some(work) = self.swarm.poll_disk() {
                self.waiting.push_back(work);
            }
            let hashes = self.swarm.poll_hash(Pairing::TakeSingle);
            if hashes[0].is_none() {
                return;
            }
            for hash in hashes.into_iter().flatten() {
                self.hash(hash);
            }
        }
    }

    fn hash(&mut self, run: Hash) {
        let of = run.of;
        if run.begin + run.length == self.piece_bytes {
            let letters = match of {
                HashOf::Disk(_) => &self.disk,
                HashOf::Download(_) => &self.image,
            };
            let digest = hash(letters[of.piece().index()], self.piece_bytes);
            self.swarm.handle_hashed(NOW, of, digest);
            self.swarm.check_invariants();
        }
    }

    /// The disk does what it was asked first.
    fn step(&mut self) -> Option<Work> {
        self.hash_all();
        let work = self.waiting.pop_front()?;
        self.does(&work, Ok(()));
        self.hash_all();
        Some(work)
    }

    fn does(&mut self, work: &Work, result: Result<(), DiskError>) {
        let ticket = match work {
            Work::Write { ticket, piece, .. } => {
                self.disk[piece.index()] = self.image[piece.index()];
                self.forget(piece.index());
                ticket
            }
            Work::Zero { ticket, piece } => {
                self.disk[piece.index()] = b'0';
                self.forget(piece.index());
                ticket
            }
            Work::Read { ticket, piece, .. } => {
                self.reads.push(piece.0);
                ticket
            }
            Work::Flush { ticket } => ticket,
        };
        self.swarm.handle_disk(NOW, *ticket, result);
        self.swarm.check_invariants();
    }

    fn forget(&mut self, piece: usize) {
        if self.forgets.0 == piece && self.forgets.1 > 0 {
            self.forgets.1 -= 1;
            self.disk[piece] = b'.';
        }
    }

    /// The disk does all it was asked to, and what follows from it.
    fn work(&mut self) {
        while self.step().is_some() {}
    }

    /// The peer sends whatever it is asked for, until nothing happens any more.
    fn runs(&mut self, slot: PeerSlot) -> Vec<u32> {
        let mut all = Vec::new();
        loop {
            self.work();
            let asked = self.asked(slot);
            if asked.is_empty() && self.waiting.is_empty() {
                return all;
            }
            asked.iter().for_each(|piece| self.gives(slot, *piece));
            all.extend(asked);
        }
    }

    fn has(&self) -> String {
        let letter = |piece| {
            if self.swarm.have().get(piece) {
                '#'
            } else {
                '.'
            }
        };
        self.swarm.metainfo.layout.pieces().map(letter).collect()
    }

    fn failure(&self) -> &Failure {
        match &self.swarm.state {
            State::Leaving(Outcome::Failed(failure)) | State::Over(Outcome::Failed(failure)) => {
                failure
            }
            state => panic!("{state:?}"),
        }
    }

    fn events(&mut self) -> Vec<Event> {
        core::iter::from_fn(|| self.swarm.poll_event()).collect()
    }
}

fn block(piece: u32) -> RawBlock {
    RawBlock {
        index: piece,
        begin: 0,
        length: BLOCK_BYTES,
    }
}

fn offset(piece: u32) -> DiskOffset {
    DiskOffset(u64::from(piece) * u64::from(PIECE))
}

/// A hundred pieces that are like no other.
fn many() -> String {
    (1..128u8)
        .filter(|letter| !b"0.".contains(letter))
        .take(100)
        .map(char::from)
        .collect()
}

// ---- the scan

#[test]
fn a_sample_in_which_nothing_is_right_is_enough() {
    let mut story = leecher(&many(), &".".repeat(100));
    story.work();
    assert_eq!(
        (story.reads.len(), &story.swarm.state),
        (SAMPLE_PIECES_MAX as usize, &State::Downloading)
    );
    assert_eq!(story.has(), ".".repeat(100));
}

#[test]
fn one_right_piece_in_the_sample_and_all_is_read() {
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
fn what_is_found_is_announced_and_need_not_be_read_back() {
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
fn who_holds_everything_seeds_without_a_peer() {
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

/// What is not there is asked for while the rest is still being read, and nothing else.
#[test]
fn only_what_is_known_to_be_missing_is_asked_for_during_the_scan() {
    let mut story = leecher("ABCD", "ABC.");
    let peer = story.peer(2, "####");
    assert_eq!(story.asked(peer), [], "nobody has looked yet");
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
fn who_is_not_to_look_reads_nothing() {
    let mut story = Story::new(Role::Leecher, "AB0", "AB0", PIECE, ScanPolicy::Skip);
    let peer = story.peer(2, "###");
    assert_eq!(story.asked(peer).len(), 2);
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

/// The buffer held the same bytes before, so the hash is the right one; but the disk does not hold
/// them.
#[test]
fn what_the_scan_cannot_read_is_not_there() {
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
fn a_leaver_during_the_scan_flushes_and_goes() {
    let mut story = leecher("ABCD", "ABCD");
    story.step();
    story.swarm.leave(NOW);
    story.work();
    assert_eq!(story.has(), "#...");
    assert_eq!(story.swarm.state, State::Over(Outcome::Interrupted));
}

// ---- zeros and repeats

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
fn equal_pieces_are_fetched_once_for_all_places() {
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
fn one_of_equal_pieces_that_is_there_is_not_written() {
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

/// A disk full of one byte: the places wait for their turn, not in the queue of the disk.
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

/// Its equal arrives while it is being looked at: it is written, and whatever the reading says is
/// old.
#[test]
fn an_unknown_piece_comes_with_its_equal() {
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
fn a_bad_download_of_equal_pieces_is_asked_for_once_more_and_not_twice() {
    let mut story = leecher("AA", "..");
    let peer = story.peer(2, "##");
    story.work();
    let asked = story.asked(peer);
    assert_eq!(asked.len(), 1);
    story.gives(peer, asked[0]);
    assert_eq!(story.swarm.poll_disk(), None);
    let [Some(Hash { of, .. }), None] = story.swarm.poll_hash(Pairing::TakeSingle) else {
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

/// Zeros that have to be written, and all the places of an equal piece, take a disk longer than any
/// stall.
#[test]
fn who_is_busy_with_the_disk_has_not_stalled() {
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

// ---- the read-back

#[test]
fn what_is_bad_once_is_fetched_again() {
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
        "what was read back already is not read again"
    );
    assert_eq!(story.swarm.progress().verified, 3);
}

#[test]
fn what_is_bad_twice_is_a_failure_that_names_the_first() {
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

/// Found by the simulator: they were written again while the read-back went on, and nobody read
/// them once more.
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

/// Whoever believed it had the piece is told otherwise, in order, and refused what it asked for
/// already.
#[test]
fn a_loss_is_told_and_what_was_asked_of_it_refused() {
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
    // A peer that comes now hears of two pieces only.
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

/// The disk was slow with what somebody had asked for, and brought it when the piece had been
/// written anew.
#[test]
fn what_was_asked_of_the_disk_before_a_loss_is_not_kept() {
    let mut story = leecher("ABC", "...");
    let (peer, asks) = (story.peer(2, "###"), story.peer(3, "..."));
    story.tells(asks);
    story.forgets = (1, 1);
    while story.swarm.state != State::Verifying {
        story.work_once(peer);
    }
    story.tells(asks);
    // As if it had made room for others.
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

/// Found by the simulator: it heard HAVE of what was lost meanwhile, or nothing at all of the loss.
#[test]
fn who_listens_late_hears_what_is_true_now() {
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
    assert_eq!(story.tells(late), "", "it has not said how");
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
    assert_eq!(story.tells(late), "", "it has heard that");
}

impl Story {
    fn work_once(&mut self, from: PeerSlot) {
        let asked = self.asked(from);
        asked.iter().for_each(|piece| self.gives(from, *piece));
        if asked.is_empty() {
            self.step().expect("something goes on");
        }
        self.hash_all();
    }
}

// ---- peers that lose pieces

#[test]
fn what_a_peer_has_lost_is_asked_of_others() {
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
        "and in the endgame what it has not sent yet"
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
fn a_loss_that_makes_no_sense_ends_the_connection() {
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

// ---- sources

#[test]
fn a_source_is_looked_at_before_it_is_given_away() {
    let mut story = seeder("AB", "AB");
    let peer = story.peer(2, "..");
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
fn a_source_need_not_be_looked_at_again_when_it_was_checked() {
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
fn a_source_does_without_what_is_not_in_it() {
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
fn a_source_does_without_what_cannot_be_read() {
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

/// It was good when it was looked at, and cannot be read when it is asked for again.
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

/// Without a tracker whoever is complete stays while somebody lacks something. A source that lost a
/// piece after everybody had it wants nothing, though it lacks that one for ever.
#[test]
fn nobody_stays_for_a_source_that_lacks_something() {
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
    let word = |send| {
        if let Send::Message(Message::Extended { id: 0, payload }) = send {
            Some(payload)
        } else {
            None
        }
    };
    let payload = story.said(late).into_iter().find_map(word).unwrap();
    assert!(ExtendedHandshake::parse(&payload).unwrap().upload_only);
}

/// Half of all `have` would be for those who have the piece themselves.
#[test]
fn nobody_is_told_of_pieces_that_it_has_while_it_lacks_others() {
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
        "it may want to know who lacks something"
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
fn those_who_have_everything_part_once_both_know() {
    let mut story = leecher("AB", "AB");
    let peer = story.peer(2, "##");
    let wants_nothing = |said: Vec<Send>| {
        let word = |send| match send {
            Send::Message(Message::Extended { id: 0, payload }) => {
                ExtendedHandshake::parse(&payload).ok()
            }
            _ => None,
        };
        said.into_iter()
            .filter_map(word)
            .map(|word| word.upload_only)
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

/// Of two connections between two one is closed, and tried again later: that is nobody who lacks
/// something.
#[test]
fn nobody_stays_for_who_has_not_said_what_it_has() {
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
fn a_source_of_something_else_gives_up() {
    let mut story = seeder("AB", "..");
    let peer = story.peer(2, "..");
    story.tells(peer);
    story.wants(peer, 0);
    story.wants(peer, 1);
    story.work();
    assert_eq!(story.failure(), &Failure::NothingToServe);
}

/// Pieces as large as the pool bears: each look throws out what the one before has read, and still
/// everything is sent.
#[test]
fn a_pool_full_of_what_is_being_looked_at_stands_still_for_nobody() {
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
