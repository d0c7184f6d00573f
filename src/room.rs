//! How much a store may hold, and how fast it is emptied. Pure.
//!
//! Three marks of one bound, in bytes in use: above the first the oldest finished tasks go, until no more
//! than the second is in use; above the bound itself nothing new is accepted. The marks are apart, so that
//! removing goes in long strides and accepting seldom meets the bound.

use std::time::Duration;

/// Removing begins above this many thousandths of the bound …
const BEGIN: u64 = 950;
/// … and ends at this many.
const END: u64 = 900;

/// The bound of a store and its marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    max: u64,
}

impl Room {
    /// `None` for 0: no bound.
    #[must_use]
    pub fn of(max_bytes: u64) -> Option<Self> {
        (max_bytes > 0).then_some(Self { max: max_bytes })
    }

    /// Nothing new may be accepted.
    #[must_use]
    pub fn is_full(self, in_use: u64) -> bool {
        in_use > self.max
    }

    /// It is time to remove something.
    #[must_use]
    pub fn is_crowded(self, in_use: u64) -> bool {
        in_use > self.thousandths(BEGIN)
    }

    /// Bytes in use at which removing ends.
    #[must_use]
    pub fn goal(self) -> u64 {
        self.thousandths(END)
    }

    fn thousandths(self, count: u64) -> u64 {
        let part = u128::from(self.max) * u128::from(count) / 1000;
        u64::try_from(part).unwrap_or(self.max)
    }
}

/// Rows of one removing transaction. Accepts wait while it runs, so it follows the time the rows take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stride(u64);

impl Stride {
    pub const MIN: u64 = 50;
    pub const MAX: u64 = 500;

    /// The rows of one transaction should not take longer than this.
    const LIMIT: Duration = Duration::from_millis(4);

    #[must_use]
    pub fn rows(self) -> u64 {
        self.0
    }

    /// The next one, after this one took `work`, syncing not counted.
    #[must_use]
    pub fn after(self, work: Duration) -> Self {
        let rows = if work > Self::LIMIT { self.0 / 2 } else { self.0 + self.0 / 4 };
        Self(rows.clamp(Self::MIN, Self::MAX))
    }
}

impl Default for Stride {
    fn default() -> Self {
        Self(Self::MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_bound_is_no_room_to_look_after() {
        assert_eq!(Room::of(0), None);
    }

    /// What removing does, as far as sizes go: from crowded on, strides until the goal.
    fn remove(room: Room, mut in_use: u64, strides: &[u64]) -> (u64, usize) {
        let mut transactions = 0;
        if room.is_crowded(in_use) {
            for stride in strides.iter().cycle().take(10_000) {
                if in_use <= room.goal() {
                    break;
                }
                in_use = in_use.saturating_sub(*stride);
                transactions += 1;
            }
        }
        (in_use, transactions)
    }

    proptest! {
        #[test]
        fn the_marks_stand_in_their_order(max in 1u64..) {
            let room = Room::of(max).unwrap();
            prop_assert!(room.goal() < max);
            prop_assert!(!room.is_full(max) && (max == u64::MAX || room.is_full(max + 1)));
            prop_assert!(!room.is_crowded(room.goal()), "who has arrived does not begin again");
            prop_assert!(room.is_crowded(max), "removing begins before accepting ends");
        }

        #[test]
        fn removing_goes_on_to_the_goal_and_then_rests(
            max in 1_000_000u64..1 << 50, over in 0u64..1000, strides in prop::collection::vec(1u64..1000, 1..20),
        ) {
            let room = Room::of(max).unwrap();
            let in_use = room.goal() + (max - room.goal()) / 1000 * over;
            // Strides of a thousandth of what is to go, at most.
            let strides: Vec<_> = strides.iter().map(|part| (max / 1_000_000).max(1) * part).collect();
            let (left, transactions) = remove(room, in_use, &strides);
            if transactions == 0 {
                prop_assert_eq!(left, in_use);
            } else if left <= room.goal() {
                prop_assert!(left + strides.iter().max().unwrap() > room.goal(), "not a stride too much");
            }
            prop_assert!(transactions == 0 || !room.is_crowded(left) || transactions == 10_000);
            prop_assert_eq!(remove(room, left, &strides).1 == 0, !room.is_crowded(left));
        }

        #[test]
        fn a_stride_stays_within_its_bounds_and_always_gets_somewhere(works in prop::collection::vec(0u64..100, 1..50)) {
            let mut stride = Stride::default();
            for work in works {
                let next = stride.after(Duration::from_millis(work));
                prop_assert!((Stride::MIN..=Stride::MAX).contains(&next.rows()));
                if work > 4 {
                    prop_assert!(next.rows() < stride.rows() || stride.rows() == Stride::MIN);
                } else {
                    prop_assert!(next.rows() > stride.rows() || stride.rows() == Stride::MAX);
                }
                stride = next;
            }
        }
    }
}
