//! How long things are kept, and that they are gone afterwards.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt as _};

use crate::support::eventually;
use crate::support::node::{Node, Setup, Task};
use crate::support::peer::Upstream;
use crate::support::receiver::Receiver;
use crate::support::reply::{Gate, Reply};

#[tokio::test]
async fn results_expire_first_and_then_nothing_is_left() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let node = Setup::new(&upstream)
        .set("upstreams.0.identity.mode", "opaque")
        .set("retention.results", "1s")
        .set("retention.tasks", "6s")
        .start()
        .await;
    let mut tasks: Vec<Task> = Vec::new();
    for number in 0..5 {
        let target = format!("/{number}?{}", receiver.query("/hook"));
        tasks.push(node.submit(node.get(&target).bearer("john").body("x".repeat(1000))).await);
    }
    let known = node.rows().keys().filter(|table| is_of_tasks(table)).count();
    assert!(known >= 5, "the tables of tasks have other names: {:?}", node.rows());
    let status = async |task: &Task, token: &str| node.results(task).bearer(token).send().await;

    eventually("the results expired", async || (status(&tasks[0], "john").await.status == 410).then_some(()))
        .await;
    let expired = status(&tasks[0], "john").await;
    if expired.status == 410 {
        expired.is_refusal(410, "results_expired");
    }
    status(&tasks[0], "jane").await.is_refusal(404, "task_not_found");
    for task in &tasks {
        eventually("the task is gone", async || (status(task, "john").await.status == 404).then_some(()))
            .await;
        status(task, "john").await.is_refusal(404, "task_not_found");
    }
    eventually("the rows are gone", async || {
        node.rows().iter().all(|(table, count)| !is_of_tasks(table) || *count == 0).then_some(())
    })
    .await;
}

/// Tables that hold something for each task.
fn is_of_tasks(table: &str) -> bool {
    ["task", "request", "chunk", "state", "result", "delivery", "attempt"].contains(&table)
}

#[tokio::test]
async fn what_is_not_finished_is_not_removed() {
    let upstream = Upstream::start().await;
    let gate = Gate::closed();
    upstream.always([Reply::ok("done")]);
    upstream.script("/data/v1/slow", [Reply::ok("slow").behind(&gate)]);
    let node =
        Setup::new(&upstream).set("retention.results", "500ms").set("retention.tasks", "1s").start().await;
    let slow = node.submit(node.get("/slow?async=true")).await;
    upstream.wait_for_calls(1).await;
    let quick = node.submit(node.get("/quick?async=true")).await;
    eventually("the later task came and went", async || {
        (node.results(&quick).send().await.status == 404).then_some(())
    })
    .await;
    assert_eq!(node.results(&slow).send().await.status, 202, "its retention has not begun");
    gate.open();
    eventually("the task finished and went", async || {
        (node.results(&slow).send().await.status == 404).then_some(())
    })
    .await;
}

#[tokio::test]
async fn more_than_one_batch_is_removed() {
    let upstream = Upstream::start().await;
    let node =
        Setup::new(&upstream).set("retention.results", "200ms").set("retention.tasks", "2s").start().await;
    for number in 0..600 {
        node.submit(node.get(&format!("/{number}?async=true"))).await;
    }
    eventually("every task is gone", async || (node.rows()["task"] == 0).then_some(())).await;
}

const KB: usize = 1024;
const MB: u64 = 1024 * 1024;

/// Bytes of one answer in the tests of sizes: several pages.
const ANSWER: usize = 20 * KB;

/// The samples of `/metrics` whose name begins with `ringback_retention` or `ringback_store`.
async fn numbers(node: &Node) -> BTreeMap<String, u64> {
    let text =
        String::from_utf8(node.admin("/metrics").send().await.body.to_vec()).expect("metrics are text");
    let samples = text.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix("ringback_")?.rsplit_once(' ')?;
        let is_meant = name.starts_with("retention") || name.starts_with("store");
        is_meant.then(|| (name.to_owned(), value.parse().expect("a count")))
    });
    samples.collect()
}

fn removed(numbers: &BTreeMap<String, u64>, kind: &str, reason: &str) -> u64 {
    let name = format!("retention_removed_total{{kind=\"{kind}\",reason=\"{reason}\"}}");
    numbers.get(&name).copied().unwrap_or(0)
}

fn file_size(node: &Node) -> u64 {
    std::fs::metadata(node.data_dir().join("ringback.db")).expect("the store is a file").len()
}

/// Submits until it is taken; a full store may refuse meanwhile, and nothing else may.
async fn submit_in_the_end(node: &Node, target: &str) -> Task {
    eventually("the call is taken", async || {
        let answer = node.get(target).send().await;
        if answer.status == 503 {
            answer.is_refusal(503, "store_full");
            return None;
        }
        Some(Task::from(&answer))
    })
    .await
}

/// Nothing is removed by size before its bodies and answers could be as large as these.
fn small(setup: Setup, max_bytes: &str) -> Setup {
    setup
        .set("retention.max_bytes", max_bytes)
        .set("retention.results_at_least", "0s")
        .set("server.max_body_bytes", "1MB")
        .set("upstreams.0.max_result_bytes", "1MB")
}

#[tokio::test]
async fn under_constant_load_a_store_stops_growing_when_results_go_by_age() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::ok("x".repeat(ANSWER))]);
    let node =
        Setup::new(&upstream).set("retention.results", "200ms").set("retention.tasks", "200ms").start().await;
    let (rounds, round) = (10, 100);
    for number in 0..rounds {
        let calls = (0..round).map(|call| node.submit(node.get(&format!("/{number}-{call}?async=true"))));
        let taken: Vec<Task> = stream::iter(calls).buffer_unordered(10).collect().await;
        assert_eq!(taken.len(), 100);
        // So at most two rounds are ever there at once.
        eventually("what came before has gone", async || (node.rows()["task"] <= round).then_some(())).await;
    }
    let at_most = 2 * u64::try_from(round).expect("a count") * (ANSWER as u64 + 12 * KB as u64);
    let passed_through = rounds * 100 * ANSWER as u64;
    assert!(2 * at_most < passed_through, "the test asks too little");
    assert!(file_size(&node) <= at_most, "{} bytes, not {at_most}", file_size(&node));
    eventually("every task is gone", async || (node.rows()["task"] == 0).then_some(())).await;
    let numbers = numbers(&node).await;
    assert_eq!(removed(&numbers, "results", "age"), rounds * 100);
    assert_eq!(removed(&numbers, "tasks", "age"), rounds * 100);
    assert_eq!(removed(&numbers, "tasks", "size"), 0);
    assert!(numbers["retention_removed_bytes_total{reason=\"age\"}"] > passed_through / 2, "{numbers:?}");
    let (live, free) = (numbers["store_bytes{kind=\"live\"}"], numbers["store_bytes{kind=\"free\"}"]);
    // Pages that are still in the write-ahead log only are not in the file yet.
    assert!((file_size(&node)..=at_most).contains(&(live + free)), "{numbers:?}");
    assert!(free > live && numbers["store_bytes{kind=\"wal\"}"] > 0, "{numbers:?}");
}

#[tokio::test]
async fn under_constant_load_a_store_keeps_to_its_bytes_and_goes_on_accepting() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    upstream.always([Reply::ok("x".repeat(ANSWER))]);
    let node = small(Setup::new(&upstream), "4MB").start().await;
    let mut tasks = Vec::new();
    let mut largest = 0;
    for number in 0..6 {
        let targets: Vec<String> =
            (0..100).map(|call| format!("/{number}-{call}?{}", receiver.query("/hook"))).collect();
        let calls = targets.iter().map(|target| submit_in_the_end(&node, target));
        tasks.extend(stream::iter(calls).buffered(10).collect::<Vec<_>>().await);
        receiver.wait_for(tasks.len()).await;
        largest = largest.max(file_size(&node));
    }
    // Answers of calls accepted before the bound was met are stored whatever it says.
    assert!(largest <= 4 * MB + MB, "{largest} bytes");
    assert!(600 * ANSWER as u64 > 2 * largest, "the test asks too little");
    eventually("enough was removed", async || {
        let numbers = numbers(&node).await;
        (numbers["store_bytes{kind=\"live\"}"] <= 4 * MB * 95 / 100).then_some(())
    })
    .await;
    let numbers = numbers(&node).await;
    let gone = removed(&numbers, "tasks", "size");
    assert!(gone > 300 && gone < 600, "{numbers:?}");
    assert_eq!(removed(&numbers, "results", "size"), gone);
    assert_eq!(numbers["store_max_bytes"], 4 * MB);
    assert_eq!(node.rows()["result"], 600 - i64::try_from(gone).expect("a count"));
    let (first, last) = (&tasks[0], &tasks[599]);
    node.results(first).send().await.is_refusal(404, "task_not_found");
    assert_eq!(node.results(last).send().await.body.len(), ANSWER);
}

#[tokio::test]
async fn a_full_store_keeps_what_is_owed_refuses_calls_and_takes_them_again_later() {
    let (upstream, receiver, gate) = (Upstream::start().await, Receiver::start().await, Gate::closed());
    upstream.always([Reply::ok("x".repeat(ANSWER))]);
    receiver.answers([Reply::ok("").behind(&gate)]);
    let node = small(Setup::new(&upstream), "2MB").set("webhooks.timeout", "60s").start().await;
    let target = format!("/x?{}", receiver.query("/hook"));
    let mut tasks = Vec::new();
    let refused = eventually("the store is full", async || {
        let answer = node.get(&target).send().await;
        if answer.status == 202 {
            let task = Task::from(&answer);
            node.finished(&task).await;
            tasks.push(task);
            return None;
        }
        Some(answer)
    })
    .await;
    refused.is_refusal(503, "store_full");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(tasks.len() > 50, "{}", tasks.len());
    assert_eq!(node.get("/y").send().await.status, 200, "a call that stores nothing goes on");
    for task in &tasks {
        assert_eq!(node.results(task).send().await.body.len(), ANSWER, "its webhook is owed");
    }
    gate.open();
    receiver.wait_for(tasks.len()).await;
    let task = submit_in_the_end(&node, &target).await;
    assert_eq!(node.finished(&task).await.body.len(), ANSWER);
}

#[tokio::test]
async fn size_takes_no_result_before_it_could_be_read() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::ok("x".repeat(ANSWER))]);
    let node = small(Setup::new(&upstream), "1MB").set("retention.results_at_least", "10m").start().await;
    let mut tasks = Vec::new();
    eventually("the store is full", async || {
        let answer = node.get("/x?async=true").send().await;
        if answer.status == 202 {
            let task = Task::from(&answer);
            node.finished(&task).await;
            tasks.push(task);
            return None;
        }
        answer.is_refusal(503, "store_full");
        Some(())
    })
    .await;
    for task in &tasks {
        assert_eq!(node.results(task).send().await.body.len(), ANSWER);
    }
}
