//! The public keys of an issuer: read from a JWK set, RFC 7517, and chosen for one token.
//!
//! A key verifies only with algorithms that fit its type and curve and, where it names one, its own
//! `alg`. Symmetric keys never enter, so a public key can never be used as an HMAC secret.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::jwks::{FetchError, MAX_JWKS_BYTES};

/// Most keys read from one set.
pub const MAX_KEYS: usize = 100;

const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// One public key.
pub struct VerifyingKey {
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl VerifyingKey {
    /// `None` for a key that is not there to verify signatures, or of a type or algorithm not accepted.
    fn read(jwk: Jwk) -> Option<Self> {
        let fitting = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => RSA,
            AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
                EllipticCurve::P256 => &[Algorithm::ES256][..],
                EllipticCurve::P384 => &[Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => {
                &[Algorithm::EdDSA]
            }
            _ => return None,
        };
        let algorithms = match jwk.common.key_algorithm {
            None => fitting.to_vec(),
            Some(own) => vec![Algorithm::try_from(own).ok().filter(|own| fitting.contains(own))?],
        };
        let signs =
            jwk.common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
        let verifies =
            jwk.common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        (signs && verifies).then_some(Self { kid: jwk.common.key_id, algorithms, key })
    }

    pub fn decoding_key(&self) -> &DecodingKey {
        &self.key
    }
}

/// What a token says about the key that signed it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'t> {
    pub kid: Option<&'t str>,
    pub algorithm: Algorithm,
}

/// What a set has for a token.
#[derive(Clone, Copy)]
pub enum Choice<'s> {
    Key(&'s Arc<VerifyingKey>),
    /// No such key; a newer set may have it.
    Absent,
    /// The key is there and of another algorithm: no newer set is asked for.
    Unfit,
    /// The token names no key and several would do.
    Ambiguous,
}

/// The keys of an issuer at one time.
pub struct KeySet {
    keys: Vec<Arc<VerifyingKey>>,
    fingerprint: [u8; 32],
}

impl KeySet {
    /// Reads a JWK set. Keys that are of no use here are skipped, as RFC 7517 section 5 asks, so that
    /// one new kind of key does not lock everybody out. A set without any is a set: all are revoked.
    pub fn read(json: &[u8]) -> Result<Self, FetchError> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        if json.len() > MAX_JWKS_BYTES {
            return Err(FetchError::TooLarge);
        }
        let document: Document = serde_json::from_slice(json).map_err(|_| FetchError::NotAKeySet)?;
        if document.keys.len() > MAX_KEYS {
            return Err(FetchError::TooManyKeys);
        }
        let keys = document
            .keys
            .into_iter()
            .filter_map(|key| VerifyingKey::read(serde_json::from_value(key).ok()?))
            .map(Arc::new)
            .collect();
        let fingerprint = digest(&SHA256, json).as_ref().try_into().expect("SHA-256 is 32 bytes");
        Ok(Self { keys, fingerprint })
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether the other set was read from the same bytes.
    pub fn is_same(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }

    /// The key for a token. Without a `kid` exactly one key must fit the algorithm.
    pub fn choose(&self, wanted: Wanted<'_>) -> Choice<'_> {
        let fits = |key: &&Arc<VerifyingKey>| key.algorithms.contains(&wanted.algorithm);
        let Some(kid) = wanted.kid else {
            let mut fitting = self.keys.iter().filter(fits);
            return match (fitting.next(), fitting.next()) {
                (Some(key), None) => Choice::Key(key),
                (Some(_), Some(_)) => Choice::Ambiguous,
                (None, _) => Choice::Absent,
            };
        };
        let named = || self.keys.iter().filter(|key| key.kid.as_deref() == Some(kid));
        match named().find(fits) {
            Some(key) => Choice::Key(key),
            None if named().next().is_some() => Choice::Unfit,
            None => Choice::Absent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    // RFC 8037 appendix A.2 and RFC 7515 appendix A.3.
    fn ed25519(more: Value) -> Value {
        with(
            json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
            more,
        )
    }

    fn p256(more: Value) -> Value {
        let x = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
        let y = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
        with(json!({"kty": "EC", "crv": "P-256", "x": x, "y": y}), more)
    }

    fn rsa(more: Value) -> Value {
        with(json!({"kty": "RSA", "n": "sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri", "e": "AQAB"}), more)
    }

    fn with(mut key: Value, more: Value) -> Value {
        let Value::Object(more) = more else { panic!("not an object") };
        key.as_object_mut().unwrap().extend(more);
        key
    }

    fn set(keys: &[Value]) -> KeySet {
        KeySet::read(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
    }

    fn choice(set: &KeySet, kid: Option<&str>, algorithm: Algorithm) -> &'static str {
        match set.choose(Wanted { kid, algorithm }) {
            Choice::Key(_) => "key",
            Choice::Absent => "absent",
            Choice::Unfit => "unfit",
            Choice::Ambiguous => "ambiguous",
        }
    }

    #[test]
    fn a_key_serves_only_the_algorithms_of_its_type() {
        let keys = set(&[rsa(json!({"kid": "r"})), p256(json!({"kid": "e"})), ed25519(json!({"kid": "o"}))]);
        for (kid, good) in [("r", RSA), ("e", &[Algorithm::ES256]), ("o", &[Algorithm::EdDSA])] {
            let all =
                [RSA, &[Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA, Algorithm::HS256]].concat();
            for algorithm in all {
                let expected = if good.contains(&algorithm) { "key" } else { "unfit" };
                assert_eq!(choice(&keys, Some(kid), algorithm), expected, "{kid} {algorithm:?}");
            }
        }
    }

    #[test]
    fn a_key_that_names_its_algorithm_serves_no_other() {
        let keys = set(&[rsa(json!({"kid": "r", "alg": "RS256"}))]);
        assert_eq!(choice(&keys, Some("r"), Algorithm::RS256), "key");
        assert_eq!(choice(&keys, Some("r"), Algorithm::PS256), "unfit");
        assert_eq!(choice(&keys, Some("r"), Algorithm::RS512), "unfit");
    }

    #[test]
    fn keys_of_no_use_are_skipped_and_the_others_stay() {
        let useless = [
            json!({"kty": "oct", "kid": "k", "k": "c2VjcmV0"}),
            json!({"kty": "oct", "kid": "k", "alg": "HS256", "k": "c2VjcmV0"}),
            json!({"kty": "EC", "crv": "secp256k1", "kid": "k", "x": "AA", "y": "AA"}),
            json!({"kty": "OKP", "crv": "X25519", "kid": "k", "x": "AA"}),
            json!({"kty": "OKP", "crv": "P-256", "kid": "k", "x": "AA"}),
            rsa(json!({"kid": "k", "use": "enc"})),
            rsa(json!({"kid": "k", "key_ops": ["encrypt"]})),
            rsa(json!({"kid": "k", "alg": "HS256"})),
            rsa(json!({"kid": "k", "alg": "ES256"})),
            rsa(json!({"kid": "k", "alg": "RSA-OAEP"})),
            rsa(json!({"kid": "k", "alg": "new"})),
            rsa(json!({"kid": 5})),
            json!("text"),
        ];
        for key in useless {
            let keys = set(&[key.clone(), ed25519(json!({"kid": "good", "use": "sig"}))]);
            assert_eq!(keys.keys.len(), 1, "{key}");
            assert_eq!(choice(&keys, Some("good"), Algorithm::EdDSA), "key");
        }
    }

    #[test]
    fn a_token_without_a_kid_needs_exactly_one_fitting_key() {
        let one = [rsa(json!({"kid": "r"})), p256(json!({}))];
        assert_eq!(choice(&set(&one), None, Algorithm::RS256), "key");
        assert_eq!(choice(&set(&one), None, Algorithm::ES256), "key");
        assert_eq!(choice(&set(&one), None, Algorithm::EdDSA), "absent");
        let two = [rsa(json!({"kid": "r"})), rsa(json!({"kid": "s"}))];
        assert_eq!(choice(&set(&two), None, Algorithm::RS256), "ambiguous");
        assert_eq!(choice(&set(&two), Some("s"), Algorithm::RS256), "key");
        assert_eq!(choice(&set(&two), Some("t"), Algorithm::RS256), "absent");
    }

    #[test]
    fn one_kid_on_keys_of_two_types_is_told_apart_by_algorithm() {
        let keys = set(&[rsa(json!({"kid": "k"})), p256(json!({"kid": "k"}))]);
        assert_eq!(choice(&keys, Some("k"), Algorithm::ES256), "key");
        assert_eq!(choice(&keys, Some("k"), Algorithm::RS256), "key");
        assert_eq!(choice(&keys, Some("k"), Algorithm::EdDSA), "unfit");
    }

    #[test]
    fn what_is_not_a_set_or_too_large_is_refused() {
        for text in ["", "[]", "{}", r#"{"keys": {}}"#, "<html>"] {
            assert!(matches!(KeySet::read(text.as_bytes()), Err(FetchError::NotAKeySet)), "{text}");
        }
        let many: Vec<_> = (0..=MAX_KEYS).map(|_| ed25519(json!({}))).collect();
        let many = json!({ "keys": many }).to_string();
        assert!(matches!(KeySet::read(many.as_bytes()), Err(FetchError::TooManyKeys)));
        let large = format!("{}{{\"keys\": []}}", " ".repeat(MAX_JWKS_BYTES));
        assert!(matches!(KeySet::read(large.as_bytes()), Err(FetchError::TooLarge)));
        assert!(set(&[]).is_empty());
    }
}
