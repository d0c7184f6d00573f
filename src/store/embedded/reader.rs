//! Threads that read: each with a connection of its own, so that reading never waits for writing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, oneshot};

use crate::store::StoreError;

const THREADS: usize = 2;

/// Reads waiting for one thread; further callers wait their turn.
const WAITING_MAX: usize = 256;

pub(crate) type Read = Box<dyn FnOnce(&Connection) + Send>;

pub(super) struct Readers {
    threads: Vec<mpsc::Sender<Read>>,
    turn: AtomicUsize,
}

impl Readers {
    pub fn start(path: &Path) -> rusqlite::Result<Self> {
        let threads = (0..THREADS).map(|_| start_one(path)).collect::<Result<_, _>>()?;
        Ok(Self { threads, turn: AtomicUsize::new(0) })
    }

    /// Reads that the test runs itself, where and when it likes.
    #[cfg(test)]
    pub fn by_hand() -> (Self, mpsc::Receiver<Read>) {
        let (sender, jobs) = mpsc::channel(WAITING_MAX);
        (Self { threads: vec![sender], turn: AtomicUsize::new(0) }, jobs)
    }

    /// Runs `read` on a reader thread, or drops it when there is no room for it.
    pub fn try_start(&self, read: Read) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.threads.len();
        let _ = self.threads[turn].try_send(read);
    }

    /// Runs `read` on a reader thread.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.threads.len();
        let job: Read = Box::new(move |connection| {
            // A caller that went away no longer wants its answer.
            let _ = reply.send(read(connection));
        });
        self.threads[turn].send(job).await.map_err(|_| StoreError::Unavailable)?;
        match answer.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                tracing::error!(error = %error, "a read failed");
                Err(StoreError::Unavailable)
            }
            Err(_) => Err(StoreError::Unavailable),
        }
    }
}

fn start_one(path: &Path) -> rusqlite::Result<mpsc::Sender<Read>> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE,
    )?;
    connection.pragma_update(None, "cache_size", -4 * 1024)?;
    connection.set_prepared_statement_cache_capacity(16);
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    #[cfg(test)]
    traced::start(&connection);
    let (sender, mut jobs) = mpsc::channel::<Read>(WAITING_MAX);
    std::thread::Builder::new()
        .name(String::from("store-reader"))
        .spawn(move || {
            while let Some(job) = jobs.blocking_recv() {
                // A read that panics answers nobody; the thread goes on with the others.
                let _ = catch_unwind(AssertUnwindSafe(|| job(&connection)));
            }
        })
        .map_err(|_| rusqlite::Error::InvalidQuery)?;
    Ok(sender)
}

/// For tests: every statement that any reader runs, with its parameters filled in.
#[cfg(test)]
pub(crate) mod traced {
    use std::sync::{Mutex, PoisonError};

    use rusqlite::Connection;
    use rusqlite::trace::{TraceEvent, TraceEventCodes};

    static STATEMENTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

    pub(super) fn start(connection: &Connection) {
        connection.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(note));
    }

    fn note(event: TraceEvent<'_>) {
        if let TraceEvent::Stmt(statement, _) = event {
            let text = statement.expanded_sql().unwrap_or_default();
            STATEMENTS.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        }
    }

    /// The statements that mention `word`, in order.
    pub(crate) fn with(word: &str) -> Vec<String> {
        let statements = STATEMENTS.lock().unwrap_or_else(PoisonError::into_inner);
        statements.iter().filter(|text| text.contains(word)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_read_that_panics_fails_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE one (id INTEGER)").unwrap();
        let readers = Readers::start(&path).unwrap();
        for _ in 0..THREADS {
            assert!(readers.read::<()>(|_| panic!("as if by a defect")).await.is_err());
        }
        for _ in 0..THREADS {
            assert!(readers.read(|_| Ok(())).await.is_ok());
        }
    }
}
