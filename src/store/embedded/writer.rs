//! The one thread that changes the store.
//!
//! It takes what waits (settles first, accepts as far as admission allows), applies it in one
//! transaction together with the claims that have room, commits, and only then answers and hands off.
//! There is no artificial window: while one commit is on its way to the disk the next batch gathers.
//! What it promises: nobody hears `Ok` before the commit; after a failed commit nothing was written and
//! everybody hears so; at most one retention transaction runs between two commits of the batch.

mod applied;
mod batch;
mod watch;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::metrics::histogram::Histogram;
use rusqlite::{Connection, TransactionBehavior};

use applied::{Applied, note};
use batch::{Batch, Candidate};

use super::apply;
use super::backlog::{Backlog, Held, Leased, Owner};
use super::claim;
use super::inbox::{Inbox, Operation, Phase, Purge, Waiting};
use super::open::{Busy, NEVER, OpenOptions, Recovered};
use super::read_ahead::ReadAhead;
use super::reader::Readers;
use super::retention;
use super::room::{Room, is_about_one_row};
use super::seen::Seen;
use super::space::Space;
use super::statements::Statements;
use crate::admission::{Share, Situation, accepts_allowed};
use crate::clock::{Clock, Timestamp};
use crate::store::{Accepted, Errand, Lane, Ready, ReadyDelivery, ReadyTask, Request, StoreError};

pub(super) use watch::watch;

/// Operations in one transaction: bounds how long the last caller of a batch waits for the first.
const BATCH_MAX: usize = 1_024;

/// Longest sleep while calls are held back or due work has no room: a safety net under the wake-ups.
const HELD_BACK_PAUSE: Duration = Duration::from_millis(10);

/// After a commit that failed, nothing is claimed for this long.
const FAILING_PAUSE: Duration = Duration::from_millis(500);

const SLEEP_MAX: Duration = Duration::from_mins(1);

pub(super) struct Writer {
    connection: Connection,
    inbox: Arc<Inbox>,
    readers: Arc<Readers>,
    lanes: Vec<WriterLane>,
    deliveries: Arc<Ready<ReadyDelivery>>,
    /// When the next resting delivery is due.
    delivery_due: Timestamp,
    unfinished: u64,
    backlog: Backlog,
    leased: Leased,
    full: Arc<AtomicBool>,
    space: Arc<Space>,
    max_queued_tasks: u64,
    claiming: bool,
    clock: Clock,
    busy: Busy,
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
    /// The last transaction left due tasks that it could not claim.
    backlog: bool,
    share: Share,
}

/// What to do next.
enum Look {
    Work(Batch),
    /// Nothing before this has passed, unless woken.
    Sleep(Duration),
    /// Closed, and nothing waits.
    Over,
}

impl Writer {
    pub fn new(
        connection: Connection,
        inbox: Arc<Inbox>,
        readers: Arc<Readers>,
        lanes: Vec<Arc<Lane>>,
        deliveries: Arc<Ready<ReadyDelivery>>,
        recovered: &mut Recovered,
        options: &OpenOptions,
    ) -> Self {
        let now = recovered.clock.steady();
        let lanes = lanes
            .into_iter()
            .zip(&recovered.upstream_ids)
            // Due at once: the first look finds out what a crash left.
            .map(|(lane, &upstream)| WriterLane {
                lane,
                upstream,
                due: now,
                backlog: false,
                share: Share::new(now),
            })
            .collect();
        Self {
            connection,
            inbox,
            readers,
            lanes,
            deliveries,
            delivery_due: now,
            unfinished: recovered.unfinished,
            backlog: std::mem::take(&mut recovered.backlog),
            leased: Leased::default(),
            full: Arc::new(AtomicBool::new(recovered.unfinished >= options.max_queued_tasks)),
            space: Arc::clone(&recovered.space),
            max_queued_tasks: options.max_queued_tasks,
            claiming: true,
            clock: recovered.clock,
            busy: Arc::clone(&options.busy),
            commit_seconds: options.commit_seconds.clone(),
            seen: Seen::default(),
            room: Room::default(),
            failing_until: None,
        }
    }

    /// Whether there are as many unfinished tasks as may be; set after each commit.
    pub fn full(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.full)
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
        if let Err(error) = self.seen.note(&self.connection, &self.clock) {
            tracing::debug!(error = %error, "the clock is not kept at closing; the last commit kept it");
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
            if !batch.is_empty() || batch.purge.is_some() || self.can_claim(now) {
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
        let settled = operations.iter().filter(|operation| operation.settles_an_attempt()).count();
        // All of them: what is in this batch may have been asked for after any.
        let errands = std::mem::take(&mut waiting.errands);
        let mut batch = Batch { errands, operations, purge: waiting.purge.take(), ..Batch::default() };
        let mut held_back = false;
        // Holding calls back waits for settles; where none can be written, a refusal now is the answer.
        let may_hold_back = waiting.phase == Phase::Serving && self.failing_until.is_none();
        let busy = (self.busy)();
        // Each lane has its part of the batch, so that none waits for another's calls.
        let lanes = waiting.accepts.iter().filter(|queue| !queue.is_empty()).count().max(1);
        let free = (BATCH_MAX.saturating_sub(batch.operations.len()) / lanes).max(1);
        for (lane, queue) in self.lanes.iter_mut().zip(&mut waiting.accepts) {
            let ready = lane.lane.ready.len();
            let sample = lane.lane.load.sample(u32::try_from(ready).unwrap_or(u32::MAX), busy);
            lane.share.sample(now, sample);
            if queue.is_empty() {
                continue;
            }
            let situation = Situation {
                upstream_is_bottleneck: lane.share.upstream_is_bottleneck(),
                in_flight: sample.in_flight as usize,
                ready,
                capacity: lane.lane.ready.capacity(),
                at_once: lane.share.at_once(),
                backlog: lane.backlog,
                settled,
            };
            let allowed = if may_hold_back { accepts_allowed(situation) } else { usize::MAX };
            let count = queue.len().min(allowed).min(free);
            let upstream = lane.upstream;
            batch.accepts.extend(queue.drain(..count).map(|accept| {
                let owner = Owner::of(upstream, &accept.task.credentials_id);
                Candidate { accept, owner }
            }));
            if !queue.is_empty() {
                held_back = true;
                lane.lane.ready.say_more_waits();
            }
        }
        self.refuse_above_the_limit(&mut batch);
        (batch, held_back)
    }

    /// Sorts out what is above a limit. It is answered later: that may take a look into the database,
    /// and everybody waits for the inbox.
    fn refuse_above_the_limit(&self, batch: &mut Batch) {
        let (accepts, refused) = (&mut batch.accepts, &mut batch.refused);
        if self.space.is_full() {
            refused.extend(accepts.drain(..).map(|candidate| (candidate, StoreError::NoRoom)));
        }
        let mut room_of_each = self.backlog.room();
        let above = accepts.extract_if(.., |candidate| !room_of_each.take(candidate.owner));
        refused.extend(above.map(|candidate| (candidate, StoreError::FullForCredentials)));
        let room = self.max_queued_tasks.saturating_sub(self.unfinished);
        let keep = usize::try_from(room).unwrap_or(usize::MAX).min(accepts.len());
        refused.extend(accepts.drain(keep..).map(|candidate| (candidate, StoreError::Full)));
    }

    /// A call that is there already, by its idempotency key, needs no room.
    fn refuse(&self, Candidate { accept, .. }: Candidate, full: StoreError) {
        let known = apply::known_or(full, &self.connection, &accept.task);
        accept.answer(known);
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

    fn commit(&mut self, mut batch: Batch) {
        batch.errands.drain(..).for_each(run);
        for (candidate, full) in std::mem::take(&mut batch.refused) {
            self.refuse(candidate, full);
        }
        let now = self.clock.steady();
        if batch.operations.is_empty() && batch.accepts.is_empty() && !self.can_claim(now) {
            // Only retention asked for something. An empty commit would say that the store writes again.
            return;
        }
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
        for candidate in batch.accepts {
            self.commit(Batch { accepts: vec![candidate], ..Batch::default() });
        }
    }

    fn transact(&mut self, operations: &[Operation], accepts: &[Candidate]) -> rusqlite::Result<Applied> {
        let now = self.clock.steady();
        let started = Instant::now();
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut applied = Applied {
            at: now,
            settled: Vec::with_capacity(operations.len()),
            accepted: Vec::with_capacity(accepts.len()),
            claimed: Vec::with_capacity(self.lanes.len()),
            claimed_deliveries: Vec::new(),
            due: self.lanes.iter().map(|lane| lane.due).collect(),
            delivery_due: self.delivery_due,
            finished: Vec::new(),
            cancelled: Vec::new(),
        };
        let mut statements = Statements::of(&tx);
        for operation in operations {
            let (settled, effect) = apply::operation(&mut statements, operation, &self.leased)?;
            note(&mut applied, &self.lanes, &effect);
            applied.settled.push(settled);
        }
        let mut room: Vec<usize> = self.lanes.iter().map(|lane| lane.lane.ready.room()).collect();
        for Candidate { accept, owner } in accepts {
            if let Some(known) = apply::known(&tx, &accept.task)? {
                applied.accepted.push((known, None));
                continue;
            }
            let index = accept.task.lane.0;
            // Behind a backlog it queues up like everybody else.
            let hand_off = self.claiming && room[index] > 0 && !self.lanes[index].backlog;
            let lease = hand_off.then(claim::new_lease);
            apply::accept(&mut statements, &accept.task, self.lanes[index].upstream, *owner, lease)?;
            if hand_off {
                room[index] -= 1;
            } else {
                applied.due[index] = applied.due[index].min(accept.task.now);
            }
            applied.accepted.push((Accepted::New, lease));
        }
        drop(statements);
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
        self.seen.note(&tx, &self.clock)?;
        self.space.look(&tx)?;
        tx.commit()?;
        self.commit_seconds.observe(started.elapsed().as_secs_f64());
        Ok(applied)
    }

    /// The commit is on disk: answers everybody, then hands off what is leased.
    fn answer(&mut self, batch: Batch, applied: Applied) {
        if self.failing_until.take().is_some() {
            tracing::info!("the store writes again");
        }
        for (candidate, (accepted, _)) in batch.accepts.iter().zip(&applied.accepted) {
            if *accepted == Accepted::New {
                self.unfinished += 1;
                self.backlog.add(candidate.owner);
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
            if let Operation::SettleAttempt { seq, .. }
            | Operation::ReleaseTask { seq, .. }
            | Operation::Cancel { seq, .. } = &operation
            {
                self.leased.remove(*seq);
            }
            // Whoever asked may have gone; what was written stays true.
            let _ = operation.into_reply().send(Ok(settled));
        }
        let mut ready: Vec<Vec<ReadyTask>> = self.lanes.iter().map(|_| Vec::new()).collect();
        for (Candidate { mut accept, owner }, (accepted, lease)) in
            batch.accepts.into_iter().zip(applied.accepted)
        {
            if accepted == Accepted::New {
                accept.task.accepted.inc();
            }
            if let Some(lease) = lease {
                self.leased
                    .insert(accept.task.id.seq(), Held { owner, has_chunks: accept.task.body.len() > 1 });
                let task = ReadyTask {
                    seq: accept.task.id.seq(),
                    lease,
                    attempts: 0,
                    started: 0,
                    started_at: Timestamp(0),
                    deadline: accept.task.deadline,
                    request: accept.task.carried.take().map(Request::Carried),
                };
                ready[accept.task.lane.0].push(task);
            }
            accept.answer(Ok(accepted));
        }
        let handed_off = ready.into_iter().zip(applied.claimed).zip(applied.due);
        for (lane, ((ready, claimed), due)) in self.lanes.iter_mut().zip(handed_off) {
            lane.due = due;
            lane.backlog = due <= applied.at;
            lane.lane.ready.push_all(ready.into_iter());
            let claimed = claimed.into_iter().map(|(task, held)| {
                self.leased.insert(task.seq, held);
                task
            });
            if claimed.len() > 0 {
                ReadAhead::new(Arc::clone(&lane.lane), claimed.collect()).start(&self.readers);
            }
        }
        self.delivery_due = applied.delivery_due;
        self.deliveries.push_all(applied.claimed_deliveries.into_iter());
    }

    fn purge(&mut self, purge: Purge) {
        let now = self.clock.steady();
        let room = self.room.make(&self.connection, now);
        let done = room.and_then(|()| {
            // Of an idle node nothing else writes it.
            self.seen.note(&self.connection, &self.clock)?;
            retention::transact(&mut self.connection, &purge, &self.space)
        });
        let done = done.map_err(|error| {
            self.room.failed(&error, now);
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

/// Whoever wanted it finds that it was not done.
fn run(errand: Errand) {
    if catch_unwind(AssertUnwindSafe(errand)).is_err() {
        tracing::error!("an errand panicked; it counts as not done");
    }
}

fn refuse(batch: Batch) {
    for operation in batch.operations {
        let _ = operation.into_reply().send(Err(StoreError::Unavailable));
    }
    for Candidate { accept, .. } in batch.accepts {
        accept.answer(Err(StoreError::Unavailable));
    }
}

#[cfg(test)]
pub(crate) mod by_hand;
