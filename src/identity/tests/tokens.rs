//! Which tokens are good, with the keys in a file.

use std::io::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::super::{Identity, Rejection};
use super::issuer::{SigningKey, claims, key_set};
use super::settings::build;
use super::{NOW, config, identify, outcome, with_header};
use crate::clock::Timestamp;
use crate::config::{IdentityConfig, IdentityMode};

fn identity(keys: &[&SigningKey]) -> Identity {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(key_set(keys).as_bytes()).unwrap();
    build(&IdentityConfig { jwks_file: Some(file.path().to_owned()), ..config(IdentityMode::Jwt) }).unwrap()
}

fn ed() -> SigningKey {
    SigningKey::new("ed", Algorithm::EdDSA)
}

/// The sentence with which a token is refused now.
async fn refusal(identity: &Identity, token: &str) -> String {
    match identify(identity, token, NOW).await {
        Err(Rejection::InvalidToken(sentence)) => sentence.into_owned(),
        Err(Rejection::Unavailable) => panic!("unavailable"),
        Ok(_) => panic!("accepted"),
    }
}

/// The sentence for a token like a good one, with these claims changed.
async fn refusal_of(changes: Value) -> String {
    let key = ed();
    refusal(&identity(&[&key]), &key.sign(&claims("john", changes))).await
}

#[tokio::test]
async fn every_accepted_algorithm_verifies_and_names_the_caller() {
    for algorithm in [
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::EdDSA,
    ] {
        let key = SigningKey::new("k", algorithm);
        let identity = identity(&[&key]);
        let caller = identify(&identity, &key.token("john"), NOW).await.unwrap();
        assert_eq!(&*caller.credentials_id, "john", "{algorithm:?}");
        assert_eq!(caller.expires_at, Some(NOW.after(Duration::from_hours(1))));
        let seen_before = identify(&identity, &key.token("john"), NOW).await.unwrap();
        assert_eq!(seen_before, caller);
    }
}

#[tokio::test]
async fn a_refreshed_token_is_the_same_caller_and_another_user_is_not() {
    let key = ed();
    let identity = identity(&[&key]);
    let refreshed = key.sign(&claims("john", json!({"jti": "2"})));
    assert_eq!(outcome(&identity, &key.token("john"), NOW).await, "john");
    assert_eq!(outcome(&identity, &refreshed, NOW).await, "john");
    assert_eq!(outcome(&identity, &key.token("jane"), NOW).await, "jane");
}

#[tokio::test]
async fn a_token_stops_when_it_expires_although_it_was_good_before() {
    let key = ed();
    let identity = identity(&[&key]);
    let token = key.token("john");
    let end = NOW.after(Duration::from_hours(1));
    assert_eq!(outcome(&identity, &token, NOW).await, "john");
    assert_eq!(outcome(&identity, &token, Timestamp(end.0 - 1)).await, "john");
    assert_eq!(outcome(&identity, &token, end).await, "401");
}

#[tokio::test]
async fn each_wrong_claim_is_refused_with_its_own_sentence() {
    let now = NOW.as_secs();
    for (changes, part) in [
        (json!({"exp": now}), "has expired"),
        (json!({"exp": null}), "no usable `exp`"),
        (json!({"exp": "9999999999"}), "no usable `exp`"),
        (json!({"nbf": now + 6}), "not valid yet"),
        (json!({"iss": "https://other.example"}), "another issuer"),
        (json!({"iss": null}), "another issuer"),
        (json!({"iss": 5}), "another issuer"),
        (json!({"aud": "other"}), "another audience"),
        (json!({"aud": ["other", "more"]}), "another audience"),
        (json!({"aud": []}), "another audience"),
        (json!({"aud": {"data_api": true}}), "another audience"),
        (json!({"aud": null}), "another audience"),
        (json!({"sub": null}), "does not name its credentials"),
        (json!({"sub": ""}), "does not name its credentials"),
    ] {
        let sentence = refusal_of(changes.clone()).await;
        assert!(sentence.contains(part), "{changes}: {sentence}");
    }
}

#[tokio::test]
async fn an_audience_may_be_one_of_several_and_a_beginning_a_little_ahead() {
    let key = ed();
    let identity = identity(&[&key]);
    let now = NOW.as_secs();
    for changes in [json!({"aud": ["other", "data_api"]}), json!({"nbf": now + 5}), json!({"nbf": null})] {
        assert_eq!(outcome(&identity, &key.sign(&claims("john", changes)), NOW).await, "john");
    }
}

#[tokio::test]
async fn a_token_without_a_signature_is_refused() {
    let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let key = ed();
    let identity = identity(&[&key]);
    let claims = part(claims("john", json!({})));
    for alg in ["none", "None", "NONE", ""] {
        let token = format!("{}.{claims}.", part(json!({"alg": alg, "kid": "ed"})));
        assert!(refusal(&identity, &token).await.contains("not a signed JWT"));
    }
    let unsigned = key.token("john");
    let (unsigned, _) = unsigned.rsplit_once('.').unwrap();
    assert_eq!(outcome(&identity, &format!("{unsigned}."), NOW).await, "401");
    assert_eq!(outcome(&identity, unsigned, NOW).await, "401");
}

#[tokio::test]
async fn a_public_key_is_not_accepted_as_a_shared_secret() {
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let key = SigningKey::new("k", algorithm);
        let identity = identity(&[&key]);
        let jwk = key.jwk();
        let public = jwk.get("n").or(jwk.get("x")).and_then(Value::as_str).unwrap();
        for secret in [URL_SAFE_NO_PAD.decode(public).unwrap(), public.into(), jwk.to_string().into_bytes()] {
            for hmac in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let header = Header { kid: Some("k".to_owned()), ..Header::new(hmac) };
                let secret = EncodingKey::from_secret(&secret);
                let token = encode(&header, &claims("john", json!({})), &secret).unwrap();
                assert!(refusal(&identity, &token).await.contains("algorithm not accepted"));
            }
        }
    }
}

#[tokio::test]
async fn a_token_signed_with_another_key_is_refused() {
    let key = ed();
    let identity = identity(&[&key]);
    assert!(refusal(&identity, &ed().token("john")).await.contains("signature"));
    let unknown = SigningKey::new("other", Algorithm::EdDSA);
    assert!(refusal(&identity, &unknown.token("john")).await.contains("does not publish"));
    let unfit = SigningKey::new("ed", Algorithm::ES256);
    assert!(refusal(&identity, &unfit.token("john")).await.contains("algorithm is not the one of its key"));
}

#[tokio::test]
async fn a_token_without_a_kid_needs_a_key_that_leaves_no_doubt() {
    let (first, second) = (ed(), SigningKey::new("ed2", Algorithm::EdDSA));
    let token = first.sign_with_header(&Header::new(Algorithm::EdDSA), &claims("john", json!({})));
    let other = SigningKey::new("ec", Algorithm::ES256);
    assert_eq!(outcome(&identity(&[&first, &other]), &token, NOW).await, "john");
    assert!(refusal(&identity(&[&first, &second]), &token).await.contains("`kid`"));
}

#[tokio::test]
async fn a_token_over_16_kb_is_refused() {
    let key = ed();
    let identity = identity(&[&key]);
    let sized = |padding: usize| key.sign(&claims("john", json!({"pad": "x".repeat(padding)})));
    assert_eq!(outcome(&identity, &sized(11_000), NOW).await, "john");
    assert!(refusal(&identity, &sized(13_000)).await.contains("longer than 16 KB"));
}

#[tokio::test]
async fn a_token_with_any_bit_changed_is_never_accepted() {
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let key = SigningKey::new("k", algorithm);
        let identity = identity(&[&key]);
        let good = format!("Bearer {}", key.token("john")).into_bytes();
        assert!(identity.identify(&with_header("authorization", &good), NOW).await.is_ok());
        for place in "Bearer ".len()..good.len() {
            for bit in 0..8 {
                let mut changed = good.clone();
                changed[place] ^= 1 << bit;
                // What cannot be a header value never gets here.
                if HeaderValue::from_bytes(&changed).is_err() {
                    continue;
                }
                let verdict = identity.identify(&with_header("authorization", &changed), NOW).await;
                assert!(matches!(verdict, Err(Rejection::InvalidToken(_))), "{algorithm:?} {place} {bit}");
            }
        }
    }
}

#[tokio::test]
async fn no_refusal_repeats_anything_of_the_token() {
    let key = ed();
    let identity = identity(&[&key]);
    let token = key.sign(&claims("", json!({"email": "secret@example"})));
    let sentence = refusal(&identity, &token).await;
    for part in token.split('.').chain(["secret@example"]) {
        assert!(!sentence.contains(part));
    }
}
