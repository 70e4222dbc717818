//! What is the SHA-1 of a stream of bytes, computed as fast as this machine can?
//!
//! Every byte from the network or a device is hashed; only copying takes as much processor time.
//! There are two engines, chosen at run time: the SHA instructions of x86-64 (Intel since Goldmont
//! and Ice Lake, AMD since Zen), and `sha1_smol` for all other machines. A hash that has to begin
//! or to end with a state in the middle of its stream (`resume`, `state`) takes the engine in
//! `chain` instead of `sha1_smol`, which keeps its state to itself.
//!
//! Read first: FIPS 180-4; "Intel SHA Extensions" (2013) for what the four instructions compute.

/// Hashes that are computed side by side. Measured on one thread of an AMD EPYC (Zen 4), in GB/s:
/// the SHA instructions with 1, 2, 3 and 4 lanes 1.9, 3.3, 3.9 and 4.7; `openssl speed -evp sha1`
/// 1.9; eight lanes of AVX2 2.6, eight of AVX-512 2.9, and sixteen of AVX-512 4.0. More than four
/// lanes do not fit into the registers, and sixteen pieces are hardly ever at hand.
pub const LANES: usize = 4;

/// A hash being computed. The result does not depend on how the input was cut into `update` calls.
#[derive(Clone)]
pub struct Sha1(Engine);

#[derive(Clone)]
enum Engine {
    #[cfg(target_arch = "x86_64")]
    Instructions(Chain),
    Chain(Chain),
    Software(sha1_smol::Sha1),
}

impl Sha1 {
    /// The fastest engine of this processor.
    pub fn new() -> Sha1 {
        #[cfg(target_arch = "x86_64")]
        if let Some(engine) = instructions::chain(INITIAL, 0) {
            return Sha1(Engine::Instructions(engine));
        }
        Sha1::software()
    }

    /// A hash whose `state` can be asked for.
    pub fn with_states() -> Sha1 {
        Sha1::chained(INITIAL, 0)
    }

    /// The hash goes on from a state that `state` gave after `bytes` of its stream, a multiple of
    /// 64.
    pub fn resume(state: [u8; 20], bytes: u64) -> Sha1 {
        let word = |index: usize| state.as_chunks().0[index];
        Sha1::chained(
            std::array::from_fn(|index| u32::from_be_bytes(word(index))),
            bytes,
        )
    }

    fn chained(state: State, bytes: u64) -> Sha1 {
        assert!(bytes.is_multiple_of(BLOCK_BYTES as u64));
        #[cfg(target_arch = "x86_64")]
        if let Some(engine) = instructions::chain(state, bytes) {
            return Sha1(Engine::Instructions(engine));
        }
        Sha1(Engine::Chain(Chain::new(state, bytes, chain::compress)))
    }

    /// The state after a multiple of 64 bytes. Always there if the hash began `with_states` or with
    /// `resume`.
    pub fn state(&self) -> Option<[u8; 20]> {
        match &self.0 {
            #[cfg(target_arch = "x86_64")]
            Engine::Instructions(engine) => Some(engine.state()),
            Engine::Chain(engine) => Some(engine.state()),
            Engine::Software(_) => None,
        }
    }

    /// The engine that works everywhere. The tests compare both.
    pub fn software() -> Sha1 {
        Sha1(Engine::Software(sha1_smol::Sha1::new()))
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            #[cfg(target_arch = "x86_64")]
            Engine::Instructions(engine) => engine.update(bytes),
            Engine::Chain(engine) => engine.update(bytes),
            Engine::Software(engine) => engine.update(bytes),
        }
    }

    /// As `update` on each, but faster: the SHA instructions do four in little more than twice the
    /// time of one.
    pub fn update_all(lanes: &mut [(Sha1, &[u8])]) {
        assert!(lanes.len() <= LANES);
        #[cfg(target_arch = "x86_64")]
        while instructions::update_side_by_side(lanes) {}
        for (hash, bytes) in lanes {
            hash.update(bytes);
        }
    }

    pub fn finish(self) -> [u8; 20] {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Engine::Instructions(engine) => engine.finish(),
            Engine::Chain(engine) => engine.finish(),
            Engine::Software(engine) => engine.digest().bytes(),
        }
    }
}

const BLOCK_BYTES: usize = 64;

type Block = [u8; BLOCK_BYTES];
type State = [u32; 5];

const INITIAL: State = [
    0x6745_2301,
    0xefcd_ab89,
    0x98ba_dcfe,
    0x1032_5476,
    0xc3d2_e1f0,
];

use chain::Chain;

mod chain {
    //! FIPS 180-4 around a block function, and a plain block function.

    use super::{BLOCK_BYTES, Block, State};

    #[derive(Clone)]
    pub struct Chain {
        pub state: State,
        /// The bytes since the last whole block: `total_bytes % 64` of them, from the front.
        partial: Block,
        pub total_bytes: u64,
        compress: fn(&mut State, &[Block]),
    }

    impl Chain {
        pub fn new(state: State, total_bytes: u64, compress: fn(&mut State, &[Block])) -> Chain {
            Chain {
                state,
                partial: [0; BLOCK_BYTES],
                total_bytes,
                compress,
            }
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
                (self.compress)(&mut self.state, &[block]);
                rest = tail;
            }
            let (blocks, tail) = rest.as_chunks();
            (self.compress)(&mut self.state, blocks);
            self.partial[..tail.len()].copy_from_slice(tail);
        }

        /// One bit 1, zeros up to 8 bytes before the end of a block, the length in bits (FIPS
        /// 180-4, 5.1.1).
        pub fn finish(mut self) -> [u8; 20] {
            let length_bits = self.total_bytes * 8;
            let used = self.partial_bytes();
            let mut last = [[0; BLOCK_BYTES]; 2];
            let padded_blocks = if used + 1 + 8 <= BLOCK_BYTES { 1 } else { 2 };
            let flat = last.as_flattened_mut();
            flat[..used].copy_from_slice(&self.partial[..used]);
            flat[used] = 0x80;
            flat[padded_blocks * BLOCK_BYTES - 8..][..8]
                .copy_from_slice(&length_bits.to_be_bytes());
            (self.compress)(&mut self.state, &last[..padded_blocks]);
            self.state()
        }

        /// After whole blocks.
        pub fn state(&self) -> [u8; 20] {
            let mut bytes = [0; 20];
            for (bytes, word) in bytes.chunks_exact_mut(4).zip(self.state) {
                bytes.copy_from_slice(&word.to_be_bytes());
            }
            bytes
        }

        pub fn partial_bytes(&self) -> usize {
            (self.total_bytes % BLOCK_BYTES as u64) as usize
        }
    }

    /// Section 6.1.2.
    pub fn compress(state: &mut State, blocks: &[Block]) {
        for block in blocks {
            let mut words = [0; 80];
            for (word, bytes) in words.iter_mut().zip(block.as_chunks().0) {
                *word = u32::from_be_bytes(*bytes);
            }
            for at in 16..80 {
                let mixed = words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16];
                words[at] = mixed.rotate_left(1);
            }
            let mut after = *state;
            rounds(&mut after, &words[..20], 0x5a82_7999, |b, c, d| {
                d ^ (b & (c ^ d))
            });
            rounds(&mut after, &words[20..40], 0x6ed9_eba1, |b, c, d| b ^ c ^ d);
            rounds(&mut after, &words[40..60], 0x8f1b_bcdc, |b, c, d| {
                (b & c) | (d & (b | c))
            });
            rounds(&mut after, &words[60..], 0xca62_c1d6, |b, c, d| b ^ c ^ d);
            for (word, more) in state.iter_mut().zip(after) {
                *word = word.wrapping_add(more);
            }
        }
    }

    #[inline(always)]
    fn rounds(
        state: &mut State,
        words: &[u32],
        constant: u32,
        function: impl Fn(u32, u32, u32) -> u32,
    ) {
        let [mut a, mut b, mut c, mut d, mut e] = *state;
        for word in words {
            let sum = e.wrapping_add(function(b, c, d)).wrapping_add(constant);
            let next = a.rotate_left(5).wrapping_add(sum).wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        *state = [a, b, c, d, e];
    }
}

#[cfg(target_arch = "x86_64")]
mod instructions {
    //! A block function of SHA instructions.

    use std::arch::x86_64::*;
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::{BLOCK_BYTES, Block, Chain, Engine, INITIAL, LANES, State};

    /// SHA, SSSE3 and SSE4.1. Nothing in the system has to allow them, since they use the registers
    /// of SSE2. std asks about everything that it knows: 1.6 KiB.
    pub fn detect() -> bool {
        // Intel's manual, volume 2, CPUID.
        const SSSE3_AND_SSE41_IN_ECX_OF_1: u32 = 1 << 9 | 1 << 19;
        const SHA_IN_EBX_OF_7: u32 = 1 << 29;
        __cpuid(0).eax >= 7
            && __cpuid(1).ecx & SSSE3_AND_SSE41_IN_ECX_OF_1 == SSSE3_AND_SSE41_IN_ECX_OF_1
            && __cpuid_count(7, 0).ebx & SHA_IN_EBX_OF_7 != 0
    }

    /// What `detect` said. A virtual machine leaves the processor for each CPUID.
    fn are_present() -> bool {
        static PRESENT: AtomicU8 = AtomicU8::new(UNKNOWN);
        const UNKNOWN: u8 = 2;
        if PRESENT.load(Ordering::Relaxed) == UNKNOWN {
            PRESENT.store(detect().into(), Ordering::Relaxed);
        }
        PRESENT.load(Ordering::Relaxed) == true.into()
    }

    /// None without the instructions, so they are there when its `compress` is called.
    pub fn chain(state: State, bytes: u64) -> Option<Chain> {
        are_present().then(|| Chain::new(state, bytes, compress_chain))
    }

    fn compress_chain(state: &mut State, blocks: &[Block]) {
        // SAFETY: the processor has the features, or `chain` would have made no `Chain`.
        unsafe { compress(state, blocks) }
    }

    /// Takes from all lanes that are at the start of a block as many whole blocks as each of them
    /// has. False if fewer than two have any.
    pub fn update_side_by_side(lanes: &mut [(super::Sha1, &[u8])]) -> bool {
        let mut ready: Vec<(&mut Chain, &mut &[u8])> = Vec::with_capacity(LANES);
        for (hash, bytes) in lanes {
            if let Engine::Instructions(hash) = &mut hash.0
                && hash.partial_bytes() == 0
                && bytes.len() >= BLOCK_BYTES
            {
                ready.push((hash, bytes));
            }
        }
        let shortest = ready.iter().map(|(_, bytes)| bytes.len()).min();
        let shared = shortest.unwrap_or(0) & !(BLOCK_BYTES - 1);
        // A lane that is not needed repeats the first one, and its result is not used.
        let mut states = [INITIAL; LANES];
        let mut blocks: [&[Block]; LANES] = [&[]; LANES];
        for lane in 0..LANES {
            let Some((hash, bytes)) = ready.get(lane).or(ready.first()) else {
                return false;
            };
            (states[lane], blocks[lane]) = (hash.state, bytes[..shared].as_chunks().0);
        }
        if ready.len() < 2 {
            return false;
        }
        // SAFETY: the processor has the features, or `chain` would have made no `Chain`.
        unsafe {
            match ready.len() {
                2 => compress_two(&mut states, blocks),
                _ => compress_four(&mut states, blocks),
            }
        }
        for ((hash, bytes), state) in ready.into_iter().zip(states) {
            hash.state = state;
            hash.total_bytes += shared as u64;
            *bytes = &bytes[shared..];
        }
        true
    }

    /// One message being hashed, in registers.
    struct Lane {
        /// The instructions keep A in the highest lane, and E in the highest lane of a register of
        /// its own.
        abcd: __m128i,
        e: __m128i,
        /// Sixteen words of the message schedule.
        words: [__m128i; 4],
    }

    /// Four rounds of each lane with the words at `$now`. `sha1rnds4` does the rounds, and
    /// `sha1nexte` derives E from the state before the last four. The state before these rounds is
    /// left in `e`, where the next four take it from.
    macro_rules! rounds {
        ($function:literal, $now:literal, $($lane:ident)+) => {$(
            let e = _mm_sha1nexte_epu32($lane.e, $lane.words[$now]);
            $lane.e = $lane.abcd;
            $lane.abcd = _mm_sha1rnds4_epu32($lane.abcd, e, $function);
        )+};
    }

    /// The next four words of each schedule replace the oldest ones, which are those at `$now`.
    /// Then four rounds with them.
    macro_rules! schedule_and_rounds {
        ($function:literal, $now:literal, $($lane:ident)+) => {
            $(
                let words = &mut $lane.words;
                let mixed = _mm_sha1msg1_epu32(words[$now], words[($now + 1) % 4]);
                let mixed = _mm_xor_si128(mixed, words[($now + 2) % 4]);
                words[$now] = _mm_sha1msg2_epu32(mixed, words[($now + 3) % 4]);
            )+
            rounds!($function, $now, $($lane)+);
        };
    }

    /// The 80 rounds over one block of each lane, four at a time. It is a macro so that the state
    /// stays in registers.
    macro_rules! block {
        ($($lane:ident $bytes:ident)+) => {
            $(
                $lane.words = load($bytes);
                let $bytes = ($lane.abcd, $lane.e);
                // The first E is added as it is. From then on `sha1nexte` makes it by rotating an
                // earlier A.
                let first = _mm_add_epi32($lane.e, $lane.words[0]);
                $lane.e = $lane.abcd;
                $lane.abcd = _mm_sha1rnds4_epu32($lane.abcd, first, 0);
            )+
            rounds!(0, 1, $($lane)+);
            rounds!(0, 2, $($lane)+);
            rounds!(0, 3, $($lane)+);
            schedule_and_rounds!(0, 0, $($lane)+);

            schedule_and_rounds!(1, 1, $($lane)+);
            schedule_and_rounds!(1, 2, $($lane)+);
            schedule_and_rounds!(1, 3, $($lane)+);
            schedule_and_rounds!(1, 0, $($lane)+);
            schedule_and_rounds!(1, 1, $($lane)+);

            schedule_and_rounds!(2, 2, $($lane)+);
            schedule_and_rounds!(2, 3, $($lane)+);
            schedule_and_rounds!(2, 0, $($lane)+);
            schedule_and_rounds!(2, 1, $($lane)+);
            schedule_and_rounds!(2, 2, $($lane)+);

            schedule_and_rounds!(3, 3, $($lane)+);
            schedule_and_rounds!(3, 0, $($lane)+);
            schedule_and_rounds!(3, 1, $($lane)+);
            schedule_and_rounds!(3, 2, $($lane)+);
            schedule_and_rounds!(3, 3, $($lane)+);
            $(
                $lane.abcd = _mm_add_epi32($lane.abcd, $bytes.0);
                $lane.e = _mm_sha1nexte_epu32($lane.e, $bytes.1);
            )+
        };
    }

    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn compress(state: &mut State, blocks: &[Block]) {
        let mut lane = begin(state);
        for bytes in blocks {
            block!(lane bytes);
        }
        *state = end(&lane);
    }

    /// As `compress` on the first two. Every `sha1rnds4` waits for the result of the one before it;
    /// meanwhile the processor has time for those of other lanes.
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn compress_two(states: &mut [State; LANES], blocks: [&[Block]; LANES]) {
        let [mut a, mut b] = [begin(&states[0]), begin(&states[1])];
        for (in_a, in_b) in blocks[0].iter().zip(blocks[1]) {
            block!(a in_a b in_b);
        }
        (states[0], states[1]) = (end(&a), end(&b));
    }

    /// As `compress` on each. Some words of the schedules do not fit into the registers, which
    /// costs less than the time that it fills.
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn compress_four(states: &mut [State; LANES], blocks: [&[Block]; LANES]) {
        let [mut a, mut b] = [begin(&states[0]), begin(&states[1])];
        let [mut c, mut d] = [begin(&states[2]), begin(&states[3])];
        let pairs = blocks[2].iter().zip(blocks[3]);
        for ((in_a, in_b), (in_c, in_d)) in blocks[0].iter().zip(blocks[1]).zip(pairs) {
            block!(a in_a b in_b c in_c d in_d);
        }
        *states = [end(&a), end(&b), end(&c), end(&d)];
    }

    #[target_feature(enable = "sse2")]
    fn begin(state: &State) -> Lane {
        let [a, b, c, d, e] = state.map(|word| word as i32);
        let zeros = _mm_setzero_si128();
        Lane {
            abcd: _mm_set_epi32(a, b, c, d),
            e: _mm_set_epi32(e, 0, 0, 0),
            words: [zeros; 4],
        }
    }

    #[target_feature(enable = "sse4.1")]
    fn end(lane: &Lane) -> State {
        let words = [
            _mm_extract_epi32(lane.abcd, 3),
            _mm_extract_epi32(lane.abcd, 2),
            _mm_extract_epi32(lane.abcd, 1),
            _mm_extract_epi32(lane.abcd, 0),
            _mm_extract_epi32(lane.e, 3),
        ];
        words.map(|word| word as u32)
    }

    /// The sixteen words of a block, big-endian, the first word of each four in the highest lane.
    #[target_feature(enable = "ssse3")]
    fn load(block: &Block) -> [__m128i; 4] {
        let reverse = _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f);
        let four = |at: usize| {
            let words = block[at..][..16].as_ptr();
            // SAFETY: sixteen bytes of the slice just taken; the load may be unaligned.
            let words = unsafe { _mm_loadu_si128(words.cast()) };
            _mm_shuffle_epi8(words, reverse)
        };
        // No loop, which would keep the words in memory.
        [four(0), four(16), four(32), four(48)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_proto::rng::Rng;

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

    /// FIPS 180 examples (csrc.nist.gov, SHA1.pdf and SHA_All.pdf), the empty input, and a million
    /// times 'a'.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn instructions_are_detected_as_std_does() {
        let expected = is_x86_feature_detected!("sha")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1");
        assert_eq!(instructions::detect(), expected);
    }

    #[test]
    fn known_digests() {
        assert_eq!(hex(both(&[])), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        assert_eq!(
            hex(both(&[b"abc"])),
            "a9993e364706816aba3e25717850c26c9cd0d89d"
        );
        let two_blocks = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(
            hex(both(&[two_blocks])),
            "84983e441c3bd26ebaae4aa1f95129e5e54670f1"
        );
        let long = b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn\
              hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu";
        assert_eq!(
            hex(both(&[long])),
            "a49b2446a02c645bf419f995b67091253a04a259"
        );
        let thousand = [b'a'; 1000];
        assert_eq!(
            hex(both(&[&thousand[..]; 1000])),
            "34aa973cd4c4daa4f61eeb2bdbad27316534016f"
        );
    }

    /// Every length around the block size, where the padding changes shape.
    #[test]
    fn every_short_length_is_the_same_in_both_engines() {
        let bytes: Vec<u8> = (0..300u32).map(|index| (index * 7) as u8).collect();
        for length in 0..bytes.len() {
            both(&[&bytes[..length]]);
        }
    }

    /// Random lengths in random parts: the two engines agree, and the cuts do not matter.
    #[test]
    fn the_cuts_between_updates_do_not_matter() {
        let mut rng = Rng::new(0x5eed);
        for round in 0..1000 {
            let bytes = random_bytes(&mut rng, 5000);
            let mut parts: Vec<&[u8]> = Vec::new();
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (head, tail) = rest.split_at((rng.below(200) as usize).min(rest.len()));
                parts.push(head);
                rest = tail;
            }
            assert_eq!(both(&parts), both(&[&bytes]), "round {round}");
        }
    }

    /// With any state in the middle, by the SHA instructions and by the plain engine.
    #[test]
    fn a_hash_goes_on_from_a_state() {
        type Make = fn(State, u64) -> Sha1;
        let plain: Make =
            |state, bytes| Sha1(Engine::Chain(Chain::new(state, bytes, chain::compress)));
        let mut rng = Rng::new(0x5eed);
        for round in 0..500 {
            let bytes = random_bytes(&mut rng, 3000);
            let cut = rng.below(bytes.len() as u32 / 64 + 1) as usize * 64;
            let expected = sha1_smol::Sha1::from(&bytes).digest().bytes();
            for new in [Sha1::chained as Make, plain] {
                let mut before = new(INITIAL, 0);
                before.update(&bytes[..cut]);
                let mut whole = before.clone();
                whole.update(&bytes[cut..]);
                assert_eq!(whole.finish(), expected, "round {round}");
                let mut after = Sha1::resume(before.state().unwrap(), cut as u64);
                after.update(&bytes[cut..]);
                assert_eq!(after.finish(), expected, "round {round}, from byte {cut}");
            }
        }
    }

    /// For any lengths, any addresses, and any bytes that are left in the last block from before.
    #[test]
    fn several_at_once_are_one_after_the_other() {
        for new in [Sha1::new, Sha1::software] {
            let mut rng = Rng::new(0x5eed);
            for round in 0..2000 {
                let count = rng.below(LANES as u32 + 1) as usize;
                let mut hashes: Vec<Sha1> = (0..count).map(|_| new()).collect();
                let mut all = vec![Vec::new(); count];
                for _ in 0..rng.below(4) {
                    let bytes: Vec<_> = (0..count).map(|_| random_bytes(&mut rng, 1000)).collect();
                    let whole_blocks = rng.chance(1, 2);
                    let mut lanes = Vec::new();
                    for (hash, bytes) in hashes.into_iter().zip(&bytes) {
                        let start = rng.below(bytes.len() as u32 + 1) as usize;
                        let length = bytes.len() - start;
                        let length = if whole_blocks { length & !63 } else { length };
                        lanes.push((hash, &bytes[start..start + length]));
                    }
                    for (all, (_, part)) in all.iter_mut().zip(&lanes) {
                        all.extend_from_slice(part);
                    }
                    Sha1::update_all(&mut lanes);
                    hashes = lanes.into_iter().map(|(hash, _)| hash).collect();
                }
                for (hash, all) in hashes.into_iter().zip(all) {
                    let expected = sha1_smol::Sha1::from(&all).digest().bytes();
                    assert_eq!(hash.finish(), expected, "round {round}");
                }
            }
        }
    }

    fn random_bytes(rng: &mut Rng, bound: u32) -> Vec<u8> {
        (0..rng.below(bound))
            .map(|_| rng.below(256) as u8)
            .collect()
    }

    /// `cargo test --release --bin swarmdd speed -- --ignored --nocapture`
    #[test]
    #[ignore = "a measurement"]
    fn speed() {
        const BYTES: usize = 1 << 30;
        let block = vec![0x5a; 16 * 1024];
        let report = |name: &str, start: std::time::Instant| {
            println!(
                "{name}: {:.2} GB/s",
                BYTES as f64 / start.elapsed().as_secs_f64() / 1e9
            );
        };
        let chain = Sha1(Engine::Chain(Chain::new(INITIAL, 0, chain::compress)));
        let engines = [
            ("fast", Sha1::new()),
            ("software", Sha1::software()),
            ("chain", chain),
        ];
        for (name, mut hash) in engines {
            let start = std::time::Instant::now();
            (0..BYTES / block.len()).for_each(|_| hash.update(&block));
            std::hint::black_box(hash.finish());
            report(name, start);
        }
        for count in 1..=LANES {
            let mut lanes: Vec<_> = (0..count).map(|_| (Sha1::new(), &block[..])).collect();
            let start = std::time::Instant::now();
            for _ in 0..BYTES / block.len() / count {
                lanes.iter_mut().for_each(|lane| lane.1 = &block);
                Sha1::update_all(&mut lanes);
            }
            std::hint::black_box(lanes.remove(0).0.finish());
            report(&format!("{count} at once"), start);
        }
    }
}
