//! One attempt: from a leased task to what is written about it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::answer::{self, Broken, Taken};
use super::deliver::{FirstTry, Reserved};
use super::request::{self, LoadError, Opened};
use super::{Bench, Outside, STORE_PAUSE, Workshop, insist};
use crate::clock::Timestamp;
use crate::lease::LeaseToken;
use crate::outcome::{
    Attempted, Cause, Decision, Exchange, Failure, FailureCode, NoAnswer, NotSent, Reason, Said, Unanswered,
    deadline_passed, decide, interrupted,
};
use crate::seal::{Column, Place, Sealed};
use crate::store::{
    self, Announce, AttemptEnd, AttemptRecord, Carried, NewResult, ReadyTask, Request, Settled, TaskFacts,
};
use crate::task::{FinalStatus, IDEMPOTENCY_KEY, Progress, Safety};
use crate::upstream::{Attempt, Call};

/// Runs one attempt and settles it. Returns the delivery to make now, if the task is final and its
/// receiver has a place free. `place` is one at the upstream, given back as soon as that has answered.
pub(super) async fn run(
    workshop: &Workshop<impl Outside>,
    bench: &Bench,
    task: &ReadyTask,
    request: Option<Request>,
    place: OwnedSemaphorePermit,
) -> Option<FirstTry> {
    let opened = match request {
        Some(Request::Carried(carried)) => Ok(Some(Opened { carried: *carried, chunks: 1 })),
        Some(Request::Stored(stored)) => request::open(workshop, *stored).map(Some),
        None => request::load(workshop, task.seq).await,
    };
    let opened = match opened {
        Ok(Some(opened)) => opened,
        Ok(None) => return None,
        Err(LoadError::Unreadable) => {
            tracing::error!(
                upstream = bench.lane.name,
                "a task cannot be opened; it ends with internal_error"
            );
            end_internal(workshop, bench, task, Reason::Unreadable).await;
            return None;
        }
        Err(LoadError::Store(_)) => {
            let due_at = workshop.clock.steady().after(STORE_PAUSE);
            insist(|| workshop.store.release_task(task.seq, task.lease, due_at)).await;
            return None;
        }
    };
    // Started, yet not settled: the node stopped while an unsafe call was on its way.
    if task.started > task.attempts {
        let unanswered = Unanswered { sent_at: task.started_at, bytes_sent: None, cause: Cause::NodeStopped };
        let ended = Ended { unanswered: Some(unanswered), ..Ended::unattempted(interrupted()) };
        return end(workshop, bench, task, &opened.carried.task, ended).await;
    }
    if workshop.clock.steady() >= task.deadline {
        return end(workshop, bench, task, &opened.carried.task, Ended::unattempted(deadline_passed())).await;
    }
    attempt(workshop, bench, task, opened, place).await
}

async fn attempt(
    workshop: &Workshop<impl Outside>,
    bench: &Bench,
    task: &ReadyTask,
    opened: Opened,
    place: OwnedSemaphorePermit,
) -> Option<FirstTry> {
    let store = &workshop.store;
    let number = task.attempts + 1;
    let Opened { carried: Carried { task: facts, headers, body, key }, chunks } = opened;
    let safety = bench.idempotency.safety(&facts.method, headers.contains_key(&IDEMPOTENCY_KEY));
    let sent_at = workshop.clock.wall();
    if safety == Safety::Unsafe
        && insist(|| store.started(task.seq, task.lease, number, sent_at)).await == Settled::Lost
    {
        return None;
    }
    // Writing that it starts may have waited for the disk.
    if workshop.clock.steady() >= task.deadline {
        return end(workshop, bench, task, &facts, Ended::unattempted(deadline_passed())).await;
    }
    let body = request::body(workshop, task.seq, facts.id, body, chunks);
    let (body, bytes_sent) = request::counted(body, safety);
    let began = Instant::now();
    // Until the end is written: who reads `Queued` may rely on the attempt being settled.
    let running = store.running(task.seq, number);
    workshop.watches.tell(task.seq, Progress::running(number));
    let exchanged = {
        let _outside = bench.lane.load.outside(store::Callee::Upstream);
        let target = facts.query.as_ref().map(|query| format!("{}?{query}", facts.path));
        let content_length =
            headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let call = Call {
            method: facts.method.clone(),
            path_and_query: target.as_deref().unwrap_or(&facts.path),
            body,
            headers,
            content_length,
            safety,
        };
        match workshop.outside.attempt(bench.id, call).await {
            Attempt::NotSent => Err(Exchange::NotSent(NotSent::Unreachable)),
            Attempt::NoAnswer(why) => Err(Exchange::NoAnswer(why)),
            Attempt::Answered(answer) => {
                let key = key.unwrap_or_else(|| workshop.ring.task_key(facts.id));
                match answer::take(workshop, bench, task, &key, answer).await {
                    Ok(taken) => Ok(taken),
                    Err(Broken::NoAnswer(why)) => Err(Exchange::NoAnswer(why)),
                    Err(Broken::Lost) => return None,
                }
            }
        }
    };
    // The next call need not wait until this one's end is on disk.
    drop(place);
    let (exchange, taken) = match exchanged {
        Ok(taken) => (taken.exchange, Some(taken)),
        Err(exchange) => (exchange, None),
    };
    let attempted = Attempted { number, safety, deadline: task.deadline, exchange };
    let clock = workshop.clock;
    let (outcome, decision) =
        decide(&attempted, &bench.policy, clock.steady(), clock.wall(), (workshop.chance)());
    bench.metrics.attempt(outcome).inc();
    bench.pace.took(began.elapsed());
    let record = AttemptRecord {
        number,
        ended_at: clock.wall(),
        took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        outcome,
        status: status_of(exchange),
    };
    match decision {
        Decision::Retry { due_at } => {
            tracing::debug!(
                task = %facts.id,
                attempt = number,
                status = record.status,
                retry_in_ms = due_at.0 - clock.steady().0,
                "attempt failed; the task waits for its next one"
            );
            let end = Arc::new(AttemptEnd::Retry { due_at });
            let settled =
                insist(|| store.settle_attempt(task.seq, task.lease, Some(record), Arc::clone(&end))).await;
            // Whoever comes after the change is told must not read the status before it.
            drop(running);
            if settled != Settled::Lost {
                workshop.watches.tell(task.seq, Progress::queued(number, due_at));
            }
            None
        }
        Decision::Succeed => {
            let ended = Ended { failure: None, record: Some(record), taken, unanswered: None };
            end(workshop, bench, task, &facts, ended).await
        }
        Decision::Fail(failure) => {
            let unanswered = unanswered(exchange, sent_at, bytes_sent.as_deref());
            let ended = Ended { failure: Some(failure), record: Some(record), taken, unanswered };
            end(workshop, bench, task, &facts, ended).await
        }
    }
}

/// Of an unsafe call, whose bytes were counted.
fn unanswered(exchange: Exchange, sent_at: Timestamp, bytes_sent: Option<&AtomicU64>) -> Option<Unanswered> {
    let Exchange::NoAnswer(why) = exchange else { return None };
    let bytes_sent = Some(bytes_sent?.load(Ordering::Relaxed));
    Some(Unanswered { sent_at, bytes_sent, cause: why.into() })
}

fn status_of(exchange: Exchange) -> Option<u16> {
    match exchange {
        Exchange::Answered { status, .. } | Exchange::TooLarge { status } => Some(status),
        Exchange::NotSent(_) | Exchange::NoAnswer(NoAnswer::Timeout | NoAnswer::Broken) => None,
    }
}

/// The end of a task, not yet written.
struct Ended {
    failure: Option<Failure>,
    record: Option<AttemptRecord>,
    taken: Option<Taken>,
    unanswered: Option<Unanswered>,
}

impl Ended {
    fn unattempted(failure: Failure) -> Self {
        Self { failure: Some(failure), record: None, taken: None, unanswered: None }
    }
}

/// Writes result and delivery together.
async fn end(
    workshop: &Workshop<impl Outside>,
    bench: &Bench,
    task: &ReadyTask,
    facts: &TaskFacts,
    ended: Ended,
) -> Option<FirstTry> {
    let Ended { failure, record, mut taken, unanswered } = ended;
    let attempts = record.map_or(task.attempts.max(task.started), |record| record.number);
    match failure {
        None => tracing::debug!(task = %facts.id, attempts, "succeeded"),
        Some(failure) => tracing::info!(
            task = %facts.id,
            upstream = bench.lane.name,
            attempts,
            error = failure.code.as_str(),
            reason = failure.reason.as_str(),
            "failed"
        ),
    }
    let upstreams = taken.as_mut().and_then(|taken| taken.error.take()).filter(|_| failure.is_some());
    let error = upstreams.as_ref().map(|error| {
        workshop.ring.task_key(facts.id).seal(Column::ResultError, Place::WHOLE, &error.write())
    });
    let result = NewResult { unanswered, ..result(workshop, failure, attempts, taken, error) };
    let asked = facts.receiver.is_some();
    let said = failure.map(|failure| Said::of(failure.code, upstreams));
    let reserved = Reserved::try_new(workshop, bench, facts, said.as_ref());
    let announce = match (asked, &reserved) {
        (false, _) => Announce::Nobody,
        (true, Some(_)) => Announce::Now,
        (true, None) => Announce::Later,
    };
    let lease = write(workshop, bench, task, record, result, announce).await?;
    reserved.map(|reserved| FirstTry { seq: task.seq, lease, reserved })
}

fn result(
    workshop: &Workshop<impl Outside>,
    failure: Option<Failure>,
    attempts: u32,
    taken: Option<Taken>,
    error: Option<Sealed>,
) -> NewResult {
    let status = if failure.is_some() { FinalStatus::Failed } else { FinalStatus::Succeeded };
    let finished_at = workshop.clock.steady();
    let empty = NewResult {
        status,
        finished_at,
        attempts,
        upstream_status: None,
        headers: None,
        body: None,
        chunks: 0,
        staged: 0,
        length: 0,
        failure,
        unanswered: None,
        error,
    };
    match taken {
        None => empty,
        Some(taken) => NewResult {
            upstream_status: status_of(taken.exchange),
            // Headers without their body are no answer to show.
            headers: (!matches!(taken.exchange, Exchange::TooLarge { .. })).then_some(taken.headers),
            body: taken.body,
            chunks: taken.chunks,
            staged: taken.staged,
            length: taken.length,
            ..empty
        },
    }
}

/// Returns the delivery's lease, where [`Announce::Now`] asked for one.
async fn write(
    workshop: &Workshop<impl Outside>,
    bench: &Bench,
    task: &ReadyTask,
    record: Option<AttemptRecord>,
    result: NewResult,
    announce: Announce,
) -> Option<LeaseToken> {
    let (status, attempts) = (result.status, result.attempts);
    let end = Arc::new(AttemptEnd::Final { result: Box::new(result), announce });
    let store = &workshop.store;
    let settled = insist(|| store.settle_attempt(task.seq, task.lease, record, Arc::clone(&end))).await;
    match settled {
        Settled::Lost => None,
        Settled::Done(lease) => {
            bench.metrics.finished(status).inc();
            workshop.watches.tell(task.seq, Progress::ended(status, attempts));
            lease
        }
    }
}

/// The end of a task that can no longer be read, or whose attempt panicked: nothing is known of it but
/// its lease. The store itself knows whether a webhook is owed.
pub(super) async fn end_internal(
    workshop: &Workshop<impl Outside>,
    bench: &Bench,
    task: &ReadyTask,
    reason: Reason,
) {
    let failure = Failure { code: FailureCode::InternalError, reason, effect_unknown: true };
    let result = result(workshop, Some(failure), task.attempts + 1, None, None);
    write(workshop, bench, task, None, result, Announce::Later).await;
}
