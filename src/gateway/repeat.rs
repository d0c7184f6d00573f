//! `Idempotency-Key`: which calls are the same call (IETF draft-ietf-httpapi-idempotency-key-header).
//!
//! Refuses a key that is not 1 to 255 visible ASCII characters, and several keys. What is kept of key and
//! call are keyed hashes: the store can compare them, nobody can read or guess them without the key
//! behind them. The key itself goes upstream like any header.

use aws_lc_rs::hmac;
use http::{HeaderMap, Method};

use super::refusal::Refusal;
use crate::secret::FingerprintKey;
use crate::store::Repeatable;
use crate::task::IDEMPOTENCY_KEY;

const LONGEST: usize = 255;

/// The key of a call, compared byte for byte: the quotes of the draft's string form are part of it.
#[derive(Clone, Copy)]
pub struct IdempotencyKey<'h>(&'h [u8]);

impl<'h> IdempotencyKey<'h> {
    /// The key of these headers; `None` without one.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] for a key of the wrong form, and for several.
    pub fn of(headers: &'h HeaderMap) -> Result<Option<Self>, Refusal> {
        let mut values = headers.get_all(&IDEMPOTENCY_KEY).iter();
        let Some(first) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(invalid("The header Idempotency-Key is there more than once; send it once."));
        }
        let key = first.as_bytes();
        if key.is_empty() || key.len() > LONGEST || !key.iter().all(u8::is_ascii_graphic) {
            return Err(invalid(
                "The header Idempotency-Key must be 1 to 255 visible ASCII characters, such as a UUID.",
            ));
        }
        Ok(Some(Self(key)))
    }
}

fn invalid(sentence: &str) -> Refusal {
    Refusal::Invalid(sentence.to_owned())
}

/// What makes two calls the same.
pub struct Identical<'call> {
    pub upstream: &'call str,
    pub credentials_id: &'call str,
    pub method: &'call Method,
    pub path: &'call str,
    /// Less our own parameters: the webhook URI does not count.
    pub query: Option<&'call str>,
    pub body: &'call [u8],
}

/// Hashes keys and calls.
pub struct Repeats {
    keys: hmac::Context,
    calls: hmac::Context,
}

impl Repeats {
    #[must_use]
    pub fn new(key: &FingerprintKey) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
        // A label of its own each, with bytes no credentials id is hashed with.
        let begin = |label: &[u8]| {
            let mut begun = hmac::Context::with_key(&key);
            begun.update(label);
            begun
        };
        Self { keys: begin(b"\0idempotency key\0"), calls: begin(b"\0idempotency call\0") }
    }

    /// A key is good for one upstream and one credentials id; others may use the same one.
    #[must_use]
    pub fn hash_key(&self, key: IdempotencyKey<'_>, upstream: &str, credentials_id: &str) -> [u8; 32] {
        hash(&self.keys, [upstream.as_bytes(), credentials_id.as_bytes(), key.0].into_iter())
    }

    /// The key and the call that came with it.
    #[must_use]
    pub fn hash(&self, key: IdempotencyKey<'_>, call: &Identical<'_>) -> Repeatable {
        let what = [call.method.as_str().as_bytes(), call.path.as_bytes()];
        // "/a" and "/a?" are two calls.
        let mark: &[u8] = if call.query.is_some() { b"?" } else { b"" };
        let query = [mark, call.query.unwrap_or_default().as_bytes()];
        Repeatable {
            key: self.hash_key(key, call.upstream, call.credentials_id),
            call: hash(&self.calls, what.into_iter().chain(query).chain([call.body])),
        }
    }
}

/// Each part with its length before it, so that no two lists of parts run together.
fn hash<'a>(begun: &hmac::Context, parts: impl Iterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut hash = begun.clone();
    for part in parts {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.sign().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_key_is_one_to_255_visible_ascii_characters() {
        let longest = [b'k'; 255];
        for good in [&b"k"[..], b"\"8e03978e-40d5\"", b"!~", &longest] {
            assert_eq!(IdempotencyKey::of(&headers(&[good])).unwrap().unwrap().0, good);
        }
        let too_long = [b'k'; 256];
        for bad in [&b""[..], b"a b", b"a\tb", b"k\xc3\xa9", &too_long] {
            assert!(matches!(IdempotencyKey::of(&headers(&[bad])), Err(Refusal::Invalid(_))), "{bad:?}");
        }
    }

    #[test]
    fn several_keys_are_refused_even_when_equal() {
        assert!(IdempotencyKey::of(&headers(&[b"k", b"k"])).is_err());
        assert!(IdempotencyKey::of(&headers(&[])).unwrap().is_none());
    }

    fn call() -> Identical<'static> {
        Identical {
            upstream: "bank",
            credentials_id: "jane",
            method: &Method::POST,
            path: "/pay",
            query: Some("a=b"),
            body: b"{}",
        }
    }

    fn hash_of(fingerprint: u8, key: &str, call: &Identical<'_>) -> Repeatable {
        Repeats::new(&FingerprintKey::new([fingerprint; 32])).hash(IdempotencyKey(key.as_bytes()), call)
    }

    #[test]
    fn a_key_belongs_to_its_upstream_and_credentials() {
        let base = hash_of(1, "k", &call());
        assert!(hash_of(1, "k", &call()) == base);
        for other in [
            hash_of(2, "k", &call()),
            hash_of(1, "K", &call()),
            hash_of(1, "k", &Identical { upstream: "bank2", ..call() }),
            hash_of(1, "k", &Identical { credentials_id: "john", ..call() }),
            hash_of(1, "k", &Identical { upstream: "bankj", credentials_id: "ane", ..call() }),
        ] {
            assert!(other.key != base.key);
        }
    }

    #[test]
    fn every_part_of_a_call_counts() {
        let base = hash_of(1, "k", &call());
        for other in [
            Identical { method: &Method::PUT, ..call() },
            Identical { path: "/pay/", ..call() },
            Identical { query: Some("a=c"), ..call() },
            Identical { query: None, ..call() },
            Identical { query: Some(""), ..call() },
            Identical { path: "/paya=b", query: Some(""), ..call() },
            Identical { body: b"{} ", ..call() },
        ] {
            let other = hash_of(1, "k", &other);
            assert!(other.key == base.key && other.call != base.call);
        }
    }
}
