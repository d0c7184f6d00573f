//! A look at the store's files before anything could change them.
//!
//! Refuses what is not a store, what is lost, what is damaged and what cannot be written, each with one
//! line, and leaves the files as they are: a store that is refused may still be what somebody repairs it
//! from. What it does not promise is to find every damage: it looks for so long and not longer, at what
//! waits before what is finished.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::open::{APPLICATION_ID, MIGRATIONS, OpenError, beside};

/// The longest look for damage: a start with a million tasks must not wait for it.
const LOOK: Duration = Duration::from_millis(300);

/// Between two interrupts of a look that goes on.
const AGAIN: Duration = Duration::from_millis(5);

/// The database header (SQLite file format, section 1.3).
const HEADER_BYTES: usize = 100;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// What the lock file beside a database says once a store was made there. A store that is missing then is
/// lost, not new.
const MADE: &str = "A Ringback store was made beside this file. Remove it only to begin an empty one.\n";

/// What is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// A database; `log` if its newest changes are in a write-ahead log.
    Database {
        log: bool,
    },
}

impl Found {
    pub fn is_there(self) -> bool {
        self != Self::Nothing
    }

    /// Closing a database normally empties its log into it.
    pub fn has_log(self) -> bool {
        self == Self::Database { log: true }
    }
}

/// Judges what can be seen from outside: is a store there, and is it ours?
pub(super) fn from_outside(path: &Path) -> Result<Found, OpenError> {
    let unreadable = |source| OpenError::Unreadable { path: path.to_owned(), source };
    let length_of = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    let log = length_of(&beside(path, "-wal")) > 0;
    // A first start that broke off leaves a rollback journal, and a file that SQLite makes good by it.
    if length_of(&beside(path, "-journal")) > 0 {
        return Ok(Found::Database { log: true });
    }
    let length = match fs::metadata(path) {
        Ok(file) if file.is_file() => file.len(),
        Ok(_) => return Err(OpenError::NotAFile(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(unreadable(error)),
    };
    if length == 0 {
        let was_made = log || length_of(&beside(path, ".lock")) > 0;
        return if was_made { Err(OpenError::Gone(path.to_owned())) } else { Ok(Found::Nothing) };
    }
    let mut header = [0; HEADER_BYTES];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    match read {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(unreadable(error)),
        Ok(()) if header.starts_with(MAGIC) => {}
        _ => return Err(OpenError::NotAStore(path.to_owned())),
    }
    let number = |at: usize| i32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let (version, id) = (number(60), number(68));
    match id {
        // All of a store's tables come in one transaction with its id: until that is carried over from
        // the log, there are neither.
        0 if has_tables(path).unwrap_or(false) => Err(OpenError::NotAStore(path.to_owned())),
        0 | APPLICATION_ID if usize::try_from(version).is_ok_and(|version| version <= MIGRATIONS.len()) => {
            Ok(Found::Database { log })
        }
        APPLICATION_ID => Err(OpenError::Newer(path.to_owned())),
        _ => Err(OpenError::NotAStore(path.to_owned())),
    }
}

/// Judges a database that no other process has: can it be written, is it whole? One whose newest changes
/// are in its log is looked at by [`for_damage`] once it is open.
pub(super) fn thoroughly(path: &Path, found: Found) -> Result<(), OpenError> {
    if !found.is_there() {
        return Ok(());
    }
    let writable = File::options().write(true).open(path);
    writable.map_err(|source| OpenError::Unwritable { path: path.to_owned(), source })?;
    if found.has_log() {
        return Ok(());
    }
    let database = |source| OpenError::Database { path: path.to_owned(), source };
    let connection = untouched(path).map_err(database)?;
    let whole = fs::metadata(path).is_ok_and(|file| file.len() % page_bytes(&connection) == 0);
    if !whole {
        // SQLite would take the missing end of a page for zeros.
        let what = String::from("its last page is cut short");
        return Err(OpenError::Damaged { path: path.to_owned(), what });
    }
    for_damage(&connection, path)
}

/// Looks for damage in an open database, what waits first.
pub(super) fn for_damage(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let damaged = |what: String| OpenError::Damaged { path: path.to_owned(), what };
    match look(connection) {
        Ok(None) => Ok(()),
        Ok(Some(what)) => Err(damaged(what)),
        Err(error) => match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Ok(()),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Err(damaged(error.to_string())),
            _ => Err(OpenError::Database { path: path.to_owned(), source: error }),
        },
    }
}

fn look(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let end = Instant::now() + LOOK;
    interrupted_after(connection, LOOK, || look_until(connection, end))
}

/// Runs statements; each that runs after so long is interrupted. An interrupt that falls between two of
/// them is lost, so it is repeated until `run` is over.
fn interrupted_after<T>(connection: &Connection, after: Duration, run: impl FnOnce() -> T) -> T {
    let (done, over) = channel::<()>();
    let handle = connection.get_interrupt_handle();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut wait = after;
            while over.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                handle.interrupt();
                wait = AGAIN;
            }
        });
        let found = run();
        drop(done);
        found
    })
}

fn look_until(connection: &Connection, end: Instant) -> rusqlite::Result<Option<String>> {
    let tables: Vec<String> = connection
        .prepare(
            "SELECT name FROM sqlite_master WHERE type = 'table'
             ORDER BY name NOT IN ('state', 'delivery', 'request', 'secret', 'upstream', 'clock'), name",
        )?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for table in tables {
        if Instant::now() >= end {
            break;
        }
        let sql = format!("PRAGMA quick_check(\"{table}\")");
        let said: String = connection.query_row(&sql, [], |row| row.get(0))?;
        if said != "ok" {
            return Ok(Some(said.lines().next_back().unwrap_or_default().to_owned()));
        }
    }
    Ok(None)
}

fn page_bytes(connection: &Connection) -> u64 {
    connection.query_row("PRAGMA page_size", [], |row| row.get::<_, u32>(0)).unwrap_or(1).into()
}

fn has_tables(path: &Path) -> rusqlite::Result<bool> {
    untouched(path)?.query_row("SELECT count(*) > 0 FROM sqlite_master", [], |row| row.get(0))
}

/// A connection to the database file alone, which makes no other file and takes no lock.
fn untouched(path: &Path) -> rusqlite::Result<Connection> {
    let path = percent_encoding::percent_encode(path.as_os_str().as_encoded_bytes(), URI_PATH);
    Connection::open_with_flags(
        format!("file:{path}?immutable=1"),
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
}

/// What a path keeps of itself in a SQLite URI filename.
const URI_PATH: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Writes down, durably, that a store was made beside the lock file.
pub(super) fn remember_made(lock: &File) -> io::Result<()> {
    if lock.metadata()?.len() > 0 {
        return Ok(());
    }
    lock.write_all_at(MADE.as_bytes(), 0)?;
    lock.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_every_odd_character_is_looked_at_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a b?immutable=0#%41&é'\".db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE one (id INTEGER)").unwrap();
        assert!(has_tables(&path).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_statement_after_the_end_of_the_look_is_interrupted() {
        let connection = Connection::open_in_memory().unwrap();
        let long = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000000)
                    SELECT count(*) FROM n";
        let run = || connection.query_row(long, [], |row| row.get::<_, i64>(0));
        let ends = interrupted_after(&connection, Duration::ZERO, || [run(), run()]);
        assert!(ends.iter().all(Result::is_err), "{ends:?}");
    }

    #[test]
    fn a_look_that_takes_too_long_ends_without_a_verdict() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE one (id INTEGER)").unwrap();
        assert_eq!(look_until(&connection, Instant::now()).unwrap(), None);
    }
}
