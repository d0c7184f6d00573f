//! How long an upstream's calls take of late, for telling a client when to ask again. Pure but for
//! one atomic number.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A new call moves the estimate by one part in so many.
const WEIGHT: u64 = 8;

/// The shortest and the longest pause a client is asked for, in seconds.
const PAUSE: std::ops::RangeInclusive<u64> = 1..=30;

/// A moving average over one upstream's attempts, in milliseconds plus one; 0 before the first.
#[derive(Default)]
pub struct Pace(AtomicU64);

impl Pace {
    /// An attempt took so long.
    pub fn took(&self, attempt: Duration) {
        let attempt = u64::try_from(attempt.as_millis()).unwrap_or(u64::MAX);
        // Two at once may lose one of them; an estimate does not mind.
        let known = self.0.load(Ordering::Relaxed).checked_sub(1);
        self.0.store(blend(known, attempt).saturating_add(1), Ordering::Relaxed);
    }

    /// Whole seconds to wait before asking for a task that may run after `until_due`.
    #[must_use]
    pub fn retry_after(&self, until_due: Duration) -> u64 {
        retry_after(self.0.load(Ordering::Relaxed).checked_sub(1), until_due)
    }
}

/// The estimate after one more attempt.
fn blend(known: Option<u64>, attempt: u64) -> u64 {
    let Some(known) = known else { return attempt };
    // The distance is rounded up, so that the estimate reaches a steady pace.
    let step = known.abs_diff(attempt).div_ceil(WEIGHT);
    if attempt > known { known + step } else { known - step }
}

fn retry_after(known: Option<u64>, until_due: Duration) -> u64 {
    let due = u64::try_from(until_due.as_millis()).unwrap_or(u64::MAX);
    let wait = due.saturating_add(known.unwrap_or(0)).div_ceil(1000);
    wait.clamp(*PAUSE.start(), *PAUSE.end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_client_is_asked_to_wait_about_as_long_as_calls_take() {
        let pace = Pace::default();
        assert_eq!(pace.retry_after(Duration::ZERO), 1);
        pace.took(Duration::from_millis(4_200));
        assert_eq!(pace.retry_after(Duration::ZERO), 5);
        assert_eq!(pace.retry_after(Duration::from_secs(2)), 7);
        assert_eq!(pace.retry_after(Duration::from_hours(1)), 30);
    }

    proptest! {
        #[test]
        fn the_pause_is_bounded_whatever_calls_took(took in proptest::collection::vec(any::<u64>(), 0..20), due in any::<u64>()) {
            let known = took.into_iter().fold(None, |known, attempt| Some(blend(known, attempt)));
            prop_assert!(PAUSE.contains(&retry_after(known, Duration::from_millis(due))));
        }

        #[test]
        fn the_estimate_stays_between_what_it_was_and_what_is_new(known: u64, attempt: u64) {
            let blended = blend(Some(known), attempt);
            prop_assert!((known.min(attempt)..=known.max(attempt)).contains(&blended));
            prop_assert!(known == attempt || blended != known);
        }

        #[test]
        fn the_estimate_arrives_at_a_steady_pace(first in 0u64..100_000, steady in 0u64..100_000) {
            let known = (0..200).fold(first, |known, _| blend(Some(known), steady));
            prop_assert_eq!(known, steady);
        }
    }
}
