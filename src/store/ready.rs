//! The bounded queues between the writer, which fills them, and the worker, which empties them.
//!
//! Only the writer pushes, and only what it holds a lease for. Taking from a queue that has become
//! half empty wakes the writer if it said it has more.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Cancellations, ReadyTask};

/// Wakes the writer.
pub(super) type Nudge = Arc<dyn Fn() + Send + Sync>;

/// Leased work waiting for a permit.
pub struct Ready<T> {
    queue: Mutex<VecDeque<T>>,
    arrived: Notify,
    capacity: usize,
    /// The writer holds back work for want of room here.
    more_waits: AtomicBool,
    nudge: Nudge,
}

impl<T> Ready<T> {
    pub(super) fn new(capacity: usize, nudge: Nudge) -> Self {
        Self {
            queue: Mutex::new(VecDeque::new()),
            arrived: Notify::new(),
            capacity,
            more_waits: AtomicBool::new(false),
            nudge,
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next piece of work, waiting for one. Called by one dispatcher.
    pub async fn next(&self) -> T {
        loop {
            if let Some(work) = self.take() {
                return work;
            }
            self.arrived.notified().await;
        }
    }

    fn take(&self) -> Option<T> {
        let mut queue = self.lock();
        let work = queue.pop_front();
        let half_empty = queue.len() * 2 <= self.capacity;
        drop(queue);
        if half_empty && self.more_waits.swap(false, Ordering::AcqRel) {
            (self.nudge)();
        }
        work
    }

    /// Everything that waits, for giving it back when the node drains.
    pub fn take_all(&self) -> Vec<T> {
        self.lock().drain(..).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.len())
    }

    pub(super) fn half_empty(&self) -> bool {
        self.room() * 2 >= self.capacity
    }

    /// Asks to be woken once half empty. Check [`Ready::half_empty`] again afterwards: it may have
    /// become so in between.
    pub(super) fn say_more_waits(&self) {
        self.more_waits.store(true, Ordering::Release);
    }

    pub(super) fn push_all(&self, work: impl ExactSizeIterator<Item = T>) {
        if work.len() == 0 {
            return;
        }
        self.lock().extend(work);
        self.arrived.notify_one();
    }
}

/// Which upstream, as an index into the configured ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneId(pub usize);

/// Everything that waits for, or runs against, one upstream.
pub struct Lane {
    pub name: String,
    pub ready: Ready<ReadyTask>,
    pub load: Arc<Load>,
    pub cancellations: Arc<Cancellations>,
}

/// How many tasks are in flight, and how many of them wait for somebody else.
#[derive(Default)]
pub struct Load {
    in_flight: AtomicU32,
    outside: AtomicU32,
}

impl Load {
    /// A task has left the ready queue; counted until the guard is dropped.
    #[must_use]
    pub fn in_flight(self: &Arc<Self>) -> LoadGuard {
        LoadGuard::new(self, |load| &load.in_flight)
    }

    /// The task is inside a call to its upstream or receiver.
    #[must_use]
    pub fn outside(self: &Arc<Self>) -> LoadGuard {
        LoadGuard::new(self, |load| &load.outside)
    }

    pub(super) fn sample(&self) -> (u32, u32) {
        (self.in_flight.load(Ordering::Relaxed), self.outside.load(Ordering::Relaxed))
    }
}

/// Counts until dropped.
pub struct LoadGuard {
    load: Arc<Load>,
    counter: fn(&Load) -> &AtomicU32,
}

impl LoadGuard {
    fn new(load: &Arc<Load>, counter: fn(&Load) -> &AtomicU32) -> Self {
        counter(load).fetch_add(1, Ordering::Relaxed);
        Self { load: Arc::clone(load), counter }
    }
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        (self.counter)(&self.load).fetch_sub(1, Ordering::Relaxed);
    }
}
