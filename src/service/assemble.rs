//! The parts of a node, joined.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::StartError;
use super::reload::Keys;
use crate::backoff::Backoff;
use crate::client::{self, Client, Names, SendError, TlsRoots, full_body};
use crate::clock::Clock;
use crate::config::{Config, UpstreamConfig};
use crate::gateway::{Calls, Gateway, Route, Routes, cors::Cors, jwks::Jwks, repeat::Repeats, submit};
use crate::guard::Rules;
use crate::identity::{FetchError, Identity, Reach};
use crate::outcome::{NoAnswer, RetryPolicy};
use crate::pace::Pace;
use crate::signing::Signer;
use crate::store::{Busy, Files, LaneId, OpenOptions, Store};
use crate::task::PublicUris;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Upstream;
use crate::watch::Watches;
use crate::webhook::WebhookSender;
use crate::worker::{Bench, Network, Worker, Workshop};

/// Leased tasks waiting for a permit, an upstream. Longer only makes webhooks later.
const READY_CAPACITY: usize = 512;

/// Time to fetch a JWK set, and to connect to an identity service.
const JWKS_TIMEOUT: Duration = Duration::from_secs(5);

/// A node whose workers run.
pub(crate) struct Node {
    pub store: Store,
    pub worker: Worker<Network>,
    pub gateway: Arc<Gateway>,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    pub keys: Keys,
}

impl Node {
    /// Opens the store and starts the workers. `receivers` looks up the names of webhook URIs.
    pub fn open(config: &Config, receivers: Names) -> Result<Self, StartError> {
        let files = files(config);
        let metrics = Arc::new(Metrics::default());
        let (store, ring, secrets) = Store::open(&OpenOptions {
            data_dir: files.data_dir.clone(),
            database: files.database.clone(),
            key_file: files.key_file.clone(),
            upstreams: config.upstreams.iter().map(|upstream| upstream.name.clone()).collect(),
            max_queued_tasks: config.server.max_queued_tasks,
            max_queued_per_credentials: config.server.max_queued_per_credentials,
            max_bytes: config.retention.max_bytes,
            ready_capacity: READY_CAPACITY,
            clock: Clock::start(),
            busy: busy(),
            commit_seconds: metrics.commit_seconds.clone(),
        })?;
        let clock = store.clock();
        let services = Client::trusted(TlsRoots::system(), JWKS_TIMEOUT);
        let rules = Arc::new(Rules::new(&config.webhooks));
        let (mut routes, mut benches, mut upstreams) = (Vec::new(), Vec::new(), Vec::new());
        for (index, upstream) in config.upstreams.iter().enumerate() {
            let uris = PublicUris::new(&config.server.public_url, &upstream.prefix, &upstream.results_path);
            let metrics = metrics.upstream(&upstream.name);
            let client = Arc::new(Upstream::new(upstream)?);
            let reach = reach(&services, &client);
            let identity = Identity::new(&upstream.identity, &upstream.name, &secrets.fingerprint, reach)?;
            let pace = Arc::new(Pace::default());
            benches.push(Bench {
                id: LaneId(index),
                lane: Arc::clone(&store.lanes()[index]),
                policy: retry_policy(upstream),
                idempotency: upstream.idempotency,
                max_result_bytes: upstream.max_result_bytes,
                concurrency: upstream.concurrency,
                uris: uris.clone(),
                metrics: metrics.clone(),
                pace: Arc::clone(&pace),
            });
            upstreams.push(Arc::clone(&client));
            routes.push(Route {
                cors: Cors::new(&upstream.cors),
                config: upstream.clone(),
                upstream: client,
                identity: Arc::new(identity),
                lane: LaneId(index),
                uris,
                metrics,
                pace,
            });
        }
        let webhooks = &config.webhooks;
        let watches = Arc::new(Watches::new(config.server.max_waiters));
        let signer = Signer::new(&webhooks.signatures, secrets.signing);
        let workshop = Workshop {
            store: store.clone(),
            ring: ring.clone(),
            clock,
            benches,
            outside: Network { upstreams, sender: WebhookSender::new(webhooks, receivers, signer.clone()) },
            chance: rand::random,
            rules: Arc::clone(&rules),
            delivery_backoff: Backoff::new(webhooks.delays.clone(), webhooks.jitter),
            delivery_metrics: metrics.deliveries(),
            delivery_permits: Workshop::delivery_permits(webhooks.concurrency, webhooks.per_host_concurrency),
            watches: Arc::clone(&watches),
        };
        let keys = Keys { files, store: store.clone(), ring: ring.clone(), signer: signer.clone() };
        let gateway = Gateway {
            routes: Routes::new(routes),
            server: config.server.clone(),
            store: store.clone(),
            ring,
            clock,
            rules,
            jwks: Jwks { path: webhooks.jwks_path.clone(), signer },
            buffer: Arc::new(Semaphore::new(submit::buffer_units(config.server.max_buffered_bytes))),
            repeats: Repeats::new(&secrets.fingerprint),
            calls: Calls::new(config.server.max_calls, config.server.max_calls_per_credentials),
            metrics: Arc::clone(&metrics),
            watches,
        };
        let worker = Worker::start(Arc::new(workshop));
        Ok(Self { store, worker, gateway: Arc::new(gateway), metrics, clock, keys })
    }
}

/// How busy the runtime that is running now is: the one that will serve calls and run tasks.
fn busy() -> Busy {
    let runtime = tokio::runtime::Handle::current().metrics();
    Arc::new(move || {
        let threads = runtime.num_workers();
        let all: Duration = (0..threads).map(|thread| runtime.worker_total_busy_duration(thread)).sum();
        all / u32::try_from(threads).unwrap_or(1).max(1)
    })
}

/// Where the store is, and the master keys when it is not the data directory.
pub(crate) fn files(config: &Config) -> Files {
    Files {
        data_dir: config.server.data_dir.clone(),
        database: config.store.url.strip_prefix("sqlite:").map(PathBuf::from),
        key_file: std::env::var_os("RINGBACK_KEY_FILE").map(PathBuf::from),
    }
}

fn retry_policy(upstream: &UpstreamConfig) -> RetryPolicy {
    RetryPolicy {
        backoff: Backoff::new(upstream.retry.delays.clone(), upstream.retry.jitter),
        statuses: upstream.retry.statuses.clone(),
    }
}

/// How identity reaches whom it asks: over the connections for trusted addresses.
fn reach(services: &Client, upstream: &Arc<Upstream>) -> Reach {
    let (keys, issuer, upstream) = (services.clone(), services.clone(), Arc::clone(upstream));
    Reach {
        fetch: Arc::new(move |uri, limit| {
            let client = keys.clone();
            Box::pin(async move { client.fetch(&uri, limit, JWKS_TIMEOUT).await.map_err(unfetched) })
        }),
        service: Arc::new(move |request, limit| {
            let client = issuer.clone();
            Box::pin(async move {
                client.exchange_absolute(request.map(full_body), limit).await.map_err(unfetched)
            })
        }),
        upstream: Arc::new(move |request, limit| {
            let upstream = Arc::clone(&upstream);
            Box::pin(async move { upstream.ask(request.map(full_body), limit).await.map_err(unfetched) })
        }),
    }
}

fn unfetched(error: client::FetchError) -> FetchError {
    match error {
        client::FetchError::Timeout | client::FetchError::Send(SendError::NoAnswer(NoAnswer::Timeout)) => {
            FetchError::TimedOut
        }
        client::FetchError::Status(status) => FetchError::Status(status),
        client::FetchError::TooLarge(_) => FetchError::TooLarge,
        client::FetchError::Uri(_) | client::FetchError::Send(_) | client::FetchError::Broken => {
            FetchError::Unreachable
        }
    }
}
