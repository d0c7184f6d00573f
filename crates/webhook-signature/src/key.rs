//! Keys, and how they are written.
//!
//! Each is parsed once and then signs or verifies any number of messages.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::message::{Message, Signature};

const SECRET_PREFIX: &str = "whsec_";
const SIGNING_PREFIX: &str = "whsk_";
const PUBLIC_PREFIX: &str = "whpk_";

const SEED_BYTES: usize = 32;
const PUBLIC_BYTES: usize = 32;

/// Why a text is not a key. Says nothing about the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The prefix that was expected.
    #[error("the key does not start with {0}")]
    Prefix(&'static str),
    #[error("what follows the key's prefix is not base64")]
    Base64,
    #[error("the key has a length that the specification does not allow")]
    Length,
    #[error("the bytes are not an ed25519 key, or its two halves do not belong together")]
    NotAKey,
}

fn decode(text: &str, prefix: &'static str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let encoded = text.strip_prefix(prefix).ok_or(KeyError::Prefix(prefix))?;
    STANDARD.decode(encoded).map(Zeroizing::new).map_err(|_| KeyError::Base64)
}

fn encode(prefix: &str, bytes: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(prefix.len() + bytes.len().div_ceil(3) * 4));
    text.push_str(prefix);
    STANDARD.encode_string(bytes, &mut text);
    text
}

/// The secret of scheme `v1`, known to sender and receiver.
#[derive(Clone)]
pub struct SharedSecret {
    bytes: Zeroizing<Vec<u8>>,
    key: hmac::Key,
}

impl SharedSecret {
    /// Reads `whsec_<base64>`.
    ///
    /// # Errors
    /// Another prefix, no base64, or not 24 to 64 bytes.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        Self::from_bytes(&decode(text, SECRET_PREFIX)?)
    }

    /// 24 to 64 bytes of good randomness.
    ///
    /// # Errors
    /// [`KeyError::Length`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        if !(24..=64).contains(&bytes.len()) {
            return Err(KeyError::Length);
        }
        Ok(Self { bytes: Zeroizing::new(bytes.to_vec()), key: hmac::Key::new(hmac::HMAC_SHA256, bytes) })
    }

    /// `whsec_…`, for handing to receivers, never for printing where others read.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        encode(SECRET_PREFIX, &self.bytes)
    }

    #[must_use]
    pub fn sign(&self, message: &Message<'_>) -> Signature {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(message.head().as_bytes());
        context.update(message.body());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.sign().as_ref());
        Signature::Hmac(bytes)
    }
}

/// The private key of scheme `v1a`. Only the sender has it.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    seed: Zeroizing<[u8; SEED_BYTES]>,
}

impl SigningKey {
    /// Reads `whsk_<base64>` of either the 32-byte seed of RFC 8032, or seed and public key, 64 bytes.
    ///
    /// # Errors
    /// Another prefix, no base64, another length, or halves that do not belong together.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let bytes = decode(text, SIGNING_PREFIX)?;
        let (seed, public) = bytes.split_at_checked(SEED_BYTES).ok_or(KeyError::Length)?;
        let key = Self::from_seed(seed.try_into().map_err(|_| KeyError::Length)?);
        match public.len() {
            0 => Ok(key),
            PUBLIC_BYTES if public == key.public_bytes() => Ok(key),
            PUBLIC_BYTES => Err(KeyError::NotAKey),
            _ => Err(KeyError::Length),
        }
    }

    /// 32 bytes of good randomness.
    #[must_use]
    pub fn from_seed(seed: &[u8; SEED_BYTES]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are a seed");
        Self { pair, seed: Zeroizing::new(*seed) }
    }

    /// `whsk_…` of seed and public key; a secret.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut both = Zeroizing::new([0; SEED_BYTES + PUBLIC_BYTES]);
        both[..SEED_BYTES].copy_from_slice(&self.seed[..]);
        both[SEED_BYTES..].copy_from_slice(self.public_bytes());
        encode(SIGNING_PREFIX, &both[..])
    }

    /// What receivers verify with.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes(self.public_bytes()).expect("a key pair has a public key")
    }

    #[must_use]
    pub fn sign(&self, message: &Message<'_>) -> Signature {
        let mut bytes = [0; 64];
        bytes.copy_from_slice(self.pair.sign(&message.signed_bytes()).as_ref());
        Signature::Ed25519(bytes)
    }

    fn public_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }
}

/// The public key of scheme `v1a`. No secret.
#[derive(Clone)]
pub struct PublicKey {
    bytes: [u8; PUBLIC_BYTES],
    parsed: std::sync::Arc<ParsedPublicKey>,
}

impl PublicKey {
    /// Reads `whpk_<base64>`.
    ///
    /// # Errors
    /// Another prefix, no base64, not 32 bytes, or bytes that are no point of the curve.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        Self::from_bytes(&decode(text, PUBLIC_PREFIX)?)
    }

    /// The 32 bytes of RFC 8032; in a JSON Web Key, the member `x` (RFC 8037).
    ///
    /// # Errors
    /// Not 32 bytes, or no key.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let array = bytes.try_into().map_err(|_| KeyError::Length)?;
        let parsed = ParsedPublicKey::new(&ED25519, bytes).map_err(|_| KeyError::NotAKey)?;
        Ok(Self { bytes: array, parsed: std::sync::Arc::new(parsed) })
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8; PUBLIC_BYTES] {
        &self.bytes
    }

    /// `whpk_…`.
    #[must_use]
    pub fn to_text(&self) -> String {
        String::clone(&encode(PUBLIC_PREFIX, &self.bytes))
    }

    pub(crate) fn accepts(&self, signed: &[u8], candidate: &[u8; 64]) -> bool {
        self.parsed.verify_sig(signed, candidate).is_ok()
    }
}
