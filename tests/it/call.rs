//! `ringback call`, as a person and as a script uses it.

use std::process::ExitStatus;

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::node::{Node, PREFIX, Setup};
use crate::support::peer::Upstream;
use crate::support::process::{Ended, Process};
use crate::support::receiver::Receiver;
use crate::support::reply::{Gate, Reply};

fn start(args: &[&str], env: &[(&str, &str)]) -> Process {
    let args: Vec<_> = ["call"].iter().chain(args).map(|&arg| arg.to_owned()).collect();
    let env: Vec<_> = env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    Process::start(&args, &env)
}

async fn call(args: &[&str]) -> Ended {
    start(args, &[]).ended().await
}

fn url(node: &Node, path: &str) -> String {
    format!("http://{}{PREFIX}{path}", node.address())
}

#[track_caller]
fn exit(status: ExitStatus, code: i32) {
    assert_eq!(status.code(), Some(code));
}

fn one_object(ended: &Ended) -> Value {
    assert_eq!(ended.stdout.len(), 1, "{:?}", ended.stdout);
    serde_json::from_str(&ended.stdout[0]).expect("one JSON object")
}

/// With a token each caller must have.
async fn guarded(upstream: &Upstream) -> Node {
    Setup::new(upstream).set("upstreams.0.identity.mode", "opaque").start().await
}

#[tokio::test]
async fn the_result_goes_to_the_output_and_everything_else_to_standard_error() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::json(200, "{\"money\":1}\n")]);
    let node = Node::start(&upstream).await;

    let ended = call(&["get", &url(&node, "/accounts?a=b")]).await;

    exit(ended.status, 0);
    assert_eq!(ended.stdout, ["{\"money\":1}"]);
    let said = ended.stderr.join("\n");
    for part in ["task ", "results http://", "✓ Succeeded", "API 200", "application/json", "12 bytes"] {
        assert!(said.contains(part), "no `{part}` in {said}");
    }
    assert!(!said.contains('\x1b') && !said.contains('\r'), "plain when not on a terminal: {said:?}");
    let sent = upstream.only_call();
    assert_eq!((sent.method.as_str(), sent.target.as_str()), ("GET", "/data/v1/accounts?a=b"));
}

#[tokio::test]
async fn headers_body_and_webhook_uri_are_sent_as_typed() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let node = Node::start(&upstream).await;
    let hook = receiver.peer().uri("/hook?a=b&c");

    let target = url(&node, "/pay");
    let args = ["POST", &target, "-H", "X-Tag: one", "-d", "{\"to\":\"jane\"}", "--webhook-uri", &hook];
    exit(call(&args).await.status, 0);

    let sent = upstream.only_call();
    assert_eq!(sent.body, b"{\"to\":\"jane\"}");
    assert_eq!((sent.header("x-tag"), sent.header("content-type")), (Some("one"), Some("application/json")));
    assert_eq!(receiver.wait_for(1).await[0].target, "/hook?a=b&c");
}

#[tokio::test]
async fn the_token_comes_from_a_file_or_the_environment() {
    let upstream = Upstream::start().await;
    let node = guarded(&upstream).await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("token");
    std::fs::write(&file, "of-the-file\n").expect("a file");
    let target = url(&node, "/x");

    let by_file = call(&["GET", &target, "--token-file", &file.display().to_string()]).await;
    let by_variable = start(&["GET", &target], &[("RINGBACK_TOKEN", "of-the-environment")]).ended().await;

    exit(by_file.status, 0);
    exit(by_variable.status, 0);
    let tokens: Vec<_> =
        upstream.calls().iter().map(|call| call.header("authorization").map(str::to_owned)).collect();
    assert_eq!(tokens, [Some("Bearer of-the-file".to_owned()), Some("Bearer of-the-environment".to_owned())]);
}

#[tokio::test]
async fn a_token_among_the_arguments_is_refused_and_not_repeated() {
    let upstream = Upstream::start().await;
    let node = guarded(&upstream).await;
    let ended = call(&["GET", &url(&node, "/x"), "-H", "Authorization: Bearer hush"]).await;
    exit(ended.status, 1);
    let said = ended.stderr.join("\n");
    assert!(said.contains("--token-file") && !said.contains("hush"), "{said}");
    upstream.saw_nobody();
}

#[tokio::test]
async fn a_failed_task_is_exit_code_3_and_says_why() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::json(422, r#"{"error":"iban_unknown","error_description":"No such account."}"#)]);
    let node = Node::start(&upstream).await;
    let ended = call(&["POST", &url(&node, "/pay"), "-d", "x"]).await;
    exit(ended.status, 3);
    assert!(ended.stdout.is_empty(), "{:?}", ended.stdout);
    let said = ended.stderr.join("\n");
    for part in
        ["✗ Failed", "iban_unknown", "No such account.", "1 attempt: another one would get the same answer"]
    {
        assert!(said.contains(part), "no `{part}` in {said}");
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_told_in_words() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::cut()]);
    let node = Node::start(&upstream).await;
    let ended = call(&["POST", &url(&node, "/pay"), "-d", "10 to jane"]).await;
    exit(ended.status, 3);
    let said = ended.stderr.join("\n");
    assert!(said.contains("nobody knows whether the call took effect: sent at 20"), "{said}");
    assert!(said.contains("10 bytes of its body, no answer (connection lost)"), "{said}");
}

#[tokio::test]
async fn a_script_gets_one_json_object() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    upstream.script(&format!("{PREFIX}/good"), [Reply::json(200, r#"{"money":[1]}"#)]);
    upstream.script(&format!("{PREFIX}/text"), [Reply::ok("a,b")]);
    upstream.script(&format!("{PREFIX}/bad"), [Reply::json(404, r#"{"error":"gone"}"#)]);

    let good = call(&["GET", &url(&node, "/good"), "--json"]).await;
    let text = call(&["GET", &url(&node, "/text"), "--json"]).await;
    let bad = call(&["GET", &url(&node, "/bad"), "--json"]).await;

    exit(good.status, 0);
    assert!(good.stderr.is_empty(), "{:?}", good.stderr);
    let object = one_object(&good);
    assert_eq!((&object["status"], &object["result"]), (&"Succeeded".into(), &json!({ "money": [1] })));
    assert_eq!(object["upstream_status"], 200);
    assert!(object["task_id"].is_string() && object["elapsed_ms"].is_u64(), "{object}");
    assert_eq!(one_object(&text)["result_text"], "a,b");
    exit(bad.status, 3);
    let object = one_object(&bad);
    assert_eq!((&object["status"], &object["error"]), (&"Failed".into(), &"gone".into()));
    assert_eq!(object["error_details"]["attempts"], 1);
}

#[tokio::test]
async fn a_saved_result_is_whole_and_byte_for_byte() {
    let upstream = Upstream::start().await;
    let bytes: Vec<u8> = (0..=255).cycle().take(700_000).collect();
    upstream.always([Reply::new(200).header("content-type", "application/pdf").body(bytes.clone())]);
    let node = Node::start(&upstream).await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("statement.pdf");

    let ended = call(&["GET", &url(&node, "/x"), "-o", &file.display().to_string()]).await;

    exit(ended.status, 0);
    assert!(ended.stdout.is_empty());
    assert!(std::fs::read(&file).expect("the file is there") == bytes);
    let names: Vec<_> =
        std::fs::read_dir(&dir).expect("a directory").flatten().map(|e| e.file_name()).collect();
    assert_eq!(names, ["statement.pdf"], "nothing else is left behind");
}

#[tokio::test]
async fn waiting_ends_after_the_time_given_and_the_task_goes_on() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = Node::start(&upstream).await;
    let ended = call(&["GET", &url(&node, "/x"), "--timeout", "300ms"]).await;
    exit(ended.status, 4);
    let said = ended.stderr.join("\n");
    let results_uri = said.split("its result will be at ").nth(1).expect("it says where").trim().to_owned();
    gate.open();
    let task = crate::support::node::Task { id: String::new(), results_uri };
    assert_eq!(node.finished(&task).await.body, "done");
}

#[tokio::test]
async fn a_call_that_is_refused_says_so_in_ringbacks_words() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let refused = call(&["GET", &url(&node, "/x"), "--webhook-uri", "ftp://a/"]).await;
    exit(refused.status, 1);
    assert!(refused.stderr.join("\n").contains("400: validation_error"), "{:?}", refused.stderr);
}

#[tokio::test]
async fn an_address_without_ringback_is_told_from_a_task() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::new(202), Reply::ok("hello")]);
    for text in ["names no task", "of status 200, is not one of Ringback's"] {
        let ended = call(&["GET", &upstream.uri("/x")]).await;
        exit(ended.status, 1);
        assert!(ended.stderr.join("\n").contains(text), "{:?}", ended.stderr);
    }
}

#[tokio::test]
async fn nobody_listening_and_bad_arguments_are_one_sentence_each() {
    for (args, code, part) in [
        (&["GET", "http://127.0.0.1:1/x"][..], 1, "127.0.0.1:1"),
        (&["GET", "nonsense"], 1, "not a URL"),
        (&["GET", "127.0.0.1:8080/x"], 1, "not a URL"),
        (&["GET", "ftp://127.0.0.1/"], 1, "neither http nor https"),
        (&["GET", "http://127.0.0.1:99999/"], 1, "port"),
        (&["GET", "http://john@127.0.0.1:1/"], 1, "--token-file"),
        (&["GET", "http://127.0.0.1:1/", "--timeout", "soon"], 2, "30s or 5m"),
        (&["GET", "http://127.0.0.1:1/", "--token-file", "/"], 1, "cannot read /"),
        (&["GET", "http://127.0.0.1:1/", "--token-file", "/dev/null"], 1, "token is empty"),
        (&["GET", "http://127.0.0.1:1/", "--ca-file", "/nowhere"], 1, "/nowhere"),
        (&["GET", "http://127.0.0.1:1/", "-H", "@/nowhere"], 1, "/nowhere"),
        (&["GET", "nonsense"], 1, "scheme or host is missing"),
        (&["GET", "http://127.0.0.1:1/?async=false"], 1, "leave it out"),
        (&["GET", "http://127.0.0.1:1/", "-H", "Prefer: wait=3"], 1, "leave it out"),
        (&["G T", "http://127.0.0.1:1/"], 1, "not a method"),
        (&["GET", "http://127.0.0.1:1/", "-H", "nonsense"], 1, "header 1"),
        (&["GET", "http://127.0.0.1:1/", "-d", "@/nowhere"], 1, "/nowhere"),
        (&["GET", "http://127.0.0.1:1/", "--token-file", "/nowhere"], 1, "/nowhere"),
        (&["GET"], 2, "URL"),
    ] {
        let ended = call(args).await;
        exit(ended.status, code);
        assert!(ended.stderr.join("\n").contains(part), "{args:?}: {:?}", ended.stderr);
        assert!(ended.stdout.is_empty());
    }
}

#[tokio::test]
async fn the_token_goes_only_to_the_address_that_was_called() {
    let (upstream, elsewhere) = (Upstream::start().await, Upstream::start().await);
    let node = Setup::new(&upstream)
        .set("upstreams.0.identity.mode", "opaque")
        .set("server.public_url", elsewhere.uri(""))
        .start()
        .await;
    let ended = start(&["GET", &url(&node, "/x")], &[("RINGBACK_TOKEN", "hush")]).ended().await;
    exit(ended.status, 0);
    elsewhere.saw_nobody();
}

#[tokio::test]
async fn a_node_that_restarts_meanwhile_is_waited_for() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    upstream.always([Reply::ok("done").behind(&gate)]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let node = Setup::new(&upstream).set("server.listen", address).start().await;
    let mut process = start(&["GET", &url(&node, "/x")], &[]);
    upstream.wait_for_calls(1).await;
    let setup = node.kill9().await;
    gate.open();
    let _node = setup.start().await;
    let ended = process.ended().await;
    exit(ended.status, 0);
    assert_eq!(ended.stdout, ["done"]);
}

#[tokio::test]
async fn attempts_are_followed_as_they_happen() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::new(503), Reply::new(503), Reply::ok("done")]);
    let node = Setup::new(&upstream).set("upstreams.0.retry.delays", vec!["200ms"; 6]).start().await;
    let human = call(&["GET", &url(&node, "/x")]).await;
    upstream.always([Reply::new(503), Reply::ok("done")]);
    let script = call(&["GET", &url(&node, "/x"), "--json"]).await;

    exit(human.status, 0);
    let said = human.stderr.join("\n");
    for part in ["Queued after attempt 2, the next one at ", "✓ Succeeded", "3 attempts"] {
        assert!(said.contains(part), "no `{part}` in {said}");
    }
    assert_eq!(one_object(&script)["attempts"], 2);
}

#[tokio::test]
async fn who_forgot_the_token_is_told_where_to_give_it() {
    let upstream = Upstream::start().await;
    let node = guarded(&upstream).await;
    let ended = call(&["GET", &url(&node, "/x")]).await;
    exit(ended.status, 1);
    let said = ended.stderr.join("\n");
    assert!(said.contains("--token-file") && said.contains("RINGBACK_TOKEN"), "{said}");
    upstream.saw_nobody();
}

#[tokio::test]
async fn a_result_that_cannot_be_saved_says_where() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let ended = call(&["GET", &url(&node, "/x"), "-o", "/nowhere/result"]).await;
    exit(ended.status, 1);
    assert!(
        ended.stderr.join("\n").contains("cannot save the result to /nowhere/result"),
        "{:?}",
        ended.stderr
    );
    upstream.saw_nobody();
}

/// Interrupted by Ctrl-C, as soon as it has said something.
async fn left(args: &[&str], said: &str) -> Ended {
    let mut process = start(args, &[]);
    process.said(said, |line| line.contains(said).then_some(())).await;
    process.signal("INT");
    process.ended().await
}

#[tokio::test]
async fn a_call_that_is_left_says_where_its_result_will_be() {
    let (upstream, gate) = (Upstream::start().await, Gate::closed());
    upstream.always([Reply::ok("done").behind(&gate)]);
    let node = Setup::new(&upstream).set("server.max_waiters", 1).start().await;
    let task = node.submit(node.get("/x?async=true")).await;
    // With --json nothing is said before the end; that it follows its task shows in the one place it takes.
    let mut process = start(&["GET", &url(&node, "/y"), "--json"], &[]);
    eventually("the call follows its task", async || {
        let stream = node.results(&task).header("accept", "text/event-stream").open().await.ok()?;
        (stream.status() == 503).then_some(())
    })
    .await;
    process.signal("INT");
    let ended = process.ended().await;
    exit(ended.status, 4);
    assert_eq!(one_object(&ended)["status"], Value::Null);

    let ended = left(&["GET", &url(&node, "/x")], "task ").await;
    exit(ended.status, 4);
    let said = ended.stderr.join("\n");
    let results_uri = said.split("its result will be at ").nth(1).expect("it says where").trim().to_owned();
    gate.open();
    let task = crate::support::node::Task { id: String::new(), results_uri };
    assert_eq!(node.finished(&task).await.body, "done", "the task goes on");
}

#[tokio::test]
async fn a_result_that_is_left_half_way_leaves_no_file_behind() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::new(200).header("content-type", "application/pdf").zeros(60_000_000)]);
    let node = Node::start(&upstream).await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("statement.pdf").display().to_string();
    let ended = left(&["GET", &url(&node, "/x"), "-o", &file], "Succeeded").await;
    // It may have been quicker.
    let names: Vec<_> =
        std::fs::read_dir(&dir).expect("a directory").flatten().map(|e| e.file_name()).collect();
    if ended.status.code() == Some(0) {
        assert_eq!(names, ["statement.pdf"]);
    } else {
        exit(ended.status, 4);
        assert!(names.is_empty(), "{names:?}");
        assert!(ended.stderr.join("\n").contains("it is at http://"), "{:?}", ended.stderr);
    }
}

#[tokio::test]
async fn where_lines_stay_each_status_is_said_once() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let ended = call(&["GET", &url(&node, "/x")]).await;
    exit(ended.status, 0);
    let said = ended.stderr.iter().filter(|line| line.contains("Succeeded")).count();
    assert_eq!(said, 1, "{:?}", ended.stderr);
}
