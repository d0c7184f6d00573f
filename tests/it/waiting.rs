//! Waiting for a task: `Prefer` on a call and on its results (RFC 7240).

use http::Method;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::client::Answer;
use crate::support::issuer::{self, Key, claims, now};
use crate::support::node::{Node, PREFIX, Setup, Task};
use crate::support::peer::Upstream;
use crate::support::receiver::Receiver;
use crate::support::reply::{Gate, Reply};
use crate::support::{eventually, within};

/// A node, and a task in flight whose upstream answers when the gate opens.
async fn in_flight(upstream: &Upstream, gate: &Gate) -> (Node, Task) {
    upstream.always([Reply::ok("done").behind(gate)]);
    let node = Node::start(upstream).await;
    let task = node.submit(node.get("/accounts?async=true")).await;
    upstream.wait_for_calls(1).await;
    node.reaches(&task, "Running").await;
    (node, task)
}

fn is_the_202(answer: &Answer, task: &Task, status: &str) {
    assert_eq!((answer.status, answer.header("ringback-status")), (202, Some(status)), "{:?}", answer.body);
    assert_eq!(answer.json(), json!({"results_uri": task.results_uri, "status": status, "task_id": task.id}));
}

#[tokio::test]
async fn a_wait_on_results_is_answered_the_moment_the_task_ends() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    let (node, task) = in_flight(&upstream, &gate).await;
    let waiting = tokio::spawn(node.results(&task).header("prefer", "wait=60").send());
    let also = tokio::spawn(node.results(&task).header("prefer", "Wait=\"60\"; x").http2().send());
    gate.open();
    for answer in [waiting.await.expect("it was answered"), also.await.expect("it was answered")] {
        assert_eq!((answer.status, answer.body.as_ref()), (200, b"done".as_slice()));
        assert_eq!(answer.header("preference-applied"), Some("wait=60"));
    }
}

#[tokio::test]
async fn a_wait_that_ends_first_gets_the_202_and_is_capped_by_configuration() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = Setup::new(&upstream).set("server.max_wait", "1s").start().await;
    let task = node.submit(node.get("/accounts?async=true")).await;
    upstream.wait_for_calls(1).await;
    node.reaches(&task, "Running").await;
    for wait in ["wait=3600", "wait=99999999999999999999999999"] {
        let answer = node.results(&task).header("prefer", wait).send().await;
        is_the_202(&answer, &task, "Running");
        assert_eq!(answer.header("preference-applied"), Some("wait=1"));
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    gate.open();
    assert_eq!(node.results(&task).header("prefer", "wait=3600").send().await.status, 200);
}

#[tokio::test]
async fn a_wait_of_nothing_and_malformed_waits_are_answered_at_once() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    let (node, task) = in_flight(&upstream, &gate).await;
    for (prefer, applied) in [
        ("wait=0", Some("wait=0")),
        ("wait", None),
        ("wait=", None),
        ("wait=-1", None),
        ("wait=1.5", None),
        ("wait=1e9", None),
        ("wait=soon", None),
        ("wait=\"60", None),
        ("wait=x, wait=60", None),
        ("note=\"wait=60\"", None),
        (",;=", None),
        ("\u{e9}=1", None),
    ] {
        let answer = node.results(&task).header("prefer", prefer).send().await;
        is_the_202(&answer, &task, "Running");
        assert_eq!(answer.header("preference-applied"), applied, "{prefer}");
    }
    gate.open();
    node.finished(&task).await;
}

#[tokio::test]
async fn a_wait_through_retries_ends_with_the_last_attempt() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    upstream.always([Reply::new(503), Reply::new(503), Reply::ok("third").behind(&gate)]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/accounts?async=true")).await;
    let waiting = tokio::spawn(node.results(&task).header("prefer", "wait=60").send());
    upstream.wait_for_calls(3).await;
    gate.open();
    assert_eq!(waiting.await.expect("it was answered").body, "third");
}

#[tokio::test]
async fn a_wait_for_a_task_of_others_is_refused_at_once() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = Setup::new(&upstream).set("upstreams.0.identity.mode", "opaque").start().await;
    let task = node.submit(node.get("/accounts?async=true").bearer("john")).await;
    let others = node.results(&task).bearer("jane").header("prefer", "wait=60").send().await;
    others.is_refusal(404, "task_not_found");
    let stream = node.results(&task).bearer("jane").header("accept", "text/event-stream").send().await;
    stream.is_refusal(404, "task_not_found");
    gate.open();
}

#[tokio::test]
async fn a_wait_ends_when_its_task_is_cancelled() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    let (node, task) = in_flight(&upstream, &gate).await;
    let waiting = tokio::spawn(node.results(&task).header("prefer", "wait=60").send());
    assert_eq!(node.call(Method::DELETE, task.path()).send().await.status, 200);
    let answer = waiting.await.expect("it was answered");
    assert_eq!((answer.status, &answer.json()["error"]), (200, &json!("cancelled")));
}

#[tokio::test]
async fn head_waits_as_get_does() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    let (node, task) = in_flight(&upstream, &gate).await;
    let waiting = tokio::spawn(node.call(Method::HEAD, task.path()).header("prefer", "wait=60").send());
    gate.open();
    let answer = waiting.await.expect("it was answered");
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(answer.header("content-length"), Some("4"));
}

#[tokio::test]
async fn who_finds_no_room_to_wait_is_answered_at_once() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = Setup::new(&upstream).set("server.max_waiters", 1).start().await;
    let task = node.submit(node.get("/accounts?async=true")).await;
    upstream.wait_for_calls(1).await;
    let stream = node.results(&task).header("accept", "text/event-stream").open().await;
    let stream = stream.expect("the one place was free");
    assert_eq!(stream.status(), 200);
    let answer = node.results(&task).header("prefer", "wait=60").send().await;
    assert_eq!((answer.status, answer.header("preference-applied")), (202, None), "nobody waited");
    let refused = node.results(&task).header("accept", "text/event-stream").send().await;
    refused.is_refusal(503, "too_many_waiters");
    assert_eq!(refused.header("retry-after"), Some("1"));
    gate.open();
    node.finished(&task).await;
}

/// A node with room for one who waits, and a task in flight.
async fn with_one_place(upstream: &Upstream, gate: &Gate) -> (Node, Task) {
    upstream.always([Reply::ok("done").behind(gate)]);
    let node = Setup::new(upstream).set("server.max_waiters", 1).start().await;
    let task = node.submit(node.get("/accounts?async=true")).await;
    upstream.wait_for_calls(1).await;
    node.reaches(&task, "Running").await;
    (node, task)
}

/// A stream, where there is a place for it.
async fn stream(node: &Node, task: &Task) -> Option<http::Response<hyper::body::Incoming>> {
    let stream = node.results(task).header("accept", "text/event-stream").open().await;
    stream.ok().filter(|stream| stream.status() == 200)
}

/// Takes the one place there is and waits in it.
async fn takes_the_place(node: &Node, task: &Task, http2: bool) -> JoinHandle<Answer> {
    // It has the place once a stream finds none; a stream that came first is gone by the next try.
    eventually("the place is taken", async || {
        let call = node.results(task).header("prefer", "wait=60");
        let waiting = tokio::spawn(if http2 { call.http2() } else { call }.send());
        // Gives it a head start; where that was not enough, there is a next try.
        node.results(task).send().await;
        if stream(node, task).await.is_none() && !waiting.is_finished() {
            return Some(waiting);
        }
        waiting.abort();
        None
    })
    .await
}

#[tokio::test]
async fn who_leaves_makes_room_for_others() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    let (node, task) = with_one_place(&upstream, &gate).await;
    for http2 in [false, true] {
        takes_the_place(&node, &task, http2).await.abort();
        drop(eventually("the place is free again", async || stream(&node, &task).await).await);
    }
    gate.open();
    node.finished(&task).await;
}

#[tokio::test]
async fn a_client_is_asked_to_come_back_when_the_next_attempt_is_due() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::new(503)]);
    for (delay, pauses) in [("20s", 15..=21), ("10m", 30..=30)] {
        let node = Setup::new(&upstream).set("upstreams.0.retry.delays", vec![delay]).start().await;
        let task = node.submit(node.get("/accounts?async=true")).await;
        upstream.wait_for_calls(1).await;
        let pause = eventually("the task waits for its next attempt", async || {
            let answer = node.results(&task).send().await;
            assert_eq!(answer.status, 202);
            let pause: u32 = answer.header("retry-after").expect("a pause").parse().expect("whole seconds");
            (answer.header("ringback-status") == Some("Queued") && pause > 1).then_some(pause)
        });
        let pause = pause.await;
        assert!(pauses.contains(&pause), "{delay}: {pause}");
    }
}

#[tokio::test]
async fn both_202s_ask_for_a_pause_as_long_as_the_upstreams_calls_take() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    upstream.always([Reply::ok("slow").behind(&gate)]);
    let node = Node::start(&upstream).await;
    let first = node.submit(node.get("/accounts?async=true")).await;
    upstream.wait_for_calls(1).await;
    // An upstream that takes longer than a second.
    tokio::time::sleep(std::time::Duration::from_millis(1_050)).await;
    gate.open();
    node.finished(&first).await;

    let never = Gate::closed();
    upstream.always([Reply::ok("slow").behind(&never)]);
    let accepted = node.get("/accounts?async=true").send().await;
    let waiting = node.results(&Task::from(&accepted)).send().await;

    let pause: u32 = accepted.header("retry-after").expect("a pause").parse().expect("whole seconds");
    assert!(pause >= 2, "{pause}");
    assert_eq!((waiting.status, waiting.header("retry-after")), (202, accepted.header("retry-after")));
}

#[tokio::test]
async fn a_head_call_that_waits_gets_the_head_the_upstream_gave() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::ok("four")]);
    let node = Node::start(&upstream).await;
    let call = node.call(Method::HEAD, &format!("{PREFIX}/x")).header("prefer", "respond-async, wait=20");
    let answer = call.send().await;
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("4")));
}

#[tokio::test]
async fn a_stopping_node_answers_those_who_wait() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    let (node, task) = with_one_place(&upstream, &gate).await;
    let waiting = takes_the_place(&node, &task, false).await;
    let stopping = tokio::spawn(node.terminate());
    is_the_202(&waiting.await.expect("it was answered"), &task, "Running");
    gate.open();
    let (_, ended) = stopping.await.expect("the node ended");
    assert_eq!(ended.status.code(), Some(0));
}

#[tokio::test]
async fn a_wait_ends_with_its_token() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    upstream.always([Reply::ok("done").behind(&gate)]);
    let key = Key::p256("k");
    let node = issuer::by_file(Setup::new(&upstream), &[&key]).start().await;
    let task = node.submit(node.get("/accounts?async=true").bearer(&key.token("john"))).await;
    upstream.wait_for_calls(1).await;
    let mut short = claims("john");
    short["exp"] = json!(now() + 2);
    // The wait asked for is longer than any test may take.
    let waiting = node.results(&task).bearer(&key.sign(&short)).header("prefer", "wait=60").send();
    assert_eq!(within("the wait ended with its token", waiting).await.status, 202);
    gate.open();
}

#[tokio::test]
async fn respond_async_does_what_async_true_does() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    upstream.always([Reply::ok("done")]);
    let node = Node::start(&upstream).await;
    let hook = receiver.query("/hook").replace("async=true&", "").replace("&async=true", "");
    assert!(hook.starts_with("webhook_uri="), "{hook}");
    let call = node.get(&format!("/accounts?a=1&{hook}")).header("prefer", "handling=lenient, Respond-Async");
    let answer = call.send().await;
    assert_eq!(answer.header("preference-applied"), Some("respond-async"));
    let task = Task::from(&answer);
    assert_eq!(node.finished(&task).await.body, "done");
    receiver.wait_for_task(&task.id, 1).await;
    let call = &upstream.calls()[0];
    assert_eq!(call.target, format!("{PREFIX}/accounts?a=1"), "our parameters are cut out");
    assert_eq!(call.header("prefer"), Some("handling=lenient"));
}

#[tokio::test]
async fn a_preference_gives_way_to_async_false_and_to_an_upgrade() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::ok("proxied")]);
    let node = Node::start(&upstream).await;
    let call = node.get("/accounts?async=false").header("prefer", "respond-async");
    assert_eq!(call.send().await.body, "proxied");
    let upgrade = node.get("/accounts").header("prefer", "respond-async");
    let upgrade = upgrade.header("connection", "upgrade").header("upgrade", "websocket");
    assert_eq!(upgrade.send().await.body, "proxied");
    let refused = node.get("/accounts?async=maybe").header("prefer", "respond-async").send().await;
    refused.is_refusal(400, "validation_error");
}

#[tokio::test]
async fn malformed_preferences_are_proxied_as_if_they_were_not_there() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::ok("proxied")]);
    let node = Node::start(&upstream).await;
    for prefer in ["respond-async=yes", "respond_async", "x=\"respond-async", "async=true", "wait=5"] {
        let answer = node.get("/accounts").header("prefer", prefer).send().await;
        assert_eq!((answer.status, answer.body.as_ref()), (200, b"proxied".as_slice()), "{prefer}");
        assert_eq!(answer.header("ringback-task"), None);
        assert_eq!(upstream.calls().last().and_then(|call| call.header("prefer")), Some(prefer));
    }
}

#[tokio::test]
async fn respond_async_with_wait_answers_as_the_upstream_did_when_it_is_quick() {
    let upstream = Upstream::start().await;
    let reply = Reply::new(201).header("content-type", "text/plain").header("x-bank", "1");
    upstream.script(&format!("{PREFIX}/quick"), [reply.header("set-cookie", "a=b").body("made")]);
    upstream.script(&format!("{PREFIX}/wrong"), [Reply::json(422, "{\"error\":\"x\"}")]);
    let node = Node::start(&upstream).await;
    let prefer = |path: &str| node.post(path).header("prefer", "respond-async, wait=20").body("{}");

    let answer = prefer("/quick").send().await;
    assert_eq!((answer.status, answer.body.as_ref()), (201, b"made".as_slice()));
    assert_eq!((answer.header("x-bank"), answer.header("set-cookie")), (Some("1"), Some("a=b")));
    assert_eq!(answer.header("preference-applied"), Some("wait=20"));
    let id = answer.header("ringback-task").expect("the task can still be found");
    let again = node.get(&format!("/results/{id}")).send().await;
    assert_eq!((again.status, again.body.as_ref()), (200, b"made".as_slice()));

    let answer = prefer("/wrong").send().await;
    assert_eq!((answer.status, answer.json()), (422, json!({"error": "x"})));
    assert_eq!(answer.header("ringback-error"), None, "the error is the upstream's");
}

#[tokio::test]
async fn respond_async_with_wait_gets_the_202_when_the_upstream_is_slow() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = Node::start(&upstream).await;
    let answer = node.get("/accounts").header("prefer", "respond-async, wait=1").send().await;
    assert_eq!(answer.header("preference-applied"), Some("respond-async"));
    let task = Task::from(&answer);
    gate.open();
    assert_eq!(node.finished(&task).await.body, "done");
    assert_eq!(upstream.calls().len(), 1);
}

#[tokio::test]
async fn a_call_that_waits_in_vain_is_told_as_a_synchronous_one_would_be() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::cut()]);
    let node = Setup::new(&upstream).set("upstreams.0.retry.delays", toml::Value::Array(Vec::new()));
    let node = node.start().await;
    let answer = node.get("/accounts").header("prefer", "respond-async, wait=20").send().await;
    answer.is_refusal(502, "upstream_broken");
    assert_eq!(answer.header("preference-applied"), Some("wait=20"));
    assert!(answer.header("ringback-task").is_some());
}
