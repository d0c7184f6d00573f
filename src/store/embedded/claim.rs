//! Taking leases on due work that rests in the store, in due order.

use rusqlite::{Connection, params};

use crate::clock::Timestamp;
use crate::id::Seq;
use crate::lease::LeaseToken;
use crate::store::{ReadyDelivery, ReadyTask};

use super::backlog::{Held, Owner};
use super::open::NEVER;

// claim_tasks
const DUE_TASKS: &str = "SELECT seq, attempts, started, deadline, started_at, owner FROM state
    WHERE lease = 0 AND upstream = ?1 AND due_at <= ?2 ORDER BY due_at LIMIT ?3";
const NEXT_TASK: &str = "SELECT min(due_at) FROM state WHERE lease = 0 AND upstream = ?1";
// claim_deliveries
const DUE_DELIVERIES: &str =
    "SELECT seq, tries FROM delivery WHERE lease = 0 AND due_at <= ?1 ORDER BY due_at LIMIT ?2";
const NEXT_DELIVERY: &str = "SELECT min(due_at) FROM delivery WHERE lease = 0";

/// Leases at most `room` due tasks of one upstream, and says what is known of them. Also says when the next one is due.
pub(super) fn tasks(
    connection: &Connection,
    upstream: i64,
    now: Timestamp,
    room: usize,
) -> rusqlite::Result<(Vec<(ReadyTask, Held)>, Timestamp)> {
    let mut claimed = Vec::new();
    let mut select = connection.prepare_cached(DUE_TASKS)?;
    let mut rows = select.query(params![upstream, now.0, sql_limit(room)])?;
    while let Some(row) = rows.next()? {
        let task = ReadyTask {
            seq: Seq(row.get(0)?),
            lease: new_lease(),
            attempts: row.get(1)?,
            started: row.get(2)?,
            deadline: Timestamp(row.get(3)?),
            started_at: Timestamp(row.get(4)?),
            request: None,
        };
        claimed.push((task, Held { owner: Owner(row.get(5)?), has_chunks: true }));
    }
    let mut lease = connection.prepare_cached("UPDATE state SET lease = ?2 WHERE seq = ?1")?;
    for (task, _) in &claimed {
        lease.execute(params![task.seq.0, task.lease.as_i64()])?;
    }
    Ok((claimed, next_task(connection, upstream)?))
}

pub(super) fn next_task(connection: &Connection, upstream: i64) -> rusqlite::Result<Timestamp> {
    let due: Option<i64> = connection.prepare_cached(NEXT_TASK)?.query_row([upstream], |row| row.get(0))?;
    Ok(due.map_or(NEVER, Timestamp))
}

/// Leases at most `room` due deliveries. Also says when the next one is due.
pub(super) fn deliveries(
    connection: &Connection,
    now: Timestamp,
    room: usize,
) -> rusqlite::Result<(Vec<ReadyDelivery>, Timestamp)> {
    let mut claimed = Vec::new();
    let mut select = connection.prepare_cached(DUE_DELIVERIES)?;
    let mut rows = select.query(params![now.0, sql_limit(room)])?;
    while let Some(row) = rows.next()? {
        claimed.push(ReadyDelivery { seq: Seq(row.get(0)?), lease: new_lease(), tries: row.get(1)? });
    }
    let mut lease = connection.prepare_cached("UPDATE delivery SET lease = ?2 WHERE seq = ?1")?;
    for delivery in &claimed {
        lease.execute(params![delivery.seq.0, delivery.lease.as_i64()])?;
    }
    Ok((claimed, next_delivery(connection)?))
}

pub(super) fn next_delivery(connection: &Connection) -> rusqlite::Result<Timestamp> {
    let due: Option<i64> = connection.prepare_cached(NEXT_DELIVERY)?.query_row([], |row| row.get(0))?;
    Ok(due.map_or(NEVER, Timestamp))
}

pub(super) fn new_lease() -> LeaseToken {
    LeaseToken::from_random(rand::random())
}

fn sql_limit(room: usize) -> i64 {
    i64::try_from(room).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A partial index is used only by a query that repeats its condition; a scan here would make
    /// every claim as slow as the backlog is long.
    #[test]
    fn every_claim_is_answered_by_its_index() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(&super::super::open::MIGRATIONS.concat()).unwrap();
        for (sql, index) in [
            (DUE_TASKS, "state_due"),
            (NEXT_TASK, "state_due"),
            (DUE_DELIVERIES, "delivery_due"),
            (NEXT_DELIVERY, "delivery_due"),
        ] {
            let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let arguments = rusqlite::params_from_iter(vec![1; explain.parameter_count()]);
            let plan: Vec<String> =
                explain.query_map(arguments, |row| row.get(3)).unwrap().map(Result::unwrap).collect();
            let plan = plan.join("; ");
            assert!(plan.contains(index), "{sql}: {plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{sql}: {plan}");
        }
    }
}
