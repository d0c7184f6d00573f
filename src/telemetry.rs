//! What a node says about itself: logs and metrics. Never a token, a header value, a body or the query
//! of a webhook URI.

pub mod logs;
