//! Opening: the lock, the files, the schema, the keys, and what a crash left behind.
//!
//! Refuses rather than repairs: a file that is not a Ringback store, a newer schema, a wrong key and a
//! second process each stop the start with one sentence, and nothing is written.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use prometheus_client::metrics::histogram::Histogram;
use rand::Rng;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use tokio_util::sync::CancellationToken;

use super::backlog::Backlog;
use super::inbox::Inbox;
use super::reader::Readers;
use super::seen::Seen;
use super::space::Space;
use super::writer::{self, Writer};
use super::{Shared, Store, inspect, seen, signing};
use crate::clock::{Clock, Timestamp};
use crate::id::{Seq, TaskIds};
use crate::seal::{self, KeyFileError, KeyRing, SealError, Sealed};
use crate::secret::FingerprintKey;
use crate::signing::{SigningError, SigningKeys};
use crate::store::{Lane, Load, Ready};

/// Marks a SQLite file as ours (`PRAGMA application_id`).
pub(super) const APPLICATION_ID: i32 = 0x5267_426B;

pub(super) const MIGRATIONS: [&str; 4] = [
    include_str!("../../../migrations/embedded/0001_initial.sql"),
    include_str!("../../../migrations/embedded/0002_repeat_and_cancel.sql"),
    include_str!("../../../migrations/embedded/0003_owner.sql"),
    include_str!("../../../migrations/embedded/0004_clock.sql"),
];

/// Proves that the key file fits the store.
const KEY_CHECK: &[u8] = b"ringback key check";

/// A version that did not keep the clock may have written a `due_at` as much too late as the wall clock was
/// set back since. Such a wait is cut to this, once.
const DUE_AT_MOST: std::time::Duration = std::time::Duration::from_hours(24);

/// What a store needs to know to open.
pub struct OpenOptions {
    pub data_dir: PathBuf,
    /// The database file; `None` for `ringback.db` in the data directory.
    pub database: Option<PathBuf>,
    /// The key file; `None` for `ringback.keys` in the data directory.
    pub key_file: Option<PathBuf>,
    /// Names of upstreams; a task keeps the name of its own.
    pub upstreams: Vec<String>,
    pub max_queued_tasks: u64,
    /// Of one credentials id at one upstream.
    pub max_queued_per_credentials: u64,
    /// In use; above it nothing is accepted. 0: no bound.
    pub max_bytes: u64,
    /// Places in each ready queue.
    pub ready_capacity: usize,
    pub clock: Clock,
    pub busy: Busy,
    pub commit_seconds: Histogram,
}

/// How long the threads that run tasks have been at work since they began, on average.
pub type Busy = Arc<dyn Fn() -> std::time::Duration + Send + Sync>;

/// Why the store does not open. One line each.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot use the data directory {path}: {source}")]
    DataDir { path: PathBuf, source: io::Error },
    #[error("another process uses {0}; stop it, or choose another data directory with --data-dir")]
    InUse(PathBuf),
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    #[error("the key file does not fit the store: {0}")]
    WrongKey(SealError),
    #[error(transparent)]
    Signing(#[from] SigningError),
    #[error("there is no store at {0}; name its data directory with --data-dir or the configuration")]
    Missing(PathBuf),
    #[error(
        "{0} is not a Ringback store, or its first page is damaged; move it away, restore a back-up, or \
         choose another data directory"
    )]
    NotAStore(PathBuf),
    #[error("{0} is not a file; move it away or choose another data directory")]
    NotAFile(PathBuf),
    #[error(
        "the store {0} is missing or empty, and it was there before; put it back or restore a back-up (to \
         begin an empty one instead, move everything beside it away)"
    )]
    Gone(PathBuf),
    #[error("the store {path} is damaged ({what}); nothing was changed; restore a back-up")]
    Damaged { path: PathBuf, what: String },
    #[error("cannot read the store {path}: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("cannot write the store {path}: {source}")]
    Unwritable { path: PathBuf, source: io::Error },
    #[error("the store {0} was written by a newer version; run that version")]
    Newer(PathBuf),
    #[error("cannot lock the store {path}: {source}")]
    Lock { path: PathBuf, source: io::Error },
    #[error("cannot rewrite the store, at {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("cannot open the store {path}: {source}")]
    Database { path: PathBuf, source: rusqlite::Error },
}

/// The node's own secrets, which its store keeps sealed.
pub struct NodeSecrets {
    pub fingerprint: FingerprintKey,
    pub signing: SigningKeys,
}

impl Store {
    /// Opens the store, making it if there is none, gives every lease back, and starts its threads.
    ///
    /// # Errors
    /// See [`OpenError`]; then nothing was changed.
    pub fn open(options: &OpenOptions) -> Result<(Self, KeyRing, NodeSecrets), OpenError> {
        let data_dir_lock = lock_data_dir(&options.data_dir)?;
        let path = options.database.clone().unwrap_or_else(|| options.data_dir.join("ringback.db"));
        let found = inspect::from_outside(&path)?;
        let exists = found.is_there();
        let database_lock = lock_database(&path)?;
        inspect::thoroughly(&path, found)?;
        let key_file = options.key_file.clone().unwrap_or_else(|| options.data_dir.join("ringback.keys"));
        let ring = seal::load_or_create(&key_file, !exists)?;

        let database_error = |source| OpenError::Database { path: path.clone(), source };
        let mut connection = connect(&path).map_err(database_error)?;
        if found.has_log() {
            // A store that is refused keeps its log as it is.
            keep_log(&connection, true).map_err(database_error)?;
            inspect::for_damage(&connection, &path)?;
        }
        // Before anything that could change a file of somebody else.
        check_is_ours(&connection, &path, exists)?;
        configure(&connection, exists).map_err(database_error)?;
        migrate(&mut connection, &path, &ring)?;
        let fingerprint = read_secrets(&connection, &ring, &path)?;
        let signing = signing::read_or_make(&mut connection, &ring, options.clock.wall(), &path)?;
        let recovered = recover(&mut connection, options).map_err(database_error)?;
        inspect::remember_made(&database_lock)
            .map_err(|source| OpenError::Lock { path: path.clone(), source })?;
        keep_log(&connection, false).map_err(database_error)?;
        let readers = Readers::start(&path).map_err(database_error)?;
        let (mut shared, writer) = join(connection, readers, recovered, options);
        let watched = (Arc::clone(&shared.inbox), shared.failed.clone());
        let thread = std::thread::Builder::new()
            .name(String::from("store-writer"))
            .spawn(move || {
                let (inbox, failed) = watched;
                writer::watch(&inbox, &failed, || writer.run());
                drop((data_dir_lock, database_lock));
            })
            .map_err(|source| OpenError::DataDir { path: options.data_dir.clone(), source })?;
        shared.writer = Mutex::new(Some(thread));
        Ok((Self { shared: Arc::new(shared) }, ring, NodeSecrets { fingerprint, signing }))
    }
}

/// The parts of a store whose database is open. Nobody runs the writer yet.
pub(super) fn join(
    connection: Connection,
    readers: Readers,
    mut recovered: Recovered,
    options: &OpenOptions,
) -> (Shared, Writer) {
    let inbox = Arc::new(Inbox::new(options.upstreams.len()));
    let nudge = {
        let inbox = Arc::clone(&inbox);
        Arc::new(move || inbox.nudge()) as Arc<dyn Fn() + Send + Sync>
    };
    let lanes: Vec<_> = options
        .upstreams
        .iter()
        .map(|name| {
            Arc::new(Lane {
                name: name.clone(),
                ready: Ready::new(options.ready_capacity, Arc::clone(&nudge)),
                load: Arc::new(Load::default()),
                cancellations: Arc::default(),
            })
        })
        .collect();
    let deliveries = Arc::new(Ready::new(options.ready_capacity, nudge));
    let readers = Arc::new(readers);
    let writer = Writer::new(
        connection,
        Arc::clone(&inbox),
        Arc::clone(&readers),
        lanes.clone(),
        Arc::clone(&deliveries),
        &mut recovered,
        options,
    );
    let shared = Shared {
        inbox,
        readers,
        lanes,
        deliveries,
        running: Mutex::default(),
        ids: TaskIds::after(recovered.last),
        clock: recovered.clock,
        full: writer.full(),
        space: recovered.space,
        failed: CancellationToken::new(),
        writer: Mutex::new(None),
    };
    (shared, writer)
}

pub(super) fn lock_data_dir(data_dir: &Path) -> Result<File, OpenError> {
    let unusable = |source| OpenError::DataDir { path: data_dir.to_owned(), source };
    make_durably(data_dir).map_err(unusable)?;
    lock(&data_dir.join("ringback.lock"))
        .map_err(unusable)?
        .ok_or_else(|| OpenError::InUse(data_dir.to_owned()))
}

/// Makes a directory and those above it. What is in it can only be durable if its own entry is.
fn make_durably(dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    for made in missing {
        let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// The exclusive lock on a file made for it; `None` while another process has it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = private(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(source)) => Err(source),
    }
}

pub(super) fn lock_database(path: &Path) -> Result<File, OpenError> {
    lock(&beside(path, ".lock"))
        .map_err(|source| OpenError::Lock { path: path.to_owned(), source })?
        .ok_or_else(|| OpenError::InUse(path.to_owned()))
}

/// The path of a file beside `path`. A database may lie outside the data directory, where the lock of
/// that directory does not reach it.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A file for its owner alone, made if it is not there. SQLite gives its companions the same mode.
pub(super) fn private(path: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).write(true).mode(0o600).open(path)
}

pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // Where it cannot be made, SQLite says why.
    let _ = private(path);
    Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE,
    )
}

/// Whether closing this connection leaves the write-ahead log as it is.
fn keep_log(connection: &Connection, keep: bool) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep).map(drop)
}

pub(super) fn configure(connection: &Connection, exists: bool) -> rusqlite::Result<()> {
    if !exists {
        connection.pragma_update(None, "page_size", 8192)?;
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Small write-ahead log: checkpoints are what an accept's worst case waits for.
    connection.pragma_update(None, "wal_autocheckpoint", 500)?;
    // What a burst made of the log is given back to the disk once its pages are in the file.
    connection.pragma_update(None, "journal_size_limit", 16 * 1024 * 1024)?;
    connection.pragma_update(None, "cache_size", -16 * 1024)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "foreign_keys", "OFF")?;
    connection.pragma_update(None, "secure_delete", "FAST")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

pub(super) fn check_is_ours(connection: &Connection, path: &Path, exists: bool) -> Result<(), OpenError> {
    let id = connection.query_row("PRAGMA application_id", [], |row| row.get::<_, i32>(0));
    match id {
        Ok(APPLICATION_ID) => Ok(()),
        Ok(0) if !exists || is_empty(connection) => Ok(()),
        Ok(_) => Err(OpenError::NotAStore(path.to_owned())),
        Err(source) => Err(OpenError::Database { path: path.to_owned(), source }),
    }
}

fn is_empty(connection: &Connection) -> bool {
    connection
        .query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
        .is_ok_and(|n: i64| n == 0)
}

/// Brings the schema to this version in one transaction; a fresh store also gets its secrets in it.
pub(super) fn migrate(connection: &mut Connection, path: &Path, ring: &KeyRing) -> Result<(), OpenError> {
    let run = |connection: &mut Connection| -> rusqlite::Result<bool> {
        let tx = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let version: u32 = tx.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version as usize > MIGRATIONS.len() {
            return Ok(false);
        }
        for (number, sql) in (1..).zip(MIGRATIONS).skip(version as usize) {
            tx.execute_batch(sql)?;
            tx.pragma_update(None, "user_version", number)?;
        }
        if version == 0 {
            tx.pragma_update(None, "application_id", APPLICATION_ID)?;
            let mut fingerprint = zeroize::Zeroizing::new([0; 32]);
            rand::rng().fill_bytes(&mut fingerprint[..]);
            for (name, secret) in [("key_check", KEY_CHECK), ("fingerprint", &fingerprint[..])] {
                let sealed = ring.seal_node_secret(secret);
                tx.execute(
                    "INSERT INTO secret (name, value) VALUES (?1, ?2)",
                    params![name, sealed.as_stored()],
                )?;
            }
        }
        tx.commit()?;
        Ok(true)
    };
    match run(connection) {
        Ok(true) => Ok(()),
        Ok(false) => Err(OpenError::Newer(path.to_owned())),
        Err(source) => Err(OpenError::Database { path: path.to_owned(), source }),
    }
}

pub(super) fn read_secrets(
    connection: &Connection,
    ring: &KeyRing,
    path: &Path,
) -> Result<FingerprintKey, OpenError> {
    let open = |name: &str| {
        let sealed = connection
            .query_row("SELECT value FROM secret WHERE name = ?1", [name], |row| row.get::<_, Vec<u8>>(0))
            .map_err(|source| OpenError::Database { path: path.to_owned(), source })?;
        ring.open_node_secret(Sealed::from_stored(sealed)).map_err(OpenError::WrongKey)
    };
    open("key_check")?;
    let fingerprint = open("fingerprint")?;
    let key = <[u8; 32]>::try_from(&fingerprint[..]).map_err(|_| OpenError::NotAStore(path.to_owned()))?;
    Ok(FingerprintKey::new(key))
}

/// What an opening store found.
pub(super) struct Recovered {
    /// By lane.
    pub upstream_ids: Vec<i64>,
    pub unfinished: u64,
    pub backlog: Backlog,
    pub clock: Clock,
    pub space: Arc<Space>,
    last: Seq,
}

/// Gives every lease back: this process is the only owner, so whoever held them is gone.
pub(super) fn recover(connection: &mut Connection, options: &OpenOptions) -> rusqlite::Result<Recovered> {
    let mark = seen::read(connection)?;
    let last = connection
        .query_row("SELECT max(seq) FROM task", [], |row| row.get::<_, Option<i64>>(0))
        .optional()?
        .flatten()
        .map_or(Seq(0), Seq);
    let clock = options.clock.going_on(mark, last.accepted_at());
    let latest_due = mark.map_or(clock.steady().after(DUE_AT_MOST), |_| NEVER).0;
    let tx = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    // Chunks staged by an attempt that never settled; it held a lease.
    tx.execute("DELETE FROM chunk WHERE kind = 1 AND seq IN (SELECT seq FROM state WHERE lease <> 0)", [])?;
    for table in ["state", "delivery"] {
        tx.execute(
            &format!(
                "UPDATE {table} SET lease = 0, due_at = min(due_at, ?1) WHERE lease <> 0 OR due_at > ?1"
            ),
            [latest_due],
        )?;
    }
    for name in &options.upstreams {
        tx.execute("INSERT INTO upstream (name) VALUES (?1) ON CONFLICT DO NOTHING", [name])?;
    }
    let upstream_ids = options
        .upstreams
        .iter()
        .map(|name| tx.query_row("SELECT id FROM upstream WHERE name = ?1", [name], |row| row.get(0)))
        .collect::<Result<Vec<i64>, _>>()?;
    let unfinished = tx.query_row("SELECT count(*) FROM state", [], |row| row.get::<_, u32>(0))?.into();
    let backlog = Backlog::read(&tx, options.max_queued_per_credentials)?;
    warn_about_unconfigured(&tx, options)?;
    let space = Arc::new(Space::new(options.max_bytes));
    space.look(&tx)?;
    Seen::default().note(&tx, &clock)?;
    tx.commit()?;
    Ok(Recovered { upstream_ids, unfinished, backlog, clock, space, last })
}

/// Tasks of an upstream that left the configuration wait until it comes back.
fn warn_about_unconfigured(connection: &Connection, options: &OpenOptions) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("SELECT id, name FROM upstream")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, name): (i64, String) = (row.get(0)?, row.get(1)?);
        if options.upstreams.contains(&name) {
            continue;
        }
        // Every lease was given back: the index of resting work holds them all.
        let waiting: i64 = connection.query_row(
            "SELECT count(*) FROM state WHERE lease = 0 AND upstream = ?1",
            [id],
            |row| row.get(0),
        )?;
        if waiting > 0 {
            tracing::warn!(
                upstream = name,
                tasks = waiting,
                "tasks wait for an upstream that is not configured"
            );
        }
    }
    Ok(())
}

/// An instant no work is due at.
pub(super) const NEVER: Timestamp = Timestamp::MAX;
