//! `DELETE <results_uri>`: ends a task that is not finished, erases the result of one that is.
//!
//! Which of the two it is, one transaction of the store decides, so that a race with the end of the task
//! has exactly one story. Asked again, the answer is the same: a cancelled task stays Failed, and what
//! was erased stays erased.

use http::{Response, StatusCode};

use super::answer::TASK;
use super::refusal::Refusal;
use super::results::{failed, insert};
use super::{Gateway, GatewayBody, Route};
use crate::client::empty_body;
use crate::id::TaskId;
use crate::outcome::FailureCode;
use crate::store::{Cancelled, Found, StoredResult};
use crate::task::{FinalStatus, Progress};

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
    let unavailable = |_| Refusal::StoreUnavailable;
    match found {
        Found::Expired => return Ok(erased(id)),
        Found::Finished(result) if is_cancelled(&result) => return failed(gateway, id, *result),
        Found::Finished(_) | Found::Waiting(_) => {}
    }
    let cancelled = gateway.store.cancel(id.seq(), gateway.clock.steady()).await.map_err(unavailable)?;
    match cancelled {
        Cancelled::Task => {
            route.metrics.finished(FinalStatus::Failed).inc();
            tracing::info!(task = %id, upstream = route.config.name, "cancelled");
        }
        Cancelled::Result => tracing::info!(task = %id, upstream = route.config.name, "result erased"),
    }
    // What is written now is the story, whoever wrote it.
    match gateway.store.find(Some(id), &route.config.name, credentials_id).await.map_err(unavailable)? {
        Some(Found::Finished(result)) => {
            gateway.watches.tell(id.seq(), Progress::ended(result.status, result.attempts));
            failed(gateway, id, *result)
        }
        Some(Found::Expired) | None => Ok(erased(id)),
        Some(Found::Waiting(_)) => Err(Refusal::Internal),
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
