//! The results endpoint: whose task it is, how far it is, what came out.

use async_compression::tokio::write::GzipEncoder;
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::support::client::Answer;
use crate::support::node::{Node, PREFIX, Setup, Task};
use crate::support::peer::Upstream;
use crate::support::reply::{Gate, Reply};
use crate::support::{eventually, within};

const UNKNOWN: &str = "0192f0c0-0000-7000-8000-000000000001";

fn has_result_headers(answer: &Answer, task: &Task, status: &str) {
    assert_eq!(answer.header("ringback-task"), Some(task.id.as_str()));
    assert_eq!(answer.header("ringback-status"), Some(status));
    assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
    assert!(answer.list("vary").contains(&"authorization".to_owned()), "{:?}", answer.headers);
}

/// A node whose tasks belong to whoever sent the `Authorization` header.
async fn opaque(upstream: &Upstream) -> Node {
    Setup::new(upstream).set("upstreams.0.identity.mode", "opaque").start().await
}

#[tokio::test]
async fn a_task_in_flight_is_running_and_says_when_to_ask_again() {
    let upstream = Upstream::start().await;
    let gate = Gate::closed();
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/accounts?async=true")).await;
    upstream.wait_for_calls(1).await;
    node.reaches(&task, "Running").await;

    let answer = node.results(&task).send().await;

    assert_eq!(answer.status, 202);
    assert_eq!(answer.keys(), ["results_uri", "status", "task_id"]);
    assert_eq!(
        answer.json(),
        json!({"results_uri": task.results_uri, "status": "Running", "task_id": task.id})
    );
    assert_eq!(answer.header("retry-after"), Some("1"));
    has_result_headers(&answer, &task, "Running");
    gate.open();
    node.finished(&task).await;
}

#[tokio::test]
async fn a_task_that_waits_for_its_turn_is_queued() {
    let upstream = Upstream::start().await;
    let gate = Gate::closed();
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = Setup::new(&upstream).set("upstreams.0.concurrency", 1).start().await;
    let first = node.submit(node.get("/1?async=true")).await;
    upstream.wait_for_calls(1).await;
    let second = node.submit(node.get("/2?async=true")).await;

    let answer = node.results(&second).send().await;

    assert_eq!(answer.status, 202);
    assert_eq!(answer.json()["status"], "Queued");
    assert_eq!(answer.header("retry-after"), Some("1"));
    has_result_headers(&answer, &second, "Queued");
    gate.open();
    node.finished(&first).await;
    node.finished(&second).await;
}

#[tokio::test]
async fn a_result_is_the_upstreams_body_and_representation_headers() {
    let upstream = Upstream::start().await;
    let representation = [
        ("content-type", "application/vnd.bank+json; charset=utf-8"),
        ("content-language", "de"),
        ("content-disposition", "attachment; filename=\"a b.json\""),
        ("etag", "\"v1\""),
        ("last-modified", "Sat, 29 Oct 1994 19:43:31 GMT"),
    ];
    let reply = representation.iter().fold(Reply::new(201), |reply, (name, value)| reply.header(name, value));
    let reply = reply.header("set-cookie", "session=secret").header("x-internal", "1");
    upstream.always([reply.header("cache-control", "public, max-age=9").body(" {\"a\" : 1}\r\n")]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/accounts?async=true")).await;

    let answer = node.finished(&task).await;

    assert_eq!(answer.status, 200, "the endpoint's status speaks of the endpoint");
    assert_eq!(answer.header("ringback-upstream-status"), Some("201"));
    assert_eq!(answer.body, " {\"a\" : 1}\r\n");
    for (name, value) in representation {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    assert_eq!((answer.header("set-cookie"), answer.header("x-internal")), (None, None));
    assert_eq!(answer.header("content-length"), Some("12"));
    has_result_headers(&answer, &task, "Succeeded");
}

#[tokio::test]
async fn a_result_may_be_read_again_and_after_a_restart() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::ok("the same")]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/accounts?async=true")).await;
    for _ in 0..3 {
        assert_eq!(node.finished(&task).await.body, "the same");
    }
    let node = node.kill9().await.start().await;
    assert_eq!(node.finished(&task).await.body, "the same");
    assert_eq!(upstream.calls().len(), 1);
}

#[tokio::test]
async fn an_answer_without_content_is_a_result_without_content() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::new(204).bodyless()]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.call(Method::DELETE, &format!("{PREFIX}/things/1?async=true"))).await;
    let answer = node.finished(&task).await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(answer.header("ringback-upstream-status"), Some("204"));
}

#[tokio::test]
async fn a_large_result_comes_back_byte_for_byte() {
    let upstream = Upstream::start().await;
    let body: Vec<u8> =
        (0..20_000_003_u32).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    upstream.always([Reply::new(200).header("content-type", "application/octet-stream").body(body.clone())]);
    let node = Setup::new(&upstream).set("upstreams.0.max_result_bytes", "32MB").start().await;
    let task = node.submit(node.get("/file?async=true")).await;
    let answer = node.finished(&task).await;
    assert!(answer.body == body, "{} bytes came back, or others than were sent", answer.body.len());
}

/// Results are kept in pieces of 256 KiB: none may be lost or doubled where one ends.
#[tokio::test]
async fn a_result_is_whole_wherever_its_pieces_end() {
    const PIECE: usize = 256 * 1024;
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    for size in [1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE - 1, 2 * PIECE, 2 * PIECE + 1, 3 * PIECE] {
        let body: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).expect("below 251")).collect();
        upstream.always([Reply::ok(body.clone())]);
        let task = node.submit(node.get("/file?async=true")).await;
        let answer = node.finished(&task).await;
        assert!(answer.body == body, "{size} bytes became {}", answer.body.len());
        assert_eq!(answer.header("content-length"), Some(size.to_string().as_str()));
    }
}

#[tokio::test]
async fn a_result_over_the_limit_fails_the_task() {
    let upstream = Upstream::start().await;
    upstream.script(&format!("{PREFIX}/declared"), [Reply::new(200).zeros(2000)]);
    upstream.script(&format!("{PREFIX}/chunked"), [Reply::new(200).chunks(vec![(None, "0123456789"); 200])]);
    upstream.script(&format!("{PREFIX}/exact"), [Reply::new(200).zeros(1000)]);
    let node = Setup::new(&upstream).set("upstreams.0.max_result_bytes", 1000).start().await;
    for path in ["/declared", "/chunked"] {
        let task = node.submit(node.get(&format!("{path}?async=true"))).await;
        let failed = node.failed(&task).await;
        assert_eq!(failed["error"], "result_too_large", "{path}");
        assert_eq!(upstream.calls_of(&format!("{PREFIX}{path}")).len(), 1, "{path}");
    }
    let task = node.submit(node.get("/exact?async=true")).await;
    assert_eq!(node.finished(&task).await.body.len(), 1000);
}

#[tokio::test]
async fn a_failed_task_says_why_in_a_200() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::new(404).header("content-type", "text/html").body("<h1>gone</h1>")]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/accounts?async=true")).await;

    let answer = node.finished(&task).await;

    assert_eq!(answer.status, 200);
    assert_eq!(answer.keys(), ["status", "task_id", "error", "error_description", "error_details"]);
    let body = answer.json();
    assert_eq!((&body["status"], &body["task_id"]), (&json!("Failed"), &json!(task.id)));
    assert_eq!(body["error"], "upstream_error");
    assert!(body["error_description"].as_str().is_some_and(|sentence| sentence.ends_with('.')));
    assert_eq!(body["error_details"]["reason"], "not_transient");
    assert_eq!(body["error_details"]["attempts"], 1);
    assert_eq!(body["error_details"]["upstream_status"], 404);
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json")));
    assert_eq!(answer.header("ringback-error"), None, "the request for the results did not fail");
    has_result_headers(&answer, &task, "Failed");
}

#[tokio::test]
async fn a_trailing_slash_changes_nothing() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::ok("done")]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/accounts?async=true")).await;
    node.finished(&task).await;
    let answer = node.call(Method::GET, &format!("{}/", task.path())).send().await;
    assert_eq!((answer.status, answer.body.as_ref()), (200, b"done".as_slice()));
    has_result_headers(&answer, &task, "Succeeded");
}

#[tokio::test]
async fn head_answers_as_get_without_the_body() {
    let upstream = Upstream::start().await;
    let gate = Gate::closed();
    upstream.always([Reply::ok("done").header("etag", "\"v1\"").behind(&gate)]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/accounts?async=true")).await;
    upstream.wait_for_calls(1).await;
    node.reaches(&task, "Running").await;
    let same = async |status| {
        let get = node.results(&task).send().await;
        let head = node.call(Method::HEAD, task.path()).send().await;
        assert_eq!((head.status, head.body.len()), (get.status, 0));
        assert_eq!(get.status, status);
        let (mut get, mut head) = (get.headers, head.headers);
        get.remove("date");
        head.remove("date");
        assert_eq!(get, head);
    };
    same(202).await;
    gate.open();
    node.finished(&task).await;
    same(200).await;
}

/// Everything that is answered from here.
#[tokio::test]
async fn head_answers_as_get_without_the_body_wherever_we_answer() {
    let upstream = Upstream::start().await;
    upstream.script(&format!("{PREFIX}/large"), [Reply::new(200).zeros(600_000)]);
    upstream.script(&format!("{PREFIX}/error"), [Reply::json(403, r#"{"error":"no"}"#)]);
    upstream.script(&format!("{PREFIX}/empty"), [Reply::new(204).bodyless()]);
    upstream.script(&format!("{PREFIX}/cut"), [Reply::cut()]);
    let node = opaque(&upstream).await;
    let mut targets = vec![
        (404, String::from("/elsewhere")),
        (400, format!("{PREFIX}/x?async=maybe")),
        (401, format!("{PREFIX}/x?async=true&nobody")),
        (200, String::from("/.well-known/jwks")),
        (404, format!("{PREFIX}/results/nonsense")),
    ];
    for (path, status, response) in [
        ("large", 200, 200),
        ("error", 200, 403),
        ("empty", 200, 204),
        ("cut", 200, 404),
        ("erased", 410, 410),
    ] {
        let task = node.submit(node.get(&format!("/{path}?async=true")).bearer("john")).await;
        let ended = async || (node.results(&task).bearer("john").send().await.status == 200).then_some(());
        eventually("the task is finished", ended).await;
        if path == "erased" {
            node.call(Method::DELETE, task.path()).bearer("john").send().await;
        }
        targets.push((status, task.path().to_owned()));
        targets.push((response, format!("{}/response", task.path())));
    }
    for (status, target) in targets {
        let call = |method| {
            let call = node.call(method, &target);
            if target.ends_with("nobody") { call } else { call.bearer("john") }
        };
        let (get, head) = (call(Method::GET).send().await, call(Method::HEAD).send().await);
        assert_eq!((get.status, head.status, head.body.len()), (status, status, 0), "{target}");
        let length = (status != 204).then(|| get.body.len().to_string());
        assert_eq!(head.header("content-length"), length.as_deref(), "{target}");
        let (mut get, mut head) = (get.headers, head.headers);
        get.remove("date");
        head.remove("date");
        assert_eq!(get, head, "{target}");
    }
}

#[tokio::test]
async fn the_tasks_of_others_unknown_ids_and_malformed_ids_are_one_and_the_same_answer() {
    let upstream = Upstream::start().await;
    let node = opaque(&upstream).await;
    let task = node.submit(node.get("/accounts?async=true").bearer("john")).await;
    let read = async |id: &str, token: &str| {
        let answer = node.get(&format!("/results/{id}")).bearer(token).send().await;
        let mut headers = answer.headers.clone();
        headers.remove("date");
        (answer, headers)
    };
    // The owner sees it, so the test cannot pass by seeing nothing at all.
    assert_ne!(read(&task.id, "john").await.0.status, 404);

    let (others, headers) = read(&task.id, "jane").await;

    others.is_refusal(404, "task_not_found");
    let upper = task.id.to_uppercase();
    let simple = task.id.replace('-', "");
    for id in [UNKNOWN, "nonsense", "%00", "0", &format!("{}x", task.id), &simple, &upper, "%F0%9F%92%A9"] {
        let (answer, other_headers) = read(id, "jane").await;
        assert_eq!((answer.status, &answer.body), (others.status, &others.body), "{id}");
        assert_eq!(headers, other_headers, "{id}");
    }
}

#[tokio::test]
async fn what_lies_below_a_task_of_others_does_not_exist_either() {
    let upstream = Upstream::start().await;
    let node = opaque(&upstream).await;
    let task = node.submit(node.get("/accounts?async=true").bearer("john")).await;
    let answer = node.get(&format!("/results/{}/anything", task.id)).bearer("jane").send().await;
    answer.is_refusal(404, "task_not_found");
    assert_eq!(upstream.calls_of(&format!("{PREFIX}/results/{}/anything", task.id)).len(), 0);
}

#[tokio::test]
async fn the_results_path_without_an_id_is_the_upstreams() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::ok("yours")]);
    let node = Node::start(&upstream).await;
    for target in ["/results", "/results/", "/results?x=1", "/resultsets/1"] {
        assert_eq!(node.get(target).send().await.body, "yours", "{target}");
        assert_eq!(upstream.calls().last().expect("it was proxied").target, format!("{PREFIX}{target}"));
    }
}

#[tokio::test]
async fn the_results_path_can_be_moved() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::ok("yours")]);
    let node = Setup::new(&upstream).set("upstreams.0.results_path", "/async/outcomes").start().await;
    let task = node.submit(node.get("/accounts?async=true")).await;
    assert_eq!(task.path(), format!("{PREFIX}/async/outcomes/{}", task.id));
    assert_eq!(node.finished(&task).await.body, "yours");
    let id = &task.id;
    assert_eq!(node.get(&format!("/results/{id}")).send().await.body, "yours", "now it is the upstream's");
    assert_eq!(upstream.calls().len(), 2);
}

#[tokio::test]
async fn results_without_credentials_are_refused() {
    let upstream = Upstream::start().await;
    let node = opaque(&upstream).await;
    let task = node.submit(node.get("/accounts?async=true").bearer("john")).await;
    let answer = node.results(&task).send().await;
    answer.is_refusal(401, "invalid_token");
    assert!(answer.header("www-authenticate").is_some());
}

#[tokio::test]
async fn a_compressed_result_is_decoded_for_a_reader_that_excludes_its_coding() {
    let upstream = Upstream::start().await;
    let mut encoder = GzipEncoder::new(Vec::new());
    encoder.write_all(b"plain text").await.expect("gzip into memory");
    encoder.shutdown().await.expect("gzip into memory");
    let gzip = encoder.into_inner();
    let reply = Reply::ok(gzip.clone()).header("content-encoding", "gzip").header("etag", "\"v1\"");
    upstream.always([reply]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/file?async=true").header("accept-encoding", "gzip")).await;
    node.finished(&task).await;
    for accepts in ["gzip", "br, gzip;q=0.1", "*"] {
        let answer = node.results(&task).header("accept-encoding", accepts).send().await;
        assert_eq!((answer.status, &answer.body), (200, &gzip.clone().into()), "{accepts}");
        assert_eq!(answer.header("content-encoding"), Some("gzip"), "{accepts}");
    }
    for excludes in ["identity", "gzip;q=0", "br", "*;q=0, identity", ""] {
        let answer = node.results(&task).header("accept-encoding", excludes).send().await;
        assert_eq!((answer.status, answer.body.as_ref()), (200, b"plain text".as_slice()), "{excludes}");
        assert_eq!(answer.header("content-encoding"), None, "{excludes}");
        assert!(answer.header("content-length").is_none_or(|length| length == "10"), "{excludes}");
    }
}

#[tokio::test]
async fn a_damaged_compressed_result_is_never_a_whole_answer() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::ok("this is not gzip").header("content-encoding", "gzip")]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/file?async=true")).await;
    let answer = node.finished(&task).await;
    assert_eq!(answer.body, "this is not gzip", "as it came it can still be read");
    let decoded = node.results(&task).header("accept-encoding", "identity").try_send().await;
    assert!(decoded.is_err() || decoded.is_ok_and(|answer| answer.status != 200));
}

/// Counts a body as it comes, without keeping it.
async fn size_of(answer: http::Response<hyper::body::Incoming>) -> u64 {
    let mut body = answer.into_body();
    let mut count = 0;
    while let Some(frame) = within("the next piece came", body.frame()).await {
        count += frame.expect("the body is whole").data_ref().map_or(0, Bytes::len) as u64;
    }
    count
}

#[tokio::test]
async fn the_largest_result_goes_in_and_comes_out_in_constant_memory() {
    const LARGEST: u64 = 64_000_000;
    let upstream = Upstream::start().await;
    upstream.always([Reply::new(200).zeros(LARGEST)]);
    let node = Node::start(&upstream).await;
    let before = node.peak_memory();

    let task = node.submit(node.get("/file?async=true")).await;
    eventually("the result is kept", async || {
        (node.call(Method::HEAD, task.path()).send().await.status == 200).then_some(())
    })
    .await;
    assert_eq!(size_of(node.results(&task).open().await.expect("the head arrives")).await, LARGEST);
    let response = format!("{}/response", task.path());
    let whole = node.call(Method::GET, &response).open().await.expect("the head arrives");
    assert_eq!(size_of(whole).await, LARGEST);
    let last = node.results(&task).header("range", "bytes=-10").open().await.expect("the head arrives");
    assert_eq!((last.status().as_u16(), size_of(last).await), (206, 10));

    let grown = node.peak_memory() - before;
    assert!(grown < LARGEST / 3 * 2, "the node took {grown} bytes more");
}
