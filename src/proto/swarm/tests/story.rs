//! Stories of one agent and its disk: what it looks at, what it asks for then, and what it says
//! when the disk was wrong.
//!
//! One letter a piece, in the torrent and on the disk: `0` is zeros, equal letters are equal bytes,
//! `.` is something else.

use alloc::collections::VecDeque;
use core::net::SocketAddr;
use core::time::Duration;

use super::super::*;
use crate::format::metainfo::{self, Content, Description};
use crate::policy::throttle::Throttles;
use crate::wire::message::{DONT_HAVE_ID, ExtendedHandshake, Handshake, Message, RawBlock};

pub(super) const NOW: Instant = Instant(1_000_000);
pub(super) const PIECE: u32 = BLOCK_BYTES;

pub(super) struct Story {
    pub(super) swarm: Swarm,
    pub(super) image: Vec<u8>,
    pub(super) disk: Vec<u8>,
    pub(super) piece_bytes: u32,
    /// Writes of this piece arrive as something else, so often.
    pub(super) forgets: (usize, u32),
    /// What the disk still has to do, for those who let it wait.
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

    /// It says that it understands the loss of pieces.
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

    /// The pieces it asks this peer for.
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

    /// What it says about pieces: `+1` have, `-1` lost, `!1` refused, `=1` a block of it.
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

    /// The peer sends the only block of a piece, as it ought to be.
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

    /// Hashes are told, and the disk is asked.
    pub(super) fn hash_all(&mut self) {
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

    pub(super) fn hash(&mut self, run: Hash) {
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

    /// The disk does all it was asked to, and what follows from it.
    pub(super) fn work(&mut self) {
        while self.step().is_some() {}
    }

    /// The peer sends whatever it is asked for, until nothing happens any more.
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
            self.step().expect("something goes on");
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

/// A hundred pieces that are like no other.
pub(super) fn many() -> String {
    (1..128u8)
        .filter(|letter| !b"0.".contains(letter))
        .take(100)
        .map(char::from)
        .collect()
}
