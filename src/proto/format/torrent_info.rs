//! What does a `torrent.info` of partclone say?
//!
//! `partclone.FS -T` and `-t` write it (src/partclone.c and src/torrent_helper.c of partclone): a
//! line for each thing, `key: value`.
//!
//! ```text
//! block_size: 1024
//! blocks_total: 204800
//! offset: 00000000000000000000000000000000
//! length: 00000000000000000000000001000000
//! sha1: b5b2160efba2dcab709186f5c4332bad7d0c0aa1
//! ```
//!
//! A hash is written when the bytes behind its piece arrive, so only the order of the hashes counts
//! and not what stands between them. Offsets and lengths are hexadecimal, the rest is decimal. What
//! stands in other lines is ignored, as `partclone_create_torrent.py` ignores it.

use crate::format::slices::{Slice, SliceName, hexadecimal};
use crate::limits;
use crate::text;
use crate::units::PieceHash;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Size of the pieces, whatever the size of partclone's buffer (src/torrent_helper.h).
pub const PIECE_BYTES: u32 = 16 << 20;

/// Longest line that is read. A line has 45 bytes at most; a name may have more digits.
const LINE_BYTES_MAX: usize = 320;

/// What is read. Calling order: `line` for each line, then `finish`.
#[derive(Debug, Default)]
pub struct TorrentInfo {
    /// In the order of the file, with the empty ones.
    pub slices: Vec<Slice>,
    /// One for each piece.
    pub hashes: Vec<PieceHash>,
    block_bytes: Option<u64>,
    block_count: Option<u64>,
    /// The offset whose length has not come yet.
    offset: Option<SliceName>,
    line_count: u64,
}

impl TorrentInfo {
    /// Whether a file that begins with these bytes is one.
    pub fn is_one(head: &[u8]) -> bool {
        head.starts_with(b"block_size: ")
    }

    /// Size of the partition, if the file says it: of whole blocks.
    pub fn disk_bytes(&self) -> Option<u64> {
        let bytes = self.block_bytes?.checked_mul(self.block_count?)?;
        (bytes <= limits::DISK_BYTES_MAX).then_some(bytes)
    }

    /// Takes the next line, without its end.
    pub fn line(&mut self, line: &[u8]) -> Result<(), InfoError> {
        self.line_count += 1;
        let error = |wrong| InfoError {
            line: self.line_count,
            wrong,
        };
        if line.len() > LINE_BYTES_MAX {
            return Err(error(Wrong::TooLong));
        }
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            return Ok(());
        };
        let value = line[colon + 1..].trim_ascii();
        let bad = || error(Wrong::Value(text::printable(line, limits::TEXT_BYTES_MAX)));
        match &line[..colon] {
            b"block_size" => self.block_bytes = Some(decimal(value).ok_or_else(bad)?),
            b"blocks_total" => self.block_count = Some(decimal(value).ok_or_else(bad)?),
            b"offset" => {
                let name = SliceName::parse(value).map_err(|_| bad())?;
                if self.offset.replace(name).is_some() {
                    return Err(error(Wrong::NoLength));
                }
            }
            b"length" => {
                let length = hexadecimal(value).filter(|_| !value.is_empty());
                let length = length.filter(|&length| i64::try_from(length).is_ok());
                let length = length.ok_or_else(bad)?;
                let name = self.offset.take().ok_or_else(|| error(Wrong::NoOffset))?;
                if self.slices.len() == limits::FILE_COUNT_MAX {
                    return Err(error(Wrong::TooMany));
                }
                self.slices.push(Slice { name, length });
            }
            b"sha1" => {
                if self.hashes.len() == limits::PIECE_COUNT_MAX as usize {
                    return Err(error(Wrong::TooMany));
                }
                self.hashes.push(hash(value).ok_or_else(bad)?);
            }
            _ => {}
        }
        Ok(())
    }

    /// Checks that all of it is there.
    pub fn finish(self) -> Result<TorrentInfo, InfoError> {
        let error = |wrong| {
            Err(InfoError {
                line: self.line_count,
                wrong,
            })
        };
        if self.offset.is_some() {
            return error(Wrong::NoLength);
        }
        let lengths = self.slices.iter().map(|slice| slice.length);
        let total_bytes = lengths.fold(0, u64::saturating_add);
        if total_bytes == 0 {
            return error(Wrong::Empty);
        }
        let pieces = total_bytes.div_ceil(PIECE_BYTES.into());
        if self.hashes.len() as u64 != pieces {
            let hashes = self.hashes.len();
            return error(Wrong::Hashes { hashes, pieces });
        }
        Ok(self)
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let digits = core::str::from_utf8(digits).ok()?;
    digits.parse().ok()
}

/// A hash as 40 hexadecimal digits.
fn hash(digits: &[u8]) -> Option<PieceHash> {
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    let mut hash = [0; 20];
    if pairs.len() != hash.len() {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(pairs) {
        *byte = u8::try_from(hexadecimal(pair)?).ok()?;
    }
    Some(PieceHash(hash))
}

/// Why a file is not used, and in which of its lines that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfoError {
    /// Counted from 1.
    pub line: u64,
    wrong: Wrong,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wrong {
    Empty,
    Hashes { hashes: usize, pieces: u64 },
    NoLength,
    NoOffset,
    TooLong,
    TooMany,
    Value(String),
}

impl fmt::Display for InfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.wrong {
            Wrong::Empty => f.write_str("no bytes are described"),
            Wrong::Hashes { hashes, pieces } => {
                write!(
                    f,
                    "{hashes} hashes, the {pieces} pieces of 16 MiB need one each"
                )
            }
            Wrong::NoLength => f.write_str("an offset has no length"),
            Wrong::NoOffset => f.write_str("a length has no offset"),
            Wrong::TooLong => write!(f, "longer than {LINE_BYTES_MAX} bytes"),
            Wrong::TooMany => f.write_str("more slices or hashes than a torrent can have"),
            Wrong::Value(line) => write!(f, "'{line}' is not understood"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    const FILE: &str = "block_size: 1024
blocks_total: 204800
offset: 00000000000000000000000000000400
length: 00000000000000000000000001000000
offset: 00000000000000000000000001000400
sha1: b5b2160efba2dcab709186f5c4332bad7d0c0aa1
length: 00000000000000000000000000000200
offset: 00000000000000000000000001000800
length: 00000000000000000000000000000000
sha1: 0000000000000000000000000000000000000000
";

    fn parse(text: &str) -> Result<TorrentInfo, InfoError> {
        let mut info = TorrentInfo::default();
        for line in text.lines() {
            info.line(line.as_bytes())?;
        }
        info.finish()
    }

    #[test]
    fn hashes_may_stand_anywhere_and_slices_may_be_empty() {
        let info = parse(FILE).unwrap();
        let slices = info
            .slices
            .iter()
            .map(|slice| (slice.name.disk.0, slice.length));
        let expected = [(0x400, 1 << 24), (0x100_0400, 0x200), (0x100_0800, 0)];
        assert!(slices.eq(expected));
        assert_eq!(info.hashes.len(), 2);
        assert_eq!(info.hashes[0].0[..3], [0xb5, 0xb2, 0x16]);
        assert_eq!(info.hashes[1].0, [0; 20]);
        assert_eq!(info.disk_bytes(), Some(1024 * 204_800));
        assert!(TorrentInfo::is_one(FILE.as_bytes()));
        assert!(!TorrentInfo::is_one(b"d8:announce"));
    }

    #[test]
    fn other_lines_are_ignored() {
        let more = std::format!("\n# note\nchecksum: none\nno colon\n{FILE}\n:\n");
        assert_eq!(parse(&more).unwrap().slices.len(), 3);
        let windows = FILE.replace('\n', "\r\n");
        assert_eq!(parse(&windows).unwrap().hashes.len(), 2);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let without = |line: usize| {
            let lines = FILE.lines().enumerate();
            let kept = lines.filter(|(index, _)| index + 1 != line);
            kept.map(|(_, line)| std::format!("{line}\n")).collect()
        };
        let cases: [(String, &str); 10] = [
            (String::new(), "line 0: no bytes are described"),
            (
                without(6),
                "line 9: 1 hashes, the 2 pieces of 16 MiB need one each",
            ),
            (without(3), "line 3: a length has no offset"),
            (without(4), "line 4: an offset has no length"),
            (without(9), "line 9: an offset has no length"),
            (
                FILE.replace("aa1\n", "\n"),
                "line 6: 'sha1: b5b2160efba2dcab709186f5c4332bad7d0c0' is not understood",
            ),
            (
                FILE.replace("length: 0000", "length: x"),
                "line 4: 'length: x0000000000000000000001000000' is not understood",
            ),
            (
                FILE.replace("offset: 0", "offset: 8"),
                "line 3: 'offset: 80000000000000000000000000000400' is not understood",
            ),
            (
                FILE.replace("204800", "many"),
                "line 2: 'blocks_total: many' is not understood",
            ),
            (
                std::format!("x{}", "y".repeat(LINE_BYTES_MAX)),
                "line 1: longer than 320 bytes",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(&text).unwrap_err().to_string(), expected);
        }
    }

    /// Cut short anywhere, it is refused or describes less. Nothing panics.
    #[test]
    fn every_beginning_is_refused_or_describes_less() {
        let bytes = |info: &TorrentInfo| info.slices.iter().map(|slice| slice.length).sum::<u64>();
        let whole = bytes(&parse(FILE).unwrap());
        let is_last = |length: usize| FILE.len() - length <= 1;
        for length in (0..FILE.len()).filter(|&length| !is_last(length)) {
            if let Ok(info) = parse(&FILE[..length]) {
                assert!(bytes(&info) < whole, "{length}");
            }
        }
    }
}
