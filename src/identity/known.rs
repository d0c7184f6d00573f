//! Tokens already judged, by their hash, so that a token is judged once and not with each call.
//!
//! Bounded: two maps, a young and an old one. What is used moves to the young one; when that is full
//! it becomes the old one and the old one is dropped whole, so no insert ever searches for a victim.
//! An entry is good for one generation of the issuer's keys and for a span of time that ends with the
//! token at the latest.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};

use crate::clock::Timestamp;

/// Tokens remembered for one upstream.
pub const CAPACITY: usize = 10_000;

/// SHA-256 of a token: the token itself is not kept in memory longer than its call.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    pub fn of(token: &[u8]) -> Self {
        let hash = digest(&SHA256, token);
        Self(hash.as_ref().try_into().expect("SHA-256 is 32 bytes"))
    }
}

struct Entry<T> {
    verdict: T,
    generation: u64,
    /// A clock set back before the beginning does not make a verdict last longer.
    good: Range<Timestamp>,
}

impl<T> Entry<T> {
    fn is_good(&self, generation: u64, wall: Timestamp) -> bool {
        self.generation == generation && self.good.contains(&wall)
    }
}

struct Halves<T> {
    young: HashMap<TokenHash, Entry<T>>,
    old: HashMap<TokenHash, Entry<T>>,
}

/// What was found out about tokens: a `T` each.
pub struct KnownTokens<T> {
    halves: Mutex<Halves<T>>,
    half: usize,
}

impl<T: Clone> KnownTokens<T> {
    /// Never holds more than `capacity` tokens (2 at least).
    pub fn new(capacity: usize) -> Self {
        Self {
            halves: Mutex::new(Halves { young: HashMap::new(), old: HashMap::new() }),
            half: (capacity / 2).max(1),
        }
    }

    /// What is known of a token, when its keys are still those of `generation` and the span is not over.
    pub fn get(&self, hash: &TokenHash, generation: u64, wall: Timestamp) -> Option<T> {
        let mut halves = self.lock();
        if let Some(entry) = halves.young.get(hash) {
            return entry.is_good(generation, wall).then(|| entry.verdict.clone());
        }
        let entry = halves.old.remove(hash).filter(|entry| entry.is_good(generation, wall))?;
        let verdict = entry.verdict.clone();
        self.keep(halves, *hash, entry);
        Some(verdict)
    }

    /// Remembers a token that was judged with the keys of `generation`.
    pub fn insert(&self, hash: TokenHash, generation: u64, verdict: T, good: Range<Timestamp>) {
        self.keep(self.lock(), hash, Entry { verdict, generation, good });
    }

    fn keep(&self, mut halves: MutexGuard<'_, Halves<T>>, hash: TokenHash, entry: Entry<T>) {
        let mut dropped = HashMap::new();
        if halves.young.len() >= self.half && !halves.young.contains_key(&hash) {
            let full = std::mem::take(&mut halves.young);
            dropped = std::mem::replace(&mut halves.old, full);
        }
        halves.young.insert(hash, entry);
        // Thousands of entries are freed without holding up other calls.
        drop(halves);
        drop(dropped);
    }

    fn lock(&self) -> MutexGuard<'_, Halves<T>> {
        self.halves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        let halves = self.lock();
        halves.young.len() + halves.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: Range<Timestamp> = Timestamp(0)..Timestamp(1_000);

    fn hash(number: u32) -> TokenHash {
        TokenHash::of(&number.to_be_bytes())
    }

    #[test]
    fn a_token_is_known_until_it_expires() {
        let known = KnownTokens::<String>::new(10);
        known.insert(hash(1), 0, "john".to_owned(), GOOD);
        assert_eq!(known.get(&hash(1), 0, Timestamp(999)).unwrap(), "john");
        assert!(known.get(&hash(1), 0, Timestamp(1_000)).is_none());
        assert!(known.get(&hash(1), 0, Timestamp(-1)).is_none(), "the clock was set back");
    }

    #[test]
    fn a_token_is_forgotten_with_the_keys_it_was_verified_with() {
        let known = KnownTokens::<String>::new(10);
        known.insert(hash(1), 0, "john".to_owned(), GOOD);
        assert!(known.get(&hash(1), 1, Timestamp(0)).is_none());
        known.insert(hash(1), 1, "john".to_owned(), GOOD);
        assert!(known.get(&hash(1), 1, Timestamp(0)).is_some());
    }

    #[test]
    fn a_token_in_use_outlives_any_number_of_others() {
        let known = KnownTokens::<String>::new(10);
        known.insert(hash(0), 0, "busy".to_owned(), GOOD);
        for number in 1..1_000 {
            known.insert(hash(number), 0, "passing".to_owned(), GOOD);
            assert!(known.get(&hash(0), 0, Timestamp(0)).is_some(), "gone after {number}");
        }
    }

    proptest! {
        #[test]
        fn the_bound_holds_and_answers_are_never_of_another_token(
            capacity in 2usize..20,
            steps in proptest::collection::vec((any::<bool>(), 0u32..40), 0..200),
        ) {
            let known = KnownTokens::<String>::new(capacity);
            for (insert, number) in steps {
                if insert {
                    known.insert(hash(number), 0, number.to_string(), GOOD);
                    prop_assert!(known.get(&hash(number), 0, Timestamp(0)).is_some());
                } else if let Some(found) = known.get(&hash(number), 0, Timestamp(0)) {
                    prop_assert_eq!(found, number.to_string());
                }
                prop_assert!(known.len() <= capacity);
            }
        }
    }
}
