//! What the worker does at instants that no network lets a test see.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use http_body_util::Full;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::*;
use crate::guard::{Receiver, WebhookUri, tests::config};
use crate::header_block;
use crate::outcome::TransientStatuses;
use crate::seal::{Column, Place};
use crate::store::by_hand::{ByHand, Disk};
use crate::store::{Carried, Errand, NewTask, OpenOptions, TaskFacts};
use crate::telemetry::metrics::Metrics;
use crate::upstream::{Answer, Attempt, Call};
use crate::webhook::{DeliveryOutcome, Message};

const PATIENCE: Duration = Duration::from_mins(1);

/// An upstream that tells when it is called, and answers at once; and a receiver.
struct Told {
    called: mpsc::UnboundedSender<String>,
    is_prepared: Arc<AtomicBool>,
}

impl Outside for Told {
    type Body = Full<Bytes>;

    async fn attempt(&self, _: LaneId, call: Call<'_>) -> Attempt<Full<Bytes>> {
        self.called.send(call.path_and_query.to_owned()).expect("the test listens");
        let (head, body) = Response::new(Full::from("answer")).into_parts();
        Attempt::Answered(Answer::new(head, body, PATIENCE, Instant::now() + PATIENCE))
    }

    fn prepare(&self, _: &Arc<Message>) -> Option<Errand> {
        let is_prepared = Arc::clone(&self.is_prepared);
        Some(Box::new(move || is_prepared.store(true, Ordering::Relaxed)))
    }

    async fn deliver(&self, _: &WebhookUri, _: &Message) -> DeliveryOutcome {
        let was = if self.is_prepared.load(Ordering::Relaxed) { "prepared" } else { "unprepared" };
        self.called.send(was.to_owned()).expect("the test listens");
        DeliveryOutcome::Delivered { status: 204 }
    }
}

fn options(clock: Clock) -> OpenOptions {
    OpenOptions {
        data_dir: std::path::PathBuf::new(),
        database: None,
        key_file: None,
        upstreams: vec![String::from("upstream")],
        max_queued_tasks: 100,
        max_queued_per_credentials: 100,
        max_bytes: 0,
        ready_capacity: 100,
        clock,
        busy: Arc::new(|| Duration::ZERO),
        commit_seconds: Histogram::new([1.0]),
    }
}

fn task(workshop: &Workshop<Told>, path: &str) -> NewTask {
    let (now, wall) = (workshop.clock.steady(), workshop.clock.wall());
    let id = workshop.store.ids().next(now, rand::random());
    let key = workshop.ring.task_key(id);
    let facts = TaskFacts {
        id,
        credentials_id: Arc::from("caller"),
        method: Method::GET,
        path: path.to_owned(),
        query: None,
        receiver: None,
        accepted_at: wall,
    };
    NewTask {
        id,
        lane: LaneId(0),
        credentials_id: Arc::clone(&facts.credentials_id),
        method: Method::GET,
        path: path.to_owned(),
        query: None,
        webhook_uri: None,
        headers: key.seal(Column::RequestHeaders, Place::WHOLE, &header_block::write(&HeaderMap::new())),
        body: Vec::new(),
        accepted_at: wall,
        now,
        deadline: now.after(100 * PATIENCE),
        repeatable: None,
        carried: Some(Box::new(Carried {
            task: facts,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            key: Some(key),
        })),
        buffered: None,
        accepted: Counter::default(),
    }
}

/// A workshop whose upstream takes one call at a time, and its store.
fn workshop(called: mpsc::UnboundedSender<String>) -> (Arc<Workshop<Told>>, ByHand) {
    let dir = tempfile::tempdir().expect("a place for a key file");
    let ring = crate::seal::load_or_create(&dir.path().join("keys"), true).expect("a new key file");
    let clock = Clock::start();
    let (store, by_hand) = Disk::new().open(&options(clock), &ring);
    let metrics = Metrics::default();
    let backoff = || Backoff::new(vec![PATIENCE], 0.0);
    let bench = Bench {
        id: LaneId(0),
        lane: Arc::clone(&store.lanes()[0]),
        policy: RetryPolicy { backoff: backoff(), statuses: TransientStatuses::default() },
        idempotency: Idempotency::None,
        max_result_bytes: 1_000,
        concurrency: 1,
        uris: PublicUris::new("https://node.example", "", "/results"),
        metrics: metrics.upstream("upstream"),
        pace: Arc::new(Pace::default()),
    };
    let workshop = Workshop {
        store,
        ring,
        clock,
        benches: vec![bench],
        outside: Told { called, is_prepared: Arc::default() },
        chance: || 0.5,
        rules: Arc::new(Rules::new(&config())),
        delivery_backoff: backoff(),
        delivery_metrics: metrics.deliveries(),
        // One is held by who waits for deliveries that rest.
        delivery_permits: Workshop::delivery_permits(2, 1),
        watches: Arc::new(Watches::new(1)),
    };
    (Arc::new(workshop), by_hand)
}

#[tokio::test(start_paused = true)]
async fn the_next_call_does_not_wait_until_the_end_of_the_last_one_is_on_disk_but_the_one_after_it_does() {
    let (calls, mut called) = mpsc::unbounded_channel();
    let (workshop, ByHand { mut writer, .. }) = workshop(calls);
    let worker = Worker::start(Arc::clone(&workshop));
    let paths = ["/first", "/second", "/third"];
    for path in paths {
        let mut client = Box::pin(workshop.store.accept(task(&workshop, path)));
        assert!(futures_util::poll!(&mut client).is_pending());
        while let Some(taken) = writer.take() {
            writer.commit(taken);
        }
        client.await.expect("the store is well");
    }
    let mut next = async || timeout(PATIENCE, called.recv()).await.ok().flatten();
    // Nothing is written from here on …
    for path in &paths[..2] {
        assert_eq!(next().await.as_deref(), Some(*path));
    }
    assert_eq!(next().await, None, "what is not written yet is bounded");
    // … until now.
    while let Some(taken) = writer.take() {
        writer.commit(taken);
    }
    assert_eq!(next().await.as_deref(), Some(paths[2]));
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn a_webhook_is_prepared_on_the_way_to_the_disk_and_sent_once_its_result_is_there() {
    let (called, mut calls) = mpsc::unbounded_channel();
    let (workshop, ByHand { mut writer, .. }) = workshop(called);
    let worker = Worker::start(Arc::clone(&workshop));
    let mut task = task(&workshop, "/only");
    let uri = "https://receiver.example/hook";
    let key = workshop.ring.task_key(task.id);
    task.webhook_uri = Some(key.seal(Column::WebhookUri, Place::WHOLE, uri.as_bytes()));
    let judged = WebhookUri::parse(uri, &workshop.rules).expect("it is allowed");
    task.carried.as_mut().expect("it is small").task.receiver = Some(Receiver::Judged(Arc::new(judged)));
    let mut client = Box::pin(workshop.store.accept(task));
    assert!(futures_util::poll!(&mut client).is_pending());
    while let Some(taken) = writer.take() {
        writer.commit(taken);
    }
    client.await.expect("the store is well");
    let mut next = async || timeout(PATIENCE, calls.recv()).await.ok().flatten();
    assert_eq!(next().await.as_deref(), Some("/only"));
    assert_eq!(next().await, None, "the result is not on disk");
    while let Some(taken) = writer.take() {
        writer.commit(taken);
    }
    assert_eq!(next().await.as_deref(), Some("prepared"));
    drop(worker);
}
