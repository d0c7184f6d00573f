//! Whether a webhook is from whom it claims to be.
//!
//! Once a key is named, nothing unsigned or wrongly signed counts as the gateway's. Strangers can make
//! the key set be fetched again, but no more often than [`FETCH_AGAIN`]; a fetch that fails leaves the
//! keys as they were.

use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, Uri};
use serde::Deserialize;
use tokio::sync::Mutex;
use webhook_signature::{
    Claim, ID_HEADER, KeyError, PublicKey, SIGNATURE_HEADER, SharedSecret, TIMESTAMP_HEADER,
    TOLERANCE_SECONDS, Verifier, VerifyError,
};

use crate::cli::remote::{Remote, RemoteError, file_error};
use crate::client::FetchError;
use crate::clock::{Clock, Timestamp};

/// Variable that holds the shared secret.
pub const SECRET_VARIABLE: &str = "RINGBACK_WEBHOOK_SECRET";

/// A set of two keys is 300 bytes.
const JWKS_BYTES: usize = 64 * 1024;

/// Each key costs a computation for each signature of a webhook.
const MAX_KEYS: usize = 32;

/// A sender waits meanwhile.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two fetches for keys that are not known.
const FETCH_AGAIN: Duration = Duration::from_secs(10);

/// Why webhooks cannot be verified. Says nothing of a secret.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error(transparent)]
    File(#[from] RemoteError),
    #[error("line {line} of {place} is no webhook secret: {source}")]
    Secret { place: String, line: usize, source: KeyError },
    #[error("{0} holds no webhook secret; `ringback keys show webhook` prints it as whsec_…")]
    NoSecret(String),
    #[error("--jwks: {0}")]
    Keys(#[from] KeySetError),
}

/// Why there are no keys to verify with.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    #[error("it is not a URL")]
    Uri,
    #[error("{0}")]
    Fetch(#[from] FetchError),
    #[error("it is not a JWK set")]
    NotAKeySet,
    #[error("it holds no ed25519 key; is `v1a` among the gateway's webhooks.signatures?")]
    NoKey,
    #[error("it holds more than {MAX_KEYS} ed25519 keys")]
    TooManyKeys,
}

/// What is known of a webhook's sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No key was named.
    Unchecked,
    /// The scheme that fits.
    Good(&'static str),
    Wrong(String),
    NotSigned,
}

impl Verdict {
    /// Whether it is forwarded and its result fetched.
    pub fn is_believed(&self) -> bool {
        matches!(self, Self::Unchecked | Self::Good(_))
    }
}

/// The keys a person named.
pub struct Trust {
    secrets: Option<Verifier>,
    published: Option<Published>,
}

/// Keys behind a URL.
struct Published {
    uri: Uri,
    keys: Mutex<Keys>,
}

struct Keys {
    verifier: Verifier,
    /// The last fetch for a key that was not known; of the steady clock.
    fetched_again: Option<Timestamp>,
}

impl Trust {
    /// Reads the secrets of the file, else of the variable, and fetches the key set.
    pub async fn new(
        remote: &Remote,
        jwks: Option<&str>,
        secret_file: Option<&Path>,
        variable: Option<String>,
    ) -> Result<Self, TrustError> {
        let secrets = match (secret_file, variable) {
            (Some(path), _) => {
                let text = fs::read_to_string(path).map_err(|source| file_error(path, source))?;
                Some(secrets(&text, &path.display().to_string())?)
            }
            (None, Some(text)) => Some(secrets(&text, SECRET_VARIABLE)?),
            (None, None) => None,
        };
        let published = match jwks {
            Some(url) => {
                let uri = url.parse().map_err(|_| KeySetError::Uri)?;
                let verifier = fetch(remote, &uri).await?;
                Some(Published { uri, keys: Mutex::new(Keys { verifier, fetched_again: None }) })
            }
            None => None,
        };
        Ok(Self { secrets, published })
    }

    /// Whether webhooks are verified at all.
    pub fn verifies(&self) -> bool {
        self.secrets.is_some() || self.published.is_some()
    }

    pub async fn judge(&self, remote: &Remote, clock: Clock, headers: &HeaderMap, body: &[u8]) -> Verdict {
        if !self.verifies() {
            return Verdict::Unchecked;
        }
        let claim = match claim(headers) {
            Ok(Some(claim)) => claim,
            Ok(None) => return Verdict::NotSigned,
            Err(why) => return Verdict::Wrong(why),
        };
        let check = |verifier: &Verifier| {
            verifier.verify(&claim, body, clock.wall().as_secs(), TOLERANCE_SECONDS).map(|_| ())
        };
        let mut checked = Err(VerifyError::NoMatch);
        if let Some(verifier) = &self.secrets {
            checked = check(verifier).map(|()| "v1");
        }
        // Another key helps only where no key fitted.
        if let (Some(published), Err(VerifyError::NoMatch)) = (&self.published, &checked) {
            checked = published.check(remote, clock, &claim, check).await.map(|()| "v1a");
        }
        checked.map_or_else(|error| Verdict::Wrong(error.to_string()), Verdict::Good)
    }
}

impl Published {
    async fn check(
        &self,
        remote: &Remote,
        clock: Clock,
        claim: &Claim<'_>,
        check: impl Fn(&Verifier) -> Result<(), VerifyError>,
    ) -> Result<(), VerifyError> {
        // Held while keys are fetched: whoever comes meanwhile needs the same ones.
        let mut keys = self.keys.lock().await;
        let checked = check(&keys.verifier);
        let is_signed = claim.signatures.split(' ').any(|one| one.starts_with("v1a,"));
        let now = clock.steady();
        if checked != Err(VerifyError::NoMatch) || !is_signed || !is_due(keys.fetched_again, now) {
            return checked;
        }
        keys.fetched_again = Some(now);
        match fetch(remote, &self.uri).await {
            Ok(verifier) => {
                keys.verifier = verifier;
                check(&keys.verifier)
            }
            Err(error) => {
                eprintln!("the keys cannot be fetched again: {error}");
                checked
            }
        }
    }
}

fn is_due(fetched_again: Option<Timestamp>, now: Timestamp) -> bool {
    fetched_again.is_none_or(|before| before.until(now) >= FETCH_AGAIN)
}

async fn fetch(remote: &Remote, uri: &Uri) -> Result<Verifier, KeySetError> {
    key_set(&remote.fetch(uri, JWKS_BYTES, FETCH_TIMEOUT).await?)
}

/// The secrets in lines as `ringback keys show webhook` prints them. Its remarks and public keys are
/// passed over.
fn secrets(text: &str, place: &str) -> Result<Verifier, TrustError> {
    let mut verifier = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || line.starts_with("whpk_") {
            continue;
        }
        let wrong = |source| TrustError::Secret { place: place.to_owned(), line: index + 1, source };
        let secret = SharedSecret::parse(line).map_err(wrong)?;
        verifier = Some(verifier.unwrap_or_else(Verifier::new).with_secret(secret));
    }
    verifier.ok_or_else(|| TrustError::NoSecret(place.to_owned()))
}

/// The ed25519 keys of a JWK set (RFC 8037, 2). Others are passed over, as RFC 7517, 5 asks.
fn key_set(json: &[u8]) -> Result<Verifier, KeySetError> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    #[derive(Deserialize)]
    struct Jwk {
        kty: String,
        crv: String,
        x: String,
    }
    let set: Set = serde_json::from_slice(json).map_err(|_| KeySetError::NotAKeySet)?;
    let read = |jwk: &serde_json::Value| {
        let jwk = Jwk::deserialize(jwk).ok().filter(|jwk| jwk.kty == "OKP" && jwk.crv == "Ed25519")?;
        PublicKey::from_bytes(&URL_SAFE_NO_PAD.decode(jwk.x).ok()?).ok()
    };
    let keys: Vec<_> = set.keys.iter().filter_map(read).collect();
    match keys.len() {
        0 => Err(KeySetError::NoKey),
        1..=MAX_KEYS => Ok(keys.into_iter().fold(Verifier::new(), Verifier::with_key)),
        _ => Err(KeySetError::TooManyKeys),
    }
}

/// What the headers claim; `None` without a signature.
fn claim(headers: &HeaderMap) -> Result<Option<Claim<'_>>, String> {
    let Some(signatures) = only(headers, SIGNATURE_HEADER)? else { return Ok(None) };
    let needed = |name| only(headers, name)?.ok_or_else(|| format!("{name} is missing"));
    Ok(Some(Claim { id: needed(ID_HEADER)?, timestamp: needed(TIMESTAMP_HEADER)?, signatures }))
}

/// A header that comes once: of two, the program behind `--forward` could read the other one.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, String> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(format!("{name} comes more than once"));
    }
    value.to_str().map(Some).map_err(|_| format!("{name} is not ASCII"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn secrets_are_read_as_they_are_printed() {
        assert!(secrets(&format!("# 1, until then\n{SECRET}\nwhpk_x\n\n {SECRET}\n"), "f").is_ok());
        assert!(matches!(secrets("\n# none\n", "f"), Err(TrustError::NoSecret(_))));
        let error = secrets(&format!("{SECRET}\nhush"), "f").err().unwrap().to_string();
        assert!(error.contains("line 2 of f") && !error.contains("hush"), "{error}");
    }

    #[test]
    fn only_usable_keys_of_a_set_count() {
        let key = webhook_signature::SigningKey::from_seed(&[7; 32]).public_key();
        let good = json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(key.as_bytes()) });
        let read = |keys: Vec<serde_json::Value>| key_set(json!({ "keys": keys }).to_string().as_bytes());
        assert!(read(vec![json!({ "kty": "RSA" }), json!(1), good.clone()]).is_ok());
        assert!(matches!(read(vec![json!({ "kty": "RSA" })]), Err(KeySetError::NoKey)));
        assert!(matches!(read(vec![good; MAX_KEYS + 1]), Err(KeySetError::TooManyKeys)));
        assert!(matches!(key_set(b"<html>"), Err(KeySetError::NotAKeySet)));
    }

    #[test]
    fn keys_are_fetched_again_only_after_a_while() {
        let at = |seconds: i64| Timestamp(seconds * 1_000);
        assert!(is_due(None, at(0)));
        assert!(!is_due(Some(at(5)), at(14)));
        assert!(is_due(Some(at(5)), at(15)));
    }

    #[test]
    fn a_header_that_comes_twice_claims_nothing() {
        let mut headers = HeaderMap::new();
        assert!(claim(&headers).unwrap().is_none());
        headers.insert(SIGNATURE_HEADER, "v1,x".parse().unwrap());
        assert_eq!(claim(&headers).unwrap_err(), "webhook-id is missing");
        headers.insert(ID_HEADER, "1".parse().unwrap());
        headers.insert(TIMESTAMP_HEADER, "2".parse().unwrap());
        assert_eq!(claim(&headers).unwrap().unwrap().timestamp, "2");
        headers.append(TIMESTAMP_HEADER, "3".parse().unwrap());
        assert_eq!(claim(&headers).unwrap_err(), "webhook-timestamp comes more than once");
    }
}
