//! How do the bytes of a fuzzer become numbers, choices and cuts?
//!
//! Bytes behind the end are zeros, so every input is a whole one, and a short one stays short when
//! it is minimised.

/// The bytes that are left.
#[derive(Clone, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// At most `count` bytes from the front.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    pub fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// One of `0..count`, from one byte.
    pub fn choose(&mut self, count: usize) -> usize {
        usize::from(self.u8()) % count
    }

    pub fn chance(&mut self, one_in: usize) -> bool {
        self.choose(one_in) == one_in - 1
    }
}

/// `bytes` in parts, whose lengths are the bytes of `lengths` again and again; with no lengths, one
/// part. A length of 0 is a byte.
pub fn cut<'a>(mut bytes: &'a [u8], lengths: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut lengths = lengths.iter().cycle();
    std::iter::from_fn(move || {
        let length = lengths.next().map_or(bytes.len(), |&length| length.into());
        let (part, rest) = bytes.split_at(length.max(1).min(bytes.len()));
        bytes = rest;
        (!part.is_empty()).then_some(part)
    })
}

/// CRC-32 of IEEE 802.3 by its definition: division of polynomials, bit by bit.
pub fn crc32(bytes: &[u8]) -> u32 {
    let mut rest = u32::MAX;
    for byte in bytes {
        rest ^= u32::from(*byte);
        for _ in 0..8 {
            let low = rest & 1;
            rest >>= 1;
            rest ^= low * 0xedb8_8320;
        }
    }
    !rest
}
