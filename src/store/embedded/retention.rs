//! What one retention transaction removes: results first, then whole tasks, then idempotency keys.
//!
//! Never the result of a task whose delivery is still owed: the receiver will come for it.

use rusqlite::{Connection, params};

use super::inbox::Purge;
use crate::id::Seq;
use crate::store::Purged;

/// Attempts and deliveries of one task are at most this many rows.
const ROWS_A_TASK: u64 = 40;

pub(super) fn purge(connection: &Connection, purge: &Purge) -> rusqlite::Result<Purged> {
    let mut purged = Purged::default();
    erased(connection, purge, &mut purged)?;
    results(connection, purge, &mut purged)?;
    if purged.rows + ROWS_A_TASK <= purge.rows {
        tasks(connection, purge, &mut purged)?;
    }
    keys(connection, purge, &mut purged)?;
    Ok(purged)
}

/// Results erased on demand whose delivery is no longer owed: nobody will ask for what is left of them.
fn erased(connection: &Connection, purge: &Purge, purged: &mut Purged) -> rusqlite::Result<()> {
    let removed = connection
        .prepare_cached(
            "DELETE FROM result WHERE seq IN
               (SELECT seq FROM result WHERE erased = 1
                  AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.seq = result.seq) LIMIT ?1)",
        )?
        .execute([sql_limit(purge.rows)])?;
    purged.results = removed as u64;
    purged.rows = purged.results;
    Ok(())
}

/// Keys grow with acceptance and a task ends after it: no row from the cutoff on can be old enough.
fn results(connection: &Connection, purge: &Purge, purged: &mut Purged) -> rusqlite::Result<()> {
    let mut select = connection.prepare_cached(
        "SELECT seq, chunks FROM result
         WHERE seq < ?1 AND finished_at < ?2
           AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.seq = result.seq)
         ORDER BY seq LIMIT ?3",
    )?;
    let before = Seq::first_at(purge.before.results).0;
    let found: Vec<(i64, u32)> = select
        .query_map(params![before, purge.before.results.0, sql_limit(purge.rows - purged.rows)], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<Result<_, _>>()?;
    for (seq, chunks) in found {
        let rows = u64::from(chunks.max(1));
        // One result alone may be larger than the limit; it still has to go at some time.
        if purged.rows > 0 && purged.rows + rows > purge.rows {
            break;
        }
        connection.prepare_cached("DELETE FROM result WHERE seq = ?1")?.execute([seq])?;
        if chunks > 1 {
            connection.prepare_cached("DELETE FROM chunk WHERE seq = ?1 AND kind = 1")?.execute([seq])?;
        }
        purged.results += 1;
        purged.rows += rows;
    }
    Ok(())
}

fn tasks(connection: &Connection, purge: &Purge, purged: &mut Purged) -> rusqlite::Result<()> {
    let mut select = connection.prepare_cached(
        "SELECT seq FROM task
         WHERE seq < ?1
           AND NOT EXISTS (SELECT 1 FROM result WHERE result.seq = task.seq)
           AND NOT EXISTS (SELECT 1 FROM state WHERE state.seq = task.seq)
           AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.seq = task.seq)
         ORDER BY seq LIMIT ?2",
    )?;
    let before = Seq::first_at(purge.before.tasks).0;
    let found: Vec<i64> = select
        .query_map(params![before, sql_limit(purge.rows)], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for seq in found {
        if purged.rows + ROWS_A_TASK > purge.rows {
            break;
        }
        let attempts = connection.prepare_cached("DELETE FROM attempt WHERE seq = ?1")?.execute([seq])?;
        connection.prepare_cached("DELETE FROM task WHERE seq = ?1")?.execute([seq])?;
        purged.tasks += 1;
        purged.rows += 1 + attempts as u64;
    }
    Ok(())
}

fn keys(connection: &Connection, purge: &Purge, purged: &mut Purged) -> rusqlite::Result<()> {
    let room = purge.rows.saturating_sub(purged.rows);
    let removed = connection
        .prepare_cached(
            "DELETE FROM idempotency
             WHERE seq IN (SELECT seq FROM idempotency WHERE seq < ?1 ORDER BY seq LIMIT ?2)",
        )?
        .execute(params![Seq::first_at(purge.before.keys).0, sql_limit(room)])?;
    purged.keys = removed as u64;
    purged.rows += purged.keys;
    Ok(())
}

fn sql_limit(rows: u64) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
