//! Random histories of tasks beside a model of what must live: after whatever retention does, nothing is
//! left of a task that is gone, and nothing is gone that must live.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::Method;
use prometheus_client::metrics::counter::Counter;
use proptest::prelude::*;
use tokio::sync::oneshot;

use super::super::apply;
use super::super::backlog::{Leased, Owner};
use super::super::inbox::Operation;
use super::super::open::MIGRATIONS;
use super::super::statements::Statements;
use super::*;
use crate::id::TaskIds;
use crate::lease::LeaseToken;
use crate::outcome::{Failure, FailureCode, Outcome, Reason};
use crate::seal::Sealed;
use crate::store::{
    Announce, AttemptEnd, AttemptRecord, ChunkKind, DeliveryEnd, LaneId, NewResult, NewTask, Repeatable,
    Settled,
};
use crate::task::FinalStatus;

/// What happens next; a task is meant by its place among all, modulo their number.
#[derive(Clone, Debug)]
enum Step {
    Accept { key: bool, webhook: bool, chunks: u8 },
    Retry { task: usize, staged: u8 },
    Finish { task: usize, staged: u8, chunks: u8, now: bool },
    Cancel { task: usize },
    Deliver { task: usize, ends: bool },
    Wait { millis: i64 },
    Age { results: i64, tasks: i64, keys: i64, rows: u64 },
    Size { at_least: i64, page: u32, goal: Option<u64>, rows: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let (task, kept) = (0usize..64, 0i64..60);
    prop_oneof![
        6 => (any::<bool>(), any::<bool>(), 0u8..4)
            .prop_map(|(key, webhook, chunks)| Step::Accept { key, webhook, chunks }),
        2 => (task.clone(), 0u8..3).prop_map(|(task, staged)| Step::Retry { task, staged }),
        6 => (task.clone(), 0u8..4, 0u8..4, any::<bool>())
            .prop_map(|(task, staged, chunks, now)| Step::Finish { task, staged, chunks, now }),
        2 => task.clone().prop_map(|task| Step::Cancel { task }),
        4 => (task, any::<bool>()).prop_map(|(task, ends)| Step::Deliver { task, ends }),
        4 => (0i64..30).prop_map(|millis| Step::Wait { millis }),
        2 => (kept.clone(), kept.clone(), kept.clone(), 1u64..30)
            .prop_map(|(results, tasks, keys, rows)| Step::Age { results, tasks, keys, rows }),
        2 => (kept, 1u32..20, prop::option::of(0u64..400_000), 1u64..30)
            .prop_map(|(at_least, page, goal, rows)| Step::Size { at_least, page, goal, rows }),
    ]
}

/// A task as it must be in the store.
#[derive(Clone, Debug)]
enum Life {
    Waiting {
        body: u8,
        webhook: bool,
    },
    /// Chunks of the result, the first not counted; `None` once it is erased or removed.
    Ended {
        at: i64,
        owed: bool,
        result: Option<u8>,
        erased: bool,
    },
}

struct World {
    connection: Connection,
    ids: TaskIds,
    now: i64,
    tasks: BTreeMap<i64, Life>,
    keys: BTreeSet<i64>,
    numbers: BTreeMap<i64, u32>,
    all: Vec<i64>,
}

const START: i64 = 1_000_000;

impl World {
    fn new() -> Self {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(&MIGRATIONS.concat()).unwrap();
        connection.execute("INSERT INTO upstream (id, name) VALUES (1, 'bank')", []).unwrap();
        Self {
            connection,
            ids: TaskIds::after(Seq(0)),
            now: START,
            tasks: BTreeMap::new(),
            keys: BTreeSet::new(),
            numbers: BTreeMap::new(),
            all: Vec::new(),
        }
    }

    fn pick(&self, task: usize) -> Option<i64> {
        (!self.all.is_empty()).then(|| self.all[task % self.all.len()])
    }

    fn is_waiting(&self, seq: i64) -> bool {
        matches!(self.tasks.get(&seq), Some(Life::Waiting { .. }))
    }

    fn accept(&mut self, key: bool, webhook: bool, chunks: u8) {
        let id = self.ids.next(Timestamp(self.now), rand::random());
        let seq = id.seq().0;
        let sealed = || Sealed::from_stored(vec![7; 300]);
        let repeatable = key.then(|| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&seq.to_be_bytes());
            Box::new(Repeatable { key: hash, call: [0; 32] })
        });
        let task = NewTask {
            id,
            lane: LaneId(0),
            credentials_id: Arc::from("jane"),
            method: Method::GET,
            path: String::from("/accounts"),
            query: None,
            webhook_uri: webhook.then(sealed),
            headers: sealed(),
            body: (0..chunks).map(|_| sealed()).collect(),
            accepted_at: Timestamp(self.now),
            now: Timestamp(self.now),
            deadline: Timestamp(self.now + 1_000),
            repeatable,
            carried: None,
            buffered: None,
            accepted: Counter::default(),
        };
        apply::accept(&mut Statements::of(&self.connection), &task, 1, Owner(1), None).unwrap();
        self.tasks.insert(seq, Life::Waiting { body: chunks.saturating_sub(1), webhook });
        self.all.push(seq);
        if key {
            self.keys.insert(seq);
        }
    }

    /// Takes the lease as a claim would.
    fn lease(&self, table: &str, seq: i64) -> LeaseToken {
        let lease = LeaseToken::from_random(rand::random());
        let sql = format!("UPDATE {table} SET lease = ?2 WHERE seq = ?1");
        assert_eq!(self.connection.execute(&sql, params![seq, lease.as_i64()]).unwrap(), 1);
        lease
    }

    fn operate(&self, operation: &Operation) -> Settled {
        apply::operation(&mut Statements::of(&self.connection), operation, &Leased::default()).unwrap().0
    }

    fn record(&mut self, seq: i64) -> AttemptRecord {
        let number = self.numbers.entry(seq).or_default();
        *number += 1;
        let ended_at = Timestamp(self.now);
        AttemptRecord { number: *number, ended_at, took_ms: 1, outcome: Outcome::Success, status: None }
    }

    fn settle(&mut self, seq: i64, staged: u8, end: AttemptEnd) {
        let lease = self.lease("state", seq);
        for index in 1..=u32::from(staged) {
            let data = Arc::new(Sealed::from_stored(vec![7; 3_000]));
            let reply = oneshot::channel().0;
            self.operate(&Operation::StageChunk { seq: Seq(seq), lease, index, data, reply });
        }
        let (record, reply) = (Some(self.record(seq)), oneshot::channel().0);
        let end = Arc::new(end);
        self.operate(&Operation::SettleAttempt { seq: Seq(seq), lease, record, end, reply });
    }

    fn finish(&mut self, seq: i64, staged: u8, chunks: u8, now: bool) {
        let Some(Life::Waiting { webhook, .. }) = self.tasks.get(&seq).cloned() else { return };
        // A result that is kept has all its chunks staged; a failure may have dropped its body.
        let kept = chunks.min(staged);
        let failed = kept == 0;
        let failure =
            Failure { code: FailureCode::UpstreamError, reason: Reason::NotTransient, effect_unknown: false };
        let result = NewResult {
            status: if failed { FinalStatus::Failed } else { FinalStatus::Succeeded },
            finished_at: Timestamp(self.now),
            attempts: self.numbers.get(&seq).copied().unwrap_or(0) + 1,
            upstream_status: Some(200),
            headers: None,
            body: Some(Sealed::from_stored(vec![7; 3_000])),
            chunks: u32::from(kept) + 1,
            staged: u32::from(staged),
            length: 3_000 * u64::from(kept + 1),
            failure: failed.then_some(failure),
            unanswered: None,
            error: None,
        };
        let announce = match (webhook, now) {
            (false, _) => Announce::Nobody,
            (true, true) => Announce::Now,
            (true, false) => Announce::Later,
        };
        self.settle(seq, staged, AttemptEnd::Final { result: Box::new(result), announce });
        let life = Life::Ended { at: self.now, owed: webhook, result: Some(kept), erased: false };
        self.tasks.insert(seq, life);
    }

    fn cancel(&mut self, seq: i64) {
        let reply = oneshot::channel().0;
        self.operate(&Operation::Cancel { seq: Seq(seq), now: Timestamp(self.now), reply });
        let life = match self.tasks.get(&seq).cloned() {
            Some(Life::Waiting { webhook, .. }) => {
                Life::Ended { at: self.now, owed: webhook, result: Some(0), erased: false }
            }
            Some(Life::Ended { at, owed, result: Some(_), .. }) if !self.was_cancelled(seq) => {
                Life::Ended { at, owed, result: owed.then_some(0), erased: owed }
            }
            Some(other) => other,
            None => return,
        };
        self.tasks.insert(seq, life);
    }

    fn was_cancelled(&self, seq: i64) -> bool {
        let sql = "SELECT 1 FROM result WHERE seq = ?1 AND failure = 'cancelled'";
        self.connection.prepare(sql).unwrap().exists([seq]).unwrap()
    }

    fn deliver(&mut self, seq: i64, ends: bool) {
        let Some(Life::Ended { at, owed: true, result, erased }) = self.tasks.get(&seq).cloned() else {
            return;
        };
        let lease = self.lease("delivery", seq);
        let (record, reply) = (self.record(seq), oneshot::channel().0);
        let end =
            if ends { DeliveryEnd::Delivered } else { DeliveryEnd::Retry { due_at: Timestamp(self.now) } };
        self.operate(&Operation::SettleDelivery { seq: Seq(seq), lease, record, end, reply });
        self.tasks.insert(seq, Life::Ended { at, owed: !ends, result, erased });
    }

    fn purge(&self, removal: Removal, rows: u64) -> Purged {
        let reply = oneshot::channel().0;
        let (purged, _) = purge(&self.connection, &Purge { removal, rows, reply }).unwrap();
        purged
    }

    /// Until nothing is left to remove; then all that is due has gone, and the model says what that is.
    fn age(&mut self, results: i64, tasks: i64, keys: i64, rows: u64) {
        let [results, tasks, keys] = [results, tasks, keys].map(|kept| self.now - kept);
        let cutoffs = Cutoffs { results: Timestamp(results), tasks: Timestamp(tasks), keys: Timestamp(keys) };
        for round in 0.. {
            assert!(round < 2_000, "it ends");
            if self.purge(Removal::Aged(cutoffs), rows).rows == 0 {
                break;
            }
        }
        self.tasks.retain(|seq, life| {
            if let Life::Ended { at, owed: false, result, erased } = life {
                if *at < results || *erased {
                    *result = None;
                }
                return result.is_some() || *seq >= Seq::first_at(Timestamp(tasks)).0;
            }
            true
        });
        self.keys.retain(|seq| *seq >= Seq::first_at(Timestamp(keys)).0);
    }

    /// Oldest first until the goal, or all that may go: what may, is the model's to say.
    fn make_room(&mut self, at_least: i64, page: u32, goal: Option<u64>, rows: u64) {
        let before = self.now - at_least;
        let goal = goal.unwrap_or(0);
        let mut from = Some(Seq(0));
        'pages: while let Some(start) = from {
            let ended = ended(&self.connection, start, Timestamp(before), page).unwrap();
            let mut tasks = ended.tasks;
            while !tasks.is_empty() {
                let purged = self.purge(Removal::Oldest { tasks: tasks.clone(), goal }, rows);
                let Some(reached) = purged.reached else { break 'pages };
                tasks.retain(|task| *task > reached);
            }
            from = ended.next;
        }
        let may_go = |life: &Life| match life {
            Life::Waiting { .. } => false,
            Life::Ended { at, owed, result, .. } => !owed && (result.is_none() || *at < before),
        };
        let left = self.seqs("task");
        let oldest_left = self.tasks.iter().find(|(seq, life)| may_go(life) && left.contains(seq));
        if let Some((oldest_left, _)) = oldest_left.map(|(seq, life)| (*seq, life)) {
            assert!(space::in_use(&self.connection).unwrap() <= goal, "more could go, and had to");
            let younger_gone = self.tasks.keys().any(|seq| *seq > oldest_left && !left.contains(seq));
            assert!(!younger_gone, "the oldest go first");
        }
        self.tasks.retain(|seq, life| left.contains(seq) || !may_go(life));
    }

    fn seqs(&self, table: &str) -> BTreeSet<i64> {
        let mut select = self.connection.prepare(&format!("SELECT seq FROM {table}")).unwrap();
        select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    fn chunks(&self, seq: i64, kind: ChunkKind) -> u8 {
        let sql = "SELECT count(*) FROM chunk WHERE seq = ?1 AND kind = ?2";
        self.connection.query_row(sql, params![seq, kind as i64], |row| row.get(0)).unwrap()
    }

    /// The store holds what the model says, and nothing else.
    fn check(&self) {
        let tasks: BTreeSet<i64> = self.tasks.keys().copied().collect();
        assert_eq!(self.seqs("task"), tasks);
        // Asked of the schema: a table added later is looked at too.
        let sql = "SELECT name FROM sqlite_master WHERE type = 'table'
                   AND EXISTS (SELECT 1 FROM pragma_table_info(sqlite_master.name) AS c WHERE c.name = 'seq')";
        let mut tables = self.connection.prepare(sql).unwrap();
        let tables = tables.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap);
        for table in tables.filter(|table| table != "idempotency") {
            let orphans: Vec<i64> = self.seqs(&table).difference(&tasks).copied().collect();
            assert!(orphans.is_empty(), "{table} still has {orphans:?}");
        }
        assert_eq!(self.seqs("idempotency"), self.keys);
        let [states, requests, results, deliveries] =
            ["state", "request", "result", "delivery"].map(|table| self.seqs(table));
        for (seq, life) in &self.tasks {
            let has = |rows: &BTreeSet<i64>| rows.contains(seq);
            match *life {
                Life::Waiting { body, .. } => {
                    assert!(has(&states) && has(&requests) && !has(&results) && !has(&deliveries), "{seq}");
                    assert_eq!(self.chunks(*seq, ChunkKind::RequestBody), body);
                }
                Life::Ended { owed, result, .. } => {
                    assert!(!has(&states) && !has(&requests), "{seq}");
                    assert_eq!(
                        (has(&results), has(&deliveries)),
                        (result.is_some(), owed),
                        "{seq}: {life:?}"
                    );
                    assert_eq!(self.chunks(*seq, ChunkKind::RequestBody), 0);
                    assert_eq!(self.chunks(*seq, ChunkKind::Result), result.unwrap_or(0), "{seq}: {life:?}");
                }
            }
        }
    }

    fn go(&mut self, step: &Step) {
        let known = |task| self.pick(task);
        match *step {
            Step::Accept { key, webhook, chunks } => self.accept(key, webhook, chunks),
            Step::Retry { task, staged } => {
                if let Some(seq) = known(task).filter(|seq| self.is_waiting(*seq)) {
                    let due_at = Timestamp(self.now);
                    self.settle(seq, staged, AttemptEnd::Retry { due_at });
                }
            }
            Step::Finish { task, staged, chunks, now } => {
                if let Some(seq) = known(task) {
                    self.finish(seq, staged, chunks, now);
                }
            }
            Step::Cancel { task } => {
                if let Some(seq) = known(task) {
                    self.cancel(seq);
                }
            }
            Step::Deliver { task, ends } => {
                if let Some(seq) = known(task) {
                    self.deliver(seq, ends);
                }
            }
            Step::Wait { millis } => self.now += millis,
            Step::Age { results, tasks, keys, rows } => {
                self.age(results, tasks, keys, rows);
                self.check();
            }
            Step::Size { at_least, page, goal, rows } => {
                self.make_room(at_least, page, goal, rows);
                self.check();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn nothing_is_left_of_what_is_gone_and_nothing_is_gone_that_must_live(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.go(step);
        }
        // In the end everything that is final and not owed can go, by age and by size alike.
        world.now += 1_000;
        world.make_room(0, 7, None, 11);
        world.check();
        world.age(0, 0, 0, 11);
        world.check();
        prop_assert!(world.keys.is_empty());
        let left = world.tasks.values().find(|life| matches!(life, Life::Ended { owed: false, .. }));
        prop_assert!(left.is_none(), "{:?}", left);
    }
}
