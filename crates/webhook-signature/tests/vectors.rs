//! `vectors.json`, made by another implementation, holds here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use webhook_signature::{Claim, Message, PublicKey, SharedSecret, SigningKey, Verifier, VerifyError};

fn vectors(kind: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../vectors.json")).unwrap();
    let vectors = all[kind].as_array().unwrap().clone();
    assert!(vectors.len() > 4, "{kind}");
    vectors
}

fn text<'a>(vector: &'a Value, key: &str) -> &'a str {
    vector[key].as_str().unwrap()
}

fn body(vector: &Value) -> Vec<u8> {
    STANDARD.decode(text(vector, "body_base64")).unwrap()
}

#[test]
fn every_message_is_signed_as_written() {
    for vector in vectors("sign") {
        let (name, body) = (text(&vector, "name"), body(&vector));
        let message =
            Message::new(text(&vector, "id"), vector["timestamp"].as_i64().unwrap(), &body).unwrap();
        let secret = SharedSecret::parse(text(&vector, "secret")).unwrap();
        let key = SigningKey::parse(text(&vector, "signing_key")).unwrap();
        assert_eq!(secret.sign(&message).to_string(), text(&vector, "v1"), "{name}");
        assert_eq!(key.sign(&message).to_string(), text(&vector, "v1a"), "{name}");
        assert_eq!(key.public_key().to_text(), text(&vector, "public_key"), "{name}");
        assert_eq!(key.to_text().as_str(), text(&vector, "signing_key"), "{name}");
        assert_eq!(secret.to_text().as_str(), text(&vector, "secret"), "{name}");
    }
}

#[test]
fn every_claim_is_judged_as_written() {
    for vector in vectors("verify") {
        let mut verifier = Verifier::new();
        for secret in vector["secrets"].as_array().unwrap() {
            verifier = verifier.with_secret(SharedSecret::parse(secret.as_str().unwrap()).unwrap());
        }
        for key in vector["public_keys"].as_array().unwrap() {
            verifier = verifier.with_key(PublicKey::parse(key.as_str().unwrap()).unwrap());
        }
        let claim = Claim {
            id: text(&vector, "id"),
            timestamp: text(&vector, "timestamp"),
            signatures: text(&vector, "signatures"),
        };
        let (now, tolerance) =
            (vector["now"].as_i64().unwrap(), vector["tolerance_seconds"].as_u64().unwrap());
        let body = body(&vector);
        let answer = match verifier.verify(&claim, &body, now, tolerance) {
            Ok(_) => "ok",
            Err(VerifyError::Id(_)) => "id",
            Err(VerifyError::Timestamp) => "timestamp",
            Err(VerifyError::TooOld) => "too_old",
            Err(VerifyError::TooNew) => "too_new",
            Err(VerifyError::TooMany) => "too_many",
            Err(VerifyError::NoMatch) => "no_match",
        };
        assert_eq!(answer, text(&vector, "expect"), "{}", text(&vector, "name"));
    }
}
