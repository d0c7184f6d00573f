//! Killed without warning, at every point of a task's life.
//!
//! After each: how the task ended, how often the upstream was called, how often the webhook came.

use std::collections::HashSet;

use crate::support::node::{Node, PREFIX, Setup, Task};
use crate::support::peer::Upstream;
use crate::support::receiver::Receiver;
use crate::support::reply::{Gate, Reply};
use crate::support::{eventually, store};

async fn submit(node: &Node, receiver: &Receiver, path: &str) -> Task {
    node.submit(node.get(&format!("{path}?{}", receiver.query("/hook")))).await
}

async fn succeeded(node: &Node, task: &Task) {
    assert_eq!(node.finished(task).await.header("ringback-status"), Some("Succeeded"));
}

fn calls(upstream: &Upstream, path: &str) -> usize {
    upstream.calls_of(&format!("{PREFIX}{path}")).len()
}

#[tokio::test]
async fn killed_while_accepted_a_task_is_run_once() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let gate = Gate::closed();
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = Setup::new(&upstream).set("upstreams.0.concurrency", 1).start().await;
    submit(&node, &receiver, "/ahead").await;
    upstream.wait_for_calls(1).await;
    let task = submit(&node, &receiver, "/waiting").await;
    node.reaches(&task, "Queued").await;

    let setup = node.kill9().await;
    gate.open();
    let node = setup.start().await;

    succeeded(&node, &task).await;
    receiver.wait_for_task(&task.id, 1).await;
    assert_eq!(calls(&upstream, "/waiting"), 1);
    settled(&node, &receiver).await;
    assert_eq!(receiver.tries_for(&task.id).len(), 1);
}

#[tokio::test]
async fn killed_while_accepted_an_unsafe_task_is_run_once() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let gate = Gate::closed();
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = Setup::new(&upstream).set("upstreams.0.concurrency", 1).start().await;
    submit(&node, &receiver, "/ahead").await;
    upstream.wait_for_calls(1).await;
    let call = node.post(&format!("/waiting?{}", receiver.query("/hook"))).body("pay");
    let task = node.submit(call).await;

    let setup = node.kill9().await;
    gate.open();
    let node = setup.start().await;

    succeeded(&node, &task).await;
    let calls = upstream.calls_of(&format!("{PREFIX}/waiting"));
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].body, b"pay");
    receiver.wait_for_task(&task.id, 1).await;
}

#[tokio::test]
async fn killed_while_running_a_safe_task_is_run_again() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let gate = Gate::closed();
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = Node::start(&upstream).await;
    let task = submit(&node, &receiver, "/x").await;
    upstream.wait_for_calls(1).await;
    node.reaches(&task, "Running").await;

    let setup = node.kill9().await;
    gate.open();
    let node = setup.start().await;

    succeeded(&node, &task).await;
    assert_eq!(calls(&upstream, "/x"), 2);
    receiver.wait_for_task(&task.id, 1).await;
    settled(&node, &receiver).await;
    assert_eq!(receiver.tries_for(&task.id).len(), 1);
}

#[tokio::test]
async fn killed_while_running_an_unsafe_task_ends_unknown_and_is_not_sent_again() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let gate = Gate::closed();
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = Node::start(&upstream).await;
    let call = node.post(&format!("/x?{}", receiver.query("/hook"))).body("pay");
    let task = node.submit(call).await;
    upstream.wait_for_calls(1).await;

    let setup = node.kill9().await;
    gate.open();
    let node = setup.start().await;

    let failed = node.failed(&task).await;
    assert_eq!(failed["error"], "outcome_unknown");
    assert_eq!(failed["error_details"]["reason"], "interrupted");
    assert_eq!(failed["error_details"]["outcome"], "unknown");
    let webhook = receiver.wait_for_task(&task.id, 1).await.remove(0).json();
    assert_eq!(
        (webhook["status"].as_str(), webhook["error"].as_str()),
        (Some("Failed"), Some("outcome_unknown"))
    );
    settled(&node, &receiver).await;
    assert_eq!(calls(&upstream, "/x"), 1);
    assert_eq!(receiver.tries_for(&task.id).len(), 1);
}

#[tokio::test]
async fn killed_while_running_an_unsafe_task_is_run_again_where_the_upstream_takes_it_twice() {
    let upstream = Upstream::start().await;
    let gate = Gate::closed();
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = Setup::new(&upstream).set("upstreams.0.idempotency", "always").start().await;
    let task = node.submit(node.post("/x?async=true").body("pay")).await;
    upstream.wait_for_calls(1).await;

    let setup = node.kill9().await;
    gate.open();
    let node = setup.start().await;

    succeeded(&node, &task).await;
    assert_eq!(calls(&upstream, "/x"), 2);
}

#[tokio::test]
async fn killed_between_retries_a_task_goes_on_where_it_was() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    upstream.always([Reply::new(503), Reply::new(503)]);
    let setup = Setup::new(&upstream).set("upstreams.0.retry.delays", vec!["20ms", "4s", "20ms"]);
    let node = setup.start().await;
    let task = submit(&node, &receiver, "/x").await;
    upstream.wait_for_calls(2).await;
    node.reaches(&task, "Queued").await;

    let node = node.kill9().await.start().await;

    let failed = node.failed(&task).await;
    assert_eq!(failed["error_details"]["reason"], "retries_exhausted");
    assert_eq!(failed["error_details"]["attempts"], 4);
    assert_eq!(calls(&upstream, "/x"), 4, "attempts are counted across the restart");
    receiver.wait_for_task(&task.id, 1).await;
    settled(&node, &receiver).await;
    assert_eq!(receiver.tries_for(&task.id).len(), 1);
}

#[tokio::test]
async fn killed_with_its_result_stored_a_task_is_announced_and_not_run_again() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let gate = Gate::closed();
    receiver.answers([Reply::new(204).bodyless().behind(&gate)]);
    let node = Setup::new(&upstream).set("webhooks.concurrency", 1).start().await;
    let ahead = submit(&node, &receiver, "/ahead").await;
    receiver.wait_for(1).await;
    let task = submit(&node, &receiver, "/waiting").await;
    succeeded(&node, &task).await;
    assert_eq!(receiver.tries_for(&task.id).len(), 0);

    let setup = node.kill9().await;
    gate.open();
    let node = setup.start().await;

    receiver.wait_for_task(&task.id, 1).await;
    let repeated = receiver.wait_for_task(&ahead.id, 2).await;
    succeeded(&node, &task).await;
    assert_eq!((calls(&upstream, "/ahead"), calls(&upstream, "/waiting")), (1, 1));
    settled(&node, &receiver).await;
    assert_eq!(receiver.tries_for(&task.id).len(), 1);
    assert_eq!(receiver.tries_for(&ahead.id).len(), 2);
    let ids: HashSet<_> = repeated.iter().map(|received| received.header("webhook-id")).collect();
    assert_eq!(ids.len(), 1, "a receiver can drop the repeat by webhook-id");
}

#[tokio::test]
async fn killed_between_deliveries_a_task_keeps_count_of_its_tries() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let gate = Gate::closed();
    receiver.answers([Reply::new(500).behind(&gate)]);
    let setup =
        Setup::new(&upstream).set("webhooks.delays", vec!["4s", "20ms", "20ms", "20ms", "20ms", "20ms"]);
    let node = setup.start().await;
    let task = submit(&node, &receiver, "/x").await;
    receiver.wait_for(1).await;
    let before = store::content(&node.data_dir());
    gate.open();
    eventually("the refused try was settled", async || {
        (store::content(&node.data_dir()) != before).then_some(())
    })
    .await;

    let node = node.kill9().await.start().await;

    receiver.wait_for_task(&task.id, 7).await;
    settled(&node, &receiver).await;
    assert_eq!(
        receiver.tries_for(&task.id).len(),
        7,
        "one try and six retries, whatever happens between them"
    );
    assert_eq!(calls(&upstream, "/x"), 1);
}

#[tokio::test]
async fn killed_during_a_delivery_only_that_try_is_repeated() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let gate = Gate::closed();
    let refused = Reply::new(500);
    receiver.answers([refused.clone(), refused.clone(), refused.clone().behind(&gate), refused]);
    let node = Node::start(&upstream).await;
    let task = submit(&node, &receiver, "/x").await;
    receiver.wait_for(3).await;

    let setup = node.kill9().await;
    gate.open();
    let node = setup.start().await;

    receiver.wait_for_task(&task.id, 8).await;
    settled(&node, &receiver).await;
    assert_eq!(receiver.tries_for(&task.id).len(), 8, "seven tries, and the one that was in flight again");
}

#[tokio::test]
async fn killed_again_and_again_nothing_accepted_is_lost() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let mut setup = Setup::new(&upstream);
    let mut tasks = Vec::new();
    for round in 0..4 {
        let node = setup.start().await;
        for number in 0..25 {
            tasks.push(submit(&node, &receiver, &format!("/{round}/{number}")).await);
        }
        setup = node.kill9().await;
    }
    let node = setup.start().await;
    for task in &tasks {
        succeeded(&node, task).await;
        receiver.wait_for_task(&task.id, 1).await;
    }
    for call in upstream.calls() {
        let times = upstream.calls_of(call.path()).len();
        assert!(times <= 5, "{} was called {times} times in five lives", call.path());
    }
}

/// Waits until a whole later life, its seven webhook tries included, is over: by then whatever
/// was still to come for earlier tasks has come.
async fn settled(node: &Node, receiver: &Receiver) {
    receiver.answers([Reply::new(500)]);
    let task = submit(node, receiver, "/later").await;
    receiver.wait_for_task(&task.id, 7).await;
}
