//! The public keys that verify our webhooks: a JWK set (RFC 7517) for whoever asks.
//!
//! Cacheable: a key is listed from the moment it signs until it no longer does, and a replaced key
//! keeps signing while caches still know only that one.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode};

use super::GatewayBody;
use super::refusal::Refusal;
use crate::client::{empty_body, full_body};
use crate::clock::Timestamp;
use crate::signing::Signer;

/// Far shorter than an overlap, so that no cache outlives the key it knows.
const MAX_AGE: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// Where the set is, and what is in it.
pub struct Jwks {
    pub path: String,
    pub signer: Signer,
}

impl Jwks {
    /// # Errors
    /// A method that is neither GET nor HEAD.
    pub fn answer(
        &self,
        method: &Method,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Response<GatewayBody>, Refusal> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err(Refusal::MethodNotAllowed(method.to_string()));
        }
        let set = self.signer.jwks(now);
        let tag = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, set.as_bytes()));
        let etag = HeaderValue::from_str(&format!("\"{tag}\"")).expect("base64 in quotes");
        let is_known = is_known(headers, &etag);
        let length = set.len();
        let body =
            if is_known || method == Method::HEAD { empty_body() } else { full_body(Bytes::from(set)) };
        let mut response = Response::new(body);
        let answer = response.headers_mut();
        answer.insert(header::CACHE_CONTROL, MAX_AGE);
        answer.insert(header::ETAG, etag);
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            answer.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
            answer.insert(header::CONTENT_LENGTH, length.into());
        }
        Ok(response)
    }
}

/// RFC 9110, 13.1.2: any of the tags, weak or strong, or a star.
fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let tags = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
    tags.flat_map(|line| line.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == etag.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SignatureScheme;
    use crate::signing::tests::signer;

    fn answer(method: &Method, tag: Option<&str>) -> Result<Response<GatewayBody>, Refusal> {
        let jwks = Jwks { path: String::from("/j"), signer: signer(&[SignatureScheme::V1a]) };
        let mut headers = HeaderMap::new();
        if let Some(tag) = tag {
            headers.insert(header::IF_NONE_MATCH, tag.parse().unwrap());
        }
        jwks.answer(method, &headers, Timestamp(0))
    }

    #[test]
    fn a_known_set_is_not_sent_again() {
        let first = answer(&Method::GET, None).unwrap();
        let etag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
        for (tag, status) in [
            (etag.clone(), 304),
            (format!("W/{etag}"), 304),
            (format!("\"x\", {etag}"), 304),
            (String::from("*"), 304),
            (String::from("\"x\""), 200),
        ] {
            let again = answer(&Method::GET, Some(&tag)).unwrap();
            assert_eq!(again.status(), status, "{tag}");
            assert_eq!(again.headers()[header::CACHE_CONTROL], "public, max-age=300");
        }
    }

    #[test]
    fn only_reading_is_possible() {
        assert!(answer(&Method::HEAD, None).is_ok());
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            assert!(answer(&method, None).is_err(), "{method}");
        }
    }
}
