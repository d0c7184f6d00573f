//! How often each key was seen. Bounded: the key that came first is forgotten first.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

pub(crate) struct Tally {
    keys_max: usize,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    times: HashMap<String, u32>,
    order: VecDeque<String>,
}

impl Tally {
    pub(crate) fn new(keys_max: usize) -> Self {
        Self { keys_max, seen: Mutex::new(Seen::default()) }
    }

    /// Counts `key` once more and says how often it has been seen, this time included.
    pub(crate) fn count(&self, key: String) -> u32 {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(times) = seen.times.get_mut(&key) {
            *times = times.saturating_add(1);
            return *times;
        }
        if seen.order.len() == self.keys_max
            && let Some(oldest) = seen.order.pop_front()
        {
            seen.times.remove(&oldest);
        }
        seen.order.push_back(key.clone());
        seen.times.insert(key, 1);
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_counted_apart_and_the_oldest_is_forgotten() {
        let tally = Tally::new(2);
        assert_eq!(tally.count("a".into()), 1);
        assert_eq!(tally.count("a".into()), 2);
        assert_eq!(tally.count("b".into()), 1);
        assert_eq!(tally.count("c".into()), 1);
        assert_eq!(tally.count("b".into()), 2);
        assert_eq!(tally.count("a".into()), 1, "a made room for c");
    }
}
