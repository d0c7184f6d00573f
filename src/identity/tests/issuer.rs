//! An issuer of tokens: signing keys made here, their public halves as JWK sets.

use std::sync::OnceLock;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::{AUDIENCE, ISSUER, NOW};

/// PKCS#8 wraps an RSA-2048 key in this many bytes, and the library wants it bare.
const PKCS8_HEADER: usize = 26;

#[derive(Clone)]
pub struct SigningKey {
    pub kid: &'static str,
    pub algorithm: Algorithm,
    key: EncodingKey,
}

impl SigningKey {
    pub fn new(kid: &'static str, algorithm: Algorithm) -> Self {
        let key = match algorithm {
            Algorithm::ES256 | Algorithm::ES384 => {
                let curve = if algorithm == Algorithm::ES256 {
                    &ECDSA_P256_SHA256_FIXED_SIGNING
                } else {
                    &ECDSA_P384_SHA384_FIXED_SIGNING
                };
                let pair = EcdsaKeyPair::generate(curve).unwrap();
                EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref())
            }
            Algorithm::EdDSA => {
                let pair = Ed25519KeyPair::generate().unwrap();
                EncodingKey::from_ed_der(pair.to_pkcs8v1().unwrap().as_ref())
            }
            _ => EncodingKey::from_rsa_der(&rsa_der()[PKCS8_HEADER..]),
        };
        Self { kid, algorithm, key }
    }

    /// The public half, without an `alg` of its own.
    pub fn jwk(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_algorithm = None;
        jwk.common.key_id = Some(self.kid.to_owned());
        serde_json::to_value(jwk).unwrap()
    }

    pub fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.to_owned()), ..Header::new(self.algorithm) };
        self.sign_with_header(&header, claims)
    }

    pub fn sign_with_header(&self, header: &Header, claims: &Value) -> String {
        encode(header, claims, &self.key).unwrap()
    }

    /// A token that is good for an hour.
    pub fn token(&self, sub: &str) -> String {
        self.sign(&claims(sub, json!({})))
    }
}

/// Making an RSA key takes long, so all tests share one.
fn rsa_der() -> &'static [u8] {
    static DER: OnceLock<Vec<u8>> = OnceLock::new();
    DER.get_or_init(|| {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        der.as_ref().to_vec()
    })
}

pub fn key_set(keys: &[&SigningKey]) -> String {
    let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
    json!({ "keys": keys }).to_string()
}

/// The claims of a good token, with `changes` made to them; `null` removes a claim.
pub fn claims(sub: &str, changes: Value) -> Value {
    let now = NOW.as_secs();
    let mut claims = json!({"iss": ISSUER, "aud": AUDIENCE, "sub": sub, "nbf": now, "exp": now + 3_600});
    let Value::Object(changes) = changes else { panic!("not an object") };
    let claims_map = claims.as_object_mut().unwrap();
    for (name, value) in changes {
        if value.is_null() {
            claims_map.remove(&name);
        } else {
            claims_map.insert(name, value);
        }
    }
    claims
}
