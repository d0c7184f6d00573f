//! What every store must do, driven through its operations: real files, real threads.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Method;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::Semaphore;

use super::*;
use crate::clock::Clock;
use crate::outcome::{FailureCode, Reason};
use crate::seal::KeyRing;
use crate::task::Status;

mod callers;
mod cancelling;
mod compared;
mod model;
mod opening;
mod repeats;
mod room;
mod turned;

struct Opened {
    store: Store,
    ring: KeyRing,
    clock: Clock,
}

fn options(dir: &Path) -> OpenOptions {
    OpenOptions {
        data_dir: dir.to_owned(),
        database: None,
        key_file: None,
        upstreams: vec![String::from("bank"), String::from("other")],
        max_queued_tasks: 5,
        max_queued_per_credentials: 1_000,
        max_bytes: 0,
        ready_capacity: 2,
        clock: Clock::start(),
        busy: Arc::new(|| std::time::Duration::ZERO),
        commit_seconds: Histogram::new([1.0]),
    }
}

fn open(dir: &Path) -> Opened {
    let options = options(dir);
    let (store, ring, _) = Store::open(&options).unwrap();
    let clock = store.clock();
    Opened { store, ring, clock }
}

/// Keys are kept.
fn before(results: Timestamp, tasks: Timestamp) -> Cutoffs {
    Cutoffs { results, tasks, keys: Timestamp(0) }
}

impl Opened {
    fn task(&self) -> NewTask {
        let id = self.store.ids().next(self.clock.wall(), rand::random());
        let key = self.ring.task_key(id);
        let seal = |column, text: &[u8]| key.seal(column, crate::seal::Place::WHOLE, text);
        let now = self.clock.steady();
        NewTask {
            id,
            lane: LaneId(0),
            credentials_id: Arc::from("jane"),
            method: Method::POST,
            path: String::from("/accounts"),
            query: Some(seal(crate::seal::Column::RequestQuery, b"a=b")),
            webhook_uri: Some(seal(crate::seal::Column::WebhookUri, b"https://example.com/")),
            headers: seal(crate::seal::Column::RequestHeaders, b""),
            body: Vec::new(),
            accepted_at: self.clock.wall(),
            now,
            deadline: now.after(Duration::from_mins(1)),
            repeatable: None,
            carried: None,
            buffered: None,
            accepted: Counter::default(),
        }
    }

    async fn accept(&self) -> TaskId {
        let task = self.task();
        let id = task.id;
        self.store.accept(task).await.unwrap();
        id
    }

    async fn next(&self) -> ReadyTask {
        self.store.lanes()[0].ready.next().await
    }

    async fn find(&self, id: TaskId) -> Option<Found> {
        self.store.find(Some(id), "bank", "jane").await.unwrap()
    }

    fn record(&self, number: u32, outcome: Outcome) -> AttemptRecord {
        AttemptRecord { number, ended_at: self.clock.wall(), took_ms: 1, outcome, status: Some(200) }
    }

    async fn retry(&self, task: &ReadyTask, due_at: Timestamp) -> Settled {
        let record = self.record(task.attempts + 1, Outcome::Transient);
        let end = Arc::new(AttemptEnd::Retry { due_at });
        self.store.settle_attempt(task.seq, task.lease, Some(record), end).await.unwrap()
    }

    async fn finish(&self, task: &ReadyTask, announce: Announce) -> Settled {
        let failure =
            Failure { code: FailureCode::UpstreamError, reason: Reason::NotTransient, effect_unknown: false };
        let result = NewResult {
            status: FinalStatus::Failed,
            finished_at: self.clock.steady(),
            attempts: task.attempts + 1,
            upstream_status: Some(418),
            headers: None,
            body: None,
            chunks: 0,
            staged: 0,
            length: 0,
            failure: Some(failure),
            unanswered: None,
            error: None,
        };
        let record = self.record(task.attempts + 1, Outcome::Fatal);
        let end = Arc::new(AttemptEnd::Final { result: Box::new(result), announce });
        self.store.settle_attempt(task.seq, task.lease, Some(record), end).await.unwrap()
    }
}

#[tokio::test]
async fn an_accepted_task_is_queued_for_its_owner_alone_and_handed_off() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let id = opened.accept().await;
    assert!(matches!(opened.find(id).await, Some(Found::Waiting(Progress { status: Status::Queued, .. }))));
    for (upstream, credentials_id) in [("bank", "john"), ("other", "jane"), ("nowhere", "jane")] {
        assert!(opened.store.find(Some(id), upstream, credentials_id).await.unwrap().is_none());
    }
    assert!(opened.store.find(None, "bank", "jane").await.unwrap().is_none());
    let task = opened.next().await;
    assert_eq!((task.seq, task.attempts, task.started), (id.seq(), 0, 0));
    let running = opened.store.running(task.seq, 1);
    assert!(matches!(opened.find(id).await, Some(Found::Waiting(Progress { status: Status::Running, .. }))));
    drop(running);
    assert!(matches!(opened.find(id).await, Some(Found::Waiting(Progress { status: Status::Queued, .. }))));
}

#[tokio::test]
async fn a_task_whose_client_hung_up_is_written_counted_and_holds_its_memory_until_then() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let (buffer, accepted) = (Arc::new(Semaphore::new(1)), Counter::default());
    let held = Arc::clone(&buffer).try_acquire_owned().unwrap();
    let task = NewTask { buffered: Some(held), accepted: accepted.clone(), ..opened.task() };
    // Nobody else can write meanwhile.
    let other = rusqlite::Connection::open(dir.path().join("ringback.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut client = Box::pin(opened.store.accept(task));
    assert!(futures_util::poll!(&mut client).is_pending());
    drop(client);
    assert_eq!((buffer.available_permits(), accepted.get()), (0, 0));
    other.execute_batch("ROLLBACK").unwrap();
    let _all = buffer.acquire().await.unwrap();
    assert_eq!(accepted.get(), 1);
}

#[tokio::test]
async fn a_store_that_cannot_write_says_so_although_the_workers_are_behind() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let _in_flight = opened.store.lanes()[0].load.in_flight();
    opened.accept().await;
    opened.accept().await;
    let other = rusqlite::Connection::open(dir.path().join("ringback.db")).unwrap();
    other.execute_batch("ALTER TABLE state RENAME TO gone").unwrap();
    let task = opened.next().await;
    assert!(opened.store.started(task.seq, task.lease, 1, Timestamp(7)).await.is_err());
    opened.store.lanes()[0].ready.push_all([task].into_iter());
    assert!(matches!(opened.store.accept(opened.task()).await, Err(StoreError::Unavailable)));
    other.execute_batch("ALTER TABLE gone RENAME TO state").unwrap();
    opened.store.lanes()[0].ready.take_all();
    opened.accept().await;
}

#[tokio::test]
async fn tasks_beyond_the_ready_queue_rest_and_are_claimed_in_due_order() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(opened.accept().await.seq());
    }
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(opened.next().await.seq);
    }
    seen.sort_unstable();
    assert_eq!(seen, ids);
}

#[tokio::test]
async fn more_tasks_than_allowed_are_refused_and_not_stored() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    for _ in 0..5 {
        opened.accept().await;
    }
    assert!(opened.store.is_full());
    assert!(matches!(opened.store.accept(opened.task()).await, Err(StoreError::Full)));
    assert_eq!(opened.store.numbers().await.unwrap().unfinished, 5);
    let task = opened.next().await;
    opened.finish(&task, Announce::Nobody).await;
    opened.accept().await;
}

#[tokio::test]
async fn a_retry_comes_back_when_it_is_due_with_its_attempt_counted() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    opened.accept().await;
    let first = opened.next().await;
    assert_eq!(
        opened.retry(&first, opened.clock.steady().after(Duration::from_millis(30))).await,
        Settled::Done(None)
    );
    let second = opened.next().await;
    assert_eq!((second.seq, second.attempts), (first.seq, 1));
    assert_ne!(second.lease, first.lease);
}

#[tokio::test]
async fn a_settle_under_a_lease_that_is_gone_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let id = opened.accept().await;
    let first = opened.next().await;
    opened.retry(&first, opened.clock.steady()).await;
    let second = opened.next().await;
    assert_eq!(opened.finish(&first, Announce::Now).await, Settled::Lost);
    assert_eq!(opened.retry(&first, opened.clock.steady()).await, Settled::Lost);
    assert_eq!(opened.store.started(first.seq, first.lease, 1, Timestamp(7)).await.unwrap(), Settled::Lost);
    assert!(matches!(opened.find(id).await, Some(Found::Waiting(_))));
    assert!(matches!(opened.finish(&second, Announce::Now).await, Settled::Done(Some(_))));
    assert_eq!(opened.finish(&second, Announce::Now).await, Settled::Lost);
    assert!(matches!(opened.find(id).await, Some(Found::Finished(_))));
}

#[tokio::test]
async fn an_errand_has_run_when_what_was_asked_after_it_is_answered_and_a_broken_one_hurts_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let done = Arc::new(AtomicBool::new(false));
    let is_done = Arc::clone(&done);
    opened.store.before_next_commit(Box::new(|| panic!("as if by a defect")));
    opened.store.before_next_commit(Box::new(move || is_done.store(true, Ordering::Relaxed)));
    opened.accept().await;
    assert!(done.load(Ordering::Relaxed));
    opened.accept().await;
}

#[tokio::test]
async fn a_final_task_keeps_no_request() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    opened.accept().await;
    let task = opened.next().await;
    assert!(opened.store.request(task.seq).await.unwrap().is_some());
    opened.finish(&task, Announce::Nobody).await;
    assert!(opened.store.request(task.seq).await.unwrap().is_none());
}

#[tokio::test]
async fn reopening_gives_every_lease_back_and_remembers_what_was_started() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let (held, finished) = (opened.accept().await, opened.accept().await);
    let task = opened.next().await;
    opened.store.started(task.seq, task.lease, 1, Timestamp(7)).await.unwrap();
    let other = opened.next().await;
    assert!(matches!(opened.finish(&other, Announce::Now).await, Settled::Done(Some(_))));
    opened.store.close();
    drop(opened);

    let opened = open(dir.path());
    let again = opened.next().await;
    assert_eq!((again.seq, again.attempts, again.started), (held.seq(), 0, 1));
    let delivery = opened.store.deliveries().next().await;
    assert_eq!((delivery.seq, delivery.tries), (finished.seq(), 0));
    assert!(opened.store.ids().next(Timestamp(0), 0).seq() > finished.seq(), "keys go on");
}

#[tokio::test]
async fn deliveries_count_their_tries_and_end() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    opened.accept().await;
    let task = opened.next().await;
    assert_eq!(opened.finish(&task, Announce::Later).await, Settled::Done(None));
    let delivery = opened.store.deliveries().next().await;
    let end = DeliveryEnd::Retry { due_at: opened.clock.steady() };
    let record = opened.record(1, Outcome::Transient);
    opened.store.settle_delivery(delivery.seq, delivery.lease, record, end).await.unwrap();
    let delivery = opened.store.deliveries().next().await;
    assert_eq!(delivery.tries, 1);
    let record = opened.record(2, Outcome::Success);
    let settle =
        || opened.store.settle_delivery(delivery.seq, delivery.lease, record, DeliveryEnd::Delivered);
    assert_eq!(settle().await.unwrap(), Settled::Done(None));
    assert_eq!(settle().await.unwrap(), Settled::Lost);
    assert_eq!(opened.store.numbers().await.unwrap().deliveries_owed, 0);
}

#[tokio::test]
async fn a_call_without_webhook_uri_owes_no_delivery() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let task = NewTask { webhook_uri: None, ..opened.task() };
    opened.store.accept(task).await.unwrap();
    let task = opened.next().await;
    opened.finish(&task, Announce::Later).await;
    assert_eq!(opened.store.numbers().await.unwrap().deliveries_owed, 0);
}

#[tokio::test]
async fn retention_removes_results_then_tasks_but_never_what_is_still_owed() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let ids = [opened.accept().await, opened.accept().await, opened.accept().await];
    for announce in [Announce::Nobody, Announce::Later] {
        let task = opened.next().await;
        opened.finish(&task, announce).await;
    }
    let later = opened.clock.steady().after(Duration::from_hours(1));
    let purged = opened.store.purge(before(later, Timestamp(0)), 500).await.unwrap();
    assert_eq!((purged.results, purged.tasks, purged.rows), (1, 0, 1));
    assert!(matches!(opened.find(ids[0]).await, Some(Found::Expired)));
    assert!(matches!(opened.find(ids[1]).await, Some(Found::Finished(_))), "its delivery is owed");
    assert!(matches!(opened.find(ids[2]).await, Some(Found::Waiting(_))));
    let purged = opened.store.purge(before(later, later), 500).await.unwrap();
    assert_eq!((purged.results, purged.tasks), (0, 1));
    assert!(opened.find(ids[0]).await.is_none());
    assert_eq!(opened.store.purge(before(later, later), 500).await.unwrap().rows, 0);
}

#[tokio::test]
async fn nothing_stays_of_an_answer_that_broke_off() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    opened.accept().await;
    let task = opened.next().await;
    for index in 1..3 {
        let chunk = Sealed::from_stored(vec![0; 9]);
        opened.store.stage_result_chunk(task.seq, task.lease, index, chunk).await.unwrap();
    }
    opened.finish(&task, Announce::Nobody).await;
    for index in 1..3 {
        assert!(opened.store.chunk(task.seq, ChunkKind::Result, index).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn one_retention_transaction_removes_no_more_rows_than_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    for _ in 0..5 {
        opened.accept().await;
        let task = opened.next().await;
        opened.finish(&task, Announce::Nobody).await;
    }
    let later = opened.clock.steady().after(Duration::from_hours(1));
    let mut removed = 0;
    for _ in 0..3 {
        let purged = opened.store.purge(before(later, Timestamp(0)), 2).await.unwrap();
        assert!(purged.rows <= 2);
        removed += purged.results;
    }
    assert_eq!(removed, 5);
}
