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
        let mut reporter = report::standard(self.progress);
        let mut status = self.status();
        if !self.device.direct {
            let path = self.device.path.display();
            reporter.note(&format!(
                "{path}: no O_DIRECT on this file system, reading through the page cache"
            ));
        }
        reporter.update(clock::now(), 0, &status);
        let mut take = |piece, hash: Result<PieceHash, ReadError>| {
            on_piece(piece, hash?);
            status.checked += 1;
            reporter.update(clock::now(), 0, &status);
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
        Status {
            state: self.state,
            torrent: self.torrent.clone(),
            target: self.target.clone(),
            disk: None,
            have: 0,
            pieces: layout.piece_count(),
            checked: 0,
            to_check: layout.piece_count(),
            good: 0,
            bytes: layout.total_bytes(),
            fetched: 0,
            uploaded: 0,
            peers: 0,
            waiting: None,
        }
    }
}
