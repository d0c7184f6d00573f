//! How far the steady clock had come when the store was last written, and what the date was then.
//!
//! Every `due_at` and deadline is in the steady clock. If that began anew at the wall clock, retries would
//! wait for as long as that was set back, and deadlines would pass and idempotency keys be forgotten early by
//! as much as it was set ahead.

use rusqlite::{Connection, OptionalExtension};

use crate::clock::{Clock, Mark, Timestamp};

/// Written this often at most, and only with a commit that is made anyway; so a start after a crash and a
/// clock set back may wait this much longer than it has to.
const STEP_MS: i64 = 1_000;

/// `None` before the first start of a version that keeps it.
pub(super) fn read(connection: &Connection) -> rusqlite::Result<Option<Mark>> {
    connection
        .query_row("SELECT seen, wall FROM clock", [], |row| {
            Ok(Mark { steady: Timestamp(row.get(0)?), wall: Timestamp(row.get(1)?) })
        })
        .optional()
}

/// Keeps the mark.
#[derive(Default)]
pub(super) struct Seen(Option<Mark>);

impl Seen {
    /// Writes the mark with the commit under way, if it is time or the wall clock was set. When that commit
    /// fails, the mark stays as it was until the next time.
    pub fn note(&mut self, connection: &Connection, clock: &Clock) -> rusqlite::Result<()> {
        let mark = clock.mark();
        if self.0.is_none_or(|last| is_due(last, mark)) {
            connection
                .prepare_cached(
                    "INSERT INTO clock (id, seen, wall) VALUES (1, ?1, ?2)
                     ON CONFLICT (id) DO UPDATE SET seen = ?1, wall = ?2",
                )?
                .execute([mark.steady.0, mark.wall.0])?;
            self.0 = Some(mark);
        }
        Ok(())
    }
}

fn is_due(last: Mark, now: Mark) -> bool {
    now.steady.0 >= last.steady.0.saturating_add(STEP_MS)
        || now.ahead().abs_diff(last.ahead()) >= STEP_MS as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_written_when_a_second_has_passed_or_the_wall_clock_was_set() {
        let mark = |steady, wall| Mark { steady: Timestamp(steady), wall: Timestamp(wall) };
        let last = mark(5_000, 9_000);
        assert!(!is_due(last, mark(5_999, 9_999)));
        assert!(is_due(last, mark(6_000, 10_000)));
        assert!(is_due(last, mark(5_001, 19_001)) && is_due(last, mark(5_001, 1)));
    }
}
