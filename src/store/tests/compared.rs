//! The real store beside the model: the same operations, and after each of them the same answer, the same
//! work handed out and the same rows.
//!
//! A list that tells them apart shrinks, and is kept below as a named test.

use futures_util::poll;
use proptest::prelude::*;

use super::model::{End, Model, Ms, QUEUED_EACH, QUEUED_MAX, Says};
use super::*;
use crate::store::by_hand::{Disk, Reads, Turned};

mod rows;

use rows::rows;

const NOON: Timestamp = Timestamp(1_800_000_000_000);

/// An operation on something that is there: by its place among all leases ever handed out, held or not,
/// or among all tasks.
#[derive(Clone, Debug)]
enum Op {
    Accept {
        caller: u8,
        key: Option<(u8, u8)>,
        webhook: bool,
    },
    Started(usize),
    Stage(usize),
    Retry(usize, Ms),
    Finish {
        nth: usize,
        fails: bool,
        attempted: bool,
        now: bool,
    },
    Release(usize, Ms),
    Delivered(usize),
    Undelivered(usize, Ms),
    ReleaseDelivery(usize, Ms),
    Cancel(usize),
    Purge {
        results: Ms,
        tasks: Ms,
        keys: Ms,
    },
    /// An accept while nothing can be written.
    Full,
    Wait(Ms),
    Crash,
}

/// A task's or delivery's lease in both worlds.
#[derive(Clone)]
struct Held {
    seq: Seq,
    real: LeaseToken,
    model: u64,
    /// Attempts or tries behind it.
    count: u32,
    staged: u32,
}

struct Both {
    disk: Disk,
    ring: KeyRing,
    options: OpenOptions,
    opened: Opened,
    writer: Turned,
    reads: Reads,
    model: Model,
    tasks: Vec<Seq>,
    held: Vec<Held>,
    owed: Vec<Held>,
}

fn open(disk: &Disk, ring: &KeyRing, options: &OpenOptions) -> (Opened, Turned, Reads) {
    // Another life of the node has another clock.
    let options = &OpenOptions {
        clock: Clock::by(|| NOON),
        data_dir: options.data_dir.clone(),
        database: None,
        key_file: None,
        upstreams: options.upstreams.clone(),
        commit_seconds: options.commit_seconds.clone(),
        busy: Arc::clone(&options.busy),
        ..*options
    };
    let (store, by_hand) = disk.open(options, ring);
    let clock = store.clock();
    (Opened { store, ring: ring.clone(), clock }, by_hand.writer, by_hand.reads)
}

impl Both {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ring = crate::seal::load_or_create(&dir.path().join("keys"), true).unwrap();
        let options = OpenOptions {
            max_queued_tasks: QUEUED_MAX as u64,
            max_queued_per_credentials: QUEUED_EACH as u64,
            ready_capacity: 64,
            ..options(dir.path())
        };
        let disk = Disk::new();
        let (opened, writer, reads) = open(&disk, &ring, &options);
        let model = Model::default();
        let (tasks, held, owed) = (Vec::new(), Vec::new(), Vec::new());
        Self { disk, ring, options, opened, writer, reads, model, tasks, held, owed }
    }

    fn now(&self) -> Ms {
        self.opened.clock.steady().0
    }

    /// Until the writer has nothing to do.
    fn turn(&mut self) {
        while let Some(taken) = self.writer.take() {
            if let Some(purging) = self.writer.commit(taken) {
                self.writer.purge(purging);
            }
        }
        // What was claimed is read on its way to the worker.
        while let Some(read) = self.reads.take() {
            read(&self.disk.look);
        }
    }

    /// Asks the store, turns its writer, and hears the answer.
    async fn ask<T>(&mut self, asked: impl Future<Output = T>) -> T {
        let mut asked = Box::pin(asked);
        if let std::task::Poll::Ready(answer) = poll!(&mut asked) {
            return answer;
        }
        self.turn();
        let std::task::Poll::Ready(answer) = poll!(&mut asked) else { panic!("nobody answers") };
        answer
    }

    async fn accept(&mut self, caller: u8, key: Option<(u8, u8)>, webhook: bool) -> (Says, Says) {
        let task = self.opened.task();
        let (id, deadline) = (task.id, task.deadline.0);
        let task = NewTask {
            credentials_id: Arc::from(caller.to_string()),
            repeatable: key.map(|(key, call)| Box::new(Repeatable { key: [key; 32], call: [call; 32] })),
            webhook_uri: task.webhook_uri.filter(|_| webhook),
            ..task
        };
        let now = self.now();
        let store = self.opened.store.clone();
        let real = match self.ask(store.accept(task)).await {
            Ok(Accepted::New) => Says::Accepted,
            Ok(Accepted::Before(id)) => Says::Before(id),
            Ok(Accepted::OtherCall) => Says::OtherCall,
            Err(StoreError::Full) => Says::Full,
            Err(StoreError::FullForCredentials) => Says::FullForCredentials,
            Err(StoreError::Unavailable | StoreError::NoRoom) => {
                return (Says::Unavailable, Says::Unavailable);
            }
        };
        let model = self.model.accept(id, caller, key, webhook, now, deadline);
        if model == Says::Accepted {
            self.tasks.push(id.seq());
        }
        (real, model)
    }

    async fn finish(&mut self, nth: usize, fails: bool, attempted: bool, now: bool) -> Option<(Says, Says)> {
        let held = pick(&self.held, nth)?.clone();
        let webhook = self.model.tasks.get(&held.seq).is_some_and(|task| task.webhook);
        // Only an attempt succeeds.
        let attempted = attempted || !fails;
        let attempts = held.count + u32::from(attempted);
        let chunks = if attempted { held.staged + 1 } else { 0 };
        let failure =
            Failure { code: FailureCode::UpstreamError, reason: Reason::NotTransient, effect_unknown: false };
        let result = NewResult {
            status: if fails { FinalStatus::Failed } else { FinalStatus::Succeeded },
            finished_at: self.opened.clock.steady(),
            attempts,
            upstream_status: None,
            headers: None,
            body: None,
            chunks,
            staged: held.staged,
            length: 0,
            failure: fails.then_some(failure),
            unanswered: None,
            error: None,
        };
        let announce = match (webhook, now) {
            (false, _) => Announce::Nobody,
            (true, true) => Announce::Now,
            (true, false) => Announce::Later,
        };
        let end = Arc::new(AttemptEnd::Final { result: Box::new(result), announce });
        let outcome = if fails { Outcome::Fatal } else { Outcome::Success };
        let record = attempted.then(|| self.opened.record(attempts, outcome));
        let (store, at) = (self.opened.store.clone(), self.now());
        let settled = self.ask(store.settle_attempt(held.seq, held.real, record, end)).await;
        let end = End {
            failure: fails.then_some("upstream_error"),
            attempts,
            chunks,
            recorded: attempted,
            announce_now: announce == Announce::Now,
        };
        let model = self.model.finish(held.seq, held.model, &end, at);
        if let (Ok(Settled::Done(Some(real))), Says::Done(true)) = (&settled, &model) {
            let lease = self.model.tasks[&held.seq].delivery.as_ref().and_then(|owed| owed.lease);
            let model = lease.expect("just taken");
            self.owed.push(Held { seq: held.seq, real: *real, model, count: 0, staged: 0 });
        }
        Some((said(&settled), model))
    }

    /// What both say to this; `None` where there is nothing to do it to.
    async fn apply(&mut self, op: &Op) -> Option<(Says, Says)> {
        let (store, now) = (self.opened.store.clone(), self.now());
        Some(match *op {
            Op::Accept { caller, key, webhook } => self.accept(caller, key, webhook).await,
            Op::Finish { nth, fails, attempted, now } => self.finish(nth, fails, attempted, now).await?,
            Op::Started(nth) => {
                let held = pick(&self.held, nth)?.clone();
                let number = held.count + 1;
                let real = self.ask(store.started(held.seq, held.real, number, NOON)).await;
                (said(&real), self.model.started(held.seq, held.model, number))
            }
            Op::Stage(nth) => {
                let index = nth % self.held.len().max(1);
                let held = self.held.get_mut(index)?;
                held.staged += 1;
                let held = held.clone();
                let chunk = Sealed::from_stored(vec![0; 9]);
                let real = self.ask(store.stage_result_chunk(held.seq, held.real, held.staged, chunk)).await;
                (said(&real), self.model.stage(held.seq, held.model, held.staged))
            }
            Op::Retry(nth, wait) => {
                let held = pick(&self.held, nth)?.clone();
                let record = self.opened.record(held.count + 1, Outcome::Transient);
                let end = Arc::new(AttemptEnd::Retry { due_at: Timestamp(now + wait) });
                let real = self.ask(store.settle_attempt(held.seq, held.real, Some(record), end)).await;
                (said(&real), self.model.rest(held.seq, held.model, now + wait, true))
            }
            Op::Release(nth, wait) => {
                // What was attempted is never given back as if it was not.
                let held = pick(&self.held, nth).filter(|held| held.staged == 0)?.clone();
                let real = self.ask(store.release_task(held.seq, held.real, Timestamp(now + wait))).await;
                (said(&real), self.model.rest(held.seq, held.model, now + wait, false))
            }
            Op::Delivered(nth) => {
                let held = pick(&self.owed, nth)?.clone();
                let record = self.opened.record(held.count + 1, Outcome::Success);
                let real = store.settle_delivery(held.seq, held.real, record, DeliveryEnd::Delivered);
                (said(&self.ask(real).await), self.model.delivered(held.seq, held.model, None))
            }
            Op::Undelivered(nth, wait) => {
                let held = pick(&self.owed, nth)?.clone();
                let record = self.opened.record(held.count + 1, Outcome::Transient);
                let end = DeliveryEnd::Retry { due_at: Timestamp(now + wait) };
                let real = self.ask(store.settle_delivery(held.seq, held.real, record, end)).await;
                (said(&real), self.model.delivered(held.seq, held.model, Some(now + wait)))
            }
            Op::ReleaseDelivery(nth, wait) => {
                let held = pick(&self.owed, nth)?.clone();
                let real = self.ask(store.release_delivery(held.seq, held.real, Timestamp(now + wait))).await;
                (said(&real), self.model.release_delivery(held.seq, held.model, now + wait))
            }
            Op::Cancel(nth) => {
                let seq = *pick(&self.tasks, nth)?;
                let real = self.ask(store.cancel(seq, Timestamp(now))).await.unwrap();
                (Says::Cancelled(real == Cancelled::Task), self.model.cancel(seq, now))
            }
            Op::Purge { results, tasks, keys } => {
                let (results, tasks, keys) = (now - results, now - tasks, now - keys);
                let before =
                    Cutoffs { results: Timestamp(results), tasks: Timestamp(tasks), keys: Timestamp(keys) };
                let Purged { results: r, tasks: t, keys: k, .. } =
                    self.ask(store.purge(before, 500)).await.unwrap();
                (Says::Purged { results: r, tasks: t, keys: k }, self.model.purge(results, tasks, keys))
            }
            Op::Full => {
                self.writer.refuse_writes(true);
                let said = self.accept(9, None, true).await;
                self.writer.refuse_writes(false);
                // Claims wait for a while after that.
                tokio::time::advance(Duration::from_secs(1)).await;
                said
            }
            Op::Wait(ms) => {
                tokio::time::advance(Duration::from_millis(ms.unsigned_abs())).await;
                (Says::Done(false), Says::Done(false))
            }
            Op::Crash => {
                (self.opened, self.writer, self.reads) = open(&self.disk, &self.ring, &self.options);
                self.model.reopen();
                (Says::Done(false), Says::Done(false))
            }
        })
    }

    /// What is due goes to the worker, in both worlds the same.
    fn claim(&mut self) {
        self.turn();
        let now = self.now();
        let (tasks, deliveries) = self.model.claim(now);
        let mut ready = self.opened.store.lanes()[0].ready.take_all();
        ready.sort_by_key(|task| task.seq);
        let of = |task: &ReadyTask| (task.seq, task.attempts, task.started, task.deadline.0);
        let real: Vec<_> = ready.iter().map(of).collect();
        let model = tasks.iter().map(|(seq, state)| (*seq, state.attempts, state.started, state.deadline));
        assert_eq!(real, model.collect::<Vec<_>>(), "tasks that are due");
        for (real, (seq, state)) in ready.into_iter().zip(tasks) {
            let model = state.lease.expect("claimed");
            self.held.push(Held { seq, real: real.lease, model, count: state.attempts, staged: 0 });
        }
        let mut ready = self.opened.store.deliveries().take_all();
        ready.sort_by_key(|owed| owed.seq);
        let real: Vec<_> = ready.iter().map(|owed| (owed.seq, owed.tries)).collect();
        let model: Vec<_> = deliveries.iter().map(|(seq, owed)| (*seq, owed.tries)).collect();
        assert_eq!(real, model, "deliveries that are due");
        for (real, (seq, owed)) in ready.into_iter().zip(deliveries) {
            let model = owed.lease.expect("claimed");
            self.owed.push(Held { seq, real: real.lease, model, count: owed.tries, staged: 0 });
        }
    }

    fn compare(&self) {
        // Which number a lease has is nobody's business.
        let mut model = self.model.tasks.clone();
        for task in model.values_mut() {
            task.caller = 0;
            let leases = task.state.iter_mut().map(|state| &mut state.lease);
            let leases = leases.chain(task.delivery.iter_mut().map(|owed| &mut owed.lease));
            leases.flatten().for_each(|lease| *lease = 1);
        }
        assert_eq!(rows(&self.disk.look), model, "what is stored");
    }
}

fn pick<T>(list: &[T], nth: usize) -> Option<&T> {
    list.get(nth % list.len().max(1))
}

fn said(settled: &std::result::Result<Settled, StoreError>) -> Says {
    match settled {
        Ok(Settled::Done(lease)) => Says::Done(lease.is_some()),
        Ok(Settled::Lost) => Says::Lost,
        Err(_) => Says::Unavailable,
    }
}

/// Does all of it in both worlds.
fn compare(ops: &[Op]) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut both = Both::new();
        for (number, op) in ops.iter().enumerate() {
            if let Some((real, model)) = both.apply(op).await {
                assert_eq!(real, model, "operation {number}: {op:?}");
            }
            both.claim();
            both.compare();
        }
    });
}

fn wait() -> impl Strategy<Value = Ms> {
    prop_oneof![Just(0), 0i64..50, Just(5_000)]
}

fn op() -> impl Strategy<Value = Op> {
    let nth = || 0usize..40;
    prop_oneof![
        6 => (0u8..3, prop::option::weighted(0.3, (0u8..3, 0u8..2)), any::<bool>())
            .prop_map(|(caller, key, webhook)| Op::Accept { caller, key, webhook }),
        2 => nth().prop_map(Op::Started),
        2 => nth().prop_map(Op::Stage),
        3 => (nth(), wait()).prop_map(|(nth, wait)| Op::Retry(nth, wait)),
        4 => (nth(), any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(nth, fails, attempted, now)| Op::Finish { nth, fails, attempted, now }),
        1 => (nth(), wait()).prop_map(|(nth, wait)| Op::Release(nth, wait)),
        2 => nth().prop_map(Op::Delivered),
        2 => (nth(), wait()).prop_map(|(nth, wait)| Op::Undelivered(nth, wait)),
        1 => (nth(), wait()).prop_map(|(nth, wait)| Op::ReleaseDelivery(nth, wait)),
        2 => nth().prop_map(Op::Cancel),
        1 => (wait(), wait(), wait()).prop_map(|(results, tasks, keys)| Op::Purge { results, tasks, keys }),
        1 => Just(Op::Full),
        3 => wait().prop_map(Op::Wait),
        1 => Just(Op::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_its_model_does(ops in proptest::collection::vec(op(), 1..80)) {
        compare(&ops);
    }
}
