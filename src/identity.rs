//! From the headers of a call to the credentials id that may read its result.
//!
//! One [`Identity`] an upstream. It owns the reading of the credential, the validation of tokens and
//! the keys of their issuer. It refuses a call whose credential it cannot vouch for, and keeps this
//! invariant: when the issuer's keys are out of reach and not yet known, nobody is let in and nobody
//! is told that the token is bad. No credential, claim or header value reaches a log or an error.

mod claims;
mod credential;
mod jwks;
mod jwt;
mod keys;
mod known;
mod opaque;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use http::HeaderMap;

use crate::clock::Timestamp;
use crate::config::{IdentityConfig, IdentityMode};
use credential::CredentialHeader;
use jwt::JwtIdentity;
use opaque::Fingerprint;

use crate::secret::FingerprintKey;

pub use jwks::{Fetch, FetchError, MAX_JWKS_BYTES};

/// The credentials id of every caller in mode `none`.
pub const ANONYMOUS: &str = "anonymous";

/// Who makes a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Shared, so that a caller seen before costs no copy.
    pub credentials_id: Arc<str>,
    /// When the token ends, in wall-clock time; `None` where that is not known for certain.
    pub expires_at: Option<Timestamp>,
}

/// Why a call has no credentials id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The credential is missing or unusable; the sentence says what to do and repeats nothing of it.
    #[error("{0}")]
    InvalidToken(Cow<'static, str>),
    /// The keys that would tell are out of reach.
    #[error("The identity service cannot be reached; try again shortly.")]
    Unavailable,
}

/// Why a configured identity cannot work.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(
        "upstream `{upstream}`: `identity.header` is not a header name; use one such as \"Authorization\""
    )]
    Header { upstream: String },
    #[error("upstream `{upstream}`: identity mode `jwt` needs `identity.{key}`; set it")]
    Missing { upstream: String, key: &'static str },
    #[error("upstream `{upstream}`: set one of `identity.jwks_url` and `identity.jwks_file`, and only one")]
    JwksSource { upstream: String },
    #[error("upstream `{upstream}`: `identity.jwks_url` is not an absolute http or https URL")]
    JwksUrl { upstream: String },
    #[error("upstream `{upstream}`: `identity.jwks_file` {path} cannot be read: {source}")]
    JwksUnreadable { upstream: String, path: PathBuf, source: std::io::Error },
    #[error("upstream `{upstream}`: `identity.jwks_file` {path} is of no use: {reason}")]
    JwksUnusable { upstream: String, path: PathBuf, reason: FetchError },
}

impl IdentityError {
    /// Stable, for logs and exit messages.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Header { .. } => "identity_header_invalid",
            Self::Missing { .. } => "identity_setting_missing",
            Self::JwksSource { .. } => "identity_jwks_source",
            Self::JwksUrl { .. } => "identity_jwks_url_invalid",
            Self::JwksUnreadable { .. } => "identity_jwks_unreadable",
            Self::JwksUnusable { .. } => "identity_jwks_unusable",
        }
    }
}

/// How the callers of one upstream are told apart.
pub struct Identity {
    header: CredentialHeader,
    mode: Mode,
}

enum Mode {
    Jwt(Box<JwtIdentity>),
    Opaque(Box<Fingerprint>),
    Shared(Arc<str>),
}

impl Identity {
    /// Reads `identity.jwks_file` where that is configured; `fetch` is how `identity.jwks_url` is got,
    /// later and only when it is needed.
    ///
    /// # Errors
    /// The configuration contradicts itself, or the file is unreadable or without a usable key.
    pub fn new(
        config: &IdentityConfig,
        upstream: &str,
        fingerprint_key: &FingerprintKey,
        fetch: Fetch,
    ) -> Result<Self, IdentityError> {
        let header = CredentialHeader::new(&config.header)
            .ok_or_else(|| IdentityError::Header { upstream: upstream.to_owned() })?;
        let mode = match config.mode {
            IdentityMode::Jwt => Mode::Jwt(Box::new(JwtIdentity::new(config, upstream, fetch)?)),
            IdentityMode::Opaque => Mode::Opaque(Box::new(Fingerprint::new(fingerprint_key, upstream))),
            IdentityMode::None => Mode::Shared(Arc::from(ANONYMOUS)),
        };
        Ok(Self { header, mode })
    }

    /// The caller behind these headers. Waits on the network only for a key it has never seen.
    ///
    /// # Errors
    /// [`Rejection::InvalidToken`] for a 401, [`Rejection::Unavailable`] for a 503.
    pub async fn identify(&self, headers: &HeaderMap, wall: Timestamp) -> Result<Caller, Rejection> {
        match &self.mode {
            Mode::Jwt(jwt) => jwt.identify(self.header.bearer_token(headers)?, wall).await,
            Mode::Opaque(fingerprint) => {
                let credentials_id = fingerprint.of(self.header.credential(headers)?);
                // An opaque credential that looks like a JWT is not validated, so its `exp` is hearsay.
                Ok(Caller { credentials_id, expires_at: None })
            }
            Mode::Shared(id) => Ok(Caller { credentials_id: Arc::clone(id), expires_at: None }),
        }
    }
}
