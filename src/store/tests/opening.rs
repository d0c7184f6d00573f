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

/// A clock that says it is 1970, as a machine's does when its battery is empty.
fn without_a_date() -> Clock {
    Clock::by(|| Timestamp(1_000_000))
}

/// A store whose one task rests for a year; opened again by a machine without a date. Says when the task was
/// accepted, for how long it rests from then on, and the new clock.
async fn opened_without_a_date(between: &str) -> (Timestamp, Duration, Clock) {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let id = opened.accept().await;
    let task = opened.next().await;
    let year = Duration::from_hours(365 * 24);
    opened.retry(&task, opened.clock.steady().after(year)).await;
    opened.store.close();
    let database = || rusqlite::Connection::open(dir.path().join("ringback.db")).unwrap();
    database().execute_batch(between).unwrap();
    let (store, _, _) = Store::open(&OpenOptions { clock: without_a_date(), ..options(dir.path()) }).unwrap();
    store.close();
    let due_at =
        database().query_row("SELECT due_at FROM state", [], |row| row.get(0)).map(Timestamp).unwrap();
    let clock = store.clock();
    (id.seq().accepted_at(), clock.steady().until(due_at), clock)
}

#[tokio::test]
async fn a_long_rest_is_not_cut_short_by_a_start() {
    let (_, rests, _) = opened_without_a_date("").await;
    assert!(rests > Duration::from_hours(364 * 24), "{rests:?}");
}

#[tokio::test]
async fn a_store_that_kept_no_clock_starts_no_earlier_than_its_newest_task_and_rests_a_day_at_most() {
    let (accepted, rests, clock) = opened_without_a_date("DELETE FROM clock").await;
    assert!(clock.steady() >= accepted);
    assert!(rests <= Duration::from_hours(24), "{rests:?}");
}

#[tokio::test]
async fn a_clean_end_keeps_what_both_clocks_said() {
    use std::sync::atomic::{AtomicI64, Ordering};
    static DATE: AtomicI64 = AtomicI64::new(1_700_000_000_000);
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let clock = Clock::by(|| Timestamp(DATE.load(Ordering::SeqCst)));
        Store::open(&OpenOptions { clock, ..options(dir.path()) }).unwrap().0
    };
    let store = open();
    let began = store.clock().steady();
    // Set ahead while nothing is written.
    DATE.fetch_add(1 << 40, Ordering::SeqCst);
    store.close();
    let later = open().clock().steady();
    assert!(began.until(later) < Duration::from_hours(1), "{:?}", began.until(later));
}
