//! Waiting for a task to end: no longer than asked for, allowed, or the caller's token is good, and not
//! beyond the node's own stop.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::gateway::Gateway;
use crate::identity::Caller;
use crate::task::Progress;
use crate::watch::Waiter;

/// How long a wait of so many seconds may last at most.
pub fn allowed(gateway: &Gateway, seconds: u64) -> Duration {
    Duration::from_secs(seconds).min(gateway.server.max_wait)
}

/// When the caller's token ends, where that is known.
pub fn token_ends(gateway: &Gateway, caller: &Caller) -> Option<Instant> {
    caller.expires_at.map(|at| Instant::now() + gateway.clock.wall().until(at))
}

/// When a wait that begins now is over.
pub fn end(wait: Duration, token_ends: Option<Instant>) -> Instant {
    let end = Instant::now() + wait;
    token_ends.map_or(end, |token| token.min(end))
}

/// Waits for the end of a task, until `end` at most. What is known of it then.
pub async fn until_final(
    waiter: &mut Waiter,
    mut known: Progress,
    end: Instant,
    stop: &CancellationToken,
) -> Progress {
    let mut time_up = std::pin::pin!(sleep_until(end));
    while !known.is_final() {
        tokio::select! {
            biased;
            change = waiter.next() => {
                // What was read after registering can be newer than what was told since.
                if change.step() > known.step() {
                    known = change;
                }
            }
            () = &mut time_up => break,
            () = stop.cancelled() => break,
        }
    }
    known
}

/// Says which wait was honoured (RFC 7240, 3).
pub fn say_applied(headers: &mut HeaderMap, wait: Duration) {
    if let Ok(value) = HeaderValue::from_str(&format!("wait={}", wait.as_secs())) {
        headers.append("preference-applied", value);
    }
}
