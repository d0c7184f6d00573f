//! What the writer does after a full disk: nothing is added to the write-ahead log before the log has been
//! carried over into the database.
//!
//! A log that cannot be carried over grows with every commit, and carrying it over needs as much new space
//! as there are new pages in it. Commits that took the first free bytes would fill the disk again without
//! ever getting there. Once it is carried over, the log's own space takes the commits that follow.

use std::time::Duration;

use rusqlite::{Connection, ErrorCode, ffi};

use crate::clock::Timestamp;

/// Between two attempts; until the next one everything is refused at once.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Default)]
pub(super) struct Room {
    /// The disk was full; not before then is it asked again.
    again_at: Option<Timestamp>,
}

impl Room {
    /// # Errors
    /// The disk is still full, or was a moment ago.
    pub fn make(&mut self, connection: &Connection, now: Timestamp) -> rusqlite::Result<()> {
        let Some(again_at) = self.again_at else { return Ok(()) };
        if now < again_at {
            return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), None));
        }
        self.again_at = Some(now.after(PAUSE));
        // A reader may keep the last pages from being carried over; that is no want of space.
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        self.again_at = None;
        Ok(())
    }

    /// Takes note of why a transaction failed.
    pub fn failed(&mut self, error: &rusqlite::Error, now: Timestamp) {
        if error.sqlite_error_code() == Some(ErrorCode::DiskFull) && self.again_at.is_none() {
            self.again_at = Some(now.after(PAUSE));
        }
    }
}

/// A full disk fails every row alike; anything else may be the fault of a single one.
pub(super) fn is_about_one_row(error: &rusqlite::Error) -> bool {
    !matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::ReadOnly
                | ErrorCode::DatabaseBusy
                | ErrorCode::CannotOpen
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
        )
    )
}
