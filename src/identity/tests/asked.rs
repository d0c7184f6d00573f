//! Modes that ask somebody about a token: what is remembered, and for how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::super::{Exchange, FetchError, Identity, Reach};
use super::settings::no_network;
use super::{NOW, config, outcome};
use crate::config::{IdentityConfig, IdentityMode};
use crate::secret::FingerprintKey;

pub type Answer = Result<(u16, Value), FetchError>;
/// From the request and its number, counted from 1.
type Script = dyn Fn(&Request<Bytes>, usize) -> Answer + Send + Sync;

/// Whoever is asked: answers by the token, counts, and waits where told to.
#[derive(Clone)]
pub struct Service {
    asked: Arc<AtomicUsize>,
    pub gate: Arc<Semaphore>,
    answer: Arc<Script>,
}

impl Service {
    pub fn new(answer: impl Fn(&Request<Bytes>, usize) -> Answer + Send + Sync + 'static) -> Self {
        let gate = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        Self { asked: Arc::default(), gate, answer: Arc::new(answer) }
    }

    /// Who takes questions and answers none until a permit is added to `gate`.
    pub fn closed(answer: impl Fn(&Request<Bytes>, usize) -> Answer + Send + Sync + 'static) -> Self {
        Self { gate: Arc::new(Semaphore::new(0)), ..Self::new(answer) }
    }

    pub fn count(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn exchange(&self) -> Exchange {
        let this = self.clone();
        Arc::new(move |request, _| {
            let this = this.clone();
            async move {
                let number = this.asked.fetch_add(1, Ordering::SeqCst) + 1;
                let _open = this.gate.acquire().await;
                let (status, body) = (this.answer)(&request, number)?;
                let mut response = Response::new(Bytes::from(body.to_string()));
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                Ok(response)
            }
            .boxed()
        })
    }

    pub fn identity(&self, config: &IdentityConfig) -> Identity {
        let reach = Reach { fetch: no_network(), service: self.exchange(), upstream: self.exchange() };
        Identity::new(config, "bank", &FingerprintKey::new([1; 32]), reach).unwrap()
    }
}

pub fn introspection() -> IdentityConfig {
    IdentityConfig {
        issuer: None,
        audience: None,
        introspection_url: Some("http://127.0.0.1/introspect".to_owned()),
        client_id: Some("ringback".to_owned()),
        client_secret: Some("secret".to_owned()),
        ..config(IdentityMode::Introspection)
    }
}

pub fn active(exp_secs: i64) -> Value {
    json!({"active": true, "sub": "john", "exp": NOW.as_secs() + exp_secs})
}

#[tokio::test]
async fn an_answer_is_believed_for_the_configured_time() {
    let service = Service::new(|_, _| Ok((200, active(3600))));
    let identity = service.identity(&introspection());
    for after in [0, 1, 59] {
        assert_eq!(outcome(&identity, "t", NOW.after(Duration::from_secs(after))).await, "john");
    }
    assert_eq!(service.count(), 1);
    outcome(&identity, "t", NOW.after(Duration::from_mins(1))).await;
    assert_eq!(service.count(), 2);
}

#[tokio::test]
async fn an_answer_is_not_believed_longer_than_the_token_lives() {
    let service = Service::new(|_, _| Ok((200, active(10))));
    let identity = service.identity(&introspection());
    assert_eq!(outcome(&identity, "t", NOW.after(Duration::from_millis(9_999))).await, "john");
    assert_eq!(outcome(&identity, "t", NOW.after(Duration::from_secs(10))).await, "401");
    assert_eq!(service.count(), 2);
}

#[tokio::test]
async fn a_bad_answer_is_believed_briefly() {
    let service =
        Service::new(|_, number| Ok((200, if number == 1 { json!({"active": false}) } else { active(60) })));
    let identity = service.identity(&introspection());
    for after in [0, 4_999] {
        assert_eq!(outcome(&identity, "t", NOW.after(Duration::from_millis(after))).await, "401");
    }
    assert_eq!(service.count(), 1);
    assert_eq!(outcome(&identity, "t", NOW.after(Duration::from_secs(5))).await, "john");
}

#[tokio::test]
async fn one_question_about_a_token_serves_all_who_ask() {
    let service = Service::new(|_, _| Ok((200, active(60))));
    let identity = Arc::new(service.identity(&introspection()));
    let calls = (0..50).map(|_| outcome(&identity, "t", NOW));
    assert!(join_all(calls).await.iter().all(|id| id == "john"));
    assert_eq!(service.count(), 1);
}

#[tokio::test]
async fn a_caller_who_goes_away_takes_the_answer_from_nobody() {
    let service = Service::closed(|_, _| Ok((200, active(60))));
    let identity = Arc::new(service.identity(&introspection()));
    let first = {
        let identity = Arc::clone(&identity);
        tokio::spawn(async move { outcome(&identity, "t", NOW).await })
    };
    while service.count() == 0 {
        tokio::task::yield_now().await;
    }
    first.abort();
    service.gate.add_permits(1);
    assert_eq!(outcome(&identity, "t", NOW).await, "john");
    assert_eq!(service.count(), 1);
}

#[tokio::test]
async fn a_service_out_of_reach_is_no_open_door_and_no_401() {
    for failure in
        [FetchError::Unreachable, FetchError::TimedOut, FetchError::TooLarge, FetchError::Status(500)]
    {
        let service = Service::new(
            move |_, number| if number == 1 { Err(failure.clone()) } else { Ok((200, active(60))) },
        );
        let identity = service.identity(&introspection());
        assert_eq!(outcome(&identity, "t", NOW).await, "503");
        // Nothing of it is remembered.
        assert_eq!(outcome(&identity, "t", NOW).await, "john");
    }
    let service = Service::new(|_, _| Ok((401, json!({"error": "invalid_client"}))));
    assert_eq!(
        outcome(&service.identity(&introspection()), "t", NOW).await,
        "503",
        "our fault, not the token's"
    );
}

#[tokio::test]
async fn a_service_that_never_answers_is_given_up() {
    let service = Service::closed(|_, _| Ok((200, active(60))));
    let config = IdentityConfig { timeout: Duration::from_millis(10), ..introspection() };
    assert_eq!(outcome(&service.identity(&config), "t", NOW).await, "503");
}

#[tokio::test]
async fn the_upstream_says_who_it_is() {
    let service = Service::new(|request, _| {
        assert_eq!(request.uri(), "/me");
        match request.headers()["authorization"].to_str().unwrap() {
            "Bearer good" => Ok((200, json!({"results": [{"credentials_id": "c-1"}]}))),
            _ => Ok((401, json!({}))),
        }
    });
    let config = IdentityConfig {
        path: Some("/me".to_owned()),
        pointer: Some("/results/0/credentials_id".to_owned()),
        ..config(IdentityMode::Upstream)
    };
    let identity = service.identity(&config);
    assert_eq!(outcome(&identity, "good", NOW).await, "c-1");
    assert_eq!(outcome(&identity, "bad", NOW).await, "401");
}

#[tokio::test]
async fn a_token_revoked_upstream_is_refused_once_the_answer_is_too_old() {
    let service = Service::new(|_, number| Ok((if number == 1 { 200 } else { 401 }, json!({}))));
    let config =
        IdentityConfig { path: Some("/me".to_owned()), revalidate: true, ..config(IdentityMode::Opaque) };
    let identity = service.identity(&config);
    let id = outcome(&identity, "t", NOW).await;
    assert_eq!(id.len(), 44, "it is still the mode that says who");
    assert_eq!(outcome(&identity, "t", NOW.after(Duration::from_secs(59))).await, id);
    assert_eq!(outcome(&identity, "t", NOW.after(Duration::from_mins(1))).await, "401");
}
