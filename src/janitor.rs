//! Removes what retention no longer keeps: results first, then whole tasks, then idempotency keys.
//!
//! In small transactions, one at a time, each of which the writer puts between two commits of calls, so
//! that removing never makes accepting wait for more than one of them.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Timestamp};
use crate::config::RetentionConfig;
use crate::store::{Cutoffs, Store};
use crate::telemetry::metrics::Metrics;

/// Rows of one transaction, at most.
const ROWS: u64 = 500;

/// Looks this often when there was nothing to remove …
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// … and never more often than this.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Runs until stopped.
pub async fn run(
    store: Store,
    retention: RetentionConfig,
    clock: Clock,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let pause = pause(&retention);
    while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        remove_all_due(&store, &retention, clock, &metrics, &stop).await;
    }
}

/// Short retention is looked after often, long retention once a minute.
fn pause(retention: &RetentionConfig) -> Duration {
    (retention.results.min(retention.tasks).min(retention.idempotency_keys) / 10).clamp(PAUSE_MIN, PAUSE_MAX)
}

async fn remove_all_due(
    store: &Store,
    retention: &RetentionConfig,
    clock: Clock,
    metrics: &Metrics,
    stop: &CancellationToken,
) {
    while !stop.is_cancelled() {
        let now = clock.steady();
        let before = |kept: Duration| Timestamp(now.0.saturating_sub(millis(kept)));
        let cutoffs = Cutoffs {
            results: before(retention.results),
            tasks: before(retention.tasks),
            keys: before(retention.idempotency_keys),
        };
        let Ok(purged) = store.purge(cutoffs, ROWS).await else { return };
        metrics.removed(purged);
        if purged.rows == 0 {
            return;
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_follows_the_shortest_retention() {
        let pause = |results, tasks, keys| {
            pause(&RetentionConfig {
                results: Duration::from_secs(results),
                tasks: Duration::from_secs(tasks),
                idempotency_keys: Duration::from_secs(keys),
            })
        };
        assert_eq!(pause(0, 5, 5), PAUSE_MIN);
        assert_eq!(pause(100, 1_000, 1_000), Duration::from_secs(10));
        assert_eq!(pause(100, 1_000, 50), Duration::from_secs(5));
        assert_eq!(pause(259_200, 2_592_000, 86_400), PAUSE_MAX);
    }
}
