//! How is a story about one agent and its disk told?
//!
//! Torrent and disk are pictures with one letter for each piece: `0` is zeros, equal letters are
//! equal bytes, `.` is anything else.

use alloc::collections::VecDeque;
use core::net::SocketAddr;
use core::time::Duration;

use super::super::*;
use crate::format::metainfo_write::{self, Content, Description};
use crate::policy::load::Compress;
use crate::policy::throttle::Throttles;
use crate::wire::extension::{DONT_HAVE_ID, ExtendedHandshake};
use crate::wire::message::{Handshake, Message, RawBlock};

pub(super) const NOW: Instant = Instant(1_000_000);
pub(super) const PIECE: u32 = BLOCK_BYTES;

pub(super) struct Story {
    pub(super) swarm: Swarm,
    pub(super) image: Vec<u8>,
    pub(super) disk: Vec<u8>,
    pub(super) piece_bytes: u32,
    /// The next writes of this piece store something else: the piece, and how many writes.
    pub(super) forgets: (usize, u32),
    /// What the disk still has to do.
    pub(super) waiting: VecDeque<Work>,
    pub(super) reads: Vec<u32>,
}

pub(super) fn hash(letter: u8, length: u32) -> PieceHash {
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

pub(super) fn leecher(image: &str, disk: &str) -> Story {
    Story::new(Role::Leecher, image, disk, PIECE, ScanPolicy::BeforeUse)
}

pub(super) fn seeder(image: &str, disk: &str) -> Story {
    Story::new(Role::Seeder, image, disk, PIECE, ScanPolicy::BeforeUse)
}

impl Story {
    pub(super) fn new(
        role: Role,
        image: &str,
        disk: &str,
        piece_bytes: u32,
        scan: ScanPolicy,
    ) -> Story {
        assert_eq!(image.len(), disk.len());
        let hashes: Vec<PieceHash> = image
            .bytes()
            .map(|letter| hash(letter, piece_bytes))
            .collect();
        let torrent = metainfo_write::write(&Description {
            name: "test",
            trackers: &["http://10.77.0.9/announce".into()],
            webseeds: &[],
            created_by: "test",
            private: false,
            piece_bytes,
            hashes: &hashes,
            disk_bytes: None,
            sector_bytes: None,
            needed_bytes: None,
            table: None,
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
            allowed: Vec::new(),
            scan,
            verify: true,
            read_back_distance: READ_BACK_DISTANCE,
            alignment: 512,
            compress: Compress::Auto,
            tracker_grace: Duration::from_secs(30),
            seed_for: None,
            limits: SeedingLimits::default(),
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

    /// A peer that has called us, with these pieces (`#`). It unchokes us, and is interested if it
    /// lacks something.
    pub(super) fn peer(&mut self, host: u8, has: &str) -> PeerSlot {
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

    /// The peer says that it understands messages about lost pieces.
    pub(super) fn knows_losses(&mut self, slot: PeerSlot) {
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

    pub(super) fn hears(&mut self, slot: PeerSlot, message: Message) {
        self.swarm
            .handle_message(NOW, slot, message, &mut Throttles::default());
    }

    pub(super) fn hears_loss(&mut self, slot: PeerSlot, payload: &[u8]) {
        self.hears(
            slot,
            Message::Extended {
                id: DONT_HAVE_ID,
                payload: payload.into(),
            },
        );
    }

    pub(super) fn said(&mut self, slot: PeerSlot) -> Vec<Send> {
        let said =
            core::iter::from_fn(|| self.swarm.poll_send(NOW, slot, &mut Throttles::default()))
                .collect();
        self.swarm.check_invariants();
        said
    }

    /// The pieces that this peer is asked for now.
    pub(super) fn asked(&mut self, slot: PeerSlot) -> Vec<u32> {
        let piece = |send| {
            if let Send::Message(Message::Request(raw)) = send {
                Some(raw.index)
            } else {
                None
            }
        };
        self.said(slot).into_iter().filter_map(piece).collect()
    }

    /// What this peer is told about pieces: `+1` have, `-1` lost, `!1` rejected, `=1` a block.
    pub(super) fn tells(&mut self, slot: PeerSlot) -> String {
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

    pub(super) fn wants(&mut self, slot: PeerSlot, piece: u32) {
        self.hears(slot, Message::Request(block(piece)));
    }

    /// The peer sends the only block of a piece, and it is good.
    pub(super) fn gives(&mut self, slot: PeerSlot, piece: u32) {
        assert_ne!(
            self.swarm.begin_block(NOW, slot, block(piece)),
            Sink::Discard
        );
        self.swarm
            .handle_block(NOW, slot, block(piece), &mut Throttles::default());
        self.swarm.check_invariants();
    }

    // ---- disk

    /// Hashes everything that can be hashed, and collects what the disk is to do.
    pub(super) fn hash_all(&mut self) {
        loop {
            while let Some(work) = self.swarm.poll_disk() {
                self.waiting.push_back(work);
            }
            let hashes = self.swarm.poll_hash(Patience::Over);
            if hashes.is_empty() {
                return;
            }
            for hash in hashes {
                self.hash(hash);
            }
        }
    }

    pub(super) fn hash(&mut self, run: Hash) {
        let of = run.of;
        if run.begin + run.length == self.piece_bytes {
            let letters = match of {
                HashOf::Disk(_) => &self.disk,
                HashOf::Download(_) | HashOf::Block(..) | HashOf::Part { .. } => &self.image,
            };
            let digest = hash(letters[of.piece().index()], self.piece_bytes);
            self.swarm.handle_hashed(NOW, of, digest);
            self.swarm.check_invariants();
        }
    }

    /// The disk does the oldest of what it was asked to do.
    pub(super) fn step(&mut self) -> Option<Work> {
        self.hash_all();
        let work = self.waiting.pop_front()?;
        self.does(&work, Ok(()));
        self.hash_all();
        Some(work)
    }

    pub(super) fn does(&mut self, work: &Work, result: Result<(), DiskError>) {
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

    pub(super) fn forget(&mut self, piece: usize) {
        if self.forgets.0 == piece && self.forgets.1 > 0 {
            self.forgets.1 -= 1;
            self.disk[piece] = b'.';
        }
    }

    /// The disk does everything it was asked to do, and what follows from it.
    pub(super) fn work(&mut self) {
        while self.step().is_some() {}
    }

    /// The peer sends everything it is asked for, until nothing happens any more. The pieces that
    /// it was asked for.
    pub(super) fn runs(&mut self, slot: PeerSlot) -> Vec<u32> {
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

    pub(super) fn work_once(&mut self, from: PeerSlot) {
        let asked = self.asked(from);
        asked.iter().for_each(|piece| self.gives(from, *piece));
        if asked.is_empty() {
            self.step()
                .expect("the peer is asked or the disk has something to do");
        }
        self.hash_all();
    }

    pub(super) fn has(&self) -> String {
        let letter = |piece| {
            if self.swarm.have().get(piece) {
                '#'
            } else {
                '.'
            }
        };
        self.swarm.metainfo.layout.pieces().map(letter).collect()
    }

    pub(super) fn failure(&self) -> &Failure {
        match &self.swarm.state {
            State::Leaving(Outcome::Failed(failure)) | State::Over(Outcome::Failed(failure)) => {
                failure
            }
            state => panic!("{state:?}"),
        }
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        core::iter::from_fn(|| self.swarm.poll_event()).collect()
    }
}

pub(super) fn block(piece: u32) -> RawBlock {
    RawBlock {
        index: piece,
        begin: 0,
        length: BLOCK_BYTES,
    }
}

pub(super) fn offset(piece: u32) -> DiskOffset {
    DiskOffset(u64::from(piece) * u64::from(PIECE))
}

/// A hundred pieces, no two of them equal.
pub(super) fn many() -> String {
    (1..128u8)
        .filter(|letter| !b"0.".contains(letter))
        .take(100)
        .map(char::from)
        .collect()
}
