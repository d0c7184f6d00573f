//! What is signed, and what a signature looks like in the header.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const MAX_ID_BYTES: usize = 256;

/// Why a text is no message id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message id is 1 to 256 visible ASCII characters without a full stop")]
pub struct InvalidId;

/// An id, a time and a body: what a signature covers.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    id: &'a str,
    timestamp: i64,
    body: &'a [u8],
}

impl<'a> Message<'a> {
    /// `timestamp` in seconds since 1970; `body` exactly as it is sent.
    ///
    /// # Errors
    /// The id is empty, too long, or holds a character that is not visible ASCII or is a full stop:
    /// with one, `a.1` at second 2 and `a` at second 1 would be signed alike.
    pub fn new(id: &'a str, timestamp: i64, body: &'a [u8]) -> Result<Self, InvalidId> {
        let is_id = (1..=MAX_ID_BYTES).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'.');
        if is_id { Ok(Self { id, timestamp, body }) } else { Err(InvalidId) }
    }

    #[must_use]
    pub fn id(&self) -> &'a str {
        self.id
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn timestamp(&self) -> i64 {
        self.timestamp
    }

    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// `id.timestamp.`: what stands before the body in what is signed.
    pub(crate) fn head(&self) -> String {
        format!("{}.{}.", self.id, self.timestamp)
    }

    /// All bytes that are signed.
    pub(crate) fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = self.head().into_bytes();
        bytes.extend_from_slice(self.body);
        bytes
    }
}

/// One signature. Not secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// `v1`: HMAC-SHA256.
    Hmac([u8; 32]),
    /// `v1a`: ed25519 (RFC 8032).
    Ed25519([u8; 64]),
}

impl Signature {
    /// `v1` or `v1a`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        match self {
            Self::Hmac(_) => "v1",
            Self::Ed25519(_) => "v1a",
        }
    }

    /// `<scheme>,<base64>`; `None` for an unknown scheme or a wrong length.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (scheme, encoded) = text.split_once(',')?;
        let bytes = STANDARD.decode(encoded).ok()?;
        match scheme {
            "v1" => Some(Self::Hmac(bytes.try_into().ok()?)),
            "v1a" => Some(Self::Ed25519(bytes.try_into().ok()?)),
            _ => None,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Hmac(bytes) => bytes,
            Self::Ed25519(bytes) => bytes,
        }
    }
}

impl std::fmt::Display for Signature {
    /// As in the header: `v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{},{}", self.scheme(), STANDARD.encode(self.bytes()))
    }
}

/// The value of `webhook-signature`: all signatures, separated by spaces.
#[must_use]
pub fn header_value(signatures: impl IntoIterator<Item = Signature>) -> String {
    let mut value = String::new();
    for signature in signatures {
        let space = if value.is_empty() { "" } else { " " };
        write!(value, "{space}{signature}").expect("writing to a string");
    }
    value
}
