//! Every parser of hostile bytes, fed with what grows out of a corpus.
//!
//! Seeded, so that a failure repeats; bounded, so that it runs with every test. `RINGBACK_FUZZ_CASES`
//! makes it longer. Each target checks what must hold of any input, not only that nothing panics.

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
