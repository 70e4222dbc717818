//! How are all pieces of an image read while a person watches?

use swarm_proto::format::partclone_data::Strips;
use swarm_proto::units::{PieceHash, PieceIndex};

use super::Failure;
use crate::os::clock;
use crate::os::device::Device;
use crate::os::signal::Signals;
use crate::report::{self, Mode, State, Status};
use crate::storage::places::Places;
use crate::storage::reader::{self, ReadError};

/// What is read, and how the progress line names it.
pub struct Reading<'a> {
    pub device: &'a Device,
    pub places: Places,
    /// Of a partclone image whose checksums are to be checked, too.
    pub strips: Option<Strips>,
    pub state: State,
    pub torrent: String,
    pub target: String,
    pub progress: Mode,
}

impl Reading<'_> {
    /// Hashes every piece, in any order. The first piece that cannot be read ends it, and so do
    /// SIGINT and SIGTERM.
    pub fn hash_pieces(
        self,
        on_piece: &mut dyn FnMut(PieceIndex, PieceHash),
    ) -> Result<(), Failure> {
        let mut signals = Signals::new()?;
        let mut progress = Progress::new(self.progress, self.status());
        if !self.device.direct {
            let path = self.device.path.display();
            progress.reporter.note(&format!(
                "{path}: no O_DIRECT on this file system, reading through the page cache"
            ));
        }
        progress.show();
        let mut take = |piece, hash: Result<PieceHash, ReadError>| {
            on_piece(piece, hash?);
            progress.step();
            Ok(())
        };
        let mut all = self.places.layout().pieces();
        reader::hash_pieces(
            self.device,
            self.places,
            self.strips,
            &mut all,
            &mut signals,
            &mut take,
        )?;
        Ok(())
    }

    fn status(&self) -> Status {
        let layout = self.places.layout();
        status(
            self.state,
            self.torrent.clone(),
            self.target.clone(),
            layout.piece_count(),
            layout.total_bytes(),
        )
    }
}

/// Shows a person how many pieces are read.
pub struct Progress {
    reporter: report::Standard,
    status: Status,
}

impl Progress {
    /// Two are made: not worth 0.4 KiB each.
    #[inline(never)]
    pub fn new(mode: Mode, status: Status) -> Progress {
        let reporter = report::standard(mode);
        Progress { reporter, status }
    }

    /// One more is read.
    pub fn step(&mut self) {
        self.status.checked += 1;
        self.show();
    }

    fn show(&mut self) {
        self.reporter.update(clock::now(), 0, &self.status);
    }
}

/// Nothing of `pieces` is read yet.
#[inline(never)]
pub fn status(state: State, torrent: String, target: String, pieces: u32, bytes: u64) -> Status {
    Status {
        state,
        torrent,
        target,
        disk: None,
        have: 0,
        pieces,
        checked: 0,
        to_check: pieces,
        good: 0,
        bytes,
        fetched: 0,
        uploaded: 0,
        fetched_wire: 0,
        uploaded_wire: 0,
        peers: 0,
        waiting: None,
    }
}
