//! The outcome table as the upstream and the reader of a result see it.

use std::time::{Duration, SystemTime};

use http::Method;
use serde_json::Value;
use tokio::net::TcpSocket;
use tokio::time::Instant;

use crate::support::node::{Node, PREFIX, Setup, Task};
use crate::support::peer::{Peer, Upstream};
use crate::support::reply::{Gate, Reply, Step};

/// Attempts and deadline short enough for a test of timeouts.
fn impatient(upstream: &Upstream) -> Setup {
    Setup::new(upstream)
        .set("upstreams.0.timeout", "200ms")
        .set("upstreams.0.idle_timeout", "200ms")
        .set("upstreams.0.retry.delays", vec!["20ms"; 2])
}

fn path(name: &str) -> String {
    format!("{PREFIX}/{name}")
}

async fn submit(node: &Node, method: Method, name: &str) -> Task {
    node.submit(node.call(method, &format!("{PREFIX}/{name}?async=true"))).await
}

/// Calls `name` asynchronously and returns how the task ended and how often the upstream was called.
async fn outcome(node: &Node, upstream: &Upstream, method: Method, name: &str) -> (String, Value, usize) {
    let task = submit(node, method, name).await;
    let answer = node.finished(&task).await;
    let status = answer.header("ringback-status").expect("results say their status").to_owned();
    let body = if status == "Failed" { answer.json() } else { Value::Null };
    (status, body, upstream.calls_of(&path(name)).len())
}

#[tokio::test]
async fn a_call_that_is_safe_to_repeat_is_repeated_after_every_transient_answer() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE] {
        for status in [408, 425, 429, 500, 502, 503, 504, 520, 524, 529] {
            let name = format!("{method}-{status}");
            upstream.script(&path(&name), [Reply::new(status), Reply::ok("done")]);
            let (ended, _, calls) = outcome(&node, &upstream, method.clone(), &name).await;
            assert_eq!((ended.as_str(), calls), ("Succeeded", 2), "{name}");
        }
    }
}

#[tokio::test]
async fn every_other_error_ends_the_task_at_once() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    for status in [400, 401, 403, 404, 405, 409, 410, 412, 418, 422, 451, 501, 505, 519, 530] {
        let name = status.to_string();
        upstream.script(&path(&name), [Reply::new(status), Reply::ok("never")]);
        let (ended, body, calls) = outcome(&node, &upstream, Method::GET, &name).await;
        assert_eq!((ended.as_str(), calls), ("Failed", 1), "{status}");
        assert_eq!(body["error"], "upstream_error");
        assert_eq!(body["error_details"]["reason"], "not_transient");
        assert_eq!(body["error_details"]["upstream_status"], status);
    }
}

#[tokio::test]
async fn a_redirect_is_never_followed_and_ends_the_task() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    for status in [300, 301, 302, 303, 304, 307, 308] {
        let name = status.to_string();
        let elsewhere = upstream.uri(&path("elsewhere"));
        upstream
            .script(&path(&name), [Reply::new(status).header("location", &elsewhere).bodyless().closing()]);
        let (ended, body, calls) = outcome(&node, &upstream, Method::GET, &name).await;
        assert_eq!((ended.as_str(), calls), ("Failed", 1), "{status}");
        assert_eq!(body["error"], "upstream_redirected");
        assert_eq!(body["error_details"]["upstream_status"], status);
    }
    assert_eq!(upstream.calls_of(&path("elsewhere")).len(), 0);
}

#[tokio::test]
async fn a_broken_exchange_of_a_safe_call_is_repeated() {
    let upstream = Upstream::start().await;
    let node = impatient(&upstream).start().await;
    let never = Gate::closed();
    let broken = [
        ("cut", Reply::cut()),
        ("reset", Reply::reset()),
        ("silence", Reply::silence()),
        ("short", Reply::ok("").broken_after("declared whole", 5)),
        (
            "unfinished",
            Reply::steps(vec![
                Step::Send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n".into()),
                Step::Cut,
            ]),
        ),
        ("pausing", Reply::new(200).chunks(vec![(None, "first"), (Some(never), "second")])),
        ("not-http", Reply::steps(vec![Step::Send("220 mail.example ESMTP\r\n\r\n".into()), Step::Cut])),
    ];
    for (name, reply) in broken {
        upstream.script(&path(name), [reply, Reply::ok("done")]);
        let (ended, _, calls) = outcome(&node, &upstream, Method::GET, name).await;
        assert_eq!((ended.as_str(), calls), ("Succeeded", 2), "{name}");
    }
}

#[tokio::test]
async fn an_attempt_takes_no_longer_than_it_may_in_all() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::new(200).chunks(vec![(None, "first"), (Some(Gate::closed()), "second")])]);
    let node = Setup::new(&upstream)
        .set("upstreams.0.idle_timeout", "10m")
        .set("upstreams.0.total_timeout", "300ms")
        .set("upstreams.0.timeout", "300ms")
        .set("upstreams.0.retry.delays", vec!["20ms"])
        .start()
        .await;
    let (ended, body, calls) = outcome(&node, &upstream, Method::GET, "x").await;
    assert_eq!((ended.as_str(), calls), ("Failed", 2));
    assert_eq!(body["error"], "upstream_timeout");
    upstream.wait_for_abandoned(2).await;
}

#[tokio::test]
async fn a_safe_call_that_never_gets_through_fails_with_what_went_wrong_last() {
    let upstream = Upstream::start().await;
    let node = impatient(&upstream).start().await;
    let replies = [
        ("cut", Reply::cut(), "upstream_error", Value::Null),
        ("short", Reply::ok("").broken_after("declared whole", 5), "upstream_error", Value::Null),
        ("silence", Reply::silence(), "upstream_timeout", Value::Null),
        ("busy", Reply::new(503), "upstream_error", Value::from(503)),
    ];
    for (name, reply, error, upstream_status) in replies {
        upstream.script(&path(name), [reply]);
        let (ended, body, calls) = outcome(&node, &upstream, Method::GET, name).await;
        assert_eq!((ended.as_str(), calls), ("Failed", 3), "{name}: one attempt and two retries");
        assert_eq!(body["error"], error, "{name}");
        assert_eq!(body["error_details"]["reason"], "retries_exhausted", "{name}");
        assert_eq!(body["error_details"]["attempts"], 3, "{name}");
        if !upstream_status.is_null() {
            assert_eq!(body["error_details"]["upstream_status"], upstream_status, "{name}");
        }
    }
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_tried_again_and_then_named() {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port is free");
    let address = socket.local_addr().expect("it is bound");
    let node = Setup::of(&format!("http://{address}{PREFIX}")).start().await;

    for method in [Method::GET, Method::POST] {
        let failed = node.failed(&submit(&node, method, "x").await).await;
        assert_eq!(failed["error"], "upstream_unreachable");
        assert_eq!(failed["error_details"]["reason"], "retries_exhausted");
        assert_eq!(failed["error_details"]["attempts"], 7);
    }
}

#[tokio::test]
async fn an_unsafe_call_that_was_not_sent_is_sent_when_the_upstream_is_there() {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port is free");
    let address = socket.local_addr().expect("it is bound");
    let setup =
        Setup::of(&format!("http://{address}{PREFIX}")).set("upstreams.0.retry.delays", vec!["300ms"; 20]);
    let mut node = setup.start().await;
    let task = node.submit(node.post("/payments?async=true").body("pay")).await;
    node.reaches(&task, "Queued").await;
    assert!(node.process().is_running());

    let upstream = Peer::on(socket.listen(16).expect("the port is ours"), None);

    assert_eq!(node.finished(&task).await.header("ringback-status"), Some("Succeeded"));
    assert_eq!(upstream.only_call().body, b"pay");
}

#[tokio::test]
async fn an_unsafe_call_is_repeated_only_where_the_upstream_said_it_did_nothing() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    for method in [Method::POST, Method::PATCH] {
        for status in [408, 425, 429, 503] {
            let name = format!("{method}-{status}");
            upstream.script(&path(&name), [Reply::new(status), Reply::ok("done")]);
            let (ended, _, calls) = outcome(&node, &upstream, method.clone(), &name).await;
            assert_eq!((ended.as_str(), calls), ("Succeeded", 2), "{name}");
        }
        for status in [500, 502, 504, 520] {
            let name = format!("{method}-{status}");
            upstream.script(&path(&name), [Reply::new(status), Reply::ok("never")]);
            let (ended, body, calls) = outcome(&node, &upstream, method.clone(), &name).await;
            assert_eq!((ended.as_str(), calls), ("Failed", 1), "{name}");
            assert_eq!(body["error"], "upstream_error", "{name}");
            assert_eq!(body["error_details"]["outcome"], "unknown", "{name}");
            assert_eq!(body["error_details"]["upstream_status"], status, "{name}");
        }
    }
}

#[tokio::test]
async fn an_unsafe_call_without_an_answer_ends_with_its_outcome_unknown() {
    let upstream = Upstream::start().await;
    let node = impatient(&upstream).start().await;
    let broken = [
        ("cut", Reply::cut()),
        ("reset", Reply::reset()),
        ("silence", Reply::silence()),
        ("short", Reply::ok("").broken_after("declared whole", 5)),
    ];
    for (name, reply) in broken {
        upstream.script(&path(name), [reply, Reply::ok("never")]);
        let (ended, body, calls) = outcome(&node, &upstream, Method::POST, name).await;
        assert_eq!((ended.as_str(), calls), ("Failed", 1), "{name}");
        assert_eq!(body["error"], "outcome_unknown", "{name}");
        assert_eq!(body["error_details"]["outcome"], "unknown", "{name}");
    }
}

#[tokio::test]
async fn an_upstream_that_honours_keys_gets_unsafe_calls_with_a_key_again() {
    let upstream = Upstream::start().await;
    let node = impatient(&upstream).set("upstreams.0.idempotency", "key").start().await;
    for (name, reply) in [("answered", Reply::new(500)), ("cut", Reply::cut())] {
        upstream.script(&path(name), [reply, Reply::ok("done")]);
        let call = || node.post(&format!("/{name}?async=true")).body("pay");
        let without = node.submit(call()).await;
        assert_eq!(node.failed(&without).await["error_details"]["outcome"], "unknown", "{name}");
        assert_eq!(upstream.calls_of(&path(name)).len(), 1, "{name}");

        upstream.script(&path(name), [Reply::new(500), Reply::ok("done")]);
        let with = node.submit(call().header("idempotency-key", name)).await;
        assert_eq!(node.finished(&with).await.header("ringback-status"), Some("Succeeded"), "{name}");
        let calls = upstream.calls_of(&path(name));
        assert_eq!(calls.len(), 3, "{name}");
        assert!(calls[1..].iter().all(|call| call.header("idempotency-key") == Some(name)));
    }
}

#[tokio::test]
async fn an_upstream_that_takes_everything_twice_gets_unsafe_calls_again() {
    let upstream = Upstream::start().await;
    let node = impatient(&upstream).set("upstreams.0.idempotency", "always").start().await;
    for (name, reply) in [("answered", Reply::new(500)), ("cut", Reply::cut()), ("silence", Reply::silence())]
    {
        upstream.script(&path(name), [reply, Reply::ok("done")]);
        let (ended, _, calls) = outcome(&node, &upstream, Method::POST, name).await;
        assert_eq!((ended.as_str(), calls), ("Succeeded", 2), "{name}");
    }
}

#[tokio::test]
async fn every_attempt_sends_the_same_call() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::new(503), Reply::new(503), Reply::ok("done")]);
    let node = Node::start(&upstream).await;
    let call = node.post("/things?x=%20&async=true").header("x-tag", "1").header("authorization", "Bearer t");
    let task = node.submit(call.body(vec![7; 300_000])).await;
    node.finished(&task).await;
    let calls = upstream.calls();
    assert_eq!(calls.len(), 3);
    for call in &calls[1..] {
        assert_eq!((&call.method, &call.target), (&calls[0].method, &calls[0].target));
        assert_eq!(call.headers, calls[0].headers);
        assert!(call.body == calls[0].body);
    }
}

#[tokio::test]
async fn a_task_between_retries_is_queued() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::new(503)]);
    let node = Setup::new(&upstream).set("upstreams.0.retry.delays", vec!["10m"]).start().await;
    let task = submit(&node, Method::GET, "x").await;
    upstream.wait_for_calls(1).await;
    node.reaches(&task, "Queued").await;
    assert_eq!(upstream.calls().len(), 1);
}

#[tokio::test]
async fn a_retry_waits_as_many_seconds_as_the_upstream_asked() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::new(429).header("retry-after", "2"), Reply::ok("done")]);
    let node = Node::start(&upstream).await;
    let task = submit(&node, Method::GET, "x").await;
    assert_eq!(node.finished(&task).await.body, "done");
    let calls = upstream.calls();
    assert_eq!(calls.len(), 2);
    assert!(calls[1].at - calls[0].at >= Duration::from_secs(2), "called again too early");
}

#[tokio::test]
async fn a_retry_waits_for_the_date_the_upstream_named() {
    let upstream = Upstream::start().await;
    let date = SystemTime::now() + Duration::from_secs(3);
    let date = httpdate::parse_http_date(&httpdate::fmt_http_date(date)).expect("a date");
    let not_before = Instant::now() + date.duration_since(SystemTime::now()).expect("it is to come");
    upstream
        .always([Reply::new(503).header("retry-after", &httpdate::fmt_http_date(date)), Reply::ok("done")]);
    let node = Node::start(&upstream).await;
    let task = submit(&node, Method::GET, "x").await;
    assert_eq!(node.finished(&task).await.body, "done");
    // Deadlines are kept in milliseconds; one of them may be lost to rounding.
    assert!(upstream.calls()[1].at + Duration::from_millis(1) >= not_before, "called again too early");
}

#[tokio::test]
async fn a_retry_after_that_means_nothing_is_ignored() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    for (name, value) in [("word", "soon"), ("negative", "-1"), ("past", "Sat, 29 Oct 1994 19:43:31 GMT")] {
        upstream.script(&path(name), [Reply::new(503).header("retry-after", value), Reply::ok("done")]);
        let (ended, _, calls) = outcome(&node, &upstream, Method::GET, name).await;
        assert_eq!((ended.as_str(), calls), ("Succeeded", 2), "{name}");
    }
}

/// A setup in which an attempt and all its timeouts fit into a deadline of ten seconds.
fn with_deadline(upstream: &Upstream) -> Setup {
    ["timeout", "idle_timeout", "total_timeout"]
        .iter()
        .fold(Setup::new(upstream), |setup, key| setup.set(&format!("upstreams.0.{key}"), "5s"))
        .set("upstreams.0.retry.deadline", "10s")
}

#[tokio::test]
async fn a_retry_after_past_the_deadline_ends_the_task_now() {
    let upstream = Upstream::start().await;
    let node = with_deadline(&upstream).start().await;
    for (name, value) in [("hour", "3600"), ("ages", "99999999999999999999")] {
        upstream.script(&path(name), [Reply::new(503).header("retry-after", value)]);
        let (ended, body, calls) = outcome(&node, &upstream, Method::GET, name).await;
        assert_eq!((ended.as_str(), calls), ("Failed", 1), "{name}");
        assert_eq!(body["error_details"]["reason"], "deadline_exceeded", "{name}");
        assert_eq!(body["error_details"]["upstream_status"], 503, "{name}");
    }
}

#[tokio::test]
async fn retries_stop_at_the_deadline_however_many_are_left() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::new(503)]);
    let setup = with_deadline(&upstream).set("upstreams.0.retry.delays", vec!["20ms", "20ms", "1m", "20ms"]);
    let node = setup.start().await;
    let (ended, body, calls) = outcome(&node, &upstream, Method::GET, "x").await;
    assert_eq!((ended.as_str(), calls), ("Failed", 3));
    assert_eq!(body["error_details"]["reason"], "deadline_exceeded");
    assert_eq!(body["error_details"]["attempts"], 3);
}

#[tokio::test]
async fn which_answers_are_transient_is_configuration() {
    let upstream = Upstream::start().await;
    let statuses = vec![toml::Value::from(418), toml::Value::from("500-503")];
    let node = Setup::new(&upstream).set("upstreams.0.retry.statuses", statuses).start().await;
    for (status, calls) in [(418, 2), (500, 2), (501, 2), (503, 2), (504, 1), (429, 1)] {
        let name = status.to_string();
        upstream.script(&path(&name), [Reply::new(status), Reply::ok("done")]);
        assert_eq!(outcome(&node, &upstream, Method::GET, &name).await.2, calls, "{status}");
    }
}

#[tokio::test]
async fn the_upstreams_own_error_is_passed_on() {
    let upstream = Upstream::start().await;
    let own = r#"{"error":"access_denied","error_description":"Ask the customer.","error_details":{"a":1}}"#;
    let strange = r#"{"error":{"code":7},"error_description":["no"]}"#;
    let long =
        format!(r#"{{"error":"{}","error_description":"{}"}}"#, "e".repeat(100_000), "d".repeat(100_000));
    upstream.script(&path("own"), [Reply::json(403, own)]);
    upstream.script(&path("strange"), [Reply::json(403, strange)]);
    upstream.script(&path("long"), [Reply::json(403, &long)]);
    upstream.script(&path("exhausted"), [Reply::json(503, r#"{"error":"provider_error"}"#)]);
    let node = Node::start(&upstream).await;

    let (_, body, _) = outcome(&node, &upstream, Method::GET, "own").await;
    assert_eq!(
        (&body["error"], &body["error_description"]),
        (&"access_denied".into(), &"Ask the customer.".into())
    );
    assert_eq!(body["error_details"]["reason"], "not_transient");
    let (_, body, calls) = outcome(&node, &upstream, Method::GET, "exhausted").await;
    assert_eq!((&body["error"], calls), (&"provider_error".into(), 7));
    assert_eq!(body["error_details"]["reason"], "retries_exhausted");
    for name in ["strange", "long"] {
        let (_, body, _) = outcome(&node, &upstream, Method::GET, name).await;
        assert_eq!(body["error"], "upstream_error", "{name}");
    }
}

#[tokio::test]
async fn an_upstream_that_hangs_holds_up_neither_its_callers_nor_another_upstream() {
    let (hanging, prompt) = (Upstream::start().await, Upstream::start().await);
    let gate = Gate::closed();
    hanging.always([Reply::ok("late").behind(&gate)]);
    let setup = Setup::new(&hanging).set("upstreams.0.concurrency", 1);
    let node = setup.add_upstream("other", "/other", &prompt.uri("/")).start().await;
    // More than are ever taken out of the store at once.
    let mut tasks = Vec::new();
    for number in 0..700 {
        tasks.push(node.submit(node.get(&format!("/{number}?async=true"))).await);
    }
    let other = node.submit(node.call(Method::GET, "/other/x?async=true")).await;
    node.finished(&other).await;
    assert_eq!(hanging.peak(), 1);
    gate.open();
    for task in &tasks {
        node.finished(task).await;
    }
    assert_eq!(hanging.calls().len(), 700);
}

#[tokio::test]
async fn no_more_attempts_are_in_flight_than_the_upstream_may_get() {
    let upstream = Upstream::start().await;
    let gate = Gate::closed();
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = Setup::new(&upstream).set("upstreams.0.concurrency", 3).start().await;
    let mut tasks = Vec::new();
    for number in 0..12 {
        tasks.push(submit(&node, Method::GET, &number.to_string()).await);
    }
    upstream.wait_for_begun(3).await;
    gate.open();
    for task in &tasks {
        node.finished(task).await;
    }
    assert_eq!((upstream.calls().len(), upstream.peak()), (12, 3));
}

#[tokio::test]
async fn a_token_goes_upstream_and_never_into_the_log() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/x?async=true").bearer("secret-token")).await;
    node.finished(&task).await;
    assert_eq!(upstream.only_call().header("authorization"), Some("Bearer secret-token"));
    assert!(!node.log().contains("secret-token"), "a token never reaches the log");
}
