//! What all answers of our own share: header names and JSON bodies.

use bytes::Bytes;
use http::HeaderName;
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
