//! Where do random numbers come from? From a seed, so that the same seed gives the same run, byte
//! for byte.
//!
//! This is xoshiro256** by Blackman and Vigna. Its state is filled by splitmix64, as its authors
//! advise (<https://prng.di.unimi.it/>). It is good for choices but not for secrets, and the core
//! has no secrets.

/// A stream of pseudo-random numbers. A clone gives the same numbers from here on.
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    pub fn new(seed: u64) -> Rng {
        let mut counter = seed;
        Rng {
            state: core::array::from_fn(|_| splitmix64(&mut counter)),
        }
    }

    pub fn next_u64(&mut self) -> u64 {
        let [s0, s1, s2, s3] = &mut self.state;
        let result = s1.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *s1 << 17;
        *s2 ^= *s0;
        *s3 ^= *s1;
        *s1 ^= *s2;
        *s0 ^= *s3;
        *s2 ^= shifted;
        *s3 = s3.rotate_left(45);
        result
    }

    /// A number from `0..bound`, by multiply and shift (Lemire). 64 random bits make at most 32
    /// bits of result, so no value is preferred by more than one part in 2^32.
    pub fn below(&mut self, bound: u32) -> u32 {
        assert!(bound > 0, "a number below 0 was asked for");
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u32
    }

    /// True with a probability of `numerator / denominator`.
    pub fn chance(&mut self, numerator: u32, denominator: u32) -> bool {
        self.below(denominator) < numerator
    }

    /// Puts the items in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let bound = u32::try_from(last + 1).expect("a list is shorter than 2^32 items");
            items.swap(last, self.below(bound) as usize);
        }
    }
}

fn splitmix64(counter: &mut u64) -> u64 {
    *counter = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *counter;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix64_gives_the_reference_vector() {
        let mut counter = 1234567;
        let expected = [
            6457827717110365317,
            3203168211198807973,
            9817491932198370423,
            4593380528125082431,
            16408922859458223821,
        ];
        assert_eq!(expected.map(|_| splitmix64(&mut counter)), expected);
    }

    #[test]
    fn xoshiro256starstar_gives_the_reference_vector() {
        let mut rng = Rng {
            state: [1, 2, 3, 4],
        };
        let expected = [
            11520,
            0,
            1509978240,
            1215971899390074240,
            1216172134540287360,
            607988272756665600,
            16172922978634559625,
            8476171486693032832,
            10595114339597558777,
            2904607092377533576,
        ];
        assert_eq!(expected.map(|_| rng.next_u64()), expected);
    }

    #[test]
    fn same_seed_same_numbers() {
        let (mut one, mut other) = (Rng::new(7), Rng::new(7));
        assert!((0..1000).all(|_| one.next_u64() == other.next_u64()));
        assert_ne!(Rng::new(7).next_u64(), Rng::new(8).next_u64());
    }

    #[test]
    fn below_gives_every_number_under_its_bound() {
        let mut rng = Rng::new(1);
        let mut seen = [0u32; 6];
        (0..60_000).for_each(|_| seen[rng.below(6) as usize] += 1);
        assert!(
            seen.iter().all(|&count| (9_500..10_500).contains(&count)),
            "{seen:?}"
        );
        assert!((0..100).all(|_| rng.below(1) == 0));
        assert!((0..100).any(|_| rng.below(u32::MAX) > u32::MAX / 2));
    }

    #[test]
    fn chance_has_the_given_probability() {
        let mut rng = Rng::new(2);
        let hits = (0..10_000).filter(|_| rng.chance(1, 4)).count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
        assert!((0..100).all(|_| rng.chance(3, 3) && !rng.chance(0, 3)));
    }

    #[test]
    fn shuffle_keeps_every_item_and_reaches_every_order() {
        let mut rng = Rng::new(3);
        let mut orders = std::collections::BTreeMap::new();
        for _ in 0..6_000 {
            let mut items = [0, 1, 2];
            rng.shuffle(&mut items);
            *orders.entry(items).or_insert(0) += 1;
        }
        assert_eq!(orders.len(), 6);
        assert!(
            orders.values().all(|&count| (850..1_150).contains(&count)),
            "{orders:?}"
        );
        rng.shuffle::<u8>(&mut []);
    }
}
