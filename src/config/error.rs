//! Why a configuration is refused: one enum, a stable code each, a sentence that names the keys.
//!
//! No text here holds a header value or a URL: either can carry a password.

use std::fmt;

/// One reason not to start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read `{path}`: {why}")]
    FileUnreadable { path: String, why: String },
    #[error("not TOML: {0}")]
    Syntax(String),
    #[error("unknown key `{key}`{}", did_you_mean(near.as_deref()))]
    UnknownKey { key: String, near: Option<String> },
    #[error("`{key}`: {why}")]
    BadValue { key: String, why: String },
    #[error(
        "`{0}` stands alone, but upstreams are a list: write `[[upstreams]]` above it to say which one is meant"
    )]
    UpstreamsNotAList(String),
    #[error("`{list}` has {len} entries, so the next one is number {len}, not {index}")]
    IndexGap { list: String, len: usize, index: usize },
    #[error("--upstream is for a configuration with one upstream at most; this one has {0}")]
    UpstreamAmbiguous(usize),

    #[error(
        "there is no upstream to serve: give one with `--upstream http://host:port`, or in ringback.toml as `[[upstreams]]` with `url = \"http://host:port\"`"
    )]
    NoUpstream,
    #[error(
        "two [[upstreams]] have the name `{0}`; a name is stored with each task and must be one of a kind"
    )]
    NameTwice(String),
    #[error("two [[upstreams]] have the prefix `{0}`; a path can go to one upstream only")]
    PrefixTwice(String),
    #[error("upstream `{upstream}`: `prefix` {why}")]
    PrefixInvalid { upstream: String, why: &'static str },
    #[error("upstream `{upstream}`: `results_path` {why}")]
    ResultsPathInvalid { upstream: String, why: &'static str },
    #[error(
        "the prefix of upstream `{by}` covers the `results_path` of upstream `{upstream}`; move one of them"
    )]
    ResultsHidden { upstream: String, by: String },
    #[error("upstream `{upstream}`: `url` {why}")]
    UpstreamUrlInvalid { upstream: String, why: &'static str },
    #[error(
        "upstream `{0}`: `retry.deadline` is shorter than `timeout`, so not even one attempt has its time"
    )]
    DeadlineTooShort(String),
    #[error("upstream `{0}`: `total_timeout` is shorter than `timeout`, so `timeout` could never be used up")]
    TotalTimeoutTooShort(String),
    #[error("upstream `{upstream}`: `retry.delays` has {count} entries; at most {max} retries are made")]
    TooManyRetries { upstream: String, count: usize, max: usize },
    #[error("`webhooks.delays` has {count} entries; a delivery is retried at most {max} times")]
    TooManyWebhookDelays { count: usize, max: usize },
    #[error("`{0}` must be from 0 to 1")]
    JitterOutOfRange(String),
    #[error("`{0}` must be longer than zero")]
    TimeoutZero(String),
    #[error("`{key}` must be from {min} to {max}")]
    LimitOutOfRange { key: String, min: u64, max: u64 },
    #[error(
        "`server.max_body_bytes` is more than `server.max_buffered_bytes`: such a body could never be accepted"
    )]
    BodyAboveBuffer,
    #[error("`webhooks.jwks_path` {0}")]
    JwksPathInvalid(&'static str),
    #[error("`retention.tasks` is shorter than `retention.results`: a result cannot outlive its task")]
    RetentionOrder,
    #[error("`retention.max_bytes` must be 0 for no limit, or at least {0} bytes")]
    MaxBytesTooSmall(u64),
    #[error(
        "`retention.max_bytes` is less than `{0}`: a single task could fill the store; raise the one or lower the other"
    )]
    MaxBytesBelow(String),

    #[error(
        "upstream `{upstream}`: identity mode `jwt` needs `identity.{key}`, or tokens meant for others would pass"
    )]
    JwtIncomplete { upstream: String, key: &'static str },
    #[error(
        "upstream `{0}`: identity mode `jwt` needs exactly one of `identity.jwks_url` and `identity.jwks_file`"
    )]
    JwksSource(String),
    #[error("upstream `{upstream}`: `identity.jwks_url` {why}")]
    JwksUrlInvalid { upstream: String, why: &'static str },
    #[error("upstream `{upstream}`: identity mode `{mode}` needs `identity.{key}`; set it")]
    IdentityIncomplete { upstream: String, mode: &'static str, key: &'static str },
    #[error("upstream `{upstream}`: `identity.{key}` {why}")]
    IdentityInvalid { upstream: String, key: &'static str, why: &'static str },
    #[error(
        "upstream `{0}`: set one of `identity.client_secret` and `identity.client_secret_file`, not both"
    )]
    ClientSecretTwice(String),
    #[error(
        "upstream `{0}`: `headers` sets or removes the header that carries the credential, so the API could not tell one caller from another; leave it out"
    )]
    IdentityHeaderChanged(String),
    #[error("upstream `{0}`: `identity.header` is not the name of a header")]
    IdentityHeaderInvalid(String),
    #[error("upstream `{0}`: `identity.claim` must name a claim such as `sub`")]
    ClaimMissing(String),
    #[error("upstream `{upstream}`: `{name}` in `headers.{table}` is not the name of a header")]
    HeaderNameInvalid { upstream: String, table: &'static str, name: String },
    #[error("upstream `{upstream}`: the value of `{name}` in `headers.{table}` cannot be sent in a header")]
    HeaderValueInvalid { upstream: String, table: &'static str, name: String },
    #[error("upstream `{upstream}`: `headers.{table}` cannot hold `{name}`: {why}")]
    HeaderReserved { upstream: String, table: &'static str, name: String, why: &'static str },
    #[error("upstream `{upstream}`: the header `{name}` is set twice")]
    HeaderTwice { upstream: String, name: String },
    #[error(
        "upstream `{upstream}`: `{origin}` in `cors.origins` is not an origin such as \"https://app.example.com\""
    )]
    CorsOriginInvalid { upstream: String, origin: String },

    #[error(
        "`server.public_url` is needed, because clients cannot call `server.listen` = {0}; say there, or in RINGBACK_SERVER__PUBLIC_URL, how they reach this node"
    )]
    PublicUrlMissing(String),
    #[error("`server.public_url` {0}")]
    PublicUrlInvalid(&'static str),
    #[error("`{0}` and `{1}` belong together; set both or neither")]
    Unpaired(String, String),
    #[error("`server.data_dir` is empty; name a directory")]
    DataDirMissing,
    #[error("`server.listen` and `server.admin_listen` are both {0}; give each its own port")]
    ListenTwice(String),
    #[error("`store.url` must be \"sqlite\" or \"sqlite:/path/to/file\"")]
    StoreUrlInvalid,
    #[error("`store.url` names PostgreSQL, but this build keeps tasks in SQLite only; use \"sqlite\"")]
    StoreNotSupported,
    #[error("`{0}` in `webhooks.allow_hosts` is not a host name; leave out scheme, port and path")]
    WebhookHostInvalid(String),
}

fn did_you_mean(near: Option<&str>) -> String {
    match near {
        Some(near) => format!("; did you mean `{near}`?"),
        None => String::from("; config.default.toml lists every key"),
    }
}

impl ConfigError {
    /// Stable, for scripts and tests.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::FileUnreadable { .. } => "file_unreadable",
            Self::Syntax(_) => "syntax",
            Self::UnknownKey { .. } => "unknown_key",
            Self::BadValue { .. } => "bad_value",
            Self::UpstreamsNotAList(_) => "upstreams_not_a_list",
            Self::IndexGap { .. } => "index_gap",
            Self::UpstreamAmbiguous(_) => "upstream_ambiguous",
            Self::NoUpstream => "no_upstream",
            Self::NameTwice(_) => "name_twice",
            Self::PrefixTwice(_) => "prefix_twice",
            Self::PrefixInvalid { .. } => "prefix_invalid",
            Self::ResultsPathInvalid { .. } => "results_path_invalid",
            Self::ResultsHidden { .. } => "results_hidden",
            Self::UpstreamUrlInvalid { .. } => "upstream_url_invalid",
            Self::DeadlineTooShort(_) => "deadline_too_short",
            Self::TotalTimeoutTooShort(_) => "total_timeout_too_short",
            Self::TooManyRetries { .. } => "too_many_retries",
            Self::TooManyWebhookDelays { .. } => "too_many_webhook_delays",
            Self::JitterOutOfRange(_) => "jitter_out_of_range",
            Self::TimeoutZero(_) => "timeout_zero",
            Self::LimitOutOfRange { .. } => "limit_out_of_range",
            Self::BodyAboveBuffer => "body_above_buffer",
            Self::RetentionOrder => "retention_order",
            Self::MaxBytesTooSmall(_) => "max_bytes_too_small",
            Self::MaxBytesBelow(_) => "max_bytes_below",
            Self::JwksPathInvalid(_) => "jwks_path_invalid",
            Self::JwtIncomplete { .. } => "jwt_incomplete",
            Self::JwksSource(_) => "jwks_source",
            Self::JwksUrlInvalid { .. } => "jwks_url_invalid",
            Self::IdentityIncomplete { .. } => "identity_incomplete",
            Self::IdentityInvalid { .. } => "identity_invalid",
            Self::ClientSecretTwice(_) => "client_secret_twice",
            Self::IdentityHeaderChanged(_) => "identity_header_changed",
            Self::IdentityHeaderInvalid(_) => "identity_header_invalid",
            Self::ClaimMissing(_) => "claim_missing",
            Self::HeaderNameInvalid { .. } => "header_name_invalid",
            Self::HeaderValueInvalid { .. } => "header_value_invalid",
            Self::HeaderReserved { .. } => "header_reserved",
            Self::HeaderTwice { .. } => "header_twice",
            Self::CorsOriginInvalid { .. } => "cors_origin_invalid",
            Self::PublicUrlMissing(_) => "public_url_missing",
            Self::PublicUrlInvalid(_) => "public_url_invalid",
            Self::Unpaired(..) => "unpaired",
            Self::DataDirMissing => "data_dir_missing",
            Self::ListenTwice(_) => "listen_twice",
            Self::StoreUrlInvalid => "store_url_invalid",
            Self::StoreNotSupported => "store_not_supported",
            Self::WebhookHostInvalid(_) => "webhook_host_invalid",
        }
    }
}

/// A reason and where to look: `ringback.toml:7`, a variable's name, a flag; `None` for a default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub place: Option<String>,
    pub error: ConfigError,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: {}", self.error),
            None => self.error.fmt(f),
        }
    }
}

/// Every reason found, at least one. Prints one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Problem>);

impl ConfigErrors {
    /// The codes, in the order found.
    pub fn codes(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|problem| problem.error.code())
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
