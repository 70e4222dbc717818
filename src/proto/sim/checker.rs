//! Is what an agent says and does so? The truth about one agent, kept apart from it and in the
//! plainest way.
//!
//! Every method is told what the agent does and panics when it must not. Nothing here asks the
//! agent for its opinion except [`Ledger::compare`], which holds its counts against ours.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::hashes::RunningHashes;
use super::image::{Cell, Image};
use super::pieces::Pieces;
use super::tracker::parameter;
use crate::limits::BLOCK_BYTES;
use crate::swarm::{
    DiskError, DiskOperation, Failure, HashOf, Outcome, Progress, Role, State, Work,
};
use crate::units::{Block, DiskOffset, PieceIndex, Ticket};
use crate::wire::message::{DONT_HAVE_ID, Message};

/// Who is watched.
pub struct Watched {
    pub role: Role,
    pub look: bool,
    pub verify: bool,
    /// Pieces that are on the disk in truth as the process begins.
    pub there: Vec<bool>,
}

pub struct Ledger {
    image: Image,
    is_seeder: bool,
    look: bool,
    verify: bool,
    there: Vec<bool>,
    pieces: Pieces,
    writing: Vec<bool>,
    /// Pieces that the scan could not read.
    unread: BTreeSet<PieceIndex>,
    /// Pieces that were found before anything was flushed.
    pub found: u32,
    /// Places on the disk that were read since the last flush ended.
    reread: Vec<bool>,
    flushes: u32,
    unflushed: bool,
    writes_in_flight: u32,
    tickets: BTreeMap<Ticket, Work>,
    hashes: RunningHashes,
    pub fetched: u64,
    pub uploaded: u64,
    pub first_error: Option<DiskError>,
}

impl Ledger {
    pub fn new(image: &Image, watched: Watched) -> Ledger {
        let Watched {
            role,
            look,
            verify,
            there,
        } = watched;
        let is_seeder = role == Role::Seeder;
        Ledger {
            image: image.clone(),
            is_seeder,
            look,
            verify,
            there,
            pieces: Pieces::new(image, is_seeder, is_seeder && !look),
            writing: vec![false; image.piece_count as usize],
            unread: BTreeSet::new(),
            found: 0,
            reread: vec![false; image.cell_count()],
            flushes: 0,
            unflushed: false,
            writes_in_flight: 0,
            tickets: BTreeMap::new(),
            hashes: RunningHashes::default(),
            fetched: 0,
            uploaded: 0,
            first_error: None,
        }
    }

    pub fn has_nothing(&self) -> bool {
        self.pieces.count() == 0
    }

    pub fn has_lost(&self, piece: PieceIndex) -> bool {
        self.pieces.was_lost(piece)
    }

    /// Bytes that were not on the disk as the process began and that no disk makes by itself, equal
    /// ones once.
    pub fn lacking(&self) -> u64 {
        let mut first: Vec<PieceIndex> = self.image.all_pieces().collect();
        first.retain(|piece| !self.there[piece.index()] && !self.image.is_zero(*piece));
        first
            .iter_mut()
            .for_each(|piece| *piece = self.image.first_equal(*piece));
        first.sort();
        first.dedup();
        first
            .into_iter()
            .map(|piece| u64::from(self.image.piece_length(piece)))
            .sum()
    }

    /// What the disk was doing when its process died.
    pub fn in_flight(&self) -> impl Iterator<Item = &Work> {
        self.tickets.values()
    }

    /// A message leaves: nothing is announced that is not on the disk, nothing asked for that is,
    /// or needs no peer.
    pub fn says(&self, message: &Message) {
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
                let index = u32::from_be_bytes(payload[..].try_into().expect("four bytes"));
                assert!(
                    !self.pieces.is_on_disk(PieceIndex(index)),
                    "says that it lost piece {index}, which it has"
                );
            }
            Message::Request(block) => self.asks_for(PieceIndex(block.index)),
            _ => {}
        }
    }

    fn asks_for(&self, piece: PieceIndex) {
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
        // A sample that saw nothing good may be unlucky; otherwise every piece is looked at before
        // it is asked for.
        let in_vain =
            self.look && self.found > 0 && self.there[index] && !self.pieces.was_lost(piece);
        assert!(
            !in_vain,
            "asks for piece {index}, which was on the disk from the start"
        );
    }

    /// A block leaves: it was announced, and its bytes (the answer says) are those of the torrent.
    pub fn sends(&self, block: Block, offset: u32, cells: &[Cell]) -> bool {
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
            self.pieces.is_on_disk(piece),
            "{block:?} is sent and its piece is not written"
        );
        assert!(
            !self.is_seeder || self.pieces.is_proven(piece),
            "{block:?} is sent before it was looked at"
        );
        assert_eq!(
            begin % BLOCK_BYTES,
            offset % BLOCK_BYTES,
            "{block:?} is sent from offset {offset}"
        );
        self.all_good(piece, begin - begin % BLOCK_BYTES, cells)
    }

    /// Are these cells what ought to stand at `begin` of the piece?
    pub fn all_good(&self, piece: PieceIndex, begin: u32, cells: &[Cell]) -> bool {
        let first = self.image.place(piece, begin);
        cells
            .iter()
            .enumerate()
            .all(|(index, cell)| *cell == self.image.content(first + index))
    }

    /// Bytes go into the running hash. `Some(good)` when the piece is through.
    pub fn hashes(&mut self, of: HashOf, begin: u32, length: u32, cells: &[Cell]) -> Option<bool> {
        let piece = of.piece();
        assert!(
            begin + length <= self.image.piece_length(piece),
            "{of:?} hashes past the end of its piece"
        );
        let all_good = self.all_good(piece, begin, cells);
        if let HashOf::Disk(_) = of {
            let mut places = self.image.places(piece, begin, length);
            assert!(
                places.all(|place| self.reread[place]),
                "{of:?} at {begin} hashes bytes that were not read after the flush"
            );
            assert!(
                self.flushes == 0 || !self.unflushed,
                "{of:?} before a flush"
            );
        }
        let piece_length = self.image.piece_length(piece);
        self.hashes.take(of, begin, length, piece_length, all_good)
    }

    /// The agent is told how a hash came out. Who is leaving does not listen any more.
    pub fn hashed(&mut self, of: HashOf, good: bool, listens: bool) {
        self.hashes.report(of);
        match of {
            _ if !listens => {}
            HashOf::Download(piece) if good => self.pieces.fetch(piece),
            HashOf::Download(_) => {}
            HashOf::Disk(piece) if self.is_seeder => self.pieces.check_source(piece, good),
            HashOf::Disk(piece) if self.flushes == 0 => self.finds(piece, good),
            HashOf::Disk(piece) => self.pieces.read_back(piece, good),
        }
    }

    /// The scan. What came meanwhile is written to all places where it lacks, looked at or not.
    fn finds(&mut self, piece: PieceIndex, good: bool) {
        let came = !self.image.is_zero(piece) && self.pieces.was_fetched(piece);
        let unread = self.unread.remove(&piece);
        if good && !came && !unread {
            self.pieces.find(piece);
            self.found += 1;
        }
    }

    /// A seeder cannot read this piece, or it is another one.
    pub fn loses_source(&mut self, piece: PieceIndex) {
        self.pieces.lose_source(piece);
    }

    /// A ticket is handed out that no other operation holds.
    pub fn submits(&mut self, ticket: Ticket, work: Work) {
        match &work {
            Work::Write { piece, .. } => {
                assert!(
                    self.pieces.was_fetched(*piece),
                    "piece {} is written before its hash was found good",
                    piece.0
                );
                self.starts_write(*piece);
            }
            Work::Zero { piece, .. } => {
                assert!(self.image.is_zero(*piece), "piece {} is not zeros", piece.0);
                self.starts_write(*piece);
            }
            Work::Flush { .. } => {
                assert_eq!(
                    self.writes_in_flight, 0,
                    "a flush beside writes proves nothing of them"
                )
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
                let scans = self.look && self.flushes == 0;
                let may = self.is_seeder || scans || self.pieces.is_on_disk(*piece);
                assert!(may, "piece {} is read and not written", piece.0);
            }
            Work::Hash(_) => unreachable!("hashing has no ticket"),
        }
        let other = self.tickets.insert(ticket, work);
        assert!(other.is_none(), "{ticket:?} is still held by {other:?}");
    }

    fn starts_write(&mut self, piece: PieceIndex) {
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
        self.writes_in_flight += 1;
        self.unflushed = true;
    }

    /// The disk answers, once.
    pub fn completes(&mut self, ticket: Ticket) -> Work {
        let work = self
            .tickets
            .remove(&ticket)
            .unwrap_or_else(|| panic!("{ticket:?} is answered twice"));
        if let Work::Write { piece, .. } | Work::Zero { piece, .. } = work {
            self.writes_in_flight -= 1;
            self.writing[piece.index()] = false;
        }
        work
    }

    /// The scan could not read it all: whatever it is, it does not count as being there.
    pub fn cannot_read(&mut self, piece: PieceIndex) {
        self.there[piece.index()] = false;
        self.unread.insert(piece);
    }

    pub fn fails(&mut self, error: DiskError) {
        self.first_error.get_or_insert(error);
    }

    pub fn wrote(&mut self, piece: PieceIndex) {
        self.pieces.write(piece);
    }

    pub fn read(&mut self, piece: PieceIndex, begin: u32, length: u32) {
        for place in self.image.places(piece, begin, length) {
            self.reread[place] = true;
        }
    }

    pub fn flushed(&mut self) {
        self.flushes += 1;
        self.unflushed = self.writes_in_flight > 0;
        self.reread.fill(false);
    }

    /// An announce goes out.
    pub fn announces(&mut self, url: &str) {
        if parameter(url, "event") == Some("completed") {
            assert!(!self.is_seeder, "a seeder says that it completed");
            self.is_done("says `completed`");
        }
        if parameter(url, "left") == Some("0") && !self.is_seeder {
            self.is_done("says that nothing is left");
        }
    }

    /// Everything is written, flushed and, if asked for, read back and good.
    fn is_done(&self, who: &str) {
        if self.is_seeder {
            return;
        }
        assert!(
            self.pieces.are_all_on_disk(),
            "{who} with {} pieces written",
            self.pieces.count()
        );
        assert!(!self.unflushed, "{who} with writes that were not flushed");
        if self.verify {
            let bad = self.pieces.first_unproven();
            assert!(
                bad.is_none(),
                "{who} and piece {} was not read back",
                bad.unwrap_or_default()
            );
        }
    }

    /// The agent's counts are ours.
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
        assert!(progress.wasted <= progress.fetched);
        assert_eq!(
            progress.verified as usize,
            self.pieces.proven_count(),
            "pieces it says it read, pieces read"
        );
        assert_eq!(progress.bad_offset, self.bad_offset(&progress.state));
        match progress.state {
            State::Seeding => self.is_done("seeds"),
            State::Verifying => {
                assert!(self.pieces.are_all_on_disk() || self.pieces.any_was_lost())
            }
            _ => {}
        }
    }

    /// Where the disk failed, if that ended it; a flush has no place.
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

    /// The agent is through. The shell now frees its buffers and closes the disk, which holds these
    /// cells.
    pub fn ends(&self, outcome: &Outcome, cells: &[Cell]) {
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
                self.is_done("ends complete");
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
                !self.unflushed,
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
            Outcome::Failed(Failure::Stalled(_)) => panic!("nobody asked it to give up"),
        }
        assert!(
            self.is_seeder || self.first_error.is_none() || matches!(outcome, Outcome::Failed(_)),
            "an I/O error, and it ends {outcome:?}"
        );
    }
}
