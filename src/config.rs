//! Every setting of a node, after reading, overlaying and checking.
//!
//! `config.default.toml` holds each key with its unit and default and is compiled in. A person's
//! file, then `RINGBACK_…__…` environment variables, then command-line flags are laid over it key
//! by key. Unknown keys and contradictions refuse to start; what leaves this module is consistent.

mod retention;
mod server;
mod store;
mod units;
mod upstream;
mod webhooks;

pub use retention::RetentionConfig;
pub use server::ServerConfig;
pub use store::StoreConfig;
pub use upstream::{CorsConfig, HeadersConfig, IdentityConfig, IdentityMode, RetryConfig, UpstreamConfig};
pub use webhooks::WebhooksConfig;

use serde::Deserialize;

/// A checked configuration.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub server: ServerConfig,
    pub store: StoreConfig,
    pub upstreams: Vec<UpstreamConfig>,
    pub webhooks: WebhooksConfig,
    pub retention: RetentionConfig,
}
