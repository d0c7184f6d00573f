//! The upstream's last answer as it was: status, header section less hop-by-hop, bytes.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::stored::{self, ResultBody};
use super::{Replayed, insert};
use crate::gateway::answer::TASK;
use crate::gateway::refusal::Refusal;
use crate::gateway::{Gateway, GatewayBody, hop};
use crate::id::TaskId;
use crate::outcome::FailureCode;
use crate::store::StoredResult;

/// The answer, if one was kept whole. With `to_head` it goes to the `HEAD` call it was given to, with the
/// length it had; anybody else is told the length of what is sent now.
///
/// # Errors
/// [`Refusal::NoResponse`] where the last attempt got none, or one too large to keep.
pub fn replay(
    gateway: &Gateway,
    id: TaskId,
    result: StoredResult,
    to_head: bool,
) -> Result<Response<GatewayBody>, Refusal> {
    let status = result.upstream_status.and_then(|status| StatusCode::from_u16(status).ok());
    let (Some(status), Some(_)) = (status, &result.headers) else { return Err(Refusal::NoResponse) };
    let mut headers = stored::headers(gateway, id, result.headers)?;
    let body = ResultBody::open(gateway, id, result.body, result.chunks, result.length)?;
    hop::strip(&mut headers);
    headers.remove(header::TRAILER);
    if !to_head {
        set_length(&mut headers, status, body.length);
    }
    insert(&mut headers, TASK, &id.to_string());
    // The upstream may call its answer public; this address is for one caller's credentials.
    headers.append(header::VARY, HeaderValue::from_static("Authorization"));
    let mut response = Response::new(body.whole());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response.extensions_mut().insert(Replayed);
    Ok(response)
}

fn set_length(headers: &mut HeaderMap, status: StatusCode, length: u64) {
    headers.remove(header::CONTENT_LENGTH);
    let has_length = !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if has_length {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// What a synchronous call would be told of a task that Failed without an answer.
pub fn refusal_of(failure: Option<&str>) -> Refusal {
    match failure.and_then(FailureCode::from_stored) {
        Some(FailureCode::UpstreamTimeout | FailureCode::DeadlineExceeded) => Refusal::UpstreamTimeout,
        Some(FailureCode::UpstreamUnreachable) => Refusal::UpstreamUnreachable,
        Some(FailureCode::UpstreamError | FailureCode::OutcomeUnknown) => Refusal::UpstreamBroken,
        Some(FailureCode::ResultTooLarge) => Refusal::ResultTooLarge,
        _ => Refusal::Internal,
    }
}
