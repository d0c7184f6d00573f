//! How far the steady clock had come when the store was last written.
//!
//! Every `due_at` and deadline is in the steady clock. If that began anew at a wall clock that was set back
//! while the node was down, retries would wait for as long as it was set back.

use rusqlite::Connection;

use crate::clock::Timestamp;

/// Written this often at most, and only with a commit that is made anyway; so a start after a crash and a
/// clock set back may wait this much longer than it has to.
const STEP_MS: i64 = 1_000;

pub(super) fn read(connection: &Connection) -> rusqlite::Result<Timestamp> {
    connection.query_row("SELECT seen FROM clock", [], |row| row.get(0)).map(Timestamp)
}

/// Keeps the mark.
pub(super) struct Seen(Timestamp);

impl Seen {
    /// The first commit writes the mark.
    pub fn new() -> Self {
        Self(Timestamp(0))
    }

    /// Writes `now` with the commit under way, if it is time. When that commit fails, the mark stays as
    /// it was until the next time.
    pub fn note(&mut self, connection: &Connection, now: Timestamp) -> rusqlite::Result<()> {
        if now.0 >= self.0.0.saturating_add(STEP_MS) {
            connection.prepare_cached("UPDATE clock SET seen = ?1")?.execute([now.0])?;
            self.0 = now;
        }
        Ok(())
    }
}
