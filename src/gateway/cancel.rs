//! `DELETE <results_uri>`: ends a task that is not finished, erases the result of one that is.
//!
//! Which of the two it is, one transaction of the store decides, so that a race with the end of the task
//! has exactly one story. Asked again, the answer is the same: a cancelled task stays Failed, and what
//! was erased stays erased.

use std::sync::Arc;

use http::{Response, StatusCode};

use super::answer::TASK;
use super::refusal::Refusal;
use super::results::{failed, insert};
use super::{Gateway, GatewayBody, Route};
use crate::client::empty_body;
use crate::clock::Timestamp;
use crate::id::TaskId;
use crate::outcome::FailureCode;
use crate::store::{Cancelled, Found, Store, StoreError, StoredResult};
use crate::task::{FinalStatus, Progress};
use crate::telemetry::metrics::UpstreamMetrics;
use crate::watch::Watches;

/// Answers for a task that the caller owns; `found` is how it was a moment ago.
///
/// # Errors
/// The refusal to answer with.
pub(super) async fn cancel(
    gateway: &Gateway,
    route: &Route,
    id: TaskId,
    credentials_id: &str,
    found: Found,
) -> Result<Response<GatewayBody>, Refusal> {
    match found {
        Found::Expired => return Ok(erased(id)),
        Found::Finished(result) if is_cancelled(&result) => return failed(gateway, id, *result),
        Found::Finished(_) | Found::Waiting(_) => {}
    }
    let ending = Ending {
        store: gateway.store.clone(),
        watches: Arc::clone(&gateway.watches),
        metrics: route.metrics.clone(),
        upstream: route.config.name.clone(),
        credentials_id: credentials_id.to_owned(),
        id,
    };
    // Goes on when the caller goes away meanwhile: what is written must be told.
    let ended = tokio::spawn(ending.end(gateway.clock.steady()));
    let found = ended.await.map_err(|_| Refusal::Internal)?.map_err(|_| Refusal::StoreUnavailable)?;
    // What is written now is the story, whoever wrote it.
    match found {
        Some(Found::Finished(result)) => failed(gateway, id, *result),
        Some(Found::Expired) | None => Ok(erased(id)),
        Some(Found::Waiting(_)) => Err(Refusal::Internal),
    }
}

/// A cancellation on its way.
struct Ending {
    store: Store,
    watches: Arc<Watches>,
    metrics: UpstreamMetrics,
    upstream: String,
    credentials_id: String,
    id: TaskId,
}

impl Ending {
    /// Ends the task or erases its result; how it is now. Whoever waits for the task hears of its end.
    async fn end(self, now: Timestamp) -> Result<Option<Found>, StoreError> {
        let Self { store, watches, metrics, upstream, credentials_id, id } = self;
        let cancelled = store.cancel(id.seq(), now).await?;
        let found = store.find(Some(id), &upstream, &credentials_id).await;
        match cancelled {
            Cancelled::Task => {
                let attempts = match &found {
                    Ok(Some(Found::Finished(result))) => result.attempts,
                    _ => 0,
                };
                metrics.finished(FinalStatus::Failed).inc();
                watches.tell(id.seq(), Progress::ended(FinalStatus::Failed, attempts));
                tracing::info!(task = %id, upstream, "cancelled");
            }
            Cancelled::Result => tracing::info!(task = %id, upstream, "result erased"),
        }
        found
    }
}

fn is_cancelled(result: &StoredResult) -> bool {
    result.failure.as_deref() == Some(FailureCode::Cancelled.as_str())
}

/// `204`: there is no result any more.
fn erased(id: TaskId) -> Response<GatewayBody> {
    let mut response = Response::new(empty_body());
    *response.status_mut() = StatusCode::NO_CONTENT;
    insert(response.headers_mut(), TASK, &id.to_string());
    response
}
