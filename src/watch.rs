//! Wakes whoever waits for a task to change.
//!
//! A registry in memory: a waiter registers, then reads the store, then waits. Whoever has written a
//! change tells it. The lock both sides take makes sure that a change is either seen by that read or
//! told to the waiter, so nobody polls. Invariants: tasks nobody waits for cost one short lock a
//! change and no memory; a change wakes the waiters of its task and no others; there are never more
//! waiters than the limit.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::id::Seq;
use crate::task::Progress;

/// Tasks in different shards do not meet.
const SHARDS: i64 = 16;

/// Changes a slow waiter can fall behind before the oldest are lost to it: more than a task with the
/// most retries has.
const KEPT: usize = 64;

/// Tasks and how many wait for each.
type Shard = Mutex<HashMap<Seq, (usize, Arc<Watched>)>>;

/// Everybody who waits.
pub struct Watches {
    shards: Vec<Shard>,
    waiters: AtomicUsize,
    limit: usize,
}

/// A task somebody waits for.
#[derive(Default)]
struct Watched {
    told: Mutex<Told>,
    changed: Notify,
}

/// What was told since the first waiter came.
#[derive(Default)]
struct Told {
    /// Changes no longer kept.
    lost: usize,
    kept: Vec<Progress>,
}

/// One who waits for one task. Hears every change told after it was made.
pub struct Waiter {
    watches: Arc<Watches>,
    watched: Arc<Watched>,
    seq: Seq,
    /// Changes heard.
    heard: usize,
}

impl Watches {
    /// At most `limit` waiters at once.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), waiters: AtomicUsize::new(0), limit }
    }

    /// Registers a waiter; `None` when there are as many as there may be. Read the task's state
    /// afterwards, never before.
    #[must_use]
    pub fn wait_for(self: &Arc<Self>, seq: Seq) -> Option<Waiter> {
        let more = |waiters: usize| (waiters < self.limit).then_some(waiters + 1);
        self.waiters.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        let watched = {
            let mut shard = lock(self.shard(seq));
            let (waiters, watched) = shard.entry(seq).or_default();
            *waiters += 1;
            Arc::clone(watched)
        };
        let heard = lock(&watched.told).count();
        Some(Waiter { watches: Arc::clone(self), watched, seq, heard })
    }

    /// Says that a task has changed. Call it once the change is where a reader finds it.
    pub fn tell(&self, seq: Seq, progress: Progress) {
        let watched = lock(self.shard(seq)).get(&seq).map(|(_, watched)| Arc::clone(watched));
        let Some(watched) = watched else { return };
        lock(&watched.told).add(progress);
        watched.changed.notify_waiters();
    }

    fn shard(&self, seq: Seq) -> &Shard {
        // The low bits of a key are a counter: neighbours in time are in different shards.
        &self.shards[usize::try_from(seq.0.rem_euclid(SHARDS)).unwrap_or(0)]
    }

    #[cfg(test)]
    fn tasks(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }
}

impl Told {
    fn count(&self) -> usize {
        self.lost + self.kept.len()
    }

    /// The change after so many heard ones, and how many are heard with it.
    fn after(&self, heard: usize) -> Option<(Progress, usize)> {
        let next = heard.max(self.lost);
        self.kept.get(next - self.lost).map(|progress| (*progress, next + 1))
    }

    fn add(&mut self, progress: Progress) {
        if self.kept.len() == KEPT {
            self.kept.remove(0);
            self.lost += 1;
        }
        self.kept.push(progress);
    }
}

impl Waiter {
    /// The next change, waiting for one. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Progress {
        loop {
            // Made before looking: what is told in between wakes it.
            let changed = self.watched.changed.notified();
            let news = lock(&self.watched.told).after(self.heard);
            if let Some((progress, heard)) = news {
                self.heard = heard;
                return progress;
            }
            changed.await;
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.watches.waiters.fetch_sub(1, Ordering::Relaxed);
        let mut shard = lock(self.watches.shard(self.seq));
        if let Entry::Occupied(mut entry) = shard.entry(self.seq) {
            entry.get_mut().0 -= 1;
            if entry.get().0 == 0 {
                entry.remove();
            }
        }
        let much_too_large = shard.capacity() > 64 && shard.len() < shard.capacity() / 8;
        if much_too_large {
            shard.shrink_to_fit();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::task::FinalStatus;
    use futures_util::FutureExt;

    fn watches(limit: usize) -> Arc<Watches> {
        Arc::new(Watches::new(limit))
    }

    fn ended() -> Progress {
        Progress::ended(FinalStatus::Succeeded, 1)
    }

    #[test]
    fn a_waiter_hears_every_change_of_its_task_in_order_and_none_of_others() {
        let watches = watches(10);
        let mut waiter = watches.wait_for(Seq(1)).unwrap();
        watches.tell(Seq(2), ended());
        watches.tell(Seq(1 + SHARDS), ended());
        assert_eq!(waiter.next().now_or_never(), None);
        let story = [Progress::running(1), Progress::queued(1, Timestamp(5)), Progress::running(2), ended()];
        for progress in story {
            watches.tell(Seq(1), progress);
        }
        for progress in story {
            assert_eq!(waiter.next().now_or_never(), Some(progress));
        }
        assert_eq!(waiter.next().now_or_never(), None);
    }

    #[test]
    fn what_was_told_before_a_waiter_came_is_not_news_to_it() {
        let watches = watches(10);
        let mut first = watches.wait_for(Seq(1)).unwrap();
        watches.tell(Seq(1), Progress::running(1));
        let mut second = watches.wait_for(Seq(1)).unwrap();
        watches.tell(Seq(1), ended());
        assert_eq!(second.next().now_or_never(), Some(ended()));
        assert_eq!(first.next().now_or_never(), Some(Progress::running(1)));
    }

    #[test]
    fn a_waiter_far_behind_loses_the_oldest_changes_and_nothing_grows() {
        let watches = watches(10);
        let mut waiter = watches.wait_for(Seq(1)).unwrap();
        for attempt in 1..=1_000 {
            watches.tell(Seq(1), Progress::running(attempt));
        }
        let heard: Vec<_> = std::iter::from_fn(|| waiter.next().now_or_never()).collect();
        assert_eq!(heard.len(), KEPT);
        assert_eq!(heard.last(), Some(&Progress::running(1_000)));
    }

    #[test]
    fn nobody_is_left_behind_by_waiters_that_went_away() {
        let watches = watches(2);
        let first = watches.wait_for(Seq(1)).unwrap();
        let second = watches.wait_for(Seq(1)).unwrap();
        assert!(watches.wait_for(Seq(2)).is_none(), "one above the limit");
        drop(first);
        assert_eq!(watches.tasks(), 1);
        drop(second);
        assert_eq!(watches.tasks(), 0);
        assert!(watches.wait_for(Seq(2)).is_some());
    }

    #[tokio::test]
    async fn a_change_wakes_all_who_wait_for_its_task() {
        let watches = watches(1_000);
        let waiting: Vec<_> = (0..100)
            .map(|_| {
                let mut waiter = watches.wait_for(Seq(7)).unwrap();
                tokio::spawn(async move { waiter.next().await })
            })
            .collect();
        tokio::task::yield_now().await;
        watches.tell(Seq(7), ended());
        for waiter in waiting {
            assert_eq!(waiter.await.unwrap(), ended());
        }
        assert_eq!(watches.tasks(), 0);
    }
}
