//! The statements that every task needs, looked up once a batch and not once an operation.
//!
//! All others are looked up where they are run, in the connection's cache.

use rusqlite::{CachedStatement, Connection};

/// What is run for each task.
#[derive(Clone, Copy)]
pub(super) enum Frequent {
    InsertTask,
    InsertRequest,
    InsertState,
    DeleteState,
    DeleteRequest,
    InsertResult,
    InsertDelivery,
    DeleteDelivery,
}

const COUNT: usize = Frequent::DeleteDelivery as usize + 1;

impl Frequent {
    fn sql(self) -> &'static str {
        match self {
            Self::InsertTask => {
                "INSERT INTO task (seq, task_id, upstream, credentials_id, method, path, query, webhook_uri, accepted_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
            }
            Self::InsertRequest => "INSERT INTO request (seq, headers, body, chunks) VALUES (?1, ?2, ?3, ?4)",
            Self::InsertState => {
                "INSERT INTO state (seq, upstream, due_at, deadline, lease, attempts, started, owner)
                 VALUES (?1, ?2, ?3, ?4, ?5, 0, 0, ?6)"
            }
            Self::DeleteState => "DELETE FROM state WHERE seq = ?1 AND lease = ?2",
            Self::DeleteRequest => "DELETE FROM request WHERE seq = ?1",
            Self::InsertResult => {
                "INSERT INTO result (seq, succeeded, finished_at, attempts, upstream_status, headers, body, chunks,
                                     length, failure, reason, effect_unknown, error, sent_at, bytes_sent, cause)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)"
            }
            Self::InsertDelivery => {
                "INSERT INTO delivery (seq, due_at, lease, tries) VALUES (?1, ?2, ?3, 0)"
            }
            Self::DeleteDelivery => "DELETE FROM delivery WHERE seq = ?1 AND lease = ?2",
        }
    }
}

/// A connection inside a transaction, with what was run in it.
pub(super) struct Statements<'c> {
    connection: &'c Connection,
    frequent: [Option<CachedStatement<'c>>; COUNT],
}

impl<'c> Statements<'c> {
    pub fn of(connection: &'c Connection) -> Self {
        Self { connection, frequent: [const { None }; COUNT] }
    }

    pub fn frequent(&mut self, which: Frequent) -> rusqlite::Result<&mut CachedStatement<'c>> {
        let statement = &mut self.frequent[which as usize];
        match statement {
            Some(statement) => Ok(statement),
            None => Ok(statement.insert(self.connection.prepare_cached(which.sql())?)),
        }
    }

    /// Any other.
    pub fn cached(&self, sql: &str) -> rusqlite::Result<CachedStatement<'c>> {
        self.connection.prepare_cached(sql)
    }
}
