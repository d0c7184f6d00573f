//! What happened to each call, by the number it carries in its path and in its webhook URI.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use uuid::Uuid;

/// One call and everything the outside saw of it. Times are microseconds since the ledger was made.
#[derive(Clone, Default)]
pub struct Entry {
    pub sent_at: u64,
    /// As the 202 named it.
    pub task: Option<Uuid>,
    /// As the webhook named it.
    pub announced: Option<Uuid>,
    pub announced_at: u64,
    /// The webhook said `Succeeded`.
    pub succeeded: bool,
    /// Upstream calls, and those answered well.
    pub upstream_calls: u32,
    pub answered: u32,
    /// Webhook tries that were answered 2xx, and all of them.
    pub delivered: u32,
    pub tries: u32,
    /// Webhooks disagreed about how the task ended, or about its id.
    pub contradicted: bool,
    /// The node's lives in which the upstream was called, and the receiver.
    pub called_in: Lives,
    pub tried_in: Lives,
}

/// The lives of a node in which something happened.
#[derive(Clone, Copy, Default)]
pub struct Lives {
    count: u32,
    last: u32,
}

impl Lives {
    fn note(&mut self, life: u32) {
        if self.count == 0 || self.last != life {
            *self = Self { count: self.count + 1, last: life };
        }
    }

    /// Deaths that can have hit it, each of which may have made one try forgotten.
    #[must_use]
    pub fn deaths(self) -> u32 {
        self.count.saturating_sub(1)
    }
}

/// Sums, kept along the way.
#[derive(Clone, Copy, Default)]
pub struct Sums {
    pub accepted: u64,
    /// Tasks called at least once, and announced at least once.
    pub called: u64,
    pub announced: u64,
    /// First deliveries of calls whose 202 has not arrived, or never will.
    pub early: u64,
}

/// The id that a server calls a task by; one that is no UUID stands for itself by its hash.
#[must_use]
pub fn task_of(name: &str) -> Uuid {
    Uuid::try_parse(name).unwrap_or_else(|_| {
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, name).hash(&mut hasher);
            hasher.finish()
        };
        Uuid::from_u64_pair(half(0), half(1))
    })
}

/// Shared by generator and peers.
pub struct Ledger {
    start: Instant,
    life: AtomicU32,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    entries: Vec<Entry>,
    sums: Sums,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { start: Instant::now(), life: AtomicU32::new(0), book: Mutex::default() }
    }
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A new call, about to be sent.
    pub fn call(&self) -> usize {
        let sent_at = self.now();
        let mut book = self.lock();
        book.entries.push(Entry { sent_at, ..Entry::default() });
        book.entries.len() - 1
    }

    pub fn accepted(&self, number: usize, task: Uuid) {
        let mut book = self.lock();
        let entry = &mut book.entries[number];
        let before = entry.task.replace(task);
        let was_early = before.is_none() && entry.delivered > 0;
        book.sums.accepted += u64::from(before.is_none());
        book.sums.early -= u64::from(was_early);
    }

    /// The node begins another life.
    pub fn next_life(&self) {
        self.life.fetch_add(1, Ordering::Relaxed);
    }

    /// The upstream is called, for the so-manieth time; `answers` says whether it answers well.
    pub fn upstream_called(&self, number: usize, answers: impl FnOnce(u32) -> bool) {
        let life = self.life.load(Ordering::Relaxed);
        let mut book = self.lock();
        let Some(entry) = book.entries.get_mut(number) else { return };
        entry.upstream_calls += 1;
        entry.called_in.note(life);
        entry.answered += u32::from(answers(entry.upstream_calls));
        let is_first = entry.upstream_calls == 1;
        book.sums.called += u64::from(is_first);
    }

    /// A webhook try, answered 2xx if `takes` says so of its number among the tries, which is returned.
    pub fn announced(
        &self,
        number: usize,
        task: Option<Uuid>,
        succeeded: bool,
        takes: impl FnOnce(u32) -> bool,
    ) -> u32 {
        let now = self.now();
        let mut book = self.lock();
        let Some(entry) = book.entries.get_mut(number) else { return 0 };
        entry.tried_in.note(self.life.load(Ordering::Relaxed));
        if entry.tries > 0 && (entry.announced, entry.succeeded) != (task, succeeded) {
            entry.contradicted = true;
        }
        entry.tries += 1;
        entry.announced = task;
        entry.succeeded = succeeded;
        if entry.announced_at == 0 {
            entry.announced_at = now;
        }
        let tries = entry.tries;
        if takes(tries) {
            entry.delivered += 1;
            let first = entry.delivered == 1;
            let early = entry.task.is_none();
            book.sums.announced += u64::from(first);
            book.sums.early += u64::from(first && early);
        }
        tries
    }

    #[must_use]
    pub fn sums(&self) -> Sums {
        self.lock().sums
    }

    /// Accepted and not announced.
    #[must_use]
    pub fn owed(&self) -> u64 {
        let sums = self.sums();
        sums.accepted.saturating_sub(sums.announced - sums.early)
    }

    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().entries.clone()
    }

    /// Number of the next call.
    #[must_use]
    pub fn next(&self) -> usize {
        self.lock().entries.len()
    }

    /// What became of the calls from number `from` on.
    #[must_use]
    pub fn account(&self, from: usize) -> Account {
        let book = self.lock();
        let mut account = Account::default();
        for entry in &book.entries[from.min(book.entries.len())..] {
            let Some(task) = entry.task else { continue };
            account.accepted += 1;
            account.lost += u64::from(entry.delivered == 0);
            account.mixed_up += u64::from(entry.delivered > 0 && entry.announced != Some(task));
            account.failed += u64::from(entry.delivered > 0 && !entry.succeeded);
            account.repeated_webhooks += u64::from(entry.delivered.saturating_sub(1));
            account.repeated_calls += u64::from(entry.upstream_calls.saturating_sub(1));
        }
        account
    }
}

/// Every 202, accounted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Account {
    pub accepted: u64,
    /// Accepted and never announced.
    pub lost: u64,
    /// Announced under another task's id.
    pub mixed_up: u64,
    /// Announced as Failed.
    pub failed: u64,
    pub repeated_webhooks: u64,
    pub repeated_calls: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accepted_call_is_owed_until_it_is_announced() {
        let ledger = Ledger::default();
        let number = ledger.call();
        ledger.accepted(number, Uuid::from_u128(1));
        assert_eq!(ledger.owed(), 1);
        ledger.announced(number, Some(Uuid::from_u128(1)), true, |_| false);
        assert_eq!((ledger.owed(), ledger.account(0).lost), (1, 1));
        ledger.announced(number, Some(Uuid::from_u128(1)), true, |_| true);
        assert_eq!((ledger.owed(), ledger.account(0).lost), (0, 0));
    }

    #[test]
    fn a_webhook_that_overtakes_its_202_hides_no_other_task() {
        let ledger = Ledger::default();
        let (early, other) = (ledger.call(), ledger.call());
        ledger.announced(early, Some(Uuid::from_u128(1)), true, |_| true);
        ledger.accepted(other, Uuid::from_u128(2));
        assert_eq!(ledger.owed(), 1);
        ledger.accepted(early, Uuid::from_u128(1));
        assert_eq!(ledger.owed(), 1);
    }

    #[test]
    fn a_webhook_of_another_task_is_seen() {
        let ledger = Ledger::default();
        let number = ledger.call();
        ledger.accepted(number, Uuid::from_u128(1));
        ledger.announced(number, Some(Uuid::from_u128(2)), true, |_| true);
        assert_eq!(ledger.account(0).mixed_up, 1);
    }
}
