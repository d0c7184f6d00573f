//! How long things are kept, and that they are gone afterwards.

use crate::support::eventually;
use crate::support::node::{Setup, Task};
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
