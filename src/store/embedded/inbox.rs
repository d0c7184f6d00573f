//! What waits for the writer: errands before settles before accepts, everything bounded.
//!
//! One mutex and one condition variable. The variable is signalled only when the writer sleeps, so a
//! busy writer costs its callers no system call.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Timestamp;
use crate::id::Seq;
use crate::lease::LeaseToken;
use crate::seal::Sealed;
use crate::store::{
    Accepted, AttemptEnd, AttemptRecord, Cutoffs, DeliveryEnd, Errand, LaneId, NewTask, Purged, Settled,
    StoreError,
};

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// The task goes back with its answer, to be dropped where it was made: two threads that free each other's
/// memory wait for each other.
pub(super) type AcceptReply = oneshot::Sender<(Result<Accepted, StoreError>, Box<NewTask>)>;

/// Calls waiting to be accepted, a lane; beyond it they are refused.
const ACCEPTS_MAX: usize = 8_192;

/// Errands waiting to be run; more are dropped, for everybody can do without.
const ERRANDS_MAX: usize = 4_096;

/// Settles and the like. Their number is bounded by the work in flight; this only guards a defect.
const OPERATIONS_MAX: usize = 65_536;

/// A change to a task or delivery that is there already.
pub(super) enum Operation {
    Started {
        seq: Seq,
        lease: LeaseToken,
        number: u32,
        at: Timestamp,
        reply: Reply<Settled>,
    },
    SettleAttempt {
        seq: Seq,
        lease: LeaseToken,
        record: Option<AttemptRecord>,
        end: Arc<AttemptEnd>,
        reply: Reply<Settled>,
    },
    SettleDelivery {
        seq: Seq,
        lease: LeaseToken,
        record: AttemptRecord,
        end: DeliveryEnd,
        reply: Reply<Settled>,
    },
    ReleaseTask {
        seq: Seq,
        lease: LeaseToken,
        due_at: Timestamp,
        reply: Reply<Settled>,
    },
    ReleaseDelivery {
        seq: Seq,
        lease: LeaseToken,
        due_at: Timestamp,
        reply: Reply<Settled>,
    },
    StageChunk {
        seq: Seq,
        lease: LeaseToken,
        index: u32,
        data: Arc<Sealed>,
        reply: Reply<Settled>,
    },
    /// Whoever holds the lease.
    Cancel {
        seq: Seq,
        now: Timestamp,
        reply: Reply<Settled>,
    },
}

impl Operation {
    /// Whether it settles an attempt.
    pub fn settles_an_attempt(&self) -> bool {
        matches!(self, Self::SettleAttempt { .. })
    }

    /// Whoever waits for it.
    pub fn into_reply(self) -> Reply<Settled> {
        match self {
            Self::Started { reply, .. }
            | Self::SettleAttempt { reply, .. }
            | Self::SettleDelivery { reply, .. }
            | Self::ReleaseTask { reply, .. }
            | Self::ReleaseDelivery { reply, .. }
            | Self::StageChunk { reply, .. }
            | Self::Cancel { reply, .. } => reply,
        }
    }
}

pub(super) struct Accept {
    pub task: Box<NewTask>,
    pub reply: AcceptReply,
}

impl Accept {
    /// Whoever asked may have gone; what was written stays true.
    pub fn answer(self, accepted: Result<Accepted, StoreError>) {
        let _ = self.reply.send((accepted, self.task));
    }
}

/// What a retention transaction is to remove.
pub(super) enum Removal {
    /// What is older than this.
    Aged(Cutoffs),
    /// These tasks, until no more than `goal` bytes are in use.
    Oldest { tasks: Vec<Seq>, goal: u64 },
}

/// One retention transaction.
pub(super) struct Purge {
    pub removal: Removal,
    pub rows: u64,
    pub reply: Reply<Purged>,
}

/// How far the writer still goes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Serving,
    /// Operations go on; nothing is handed off or claimed.
    Draining,
    /// What waits is answered, nothing more is taken.
    Closing,
}

#[derive(Default)]
pub(super) struct Waiting {
    pub operations: VecDeque<Operation>,
    /// One queue a lane.
    pub accepts: Vec<VecDeque<Accept>>,
    pub errands: Vec<Errand>,
    pub purge: Option<Purge>,
    pub phase: Phase,
    /// Set by anybody who wants the writer to look again.
    pub nudged: bool,
    asleep: bool,
}

impl Waiting {
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty() && self.purge.is_none() && self.accepts.iter().all(VecDeque::is_empty)
    }
}

pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    /// For a writer that is turned by hand.
    #[cfg(test)]
    pub woken: tokio::sync::Notify,
}

impl Inbox {
    pub fn new(lanes: usize) -> Self {
        let accepts = (0..lanes).map(|_| VecDeque::new()).collect();
        let waiting = Waiting { accepts, ..Waiting::default() };
        Self {
            waiting: Mutex::new(waiting),
            wake: Condvar::new(),
            #[cfg(test)]
            woken: tokio::sync::Notify::new(),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until woken or `at_most` has passed.
    pub fn sleep<'a>(
        &self,
        mut waiting: MutexGuard<'a, Waiting>,
        at_most: Duration,
    ) -> MutexGuard<'a, Waiting> {
        waiting.asleep = true;
        let (mut waiting, _) =
            self.wake.wait_timeout(waiting, at_most).unwrap_or_else(PoisonError::into_inner);
        waiting.asleep = false;
        waiting
    }

    fn signal(&self, mut waiting: MutexGuard<'_, Waiting>) {
        waiting.nudged = true;
        let asleep = waiting.asleep;
        drop(waiting);
        #[cfg(test)]
        self.woken.notify_one();
        if asleep {
            self.wake.notify_one();
        }
    }

    pub fn nudge(&self) {
        self.signal(self.lock());
    }

    pub fn push(&self, operation: Operation) -> Result<(), StoreError> {
        let mut waiting = self.lock();
        if waiting.phase == Phase::Closing || waiting.operations.len() >= OPERATIONS_MAX {
            return Err(StoreError::Unavailable);
        }
        waiting.operations.push_back(operation);
        self.signal(waiting);
        Ok(())
    }

    /// Without a signal: whoever needs the errand done pushes an operation after it.
    pub fn push_errand(&self, errand: Errand) {
        let mut waiting = self.lock();
        if waiting.errands.len() < ERRANDS_MAX {
            waiting.errands.push(errand);
        }
    }

    pub fn push_accept(
        &self,
        lane: LaneId,
        task: Box<NewTask>,
        reply: AcceptReply,
    ) -> Result<(), StoreError> {
        let mut waiting = self.lock();
        if waiting.phase == Phase::Closing {
            return Err(StoreError::Unavailable);
        }
        let queue = waiting.accepts.get_mut(lane.0).ok_or(StoreError::Unavailable)?;
        if queue.len() >= ACCEPTS_MAX {
            return Err(StoreError::Full);
        }
        // A writer that sleeps beside a queue that is not empty holds its calls back: one more of them
        // changes nothing, and waking it for each would cost more than accepting it.
        let changes_nothing = !queue.is_empty();
        queue.push_back(Accept { task, reply });
        if !changes_nothing {
            self.signal(waiting);
        }
        Ok(())
    }

    pub fn set_purge(&self, purge: Purge) -> Result<(), StoreError> {
        let mut waiting = self.lock();
        if waiting.phase == Phase::Closing || waiting.purge.is_some() {
            return Err(StoreError::Unavailable);
        }
        waiting.purge = Some(purge);
        self.signal(waiting);
        Ok(())
    }

    pub fn stop_claiming(&self) {
        let mut waiting = self.lock();
        if waiting.phase == Phase::Serving {
            waiting.phase = Phase::Draining;
        }
        self.signal(waiting);
    }

    pub fn close(&self) {
        let mut waiting = self.lock();
        waiting.phase = Phase::Closing;
        self.signal(waiting);
    }

    /// Nobody will take what waits: everybody hears so now, and whoever comes later at once.
    pub fn abandon(&self) {
        let mut waiting = self.lock();
        let lanes = waiting.accepts.len();
        let accepts = (0..lanes).map(|_| VecDeque::new()).collect();
        *waiting = Waiting { accepts, phase: Phase::Closing, ..Waiting::default() };
    }
}
