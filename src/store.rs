//! Durable state: every operation is one transaction, named after its use case.
//!
//! This module owns the values that go in and out; [`embedded`] keeps them in SQLite. Promises:
//! - an operation that answered `Ok` is on stable storage;
//! - a result and the delivery that announces it are written together;
//! - a settle under a lease that is no longer held changes nothing and says [`Settled::Lost`];
//! - values that come sealed stay sealed: nothing here holds a key.

mod cancellations;
mod embedded;
mod ready;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::OwnedSemaphorePermit;

use crate::clock::Timestamp;
use crate::guard::Receiver;
use crate::id::{Seq, TaskId};
use crate::lease::LeaseToken;
use crate::outcome::{Failure, Outcome, Unanswered};
use crate::seal::{Sealed, TaskKey};
use crate::task::{FinalStatus, Progress};

pub use cancellations::{Cancellations, TakenUp};
#[cfg(test)]
pub(crate) use embedded::by_hand;
pub use embedded::{
    Busy, Compacted, Erased, Files, NodeSecrets, OfflineStore, OpenError, OpenOptions, RunningGuard, Store,
    change_signing_keys, signing_keys,
};
pub use ready::{Callee, InCall, InFlight, Lane, LaneId, Load, Ready};

/// Why an operation had no effect.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Disk full, I/O error, or the store is closing. Nothing was written; trying again is right.
    #[error("the store cannot write now")]
    Unavailable,
    /// As many tasks as configured are neither Succeeded nor Failed, or too many calls wait to be
    /// accepted.
    #[error("too many tasks are waiting")]
    Full,
    /// The same, of these credentials at this upstream.
    #[error("too many tasks of these credentials are waiting")]
    FullForCredentials,
    /// As many bytes as configured are in use, and what may go has not gone yet.
    #[error("the store holds as much as it may")]
    NoRoom,
}

/// A call to accept. Everything a user could mind is sealed already.
pub struct NewTask {
    pub id: TaskId,
    pub lane: LaneId,
    pub credentials_id: Arc<str>,
    pub method: Method,
    pub path: String,
    pub query: Option<Sealed>,
    pub webhook_uri: Option<Sealed>,
    pub headers: Sealed,
    /// The body in chunks of [`crate::seal::CHUNK_BYTES`]; empty for no body.
    pub body: Vec<Sealed>,
    /// Wall clock.
    pub accepted_at: Timestamp,
    /// Steady clock.
    pub now: Timestamp,
    pub deadline: Timestamp,
    /// Only of a call that carried an `Idempotency-Key`.
    pub repeatable: Option<Box<Repeatable>>,
    /// The call in the clear, so that a task handed off need not be read back. See [`CARRIED_BYTES`].
    pub carried: Option<Box<Carried>>,
    /// The task's share of the memory for calls being accepted. Held until the task is written or
    /// refused, also when its client has gone.
    pub buffered: Option<OwnedSemaphorePermit>,
    /// Counts the task as soon as it is written, also when its client has gone.
    pub accepted: Counter,
}

/// Keyed hashes of an `Idempotency-Key`, with whom it belongs to, and of the call it came with.
#[derive(Clone, PartialEq, Eq)]
pub struct Repeatable {
    pub key: [u8; 32],
    pub call: [u8; 32],
}

/// What became of a call that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    New,
    /// Its key was there with the same call, which is this task; nothing was written.
    Before(TaskId),
    /// Its key was there with another call; nothing was written.
    OtherCall,
}

/// Requests up to this size wait in memory for their attempt; a larger one is read when it is made, so that a
/// full ready queue stays small.
pub const CARRIED_BYTES: u32 = 16 * 1024;

/// What a worker needs to run a task: read from the store, or carried from its acceptance.
pub struct Carried {
    pub task: TaskFacts,
    pub headers: http::HeaderMap,
    pub body: bytes::Bytes,
    /// Seals the result too, where it is at hand: deriving it again costs more than sealing.
    pub key: Option<TaskKey>,
}

/// What attempts and deliveries need to know of a task, opened.
pub struct TaskFacts {
    pub id: TaskId,
    pub credentials_id: Arc<str>,
    pub method: Method,
    pub path: String,
    pub query: Option<String>,
    pub receiver: Option<Receiver>,
    pub accepted_at: Timestamp,
}

/// The same as stored.
pub struct StoredTask {
    pub id: TaskId,
    pub upstream: String,
    pub credentials_id: String,
    pub method: String,
    pub path: String,
    pub query: Option<Sealed>,
    pub webhook_uri: Option<Sealed>,
    pub accepted_at: Timestamp,
}

/// A request as stored.
pub struct StoredRequest {
    pub task: StoredTask,
    pub headers: Sealed,
    pub body: Option<Sealed>,
    pub chunks: u32,
}

/// A task under a lease, ready to be attempted.
pub struct ReadyTask {
    pub seq: Seq,
    pub lease: LeaseToken,
    pub attempts: u32,
    /// Attempt of an unsafe call whose first byte may have left; above `attempts` it was interrupted.
    pub started: u32,
    /// When that was, by the wall clock.
    pub started_at: Timestamp,
    pub deadline: Timestamp,
    /// `None` where it is too large to wait in memory, or could not be read.
    pub request: Option<Request>,
}

/// The request of a task that waits to be attempted.
pub enum Request {
    Carried(Box<Carried>),
    Stored(Box<StoredRequest>),
}

/// A delivery under a lease, ready to be tried.
pub struct ReadyDelivery {
    pub seq: Seq,
    pub lease: LeaseToken,
    pub tries: u32,
}

/// One settled attempt or delivery attempt, for history.
#[derive(Clone, Copy)]
pub struct AttemptRecord {
    /// From 1.
    pub number: u32,
    /// Wall clock.
    pub ended_at: Timestamp,
    pub took_ms: u64,
    pub outcome: Outcome,
    pub status: Option<u16>,
}

/// The end of a task, sealed.
pub struct NewResult {
    pub status: FinalStatus,
    /// Steady clock.
    pub finished_at: Timestamp,
    pub attempts: u32,
    pub upstream_status: Option<u16>,
    pub headers: Option<Sealed>,
    /// First chunk; later ones were staged.
    pub body: Option<Sealed>,
    pub chunks: u32,
    /// How many later chunks this attempt staged; more than `chunks` when the body was dropped.
    pub staged: u32,
    pub length: u64,
    pub failure: Option<Failure>,
    pub unanswered: Option<Unanswered>,
    pub error: Option<Sealed>,
}

/// What becomes of a final task's webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announce {
    /// The call had no webhook URI.
    Nobody,
    /// The settling worker delivers at once and takes the lease.
    Now,
    /// The delivery rests in the store, due at once, if the call had a webhook URI.
    Later,
}

/// Work that the store's writer does for others on its own thread; see [`Store::before_next_commit`].
pub type Errand = Box<dyn FnOnce() + Send>;

/// How an attempt ended, as written.
pub enum AttemptEnd {
    Retry { due_at: Timestamp },
    Final { result: Box<NewResult>, announce: Announce },
}

/// How a delivery attempt ended, as written.
#[derive(Clone, Copy)]
pub enum DeliveryEnd {
    Delivered,
    Retry { due_at: Timestamp },
    GivenUp,
}

/// What a settle did.
#[derive(Debug, PartialEq, Eq)]
pub enum Settled {
    /// Written. Holds the delivery's lease where one was asked for.
    Done(Option<LeaseToken>),
    /// The lease was no longer held; nothing was written.
    Lost,
}

/// What a cancellation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// The task was not finished; now it is Failed.
    Task,
    /// It had ended before; its result is erased, unless it ended by an earlier cancellation.
    Result,
}

/// A task as its owner may see it.
pub enum Found {
    /// Queued or Running.
    Waiting(Progress),
    Finished(Box<StoredResult>),
    /// Final, and its result is no longer kept.
    Expired,
}

/// A final task's result as stored.
pub struct StoredResult {
    pub status: FinalStatus,
    pub attempts: u32,
    pub upstream_status: Option<u16>,
    pub headers: Option<Sealed>,
    pub body: Option<Sealed>,
    pub chunks: u32,
    pub length: u64,
    pub failure: Option<String>,
    pub reason: Option<String>,
    pub effect_unknown: bool,
    pub sent_at: Option<Timestamp>,
    pub bytes_sent: Option<u64>,
    pub cause: Option<String>,
    pub error: Option<Sealed>,
}

/// What a delivery needs, as stored: the task and how it ended.
pub struct StoredAnnouncement {
    pub task: StoredTask,
    pub status: FinalStatus,
    pub failure: Option<String>,
    pub error: Option<Sealed>,
}

/// Whose chunk.
#[derive(Clone, Copy)]
pub enum ChunkKind {
    RequestBody = 0,
    Result = 1,
}

/// What was accepted or finished before these instants is no longer kept. Steady clock.
#[derive(Clone, Copy, Debug)]
pub struct Cutoffs {
    /// By when the task finished.
    pub results: Timestamp,
    /// By when the task was accepted; only those whose result is gone.
    pub tasks: Timestamp,
    /// Idempotency keys, by when their task was accepted.
    pub keys: Timestamp,
}

/// What one retention transaction removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    pub results: u64,
    pub tasks: u64,
    pub keys: u64,
    /// All together, a long result as one row a page. At most the limit asked for and one task more.
    pub rows: u64,
    /// Of pages that are free now.
    pub bytes: u64,
    /// The last of the tasks named that was looked at.
    pub reached: Option<Seq>,
    /// What the rows took, without the commit.
    pub work: Duration,
}

/// Some of the tasks that may be removed before their time, the oldest first.
#[derive(Debug, PartialEq, Eq)]
pub struct EndedTasks {
    pub tasks: Vec<Seq>,
    /// Where to go on; `None` when all were looked at.
    pub next: Option<Seq>,
}

/// Bytes of the store on disk; its file is the first two together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreBytes {
    /// Of pages that hold something.
    pub live: u64,
    /// Of pages that are used again before the file grows.
    pub free: u64,
    /// Of the write-ahead log.
    pub log: u64,
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreNumbers {
    pub unfinished: u64,
    pub deliveries_owed: u64,
    /// Of the oldest unfinished task, wall clock.
    pub oldest_accepted_at: Option<Timestamp>,
    /// Of the result that is kept longest, steady clock.
    pub oldest_finished_at: Option<Timestamp>,
    pub bytes: StoreBytes,
}
