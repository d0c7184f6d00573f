//! `[[upstreams]]`: an API calls are sent to, who may read its results, and when to try again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::units;
use crate::outcome::Idempotency;

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// Stored with each task: a new name is a new upstream.
    pub name: String,
    /// Whole path segments, such as `/data/v1`, or `/`.
    pub prefix: String,
    /// `http://` or `https://`, host, optional port and path; the path takes the prefix's place.
    pub url: String,
    /// Where results live below the prefix, such as `/results`.
    pub results_path: String,
    /// Send the client's `Host` instead of the authority of `url`.
    pub preserve_host: bool,
    /// From sending the request to the response headers; connecting included.
    #[serde(deserialize_with = "units::duration")]
    pub timeout: Duration,
    /// Longest pause between two pieces of the upstream's body.
    #[serde(deserialize_with = "units::duration")]
    pub idle_timeout: Duration,
    /// Longest whole attempt of a task.
    #[serde(deserialize_with = "units::duration")]
    pub total_timeout: Duration,
    /// Attempts of tasks in flight at once.
    pub concurrency: usize,
    /// What the upstream promises about unsafe calls sent twice.
    pub idempotency: Idempotency,
    /// Largest result kept.
    #[serde(deserialize_with = "units::bytes")]
    pub max_result_bytes: u64,
    /// PEM file of the authorities trusted for this upstream instead of the system's.
    #[serde(deserialize_with = "units::optional_path")]
    pub ca_file: Option<PathBuf>,
    /// PEM: who this node says it is to an upstream that asks for a client certificate.
    #[serde(deserialize_with = "units::optional_path")]
    pub client_cert_file: Option<PathBuf>,
    #[serde(deserialize_with = "units::optional_path")]
    pub client_key_file: Option<PathBuf>,
    pub headers: HeadersConfig,
    pub cors: CorsConfig,
    pub identity: IdentityConfig,
    pub retry: RetryConfig,
}

/// Changes to the header section sent upstream, applied last.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadersConfig {
    pub set: BTreeMap<String, String>,
    /// As `set`, each value the trimmed content of a file.
    pub set_from_file: BTreeMap<String, PathBuf>,
    pub remove: Vec<String>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorsConfig {
    /// Origins that browsers may call from, such as `https://app.example`, or `*`. Empty: preflights
    /// are proxied and our answers carry no CORS headers.
    pub origins: Vec<String>,
}

/// How an access token becomes a credentials id.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityConfig {
    pub mode: IdentityMode,
    /// The header that carries the credential.
    pub header: String,
    #[serde(deserialize_with = "units::optional")]
    pub jwks_url: Option<String>,
    #[serde(deserialize_with = "units::optional_path")]
    pub jwks_file: Option<PathBuf>,
    #[serde(deserialize_with = "units::optional")]
    pub issuer: Option<String>,
    #[serde(deserialize_with = "units::optional")]
    pub audience: Option<String>,
    /// The claim that is the credentials id.
    pub claim: String,
    /// RFC 7662 section 2: where tokens are asked about, and as whom.
    #[serde(deserialize_with = "units::optional")]
    pub introspection_url: Option<String>,
    #[serde(deserialize_with = "units::optional")]
    pub client_id: Option<String>,
    #[serde(deserialize_with = "units::optional")]
    pub client_secret: Option<String>,
    #[serde(deserialize_with = "units::optional_path")]
    pub client_secret_file: Option<PathBuf>,
    pub client_auth: ClientAuth,
    /// Below the upstream's prefix: what only a good token can read.
    #[serde(deserialize_with = "units::optional")]
    pub path: Option<String>,
    /// RFC 6901: where the credentials id stands in that document.
    #[serde(deserialize_with = "units::optional")]
    pub pointer: Option<String>,
    /// Ask the upstream at `path` about tokens in the modes `jwt` and `opaque`, too.
    pub revalidate: bool,
    /// Longest question about one token.
    #[serde(deserialize_with = "units::duration")]
    pub timeout: Duration,
    /// Longest time an answer about a token is believed.
    #[serde(deserialize_with = "units::duration")]
    pub max_cache: Duration,
}

/// How the node says who it is to the introspection endpoint: RFC 6749 section 2.3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    Basic,
    Post,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityMode {
    Jwt,
    Introspection,
    Upstream,
    Opaque,
    None,
}

/// When a task is tried again.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryConfig {
    /// One entry a retry.
    #[serde(deserialize_with = "units::durations")]
    pub delays: Vec<Duration>,
    /// Each delay is moved by up to this fraction of itself, either way.
    pub jitter: f64,
    /// Counted from acceptance; a token that expires earlier ends retries earlier.
    #[serde(deserialize_with = "units::duration")]
    pub deadline: Duration,
    /// Statuses worth another attempt: single ones and ranges, such as `503` and `"520-529"`.
    pub statuses: crate::outcome::TransientStatuses,
}
