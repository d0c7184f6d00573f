//! A store that is lost, damaged, foreign, newer or read-only: the node says so in one line and ends, and
//! every byte stays as it was.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::edge::{Edge, ReadOnly};
use crate::support::node::{Node, Setup, Task};
use crate::support::peer::Upstream;
use crate::support::reply::Reply;

/// Every file below, but for SQLite's index of the log, which is memory.
fn bytes(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(bytes(&path));
            found.insert(path, Vec::new());
        } else if path.extension().is_none_or(|extension| extension != "db-shm") {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

/// Expects the start to fail with one line that holds `words`, and nothing to change.
async fn refused(setup: &Setup, words: &str) {
    let before = bytes(&setup.data_dir());
    let ended = setup.spawn().ended().await;
    assert_eq!(ended.status.code(), Some(1), "{words}: {:?}", ended.stderr);
    let complaints = ended.complaints();
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].contains(words), "{words}: {complaints:?}");
    assert!(complaints[0].contains("ringback.db"), "it names the file: {complaints:?}");
    assert!(bytes(&setup.data_dir()) == before, "{words}: something was changed");
}

/// A stopped node with so many finished tasks, and one that waits.
async fn stopped(tasks: usize) -> (Upstream, Setup) {
    let (upstream, node) = with_tasks(tasks).await;
    let (setup, _) = node.terminate().await;
    (upstream, setup)
}

async fn with_tasks(tasks: usize) -> (Upstream, Node) {
    let upstream = Upstream::start().await;
    upstream.script("/data/v1/waits", [Reply::new(503)]);
    let node = Setup::new(&upstream).set("upstreams.0.retry.delays", vec!["5m"]).start().await;
    for number in 0..tasks {
        let task: Task = node.submit(node.post(&format!("/{number}?async=true")).body("x".repeat(500))).await;
        node.finished(&task).await;
    }
    let waiting = node.submit(node.get("/waits?async=true")).await;
    upstream.wait_for_calls(tasks + 1).await;
    node.reaches(&waiting, "Queued").await;
    (upstream, node)
}

const PAGE: usize = 8192;

#[tokio::test]
async fn a_damaged_first_page_is_refused() {
    let (_upstream, setup) = stopped(2).await;
    let database = setup.data_dir().join("ringback.db");
    let good = fs::read(&database).unwrap();
    for damage in [0..16, 0..100, 0..PAGE] {
        let mut bad = good.clone();
        bad[damage].fill(0xA5);
        fs::write(&database, bad).unwrap();
        refused(&setup, "is not a Ringback store").await;
    }
    // The list of tables.
    let mut bad = good.clone();
    bad[100..1_000].fill(0xA5);
    fs::write(&database, bad).unwrap();
    refused(&setup, "is damaged").await;
    fs::write(&database, good).unwrap();
    setup.start().await;
}

#[tokio::test]
async fn every_damaged_page_of_a_table_or_index_is_refused() {
    let (_upstream, setup) = stopped(60).await;
    let database = setup.data_dir().join("ringback.db");
    let good = fs::read(&database).unwrap();
    let mut damaged = 0;
    for page in 1..good.len() / PAGE {
        let at = page * PAGE;
        // The kinds of b-tree pages; what lies on overflow pages is sealed and proves itself when read.
        if ![2, 5, 10, 13].contains(&good[at]) {
            continue;
        }
        let mut bad = good.clone();
        bad[at..at + 64].fill(0xA5);
        fs::write(&database, bad).unwrap();
        refused(&setup, "is damaged").await;
        damaged += 1;
    }
    assert!(damaged > 10, "{damaged} pages");
}

#[tokio::test]
async fn a_truncated_store_is_refused() {
    let (_upstream, setup) = stopped(60).await;
    let database = setup.data_dir().join("ringback.db");
    let good = fs::read(&database).unwrap();
    for length in [50, PAGE, PAGE + 17, good.len() / 2, good.len() - PAGE, good.len() - 1] {
        fs::write(&database, &good[..length]).unwrap();
        refused(&setup, if length < 100 { "is not a Ringback store" } else { "is damaged" }).await;
    }
}

#[tokio::test]
async fn a_store_that_is_gone_is_not_silently_begun_anew() {
    let (_upstream, setup) = stopped(1).await;
    let database = setup.data_dir().join("ringback.db");
    let good = fs::read(&database).unwrap();
    fs::write(&database, "").unwrap();
    refused(&setup, "is missing or empty").await;
    fs::remove_file(&database).unwrap();
    refused(&setup, "is missing or empty").await;
    assert!(!database.exists());
    fs::create_dir(&database).unwrap();
    refused(&setup, "is not a file").await;
    fs::remove_dir(&database).unwrap();
    fs::write(&database, good).unwrap();
    setup.start().await;
}

#[tokio::test]
async fn a_log_without_its_database_is_left_alone() {
    let (_upstream, node) = with_tasks(1).await;
    let setup = node.kill9().await;
    let dir = setup.data_dir();
    fs::rename(dir.join("ringback.db"), dir.join("elsewhere")).unwrap();
    fs::remove_file(dir.join("ringback.db.lock")).unwrap();
    let log = fs::read(dir.join("ringback.db-wal")).unwrap();
    assert!(!log.is_empty());
    refused(&setup, "is missing or empty").await;
    fs::rename(dir.join("elsewhere"), dir.join("ringback.db")).unwrap();
    setup.start().await;
}

#[tokio::test]
async fn a_damaged_store_with_a_log_is_refused_and_its_log_kept() {
    let (_upstream, node) = with_tasks(60).await;
    let (setup, _) = node.terminate().await;
    let node = setup.start().await;
    node.submit(node.get("/waits?async=true")).await;
    let setup = node.kill9().await;
    let database = setup.data_dir().join("ringback.db");
    let good = fs::read(&database).unwrap();
    assert!(fs::metadata(setup.data_dir().join("ringback.db-wal")).unwrap().len() > 0);
    fs::write(&database, &good[..good.len() / 2]).unwrap();
    refused(&setup, "is damaged").await;
    fs::write(&database, good).unwrap();
    setup.start().await;
}

#[tokio::test]
async fn somebody_elses_database_and_a_newer_store_are_refused() {
    let (_upstream, setup) = stopped(1).await;
    let database = setup.data_dir().join("ringback.db");
    let sql = |sql: &str| {
        let connection = rusqlite::Connection::open(&database).unwrap();
        connection.execute_batch(&format!("{sql}; PRAGMA wal_checkpoint(TRUNCATE)")).unwrap();
    };
    sql("PRAGMA user_version = 99");
    refused(&setup, "newer version").await;
    sql("PRAGMA application_id = 7");
    refused(&setup, "is not a Ringback store").await;
    fs::remove_file(&database).unwrap();
    sql("CREATE TABLE somebody (elses INTEGER)");
    refused(&setup, "is not a Ringback store").await;
    fs::write(&database, "#!/bin/sh\n".repeat(1_000)).unwrap();
    refused(&setup, "is not a Ringback store").await;
}

#[tokio::test]
async fn a_read_only_store_is_refused() {
    let (_upstream, setup) = stopped(1).await;
    let edge = Edge::new();
    let setup = edge.before(setup);
    edge.read_only(ReadOnly::Database);
    refused(&setup, "cannot write the store").await;
    edge.read_only(ReadOnly::Everything);
    let ended = setup.spawn().ended().await;
    assert_eq!((ended.status.code(), ended.complaints().len()), (Some(1), 1));
    assert!(ended.complaints()[0].contains("cannot use the data directory"), "{:?}", ended.complaints());
}

/// What was acknowledged lies before the cut.
#[tokio::test]
async fn a_log_that_was_cut_short_opens_to_its_last_whole_commit() {
    let (_upstream, node) = with_tasks(5).await;
    let setup = node.kill9().await;
    let log = setup.data_dir().join("ringback.db-wal");
    let whole = fs::read(&log).unwrap();
    fs::write(&log, &whole[..whole.len() - 1_000]).unwrap();
    let node = setup.start().await;
    assert_eq!(crate::support::store::damage(&node.data_dir()), None);
    assert!(node.rows()["task"] >= 5);
}
