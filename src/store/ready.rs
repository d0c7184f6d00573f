//! The bounded queues between the writer, which fills them, and the worker, which empties them.
//!
//! Only the writer pushes, or a reader for it, and only what the writer holds a lease for. Taking from a
//! queue that has become half empty wakes the writer if it said it has more.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Cancellations, ReadyTask};
use crate::admission::{Ended, Sample};

/// Wakes the writer.
pub(super) type Nudge = Arc<dyn Fn() + Send + Sync>;

/// Leased work waiting for a permit.
pub struct Ready<T> {
    queue: Mutex<Queue<T>>,
    arrived: Notify,
    capacity: usize,
    /// The writer holds back work for want of room here.
    more_waits: AtomicBool,
    nudge: Nudge,
}

struct Queue<T> {
    waiting: VecDeque<T>,
    /// Leased and on its way here: it takes its place already.
    coming: usize,
}

impl<T> Queue<T> {
    fn len(&self) -> usize {
        self.waiting.len() + self.coming
    }
}

impl<T> Ready<T> {
    pub(super) fn new(capacity: usize, nudge: Nudge) -> Self {
        Self {
            queue: Mutex::new(Queue { waiting: VecDeque::new(), coming: 0 }),
            arrived: Notify::new(),
            capacity,
            more_waits: AtomicBool::new(false),
            nudge,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
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
        let work = queue.waiting.pop_front();
        let half_empty = queue.len() * 2 <= self.capacity;
        drop(queue);
        if half_empty && self.more_waits.swap(false, Ordering::AcqRel) {
            (self.nudge)();
        }
        work
    }

    /// Waits until nothing is on its way here any more. For when nobody takes from it.
    pub async fn none_comes(&self) {
        while self.lock().coming > 0 {
            self.arrived.notified().await;
        }
    }

    /// Everything that waits, for giving it back when the node drains.
    pub fn take_all(&self) -> Vec<T> {
        self.lock().waiting.drain(..).collect()
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
        self.push(work, 0);
    }

    /// Keeps room for so much that is leased already and [comes](Ready::push_expected) later.
    pub(super) fn expect(&self, more: usize) {
        self.lock().coming += more;
    }

    pub(super) fn push_expected(&self, work: impl ExactSizeIterator<Item = T>) {
        let expected = work.len();
        self.push(work, expected);
    }

    /// In one step, so that nobody who looks finds it neither waiting nor coming.
    fn push(&self, work: impl ExactSizeIterator<Item = T>, expected: usize) {
        if work.len() == 0 {
            return;
        }
        let mut queue = self.lock();
        queue.coming -= expected;
        queue.waiting.extend(work);
        drop(queue);
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

/// How many tasks are in flight, how many of them wait for somebody else, and for how long.
#[derive(Default)]
pub struct Load {
    in_flight: AtomicU32,
    outside: AtomicU32,
    /// Of attempts, and of deliveries.
    calls: [Calls; 2],
}

/// Calls that ended since somebody looked.
#[derive(Default)]
struct Calls {
    count: AtomicU32,
    /// Microseconds from above, so that 0 is none: the greatest is of the shortest call.
    shortest: AtomicU32,
}

/// What a task waits for.
#[derive(Clone, Copy)]
pub enum Callee {
    Upstream = 0,
    Receiver = 1,
}

impl Load {
    /// A task has left the ready queue; counted until the guard is dropped.
    #[must_use]
    pub fn in_flight(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight { load: Arc::clone(self) }
    }

    /// The task is inside a call to its upstream or receiver, until the guard is dropped.
    #[must_use]
    pub fn outside(self: &Arc<Self>, whom: Callee) -> InCall {
        self.outside.fetch_add(1, Ordering::Relaxed);
        InCall { load: Arc::clone(self), whom, began: Instant::now() }
    }

    /// What is seen now; calls that ended are seen once.
    pub(super) fn sample(&self, ready: u32, busy: Duration) -> Sample {
        let ended = |calls: &Calls| Ended {
            count: calls.count.swap(0, Ordering::Relaxed),
            shortest: Duration::from_micros(u64::from(u32::MAX - calls.shortest.swap(0, Ordering::Relaxed))),
        };
        Sample {
            ready,
            in_flight: self.in_flight.load(Ordering::Relaxed),
            outside: self.outside.load(Ordering::Relaxed),
            ended: [ended(&self.calls[0]), ended(&self.calls[1])],
            busy,
        }
    }
}

/// A task in flight.
pub struct InFlight {
    load: Arc<Load>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.load.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A task inside a call.
pub struct InCall {
    load: Arc<Load>,
    whom: Callee,
    began: Instant,
}

impl Drop for InCall {
    fn drop(&mut self) {
        self.load.outside.fetch_sub(1, Ordering::Relaxed);
        let took = u32::try_from(self.began.elapsed().as_micros()).unwrap_or(u32::MAX);
        let calls = &self.load.calls[self.whom as usize];
        calls.shortest.fetch_max(u32::MAX - took, Ordering::Relaxed);
        calls.count.fetch_add(1, Ordering::Relaxed);
    }
}
