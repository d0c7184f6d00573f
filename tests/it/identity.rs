//! From an access token to a credentials id, and what it opens.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use crate::support::eventually;
use crate::support::issuer::{self, Key, claims, now};
use crate::support::node::{Node, PREFIX, Setup, Task};
use crate::support::peer::Upstream;
use crate::support::receiver::Receiver;
use crate::support::reply::{Gate, Reply};

/// An upstream and, apart from it, the place its keys are published at.
async fn published(keys: &[&Key]) -> (Upstream, Upstream, Setup) {
    let (upstream, auth) = (Upstream::start().await, Upstream::start().await);
    issuer::publish(&auth, keys);
    let setup = issuer::by_url(Setup::new(&upstream), &auth.uri("/jwks"));
    (upstream, auth, setup)
}

async fn submit(node: &Node, token: &str) -> Task {
    node.submit(node.get("/accounts?async=true").bearer(token)).await
}

/// The credentials id that a call with this header and value gets, by its webhook.
async fn credentials_id(node: &Node, receiver: &Receiver, header: &str, value: &str) -> String {
    let call = node.get(&format!("/accounts?{}", receiver.query("/hook"))).header(header, value);
    let task = node.submit(call).await;
    let webhook = receiver.wait_for_task(&task.id, 1).await.remove(0).json();
    webhook["credentials_id"].as_str().expect("a text").to_owned()
}

#[tokio::test]
async fn tokens_of_every_algorithm_are_verified_by_published_keys() {
    let keys = [Key::rsa("r"), Key::p256("p"), Key::ed25519("e")];
    let (_upstream, auth, setup) = published(&keys.each_ref()).await;
    let node = setup.start().await;
    for key in &keys {
        submit(&node, &key.token("john")).await;
        let refused = node.get("/x?async=true").bearer(&Key::p256("p").token("john")).send().await;
        refused.is_refusal(401, "invalid_token");
    }
    assert!(!auth.calls_of("/jwks").is_empty());
}

#[tokio::test]
async fn tokens_are_verified_by_keys_in_a_file() {
    let upstream = Upstream::start().await;
    let keys = [Key::rsa("r"), Key::ed25519("e")];
    let node = issuer::by_file(Setup::new(&upstream), &keys.each_ref()).start().await;
    for key in &keys {
        submit(&node, &key.token("john")).await;
    }
}

#[tokio::test]
async fn a_refreshed_token_reads_and_a_token_of_others_does_not() {
    let key = Key::rsa("r");
    let (_upstream, _auth, setup) = published(&[&key]).await;
    let node = setup.start().await;
    let task = submit(&node, &key.token("john")).await;
    let mut refreshed = claims("john");
    refreshed["exp"] = json!(now() + 1800);
    refreshed["jti"] = json!("another");
    let refreshed = node.results(&task).bearer(&key.sign(&refreshed)).send().await;
    assert!([200, 202].contains(&refreshed.status), "{}", refreshed.status);
    node.results(&task).bearer(&key.token("jane")).send().await.is_refusal(404, "task_not_found");
    node.results(&task).send().await.is_refusal(401, "invalid_token");
    node.results(&task).bearer("nonsense").send().await.is_refusal(401, "invalid_token");
}

#[tokio::test]
async fn the_scheme_name_is_understood_in_any_letter_case() {
    let key = Key::p256("p");
    let (_upstream, _auth, setup) = published(&[&key]).await;
    let node = setup.start().await;
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let value = format!("{scheme} {}", key.token("john"));
        assert_eq!(node.get("/x?async=true").header("authorization", &value).send().await.status, 202);
    }
}

#[tokio::test]
async fn one_audience_of_several_is_enough() {
    let key = Key::p256("p");
    let (_upstream, _auth, setup) = published(&[&key]).await;
    let node = setup.start().await;
    let mut several = claims("john");
    several["aud"] = json!(["other_api", issuer::AUDIENCE]);
    submit(&node, &key.sign(&several)).await;
    several["aud"] = json!(["other_api"]);
    let refused = node.get("/x?async=true").bearer(&key.sign(&several)).send().await;
    refused.is_refusal(401, "invalid_token");
}

#[tokio::test]
async fn the_claim_that_names_the_credentials_is_configuration() {
    let receiver = Receiver::start().await;
    let key = Key::p256("p");
    let (_upstream, _auth, setup) = published(&[&key]).await;
    let node = setup.set("upstreams.0.identity.claim", "customer").start().await;
    let mut claims = claims("john");
    claims["customer"] = json!("c-1");
    let value = format!("Bearer {}", key.sign(&claims));
    assert_eq!(credentials_id(&node, &receiver, "authorization", &value).await, "c-1");
}

#[tokio::test]
async fn without_the_keys_a_call_is_refused_for_now_and_nothing_is_stored() {
    let key = Key::p256("p");
    let (upstream, auth, setup) = published(&[&key]).await;
    auth.script("/jwks", [Reply::new(500)]);
    let node = setup.start().await;
    let before = node.rows();

    let refused = node.get("/x?async=true").bearer(&key.token("john")).send().await;

    refused.is_refusal(503, "identity_unavailable");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(node.rows(), before);
    upstream.saw_nobody();
    issuer::publish(&auth, &[&key]);
    crate::support::eventually("the keys are fetched again", async || {
        let answer = node.get("/x?async=true").bearer(&key.token("john")).send().await;
        (answer.status == 202).then_some(())
    })
    .await;
}

#[tokio::test]
async fn keys_once_known_serve_while_their_source_is_away() {
    let key = Key::p256("p");
    let (_upstream, auth, setup) = published(&[&key]).await;
    let node = setup.start().await;
    submit(&node, &key.token("john")).await;
    auth.script("/jwks", [Reply::cut()]);
    submit(&node, &key.token("john")).await;
    submit(&node, &key.token("jane")).await;
}

#[tokio::test]
async fn a_new_key_is_looked_up_once_and_not_by_a_stampede() {
    let (old, new) = (Key::p256("old"), Key::p256("new"));
    let (_upstream, auth, setup) = published(&[&old]).await;
    let node = setup.start().await;
    submit(&node, &old.token("john")).await;
    let before = auth.calls_of("/jwks").len();
    let gate = Gate::closed();
    auth.script("/jwks", [Reply::json(200, &issuer::jwks(&[&old, &new])).behind(&gate)]);
    let calls = (0..20).map(|user| {
        let call = node.get("/x?async=true").bearer(&new.token(&format!("user-{user}")));
        tokio::spawn(call.send())
    });
    let calls: Vec<_> = calls.collect();
    auth.wait_for_calls(before + 1).await;
    gate.open();
    for call in calls {
        assert_eq!(call.await.expect("a call does not panic").status, 202);
    }
    assert_eq!(auth.calls_of("/jwks").len(), before + 1);
}

#[tokio::test]
async fn keys_that_do_not_exist_cannot_be_used_to_call_the_issuer_without_end() {
    let key = Key::p256("p");
    let (_upstream, auth, setup) = published(&[&key]).await;
    let node = setup.start().await;
    submit(&node, &key.token("john")).await;
    for number in 0..30 {
        let token = Key::p256(&format!("unknown-{number}")).token("john");
        assert_ne!(node.get("/x?async=true").bearer(&token).send().await.status, 202);
    }
    assert!(auth.calls_of("/jwks").len() < 10, "called {} times", auth.calls_of("/jwks").len());
}

#[tokio::test]
async fn a_tasks_retries_end_when_its_token_expires() {
    let key = Key::p256("p");
    let (upstream, _auth, setup) = published(&[&key]).await;
    upstream.always([Reply::new(503)]);
    let node = setup.set("upstreams.0.retry.delays", vec!["20ms", "5m", "20ms"]).start().await;
    let mut short = claims("john");
    short["exp"] = json!(now() + 120);
    let task = submit(&node, &key.sign(&short)).await;
    let failed = crate::support::eventually("the task failed", async || {
        let answer = node.results(&task).bearer(&key.token("john")).send().await;
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    assert_eq!(failed["error_details"]["reason"], "deadline_exceeded");
    assert_eq!(upstream.calls().len(), 2);
}

#[tokio::test]
async fn an_opaque_credential_is_known_by_a_keyed_hash() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let setup = Setup::new(&upstream).set("upstreams.0.identity.mode", "opaque");
    let node = setup.start().await;
    let first = credentials_id(&node, &receiver, "authorization", "Bearer token-1").await;
    assert_eq!(BASE64_STANDARD.decode(&first).expect("base64").len(), 32);
    assert_eq!(credentials_id(&node, &receiver, "authorization", "bearer token-1").await, first);
    for other in ["Bearer token-2", "Bearer TOKEN-1", "Basic token-1"] {
        assert_ne!(credentials_id(&node, &receiver, "authorization", other).await, first, "{other}");
    }
    let node = node.kill9().await.start().await;
    assert_eq!(credentials_id(&node, &receiver, "authorization", "Bearer token-1").await, first);

    // Keyed: the same credential has another id elsewhere.
    let elsewhere = Setup::new(&upstream).set("upstreams.0.identity.mode", "opaque").start().await;
    assert_ne!(credentials_id(&elsewhere, &receiver, "authorization", "Bearer token-1").await, first);
}

#[tokio::test]
async fn an_opaque_credential_can_be_in_any_header() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let setup = Setup::new(&upstream)
        .set("upstreams.0.identity.mode", "opaque")
        .set("upstreams.0.identity.header", "X-Api-Key");
    let node = setup.start().await;
    let first = credentials_id(&node, &receiver, "x-api-key", "Key One").await;
    assert_ne!(credentials_id(&node, &receiver, "x-api-key", "Key Two").await, first);
    let before = eventually("the deliveries are settled", async || {
        Some(node.rows()).filter(|rows| rows["delivery"] == 0)
    })
    .await;
    let refused = node.get("/x?async=true").bearer("token").send().await;
    refused.is_refusal(401, "invalid_token");
    let sentence = refused.json()["error_description"].as_str().expect("a sentence").to_lowercase();
    assert!(sentence.contains("x-api-key"), "says which header: {sentence}");
    assert_eq!(node.rows(), before);
}

#[tokio::test]
async fn without_identity_everybody_shares_one_id_and_the_node_says_so() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let node = Node::start(&upstream).await;
    let first = credentials_id(&node, &receiver, "authorization", "Bearer a").await;
    assert_eq!(credentials_id(&node, &receiver, "authorization", "Bearer b").await, first);
    assert_eq!(credentials_id(&node, &receiver, "x-nothing", "at all").await, first);
    assert!(node.log().contains("WARN"), "identity none is loud:\n{}", node.log());
}

#[tokio::test]
async fn a_proxied_call_needs_no_token_of_ours() {
    let key = Key::p256("p");
    let (upstream, _auth, setup) = published(&[&key]).await;
    let node = setup.start().await;
    assert_eq!(node.get("/x").send().await.status, 200);
    assert_eq!(node.get("/x").bearer("anything").send().await.status, 200);
    assert_eq!(
        upstream.calls_of(&format!("{PREFIX}/x")).len(),
        2,
        "whether it is good, the upstream decides"
    );
}
