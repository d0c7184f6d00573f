//! How many bytes of the file are in use, and who is to hear of it.
//!
//! In use are the pages that hold something: all of the file but its free list. The write-ahead log is
//! not counted: it holds copies of pages, and a checkpoint empties it. The writer notes the number with
//! every commit, and only where there is a bound to keep.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rusqlite::Connection;
use tokio::sync::Notify;

use crate::room::Room;
use crate::store::StoreBytes;

#[derive(Default)]
pub(super) struct Space {
    room: Option<Room>,
    in_use: AtomicU64,
    full: AtomicBool,
    crowded: Notify,
}

impl Space {
    pub fn new(max_bytes: u64) -> Self {
        Self { room: Room::of(max_bytes), ..Self::default() }
    }

    /// Notes what is in use, as this connection's transaction sees it.
    pub fn look(&self, connection: &Connection) -> rusqlite::Result<()> {
        if self.room.is_some() {
            self.note(in_use(connection)?);
        }
        Ok(())
    }

    pub fn note(&self, in_use: u64) {
        let Some(room) = self.room else { return };
        self.in_use.store(in_use, Ordering::Relaxed);
        self.full.store(room.is_full(in_use), Ordering::Relaxed);
        if room.is_crowded(in_use) {
            self.crowded.notify_one();
        }
    }

    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    pub fn in_use(&self) -> u64 {
        self.in_use.load(Ordering::Relaxed)
    }

    /// Waits until a commit has left the store crowded.
    pub async fn crowded(&self) {
        self.crowded.notified().await;
    }
}

/// Bytes of the pages that hold something.
pub(super) fn in_use(connection: &Connection) -> rusqlite::Result<u64> {
    Ok(measure(connection)?.0)
}

/// The file's bytes in use and free, and those of its write-ahead log.
pub(super) fn bytes(connection: &Connection) -> rusqlite::Result<StoreBytes> {
    let (live, free) = measure(connection)?;
    let log = connection.path().map(|path| PathBuf::from(format!("{path}-wal")));
    // Without a log file there is nothing in it.
    let log = log.and_then(|log| fs::metadata(log).ok()).map_or(0, |log| log.len());
    Ok(StoreBytes { live, free, log })
}

fn measure(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    let ask = |sql: &str| -> rusqlite::Result<u64> {
        connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, u32>(0)).map(u64::from)
    };
    let size = ask("PRAGMA page_size")?;
    let (pages, free) = (ask("PRAGMA page_count")?, ask("PRAGMA freelist_count")?);
    Ok((pages.saturating_sub(free) * size, free * size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_deleted_is_free_within_the_same_transaction() {
        let dir = tempfile::tempdir().unwrap();
        let connection = Connection::open(dir.path().join("db")).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (b BLOB); BEGIN").unwrap();
        connection.execute("INSERT INTO t VALUES (zeroblob(1000000))", []).unwrap();
        let full = bytes(&connection).unwrap();
        assert!(full.live > 1_000_000 && full.free == 0, "{full:?}");
        connection.execute("DELETE FROM t", []).unwrap();
        let empty = bytes(&connection).unwrap();
        assert!(empty.live < 100_000 && empty.free > 900_000, "{empty:?}");
        assert_eq!(empty.live + empty.free, full.live + full.free);
        connection.execute_batch("COMMIT").unwrap();
        assert!(bytes(&connection).unwrap().log > 0);
    }

    #[test]
    fn a_store_without_a_bound_is_never_full() {
        let space = Space::new(0);
        space.note(u64::MAX);
        assert!(!space.is_full());
        let space = Space::new(1_000);
        space.note(1_001);
        assert!(space.is_full());
        space.note(1_000);
        assert!(!space.is_full());
    }
}
