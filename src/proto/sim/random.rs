//! How long does a random delay take?

use core::time::Duration;

use crate::rng::Rng;

/// A random duration from zero to `max`, both included.
pub fn random_up_to(max: Duration, rng: &mut Rng) -> Duration {
    let micros = u32::try_from(max.as_micros()).expect("a random delay is at most an hour");
    Duration::from_micros(u64::from(rng.below(micros.saturating_add(1).max(1))))
}
