//! The listener: what happens to a call before and after it is somebody else's business.

pub mod cors;
pub mod forwarded;
pub mod framing;
pub mod hop;
pub mod path;
pub mod query;
pub mod refusal;
