//! The store as its promises have it: a few maps, no SQL, no batches. What [`super::compared`] holds the
//! real one against.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{Seq, TaskId};

/// Milliseconds of the steady clock.
pub(super) type Ms = i64;

/// Unfinished tasks, in all and of one caller.
pub(super) const QUEUED_MAX: usize = 6;
pub(super) const QUEUED_EACH: usize = 4;

#[derive(Default)]
pub(super) struct Model {
    pub tasks: BTreeMap<Seq, Task>,
    keys: BTreeMap<u8, (u8, TaskId)>,
    leases: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Task {
    pub caller: u8,
    pub webhook: bool,
    pub state: Option<State>,
    pub result: Option<Result>,
    pub delivery: Option<Delivery>,
    /// Chunks of an answer beyond the first, staged or part of the result.
    pub chunks: BTreeSet<u32>,
    /// Attempts and delivery attempts that failed.
    pub history: (u32, u32),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    pub attempts: u32,
    pub started: u32,
    pub due_at: Ms,
    pub deadline: Ms,
    pub lease: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Result {
    pub failure: Option<String>,
    pub attempts: u32,
    pub finished_at: Ms,
    pub chunks: u32,
    pub erased: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Delivery {
    pub tries: u32,
    pub due_at: Ms,
    pub lease: Option<u64>,
}

/// Tasks and deliveries under new leases.
pub(super) type Claimed = (Vec<(Seq, State)>, Vec<(Seq, Delivery)>);

/// What an operation says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Says {
    Accepted,
    Before(TaskId),
    OtherCall,
    Full,
    FullForCredentials,
    Unavailable,
    /// With the delivery's lease, where one was asked for.
    Done(bool),
    Lost,
    Cancelled(bool),
    Purged {
        results: u64,
        tasks: u64,
        keys: u64,
    },
}

/// A final end, as the worker writes it.
pub(super) struct End {
    pub failure: Option<&'static str>,
    pub attempts: u32,
    pub chunks: u32,
    pub recorded: bool,
    /// The settling worker delivers at once.
    pub announce_now: bool,
}

impl Model {
    fn new_lease(&mut self) -> u64 {
        self.leases += 1;
        self.leases
    }

    pub fn accept(
        &mut self,
        id: TaskId,
        caller: u8,
        key: Option<(u8, u8)>,
        webhook: bool,
        now: Ms,
        deadline: Ms,
    ) -> Says {
        let unfinished = |of: Option<u8>| {
            let waits = |task: &&Task| task.state.is_some() && of.is_none_or(|caller| caller == task.caller);
            self.tasks.values().filter(waits).count()
        };
        if let Some((key, call)) = key
            && let Some((known, id)) = self.keys.get(&key)
        {
            return if *known == call { Says::Before(*id) } else { Says::OtherCall };
        }
        if unfinished(Some(caller)) >= QUEUED_EACH {
            return Says::FullForCredentials;
        }
        if unfinished(None) >= QUEUED_MAX {
            return Says::Full;
        }
        if let Some((key, call)) = key {
            self.keys.insert(key, (call, id));
        }
        let state = State { attempts: 0, started: 0, due_at: now, deadline, lease: None };
        let task = Task {
            caller,
            webhook,
            state: Some(state),
            result: None,
            delivery: None,
            chunks: BTreeSet::new(),
            history: (0, 0),
        };
        self.tasks.insert(id.seq(), task);
        Says::Accepted
    }

    /// Leases all that is due.
    pub fn claim(&mut self, now: Ms) -> Claimed {
        let (mut tasks, mut deliveries) = (Vec::new(), Vec::new());
        for (seq, task) in &mut self.tasks {
            if let Some(state) =
                task.state.as_mut().filter(|state| state.lease.is_none() && state.due_at <= now)
            {
                self.leases += 1;
                state.lease = Some(self.leases);
                tasks.push((*seq, state.clone()));
            }
            if let Some(owed) =
                task.delivery.as_mut().filter(|owed| owed.lease.is_none() && owed.due_at <= now)
            {
                self.leases += 1;
                owed.lease = Some(self.leases);
                deliveries.push((*seq, owed.clone()));
            }
        }
        (tasks, deliveries)
    }

    /// The task, if this lease on it is held.
    fn held(&mut self, seq: Seq, lease: u64) -> Option<&mut Task> {
        let is_held = |task: &&mut Task| task.state.as_ref().is_some_and(|state| state.lease == Some(lease));
        self.tasks.get_mut(&seq).filter(is_held)
    }

    fn owed(&mut self, seq: Seq, lease: u64) -> Option<&mut Task> {
        let is_held = |task: &&mut Task| task.delivery.as_ref().is_some_and(|owed| owed.lease == Some(lease));
        self.tasks.get_mut(&seq).filter(is_held)
    }

    pub fn started(&mut self, seq: Seq, lease: u64, number: u32) -> Says {
        let Some(state) = self.held(seq, lease).and_then(|task| task.state.as_mut()) else {
            return Says::Lost;
        };
        state.started = number;
        Says::Done(false)
    }

    pub fn stage(&mut self, seq: Seq, lease: u64, index: u32) -> Says {
        let Some(task) = self.held(seq, lease) else { return Says::Lost };
        task.chunks.insert(index);
        Says::Done(false)
    }

    /// A lease given back: counted as an attempt or not.
    pub fn rest(&mut self, seq: Seq, lease: u64, due_at: Ms, attempted: bool) -> Says {
        let Some(task) = self.held(seq, lease) else { return Says::Lost };
        task.history.0 += u32::from(attempted);
        let state = task.state.as_mut().expect("held");
        (state.lease, state.due_at) = (None, due_at);
        if attempted {
            state.attempts += 1;
            state.started = 0;
        }
        Says::Done(false)
    }

    pub fn finish(&mut self, seq: Seq, lease: u64, end: &End, now: Ms) -> Says {
        let delivery_lease = end.announce_now.then(|| self.new_lease());
        let Some(task) = self.held(seq, lease) else { return Says::Lost };
        task.history.0 += u32::from(end.recorded && end.failure.is_some());
        task.end(end.failure, end.attempts, end.chunks, delivery_lease, now);
        Says::Done(delivery_lease.is_some())
    }

    pub fn delivered(&mut self, seq: Seq, lease: u64, retry_at: Option<Ms>) -> Says {
        let Some(task) = self.owed(seq, lease) else { return Says::Lost };
        task.history.1 += u32::from(retry_at.is_some());
        task.delivery = retry_at.map(|due_at| {
            let tries = task.delivery.as_ref().map_or(0, |owed| owed.tries) + 1;
            Delivery { tries, due_at, lease: None }
        });
        Says::Done(false)
    }

    pub fn release_delivery(&mut self, seq: Seq, lease: u64, due_at: Ms) -> Says {
        let Some(owed) = self.owed(seq, lease).and_then(|task| task.delivery.as_mut()) else {
            return Says::Lost;
        };
        (owed.lease, owed.due_at) = (None, due_at);
        Says::Done(false)
    }

    pub fn cancel(&mut self, seq: Seq, now: Ms) -> Says {
        let Some(task) = self.tasks.get_mut(&seq) else { return Says::Cancelled(false) };
        if let Some(state) = task.state.clone() {
            task.end(Some("cancelled"), state.attempts.max(state.started), 0, None, now);
            return Says::Cancelled(true);
        }
        let cancelled = |result: &Result| result.failure.as_deref() == Some("cancelled");
        if let Some(result) = task.result.as_mut().filter(|result| !cancelled(result)) {
            (result.erased, result.chunks) = (true, 0);
            if task.delivery.is_none() {
                task.result = None;
            }
        }
        task.chunks.clear();
        Says::Cancelled(false)
    }

    pub fn purge(&mut self, results: Ms, tasks: Ms, keys: Ms) -> Says {
        let mut removed = (0, 0, 0);
        for (seq, task) in &mut self.tasks {
            let old = |result: &Result| *seq < first_at(results) && result.finished_at < results;
            let goes = |result: &Result| result.erased || old(result);
            if task.delivery.is_none() && task.result.as_ref().is_some_and(goes) {
                task.result = None;
                task.chunks.clear();
                removed.0 += 1;
            }
        }
        self.tasks.retain(|seq, task| {
            let gone = task.state.is_none() && task.result.is_none() && task.delivery.is_none();
            let goes = gone && *seq < first_at(tasks);
            removed.1 += u64::from(goes);
            !goes
        });
        self.keys.retain(|_, (_, id)| {
            let goes = id.seq() < first_at(keys);
            removed.2 += u64::from(goes);
            !goes
        });
        Says::Purged { results: removed.0, tasks: removed.1, keys: removed.2 }
    }

    /// A crash and a start: every lease is given back, and no half of an answer stays.
    pub fn reopen(&mut self) {
        for task in self.tasks.values_mut() {
            if let Some(state) = task.state.as_mut()
                && state.lease.take().is_some()
            {
                task.chunks.clear();
            }
            if let Some(owed) = &mut task.delivery {
                owed.lease = None;
            }
        }
    }
}

impl Task {
    fn end(&mut self, failure: Option<&str>, attempts: u32, chunks: u32, lease: Option<u64>, now: Ms) {
        self.state = None;
        self.chunks.retain(|index| *index < chunks);
        let failure = failure.map(str::to_owned);
        self.result = Some(Result { failure, attempts, finished_at: now, chunks, erased: false });
        self.delivery = self.webhook.then_some(Delivery { tries: 0, due_at: now, lease });
    }
}

fn first_at(at: Ms) -> Seq {
    Seq::first_at(crate::clock::Timestamp(at))
}
