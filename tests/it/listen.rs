//! `ringback listen`, a receiver for development.

mod signed;

use http::Method;
use serde_json::Value;

use crate::support::client::{Call, encode};
use crate::support::eventually;
use crate::support::node::{Node, Setup};
use crate::support::peer::Upstream;
use crate::support::process::Process;
use crate::support::receiver::Receiver;
use crate::support::reply::Reply;

struct Listener {
    process: Process,
    uri: String,
}

async fn listen(args: &[&str], env: &[(&str, &str)]) -> Listener {
    let args = ["listen", "--listen", "127.0.0.1:0"]
        .iter()
        .chain(args)
        .map(|&arg| arg.to_owned())
        .collect::<Vec<_>>();
    let env: Vec<_> = env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut process = Process::start(&args, &env);
    let uri = process.said("it listens", |line| line.strip_prefix("listening on ").map(str::to_owned)).await;
    Listener { process, uri }
}

impl Listener {
    fn query(&self, path: &str) -> String {
        format!("async=true&webhook_uri={}{path}", encode(&self.uri))
    }

    /// Waits until it has printed all of these.
    async fn prints(&self, parts: &[&str]) -> String {
        eventually("it printed", async || {
            Some(self.process.output()).filter(|output| parts.iter().all(|part| output.contains(part)))
        })
        .await
    }
}

#[tokio::test]
async fn webhooks_are_printed_as_they_come() {
    let upstream = Upstream::start().await;
    upstream.script("/data/v1/bad", [Reply::json(404, r#"{"error":"gone","error_description":"No such."}"#)]);
    let (node, listener) = (Node::start(&upstream).await, listen(&[], &[]).await);

    let good = node.submit(node.get(&format!("/good?a=b&{}", listener.query("x")))).await;
    let bad = node.submit(node.get(&format!("/bad?{}", listener.query("x")))).await;

    let output = listener.prints(&["✓ Succeeded", &good.id, "/data/v1/good?a=b", "✗ Failed", &bad.id]).await;
    assert!(output.contains("gone: No such."), "{output}");
    assert!(!output.contains('\x1b'), "plain when not on a terminal: {output:?}");
}

#[tokio::test]
async fn it_says_what_to_add_to_a_call() {
    let mut listener = listen(&[], &[]).await;
    let hint = listener
        .process
        .said("it says what to add", |line| line.strip_prefix("add to a call: ").map(str::to_owned))
        .await;
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get(&format!("/x?{hint}"))).await;
    listener.prints(&[&task.id]).await;
}

#[tokio::test]
async fn a_webhook_is_passed_on_and_the_answer_passed_back() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    receiver.refuses_first(1);
    let node = Node::start(&upstream).await;
    let listener = listen(&["--forward", &receiver.peer().uri("/my/hook?k=v")], &[]).await;

    let task = node.submit(node.get(&format!("/x?{}", listener.query("")))).await;

    let tries = receiver.wait_for(2).await;
    assert_eq!(tries[0].target, "/my/hook?k=v");
    for tried in &tries {
        assert_eq!(tried.json()["task_id"], task.id.as_str());
        assert_eq!(tried.header("webhook-id"), Some(task.id.as_str()));
        assert!(tried.header("webhook-timestamp").is_some());
        assert_eq!(tried.header("content-type"), Some("application/json"));
    }
    listener.prints(&["forwarded: 503", "forwarded: 204", "(again)"]).await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told_and_the_webhook_tried_again() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let listener = listen(&["--forward", "http://127.0.0.1:1/"], &[]).await;
    node.submit(node.get(&format!("/x?{}", listener.query("")))).await;
    listener.prints(&["not forwarded: cannot call 127.0.0.1:1: not sent", "(again)"]).await;
}

#[tokio::test]
async fn results_are_fetched_with_the_token() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::json(200, r#"{"money":1}"#)]);
    let node = Setup::new(&upstream).set("upstreams.0.identity.mode", "opaque").start().await;
    let listener = listen(&["--fetch"], &[("RINGBACK_TOKEN", "john")]).await;
    node.submit(node.get(&format!("/x?{}", listener.query(""))).bearer("john")).await;
    listener.prints(&["result: 200 application/json, 11 bytes", r#"{"money":1}"#]).await;
}

#[tokio::test]
async fn the_token_never_goes_where_only_a_webhook_says() {
    let listener = listen(&["--fetch"], &[("RINGBACK_TOKEN", "hush")]).await;
    let forged = r#"{"request_uri":"http://a/","task_id":"1","status":"Succeeded",
        "results_uri":"http://192.0.2.1/steal","error":null,"error_description":null}"#;
    let answer = post(&listener, "1", forged).await;
    assert_eq!(answer, 204);
    listener.prints(&["not fetched: results are at 192.0.2.1"]).await;
}

#[tokio::test]
async fn a_script_gets_one_json_object_a_webhook() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let listener = listen(&["--json", "--fetch"], &[]).await;
    let task = node.submit(node.get(&format!("/x?{}", listener.query("")))).await;
    let output = listener.prints(&[&task.id]).await;
    let object: Value = serde_json::from_str(&output).expect("one JSON object");
    assert_eq!((&object["webhook"]["status"], &object["again"]), (&"Succeeded".into(), &false.into()));
    assert_eq!(object["webhook_id"], task.id.as_str());
    assert_eq!(object["result"]["status"], 200);
}

#[tokio::test]
async fn what_is_no_webhook_is_refused() {
    let mut listener = listen(&[], &[]).await;
    assert_eq!(post(&listener, "1", "{}").await, 400);
    assert_eq!(post(&listener, "1", &"x".repeat(300_000)).await, 413);
    assert_eq!(Call::get(&listener.uri).send().await.status, 405);
    listener
        .process
        .said("it says so", |line| line.contains("not a webhook of Ringback").then_some(()))
        .await;
}

async fn post(listener: &Listener, id: &str, body: &str) -> u16 {
    call(listener, id, body).send().await.status
}

fn call(listener: &Listener, id: &str, body: &str) -> Call {
    let to = listener.uri.trim_start_matches("http://").trim_end_matches('/');
    let call = Call::new(to.parse().expect("an address"), Method::POST, "/").header("webhook-id", id);
    call.header("content-length", &body.len().to_string()).body(body.to_owned())
}

#[tokio::test]
async fn stopping_it_as_soon_as_it_has_said_a_line_is_no_failure() {
    let mut listener = listen(&[], &[]).await;
    listener.process.signal("INT");
    assert_eq!(listener.process.ended().await.status.code(), Some(0));
}

#[tokio::test]
async fn bad_arguments_are_one_sentence_each() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let taken = holder.local_addr().expect("an address").to_string();
    for (args, code, part) in [
        (&["--listen", "8092"][..], 2, "127.0.0.1:8080"),
        (&["--listen", &taken], 1, &taken),
        (&["--forward", "nonsense"], 1, "not a URL"),
        (&["--fetch", "--token-file", "/nowhere"], 1, "/nowhere"),
        (&["--fetch", "--token-file", "/dev/null"], 1, "token is empty"),
        (&["--fetch", "--gateway", "nonsense"], 1, "not a URL"),
        (&["--token-file", "/dev/null"], 2, "--fetch"),
        (&["--jwks", "http://127.0.0.1:1/jwks"], 1, "--jwks"),
        (&["--secret-file", "/nowhere"], 1, "/nowhere"),
    ] {
        let args: Vec<&str> = ["listen"].iter().chain(args).copied().collect();
        let ended = crate::support::process::run(&args).await;
        assert_eq!(ended.status.code(), Some(code), "{args:?}: {:?}", ended.stderr);
        assert!(ended.stderr.join("\n").contains(part), "{args:?}: {:?}", ended.stderr);
    }
}

#[tokio::test]
async fn who_fetches_without_a_token_is_told_where_to_give_it() {
    let mut listener = listen(&["--fetch"], &[]).await;
    let said =
        |line: &str| line.contains("without a token: give --token-file or RINGBACK_TOKEN").then_some(());
    listener.process.said("it says so", said).await;
}
