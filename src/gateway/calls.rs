//! How many calls are in progress, in all and with each credential.
//!
//! A connection of HTTP/2 carries many calls, so a limit on connections is none on calls. A call counts
//! from its head to the last byte of its answer. Calls without a credential count only in all.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::refusal::Refusal;

/// The calls of one node.
pub struct Calls {
    most: usize,
    most_of_one: usize,
    /// Secret to this process: nobody can choose a credential that shares another's count.
    hasher: RandomState,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    all: usize,
    by_credential: HashMap<u64, usize>,
}

/// The place of one call; given back when dropped.
pub struct InProgress {
    calls: Arc<Calls>,
    credential: Option<u64>,
}

impl Calls {
    #[must_use]
    pub fn new(most: usize, most_of_one: usize) -> Arc<Self> {
        Arc::new(Self { most, most_of_one, hasher: RandomState::new(), counts: Mutex::default() })
    }

    /// Takes a place for a call with this credential.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] or [`Refusal::TooManyCalls`]: there is none.
    pub fn begin(self: &Arc<Self>, credential: Option<&[u8]>) -> Result<InProgress, Refusal> {
        let credential = credential.map(|credential| self.hasher.hash_one(credential));
        let mut counts = self.counts();
        if counts.all >= self.most {
            return Err(Refusal::Overloaded);
        }
        if let Some(credential) = credential {
            let count = counts.by_credential.entry(credential).or_default();
            if *count >= self.most_of_one {
                return Err(Refusal::TooManyCalls);
            }
            *count += 1;
        }
        counts.all += 1;
        Ok(InProgress { calls: Arc::clone(self), credential })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let mut counts = self.calls.counts();
        counts.all -= 1;
        if let Some(credential) = self.credential
            && let Entry::Occupied(mut entry) = counts.by_credential.entry(credential)
        {
            *entry.get_mut() -= 1;
            // Only credentials in use take memory.
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(calls: &Arc<Calls>, credential: Option<&[u8]>) -> Option<&'static str> {
        calls.begin(credential).err().map(|refusal| refusal.code())
    }

    #[test]
    fn one_credential_is_limited_before_the_node_is() {
        let calls = Calls::new(3, 2);
        let first = calls.begin(Some(b"a")).ok().unwrap();
        let _second = calls.begin(Some(b"a")).ok().unwrap();
        assert_eq!(refused(&calls, Some(b"a")), Some("too_many_calls"));
        let _third = calls.begin(Some(b"b")).ok().unwrap();
        assert_eq!(refused(&calls, Some(b"c")), Some("overloaded"));
        assert_eq!(refused(&calls, None), Some("overloaded"));
        drop(first);
        assert_eq!(refused(&calls, Some(b"a")), None);
    }

    #[test]
    fn what_is_over_takes_no_memory() {
        let calls = Calls::new(10, 10);
        for number in 0u8..100 {
            drop(calls.begin(Some(&[number])));
        }
        assert!(calls.counts().by_credential.is_empty());
        assert_eq!(calls.counts().all, 0);
    }
}
