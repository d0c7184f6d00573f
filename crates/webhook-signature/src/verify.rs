//! Whether a message is from who it claims to be from, and recent.

use subtle::ConstantTimeEq as _;

use crate::key::{PublicKey, SharedSecret};
use crate::message::{InvalidId, Message, Signature};

/// How far apart the clocks of sender and receiver may be, either way: five minutes, as in the
/// specification's own libraries.
pub const TOLERANCE_SECONDS: u64 = 300;

/// More signatures than this in one header are an attack, not a rotation: each costs a computation.
const MAX_SIGNATURES: usize = 32;

/// What the three headers say.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// `webhook-id`.
    pub id: &'a str,
    /// `webhook-timestamp`.
    pub timestamp: &'a str,
    /// `webhook-signature`.
    pub signatures: &'a str,
}

/// Why a message is not to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Id(#[from] InvalidId),
    #[error("webhook-timestamp is not a number of seconds since 1970")]
    Timestamp,
    #[error("the message is older than the tolerance")]
    TooOld,
    #[error("the message is from further in the future than the tolerance")]
    TooNew,
    #[error("webhook-signature holds more than 32 signatures")]
    TooMany,
    #[error("no signature fits the message and a known key")]
    NoMatch,
}

/// The keys a receiver trusts: during a rotation the old and the new one.
#[derive(Clone, Default)]
pub struct Verifier {
    secrets: Vec<SharedSecret>,
    keys: Vec<PublicKey>,
}

impl Verifier {
    /// Trusts nobody yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Also accepts `v1` signatures by this secret.
    #[must_use]
    pub fn with_secret(mut self, secret: SharedSecret) -> Self {
        self.secrets.push(secret);
        self
    }

    /// Also accepts `v1a` signatures by this key.
    #[must_use]
    pub fn with_key(mut self, key: PublicKey) -> Self {
        self.keys.push(key);
        self
    }

    /// The message, if one of the signatures is by a trusted key and its time is within `tolerance`
    /// seconds of `now` (seconds since 1970). `body` is the body as received, not read and written
    /// again: one changed space and it is another message.
    ///
    /// Signatures of unknown schemes are passed over: senders may use newer ones beside these.
    ///
    /// # Errors
    /// See [`VerifyError`]. A message that is both forged and old is called old.
    pub fn verify<'a>(
        &self,
        claim: &Claim<'a>,
        body: &'a [u8],
        now: i64,
        tolerance: u64,
    ) -> Result<Message<'a>, VerifyError> {
        let timestamp = parse_timestamp(claim.timestamp).ok_or(VerifyError::Timestamp)?;
        let message = Message::new(claim.id, timestamp, body)?;
        if timestamp.abs_diff(now) > tolerance {
            return Err(if timestamp < now { VerifyError::TooOld } else { VerifyError::TooNew });
        }
        if claim.signatures.split(' ').count() > MAX_SIGNATURES {
            return Err(VerifyError::TooMany);
        }
        let candidates: Vec<_> = claim.signatures.split(' ').filter_map(Signature::parse).collect();
        if self.by_secret(&message, &candidates) || self.by_key(&message, &candidates) {
            Ok(message)
        } else {
            Err(VerifyError::NoMatch)
        }
    }

    fn by_secret(&self, message: &Message<'_>, candidates: &[Signature]) -> bool {
        let offered = || candidates.iter().filter_map(Signature::hmac);
        offered().next().is_some()
            && self.secrets.iter().filter_map(|secret| secret.sign(message).hmac().copied()).any(|expected| {
                // All are compared, so that the time says nothing about which one is good.
                let good = offered().fold(subtle::Choice::from(0), |good, tag| good | tag.ct_eq(&expected));
                good.into()
            })
    }

    fn by_key(&self, message: &Message<'_>, candidates: &[Signature]) -> bool {
        let mut offered = candidates.iter().filter_map(Signature::ed25519).peekable();
        if self.keys.is_empty() || offered.peek().is_none() {
            return false;
        }
        let signed = message.signed_bytes();
        offered.any(|candidate| self.keys.iter().any(|key| key.accepts(&signed, candidate)))
    }
}

impl Signature {
    fn hmac(&self) -> Option<&[u8; 32]> {
        match self {
            Self::Hmac(tag) => Some(tag),
            Self::Ed25519(_) => None,
        }
    }

    fn ed25519(&self) -> Option<&[u8; 64]> {
        match self {
            Self::Ed25519(signature) => Some(signature),
            Self::Hmac(_) => None,
        }
    }
}

/// Digits only, in the one way a sender writes a number: what was signed is the header's text.
fn parse_timestamp(text: &str) -> Option<i64> {
    let number: i64 = text.parse().ok()?;
    (number >= 0 && number.to_string() == text).then_some(number)
}
