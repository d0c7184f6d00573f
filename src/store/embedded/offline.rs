//! The store without a node: what the commands for keys and erasing do with its file.
//!
//! [`OfflineStore`] takes the lock of the data directory, so that no node runs meanwhile. Webhook keys
//! alone can also change beside a running node: it reads their row when told to and never writes it.
//! Re-sealing and erasing go in small transactions; interrupted, they go on where they were.

mod compact;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;

use rusqlite::{Connection, Row, Transaction, TransactionBehavior, params};

use super::open::{
    OpenError, check_is_ours, configure, connect, lock_data_dir, lock_database, migrate, read_secrets,
};
use super::signing;
use crate::clock::Timestamp;
use crate::id::TaskId;
use crate::seal::{self, Column, KeyRing, Place, Sealed};
use crate::signing::{Generation, SigningError, SigningKeys};

pub use compact::Compacted;

/// Values or tasks in one transaction.
const BATCH: u32 = 200;

/// Where a store and its key file are.
#[derive(Clone)]
pub struct Files {
    pub data_dir: PathBuf,
    /// `None` for `ringback.db` in the data directory.
    pub database: Option<PathBuf>,
    /// `None` for `ringback.keys` in the data directory.
    pub key_file: Option<PathBuf>,
}

impl Files {
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.database.clone().unwrap_or_else(|| self.data_dir.join("ringback.db"))
    }

    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.key_file.clone().unwrap_or_else(|| self.data_dir.join("ringback.keys"))
    }

    fn connect(&self) -> Result<(Connection, KeyRing), OpenError> {
        let path = self.database();
        if !fs::metadata(&path).is_ok_and(|file| file.len() > 0) {
            return Err(OpenError::Missing(path));
        }
        let ring = seal::load(&self.key_file())?;
        let database = |source| OpenError::Database { path: path.clone(), source };
        let connection = connect(&path).map_err(database)?;
        check_is_ours(&connection, &path, true)?;
        configure(&connection, true).map_err(database)?;
        Ok((connection, ring))
    }
}

/// The webhook keys of a store, whether a node runs on it or not.
///
/// # Errors
/// There is no store, or it does not open.
pub fn signing_keys(files: &Files) -> Result<SigningKeys, OpenError> {
    let (connection, ring) = files.connect()?;
    signing::read(&connection, &ring, &files.database())
}

/// Replaces the webhook keys by what `decide` makes of them and of a fresh generation.
///
/// # Errors
/// There is no store, it does not open, or `decide` refuses; then nothing has changed.
pub fn change_signing_keys(
    files: &Files,
    now: Timestamp,
    decide: impl FnOnce(&SigningKeys, Generation) -> Result<SigningKeys, SigningError>,
) -> Result<SigningKeys, OpenError> {
    let (mut connection, ring) = files.connect()?;
    signing::change(&mut connection, &ring, &files.database(), |found| {
        let new = signing::fresh(now);
        Ok(Some(match found {
            Some(found) => decide(found, new)?,
            None => SigningKeys::first(new),
        }))
    })
}

/// A store that no node runs on, until it is dropped.
pub struct OfflineStore {
    connection: Connection,
    ring: KeyRing,
    path: PathBuf,
    _locks: (File, File),
}

/// How many rows of each table are gone.
pub type Erased = BTreeMap<String, u64>;

impl OfflineStore {
    /// # Errors
    /// There is no store, a node runs on it, or it does not open.
    pub fn open(files: &Files) -> Result<Self, OpenError> {
        let path = files.database();
        if !path.exists() {
            return Err(OpenError::Missing(path));
        }
        let locks = (lock_data_dir(&files.data_dir)?, lock_database(&path)?);
        let (mut connection, ring) = files.connect()?;
        migrate(&mut connection, &path, &ring)?;
        read_secrets(&connection, &ring, &path)?;
        // Nothing that was removed stays readable in the file.
        connection
            .pragma_update(None, "secure_delete", "ON")
            .map_err(|source| OpenError::Database { path: path.clone(), source })?;
        Ok(Self { connection, ring, path, _locks: locks })
    }

    /// The keys of the key file, the sealing one first.
    #[must_use]
    pub fn key_ids(&self) -> Vec<u32> {
        self.ring.ids()
    }

    /// Seals with the first key whatever an older one sealed, and returns how many values that were.
    ///
    /// # Errors
    /// A value does not open, or the store cannot be written. What was re-sealed stays so; the next
    /// run goes on from there.
    pub fn reseal(&mut self) -> Result<u64, OpenError> {
        let mut resealed = 0;
        // Chunks staged by an attempt that never settled: no result will ever refer to them.
        self.write(|tx, _| {
            tx.execute("DELETE FROM chunk WHERE kind = 1 AND seq IN (SELECT seq FROM state)", [])
                .map_err(Fault::from)
        })?;
        for part in &PARTS {
            let mut from = 0;
            while let Some((last, count)) = self.write(|tx, ring| part.reseal(tx, ring, from))? {
                (from, resealed) = (last, resealed + count);
            }
        }
        // Last, so that until all is done the start still asks for the older keys.
        resealed += self.write(reseal_secrets)?;
        self.empty_log()?;
        Ok(resealed)
    }

    /// Removes every row about the tasks of these credentials.
    ///
    /// # Errors
    /// The store cannot be written. What is gone stays gone; the next run removes the rest.
    pub fn erase(&mut self, credentials_id: &str) -> Result<Erased, OpenError> {
        let mut erased = Erased::new();
        let by_task = self.tables_with("seq")?;
        let by_person = self.tables_with("credentials_id")?;
        while self
            .write(|tx, _| erase_batch(tx, &by_task, credentials_id, &mut erased).map_err(Fault::from))?
        {
        }
        for table in by_person {
            let gone = self.write(|tx, _| {
                let sql = format!("DELETE FROM \"{table}\" WHERE credentials_id = ?1");
                Ok(tx.execute(&sql, [credentials_id])? as u64)
            })?;
            *erased.entry(table).or_default() += gone;
        }
        self.empty_log()?;
        Ok(erased)
    }

    /// Asked of the schema, so that a table added later is not forgotten.
    fn tables_with(&self, column: &str) -> Result<Vec<String>, OpenError> {
        let tables = || -> rusqlite::Result<Vec<String>> {
            self.connection
                .prepare(
                    "SELECT name FROM sqlite_master WHERE type = 'table'
                     AND EXISTS (SELECT 1 FROM pragma_table_info(sqlite_master.name) AS c WHERE c.name = ?1)",
                )?
                .query_map([column], |row| row.get(0))?
                .collect()
        };
        tables().map_err(|source| OpenError::Database { path: self.path.clone(), source })
    }

    fn write<T>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>, &KeyRing) -> Result<T, Fault>,
    ) -> Result<T, OpenError> {
        let done = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(Fault::from)
            .and_then(|tx| {
                let done = change(&tx, &self.ring)?;
                tx.commit()?;
                Ok(done)
            });
        done.map_err(|fault| match fault {
            Fault::Database(source) => OpenError::Database { path: self.path.clone(), source },
            Fault::Seal(source) => OpenError::WrongKey(source),
        })
    }

    /// The write-ahead log still holds what was changed.
    fn empty_log(&self) -> Result<(), OpenError> {
        self.connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(|source| OpenError::Database { path: self.path.clone(), source })
    }
}

enum Fault {
    Database(rusqlite::Error),
    Seal(seal::SealError),
}

impl From<rusqlite::Error> for Fault {
    fn from(source: rusqlite::Error) -> Self {
        Self::Database(source)
    }
}

impl From<seal::SealError> for Fault {
    fn from(source: seal::SealError) -> Self {
        Self::Seal(source)
    }
}

/// One batch of [`OfflineStore::erase`]; whether there was anything.
fn erase_batch(
    tx: &Transaction<'_>,
    tables: &[String],
    credentials_id: &str,
    erased: &mut Erased,
) -> rusqlite::Result<bool> {
    let seqs: Vec<i64> = tx
        .prepare_cached("SELECT seq FROM task WHERE credentials_id = ?1 LIMIT ?2")?
        .query_map(params![credentials_id, BATCH], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for table in tables {
        let mut delete = tx.prepare_cached(&format!("DELETE FROM \"{table}\" WHERE seq = ?1"))?;
        let mut gone = 0;
        for seq in &seqs {
            gone += delete.execute([seq])? as u64;
        }
        *erased.entry(table.clone()).or_default() += gone;
    }
    Ok(!seqs.is_empty())
}

/// One sealed column of the store.
struct Part {
    table: &'static str,
    value: &'static str,
    column: Column,
    /// SQL of the value's index among the chunks of its column, and of their number.
    place: (&'static str, &'static str),
    /// SQL that narrows the table and joins what the place needs.
    rows: &'static str,
}

const fn whole(table: &'static str, value: &'static str, column: Column) -> Part {
    Part { table, value, column, place: ("0", "1"), rows: "" }
}

const PARTS: [Part; 9] = [
    whole("task", "query", Column::RequestQuery),
    whole("task", "webhook_uri", Column::WebhookUri),
    whole("request", "headers", Column::RequestHeaders),
    Part { place: ("0", "t.chunks"), ..whole("request", "body", Column::RequestBody) },
    Part {
        place: ("t.idx", "(SELECT chunks FROM request WHERE request.seq = t.seq)"),
        rows: "AND t.kind = 0",
        ..whole("chunk", "data", Column::RequestBody)
    },
    Part {
        place: ("t.idx", "(SELECT chunks FROM result WHERE result.seq = t.seq)"),
        rows: "AND t.kind = 1",
        ..whole("chunk", "data", Column::ResultBody)
    },
    whole("result", "headers", Column::ResultHeaders),
    Part { place: ("0", "t.chunks"), ..whole("result", "body", Column::ResultBody) },
    whole("result", "error", Column::ResultError),
];

impl Part {
    /// One batch from key `from` on: the last key and how many values; `None` when nothing is left.
    fn reseal(&self, tx: &Transaction<'_>, ring: &KeyRing, from: i64) -> Result<Option<(i64, u64)>, Fault> {
        let Self { table, value, place: (index, count), rows, .. } = self;
        // A value's first bytes name the key that sealed it.
        let mut select = tx.prepare_cached(&format!(
            "SELECT t.rowid, t.seq, task.task_id, {index}, {count}, t.{value}
             FROM {table} AS t JOIN task ON task.seq = t.seq
             WHERE t.seq >= ?1 AND substr(t.{value}, 1, 4) <> ?2 {rows} ORDER BY t.seq LIMIT ?3"
        ))?;
        let read = |row: &Row<'_>| -> rusqlite::Result<(i64, i64, TaskId, u32, u32, Vec<u8>)> {
            let id = TaskId::from_bytes(row.get(2)?);
            Ok((row.get(0)?, row.get(1)?, id, row.get(3)?, row.get(4)?, row.get(5)?))
        };
        let found: Vec<_> =
            select.query_map(params![from, ring.sealing_mark(), BATCH], read)?.collect::<Result<_, _>>()?;
        let Some(last) = found.last().map(|row| row.1) else { return Ok(None) };
        let mut update = tx.prepare_cached(&format!("UPDATE {table} SET {value} = ?1 WHERE rowid = ?2"))?;
        let resealed = found.len() as u64;
        for (row, _, task, index, count, sealed) in found {
            let place = Place::chunk(index, index + 1 >= count);
            let sealed = ring.reseal(task, self.column, place, Sealed::from_stored(sealed))?;
            update.execute(params![sealed.as_stored(), row])?;
        }
        Ok(Some((last, resealed)))
    }
}

fn reseal_secrets(tx: &Transaction<'_>, ring: &KeyRing) -> Result<u64, Fault> {
    let found: Vec<(String, Vec<u8>)> = tx
        .prepare("SELECT name, value FROM secret WHERE substr(value, 1, 4) <> ?1")?
        .query_map([ring.sealing_mark()], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (name, sealed) in &found {
        let value = ring.open_node_secret(Sealed::from_stored(sealed.clone()))?;
        let sealed = ring.seal_node_secret(&value);
        tx.execute("UPDATE secret SET value = ?1 WHERE name = ?2", params![sealed.as_stored(), name])?;
    }
    Ok(found.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sealed_column_of_the_schema_is_resealed() {
        let schema = Connection::open_in_memory().unwrap();
        for sql in super::super::open::MIGRATIONS {
            schema.execute_batch(sql).unwrap();
        }
        let mut blobs: Vec<String> = schema
            .prepare(
                "SELECT m.name || '.' || c.name FROM sqlite_master AS m
                 JOIN pragma_table_info(m.name) AS c WHERE m.type = 'table' AND c.type = 'BLOB'",
            )
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        // Ids and keyed hashes are not sealed; secrets are re-sealed by name.
        blobs
            .retain(|blob| !blob.ends_with(".task_id") && !blob.ends_with("_hash") && blob != "secret.value");
        let mut covered: Vec<_> = PARTS.iter().map(|part| format!("{}.{}", part.table, part.value)).collect();
        covered.dedup();
        blobs.sort();
        covered.sort();
        assert_eq!(covered, blobs, "a sealed column that is not re-sealed keeps an old key alive for ever");
    }
}
