//! What the tests stand on: the program as a process, peers that follow a script, a plain client.
//!
//! Waiting is always for an event, and always bounded: a wait that ends without its event fails the
//! test with a sentence. No test sleeps.

pub mod certificates;
pub mod client;
pub mod edge;
pub mod httpbin;
pub mod issuer;
pub mod node;
pub mod peer;
pub mod process;
pub mod receiver;
pub mod reply;
pub mod sandbox;
pub mod store;
pub mod wire;

use std::time::Duration;

/// The longest any single wait may take. Far above what is needed, so that a slow machine does not
/// fail a test and a hanging one still ends.
pub const LIMIT: Duration = Duration::from_secs(30);

/// The pause between two looks at something that cannot announce its change.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The future's output, or a failed test that says what did not happen.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    within_times(1, what, future).await
}

/// As [`within`], with so many times its limit.
pub async fn within_times<F: Future>(times: u32, what: &str, future: F) -> F::Output {
    let limit = LIMIT * times;
    let output = tokio::time::timeout(limit, future).await;
    output.unwrap_or_else(|_elapsed| panic!("waited {} s in vain until {what}", limit.as_secs()))
}

/// What `look` sees as soon as it sees something. For states that can only be asked for, such as
/// the status of a task; where there is an event to wait for, wait for that.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await
}
