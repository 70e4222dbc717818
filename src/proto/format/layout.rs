//! How are the bytes of a torrent cut into pieces and blocks?
//!
//! Read first: BEP 3, `piece length` and the messages `request` and `piece`.

use crate::limits;
use crate::units::{Block, BlockIndex, PieceIndex};
use core::fmt;

/// The pieces of a torrent. Numbers from the network are checked here and become typed ones.
///
/// Invariants: `1 <= piece_count <= PIECE_COUNT_MAX`; `piece_count` pieces hold `total_bytes`, and
/// only the last may be shorter than the others. Worked case: 10,000,000 bytes in pieces of 1 MiB
/// are nine whole pieces and one of 562,816 bytes, which has 35 blocks, the last of 5,760 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    total_bytes: u64,
    piece_bytes: u32,
    piece_count: u32,
}

impl Layout {
    pub fn new(total_bytes: u64, piece_bytes: u32) -> Result<Layout, LayoutError> {
        if !(limits::PIECE_BYTES_MIN..=limits::PIECE_BYTES_MAX).contains(&piece_bytes) {
            return Err(LayoutError::PieceBytes {
                found: piece_bytes.into(),
            });
        }
        if total_bytes == 0 {
            return Err(LayoutError::NoData);
        }
        let count = total_bytes.div_ceil(piece_bytes.into());
        match u32::try_from(count) {
            Ok(piece_count) if piece_count <= limits::PIECE_COUNT_MAX => Ok(Layout {
                total_bytes,
                piece_bytes,
                piece_count,
            }),
            _ => Err(LayoutError::TooManyPieces { count }),
        }
    }

    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Length of every piece but the last.
    pub fn piece_bytes(&self) -> u32 {
        self.piece_bytes
    }

    pub fn piece_count(&self) -> u32 {
        self.piece_count
    }

    pub fn pieces(&self) -> impl Iterator<Item = PieceIndex> + use<> {
        (0..self.piece_count).map(PieceIndex)
    }

    /// Torrent offset of the piece.
    pub fn piece_start(&self, piece: PieceIndex) -> u64 {
        assert!(
            piece.0 < self.piece_count,
            "piece {} of {}",
            piece.0,
            self.piece_count
        );
        u64::from(piece.0) * u64::from(self.piece_bytes)
    }

    pub fn piece_length(&self, piece: PieceIndex) -> u32 {
        let left = self.total_bytes - self.piece_start(piece);
        u32::try_from(left).map_or(self.piece_bytes, |left| left.min(self.piece_bytes))
    }

    pub fn block_count(&self, piece: PieceIndex) -> u32 {
        self.piece_length(piece).div_ceil(limits::BLOCK_BYTES)
    }

    pub fn block(&self, piece: PieceIndex, block: BlockIndex) -> Block {
        let count = self.block_count(piece);
        assert!(
            block.0 < count,
            "block {} of {count} in piece {}",
            block.0,
            piece.0
        );
        let begin = block.0 * limits::BLOCK_BYTES;
        Block {
            piece,
            begin,
            length: (self.piece_length(piece) - begin).min(limits::BLOCK_BYTES),
        }
    }

    /// Checks a piece index from the network.
    pub fn check_piece(&self, index: u32) -> Option<PieceIndex> {
        (index < self.piece_count).then_some(PieceIndex(index))
    }

    /// Checks a request or block from the network: it must lie inside its piece and have one byte
    /// to `BLOCK_BYTES`. It need not begin at a multiple of `BLOCK_BYTES`.
    pub fn check_block(&self, index: u32, begin: u32, length: u32) -> Option<Block> {
        let piece = self.check_piece(index)?;
        let end = begin.checked_add(length)?;
        let good = (1..=limits::BLOCK_BYTES).contains(&length) && end <= self.piece_length(piece);
        good.then_some(Block {
            piece,
            begin,
            length,
        })
    }
}

/// The piece length for an image of this size: the largest of 1, 2 and 4 MiB that gives at least
/// 2000 pieces, because few pieces spread badly in a swarm. Above 1 TiB pieces are longer, because
/// each needs memory: with 4 MiB a disk of 2 TB needs more than the default of 64 MiB, with 8 MiB
/// it needs 46.
pub fn default_piece_bytes(total_bytes: u64) -> u32 {
    const MIB: u32 = 1024 * 1024;
    const ENOUGH_PIECES: u64 = 2000;
    const MANY_PIECES: u64 = 1 << 18;
    let count = |piece_bytes: &u32| total_bytes.div_ceil(u64::from(*piece_bytes));
    let wanted = [4 * MIB, 2 * MIB]
        .into_iter()
        .find(|size| count(size) >= ENOUGH_PIECES)
        .unwrap_or(MIB);
    let sizes = core::iter::successors(Some(wanted), |size| Some(size * 2));
    let mut accepted = sizes.take_while(|&size| size <= limits::PIECE_BYTES_MAX);
    accepted
        .find(|size| count(size) <= MANY_PIECES)
        .unwrap_or(limits::PIECE_BYTES_MAX)
}

/// Why bytes cannot be cut into pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    NoData,
    PieceBytes { found: i64 },
    TooManyPieces { count: u64 },
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LayoutError::NoData => f.write_str("torrent describes no data at all"),
            LayoutError::PieceBytes { found } => write!(
                f,
                "pieces of {found} bytes, accepted are {} to {}",
                limits::PIECE_BYTES_MIN,
                limits::PIECE_BYTES_MAX
            ),
            LayoutError::TooManyPieces { count } => {
                write!(
                    f,
                    "torrent has {count} pieces, at most {} are accepted",
                    limits::PIECE_COUNT_MAX
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn the_worked_case() {
        let layout = Layout::new(10_000_000, 1 << 20).unwrap();
        let (first, last) = (PieceIndex(0), PieceIndex(9));
        assert_eq!(
            (layout.piece_count(), layout.pieces().last()),
            (10, Some(last))
        );
        assert_eq!(
            (layout.piece_start(last), layout.piece_length(last)),
            (9 << 20, 562_816)
        );
        assert_eq!(
            (layout.piece_length(first), layout.block_count(first)),
            (1 << 20, 64)
        );
        assert_eq!(layout.block_count(last), 35);
        let block = Block {
            piece: last,
            begin: 34 * 16384,
            length: 5_760,
        };
        assert_eq!(layout.block(last, BlockIndex(34)), block);
        assert_eq!(layout.check_block(9, 34 * 16384, 5_760), Some(block));
    }

    #[test]
    fn numbers_from_the_network_are_checked() {
        let layout = Layout::new(100_000, 50_000).unwrap();
        assert_eq!(layout.check_piece(1), Some(PieceIndex(1)));
        assert_eq!(
            (layout.check_piece(2), layout.check_piece(u32::MAX)),
            (None, None)
        );
        let good = [
            (0, 0, 16384),
            (1, 49_999, 1),
            (1, 33_616, 16384),
            (0, 7, 100),
        ];
        let bad = [
            (2, 0, 1),
            (0, 0, 0),
            (0, 0, 16385),
            (0, 33_617, 16384),
            (0, 50_000, 1),
            (0, u32::MAX, 1),
            (0, u32::MAX, 16384),
            (0, 1, u32::MAX),
        ];
        good.iter().for_each(|&(index, begin, length)| {
            let block = Block {
                piece: PieceIndex(index),
                begin,
                length,
            };
            assert_eq!(layout.check_block(index, begin, length), Some(block));
        });
        bad.iter().for_each(|&(index, begin, length)| {
            assert_eq!(layout.check_block(index, begin, length), None)
        });
    }

    /// Pieces and blocks laid end to end are the torrent: no byte is there twice, and none is left
    /// out.
    #[test]
    fn blocks_cover_the_torrent_once() {
        let mut rng = Rng::new(6);
        for _ in 0..200 {
            let piece_bytes = limits::PIECE_BYTES_MIN + rng.below(100_000);
            let layout = Layout::new(1 + u64::from(rng.below(2_000_000)), piece_bytes).unwrap();
            let mut end = 0;
            for piece in layout.pieces() {
                for index in 0..layout.block_count(piece) {
                    let block = layout.block(piece, BlockIndex(index));
                    assert_eq!(layout.piece_start(piece) + u64::from(block.begin), end);
                    assert_eq!(
                        layout.check_block(piece.0, block.begin, block.length),
                        Some(block)
                    );
                    end += u64::from(block.length);
                }
            }
            assert_eq!(end, layout.total_bytes());
        }
        assert_eq!(
            Layout::new(1 << 62, 16 << 20),
            Err(LayoutError::TooManyPieces { count: 1 << 38 })
        );
    }

    #[test]
    fn default_piece_bytes_aims_at_2000_pieces() {
        const MIB: u64 = 1 << 20;
        let cases = [
            (0, 1),
            (100 * MIB, 1),
            (2000 * MIB, 1),
            (3998 * MIB, 1),
            (4000 * MIB, 2),
            (7996 * MIB, 2),
            (8000 * MIB, 4),
            (MIB * MIB, 4),
            (MIB * MIB + 1, 8),
            (2 * MIB * MIB, 8),
            (2 * MIB * MIB + 1, 16),
            (16 * MIB * MIB, 16),
            (u64::MAX, 16),
        ];
        for (total_bytes, mib) in cases {
            assert_eq!(
                u64::from(default_piece_bytes(total_bytes)),
                mib * MIB,
                "{total_bytes}"
            );
        }
    }
}
