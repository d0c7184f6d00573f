//! `ringback listen` with keys: what it believes, and what becomes of the rest.

use std::time::{SystemTime, UNIX_EPOCH};

use webhook_signature::{Message, SharedSecret, SigningKey, header_value};

use super::{Listener, call, listen};
use crate::signatures::{hang_up, secrets};
use crate::support::node::{Node, Setup};
use crate::support::peer::Upstream;
use crate::support::process::run;
use crate::support::receiver::Receiver;

const ID: &str = "019a";
const BODY: &str = r#"{"request_uri":"http://a/","task_id":"019a","status":"Succeeded",
    "results_uri":"http://127.0.0.1:1/r","error":null,"error_description":null}"#;

fn jwks(node: &Node) -> String {
    format!("http://{}/.well-known/jwks", node.address())
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    since.as_secs().try_into().expect("a time")
}

/// A webhook as a node with this secret signs it at this time; what the listener answers.
async fn forge(listener: &Listener, secret: &str, time: i64, body: &str) -> u16 {
    let message = Message::new(ID, time, BODY.as_bytes()).expect("an id");
    let value = header_value([SharedSecret::parse(secret).expect("a secret").sign(&message)]);
    let call = call(listener, ID, body).header("webhook-timestamp", &time.to_string());
    call.header("webhook-signature", &value).send().await.status
}

#[tokio::test]
async fn a_nodes_webhook_verifies_by_its_published_keys() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let listener = listen(&["--jwks", &jwks(&node)], &[]).await;
    let task = node.submit(node.get(&format!("/x?{}", listener.query("")))).await;
    let output = listener.prints(&[&task.id, "signature ok (v1a)"]).await;
    assert!(!listener.process.log().contains("not verified"), "{output}");
}

#[tokio::test]
async fn a_nodes_webhook_verifies_by_the_secret_of_a_file_or_the_environment() {
    let upstream = Upstream::start().await;
    let node = Node::start(&upstream).await;
    let secret = secrets(&node).await.remove(0);
    let file = node.data_dir().join("secret");
    std::fs::write(&file, format!("# the newest\n{secret}\n")).expect("a file");
    let by_file = listen(&["--secret-file", &file.display().to_string()], &[]).await;
    let by_variable = listen(&["--json"], &[("RINGBACK_WEBHOOK_SECRET", &secret)]).await;
    for listener in [&by_file, &by_variable] {
        node.submit(node.get(&format!("/x?{}", listener.query("")))).await;
    }
    by_file.prints(&["signature ok (v1)"]).await;
    by_variable.prints(&[r#""signature":{"verdict":"ok","scheme":"v1"}"#]).await;
}

#[tokio::test]
async fn what_is_not_signed_right_is_refused_and_goes_no_further() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let node = Node::start(&upstream).await;
    let secret = secrets(&node).await.remove(0);
    let args = ["--jwks", &jwks(&node), "--fetch", "--forward", &receiver.peer().uri("/hook")];
    let listener = listen(&args, &[("RINGBACK_WEBHOOK_SECRET", &secret)]).await;

    assert_eq!(forge(&listener, &secret, now(), &BODY.replace("019a", "019b")).await, 401);
    listener.prints(&["signature WRONG: no signature fits"]).await;
    assert_eq!(forge(&listener, &secret, now() - 310, BODY).await, 401);
    listener.prints(&["signature WRONG: the message is older"]).await;
    assert_eq!(call(&listener, ID, BODY).send().await.status, 401);
    let output = listener.prints(&["not signed"]).await;
    assert!(!output.contains("fetched") && !output.contains("forwarded"), "{output}");
    assert!(receiver.tries().is_empty());

    // The same one with everything right, and no repeat of those that were refused.
    assert_eq!(forge(&listener, &secret, now() - 200, BODY).await, 204);
    let output = listener.prints(&["signature ok (v1)", "forwarded: 204", "not fetched"]).await;
    assert!(!output.contains("(again)"), "{output}");
    assert_eq!(receiver.tries().len(), 1);
}

#[tokio::test]
async fn another_nodes_keys_are_not_believed() {
    let upstream = Upstream::start().await;
    let node = Setup::new(&upstream).set("webhooks.delays", Vec::<String>::new()).start().await;
    let other = Node::start(&upstream).await;
    let secret = secrets(&other).await.remove(0);
    let listener =
        listen(&["--json", "--jwks", &jwks(&other)], &[("RINGBACK_WEBHOOK_SECRET", &secret)]).await;
    node.submit(node.get(&format!("/x?{}", listener.query("")))).await;
    listener.prints(&[r#""verdict":"wrong""#, "no signature fits"]).await;
}

#[tokio::test]
async fn a_new_key_of_the_node_is_fetched_and_strangers_cannot_have_it_fetched_at_will() {
    let upstream = Upstream::start().await;
    let mut node = Node::start(&upstream).await;
    let listener = listen(&["--jwks", &jwks(&node)], &[]).await;
    let dir = node.data_dir().display().to_string();
    run(&["keys", "rotate", "webhook", "--overlap", "0s", "--data-dir", &dir]).await;
    hang_up(&mut node).await;
    let task = node.submit(node.get(&format!("/x?{}", listener.query("")))).await;
    listener.prints(&[&task.id, "signature ok (v1a)"]).await;

    // The keys are gone, so a fetch would be told.
    drop(node);
    let stranger = SigningKey::from_seed(&[7; 32]);
    let value = header_value([stranger.sign(&Message::new(ID, now(), BODY.as_bytes()).expect("an id"))]);
    let forged = call(&listener, ID, BODY).header("webhook-timestamp", &now().to_string());
    assert_eq!(forged.header("webhook-signature", &value).send().await.status, 401);
    listener.prints(&["signature WRONG"]).await;
    assert!(!listener.process.log().contains("fetched again"), "{}", listener.process.log());
}

#[tokio::test]
async fn without_keys_it_says_once_that_nothing_is_verified_and_with_bad_ones_it_does_not_start() {
    let mut listener = listen(&[], &[]).await;
    listener
        .process
        .said("it says so", |line| line.contains("signatures are not verified").then_some(()))
        .await;
    assert_eq!(call(&listener, ID, BODY).send().await.status, 204);
    let output = listener.prints(&[ID]).await;
    assert!(!output.contains("signed") && !output.contains("signature"), "{output}");

    let ended = run(&["listen", "--listen", "127.0.0.1:0", "--jwks", "http://127.0.0.1:1/jwks"]).await;
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.join("\n").contains("--jwks: not sent"), "{:?}", ended.stderr);
}
