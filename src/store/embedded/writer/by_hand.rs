//! For tests: a store whose writer and reads are turned by whoever tests, on its own thread.
//!
//! Everything is the node's own but the disk, which is a database in memory, and the threads. Dropping
//! what is here is a crash: the database, held open by its [`Disk`], stays as the last commit left it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::OpenFlags;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::id::Seq;
use crate::lease::LeaseToken;
use crate::seal::KeyRing;
use crate::store::Store;
use crate::store::embedded::open;
use crate::store::embedded::reader::{Read, Readers};

/// What survives a crash.
pub(crate) struct Disk {
    uri: String,
    /// Keeps the database, and looks at it from outside.
    pub look: Connection,
}

impl Disk {
    /// An empty database.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let uri = format!("file:/by-hand-{}?vfs=memdb", NEXT.fetch_add(1, Ordering::Relaxed));
        let look = connect(&uri);
        look.set_prepared_statement_cache_capacity(64);
        Self { uri, look }
    }

    /// Opens the store as a node that starts, short of files and locks.
    pub fn open(&self, options: &OpenOptions, ring: &KeyRing) -> (Store, ByHand) {
        let mut connection = connect(&self.uri);
        connection.pragma_update(None, "journal_mode", "MEMORY").expect("a database in memory");
        connection.set_prepared_statement_cache_capacity(64);
        let path = Path::new(&self.uri);
        open::migrate(&mut connection, path, ring)
            .map_err(|error| error.to_string())
            .expect("the schema fits");
        let recovered = open::recover(&mut connection, options).expect("a database in memory");
        let (readers, reads) = Readers::by_hand();
        let (shared, writer) = open::join(connection, readers, recovered, options);
        (Store { shared: Arc::new(shared) }, ByHand { writer: Turned(writer), reads: Reads(reads) })
    }
}

fn connect(uri: &str) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(uri, flags).expect("memory is at hand")
}

/// The writer and the reads of an open store.
pub(crate) struct ByHand {
    pub writer: Turned,
    pub reads: Reads,
}

/// The writer without its thread.
pub(crate) struct Turned(Writer);

/// Work the writer has taken and not yet written.
pub(crate) struct Taken(Batch);

impl Taken {
    /// The tasks that operations are about, each with the lease it is done under; a cancellation needs
    /// none.
    pub fn leases(&self) -> Vec<(Seq, Option<LeaseToken>)> {
        let lease_of = |operation: &Operation| match operation {
            Operation::Started { seq, lease, .. }
            | Operation::SettleAttempt { seq, lease, .. }
            | Operation::SettleDelivery { seq, lease, .. }
            | Operation::ReleaseTask { seq, lease, .. }
            | Operation::ReleaseDelivery { seq, lease, .. }
            | Operation::StageChunk { seq, lease, .. } => (*seq, Some(*lease)),
            Operation::Cancel { seq, .. } => (*seq, None),
        };
        self.0.operations.iter().map(lease_of).collect()
    }

    /// The tasks that come into being.
    pub fn accepts(&self) -> Vec<Seq> {
        self.0.accepts.iter().map(|candidate| candidate.accept.task.id.seq()).collect()
    }
}

/// A retention transaction to come.
pub(crate) struct Purging(Purge);

impl Turned {
    /// The next work, if there is any now.
    pub fn take(&mut self) -> Option<Taken> {
        match self.look() {
            Look::Work(batch) => Some(Taken(batch)),
            Look::Sleep(_) | Look::Over => None,
        }
    }

    /// The next work, waiting for it; `None` when the store is closed.
    pub async fn next(&mut self) -> Option<Taken> {
        let inbox = Arc::clone(&self.0.inbox);
        loop {
            match self.look() {
                Look::Work(batch) => return Some(Taken(batch)),
                Look::Over => return None,
                // Woken or not: it looks again.
                Look::Sleep(at_most) => drop(timeout(at_most, inbox.woken.notified()).await),
            }
        }
    }

    fn look(&mut self) -> Look {
        let inbox = Arc::clone(&self.0.inbox);
        self.0.look(&mut inbox.lock())
    }

    /// Writes, answers and hands off. What retention is asked for comes after it.
    pub fn commit(&mut self, Taken(mut batch): Taken) -> Option<Purging> {
        let purge = batch.purge.take();
        self.0.commit(batch);
        purge.map(Purging)
    }

    pub fn purge(&mut self, Purging(purge): Purging) {
        self.0.purge(purge);
    }

    /// Writes, and dies before anybody hears of it. Whoever waits goes on waiting while what this
    /// returns is held.
    pub fn commit_and_die(mut self, taken: Taken) -> Taken {
        let _ = self.0.transact(&taken.0.operations, &taken.0.accepts);
        taken
    }

    /// Whether the last commit failed, as far as callers are concerned.
    pub fn is_failing(&self) -> bool {
        self.0.failing_until.is_some()
    }

    /// As a disk that is full, or no longer is.
    pub fn refuse_writes(&self, refuse: bool) {
        self.0.connection.pragma_update(None, "query_only", refuse).expect("a pragma");
    }
}

/// The questions of gateway and worker.
pub(crate) struct Reads(mpsc::Receiver<Read>);

impl Reads {
    /// The next question, waiting for it; `None` when the store is gone.
    pub async fn next(&mut self) -> Option<Read> {
        self.0.recv().await
    }

    /// The next question, if there is one.
    pub fn take(&mut self) -> Option<Read> {
        self.0.try_recv().ok()
    }
}
