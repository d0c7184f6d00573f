//! Sign and verify webhooks by the [Standard Webhooks] specification, version 1.
//!
//! A webhook carries three headers: `webhook-id`, `webhook-timestamp` (seconds since 1970) and
//! `webhook-signature`. What is signed is `id.timestamp.body`, the body byte for byte as sent. Two
//! schemes exist, and one header may hold several signatures of both, separated by spaces:
//!
//! | scheme | signs with | verifies with |
//! |---|---|---|
//! | `v1`, HMAC-SHA256 | a [`SharedSecret`], written `whsec_…` | the same secret |
//! | `v1a`, ed25519 | a [`SigningKey`], written `whsk_…` | its [`PublicKey`], written `whpk_…` |
//!
//! This crate does no I/O and knows no clock: the time is an argument. It refuses what two readers
//! could read differently, compares in constant time, bounds the work a hostile header can cause,
//! and wipes its keys when they are dropped. Keys have no `Debug`, so they cannot be logged by
//! accident.
//!
//! # Verifying
//!
//! ```
//! use webhook_signature::{Claim, SharedSecret, Verifier, TOLERANCE_SECONDS};
//!
//! let verifier = Verifier::new()
//!     .with_secret(SharedSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")?);
//! let claim = Claim {
//!     id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
//!     timestamp: "1614265330",
//!     signatures: "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
//! };
//! let now = 1_614_265_333;
//! let message = verifier.verify(&claim, br#"{"test": 2432232314}"#, now, TOLERANCE_SECONDS)?;
//! assert_eq!(message.timestamp(), 1_614_265_330);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Remember the ids of messages already handled for as long as the tolerance lasts: senders repeat a
//! message until they hear that it arrived, under the same id.
//!
//! # Signing
//!
//! ```
//! use webhook_signature::{Message, SharedSecret, SigningKey, header_value};
//!
//! let secret = SharedSecret::from_bytes(&[7; 32])?;
//! let key = SigningKey::from_seed(&[9; 32]);
//! let message = Message::new("msg_1", 1_614_265_330, b"{}")?;
//! let value = header_value([secret.sign(&message), key.sign(&message)]);
//! assert!(value.starts_with("v1,") && value.contains(" v1a,"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! While keys rotate, sign with the old and the new one and join all signatures; receivers accept a
//! message when any one of them is good.
//!
//! `vectors.json` in this crate's directory holds test vectors that any language can run; they were
//! made by another implementation.
//!
//! [Standard Webhooks]: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

mod key;
mod message;
mod verify;

pub use key::{KeyError, PublicKey, SharedSecret, SigningKey};
pub use message::{InvalidId, Message, Signature, header_value};
pub use verify::{Claim, TOLERANCE_SECONDS, Verifier, VerifyError};

/// Header that names the message; the same on every try.
pub const ID_HEADER: &str = "webhook-id";
/// Header that says when this try was signed, in seconds since 1970.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// Header with the signatures.
pub const SIGNATURE_HEADER: &str = "webhook-signature";
