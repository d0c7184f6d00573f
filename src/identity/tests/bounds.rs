//! What a flood of tokens can hold where somebody is asked about each.

use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::sync::Semaphore;

use super::super::Identity;
use super::asked::{Service, active, introspection};
use super::{NOW, config, outcome};
use crate::config::{IdentityConfig, IdentityMode};

/// Questions on their way at once, as `docs/SECURITY.md` says.
const AT_ONCE: usize = 64;
/// Tokens waited for at once.
const WAITED_FOR: usize = 2_048;
/// Longest token asked about, in bytes.
const LONGEST: usize = 16 * 1024;

type Waiting<'a> = Pin<Box<dyn Future<Output = String> + 'a>>;

/// A service that holds its answers back, asked for as long as it takes.
fn slow() -> (Service, Identity) {
    let service = Service::closed(|_, _| Ok((200, active(3600))));
    let patient = IdentityConfig { timeout: Duration::from_hours(1), ..introspection() };
    let identity = service.identity(&patient);
    (service, identity)
}

/// A caller that came to wait for a token; `Err` when it was answered at once.
fn boards<'a>(identity: &'a Identity, token: &'a str) -> Result<Waiting<'a>, String> {
    let mut call: Waiting<'a> = Box::pin(outcome(identity, token, NOW));
    match call.as_mut().now_or_never() {
        None => Ok(call),
        Some(outcome) => Err(outcome),
    }
}

fn tokens(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("token-{number}")).collect()
}

/// Until nothing moves any more without an answer: every spawned question has had its turn.
async fn settle() {
    for _ in 0..3 * WAITED_FOR {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn no_more_than_64_questions_are_on_their_way_at_once() {
    let (service, identity) = slow();
    let tokens = tokens(AT_ONCE + 10);
    let mut calls = Vec::new();
    for token in &tokens {
        calls.push(boards(&identity, token).expect("the service does not answer"));
    }
    settle().await;
    assert_eq!(service.count(), AT_ONCE);
    service.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    assert!(join_all(calls).await.iter().all(|id| id == "john"));
    assert_eq!(service.count(), AT_ONCE + 10);
}

#[tokio::test]
async fn a_caller_beyond_the_tokens_waited_for_is_refused_for_now_and_not_asked_about() {
    let (service, identity) = slow();
    let tokens = tokens(WAITED_FOR);
    let mut calls = Vec::new();
    for token in &tokens {
        calls.push(boards(&identity, token).expect("there is room"));
    }
    for _ in 0..2 {
        assert_eq!(boards(&identity, "one-more").err().as_deref(), Some("503"), "never a 401");
    }
    // Whoever brings a token that is waited for already needs no room.
    calls.push(boards(&identity, &tokens[7]).expect("it waits with the others"));
    settle().await;
    assert_eq!(service.count(), AT_ONCE);
    service.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    assert!(join_all(calls).await.iter().all(|id| id == "john"));
    assert_eq!(service.count(), WAITED_FOR);
    assert_eq!(outcome(&identity, "one-more", NOW).await, "john", "the refusal is not remembered");
}

#[tokio::test]
async fn callers_who_gave_up_hold_no_room_once_their_questions_are_answered() {
    let (service, identity) = slow();
    let tokens = tokens(WAITED_FOR);
    for token in &tokens {
        drop(boards(&identity, token).expect("there is room"));
    }
    assert_eq!(boards(&identity, "one-more").err().as_deref(), Some("503"), "what was asked stays asked");
    service.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    settle().await;
    assert_eq!(outcome(&identity, "one-more", NOW).await, "john");
}

#[tokio::test]
async fn a_token_longer_than_16_kb_is_asked_about_nowhere() {
    let service = Service::new(|_, _| Ok((200, active(3600))));
    let long = "x".repeat(LONGEST + 1);
    let path = Some("/me".to_owned());
    let by_upstream = IdentityConfig {
        path: path.clone(),
        pointer: Some("/sub".to_owned()),
        ..config(IdentityMode::Upstream)
    };
    let revalidated = IdentityConfig { path, revalidate: true, ..config(IdentityMode::Opaque) };
    for config in [introspection(), by_upstream, revalidated] {
        assert_eq!(outcome(&service.identity(&config), &long, NOW).await, "401");
    }
    assert_eq!(service.count(), 0);
    assert_eq!(outcome(&service.identity(&introspection()), &long[1..], NOW).await, "john");
    assert_eq!(service.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_waited_for_in_a_queue_that_does_not_move_is_given_up() {
    let service = Service::closed(|_, _| Ok((200, active(3600))));
    let identity = service.identity(&introspection());
    let tokens = tokens(AT_ONCE + 1);
    let mut calls = Vec::new();
    for token in &tokens {
        calls.push(boards(&identity, token).expect("the service does not answer"));
    }
    let began = tokio::time::Instant::now();
    assert!(join_all(calls).await.iter().all(|refused| refused == "503"));
    assert_eq!(began.elapsed(), introspection().timeout, "waiting for a turn is a part of it");
}
