//! Speed with many finished tasks kept, beside the same node's speed with none.

use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, params};

use super::{Bench, CONCURRENCY};
use crate::load::Pace;
use crate::report::{Section, a_second, megabytes};

/// Rows of one preloading transaction.
const BATCH: u64 = 100_000;

/// Milliseconds between two preloaded tasks, and the age of the first: all within retention.
const SPACING: i64 = 5;
const AGE: i64 = 24 * 60 * 60 * 1000;

impl Bench {
    pub(super) fn growth(&mut self) -> anyhow::Result<()> {
        let dir = self.fresh_dir()?;
        let setup = self.setup(&dir, CONCURRENCY);
        let node = setup.start()?;
        let empty = self.life(&node, "growth: none finished", 256, Pace::Closed)?;
        node.stop()?;
        let mut section = Section::new("growth: preload");
        let began = Instant::now();
        preload(&setup.database(), self.options.finished)?;
        section.note("finished tasks", self.options.finished);
        section.number("rows/s", a_second(self.options.finished, began.elapsed()));
        section.number("store MB", megabytes(std::fs::metadata(setup.database())?.len()));
        self.report.add(section);
        let node = setup.start()?;
        let grown = self.life(&node, "growth: many finished", 256, Pace::Closed)?;
        node.stop()?;
        let ratio = grown.completed_a_second() / empty.completed_a_second().max(1.0);
        self.report.at_least(&format!("growth: speed with {} finished", self.options.finished), ratio, 0.8);
        Ok(())
    }
}

/// Writes finished tasks as the node does, with small results that nobody will open.
fn preload(database: &Path, count: u64) -> anyhow::Result<()> {
    let connection = Connection::open(database)?;
    connection.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -200000")?;
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let (start, count) = (now - AGE, i64::try_from(count)?);
    let batch = i64::try_from(BATCH)?;
    let mut from = 0;
    while from < count {
        let to = count.min(from + batch);
        connection.execute_batch("BEGIN")?;
        for sql in STATEMENTS {
            let sql = format!(
                "WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2) {sql}"
            );
            let mut statement = connection.prepare(&sql)?;
            statement.execute(params![from, to, start, SPACING])?;
        }
        connection.execute_batch("COMMIT")?;
        from = to;
    }
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    Ok(())
}

const STATEMENTS: [&str; 4] = [
    "INSERT INTO task (seq, task_id, upstream, credentials_id, method, path, query, webhook_uri, accepted_at)
     SELECT (?3 + i * ?4) << 14, randomblob(16), 1, 'preloadedpreloadedpreloadedpreloadedpreload', 'GET',
            '/bench/items/1', NULL, randomblob(80), ?3 + i * ?4 FROM n",
    "INSERT INTO result (seq, succeeded, finished_at, attempts, upstream_status, headers, body, chunks, length,
                         failure, reason, effect_unknown, error)
     SELECT (?3 + i * ?4) << 14, 1, ?3 + i * ?4 + 10, 1, 200, randomblob(80), randomblob(200), 1, 168,
            NULL, NULL, 0, NULL FROM n",
    "INSERT INTO attempt (seq, kind, number, ended_at, took_ms, outcome, status)
     SELECT (?3 + i * ?4) << 14, 0, 1, ?3 + i * ?4 + 10, 1, 'success', 200 FROM n",
    "INSERT INTO attempt (seq, kind, number, ended_at, took_ms, outcome, status)
     SELECT (?3 + i * ?4) << 14, 1, 1, ?3 + i * ?4 + 10, 1, 'success', 204 FROM n",
];
