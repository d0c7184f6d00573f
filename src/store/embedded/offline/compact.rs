//! Gives free pages back to the disk: the store is written anew beside itself and takes its own place.
//!
//! The old file is whole until the new one is on stable storage; then one rename puts it in its place. An
//! interrupted run leaves the old store, and a file that the next run removes.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::super::open::{OpenError, beside, private};
use super::OfflineStore;

/// Sizes of the file in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    pub before: u64,
    pub after: u64,
}

impl OfflineStore {
    /// Writes the store anew without its free pages.
    ///
    /// # Errors
    /// There is no room for the new file beside the old one, or one of them cannot be read or written. The
    /// store is as it was.
    pub fn compact(self) -> Result<Compacted, OpenError> {
        let (path, copy) = (self.path.clone(), beside(&self.path, ".compact"));
        let before = size(&path)?;
        // With its log empty, the file alone is the store.
        self.empty_log()?;
        let Self { connection, path: _, ring: _, _locks: locks } = self;
        let written = write(&connection, &copy);
        drop(connection);
        // The last connection removes the log. Somebody else's would be replayed into the new file.
        let others = beside(&path, "-wal").exists();
        let written =
            written.and_then(|()| if others { Err(OpenError::InUse(path.clone())) } else { Ok(()) });
        if let Err(error) = written {
            // It holds nothing that the store has not.
            let _ = fs::remove_file(&copy);
            return Err(error);
        }
        let replaced = fs::rename(&copy, &path).and_then(|()| sync_directory(&path));
        replaced.map_err(|source| OpenError::File { path: path.clone(), source })?;
        let after = size(&path)?;
        drop(locks);
        Ok(Compacted { before, after })
    }
}

fn write(connection: &Connection, copy: &Path) -> Result<(), OpenError> {
    let failed = |source: io::Error| OpenError::File { path: copy.to_owned(), source };
    match fs::remove_file(copy) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let file = private(copy).map_err(failed)?;
    connection
        .execute("VACUUM INTO ?1", [copy.to_string_lossy()])
        .map_err(|source| OpenError::Database { path: copy.to_owned(), source })?;
    file.sync_all().map_err(failed)
}

/// A rename is only as lasting as the directory it is written in.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.map_or_else(|| PathBuf::from("."), Path::to_owned))?.sync_all()
}

fn size(path: &Path) -> Result<u64, OpenError> {
    let size = fs::metadata(path).map(|file| file.len());
    size.map_err(|source| OpenError::File { path: path.to_owned(), source })
}
