//! Time as a value.
//!
//! Two clocks, because they answer different questions. [`Clock::wall`] is the date the world
//! agrees on: what is written into webhooks, compared with a token's `exp`, and shown to people.
//! [`Clock::steady`] starts at the wall clock when the node starts, or where the steady clock of the
//! node's last life had come to if that is later, and then only moves forward at the machine's own
//! pace: every `due_at` and deadline is in it, so that a wall clock that jumps by hours neither stalls
//! nor storms retries. Pure code takes a [`Timestamp`] as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Milliseconds since the Unix epoch, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub const MAX: Self = Self(i64::MAX);

    /// This instant moved later by `by`; saturates.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long until `later`; zero when it has passed.
    #[must_use]
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(u64::try_from(later.0.saturating_sub(self.0)).unwrap_or(0))
    }

    /// Whole seconds since the Unix epoch.
    #[must_use]
    pub fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// RFC 3339 in UTC with milliseconds, such as `2026-11-23T08:00:00.000Z`.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        jiff::Timestamp::from_millisecond(self.0)
            .map_or_else(|_| String::from("1970-01-01T00:00:00.000Z"), |at| format!("{at:.3}"))
    }
}

/// The node's clocks. Cheap to copy; every copy agrees.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Timestamp,
    start: Instant,
    wall: fn() -> Timestamp,
}

impl Clock {
    #[must_use]
    pub fn start() -> Self {
        Self::by(wall_now)
    }

    /// A node's clocks where somebody else says what the date is.
    #[must_use]
    pub fn by(wall: fn() -> Timestamp) -> Self {
        Self { origin: wall(), start: Instant::now(), wall }
    }

    /// This clock, its steady time not before `seen`: where an earlier life of the node had come to.
    #[must_use]
    pub fn not_before(self, seen: Timestamp) -> Self {
        Self { origin: self.origin.max(seen), ..self }
    }

    /// The date now. Can jump either way.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        (self.wall)()
    }

    /// Never goes back, not even from one life of the node to the next.
    #[must_use]
    pub fn steady(&self) -> Timestamp {
        self.origin.after(self.start.elapsed())
    }
}

fn wall_now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However far the wall clock was set back or ahead between two lives, what had so long to wait
        /// when the first one ended has no longer to wait when the second one begins.
        #[test]
        fn nothing_waits_longer_because_the_clock_was_set(
            seen in 0i64..1 << 45,
            waits in 0i64..1 << 40,
            jump in -(1i64 << 44)..1 << 44,
        ) {
            let due_at = Timestamp(seen + waits);
            let clock = Clock { origin: Timestamp((seen + jump).max(0)), ..Clock::start() };
            let resumed = clock.not_before(Timestamp(seen));
            prop_assert!(resumed.steady().until(due_at) <= Duration::from_millis(waits.unsigned_abs()));
            prop_assert!(resumed.steady() >= clock.origin, "time that has passed is not taken back");
        }
    }
}
