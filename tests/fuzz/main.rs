//! Every parser of hostile bytes, fed with what grows out of a corpus.
//!
//! Seeded, so that a failure repeats; bounded, so that it runs with every test. `RINGBACK_FUZZ_CASES`
//! makes it longer. Each target checks what must hold of any input, not only that nothing panics.

mod answers;
mod headers;
mod mutate;
mod targets;

use std::path::Path;

/// Inputs for each target.
const CASES: u64 = 20_000;

/// Runs `target` over the corpus itself and over what it grows into.
fn run(corpus: &str, target: impl Fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(corpus);
    let mut files: Vec<_> = std::fs::read_dir(&directory)
        .expect("every target has a corpus")
        .map(|entry| entry.expect("the corpus can be read").path())
        .collect();
    files.sort();
    let seeds: Vec<_> =
        files.iter().map(|file| std::fs::read(file).expect("the corpus can be read")).collect();
    for seed in &seeds {
        target(seed);
    }
    let cases = std::env::var("RINGBACK_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok());
    for case in 0..cases.unwrap_or(CASES) {
        let input = mutate::grown(&seeds, case);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| target(&input)));
        assert!(outcome.is_ok(), "{corpus}: case {case}: {:?}", String::from_utf8_lossy(&input));
    }
}

#[test]
fn queries() {
    run("query", targets::query);
}

#[test]
fn retry_after() {
    run("retry_after", targets::retry_after);
}

#[test]
fn webhook_uris() {
    let rules = targets::strict_rules();
    run("webhook_uri", |input| targets::webhook_uri(input, &rules));
}

#[test]
fn framing() {
    run("framing", targets::framing);
}

#[test]
fn tokens() {
    let tokens = targets::Tokens::new();
    run("token", |input| tokens.judge(input));
}

#[test]
fn header_blocks() {
    run("header_block", targets::header_block);
}

#[test]
fn jwk_sets() {
    let asked = answers::Asked::new();
    run("jwks", |input| asked.jwks(input));
}

#[test]
fn introspection_answers() {
    let asked = answers::Asked::new();
    run("introspection", |input| asked.introspection(input));
}

#[test]
fn documents_that_name_the_caller() {
    let asked = answers::Asked::new();
    run("document", |input| asked.document(input));
}

#[test]
fn upstream_errors() {
    run("upstream_error", answers::upstream_error);
}

#[test]
fn event_streams() {
    run("events", answers::events);
}

#[test]
fn posted_webhooks() {
    run("posted", answers::posted);
}

#[test]
fn signatures() {
    let signed = answers::Signed::new();
    run("signature", |input| signed.verify(input));
}

#[test]
fn accept() {
    run("accept", headers::accept);
}

#[test]
fn accept_encoding() {
    run("accept_encoding", headers::accept_encoding);
}

#[test]
fn preferences() {
    run("prefer", headers::prefer);
}

#[test]
fn ranges() {
    run("range", headers::range);
}

#[test]
fn conditions() {
    run("conditions", headers::conditions);
}

#[test]
fn idempotency_keys() {
    run("idempotency_key", headers::idempotency_key);
}

#[test]
fn fields_of_a_connection() {
    run("connection", headers::connection);
}

#[test]
fn fields_about_forwarding() {
    run("forwarding", headers::forwarding);
}

#[test]
fn paths() {
    run("path", headers::path);
}

#[test]
fn task_ids() {
    run("task_id", headers::task_id);
}

#[test]
fn hosts() {
    run("host", headers::host);
}

#[test]
fn who_sees_the_admin_listener() {
    run("admin", headers::admin);
}
