//! An issuer of access tokens with keys of its own, for nodes with identity `jwt`.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::node::Setup;
use super::peer::Peer;
use super::reply::Reply;

pub const ISSUER: &str = "https://auth.bank.example";
pub const AUDIENCE: &str = "data_api";

/// One signing key and its id.
pub struct Key {
    kid: String,
    pair: Pair,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    P256(Box<EcdsaKeyPair>),
    Ed25519(Ed25519KeyPair),
}

impl Key {
    pub fn rsa(kid: &str) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key can be made");
        Self { kid: kid.to_owned(), pair: Pair::Rsa(Box::new(pair)) }
    }

    pub fn p256(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key can be made");
        Self { kid: kid.to_owned(), pair: Pair::P256(Box::new(pair)) }
    }

    pub fn ed25519(kid: &str) -> Self {
        let pair = Ed25519KeyPair::generate().expect("a key can be made");
        Self { kid: kid.to_owned(), pair: Pair::Ed25519(pair) }
    }

    fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::P256(_) => "ES256",
            Pair::Ed25519(_) => "EdDSA",
        }
    }

    /// The public half as a JWK (RFC 7517).
    pub fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Rsa(pair) => {
                // The DER of a 2048-bit key (RFC 8017, A.1.1): nine bytes, the modulus, then 65537.
                let modulus = BASE64_URL_SAFE_NO_PAD.encode(&pair.public_key().as_ref()[9..9 + 256]);
                json!({"kty": "RSA", "n": modulus, "e": "AQAB"})
            }
            Pair::P256(pair) => {
                // The uncompressed point: a byte 4, then both coordinates.
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                let (x, y) = (BASE64_URL_SAFE_NO_PAD.encode(x), BASE64_URL_SAFE_NO_PAD.encode(y));
                json!({"kty": "EC", "crv": "P-256", "x": x, "y": y})
            }
            Pair::Ed25519(pair) => {
                let x = BASE64_URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
                json!({"kty": "OKP", "crv": "Ed25519", "x": x})
            }
        };
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk["alg"] = json!(self.algorithm());
        jwk
    }

    /// A token with exactly these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm(), "typ": "at+jwt", "kid": self.kid});
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).expect("RSA signs");
                signature
            }
            Pair::P256(pair) => pair.sign(&random, signed.as_bytes()).expect("ECDSA signs").as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    /// A good token of `subject`, good for an hour.
    pub fn token(&self, subject: &str) -> String {
        self.sign(&claims(subject))
    }
}

/// The claims of a good token.
pub fn claims(subject: &str) -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": now(), "nbf": now(), "exp": now() + 3600})
}

/// Seconds since the epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs()
}

pub fn jwks(keys: &[&Key]) -> String {
    json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()}).to_string()
}

/// Publishes keys at `/jwks` of `peer`.
pub fn publish(peer: &Peer, keys: &[&Key]) {
    peer.script("/jwks", [Reply::json(200, &jwks(keys))]);
}

/// A setup whose upstream's identity is `jwt` by the JWKS at `url`.
pub fn by_url(setup: Setup, url: &str) -> Setup {
    by_jwt(setup).set("upstreams.0.identity.jwks_url", url)
}

/// A setup whose upstream's identity is `jwt` by a file with these keys.
pub fn by_file(setup: Setup, keys: &[&Key]) -> Setup {
    let file = setup.write("jwks.json", &jwks(keys)).display().to_string();
    by_jwt(setup).set("upstreams.0.identity.jwks_file", file)
}

fn by_jwt(setup: Setup) -> Setup {
    setup
        .set("upstreams.0.identity.mode", "jwt")
        .set("upstreams.0.identity.issuer", ISSUER)
        .set("upstreams.0.identity.audience", AUDIENCE)
}
