//! Which ends of pieces has an agent checked that are not on its disk yet, and what does it say of
//! them?

use alloc::collections::BTreeMap;

use super::image::Image;
use super::pieces::Pieces;
use crate::units::{Block, PieceIndex};
use crate::wire::extension::Tail;

#[derive(Default)]
pub struct Tails(BTreeMap<PieceIndex, u32>);

impl Tails {
    /// A part was hashed, and it was good. It ends where the next one begins, because nothing else
    /// is hashed so.
    pub fn grow(&mut self, piece: PieceIndex, begin: u32) {
        self.0.insert(piece, begin);
    }

    /// The piece is on the disk.
    pub fn written(&mut self, piece: PieceIndex) {
        self.0.remove(&piece);
    }

    pub fn contain(&self, image: &Image, block: Block) -> bool {
        block.begin >= self.begin(image, block.piece)
    }

    fn begin(&self, image: &Image, piece: PieceIndex) -> u32 {
        let begin = self.0.get(&piece).copied();
        begin.unwrap_or_else(|| image.piece_length(piece))
    }

    /// The agent tells of a tail that it has checked, or of a piece that it has.
    pub fn check_said(&self, image: &Image, payload: &[u8], pieces: &Pieces) {
        let tail = Tail::parse(payload).expect("an agent says what can be read");
        let piece = PieceIndex(tail.piece);
        for mark in &tail.marks {
            let is_checked = pieces.is_on_disk(piece) || mark.begin >= self.begin(image, piece);
            assert!(
                is_checked,
                "passes on piece {} from byte {}, which was not checked",
                piece.0, mark.begin
            );
            assert_eq!(
                *mark,
                image.mark(piece, mark.begin),
                "a wrong mark of piece {}",
                piece.0
            );
        }
    }
}
