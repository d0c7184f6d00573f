//! Runs tasks and deliveries. The only place that joins store, upstream and webhook.
//!
//! It takes leased work from the ready queues, a permit first, so that nothing is held that cannot run.
//! It decides nothing itself: outcomes go through [`crate::outcome::decide`] and
//! [`crate::delivery::decide`]. Its invariants: whatever leaves a ready queue is settled, or given back,
//! or its lease ends with the process; a webhook leaves only after its result is on stable storage; a
//! panic in one task ends that task and touches nothing else.

mod answer;
mod attempt;
mod deliver;
mod outside;
mod permits;
mod request;

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::guard::Rules;
use crate::outcome::{Idempotency, Reason, RetryPolicy};
use crate::pace::Pace;
use crate::seal::KeyRing;
use crate::store::{Callee, Lane, LaneId, ReadyDelivery, ReadyTask, Settled, Store, StoreError};
use crate::task::PublicUris;
use crate::telemetry::metrics::{DeliveryMetrics, UpstreamMetrics};
use crate::watch::Watches;
pub use outside::{Network, Outside};
use permits::DeliveryPermits;

/// Pause before asking a store again that could not write.
const STORE_PAUSE: Duration = Duration::from_millis(200);

/// What the work needs. One a node.
pub struct Workshop<O> {
    pub store: Store,
    pub ring: KeyRing,
    pub clock: Clock,
    pub benches: Vec<Bench>,
    pub outside: O,
    /// A random number in `0.0..1.0`, for jitter.
    pub chance: fn() -> f64,
    pub rules: Arc<Rules>,
    pub delivery_backoff: Backoff,
    pub delivery_metrics: DeliveryMetrics,
    pub delivery_permits: DeliveryPermits,
    /// Who waits for a task to change is told here, once the change is written.
    pub watches: Arc<Watches>,
}

/// What the tasks of one upstream need.
pub struct Bench {
    pub id: LaneId,
    pub lane: Arc<Lane>,
    pub policy: RetryPolicy,
    pub idempotency: Idempotency,
    pub max_result_bytes: u64,
    pub concurrency: usize,
    pub uris: PublicUris,
    pub metrics: UpstreamMetrics,
    pub pace: Arc<Pace>,
}

/// The running dispatchers and everything they started.
pub struct Worker<O> {
    workshop: Arc<Workshop<O>>,
    running: TaskTracker,
    stop: CancellationToken,
}

impl Workshop<Network> {
    /// At most `total` delivery attempts in flight, and `per_host` to one receiver.
    #[must_use]
    pub fn delivery_permits(total: usize, per_host: usize) -> DeliveryPermits {
        DeliveryPermits::new(total, per_host)
    }
}

impl<O: Outside> Worker<O> {
    /// Starts one dispatcher a lane and one for deliveries.
    #[must_use]
    pub fn start(workshop: Arc<Workshop<O>>) -> Self {
        let worker = Self { workshop, running: TaskTracker::new(), stop: CancellationToken::new() };
        for index in 0..worker.workshop.benches.len() {
            let (workshop, running, stop) = worker.parts();
            worker.running.spawn(dispatch_tasks(workshop, index, running, stop));
        }
        let (workshop, running, stop) = worker.parts();
        worker.running.spawn(dispatch_deliveries(workshop, running, stop));
        worker
    }

    fn parts(&self) -> (Arc<Workshop<O>>, TaskTracker, CancellationToken) {
        (Arc::clone(&self.workshop), self.running.clone(), self.stop.clone())
    }

    /// Claims nothing new, gives back what waits, and returns when nothing is held.
    pub async fn drain(&self) {
        self.workshop.store.stop_claiming();
        self.stop.cancel();
        self.give_back().await;
        self.running.close();
        self.running.wait().await;
        // A batch that was under way may have handed off once more, and what it claimed may still be read.
        join_all(self.workshop.store.lanes().iter().map(|lane| lane.ready.none_comes())).await;
        self.give_back().await;
    }

    async fn give_back(&self) {
        let now = self.workshop.clock.steady();
        let store = &self.workshop.store;
        // Together, so that they share commits. If the store cannot write now, the next start gives back.
        let tasks = store.lanes().iter().flat_map(|lane| lane.ready.take_all());
        join_all(tasks.map(|task| store.release_task(task.seq, task.lease, now))).await;
        let deliveries = store.deliveries().take_all();
        join_all(deliveries.iter().map(|held| store.release_delivery(held.seq, held.lease, now))).await;
    }
}

async fn dispatch_tasks(
    workshop: Arc<Workshop<impl Outside>>,
    index: usize,
    running: TaskTracker,
    stop: CancellationToken,
) {
    let bench = &workshop.benches[index];
    let places = Arc::new(Semaphore::new(bench.concurrency));
    // Answers that are taken in and not written yet take memory: there are as many of them at most.
    let unsettled = bench.concurrency.saturating_mul(2).min(Semaphore::MAX_PERMITS);
    let unsettled = Arc::new(Semaphore::new(unsettled));
    let mut stopped = pin!(stop.cancelled());
    loop {
        let next = async {
            let unsettled = Arc::clone(&unsettled).acquire_owned().await.expect("never closed");
            let place = Arc::clone(&places).acquire_owned().await.expect("never closed");
            (Permits { place, unsettled }, bench.lane.ready.next().await)
        };
        let (permits, task) = tokio::select! {
            biased;
            () = stopped.as_mut() => return,
            next = next => next,
        };
        // Boxed: a runtime moves what it is given to spawn ten times, and this is several kilobytes.
        running.spawn(Box::pin(run_task(Arc::clone(&workshop), index, task, permits)));
    }
}

/// What a task needs to be run.
struct Permits {
    /// At the upstream, until that has answered.
    place: OwnedSemaphorePermit,
    /// Until the end of the attempt is written.
    unsettled: OwnedSemaphorePermit,
}

async fn run_task(
    workshop: Arc<Workshop<impl Outside>>,
    index: usize,
    mut task: ReadyTask,
    Permits { place, unsettled }: Permits,
) {
    let bench = &workshop.benches[index];
    let Some(mut taken_up) = bench.lane.cancellations.take_up(task.seq, task.lease) else { return };
    let _in_flight = bench.lane.load.in_flight();
    let attempt = {
        let request = task.request.take();
        // Pinned where it is: there is one of these for each task in flight, and moving it would make
        // every one of them as large again.
        let attempt =
            pin!(AssertUnwindSafe(attempt::run(&workshop, bench, &task, request, place)).catch_unwind());
        // Cancelled: the connection is dropped with the attempt; what happened is written already.
        let Some(attempt) = taken_up.unless_cancelled(attempt).await else { return };
        attempt
    };
    let delivery = if let Ok(delivery) = attempt {
        delivery
    } else {
        tracing::error!(upstream = bench.lane.name, "a task panicked; it ends with internal_error");
        attempt::end_internal(&workshop, bench, &task, Reason::Panicked).await;
        None
    };
    drop((unsettled, taken_up));
    if let Some(delivery) = delivery {
        let _outside = bench.lane.load.outside(Callee::Receiver);
        deliver::first_try(&workshop, delivery).await;
    }
}

async fn dispatch_deliveries(
    workshop: Arc<Workshop<impl Outside>>,
    running: TaskTracker,
    stop: CancellationToken,
) {
    let deliveries = Arc::clone(workshop.store.deliveries());
    let mut stopped = pin!(stop.cancelled());
    loop {
        let next = async {
            let permit = workshop.delivery_permits.any_host().await;
            (permit, deliveries.next().await)
        };
        let (permit, delivery) = tokio::select! {
            biased;
            () = stopped.as_mut() => return,
            next = next => next,
        };
        running.spawn(Box::pin(run_delivery(Arc::clone(&workshop), delivery, permit)));
    }
}

async fn run_delivery(
    workshop: Arc<Workshop<impl Outside>>,
    delivery: ReadyDelivery,
    permit: OwnedSemaphorePermit,
) {
    deliver::later_try(&workshop, &delivery).await;
    drop(permit);
}

/// Asks the store until it has written: an outcome that is known must not be lost because the disk is
/// full for a while. Ends with the process at the latest.
async fn insist<F: Future<Output = Result<Settled, StoreError>>>(mut write: impl FnMut() -> F) -> Settled {
    loop {
        match write().await {
            Ok(settled) => return settled,
            Err(_) => tokio::time::sleep(STORE_PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests;
