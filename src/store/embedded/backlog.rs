//! How many unfinished tasks each caller has, so that nobody fills the node alone.
//!
//! Kept in memory by the writer and read once at opening: a caller with nothing unfinished takes no
//! room. The count is what is committed, neither more nor less.

use std::collections::HashMap;

use aws_lc_rs::digest::{Context, SHA256};
use rusqlite::Connection;

use crate::id::{KeyHash, Seq};

/// One credentials id at one upstream, as a hash; 0 for nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Owner(pub i64);

impl Owner {
    /// The first 64 bits of SHA-256: two callers that share a count are not found by trying.
    pub fn of(upstream: i64, credentials_id: &str) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(&upstream.to_be_bytes());
        hash.update(credentials_id.as_bytes());
        let first = hash.finish().as_ref().first_chunk().copied().expect("SHA-256 is 32 bytes");
        Self(i64::from_be_bytes(first))
    }
}

/// What the writer knows of a task under a lease.
#[derive(Clone, Copy)]
pub(super) struct Held {
    pub owner: Owner,
    /// Its request may have chunks beside its row.
    pub has_chunks: bool,
}

/// The tasks under a lease: their settle need not look up what is known of them.
#[derive(Default)]
pub(super) struct Leased {
    tasks: HashMap<Seq, Held, KeyHash>,
}

impl Leased {
    pub fn insert(&mut self, seq: Seq, held: Held) {
        self.tasks.insert(seq, held);
    }

    /// The task was settled or given back.
    pub fn remove(&mut self, seq: Seq) {
        self.tasks.remove(&seq);
    }

    pub fn get(&self, seq: Seq) -> Option<Held> {
        self.tasks.get(&seq).copied()
    }
}

/// Unfinished tasks by owner.
#[derive(Default)]
pub(super) struct Backlog {
    counts: HashMap<Owner, u64, KeyHash>,
    limit: u64,
}

/// What is left to each caller while a batch is put together.
pub(super) struct Room<'b> {
    backlog: &'b Backlog,
    taken: HashMap<Owner, u64, KeyHash>,
}

impl Backlog {
    pub fn read(connection: &Connection, limit: u64) -> rusqlite::Result<Self> {
        let mut select = connection.prepare("SELECT owner, count(*) FROM state GROUP BY owner")?;
        let counts = select
            .query_map([], |row| Ok((Owner(row.get(0)?), u64::from(row.get::<_, u32>(1)?))))?
            .collect::<Result<_, _>>()?;
        Ok(Self { counts, limit })
    }

    pub fn room(&self) -> Room<'_> {
        Room { backlog: self, taken: HashMap::default() }
    }

    pub fn add(&mut self, owner: Owner) {
        *self.counts.entry(owner).or_default() += 1;
    }

    pub fn remove(&mut self, owner: Owner) {
        if let Some(count) = self.counts.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&owner);
            }
        }
    }
}

impl Room<'_> {
    /// Takes a place for one more task. `false`: there is none.
    pub fn take(&mut self, owner: Owner) -> bool {
        let taken = self.taken.entry(owner).or_default();
        let has_room = self.backlog.counts.get(&owner).copied().unwrap_or(0) + *taken < self.backlog.limit;
        *taken += u64::from(has_room);
        has_room
    }
}
