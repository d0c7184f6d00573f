//! Status changes as server-sent events.

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::support::client::Call;
use crate::support::issuer::{self, Key, claims, now};
use crate::support::node::{Node, Setup, Task};
use crate::support::peer::Upstream;
use crate::support::reply::{Gate, Reply};
use crate::support::within;

/// An open stream and what of it has come.
struct Events {
    body: Incoming,
    read: String,
}

/// One event: its fields by name; of a comment only `""`.
type Event = std::collections::BTreeMap<String, String>;

impl Events {
    async fn open(call: Call) -> Self {
        let response = call.header("accept", "text/event-stream").open().await.expect("it was answered");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert!(response.headers().contains_key("ringback-task"));
        Self { body: response.into_body(), read: String::new() }
    }

    /// The next event; `None` after a clean end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.read.split_once("\n\n") {
                let fields = event.lines().map(|line| line.split_once(':').expect("a field or a comment"));
                let event = fields.map(|(name, value)| (name.to_owned(), value.trim_start().to_owned()));
                let (event, rest) = (event.collect(), rest.to_owned());
                self.read = rest;
                return Some(event);
            }
            let frame = within("the stream went on", self.body.frame()).await;
            let Some(frame) = frame else {
                assert_eq!(self.read, "", "the stream ended within an event");
                return None;
            };
            let data: Bytes = frame.expect("the stream does not break").into_data().expect("data");
            self.read += std::str::from_utf8(&data).expect("events are UTF-8");
        }
    }

    /// The next event that is not a sign of life: the first of those may come at any moment.
    async fn told(&mut self) -> Option<Event> {
        loop {
            let event = self.next().await?;
            if !event.contains_key("") {
                return Some(event);
            }
        }
    }

    async fn status(&mut self) -> Value {
        let event = self.told().await.expect("one more event");
        assert_eq!(event.get("event").map(String::as_str), Some("status"), "{event:?}");
        assert!(event.contains_key("id"));
        serde_json::from_str(&event["data"]).expect("data is JSON")
    }

    async fn ends(&mut self, reason: &str) {
        let event = self.told().await.expect("the end is said");
        assert_eq!(event.get("event").map(String::as_str), Some("end"), "{event:?}");
        assert_eq!(event["data"], format!("{{\"reason\":\"{reason}\"}}"));
        assert_eq!(self.next().await, None);
    }
}

async fn in_flight(setup: Setup, upstream: &Upstream, gate: &Gate) -> (Node, Task) {
    upstream.always([Reply::ok("done").behind(gate)]);
    let node = setup.start().await;
    let task = node.submit(node.get("/accounts?async=true")).await;
    upstream.wait_for_calls(1).await;
    node.reaches(&task, "Running").await;
    (node, task)
}

#[tokio::test]
async fn a_stream_tells_every_change_and_then_ends() {
    let (upstream, first, second) = (Upstream::start().await, Gate::closed(), Gate::closed());
    upstream.always([Reply::new(503).behind(&first), Reply::ok("done").behind(&second)]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/accounts?async=true")).await;
    upstream.wait_for_calls(1).await;
    node.reaches(&task, "Running").await;

    let mut events = Events::open(node.results(&task)).await;

    let status = |status: &str, attempts: u32| json!({"task_id": task.id, "status": status, "attempts": attempts, "next_try_at": null});
    assert_eq!(events.status().await, status("Running", 1));
    first.open();
    let mut queued = events.status().await;
    let next_try_at = queued["next_try_at"].take();
    assert!(next_try_at.as_str().is_some_and(|at| at.ends_with('Z') && at.contains('T')), "{next_try_at}");
    assert_eq!(queued, status("Queued", 1));
    assert_eq!(events.status().await, status("Running", 2));
    second.open();
    assert_eq!(events.status().await, status("Succeeded", 2));
    events.ends("finished").await;
}

#[tokio::test]
async fn a_stream_of_a_finished_task_is_its_status_and_an_end() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::new(404)]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/accounts?async=true")).await;
    node.finished(&task).await;
    let mut events = Events::open(node.results(&task)).await;
    assert_eq!(events.status().await["status"], "Failed");
    events.ends("finished").await;
}

#[tokio::test]
async fn a_client_that_comes_back_after_the_end_is_told_not_to() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/accounts?async=true")).await;
    node.finished(&task).await;
    let mut events = Events::open(node.results(&task)).await;
    let last = events.told().await.expect("the final status")["id"].clone();
    let again = node.results(&task).header("accept", "text/event-stream");
    assert_eq!(again.header("last-event-id", &last).send().await.status, 204);
    let mut from_before = Events::open(node.results(&task).header("last-event-id", "1")).await;
    assert_eq!(from_before.status().await["status"], "Succeeded");
}

#[tokio::test]
async fn a_quiet_stream_gives_signs_of_life() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    let setup = Setup::new(&upstream).set("server.stream_heartbeat", "20ms");
    let (node, task) = in_flight(setup, &upstream, &gate).await;
    let mut events = Events::open(node.results(&task)).await;
    assert_eq!(events.status().await["status"], "Running");
    for _ in 0..3 {
        let comment = events.next().await.expect("a sign of life");
        assert_eq!(comment.keys().collect::<Vec<_>>(), [""]);
    }
    gate.open();
    let mut last = events.next().await.expect("more");
    while last.contains_key("") {
        last = events.next().await.expect("more");
    }
    assert!(last["data"].contains("Succeeded"));
    events.ends("finished").await;
}

#[tokio::test]
async fn many_streams_hear_of_the_end_and_a_stream_that_left_holds_nobody_up() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    let (node, task) = in_flight(Setup::new(&upstream), &upstream, &gate).await;
    drop(Events::open(node.results(&task)).await);
    let mut streams = Vec::new();
    for _ in 0..100 {
        let mut events = Events::open(node.results(&task)).await;
        assert_eq!(events.status().await["status"], "Running");
        streams.push(events);
    }
    gate.open();
    for mut events in streams {
        assert_eq!(events.status().await["status"], "Succeeded");
        events.ends("finished").await;
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    upstream.always([Reply::ok("done").behind(&gate)]);
    let key = Key::p256("k");
    let node = issuer::by_file(Setup::new(&upstream), &[&key]).start().await;
    let task = node.submit(node.get("/accounts?async=true").bearer(&key.token("john"))).await;
    upstream.wait_for_calls(1).await;
    let mut short = claims("john");
    short["exp"] = json!(now() + 2);
    let mut events = Events::open(node.results(&task).bearer(&key.sign(&short))).await;
    events.status().await;
    events.ends("token_expired").await;
    gate.open();
}

#[tokio::test]
async fn a_stream_ends_with_its_node() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    let (node, task) = in_flight(Setup::new(&upstream), &upstream, &gate).await;
    let mut events = Events::open(node.results(&task)).await;
    let mut newer = Events::open(node.results(&task).http2()).await;
    events.status().await;
    newer.status().await;
    let stopping = tokio::spawn(node.terminate());
    events.ends("stopping").await;
    newer.ends("stopping").await;
    gate.open();
    assert_eq!(stopping.await.expect("the node ended").1.status.code(), Some(0));
}

#[tokio::test]
async fn only_who_asks_for_events_gets_them() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::ok("done")]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/accounts?async=true")).await;
    node.finished(&task).await;
    for accept in [
        "*/*",
        "text/*",
        "text/event-stream;q=0",
        "application/json, text/event-stream;q=0.5",
        "application/vnd.unknown",
        "nonsense",
        "text/event-stream;q=high",
        "",
    ] {
        let answer = node.results(&task).header("accept", accept).send().await;
        assert_eq!((answer.status, answer.body.as_ref()), (200, b"done".as_slice()), "{accept}");
        assert!(answer.list("vary").contains(&"accept".to_owned()));
    }
    let head = node.call(Method::HEAD, task.path()).header("accept", "text/event-stream").send().await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
}

#[tokio::test]
async fn a_stream_is_for_the_owner_of_its_task_alone() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = Setup::new(&upstream).set("upstreams.0.identity.mode", "opaque").start().await;
    let task = node.submit(node.get("/accounts?async=true").bearer("john")).await;
    let events = |call: Call| call.header("accept", "text/event-stream");
    let unknown = node.get("/results/01a2075d-baa0-7000-8000-e0dbc55897d8").bearer("john");
    for (what, call) in [
        ("of others", node.results(&task).bearer("jane")),
        ("unknown", unknown),
        ("malformed", node.get("/results/x").bearer("john")),
    ] {
        let answer = events(call).send().await;
        assert_eq!(answer.status, 404, "{what}");
        answer.is_refusal(404, "task_not_found");
    }
    events(node.results(&task)).send().await.is_refusal(401, "invalid_token");
    gate.open();
}

#[tokio::test]
async fn there_is_no_stream_of_what_was_erased() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/accounts?async=true")).await;
    node.finished(&task).await;
    assert_eq!(node.call(Method::DELETE, task.path()).send().await.status, 204);
    let call = node.results(&task).header("accept", "text/event-stream");
    call.send().await.is_refusal(410, "results_expired");
}

#[tokio::test]
async fn head_of_a_stream_is_its_head_and_waits_for_nothing() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    let (node, task) = in_flight(Setup::new(&upstream), &upstream, &gate).await;
    let head = node.call(Method::HEAD, task.path()).header("accept", "text/event-stream").send().await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!((head.header("content-length"), head.body.len()), (None, 0));
    gate.open();
}

#[tokio::test]
async fn an_event_id_that_is_none_of_ours_is_as_good_as_none() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/accounts?async=true")).await;
    node.finished(&task).await;
    for id in ["", "Final", "999999999999999999999", "\u{e9}"] {
        let mut events = Events::open(node.results(&task).header("last-event-id", id)).await;
        assert_eq!(events.status().await["status"], "Succeeded", "{id}");
    }
}
