//! The durable record of one asynchronous call, as far as it is not storage.

use http::{HeaderName, Method};

use crate::clock::Timestamp;
use crate::id::TaskId;

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

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub status: Status,
    /// Attempts begun, the one in flight included.
    pub attempts: u32,
    /// Steady clock; only between two attempts.
    pub next_try_at: Option<Timestamp>,
}

impl Progress {
    #[must_use]
    pub fn running(attempt: u32) -> Self {
        Self { status: Status::Running, attempts: attempt, next_try_at: None }
    }

    /// Waiting, after `attempts` attempts, until `due_at`.
    #[must_use]
    pub fn queued(attempts: u32, due_at: Timestamp) -> Self {
        let next_try_at = (attempts > 0).then_some(due_at);
        Self { status: Status::Queued, attempts, next_try_at }
    }

    #[must_use]
    pub fn ended(status: FinalStatus, attempts: u32) -> Self {
        Self { status: status.into(), attempts, next_try_at: None }
    }

    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self.status, Status::Succeeded | Status::Failed)
    }

    /// Grows with every change of a task, so that what was heard late is not taken for news.
    #[must_use]
    pub fn step(&self) -> u64 {
        match self.status {
            Status::Queued => u64::from(self.attempts) * 2,
            Status::Running => (u64::from(self.attempts) * 2).saturating_sub(1),
            Status::Succeeded | Status::Failed => u64::MAX,
        }
    }
}

/// The header whose calls an API may promise to make only once (draft-ietf-httpapi-idempotency-key-header, 2.1).
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

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

/// The public addresses of an upstream's tasks. Made from configuration alone, never from a call's
/// `Host`: whoever sends a call must not choose where its results seem to live.
#[derive(Clone)]
pub struct PublicUris {
    public_url: String,
    results: String,
}

impl PublicUris {
    /// `public_url` without a trailing slash; `prefix` as configured, `/` for the root.
    #[must_use]
    pub fn new(public_url: &str, prefix: &str, results_path: &str) -> Self {
        let prefix = prefix.trim_end_matches('/');
        Self { public_url: public_url.to_owned(), results: format!("{public_url}{prefix}{results_path}/") }
    }

    /// `results_uri`: where the result of this task is read.
    #[must_use]
    pub fn results_uri(&self, id: TaskId) -> String {
        self.results_uri_of(&id.to_string())
    }

    /// As [`PublicUris::results_uri`], of an id that is text already.
    #[must_use]
    pub fn results_uri_of(&self, id: &str) -> String {
        format!("{}{id}", self.results)
    }

    /// `request_uri`: the call as its sender would write it, without our own parameters.
    #[must_use]
    pub fn request_uri(&self, path: &str, query: Option<&str>) -> String {
        match query {
            Some(query) => format!("{}{path}?{query}", self.public_url),
            None => format!("{}{path}", self.public_url),
        }
    }
}
