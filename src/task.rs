//! The durable record of one asynchronous call, as far as it is not storage.

use http::Method;

/// Exactly four, as users see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Waiting to run, first time or between retries.
    Queued,
    /// An attempt is in flight.
    Running,
    Succeeded,
    Failed,
}

impl Status {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "Queued",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinalStatus {
    Succeeded,
    Failed,
}

impl From<FinalStatus> for Status {
    fn from(status: FinalStatus) -> Self {
        match status {
            FinalStatus::Succeeded => Self::Succeeded,
            FinalStatus::Failed => Self::Failed,
        }
    }
}

/// Whether sending a call twice can do harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safety {
    /// Sending it again is as good as sending it once (RFC 9110, 9.2.2).
    Repeatable,
    /// Sending it again may do its work twice.
    Unsafe,
}

impl Safety {
    /// Methods this list does not name are unsafe.
    #[must_use]
    pub fn of(method: &Method) -> Self {
        match *method {
            Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE => Self::Repeatable,
            _ => Self::Unsafe,
        }
    }
}
