//! What the janitor says: what it removed, and that a store is full; each at most once a minute.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::store::Purged;
use crate::telemetry::metrics::RemovedFor;

const EVERY: Duration = Duration::from_mins(1);

/// Counts since the last line.
#[derive(Default)]
pub(super) struct Tally {
    aged: Counts,
    sized: Counts,
    /// The last line about removing, or when counting began.
    said: Option<Timestamp>,
    /// The last line about a full store; `None` while it has room and that is known.
    full_said: Option<Timestamp>,
}

#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct Counts {
    results: u64,
    tasks: u64,
    keys: u64,
    bytes: u64,
}

/// One line of the log.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Removed(RemovedFor, Counts),
    Full,
    RoomAgain,
}

impl Tally {
    pub fn add(&mut self, purged: &Purged, why: RemovedFor) {
        let counts = match why {
            RemovedFor::Age => &mut self.aged,
            RemovedFor::Size => &mut self.sized,
        };
        counts.results += purged.results;
        counts.tasks += purged.tasks;
        counts.keys += purged.keys;
        counts.bytes += purged.bytes;
    }

    /// Says what there is to say by now.
    pub fn say(&mut self, now: Timestamp, is_full: bool) {
        for line in self.lines(now, is_full) {
            match line {
                Line::Removed(why, Counts { results, tasks, keys, bytes }) => {
                    tracing::info!(reason = why.as_str(), results, tasks, keys, bytes, "retention removed");
                }
                Line::Full => tracing::warn!(
                    "the store holds more than `retention.max_bytes`; calls are refused until enough finished tasks \
                     may go"
                ),
                Line::RoomAgain => tracing::info!("the store has room again"),
            }
        }
    }

    fn lines(&mut self, now: Timestamp, is_full: bool) -> Vec<Line> {
        let mut lines = Vec::new();
        let is_due = |last: Timestamp| last.until(now) >= EVERY;
        if is_due(*self.said.get_or_insert(now)) {
            let counts = [
                (RemovedFor::Age, std::mem::take(&mut self.aged)),
                (RemovedFor::Size, std::mem::take(&mut self.sized)),
            ];
            let counts = counts.into_iter().filter(|(_, counts)| *counts != Counts::default());
            lines.extend(counts.map(|(why, counts)| Line::Removed(why, counts)));
            self.said = Some(now);
        }
        match (is_full, self.full_said) {
            (true, last) if last.is_none_or(is_due) => {
                self.full_said = Some(now);
                lines.push(Line::Full);
            }
            // A store at its bound goes over it and back all the time.
            (false, Some(last)) if is_due(last) => {
                self.full_said = None;
                lines.push(Line::RoomAgain);
            }
            _ => {}
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000)
    }

    #[test]
    fn what_was_removed_is_said_once_a_minute_and_not_twice() {
        let mut tally = Tally::default();
        let purged = Purged { results: 2, bytes: 8, ..Purged::default() };
        assert_eq!(tally.lines(at(0), false), []);
        tally.add(&purged, RemovedFor::Age);
        tally.add(&purged, RemovedFor::Age);
        assert_eq!(tally.lines(at(59), false), []);
        let counts = Counts { results: 4, bytes: 16, ..Counts::default() };
        assert_eq!(tally.lines(at(60), false), [Line::Removed(RemovedFor::Age, counts)]);
        assert_eq!(tally.lines(at(120), false), []);
    }

    #[test]
    fn a_store_that_is_full_now_and_then_is_said_to_be_once_a_minute() {
        let mut tally = Tally::default();
        assert_eq!(tally.lines(at(0), true), [Line::Full]);
        for second in 1..60 {
            assert_eq!(tally.lines(at(second), second % 2 == 0), []);
        }
        assert_eq!(tally.lines(at(60), true), [Line::Full]);
        assert_eq!(tally.lines(at(119), false), []);
        assert_eq!(tally.lines(at(120), false), [Line::RoomAgain]);
        assert_eq!(tally.lines(at(121), false), []);
    }
}
