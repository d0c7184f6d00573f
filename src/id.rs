//! Task ids: version 7 UUIDs (RFC 9562) whose time-ordered bits are also the store's key.
//!
//! Layout, from the top: 48 bits of milliseconds, version 7, `rand_a` = 12 bits of shard number
//! (0 today), variant, 14 bits of counter, 48 random bits. The key is milliseconds and counter, so
//! a task is found without an index on its id; the random bits are compared after the read.

use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;

use uuid::Uuid;

use crate::clock::Timestamp;

const COUNTER_BITS: u32 = 14;
const RANDOM_BITS: u32 = 48;

/// A task's public name. Prints as a lower-case UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TaskId(Uuid);

impl TaskId {
    /// The store's key of this task; positive, ordered by acceptance.
    #[must_use]
    pub fn seq(self) -> Seq {
        let bits = self.0.as_u128();
        let millis = bits >> 80;
        let counter = (bits >> RANDOM_BITS) & ((1 << COUNTER_BITS) - 1);
        Seq(i64::try_from((millis << COUNTER_BITS) | counter).unwrap_or(i64::MAX))
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// A text that is not a task id.
#[derive(Debug, thiserror::Error)]
#[error("not a task id")]
pub struct NotATaskId;

impl FromStr for TaskId {
    type Err = NotATaskId;

    /// Accepts the hyphenated form in either case and nothing else a UUID parser may know.
    fn from_str(text: &str) -> Result<Self, NotATaskId> {
        if text.len() != 36 {
            return Err(NotATaskId);
        }
        Uuid::try_parse(text).map(Self).map_err(|_| NotATaskId)
    }
}

/// Hashes keys that nobody outside chooses, so that collisions need not be feared.
pub type KeyHash = foldhash::fast::RandomState;

/// The store's key of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub i64);

impl Seq {
    /// The smallest key any task accepted at `at` or later can have.
    #[must_use]
    pub fn first_at(at: Timestamp) -> Self {
        Self(at.0.max(0) << COUNTER_BITS)
    }

    /// When the task was accepted, by the steady clock.
    #[must_use]
    pub fn accepted_at(self) -> Timestamp {
        Timestamp(self.0 >> COUNTER_BITS)
    }
}

/// Makes ids that never repeat a key, also when the clock stands still or goes back.
pub struct TaskIds {
    last: Mutex<i64>,
}

impl TaskIds {
    /// Ids continue after `last`, the highest key the store has seen.
    #[must_use]
    pub fn after(last: Seq) -> Self {
        Self { last: Mutex::new(last.0) }
    }

    /// A new id; only the low 48 bits of `random` are used.
    pub fn next(&self, now: Timestamp, random: u64) -> TaskId {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *last = Seq::first_at(now).0.max(*last + 1);
        let key = u128::try_from(*last).unwrap_or(0);
        let millis = key >> COUNTER_BITS;
        let counter = key & ((1 << COUNTER_BITS) - 1);
        let random = u128::from(random) & ((1 << RANDOM_BITS) - 1);
        TaskId(Uuid::from_u128((millis << 80) | (7 << 76) | (2 << 62) | (counter << RANDOM_BITS) | random))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_only_grow_whatever_the_clock_does(nows in proptest::collection::vec(0i64..1 << 45, 1..50)) {
            let ids = TaskIds::after(Seq(0));
            let mut last = Seq(0);
            for now in nows {
                let id = ids.next(Timestamp(now), u64::MAX);
                prop_assert!(id.seq() > last);
                prop_assert_eq!(id.to_string().parse::<TaskId>().unwrap(), id);
                last = id.seq();
            }
        }
    }

    #[test]
    fn an_id_is_a_version_7_uuid_of_shard_0() {
        let id = TaskIds::after(Seq(0)).next(Timestamp(1_700_000_000_000), 7);
        assert_eq!(id.0.get_version_num(), 7);
        assert_eq!(id.0.get_variant(), uuid::Variant::RFC4122);
        assert_eq!(&id.to_string()[14..18], "7000");
        assert_eq!(id.seq(), Seq::first_at(Timestamp(1_700_000_000_000)));
    }

    #[test]
    fn other_spellings_of_a_uuid_are_not_task_ids() {
        for text in [
            "",
            "x",
            "0192f0c0000070008000000000000001",
            "{0192f0c0-0000-7000-8000-000000000001}",
            "urn:uuid:0192f0c0-0000-7000-8000-000000000001",
        ] {
            assert!(text.parse::<TaskId>().is_err(), "{text}");
        }
    }
}
