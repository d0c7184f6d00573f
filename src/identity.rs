//! From the headers of a call to the credentials id that may read its result.
//!
//! One [`Identity`] an upstream. It owns the reading of the credential, the validation of tokens, the
//! keys of their issuer and what others said of them. It refuses a call whose credential it cannot
//! vouch for, and keeps this invariant: when whoever could tell is out of reach and has not told yet,
//! nobody is let in and nobody is told that the token is bad. No credential, claim or header value reaches a log or an error.

mod asked;
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

use http::{HeaderMap, HeaderName, Uri};

use crate::clock::Timestamp;
use crate::config::{IdentityConfig, IdentityMode};
use asked::{Asked, Limits, Question};
use credential::CredentialHeader;
use jwt::JwtIdentity;
use opaque::Fingerprint;

use crate::secret::{FingerprintKey, Secret};

pub use asked::Exchange;
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
    /// The keys, the issuer or the upstream that would tell is out of reach.
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
    #[error("upstream `{upstream}`: this identity mode needs `identity.{key}`; set it")]
    Missing { upstream: String, key: &'static str },
    #[error("upstream `{upstream}`: set one of `identity.jwks_url` and `identity.jwks_file`, and only one")]
    JwksSource { upstream: String },
    #[error("upstream `{upstream}`: `identity.jwks_url` is not an absolute http or https URL")]
    JwksUrl { upstream: String },
    #[error("upstream `{upstream}`: `identity.{key}` is not usable; see config.default.toml")]
    Invalid { upstream: String, key: &'static str },
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
            Self::Invalid { .. } => "identity_setting_invalid",
            Self::JwksUnreadable { .. } => "identity_jwks_unreadable",
            Self::JwksUnusable { .. } => "identity_jwks_unusable",
        }
    }
}

/// How the edges that identity needs are reached; used later, and only when needed.
pub struct Reach {
    /// Gets `identity.jwks_url`.
    pub fetch: Fetch,
    /// Asks `identity.introspection_url`: the request's URI is absolute.
    pub service: Exchange,
    /// Asks the upstream itself: the request's URI is a path below its prefix.
    pub upstream: Exchange,
}

/// How the callers of one upstream are told apart.
pub struct Identity {
    header: CredentialHeader,
    mode: Mode,
    /// Whom to ask besides, whatever the mode says.
    revalidation: Option<Arc<Asked>>,
}

enum Mode {
    Jwt(Box<JwtIdentity>),
    /// The issuer is asked about bearer tokens.
    Introspection(Arc<Asked>),
    /// The upstream is asked with the credential as it came.
    Upstream(Arc<Asked>),
    Opaque(Box<Fingerprint>),
    Shared(Arc<str>),
}

impl Identity {
    /// Reads `identity.jwks_file` where that is configured.
    ///
    /// # Errors
    /// The configuration contradicts itself, or the file is unreadable or without a usable key.
    pub fn new(
        config: &IdentityConfig,
        upstream: &str,
        fingerprint_key: &FingerprintKey,
        reach: Reach,
    ) -> Result<Self, IdentityError> {
        let header = CredentialHeader::new(&config.header)
            .ok_or_else(|| IdentityError::Header { upstream: upstream.to_owned() })?;
        let limits = Limits { timeout: config.timeout, max_cache: config.max_cache };
        let revalidation = if config.revalidate {
            let question = document(config, upstream, header.name(), None)?;
            Some(Asked::new(upstream, question, Arc::clone(&reach.upstream), limits))
        } else {
            None
        };
        let mode = match config.mode {
            IdentityMode::Jwt => Mode::Jwt(Box::new(JwtIdentity::new(config, upstream, reach.fetch)?)),
            IdentityMode::Introspection => {
                let question = introspection(config, upstream)?;
                Mode::Introspection(Asked::new(upstream, question, reach.service, limits))
            }
            IdentityMode::Upstream => {
                let pointer = needed(config.pointer.as_ref(), upstream, "pointer")?;
                let question = document(config, upstream, header.name(), Some(pointer))?;
                Mode::Upstream(Asked::new(upstream, question, reach.upstream, limits))
            }
            IdentityMode::Opaque => Mode::Opaque(Box::new(Fingerprint::new(fingerprint_key, upstream))),
            IdentityMode::None => Mode::Shared(Arc::from(ANONYMOUS)),
        };
        Ok(Self { header, mode, revalidation })
    }

    /// Of these headers the ones that [`Identity::identify`] reads.
    #[must_use]
    pub fn credential_of(&self, headers: &HeaderMap) -> HeaderMap {
        let name = self.header.name();
        headers.get_all(name).iter().map(|value| (name.clone(), value.clone())).collect()
    }

    /// The caller behind these headers. Waits on the network only for a key or a token that is not
    /// known, or not known any more.
    ///
    /// # Errors
    /// [`Rejection::InvalidToken`] for a 401, [`Rejection::Unavailable`] for a 503.
    pub async fn identify(&self, headers: &HeaderMap, wall: Timestamp) -> Result<Caller, Rejection> {
        let caller = match &self.mode {
            Mode::Jwt(jwt) => jwt.identify(self.header.bearer_token(headers)?, wall).await?,
            Mode::Introspection(issuer) => issuer.identify(self.header.bearer_token(headers)?, wall).await?,
            Mode::Upstream(upstream) => upstream.identify(self.header.value(headers)?, wall).await?,
            Mode::Opaque(fingerprint) => {
                let credentials_id = fingerprint.of(self.header.credential(headers)?);
                // An opaque credential that looks like a JWT is not validated, so its `exp` is hearsay.
                Caller { credentials_id, expires_at: None }
            }
            Mode::Shared(id) => Caller { credentials_id: Arc::clone(id), expires_at: None },
        };
        if let Some(upstream) = &self.revalidation {
            // Only whether it is still good; who it is was said above.
            upstream.identify(self.header.value(headers)?, wall).await?;
        }
        Ok(caller)
    }
}

fn needed<'c>(
    value: Option<&'c String>,
    upstream: &str,
    key: &'static str,
) -> Result<&'c str, IdentityError> {
    let missing = || IdentityError::Missing { upstream: upstream.to_owned(), key };
    value.map(String::as_str).filter(|value| !value.is_empty()).ok_or_else(missing)
}

fn introspection(config: &IdentityConfig, upstream: &str) -> Result<Question, IdentityError> {
    let url = needed(config.introspection_url.as_ref(), upstream, "introspection_url")?;
    let invalid = || IdentityError::Invalid { upstream: upstream.to_owned(), key: "introspection_url" };
    Ok(Question::Introspection {
        uri: url.parse().map_err(|_| invalid())?,
        client_id: Secret::new(needed(config.client_id.as_ref(), upstream, "client_id")?),
        client_secret: Secret::new(needed(config.client_secret.as_ref(), upstream, "client_secret")?),
        client_auth: config.client_auth,
        issuer: config.issuer.clone(),
        audience: config.audience.clone(),
        claim: needed(Some(&config.claim), upstream, "claim")?.to_owned(),
    })
}

fn document(
    config: &IdentityConfig,
    upstream: &str,
    header: &HeaderName,
    pointer: Option<&str>,
) -> Result<Question, IdentityError> {
    let path = needed(config.path.as_ref(), upstream, "path")?;
    let invalid = || IdentityError::Invalid { upstream: upstream.to_owned(), key: "path" };
    let path = path.parse::<Uri>().ok().filter(|path| path.authority().is_none()).ok_or_else(invalid)?;
    Ok(Question::Document { path, header: header.clone(), pointer: pointer.map(str::to_owned) })
}
