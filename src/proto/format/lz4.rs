//! How do the bytes of a block become fewer, and the same again?
//!
//! LZ4's block format, to read first: `doc/lz4_Block_format.md` of LZ4. A block is a list of
//! sequences: a token, literals, and a match, which repeats bytes that are already decoded. The
//! token holds the number of literals and the length of the match in four bits each; bytes that
//! follow a 15 add to it. The last sequence is only literals.
//!
//! Files of a Debian system shrink to the same as by the `lz4` program: in blocks of 16 KiB to
//! 0.518 (`lz4 -1`: 0.520), in blocks of 64 KiB to 0.490 (0.496).

use alloc::boxed::Box;
use core::ops::Range;

/// Positions and offsets have 16 bits.
const LZ4_BYTES_MAX: usize = 1 << 16;

/// 8192 positions. With half of them, the files shrink to 0.520 instead of 0.518.
const HASH_BITS: u32 = 13;
/// With four bytes instead of five, likewise.
const HASHED_BYTES: u32 = 5;
/// From splitmix64; any odd number with many bits does.
const HASH_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
/// After 64 positions without a match, every second one is tried, later every third. So random
/// bytes take less time than files.
const MISSES_PER_STEP: usize = 64;

const MATCH_BYTES_MIN: usize = 4;
/// The format wants the last bytes to be literals, and no match to begin near the end: a decoder
/// may copy more bytes than it needs.
const END_LITERALS: usize = 5;
const END_BYTES: usize = 12;
/// As many bytes are copied in steps of a fixed length, which write more than is wanted. To call
/// the C library for some bytes takes longer than to copy them.
const SHORT_BYTES: usize = 64;
/// The most that four bits of a token say.
const NIBBLE_MAX: usize = 15;

/// Compresses blocks, one at a time.
#[derive(Debug)]
pub struct Encoder {
    /// By the hash of some bytes, the position at which they were seen last. Zero also stands for
    /// never: what is found is compared before it is used.
    positions: Box<[u16; 1 << HASH_BITS]>,
}

impl Default for Encoder {
    fn default() -> Encoder {
        let positions = Box::new([0; 1 << HASH_BITS]);
        Encoder { positions }
    }
}

impl Encoder {
    pub fn new() -> Encoder {
        Encoder::default()
    }

    /// Writes the compressed block to the front of `out`, and returns its length. `None` if it does
    /// not fit there, or is not shorter than the block.
    pub fn encode(&mut self, block: &[u8], out: &mut [u8]) -> Option<usize> {
        assert!(block.len() <= LZ4_BYTES_MAX, "a block is too long");
        let out_bytes = out.len().min(block.len().saturating_sub(1));
        let mut sink = Sink {
            out: &mut out[..out_bytes],
            filled: 0,
        };
        self.positions.fill(0);
        let match_end = block.len().saturating_sub(END_LITERALS);
        // What is before `start` is in `sink`.
        let (mut start, mut position, mut misses) = (0, 1, 0);
        while position + END_BYTES <= block.len() {
            let seen = self.replace(block, position);
            if four_bytes(block, seen) != four_bytes(block, position) {
                position += 1 + misses / MISSES_PER_STEP;
                misses += 1;
                continue;
            }
            let offset = position - seen;
            let mut match_start = position;
            while match_start > start
                && match_start > offset
                && block[match_start - 1] == block[match_start - 1 - offset]
            {
                match_start -= 1;
            }
            position = common_end(&block[..match_end], position + MATCH_BYTES_MIN, offset);
            let repeated = Match {
                offset,
                bytes: position - match_start,
            };
            sink.push(block, start..match_start, Some(repeated))?;
            (start, misses) = (position, 0);
            if position + END_BYTES <= block.len() {
                self.replace(block, position - 2);
            }
        }
        sink.push(block, start..block.len(), None)?;
        Some(sink.filled)
    }

    /// Notes the bytes at `position`; returns where bytes of their hash were seen before.
    fn replace(&mut self, block: &[u8], position: usize) -> usize {
        let hashed = eight_bytes(block, position) << (64 - 8 * HASHED_BYTES);
        let hash = hashed.wrapping_mul(HASH_FACTOR) >> (64 - HASH_BITS);
        let position = u16::try_from(position).expect("a block has at most 64 KiB");
        let slot = usize::try_from(hash).expect("a hash has few bits");
        core::mem::replace(&mut self.positions[slot], position).into()
    }
}

/// Where the bytes from `position` on cease to be those `offset` bytes before them.
fn common_end(block: &[u8], mut position: usize, offset: usize) -> usize {
    while position + 8 <= block.len() {
        let difference = eight_bytes(block, position) ^ eight_bytes(block, position - offset);
        if difference != 0 {
            return position + difference.trailing_zeros() as usize / 8;
        }
        position += 8;
    }
    while position < block.len() && block[position] == block[position - offset] {
        position += 1;
    }
    position
}

#[inline(always)]
fn eight_bytes(block: &[u8], position: usize) -> u64 {
    let bytes = block[position..].first_chunk();
    u64::from_le_bytes(*bytes.expect("no position is near the end"))
}

#[inline(always)]
fn four_bytes(block: &[u8], position: usize) -> u32 {
    let bytes = block[position..].first_chunk();
    u32::from_le_bytes(*bytes.expect("no position is near the end"))
}

struct Match {
    /// How far back the bytes are that it repeats.
    offset: usize,
    bytes: usize,
}

/// The compressed block as far as it has come.
struct Sink<'a> {
    out: &'a mut [u8],
    filled: usize,
}

impl Sink<'_> {
    /// One sequence. `None` if it does not fit.
    fn push(
        &mut self,
        block: &[u8],
        literals: Range<usize>,
        repeated: Option<Match>,
    ) -> Option<()> {
        let count = literals.len();
        let beyond = repeated.as_ref().map_or(0, |it| it.bytes - MATCH_BYTES_MIN);
        self.byte(count.min(NIBBLE_MAX) << 4 | beyond.min(NIBBLE_MAX))?;
        self.length(count)?;
        let out = self.out.get_mut(self.filled..)?;
        copy(&block[literals.start..], out, count)?;
        self.filled += count;
        if let Some(repeated) = repeated {
            self.byte(repeated.offset & 0xff)?;
            self.byte(repeated.offset >> 8)?;
            self.length(beyond)?;
        }
        Some(())
    }

    /// What a token cannot say of a length.
    fn length(&mut self, length: usize) -> Option<()> {
        let Some(mut rest) = length.checked_sub(NIBBLE_MAX) else {
            return Some(());
        };
        while rest >= 255 {
            self.byte(255)?;
            rest -= 255;
        }
        self.byte(rest)
    }

    fn byte(&mut self, byte: usize) -> Option<()> {
        *self.out.get_mut(self.filled)? = u8::try_from(byte).expect("a byte has eight bits");
        self.filled += 1;
        Some(())
    }
}

/// Writes what a compressed block holds to the front of `out`, and returns its length. `None` if it
/// is no compressed block, or holds more than `out` does. What is behind the end may be
/// overwritten.
///
/// Its time is that of reading `encoded` and writing `out` once.
pub fn decode(encoded: &[u8], out: &mut [u8]) -> Option<usize> {
    let (mut rest, mut filled) = (encoded, 0);
    loop {
        let token = usize::from(*rest.split_off_first()?);
        let literals = length(token >> 4, &mut rest)?;
        copy(rest, out.get_mut(filled..)?, literals)?;
        filled += literals;
        rest = rest.get(literals..)?;
        let Some((offset, after)) = rest.split_first_chunk() else {
            return (rest.is_empty() && filled <= out.len()).then_some(filled);
        };
        rest = after;
        let offset = usize::from(u16::from_le_bytes(*offset));
        let end = filled + length(token & NIBBLE_MAX, &mut rest)? + MATCH_BYTES_MIN;
        if offset == 0 || offset > filled || end > out.len() {
            return None;
        }
        repeat(out, filled..end, offset);
        filled = end;
    }
}

/// What a token and the bytes that follow it say.
#[inline(always)]
fn length(nibble: usize, rest: &mut &[u8]) -> Option<usize> {
    let mut length = nibble;
    let mut more = nibble == NIBBLE_MAX;
    while more {
        let byte = *rest.split_off_first()?;
        length += usize::from(byte);
        more = byte == 255;
    }
    Some(length)
}

/// Fills the range with the bytes that are `offset` before it. They may overlap.
fn repeat(out: &mut [u8], range: Range<usize>, mut offset: usize) {
    let mut position = range.start;
    // Most are short, and further back than they are long.
    let (before, after) = out.split_at_mut(position);
    if copy_short(&before[position - offset..], after, range.len()) {
        return;
    }
    if range.len() <= SHORT_BYTES && range.end + 8 <= out.len() {
        if offset < 8 {
            for _ in 0..8 {
                out[position] = out[position - offset];
                position += 1;
            }
            // Eight bytes of a pattern are there. So many of its lengths back it is the same.
            offset *= 8usize.div_ceil(offset);
        }
        while position < range.end {
            let word = eight_bytes(out, position - offset);
            out[position..position + 8].copy_from_slice(&word.to_le_bytes());
            position += 8;
        }
        return;
    }
    // What was written is copied, too, so each copy is twice as long.
    let first = range.start - offset;
    while position < range.end {
        let count = (position - first).min(range.end - position);
        out.copy_within(first..first + count, position);
        position += count;
    }
}

/// Copies the first `count` bytes. Most literals are few, and to copy 16 or 64 is faster than to
/// copy their number. `None` if there are not as many.
#[inline(always)]
fn copy(from: &[u8], to: &mut [u8], count: usize) -> Option<()> {
    if !copy_short(from, to, count) {
        to.get_mut(..count)?.copy_from_slice(from.get(..count)?);
    }
    Some(())
}

/// False if it copies nothing, since there are too many bytes or too few.
#[inline(always)]
fn copy_short(from: &[u8], to: &mut [u8], count: usize) -> bool {
    count <= 16 && copy_16s::<1>(from, to)
        || count <= SHORT_BYTES && copy_16s::<{ SHORT_BYTES / 16 }>(from, to)
}

/// As numbers: of copies of bytes the compiler makes one call of the C library, with which files
/// are decoded at a third of the speed.
#[inline(always)]
fn copy_16s<const COUNT: usize>(from: &[u8], to: &mut [u8]) -> bool {
    let from = from.as_chunks::<16>().0.first_chunk::<COUNT>();
    let to = to.as_chunks_mut::<16>().0.first_chunk_mut::<COUNT>();
    let (Some(from), Some(to)) = (from, to) else {
        return false;
    };
    for (from, to) in from.iter().zip(to) {
        *to = u128::from_le_bytes(*from).to_le_bytes();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use alloc::vec;
    use alloc::vec::Vec;

    fn encode(block: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0; block.len()];
        let length = Encoder::new().encode(block, &mut out)?;
        out.truncate(length);
        Some(out)
    }

    fn decoded(encoded: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
        let mut out = vec![0xee; bytes_max];
        let length = decode(encoded, &mut out)?;
        out.truncate(length);
        Some(out)
    }

    /// By the words of the format, byte by byte.
    fn decoded_by_a_twin(encoded: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
        let (mut bytes, mut out) = (encoded.iter().copied(), Vec::new());
        let length = |nibble: u8, bytes: &mut dyn Iterator<Item = u8>| {
            let mut length = usize::from(nibble);
            let mut last = if nibble == 15 { 255 } else { 0 };
            while last == 255 {
                last = bytes.next()?;
                length += usize::from(last);
            }
            Some(length)
        };
        loop {
            let token = bytes.next()?;
            for _ in 0..length(token >> 4, &mut bytes)? {
                out.push(bytes.next()?);
            }
            let Some(low) = bytes.next() else {
                return (out.len() <= bytes_max).then_some(out);
            };
            let offset = usize::from(low) + 256 * usize::from(bytes.next()?);
            for _ in 0..length(token & 15, &mut bytes)? + 4 {
                if offset == 0 || offset > out.len() || out.len() > bytes_max {
                    return None;
                }
                out.push(out[out.len() - offset]);
            }
        }
    }

    /// Literals, repeats near and far, runs.
    fn generated(rng: &mut Rng, bytes_max: u32) -> Vec<u8> {
        let mut block = Vec::new();
        let bytes = rng.below(bytes_max) as usize;
        let letters = [2, 16, 256][rng.below(3) as usize];
        while block.len() < bytes {
            let count = [4, 20, 300, 3000][rng.below(4) as usize];
            let count = 1 + rng.below(count) as usize;
            if block.is_empty() || rng.chance(1, 2) {
                block.extend((0..count).map(|_| rng.below(letters) as u8));
            } else {
                let furthest = [10, block.len() as u32][rng.below(2) as usize];
                let offset = (1 + rng.below(furthest) as usize).min(block.len());
                (0..count).for_each(|_| block.push(block[block.len() - offset]));
            }
        }
        block.truncate(bytes);
        block
    }

    #[test]
    fn a_block_is_written_as_the_format_says() {
        let literals: Vec<u8> = (0..20).collect();
        let far: Vec<u8> = [&literals[..], &[9; 3], &literals[..]].concat();
        let long = [b'a'; 600];
        let cases: &[(&[u8], &[u8])] = &[
            // One literal, 18 bytes of a match with an offset of 1, five literals.
            (&long[..24], b"\x1ea\x01\x00\x50aaaaa"),
            // A match of 4 + 15 + 255 + 255 + 65.
            (&long, b"\x1fa\x01\x00\xff\xff\x41\x50aaaaa"),
            // 23 literals; a match of 15 bytes 23 before; five literals.
            (
                &far,
                b"\xfb\x08\0\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\
                  \x12\x13\x09\x09\x09\x17\0\x50\x0f\x10\x11\x12\x13",
            ),
        ];
        for (block, encoded) in cases {
            assert_eq!(encode(block).as_deref(), Some(*encoded));
            assert_eq!(decoded(encoded, 600).as_deref(), Some(*block));
        }
        // Not shorter.
        assert_eq!(encode(&literals), None);
        assert_eq!(encode(&long[..12]), None);
        assert_eq!(encode(&[]), None);
    }

    #[test]
    fn what_is_no_compressed_block_is_refused() {
        let wrong: &[&[u8]] = &[
            b"",
            // Literals, a length, an offset that end too soon.
            b"\x20a",
            b"\xf0",
            b"\xf0\xff",
            b"\x10a\x01",
            b"\x1fa\x01\0",
            // The block ends with a match.
            b"\x10a\x01\0",
            // An offset of 0, and one to before the block.
            b"\x10a\0\0\x10a",
            b"\x10a\x02\0\x10a",
            b"\0\x01\0\x10a",
        ];
        for encoded in wrong {
            assert_eq!(decoded(encoded, 100), None, "{encoded:?}");
        }
        let encoded = b"\x1ea\x01\x00\x50aaaaa";
        for bytes_max in 0..24 {
            assert_eq!(decoded(encoded, bytes_max), None);
        }
        for end in 0..encoded.len() {
            // Two sequences; the first one is whole when only its literals are there.
            let whole = (end == 2).then(|| vec![b'a']);
            assert_eq!(decoded(&encoded[..end], 24), whole);
        }
    }

    #[test]
    fn a_decoder_by_the_words_of_the_format_says_the_same() {
        let mut rng = Rng::new(1);
        for _ in 0..1000 {
            let block = generated(&mut rng, 20_000);
            let Some(mut encoded) = encode(&block) else {
                continue;
            };
            assert!(encoded.len() < block.len());
            assert!(decoded(&encoded, block.len()).as_ref() == Some(&block));
            assert!(decoded_by_a_twin(&encoded, block.len()).as_ref() == Some(&block));
            // The format ends with at least five literals.
            assert_eq!(block[block.len() - 5..], encoded[encoded.len() - 5..]);
            for _ in 0..20 {
                let position = rng.below(encoded.len() as u32) as usize;
                encoded[position] = rng.below(256) as u8;
                let twin = decoded_by_a_twin(&encoded, block.len());
                assert!(decoded(&encoded, block.len()) == twin);
            }
        }
    }

    #[test]
    fn a_block_that_does_not_fit_is_not_written() {
        let mut rng = Rng::new(2);
        let mut encoder = Encoder::new();
        for _ in 0..100 {
            let block = generated(&mut rng, 2000);
            let Some(encoded) = encode(&block) else {
                continue;
            };
            for bytes in 0..encoded.len() {
                assert_eq!(encoder.encode(&block, &mut vec![0; bytes]), None);
            }
            let mut out = vec![0; encoded.len()];
            assert_eq!(encoder.encode(&block, &mut out), Some(encoded.len()));
            assert_eq!(out, encoded);
        }
    }

    #[test]
    fn bytes_of_all_lengths_come_back() {
        let mut rng = Rng::new(3);
        let letters: Vec<u8> = (0..LZ4_BYTES_MAX).map(|_| rng.below(2) as u8).collect();
        for length in (0..300).chain(LZ4_BYTES_MAX - 3..=LZ4_BYTES_MAX) {
            let block = &letters[..length];
            if let Some(encoded) = encode(block) {
                assert!(decoded(&encoded, length).as_deref() == Some(block));
            }
        }
    }
}
