//! What an opening store refuses.

use super::*;

#[test]
fn a_store_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    assert!(matches!(Store::open(&options(dir.path())), Err(OpenError::InUse(_))));
    opened.store.close();
    assert!(Store::open(&options(dir.path())).is_ok());
}

#[test]
fn a_database_in_use_is_refused_whatever_the_data_directory() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let opened = open(dir.path());
    std::fs::copy(dir.path().join("ringback.keys"), other.path().join("ringback.keys")).unwrap();
    let database = Some(dir.path().join("ringback.db"));
    let elsewhere = || OpenOptions { database: database.clone(), ..options(other.path()) };
    assert!(matches!(Store::open(&elsewhere()), Err(OpenError::InUse(_))));
    opened.store.close();
    assert!(Store::open(&elsewhere()).is_ok());
}

/// Opens, expects a refusal, and checks that the database file was not touched.
fn refused(dir: &Path) -> OpenError {
    let database = dir.join("ringback.db");
    let before = std::fs::read(&database).unwrap();
    let error = Store::open(&options(dir)).map(|_| ()).unwrap_err();
    assert_eq!(std::fs::read(&database).unwrap(), before, "{error}");
    error
}

#[test]
fn a_wrong_or_missing_key_is_refused_and_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).store.close();
    let keys = dir.path().join("ringback.keys");
    let good = std::fs::read(&keys).unwrap();
    std::fs::write(&keys, "1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").unwrap();
    assert!(matches!(refused(dir.path()), OpenError::WrongKey(_)));
    std::fs::remove_file(&keys).unwrap();
    assert!(matches!(refused(dir.path()), OpenError::KeyFile(_)));
    assert!(!keys.exists(), "no key is made for a store that has one");
    std::fs::write(&keys, good).unwrap();
    assert!(Store::open(&options(dir.path())).is_ok());
}

#[test]
fn a_foreign_a_newer_and_a_damaged_file_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).store.close();
    let database = dir.path().join("ringback.db");
    let set = |pragma: &str| {
        let connection = rusqlite::Connection::open(&database).unwrap();
        connection.execute_batch(&format!("PRAGMA {pragma}; PRAGMA wal_checkpoint(TRUNCATE);")).unwrap();
    };
    set("user_version = 99");
    assert!(matches!(refused(dir.path()), OpenError::Newer(_)));
    set("application_id = 7");
    assert!(matches!(refused(dir.path()), OpenError::NotAStore(_)));
    std::fs::remove_file(&database).unwrap();
    let foreign = rusqlite::Connection::open(&database).unwrap();
    foreign.execute_batch("CREATE TABLE somebody (elses INTEGER)").unwrap();
    drop(foreign);
    assert!(matches!(refused(dir.path()), OpenError::NotAStore(_)));
    std::fs::write(&database, [7; 9000]).unwrap();
    assert!(matches!(refused(dir.path()), OpenError::NotAStore(_)));
}
