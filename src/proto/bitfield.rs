//! Which pieces does an agent have?
//!
//! One bit for each piece, the highest bit of a byte first, as in the `bitfield` message (BEP 3).

use crate::units::PieceIndex;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

/// Invariants: `bytes` is exactly as long as `len` bits need; the spare bits of the last byte are
/// zero; `count` is the number of ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitfield {
    bytes: Vec<u8>,
    len: u32,
    count: u32,
}

impl Bitfield {
    /// `len` pieces, none of them present.
    pub fn new(len: u32) -> Bitfield {
        Bitfield {
            bytes: vec![0; bytes_for(len)],
            len,
            count: 0,
        }
    }

    /// `len` pieces, all of them present.
    pub fn full(len: u32) -> Bitfield {
        let mut bytes = vec![0xff; bytes_for(len)];
        if let Some(last) = bytes.last_mut() {
            *last &= !spare_bits(len);
        }
        Bitfield {
            bytes,
            len,
            count: len,
        }
    }

    /// Reads what a peer sent. A wrong length or a set spare bit is an error, and the connection
    /// should be dropped (BEP 3).
    pub fn from_bytes(len: u32, bytes: &[u8]) -> Result<Bitfield, BitfieldError> {
        if bytes.len() != bytes_for(len) {
            return Err(BitfieldError::WrongLength {
                found: bytes.len(),
                expected: bytes_for(len),
            });
        }
        if bytes.last().is_some_and(|last| last & spare_bits(len) != 0) {
            return Err(BitfieldError::SpareBitsSet { len });
        }
        let count = bytes.iter().map(|byte| byte.count_ones()).sum();
        Ok(Bitfield {
            bytes: bytes.to_vec(),
            len,
            count,
        })
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Pieces in the torrent, present or missing.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Pieces that are present.
    pub fn count(&self) -> u32 {
        self.count
    }

    pub fn is_full(&self) -> bool {
        self.count == self.len
    }

    /// True if no piece is present.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn get(&self, piece: PieceIndex) -> bool {
        let (byte, mask) = self.place(piece);
        self.bytes[byte] & mask != 0
    }

    /// Returns true if the piece was missing before.
    pub fn set(&mut self, piece: PieceIndex) -> bool {
        let (byte, mask) = self.place(piece);
        let changed = self.bytes[byte] & mask == 0;
        self.bytes[byte] |= mask;
        self.count += u32::from(changed);
        changed
    }

    /// Returns true if the piece was present before.
    pub fn clear(&mut self, piece: PieceIndex) -> bool {
        let (byte, mask) = self.place(piece);
        let changed = self.bytes[byte] & mask != 0;
        self.bytes[byte] &= !mask;
        self.count -= u32::from(changed);
        changed
    }

    /// Whether any piece is present in both.
    pub fn meets(&self, other: &Bitfield) -> bool {
        // Not `any`: a loop that cannot end early becomes a few vector instructions.
        self.bytes
            .iter()
            .zip(&other.bytes)
            .fold(0, |both, (one, two)| both | (one & two))
            != 0
    }

    /// Pieces that are present, in order.
    pub fn present(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.indexes_of_ones(0x00)
    }

    /// Pieces that are missing, in order.
    pub fn missing(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.indexes_of_ones(0xff)
    }

    /// Positions of the set bits after each byte was XORed with `flip`. Jumps from one set bit to
    /// the next, so a nearly empty field costs one step for each byte.
    fn indexes_of_ones(&self, flip: u8) -> impl Iterator<Item = PieceIndex> + '_ {
        let len = self.len;
        let bits_of = move |(base, &byte): (u32, &u8)| {
            let mut rest = byte ^ flip;
            core::iter::from_fn(move || {
                let bit = rest.leading_zeros();
                rest &= !(0x80u8.checked_shr(bit)?);
                Some(PieceIndex(base + bit))
            })
        };
        (0..)
            .step_by(8)
            .zip(&self.bytes)
            .flat_map(bits_of)
            .take_while(move |piece| piece.0 < len)
    }

    fn place(&self, piece: PieceIndex) -> (usize, u8) {
        assert!(
            piece.0 < self.len,
            "piece {} of a field of {}",
            piece.0,
            self.len
        );
        (piece.index() / 8, 0x80 >> (piece.0 % 8))
    }
}

fn bytes_for(len: u32) -> usize {
    len.div_ceil(8) as usize
}

/// The bits of the last byte that belong to no piece: of 10 pieces, `0b0011_1111`.
fn spare_bits(len: u32) -> u8 {
    match len % 8 {
        0 => 0,
        used => 0xff >> used,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BitfieldError {
    WrongLength { found: usize, expected: usize },
    SpareBitsSet { len: u32 },
}

impl fmt::Display for BitfieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            BitfieldError::WrongLength { found, expected } => {
                write!(
                    f,
                    "bitfield has {found} bytes, this torrent needs {expected}"
                )
            }
            BitfieldError::SpareBitsSet { len } => {
                write!(f, "bitfield has bits set behind the last of {len} pieces")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn pieces(indexes: &[u32]) -> Vec<PieceIndex> {
        indexes.iter().map(|&index| PieceIndex(index)).collect()
    }

    #[test]
    fn highest_bit_first() {
        let mut field = Bitfield::new(10);
        assert!(field.set(PieceIndex(0)) && field.set(PieceIndex(7)) && field.set(PieceIndex(9)));
        assert_eq!(field.as_bytes(), [0b1000_0001, 0b0100_0000]);
        assert_eq!(
            Bitfield::from_bytes(10, field.as_bytes()),
            Ok(field.clone())
        );
        assert_eq!(field.present().collect::<Vec<_>>(), pieces(&[0, 7, 9]));
        assert_eq!(
            field.missing().collect::<Vec<_>>(),
            pieces(&[1, 2, 3, 4, 5, 6, 8])
        );
    }

    #[test]
    fn wrong_lengths_and_spare_bits_are_refused() {
        let wrong = |found, expected| Err(BitfieldError::WrongLength { found, expected });
        assert_eq!(Bitfield::from_bytes(9, &[0xff]), wrong(1, 2));
        assert_eq!(Bitfield::from_bytes(9, &[0xff, 0x80, 0x00]), wrong(3, 2));
        assert_eq!(Bitfield::from_bytes(0, &[0]), wrong(1, 0));
        assert_eq!(
            Bitfield::from_bytes(9, &[0xff, 0xc0]),
            Err(BitfieldError::SpareBitsSet { len: 9 })
        );
        assert_eq!(
            Bitfield::from_bytes(9, &[0xff, 0x01]),
            Err(BitfieldError::SpareBitsSet { len: 9 })
        );
        assert_eq!(
            Bitfield::from_bytes(9, &[0xff, 0x80]),
            Ok(Bitfield::full(9))
        );
        assert_eq!(Bitfield::from_bytes(8, &[0xff]), Ok(Bitfield::full(8)));
        assert_eq!(Bitfield::from_bytes(9, &[0x00, 0x00]), Ok(Bitfield::new(9)));
    }

    #[test]
    #[should_panic(expected = "piece 9 of a field of 9")]
    fn a_piece_beyond_the_end_panics() {
        Bitfield::new(9).get(PieceIndex(9));
    }

    /// The same operations on a `Vec<bool>` give the same answers.
    #[test]
    fn agrees_with_a_vec_of_bools() {
        let mut rng = Rng::new(1);
        for len in (0..70).chain([1000]) {
            let start_full = rng.chance(1, 2);
            let mut twin = vec![start_full; len as usize];
            let mut field = if start_full {
                Bitfield::full(len)
            } else {
                Bitfield::new(len)
            };
            for _ in 0..3 * len {
                let piece = PieceIndex(rng.below(len));
                let value = rng.chance(1, 2);
                let changed = if value {
                    field.set(piece)
                } else {
                    field.clear(piece)
                };
                assert_eq!(changed, twin[piece.index()] != value);
                twin[piece.index()] = value;
                assert_eq!(field.get(piece), value);
            }
            let other = Bitfield {
                bytes: field.bytes.iter().map(|_| rng.below(256) as u8).collect(),
                ..field
            };
            assert_eq!(
                field.meets(&other),
                field.present().any(|piece| other.get(piece))
            );
            let having = |value| {
                (0..len)
                    .filter(|&i| twin[i as usize] == value)
                    .map(PieceIndex)
                    .collect()
            };
            let (ones, zeros): (Vec<_>, Vec<_>) = (having(true), having(false));
            assert_eq!(field.present().collect::<Vec<_>>(), ones);
            assert_eq!(field.missing().collect::<Vec<_>>(), zeros);
            assert_eq!((field.len(), field.count() as usize), (len, ones.len()));
            assert_eq!(
                (field.is_empty(), field.is_full()),
                (ones.is_empty(), zeros.is_empty())
            );
            assert_eq!(Bitfield::from_bytes(len, field.as_bytes()), Ok(field));
        }
    }
}
