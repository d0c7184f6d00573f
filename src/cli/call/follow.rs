//! From a call to its task, and from the task to its end.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use http_body_util::Limited;
use serde_json::{Value, json};

use super::CallError;
use super::ask::Ask;
use super::events::{Events, Stage};
use crate::cli::CommandError;
use crate::cli::remote::{Address, Remote, RemoteError};
use crate::cli::screen::{Screen, printable};
use crate::client::{Received, empty_body, full_body};

/// Pause between two looks at a task; grows from the first to the last.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long Ringback may hold a look back until there is news. Shorter than what proxies allow.
const WAIT: &str = "wait=5";

/// A node that restarts is back within this.
const PATIENCE: Duration = Duration::from_secs(30);

/// The line on a terminal is drawn anew this often.
const FRAME: Duration = Duration::from_millis(100);

/// Longest answer about a task, errors included, that is read whole.
const ABOUT_BYTES: usize = 256 * 1024;

const TASK: HeaderName = HeaderName::from_static("ringback-task");
pub const STATUS: HeaderName = HeaderName::from_static("ringback-status");
const PREFER: HeaderName = HeaderName::from_static("prefer");
const EVENT_STREAM: &str = "text/event-stream";

/// A task as its 202 named it.
pub struct Task {
    pub id: String,
    pub results_uri: String,
    results: Address,
}

impl Task {
    /// Makes the call.
    pub async fn submit(remote: &Remote, ask: Ask) -> Result<Self, CommandError> {
        let Ask { method, address, headers, body, .. } = ask;
        let has_token = headers.contains_key(header::AUTHORIZATION);
        let body = body.map_or_else(empty_body, full_body);
        let answer = remote.send(method, &address, headers, body).await?;
        if answer.status() != StatusCode::ACCEPTED {
            let no_token = answer.status() == StatusCode::UNAUTHORIZED && !has_token;
            return Err(if no_token { CallError::NoToken.into() } else { refused(answer).await.into() });
        }
        let text = |name: &HeaderName| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let (Some(id), Some(results_uri)) = (text(&TASK), text(&header::LOCATION)) else {
            return Err(CallError::NotATask.into());
        };
        // The token goes only where the person sent it: the results are asked for at the same origin,
        // whatever the public address is called.
        let results = address.here(&Address::parse(results_uri).map_err(|_| CallError::NotATask)?);
        Ok(Self { id: printable(id).into_owned(), results_uri: printable(results_uri).into_owned(), results })
    }

    pub fn unfinished_json(&self, waited: Duration) -> Value {
        json!({
            "task_id": self.id,
            "results_uri": self.results_uri,
            "status": null,
            "elapsed_ms": u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

/// An answer that is no task, in one sentence.
async fn refused(answer: Response<Received>) -> CallError {
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), ABOUT_BYTES).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let what = match serde_json::from_slice::<Value>(&body) {
        Ok(body) if body["error"].is_string() => {
            let part = |name: &str| body[name].as_str().map(printable).unwrap_or_default();
            format!("{}: {}", part("error"), part("error_description"))
        }
        _ => return CallError::NotRingbacks(status),
    };
    CallError::Refused { status, what }
}

/// Everything needed to look at a task again and again.
pub struct Follow<'a> {
    pub remote: &'a Remote,
    pub task: &'a Task,
    pub headers: HeaderMap,
    pub started: Instant,
}

/// How a task is followed from here on.
enum News {
    /// The stream that was open, or there is none.
    Ended,
    Answer(Response<Received>),
}

impl Follow<'_> {
    /// The answer of the results endpoint once the task is finished, its body still to be read, and how
    /// many attempts it took, where that is known.
    pub async fn to_the_end(
        &self,
        screen: &mut Screen,
    ) -> Result<(Response<Received>, Option<u64>), CommandError> {
        let mut stage = Stage::of("Queued");
        let mut pause = PAUSE_MIN;
        let mut unreached: Option<Instant> = None;
        loop {
            let asked = Instant::now();
            let looked = match self.stream(screen, &mut stage).await {
                Ok(News::Ended) => self.drawing(screen, &stage, self.look(None)).await,
                Ok(News::Answer(answer)) => Ok(answer),
                Err(error) => Err(error),
            };
            match looked {
                Ok(answer) if answer.status() == StatusCode::ACCEPTED => {
                    unreached = None;
                    let said = answer.headers().get(STATUS).and_then(|said| said.to_str().ok());
                    if said.is_some_and(|said| said != stage.status) {
                        stage = Stage::of(said.unwrap_or_default());
                    }
                }
                Ok(answer) if answer.status() == StatusCode::OK => return Ok((answer, stage.attempts)),
                Ok(answer) if answer.status() != StatusCode::SERVICE_UNAVAILABLE => {
                    return Err(refused(answer).await.into());
                }
                // The task is safe: a node that is away or busy for a while is waited for.
                busy => {
                    let since = *unreached.get_or_insert_with(Instant::now);
                    if since.elapsed() > PATIENCE {
                        return Err(match busy {
                            Ok(answer) => refused(answer).await.into(),
                            Err(error) => error.into(),
                        });
                    }
                }
            }
            // An answer that was held back is pause enough.
            let rest = pause.saturating_sub(asked.elapsed());
            self.drawing(screen, &stage, tokio::time::sleep(rest)).await;
            pause = pause.mul_f64(1.5).min(PAUSE_MAX);
        }
    }

    /// Asks for the stream of the task's changes and follows it to its end. A node that has none to give
    /// answers as it would without.
    async fn stream(&self, screen: &mut Screen, stage: &mut Stage) -> Result<News, RemoteError> {
        let answer = self.drawing(screen, stage, self.look(Some(EVENT_STREAM))).await?;
        let kind = answer.headers().get(header::CONTENT_TYPE);
        if kind.is_none_or(|kind| !kind.as_bytes().starts_with(EVENT_STREAM.as_bytes())) {
            let full = answer.status() == StatusCode::SERVICE_UNAVAILABLE;
            // No room for one more stream; there is for a look.
            return Ok(if full { News::Ended } else { News::Answer(answer) });
        }
        let mut body = answer.into_body();
        let mut events = Events::default();
        while let Some(Ok(frame)) = self.drawing(screen, stage, body.frame()).await {
            let Ok(stages) = events.push(&frame.into_data().unwrap_or_default()) else { break };
            for next in stages {
                self.draw(screen, &next);
                *stage = next;
            }
        }
        Ok(News::Ended)
    }

    async fn look(&self, accept: Option<&'static str>) -> Result<Response<Received>, RemoteError> {
        let mut headers = self.headers.clone();
        if let Some(accept) = accept {
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        }
        headers.insert(PREFER, HeaderValue::from_static(WAIT));
        self.remote.send(Method::GET, &self.task.results, headers, empty_body()).await
    }

    /// Where lines stay, the last one says how it ended; it comes with the result.
    fn draw(&self, screen: &mut Screen, stage: &Stage) {
        if screen.moves() || !stage.is_final() {
            screen.now(&stage.describe(), self.started.elapsed());
        }
    }

    /// Draws the stage while `work` goes on.
    async fn drawing<F: Future>(&self, screen: &mut Screen, stage: &Stage, work: F) -> F::Output {
        let mut work = std::pin::pin!(work);
        loop {
            self.draw(screen, stage);
            if !screen.moves() {
                return work.await;
            }
            if let Ok(output) = tokio::time::timeout(FRAME, work.as_mut()).await {
                return output;
            }
        }
    }
}
