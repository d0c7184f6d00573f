//! Fills a stopped node's data directory with finished tasks: what it looks like after a long time.
//!
//! Every task goes through the store's own operations (accepted, settled with a small result,
//! delivered), sealed with the node's own keys, so a node can open each of them. Prints the ids of a
//! few, one a line, for whoever wants to try.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use http::{HeaderMap, HeaderValue, Method, header};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use ringback::clock::Clock;
use ringback::header_block;
use ringback::id::TaskId;
use ringback::outcome::Outcome;
use ringback::seal::{Column, KeyRing, Place, TaskKey};
use ringback::store::{
    Accepted, Announce, AttemptEnd, AttemptRecord, Carried, DeliveryEnd, LaneId, NewResult, NewTask,
    OpenOptions, ReadyTask, Request, Settled, Store, TaskFacts,
};
use ringback::task::FinalStatus;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

/// Tasks on their way at once: enough for full transactions.
const IN_FLIGHT: usize = 2_048;

/// Ids printed at the end.
const SAMPLE: u64 = 100;

const DEADLINE: Duration = Duration::from_mins(50);

const PATH: &str = "/bench/items/1";

/// A small answer.
const BODY: &[u8] = b"{\"results\":[{\"account_id\":\"56c7b029e0f8ec5a2334fb0ffc2fface\",\"currency\":\"GBP\"}],\"status\":\"Succeeded\"}";

/// Fills the data directory of a stopped node with finished tasks.
#[derive(Parser)]
struct Args {
    #[arg(long)]
    data_dir: PathBuf,
    /// Name of the upstream the tasks belong to.
    #[arg(long)]
    upstream: String,
    /// Whose results they are, as the store knows them.
    #[arg(long)]
    credentials_id: String,
    #[arg(long)]
    finished: u64,
}

struct Filler {
    store: Store,
    ring: KeyRing,
    clock: Clock,
    credentials_id: Arc<str>,
    accepted: Counter,
}

impl Filler {
    fn carried(&self, id: TaskId) -> Carried {
        Carried {
            task: TaskFacts {
                id,
                credentials_id: Arc::clone(&self.credentials_id),
                method: Method::GET,
                path: PATH.to_owned(),
                query: None,
                receiver: None,
                accepted_at: self.clock.wall(),
            },
            headers: HeaderMap::new(),
            body: bytes::Bytes::new(),
            key: None,
        }
    }

    /// What seals the task's result; a task whose request is not at hand is read for its id.
    async fn key(&self, task: &ReadyTask) -> anyhow::Result<TaskKey> {
        let id = match &task.request {
            Some(Request::Carried(carried)) => carried.task.id,
            Some(Request::Stored(stored)) => stored.task.id,
            None => self.store.request(task.seq).await?.context("a task is gone")?.task.id,
        };
        Ok(self.ring.task_key(id))
    }

    fn result(&self, key: &TaskKey) -> NewResult {
        let headers =
            HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        NewResult {
            status: FinalStatus::Succeeded,
            finished_at: self.clock.steady(),
            attempts: 1,
            upstream_status: Some(200),
            headers: Some(key.seal(Column::ResultHeaders, Place::WHOLE, &header_block::write(&headers))),
            body: Some(key.seal(Column::ResultBody, Place::chunk(0, true), BODY)),
            chunks: 1,
            staged: 0,
            length: BODY.len() as u64,
            failure: None,
            unanswered: None,
            error: None,
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let clock = Clock::start();
    let (store, ring, _) = Store::open(&OpenOptions {
        data_dir: args.data_dir,
        database: None,
        key_file: None,
        upstreams: vec![args.upstream],
        max_queued_tasks: u64::MAX,
        max_queued_per_credentials: u64::MAX,
        ready_capacity: 2 * IN_FLIGHT,
        clock,
        max_bytes: 0,
        busy: std::sync::Arc::new(|| std::time::Duration::ZERO),
        commit_seconds: Histogram::new([1.0]),
    })?;
    let credentials_id = args.credentials_id.into();
    let filler = Arc::new(Filler { store, ring, clock, credentials_id, accepted: Counter::default() });
    let finishing = tokio::spawn(finish_all(Arc::clone(&filler), args.finished));
    let places = Arc::new(Semaphore::new(IN_FLIGHT));
    let every = args.finished.div_ceil(SAMPLE).max(1);
    let mut accepting = JoinSet::new();
    for number in 0..args.finished {
        let place = Arc::clone(&places).acquire_owned().await?;
        accepting.spawn(accept(Arc::clone(&filler), number % every == 0, place));
        while let Some(accepted) = accepting.try_join_next() {
            accepted??;
        }
    }
    while let Some(accepted) = accepting.join_next().await {
        accepted??;
    }
    finishing.await??;
    filler.store.close();
    Ok(())
}

/// Accepts one task as a gateway would; its place is free once it is accepted.
async fn accept(filler: Arc<Filler>, is_sample: bool, _place: OwnedSemaphorePermit) -> anyhow::Result<()> {
    let id = filler.store.ids().next(filler.clock.wall(), rand::random());
    let key = filler.ring.task_key(id);
    let now = filler.clock.steady();
    let accepted = filler
        .store
        .accept(NewTask {
            id,
            lane: LaneId(0),
            credentials_id: Arc::clone(&filler.credentials_id),
            method: Method::GET,
            path: PATH.to_owned(),
            query: None,
            webhook_uri: Some(key.seal(Column::WebhookUri, Place::WHOLE, b"http://127.0.0.1:1/hook/1")),
            headers: key.seal(Column::RequestHeaders, Place::WHOLE, &header_block::write(&HeaderMap::new())),
            body: Vec::new(),
            accepted_at: filler.clock.wall(),
            now,
            deadline: now.after(DEADLINE),
            repeatable: None,
            carried: Some(Box::new(filler.carried(id))),
            buffered: None,
            accepted: filler.accepted.clone(),
        })
        .await?;
    ensure!(accepted == Accepted::New, "a new task was known already");
    if is_sample {
        println!("{id}");
    }
    Ok(())
}

/// Finishes as many tasks as are handed over.
async fn finish_all(filler: Arc<Filler>, count: u64) -> anyhow::Result<()> {
    let lane = Arc::clone(&filler.store.lanes()[0]);
    let mut finishing = JoinSet::new();
    for _ in 0..count {
        let task = lane.ready.next().await;
        finishing.spawn(finish(Arc::clone(&filler), task));
        while let Some(finished) = finishing.try_join_next() {
            finished??;
        }
    }
    while let Some(finished) = finishing.join_next().await {
        finished??;
    }
    Ok(())
}

async fn finish(filler: Arc<Filler>, task: ReadyTask) -> anyhow::Result<()> {
    let Filler { store, clock, .. } = &*filler;
    let record = |status| AttemptRecord {
        number: 1,
        ended_at: clock.wall(),
        took_ms: 1,
        outcome: Outcome::Success,
        status: Some(status),
    };
    let result = filler.result(&filler.key(&task).await?);
    let end = AttemptEnd::Final { result: Box::new(result), announce: Announce::Now };
    let settled = store.settle_attempt(task.seq, task.lease, Some(record(200)), Arc::new(end)).await?;
    let Settled::Done(Some(lease)) = settled else { anyhow::bail!("a task was not settled") };
    let settled = store.settle_delivery(task.seq, lease, record(204), DeliveryEnd::Delivered).await?;
    ensure!(settled == Settled::Done(None), "a delivery was not settled");
    Ok(())
}
