//! Is what an agent says and does so? The truth about one agent, kept apart from it and in the plainest way.
//!
//! Every method is told what the agent does and panics when it must not. Nothing here asks the agent for its opinion
//! except [`Ledger::compare`], which holds its counts against ours.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::image::{Cell, Image};
use super::tracker::parameter;
use crate::limits::BLOCK_BYTES;
use crate::swarm::{HashOf, Outcome, Progress, Role, State, Work};
use crate::units::{Block, PieceIndex, Ticket};
use crate::wire::Message;

pub struct Ledger {
    image: Image,
    is_seeder: bool,
    verify: bool,
    /// Pieces whose every byte was written and reported as written.
    written: Vec<bool>,
    written_count: u32,
    /// Pieces that were hashed and found good as they came in.
    proved: Vec<bool>,
    /// Places on the disk that were read since the last flush ended.
    reread: Vec<bool>,
    /// Pieces that were read back and found good after the last flush.
    verified: Vec<bool>,
    unflushed: bool,
    writes_in_flight: u32,
    tickets: BTreeMap<Ticket, Work>,
    hashes: BTreeMap<HashOf, RunningHash>,
    pub fetched: u64,
    pub uploaded: u64,
    pub saw_io_error: bool,
}

struct RunningHash {
    next: u32,
    good: bool,
    finished: bool,
}

impl Ledger {
    pub fn new(image: &Image, role: Role, verify: bool) -> Ledger {
        let is_seeder = role == Role::Seeder;
        let pieces = |value| vec![value; image.piece_count as usize];
        Ledger {
            image: image.clone(),
            is_seeder,
            verify,
            written: pieces(is_seeder),
            written_count: if is_seeder { image.piece_count } else { 0 },
            proved: pieces(false),
            reread: vec![false; image.cell_count()],
            verified: pieces(false),
            unflushed: false,
            writes_in_flight: 0,
            tickets: BTreeMap::new(),
            hashes: BTreeMap::new(),
            fetched: 0,
            uploaded: 0,
            saw_io_error: false,
        }
    }

    pub fn is_whole(&self) -> bool {
        self.written_count == self.image.piece_count
    }

    /// A message leaves: nothing is announced that is not written.
    pub fn says(&self, message: &Message) {
        match message {
            Message::Have(index) => {
                assert!(self.written[*index as usize], "HAVE of piece {index}, which is not written");
            }
            Message::HaveAll => {
                assert!(self.is_whole(), "HAVE_ALL with {} pieces written", self.written_count)
            }
            Message::Bitfield(bits) => {
                assert_eq!(bits.len(), self.written.len().div_ceil(8));
                for index in 0..bits.len() * 8 {
                    let set = bits[index / 8] & (0x80 >> (index % 8)) != 0;
                    let written = self.written.get(index).copied().unwrap_or(false);
                    assert!(!set || written, "BITFIELD names piece {index}, which is not written");
                }
            }
            _ => {}
        }
    }

    /// A block leaves: it was announced, and its bytes (the answer says) are those of the torrent.
    pub fn sends(&self, block: Block, offset: u32, cells: &[Cell]) -> bool {
        let Block { piece, begin, length } = block;
        assert!(begin + length <= self.image.piece_length(piece), "{block:?} passes the end of its piece");
        assert!(self.written[piece.index()], "{block:?} is sent and its piece is not written");
        assert_eq!(begin % BLOCK_BYTES, offset % BLOCK_BYTES, "{block:?} is sent from offset {offset}");
        self.all_good(piece, begin - begin % BLOCK_BYTES, cells)
    }

    /// Are these cells what ought to stand at `begin` of the piece?
    pub fn all_good(&self, piece: PieceIndex, begin: u32, cells: &[Cell]) -> bool {
        let first = self.image.place(piece, begin);
        cells.iter().enumerate().all(|(index, cell)| *cell == self.image.content(first + index))
    }

    /// Bytes go into the running hash. `Some(good)` when the piece is through.
    pub fn hashes(&mut self, of: HashOf, begin: u32, length: u32, cells: &[Cell]) -> Option<bool> {
        let (HashOf::Download(piece) | HashOf::ReadBack(piece)) = of;
        assert!(begin + length <= self.image.piece_length(piece), "{of:?} hashes past the end of its piece");
        let all_good = self.all_good(piece, begin, cells);
        if let HashOf::ReadBack(_) = of {
            let mut places = self.image.places(piece, begin, length);
            assert!(
                places.all(|place| self.reread[place]),
                "{of:?} at {begin} hashes bytes that were not read after the flush"
            );
            assert!(!self.unflushed, "{of:?} before a flush");
        }
        if begin == 0 {
            let before = self.hashes.insert(of, RunningHash { next: 0, good: true, finished: false });
            assert!(
                before.is_none_or(|before| !before.finished),
                "{of:?} starts anew before it was told how it ended"
            );
        }
        let running =
            self.hashes.get_mut(&of).unwrap_or_else(|| panic!("{of:?} goes on at {begin} and never began"));
        assert_eq!(running.next, begin, "{of:?} goes on elsewhere");
        assert!(!running.finished, "{of:?} goes on after its end");
        running.next += length;
        running.good &= all_good;
        running.finished = running.next == self.image.piece_length(piece);
        running.finished.then_some(running.good)
    }

    /// The agent is told how a hash came out.
    pub fn hashed(&mut self, of: HashOf, good: bool) {
        self.hashes.remove(&of).expect("a hash is told once");
        match of {
            HashOf::Download(piece) => self.proved[piece.index()] = good,
            HashOf::ReadBack(piece) => self.verified[piece.index()] = good,
        }
    }

    /// A ticket is handed out that no other operation holds.
    pub fn submits(&mut self, ticket: Ticket, work: Work) {
        match &work {
            Work::Write { piece, .. } => {
                assert!(!self.is_seeder, "a seeder writes piece {}", piece.0);
                assert!(
                    self.proved[piece.index()],
                    "piece {} is written before its hash was found good",
                    piece.0
                );
                assert!(!self.written[piece.index()], "piece {} is written twice", piece.0);
                self.writes_in_flight += 1;
                self.unflushed = true;
            }
            Work::Flush { .. } => {
                assert_eq!(self.writes_in_flight, 0, "a flush beside writes proves nothing of them")
            }
            Work::Read { piece, begin, length, .. } => {
                assert!(begin + length <= self.image.piece_length(*piece), "read past the end of its piece");
                assert!(self.written[piece.index()], "piece {} is read and not written", piece.0);
            }
            _ => unreachable!("hashing has no ticket"),
        }
        let other = self.tickets.insert(ticket, work);
        assert!(other.is_none(), "{ticket:?} is still held by {other:?}");
    }

    /// The disk answers, once.
    pub fn completes(&mut self, ticket: Ticket) -> Work {
        let work = self.tickets.remove(&ticket).unwrap_or_else(|| panic!("{ticket:?} is answered twice"));
        self.writes_in_flight -= u32::from(matches!(work, Work::Write { .. }));
        work
    }

    pub fn wrote(&mut self, piece: PieceIndex) {
        assert!(!core::mem::replace(&mut self.written[piece.index()], true));
        self.written_count += 1;
    }

    pub fn read(&mut self, piece: PieceIndex, begin: u32, length: u32) {
        for place in self.image.places(piece, begin, length) {
            self.reread[place] = true;
        }
    }

    pub fn flushed(&mut self) {
        self.unflushed = self.writes_in_flight > 0;
        self.reread.fill(false);
    }

    /// An announce goes out.
    pub fn announces(&mut self, url: &str) {
        if parameter(url, "event") == Some("completed") {
            assert!(!self.is_seeder, "a seeder says that it completed");
            self.is_done("says `completed`");
        }
        if parameter(url, "left") == Some("0") {
            assert!(self.is_whole(), "says that nothing is left with {} pieces written", self.written_count);
        }
    }

    /// Everything is written, flushed and, if asked for, read back and good.
    fn is_done(&self, who: &str) {
        assert!(self.is_whole(), "{who} with {} pieces written", self.written_count);
        assert!(!self.unflushed, "{who} with writes that were not flushed");
        if self.verify && !self.is_seeder {
            let bad = self.verified.iter().position(|good| !good);
            assert!(bad.is_none(), "{who} and piece {} was not read back", bad.unwrap_or_default());
        }
    }

    /// The agent's counts are ours.
    pub fn compare(&self, progress: &Progress) {
        assert_eq!(progress.pieces, self.image.piece_count);
        assert_eq!(progress.have, self.written_count, "pieces it says it has, pieces written");
        assert_eq!(progress.fetched, self.fetched, "payload bytes it says came, bytes that came");
        assert_eq!(progress.uploaded, self.uploaded, "payload bytes it says it sent, bytes sent");
        assert!(progress.wasted <= progress.fetched);
        let verified = self.verified.iter().filter(|good| **good).count();
        assert!(progress.verified as usize <= verified.max(if self.is_seeder { usize::MAX } else { 0 }));
        match progress.state {
            State::Seeding => self.is_done("seeds"),
            State::Verifying => assert!(self.is_whole()),
            _ => {}
        }
    }

    /// The agent is through. The shell now frees its buffers and closes the disk.
    pub fn ends(&self, outcome: &Outcome) {
        let open: Vec<String> = self.tickets.values().map(|work| alloc::format!("{work:?}")).collect();
        assert!(open.is_empty(), "it is over while the disk still works: {open:?}");
        match outcome {
            Outcome::Complete => self.is_done("ends complete"),
            Outcome::Interrupted => assert!(!self.unflushed, "it leaves with writes that were not flushed"),
            Outcome::Failed(_) => {}
        }
        assert!(
            !self.saw_io_error || matches!(outcome, Outcome::Failed(_)),
            "an I/O error, and it ends {outcome:?}"
        );
    }
}
