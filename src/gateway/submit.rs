//! A call with `async=true` becomes a task: judged, read, sealed, written, and only then answered.
//!
//! Everything that can refuse a call without its body does so before the body is read. A refused call
//! has stored nothing and called nobody.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::answer::json_body;
use super::refusal::Refusal;
use super::repeat::{IdempotencyKey, Identical};
use super::{Gateway, GatewayBody, Route};
use crate::clock::Timestamp;
use crate::guard::{Receiver, WebhookUri};
use crate::header_block;
use crate::identity::{Caller, Rejection};
use crate::seal::{CHUNK_BYTES, Column, Place, Sealed, TaskKey};
use crate::secret::Secret;
use crate::store::{Accepted, CARRIED_BYTES, Carried, NewTask, Repeatable, StoreError, TaskFacts};
use crate::task::Status;

/// Unit of the memory that bodies being accepted may take together.
const BUFFER_UNIT: u64 = 1024;

/// A call to make a task of.
pub struct AsyncCall {
    pub method: Method,
    /// As the client sent it.
    pub path: String,
    /// Less our own parameters.
    pub query: Option<String>,
    /// End-to-end fields only.
    pub headers: HeaderMap,
    /// `Host` or `:authority`; sent on only where the upstream preserves it.
    pub client_host: Option<HeaderValue>,
    pub body: Incoming,
    /// Decoded, not yet judged.
    pub webhook_uri: Option<String>,
}

/// `202 Accepted`: the fields in the order the contract has them.
#[derive(Serialize)]
pub(super) struct Waiting<'a> {
    pub results_uri: &'a str,
    pub status: &'a str,
    pub task_id: &'a str,
}

/// Makes a task of `call`. The answer leaves after the task is on stable storage.
///
/// # Errors
/// The refusal to answer with; nothing was stored.
pub async fn submit(
    gateway: &Gateway,
    route: &Route,
    call: AsyncCall,
) -> Result<Response<GatewayBody>, Refusal> {
    let key = IdempotencyKey::of(&call.headers)?;
    let caller = identify(gateway, route, &call.headers).await?;
    // Only now: what the guard allows is nothing for strangers to find out.
    let receiver = call.webhook_uri.map(|uri| judge_webhook_uri(gateway, &Secret::new(uri))).transpose()?;
    if let Some(refusal) = no_room(gateway)
        && !is_known(gateway, route, key, &caller).await?
    {
        return Err(refusal);
    }
    let (body, buffered) = if call.body.is_end_stream() {
        (Bytes::new(), None)
    } else {
        let reading = timeout(gateway.server.body_total_timeout, read_body(gateway, call.body));
        reading.await.map_err(|_| Refusal::BodyTimeout)??
    };

    let mut headers = call.headers;
    if let Some(host) = call.client_host {
        headers.insert(header::HOST, host);
    }
    if !body.is_empty() || headers.contains_key(header::CONTENT_LENGTH) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let (now, wall) = (gateway.clock.steady(), gateway.clock.wall());
    let id = gateway.store.ids().next(now, rand::random());
    let facts = TaskFacts {
        id,
        credentials_id: caller.credentials_id,
        method: call.method,
        path: call.path,
        query: call.query,
        receiver,
        accepted_at: wall,
    };
    let deadline = deadline(now, wall, route.config.retry.deadline, caller.expires_at);
    let repeatable = repeatable(gateway, route, &facts, &headers, &body)?;
    let task = new_task(gateway, route, facts, headers, body, now, deadline);
    let task = NewTask { repeatable, buffered, ..task };
    let accepted_as = gateway.store.accept(task).await.map_err(|error| match error {
        StoreError::Full => Refusal::BacklogFull,
        StoreError::FullForCredentials => Refusal::CredentialsBacklogFull,
        StoreError::NoRoom => Refusal::StoreFull,
        StoreError::Unavailable => Refusal::StoreUnavailable,
    })?;
    let id = match accepted_as {
        Accepted::New => id,
        Accepted::Before(id) => id,
        Accepted::OtherCall => return Err(Refusal::KeyReused),
    }
    .to_string();
    tracing::debug!(task = id, upstream = route.config.name, "accepted");
    Ok(accepted(&route.uris.results_uri_of(&id), &id, route.pace.retry_after(Duration::ZERO)))
}

/// Whether the caller has used this key before: such a call makes no new task, so it needs no room. Whether
/// it is the same call can be told only with its body.
async fn is_known(
    gateway: &Gateway,
    route: &Route,
    key: Option<IdempotencyKey<'_>>,
    caller: &Caller,
) -> Result<bool, Refusal> {
    let Some(key) = key else { return Ok(false) };
    let key = gateway.repeats.hash_key(key, &route.config.name, &caller.credentials_id);
    gateway.store.knows_key(key).await.map_err(|_| Refusal::StoreUnavailable)
}

/// What the store compares a call with an `Idempotency-Key` by; `None` without one.
fn repeatable(
    gateway: &Gateway,
    route: &Route,
    facts: &TaskFacts,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Option<Box<Repeatable>>, Refusal> {
    let Some(key) = IdempotencyKey::of(headers)? else { return Ok(None) };
    let call = Identical {
        upstream: &route.config.name,
        credentials_id: &facts.credentials_id,
        method: &facts.method,
        path: &facts.path,
        query: facts.query.as_deref(),
        body,
    };
    Ok(Some(Box::new(gateway.repeats.hash(key, &call))))
}

fn judge_webhook_uri(gateway: &Gateway, uri: &Secret) -> Result<Receiver, Refusal> {
    match WebhookUri::parse(uri.expose(), &gateway.rules) {
        Ok(uri) => Ok(Receiver::Judged(Arc::new(uri))),
        Err(refusal) => Err(Refusal::Invalid(format!("`webhook_uri` {refusal}."))),
    }
}

/// Who makes this call.
pub(super) async fn identify(
    gateway: &Gateway,
    route: &Route,
    headers: &HeaderMap,
) -> Result<Caller, Refusal> {
    route.identity.identify(headers, gateway.clock.wall()).await.map_err(|rejection| match rejection {
        Rejection::InvalidToken(sentence) => Refusal::InvalidToken(sentence.into_owned()),
        Rejection::Unavailable => Refusal::IdentityUnavailable,
    })
}

/// The earlier of the configured deadline and the end of the token: after it no attempt can succeed.
fn deadline(now: Timestamp, wall: Timestamp, after: Duration, token_ends: Option<Timestamp>) -> Timestamp {
    let configured = now.after(after);
    token_ends.map_or(configured, |ends| configured.min(now.after(wall.until(ends))))
}

/// Why no new task can be taken now.
fn no_room(gateway: &Gateway) -> Option<Refusal> {
    if gateway.store.is_full() {
        Some(Refusal::BacklogFull)
    } else if gateway.store.has_no_room() {
        Some(Refusal::StoreFull)
    } else {
        None
    }
}

/// Seals everything a user could mind.
fn new_task(
    gateway: &Gateway,
    route: &Route,
    facts: TaskFacts,
    headers: HeaderMap,
    body: Bytes,
    now: Timestamp,
    deadline: Timestamp,
) -> NewTask {
    let key = gateway.ring.task_key(facts.id);
    let block = header_block::write(&headers);
    let small = block.len() + body.len() <= CARRIED_BYTES as usize;
    NewTask {
        id: facts.id,
        lane: route.lane,
        credentials_id: facts.credentials_id.clone(),
        method: facts.method.clone(),
        path: facts.path.clone(),
        query: facts
            .query
            .as_ref()
            .map(|query| key.seal(Column::RequestQuery, Place::WHOLE, query.as_bytes())),
        webhook_uri: facts
            .receiver
            .as_ref()
            .map(|uri| key.seal(Column::WebhookUri, Place::WHOLE, uri.expose().as_bytes())),
        headers: key.seal(Column::RequestHeaders, Place::WHOLE, &block),
        body: seal_body(&key, &body),
        accepted_at: facts.accepted_at,
        now,
        deadline,
        repeatable: None,
        carried: small.then(|| Box::new(Carried { task: facts, headers, body, key: Some(key) })),
        buffered: None,
        accepted: route.metrics.accepted.clone(),
    }
}

fn seal_body(key: &TaskKey, body: &[u8]) -> Vec<Sealed> {
    let count = body.len().div_ceil(CHUNK_BYTES);
    (0u32..)
        .zip(body.chunks(CHUNK_BYTES))
        .map(|(index, chunk)| {
            key.seal(Column::RequestBody, Place::chunk(index, index as usize + 1 == count), chunk)
        })
        .collect()
}

/// The whole body, within the limits of one call and of all calls together.
async fn read_body(
    gateway: &Gateway,
    mut body: Incoming,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Refusal> {
    let limit = gateway.server.max_body_bytes;
    let too_large = || Refusal::BodyTooLarge(limit);
    if body.size_hint().lower() > limit {
        return Err(too_large());
    }
    let mut read = BytesMut::new();
    let mut held = None;
    // Memory is taken as bytes come: what a client only says it will send must not take it from others.
    loop {
        let piece = timeout(gateway.server.body_timeout, body.frame()).await;
        match piece.map_err(|_| Refusal::BodyTimeout)? {
            None => return Ok((read.freeze(), held)),
            Some(Err(_)) => return Err(Refusal::BodyBroken),
            Some(Ok(frame)) => {
                // Trailers of a task's body are dropped: what is stored has none.
                let Ok(data) = frame.into_data() else { continue };
                let length = (read.len() + data.len()) as u64;
                if length > limit {
                    return Err(too_large());
                }
                hold(gateway, &mut held, length)?;
                read.extend_from_slice(&data);
            }
        }
    }
}

/// Takes as much of the shared memory as `length` bytes need, in all.
fn hold(gateway: &Gateway, held: &mut Option<OwnedSemaphorePermit>, length: u64) -> Result<(), Refusal> {
    let units = u32::try_from(length.div_ceil(BUFFER_UNIT)).unwrap_or(u32::MAX);
    let has = held.as_ref().map_or(0, |held| u32::try_from(held.num_permits()).unwrap_or(u32::MAX));
    let Some(more) = units.checked_sub(has).filter(|more| *more > 0) else { return Ok(()) };
    let more = Arc::clone(&gateway.buffer).try_acquire_many_owned(more).map_err(|_| Refusal::BacklogFull)?;
    match held {
        Some(held) => held.merge(more),
        None => *held = Some(more),
    }
    Ok(())
}

/// Units of [`Gateway::buffer`] for so many bytes.
#[must_use]
pub fn buffer_units(bytes: u64) -> usize {
    usize::try_from(bytes.div_ceil(BUFFER_UNIT))
        .unwrap_or(usize::MAX)
        .min(tokio::sync::Semaphore::MAX_PERMITS)
}

/// `pause` is in seconds.
fn accepted(results_uri: &str, id: &str, pause: u64) -> Response<GatewayBody> {
    let waiting = Waiting { results_uri, status: Status::Queued.as_str(), task_id: id };
    let mut response = Response::new(json_body(&waiting));
    *response.status_mut() = StatusCode::ACCEPTED;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::RETRY_AFTER, HeaderValue::from(pause));
    for (name, value) in [(header::LOCATION, results_uri), (super::answer::TASK, id)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_ends_first_ends_the_task() {
        let (now, wall) = (Timestamp(5_000), Timestamp(1_000_000));
        let at = |token| deadline(now, wall, Duration::from_mins(1), token);
        assert_eq!(at(None), Timestamp(65_000));
        assert_eq!(at(Some(Timestamp(1_010_000))), Timestamp(15_000));
        assert_eq!(at(Some(Timestamp(9_000_000))), Timestamp(65_000));
        assert_eq!(at(Some(Timestamp(1))), now);
    }
}
