//! `ringback compact`: space goes back to the disk, and nothing else changes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use http::Method;
use rusqlite::Connection;

use crate::support::node::{Setup, Task};
use crate::support::peer::Upstream;
use crate::support::process::{Ended, run};
use crate::support::reply::Reply;
use crate::support::store;

const ANSWER: usize = 20_000;

async fn compact(setup: &Setup) -> Ended {
    let config = setup.config_file().display().to_string();
    run(&["compact", "--config", &config]).await
}

/// A stopped node whose store is nearly empty and large all the same, and the task it still has.
async fn mostly_free(upstream: &Upstream) -> (Setup, Task) {
    upstream.always([Reply::ok("x".repeat(ANSWER))]);
    let node = Setup::new(upstream).start().await;
    let kept = node.submit(node.get("/kept?async=true")).await;
    node.finished(&kept).await;
    let mut tasks = Vec::new();
    for number in 0..40 {
        tasks.push(node.submit(node.get(&format!("/{number}?async=true"))).await);
    }
    for task in &tasks {
        node.finished(task).await;
    }
    for task in &tasks {
        assert_eq!(node.call(Method::DELETE, task.path()).send().await.status, 204);
    }
    (node.terminate().await.0, kept)
}

#[tokio::test]
async fn compacting_gives_free_space_back_and_keeps_everything() {
    let upstream = Upstream::start().await;
    let (setup, kept) = mostly_free(&upstream).await;
    let file = setup.data_dir().join("ringback.db");
    let (size, content) = (fs::metadata(&file).unwrap().len(), store::content(&setup.data_dir()));
    let leftover = setup.data_dir().join("ringback.db.compact");
    fs::write(&leftover, "of a run that was cut off").unwrap();

    let ended = compact(&setup).await;
    assert!(ended.status.success(), "{:?}", ended.stderr);
    assert!(ended.stdout.join("\n").contains("went back to the disk"), "{:?}", ended.stdout);
    let compacted = fs::metadata(&file).unwrap();
    assert!(compacted.len() < size / 2, "{size} and then {}", compacted.len());
    assert_eq!(compacted.permissions().mode() & 0o777, 0o600);
    assert!(!leftover.exists());
    assert_eq!(store::content(&setup.data_dir()), content);

    let node = setup.start().await;
    assert_eq!(node.results(&kept).send().await.body.len(), ANSWER);
    let task = node.submit(node.get("/new?async=true")).await;
    assert_eq!(node.finished(&task).await.body.len(), ANSWER);
}

#[tokio::test]
async fn a_store_that_somebody_else_reads_is_not_replaced() {
    let upstream = Upstream::start().await;
    let (setup, kept) = mostly_free(&upstream).await;
    let file = setup.data_dir().join("ringback.db");
    let size = fs::metadata(&file).unwrap().len();
    let other = Connection::open(&file).unwrap();
    other.execute_batch("BEGIN; SELECT count(*) FROM task").unwrap();

    let ended = compact(&setup).await;
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.join("\n").contains("another process"), "{:?}", ended.stderr);
    assert_eq!(fs::metadata(&file).unwrap().len(), size);
    assert!(!setup.data_dir().join("ringback.db.compact").exists());

    drop(other);
    let node = setup.start().await;
    assert_eq!(node.results(&kept).send().await.body.len(), ANSWER);
}
