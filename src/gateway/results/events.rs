//! A task's status as a stream of server-sent events (WHATWG HTML, 9.2): the status now, each change,
//! signs of life, and an `end` that says why there is no more.
//!
//! Invariant: a stream ends with its task, with its caller's token, and with the node; it never goes
//! back to an earlier status, and tells no change to a caller who is no longer let in.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde::Serialize;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::client::{BoxError, empty_body};
use crate::clock::{Clock, Timestamp};
use crate::gateway::GatewayBody;
use crate::gateway::accept::EVENT_STREAM;
use crate::id::TaskId;
use crate::identity::{Identity, Rejection};
use crate::task::Progress;
use crate::watch::Waiter;

/// The id of the last status of a task. A client that comes back with it has seen everything.
const FINAL: &str = "final";

/// Data of a `status` event.
#[derive(Serialize)]
struct StatusEvent<'a> {
    task_id: &'a str,
    status: &'a str,
    attempts: u32,
    /// RFC 3339; between two attempts only.
    next_try_at: Option<String>,
}

/// One client following one task.
pub struct Follow {
    pub id: TaskId,
    pub clock: Clock,
    pub known: Progress,
    /// None where the task is final.
    pub waiter: Option<Waiter>,
    pub heartbeat: Duration,
    pub token_ends: Option<Instant>,
    pub reader: Reader,
    pub stop: CancellationToken,
}

/// Who reads a stream. A token can be revoked while its stream is open.
pub struct Reader {
    pub identity: Arc<Identity>,
    /// What the identity reads of the call's headers.
    pub credential: HeaderMap,
    pub credentials_id: Arc<str>,
}

impl Reader {
    /// Whether the caller is still the one the task belongs to.
    ///
    /// # Errors
    /// The reason to end the stream for.
    async fn identify(&self, wall: Timestamp) -> Result<(), &'static str> {
        match self.identity.identify(&self.credential, wall).await {
            Ok(caller) if caller.credentials_id == self.credentials_id => Ok(()),
            Ok(_) | Err(Rejection::InvalidToken(_)) => Err("token_refused"),
            Err(Rejection::Unavailable) => Err("identity_unavailable"),
        }
    }
}

enum Next {
    First,
    Change,
    Nothing,
}

/// The head of a stream, its body left to the caller.
pub fn response(body: GatewayBody) -> Response<GatewayBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    // Proxies that gather answers would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Whether a client that was cut off had seen the end already.
pub fn has_seen_all(headers: &HeaderMap) -> bool {
    headers.get("last-event-id").is_some_and(|id| id.as_bytes() == FINAL.as_bytes())
}

/// 204 tells a browser not to come back.
pub fn nothing_more() -> Response<GatewayBody> {
    let mut response = Response::new(empty_body());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

impl Follow {
    /// The events, made as they come.
    pub fn into_body(self) -> GatewayBody {
        let events = stream::unfold((self, Next::First), |(mut follow, next)| async move {
            let (text, next) = match next {
                Next::First => follow.say_known(),
                Next::Change => follow.next().await,
                Next::Nothing => return None,
            };
            Some((Ok::<_, BoxError>(Frame::data(Bytes::from(text))), (follow, next)))
        });
        StreamBody::new(events).boxed_unsync()
    }

    async fn next(&mut self) -> (String, Next) {
        let Some(waiter) = &mut self.waiter else { return (end("finished"), Next::Nothing) };
        let far = Instant::now() + Duration::from_hours(24);
        let token_ends = sleep_until(self.token_ends.unwrap_or(far));
        let beat = sleep(self.heartbeat);
        tokio::pin!(token_ends, beat);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return (end("stopping"), Next::Nothing),
                () = &mut token_ends, if self.token_ends.is_some() => {
                    return (end("token_expired"), Next::Nothing);
                }
                change = waiter.next() => {
                    // What was read after registering can be newer than what was told since.
                    if change.step() > self.known.step() {
                        self.known = change;
                        break;
                    }
                }
                () = &mut beat => return (String::from(": still here\n\n"), Next::Change),
            }
        }
        let identified = self.reader.identify(self.clock.wall());
        match self.stop.run_until_cancelled(identified).await {
            Some(Ok(())) => self.say_known(),
            Some(Err(reason)) => (end(reason), Next::Nothing),
            None => (end("stopping"), Next::Nothing),
        }
    }

    /// The status as an event, with the end behind it where there is nothing to follow.
    fn say_known(&self) -> (String, Next) {
        let next_try_at = self.known.next_try_at.map(|due_at| {
            let after = self.clock.steady().until(due_at);
            self.clock.wall().after(after).to_rfc3339()
        });
        let mut text = status(self.id, self.known, next_try_at);
        if self.known.is_final() {
            text += &end("finished");
            return (text, Next::Nothing);
        }
        (text, Next::Change)
    }
}

fn status(id: TaskId, known: Progress, next_try_at: Option<String>) -> String {
    let event = StatusEvent {
        task_id: &id.to_string(),
        status: known.status.as_str(),
        attempts: known.attempts,
        next_try_at,
    };
    let data = serde_json::to_string(&event).expect("an event is strings and numbers");
    let id = if known.is_final() { String::from(FINAL) } else { known.step().to_string() };
    format!("id: {id}\nevent: status\ndata: {data}\n\n")
}

fn end(reason: &str) -> String {
    format!("event: end\ndata: {{\"reason\":\"{reason}\"}}\n\n")
}
