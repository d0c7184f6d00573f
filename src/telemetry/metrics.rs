//! Every number a node publishes, and its name.
//!
//! Labels are closed sets or upstream names from the configuration; nothing a client sends becomes a
//! label, so the number of series is bounded.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::clock::Timestamp;
use crate::outcome::Outcome;
use crate::store::{Purged, StoreNumbers};
use crate::task::{FinalStatus, Status};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct UpstreamLabel {
    upstream: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FinishedLabels {
    upstream: String,
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AttemptLabels {
    upstream: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DeliveryLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusedLabels {
    error: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RemovedLabels {
    kind: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BytesLabel {
    kind: &'static str,
}

/// Why something was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovedFor {
    Age,
    Size,
}

impl RemovedFor {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Size => "size",
        }
    }
}

/// The counters of one upstream, looked up once.
#[derive(Clone)]
pub struct UpstreamMetrics {
    pub accepted: Counter,
    pub proxied: Counter,
    succeeded: Counter,
    failed: Counter,
    success: Counter,
    transient: Counter,
    fatal: Counter,
}

impl UpstreamMetrics {
    #[must_use]
    pub fn finished(&self, status: FinalStatus) -> &Counter {
        match status {
            FinalStatus::Succeeded => &self.succeeded,
            FinalStatus::Failed => &self.failed,
        }
    }

    #[must_use]
    pub fn attempt(&self, outcome: Outcome) -> &Counter {
        match outcome {
            Outcome::Success => &self.success,
            Outcome::Transient => &self.transient,
            Outcome::Fatal => &self.fatal,
        }
    }
}

/// The counters of deliveries.
#[derive(Clone)]
pub struct DeliveryMetrics {
    pub delivered: Counter,
    pub retried: Counter,
    pub given_up: Counter,
}

/// All metrics of a node.
pub struct Metrics {
    registry: Registry,
    accepted: Family<UpstreamLabel, Counter>,
    finished: Family<FinishedLabels, Counter>,
    attempts: Family<AttemptLabels, Counter>,
    deliveries: Family<DeliveryLabels, Counter>,
    proxied: Family<UpstreamLabel, Counter>,
    refused: Family<RefusedLabels, Counter>,
    removed: Family<RemovedLabels, Counter>,
    removed_bytes: Family<ReasonLabel, Counter>,
    store_bytes: Family<BytesLabel, Gauge>,
    max_bytes: Gauge,
    oldest_result_age: Gauge<f64, AtomicU64>,
    queue_depth: Gauge,
    deliveries_owed: Gauge,
    oldest_age: Gauge<f64, AtomicU64>,
    pub commit_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("ringback"),
            accepted: Family::default(),
            finished: Family::default(),
            attempts: Family::default(),
            deliveries: Family::default(),
            proxied: Family::default(),
            refused: Family::default(),
            removed: Family::default(),
            removed_bytes: Family::default(),
            store_bytes: Family::default(),
            max_bytes: Gauge::default(),
            oldest_result_age: Gauge::default(),
            queue_depth: Gauge::default(),
            deliveries_owed: Gauge::default(),
            oldest_age: Gauge::default(),
            commit_seconds: Histogram::new([
                0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
            ]),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("tasks_accepted", "Calls that became tasks", self.accepted.clone());
        registry.register("tasks_finished", "Tasks by final status", self.finished.clone());
        registry.register("attempts", "Attempts at upstreams by outcome", self.attempts.clone());
        registry.register("deliveries", "Delivery attempts by outcome", self.deliveries.clone());
        registry.register("calls_proxied", "Calls passed on as they are", self.proxied.clone());
        registry.register("calls_refused", "Calls answered with an error of ours", self.refused.clone());
        registry.register("retention_removed", "What retention removed", self.removed.clone());
        registry.register_with_unit(
            "retention_removed",
            "Space that retention made free",
            Unit::Bytes,
            self.removed_bytes.clone(),
        );
        registry.register_with_unit(
            "store",
            "Size of the store on disk, by what its pages hold",
            Unit::Bytes,
            self.store_bytes.clone(),
        );
        registry.register_with_unit(
            "store_max",
            "What the store may hold; 0 for no limit",
            Unit::Bytes,
            self.max_bytes.clone(),
        );
        registry.register_with_unit(
            "result_oldest_age",
            "Time since the end of the oldest task whose result is kept",
            Unit::Seconds,
            self.oldest_result_age.clone(),
        );
        registry.register("queue_depth", "Tasks neither Succeeded nor Failed", self.queue_depth.clone());
        registry.register(
            "deliveries_owed",
            "Deliveries not yet made or given up",
            self.deliveries_owed.clone(),
        );
        registry.register_with_unit(
            "queue_oldest_age",
            "Age of the oldest task neither Succeeded nor Failed",
            Unit::Seconds,
            self.oldest_age.clone(),
        );
        registry.register_with_unit(
            "commit",
            "Time of one commit of the store, from its first statement to stable storage",
            Unit::Seconds,
            self.commit_seconds.clone(),
        );
    }

    #[must_use]
    pub fn upstream(&self, name: &str) -> UpstreamMetrics {
        let upstream = || name.to_owned();
        let finished = |status: FinalStatus| {
            let labels = FinishedLabels { upstream: upstream(), status: Status::from(status).as_str() };
            self.finished.get_or_create(&labels).clone()
        };
        let attempt = |outcome: Outcome| {
            let labels = AttemptLabels { upstream: upstream(), outcome: outcome.as_str() };
            self.attempts.get_or_create(&labels).clone()
        };
        UpstreamMetrics {
            accepted: self.accepted.get_or_create(&UpstreamLabel { upstream: upstream() }).clone(),
            proxied: self.proxied.get_or_create(&UpstreamLabel { upstream: upstream() }).clone(),
            succeeded: finished(FinalStatus::Succeeded),
            failed: finished(FinalStatus::Failed),
            success: attempt(Outcome::Success),
            transient: attempt(Outcome::Transient),
            fatal: attempt(Outcome::Fatal),
        }
    }

    #[must_use]
    pub fn deliveries(&self) -> DeliveryMetrics {
        let outcome = |outcome| self.deliveries.get_or_create(&DeliveryLabels { outcome }).clone();
        DeliveryMetrics {
            delivered: outcome("delivered"),
            retried: outcome("retried"),
            given_up: outcome("given_up"),
        }
    }

    /// A call was answered with this error of ours.
    pub fn refused(&self, error: &'static str) {
        self.refused.get_or_create(&RefusedLabels { error }).inc();
    }

    pub fn removed(&self, purged: &Purged, why: RemovedFor) {
        let reason = why.as_str();
        let counts =
            [("results", purged.results), ("tasks", purged.tasks), ("idempotency_keys", purged.keys)];
        for (kind, count) in counts {
            self.removed.get_or_create(&RemovedLabels { kind, reason }).inc_by(count);
        }
        self.removed_bytes.get_or_create(&ReasonLabel { reason }).inc_by(purged.bytes);
    }

    /// What `retention.max_bytes` says.
    pub fn set_max_bytes(&self, max_bytes: u64) {
        self.max_bytes.set(i64::try_from(max_bytes).unwrap_or(i64::MAX));
    }

    /// The whole document in OpenMetrics text, with the store's numbers as of now: by the wall clock and
    /// by the steady one.
    #[must_use]
    pub fn encode(&self, numbers: StoreNumbers, now: Timestamp, steady: Timestamp) -> String {
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.queue_depth.set(signed(numbers.unfinished));
        self.deliveries_owed.set(signed(numbers.deliveries_owed));
        self.oldest_age.set(numbers.oldest_accepted_at.map_or(0.0, |at| at.until(now).as_secs_f64()));
        let oldest_result = numbers.oldest_finished_at;
        self.oldest_result_age.set(oldest_result.map_or(0.0, |at| at.until(steady).as_secs_f64()));
        let bytes = numbers.bytes;
        for (kind, bytes) in [("live", bytes.live), ("free", bytes.free), ("wal", bytes.log)] {
            self.store_bytes.get_or_create(&BytesLabel { kind }).set(signed(bytes));
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing to a string does not fail");
        text
    }
}
