//! Every verb that touches a task asks who calls: a token that is refused now opens nothing more, and
//! while nobody can say whose it is, nobody gets in, nothing is stored and nothing is erased.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::json;

use crate::support::client::{Answer, Call};
use crate::support::issuer::{self, Key, claims, now};
use crate::support::node::{Node, PREFIX, Setup, Task};
use crate::support::peer::Upstream;
use crate::support::reply::{Gate, Reply};
use crate::support::{eventually, within};

/// Where tokens are asked about: paths of the upstream, for an issuer too.
const ASKED: &str = "/data/v1/me";

/// A node that asks about every token, and a way to make tokens nobody has asked about yet.
struct Asking {
    node: Node,
    upstream: Upstream,
    /// The mode `jwt` asks besides; others take any text for a token.
    key: Option<Key>,
    made: AtomicUsize,
    finished: Task,
    running: Task,
    gate: Gate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Introspection,
    Upstream,
    JwtRevalidated,
    OpaqueRevalidated,
}

fn good() -> Reply {
    let said = json!({"active": true, "sub": "john", "exp": now() + 600, "id": "john"});
    Reply::json(200, &said.to_string())
}

fn revoked(way: Way) -> Reply {
    match way {
        Way::Introspection => Reply::json(200, r#"{"active": false}"#),
        _ => Reply::new(401),
    }
}

fn setup(way: Way, upstream: &Upstream, key: &Key) -> Setup {
    let setup = Setup::new(upstream);
    let revalidated = |setup: Setup| {
        setup.set("upstreams.0.identity.revalidate", true).set("upstreams.0.identity.path", "/me")
    };
    match way {
        Way::Introspection => setup
            .set("upstreams.0.identity.mode", "introspection")
            .set("upstreams.0.identity.introspection_url", upstream.uri(ASKED))
            .set("upstreams.0.identity.client_id", "ringback")
            .set("upstreams.0.identity.client_secret", "s3cret"),
        Way::Upstream => setup
            .set("upstreams.0.identity.mode", "upstream")
            .set("upstreams.0.identity.path", "/me")
            .set("upstreams.0.identity.pointer", "/id"),
        Way::JwtRevalidated => revalidated(issuer::by_file(setup, &[key])),
        Way::OpaqueRevalidated => revalidated(setup.set("upstreams.0.identity.mode", "opaque")),
    }
}

impl Asking {
    /// With one task that is finished and one that runs until `gate` opens, both of john.
    async fn start(way: Way) -> Self {
        let (upstream, key, gate) = (Upstream::start().await, Key::p256("k"), Gate::closed());
        upstream.script(ASKED, [good()]);
        upstream.script(&format!("{PREFIX}/slow"), [Reply::ok("slow").behind(&gate)]);
        upstream.always([Reply::ok("done")]);
        let setup = setup(way, &upstream, &key)
            .set("upstreams.0.identity.max_cache", "1ms")
            .set("upstreams.0.identity.timeout", "2s");
        let node = setup.start().await;
        let key = (way == Way::JwtRevalidated).then_some(key);
        let made = AtomicUsize::new(0);
        let nothing = Task { id: String::new(), results_uri: String::new() };
        let mut asking =
            Self { node, upstream, key, made, finished: nothing.clone(), running: nothing, gate };
        let token = asking.token();
        asking.finished = asking.node.submit(asking.node.get("/quick?async=true").bearer(&token)).await;
        asking.running = asking.node.submit(asking.node.get("/slow?async=true").bearer(&token)).await;
        eventually("the one task is finished", async || {
            (asking.read(&token, "quick").await.status == 200).then_some(())
        })
        .await;
        eventually("the other one runs", async || {
            let answer = asking.read(&token, "slow").await;
            (answer.header("ringback-status") == Some("Running")).then_some(())
        })
        .await;
        asking
    }

    async fn read(&self, token: &str, which: &str) -> Answer {
        let task = if which == "quick" { &self.finished } else { &self.running };
        self.node.results(task).bearer(token).send().await
    }

    /// A token of john. Opaque ones are one and the same: another one would be another person's.
    fn token(&self) -> String {
        let mut claims = claims("john");
        claims["jti"] = json!(self.made.fetch_add(1, Ordering::Relaxed));
        self.key.as_ref().map_or_else(|| String::from("token"), |key| key.sign(&claims))
    }

    /// Until what was believed is forgotten, and the new answer is heard.
    async fn hears(&self, reply: Reply, status: u16) {
        self.upstream.script(ASKED, [reply]);
        let token = self.token();
        eventually("the new answer about the token is heard", async || {
            (self.read(&token, "quick").await.status == status).then_some(())
        })
        .await;
    }

    /// Every verb that touches a task, each in every form that has code of its own.
    fn verbs(&self) -> Vec<(String, Call)> {
        let (node, mut verbs) = (&self.node, Vec::new());
        let mut add = |name: &str, call: Call| verbs.push((name.to_owned(), call.bearer(&self.token())));
        add("submit", node.get("/x?async=true"));
        add("submit with a body", node.post("/x?async=true").body("body"));
        add("submit again", node.post("/x?async=true").header("idempotency-key", "key-1"));
        add("submit by preference", node.get("/x").header("prefer", "respond-async"));
        add("submit and wait", node.get("/x").header("prefer", "respond-async, wait=20"));
        for (which, task) in [("finished", &self.finished), ("running", &self.running)] {
            let path = task.path();
            for method in [Method::GET, Method::HEAD, Method::DELETE] {
                for end in ["", "/"] {
                    let call = node.call(method.clone(), &format!("{path}{end}"));
                    add(&format!("{method} of the {which} one's results{end}"), call);
                }
            }
            for method in [Method::GET, Method::HEAD] {
                let call = |below: &str| node.call(method.clone(), &format!("{path}{below}"));
                add(&format!("{method} of the {which} one's response"), call("/response"));
                let stream = call("").header("accept", "text/event-stream");
                add(&format!("{method} of the {which} one's stream"), stream);
                add(&format!("{method} of the {which} one, waiting"), call("").header("prefer", "wait=20"));
                let range = call("").header("range", "bytes=0-1");
                add(&format!("{method} of a range of the {which} one"), range);
                let known = call("").header("if-none-match", "*");
                add(&format!("{method} of the {which} one if it is new"), known);
            }
        }
        let unknown = self.finished.path().replace(&self.finished.id, "019a3f00-0000-7000-8000-000000000001");
        add("an unknown id", node.call(Method::GET, &unknown));
        add("a malformed id", node.get("/results/nonsense"));
        add("DELETE of an unknown id", node.call(Method::DELETE, &unknown));
        verbs
    }

    /// Sends every verb and expects this refusal of each; nothing stored, nothing erased, nobody called.
    async fn refuses_everything(&self, status: u16, code: &str) {
        let (rows, calls) = (self.node.rows(), self.calls());
        for (name, call) in self.verbs() {
            let head = name.starts_with("HEAD");
            let answer = call.send().await;
            assert_eq!((answer.status, answer.header("ringback-error")), (status, Some(code)), "{name}");
            if !head {
                answer.is_refusal(status, code);
            }
            let again = answer.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
            assert_eq!(again.is_some_and(|seconds| seconds > 0), status == 503, "{name}");
            assert_eq!(answer.header("www-authenticate").is_some(), status == 401, "{name}");
            assert_eq!(answer.header("ringback-task"), None, "{name}");
            assert_eq!(answer.header("ringback-status"), None, "{name}");
        }
        assert_eq!((self.node.rows(), self.calls()), (rows, calls));
    }

    /// What reached the upstream but for questions about tokens.
    fn calls(&self) -> usize {
        self.upstream.calls().len() - self.upstream.calls_of(ASKED).len()
    }
}

async fn a_revoked_token_opens_nothing(way: Way) {
    let asking = Asking::start(way).await;
    asking.hears(revoked(way), 401).await;
    asking.refuses_everything(401, "invalid_token").await;
    // Nothing is lost: the token is only not believed.
    asking.hears(good(), 200).await;
    assert_eq!(asking.read(&asking.token(), "quick").await.body, "done");
}

async fn an_outage_opens_nothing(way: Way) {
    let asking = Asking::start(way).await;
    asking.hears(Reply::new(500), 503).await;
    asking.refuses_everything(503, "identity_unavailable").await;
    asking.hears(good(), 200).await;
    assert_eq!(asking.read(&asking.token(), "quick").await.body, "done");
}

#[tokio::test]
async fn a_token_its_issuer_calls_inactive_is_refused_on_every_verb() {
    a_revoked_token_opens_nothing(Way::Introspection).await;
}

#[tokio::test]
async fn a_token_the_upstream_refuses_is_refused_on_every_verb() {
    a_revoked_token_opens_nothing(Way::Upstream).await;
}

#[tokio::test]
async fn a_jwt_revoked_upstream_is_refused_on_every_verb() {
    a_revoked_token_opens_nothing(Way::JwtRevalidated).await;
}

#[tokio::test]
async fn an_opaque_token_revoked_upstream_is_refused_on_every_verb() {
    a_revoked_token_opens_nothing(Way::OpaqueRevalidated).await;
}

#[tokio::test]
async fn an_issuers_outage_is_a_503_on_every_verb() {
    an_outage_opens_nothing(Way::Introspection).await;
}

#[tokio::test]
async fn an_outage_of_the_upstream_that_knows_tokens_is_a_503_on_every_verb() {
    an_outage_opens_nothing(Way::Upstream).await;
}

#[tokio::test]
async fn a_jwt_that_cannot_be_revalidated_is_a_503_on_every_verb() {
    an_outage_opens_nothing(Way::JwtRevalidated).await;
}

#[tokio::test]
async fn an_opaque_token_that_cannot_be_revalidated_is_a_503_on_every_verb() {
    an_outage_opens_nothing(Way::OpaqueRevalidated).await;
}

/// Every way not to answer, over real connections.
fn outages() -> Vec<(&'static str, Reply)> {
    let json = |body: &str| Reply::json(200, body);
    let large = format!(r#"{{"active":true,"sub":"john","id":"john","x":"{}"}}"#, "x".repeat(300_000));
    vec![
        ("500", Reply::new(500)),
        ("a cut connection", Reply::cut()),
        ("a reset", Reply::reset()),
        ("302", Reply::new(302).header("location", "/data/v1/elsewhere").body("{}")),
        ("not JSON", Reply::ok("john")),
        ("half of JSON", json(r#"{"active":true,"sub":"john","id":"jo"#)),
        ("nothing", Reply::new(200)),
        ("no such member", json(r#"{"name":"john"}"#)),
        ("a list", json(r#"{"active":["john"],"id":["john"]}"#)),
        ("a null", json(r#"{"active":null,"id":null}"#)),
        ("more than is read", json(&large)),
        ("a body without end", Reply::new(200).chunks(vec![(None, "{"), (Some(Gate::closed()), "}")])),
        ("half of a body", Reply::new(200).broken_after(r#"{"active":true,"sub":"j","id":"j"}"#, 20)),
        ("no HTTP", Reply::steps(vec![crate::support::reply::Step::Send("hello\r\n\r\n".into())])),
    ]
}

async fn no_outage_is_an_open_door(way: Way) {
    let asking = Asking::start(way).await;
    asking.upstream.script("/data/v1/elsewhere", [good()]);
    let rows = asking.node.rows();
    for (name, reply) in outages() {
        // Well in between, so that each is heard by itself.
        asking.hears(good(), 200).await;
        asking.hears(reply, 503).await;
        let node = &asking.node;
        for call in [
            node.get("/x?async=true"),
            node.results(&asking.finished),
            node.call(Method::DELETE, asking.finished.path()),
        ] {
            let answer = call.bearer(&asking.token()).send().await;
            assert_eq!(
                (answer.status, answer.header("ringback-error")),
                (503, Some("identity_unavailable")),
                "{name}"
            );
            assert!(answer.header("retry-after").is_some(), "{name}");
        }
    }
    assert_eq!(asking.node.rows(), rows);
    assert!(asking.upstream.calls_of("/data/v1/elsewhere").is_empty(), "a redirect was followed");
}

#[tokio::test]
async fn no_outage_of_the_upstream_that_knows_tokens_is_an_open_door() {
    no_outage_is_an_open_door(Way::Upstream).await;
}

#[tokio::test]
async fn no_outage_of_an_issuer_is_an_open_door() {
    no_outage_is_an_open_door(Way::Introspection).await;
}

#[tokio::test]
async fn a_wait_is_not_answered_with_the_result_while_nobody_can_say_whose_token_it_is() {
    let asking = Asking::start(Way::Upstream).await;
    let asked = asking.upstream.calls_of(ASKED).len();
    let call = asking.node.results(&asking.running).bearer("another").header("prefer", "wait=60");
    let waiting = tokio::spawn(call.send());
    eventually("the wait is judged", async || (asking.upstream.calls_of(ASKED).len() > asked).then_some(()))
        .await;
    // Whoever asks the same hears the same answer, so that the one to the wait has come.
    assert_eq!(asking.read("another", "slow").await.status, 202);
    asking.hears(Reply::new(500), 503).await;
    asking.gate.open();
    waiting.await.expect("it was answered").is_refusal(503, "identity_unavailable");
}

#[tokio::test]
async fn a_stream_ends_once_nobody_can_say_whose_token_it_is() {
    let asking = Asking::start(Way::Upstream).await;
    let call = asking.node.results(&asking.running).bearer("another").header("accept", "text/event-stream");
    let mut body = call.open().await.expect("it was answered").into_body();
    let mut said = next(&mut body).await.expect("the state it is in");
    asking.hears(Reply::new(500), 503).await;
    asking.gate.open();
    while let Some(more) = next(&mut body).await {
        said += &more;
    }
    assert!(said.ends_with("event: end\ndata: {\"reason\":\"identity_unavailable\"}\n\n"), "{said}");
    assert!(!said.contains("Succeeded"), "{said}");
}

async fn next(body: &mut Incoming) -> Option<String> {
    let frame = within("the stream went on", body.frame()).await?;
    let data = frame.expect("the stream does not break").into_data().expect("data");
    Some(String::from_utf8(data.to_vec()).expect("events are UTF-8"))
}

#[tokio::test]
async fn a_submit_that_waits_is_told_of_its_task_even_if_the_identity_service_went_away() {
    let asking = Asking::start(Way::Upstream).await;
    let slow = format!("{PREFIX}/slow-too");
    let gate = Gate::closed();
    asking.upstream.script(&slow, [Reply::ok("done").behind(&gate)]);
    let call = asking.node.get("/slow-too").bearer("another").header("prefer", "respond-async, wait=60");
    let waiting = tokio::spawn(call.send());
    eventually("its attempt is in flight", async || {
        (!asking.upstream.calls_of(&slow).is_empty()).then_some(())
    })
    .await;
    asking.hears(Reply::new(500), 503).await;
    eventually("what was believed of this token is forgotten too", async || {
        (asking.read("another", "quick").await.status == 503).then_some(())
    })
    .await;
    gate.open();
    let answer = waiting.await.expect("it was answered");
    let task = Task::from(&answer);
    assert_ne!(answer.body, "done");
    asking.hears(good(), 200).await;
    assert_eq!(asking.node.results(&task).bearer("another").send().await.body, "done");
}
