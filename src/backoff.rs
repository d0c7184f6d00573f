//! How long to wait before trying again. Shared by attempts and deliveries.
//!
//! Owns the schedule's arithmetic and nothing else: randomness comes in as a number.

use std::time::Duration;

/// A schedule: one delay a retry, each moved by up to `jitter` of itself, either way.
#[derive(Clone, Debug)]
pub struct Backoff {
    delays: Vec<Duration>,
    jitter: f64,
}

impl Backoff {
    /// `jitter` is a fraction in `0.0..=1.0`; values outside are clamped into it.
    #[must_use]
    pub fn new(delays: Vec<Duration>, jitter: f64) -> Self {
        Self { delays, jitter: if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 0.0 } }
    }

    /// The wait before retry `retry` (from 1), or `None` when the schedule has no such retry.
    /// `chance` in `0.0..1.0` places it between the shortest and the longest wait.
    #[must_use]
    pub fn delay(&self, retry: u32, chance: f64) -> Option<Duration> {
        let base = *self.delays.get(usize::try_from(retry.checked_sub(1)?).ok()?)?;
        Some(base.mul_f64(1.0 + self.jitter * (2.0 * chance.clamp(0.0, 1.0) - 1.0)))
    }

    #[must_use]
    pub fn jitter(&self) -> f64 {
        self.jitter
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_delay_stays_within_its_jitter(ms in 0u64..100_000_000, jitter in 0.0f64..=1.0, chance in 0.0f64..1.0) {
            let base = Duration::from_millis(ms);
            let delay = Backoff::new(vec![base], jitter).delay(1, chance).unwrap();
            prop_assert!(delay >= base.mul_f64((1.0 - jitter).max(0.0)).saturating_sub(Duration::from_micros(1)));
            prop_assert!(delay <= base.mul_f64(1.0 + jitter) + Duration::from_micros(1));
        }

        #[test]
        fn a_schedule_has_exactly_as_many_retries_as_delays(count in 0usize..9, retry in 0u32..20) {
            let backoff = Backoff::new(vec![Duration::from_secs(1); count], 0.25);
            prop_assert_eq!(backoff.delay(retry, 0.5).is_some(), retry >= 1 && retry as usize <= count);
        }
    }
}
