//! A finished task: what is printed or saved of it.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, header};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value, json};

use super::CallError;
use super::follow::{STATUS, Task};
use crate::cli::screen::printable;
use crate::cli::{CommandError, print};
use crate::client::Received;

/// With `--json` the result is held in memory.
const JSON_BYTES: usize = 16 * 1024 * 1024;

/// The answer of the results endpoint.
pub struct Ended {
    headers: HeaderMap,
    body: Received,
    /// Where they are known.
    attempts: Option<u64>,
}

impl Ended {
    pub fn of(answer: Response<Received>, attempts: Option<u64>) -> Self {
        let (parts, body) = answer.into_parts();
        Self { headers: parts.headers, body, attempts }
    }

    pub fn succeeded(&self) -> bool {
        self.status() == "Succeeded"
    }

    pub fn status(&self) -> &str {
        self.text(STATUS.as_str()).unwrap_or("unknown")
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn upstream_status(&self) -> Option<u16> {
        self.text("ringback-upstream-status")?.parse().ok()
    }

    /// Attempts, where it took several, upstream status, content type and length, as far as known.
    pub fn facts(&self) -> String {
        let attempts = self.attempts.filter(|count| *count > 1).map(|count| format!("{count} attempts"));
        let upstream = self.upstream_status().map(|status| format!("API {status}"));
        let described = self.succeeded().then(|| {
            let kind = self.text("content-type").map(|kind| printable(kind).into_owned());
            kind.into_iter().chain(self.text("content-length").map(|length| format!("{length} bytes")))
        });
        attempts
            .into_iter()
            .chain(upstream)
            .chain(described.into_iter().flatten())
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Prints or saves the result. A Failed task is an error that says why.
    pub async fn print(self, output: Option<&Path>) -> Result<(), CommandError> {
        if !self.succeeded() {
            return Err(failed(&self.whole().await?).into());
        }
        if let Some(path) = output {
            return self.save(path).await;
        }
        let terminal = io::stdout().is_terminal();
        if terminal && !is_text(&self.headers) {
            return Err(CallError::Binary.into());
        }
        let mut last = None;
        let mut body = self.body;
        while let Some(piece) = next(&mut body).await? {
            let mut out = io::stdout().lock();
            match out.write_all(&piece).and_then(|()| out.flush()) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                written => written?,
            }
            last = piece.last().copied().or(last);
        }
        // On a terminal the prompt belongs on a line of its own; a pipe gets the bytes and no more.
        if terminal && last.is_some_and(|byte| byte != b'\n') { Ok(print("\n")?) } else { Ok(()) }
    }

    async fn save(self, path: &Path) -> Result<(), CommandError> {
        let mut part = Part::beside(path)?;
        let mut body = self.body;
        while let Some(piece) = next(&mut body).await? {
            part.write(&piece)?;
        }
        Ok(part.become_whole()?)
    }

    /// One object: the task, how it ended, and the result, as JSON where it is JSON, else as text, else
    /// in base64.
    pub async fn print_json(
        self,
        task: &Task,
        took: Duration,
        output: Option<&Path>,
    ) -> Result<(), CommandError> {
        let mut object = Map::new();
        let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
        put("task_id", json!(task.id));
        put("results_uri", json!(task.results_uri));
        put("status", json!(self.status()));
        put("elapsed_ms", json!(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)));
        put("attempts", json!(self.attempts));
        put("upstream_status", json!(self.upstream_status()));
        if !self.succeeded() {
            let body = self.whole().await?;
            let about: Value = serde_json::from_slice(&body).unwrap_or_default();
            for name in ["error", "error_description", "error_details"] {
                put(name, about[name].clone());
            }
            print(&format!("{}\n", Value::Object(object)))?;
            return Err(failed(&body).into());
        }
        put("content_type", json!(self.text("content-type")));
        if let Some(path) = output {
            put("saved_to", json!(path));
            self.save(path).await?;
        } else {
            let (name, value) = result_json(&self.whole().await?);
            put(name, value);
        }
        Ok(print(&format!("{}\n", Value::Object(object)))?)
    }

    async fn whole(self) -> Result<Bytes, CommandError> {
        let mut body = self.body;
        let mut whole = Vec::new();
        while let Some(piece) = next(&mut body).await? {
            if whole.len() + piece.len() > JSON_BYTES {
                return Err(CallError::TooLargeForJson(JSON_BYTES).into());
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.into())
    }
}

/// A file beside the wanted one, so that a part is never taken for the whole. Dropped before it is whole,
/// it is removed: what came is of no use to anybody.
pub struct Part<'p> {
    file: File,
    at: PathBuf,
    wanted: &'p Path,
}

impl<'p> Part<'p> {
    pub fn beside(wanted: &'p Path) -> Result<Self, CallError> {
        let mut at = wanted.as_os_str().to_owned();
        at.push(".part");
        let at = PathBuf::from(at);
        match File::create(&at) {
            Ok(file) => Ok(Self { file, at, wanted }),
            Err(source) => Err(CallError::Save { path: wanted.to_owned(), source }),
        }
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), CallError> {
        self.file.write_all(piece).map_err(|source| self.failed(source))
    }

    fn become_whole(self) -> Result<(), CallError> {
        std::fs::rename(&self.at, self.wanted).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> CallError {
        CallError::Save { path: self.wanted.to_owned(), source }
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        // Not there any more when it became the whole.
        let _ = std::fs::remove_file(&self.at);
    }
}

async fn next(body: &mut Received) -> Result<Option<Bytes>, CallError> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|_| CallError::BrokenOff)?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

fn result_json(body: &[u8]) -> (&'static str, Value) {
    use base64::Engine as _;
    if let Ok(value) = serde_json::from_slice(body) {
        return ("result", value);
    }
    match std::str::from_utf8(body) {
        Ok(text) => ("result_text", json!(text)),
        Err(_) => ("result_base64", json!(base64::engine::general_purpose::STANDARD.encode(body))),
    }
}

/// What a terminal shows as it is meant.
fn is_text(headers: &HeaderMap) -> bool {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return false;
    }
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return false };
    let kind = String::from_utf8_lossy(kind.as_bytes()).to_ascii_lowercase();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.starts_with("text/")
        || ["json", "xml", "yaml", "javascript", "x-www-form-urlencoded"]
            .iter()
            .any(|end| kind.ends_with(end))
}

/// A Failed task in words.
fn failed(body: &[u8]) -> CallError {
    let about: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |value: &Value| value.as_str().map(|text| printable(text).into_owned()).unwrap_or_default();
    let details = &about["error_details"];
    let mut notes = String::new();
    if let Some(attempts) = details["attempts"].as_u64() {
        let word = if attempts == 1 { "attempt" } else { "attempts" };
        let why = text(&details["reason"]);
        notes = format!("\n{attempts} {word}: {}", in_words(&why).unwrap_or(&why.replace('_', " ")));
    }
    if details["outcome"] == "unknown" {
        notes.extend(["\nnobody knows whether the call took effect", &sent(details)]);
    }
    CallError::Failed { error: text(&about["error"]), description: text(&about["error_description"]), notes }
}

/// Why there was no further attempt.
fn in_words(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "not_transient" => "another one would get the same answer",
        "not_repeatable" => "another one could do the call's work twice",
        "retries_exhausted" => "no retries are left",
        "deadline_exceeded" => "there was no time for another one",
        "cancelled" => "the task was cancelled",
        _ => return None,
    })
}

/// What is known of a call without an answer.
fn sent(details: &Value) -> String {
    let Some(sent_at) = details["sent_at"].as_str() else { return String::new() };
    let bytes = details["bytes_sent"].as_u64().map(|bytes| format!(", {bytes} bytes of its body"));
    let cause = details["cause"].as_str().unwrap_or_default().replace('_', " ");
    format!(
        ": sent at {}{}, no answer ({})",
        printable(sent_at),
        bytes.unwrap_or_default(),
        printable(&cause)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_json_or_text_or_base64() {
        assert_eq!(result_json(b"{\"a\":1}"), ("result", json!({ "a": 1 })));
        assert_eq!(result_json(b"a,b"), ("result_text", json!("a,b")));
        assert_eq!(result_json(b"\xff\x00"), ("result_base64", json!("/wA=")));
    }

    #[test]
    fn a_terminal_gets_text_only() {
        let is = |kind: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
            is_text(&headers)
        };
        for text in
            ["text/csv; charset=utf-8", "Application/JSON", "application/problem+json", "image/svg+xml"]
        {
            assert!(is(text), "{text}");
        }
        for binary in ["application/octet-stream", "image/png", ""] {
            assert!(!is(binary), "{binary}");
        }
        assert!(!is_text(&HeaderMap::new()));
    }

    #[test]
    fn a_failure_says_what_is_known_and_what_is_not() {
        let body = json!({
            "error": "outcome_unknown",
            "error_description": "The call was sent.\u{1b}[2J",
            "error_details": {
                "reason": "not_repeatable", "attempts": 1, "outcome": "unknown",
                "sent_at": "2026-11-23T08:00:00.000Z", "bytes_sent": 10, "cause": "connection_lost",
            },
        });
        let said = failed(body.to_string().as_bytes()).to_string();
        assert_eq!(
            said,
            "the task failed: outcome_unknown\nThe call was sent.\\u{1b}[2J\n1 attempt: another one could do the call's work twice\n\
             nobody knows whether the call took effect: sent at 2026-11-23T08:00:00.000Z, 10 bytes of its \
             body, no answer (connection lost)"
        );
    }
}
