//! What all answers of our own share: header names and JSON bodies.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::Serialize;

use super::GatewayBody;
use crate::client::full_body;

/// The task an answer is about.
pub const TASK: HeaderName = HeaderName::from_static("ringback-task");
/// Its status.
pub const STATUS: HeaderName = HeaderName::from_static("ringback-status");
/// The status of the upstream's answer, which is never the status of ours.
pub const UPSTREAM_STATUS: HeaderName = HeaderName::from_static("ringback-upstream-status");

/// `value` as a JSON body.
pub fn json_body<T: Serialize>(value: &T) -> GatewayBody {
    full_body(Bytes::from(serde_json::to_vec(value).expect("our answers are strings and numbers")))
}

/// Adds a member to `Vary`, on the line that is there already.
pub fn vary_by(headers: &mut HeaderMap, name: &str) {
    let known = headers.get(header::VARY).map(HeaderValue::as_bytes);
    let line =
        known.map_or_else(|| name.as_bytes().to_vec(), |known| [known, b", ", name.as_bytes()].concat());
    if let Ok(line) = HeaderValue::from_bytes(&line) {
        headers.insert(header::VARY, line);
    }
}
