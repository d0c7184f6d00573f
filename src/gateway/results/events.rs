//! A task's status as a stream of server-sent events (WHATWG HTML, 9.2): the status now, each change,
//! signs of life, and an `end` that says why there is no more.
//!
//! Invariant: a stream ends with its task, with its caller's token, and with the node; it never goes
//! back to an earlier status, and tells no change to a caller who is no longer let in. That is judged
//! before each change and with each sign of life, so that a stream does not outlast a revoked token.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::client::{BoxError, empty_body};
use crate::clock::Clock;
use crate::gateway::GatewayBody;
use crate::gateway::accept::EVENT_STREAM;
use crate::id::TaskId;
use crate::identity::{Caller, Identity, Rejection};
use crate::task::Progress;
use crate::watch::Waiter;

#[cfg(test)]
mod tests;

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
    /// At any part of a `heartbeat`: streams that began together shall not all ask about their tokens at once.
    pub next_beat: Instant,
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

/// Why a stream stirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Occasion {
    Change,
    SignOfLife,
}

/// Whether a stream whose task is `owner`'s goes on.
///
/// # Errors
/// The reason to end it for.
fn judge(occasion: Occasion, verdict: Result<Caller, Rejection>, owner: &str) -> Result<(), &'static str> {
    match (verdict, occasion) {
        (Ok(caller), _) if *caller.credentials_id == *owner => Ok(()),
        (Ok(_) | Err(Rejection::InvalidToken(_)), _) => Err("token_refused"),
        (Err(Rejection::Unavailable), Occasion::Change) => Err("identity_unavailable"),
        // A sign of life tells nothing, so it can wait for the next one to know.
        (Err(Rejection::Unavailable), Occasion::SignOfLife) => Ok(()),
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
        let beat = sleep_until(self.next_beat);
        tokio::pin!(token_ends, beat);
        let occasion = loop {
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
                        break Occasion::Change;
                    }
                }
                () = &mut beat => {
                    self.next_beat = Instant::now() + self.heartbeat;
                    break Occasion::SignOfLife;
                }
            }
        };
        let Reader { identity, credential, credentials_id } = &self.reader;
        let identified = identity.identify(credential, self.clock.wall());
        let Some(verdict) = self.stop.run_until_cancelled(identified).await else {
            return (end("stopping"), Next::Nothing);
        };
        match (judge(occasion, verdict, credentials_id), occasion) {
            (Err(reason), _) => (end(reason), Next::Nothing),
            (Ok(()), Occasion::Change) => self.say_known(),
            (Ok(()), Occasion::SignOfLife) => (String::from(": still here\n\n"), Next::Change),
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
