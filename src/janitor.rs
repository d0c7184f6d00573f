//! Removes what retention no longer keeps: by age results first, then whole tasks, then idempotency keys;
//! and where the store may hold only so much, the oldest finished tasks before their time.
//!
//! In small transactions, one at a time, each of which the writer puts between two commits of calls. After
//! each the janitor rests as long as its rows took, so that calls have the writer most of the time.

mod tally;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Timestamp};
use crate::config::RetentionConfig;
use crate::id::Seq;
use crate::room::{Room, Stride};
use crate::store::{Cutoffs, Purged, Store, StoreError};
use crate::telemetry::metrics::{Metrics, RemovedFor};
use tally::Tally;

/// Looks this often when there was nothing to remove …
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// … and never more often than this.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// A crowded store in which nothing may go is looked through again after this, at the earliest.
const STUCK_PAUSE: Duration = Duration::from_millis(200);

/// Tasks looked at in one read.
const PAGE: u32 = 500;

/// Runs until stopped.
pub async fn run(
    store: Store,
    retention: RetentionConfig,
    clock: Clock,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    metrics.set_max_bytes(retention.max_bytes);
    let room = Room::of(retention.max_bytes);
    let (stride, tally) = (Stride::default(), Tally::default());
    let mut janitor = Janitor { store, retention, room, clock, metrics, stride, tally };
    // Told to stop, it leaves whatever it is at: a transaction that was begun is whole all the same.
    stop.run_until_cancelled_owned(janitor.look_after()).await;
}

struct Janitor {
    store: Store,
    retention: RetentionConfig,
    room: Option<Room>,
    clock: Clock,
    metrics: Arc<Metrics>,
    stride: Stride,
    tally: Tally,
}

/// How making room ended.
enum Made {
    Enough,
    /// All that may go has gone, and it was not enough.
    TooLittle,
}

impl Janitor {
    async fn look_after(&mut self) {
        let pause = pause(&self.retention);
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.store.crowded() => {}
            }
            // What cannot be written now is tried again at the next look.
            let _ = self.remove_aged().await;
            let began = Instant::now();
            let made = self.make_room().await;
            self.say();
            // Still crowded, or nothing can be written: asking again at once would never end.
            if is_stuck(&made) {
                tokio::time::sleep(stuck_pause(began.elapsed())).await;
            }
        }
    }

    async fn remove_aged(&mut self) -> Result<(), StoreError> {
        loop {
            let now = self.clock.steady();
            let before = |kept: Duration| ago(now, kept);
            let cutoffs = Cutoffs {
                results: before(self.retention.results),
                tasks: before(self.retention.tasks),
                keys: before(self.retention.idempotency_keys),
            };
            let purged = self.store.purge(cutoffs, self.stride.rows()).await?;
            if purged.rows == 0 {
                return Ok(());
            }
            self.removed(&purged, RemovedFor::Age).await;
        }
    }

    /// Removes the oldest finished tasks of a crowded store until it is at its goal.
    async fn make_room(&mut self) -> Result<Made, StoreError> {
        let Some(room) = self.room.filter(|room| room.is_crowded(self.store.bytes_in_use())) else {
            return Ok(Made::Enough);
        };
        let mut from = Some(Seq(0));
        while let Some(page) = from {
            let kept = self.retention.results_at_least.min(self.retention.results);
            let before = ago(self.clock.steady(), kept);
            let ended = self.store.ended_tasks(page, before, PAGE).await?;
            let mut tasks = ended.tasks;
            while !tasks.is_empty() {
                let purged = self.store.make_room(tasks.clone(), room.goal(), self.stride.rows()).await?;
                self.removed(&purged, RemovedFor::Size).await;
                let Some(reached) = purged.reached else { return Ok(Made::Enough) };
                tasks.retain(|task| *task > reached);
            }
            from = ended.next;
        }
        Ok(if self.store.bytes_in_use() <= room.goal() { Made::Enough } else { Made::TooLittle })
    }

    async fn removed(&mut self, purged: &Purged, why: RemovedFor) {
        self.metrics.removed(purged, why);
        self.tally.add(purged, why);
        self.stride = self.stride.after(purged.work);
        self.say();
        // A full store refuses calls: then nobody is held up.
        if !self.store.has_no_room() {
            tokio::time::sleep(purged.work).await;
        }
    }

    fn say(&mut self) {
        self.tally.say(self.clock.steady(), self.store.has_no_room());
    }
}

fn ago(now: Timestamp, kept: Duration) -> Timestamp {
    Timestamp(now.0.saturating_sub(i64::try_from(kept.as_millis()).unwrap_or(i64::MAX)))
}

/// Short retention is looked after often, long retention once a minute.
fn pause(retention: &RetentionConfig) -> Duration {
    (retention.results.min(retention.tasks).min(retention.idempotency_keys) / 10).clamp(PAUSE_MIN, PAUSE_MAX)
}

fn is_stuck(made: &Result<Made, StoreError>) -> bool {
    !matches!(made, Ok(Made::Enough))
}

/// Looking through a large store in vain takes no more than a fifth of the time.
fn stuck_pause(took: Duration) -> Duration {
    (took * 4).max(STUCK_PAUSE)
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
                max_bytes: 0,
                results_at_least: Duration::ZERO,
            })
        };
        assert_eq!(pause(0, 5, 5), PAUSE_MIN);
        assert_eq!(pause(100, 1_000, 1_000), Duration::from_secs(10));
        assert_eq!(pause(100, 1_000, 50), Duration::from_secs(5));
        assert_eq!(pause(259_200, 2_592_000, 86_400), PAUSE_MAX);
    }

    #[test]
    fn a_store_that_cannot_be_written_is_not_asked_again_at_once() {
        assert!(is_stuck(&Err(StoreError::Unavailable)) && is_stuck(&Ok(Made::TooLittle)));
        assert!(!is_stuck(&Ok(Made::Enough)));
    }

    #[test]
    fn looking_in_vain_is_rare() {
        assert_eq!(stuck_pause(Duration::ZERO), STUCK_PAUSE);
        assert_eq!(stuck_pause(Duration::from_secs(2)), Duration::from_secs(8));
    }
}
