//! Announcing a result: what a receiver gets, when, and how often.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::support::client::encode;
use crate::support::node::{Node, PREFIX, Setup, Task};
use crate::support::peer::Upstream;
use crate::support::receiver::{FIELDS, Receiver};
use crate::support::reply::{Gate, Reply};
use crate::support::{issuer, wire};

async fn submit(node: &Node, receiver: &Receiver, path: &str) -> Task {
    node.submit(node.get(&format!("{path}?{}", receiver.query("/hook")))).await
}

fn keys(received: &wire::Received) -> Vec<String> {
    received.json().as_object().expect("a webhook is an object").keys().cloned().collect()
}

#[tokio::test]
async fn a_success_is_announced_in_eight_fields() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let node = Node::start(&upstream).await;
    let target = format!("/accounts?x=%20&{}&y=+", receiver.query("/hook"));

    let task = node.submit(node.get(&target)).await;

    let webhook = receiver.wait_for(1).await.remove(0);
    assert_eq!(keys(&webhook), FIELDS);
    let body = webhook.json();
    assert_eq!(body["request_uri"], format!("http://{}{PREFIX}/accounts?x=%20&y=+", node.address()));
    assert_eq!(body["task_id"], task.id);
    assert_eq!(body["status"], "Succeeded");
    assert_eq!(body["results_uri"], task.results_uri);
    assert_eq!((&body["error"], &body["error_description"]), (&Value::Null, &Value::Null));
    assert!(body["credentials_id"].as_str().is_some_and(|id| !id.is_empty()));
    let requested = body["request_timestamp"].as_str().expect("a timestamp");
    assert!(requested.ends_with('Z'), "{requested}");
    let requested: jiff::Timestamp = requested.parse().expect("RFC 3339");
    let age = jiff::Timestamp::now().as_second() - requested.as_second();
    assert!((-1..=120).contains(&age), "the call was made {age} s ago");
}

#[tokio::test]
async fn a_failure_is_announced_with_its_error() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    upstream.script(&format!("{PREFIX}/ours"), [Reply::new(404)]);
    upstream.script(
        &format!("{PREFIX}/theirs"),
        [Reply::json(403, r#"{"error":"access_denied","error_description":"Ask the customer."}"#)],
    );
    let node = Node::start(&upstream).await;
    let ours = submit(&node, &receiver, "/ours").await;
    let theirs = submit(&node, &receiver, "/theirs").await;

    let webhook = receiver.wait_for_task(&ours.id, 1).await.remove(0);
    assert_eq!(keys(&webhook), FIELDS);
    assert_eq!(
        (&webhook.json()["status"], &webhook.json()["error"]),
        (&json!("Failed"), &json!("upstream_error"))
    );
    assert!(webhook.json()["error_description"].as_str().is_some_and(|sentence| sentence.ends_with('.')));
    let webhook = receiver.wait_for_task(&theirs.id, 1).await.remove(0).json();
    assert_eq!((&webhook["status"], &webhook["error"]), (&json!("Failed"), &json!("access_denied")));
    assert_eq!(webhook["error_description"], "Ask the customer.");
}

#[tokio::test]
async fn a_webhook_says_the_same_as_the_results_and_names_the_credentials() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let key = issuer::Key::p256("k1");
    let node = issuer::by_file(Setup::new(&upstream), &[&key]).start().await;
    let call = node.get(&format!("/accounts?{}", receiver.query("/hook"))).bearer(&key.token("john-id"));
    let task = node.submit(call).await;
    let webhook = receiver.webhook().await;
    assert_eq!(webhook["credentials_id"], "john-id");
    let answer = node.results(&task).bearer(&key.token("john-id")).send().await;
    assert_eq!(answer.header("ringback-status"), webhook["status"].as_str());
}

#[tokio::test]
async fn a_webhook_is_a_json_post_with_an_id_and_a_time_and_no_credentials() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let node = Node::start(&upstream).await;
    let call = node.get(&format!("/accounts?{}", receiver.query("/hook")));
    node.submit(call.bearer("secret").header("cookie", "c=1").header("x-api-key", "k")).await;

    let webhook = receiver.wait_for(1).await.remove(0);

    assert_eq!(webhook.method, "POST");
    assert!(webhook.header("content-type").is_some_and(|kind| kind.starts_with("application/json")));
    assert_eq!(webhook.header("host"), Some(receiver.peer().address().to_string().as_str()));
    assert!(webhook.header("webhook-id").is_some_and(|id| !id.is_empty()));
    let sent: u64 = webhook.header("webhook-timestamp").expect("a time").parse().expect("seconds");
    assert!(issuer::now().abs_diff(sent) < 120);
    for name in ["authorization", "cookie", "x-api-key"] {
        assert_eq!(webhook.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn the_result_can_be_read_when_its_webhook_arrives() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let gate = Gate::closed();
    receiver.answers([Reply::new(204).bodyless().behind(&gate)]);
    upstream.always([Reply::ok("done")]);
    let node = Node::start(&upstream).await;
    let task = submit(&node, &receiver, "/accounts").await;
    receiver.wait_for(1).await;
    let answer = node.results(&task).send().await;
    assert_eq!((answer.status, answer.body.as_ref()), (200, b"done".as_slice()));
    gate.open();
}

#[tokio::test]
async fn a_webhook_is_tried_six_times_again_and_then_given_up() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    receiver.answers([Reply::new(500)]);
    let node = Node::start(&upstream).await;
    let first = submit(&node, &receiver, "/first").await;
    receiver.wait_for_task(&first.id, 7).await;
    // Seven tries of a later task take as long as an eighth of the first would have taken to come.
    let second = submit(&node, &receiver, "/second").await;
    receiver.wait_for_task(&second.id, 7).await;
    assert_eq!(receiver.tries_for(&first.id).len(), 7);
    assert_eq!(node.finished(&first).await.header("ringback-status"), Some("Succeeded"));
}

#[tokio::test]
async fn a_webhook_refused_twice_is_delivered_on_the_third_try() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    receiver.refuses_first(2);
    let node = Node::start(&upstream).await;
    let first = submit(&node, &receiver, "/first").await;

    let tries = receiver.wait_for_task(&first.id, 3).await;

    let ids: HashSet<_> = tries.iter().map(|received| received.header("webhook-id")).collect();
    assert_eq!(ids.len(), 1, "a receiver can drop repeats by webhook-id");
    assert!(tries.iter().all(|received| received.body == tries[0].body));
    receiver.answers([Reply::new(500)]);
    let second = submit(&node, &receiver, "/second").await;
    let others = receiver.wait_for_task(&second.id, 7).await;
    assert_eq!(receiver.tries_for(&first.id).len(), 3, "what is delivered is not sent again");
    assert_ne!(others[0].header("webhook-id"), tries[0].header("webhook-id"));
}

#[tokio::test]
async fn every_2xx_is_a_delivery() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let node = Node::start(&upstream).await;
    let mut delivered = Vec::new();
    for status in [200, 201, 202, 206, 226, 299] {
        receiver.answers([Reply::new(status)]);
        let task = submit(&node, &receiver, "/accounts").await;
        receiver.wait_for_task(&task.id, 1).await;
        delivered.push((status, task));
    }
    receiver.answers([Reply::new(500)]);
    let last = submit(&node, &receiver, "/last").await;
    receiver.wait_for_task(&last.id, 7).await;
    for (status, task) in delivered {
        assert_eq!(receiver.tries_for(&task.id).len(), 1, "{status}");
    }
}

#[tokio::test]
async fn everything_but_a_2xx_is_tried_again() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let node = Setup::new(&upstream).set("webhooks.timeout", "300ms").start().await;
    let refusals = [
        ("304", Reply::new(304).bodyless().closing()),
        ("400", Reply::new(400)),
        ("401", Reply::new(401)),
        ("404", Reply::new(404)),
        ("408", Reply::new(408)),
        ("410", Reply::new(410)),
        ("429", Reply::new(429)),
        ("500", Reply::new(500)),
        ("503", Reply::new(503).header("retry-after", "3600")),
        ("cut", Reply::cut()),
        ("reset", Reply::reset()),
        ("silence", Reply::silence()),
    ];
    for (name, refusal) in refusals {
        receiver.answers([refusal, Reply::new(200)]);
        let task = submit(&node, &receiver, "/accounts").await;
        let tries = receiver.wait_for_task(&task.id, 2).await;
        assert_eq!(tries.len(), 2, "{name}");
    }
}

#[tokio::test]
async fn a_redirect_is_a_refusal_and_never_followed() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let node = Node::start(&upstream).await;
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = receiver.peer().uri("/elsewhere");
        receiver.answers([Reply::new(status).header("location", &elsewhere), Reply::new(200)]);
        let task = submit(&node, &receiver, "/accounts").await;
        receiver.wait_for_task(&task.id, 2).await;
    }
    assert!(receiver.tries().iter().all(|received| received.path() == "/hook"));
}

#[tokio::test]
async fn the_webhook_uri_is_decoded_once_and_then_called_byte_for_byte() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let node = Node::start(&upstream).await;
    for path in [
        "/hook?secret=a%2Fb%20c+d&x=%7e&empty=&&y",
        "/%7Euser;p=1/a//b?",
        "/hook?next=https://x.example/?y=%26",
    ] {
        node.submit(node.get(&format!("/accounts?{}", receiver.query(path)))).await;
        let tries = super::support::eventually("the webhook came to its own path", async || {
            Some(receiver.tries()).filter(|tries| tries.iter().any(|received| received.target == path))
        });
        assert!(!tries.await.is_empty());
    }
}

#[tokio::test]
async fn a_plus_in_the_webhook_uri_stays_a_plus() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let node = Node::start(&upstream).await;
    let uri = encode(&receiver.peer().uri("/a+b?c+d")).replace("%2B", "+");
    node.submit(node.get(&format!("/accounts?async=true&webhook_uri={uri}"))).await;
    assert_eq!(receiver.wait_for(1).await[0].target, "/a+b?c+d");
}

#[tokio::test]
async fn a_receiver_host_gets_no_more_tries_at_once_than_it_may() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let gate = Gate::closed();
    receiver.answers([Reply::new(204).bodyless().behind(&gate)]);
    let node = Setup::new(&upstream).set("webhooks.per_host_concurrency", 2).start().await;
    for number in 0..8 {
        submit(&node, &receiver, &format!("/{number}")).await;
    }
    receiver.peer().wait_for_begun(2).await;
    gate.open();
    receiver.wait_for(8).await;
    assert_eq!(receiver.peer().peak(), 2);
}

#[tokio::test]
async fn a_receiver_that_hangs_does_not_hold_up_another() {
    let (upstream, hanging, prompt) =
        (Upstream::start().await, Receiver::start().await, Receiver::start().await);
    hanging.answers([Reply::silence()]);
    let node = Setup::new(&upstream).set("webhooks.per_host_concurrency", 2).start().await;
    for number in 0..6 {
        submit(&node, &hanging, &format!("/{number}")).await;
    }
    hanging.peer().wait_for_begun(1).await;
    // Another name for the same machine is another host.
    let uri = format!("http://localhost:{}/hook", prompt.peer().address().port());
    let task = node.submit(node.get(&format!("/x?async=true&webhook_uri={}", encode(&uri)))).await;
    prompt.wait_for_task(&task.id, 1).await;
}

#[tokio::test]
async fn a_name_that_resolves_to_a_forbidden_address_is_never_dialled() {
    let (upstream, hidden) = (Upstream::start().await, Receiver::start().await);
    let allowed = Receiver::listen("127.0.0.2:0").await;
    allowed.answers([Reply::new(500)]);
    let port = |receiver: &Receiver| i64::from(receiver.peer().address().port());
    let node = Setup::new(&upstream)
        .set("webhooks.allow_loopback", false)
        .set("webhooks.allow_http", true)
        .set("webhooks.allow_networks", vec!["127.0.0.2/32"])
        .set("webhooks.ports", vec![port(&hidden), port(&allowed)])
        .start()
        .await;
    let uri = encode(&format!("http://localhost:{}/hook", port(&hidden)));
    node.submit(node.get(&format!("/x?async=true&webhook_uri={uri}"))).await;
    // Seven tries of a later task take as long as all tries of the first.
    let task = submit(&node, &allowed, "/y").await;
    allowed.wait_for_task(&task.id, 7).await;
    hidden.peer().saw_nobody();

    let setup = node.kill9().await;
    let node = setup.set("webhooks.allow_hosts", vec!["localhost"]).start().await;
    let task = node.submit(node.get(&format!("/x?async=true&webhook_uri={uri}"))).await;
    hidden.wait_for_task(&task.id, 1).await;
}

#[tokio::test]
async fn secrets_in_a_webhook_uri_never_reach_the_log() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    receiver.refuses_first(1);
    let node = Node::start(&upstream).await;
    let query = receiver.query("/hook?key=hush-hush");
    node.submit(node.get(&format!("/accounts?{query}"))).await;
    receiver.wait_for(2).await;
    assert!(!node.log().contains("hush-hush"));
}

/// A proxy that the environment names for other programs would read tokens and results.
#[tokio::test]
async fn proxies_of_the_environment_are_not_used() {
    let (upstream, receiver, proxy) =
        (Upstream::start().await, Receiver::start().await, Upstream::start().await);
    let mut setup = Setup::new(&upstream);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        setup = setup.env(name, &proxy.uri("/"));
    }
    for name in ["NO_PROXY", "no_proxy"] {
        setup = setup.env(name, "");
    }
    let node = setup.start().await;
    let task = submit(&node, &receiver, "/accounts").await;
    receiver.wait_for_task(&task.id, 1).await;
    assert_eq!(node.get("/x").send().await.status, 200);
    assert_eq!(upstream.calls().len(), 2);
    proxy.saw_nobody();
}
