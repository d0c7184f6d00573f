//! Logs, metrics and panics: what is said, and under which names.
//!
//! Refuses to say anything secret: a token, a header value, a body or a webhook's query is in neither.

pub mod logs;
pub mod metrics;
pub mod panics;
