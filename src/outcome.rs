//! What one attempt came to, and what happens next.
//!
//! Owns the whole policy of retries as one pure function, [`decide`]: no I/O, no clock, no
//! randomness of its own. Honest about the three things that can happen to a call: it was *not
//! sent*, it was *sent and not answered*, or it was *answered*. Only the first and the last are
//! knowledge; the middle one is repeated only where repeating does no harm.

use std::time::Duration;

use serde::Deserialize;

use crate::backoff::Backoff;
use crate::clock::Timestamp;
use crate::task::Safety;

mod retry_after;
mod said;
mod statuses;
mod unanswered;

pub use retry_after::RetryAfter;
pub use said::{Said, UpstreamsError};
pub use statuses::TransientStatuses;
pub use unanswered::{Cause, Unanswered};

/// What an upstream promises about an unsafe call that arrives twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Idempotency {
    /// Nothing.
    None,
    /// It honours `Idempotency-Key` on the calls that carry one.
    Key,
    /// Every call may be repeated.
    Always,
}

impl Idempotency {
    /// Safety of a call by its method, once this promise is taken into account.
    #[must_use]
    pub fn safety(self, method: &http::Method, has_idempotency_key: bool) -> Safety {
        match self {
            Self::Always => Safety::Repeatable,
            Self::Key if has_idempotency_key => Safety::Repeatable,
            Self::Key | Self::None => Safety::of(method),
        }
    }
}

/// Why no byte of the call left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// The name did not resolve, the connection was refused or timed out, TLS failed.
    Unreachable,
}

/// Why a call that was sent has no whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// Headers, the next piece of the body or the whole answer took too long.
    Timeout,
    /// Reset, closed, a body shorter than declared, or an answer that is not HTTP.
    Broken,
}

/// The bare fact of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    NotSent(NotSent),
    NoAnswer(NoAnswer),
    Answered {
        status: u16,
        retry_after: Option<RetryAfter>,
    },
    /// Answered, but with a body above `max_result_bytes`.
    TooLarge {
        status: u16,
    },
}

/// The verdict on one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// Another attempt may fare better, and may be made.
    Transient,
    Fatal,
}

impl Outcome {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Transient => "transient",
            Self::Fatal => "fatal",
        }
    }
}

/// Why a task is Failed: the `error` of its result unless the upstream's answer names its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureCode {
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
    UpstreamRedirected,
    ResultTooLarge,
    DeadlineExceeded,
    OutcomeUnknown,
    Cancelled,
    InternalError,
}

impl FailureCode {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UpstreamError => "upstream_error",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamRedirected => "upstream_redirected",
            Self::ResultTooLarge => "result_too_large",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Cancelled => "cancelled",
            Self::InternalError => "internal_error",
        }
    }

    /// The code of this text, as stored.
    #[must_use]
    pub fn from_stored(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }

    const ALL: [Self; 9] = [
        Self::UpstreamError,
        Self::UpstreamTimeout,
        Self::UpstreamUnreachable,
        Self::UpstreamRedirected,
        Self::ResultTooLarge,
        Self::DeadlineExceeded,
        Self::OutcomeUnknown,
        Self::Cancelled,
        Self::InternalError,
    ];

    /// One sentence for the caller.
    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            Self::UpstreamError => "The API answered with an error or broke off its answer.",
            Self::UpstreamTimeout => "The API did not answer in time.",
            Self::UpstreamUnreachable => "The API could not be reached.",
            Self::UpstreamRedirected => {
                "The API answered with a redirect, which is not followed; call the new address instead."
            }
            Self::ResultTooLarge => "The API's answer is larger than the results kept here; ask for less.",
            Self::DeadlineExceeded => {
                "The task's deadline passed before the API could be called; call again."
            }
            Self::OutcomeUnknown => {
                "The call was sent, its answer is missing, and it is not safe to send again; ask the API \
                 whether it took effect."
            }
            Self::Cancelled => "The task was cancelled before it finished; call again if it is still needed.",
            Self::InternalError => "Ringback failed to finish this task; call again.",
        }
    }
}

/// Why there is no further attempt: `error_details.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Another attempt would meet the same answer.
    NotTransient,
    /// Another attempt could do the call's work twice.
    NotRepeatable,
    RetriesExhausted,
    DeadlineExceeded,
    /// The node stopped between sending and settling.
    Interrupted,
    /// Its caller asked for it.
    Cancelled,
    /// What was stored does not open with any key here.
    Unreadable,
    /// A defect of ours.
    Panicked,
}

impl Reason {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotTransient => "not_transient",
            Self::NotRepeatable => "not_repeatable",
            Self::RetriesExhausted => "retries_exhausted",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Interrupted => "interrupted",
            Self::Cancelled => "cancelled",
            Self::Unreadable => "unreadable",
            Self::Panicked => "panicked",
        }
    }
}

/// How a task failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: FailureCode,
    pub reason: Reason,
    /// Nobody knows whether the call took effect: `error_details.outcome = "unknown"`.
    pub effect_unknown: bool,
}

/// What to do after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Succeed,
    Retry { due_at: Timestamp },
    Fail(Failure),
}

/// What [`decide`] knows about the task.
#[derive(Clone, Copy, Debug)]
pub struct Attempted {
    /// From 1.
    pub number: u32,
    pub safety: Safety,
    pub deadline: Timestamp,
    pub exchange: Exchange,
}

/// When to try again; [`crate::config::RetryConfig`] ready to use.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    pub backoff: Backoff,
    pub statuses: TransientStatuses,
}

/// Statuses that say "not done": an unsafe call may be sent again after them.
const REFUSED_UNDONE: [u16; 4] = [408, 425, 429, 503];

/// Statuses after which an unsafe call may or may not have taken effect: the answer came from a
/// failure in mid-work, or from a gateway that lost sight of the one who did the work.
fn leaves_effect_unknown(status: u16) -> bool {
    matches!(status, 500 | 502 | 504 | 520..=529)
}

/// The longest wait an upstream's `Retry-After` is believed.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);

/// The verdict on an attempt and, where it is not a success, what a Failed task says about it.
#[must_use]
pub fn judge(exchange: Exchange, safety: Safety, statuses: &TransientStatuses) -> (Outcome, Failure) {
    let failure = |code, reason, effect_unknown| Failure { code, reason, effect_unknown };
    let repeatable = safety == Safety::Repeatable;
    match exchange {
        Exchange::NotSent(NotSent::Unreachable) => {
            (Outcome::Transient, failure(FailureCode::UpstreamUnreachable, Reason::RetriesExhausted, false))
        }
        Exchange::NoAnswer(_) if !repeatable => {
            (Outcome::Fatal, failure(FailureCode::OutcomeUnknown, Reason::NotRepeatable, true))
        }
        Exchange::NoAnswer(NoAnswer::Timeout) => {
            (Outcome::Transient, failure(FailureCode::UpstreamTimeout, Reason::RetriesExhausted, false))
        }
        Exchange::NoAnswer(NoAnswer::Broken) => {
            (Outcome::Transient, failure(FailureCode::UpstreamError, Reason::RetriesExhausted, false))
        }
        Exchange::TooLarge { status: 200..=299 } => {
            (Outcome::Fatal, failure(FailureCode::ResultTooLarge, Reason::NotTransient, false))
        }
        // An error's status says what to do, however long its page is.
        Exchange::Answered { status, .. } | Exchange::TooLarge { status } => {
            let error = |reason, unknown| failure(FailureCode::UpstreamError, reason, unknown);
            let unknown = !repeatable && leaves_effect_unknown(status);
            match status {
                200..=299 => (Outcome::Success, error(Reason::NotTransient, false)),
                300..=399 => {
                    (Outcome::Fatal, failure(FailureCode::UpstreamRedirected, Reason::NotTransient, false))
                }
                _ if !statuses.contains(status) => (Outcome::Fatal, error(Reason::NotTransient, unknown)),
                _ if repeatable || REFUSED_UNDONE.contains(&status) => {
                    (Outcome::Transient, error(Reason::RetriesExhausted, false))
                }
                _ => (Outcome::Fatal, error(Reason::NotRepeatable, unknown)),
            }
        }
    }
}

/// What happens after an attempt. `now` is the wall-independent time of its end, `wall` the date a
/// `Retry-After` date is compared with, `chance` a random number in `0.0..1.0`.
#[must_use]
pub fn decide(
    attempted: &Attempted,
    policy: &RetryPolicy,
    now: Timestamp,
    wall: Timestamp,
    chance: f64,
) -> (Outcome, Decision) {
    let (outcome, failure) = judge(attempted.exchange, attempted.safety, &policy.statuses);
    let decision = match outcome {
        Outcome::Success => Decision::Succeed,
        Outcome::Fatal => Decision::Fail(failure),
        Outcome::Transient => match policy.backoff.delay(attempted.number, chance) {
            None => Decision::Fail(failure),
            Some(delay) => {
                let asked = match attempted.exchange {
                    Exchange::Answered { retry_after: Some(after), .. } => {
                        after.wait(wall).min(RETRY_AFTER_MAX).mul_f64(1.0 + policy.backoff.jitter() * chance)
                    }
                    _ => Duration::ZERO,
                };
                let due_at = now.after(delay.max(asked));
                if due_at >= attempted.deadline {
                    Decision::Fail(Failure { reason: Reason::DeadlineExceeded, ..failure })
                } else {
                    Decision::Retry { due_at }
                }
            }
        },
    };
    (outcome, decision)
}

/// The end of a task whose deadline passed before an attempt could be made.
#[must_use]
pub fn deadline_passed() -> Failure {
    Failure { code: FailureCode::DeadlineExceeded, reason: Reason::DeadlineExceeded, effect_unknown: false }
}

/// The end of an unsafe task that was being sent when the node stopped.
#[must_use]
pub fn interrupted() -> Failure {
    Failure { code: FailureCode::OutcomeUnknown, reason: Reason::Interrupted, effect_unknown: true }
}

/// The end of a task that its caller cancelled; `was_sent`: an unsafe attempt was in flight.
#[must_use]
pub fn cancelled(was_sent: bool) -> Failure {
    Failure { code: FailureCode::Cancelled, reason: Reason::Cancelled, effect_unknown: was_sent }
}

#[cfg(test)]
mod tests;
