//! What is known of a call that was sent and has no answer.

use super::NoAnswer;
use crate::clock::Timestamp;

/// Tells a caller what to ask the API for: `error_details.sent_at`, `bytes_sent` and `cause`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// Wall clock, just before the first byte could leave.
    pub sent_at: Timestamp,
    /// Of the body, handed to the connection. `None` where nobody can know any more.
    pub bytes_sent: Option<u64>,
    pub cause: Cause,
}

/// Why the answer is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The API took longer than is waited for.
    Timeout,
    /// The connection broke, or the answer broke off.
    ConnectionLost,
    /// The node stopped before the answer came.
    NodeStopped,
    /// The caller did not wait for it.
    Cancelled,
}

impl Cause {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::ConnectionLost => "connection_lost",
            Self::NodeStopped => "node_stopped",
            Self::Cancelled => "cancelled",
        }
    }
}

impl From<NoAnswer> for Cause {
    fn from(why: NoAnswer) -> Self {
        match why {
            NoAnswer::Timeout => Self::Timeout,
            NoAnswer::Broken => Self::ConnectionLost,
        }
    }
}
