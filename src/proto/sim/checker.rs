//! Is what an agent says and does so? The truth about one agent, kept apart from it and in the
//! plainest way.
//!
//! Every method is told what the agent does and panics when it must not. Nothing here asks the
//! agent for its opinion except [`Ledger::compare`], which holds its counts against ours.
//!
//! A piece is *on the disk* when it was written and reported as written, or was read from there and
//! found good; what a seeder starts with counts too, until it turns out otherwise. It is *proven*
//! when it was read since it was written.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::image::{Cell, Image};
use super::tracker::parameter;
use crate::limits::{BLOCK_BYTES, THROTTLE_BURST};
use crate::swarm::{
    DiskError, DiskOperation, Failure, HashOf, Outcome, Progress, Role, State, Work,
};
use crate::units::{Block, DiskOffset, Instant, PieceIndex, Ticket};
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
    on_disk: Vec<bool>,
    on_disk_count: u32,
    proven: Vec<bool>,
    writing: Vec<bool>,
    /// Pieces that were not what had been written when they were read back: once, and again, in
    /// this order.
    lost: Vec<bool>,
    bad_again: Vec<PieceIndex>,
    /// By the first piece of the same bytes: came in whole and good so often, and was lost so
    /// often.
    fetched_good: Vec<u32>,
    lost_good: Vec<u32>,
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
    hashes: BTreeMap<HashOf, RunningHash>,
    pub fetched: u64,
    pub uploaded: u64,
    pub first_error: Option<DiskError>,
}

/// Whether a limit is held, in every stretch of time: what passes fills it, and it leaks as fast as
/// the limit allows.
pub struct Meter {
    limit: Option<u64>,
    level: f64,
    at: Instant,
}

impl Meter {
    pub fn new(limit: Option<u64>) -> Meter {
        Meter {
            limit,
            level: 0.0,
            at: Instant(0),
        }
    }

    pub fn passes(&mut self, now: Instant, bytes: u32) {
        let Some(limit) = self.limit else { return };
        let leaked = now.since(self.at).as_secs_f64() * limit as f64;
        (self.level, self.at) = ((self.level - leaked).max(0.0) + f64::from(bytes), now);
        let burst = THROTTLE_BURST.as_secs_f64() * limit as f64 + f64::from(BLOCK_BYTES);
        assert!(
            self.level <= burst + 1.0,
            "{} bytes at once, with {limit} a second",
            self.level
        );
    }
}

struct RunningHash {
    next: u32,
    good: bool,
    finished: bool,
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
        let count = image.piece_count as usize;
        Ledger {
            image: image.clone(),
            is_seeder,
            look,
            verify,
            there,
            on_disk: vec![is_seeder; count],
            on_disk_count: if is_seeder { image.piece_count } else { 0 },
            proven: vec![is_seeder && !look; count],
            writing: vec![false; count],
            lost: vec![false; count],
            bad_again: Vec::new(),
            fetched_good: vec![0; count],
            lost_good: vec![0; count],
            unread: BTreeSet::new(),
            found: 0,
            reread: vec![false; image.cell_count()],
            flushes: 0,
            unflushed: false,
            writes_in_flight: 0,
            tickets: BTreeMap::new(),
            hashes: BTreeMap::new(),
            fetched: 0,
            uploaded: 0,
            first_error: None,
        }
    }

    fn is_whole(&self) -> bool {
        self.on_disk_count == self.image.piece_count
    }

    pub fn has_nothing(&self) -> bool {
        self.on_disk_count == 0
    }

    pub fn has_lost(&self, piece: PieceIndex) -> bool {
        self.lost[piece.index()]
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
                    self.on_disk[*index as usize],
                    "HAVE of piece {index}, which is not written"
                );
            }
            Message::HaveAll => {
                assert!(
                    self.is_whole(),
                    "HAVE_ALL with {} pieces written",
                    self.on_disk_count
                )
            }
            Message::Bitfield(bits) => {
                assert_eq!(bits.len(), self.on_disk.len().div_ceil(8));
                for index in 0..bits.len() * 8 {
                    let set = bits[index / 8] & (0x80 >> (index % 8)) != 0;
                    let on_disk = self.on_disk.get(index).copied().unwrap_or(false);
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
                    !self.on_disk[index as usize],
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
            !self.on_disk[index],
            "asks for piece {index}, which is on the disk"
        );
        // A sample that saw nothing good may be unlucky; otherwise every piece is looked at before
        // it is asked for.
        let in_vain = self.look && self.found > 0 && self.there[index] && !self.lost[index];
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
            self.on_disk[piece.index()],
            "{block:?} is sent and its piece is not written"
        );
        assert!(
            !self.is_seeder || self.proven[piece.index()],
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
        if begin == 0 {
            let before = self.hashes.insert(
                of,
                RunningHash {
                    next: 0,
                    good: true,
                    finished: false,
                },
            );
            assert!(
                before.is_none_or(|before| !before.finished),
                "{of:?} starts anew before it was told how it ended"
            );
        }
        let running = self
            .hashes
            .get_mut(&of)
            .unwrap_or_else(|| panic!("{of:?} goes on at {begin} and never began"));
        assert_eq!(running.next, begin, "{of:?} goes on elsewhere");
        assert!(!running.finished, "{of:?} goes on after its end");
        running.next += length;
        running.good &= all_good;
        running.finished = running.next == self.image.piece_length(piece);
        running.finished.then_some(running.good)
    }

    /// The agent is told how a hash came out. Who is leaving does not listen any more.
    pub fn hashed(&mut self, of: HashOf, good: bool, listens: bool) {
        self.hashes.remove(&of).expect("a hash is told once");
        match of {
            _ if !listens => {}
            HashOf::Download(piece) if good => self.fetches(piece),
            HashOf::Download(_) => {}
            HashOf::Disk(piece) if self.is_seeder => self.looks(piece, good),
            HashOf::Disk(piece) if self.flushes == 0 => self.finds(piece, good),
            HashOf::Disk(piece) => self.reads_back(piece, good),
        }
    }

    /// A piece came in whole and good: of equal ones only one, unless what came is lost again.
    fn fetches(&mut self, piece: PieceIndex) {
        let first = self.image.first_equal(piece).index();
        self.fetched_good[first] += 1;
        let (came, lost) = (self.fetched_good[first], self.lost_good[first]);
        assert!(
            came <= 1 + lost,
            "piece {} or its equals came {came} times, {lost} were lost",
            piece.0
        );
    }

    fn looks(&mut self, piece: PieceIndex, good: bool) {
        self.proven[piece.index()] = good;
        if !good {
            self.loses_source(piece);
        }
    }

    /// The scan. What came meanwhile is written to all places where it lacks, looked at or not.
    fn finds(&mut self, piece: PieceIndex, good: bool) {
        let index = piece.index();
        let came = !self.image.is_zero(piece)
            && self.fetched_good[self.image.first_equal(piece).index()] > 0;
        let unread = self.unread.remove(&piece);
        if good && !came && !unread {
            self.gets(piece);
            self.proven[index] = true;
            self.found += 1;
        }
    }

    fn reads_back(&mut self, piece: PieceIndex, good: bool) {
        let index = piece.index();
        assert!(
            self.on_disk[index],
            "piece {index} is read back and was not written"
        );
        self.proven[index] = good;
        if good {
            return;
        }
        if core::mem::replace(&mut self.lost[index], true) {
            return self.bad_again.push(piece);
        }
        self.drops(piece);
        if !self.image.is_zero(piece) {
            self.lost_good[self.image.first_equal(piece).index()] += 1;
        }
    }

    /// A seeder cannot read this piece, or it is another one.
    pub fn loses_source(&mut self, piece: PieceIndex) {
        if self.on_disk[piece.index()] {
            self.drops(piece);
        }
    }

    fn gets(&mut self, piece: PieceIndex) {
        assert!(!core::mem::replace(&mut self.on_disk[piece.index()], true));
        self.on_disk_count += 1;
    }

    fn drops(&mut self, piece: PieceIndex) {
        assert!(core::mem::replace(&mut self.on_disk[piece.index()], false));
        self.on_disk_count -= 1;
    }

    /// A ticket is handed out that no other operation holds.
    pub fn submits(&mut self, ticket: Ticket, work: Work) {
        match &work {
            Work::Write { piece, .. } => {
                let first = self.image.first_equal(*piece).index();
                assert!(
                    self.fetched_good[first] > 0,
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
                let may = self.is_seeder || scans || self.on_disk[piece.index()];
                assert!(may, "piece {} is read and not written", piece.0);
            }
        }
        let other = self.tickets.insert(ticket, work);
        assert!(other.is_none(), "{ticket:?} is still held by {other:?}");
    }

    fn starts_write(&mut self, piece: PieceIndex) {
        let index = piece.index();
        assert!(!self.is_seeder, "a seeder writes piece {index}");
        assert!(!self.on_disk[index], "piece {index} is written twice");
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
        self.gets(piece);
        self.proven[piece.index()] = false;
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
            self.is_whole(),
            "{who} with {} pieces written",
            self.on_disk_count
        );
        assert!(!self.unflushed, "{who} with writes that were not flushed");
        if self.verify {
            let bad = self.proven.iter().position(|good| !good);
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
            progress.have, self.on_disk_count,
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
        let proven = self
            .proven
            .iter()
            .zip(&self.on_disk)
            .filter(|(proven, there)| **proven && **there);
        assert_eq!(
            progress.verified as usize,
            proven.count(),
            "pieces it says it read, pieces read"
        );
        assert_eq!(progress.bad_offset, self.bad_offset(&progress.state));
        match progress.state {
            State::Seeding => self.is_done("seeds"),
            State::Verifying => assert!(self.is_whole() || self.lost.contains(&true)),
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
        self.first_bad_offset()
    }

    fn first_bad_offset(&self) -> Option<DiskOffset> {
        let offset = |piece: &PieceIndex| u64::from(piece.0) * u64::from(self.image.piece_bytes);
        self.bad_again.first().map(offset).map(DiskOffset)
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
                assert_eq!(Some(piece), self.bad_again.first());
                assert_eq!(Some(*disk), self.first_bad_offset());
                assert_eq!(*bad as usize, self.bad_again.len());
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
