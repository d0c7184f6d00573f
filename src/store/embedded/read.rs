//! The questions the gateway, the worker and the metrics ask.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Store, space};
use crate::clock::Timestamp;
use crate::id::{Seq, TaskId};
use crate::seal::Sealed;
use crate::store::{
    ChunkKind, Found, StoreError, StoreNumbers, StoredAnnouncement, StoredRequest, StoredResult, StoredTask,
};
use crate::task::{FinalStatus, Progress};

// find: one statement whoever asks and whatever exists, so that a task of others, an unknown id and a
// malformed id cannot be told apart by what is done for them.
const FIND: &str = "
    SELECT state.seq IS NOT NULL, result.succeeded, result.attempts, result.upstream_status, result.headers,
           result.body, result.chunks, result.length, result.failure, result.reason, result.effect_unknown,
           result.error, result.sent_at, result.bytes_sent, result.cause, state.attempts, state.due_at
    FROM task
    LEFT JOIN state ON state.seq = task.seq
    LEFT JOIN result ON result.seq = task.seq AND result.erased = 0
    WHERE task.seq = ?1 AND task.task_id = ?2 AND task.credentials_id = ?3
      AND task.upstream = (SELECT id FROM upstream WHERE name = ?4)";

const TASK_COLUMNS: &str = "task.task_id, (SELECT name FROM upstream WHERE id = task.upstream),
    task.credentials_id, task.method, task.path, task.query, task.webhook_uri, task.accepted_at";

fn request_sql() -> String {
    format!(
        "SELECT {TASK_COLUMNS}, request.headers, request.body, request.chunks
         FROM task JOIN request ON request.seq = task.seq WHERE task.seq = ?1"
    )
}

/// The requests of tasks, each in its place: `None` for one that is gone, or larger than `at_most` bytes.
pub(super) fn small_requests(
    connection: &Connection,
    tasks: impl Iterator<Item = Seq>,
    at_most: u32,
) -> rusqlite::Result<Vec<Option<StoredRequest>>> {
    let length = "length(request.headers) + ifnull(length(request.body), 0)";
    let small = format!("{} AND request.chunks <= 1 AND {length} <= ?2", request_sql());
    let mut select = connection.prepare_cached(&small)?;
    tasks.map(|seq| select.query_row(params![seq.0, at_most], stored_request).optional()).collect()
}

fn stored_request(row: &Row<'_>) -> rusqlite::Result<StoredRequest> {
    Ok(StoredRequest {
        task: stored_task(row)?,
        headers: Sealed::from_stored(row.get(8)?),
        body: row.get::<_, Option<_>>(9)?.map(Sealed::from_stored),
        chunks: row.get(10)?,
    })
}

impl Store {
    /// The task, if these credentials own it. `id` is `None` for a malformed one.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn find(
        &self,
        id: Option<TaskId>,
        upstream: &str,
        credentials_id: &str,
    ) -> Result<Option<Found>, StoreError> {
        let (seq, bytes) = id.map_or((0, [0; 16]), |id| (id.seq().0, *id.as_bytes()));
        let (upstream, credentials_id) = (upstream.to_owned(), credentials_id.to_owned());
        let row = self
            .shared
            .readers
            .read(move |connection| {
                connection
                    .prepare_cached(FIND)?
                    .query_row(params![seq, bytes, credentials_id, upstream], |row| {
                        let waiting: bool = row.get(0)?;
                        let waits =
                            if waiting { Some((row.get(15)?, Timestamp(row.get(16)?))) } else { None };
                        Ok((waits, stored_result(row)?))
                    })
                    .optional()
            })
            .await?;
        Ok(row.map(|(waits, result)| match (result, waits) {
            (Some(result), _) => Found::Finished(Box::new(result)),
            (None, None) => Found::Expired,
            (None, Some((attempts, due_at))) => Found::Waiting(match self.running_attempt(Seq(seq)) {
                Some(number) => Progress::running(number),
                None => Progress::queued(attempts, due_at),
            }),
        }))
    }

    /// The request of a task that is not final; `None` when it is.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn request(&self, seq: Seq) -> Result<Option<StoredRequest>, StoreError> {
        self.shared
            .readers
            .read(move |connection| {
                connection.prepare_cached(&request_sql())?.query_row([seq.0], stored_request).optional()
            })
            .await
    }

    /// What a delivery announces; `None` when there is nothing left to announce.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn announcement(&self, seq: Seq) -> Result<Option<StoredAnnouncement>, StoreError> {
        self.shared
            .readers
            .read(move |connection| {
                connection
                    .prepare_cached(&format!(
                        "SELECT {TASK_COLUMNS}, result.succeeded, result.failure, result.error
                         FROM task JOIN result ON result.seq = task.seq WHERE task.seq = ?1"
                    ))?
                    .query_row([seq.0], |row| {
                        Ok(StoredAnnouncement {
                            task: stored_task(row)?,
                            status: final_status(row.get(8)?),
                            failure: row.get(9)?,
                            error: row.get::<_, Option<_>>(10)?.map(Sealed::from_stored),
                        })
                    })
                    .optional()
            })
            .await
    }

    /// Chunk `index` (from 1) of a body or result; `None` when it is gone.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn chunk(&self, seq: Seq, kind: ChunkKind, index: u32) -> Result<Option<Sealed>, StoreError> {
        self.shared
            .readers
            .read(move |connection| {
                connection
                    .prepare_cached("SELECT data FROM chunk WHERE seq = ?1 AND kind = ?2 AND idx = ?3")?
                    .query_row(params![seq.0, kind.column(), index], |row| {
                        row.get(0).map(Sealed::from_stored)
                    })
                    .optional()
            })
            .await
    }

    /// Whether an idempotency key with this hash was accepted.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn knows_key(&self, key_hash: [u8; 32]) -> Result<bool, StoreError> {
        self.shared
            .readers
            .read(move |connection| {
                connection.prepare_cached("SELECT 1 FROM idempotency WHERE key_hash = ?1")?.exists([key_hash])
            })
            .await
    }

    /// Queue depth and age. Counts the backlog, so ask at the pace of a metrics scrape.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn numbers(&self) -> Result<StoreNumbers, StoreError> {
        self.shared
            .readers
            .read(|connection| {
                let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, u32>(0));
                let instant = |sql: &str| -> rusqlite::Result<Option<Timestamp>> {
                    connection.query_row(sql, [], |row| row.get(0).map(Timestamp)).optional()
                };
                let accepted = "SELECT accepted_at FROM task WHERE seq = (SELECT min(seq) FROM state)";
                let finished = "SELECT finished_at FROM result WHERE seq = (SELECT min(seq) FROM result)";
                Ok(StoreNumbers {
                    unfinished: count("SELECT count(*) FROM state")?.into(),
                    deliveries_owed: count("SELECT count(*) FROM delivery")?.into(),
                    oldest_accepted_at: instant(accepted)?,
                    oldest_finished_at: instant(finished)?,
                    bytes: space::bytes(connection)?,
                })
            })
            .await
    }
}

fn stored_task(row: &Row<'_>) -> rusqlite::Result<StoredTask> {
    Ok(StoredTask {
        id: TaskId::from_bytes(row.get(0)?),
        upstream: row.get(1)?,
        credentials_id: row.get(2)?,
        method: row.get(3)?,
        path: row.get(4)?,
        query: row.get::<_, Option<_>>(5)?.map(Sealed::from_stored),
        webhook_uri: row.get::<_, Option<_>>(6)?.map(Sealed::from_stored),
        accepted_at: Timestamp(row.get(7)?),
    })
}

fn stored_result(row: &Row<'_>) -> rusqlite::Result<Option<StoredResult>> {
    let Some(succeeded) = row.get::<_, Option<bool>>(1)? else { return Ok(None) };
    let length: i64 = row.get(7)?;
    Ok(Some(StoredResult {
        status: final_status(succeeded),
        attempts: row.get(2)?,
        upstream_status: row.get(3)?,
        headers: row.get::<_, Option<_>>(4)?.map(Sealed::from_stored),
        body: row.get::<_, Option<_>>(5)?.map(Sealed::from_stored),
        chunks: row.get(6)?,
        length: u64::try_from(length).unwrap_or(0),
        failure: row.get(8)?,
        reason: row.get(9)?,
        effect_unknown: row.get(10)?,
        error: row.get::<_, Option<_>>(11)?.map(Sealed::from_stored),
        sent_at: row.get::<_, Option<_>>(12)?.map(Timestamp),
        bytes_sent: row.get::<_, Option<i64>>(13)?.and_then(|bytes| u64::try_from(bytes).ok()),
        cause: row.get(14)?,
    }))
}

fn final_status(succeeded: bool) -> FinalStatus {
    if succeeded { FinalStatus::Succeeded } else { FinalStatus::Failed }
}
