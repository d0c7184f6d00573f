//! The statements of each operation. Every function is one use case inside the batch's transaction.
//!
//! A settle first takes the row it holds the lease of; when that changes nothing the lease is lost and
//! the function stops before it has written anything.

use rusqlite::{Connection, OptionalExtension, params};

use super::backlog::{Held, Leased, Owner};
use super::cancel;
use super::claim::new_lease;
use super::inbox::Operation;
use super::statements::{Frequent, Statements};
use crate::clock::Timestamp;
use crate::id::{Seq, TaskId};
use crate::lease::LeaseToken;
use crate::outcome::Outcome;
use crate::seal::Sealed;
use crate::store::{
    Accepted, Announce, AttemptEnd, AttemptRecord, ChunkKind, DeliveryEnd, NewResult, NewTask, Settled,
    StoreError,
};
use crate::task::FinalStatus;

/// What an operation changed beside rows.
#[derive(Default)]
pub(super) struct Effect {
    /// The lane's upstream id and when a task of it became due.
    pub task_due: Option<(i64, Timestamp)>,
    pub delivery_due: Option<Timestamp>,
    /// A task became final, or is gone.
    pub finished: Option<Owner>,
    /// A lease that ended because its task was cancelled, with the lane's upstream id.
    pub cancelled: Option<(i64, Seq, LeaseToken)>,
}

/// Whether the task's idempotency key is there already, written earlier or earlier in this transaction.
pub(super) fn known(connection: &Connection, task: &NewTask) -> rusqlite::Result<Option<Accepted>> {
    let Some(repeatable) = &task.repeatable else { return Ok(None) };
    connection
        .prepare_cached("SELECT call_hash, task_id FROM idempotency WHERE key_hash = ?1")?
        .query_row([&repeatable.key], |row| {
            let same = row.get::<_, [u8; 32]>(0)? == repeatable.call;
            let id = TaskId::from_bytes(row.get(1)?);
            Ok(if same { Accepted::Before(id) } else { Accepted::OtherCall })
        })
        .optional()
}

/// A call whose idempotency key is on disk already makes no new task, so it needs no room; any other is told
/// that it is `full`.
pub(super) fn known_or(
    full: StoreError,
    connection: &Connection,
    task: &NewTask,
) -> Result<Accepted, StoreError> {
    known(connection, task).ok().flatten().ok_or(full)
}

/// accept: the task, its request and its state. With a lease it is handed off, else it rests, due now.
pub(super) fn accept(
    statements: &mut Statements<'_>,
    task: &NewTask,
    upstream: i64,
    owner: Owner,
    lease: Option<LeaseToken>,
) -> rusqlite::Result<()> {
    let seq = task.id.seq().0;
    statements.frequent(Frequent::InsertTask)?.execute(params![
        seq,
        task.id.as_bytes(),
        upstream,
        &*task.credentials_id,
        task.method.as_str(),
        task.path,
        task.query.as_ref().map(Sealed::as_stored),
        task.webhook_uri.as_ref().map(Sealed::as_stored),
        task.accepted_at.0,
    ])?;
    statements.frequent(Frequent::InsertRequest)?.execute(params![
        seq,
        task.headers.as_stored(),
        task.body.first().map(Sealed::as_stored),
        i64::try_from(task.body.len()).unwrap_or(i64::MAX),
    ])?;
    for (index, data) in (0u32..).zip(&task.body).skip(1) {
        write_chunk(statements, seq, ChunkKind::RequestBody, index, data.as_stored())?;
    }
    statements.frequent(Frequent::InsertState)?.execute(params![
        seq,
        upstream,
        task.now.0,
        task.deadline.0,
        lease.map_or(0, LeaseToken::as_i64),
        owner.0,
    ])?;
    if let Some(repeatable) = &task.repeatable {
        statements
            .cached("INSERT INTO idempotency (seq, key_hash, call_hash, task_id) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![seq, repeatable.key, repeatable.call, task.id.as_bytes()])?;
    }
    Ok(())
}

pub(super) fn operation(
    statements: &mut Statements<'_>,
    operation: &Operation,
    leased: &Leased,
) -> rusqlite::Result<(Settled, Effect)> {
    match operation {
        Operation::Started { seq, lease, number, at, .. } => started(statements, *seq, *lease, *number, *at),
        Operation::Cancel { seq, now, .. } => cancel::cancel(statements, *seq, *now),
        Operation::SettleAttempt { seq, lease, record, end, .. } => {
            settle_attempt(statements, *seq, *lease, record.as_ref(), end, leased)
        }
        Operation::SettleDelivery { seq, lease, record, end, .. } => {
            settle_delivery(statements, *seq, *lease, record, *end)
        }
        Operation::ReleaseTask { seq, lease, due_at, .. } => release_task(statements, *seq, *lease, *due_at),
        Operation::ReleaseDelivery { seq, lease, due_at, .. } => {
            let changed = statements
                .cached("UPDATE delivery SET lease = 0, due_at = ?3 WHERE seq = ?1 AND lease = ?2")?
                .execute(params![seq.0, lease.as_i64(), due_at.0])?;
            Ok(settled(changed, Effect { delivery_due: Some(*due_at), ..Effect::default() }))
        }
        Operation::StageChunk { seq, lease, index, data, .. } => {
            let held = statements
                .cached("SELECT 1 FROM state WHERE seq = ?1 AND lease = ?2")?
                .exists(params![seq.0, lease.as_i64()])?;
            if held {
                write_chunk(statements, seq.0, ChunkKind::Result, *index, data.as_stored())?;
            }
            Ok(settled(usize::from(held), Effect::default()))
        }
    }
}

fn settled(changed: usize, effect: Effect) -> (Settled, Effect) {
    if changed == 1 { (Settled::Done(None), effect) } else { (Settled::Lost, Effect::default()) }
}

fn started(
    statements: &mut Statements<'_>,
    seq: Seq,
    lease: LeaseToken,
    number: u32,
    at: Timestamp,
) -> rusqlite::Result<(Settled, Effect)> {
    let changed = statements
        .cached("UPDATE state SET started = ?3, started_at = ?4 WHERE seq = ?1 AND lease = ?2")?
        .execute(params![seq.0, lease.as_i64(), number, at.0])?;
    Ok(settled(changed, Effect::default()))
}

fn release_task(
    statements: &mut Statements<'_>,
    seq: Seq,
    lease: LeaseToken,
    due_at: Timestamp,
) -> rusqlite::Result<(Settled, Effect)> {
    let upstream: Option<i64> = statements
        .cached("UPDATE state SET lease = 0, due_at = ?3 WHERE seq = ?1 AND lease = ?2 RETURNING upstream")?
        .query_row(params![seq.0, lease.as_i64(), due_at.0], |row| row.get(0))
        .optional()?;
    Ok(settled(
        usize::from(upstream.is_some()),
        Effect { task_due: upstream.map(|upstream| (upstream, due_at)), ..Effect::default() },
    ))
}

fn settle_attempt(
    statements: &mut Statements<'_>,
    seq: Seq,
    lease: LeaseToken,
    record: Option<&AttemptRecord>,
    end: &AttemptEnd,
    leased: &Leased,
) -> rusqlite::Result<(Settled, Effect)> {
    match end {
        AttemptEnd::Retry { due_at } => {
            let upstream: Option<i64> = statements
                .cached(
                    "UPDATE state SET lease = 0, due_at = ?3, attempts = attempts + 1, started = 0
                     WHERE seq = ?1 AND lease = ?2 RETURNING upstream",
                )?
                .query_row(params![seq.0, lease.as_i64(), due_at.0], |row| row.get(0))
                .optional()?;
            let Some(upstream) = upstream else { return Ok((Settled::Lost, Effect::default())) };
            write_record(statements, seq, 0, record)?;
            Ok((Settled::Done(None), Effect { task_due: Some((upstream, *due_at)), ..Effect::default() }))
        }
        AttemptEnd::Final { result, announce } => {
            let Some(held) = take_state(statements, seq, lease, leased)? else {
                return Ok((Settled::Lost, Effect::default()));
            };
            write_record(statements, seq, 0, record)?;
            erase_request(statements, seq, held.has_chunks)?;
            let is_first_attempt = result.attempts <= u32::from(record.is_some());
            write_result(statements, seq, result, is_first_attempt)?;
            announce_result(statements, seq, held.owner, result, *announce)
        }
    }
}

/// Removes the state row if the lease is held, and says what was known of the task.
fn take_state(
    statements: &mut Statements<'_>,
    seq: Seq,
    lease: LeaseToken,
    leased: &Leased,
) -> rusqlite::Result<Option<Held>> {
    // Never RETURNING, which would make a temporary table.
    let held = match leased.get(seq) {
        Some(held) => Some(held),
        None => statements
            .cached("SELECT owner FROM state WHERE seq = ?1 AND lease = ?2")?
            .query_row(params![seq.0, lease.as_i64()], |row| {
                Ok(Held { owner: Owner(row.get(0)?), has_chunks: true })
            })
            .optional()?,
    };
    let removed = statements.frequent(Frequent::DeleteState)?.execute(params![seq.0, lease.as_i64()])?;
    Ok(held.filter(|_| removed == 1))
}

/// The access token, the headers and the body are needed no more.
pub(super) fn erase_request(
    statements: &mut Statements<'_>,
    seq: Seq,
    has_chunks: bool,
) -> rusqlite::Result<()> {
    statements.frequent(Frequent::DeleteRequest)?.execute([seq.0])?;
    if has_chunks {
        statements.cached("DELETE FROM chunk WHERE seq = ?1 AND kind = 0")?.execute([seq.0])?;
    }
    Ok(())
}

pub(super) fn write_result(
    statements: &mut Statements<'_>,
    seq: Seq,
    result: &NewResult,
    is_first_attempt: bool,
) -> rusqlite::Result<()> {
    statements.frequent(Frequent::InsertResult)?.execute(params![
        seq.0,
        result.status == FinalStatus::Succeeded,
        result.finished_at.0,
        result.attempts,
        result.upstream_status,
        result.headers.as_ref().map(Sealed::as_stored),
        result.body.as_ref().map(Sealed::as_stored),
        result.chunks,
        i64::try_from(result.length).unwrap_or(i64::MAX),
        result.failure.map(|failure| failure.code.as_str()),
        result.failure.map(|failure| failure.reason.as_str()),
        result.failure.is_some_and(|failure| failure.effect_unknown),
        result.error.as_ref().map(Sealed::as_stored),
        result.unanswered.map(|sent| sent.sent_at.0),
        result.unanswered.and_then(|sent| i64::try_from(sent.bytes_sent?).ok()),
        result.unanswered.map(|sent| sent.cause.as_str()),
    ])?;
    if !is_first_attempt || result.staged > 0 || result.failure.is_some() {
        // An earlier attempt, a body that was dropped, or an answer that broke off may have staged more
        // than this result has; retention would never find it.
        statements
            .cached("DELETE FROM chunk WHERE seq = ?1 AND kind = 1 AND idx >= ?2")?
            .execute(params![seq.0, result.chunks.max(1)])?;
    }
    Ok(())
}

/// The delivery is owed from the same commit on as the result exists.
pub(super) fn announce_result(
    statements: &mut Statements<'_>,
    seq: Seq,
    owner: Owner,
    result: &NewResult,
    announce: Announce,
) -> rusqlite::Result<(Settled, Effect)> {
    let (lease, delivery_due) = match announce {
        Announce::Nobody => (None, None),
        // Whoever has the message at hand knows that there is a webhook URI.
        Announce::Now => {
            let lease = new_lease();
            statements.frequent(Frequent::InsertDelivery)?.execute(params![
                seq.0,
                result.finished_at.0,
                lease.as_i64()
            ])?;
            (Some(lease), None)
        }
        Announce::Later => {
            statements
                .cached(
                    "INSERT INTO delivery (seq, due_at, lease, tries)
                     SELECT seq, ?2, 0, 0 FROM task WHERE seq = ?1 AND webhook_uri IS NOT NULL",
                )?
                .execute(params![seq.0, result.finished_at.0])?;
            (None, Some(result.finished_at))
        }
    };
    Ok((Settled::Done(lease), Effect { delivery_due, finished: Some(owner), ..Effect::default() }))
}

fn settle_delivery(
    statements: &mut Statements<'_>,
    seq: Seq,
    lease: LeaseToken,
    record: &AttemptRecord,
    end: DeliveryEnd,
) -> rusqlite::Result<(Settled, Effect)> {
    let (changed, effect) = match end {
        DeliveryEnd::Delivered | DeliveryEnd::GivenUp => {
            let changed =
                statements.frequent(Frequent::DeleteDelivery)?.execute(params![seq.0, lease.as_i64()])?;
            (changed, Effect::default())
        }
        DeliveryEnd::Retry { due_at } => {
            let changed = statements
                .cached(
                    "UPDATE delivery SET lease = 0, due_at = ?3, tries = tries + 1
                     WHERE seq = ?1 AND lease = ?2",
                )?
                .execute(params![seq.0, lease.as_i64(), due_at.0])?;
            (changed, Effect { delivery_due: Some(due_at), ..Effect::default() })
        }
    };
    if changed == 1 {
        write_record(statements, seq, 1, Some(record))?;
    }
    Ok(settled(changed, effect))
}

/// Keeps what went wrong. A success needs no row of its own: the result tells it, or the delivery that is
/// no longer owed.
fn write_record(
    statements: &mut Statements<'_>,
    seq: Seq,
    kind: i64,
    record: Option<&AttemptRecord>,
) -> rusqlite::Result<()> {
    let Some(record) = record.filter(|record| record.outcome != Outcome::Success) else { return Ok(()) };
    statements
        .cached(
            "INSERT INTO attempt (seq, kind, number, ended_at, took_ms, outcome, status)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            seq.0,
            kind,
            record.number,
            record.ended_at.0,
            i64::try_from(record.took_ms).unwrap_or(i64::MAX),
            record.outcome.as_str(),
            record.status,
        ])?;
    Ok(())
}

fn write_chunk(
    statements: &mut Statements<'_>,
    seq: i64,
    kind: ChunkKind,
    index: u32,
    data: &[u8],
) -> rusqlite::Result<()> {
    statements
        .cached("INSERT OR REPLACE INTO chunk (seq, kind, idx, data) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![seq, kind.column(), index, data])?;
    Ok(())
}
