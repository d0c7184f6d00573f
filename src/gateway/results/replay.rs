//! The upstream's last answer as it was: status, header section less hop-by-hop, bytes.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::stored::{self, ResultBody};
use super::{PRIVATE, Replayed, ResultsCall, credential_headers, insert, send};
use crate::client::empty_body;
use crate::gateway::answer::{TASK, UPSTREAM_STATUS};
use crate::gateway::refusal::Refusal;
use crate::gateway::{Gateway, GatewayBody, Route, hop};
use crate::id::TaskId;
use crate::outcome::FailureCode;
use crate::store::StoredResult;

/// Fields that let a cache keep an answer whatever `Cache-Control` says: HTTP/1.0 and targeted ones
/// (RFC 9213).
const OTHER_CACHE_FIELDS: [HeaderName; 4] = [
    header::EXPIRES,
    header::PRAGMA,
    HeaderName::from_static("cdn-cache-control"),
    HeaderName::from_static("surrogate-control"),
];

/// An answer that was kept whole.
struct Kept {
    status: StatusCode,
    headers: HeaderMap,
    body: ResultBody,
}

/// The answer for a reader of `/response`: whole, in part, or not at all because the reader has it.
///
/// The upstream's validators decide; where it gave no `ETag` the task's id is one. A 206 or 304 carries the
/// upstream's status, since the status of such an answer is ours.
///
/// # Errors
/// [`Refusal::NoResponse`] where the last attempt got none, or one too large to keep. A condition does not
/// hold, or a range is not there.
pub fn replay(
    gateway: &Gateway,
    route: &Route,
    id: TaskId,
    result: StoredResult,
    call: &ResultsCall<'_>,
) -> Result<Response<GatewayBody>, Refusal> {
    let Kept { status, mut headers, body } = kept(gateway, route, id, result)?;
    set_length(&mut headers, status, body.length);
    // Conditions are for what is there, ranges for the whole of it (RFC 9110, 13.2.1 and 14.2).
    if !status.is_success() {
        return Ok(replayed(status, headers, body.whole()));
    }
    send::tag(&mut headers, &id.to_string());
    let is_ok = status == StatusCode::OK;
    if is_ok && !headers.contains_key(header::ACCEPT_RANGES) {
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
    let mut response = send::judged(call.headers, replayed(status, headers, empty_body()))?;
    if response.status() == StatusCode::NOT_MODIFIED {
        // Nothing of it is there.
    } else if is_ok {
        response = send::whole_or_parts(response, id, body, call)?;
    } else {
        *response.body_mut() = body.whole();
    }
    if response.status() != status {
        response.headers_mut().insert(UPSTREAM_STATUS, HeaderValue::from(status.as_u16()));
    }
    Ok(response)
}

/// The answer for whoever waited for it as for a synchronous one. With `to_head` it goes to the `HEAD` call
/// it was given to, with the length it had.
///
/// # Errors
/// [`Refusal::NoResponse`], as [`replay`].
pub fn in_time(
    gateway: &Gateway,
    route: &Route,
    id: TaskId,
    result: StoredResult,
    to_head: bool,
) -> Result<Response<GatewayBody>, Refusal> {
    let Kept { status, mut headers, body } = kept(gateway, route, id, result)?;
    if !to_head {
        set_length(&mut headers, status, body.length);
    }
    Ok(replayed(status, headers, body.whole()))
}

fn kept(gateway: &Gateway, route: &Route, id: TaskId, result: StoredResult) -> Result<Kept, Refusal> {
    let status = result.upstream_status.and_then(|status| StatusCode::from_u16(status).ok());
    let (Some(status), Some(_)) = (status, &result.headers) else { return Err(Refusal::NoResponse) };
    let mut headers = stored::headers(gateway, id, result.headers)?;
    let body = ResultBody::open(gateway, id, result.body, result.chunks, result.length)?;
    hop::strip(&mut headers);
    headers.remove(header::TRAILER);
    insert(&mut headers, TASK, &id.to_string());
    // The upstream may call its answer public; this address is for one caller's credentials.
    for name in OTHER_CACHE_FIELDS {
        headers.remove(name);
    }
    headers.insert(header::CACHE_CONTROL, PRIVATE);
    for name in credential_headers(route) {
        if let Ok(name) = HeaderValue::from_str(name) {
            headers.append(header::VARY, name);
        }
    }
    Ok(Kept { status, headers, body })
}

fn replayed(status: StatusCode, headers: HeaderMap, body: GatewayBody) -> Response<GatewayBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response.extensions_mut().insert(Replayed);
    response
}

/// The length of what is sent now: an answer to `HEAD` said the length of a body it did not have.
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
