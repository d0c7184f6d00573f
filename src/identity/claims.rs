//! One token, one key, one moment: is it good, and whose is it? Pure.
//!
//! The library checks signature, `iss` and `aud`. Times are checked here, because the library would
//! read a clock of its own, and so would make a test of expiry wait for it.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde_json::{Map, Value};

use super::keys::{VerifyingKey, Wanted};
use crate::clock::Timestamp;

/// Longest token looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Longest credentials id, in characters.
pub const MAX_ID_CHARS: usize = 256;

/// How far the issuer's clock may run ahead of ours when it dates a token's beginning. Its end gets no
/// such grace: a task accepted with an expired token could only fail.
pub const NOT_BEFORE_LEEWAY: Duration = Duration::from_secs(5);

/// What is wrong with a token. Carries nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    TooLong,
    Malformed,
    Algorithm,
    Extension,
    UnknownKey,
    UnfitKey,
    AmbiguousKey,
    Signature,
    NoExpiry,
    Expired,
    NotYetValid,
    Issuer,
    Audience,
    Claim,
    /// Whoever was asked about the token does not vouch for it.
    NotVouchedFor,
}

impl Fault {
    /// For the caller: what is wrong and what to do.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::TooLong => "The access token is longer than 16 KB; use a shorter one.",
            Self::Malformed => "The access token is not a signed JWT; send it exactly as it was issued.",
            Self::Algorithm => {
                "The access token is signed with an algorithm not accepted here; use one signed with RS256, ES256 \
                 or EdDSA."
            }
            Self::Extension => {
                "The access token demands an extension not known here; use one without `crit`."
            }
            Self::UnknownKey => {
                "The access token is signed with a key that its issuer does not publish; get a new token."
            }
            Self::UnfitKey => "The access token's algorithm is not the one of its key; get a new token.",
            Self::AmbiguousKey => {
                "The access token does not say which of its issuer's keys signed it; use one with a `kid`."
            }
            Self::Signature => {
                "The signature of the access token is wrong; send the token exactly as it was issued."
            }
            Self::NoExpiry => "The access token has no usable `exp`; use one that expires.",
            Self::Expired => "The access token has expired; refresh it and call again.",
            Self::NotYetValid => {
                "The access token is not valid yet; wait for its `nbf`, or check the clocks."
            }
            Self::Issuer => "The access token is from another issuer; get one from the issuer of this API.",
            Self::Audience => "The access token is meant for another audience; get one for this API.",
            Self::Claim => "The access token does not name its credentials; get one of another kind.",
            Self::NotVouchedFor => {
                "The access token is not accepted: it is unknown, expired or revoked; get a new one and call again."
            }
        }
    }
}

/// What a good token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub credentials_id: Arc<str>,
    pub expires_at: Timestamp,
}

/// What a token's own header says, before anything of it is believed.
#[derive(Debug)]
pub struct TokenHeader {
    kid: Option<String>,
    algorithm: Algorithm,
}

impl TokenHeader {
    pub fn read(token: &[u8]) -> Result<Self, Fault> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Fault::TooLong);
        }
        let header = decode_header(token).map_err(|_| Fault::Malformed)?;
        if matches!(header.alg, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) {
            return Err(Fault::Algorithm);
        }
        // RFC 7515 section 4.1.11: what is critical and not understood makes the token invalid.
        if header.crit.is_some() {
            return Err(Fault::Extension);
        }
        Ok(Self { kid: header.kid, algorithm: header.alg })
    }

    pub fn wanted(&self) -> Wanted<'_> {
        Wanted { kid: self.kid.as_deref(), algorithm: self.algorithm }
    }
}

/// What every token of one upstream must say.
pub struct Rules {
    validation: Validation,
    claim: String,
}

impl Rules {
    pub fn new(issuer: &str, audience: &str, claim: &str) -> Self {
        // The algorithm is set anew for each token; this one lets nothing through if that were forgotten.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.algorithms.clear();
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.validate_exp = false;
        validation.validate_nbf = false;
        Self { validation, claim: claim.to_owned() }
    }

    /// Judges a token by a key that was chosen for its header.
    pub fn judge(
        &self,
        token: &[u8],
        header: &TokenHeader,
        key: &VerifyingKey,
        wall: Timestamp,
    ) -> Result<Verified, Fault> {
        let mut validation = self.validation.clone();
        validation.algorithms.push(header.algorithm);
        let token = decode::<Map<String, Value>>(token, key.decoding_key(), &validation)
            .map_err(|error| fault(error.kind()))?;
        self.judge_claims(&token.claims, wall)
    }

    /// The claims of a token whose signature, issuer and audience are right.
    fn judge_claims(&self, claims: &Map<String, Value>, wall: Timestamp) -> Result<Verified, Fault> {
        let expires_at = claims.get("exp").and_then(numeric_date).ok_or(Fault::NoExpiry)?;
        if wall >= expires_at {
            return Err(Fault::Expired);
        }
        if let Some(not_before) = claims.get("nbf") {
            let not_before = numeric_date(not_before).ok_or(Fault::Malformed)?;
            if wall.after(NOT_BEFORE_LEEWAY) < not_before {
                return Err(Fault::NotYetValid);
            }
        }
        let id = claims.get(&self.claim).and_then(Value::as_str).and_then(fit_id).ok_or(Fault::Claim)?;
        Ok(Verified { credentials_id: Arc::from(id), expires_at })
    }
}

/// The text, where it can be a credentials id.
pub fn fit_id(id: &str) -> Option<&str> {
    (!id.is_empty() && id.chars().nth(MAX_ID_CHARS).is_none()).then_some(id)
}

/// Seconds since the epoch, fractions allowed: RFC 7519 section 2.
pub fn numeric_date(value: &Value) -> Option<Timestamp> {
    let since_epoch = match value.as_u64() {
        Some(seconds) => Duration::from_secs(seconds),
        None => Duration::try_from_secs_f64(value.as_f64()?).ok()?,
    };
    Some(Timestamp(0).after(since_epoch))
}

fn fault(kind: &ErrorKind) -> Fault {
    match kind {
        ErrorKind::InvalidSignature => Fault::Signature,
        ErrorKind::InvalidIssuer => Fault::Issuer,
        ErrorKind::InvalidAudience => Fault::Audience,
        ErrorKind::InvalidAlgorithm => Fault::Algorithm,
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "exp" => Fault::NoExpiry,
            "iss" => Fault::Issuer,
            _ => Fault::Audience,
        },
        _ => Fault::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn judge(claims: &Value, wall: i64) -> Result<Verified, Fault> {
        Rules::new("i", "a", "sub").judge_claims(claims.as_object().unwrap(), Timestamp(wall))
    }

    #[test]
    fn a_token_is_good_until_the_very_millisecond_it_expires() {
        let claims = json!({"sub": "john", "exp": 100});
        assert_eq!(judge(&claims, 99_999).unwrap().expires_at, Timestamp(100_000));
        assert_eq!(judge(&claims, 100_000), Err(Fault::Expired));
        assert_eq!(
            judge(&json!({"sub": "john", "exp": 100.5}), 100_499).unwrap().expires_at,
            Timestamp(100_500)
        );
    }

    #[test]
    fn an_expiry_that_is_no_date_is_none() {
        for exp in [json!(null), json!("100"), json!(-1), json!([100]), json!(true), json!(1e300)] {
            assert_eq!(judge(&json!({"sub": "john", "exp": exp}), 0), Err(Fault::NoExpiry), "{exp}");
        }
        assert_eq!(judge(&json!({"sub": "john"}), 0), Err(Fault::NoExpiry));
    }

    #[test]
    fn a_beginning_is_checked_when_there_is_one() {
        let starting = |nbf: Value| json!({"sub": "john", "exp": 1_000, "nbf": nbf});
        assert_eq!(judge(&starting(json!(105)), 99_999), Err(Fault::NotYetValid));
        assert!(judge(&starting(json!(105)), 100_000).is_ok());
        for nbf in [json!(null), json!("0"), json!(-1)] {
            assert_eq!(judge(&starting(nbf), 100_000), Err(Fault::Malformed));
        }
    }

    #[test]
    fn the_claim_must_be_a_string_of_1_to_256_characters() {
        let named = |sub: Value| judge(&json!({"sub": sub, "exp": 100}), 0);
        for sub in [json!(""), json!(5), json!(null), json!(["john"]), json!("é".repeat(257))] {
            assert_eq!(named(sub), Err(Fault::Claim));
        }
        assert!(named(json!("é".repeat(256))).is_ok());
    }

    #[test]
    fn another_claim_can_be_the_credentials_id() {
        let claims = json!({"sub": "john", "client_id": "app", "exp": 100});
        let rules = Rules::new("i", "a", "client_id");
        let verified = rules.judge_claims(claims.as_object().unwrap(), Timestamp(0)).unwrap();
        assert_eq!(&*verified.credentials_id, "app");
    }

    #[test]
    fn a_critical_extension_is_refused() {
        use base64::Engine as _;
        let header = json!({"alg": "RS256", "kid": "k", "crit": ["b64"], "b64": false}).to_string();
        let token = format!("{}.e30.AA", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(header));
        assert_eq!(TokenHeader::read(token.as_bytes()).unwrap_err(), Fault::Extension);
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_a_header_panic(token in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = TokenHeader::read(&token);
        }

        #[test]
        fn a_token_is_good_exactly_within_its_times(exp in 0u64..200, nbf in 0u64..200, wall in 0i64..200_000) {
            let millis = u64::try_from(wall).unwrap();
            let within = millis < exp * 1000 && millis + 5_000 >= nbf * 1000;
            let verdict = judge(&json!({"sub": "john", "exp": exp, "nbf": nbf}), wall);
            prop_assert_eq!(verdict.is_ok(), within);
        }
    }
}
