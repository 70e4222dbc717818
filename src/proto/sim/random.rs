//! How long does something random take?

use core::time::Duration;

use crate::rng::Rng;

/// Anything from nothing to all of it.
pub fn random_part(whole: Duration, rng: &mut Rng) -> Duration {
    let micros = u32::try_from(whole.as_micros()).expect("over an hour is no latency");
    Duration::from_micros(u64::from(rng.below(micros.saturating_add(1).max(1))))
}
