//! Which bytes of a source does a map of used blocks name?
//!
//! Two formats. A mapfile of GNU ddrescue ("Mapfile structure" in its manual), which `partclone.FS
//! -D` writes as well: lines of start, size and status, where `+` is used and `?` is not. And the
//! XML of bmap-tools, versions 1.x and 2.x: its `Range` elements name used blocks, and all others
//! are not used. The checksums in it are ignored.
//!
//! A map that is wrong loses data, so nothing in it is guessed at: it must be complete, of a source
//! of this size, and in order, as all writers leave it. What a mapfile does not mention is used.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use core::str;

/// How much earlier than its source a mapfile may end. partclone counts whole clusters of the file
/// system: the map of an NTFS partition lacks its last sectors, where the backup of the boot sector
/// is. NTFS has the largest clusters, of 2 MiB at most.
const SHORT_BYTES_MAX: u64 = 2 << 20;

/// The used bytes of a source of `source_bytes`. Ranges are in order, none is empty, none touches
/// the next, and none ends behind the source. `is_partition`: the source is one file system.
pub fn parse(
    text: &[u8],
    source_bytes: u64,
    is_partition: bool,
) -> Result<Vec<Range<u64>>, UsedMapError> {
    let mut used = Used::default();
    // The map of a partition that fills its disk is hardly shorter than the disk, and all of it is
    // in another place.
    let short_bytes_max = if is_partition { SHORT_BYTES_MAX - 1 } else { 0 };
    match text.trim_ascii_start().starts_with(b"<") {
        true => read_bmap(text, source_bytes, &mut used)?,
        false => read_mapfile(text, source_bytes, short_bytes_max, &mut used)?,
    }
    Ok(used.ranges)
}

#[derive(Default)]
struct Used {
    ranges: Vec<Range<u64>>,
}

impl Used {
    /// Ranges come in order.
    fn add(&mut self, range: Range<u64>) {
        match self.ranges.last_mut() {
            _ if range.is_empty() => {}
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.ranges.push(range),
        }
    }
}

fn read_mapfile(
    text: &[u8],
    source_bytes: u64,
    short_bytes_max: u64,
    used: &mut Used,
) -> Result<(), UsedMapError> {
    let mut lines = (1..)
        .zip(text.split(|&byte| byte == b'\n'))
        .map(|(line, bytes)| (line, bytes.trim_ascii()))
        .filter(|(_, bytes)| !bytes.is_empty() && !bytes.starts_with(b"#"));
    // First the place where the program was, which says nothing here.
    let place = lines.next().and_then(|(_, bytes)| words(bytes).next());
    place.and_then(number).ok_or(UsedMapError::Unknown)?;
    let mut end = None;
    for (line, bytes) in lines {
        let wrong = |what| UsedMapError::Line { line, what };
        let mut words = words(bytes);
        let mut next_number = || words.next().and_then(number);
        let (Some(start), Some(length)) = (next_number(), next_number()) else {
            return Err(wrong("a start, a size and a status are expected"));
        };
        match end {
            None => used.add(0..start),
            Some(end) if end == start => {}
            Some(_) => return Err(wrong("it does not follow the line before")),
        }
        let next = start.checked_add(length);
        let next = next.ok_or(wrong("it ends behind 2^64"))?;
        match (words.next(), words.next()) {
            (Some(b"+"), None) => used.add(start..next),
            (Some(b"?"), None) => {}
            _ => return Err(wrong("a status + (used) or ? (not used) is expected")),
        }
        end = Some(next);
    }
    let map_bytes = end.unwrap_or(0);
    let missing_bytes = source_bytes.checked_sub(map_bytes);
    if end.is_none() || missing_bytes.is_none_or(|missing| missing > short_bytes_max) {
        return Err(UsedMapError::Size {
            map_bytes,
            source_bytes,
        });
    }
    used.add(map_bytes..source_bytes);
    Ok(())
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
}

/// Decimal, hexadecimal or octal, as in C. `from_str_radix` alone would accept a plus sign.
fn number(word: &[u8]) -> Option<u64> {
    let (digits, radix) = match word {
        [b'0', b'x' | b'X', digits @ ..] => (digits, 16),
        [b'0', digits @ ..] if !digits.is_empty() => (digits, 8),
        digits => (digits, 10),
    };
    let digits = str::from_utf8(digits).ok()?;
    match digits.starts_with('+') {
        true => None,
        false => u64::from_str_radix(digits, radix).ok(),
    }
}

/// A bmap as far as it was read; a number is 0 as long as nothing has said it.
#[derive(Default)]
struct Bmap {
    image_bytes: u64,
    block_bytes: u64,
    /// The number of blocks in all ranges, as the map says and as they were counted.
    mapped_count: u64,
    found_count: u64,
    /// The first block that the next range may name.
    next_block: u64,
}

fn read_bmap(text: &[u8], source_bytes: u64, used: &mut Used) -> Result<(), UsedMapError> {
    let mut bmap = Bmap::default();
    let (mut rest, mut line) = (text, 1);
    while let Some((read, tag)) = first_tag(rest) {
        line += rest[..read].iter().filter(|&&byte| byte == b'\n').count();
        rest = &rest[read..];
        let wrong = |what| UsedMapError::Line { line, what };
        let content = rest.split(|&byte| byte == b'<').next();
        let content = content.unwrap_or_default().trim_ascii();
        let value = || number(content).ok_or(wrong("a number is expected"));
        let mut words = words(tag);
        match words.next().unwrap_or_default() {
            b"bmap" if !is_known(words.next().unwrap_or_default()) => {
                return Err(wrong("bmap version 1 or 2 is expected"));
            }
            // A number that changed later would give the ranges before it another meaning.
            b"ImageSize" if bmap.image_bytes == 0 => bmap.image_bytes = value()?,
            b"BlockSize" if bmap.block_bytes == 0 => bmap.block_bytes = value()?,
            b"MappedBlocksCount" if bmap.mapped_count == 0 => bmap.mapped_count = value()?,
            b"ImageSize" | b"BlockSize" | b"MappedBlocksCount" => {
                return Err(wrong("it says this a second time"));
            }
            b"Range" => {
                let range = bmap.range(content);
                used.add(range.ok_or(wrong("the next blocks of the image are expected"))?);
            }
            b"/BlockMap" if bmap.image_bytes != source_bytes => {
                return Err(UsedMapError::Size {
                    map_bytes: bmap.image_bytes,
                    source_bytes,
                });
            }
            b"/BlockMap" if bmap.found_count != bmap.mapped_count => {
                return Err(wrong(
                    "these are not as many blocks as MappedBlocksCount says",
                ));
            }
            b"/BlockMap" => return Ok(()),
            _ => {}
        }
    }
    Err(UsedMapError::Unknown)
}

/// A higher number in front of the dot is another format.
fn is_known(version: &[u8]) -> bool {
    let known: [&[u8]; 2] = [b"version=\"1.", b"version=\"2."];
    known.iter().any(|known| version.starts_with(known))
}

/// The words of the first tag of a text, and where the text behind that tag begins. A comment
/// counts as a tag.
fn first_tag(text: &[u8]) -> Option<(usize, &[u8])> {
    let start = text.iter().position(|&byte| byte == b'<')? + 1;
    let end: &[u8] = match text[start..].starts_with(b"!--") {
        true => b"-->",
        false => b">",
    };
    let length = text[start..]
        .windows(end.len())
        .position(|found| found == end)?;
    Some((start + length + end.len(), &text[start..start + length]))
}

impl Bmap {
    /// The bytes of `FIRST-LAST` or of one block.
    fn range(&mut self, text: &[u8]) -> Option<Range<u64>> {
        let mut ends = text.splitn(2, |&byte| byte == b'-').map(<[u8]>::trim_ascii);
        let first = number(ends.next()?)?;
        let last = ends.next().map_or(Some(first), number)?;
        let whole_bytes = self.image_bytes.checked_next_multiple_of(self.block_bytes);
        let block_count = whole_bytes? / self.block_bytes;
        if first < self.next_block || last < first || last >= block_count {
            return None;
        }
        self.next_block = last + 1;
        self.found_count += self.next_block - first;
        let bytes = |blocks: u64| {
            blocks
                .saturating_mul(self.block_bytes)
                .min(self.image_bytes)
        };
        Some(bytes(first)..bytes(self.next_block))
    }
}

/// Why a map is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsedMapError {
    Unknown,
    Line { line: usize, what: &'static str },
    Size { map_bytes: u64, source_bytes: u64 },
}

impl fmt::Display for UsedMapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UsedMapError::Unknown => {
                f.write_str("neither a mapfile of ddrescue or partclone nor a whole bmap")
            }
            UsedMapError::Line { line, what } => write!(f, "line {line}: {what}"),
            UsedMapError::Size {
                map_bytes,
                source_bytes,
            } => write!(
                f,
                "it is of {map_bytes} bytes, the source has {source_bytes}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use alloc::string::{String, ToString};
    use std::format;

    const MIB: u64 = 1 << 20;

    /// Written by partclone.extfs 0.3.23 of a file of 64 MiB, with mke2fs of 1024-byte blocks.
    const EXT4: &str = "\
# Domain logfile created by unset_name v0.3.23
# Source: e.img
# Offset: 0x00000000
# current_pos  current_status
0x04000000     ?
#      pos        size  status
0x00000000  0x00448400  +
0x00448400  0x003B8000  ?
0x00800400  0x00040800  +
0x00840C00  0x007BF800  ?
0x01000400  0x02FFFC00  ?
";

    /// Written by partclone.ntfs 0.3.23 with --offset_domain=1048576 of a file of 64 MiB: 16383
    /// clusters of 4096 bytes, and the last 4096 bytes are missing.
    const NTFS: &str = "\
# Domain logfile created by unset_name v0.3.23
# Source: n.img
# Offset: 0x00100000
# current_pos  current_status
0x040FF000     ?
#      pos        size  status
0x00100000  0x00003000  +
0x00103000  0x00001000  ?
0x00104000  0x00007000  +
0x0010B000  0x007F8000  ?
0x00903000  0x00066000  +
0x00969000  0x01796000  ?
0x020FF000  0x00201000  +
0x02300000  0x01DFF000  ?
";

    /// Written by bmaptool 3.6 of 1000000 bytes without its comments, but for one.
    const BMAP: &str = "\
<?xml version=\"1.0\" ?>
<!-- instead of <BlocksCount> blocks,
     <Range> 7 </Range> -->
<bmap version=\"2.0\">
    <ImageSize> 1000000 </ImageSize>
    <BlockSize> 4096 </BlockSize>
    <BlocksCount> 245 </BlocksCount>
    <MappedBlocksCount> 6   </MappedBlocksCount>
    <ChecksumType> sha256 </ChecksumType>
    <BmapFileChecksum> 77af6477e44f9169 </BmapFileChecksum>
    <BlockMap>
        <Range chksum=\"73fbfd76\"> 0 </Range>
        <Range chksum=\"1470b7ec\"> 20-22 </Range>
        <Range>23</Range>
        <Range sha1=\"00\">244-244</Range>
    </BlockMap>
</bmap>
";

    fn error(text: &str, source_bytes: u64) -> String {
        let error = parse(text.as_bytes(), source_bytes, true).expect_err(text);
        error.to_string()
    }

    #[test]
    fn maps_of_partclone_are_read() {
        assert_eq!(
            parse(EXT4.as_bytes(), 64 * MIB, true),
            Ok(vec![0..0x0044_8400, 0x0080_0400..0x0084_0c00])
        );
        // What lies in front of the partition and behind its last cluster is not mentioned.
        assert_eq!(
            parse(NTFS.as_bytes(), 65 * MIB, true),
            Ok(vec![
                0..0x0010_3000,
                0x0010_4000..0x0010_b000,
                0x0090_3000..0x0096_9000,
                0x020f_f000..0x0230_0000,
                0x040f_f000..0x0410_0000,
            ])
        );
    }

    #[test]
    fn a_bmap_is_read() {
        assert_eq!(
            parse(BMAP.as_bytes(), 1_000_000, true),
            Ok(vec![0..4096, 20 * 4096..24 * 4096, 244 * 4096..1_000_000])
        );
    }

    #[test]
    fn numbers_are_those_of_c() {
        let map = "0 ? 1\r\n0 010 +\r\n8\t0X8 ?\r\n16 0 +\r\n16 16 +";
        assert_eq!(parse(map.as_bytes(), 32, true), Ok(vec![0..8, 16..32]));
        for word in [
            "",
            "+1",
            "0x",
            "0x+1",
            "1k",
            "09",
            "-1",
            "18446744073709551616",
        ] {
            assert_eq!(number(word.as_bytes()), None, "{word}");
        }
    }

    #[test]
    fn a_map_that_is_wrong_is_refused_with_its_line() {
        let status = "a status + (used) or ? (not used) is expected";
        let fields = "a start, a size and a status are expected";
        let order = "it does not follow the line before";
        let cases = [
            ("0 4 -\n", status),
            ("0 4 *", status),
            ("0 4", status),
            ("0 4 + +", status),
            ("0 ? +", fields),
            ("0", fields),
            ("0 4 +\n5 1 +", order),
            ("0 4 ?\n3 2 +", order),
            ("4 4 +\n0 4 +", order),
            ("8 0xffffffffffffffff +", "it ends behind 2^64"),
        ];
        for (lines, what) in cases {
            let last = 2 + lines.trim_end().lines().count();
            let map = format!("# comment\n0 ?\n{lines}");
            assert_eq!(error(&map, 8), format!("line {last}: {what}"), "{lines}");
        }
        for map in [
            "",
            "# only comments\n",
            "hello",
            "PK\u{3}\u{4}",
            "<html></html>",
        ] {
            assert!(error(map, 8).starts_with("neither a mapfile"), "{map}");
        }
    }

    #[test]
    fn a_map_of_another_size_is_refused_with_both_sizes() {
        let is_of = |map: &str, bytes: u64| parse(map.as_bytes(), bytes, true).is_ok();
        assert_eq!(
            error(EXT4, 64 * MIB - 512),
            "it is of 67108864 bytes, the source has 67108352"
        );
        assert!(is_of(EXT4, 66 * MIB - 1) && !is_of(EXT4, 66 * MIB));
        // On a disk it might be the map of a partition, where all lies elsewhere.
        let is_of_disk = |bytes| parse(EXT4.as_bytes(), bytes, false).is_ok();
        assert!(is_of_disk(64 * MIB) && !is_of_disk(64 * MIB + 512));
        assert_eq!(
            error(NTFS, 100 * MIB),
            "it is of 68153344 bytes, the source has 104857600"
        );
        assert_eq!(
            error("0 ?\n", MIB),
            "it is of 0 bytes, the source has 1048576"
        );
        assert_eq!(
            error(BMAP, 1_000_001),
            "it is of 1000000 bytes, the source has 1000001"
        );
        assert!(!is_of(BMAP, 999_999));
    }

    #[test]
    fn a_bmap_that_is_wrong_is_refused() {
        let range = "the next blocks of the image are expected";
        let cases = [
            ("2.0", "3.0", 4, "bmap version 1 or 2 is expected"),
            ("> 0 <", "> 245 <", 12, range),
            ("20-22", "22-20", 13, range),
            ("20-22", "20-24", 14, range),
            ("20-22", "0-2", 13, range),
            ("20-22", "20-", 13, range),
            ("20-22", "20-0xffffffffffffffff", 13, range),
            ("> 4096 <", "> 0 <", 12, range),
            ("> 4096 <", "> four <", 6, "a number is expected"),
            (
                "<Range>23</Range>",
                "",
                16,
                "these are not as many blocks as MappedBlocksCount says",
            ),
        ];
        for (old, new, line, what) in cases {
            let map = BMAP.replace(old, new);
            assert_eq!(error(&map, 1_000_000), format!("line {line}: {what}"));
        }
    }

    /// A map that is cut short is refused, or it names all that is used up to there and calls
    /// everything behind used.
    #[test]
    fn a_map_that_is_cut_short_leaves_nothing_out() {
        for (text, bytes) in [(EXT4, 64 * MIB), (NTFS, 65 * MIB), (BMAP, 1_000_000)] {
            let whole = parse(text.as_bytes(), bytes, true).unwrap();
            for length in 0..text.len() {
                let Ok(used) = parse(&text.as_bytes()[..length], bytes, true) else {
                    continue;
                };
                let kept = |range: &Range<u64>| {
                    let around =
                        |one: &Range<u64>| one.start <= range.start && range.end <= one.end;
                    used.iter().any(around)
                };
                assert!(whole.iter().all(kept), "{}", &text[..length]);
            }
        }
    }

    /// A twin that marks each byte of a small source.
    #[test]
    fn every_byte_that_a_map_calls_used_is_used() {
        let mut rng = Rng::new(7);
        for _ in 0..2000 {
            let (mut map, mut at) = (String::from("0x0 ?\n"), u64::from(rng.below(3)));
            let mut expected = vec![true; at as usize];
            for _ in 0..1 + rng.below(6) {
                let (length, used) = (u64::from(rng.below(5)), rng.below(2) == 0);
                let status = if used { '+' } else { '?' };
                map += &format!("{at:#x} {length} {status}\n");
                at += length;
                expected.resize(at as usize, used);
            }
            expected.resize(expected.len() + rng.below(3) as usize, true);
            let ranges = parse(map.as_bytes(), expected.len() as u64, true).unwrap();
            let mut found = vec![false; expected.len()];
            ranges
                .iter()
                .flat_map(|range| range.clone())
                .for_each(|byte| found[byte as usize] = true);
            assert_eq!(found, expected, "{map}");
            assert!(ranges.iter().all(|range| !range.is_empty()));
            assert!(ranges.is_sorted_by(|one, next| one.end < next.start));
        }
    }
}
