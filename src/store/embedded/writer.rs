//! The one thread that changes the store.
//!
//! It takes what waits (settles first, accepts as far as admission allows), applies it in one
//! transaction together with the claims that have room, commits, and only then answers and hands off.
//! There is no artificial window: while one commit is on its way to the disk the next batch gathers.
//! What it promises: nobody hears `Ok` before the commit; after a failed commit nothing was written and
//! everybody hears so; at most one retention transaction runs between two commits of the batch.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::metrics::histogram::Histogram;
use rusqlite::{Connection, TransactionBehavior};
use tokio_util::sync::CancellationToken;

use super::apply::{self, Effect};
use super::backlog::{Backlog, Owner};
use super::claim;
use super::inbox::{Accept, Inbox, Operation, Phase, Purge, Waiting};
use super::open::{NEVER, OpenOptions, Recovered};
use super::retention;
use super::room::{Room, is_about_one_row};
use super::seen::Seen;
use crate::admission::{Share, Situation, accepts_allowed};
use crate::clock::{Clock, Timestamp};
use crate::id::Seq;
use crate::lease::LeaseToken;
use crate::store::{Accepted, Lane, Ready, ReadyDelivery, ReadyTask, Settled, StoreError};

/// Operations in one transaction: bounds how long the last caller of a batch waits for the first.
const BATCH_MAX: usize = 1_024;

/// Longest sleep while calls are held back or due work has no room: a safety net under the wake-ups.
const HELD_BACK_PAUSE: Duration = Duration::from_millis(10);

/// After a commit that failed, nothing is claimed for this long.
const FAILING_PAUSE: Duration = Duration::from_millis(500);

const SLEEP_MAX: Duration = Duration::from_mins(1);

/// Runs the writer on this thread. One that panics must not leave the node alive and deaf: whoever waits
/// is answered, and `failed` is cancelled for whoever can end the process.
pub(super) fn watch(inbox: &Inbox, failed: &CancellationToken, run: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        tracing::error!("the store's writer panicked; nothing can be written any more");
        inbox.abandon();
        failed.cancel();
    }
}

pub(super) struct Writer {
    connection: Connection,
    inbox: Arc<Inbox>,
    lanes: Vec<WriterLane>,
    deliveries: Arc<Ready<ReadyDelivery>>,
    /// When the next resting delivery is due.
    delivery_due: Timestamp,
    unfinished: u64,
    backlog: Backlog,
    full: Arc<AtomicBool>,
    max_queued_tasks: u64,
    claiming: bool,
    clock: Clock,
    commit_seconds: Histogram,
    seen: Seen,
    room: Room,
    /// The last commit failed; claims wait until then. Said once, not with every caller.
    failing_until: Option<Timestamp>,
}

struct WriterLane {
    lane: Arc<Lane>,
    upstream: i64,
    /// When the next resting task is due.
    due: Timestamp,
    share: Share,
}

#[derive(Default)]
struct Batch {
    operations: Vec<Operation>,
    accepts: Vec<Accept>,
    purge: Option<Purge>,
}

/// What to do next.
enum Look {
    Work(Batch),
    /// Nothing before this has passed, unless woken.
    Sleep(Duration),
    /// Closed, and nothing waits.
    Over,
}

/// What a transaction did, known before the commit and acted on after it.
struct Applied {
    settled: Vec<Settled>,
    /// What became of each accept, with the lease of one that is handed off.
    accepted: Vec<(Accepted, Option<LeaseToken>)>,
    claimed: Vec<Vec<ReadyTask>>,
    claimed_deliveries: Vec<ReadyDelivery>,
    due: Vec<Timestamp>,
    delivery_due: Timestamp,
    finished: Vec<Owner>,
    /// Leases whose holders are to be told; the first number is the lane.
    cancelled: Vec<(usize, Seq, LeaseToken)>,
}

impl Writer {
    pub fn new(
        connection: Connection,
        inbox: Arc<Inbox>,
        lanes: Vec<Arc<Lane>>,
        deliveries: Arc<Ready<ReadyDelivery>>,
        recovered: &mut Recovered,
        full: Arc<AtomicBool>,
        options: &OpenOptions,
    ) -> Self {
        let now = recovered.clock.steady();
        let lanes = lanes
            .into_iter()
            .zip(&recovered.upstream_ids)
            // Due at once: the first look finds out what a crash left.
            .map(|(lane, &upstream)| WriterLane { lane, upstream, due: now, share: Share::new(now) })
            .collect();
        Self {
            connection,
            inbox,
            lanes,
            deliveries,
            delivery_due: now,
            unfinished: recovered.unfinished,
            backlog: std::mem::take(&mut recovered.backlog),
            full,
            max_queued_tasks: options.max_queued_tasks,
            claiming: true,
            clock: recovered.clock,
            commit_seconds: options.commit_seconds.clone(),
            seen: Seen::new(),
            room: Room::default(),
            failing_until: None,
        }
    }

    /// Runs until closed and everything that waited is answered.
    pub fn run(mut self) {
        while let Some(mut batch) = self.next_batch() {
            let purge = batch.purge.take();
            self.commit(batch);
            if let Some(purge) = purge {
                self.purge(purge);
            }
        }
        if let Err(error) = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
            tracing::debug!(error = %error, "no checkpoint at closing; the next start does it");
        }
    }

    /// Waits for work. `None` when closed and nothing waits.
    fn next_batch(&mut self) -> Option<Batch> {
        let inbox = Arc::clone(&self.inbox);
        let mut waiting = inbox.lock();
        loop {
            match self.look(&mut waiting) {
                Look::Work(batch) => return Some(batch),
                Look::Over => return None,
                Look::Sleep(at_most) => waiting = inbox.sleep(waiting, at_most),
            }
        }
    }

    /// Takes what there is to do, or says how long there is nothing.
    fn look(&mut self, waiting: &mut Waiting) -> Look {
        loop {
            waiting.nudged = false;
            self.claiming = waiting.phase == Phase::Serving;
            let now = self.clock.steady();
            let (batch, held_back) = self.take(waiting, now);
            if !batch.operations.is_empty()
                || !batch.accepts.is_empty()
                || batch.purge.is_some()
                || self.can_claim(now)
            {
                return Look::Work(batch);
            }
            if waiting.phase == Phase::Closing && waiting.is_empty() {
                return Look::Over;
            }
            if waiting.nudged {
                continue;
            }
            return Look::Sleep(if held_back { HELD_BACK_PAUSE } else { self.sleep(now) });
        }
    }

    /// Takes settles first, then as many accepts of each lane as admission allows. Also says whether
    /// calls had to be held back.
    fn take(&mut self, waiting: &mut Waiting, now: Timestamp) -> (Batch, bool) {
        let count = waiting.operations.len().min(BATCH_MAX);
        let operations: Vec<_> = waiting.operations.drain(..count).collect();
        let mut batch = Batch { operations, accepts: Vec::new(), purge: waiting.purge.take() };
        let mut held_back = false;
        // Holding calls back waits for settles; where none can be written, a refusal now is the answer.
        let may_hold_back = waiting.phase == Phase::Serving && self.failing_until.is_none();
        for (lane, queue) in self.lanes.iter_mut().zip(&mut waiting.accepts) {
            let (in_flight, outside) = lane.lane.load.sample();
            lane.share.sample(now, in_flight, outside);
            if queue.is_empty() {
                continue;
            }
            let situation = Situation {
                upstream_is_bottleneck: lane.share.upstream_is_bottleneck(),
                idle: in_flight == 0,
                room: lane.lane.ready.room(),
                backlog: lane.due <= now,
                settles: batch.operations.len(),
            };
            let allowed = if may_hold_back { accepts_allowed(situation) } else { usize::MAX };
            let free = BATCH_MAX.saturating_sub(batch.operations.len() + batch.accepts.len()).max(1);
            let count = queue.len().min(allowed).min(free);
            batch.accepts.extend(queue.drain(..count));
            if !queue.is_empty() {
                held_back = true;
                lane.lane.ready.say_more_waits();
            }
        }
        self.refuse_above_the_limit(&mut batch.accepts);
        (batch, held_back)
    }

    fn owner_of(&self, accept: &Accept) -> Owner {
        Owner::of(self.lanes[accept.task.lane.0].upstream, &accept.task.credentials_id)
    }

    fn refuse_above_the_limit(&self, accepts: &mut Vec<Accept>) {
        let mut room_of_each = self.backlog.room();
        for refused in accepts.extract_if(.., |accept| !room_of_each.take(self.owner_of(accept))) {
            let known = apply::known_or(StoreError::FullForCredentials, &self.connection, &refused.task);
            let _ = refused.reply.send(known);
        }
        let room = self.max_queued_tasks.saturating_sub(self.unfinished);
        let keep = usize::try_from(room).unwrap_or(usize::MAX).min(accepts.len());
        for refused in accepts.drain(keep..) {
            let known = apply::known_or(StoreError::Full, &self.connection, &refused.task);
            let _ = refused.reply.send(known);
        }
    }

    fn can_claim(&self, now: Timestamp) -> bool {
        self.claiming
            && self.failing_until.is_none_or(|until| until <= now)
            && (self.lanes.iter().any(|lane| lane.due <= now && has_room(&lane.lane.ready))
                || (self.delivery_due <= now && has_room(&self.deliveries)))
    }

    fn sleep(&self, now: Timestamp) -> Duration {
        let next = self.lanes.iter().map(|lane| lane.due).chain([self.delivery_due]).min().unwrap_or(NEVER);
        let next = self.failing_until.map_or(next, |until| next.max(until));
        if next <= now { HELD_BACK_PAUSE } else { now.until(next).min(SLEEP_MAX) }
    }

    fn commit(&mut self, batch: Batch) {
        let now = self.clock.steady();
        let room = self.room.make(&self.connection, now);
        match room.and_then(|()| self.transact(&batch.operations, &batch.accepts)) {
            Ok(applied) => self.answer(batch, applied),
            Err(error) => {
                self.room.failed(&error, now);
                self.say_failing(&error);
                let single = batch.operations.len() + batch.accepts.len() <= 1;
                if single || !is_about_one_row(&error) {
                    refuse(batch);
                } else {
                    self.commit_one_by_one(batch);
                }
            }
        }
    }

    /// One operation that cannot be written must not take the others down with it.
    fn commit_one_by_one(&mut self, batch: Batch) {
        for operation in batch.operations {
            self.commit(Batch { operations: vec![operation], ..Batch::default() });
        }
        for accept in batch.accepts {
            self.commit(Batch { accepts: vec![accept], ..Batch::default() });
        }
    }

    fn transact(&mut self, operations: &[Operation], accepts: &[Accept]) -> rusqlite::Result<Applied> {
        let now = self.clock.steady();
        let started = Instant::now();
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut applied = Applied {
            settled: Vec::with_capacity(operations.len()),
            accepted: Vec::with_capacity(accepts.len()),
            claimed: Vec::with_capacity(self.lanes.len()),
            claimed_deliveries: Vec::new(),
            due: self.lanes.iter().map(|lane| lane.due).collect(),
            delivery_due: self.delivery_due,
            finished: Vec::new(),
            cancelled: Vec::new(),
        };
        for operation in operations {
            let (settled, effect) = apply::operation(&tx, operation)?;
            note(&mut applied, &self.lanes, &effect);
            applied.settled.push(settled);
        }
        let mut room: Vec<usize> = self.lanes.iter().map(|lane| lane.lane.ready.room()).collect();
        for accept in accepts {
            if let Some(known) = apply::known(&tx, &accept.task)? {
                applied.accepted.push((known, None));
                continue;
            }
            let index = accept.task.lane.0;
            // Behind a backlog it queues up like everybody else.
            let hand_off = self.claiming && room[index] > 0 && applied.due[index] > now;
            let lease = hand_off.then(claim::new_lease);
            apply::accept(&tx, &accept.task, self.lanes[index].upstream, lease)?;
            if hand_off {
                room[index] -= 1;
            } else {
                applied.due[index] = applied.due[index].min(accept.task.now);
            }
            applied.accepted.push((Accepted::New, lease));
        }
        for (index, lane) in self.lanes.iter().enumerate() {
            let mut claimed = Vec::new();
            if self.claiming && applied.due[index] <= now && room[index] > 0 && lane.lane.ready.half_empty() {
                (claimed, applied.due[index]) = claim::tasks(&tx, lane.upstream, now, room[index])?;
            }
            applied.claimed.push(claimed);
        }
        if self.claiming && applied.delivery_due <= now && self.deliveries.half_empty() {
            (applied.claimed_deliveries, applied.delivery_due) =
                claim::deliveries(&tx, now, self.deliveries.room())?;
        }
        self.seen.note(&tx, now)?;
        tx.commit()?;
        self.commit_seconds.observe(started.elapsed().as_secs_f64());
        Ok(applied)
    }

    /// The commit is on disk: answers everybody, then hands off what is leased.
    fn answer(&mut self, batch: Batch, applied: Applied) {
        if self.failing_until.take().is_some() {
            tracing::info!("the store writes again");
        }
        for (accept, (accepted, _)) in batch.accepts.iter().zip(&applied.accepted) {
            if *accepted == Accepted::New {
                self.unfinished += 1;
                self.backlog.add(self.owner_of(accept));
            }
        }
        self.unfinished = self.unfinished.saturating_sub(applied.finished.len() as u64);
        for owner in applied.finished {
            self.backlog.remove(owner);
        }
        self.full.store(self.unfinished >= self.max_queued_tasks, Ordering::Relaxed);
        for (lane, seq, lease) in applied.cancelled {
            self.lanes[lane].lane.cancellations.cancel(seq, lease);
        }
        for (operation, settled) in batch.operations.into_iter().zip(applied.settled) {
            // Whoever asked may have gone; what was written stays true.
            let _ = reply_of(operation).send(Ok(settled));
        }
        let mut ready = applied.claimed;
        for (mut accept, (accepted, lease)) in batch.accepts.into_iter().zip(applied.accepted) {
            if accepted == Accepted::New {
                accept.task.accepted.inc();
            }
            let _ = accept.reply.send(Ok(accepted));
            if let Some(lease) = lease {
                ready[accept.task.lane.0].push(ReadyTask {
                    seq: accept.task.id.seq(),
                    lease,
                    attempts: 0,
                    started: 0,
                    started_at: Timestamp(0),
                    deadline: accept.task.deadline,
                    carried: accept.task.carried.take(),
                });
            }
        }
        for ((lane, ready), due) in self.lanes.iter_mut().zip(ready).zip(applied.due) {
            lane.due = due;
            lane.lane.ready.push_all(ready);
        }
        self.delivery_due = applied.delivery_due;
        self.deliveries.push_all(applied.claimed_deliveries);
    }

    fn purge(&mut self, purge: Purge) {
        let done = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .and_then(|tx| {
                let purged = retention::purge(&tx, &purge)?;
                tx.commit()?;
                Ok(purged)
            })
            .map_err(|error| {
                tracing::error!(error = %error, "retention could not remove anything");
                StoreError::Unavailable
            });
        let _ = purge.reply.send(done);
    }

    fn say_failing(&mut self, error: &rusqlite::Error) {
        if self.failing_until.is_none() {
            tracing::error!(error = %error, "the store cannot write; calls are refused until it can");
        }
        self.failing_until = Some(self.clock.steady().after(FAILING_PAUSE));
    }
}

/// Whether a claim is worth it now; if not, the queue says so as soon as it is.
fn has_room<T>(ready: &Ready<T>) -> bool {
    ready.half_empty() || {
        // Asked before the second look, so that no wake-up falls between the two.
        ready.say_more_waits();
        ready.half_empty()
    }
}

fn note(applied: &mut Applied, lanes: &[WriterLane], effect: &Effect) {
    if let Some((upstream, due_at)) = effect.task_due
        && let Some(index) = lanes.iter().position(|lane| lane.upstream == upstream)
    {
        applied.due[index] = applied.due[index].min(due_at);
    }
    if let Some((upstream, seq, lease)) = effect.cancelled
        && let Some(index) = lanes.iter().position(|lane| lane.upstream == upstream)
    {
        applied.cancelled.push((index, seq, lease));
    }
    if let Some(due_at) = effect.delivery_due {
        applied.delivery_due = applied.delivery_due.min(due_at);
    }
    applied.finished.extend(effect.finished);
}

fn refuse(batch: Batch) {
    for operation in batch.operations {
        let _ = reply_of(operation).send(Err(StoreError::Unavailable));
    }
    for accept in batch.accepts {
        let _ = accept.reply.send(Err(StoreError::Unavailable));
    }
}

fn reply_of(operation: Operation) -> super::inbox::Reply<Settled> {
    match operation {
        Operation::Started { reply, .. }
        | Operation::SettleAttempt { reply, .. }
        | Operation::SettleDelivery { reply, .. }
        | Operation::ReleaseTask { reply, .. }
        | Operation::ReleaseDelivery { reply, .. }
        | Operation::StageChunk { reply, .. }
        | Operation::Cancel { reply, .. } => reply,
    }
}

#[cfg(test)]
pub(crate) mod by_hand;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Cutoffs;
    use tokio::sync::oneshot;

    #[test]
    fn everybody_hears_of_a_writer_that_panicked() {
        let (inbox, failed) = (Inbox::new(1), CancellationToken::new());
        let purge = || {
            let (reply, answer) = oneshot::channel();
            let never = Timestamp(0);
            let before = Cutoffs { results: never, tasks: never, keys: never };
            (Purge { before, rows: 1, reply }, answer)
        };
        let (waiting, mut answer) = purge();
        inbox.set_purge(waiting).unwrap();
        watch(&inbox, &failed, || panic!("as if by a defect"));
        assert!(matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        assert!(matches!(inbox.set_purge(purge().0), Err(StoreError::Unavailable)));
        assert!(failed.is_cancelled());
    }
}
