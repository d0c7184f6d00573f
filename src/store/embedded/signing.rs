//! The webhook keys in the store: one sealed row, so that they change as a whole.

use rand::Rng as _;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use zeroize::Zeroizing;

use super::Store;
use super::open::OpenError;
use crate::clock::Timestamp;
use crate::seal::{KeyRing, Sealed};
use crate::signing::{Generation, SigningKeys};
use crate::store::StoreError;

const NAME: &str = "webhook_keys";

const SELECT: &str = "SELECT value FROM secret WHERE name = ?1";

impl Store {
    /// The webhook keys as stored; another process may have changed them.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn signing_keys(&self) -> Result<Sealed, StoreError> {
        self.shared
            .readers
            .read(|connection| connection.query_row(SELECT, [NAME], |row| row.get(0)))
            .await
            .map(Sealed::from_stored)
    }
}

/// The keys; a store that has none yet gets its first.
pub(super) fn read_or_make(
    connection: &mut Connection,
    ring: &KeyRing,
    now: Timestamp,
    path: &std::path::Path,
) -> Result<SigningKeys, OpenError> {
    change(connection, ring, path, |found| match found {
        Some(_) => Ok(None),
        None => Ok(Some(SigningKeys::first(fresh(now)))),
    })
}

/// The keys as they are.
pub(super) fn read(
    connection: &Connection,
    ring: &KeyRing,
    path: &std::path::Path,
) -> Result<SigningKeys, OpenError> {
    let sealed = connection
        .query_row(SELECT, [NAME], |row| row.get(0))
        .map_err(|source| OpenError::Database { path: path.to_owned(), source })?;
    open(ring, Sealed::from_stored(sealed))
}

/// A generation of fresh keys.
pub(super) fn fresh(now: Timestamp) -> Generation {
    let (mut secret, mut seed) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
    rand::rng().fill_bytes(&mut secret[..]);
    rand::rng().fill_bytes(&mut seed[..]);
    Generation::new(now, &secret, &seed)
}

/// Reads the keys and writes what `decide` makes of them, in one transaction; `None` leaves them. The
/// keys as they are then.
pub(super) fn change(
    connection: &mut Connection,
    ring: &KeyRing,
    path: &std::path::Path,
    decide: impl FnOnce(Option<&SigningKeys>) -> Result<Option<SigningKeys>, OpenError>,
) -> Result<SigningKeys, OpenError> {
    let database = |source| OpenError::Database { path: path.to_owned(), source };
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(database)?;
    let stored = tx.query_row(SELECT, [NAME], |row| row.get(0)).optional().map_err(database)?;
    let found = stored.map(|sealed| open(ring, Sealed::from_stored(sealed))).transpose()?;
    let Some(new) = decide(found.as_ref())? else {
        return found.ok_or_else(|| OpenError::Missing(path.into()));
    };
    let sealed = ring.seal_node_secret(new.to_stored().as_bytes());
    tx.execute(
        "INSERT OR REPLACE INTO secret (name, value) VALUES (?1, ?2)",
        params![NAME, sealed.as_stored()],
    )
    .map_err(database)?;
    tx.commit().map_err(database)?;
    Ok(new)
}

fn open(ring: &KeyRing, sealed: Sealed) -> Result<SigningKeys, OpenError> {
    let opened = ring.open_node_secret(sealed).map_err(OpenError::WrongKey)?;
    Ok(SigningKeys::from_stored(&opened)?)
}
