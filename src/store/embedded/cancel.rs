//! cancel: the end of a task that its caller wants, and the erasing of a result.
//!
//! Takes the state row whatever its lease: a settle that comes later finds its lease lost. A webhook that
//! is owed stays owed, so that no receiver waits for an announcement that never comes.

use rusqlite::{OptionalExtension, params};

use super::apply::{Effect, announce_result, erase_request, write_result};
use super::backlog::Owner;
use super::statements::Statements;
use crate::clock::Timestamp;
use crate::id::Seq;
use crate::lease::LeaseToken;
use crate::outcome::{Cause, FailureCode, Unanswered, cancelled};
use crate::store::{Announce, NewResult, Settled};
use crate::task::FinalStatus;

/// A state row that is no more.
struct Taken {
    upstream: i64,
    lease: Option<LeaseToken>,
    attempts: u32,
    started: u32,
    started_at: Timestamp,
    owner: Owner,
}

/// `Done`: the task is cancelled. `Lost`: it had ended; its result is erased unless it was cancelled.
pub(super) fn cancel(
    statements: &mut Statements<'_>,
    seq: Seq,
    now: Timestamp,
) -> rusqlite::Result<(Settled, Effect)> {
    let Some(taken) = take_state(statements, seq)? else {
        erase_result(statements, seq)?;
        return Ok((Settled::Lost, Effect::default()));
    };
    // Only an unsafe call writes that it starts; of any other the effect does not matter.
    let in_flight = taken.started > taken.attempts;
    let result = NewResult {
        status: FinalStatus::Failed,
        finished_at: now,
        attempts: taken.attempts.max(taken.started),
        upstream_status: None,
        headers: None,
        body: None,
        chunks: 0,
        // An attempt in flight may have staged part of an answer.
        staged: u32::from(taken.lease.is_some()),
        length: 0,
        failure: Some(cancelled(in_flight)),
        unanswered: in_flight.then_some(Unanswered {
            sent_at: taken.started_at,
            bytes_sent: None,
            cause: Cause::Cancelled,
        }),
        error: None,
    };
    erase_request(statements, seq, true)?;
    write_result(statements, seq, &result, taken.attempts == 0)?;
    let (settled, effect) = announce_result(statements, seq, taken.owner, &result, Announce::Later)?;
    let cancelled = taken.lease.map(|lease| (taken.upstream, seq, lease));
    Ok((settled, Effect { cancelled, ..effect }))
}

fn take_state(statements: &mut Statements<'_>, seq: Seq) -> rusqlite::Result<Option<Taken>> {
    statements
        .cached(
            "DELETE FROM state WHERE seq = ?1 RETURNING upstream, lease, attempts, started, started_at, owner",
        )?
        .query_row([seq.0], |row| {
            Ok(Taken {
                upstream: row.get(0)?,
                lease: LeaseToken::from_stored(row.get(1)?),
                attempts: row.get(2)?,
                started: row.get(3)?,
                started_at: Timestamp(row.get(4)?),
                owner: Owner(row.get(5)?),
            })
        })
        .optional()
}

/// What its delivery still has to say stays until that is said; everything else goes now.
fn erase_result(statements: &mut Statements<'_>, seq: Seq) -> rusqlite::Result<()> {
    let cancelled = FailureCode::Cancelled.as_str();
    let owed = statements.cached("SELECT 1 FROM delivery WHERE seq = ?1")?.exists([seq.0])?;
    let sql = if owed {
        "UPDATE result SET erased = 1, headers = NULL, body = NULL, chunks = 0, length = 0
         WHERE seq = ?1 AND failure IS NOT ?2"
    } else {
        "DELETE FROM result WHERE seq = ?1 AND failure IS NOT ?2"
    };
    statements.cached(sql)?.execute(params![seq.0, cancelled])?;
    statements.cached("DELETE FROM chunk WHERE seq = ?1 AND kind = 1")?.execute([seq.0])?;
    Ok(())
}
