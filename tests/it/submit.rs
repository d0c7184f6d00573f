//! From a call to a task: what is answered, what is stored, what the upstream gets to see.

use bytes::Bytes;
use futures_util::stream;
use http::Method;

use crate::support::client::encode;
use crate::support::node::{Node, PREFIX, Setup, Task};
use crate::support::peer::Upstream;
use crate::support::reply::{Gate, Reply};

#[tokio::test]
async fn a_call_with_async_true_is_answered_with_its_task() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;

    let answer = node.get("/accounts?async=true").send().await;

    assert_eq!(answer.status, 202);
    assert_eq!(answer.keys(), ["results_uri", "status", "task_id"]);
    let task = Task::from(&answer);
    assert_eq!(answer.json()["status"], "Queued");
    assert_eq!(task.results_uri, format!("http://{}{PREFIX}/results/{}", node.address(), task.id));
    assert_eq!(answer.header("location"), Some(task.results_uri.as_str()));
    assert_eq!(answer.header("ringback-task"), Some(task.id.as_str()));
    assert_eq!(answer.header("ringback-error"), None);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json")));
    let id: uuid::Uuid = task.id.parse().expect("a task id is a UUID");
    assert_eq!(id.to_string(), task.id, "a task id is written in lower case");
}

#[tokio::test]
async fn async_true_is_understood_in_any_letter_case() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    for value in ["true", "TRUE", "True", "tRuE"] {
        let answer = node.get(&format!("/accounts?async={value}")).send().await;
        assert_eq!(answer.status, 202, "async={value}");
    }
}

#[tokio::test]
async fn the_upstream_sees_the_target_without_our_parameters_and_nothing_else_changed() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let receiver = encode(&upstream.uri("/hook"));
    let cases = [
        ("/a?async=true".to_owned(), "/a"),
        (format!("/b?async=true&webhook_uri={receiver}"), "/b"),
        (format!("/c?webhook_uri={receiver}&x=1&async=true"), "/c?x=1"),
        ("/d?x=1&async=true&y=2".to_owned(), "/d?x=1&y=2"),
        ("/e?async=true&x=%7e%7E+%2B&x=&y&=z".to_owned(), "/e?x=%7e%7E+%2B&x=&y&=z"),
        ("/f/%2F/%41;p=1?x=/?&async=true".to_owned(), "/f/%2F/%41;p=1?x=/?"),
        ("/g/?async=true&asynchronous=true&xasync=1".to_owned(), "/g/?asynchronous=true&xasync=1"),
    ];
    for (target, sent) in cases {
        let task = node.submit(node.get(&target)).await;
        node.finished(&task).await;
        let calls: Vec<_> = upstream.calls().into_iter().filter(|call| call.path() != "/hook").collect();
        let call = calls.last().expect("the upstream was called");
        assert_eq!(call.target, format!("{PREFIX}{sent}"), "{target}");
    }
}

#[tokio::test]
async fn async_false_is_proxied_without_our_parameters() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let before = node.rows();
    for value in ["false", "FALSE"] {
        let target = format!("/accounts?x=1&async={value}&webhook_uri=https%3A%2F%2Freceiver.example%2F");
        let answer = node.get(&target).send().await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("ringback-task"), None);
    }
    assert!(upstream.calls().iter().all(|call| call.target == format!("{PREFIX}/accounts?x=1")));
    assert_eq!(node.rows(), before);
}

#[tokio::test]
async fn a_webhook_uri_without_async_belongs_to_the_upstream() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let before = node.rows();
    let answer = node.get("/accounts?webhook_uri=ftp%3Anonsense&webhook_uri=2").send().await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        upstream.only_call().target,
        format!("{PREFIX}/accounts?webhook_uri=ftp%3Anonsense&webhook_uri=2")
    );
    assert_eq!(node.rows(), before);
}

#[tokio::test]
async fn every_method_can_be_called_asynchronously() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "REPORT"] {
        let method: Method = method.parse().expect("a method");
        let call = node.call(method.clone(), &format!("{PREFIX}/things?async=true"));
        let task = node.submit(call).await;
        assert_eq!(node.finished(&task).await.header("ringback-status"), Some("Succeeded"), "{method}");
        assert_eq!(upstream.calls().last().expect("the upstream was called").method, method.as_str());
    }
}

#[tokio::test]
async fn a_head_call_becomes_a_task_whose_result_has_no_body() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;

    let answer = node.call(Method::HEAD, &format!("{PREFIX}/things?async=true")).send().await;

    assert_eq!((answer.status, answer.body.len()), (202, 0));
    let result = node.finished(&Task::from(&answer)).await;
    assert_eq!((result.status, result.body.len()), (200, 0));
    assert_eq!(upstream.only_call().method, "HEAD");
}

#[tokio::test]
async fn a_body_arrives_at_the_upstream_byte_for_byte() {
    let upstream = Upstream::start().await;
    let node = Setup::new(&upstream).set("server.max_body_bytes", "16MB").start().await;
    let all_bytes: Vec<u8> = (0..=255).collect();
    for size in [0, 1, 255, 65_536, 262_144, 262_145, 524_288, 9_000_000] {
        let body: Vec<u8> = all_bytes.iter().copied().cycle().take(size).collect();
        let call = node.post("/upload?async=true").header("content-type", "application/x-things; v=1");
        let call = call.header("content-length", &size.to_string());
        let task = node.submit(call.body(body.clone())).await;
        node.finished(&task).await;
        let calls = upstream.calls();
        let call = calls.last().expect("the upstream was called");
        assert!(call.body == body, "a body of {size} bytes was changed");
        assert_eq!(call.header("content-type"), Some("application/x-things; v=1"));
        assert_eq!(call.header("content-length"), Some(size.to_string().as_str()));
    }
}

#[tokio::test]
async fn a_body_of_undeclared_length_arrives_whole() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let pieces = ["one ", "two ", "three"].map(|piece| Bytes::from_static(piece.as_bytes()));
    let task = node.submit(node.post("/upload?async=true").stream(stream::iter(pieces))).await;
    node.finished(&task).await;
    assert_eq!(upstream.only_call().body, b"one two three");
}

#[tokio::test]
async fn headers_about_parts_conditions_and_expectations_stay_here_and_all_others_go_on() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let kept = [
        ("accept", "application/json"),
        ("accept-language", "de, en;q=0.5"),
        ("authorization", "Bearer abc.def"),
        ("idempotency-key", "k-1"),
        ("x-psu-ip", "203.0.113.7"),
        ("user-agent", "bank-app/1"),
        ("cookie", "a=1; b=2"),
    ];
    let dropped = [
        ("range", "bytes=0-1"),
        ("if-none-match", "\"x\""),
        ("if-match", "\"y\""),
        ("if-modified-since", "Sat, 29 Oct 1994 19:43:31 GMT"),
        ("if-unmodified-since", "Sat, 29 Oct 1994 19:43:31 GMT"),
        ("if-range", "\"z\""),
        ("expect", "100-continue"),
    ];
    let call = node.post("/things?async=true").body("{}");
    let call = kept.iter().chain(&dropped).fold(call, |call, (name, value)| call.header(name, value));
    let task = node.submit(call).await;
    node.finished(&task).await;
    let call = upstream.only_call();
    for (name, value) in kept {
        assert_eq!(call.header(name), Some(value), "{name}");
    }
    for (name, _) in dropped {
        assert_eq!(call.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn a_header_that_comes_twice_goes_on_twice_and_in_order() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let call = node.get("/things?async=true").header("x-tag", "one").header("x-tag", "two");
    let task = node.submit(call).await;
    node.finished(&task).await;
    assert_eq!(upstream.only_call().all("x-tag"), ["one", "two"]);
}

#[tokio::test]
async fn the_results_uri_never_comes_from_the_callers_headers() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let call = node
        .get("/accounts?async=true")
        .header("host", "evil.example")
        .header("x-forwarded-host", "evil.example")
        .header("forwarded", "host=evil.example;proto=https");
    let answer = call.send().await;
    let expected = format!("http://{}{PREFIX}/results/", node.address());
    assert!(Task::from(&answer).results_uri.starts_with(&expected));
    assert!(answer.header("location").is_some_and(|location| location.starts_with(&expected)));
}

#[tokio::test]
async fn the_results_uri_comes_from_public_url() {
    let upstream = Upstream::start().await;
    let node = Setup::new(&upstream).set("server.public_url", "https://api.bank.example").start().await;
    let task = node.submit(node.get("/accounts?async=true")).await;
    assert_eq!(task.results_uri, format!("https://api.bank.example{PREFIX}/results/{}", task.id));
    assert_eq!(node.finished(&task).await.status, 200);
}

#[tokio::test]
async fn a_task_is_on_stable_storage_before_it_is_answered() {
    let upstream = Upstream::start().await;
    let gate = Gate::closed();
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = Node::start(&upstream).await;
    let mut tasks = Vec::new();
    for number in 0..20 {
        tasks.push(node.submit(node.get(&format!("/accounts/{number}?async=true"))).await);
    }
    let setup = node.kill9().await;
    gate.open();
    let node = setup.start().await;
    for task in &tasks {
        assert_eq!(node.finished(task).await.body, "done");
    }
}

#[tokio::test]
async fn a_full_backlog_refuses_rather_than_queues() {
    let upstream = Upstream::start().await;
    let gate = Gate::closed();
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = Setup::new(&upstream).set("server.max_queued_tasks", 2).start().await;
    let first = node.submit(node.get("/1?async=true")).await;
    let second = node.submit(node.get("/2?async=true")).await;
    // Running is settled: from here on no row changes until the gate opens.
    upstream.wait_for_calls(2).await;
    let before = node.rows();

    let refused = node.get("/3?async=true").send().await;

    refused.is_refusal(503, "backlog_full");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(node.rows(), before);
    gate.open();
    node.finished(&first).await;
    node.finished(&second).await;
    let third = node.submit(node.get("/4?async=true")).await;
    node.finished(&third).await;
    assert_eq!(upstream.calls_of(&format!("{PREFIX}/3")).len(), 0, "a refused call is not sent");
}
