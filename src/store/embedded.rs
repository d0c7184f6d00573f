//! The embedded store: SQLite in the data directory, owned by one process.
//!
//! One writer thread does every change: it takes whatever operations wait, applies them in one
//! transaction, and answers them all after the commit is on disk. Readers have connections of their
//! own and never wait for the writer. A lock on the data directory keeps a second process out.

mod apply;
mod backlog;
mod cancel;
mod claim;
mod inbox;
mod inspect;
mod offline;
mod open;
mod read;
mod read_ahead;
mod reader;
mod retention;
mod room;
mod seen;
mod signing;
mod space;
mod statements;
mod writer;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    Accepted, AttemptEnd, AttemptRecord, Cancelled, ChunkKind, Cutoffs, DeliveryEnd, Errand, Lane, NewTask,
    Purged, Ready, ReadyDelivery, Settled, StoreError,
};
use crate::clock::{Clock, Timestamp};
use crate::id::{KeyHash, Seq, TaskIds};
use crate::lease::LeaseToken;
use crate::seal::Sealed;
use inbox::{Inbox, Operation, Removal};
use reader::Readers;
use space::Space;

#[cfg(test)]
pub(super) use reader::traced;
#[cfg(test)]
pub(crate) use writer::by_hand;

pub use offline::{Compacted, Erased, Files, OfflineStore, change_signing_keys, signing_keys};
pub use open::{Busy, NodeSecrets, OpenError, OpenOptions};

/// A handle to the store; clones share it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    inbox: Arc<Inbox>,
    readers: Arc<Readers>,
    lanes: Vec<Arc<Lane>>,
    deliveries: Arc<Ready<ReadyDelivery>>,
    /// Attempts in flight, by number.
    running: Mutex<HashMap<Seq, u32, KeyHash>>,
    ids: TaskIds,
    clock: Clock,
    /// Set by the writer after each commit.
    full: Arc<AtomicBool>,
    space: Arc<Space>,
    /// The writer panicked.
    failed: CancellationToken,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Shared {
    fn running(&self) -> MutexGuard<'_, HashMap<Seq, u32, KeyHash>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// One lane an upstream, in the order given at opening.
    #[must_use]
    pub fn lanes(&self) -> &[Arc<Lane>] {
        &self.shared.lanes
    }

    /// Deliveries that rested in the store and are due.
    #[must_use]
    pub fn deliveries(&self) -> &Arc<Ready<ReadyDelivery>> {
        &self.shared.deliveries
    }

    /// Ids that never repeat a key of this store.
    #[must_use]
    pub fn ids(&self) -> &TaskIds {
        &self.shared.ids
    }

    /// The node's clock, its steady time not before anything that was written in it.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.shared.clock
    }

    /// Says that attempt `number` of this task is in flight, until the guard is dropped.
    #[must_use]
    pub fn running(&self, seq: Seq, number: u32) -> RunningGuard {
        self.shared.running().insert(seq, number);
        RunningGuard { store: self.clone(), seq, number }
    }

    /// The number of the attempt in flight.
    fn running_attempt(&self, seq: Seq) -> Option<u32> {
        self.shared.running().get(&seq).copied()
    }

    /// Whether a call offered now would most likely be refused. Spares reading its body.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.shared.full.load(Ordering::Relaxed)
    }

    /// The same, because as many bytes as configured are in use.
    #[must_use]
    pub fn has_no_room(&self) -> bool {
        self.shared.space.is_full()
    }

    /// Bytes that hold something, as of the last commit; 0 where no bound is configured.
    #[must_use]
    pub fn bytes_in_use(&self) -> u64 {
        self.shared.space.in_use()
    }

    /// Waits for a commit that leaves so much in use that something should be removed. One caller.
    pub async fn crowded(&self) {
        self.shared.space.crowded().await;
    }

    /// Writes the task, unless its idempotency key is there already: then nothing. A new one may be
    /// handed to its lane's ready queue at once.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::FullForCredentials`]: too many tasks are unfinished.
    /// [`StoreError::NoRoom`]: too many bytes are in use.
    /// [`StoreError::Unavailable`]: not written.
    pub async fn accept(&self, task: NewTask) -> Result<Accepted, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.shared.inbox.push_accept(task.lane, Box::new(task), reply)?;
        answer.await.map_or(Err(StoreError::Unavailable), |(accepted, _written)| accepted)
    }

    /// Writes that attempt `number` of an unsafe call is about to be sent; `at` is the wall clock.
    ///
    /// # Errors
    /// The store cannot write now.
    pub async fn started(
        &self,
        seq: Seq,
        lease: LeaseToken,
        number: u32,
        at: Timestamp,
    ) -> Result<Settled, StoreError> {
        self.operate(|reply| Operation::Started { seq, lease, number, at, reply }).await
    }

    /// Ends a task that is not finished, whoever holds its lease, or erases the result of one that is.
    /// What is owed to its receiver stays owed. `now` is the steady clock.
    ///
    /// # Errors
    /// The store cannot write now.
    pub async fn cancel(&self, seq: Seq, now: Timestamp) -> Result<Cancelled, StoreError> {
        let settled = self.operate(|reply| Operation::Cancel { seq, now, reply }).await?;
        Ok(if settled == Settled::Lost { Cancelled::Result } else { Cancelled::Task })
    }

    /// Has the writer run `errand` before it commits what it is asked for next: when that is answered, the
    /// errand has run. For computing what is needed only once something is on disk. It wakes nobody, and where
    /// too many wait, or at the end of the process, it is not run at all.
    pub fn before_next_commit(&self, errand: Errand) {
        self.shared.inbox.push_errand(errand);
    }

    /// Writes how an attempt ended and gives the lease back. A final end erases the request.
    ///
    /// # Errors
    /// The store cannot write now.
    pub async fn settle_attempt(
        &self,
        seq: Seq,
        lease: LeaseToken,
        record: Option<AttemptRecord>,
        end: Arc<AttemptEnd>,
    ) -> Result<Settled, StoreError> {
        self.operate(|reply| Operation::SettleAttempt { seq, lease, record, end, reply }).await
    }

    /// Writes how a delivery attempt ended and gives the lease back.
    ///
    /// # Errors
    /// The store cannot write now.
    pub async fn settle_delivery(
        &self,
        seq: Seq,
        lease: LeaseToken,
        record: AttemptRecord,
        end: DeliveryEnd,
    ) -> Result<Settled, StoreError> {
        self.operate(|reply| Operation::SettleDelivery { seq, lease, record, end, reply }).await
    }

    /// Gives a task back that was not attempted.
    ///
    /// # Errors
    /// The store cannot write now.
    pub async fn release_task(
        &self,
        seq: Seq,
        lease: LeaseToken,
        due_at: Timestamp,
    ) -> Result<Settled, StoreError> {
        self.operate(|reply| Operation::ReleaseTask { seq, lease, due_at, reply }).await
    }

    /// Gives a delivery back that was not tried.
    ///
    /// # Errors
    /// The store cannot write now.
    pub async fn release_delivery(
        &self,
        seq: Seq,
        lease: LeaseToken,
        due_at: Timestamp,
    ) -> Result<Settled, StoreError> {
        self.operate(|reply| Operation::ReleaseDelivery { seq, lease, due_at, reply }).await
    }

    /// Writes a chunk of a result ahead of its settle; only the settle makes it part of a result.
    ///
    /// # Errors
    /// The store cannot write now.
    pub async fn stage_result_chunk(
        &self,
        seq: Seq,
        lease: LeaseToken,
        index: u32,
        data: Sealed,
    ) -> Result<Settled, StoreError> {
        self.operate(|reply| Operation::StageChunk { seq, lease, index, data: Arc::new(data), reply }).await
    }

    /// Removes results, then tasks whose result is gone, then idempotency keys; about `rows` rows in one
    /// transaction of its own.
    ///
    /// # Errors
    /// The store cannot write now.
    pub async fn purge(&self, before: Cutoffs, rows: u64) -> Result<Purged, StoreError> {
        self.remove(Removal::Aged(before), rows).await
    }

    /// Removes these tasks with all that belongs to them, in this order, until no more than `goal` bytes
    /// are in use; about `rows` rows in one transaction of its own. One that is not final, or whose
    /// delivery is owed, stays.
    ///
    /// # Errors
    /// The store cannot write now.
    pub async fn make_room(&self, tasks: Vec<Seq>, goal: u64, rows: u64) -> Result<Purged, StoreError> {
        self.remove(Removal::Oldest { tasks, goal }, rows).await
    }

    async fn remove(&self, removal: Removal, rows: u64) -> Result<Purged, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.shared.inbox.set_purge(inbox::Purge { removal, rows, reply })?;
        answer.await.unwrap_or(Err(StoreError::Unavailable))
    }

    /// From now on nothing is handed off or claimed; operations go on.
    pub fn stop_claiming(&self) {
        self.shared.inbox.stop_claiming();
    }

    /// Finishes what waits, checkpoints, closes the files. Blocks; later operations are refused.
    pub fn close(&self) {
        self.shared.inbox.close();
        let writer = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // A writer that panicked has nothing left to close.
            let _ = writer.join();
        }
    }

    /// Waits until nothing can be written any more because of a defect; then the process must end, and
    /// the next start goes on with what is stored.
    pub async fn failed(&self) {
        self.shared.failed.cancelled().await;
    }

    async fn operate(
        &self,
        operation: impl FnOnce(inbox::Reply<Settled>) -> Operation,
    ) -> Result<Settled, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.shared.inbox.push(operation(reply))?;
        answer.await.unwrap_or(Err(StoreError::Unavailable))
    }
}

/// Says that an attempt is in flight; see [`Store::running`].
pub struct RunningGuard {
    store: Store,
    seq: Seq,
    number: u32,
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        // The next attempt may have begun already.
        if let Entry::Occupied(running) = self.store.shared.running().entry(self.seq)
            && *running.get() == self.number
        {
            running.remove();
        }
    }
}

impl ChunkKind {
    fn column(self) -> i64 {
        self as i64
    }
}
