//! What became of a task, for whoever holds its credentials.
//!
//! The status of an answer speaks of this request, never of the upstream's. The gate is the same for
//! every verb: a task of others, an unknown id and a malformed id run the same statement and get the
//! same bytes.

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde::Serialize;
use serde_json::{Map, Value};

use super::answer::{STATUS, TASK, UPSTREAM_STATUS, json_body};
use super::cancel::cancel;
use super::coding::{self, Coding};
use super::refusal::Refusal;
use super::submit::{Waiting, identify};
use super::{Gateway, GatewayBody, Route, own};
use crate::client::{BoxError, empty_body};
use crate::header_block;
use crate::id::TaskId;
use crate::outcome::{FailureCode, Said, UpstreamsError};
use crate::seal::{Column, KeyRing, Place, Sealed};
use crate::store::{ChunkKind, Found, Store, StoredResult};
use crate::task::{FinalStatus, Status};

/// Of the upstream's header section, what describes the representation.
const REPRESENTATION: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_DISPOSITION,
    header::ETAG,
    header::LAST_MODIFIED,
];

/// The body of a Failed task.
#[derive(Serialize)]
struct Failed<'a> {
    status: &'a str,
    task_id: &'a str,
    error: &'a str,
    error_description: &'a str,
    error_details: Map<String, Value>,
}

/// Answers for `<prefix><results_path>/{id}` and what is below it.
///
/// # Errors
/// The refusal to answer with.
pub async fn results(
    gateway: &Gateway,
    route: &Route,
    method: &Method,
    id: &str,
    below: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response<GatewayBody>, Refusal> {
    let answered = answer(gateway, route, method, id, below, headers).await;
    if let Err(refusal) = &answered {
        gateway.metrics.refused(refusal.code());
    }
    let mut response = match answered {
        Ok(response) => response,
        Err(refusal @ Refusal::ResultsExpired) => {
            let mut response = own(refusal.into_response());
            insert(response.headers_mut(), TASK, &id.to_ascii_lowercase());
            response
        }
        Err(Refusal::MethodNotAllowed(method)) => {
            let mut response = own(Refusal::MethodNotAllowed(method).into_response());
            insert(response.headers_mut(), header::ALLOW, "GET, HEAD, DELETE");
            response
        }
        Err(refusal) => own(refusal.into_response()),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.append(header::VARY, HeaderValue::from_static("Authorization"));
    if !route.config.identity.header.eq_ignore_ascii_case("authorization")
        && let Ok(name) = HeaderValue::from_str(&route.config.identity.header)
    {
        headers.append(header::VARY, name);
    }
    if *method == Method::HEAD {
        // The length a GET would have had stays, the body goes.
        keep_length(&mut response);
        response = response.map(|_| empty_body());
    }
    Ok(response)
}

fn keep_length(response: &mut Response<GatewayBody>) {
    let length = http_body::Body::size_hint(response.body()).exact();
    if let Some(length) = length {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

async fn answer(
    gateway: &Gateway,
    route: &Route,
    method: &Method,
    id: &str,
    below: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response<GatewayBody>, Refusal> {
    if !matches!(*method, Method::GET | Method::HEAD | Method::DELETE) {
        return Err(Refusal::MethodNotAllowed(method.to_string()));
    }
    let caller = identify(gateway, route, headers).await?;
    let id = id.parse::<TaskId>().ok().filter(|_| below.is_none());
    let found = gateway
        .store
        .find(id, &route.config.name, &caller.credentials_id)
        .await
        .map_err(|_| Refusal::StoreUnavailable)?;
    // A row was found, so the id is one.
    let (Some(found), Some(id)) = (found, id) else { return Err(Refusal::TaskNotFound) };
    if *method == Method::DELETE {
        return cancel(gateway, route, id, &caller.credentials_id, found).await;
    }
    match found {
        Found::Waiting(status) => Ok(waiting(route, id, status)),
        Found::Expired => Err(Refusal::ResultsExpired),
        Found::Finished(result) => match result.status {
            FinalStatus::Succeeded => succeeded(gateway, id, *result, headers),
            FinalStatus::Failed => failed(gateway, id, *result),
        },
    }
}

fn waiting(route: &Route, id: TaskId, status: Status) -> Response<GatewayBody> {
    let id = id.to_string();
    let results_uri = route.uris.results_uri_of(&id);
    let body = Waiting { results_uri: &results_uri, status: status.as_str(), task_id: &id };
    let mut response = about(&id, status, json_body(&body));
    *response.status_mut() = StatusCode::ACCEPTED;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn about(id: &str, status: Status, body: GatewayBody) -> Response<GatewayBody> {
    let mut response = Response::new(body);
    insert(response.headers_mut(), TASK, id);
    insert(response.headers_mut(), STATUS, status.as_str());
    response
}

pub(super) fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// The upstream's body byte for byte, unless the reader does not take its coding.
fn succeeded(
    gateway: &Gateway,
    id: TaskId,
    result: StoredResult,
    reader: &HeaderMap,
) -> Result<Response<GatewayBody>, Refusal> {
    let unreadable = |_| {
        tracing::error!(task = %id, "a result cannot be opened");
        Refusal::Internal
    };
    let open = |column, place, sealed| gateway.ring.open(id, column, place, sealed);
    let upstreams = result
        .headers
        .map(|sealed| open(Column::ResultHeaders, Place::WHOLE, sealed).map_err(unreadable))
        .transpose()?
        .and_then(|block| header_block::read(&block))
        .unwrap_or_default();
    let first = result
        .body
        .map(|sealed| {
            open(Column::ResultBody, Place::chunk(0, result.chunks <= 1), sealed).map_err(unreadable)
        })
        .transpose()?;
    let pieces =
        Pieces { store: gateway.store.clone(), ring: gateway.ring.clone(), id, chunks: result.chunks };

    let mut response = about(&id.to_string(), Status::Succeeded, empty_body());
    let headers = response.headers_mut();
    for name in REPRESENTATION {
        for value in upstreams.get_all(&name) {
            headers.append(&name, value.clone());
        }
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(result.length));
    if let Some(status) = result.upstream_status {
        headers.insert(UPSTREAM_STATUS, HeaderValue::from(status));
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    let coding = Coding::of(headers).filter(|coding| !coding.is_acceptable(reader));
    *response.body_mut() = match (coding, first) {
        (_, None) => empty_body(),
        (Some(coding), Some(first)) => {
            coding::strip_coding(response.headers_mut());
            coding::decode(coding, pieces.stream(first.into()))
        }
        (None, Some(first)) if result.chunks <= 1 => crate::client::full_body(first.into()),
        (None, Some(first)) => {
            StreamBody::new(pieces.stream(first.into()).map(|piece| piece.map(Frame::data))).boxed_unsync()
        }
    };
    Ok(response)
}

/// The chunks of one result, read as the reader takes them.
struct Pieces {
    store: Store,
    ring: KeyRing,
    id: TaskId,
    chunks: u32,
}

impl Pieces {
    fn stream(self, first: Bytes) -> impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static {
        stream::unfold((self, 0, Some(first)), |(pieces, index, first)| async move {
            if index == pieces.chunks {
                return None;
            }
            let piece = match first {
                Some(first) => Ok(first),
                None => pieces.piece(index).await,
            };
            Some((piece, (pieces, index + 1, None)))
        })
    }

    /// An error here cuts the answer off: a reader must never take a part for the whole.
    async fn piece(&self, index: u32) -> Result<Bytes, BoxError> {
        let sealed: Sealed = self
            .store
            .chunk(self.id.seq(), ChunkKind::Result, index)
            .await?
            .ok_or("the result was removed while it was read")?;
        let place = Place::chunk(index, index + 1 == self.chunks);
        Ok(self.ring.open(self.id, Column::ResultBody, place, sealed)?.into())
    }
}

pub(super) fn failed(
    gateway: &Gateway,
    id: TaskId,
    result: StoredResult,
) -> Result<Response<GatewayBody>, Refusal> {
    let upstreams = match result.error {
        None => None,
        Some(sealed) => {
            let opened = gateway.ring.open(id, Column::ResultError, Place::WHOLE, sealed);
            UpstreamsError::read(&opened.map_err(|_| Refusal::Internal)?)
        }
    };
    let code = result.failure.as_deref().and_then(FailureCode::from_stored);
    let said = Said::of(code.unwrap_or(FailureCode::InternalError), upstreams);
    let mut details = Map::new();
    if let Some(reason) = result.reason {
        details.insert(String::from("reason"), Value::from(reason));
    }
    details.insert(String::from("attempts"), Value::from(result.attempts));
    if let Some(status) = result.upstream_status {
        details.insert(String::from("upstream_status"), Value::from(status));
    }
    if result.effect_unknown {
        details.insert(String::from("outcome"), Value::from("unknown"));
    }
    if let Some(sent_at) = result.sent_at {
        details.insert(String::from("sent_at"), Value::from(sent_at.to_rfc3339()));
        details.insert(String::from("bytes_sent"), Value::from(result.bytes_sent));
        details.insert(String::from("cause"), Value::from(result.cause));
    }
    let id = id.to_string();
    let body = Failed {
        status: Status::Failed.as_str(),
        task_id: &id,
        error: &said.error,
        error_description: &said.description,
        error_details: details,
    };
    let mut response = about(&id, Status::Failed, json_body(&body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(status) = result.upstream_status {
        response.headers_mut().insert(UPSTREAM_STATUS, HeaderValue::from(status));
    }
    Ok(response)
}
