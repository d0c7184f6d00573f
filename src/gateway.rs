//! The listener: what happens to a call before and after it is somebody else's business.

pub mod refusal;
