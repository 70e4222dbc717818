//! SHA-1 of a stream of bytes, as fast as this machine can.
//!
//! Every byte that comes off the network or the disk is hashed, so next to the copies this is what the processor does all
//! day. Two engines, chosen at run time: the SHA instructions of x86-64 (Intel since Goldmont and Ice Lake, AMD since
//! Zen), and `sha1_smol` for all other machines. Measured with `speed` below on one thread of an AMD EPYC, 16 KiB at a
//! time: 2.0 GB/s with the instructions, 0.95 GB/s without; `sha1rnds4` alone would allow about 2.4.
//!
//! Read first: FIPS 180-4; "Intel SHA Extensions" (2013) for what the four instructions compute.

/// A hash being computed. The result does not depend on how the input was cut into `update` calls.
#[derive(Clone)]
pub struct Sha1(Engine);

#[derive(Clone)]
enum Engine {
    #[cfg(target_arch = "x86_64")]
    Instructions(instructions::Sha1),
    Software(sha1_smol::Sha1),
}

impl Sha1 {
    /// The fastest engine this processor has; std looks once and remembers.
    pub fn new() -> Sha1 {
        #[cfg(target_arch = "x86_64")]
        if let Some(engine) = instructions::Sha1::new() {
            return Sha1(Engine::Instructions(engine));
        }
        Sha1::software()
    }

    /// The engine that works everywhere. Each proves the other in the tests.
    pub fn software() -> Sha1 {
        Sha1(Engine::Software(sha1_smol::Sha1::new()))
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            #[cfg(target_arch = "x86_64")]
            Engine::Instructions(engine) => engine.update(bytes),
            Engine::Software(engine) => engine.update(bytes),
        }
    }

    pub fn finish(self) -> [u8; 20] {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Engine::Instructions(engine) => engine.finish(),
            Engine::Software(engine) => engine.digest().bytes(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod instructions {
    //! FIPS 180-4 around a block function of SHA instructions.

    use std::arch::x86_64::*;

    const BLOCK_BYTES: usize = 64;
    const INITIAL: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

    /// Exists only on a processor that has the instructions, so `compress` may be called.
    #[derive(Clone)]
    pub struct Sha1 {
        state: [u32; 5],
        /// The bytes since the last whole block: `total_bytes % 64` of them, from the front.
        partial: [u8; BLOCK_BYTES],
        total_bytes: u64,
    }

    impl Sha1 {
        pub fn new() -> Option<Sha1> {
            let present = is_x86_feature_detected!("sha")
                && is_x86_feature_detected!("ssse3")
                && is_x86_feature_detected!("sse4.1");
            present.then_some(Sha1 { state: INITIAL, partial: [0; BLOCK_BYTES], total_bytes: 0 })
        }

        pub fn update(&mut self, bytes: &[u8]) {
            let used = self.partial_bytes();
            self.total_bytes += bytes.len() as u64;
            let mut rest = bytes;
            if used > 0 {
                let (head, tail) = rest.split_at(rest.len().min(BLOCK_BYTES - used));
                self.partial[used..used + head.len()].copy_from_slice(head);
                if used + head.len() < BLOCK_BYTES {
                    return;
                }
                let block = self.partial;
                self.compress(&[block]);
                rest = tail;
            }
            let (blocks, tail) = rest.as_chunks();
            self.compress(blocks);
            self.partial[..tail.len()].copy_from_slice(tail);
        }

        /// One bit 1, zeros up to 8 bytes before the end of a block, the length in bits (FIPS 180-4, 5.1.1).
        pub fn finish(mut self) -> [u8; 20] {
            let length_bits = self.total_bytes * 8;
            let used = self.partial_bytes();
            let mut last = [[0; BLOCK_BYTES]; 2];
            let padded_blocks = if used + 1 + 8 <= BLOCK_BYTES { 1 } else { 2 };
            let flat = last.as_flattened_mut();
            flat[..used].copy_from_slice(&self.partial[..used]);
            flat[used] = 0x80;
            flat[padded_blocks * BLOCK_BYTES - 8..][..8].copy_from_slice(&length_bits.to_be_bytes());
            self.compress(&last[..padded_blocks]);
            let mut digest = [0; 20];
            for (bytes, word) in digest.chunks_exact_mut(4).zip(self.state) {
                bytes.copy_from_slice(&word.to_be_bytes());
            }
            digest
        }

        fn partial_bytes(&self) -> usize {
            (self.total_bytes % BLOCK_BYTES as u64) as usize
        }

        fn compress(&mut self, blocks: &[[u8; BLOCK_BYTES]]) {
            // SAFETY: the processor has the features, or `new` would have made no `Sha1`.
            unsafe { compress(&mut self.state, blocks) }
        }
    }

    /// The 80 rounds over each block, four at a time: `sha1rnds4` does four rounds, `sha1nexte` derives their E from the
    /// state four rounds ago, `sha1msg1` and `sha1msg2` compute the next four words of the message schedule.
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn compress(state: &mut [u32; 5], blocks: &[[u8; BLOCK_BYTES]]) {
        /// Four rounds with the words `$now`. `$e` is the state four rounds ago, out of which E comes; it is left holding
        /// what the next four rounds take as theirs.
        macro_rules! rounds {
            ($function:literal, $abcd:ident, $e:ident, $now:expr) => {
                let e = _mm_sha1nexte_epu32($e, $now);
                $e = $abcd;
                $abcd = _mm_sha1rnds4_epu32($abcd, e, $function);
            };
        }
        /// The four words after `$w0 $w1 $w2 $w3` replace the oldest four, and go through four rounds.
        macro_rules! schedule_and_rounds {
            ($function:literal, $abcd:ident, $e:ident, $w0:ident $w1:ident $w2:ident $w3:ident) => {
                let mixed = _mm_xor_si128(_mm_sha1msg1_epu32($w0, $w1), $w2);
                $w0 = _mm_sha1msg2_epu32(mixed, $w3);
                rounds!($function, $abcd, $e, $w0);
            };
        }

        // The instructions keep A in the highest lane, and E in the highest lane of a register of its own.
        let [a, b, c, d, e] = state.map(|word| word as i32);
        let mut abcd = _mm_set_epi32(a, b, c, d);
        let mut e = _mm_set_epi32(e, 0, 0, 0);

        for block in blocks {
            let (abcd_before, e_before) = (abcd, e);
            let [mut w0, mut w1, mut w2, mut w3] = load(block);

            // The first E is added as it is; from then on `sha1nexte` rotates it out of an earlier A.
            let first = _mm_add_epi32(e, w0);
            e = abcd;
            abcd = _mm_sha1rnds4_epu32(abcd, first, 0);
            rounds!(0, abcd, e, w1);
            rounds!(0, abcd, e, w2);
            rounds!(0, abcd, e, w3);
            schedule_and_rounds!(0, abcd, e, w0 w1 w2 w3);

            schedule_and_rounds!(1, abcd, e, w1 w2 w3 w0);
            schedule_and_rounds!(1, abcd, e, w2 w3 w0 w1);
            schedule_and_rounds!(1, abcd, e, w3 w0 w1 w2);
            schedule_and_rounds!(1, abcd, e, w0 w1 w2 w3);
            schedule_and_rounds!(1, abcd, e, w1 w2 w3 w0);

            schedule_and_rounds!(2, abcd, e, w2 w3 w0 w1);
            schedule_and_rounds!(2, abcd, e, w3 w0 w1 w2);
            schedule_and_rounds!(2, abcd, e, w0 w1 w2 w3);
            schedule_and_rounds!(2, abcd, e, w1 w2 w3 w0);
            schedule_and_rounds!(2, abcd, e, w2 w3 w0 w1);

            schedule_and_rounds!(3, abcd, e, w3 w0 w1 w2);
            schedule_and_rounds!(3, abcd, e, w0 w1 w2 w3);
            schedule_and_rounds!(3, abcd, e, w1 w2 w3 w0);
            schedule_and_rounds!(3, abcd, e, w2 w3 w0 w1);
            schedule_and_rounds!(3, abcd, e, w3 w0 w1 w2);

            abcd = _mm_add_epi32(abcd, abcd_before);
            e = _mm_sha1nexte_epu32(e, e_before);
        }

        let lanes = [
            _mm_extract_epi32(abcd, 3),
            _mm_extract_epi32(abcd, 2),
            _mm_extract_epi32(abcd, 1),
            _mm_extract_epi32(abcd, 0),
            _mm_extract_epi32(e, 3),
        ];
        *state = lanes.map(|lane| lane as u32);
    }

    /// The sixteen words of a block, big-endian, the first word of each four in the highest lane.
    #[target_feature(enable = "ssse3")]
    fn load(block: &[u8; BLOCK_BYTES]) -> [__m128i; 4] {
        let reverse = _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f);
        std::array::from_fn(|index| {
            let words = block[index * 16..][..16].as_ptr();
            // SAFETY: sixteen bytes of the slice just taken; the load may be unaligned.
            let words = unsafe { _mm_loadu_si128(words.cast()) };
            _mm_shuffle_epi8(words, reverse)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(input: &[&[u8]]) -> [u8; 20] {
        let digest = |mut hash: Sha1| {
            input.iter().for_each(|part| hash.update(part));
            hash.finish()
        };
        let fast = digest(Sha1::new());
        assert_eq!(fast, digest(Sha1::software()));
        fast
    }

    fn hex(digest: [u8; 20]) -> String {
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// FIPS 180 examples (csrc.nist.gov, SHA1.pdf and SHA_All.pdf), the empty input, and a million times 'a'.
    #[test]
    fn known_digests() {
        assert_eq!(hex(both(&[])), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        assert_eq!(hex(both(&[b"abc"])), "a9993e364706816aba3e25717850c26c9cd0d89d");
        let two_blocks = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(hex(both(&[two_blocks])), "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
        let long = b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn\
              hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu";
        assert_eq!(hex(both(&[long])), "a49b2446a02c645bf419f995b67091253a04a259");
        let thousand = [b'a'; 1000];
        assert_eq!(hex(both(&[&thousand[..]; 1000])), "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
    }

    /// Every length around the block size, where the padding changes shape.
    #[test]
    fn every_short_length() {
        let bytes: Vec<u8> = (0..300u32).map(|index| (index * 7) as u8).collect();
        for length in 0..bytes.len() {
            both(&[&bytes[..length]]);
        }
    }

    /// Random lengths in random pieces: the two engines agree, and the cuts do not matter.
    #[test]
    fn random_splits() {
        let mut state = 0x5eed_u64;
        let mut random = |bound: usize| {
            // xorshift64: good enough to choose lengths.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % bound as u64) as usize
        };
        for round in 0..1000 {
            let length = random(5000);
            let bytes: Vec<u8> = (0..length).map(|_| random(256) as u8).collect();
            let mut parts: Vec<&[u8]> = Vec::new();
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (head, tail) = rest.split_at(random(200).min(rest.len()));
                parts.push(head);
                rest = tail;
            }
            assert_eq!(both(&parts), both(&[&bytes]), "round {round}");
        }
    }

    /// `cargo test --release --bin swarmdd speed -- --ignored --nocapture`
    #[test]
    #[ignore = "a measurement"]
    fn speed() {
        let block = vec![0x5a; 16 * 1024];
        for (name, mut hash) in [("fast", Sha1::new()), ("software", Sha1::software())] {
            let start = std::time::Instant::now();
            for _ in 0..65_536 {
                hash.update(&block);
            }
            let digest = std::hint::black_box(hash.finish());
            let seconds = start.elapsed().as_secs_f64();
            println!("{name}: {:.2} GB/s {}", 65_536.0 * 16_384.0 / seconds / 1e9, hex(digest));
        }
    }
}
