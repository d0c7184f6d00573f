//! What waits for the writer: settles before accepts, everything bounded.
//!
//! One mutex, one condition variable and a bell. A busy writer costs its callers no system call. A sleeping
//! one is woken by the condition variable; those with work for it ring the bell instead, which a task of
//! the runtime hears behind all that are ready by then (`docs/decisions/0011-wake-ups.md`).

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::answers::Answer;
use crate::clock::Timestamp;
use crate::id::Seq;
use crate::lease::LeaseToken;
use crate::seal::Sealed;
use crate::store::{
    Accepted, AttemptEnd, AttemptRecord, Cutoffs, DeliveryEnd, LaneId, NewTask, Purged, Settled, StoreError,
};

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// The task goes back with its answer, to be dropped where it was made: two threads that free each other's
/// memory wait for each other.
pub(super) type AcceptReply = oneshot::Sender<(Result<Accepted, StoreError>, Box<NewTask>)>;

/// Calls waiting to be accepted, a lane; beyond it they are refused.
const ACCEPTS_MAX: usize = 8_192;

/// Settles and the like. Their number is bounded by the work in flight; this only guards a defect.
const OPERATIONS_MAX: usize = 65_536;

/// So many are worth a commit: a sleeping writer is woken without waiting whether there will be more.
const ENOUGH: usize = 48;

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

    /// For whoever waits for it.
    pub fn answer(self, settled: Result<Settled, StoreError>) -> Answer {
        let reply = match self {
            Self::Started { reply, .. }
            | Self::SettleAttempt { reply, .. }
            | Self::SettleDelivery { reply, .. }
            | Self::ReleaseTask { reply, .. }
            | Self::ReleaseDelivery { reply, .. }
            | Self::StageChunk { reply, .. }
            | Self::Cancel { reply, .. } => reply,
        };
        Answer::Settled(reply, settled)
    }
}

pub(super) struct Accept {
    pub task: Box<NewTask>,
    pub reply: AcceptReply,
}

impl Accept {
    pub fn answer(self, accepted: Result<Accepted, StoreError>) -> Answer {
        Answer::Accepted(self.reply, accepted, self.task)
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
    pub purge: Option<Purge>,
    pub phase: Phase,
    asleep: bool,
}

impl Waiting {
    fn is_enough(&self) -> bool {
        self.operations.len() + self.accepts.iter().map(VecDeque::len).sum::<usize>() == ENOUGH
    }

    pub fn is_empty(&self) -> bool {
        self.operations.is_empty() && self.purge.is_none() && self.accepts.iter().all(VecDeque::is_empty)
    }
}

pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    /// Rung on the runtime, for a writer that sleeps.
    bell: Notify,
    /// For a writer that is turned by hand.
    #[cfg(test)]
    pub woken: Notify,
}

impl Inbox {
    pub fn new(lanes: usize) -> Self {
        let accepts = (0..lanes).map(|_| VecDeque::new()).collect();
        let waiting = Waiting { accepts, ..Waiting::default() };
        Self {
            waiting: Mutex::new(waiting),
            wake: Condvar::new(),
            bell: Notify::new(),
            #[cfg(test)]
            woken: Notify::new(),
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

    /// Wakes a sleeping writer.
    pub fn wake(&self) {
        #[cfg(test)]
        self.woken.notify_one();
        self.wake.notify_one();
    }

    /// Wakes a sleeping writer once there is enough, or everybody who is ready now has had a turn: they may
    /// bring more, and one commit for all costs less than one for the first and one for the others.
    fn ring(&self, waiting: MutexGuard<'_, Waiting>) {
        let (asleep, is_enough) = (waiting.asleep, waiting.is_enough());
        drop(waiting);
        if asleep && is_enough {
            self.wake();
            return;
        }
        #[cfg(test)]
        self.woken.notify_one();
        if asleep {
            self.bell.notify_one();
        }
    }

    /// Waits until somebody rings; whoever hears it is to [wake](Inbox::wake) the writer.
    pub async fn bell(&self) {
        self.bell.notified().await;
    }

    pub fn nudge(&self) {
        self.ring(self.lock());
    }

    pub fn push(&self, operation: Operation) -> Result<(), StoreError> {
        let mut waiting = self.lock();
        if waiting.phase == Phase::Closing || waiting.operations.len() >= OPERATIONS_MAX {
            return Err(StoreError::Unavailable);
        }
        waiting.operations.push_back(operation);
        self.ring(waiting);
        Ok(())
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
        // A writer that sleeps beside a queue that is not empty holds its calls back, or the bell has been
        // rung: one call more changes nothing, and waking it for each would cost more than accepting it.
        let changes_nothing = !queue.is_empty();
        queue.push_back(Accept { task, reply });
        if !changes_nothing || waiting.is_enough() {
            self.ring(waiting);
        }
        Ok(())
    }

    pub fn set_purge(&self, purge: Purge) -> Result<(), StoreError> {
        let mut waiting = self.lock();
        if waiting.phase == Phase::Closing || waiting.purge.is_some() {
            return Err(StoreError::Unavailable);
        }
        waiting.purge = Some(purge);
        self.ring(waiting);
        Ok(())
    }

    pub fn stop_claiming(&self) {
        let mut waiting = self.lock();
        if waiting.phase == Phase::Serving {
            waiting.phase = Phase::Draining;
        }
        drop(waiting);
        self.wake();
    }

    /// Wakes the writer itself: the runtime's only thread may be about to wait for its end.
    pub fn close(&self) {
        self.lock().phase = Phase::Closing;
        self.wake();
    }

    /// Nobody will take what waits: everybody hears so now, and whoever comes later at once.
    pub fn abandon(&self) {
        let mut waiting = self.lock();
        let lanes = waiting.accepts.len();
        let accepts = (0..lanes).map(|_| VecDeque::new()).collect();
        *waiting = Waiting { accepts, phase: Phase::Closing, ..Waiting::default() };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::store::embedded::answers;

    /// Far beyond what a test takes: who sleeps so long was not woken.
    const LONG: Duration = Duration::from_secs(20);

    fn operation() -> Operation {
        Operation::Cancel { seq: Seq(1), now: Timestamp(0), reply: oneshot::channel().0 }
    }

    /// A thread that sleeps as the writer does, once, and says what it found if it was woken.
    async fn sleeping(inbox: &Arc<Inbox>) -> std::thread::JoinHandle<Option<usize>> {
        let sleeper = Arc::clone(inbox);
        let thread = std::thread::spawn(move || {
            let begun = Instant::now();
            let found = sleeper.sleep(sleeper.lock(), LONG).operations.len();
            (begun.elapsed() < LONG).then_some(found)
        });
        while !inbox.lock().asleep {
            tokio::task::yield_now().await;
        }
        thread
    }

    #[tokio::test]
    async fn the_writer_is_woken_when_all_that_were_ready_have_brought_their_work() {
        let inbox = Arc::new(Inbox::new(1));
        let (_sender, receiver) = answers::channel();
        tokio::spawn(receiver.serve(Arc::clone(&inbox)));
        let writer = sleeping(&inbox).await;
        for _ in 0..20 {
            let inbox = Arc::clone(&inbox);
            tokio::spawn(async move {
                inbox.push(operation()).unwrap();
                // Time in which a writer that was woken too early finds only a part.
                std::thread::sleep(Duration::from_millis(1));
            });
        }
        let found = tokio::task::spawn_blocking(|| writer.join()).await.unwrap().unwrap();
        assert_eq!(found, Some(20));
    }

    #[tokio::test]
    async fn work_that_is_worth_a_commit_waits_for_no_more() {
        let inbox = Arc::new(Inbox::new(1));
        let writer = sleeping(&inbox).await;
        for _ in 0..ENOUGH {
            inbox.push(operation()).unwrap();
        }
        // Nobody hears the bell.
        assert_eq!(writer.join().unwrap(), Some(ENOUGH));
    }

    #[tokio::test]
    async fn closing_wakes_the_writer_though_nobody_has_a_turn() {
        let inbox = Arc::new(Inbox::new(1));
        let writer = sleeping(&inbox).await;
        inbox.close();
        // This thread, the runtime's only one, stands still.
        assert_eq!(writer.join().unwrap(), Some(0));
        assert!(matches!(inbox.push(operation()), Err(StoreError::Unavailable)));
    }
}
