//! Webhooks are signed, and verifiers nobody here wrote believe them and nothing else.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ed25519_dalek::Verifier as _;
use http::HeaderMap;
use serde_json::Value;
use standardwebhooks::Webhook;

use crate::support::client::Answer;
use crate::support::node::{Node, Setup};
use crate::support::peer::Upstream;
use crate::support::process::run;
use crate::support::receiver::Receiver;
use crate::support::reply::Reply;
use crate::support::wire::Received;

const JWKS: &str = "/.well-known/jwks";

async fn submit(node: &Node, receiver: &Receiver) {
    node.submit(node.get(&format!("/accounts?{}", receiver.query("/hook")))).await;
}

/// A node, and the webhook of one task of it.
async fn signed() -> (Node, Receiver, Arc<Received>) {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let node = Node::start(&upstream).await;
    submit(&node, &receiver).await;
    let webhook = receiver.wait_for(1).await.remove(0);
    (node, receiver, webhook)
}

/// What a command about the keys of this data directory prints.
pub async fn keys(node: &Node, args: &[&str]) -> String {
    let dir = node.data_dir().display().to_string();
    let ended = run(&[&["keys"], args, &["--data-dir", &dir]].concat()).await;
    assert!(ended.status.success(), "{:?}", ended.stderr);
    ended.stdout.join("\n")
}

/// The secrets in use, the newest first.
pub async fn secrets(node: &Node) -> Vec<String> {
    let shown = keys(node, &["show", "webhook"]).await;
    shown.lines().filter(|line| line.starts_with("whsec_")).map(str::to_owned).collect()
}

pub async fn jwks(node: &Node) -> Answer {
    node.call(http::Method::GET, JWKS).send().await
}

pub fn headers(webhook: &Received) -> HeaderMap {
    let header = |name: &'static str| (name, webhook.header(name).expect("a signed webhook").to_owned());
    let headers = ["webhook-id", "webhook-timestamp", "webhook-signature"].map(header);
    headers.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

fn signatures<'a>(webhook: &'a Received, scheme: &str) -> Vec<&'a str> {
    let value = webhook.header("webhook-signature").expect("a signed webhook");
    value
        .split(' ')
        .filter_map(|one| one.split_once(','))
        .filter(|one| one.0 == scheme)
        .map(|one| one.1)
        .collect()
}

/// Whether one of the `v1a` signatures is by one of these keys, says a library that is not ours.
fn is_by(keys: &Value, webhook: &Received, body: &[u8]) -> bool {
    let header = |name| webhook.header(name).expect("a signed webhook");
    let head = format!("{}.{}.", header("webhook-id"), header("webhook-timestamp"));
    let signed = [head.as_bytes(), body].concat();
    keys["keys"].as_array().expect("a JWK set").iter().any(|key| {
        assert_eq!((&key["kty"], &key["crv"]), (&"OKP".into(), &"Ed25519".into()));
        assert!(key.get("d").is_none(), "a private key is public");
        let x = URL_SAFE_NO_PAD.decode(key["x"].as_str().expect("a key")).expect("base64url");
        let key = ed25519_dalek::VerifyingKey::from_bytes(&x.try_into().expect("32 bytes")).expect("a key");
        signatures(webhook, "v1a").into_iter().any(|signature| {
            let signature = STANDARD.decode(signature).expect("base64");
            let signature = ed25519_dalek::Signature::from_slice(&signature).expect("64 bytes");
            key.verify(&signed, &signature).is_ok()
        })
    })
}

#[tokio::test]
async fn a_webhook_verifies_with_the_secret_and_no_changed_one_does() {
    let (node, _receiver, webhook) = signed().await;
    let secret = secrets(&node).await.remove(0);
    let verifier = Webhook::new(&secret).unwrap();
    verifier.verify(&webhook.body, &headers(&webhook)).expect("a good webhook");

    let mut changed = webhook.body.clone();
    changed[5] ^= 1;
    assert!(verifier.verify(&changed, &headers(&webhook)).is_err());
    let wrong = Webhook::new("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
    assert!(wrong.verify(&webhook.body, &headers(&webhook)).is_err());
    let mut old = headers(&webhook);
    let time: i64 = webhook.header("webhook-timestamp").unwrap().parse().unwrap();
    old.insert("webhook-timestamp", (time - 600).to_string().parse().unwrap());
    assert!(verifier.verify(&webhook.body, &old).is_err());
}

#[tokio::test]
async fn a_stranger_verifies_a_webhook_with_the_published_keys() {
    let (node, _receiver, webhook) = signed().await;
    let keys = jwks(&node).await.json();
    assert!(is_by(&keys, &webhook, &webhook.body));
    let mut changed = webhook.body.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert!(!is_by(&keys, &webhook, &changed));
    let (other, _receiver, _) = signed().await;
    assert!(!is_by(&jwks(&other).await.json(), &webhook, &webhook.body), "every node has keys of its own");
}

#[tokio::test]
async fn every_try_is_signed_for_its_own_time() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    receiver.refuses_first(1);
    let node = Setup::new(&upstream).set("webhooks.delays", vec!["1100ms"]).start().await;
    submit(&node, &receiver).await;
    let tries = receiver.wait_for(2).await;
    let secret = secrets(&node).await.remove(0);
    for webhook in &tries {
        Webhook::new(&secret).unwrap().verify(&webhook.body, &headers(webhook)).expect("a good webhook");
    }
    assert_ne!(tries[0].header("webhook-timestamp"), tries[1].header("webhook-timestamp"));
    assert_ne!(tries[0].header("webhook-signature"), tries[1].header("webhook-signature"));
    assert_eq!(tries[0].header("webhook-id"), tries[1].header("webhook-id"));
}

#[tokio::test]
async fn the_keys_outlive_a_crash() {
    let (node, receiver, _) = signed().await;
    let (before, secret) = (jwks(&node).await.json(), secrets(&node).await);
    let node = node.kill9().await.start().await;
    assert_eq!((jwks(&node).await.json(), secrets(&node).await), (before, secret));
    submit(&node, &receiver).await;
    let webhook = receiver.wait_for(2).await.remove(1);
    assert!(is_by(&jwks(&node).await.json(), &webhook, &webhook.body));
}

#[tokio::test]
async fn only_the_configured_schemes_sign() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let start = async |schemes: &[&str]| {
        Setup::new(&upstream).set("webhooks.signatures", schemes.to_vec()).start().await
    };
    let node = start(&["v1"]).await;
    submit(&node, &receiver).await;
    let webhook = receiver.wait_for(1).await.remove(0);
    assert_eq!((signatures(&webhook, "v1").len(), signatures(&webhook, "v1a").len()), (1, 0));
    assert_eq!(jwks(&node).await.json()["keys"].as_array().map(Vec::len), Some(0));
    let node = start(&["v1a"]).await;
    submit(&node, &receiver).await;
    let webhook = receiver.wait_for(2).await.remove(1);
    assert_eq!((signatures(&webhook, "v1").len(), signatures(&webhook, "v1a").len()), (0, 1));
    let node = start(&[]).await;
    submit(&node, &receiver).await;
    assert_eq!(receiver.wait_for(3).await[2].header("webhook-signature"), None);
}

#[tokio::test]
async fn an_unknown_scheme_stops_the_start() {
    let upstream = Upstream::start().await;
    let setup = Setup::new(&upstream).set("webhooks.signatures", vec!["v2"]);
    let ended = setup.spawn().ended().await;
    assert_eq!(ended.status.code(), Some(1));
    let said = ended.stderr.join("\n");
    assert!(said.contains("webhooks.signatures") && said.contains("v1a"), "{said}");
}

#[tokio::test]
async fn the_key_set_can_be_cached_and_asked_for_again() {
    let upstream = Upstream::start().await;
    // An upstream at the root does not hide it.
    let node = Setup::new(&upstream).set("upstreams.0.prefix", "/").start().await;
    let first = jwks(&node).await;
    assert_eq!(first.status, 200);
    assert_eq!(first.header("content-type"), Some("application/jwk-set+json"));
    assert!(first.header("cache-control").is_some_and(|value| value.contains("max-age=")));
    let etag = first.header("etag").expect("an entity tag").to_owned();
    let again = node.call(http::Method::GET, JWKS).header("if-none-match", &etag).send().await;
    assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, Some(etag.as_str())));
    let head = node.call(http::Method::HEAD, JWKS).send().await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    let written = node.call(http::Method::POST, JWKS).send().await;
    written.is_refusal(405, "method_not_allowed");
    assert_eq!(written.header("allow"), Some("GET, HEAD"));
    upstream.saw_nobody();
}

#[tokio::test]
async fn the_key_set_can_be_moved() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::ok("theirs")]);
    let node = Setup::new(&upstream)
        .set("upstreams.0.prefix", "/")
        .set("webhooks.jwks_path", "/ringback/keys")
        .start()
        .await;
    let moved = node.call(http::Method::GET, "/ringback/keys").send().await;
    assert_eq!(moved.json()["keys"].as_array().map(Vec::len), Some(1));
    assert_eq!(jwks(&node).await.body, "theirs");
}

#[tokio::test]
async fn while_keys_rotate_a_running_node_signs_with_both() {
    let (node, receiver, _) = signed().await;
    let (old_keys, old_secret) = (jwks(&node).await.json(), secrets(&node).await.remove(0));

    let said = keys(&node, &["rotate", "webhook", "--overlap", "2h"]).await;
    assert!(!said.contains("whsec_") && !said.contains("whsk_"), "{said}");
    let mut node = node;
    hang_up(&mut node).await;

    let new_keys = jwks(&node).await.json();
    assert_eq!(new_keys["keys"].as_array().map(Vec::len), Some(2));
    assert_eq!(new_keys["keys"][1], old_keys["keys"][0]);
    let listed = keys(&node, &["list"]).await;
    assert!(listed.contains(new_keys["keys"][0]["kid"].as_str().unwrap()), "{listed}");
    submit(&node, &receiver).await;
    let webhook = receiver.wait_for(2).await.remove(1);
    assert_eq!((signatures(&webhook, "v1").len(), signatures(&webhook, "v1a").len()), (2, 2));
    assert!(is_by(&old_keys, &webhook, &webhook.body));
    assert!(is_by(&new_keys, &webhook, &webhook.body));
    let new_secret = secrets(&node).await.remove(0);
    assert_ne!(new_secret, old_secret);
    for secret in [old_secret, new_secret] {
        Webhook::new(&secret).unwrap().verify(&webhook.body, &headers(&webhook)).expect("both sign");
    }
}

#[tokio::test]
async fn a_rotation_without_overlap_ends_the_old_key_at_once() {
    let (mut node, receiver, _) = signed().await;
    let old_keys = jwks(&node).await.json();
    keys(&node, &["rotate", "webhook", "--overlap", "0s"]).await;
    hang_up(&mut node).await;
    submit(&node, &receiver).await;
    let webhook = receiver.wait_for(2).await.remove(1);
    assert!(!is_by(&old_keys, &webhook, &webhook.body));
    let new_keys = jwks(&node).await.json();
    assert_eq!(new_keys["keys"].as_array().map(Vec::len), Some(1));
    assert!(is_by(&new_keys, &webhook, &webhook.body));
}

/// Tells the node to read its keys again and waits until it has.
pub async fn hang_up(node: &mut Node) {
    node.process().signal("HUP");
    let took_over = |line: &Value| {
        let fields = if line["fields"].is_object() { &line["fields"] } else { line };
        (fields["message"] == "keys read again").then_some(())
    };
    node.process().logged("the node read its keys again", took_over).await;
}
