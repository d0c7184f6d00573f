//! What must hold of anything that others answer or send us: issuers, upstreams, gateways, strangers.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use ringback::cli::call::events::{Events, NoEvents};
use ringback::cli::listen::webhook::Webhook;
use ringback::config::{IdentityConfig, IdentityMode};
use ringback::identity::{Caller, Exchange, FetchError, Identity, Reach, Rejection};
use ringback::outcome::UpstreamsError;
use ringback::secret::FingerprintKey;
use serde_json::Value;
use tokio::runtime::Runtime;
use webhook_signature::{Claim, PublicKey, SharedSecret, SigningKey, TOLERANCE_SECONDS, Verifier};

use super::targets::{WALL, default_identity};

/// Whoever answers questions about tokens, with whatever bytes.
pub struct Asked {
    runtime: Runtime,
    default: IdentityConfig,
}

impl Asked {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self { runtime: runtime.expect("a runtime"), default: default_identity() }
    }

    /// Who calls with one token, when this is what the keys' place, the issuer or the upstream answers.
    fn identify(
        &self,
        config: &IdentityConfig,
        token: &'static str,
        body: &[u8],
    ) -> Result<Caller, Rejection> {
        let body = Bytes::copy_from_slice(body);
        let keys = body.clone();
        let answers: Exchange = Arc::new(move |_, limit| {
            assert!(limit <= 256 * 1024, "an answer is bounded");
            let mut response = Response::new(body.clone());
            *response.status_mut() = StatusCode::OK;
            async { Ok::<_, FetchError>(response) }.boxed()
        });
        let fetch = Arc::new(move |_, _| {
            let keys = keys.clone();
            async { Ok::<_, FetchError>(keys) }.boxed()
        });
        let reach = Reach { fetch, service: Arc::clone(&answers), upstream: answers };
        let identity = Identity::new(config, "bank", &FingerprintKey::new([1; 32]), reach);
        let identity = identity.expect("a good configuration");
        let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(token))]);
        self.runtime.block_on(identity.identify(&headers, WALL))
    }

    /// Nobody signed the token, so no set of keys makes it good.
    pub fn jwks(&self, input: &[u8]) {
        let config = IdentityConfig {
            mode: IdentityMode::Jwt,
            jwks_url: Some("http://127.0.0.1:9/jwks".to_owned()),
            issuer: Some("i".to_owned()),
            audience: Some("a".to_owned()),
            ..self.default.clone()
        };
        // With and without the name of a key, of each kind of algorithm.
        for token in [
            "Bearer eyJhbGciOiJFUzI1NiIsImtpZCI6ImsifQ.eyJleHAiOjE5MDAwMDAwMDB9.AAAA",
            "Bearer eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjE5MDAwMDAwMDB9.AAAA",
            "Bearer eyJhbGciOiJFZERTQSIsImtpZCI6ImsifQ.eyJleHAiOjE5MDAwMDAwMDB9.AAAA",
        ] {
            let refused = self.identify(&config, token, input).expect_err("nobody signed it");
            let is_set = serde_json::from_slice::<Value>(input).is_ok_and(|set| set["keys"].is_array());
            assert!(is_set || refused == Rejection::Unavailable, "{refused:?}");
        }
    }

    /// Only an object that says so makes a token good, and only one that says so makes it bad.
    pub fn introspection(&self, input: &[u8]) {
        let config = IdentityConfig {
            mode: IdentityMode::Introspection,
            introspection_url: Some("http://127.0.0.1:9/introspect".to_owned()),
            client_id: Some("ringback".to_owned()),
            client_secret: Some("s3cret".to_owned()),
            ..self.default.clone()
        };
        let said = serde_json::from_slice::<Value>(input).unwrap_or_default();
        match self.identify(&config, "Bearer t", input) {
            Ok(caller) => {
                assert_eq!(said["active"], Value::Bool(true));
                assert_eq!(text(&said["sub"]).as_deref(), Some(&*caller.credentials_id));
                assert!(caller.expires_at.is_none_or(|ends| ends > WALL));
                assert!(said.get("exp").is_none_or(Value::is_null) || caller.expires_at.is_some());
            }
            Err(Rejection::InvalidToken(_)) => assert!(said["active"].is_boolean(), "{said}"),
            Err(Rejection::Unavailable) => assert!(said["active"] != Value::Bool(false), "{said}"),
        }
    }

    /// Only what stands at the pointer is a name; whatever else the API answers with 200, the token is not bad.
    pub fn document(&self, input: &[u8]) {
        let config = IdentityConfig {
            mode: IdentityMode::Upstream,
            path: Some("/me".to_owned()),
            pointer: Some("/results/0/id".to_owned()),
            ..self.default.clone()
        };
        let said = serde_json::from_slice::<Value>(input).unwrap_or_default();
        match self.identify(&config, "Bearer t", input) {
            Ok(caller) => {
                assert_eq!(
                    said.pointer("/results/0/id").and_then(text).as_deref(),
                    Some(&*caller.credentials_id)
                );
            }
            Err(refused) => assert_eq!(refused, Rejection::Unavailable),
        }
    }
}

/// A name as text: a string that is neither empty nor endless, or a whole number.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => (1..=256).contains(&text.chars().count()).then(|| text.clone()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

/// What is taken over of an upstream's error is short, is what it said, and reads back.
pub fn upstream_error(input: &[u8]) {
    let Some(error) = UpstreamsError::read(input) else { return };
    let said: Value = serde_json::from_slice(input).expect("it was read as JSON");
    assert_eq!(said["error"], error.code.as_str());
    assert!((1..=128).contains(&error.code.len()));
    if let Some(description) = &error.description {
        assert_eq!(said["error_description"], description.as_str());
        assert!((1..=1_024).contains(&description.len()));
    }
    assert_eq!(UpstreamsError::read(&error.write()), Some(error));
}

/// What a stream says does not depend on how its bytes arrive, and none of it moves a terminal's cursor.
pub fn events(input: &[u8]) {
    let read = |piece: usize| {
        let mut events = Events::default();
        let stages: Result<Vec<_>, NoEvents> =
            input.chunks(piece.max(1)).map(|piece| events.push(piece)).collect();
        stages.map(|stages| stages.concat())
    };
    let whole = read(input.len());
    assert_eq!(read(1), whole);
    assert_eq!(read(7), whole);
    for stage in whole.into_iter().flatten() {
        assert!(!stage.describe().contains(char::is_control), "{:?}", stage.describe());
    }
}

/// What a stranger posts to `ringback listen` is a webhook with every field, or is refused.
pub fn posted(input: &[u8]) {
    let headers =
        HeaderMap::from_iter([("webhook-id".parse().expect("a name"), HeaderValue::from_static("1"))]);
    if let Ok(webhook) = Webhook::read(&headers, input) {
        assert_eq!(webhook.body["task_id"], webhook.task_id.as_str());
        assert_eq!(webhook.body["results_uri"], webhook.results_uri.as_str());
    }
    assert!(Webhook::read(&HeaderMap::new(), input).is_err());
}

/// A receiver's keys, and one message that was really signed.
pub struct Signed {
    verifier: Verifier,
    good: String,
}

const BODY: &[u8] = b"{\"task_id\":\"1\"}";
const NOW: i64 = 1_700_000_000;

impl Signed {
    pub fn new() -> Self {
        let (secret, key) =
            (SharedSecret::from_bytes(&[5; 32]).expect("32 bytes"), SigningKey::from_seed(&[5; 32]));
        let message = webhook_signature::Message::new("msg_1", NOW, BODY).expect("a good id");
        let good = webhook_signature::header_value([secret.sign(&message), key.sign(&message)]);
        Self { verifier: Verifier::new().with_secret(secret).with_key(key.public_key()), good }
    }

    /// No header is believed that does not hold one of the signatures that were made.
    pub fn verify(&self, input: &[u8]) {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let mut lines = text.splitn(3, '\n').chain(std::iter::repeat(""));
        let mut next = || lines.next().unwrap_or_default();
        let claim = Claim { id: next(), timestamp: next(), signatures: next() };
        let believed = self.verifier.verify(&claim, BODY, NOW, TOLERANCE_SECONDS).is_ok();
        let held = self.good.split(' ').any(|good| claim.signatures.split(' ').any(|one| one == good));
        let told = claim.id == "msg_1" && claim.timestamp == "1700000000";
        assert!(!believed || (held && told), "{claim:?}");
        // Keys as text are read by receivers too.
        assert!(PublicKey::parse(text).is_err() || text.starts_with("whpk_"));
        assert!(SharedSecret::parse(text).is_err() || text.len() >= 32);
    }
}
