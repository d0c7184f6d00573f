//! Delivery attempts: the first one straight from the settle, later ones as they become due.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::permits::HostPermit;
use super::request::{self, LoadError};
use super::{Bench, Outside, STORE_PAUSE, Workshop, insist};
use crate::clock::Timestamp;
use crate::delivery::{self, DeliveryDecision};
use crate::guard::WebhookUri;
use crate::id::{Seq, TaskId};
use crate::lease::LeaseToken;
use crate::outcome::{FailureCode, Outcome, Said, UpstreamsError};
use crate::seal::{Column, Place};
use crate::store::{AttemptRecord, DeliveryEnd, ReadyDelivery, TaskFacts};
use crate::task::FinalStatus;
use crate::webhook::{DeliveryFailure, DeliveryOutcome, Message};

/// A delivery of an upstream that is not configured now comes back after this.
const UNCONFIGURED_PAUSE: Duration = Duration::from_mins(1);

/// A delivery attempt whose places are taken before its result is written.
pub(super) struct Reserved {
    uri: Arc<WebhookUri>,
    message: Arc<Message>,
    _any: OwnedSemaphorePermit,
    _host: HostPermit,
}

/// The first attempt of a delivery, leased in the commit that wrote the result.
pub(super) struct FirstTry {
    pub seq: Seq,
    pub lease: LeaseToken,
    pub reserved: Reserved,
}

impl Reserved {
    /// `None` without a webhook URI, and when there is no place now; then the delivery rests.
    pub fn try_new(
        workshop: &Workshop<impl Outside>,
        bench: &Bench,
        facts: &TaskFacts,
        said: Option<&Said>,
    ) -> Option<Self> {
        // A URI that today's rules refuse takes the slow path, where the refusal is written down.
        let uri = facts.receiver.as_ref()?.judged(&workshop.rules).ok()?;
        let any = workshop.delivery_permits.try_any_host()?;
        let now = workshop.clock.steady();
        let host = workshop.delivery_permits.try_host(uri.host_key(), uri.zone(), now).ok()?;
        let message = Arc::new(message(workshop, bench, facts, said));
        // Signing is a tenth of what a task costs, and the runtime's thread is busier than the writer's.
        if let Some(errand) = workshop.outside.prepare(&message) {
            workshop.store.before_next_commit(errand);
        }
        Some(Self { uri, message, _any: any, _host: host })
    }
}

/// Makes the first attempt.
pub(super) async fn first_try(workshop: &Workshop<impl Outside>, delivery: FirstTry) {
    let FirstTry { seq, lease, reserved: Reserved { uri, mut message, _any, _host } } = delivery;
    // The commit in between may have waited for the disk; receivers refuse old timestamps.
    if let Some(anew) = message.unless_fresh(workshop.clock.wall()) {
        message = Arc::new(anew);
    }
    try_once(workshop, &ReadyDelivery { seq, lease, tries: 0 }, &uri, &message).await;
}

/// Makes an attempt of a delivery that rested in the store.
pub(super) async fn later_try(workshop: &Workshop<impl Outside>, delivery: &ReadyDelivery) {
    match load(workshop, delivery.seq).await {
        Ok(Loaded::Ready { uri, message }) => {
            let now = workshop.clock.steady();
            match workshop.delivery_permits.try_host(uri.host_key(), uri.zone(), now) {
                Ok(_place) => try_once(workshop, delivery, &uri, &message).await,
                // Spread, so that those turned away together do not come back together.
                Err(pause) => release(workshop, delivery, pause.mul_f64(0.5 + (workshop.chance)())).await,
            }
        }
        Ok(Loaded::Refused(id)) => {
            let outcome = DeliveryOutcome::Failed { why: DeliveryFailure::AddressDenied("uri") };
            settle(workshop, delivery, Tried { task: Some(id), outcome, took_ms: 0 }).await;
        }
        Ok(Loaded::Unconfigured) => release(workshop, delivery, UNCONFIGURED_PAUSE).await,
        Err(LoadError::Store(_)) => release(workshop, delivery, STORE_PAUSE).await,
        Err(LoadError::Unreadable) => {
            tracing::error!("a delivery cannot be opened; it counts as a failed try");
            let outcome = DeliveryOutcome::Failed { why: DeliveryFailure::Broken };
            settle(workshop, delivery, Tried { task: None, outcome, took_ms: 0 }).await;
        }
    }
}

async fn release(workshop: &Workshop<impl Outside>, delivery: &ReadyDelivery, pause: Duration) {
    let due_at = workshop.clock.steady().after(pause);
    insist(|| workshop.store.release_delivery(delivery.seq, delivery.lease, due_at)).await;
}

/// One delivery attempt, settled. A panic on the way counts as a broken try.
async fn try_once(
    workshop: &Workshop<impl Outside>,
    delivery: &ReadyDelivery,
    uri: &WebhookUri,
    message: &Message,
) {
    let began = Instant::now();
    let sending = pin!(AssertUnwindSafe(workshop.outside.deliver(uri, message)).catch_unwind());
    let outcome = sending.await.unwrap_or_else(|_| {
        tracing::error!(task = %message.id, "a delivery panicked; it counts as a failed try");
        DeliveryOutcome::Failed { why: DeliveryFailure::Broken }
    });
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    settle(workshop, delivery, Tried { task: Some(message.id), outcome, took_ms }).await;
}

/// A delivery attempt that is over.
struct Tried {
    /// `None` where that cannot be read.
    task: Option<TaskId>,
    outcome: DeliveryOutcome,
    took_ms: u64,
}

async fn settle(workshop: &Workshop<impl Outside>, delivery: &ReadyDelivery, tried: Tried) {
    let number = delivery.tries + 1;
    let Tried { task, outcome, took_ms } = tried;
    let (delivered, status) = match outcome {
        DeliveryOutcome::Delivered { status } => (true, Some(status)),
        DeliveryOutcome::Failed { why: DeliveryFailure::HttpStatus(status) } => (false, Some(status)),
        DeliveryOutcome::Failed { .. } => (false, None),
    };
    let now = workshop.clock.steady();
    let decision = delivery::decide(number, delivered, &workshop.delivery_backoff, now, (workshop.chance)());
    let logged = Logged { task, why: why(outcome), status, number };
    let (end, outcome_is) = act_on(workshop, decision, logged, now);
    let record =
        AttemptRecord { number, ended_at: workshop.clock.wall(), took_ms, outcome: outcome_is, status };
    insist(|| workshop.store.settle_delivery(delivery.seq, delivery.lease, record, end)).await;
}

fn why(outcome: DeliveryOutcome) -> &'static str {
    match outcome {
        DeliveryOutcome::Delivered { .. } => "",
        DeliveryOutcome::Failed { why } => why.code(),
    }
}

/// What the log says of an attempt.
struct Logged {
    task: Option<TaskId>,
    why: &'static str,
    status: Option<u16>,
    number: u32,
}

/// Counts and says what was decided, and turns it into what is written.
fn act_on(
    workshop: &Workshop<impl Outside>,
    decision: DeliveryDecision,
    Logged { task, why, status, number }: Logged,
    now: Timestamp,
) -> (DeliveryEnd, Outcome) {
    let metrics = &workshop.delivery_metrics;
    let task = task.map(tracing::field::display);
    match decision {
        DeliveryDecision::Delivered => {
            metrics.delivered.inc();
            (DeliveryEnd::Delivered, Outcome::Success)
        }
        DeliveryDecision::Retry { due_at } => {
            metrics.retried.inc();
            tracing::debug!(
                task,
                why,
                status,
                attempt = number,
                retry_in_ms = due_at.0 - now.0,
                "webhook not delivered"
            );
            (DeliveryEnd::Retry { due_at }, Outcome::Transient)
        }
        DeliveryDecision::GiveUp => {
            metrics.given_up.inc();
            tracing::warn!(
                task,
                why,
                status,
                attempts = number,
                "webhook given up; the result can still be fetched"
            );
            (DeliveryEnd::GivenUp, Outcome::Fatal)
        }
    }
}

enum Loaded {
    Ready {
        uri: Arc<WebhookUri>,
        message: Message,
    },
    /// Today's rules no longer allow the URI.
    Refused(TaskId),
    Unconfigured,
}

async fn load(workshop: &Workshop<impl Outside>, seq: Seq) -> Result<Loaded, LoadError> {
    let stored = workshop.store.announcement(seq).await?.ok_or(LoadError::Unreadable)?;
    let Some(bench) = workshop.benches.iter().find(|bench| bench.lane.name == stored.task.upstream) else {
        return Ok(Loaded::Unconfigured);
    };
    let mut opener = workshop.ring.opener(stored.task.id);
    let upstreams = stored
        .error
        .and_then(|sealed| opener.open(Column::ResultError, Place::WHOLE, sealed).ok())
        .and_then(|bytes| UpstreamsError::read(&bytes));
    let said = stored.failure.map(|failure| {
        Said::of(FailureCode::from_stored(&failure).unwrap_or(FailureCode::InternalError), upstreams)
    });
    let facts = request::open_task(&mut opener, stored.task)?;
    let receiver = facts.receiver.as_ref().ok_or(LoadError::Unreadable)?;
    Ok(match receiver.judged(&workshop.rules) {
        Ok(uri) => Loaded::Ready { uri, message: message(workshop, bench, &facts, said.as_ref()) },
        Err(_) => Loaded::Refused(facts.id),
    })
}

fn message(
    workshop: &Workshop<impl Outside>,
    bench: &Bench,
    facts: &TaskFacts,
    said: Option<&Said>,
) -> Message {
    let body = delivery::Announcement {
        requested_at: facts.accepted_at,
        request_uri: &bench.uris.request_uri(&facts.path, facts.query.as_deref()),
        credentials_id: Some(&facts.credentials_id),
        task_id: facts.id,
        status: if said.is_some() { FinalStatus::Failed } else { FinalStatus::Succeeded },
        results_uri: &bench.uris.results_uri(facts.id),
        error_description: said.map(|said| said.description.as_str()),
        error: said.map(|said| said.error.as_str()),
    };
    Message::new(facts.id, workshop.clock.wall(), Bytes::from(body.to_json()))
}
