//! Time as a value.
//!
//! Two clocks, because they answer different questions. [`Clock::wall`] is the date the world
//! agrees on: what is written into webhooks, compared with a token's `exp`, and shown to people.
//! [`Clock::steady`] starts at the wall clock when the node first starts, goes on from there over all its
//! lives ([`goes_on_at`]), and only moves forward at the machine's own pace: every `due_at` and deadline is
//! in it, so that a wall clock that jumps by hours neither stalls nor storms retries. Pure code takes a
//! [`Timestamp`] as an argument.

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

    /// This clock as it goes on from an earlier life of the node. Where no mark was kept, its steady time is
    /// not before `newest`, when the newest task was accepted.
    #[must_use]
    pub fn going_on(self, from: Option<Mark>, newest: Timestamp) -> Self {
        Self { origin: goes_on_at(from, self.origin, newest), ..self }
    }

    /// Both clocks now.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { steady: self.steady(), wall: self.wall() }
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

/// Both clocks at one instant, for the next life of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub steady: Timestamp,
    pub wall: Timestamp,
}

impl Mark {
    /// How far the date is ahead of steady time; it changes when the wall clock is set.
    #[must_use]
    pub fn ahead(self) -> i64 {
        self.wall.0.saturating_sub(self.steady.0)
    }
}

/// Where steady time goes on after the mark, at the date `wall`: as much later as the date says. By how much
/// the wall clock was set before the mark does not matter then. A date before the mark says nothing; no
/// time has passed as far as anybody can know.
fn goes_on_at(mark: Option<Mark>, wall: Timestamp, newest: Timestamp) -> Timestamp {
    mark.map_or(wall.max(newest), |mark| mark.steady.after(mark.wall.until(wall)))
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
        /// However far the wall clock was set in one life, the next one goes on as much later as the node was
        /// down: nothing waits longer for it, and no deadline passes early.
        #[test]
        fn a_clock_that_was_set_in_one_life_changes_nothing_in_the_next(
            steady in 0i64..1 << 45,
            set in -(1i64 << 44)..1 << 44,
            down in 0i64..1 << 40,
        ) {
            let mark = Mark { steady: Timestamp(steady), wall: Timestamp(steady + set) };
            let wall = Timestamp(steady + set + down);
            prop_assert_eq!(goes_on_at(Some(mark), wall, Timestamp(0)), Timestamp(steady + down));
        }

        /// Set while the node is down, it looks like time that passed, or that did not.
        #[test]
        fn steady_time_never_goes_back_and_is_never_later_than_the_date_says(
            steady in 0i64..1 << 45,
            seen in 0i64..1 << 45,
            wall in 0i64..1 << 45,
            newest in 0i64..1 << 45,
        ) {
            let mark = Mark { steady: Timestamp(steady), wall: Timestamp(seen) };
            let clock = Clock { origin: Timestamp(wall), ..Clock::start() };
            let origin = clock.going_on(Some(mark), Timestamp(newest)).origin.0;
            prop_assert_eq!(origin, steady + (wall - seen).max(0));
            let first = clock.going_on(None, Timestamp(newest)).origin.0;
            prop_assert_eq!(first, wall.max(newest), "nothing but the date is known");
        }
    }
}
