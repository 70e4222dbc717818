//! Does an agent do and say only what it may? The checker keeps the truth about one agent, apart
//! from the agent and in the plainest way.
//!
//! Every method is told what the agent does, and panics if the agent must not do it. Only
//! [`Checker::compare`] asks the agent, to compare its counts with those of the checker.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::hashes::RunningHashes;
use super::image::{Cell, Image};
use super::pieces::Pieces;
use super::rereads::{Proof, Rereads};
use super::tails::Tails;
use super::tracker::parameter;
use crate::limits::BLOCK_BYTES;
use crate::swarm::{
    DiskError, DiskOperation, Failure, Hash, HashOf, Outcome, Progress, Role, State, Work,
};
use crate::units::{Block, DiskOffset, PieceIndex, Ticket};
use crate::wire::extension::{DONT_HAVE_ID, TAIL_ID};
use crate::wire::message::Message;

/// What the checker has to know of an agent.
pub struct Watched {
    pub role: Role,
    pub scan: bool,
    pub verify: bool,
    /// Bytes that are written between a piece and its read-back during the download.
    pub distance: u64,
    /// Pieces that the disk really holds when the process starts.
    pub there: Vec<bool>,
}

pub struct Checker {
    image: Image,
    is_seeder: bool,
    scan: bool,
    verify: bool,
    there: Vec<bool>,
    pieces: Pieces,
    writing: Vec<bool>,
    /// Pieces that the scan could not read.
    unread: BTreeSet<PieceIndex>,
    /// Number of pieces that the scan found.
    pub found: u32,
    rereads: Rereads,
    /// Pieces that were read back during the download.
    pub read_early: u32,
    tickets: BTreeMap<Ticket, Work>,
    hashes: RunningHashes,
    tails: Tails,
    pub fetched: u64,
    pub uploaded: u64,
    pub fetched_wire: u64,
    /// Given to the network, and perhaps not sent yet.
    pub uploaded_wire: u64,
    pub first_error: Option<DiskError>,
    /// Somebody who has data told the agent so.
    met_data: bool,
}

impl Checker {
    pub fn new(image: &Image, watched: Watched) -> Checker {
        let Watched {
            role,
            scan,
            verify,
            distance,
            there,
        } = watched;
        let is_seeder = role == Role::Seeder;
        Checker {
            image: image.clone(),
            is_seeder,
            scan,
            verify,
            there,
            pieces: Pieces::new(image, is_seeder, is_seeder && !scan),
            writing: vec![false; image.piece_count as usize],
            unread: BTreeSet::new(),
            found: 0,
            rereads: Rereads::new(image, distance),
            read_early: 0,
            tickets: BTreeMap::new(),
            hashes: RunningHashes::default(),
            tails: Tails::default(),
            fetched: 0,
            uploaded: 0,
            fetched_wire: 0,
            uploaded_wire: 0,
            first_error: None,
            met_data: false,
        }
    }

    pub fn message_received(&mut self, message: &Message) {
        self.met_data |= match message {
            Message::Have(_) | Message::HaveAll => true,
            Message::Bitfield(bits) => bits.iter().any(|byte| *byte != 0),
            _ => false,
        };
    }

    pub fn has_nothing(&self) -> bool {
        self.pieces.count() == 0
    }

    pub fn has_lost(&self, piece: PieceIndex) -> bool {
        self.pieces.was_lost(piece)
    }

    /// Bytes that the agent has to fetch.
    pub fn missing_bytes(&self) -> u64 {
        self.image.bytes_beyond(&self.there)
    }

    /// The operations that the disk has not finished.
    pub fn in_flight(&self) -> impl Iterator<Item = &Work> {
        self.tickets.values()
    }

    /// The agent sends a message. It must not announce a piece that is not on the disk, and must
    /// not request one that is on the disk or that is zeros.
    pub fn message_sent(&self, message: &Message) {
        match message {
            Message::Have(index) => {
                assert!(
                    self.pieces.is_on_disk(PieceIndex(*index)),
                    "HAVE of piece {index}, which is not written"
                );
            }
            Message::HaveAll => {
                assert!(
                    self.pieces.are_all_on_disk(),
                    "HAVE_ALL with {} pieces written",
                    self.pieces.count()
                )
            }
            Message::Bitfield(bits) => {
                assert_eq!(bits.len(), self.image.piece_count.div_ceil(8) as usize);
                for index in 0..bits.len() * 8 {
                    let set = bits[index / 8] & (0x80 >> (index % 8)) != 0;
                    let piece = PieceIndex(index as u32);
                    let on_disk = piece.0 < self.image.piece_count && self.pieces.is_on_disk(piece);
                    assert!(
                        !set || on_disk,
                        "BITFIELD names piece {index}, which is not written"
                    );
                }
            }
            Message::Extended {
                id: DONT_HAVE_ID,
                payload,
            } => {
                // A peer may have asked for PEX messages by the same number.
                if let Ok(bytes) = payload[..].try_into() {
                    let index = u32::from_be_bytes(bytes);
                    assert!(
                        !self.pieces.is_on_disk(PieceIndex(index)),
                        "says that it lost piece {index}, which it has"
                    );
                }
            }
            Message::Extended {
                id: TAIL_ID,
                payload,
            } => self.tails.check_said(&self.image, payload, &self.pieces),
            Message::Request(block) => self.check_request(PieceIndex(block.index)),
            _ => {}
        }
    }

    fn check_request(&self, piece: PieceIndex) {
        let index = piece.index();
        assert!(!self.is_seeder, "a seeder asks for piece {index}");
        assert!(
            !self.image.is_zero(piece),
            "asks for piece {index}, which is zeros"
        );
        assert!(
            !self.pieces.is_on_disk(piece),
            "asks for piece {index}, which is on the disk"
        );
        // If the sample finds no good piece, the scan ends there, and pieces that are on the disk
        // may be requested. Otherwise every piece is read before it is requested.
        let in_vain =
            self.scan && self.found > 0 && self.there[index] && !self.pieces.was_lost(piece);
        assert!(
            !in_vain,
            "asks for piece {index}, which was on the disk from the start"
        );
    }

    /// The agent sends a block, which must have been announced. Returns whether its bytes are those
    /// of the torrent.
    pub fn block_sent(&self, block: Block, offset: u32, cells: &[Cell]) -> bool {
        let Block {
            piece,
            begin,
            length,
        } = block;
        assert!(
            begin + length <= self.image.piece_length(piece),
            "{block:?} passes the end of its piece"
        );
        assert!(
            self.pieces.is_on_disk(piece) || self.tails.contain(&self.image, block),
            "{block:?} is sent and its piece is not written"
        );
        assert!(
            !self.is_seeder || self.pieces.is_proven(piece),
            "{block:?} is sent before it was read from the source"
        );
        assert_eq!(
            begin % BLOCK_BYTES,
            offset % BLOCK_BYTES,
            "{block:?} is sent from offset {offset}"
        );
        self.all_good(piece, begin - begin % BLOCK_BYTES, cells)
    }

    /// Whether these cells are the blocks of the piece from `begin` on.
    pub fn all_good(&self, piece: PieceIndex, begin: u32, cells: &[Cell]) -> bool {
        let first = self.image.place(piece, begin);
        cells
            .iter()
            .enumerate()
            .all(|(index, cell)| *cell == self.image.content(first + index))
    }

    /// Bytes go into the running hash. Returns whether the piece is good when it is complete.
    pub fn bytes_hashed(&mut self, hash: &Hash, cells: &[Cell], state: &State) -> Option<bool> {
        let Hash {
            of, begin, length, ..
        } = *hash;
        let piece = of.piece();
        assert!(
            begin + length <= self.image.piece_length(piece),
            "{of:?} hashes past the end of its piece"
        );
        let layout = &self.image.metainfo.layout;
        let whole = of.length(layout);
        let place = match of {
            HashOf::Block(_, at) => layout.block(piece, at).begin,
            HashOf::Part { begin, .. } => begin,
            HashOf::Download(_) | HashOf::Disk(_) => begin,
        };
        let starts_well = hash
            .state
            .is_none_or(|state| state == self.image.mark(piece, place).state);
        let all_good = starts_well && self.all_good(piece, place, cells);
        if let HashOf::Disk(_) = of {
            let proof = self.rereads.proof(piece, begin, length);
            // What the scan has read may be written meanwhile, with an equal piece.
            let came = *state == State::Scanning && self.rereads.was_written(piece);
            assert!(
                came || proof > Proof::Nothing,
                "{of:?} at {begin} hashes bytes which were not read after a flush"
            );
            assert!(
                *state != State::Downloading || proof == Proof::Far,
                "{of:?} at {begin} is read back too soon"
            );
        }
        self.hashes.take(of, begin, length, whole, all_good)
    }

    /// The agent is told the result of a hash. An agent that is leaving ignores it.
    pub fn hash_finished(&mut self, of: HashOf, good: bool, state: &State) {
        self.hashes.report(of);
        match of {
            _ if matches!(state, State::Leaving(_) | State::Over(_)) => {}
            HashOf::Download(piece) if good => self.pieces.fetch(piece),
            HashOf::Download(_) | HashOf::Block(..) => {}
            HashOf::Part { piece, begin, .. } if good => self.tails.grow(piece, begin),
            HashOf::Part { .. } => {}
            HashOf::Disk(piece) if self.is_seeder => self.pieces.check_source(piece, good),
            HashOf::Disk(piece) if *state == State::Scanning => self.found_by_scan(piece, good),
            HashOf::Disk(piece) => {
                self.read_early += u32::from(*state == State::Downloading);
                self.pieces.read_back(piece, good);
            }
        }
    }

    /// The scan has read a piece. It does not count as found if an equal piece was fetched
    /// meanwhile, because that is written to every place where it is missing, whether the scan has
    /// been there or not.
    fn found_by_scan(&mut self, piece: PieceIndex, good: bool) {
        let came = !self.image.is_zero(piece) && self.pieces.was_fetched(piece);
        let unread = self.unread.remove(&piece);
        if good && !came && !unread {
            self.pieces.find(piece);
            self.found += 1;
        }
    }

    /// A seeder cannot read this piece.
    pub fn source_lost(&mut self, piece: PieceIndex) {
        self.pieces.lose_source(piece);
    }

    /// An operation is submitted. No other operation may have its ticket.
    pub fn submitted(&mut self, ticket: Ticket, work: Work) {
        match &work {
            Work::Write { piece, .. } => {
                assert!(
                    self.pieces.was_fetched(*piece),
                    "piece {} is written before its hash was found good",
                    piece.0
                );
                self.write_submitted(*piece);
            }
            Work::Zero { piece, .. } => {
                assert!(self.image.is_zero(*piece), "piece {} is not zeros", piece.0);
                self.write_submitted(*piece);
            }
            Work::Flush { .. } => {
                self.rereads.flush_begins(ticket);
            }
            Work::Read {
                piece,
                begin,
                length,
                ..
            } => {
                assert!(
                    begin + length <= self.image.piece_length(*piece),
                    "read past the end of its piece"
                );
                let scans = self.scan && !self.rereads.has_flushed();
                let may = self.is_seeder || scans || self.pieces.is_on_disk(*piece);
                assert!(may, "piece {} is read and not written", piece.0);
                self.rereads.read_begins(ticket, *piece);
            }
        }
        let other = self.tickets.insert(ticket, work);
        assert!(other.is_none(), "{ticket:?} is still held by {other:?}");
    }

    fn write_submitted(&mut self, piece: PieceIndex) {
        let may = self.met_data || self.missing_bytes() == 0;
        assert!(may, "piece {} is written before anybody had data", piece.0);
        let index = piece.index();
        assert!(!self.is_seeder, "a seeder writes piece {index}");
        assert!(
            !self.pieces.is_on_disk(piece),
            "piece {index} is written twice"
        );
        assert!(
            !core::mem::replace(&mut self.writing[index], true),
            "piece {index} is being written"
        );
        self.rereads.write_begins();
    }

    /// The disk has finished an operation.
    pub fn completed(&mut self, ticket: Ticket) -> Work {
        let work = self
            .tickets
            .remove(&ticket)
            .unwrap_or_else(|| panic!("{ticket:?} is answered twice"));
        if let Work::Write { piece, .. } | Work::Zero { piece, .. } = work {
            self.writing[piece.index()] = false;
            let length = self.image.piece_length(piece);
            let is_zero = matches!(work, Work::Zero { .. });
            self.rereads.write_ends(if is_zero { 0 } else { length });
        }
        work
    }

    /// The scan could not read all of a piece, so the piece does not count as being on the disk.
    pub fn scan_read_failed(&mut self, piece: PieceIndex) {
        self.there[piece.index()] = false;
        self.unread.insert(piece);
    }

    pub fn disk_failed(&mut self, error: DiskError) {
        self.first_error.get_or_insert(error);
    }

    pub fn written(&mut self, piece: PieceIndex) {
        self.pieces.write(piece);
        self.rereads.written(piece);
        self.tails.written(piece);
    }

    pub fn read(&mut self, ticket: Ticket, begin: u32, length: u32) {
        self.rereads.read_ends(ticket, begin, length);
    }

    pub fn flushed(&mut self, ticket: Ticket) {
        self.rereads.flush_ends(ticket);
    }

    /// The agent announces to its tracker.
    pub fn announced(&mut self, url: &str) {
        if parameter(url, "event") == Some("completed") {
            assert!(!self.is_seeder, "a seeder says that it completed");
            self.check_done("says `completed`");
        }
        if parameter(url, "left") == Some("0") && !self.is_seeder {
            self.check_done("says that nothing is left");
        }
    }

    /// Everything must be written, flushed and, with `verify`, read back and good.
    fn check_done(&self, who: &str) {
        if self.is_seeder {
            return;
        }
        assert!(
            self.pieces.are_all_on_disk(),
            "{who} with {} pieces written",
            self.pieces.count()
        );
        assert!(
            !self.rereads.has_unflushed(),
            "{who} with writes that were not flushed"
        );
        if self.verify {
            let bad = self.pieces.first_unproven();
            assert!(
                bad.is_none(),
                "{who} and piece {} was not read back",
                bad.unwrap_or_default()
            );
        }
    }

    /// The agent's counts must be those of the checker.
    pub fn compare(&self, progress: &Progress) {
        assert_eq!(progress.pieces, self.image.piece_count);
        assert_eq!(
            progress.have,
            self.pieces.count(),
            "pieces it says it has, pieces written"
        );
        assert_eq!(
            progress.fetched, self.fetched,
            "payload bytes it says came, bytes that came"
        );
        assert_eq!(
            progress.uploaded, self.uploaded,
            "payload bytes it says it sent, bytes sent"
        );
        assert_eq!(progress.fetched_wire, self.fetched_wire);
        assert!(progress.uploaded_wire <= self.uploaded_wire);
        assert!(progress.unused <= progress.fetched);
        assert_eq!(
            progress.verified as usize,
            self.pieces.proven_count(),
            "pieces it says it read, pieces read"
        );
        assert_eq!(progress.bad_offset, self.bad_offset(&progress.state));
        match progress.state {
            State::Seeding => self.check_done("seeds"),
            State::Verifying => {
                assert!(self.pieces.are_all_on_disk() || self.pieces.any_was_lost())
            }
            _ => {}
        }
    }

    /// The offset that the agent must report as bad: where the disk failed, if that ended the agent
    /// (a flush has no offset), otherwise the first piece that was bad in its second read-back.
    fn bad_offset(&self, state: &State) -> Option<DiskOffset> {
        if let State::Leaving(Outcome::Failed(Failure::Disk(_)))
        | State::Over(Outcome::Failed(Failure::Disk(_))) = state
        {
            return self
                .first_error
                .filter(|e| e.operation != DiskOperation::Flush)
                .map(|e| e.offset);
        }
        self.pieces.first_bad_offset()
    }

    /// The agent has ended. The shell now frees its buffers and closes the disk, which holds these
    /// cells.
    pub fn ended(&self, outcome: &Outcome, cells: &[Cell]) {
        let open: Vec<String> = self
            .tickets
            .values()
            .map(|work| alloc::format!("{work:?}"))
            .collect();
        assert!(
            open.is_empty(),
            "it is over while the disk still works: {open:?}"
        );
        match outcome {
            Outcome::Complete if self.is_seeder => {}
            Outcome::Complete => {
                self.check_done("ends complete");
                let bad = self
                    .image
                    .all_pieces()
                    .find(|piece| !self.image.is_on(cells, *piece));
                assert!(
                    bad.is_none(),
                    "it is complete, and its disk is not: {bad:?}"
                );
            }
            Outcome::Interrupted => assert!(
                !self.rereads.has_unflushed(),
                "it leaves with writes that were not flushed"
            ),
            Outcome::Failed(Failure::Disk(error)) => assert_eq!(Some(*error), self.first_error),
            Outcome::Failed(Failure::ReadBack { piece, disk, bad }) => {
                assert_eq!(Some(piece), self.pieces.bad_again().first());
                assert_eq!(Some(*disk), self.pieces.first_bad_offset());
                assert_eq!(*bad as usize, self.pieces.bad_again().len());
            }
            Outcome::Failed(Failure::NothingToServe) => {
                assert!(self.is_seeder && self.has_nothing())
            }
            Outcome::Failed(Failure::Stalled(_)) => {
                panic!("it gives up, and has no time limit for stalls")
            }
        }
        assert!(
            self.is_seeder || self.first_error.is_none() || matches!(outcome, Outcome::Failed(_)),
            "an I/O error, and it ends {outcome:?}"
        );
    }
}
