//! `DELETE` on results: whatever the task is doing at that moment, it has one story afterwards.

use std::collections::HashSet;

use futures_util::future::join_all;
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::support::client::{Answer, Call};
use crate::support::edge::{EIO, Edge, WRITE, When};
use crate::support::eventually;
use crate::support::node::{Node, PREFIX, Setup, Task};
use crate::support::peer::Upstream;
use crate::support::receiver::Receiver;
use crate::support::reply::{Gate, Reply};

fn delete(node: &Node, task: &Task) -> Call {
    node.call(Method::DELETE, task.path())
}

/// Checks the answer to a `DELETE` that cancelled, and that reading says the same.
async fn is_cancelled(node: &Node, task: &Task, answer: &Answer) -> Value {
    assert_eq!((answer.status, answer.header("ringback-status")), (200, Some("Failed")), "{:?}", answer.body);
    assert_eq!(answer.keys(), ["status", "task_id", "error", "error_description", "error_details"]);
    let body = answer.json();
    assert_eq!(body["task_id"], task.id.as_str());
    assert_eq!(
        (&body["error"], &body["error_details"]["reason"]),
        (&"cancelled".into(), &"cancelled".into())
    );
    assert_eq!(node.results(task).send().await.body, answer.body);
    body
}

/// Checks the answer to a `DELETE` that erased, and that reading finds nothing.
async fn is_erased(node: &Node, task: &Task, answer: &Answer) {
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(answer.header("ringback-task"), Some(task.id.as_str()));
    node.results(task).send().await.is_refusal(410, "results_expired");
}

async fn says_cancelled(receiver: &Receiver, task: &Task) {
    let webhook = receiver.wait_for_task(&task.id, 1).await.remove(0).json();
    assert_eq!((&webhook["status"], &webhook["error"]), (&"Failed".into(), &"cancelled".into()));
    assert!(webhook["error_description"].is_string());
}

/// One place at the upstream, and a call that holds it until the gate opens.
async fn busy(upstream: &Upstream, gate: &Gate) -> (Node, Task) {
    upstream.always([Reply::ok("done")]);
    upstream.script(&format!("{PREFIX}/ahead"), [Reply::ok("done").behind(gate)]);
    let node = Setup::new(upstream).set("upstreams.0.concurrency", 1).start().await;
    let ahead = node.submit(node.get("/ahead?async=true")).await;
    upstream.wait_for_calls(1).await;
    (node, ahead)
}

#[tokio::test]
async fn a_task_that_waits_for_its_turn_is_never_sent() {
    let (upstream, receiver, gate) = (Upstream::start().await, Receiver::start().await, Gate::closed());
    let (node, ahead) = busy(&upstream, &gate).await;
    let task = node.submit(node.get(&format!("/x?{}", receiver.query("/hook")))).await;

    let answer = delete(&node, &task).send().await;

    let body = is_cancelled(&node, &task, &answer).await;
    assert_eq!(body["error_details"], serde_json::json!({ "reason": "cancelled", "attempts": 0 }));
    says_cancelled(&receiver, &task).await;
    let behind = node.submit(node.get("/behind?async=true")).await;
    gate.open();
    assert_eq!(node.finished(&ahead).await.body, "done");
    assert_eq!(node.finished(&behind).await.body, "done");
    assert_eq!(upstream.calls_of(&format!("{PREFIX}/x")).len(), 0);
}

#[tokio::test]
async fn an_unsafe_task_that_waits_for_its_turn_is_never_sent_and_nothing_is_unknown() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    let (node, ahead) = busy(&upstream, &gate).await;
    let task = node.submit(node.post("/x?async=true").body("pay")).await;

    let answer = delete(&node, &task).send().await;

    let body = is_cancelled(&node, &task, &answer).await;
    assert_eq!(body["error_details"].get("outcome"), None);
    gate.open();
    node.finished(&ahead).await;
    assert_eq!(upstream.calls_of(&format!("{PREFIX}/x")).len(), 0);
}

#[tokio::test]
async fn a_task_between_retries_is_not_sent_again() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    upstream.always([Reply::new(503)]);
    let node = Setup::new(&upstream).set("upstreams.0.retry.delays", vec!["20ms", "10m"]).start().await;
    let task = node.submit(node.get(&format!("/x?{}", receiver.query("/hook")))).await;
    upstream.wait_for_calls(2).await;
    node.reaches(&task, "Queued").await;

    let answer = delete(&node, &task).send().await;

    let body = is_cancelled(&node, &task, &answer).await;
    assert_eq!(body["error_details"]["attempts"], 2);
    says_cancelled(&receiver, &task).await;
    assert_eq!((node.rows()["state"], node.rows()["request"]), (0, 0));
}

#[tokio::test]
async fn an_attempt_in_flight_is_broken_off_and_its_place_is_free() {
    let (upstream, receiver, gate) = (Upstream::start().await, Receiver::start().await, Gate::closed());
    upstream.always([Reply::ok("done")]);
    upstream.script(&format!("{PREFIX}/x"), [Reply::ok("done").behind(&gate)]);
    let node = Setup::new(&upstream).set("upstreams.0.concurrency", 1).start().await;
    let task = node.submit(node.get(&format!("/x?{}", receiver.query("/hook")))).await;
    upstream.wait_for_calls(1).await;

    let answer = delete(&node, &task).send().await;

    let body = is_cancelled(&node, &task, &answer).await;
    assert_eq!(body["error_details"].get("outcome"), None, "a safe call leaves nothing unknown");
    upstream.wait_for_abandoned(1).await;
    says_cancelled(&receiver, &task).await;
    let next = node.submit(node.get("/next?async=true")).await;
    assert_eq!(node.finished(&next).await.body, "done");
    assert_eq!(upstream.calls_of(&format!("{PREFIX}/x")).len(), 1);
}

#[tokio::test]
async fn of_an_unsafe_attempt_in_flight_the_outcome_is_unknown() {
    let (upstream, receiver, gate) = (Upstream::start().await, Receiver::start().await, Gate::closed());
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.post(&format!("/x?{}", receiver.query("/hook"))).body("pay")).await;
    upstream.wait_for_calls(1).await;

    let answer = delete(&node, &task).send().await;

    let details = is_cancelled(&node, &task, &answer).await["error_details"].clone();
    assert_eq!((&details["outcome"], &details["attempts"]), (&"unknown".into(), &1.into()));
    assert_eq!((&details["cause"], &details["bytes_sent"]), (&"cancelled".into(), &Value::Null));
    assert!(details["sent_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{details}");
    upstream.wait_for_abandoned(1).await;
    says_cancelled(&receiver, &task).await;
}

#[tokio::test]
async fn an_answer_on_its_way_in_is_broken_off_and_nothing_of_it_stays() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    let large: &'static str = "x".repeat(600_000).leak();
    upstream.always([Reply::new(200).chunks(vec![(None, large), (Some(gate.clone()), "end")])]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/x?async=true")).await;
    eventually("part of the answer is staged", async || (node.rows()["chunk"] > 0).then_some(())).await;

    let answer = delete(&node, &task).send().await;

    is_cancelled(&node, &task, &answer).await;
    upstream.wait_for_abandoned(1).await;
    assert_eq!(node.rows()["chunk"], 0);
}

#[tokio::test]
async fn the_result_of_a_finished_task_is_erased() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::ok("x".repeat(600_000))]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/x?async=true")).await;
    assert_eq!(node.finished(&task).await.body.len(), 600_000);

    for _ in 0..3 {
        is_erased(&node, &task, &delete(&node, &task).send().await).await;
    }

    assert_eq!((node.rows()["result"], node.rows()["chunk"]), (0, 0));
}

#[tokio::test]
async fn the_result_of_a_failed_task_is_erased_too() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::json(422, r#"{"error":"iban_unknown"}"#)]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/x?async=true")).await;
    assert_eq!(node.failed(&task).await["error"], "iban_unknown");
    is_erased(&node, &task, &delete(&node, &task).send().await).await;
    is_erased(&node, &task, &delete(&node, &task).send().await).await;
}

#[tokio::test]
async fn a_webhook_that_is_owed_still_comes_after_its_result_was_erased() {
    let (upstream, receiver, gate) = (Upstream::start().await, Receiver::start().await, Gate::closed());
    upstream.always([Reply::json(422, r#"{"error":"iban_unknown"}"#)]);
    let accepted = Reply::new(204).bodyless();
    receiver.answers([Reply::new(500).behind(&gate), accepted]);
    let node = Setup::new(&upstream).set("retention.results", "5s").start().await;
    let task = node.submit(node.get(&format!("/x?{}", receiver.query("/hook")))).await;
    receiver.wait_for(1).await;

    is_erased(&node, &task, &delete(&node, &task).send().await).await;
    gate.open();

    let tries = receiver.wait_for_task(&task.id, 2).await;
    assert_eq!(tries[0].body, tries[1].body, "every try says the same");
    assert_eq!(tries[0].json()["error"], "iban_unknown");
    node.results(&task).send().await.is_refusal(410, "results_expired");
    eventually("nothing of the result is left", async || (node.rows()["result"] == 0).then_some(())).await;
}

#[tokio::test]
async fn asked_again_and_by_many_at_once_the_answer_is_the_same() {
    let (upstream, receiver, gate) = (Upstream::start().await, Receiver::start().await, Gate::closed());
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.post(&format!("/x?{}", receiver.query("/hook"))).body("pay")).await;
    upstream.wait_for_calls(1).await;

    let mut answers = join_all((0..20).map(|_| delete(&node, &task).send())).await;
    answers.push(delete(&node, &task).send().await);

    let bodies: HashSet<_> = answers.iter().map(|answer| (answer.status, answer.body.clone())).collect();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    is_cancelled(&node, &task, &answers[0]).await;
    says_cancelled(&receiver, &task).await;
    let metrics = node.admin("/metrics").send().await;
    let text = String::from_utf8(metrics.body.to_vec()).expect("metrics are text");
    let counted = text.lines().find(|line| line.contains("tasks_finished") && line.contains("Failed"));
    assert!(counted.is_some_and(|line| line.ends_with(" 1")), "{text}");
}

#[tokio::test]
async fn a_cancellation_that_races_with_the_end_has_one_story() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let node = Node::start(&upstream).await;
    let mut stories = HashSet::new();
    for number in 0..150 {
        let task = node.submit(node.get(&format!("/{number}?{}", receiver.query("/hook")))).await;
        // A little later each time, so that every moment of its short life is met.
        for _ in 0..number % 15 {
            tokio::task::yield_now().await;
            node.admin("/livez").send().await;
        }
        let answer = delete(&node, &task).send().await;
        let status = if answer.status == 200 {
            is_cancelled(&node, &task, &answer).await;
            "Failed"
        } else {
            is_erased(&node, &task, &answer).await;
            "Succeeded"
        };
        stories.insert(status);
        let webhook = receiver.wait_for_task(&task.id, 1).await.remove(0).json();
        assert_eq!(webhook["status"], status, "the webhook tells the same story");
        let again = delete(&node, &task).send().await;
        assert_eq!((again.status, &again.body), (answer.status, &answer.body));
    }
    assert_eq!(receiver.tries().len(), 150, "one webhook a task");
    assert!(stories.contains("Succeeded"), "some tasks were quicker");
}

#[tokio::test]
async fn after_a_crash_a_cancelled_task_stays_cancelled() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/x?async=true")).await;
    upstream.wait_for_calls(1).await;
    let before = delete(&node, &task).send().await;

    let setup = node.kill9().await;
    gate.open();
    let node = setup.start().await;

    is_cancelled(&node, &task, &before).await;
    let later = node.submit(node.get("/later?async=true")).await;
    node.finished(&later).await;
    assert_eq!(upstream.calls_of(&format!("{PREFIX}/x")).len(), 1);
}

#[tokio::test]
async fn a_cancelled_task_makes_room_in_a_full_backlog() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = Setup::new(&upstream).set("server.max_queued_tasks", 1).start().await;
    let task = node.submit(node.get("/x?async=true")).await;
    node.get("/y?async=true").send().await.is_refusal(503, "backlog_full");
    delete(&node, &task).send().await;
    node.submit(node.get("/y?async=true")).await;
}

#[tokio::test]
async fn only_the_owner_may_cancel_and_nobody_else_learns_of_the_task() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = Setup::new(&upstream).set("upstreams.0.identity.mode", "opaque").start().await;
    let task = node.submit(node.get("/x?async=true").bearer("john")).await;
    upstream.wait_for_calls(1).await;

    let others = delete(&node, &task).bearer("jane").send().await;
    let unknown = format!("{PREFIX}/results/019a3f00-0000-7000-8000-000000000001");
    let unknown = node.call(Method::DELETE, &unknown).bearer("jane").send().await;
    let malformed = node.call(Method::DELETE, &format!("{PREFIX}/results/x")).bearer("jane").send().await;
    let below = node.call(Method::DELETE, &format!("{}/x", task.path())).bearer("john").send().await;
    let nobody = delete(&node, &task).send().await;

    others.is_refusal(404, "task_not_found");
    for same in [&unknown, &malformed, &below] {
        assert_eq!((same.status, &same.body), (others.status, &others.body));
        assert_eq!(same.headers.keys().collect::<Vec<_>>(), others.headers.keys().collect::<Vec<_>>());
    }
    nobody.is_refusal(401, "invalid_token");
    gate.open();
    eventually("the task is finished", async || {
        (node.results(&task).bearer("john").send().await.status == 200).then_some(())
    })
    .await;
    delete(&node, &task).bearer("jane").send().await.is_refusal(404, "task_not_found");
    let result = node.results(&task).bearer("john").send().await;
    assert_eq!((result.status, result.body), (200, "done".into()));
}

#[tokio::test]
async fn other_methods_are_refused_and_told_which_there_are() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/x?async=true")).await;
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::OPTIONS] {
        let answer = node.call(method, task.path()).send().await;
        answer.is_refusal(405, "method_not_allowed");
        assert_eq!(answer.list("allow"), ["get", "head", "delete"]);
    }
}

#[tokio::test]
async fn whoever_waits_for_a_task_hears_that_it_was_cancelled() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.post("/x?async=true").body("pay")).await;
    upstream.wait_for_calls(1).await;
    let waiting = tokio::spawn(node.results(&task).header("prefer", "wait=60").send());
    let mut stream =
        node.results(&task).header("accept", "text/event-stream").open().await.expect("a stream");
    let first = stream.body_mut().frame().await.expect("a frame").expect("a whole one");
    assert!(first.data_ref().is_some_and(|data| data.starts_with(b"id: 1\n")), "{first:?}");

    let answer = delete(&node, &task).send().await;

    is_cancelled(&node, &task, &answer).await;
    let rest = crate::support::within("the stream ended", stream.into_body().collect()).await;
    let rest = rest.expect("it ends cleanly").to_bytes();
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.contains(r#""status":"Failed","attempts":1"#) && rest.contains("finished"), "{rest}");
    let waited = waiting.await.expect("the waiter does not panic");
    assert_eq!((waited.status, waited.body), (200, answer.body));
}

#[tokio::test]
async fn a_result_that_has_expired_is_as_good_as_erased() {
    let upstream = Upstream::start().await;
    let node = Setup::new(&upstream).set("retention.results", "1s").start().await;
    let task = node.submit(node.get("/x?async=true")).await;
    eventually("the result expired", async || (node.results(&task).send().await.status == 410).then_some(()))
        .await;
    for _ in 0..2 {
        is_erased(&node, &task, &delete(&node, &task).send().await).await;
    }
    let below = node.call(Method::GET, &format!("{}/response", task.path()));
    below.send().await.is_refusal(410, "results_expired");
}

#[tokio::test]
async fn a_cancellation_that_cannot_be_written_changes_nothing_and_can_be_asked_for_again() {
    let (edge, upstream, gate) = (Edge::new(), Upstream::start().await, Gate::closed());
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = edge.before(Setup::new(&upstream)).start().await;
    let (kept, task) = (node.get("/kept?async=true"), node.get("/x?async=true"));
    let (kept, task) = (node.submit(kept).await, node.submit(task).await);
    upstream.wait_for_calls(2).await;

    edge.fail_all(WRITE, EIO, When::Before);
    for task in [&kept, &task] {
        let refused = delete(&node, task).send().await;
        refused.is_refusal(503, "store_unavailable");
        assert_eq!(refused.header("retry-after"), Some("1"));
        assert_eq!(node.results(task).send().await.header("ringback-status"), Some("Running"));
    }
    edge.heal();

    let answer = eventually("it can be written again", async || {
        Some(delete(&node, &task).send().await).filter(|answer| answer.status != 503)
    })
    .await;
    is_cancelled(&node, &task, &answer).await;
    gate.open();
    assert_eq!(node.finished(&kept).await.body, "done", "nobody was told that it is cancelled");
}

#[tokio::test]
async fn many_who_erase_at_once_get_the_same_answer() {
    let (upstream, receiver, gate) = (Upstream::start().await, Receiver::start().await, Gate::closed());
    upstream.always([Reply::ok("done")]);
    receiver.answers([Reply::new(204).bodyless().behind(&gate)]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get(&format!("/x?{}", receiver.query("/hook")))).await;
    receiver.wait_for(1).await;
    let answers = join_all((0..20).map(|_| delete(&node, &task).send())).await;
    for answer in &answers {
        is_erased(&node, &task, answer).await;
    }
    gate.open();
    eventually("nothing is owed", async || (node.rows()["delivery"] == 0).then_some(())).await;
    is_erased(&node, &task, &delete(&node, &task).send().await).await;
    assert_eq!(receiver.tries().len(), 1);
}

#[tokio::test]
async fn a_reader_of_a_result_that_is_erased_meanwhile_never_takes_a_part_for_the_whole() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::new(200).zeros(30_000_000)]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/x?async=true")).await;
    node.finished(&task).await;
    let mut reading = node.results(&task).open().await.expect("it begins").into_body();
    let first = reading.frame().await.expect("a frame").expect("a whole one");
    is_erased(&node, &task, &delete(&node, &task).send().await).await;
    let rest = crate::support::within("the reading ended", reading.collect()).await;
    let read = first.data_ref().map_or(0, bytes::Bytes::len);
    assert!(rest.is_err(), "{read} bytes and the rest were read of what was erased");
}
