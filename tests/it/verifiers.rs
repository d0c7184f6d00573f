//! The README's functions for receivers, on webhooks of a running node.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use webhook_signature::{Message, SharedSecret, SigningKey, header_value};

use crate::signatures;
use crate::support::node::{Node, Setup};
use crate::support::peer::Upstream;
use crate::support::receiver::Receiver;
use crate::support::wire::Received;

const README: &str = include_str!("../../README.md");

/// The README's function for Rust, compiled as it stands there.
mod rust {
    include!("../verifiers/verified.rs.inc");

    pub fn believes(secret: &str, headers: &HeaderMap, body: &[u8]) -> bool {
        verified(secret, headers, body).is_ok()
    }
}

/// Where the verifiers are installed.
const VARIABLE: &str = "RINGBACK_VERIFIERS";

fn installed() -> PathBuf {
    let Some(directory) = std::env::var_os(VARIABLE) else {
        panic!(
            "{VARIABLE} names no directory with the verifiers. `./test` prepares one; by hand, type:\n\
             mkdir -p target/verifiers && python3 -m venv target/verifiers/venv && \
             target/verifiers/venv/bin/pip install -r tests/verifiers/requirements.txt && \
             cp tests/verifiers/package*.json target/verifiers && npm --prefix target/verifiers ci && \
             export {VARIABLE}=$PWD/target/verifiers"
        )
    };
    directory.into()
}

/// The README's code blocks of a language.
fn examples(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    let blocks = README.split(&fence).skip(1);
    blocks.map(|rest| rest.split_once("```").expect("a block ends").0).collect()
}

/// A webhook as a receiver sees it, and whether it is one to believe, by secret and by keys.
struct Case {
    name: &'static str,
    secret: String,
    jwks: Value,
    id: String,
    timestamp: String,
    signature: String,
    body: Vec<u8>,
    believed: (bool, bool),
}

impl Case {
    fn of(
        name: &'static str,
        webhook: &Received,
        (secret, jwks): (&String, &Value),
        believed: (bool, bool),
    ) -> Self {
        let header = |name| webhook.header(name).expect("a signed webhook").to_owned();
        Self {
            name,
            secret: secret.clone(),
            jwks: jwks.clone(),
            id: header("webhook-id"),
            timestamp: header("webhook-timestamp"),
            signature: header("webhook-signature"),
            body: webhook.body.clone(),
            believed,
        }
    }
}

/// Real webhooks of a node, and what an attacker could make of one.
async fn cases() -> Vec<Case> {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let node = Node::start(&upstream).await;
    node.submit(node.get(&format!("/accounts?{}", receiver.query("/hook")))).await;
    let webhook = receiver.wait_for(1).await.remove(0);
    let (secret, jwks) = (signatures::secrets(&node).await.remove(0), signatures::jwks(&node).await.json());
    let case = |name, believed| Case::of(name, &webhook, (&secret, &jwks), believed);
    let mut changed = case("a changed byte", (false, false));
    changed.body[20] ^= 1;
    let mut wrong = case("a wrong key", (false, false));
    wrong.secret = String::from("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    wrong.jwks["keys"][0]["x"] = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo".into();
    let mut other = case("another id", (false, false));
    other.id.replace_range(..1, "1");
    let mut unsigned = case("no signature", (false, false));
    unsigned.signature = String::new();
    let mut cases = vec![case("as it came", (true, true)), changed, wrong, other, unsigned, old()];
    cases.extend(rotated().await);
    cases
}

/// A webhook that came while keys rotate, and one that came after, by who has which keys.
async fn rotated() -> Vec<Case> {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start().await);
    let mut node = Setup::new(&upstream).start().await;
    let call = |node: &Node| node.get(&format!("/accounts?{}", receiver.query("/hook")));
    let (old_secret, old_jwks) =
        (signatures::secrets(&node).await.remove(0), signatures::jwks(&node).await.json());
    signatures::keys(&node, &["rotate", "webhook", "--overlap", "1h"]).await;
    signatures::hang_up(&mut node).await;
    let (new_secret, both) =
        (signatures::secrets(&node).await.remove(0), signatures::jwks(&node).await.json());
    let new_jwks = json!({ "keys": [both["keys"][0]] });
    assert_ne!((&old_secret, &old_jwks), (&new_secret, &new_jwks), "nothing was rotated");
    node.submit(call(&node)).await;
    let during = receiver.wait_for(1).await.remove(0);
    // The second rotation ends what the first one replaced, too.
    signatures::keys(&node, &["rotate", "webhook", "--overlap", "0s"]).await;
    signatures::hang_up(&mut node).await;
    node.submit(call(&node)).await;
    let after = receiver.wait_for(2).await.remove(1);
    let newest = (signatures::secrets(&node).await.remove(0), signatures::jwks(&node).await.json());

    let case = |name, webhook: &Received, (secret, jwks): (&String, &Value), believed: bool| {
        Case::of(name, webhook, (secret, jwks), (believed, believed))
    };
    let (old, new, newest) = ((&old_secret, &old_jwks), (&new_secret, &new_jwks), (&newest.0, &newest.1));
    let mut changed = case("during a rotation, a changed byte", &during, new, false);
    changed.body[20] ^= 1;
    vec![
        case("during a rotation, by who has the old keys", &during, old, true),
        case("during a rotation, by who has the new keys", &during, new, true),
        case("during a rotation, by who has both published keys", &during, (&old_secret, &both), true),
        case("during a rotation, by keys that came later", &during, newest, false),
        changed,
        case("after rotations without overlap, by the old keys", &after, old, false),
        case("after rotations without overlap, by the replaced keys", &after, new, false),
        case("after rotations without overlap, by the newest keys", &after, newest, true),
    ]
}

/// Ten minutes old and signed well: only its age is wrong.
fn old() -> Case {
    let timestamp = i64::try_from(crate::support::issuer::now()).expect("seconds") - 600;
    let (secret, key) = (SharedSecret::from_bytes(&[5; 32]).unwrap(), SigningKey::from_seed(&[5; 32]));
    let body = b"{}".to_vec();
    let message = Message::new("msg", timestamp, &body).unwrap();
    let signature = header_value([secret.sign(&message), key.sign(&message)]);
    let x = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(key.public_key().as_bytes());
    Case {
        name: "an old timestamp",
        secret: String::clone(&secret.to_text()),
        jwks: json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": x }] }),
        id: String::from("msg"),
        timestamp: timestamp.to_string(),
        signature,
        body,
        believed: (false, false),
    }
}

/// What the driver says to each case.
fn judged(mut driver: Command, cases: &[Case]) -> Vec<bool> {
    let cases: Vec<_> = cases
        .iter()
        .map(|case| {
            let headers = json!({ "webhook-id": case.id, "webhook-timestamp": case.timestamp,
                "webhook-signature": case.signature });
            json!({ "secret": case.secret, "jwks": case.jwks, "headers": headers,
                "body": STANDARD.encode(&case.body) })
        })
        .collect();
    let mut child =
        driver.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the language is installed");
    let input = serde_json::to_vec(&cases).unwrap();
    child.stdin.take().expect("piped").write_all(&input).expect("the driver reads");
    let output = child.wait_with_output().expect("a child can be waited for");
    assert!(output.status.success(), "the driver failed");
    String::from_utf8(output.stdout).unwrap().lines().map(|line| line == "believed").collect()
}

/// A directory with a driver of the tests and the README's examples.
fn place(into: &Path, driver: &str, files: &[(String, &str)]) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verifiers").join(driver);
    for (name, text) in files {
        std::fs::write(into.join(name), text).expect("the directory can be written");
    }
    let driver = into.join(driver);
    std::fs::copy(from, &driver).expect("the driver can be copied");
    driver
}

#[tokio::test]
async fn the_readmes_rust_believes_real_webhooks_only() {
    assert_eq!(examples("rust"), [include_str!("../verifiers/verified.rs.inc")]);
    for case in cases().await {
        let mut headers = http::HeaderMap::new();
        for (name, value) in [
            ("webhook-id", &case.id),
            ("webhook-timestamp", &case.timestamp),
            ("webhook-signature", &case.signature),
        ] {
            headers.insert(name, value.parse().expect("a header value"));
        }
        assert_eq!(rust::believes(&case.secret, &headers, &case.body), case.believed.0, "{}", case.name);
    }
}

#[tokio::test]
async fn the_readmes_python_believes_real_webhooks_only() {
    let installed = installed();
    let dir = tempfile::tempdir_in(&installed).expect("a directory can be made");
    let examples = examples("python");
    let driver = place(dir.path(), "driver.py", &[(String::from("example.py"), examples[0])]);
    let cases = cases().await;
    let mut python = Command::new(installed.join("venv/bin/python"));
    python.arg(driver);
    let judged = judged(python, &cases);
    assert_eq!(judged.len(), cases.len());
    for (case, judged) in cases.iter().zip(judged) {
        assert_eq!(judged, case.believed.0, "{}", case.name);
    }
}

#[tokio::test]
async fn the_readmes_javascript_believes_real_webhooks_only() {
    let installed = installed();
    // Below the installed packages, so that imports find them.
    let dir = tempfile::tempdir_in(&installed).expect("a directory can be made");
    let examples = examples("js");
    let named: Vec<_> =
        examples.iter().enumerate().map(|(index, text)| (format!("example{index}.mjs"), *text)).collect();
    let driver = place(dir.path(), "driver.mjs", &named);
    let cases = cases().await;
    let mut node = Command::new("node");
    node.arg(driver);
    let judged = judged(node, &cases);
    assert_eq!(judged.len(), 2 * cases.len());
    for (case, judged) in cases.iter().zip(judged.chunks(2)) {
        assert_eq!((judged[0], judged[1]), case.believed, "{}", case.name);
    }
}

/// What a runner of the vectors says: how many it signed, judged, and passed over.
fn counted(mut runner: Command) -> [usize; 3] {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/webhook-signature/vectors.json");
    let output = runner.arg(vectors).output().expect("the language is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("text");
    let counts: Vec<usize> = said.split_whitespace().map(|count| count.parse().expect("a number")).collect();
    counts.try_into().expect("three numbers")
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../crates/webhook-signature/vectors.json")).expect("JSON")
}

/// Every vector was looked at, and most were judged: what is passed over is what the library has no rule for.
#[track_caller]
fn all_were_run([signed, judged, passed_over]: [usize; 3]) {
    let vectors = vectors();
    let count = |kind: &str| vectors[kind].as_array().expect("a list").len();
    assert_eq!((signed, judged + passed_over), (count("sign"), count("verify")));
    assert!(judged >= 25, "only {judged} were judged");
}

#[test]
fn the_vectors_hold_for_the_python_library() {
    let installed = installed();
    let dir = tempfile::tempdir_in(&installed).expect("a directory can be made");
    let mut python = Command::new(installed.join("venv/bin/python"));
    python.arg(place(dir.path(), "vectors.py", &[]));
    all_were_run(counted(python));
}

#[test]
fn the_vectors_hold_for_the_javascript_library_and_the_platforms_ed25519() {
    let installed = installed();
    let dir = tempfile::tempdir_in(&installed).expect("a directory can be made");
    let mut node = Command::new("node");
    node.arg(place(dir.path(), "vectors.mjs", &[]));
    all_were_run(counted(node));
}
