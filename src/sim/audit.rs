//! What the store holds, looked at from outside after every commit, and held against the world.

use rusqlite::{Connection, OptionalExtension, params};

use super::chance;
use super::life::{Delivery, Final, Kept, Life, Told, Waiting};
use super::plan::{Does, House};
use super::world::World;
use crate::id::TaskId;

const ROW: &str = "
    SELECT state.attempts, state.started, state.lease, state.due_at, state.deadline,
           result.succeeded, result.failure, result.reason, result.attempts, result.erased, result.chunks,
           delivery.tries, delivery.lease, delivery.due_at, request.seq IS NOT NULL,
           (SELECT count(*) FROM attempt WHERE attempt.seq = task.seq AND kind = 0),
           (SELECT count(*) FROM chunk WHERE chunk.seq = task.seq AND kind = 1), result.finished_at
    FROM task
    LEFT JOIN state ON state.seq = task.seq
    LEFT JOIN result ON result.seq = task.seq
    LEFT JOIN delivery ON delivery.seq = task.seq
    LEFT JOIN request ON request.seq = task.seq
    WHERE task.seq = ?1 AND task.task_id = ?2";

/// Longer than an attempt takes. Milliseconds.
const OVERDUE: i64 = 10_000;

/// A task as it lies in the store, and what is wrong with that whatever it was before.
struct Found {
    kept: Kept,
    /// Attempts and their history.
    recorded: u32,
    wrong: Option<&'static str>,
}

fn read(connection: &Connection, id: TaskId) -> rusqlite::Result<Option<Found>> {
    connection
        .prepare_cached(ROW)?
        .query_row(params![id.seq().0, id.as_bytes()], |row| {
            let attempts: Option<u32> = row.get(0)?;
            let succeeded: Option<bool> = row.get(5)?;
            let tries: Option<u32> = row.get(11)?;
            let request: bool = row.get(14)?;
            let chunks: u32 = row.get(16)?;
            let delivery = match tries {
                Some(tries) => Some(Delivery { tries, lease: row.get(12)?, due_at: row.get(13)? }),
                None => None,
            };
            let mut wrong = None;
            let kept = match (attempts, succeeded) {
                (Some(attempts), None) => Kept::Waiting(Waiting {
                    attempts,
                    started: row.get(1)?,
                    lease: row.get(2)?,
                    due_at: row.get(3)?,
                    deadline: row.get(4)?,
                }),
                (state, Some(succeeded)) => {
                    let failure: Option<String> = row.get(6)?;
                    if state.is_some() {
                        wrong = Some("is final and still to be run");
                    } else if succeeded != failure.is_none() {
                        wrong = Some("succeeded and failed");
                    } else if chunks != row.get::<_, u32>(10)?.saturating_sub(1) {
                        wrong = Some("has another number of chunks than its result says");
                    }
                    Kept::Final(Final {
                        failure,
                        reason: row.get(7)?,
                        attempts: row.get(8)?,
                        finished_at: row.get(17)?,
                        erased: row.get(9)?,
                        delivery: delivery.clone(),
                    })
                }
                (None, None) => Kept::Expired,
            };
            let waits = matches!(kept, Kept::Waiting(_));
            if request != waits {
                wrong = Some("keeps its request when final, or lost it before");
            } else if delivery.is_some() && succeeded.is_none() {
                wrong = Some("owes a webhook without a result");
            }
            Ok(Found { kept, recorded: row.get(15)?, wrong })
        })
        .optional()
}

impl World {
    /// Looks at every life that something can have happened to.
    pub(super) fn audit(&mut self) {
        self.audit_these(|life| life.is_open() || life.told == Told::Nothing || life.cancel_asked);
    }

    pub(super) fn audit_all(&mut self) {
        self.audit_these(|_| true);
    }

    pub(super) fn audit_these(&mut self, chosen: impl Fn(&Life) -> bool) {
        for index in 0..self.lives.len() {
            if chosen(&self.lives[index]) {
                self.audit_one(index);
            }
        }
    }

    pub(super) fn audit_one(&mut self, index: usize) {
        let Some(id) = self.lives[index].id else { return };
        let found = read(&self.disk.look, id).expect("a database in memory");
        let life = &self.lives[index];
        let wrong = match &found {
            Some(found) => found.wrong.map(str::to_owned).or_else(|| changed(life, found, &self.plan.house)),
            None => (!life.may_go(&self.plan.house)).then(|| String::from("is lost")),
        };
        if let Some(wrong) = wrong {
            let was = life.kept.clone();
            let is = found.as_ref().map(|found| found.kept.clone());
            let number = life.call.number;
            self.breaks(&format!("call {number} {wrong}: was {was:?}, is {is:?}"));
        }
        let life = &mut self.lives[index];
        life.gone |= found.is_none() && life.kept != Kept::Nothing;
        life.kept = found.map_or(Kept::Nothing, |found| found.kept);
    }

    /// A task must not wait for long while its upstream has a place free and the disk is well.
    pub(super) fn audit_waits(&mut self) {
        if self.draining {
            return;
        }
        let now = chance::steady();
        let well_since = self.full_until.max(self.blind_until).saturating_sub(chance::true_now());
        let well_since = self.began.max(now.saturating_add(well_since));
        let late = |life: &&Life| {
            let Kept::Waiting(waiting) = &life.kept else { return false };
            let free_since = self.places[usize::from(life.call.api)].free_since;
            free_since.is_some_and(|free| now - free.max(waiting.due_at).max(well_since) > OVERDUE)
        };
        if let Some((number, kept)) =
            self.lives.iter().find(late).map(|life| (life.call.number, life.kept.clone()))
        {
            self.breaks(&format!("call {number} is left waiting although its upstream is idle: {kept:?}"));
        }
    }
}

/// What is wrong with how a task has changed since the last look.
fn changed(life: &Life, found: &Found, house: &House) -> Option<String> {
    if matches!(life.told, Told::Refused | Told::Before(_)) {
        return Some(format!("was stored although its client heard {:?}", life.told));
    }
    match (&life.kept, &found.kept) {
        (Kept::Nothing, Kept::Waiting(now)) => {
            (now.attempts > 0).then(|| String::from("begins with attempts behind it"))
        }
        (Kept::Waiting(was), Kept::Waiting(now)) => waited(life, was, now, found.recorded, house),
        (Kept::Nothing, Kept::Final(now)) if life.cancel_asked => ended(life, None, now, house),
        (Kept::Waiting(was), Kept::Final(now)) => ended(life, Some(was), now, house),
        (Kept::Final(was), Kept::Final(now)) => stayed(life, was, now, house),
        (Kept::Final(was), Kept::Expired) if life.may_expire(was, house) => None,
        (Kept::Expired, Kept::Expired) => None,
        _ => Some(String::from("went back, or ended without a result")),
    }
}

fn waited(life: &Life, was: &Waiting, now: &Waiting, recorded: u32, house: &House) -> Option<String> {
    if now.deadline != was.deadline {
        return Some(String::from("has another deadline"));
    }
    if now.attempts == was.attempts {
        return None;
    }
    if now.attempts != was.attempts + 1 || recorded != now.attempts {
        return Some(format!("counts its attempts wrong, {recorded} in its history"));
    }
    let limit = house.retry_delays.len();
    let Some(base) = house.retry_delays.get(number(was.attempts)) else {
        return Some(format!("is tried more often than {limit} times again"));
    };
    if now.lease != 0 && now.lease == was.lease {
        return Some(String::from("keeps its lease after a settle"));
    }
    let Some(&(fate, at)) = life.ended.last() else { return Some(String::from("was never tried")) };
    if life.taken > 0 {
        return None;
    }
    if !life.may_follow(fate.what, house) {
        return Some(format!("may not be tried again after {fate:?}"));
    }
    let asked = match fate.what {
        Does::Asks(_, seconds) => (i64::from(seconds) * 1000).min(24 * 3_600_000),
        _ => 0,
    };
    late(now.due_at, at, *base, asked, house.jitter)
}

/// Whether the wait that ends at `due_at` is outside of what is configured, or of what was asked for.
fn late(due_at: i64, at: i64, base: u64, asked: i64, jitter: f64) -> Option<String> {
    let of = |ms: i64, factor: f64| {
        let ms = u64::try_from(ms).expect("a delay is not negative");
        chance::millis(std::time::Duration::from_millis(ms).mul_f64(factor))
    };
    let base = i64::try_from(base).expect("a delay");
    let (least, most) =
        (of(base, 1.0 - jitter).max(asked), of(base, 1.0 + jitter).max(of(asked, 1.0 + jitter)));
    // What was decided later than the attempt ended was decided when this was written at the latest.
    let latest = chance::steady() + most + 1;
    (due_at < at + least - 1 || due_at > latest)
        .then(|| format!("waits until {due_at}, which is not {least} to {most} ms after {at}"))
}

fn ended(life: &Life, was: Option<&Waiting>, now: &Final, house: &House) -> Option<String> {
    if life.call.host.is_some() != now.delivery.is_some() {
        return Some(String::from("ended and owes no webhook, or one to nobody"));
    }
    let failure = now.failure.as_deref();
    if life.cancelled && failure != Some("cancelled") {
        return Some(String::from("was cancelled and ended otherwise"));
    }
    let settled = was.map_or(0, |was| was.attempts);
    let last = life.ended.last().map(|(fate, _)| fate.what);
    let wrong = match (failure, now.reason.as_deref()) {
        (None, _) => {
            !matches!(last, Some(Does::Answers(200) | Does::Long(200))) || now.attempts != settled + 1
        }
        (Some("cancelled"), _) => !life.cancel_asked,
        (Some("internal_error"), Some("panicked")) => {
            life.taken == 0 && !life.call.upstream.iter().any(|fate| fate.what == Does::Panics)
        }
        (Some("internal_error"), _) => true,
        (Some("deadline_exceeded"), _) => was.is_none_or(|was| chance::steady() < was.deadline),
        (Some("outcome_unknown"), Some("interrupted")) => {
            life.repeatable(house) || was.is_none_or(|was| was.started <= was.attempts)
        }
        (Some("outcome_unknown"), _) => {
            life.repeatable(house) || !matches!(last, Some(Does::Times | Does::Breaks | Does::BreaksOff(_)))
        }
        (Some(_), Some("retries_exhausted")) => {
            life.taken == 0 && settled != u32::try_from(house.retry_delays.len()).expect("few")
        }
        (Some(_), Some("deadline_exceeded")) => false,
        (Some(_), _) => life.taken == 0 && last.is_none_or(|last| life.may_follow(last, house)),
    };
    (wrong && life.taken == 0).then(|| format!("cannot end like this after {last:?}"))
}

fn stayed(life: &Life, was: &Final, now: &Final, house: &House) -> Option<String> {
    let story = |end: &Final| (end.failure.clone(), end.reason.clone(), end.attempts, end.finished_at);
    if story(was) != story(now) {
        return Some(String::from("ended twice"));
    }
    if was.erased != now.erased && (was.erased || !life.cancel_asked) {
        return Some(String::from("was erased unasked, or is back"));
    }
    let limit = u32::try_from(house.webhook_delays.len().min(6)).expect("six");
    match (&was.delivery, &now.delivery) {
        (None, Some(_)) => Some(String::from("owes its webhook again")),
        (Some(was), Some(now)) if now.tries == was.tries => None,
        (Some(was), Some(now)) => {
            let heard = life.heard.last().map(|(_, at)| *at);
            if now.tries != was.tries + 1 || now.tries > limit {
                return Some(format!("counts tries of its webhook wrong, or beyond {limit}"));
            }
            let Some(at) = heard else { return Some(String::from("counts a try that nobody made")) };
            (life.taken == 0)
                .then(|| late(now.due_at, at, house.webhook_delays[number(was.tries)], 0, house.jitter))
                .flatten()
        }
        (Some(was), None) => {
            let heard = life.heard.iter().any(|(receipt, _)| receipt.what == super::plan::Hears::Well);
            (!heard && was.tries < limit).then(|| String::from("gave up its webhook too early"))
        }
        (None, None) => None,
    }
}

fn number(count: u32) -> usize {
    usize::try_from(count).expect("few")
}
