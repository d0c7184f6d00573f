//! What became of a task, for whoever holds its credentials.
//!
//! The status of an answer speaks of this request, never of the upstream's. The gate is the same for
//! every verb: a task of others, an unknown id and a malformed id run the same statement and get the
//! same bytes.

use std::iter;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::answer::{STATUS, TASK, UPSTREAM_STATUS, json_body, vary_by};
use super::cancel::cancel;
use super::prefer::Preferences;
use super::refusal::{Form, Refusal};
use super::submit::{Waiting, identify};
use super::{Gateway, GatewayBody, Route, accept, own};
use crate::client::empty_body;
use crate::id::TaskId;
use crate::identity::Caller;
use crate::outcome::{FailureCode, Said, UpstreamsError};
use crate::seal::{Column, Place};
use crate::store::{Found, StoredResult};
use crate::task::{FinalStatus, Progress, Status};
use crate::watch::Waiter;

pub mod conditions;
mod events;
pub mod ranges;
mod replay;
mod send;
mod stored;
mod wait;

/// A call below the results path.
pub struct ResultsCall<'a> {
    pub method: &'a Method,
    /// As the client wrote it.
    pub id: &'a str,
    /// What follows the id, where anything does.
    pub below: Option<&'a str>,
    pub headers: &'a HeaderMap,
    /// The node stops: nobody waits any longer.
    pub stop: &'a CancellationToken,
}

/// What is below the results of a task.
const RESPONSE: &str = "response";

/// A shared cache keeps nothing of it, the caller's own one asks each time.
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// What of a task is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum View {
    Result,
    /// `<results_uri>/response`.
    Response,
    Events,
}

/// Marks an answer that is the upstream's, header section and all: its fields for caches are ours already.
#[derive(Clone)]
struct Replayed;

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
pub async fn results(gateway: &Gateway, route: &Route, call: ResultsCall<'_>) -> Response<GatewayBody> {
    let answered = answer(gateway, route, &call).await;
    if let Err(refusal) = &answered {
        gateway.metrics.refused(refusal.code());
    }
    let mut response = answered.unwrap_or_else(|refusal| refused(refusal, &call));
    if response.extensions().get::<Replayed>().is_none() {
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, PRIVATE);
        for name in credential_headers(route) {
            vary_by(headers, name);
        }
    }
    if *call.method == Method::HEAD {
        // The length a GET would have had stays, the body goes.
        keep_length(&mut response);
        response = response.map(|_| empty_body());
    }
    response
}

/// The headers that tell callers apart.
fn credential_headers(route: &Route) -> impl Iterator<Item = &str> {
    let configured = route.config.identity.header.as_str();
    let another = (!configured.eq_ignore_ascii_case("authorization")).then_some(configured);
    iter::once("Authorization").chain(another)
}

fn refused(refusal: Refusal, call: &ResultsCall<'_>) -> Response<GatewayBody> {
    let methods = if call.below().is_none() { "GET, HEAD, DELETE" } else { "GET, HEAD" };
    let own_headers = match &refusal {
        Refusal::ResultsExpired => Some((TASK, call.id.to_ascii_lowercase())),
        Refusal::MethodNotAllowed(_) => Some((header::ALLOW, methods.to_owned())),
        _ => None,
    };
    let mut response = own(refusal.told_as(Form::of(call.headers)));
    if let Some((name, value)) = own_headers {
        insert(response.headers_mut(), name, &value);
    }
    response
}

fn keep_length(response: &mut Response<GatewayBody>) {
    let has_none = matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let length = http_body::Body::size_hint(response.body()).exact().filter(|_| !has_none);
    if let Some(length) = length {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

async fn answer(
    gateway: &Gateway,
    route: &Route,
    call: &ResultsCall<'_>,
) -> Result<Response<GatewayBody>, Refusal> {
    match *call.method {
        Method::GET | Method::HEAD => read(gateway, route, call).await,
        Method::DELETE if call.below() != Some(RESPONSE) => delete(gateway, route, call).await,
        _ => Err(Refusal::MethodNotAllowed(call.method.to_string())),
    }
}

impl ResultsCall<'_> {
    /// What follows the id, less the slash at its end.
    fn below(&self) -> Option<&str> {
        self.below.map(|below| below.strip_suffix('/').unwrap_or(below))
    }
}

impl View {
    /// `None` where nothing is at that address.
    fn of(call: &ResultsCall<'_>) -> Option<Self> {
        match call.below() {
            None if accept::wants_events(call.headers) => Some(Self::Events),
            None => Some(Self::Result),
            Some(RESPONSE) => Some(Self::Response),
            Some(_) => None,
        }
    }
}

async fn read(
    gateway: &Gateway,
    route: &Route,
    call: &ResultsCall<'_>,
) -> Result<Response<GatewayBody>, Refusal> {
    let caller = identify(gateway, route, call.headers).await?;
    let view = View::of(call);
    let id = call.id.parse::<TaskId>().ok().filter(|_| view.is_some());
    let wait = Preferences::of(call.headers).wait.map(|seconds| wait::allowed(gateway, seconds));
    let waits = view == Some(View::Events) || wait.is_some_and(|wait| !wait.is_zero());
    // Made before the state is read: a change in between is heard.
    let waiter = id.filter(|_| waits).and_then(|id| gateway.watches.wait_for(id.seq()));
    let found = find(gateway, route, id, &caller).await?;
    // A row was found, so the id is one and the view is there.
    let (Some(found), Some(id), Some(view)) = (found, id, view) else { return Err(Refusal::TaskNotFound) };
    let about = About { gateway, route, call, caller: &caller, id };
    if view == View::Events {
        return about.follow(found, waiter);
    }
    // A wait for which there is no room is none (RFC 7240, 3).
    let has_no_room = waits && waiter.is_none() && matches!(found, Found::Waiting(_));
    let found = match (found, wait) {
        // Boxed: calls that do not wait need not carry the room for it.
        (Found::Waiting(progress), Some(wait)) => Box::pin(about.wait(progress, waiter, wait)).await?,
        (found, _) => found,
    };
    let mut response = about.tell(found, view)?;
    if let Some(wait) = wait.filter(|_| !has_no_room) {
        wait::say_applied(response.headers_mut(), wait);
    }
    Ok(response)
}

async fn delete(
    gateway: &Gateway,
    route: &Route,
    call: &ResultsCall<'_>,
) -> Result<Response<GatewayBody>, Refusal> {
    let caller = identify(gateway, route, call.headers).await?;
    let id = call.id.parse::<TaskId>().ok().filter(|_| call.below.is_none());
    let found = find(gateway, route, id, &caller).await?;
    // A row was found, so the id is one.
    let (Some(found), Some(id)) = (found, id) else { return Err(Refusal::TaskNotFound) };
    cancel(gateway, route, id, &caller.credentials_id, found).await
}

async fn find(
    gateway: &Gateway,
    route: &Route,
    id: Option<TaskId>,
    caller: &Caller,
) -> Result<Option<Found>, Refusal> {
    let found = gateway.store.find(id, &route.config.name, &caller.credentials_id).await;
    found.map_err(|_| Refusal::StoreUnavailable)
}

/// A call that may see its task.
struct About<'a> {
    gateway: &'a Gateway,
    route: &'a Route,
    call: &'a ResultsCall<'a>,
    caller: &'a Caller,
    id: TaskId,
}

impl About<'_> {
    /// What is known of the task once it has ended or the wait is over. Who cannot wait for want of room
    /// hears at once what is known now.
    async fn wait(
        &self,
        progress: Progress,
        waiter: Option<Waiter>,
        wait: Duration,
    ) -> Result<Found, Refusal> {
        let Some(mut waiter) = waiter else { return Ok(Found::Waiting(progress)) };
        let Self { gateway, route, call, .. } = *self;
        let end = wait::end(wait, wait::token_ends(gateway, self.caller));
        let mut known = progress;
        loop {
            let next_look = end.min(Instant::now() + gateway.server.stream_heartbeat);
            known = wait::until_final(&mut waiter, known, next_look, call.stop).await;
            if known.is_final() {
                break;
            }
            if call.stop.is_cancelled() || Instant::now() >= end {
                return Ok(Found::Waiting(known));
            }
            // Nothing is told yet, so where nobody can say whether the token is good, the next look may know.
            let looking = timeout_at(end, identify(gateway, route, call.headers));
            match call.stop.run_until_cancelled(looking).await {
                Some(Ok(Ok(caller))) if caller.credentials_id != self.caller.credentials_id => {
                    return Err(Refusal::TaskNotFound);
                }
                Some(Ok(Err(refusal @ Refusal::InvalidToken(_)))) => return Err(refusal),
                _ => {}
            }
        }
        // The token may have been revoked meanwhile.
        let caller = identify(gateway, route, call.headers).await?;
        find(gateway, route, Some(self.id), &caller).await?.ok_or(Refusal::TaskNotFound)
    }

    fn tell(&self, found: Found, view: View) -> Result<Response<GatewayBody>, Refusal> {
        let result = match found {
            Found::Waiting(progress) => return Ok(self.waiting(progress)),
            Found::Expired => return Err(Refusal::ResultsExpired),
            Found::Finished(result) => *result,
        };
        match (view, result.status) {
            (View::Response, _) => replay::replay(self.gateway, self.route, self.id, result, self.call),
            (_, FinalStatus::Succeeded) => send::succeeded(self.gateway, self.id, result, self.call),
            (_, FinalStatus::Failed) => {
                let mut response = failed(self.gateway, self.id, result)?;
                send::tag(response.headers_mut(), &self.id.to_string());
                send::judged(self.call.headers, response)
            }
        }
    }

    fn waiting(&self, progress: Progress) -> Response<GatewayBody> {
        let id = self.id.to_string();
        let results_uri = self.route.uris.results_uri_of(&id);
        let body = Waiting { results_uri: &results_uri, status: progress.status.as_str(), task_id: &id };
        let mut response = about(&id, progress.status, json_body(&body));
        *response.status_mut() = StatusCode::ACCEPTED;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let until_due = progress.next_try_at.map(|due_at| self.gateway.clock.steady().until(due_at));
        let pause = self.route.pace.retry_after(until_due.unwrap_or_default());
        headers.insert(header::RETRY_AFTER, HeaderValue::from(pause));
        vary_by(headers, "Accept");
        response
    }

    fn follow(&self, found: Found, waiter: Option<Waiter>) -> Result<Response<GatewayBody>, Refusal> {
        let (known, waiter) = match found {
            Found::Waiting(progress) => (progress, Some(waiter.ok_or(Refusal::TooManyWaiters)?)),
            Found::Expired => return Err(Refusal::ResultsExpired),
            Found::Finished(result) => (Progress::ended(result.status, result.attempts), None),
        };
        let mut response = if known.is_final() && events::has_seen_all(self.call.headers) {
            events::nothing_more()
        } else {
            let follow = events::Follow {
                id: self.id,
                clock: self.gateway.clock,
                known,
                waiter,
                heartbeat: self.gateway.server.stream_heartbeat,
                next_beat: Instant::now() + self.gateway.server.stream_heartbeat.mul_f32(rand::random()),
                token_ends: wait::token_ends(self.gateway, self.caller),
                reader: events::Reader {
                    identity: Arc::clone(&self.route.identity),
                    credential: self.route.identity.credential_of(self.call.headers),
                    credentials_id: Arc::clone(&self.caller.credentials_id),
                },
                stop: self.call.stop.clone(),
            };
            events::response(follow.into_body())
        };
        let headers = response.headers_mut();
        insert(headers, TASK, &self.id.to_string());
        insert(headers, STATUS, known.status.as_str());
        vary_by(headers, "Accept");
        Ok(response)
    }
}

/// What a synchronous call would have been answered, if the task `id` ends within `wait`; `None` if it
/// does not. `call` is the one the task was made of, and nothing here can undo that.
pub async fn in_time(
    gateway: &Gateway,
    route: &Route,
    call: &ResultsCall<'_>,
    seconds: u64,
) -> Option<Response<GatewayBody>> {
    let id: TaskId = call.id.parse().ok()?;
    let wait = wait::allowed(gateway, seconds);
    let caller = identify(gateway, route, call.headers).await.ok()?;
    let waiter = gateway.watches.wait_for(id.seq());
    let found = find(gateway, route, Some(id), &caller).await.ok()??;
    let about = About { gateway, route, call, caller: &caller, id };
    let found = match found {
        Found::Waiting(progress) => about.wait(progress, waiter, wait).await.ok()?,
        found => found,
    };
    let Found::Finished(result) = found else { return None };
    let failure = result.failure.clone();
    // No synchronous call is ever answered so; the results say what happened.
    if failure.as_deref() == Some(FailureCode::Cancelled.as_str()) {
        return None;
    }
    let mut response = match replay::in_time(gateway, route, id, *result, *call.method == Method::HEAD) {
        Ok(response) => response,
        Err(Refusal::NoResponse) => {
            own(replay::refusal_of(failure.as_deref()).told_as(Form::of(call.headers)))
        }
        Err(refusal) => own(refusal.told_as(Form::of(call.headers))),
    };
    insert(response.headers_mut(), TASK, &id.to_string());
    wait::say_applied(response.headers_mut(), wait);
    Some(response)
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

/// The document of a Failed task.
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
