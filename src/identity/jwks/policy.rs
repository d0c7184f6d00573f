//! What one look-up may do, given what is known and when. Pure.

use std::time::Duration;

use crate::clock::Timestamp;

/// The times that govern one issuer's keys.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Keys older than this are got again while they go on being used.
    pub max_age: Duration,
    /// Keys older than this are not used.
    pub hard_max_age: Duration,
    /// Least time between two fetches that look for a key nobody has seen.
    pub search_interval: Duration,
    /// How long an issuer that failed is left alone.
    pub backoff: Duration,
    /// Longest fetch.
    pub fetch_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_age: Duration::from_mins(5),
            hard_max_age: Duration::from_hours(24),
            search_interval: Duration::from_secs(10),
            backoff: Duration::from_secs(1),
            fetch_timeout: Duration::from_secs(5),
        }
    }
}

/// What is known at the moment of a look-up.
#[derive(Clone, Copy, Debug, Default)]
pub struct View {
    /// When the keys were got; `None` if never.
    pub fetched_at: Option<Timestamp>,
    /// Whether a fetch runs now.
    pub fetching: bool,
    /// When the latest fetch failed; `None` if it did not.
    pub failed_at: Option<Timestamp>,
    /// When an unknown key was last looked for with success or without it being there.
    pub searched_at: Option<Timestamp>,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Answer from the keys at hand.
    Use,
    /// The same, and start a fetch nobody waits for.
    UseAndRefresh,
    /// Start a fetch and wait for it.
    Fetch,
    /// Wait for the fetch that runs.
    Wait,
    /// Give up for now.
    Unavailable,
}

impl View {
    /// Whether the keys at hand are young enough to be trusted.
    pub fn is_usable(&self, limits: &Limits, now: Timestamp) -> bool {
        self.fetched_at.is_some_and(|at| now < at.after(limits.hard_max_age))
    }

    /// Decides for a token whose key is among the keys at hand (`present`) or is not.
    pub fn decide(&self, present: bool, limits: &Limits, now: Timestamp) -> Step {
        let over = |at: Option<Timestamp>, span| at.is_none_or(|at| is_over(at, span, now));
        let usable = self.is_usable(limits, now);
        let left_alone = !over(self.failed_at, limits.backoff);
        if usable && present {
            let refresh = over(self.fetched_at, limits.max_age) && !self.fetching && !left_alone;
            return if refresh { Step::UseAndRefresh } else { Step::Use };
        }
        if self.fetching {
            return Step::Wait;
        }
        if left_alone {
            return Step::Unavailable;
        }
        if usable && !over(self.searched_at, limits.search_interval) {
            return Step::Use;
        }
        Step::Fetch
    }

    /// Decides once more, after a fetch was waited for.
    pub fn decide_after_wait(&self, present: bool, limits: &Limits, now: Timestamp) -> Step {
        if self.is_usable(limits, now) && (present || self.failed_at.is_none()) {
            Step::Use
        } else {
            Step::Unavailable
        }
    }
}

/// Whether a span that began at `since` has ended. A beginning further ahead than the span is long
/// means that the clock was set back; then the span counts as over.
pub fn is_over(since: Timestamp, span: Duration, now: Timestamp) -> bool {
    u128::from(now.0.abs_diff(since.0)) >= span.as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AT: Timestamp = Timestamp(1_000_000_000);
    const FETCHED: View = View { fetched_at: Some(AT), fetching: false, failed_at: None, searched_at: None };

    fn decide(view: View, present: bool, after: Duration) -> Step {
        view.decide(present, &Limits::default(), AT.after(after))
    }

    #[test]
    fn keys_never_got_are_got_once_for_all() {
        assert_eq!(decide(View::default(), false, Duration::ZERO), Step::Fetch);
        let fetching = View { fetching: true, failed_at: Some(AT), ..View::default() };
        assert_eq!(decide(fetching, false, Duration::ZERO), Step::Wait);
    }

    #[test]
    fn an_issuer_that_failed_is_left_alone_for_a_second() {
        let failed = View { failed_at: Some(AT), ..View::default() };
        assert_eq!(decide(failed, false, Duration::from_millis(999)), Step::Unavailable);
        assert_eq!(decide(failed, false, Duration::from_secs(1)), Step::Fetch);
        let failed = View { failed_at: Some(AT), ..FETCHED };
        assert_eq!(decide(failed, false, Duration::from_millis(999)), Step::Unavailable);
        assert_eq!(decide(failed, true, Duration::from_millis(999)), Step::Use);
    }

    #[test]
    fn keys_at_hand_are_refreshed_after_five_minutes_without_a_wait() {
        assert_eq!(decide(FETCHED, true, Duration::from_secs(299)), Step::Use);
        assert_eq!(decide(FETCHED, true, Duration::from_mins(5)), Step::UseAndRefresh);
        let fetching = View { fetching: true, ..FETCHED };
        assert_eq!(decide(fetching, true, Duration::from_mins(5)), Step::Use);
    }

    #[test]
    fn keys_are_not_trusted_after_a_day() {
        let last = Duration::from_hours(24) - Duration::from_millis(1);
        assert_eq!(decide(FETCHED, true, last), Step::UseAndRefresh);
        assert_eq!(decide(FETCHED, true, Duration::from_hours(24)), Step::Fetch);
    }

    #[test]
    fn an_unknown_key_is_looked_for_every_ten_seconds() {
        assert_eq!(decide(FETCHED, false, Duration::ZERO), Step::Fetch);
        let searched = View { searched_at: Some(AT), ..FETCHED };
        assert_eq!(decide(searched, false, Duration::from_millis(9_999)), Step::Use);
        assert_eq!(decide(searched, false, Duration::from_secs(10)), Step::Fetch);
    }

    #[test]
    fn a_clock_set_back_refreshes_and_locks_nobody_out() {
        let ahead = View { fetched_at: Some(AT.after(Duration::from_hours(9_000))), ..FETCHED };
        assert_eq!(decide(ahead, true, Duration::ZERO), Step::UseAndRefresh);
        let failed = View { failed_at: Some(AT.after(Duration::from_hours(1))), ..View::default() };
        assert_eq!(decide(failed, false, Duration::ZERO), Step::Fetch);
    }

    #[test]
    fn a_caller_who_read_the_clock_just_before_a_failure_heeds_it() {
        let failed = View { failed_at: Some(AT.after(Duration::from_millis(3))), ..View::default() };
        assert_eq!(decide(failed, false, Duration::ZERO), Step::Unavailable);
    }

    #[test]
    fn after_a_failed_wait_an_unknown_key_is_no_fault_of_the_token() {
        let limits = Limits::default();
        let failed = View { failed_at: Some(AT), ..FETCHED };
        assert_eq!(failed.decide_after_wait(false, &limits, AT), Step::Unavailable);
        assert_eq!(failed.decide_after_wait(true, &limits, AT), Step::Use);
        assert_eq!(FETCHED.decide_after_wait(false, &limits, AT), Step::Use);
        assert_eq!(View::default().decide_after_wait(false, &limits, AT), Step::Unavailable);
    }

    fn times() -> impl Strategy<Value = Option<Timestamp>> {
        proptest::option::of((0i64..200_000_000).prop_map(Timestamp))
    }

    proptest! {
        #[test]
        fn a_known_key_never_waits_and_nothing_is_used_that_was_never_got(
            fetched_at in times(), failed_at in times(), searched_at in times(),
            fetching: bool, present: bool, now in (0i64..200_000_000).prop_map(Timestamp),
        ) {
            let view = View { fetched_at, fetching, failed_at, searched_at };
            let limits = Limits::default();
            let step = view.decide(present, &limits, now);
            if view.is_usable(&limits, now) && present {
                prop_assert!(matches!(step, Step::Use | Step::UseAndRefresh));
            }
            if !view.is_usable(&limits, now) {
                prop_assert!(matches!(step, Step::Fetch | Step::Wait | Step::Unavailable));
                prop_assert_eq!(view.decide_after_wait(present, &limits, now), Step::Unavailable);
            }
            if fetching {
                prop_assert!(!matches!(step, Step::Fetch | Step::UseAndRefresh), "a second fetch");
            }
        }
    }
}
