//! Telling a worker that the task it holds was cancelled.
//!
//! A lease is lost the moment the cancelling commit is on disk, but its holder learns so only here. Work
//! under a lease is somewhere between the writer and an attempt in flight, so both orders are kept: a
//! cancellation stops the attempt that has begun, and waits for the one that has not.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use futures_util::task::AtomicWaker;

use crate::id::{KeyHash, Seq};
use crate::lease::LeaseToken;

/// The tasks of one upstream that are held, and those cancelled before they were taken up. Never more
/// than there are leases.
#[derive(Default)]
pub struct Cancellations {
    leases: Mutex<HashMap<(Seq, LeaseToken), Hold, KeyHash>>,
}

enum Hold {
    TakenUp(Arc<Ear>),
    Cancelled,
}

/// How the one who works under a lease hears of its end.
#[derive(Default)]
struct Ear {
    cancelled: AtomicBool,
    listener: AtomicWaker,
}

impl Ear {
    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.listener.wake();
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }
}

impl Cancellations {
    fn lock(&self) -> MutexGuard<'_, HashMap<(Seq, LeaseToken), Hold, KeyHash>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The holder of a lease begins. `None`: the task was cancelled and must not be touched.
    #[must_use]
    pub fn take_up(self: &Arc<Self>, seq: Seq, lease: LeaseToken) -> Option<TakenUp> {
        let key = (seq, lease);
        let mut leases = self.lock();
        if leases.remove(&key).is_some() {
            return None;
        }
        let ear = Arc::<Ear>::default();
        leases.insert(key, Hold::TakenUp(Arc::clone(&ear)));
        Some(TakenUp { of: Arc::clone(self), key, ear })
    }

    /// The task under this lease was cancelled, and that is on stable storage.
    pub(super) fn cancel(&self, seq: Seq, lease: LeaseToken) {
        let mut leases = self.lock();
        match leases.get(&(seq, lease)) {
            Some(Hold::TakenUp(ear)) => ear.cancel(),
            Some(Hold::Cancelled) => {}
            None => {
                leases.insert((seq, lease), Hold::Cancelled);
            }
        }
    }
}

/// A lease being worked under, until dropped.
pub struct TakenUp {
    of: Arc<Cancellations>,
    key: (Seq, LeaseToken),
    ear: Arc<Ear>,
}

impl TakenUp {
    /// The output of `work`, or `None` when the task was cancelled first; `work` is dropped then.
    pub async fn unless_cancelled<F: Future>(&mut self, work: F) -> Option<F::Output> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            // The cancellation first: work that could go on at the same instant must not begin anything.
            self.ear.listener.register(cx.waker());
            if self.ear.is_cancelled() {
                return Poll::Ready(None);
            }
            work.as_mut().poll(cx).map(Some)
        })
        .await
    }
}

impl Drop for TakenUp {
    fn drop(&mut self) {
        self.of.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Work that goes on, yet does not keep a test that fails from ending.
    const LONG: std::time::Duration = std::time::Duration::from_secs(10);

    fn lease(random: u64) -> LeaseToken {
        LeaseToken::from_random(random)
    }

    #[tokio::test]
    async fn a_task_cancelled_before_it_is_taken_up_is_never_begun() {
        let cancellations = Arc::new(Cancellations::default());
        cancellations.cancel(Seq(1), lease(1));
        assert!(cancellations.take_up(Seq(1), lease(1)).is_none());
        assert!(cancellations.lock().is_empty());
    }

    #[tokio::test]
    async fn work_in_flight_is_dropped_the_moment_its_task_is_cancelled() {
        let cancellations = Arc::new(Cancellations::default());
        let mut taken_up = cancellations.take_up(Seq(1), lease(1)).unwrap();
        assert_eq!(taken_up.unless_cancelled(async { 7 }).await, Some(7));
        let cancel = async { cancellations.cancel(Seq(1), lease(1)) };
        let work = taken_up.unless_cancelled(tokio::time::sleep(LONG));
        assert_eq!(tokio::join!(work, cancel).0, None);
        drop(taken_up);
        assert!(cancellations.lock().is_empty());
    }

    #[tokio::test]
    async fn work_that_could_go_on_at_the_same_instant_is_dropped_too() {
        let cancellations = Arc::new(Cancellations::default());
        let mut taken_up = cancellations.take_up(Seq(1), lease(1)).unwrap();
        let (go_on, told) = tokio::sync::oneshot::channel::<()>();
        let mut work = Box::pin(taken_up.unless_cancelled(told));
        assert!(futures_util::poll!(&mut work).is_pending());
        cancellations.cancel(Seq(1), lease(1));
        go_on.send(()).unwrap();
        assert_eq!(work.await, None);
    }

    #[tokio::test]
    async fn a_later_lease_of_the_same_task_is_another_matter() {
        let cancellations = Arc::new(Cancellations::default());
        let first = cancellations.take_up(Seq(1), lease(1)).unwrap();
        let mut second = cancellations.take_up(Seq(1), lease(2)).unwrap();
        drop(first);
        cancellations.cancel(Seq(1), lease(2));
        assert_eq!(second.unless_cancelled(tokio::time::sleep(LONG)).await, None);
    }
}
