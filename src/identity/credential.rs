//! Finding the credential in the headers of a call: one header, a scheme, the credential itself.
//!
//! Refuses what could be read in two ways: several such headers, or a scheme without a credential,
//! which would make one person of everybody whose client sent an empty token.

use std::borrow::Cow;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

use super::Rejection;

/// Scheme names that, standing alone, are an empty credential and not a credential of that name.
const LONE_SCHEMES: [&[u8]; 3] = [b"bearer", b"basic", b"token"];

/// What a header holds, RFC 9110 section 11.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credential<'h> {
    /// As the client wrote it; compared without regard to case.
    pub scheme: Option<&'h [u8]>,
    /// Byte for byte, never empty, no white space around it.
    pub secret: &'h [u8],
}

/// The header that carries the credential, `identity.header`.
pub struct CredentialHeader {
    name: HeaderName,
}

impl CredentialHeader {
    /// `None` when `name` cannot be a header name.
    pub fn new(name: &str) -> Option<Self> {
        HeaderName::from_bytes(name.as_bytes()).ok().map(|name| Self { name })
    }

    pub fn name(&self) -> &HeaderName {
        &self.name
    }

    /// The credential of a call.
    pub fn credential<'h>(&self, headers: &'h HeaderMap) -> Result<Credential<'h>, Rejection> {
        parse(self.only(headers)?).ok_or_else(|| self.missing())
    }

    /// The whole value of a header that holds a credential.
    pub fn value<'h>(&self, headers: &'h HeaderMap) -> Result<&'h [u8], Rejection> {
        let value = self.only(headers)?;
        parse(value).map(|_| value).ok_or_else(|| self.missing())
    }

    fn only<'h>(&self, headers: &'h HeaderMap) -> Result<&'h [u8], Rejection> {
        let mut values = headers.get_all(&self.name).iter();
        let first = values.next().ok_or_else(|| self.missing())?;
        if values.next().is_some() {
            return Err(self.repeated());
        }
        Ok(first.as_bytes())
    }

    /// The credential of a call where it must be a bearer token, RFC 6750 section 2.1. In a header
    /// other than `Authorization` the scheme may be left out: proxies that add tokens leave it out.
    pub fn bearer_token<'h>(&self, headers: &'h HeaderMap) -> Result<&'h [u8], Rejection> {
        let credential = self.credential(headers)?;
        match credential.scheme {
            Some(scheme) if scheme.eq_ignore_ascii_case(b"bearer") => Ok(credential.secret),
            None if self.name != AUTHORIZATION => Ok(credential.secret),
            _ => Err(self.not_bearer()),
        }
    }

    fn missing(&self) -> Rejection {
        self.sentence("is missing or empty; send your credential in it")
    }

    fn repeated(&self) -> Rejection {
        self.sentence("is sent more than once; send it once")
    }

    fn not_bearer(&self) -> Rejection {
        self.sentence("does not hold a bearer token; send `Bearer` and the access token in it")
    }

    fn sentence(&self, fault: &str) -> Rejection {
        Rejection::InvalidToken(Cow::Owned(format!(
            "The header `{}` {fault}. Which header and which kind of credential is expected is configured \
             with `upstreams.identity.header` and `upstreams.identity.mode`.",
            self.name
        )))
    }
}

/// Splits `Scheme credential`; a value without a scheme is a credential as a whole.
fn parse(value: &[u8]) -> Option<Credential<'_>> {
    let value = trim(value);
    let credential = match value.iter().position(|byte| is_space(*byte)) {
        Some(end) if value[..end].iter().all(|byte| is_token_byte(*byte)) => {
            Credential { scheme: Some(&value[..end]), secret: trim(&value[end..]) }
        }
        _ => Credential { scheme: None, secret: value },
    };
    let lone = credential.scheme.is_none()
        && LONE_SCHEMES.iter().any(|scheme| credential.secret.eq_ignore_ascii_case(scheme));
    (!credential.secret.is_empty() && !lone).then_some(credential)
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_space(*first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && is_space(*last)
    {
        bytes = rest;
    }
    bytes
}

/// RFC 9110 section 5.6.3.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// RFC 9110 section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn headers(name: &'static str, values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn refused(header: &str, headers: &HeaderMap) -> String {
        CredentialHeader::new(header).unwrap().bearer_token(headers).unwrap_err().to_string()
    }

    #[test]
    fn a_scheme_is_split_off_and_the_credential_kept_byte_for_byte() {
        for value in ["Bearer aB-1=", " Bearer   aB-1= ", "Bearer\taB-1=\t"] {
            let found = parse(value.as_bytes()).unwrap();
            assert_eq!(found, Credential { scheme: Some(b"Bearer"), secret: b"aB-1=" }, "{value:?}");
        }
    }

    #[test]
    fn a_value_without_a_scheme_is_a_credential_as_a_whole() {
        for value in ["k3y", "session=a; theme=b", "a,b c"] {
            let found = parse(value.as_bytes()).unwrap();
            assert_eq!(found, Credential { scheme: None, secret: value.as_bytes() });
        }
    }

    #[test]
    fn a_scheme_without_a_credential_is_no_credential() {
        for value in ["", "  ", "Bearer", "bearer ", "BASIC\t", "Token"] {
            assert!(parse(value.as_bytes()).is_none(), "{value:?}");
        }
    }

    #[test]
    fn a_missing_header_says_which_one_and_how_to_configure_it() {
        let none = HeaderMap::new();
        let sentence = refused("X-Api-Key", &none);
        for part in ["`x-api-key` is missing", "upstreams.identity.header", "upstreams.identity.mode"] {
            assert!(sentence.contains(part), "{sentence}");
        }
    }

    #[test]
    fn several_headers_are_refused_even_when_equal() {
        let twice = headers("authorization", &[b"Bearer a", b"Bearer a"]);
        assert!(refused("Authorization", &twice).contains("more than once"));
    }

    #[test]
    fn a_bearer_token_needs_its_scheme_only_in_authorization() {
        let header = CredentialHeader::new("Authorization").unwrap();
        for (value, good) in [("bEARER t", true), ("t", false), ("Basic t", false), ("DPoP t", false)] {
            let headers = headers("authorization", &[value.as_bytes()]);
            assert_eq!(header.bearer_token(&headers).ok(), good.then_some(&b"t"[..]), "{value}");
        }
        let header = CredentialHeader::new("X-Assertion").unwrap();
        for (value, good) in [("Bearer t", true), ("t", true), ("Basic t", false)] {
            let headers = headers("x-assertion", &[value.as_bytes()]);
            assert_eq!(header.bearer_token(&headers).ok(), good.then_some(&b"t"[..]), "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_refusal_repeats_the_credential(secret in "[a-z0-9]{12,40}") {
            let value = format!("Basic {secret}");
            let headers = headers("authorization", &[value.as_bytes()]);
            prop_assert!(!refused("Authorization", &headers).contains(&secret));
        }

        #[test]
        fn a_credential_is_never_empty_and_never_padded(value in proptest::collection::vec(0x20u8..=0xff, 0..40)) {
            if let Some(found) = parse(&value) {
                prop_assert!(!found.secret.is_empty());
                prop_assert_eq!(trim(found.secret), found.secret);
            }
        }
    }
}
