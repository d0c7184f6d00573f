//! What one retention transaction removes: by age results first, then whole tasks, then idempotency keys;
//! by size whole tasks, the oldest first.
//!
//! Never a task that is not final, and never the result of one whose delivery is still owed: the receiver
//! will come for it. Idempotency keys go by age alone: forgetting one could make an unsafe call twice.

#[cfg(test)]
mod tests;

use rusqlite::{Connection, TransactionBehavior, params};
use tokio::time::Instant;

use super::Store;
use super::inbox::{Purge, Removal};
use super::space::{self, Space};
use crate::clock::Timestamp;
use crate::id::Seq;
use crate::store::{Cutoffs, EndedTasks, Purged, StoreError};

/// A long result counts as one row for so many bytes: about a page.
const BYTES_A_ROW: u64 = 8_192;

// ended: every final task from a key on, whether it may go now or not, so that a page of them is bounded.
const ENDED: &str = "
    SELECT task.seq, (result.seq IS NULL OR result.finished_at < ?2) AND state.seq IS NULL AND delivery.seq IS NULL
    FROM task
    LEFT JOIN result ON result.seq = task.seq
    LEFT JOIN state ON state.seq = task.seq
    LEFT JOIN delivery ON delivery.seq = task.seq
    WHERE task.seq >= ?1 ORDER BY task.seq LIMIT ?3";

impl Store {
    /// Looks at `limit` tasks from `from` on, oldest first, for those that may go: final, no delivery owed,
    /// and the result gone or older than `before` (steady clock). Reads only; whatever may go, may go later.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn ended_tasks(
        &self,
        from: Seq,
        before: Timestamp,
        limit: u32,
    ) -> Result<EndedTasks, StoreError> {
        self.shared.readers.read(move |connection| ended(connection, from, before, limit)).await
    }
}

fn ended(connection: &Connection, from: Seq, before: Timestamp, limit: u32) -> rusqlite::Result<EndedTasks> {
    let mut select = connection.prepare_cached(ENDED)?;
    let looked: Vec<(i64, bool)> = select
        .query_map(params![from.0, before.0, limit], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let is_last = looked.len() < limit as usize;
    let next = looked.last().filter(|_| !is_last).map(|(seq, _)| Seq(seq + 1));
    let tasks = looked.into_iter().filter_map(|(seq, may_go)| may_go.then_some(Seq(seq))).collect();
    Ok(EndedTasks { tasks, next })
}

/// One transaction of its own.
pub(super) fn transact(
    connection: &mut Connection,
    removal: &Purge,
    space: &Space,
) -> rusqlite::Result<Purged> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let began = Instant::now();
    let (mut purged, in_use) = purge(&tx, removal)?;
    purged.work = began.elapsed();
    tx.commit()?;
    space.note(in_use);
    Ok(purged)
}

/// What is removed, and the bytes that are in use after it.
fn purge(connection: &Connection, purge: &Purge) -> rusqlite::Result<(Purged, u64)> {
    let before = space::in_use(connection)?;
    let mut purged = Purged::default();
    match &purge.removal {
        Removal::Aged(cutoffs) => aged(connection, cutoffs, purge.rows, &mut purged)?,
        Removal::Oldest { tasks, goal } => oldest(connection, tasks, *goal, purge.rows, &mut purged)?,
    }
    let after = space::in_use(connection)?;
    purged.bytes = before.saturating_sub(after);
    Ok((purged, after))
}

fn aged(connection: &Connection, before: &Cutoffs, rows: u64, purged: &mut Purged) -> rusqlite::Result<()> {
    erased(connection, rows, purged)?;
    results(connection, before, rows, purged)?;
    tasks(connection, before, rows, purged)?;
    keys(connection, before, rows, purged)
}

/// Whole tasks, in the order given, until no more than `goal` bytes are in use.
fn oldest(
    connection: &Connection,
    tasks: &[Seq],
    goal: u64,
    rows: u64,
    purged: &mut Purged,
) -> rusqlite::Result<()> {
    for &seq in tasks {
        if purged.rows >= rows || space::in_use(connection)? <= goal {
            break;
        }
        purged.reached = Some(seq);
        // The list may be wrong, this must not be.
        let removed = connection
            .prepare_cached(
                "DELETE FROM task WHERE seq = ?1
                   AND NOT EXISTS (SELECT 1 FROM state WHERE seq = ?1)
                   AND NOT EXISTS (SELECT 1 FROM delivery WHERE seq = ?1)",
            )?
            .execute([seq.0])?;
        if removed == 0 {
            continue;
        }
        let length: Option<i64> = connection
            .prepare_cached("SELECT sum(length) FROM result WHERE seq = ?1")?
            .query_row([seq.0], |row| row.get(0))?;
        let results = connection.prepare_cached("DELETE FROM result WHERE seq = ?1")?.execute([seq.0])?;
        connection.prepare_cached("DELETE FROM chunk WHERE seq = ?1")?.execute([seq.0])?;
        let attempts = connection.prepare_cached("DELETE FROM attempt WHERE seq = ?1")?.execute([seq.0])?;
        purged.tasks += 1;
        purged.results += results as u64;
        purged.rows += 1 + attempts as u64 + length.map_or(0, rows_of);
    }
    Ok(())
}

/// What removing a result costs, in rows.
fn rows_of(length: i64) -> u64 {
    1 + u64::try_from(length).unwrap_or(0) / BYTES_A_ROW
}

/// Results erased on demand whose delivery is no longer owed: nobody will ask for what is left of them.
fn erased(connection: &Connection, rows: u64, purged: &mut Purged) -> rusqlite::Result<()> {
    let removed = connection
        .prepare_cached(
            "DELETE FROM result WHERE seq IN
               (SELECT seq FROM result WHERE erased = 1
                  AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.seq = result.seq) LIMIT ?1)",
        )?
        .execute([sql_limit(rows)])?;
    purged.results = removed as u64;
    purged.rows = purged.results;
    Ok(())
}

/// Keys grow with acceptance and a task ends after it: no row from the cutoff on can be old enough.
fn results(
    connection: &Connection,
    before: &Cutoffs,
    rows: u64,
    purged: &mut Purged,
) -> rusqlite::Result<()> {
    let mut select = connection.prepare_cached(
        "SELECT seq, chunks, length FROM result
         WHERE seq < ?1 AND finished_at < ?2
           AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.seq = result.seq)
         ORDER BY seq LIMIT ?3",
    )?;
    let first_kept = Seq::first_at(before.results).0;
    let found: Vec<(i64, u32, i64)> = select
        .query_map(
            params![first_kept, before.results.0, sql_limit(rows.saturating_sub(purged.rows))],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?
        .collect::<Result<_, _>>()?;
    for (seq, chunks, length) in found {
        let cost = rows_of(length);
        // One result alone may be larger than the limit; it still has to go at some time.
        if purged.rows > 0 && purged.rows + cost > rows {
            break;
        }
        connection.prepare_cached("DELETE FROM result WHERE seq = ?1")?.execute([seq])?;
        if chunks > 1 {
            connection.prepare_cached("DELETE FROM chunk WHERE seq = ?1 AND kind = 1")?.execute([seq])?;
        }
        purged.results += 1;
        purged.rows += cost;
    }
    Ok(())
}

fn tasks(connection: &Connection, before: &Cutoffs, rows: u64, purged: &mut Purged) -> rusqlite::Result<()> {
    let mut select = connection.prepare_cached(
        "SELECT seq FROM task
         WHERE seq < ?1
           AND NOT EXISTS (SELECT 1 FROM result WHERE result.seq = task.seq)
           AND NOT EXISTS (SELECT 1 FROM state WHERE state.seq = task.seq)
           AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.seq = task.seq)
         ORDER BY seq LIMIT ?2",
    )?;
    let first_kept = Seq::first_at(before.tasks).0;
    let found: Vec<i64> = select
        .query_map(params![first_kept, sql_limit(rows.saturating_sub(purged.rows))], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for seq in found {
        // Its attempts are a few rows more.
        if purged.rows >= rows {
            break;
        }
        let attempts = connection.prepare_cached("DELETE FROM attempt WHERE seq = ?1")?.execute([seq])?;
        connection.prepare_cached("DELETE FROM task WHERE seq = ?1")?.execute([seq])?;
        purged.tasks += 1;
        purged.rows += 1 + attempts as u64;
    }
    Ok(())
}

fn keys(connection: &Connection, before: &Cutoffs, rows: u64, purged: &mut Purged) -> rusqlite::Result<()> {
    let room = rows.saturating_sub(purged.rows);
    let removed = connection
        .prepare_cached(
            "DELETE FROM idempotency
             WHERE seq IN (SELECT seq FROM idempotency WHERE seq < ?1 ORDER BY seq LIMIT ?2)",
        )?
        .execute(params![Seq::first_at(before.keys).0, sql_limit(room)])?;
    purged.keys = removed as u64;
    purged.rows += purged.keys;
    Ok(())
}

fn sql_limit(rows: u64) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
